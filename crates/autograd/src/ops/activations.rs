//! Smooth activations. Each forward and each ordinary backward is one kernel, accurate in both tails;
//! at ±∞ stands the limit. (The GELU is in `normal.rs`.)

use tensor::{Error, Float, Result, Tensor};

use super::total;
use crate::tape::{Save, record};
use crate::var::Var;

/// Where sigmoid and the exponential of `−x` are 0 in every type, and so is their product with x.
const FAR: f64 = 1000.0;
/// `2·√(2/π)`, and the cubic term of the tanh form of the GELU.
const GELU_SCALE: f64 = 1.595_769_121_605_730_8;
const GELU_CUBIC: f64 = 0.044_715;
/// The constants for which activations keep mean 0 and variance 1.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_3;

impl<T: Float> Var<T> {
    /// Sigmoid linear unit, or swish: `y = x·σ(x)`, `dx = g·(σ(x) + x·σ(x)·σ(−x))`. At −∞ both are
    /// −0 (PyTorch: NaN). Saves the input. Any order. `torch.nn.functional.silu`.
    #[doc(alias = "swish")]
    #[must_use]
    #[track_caller]
    pub fn silu(&self) -> Self {
        let fused = |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, SiluBackward>("silu_backward", x);
        self.unary_fused("silu", Save::Input(self), Tensor::map::<T, Silu>, fused, |x, g| {
            let x = x.clamp(-T::from_f64(FAR), T::from_f64(FAR))?;
            let (s, rest) = (x.sigmoid(), (-&x).sigmoid());
            Ok(g * (&s + x * &s * rest))
        })
    }

    /// The tanh form of the GELU: `y = x/2·(1 + tanh u) = x·σ(2u)` with `u = √(2/π)·(x + 0.044715·x³)`.
    /// `dx = g·(σ(2u) + x·σ(2u)·σ(−2u)·2u')`. Saves the input. Any order.
    /// `torch.nn.functional.gelu(approximate='tanh')`.
    #[must_use]
    #[track_caller]
    pub fn gelu_tanh(&self) -> Self {
        let fused =
            |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, GeluTanhBackward>("gelu_tanh_backward", x);
        let forward = Tensor::map::<T, GeluTanh>;
        self.unary_fused("gelu_tanh", Save::Input(self), forward, fused, |x, g| {
            let x = x.clamp(T::from_f64(-100.0), T::from_f64(100.0))?;
            let square = &x * &x * T::from_f64(GELU_CUBIC);
            let double = &x * (&square + T::ONE) * T::from_f64(GELU_SCALE);
            let slope = (square * T::from_f64(3.0) + T::ONE) * T::from_f64(GELU_SCALE);
            let (s, rest) = (double.sigmoid(), (-double).sigmoid());
            Ok(g * (&s + x * &s * rest * slope))
        })
    }

    /// `y = x·tanh(softplus(x))`. With `n = eˣ` and `w = n·(n + 2)`, `y = x·w/(w + 2)` and
    /// `dx = g·(w/(w + 2) + 4·x·n·(n + 1)/(w + 2)²)`. Saves the input. Any order.
    /// `torch.nn.functional.mish`.
    #[must_use]
    #[track_caller]
    pub fn mish(&self) -> Self {
        let fused = |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, MishBackward>("mish_backward", x);
        self.unary_fused("mish", Save::Input(self), Tensor::map::<T, Mish>, fused, |x, g| {
            // From 40 on the slope is 1 and its derivatives are below 1e-30; e⁸⁰ is still an f32.
            let x = x.clamp(-T::from_f64(FAR), T::from_f64(40.0))?;
            let n = x.exp();
            let w = &n * (&n + T::from_f64(2.0));
            let share = (&w + T::from_f64(2.0)).reciprocal();
            let tail = x * (&n * &share) * ((n + T::ONE) * &share) * T::from_f64(4.0);
            Ok(g * (w * share + tail))
        })
    }

