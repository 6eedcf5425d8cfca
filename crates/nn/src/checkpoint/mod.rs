//! A training run in one file: model, optimiser, scheduler, generators, and where it stands.
//!
//! What the file looks like is `file.rs`'s. Deliberately not here: when to save, and which files to keep.

mod file;

use std::collections::BTreeMap;
use std::path::Path;

use autograd::{Error, Float, Generator, Result};
use tensor::GeneratorState;

use crate::optim::lr_scheduler::Resumable;
use crate::optim::{Optimizer, StateDict};
use crate::parameters::Parameters;
use crate::state_dict::{self, LoadOptions};
use crate::tensor_file::read;

/// Where a run stands: what is to be done next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// The batch within the epoch, from 0.
    pub batch: u64,
    /// The steps so far.
    pub step: u64,
}

/// All that a training run needs to go on, in another process, as if it had never stopped: bit for bit.
///
/// It is built from the parts that a run has, saved whole or not at all, and restored whole or not at
/// all. Values are shared with the run, not copied; what the run changes later is not changed here.
/// `torch.save` of a dict of `state_dict`s, without pickled programs.
///
/// Not part of it are options that are no state: a parameter's `frozen`, clipping and `allow_missing` of
/// an optimiser, the formula of a schedule. They are the program's, which builds the same things before
/// it restores them.
///
/// # Examples
/// A run that can be killed at any moment:
/// ```
/// use nn::optim::lr_scheduler::{CosineAnnealingLR, LRScheduler};
/// use nn::prelude::*;
/// use nn::{Checkpoint, Position};
///
/// # fn main() -> Result<()> {
/// # let path = std::env::temp_dir().join(format!("nn-doc-checkpoint-{}", std::process::id()));
/// let (x, y) = (Tensor::<f32>::ones([6, 4])?, Tensor::from([0_i64, 1, 2, 0, 1, 2]));
/// let options = DataLoaderOptions { batch_size: 2, seed: 2, ..Default::default() };
/// let loader = DataLoader::new(TensorDataset::new(x, y)?, options)?;
/// let train = |epochs: u64| -> Result<Vec<f32>> {
///     // Everything as at the beginning …
///     let mut model = Linear::new(4, 3, &mut Generator::new(0))?;
///     let mut optimizer = AdamW::new(AdamOptions::default())?;
///     let mut scheduler = LRScheduler::new(&mut optimizer, CosineAnnealingLR::new(100, 0.0)?)?;
///     let (mut noise, mut start) = (Generator::new(1), Position::default());
///     // … and then as it was.
///     if path.exists() {
///         let saved = Checkpoint::load(&path)?;
///         saved.restore(&mut model, &mut optimizer, Some(&mut scheduler))?;
///         (noise, start) = (saved.generator("noise")?, saved.position());
///     }
///     let (loss, mut step) = (CrossEntropyLoss::new(CrossEntropyOptions::default())?, start.step);
///     for epoch in start.epoch..epochs {
///         // The order of an epoch is a function of its number, so a later one needs no earlier one.
///         let first = if epoch == start.epoch { start.batch } else { 0 };
///         for (batch, rows) in (first..).zip(loader.epoch_from(epoch, first as usize)) {
///             let (x, y) = rows?;
///             let tape = Tape::training(step); // dropout is a function of the step
///             let x = x + Tensor::randn([2, 4], &mut noise)?;
///             let grads = loss.forward(&model.forward(&tape.constant(x))?, &y)?.backward()?;
///             optimizer.step(&mut model, &grads)?;
///             scheduler.step(&mut optimizer)?;
///             step += 1;
///             Checkpoint::new()
///                 .with_model(&model)
///                 .with_optimizer(&optimizer, &model)?
///                 .with_scheduler(&scheduler)
///                 .with_generator("noise", &noise)
///                 .with_position(Position { epoch, batch: batch + 1, step })
///                 .save(&path)?;
///         }
///     }
///     Ok(model.weight.value().to_vec())
/// };
/// let whole = train(2)?;
/// # let remove = || std::fs::remove_file(&path).unwrap();
/// # remove();
/// train(1)?;
/// assert_eq!(train(2)?, whole); // with a break after the first epoch
/// # remove();
/// # Ok(())
/// # }
/// ```
///
/// Serving a result: loading weights and predicting from a file of rows.
/// ```
/// use nn::Checkpoint;
/// use nn::prelude::*;
///
/// # fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("nn-doc-serving-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory)?;
/// # let (weights, rows) = (directory.join("run.safetensors"), directory.join("rows.csv"));
/// # let trained = Sequential::<f32>::new().append(Linear::new(3, 2, &mut Generator::new(7))?);
/// # Checkpoint::new().with_model(&trained).save(&weights)?;
/// # std::fs::write(&rows, "1,0,0.5\n0,2,-1\n")?;
/// let mut model = Sequential::new().append(Linear::new(3, 2, &mut Generator::new(0))?);
/// Checkpoint::<f32>::load(weights)?.restore_model(&mut model)?;
/// let text = std::fs::read_to_string(rows)?;
/// let cells = text.lines().flat_map(|line| line.split(',')).map(str::parse);
/// let cells = cells.collect::<std::result::Result<Vec<f32>, _>>()?;
/// let x = Tensor::from_vec(cells, [text.lines().count(), 3])?;
/// let logits = model.forward(&Var::constant(x))?; // on no tape: nothing is recorded
/// for class in logits.value().argmax_dim(1, false)?.to_vec() {
///     println!("{class}");
/// }
/// # assert_eq!(logits.shape(), [2, 2]);
/// # std::fs::remove_dir_all(&directory)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint<T: Float> {
    parts: BTreeMap<String, StateDict<T>>,
    generators: BTreeMap<String, GeneratorState>,
    position: Position,
    metadata: BTreeMap<String, String>,
}

