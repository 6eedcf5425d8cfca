//! The error function, and the GELU, which weights x by the normal distribution function
//! `Φ(x) = erfc(−x/√2)/2` with density `φ(x) = e^(−x²/2)/√(2π)`.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

use tensor::{Float, Tensor};

use super::total;
use crate::tape::Save;
use crate::var::Var;

/// `1/√(2π)`.
const DENSITY_AT_0: f64 = FRAC_1_SQRT_2 * FRAC_2_SQRT_PI / 2.0;
/// Beyond it `e^(−x²/2)` is 0 in every type, and the functions here are at their limits.
const FAR: f64 = 40.0;

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
    /// The left tail keeps its digits down to the smallest number (−7e-23 at −10; PyTorch gives −0
    /// from −5.5 on in `f32`); gelu(−∞) = −0.
    ///
    /// # Reference
    /// `torch.nn.functional.gelu`; Hendrycks & Gimpel, arXiv 1606.08415.
    #[must_use]
    #[track_caller]
    pub fn gelu(&self) -> Self {
        let fused = |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, GeluBackward>("gelu_backward", x);
        self.unary_fused("gelu", Save::Input(self), Tensor::map::<T, Gelu>, fused, |x, g| {
            let x = x.clamp(-T::from_f64(FAR), T::from_f64(FAR))?;
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
            let x = x.clamp(-T::from_f64(FAR), T::from_f64(FAR))?;
            let y = x.gaussian(s);
            Ok(g * (x * y) * (s * T::from_f64(-2.0)))
        })
    }
}

/// `e^(−s·x²)` for a power of two s, without the error of rounding the exponent.
#[inline(always)]
fn gaussian<T: Float, const FMA: bool>(x: T, s: T) -> T {
    let far = T::from_f64(FAR);
    let x = if x > far { far } else { x };
    let x = if x < -far { -far } else { x };
    let square = x * x;
    // What the square lost: by one fused operation, or after Dekker from halves of the digits.
    let split = T::from_f64(if T::NAME == "f32" { 4097.0 } else { 134_217_729.0 });
    let high = x * split - (x * split - x);
    let low = x - high;
    let halves = ((high * high - square) + (high * low + low * high)) + low * low;
    let lost = if FMA { x.mul_add::<FMA>(x, -square) } else { halves };
    let y = (-(square * s)).vexp::<FMA>();
    y - y * (lost * s)
}

/// `Φ(x)`.
#[inline(always)]
fn normal_cdf<T: Float, const FMA: bool>(x: T) -> T {
    T::from_f64(0.5) * (x * T::from_f64(-FRAC_1_SQRT_2)).verfc::<FMA>()
}

kernels! { Map(x: T) -> T:
    NormalCdf = normal_cdf::<T, FMA>(x);
    Gelu = {
        let x = if x < T::from_f64(-FAR) { T::from_f64(-FAR) } else { x };
        x * normal_cdf::<T, FMA>(x)
    };
}

kernels! { Zip(x: T, s: T) -> T:
    Gaussian = gaussian::<T, FMA>(x, s);
}

kernels! { Zip(g: T, x: T) -> T:
    GeluBackward = {
        let far = T::from_f64(FAR);
        let x = if x > far { far } else { x };
        let x = if x < -far { -far } else { x };
        let density = gaussian::<T, FMA>(x, T::from_f64(0.5)) * T::from_f64(DENSITY_AT_0);
        g * (normal_cdf::<T, FMA>(x) + x * density)
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
