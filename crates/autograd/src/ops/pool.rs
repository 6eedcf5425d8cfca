//! Pools: the maximum or the mean of windows over the last dims. Both are linear in what they take
//! from x, and so are their gradients, each of which is the adjoint of the other map.

use tensor::{Error, Float, Result, Shape, Tensor, Windows};

use crate::tape::record;
use crate::var::Var;

/// Options of [`Var::max_pool2d`] and [`Var::max_pool1d`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPoolOptions<const D: usize> {
    /// Distance of windows; that of the kernel's size where `None`.
    pub stride: Option<[usize; D]>,
    /// Entries added at both ends of each dim, at most half the kernel; never the maximum.
    pub padding: [usize; D],
    /// Distance of taps.
    pub dilation: [usize; D],
    /// Whether a last window that begins inside may reach beyond the padding.
    pub ceil_mode: bool,
}

impl<const D: usize> Default for MaxPoolOptions<D> {
    fn default() -> Self {
        MaxPoolOptions { stride: None, padding: [0; D], dilation: [1; D], ceil_mode: false }
    }
}

/// Options of [`Var::avg_pool2d`] and [`Var::avg_pool1d`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvgPoolOptions<const D: usize> {
    /// Distance of windows; that of the kernel's size where `None`.
    pub stride: Option<[usize; D]>,
    /// Zeros added at both ends of each dim, at most half the kernel.
    pub padding: [usize; D],
    /// Whether a last window that begins inside may reach beyond the padding.
    pub ceil_mode: bool,
    /// Whether the padding counts in the number that a sum is divided by.
    pub count_include_pad: bool,
    /// What sums are divided by, instead of the number of entries.
    pub divisor_override: Option<usize>,
}

impl<const D: usize> Default for AvgPoolOptions<D> {
    fn default() -> Self {
        AvgPoolOptions {
            stride: None,
            padding: [0; D],
            ceil_mode: false,
            count_include_pad: true,
            divisor_override: None,
        }
    }
}

/// What all pools have in common.
struct Pool {
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
    ceil_mode: bool,
}

impl Pool {
    /// Where the windows stand over a shape, and height and width of that.
    fn windows(&self, op: &'static str, shape: &[usize]) -> Result<(Windows, [usize; 2])> {
        let Pool { kernel, stride, padding, dilation, ceil_mode } = *self;
        let [.., h, w] = *shape else {
            let (expected, shape) = ("[.., H, W]", shape.to_vec());
            return Err(Error::RankMismatch { op, expected, shape });
        };
        let size = [h, w];
        if (0..2).any(|d| padding[d] > kernel[d] / 2) {
            let reason = format!("must be at most half the kernel {kernel:?}, found {padding:?}");
            return Err(Error::InvalidArgument { op, name: "padding", reason });
        }
        let mut around = padding.map(|p| (p, p));
        for d in 0..2 {
            let reach = size[d].saturating_add(padding[d]);
            let extent = (kernel[d].saturating_sub(1)).saturating_mul(dilation[d]);
            let padded = reach.saturating_add(padding[d]);
            if ceil_mode && stride[d] > 0 {
                // A last window that begins before `reach`, and so inside or in the padding before.
                let last = padded.saturating_sub(extent.saturating_add(1)).div_ceil(stride[d]);
                let start = last.saturating_mul(stride[d]);
                let fits = padded.saturating_add(stride[d] - 1) > extent;
                if fits && start < reach {
                    let end = start.saturating_add(extent).saturating_add(1);
                    around[d].1 = padding[d] + end.saturating_sub(padded);
                }
            }
        }
        Ok((Windows { kernel, stride, padding: around, dilation }, size))
    }
}

