//! Element-wise functions: `y_i = f(x_i)`, `dx_i = g_i·f'(x_i)`. Any shape, any strides.

use std::f64::consts::{LN_2, LOG2_E, LOG10_E};

use tensor::{Float, Result, Tensor};

use super::total;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Exponential: `y = eˣ`, `dx = g·y`. Saves the output. Any order. `torch.exp`.
    #[must_use]
    #[track_caller]
    pub fn exp(&self) -> Self {
        self.unary_from_output("exp", Tensor::exp, |y, g| g * y)
    }

    /// `y = eˣ − 1`, without cancellation near 0; `dx = g·eˣ`. Saves the input. Any order.
    /// `torch.expm1`.
    #[must_use]
    #[track_caller]
    pub fn expm1(&self) -> Self {
        // Not g·(y + 1): of a y near −1 nothing of eˣ is left.
        self.unary_from_input("expm1", Tensor::expm1, |x, g| g * x.exp())
    }

    /// `y = 2ˣ`, exact for integers; `dx = g·y·ln 2`. Saves the output. Any order. `torch.exp2`.
    #[must_use]
    #[track_caller]
    pub fn exp2(&self) -> Self {
        let forward = |x: &Tensor<T>| total(Tensor::scalar(T::ONE + T::ONE).pow(x));
        self.unary_from_output("exp2", forward, |y, g| g * y * T::from_f64(LN_2))
    }

    /// Natural logarithm: `y = ln x`, `dx = g/x`. Saves the input. Any order. `torch.log`.
    #[must_use]
    #[track_caller]
    pub fn log(&self) -> Self {
        self.unary_from_input("log", Tensor::log, |x, g| g / x)
    }

    /// `y = ln(1 + x)`, without cancellation near 0; `dx = g/(1 + x)`. Saves the input. Any order.
    /// `torch.log1p`.
    #[must_use]
    #[track_caller]
    pub fn log1p(&self) -> Self {
        self.unary_from_input("log1p", Tensor::log1p, |x, g| g / (x + T::ONE))
    }

    /// Logarithm to base 2, exact at powers of 2: `y = log₂ x`, `dx = g/(x·ln 2)`. Saves the input.
    /// Any order. `torch.log2`.
    #[must_use]
    #[track_caller]
    pub fn log2(&self) -> Self {
        self.unary_from_input("log2", Tensor::log2, |x, g| g / x * T::from_f64(LOG2_E))
    }

    /// Logarithm to base 10, to 2 ulp: `y = log₁₀ x`, `dx = g/(x·ln 10)`. Saves the input. Any order.
    /// `torch.log10`.
    #[must_use]
    #[track_caller]
    pub fn log10(&self) -> Self {
        let forward = Tensor::map::<T, Log10>;
        self.unary_from_input("log10", forward, |x, g| g / x * T::from_f64(LOG10_E))
    }

    /// Square: `y = x²`, `dx = 2·g·x`. Saves the input. Any order. `torch.square`.
    #[must_use]
    #[track_caller]
    pub fn square(&self) -> Self {
        self.unary_from_input("square", Tensor::square, |x, g| g * x * T::from_f64(2.0))
    }

    /// Square root: `y = √x`, `dx = g/(2y)`: ∞ at 0, as PyTorch. Saves the output. Any order.
    /// `torch.sqrt`.
    #[must_use]
    #[track_caller]
    pub fn sqrt(&self) -> Self {
        self.unary_from_output("sqrt", Tensor::sqrt, |y, g| g / (y * T::from_f64(2.0)))
    }

    /// `y = 1/√x`, `dx = −g·y³/2`. Saves the output. Any order. `torch.rsqrt`.
    #[must_use]
    #[track_caller]
    pub fn rsqrt(&self) -> Self {
        self.unary_from_output("rsqrt", Tensor::rsqrt, |y, g| {
            let square = &y * &y;
            g * y * T::from_f64(-0.5) * square
        })
    }

    /// `y = 1/x`, `dx = −g·y²`. Saves the output. Any order. `torch.reciprocal`.
    #[must_use]
    #[track_caller]
    pub fn reciprocal(&self) -> Self {
        self.unary_from_output("reciprocal", Tensor::reciprocal, |y, g| -(g * &y * y))
    }

    /// Magnitude: `y = |x|`, `dx = g·sign(x)` (0 at 0, as PyTorch). Saves the input. Any order.
    /// `torch.abs`.
    #[must_use]
    #[track_caller]
    pub fn abs(&self) -> Self {
        self.piecewise::<AbsSlope>("abs", Tensor::abs)
    }

    /// −1, 0 or 1; zeros keep their sign, NaN stays NaN. `dx = 0`. Saves nothing. Any order.
    /// `torch.sign`.
    #[must_use]
    #[track_caller]
    pub fn sign(&self) -> Self {
        self.flat("sign", Tensor::sign)
    }

    /// The largest integer not above x. `dx = 0`. Saves nothing. Any order. `torch.floor`.
    #[must_use]
    #[track_caller]
    pub fn floor(&self) -> Self {
        self.flat("floor", Tensor::floor)
    }

    /// The smallest integer not below x. `dx = 0`. Saves nothing. Any order. `torch.ceil`.
    #[must_use]
    #[track_caller]
    pub fn ceil(&self) -> Self {
        self.flat("ceil", Tensor::ceil)
    }

    /// The nearest integer, the even one of two. `dx = 0`. Saves nothing. Any order. `torch.round`.
    #[must_use]
    #[track_caller]
    pub fn round(&self) -> Self {
        self.flat("round", Tensor::round)
    }

    /// The integer part. `dx = 0`. Saves nothing. Any order. `torch.trunc`.
    #[must_use]
    #[track_caller]
    pub fn trunc(&self) -> Self {
        self.flat("trunc", Tensor::trunc)
    }

    /// Hyperbolic tangent: `y = tanh x`, `dx = g·(1 − y²)`. Saves the output. Any order.
    /// `torch.tanh`.
    #[must_use]
    #[track_caller]
    pub fn tanh(&self) -> Self {
        self.unary_fused("tanh", Save::Output, Tensor::tanh, Tensor::tanh_backward, |y, g| {
            let slope = -(&y * &y) + T::ONE;
            Ok(g * slope)
        })
    }

    /// Logistic function: `y = 1/(1 + e⁻ˣ)`, `dx = g·y·(1 − y)`. Saves the output. Any order.
    /// `torch.sigmoid`.
    #[must_use]
    #[track_caller]
    pub fn sigmoid(&self) -> Self {
        let fused = Tensor::sigmoid_backward;
        self.unary_fused("sigmoid", Save::Output, Tensor::sigmoid, fused, |y, g| {
            let slope = -&y + T::ONE;
            Ok(g * y * slope)
        })
    }

    /// Rectifier: `y = max(x, 0)`, `dx = g·[x > 0]` (0 at 0, as PyTorch). Saves the output. Any
    /// order. `torch.relu`.
    #[must_use]
    #[track_caller]
    pub fn relu(&self) -> Self {
        self.unary("relu", Save::Output, Tensor::relu, |_, y, g| g.threshold_backward(y.value()))
    }

    /// `self` where `mask > 0`, else 0, whatever `self` is there; linear in `self`, so
    /// `dx = g.threshold_backward(mask)`. `mask` broadcasts to the shape of `self`.
    pub(crate) fn threshold_backward(&self, mask: &Tensor<T>) -> Result<Self> {
        let y = self.value().threshold_backward(mask)?;
        let mask = mask.clone();
        Ok(total(record("threshold_backward", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.threshold_backward(&mask)?)
        })))
    }
}

