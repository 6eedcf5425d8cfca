//! The tensor: a buffer and a layout. Construction, access and views; mathematics is elsewhere.

use crate::buffer::Buffer;
use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernels::walk;
use crate::layout::Layout;
use crate::shape::Shape;

/// A strided n-d array. Cloning shares the storage; writing copies it first where it is shared.
pub struct Tensor<T: Element> {
    pub(crate) buffer: Buffer<T>,
    pub(crate) layout: Layout,
}

impl<T: Element> Clone for Tensor<T> {
    fn clone(&self) -> Self {
        Tensor { buffer: self.buffer.clone(), layout: self.layout.clone() }
    }
}

/// Construction.
impl<T: Element> Tensor<T> {
    /// The elements of `data` in row-major order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `data` has another length than `shape` has elements.
    pub fn from_vec(data: Vec<T>, shape: impl Into<Shape>) -> Result<Self> {
        Self::from_slice(&data, shape)
    }

    /// A copy of `data` in row-major order.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `data` has another length than `shape` has elements.
    pub fn from_slice(data: &[T], shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        let numel = shape.checked_alloc("from_vec", size_of::<T>())?;
        if numel != data.len() {
            return Err(Error::InvalidArgument {
                op: "from_vec",
                name: "data",
                reason: format!("has {} elements, shape {shape:?} has {numel}", data.len()),
            });
        }
        Ok(Self::build(shape, |out| out.copy_from_slice(data)))
    }

    /// One value, of rank 0.
    pub fn scalar(value: T) -> Self {
        Self::build([].into(), |out| out[0] = value)
    }

    /// A contiguous tensor filled by `write`, which must set every element. `shape` is checked.
    pub(crate) fn build(shape: Shape, write: impl FnOnce(&mut [T])) -> Self {
        let mut buffer = Buffer::stale(shape.numel());
        match buffer.get_mut() {
            Some(out) => write(out),
            None => unreachable!("bug: a new buffer is shared"),
        }
        Tensor { buffer, layout: Layout::contiguous(shape) }
    }
}

/// Access.
impl<T: Element> Tensor<T> {
    /// Sizes of the dims.
    pub fn shape(&self) -> &[usize] {
        &self.layout.shape
    }

    /// Number of dims.
    pub fn rank(&self) -> usize {
        self.layout.shape.len()
    }

    /// Number of elements; 1 for rank 0.
    pub fn numel(&self) -> usize {
        self.layout.shape.numel()
    }

    /// Shape, strides and offset.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The sizes as an array, for an operation named `op` that takes rank `N`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] if the rank is not `N`.
    pub fn dims<const N: usize>(&self, op: &'static str) -> Result<[usize; N]> {
        let expected = match N {
            0 => "a scalar",
            1 => "a vector",
            2 => "a matrix",
            _ => "a tensor of another rank",
        };
        self.shape().try_into().map_err(|_| Error::RankMismatch {
            op,
            expected,
            shape: self.shape().to_vec(),
        })
    }

    /// Turns a dim counted from either end into one counted from the front.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`], naming `op`.
    pub fn resolve_dim(&self, op: &'static str, dim: isize) -> Result<usize> {
        self.layout.shape.resolve_dim(op, dim)
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.layout.is_contiguous()
    }

    /// The elements, where they lie in row-major order without gaps.
    pub fn as_slice(&self) -> Option<&[T]> {
        let start = self.layout.offset;
        self.is_contiguous().then(|| &self.buffer.as_slice()[start..start + self.numel()])
    }

    /// [`Tensor::as_slice`] of a tensor known to be contiguous.
    pub(crate) fn elements(&self) -> &[T] {
        match self.as_slice() {
            Some(slice) => slice,
            None => unreachable!("bug: a tensor that was made contiguous is not"),
        }
    }

    /// A copy of the elements in row-major order.
    pub fn to_vec(&self) -> Vec<T> {
        self.contiguous().elements().to_vec()
    }

    /// The only element.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless there is exactly one element.
    pub fn item(&self) -> Result<T> {
        if self.numel() != 1 {
            return Err(Error::RankMismatch {
                op: "item",
                expected: "one element",
                shape: self.shape().to_vec(),
            });
        }
        Ok(self.buffer.as_slice()[self.layout.offset])
    }

    /// `self`, or a row-major copy where `self` is not row-major without gaps.
    #[must_use]
    pub fn contiguous(&self) -> Self {
        if self.is_contiguous() {
            return self.clone();
        }
        self.copied()
    }

    /// A row-major copy.
    pub(crate) fn copied(&self) -> Self {
        Self::build(self.layout.shape.clone(), |out| {
            walk::gather_into((self.buffer.as_slice(), &self.layout), out);
        })
    }

    /// The elements for writing, row-major. Where the storage is shared or has gaps, `self` moves to
    /// a copy first: other tensors never see the change.
    pub fn make_mut(&mut self) -> &mut [T] {
        if self.owned_slice().is_none() {
            *self = self.copied();
        }
        match self.owned_slice() {
            Some(slice) => slice,
            None => unreachable!("bug: a fresh copy is shared"),
        }
    }

    /// The elements for writing, where nobody shares them and they are row-major.
    pub(crate) fn owned_slice(&mut self) -> Option<&mut [T]> {
        if !self.layout.is_contiguous() {
            return None;
        }
        let range = self.layout.offset..self.layout.offset + self.layout.shape.numel();
        self.buffer.get_mut().map(|all| &mut all[range])
    }

    /// Whether `self` and `other` share their storage.
    pub fn shares_storage(&self, other: &Self) -> bool {
        self.buffer.same_storage(&other.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arange(shape: &[usize]) -> Tensor<f32> {
        let n: usize = shape.iter().product();
        Tensor::from_vec((0..n).map(|i| i as f32).collect(), shape).unwrap()
    }

    #[test]
    fn views_share_and_writers_copy() {
        let x = arange(&[2, 3]);
        let mut t = x.transpose(0, 1).unwrap();
        assert!(t.shares_storage(&x));
        t.make_mut()[0] = 9.0;
        assert!(!t.shares_storage(&x));
        assert_eq!(x.to_vec(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(t.to_vec(), [9.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn an_expanded_tensor_is_never_written_in_place() {
        let mut e = Tensor::scalar(1.0_f32).expand([2, 2]).unwrap();
        e.make_mut()[0] = 5.0;
        assert_eq!(e.to_vec(), [5.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn sizes_zero_and_rank_zero() {
        let empty = Tensor::<f32>::zeros([0, 3]).unwrap();
        assert_eq!(empty.reshape([3, 0, 2]).unwrap().to_vec(), []);
        assert_eq!(empty.transpose(0, 1).unwrap().contiguous().shape(), [3, 0]);
        assert_eq!(empty.narrow(1, 3, 0).unwrap().shape(), [0, 0]);
        assert_eq!(Tensor::scalar(2.0_f32).reshape([1, 1]).unwrap().item().unwrap(), 2.0);
        assert!(empty.item().is_err());
        assert!(Tensor::from_vec(vec![1.0_f32; 3], [2]).is_err());
        assert!(Tensor::<f32>::zeros([usize::MAX, 8]).is_err());
        assert!(arange(&[1]).expand([usize::MAX]).is_err());
    }
}
