//! Lion.

use autograd::{Float, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Field, Grouped, Rule, Update, check_betas, check_positive};

/// Options of [`Lion`]; the defaults are the paper's.
#[derive(Clone, Copy, Debug)]
pub struct LionOptions {
    /// Learning rate: the size of the step of every element. A third to a tenth of Adam's is usual.
    pub lr: f64,
    /// The momentum's share in the direction, and in the next momentum.
    pub betas: (f64, f64),
    /// λ: each step also takes `lr·λ·w` off the weights.
    pub weight_decay: f64,
    /// Climbs: the gradient is taken as −g.
    pub maximize: bool,
    /// Leaves parameters without a gradient as they are, where it would be an error.
    pub allow_missing: bool,
}

impl Default for LionOptions {
    fn default() -> Self {
        LionOptions {
            lr: 1e-4,
            betas: (0.9, 0.99),
            weight_decay: 0.0,
            maximize: false,
            allow_missing: false,
        }
    }
}

/// `c = β₁·m + (1−β₁)·g`, `w ← (1 − lr·λ)·w − lr·sign(c)`, `m ← β₂·m + (1−β₂)·g`. Chen et al., arXiv
/// 2302.06675, algorithm 2. Where `c` is 0 nothing but the decay happens; NaN stays NaN.
///
/// ```
/// use nn::optim::{Lion, LionOptions};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.weight.value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::from_vec(vec![3.0], [1, 1])?))?;
/// Lion::new(LionOptions::default())?.step(&mut model, &y.sum().backward()?)?;
/// assert_eq!(model.weight.value().item()?, before - 1e-4);
/// # Ok(())
/// # }
/// ```
pub type Lion<T> = Grouped<LionRule, T>;

/// The rule of [`Lion`].
#[derive(Debug)]
pub struct LionRule;

impl Rule for LionRule {
    const NAME: &'static str = "Lion";
    type Options = LionOptions;

    fn fields(o: &mut LionOptions) -> Vec<(&'static str, Field<'_>)> {
        vec![
            ("lr", Field::Number(&mut o.lr)),
            ("betas.0", Field::Number(&mut o.betas.0)),
            ("betas.1", Field::Number(&mut o.betas.1)),
            ("weight_decay", Field::Number(&mut o.weight_decay)),
            ("maximize", Field::Flag(&mut o.maximize)),
        ]
    }

    fn check(o: &LionOptions) -> Result<()> {
        check_positive(Self::NAME, [("lr", o.lr), ("weight_decay", o.weight_decay)])?;
        check_betas(Self::NAME, o.betas)
    }

    fn buffers(_: &LionOptions) -> &'static [&'static str] {
        &["exp_avg"]
    }

    fn maximize(o: &LionOptions) -> bool {
        o.maximize
    }

    fn allow_missing(o: &LionOptions) -> bool {
        o.allow_missing
    }

    fn update<T: Float>(o: &LionOptions, update: Update<'_, T>) -> Result<()> {
        let Update { w, buffers, g, .. } = update;
        let [m] = buffers else { unreachable!("bug: {} buffers", buffers.len()) };
        let numbers = Numbers {
            lr: T::from_f64(o.lr),
            betas: (T::from_f64(o.betas.0), T::from_f64(o.betas.1)),
            shares: (T::from_f64(1.0 - o.betas.0), T::from_f64(1.0 - o.betas.1)),
            shrink: T::from_f64(1.0 - o.lr * o.weight_decay),
        };
        g.in_parts([w, m], &|[w, m], g| dispatch(Signs { w, g, m, numbers }));
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Numbers<T> {
    lr: T,
    betas: (T, T),
    shares: (T, T),
    shrink: T,
}

struct Signs<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    m: &'a mut [T],
    numbers: Numbers<T>,
}

impl<T: Float> Kernel for Signs<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Signs { w, g, m, numbers } = self;
        let Numbers { lr, betas, shares, shrink } = numbers;
        for ((w, &g), m) in w.iter_mut().zip(g).zip(m) {
            let c = betas.0 * *m + shares.0 * g;
            *w = shrink * *w - lr * c.sign();
            *m = betas.1 * *m + shares.1 * g;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused() {
        let text = |o| Lion::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let base = LionOptions::default();
        let betas = text(LionOptions { betas: (0.9, 1.0), ..base });
        assert_eq!(betas, "Lion: betas must be in [0, 1), found 1");
        text(LionOptions { weight_decay: f64::NAN, ..base });
    }
}
