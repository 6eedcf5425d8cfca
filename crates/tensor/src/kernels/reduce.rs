//! Sums over any set of dims, accumulated so that neither digits nor reproducibility are lost.
//!
//! Elements are added in lanes of their own type, four at most, and then in `f64`. Lanes and blocks have fixed places, so the result does not depend on the number of threads
//! or on the instruction set's width. Empty sums are 0.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::Kernel;
use super::elementwise::GRAIN;
use crate::element::Float;
use crate::error::Result;
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

const LANES: usize = 32;
/// Elements that go into the lanes before they are emptied into `f64`: 4 a lane, so that even equal
/// numbers, whose rounding errors all point one way, keep their digits.
const BLOCK: usize = 4 * LANES;
/// Strided elements gathered at a time.
const TILE: usize = 1024;
/// Elements of one task of a long sum.
const SEGMENT: usize = 64 << 10;
/// Columns that are summed together, and rows before they are emptied into `f64`.
const COLUMNS: usize = 64;
const ROWS: usize = 4;

/// The sum of a slice.
pub(crate) struct SumSlice<'a, T>(pub(crate) &'a [T]);

impl<T: Float> Kernel for SumSlice<'_, T> {
    type Output = f64;
    #[inline(always)]
    fn run<const FMA: bool>(self) -> f64 {
        let mut sums = [0.0; LANES];
        for block in self.0.chunks(BLOCK) {
            let mut lanes = [T::ZERO; LANES];
            let (rows, tail) = block.as_chunks::<LANES>();
            for row in rows {
                for (lane, &x) in lanes.iter_mut().zip(row) {
                    *lane += x;
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(tail) {
                *lane += x;
            }
            for (sum, lane) in sums.iter_mut().zip(lanes) {
                *sum += lane.to_f64();
            }
        }
        tree_sum(sums)
    }
}

/// The sum of lanes, pairwise: a fixed tree.
#[inline(always)]
pub(crate) fn tree_sum<const N: usize>(mut lanes: [f64; N]) -> f64 {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Rows of a strided matrix, `out.len()` elements wide, to be summed over.
#[doc(hidden)]
pub struct Columns<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) row_stride: isize,
    pub(crate) out: &'a mut [f64],
}

impl<T: Float> Kernel for Columns<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let width = self.out.len();
        let row = |r: usize| (self.start as isize + r as isize * self.row_stride) as usize;
        for first in (0..self.rows).step_by(ROWS) {
            let last = self.rows.min(first + ROWS);
            for (c, out) in self.out.chunks_mut(COLUMNS).enumerate() {
                let c = c * COLUMNS;
                let mut lanes = [T::ZERO; COLUMNS];
                if out.len() == COLUMNS {
                    for r in first..last {
                        let x = &self.data[row(r) + c..][..COLUMNS];
                        for (lane, &x) in lanes.iter_mut().zip(x) {
                            *lane += x;
                        }
                    }
                } else {
                    for r in first..last {
                        let x = &self.data[row(r) + c..row(r) + width];
                        for (lane, &x) in lanes.iter_mut().zip(x) {
                            *lane += x;
                        }
                    }
                }
                for (o, lane) in out.iter_mut().zip(lanes) {
                    *o += lane.to_f64();
                }
            }
        }
    }
}

/// Sum of a contiguous run, split at fixed places.
fn sum_run<T: Float>(x: &[T]) -> f64 {
    if x.len() <= SEGMENT {
        T::sum_slice(x)
    } else if rayon::current_num_threads() == 1 {
        x.chunks(SEGMENT).map(T::sum_slice).sum()
    } else {
        // Collected first: rayon's own `sum` would add in an order of its choice.
        x.par_chunks(SEGMENT).map(T::sum_slice).collect::<Vec<_>>().into_iter().sum()
    }
}

/// The index combinations of some dims of a layout, as positions in the buffer.
struct Positions {
    sizes: SmallVec<[usize; 4]>,
    strides: SmallVec<[isize; 4]>,
}

impl Positions {
    fn new(layout: &Layout, keep: impl Fn(usize) -> bool) -> Self {
        let mut positions = Positions { sizes: SmallVec::new(), strides: SmallVec::new() };
        for d in (0..layout.shape.len()).filter(|&d| layout.shape[d] != 1 && keep(d)) {
            let (size, stride) = (layout.shape[d], layout.strides[d]);
            match (positions.sizes.last_mut(), positions.strides.last_mut()) {
                // Dims that one stride crosses are one.
                (Some(outer), Some(outer_stride)) if *outer_stride == stride * size as isize => {
                    *outer *= size;
                    *outer_stride = stride;
                }
                _ => {
                    positions.sizes.push(size);
                    positions.strides.push(stride);
                }
            }
        }
        positions
    }

    fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Removes the innermost dim, or stands in a dim of one element.
    fn pop(&mut self) -> (usize, isize) {
        self.sizes.pop().zip(self.strides.pop()).unwrap_or((1, 1))
    }

    /// The position of the `i`-th combination in row-major order, counted from `base`.
    fn at(&self, base: usize, mut i: usize) -> usize {
        let mut position = base as isize;
        for (&size, &stride) in self.sizes.iter().zip(&self.strides).rev() {
            position += (i % size) as isize * stride;
            i /= size;
        }
        position as usize
    }
}

/// Sums over the dims where `reduced` says so; the result has the kept dims, in order.
fn sum_dims<T: Float>(x: &Tensor<T>, reduced: impl Fn(usize) -> bool, divisor: f64) -> Tensor<T> {
    let data = x.buffer.as_slice();
    let base = x.layout.offset;
    let shape: Shape = (0..x.rank()).filter(|&d| !reduced(d)).map(|d| x.shape()[d]).collect();
    let mut kept = Positions::new(&x.layout, |d| !reduced(d));
    let mut over = Positions::new(&x.layout, &reduced);
    // The dim of the smallest stride is the inner one of the reduction.
    if let Some(inner) = (0..over.sizes.len()).min_by_key(|&d| over.strides[d].unsigned_abs()) {
        let (size, stride) = (over.sizes.remove(inner), over.strides.remove(inner));
        over.sizes.push(size);
        over.strides.push(stride);
    }
    let work = kept.count() * over.count();
    if work == 0 {
        let empty = T::from_f64(0.0 / divisor);
        return Tensor::build(shape, |out| out.fill(empty));
    }
    let (inner_size, inner_stride) = over.pop();
    let by_columns = kept.strides.last() == Some(&1) && (inner_stride != 1 || inner_size < 8);
    Tensor::build(shape, |out| {
        if by_columns {
            let (width, _) = kept.pop();
            // Tasks are parts of a row of outputs, of a width that does not depend on threads.
            let part = if work >= 2 * GRAIN { width.min(4 * COLUMNS) } else { width };
            let parts = width.div_ceil(part);
            let column_task = |(task, out): (usize, &mut [T])| {
                let start = kept.at(base, task / parts) + task % parts * part;
                let mut sums: SmallVec<[f64; 256]> = SmallVec::from_elem(0.0, out.len());
                for i in 0..over.count() {
                    let start = over.at(start, i);
                    let out = &mut sums;
                    let (rows, row_stride) = (inner_size, inner_stride);
                    T::sum_columns(Columns { data, start, rows, row_stride, out });
                }
                for (o, sum) in out.iter_mut().zip(&sums) {
                    *o = T::from_f64(sum / divisor);
                }
            };
            if work >= 2 * GRAIN && rayon::current_num_threads() > 1 {
                out.par_chunks_mut(width)
                    .enumerate()
                    .flat_map(|(row, out)| {
                        let tasks = out.par_chunks_mut(part).enumerate();
                        tasks.map(move |(i, out)| (row * parts + i, out))
                    })
                    .for_each(column_task);
            } else {
                for (row, out) in out.chunks_mut(width).enumerate() {
                    let tasks = out.chunks_mut(part).enumerate();
                    tasks.for_each(|(i, out)| column_task((row * parts + i, out)));
                }
            }
            return;
        }
        let row_task = |(i, out): (usize, &mut T)| {
            let start = kept.at(base, i);
            let mut sum = 0.0;
            for j in 0..over.count() {
                let start = over.at(start, j);
                sum += if inner_stride == 1 {
                    sum_run(&data[start..start + inner_size])
                } else {
                    let mut total = 0.0;
                    let mut tile = [T::ZERO; TILE];
                    for done in (0..inner_size).step_by(TILE) {
                        let n = TILE.min(inner_size - done);
                        for (k, t) in tile[..n].iter_mut().enumerate() {
                            *t = data
                                [(start as isize + (done + k) as isize * inner_stride) as usize];
                        }
                        total += T::sum_slice(&tile[..n]);
                    }
                    total
                };
            }
            *out = T::from_f64(sum / divisor);
        };
        if work >= 2 * GRAIN && out.len() > 1 && rayon::current_num_threads() > 1 {
            let least = out.len().div_ceil(work.div_ceil(GRAIN));
            out.par_iter_mut().enumerate().with_min_len(least).for_each(row_task);
        } else {
            out.iter_mut().enumerate().for_each(row_task);
        }
    })
}

