//! Softmax, its logarithm, and weighted log-likelihoods of classes, along any dim of a tensor. The
//! numerics are those of the kernels in `exponentials`.

use super::exponentials::{Block, Factors, GradientRows, LogRows, Pick, RowScale, SumRows, logs};
use super::rows::{Rows, for_each_task};
use crate::element::Float;
use crate::tensor::Tensor;

pub use super::exponentials::RowSums;

/// Log of the softmax along `dim`, and the numbers of each row. `dim` is in range.
///
/// Every entry is accurate, the largest too: it is `−log1p(rest/top)` of its row.
pub fn log_softmax<T: Float>(x: &Tensor<T>, dim: usize) -> (Tensor<T>, Vec<RowSums>) {
    let rows = Rows::new(x, dim);
    let mut sums = vec![RowSums::default(); rows.count];
    let y = rows.build(dim, |out| {
        rows.for_each_block(&mut sums, out, |x, _, sums, out| {
            T::softmax_sums(SumRows { x, pick: Pick::Max, below: None }, sums, &mut []);
            let logs: Vec<(T, T)> = (sums.iter().zip(logs(sums, |s| s.rest / s.top)))
                .map(|(s, log)| (T::from_f64(s.max), T::from_f64(log)))
                .collect();
            T::softmax_log(LogRows { x, rows: &logs, out });
        });
    });
    (y, sums)
}

/// `ln Σ_k exp(x_k)` of each row along `dim`, in `f64`; −∞ where the dim is empty. `dim` is in range.
pub(crate) fn logsumexp<T: Float>(x: &Tensor<T>, dim: usize) -> Vec<f64> {
    let rows = Rows::new(x, dim);
    let mut numbers = vec![f64::NEG_INFINITY; rows.count];
    rows.for_each_block(&mut numbers, &mut [], |x, _, part, _| {
        let mut sums = vec![RowSums::default(); part.len()];
        T::softmax_sums(SumRows { x, pick: Pick::Max, below: None }, &mut sums, &mut []);
        let logs = logs(&sums, |s| s.rest / s.top);
        for ((number, s), log) in part.iter_mut().zip(sums).zip(logs) {
            // The largest says which it is: NaN, +∞, or nothing but −∞.
            *number = if s.rest.is_nan() { s.max } else { s.max + log };
        }
    });
    numbers
}

/// Softmax along `dim`. `dim` is in range.
pub fn softmax<T: Float>(x: &Tensor<T>, dim: usize) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let mut sums = vec![RowSums::default(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_block(&mut sums, out, |x, _, sums, out| {
            T::softmax_sums(SumRows { x, pick: Pick::Max, below: None }, sums, out);
            let scales: Vec<_> =
                sums.iter().map(|s| s.scale(1.0 / (s.rest + s.picked), 0.0)).collect();
            // The one entry above ½ is rounded once: exactly 1 for a single class.
            scaled_block((x, true), &scales, Factors::One, out, |r| {
                let s = &sums[r];
                Some((s.dominant(x.row(r))?, s.picked / (s.rest + s.picked)))
            });
        });
    })
}

/// `g − softmax(x)·Σ g` along `dim`, given the numbers that [`log_softmax`] returned for `x`.
///
/// For the entry with p > ½ it is `(1 − p)·g − p·Σ_others g`, with `1 − p = rest/(rest + top)`.
pub fn log_softmax_backward<T: Float>(
    g: &Tensor<T>,
    x: &Tensor<T>,
    dim: usize,
    sums: &[RowSums],
) -> Tensor<T> {
    let (rows, g_rows) = (Rows::new(x, dim), Rows::new(g, dim));
    rows.build(dim, |out| {
        rows.for_each_block(&mut vec![(); rows.count], out, |x, first, part, out| {
            let mut scratch = Vec::new();
            let g = g_rows.block(first, part.len(), &mut scratch);
            let sums = &sums[first..first + part.len()];
            // A row without upstream gradient is not read.
            let scale = |(r, s): (usize, &RowSums)| match T::sum_slice(g.row(r)) {
                0.0 if g.row(r).iter().all(|&g| g == T::ZERO) => None,
                sum => s.scale(-sum / (s.rest + s.picked), 1.0),
            };
            let scales: Vec<_> = sums.iter().enumerate().map(scale).collect();
            scaled_block((x, false), &scales, Factors::Rows(g), out, |r| {
                let (s, g) = (&sums[r], g.row(r));
                let top = s.dominant(x.row(r))?;
                let others = T::sum_slice(&g[..top]) + T::sum_slice(&g[top + 1..]);
                Some((top, (s.rest * g[top].to_f64() - s.picked * others) / (s.rest + s.picked)))
            });
        });
    })
}

