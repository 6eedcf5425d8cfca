//! What can be stored in a tensor ([`Element`]), what arithmetic needs ([`Number`]) and what
//! mathematics needs ([`Float`]).
//!
//! All three are sealed: kernels are compiled here, once for each type, and never in a user's crate.

use std::cmp::Ordering;
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use crate::kernels::{ElementKernels, FloatKernels, NumberKernels};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
    impl Sealed for i64 {}
    impl Sealed for u8 {}
    impl Sealed for bool {}
}

/// A value that tensors store: `f32`, `f64`, `i64`, `u8`, `bool`.
pub trait Element:
    sealed::Sealed
    + Copy
    + Default
    + PartialEq
    + PartialOrd
    + Debug
    + Send
    + Sync
    + ElementKernels
    + 'static
{
    /// What a sum of elements is: the type itself for floats, `i64` for the others.
    type Sum: Number;
    /// What sums and products are accumulated in: `f64` for floats, `i64` for the others.
    #[doc(hidden)]
    type Accumulator: Number;
    /// The type's name as Rust writes it.
    const NAME: &'static str;
    /// Whether every bit pattern of the type's size is a value.
    #[doc(hidden)]
    const ANY_BITS_VALID: bool;
    /// Zero, or `false`.
    const ZERO: Self;
    /// One, or `true`.
    const ONE: Self;
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
    /// The order that sorting uses: NaN is the largest and equal to itself, −0 equals 0.
    #[doc(hidden)]
    #[inline(always)]
    fn order(&self, other: &Self) -> Ordering {
        #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
        let nan = |x: &Self| x != x;
        self.partial_cmp(other).unwrap_or_else(|| nan(self).cmp(&nan(other)))
    }
    #[doc(hidden)]
    fn lift(self) -> Self::Accumulator;
    #[doc(hidden)]
    fn settle(sum: Self::Accumulator) -> Self::Sum;
}

macro_rules! element {
    (
        $type:ty, sum: $sum:ty, accumulator: $accumulator:ty, any bits: $any_bits:literal,
        $zero:literal, $one:literal, |$x:ident| $as_float:expr, $write:expr, $read:expr,
    ) => {
        impl Element for $type {
            type Sum = $sum;
            type Accumulator = $accumulator;
            const NAME: &'static str = stringify!($type);
            const ANY_BITS_VALID: bool = $any_bits;
            const ZERO: Self = $zero;
            const ONE: Self = $one;
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
            #[inline(always)]
            fn lift(self) -> $accumulator {
                <$accumulator>::from(self)
            }
            #[inline(always)]
            #[allow(clippy::cast_possible_truncation, reason = "rounding to f32 is the purpose")]
            #[allow(clippy::unnecessary_cast, reason = "one definition for all types")]
            fn settle(sum: $accumulator) -> $sum {
                sum as $sum
            }
        }
    };
}

element! {
    f32, sum: f32, accumulator: f64, any bits: true, 0.0, 1.0,
    |x| Some(f64::from(x)), f32::to_le_bytes, |b| Some(f32::from_le_bytes(b)),
}
element! {
    f64, sum: f64, accumulator: f64, any bits: true, 0.0, 1.0,
    |x| Some(x), f64::to_le_bytes, |b| Some(f64::from_le_bytes(b)),
}
element! {
    i64, sum: i64, accumulator: i64, any bits: true, 0, 1,
    |_x| None, i64::to_le_bytes, |b| Some(i64::from_le_bytes(b)),
}
element! {
    u8, sum: i64, accumulator: i64, any bits: true, 0, 1,
    |_x| None, u8::to_le_bytes, |b| Some(u8::from_le_bytes(b)),
}
element! {
    bool, sum: i64, accumulator: i64, any bits: false, false, true,
    |_x| None, |x| [u8::from(x)], |[b]: [u8; 1]| match b {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    },
}

