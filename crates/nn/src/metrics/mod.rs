//! How good predictions are.

mod calibration;
mod confusion;
mod report;

use autograd::{ClassOptions, Error, Float, Result, Tensor, Var};

pub use calibration::{Bin, Calibration};
pub use confusion::ConfusionMatrix;
pub use report::{ClassScores, ClassificationReport};

/// The share of rows whose largest logit is the target's; NaN without rows.
///
/// # Shape
/// `logits: [N, C]`, `target: [N]`.
///
/// # Errors
/// As [`ConfusionMatrix::new`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let logits = Tensor::from([[2.0_f32, 0.0], [3.0, 1.0]]);
/// assert_eq!(accuracy(&logits, &Tensor::from([0_i64, 1]))?, 0.5);
/// # Ok::<(), nn::Error>(())
/// ```
pub fn accuracy<T: Float>(logits: &Tensor<T>, target: &Tensor<i64>) -> Result<f64> {
    Ok(ConfusionMatrix::new(logits, target)?.accuracy())
}

/// The share of rows whose target is among the `k` largest logits; NaN without rows. Of equal logits the
/// first counts as the larger, and NaN as the largest, as in [`Tensor::topk`]: with `k = 1` this is
/// [`accuracy`].
///
/// # Shape
/// `logits: [N, C]`, `target: [N]`.
///
/// # Errors
/// As [`ConfusionMatrix::new`]; [`Error::InvalidArgument`] unless `k` is in [1, C].
///
/// # Examples
/// ```
/// use nn::{metrics::top_k_accuracy, prelude::*};
/// let logits = Tensor::from([[0.1_f32, 0.7, 0.2], [0.5, 0.3, 0.2]]);
/// let target = Tensor::from([2_i64, 2]);
/// assert_eq!(top_k_accuracy(&logits, &target, 1)?, 0.0);
/// assert_eq!(top_k_accuracy(&logits, &target, 2)?, 0.5); // 0.2 is second, then third
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// `sklearn.metrics.top_k_accuracy_score`.
pub fn top_k_accuracy<T: Float>(logits: &Tensor<T>, target: &Tensor<i64>, k: usize) -> Result<f64> {
    let op = "top_k_accuracy";
    let (classes, target) = checked(op, logits, target)?;
    if !(1..=classes).contains(&k) {
        let reason = format!("must be in [1, {classes}], the number of classes, found {k}");
        return Err(Error::InvalidArgument { op, name: "k", reason });
    }
    let (logits, n) = (logits.to_vec(), target.len());
    let found = |(row, &t): (&[T], &i64)| {
        let t = t as usize;
        let larger = |(j, x): (usize, &T)| x.order(&row[t]).then(t.cmp(&j)).is_gt();
        row.iter().enumerate().filter(|&entry| larger(entry)).count() < k
    };
    let found = logits.chunks_exact(classes).zip(&target).filter(|&row| found(row)).count();
    Ok(found as f64 / n as f64)
}

/// The number of classes, and the targets, all of which are classes.
fn checked<T: Float>(
    op: &'static str,
    logits: &Tensor<T>,
    target: &Tensor<i64>,
) -> Result<(usize, Vec<i64>)> {
    let [n, classes] = logits.dims(op)?;
    if target.shape() != [n] {
        let (lhs, rhs) = (logits.shape().to_vec(), target.shape().to_vec());
        return Err(Error::ShapeMismatch { op, lhs, rhs });
    }
    let target = target.to_vec();
    let bad = |t: i64| !(0..classes as i64).contains(&t);
    if let Some(row) = target.iter().position(|&t| bad(t)) {
        let (value, rows) = (target[row], target.iter().filter(|&&t| bad(t)).count());
        return Err(Error::TargetOutOfRange { op, row, value, classes, rows });
    }
    Ok((classes, target))
}

/// Perplexity: the exponential of the mean cross entropy, `exp(−(1/N)·Σ ln p_y)`; the number of classes
/// for a model that knows nothing, 1 for a perfect one. Rows of target −100 do not count; NaN without
/// any that does.
///
/// # Shape
/// Logits `[N, C]` or `[N, C, d1, ..]`; targets the same without C.
///
/// # Errors
/// As [`Var::cross_entropy`].
///
/// # Examples
/// ```
/// use nn::{metrics::perplexity, prelude::*};
/// let even = Tensor::<f64>::zeros([2, 8])?;
/// let target = Tensor::from_vec(vec![3_i64, 5], [2])?;
/// assert!((perplexity(&even, &target)? - 8.0).abs() < 1e-14);
/// # Ok::<(), nn::Error>(())
/// ```
pub fn perplexity<T: Float>(logits: &Tensor<T>, target: &Tensor<i64>) -> Result<f64> {
    let loss = Var::constant(logits.clone()).cross_entropy(target, &ClassOptions::default())?;
    Ok(loss.item()?.to_f64().exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_counts_the_choices() {
        let x = Tensor::from_vec(vec![0.0_f32, 0.0, 9.0, 9.0, 0.0, 50.0], [3, 2]).unwrap();
        let t = Tensor::from_vec(vec![0, 1, -100], [3]).unwrap();
        assert!((perplexity(&x, &t).unwrap() - 2.0).abs() < 1e-6);
        let none = Tensor::from_vec(vec![-100; 3], [3]).unwrap();
        assert!(perplexity(&x, &none).unwrap().is_nan());
    }

    #[test]
    fn the_best_of_few_is_found_among_equals_and_nan() {
        let nan = f64::NAN;
        let rows = [[1.0, 3.0, 3.0, 2.0], [0.0, nan, 5.0, nan], [-0.0, 0.0, -1.0, -1.0]];
        let logits = Tensor::from(rows);
        // Places of the classes, by hand: equal logits in order, NaN before all.
        let places = [[3, 0, 1, 2], [3, 0, 2, 1], [0, 1, 2, 3]];
        for classes in (0..64).map(|i| [i % 4, i / 4 % 4, i / 16]) {
            let target = Tensor::from_vec(classes.map(|c| c as i64).to_vec(), [3]).unwrap();
            for k in 1..=4 {
                let among = classes.iter().zip(&places).filter(|&(&c, p)| p[c] < k).count();
                let found = top_k_accuracy(&logits, &target, k).unwrap();
                assert_eq!(found, among as f64 / 3.0, "{classes:?} {k}");
                let (_, best) = logits.topk(k, 1, true).unwrap();
                let best = best.to_vec();
                let named = best.chunks(k).zip(classes).filter(|(b, c)| b.contains(&(*c as i64)));
                assert_eq!(named.count(), among, "topk orders otherwise");
            }
            let first = top_k_accuracy(&logits, &target, 1).unwrap();
            assert_eq!(first, accuracy(&logits, &target).unwrap());
        }
        let none = Tensor::<f32>::zeros([0, 3]).unwrap();
        let no_target = Tensor::from_vec(vec![], [0]).unwrap();
        assert!(top_k_accuracy(&none, &no_target, 2).unwrap().is_nan());
    }

    #[test]
    fn bad_k_and_targets_are_refused() {
        let logits = Tensor::<f32>::zeros([1, 3]).unwrap();
        let text = |k| top_k_accuracy(&logits, &Tensor::from([0]), k).unwrap_err().to_string();
        let want = "top_k_accuracy: k must be in [1, 3], the number of classes, found ";
        assert!(text(0) == format!("{want}0") && text(4) == format!("{want}4"));
        assert!(top_k_accuracy(&logits, &Tensor::from([3]), 1).is_err());
        assert!(top_k_accuracy(&logits, &Tensor::from([0, 0]), 1).is_err());
    }
}