kernels! { Map(x: T) -> T:
    Log10 = x.vlog::<FMA>() * T::from_f64(LOG10_E);
}

kernels! { Zip(g: T, x: T) -> T:
    /// NaN gives NaN.
    AbsSlope = {
        let y = if x < T::ZERO { -g } else { g };
        if x.abs() > T::ZERO { y } else { x * x }
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("exp", |x| Ok(x.exp())),
        Row::unary("expm1", |x| Ok(x.expm1())),
        Row::unary("exp2", |x| Ok(x.exp2())),
        Row::unary("log", |x| Ok(x.log())).positive(),
        Row::unary("log1p", |x| Ok(x.log1p())).positive(),
        Row::unary("log1p", |x| Ok(x.log1p())).between(-0.7, 0.7),
        Row::unary("log2", |x| Ok(x.log2())).positive(),
        Row::unary("log10", |x| Ok(x.log10())).positive(),
        Row::unary("square", |x| Ok(x.square())),
        Row::unary("sqrt", |x| Ok(x.sqrt())).positive(),
        Row::unary("rsqrt", |x| Ok(x.rsqrt())).positive(),
        Row::unary("reciprocal", |x| Ok(x.reciprocal())).positive(),
        Row::unary("reciprocal", |x| Ok((-x).reciprocal())).positive(),
        Row::unary("abs", |x| Ok(x.abs())),
        Row::unary("abs", |x| Ok((x * x * x).abs())),
        Row::unary("sign", |x| Ok(x.sign() * x)),
        Row::unary("floor", |x| Ok(x.floor() * x)),
        Row::unary("ceil", |x| Ok(x.ceil() * x)),
        Row::unary("round", |x| Ok(x.round() * x)),
        Row::unary("trunc", |x| Ok(x.trunc() * x)),
        Row::unary("tanh", |x| Ok(x.tanh())),
        Row::unary("sigmoid", |x| Ok(x.sigmoid())),
        Row::unary("relu", |x| Ok(x.relu())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::accuracy::{between, both, check, everywhere};

    #[test]
    fn values_and_gradients_are_accurate_at_any_size() {
        fn all<T: Float>() {
            let one = [0.0; 2];
            check::<T>(
                |x| x.expm1(),
                [f64::exp_m1, f64::exp],
                &between(-700.0, 80.0),
                [3.0; 2],
                one,
            );
            check::<T>(
                |x| x.exp2(),
                [f64::exp2, |x| x.exp2() * LN_2],
                &between(-140.0, 120.0),
                [2.0, 4.0],
                one,
            );
            let positive = between(1e-13, 1e13);
            check::<T>(|x| x.log2(), [f64::log2, |x| LOG2_E / x], &positive, [2.0; 2], one);
            check::<T>(|x| x.log10(), [f64::log10, |x| LOG10_E / x], &positive, [3.0; 2], one);
            check::<T>(
                |x| x.log1p(),
                [f64::ln_1p, |x| 1.0 / (1.0 + x)],
                &between(-0.99, 1e13),
                [3.0; 2],
                one,
            );
            check::<T>(
                |x| x.rsqrt(),
                [|x| 1.0 / x.sqrt(), |x| -0.5 / (x * x.sqrt())],
                &positive,
                [2.0, 6.0],
                one,
            );
            check::<T>(
                |x| x.reciprocal(),
                [f64::recip, |x| -1.0 / (x * x)],
                &everywhere()[..3600],
                [2.0, 4.0],
                one,
            );
        }
        all::<f32>();
        all::<f64>();
        assert_eq!(both(|x: &Var<f64>| x.exp2(), 10.0)[0], 1024.0);
        assert_eq!(both(|x: &Var<f32>| x.log2(), 0.125)[0], -3.0);
    }

    #[test]
    fn kinks_and_poles_are_those_of_pytorch() {
        assert_eq!(both(|x: &Var<f64>| x.abs(), 0.0), [0.0, 0.0]);
        assert_eq!(both(|x: &Var<f64>| x.abs(), -0.0), [0.0, 0.0]);
        assert_eq!(both(|x: &Var<f64>| x.abs(), f64::NEG_INFINITY), [f64::INFINITY, -1.0]);
        assert!(both(|x: &Var<f32>| x.abs(), f32::NAN)[1].is_nan());
        assert_eq!(both(|x: &Var<f32>| x.relu(), 0.0), [0.0, 0.0]);
        assert_eq!(both(|x: &Var<f32>| x.sqrt(), 0.0), [0.0, f64::INFINITY]);
        assert_eq!(both(|x: &Var<f32>| x.log(), 0.0), [f64::NEG_INFINITY, f64::INFINITY]);
        assert_eq!(both(|x: &Var<f32>| x.log10(), 0.0), [f64::NEG_INFINITY, f64::INFINITY]);
        // An upstream gradient that is infinite meets no 0·∞ at the kink.
        let x = crate::Tape::new().var(Tensor::scalar(0.0));
        let dx = x.abs().backward_with(&Tensor::scalar(f64::INFINITY)).unwrap();
        assert_eq!(dx.wrt(&x).unwrap().item().unwrap(), 0.0);
    }

    #[test]
    fn steps_have_the_values_of_the_tensor_and_no_gradient() {
        let x = crate::Tape::new().var(Tensor::from([-1.5, -0.5, 0.5, 2.5, f64::NAN]));
        let y = [x.floor(), x.ceil(), x.round(), x.trunc(), x.sign()];
        let want = [
            [-2.0, -1.0, 0.0, 2.0],
            [-1.0, 0.0, 1.0, 3.0],
            [-2.0, 0.0, 0.0, 2.0],
            [-1.0, 0.0, 0.0, 2.0],
            [-1.0, -1.0, 1.0, 1.0],
        ];
        for (y, want) in y.iter().zip(want) {
            let y = y.value().to_vec();
            assert!(y[..4] == want && y[4].is_nan(), "{y:?}");
        }
        let total = y.iter().skip(1).fold(y[0].clone(), |sum, y| sum + y).sum();
        assert!(total.backward().unwrap().wrt(&x).is_err());
    }
}
