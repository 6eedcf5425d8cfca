//! Adam and AdamW.

use autograd::{Float, Result};
use tensor::kernels::{Kernel, dispatch};

use super::{Field, Grouped, Rule, Update, bias_correction, check_betas, check_positive};

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
    /// Divides by the largest second moment so far, in place of the current one. Reddi, Kale & Kumar,
    /// arXiv 1904.09237.
    pub amsgrad: bool,
    /// Climbs: the gradient is taken as −g.
    pub maximize: bool,
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
            amsgrad: false,
            maximize: false,
            allow_missing: false,
        }
    }
}

/// `m ← β₁·m + (1−β₁)·g`, `v ← β₂·v + (1−β₂)·g²`, `w ← w − lr·m̂/(√v̂ + ε)` with `m̂ = m/(1−β₁ᵗ)`,
/// `v̂ = v/(1−β₂ᵗ)`. `torch.optim.Adam`; Kingma & Ba, arXiv 1412.6980.
///
/// ```
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.weight.value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::from_vec(vec![3.0], [1, 1])?))?;
/// Adam::new(AdamOptions::default())?.step(&mut model, &y.sum().backward()?)?;
/// // The first step is lr in the direction of the gradient, whatever its size.
/// assert!((model.weight.value().item()? - (before - 1e-3)).abs() < 1e-10);
/// # Ok(())
/// # }
/// ```
pub type Adam<T> = Grouped<AdamRule, T>;

/// Adam whose weight decay acts on the weights, not through the gradient: each step also takes
/// `lr·λ·w` off. `torch.optim.AdamW`; Loshchilov & Hutter, arXiv 1711.05101.
///
/// ```
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f64>::new(1, 1, &mut Generator::new(0))?;
/// let before = model.weight.value().item()?;
/// let y = model.forward(&Tape::new().constant(Tensor::zeros([1, 1])?))?;
/// let options = AdamOptions { lr: 0.1, weight_decay: 0.5, ..Default::default() };
/// AdamW::new(options)?.step(&mut model, &y.sum().backward()?)?; // dL/dw = 0
/// assert_eq!(model.weight.value().item()?, (1.0 - 0.1 * 0.5) * before);
/// # Ok(())
/// # }
/// ```
pub type AdamW<T> = Grouped<AdamWRule, T>;

/// The rule of [`Adam`].
#[derive(Debug)]
pub struct AdamRule;

/// The rule of [`AdamW`].
#[derive(Debug)]
pub struct AdamWRule;

/// What the two rules share.
macro_rules! adam {
    ($rule:ident, $name:literal, decoupled: $decoupled:literal) => {
        impl Rule for $rule {
            const NAME: &'static str = $name;
            type Options = AdamOptions;

            fn fields(o: &mut AdamOptions) -> Vec<(&'static str, Field<'_>)> {
                vec![
                    ("lr", Field::Number(&mut o.lr)),
                    ("betas.0", Field::Number(&mut o.betas.0)),
                    ("betas.1", Field::Number(&mut o.betas.1)),
                    ("eps", Field::Number(&mut o.eps)),
                    ("weight_decay", Field::Number(&mut o.weight_decay)),
                    ("amsgrad", Field::Flag(&mut o.amsgrad)),
                    ("maximize", Field::Flag(&mut o.maximize)),
                ]
            }

            fn check(o: &AdamOptions) -> Result<()> {
                let numbers = [("lr", o.lr), ("eps", o.eps), ("weight_decay", o.weight_decay)];
                check_positive(Self::NAME, numbers)?;
                check_betas(Self::NAME, o.betas)
            }

            fn buffers(o: &AdamOptions) -> &'static [&'static str] {
                let all = &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];
                if o.amsgrad { all } else { &all[..2] }
            }

            fn maximize(o: &AdamOptions) -> bool {
                o.maximize
            }

            fn allow_missing(o: &AdamOptions) -> bool {
                o.allow_missing
            }

            fn update<T: Float>(o: &AdamOptions, update: Update<'_, T>) -> Result<()> {
                step(o, $decoupled, update);
                Ok(())
            }
        }
    };
}

adam!(AdamRule, "Adam", decoupled: false);
adam!(AdamWRule, "AdamW", decoupled: true);

fn step<T: Float>(options: &AdamOptions, decoupled: bool, update: Update<'_, T>) {
    let Update { step, w, buffers, g, .. } = update;
    let AdamOptions { lr, betas, eps, weight_decay, .. } = *options;
    let numbers = Numbers {
        betas: (T::from_f64(betas.0), T::from_f64(betas.1)),
        shares: (T::from_f64(1.0 - betas.0), T::from_f64(1.0 - betas.1)),
        rate: T::from_f64(lr / bias_correction(betas.0, step)),
        root: T::from_f64(1.0 / bias_correction(betas.1, step).sqrt()),
        eps: T::from_f64(eps),
        decay: T::from_f64(if decoupled { 0.0 } else { weight_decay }),
        shrink: T::from_f64(if decoupled { 1.0 - lr * weight_decay } else { 1.0 }),
    };
    match buffers {
        [first, second] => g.in_parts([w, first, second], &|[w, first, second], g| {
            dispatch(Moments { w, g, first, second, numbers });
        }),
        [first, second, largest] => {
            g.in_parts([w, first, second, largest], &|[w, first, second, largest], g| {
                dispatch(Amsgrad { w, g, first, second, largest, numbers });
            });
        }
        _ => unreachable!("bug: {} buffers", buffers.len()),
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

struct Moments<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    first: &'a mut [T],
    second: &'a mut [T],
    numbers: Numbers<T>,
}

impl<T: Float> Kernel for Moments<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Moments { w, g, first, second, numbers } = self;
        let Numbers { betas, shares, rate, root, eps, decay, shrink } = numbers;
        for (((w, &g), m), v) in w.iter_mut().zip(g).zip(first).zip(second) {
            let g = g + decay * *w;
            *m = betas.0 * *m + shares.0 * g;
            *v = betas.1 * *v + shares.1 * g * g;
            *w = shrink * *w - rate * *m / (v.sqrt() * root + eps);
        }
    }
}

struct Amsgrad<'a, T> {
    w: &'a mut [T],
    g: &'a [T],
    first: &'a mut [T],
    second: &'a mut [T],
    largest: &'a mut [T],
    numbers: Numbers<T>,
}

impl<T: Float> Kernel for Amsgrad<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Amsgrad { w, g, first, second, largest, numbers } = self;
        let Numbers { betas, shares, rate, root, eps, decay, shrink } = numbers;
        for ((((w, &g), m), v), top) in w.iter_mut().zip(g).zip(first).zip(second).zip(largest) {
            let g = g + decay * *w;
            *m = betas.0 * *m + shares.0 * g;
            *v = betas.1 * *v + shares.1 * g * g;
            *top = top.larger(*v);
            *w = shrink * *w - rate * *m / (top.sqrt() * root + eps);
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

    #[test]
    fn options_out_of_range_are_refused() {
        let adam = |o| Adam::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let base = AdamOptions::default();
        assert_eq!(
            adam(AdamOptions { betas: (1.0, 0.9), ..base }),
            "Adam: betas must be in [0, 1), found 1"
        );
        adam(AdamOptions { betas: (0.9, f64::NAN), ..base });
        adam(AdamOptions { eps: -1e-8, ..base });
        let adam_w = |o| AdamW::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let text = adam_w(AdamOptions { weight_decay: -0.5, ..base });
        assert_eq!(text, "AdamW: weight_decay must be finite and not negative, found -0.5");
    }
}
