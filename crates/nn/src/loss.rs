//! Losses on class targets, as modules around the fused operations of [`autograd`].

use autograd::{ClassOptions, Error, Float, Result, Target, Var};

/// A loss of scores or log-probabilities against classes, so that training code can take any.
pub trait Loss<T: Float> {
    /// The loss; [`Loss::forward`] is more convenient.
    ///
    /// # Errors
    /// As the operation behind the loss.
    fn apply(&self, input: &Var<T>, target: Target<'_, T>) -> Result<Var<T>>;

    /// The loss of `input` against class indices (`&Tensor<i64>`) or probabilities (`&Tensor<T>`, or
    /// a `&Var<T>` that may receive a gradient).
    ///
    /// # Errors
    /// As [`Loss::apply`].
    #[track_caller]
    fn forward<'a>(&self, input: &Var<T>, target: impl Into<Target<'a, T>>) -> Result<Var<T>>
    where
        Self: Sized,
    {
        self.apply(input, target.into())
    }
}

/// Options of [`CrossEntropyLoss`].
pub type CrossEntropyOptions<T> = ClassOptions<T>;
/// Options of [`NLLLoss`].
pub type NLLLossOptions<T> = ClassOptions<T>;

/// Cross entropy of logits and targets, class indices or probabilities: `log Σ exp(x_j) − x_y` for an
/// index, averaged over the batch.
/// `torch.nn.CrossEntropyLoss`.
///
/// # Shape
/// Logits `[C]`, `[N, C]` or `[N, C, d1, ..]`; class indices the same without C, probabilities the
/// same. The loss has rank 0, or the indices' shape for
/// [`Reduction::None`](autograd::Reduction::None).
///
/// # Gradient
/// `softmax − smoothed_onehot`, times the upstream gradient, over the divisor of the mean; see
/// [`Var::cross_entropy`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let options = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
/// let loss = CrossEntropyLoss::new(options)?;
/// let tape = Tape::new();
/// let x = tape.var(Tensor::<f64>::zeros([1, 4])?);
/// let y = Tensor::from_vec(vec![2_i64], [1])?;
/// let value = loss.forward(&x, &y)?;
/// assert!((value.item()? - 4.0_f64.ln()).abs() < 1e-15);
/// let dx = value.backward()?.wrt(&x)?.to_vec(); // ¼ − (0.9·onehot + 0.025)
/// assert!(dx.iter().zip([0.225, 0.225, -0.675, 0.225]).all(|(a, b)| (a - b).abs() < 1e-15));
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct CrossEntropyLoss<T: Float> {
    options: CrossEntropyOptions<T>,
}

impl<T: Float> CrossEntropyLoss<T> {
    /// The loss with these options.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a smoothing outside [0, 1], or
    /// weights that are negative, infinite or NaN.
    pub fn new(options: CrossEntropyOptions<T>) -> Result<Self> {
        options.validate("CrossEntropyLoss")?;
        Ok(CrossEntropyLoss { options })
    }
}

impl<T: Float> Loss<T> for CrossEntropyLoss<T> {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: Target<'_, T>) -> Result<Var<T>> {
        input.cross_entropy(target, &self.options)
    }
}

/// Negative log-likelihood of class targets, for log-probabilities. `torch.nn.NLLLoss`, with label
/// smoothing besides.
///
/// On the result of [`LogSoftmax`](crate::LogSoftmax) along the class dim it records the same node
/// as [`CrossEntropyLoss`], bit for bit.
///
/// # Shape
/// Log-probabilities `[C]`, `[N, C]` or `[N, C, d1, ..]`; targets the same without C.
///
/// # Gradient
/// `−c` in the log-probabilities; see [`Var::nll_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let tape = Tape::new();
/// let x = tape.var(Tensor::from_vec(vec![1.0_f64, 2.0, 3.0], [1, 3])?);
/// let y = Tensor::from_vec(vec![0_i64], [1])?;
/// let composed = NLLLoss::new(Default::default())?.forward(&LogSoftmax::new(1).forward(&x)?, &y)?;
/// let fused = CrossEntropyLoss::new(Default::default())?.forward(&x, &y)?;
/// assert_eq!(composed.item()?, fused.item()?);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NLLLoss<T: Float> {
    options: NLLLossOptions<T>,
}

impl<T: Float> NLLLoss<T> {
    /// The loss with these options.
    ///
    /// # Errors
    /// As [`CrossEntropyLoss::new`].
    pub fn new(options: NLLLossOptions<T>) -> Result<Self> {
        options.validate("NLLLoss")?;
        Ok(NLLLoss { options })
    }
}

impl<T: Float> Loss<T> for NLLLoss<T> {
    /// The loss of log-probabilities against class indices.
    ///
    /// # Errors
    /// As [`Var::nll_loss`]; [`Error::InvalidArgument`] for probabilities.
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: Target<'_, T>) -> Result<Var<T>> {
        match target {
            Target::Classes(target) => input.nll_loss(target, &self.options),
            Target::Probabilities(_) => {
                let reason = "must be class indices; CrossEntropyLoss takes probabilities".into();
                Err(Error::InvalidArgument { op: "NLLLoss", name: "target", reason })
            }
        }
    }
}
