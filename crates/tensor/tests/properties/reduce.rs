//! Sums, products, means, extrema and truth over all dims and over sets of them: folds of the
//! elements that stand at each place of the result.

use tensor::{Element, Float, Number, Result, Tensor};

use crate::twin::{
    Choices, Dense, Fill, Sample, Twin, integers, near, reals, same, special, unit_roundoff,
    with_nan,
};
use crate::{Case, Oracle, rejects};

/// Sums of n elements. At most 64 of them meet in a lane of the element type, and the result is
/// rounded to it: 65 roundings u = ε/2, relative to Σ|x|. The rest, and the oracle, add in `f64`:
/// 2n roundings of 2⁻⁵³.
const SUM_ROUNDINGS: f64 = 65.0;

/// A reduction of some dims.
type OverDims<T, B> = fn(&Tensor<T>, &[isize], bool) -> Result<Tensor<B>>;
/// One of a single dim.
type AlongDim<T, R> = fn(&Tensor<T>, isize, bool) -> Result<R>;

/// A reduction of all dims, or of those that it is given.
#[derive(Clone, Copy)]
pub(crate) enum Over<T: Element, B: Element> {
    All(fn(&Tensor<T>) -> Tensor<B>),
    Some(OverDims<T, B>),
}

/// Calls `check` with results, and with the elements that went into each of their elements.
pub(crate) fn reduction<T: Sample, B: Sample>(
    x: &Twin<T>,
    c: &mut Choices,
    op: Over<T, B>,
    check: impl Fn(&Tensor<B>, &Dense<Vec<T>>),
) {
    match op {
        Over::All(op) => check(&op(&x.view), &x.dense.groups(|_| true).without(|_| true)),
        Over::Some(op) => {
            let rank = x.dense.shape.len();
            for dims in c.sets_of_dims(rank) {
                let over = |d| dims.contains(&d);
                let signed: Vec<isize> = dims.iter().map(|&d| c.signed(d, rank)).collect();
                let groups = x.dense.groups(over);
                check(&op(&x.view, &signed, true).unwrap(), &groups);
                check(&op(&x.view, &signed, false).unwrap(), &groups.without(over));
            }
        }
    }
    x.check();
}

/// Results that have the bits of `f`.
pub(crate) fn exactly<T: Sample, B: Sample>(
    x: &Twin<T>,
    c: &mut Choices,
    op: Over<T, B>,
    f: impl Fn(&[T]) -> B,
) {
    reduction(x, c, op, |got, groups| same(got, &groups.map(|group| f(&group))));
}

/// Results that are as near to the first number of `f` as its second says.
pub(crate) fn closely<T: Float + Sample>(
    x: &Twin<T>,
    c: &mut Choices,
    op: Over<T, T>,
    f: impl Fn(&[f64]) -> (f64, f64),
) {
    reduction(x, c, op, |got, groups| {
        let numbers = |group: Vec<T>| group.into_iter().map(Sample::number).collect::<Vec<_>>();
        let want = groups.map(|group| f(&numbers(group)));
        near(got, &want.map(|(value, _)| value), |i, _| want.data[i].1);
    });
}

/// A sum, and how far from it another may be.
fn summed<T: Float + Sample>(x: &[f64], exact: bool) -> (f64, f64) {
    let slack = SUM_ROUNDINGS * unit_roundoff::<T>() + x.len() as f64 * f64::EPSILON;
    let size: f64 = x.iter().map(|x| x.abs()).sum();
    (x.iter().sum::<f64>() + 0.0, if exact { 0.0 } else { slack * size })
}

/// Sums of `x`, or means.
pub(crate) fn sums<T: Float + Sample>(
    x: &Twin<T>,
    c: &mut Choices,
    op: Over<T, T>,
    [mean, exact]: [bool; 2],
) {
    closely(x, c, op, |x| {
        let (sum, slack) = summed::<T>(x, exact);
        let n = if mean { x.len() as f64 } else { 1.0 };
        (sum / n, slack / n)
    });
}