/// `f·e_k + c·b_k` for some rows, with f and c from `scales`; the entry that
/// `patch(row)` names has the value given there instead. Rows without scale are 0 and not read. `kept`:
/// `out` has what the sums kept.
fn scaled_block<T: Float>(
    (x, kept): (Block<'_, T>, bool),
    scales: &[RowScale<T>],
    b: Factors<'_, T>,
    out: &mut [T],
    patch: impl Fn(usize) -> Option<(usize, f64)>,
) {
    T::softmax_gradient(GradientRows { x, scales, b, out, kept });
    for ((r, scale), out) in scales.iter().enumerate().zip(out.chunks_exact_mut(x.classes)) {
        if scale.is_some()
            && let Some((k, value)) = patch(r)
        {
            out[k] = T::from_f64(value);
        }
    }
}

/// Class targets of rows: `c_k = (1−ε)·w_y·[k = y] + (ε/C)·w_k`.
#[derive(Clone, Copy, Debug)]
pub struct ClassTargets<'a, T> {
    /// The class of each row, below the number of classes; negative: the row does not count.
    pub classes: &'a [i64],
    /// A factor for each class, at least 0.
    pub weight: Option<&'a [T]>,
    /// ε, in [0, 1].
    pub label_smoothing: f64,
    /// Whether [`LossRow::correct`] is wanted.
    pub predictions: bool,
}

/// `(hard, smooth, total weight W, a)` for a row of class y: `c_k = hard·[k = y] + smooth·w_k`,
/// `a = Σ c_k`.
pub(super) struct Coefficients<'a, T> {
    pub(super) targets: ClassTargets<'a, T>,
    pub(super) smooth: f64,
    total_weight: f64,
}

impl<'a, T: Float> Coefficients<'a, T> {
    pub(super) fn new(targets: ClassTargets<'a, T>, classes: usize) -> Self {
        let total_weight = match targets.weight {
            None => classes as f64,
            Some(w) => T::sum_slice(w),
        };
        let smooth = targets.label_smoothing / classes.max(1) as f64;
        Coefficients { targets, smooth, total_weight }
    }

    pub(super) fn weight(&self, class: usize) -> f64 {
        self.targets.weight.map_or(1.0, |w| w[class].to_f64())
    }

    fn hard(&self, class: usize) -> f64 {
        (1.0 - self.targets.label_smoothing) * self.weight(class)
    }

    /// a.
    pub(super) fn sum(&self, class: usize) -> f64 {
        self.hard(class) + if self.smooth == 0.0 { 0.0 } else { self.smooth * self.total_weight }
    }

