//! Schedules of the learning rate, over any optimiser and its groups.
//!
//! A [`Schedule`] is a formula: the rate at a step, from the rate that a group began with. [`LRScheduler`]
//! counts the steps and sets the rates. [`ReduceLROnPlateau`] stands apart, for it looks at a metric.

mod cosine;
mod decay;
mod one_cycle;
mod plateau;
mod sequential;

use std::collections::BTreeMap;

use autograd::{Error, Result};

use super::ParamGroups;
use super::state::{MOST_STEPS, Reader};

pub use cosine::{CosineAnnealingLR, CosineAnnealingWarmRestarts};
pub use decay::{ExponentialLR, LambdaLR, LinearLR, MultiStepLR, StepLR};
pub use one_cycle::{Anneal, OneCycleLR, OneCycleOptions};
pub use plateau::{Mode, PlateauOptions, ReduceLROnPlateau, ThresholdMode};
pub use sequential::SequentialLR;

/// The learning rate as a function of the step.
pub trait Schedule {
    /// The rate at a step, from 0, of a group that began with `base_lr`.
    fn lr(&self, step: u64, base_lr: f64, group: usize) -> f64;

    /// The momentum at a step, for schedules that change it.
    fn momentum(&self, step: u64) -> Option<f64> {
        let _ = step;
        None
    }

    /// The last step there is, where the schedule ends.
    fn last_step(&self) -> Option<u64> {
        None
    }

    /// Refuses a number of groups that the schedule was not made for.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], saying what it was made for.
    fn check_groups(&self, groups: usize) -> Result<()> {
        let _ = groups;
        Ok(())
    }
}

impl<S: Schedule + ?Sized> Schedule for Box<S> {
    fn lr(&self, step: u64, base_lr: f64, group: usize) -> f64 {
        (**self).lr(step, base_lr, group)
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        (**self).momentum(step)
    }

    fn last_step(&self) -> Option<u64> {
        (**self).last_step()
    }

    fn check_groups(&self, groups: usize) -> Result<()> {
        (**self).check_groups(groups)
    }
}

/// A scheduler whose state a [`Checkpoint`](crate::Checkpoint) holds.
///
/// # Examples
/// ```
/// use nn::optim::lr_scheduler::{LRScheduler, Resumable, StepLR};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut sgd = Sgd::<f32>::new(SgdOptions { lr: 1.0, ..Default::default() })?;
/// let scheduler = LRScheduler::new(&mut sgd, StepLR::new(1, 0.5)?)?;
/// let scheduler: &dyn Resumable = &scheduler;
/// assert_eq!(scheduler.state()["last_epoch"], 0.0);
/// # Ok(())
/// # }
/// ```
pub trait Resumable {
    /// The scheduler's `state_dict`.
    fn state(&self) -> BTreeMap<String, f64>;

    /// The scheduler's `load_state_dict`, and what follows from it for the optimiser's rates.
    ///
    /// # Errors
    /// Those of `load_state_dict`; scheduler and optimiser are then as they were.
    fn resume(
        &mut self,
        optimizer: &mut dyn ParamGroups,
        state: &BTreeMap<String, f64>,
    ) -> Result<()>;
}

impl<S: Schedule> Resumable for LRScheduler<S> {
    fn state(&self) -> BTreeMap<String, f64> {
        self.state_dict()
    }

    fn resume(
        &mut self,
        optimizer: &mut dyn ParamGroups,
        state: &BTreeMap<String, f64>,
    ) -> Result<()> {
        self.load_state_dict(optimizer, state)
    }
}

impl Resumable for ReduceLROnPlateau {
    fn state(&self) -> BTreeMap<String, f64> {
        self.state_dict()
    }

    fn resume(&mut self, _: &mut dyn ParamGroups, state: &BTreeMap<String, f64>) -> Result<()> {
        self.load_state_dict(state)
    }
}

/// Sets the learning rates of an optimiser along a [`Schedule`]. `torch.optim.lr_scheduler.LRScheduler`.
///
/// The rate is computed from the step alone and not from the rate before it, as PyTorch does in most
/// schedules: a rate that somebody else sets lasts until the next step.
///
/// ```
/// use nn::optim::lr_scheduler::{LRScheduler, StepLR};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut optimizer = Sgd::<f32>::new(SgdOptions { lr: 0.5, ..Default::default() })?;
/// let mut scheduler = LRScheduler::new(&mut optimizer, StepLR::new(2, 0.1)?)?;
/// let mut rates = Vec::new();
/// for _ in 0..4 {
///     rates.push(optimizer.lr());
///     // forward, backward, optimizer.step(…)
///     scheduler.step(&mut optimizer)?;
/// }
/// assert_eq!(rates, [0.5, 0.5, 0.05, 0.05]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct LRScheduler<S> {
    schedule: S,
    base_lrs: Vec<f64>,
    last_epoch: u64,
}

