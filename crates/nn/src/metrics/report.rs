//! Scores of each class, and their table.

use std::fmt;

use super::ConfusionMatrix;

/// How well a class was found. What would be 0/0 is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClassScores {
    /// Of the rows taken for the class, the share that are of it.
    pub precision: f64,
    /// Of the rows of the class, the share that were taken for it.
    pub recall: f64,
    /// The harmonic mean of precision and recall, `2·right/(taken + rows)`.
    pub f1: f64,
    /// The rows of the class.
    pub support: usize,
}

/// Scores.
impl ConfusionMatrix {
    /// The scores of each class. `sklearn.metrics.precision_recall_fscore_support`, with
    /// `zero_division=0`.
    pub fn scores(&self) -> Vec<ClassScores> {
        let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
        let classes = self.classes();
        let scores = |class| {
            let right = self.count(class, class);
            let rows = (0..classes).map(|prediction| self.count(class, prediction)).sum();
            let taken = (0..classes).map(|target| self.count(target, class)).sum();
            ClassScores {
                precision: share(right, taken),
                recall: share(right, rows),
                f1: share(2 * right, taken + rows),
                support: rows,
            }
        };
        (0..classes).map(scores).collect()
    }

    /// The mean of the scores over all classes, also those that do not occur; its support is that of all
    /// together. `average="macro"` of scikit-learn, with `labels` of all classes.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let logits = Tensor::from([[2.0_f32, 0.0], [3.0, 1.0], [0.0, 1.0]]);
    /// let matrix = ConfusionMatrix::new(&logits, &Tensor::from([0_i64, 1, 1]))?;
    /// let mean = matrix.macro_average();
    /// assert_eq!((mean.precision, mean.recall, mean.support), (0.75, 0.75, 3));
    /// # Ok::<(), nn::Error>(())
    /// ```
    pub fn macro_average(&self) -> ClassScores {
        mean(&self.scores(), |_| 1.0)
    }

    /// The mean of the scores over all rows, each with the scores of its class.
    /// `average="weighted"` of scikit-learn.
    pub fn weighted_average(&self) -> ClassScores {
        mean(&self.scores(), |scores| scores.support as f64)
    }

    /// The scores as a table to print. `sklearn.metrics.classification_report`.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let logits = Tensor::from([[2.0_f32, 0.0], [3.0, 1.0], [0.0, 1.0]]);
    /// let matrix = ConfusionMatrix::new(&logits, &Tensor::from([0_i64, 1, 1]))?;
    /// let report = matrix.report().to_string();
    /// assert_eq!(report.lines().nth(2), Some("           0       0.50      1.00      0.67         1"));
    /// # Ok::<(), nn::Error>(())
    /// ```
    pub fn report(&self) -> ClassificationReport<'_> {
        ClassificationReport(self)
    }
}

fn mean(scores: &[ClassScores], weight: impl Fn(&ClassScores) -> f64) -> ClassScores {
    let total: f64 = scores.iter().map(&weight).sum();
    let of = |score: fn(&ClassScores) -> f64| {
        let sum: f64 = scores.iter().map(|s| weight(s) * score(s)).sum();
        if total == 0.0 { 0.0 } else { sum / total }
    };
    let support = scores.iter().map(|s| s.support).sum();
    ClassScores {
        precision: of(|s| s.precision),
        recall: of(|s| s.recall),
        f1: of(|s| s.f1),
        support,
    }
}

/// Prints the scores of each class, the accuracy and the averages.
#[derive(Clone, Copy, Debug)]
pub struct ClassificationReport<'a>(&'a ConfusionMatrix);

impl fmt::Display for ClassificationReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let matrix = self.0;
        writeln!(f, "{:12}  precision    recall  f1-score   support\n", "")?;
        for (class, scores) in matrix.scores().into_iter().enumerate() {
            line(f, &class.to_string(), scores)?;
        }
        let (accuracy, average) = (matrix.accuracy(), matrix.macro_average());
        writeln!(f, "\n{:>12} {accuracy:>30.2}{:>10}", "accuracy", average.support)?;
        line(f, "macro avg", average)?;
        line(f, "weighted avg", matrix.weighted_average())
    }
}

fn line(f: &mut fmt::Formatter<'_>, name: &str, scores: ClassScores) -> fmt::Result {
    let ClassScores { precision, recall, f1, support } = scores;
    writeln!(f, "{name:>12} {precision:>10.2}{recall:>10.2}{f1:>10.2}{support:>10}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::Tensor;

    /// Of predictions `(target, prediction)`.
    fn matrix(classes: usize, pairs: &[(i64, i64)]) -> ConfusionMatrix {
        let (targets, predictions): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let n = pairs.len();
        let logits = Tensor::from_vec(predictions, [n]).unwrap().one_hot(classes).unwrap();
        let target = Tensor::from_vec(targets, [n]).unwrap();
        ConfusionMatrix::new(&logits.cast::<f64>(), &target).unwrap()
    }

    #[test]
    fn scores_are_those_counted_by_hand() {
        // Class 0: 1 row, found, and 1 wrong one. 1: 1 row, lost. 2: 3 rows, 2 found. 3: not there.
        let m = matrix(4, &[(0, 0), (1, 0), (2, 2), (2, 2), (2, 1)]);
        let scores =
            |precision, recall, f1, support| ClassScores { precision, recall, f1, support };
        let want = [
            scores(0.5, 1.0, 2.0 / 3.0, 1),
            scores(0.0, 0.0, 0.0, 1),
            scores(1.0, 2.0 / 3.0, 0.8, 3),
            scores(0.0, 0.0, 0.0, 0),
        ];
        assert_eq!(m.scores(), want);
        let near = |found: ClassScores, [p, r, f]: [f64; 3]| {
            let close = |x: f64, y: f64| (x - y).abs() < 1e-15;
            assert!(close(found.precision, p) && close(found.recall, r) && close(found.f1, f));
            assert_eq!(found.support, 5);
        };
        near(m.macro_average(), [1.5 / 4.0, (5.0 / 3.0) / 4.0, (22.0 / 15.0) / 4.0]);
        near(m.weighted_average(), [3.5 / 5.0, 3.0 / 5.0, (2.0 / 3.0 + 2.4) / 5.0]);
    }

    #[test]
    fn the_report_is_that_of_scikit_learn() {
        // The example of scikit-learn's documentation, without names.
        let m = matrix(3, &[(0, 0), (1, 0), (2, 2), (2, 2), (2, 1)]);
        let want = "              precision    recall  f1-score   support

           0       0.50      1.00      0.67         1
           1       0.00      0.00      0.00         1
           2       1.00      0.67      0.80         3

    accuracy                           0.60         5
   macro avg       0.50      0.56      0.49         5
weighted avg       0.70      0.60      0.61         5
";
        assert_eq!(m.report().to_string(), want);
    }

    #[test]
    fn no_rows_have_scores_of_0() {
        let m = matrix(2, &[]);
        assert_eq!(m.scores(), [ClassScores::default(); 2]);
        assert_eq!((m.macro_average(), m.weighted_average()), Default::default());
        assert!(m.accuracy().is_nan() && m.report().to_string().contains("NaN"));
    }
}
