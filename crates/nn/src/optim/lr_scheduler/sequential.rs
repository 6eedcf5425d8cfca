//! One schedule after another.

use std::fmt;

use autograd::{Error, Result};

use super::Schedule;

/// Each schedule from its milestone on, at the steps counted from there, and from the rate that the
/// groups began with. `torch.optim.lr_scheduler.SequentialLR`.
///
/// ```
/// use nn::optim::lr_scheduler::{CosineAnnealingLR, LRScheduler, LinearLR, SequentialLR};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut optimizer = Sgd::<f32>::new(SgdOptions { lr: 0.5, ..Default::default() })?;
/// let (warm_up, cosine) = (LinearLR::new(0.1, 1.0, 10)?, CosineAnnealingLR::new(90, 0.0)?);
/// let both = SequentialLR::new(vec![Box::new(warm_up), Box::new(cosine)], vec![10])?;
/// let mut scheduler = LRScheduler::new(&mut optimizer, both)?;
/// assert_eq!(optimizer.lr(), 0.05);
/// (0..10).try_for_each(|_| scheduler.step(&mut optimizer))?;
/// assert_eq!(optimizer.lr(), 0.5);
/// # Ok(())
/// # }
/// ```
pub struct SequentialLR {
    schedules: Vec<Box<dyn Schedule>>,
    milestones: Vec<u64>,
}

impl fmt::Debug for SequentialLR {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequentialLR({} schedules, {:?})", self.schedules.len(), self.milestones)
    }
}

impl SequentialLR {
    /// # Errors
    /// [`Error::InvalidArgument`] unless there is one milestone less than schedules, and each is larger
    /// than the one before.
    pub fn new(schedules: Vec<Box<dyn Schedule>>, milestones: Vec<u64>) -> Result<Self> {
        let (op, name) = ("SequentialLR", "milestones");
        if milestones.len() + 1 != schedules.len() {
            let (found, n) = (milestones.len(), schedules.len());
            let reason = format!("must be one less than the {n} schedules, found {found}");
            return Err(Error::InvalidArgument { op, name, reason });
        }
        if !milestones.is_sorted_by(|a, b| a < b) {
            let reason = format!("must ascend, found {milestones:?}");
            return Err(Error::InvalidArgument { op, name, reason });
        }
        Ok(SequentialLR { schedules, milestones })
    }

    /// The schedule at a step, and the step it begins at.
    fn at(&self, step: u64) -> (&dyn Schedule, u64) {
        let passed = self.milestones.partition_point(|&milestone| milestone <= step);
        let start = if passed == 0 { 0 } else { self.milestones[passed - 1] };
        (&*self.schedules[passed], start)
    }
}

impl Schedule for SequentialLR {
    fn lr(&self, step: u64, base_lr: f64, group: usize) -> f64 {
        let (schedule, start) = self.at(step);
        schedule.lr(step - start, base_lr, group)
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let (schedule, start) = self.at(step);
        schedule.momentum(step - start)
    }

    fn last_step(&self) -> Option<u64> {
        let (schedule, start) = self.at(u64::MAX);
        schedule.last_step().map(|last| last.saturating_add(start))
    }

    fn check_groups(&self, groups: usize) -> Result<()> {
        self.schedules.iter().try_for_each(|schedule| schedule.check_groups(groups))
    }
}
