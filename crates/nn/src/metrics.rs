//! How good predictions are.

use std::fmt;

use autograd::{Error, Float, Result, Tensor};

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
        let op = "confusion_matrix";
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
}
