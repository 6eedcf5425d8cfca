//! Running sums and products, sorting, and counts.

use tensor::{Float, Result, Tensor};

use crate::reduce::whole;
use crate::twin::{
    Dense, Fill, Sample, Twin, integers, near, reals, same, special, ulp, wide, with_nan,
};
use crate::{Case, Oracle, rejects};

/// Each row along `d` through `f`, which may change its length.
fn along<T: Clone, U: Copy>(x: &Dense<T>, d: usize, f: impl Fn(Vec<T>) -> Vec<U>) -> Dense<U> {
    let rows = x.groups(|k| k == d).map(f);
    let mut shape = x.shape.clone();
    shape[d] = rows.data.first().map_or(shape[d], Vec::len);
    Dense::build(&shape, |index| {
        let mut row = index.to_vec();
        row[d] = 0;
        rows.at(&row)[index[d]]
    })
}

/// A running total in `f64` or `i64`.
fn running<T: Sample, A: Copy, U: Sample>(
    case: &mut Case,
    fills: &[Fill<T>],
    op: fn(&Tensor<T>, isize) -> Result<Tensor<U>>,
    start: A,
    step: fn(A, T) -> A,
    settle: fn(A) -> U,
) {
    let rank = case.rank();
    for &fill in fills {
        let x = case.twin(fill);
        for d in 0..rank {
            let want = along(&x.dense, d, |row| {
                let mut total = start;
                row.into_iter()
                    .map(|x| {
                        total = step(total, x);
                        settle(total)
                    })
                    .collect()
            });
            same(&op(&x.view, case.choices.signed(d, rank)).unwrap(), &want);
        }
        x.check();
    }
}

macro_rules! scans {
    ($case:ident $op:ident $start:expr, $float:expr, $integer:expr) => {{
        let (floats, start) = ([integers as Fill<f32>, reals, special], $start);
        running::<f32, f64, f32>(
            $case,
            &floats,
            Tensor::$op,
            f64::from(start as i32),
            $float,
            |x| x as f32,
        );
        let floats = [integers as Fill<f64>, reals, special];
        running::<f64, f64, f64>(
            $case,
            &floats,
            Tensor::$op,
            f64::from(start as i32),
            $float,
            |x| x,
        );
        running::<i64, i64, i64>($case, &[integers, i64::any], Tensor::$op, start, $integer, |x| x);
        running::<u8, i64, i64>($case, &[integers, u8::any], Tensor::$op, start, $integer, |x| x);
        running::<bool, i64, i64>($case, &[integers], Tensor::$op, start, $integer, |x| x);
    }};
}

fn linear_recurrence<T: Float + Sample>(case: &mut Case) {
    let rank = case.rank();
    for fill in [integers as Fill<T>, reals, special] {
        let (x, a) = (case.twin(fill), case.twin(fill));
        for d in 0..rank {
            let want = along(&x.dense.zip(&a.dense, |x, a| (x, a)), d, |row| {
                let mut before = None;
                row.into_iter()
                    .map(|(x, a)| {
                        let y = before.map_or(x.number(), |y: f64| x.number() + a.number() * y);
                        before = Some(y);
                        T::sample(y)
                    })
                    .collect()
            });
            let dim = case.choices.signed(d, rank);
            same(&x.view.linear_recurrence(&a.view, dim).unwrap(), &want);
            let wider = a.view.unsqueeze(0).unwrap();
            rejects("linear_recurrence", x.view.linear_recurrence(&wider, dim));
        }
        x.check();
        a.check();
    }
}

/// `ln Σ eˣ`, all of it anew.
fn log_sum<T: Sample>(row: &[T]) -> f64 {
    if row.iter().any(|x| x.number().is_nan()) {
        return f64::NAN;
    }
    let top = row.iter().fold(f64::NEG_INFINITY, |top, x| top.max(x.number()));
    let sum: f64 = row.iter().map(|x| (x.number() - top).exp()).sum();
    if top.is_infinite() { top } else { top + sum.ln() }
}

fn logcumsumexp<T: Float + Sample>(case: &mut Case) {
    let rank = case.rank();
    for fill in [reals as Fill<T>, wide, special] {
        let x = case.twin(fill);
        for d in 0..rank {
            let want = along(&x.dense, d, |row| {
                (1..=row.len()).map(|n| log_sum(&row[..n])).collect::<Vec<f64>>()
            });
            let got = x.view.logcumsumexp(case.choices.signed(d, rank)).unwrap();
            // Half an ulp of the result, and a few roundings of a sum of few terms in `f64`.
            near(&got, &want, |_, y| ulp::<T>(y) / 2.0 + 16.0 * f64::EPSILON * (1.0 + y.abs()));
        }
        x.check();
    }
}

