//! Stochastic gradient descent with momentum.

use std::collections::BTreeMap;

use autograd::{Error, Float, Gradients, ParameterId, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Optimizer, check_range, checked_lr, in_parts, update_each};
use crate::parameters::Parameters;

/// Options of [`Sgd`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct SgdOptions {
    /// Learning rate.
    pub lr: f64,
    /// μ: the share of the last step that is kept.
    pub momentum: f64,
    /// The share of the gradient left out of the momentum.
    pub dampening: f64,
    /// λ: the weights' own share in the gradient (L2).
    pub weight_decay: f64,
    /// Looks ahead along the momentum.
    pub nesterov: bool,
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
            allow_missing: false,
        }
    }
}

/// `v ← μ·v + (1−τ)·(g + λ·w)`, `w ← w − lr·v` (Nesterov: `w − lr·(g + λ·w + μ·v)`); the first step
/// has `v = g + λ·w`. `torch.optim.SGD`.
#[derive(Debug)]
pub struct Sgd<T> {
    options: SgdOptions,
    momentum: BTreeMap<ParameterId, Vec<T>>,
}

impl<T: Float> Sgd<T> {
    /// The optimiser, without momentum yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an option out of range.
    pub fn new(options: SgdOptions) -> Result<Self> {
        let op = "Sgd";
        checked_lr(op, options.lr)?;
        let positive = "finite and not negative";
        check_range(op, "momentum", options.momentum, 0.0.., positive)?;
        check_range(op, "dampening", options.dampening, .., "finite")?;
        check_range(op, "weight_decay", options.weight_decay, 0.0.., positive)?;
        if options.nesterov && (options.momentum == 0.0 || options.dampening != 0.0) {
            let reason = "needs a momentum and no dampening".into();
            return Err(Error::InvalidArgument { op, name: "nesterov", reason });
        }
        Ok(Sgd { options, momentum: BTreeMap::new() })
    }
}

impl<T: Float> Optimizer<T> for Sgd<T> {
    fn step(
        &mut self,
        model: &mut dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        let Sgd { options, momentum } = self;
        update_each(model, gradients, options.allow_missing, |id, w, g| {
            let (lr, decay) = (T::from_f64(options.lr), T::from_f64(options.weight_decay));
            if options.momentum == 0.0 {
                return in_parts([w], g, &|[w], g| dispatch(Plain { w, g, lr, decay }));
            }
            let first = !momentum.contains_key(&id);
            let v = momentum.entry(id).or_insert_with(|| vec![T::ZERO; w.len()]);
            let share = if first { 1.0 } else { 1.0 - options.dampening };
            let (mu, share) = (T::from_f64(options.momentum), T::from_f64(share));
            let nesterov = options.nesterov;
            in_parts([w, v], g, &|[w, v], g| {
                dispatch(Momentum { w, g, v, lr, decay, mu, share, nesterov });
            });
        })
    }

    fn lr(&self) -> f64 {
        self.options.lr
    }

    fn set_lr(&mut self, lr: f64) {
        self.options.lr = lr;
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
}
