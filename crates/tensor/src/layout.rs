//! Where the elements of a tensor lie in its buffer: shape, signed strides and an offset.
//!
//! Every view operation is a function from layout to layout; none of them touches an element.
//!
//! Invariants of a layout that belongs to a tensor:
//! 1. `shape` and `strides` have the same length.
//! 2. For every index within `shape`, `offset + Σ indexᵢ·strideᵢ` lies inside the buffer.
//!
//! Views only ever reach elements that their source reaches, so 2 carries over from source to view.

use smallvec::SmallVec;

use crate::dims::Dims;
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::slice::Slice;

pub(crate) type Strides = Dims<isize>;

/// Shape, strides (in elements, signed) and offset of a tensor in its buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub(crate) shape: Shape,
    pub(crate) strides: Strides,
    pub(crate) offset: usize,
}

impl Layout {
    /// Row-major layout of `shape`, starting at offset 0.
    pub(crate) fn contiguous(shape: Shape) -> Self {
        let mut strides = Strides::from_elem(1, shape.len());
        if shape.len() <= 1 {
            return Layout { shape, strides, offset: 0 };
        }
        let mut step = 1_isize;
        for (stride, &size) in strides.iter_mut().zip(shape.iter()).rev() {
            *stride = step;
            step *= size.max(1) as isize;
        }
        Layout { shape, strides, offset: 0 }
    }

    /// Sizes of the dims.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Distance in elements between neighbours along each dim; may be 0 or negative.
    pub fn strides(&self) -> &[isize] {
        &self.strides
    }

    /// Position of the first element in the buffer.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Whether the elements lie in row-major order without gaps.
    pub fn is_contiguous(&self) -> bool {
        let mut step = 1_isize;
        for (&size, &stride) in self.shape.iter().zip(self.strides.iter()).rev() {
            if size != 1 && stride != step {
                return self.shape.numel() == 0;
            }
            step *= size as isize;
        }
        true
    }

    pub(crate) fn transpose(&self, dim0: isize, dim1: isize) -> Result<Self> {
        let a = self.shape.resolve_dim("transpose", dim0)?;
        let b = self.shape.resolve_dim("transpose", dim1)?;
        let mut out = self.clone();
        out.shape.as_mut_slice().swap(a, b);
        out.strides.swap(a, b);
        Ok(out)
    }

    pub(crate) fn permute(&self, dims: &[isize]) -> Result<Self> {
        let rank = self.shape.len();
        let mut order: SmallVec<[usize; 4]> = SmallVec::new();
        for &dim in dims {
            order.push(self.shape.resolve_dim("permute", dim)?);
        }
        let all_once = (0..rank).all(|d| order.iter().filter(|&&o| o == d).count() == 1);
        if order.len() != rank || !all_once {
            return Err(Error::InvalidArgument {
                op: "permute",
                name: "dims",
                reason: format!("must name each of the {rank} dims once, found {dims:?}"),
            });
        }
        Ok(self.permuted(&order))
    }

    /// `permute` with dims already checked.
    pub(crate) fn permuted(&self, order: &[usize]) -> Self {
        Layout {
            shape: order.iter().map(|&d| self.shape[d]).collect(),
            strides: order.iter().map(|&d| self.strides[d]).collect(),
            offset: self.offset,
        }
    }

    pub(crate) fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Self> {
        let d = self.shape.resolve_dim("narrow", dim)?;
        let size = self.shape[d];
        if start.checked_add(length).is_none_or(|end| end > size) {
            return Err(Error::InvalidArgument {
                op: "narrow",
                name: "range",
                reason: format!("{start}..{start}+{length} is outside dim {dim} of size {size}"),
            });
        }
        let mut out = self.clone();
        out.shape.as_mut_slice()[d] = length;
        out.shift(start as isize * self.strides[d]);
        Ok(out)
    }

    /// Repeats dims of size 1 by a stride of 0, and adds leading dims.
    pub(crate) fn expand(&self, op: &'static str, shape: &Shape) -> Result<Self> {
        let mismatch =
            || Error::ShapeMismatch { op, lhs: self.shape.to_vec(), rhs: shape.to_vec() };
        let lead = shape.len().checked_sub(self.shape.len()).ok_or_else(mismatch)?;
        let mut strides = Strides::from_elem(0, shape.len());
        for (d, (&size, &stride)) in self.shape.iter().zip(self.strides.iter()).enumerate() {
            if size == shape[lead + d] {
                strides[lead + d] = stride;
            } else if size != 1 {
                return Err(mismatch());
            }
        }
        Ok(Layout { shape: shape.clone(), strides, offset: self.offset })
    }

