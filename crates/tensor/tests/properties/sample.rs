//! Elements that tests draw: what each type can be made of, and when two are the same.

use tensor::{Element, Float, Tensor};

use crate::twin::Dense;

/// An element that tests can draw and compare.
pub(crate) trait Sample: Element {
    /// `x` as Rust's `as` converts it: infinities are the extremes of the integers.
    fn sample(x: f64) -> Self;
    /// The element as a number.
    fn number(self) -> f64;
    /// Any value at all; of floats a third are any, a third are what `exp` takes, a third are small.
    fn any(bits: u64) -> Self;
    /// Whether the bits are the same; all NaNs are one.
    fn is(self, other: Self) -> bool;
}

macro_rules! samples {
    ($($type:ident |$x:ident, $y:ident| $sample:expr, $number:expr, $any:expr, $is:expr;)+) => {$(
        impl Sample for $type {
            fn sample($x: f64) -> Self { $sample }
            fn number(self) -> f64 { let $x = self; $number }
            fn any($x: u64) -> Self { $any }
            fn is(self, $y: Self) -> bool { let $x = self; $is }
        }
    )+};
}
samples! {
    f32 |x, y| x as f32, x.into(), f32::arguments(x),
        x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    f64 |x, y| x, x, f64::arguments(x),
        x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    i64 |x, y| x as i64, x as f64, x as i64, x == y;
    u8 |x, y| x as u8, x.into(), x as u8, x == y;
    bool |x, y| x != 0.0, f64::from(u8::from(x)), x % 2 == 1, x == y;
}

trait Arguments: Sized {
    fn arguments(bits: u64) -> Self;
}
impl Arguments for f32 {
    fn arguments(bits: u64) -> Self {
        let unit = (bits >> 32) as f32 / 4_294_967_296.0;
        match bits % 3 {
            0 => f32::from_bits((bits >> 16) as u32),
            1 => unit * 200.0 - 110.0,
            _ => unit * 2.0 - 1.0,
        }
    }
}
impl Arguments for f64 {
    fn arguments(bits: u64) -> Self {
        let unit = (bits >> 11) as f64 / 9_007_199_254_740_992.0;
        match bits % 3 {
            0 => f64::from_bits(bits.rotate_left(17)),
            1 => unit * 1460.0 - 750.0,
            _ => unit * 2.0 - 1.0,
        }
    }
}

/// What an element is made of: 64 mixed bits.
pub(crate) type Fill<T> = fn(u64) -> T;

/// Integers of [−8, 8], and of [0, 16] for `u8`.
pub(crate) fn integers<T: Sample>(bits: u64) -> T {
    let low = if T::NAME == "u8" { 0.0 } else { 8.0 };
    T::sample((bits % 17) as f64 - low)
}

/// [`integers`] without 0.
pub(crate) fn divisors<T: Sample>(bits: u64) -> T {
    let x = integers::<T>(bits);
    if x == T::ZERO { T::ONE } else { x }
}

fn real(bits: u64) -> f64 {
    ((bits >> 40) as f64 - 8_388_608.0) / 1_048_576.0
}

/// Multiples of 2⁻²⁰ of [−8, 8): exact in `f32`, and so are their differences in `f64`.
pub(crate) fn reals<T: Sample>(bits: u64) -> T {
    T::sample(real(bits))
}

/// As [`reals`], of [−512, 512).
pub(crate) fn wide<T: Sample>(bits: u64) -> T {
    T::sample(real(bits) * 64.0)
}

/// Integers and NaN.
pub(crate) fn with_nan<T: Sample>(bits: u64) -> T {
    if bits.is_multiple_of(19) { T::sample(f64::NAN) } else { integers(bits / 19) }
}

/// Integers between the values that need a rule: zeros of both signs, infinities (the extremes of
/// integers), NaN, and numbers at the ends of the range of `f32`.
pub(crate) fn special<T: Sample>(bits: u64) -> T {
    const SPECIAL: [f64; 13] = [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        0.0,
        -1.0,
        1.0,
        255.0,
        0.5,
        -2.5,
        1e-40,
        f32::MAX as f64,
        -f32::MAX as f64,
    ];
    let at = (bits % 26) as usize;
    SPECIAL.get(at).map_or_else(|| integers(bits / 26), |&x| T::sample(x))
}

/// Asserts the shape, and the bits of every element; all NaNs are one.
#[track_caller]
pub(crate) fn same<T: Sample>(got: &Tensor<T>, want: &Dense<T>) {
    assert_eq!(got.shape(), want.shape);
    for (i, (got, &want)) in got.to_vec().into_iter().zip(&want.data).enumerate() {
        assert!(got.is(want), "{got:?} ≠ {want:?} at {i}");
    }
}

/// No error lies within this bound.
pub(crate) const BITS: f64 = f64::NAN;

/// Asserts the shape, and every element within `bound(flat index, wanted)` of the wanted one.
#[track_caller]
pub(crate) fn near<T: Float + Sample>(
    got: &Tensor<T>,
    want: &Dense<f64>,
    bound: impl Fn(usize, f64) -> f64,
) {
    assert_eq!(got.shape(), want.shape);
    for (i, (got, &want)) in got.to_vec().into_iter().zip(&want.data).enumerate() {
        let (error, bound) = ((got.number() - want).abs(), bound(i, want));
        let equal = got.is(T::sample(want)) || error <= bound;
        assert!(equal, "{got:?} ≠ {want:?} at {i}: {error:e} > {bound:e}");
    }
}

pub(crate) fn unit_roundoff<T: Float + Sample>() -> f64 {
    T::EPSILON.number() / 2.0
}

pub(crate) fn smallest_normal<T: Float>() -> f64 {
    if T::NAME == "f32" { f32::MIN_POSITIVE.into() } else { f64::MIN_POSITIVE }
}

/// The distance of neighbours in `T` at `x`.
pub(crate) fn ulp<T: Float + Sample>(x: f64) -> f64 {
    let power = f64::from_bits(x.to_bits() & (0x7ff << 52));
    power.max(smallest_normal::<T>()) * T::EPSILON.number()
}