    /// The weights of the smoothing part.
    fn weights(&self) -> Option<Factors<'a, T>> {
        (self.smooth != 0.0).then(|| self.targets.weight.map_or(Factors::One, Factors::Classes))
    }

    /// The losses of some rows; `keep` is for their exponentials, or empty.
    fn rows(&self, x: Block<'_, T>, first: usize, part: &mut [LossRow], keep: &mut [T]) {
        let classes = &self.targets.classes[first..first + part.len()];
        let mut sums = vec![RowSums::default(); part.len()];
        let rows = SumRows { x, pick: Pick::Class(classes), below: self.weights() };
        T::softmax_sums(rows, &mut sums, keep);
        let gaps = logs(&sums, |s| s.rest / s.picked);
        let above = if self.smooth == 0.0 { vec![] } else { logs(&sums, RowSums::above_top) };
        for ((r, row), sums) in part.iter_mut().enumerate().zip(sums) {
            let Ok(class) = usize::try_from(classes[r]) else { continue };
            let x = x.row(r);
            let largest = self.targets.predictions && x[class].to_f64() == sums.max;
            let correct = largest && !x[..class].contains(&x[class]);
            let above = above.get(r).copied().unwrap_or_default();
            let below = || below(x, &sums, |k| self.weight(k));
            let loss = self.loss((class, x[class].to_f64()), &sums, [gaps[r], above], below);
            *row = LossRow { loss, used: true, correct, a: self.sum(class), sums };
        }
    }

    /// The loss of a row with logit x at its class: `gap` is `ln(1 + rest/picked)`, `above` where there is
    /// smoothing `ln Σ exp − max`, `below` the sum of `w_k·(max − x_k)`.
    pub(super) fn loss(
        &self,
        (class, x): (usize, f64),
        s: &RowSums,
        [gap, above]: [f64; 2],
        below: impl FnOnce() -> f64,
    ) -> f64 {
        let (hard, smooth) = (self.hard(class), self.smooth);
        let mut loss = 0.0;
        if hard != 0.0 {
            // ln Σ exp − x_y, without a difference of large numbers.
            let gap = if s.picked >= f64::MIN_POSITIVE && gap < f64::INFINITY {
                gap
            } else {
                s.above_top().ln_1p() + (s.max - x)
            };
            loss += hard * gap;
        }
        if smooth != 0.0 {
            loss += smooth * (self.total_weight * above + below());
        }
        loss
    }

    /// The gradient in the logit of a row's class: `s·(W·p − w)·ε/C − s·hard·(1 − p) + t·p`. Without
    /// `spread` that part of w is left to the caller.
    pub(super) fn own(&self, class: usize, s: &RowSums, [f, t]: [f64; 2], spread: bool) -> f64 {
        // W·p − w, from the smaller of p and 1 − p: exactly 0 for a single class.
        let (w, all, total) = (self.weight(class), self.total_weight, s.rest + s.picked);
        let smooth = match self.smooth {
            0.0 => 0.0,
            smooth if !spread => smooth * (all * s.picked / total),
            smooth if s.rest > s.picked => smooth * (all * s.picked / total - w),
            smooth => smooth * ((all - w) - all * s.rest / total),
        };
        let own = f * (smooth - self.hard(class) * s.rest / total);
        if t == 0.0 { own } else { own + t * s.picked / total }
    }

    /// The gradients of some rows.
    fn gradients(
        &self,
        (x, rows, kept): (Block<'_, T>, &[LossRow], bool),
        first: usize,
        factors: &impl Fn(usize, &LossRow) -> (f64, f64),
        out: &mut [T],
    ) {
        let b = self.weights().unwrap_or(Factors::One);
        let scales = loss_scales(rows, first, self.smooth, factors);
        scaled_block((x, kept), &scales, b, out, |r| {
            let class = self.targets.classes[first + r] as usize;
            let (s, t) = factors(first + r, &rows[r]);
            Some((class, self.own(class, &rows[r].sums, [s, t], true)))
        });
    }
}

/// What a loss found in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossRow {
    /// `Σ_k c_k·(ln Σ exp(x_j) − x_k)`.
    pub loss: f64,
    /// Whether any coefficient is not 0; where not, the loss is 0 whatever the row holds.
    pub used: bool,
    /// Whether the target is the first of the largest, where that was asked.
    pub correct: bool,
    /// `Σ_k c_k`.
    pub a: f64,
    pub(super) sums: RowSums,
}

impl LossRow {
    /// `ln Σ exp(x_k)` of a row that is used.
    pub fn lse(&self) -> f64 {
        self.sums.max + self.sums.above_top().ln_1p()
    }
}

/// `(s·a + t)/S` and `−s·scale` of each row, where it is used and `(s, t)` from `factors` not 0.
pub(super) fn loss_scales<T: Float>(
    rows: &[LossRow],
    first: usize,
    scale: f64,
    factors: &impl Fn(usize, &LossRow) -> (f64, f64),
) -> Vec<RowScale<T>> {
    let of_row = |(r, row): (usize, &LossRow)| {
        let (s, t) = factors(first + r, row);
        let f = (s * row.a + t) / (row.sums.rest + row.sums.picked);
        if row.used && (s != 0.0 || t != 0.0) { row.sums.scale(f, -s * scale) } else { None }
    };
    rows.iter().enumerate().map(of_row).collect()
}