    pub(crate) fn squeeze(&self, dim: isize) -> Result<Self> {
        let d = self.shape.resolve_dim("squeeze", dim)?;
        let mut out = self.clone();
        if self.shape[d] == 1 {
            out.shape.remove(d);
            out.strides.remove(d);
        }
        Ok(out)
    }

    pub(crate) fn unsqueeze(&self, dim: isize) -> Result<Self> {
        let rank = self.shape.len();
        let d = crate::shape::resolve_dim("unsqueeze", dim, rank + 1)?;
        let mut out = self.clone();
        out.shape.insert(d, 1);
        out.strides.insert(d, 1);
        Ok(out)
    }

    /// Every `step`-th entry along `dim`, backwards where negative; bounds as Python has them.
    pub(crate) fn slice(&self, dim: isize, slice: Slice) -> Result<Self> {
        let d = self.shape.resolve_dim("slice", dim)?;
        let Slice { start, stop, step } = slice;
        if step == 0 {
            return Err(Error::InvalidArgument {
                op: "slice",
                name: "step",
                reason: "must not be 0".into(),
            });
        }
        let size = self.shape[d] as isize;
        // Backwards, the end is one before the first entry.
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let bound = |at: Option<isize>, default: isize| match at {
            None => default,
            Some(i) if i < 0 => i.saturating_add(size).clamp(low, high),
            Some(i) => i.clamp(low, high),
        };
        let (first, last) = if step > 0 { (low, high) } else { (high, low) };
        let (start, stop) = (bound(start, first), bound(stop, last));
        let reach = if step > 0 { stop - start } else { start - stop };
        let length = (reach.max(0) as usize).div_ceil(step.unsigned_abs());
        let mut out = self.clone();
        out.shape.as_mut_slice()[d] = length;
        if length > 1 {
            // Shorter than the dim, so the product is one that the dim spans.
            out.strides[d] *= step;
        }
        out.shift(start * self.strides[d]);
        Ok(out)
    }

    /// Moves the offset, which means something only where there are elements.
    fn shift(&mut self, by: isize) {
        if self.shape.numel() > 0 {
            self.offset = (self.offset as isize + by) as usize;
        }
    }

    /// The `index`-th entry along `dim`, which goes.
    pub(crate) fn select(&self, dim: isize, index: isize) -> Result<Self> {
        let d = self.shape.resolve_dim("select", dim)?;
        let size = self.shape[d];
        let position = if index < 0 { index.checked_add(size as isize) } else { Some(index) };
        let Some(position) = position.filter(|&p| p >= 0 && (p as usize) < size) else {
            let value = index as i64;
            return Err(Error::IndexOutOfRange { op: "select", position: 0, value, size });
        };
        let mut out = self.clone();
        out.shape.remove(d);
        out.strides.remove(d);
        out.shift(position * self.strides[d]);
        Ok(out)
    }

    /// The dims where `flipped` says so, backwards.
    pub(crate) fn flip(&self, flipped: impl Fn(usize) -> bool) -> Self {
        let mut out = self.clone();
        for d in (0..self.shape.len()).filter(|&d| flipped(d) && self.shape[d] > 1) {
            out.strides[d] = -self.strides[d];
            out.shift((self.shape[d] as isize - 1) * self.strides[d]);
        }
        out
    }

    /// The entries whose index along `dim2` is `offset` larger than along `dim1`, as the last dim.
    pub(crate) fn diagonal(&self, offset: isize, dim1: isize, dim2: isize) -> Result<Self> {
        let a = self.shape.resolve_dim("diagonal", dim1)?;
        let b = self.shape.resolve_dim("diagonal", dim2)?;
        if a == b {
            return Err(Error::InvalidArgument {
                op: "diagonal",
                name: "dims",
                reason: format!("must be two, found {dim1} and {dim2}"),
            });
        }
        let skip = offset.unsigned_abs();
        let (rows, columns) = (self.shape[a], self.shape[b]);
        let length = if offset < 0 {
            rows.saturating_sub(skip).min(columns)
        } else {
            columns.saturating_sub(skip).min(rows)
        };
        let rest: SmallVec<[usize; 4]> =
            (0..self.shape.len()).filter(|&d| d != a && d != b).collect();
        let mut out = self.permuted(&rest);
        out.shape.insert(rest.len(), length);
        out.strides.push(self.strides[a].wrapping_add(self.strides[b]));
        if length > 0 {
            out.shift(skip as isize * self.strides[if offset < 0 { a } else { b }]);
        }
        Ok(out)
    }

