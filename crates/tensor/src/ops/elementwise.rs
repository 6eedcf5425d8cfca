//! Element-wise functions. Each `into_…` form overwrites its operand where nobody shares its storage.
//!
//! Errors of the `f32` functions are measured over all 2³² arguments; docs/NUMERICS.md has the table.

use super::arithmetic::{binary, binary_owned};
use crate::element::{Element, Float, Number};
use crate::error::Result;
use crate::kernels::Operand;
use crate::kernels::elementwise::{self, Map, Zip, Zip3, map_slice, zip_slice, zip3_slice};
use crate::kernels::formulas::{Binary, Class, NumberBinary, NumberUnary, Unary};
use crate::tensor::Tensor;

/// Skeletons for formulas of one's own.
impl<T: Element> Tensor<T> {
    /// Applies the formula `K` to every element, vectorised.
    pub fn map<B: Element, K: Map<T, B>>(&self) -> Tensor<B> {
        elementwise::map(self, map_slice::<T, B, K>)
    }

    /// Applies the formula `K` to every pair of elements, broadcasting; the second operand may be a
    /// number. `op` names it in errors.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn zip<'a, B: Element, K: Zip<T, B>>(
        &self,
        op: &'static str,
        rhs: impl Into<Operand<'a, T>>,
    ) -> Result<Tensor<B>> {
        elementwise::zip_operand(op, self, rhs.into(), zip_slice::<T, B, K>)
    }

    /// Applies the formula `K` to every triple of elements, broadcasting; the second and the third
    /// operand may be numbers. `op` names it in errors.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn zip3<'a, B: Element, K: Zip3<T, B>>(
        &self,
        op: &'static str,
        y: impl Into<Operand<'a, B>>,
        z: impl Into<Operand<'a, B>>,
    ) -> Result<Tensor<B>> {
        elementwise::zip3(op, self.into(), y.into(), z.into(), zip3_slice::<T, B, K>)
    }
}

macro_rules! unary {
    ($bound:ident.$table:ident($names:ident): $($(#[$doc:meta])* $name:ident, $into:ident = $op:ident;)+) => {
        /// Element-wise functions.
        impl<T: $bound> Tensor<T> {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> Self {
                elementwise::map(self, T::$table($names::$op))
            }

            #[doc = concat!("[`Tensor::", stringify!($name), "`] in the storage of `self`, where nobody shares it.")]
            #[must_use]
            pub fn $into(self) -> Self {
                elementwise::map_owned(self, T::$table($names::$op))
            }
        )+}
    };
}

unary! { Number.number_unary(NumberUnary):
    /// `|x|`; `i64::MIN` wraps to itself. `torch.abs`.
    abs, into_abs = Abs;
    /// −1, 0 or 1; zeros keep their sign, NaN stays NaN. `torch.sign`.
    sign, into_sign = Sign;
    /// `x²`. `torch.square`.
    square, into_square = Square;
}

unary! { Float.unary(Unary):
    /// `√x`; NaN below 0. `torch.sqrt`.
    sqrt, into_sqrt = Sqrt;
    /// `1/√x`; ∞ at 0. `torch.rsqrt`.
    rsqrt, into_rsqrt = Rsqrt;
    /// `1/x`. `torch.reciprocal`.
    reciprocal, into_reciprocal = Reciprocal;
    /// `eˣ`, to 1.1 ulp. `torch.exp`.
    exp, into_exp = Exp;
    /// `eˣ − 1` without cancellation near 0, to 1.5 ulp in `f32`. `torch.expm1`.
    expm1, into_expm1 = Expm1;
    /// Natural logarithm, to 0.9 ulp; −∞ at 0, NaN below. `torch.log`.
    log, into_log = Log;
    /// `ln(1 + x)` without cancellation near 0, to 1.5 ulp in `f32`; −∞ at −1, NaN below.
    /// `torch.log1p`.
    log1p, into_log1p = Log1p;
    /// Logarithm to base 2, exact at powers of 2. `torch.log2`.
    log2, into_log2 = Log2;
    /// Sine of an angle in radians, to 1.2 ulp in `f32`; NaN at ±∞. `torch.sin`.
    sin, into_sin = Sin;
    /// Cosine of an angle in radians, to 1.2 ulp in `f32`; NaN at ±∞. `torch.cos`.
    cos, into_cos = Cos;
    /// Tangent of an angle in radians. `torch.tan`.
    tan, into_tan = Tan;
    /// Hyperbolic tangent, to 1.4 ulp in `f32`. `torch.tanh`.
    tanh, into_tanh = Tanh;
    /// `1/(1 + e⁻ˣ)`, without overflow for any `x`, to 2 ulp in `f32`. `torch.sigmoid`.
    sigmoid, into_sigmoid = Sigmoid;
    /// The error function `2/√π·∫₀ˣ e^(−t²) dt`, to 1.4 ulp in `f32`. `torch.erf`.
    erf, into_erf = Erf;
    /// The largest integer not above `x`. `torch.floor`.
    floor, into_floor = Floor;
    /// The smallest integer not below `x`. `torch.ceil`.
    ceil, into_ceil = Ceil;
    /// The nearest integer, the even one of two. `torch.round`.
    round, into_round = Round;
    /// The integer part. `torch.trunc`.
    trunc, into_trunc = Trunc;
    /// `max(x, 0)`; NaN stays NaN. `torch.relu`.
    relu, into_relu = Relu;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident, $into:ident($text:literal) = $op:ident;)+) => {
        /// Element-wise functions of two tensors, or of a tensor and a number, broadcasting.
        impl<T: Number> Tensor<T> {$(
            $(#[$doc])*
            pub fn $name<'a>(&self, rhs: impl Into<Operand<'a, T>>) -> Result<Self> {
                binary($text, NumberBinary::$op, self, rhs.into())
            }

            #[doc = concat!("[`Tensor::", stringify!($name), "`] in the storage of `self`, where nobody shares it.")]
            ///
            /// # Errors
            /// Those of the other form.
            pub fn $into<'a>(self, rhs: impl Into<Operand<'a, T>>) -> Result<Self> {
                binary_owned($text, NumberBinary::$op, self, rhs.into())
            }
        )+}
    };
}

