//! Stochastic gradient descent with momentum.

use autograd::{Error, Float, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Field, Grouped, Rule, Update, check_positive, check_range};

/// Options of [`Sgd`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct SgdOptions {
    /// Learning rate.
    pub lr: f64,
    /// μ: the share of the last step that is kept.
    pub momentum: f64,
    /// τ: the share of the gradient left out of the momentum.
    pub dampening: f64,
    /// λ: the weights' own share in the gradient (L2).
    pub weight_decay: f64,
    /// Looks ahead along the momentum.
    pub nesterov: bool,
    /// Climbs: the gradient is taken as −g.
    pub maximize: bool,
    /// Leaves parameters without a gradient as they are, where it would be an error.
    pub allow_missing: bool,
}

impl Default for SgdOptions {
    fn default() -> Self {
        SgdOptions {
            lr: 1e-3,
            momentum: 0.0,
            dampening: 0.0,
            weight_decay: 0.0,
            nesterov: false,
            maximize: false,
            allow_missing: false,
        }
    }
}

/// `v ← μ·v + (1−τ)·(g + λ·w)`, `w ← w − lr·v` (Nesterov: `w − lr·(g + λ·w + μ·v)`); the first step
/// has `v = g + λ·w`. `torch.optim.SGD`; Sutskever, Martens, Dahl & Hinton, ICML 2013.
///
/// ```
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.weight.value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::from_vec(vec![3.0], [1, 1])?))?;
/// let grads = y.sum().backward()?; // dL/dw = 3
/// let mut optimizer = Sgd::new(SgdOptions { lr: 0.5, ..Default::default() })?;
/// optimizer.step(&mut model, &grads)?;
/// assert_eq!(model.weight.value().item()?, before - 0.5 * 3.0);
/// # Ok(())
/// # }
/// ```
pub type Sgd<T> = Grouped<SgdRule, T>;

/// The rule of [`Sgd`].
#[derive(Debug)]
pub struct SgdRule;

impl Rule for SgdRule {
    const NAME: &'static str = "Sgd";
    type Options = SgdOptions;

    fn fields(o: &mut SgdOptions) -> Vec<(&'static str, Field<'_>)> {
        vec![
            ("lr", Field::Number(&mut o.lr)),
            ("momentum", Field::Number(&mut o.momentum)),
            ("dampening", Field::Number(&mut o.dampening)),
            ("weight_decay", Field::Number(&mut o.weight_decay)),
            ("nesterov", Field::Flag(&mut o.nesterov)),
            ("maximize", Field::Flag(&mut o.maximize)),
        ]
    }

    fn check(o: &SgdOptions) -> Result<()> {
        let SgdOptions { lr, momentum, dampening, weight_decay, nesterov, .. } = *o;
        let numbers = [("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)];
        check_positive(Self::NAME, numbers)?;
        check_range(Self::NAME, "dampening", dampening, .., "finite")?;
        if nesterov && (momentum == 0.0 || dampening != 0.0) {
            let reason = "needs a momentum and no dampening".into();
            return Err(Error::InvalidArgument { op: Self::NAME, name: "nesterov", reason });
        }
        Ok(())
    }

    fn buffers(o: &SgdOptions) -> &'static [&'static str] {
        if o.momentum == 0.0 { &[] } else { &["momentum_buffer"] }
    }

    fn maximize(o: &SgdOptions) -> bool {
        o.maximize
    }

    fn allow_missing(o: &SgdOptions) -> bool {
        o.allow_missing
    }

    fn update<T: Float>(o: &SgdOptions, update: Update<'_, T>) -> Result<()> {
        let Update { step, w, buffers, g, .. } = update;
        let (lr, decay) = (T::from_f64(o.lr), T::from_f64(o.weight_decay));
        let [v] = buffers else {
            g.in_parts([w], &|[w], g| dispatch(Plain { w, g, lr, decay }));
            return Ok(());
        };
        let share = if step == 1 { 1.0 } else { 1.0 - o.dampening };
        let (mu, share) = (T::from_f64(o.momentum), T::from_f64(share));
        let nesterov = o.nesterov;
        g.in_parts([w, v], &|[w, v], g| {
            dispatch(Momentum { w, g, v, lr, decay, mu, share, nesterov });
        });
        Ok(())
    }
}

struct Plain<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    lr: T,
    decay: T,
}

impl<T: Float> Kernel for Plain<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (w, &g) in self.w.iter_mut().zip(self.g) {
            *w -= self.lr * (g + self.decay * *w);
        }
    }
}

struct Momentum<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    v: &'a mut [T],
    lr: T,
    decay: T,
    mu: T,
    share: T,
    nesterov: bool,
}

impl<T: Float> Kernel for Momentum<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Momentum { w, g, v, lr, decay, mu, share, nesterov } = self;
        let ahead = if nesterov { mu } else { T::ONE };
        let own = if nesterov { T::ONE } else { T::ZERO };
        for ((w, &g), v) in w.iter_mut().zip(g).zip(v) {
            let g = g + decay * *w;
            *v = mu * *v + share * g;
            *w -= lr * (own * g + ahead * *v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    /// The formulas of the docs, one number at a time.
    fn reference(o: SgdOptions, steps: usize) -> Vec<f64> {
        let one = |i: usize, start: f64| {
            let (mut w, mut v) = (start, 0.0);
            for step in 0..steps {
                let g = 2.0 * (i + 1) as f64 * (w - 1.0) + o.weight_decay * w;
                v = if step == 0 { g } else { o.momentum * v + (1.0 - o.dampening) * g };
                let d = match (o.momentum != 0.0, o.nesterov) {
                    (false, _) => g,
                    (true, false) => v,
                    (true, true) => g + o.momentum * v,
                };
                w -= o.lr * d;
            }
            w
        };
        [0.0, 0.5, -2.0].iter().enumerate().map(|(i, &w)| one(i, w)).collect()
    }

    #[test]
    fn matches_the_formulas() {
        let base = SgdOptions { lr: 0.05, ..Default::default() };
        for options in [
            base,
            SgdOptions { weight_decay: 0.1, ..base },
            SgdOptions { momentum: 0.9, ..base },
            SgdOptions { momentum: 0.9, dampening: 0.3, weight_decay: 0.01, ..base },
            SgdOptions { momentum: 0.9, nesterov: true, ..base },
        ] {
            let got = run(&mut Sgd::new(options).unwrap(), 20);
            for (g, w) in got.iter().zip(reference(options, 20)) {
                assert!((g - w).abs() < 1e-12, "{options:?}: {g} {w}");
            }
        }
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let sgd = |o| Sgd::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let base = SgdOptions::default();
        assert_eq!(
            sgd(SgdOptions { lr: -1.0, ..base }),
            "Sgd: lr must be finite and not negative, found -1"
        );
        sgd(SgdOptions { momentum: f64::NAN, ..base });
        sgd(SgdOptions { dampening: f64::INFINITY, ..base });
        sgd(SgdOptions { nesterov: true, ..base });
        sgd(SgdOptions { nesterov: true, momentum: 0.9, dampening: 0.1, ..base });
    }
}
