//! Batch normalisation: the norm of `norm.rs` over all dims but the channels, and its evaluation with
//! statistics from elsewhere.

use tensor::{Error, Float, Result, Shape, Tensor};

use super::normalization::{Norm, shaped};
use crate::var::Var;

/// Means and variances of the channels of a batch, not tracked.
#[derive(Clone, Debug)]
pub struct BatchStatistics<T: Float> {
    /// The mean of each channel, `[C]`.
    pub mean: Tensor<T>,
    /// The unbiased variance of each channel, `[C]`: over n − 1, as running statistics keep it.
    pub var: Tensor<T>,
}

impl<T: Float> Var<T> {
    /// Batch normalisation: mean and variance of each channel, `y = (x − μ)/√(var + ε)·w + b`, over the
    /// batch and all dims behind the channels.
    ///
    /// With `running = (mean, var)`, each `[C]`, it is an evaluation: these are used, and are constants;
    /// without, those of the batch (the variance over n).
    ///
    /// # Shape
    /// `[N, C, ..]` → the same; w and b: `[C]`.
    ///
    /// # Gradient
    /// With `h = g·w`: `dx = (h − mean h − x̂·mean(h·x̂))/σ`, and `dx = h/σ` in an evaluation;
    /// `dw = Σ g·x̂`, `db = Σ g` over all dims but C. Saves x, w and a few numbers per channel; in
    /// an evaluation x̂ and w where tracked. Any order.
    ///
    /// # Numerics
    /// As [`Var::layer_norm`].
    ///
    /// # Errors
    /// [`Error::RankMismatch`] below rank 2; [`Error::ShapeMismatch`] for w, b and `running`;
    /// [`Error::InvalidArgument`] if the channels of a batch have one element each, as PyTorch, and
    /// for ε as [`Var::layer_norm`].
    ///
    /// # Reference
    /// `torch.nn.functional.batch_norm`; Ioffe & Szegedy, arXiv 1502.03167.
    #[track_caller]
    pub fn batch_norm(
        &self,
        running: Option<(&Tensor<T>, &Tensor<T>)>,
        w: Option<&Self>,
        b: Option<&Self>,
        eps: f64,
    ) -> Result<Self> {
        let Some((mean, var)) = running else {
            return Ok(self.batch_norm_training(w, b, eps)?.0);
        };
        let op = "batch_norm";
        let channels = self.channels(op, [w, b])?;
        Norm::new(op, self.shape(), vec![], eps, true)?;
        for x in [mean, var] {
            self.check_shape(op, x.shape(), &[channels])?;
        }
        let shape = self.channel_shape(channels);
        let deviation = (var + T::from_f64(eps)).sqrt().reshape(&shape)?;
        let mean = Var::constant(mean.reshape(&shape)?);
        let mut y = self.checked_sub(&mean)?.checked_div(&Var::constant(deviation))?;
        let [w, b] = shaped([w, b], &shape)?;
        if let Some(w) = w {
            y = y.checked_mul(&w)?;
        }
        match b {
            Some(b) => y.checked_add(&b),
            None => Ok(y),
        }
    }

    /// [`Var::batch_norm`] with the statistics of the batch, which it returns too, as running statistics
    /// take them: not tracked, and the variance over n − 1.
    ///
    /// # Shape
    /// `[N, C, ..]` → the same; w and b: `[C]`.
    ///
    /// # Gradient
    /// With `h = g·w`: `dx = (h − mean h − x̂·mean(h·x̂))/σ`; `dw = Σ g·x̂`, `db = Σ g` over all
    /// dims but C. Saves x, w and a few numbers per channel. Any order.
    ///
    /// # Errors
    /// As [`Var::batch_norm`].
    ///
    /// # Reference
    /// `torch.nn.functional.batch_norm` with `training=True`.
    #[track_caller]
    pub fn batch_norm_training(
        &self,
        w: Option<&Self>,
        b: Option<&Self>,
        eps: f64,
    ) -> Result<(Self, BatchStatistics<T>)> {
        let op = "batch_norm";
        let channels = self.channels(op, [w, b])?;
        let dims = (0..self.value().rank()).filter(|&d| d != 1).collect();
        let norm = Norm::new(op, self.shape(), dims, eps, true)?;
        let n = norm.n;
        if n == 1 {
            let reason = format!("has one element for each channel, shape {:?}", self.shape());
            return Err(Error::InvalidArgument { op, name: "input", reason });
        }
        let [w, b] = shaped([w, b], &self.channel_shape(channels))?;
        let (y, rows) = self.normalise(norm, w.as_ref(), b.as_ref())?;
        let Some((mean, rest)) = rows.mean else { unreachable!("bug: a batch norm is centred") };
        let unbiased = T::from_f64(n as f64 / (n as f64 - 1.0));
        let mean = (mean + &rest).reshape([channels])?;
        let var = (rows.spread.square() * unbiased).reshape([channels])?;
        Ok((y, BatchStatistics { mean, var }))
    }

