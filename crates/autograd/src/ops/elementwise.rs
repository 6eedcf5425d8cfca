//! Element-wise functions: `y_i = f(x_i)`, `dx_i = g_i·f'(x_i)`. Any shape, any strides.

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

    /// Natural logarithm: `y = ln x`, `dx = g/x`. Saves the input. Any order. `torch.log`.
    #[must_use]
    #[track_caller]
    pub fn log(&self) -> Self {
        self.unary_from_input("log", Tensor::log, |x, g| g / x)
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

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("exp", |x| Ok(x.exp())),
        Row::unary("log", |x| Ok(x.log())).positive(),
        Row::unary("tanh", |x| Ok(x.tanh())),
        Row::unary("sigmoid", |x| Ok(x.sigmoid())),
        Row::unary("relu", |x| Ok(x.relu())),
    ]
}
