//! Muon: momentum, orthogonalised. For matrices.

use autograd::{Error, Float, Result, Tensor};
use tensor::kernels::{Kernel, dispatch};

use super::{Field, Gradient, Grouped, Rule, Update, check_positive, check_range};

/// Options of [`Muon`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct MuonOptions {
    /// Learning rate.
    pub lr: f64,
    /// λ: each step also takes `lr·λ·w` off the weights.
    pub weight_decay: f64,
    /// μ: the momentum's decay.
    pub momentum: f64,
    /// Looks ahead along the momentum.
    pub nesterov: bool,
    /// a, b and c of the Newton–Schulz steps.
    pub ns_coefficients: (f64, f64, f64),
    /// The least norm that a matrix is divided by.
    pub eps: f64,
    /// Newton–Schulz steps, below 100.
    pub ns_steps: u32,
    /// How the step of a matrix depends on its sizes.
    pub adjust_lr_fn: AdjustLr,
    /// Climbs: the gradient is taken as −g.
    pub maximize: bool,
    /// Leaves parameters without a gradient as they are, where it would be an error.
    pub allow_missing: bool,
}

/// What the learning rate is multiplied by for a matrix `[A, B]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AdjustLr {
    /// `√max(1, A/B)`, as Jordan et al. do.
    #[default]
    Original,
    /// `0.2·√max(A, B)`: the size of AdamW's steps, so that its learning rate serves. Liu et al., arXiv
    /// 2502.16982.
    MatchRmsAdamw,
    /// `√(A/B)`: the spectral norm suits any width.
    SpectralUnclamped,
}

impl AdjustLr {
    const ALL: [AdjustLr; 3] =
        [AdjustLr::Original, AdjustLr::MatchRmsAdamw, AdjustLr::SpectralUnclamped];

    fn factor(self, rows: usize, columns: usize) -> f64 {
        let (a, b) = (rows as f64, columns as f64);
        match self {
            AdjustLr::Original => (a / b).max(1.0).sqrt(),
            AdjustLr::MatchRmsAdamw => 0.2 * a.max(b).sqrt(),
            AdjustLr::SpectralUnclamped => (a / b).sqrt(),
        }
    }
}

impl Default for MuonOptions {
    fn default() -> Self {
        MuonOptions {
            lr: 1e-3,
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            ns_coefficients: (3.4445, -4.775, 2.0315),
            eps: 1e-7,
            ns_steps: 5,
            adjust_lr_fn: AdjustLr::Original,
            maximize: false,
            allow_missing: false,
        }
    }
}

/// `m ← μ·m + (1−μ)·g`, `u = μ·m + (1−μ)·g` (without Nesterov `u = m`), `w ← (1 − lr·λ)·w −
/// lr·√max(1, A/B)·O(u)` for `w: [A, B]` (or another factor: [`AdjustLr`]). `O(u)` is near the closest matrix with orthonormal rows or
/// columns: `x = u/max(‖u‖, ε)`, then five times `x ← a·x + (b·s + c·s²)·x` with `s = x·xᵀ`, which
/// brings the singular values into about [0.7, 1.2]. `torch.optim.Muon`; Jordan et al., Muon: an
/// optimizer for hidden layers in neural networks (2024).
///
/// Only matrices have singular values: a step with a parameter of another rank is
/// [`Error::InvalidArgument`] that names it, and updates nothing. Give the matrices to Muon and the rest
/// to another optimiser with [`Grouped::for_parameters`]. The products are of the parameter's type;
/// PyTorch rounds `x` to bfloat16.
///
/// ```
/// use nn::optim::{Muon, MuonOptions};
/// use nn::prelude::*;
/// # fn main() -> Result<()> {
/// let mut model = Linear::<f32>::new(4, 3, &mut Generator::new(0))?;
/// let of_rank = |two: bool| {
///     let all = model.named_parameters().into_iter();
///     let ids = all.filter(|(_, p)| (p.value().rank() == 2) == two).map(|(_, p)| p.id());
///     ids.collect::<Vec<_>>()
/// };
/// let mut muon = Muon::for_parameters(of_rank(true), MuonOptions::default())?;
/// let mut adam_w = AdamW::for_parameters(of_rank(false), AdamOptions::default())?;
/// let y = model.forward(&Tape::new().constant(Tensor::ones([2, 4])?))?;
/// let grads = (&y * &y).sum().backward()?;
/// muon.step(&mut model, &grads)?;
/// adam_w.step(&mut model, &grads)?;
/// # Ok(())
/// # }
/// ```
pub type Muon<T> = Grouped<MuonRule, T>;

/// The rule of [`Muon`].
#[derive(Debug)]
pub struct MuonRule;

impl Rule for MuonRule {
    const NAME: &'static str = "Muon";
    type Options = MuonOptions;

