//! Element-wise methods and operators of [`Tensor`]; the walking is done by the skeletons.

use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::element::{Element, Float};
use crate::error::Result;
use crate::kernels::elementwise::{self, Binary, Map, Side, Unary, Zip, map_slice, zip_slice};
use crate::tensor::Tensor;

/// Skeletons for formulas of one's own.
impl<T: Element> Tensor<T> {
    /// Applies the formula `K` to every element, vectorised.
    pub fn map<B: Element, K: Map<T, B>>(&self) -> Tensor<B> {
        elementwise::map(self, map_slice::<T, B, K>)
    }

    /// Applies the formula `K` to every pair of elements, broadcasting; `op` names it in errors.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn zip<B: Element, K: Zip<T, B>>(&self, op: &'static str, rhs: &Self) -> Result<Tensor<B>> {
        elementwise::zip(op, self, rhs, zip_slice::<T, B, K>)
    }
}

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)+) => {
        /// Element-wise functions.
        impl<T: Float> Tensor<T> {$(
            $(#[$doc])*
            #[must_use]
            pub fn $name(&self) -> Self {
                elementwise::map(self, T::unary(Unary::$op))
            }
        )+}
    };
}

unary! {
    /// `|x|`.
    abs = Abs;
    /// `√x`; NaN below 0.
    sqrt = Sqrt;
    /// `eˣ`, to 1.1 ulp in `f32`.
    exp = Exp;
    /// Natural logarithm, to 2.5 ulp in `f32`; −∞ at 0, NaN below.
    log = Log;
    /// Hyperbolic tangent, to 2.5 ulp in `f32`.
    tanh = Tanh;
    /// `1/(1 + e⁻ˣ)`, without overflow for any `x`.
    sigmoid = Sigmoid;
    /// `max(x, 0)`; NaN stays NaN.
    relu = Relu;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident($text:literal) = $op:ident;)+) => {
        /// Element-wise functions of two tensors, broadcasting.
        impl<T: Float> Tensor<T> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
            pub fn $name(&self, rhs: &Self) -> Result<Self> {
                elementwise::zip($text, self, rhs, T::binary(Binary::$op))
            }
        )+}
    };
}

binary! {
    /// `self + rhs`.
    checked_add("add") = Add;
    /// `self − rhs`.
    checked_sub("sub") = Sub;
    /// `self · rhs`.
    checked_mul("mul") = Mul;
    /// `self / rhs`.
    checked_div("div") = Div;
    /// `self` where `rhs > 0`, else 0: what ReLU's output (or input) `rhs` lets through.
    threshold_backward("threshold_backward") = ThresholdBackward;
    /// `self·(1 − rhs²)`, with `rhs` the output of tanh.
    tanh_backward("tanh_backward") = TanhBackward;
    /// `self·rhs·(1 − rhs)`, with `rhs` the output of sigmoid.
    sigmoid_backward("sigmoid_backward") = SigmoidBackward;
}

