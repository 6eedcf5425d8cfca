//! Averages of the weights over the steps.

use std::collections::BTreeMap;

use autograd::{Error, Float, ParameterId, Result, Tensor};
use tensor::kernels::{Kernel, dispatch};

use super::state::{MOST_STEPS, Reader, StateDict};
use super::{Gradient, check_range};
use crate::parameters::{Parameter, Parameters, Visitor};

/// The exponential moving average of a model's parameters: `a ← β·a + (1−β)·w` at each update, and
/// `a = w` at the first. `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(β)`, but that it
/// holds the numbers alone, and puts them into a model when asked. Polyak & Juditsky, SIAM J. Control
/// Optim. 30 (1992).
///
/// ```
/// use nn::optim::Ema;
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::without_bias(1, 1, &mut Generator::new(0))?;
/// *model.weight.value_mut() = Tensor::from_vec(vec![1.0], [1, 1])?;
/// let mut ema = Ema::new(&model, 0.75)?;
/// ema.update(&model)?;
/// *model.weight.value_mut() = Tensor::from_vec(vec![5.0], [1, 1])?;
/// ema.update(&model)?;
/// ema.swap(&mut model)?; // evaluate with the average …
/// assert_eq!(model.weight.value().item()?, 2.0);
/// ema.swap(&mut model)?; // … and train on
/// assert_eq!(model.weight.value().item()?, 5.0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Ema<T: Float> {
    decay: f64,
    n_averaged: u64,
    averages: BTreeMap<ParameterId, Tensor<T>>,
}

impl<T: Float> Ema<T> {
    /// Averages of all parameters of a model, frozen ones too, which are the parameters' values until
    /// the first update. Buffers are not averaged: they are themselves averages. PyTorch's default of `decay` is 0.999.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `decay` is in [0, 1].
    pub fn new(model: &dyn Parameters<Elem = T>, decay: f64) -> Result<Self> {
        check_range("Ema", "decay", decay, 0.0..=1.0, "in [0, 1]")?;
        let mut averages = BTreeMap::new();
        for (_, p) in model.named_parameters() {
            averages.insert(p.id(), copy(p.value())?);
        }
        Ok(Ema { decay, n_averaged: 0, averages })
    }

    /// Takes the parameters' values into the averages; the first time, they are the averages.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another model, [`Error::ShapeMismatch`] for a parameter of another
    /// shape; nothing is changed then.
    pub fn update(&mut self, model: &dyn Parameters<Elem = T>) -> Result<()> {
        self.check(model)?;
        let share = if self.n_averaged == 0 { 1.0 } else { 1.0 - self.decay };
        let numbers = (T::from_f64(share), T::from_f64(1.0 - share));
        model.visit(&mut Visitor::new(&mut |_: &str, p: &Parameter<T>| {
            let Some(average) = self.averages.get_mut(&p.id()) else { return };
            let w = p.value().contiguous();
            let w = Gradient::plain(w.as_slice().unwrap_or(&[]));
            w.in_parts([average.make_mut()], &|[a], w| dispatch(Average { a, w, numbers }));
        }));
        self.n_averaged += 1;
        Ok(())
    }

    /// Exchanges the averages with the parameters' values; once more, and all is as before. Nothing is
    /// copied.
    ///
    /// # Errors
    /// Those of [`Ema::update`]; nothing is changed then.
    pub fn swap(&mut self, model: &mut dyn Parameters<Elem = T>) -> Result<()> {
        self.check(model)?;
        model.visit_mut(&mut Visitor::new(&mut |_: &str, p: &mut Parameter<T>| {
            if let Some(average) = self.averages.get_mut(&p.id()) {
                std::mem::swap(average, p.value_mut());
            }
        }));
        Ok(())
    }

    /// Sets the parameters of another model, with the names and shapes of this one, to the averages of
    /// `model`'s.
    ///
    /// # Errors
    /// Those of [`Ema::update`], and [`Error::StateDict`] for other names or shapes; nothing is changed
    /// then.
    pub fn copy_to<M: Parameters<Elem = T> + ?Sized>(
        &self,
        model: &dyn Parameters<Elem = T>,
        other: &mut M,
    ) -> Result<()> {
        crate::state_dict::load_state_dict(other, &self.named(model)?)
    }

