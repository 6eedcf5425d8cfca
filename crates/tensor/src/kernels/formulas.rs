//! The built-in element-wise formulas, and which compiled kernel stands behind each name.
//!
//! A formula that calls the C library never vectorises; its row in the tables says `plain`.

use super::elementwise::{
    Arg, Map, MapFn, Zip, Zip3, Zip3Fn, ZipFn, map_once, map_slice, zip_once, zip_slice, zip3_once,
    zip3_slice,
};
use super::reduce::{self, FoldFns, fold_fns, fold_fns_once};
use super::{ElementKernels, NumberKernels};
use crate::element::{Element, Float, Number, Rounding, Scalar};

macro_rules! names {
    ($(#[$doc:meta])* $visible:vis $type:ident: $($name:ident)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        $visible enum $type { $($name),+ }
    };
}

names! { /// Formulas that compare two elements.
pub Comparison: Eq Ne Lt Le Gt Ge }
names! { /// Formulas of one number.
pub NumberUnary: Neg Abs Sign Square }
names! { /// Formulas of two numbers.
pub NumberBinary: Add Sub Mul Div Fmod Remainder Maximum Minimum }
names! { /// Formulas of one real number.
pub Unary: Sqrt Rsqrt Reciprocal Exp Expm1 Log Log1p Log2 Sin Cos Tan Tanh Sigmoid Erf Floor Ceil
Round Trunc Relu }
names! { /// Questions about one real number.
pub Class: Nan Infinite Finite }
names! { /// Formulas of two real numbers.
pub Binary: Pow Atan2 ThresholdBackward TanhBackward SigmoidBackward }
names! { /// Formulas of two truth values.
pub(crate) Logic: And Or Xor }

macro_rules! formulas {
    ($trait:ident<$bound:ident> $arguments:tt -> $out:ty: $($(#[$note:meta])* $name:ident = $formula:expr;)+) => {$(
        $(#[$note])*
        struct $name;
        impl<T: $bound> $trait<T, $out> for $name {
            #[inline(always)]
            fn apply<const FMA: bool> $arguments -> $out { $formula }
        }
    )+};
}

formulas! { Zip<Element> (x: T, y: T) -> bool:
    Eq = x == y;
    Ne = x != y;
    Lt = x < y;
    Le = x <= y;
    Gt = x > y;
    Ge = x >= y;
}

formulas! { Map<Number> (x: T) -> T:
    Neg = x.negative();
    Abs = x.magnitude();
    Sign = x.sign();
    Square = x.times(x);
}

formulas! { Zip<Number> (x: T, y: T) -> T:
    Add = x.plus(y);
    Sub = x.minus(y);
    Mul = x.times(y);
    Div = x.over(y);
    Fmod = x.fmod(y);
    Remainder = x.remainder(y);
    Maximum = x.larger(y);
    Minimum = x.smaller(y);
}

formulas! { Map<Float> (x: T) -> T:
    Sqrt = x.sqrt();
    Rsqrt = T::ONE / x.sqrt();
    Reciprocal = T::ONE / x;
    Exp = x.vexp::<FMA>();
    Expm1 = x.vexpm1::<FMA>();
    Log = x.vlog::<FMA>();
    Log1p = x.vlog1p::<FMA>();
    Log2 = x.scalar(Scalar::Log2);
    Sin = x.vsin::<FMA>();
    Cos = x.vcos::<FMA>();
    Tan = x.scalar(Scalar::Tan);
    Tanh = x.vtanh::<FMA>();
    Sigmoid = x.vsigmoid::<FMA>();
    Erf = x.verf::<FMA>();
    Floor = x.rounded(Rounding::Down);
    Ceil = x.rounded(Rounding::Up);
    Round = x.rounded(Rounding::Even);
    Trunc = x.rounded(Rounding::Zero);
    /// NaN stays NaN.
    Relu = if x <= T::ZERO { T::ZERO } else { x };
}

formulas! { Map<Float> (x: T) -> bool:
    Nan = x.to_f64().is_nan();
    Infinite = x.magnitude() == T::INFINITY;
    Finite = x.magnitude() < T::INFINITY;
}

formulas! { Zip<Float> (x: T, y: T) -> T:
    Pow = x.powf(y);
    Atan2 = x.atan2(y);
    /// `x` where `y > 0` (or NaN), else 0.
    ThresholdBackward = if y <= T::ZERO { T::ZERO } else { x };
    TanhBackward = x * (T::ONE - y * y);
    SigmoidBackward = x * (y * (T::ONE - y));
}

macro_rules! logic {
    ($($name:ident = $operator:tt;)+) => {$(
        struct $name;
        impl Zip<bool> for $name {
            #[inline(always)]
            fn apply<const FMA: bool>(x: bool, y: bool) -> bool { x $operator y }
        }
    )+};
}
logic! { And = &; Or = |; Xor = ^; }

struct Not;
impl Map<bool> for Not {
    #[inline(always)]
    fn apply<const FMA: bool>(x: bool) -> bool {
        !x
    }
}

/// `y` where `x`, else `z`.
struct Where;
impl<T: Element> Zip3<bool, T> for Where {
    #[inline(always)]
    fn apply<const FMA: bool>(x: bool, y: T, z: T) -> T {
        if x { y } else { z }
    }
}

struct Clamp;
impl<T: Number> Zip3<T, T> for Clamp {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, low: T, high: T) -> T {
        x.larger(low).smaller(high)
    }
}

/// From the nearer end, so that weights of 0 and 1 give the ends exactly.
struct Lerp;
impl<T: Float> Zip3<T, T> for Lerp {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, end: T, weight: T) -> T {
        let d = end - x;
        let near = weight.mul_add::<FMA>(d, x);
        let far = (weight - T::ONE).mul_add::<FMA>(d, end);
        let y = if weight + weight < T::ONE { near } else { far };
        // The difference may overflow, or be one of infinities.
        let y = if weight == T::ZERO { x } else { y };
        if weight == T::ONE { end } else { y }
    }
}

/// A scalar loop, for formulas that call the C library and so never vectorise.
fn map_plain<T: Float, K: Map<T>>(x: &[T], y: &mut [T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = K::apply::<false>(x);
    }
}

/// A scalar loop, as [`map_plain`].
fn zip_plain<T: Element, K: Zip<T>>(x: Arg<'_, T>, y: Arg<'_, T>, out: &mut [T]) {
    let at = |a: &Arg<'_, T>, i: usize| match *a {
        Arg::Slice(a) => a[i],
        Arg::Scalar(a) => a,
    };
    for (i, o) in out.iter_mut().enumerate() {
        *o = K::apply::<false>(at(&x, i), at(&y, i));
    }
}

