//! Element-wise functions: the exact value in `f64`, within the stated units of the last place.

use tensor::kernels::{Map, Zip, Zip3};
use tensor::{Float, Operand, Result, Tensor};

use crate::arithmetic::{Arithmetic, binary};
use crate::twin::{
    BITS, Dense, Fill, Sample, integers, near, reals, same, special, ulp, unit_roundoff, wide,
};
use crate::{Case, Oracle};

/// A function of one element.
type Unary<T> = fn(&Tensor<T>) -> Tensor<T>;
/// Its form that may overwrite the operand.
type IntoUnary<T> = fn(Tensor<T>) -> Tensor<T>;
/// The bounds in ulp at an argument, for `f32` and for `f64`.
type Ulps = fn(f64) -> [f64; 2];

fn fills<T: Sample>() -> [Fill<T>; 4] {
    [T::any, special, wide, reals]
}

/// Compares with the exact value, on views.
pub(crate) fn unary<T: Float + Sample>(
    case: &mut Case,
    op: Unary<T>,
    exact: fn(f64) -> f64,
    ulps: Ulps,
) {
    for fill in fills::<T>() {
        let x = case.twin::<T>(fill);
        near(&op(&x.view), &x.dense.map(|x| exact(x.number())), |i, want| {
            let ulps = ulps(x.dense.data[i].number())[usize::from(T::NAME == "f64")];
            ulps * ulp::<T>(want)
        });
        x.check();
    }
}

/// Compares with the formula of the type, bit by bit.
fn formula<T: Arithmetic>(case: &mut Case, op: Unary<T>, formula: fn(T) -> T) {
    for fill in fills::<T>() {
        let x = case.twin::<T>(fill);
        same(&op(&x.view), &x.dense.map(formula));
        x.check();
    }
}

/// `into` has the bits of `op`, in the storage of an operand that nobody shares.
fn into<T: Sample>(case: &mut Case, op: Unary<T>, into: IntoUnary<T>) {
    for fill in [T::any as Fill<T>, special] {
        let x = case.twin::<T>(fill);
        let want = Dense { shape: x.dense.shape.clone(), data: op(&x.view).to_vec() };
        let shared = x.fresh();
        same(&into(shared.clone()), &want);
        same(&shared, &x.dense);
        same(&into(x.view.clone()), &want);
        x.check();
        let own = x.fresh();
        let address = own.as_slice().unwrap().as_ptr();
        let got = into(own);
        same(&got, &want);
        assert_eq!(got.as_slice().unwrap().as_ptr(), address);
        same(&into(x.view), &want);
    }
}

const BOTH: Ulps = |_| [BITS; 2];
/// In `f64` the exponential carries 1.5 ulp ≤ 3 u, and the sum and the quotient round once each: 5 u.
/// The oracle has 2 u from the standard library and 2 roundings: together 9 u ≤ 9 ulp.
const SIGMOID: Ulps = |_| [2.5, 9.1];
/// `exp` in `f64` has 1.5 ulp and the standard library's less than 1; so has the logarithm.
const EXP: Ulps = |_| [1.1, 2.5];
const LOG: Ulps = |_| [2.5, 2.5];
/// In `f64` they are the standard library's own.
const OURS: Ulps = |_| [2.5, BITS];
const STANDARD: Ulps = |_| [1.0, BITS];
/// Beyond 10⁴ they are the standard library's.
const ANGLE: Ulps = |x| [if x.abs() <= 1e4 { 2.5 } else { 1.0 }, BITS];
/// Two roundings.
const RSQRT: Ulps = |_| [2.0, BITS];
/// The function itself within 1 ulp, the oracle as said there.
const ERF: Ulps = |_| [2.5, 1.0 + ERF_ROUNDINGS];

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

/// Exact at powers of two.
fn log2(x: f64) -> f64 {
    let nearest = x.log2().round();
    if nearest.exp2() == x { nearest } else { x.log2() }
}

/// The series below has terms of one sign, each rounded 3 times, that fall from the 9th on, and a
/// sum and a factor of 6 roundings; half an ulp at least for each.
const ERF_ROUNDINGS: f64 = 16.0;

/// `2x/√π·e^(−x²)·Σ (2x²)ⁿ/(2n+1)!!`, and from 3 on the continued fraction of `1 − erf`, which needs
/// few digits there.
fn erf(x: f64) -> f64 {
    if x.is_nan() || x == 0.0 {
        return x;
    }
    let a = x.abs();
    if a > 7.0 {
        return 1.0_f64.copysign(x);
    }
    // e^(−x²) with the rounding of x² put back.
    let square = a * a;
    let bell = (-square).exp() * (1.0 - a.mul_add(a, -square));
    if a < 3.0 {
        let (mut term, mut sum) = (1.0, 0.0);
        for n in 0..100 {
            sum += term;
            term *= 2.0 * square / f64::from(2 * n + 3);
        }
        return std::f64::consts::FRAC_2_SQRT_PI * x * bell * sum;
    }
    let fraction = (1..60).rev().fold(a, |below, k| a + f64::from(k) / 2.0 / below);
    (1.0 - bell / fraction * std::f64::consts::FRAC_2_SQRT_PI / 2.0).copysign(x)
}

