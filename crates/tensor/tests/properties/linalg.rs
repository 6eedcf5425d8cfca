//! Matrix products of small integers: exact but for the sign of 0, whatever the order of the sum.

use tensor::Float;

use crate::twin::{Choices, Dense, Sample, Twin, broadcast, integers, near};
use crate::{Case, Oracle};

pub(crate) const TABLE: &[Oracle] = &[
    ("matmul", |case| {
        let (lead, sizes) = sizes(case);
        matmul::<f32>(&lead, sizes, &mut case.choices);
        matmul::<f64>(&lead, sizes, &mut case.choices);
    }),
    ("linear", |case| {
        let (lead, sizes) = sizes(case);
        linear::<f32>(&lead, sizes, &mut case.choices);
        linear::<f64>(&lead, sizes, &mut case.choices);
    }),
];

fn sizes(case: &mut Case) -> (Vec<usize>, [usize; 3]) {
    let lead = case.shape.iter().copied().take(3).map(|n| n.min(3)).collect();
    (lead, [(); 3].map(|()| case.choices.below(20)))
}

/// `[.., M, K] · [.., K, N]`.
pub(crate) fn product(x: &Dense<f64>, y: &Dense<f64>) -> Dense<f64> {
    let (lead, k) = (x.shape.len() - 2, x.shape[x.shape.len() - 1]);
    let mut shape = broadcast(&x.shape[..lead], &y.shape[..y.shape.len() - 2]);
    let rank = shape.len();
    shape.extend([x.shape[lead], y.shape[y.shape.len() - 1]]);
    Dense::build(&shape, |i| {
        let (mut l, mut r) = (i.to_vec(), i.to_vec());
        (0..k).fold(0.0, |sum, k| {
            (l[rank + 1], r[rank]) = (k, k);
            sum + x.at(&l) * y.at(&r)
        })
    })
}

pub(crate) fn numbers<T: Sample>(x: &Twin<T>) -> Dense<f64> {
    x.dense.map(Sample::number)
}

pub(crate) fn matmul<T: Float + Sample>(lead: &[usize], [m, k, n]: [usize; 3], c: &mut Choices) {
    let a = Twin::<T>::strided(&[c.reduced(lead), vec![m, k]].concat(), c.bits(), integers);
    let b = Twin::<T>::strided(&[c.reduced(lead), vec![k, n]].concat(), c.bits(), integers);
    let [row, column] = [0, 1].map(|_| Twin::<T>::strided(&[k], c.bits(), integers));
    let (x, y) = (numbers(&row).with_shape(&[1, k]), numbers(&column).with_shape(&[k, 1]));
    let without = |mut want: Dense<f64>, from_end: usize| {
        want.shape.remove(want.shape.len() - from_end);
        want
    };
    for (l, r, want) in [
        (&a, &b, product(&numbers(&a), &numbers(&b))),
        (&row, &b, without(product(&x, &numbers(&b)), 2)),
        (&a, &column, without(product(&numbers(&a), &y), 1)),
        (&row, &column, product(&x, &y).with_shape(&[])),
    ] {
        near(&l.view.matmul(&r.view).unwrap(), &want, |_, _| 0.0);
        l.check();
        r.check();
    }
}

pub(crate) fn linear<T: Float + Sample>(lead: &[usize], [_, k, n]: [usize; 3], c: &mut Choices) {
    let (shape, rows) = ([lead, &[k]].concat(), lead.iter().product());
    let [x, w, b] = [&shape[..], &[n, k], &[n]].map(|s| Twin::<T>::strided(s, c.bits(), integers));
    let xw = product(&numbers(&x).with_shape(&[rows, k]), &numbers(&w.permute(&[1, 0])));
    let xw = xw.with_shape(&[lead, &[n]].concat());
    near(&x.view.linear(&w.view, None).unwrap(), &xw, |_, _| 0.0);
    let want = xw.zip(&numbers(&b), |xw, b| xw + b);
    near(&x.view.linear(&w.view, Some(&b.view)).unwrap(), &want, |_, _| 0.0);
    x.check();
    w.check();
    b.check();
}