impl<S: Schedule> LRScheduler<S> {
    /// Begins at step 0, with the optimiser's rates as those that the groups begin with.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the schedule was made for another number of groups, or changes a
    /// momentum that the optimiser has not.
    pub fn new(optimizer: &mut dyn ParamGroups, schedule: S) -> Result<Self> {
        let base_lrs = optimizer.rates().into_iter().map(|rates| *rates.lr).collect();
        let this = LRScheduler { schedule, base_lrs, last_epoch: 0 };
        this.schedule.check_groups(this.base_lrs.len())?;
        this.apply(optimizer, 0, &this.base_lrs)?;
        Ok(this)
    }

    /// Goes on to the next step and sets its rates. To be called after the optimiser's `step`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] past the end of the schedule, or for an optimiser with another number
    /// of groups; nothing is changed then.
    pub fn step(&mut self, optimizer: &mut dyn ParamGroups) -> Result<()> {
        let step = self.last_epoch + 1;
        if let Some(last) = self.schedule.last_step().filter(|&last| step > last) {
            let reason = format!("{step} is past the end of the schedule, {last}");
            return Err(Error::InvalidArgument { op: "LRScheduler", name: "step", reason });
        }
        self.apply(optimizer, step, &self.base_lrs)?;
        self.last_epoch = step;
        Ok(())
    }

    /// The steps so far.
    pub fn last_epoch(&self) -> u64 {
        self.last_epoch
    }

    /// The rates that were set last, group by group. PyTorch's `get_last_lr`.
    pub fn last_lr(&self) -> Vec<f64> {
        let of = |(group, &base): (usize, &f64)| self.schedule.lr(self.last_epoch, base, group);
        self.base_lrs.iter().enumerate().map(of).collect()
    }

    /// The steps so far and the rates that the groups began with. The schedule's own options are not
    /// part of it.
    pub fn state_dict(&self) -> BTreeMap<String, f64> {
        let base = self.base_lrs.iter().enumerate();
        let base = base.map(|(i, &lr)| (format!("base_lrs.{i}"), lr));
        base.chain([("last_epoch".to_owned(), self.last_epoch as f64)]).collect()
    }

    /// Goes on from a state, and sets the optimiser's rates to those of its step.
    ///
    /// # Errors
    /// [`Error::StateDict`], saying what is missing, unexpected or out of range;
    /// [`Error::InvalidArgument`] as in [`LRScheduler::new`]. Schedule and optimiser are then as they
    /// were.
    pub fn load_state_dict(
        &mut self,
        optimizer: &mut dyn ParamGroups,
        state: &BTreeMap<String, f64>,
    ) -> Result<()> {
        let mut reader = Reader::new(state);
        let groups = 0..self.base_lrs.len();
        let base_lrs: Vec<_> =
            groups.filter_map(|i| reader.number(format!("base_lrs.{i}"))).collect();
        let most = self.schedule.last_step().unwrap_or(MOST_STEPS);
        let last_epoch = reader.count("last_epoch".to_owned(), most);
        reader.finish("load_state_dict", std::iter::empty())?;
        if let Some(last_epoch) = last_epoch {
            self.apply(optimizer, last_epoch, &base_lrs)?;
            (self.base_lrs, self.last_epoch) = (base_lrs, last_epoch);
        }
        Ok(())
    }

    fn apply(&self, optimizer: &mut dyn ParamGroups, step: u64, base_lrs: &[f64]) -> Result<()> {
        let mut rates = optimizer.rates();
        same_groups(rates.len(), base_lrs.len())?;
        let momentum = self.schedule.momentum(step);
        if momentum.is_some() && rates.iter().any(|rates| rates.momentum.is_none()) {
            let reason = "has no momentum for the schedule to change".into();
            return Err(Error::InvalidArgument { op: "LRScheduler", name: "optimizer", reason });
        }
        for (group, (rates, &base_lr)) in rates.iter_mut().zip(base_lrs).enumerate() {
            *rates.lr = self.schedule.lr(step, base_lr, group);
            if let (Some(value), Some(of)) = (momentum, rates.momentum.as_deref_mut()) {
                *of = value;
            }
        }
        Ok(())
    }
}

fn same_groups(found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let reason = format!("has {found} groups, expected {expected}");
    Err(Error::InvalidArgument { op: "LRScheduler", name: "optimizer", reason })
}

/// Checks a list that has a number for each group, or one for all.
fn check_per_group(op: &'static str, name: &'static str, list: usize, groups: usize) -> Result<()> {
    if list == 1 || list == groups {
        return Ok(());
    }
    let reason = format!("must be 1 or {groups} numbers, found {list}");
    Err(Error::InvalidArgument { op, name, reason })
}

/// The number of a group in such a list.
fn per_group(list: &[f64], group: usize) -> f64 {
    let one = list.first().copied().unwrap_or(f64::NAN);
    if list.len() == 1 { one } else { list.get(group).copied().unwrap_or(one) }
}

/// Checks a period: a number of steps that is not 0.
fn check_steps(op: &'static str, name: &'static str, steps: u64) -> Result<()> {
    if steps > 0 {
        return Ok(());
    }
    Err(Error::InvalidArgument { op, name, reason: "must be positive, found 0".into() })
}
