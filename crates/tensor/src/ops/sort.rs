//! Orders: sorting along a dim, the largest few, and counts of integers.
//!
//! The order is that of numbers, with −0 equal to 0 and NaN the largest; `false` is below `true`.

use std::cmp::Ordering;

use rayon::prelude::*;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernels::walk::GRAIN;
use crate::tensor::Tensor;

/// Sorting.
impl<T: Element> Tensor<T> {
    /// The elements along `dim` in rising (or falling) order, and where each was; equal ones keep their
    /// order. `torch.sort(stable=True)`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn sort(&self, dim: isize, descending: bool) -> Result<(Self, Tensor<i64>)> {
        let size = self.shape()[self.resolve_dim("sort", dim)?];
        self.ordered("sort", dim, size, descending)
    }

    /// Where the elements along `dim` are in rising (or falling) order; equal ones keep their order.
    /// `torch.argsort(stable=True)`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn argsort(&self, dim: isize, descending: bool) -> Result<Tensor<i64>> {
        let size = self.shape()[self.resolve_dim("argsort", dim)?];
        Ok(self.ordered("argsort", dim, size, descending)?.1)
    }

    /// The `k` largest (or smallest) elements along `dim`, in falling (or rising) order, and where each
    /// was; of equal ones the first. `torch.topk`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the dim has fewer than `k`.
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> Result<(Self, Tensor<i64>)> {
        let size = self.shape()[self.resolve_dim("topk", dim)?];
        if k > size {
            return Err(Error::InvalidArgument {
                op: "topk",
                name: "k",
                reason: format!("is {k}, but dim {dim} has {size} entries"),
            });
        }
        self.ordered("topk", dim, k, largest)
    }

    /// The first `k` along `dim` in order, which need not be sorted beyond them.
    fn ordered(
        &self,
        op: &'static str,
        dim: isize,
        k: usize,
        descending: bool,
    ) -> Result<(Self, Tensor<i64>)> {
        let d = self.resolve_dim(op, dim)?;
        let n = self.shape()[d];
        let x = self.transpose(d as isize, -1)?.contiguous();
        let mut shape = x.layout.shape.clone();
        shape.checked_alloc(op, size_of::<i64>())?;
        if let Some(last) = shape.as_mut_slice().last_mut() {
            *last = k;
        }
        let mut values = x.elements().first().map_or_else(
            || Self::build(shape.clone(), |_| ()),
            |&any| Self::build(shape.clone(), |out| out.fill(any)),
        );
        let positions = Tensor::build(shape, |positions| {
            if positions.is_empty() {
                return;
            }
            let order = |a: &(T, i64), b: &(T, i64)| -> Ordering {
                let order = a.0.order(&b.0);
                let order = if descending { order.reverse() } else { order };
                // Positions are distinct, so even an unstable sort keeps equal elements in order.
                order.then(a.1.cmp(&b.1))
            };
            let row = |((x, values), positions): ((&[T], &mut [T]), &mut [i64])| {
                let mut pairs: Vec<(T, i64)> = x.iter().copied().zip(0..).collect();
                if k < n {
                    pairs.select_nth_unstable_by(k, order);
                    pairs.truncate(k);
                }
                pairs.sort_unstable_by(order);
                for ((value, position), pair) in values.iter_mut().zip(positions).zip(pairs) {
                    (*value, *position) = pair;
                }
            };
            let values = values.make_mut();
            if x.numel() >= GRAIN {
                (x.elements().par_chunks(n).zip(values.par_chunks_mut(k)))
                    .zip(positions.par_chunks_mut(k))
                    .for_each(row);
            } else {
                (x.elements().chunks(n).zip(values.chunks_mut(k)))
                    .zip(positions.chunks_mut(k))
                    .for_each(row);
            }
        });
        let back = d as isize;
        Ok((values.transpose(back, -1)?.contiguous(), positions.transpose(back, -1)?.contiguous()))
    }
}

/// Counts.
impl Tensor<i64> {
    /// How often each integer from 0 on occurs in a vector; at least `minlength` counts.
    /// `torch.bincount`.
    ///
    /// # Shape
    /// `[N]` → `[max(minlength, largest element + 1)]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] if `self` is no vector; [`Error::IndexOutOfRange`] if an element is
    /// negative, with its position; [`Error::SizeOverflow`] if memory cannot address the counts.
    pub fn bincount(&self, minlength: usize) -> Result<Self> {
        let [_] = self.dims("bincount")?;
        let x = self.contiguous();
        if let Some(position) = x.elements().iter().position(|&x| x < 0) {
            let (value, size) = (x.elements()[position], i64::MAX as usize);
            return Err(Error::IndexOutOfRange { op: "bincount", position, value, size });
        }
        let most = x.elements().iter().max().map_or(0, |&x| x as usize + 1);
        let shape = crate::Shape::from([most.max(minlength)]);
        shape.checked_alloc("bincount", size_of::<i64>())?;
        Ok(Self::build(shape, |out| {
            out.fill(0);
            x.elements().iter().for_each(|&x| out[x as usize] += 1);
        }))
    }
}