impl<T: Float> Var<T> {
    /// The maximum of each window over the last two dims. Of equal ones the first in the window, row
    /// by row, counts; NaN counts as the maximum (the last one), as PyTorch.
    ///
    /// # Shape
    /// `[.., H, W]` → `[.., OH, OW]` with any number of leading dims,
    /// `OH = ⌊(H + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1`; rounded up with `ceil_mode`,
    /// where the last window still begins inside or in the padding before.
    ///
    /// # Gradient
    /// dx is g at the maxima, added up where windows overlap, and 0 elsewhere. Keeps the indices of
    /// the maxima. Any order.
    ///
    /// # Errors
    /// [`Error::RankMismatch`]; [`Error::InvalidArgument`] for a kernel, stride or dilation of 0, a
    /// padding larger than half the kernel, a kernel larger than the padded input, and where a window
    /// holds nothing but padding.
    ///
    /// # Examples
    /// ```
    /// use autograd::{MaxPoolOptions, Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from_vec(vec![1.0, 4.0, 3.0, 2.0, 5.0, 5.0], [1, 2, 3])?);
    /// let options = MaxPoolOptions { stride: Some([1, 1]), ..MaxPoolOptions::default() };
    /// let y = x.max_pool2d([2, 2], &options)?;
    /// assert_eq!(y.value().to_vec(), [5.0, 5.0]);
    /// assert_eq!(y.sum().backward()?.wrt(&x)?.to_vec(), [0.0, 0.0, 0.0, 0.0, 2.0, 0.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.nn.functional.max_pool2d`.
    #[track_caller]
    pub fn max_pool2d(&self, kernel: [usize; 2], options: &MaxPoolOptions<2>) -> Result<Self> {
        self.max_pool("max_pool2d", kernel, options)
    }

    /// [`Var::max_pool2d`] over the last dim.
    ///
    /// # Shape
    /// `[.., C, L]` → `[.., C, M]`, `M = ⌊(L + 2·padding − dilation·(kernel − 1) − 1)/stride⌋ + 1`.
    ///
    /// # Gradient
    /// dx is g at the maxima, added up where windows overlap, and 0 elsewhere. Keeps the indices of
    /// the maxima. Any order.
    ///
    /// # Errors
    /// As [`Var::max_pool2d`].
    ///
    /// # Reference
    /// `torch.nn.functional.max_pool1d`.
    #[track_caller]
    pub fn max_pool1d(&self, kernel: usize, options: &MaxPoolOptions<1>) -> Result<Self> {
        let MaxPoolOptions { stride, padding: [p], dilation: [dilation], ceil_mode } = *options;
        let (stride, padding) = (stride.map(|[s]| [1, s]), [0, p]);
        let options = MaxPoolOptions { stride, padding, dilation: [1, dilation], ceil_mode };
        let op = "max_pool1d";
        self.as_row(op)?.max_pool(op, [1, kernel], &options)?.squeeze(-2)
    }