const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer";
const SCHEDULER: &str = "scheduler";
/// What the names of generators begin with in a file, so that no part can be called so.
const GENERATOR: &str = "generator";

impl<T: Float> Default for Checkpoint<T> {
    fn default() -> Self {
        Checkpoint {
            parts: BTreeMap::new(),
            generators: BTreeMap::new(),
            position: Position::default(),
            metadata: BTreeMap::new(),
        }
    }
}

/// Building one. What is given twice is as it was given last.
impl<T: Float> Checkpoint<T> {
    /// A checkpoint of nothing, at position 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the values of a model's parameters.
    ///
    /// # Examples
    /// See [`Checkpoint`].
    #[must_use]
    pub fn with_model<M: Parameters<Elem = T> + ?Sized>(mut self, model: &M) -> Self {
        self.parts.insert(MODEL.to_owned(), state_dict::state_dict(model).into());
        self
    }

    /// With what an optimiser of `model` keeps.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another model than the one that was updated.
    ///
    /// # Examples
    /// See [`Checkpoint`].
    pub fn with_optimizer(
        mut self,
        optimizer: &dyn Optimizer<T>,
        model: &dyn Parameters<Elem = T>,
    ) -> Result<Self> {
        self.parts.insert(OPTIMIZER.to_owned(), optimizer.state_dict(model)?);
        Ok(self)
    }

    /// With a scheduler. Where there are two, the other one is a [state](Checkpoint::with_state).
    ///
    /// # Examples
    /// See [`Checkpoint`].
    #[must_use]
    pub fn with_scheduler(mut self, scheduler: &dyn Resumable) -> Self {
        self.parts.insert(SCHEDULER.to_owned(), scheduler.state().into());
        self
    }

    /// With anything else that has a state, such as averages of the weights.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the name is of letters, digits, `_` and `-`, and not
    /// `generator`.
    ///
    /// # Examples
    /// ```
    /// use nn::Checkpoint;
    /// use nn::optim::Ema;
    /// use nn::prelude::*;
    /// # fn main() -> Result<()> {
    /// let model = Linear::<f32>::new(4, 3, &mut Generator::new(0))?;
    /// let mut ema = Ema::new(&model, 0.999)?;
    /// let checkpoint = Checkpoint::new().with_state("ema", ema.state_dict(&model)?)?;
    /// ema.load_state_dict(&model, checkpoint.state("ema")?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_state(mut self, name: &str, state: impl Into<StateDict<T>>) -> Result<Self> {
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(fits) || name == GENERATOR {
            let reason = format!("must be of letters, digits, _ and -, found {name:?}");
            return Err(Error::InvalidArgument { op: "with_state", name: "name", reason });
        }
        self.parts.insert(name.to_owned(), state.into());
        Ok(self)
    }

    /// With where a generator stands.
    ///
    /// # Examples
    /// ```
    /// use nn::Checkpoint;
    /// use nn::prelude::*;
    /// # fn main() -> Result<()> {
    /// let mut noise = Generator::new(7);
    /// noise.uniform();
    /// let checkpoint = Checkpoint::<f32>::new().with_generator("noise", &noise);
    /// assert_eq!(checkpoint.generator("noise")?.uniform(), noise.uniform());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_generator(mut self, name: &str, generator: &Generator) -> Self {
        self.generators.insert(name.to_owned(), generator.state());
        self
    }

    /// With where the run stands.
    ///
    /// # Examples
    /// ```
    /// use nn::{Checkpoint, Position};
    /// let position = Position { epoch: 3, batch: 0, step: u64::MAX };
    /// assert_eq!(Checkpoint::<f32>::new().with_position(position).position(), position);
    /// ```
    #[must_use]
    pub fn with_position(mut self, position: Position) -> Self {
        self.position = position;
        self
    }

    /// With a text that says something about the run: a commit, a command line, the best loss so far.
    ///
    /// # Examples
    /// ```
    /// let checkpoint = nn::Checkpoint::<f32>::new().with_metadata("git", "1a2b3c");
    /// assert_eq!(checkpoint.metadata()["git"], "1a2b3c");
    /// ```
    #[must_use]
    pub fn with_metadata(mut self, key: &str, text: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), text.into());
        self
    }
}

