//! Sums and means: the gradient of a sum is its upstream gradient, repeated.

use tensor::{Float, Result, Shape};

use super::total;
use crate::tape::record;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Sum of all elements, of rank 0: `dx_i = g`. Saves nothing. Any order. `torch.sum`.
    #[must_use]
    #[track_caller]
    pub fn sum(&self) -> Self {
        let shape = Shape::from(self.shape());
        total(record("sum", [self.node()], [], self.value().sum(), move |_, g, sink| {
            sink.add(0, g.expand(&shape)?)
        }))
    }

    /// Mean of all n elements, of rank 0: `dx_i = g/n`; NaN for n = 0. Saves nothing. Any order.
    /// `torch.mean`.
    #[must_use]
    #[track_caller]
    pub fn mean(&self) -> Self {
        let shape = Shape::from(self.shape());
        let share = share::<T>(self.value().numel());
        total(record("mean", [self.node()], [], self.value().mean(), move |_, g, sink| {
            sink.add(0, (g * share).expand(&shape)?)
        }))
    }

    /// Sum over `dims`, which stay with size 1 where `keepdim`: `dx` is g, repeated along them.
    /// Saves nothing. Any order. `torch.sum(dim, keepdim)`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    #[track_caller]
    pub fn sum_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().sum_dim(dims, keepdim)?;
        let (kept, shape) = (self.keepdim_shape(dims)?, Shape::from(self.shape()));
        record("sum", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.reshape(&kept)?.expand(&shape)?)
        })
    }

    /// Mean over `dims`, n elements each: `dx` is g/n, repeated along them. Saves nothing. Any order.
    /// `torch.mean(dim, keepdim)`.
    ///
    /// # Errors
    /// As [`Var::sum_dim`].
    #[track_caller]
    pub fn mean_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().mean_dim(dims, keepdim)?;
        let (kept, shape) = (self.keepdim_shape(dims)?, Shape::from(self.shape()));
        let share = share::<T>(shape.numel() / kept.numel().max(1));
        record("mean", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, (g * share).reshape(&kept)?.expand(&shape)?)
        })
    }

    /// Sums to `shape`, undoing a broadcast: `dx` is g, repeated. Saves nothing. Any order.
    /// `torch.Tensor.sum_to_size`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if `shape` does not broadcast to the
    /// shape of `self`.
    #[track_caller]
    pub fn sum_to(&self, shape: &[usize]) -> Result<Self> {
        let own = Shape::from(self.shape());
        record("sum_to", [self.node()], [], self.value().sum_to(shape)?, move |_, g, sink| {
            sink.add(0, g.expand(&own)?)
        })
    }

    /// All dims, as a reduction names them.
    pub(super) fn all_dims(&self) -> Vec<isize> {
        (0..self.value().rank() as isize).collect()
    }

    /// The own shape with 1 in the place of each of `dims`.
    pub(super) fn keepdim_shape(&self, dims: &[isize]) -> Result<Shape> {
        let mut shape = self.shape().to_vec();
        for &dim in dims {
            shape[self.value().resolve_dim("sum", dim)?] = 1;
        }
        Ok(shape.into())
    }
}

/// How to see the elements of a reduction as rows: the reduced dims as one, the last.
pub(super) struct Rows {
    order: Vec<isize>,
    back: Vec<isize>,
    shape: Shape,
    matrix: [usize; 2],
}

impl Rows {
    /// The rows of a reduction of `x` over `dims`, which are in range and named once.
    pub(super) fn new<T: Float>(op: &'static str, x: &Var<T>, dims: &[isize]) -> Result<Self> {
        let over = (dims.iter()).map(|&dim| x.value().resolve_dim(op, dim));
        let over = over.collect::<Result<Vec<_>>>()?;
        let kept: Vec<usize> = (0..x.value().rank()).filter(|d| !over.contains(d)).collect();
        let size = |dims: &[usize]| dims.iter().map(|&d| x.shape()[d]).product();
        let matrix = [size(&kept), size(&over)];
        let order: Vec<usize> = kept.into_iter().chain(over).collect();
        let mut back = vec![0; order.len()];
        order.iter().enumerate().for_each(|(i, &d)| back[d] = i as isize);
        let shape = order.iter().map(|&d| x.shape()[d]).collect();
        Ok(Rows { order: order.into_iter().map(|d| d as isize).collect(), back, shape, matrix })
    }

    /// `x` as `[rows, elements]`.
    pub(super) fn of<T: Float>(&self, x: &Var<T>) -> Result<Var<T>> {
        x.permute(&self.order)?.reshape(self.matrix)
    }

    /// What [`Rows::of`] gave, as it was.
    pub(super) fn undo<T: Float>(&self, rows: &Var<T>) -> Result<Var<T>> {
        rows.reshape(&self.shape)?.permute(&self.back)
    }
}

/// 1/n; 0 for n = 0, where there is no element to take a share.
fn share<T: Float>(n: usize) -> T {
    if n == 0 { T::ZERO } else { T::from_f64(1.0 / n as f64) }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("sum", |x| Ok(x.sum())),
        Row::unary("mean", |x| Ok(x.mean())),
        Row::along_dim("sum_dim", |x, dim| x.sum_dim(&[dim], true)),
        Row::along_dim("sum_dim", |x, dim| (x * x).sum_dim(&[dim], false)),
        Row::unary("sum_dim", |x| {
            (x * x).sum_dim(&(0..x.value().rank() as isize).collect::<Vec<_>>(), false)
        }),
        Row::along_dim("mean_dim", |x, dim| (x * x).mean_dim(&[dim], false)),
        Row::along_dim("mean_dim", |x, dim| (x * x).mean_dim(&[dim], true)),
        Row::unary("sum_to", |x| (x * x).sum_to(&vec![1; x.value().rank()])),
        Row::unary("sum_to", |x| (x * x).sum_to(&[])),
    ]
}
