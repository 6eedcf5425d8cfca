//! Optimisers: one pass over each parameter, in place; schedules of their rates; averages of the weights.
//!
//! An optimiser is a [`Rule`] for one parameter, with its options in groups: [`Grouped`] does the rest.
//! It holds no parameter and no gradient: both are given to each step.
//!
//! | | for | after |
//! |---|---|---|
//! | [`Sgd`] | anything; momentum, Nesterov | `torch.optim.SGD` |
//! | [`Adam`], [`AdamW`] | anything; a rate for each element, AMSGrad | `torch.optim.Adam`, `AdamW` |
//! | [`RMSprop`], [`Adagrad`] | a rate for each element, without a first moment | `torch.optim.RMSprop`, `Adagrad` |
//! | [`Lion`] | steps of one size, one number kept for each element | Chen et al., arXiv 2302.06675 |
//! | [`Muon`] | matrices | `torch.optim.Muon` |

mod adagrad;
mod adam;
mod ema;
mod gradient;
mod grouped;
mod lion;
pub mod lr_scheduler;
mod muon;
mod rmsprop;
mod sgd;
mod state;

use autograd::{Error, Float, Gradients, Result};

use crate::parameters::Parameters;

pub use adagrad::{Adagrad, AdagradOptions, AdagradRule};
pub use adam::{Adam, AdamOptions, AdamRule, AdamW, AdamWRule};
pub use ema::Ema;
pub use gradient::{ClipGrad, Gradient};
pub use grouped::Grouped;
pub use lion::{Lion, LionOptions, LionRule};
pub use muon::{AdjustLr, Muon, MuonOptions, MuonRule};
pub use rmsprop::{RMSprop, RMSpropOptions, RMSpropRule};
pub use sgd::{Sgd, SgdOptions, SgdRule};
pub use state::StateDict;

/// Updates parameters from their gradients.
pub trait Optimizer<T: Float>: ParamGroups {
    /// Updates every parameter of `model` that is not frozen, and puts the buffers' new values in
    /// place that the forward pass left.
    ///
    /// # Errors
    /// [`Error::MissingGradient`], naming the parameters that received none, and
    /// [`Error::ShapeMismatch`] for a gradient that does not fit; nothing is updated then.
    fn step(
        &mut self,
        model: &mut dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<()>;

    /// The learning rate: that of the first group, where there are several.
    fn lr(&self) -> f64;

    /// Sets the learning rate of the next steps, of all groups.
    fn set_lr(&mut self, lr: f64);

    /// What is kept for each parameter of `model`, and the options: what another optimiser of this
    /// kind needs to go on as this one would, bit for bit. Clipping and `allow_missing` are not part of
    /// it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another model than the one that was updated.
    fn state_dict(&self, model: &dyn Parameters<Elem = T>) -> Result<StateDict<T>>;

    /// Goes on from a state. `model` has the names and shapes of the one that was saved.
    ///
    /// # Errors
    /// [`Error::StateDict`], saying what is missing, unexpected, of another shape, out of range or in
    /// another group; the optimiser is then as it was.
    fn load_state_dict(
        &mut self,
        model: &dyn Parameters<Elem = T>,
        state: &StateDict<T>,
    ) -> Result<()>;
}

/// What schedules change: the rates of each group of parameters.
pub trait ParamGroups {
    /// The rates, group by group.
    fn rates(&mut self) -> Vec<Rates<'_>>;
}

/// The rates of a group.
#[derive(Debug)]
pub struct Rates<'a> {
    /// Learning rate.
    pub lr: &'a mut f64,
    /// `momentum`, or the first of `betas`; `None` where there is neither.
    pub momentum: Option<&'a mut f64>,
}

