//! Views: the same elements under another shape or order. The gradient is the reverse view.

use tensor::{Float, Result, Shape};

use crate::tape::record;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// The same elements in row-major order under another shape: `dx` is g in the old shape. Saves
    /// nothing. Any order. `torch.reshape`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the number of elements differs.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let own = Shape::from(self.shape());
        record("reshape", [self.node()], [], self.value().reshape(shape)?, move |_, g, sink| {
            sink.add(0, g.reshape(&own)?)
        })
    }

    /// Swaps two dims: `dx` is g with them swapped. Saves nothing. Any order. `torch.transpose`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn transpose(&self, dim0: isize, dim1: isize) -> Result<Self> {
        let y = self.value().transpose(dim0, dim1)?;
        record("transpose", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.transpose(dim0, dim1)?)
        })
    }

    /// Reorders the dims: dim i of the result is `dims[i]`; `dx` is g in the old order. Saves
    /// nothing. Any order. `torch.permute`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) unless `dims` names every dim once.
    #[track_caller]
    pub fn permute(&self, dims: &[isize]) -> Result<Self> {
        let y = self.value().permute(dims)?;
        let mut back = vec![0; dims.len()];
        for (i, &dim) in dims.iter().enumerate() {
            back[self.value().resolve_dim("permute", dim)?] = i as isize;
        }
        record("permute", [self.node()], [], y, move |_, g, sink| sink.add(0, g.permute(&back)?))
    }

    /// Repeats dims of size 1 and adds leading dims: `dx` is g summed over them. Saves nothing. Any
    /// order. `torch.broadcast_to`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if a dim is neither 1 nor already of
    /// that size.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Result<Self> {
        let y = self.value().expand(shape)?;
        record("expand", [self.node()], [], y, |_, g, sink| sink.add_broadcast(0, g))
    }

    /// Removes `dim` if its size is 1: `dx` is g with it. Saves nothing. Any order. `torch.squeeze`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn squeeze(&self, dim: isize) -> Result<Self> {
        let d = self.value().resolve_dim("squeeze", dim)?;
        let mut shape = self.shape().to_vec();
        if shape[d] == 1 {
            shape.remove(d);
        }
        self.reshape(shape)
    }

    /// Inserts a dim of size 1 before `dim`: `dx` is g without it. Saves nothing. Any order.
    /// `torch.unsqueeze`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn unsqueeze(&self, dim: isize) -> Result<Self> {
        let shape = Shape::from(self.value().unsqueeze(dim)?.shape());
        self.reshape(shape)
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("reshape", |x| (x * x).reshape([x.value().numel(), 1])),
        Row::along_dim("transpose", |x, dim| (x * x).transpose(0, dim)),
        Row::unary("permute", |x| {
            let rank = x.value().rank() as isize;
            (x * x).permute(&(0..rank).map(|d| (d + 1) % rank).collect::<Vec<_>>())
        }),
        Row::along_dim("unsqueeze", |x, dim| (x * x).unsqueeze(dim)),
        Row::along_dim("squeeze", |x, dim| (x * x).unsqueeze(dim)?.squeeze(dim)),
        Row::along_dim("squeeze", |x, dim| (x * x).squeeze(dim)),
        Row::along_dim("expand", |x, dim| {
            let mut shape = x.shape().to_vec();
            shape.insert(0, 2);
            x.sum_dim(&[dim], true)?.expand(shape)
        }),
    ]
}