/// `a·ln Σ exp(x_k) − Σ c_k·x_k` of each row along `dim`, and what its gradient needs. Rows that do
/// not count have 0 and are not read. A term of weight 0 is 0 whatever its logit is.
pub fn cross_entropy<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
) -> Vec<LossRow> {
    let rows = Rows::new(x, dim);
    let c = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![LossRow::default(); rows.count];
    rows.for_each_block(&mut numbers, &mut [], |x, first, part, _| c.rows(x, first, part, &mut []));
    numbers
}

/// `(s·a + t)·softmax(x)_k − s·c_k` of each row along `dim`, given what [`cross_entropy`] returned,
/// with `(s, t)` from `factors(row, what was found there)`. One pass: reads x, writes the result. Rows
/// that do not count, or whose factors are 0, are 0 and not read.
///
/// The target's entry is `s·(−hard·rest/S + smooth·(W·picked/S − w_y))`: no `p − 1` anywhere.
pub fn cross_entropy_backward<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
    numbers: &[LossRow],
    factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let c = Coefficients::new(targets, rows.classes);
    rows.build(dim, |out| {
        rows.for_each_block(&mut vec![(); rows.count], out, |x, first, part, out| {
            c.gradients((x, &numbers[first..first + part.len()], false), first, &factors, out);
        });
    })
}

/// [`cross_entropy`] and [`cross_entropy_backward`] in one pass, bit for bit.
pub fn cross_entropy_with_gradient<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
    factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
) -> (Vec<LossRow>, Tensor<T>) {
    let rows = Rows::new(x, dim);
    let c = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![LossRow::default(); rows.count];
    let gradient = rows.build(dim, |out| {
        rows.for_each_block(&mut numbers, out, |x, first, part, out| {
            c.rows(x, first, part, out);
            c.gradients((x, part, true), first, &factors, out);
        });
    });
    (numbers, gradient)
}

/// [`cross_entropy_with_gradient`] along the last dim with the gradient over the logits, bit for bit.
/// `None`, and nothing written, where the storage is shared or not row-major.
pub fn cross_entropy_in_place<T: Float>(
    x: &mut Tensor<T>,
    targets: ClassTargets<'_, T>,
    factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
) -> Option<Vec<LossRow>> {
    let classes = *x.shape().last()?;
    let c = Coefficients::new(targets, classes);
    let mut numbers = vec![LossRow::default(); targets.classes.len()];
    for_each_task(classes, &mut numbers, x.owned_slice()?, |first, part, out| {
        let copy = out.to_vec();
        let x = Block { data: &copy, stride: classes, classes };
        c.rows(x, first, part, out);
        c.gradients((x, part, true), first, &factors, out);
    });
    Some(numbers)
}

/// `Σ_k w_k·(max − x_k)`.
fn below<T: Float>(x: &[T], s: &RowSums, weight: impl Fn(usize) -> f64) -> f64 {
    if s.below.is_finite() {
        return s.below;
    }
    // Either an entry of −∞ that counts, or a difference that only f64 can hold, or NaN.
    (x.iter().enumerate())
        .map(|(k, x)| (weight(k), s.max - x.to_f64()))
        .map(|(w, gap)| if w == 0.0 { 0.0 } else { w * gap })
        .sum()
}

/// Loss and numbers of each row along `dim` for coefficients `c` in the shape of `x`. A term of
/// coefficient 0 is 0 whatever its logit is.
pub fn soft_cross_entropy<T: Float>(x: &Tensor<T>, c: &Tensor<T>, dim: usize) -> Vec<LossRow> {
    let (rows, c_rows) = (Rows::new(x, dim), Rows::new(c, dim));
    let mut numbers = vec![LossRow::default(); rows.count];
    rows.for_each_block(&mut numbers, &mut [], |x, first, part, _| {
        let mut scratch = Vec::new();
        let c = c_rows.block(first, part.len(), &mut scratch);
        let mut sums = vec![RowSums::default(); part.len()];
        let rows = SumRows { x, pick: Pick::Max, below: Some(Factors::Rows(c)) };
        T::softmax_sums(rows, &mut sums, &mut []);
        let logs = logs(&sums, |s| s.rest / s.top);
        for (((r, row), sums), log) in part.iter_mut().enumerate().zip(sums).zip(logs) {
            let c = c.row(r);
            if c.iter().any(|&c| c != T::ZERO) {
                let (a, below) = (T::sum_slice(c), below(x.row(r), &sums, |k| c[k].to_f64()));
                let loss = a * log + below;
                *row = LossRow { loss, used: true, a, sums, ..Default::default() };
            }
        }
    });
    numbers
}