#[test]
fn the_error_function_is_that_of_tables() {
    // From the C library.
    for (x, want) in [
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (2.999, 0.999_977_769_831_400_2),
        (3.0, 0.999_977_909_503_001_4),
        (4.0, 0.999_999_984_582_742_1),
    ] {
        assert!((erf(x) - want).abs() <= 4e-16, "{x}: {}", erf(x));
        assert_eq!(erf(-x), -erf(x));
    }
}

macro_rules! table {
    (
        numbers { $($number:ident, $into_number:ident = $formula:ident;)+ }
        floats { $($float:ident, $into_float:ident = $exact:expr, $ulps:expr;)+ }
        binary { $($binary:ident = $pair:expr, $bound:expr;)+ }
        pairs { $($name:ident = $bits:expr;)+ }
        questions { $($question:ident = $answer:ident;)+ }
        others { $($other:ident)+ }
    ) => {
        pub(crate) const TABLE: &[Oracle] = &[
            $((stringify!($number), |case| {
                formula::<f32>(case, Tensor::$number, Arithmetic::$formula);
                formula::<f64>(case, Tensor::$number, Arithmetic::$formula);
                formula::<i64>(case, Tensor::$number, Arithmetic::$formula);
                formula::<u8>(case, Tensor::$number, Arithmetic::$formula);
            }),
            (stringify!($into_number), |case| {
                into::<f32>(case, Tensor::$number, Tensor::$into_number);
                into::<f64>(case, Tensor::$number, Tensor::$into_number);
                into::<i64>(case, Tensor::$number, Tensor::$into_number);
                into::<u8>(case, Tensor::$number, Tensor::$into_number);
            }),)+
            $((stringify!($float), |case| {
                unary::<f32>(case, Tensor::$float, $exact, $ulps);
                unary::<f64>(case, Tensor::$float, $exact, $ulps);
            }),
            (stringify!($into_float), |case| {
                into::<f32>(case, Tensor::$float, Tensor::$into_float);
                into::<f64>(case, Tensor::$float, Tensor::$into_float);
            }),)+
            $((stringify!($binary), |case| {
                real_pair::<f32>(case, |x, y| x.$binary(y), $pair, $bound);
                real_pair::<f64>(case, |x, y| x.$binary(y), $pair, $bound);
            }),)+
            $((stringify!($name), |case| {
                binary::<f32, f32>(case, |x, y| operand(x, y, Tensor::$name), $bits);
                binary::<f64, f64>(case, |x, y| operand(x, y, Tensor::$name), $bits);
            }),)+
            $((stringify!($question), |case| {
                question::<f32>(case, Tensor::$question, f64::$answer);
                question::<f64>(case, Tensor::$question, f64::$answer);
            }),)+
            $((stringify!($other), |case| {
                $other::<f32>(case);
                $other::<f64>(case);
            }),)+
        ];
    };
}

table! {
    numbers {
        abs, into_abs = absolute;
        sign, into_sign = signum;
        square, into_square = squared;
    }
    floats {
        sqrt, into_sqrt = f64::sqrt, BOTH;
        rsqrt, into_rsqrt = |x| 1.0 / x.sqrt(), RSQRT;
        reciprocal, into_reciprocal = |x| 1.0 / x, BOTH;
        exp, into_exp = f64::exp, EXP;
        expm1, into_expm1 = f64::exp_m1, OURS;
        log, into_log = f64::ln, LOG;
        log1p, into_log1p = f64::ln_1p, OURS;
        log2, into_log2 = log2, |x| [if log2(x).fract() == 0.0 { BITS } else { 1.0 }, BITS];
        sin, into_sin = f64::sin, ANGLE;
        cos, into_cos = f64::cos, ANGLE;
        tan, into_tan = f64::tan, STANDARD;
        tanh, into_tanh = f64::tanh, OURS;
        sigmoid, into_sigmoid = sigmoid, SIGMOID;
        erf, into_erf = erf, ERF;
        floor, into_floor = f64::floor, BOTH;
        ceil, into_ceil = f64::ceil, BOTH;
        round, into_round = f64::round_ties_even, BOTH;
        trunc, into_trunc = f64::trunc, BOTH;
        relu, into_relu = |x| if x <= 0.0 { 0.0 } else { x }, BOTH;
    }
    binary {
        pow = f64::powf, |y| if y == 2.0 { [BITS, 1.0] } else { [1.0, BITS] };
        atan2 = f64::atan2, |_| [2.0, BITS];
    }
    pairs {
        threshold_backward = |x, y| if y <= 0.0 { 0.0 } else { x };
        tanh_backward = |x, y| x * (1.0 - y * y);
        sigmoid_backward = |x, y| x * (y * (1.0 - y));
    }
    questions { isnan = is_nan; isinf = is_infinite; isfinite = is_finite; }
    others { lerp map zip zip3 }
}

