//! Softmax, its logarithm, and weighted log-likelihoods of classes, along any dim of a tensor. The
//! numerics are those of the kernels in `exponentials`.

use super::exponentials::{Addend, Below, GradientRows, LogRows, Pick, RowScale, SumRows};
use super::rows::Rows;
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
        rows.for_each_task(&mut sums, out, |first, sums, out| {
            let mut scratch = Vec::new();
            let x = rows.block(first, sums.len(), &mut scratch);
            T::softmax_sums(SumRows { x, pick: Pick::Max, below: Below::Skip }, sums);
            let logs: Vec<(T, T)> = (sums.iter())
                .map(|s| (T::from_f64(s.max), T::from_f64((s.rest / s.top).ln_1p())))
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
    rows.for_each_task(&mut numbers, &mut [], |first, part, _| {
        let mut scratch = Vec::new();
        let x = rows.block(first, part.len(), &mut scratch);
        let mut sums = vec![RowSums::default(); part.len()];
        T::softmax_sums(SumRows { x, pick: Pick::Max, below: Below::Skip }, &mut sums);
        for ((r, number), s) in part.iter_mut().enumerate().zip(sums) {
            // NaN stands for a NaN, for +∞, or for nothing but −∞: then the largest says which.
            let largest = || x.row(r).iter().fold(T::LOWEST, |a, &x| a.larger(x)).to_f64();
            *number = if s.rest.is_nan() { largest() } else { s.max + (s.rest / s.top).ln_1p() };
        }
    });
    numbers
}

/// Softmax along `dim`. `dim` is in range.
pub fn softmax<T: Float>(x: &Tensor<T>, dim: usize) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let mut sums = vec![RowSums::default(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_task(&mut sums, out, |first, sums, out| {
            let mut scratch = Vec::new();
            let x = rows.block(first, sums.len(), &mut scratch);
            T::softmax_sums(SumRows { x, pick: Pick::Max, below: Below::Skip }, sums);
            let scales: Vec<RowScale<T>> = (sums.iter())
                .map(|s| Some((T::from_f64(1.0 / (s.rest + s.picked)), T::ZERO)))
                .collect();
            let addend = Addend::Constant;
            T::softmax_gradient(GradientRows { x, sums, scales: &scales, addend, out });
            for ((r, s), out) in sums.iter().enumerate().zip(out.chunks_exact_mut(x.classes)) {
                // The one entry above ½ is rounded once: exactly 1 for a single class.
                if let Some(top) = s.dominant(x.row(r)) {
                    out[top] = T::from_f64(s.picked / (s.rest + s.picked));
                }
            }
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
    let scale = |_: usize, s: &RowSums, g: &[T]| {
        Some((T::from_f64(-T::sum_slice(g) / (s.rest + s.picked)), T::ONE))
    };
    scaled_rows(x, dim, sums, (Addend::Constant, Some(g)), scale, |_, s, x, g| {
        let top = s.dominant(x)?;
        let others = T::sum_slice(&g[..top]) + T::sum_slice(&g[top + 1..]);
        Some((top, (s.rest * g[top].to_f64() - s.picked * others) / (s.rest + s.picked)))
    })
}

/// `f·e_k + c·b_k` for each row along `dim`, with `(f, c)` from `scale(row, its numbers, its b)` and b
/// from `addend`, or from a tensor in the shape of `x`; the entry that `patch(row, its numbers, its x,
/// its b)` names has the value given there instead. Rows without scale are 0 and not read.
fn scaled_rows<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    sums: &[RowSums],
    (addend, b): (Addend<'_, T>, Option<&Tensor<T>>),
    scale: impl Fn(usize, &RowSums, &[T]) -> RowScale<T> + Sync,
    patch: impl Fn(usize, &RowSums, &[T], &[T]) -> Option<(usize, f64)> + Sync,
) -> Tensor<T> {
    let (rows, b_rows) = (Rows::new(x, dim), b.map(|b| Rows::new(b, dim)));
    rows.build(dim, |out| {
        rows.for_each_task(&mut vec![(); rows.count], out, |first, part, out| {
            let (mut scratch, mut b_scratch) = (Vec::new(), Vec::new());
            let x = rows.block(first, part.len(), &mut scratch);
            let b = b_rows.as_ref().map(|b| b.block(first, part.len(), &mut b_scratch));
            let addend = b.map_or(addend, Addend::Rows);
            let b_row = |r: usize| b.map_or(&[][..], |b| b.row(r));
            let sums = &sums[first..first + part.len()];
            let scales: Vec<RowScale<T>> =
                sums.iter().enumerate().map(|(r, s)| scale(first + r, s, b_row(r))).collect();
            T::softmax_gradient(GradientRows { x, sums, scales: &scales, addend, out });
            for ((r, s), out) in sums.iter().enumerate().zip(out.chunks_exact_mut(x.classes)) {
                if scales[r].is_some()
                    && let Some((k, value)) = patch(first + r, s, x.row(r), b_row(r))
                {
                    out[k] = T::from_f64(value);
                }
            }
        });
    })
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
}

/// `(hard, smooth, total weight W, a)` for a row of class y: `c_k = hard·[k = y] + smooth·w_k`,
/// `a = Σ c_k`.
struct Coefficients<'a, T> {
    targets: ClassTargets<'a, T>,
    smooth: f64,
    total_weight: f64,
}

impl<'a, T: Float> Coefficients<'a, T> {
    fn new(targets: ClassTargets<'a, T>, classes: usize) -> Self {
        let total_weight = match targets.weight {
            None => classes as f64,
            Some(w) => T::sum_slice(w),
        };
        let smooth = targets.label_smoothing / classes.max(1) as f64;
        Coefficients { targets, smooth, total_weight }
    }

    fn weight(&self, class: usize) -> f64 {
        self.targets.weight.map_or(1.0, |w| w[class].to_f64())
    }

    fn hard(&self, class: usize) -> f64 {
        (1.0 - self.targets.label_smoothing) * self.weight(class)
    }

    /// a.
    fn sum(&self, class: usize) -> f64 {
        self.hard(class) + if self.smooth == 0.0 { 0.0 } else { self.smooth * self.total_weight }
    }

    fn below(&self) -> Below<'a, T> {
        match self.targets.weight {
            _ if self.smooth == 0.0 => Below::Skip,
            None => Below::Uniform,
            Some(w) => Below::Weighted(w),
        }
    }
}

/// `a·ln Σ exp(x_k) − Σ c_k·x_k` of each row along `dim`, in `f64`, and the numbers of each row.
/// Rows that do not count have 0 and are not read. A term of weight 0 is 0 whatever its logit is.
pub fn cross_entropy<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
) -> (Vec<f64>, Vec<RowSums>) {
    let rows = Rows::new(x, dim);
    let coefficients = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![(0.0, RowSums::default()); rows.count];
    rows.for_each_task(&mut numbers, &mut [], |first, part, _| {
        let mut scratch = Vec::new();
        let x = rows.block(first, part.len(), &mut scratch);
        let classes = &targets.classes[first..first + part.len()];
        let (pick, below) = (Pick::Class(classes), coefficients.below());
        let mut sums = vec![RowSums::default(); part.len()];
        T::softmax_sums(SumRows { x, pick, below }, &mut sums);
        for ((r, number), sums) in part.iter_mut().enumerate().zip(sums) {
            let loss = match usize::try_from(classes[r]) {
                Ok(class) => row_loss(x.row(r), class, &sums, &coefficients),
                Err(_) => 0.0,
            };
            *number = (loss, sums);
        }
    });
    numbers.into_iter().unzip()
}

fn row_loss<T: Float>(x: &[T], class: usize, s: &RowSums, c: &Coefficients<'_, T>) -> f64 {
    let (hard, smooth) = (c.hard(class), c.smooth);
    let mut loss = 0.0;
    if hard != 0.0 {
        // ln Σ exp − x_y, without a difference of large numbers.
        let gap = if s.picked > 0.0 {
            (s.rest / s.picked).ln_1p()
        } else {
            s.lse_above_max() + (s.max - x[class].to_f64())
        };
        loss += hard * gap;
    }
    if smooth != 0.0 {
        loss += smooth * (c.total_weight * s.lse_above_max() + below(x, s, |k| c.weight(k)));
    }
    loss
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

/// A row with a coefficient of its own for each class.
#[derive(Clone, Copy, Debug, Default)]
pub struct SoftRow {
    /// `Σ_k c_k·(ln Σ exp(x_j) − x_k)`.
    pub loss: f64,
    /// Whether any coefficient is not 0; where not, the loss is 0 whatever the row holds.
    pub used: bool,
    a: f64,
    sums: RowSums,
}

/// Loss and numbers of each row along `dim` for coefficients `c` in the shape of `x`. A term of
/// coefficient 0 is 0 whatever its logit is.
pub fn soft_cross_entropy<T: Float>(x: &Tensor<T>, c: &Tensor<T>, dim: usize) -> Vec<SoftRow> {
    let (rows, c_rows) = (Rows::new(x, dim), Rows::new(c, dim));
    let mut numbers = vec![SoftRow::default(); rows.count];
    rows.for_each_task(&mut numbers, &mut [], |first, part, _| {
        let (mut scratch, mut c_scratch) = (Vec::new(), Vec::new());
        let x = rows.block(first, part.len(), &mut scratch);
        let c = c_rows.block(first, part.len(), &mut c_scratch);
        let mut sums = vec![RowSums::default(); part.len()];
        T::softmax_sums(SumRows { x, pick: Pick::Max, below: Below::Rows(c) }, &mut sums);
        for ((r, row), s) in part.iter_mut().enumerate().zip(sums) {
            let c = c.row(r);
            if c.iter().any(|&c| c != T::ZERO) {
                let (a, below) = (T::sum_slice(c), below(x.row(r), &s, |k| c[k].to_f64()));
                *row =
                    SoftRow { loss: a * (s.rest / s.top).ln_1p() + below, used: true, a, sums: s };
            }
        }
    });
    numbers
}

/// `s·(a·softmax(x)_k − c_k)` of each row along `dim`, given what [`soft_cross_entropy`] returned;
/// `scale(row)` is s. Rows that are not used, or have s = 0, are 0.
///
/// The entry with p > ½ is `s·((a − c_k) − a·rest/S)`: no `p − 1`.
pub fn soft_cross_entropy_backward<T: Float>(
    x: &Tensor<T>,
    c: &Tensor<T>,
    dim: usize,
    numbers: &[SoftRow],
    scale: impl Fn(usize) -> f64 + Sync,
) -> Tensor<T> {
    let sums: Vec<RowSums> = numbers.iter().map(|n| n.sums).collect();
    let of_row = |r: usize, s: &RowSums, _: &[T]| {
        let (factor, n) = (scale(r), &numbers[r]);
        let f = factor * n.a / (s.rest + s.picked);
        (n.used && factor != 0.0).then(|| (T::from_f64(f), T::from_f64(-factor)))
    };
    scaled_rows(x, dim, &sums, (Addend::Constant, Some(c)), of_row, |r, s, x, c| {
        let (top, a) = (s.dominant(x)?, numbers[r].a);
        Some((top, scale(r) * ((a - c[top].to_f64()) - a * s.rest / (s.rest + s.picked))))
    })
}

/// `s·(a·softmax(x)_k − c_k)` of each row along `dim`, given the numbers that [`cross_entropy`]
/// returned; `scale(row)` is s. One pass: reads x, writes the result. Rows that do not count, or
/// have s = 0, are 0 and not read.
///
/// The target's entry is `s·(−hard·rest/S + smooth·(W·picked/S − w_y))`: no `p − 1` anywhere.
pub fn cross_entropy_backward<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
    sums: &[RowSums],
    scale: impl Fn(usize) -> f64 + Sync,
) -> Tensor<T> {
    let c = Coefficients::new(targets, x.shape()[dim]);
    let addend = match targets.weight {
        Some(w) if c.smooth != 0.0 => Addend::Weighted(w),
        _ => Addend::Constant,
    };
    let of_row = |r: usize, s: &RowSums, _: &[T]| {
        let class = usize::try_from(targets.classes[r]).ok()?;
        let factor = scale(r);
        let f = factor * c.sum(class) / (s.rest + s.picked);
        (factor != 0.0).then(|| (T::from_f64(f), T::from_f64(-factor * c.smooth)))
    };
    scaled_rows(x, dim, sums, (addend, None), of_row, |r, s, _, _| {
        let class = targets.classes[r] as usize;
        // W·p − w, from the smaller of p and 1 − p: exactly 0 for a single class.
        let (w, all, total) = (c.weight(class), c.total_weight, s.rest + s.picked);
        let spread = if s.rest > s.picked {
            all * s.picked / total - w
        } else {
            (all - w) - all * s.rest / total
        };
        let smooth = if c.smooth == 0.0 { 0.0 } else { c.smooth * spread };
        Some((class, scale(r) * (smooth - c.hard(class) * s.rest / total)))
    })
}

/// `−Σ c_k·l_k` of each row along `dim`, for log-probabilities (any real numbers) `l`, in `f64`. Rows
/// that do not count have 0 and are not read. A term of weight 0 is 0 whatever its entry is.
pub fn negative_log_likelihood<T: Float>(
    l: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
) -> Vec<f64> {
    let rows = Rows::new(l, dim);
    let c = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![0.0; rows.count];
    let product = |weight: f64, l: T| if weight == 0.0 { 0.0 } else { -weight * l.to_f64() };
    rows.for_each_task(&mut numbers, &mut [], |first, part, _| {
        let mut scratch = Vec::new();
        let l = rows.block(first, part.len(), &mut scratch);
        for (r, out) in part.iter_mut().enumerate() {
            let Ok(class) = usize::try_from(targets.classes[first + r]) else { continue };
            let row = l.row(r);
            *out = product(c.hard(class), row[class]);
            if c.smooth != 0.0 {
                let terms = row.iter().enumerate().map(|(k, &l)| product(c.weight(k), l));
                *out += c.smooth * terms.sum::<f64>();
            }
        }
    });
    numbers
}

/// The coefficients themselves, times `scale(row)`, as a tensor like `x`: 0 in rows that do not
/// count.
pub fn target_coefficients<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
    scale: impl Fn(usize) -> f64 + Sync,
) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let c = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_task(&mut numbers, out, |first, _, out| {
            for (r, out) in out.chunks_exact_mut(rows.classes).enumerate() {
                let class = usize::try_from(targets.classes[first + r]).ok();
                let factor = if class.is_some() { scale(first + r) } else { 0.0 };
                for (k, o) in out.iter_mut().enumerate() {
                    let hard = if class == Some(k) { c.hard(k) } else { 0.0 };
                    let smooth = if c.smooth == 0.0 { 0.0 } else { c.smooth * c.weight(k) };
                    *o = T::from_f64(if factor == 0.0 { 0.0 } else { factor * (hard + smooth) });
                }
            }
        });
    })
}

