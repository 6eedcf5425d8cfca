//! Adagrad.

use autograd::{Float, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Field, Grouped, Rule, Update, check_positive};

/// Options of [`Adagrad`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct AdagradOptions {
    /// Learning rate.
    pub lr: f64,
    /// η: step t has the learning rate `lr/(1 + (t−1)·η)`.
    pub lr_decay: f64,
    /// λ: the weights' own share in the gradient (L2).
    pub weight_decay: f64,
    /// What the sums of squares begin with.
    pub initial_accumulator_value: f64,
    /// Added to the root of the sum.
    pub eps: f64,
    /// Climbs: the gradient is taken as −g.
    pub maximize: bool,
    /// Leaves parameters without a gradient as they are, where it would be an error.
    pub allow_missing: bool,
}

impl Default for AdagradOptions {
    fn default() -> Self {
        AdagradOptions {
            lr: 1e-2,
            lr_decay: 0.0,
            weight_decay: 0.0,
            initial_accumulator_value: 0.0,
            eps: 1e-10,
            maximize: false,
            allow_missing: false,
        }
    }
}

/// `s ← s + g²`, `w ← w − lr/(1 + (t−1)·η)·g/(√s + ε)`. `torch.optim.Adagrad`; Duchi, Hazan & Singer,
/// JMLR 12 (2011).
///
/// ```
/// use nn::optim::{Adagrad, AdagradOptions};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.weight.value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::from_vec(vec![3.0], [1, 1])?))?;
/// Adagrad::new(AdagradOptions::default())?.step(&mut model, &y.sum().backward()?)?;
/// assert!((model.weight.value().item()? - (before - 0.01)).abs() < 1e-10);
/// # Ok(())
/// # }
/// ```
pub type Adagrad<T> = Grouped<AdagradRule, T>;

/// The rule of [`Adagrad`].
#[derive(Debug)]
pub struct AdagradRule;

impl Rule for AdagradRule {
    const NAME: &'static str = "Adagrad";
    type Options = AdagradOptions;

    fn fields(o: &mut AdagradOptions) -> Vec<(&'static str, Field<'_>)> {
        vec![
            ("lr", Field::Number(&mut o.lr)),
            ("lr_decay", Field::Number(&mut o.lr_decay)),
            ("weight_decay", Field::Number(&mut o.weight_decay)),
            ("initial_accumulator_value", Field::Number(&mut o.initial_accumulator_value)),
            ("eps", Field::Number(&mut o.eps)),
            ("maximize", Field::Flag(&mut o.maximize)),
        ]
    }

    fn check(o: &AdagradOptions) -> Result<()> {
        let numbers = [
            ("lr", o.lr),
            ("lr_decay", o.lr_decay),
            ("weight_decay", o.weight_decay),
            ("initial_accumulator_value", o.initial_accumulator_value),
            ("eps", o.eps),
        ];
        check_positive(Self::NAME, numbers)
    }

    fn buffers(_: &AdagradOptions) -> &'static [&'static str] {
        &["sum"]
    }

    fn initial(o: &AdagradOptions) -> f64 {
        o.initial_accumulator_value
    }

    fn maximize(o: &AdagradOptions) -> bool {
        o.maximize
    }

    fn allow_missing(o: &AdagradOptions) -> bool {
        o.allow_missing
    }

    fn update<T: Float>(o: &AdagradOptions, update: Update<'_, T>) -> Result<()> {
        let Update { step, w, buffers, g, .. } = update;
        let [sum] = buffers else { unreachable!("bug: {} buffers", buffers.len()) };
        let lr = T::from_f64(o.lr / (1.0 + (step - 1) as f64 * o.lr_decay));
        let (eps, decay) = (T::from_f64(o.eps), T::from_f64(o.weight_decay));
        g.in_parts([w, sum], &|[w, sum], g| dispatch(Sums { w, g, sum, lr, eps, decay }));
        Ok(())
    }
}

struct Sums<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    sum: &'a mut [T],
    lr: T,
    eps: T,
    decay: T,
}

impl<T: Float> Kernel for Sums<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Sums { w, g, sum, lr, eps, decay } = self;
        for ((w, &g), sum) in w.iter_mut().zip(g).zip(sum) {
            let g = g + decay * *w;
            *sum += g * g;
            *w -= lr * g / (sum.sqrt() + eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn matches_the_formulas() {
        let options = AdagradOptions {
            lr: 0.3,
            lr_decay: 0.1,
            weight_decay: 0.05,
            initial_accumulator_value: 0.2,
            ..Default::default()
        };
        let got = run(&mut Adagrad::new(options).unwrap(), 20);
        for (i, start) in [0.0, 0.5, -2.0].into_iter().enumerate() {
            let (mut w, mut sum) = (start, 0.2);
            for t in 1..=20 {
                let g = 2.0 * (i + 1) as f64 * (w - 1.0) + 0.05 * w;
                sum += g * g;
                w -= 0.3 / (1.0 + f64::from(t - 1) * 0.1) * g / (sum.sqrt() + 1e-10);
            }
            assert!((got[i] - w).abs() < 1e-12, "{} {w}", got[i]);
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let text = |o| Adagrad::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let base = AdagradOptions::default();
        let sum = text(AdagradOptions { initial_accumulator_value: -1.0, ..base });
        let expected =
            "Adagrad: initial_accumulator_value must be finite and not negative, found -1";
        assert_eq!(sum, expected);
        text(AdagradOptions { lr_decay: f64::NAN, ..base });
    }
}