/// An option of a [`Rule`] that is saved with the state.
pub enum Field<'a> {
    /// A number.
    Number(&'a mut f64),
    /// Saved as 0 or 1.
    Flag(&'a mut bool),
    /// A count that a `f64` holds.
    Count(&'a mut u32),
    /// A choice: its number, and what sets it to that of another; false where there is none.
    Choice(u32, Box<dyn FnMut(u32) -> bool + 'a>),
}

/// How an optimiser updates one parameter; [`Grouped`] makes an [`Optimizer`] of it.
///
/// ```
/// use nn::optim::{Field, Grouped, Rule, Update};
/// use nn::prelude::*;
///
/// /// `w ← w − lr·sign(g)`. `torch.optim.SignSGD` does not exist; this is how one adds it.
/// #[derive(Debug)]
/// struct SignSgd;
///
/// impl Rule for SignSgd {
///     const NAME: &'static str = "SignSgd";
///     type Options = f64;
///     fn fields(lr: &mut f64) -> Vec<(&'static str, Field<'_>)> {
///         vec![("lr", Field::Number(lr))]
///     }
///     fn update<T: Float>(lr: &f64, update: Update<'_, T>) -> Result<()> {
///         let lr = T::from_f64(*lr);
///         update.g.in_parts([update.w], &|[w], g| {
///             w.iter_mut().zip(g).for_each(|(w, g)| *w -= lr * g.sign());
///         });
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.bias.as_ref().unwrap().value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::from_vec(vec![3.0], [1, 1])?))?;
/// let grads = y.sum().backward()?;
/// Grouped::<SignSgd, f64>::new(0.5)?.step(&mut model, &grads)?;
/// assert_eq!(model.bias.as_ref().unwrap().value().item()?, before - 0.5);
/// # Ok(())
/// # }
/// ```
pub trait Rule {
    /// The name that errors begin with.
    const NAME: &'static str;
    /// The options of a group.
    type Options: Clone + std::fmt::Debug;

    /// The options that are saved, by name; `lr` is one of them, and a schedule finds `momentum` or
    /// `betas.0`.
    fn fields(options: &mut Self::Options) -> Vec<(&'static str, Field<'_>)>;

    /// Refuses options out of range.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], saying which.
    fn check(options: &Self::Options) -> Result<()> {
        let _ = options;
        Ok(())
    }

    /// The names of the numbers kept for each element of a parameter.
    fn buffers(options: &Self::Options) -> &'static [&'static str] {
        let _ = options;
        &[]
    }

    /// What these numbers are at first.
    fn initial(options: &Self::Options) -> f64 {
        let _ = options;
        0.0
    }

    /// Whether to climb: the gradient's sign is turned before the rule sees it.
    fn maximize(options: &Self::Options) -> bool {
        let _ = options;
        false
    }

    /// Whether a parameter without a gradient is left as it is, where it would be an error.
    fn allow_missing(options: &Self::Options) -> bool {
        let _ = options;
        false
    }

    /// Why a parameter of this shape cannot be updated by the rule, such as "must be matrices".
    fn refuses(shape: &[usize]) -> Option<&'static str> {
        let _ = shape;
        None
    }

    /// Updates one parameter.
    ///
    /// # Errors
    /// Those of the tensor operations in use.
    fn update<T: Float>(options: &Self::Options, update: Update<'_, T>) -> Result<()>;
}

/// One step of one parameter.
#[derive(Debug)]
pub struct Update<'a, T: Float> {
    /// Which step of this parameter it is, from 1; always 1 where nothing is kept.
    pub step: u64,
    /// The shape of the parameter.
    pub shape: &'a [usize],
    /// The parameter's elements.
    pub w: &'a mut [T],
    /// The numbers kept for them, in the order of [`Rule::buffers`].
    pub buffers: &'a mut [Vec<T>],
    /// The gradient.
    pub g: Gradient<'a, T>,
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

/// Checks options that are finite and not negative.
fn check_positive<const N: usize>(
    op: &'static str,
    options: [(&'static str, f64); N],
) -> Result<()> {
    let mut all = options.into_iter();
    all.try_for_each(|(name, value)| check_range(op, name, value, 0.0.., "finite and not negative"))
}

fn check_betas(op: &'static str, betas: (f64, f64)) -> Result<()> {
    check_range(op, "betas", betas.0, 0.0..1.0, "in [0, 1)")?;
    check_range(op, "betas", betas.1, 0.0..1.0, "in [0, 1)")
}

/// `1 − betaˢᵗᵉᵖ`: the share of the gradients in a moment that began with 0.
fn bias_correction(beta: f64, step: u64) -> f64 {
    1.0 - beta.powi(i32::try_from(step).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Parameter, Visitor};
    use autograd::{Tape, Tensor, Var};

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
}
