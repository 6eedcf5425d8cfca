//! Variance, standard deviation, length and `ln Σ exp`: the formulas in `f64`.

use tensor::{Float, Tensor};

use crate::reduce::{Over, closely};
use crate::softmax::SOFTMAX_ROUNDINGS;
use crate::twin::{
    Fill, Sample, Twin, integers, near, reals, smallest_normal, special, unit_roundoff, wide,
    with_nan,
};
use crate::{Case, Oracle};

/// The variance and how far from it another may be.
///
/// The mean is rounded, and sums of differences from it carry 65 roundings u (as sums do): that
/// enters squared, as (70 + n)·u of the largest element. The differences themselves round, so their
/// squares carry 2 u, and so does the result; the `f64` sums here and there round 4n times.
fn variance<T: Float + Sample>(x: &[f64], correction: usize) -> (f64, f64) {
    let n = x.len() as f64;
    if x.len() <= correction {
        return (f64::NAN, 0.0);
    }
    let freedom = n - correction as f64;
    let mean = x.iter().sum::<f64>() / n;
    let squares: f64 = x.iter().map(|x| (x - mean) * (x - mean)).sum();
    let largest = x.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
    let u = unit_roundoff::<T>();
    let drift = (70.0 + n) * u * largest;
    let var = squares / freedom;
    (var, (4.0 * u + 2.0 * n * f64::EPSILON) * var + n / freedom * drift * drift)
}

fn deviation<T: Float + Sample>(x: &[f64], correction: usize) -> (f64, f64) {
    let (var, slack) = variance::<T>(x, correction);
    let std = var.sqrt();
    // |√a − √b| is at most √|a − b|, and at most |a − b|/√b.
    let slack = if std > 0.0 { slack.sqrt().min(slack / std) } else { slack.sqrt() };
    (std, slack + 2.0 * unit_roundoff::<T>() * std)
}

type Formula = fn(&[f64], usize) -> (f64, f64);
type All<T> = fn(&Tensor<T>, usize) -> Tensor<T>;
type Dims<T> = fn(&Tensor<T>, &[isize], usize, bool) -> tensor::Result<Tensor<T>>;

/// The tables take functions without arguments of their own: a correction is one of three.
fn spread<T: Float + Sample>(
    case: &mut Case,
    all: Option<All<T>>,
    dims: Option<Dims<T>>,
    f: Formula,
) {
    // Sums of the last leave the range of `f32`, but no result does that is one of `f32`.
    let huge = |bits| {
        let scale = if T::NAME == "f32" { 123 } else { 300 };
        T::sample(integers::<f64>(bits) * f64::powi(2.0, scale))
    };
    for fill in [integers as Fill<T>, reals, with_nan, huge] {
        let x = case.twin(fill);
        for correction in 0..3 {
            if let Some(op) = all {
                let want = x.dense.groups(|_| true).without(|_| true).map(|group| {
                    f(&group.iter().map(|x| x.number()).collect::<Vec<_>>(), correction)
                });
                near(&op(&x.view, correction), &want.map(|w| w.0), |i, _| want.data[i].1);
            }
            if let Some(op) = dims {
                let rank = case.rank();
                for over in case.choices.sets_of_dims(rank) {
                    let signed: Vec<isize> =
                        over.iter().map(|&d| case.choices.signed(d, rank)).collect();
                    let groups = x.dense.groups(|d| over.contains(&d));
                    let want = groups.map(|group| {
                        f(&group.iter().map(|x| x.number()).collect::<Vec<_>>(), correction)
                    });
                    let bound = |i: usize, _: f64| want.data[i].1;
                    let want = want.map(|w| w.0);
                    near(&op(&x.view, &signed, correction, true).unwrap(), &want, bound);
                    let want = want.without(|d| over.contains(&d));
                    near(&op(&x.view, &signed, correction, false).unwrap(), &want, bound);
                }
            }
        }
        x.check();
    }
}

/// `(Σ |x|ᵖ)^(1/p)`. Powers and sums round in `f64`, n + 8 times here and there, which the root
/// multiplies by 1/p; that 1/p rounds moves the result by its logarithm. The result rounds to its
/// type.
fn length<T: Float + Sample>(x: &[f64], p: f64) -> (f64, f64) {
    let x = x.iter().map(|x| x.abs());
    let n = x.len() as f64;
    let nan = x.clone().any(f64::is_nan);
    let value = match p {
        0.0 => x.filter(|&x| x != 0.0).count() as f64,
        _ if nan => f64::NAN,
        f64::INFINITY => x.fold(0.0, f64::max),
        f64::NEG_INFINITY => x.fold(f64::INFINITY, f64::min),
        _ => x.fold(0.0, |sum, x| sum + x.powf(p)).powf(p.recip()),
    };
    let relative = (n + 8.0) * f64::EPSILON * p.abs().recip().clamp(1.0, 8.0);
    let exponent =
        if value > 0.0 && value < f64::INFINITY { value.ln().abs() * f64::EPSILON } else { 0.0 };
    (value, (relative + exponent + 2.0 * unit_roundoff::<T>()) * value)
}

