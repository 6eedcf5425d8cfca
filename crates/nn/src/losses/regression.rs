//! Losses of the difference of two tensors.

use std::borrow::Cow;

use autograd::{Float, Reduction, Result, Tensor, Var};

use super::{divisor, number};

/// What an input should be: a tensor, or a variable that may receive a gradient.
#[derive(Clone, Debug)]
pub struct Values<'a, T: Float>(Cow<'a, Var<T>>);

impl<'a, T: Float> From<&'a Var<T>> for Values<'a, T> {
    fn from(values: &'a Var<T>) -> Self {
        Values(Cow::Borrowed(values))
    }
}

impl<T: Float> From<&Tensor<T>> for Values<'_, T> {
    fn from(values: &Tensor<T>) -> Self {
        Values(Cow::Owned(Var::constant(values.clone())))
    }
}

impl<T: Float> std::ops::Deref for Values<'_, T> {
    type Target = Var<T>;
    fn deref(&self) -> &Var<T> {
        &self.0
    }
}

/// A loss of numbers against numbers of the same shape, so that training code can take any.
pub trait RegressionLoss<T: Float> {
    /// The loss; [`RegressionLoss::forward`] is more convenient.
    ///
    /// # Errors
    /// As the operation behind the loss.
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>>;

    /// The loss of `input` against `target`: a `&Tensor`, or a `&Var` that may receive a gradient.
    ///
    /// # Errors
    /// As [`RegressionLoss::apply`].
    #[track_caller]
    fn forward<'a>(&self, input: &Var<T>, target: impl Into<Values<'a, T>>) -> Result<Var<T>>
    where
        T: 'a,
        Self: Sized,
    {
        self.apply(input, &target.into())
    }
}

/// Squared error `d²` of `d = x − t`. `torch.nn.MSELoss`.
///
/// # Shape
/// Input and target of one shape; nothing broadcasts.
///
/// # Gradient
/// `2·d`; see [`Var::mse_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Tape::new().var(Tensor::from([1.0_f64, 4.0]));
/// let loss = MSELoss::new(Reduction::Mean)?.forward(&x, &Tensor::from([0.0, 2.0]))?;
/// assert_eq!(loss.item()?, 2.5);
/// assert_eq!(loss.backward()?.wrt(&x)?.to_vec(), [1.0, 2.0]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MSELoss {
    reduction: Reduction,
}

impl MSELoss {
    /// The loss with this reduction.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a divisor that is not positive and
    /// finite.
    pub fn new(reduction: Reduction) -> Result<Self> {
        divisor("MSELoss", reduction)?;
        Ok(MSELoss { reduction })
    }
}

impl<T: Float> RegressionLoss<T> for MSELoss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.mse_loss(target, self.reduction)
    }
}

/// Absolute error `|x − t|`. `torch.nn.L1Loss`.
///
/// # Shape
/// Input and target of one shape; nothing broadcasts.
///
/// # Gradient
/// The sign of the difference; see [`Var::l1_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from([1.0_f64, 4.0]));
/// let loss = L1Loss::new(Reduction::Mean)?.forward(&x, &Tensor::from([0.0, 2.0]))?;
/// assert_eq!(loss.item()?, 1.5);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct L1Loss {
    reduction: Reduction,
}

impl L1Loss {
    /// The loss with this reduction.
    ///
    /// # Errors
    /// As [`MSELoss::new`].
    pub fn new(reduction: Reduction) -> Result<Self> {
        divisor("L1Loss", reduction)?;
        Ok(L1Loss { reduction })
    }
}

impl<T: Float> RegressionLoss<T> for L1Loss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.l1_loss(target, self.reduction)
    }
}

/// Squared error near the target, absolute error beyond β, in units of β. `torch.nn.SmoothL1Loss`.
///
/// # Shape
/// Input and target of one shape; nothing broadcasts.
///
/// # Gradient
/// See [`Var::smooth_l1_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from([1.0_f64, 4.0]));
/// let loss = SmoothL1Loss::new(2.0, Reduction::None)?.forward(&x, &Tensor::from([0.0, 0.0]))?;
/// assert_eq!(loss.value().to_vec(), [0.25, 3.0]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SmoothL1Loss {
    beta: f64,
    reduction: Reduction,
}

impl SmoothL1Loss {
    /// The loss with this β ≥ 0; PyTorch's default is 1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for another β or a bad divisor.
    pub fn new(beta: f64, reduction: Reduction) -> Result<Self> {
        divisor("SmoothL1Loss", reduction)?;
        number("SmoothL1Loss", "beta", beta, beta >= 0.0, "finite and not negative")?;
        Ok(SmoothL1Loss { beta, reduction })
    }
}

impl<T: Float> RegressionLoss<T> for SmoothL1Loss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.smooth_l1_loss(target, self.beta, self.reduction)
    }
}

/// Half the squared error near the target, δ times the absolute error beyond δ. `torch.nn.HuberLoss`.
///
/// # Shape
/// Input and target of one shape; nothing broadcasts.
///
/// # Gradient
/// The difference, held within ±δ; see [`Var::huber_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Var::constant(Tensor::from([1.0_f64, 4.0]));
/// let loss = HuberLoss::new(2.0, Reduction::None)?.forward(&x, &Tensor::from([0.0, 0.0]))?;
/// assert_eq!(loss.value().to_vec(), [0.5, 6.0]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct HuberLoss {
    delta: f64,
    reduction: Reduction,
}

impl HuberLoss {
    /// The loss with this δ > 0; PyTorch's default is 1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for another δ or a bad divisor.
    pub fn new(delta: f64, reduction: Reduction) -> Result<Self> {
        divisor("HuberLoss", reduction)?;
        number("HuberLoss", "delta", delta, delta > 0.0, "positive and finite")?;
        Ok(HuberLoss { delta, reduction })
    }
}

impl<T: Float> RegressionLoss<T> for HuberLoss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.huber_loss(target, self.delta, self.reduction)
    }
}