    /// The updates so far.
    pub fn n_averaged(&self) -> u64 {
        self.n_averaged
    }

    /// `n_averaged`, and each average as `module.PATH`, as PyTorch names them.
    ///
    /// # Errors
    /// Those of [`Ema::update`].
    pub fn state_dict(&self, model: &dyn Parameters<Elem = T>) -> Result<StateDict<T>> {
        let named = self.named(model)?.into_iter();
        Ok(StateDict {
            tensors: named.map(|(path, a)| (format!("module.{path}"), a)).collect(),
            numbers: BTreeMap::from([("n_averaged".to_owned(), self.n_averaged as f64)]),
        })
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// Those of [`Ema::update`], and [`Error::StateDict`], saying what is missing, unexpected or of
    /// another shape; nothing is changed then.
    pub fn load_state_dict(
        &mut self,
        model: &dyn Parameters<Elem = T>,
        state: &StateDict<T>,
    ) -> Result<()> {
        self.check(model)?;
        let mut reader = Reader::new(&state.numbers);
        let n_averaged = reader.count("n_averaged".to_owned(), MOST_STEPS).unwrap_or(0);
        let mut averages = BTreeMap::new();
        for (path, p) in model.named_parameters() {
            let value = reader.tensor(state, format!("module.{path}"), p.value().shape());
            averages.extend(value.map(|value| (p.id(), value.clone())));
        }
        for (path, p) in model.named_buffers() {
            reader.tensor(state, format!("module.{path}"), p.value().shape());
        }
        reader.finish("load_state_dict", state.tensors.keys())?;
        (self.averages, self.n_averaged) = (averages, n_averaged);
        Ok(())
    }

    /// The averages, and the buffers as they are.
    fn named(&self, model: &dyn Parameters<Elem = T>) -> Result<BTreeMap<String, Tensor<T>>> {
        self.check(model)?;
        let mut state = crate::state_dict::state_dict(model);
        for (path, p) in model.named_parameters() {
            state.extend(self.averages.get(&p.id()).map(|average| (path, average.clone())));
        }
        Ok(state)
    }

    /// Whether these are averages of the model's parameters.
    fn check(&self, model: &dyn Parameters<Elem = T>) -> Result<()> {
        let op = "Ema";
        let (mut all, mut found, mut misfit) = (0, 0, None);
        for (_, p) in model.named_parameters() {
            all += 1;
            let Some(average) = self.averages.get(&p.id()) else { continue };
            found += 1;
            if average.shape() != p.value().shape() {
                misfit = Some((average.shape().to_vec(), p.value().shape().to_vec()));
            }
        }
        if found < all || found < self.averages.len() {
            let averages = self.averages.len();
            let reason =
                format!("has {all} parameters, and {found} of the {averages} averaged ones");
            return Err(Error::InvalidArgument { op, name: "model", reason });
        }
        match misfit {
            Some((lhs, rhs)) => Err(Error::ShapeMismatch { op, lhs, rhs }),
            None => Ok(()),
        }
    }
}

/// The same elements in a block of their own: an average that shared a parameter's would make the next
/// step copy it.
fn copy<T: Float>(x: &Tensor<T>) -> Result<Tensor<T>> {
    Tensor::from_slice(x.contiguous().as_slice().unwrap_or(&[]), x.shape())
}

struct Average<'a, T> {
    a: &'a mut [T],
    w: &'a [T],
    /// The shares of w and of a.
    numbers: (T, T),
}

impl<T: Float> Kernel for Average<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Average { a, w, numbers: (new, old) } = self;
        // From the nearer end, so that equal numbers stay as they are, and a share of 1 is exact.
        let near = new < old;
        for (a, &w) in a.iter_mut().zip(w) {
            let d = w - *a;
            *a = if near { *a + new * d } else { w - old * d };
        }
    }
}
