//! Comparisons, truth values, and choosing between tensors.

use std::ops::{BitAnd, BitOr, BitXor, Not};

use super::arithmetic::unwrap;
use crate::element::{Element, Number};
use crate::error::Result;
use crate::kernels::Operand;
use crate::kernels::elementwise;
use crate::kernels::formulas::{self, Comparison, Logic};
use crate::tensor::Tensor;

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident($text:literal) = $op:ident;)+) => {
        /// Comparisons with a tensor that broadcasts, or with a number. NaN is unequal to everything,
        /// and neither less nor greater.
        impl<T: Element> Tensor<T> {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
            pub fn $name<'a>(&self, rhs: impl Into<Operand<'a, T>>) -> Result<Tensor<bool>> {
                elementwise::zip_operand($text, self, rhs.into(), T::compare(Comparison::$op))
            }
        )+}
    };
}

comparisons! {
    /// Where `self = rhs`. `torch.eq`, `numpy.equal`.
    #[doc(alias = "equal")]
    eq("eq") = Eq;
    /// Where `self ≠ rhs`. `torch.ne`, `numpy.not_equal`.
    #[doc(alias = "not_equal")]
    ne("ne") = Ne;
    /// Where `self < rhs`. `torch.lt`, `numpy.less`.
    #[doc(alias = "less")]
    lt("lt") = Lt;
    /// Where `self ≤ rhs`. `torch.le`, `numpy.less_equal`.
    #[doc(alias = "less_equal")]
    le("le") = Le;
    /// Where `self > rhs`. `torch.gt`, `numpy.greater`.
    #[doc(alias = "greater")]
    gt("gt") = Gt;
    /// Where `self ≥ rhs`. `torch.ge`, `numpy.greater_equal`.
    #[doc(alias = "greater_equal")]
    ge("ge") = Ge;
}

/// Truth values. The operators `& | ^ !` do the same, and panic where these return an error.
impl Tensor<bool> {
    /// Where both hold, broadcasting. `torch.logical_and`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn logical_and(&self, rhs: &Self) -> Result<Self> {
        elementwise::zip("logical_and", self, rhs, formulas::logic(Logic::And))
    }

    /// Where at least one holds, broadcasting. `torch.logical_or`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn logical_or(&self, rhs: &Self) -> Result<Self> {
        elementwise::zip("logical_or", self, rhs, formulas::logic(Logic::Or))
    }

    /// Where exactly one holds, broadcasting. `torch.logical_xor`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    pub fn logical_xor(&self, rhs: &Self) -> Result<Self> {
        elementwise::zip("logical_xor", self, rhs, formulas::logic(Logic::Xor))
    }

    /// Where it does not hold. `torch.logical_not`.
    #[must_use]
    pub fn logical_not(&self) -> Self {
        elementwise::map(self, formulas::not())
    }

    /// `x` where `self` holds, else `y`; all three broadcast, and `x` and `y` may be numbers.
    /// `torch.where(self, x, y)`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let x = Tensor::from([-1.0_f32, 2.0, f32::NAN]);
    /// let y = x.gt(0.0)?.where_cond(&x, 0.0)?;
    /// assert_eq!(y.to_vec(), [0.0, 2.0, 0.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    #[doc(alias = "where")]
    pub fn where_cond<'a, T: Element>(
        &self,
        x: impl Into<Operand<'a, T>>,
        y: impl Into<Operand<'a, T>>,
    ) -> Result<Tensor<T>> {
        elementwise::zip3("where", self.into(), x.into(), y.into(), T::choose())
    }
}

macro_rules! logical_operator {
    ($trait:ident, $method:ident, $name:literal, $op:ident) => {
        /// Panics if the shapes do not broadcast.
        impl $trait for &Tensor<bool> {
            type Output = Tensor<bool>;
            #[track_caller]
            fn $method(self, rhs: Self) -> Tensor<bool> {
                unwrap(elementwise::zip($name, self, rhs, formulas::logic(Logic::$op)))
            }
        }
        /// Reuses the storage of `self` where it is unshared and has the result's shape.
        impl $trait for Tensor<bool> {
            type Output = Tensor<bool>;
            #[track_caller]
            fn $method(self, rhs: Self) -> Tensor<bool> {
                let f = formulas::logic(Logic::$op);
                unwrap(elementwise::zip_operand_owned($name, self, (&rhs).into(), f))
            }
        }
    };
}

logical_operator!(BitAnd, bitand, "logical_and", And);
logical_operator!(BitOr, bitor, "logical_or", Or);
logical_operator!(BitXor, bitxor, "logical_xor", Xor);

impl Not for &Tensor<bool> {
    type Output = Tensor<bool>;
    fn not(self) -> Tensor<bool> {
        self.logical_not()
    }
}

impl Not for Tensor<bool> {
    type Output = Tensor<bool>;
    fn not(self) -> Tensor<bool> {
        elementwise::map_owned(self, formulas::not())
    }
}

/// Element-wise bounds.
impl<T: Number> Tensor<T> {
    /// `min(max(self, low), high)`: bounds may be numbers or tensors that broadcast; NaN in any of
    /// the three gives NaN. One-sided: [`Tensor::maximum`], [`Tensor::minimum`]. `torch.clamp`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast.
    #[doc(alias = "clip")]
    pub fn clamp<'a>(
        &self,
        low: impl Into<Operand<'a, T>>,
        high: impl Into<Operand<'a, T>>,
    ) -> Result<Self> {
        elementwise::zip3("clamp", self.into(), low.into(), high.into(), T::clamp())
    }
}
