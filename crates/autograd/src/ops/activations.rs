//! Smooth activations. Each forward and each ordinary backward is one kernel, accurate in both tails;
//! at ±∞ stands the limit. (Those of the normal distribution are in `normal.rs`, the exponential
//! linear units in `elu.rs`.)

use tensor::{Error, Float, Result, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// Where sigmoid and the exponential of `−x` are 0 in every type, and so is their product with x.
const FAR: f64 = 1000.0;
/// `2·√(2/π)`, and the cubic term of the tanh form of the GELU.
const GELU_SCALE: f64 = 1.595_769_121_605_730_8;
const GELU_CUBIC: f64 = 0.044_715;

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
pub(super) fn nonzero<T: Float>(op: &'static str, name: &'static str, value: T) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad;
    use crate::ops::accuracy::{Function, between, both, check, everywhere};
    use crate::ops::total;
    use crate::tape::Tape;

    fn sigmoid(x: f64) -> f64 {
        if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
    }

    #[test]
    fn values_and_gradients_are_accurate_in_both_tails() {
        fn all<T: Float>() {
            let x = &everywhere()[..];
            // Below it σ(x) is subnormal and has fewer digits.
            let low = if T::NAME == "f32" { -85.0 } else { -700.0 };
            // Where the terms of a slope cancel, its error is measured against this.
            let crossing = [0.0, 0.1];
            check::<T>(
                |x| x.silu(),
                [|x| x * sigmoid(x), |x| sigmoid(x) + (x * sigmoid(x).min(1e300)) * sigmoid(-x)],
                &between(low, 1e13),
                [5.0, 6.0],
                crossing,
            );
            check::<T>(
                |x| x.mish(),
                [
                    |x| x * x.exp().ln_1p().tanh(),
                    |x| {
                        let t = x.exp().ln_1p().tanh();
                        t + x * sigmoid(x) * x.exp().ln_1p().cosh().powi(-2)
                    },
                ],
                &between(low, 700.0),
                [8.0, 16.0],
                crossing,
            );
            check::<T>(
                |x| total(x.softplus(T::ONE, T::INFINITY)),
                [|x| x.max(0.0) + (-x.abs()).exp().ln_1p(), sigmoid],
                x,
                [4.0; 2],
                [0.0; 2],
            );
            check::<T>(
                |x| x.logsigmoid(),
                [|x| x.min(0.0) - (-x.abs()).exp().ln_1p(), |x| sigmoid(-x)],
                x,
                [4.0; 2],
                [0.0; 2],
            );
            check::<T>(
                |x| x.softsign(),
                [|x| x / (1.0 + x.abs()), |x| (1.0 + x.abs()).powi(-2)],
                x,
                [2.0, 4.0],
                [0.0; 2],
            );
            let near = &between(-0.3, 0.3)[..];
            check::<T>(
                |x| x.tanhshrink(),
                [
                    // Of the series of tanh what is left below 0.3.
                    |x| {
                        let z = x * x;
                        let terms = [
                            1.0 / 3.0,
                            -2.0 / 15.0,
                            17.0 / 315.0,
                            -62.0 / 2835.0,
                            1382.0 / 155_925.0,
                            -21844.0 / 6_081_075.0,
                            929_569.0 / 638_512_875.0,
                            -6_404_582.0 / 10_854_718_875.0,
                            443_861_162.0 / 1_856_156_927_625.0,
                            -18_888_466_084.0 / 194_896_477_400_625.0,
                            113_927_491_862.0 / 2_900_518_163_668_125.0,
                            -58_870_668_456_604.0 / 3_698_160_658_676_859_375.0,
                        ];
                        x * z * terms.iter().rev().fold(0.0, |sum, t| sum * z + t)
                    },
                    |x| x.tanh().powi(2),
                ],
                near,
                [6.0; 2],
                [0.0; 2],
            );
        }
        all::<f32>();
        all::<f64>();
        // For f64 above this is no other formula than the kernel's; f32 against it.
        check::<f32>(
            |x| x.tanhshrink(),
            [|x| x - x.tanh(), |x| x.tanh().powi(2)],
            &[between(0.3, 1e13), between(-1e13, -0.3)].concat(),
            [6.0; 2],
            [0.0; 2],
        );
        check::<f32>(
            |x| x.gelu_tanh(),
            [
                |x| x * sigmoid(gelu_argument(x).0),
                |x| {
                    let (u, slope) = gelu_argument(x);
                    sigmoid(u) + x * sigmoid(u) * sigmoid(-u) * slope
                },
            ],
            &between(-3.0, 3.0),
            // The exponential of an argument of 8 multiplies its relative error by 8.
            [20.0; 2],
            [0.0, 0.1],
        );
    }

    /// Every function with the limits of its gradient at −∞ and +∞.
    fn functions<T: Float>() -> [(&'static str, Function<T>, [f64; 2]); 10] {
        [
            ("silu", |x| x.silu(), [0.0, 1.0]),
            ("gelu_tanh", |x| x.gelu_tanh(), [0.0, 1.0]),
            ("mish", |x| x.mish(), [0.0, 1.0]),
            ("softplus", |x| total(x.softplus(T::ONE, T::from_f64(20.0))), [0.0, 1.0]),
            ("logsigmoid", |x| x.logsigmoid(), [1.0, 0.0]),
            ("softsign", |x| x.softsign(), [0.0, 0.0]),
            ("tanhshrink", |x| x.tanhshrink(), [1.0, 1.0]),
            ("elu", |x| x.elu(T::ONE), [0.0, 1.0]),
            ("selu", |x| x.selu(), [0.0, 1.050_700_987_355_480_5]),
            ("celu", |x| total(x.celu(T::ONE)), [0.0, 1.0]),
        ]
    }

    #[test]
    fn far_out_stand_the_limits_of_every_derivative() {
        fn all<T: Float>() {
            for (name, f, limits) in functions::<T>() {
                for (x, limit) in [
                    (-f64::INFINITY, limits[0]),
                    (-1e30, limits[0]),
                    (1e30, limits[1]),
                    (f64::INFINITY, limits[1]),
                ] {
                    let limit = T::from_f64(limit).to_f64();
                    let near = |v: f64| (v - limit).abs() <= 1e-30;
                    let [value, dx] = both(f, T::from_f64(x));
                    assert!(near(dx) && !value.is_nan(), "{name} at {x}: {value} {dx}");
                    let at = Tape::new().var(Tensor::scalar(T::from_f64(x)));
                    let first = grad(&[&f(&at)], &[&at], &[], true).unwrap().remove(0).unwrap();
                    let second = grad(&[&first], &[&at], &[], true).unwrap().remove(0);
                    let second = second.map_or(0.0, |v| v.item().unwrap().to_f64());
                    let first = first.item().unwrap().to_f64();
                    assert!(near(first), "{name}, recorded, at {x}: {first}");
                    assert!(second.abs() < 1e-30, "{name}, second order, at {x}: {second}");
                }
            }
        }
        all::<f32>();
        all::<f64>();
    }

    #[test]
    fn nan_stays_nan() {
        for (name, f, _) in functions::<f32>() {
            let got = both(f, f32::NAN);
            assert!(got[0].is_nan() && got[1].is_nan(), "{name}: {got:?}");
        }
    }

    #[test]
    fn the_recorded_gradient_is_the_ordinary_one_over_the_range() {
        for (name, f, _) in functions::<f64>() {
            let x: Vec<f64> = (-1200..=1200).map(|i| f64::from(i) / 20.0).collect();
            let x = Tape::new().var(Tensor::from_vec(x, [2401]).unwrap());
            let recorded = grad(&[&f(&x).sum()], &[&x], &[], true).unwrap().remove(0).unwrap();
            let ordinary = f(&x).sum().backward().unwrap().wrt(&x).unwrap().to_vec();
            let recorded = recorded.value().to_vec();
            for (i, (a, b)) in recorded.iter().zip(&ordinary).enumerate() {
                let x = x.value().to_vec()[i];
                assert!((a - b).abs() <= 1e-13 * b.abs() + 1e-16, "{name} at {x}: {a}, {b}");
            }
        }
    }

    #[test]
    fn softplus_is_linear_beyond_its_threshold() {
        let f = |x: &Var<f64>| total(x.softplus(2.0, 1.0));
        assert_eq!(both(f, 0.6), [0.6, 1.0]);
        let [y, dx] = both(f, 0.5);
        assert!((y - 1.0_f64.exp().ln_1p() / 2.0).abs() < 1e-15);
        assert!((dx - sigmoid(1.0)).abs() < 1e-15);
        let [y, _] = both(|x: &Var<f32>| total(x.softplus(1.0, 20.0)), -50.0);
        assert!((y / (-50.0_f64).exp() - 1.0).abs() < 2e-7);
    }

    #[test]
    fn bad_arguments_are_one_clear_error() {
        let x = Var::constant(Tensor::from([1.0_f64, 2.0, 3.0]));
        let text = |result: Result<Var<f64>>| result.unwrap_err().to_string();
        assert_eq!(text(x.softplus(0.0, 20.0)), "softplus: beta must be finite and not 0, found 0");
        assert_eq!(text(x.glu(0)), "glu: dim must have an even size, found 3");
        assert_eq!(text(x.glu(1)), "glu: dim 1 is out of range for rank 1");
    }
}