    /// `y = ln(1 + exp(β·x))/β`, and `y = x` where `β·x > threshold`; PyTorch's defaults are β = 1 and
    /// threshold = 20.
    ///
    /// # Gradient
    /// `dx = g·σ(β·x)`, and g where `β·x > threshold`. Saves the input. Any order.
    ///
    /// # Numerics
    /// Computed as `(max(βx, 0) + ln(1 + exp(−|βx|)))/β`: no threshold is needed for its sake, and the
    /// left tail keeps its digits (`softplus(−50) = e⁻⁵⁰`).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if β is 0 or not finite.
    ///
    /// # Reference
    /// `torch.nn.functional.softplus`.
    #[track_caller]
    pub fn softplus(&self, beta: T, threshold: T) -> Result<Self> {
        nonzero("softplus", "beta", beta)?;
        let y = self.value().zip3::<T, Softplus>("softplus", beta, threshold)?;
        record("softplus", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            let x = ctx.saved(0);
            if !ctx.create_graph() {
                let slope = x.value().zip3::<T, SoftplusSlope>("softplus", beta, threshold)?;
                return sink.add(0, g * Var::constant(slope));
            }
            let scaled = x * beta;
            let linear = scaled.value().gt(threshold)?;
            sink.add(0, g * scaled.sigmoid().masked_fill(&linear, T::ONE)?)
        })
    }

    /// Logarithm of the logistic function: `y = ln σ(x) = min(x, 0) − ln(1 + exp(−|x|))`, accurate in
    /// both tails; `dx = g·σ(−x)`. Saves the input. Any order. `torch.nn.functional.logsigmoid`.
    #[must_use]
    #[track_caller]
    pub fn logsigmoid(&self) -> Self {
        let fused =
            |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, LogSigmoidBackward>("logsigmoid_backward", x);
        let forward = Tensor::map::<T, LogSigmoid>;
        self.unary_fused("logsigmoid", Save::Input(self), forward, fused, |x, g| {
            Ok(g * (-x).sigmoid())
        })
    }

    /// `y = x/(1 + |x|)`, `dx = g/(1 + |x|)²`; ±1 at ±∞ (PyTorch: NaN). Saves the input. Any order.
    /// `torch.nn.functional.softsign`.
    #[must_use]
    #[track_caller]
    pub fn softsign(&self) -> Self {
        let fused =
            |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, SoftsignBackward>("softsign_backward", x);
        let forward = Tensor::map::<T, Softsign>;
        self.unary_fused("softsign", Save::Input(self), forward, fused, |x, g| {
            let share = (x.abs() + T::ONE).reciprocal();
            Ok(g * &share * share)
        })
    }

    /// `y = x − tanh x`, accurate near 0: `dx = g·tanh²x`. Saves the input. Any order.
    /// `torch.nn.functional.tanhshrink`.
    #[must_use]
    #[track_caller]
    pub fn tanhshrink(&self) -> Self {
        let fused =
            |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, TanhshrinkBackward>("tanhshrink_backward", x);
        let forward = Tensor::map::<T, Tanhshrink>;
        self.unary_fused("tanhshrink", Save::Input(self), forward, fused, |x, g| {
            Ok(g * x.tanh().square())
        })
    }

    /// Exponential linear unit: `y = x` for x > 0, else `α·(eˣ − 1)`; PyTorch's default is α = 1.
    /// `dx = g` for x > 0, else `g·α·eˣ` (g·α at 0, as PyTorch). Saves the input. Any order.
    /// `torch.nn.functional.elu`.
    #[must_use]
    #[track_caller]
    pub fn elu(&self, alpha: T) -> Self {
        let forward = |x: &Tensor<T>| total(x.zip::<T, Elu>("elu", alpha));
        let fused =
            move |g: &Tensor<T>, x: &Tensor<T>| g.zip3::<T, EluBackward>("elu_backward", x, alpha);
        self.unary_fused("elu", Save::Input(self), forward, fused, move |x, g| {
            Ok(g * x.exp_below_zero(T::ONE, alpha)?)
        })
    }

    /// Scaled exponential linear unit: `y = λ·x` for x > 0, else `λ·α·(eˣ − 1)`, with λ = 1.0507… and
    /// α = 1.6733…; `dx = g·λ` for x > 0, else `g·λ·α·eˣ` (also at 0, as PyTorch). Saves the input. Any
    /// order. `torch.nn.functional.selu`.
    #[must_use]
    #[track_caller]
    pub fn selu(&self) -> Self {
        let fused = |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, SeluBackward>("selu_backward", x);
        self.unary_fused("selu", Save::Input(self), Tensor::map::<T, Selu>, fused, |x, g| {
            let slope = x.exp_below_zero(T::ONE, T::from_f64(SELU_ALPHA))?;
            Ok(g * (slope * T::from_f64(SELU_SCALE)))
        })
    }

    /// Continuously differentiable exponential linear unit: `y = x` for x > 0, else
    /// `α·(exp(x/α) − 1)`; PyTorch's default is α = 1. `dx = g` for x > 0, else `g·exp(x/α)`. Saves the
    /// input. Any order. `torch.nn.functional.celu`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if α is 0 or not finite.
    #[track_caller]
    pub fn celu(&self, alpha: T) -> Result<Self> {
        nonzero("celu", "alpha", alpha)?;
        let forward = |x: &Tensor<T>| total(x.zip::<T, Celu>("celu", alpha));
        let fused = move |g: &Tensor<T>, x: &Tensor<T>| {
            g.zip3::<T, CeluBackward>("celu_backward", x, alpha)
        };
        Ok(self.unary_fused("celu", Save::Input(self), forward, fused, move |x, g| {
            Ok(g * x.exp_below_zero(alpha, T::ONE)?)
        }))
    }

    /// 1 where x > 0, else `factor·exp(x/scale)`.
    fn exp_below_zero(&self, scale: T, factor: T) -> Result<Self> {
        let above = self.value().gt(T::ZERO)?;
        // Cut off above first, where the exponential may overflow.
        let below = (self.clamp_max(T::ZERO)? / scale).exp() * factor;
        below.masked_fill(&above, T::ONE)
    }

    /// Gated linear unit: with the halves a and b of x along `dim`, `y = a·σ(b)`.
    ///
    /// # Shape
    /// `[.., 2n, ..]` → `[.., n, ..]`; `dim ∈ [−rank, rank)`. PyTorch's default is −1.
    ///
    /// # Gradient
    /// `dx` is `g·σ(b)` in the first half and `g·a·σ(b)·σ(−b)` in the second. Saves the input. Any
    /// order.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the size of `dim` is odd.
    ///
    /// # Reference
    /// `torch.nn.functional.glu`; Dauphin et al., arXiv 1612.08083.
    #[track_caller]
    pub fn glu(&self, dim: isize) -> Result<Self> {
        let dim = self.value().resolve_dim("glu", dim)?;
        let size = self.shape()[dim];
        if size % 2 == 1 {
            let reason = format!("must have an even size, found {size}");
            return Err(Error::InvalidArgument { op: "glu", name: "dim", reason });
        }
        let [a, b] = halves(self.value(), dim)?;
        let y = a.zip::<T, Glu>("glu", &b)?;
        record("glu", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            let x = ctx.saved(0);
            if !ctx.create_graph() {
                let [a, b] = halves(x.value(), dim)?;
                let (g, rank_dim) = (g.value(), dim as isize);
                let da = g.zip::<T, Glu>("glu_backward", &b)?;
                let db = g.zip3::<T, GluBackward>("glu_backward", &a, &b)?;
                return sink.add(0, Var::constant(Tensor::cat(&[&da, &db], rank_dim)?));
            }
            let (a, b) = (x.half(dim, false)?, x.half(dim, true)?);
            let s = b.sigmoid();
            let db = &g * (a * &s * (-b).sigmoid());
            sink.add(0, (g * s).beside_zeros(dim, false)? + db.beside_zeros(dim, true)?)
        })
    }

    /// The first or second half along `dim`: `dx` is g beside zeros.
    #[track_caller]
    fn half(&self, dim: usize, second: bool) -> Result<Self> {
        let [a, b] = halves(self.value(), dim)?;
        record("half", [self.node()], [], if second { b } else { a }, move |_, g, sink| {
            sink.add(0, g.beside_zeros(dim, second)?)
        })
    }

    /// What [`Var::half`] takes out, put back: `dx` is that half of g.
    #[track_caller]
    fn beside_zeros(&self, dim: usize, second: bool) -> Result<Self> {
        let zeros = self.value().zeros_like();
        let parts = if second { [&zeros, self.value()] } else { [self.value(), &zeros] };
        let y = Tensor::cat(&parts, dim as isize)?;
        record("beside_zeros", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.half(dim, second)?)
        })
    }
}

