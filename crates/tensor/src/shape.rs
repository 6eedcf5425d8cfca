//! Sizes of the dimensions of a tensor, and the rules that need nothing but sizes.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

use crate::dims::Dims;
use crate::error::{Error, Result};

/// The sizes of a tensor's dimensions. Up to four are stored inline.
#[derive(Clone, PartialEq, Eq)]
pub struct Shape(Dims<usize>);

impl Default for Shape {
    fn default() -> Self {
        Shape(Dims::new())
    }
}

/// Bytes from which on the system is asked whether it has them; without, it would end the process.
const PROBED: usize = 1 << 30;

impl Shape {
    /// Stands for the size that the number of elements leaves over, in [`Tensor::reshape`] and
    /// [`Tensor::view`]: what −1 is in PyTorch and NumPy.
    ///
    /// [`Tensor::reshape`]: crate::Tensor::reshape
    /// [`Tensor::view`]: crate::Tensor::view
    pub const INFER: usize = usize::MAX;

    /// Replaces one [`Shape::INFER`] by the size that makes `numel` elements, where there is one.
    pub(crate) fn infer(&mut self, numel: usize) {
        let known = self.0.iter().filter(|&&size| size != Shape::INFER);
        let known = known.fold(1_usize, |n, &size| n.saturating_mul(size));
        let mut open = self.0.iter_mut().filter(|size| **size == Shape::INFER);
        if let (Some(size), None) = (open.next(), open.next())
            && known > 0
            && numel.is_multiple_of(known)
        {
            *size = numel / known;
        }
    }

    /// The number of elements, or an error where it or its size in bytes does not fit.
    pub(crate) fn checked_numel(&self, op: &'static str, element_size: usize) -> Result<usize> {
        // A dim of size zero must not hide an overflow of the others: strides are computed from all.
        let bound = self
            .0
            .iter()
            .try_fold(1_usize, |n, &d| n.checked_mul(d.max(1)))
            .and_then(|n| n.checked_mul(element_size));
        match bound {
            Some(bytes) if bytes <= isize::MAX as usize / 2 => Ok(self.numel()),
            _ => Err(Error::SizeOverflow { op, shape: self.to_vec() }),
        }
    }

    /// [`Shape::checked_numel`] of a tensor that is about to be made: an error too where the system
    /// does not give that much memory.
    pub(crate) fn checked_alloc(&self, op: &'static str, element_size: usize) -> Result<usize> {
        let numel = self.checked_numel(op, element_size)?;
        let bytes = numel * element_size;
        if bytes > PROBED && Vec::<u8>::new().try_reserve_exact(bytes).is_err() {
            return Err(Error::SizeOverflow { op, shape: self.to_vec() });
        }
        Ok(numel)
    }

    /// The number of elements; 1 for rank 0.
    pub fn numel(&self) -> usize {
        self.0.iter().product()
    }

    /// Turns a dim counted from either end into one counted from the front.
    pub(crate) fn resolve_dim(&self, op: &'static str, dim: isize) -> Result<usize> {
        resolve_dim(op, dim, self.len())
    }

    pub(crate) fn remove(&mut self, dim: usize) {
        self.0.remove(dim);
    }

    pub(crate) fn insert(&mut self, dim: usize, size: usize) {
        self.0.insert(dim, size);
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [usize] {
        &mut self.0
    }

    /// The NumPy broadcasting rule: aligned at the last dim, equal sizes or 1. `op` names the operation
    /// in errors. `torch.broadcast_shapes`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast.
    pub fn broadcast(op: &'static str, lhs: &[usize], rhs: &[usize]) -> Result<Shape> {
        let (long, short) = if lhs.len() >= rhs.len() { (lhs, rhs) } else { (rhs, lhs) };
        let mut out = Shape::from(long);
        let skip = long.len() - short.len();
        for (size, &other) in out.0[skip..].iter_mut().zip(short) {
            match (*size, other) {
                (a, b) if a == b => {}
                (1, b) => *size = b,
                (_, 1) => {}
                _ => {
                    return Err(Error::ShapeMismatch { op, lhs: lhs.to_vec(), rhs: rhs.to_vec() });
                }
            }
        }
        Ok(out)
    }
}

/// Turns a dim of `[-rank, rank)` into one of `[0, rank)`.
pub(crate) fn resolve_dim(op: &'static str, dim: isize, rank: usize) -> Result<usize> {
    let resolved = if dim < 0 { dim.checked_add(rank as isize) } else { Some(dim) };
    match resolved {
        Some(d) if d >= 0 && (d as usize) < rank => Ok(d as usize),
        _ => Err(Error::DimOutOfRange { op, dim, rank }),
    }
}

/// Which dims `dims` names, each once.
pub(crate) fn named_dims(
    op: &'static str,
    shape: &[usize],
    dims: &[isize],
) -> Result<SmallVec<[bool; 8]>> {
    let mut named: SmallVec<[bool; 8]> = SmallVec::from_elem(false, shape.len());
    for &dim in dims {
        let d = resolve_dim(op, dim, shape.len())?;
        if std::mem::replace(&mut named[d], true) {
            return Err(Error::InvalidArgument {
                op,
                name: "dims",
                reason: format!("names dim {dim} twice: {dims:?}"),
            });
        }
    }
    Ok(named)
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const N: usize> From<[usize; N]> for Shape {
    fn from(sizes: [usize; N]) -> Self {
        Shape(Dims::from_slice(&sizes))
    }
}

impl From<&[usize]> for Shape {
    fn from(sizes: &[usize]) -> Self {
        Shape(Dims::from_slice(sizes))
    }
}

impl From<Vec<usize>> for Shape {
    fn from(sizes: Vec<usize>) -> Self {
        Shape(Dims::from_slice(&sizes))
    }
}

impl From<&Shape> for Shape {
    fn from(shape: &Shape) -> Self {
        shape.clone()
    }
}

impl FromIterator<usize> for Shape {
    fn from_iter<I: IntoIterator<Item = usize>>(sizes: I) -> Self {
        Shape(sizes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasts_like_numpy() {
        let ok = |a: &[usize], b: &[usize]| Shape::broadcast("add", a, b).unwrap().to_vec();
        assert_eq!(ok(&[2, 1, 3], &[4, 1]), [2, 4, 3]);
        assert_eq!(ok(&[], &[5]), [5]);
        assert_eq!(ok(&[0, 3], &[1, 3]), [0, 3]);
        let err = Shape::broadcast("add", &[2, 3], &[2]).unwrap_err();
        assert_eq!(err.to_string(), "add: shapes do not match: [2, 3] and [2]");
    }

    #[test]
    fn resolves_dims_from_both_ends() {
        assert_eq!(resolve_dim("sum", -1, 3).unwrap(), 2);
        assert_eq!(resolve_dim("sum", 0, 3).unwrap(), 0);
        for dim in [3, -4, isize::MIN, isize::MAX] {
            assert!(resolve_dim("sum", dim, 3).is_err());
        }
        assert!(resolve_dim("sum", 0, 0).is_err());
    }

    #[test]
    fn overflowing_sizes_are_errors_even_beside_a_zero() {
        assert!(Shape::from([usize::MAX, 2]).checked_numel("zeros", 4).is_err());
        assert!(Shape::from([0, usize::MAX, 2]).checked_numel("zeros", 4).is_err());
        assert_eq!(Shape::from([0, 7]).checked_numel("zeros", 4).unwrap(), 0);
    }
}