/// A method of two tensors where a number may stand for the second.
fn operand<T: Float>(
    x: &Tensor<T>,
    y: Operand<'_, T>,
    op: fn(&Tensor<T>, &Tensor<T>) -> Result<Tensor<T>>,
) -> Result<Tensor<T>> {
    match y {
        Operand::Tensor(y) => op(x, y),
        Operand::Scalar(y) => op(x, &Tensor::scalar(y)),
    }
}

/// A function of the standard library: within `ulps` of the exact value, which may be others for an
/// exponent that is one number.
fn real_pair<T: Float + Sample>(
    case: &mut Case,
    op: fn(&Tensor<T>, Operand<'_, T>) -> Result<Tensor<T>>,
    exact: fn(f64, f64) -> f64,
    ulps: Ulps,
) {
    let bound = |y: f64, want: f64| ulps(y)[usize::from(T::NAME == "f64")] * ulp::<T>(want);
    for fill in fills::<T>() {
        let (a, b) = (case.part::<T>(fill), case.part::<T>(fill));
        let want = a.dense.zip(&b.dense, |x, y| exact(x.number(), y.number()));
        // Of tensors each exponent is like another.
        near(&op(&a.view, (&b.view).into()).unwrap(), &want, |_, want| bound(0.0, want));
        for y in [T::sample(2.0), T::sample(0.5), fill(case.choices.bits())] {
            let want = a.dense.map(|x| exact(x.number(), y.number()));
            let y = y.number();
            near(&op(&a.view, T::sample(y).into()).unwrap(), &want, |_, want| bound(y, want));
        }
        a.check();
        b.check();
    }
}

fn question<T: Float + Sample>(
    case: &mut Case,
    op: fn(&Tensor<T>) -> Tensor<bool>,
    answer: fn(f64) -> bool,
) {
    for fill in fills::<T>() {
        let x = case.twin::<T>(fill);
        same(&op(&x.view), &x.dense.map(|x| answer(x.number())));
        x.check();
    }
}

fn lerp<T: Float + Sample>(case: &mut Case) {
    for fill in [integers as Fill<T>, reals] {
        let (x, end, weight) = (case.part::<T>(fill), case.part::<T>(fill), case.part::<T>(fill));
        let ends = x.dense.zip(&end.dense, |x, end| (x.number(), end.number()));
        let triples = |weight: &Dense<T>| ends.zip(weight, |(x, end), w| (x, end, w.number()));
        // The difference, the weight less 1 and the product round, relative to the product, and then
        // the sum. The oracle rounds 3 times in `f64`.
        let u = unit_roundoff::<T>() + f64::EPSILON;
        let check = |got: Result<Tensor<T>>, weight: &Dense<T>| {
            let triples = triples(weight);
            near(&got.unwrap(), &triples.map(|(x, end, w)| x + w * (end - x)), |i, want| {
                let (x, end, w) = triples.data[i];
                let product = ((end - x) * w).abs().max(((end - x) * (w - 1.0)).abs());
                if w == 0.0 || w == 1.0 { 0.0 } else { u * (3.0 * product + want.abs()) }
            });
        };
        check(x.view.lerp(&end.view, &weight.view), &weight.dense);
        for w in [T::ZERO, T::ONE, T::sample(0.5), fill(case.choices.bits())] {
            check(x.view.lerp(&end.view, w), &Dense::scalar(w));
        }
        x.check();
        end.check();
        weight.check();
    }
}

/// A formula of one's own that changes the type.
struct Negative;
impl<T: Float> Map<T, bool> for Negative {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T) -> bool {
        x < T::ZERO
    }
}

fn map<T: Float + Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    same(&x.view.map::<bool, Negative>(), &x.dense.map(|x| x.number() < 0.0));
    x.check();
}

struct Less;
impl<T: Float> Zip<T, bool> for Less {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, y: T) -> bool {
        x < y
    }
}

fn zip<T: Float + Sample>(case: &mut Case) {
    let (a, b) = (case.part::<T>(special), case.part::<T>(special));
    let less = a.view.zip::<bool, Less>("less", &b.view).unwrap();
    same(&less, &a.dense.zip(&b.dense, |x, y| x < y));
    a.check();
    b.check();
}

/// A formula of three operands that makes the type of the last two, where every term is exact.
struct IfLess;
impl<T: Float> Zip3<T, T> for IfLess {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, y: T, z: T) -> T {
        if x < y { z } else { x }
    }
}

fn zip3<T: Float + Sample>(case: &mut Case) {
    let (x, y, z) = (case.part::<T>(special), case.part::<T>(special), case.part::<T>(special));
    let formula = |(x, y), z| if x < y { z } else { x };
    let want = |y: &Dense<T>, z: &Dense<T>| x.dense.zip(y, |x, y| (x, y)).zip(z, formula);
    same(&x.view.zip3::<T, IfLess>("less", &y.view, &z.view).unwrap(), &want(&y.dense, &z.dense));
    let number = special::<T>(case.choices.bits());
    let scalar = Dense::scalar(number);
    same(&x.view.zip3::<T, IfLess>("less", number, &z.view).unwrap(), &want(&scalar, &z.dense));
    same(&x.view.zip3::<T, IfLess>("less", &y.view, number).unwrap(), &want(&y.dense, &scalar));
    for part in [x, y, z] {
        part.check();
    }
}
