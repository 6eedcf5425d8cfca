//! Trigonometric and hyperbolic functions and their inverses, angles in radians. Each inverse is
//! written so that nothing cancels and no square overflows.

use std::f64::consts::{E, LN_2};

use tensor::{Float, Tensor};

use super::total;
use crate::tape::Save;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Sine: `dx = g·cos x`. Saves the input. Any order. `torch.sin`.
    #[must_use]
    #[track_caller]
    pub fn sin(&self) -> Self {
        self.unary_from_input("sin", Tensor::sin, |x, g| g * x.cos())
    }

    /// Cosine: `dx = −g·sin x`. Saves the input. Any order. `torch.cos`.
    #[must_use]
    #[track_caller]
    pub fn cos(&self) -> Self {
        self.unary_from_input("cos", Tensor::cos, |x, g| -(g * x.sin()))
    }

    /// Tangent: `y = tan x`, `dx = g·(1 + y²)`. Saves the output. Any order. `torch.tan`.
    #[must_use]
    #[track_caller]
    pub fn tan(&self) -> Self {
        self.unary_from_output("tan", Tensor::tan, |y, g| g * (&y * &y + T::ONE))
    }

    /// Arc sine, in [−π/2, π/2], NaN outside [−1, 1]: `dx = g/√(1 − x²)`, ±∞ at ±1. Saves the input.
    /// Any order. `torch.asin`.
    #[must_use]
    #[track_caller]
    pub fn asin(&self) -> Self {
        let forward = |x: &Tensor<T>| total(x.atan2(&x.map::<T, Cathetus>()));
        self.unary_from_input("asin", forward, |x, g| g / x.cathetus())
    }

    /// Arc cosine, in [0, π], NaN outside [−1, 1]: `dx = −g/√(1 − x²)`, ∓∞ at ±1. Saves the input.
    /// Any order. `torch.acos`.
    #[must_use]
    #[track_caller]
    pub fn acos(&self) -> Self {
        let forward = |x: &Tensor<T>| total(x.map::<T, Cathetus>().atan2(x));
        self.unary_from_input("acos", forward, |x, g| -(g / x.cathetus()))
    }

    /// Arc tangent, in [−π/2, π/2]: `dx = g/(1 + x²)`. Saves the input. Any order. `torch.atan`.
    #[must_use]
    #[track_caller]
    pub fn atan(&self) -> Self {
        let forward = |x: &Tensor<T>| total(x.atan2(T::ONE));
        self.unary_from_input("atan", forward, |x, g| g / (x.square() + T::ONE))
    }

    /// Hyperbolic sine `(eˣ − e⁻ˣ)/2`, accurate near 0: `dx = g·cosh x`. Saves the input. Any order.
    /// `torch.sinh`.
    #[must_use]
    #[track_caller]
    pub fn sinh(&self) -> Self {
        self.unary_from_input("sinh", Tensor::map::<T, Sinh>, |x, g| g * x.cosh())
    }

    /// Hyperbolic cosine `(eˣ + e⁻ˣ)/2`: `dx = g·sinh x`. Saves the input. Any order. `torch.cosh`.
    #[must_use]
    #[track_caller]
    pub fn cosh(&self) -> Self {
        self.unary_from_input("cosh", Tensor::map::<T, Cosh>, |x, g| g * x.sinh())
    }

    /// Inverse of [`Var::sinh`], `ln(x + √(x² + 1))`, accurate near 0 and for any size:
    /// `dx = g/√(x² + 1)`. Saves the input. Any order. `torch.asinh`.
    #[must_use]
    #[track_caller]
    pub fn asinh(&self) -> Self {
        self.unary("asinh", Save::Input(self), Tensor::map::<T, Asinh>, |_, x, g| {
            Ok(g / x.hypot(T::ONE)?)
        })
    }

    /// Inverse of [`Var::cosh`], `ln(x + √(x² − 1))`, at least 0, NaN below 1, accurate near 1 and for
    /// any size: `dx = g/√(x² − 1)`, ∞ at 1. Saves the input. Any order. `torch.acosh`.
    #[must_use]
    #[track_caller]
    pub fn acosh(&self) -> Self {
        self.unary_from_input("acosh", Tensor::map::<T, Acosh>, |x, g| {
            // Two roots: x² may overflow, and x² − 1 cancel.
            g / (&x - T::ONE).sqrt() / (x + T::ONE).sqrt()
        })
    }

    /// Inverse of [`Var::tanh`], `ln((1 + x)/(1 − x))/2`, ±∞ at ±1, NaN outside [−1, 1], accurate near
    /// 0: `dx = g/(1 − x²)`. Saves the input. Any order. `torch.atanh`.
    #[must_use]
    #[track_caller]
    pub fn atanh(&self) -> Self {
        self.unary_from_input("atanh", Tensor::map::<T, Atanh>, |x, g| {
            g / ((-&x + T::ONE) * (x + T::ONE))
        })
    }

    /// `√(1 − x²)`: `dx = −g·x/y`.
    #[track_caller]
    fn cathetus(&self) -> Self {
        self.unary_from_input("cathetus", Tensor::map::<T, Cathetus>, |x, g| {
            -(g * &x / x.cathetus())
        })
    }
}

