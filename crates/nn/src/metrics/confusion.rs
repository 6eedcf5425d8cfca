//! Predictions counted by class and prediction.

use std::fmt;

use autograd::{Error, Float, Result, Tensor};

use super::checked;

/// How often each class was taken for each. Prints as a table; [`ConfusionMatrix::report`] is another one,
/// of scores. `sklearn.metrics.confusion_matrix`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let logits = Tensor::from([[2.0_f32, 0.0], [3.0, 1.0], [0.0, 1.0]]);
/// let mut matrix = ConfusionMatrix::new(&logits, &Tensor::from([0_i64, 1, 1]))?;
/// assert_eq!((matrix.count(0, 0), matrix.count(1, 0), matrix.count(1, 1)), (1, 1, 1));
/// matrix.merge(&matrix.clone())?; // another batch
/// assert_eq!(matrix.count(1, 0), 2);
/// let scores = matrix.scores();
/// assert_eq!((scores[0].precision, scores[0].recall), (0.5, 1.0));
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
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
        right as f64 / self.total() as f64
    }

    /// The number of predictions.
    fn total(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Adds the counts of other predictions, of another batch perhaps.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.classes != other.classes {
            let [lhs, rhs] = [self.classes, other.classes].map(|c| vec![c, c]);
            return Err(Error::ShapeMismatch { op: "confusion_matrix", lhs, rhs });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        Ok(())
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
    use crate::metrics::accuracy;

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
    fn merging_adds_the_counts() {
        let of = |logits: Vec<f64>, target: Vec<i64>| {
            let n = target.len();
            let logits = Tensor::from_vec(logits, [n, 2]).unwrap();
            ConfusionMatrix::new(&logits, &Tensor::from_vec(target, [n]).unwrap()).unwrap()
        };
        let mut first = of(vec![1.0, 0.0, 0.0, 2.0], vec![0, 0]);
        first.merge(&of(vec![3.0, 1.0], vec![1])).unwrap();
        let whole = of(vec![1.0, 0.0, 0.0, 2.0, 3.0, 1.0], vec![0, 0, 1]);
        assert_eq!(first, whole);
        let three = Tensor::<f32>::zeros([1, 3]).unwrap();
        let other = ConfusionMatrix::new(&three, &Tensor::from([0])).unwrap();
        let text = first.merge(&other).unwrap_err().to_string();
        assert_eq!(text, "confusion_matrix: shapes do not match: [2, 2] and [3, 3]");
        assert_eq!(first, whole);
    }
}
