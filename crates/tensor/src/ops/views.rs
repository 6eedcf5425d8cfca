//! Views: the same storage under another layout. Nothing is copied but by `reshape` and `flatten`
//! where strides cannot express the result.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::shape::{Shape, named_dims};
use crate::slice::Slice;
use crate::tensor::Tensor;

/// Views: no element is copied, and the storage is shared.
impl<T: Element> Tensor<T> {
    fn with(&self, layout: Layout) -> Self {
        debug_assert!(layout.span().is_none_or(|(_, high)| high < self.buffer.as_slice().len()));
        Tensor { buffer: self.buffer.clone(), layout }
    }

    /// The same elements in row-major order under another shape; a view where the strides allow,
    /// else a copy. One size may be [`Shape::INFER`]. `torch.reshape`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the number of elements differs.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = self.shape_of_same_size("reshape", shape.into())?;
        Ok(match self.layout.reshape(&shape) {
            Some(layout) => self.with(layout),
            None => {
                let copy = self.contiguous();
                Tensor { buffer: copy.buffer, layout: Layout::contiguous(shape) }
            }
        })
    }

    /// [`Tensor::reshape`] that never copies. `torch.Tensor.view`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the number of elements differs; [`Error::InvalidArgument`] if the
    /// strides cannot express the result.
    pub fn view(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = self.shape_of_same_size("view", shape.into())?;
        match self.layout.reshape(&shape) {
            Some(layout) => Ok(self.with(layout)),
            None => Err(Error::InvalidArgument {
                op: "view",
                name: "shape",
                reason: format!(
                    "{shape:?} needs a copy of shape {:?} with strides {:?}; `reshape` makes it",
                    self.shape(),
                    &self.layout.strides[..]
                ),
            }),
        }
    }

    fn shape_of_same_size(&self, op: &'static str, mut shape: Shape) -> Result<Shape> {
        shape.infer(self.numel());
        if shape.contains(&Shape::INFER) {
            return Err(Error::InvalidArgument {
                op,
                name: "shape",
                reason: format!(
                    "leaves a size open that the {} elements of {:?} do not determine",
                    self.numel(),
                    self.shape()
                ),
            });
        }
        let same = shape.checked_numel(op, size_of::<T>()).is_ok_and(|n| n == self.numel());
        if same {
            return Ok(shape);
        }
        Err(Error::ShapeMismatch { op, lhs: self.shape().to_vec(), rhs: shape.to_vec() })
    }

    /// Makes one dim of the dims `start..=end`; a view where the strides allow. Rank 0 becomes rank
    /// 1. `torch.flatten`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if `start` is behind `end`.
    #[doc(alias = "ravel")]
    pub fn flatten(&self, start: isize, end: isize) -> Result<Self> {
        if self.rank() == 0 {
            crate::shape::resolve_dim("flatten", start, 1)?;
            crate::shape::resolve_dim("flatten", end, 1)?;
            return self.reshape([1]);
        }
        let first = self.resolve_dim("flatten", start)?;
        let last = self.resolve_dim("flatten", end)?;
        if first > last {
            return Err(Error::InvalidArgument {
                op: "flatten",
                name: "dims",
                reason: format!("{start} is behind {end}"),
            });
        }
        let (lead, rest) = self.shape().split_at(first);
        let (merged, tail) = rest.split_at(last - first + 1);
        let sizes = lead.iter().copied().chain([merged.iter().product()]);
        self.reshape(sizes.chain(tail.iter().copied()).collect::<Shape>())
    }

    /// Swaps two dims. `torch.transpose`, `numpy.swapaxes`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn transpose(&self, dim0: isize, dim1: isize) -> Result<Self> {
        Ok(self.with(self.layout.transpose(dim0, dim1)?))
    }

    /// Reorders the dims: dim `i` of the result is `dims[i]` of `self`. `torch.permute`,
    /// `numpy.transpose`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `dims` names every dim once.
    pub fn permute(&self, dims: &[isize]) -> Result<Self> {
        Ok(self.with(self.layout.permute(dims)?))
    }

    /// The `length` entries from `start` on along `dim`. `torch.narrow`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the range leaves the dim.
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Self> {
        Ok(self.with(self.layout.narrow(dim, start, length)?))
    }

    /// Repeats dims of size 1, and adds leading dims, without copying. `torch.broadcast_to`,
    /// `torch.Tensor.expand` (without its −1).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if a dim is neither 1 nor already of that size.
    #[doc(alias = "broadcast_to")]
    pub fn expand(&self, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        shape.checked_numel("expand", size_of::<T>())?;
        Ok(self.with(self.layout.expand("expand", &shape)?))
    }

    /// Removes `dim` if its size is 1. `torch.squeeze`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn squeeze(&self, dim: isize) -> Result<Self> {
        Ok(self.with(self.layout.squeeze(dim)?))
    }

    /// Inserts a dim of size 1 before `dim`, in `[-rank-1, rank+1)`. `torch.unsqueeze`,
    /// `numpy.expand_dims`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn unsqueeze(&self, dim: isize) -> Result<Self> {
        Ok(self.with(self.layout.unsqueeze(dim)?))
    }

    /// Entries of `dim` as Python's `start:stop:step` names them. `x[start:stop:step]`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the step is 0.
    ///
    /// # Examples
    /// ```
    /// # use tensor::{Slice, Tensor};
    /// let x = Tensor::from([0_i64, 1, 2, 3, 4]);
    /// assert_eq!(x.slice(0, 1..-1)?.to_vec(), [1, 2, 3]);
    /// assert_eq!(x.slice(0, Slice::from(..).step(-2))?.to_vec(), [4, 2, 0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    pub fn slice(&self, dim: isize, entries: impl Into<Slice>) -> Result<Self> {
        Ok(self.with(self.layout.slice(dim, entries.into())?))
    }

    /// The `index`-th entry of `dim`, counted from either end; the dim goes. `torch.select`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::IndexOutOfRange`].
    pub fn select(&self, dim: isize, index: isize) -> Result<Self> {
        Ok(self.with(self.layout.select(dim, index)?))
    }

    /// Reverses the order along `dims`. `torch.flip` (a view here).
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
    pub fn flip(&self, dims: &[isize]) -> Result<Self> {
        let flipped = named_dims("flip", self.shape(), dims)?;
        Ok(self.with(self.layout.flip(|d| flipped[d])))
    }

    /// The entries whose index along `dim2` is `offset` larger than along `dim1`; both dims go, and
    /// the diagonal is the last dim. `torch.diagonal`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the two dims are one.
    #[doc(alias = "diag")]
    pub fn diagonal(&self, offset: isize, dim1: isize, dim2: isize) -> Result<Self> {
        Ok(self.with(self.layout.diagonal(offset, dim1, dim2)?))
    }

    /// Windows of `size` entries along `dim`, `step` apart: window `i` stands at index `i` of `dim`,
    /// its entries along a new last dim. `torch.Tensor.unfold`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if `size` is larger than the dim or
    /// `step` is 0; [`Error::SizeOverflow`].
    #[doc(alias = "sliding_window_view")]
    pub fn unfold(&self, dim: isize, size: usize, step: usize) -> Result<Self> {
        let layout = self.layout.unfold(dim, size, step)?;
        layout.shape.checked_numel("unfold", size_of::<T>())?;
        Ok(self.with(layout))
    }

    /// Pieces of `size` entries along `dim`, the last one with what is left; one empty piece of an
    /// empty dim. `torch.split`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if `size` is 0 and the dim is not.
    pub fn split(&self, size: usize, dim: isize) -> Result<Vec<Self>> {
        let d = self.resolve_dim("split", dim)?;
        let n = self.shape()[d];
        if size == 0 && n > 0 {
            return Err(Error::InvalidArgument {
                op: "split",
                name: "size",
                reason: format!("must not be 0 for dim {dim} of size {n}"),
            });
        }
        let starts = (0..n.max(1)).step_by(size.max(1));
        starts.map(|start| self.narrow(dim, start, size.min(n - start))).collect()
    }

    /// Pieces of the given sizes along `dim`. `torch.split` with a list.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the sizes do not add up to the dim's.
    pub fn split_with_sizes(&self, sizes: &[usize], dim: isize) -> Result<Vec<Self>> {
        let d = self.resolve_dim("split_with_sizes", dim)?;
        let n = self.shape()[d];
        if sizes.iter().try_fold(0_usize, |sum, &size| sum.checked_add(size)) != Some(n) {
            return Err(Error::InvalidArgument {
                op: "split_with_sizes",
                name: "sizes",
                reason: format!("{sizes:?} do not add up to dim {dim} of size {n}"),
            });
        }
        let mut start = 0;
        let piece = |&size: &usize| {
            start += size;
            self.narrow(dim, start - size, size)
        };
        sizes.iter().map(piece).collect()
    }

    /// At most `chunks` pieces of equal size along `dim`, but for the last; one empty piece of an
    /// empty dim. `torch.chunk`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if `chunks` is 0.
    #[doc(alias = "array_split")]
    pub fn chunk(&self, chunks: usize, dim: isize) -> Result<Vec<Self>> {
        let d = self.resolve_dim("chunk", dim)?;
        if chunks == 0 {
            return Err(Error::InvalidArgument {
                op: "chunk",
                name: "chunks",
                reason: "must not be 0".into(),
            });
        }
        self.split(self.shape()[d].div_ceil(chunks), dim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_open_size_follows_from_the_others() {
        let x = Tensor::<i64>::arange(0, 12, 1).unwrap();
        assert_eq!(x.view([3, Shape::INFER]).unwrap().shape(), [3, 4]);
        let text = |shape: &[usize]| x.reshape(shape).map(|_| ()).unwrap_err().to_string();
        let wanted =
            "reshape: shape leaves a size open that the 12 elements of [12] do not determine";
        assert_eq!(text(&[Shape::INFER, Shape::INFER]), wanted);
        assert_eq!(text(&[5, Shape::INFER]), wanted);
        let empty = Tensor::<f32>::zeros([3, 0]).unwrap();
        assert_eq!(empty.reshape([Shape::INFER, 4]).unwrap().shape(), [0, 4]);
        assert!(empty.reshape([Shape::INFER, 0]).is_err());
    }
}
