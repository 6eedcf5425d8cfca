//! Losses on classes that follow from the cross entropy `l = −ln p_y` of each row.

use tensor::{Error, Float, Result, Tensor};

use super::class_loss::{ClassOptions, Reduction, Target};
use super::cross_entropy::Times;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Focal loss of logits: `w_y·(1−p_y)^γ·l` with `l = −ln p_y`, in nats: less weight for what is
    /// right already. γ = 0 is cross entropy.
    ///
    /// # Shape
    /// As [`Var::cross_entropy`] with class indices.
    ///
    /// # Gradient
    /// `dx = s·w_y·((1−p_y)^γ − γ·p_y·(1−p_y)^(γ−1)·ln p_y)·(p − onehot)`; s is the upstream gradient, over
    /// the divisor of a mean (that of cross entropy). Any order, but for γ strictly between 0 and 1 the
    /// second holds `(1−p_y)^(γ−2)`, which may overflow for a row that is certain (in f32 from a lead of
    /// some 50).
    ///
    /// # Numerics
    /// `1 − p_y` is `−expm1(−l)`: it keeps its digits for confident rows.
    ///
    /// # Errors
    /// As [`Var::cross_entropy`]; [`Error::InvalidArgument`] for a negative γ, and for label smoothing
    /// or a z-loss, which have no meaning here.
    ///
    /// # Reference
    /// Lin et al., arXiv 1708.02002. Not in `torch.nn`.
    #[track_caller]
    pub fn focal_loss(
        &self,
        target: &Tensor<i64>,
        gamma: f64,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        let op = "focal_loss";
        super::regression::not_negative(op, "gamma", gamma)?;
        self.of_row_losses(op, target, options, |l| {
            if gamma == 0.0 {
                return Ok(l.clone());
            }
            // Of a larger loss p is 0: its derivative, times an infinite loss, must be 0.
            let near = l.clamp_max(T::from_f64(800.0))?;
            Ok(l * (-(-near).expm1()).focal_factor(gamma)?)
        })
    }

    /// PolyLoss-1 of logits: cross entropy plus `ε₁·(1 − p_y)`, or `ε₁·Σ_k q_k·(1 − p_k)` for
    /// probabilities q.
    ///
    /// # Shape
    /// As [`Var::cross_entropy`].
    ///
    /// # Gradient
    /// `dx = s·w_y·(1 + ε₁·p_y)·(p − onehot)` for class indices. Tracked probabilities receive one, too.
    /// Any order.
    ///
    /// # Errors
    /// As [`Var::cross_entropy`]; [`Error::InvalidArgument`] for an ε₁ that is not finite, for label
    /// smoothing, a z-loss, and for class weights with probabilities.
    ///
    /// # Reference
    /// Leng et al., arXiv 2204.12511. Not in `torch.nn`; optax has it as `poly_loss_cross_entropy`.
    #[track_caller]
    pub fn poly_loss<'a>(
        &self,
        target: impl Into<Target<'a, T>>,
        epsilon: f64,
        options: &ClassOptions<T>,
    ) -> Result<Self> {
        let (op, e) = ("poly_loss", T::from_f64(epsilon));
        if !epsilon.is_finite() {
            let reason = format!("must be finite, found {epsilon}");
            return Err(Error::InvalidArgument { op, name: "epsilon", reason });
        }
        let q = match target.into() {
            Target::Classes(target) => {
                return self.of_row_losses(op, target, options, |l| Ok(l - (-l).expm1() * e));
            }
            Target::Probabilities(q) => q,
        };
        plain(op, options)?;
        super::regression::same_shape(op, self.value(), q.value())?;
        if options.weight.is_some() {
            let reason = "is for class indices".into();
            return Err(Error::InvalidArgument { op, name: "weight", reason });
        }
        let l = self.cross_entropy(&*q, options)?;
        let dim = if self.value().rank() == 1 { 0 } else { 1 };
        let rows = self.value().numel() / self.shape()[dim as usize].max(1);
        if rows == 0 {
            return Ok(l);
        }
        // Rows that do not count are replaced before they are read.
        let mut x = self.clone();
        if !q.is_tracked() {
            let used = q.value().abs().sum_dim(&[dim], true)?;
            x = x.threshold_backward(&used)?;
        }
        let rest = -x.log_softmax(dim)?.expm1();
        let more = rest.times(&q)?.sum_dim(&[dim], false)? * e;
        Ok(l + match options.reduction {
            Reduction::Mean => more.sum() / T::from_f64(rows as f64),
            reduction => more.reduced(op, reduction)?,
        })
    }

    /// A function of each row's cross entropy, with the weights and the mean of that.
    #[track_caller]
    fn of_row_losses(
        &self,
        op: &'static str,
        target: &Tensor<i64>,
        options: &ClassOptions<T>,
        f: impl FnOnce(&Self) -> Result<Self>,
    ) -> Result<Self> {
        plain(op, options)?;
        let (classes, factors, empty) = self.row_factors(op, target, options)?;
        let rows = ClassOptions {
            reduction: Reduction::None,
            ignore_index: Some(-1),
            ..ClassOptions::default()
        };
        let loss = f(&self.cross_entropy(&classes, &rows)?)?.gate::<Times>(op, &factors)?;
        if options.reduction == Reduction::None {
            return Ok(loss);
        }
        Ok(loss.sum() + T::from_f64(empty))
    }
}

