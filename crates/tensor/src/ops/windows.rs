//! Windows that slide over the last two dims: where they stand, and their maxima and means.
//!
//! Rows of windows are walked tap by tap, so that the inner loops run along rows of the input.

use std::ops::Range;

use crate::element::Float;
use crate::error::{Error, Result};
use crate::kernels::walk::{self, GRAIN};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Where windows stand over the last two dims of a tensor, as convolutions and pools have it.
///
/// Window `o` of a dim holds the entries `o·stride + k·dilation − padding`, for each tap `k` of the
/// kernel; those before the first entry or after the last one are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Taps of a window.
    pub kernel: [usize; 2],
    /// Distance of windows.
    pub stride: [usize; 2],
    /// Entries added before and after each dim.
    pub padding: [(usize, usize); 2],
    /// Distance of taps.
    pub dilation: [usize; 2],
}

impl Windows {
    /// Windows side by side: stride 1, neither padding nor dilation.
    pub fn new(kernel: [usize; 2]) -> Self {
        Windows { kernel, stride: [1; 2], padding: [(0, 0); 2], dilation: [1; 2] }
    }

    /// How many windows each dim of these sizes has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], naming `op`, if the kernel, stride or dilation is 0, or if a
    /// window is larger than the dim with its padding.
    pub fn count(&self, op: &'static str, size: [usize; 2]) -> Result<[usize; 2]> {
        Ok(self.axes(op, size)?.map(|axis| axis.count))
    }

    /// Both dims, checked.
    pub(crate) fn axes(&self, op: &'static str, size: [usize; 2]) -> Result<[Axis; 2]> {
        let sizes = [("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)];
        if let Some((name, found)) = sizes.into_iter().find(|(_, sizes)| sizes.contains(&0)) {
            let reason = format!("must not be 0, found {found:?}");
            return Err(Error::InvalidArgument { op, name, reason });
        }
        Ok([self.axis(op, size, 0)?, self.axis(op, size, 1)?])
    }

    fn axis(&self, op: &'static str, size: [usize; 2], d: usize) -> Result<Axis> {
        let (kernel, stride, dilation) = (self.kernel[d], self.stride[d], self.dilation[d]);
        let (before, after) = self.padding[d];
        let padded = size[d].saturating_add(before).saturating_add(after);
        // Signed positions must hold everything, and the number of windows.
        if padded >= isize::MAX as usize {
            let reason = format!("{:?} is too much for {size:?}", self.padding);
            return Err(Error::InvalidArgument { op, name: "padding", reason });
        }
        let extent = (kernel - 1).saturating_mul(dilation).saturating_add(1);
        if extent > padded {
            let reason = format!(
                "{:?} with dilation {:?} spans {extent} entries, dim {} has {padded} with its padding",
                self.kernel,
                self.dilation,
                d as isize - 2
            );
            return Err(Error::InvalidArgument { op, name: "kernel", reason });
        }
        let count = (padded - extent) / stride + 1;
        Ok(Axis { size: size[d], count, kernel, stride, before, dilation })
    }
}

/// Windows along one dim. All sums of its numbers fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    pub(crate) size: usize,
    pub(crate) count: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    before: usize,
    dilation: usize,
}

impl Axis {
    /// The windows whose tap `k` is an entry, and no padding.
    #[inline]
    pub(crate) fn inside(&self, k: usize) -> Range<usize> {
        let shift = k * self.dilation;
        let end = |reach: usize| reach.saturating_sub(shift).div_ceil(self.stride).min(self.count);
        let (first, last) = (end(self.before), end(self.before + self.size));
        first..last.max(first)
    }

    /// The entry that is tap `k` of window `o`, which is inside.
    #[inline]
    pub(crate) fn entry(&self, o: usize, k: usize) -> usize {
        o * self.stride + k * self.dilation - self.before
    }

    /// The window whose tap `k` is `entry`.
    fn window(&self, entry: usize, k: usize) -> Option<usize> {
        let from = (entry + self.before).checked_sub(k * self.dilation)?;
        let o = from / self.stride;
        (from % self.stride == 0 && o < self.count).then_some(o)
    }

    /// Each tap that is an entry of some window, those windows, and the first of the entries.
    #[inline]
    pub(crate) fn taps(&self) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
        let taps = (0..self.kernel).map(|k| (k, self.inside(k)));
        taps.filter(|(_, o)| !o.is_empty()).map(|(k, o)| {
            let first = self.entry(o.start, k);
            (k, o, first)
        })
    }