fn float_sums<T: Float + Sample>(case: &mut Case, op: Over<T, T>, mean: bool) {
    for (fill, exact) in [(integers as Fill<T>, true), (reals, false), (special, false)] {
        let x = case.twin(fill);
        sums(&x, &mut case.choices, op, [mean, exact]);
    }
}

fn counts<T: Sample>(case: &mut Case, op: Over<T, i64>) {
    for fill in [integers as Fill<T>, T::any] {
        let x = case.twin(fill);
        exactly(&x, &mut case.choices, op, |x| {
            x.iter().fold(0_i64, |sum, x| sum.wrapping_add(whole(*x)))
        });
    }
}

/// An integer or a truth value as `i64`, all bits of it.
pub(crate) fn whole<T: Sample>(x: T) -> i64 {
    let mut bytes = format!("{x:?}");
    if T::NAME == "bool" {
        bytes = u8::from(x == T::ONE).to_string();
    }
    bytes.parse().unwrap()
}

/// Powers of two and what makes a product 0, infinite or NaN: no order of factors rounds.
fn factors<T: Sample>(bits: u64) -> T {
    let many = [1.0, -1.0, 2.0, 0.5, -2.0, 1.0, -0.5, 1.0];
    let few = [0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let rare = few.get((bits % 200) as usize);
    T::sample(*rare.unwrap_or(&many[(bits / 200 % 8) as usize]))
}

fn products<T: Float + Sample>(case: &mut Case, op: Over<T, T>) {
    let x = case.twin::<T>(factors);
    let product = |x: &[T]| T::sample(x.iter().map(|x| x.number()).product());
    exactly(&x, &mut case.choices, op, product);
    // Each of n factors near 1 rounds in `f64`, here and there, and the result in its type.
    let x = case.twin::<T>(|bits| T::sample(1.0 + reals::<f64>(bits) / 64.0));
    closely(&x, &mut case.choices, op, |x| {
        let slack = x.len() as f64 * f64::EPSILON + unit_roundoff::<T>();
        let product: f64 = x.iter().product();
        (product, slack * product)
    });
}

fn whole_products<T: Sample>(case: &mut Case, op: Over<T, i64>) {
    for fill in [integers as Fill<T>, T::any] {
        let x = case.twin(fill);
        exactly(&x, &mut case.choices, op, |x| {
            x.iter().fold(1_i64, |product, x| product.wrapping_mul(whole(*x)))
        });
    }
}

fn truth(case: &mut Case, op: Over<bool, bool>, f: fn(&[bool]) -> bool) {
    for fill in [integers as Fill<bool>, |bits| bits % 16 > 0, |bits| bits % 16 == 0] {
        let x = case.twin(fill);
        exactly(&x, &mut case.choices, op, f);
    }
}

/// Where the first of the largest (or smallest) is; NaN counts as that.
pub(crate) fn first<T: Sample>(x: &[T], largest: bool) -> usize {
    let nan = |x: T| x.number().is_nan();
    let beats = |a: T, b: T| if largest { a > b } else { a < b };
    let mut at = 0;
    for i in 1..x.len() {
        if !nan(x[at]) && (nan(x[i]) || beats(x[i], x[at])) {
            at = i;
        }
    }
    at
}

/// Of zeros of both signs either is right.
#[track_caller]
fn same_value<T: Sample>(got: &Tensor<T>, want: &Dense<T>) {
    assert_eq!(got.shape(), want.shape);
    let all = got.to_vec().into_iter().zip(&want.data);
    all.for_each(|(got, &want)| assert!(got.is(want) || got == want, "{got:?} ≠ {want:?}"));
}

/// The five methods of an extremum, for one element type.
struct Extremum<T: Element> {
    names: [&'static str; 5],
    all: fn(&Tensor<T>) -> Result<Tensor<T>>,
    dims: OverDims<T, T>,
    dim: AlongDim<T, (Tensor<T>, Tensor<i64>)>,
    arg: fn(&Tensor<T>) -> Result<Tensor<i64>>,
    arg_dim: AlongDim<T, Tensor<i64>>,
    largest: bool,
}

fn extremum<T: Number + Sample>(largest: bool) -> Extremum<T> {
    if largest {
        Extremum {
            names: ["max", "amax", "max_dim", "argmax", "argmax"],
            all: Tensor::max,
            dims: Tensor::amax,
            dim: Tensor::max_dim,
            arg: Tensor::argmax,
            arg_dim: Tensor::argmax_dim,
            largest,
        }
    } else {
        Extremum {
            names: ["min", "amin", "min_dim", "argmin", "argmin"],
            all: Tensor::min,
            dims: Tensor::amin,
            dim: Tensor::min_dim,
            arg: Tensor::argmin,
            arg_dim: Tensor::argmin_dim,
            largest,
        }
    }
}

pub(crate) fn extrema<T: Number + Sample>(
    x: &Twin<T>,
    c: &mut Choices,
    largest: bool,
    which: usize,
) {
    let ops = extremum::<T>(largest);
    let name = ops.names[which];
    let pick = |x: &[T]| x[first(x, ops.largest)];
    let position = |x: &[T]| first(x, ops.largest) as i64;
    let rank = x.dense.shape.len();
    let whole = x.dense.groups(|_| true).without(|_| true);
    let empty = x.dense.data.is_empty();
    match which {
        0 if empty => rejects(name, (ops.all)(&x.view)),
        0 => same_value(&(ops.all)(&x.view).unwrap(), &whole.map(|x| pick(&x))),
        3 if empty => rejects(name, (ops.arg)(&x.view)),
        3 => same(&(ops.arg)(&x.view).unwrap(), &whole.map(|x| position(&x))),
        1 => {
            for dims in c.sets_of_dims(rank) {
                let over = |d| dims.contains(&d);
                let signed: Vec<isize> = dims.iter().map(|&d| c.signed(d, rank)).collect();
                let [keep, drop] = [true, false].map(|keep| (ops.dims)(&x.view, &signed, keep));
                if dims.iter().any(|&d| x.dense.shape[d] == 0) {
                    rejects(name, keep);
                    rejects(name, drop);
                    continue;
                }
                let want = x.dense.groups(over).map(|x| pick(&x));
                same_value(&keep.unwrap(), &want);
                same_value(&drop.unwrap(), &want.without(over));
            }
        }
        _ => {
            for d in 0..rank {
                let dim = c.signed(d, rank);
                for keep in [true, false] {
                    if x.dense.shape[d] == 0 && which == 2 {
                        rejects(name, (ops.dim)(&x.view, dim, keep));
                        continue;
                    } else if x.dense.shape[d] == 0 {
                        rejects(name, (ops.arg_dim)(&x.view, dim, keep));
                        continue;
                    }
                    let mut groups = x.dense.groups(|k| k == d);
                    if !keep {
                        groups = groups.without(|k| k == d);
                    }
                    let positions = groups.map(|x| position(&x));
                    if which == 2 {
                        let (values, index) = (ops.dim)(&x.view, dim, keep).unwrap();
                        same(&values, &groups.map(|x| pick(&x)));
                        same(&index, &positions);
                    } else {
                        same(&(ops.arg_dim)(&x.view, dim, keep).unwrap(), &positions);
                    }
                }
            }
        }
    }
    x.check();
}

fn all_extrema(case: &mut Case, largest: bool, which: usize) {
    fn check<T: Number + Sample>(case: &mut Case, largest: bool, which: usize) {
        for fill in [integers as Fill<T>, with_nan, special, T::any] {
            let x = case.twin(fill);
            extrema(&x, &mut case.choices, largest, which);
        }
    }
    check::<f32>(case, largest, which);
    check::<f64>(case, largest, which);
    check::<i64>(case, largest, which);
    check::<u8>(case, largest, which);
}

/// Sums to what broadcasts to the shape.
pub(crate) fn sum_to<T: Float + Sample>(x: &Twin<T>, c: &mut Choices, exact: bool) {
    let shape = c.reduced(&x.dense.shape);
    let lead = x.dense.shape.len() - shape.len();
    let groups = x.dense.groups(|d| d < lead || shape[d - lead] == 1);
    let want = groups.with_shape(&shape).map(|group| {
        summed::<T>(&group.into_iter().map(Sample::number).collect::<Vec<_>>(), exact)
    });
    let got = x.view.sum_to(&shape).unwrap();
    near(&got, &want.map(|(sum, _)| sum), |i, _| want.data[i].1);
    x.check();
}

fn sums_to<T: Float + Sample>(case: &mut Case) {
    for (fill, exact) in [(integers as Fill<T>, true), (reals, false), (special, false)] {
        let x = case.twin(fill);
        sum_to(&x, &mut case.choices, exact);
    }
    // Two of these are too much for a lane of `f32`, the sum of all four is not.
    let most = f64::from(f32::MAX);
    let x = Dense::build(&[4, 2], |i| T::sample(if i[0] < 2 { most } else { -most }));
    let zeros = Dense { shape: vec![1, 2], data: vec![T::ZERO; 2] };
    same(&Twin::of(x).view.sum_to(&[1, 2]).unwrap(), &zeros);
}

macro_rules! types {
    ($case:ident, $over:ident($op:ident): floats $float:ident, others $other:ident) => {{
        $float::<f32>($case, Over::$over(Tensor::$op));
        $float::<f64>($case, Over::$over(Tensor::$op));
        $other::<i64>($case, Over::$over(Tensor::$op));
        $other::<u8>($case, Over::$over(Tensor::$op));
        $other::<bool>($case, Over::$over(Tensor::$op));
    }};
}

fn plain_sums<T: Float + Sample>(case: &mut Case, op: Over<T, T>) {
    float_sums(case, op, false);
}

pub(crate) const TABLE: &[Oracle] = &[
    ("sum", |case| types!(case, All(sum): floats plain_sums, others counts)),
    ("sum_dim", |case| types!(case, Some(sum_dim): floats plain_sums, others counts)),
    ("prod", |case| types!(case, All(prod): floats products, others whole_products)),
    ("prod_dim", |case| types!(case, Some(prod_dim): floats products, others whole_products)),
    ("mean", |case| {
        float_sums::<f32>(case, Over::All(Tensor::mean), true);
        float_sums::<f64>(case, Over::All(Tensor::mean), true);
    }),
    ("mean_dim", |case| {
        float_sums::<f32>(case, Over::Some(Tensor::mean_dim), true);
        float_sums::<f64>(case, Over::Some(Tensor::mean_dim), true);
    }),
    ("all", |case| truth(case, Over::All(Tensor::all), |x| !x.contains(&false))),
    ("all_dim", |case| truth(case, Over::Some(Tensor::all_dim), |x| !x.contains(&false))),
    ("any", |case| truth(case, Over::All(Tensor::any), |x| x.contains(&true))),
    ("any_dim", |case| truth(case, Over::Some(Tensor::any_dim), |x| x.contains(&true))),
    ("max", |case| all_extrema(case, true, 0)),
    ("amax", |case| all_extrema(case, true, 1)),
    ("max_dim", |case| all_extrema(case, true, 2)),
    ("argmax", |case| all_extrema(case, true, 3)),
    ("argmax_dim", |case| all_extrema(case, true, 4)),
    ("min", |case| all_extrema(case, false, 0)),
    ("amin", |case| all_extrema(case, false, 1)),
    ("min_dim", |case| all_extrema(case, false, 2)),
    ("argmin", |case| all_extrema(case, false, 3)),
    ("argmin_dim", |case| all_extrema(case, false, 4)),
    ("sum_to", |case| {
        sums_to::<f32>(case);
        sums_to::<f64>(case);
    }),
];
