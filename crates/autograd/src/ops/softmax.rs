//! Softmax and its logarithm along one dim: `p = e^(x − lse)`, `y = x − lse`, with
//! `lse = ln Σ_j e^(x_j)`, and that sum itself.

use tensor::kernels::softmax::{self as kernel, RowSums};
use tensor::{Float, Result, Tensor};

use super::reduce::Rows;
use super::total;
use crate::tape::{Save, Tag, record, record_tagged};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Log of the softmax along `dim`: `y_i = x_i − ln Σ_j exp(x_j)`, in nats.
    ///
    /// A [`nll_loss`](Var::nll_loss) of the result is fused with it: see there.
    ///
    /// # Shape
    /// `[.., C, ..]` → the same. Any rank ≥ 1, any strides; `dim ∈ [−rank, rank)`.
    ///
    /// # Gradient
    /// `dx = g − exp(y)·Σ_dim g`. Saves x and a few numbers per row. Any order.
    ///
    /// # Numerics
    /// Every entry is accurate, also those next to 0. A row with NaN, +∞ or nothing but −∞ is NaN.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from_vec(vec![0.0_f64, 0.0, 40.0], [3])?);
    /// let y = x.log_softmax(-1)?.value().to_vec();
    /// assert_eq!(y[..2], [-40.0, -40.0]);
    /// assert!((y[2] + 2.0 * (-40.0_f64).exp()).abs() < 1e-32); // PyTorch: 0
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.log_softmax`; Blanchard, Higham & Higham, IMA J. Numer. Anal. 41 (2021).
    #[track_caller]
    pub fn log_softmax(&self, dim: isize) -> Result<Self> {
        let dim = self.value().resolve_dim("log_softmax", dim)?;
        let (y, sums) = kernel::log_softmax(self.value(), dim);
        let op = ("log_softmax", Tag::LogSoftmax { dim: dim as u32 });
        record_tagged(op, &[self.node()], &[Save::Input(self)], y, move |ctx, g, sink| {
            sink.add(0, ctx.saved(0).log_softmax_backward(&g, dim, &sums)?)
        })
    }

    /// `dx = g − p·Σ_dim g`, the gradient of log-softmax, as a function of `self = x` and g. With
    /// upstream gradient v it has `dg = v − ⟨p, v⟩` and `dx = −Σg · p·(v − ⟨p, v⟩)`.
    fn log_softmax_backward(&self, g: &Self, dim: usize, sums: &[RowSums]) -> Result<Self> {
        let dx = kernel::log_softmax_backward(g.value(), self.value(), dim, sums);
        let saved = [Save::Input(self), Save::Input(g)];
        record("log_softmax_backward", [self.node(), g.node()], saved, dx, move |ctx, v, sink| {
            let dims = [dim as isize];
            let p = ctx.saved(0).softmax(dims[0])?;
            let centred = &v - (&p * &v).sum_dim(&dims, true)?;
            if ctx.needs(0) {
                let total = ctx.saved(1).sum_dim(&dims, true)?;
                sink.add(0, -(p * &centred * total))?;
            }
            sink.add(1, centred)
        })
    }

    /// Softmax along `dim`: `y_i = exp(x_i)/Σ_j exp(x_j)`.
    ///
    /// # Shape
    /// `[.., C, ..]` → the same. Any rank ≥ 1, any strides; `dim ∈ [−rank, rank)`.
    ///
    /// # Gradient
    /// `dx = y·(g − Σ_dim g·y)`. Saves the output. Any order.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    ///
    /// # Reference
    /// `torch.nn.functional.softmax`.
    #[track_caller]
    pub fn softmax(&self, dim: isize) -> Result<Self> {
        let dim = self.value().resolve_dim("softmax", dim)?;
        let y = kernel::softmax(self.value(), dim);
        record("softmax", [self.node()], [Save::Output], y, move |ctx, g, sink| {
            let y = ctx.saved(0);
            let mean = (&g * &y).sum_dim(&[dim as isize], true)?;
            sink.add(0, (g - mean) * y)
        })
    }

    /// `y = ln Σ exp(x)` of all elements, of rank 0; −∞ where there are none. `dx = g·softmax(x)`.
    /// Saves the input. Any order. `torch.logsumexp`.
    ///
    /// # Numerics
    /// As [`Var::logsumexp_dim`].
    #[must_use]
    #[track_caller]
    pub fn logsumexp(&self) -> Self {
        total(self.logsumexp_dim(&self.all_dims(), false))
    }

    /// `y = ln Σ exp(x)` over `dims`, which stay with size 1 where `keepdim`: `dx = g·softmax(x)`.
    /// Saves the input. Any order. `torch.logsumexp(dim, keepdim)`.
    ///
    /// # Numerics
    /// Without overflow, and `dx` is not made of the rounded y. Elements of −∞ count nothing. Where all
    /// are −∞, y is −∞ and the gradient NaN; a row with +∞ has y = ∞, and the gradient is NaN at the
    /// +∞ and 0 elsewhere: as PyTorch.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    #[track_caller]
    pub fn logsumexp_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().logsumexp_dim(dims, keepdim)?;
        let (kept, rows) = (self.keepdim_shape(dims)?, Rows::new("logsumexp", self, dims)?);
        let only = if let [dim] = dims { Some(*dim) } else { None };
        let overwhelmed = self.overwhelmed(&y.reshape(&kept)?)?;
        record("logsumexp", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            let x = ctx.saved(0);
            let p = match only {
                Some(dim) => x.softmax(dim)?,
                None => rows.undo(&rows.of(&x)?.softmax(1)?)?,
            };
            let p = match &overwhelmed {
                Some(passes) => p.threshold_backward(passes)?,
                None => p,
            };
            sink.add(0, p * g.reshape(&kept)?)
        })
    }

    /// 0 where an element is beside a +∞ that makes y infinite, else 1; nothing if no y is.
    fn overwhelmed(&self, y: &Tensor<T>) -> Result<Option<Tensor<T>>> {
        let infinite = y.eq(T::INFINITY)?;
        if !infinite.any().item()? {
            return Ok(None);
        }
        let beside = self.value().lt(T::INFINITY)?.logical_and(&infinite)?;
        beside.where_cond(T::ZERO, T::ONE).map(Some)
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::along_dim("log_softmax", |x, dim| x.log_softmax(dim)),
        Row::along_dim("log_softmax", |x, dim| (x * 20.0).log_softmax(dim)),
        Row::along_dim("softmax", |x, dim| x.softmax(dim)),
        Row::unary("logsumexp", |x| Ok(x.logsumexp())),
        Row::unary("logsumexp", |x| Ok((x * x * 10.0).logsumexp())),
        Row::along_dim("logsumexp_dim", |x, dim| x.logsumexp_dim(&[dim], true)),
        Row::along_dim("logsumexp_dim", |x, dim| (x * 20.0).logsumexp_dim(&[dim], false)),
        Row::of("logsumexp_dim", &[&[2, 3, 4]], |x| x[0].logsumexp_dim(&[0, -1], false))
            .and(&[&[2, 3, 4]], |x| x[0].logsumexp_dim(&[2, 1], true))
            .and(&[&[2, 3]], |x| (&x[0] * &x[0]).logsumexp_dim(&[], true)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    fn logsumexp<T: Float>(x: &[T]) -> (T, Vec<T>) {
        let x = Tape::new().var(Tensor::from_slice(x, [x.len()]).unwrap());
        let y = x.logsumexp_dim(&[0], false).unwrap();
        (y.item().unwrap(), y.backward().unwrap().wrt(&x).unwrap().to_vec())
    }

    #[test]
    fn logsumexp_neither_overflows_nor_loses_small_terms() {
        assert_eq!(logsumexp(&[1e4_f32, -1e4]), (1e4, vec![1.0, 0.0]));
        let (y, dx) = logsumexp(&[1e4_f32, 1e4 + 0.5]);
        let p = 1.0 / (1.0 + 0.5_f64.exp());
        // y itself has only three digits after the point here, the gradient has all of its own.
        assert!((f64::from(y) - (1e4 + 0.5 + (-0.5_f64).exp().ln_1p())).abs() < 1e-3);
        assert!((f64::from(dx[0]) - p).abs() < 1e-7, "{dx:?}");
    }

    #[test]
    fn logsumexp_of_infinities() {
        let low = f64::NEG_INFINITY;
        assert_eq!(logsumexp(&[low, 2.0]), (2.0, vec![0.0, 1.0]));
        let (y, dx) = logsumexp(&[low, low]);
        assert!(y == low && dx.iter().all(|d| d.is_nan()));
        let (y, dx) = logsumexp(&[1.0, f64::INFINITY]);
        assert!(y == f64::INFINITY && dx[0] == 0.0 && dx[1].is_nan());
        assert!(logsumexp(&[1.0, f64::NAN]).0.is_nan());
        let none = Var::<f64>::constant(Tensor::zeros([0]).unwrap());
        assert_eq!(none.logsumexp().item().unwrap(), low);
        let text = none.logsumexp_dim(&[1], true).unwrap_err().to_string();
        assert_eq!(text, "logsumexp: dim 1 is out of range for rank 1");
    }
}