    /// `[C, 1, ..]`, which broadcasts to the own shape.
    fn channel_shape(&self, channels: usize) -> Shape {
        let ones = std::iter::repeat_n(1, self.value().rank() - 2);
        std::iter::once(channels).chain(ones).collect()
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let weights = |seed: f64| {
        let number = |i: i32| 0.5 + seed * f64::from(i);
        Tensor::from([number(0), number(1), number(2)])
    };
    vec![
        Row::of("batch_norm", &[&[3, 2]], |x| x[0].batch_norm(None, None, None, 0.1))
            .and(&[&[4, 3], &[3], &[3]], |x| x[0].batch_norm(None, Some(&x[1]), Some(&x[2]), 1e-3))
            .and(&[&[2, 3, 2, 3], &[3], &[3]], |x| {
                x[0].batch_norm(None, Some(&x[1]), Some(&x[2]), 1e-5)
            })
            .and(&[&[2, 3, 4], &[3]], |x| {
                x[0].permute(&[2, 1, 0])?.batch_norm(None, Some(&x[1]), Some(&x[1]), 1e-5)
            })
            .and(&[&[4, 3], &[3], &[3]], move |x| {
                let (mean, var) = (weights(-0.3), weights(0.7));
                let y = (&x[0] * &x[0]).batch_norm(Some((&mean, &var)), Some(&x[1]), None, 1e-3)?;
                y.batch_norm(Some((&mean, &var)), None, Some(&x[2]), 0.0)
            })
            .and(&[&[0, 3], &[3]], |x| x[0].batch_norm(None, Some(&x[1]), Some(&x[1]), 1e-5)),
        Row::of("batch_norm_training", &[&[2, 3, 2], &[3], &[3]], |x| {
            Ok(x[0].batch_norm_training(Some(&x[1]), Some(&x[2]), 1e-5)?.0)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use tensor::Generator;

    fn randn(shape: &[usize], seed: u64) -> Tensor<f64> {
        Tensor::randn(shape, &mut Generator::new(seed)).unwrap()
    }

    fn close(a: &Tensor<f64>, b: &Tensor<f64>) {
        assert_eq!(a.shape(), b.shape());
        for (a, b) in a.to_vec().into_iter().zip(b.to_vec()) {
            assert!((a - b).abs() <= 1e-13 * (1.0 + b.abs()), "{a} {b}");
        }
    }

    #[test]
    fn it_is_the_formula_over_all_dims_but_the_channels() {
        let (x, w, b) = (randn(&[3, 4, 2, 5], 1), randn(&[4], 2), randn(&[4], 3));
        let [v, weight, bias] = [&x, &w, &b].map(|t| Var::constant(t.clone()));
        let [w, b] = [&w, &b].map(|t| t.reshape([4, 1, 1]).unwrap());
        let dims = [0, 2, 3];
        let away = &x - &x.mean_dim(&dims, true).unwrap();
        let var = x.var_dim(&dims, 0, true).unwrap();
        let want = away / &(var + 1e-3).sqrt() * &w + &b;
        let y = v.batch_norm(None, Some(&weight), Some(&bias), 1e-3).unwrap();
        close(y.value(), &want);
    }

    #[test]
    fn statistics_are_those_of_the_batch_and_evaluation_takes_them() {
        let x = randn(&[3, 4, 5], 1);
        let v = Var::constant(x.clone());
        let (y, BatchStatistics { mean, var }) = v.batch_norm_training(None, None, 1e-3).unwrap();
        close(&mean, &x.mean_dim(&[0, 2], false).unwrap());
        close(&var, &x.var_dim(&[0, 2], 1, false).unwrap());
        let biased = x.var_dim(&[0, 2], 0, false).unwrap();
        let evaluated = v.batch_norm(Some((&mean, &biased)), None, None, 1e-3).unwrap();
        close(evaluated.value(), y.value());
    }

    #[test]
    fn rejects_bad_shapes_and_options() {
        let z = |shape: &[usize]| Var::constant(Tensor::<f64>::zeros(shape).unwrap());
        let text = |r: Result<Var<f64>>| r.unwrap_err().to_string();
        let (x, w) = (z(&[2, 3, 4]), z(&[3]));
        assert!(text(w.batch_norm(None, None, None, 1e-5)).contains("expected [N, C, ..]"));
        assert!(text(x.batch_norm(None, Some(&z(&[4])), None, 1e-5)).contains("do not match"));
        let (c, d) = (z(&[3]).into_value(), z(&[2]).into_value());
        assert!(text(x.batch_norm(Some((&c, &d)), None, None, 1e-5)).contains("do not match"));
        assert!(text(x.batch_norm(Some((&c, &c)), None, None, -1.0)).contains("eps"));
        assert!(text(z(&[1, 3]).batch_norm(None, None, None, 1e-5)).contains("one element"));
    }
}