kernels! { Map(x: T) -> T:
    /// `√(1 − x²)` without cancellation near ±1.
    Cathetus = ((T::ONE - x) * (T::ONE + x)).sqrt();
    Sinh = {
        let a = x.abs();
        let e = a.vexpm1::<FMA>();
        let small = T::from_f64(0.5) * (e + e / (e + T::ONE));
        // From 22 on e⁻ˣ is nothing to eˣ, which may overflow before its half does. (a − 1 is exact.)
        let large = (a - T::ONE).vexp::<FMA>() * T::from_f64(E / 2.0);
        let y = if a < T::from_f64(22.0) { small } else { large };
        let y = if x < T::ZERO { -y } else { y };
        if x == T::ZERO { x } else { y }
    };
    Cosh = {
        let a = x.abs();
        let e = a.vexp::<FMA>();
        let small = T::from_f64(0.5) * (e + T::ONE / e);
        let large = (a - T::ONE).vexp::<FMA>() * T::from_f64(E / 2.0);
        if a < T::from_f64(22.0) { small } else { large }
    };
    /// `ln(1 + (a + a²/(1 + √(a² + 1))))`; for large a the 1 under the root is lost and a² may
    /// overflow.
    Asinh = {
        let a = x.abs();
        let square = a * a;
        let root = (square + T::ONE).sqrt();
        let small = (a + square / (root + T::ONE)).vlog1p::<FMA>();
        let large = a.vlog::<FMA>() + T::from_f64(LN_2);
        let y = if a > T::from_f64(1e9) { large } else { small };
        let y = if x < T::ZERO { -y } else { y };
        if x == T::ZERO { x } else { y }
    };
    /// `ln(1 + (t + √(t·(t + 2))))` with t = x − 1.
    Acosh = {
        let t = x - T::ONE;
        let small = (t + (t * (t + T::from_f64(2.0))).sqrt()).vlog1p::<FMA>();
        let large = x.vlog::<FMA>() + T::from_f64(LN_2);
        let y = if x > T::from_f64(1e9) { large } else { small };
        if x < T::ONE { T::NAN } else { y }
    };
    /// `ln(1 + 2a/(1 − a))/2`.
    Atanh = {
        let a = x.abs();
        let (double, below) = (a + a, T::ONE - a);
        // Near 0 the first term is exact and the second small.
        let near = double + double * a / below;
        let t = if a < T::from_f64(0.5) { near } else { double / below };
        let y = T::from_f64(0.5) * t.vlog1p::<FMA>();
        let y = if x < T::ZERO { -y } else { y };
        if x == T::ZERO { x } else { y }
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("sin", |x| Ok(x.sin())),
        Row::unary("cos", |x| Ok(x.cos())),
        Row::unary("tan", |x| Ok(x.tan())).between(-1.3, 1.3),
        Row::unary("asin", |x| Ok(x.asin())).between(-0.8, 0.8),
        Row::unary("acos", |x| Ok(x.acos())).between(-0.8, 0.8),
        Row::unary("atan", |x| Ok(x.atan())),
        Row::unary("sinh", |x| Ok(x.sinh())),
        Row::unary("cosh", |x| Ok(x.cosh())),
        Row::unary("asinh", |x| Ok(x.asinh())),
        Row::unary("acosh", |x| Ok(x.acosh())).between(1.2, 4.0),
        Row::unary("atanh", |x| Ok(x.atanh())).between(-0.8, 0.8),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::accuracy::{Function, between, both, check, everywhere};

    #[test]
    fn values_and_gradients_are_accurate_at_any_size() {
        fn all<T: Float>() {
            let none = [0.0; 2];
            let few = [4.0, 4.0];
            check::<T>(|x| x.sinh(), [f64::sinh, f64::cosh], &between(-89.4, 89.4), few, none);
            check::<T>(|x| x.cosh(), [f64::cosh, f64::sinh], &between(-89.4, 89.4), few, none);
            check::<T>(
                |x| x.asinh(),
                [f64::asinh, |x| 1.0 / x.hypot(1.0)],
                &everywhere(),
                few,
                none,
            );
            let inside = between(-0.999, 0.999);
            check::<T>(
                |x| x.atanh(),
                [f64::atanh, |x| 1.0 / ((1.0 - x) * (1.0 + x))],
                &inside,
                few,
                none,
            );
            let cathetus = |x: f64| 1.0 / ((1.0 - x) * (1.0 + x)).sqrt();
            check::<T>(|x| x.asin(), [f64::asin, cathetus], &inside, few, none);
            check::<T>(
                |x| x.acos(),
                [f64::acos, |x| -1.0 / ((1.0 - x) * (1.0 + x)).sqrt()],
                &inside,
                few,
                none,
            );
            let all = everywhere();
            check::<T>(|x| x.atan(), [f64::atan, |x| 1.0 / (1.0 + x * x)], &all, few, none);
            let above = between(1.0, 1e13).into_iter().chain(inside.iter().map(|x| 1.0 + x * x));
            let above: Vec<_> = above.filter(|&x| T::from_f64(x) > T::ONE).collect();
            // Written with the half argument: acosh x = 2·asinh √((x − 1)/2).
            let exact = |x: f64| 2.0 * ((x - 1.0) / 2.0).sqrt().asinh();
            let slope = |x: f64| 1.0 / (x - 1.0).sqrt() / (x + 1.0).sqrt();
            check::<T>(|x| x.acosh(), [exact, slope], &above, [6.0, 4.0], none);
        }
        all::<f32>();
        all::<f64>();
    }

    #[test]
    fn ends_of_the_domains() {
        let inf = f64::INFINITY;
        assert_eq!(both(|x: &Var<f64>| x.asin(), 1.0)[1], inf);
        assert_eq!(both(|x: &Var<f64>| x.acos(), -1.0), [std::f64::consts::PI, -inf]);
        assert_eq!(both(|x: &Var<f64>| x.acosh(), 1.0), [0.0, inf]);
        assert_eq!(both(|x: &Var<f64>| x.atanh(), -1.0), [-inf, inf]);
        assert_eq!(both(|x: &Var<f32>| x.asinh(), f32::MAX)[0], f64::from(89.415_985_f32));
        assert_eq!(both(|x: &Var<f32>| x.asinh(), f32::NEG_INFINITY), [-inf, 0.0]);
        assert_eq!(both(|x: &Var<f32>| x.acosh(), f32::INFINITY), [inf, 0.0]);
        assert_eq!(both(|x: &Var<f32>| x.atan(), f32::INFINITY)[1], 0.0);
        assert_eq!(both(|x: &Var<f32>| x.sinh(), f32::NEG_INFINITY), [-inf, inf]);
        assert_eq!(both(|x: &Var<f32>| x.cosh(), f32::NEG_INFINITY), [inf, -inf]);
        for outside in [-1.5, 1.5] {
            assert!(both(|x: &Var<f64>| x.asin(), outside)[0].is_nan());
            assert!(both(|x: &Var<f64>| x.acos(), outside)[0].is_nan());
            assert!(both(|x: &Var<f64>| x.atanh(), outside)[0].is_nan());
        }
        for below in [0.999, 0.0, -1.0, -3.0, -1e10, -1e300, -inf] {
            assert!(both(|x: &Var<f64>| x.acosh(), below)[0].is_nan(), "{below}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        let functions: [Function<f32>; 11] = [
            |x| x.sin(),
            |x| x.cos(),
            |x| x.tan(),
            |x| x.asin(),
            |x| x.acos(),
            |x| x.atan(),
            |x| x.sinh(),
            |x| x.cosh(),
            |x| x.asinh(),
            |x| x.acosh(),
            |x| x.atanh(),
        ];
        for f in functions {
            assert!(both(f, f32::NAN).iter().all(|v| v.is_nan()));
        }
    }
}
