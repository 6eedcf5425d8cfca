//! Divergences of distributions, and their entropy.

use tensor::{Error, Float, Result};

use super::class_loss::Reduction;
use super::regression::same_shape;
use crate::tape::{Save, record};
use crate::var::Var;

/// In the place of −∞ where a product with 0 must be 0.
const FAR: f64 = -1e30;

/// What becomes of the elements of [`Var::kl_div`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum KlReduction {
    /// One number for each element.
    None,
    /// The sum over all elements, divided by the size of the first dim: the mean divergence of
    /// distributions `[N, C]`. PyTorch's default is [`KlReduction::Mean`], which it warns against.
    #[default]
    BatchMean,
    /// The mean over all elements, which is no divergence.
    Mean,
    /// The sum over all elements.
    Sum,
}

impl<T: Float> Var<T> {
    /// Kullback–Leibler divergence `Σ q·(ln q − L)` of probabilities q from log-probabilities L
    /// (`self`), in nats; with `log_target` the target is `t = ln q`.
    ///
    /// # Shape
    /// L and target of the same shape; the result has it too, or rank 0.
    ///
    /// # Gradient
    /// `dL = −g·q`; `dq = g·(ln q + 1 − L)`, or `dt = g·q·(t + 1 − L)`. Saves both. Any order.
    ///
    /// # Numerics
    /// A term of q = 0 is 0, also at L = −∞ or t = −∞ (PyTorch: NaN). Where L = −∞ and q > 0 it is ∞.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`]; [`Error::MixedTapes`].
    ///
    /// # Examples
    /// ```
    /// use autograd::{KlReduction, Tape, Tensor, Var};
    /// let l = Tape::new().var(Tensor::from([0.5_f64.ln(), 0.5_f64.ln()]));
    /// let q = Var::constant(Tensor::from([1.0, 0.0]));
    /// let kl = l.kl_div(&q, false, KlReduction::Sum)?;
    /// assert_eq!(kl.item()?, 2.0_f64.ln());
    /// assert_eq!(kl.backward()?.wrt(&l)?.to_vec(), [-1.0, 0.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.kl_div`.
    #[track_caller]
    pub fn kl_div(&self, target: &Self, log_target: bool, reduction: KlReduction) -> Result<Self> {
        let op = "kl_div";
        same_shape(op, self.value(), target.value())?;
        let (l, t) = (self.value(), target.value());
        let y = if log_target { t.zip::<T, LogTerm>(op, l)? } else { t.zip::<T, Term>(op, l)? };
        let saved = [Save::Input(self), Save::Input(target)];
        let y = record(op, [self.node(), target.node()], saved, y, move |ctx, g, sink| {
            let (l, t) = (ctx.saved(0), ctx.saved(1));
            if ctx.needs(1) {
                let l_is_masked = l.value().eq(-T::INFINITY)?;
                let dt = if log_target {
                    t.exp().times(&(&t - l + T::ONE))?
                } else {
                    // Where both are −∞ the term is 0, and so is its derivative.
                    let dt = t.log() - l + T::ONE;
                    dt.masked_fill(&t.value().eq(T::ZERO)?.logical_and(&l_is_masked)?, T::ZERO)?
                };
                sink.add(1, &g * dt)?;
            }
            if ctx.needs(0) {
                sink.add(0, -(g * if log_target { t.exp() } else { t }))?;
            }
            Ok(())
        })?;
        let n = self.shape().first().map_or(1.0, |&n| n as f64);
        let reduction = match reduction {
            KlReduction::None => Reduction::None,
            KlReduction::Mean => Reduction::Mean,
            KlReduction::Sum => Reduction::Sum,
            // The mean over nothing is NaN.
            KlReduction::BatchMean if n == 0.0 => return Ok(y.sum() * T::from_f64(f64::NAN)),
            KlReduction::BatchMean => Reduction::Divisor(n),
        };
        y.reduced(op, reduction)
    }

