//! The error function, and the GELU, which weights x by the normal distribution function
//! `Φ(x) = erfc(−x/√2)/2` with density `φ(x) = e^(−x²/2)/√(2π)`. With a = |x|, `Φ(x)` is the
//! tail `Φ(−a)`, or `1 − Φ(−a)`.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use tensor::{Float, Tensor};

use super::total;
use crate::tape::Save;
use crate::var::Var;

/// `1/√(2π)`.
const DENSITY_AT_0: f64 = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI / 2.0;
/// 2⁻⁸⁰: the functions of the tail come 2⁸⁰ times as large, so that nothing is subnormal on the way.
const UNIT: f64 = 1.0 / (1_u128 << 80) as f64;

impl<T: Float> Var<T> {
    /// The error function `y = 2/√π·∫₀ˣ e^(−t²) dt`: `dx = g·2/√π·e^(−x²)`. Saves the input. Any
    /// order. `torch.erf`.
    #[must_use]
    #[track_caller]
    pub fn erf(&self) -> Self {
        self.unary_from_input("erf", Tensor::erf, |x, g| {
            g * (x.gaussian(T::ONE) * T::from_f64(FRAC_2_SQRT_PI))
        })
    }

    /// Gaussian error linear unit: `y = x·Φ(x)`, with the normal distribution function
    /// `Φ(x) = erfc(−x/√2)/2`.
    ///
    /// # Gradient
    /// `dx = g·(Φ(x) + x·φ(x))`, with the density `φ(x) = e^(−x²/2)/√(2π)`. Saves the input. Any
    /// order.
    ///
    /// # Numerics
    /// The left tail keeps its digits down to the smallest number (−7.6e-23 at −10; PyTorch gives −0
    /// from −5.5 on in `f32`); gelu(−∞) = −0.
    ///
    /// # Reference
    /// `torch.nn.functional.gelu`; Hendrycks & Gimpel, arXiv 1606.08415.
    #[must_use]
    #[track_caller]
    pub fn gelu(&self) -> Self {
        let fused = |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, GeluBackward>("gelu_backward", x);
        self.unary_fused("gelu", Save::Input(self), Tensor::map::<T, Gelu>, fused, |x, g| {
            let x = x.clamp(-T::NORMAL_FAR, T::NORMAL_FAR)?;
            let density = x.gaussian(T::from_f64(0.5)) * T::from_f64(DENSITY_AT_0);
            Ok(g * (x.normal_cdf() + x * density))
        })
    }

    /// `y = Φ(x)`: `dx = g·φ(x)`.
    #[track_caller]
    fn normal_cdf(&self) -> Self {
        self.unary_from_input("normal_cdf", Tensor::map::<T, NormalCdf>, |x, g| {
            g * (x.gaussian(T::from_f64(0.5)) * T::from_f64(DENSITY_AT_0))
        })
    }

    /// `y = e^(−s·x²)` for a power of two s: `dx = −2s·g·x·y`.
    #[track_caller]
    fn gaussian(&self, s: T) -> Self {
        let forward = |x: &Tensor<T>| total(x.zip::<T, Gaussian>("gaussian", s));
        self.unary("gaussian", Save::Input(self), forward, move |_, x, g| {
            // The limit at ±∞ instead of ∞·0.
            let x = x.clamp(-T::NORMAL_FAR, T::NORMAL_FAR)?;
            let y = x.gaussian(s);
            Ok(g * (x * y) * (s * T::from_f64(-2.0)))
        })
    }
}

/// What rounding the product `p = x·y` lost: by one fused operation, or after Dekker from factors cut
/// in halves.
#[inline(always)]
fn lost<T: Float, const FMA: bool>(x: T, y: T, p: T) -> T {
    let split = T::from_f64(if T::NAME == "f32" { 4097.0 } else { 134_217_729.0 });
    let cut = |x: T| {
        let high = x * split - (x * split - x);
        (high, x - high)
    };
    let ((a, b), (c, d)) = (cut(x), cut(y));
    let dekker = ((a * c - p) + (a * d + b * c)) + b * d;
    if FMA { x.mul_add::<FMA>(y, -p) } else { dekker }
}

/// `e^(−s·x²)` for a power of two s, without the error of rounding the exponent.
#[inline(always)]
fn gaussian<T: Float, const FMA: bool>(x: T, s: T) -> T {
    let x = near(x);
    let square = x * x;
    let y = (-(square * s)).vexp::<FMA>();
    y - y * (lost::<T, FMA>(x, x, square) * s)
}

/// `Φ(x)`.
#[inline(always)]
fn normal_cdf<T: Float, const FMA: bool>(x: T) -> T {
    let tail = distance(x).vnormal_tail::<FMA>() * T::from_f64(UNIT);
    if x > T::ZERO { T::ONE - tail } else { tail }
}

/// x, or the nearest of ±`NORMAL_FAR`, where the functions here are at their limits; NaN stays NaN.
#[inline(always)]
fn near<T: Float>(x: T) -> T {
    let x = if x > T::NORMAL_FAR { T::NORMAL_FAR } else { x };
    if x < -T::NORMAL_FAR { -T::NORMAL_FAR } else { x }
}

/// |x|, or `NORMAL_FAR`; NaN stays NaN.
#[inline(always)]
fn distance<T: Float>(x: T) -> T {
    let a = x.abs();
    if a > T::NORMAL_FAR { T::NORMAL_FAR } else { a }
}

kernels! { Map(x: T) -> T:
    NormalCdf = normal_cdf::<T, FMA>(x);
    /// `max(x, 0) − a·Φ(−a)`.
    Gelu = {
        let a = distance(x);
        // −0, so that what is too small on the left is −0.
        let ramp = if -T::ZERO > x { -T::ZERO } else { x };
        (a * a.vnormal_tail::<FMA>()).mul_add::<FMA>(-T::from_f64(UNIT), ramp)
    };
}