/// The tables of functions take no closures that capture, so each power is a constant.
macro_rules! lengths {
    ($case:ident, $op:expr, $p:ident = $($power:expr),+) => {$({
        const $p: f64 = $power;
        norms::<f32>($case, $p, $op);
        norms::<f64>($case, $p, $op);
    })+};
}

fn norms<T: Float + Sample>(case: &mut Case, p: f64, op: Over<T, T>) {
    for fill in [integers as Fill<T>, reals, with_nan, special] {
        let x = case.twin(fill);
        closely(&x, &mut case.choices, op, |x| length::<T>(x, p));
    }
    // Powers of these leave the range of the type (those of `f64` too), but not the length.
    let power = if T::NAME == "f32" { 100 } else { 700 };
    for power in [power, -power] {
        let scale = f64::powi(2.0, power);
        let x = case.twin::<T>(integers);
        let scaled = Twin { dense: x.dense.map(|x| T::sample(x.number() * scale)), ..x };
        let scaled = Twin::of(scaled.dense);
        let unscaled = |x: &[f64]| {
            let x: Vec<f64> = x.iter().map(|x| x / scale).collect();
            let (value, slack) = length::<T>(&x, p);
            if p == 0.0 { (value, slack) } else { (value * scale, slack * scale) }
        };
        closely(&scaled, &mut case.choices, op, unscaled);
    }
}

/// The sum carries the error of softmax relative to itself, which its logarithm makes absolute;
/// exponentials below the smallest normal count as 0. The result rounds; the oracle rounds n + 8
/// times.
fn log_sum<T: Float + Sample>(x: &[f64]) -> (f64, f64) {
    let max = x.iter().fold(f64::NEG_INFINITY, |a, &x| if x.is_nan() || x > a { x } else { a });
    if x.iter().any(|x| x.is_nan()) {
        return (f64::NAN, 0.0);
    }
    if max.is_infinite() {
        return (max, 0.0);
    }
    let n = x.len() as f64;
    let value = max + x.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    let roundings = SOFTMAX_ROUNDINGS * unit_roundoff::<T>() + (n + 8.0) * f64::EPSILON;
    (value, roundings * (1.0 + value.abs()) + n * smallest_normal::<T>())
}

fn log_sums<T: Float + Sample>(case: &mut Case, op: Over<T, T>) {
    for fill in [reals as Fill<T>, wide, special, |bits| {
        if bits % 3 == 0 { reals(bits) } else { T::sample(f64::NEG_INFINITY) }
    }] {
        let x = case.twin(fill);
        closely(&x, &mut case.choices, op, log_sum::<T>);
    }
}

pub(crate) const TABLE: &[Oracle] = &[
    ("var", |case| {
        spread::<f32>(case, Some(Tensor::var), None, variance::<f32>);
        spread::<f64>(case, Some(Tensor::var), None, variance::<f64>);
    }),
    ("var_dim", |case| {
        spread::<f32>(case, None, Some(Tensor::var_dim), variance::<f32>);
        spread::<f64>(case, None, Some(Tensor::var_dim), variance::<f64>);
    }),
    ("std", |case| {
        spread::<f32>(case, Some(Tensor::std), None, deviation::<f32>);
        spread::<f64>(case, Some(Tensor::std), None, deviation::<f64>);
    }),
    ("std_dim", |case| {
        spread::<f32>(case, None, Some(Tensor::std_dim), deviation::<f32>);
        spread::<f64>(case, None, Some(Tensor::std_dim), deviation::<f64>);
    }),
    ("norm", |case| {
        lengths!(
            case,
            Over::All(|x| x.norm(P)),
            P = 0.0,
            1.0,
            2.0,
            3.0,
            0.5,
            -1.0,
            -2.5,
            f64::INFINITY,
            f64::NEG_INFINITY
        );
    }),
    ("norm_dim", |case| {
        lengths!(
            case,
            Over::Some(|x, dims, keep| x.norm_dim(P, dims, keep)),
            P = 0.0,
            1.0,
            2.0,
            3.0,
            0.5,
            -1.0,
            -2.5,
            f64::INFINITY,
            f64::NEG_INFINITY
        );
    }),
    ("logsumexp", |case| {
        log_sums::<f32>(case, Over::All(Tensor::logsumexp));
        log_sums::<f64>(case, Over::All(Tensor::logsumexp));
    }),
    ("logsumexp_dim", |case| {
        log_sums::<f32>(case, Over::Some(Tensor::logsumexp_dim));
        log_sums::<f64>(case, Over::Some(Tensor::logsumexp_dim));
    }),
];
