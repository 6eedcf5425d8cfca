//! RMSprop.

use autograd::{Float, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Field, Grouped, Rule, Update, check_positive, check_range};

/// Options of [`RMSprop`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct RMSpropOptions {
    /// Learning rate.
    pub lr: f64,
    /// α: the share of the averages that a step keeps.
    pub alpha: f64,
    /// Added to the root of the average.
    pub eps: f64,
    /// λ: the weights' own share in the gradient (L2).
    pub weight_decay: f64,
    /// μ: the share of the last step that is kept.
    pub momentum: f64,
    /// Divides by an estimate of the standard deviation: the square of the average gradient is taken
    /// off the average of the squares.
    pub centered: bool,
    /// Climbs: the gradient is taken as −g.
    pub maximize: bool,
    /// Leaves parameters without a gradient as they are, where it would be an error.
    pub allow_missing: bool,
}

impl Default for RMSpropOptions {
    fn default() -> Self {
        RMSpropOptions {
            lr: 1e-2,
            alpha: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            centered: false,
            maximize: false,
            allow_missing: false,
        }
    }
}

/// `v ← α·v + (1−α)·g²`, `w ← w − lr·g/(√v + ε)`; with momentum `b ← μ·b + g/(√v + ε)`,
/// `w ← w − lr·b`; centered, `√(v − a²)` stands for `√v`, with `a ← α·a + (1−α)·g`.
/// `torch.optim.RMSprop`; Tieleman & Hinton, lecture 6.5 of Neural Networks for Machine Learning
/// (2012); centered: Graves, arXiv 1308.0850.
///
/// A difference `v − a²` that rounding made negative counts as 0, where PyTorch's step is NaN.
///
/// ```
/// use nn::optim::{RMSprop, RMSpropOptions};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.weight.value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::from_vec(vec![3.0], [1, 1])?))?;
/// RMSprop::new(RMSpropOptions::default())?.step(&mut model, &y.sum().backward()?)?;
/// // The first step is lr/√(1−α), whatever the size of the gradient.
/// assert!((model.weight.value().item()? - (before - 0.1)).abs() < 1e-8);
/// # Ok(())
/// # }
/// ```
pub type RMSprop<T> = Grouped<RMSpropRule, T>;

/// The rule of [`RMSprop`].
#[derive(Debug)]
pub struct RMSpropRule;

impl Rule for RMSpropRule {
    const NAME: &'static str = "RMSprop";
    type Options = RMSpropOptions;

    fn fields(o: &mut RMSpropOptions) -> Vec<(&'static str, Field<'_>)> {
        vec![
            ("lr", Field::Number(&mut o.lr)),
            ("alpha", Field::Number(&mut o.alpha)),
            ("eps", Field::Number(&mut o.eps)),
            ("weight_decay", Field::Number(&mut o.weight_decay)),
            ("momentum", Field::Number(&mut o.momentum)),
            ("centered", Field::Flag(&mut o.centered)),
            ("maximize", Field::Flag(&mut o.maximize)),
        ]
    }

    fn check(o: &RMSpropOptions) -> Result<()> {
        let RMSpropOptions { lr, alpha, eps, weight_decay, momentum, .. } = *o;
        let numbers = [("lr", lr), ("eps", eps), ("weight_decay", weight_decay)];
        check_positive(Self::NAME, numbers)?;
        check_positive(Self::NAME, [("momentum", momentum)])?;
        check_range(Self::NAME, "alpha", alpha, 0.0..=1.0, "in [0, 1]")
    }