/// The two halves of `x` along `dim`, whose size is even.
fn halves<T: Float>(x: &Tensor<T>, dim: usize) -> Result<[Tensor<T>; 2]> {
    let n = x.shape()[dim] / 2;
    Ok([x.narrow(dim as isize, 0, n)?, x.narrow(dim as isize, n, n)?])
}

/// Refuses a divisor that is 0 or not finite.
fn nonzero<T: Float>(op: &'static str, name: &'static str, value: T) -> Result<()> {
    let v = value.to_f64();
    if v != 0.0 && v.is_finite() {
        return Ok(());
    }
    Err(Error::InvalidArgument { op, name, reason: format!("must be finite and not 0, found {v}") })
}

/// x, or the nearest of `[low, high]`; NaN stays NaN.
#[inline(always)]
fn within<T: Float>(x: T, low: f64, high: f64) -> T {
    let (low, high) = (T::from_f64(low), T::from_f64(high));
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// `σ(x)` and `σ(−x)`, both with all their digits, from one exponential.
#[inline(always)]
fn sigmoids<T: Float, const FMA: bool>(x: T) -> (T, T) {
    let e = (-x.abs()).vexp::<FMA>();
    let large = T::ONE / (T::ONE + e);
    let small = e * large;
    if x < T::ZERO { (small, large) } else { (large, small) }
}

/// `2u` and `2u'` of the tanh form of the GELU.
#[inline(always)]
fn gelu_argument<T: Float>(x: T) -> (T, T) {
    let square = x * x * T::from_f64(GELU_CUBIC);
    let scale = T::from_f64(GELU_SCALE);
    (x * (square + T::ONE) * scale, (square * T::from_f64(3.0) + T::ONE) * scale)
}

kernels! { Map(x: T) -> T:
    Silu = {
        let x = if x < T::from_f64(-FAR) { T::from_f64(-FAR) } else { x };
        x * x.vsigmoid::<FMA>()
    };
    GeluTanh = {
        let x = if x < T::from_f64(-100.0) { T::from_f64(-100.0) } else { x };
        // What overflows in the cube is at the limit of σ.
        x * gelu_argument(x).0.vsigmoid::<FMA>()
    };
    /// From 20 on `w/(w + 2)` is 1.
    Mish = {
        let x = if x < T::from_f64(-FAR) { T::from_f64(-FAR) } else { x };
        let two = T::from_f64(2.0);
        let n = within(x, -FAR, 20.0).vexp::<FMA>();
        let w = n * (n + two);
        x * (w / (w + two))
    };
    LogSigmoid = {
        let low = if x > T::ZERO { T::ZERO } else { x };
        low - (-x.abs()).vexp::<FMA>().vlog1p::<FMA>()
    };
    Softsign = {
        let a = x.abs();
        let limit = if x < T::ZERO { -T::ONE } else { T::ONE };
        if a == T::INFINITY { limit } else { x / (T::ONE + a) }
    };
    /// Near 0 by the continued fraction `tanh x = x/(1 + x²/(3 + x²/(5 + …)))`, no term of which
    /// cancels.
    Tanhshrink = {
        let z = x * x;
        let mut c = T::from_f64(19.0);
        for odd in [17.0, 15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0] {
            c = T::from_f64(odd) + z / c;
        }
        let c = z / c;
        let near = x * (c / (T::ONE + c));
        if x.abs() < T::ONE { near } else { x - x.vtanh::<FMA>() }
    };
    Selu = {
        let below = x.vexpm1::<FMA>() * T::from_f64(SELU_SCALE * SELU_ALPHA);
        if x > T::ZERO { x * T::from_f64(SELU_SCALE) } else { below }
    };
}

kernels! { Zip(g: T, x: T) -> T:
    SiluBackward = {
        let x = within(x, -FAR, FAR);
        let (s, rest) = sigmoids::<T, FMA>(x);
        g * (s + x * s * rest)
    };
    GeluTanhBackward = {
        let x = within(x, -100.0, 100.0);
        let (double, slope) = gelu_argument(x);
        let (s, rest) = sigmoids::<T, FMA>(double);
        g * (s + x * s * rest * slope)
    };
    MishBackward = {
        let x = within(x, -FAR, 40.0);
        let two = T::from_f64(2.0);
        let n = x.vexp::<FMA>();
        let w = n * (n + two);
        let share = T::ONE / (w + two);
        g * (w * share + x * (n * share) * ((n + T::ONE) * share) * T::from_f64(4.0))
    };
    LogSigmoidBackward = g * (-x).vsigmoid::<FMA>();
    SoftsignBackward = {
        let share = T::ONE / (T::ONE + x.abs());
        g * share * share
    };
    TanhshrinkBackward = {
        let t = x.vtanh::<FMA>();
        g * (t * t)
    };
    SeluBackward = {
        let below = x.vexp::<FMA>() * T::from_f64(SELU_ALPHA);
        g * ((if x > T::ZERO { T::ONE } else { below }) * T::from_f64(SELU_SCALE))
    };
}

kernels! { Zip(x: T, alpha: T) -> T:
    Elu = if x > T::ZERO { x } else { alpha * x.vexpm1::<FMA>() };
    Celu = if x > T::ZERO { x } else { alpha * (x / alpha).vexpm1::<FMA>() };
}

kernels! { Zip3(g: T, x: T, alpha: T) -> T:
    EluBackward = if x > T::ZERO { g } else { g * (x.vexp::<FMA>() * alpha) };
    CeluBackward = if x > T::ZERO { g } else { g * (x / alpha).vexp::<FMA>() };
}

kernels! { Zip(a: T, b: T) -> T:
    Glu = a * b.vsigmoid::<FMA>();
}

kernels! { Zip3(g: T, a: T, b: T) -> T:
    GluBackward = {
        let (s, rest) = sigmoids::<T, FMA>(b);
        g * (a * s * rest)
    };
}

kernels! { Zip3(x: T, beta: T, threshold: T) -> T:
    Softplus = {
        let scaled = x * beta;
        let high = if scaled < T::ZERO { T::ZERO } else { scaled };
        let y = (high + (-scaled.abs()).vexp::<FMA>().vlog1p::<FMA>()) / beta;
        if scaled > threshold { x } else { y }
    };
    SoftplusSlope = {
        let scaled = x * beta;
        if scaled > threshold { T::ONE } else { scaled.vsigmoid::<FMA>() }
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("silu", |x| Ok(x.silu())),
        Row::unary("silu", |x| Ok((x * 4.0).silu())),
        Row::unary("gelu_tanh", |x| Ok(x.gelu_tanh())),
        Row::unary("gelu_tanh", |x| Ok((x * 3.0).gelu_tanh())),
        Row::unary("mish", |x| Ok(x.mish())),
        Row::unary("mish", |x| Ok((x * 4.0).mish())),
        Row::unary("softplus", |x| x.softplus(1.0, 20.0)),
        Row::unary("softplus", |x| Ok([x.softplus(2.5, 20.0)?, x.softplus(-0.5, 0.7)?])),
        Row::unary("logsigmoid", |x| Ok(x.logsigmoid())),
        Row::unary("logsigmoid", |x| Ok((x * 5.0).logsigmoid())),
        Row::unary("softsign", |x| Ok(x.softsign())),
        Row::unary("tanhshrink", |x| Ok(x.tanhshrink())),
        Row::unary("elu", |x| Ok([x.elu(1.0), x.elu(0.3)])),
        Row::unary("selu", |x| Ok(x.selu())),
        Row::unary("celu", |x| Ok([x.celu(1.0)?, x.celu(0.6)?, x.celu(-1.5)?])),
        Row::along_dim("glu", |x, dim| {
            // Twice the size along `dim`, so that every size is even.
            let (mut shape, d) = (x.shape().to_vec(), x.value().resolve_dim("glu", dim)?);
            shape.insert(d, 2);
            let mut flat = x.shape().to_vec();
            flat[d] *= 2;
            let doubled = (x.unsqueeze(d as isize)?.expand(shape)?).reshape(flat)?;
            (&doubled * &doubled).glu(dim)
        }),
        Row::of("glu", &[&[2, 6]], |x| x[0].glu(-1)),
        Row::of("glu", &[&[4, 3]], |x| x[0].transpose(0, 1)?.glu(1)),
        Row::of("glu", &[&[2, 0]], |x| x[0].glu(1)),
        Row::of("glu", &[&[4, 1, 2]], |x| Ok([x[0].glu(0)?, x[0].permute(&[2, 1, 0])?.glu(2)?])),
    ]
}
