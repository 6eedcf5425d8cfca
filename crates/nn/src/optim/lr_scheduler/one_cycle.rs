//! Up to a large rate and down to a tiny one.

use autograd::{Error, Result};

use super::super::{check_positive, check_range};
use super::cosine::cosine;
use super::{Schedule, check_per_group, check_steps, per_group};

/// How [`OneCycleLR`] goes from one rate to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anneal {
    /// Along half a cosine.
    #[default]
    Cos,
    /// Along a line.
    Linear,
}

/// Options of [`OneCycleLR`]; the defaults are PyTorch's. `max_lr` and `total_steps` have none.
#[derive(Clone, Debug)]
pub struct OneCycleOptions {
    /// The largest rate: one for all groups, or one for each.
    pub max_lr: Vec<f64>,
    /// The steps of the cycle.
    pub total_steps: u64,
    /// The share of the steps on which the rate rises.
    pub pct_start: f64,
    /// The way between the rates.
    pub anneal_strategy: Anneal,
    /// Moves the momentum (or the first of the betas) against the rate: from `max_momentum` to
    /// `base_momentum` and back.
    pub cycle_momentum: bool,
    /// The smallest momentum.
    pub base_momentum: f64,
    /// The largest momentum.
    pub max_momentum: f64,
    /// The first rate is `max_lr/div_factor`.
    pub div_factor: f64,
    /// The last rate is the first one divided by this.
    pub final_div_factor: f64,
    /// Falls to the first rate as long as it rose, and then to the last one.
    pub three_phase: bool,
}

impl Default for OneCycleOptions {
    fn default() -> Self {
        OneCycleOptions {
            max_lr: Vec::new(),
            total_steps: 0,
            pct_start: 0.3,
            anneal_strategy: Anneal::Cos,
            cycle_momentum: true,
            base_momentum: 0.85,
            max_momentum: 0.95,
            div_factor: 25.0,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }
}

/// The rate rises from `max_lr/div_factor` to `max_lr` and falls to `max_lr/div_factor/final_div_factor`,
/// whatever it was before. `torch.optim.lr_scheduler.OneCycleLR`; Smith & Topin, arXiv 1708.07120.
///
/// The cycle is over after `total_steps` calls of `step`; one more is an error. The last call leaves the
/// last rate as it is, where PyTorch goes past it.
///
/// ```
/// use nn::optim::lr_scheduler::{LRScheduler, OneCycleLR, OneCycleOptions};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut optimizer = AdamW::<f32>::new(AdamOptions::default())?;
/// let options =
///     OneCycleOptions { max_lr: vec![0.5], total_steps: 100, ..Default::default() };
/// let mut scheduler = LRScheduler::new(&mut optimizer, OneCycleLR::new(options)?)?;
/// assert_eq!(optimizer.lr(), 0.5 / 25.0);
/// (0..29).try_for_each(|_| scheduler.step(&mut optimizer))?;
/// assert_eq!(optimizer.lr(), 0.5);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OneCycleLR {
    options: OneCycleOptions,
}

/// The corners of the cycle.
#[derive(Clone, Copy)]
enum Corner {
    First,
    Largest,
    Last,
}

impl OneCycleLR {
    /// # Errors
    /// [`Error::InvalidArgument`] for no steps, no `max_lr`, a `pct_start` outside [0, 1], a momentum
    /// outside [0, 1), a factor that is not positive, or a rate that is negative or not finite.
    pub fn new(options: OneCycleOptions) -> Result<Self> {
        let (op, o) = ("OneCycleLR", &options);
        check_steps(op, "total_steps", o.total_steps)?;
        if o.max_lr.is_empty() {
            let reason = "must be one number for all groups or one for each, found none".into();
            return Err(Error::InvalidArgument { op, name: "max_lr", reason });
        }
        o.max_lr.iter().try_for_each(|&lr| check_positive(op, [("max_lr", lr)]))?;
        check_range(op, "pct_start", o.pct_start, 0.0..=1.0, "in [0, 1]")?;
        check_range(op, "base_momentum", o.base_momentum, 0.0..1.0, "in [0, 1)")?;
        check_range(op, "max_momentum", o.max_momentum, 0.0..1.0, "in [0, 1)")?;
        let factors = [("div_factor", o.div_factor), ("final_div_factor", o.final_div_factor)];
        for (name, factor) in factors {
            check_range(op, name, factor, f64::MIN_POSITIVE.., "finite and positive")?;
        }
        Ok(OneCycleLR { options })
    }

    /// The corners that a step lies between, and the share of the way.
    fn between(&self, step: u64) -> (Corner, Corner, f64) {
        let (n, step) = (self.options.total_steps as f64, step as f64);
        let risen = self.options.pct_start * n - 1.0;
        let (end, fallen) = (n - 1.0, 2.0 * self.options.pct_start * n - 2.0);
        let (from, to, start, end) = if step <= risen {
            (Corner::First, Corner::Largest, 0.0, risen)
        } else if !self.options.three_phase {
            (Corner::Largest, Corner::Last, risen, end)
        } else if step <= fallen {
            (Corner::Largest, Corner::First, risen, fallen)
        } else {
            (Corner::First, Corner::Last, fallen, end)
        };
        // A phase of no length is over when it begins.
        let done = if end > start { ((step - start) / (end - start)).min(1.0) } else { 1.0 };
        (from, to, done)
    }

    fn anneal(&self, start: f64, end: f64, done: f64) -> f64 {
        match self.options.anneal_strategy {
            Anneal::Cos => cosine(start, end, done),
            Anneal::Linear => (end - start) * done + start,
        }
    }
}

impl Schedule for OneCycleLR {
    fn lr(&self, step: u64, _: f64, group: usize) -> f64 {
        let (from, to, done) = self.between(step);
        let largest = per_group(&self.options.max_lr, group);
        let first = largest / self.options.div_factor;
        let rate = |corner| match corner {
            Corner::First => first,
            Corner::Largest => largest,
            Corner::Last => first / self.options.final_div_factor,
        };
        self.anneal(rate(from), rate(to), done)
    }

    fn momentum(&self, step: u64) -> Option<f64> {
        let OneCycleOptions { base_momentum, max_momentum, .. } = self.options;
        let (from, to, done) = self.between(step);
        let momentum = |corner| match corner {
            Corner::Largest => base_momentum,
            Corner::First | Corner::Last => max_momentum,
        };
        self.options.cycle_momentum.then(|| self.anneal(momentum(from), momentum(to), done))
    }

    fn last_step(&self) -> Option<u64> {
        Some(self.options.total_steps)
    }

    fn check_groups(&self, groups: usize) -> Result<()> {
        check_per_group("OneCycleLR", "max_lr", self.options.max_lr.len(), groups)
    }
}