/// As [`cross_entropy_backward`], given what [`soft_cross_entropy`] returned.
///
/// The entry with p > ½ is `s·((a − c_k) − a·rest/S)`: no `p − 1`.
pub fn soft_cross_entropy_backward<T: Float>(
    x: &Tensor<T>,
    c: &Tensor<T>,
    dim: usize,
    numbers: &[LossRow],
    factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
) -> Tensor<T> {
    let (rows, c_rows) = (Rows::new(x, dim), Rows::new(c, dim));
    rows.build(dim, |out| {
        rows.for_each_block(&mut vec![(); rows.count], out, |x, first, part, out| {
            let mut scratch = Vec::new();
            let c = c_rows.block(first, part.len(), &mut scratch);
            let rows = &numbers[first..first + part.len()];
            let scales = loss_scales(rows, first, 1.0, &factors);
            scaled_block((x, false), &scales, Factors::Rows(c), out, |r| {
                let (LossRow { a, sums: s, .. }, c) = (rows[r], c.row(r));
                let (top, (factor, more)) = (s.dominant(x.row(r))?, factors(first + r, &rows[r]));
                let total = s.rest + s.picked;
                let own = factor * ((a - c[top].to_f64()) - a * s.rest / total);
                Some((top, if more == 0.0 { own } else { own + more * s.picked / total }))
            });
        });
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    fn losses(rows: &[LossRow]) -> Vec<f64> {
        rows.iter().map(|r| r.loss).collect()
    }

    /// Three lines in f64: the definition.
    fn naive_log_softmax(x: &[f64]) -> Vec<f64> {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        x.iter().map(|v| v - lse).collect()
    }

    #[test]
    fn every_entry_matches_the_definition_for_awkward_sizes() {
        let mut rng = Generator::new(11);
        let all = [1, 3, 17, 65, 2, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 127, 257, 1000];
        for &classes in if cfg!(miri) { &all[..4] } else { &all[..] } {
            let x = Tensor::<f32>::randn([3, classes], &mut rng).unwrap() * 4.0;
            let (log, sums) = log_softmax(&x, 1);
            let p = softmax(&x, 1);
            let data: Vec<f64> = x.to_vec().into_iter().map(f64::from).collect();
            let (log, p) = (log.to_vec(), p.to_vec());
            for r in 0..3 {
                let want = naive_log_softmax(&data[r * classes..(r + 1) * classes]);
                for (k, w) in want.iter().enumerate() {
                    let i = r * classes + k;
                    // 8u and 6u relative (u = 2⁻²⁴).
                    let error = (f64::from(log[i]) - w).abs();
                    assert!(error <= 8.0 * 5.97e-8 * w.abs() + 1e-15, "{classes} {w} {}", log[i]);
                    let error = (f64::from(p[i]) / w.exp() - 1.0).abs();
                    assert!(error <= 6.0 * 5.97e-8, "{classes} {error}");
                }
                assert!(sums[r].rest >= 0.0);
            }
        }
    }

    #[test]
    fn a_confident_row_keeps_its_loss() {
        for gap in [10.0_f32, 17.0, 25.0, 60.0, 80.0, 85.0] {
            let x = Tensor::from_vec(vec![gap, 0.0, 0.0], [1, 3]).unwrap();
            let targets = ClassTargets {
                classes: &[0],
                weight: None,
                label_smoothing: 0.0,
                predictions: false,
            };
            let rows = cross_entropy(&x, 1, targets);
            let want = (2.0 * (-f64::from(gap)).exp()).ln_1p();
            assert!((rows[0].loss / want - 1.0).abs() < 4.0 * 5.97e-8);
            let g = cross_entropy_backward(&x, 1, targets, &rows, |_, _| (1.0, 0.0)).to_vec();
            assert!((f64::from(g[0]) / -(1.0 - (-want).exp()) - 1.0).abs() < 1e-6 || gap > 30.0);
            let sum: f32 = g.iter().sum();
            assert!(sum.abs() <= 2.0 * 5.97e-8 * g.iter().map(|v| v.abs()).sum::<f32>());
        }
    }

    #[test]
    fn rows_of_equal_terms_keep_their_digits() {
        let classes = 4096;
        let mut data = vec![0.0_f32; classes];
        data[7] = 15.15;
        let x = Tensor::from_vec(data, [1, classes]).unwrap();
        let targets =
            ClassTargets { classes: &[7], weight: None, label_smoothing: 0.1, predictions: false };
        let rows = cross_entropy(&x, 1, targets);
        let gap = f64::from(15.15_f32);
        let above = (4095.0 * (-gap).exp()).ln_1p();
        let want = 0.9 * above + 0.1 / 4096.0 * (4096.0 * above + 4095.0 * gap);
        assert!((rows[0].loss / want - 1.0).abs() < 4.0 * 5.97e-8);
        // And far below the largest, at a gap of 100.
        let classes = if cfg!(miri) { 1000 } else { 100_000 };
        let mut data = vec![0.0_f32; classes];
        data[3] = 100.0;
        let x = Tensor::from_vec(data, [1, classes]).unwrap();
        let targets =
            ClassTargets { classes: &[3], weight: None, label_smoothing: 0.0, predictions: false };
        let want = (classes - 1) as f64 * (-100.0_f64).exp();
        assert!((cross_entropy(&x, 1, targets)[0].loss / want - 1.0).abs() < 4.0 * 5.97e-8);
    }

    #[test]
    fn shifts_do_not_change_the_result() {
        let base = [0.5_f32, -1.5, 3.0, 0.0];
        let run = |offset: f32| {
            let x: Vec<f32> = base.iter().map(|v| v + offset).collect();
            log_softmax(&Tensor::from_vec(x, [1, 4]).unwrap(), 1).0.to_vec()
        };
        let want = run(0.0);
        for offset in [1024.0, 65536.0, 1_048_576.0, 4_194_304.0, -65536.0, -4_194_304.0] {
            for (a, b) in run(offset).iter().zip(&want) {
                // One ulp.
                assert!((a - b).abs() <= b.abs() * 1.2e-7, "{offset}: {a} {b}");
            }
        }
    }

    #[test]
    fn infinities_and_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = Tensor::from_vec(
            vec![0.0, -inf, 0.0, inf, 0.0, 1.0, nan, 0.0, 0.0, -inf, -inf, -inf],
            [4, 3],
        )
        .unwrap();
        let (y, _) = log_softmax(&x, 1);
        let y = y.to_vec();
        assert!(y[1] == -inf && (y[0] + 2.0_f32.ln()).abs() < 1e-6);
        assert!(y[3..].iter().all(|v| v.is_nan()), "whole rows of NaN: {y:?}");
        let targets = |classes, label_smoothing| ClassTargets {
            classes,
            weight: None,
            label_smoothing,
            predictions: false,
        };
        // At the target: +inf, gradient p − onehot.
        let rows = cross_entropy(&x, 1, targets(&[1, -1, -1, -1], 0.0));
        assert_eq!(losses(&rows), [f64::INFINITY, 0.0, 0.0, 0.0]);
        let g =
            cross_entropy_backward(&x, 1, targets(&[1, -1, -1, -1], 0.0), &rows, |_, _| (1.0, 0.0));
        assert_eq!(g.to_vec(), [0.5, -1.0, 0.5, 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
        let rows = cross_entropy(&x, 1, targets(&[0, 0, 0, 0], 0.1));
        assert!(rows[0].loss == f64::INFINITY && rows[1..].iter().all(|r| r.loss.is_nan()));
        let rows = cross_entropy(&x, 1, targets(&[1, -1, -1, -1], 1.0));
        assert_eq!(rows[0].loss, f64::INFINITY);
    }

    #[test]
    fn huge_finite_logits_have_a_finite_loss() {
        let m = f32::MAX;
        let x = Tensor::from_vec(vec![m, 0.0, -m], [1, 3]).unwrap();
        let targets =
            ClassTargets { classes: &[0], weight: None, label_smoothing: 0.1, predictions: false };
        let rows = cross_entropy(&x, 1, targets);
        // (ε/3)·(0 + MAX + 2·MAX)
        assert!((rows[0].loss / (0.1 * f64::from(m)) - 1.0).abs() < 1e-12, "{}", rows[0].loss);
    }

    #[test]
    fn rows_along_any_dim_equal_rows_of_a_copy() {
        let x = Tensor::<f64>::randn([3, 5, 4], &mut Generator::new(2)).unwrap();
        for dim in 0..3_usize {
            let last = x.transpose(dim as isize, 2).unwrap();
            let want = log_softmax(&last.contiguous(), 2).0.transpose(dim as isize, 2).unwrap();
            assert_eq!(log_softmax(&x, dim).0.to_vec(), want.to_vec());
            assert_eq!(
                log_softmax(&last, 2).0.to_vec(),
                want.transpose(dim as isize, 2).unwrap().to_vec()
            );
        }
        let one = Tensor::<f64>::randn([1, 6], &mut Generator::new(2)).unwrap();
        let many = one.expand([4, 6]).unwrap();
        assert_eq!(softmax(&many, 1).to_vec()[18..], softmax(&one, 1).to_vec()[..]);
        let empty = Tensor::<f64>::zeros([2, 0]).unwrap();
        assert_eq!(softmax(&empty, 1).numel() + log_softmax(&empty, 0).0.numel(), 0);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let [n, c] = if cfg!(miri) { [6, 50] } else { [300, 500] };
        let x = Tensor::<f32>::randn([n, c], &mut Generator::new(4)).unwrap();
        let classes: Vec<i64> = (0..n).map(|i| (i * 7 % c) as i64).collect();
        let targets = ClassTargets {
            classes: &classes,
            weight: None,
            label_smoothing: 0.1,
            predictions: false,
        };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let rows = cross_entropy(&x, 1, targets);
                let g =
                    cross_entropy_backward(&x, 1, targets, &rows, |r, _| (r as f64, 0.0)).to_vec();
                let loss: Vec<u64> = rows.iter().map(|r| r.loss.to_bits()).collect();
                (loss, g.iter().map(|g| g.to_bits()).collect::<Vec<_>>())
            })
        };
        assert!(run(1) == run(2) && run(1) == run(4));
    }

    #[test]
    fn in_place_out_of_place_and_one_pass_have_the_same_bits() {
        let [n, c] = if cfg!(miri) { [3, 20] } else { [70, 500] };
        let x = Tensor::<f32>::randn([n, c], &mut Generator::new(5)).unwrap() * 6.0;
        let classes: Vec<i64> = (0..n as i64).map(|i| i * 7 % (c as i64 + 1) - 1).collect();
        let weight: Vec<f32> = (0..c).map(|k| (k % 5) as f32).collect();
        let bits = |g: &Tensor<f32>| g.to_vec().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        for label_smoothing in [0.0, 0.1] {
            for weight in [None, Some(&weight[..])] {
                for more in [0.0, 0.3] {
                    let targets = ClassTargets {
                        classes: &classes,
                        weight,
                        label_smoothing,
                        predictions: false,
                    };
                    let factors = |r: usize, row: &LossRow| (r as f64 - 2.0, more * row.lse());
                    let rows = cross_entropy(&x, 1, targets);
                    let want = bits(&cross_entropy_backward(&x, 1, targets, &rows, factors));
                    let (at_once, g) = cross_entropy_with_gradient(&x, 1, targets, factors);
                    assert_eq!(losses(&at_once), losses(&rows));
                    assert_eq!(bits(&g), want);
                    let mut owned = x.copied();
                    let in_place = cross_entropy_in_place(&mut owned, targets, factors).unwrap();
                    assert_eq!(losses(&in_place), losses(&rows));
                    assert_eq!(bits(&owned), want);
                    let mut shared = x.clone();
                    assert!(cross_entropy_in_place(&mut shared, targets, factors).is_none());
                }
            }
        }
    }
}