    /// Windows of `size` entries along `dim`, `step` apart: the windows stay at `dim`, their entries
    /// are a new last dim.
    pub(crate) fn unfold(&self, dim: isize, size: usize, step: usize) -> Result<Self> {
        let d = self.shape.resolve_dim("unfold", dim)?;
        let n = self.shape[d];
        let bad = |name, reason| Err(Error::InvalidArgument { op: "unfold", name, reason });
        if step == 0 {
            return bad("step", "must not be 0".into());
        }
        if size > n {
            return bad("size", format!("is {size}, but dim {dim} has {n} entries"));
        }
        let count = (n - size) / step + 1;
        let mut out = self.clone();
        out.shape.as_mut_slice()[d] = count;
        if count > 1 {
            out.strides[d] *= step as isize;
        }
        out.shape.insert(self.shape.len(), size);
        out.strides.push(self.strides[d]);
        Ok(out)
    }

    /// The layout of the same elements under another shape, where strides can express it.
    /// `None`: a copy is needed. The number of elements must already agree.
    pub(crate) fn reshape(&self, shape: &Shape) -> Option<Self> {
        if self.is_contiguous() {
            return Some(Layout { offset: self.offset, ..Layout::contiguous(shape.clone()) });
        }
        // Old and new dims are matched in groups of equal products; each old group must be
        // traversable with one stride.
        let old: SmallVec<[(usize, isize); 4]> = (self.shape.iter().zip(self.strides.iter()))
            .filter(|&(&size, _)| size != 1)
            .map(|(&size, &stride)| (size, stride))
            .collect();
        let mut strides = Strides::from_elem(1, shape.len());
        let (mut i, mut j) = (0, 0);
        while i < old.len() {
            let (mut have, mut want) = (old[i].0, 1);
            let (first_new, mut end_old) = (j, i + 1);
            while have != want {
                if want < have {
                    want *= shape[j];
                    j += 1;
                } else {
                    if old[end_old - 1].1 != old[end_old].1 * old[end_old].0 as isize {
                        return None;
                    }
                    have *= old[end_old].0;
                    end_old += 1;
                }
            }
            let mut step = old[end_old - 1].1;
            for d in (first_new..j).rev() {
                strides[d] = step;
                step *= shape[d] as isize;
            }
            i = end_old;
        }
        Some(Layout { shape: shape.clone(), strides, offset: self.offset })
    }

    /// The lowest and highest buffer positions in use, or `None` when there are no elements.
    pub(crate) fn span(&self) -> Option<(usize, usize)> {
        if self.shape.numel() == 0 {
            return None;
        }
        let (mut low, mut high) = (self.offset as isize, self.offset as isize);
        for (&size, &stride) in self.shape.iter().zip(self.strides.iter()) {
            let reach = (size as isize - 1) * stride;
            if reach < 0 { low += reach } else { high += reach }
        }
        Some((low as usize, high as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshape_views_where_strides_allow() {
        let l = Layout::contiguous([4, 6].into());
        let t = l.transpose(0, 1).unwrap();
        assert!(t.reshape(&[24].into()).is_none());
        assert_eq!(&t.reshape(&[2, 3, 4].into()).unwrap().strides[..], [3, 1, 6]);
        assert_eq!(&t.reshape(&[6, 1, 2, 2].into()).unwrap().strides[..], [1, 24, 12, 6]);
        let n = l.narrow(1, 1, 4).unwrap();
        assert_eq!(&n.reshape(&[4, 2, 2].into()).unwrap().strides[..], [6, 2, 1]);
        assert!(n.reshape(&[16].into()).is_none());
        let e = Layout::contiguous([1].into()).expand("expand", &[3, 4].into()).unwrap();
        assert_eq!(&e.reshape(&[12].into()).unwrap().strides[..], [0]);
    }

    #[test]
    fn views_reject_what_they_cannot_express() {
        let l = Layout::contiguous([2, 3].into());
        assert!(l.permute(&[0, 0]).is_err());
        assert!(l.permute(&[0]).is_err());
        assert!(l.narrow(1, 2, 2).is_err());
        assert!(l.narrow(0, usize::MAX, 2).is_err());
        assert!(l.expand("expand", &[3].into()).is_err());
        assert!(l.expand("expand", &[2, 2, 4].into()).is_err());
        assert!(l.unsqueeze(3).is_err());
        assert!(l.unsqueeze(-3).is_ok());
    }
}