/// Reductions.
impl<T: Float> Tensor<T> {
    /// Sum of all elements, as a tensor of rank 0.
    #[must_use]
    pub fn sum(&self) -> Self {
        sum_dims(self, |_| true, 1.0)
    }

    /// Mean of all elements, as a tensor of rank 0; NaN where there are none.
    #[must_use]
    pub fn mean(&self) -> Self {
        sum_dims(self, |_| true, self.numel() as f64)
    }

    /// Sum over `dims`; they stay with size 1 where `keepdim`. No dims: no change.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    pub fn sum_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        self.sum_over("sum", dims, keepdim, |_| 1.0)
    }

    /// Mean over `dims`; they stay with size 1 where `keepdim`.
    ///
    /// # Errors
    /// As [`Tensor::sum_dim`].
    pub fn mean_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        self.sum_over("mean", dims, keepdim, |count| count as f64)
    }

    fn sum_over(
        &self,
        op: &'static str,
        dims: &[isize],
        keepdim: bool,
        divisor: impl Fn(usize) -> f64,
    ) -> Result<Self> {
        let reduced = reduced_dims(op, self.shape(), dims)?;
        let count = (0..self.rank()).filter(|&d| reduced[d]).map(|d| self.shape()[d]).product();
        let out = sum_dims(self, |d| reduced[d], divisor(count));
        if !keepdim {
            return Ok(out);
        }
        out.reshape(keepdim_shape(self.shape(), &reduced))
    }

    /// Sums `self` to `shape`, undoing a broadcast from `shape` to the shape of `self`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if `shape` does not broadcast to the
    /// shape of `self`.
    pub fn sum_to(&self, shape: &[usize]) -> Result<Self> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        // The rule of expanding, read backwards: what it would repeat is summed.
        if Shape::broadcast("sum_to", shape, self.shape())?[..] != *self.shape() {
            let (lhs, rhs) = (shape.to_vec(), self.shape().to_vec());
            return Err(crate::Error::ShapeMismatch { op: "sum_to", lhs, rhs });
        }
        let lead = self.rank() - shape.len();
        let reduced = |d: usize| d < lead || (shape[d - lead] == 1 && self.shape()[d] != 1);
        sum_dims(self, reduced, 1.0).reshape(shape)
    }

    /// Index of the largest element along `dim`, the first of several; NaN counts as largest.
    /// `torch.argmax`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the dim is empty.
    pub fn argmax(&self, dim: isize) -> Result<Tensor<i64>> {
        let d = self.resolve_dim("argmax", dim)?;
        let size = self.shape()[d];
        if size == 0 {
            return Err(crate::Error::InvalidArgument {
                op: "argmax",
                name: "dim",
                reason: format!("{dim} is empty in shape {:?}", self.shape()),
            });
        }
        let stride = self.layout.strides[d];
        let kept = Positions::new(&self.layout, |k| k != d);
        let mut shape = self.layout.shape.clone();
        shape.remove(d);
        let data = self.buffer.as_slice();
        Ok(Tensor::build(shape, |out| {
            for (i, out) in out.iter_mut().enumerate() {
                let start = kept.at(self.layout.offset, i) as isize;
                let at = |k: usize| data[(start + k as isize * stride) as usize];
                let mut best = 0;
                for k in 1..size {
                    let larger = at(k) > at(best) || (at(k) != at(k) && at(best) == at(best));
                    best = if larger { k } else { best };
                }
                *out = best as i64;
            }
        }))
    }
}

/// Which dims are named by `dims`.
pub(crate) fn reduced_dims(
    op: &'static str,
    shape: &[usize],
    dims: &[isize],
) -> Result<SmallVec<[bool; 8]>> {
    let mut reduced: SmallVec<[bool; 8]> = SmallVec::from_elem(false, shape.len());
    for &dim in dims {
        let d = crate::shape::resolve_dim(op, dim, shape.len())?;
        if std::mem::replace(&mut reduced[d], true) {
            return Err(crate::Error::InvalidArgument {
                op,
                name: "dims",
                reason: format!("names dim {dim} twice: {dims:?}"),
            });
        }
    }
    Ok(reduced)
}

