//! Rates along a cosine, with and without restarts.

use std::f64::consts::PI;

use autograd::Result;

use super::super::check_range;
use super::{Schedule, check_steps};

/// `lr(t) = η + (lr(0) − η)·(1 + cos(πt/T))/2`: down to η at step T, and up again after it.
/// `torch.optim.lr_scheduler.CosineAnnealingLR`; Loshchilov & Hutter, arXiv 1608.03983.
#[derive(Clone, Copy, Debug)]
pub struct CosineAnnealingLR {
    t_max: u64,
    eta_min: f64,
}

impl CosineAnnealingLR {
    /// PyTorch's default of `eta_min` is 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a `t_max` of 0, or an `eta_min`
    /// that is not finite.
    pub fn new(t_max: u64, eta_min: f64) -> Result<Self> {
        check_steps("CosineAnnealingLR", "t_max", t_max)?;
        check_range("CosineAnnealingLR", "eta_min", eta_min, .., "finite")?;
        Ok(CosineAnnealingLR { t_max, eta_min })
    }
}

impl Schedule for CosineAnnealingLR {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        // The cosine of a large argument would lose digits.
        let step = step % self.t_max.saturating_mul(2);
        cosine(base_lr, self.eta_min, step as f64 / self.t_max as f64)
    }
}

/// [`CosineAnnealingLR`] that jumps back to the first rate after T₀ steps, then after T₀·m, T₀·m² and so
/// on. `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts`; Loshchilov & Hutter, arXiv 1608.03983.
#[derive(Clone, Copy, Debug)]
pub struct CosineAnnealingWarmRestarts {
    t_0: u64,
    t_mult: u64,
    eta_min: f64,
}

impl CosineAnnealingWarmRestarts {
    /// PyTorch's defaults of `t_mult` and `eta_min` are 1 and 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a `t_0` or `t_mult` of 0, or an
    /// `eta_min` that is not finite.
    pub fn new(t_0: u64, t_mult: u64, eta_min: f64) -> Result<Self> {
        let op = "CosineAnnealingWarmRestarts";
        check_steps(op, "t_0", t_0)?;
        check_steps(op, "t_mult", t_mult)?;
        check_range(op, "eta_min", eta_min, .., "finite")?;
        Ok(CosineAnnealingWarmRestarts { t_0, t_mult, eta_min })
    }
}

impl Schedule for CosineAnnealingWarmRestarts {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        let (mut step, mut period) = (step, self.t_0);
        if self.t_mult == 1 {
            step %= period;
        }
        while step >= period {
            step -= period;
            period = period.saturating_mul(self.t_mult);
        }
        cosine(base_lr, self.eta_min, step as f64 / period as f64)
    }
}

/// From `start` to `end` along half a cosine, for `done` in [0, 1]; exact at both ends.
pub(super) fn cosine(start: f64, end: f64, done: f64) -> f64 {
    if done == 0.0 {
        return start;
    }
    end + (start - end) * (1.0 + (PI * done).cos()) / 2.0
}