    /// The first entry of each window, and how many it has, each `dilation` after the last. Every window
    /// has one.
    fn spans(&self) -> Vec<(usize, usize)> {
        let window = |o: usize| {
            let skipped = self.before.saturating_sub(o * self.stride).div_ceil(self.dilation);
            let first = self.entry(o, skipped);
            let inside = (self.size - first).div_ceil(self.dilation);
            (first, inside.min(self.kernel - skipped))
        };
        (0..self.count).map(window).collect()
    }

    /// Whether no window is nothing but padding.
    fn is_covered(&self) -> bool {
        let mut covered = vec![false; self.count];
        self.taps().for_each(|(_, o, _)| covered[o].fill(true));
        covered.into_iter().all(|c| c)
    }
}

/// A tensor `[.., H, W]` with windows over it, each of which holds an entry.
struct Planes {
    lead: Shape,
    axes: [Axis; 2],
}

impl Planes {
    fn new(op: &'static str, shape: &[usize], windows: &Windows) -> Result<Self> {
        let [lead @ .., h, w] = shape else {
            let expected = "[.., H, W]";
            return Err(Error::RankMismatch { op, expected, shape: shape.to_vec() });
        };
        let axes = windows.axes(op, [*h, *w])?;
        if !axes.iter().all(Axis::is_covered) {
            let reason =
                format!("leaves windows of kernel {:?} empty on {shape:?}", windows.kernel);
            return Err(Error::InvalidArgument { op, name: "padding", reason });
        }
        Ok(Planes { lead: lead.iter().copied().collect(), axes })
    }

    fn with(&self, sizes: [usize; 2]) -> Shape {
        self.lead.iter().copied().chain(sizes).collect()
    }

    fn windows_shape(&self) -> Shape {
        self.with(self.axes.map(|a| a.count))
    }

    /// Elements of whole planes, of `plane` elements each, that make a task.
    fn grain(&self, plane: usize) -> usize {
        let [rows, columns] = self.axes;
        let work = rows.count * columns.count * rows.kernel * columns.kernel;
        plane * (GRAIN / work.max(1)).max(1)
    }
}

/// Windows.
impl<T: Float> Tensor<T> {
    /// The maximum of each window, and its index in the plane, row-major. Of equal ones the first in
    /// the window counts; NaN counts as the maximum, the last one in the window.
    /// `torch.nn.functional.max_pool2d` with `return_indices`.
    ///
    /// # Shape
    /// `[.., H, W]` → `[.., number of windows, number of windows]`, both.
    ///
    /// # Errors
    /// [`Error::RankMismatch`]; [`Error::InvalidArgument`] as [`Windows::count`], and if a window is
    /// nothing but padding; [`Error::SizeOverflow`].
    pub fn max_windows(&self, windows: &Windows) -> Result<(Self, Tensor<i64>)> {
        let op = "max_windows";
        let planes = Planes::new(op, self.shape(), windows)?;
        let shape = planes.windows_shape();
        shape.checked_alloc(op, size_of::<i64>())?;
        let [rows, columns] = planes.axes;
        let (plane, size) = (rows.count * columns.count, rows.size * columns.size);
        let x = self.contiguous();
        let spans = [rows.spans(), columns.spans()];
        let index = Tensor::<i64>::build(shape.clone(), |out| {
            walk::parallel(out, planes.grain(plane), |start, out| {
                let x = &x.elements()[start / plane * size..];
                for (x, out) in x.chunks_exact(size).zip(out.chunks_exact_mut(plane)) {
                    maxima(x, [rows, columns], &spans, out);
                }
            });
        });
        let count: usize = planes.lead.iter().product();
        let flat = index.reshape([count, plane])?;
        let y = x.reshape([count, size])?.gather(1, &flat)?.reshape(shape)?;
        Ok((y, index))
    }