fn keepdim_shape(shape: &[usize], reduced: &[bool]) -> Shape {
    shape.iter().zip(reduced).map(|(&size, &r)| if r { 1 } else { size }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_every_set_of_dims_match_naive() {
        let shape = [3, 4, 5];
        let x = Tensor::from_vec((0..60).map(|i| (i * 7 % 23) as f64).collect(), shape).unwrap();
        let views = [
            x.clone(),
            x.permute(&[2, 0, 1]).unwrap(),
            x.narrow(1, 1, 2).unwrap(),
            x.narrow(2, 0, 1).unwrap().expand([3, 4, 6]).unwrap(),
        ];
        for v in views {
            let dense = v.to_vec();
            for mask in 0..8_usize {
                let dims: Vec<isize> = (0..3).filter(|d| mask >> d & 1 == 1).collect();
                let got = v.sum_dim(&dims, true).unwrap();
                let mut want = vec![0.0; got.numel()];
                for (i, value) in dense.iter().enumerate() {
                    let (mut rest, mut at, mut step) = (i, 0, 1);
                    for d in (0..3).rev() {
                        let index = rest % v.shape()[d];
                        rest /= v.shape()[d];
                        if mask >> d & 1 == 0 {
                            at += index * step;
                            step *= v.shape()[d];
                        }
                    }
                    want[at] += value;
                }
                assert_eq!(got.to_vec(), want, "{:?} over {dims:?}", v.shape());
                assert_eq!(v.sum_dim(&dims, false).unwrap().to_vec(), want);
            }
        }
    }

    #[test]
    fn equal_numbers_keep_their_digits() {
        let x = Tensor::<f32>::full([40, 70], 0.7).unwrap();
        // 2u for the three additions in a lane, u for the final rounding (u = 2⁻²⁴).
        let close = |got: f32, want: f64| (f64::from(got) / want - 1.0).abs() <= 3.0 * 5.97e-8;
        let each = f64::from(0.7_f32);
        assert!(close(x.mean().item().unwrap(), each));
        assert!(x.sum_dim(&[0], false).unwrap().to_vec().iter().all(|&s| close(s, 40.0 * each)));
        assert!(x.sum_dim(&[1], false).unwrap().to_vec().iter().all(|&s| close(s, 70.0 * each)));
    }

    #[test]
    fn ten_million_ones_are_ten_million_along_any_dim() {
        let x = Tensor::scalar(1.0_f32).expand([10_000, 1000]).unwrap().contiguous();
        assert_eq!(x.sum().item().unwrap(), 1e7);
        assert_eq!(x.mean().item().unwrap(), 1.0);
        assert!(x.sum_dim(&[0], false).unwrap().to_vec().iter().all(|&s| s == 1e4));
        assert!(x.sum_dim(&[1], false).unwrap().to_vec().iter().all(|&s| s == 1e3));
        let column = x.reshape([10_000_000, 1]).unwrap().expand([10_000_000, 2]).unwrap();
        assert_eq!(column.sum_dim(&[0], false).unwrap().to_vec(), [1e7, 1e7]);
    }

    #[test]
    fn empty_sums_are_zero_and_empty_means_nan() {
        let x = Tensor::<f32>::zeros([0, 3]).unwrap();
        assert_eq!(x.sum_dim(&[0], false).unwrap().to_vec(), [0.0; 3]);
        assert_eq!(x.sum_dim(&[1], false).unwrap().to_vec(), []);
        assert!(x.mean().item().unwrap().is_nan());
        assert!(x.sum_dim(&[0, -2], false).is_err() && x.sum_dim(&[2], false).is_err());
    }

    #[test]
    fn argmax_takes_the_first_and_nan_as_largest() {
        let x = Tensor::from_vec(vec![1.0, 3.0, 3.0, f32::NAN, 2.0, 9.0], [2, 3]).unwrap();
        assert_eq!(x.argmax(1).unwrap().to_vec(), [1, 0]);
        assert_eq!(x.argmax(0).unwrap().to_vec(), [1, 0, 1]);
        assert!(Tensor::<f32>::zeros([2, 0]).unwrap().argmax(1).is_err());
        assert_eq!(Tensor::<f32>::zeros([0, 2]).unwrap().argmax(1).unwrap().shape(), [0]);
    }

    #[test]
    fn sum_to_undoes_broadcasting() {
        let g = Tensor::from_vec((0..6).map(f64::from).collect(), [2, 3]).unwrap();
        assert_eq!(g.sum_to(&[3]).unwrap().to_vec(), [3.0, 5.0, 7.0]);
        assert_eq!(g.sum_to(&[2, 1]).unwrap().to_vec(), [3.0, 12.0]);
        assert_eq!(g.sum_to(&[]).unwrap().to_vec(), [15.0]);
        assert_eq!(g.sum_to(&[1, 1]).unwrap().shape(), [1, 1]);
        assert!(g.sum_to(&[2]).is_err() && g.sum_to(&[1, 2, 3]).is_err());
        assert!(g.sum_to(&[usize::MAX / 2, 3]).is_err());
    }
}