    /// What a student (`self`) has to learn from a teacher's logits t at temperature τ:
    /// `τ²·KL(softmax(t/τ) ‖ softmax(x/τ))`, averaged over the batch. The factor τ² keeps the gradient's
    /// size whatever τ is.
    ///
    /// # Shape
    /// x and t `[C]`, `[N, C]` or `[N, C, d1, ..]`, of the same shape; the result has rank 0.
    ///
    /// # Gradient
    /// `dx = (τ/N)·(softmax(x/τ) − softmax(t/τ))`; a tracked teacher receives one, too. Any order.
    ///
    /// # Numerics
    /// A sum of `q·(ln q − ln p)`: its error is a few u of `Σ q·(|ln q| + |ln p|)`, which of a student
    /// that has become its teacher may be more than the value, and of either sign. The gradient is a
    /// difference of two exact distributions.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`], [`Error::RankMismatch`]; [`Error::InvalidArgument`] unless τ is positive
    /// and finite in the type; [`Error::MixedTapes`].
    ///
    /// # Reference
    /// Hinton, Vinyals & Dean, arXiv 1503.02531. `torch.nn.functional.kl_div` of `log_softmax`.
    #[track_caller]
    pub fn distillation_loss(&self, teacher: &Self, temperature: f64) -> Result<Self> {
        let op = "distillation_loss";
        let scale = T::from_f64(temperature);
        if !(scale > T::ZERO && scale < T::INFINITY) {
            let reason = format!("must be positive and finite, found {temperature}");
            return Err(Error::InvalidArgument { op, name: "temperature", reason });
        }
        same_shape(op, self.value(), teacher.value())?;
        let dim = match self.value().rank() {
            0 => {
                let expected = "[C], [N, C] or [N, C, d1, ..]";
                return Err(Error::RankMismatch { op, expected, shape: vec![] });
            }
            1 => 0,
            _ => 1,
        };
        let student = (self / scale).log_softmax(dim)?;
        let teacher = (teacher / scale).log_softmax(dim)?;
        let each = student.kl_div(&teacher, true, KlReduction::Sum)?;
        let n = if dim == 0 { 1 } else { self.shape()[0] };
        Ok(each * T::from_f64(temperature * temperature / n as f64))
    }

    /// Entropy of the distributions `p = softmax(x)` along `dim`: `H = −Σ p·ln p`, in nats.
    ///
    /// # Shape
    /// `x: [.., C, ..]` → without `dim`; `dim ∈ [−rank, rank)`.
    ///
    /// # Gradient
    /// `dx_k = −g·p_k·(ln p_k + H)`. Any order.
    ///
    /// # Numerics
    /// From the logarithm of the softmax: a confident row keeps the digits of its small entropy. A
    /// logit of −∞ counts 0.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    ///
    /// # Reference
    /// `torch.distributions.Categorical(logits=x).entropy()`.
    #[track_caller]
    pub fn entropy(&self, dim: isize) -> Result<Self> {
        let log_p = self.log_softmax(dim)?.clamp_min(T::from_f64(FAR))?;
        Ok(-(self.softmax(dim)? * log_p).sum_dim(&[dim], false)?)
    }
}