    /// The sum of each window over its divisor, padding counting as 0; `divisors` broadcast to
    /// the windows of a plane. Accumulated in `f64`. `torch.nn.functional.avg_pool2d`.
    ///
    /// # Shape
    /// `[.., H, W]` → `[.., number of windows, number of windows]`.
    ///
    /// # Errors
    /// As [`Tensor::max_windows`]; [`Error::ShapeMismatch`] for the divisors.
    pub fn mean_windows(&self, windows: &Windows, divisors: &Self) -> Result<Self> {
        let op = "mean_windows";
        let planes = Planes::new(op, self.shape(), windows)?;
        let shape = planes.windows_shape();
        shape.checked_alloc(op, size_of::<T>())?;
        let [rows, columns] = planes.axes;
        let divisors = divisors.expand([rows.count, columns.count])?.to_vec();
        let (plane, size) = (rows.count * columns.count, rows.size * columns.size);
        let x = self.contiguous();
        Ok(Tensor::build(shape, |out| {
            walk::parallel(out, planes.grain(plane), |start, out| {
                let x = &x.elements()[start / plane * size..];
                let mut sums = vec![0.0; columns.count];
                for (x, out) in x.chunks_exact(size).zip(out.chunks_exact_mut(plane)) {
                    let out = out.chunks_exact_mut(columns.count);
                    for (o, (out, n)) in out.zip(divisors.chunks(columns.count)).enumerate() {
                        row_sums(x, [rows, columns], o, &mut sums);
                        for ((out, &sum), n) in out.iter_mut().zip(&sums).zip(n) {
                            *out = T::from_f64(sum / n.to_f64());
                        }
                    }
                }
            });
        }))
    }