/// Sine and cosine: vectorised up to here, and the standard library's beyond.
const VECTOR_ANGLE: f64 = 1e4;

/// The vector formula `K`, then the standard library's function where the angle is too large for it.
fn map_angle<T: Float, K: Map<T>, const SINE: bool>(x: &[T], y: &mut [T]) {
    let function = if SINE { Scalar::Sin } else { Scalar::Cos };
    let limit = T::from_f64(VECTOR_ANGLE);
    map_slice::<T, T, K>(x, y);
    for (x, y) in x.chunks(256).zip(y.chunks_mut(256)) {
        // Folded without a branch, so that it costs little where all is well.
        let fits = |x: T| x.magnitude() <= limit;
        if x.iter().fold(true, |all, &x| all & fits(x)) {
            continue;
        }
        for (&x, y) in x.iter().zip(y) {
            if !fits(x) {
                *y = x.scalar(function);
            }
        }
    }
}

/// What a kernel table needs for each type and name: a function compiled for every instruction set
/// (`vector`), for the baseline alone (`once`), or around a call (`plain`).
macro_rules! kernel {
    (vector map $type:ty, $name:ident) => {
        map_slice::<$type, _, $name>
    };
    (vector zip $type:ty, $name:ident) => {
        zip_slice::<$type, _, $name>
    };
    (vector zip3 $type:ty, $name:ident) => {
        zip3_slice::<_, $type, $name>
    };
    (vector fold $type:ty, $name:ident) => {
        fold_fns::<$type, reduce::$name>()
    };
    (once map $type:ty, $name:ident) => {
        map_once::<$type, _, $name>
    };
    (once zip $type:ty, $name:ident) => {
        zip_once::<$type, _, $name>
    };
    (once zip3 $type:ty, $name:ident) => {
        zip3_once::<_, $type, $name>
    };
    (once fold $type:ty, $name:ident) => {
        fold_fns_once::<$type, reduce::$name>()
    };
    (plain map $type:ty, $name:ident) => {
        map_plain::<$type, $name>
    };
    (plain zip $type:ty, $name:ident) => {
        zip_plain::<$type, $name>
    };
    (sine map $type:ty, $name:ident) => {
        map_angle::<$type, $name, true>
    };
    (cosine map $type:ty, $name:ident) => {
        map_angle::<$type, $name, false>
    };
}

macro_rules! table {
    ($op:expr, $names:ident, $walk:ident $type:ty: $($name:ident $kind:ident),+ $(,)?) => {
        match $op { $($names::$name => kernel!($kind $walk $type, $name)),+ }
    };
}

