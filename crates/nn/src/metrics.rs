//! How good predictions are.

use std::fmt;

use autograd::{ClassOptions, Error, Float, Result, Tensor, Var};

/// The share of rows whose largest logit is the target's; NaN without rows.
///
/// # Shape
/// `logits: [N, C]`, `target: [N]`.
///
/// # Errors
/// As [`ConfusionMatrix::new`].
pub fn accuracy<T: Float>(logits: &Tensor<T>, target: &Tensor<i64>) -> Result<f64> {
    Ok(ConfusionMatrix::new(logits, target)?.accuracy())
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

/// How far confidences are from the truth: predictions by confidence `max p`, in bins of equal width,
/// with the share of right ones in each. Prints as a table with bars.
#[derive(Clone, Debug)]
pub struct Calibration {
    bins: Vec<Bin>,
}

/// Predictions of similar confidence.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// How many.
    pub count: usize,
    /// How many of them are right.
    pub right: usize,
    /// The sum of their confidences.
    pub confidence: f64,
}

impl Bin {
    /// `|share of right ones − mean confidence|`; 0 without predictions.
    pub fn gap(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        (self.right as f64 - self.confidence).abs() / self.count as f64
    }
}

impl Calibration {
    /// Sorts the predictions of `logits: [N, C]` against `target: [N]` into so many bins; 15 is usual.
    ///
    /// # Errors
    /// As [`ConfusionMatrix::new`]; [`Error::InvalidArgument`] for no bins, and for logits with NaN,
    /// which have no confidence.
    ///
    /// # Examples
    /// ```
    /// use nn::{metrics::Calibration, prelude::*};
    /// // Four predictions of confidence ¾, two of them right.
    /// let row = [3.0_f64.ln(), 0.0];
    /// let logits = Tensor::from_vec([row; 4].concat(), [4, 2])?;
    /// let target = Tensor::from_vec(vec![0_i64, 0, 1, 1], [4])?;
    /// let calibration = Calibration::new(&logits, &target, 10)?;
    /// assert!((calibration.expected_error() - 0.25).abs() < 1e-15);
    /// # Ok::<(), nn::Error>(())
    /// ```
    ///
    /// # Reference
    /// Guo et al., arXiv 1706.04599.
    pub fn new<T: Float>(logits: &Tensor<T>, target: &Tensor<i64>, bins: usize) -> Result<Self> {
        let op = "calibration";
        if bins == 0 {
            let reason = "must be at least 1, found 0".into();
            return Err(Error::InvalidArgument { op, name: "bins", reason });
        }
        let (_, target) = checked(op, logits, target)?;
        let p = Var::constant(logits.clone()).softmax(1)?;
        let (confidence, prediction) = p.value().max_dim(1, false)?;
        let mut filled = vec![Bin::default(); bins];
        for (row, (p, best)) in confidence.to_vec().into_iter().zip(prediction.to_vec()).enumerate()
        {
            let p = p.to_f64();
            if p.is_nan() {
                let reason = format!("must not have NaN: row {row} has no confidence");
                return Err(Error::InvalidArgument { op, name: "logits", reason });
            }
            // (0, 1/n], (1/n, 2/n], ..
            let bin = &mut filled[((p * bins as f64).ceil() as usize).clamp(1, bins) - 1];
            bin.count += 1;
            bin.right += usize::from(best == target[row]);
            bin.confidence += p;
        }
        Ok(Calibration { bins: filled })
    }

    /// The bins, from low confidence to high.
    pub fn bins(&self) -> &[Bin] {
        &self.bins
    }

    /// The expected calibration error: the bins' gaps, weighted by their counts. NaN without
    /// predictions.
    pub fn expected_error(&self) -> f64 {
        let total: usize = self.bins.iter().map(|b| b.count).sum();
        self.bins.iter().map(|b| b.gap() * b.count as f64).sum::<f64>() / total as f64
    }

    /// The largest gap of a bin.
    pub fn maximum_error(&self) -> f64 {
        self.bins.iter().map(Bin::gap).fold(0.0, f64::max)
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "confidence     count    right  mean confidence")?;
        for (i, bin) in self.bins.iter().enumerate() {
            let edge = |i: usize| i as f64 / self.bins.len() as f64;
            write!(f, "{:.3}–{:.3} {:8}", edge(i), edge(i + 1), bin.count)?;
            if bin.count == 0 {
                writeln!(f, "        –")?;
                continue;
            }
            let share = |x: f64| x / bin.count as f64;
            let (right, sure) = (share(bin.right as f64), share(bin.confidence));
            let bar = "#".repeat((20.0 * right).round() as usize);
            writeln!(f, "  {:5.1} %          {:5.1} %  {bar}", 100.0 * right, 100.0 * sure)?;
        }
        writeln!(f, "expected calibration error {:.4}", self.expected_error())
    }
}

/// How often each class was taken for each. Prints as a table.
#[derive(Clone, Debug)]
pub struct ConfusionMatrix {
    classes: usize,
    /// Row: target; column: prediction.
    counts: Vec<usize>,
}