/// Restoring. What fails changes nothing.
impl<T: Float> Checkpoint<T> {
    /// Reads a file that [`Checkpoint::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that is no checkpoint, is one of another version or
    /// element type, or was damaged: the message says what was found and what was expected.
    ///
    /// # Examples
    /// See [`Checkpoint`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        read(path.as_ref(), file::decode)
    }

    /// Restores the model, the optimiser, and the scheduler where the checkpoint has one: all of them or,
    /// where one does not fit, none. Options of the optimiser, its rates among them, become those that were
    /// saved.
    ///
    /// # Errors
    /// [`Error::StateDict`], saying what is missing, unexpected, of another shape or out of range, which
    /// part the checkpoint has not, or that it has a scheduler and none was given;
    /// [`Error::InvalidArgument`] for a schedule that was not made for this optimiser.
    ///
    /// # Examples
    /// See [`Checkpoint`].
    pub fn restore(
        &self,
        model: &mut dyn Parameters<Elem = T>,
        optimizer: &mut dyn Optimizer<T>,
        scheduler: Option<&mut dyn Resumable>,
    ) -> Result<()> {
        let weights = &self.state(MODEL)?.tensors;
        state_dict::check("restore", &*model, weights, Vec::new(), LoadOptions::default())?;
        let state = self.state(OPTIMIZER)?;
        match scheduler {
            Some(scheduler) => {
                let schedule = self.state(SCHEDULER)?;
                restore_both((optimizer, state), (scheduler, schedule), model)?;
            }
            None if self.parts.contains_key(SCHEDULER) => {
                return Err(misfit("the checkpoint has a scheduler, and none was given".into()));
            }
            None => optimizer.load_state_dict(model, state)?,
        }
        state_dict::set(model, weights);
        Ok(())
    }

    /// Restores the model alone, as for serving. To load a part of it only, or into another model, see
    /// [`load_state_dict_with`](crate::load_state_dict_with) of `state("model")?.tensors`.
    ///
    /// # Errors
    /// [`Error::StateDict`], saying what is missing, unexpected or of another shape.
    ///
    /// # Examples
    /// See [`Checkpoint`].
    pub fn restore_model<M: Parameters<Elem = T> + ?Sized>(&self, model: &mut M) -> Result<()> {
        let weights = &self.state(MODEL)?.tensors;
        state_dict::check("restore_model", &*model, weights, Vec::new(), LoadOptions::default())?;
        state_dict::set(model, weights);
        Ok(())
    }

    /// Restores the optimiser alone. `model` has the names and shapes of the one that was saved.
    ///
    /// # Errors
    /// [`Error::StateDict`], saying what is missing, unexpected, of another shape, out of range or in
    /// another group.
    ///
    /// # Examples
    /// ```
    /// use nn::Checkpoint;
    /// use nn::prelude::*;
    /// # fn main() -> Result<()> {
    /// let model = Linear::<f32>::new(4, 3, &mut Generator::new(0))?;
    /// let sgd = |lr| Sgd::new(SgdOptions { lr, ..Default::default() });
    /// let checkpoint = Checkpoint::new().with_optimizer(&sgd(0.25)?, &model)?;
    /// let mut other = sgd(0.5)?;
    /// checkpoint.restore_optimizer(&mut other, &model)?;
    /// assert_eq!(other.lr(), 0.25);
    /// # Ok(())
    /// # }
    /// ```
    pub fn restore_optimizer(
        &self,
        optimizer: &mut dyn Optimizer<T>,
        model: &dyn Parameters<Elem = T>,
    ) -> Result<()> {
        optimizer.load_state_dict(model, self.state(OPTIMIZER)?)
    }

    /// Restores the scheduler alone, and sets the optimiser's rates to those of its step. Rates that were
    /// set by hand are the optimiser's, which is therefore restored after it.
    ///
    /// # Errors
    /// [`Error::StateDict`], saying what is missing, unexpected or out of range;
    /// [`Error::InvalidArgument`] for a schedule that was not made for this optimiser.
    ///
    /// # Examples
    /// ```
    /// use nn::Checkpoint;
    /// use nn::optim::lr_scheduler::{LRScheduler, StepLR};
    /// use nn::prelude::*;
    /// # fn main() -> Result<()> {
    /// let mut sgd = Sgd::<f32>::new(SgdOptions { lr: 1.0, ..Default::default() })?;
    /// let mut scheduler = LRScheduler::new(&mut sgd, StepLR::new(1, 0.5)?)?;
    /// scheduler.step(&mut sgd)?;
    /// let checkpoint = Checkpoint::<f32>::new().with_scheduler(&scheduler);
    /// scheduler.step(&mut sgd)?;
    /// checkpoint.restore_scheduler(&mut scheduler, &mut sgd)?;
    /// assert_eq!((scheduler.last_epoch(), sgd.lr()), (1, 0.5));
    /// # Ok(())
    /// # }
    /// ```
    pub fn restore_scheduler(
        &self,
        scheduler: &mut dyn Resumable,
        optimizer: &mut dyn Optimizer<T>,
    ) -> Result<()> {
        scheduler.resume(optimizer, &self.state(SCHEDULER)?.numbers)
    }

    /// A part: `model`, `optimizer`, `scheduler`, or what [`Checkpoint::with_state`] put in.
    ///
    /// # Errors
    /// [`Error::StateDict`], naming the parts, where there is none of this name.
    ///
    /// # Examples
    /// See [`Checkpoint::with_state`].
    pub fn state(&self, name: &str) -> Result<&StateDict<T>> {
        self.parts.get(name).ok_or_else(|| missing("part", name, self.parts.keys()))
    }

    /// A generator that goes on with the numbers that the saved one would have drawn next.
    ///
    /// # Errors
    /// [`Error::StateDict`], naming the generators, where there is none of this name.
    ///
    /// # Examples
    /// See [`Checkpoint::with_generator`].
    pub fn generator(&self, name: &str) -> Result<Generator> {
        let state = self.generators.get(name);
        let state = state.ok_or_else(|| missing("generator", name, self.generators.keys()))?;
        Ok(Generator::from_state(state))
    }

    /// Where the run stands.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What is said about the run.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }
}

