//! Losses on class targets, as modules around the fused operations of [`autograd`].

use autograd::{ClassOptions, Float, Result, Tensor, Var};

/// Options of [`CrossEntropyLoss`].
pub type CrossEntropyOptions<T> = ClassOptions<T>;
/// Options of [`NLLLoss`].
pub type NLLLossOptions<T> = ClassOptions<T>;

/// Cross entropy of logits and class targets: `log Σ exp(x_j) − x_y`, averaged over the batch.
/// `torch.nn.CrossEntropyLoss`.
///
/// # Shape
/// Logits `[C]`, `[N, C]` or `[N, C, d1, ..]`; targets the same without C. The loss has rank 0, or
/// the targets' shape for [`Reduction::None`](autograd::Reduction::None).
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

    /// The loss of logits `input` against class indices.
    ///
    /// # Errors
    /// As [`Var::cross_entropy`].
    pub fn forward(&self, input: &Var<T>, target: &Tensor<i64>) -> Result<Var<T>> {
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

    /// The loss of log-probabilities `input` against class indices.
    ///
    /// # Errors
    /// As [`Var::nll_loss`].
    pub fn forward(&self, input: &Var<T>, target: &Tensor<i64>) -> Result<Var<T>> {
        input.nll_loss(target, &self.options)
    }
}
