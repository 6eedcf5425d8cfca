//! What can be stored in a tensor ([`Element`]) and what mathematics needs ([`Float`]).
//!
//! Both are sealed: kernels are compiled here, once for each type, and never in a user's crate.

use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::kernels::FloatKernels;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl Sealed for bool {}
}

/// A value that tensors store: `f32`, `f64`, `i64`, `bool`.
pub trait Element:
    sealed::Sealed + Copy + Default + PartialEq + PartialOrd + Debug + Send + Sync + 'static
{
    /// The type's name as Rust writes it.
    const NAME: &'static str;
    /// Whether every bit pattern of the type's size is a value.
    #[doc(hidden)]
    const ANY_BITS_VALID: bool;
    /// The element as a float, for printing; `None` where it prints as it is.
    #[doc(hidden)]
    fn as_float(self) -> Option<f64>;
    /// Appends the element's little-endian bytes.
    #[doc(hidden)]
    fn write_le(self, out: &mut Vec<u8>);
    /// The element of these little-endian bytes; `None` unless they are as many as it has, and a
    /// value.
    #[doc(hidden)]
    fn read_le(bytes: &[u8]) -> Option<Self>;
}

macro_rules! element {
    ($type:ty, $any_bits:literal, |$x:ident| $as_float:expr, $write:expr, $read:expr) => {
        impl Element for $type {
            const NAME: &'static str = stringify!($type);
            const ANY_BITS_VALID: bool = $any_bits;
            fn as_float(self) -> Option<f64> {
                let $x = self;
                $as_float
            }
            fn write_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&$write(self));
            }
            fn read_le(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().and_then($read)
            }
        }
    };
}

element!(f32, true, |x| Some(f64::from(x)), f32::to_le_bytes, |b| Some(f32::from_le_bytes(b)));
element!(f64, true, |x| Some(x), f64::to_le_bytes, |b| Some(f64::from_le_bytes(b)));
element!(i64, true, |_x| None, i64::to_le_bytes, |b| Some(i64::from_le_bytes(b)));
element!(bool, false, |_x| None, |x| [u8::from(x)], |[b]: [u8; 1]| match b {
    0 => Some(false),
    1 => Some(true),
    _ => None,
});

/// An element with real arithmetic: `f32` or `f64`.
///
/// The `v…` functions are the scalar bodies of the vector kernels. They are branch-free and inlined,
/// so that a loop over them vectorises inside [`kernels::dispatch`](crate::kernels::dispatch);
/// `FMA` says whether fused multiply-add is an instruction there.
pub trait Float:
    Element
    + FloatKernels
    + Neg<Output = Self>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
{
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// Positive infinity.
    const INFINITY: Self;
    /// The distance from 1 to the next larger value.
    const EPSILON: Self;

    /// The nearest value to `x`.
    fn from_f64(x: f64) -> Self;
    /// The value as `f64`, exactly.
    fn to_f64(self) -> f64;
    /// `|x|`.
    fn abs(self) -> Self;
    /// `√x`, correctly rounded.
    fn sqrt(self) -> Self;
    /// `self·a + b`, rounded once where `FMA`.
    fn mul_add<const FMA: bool>(self, a: Self, b: Self) -> Self;
    /// `eˣ`; overflow gives infinity, NaN stays NaN.
    fn vexp<const FMA: bool>(self) -> Self;
    /// `eˣ·2⁻ᵏ` for arguments where it is at most 2¹²⁶; below the smallest normal number it is 0.
    /// Exact in the exponent: no rounding comes from the shift. `|self|` at most 2²⁰.
    #[doc(hidden)]
    fn vexp_scaled<const FMA: bool>(self, k: i32) -> Self;
    /// Natural logarithm. (For `f64` the standard library's, which no loop vectorises.)
    fn vlog<const FMA: bool>(self) -> Self;
    /// Hyperbolic tangent. (For `f64` the standard library's, which no loop vectorises.)
    fn vtanh<const FMA: bool>(self) -> Self;
}

macro_rules! float {
    ($type:ident) => {
        impl Float for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const INFINITY: Self = $type::INFINITY;
            const EPSILON: Self = $type::EPSILON;
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            #[inline(always)]
            fn mul_add<const FMA: bool>(self, a: Self, b: Self) -> Self {
                // Without the instruction `mul_add` would be a call to the C library.
                if FMA { $type::mul_add(self, a, b) } else { self * a + b }
            }
            #[inline(always)]
            fn vexp<const FMA: bool>(self) -> Self {
                crate::kernels::math::$type::exp::<FMA>(self)
            }
            #[inline(always)]
            fn vexp_scaled<const FMA: bool>(self, k: i32) -> Self {
                crate::kernels::math::$type::exp_scaled::<FMA>(self, k)
            }
            #[inline(always)]
            fn vlog<const FMA: bool>(self) -> Self {
                crate::kernels::math::$type::log::<FMA>(self)
            }
            #[inline(always)]
            fn vtanh<const FMA: bool>(self) -> Self {
                crate::kernels::math::$type::tanh::<FMA>(self)
            }
        }
    };
}

float!(f32);
float!(f64);
