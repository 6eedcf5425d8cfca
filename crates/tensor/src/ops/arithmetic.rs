//! The operators `+ - * / %`, their assigning forms, negation, and the `checked_` methods that return
//! an error where an operator panics.
//!
//! Integers wrap on overflow (`i64::MIN / -1` is `i64::MIN`), as in NumPy and PyTorch; `/` and `%` cut
//! towards zero, as in Rust; a divisor of zero is an error, and nothing is computed. Operands taken by
//! value are overwritten where nobody shares their storage.

use std::ops::{
    Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Rem, RemAssign, Sub, SubAssign,
};

use crate::element::Number;
use crate::error::{Error, Result};
use crate::kernels::elementwise::{self, Side};
use crate::kernels::formulas::{NumberBinary, NumberUnary};
use crate::kernels::{NumberKernels, Operand};
use crate::tensor::Tensor;

/// Refuses integer divisors that are zero.
pub(crate) fn check_divisor<T: Number>(op: &'static str, rhs: Operand<'_, T>) -> Result<()> {
    if !T::INTEGER {
        return Ok(());
    }
    let at = match rhs {
        Operand::Scalar(y) => (y == T::ZERO).then_some(0),
        Operand::Tensor(y) => y.contiguous().elements().iter().position(|&y| y == T::ZERO),
    };
    match at {
        None => Ok(()),
        Some(position) => Err(Error::InvalidArgument {
            op,
            name: "divisor",
            reason: format!("is 0 at position {position}; integers have no such quotient"),
        }),
    }
}

/// Refuses an operand that would give an assignment another shape.
fn check_assigned<T: Number>(op: &'static str, to: &Tensor<T>, rhs: &Tensor<T>) -> Result<()> {
    let fits = rhs.layout.expand(op, &to.layout.shape).map(drop);
    fits.map_err(|_| Error::InvalidArgument {
        op,
        name: "operand",
        reason: format!(
            "of shape {:?} does not broadcast to {:?}, the shape assigned to",
            rhs.shape(),
            to.shape()
        ),
    })
}

/// Refuses what the formula cannot take.
fn check<T: Number>(op: &'static str, name: NumberBinary, rhs: Operand<'_, T>) -> Result<()> {
    match name {
        NumberBinary::Div | NumberBinary::Fmod | NumberBinary::Remainder => check_divisor(op, rhs),
        _ => Ok(()),
    }
}

/// The formula of two tensors or of a tensor and a number.
pub(crate) fn binary<T: Number>(
    op: &'static str,
    name: NumberBinary,
    x: &Tensor<T>,
    y: Operand<'_, T>,
) -> Result<Tensor<T>> {
    check(op, name, y)?;
    elementwise::zip_operand(op, x, y, T::number_binary(name))
}

/// [`binary`] that overwrites `x` where it may.
pub(crate) fn binary_owned<T: Number>(
    op: &'static str,
    name: NumberBinary,
    x: Tensor<T>,
    y: Operand<'_, T>,
) -> Result<Tensor<T>> {
    check(op, name, y)?;
    elementwise::zip_operand_owned(op, x, y, T::number_binary(name))
}

/// Arithmetic that returns errors.
impl<T: Number> Tensor<T> {
    /// `self + rhs`, broadcasting. `torch.add`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast.
    pub fn checked_add(&self, rhs: &Self) -> Result<Self> {
        binary("add", NumberBinary::Add, self, rhs.into())
    }

    /// `self − rhs`, broadcasting. `torch.sub`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast.
    pub fn checked_sub(&self, rhs: &Self) -> Result<Self> {
        binary("sub", NumberBinary::Sub, self, rhs.into())
    }

    /// `self · rhs`, broadcasting. `torch.mul`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast.
    pub fn checked_mul(&self, rhs: &Self) -> Result<Self> {
        binary("mul", NumberBinary::Mul, self, rhs.into())
    }

    /// `self / rhs`, broadcasting; integers are cut towards zero. `torch.div`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast; [`Error::InvalidArgument`] if an
    /// integer divisor is 0.
    pub fn checked_div(&self, rhs: &Self) -> Result<Self> {
        binary("div", NumberBinary::Div, self, rhs.into())
    }