/// Options that cross entropy has and these losses have not.
fn plain<T: Float>(op: &'static str, options: &ClassOptions<T>) -> Result<()> {
    options.validate(op)?;
    for (name, value) in [("label_smoothing", options.label_smoothing), ("z_loss", options.z_loss)]
    {
        if value != 0.0 {
            let reason = format!("has no meaning here: {value}");
            return Err(Error::InvalidArgument { op, name, reason });
        }
    }
    Ok(())
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let mut rows = Vec::new();
    let classes = |shape: &[usize]| {
        let n = shape.iter().product::<usize>() as i64;
        Tensor::from_vec((0..n).map(|i| (i * 3 + 3) % 4).collect(), shape)
    };
    let weight = Tensor::from([0.5, 0.0, 2.0, 1.25]);
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::Divisor(2.5)] {
        for weight in [None, Some(weight.clone())] {
            let o = ClassOptions { reduction, weight, ignore_index: Some(2), ..Default::default() };
            for (shape, target) in [(&[4][..], &[][..]), (&[3, 4], &[3]), (&[2, 4, 3], &[2, 3])] {
                for gamma in [0.0, 0.5, 1.0, 2.0] {
                    let o = o.clone();
                    let f = move |x: &[Var<f64>]| x[0].focal_loss(&classes(target)?, gamma, &o);
                    rows.push(Row::of("focal_loss", &[shape], f));
                }
                let o = o.clone();
                let f = move |x: &[Var<f64>]| x[0].poly_loss(&classes(target)?, 2.0, &o);
                rows.push(Row::of("poly_loss", &[shape], f));
            }
        }
        let o = ClassOptions { reduction, ..Default::default() };
        let f = move |x: &[Var<f64>]| x[0].poly_loss(&x[1], 2.0, &o);
        rows.push(Row::of("poly_loss", &[&[3, 4], &[3, 4]], f));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::class_loss::EmptyMean;
    use crate::tape::Tape;

    #[test]
    fn values_follow_the_formula_at_any_confidence() {
        for gap in [0.0_f64, 3.0, 20.0, 60.0] {
            let x = Tape::new().var(Tensor::from_vec(vec![gap as f32, 0.0], [1, 2]).unwrap());
            let t = Tensor::from_vec(vec![0], [1]).unwrap();
            let (l, miss) = ((-gap).exp().ln_1p(), 1.0 / (1.0 + gap.exp()));
            let o = ClassOptions::default();
            let focal = f64::from(x.focal_loss(&t, 0.5, &o).unwrap().item().unwrap());
            assert!((focal / (miss.sqrt() * l) - 1.0).abs() < 1e-6, "{gap} {focal:e}");
            let poly = f64::from(x.poly_loss(&t, 2.0, &o).unwrap().item().unwrap());
            assert!((poly / (l + 2.0 * miss) - 1.0).abs() < 1e-6, "{gap} {poly:e}");
            let plain = x.cross_entropy(&t, &o).unwrap().item().unwrap();
            assert_eq!(x.focal_loss(&t, 0.0, &o).unwrap().item().unwrap(), plain);
        }
    }

    #[test]
    fn rows_that_do_not_count_are_not_read() {
        let nan = f64::NAN;
        let x = Tensor::from_vec(vec![nan, nan, 0.0, 1.0, nan, nan], [3, 2]).unwrap();
        let t = Tensor::from_vec(vec![-100, 1, 0], [3]).unwrap();
        let o = ClassOptions { weight: Some(Tensor::from([0.0, 2.0])), ..Default::default() };
        for gamma in [0.0, 0.5, 2.0] {
            let x = Tape::new().var(x.clone());
            let loss = x.focal_loss(&t, gamma, &o).unwrap();
            let p = 1.0 / (1.0 + 1.0_f64.exp());
            let want = p.powf(gamma) * -(1.0 - p).ln();
            assert!((loss.item().unwrap() - want).abs() < 1e-15);
            let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
            assert!(dx[..2] == [0.0; 2] && dx[4..] == [0.0; 2] && dx[2] > 0.0, "{dx:?}");
        }
        let nothing = Tensor::from_vec(vec![-100, 0, 0], [3]).unwrap();
        let x = Tape::new().var(x);
        let loss = x.focal_loss(&nothing, 2.0, &o).unwrap();
        assert!(loss.item().unwrap().is_nan());
        assert_eq!(loss.backward().unwrap().wrt(&x).unwrap().to_vec(), [0.0; 6]);
    }

    #[test]
    fn infinite_losses_and_rows_of_no_probability() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        for gamma in [0.0, 0.5, 1.0, 2.0] {
            let x = Tape::new().var(Tensor::from_vec(vec![-inf, 0.0, 0.0], [1, 3]).unwrap());
            let t = Tensor::from_vec(vec![0], [1]).unwrap();
            let loss = x.focal_loss(&t, gamma, &ClassOptions::default()).unwrap();
            assert_eq!(loss.item().unwrap(), inf);
            let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
            assert_eq!(dx, [-1.0, 0.5, 0.5], "{gamma}");
        }
        let x = Tape::new().var(Tensor::from_vec(vec![nan, nan, 0.0, 0.0], [2, 2]).unwrap());
        let q = Tensor::from_vec(vec![0.0, 0.0, 0.5, 0.5], [2, 2]).unwrap();
        let loss = x.poly_loss(&q, 1.0, &ClassOptions::default()).unwrap();
        assert!((loss.item().unwrap() - (2.0_f64.ln() + 0.5) / 2.0).abs() < 1e-15);
        let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
        assert_eq!(dx, [0.0; 4]);
        let none = Var::constant(Tensor::<f64>::zeros([0, 2]).unwrap());
        let zero = ClassOptions { empty_mean: EmptyMean::Zero, ..Default::default() };
        assert_eq!(none.poly_loss(&none, 1.0, &zero).unwrap().item().unwrap(), 0.0);
        let error = ClassOptions { empty_mean: EmptyMean::Error, ..Default::default() };
        assert!(none.poly_loss(&none, 1.0, &error).is_err());
    }

    #[test]
    fn bad_input_is_one_clear_error() {
        let x = Var::constant(Tensor::<f64>::zeros([2, 3]).unwrap());
        let t = Tensor::from_vec(vec![0, 3], [2]).unwrap();
        let o = ClassOptions::default();
        let text = |y: Result<Var<f64>>| y.unwrap_err().to_string();
        assert_eq!(
            text(x.focal_loss(&t, 2.0, &o)),
            "focal_loss: target 3 in row 1 is out of range for 3 classes (1 row affected)"
        );
        assert!(text(x.focal_loss(&t, f64::NAN, &o)).contains("gamma must be finite"));
        let smoothed = ClassOptions { label_smoothing: 0.1, ..o.clone() };
        assert_eq!(
            text(x.poly_loss(&t, 1.0, &smoothed)),
            "poly_loss: label_smoothing has no meaning here: 0.1"
        );
        let weighted = ClassOptions { weight: Some(Tensor::from([1.0; 3])), ..o.clone() };
        assert!(
            text(x.poly_loss(x.value(), 1.0, &weighted)).contains("weight is for class indices")
        );
        assert!(text(x.poly_loss(&t, f64::INFINITY, &o)).contains("epsilon must be finite"));
    }
}
