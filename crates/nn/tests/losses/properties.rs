//! What must hold of cross entropy whatever the numbers are.

use autograd::{ClassOptions, Target, grad};
use nn::prelude::*;
use proptest::prelude::*;

use crate::{classes, floats, of_classes, of_probabilities, roundoff, tensor, weights};

/// Logits on a grid of 1/64, so that sums with whole offsets are exact in f32.
#[derive(Clone, Debug)]
struct Batch {
    n: usize,
    c: usize,
    x: Vec<f64>,
    t: Vec<i64>,
    q: Vec<f64>,
    w: Vec<f64>,
    smoothing: f64,
}

fn batches() -> impl Strategy<Value = Batch> {
    (1_usize..5, 1_usize..20).prop_flat_map(|(n, c)| {
        let grid = |range: std::ops::Range<i32>, len| {
            prop::collection::vec(range.prop_map(|v| f64::from(v) / 64.0), len)
        };
        (
            grid(-1500..1500, n * c),
            prop::collection::vec(0..c as i64, n),
            grid(0..64, n * c),
            grid(0..128, c),
            prop::sample::select(vec![0.0, 0.125, 1.0]),
        )
            .prop_map(move |(x, t, q, w, smoothing)| Batch { n, c, x, t, q, w, smoothing })
    })
}

impl Batch {
    fn logits<T: Float>(&self) -> Tensor<T> {
        tensor(&self.x, &[self.n, self.c])
    }

    fn targets(&self) -> Tensor<i64> {
        classes(&self.t, &[self.n])
    }

    fn options<T: Float>(&self, reduction: Reduction, weighted: bool) -> ClassOptions<T> {
        ClassOptions {
            weight: weighted.then(|| tensor(&self.w, &[self.c])),
            reduction,
            label_smoothing: self.smoothing,
            ..Default::default()
        }
    }
}

fn assert_close<T: Float>(got: &[f64], want: &[f64], scale: f64, units: f64) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        let error = (g - w).abs();
        assert!(error <= units * roundoff::<T>() * (scale + w.abs()), "{got:?}, expected {want:?}");
    }
}

/// Each row of the gradient sums to 0, within 2 u of its magnitude (without weights and smoothing).
fn rows_sum_to_zero<T: Float>(b: &Batch) {
    let (_, dx) = of_classes(&b.logits::<T>(), &b.targets(), &b.options(Reduction::None, false));
    let (_, dw) = of_classes(&b.logits::<T>(), &b.targets(), &b.options(Reduction::Sum, true));
    let most = b.w.iter().copied().fold(0.0, f64::max);
    for (row, weighted) in dx.chunks(b.c).zip(dw.chunks(b.c)) {
        let size: f64 = row.iter().map(|g| g.abs()).sum();
        let units = if b.smoothing == 0.0 { 2.0 } else { 12.0 };
        assert!(row.iter().sum::<f64>().abs() <= units * roundoff::<T>() * size, "{row:?}");
        let bound = 12.0 * roundoff::<T>() * 2.0 * most * b.c as f64;
        assert!(weighted.iter().sum::<f64>().abs() <= bound, "{weighted:?}");
    }
}

fn shifts_do_not_matter<T: Float>(b: &Batch, offset: f64) {
    let o = b.options(Reduction::None, true);
    let (loss, dx) = of_classes(&b.logits::<T>(), &b.targets(), &o);
    let moved: Vec<f64> = b.x.iter().map(|x| x + offset).collect();
    let (l, d) = of_classes(&tensor::<T>(&moved, &[b.n, b.c]), &b.targets(), &o);
    assert_close::<T>(&l, &loss, 0.0, 8.0);
    assert_close::<T>(&d, &dx, 4.0, 12.0);
}

fn classes_can_be_reordered<T: Float>(b: &Batch, rotate: usize) {
    let turn = rotate % b.c;
    let rows = |x: &[f64]| -> Vec<f64> {
        x.chunks(b.c).flat_map(|r| [&r[turn..], &r[..turn]].concat()).collect()
    };
    let (c, shift) = (b.c as i64, turn as i64);
    let turned = Batch {
        x: rows(&b.x),
        w: rows(&b.w),
        t: b.t.iter().map(|t| (t - shift).rem_euclid(c)).collect(),
        ..b.clone()
    };
    let run =
        |b: &Batch| of_classes(&b.logits::<T>(), &b.targets(), &b.options(Reduction::None, true));
    let ((loss, dx), (l, d)) = (run(b), run(&turned));
    assert_close::<T>(&l, &loss, 0.0, 8.0);
    assert_close::<T>(&d, &rows(&dx), 4.0, 12.0);
}

