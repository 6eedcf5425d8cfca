//! What an optimiser needs to go on as if nothing had happened, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use autograd::{Error, Float, Result, Tensor};

use super::grouped::Kept;
use super::{Field, Grouped, Rule};
use crate::parameters::{Parameter, Parameters, Visitor};
use crate::tensor_file::{Entry, TensorView, read, tensor, write};

/// Named tensors and numbers. Numbers stay `f64` whatever the tensors are, so that nothing is rounded.
///
/// An optimiser's has `param_groups.0.lr` and the other options of each group, `group.PATH` for the
/// group of each parameter, and `state.PATH.step`, `state.PATH.exp_avg` and the like for each parameter
/// that was updated.
#[derive(Clone, Debug)]
pub struct StateDict<T: Float> {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor<T>>,
    /// Numbers by name.
    pub numbers: BTreeMap<String, f64>,
}

impl<T: Float> Default for StateDict<T> {
    fn default() -> Self {
        StateDict { tensors: BTreeMap::new(), numbers: BTreeMap::new() }
    }
}

/// What the names of numbers begin with in a file: a number and a tensor may have the same name.
const NUMBERS: &str = "numbers/";

impl<T: Float> StateDict<T> {
    /// Puts another state in, with `scope.` before its names: a model's, an optimiser's and a schedule's
    /// in one, for a file that is written whole or not at all.
    ///
    /// ```
    /// use nn::optim::StateDict;
    /// use nn::prelude::*;
    /// # fn main() -> Result<()> {
    /// let mut model = Linear::<f32>::new(4, 3, &mut Generator::new(0))?;
    /// let mut optimizer = AdamW::new(AdamOptions::default())?;
    /// let mut scheduler = LRScheduler::new(&mut optimizer, CosineAnnealingLR::new(100, 0.0)?)?;
    /// // … train, and save …
    /// let mut all = StateDict::default();
    /// all.insert("model", nn::state_dict(&model));
    /// all.insert("optimizer", optimizer.state_dict(&model)?);
    /// all.insert("scheduler", scheduler.state_dict());
    /// # let path = std::env::temp_dir().join(format!("gradus-doc-{}", std::process::id()));
    /// all.save_safetensors(&path)?;
    /// // … and go on, in another process.
    /// let all = StateDict::load_safetensors(&path)?;
    /// nn::load_state_dict(&mut model, &all.scope("model").tensors)?;
    /// scheduler.load_state_dict(&mut optimizer, &all.scope("scheduler").numbers)?;
    /// optimizer.load_state_dict(&model, &all.scope("optimizer"))?;
    /// # std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn insert(&mut self, scope: &str, state: impl Into<StateDict<T>>) {
        let StateDict { tensors, numbers } = state.into();
        self.tensors.extend(tensors.into_iter().map(|(name, x)| (format!("{scope}.{name}"), x)));
        self.numbers.extend(numbers.into_iter().map(|(name, x)| (format!("{scope}.{name}"), x)));
    }

    /// The part that was put in with this scope.
    pub fn scope(&self, scope: &str) -> StateDict<T> {
        fn below<X: Clone>(map: &BTreeMap<String, X>, scope: &str) -> BTreeMap<String, X> {
            let below = |(name, x): (&String, &X)| {
                Some((name.strip_prefix(scope)?.strip_prefix('.')?.to_owned(), x.clone()))
            };
            map.iter().filter_map(below).collect()
        }
        StateDict { tensors: below(&self.tensors, scope), numbers: below(&self.numbers, scope) }
    }

    /// Saves the state as safetensors; a kill at any moment leaves the old file or the new. Numbers are
    /// f64 of rank 0, named `numbers/NAME`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] if the names are none of the format's.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), self.entries().collect())
    }

    /// The state that [`StateDict::save_safetensors`] saved, bit for bit.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a file that is not safetensors or has other element types.
    pub fn load_safetensors(path: impl AsRef<Path>) -> Result<Self> {
        read(path.as_ref(), |file| {
            let mut state = StateDict::default();
            file.tensors.iter().try_for_each(|(name, view)| state.take(name, view))?;
            Ok(state)
        })
    }

    /// What [`StateDict::save_safetensors`] writes.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let tensors = self.tensors.iter().map(|(name, x)| Entry::new(name.clone(), x));
        let number = |(name, &x): (&String, &f64)| {
            Entry::new(format!("{NUMBERS}{name}"), &Tensor::scalar(x))
        };
        tensors.chain(self.numbers.iter().map(number))
    }

    /// Puts in what a file calls `name`, or says why that is no tensor of this type, or no number.
    pub(crate) fn take(&mut self, name: &str, view: &TensorView<'_>) -> Result<(), String> {
        let Some(number) = name.strip_prefix(NUMBERS) else {
            self.tensors.insert(name.to_owned(), tensor(name, view)?);
            return Ok(());
        };
        let value = tensor::<f64>(name, view)?.item().map_err(|e| format!("{name}: {e}"))?;
        self.numbers.insert(number.to_owned(), value);
        Ok(())
    }
}