/// An element with arithmetic: `f32`, `f64`, `i64`, `u8`.
///
/// Integers wrap on overflow, as in NumPy and PyTorch. Dividing an integer by zero is an error of the
/// methods on tensors; the functions here give 0.
pub trait Number: Element + NumberKernels {
    /// Whether the type has no fractions.
    const INTEGER: bool;
    /// −∞, or the least integer.
    const LOWEST: Self;
    /// +∞, or the greatest integer.
    const HIGHEST: Self;
    /// `self + y`.
    fn plus(self, y: Self) -> Self;
    /// `self − y`.
    fn minus(self, y: Self) -> Self;
    /// `self·y`.
    fn times(self, y: Self) -> Self;
    /// `self/y`; integers are cut towards zero.
    fn over(self, y: Self) -> Self;
    /// The remainder of a division cut towards zero, as `%` has it: the sign is that of `self`.
    fn fmod(self, y: Self) -> Self;
    /// The remainder of a division rounded down, as Python's `%`: the sign is that of `y`.
    fn remainder(self, y: Self) -> Self;
    /// The larger of two; NaN if either is.
    #[inline(always)]
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    fn larger(self, y: Self) -> Self {
        if self > y || self != self { self } else { y }
    }
    /// The smaller of two; NaN if either is.
    #[inline(always)]
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    fn smaller(self, y: Self) -> Self {
        if self < y || self != self { self } else { y }
    }
    /// `−self`.
    fn negative(self) -> Self;
    /// `|self|`.
    fn magnitude(self) -> Self;
    /// −1, 0 or 1; NaN and zeros stay as they are.
    fn sign(self) -> Self;
}

macro_rules! integer {
    ($type:ident, $magnitude:ident, $sign:expr) => {
        impl Number for $type {
            const INTEGER: bool = true;
            const LOWEST: Self = $type::MIN;
            const HIGHEST: Self = $type::MAX;
            #[inline(always)]
            fn plus(self, y: Self) -> Self {
                self.wrapping_add(y)
            }
            #[inline(always)]
            fn minus(self, y: Self) -> Self {
                self.wrapping_sub(y)
            }
            #[inline(always)]
            fn times(self, y: Self) -> Self {
                self.wrapping_mul(y)
            }
            #[inline(always)]
            fn over(self, y: Self) -> Self {
                if y == 0 { 0 } else { self.wrapping_div(y) }
            }
            #[inline(always)]
            fn fmod(self, y: Self) -> Self {
                if y == 0 { 0 } else { self.wrapping_rem(y) }
            }
            #[inline(always)]
            #[allow(unused_comparisons, reason = "one definition for all integers")]
            fn remainder(self, y: Self) -> Self {
                let r = Number::fmod(self, y);
                if r != 0 && (r < 0) != (y < 0) { r.wrapping_add(y) } else { r }
            }
            #[inline(always)]
            fn negative(self) -> Self {
                self.wrapping_neg()
            }
            #[inline(always)]
            fn magnitude(self) -> Self {
                $magnitude(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                $sign(self)
            }
        }
    };
}

const fn same(x: u8) -> u8 {
    x
}
const fn wrapping_abs(x: i64) -> i64 {
    x.wrapping_abs()
}
integer!(i64, wrapping_abs, i64::signum);
integer!(u8, same, |x: u8| x.min(1));

/// An element with real arithmetic: `f32` or `f64`.
///
/// The `v…` functions are the scalar bodies of the vector kernels. They are branch-free and inlined,
/// so that a loop over them vectorises inside [`kernels::dispatch`](crate::kernels::dispatch);
/// `FMA` says whether fused multiply-add is an instruction there. For `f64` those other than
/// `vexp`, `vlog` and `vsigmoid` are the standard library's or `libm`'s, which no loop vectorises.
pub trait Float:
    Number
    + Element<Sum = Self, Accumulator = f64>
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
    /// Positive infinity.
    const INFINITY: Self;
    /// Not a number.
    const NAN: Self;
    /// The distance from 1 to the next larger value.
    const EPSILON: Self;
    /// Where `a·φ(a)`, with the normal density φ, is too small for the type.
    const NORMAL_FAR: Self;

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
    /// `eˣ·2⁻ᵏ` for arguments where it is a normal number of at most 2¹²⁶; anything for others.
    /// Exact in the exponent: no rounding comes from the shift. `|self|` at most 2²⁰.
    #[doc(hidden)]
    fn vexp_scaled<const FMA: bool>(self, k: i32) -> Self;
    /// Natural logarithm.
    fn vlog<const FMA: bool>(self) -> Self;
    /// `eˣ − 1`.
    fn vexpm1<const FMA: bool>(self) -> Self;
    /// `ln(1 + x)`.
    fn vlog1p<const FMA: bool>(self) -> Self;
    /// Hyperbolic tangent.
    fn vtanh<const FMA: bool>(self) -> Self;
    /// `1/(1 + e⁻ˣ)`.
    fn vsigmoid<const FMA: bool>(self) -> Self;
    /// The error function.
    fn verf<const FMA: bool>(self) -> Self;
    /// `2⁸⁰·Φ(−a)`, with the normal distribution function Φ, for a in [0, `NORMAL_FAR`] or NaN.
    fn vnormal_tail<const FMA: bool>(self) -> Self;
    /// `2⁸⁰·(Φ(−a) − a·φ(a))`, the slope of `2⁸⁰·a·Φ(−a)`, for a in [0, `NORMAL_FAR`] or NaN.
    fn vnormal_tail_slope<const FMA: bool>(self) -> Self;
    /// Sine, for `|x| ≤ 10⁴`.
    fn vsin<const FMA: bool>(self) -> Self;
    /// Cosine, for `|x| ≤ 10⁴`.
    fn vcos<const FMA: bool>(self) -> Self;
    /// A function of the standard library.
    #[doc(hidden)]
    fn scalar(self, function: Scalar) -> Self;
    /// `selfʸ`.
    fn powf(self, y: Self) -> Self;
    /// The angle of the point (y, self), with `self` above the axis.
    fn atan2(self, x: Self) -> Self;
    /// Rounded to an integer: down, up, to nearest with ties to even, or towards zero.
    #[doc(hidden)]
    fn rounded(self, to: Rounding) -> Self;
}