macro_rules! operator {
    ($trait:ident, $method:ident, $name:literal) => {
        /// Panics if the shapes do not broadcast, with the text of the `checked_` method's error.
        impl<T: Float> $trait<&Tensor<T>> for &Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: &Tensor<T>) -> Tensor<T> {
                unwrap(elementwise::zip($name, self, rhs, T::binary(Binary::$trait)))
            }
        }
        /// Reuses the storage of `self` where it is unshared and has the result's shape.
        impl<T: Float> $trait<&Tensor<T>> for Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: &Tensor<T>) -> Tensor<T> {
                let f = T::binary(Binary::$trait);
                unwrap(elementwise::zip_owned($name, self, rhs, Side::Left, f))
            }
        }
        /// Reuses the storage of `rhs` where it is unshared and has the result's shape.
        impl<T: Float> $trait<Tensor<T>> for &Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: Tensor<T>) -> Tensor<T> {
                let f = T::binary(Binary::$trait);
                unwrap(elementwise::zip_owned($name, rhs, self, Side::Right, f))
            }
        }
        /// Reuses the storage of an operand where it is unshared and has the result's shape.
        impl<T: Float> $trait<Tensor<T>> for Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: Tensor<T>) -> Tensor<T> {
                if rhs.numel() > self.numel() { (&self).$method(rhs) } else { self.$method(&rhs) }
            }
        }
        impl<T: Float> $trait<T> for &Tensor<T> {
            type Output = Tensor<T>;
            fn $method(self, rhs: T) -> Tensor<T> {
                elementwise::zip_scalar(self, rhs, Side::Left, T::binary(Binary::$trait))
            }
        }
        impl<T: Float> $trait<T> for Tensor<T> {
            type Output = Tensor<T>;
            fn $method(self, rhs: T) -> Tensor<T> {
                elementwise::zip_scalar_owned(self, rhs, Side::Left, T::binary(Binary::$trait))
            }
        }
        operator!(@scalar $trait, $method, f32);
        operator!(@scalar $trait, $method, f64);
    };
    (@scalar $trait:ident, $method:ident, $type:ident) => {
        impl $trait<&Tensor<$type>> for $type {
            type Output = Tensor<$type>;
            fn $method(self, rhs: &Tensor<$type>) -> Tensor<$type> {
                elementwise::zip_scalar(rhs, self, Side::Right, elementwise::binary_table(Binary::$trait))
            }
        }
        impl $trait<Tensor<$type>> for $type {
            type Output = Tensor<$type>;
            fn $method(self, rhs: Tensor<$type>) -> Tensor<$type> {
                let f = elementwise::binary_table(Binary::$trait);
                elementwise::zip_scalar_owned(rhs, self, Side::Right, f)
            }
        }
    };
}

operator!(Add, add, "add");
operator!(Sub, sub, "sub");
operator!(Mul, mul, "mul");
operator!(Div, div, "div");

impl<T: Float> Neg for &Tensor<T> {
    type Output = Tensor<T>;
    fn neg(self) -> Tensor<T> {
        elementwise::map(self, T::unary(Unary::Neg))
    }
}

impl<T: Float> Neg for Tensor<T> {
    type Output = Tensor<T>;
    fn neg(self) -> Tensor<T> {
        elementwise::map_owned(self, T::unary(Unary::Neg))
    }
}

#[track_caller]
fn unwrap<T>(result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iota(shape: &[usize]) -> Tensor<f64> {
        let n: usize = shape.iter().product();
        Tensor::from_vec((0..n).map(|i| i as f64 + 1.0).collect(), shape).unwrap()
    }

    #[test]
    fn owned_operands_are_reused_and_shared_ones_are_not() {
        let (a, b) = (iota(&[2, 3]), iota(&[3]));
        let want = [2.0, 4.0, 6.0, 5.0, 7.0, 9.0];
        assert_eq!((&a + &b).to_vec(), want);
        let own = iota(&[2, 3]);
        let address = own.as_slice().unwrap().as_ptr();
        let sum = own + &b;
        assert_eq!(
            (sum.to_vec().as_slice(), sum.as_slice().unwrap().as_ptr()),
            (&want[..], address)
        );
        let shared = a.clone();
        let difference = &b - shared;
        assert_eq!(difference.to_vec(), [0.0, 0.0, 0.0, -3.0, -3.0, -3.0]);
        assert_eq!(a.to_vec(), iota(&[2, 3]).to_vec());
        assert_eq!((iota(&[1]) - iota(&[2, 2])).to_vec(), [0.0, -1.0, -2.0, -3.0]);
        assert_eq!((2.0 / iota(&[2])).to_vec(), [2.0, 1.0]);
        assert_eq!((2.0 - &iota(&[2])).to_vec(), [1.0, 0.0]);
        assert_eq!((-iota(&[2])).to_vec(), [-1.0, -2.0]);
    }

    #[test]
    #[should_panic(expected = "add: shapes do not match: [2, 3] and [2]")]
    fn operators_panic_with_the_text_of_the_error() {
        let _ = iota(&[2, 3]) + iota(&[2]);
    }
}
