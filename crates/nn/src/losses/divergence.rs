//! Divergences of distributions.

use autograd::{Float, KlReduction, Result, Var};

use super::number;
use super::regression::RegressionLoss;

/// Kullback–Leibler divergence of probabilities, or of their logarithms, from log-probabilities.
/// `torch.nn.KLDivLoss`.
///
/// # Shape
/// Input and target of one shape.
///
/// # Gradient
/// `−q`; see [`Var::kl_div`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let log_p = Var::constant(Tensor::from_vec(vec![0.5_f64.ln(), 0.5_f64.ln()], [1, 2])?);
/// let q = Tensor::from_vec(vec![1.0, 0.0], [1, 2])?;
/// let loss = KLDivLoss::default().forward(&log_p, &q)?;
/// assert_eq!(loss.item()?, 2.0_f64.ln());
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct KLDivLoss {
    /// What becomes of the elements; by default the mean over the batch.
    pub reduction: KlReduction,
    /// Whether the target is the logarithm of probabilities.
    pub log_target: bool,
}

impl<T: Float> RegressionLoss<T> for KLDivLoss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.kl_div(target, self.log_target, self.reduction)
    }
}

/// What a student's logits have to learn from a teacher's at a temperature.
///
/// # Shape
/// Input and target `[C]`, `[N, C]` or `[N, C, d1, ..]`.
///
/// # Gradient
/// `(τ/N)·(softmax(x/τ) − softmax(t/τ))`; see [`Var::distillation_loss`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Tape::new().var(Tensor::from_vec(vec![0.0_f64, 0.0], [1, 2])?);
/// let teacher = Tensor::from_vec(vec![2.0 * 3.0_f64.ln(), 0.0], [1, 2])?;
/// let loss = DistillationLoss::new(2.0)?.forward(&x, &teacher)?;
/// let dx = loss.backward()?.wrt(&x)?.to_vec(); // 2·(½ − ¾)
/// assert!((dx[0] + 0.5).abs() < 1e-15 && (dx[1] - 0.5).abs() < 1e-15);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct DistillationLoss {
    temperature: f64,
}

impl DistillationLoss {
    /// The loss at this temperature.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) unless it is positive and finite.
    pub fn new(temperature: f64) -> Result<Self> {
        let (op, what) = ("DistillationLoss", "positive and finite");
        number(op, "temperature", temperature, temperature > 0.0, what)?;
        Ok(DistillationLoss { temperature })
    }
}

impl<T: Float> RegressionLoss<T> for DistillationLoss {
    #[track_caller]
    fn apply(&self, input: &Var<T>, target: &Var<T>) -> Result<Var<T>> {
        input.distillation_loss(target, self.temperature)
    }
}