kernels! { Zip(q: T, l: T) -> T:
    Term = {
        let y = q * (q.vlog::<FMA>() - l);
        if q == T::ZERO { T::ZERO } else { y }
    };
    LogTerm = {
        let p = q.vexp::<FMA>();
        if p == T::ZERO { T::ZERO } else { p * (q - l) }
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let mut rows = Vec::new();
    for reduction in
        [KlReduction::None, KlReduction::BatchMean, KlReduction::Mean, KlReduction::Sum]
    {
        for shape in [&[][..], &[3, 4], &[2, 0]] {
            for log_target in [false, true] {
                let f = move |x: &[Var<f64>]| x[0].kl_div(&x[1], log_target, reduction);
                rows.push(Row::of("kl_div", &[shape, shape], f).positive());
            }
        }
    }
    for shape in [&[4][..], &[3, 4], &[2, 4, 3]] {
        rows.push(Row::of("distillation_loss", &[shape, shape], |x| {
            x[0].distillation_loss(&x[1], 2.5)
        }));
    }
    rows.push(Row::along_dim("entropy", |x, dim| x.entropy(dim)));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;
    use tensor::Tensor;

    fn var(values: &[f64]) -> Var<f64> {
        Tape::new().var(Tensor::from_slice(values, [values.len()]).unwrap())
    }

    #[test]
    fn terms_of_probability_zero_are_zero() {
        let inf = f64::INFINITY;
        let q = Var::constant(Tensor::from([0.0, 0.0, 0.5, 1.0]));
        for (t, log_target) in [(q.clone(), false), (Var::constant(q.value().log()), true)] {
            let l = var(&[-inf, -1.0, -inf, 0.0]);
            let kl = l.kl_div(&t, log_target, KlReduction::None).unwrap();
            assert_eq!(kl.value().to_vec(), [0.0, 0.0, inf, 0.0]);
            let dl = kl.sum().backward().unwrap().wrt(&l).unwrap().to_vec();
            assert_eq!(dl, [0.0, 0.0, -0.5, -1.0]);
        }
        let none = Var::constant(Tensor::<f64>::zeros([0, 3]).unwrap());
        assert!(none.kl_div(&none, true, KlReduction::BatchMean).unwrap().item().unwrap().is_nan());
    }

    #[test]
    fn divergence_from_itself_is_zero_and_the_gradient_is_that_of_cross_entropy() {
        let t = Var::constant(Tensor::from([0.3, -1.2, 2.0]));
        let x = var(&[0.3, -1.2, 2.0]);
        let loss = x.distillation_loss(&t, 3.0).unwrap();
        assert_eq!(loss.item().unwrap(), 0.0);
        let x = var(&[1.0, 0.5, -1.0]);
        let loss = x.distillation_loss(&t, 3.0).unwrap();
        let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
        let p = (x.detach() / 3.0).softmax(0).unwrap().value().to_vec();
        let q = (&t / 3.0).softmax(0).unwrap().value().to_vec();
        for k in 0..3 {
            assert!((dx[k] - 3.0 * (p[k] - q[k])).abs() < 1e-15);
        }
    }

    #[test]
    fn entropy_of_confident_even_and_masked_rows() {
        let h = |x: &[f64]| {
            let x = var(x);
            let h = x.entropy(0).unwrap();
            let dx = h.backward().unwrap().wrt(&x).unwrap().to_vec();
            (h.item().unwrap(), dx)
        };
        let (even, dx) = h(&[2.0; 4]);
        assert!((even - 4.0_f64.ln()).abs() < 1e-15 && dx.iter().all(|d| d.abs() < 1e-15));
        // e⁻⁴⁰·(40 + 1), to first order.
        let (small, dx) = h(&[40.0, 0.0]);
        let want = 41.0 * (-40.0_f64).exp();
        assert!((small / want - 1.0).abs() < 1e-14);
        assert!((dx[1] / (40.0 * (-40.0_f64).exp()) - 1.0).abs() < 1e-14);
        let (masked, dx) = h(&[0.0, f64::NEG_INFINITY, 0.0]);
        assert_eq!((masked, dx[1]), (2.0_f64.ln(), 0.0));
    }

    #[test]
    fn bad_input_is_one_clear_error() {
        let (x, y) = (var(&[0.0, 1.0]), var(&[0.0]));
        let text = |y: Result<Var<f64>>| y.unwrap_err().to_string();
        assert_eq!(
            text(x.kl_div(&y, false, KlReduction::Sum)),
            "kl_div: shapes do not match: [2] and [1]"
        );
        assert_eq!(
            text(x.distillation_loss(&x, 0.0)),
            "distillation_loss: temperature must be positive and finite, found 0"
        );
        assert!(text(x.distillation_loss(&y, 1.0)).contains("[2] and [1]"));
        let scalar = Var::constant(Tensor::scalar(0.0));
        assert!(text(scalar.distillation_loss(&scalar, 1.0)).starts_with("distillation_loss"));
    }
}