    /// The adjoint of [`Tensor::mean_windows`]: each element over its divisor, added to every entry
    /// of its window in planes of `size`. Accumulated in `f64`.
    ///
    /// # Shape
    /// `[.., number of windows, number of windows]` → `[.., H, W]` with `size = [H, W]`.
    ///
    /// # Errors
    /// As [`Tensor::mean_windows`]; [`Error::ShapeMismatch`] if there is another number of windows.
    pub fn spread_windows(
        &self,
        windows: &Windows,
        divisors: &Self,
        size: [usize; 2],
    ) -> Result<Self> {
        let op = "spread_windows";
        let [lead @ .., _, _] = self.shape() else {
            let (expected, shape) = ("[.., H, W]", self.shape().to_vec());
            return Err(Error::RankMismatch { op, expected, shape });
        };
        let shape: Shape = lead.iter().copied().chain(size).collect();
        let planes = Planes::new(op, &shape, windows)?;
        let wanted = planes.windows_shape();
        if *self.shape() != *wanted {
            let (lhs, rhs) = (self.shape().to_vec(), wanted.to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        shape.checked_alloc(op, size_of::<T>())?;
        let [rows, columns] = planes.axes;
        let divisors = divisors.expand([rows.count, columns.count])?.to_vec();
        let (plane, size) = (rows.count * columns.count, rows.size * columns.size);
        let g = self.contiguous();
        Ok(Tensor::build(shape, |out| {
            walk::parallel(out, planes.grain(size), |start, out| {
                let g = &g.elements()[start / size * plane..];
                let (mut shares, mut sums) = (vec![0.0; plane], vec![0.0; columns.size]);
                for (g, out) in g.chunks_exact(plane).zip(out.chunks_exact_mut(size)) {
                    for (share, (g, n)) in shares.iter_mut().zip(g.iter().zip(&divisors)) {
                        *share = g.to_f64() / n.to_f64();
                    }
                    for (entry, out) in out.chunks_exact_mut(columns.size).enumerate() {
                        row_shares(&shares, [rows, columns], entry, &mut sums);
                        out.iter_mut().zip(&sums).for_each(|(o, &sum)| *o = T::from_f64(sum));
                    }
                }
            });
        }))
    }
}

/// The index of the maximum of each window over a plane. `spans` is [`Axis::spans`] of both dims.
fn maxima<T: Float>(
    x: &[T],
    [rows, columns]: [Axis; 2],
    [row_spans, column_spans]: &[Vec<(usize, usize)>; 2],
    index: &mut [i64],
) {
    let width = columns.size;
    for (&(row, height), index) in row_spans.iter().zip(index.chunks_exact_mut(columns.count)) {
        for (&(column, length), index) in column_spans.iter().zip(index) {
            let first = row * width + column;
            let (mut largest, mut at) = (x[first], first);
            for i in 0..height {
                let start = first + i * rows.dilation * width;
                for j in 0..length {
                    let here = start + j * columns.dilation;
                    let x = x[here];
                    // Without a branch, which would be guessed wrong too often; an `if` for the index
                    // becomes one.
                    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
                    let better = (x > largest) | (x != x);
                    largest = if better { x } else { largest };
                    at ^= (at ^ here) & usize::from(better).wrapping_neg();
                }
            }
            *index = at as i64;
        }
    }
}

/// The sums of row `o` of windows over a plane.
fn row_sums<T: Float>(x: &[T], [rows, columns]: [Axis; 2], o: usize, sums: &mut [f64]) {
    sums.fill(0.0);
    for (k, _, _) in rows.taps().filter(|(_, inside, _)| inside.contains(&o)) {
        let row = rows.entry(o, k) * columns.size;
        for (_, inside, first) in columns.taps() {
            let x = x[row + first..].iter().step_by(columns.stride);
            sums[inside].iter_mut().zip(x).for_each(|(sum, x)| *sum += x.to_f64());
        }
    }
}

/// What the windows with these shares give to row `entry` of a plane.
fn row_shares(shares: &[f64], [rows, columns]: [Axis; 2], entry: usize, sums: &mut [f64]) {
    sums.fill(0.0);
    for o in (0..rows.kernel).filter_map(|k| rows.window(entry, k)) {
        let shares = &shares[o * columns.count..][..columns.count];
        for (_, inside, first) in columns.taps() {
            let sums = sums[first..].iter_mut().step_by(columns.stride);
            sums.zip(&shares[inside]).for_each(|(sum, share)| *sum += share);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn square() -> Tensor<f64> {
        Tensor::from_vec((0..16).map(f64::from).collect(), [4, 4]).unwrap()
    }

    #[test]
    fn counts_follow_torch() {
        let windows =
            Windows { kernel: [3, 2], stride: [2, 1], padding: [(1, 1), (0, 0)], dilation: [1, 2] };
        assert_eq!(windows.count("op", [7, 5]).unwrap(), [4, 3]);
        let text = |windows: Windows| windows.count("op", [7, 5]).unwrap_err().to_string();
        assert_eq!(
            text(Windows { stride: [0, 1], ..windows }),
            "op: stride must not be 0, found [0, 1]"
        );
        assert_eq!(
            text(Windows { dilation: [1, 5], ..windows }),
            "op: kernel [3, 2] with dilation [1, 5] spans 6 entries, dim -1 has 5 with its padding"
        );
        let far = Windows { dilation: [usize::MAX; 2], kernel: [usize::MAX; 2], ..windows };
        assert!(text(far).starts_with("op: kernel"));
        let far = Windows { padding: [(usize::MAX, usize::MAX); 2], ..windows };
        assert!(text(far).starts_with("op: padding"));
    }

    #[test]
    fn maxima_are_the_first_of_equals_and_nan_the_last() {
        let windows = Windows { stride: [2, 2], ..Windows::new([2, 2]) };
        let (y, index) = square().max_windows(&windows).unwrap();
        assert_eq!((y.to_vec(), index.to_vec()), (vec![5.0, 7.0, 13.0, 15.0], vec![5, 7, 13, 15]));
        let low = Tensor::from([[f64::NEG_INFINITY, f64::NEG_INFINITY, 1.0], [f64::NAN, 2.0, 1.0]]);
        let (y, index) = low.max_windows(&Windows::new([1, 2])).unwrap();
        assert_eq!(y.to_vec()[..2], [f64::NEG_INFINITY, 1.0]);
        assert!(y.to_vec()[2].is_nan());
        assert_eq!(index.to_vec(), [0, 2, 3, 4]);
        let nans = Tensor::from([[f64::NAN, 0.0, f64::NAN, 5.0]]);
        assert_eq!(nans.max_windows(&Windows::new([1, 4])).unwrap().1.to_vec(), [2]);
    }

    #[test]
    fn means_of_large_numbers_do_not_overflow() {
        let x = Tensor::full([2, 2], f32::MAX).unwrap();
        let four = Tensor::scalar(4.0_f32);
        let y = x.mean_windows(&Windows::new([2, 2]), &four).unwrap();
        assert_eq!(y.item().unwrap(), f32::MAX);
    }

    #[test]
    fn rejects_windows_of_padding() {
        let windows =
            Windows { padding: [(0, 0), (1, 1)], dilation: [1, 3], ..Windows::new([1, 2]) };
        let x = Tensor::<f32>::zeros([1, 2]).unwrap();
        let text = x.max_windows(&windows).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "max_windows: padding leaves windows of kernel [1, 2] empty on [1, 2]");
        assert!(Tensor::<f32>::zeros([2]).unwrap().max_windows(&windows).is_err());
    }
}