/// Restores both or none. The schedule sets the rates of its step, and the optimiser's own come after
/// it, so that rates which were set by hand stay.
fn restore_both<T: Float>(
    (optimizer, state): (&mut dyn Optimizer<T>, &StateDict<T>),
    (scheduler, schedule): (&mut dyn Resumable, &StateDict<T>),
    model: &dyn Parameters<Elem = T>,
) -> Result<()> {
    let before = scheduler.state();
    let rates = optimizer.rates().into_iter();
    let rates: Vec<_> = rates.map(|r| (*r.lr, r.momentum.map(|x| *x))).collect();
    scheduler.resume(optimizer, &schedule.numbers)?;
    optimizer.load_state_dict(model, state).inspect_err(|_| {
        // The state that it was in a moment ago fits.
        let _ = scheduler.resume(optimizer, &before);
        for (of, (lr, momentum)) in optimizer.rates().into_iter().zip(rates) {
            *of.lr = lr;
            if let (Some(to), Some(value)) = (of.momentum, momentum) {
                *to = value;
            }
        }
    })
}

fn missing<'a>(what: &str, name: &str, all: impl Iterator<Item = &'a String>) -> Error {
    let all: Vec<_> = all.map(String::as_str).collect();
    let others = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
    misfit(format!("the checkpoint has no {what} {name:?}, but {others}"))
}

fn misfit(reason: String) -> Error {
    Error::StateDict { op: "checkpoint", reason }
}