    /// The remainder with the sign of `self`, as Rust's `%`, broadcasting. `torch.fmod`,
    /// `numpy.fmod`.
    ///
    /// # Errors
    /// As [`Tensor::checked_div`].
    pub fn checked_rem(&self, rhs: &Self) -> Result<Self> {
        binary("rem", NumberBinary::Fmod, self, rhs.into())
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $assign:ident, $assign_method:ident, $name:literal, $op:ident) => {
        /// Panics if the shapes do not broadcast, or an integer divisor is 0, with the text of the
        /// `checked_` method's error.
        impl<T: Number> $trait<&Tensor<T>> for &Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: &Tensor<T>) -> Tensor<T> {
                unwrap(binary($name, NumberBinary::$op, self, rhs.into()))
            }
        }
        /// Reuses the storage of `self` where it is unshared and has the result's shape.
        impl<T: Number> $trait<&Tensor<T>> for Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: &Tensor<T>) -> Tensor<T> {
                unwrap(binary_owned($name, NumberBinary::$op, self, rhs.into()))
            }
        }
        /// Reuses the storage of `rhs` where it is unshared and has the result's shape.
        impl<T: Number> $trait<Tensor<T>> for &Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: Tensor<T>) -> Tensor<T> {
                unwrap(check($name, NumberBinary::$op, (&rhs).into()));
                let f = T::number_binary(NumberBinary::$op);
                unwrap(elementwise::zip_owned($name, rhs, self, Side::Right, f))
            }
        }
        /// Reuses the storage of an operand where it is unshared and has the result's shape.
        impl<T: Number> $trait<Tensor<T>> for Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: Tensor<T>) -> Tensor<T> {
                if rhs.numel() > self.numel() { (&self).$method(rhs) } else { self.$method(&rhs) }
            }
        }
        impl<T: Number> $trait<T> for &Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: T) -> Tensor<T> {
                unwrap(binary($name, NumberBinary::$op, self, rhs.into()))
            }
        }
        impl<T: Number> $trait<T> for Tensor<T> {
            type Output = Tensor<T>;
            #[track_caller]
            fn $method(self, rhs: T) -> Tensor<T> {
                unwrap(binary_owned($name, NumberBinary::$op, self, rhs.into()))
            }
        }
        /// In place where `self` is unshared, row-major and as large as the result. Panics as the
        /// operator does, and if `rhs` does not broadcast to the shape of `self`.
        impl<T: Number> $assign<&Tensor<T>> for Tensor<T> {
            #[track_caller]
            fn $assign_method(&mut self, rhs: &Tensor<T>) {
                unwrap(check_assigned($name, self, rhs));
                unwrap(check($name, NumberBinary::$op, rhs.into()));
                let own = std::mem::replace(self, Tensor::scalar(T::ZERO));
                *self = unwrap(binary_owned($name, NumberBinary::$op, own, rhs.into()));
            }
        }
        impl<T: Number> $assign<T> for Tensor<T> {
            #[track_caller]
            fn $assign_method(&mut self, rhs: T) {
                unwrap(check($name, NumberBinary::$op, rhs.into()));
                let own = std::mem::replace(self, Tensor::scalar(T::ZERO));
                *self = unwrap(binary_owned($name, NumberBinary::$op, own, rhs.into()));
            }
        }
        operator!(@scalar $trait, $method, $name, $op, f32);
        operator!(@scalar $trait, $method, $name, $op, f64);
        operator!(@scalar $trait, $method, $name, $op, i64);
        operator!(@scalar $trait, $method, $name, $op, u8);
    };
    (@scalar $trait:ident, $method:ident, $name:literal, $op:ident, $type:ident) => {
        impl $trait<&Tensor<$type>> for $type {
            type Output = Tensor<$type>;
            #[track_caller]
            fn $method(self, rhs: &Tensor<$type>) -> Tensor<$type> {
                unwrap(check($name, NumberBinary::$op, rhs.into()));
                let f = $type::number_binary(NumberBinary::$op);
                elementwise::zip_scalar(rhs, self, Side::Right, f)
            }
        }
        impl $trait<Tensor<$type>> for $type {
            type Output = Tensor<$type>;
            #[track_caller]
            fn $method(self, rhs: Tensor<$type>) -> Tensor<$type> {
                unwrap(check($name, NumberBinary::$op, (&rhs).into()));
                let f = $type::number_binary(NumberBinary::$op);
                elementwise::zip_scalar_owned(rhs, self, Side::Right, f)
            }
        }
    };
}

operator!(Add, add, AddAssign, add_assign, "add", Add);
operator!(Sub, sub, SubAssign, sub_assign, "sub", Sub);
operator!(Mul, mul, MulAssign, mul_assign, "mul", Mul);
operator!(Div, div, DivAssign, div_assign, "div", Div);
operator!(Rem, rem, RemAssign, rem_assign, "rem", Fmod);

impl<T: Number> Neg for &Tensor<T> {
    type Output = Tensor<T>;
    fn neg(self) -> Tensor<T> {
        elementwise::map(self, T::number_unary(NumberUnary::Neg))
    }
}

impl<T: Number> Neg for Tensor<T> {
    type Output = Tensor<T>;
    fn neg(self) -> Tensor<T> {
        elementwise::map_owned(self, T::number_unary(NumberUnary::Neg))
    }
}

#[track_caller]
pub(crate) fn unwrap<T>(result: Result<T>) -> T {
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
    #[should_panic(expected = "add: operand of shape [3, 2] does not broadcast to [2]")]
    fn an_assignment_keeps_its_shape() {
        let mut x = iota(&[2]);
        x += &iota(&[3, 2]);
    }

    #[test]
    fn integers_wrap_and_refuse_to_divide_by_zero() {
        let x = Tensor::from([i64::MAX, i64::MIN, 7, -7]);
        assert_eq!((&x + 1).to_vec(), [i64::MIN, i64::MIN + 1, 8, -6]);
        assert_eq!((&x / -1).to_vec(), [-i64::MAX, i64::MIN, -7, 7]);
        assert_eq!((&x / 2).to_vec()[2..], [3, -3]);
        assert_eq!((&x % 4).to_vec()[2..], [3, -3]);
        assert_eq!(x.remainder(4).unwrap().to_vec()[2..], [3, 1]);
        let zero = Tensor::from([1_i64, 0, 1, 1]);
        let text = x.checked_div(&zero).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "div: divisor is 0 at position 1; integers have no such quotient");
        assert_eq!((Tensor::from([250_u8, 3]) + 10).to_vec(), [4, 13]);
    }

    #[test]
    fn lerp_is_exact_at_both_ends() {
        let (x, end) = (Tensor::from([-3e38_f32, 1.0]), Tensor::from([3e38_f32, f32::INFINITY]));
        assert_eq!(x.lerp(&end, 0.0).unwrap().to_vec(), x.to_vec());
        assert_eq!(x.lerp(&end, 1.0).unwrap().to_vec(), end.to_vec());
    }

    #[test]
    #[should_panic(expected = "add: shapes do not match: [2, 3] and [2]")]
    fn operators_panic_with_the_text_of_the_error() {
        let _ = iota(&[2, 3]) + iota(&[2]);
    }
}