    fn buffers(o: &RMSpropOptions) -> &'static [&'static str] {
        match (o.centered, o.momentum != 0.0) {
            (false, false) => &["square_avg"],
            (false, true) => &["square_avg", "momentum_buffer"],
            (true, false) => &["square_avg", "grad_avg"],
            (true, true) => &["square_avg", "grad_avg", "momentum_buffer"],
        }
    }

    fn maximize(o: &RMSpropOptions) -> bool {
        o.maximize
    }

    fn allow_missing(o: &RMSpropOptions) -> bool {
        o.allow_missing
    }

    fn update<T: Float>(o: &RMSpropOptions, update: Update<'_, T>) -> Result<()> {
        let Update { w, buffers, g, .. } = update;
        let n = Numbers {
            lr: T::from_f64(o.lr),
            alpha: T::from_f64(o.alpha),
            share: T::from_f64(1.0 - o.alpha),
            eps: T::from_f64(o.eps),
            decay: T::from_f64(o.weight_decay),
            mu: T::from_f64(o.momentum),
        };
        match (buffers, o.centered) {
            ([v], _) => g.in_parts([w, v], &|[w, v], g| {
                dispatch(Squares::<_, false, false> { w, g, v, a: &mut [], b: &mut [], n });
            }),
            ([v, b], false) => g.in_parts([w, v, b], &|[w, v, b], g| {
                dispatch(Squares::<_, false, true> { w, g, v, a: &mut [], b, n });
            }),
            ([v, a], true) => g.in_parts([w, v, a], &|[w, v, a], g| {
                dispatch(Squares::<_, true, false> { w, g, v, a, b: &mut [], n });
            }),
            ([v, a, b], _) => g.in_parts([w, v, a, b], &|[w, v, a, b], g| {
                dispatch(Squares::<_, true, true> { w, g, v, a, b, n });
            }),
            (buffers, _) => unreachable!("bug: {} buffers", buffers.len()),
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Numbers<T> {
    lr: T,
    alpha: T,
    share: T,
    eps: T,
    decay: T,
    mu: T,
}

/// `a` and `b` are empty where they are not in use.
struct Squares<'a, T, const CENTERED: bool, const MOMENTUM: bool> {
    w: &'a mut [T],
    g: &'a [T],
    v: &'a mut [T],
    a: &'a mut [T],
    b: &'a mut [T],
    n: Numbers<T>,
}

impl<T: Float, const CENTERED: bool, const MOMENTUM: bool> Kernel
    for Squares<'_, T, CENTERED, MOMENTUM>
{
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Squares { w, g, v, a, b, n } = self;
        let len = w.len();
        let (g, v) = (&g[..len], &mut v[..len]);
        let a = if CENTERED { &mut a[..len] } else { a };
        let b = if MOMENTUM { &mut b[..len] } else { b };
        for i in 0..len {
            let g = g[i] + n.decay * w[i];
            v[i] = n.alpha * v[i] + n.share * g * g;
            let mut square = v[i];
            if CENTERED {
                a[i] = n.alpha * a[i] + n.share * g;
                square = (square - a[i] * a[i]).larger(T::ZERO);
            }
            let mut d = g / (square.sqrt() + n.eps);
            if MOMENTUM {
                b[i] = n.mu * b[i] + d;
                d = b[i];
            }
            w[i] -= n.lr * d;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn matches_the_formulas() {
        let base = RMSpropOptions { lr: 0.02, weight_decay: 0.1, ..Default::default() };
        for (centered, momentum) in [(false, 0.0), (false, 0.9), (true, 0.0), (true, 0.9)] {
            let got =
                run(&mut RMSprop::new(RMSpropOptions { centered, momentum, ..base }).unwrap(), 20);
            for (i, start) in [0.0, 0.5, -2.0].into_iter().enumerate() {
                let (mut w, mut v, mut a, mut b) = (start, 0.0, 0.0, 0.0);
                for _ in 0..20 {
                    let g = 2.0 * (i + 1) as f64 * (w - 1.0) + 0.1 * w;
                    v = 0.99 * v + 0.01 * g * g;
                    a = 0.99 * a + 0.01 * g;
                    let root = if centered { v - a * a } else { v }.sqrt();
                    b = momentum * b + g / (root + 1e-8);
                    w -= 0.02 * b;
                }
                assert!((got[i] - w).abs() < 1e-12, "{centered} {momentum}: {} {w}", got[i]);
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let text = |o| RMSprop::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let base = RMSpropOptions::default();
        let alpha = text(RMSpropOptions { alpha: 1.5, ..base });
        assert_eq!(alpha, "RMSprop: alpha must be in [0, 1], found 1.5");
        text(RMSpropOptions { momentum: -0.1, ..base });
        text(RMSpropOptions { eps: f64::NAN, ..base });
        text(RMSpropOptions { lr: f64::INFINITY, ..base });
    }
}