kernels! { Zip(x: T, s: T) -> T:
    Gaussian = gaussian::<T, FMA>(x, s);
}

kernels! { Zip(g: T, x: T) -> T:
    /// `Φ(x) + x·φ(x)` is `h = Φ(−a) − a·φ(a)` on the left, and `1 − h` on the right.
    GeluBackward = {
        let h = distance(x).vnormal_tail_slope::<FMA>();
        let (unit, zero) = (T::from_f64(UNIT), T::ZERO);
        let (unit, rest) = if x > zero { (-unit, T::ONE) } else { (unit, zero) };
        g * h.mul_add::<FMA>(unit, rest)
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("erf", |x| Ok(x.erf())),
        Row::unary("gelu", |x| Ok(x.gelu())),
        Row::unary("gelu", |x| Ok((x * 3.0).gelu())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad;
    use crate::ops::accuracy::{Function, between, both, check};
    use crate::tape::Tape;

    /// `(x, gelu, its derivative)`, from 60 digits.
    const EXACT: [[f64; 3]; 5] = [
        [-0.5, -1.542_687_693_629_934_4e-1, 1.325_048_753_438_371_5e-1],
        [-3.0, -4.049_694_094_890_283_5e-3, -1.194_564_720_418_392_7e-2],
        [-10.0, -7.619_853_024_160_526e-23, -7.618_400_096_464_814e-22],
        [-13.0, -7.952_313_719_414_843e-38, -1.033_730_444_011_335_5e-36],
        [-37.0, -2.118_461_352_334_093_5e-298, -7.838_298_669_418_516e-297],
    ];

    #[test]
    fn the_left_tail_of_gelu_keeps_its_digits() {
        for [x, y, dx] in EXACT {
            let got = both(|x: &Var<f64>| x.gelu(), x);
            assert!((got[0] / y - 1.0).abs() < 8.0 * f64::EPSILON, "{x}: {got:?}");
            assert!((got[1] / dx - 1.0).abs() < 8.0 * f64::EPSILON, "{x}: {got:?}");
            if x > -13.0 {
                let got = both(|x: &Var<f32>| x.gelu(), x as f32);
                let unit = f64::from(f32::EPSILON);
                assert!((got[0] / y - 1.0).abs() < 8.0 * unit, "{x}: {got:?}");
                assert!((got[1] / dx - 1.0).abs() < 8.0 * unit, "{x}: {got:?}");
            }
        }
    }

    #[test]
    fn f32_values_and_gradients_are_accurate() {
        let points = between(-14.0, 14.0);
        let value = |x: f64| x * normal_cdf::<f64, false>(x);
        let slope = |x: f64| {
            normal_cdf::<f64, false>(x) + x * gaussian::<f64, false>(x, 0.5) * DENSITY_AT_0
        };
        // The slope has a zero near −0.75, where its two terms cancel.
        check::<f32>(|x| x.gelu(), [value, slope], &points, [8.0, 8.0], [0.0, 0.1]);
        let slope = |x: f64| FRAC_2_SQRT_PI * gaussian::<f64, false>(x, 1.0);
        check::<f32>(|x| x.erf(), [f64::verf::<false>, slope], &points, [2.0, 4.0], [0.0; 2]);
    }

    #[test]
    fn the_exponent_of_the_gaussian_is_not_rounded() {
        // Both ways to the lost part agree, and the exact values are those of EXACT.
        for x in [0.3, -3.7, 12.345, 26.1] {
            let (fused, halves) = (gaussian::<f64, true>(x, 0.5), gaussian::<f64, false>(x, 0.5));
            assert!((fused / halves - 1.0).abs() < 4.0 * f64::EPSILON, "{x}");
            let (fused, halves) = (gaussian::<f32, true>(x as f32 / 3.0, 1.0), x as f32 / 3.0);
            let exact = gaussian::<f64, false>(f64::from(halves), 1.0);
            assert!((f64::from(fused) / exact - 1.0).abs() < 2.0 * f64::from(f32::EPSILON), "{x}");
        }
        let [_, _, [x, y, dx], ..] = EXACT;
        let density = DENSITY_AT_0 * gaussian::<f64, false>(x, 0.5);
        assert!((density / ((dx - y / x) / x) - 1.0).abs() < 8.0 * f64::EPSILON);
    }

    #[test]
    fn at_infinity_stand_the_limits_of_every_derivative() {
        let gelu = both(|x: &Var<f32>| x.gelu(), f32::NEG_INFINITY);
        assert!(gelu[0] == 0.0 && gelu[0].is_sign_negative() && gelu[1] == 0.0);
        assert_eq!(both(|x: &Var<f32>| x.gelu(), f32::INFINITY), [f64::INFINITY, 1.0]);
        let functions: [(Function<f32>, f32); 2] = [(Var::gelu, 1.0), (Var::erf, 0.0)];
        for (f, limit) in functions {
            for (x, limit) in [(f32::INFINITY, limit), (f32::NEG_INFINITY, 0.0), (1e4, limit)] {
                let x = Tape::new().var(Tensor::scalar(x));
                let first = grad(&[&f(&x)], &[&x], &[], true).unwrap().remove(0).unwrap();
                let second = grad(&[&first], &[&x], &[], true).unwrap().remove(0).unwrap();
                assert_eq!((first.item().unwrap(), second.item().unwrap()), (limit, 0.0));
            }
            assert!(both(f, f32::NAN).iter().all(|v| v.is_nan()));
        }
    }
}