impl ConfusionMatrix {
    /// Counts the predictions of `logits: [N, C]` against `target: [N]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`], [`Error::ShapeMismatch`], [`Error::TargetOutOfRange`];
    /// [`Error::InvalidArgument`] where there are no classes.
    pub fn new<T: Float>(logits: &Tensor<T>, target: &Tensor<i64>) -> Result<Self> {
        let (classes, target) = checked("confusion_matrix", logits, target)?;
        let mut counts = vec![0; classes * classes];
        for (t, p) in target.iter().zip(logits.argmax_dim(1, false)?.to_vec()) {
            counts[*t as usize * classes + p as usize] += 1;
        }
        Ok(ConfusionMatrix { classes, counts })
    }

    /// How often `target` was taken for `prediction`.
    ///
    /// # Panics
    /// If one of them is no class.
    pub fn count(&self, target: usize, prediction: usize) -> usize {
        assert!(target < self.classes && prediction < self.classes, "class out of range");
        self.counts[target * self.classes + prediction]
    }

    /// The share of right predictions; NaN without any.
    pub fn accuracy(&self) -> f64 {
        let right: usize = (0..self.classes).map(|c| self.count(c, c)).sum();
        right as f64 / self.counts.iter().sum::<usize>() as f64
    }
}

impl fmt::Display for ConfusionMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.counts.iter().max().map_or(1, |c| c.to_string().len()).max(2) + 1;
        write!(f, "{:>9}", "true\\pred")?;
        (0..self.classes).try_for_each(|c| write!(f, "{c:>width$}"))?;
        writeln!(f, "   recall")?;
        for (target, row) in self.counts.chunks(self.classes).enumerate() {
            write!(f, "{target:>9}")?;
            for &count in row {
                match count {
                    0 => write!(f, "{:>width$}", "·")?,
                    _ => write!(f, "{count:>width$}")?,
                }
            }
            let total: usize = row.iter().sum();
            let recall = 100.0 * row[target] as f64 / total as f64;
            if total > 0 { writeln!(f, "  {recall:5.1} %")? } else { writeln!(f, "        –")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_prints() {
        let logits = Tensor::from_vec(vec![1.0_f32, 0.0, 0.0, 2.0, 3.0, 1.0], [3, 2]).unwrap();
        let target = Tensor::from_vec(vec![0, 1, 1], [3]).unwrap();
        let m = ConfusionMatrix::new(&logits, &target).unwrap();
        assert_eq!((m.count(0, 0), m.count(1, 0), m.count(1, 1)), (1, 1, 1));
        assert!((accuracy(&logits, &target).unwrap() - 2.0 / 3.0).abs() < 1e-15);
        let text = m.to_string();
        assert_eq!(
            text,
            "true\\pred  0  1   recall\n        0  1  ·  100.0 %\n        1  1  1   50.0 %\n"
        );
        assert!(accuracy(&logits, &Tensor::from_vec(vec![0, 2, 1], [3]).unwrap()).is_err());
        assert!(accuracy(&logits, &Tensor::from_vec(vec![0], [1]).unwrap()).is_err());
    }

    #[test]
    fn perplexity_counts_the_choices() {
        let x = Tensor::from_vec(vec![0.0_f32, 0.0, 9.0, 9.0, 0.0, 50.0], [3, 2]).unwrap();
        let t = Tensor::from_vec(vec![0, 1, -100], [3]).unwrap();
        assert!((perplexity(&x, &t).unwrap() - 2.0).abs() < 1e-6);
        let none = Tensor::from_vec(vec![-100; 3], [3]).unwrap();
        assert!(perplexity(&x, &none).unwrap().is_nan());
    }

    #[test]
    fn calibration_of_sure_unsure_and_no_predictions() {
        // Confidence 1, wrong; confidence ½, right.
        let x = Tensor::from_vec(vec![100.0_f64, 0.0, 0.0, 0.0], [2, 2]).unwrap();
        let t = Tensor::from_vec(vec![1, 0], [2]).unwrap();
        let c = Calibration::new(&x, &t, 4).unwrap();
        let counts: Vec<_> = c.bins().iter().map(|b| (b.count, b.right)).collect();
        assert_eq!(counts, [(0, 0), (1, 1), (0, 0), (1, 0)]);
        assert!((c.expected_error() - 0.75).abs() < 1e-15 && c.maximum_error() == 1.0);
        let text = c.to_string();
        assert!(text.contains("0.250–0.500        1  100.0 %           50.0 %"), "{text}");
        assert!(text.ends_with("expected calibration error 0.7500\n"), "{text}");
        let none = Tensor::<f64>::zeros([0, 2]).unwrap();
        let empty = Calibration::new(&none, &Tensor::from_vec(vec![], [0]).unwrap(), 4).unwrap();
        assert!(empty.expected_error().is_nan() && empty.maximum_error() == 0.0);
        let message =
            |x: &Tensor<f64>, bins| Calibration::new(x, &t, bins).unwrap_err().to_string();
        assert_eq!(message(&x, 0), "calibration: bins must be at least 1, found 0");
        let nan = Tensor::from_vec(vec![0.0, f64::NAN, 0.0, 0.0], [2, 2]).unwrap();
        assert_eq!(
            message(&nan, 4),
            "calibration: logits must not have NaN: row 0 has no confidence"
        );
    }
}