impl<T: Float> From<BTreeMap<String, Tensor<T>>> for StateDict<T> {
    fn from(tensors: BTreeMap<String, Tensor<T>>) -> Self {
        StateDict { tensors, numbers: BTreeMap::new() }
    }
}

impl<T: Float> From<BTreeMap<String, f64>> for StateDict<T> {
    fn from(numbers: BTreeMap<String, f64>) -> Self {
        StateDict { tensors: BTreeMap::new(), numbers }
    }
}

/// Takes values out of a state and remembers what is wrong with it.
pub(super) struct Reader<'a> {
    numbers: &'a BTreeMap<String, f64>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(numbers: &'a BTreeMap<String, f64>) -> Self {
        Reader { numbers, used: BTreeSet::new(), problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// A number; a problem where there is none.
    pub(super) fn number(&mut self, name: String) -> Option<f64> {
        let found = self.numbers.get(&name).copied();
        if found.is_none() {
            self.problems.push(format!("{name} is missing"));
        }
        self.used.insert(name);
        found
    }

    /// A whole number from 0 to `most`; a problem where there is none.
    pub(super) fn count(&mut self, name: String, most: u64) -> Option<u64> {
        let found = self.number(name.clone())?;
        if found.fract() == 0.0 && (0.0..=most as f64).contains(&found) {
            return Some(found as u64);
        }
        self.problems.push(format!("{name} is {found}, expected a whole number up to {most}"));
        None
    }

    /// A tensor of this shape; a problem where there is none.
    pub(super) fn tensor<'s, T: Float>(
        &mut self,
        state: &'s StateDict<T>,
        name: String,
        shape: &[usize],
    ) -> Option<&'s Tensor<T>> {
        let found = state.tensors.get(&name);
        let fits = found.filter(|found| found.shape() == shape);
        match found {
            None => self.problem(format!("{name} is missing")),
            Some(found) if fits.is_none() => {
                let found = found.shape();
                self.problem(format!("{name} has shape {found:?}, expected {shape:?}"));
            }
            Some(_) => {}
        }
        self.used.insert(name);
        fits
    }

    /// [`Error::StateDict`] if anything was wrong, or is left over among the numbers and `others`.
    pub(super) fn finish(
        mut self,
        op: &'static str,
        others: impl Iterator<Item = &'a String>,
    ) -> Result<()> {
        let unexpected =
            self.numbers.keys().chain(others).filter(|name| !self.used.contains(*name));
        self.problems.extend(unexpected.map(|name| format!("{name} is unexpected")));
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Error::StateDict { op, reason: self.problems.join("; ") })
    }
}

/// The largest number of steps that a state holds: larger ones are not whole in `f64`.
pub(super) const MOST_STEPS: u64 = 1 << 53;