impl<'a, T: Float> ClassTargets<'a, T> {
    /// `Σ_k c_k` as a function of a row's class, among `classes`.
    pub fn coefficient_sums(self, classes: usize) -> impl Fn(usize) -> f64 + use<'a, T> {
        let c = Coefficients::new(self, classes);
        move |class| c.sum(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

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
            let targets = ClassTargets { classes: &[0], weight: None, label_smoothing: 0.0 };
            let (loss, sums) = cross_entropy(&x, 1, targets);
            let want = (2.0 * (-f64::from(gap)).exp()).ln_1p();
            assert!((loss[0] / want - 1.0).abs() < 4.0 * 5.97e-8);
            let g = cross_entropy_backward(&x, 1, targets, &sums, |_| 1.0).to_vec();
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
        let targets = ClassTargets { classes: &[7], weight: None, label_smoothing: 0.1 };
        let (loss, _) = cross_entropy(&x, 1, targets);
        let gap = f64::from(15.15_f32);
        let above = (4095.0 * (-gap).exp()).ln_1p();
        let want = 0.9 * above + 0.1 / 4096.0 * (4096.0 * above + 4095.0 * gap);
        assert!((loss[0] / want - 1.0).abs() < 4.0 * 5.97e-8);
        // And far below the largest, at a gap of 100.
        let classes = if cfg!(miri) { 1000 } else { 100_000 };
        let mut data = vec![0.0_f32; classes];
        data[3] = 100.0;
        let x = Tensor::from_vec(data, [1, classes]).unwrap();
        let targets = ClassTargets { classes: &[3], weight: None, label_smoothing: 0.0 };
        let want = (classes - 1) as f64 * (-100.0_f64).exp();
        assert!((cross_entropy(&x, 1, targets).0[0] / want - 1.0).abs() < 4.0 * 5.97e-8);
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
        let targets =
            |classes, label_smoothing| ClassTargets { classes, weight: None, label_smoothing };
        // At the target: +inf, gradient p − onehot.
        let (loss, sums) = cross_entropy(&x, 1, targets(&[1, -1, -1, -1], 0.0));
        assert_eq!(loss, [f64::INFINITY, 0.0, 0.0, 0.0]);
        let g = cross_entropy_backward(&x, 1, targets(&[1, -1, -1, -1], 0.0), &sums, |_| 1.0);
        assert_eq!(g.to_vec(), [0.5, -1.0, 0.5, 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
        let (loss, _) = cross_entropy(&x, 1, targets(&[0, 0, 0, 0], 0.1));
        assert!(loss[0] == f64::INFINITY && loss[1..].iter().all(|l| l.is_nan()));
        let (loss, _) = cross_entropy(&x, 1, targets(&[1, -1, -1, -1], 1.0));
        assert_eq!(loss[0], f64::INFINITY);
    }

    #[test]
    fn huge_finite_logits_have_a_finite_loss() {
        let m = f32::MAX;
        let x = Tensor::from_vec(vec![m, 0.0, -m], [1, 3]).unwrap();
        let targets = ClassTargets { classes: &[0], weight: None, label_smoothing: 0.1 };
        let (loss, _) = cross_entropy(&x, 1, targets);
        // (ε/3)·(0 + MAX + 2·MAX)
        assert!((loss[0] / (0.1 * f64::from(m)) - 1.0).abs() < 1e-12, "{}", loss[0]);
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
        let targets = ClassTargets { classes: &classes, weight: None, label_smoothing: 0.1 };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (loss, sums) = cross_entropy(&x, 1, targets);
                let g = cross_entropy_backward(&x, 1, targets, &sums, |r| r as f64).to_vec();
                let loss: Vec<u64> = loss.iter().map(|l| l.to_bits()).collect();
                (loss, g.iter().map(|g| g.to_bits()).collect::<Vec<_>>())
            })
        };
        assert!(run(1) == run(2) && run(1) == run(4));
    }
}