/// `[N, C, n]` is the same as its rows, bit for bit.
fn further_dims_are_rows<T: Float>(b: &Batch) {
    for reduction in [Reduction::None, Reduction::Mean] {
        let o = b.options(reduction, true);
        let rows = of_classes(&b.logits::<T>(), &b.targets(), &o);
        let across = b.logits::<T>().transpose(0, 1).unwrap().unsqueeze(0).unwrap();
        let target = b.targets().unsqueeze(0).unwrap();
        for x in [across.contiguous(), across] {
            let (loss, dx) = of_classes(&x, &target, &o);
            let back = tensor::<T>(&dx, &[b.c, b.n]).transpose(0, 1).unwrap();
            let same = |a: &[f64], b: &[f64]| {
                a.iter().zip(b).all(|(a, b)| a == b || a.is_nan() && b.is_nan())
            };
            assert!(same(&loss, &rows.0) && same(&floats(&back), &rows.1));
        }
    }
}

/// Probabilities of one class are its index, and smoothed targets are the smoothed probabilities.
fn targets_can_be_written_out<T: Float>(b: &Batch) {
    let mut one_hot = vec![0.0; b.n * b.c];
    for (r, &t) in b.t.iter().enumerate() {
        one_hot[r * b.c + t as usize] = 1.0;
    }
    let q = tensor::<T>(&one_hot, &[b.n, b.c]);
    let spread = |q: f64| (1.0 - b.smoothing) * q + b.smoothing / b.c as f64;
    let smoothed: Vec<f64> = one_hot.iter().map(|&q| spread(q)).collect();
    let smoothed = tensor::<T>(&smoothed, &[b.n, b.c]);
    for reduction in [Reduction::None, Reduction::Sum] {
        let o = b.options(reduction, true);
        let (loss, dx) = of_classes(&b.logits::<T>(), &b.targets(), &o);
        let (l, d, _) = of_probabilities(&b.logits::<T>(), &q, &o);
        assert_close::<T>(&l, &loss, 0.0, 10.0);
        assert_close::<T>(&d, &dx, 4.0, 12.0);
        let plain = ClassOptions { label_smoothing: 0.0, ..b.options(reduction, false) };
        let (loss, dx) = of_classes(&b.logits::<T>(), &b.targets(), &b.options(reduction, false));
        let (l, d, _) = of_probabilities(&b.logits::<T>(), &smoothed, &plain);
        assert_close::<T>(&l, &loss, 0.0, 10.0);
        assert_close::<T>(&d, &dx, 1.0, 12.0);
    }
}

/// An ignored row is no row, and so is one of weight 0; a weight of 2 is the row twice.
fn ignored_rows_are_no_rows<T: Float>(b: &Batch) {
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let o = b.options::<T>(reduction, true);
        let (want, dw) = of_classes(&b.logits::<T>(), &b.targets(), &o);
        let x = tensor::<T>(&[&b.x[..b.c], &b.x[..]].concat(), &[b.n + 1, b.c]);
        let first = b.t[0];
        let ignored = classes(&[&[-100], &b.t[..]].concat(), &[b.n + 1]);
        let (loss, dx) = of_classes(&x, &ignored, &o);
        let same = |a: &[f64], b: &[f64]| a == b || a[0].is_nan() && b[0].is_nan();
        assert!(same(&loss, &want) && dx[..b.c].iter().all(|&g| g == 0.0) && dx[b.c..] == dw[..]);
        // Row weights: [0, 1, 1, ..] and, without the copy, [2, 1, ..] for the first row twice.
        let t = classes(&[&[first], &b.t[..]].concat(), &[b.n + 1]);
        let mut row = vec![1.0; b.n + 1];
        row[0] = 0.0;
        let row = tensor::<T>(&row, &[b.n + 1]);
        let found =
            Var::constant(x.clone()).cross_entropy_detailed(&t, &weights(&row), &o).unwrap();
        assert!(same(&floats(found.loss.value()), &want));
        let (twice, _) = of_classes(&x, &t, &o);
        let mut row = vec![1.0; b.n];
        row[0] = 2.0;
        let row = tensor::<T>(&row, &[b.n]);
        let v = Var::constant(b.logits::<T>());
        let found = v.cross_entropy_detailed(&b.targets(), &weights(&row), &o).unwrap();
        let got = floats(found.loss.value());
        assert!(got[0].is_nan() == twice[0].is_nan());
        if !got[0].is_nan() {
            assert_close::<T>(&got, &twice, 0.0, 8.0);
        }
    }
}

