//! Losses of yes-or-no questions.

use autograd::{BinaryOptions, Float, Reduction, Result, Var};

use super::regression::RegressionLoss;
use super::{divisor, number};

/// Binary cross entropy of logits against targets in [0, 1]. `torch.nn.BCEWithLogitsLoss`.
///
/// # Shape
/// Input and target of one shape; weights broadcast to it.
///
/// # Gradient
/// `σ(x) − t` without weights; see [`Var::binary_cross_entropy_with_logits`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Tape::new().var(Tensor::from([0.0_f64, 0.0]));
/// let loss = BCEWithLogitsLoss::new(Default::default())?.forward(&x, &Tensor::from([0.0, 1.0]))?;
/// assert!((loss.item()? - 2.0_f64.ln()).abs() < 1e-15);
/// assert_eq!(loss.backward()?.wrt(&x)?.to_vec(), [0.25, -0.25]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BCEWithLogitsLoss<T: Float> {
    options: BinaryOptions<T>,
}

impl<T: Float> BCEWithLogitsLoss<T> {
    /// The loss with these options.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for weights that are negative, infinite
    /// or NaN, and for a bad divisor.
    pub fn new(options: BinaryOptions<T>) -> Result<Self> {
        options.validate("BCEWithLogitsLoss")?;
        Ok(BCEWithLogitsLoss { options })
    }
}

impl<T: Float> RegressionLoss<T> for BCEWithLogitsLoss<T> {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.binary_cross_entropy_with_logits(target, &self.options)
    }
}

/// Binary cross entropy of probabilities against targets in [0, 1]. `torch.nn.BCELoss`; for logits
/// [`BCEWithLogitsLoss`] is exact.
///
/// # Shape
/// Input and target of one shape; weights broadcast to it.
///
/// # Gradient
/// `(x − t)/(x·(1 − x))` without weights; see [`Var::binary_cross_entropy`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from([0.5_f64, 1.0]));
/// let loss = BCELoss::new(Default::default())?.forward(&x, &Tensor::from([0.0, 1.0]))?;
/// assert!((loss.item()? - 2.0_f64.ln() / 2.0).abs() < 1e-15);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct BCELoss<T: Float> {
    options: BinaryOptions<T>,
}

impl<T: Float> BCELoss<T> {
    /// The loss with these options.
    ///
    /// # Errors
    /// As [`BCEWithLogitsLoss::new`].
    pub fn new(options: BinaryOptions<T>) -> Result<Self> {
        options.validate("BCELoss")?;
        Ok(BCELoss { options })
    }
}

impl<T: Float> RegressionLoss<T> for BCELoss<T> {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.binary_cross_entropy(target, &self.options)
    }
}

/// Focal loss of logits against targets in [0, 1]: `α_t·(1−p_t)^γ` times binary cross entropy.
///
/// # Shape
/// Input and target of one shape.
///
/// # Gradient
/// See [`Var::sigmoid_focal_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from([0.0_f64]));
/// let loss = SigmoidFocalLoss::new(2.0, Some(0.25), Reduction::Mean)?;
/// let value = loss.forward(&x, &Tensor::from([1.0]))?.item()?;
/// assert!((value - 0.25 * 0.25 * 2.0_f64.ln()).abs() < 1e-15);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SigmoidFocalLoss {
    gamma: f64,
    alpha: Option<f64>,
    reduction: Reduction,
}

impl SigmoidFocalLoss {
    /// The loss with this γ ≥ 0 and, where wanted, α in [0, 1]. RetinaNet has 2 and ¼.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for other numbers.
    pub fn new(gamma: f64, alpha: Option<f64>, reduction: Reduction) -> Result<Self> {
        let op = "SigmoidFocalLoss";
        divisor(op, reduction)?;
        number(op, "gamma", gamma, gamma >= 0.0, "finite and not negative")?;
        if let Some(alpha) = alpha {
            number(op, "alpha", alpha, (0.0..=1.0).contains(&alpha), "in [0, 1]")?;
        }
        Ok(SigmoidFocalLoss { gamma, alpha, reduction })
    }
}

impl<T: Float> RegressionLoss<T> for SigmoidFocalLoss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.sigmoid_focal_loss(target, self.gamma, self.alpha, self.reduction)
    }
}
