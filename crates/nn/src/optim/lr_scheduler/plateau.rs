//! Smaller rates when a metric stops improving.

use std::collections::BTreeMap;

use autograd::Result;

use super::super::state::{MOST_STEPS, Reader};
use super::super::{ParamGroups, check_positive, check_range};
use super::{check_per_group, per_group, same_groups};

/// Which metric is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The smaller one, as of losses.
    #[default]
    Min,
    /// The larger one, as of accuracies.
    Max,
}

/// What the threshold of an improvement is measured in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThresholdMode {
    /// Shares of the best metric.
    #[default]
    Rel,
    /// The metric's unit.
    Abs,
}

/// Options of [`ReduceLROnPlateau`]; the defaults are PyTorch's.
#[derive(Clone, Debug)]
pub struct PlateauOptions {
    /// Which metric is better.
    pub mode: Mode,
    /// What the rate is multiplied by.
    pub factor: f64,
    /// The steps without an improvement that are borne.
    pub patience: u64,
    /// By how much a metric must be better than the best to be an improvement.
    pub threshold: f64,
    /// What that is measured in.
    pub threshold_mode: ThresholdMode,
    /// The steps after a reduction that do not count.
    pub cooldown: u64,
    /// The smallest rate: one for all groups, or one for each.
    pub min_lr: Vec<f64>,
    /// A reduction by less than this, or as much, is not made.
    pub eps: f64,
}

impl Default for PlateauOptions {
    fn default() -> Self {
        PlateauOptions {
            mode: Mode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: vec![0.0],
            eps: 1e-8,
        }
    }
}

/// Multiplies the rates by a factor when a metric has not improved for more than `patience` steps.
/// `torch.optim.lr_scheduler.ReduceLROnPlateau`. A metric that is NaN is no improvement.
///
/// ```
/// use nn::optim::lr_scheduler::{PlateauOptions, ReduceLROnPlateau};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut optimizer = Sgd::<f32>::new(SgdOptions { lr: 0.5, ..Default::default() })?;
/// let options = PlateauOptions { patience: 1, factor: 0.5, ..Default::default() };
/// let mut scheduler = ReduceLROnPlateau::new(&mut optimizer, options)?;
/// for loss in [1.0, 0.8, 0.8, 0.8] {
///     scheduler.step(loss, &mut optimizer)?;
/// }
/// assert_eq!(optimizer.lr(), 0.25);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReduceLROnPlateau {
    options: PlateauOptions,
    groups: usize,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct State {
    best: f64,
    num_bad_epochs: u64,
    cooldown_counter: u64,
    last_epoch: u64,
}

impl ReduceLROnPlateau {
    /// Begins without a metric.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for a factor outside [0, 1), numbers
    /// that are negative or not finite, or as many `min_lr` as are neither 1 nor the groups.
    pub fn new(optimizer: &mut dyn ParamGroups, options: PlateauOptions) -> Result<Self> {
        let (op, groups) = ("ReduceLROnPlateau", optimizer.rates().len());
        check_range(op, "factor", options.factor, 0.0..1.0, "in [0, 1)")?;
        check_positive(op, [("threshold", options.threshold), ("eps", options.eps)])?;
        options.min_lr.iter().try_for_each(|&lr| check_positive(op, [("min_lr", lr)]))?;
        check_per_group(op, "min_lr", options.min_lr.len(), groups)?;
        let best = match options.mode {
            Mode::Min => f64::INFINITY,
            Mode::Max => f64::NEG_INFINITY,
        };
        let state = State { best, num_bad_epochs: 0, cooldown_counter: 0, last_epoch: 0 };
        Ok(ReduceLROnPlateau { options, groups, state })
    }

    /// Looks at a metric, and reduces the rates where it is time.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an optimiser with another number of
    /// groups; nothing is changed then.
    pub fn step(&mut self, metric: f64, optimizer: &mut dyn ParamGroups) -> Result<()> {
        let mut rates = optimizer.rates();
        same_groups(rates.len(), self.groups)?;
        let improved = self.is_better(metric);
        let (o, s) = (&self.options, &mut self.state);
        s.last_epoch += 1;
        s.num_bad_epochs += 1;
        if improved {
            (s.best, s.num_bad_epochs) = (metric, 0);
        }
        if s.cooldown_counter > 0 {
            s.cooldown_counter -= 1;
            s.num_bad_epochs = 0;
        }
        if s.num_bad_epochs > o.patience {
            (s.cooldown_counter, s.num_bad_epochs) = (o.cooldown, 0);
            for (group, rates) in rates.iter_mut().enumerate() {
                let reduced = (*rates.lr * o.factor).max(per_group(&o.min_lr, group));
                if *rates.lr - reduced > o.eps {
                    *rates.lr = reduced;
                }
            }
        }
        Ok(())
    }

    fn is_better(&self, metric: f64) -> bool {
        let (best, threshold) = (self.state.best, self.options.threshold);
        match (self.options.mode, self.options.threshold_mode) {
            (Mode::Min, ThresholdMode::Rel) => metric < best * (1.0 - threshold),
            (Mode::Min, ThresholdMode::Abs) => metric < best - threshold,
            (Mode::Max, ThresholdMode::Rel) => metric > best * (1.0 + threshold),
            (Mode::Max, ThresholdMode::Abs) => metric > best + threshold,
        }
    }

    /// The best metric so far; ±∞ before the first.
    pub fn best(&self) -> f64 {
        self.state.best
    }

    /// The best metric and the counters. The rates are the optimiser's to save; the options are not part
    /// of it.
    pub fn state_dict(&self) -> BTreeMap<String, f64> {
        let State { best, num_bad_epochs, cooldown_counter, last_epoch } = self.state;
        let counts = [
            ("num_bad_epochs", num_bad_epochs),
            ("cooldown_counter", cooldown_counter),
            ("last_epoch", last_epoch),
        ];
        let counts = counts.map(|(name, count)| (name.to_owned(), count as f64));
        counts.into_iter().chain([("best".to_owned(), best)]).collect()
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// [`Error::StateDict`](crate::Error::StateDict), saying what is missing, unexpected or out of range;
    /// the schedule is then as it was.
    pub fn load_state_dict(&mut self, state: &BTreeMap<String, f64>) -> Result<()> {
        let mut reader = Reader::new(state);
        let best = reader.number("best".to_owned());
        let [num_bad_epochs, cooldown_counter, last_epoch] =
            ["num_bad_epochs", "cooldown_counter", "last_epoch"]
                .map(|name| reader.count(name.to_owned(), MOST_STEPS).unwrap_or(0));
        reader.finish("load_state_dict", std::iter::empty())?;
        let best = best.unwrap_or(self.state.best);
        self.state = State { best, num_bad_epochs, cooldown_counter, last_epoch };
        Ok(())
    }
}