fn a_weighted_mean_is_the_sum_over_the_weights<T: Float>(b: &Batch) {
    let (each, _) = of_classes(&b.logits::<T>(), &b.targets(), &b.options(Reduction::None, true));
    let (mean, _) = of_classes(&b.logits::<T>(), &b.targets(), &b.options(Reduction::Mean, true));
    let total: f64 = b.t.iter().map(|&t| b.w[t as usize]).sum();
    if total == 0.0 {
        assert!(mean[0].is_nan());
    } else {
        assert_close::<T>(&mean, &[each.iter().sum::<f64>() / total], 0.0, 4.0);
    }
}

/// Micro-batches with an explicit divisor have the gradient of the whole batch, bit for bit.
fn micro_batches_add_up<T: Float>(b: &Batch) {
    let total: f64 = b.t.iter().map(|&t| b.w[t as usize]).sum();
    if total == 0.0 {
        return;
    }
    let (_, whole) = of_classes(&b.logits::<T>(), &b.targets(), &b.options(Reduction::Mean, true));
    let o = b.options(Reduction::Divisor(total), true);
    let mut parts = Vec::new();
    for r in 0..b.n {
        let row = tensor::<T>(&b.x[r * b.c..(r + 1) * b.c], &[1, b.c]);
        parts.extend(of_classes(&row, &classes(&b.t[r..=r], &[1]), &o).1);
    }
    assert_eq!(parts, whole);
}

/// The fused node and the composition through a copy agree: 12 u in the loss, 6 u of the scale in the
/// gradient for each of the two.
fn composed_agrees<T: Float>(b: &Batch) {
    let o = b.options::<T>(Reduction::None, true);
    let (loss, dx) = of_classes(&b.logits::<T>(), &b.targets(), &o);
    let v = Tape::new().var(b.logits::<T>());
    let copied = v.log_softmax(1).unwrap() * T::ONE;
    let nll = copied.nll_loss(&b.targets(), &o).unwrap();
    assert_close::<T>(&floats(nll.value()), &loss, 0.0, 12.0);
    let ones = nll.value().ones_like();
    let d = floats(nll.backward_with(&ones).unwrap().wrt(&v).unwrap());
    let most = b.w.iter().copied().fold(0.0, f64::max);
    assert_close::<T>(&d, &dx, most * 2.0, 12.0);
}

/// `d loss/d q`, `d loss/d w` and their sums against the definitions.
fn gradients_in_targets_and_weights<T: Float>(b: &Batch) {
    let tape = Tape::new();
    let v = tape.var(b.logits::<T>());
    let w = tape.var(tensor::<T>(&b.w, &[b.c]));
    let by_class = BatchWeights { row: None, class: Some(&w) };
    let o = b.options::<T>(Reduction::Sum, false);
    let log_p: Vec<f64> = b.x.chunks(b.c).flat_map(nn::reference::log_softmax).collect();
    let q = Var::constant(tensor::<T>(&b.q, &[b.n, b.c]));
    for hard in [true, false] {
        let targets = b.targets();
        let target = if hard { Target::Classes(&targets) } else { Target::from(&q) };
        let found = v.cross_entropy_detailed(target, &by_class, &o).unwrap();
        let g = grad(&[&found.loss], &[&w], &[], false).unwrap()[0].clone().unwrap();
        for (k, got) in floats(g.value()).into_iter().enumerate() {
            let share = |r: usize| {
                let own =
                    if hard { f64::from(u8::from(b.t[r] == k as i64)) } else { b.q[r * b.c + k] };
                (1.0 - b.smoothing) * own + b.smoothing / b.c as f64
            };
            let want: f64 = (0..b.n).map(|r| -share(r) * log_p[r * b.c + k]).sum();
            let bound = 16.0 * (roundoff::<T>() + 1.2e-16) * want.abs() + 1e-300;
            assert!((got - want).abs() <= bound, "{got} {want}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn properties_in_f32(b in batches(), offset in -4000_i32..4000, rotate in 0_usize..20) {
        all::<f32>(&b, f64::from(offset), rotate);
    }

    #[test]
    fn properties_in_f64(b in batches(), offset in -4_000_000_i32..4_000_000, rotate in 0_usize..20) {
        all::<f64>(&b, f64::from(offset), rotate);
    }
}

fn all<T: Float>(b: &Batch, offset: f64, rotate: usize) {
    rows_sum_to_zero::<T>(b);
    shifts_do_not_matter::<T>(b, offset);
    classes_can_be_reordered::<T>(b, rotate);
    further_dims_are_rows::<T>(b);
    targets_can_be_written_out::<T>(b);
    ignored_rows_are_no_rows::<T>(b);
    a_weighted_mean_is_the_sum_over_the_weights::<T>(b);
    micro_batches_add_up::<T>(b);
    composed_agrees::<T>(b);
    gradients_in_targets_and_weights::<T>(b);
}