binary! {
    /// The larger of `self` and `rhs`; NaN if either is. `torch.maximum`, `numpy.maximum`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    maximum, into_maximum("maximum") = Maximum;
    /// The smaller of `self` and `rhs`; NaN if either is. `torch.minimum`, `numpy.minimum`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    minimum, into_minimum("minimum") = Minimum;
    /// The remainder with the sign of `rhs`, as Python's `%`. (Rust's `%` has the sign of `self`:
    /// [`Tensor::checked_rem`].) `torch.remainder`, `numpy.remainder`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast;
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if an integer divisor is 0.
    remainder, into_remainder("remainder") = Remainder;
}

/// Element-wise functions of two real tensors.
impl<T: Float> Tensor<T> {
    /// `self` to the power of `exponent`, a tensor that broadcasts or a number. A number to the power
    /// of a tensor is `Tensor::scalar(a).pow(&x)`. `torch.pow`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    #[doc(alias = "power")]
    pub fn pow<'a>(&self, exponent: impl Into<Operand<'a, T>>) -> Result<Self> {
        match exponent.into() {
            // The same bits: both round x² once.
            Operand::Scalar(two) if two == T::ONE + T::ONE => Ok(self.square()),
            exponent => elementwise::zip_operand("pow", self, exponent, T::binary(Binary::Pow)),
        }
    }

    /// The angle of the point `(x, self)` in radians, in [−π, π]. `torch.atan2`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    #[doc(alias = "arctan2")]
    pub fn atan2<'a>(&self, x: impl Into<Operand<'a, T>>) -> Result<Self> {
        elementwise::zip_operand("atan2", self, x.into(), T::binary(Binary::Atan2))
    }

    /// `self + weight·(end − self)`, exactly `self` at weight 0 and `end` at weight 1. `torch.lerp`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn lerp<'a>(&self, end: &Self, weight: impl Into<Operand<'a, T>>) -> Result<Self> {
        // `weight` comes last in the formula, so all three have one type and any may broadcast.
        elementwise::zip3("lerp", self.into(), end.into(), weight.into(), T::lerp())
    }

    /// `self` where `rhs > 0`, else 0: what ReLU's output (or input) `rhs` lets through.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn threshold_backward(&self, rhs: &Self) -> Result<Self> {
        let f = T::binary(Binary::ThresholdBackward);
        elementwise::zip("threshold_backward", self, rhs, f)
    }

    /// `self·(1 − rhs²)`, with `rhs` the output of tanh.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn tanh_backward(&self, rhs: &Self) -> Result<Self> {
        elementwise::zip("tanh_backward", self, rhs, T::binary(Binary::TanhBackward))
    }

    /// `self·rhs·(1 − rhs)`, with `rhs` the output of sigmoid.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn sigmoid_backward(&self, rhs: &Self) -> Result<Self> {
        elementwise::zip("sigmoid_backward", self, rhs, T::binary(Binary::SigmoidBackward))
    }

    /// Which elements are NaN. `torch.isnan`.
    pub fn isnan(&self) -> Tensor<bool> {
        elementwise::map(self, T::classify(Class::Nan))
    }

    /// Which elements are ±∞. `torch.isinf`.
    pub fn isinf(&self) -> Tensor<bool> {
        elementwise::map(self, T::classify(Class::Infinite))
    }

    /// Which elements are neither NaN nor ±∞. `torch.isfinite`.
    pub fn isfinite(&self) -> Tensor<bool> {
        elementwise::map(self, T::classify(Class::Finite))
    }
}
