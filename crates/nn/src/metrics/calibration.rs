//! How sure a model is, against how often it is right.

use std::fmt;

use autograd::{Error, Float, Result, Tensor, Var};

use super::checked;

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
    /// As [`ConfusionMatrix::new`](super::ConfusionMatrix::new); [`Error::InvalidArgument`] for no bins, and for logits with NaN,
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

#[cfg(test)]
mod tests {
    use super::*;

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