impl<R: Rule, T: Float> Grouped<R, T> {
    pub(super) fn saved(&self, model: &dyn Parameters<Elem = T>) -> Result<StateDict<T>> {
        let mut state = StateDict::default();
        for (i, options) in self.groups.iter().enumerate() {
            for (name, field) in R::fields(&mut options.clone()) {
                let value = match field {
                    Field::Number(x) => *x,
                    Field::Flag(x) => f64::from(u8::from(*x)),
                    Field::Count(n) => f64::from(*n),
                    Field::Choice(choice, _) => f64::from(choice),
                };
                state.numbers.insert(format!("param_groups.{i}.{name}"), value);
            }
        }
        let mut found = 0;
        for (path, p) in model.named_parameters() {
            let Some(group) = self.group_of(p.id()) else { continue };
            state.numbers.insert(format!("group.{path}"), group as f64);
            let Some(kept) = self.kept.get(&p.id()) else { continue };
            found += 1;
            state.numbers.insert(format!("state.{path}.step"), kept.step as f64);
            let names = R::buffers(&self.groups[group]).iter();
            for (name, buffer) in names.zip(&kept.buffers) {
                let value = Tensor::from_slice(buffer, p.value().shape())?;
                state.tensors.insert(format!("state.{path}.{name}"), value);
            }
        }
        if found < self.kept.len() {
            let reason =
                format!("has {found} of the {} parameters that were updated", self.kept.len());
            return Err(Error::InvalidArgument { op: R::NAME, name: "model", reason });
        }
        Ok(state)
    }

    pub(super) fn load(
        &mut self,
        model: &dyn Parameters<Elem = T>,
        state: &StateDict<T>,
    ) -> Result<()> {
        let mut reader = Reader::new(&state.numbers);
        let mut groups = self.groups.clone();
        for (i, options) in groups.iter_mut().enumerate() {
            load_options::<R>(&mut reader, i, options);
        }
        let mut all = BTreeMap::new();
        let mut load = |path: &str, p: &Parameter<T>| {
            let Some(group) = self.group_of(p.id()) else { return };
            let name = format!("group.{path}");
            match reader.number(name.clone()) {
                Some(found) if found != group as f64 => {
                    reader.problem(format!("{name} is {found}, expected {group}"));
                }
                _ => {}
            }
            let names = R::buffers(&groups[group]);
            if let Some(kept) = load_kept(&mut reader, state, path, p.value().shape(), names) {
                all.insert(p.id(), kept);
            }
        };
        model.visit(&mut Visitor::new(&mut load));
        reader.finish("load_state_dict", state.tensors.keys())?;
        self.groups = groups;
        self.kept = all;
        Ok(())
    }
}

fn load_options<R: Rule>(reader: &mut Reader<'_>, group: usize, options: &mut R::Options) {
    for (name, field) in R::fields(options) {
        let name = format!("param_groups.{group}.{name}");
        match field {
            Field::Number(x) => *x = reader.number(name).unwrap_or(*x),
            Field::Flag(x) => *x = reader.count(name, 1).map_or(*x, |n| n == 1),
            Field::Count(x) => {
                let found = reader.count(name, u64::from(u32::MAX));
                *x = found.and_then(|n| u32::try_from(n).ok()).unwrap_or(*x);
            }
            Field::Choice(_, mut set) => {
                let found = reader.count(name.clone(), u64::from(u32::MAX));
                let found = found.and_then(|n| u32::try_from(n).ok());
                if let Some(choice) = found.filter(|&choice| !set(choice)) {
                    reader.problem(format!("{name} is {choice}, which is no choice"));
                }
            }
        }
    }
    if let Err(error) = R::check(options) {
        reader.problem(format!("param_groups.{group}: {error}"));
    }
}

/// What was kept for a parameter; `None` where nothing was, or something is wrong with it.
fn load_kept<T: Float>(
    reader: &mut Reader<'_>,
    state: &StateDict<T>,
    path: &str,
    shape: &[usize],
    names: &[&str],
) -> Option<Kept<T>> {
    let step = format!("state.{path}.step");
    let names: Vec<String> = names.iter().map(|name| format!("state.{path}.{name}")).collect();
    let has_step = state.numbers.contains_key(&step);
    if names.is_empty() || !has_step && !names.iter().any(|name| state.tensors.contains_key(name)) {
        return None;
    }
    let step = reader.count(step, MOST_STEPS);
    let tensors = names.into_iter().filter_map(|name| reader.tensor(state, name, shape));
    let buffers = tensors.map(Tensor::to_vec).collect();
    Some(Kept { step: step?, buffers })
}