    fn fields(o: &mut MuonOptions) -> Vec<(&'static str, Field<'_>)> {
        let (a, b, c) = &mut o.ns_coefficients;
        let adjust = o.adjust_lr_fn;
        let set = |choice: u32| match AdjustLr::ALL.get(choice as usize) {
            Some(&adjust) => {
                o.adjust_lr_fn = adjust;
                true
            }
            None => false,
        };
        vec![
            ("lr", Field::Number(&mut o.lr)),
            ("weight_decay", Field::Number(&mut o.weight_decay)),
            ("momentum", Field::Number(&mut o.momentum)),
            ("nesterov", Field::Flag(&mut o.nesterov)),
            ("ns_coefficients.0", Field::Number(a)),
            ("ns_coefficients.1", Field::Number(b)),
            ("ns_coefficients.2", Field::Number(c)),
            ("eps", Field::Number(&mut o.eps)),
            ("ns_steps", Field::Count(&mut o.ns_steps)),
            ("adjust_lr_fn", Field::Choice(adjust as u32, Box::new(set))),
            ("maximize", Field::Flag(&mut o.maximize)),
        ]
    }

    fn check(o: &MuonOptions) -> Result<()> {
        let op = Self::NAME;
        check_positive(op, [("lr", o.lr), ("weight_decay", o.weight_decay), ("eps", o.eps)])?;
        check_range(op, "momentum", o.momentum, 0.0..=1.0, "in [0, 1]")?;
        let (a, b, c) = o.ns_coefficients;
        for coefficient in [a, b, c] {
            check_range(op, "ns_coefficients", coefficient, .., "finite")?;
        }
        check_range(op, "ns_steps", f64::from(o.ns_steps), 0.0..100.0, "below 100")
    }

    fn buffers(_: &MuonOptions) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn maximize(o: &MuonOptions) -> bool {
        o.maximize
    }

    fn allow_missing(o: &MuonOptions) -> bool {
        o.allow_missing
    }

    fn refuses(shape: &[usize]) -> Option<&'static str> {
        (shape.len() != 2).then_some("must be matrices")
    }

    fn update<T: Float>(o: &MuonOptions, update: Update<'_, T>) -> Result<()> {
        let Update { shape, w, buffers, g, .. } = update;
        let (&[rows, columns], [m]) = (shape, buffers) else {
            let (expected, shape) = ("a matrix", shape.to_vec());
            return Err(Error::RankMismatch { op: Self::NAME, expected, shape });
        };
        if w.is_empty() {
            return Ok(());
        }
        let mut u = Tensor::zeros([rows, columns])?;
        let (mu, share) = (T::from_f64(o.momentum), T::from_f64(1.0 - o.momentum));
        let nesterov = o.nesterov;
        g.in_parts([m, u.make_mut()], &|[m, u], g| {
            dispatch(Momentum { g, m, u, mu, share, nesterov });
        });
        let u = orthogonalised(&u, o)?;
        let lr = T::from_f64(o.lr * o.adjust_lr_fn.factor(rows, columns));
        let shrink = T::from_f64(1.0 - o.lr * o.weight_decay);
        let u = Gradient::plain(u.as_slice().unwrap_or(&[]));
        u.in_parts([w], &|[w], u| dispatch(Apply { w, u, lr, shrink }));
        Ok(())
    }
}

/// The Newton–Schulz steps from `u`, along its shorter side.
fn orthogonalised<T: Float>(u: &Tensor<T>, o: &MuonOptions) -> Result<Tensor<T>> {
    let tall = u.shape()[0] > u.shape()[1];
    let (a, b, c) = o.ns_coefficients;
    let (a, b, c) = (T::from_f64(a), T::from_f64(b), T::from_f64(c));
    let norm = u.norm(2.0).item()?.larger(T::from_f64(o.eps));
    // [A,B] with A ≤ B, so that the products of x·xᵀ are of the smaller kind.
    let mut x = if tall { u.transpose(0, 1)? } else { u.clone() } / norm;
    for _ in 0..o.ns_steps {
        let s = x.matmul(&x.transpose(0, 1)?)?;
        let s = s.addmm(&s, &s, b, c)?;
        x = x.addmm(&s, &x, a, T::ONE)?;
    }
    Ok(if tall { x.transpose(0, 1)?.contiguous() } else { x.contiguous() })
}

struct Momentum<'a, T> {
    g: &'a [T],
    m: &'a mut [T],
    u: &'a mut [T],
    mu: T,
    share: T,
    nesterov: bool,
}

impl<T: Float> Kernel for Momentum<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Momentum { g, m, u, mu, share, nesterov } = self;
        // Without Nesterov u = 1·m + 0·g would make NaN of an infinite g.
        let ahead = if nesterov { mu } else { T::ONE };
        for ((&g, m), u) in g.iter().zip(m).zip(u) {
            *m = mu * *m + share * g;
            let own = if nesterov { share * g } else { T::ZERO };
            *u = ahead * *m + own;
        }
    }
}

struct Apply<'a, T> {
    w: &'a mut [T],
    u: &'a [T],
    lr: T,
    shrink: T,
}

impl<T: Float> Kernel for Apply<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (w, &u) in self.w.iter_mut().zip(self.u) {
            *w = self.shrink * *w - self.lr * u;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused() {
        let text = |o| Muon::<f32>::new(o).map(|_| ()).unwrap_err().to_string();
        let base = MuonOptions::default();
        assert_eq!(
            text(MuonOptions { ns_steps: 100, ..base }),
            "Muon: ns_steps must be below 100, found 100"
        );
        text(MuonOptions { momentum: -0.1, ..base });
        text(MuonOptions { ns_coefficients: (1.0, f64::NAN, 1.0), ..base });
        text(MuonOptions { eps: f64::INFINITY, ..base });
    }
}