    #[track_caller]
    fn max_pool(
        &self,
        op: &'static str,
        kernel: [usize; 2],
        options: &MaxPoolOptions<2>,
    ) -> Result<Self> {
        let MaxPoolOptions { stride, padding, dilation, ceil_mode } = *options;
        let stride = stride.unwrap_or(kernel);
        let pool = Pool { kernel, stride, padding, dilation, ceil_mode };
        let (windows, size) = pool.windows(op, self.shape())?;
        // Checked here, so that errors name this operation.
        windows.count(op, size)?;
        let (y, index) = self.value().max_windows(&windows)?;
        record(op, [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.put_in_planes(&index, size)?)
        })
    }

    /// Each element added at its index of a plane of `size`, zeros elsewhere. Linear; the adjoint
    /// takes from there.
    #[track_caller]
    fn put_in_planes(&self, index: &Tensor<i64>, size: [usize; 2]) -> Result<Self> {
        let (planes, shape) = planes(self.shape(), size);
        let (g, at) = (self.value().flatten(-2, -1)?, index.flatten(-2, -1)?);
        let taken = g.shape()[g.rank() - 1];
        let zeros = Tensor::zeros([planes, size[0] * size[1]])?;
        let (g, at) = (g.reshape([planes, taken])?, at.reshape([planes, taken])?);
        let dx = zeros.scatter_add(1, &at, &g)?.reshape(shape)?;
        let index = index.clone();
        record("max_pool_backward", [self.node()], [], dx, move |_, v, sink| {
            sink.add(0, v.take_from_planes(&index, size)?)
        })
    }

    /// The elements at these indices of each plane, of `size`.
    #[track_caller]
    fn take_from_planes(&self, index: &Tensor<i64>, size: [usize; 2]) -> Result<Self> {
        let (planes, _) = planes(self.shape(), size);
        let x = self.value().reshape([planes, size[0] * size[1]])?;
        let at = index.reshape([planes, index.numel() / planes.max(1)])?;
        let y = x.gather(1, &at)?.reshape(index.shape())?;
        let index = index.clone();
        record("max_pool_take", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.put_in_planes(&index, size)?)
        })
    }

    /// The mean of each window over the last two dims, padding counting as 0.
    ///
    /// Divided by the number of entries, those of the padding too unless `count_include_pad` is
    /// false (what lies beyond the padding with `ceil_mode` never counts), or by
    /// `divisor_override`.
    ///
    /// # Shape
    /// As [`Var::max_pool2d`], with dilation 1.
    ///
    /// # Gradient
    /// dx is, for each entry, `Σ g/divisor` over the windows that hold it. Saves nothing. Any order.
    ///
    /// # Errors
    /// As [`Var::max_pool2d`]; [`Error::InvalidArgument`] for a `divisor_override` of 0.
    ///
    /// # Reference
    /// `torch.nn.functional.avg_pool2d`.
    #[track_caller]
    pub fn avg_pool2d(&self, kernel: [usize; 2], options: &AvgPoolOptions<2>) -> Result<Self> {
        self.avg_pool("avg_pool2d", kernel, options)
    }

    /// [`Var::avg_pool2d`] over the last dim.
    ///
    /// # Shape
    /// `[.., C, L]` → `[.., C, M]`, `M = ⌊(L + 2·padding − kernel)/stride⌋ + 1`.
    ///
    /// # Gradient
    /// dx is, for each entry, `Σ g/divisor` over the windows that hold it. Saves nothing. Any order.
    ///
    /// # Errors
    /// As [`Var::avg_pool2d`].
    ///
    /// # Reference
    /// `torch.nn.functional.avg_pool1d`, which has no `divisor_override`.
    #[track_caller]
    pub fn avg_pool1d(&self, kernel: usize, options: &AvgPoolOptions<1>) -> Result<Self> {
        let AvgPoolOptions { stride, padding: [p], ceil_mode, .. } = *options;
        let AvgPoolOptions { count_include_pad, divisor_override, .. } = *options;
        let (stride, padding) = (stride.map(|[s]| [1, s]), [0, p]);
        let options =
            AvgPoolOptions { stride, padding, ceil_mode, count_include_pad, divisor_override };
        let op = "avg_pool1d";
        self.as_row(op)?.avg_pool(op, [1, kernel], &options)?.squeeze(-2)
    }

    #[track_caller]
    fn avg_pool(
        &self,
        op: &'static str,
        kernel: [usize; 2],
        options: &AvgPoolOptions<2>,
    ) -> Result<Self> {
        let AvgPoolOptions { stride, padding, ceil_mode, .. } = *options;
        let stride = stride.unwrap_or(kernel);
        let pool = Pool { kernel, stride, padding, dilation: [1, 1], ceil_mode };
        let (windows, size) = pool.windows(op, self.shape())?;
        let count = windows.count(op, size)?;
        let divisors = match options.divisor_override {
            Some(0) => {
                let reason = "must not be 0".into();
                return Err(Error::InvalidArgument { op, name: "divisor_override", reason });
            }
            Some(n) => Tensor::scalar(T::from_f64(n as f64)),
            None => {
                let counted = if options.count_include_pad { padding } else { [0, 0] };
                let sizes = [0, 1].map(|d| lengths(&windows, d, size[d], counted[d], count[d]));
                let [rows, columns] = sizes;
                let rows = Tensor::from_vec(rows, [count[0], 1])?;
                rows.checked_mul(&Tensor::from_vec(columns, [1, count[1]])?)?
            }
        };
        self.mean_windows(op, windows, divisors, size)
    }

    /// [`Tensor::mean_windows`], linear.
    #[track_caller]
    fn mean_windows(
        &self,
        op: &'static str,
        windows: Windows,
        divisors: Tensor<T>,
        size: [usize; 2],
    ) -> Result<Self> {
        let y = self.value().mean_windows(&windows, &divisors)?;
        record(op, [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.spread_windows(windows, divisors.clone(), size)?)
        })
    }

    /// [`Tensor::spread_windows`], linear.
    #[track_caller]
    fn spread_windows(
        &self,
        windows: Windows,
        divisors: Tensor<T>,
        size: [usize; 2],
    ) -> Result<Self> {
        let dx = self.value().spread_windows(&windows, &divisors, size)?;
        record("avg_pool_backward", [self.node()], [], dx, move |_, v, sink| {
            sink.add(0, v.mean_windows("avg_pool", windows, divisors.clone(), size)?)
        })
    }

    /// `[.., C, L]` as `[.., C, 1, L]`.
    #[track_caller]
    fn as_row(&self, op: &'static str) -> Result<Self> {
        if self.value().rank() < 2 {
            let (expected, shape) = ("[.., C, L]", self.shape().to_vec());
            return Err(Error::RankMismatch { op, expected, shape });
        }
        self.unsqueeze(-2)
    }
}

