//! Adam and AdamW.

use std::collections::BTreeMap;

use autograd::{Float, Gradients, ParameterId, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Optimizer, check_range, checked_lr, in_parts, update_each};
use crate::parameters::Parameters;

/// Options of [`Adam`] and [`AdamW`]; the defaults are PyTorch's, but that the weight decay is 0 for
/// both.
#[derive(Clone, Copy, Debug)]
pub struct AdamOptions {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// λ: for Adam the weights' own share in the gradient (L2); for AdamW each step also takes
    /// `lr·λ·w` off the weights.
    pub weight_decay: f64,
    /// Leaves parameters without a gradient as they are, where it would be an error.
    pub allow_missing: bool,
}

impl Default for AdamOptions {
    fn default() -> Self {
        AdamOptions {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.0,
            allow_missing: false,
        }
    }
}

/// `m ← β₁·m + (1−β₁)·g`, `v ← β₂·v + (1−β₂)·g²`, `w ← w − lr·m̂/(√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`,
/// `v̂ = v/(1−β₂ᵗ)`. `torch.optim.Adam`; Kingma & Ba, arXiv 1412.6980.
#[derive(Debug)]
pub struct Adam<T> {
    options: AdamOptions,
    decoupled: bool,
    moments: BTreeMap<ParameterId, Moments<T>>,
}

#[derive(Debug)]
struct Moments<T> {
    step: i32,
    first: Vec<T>,
    second: Vec<T>,
}

impl<T: Float> Adam<T> {
    /// The optimiser, with moments of 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an option out of range.
    pub fn new(options: AdamOptions) -> Result<Self> {
        Self::with("Adam", options, false)
    }

    fn with(op: &'static str, options: AdamOptions, decoupled: bool) -> Result<Self> {
        checked_lr(op, options.lr)?;
        check_range(op, "betas", options.betas.0, 0.0..1.0, "in [0, 1)")?;
        check_range(op, "betas", options.betas.1, 0.0..1.0, "in [0, 1)")?;
        check_range(op, "eps", options.eps, 0.0.., "finite and not negative")?;
        check_range(op, "weight_decay", options.weight_decay, 0.0.., "finite and not negative")?;
        Ok(Adam { options, decoupled, moments: BTreeMap::new() })
    }
}

impl<T: Float> Optimizer<T> for Adam<T> {
    fn step(
        &mut self,
        model: &mut dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        let Adam { options, decoupled, moments } = self;
        update_each(model, gradients, options.allow_missing, |id, w, g| {
            let n = w.len();
            let new = || Moments { step: 0, first: vec![T::ZERO; n], second: vec![T::ZERO; n] };
            let Moments { step, first, second } = moments.entry(id).or_insert_with(new);
            *step += 1;
            let AdamOptions { lr, betas, eps, weight_decay, .. } = *options;
            let shrink = if *decoupled { 1.0 - lr * weight_decay } else { 1.0 };
            let numbers = Numbers {
                betas: (T::from_f64(betas.0), T::from_f64(betas.1)),
                shares: (T::from_f64(1.0 - betas.0), T::from_f64(1.0 - betas.1)),
                rate: T::from_f64(lr / (1.0 - betas.0.powi(*step))),
                root: T::from_f64(1.0 / (1.0 - betas.1.powi(*step)).sqrt()),
                eps: T::from_f64(eps),
                decay: T::from_f64(if *decoupled { 0.0 } else { weight_decay }),
                shrink: T::from_f64(shrink),
            };
            in_parts([w, first, second], g, &|[w, first, second], g| {
                dispatch(Update { w, g, first, second, numbers });
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

/// Adam whose weight decay acts on the weights, not through the gradient: each step also takes
/// `lr·λ·w` off. `torch.optim.AdamW`; Loshchilov & Hutter, arXiv 1711.05101.
#[derive(Debug)]
pub struct AdamW<T>(Adam<T>);

impl<T: Float> AdamW<T> {
    /// The optimiser, with moments of 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for an option out of range.
    pub fn new(options: AdamOptions) -> Result<Self> {
        Ok(AdamW(Adam::with("AdamW", options, true)?))
    }
}

impl<T: Float> Optimizer<T> for AdamW<T> {
    fn step(
        &mut self,
        model: &mut dyn Parameters<Elem = T>,
        gradients: &Gradients<T>,
    ) -> Result<()> {
        self.0.step(model, gradients)
    }

    fn lr(&self) -> f64 {
        self.0.lr()
    }

    fn set_lr(&mut self, lr: f64) {
        self.0.set_lr(lr);
    }
}

#[derive(Clone, Copy)]
struct Numbers<T> {
    betas: (T, T),
    shares: (T, T),
    rate: T,
    root: T,
    eps: T,
    decay: T,
    shrink: T,
}

struct Update<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    first: &'a mut [T],
    second: &'a mut [T],
    numbers: Numbers<T>,
}

impl<T: Float> Kernel for Update<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Update { w, g, first, second, numbers } = self;
        let Numbers { betas, shares, rate, root, eps, decay, shrink } = numbers;
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(first).zip(second) {
            let g = g + decay * *w;
            *m = betas.0 * *m + shares.0 * g;
            *v = betas.1 * *v + shares.1 * g * g;
            *w = shrink * *w - rate * *m / (v.sqrt() * root + eps);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::run;
    use super::*;

    #[test]
    fn matches_the_formulas() {
        for decoupled in [false, true] {
            let options = AdamOptions { lr: 0.1, weight_decay: 0.05, ..Default::default() };
            let got = if decoupled {
                run(&mut AdamW::new(options).unwrap(), 20)
            } else {
                run(&mut Adam::new(options).unwrap(), 20)
            };
            for (i, start) in [0.0, 0.5, -2.0].into_iter().enumerate() {
                let (mut w, mut m, mut v) = (start, 0.0, 0.0);
                for t in 1..=20 {
                    let mut g = 2.0 * (i + 1) as f64 * (w - 1.0);
                    if decoupled {
                        w -= 0.1 * 0.05 * w;
                    } else {
                        g += 0.05 * w;
                    }
                    m = 0.9 * m + 0.1 * g;
                    v = 0.999 * v + 0.001 * g * g;
                    let (m_hat, v_hat) =
                        (m / (1.0 - 0.9_f64.powi(t)), v / (1.0 - 0.999_f64.powi(t)));
                    w -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
                }
                assert!((got[i] - w).abs() < 1e-12, "{decoupled}: {} {w}", got[i]);
            }
        }
    }
}
