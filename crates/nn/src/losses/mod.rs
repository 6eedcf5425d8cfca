//! Losses, as modules around the fused operations of [`autograd`]: here those on classes.

mod binary;
mod divergence;
mod linear;
mod regression;

use autograd::{
    BatchWeights, ClassLoss, ClassOptions, Error, Float, Reduction, Result, Target, Var,
};

pub use binary::{BCELoss, BCEWithLogitsLoss, SigmoidFocalLoss};
pub use divergence::{DistillationLoss, KLDivLoss};
pub use linear::LinearCrossEntropyLoss;
pub use regression::{HuberLoss, L1Loss, MSELoss, RegressionLoss, SmoothL1Loss, Values};

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

    /// The loss with weights that come with the batch, and with what the same pass over the logits
    /// finds besides: the log of each row's sum, how many rows count, how many are right.
    ///
    /// # Errors
    /// As [`Var::cross_entropy_detailed`].
    #[track_caller]
    pub fn detailed<'a>(
        &self,
        input: &Var<T>,
        target: impl Into<Target<'a, T>>,
        weights: &BatchWeights<'_, T>,
    ) -> Result<ClassLoss<T>> {
        input.cross_entropy_detailed(target, weights, &self.options)
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
        number("NLLLoss", "z_loss", options.z_loss, options.z_loss == 0.0, "0: it is for logits")?;
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

/// Focal loss on classes: `(1−p_y)^γ·(−ln p_y)`, which gives rows that are right already less weight.
///
/// # Shape
/// As [`CrossEntropyLoss`], with class indices.
///
/// # Gradient
/// See [`Var::focal_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from_vec(vec![0.0_f64, 0.0], [1, 2])?);
/// let y = Tensor::from_vec(vec![1_i64], [1])?;
/// let loss = FocalLoss::new(2.0, Default::default())?.forward(&x, &y)?;
/// assert!((loss.item()? - 0.25 * 2.0_f64.ln()).abs() < 1e-15);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FocalLoss<T: Float> {
    gamma: f64,
    options: ClassOptions<T>,
}

impl<T: Float> FocalLoss<T> {
    /// The loss with this γ ≥ 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a γ that is negative, infinite or NaN, and for options.
    pub fn new(gamma: f64, options: ClassOptions<T>) -> Result<Self> {
        no_smoothing("FocalLoss", &options)?;
        number("FocalLoss", "gamma", gamma, gamma >= 0.0, "finite and not negative")?;
        Ok(FocalLoss { gamma, options })
    }
}

impl<T: Float> Loss<T> for FocalLoss<T> {
    /// The loss of logits against class indices.
    ///
    /// # Errors
    /// As [`Var::focal_loss`]; [`Error::InvalidArgument`] for probabilities.
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: Target<'_, T>) -> Result<Var<T>> {
        match target {
            Target::Classes(target) => input.focal_loss(target, self.gamma, &self.options),
            Target::Probabilities(_) => {
                let (name, reason) = ("target", "must be class indices".into());
                Err(Error::InvalidArgument { op: "FocalLoss", name, reason })
            }
        }
    }
}

/// PolyLoss-1: cross entropy plus `ε₁·(1 − p_y)`.
///
/// # Shape
/// As [`CrossEntropyLoss`].
///
/// # Gradient
/// See [`Var::poly_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from_vec(vec![0.0_f64, 0.0], [1, 2])?);
/// let y = Tensor::from_vec(vec![1_i64], [1])?;
/// let loss = PolyLoss::new(2.0, Default::default())?.forward(&x, &y)?;
/// assert!((loss.item()? - (2.0_f64.ln() + 1.0)).abs() < 1e-15);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PolyLoss<T: Float> {
    epsilon: f64,
    options: ClassOptions<T>,
}

impl<T: Float> PolyLoss<T> {
    /// The loss with this ε₁.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an ε₁ that is infinite or NaN, and for options.
    pub fn new(epsilon: f64, options: ClassOptions<T>) -> Result<Self> {
        no_smoothing("PolyLoss", &options)?;
        number("PolyLoss", "epsilon", epsilon, true, "finite")?;
        Ok(PolyLoss { epsilon, options })
    }
}

impl<T: Float> Loss<T> for PolyLoss<T> {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: Target<'_, T>) -> Result<Var<T>> {
        input.poly_loss(target, self.epsilon, &self.options)
    }
}

/// The focusing losses have the options of cross entropy but these.
fn no_smoothing<T: Float>(op: &'static str, options: &ClassOptions<T>) -> Result<()> {
    options.validate(op)?;
    number(op, "label_smoothing", options.label_smoothing, options.label_smoothing == 0.0, "0")?;
    number(op, "z_loss", options.z_loss, options.z_loss == 0.0, "0")
}

/// Checks a number at construction.
fn number(op: &'static str, name: &'static str, x: f64, valid: bool, what: &str) -> Result<()> {
    if x.is_finite() && valid {
        return Ok(());
    }
    Err(Error::InvalidArgument { op, name, reason: format!("must be {what}, found {x}") })
}

/// Checks a divisor at construction.
fn divisor(op: &'static str, reduction: Reduction) -> Result<()> {
    match reduction {
        Reduction::Divisor(d) => number(op, "reduction", d, d > 0.0, "a positive, finite divisor"),
        _ => Ok(()),
    }
}