/// How many planes a shape has, and the shape with planes of `size`.
fn planes(shape: &[usize], size: [usize; 2]) -> (usize, Shape) {
    let lead = &shape[..shape.len() - 2];
    (lead.iter().product(), lead.iter().copied().chain(size).collect())
}

/// The number of entries of each window along a dim, where `padding` of the entries before and after
/// count too.
fn lengths<T: Float>(
    windows: &Windows,
    d: usize,
    size: usize,
    padding: usize,
    count: usize,
) -> Vec<T> {
    // Positions in the padded dim.
    let before = windows.padding[d].0;
    let (low, high) = (before - padding, before + size + padding);
    let window = |o: usize| {
        let start = o * windows.stride[d];
        (start + windows.kernel[d]).min(high).saturating_sub(start.max(low))
    };
    (0..count).map(|o| T::from_f64(window(o) as f64)).collect()
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let side_by_side = MaxPoolOptions::<2>::default();
    let overlapping =
        MaxPoolOptions { stride: Some([1, 2]), padding: [1, 1], dilation: [1, 2], ceil_mode: true };
    let plain = AvgPoolOptions::<2>::default();
    let padded = AvgPoolOptions {
        stride: Some([1, 2]),
        padding: [1, 1],
        ceil_mode: true,
        ..AvgPoolOptions::default()
    };
    let line = MaxPoolOptions { stride: Some([1]), ..MaxPoolOptions::<1>::default() };
    let mean = AvgPoolOptions { stride: Some([2]), padding: [1], ..AvgPoolOptions::<1>::default() };
    vec![
        Row::of("max_pool2d", &[&[1, 2, 3]], move |x| {
            (&x[0] * &x[0])
                .max_pool2d([2, 2], &MaxPoolOptions { stride: Some([1, 1]), ..side_by_side })
        })
        .and(&[&[2, 2, 4, 5]], move |x| x[0].max_pool2d([2, 2], &side_by_side))
        .and(&[&[2, 5, 4]], move |x| x[0].max_pool2d([3, 2], &overlapping))
        .and(&[&[4, 5]], move |x| x[0].max_pool2d([3, 3], &overlapping))
        .and(&[&[2, 3, 4, 2]], move |x| {
            x[0].permute(&[3, 0, 2, 1])?.max_pool2d([2, 2], &side_by_side)
        })
        .and(&[&[2, 1, 4]], move |x| x[0].expand([2, 3, 4])?.max_pool2d([1, 3], &side_by_side))
        .and(&[&[2, 3, 3]], move |x| {
            let options = MaxPoolOptions { ceil_mode: true, ..side_by_side };
            x[0].max_pool2d([2, 2], &options)
        })
        .and(&[&[0, 2, 3, 3]], move |x| x[0].max_pool2d([2, 2], &side_by_side))
        .and(&[&[2, 1, 1]], move |x| x[0].max_pool2d([1, 1], &side_by_side)),
        Row::of("max_pool1d", &[&[1, 4]], move |x| (&x[0] * &x[0]).max_pool1d(2, &line))
            .and(&[&[2, 3, 7]], move |x| {
                let options = MaxPoolOptions { padding: [1], dilation: [2], ..line };
                x[0].max_pool1d(3, &options)
            })
            .and(&[&[5, 2]], move |x| x[0].transpose(0, 1)?.max_pool1d(3, &line))
            .and(&[&[2, 0, 3]], move |x| x[0].max_pool1d(2, &line)),
        Row::of("avg_pool2d", &[&[1, 2, 3]], move |x| (&x[0] * &x[0]).avg_pool2d([2, 2], &plain))
            .and(&[&[2, 2, 4, 5]], move |x| (&x[0] * &x[0]).avg_pool2d([2, 2], &plain))
            .and(&[&[2, 5, 4]], move |x| x[0].avg_pool2d([3, 2], &padded))
            .and(&[&[2, 5, 4]], move |x| {
                let options = AvgPoolOptions { count_include_pad: false, ..padded };
                (&x[0] * &x[0]).avg_pool2d([2, 3], &options)
            })
            .and(&[&[4, 4]], move |x| {
                let options = AvgPoolOptions { divisor_override: Some(7), ..padded };
                x[0].avg_pool2d([3, 3], &options)
            })
            .and(&[&[2, 3, 4, 2]], move |x| x[0].permute(&[3, 0, 2, 1])?.avg_pool2d([2, 2], &plain))
            .and(&[&[2, 1, 4]], move |x| x[0].expand([2, 3, 4])?.avg_pool2d([2, 3], &plain))
            .and(&[&[0, 2, 3, 3]], move |x| x[0].avg_pool2d([2, 2], &plain)),
        Row::of("avg_pool1d", &[&[1, 4]], move |x| (&x[0] * &x[0]).avg_pool1d(2, &mean))
            .and(&[&[2, 3, 6]], move |x| {
                let options = AvgPoolOptions { count_include_pad: false, ceil_mode: true, ..mean };
                x[0].avg_pool1d(3, &options)
            })
            .and(&[&[5, 2]], move |x| x[0].transpose(0, 1)?.avg_pool1d(3, &mean))
            .and(&[&[2, 0, 3]], move |x| x[0].avg_pool1d(2, &mean)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    fn value<O>(y: Result<Var<f64>>, f: impl FnOnce(&Tensor<f64>) -> O) -> O {
        f(y.unwrap().value())
    }

    fn arange(shape: &[usize]) -> Var<f64> {
        let n: usize = shape.iter().product();
        Var::constant(Tensor::from_vec((1..=n).map(|i| i as f64).collect(), shape).unwrap())
    }

    #[test]
    fn ties_go_to_the_first_and_nan_counts_as_the_maximum() {
        let dx = |x: [f64; 4]| {
            let x = Tape::new().var(Tensor::from_slice(&x, [1, 2, 2]).unwrap());
            let y = x.max_pool2d([2, 2], &MaxPoolOptions::default()).unwrap();
            (y.item().unwrap(), y.backward().unwrap().wrt(&x).unwrap().to_vec())
        };
        assert_eq!(dx([1.0, 3.0, 3.0, 3.0]), (3.0, vec![0.0, 1.0, 0.0, 0.0]));
        assert_eq!(dx([f64::NEG_INFINITY; 4]), (f64::NEG_INFINITY, vec![1.0, 0.0, 0.0, 0.0]));
        let (y, dx) = dx([f64::NAN, 5.0, f64::NAN, f64::INFINITY]);
        assert!(y.is_nan());
        assert_eq!(dx, [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn padding_is_never_the_maximum() {
        let x = -arange(&[1, 2, 2]);
        let options = MaxPoolOptions { padding: [1, 1], ..MaxPoolOptions::default() };
        let y = x.max_pool2d([2, 2], &options);
        assert_eq!(value(y, Tensor::to_vec), [-1.0, -2.0, -3.0, -4.0]);
    }

    /// Sizes as PyTorch's formula gives them, with its rule that a window must begin inside.
    #[test]
    fn ceil_mode_follows_torch() {
        for (size, kernel, stride, padding) in (1..8).flat_map(|s| {
            (1..4)
                .flat_map(move |k| (1..5).flat_map(move |t| (0..=k / 2).map(move |p| (s, k, t, p))))
        }) {
            let (numerator, wanted) =
                ((size + 2 * padding) as isize - kernel as isize, |n: isize| {
                    let mut out = n.div_euclid(stride as isize) + 1;
                    if (out - 1) * stride as isize >= (size + padding) as isize {
                        out -= 1;
                    }
                    out
                });
            let wanted = wanted(numerator + stride as isize - 1);
            let options = MaxPoolOptions {
                stride: Some([stride]),
                padding: [padding],
                dilation: [1],
                ceil_mode: true,
            };
            let y = arange(&[1, size]).max_pool1d(kernel, &options);
            match usize::try_from(wanted) {
                Ok(n) if n > 0 => {
                    let y = y.unwrap();
                    assert_eq!(y.shape(), [1, n], "{size} {kernel} {stride} {padding}");
                    // The last window ends with the input.
                    let start = (n - 1) * stride;
                    let last = (start + kernel).saturating_sub(padding).min(size);
                    assert_eq!(y.value().to_vec()[n - 1], last as f64);
                }
                _ => assert!(y.is_err(), "{size} {kernel} {stride} {padding}"),
            }
        }
    }

    #[test]
    fn means_divide_by_what_they_are_told_to() {
        let x = arange(&[1, 3]);
        let mean = |options: AvgPoolOptions<1>| value(x.avg_pool1d(2, &options), Tensor::to_vec);
        let padded = AvgPoolOptions { padding: [1], ..AvgPoolOptions::default() };
        assert_eq!(mean(padded), [0.5, 2.5]);
        assert_eq!(mean(AvgPoolOptions { count_include_pad: false, ..padded }), [1.0, 2.5]);
        assert_eq!(mean(AvgPoolOptions { divisor_override: Some(1), ..padded }), [1.0, 5.0]);
        // With ceil_mode the last window has one entry of the input, and none of padding.
        let ceil = AvgPoolOptions { ceil_mode: true, ..AvgPoolOptions::default() };
        assert_eq!(mean(ceil), [1.5, 3.0]);
        // And here one of the input, one of padding, and one beyond.
        let y = x.avg_pool1d(3, &AvgPoolOptions { stride: Some([3]), ceil_mode: true, ..padded });
        assert_eq!(value(y, Tensor::to_vec), [1.0, 1.5]);
    }

    #[test]
    fn matches_naive() {
        for (kernel, stride, padding) in
            [([2, 2], [2, 2], [0, 0]), ([3, 2], [1, 3], [1, 1]), ([1, 4], [2, 1], [0, 2])]
        {
            let x = arange(&[2, 2, 5, 6]).value().sin();
            let data = x.to_vec();
            let count = |d: usize, size: usize| (size + 2 * padding[d] - kernel[d]) / stride[d] + 1;
            let (mut largest, mut means) = (Vec::new(), Vec::new());
            for (p, i, j) in (0..4).flat_map(|p| {
                (0..count(0, 5)).flat_map(move |i| (0..count(1, 6)).map(move |j| (p, i, j)))
            }) {
                let (mut max, mut sum) = (f64::NEG_INFINITY, 0.0);
                for t in 0..kernel[0] * kernel[1] {
                    let row = (i * stride[0] + t / kernel[1]).wrapping_sub(padding[0]);
                    let column = (j * stride[1] + t % kernel[1]).wrapping_sub(padding[1]);
                    if row < 5 && column < 6 {
                        let x = data[(p * 5 + row) * 6 + column];
                        (max, sum) = (f64::max(max, x), sum + x);
                    }
                }
                largest.push(max);
                means.push(sum / (kernel[0] * kernel[1]) as f64);
            }
            let x = Var::constant(x);
            let options = MaxPoolOptions { stride: Some(stride), padding, ..Default::default() };
            assert_eq!(value(x.max_pool2d(kernel, &options), Tensor::to_vec), largest);
            let options = AvgPoolOptions { stride: Some(stride), padding, ..Default::default() };
            assert_eq!(value(x.avg_pool2d(kernel, &options), Tensor::to_vec), means);
        }
    }

    #[test]
    fn rejects_bad_shapes_and_options() {
        let x = arange(&[1, 4, 4]);
        let text = |r: Result<Var<f64>>| r.unwrap_err().to_string();
        let max = MaxPoolOptions::<2>::default();
        let avg = AvgPoolOptions::<2>::default();
        assert_eq!(
            text(x.max_pool2d([3, 2], &MaxPoolOptions { padding: [2, 0], ..max })),
            "max_pool2d: padding must be at most half the kernel [3, 2], found [2, 0]"
        );
        let still = MaxPoolOptions { stride: Some([0, 1]), ..max };
        assert!(text(x.max_pool2d([2, 2], &still)).contains("stride must not be 0"));
        let ceil = MaxPoolOptions { ceil_mode: true, ..still };
        assert!(text(x.max_pool2d([2, 2], &ceil)).contains("stride must not be 0"));
        assert!(text(x.max_pool2d([0, 2], &max)).contains("kernel must not be 0"));
        assert!(text(x.max_pool2d([5, 1], &max)).contains("spans 5 entries"));
        assert!(text(x.avg_pool2d([1, 5], &avg)).starts_with("avg_pool2d: kernel"));
        let nothing = AvgPoolOptions { divisor_override: Some(0), ..avg };
        assert!(text(x.avg_pool2d([2, 2], &nothing)).contains("divisor_override must not be 0"));
        assert!(text(arange(&[3]).max_pool2d([1, 1], &max)).contains("expected [.., H, W]"));
        let line = MaxPoolOptions::<1>::default();
        assert!(text(arange(&[3]).max_pool1d(1, &line)).contains("expected [.., C, L]"));
        assert!(text(arange(&[0, 0, 3]).max_pool2d([1, 1], &max)).contains("kernel"));
    }
}
