//! Views: the same elements under another shape or order. The gradient is the reverse view.

use tensor::{Float, Result, Shape, Tensor};

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
        self.reshaped("reshape", self.value().reshape(shape)?)
    }

    /// [`Var::reshape`] that never copies: `dx` is g in the old shape. Saves nothing. Any order.
    /// `torch.Tensor.view`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the number of elements differs;
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the strides cannot express the
    /// result.
    #[track_caller]
    pub fn view(&self, shape: impl Into<Shape>) -> Result<Self> {
        self.reshaped("view", self.value().view(shape)?)
    }

    /// Makes one dim of the dims `start..=end`: `dx` is g in the old shape. Rank 0 becomes rank 1.
    /// Saves nothing. Any order. `torch.flatten`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `start` is behind `end`.
    #[track_caller]
    pub fn flatten(&self, start: isize, end: isize) -> Result<Self> {
        self.reshaped("flatten", self.value().flatten(start, end)?)
    }

    /// The same elements in the same order, as `y` holds them.
    #[track_caller]
    fn reshaped(&self, name: &'static str, y: Tensor<T>) -> Result<Self> {
        let own = Shape::from(self.shape());
        record(name, [self.node()], [], y, move |_, g, sink| sink.add(0, g.reshape(&own)?))
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
        Row::unary("reshape", |x| {
            let rows = x.shape().first().map_or(1, |&n| n.max(1));
            (x * x).reshape([rows, Shape::INFER])
        }),
        Row::of("view", &[&[2, 6]], |x| (&x[0] * &x[0]).view([3, 4]))
            .and(&[&[4, 3]], |x| x[0].transpose(0, 1)?.view([3, 2, 2]))
            .and(&[&[2, 1]], |x| (&x[0] * &x[0]).expand([2, 3])?.view([2, 3, 1]))
            .and(&[&[]], |x| x[0].view([1, 1]))
            .and(&[&[0, 3]], |x| x[0].view([3, 0])),
        Row::unary("flatten", |x| (x * x).flatten(0, -1)),
        Row::along_dim("flatten", |x, dim| (x * x).flatten(dim, -1)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn a_view_is_never_a_copy() {
        let x = Tape::new().var(Tensor::<f32>::zeros([2, 3]).unwrap());
        assert!(x.view([6]).unwrap().value().shares_storage(x.value()));
        let t = x.transpose(0, 1).unwrap();
        let text = t.view([6]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(
            text,
            "view: shape [6] needs a copy of shape [3, 2] with strides [1, 3]; `reshape` makes it"
        );
        assert_eq!(t.reshape([6]).unwrap().shape(), [6]);
        let text = x.flatten(1, 0).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "flatten: dims 1 is behind 0");
    }
}
