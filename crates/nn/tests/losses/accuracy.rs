//! How exact the losses are in f32, on families of inputs: few classes and many, confident rows, large
//! offsets, a class dim that is not the last.
//!
//! `data/pytorch_accuracy.py` measures PyTorch on the same numbers; docs/NUMERICS.md has both. Bounds
//! and errors are in units of u = 2⁻²⁴. Printed with `--nocapture`.

use autograd::ClassOptions;
use nn::prelude::*;

use crate::{classes, floats};

const U: f64 = 5.960_464_477_539_063e-8;
/// Values below this lose digits to the range of f32.
const SMALLEST: f64 = 7.5e-37; // 2⁻¹²⁰
const SMOOTHING: f64 = 0.1;

const LOGSUMEXP: f64 = 2.0;
const LOG_SOFTMAX: f64 = 8.0;
const SOFTMAX: f64 = 6.0;
const LOSS: f64 = 4.0;
const MEAN: f64 = 1.5;
const OTHERS: f64 = 6.0;
const TARGET: f64 = 6.0;
const ROW_SUM: f64 = 2.0;
/// In units of `Σ c·|ln p|`.
const SMOOTHED: f64 = 4.0;

/// Element i of stream `seed`: the sum of four 16-bit numbers of a hash, nearly standard normal, and
/// exact wherever it is computed in f64.
fn z(seed: u64, i: u64) -> f64 {
    let mut x = (seed << 32).wrapping_add(i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^= x >> 31;
    let sum: u64 = (0..4).map(|f| (x >> (16 * f)) & 0xffff).sum();
    (sum as f64 - 131_070.0) / 37_837.0
}

struct Family {
    name: &'static str,
    scale: f64,
    offset: f64,
    gap: Option<f64>,
    strided: bool,
}

fn families() -> Vec<Family> {
    let of = |name, scale, offset| Family { name, scale, offset, gap: None, strided: false };
    let gap = |name, gap| Family { gap: Some(gap), ..of(name, 1.0, 0.0) };
    vec![
        of("N(0,4)", 2.0, 0.0),
        of("N(0,1e-4)", 0.01, 0.0),
        of("N(0,900)", 30.0, 0.0),
        of("offset 1e4", 1.0, 1e4),
        of("offset 1e8", 16.0, 1e8),
        gap("gap 10", 10.0),
        gap("gap 17", 17.0),
        gap("gap 25", 25.0),
        gap("gap 60", 60.0),
        Family { strided: true, ..of("strided", 2.0, 0.0) },
    ]
}

impl Family {
    fn row(&self, r: usize, classes: usize, y: usize) -> Vec<f32> {
        let of = |k: usize| (self.scale * z(r as u64, k as u64) + self.offset) as f32;
        let mut x: Vec<f32> = (0..classes).map(of).collect();
        if let Some(gap) = self.gap {
            let others = x.iter().enumerate().filter(|&(k, _)| k != y).map(|(_, &v)| v);
            let most = others.fold(f32::NEG_INFINITY, f32::max);
            x[y] = (f64::from(most) + gap) as f32;
        }
        x
    }
}

/// Exact values of a row, in f64 without a difference of near numbers.
struct Exact {
    lse: f64,
    log_p: Vec<f64>,
    p: Vec<f64>,
    loss: f64,
    /// `1 − p_y`.
    miss: f64,
    smoothed: f64,
    smoothed_scale: f64,
}

fn exact(x: &[f32], y: usize) -> Exact {
    let classes = x.len();
    let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
    let top = (0..classes).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap();
    let e: Vec<f64> = x.iter().map(|v| (v - x[top]).exp()).collect();
    // Pairwise, so that f64 has digits to spare.
    let but = |k: usize| pairwise(&e[..k]) + pairwise(&e[k + 1..]);
    let (rest, total) = (but(top), but(top) + 1.0);
    let above = rest.ln_1p();
    let log_p: Vec<f64> = x.iter().map(|v| (v - x[top]) - above).collect();
    let others = but(y);
    let loss = if y == top { above } else { above + (x[top] - x[y]) };
    let c = |k: usize| if k == y { 1.0 - SMOOTHING } else { 0.0 } + SMOOTHING / classes as f64;
    let terms: Vec<f64> = (0..classes).map(|k| c(k) * -log_p[k]).collect();
    Exact {
        lse: x[top] + above,
        p: e.iter().map(|e| e / total).collect(),
        loss,
        miss: others / total,
        smoothed: pairwise(&terms),
        smoothed_scale: pairwise(&terms),
        log_p,
    }
}

fn pairwise(x: &[f64]) -> f64 {
    if x.len() <= 32 {
        return x.iter().sum();
    }
    let (a, b) = x.split_at(x.len() / 2);
    pairwise(a) + pairwise(b)
}

/// The largest errors of one family and number of classes.
#[derive(Default)]
struct Worst {
    lse: f64,
    log_softmax: f64,
    softmax: f64,
    loss: f64,
    mean: f64,
    others: f64,
    target: f64,
    row_sum: f64,
    smoothed: f64,
}

fn raise(worst: &mut f64, got: f64, want: f64, scale: f64) {
    assert!(got.is_finite(), "{got} for {want:e}"); // `max` passes over NaN
    if scale.abs() < SMALLEST {
        // Below the range of full digits: what is smaller than a normal number may be 0.
        let bound = f64::from(f32::MIN_POSITIVE) + 8.0 * U * want.abs();
        assert!((got - want).abs() <= bound, "{got:e} for {want:e}");
        return;
    }
    *worst = worst.max((got - want).abs() / scale.abs() / U);
}

fn measure(family: &Family, c: usize) -> Worst {
    let rows = if c <= 1000 { 64 } else { 16 };
    let y: Vec<usize> = (0..rows).map(|r| 7919 * (r + 1) % c).collect();
    let data: Vec<Vec<f32>> = (0..rows).map(|r| family.row(r, c, y[r])).collect();
    let x = Tensor::from_vec(data.concat(), [rows, c]).unwrap();
    let targets: Vec<i64> = y.iter().map(|&y| y as i64).collect();
    let (x, t) = if family.strided {
        let across = x.transpose(0, 1).unwrap().contiguous().unsqueeze(0).unwrap();
        (across, classes(&targets, &[1, rows]))
    } else {
        (x, classes(&targets, &[rows]))
    };
    // Rows first again, whatever the layout.
    let by_row = |x: &Tensor<f32>| -> Vec<f64> {
        if family.strided {
            floats(&x.squeeze(0).unwrap().transpose(0, 1).unwrap())
        } else {
            floats(x)
        }
    };
    let v = Tape::new().var(x.clone());
    let none = ClassOptions { reduction: Reduction::None, ..Default::default() };
    let lse = floats(v.logsumexp_dim(&[1], false).unwrap().value());
    let log_p = by_row(v.log_softmax(1).unwrap().value());
    let p = by_row(v.softmax(1).unwrap().value());
    let smoothed = ClassOptions { label_smoothing: SMOOTHING, ..none.clone() };
    let smoothed = floats(v.cross_entropy(&t, &smoothed).unwrap().value());
    let mean = v.cross_entropy(&t, &ClassOptions::default()).unwrap().item().unwrap();
    let loss = v.cross_entropy(&t, &none).unwrap();
    let losses = floats(loss.value());
    let ones = loss.value().ones_like();
    let dx = by_row(loss.backward_with(&ones).unwrap().wrt(&v).unwrap());

    let mut worst = Worst::default();
    let mut sum = 0.0;
    for r in 0..rows {
        let (want, y, range) = (exact(&data[r], y[r]), y[r], r * c..(r + 1) * c);
        sum += want.loss;
        raise(&mut worst.lse, lse[r], want.lse, want.lse);
        raise(&mut worst.loss, losses[r], want.loss, want.loss);
        raise(&mut worst.smoothed, smoothed[r], want.smoothed, want.smoothed_scale);
        let (p, dx) = (&p[range.clone()], &dx[range.clone()]);
        let log_p = &log_p[range];
        for k in 0..c {
            raise(&mut worst.log_softmax, log_p[k], want.log_p[k], want.log_p[k]);
            raise(&mut worst.softmax, p[k], want.p[k], want.p[k]);
            if k == y {
                raise(&mut worst.target, dx[k], -want.miss, want.miss);
            } else {
                raise(&mut worst.others, dx[k], want.p[k], want.p[k]);
            }
        }
        let size: f64 = dx.iter().map(|g| g.abs()).sum();
        raise(&mut worst.row_sum, dx.iter().sum(), 0.0, size);
    }
    let want = sum / rows as f64;
    raise(&mut worst.mean, f64::from(mean), want, want);
    worst
}

#[test]
fn errors_stay_within_a_few_units_on_every_family() {
    println!(
        "| C | family | logsumexp | log_softmax | softmax | loss | mean | dx others | dx target | row sum | smoothed |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let mut failed = Vec::new();
    for c in [10, 1000, 32_768, 131_072] {
        for family in families() {
            let w = measure(&family, c);
            let all = [
                (w.lse, LOGSUMEXP),
                (w.log_softmax, LOG_SOFTMAX),
                (w.softmax, SOFTMAX),
                (w.loss, LOSS),
                (w.mean, MEAN),
                (w.others, OTHERS),
                (w.target, TARGET),
                (w.row_sum, ROW_SUM),
                (w.smoothed, SMOOTHED),
            ];
            let cells: Vec<String> = all.iter().map(|(error, _)| format!("{error:.2}")).collect();
            println!("| {c} | {} | {} |", family.name, cells.join(" | "));
            if all.iter().any(|(error, bound)| error > bound) {
                failed.push((c, family.name, cells));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn the_inputs_are_those_of_the_script() {
    let bits: Vec<u32> = families()[0].row(0, 10, 9)[..4].iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, [0x4036_dd49, 0x3e8e_7d36, 0xc03a_038f, 0x400f_4388]);
    assert_eq!(z(0, 0), 1.428_628_062_478_526_4);
}
