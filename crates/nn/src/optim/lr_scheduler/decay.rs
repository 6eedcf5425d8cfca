//! Rates that are the first rate times a factor: steps, powers, lines, and any function.

use autograd::Result;

use super::super::{check_positive, check_range};
use super::{Schedule, check_steps};

/// `lr(t) = lr(0)·γ^⌊t/step_size⌋`. `torch.optim.lr_scheduler.StepLR`.
#[derive(Clone, Copy, Debug)]
pub struct StepLR {
    step_size: u64,
    gamma: f64,
}

impl StepLR {
    /// PyTorch's default of `gamma` is 0.1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a `step_size` of 0, or a `gamma`
    /// that is negative or not finite.
    pub fn new(step_size: u64, gamma: f64) -> Result<Self> {
        check_steps("StepLR", "step_size", step_size)?;
        check_positive("StepLR", [("gamma", gamma)])?;
        Ok(StepLR { step_size, gamma })
    }
}

impl Schedule for StepLR {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        base_lr * power(self.gamma, step / self.step_size)
    }
}

/// `lr(t) = lr(0)·γᵏ` after k of the milestones; one that is named twice counts twice.
/// `torch.optim.lr_scheduler.MultiStepLR`.
#[derive(Clone, Debug)]
pub struct MultiStepLR {
    /// In ascending order.
    milestones: Vec<u64>,
    gamma: f64,
}

impl MultiStepLR {
    /// The milestones come in any order. PyTorch's default of `gamma` is 0.1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a `gamma` that is negative or not
    /// finite.
    pub fn new(milestones: impl Into<Vec<u64>>, gamma: f64) -> Result<Self> {
        check_positive("MultiStepLR", [("gamma", gamma)])?;
        let mut milestones = milestones.into();
        milestones.sort_unstable();
        Ok(MultiStepLR { milestones, gamma })
    }
}

impl Schedule for MultiStepLR {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        let passed = self.milestones.partition_point(|&milestone| milestone <= step);
        base_lr * power(self.gamma, passed as u64)
    }
}

/// `lr(t) = lr(0)·γᵗ`. `torch.optim.lr_scheduler.ExponentialLR`.
#[derive(Clone, Copy, Debug)]
pub struct ExponentialLR {
    gamma: f64,
}

impl ExponentialLR {
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a `gamma` that is negative or not
    /// finite.
    pub fn new(gamma: f64) -> Result<Self> {
        check_positive("ExponentialLR", [("gamma", gamma)])?;
        Ok(ExponentialLR { gamma })
    }
}

impl Schedule for ExponentialLR {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        base_lr * power(self.gamma, step)
    }
}

/// Warm-up: `lr(t) = lr(0)·(s + (e − s)·min(t, n)/n)` from the factor s to the factor e over n steps.
/// `torch.optim.lr_scheduler.LinearLR`.
#[derive(Clone, Copy, Debug)]
pub struct LinearLR {
    start_factor: f64,
    end_factor: f64,
    total_iters: u64,
}

impl LinearLR {
    /// PyTorch's defaults are 1/3, 1 and 5.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a `start_factor` outside (0, 1], an
    /// `end_factor` outside [0, 1], or no steps.
    pub fn new(start_factor: f64, end_factor: f64, total_iters: u64) -> Result<Self> {
        let op = "LinearLR";
        let start = f64::MIN_POSITIVE..=1.0;
        check_range(op, "start_factor", start_factor, start, "in (0, 1]")?;
        check_range(op, "end_factor", end_factor, 0.0..=1.0, "in [0, 1]")?;
        check_steps(op, "total_iters", total_iters)?;
        Ok(LinearLR { start_factor, end_factor, total_iters })
    }
}

impl Schedule for LinearLR {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        let done = step.min(self.total_iters) as f64 / self.total_iters as f64;
        base_lr * (self.start_factor + (self.end_factor - self.start_factor) * done)
    }
}

/// `lr(t) = lr(0)·f(t)`. `torch.optim.lr_scheduler.LambdaLR`.
///
/// ```
/// use nn::optim::lr_scheduler::{LRScheduler, LambdaLR};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut optimizer = Sgd::<f32>::new(SgdOptions { lr: 0.5, ..Default::default() })?;
/// let inverse = LambdaLR::new(|step| 1.0 / (1.0 + step as f64));
/// let mut scheduler = LRScheduler::new(&mut optimizer, inverse)?;
/// scheduler.step(&mut optimizer)?;
/// assert_eq!(optimizer.lr(), 0.25);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LambdaLR<F> {
    factor: F,
}

impl<F: Fn(u64) -> f64> LambdaLR<F> {
    /// The schedule of this factor.
    pub fn new(factor: F) -> Self {
        LambdaLR { factor }
    }
}

impl<F: Fn(u64) -> f64> Schedule for LambdaLR<F> {
    fn lr(&self, step: u64, base_lr: f64, _: usize) -> f64 {
        base_lr * (self.factor)(step)
    }
}

fn power(gamma: f64, exponent: u64) -> f64 {
    gamma.powf(exponent as f64)
}
