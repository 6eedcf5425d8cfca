//! Softmax and its logarithm along one dim: `p = e^(x − lse)`, `y = x − lse`, with
//! `lse = ln Σ_j e^(x_j)`.

use tensor::kernels::softmax::{self as kernel, RowSums};
use tensor::{Float, Result};

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
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::along_dim("log_softmax", |x, dim| x.log_softmax(dim)),
        Row::along_dim("log_softmax", |x, dim| (x * 20.0).log_softmax(dim)),
        Row::along_dim("softmax", |x, dim| x.softmax(dim)),
    ]
}