/// The positions in order, by inserting one after another behind all that do not come after it.
fn ordered<T: Sample>(row: &[T], descending: bool) -> Vec<usize> {
    let nan = |x: T| x.number().is_nan();
    let below = |a: T, b: T| a < b || (nan(b) && !nan(a));
    let mut order: Vec<usize> = Vec::new();
    for i in 0..row.len() {
        let before = |&&k: &&usize| {
            if descending { !below(row[k], row[i]) } else { !below(row[i], row[k]) }
        };
        order.insert(order.iter().take_while(before).count(), i);
    }
    order
}

fn fills<T: Sample>() -> [Fill<T>; 4] {
    [integers, with_nan, special, T::any]
}

fn sorted<T: Sample>(case: &mut Case, check: impl Fn(&mut Case, &Twin<T>, usize, bool)) {
    for fill in fills::<T>() {
        let x = case.twin(fill);
        for d in 0..case.rank() {
            check(case, &x, d, true);
            check(case, &x, d, false);
        }
        x.check();
    }
}

fn sort<T: Sample>(case: &mut Case) {
    sorted::<T>(case, |case, x, d, descending| {
        let (values, positions) =
            x.view.sort(case.choices.signed(d, case.rank()), descending).unwrap();
        let by = |row: &[T]| ordered(row, descending);
        same(&values, &along(&x.dense, d, |row| by(&row).into_iter().map(|i| row[i]).collect()));
        same(
            &positions,
            &along(&x.dense, d, |row| by(&row).into_iter().map(|i| i as i64).collect()),
        );
    });
}

fn argsort<T: Sample>(case: &mut Case) {
    sorted::<T>(case, |case, x, d, descending| {
        let positions = x.view.argsort(case.choices.signed(d, case.rank()), descending).unwrap();
        let by = |row: &[T]| ordered(row, descending);
        same(
            &positions,
            &along(&x.dense, d, |row| by(&row).into_iter().map(|i| i as i64).collect()),
        );
    });
}

fn topk<T: Sample>(case: &mut Case) {
    sorted::<T>(case, |case, x, d, largest| {
        let (n, dim) = (case.shape[d], case.choices.signed(d, case.rank()));
        for k in [0, n, case.choices.below(n + 1)] {
            let (values, positions) = x.view.topk(k, dim, largest).unwrap();
            let by = |row: &[T]| ordered(row, largest).into_iter().take(k).collect::<Vec<_>>();
            let mut want = along(&x.dense, d, |row| by(&row).into_iter().map(|i| row[i]).collect());
            let mut at = along(&x.dense, d, |row| by(&row).into_iter().map(|i| i as i64).collect());
            // Where there are no rows at all, their length does not show.
            (want.shape[d], at.shape[d]) = (k, k);
            same(&values, &want);
            same(&positions, &at);
        }
        rejects("topk", x.view.topk(n + 1, dim, largest));
        rejects("topk", x.view.topk(usize::MAX, dim, largest));
    });
}

fn bincount(case: &mut Case) {
    let n = case.shape.iter().product();
    let x = Twin::<i64>::strided(&[n], case.choices.bits(), |bits| (bits % 12) as i64);
    for least in [0, 5, 30] {
        let most = x.dense.data.iter().max().map_or(0, |&most| most + 1);
        let counts = (0..most.max(least)).map(|i| x.dense.data.iter().filter(|&&x| x == i).count());
        let data: Vec<i64> = counts.map(|n| n as i64).collect();
        let want = Dense { shape: vec![data.len()], data };
        same(&x.view.bincount(least as usize).unwrap(), &want);
    }
    x.check();
    let y = case.twin::<i64>(integers);
    if case.rank() != 1 || y.dense.data.iter().any(|&y| y < 0) {
        rejects("bincount", y.view.bincount(0));
    }
}

macro_rules! all_types {
    ($($name:ident)+) => {
        [$((stringify!($name), |case| {
            $name::<f32>(case);
            $name::<f64>(case);
            $name::<i64>(case);
            $name::<u8>(case);
            $name::<bool>(case);
        })),+]
    };
}

const SORTS: [Oracle; 3] = all_types! { sort argsort topk };

pub(crate) const TABLE: &[Oracle] = &[
    SORTS[0],
    SORTS[1],
    SORTS[2],
    (
        "cumsum",
        |case| scans!(case cumsum 0_i64, |a, x| a + x.number(), |a, x| a.wrapping_add(whole(x))),
    ),
    (
        "cumprod",
        |case| scans!(case cumprod 1_i64, |a, x| a * x.number(), |a, x| a.wrapping_mul(whole(x))),
    ),
    ("bincount", bincount),
    ("linear_recurrence", |case| {
        linear_recurrence::<f32>(case);
        linear_recurrence::<f64>(case);
    }),
    ("logcumsumexp", |case| {
        logcumsumexp::<f32>(case);
        logcumsumexp::<f64>(case);
    }),
];
