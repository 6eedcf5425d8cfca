//! Exponential linear units: x above 0, an exponential that levels off below.

use tensor::{Float, Result, Tensor};

use super::activations::nonzero;
use super::total;
use crate::tape::Save;
use crate::var::Var;

/// The constants for which activations keep mean 0 and variance 1.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_3;

impl<T: Float> Var<T> {
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
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if α is 0 or not finite.
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
    #[track_caller]
    fn exp_below_zero(&self, scale: T, factor: T) -> Result<Self> {
        let above = self.value().gt(T::ZERO)?;
        // Cut off above first, where the exponential may overflow.
        let below = (self.clamp_max(T::ZERO)? / scale).exp() * factor;
        below.masked_fill(&above, T::ONE)
    }
}

kernels! { Map(x: T) -> T:
    Selu = {
        let below = x.vexpm1::<FMA>() * T::from_f64(SELU_SCALE * SELU_ALPHA);
        if x > T::ZERO { x * T::from_f64(SELU_SCALE) } else { below }
    };
}

kernels! { Zip(g: T, x: T) -> T:
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

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("elu", |x| Ok([x.elu(1.0), x.elu(0.3)])),
        Row::unary("selu", |x| Ok(x.selu())),
        Row::unary("celu", |x| Ok([x.celu(1.0)?, x.celu(0.6)?, x.celu(-1.5)?])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::accuracy::{both, check, everywhere};

    #[test]
    fn values_and_gradients_are_accurate_at_any_size() {
        fn all<T: Float>() {
            let x = &everywhere()[..];
            check::<T>(
                |x| x.elu(T::from_f64(0.5)),
                [
                    |x| if x > 0.0 { x } else { 0.5 * x.exp_m1() },
                    |x| if x > 0.0 { 1.0 } else { 0.5 * x.exp() },
                ],
                x,
                [3.0; 2],
                [0.0; 2],
            );
            check::<T>(
                |x| x.selu(),
                [
                    |x| SELU_SCALE * if x > 0.0 { x } else { SELU_ALPHA * x.exp_m1() },
                    |x| SELU_SCALE * if x > 0.0 { 1.0 } else { SELU_ALPHA * x.exp() },
                ],
                x,
                [4.0; 2],
                [0.0; 2],
            );
            check::<T>(
                |x| total(x.celu(T::from_f64(2.0))),
                [
                    |x| if x > 0.0 { x } else { 2.0 * (x / 2.0).exp_m1() },
                    |x| if x > 0.0 { 1.0 } else { (x / 2.0).exp() },
                ],
                x,
                [3.0; 2],
                [0.0; 2],
            );
        }
        all::<f32>();
        all::<f64>();
    }

    #[test]
    fn at_zero_the_slope_of_the_lower_side_counts() {
        assert_eq!(both(|x: &Var<f64>| x.elu(0.25), 0.0), [0.0, 0.25]);
        assert_eq!(both(|x: &Var<f64>| x.selu(), 0.0)[1], SELU_SCALE * SELU_ALPHA);
        assert_eq!(both(|x: &Var<f64>| total(x.celu(0.25)), 0.0), [0.0, 1.0]);
    }

    #[test]
    fn an_alpha_without_a_quotient_is_an_error() {
        let x = Var::constant(Tensor::from([1.0_f64]));
        let text = x.celu(f64::NAN).unwrap_err().to_string();
        assert_eq!(text, "celu: alpha must be finite and not 0, found NaN");
        assert!(x.celu(0.0).is_err());
    }
}
