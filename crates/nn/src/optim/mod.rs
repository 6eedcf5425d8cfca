//! Optimisers: one pass over each parameter, in place.

mod adam;
mod sgd;

use autograd::{Error, Float, Gradients, ParameterId, Result, Tensor};

use crate::parameters::{Parameter, Parameters, Visitor};

pub use adam::{Adam, AdamOptions, AdamW};
pub use sgd::{Sgd, SgdOptions};

/// Updates parameters from their gradients.
pub trait Optimizer<T: Float> {
    /// Updates every parameter of `model` that is not frozen.
    ///
    /// # Errors
    /// [`Error::MissingGradient`], naming the parameters that received none, and
    /// [`Error::ShapeMismatch`] for a gradient that does not fit; nothing is updated then.
    fn step(
        &mut self,
        model: &mut dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<()>;

    /// The learning rate.
    fn lr(&self) -> f64;

    /// Sets the learning rate of the next steps.
    fn set_lr(&mut self, lr: f64);
}

/// Calls `update(id, value, gradient)` for every trainable parameter, once all have been checked.
fn update_each<T: Float>(
    model: &mut dyn Parameters<Elem = T>,
    gradients: &Gradients<T>,
    allow_missing: bool,
    mut update: impl FnMut(ParameterId, &mut [T], &[T]),
) -> Result<()> {
    let mut missing = Vec::new();
    let mut misfit = None;
    let mut check = |path: &str, p: &Parameter<T>| match gradients.parameter(p.id()) {
        _ if p.is_frozen() => {}
        None if !allow_missing => missing.push(path.to_owned()),
        Some(g) if g.shape() != p.value().shape() => {
            misfit = Some((p.value().shape().to_vec(), g.shape().to_vec()));
        }
        _ => {}
    };
    model.visit(&mut Visitor::new(&mut check));
    if !missing.is_empty() {
        return Err(Error::MissingGradient { op: "step", parameters: missing });
    }
    if let Some((lhs, rhs)) = misfit {
        return Err(Error::ShapeMismatch { op: "step", lhs, rhs });
    }
    model.visit_mut(&mut Visitor::new(&mut |_: &str, p: &mut Parameter<T>| {
        if p.is_frozen() {
            return;
        }
        if let Some(gradient) = gradients.parameter(p.id()).map(Tensor::contiguous) {
            let id = p.id();
            let gradient = gradient.as_slice().unwrap_or(&[]);
            update(id, p.value_mut().make_mut(), gradient);
        }
    }));
    Ok(())
}

/// Elements of a part; shorter parameters stay on one thread.
const PART: usize = 32 << 10;

/// Calls `update(parts of the state, the same part of g)` for all of some slices of equal length, on
/// several threads where they are long.
fn in_parts<T: Float, const N: usize>(
    state: [&mut [T]; N],
    g: &[T],
    update: &(impl Fn([&mut [T]; N], &[T]) + Sync),
) {
    if g.len() <= PART || rayon::current_num_threads() == 1 {
        return update(state, g);
    }
    // Halves that end with a vector.
    let (first, second) = g.split_at((g.len() / 2).next_multiple_of(16));
    let mut halves = state.map(|s| s.split_at_mut(first.len()));
    let left = halves.each_mut().map(|half| std::mem::take(&mut half.0));
    let right = halves.map(|half| half.1);
    rayon::join(|| in_parts(left, first, update), || in_parts(right, second, update));
}

/// Checks that a number is finite and in a range.
fn check_range(
    op: &'static str,
    name: &'static str,
    value: f64,
    range: impl std::ops::RangeBounds<f64>,
    want: &str,
) -> Result<()> {
    if value.is_finite() && range.contains(&value) {
        return Ok(());
    }
    Err(Error::InvalidArgument { op, name, reason: format!("must be {want}, found {value}") })
}

/// Checks a learning rate given to a running optimiser; a wrong one is a bug of the caller's.
fn checked_lr(op: &'static str, lr: f64) -> Result<()> {
    check_range(op, "lr", lr, 0.0.., "finite and not negative")
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::{Tape, Var};

    /// A model of one vector.
    pub(super) struct One(pub(super) Parameter<f64>);

    impl Parameters for One {
        type Elem = f64;
        fn visit<'a>(&'a self, v: &mut Visitor<'_, &'a Parameter<f64>>) {
            v.parameter("w", &self.0);
        }
        fn visit_mut<'a>(&'a mut self, v: &mut Visitor<'_, &'a mut Parameter<f64>>) {
            v.parameter("w", &mut self.0);
        }
    }

    /// `steps` of an optimiser on Σ (i+1)·(w_i − 1)² from w = (0, 0.5, −2).
    pub(super) fn run(optimizer: &mut dyn Optimizer<f64>, steps: usize) -> Vec<f64> {
        let mut model = One(Parameter::new(Tensor::from_vec(vec![0.0, 0.5, -2.0], [3]).unwrap()));
        let curvature = Var::constant(Tensor::from_vec(vec![1.0, 2.0, 3.0], [3]).unwrap());
        let tape = Tape::new();
        for _ in 0..steps {
            let d = model.0.bind(&tape) - 1.0;
            let grads = (&d * &d * &curvature).sum().backward().unwrap();
            optimizer.step(&mut model, &grads).unwrap();
        }
        model.0.value().to_vec()
    }

    #[test]
    fn a_missing_gradient_is_named_and_nothing_is_updated() {
        let mut model = One(Parameter::new(Tensor::from_vec(vec![1.0], [1]).unwrap()));
        let tape = Tape::new();
        let grads = tape.var(Tensor::scalar(1.0)).backward().unwrap();
        let mut sgd = Sgd::new(SgdOptions { lr: 0.1, ..Default::default() }).unwrap();
        let text = sgd.step(&mut model, &grads).unwrap_err().to_string();
        assert_eq!(text, "step: no gradient for w");
        model.0.set_frozen(true);
        sgd.step(&mut model, &grads).unwrap();
        assert_eq!(model.0.value().to_vec(), [1.0]);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let sgd = |o| Sgd::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let text = sgd(SgdOptions { lr: -1.0, ..Default::default() });
        assert_eq!(text, "Sgd: lr must be finite and not negative, found -1");
        sgd(SgdOptions { momentum: f64::NAN, ..Default::default() });
        sgd(SgdOptions { nesterov: true, ..Default::default() });
        let adam = |o| Adam::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        adam(AdamOptions { betas: (1.0, 0.9), ..Default::default() });
        adam(AdamOptions { eps: -1e-8, ..Default::default() });
    }
}