macro_rules! element_kernels {
    ($($type:ident $kind:ident: $sum:ident $from:ident |$x:ident| $f32:expr, $f64:expr, $i64:expr, $u8:expr, $bool:expr;)+) => {$(
        impl ElementKernels for $type {
            fn compare(op: Comparison) -> ZipFn<Self, bool> {
                table!(op, Comparison, zip $type:
                    Eq $kind, Ne $kind, Lt $kind, Le $kind, Gt $kind, Ge $kind)
            }
            fn choose() -> Zip3Fn<bool, Self> {
                kernel!($kind zip3 $type, Where)
            }
            fn sum() -> FoldFns<Self, <Self as Element>::Accumulator> {
                kernel!($kind fold $type, $sum)
            }
            fn wide_sum() -> FoldFns<Self, <Self as Element>::Accumulator> {
                kernel!($kind fold $type, Count)
            }
            fn product() -> FoldFns<Self, <Self as Element>::Accumulator> {
                kernel!($kind fold $type, Product)
            }
            fn cast<U: Element>() -> MapFn<Self, U> {
                U::$from
            }
            fn cast_from_f32(x: &[f32], out: &mut [Self]) {
                out.iter_mut().zip(x).for_each(|(o, &$x)| *o = $f32);
            }
            fn cast_from_f64(x: &[f64], out: &mut [Self]) {
                out.iter_mut().zip(x).for_each(|(o, &$x)| *o = $f64);
            }
            fn cast_from_i64(x: &[i64], out: &mut [Self]) {
                out.iter_mut().zip(x).for_each(|(o, &$x)| *o = $i64);
            }
            fn cast_from_u8(x: &[u8], out: &mut [Self]) {
                out.iter_mut().zip(x).for_each(|(o, &$x)| *o = $u8);
            }
            fn cast_from_bool(x: &[bool], out: &mut [Self]) {
                out.iter_mut().zip(x).for_each(|(o, &$x)| *o = $bool);
            }
        }
    )+};
}

element_kernels! {
    f32 vector: Sum cast_from_f32 |x| x, x as f32, x as f32, f32::from(x), f32::from(u8::from(x));
    f64 vector: Sum cast_from_f64 |x| f64::from(x), x, x as f64, f64::from(x), f64::from(u8::from(x));
    i64 once: Count cast_from_i64 |x| x as i64, x as i64, x, i64::from(x), i64::from(x);
    u8 once: Count cast_from_u8 |x| x as u8, x as u8, x as u8, x, u8::from(x);
    bool once: Count cast_from_bool |x| x != 0.0, x != 0.0, x != 0, x != 0, x;
}

macro_rules! number_kernels {
    ($type:ident, $kind:ident, $division:ident) => {
        impl NumberKernels for $type {
            fn number_unary(op: NumberUnary) -> MapFn<Self, Self> {
                table!(op, NumberUnary, map $type:
                    Neg $kind, Abs $kind, Sign $kind, Square $kind)
            }
            fn number_binary(op: NumberBinary) -> ZipFn<Self, Self> {
                table!(op, NumberBinary, zip $type:
                    Add $kind, Sub $kind, Mul $kind, Div $division, Fmod plain,
                    Remainder plain, Maximum $kind, Minimum $kind)
            }
            fn clamp() -> Zip3Fn<Self, Self> {
                kernel!($kind zip3 $type, Clamp)
            }
            fn largest() -> FoldFns<Self, Self> {
                kernel!($kind fold $type, Largest)
            }
            fn smallest() -> FoldFns<Self, Self> {
                kernel!($kind fold $type, Smallest)
            }
        }
    };
}
number_kernels!(f32, vector, vector);
number_kernels!(f64, vector, vector);
number_kernels!(i64, once, plain);
number_kernels!(u8, once, plain);

/// The formulas of real numbers, by type: `f64` has vector forms for exp and log alone.
macro_rules! float_tables {
    ($type:ident, $own:ident, $sine:ident, $cosine:ident) => {
        pub(crate) mod $type {
            //! Which kernel each name has.
            use super::*;

            pub(crate) fn unary(op: Unary) -> MapFn<$type, $type> {
                table!(op, Unary, map $type:
                    Sqrt vector, Rsqrt vector, Reciprocal vector, Exp vector, Expm1 $own,
                    Log vector, Log1p $own, Log2 plain, Sin $sine, Cos $cosine, Tan plain,
                    Tanh $own, Sigmoid vector, Erf $own, Floor vector, Ceil vector, Round vector,
                    Trunc vector, Relu vector)
            }

            pub(crate) fn binary(op: Binary) -> ZipFn<$type, $type> {
                table!(op, Binary, zip $type:
                    Pow plain, Atan2 plain, ThresholdBackward vector, TanhBackward vector,
                    SigmoidBackward vector)
            }

            pub(crate) fn classify(op: Class) -> MapFn<$type, bool> {
                table!(op, Class, map $type: Nan vector, Infinite vector, Finite vector)
            }

            pub(crate) fn lerp() -> Zip3Fn<$type, $type> {
                zip3_slice::<$type, $type, Lerp>
            }
        }
    };
}
float_tables!(f32, vector, sine, cosine);
float_tables!(f64, plain, plain, plain);

/// The formulas of truth values.
pub(crate) fn logic(op: Logic) -> ZipFn<bool, bool> {
    table!(op, Logic, zip bool: And once, Or once, Xor once)
}

/// Negation of truth values.
pub(crate) fn not() -> MapFn<bool, bool> {
    map_once::<bool, bool, Not>
}