/// Functions without a vector form.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    Log2,
    Sin,
    Cos,
    Tan,
}

#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Rounding {
    Down,
    Up,
    Even,
    Zero,
}

macro_rules! float {
    ($type:ident, normal far: $far:literal) => {
        impl Number for $type {
            const INTEGER: bool = false;
            const LOWEST: Self = $type::NEG_INFINITY;
            const HIGHEST: Self = $type::INFINITY;
            #[inline(always)]
            fn plus(self, y: Self) -> Self {
                self + y
            }
            #[inline(always)]
            fn minus(self, y: Self) -> Self {
                self - y
            }
            #[inline(always)]
            fn times(self, y: Self) -> Self {
                self * y
            }
            #[inline(always)]
            fn over(self, y: Self) -> Self {
                self / y
            }
            #[inline(always)]
            fn fmod(self, y: Self) -> Self {
                self % y
            }
            #[inline(always)]
            fn remainder(self, y: Self) -> Self {
                let r = self % y;
                if r != 0.0 && (r < 0.0) != (y < 0.0) {
                    r + y
                } else if r == 0.0 {
                    r.copysign(y)
                } else {
                    r
                }
            }
            #[inline(always)]
            fn negative(self) -> Self {
                -self
            }
            #[inline(always)]
            fn magnitude(self) -> Self {
                $type::abs(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                let one = (1.0 as $type).copysign(self);
                if self == 0.0 || self.is_nan() { self } else { one }
            }
        }

        impl Float for $type {
            const INFINITY: Self = $type::INFINITY;
            const NAN: Self = $type::NAN;
            const EPSILON: Self = $type::EPSILON;
            const NORMAL_FAR: Self = $far;
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
            fn vexp_scaled<const FMA: bool>(self, k: i32) -> Self {
                crate::kernels::math::$type::exp_scaled::<FMA>(self, k)
            }
            float!(
                @math $type,
                vexp = exp, vlog = log, vexpm1 = expm1, vlog1p = log1p, vtanh = tanh,
                vsigmoid = sigmoid, verf = erf, vnormal_tail = normal_tail,
                vnormal_tail_slope = normal_tail_slope, vsin = sin, vcos = cos
            );
            fn scalar(self, function: Scalar) -> Self {
                match function {
                    Scalar::Log2 => self.log2(),
                    Scalar::Sin => self.sin(),
                    Scalar::Cos => self.cos(),
                    Scalar::Tan => self.tan(),
                }
            }
            fn powf(self, y: Self) -> Self {
                self.powf(y)
            }
            fn atan2(self, x: Self) -> Self {
                self.atan2(x)
            }
            #[inline(always)]
            fn rounded(self, to: Rounding) -> Self {
                match to {
                    Rounding::Down => self.floor(),
                    Rounding::Up => self.ceil(),
                    Rounding::Even => self.round_ties_even(),
                    Rounding::Zero => self.trunc(),
                }
            }
        }
    };
    (@math $type:ident, $($name:ident = $function:ident),+) => {$(
        #[inline(always)]
        fn $name<const FMA: bool>(self) -> Self {
            crate::kernels::math::$type::$function::<FMA>(self)
        }
    )+};
}

float!(f32, normal far: 15.0);
float!(f64, normal far: 40.0);
