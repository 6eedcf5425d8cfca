//! Convolution over two dims, and the two maps that are its gradients.
//!
//! With K taps, a sample of the input becomes a matrix of columns `[C/groups·K, OH·OW]` for each
//! group, whose column is what one window holds. Then `y = w·columns`, `dw = Σ_n g·columnsᵀ`, and dx
//! is `wᵀ·g` with each column added back to its window. Columns exist for a sample at a time, or not
//! at all where they are the input itself.

use rayon::prelude::*;

use super::windows::{Axis, Windows};
use crate::buffer::Buffer;
use crate::element::Float;
use crate::error::{Error, Result};
use crate::kernels::matmul::{MatRef, PARALLEL};
use crate::kernels::walk::{self, GRAIN};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Elements of all partial sums of a weight's gradient together, and how many there are at most.
const PARTIAL: (usize, usize) = (4 << 20, 16);

/// Options of a convolution over `D` dims; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions<const D: usize> {
    /// Distance of windows.
    pub stride: [usize; D],
    /// Zeros added at both ends of each dim.
    pub padding: [usize; D],
    /// Distance of taps.
    pub dilation: [usize; D],
    /// Groups of channels, each of which sees its part of the input only.
    pub groups: usize,
}

impl<const D: usize> Default for ConvOptions<D> {
    fn default() -> Self {
        ConvOptions { stride: [1; D], padding: [0; D], dilation: [1; D], groups: 1 }
    }
}

/// The sizes of a convolution, checked.
struct Sizes {
    batch: usize,
    groups: usize,
    /// Input and output channels of a group.
    channels: [usize; 2],
    axes: [Axis; 2],
    /// Whether the columns of a sample are the sample.
    plain: bool,
}

impl Sizes {
    fn new(
        op: &'static str,
        x: [usize; 4],
        [out_channels, group_channels, kernel @ ..]: [usize; 4],
        options: &ConvOptions<2>,
    ) -> Result<Self> {
        let [batch, in_channels, size @ ..] = x;
        let ConvOptions { stride, padding, dilation, groups } = *options;
        if groups == 0 || !out_channels.is_multiple_of(groups) {
            let reason = format!("must divide the {out_channels} output channels, found {groups}");
            return Err(Error::InvalidArgument { op, name: "groups", reason });
        }
        if group_channels.checked_mul(groups) != Some(in_channels) {
            let reason = format!(
                "has {group_channels} channels for each of {groups} groups, the input has {in_channels}"
            );
            return Err(Error::InvalidArgument { op, name: "weight", reason });
        }
        let windows = Windows { kernel, stride, padding: padding.map(|p| (p, p)), dilation };
        let axes = windows.axes(op, size)?;
        let channels = [group_channels, out_channels / groups];
        let plain = kernel == [1, 1] && stride == [1, 1] && padding == [0, 0];
        let sizes = Sizes { batch, groups, channels, axes, plain };
        // The columns of a sample, and nothing larger, are made beside the operands.
        Shape::from([in_channels, sizes.taps(), sizes.windows()])
            .checked_alloc(op, size_of::<f64>())?;
        Ok(sizes)
    }

    fn taps(&self) -> usize {
        self.axes[0].kernel.saturating_mul(self.axes[1].kernel)
    }

    fn windows(&self) -> usize {
        self.axes[0].count.saturating_mul(self.axes[1].count)
    }

    fn plane(&self) -> usize {
        self.axes[0].size * self.axes[1].size
    }

    /// Rows of the columns of one group.
    fn depth(&self) -> usize {
        self.channels[0] * self.taps()
    }

    fn input_sample(&self) -> usize {
        self.groups * self.channels[0] * self.plane()
    }

    fn output_sample(&self) -> usize {
        self.groups * self.channels[1] * self.windows()
    }

    fn weight(&self) -> usize {
        self.groups * self.channels[1] * self.depth()
    }

    /// Elements of the columns of a sample, where they are made.
    fn columns(&self) -> usize {
        if self.plain { 0 } else { self.groups * self.depth() * self.windows() }
    }

    /// Multiply-adds of a sample.
    fn work(&self) -> usize {
        self.weight().saturating_mul(self.windows())
    }

    fn input_shape(&self) -> Shape {
        let [h, w] = self.axes.map(|a| a.size);
        [self.batch, self.groups * self.channels[0], h, w].into()
    }

    fn output_shape(&self) -> Shape {
        let [h, w] = self.axes.map(|a| a.count);
        [self.batch, self.groups * self.channels[1], h, w].into()
    }

    /// The columns of a sample: `x` itself, or made in `scratch`.
    fn gather<'a, T: Float>(&self, x: &'a [T], scratch: &'a mut Buffer<T>) -> &'a [T] {
        if self.plain {
            return x;
        }
        let [rows, columns] = self.axes;
        let (plane, row) = (self.plane(), columns.count);
        let channel = self.taps() * self.windows();
        let out = exclusive(scratch);
        walk::parallel(out, channel * (GRAIN / channel).max(1), |start, out| {
            for (c, out) in out.chunks_exact_mut(channel).enumerate() {
                let x = &x[(start / channel + c) * plane..][..plane];
                for (tap, out) in out.chunks_exact_mut(row * rows.count).enumerate() {
                    let (i, j) = (tap / columns.kernel, tap % columns.kernel);
                    let (inside, within) = (rows.inside(i), columns.inside(j));
                    for (o, out) in out.chunks_exact_mut(row).enumerate() {
                        if !inside.contains(&o) || within.is_empty() {
                            out.fill(T::ZERO);
                            continue;
                        }
                        out[..within.start].fill(T::ZERO);
                        out[within.end..].fill(T::ZERO);
                        let at = rows.entry(o, i) * columns.size + columns.entry(within.start, j);
                        let out = &mut out[within.clone()];
                        if columns.stride == 1 {
                            out.copy_from_slice(&x[at..at + out.len()]);
                        } else {
                            let x = x[at..].iter().step_by(columns.stride);
                            out.iter_mut().zip(x).for_each(|(o, &x)| *o = x);
                        }
                    }
                }
            }
        });
        out
    }

    /// The adjoint of [`Sizes::gather`]: adds each column to its window of `x`, which was 0.
    fn scatter<T: Float>(&self, all: &[T], x: &mut [T]) {
        let [rows, columns] = self.axes;
        let (plane, row) = (self.plane(), columns.count);
        let channel = self.taps() * self.windows();
        if plane == 0 {
            return;
        }
        walk::parallel(x, plane * (GRAIN / channel).max(1), |start, x| {
            let all = &all[start / plane * channel..];
            for (x, all) in x.chunks_exact_mut(plane).zip(all.chunks_exact(channel)) {
                for (tap, all) in all.chunks_exact(row * rows.count).enumerate() {
                    let (i, j) = (tap / columns.kernel, tap % columns.kernel);
                    let within = columns.inside(j);
                    for o in rows.inside(i).filter(|_| !within.is_empty()) {
                        let at = rows.entry(o, i) * columns.size + columns.entry(within.start, j);
                        let from = &all[o * row..][within.clone()];
                        if columns.stride == 1 {
                            let x = &mut x[at..at + from.len()];
                            x.iter_mut().zip(from).for_each(|(x, &c)| *x += c);
                        } else {
                            let x = x[at..].iter_mut().step_by(columns.stride);
                            x.zip(from).for_each(|(x, &c)| *x += c);
                        }
                    }
                }
            }
        });
    }

    /// Calls `work(sample, its part of out, scratch)`, on several threads where that pays.
    fn for_each_sample<T: Float>(
        &self,
        out: &mut [T],
        work: impl Fn(usize, &mut [T], &mut Buffer<T>) + Sync,
    ) {
        if out.is_empty() {
            return;
        }
        let (sample, each) = (out.len() / self.batch, self.work());
        let scratch = || Buffer::stale(self.columns());
        let all = self.batch.saturating_mul(each);
        if rayon::current_num_threads() > 1 && self.batch > 1 && all >= PARALLEL {
            let least = (PARALLEL / 4).div_ceil(each);
            (out.par_chunks_mut(sample).enumerate().with_min_len(least))
                .for_each_init(scratch, |scratch, (n, out)| work(n, out, scratch));
        } else {
            let mut scratch = scratch();
            out.chunks_mut(sample).enumerate().for_each(|(n, out)| work(n, out, &mut scratch));
        }
    }

    /// The matrices of one group: of a weight, of the columns of a sample, of a sample of the output.
    fn group<'a, T: Float>(&self, data: &'a [T], group: usize, of: Matrix) -> MatRef<'a, T> {
        let [rows, columns] = match of {
            Matrix::Weight => [self.channels[1], self.depth()],
            Matrix::Columns => [self.depth(), self.windows()],
            Matrix::Output => [self.channels[1], self.windows()],
        };
        let (start, row_stride) = (group * rows * columns, columns as isize);
        MatRef { data, start, rows, columns, row_stride, column_stride: 1 }
    }
}

#[derive(Clone, Copy)]
enum Matrix {
    Weight,
    Columns,
    Output,
}

/// The elements of a buffer that nobody shares.
fn exclusive<T: Float>(buffer: &mut Buffer<T>) -> &mut [T] {
    match buffer.get_mut() {
        Some(all) => all,
        None => unreachable!("bug: scratch is shared"),
    }
}

fn four<T: Float>(op: &'static str, x: &Tensor<T>, expected: &'static str) -> Result<[usize; 4]> {
    let shape = || x.shape().to_vec();
    x.dims(op).map_err(|_| Error::RankMismatch { op, expected, shape: shape() })
}

/// Convolution.
impl<T: Float> Tensor<T> {
    /// Cross-correlation with a kernel, as neural networks have it:
    /// `y[n, o, i, j] = b[o] + Σ_{c,k,l} w[o, c, k, l]·x[n, c, i·stride + k·dilation − padding, …]`,
    /// with x = 0 outside. `torch.nn.functional.conv2d`.
    ///
    /// # Shape
    /// `x: [N, C, H, W]`, `w: [O, C/groups, KH, KW]`, `b: [O]` → `[N, O, windows, windows]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`]; [`Error::InvalidArgument`] for groups that do not divide the output
    /// channels, for another number of input channels, and as [`Windows::count`];
    /// [`Error::ShapeMismatch`] for b; [`Error::SizeOverflow`].
    pub fn conv2d(&self, w: &Self, b: Option<&Self>, options: &ConvOptions<2>) -> Result<Self> {
        let op = "conv2d";
        let x_sizes = four(op, self, "[N, C, H, W]")?;
        let w_sizes = four(op, w, "a weight [O, C/groups, KH, KW]")?;
        let sizes = Sizes::new(op, x_sizes, w_sizes, options)?;
        if let Some(b) = b
            && b.shape() != [w_sizes[0]]
        {
            let (lhs, rhs) = (w.shape().to_vec(), b.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let shape = sizes.output_shape();
        shape.checked_alloc(op, size_of::<T>())?;
        let (x, w, b) = (self.contiguous(), w.contiguous(), b.map(Tensor::contiguous));
        Ok(Tensor::build(shape, |out| {
            sizes.for_each_sample(out, |n, out, scratch| {
                let sample = sizes.input_sample();
                let columns = sizes.gather(&x.elements()[n * sample..][..sample], scratch);
                if let Some(b) = &b {
                    let channels = out.chunks_exact_mut(sizes.windows());
                    channels.zip(b.elements()).for_each(|(out, &b)| out.fill(b));
                }
                let part = sizes.channels[1] * sizes.windows();
                for (group, out) in out.chunks_exact_mut(part).enumerate() {
                    let w = sizes.group(w.elements(), group, Matrix::Weight);
                    let columns = sizes.group(columns, group, Matrix::Columns);
                    T::gemm(out, w, columns, b.is_some());
                }
            });
        }))
    }

    /// The adjoint of [`Tensor::conv2d`] in its input, for inputs of height and width `size`: what
    /// `self`, shaped as the output, gives to each element of the input. It is the gradient of a
    /// convolution in its input, and itself the transposed convolution.
    /// `torch.nn.grad.conv2d_input`.
    ///
    /// # Shape
    /// `g: [N, O, windows, windows]`, `w: [O, C/groups, KH, KW]` → `[N, C, H, W]`.
    ///
    /// # Errors
    /// As [`Tensor::conv2d`]; [`Error::ShapeMismatch`] if g is no output for that size.
    pub fn conv2d_input(
        &self,
        w: &Self,
        size: [usize; 2],
        options: &ConvOptions<2>,
    ) -> Result<Self> {
        let op = "conv2d_input";
        let [batch, ..] = four(op, self, "[N, O, H, W]")?;
        let w_sizes = four(op, w, "a weight [O, C/groups, KH, KW]")?;
        let channels = w_sizes[1].saturating_mul(options.groups);
        let sizes = Sizes::new(op, [batch, channels, size[0], size[1]], w_sizes, options)?;
        self.check_output(op, &sizes)?;
        let shape = sizes.input_shape();
        shape.checked_alloc(op, size_of::<T>())?;
        let (g, w) = (self.contiguous(), w.contiguous());
        Ok(Tensor::build(shape, |out| {
            sizes.for_each_sample(out, |n, out, scratch| {
                let sample = sizes.output_sample();
                let g = &g.elements()[n * sample..][..sample];
                let part = sizes.depth() * sizes.windows();
                let columns = if sizes.plain { &mut *out } else { exclusive(scratch) };
                for (group, columns) in columns.chunks_exact_mut(part.max(1)).enumerate() {
                    let w = sizes.group(w.elements(), group, Matrix::Weight);
                    let g = sizes.group(g, group, Matrix::Output);
                    T::gemm(columns, w.t(), g, false);
                }
                if !sizes.plain {
                    out.fill(T::ZERO);
                    sizes.scatter(scratch.as_slice(), out);
                }
            });
        }))
    }

    /// The gradient of [`Tensor::conv2d`] in a weight with this kernel: `self` is the input, g the
    /// gradient of the output; summed over the batch. `torch.nn.grad.conv2d_weight`.
    ///
    /// # Shape
    /// `x: [N, C, H, W]`, `g: [N, O, windows, windows]` → `[O, C/groups, KH, KW]`.
    ///
    /// # Errors
    /// As [`Tensor::conv2d`]; [`Error::ShapeMismatch`] if g is no output for x.
    pub fn conv2d_weight(
        &self,
        g: &Self,
        kernel: [usize; 2],
        options: &ConvOptions<2>,
    ) -> Result<Self> {
        let op = "conv2d_weight";
        let x_sizes = four(op, self, "[N, C, H, W]")?;
        let [_, out_channels, ..] = four(op, g, "an output [N, O, H, W]")?;
        let w_sizes = [out_channels, x_sizes[1] / options.groups.max(1), kernel[0], kernel[1]];
        let sizes = Sizes::new(op, x_sizes, w_sizes, options)?;
        g.check_output(op, &sizes)?;
        let shape = Shape::from(w_sizes);
        shape.checked_alloc(op, size_of::<T>())?;
        let (x, g) = (self.contiguous(), g.contiguous());
        // Samples from `first` on, added up in their order.
        let sum = |first: usize, count: usize, out: &mut [T]| {
            let mut scratch = Buffer::stale(sizes.columns());
            for n in first..first + count {
                let (sample, output) = (sizes.input_sample(), sizes.output_sample());
                let columns = sizes.gather(&x.elements()[n * sample..][..sample], &mut scratch);
                let g = &g.elements()[n * output..][..output];
                let part = sizes.channels[1] * sizes.depth();
                for (group, out) in out.chunks_exact_mut(part).enumerate() {
                    let g = sizes.group(g, group, Matrix::Output);
                    let columns = sizes.group(columns, group, Matrix::Columns);
                    T::gemm(out, g, columns.t(), n > first);
                }
            }
        };
        Ok(Tensor::build(shape, |out| {
            if sizes.batch == 0 || out.is_empty() {
                return out.fill(T::ZERO);
            }
            // Parts of the batch that depend on the sizes only, so that the bits do too.
            let room = (PARTIAL.0 / sizes.weight()).clamp(1, PARTIAL.1);
            let worth = (sizes.batch.saturating_mul(sizes.work()) / (PARALLEL / 4)).max(1);
            let step = sizes.batch.div_ceil(room.min(worth));
            if step == sizes.batch {
                return sum(0, step, out);
            }
            let parts = sizes.batch.div_ceil(step);
            let mut partial = Buffer::stale(parts * out.len());
            let partial = exclusive(&mut partial);
            let count = |part: usize| step.min(sizes.batch - part * step);
            if rayon::current_num_threads() > 1 {
                (partial.par_chunks_mut(out.len()).enumerate())
                    .for_each(|(p, partial)| sum(p * step, count(p), partial));
            } else {
                (partial.chunks_mut(out.len()).enumerate())
                    .for_each(|(p, partial)| sum(p * step, count(p), partial));
            }
            let (first, rest) = partial.split_at(out.len());
            out.copy_from_slice(first);
            for partial in rest.chunks_exact(out.len()) {
                out.iter_mut().zip(partial).for_each(|(o, &p)| *o += p);
            }
        }))
    }

    /// Refuses another shape than that of the output.
    fn check_output(&self, op: &'static str, sizes: &Sizes) -> Result<()> {
        let wanted = sizes.output_shape();
        if *self.shape() == *wanted {
            return Ok(());
        }
        Err(Error::ShapeMismatch { op, lhs: self.shape().to_vec(), rhs: wanted.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    #[test]
    fn a_known_image() {
        let x = Tensor::from_vec((1..=9).map(f64::from).collect(), [1, 1, 3, 3]).unwrap();
        let w = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2]).unwrap();
        let b = Tensor::from([0.5]);
        let y = x.conv2d(&w, Some(&b), &ConvOptions::default()).unwrap();
        assert_eq!(y.shape(), [1, 1, 2, 2]);
        assert_eq!(y.to_vec(), [37.5, 47.5, 67.5, 77.5]);
    }

    #[test]
    fn rejects_what_does_not_fit() {
        let z = |shape: &[usize]| Tensor::<f32>::zeros(shape).unwrap();
        let text = |x: &[usize], w: &[usize], options: ConvOptions<2>| {
            z(x).conv2d(&z(w), None, &options).map(|_| ()).unwrap_err().to_string()
        };
        let groups = |groups| ConvOptions { groups, ..ConvOptions::default() };
        let x = [1, 4, 5, 5];
        assert_eq!(
            text(&x, &[3, 2, 3, 3], groups(2)),
            "conv2d: groups must divide the 3 output channels, found 2"
        );
        assert!(text(&x, &[3, 2, 3, 3], groups(0)).contains("found 0"));
        assert_eq!(
            text(&x, &[4, 3, 3, 3], groups(2)),
            "conv2d: weight has 3 channels for each of 2 groups, the input has 4"
        );
        assert!(text(&[4, 5, 5], &[3, 4, 1, 1], groups(1)).contains("expected [N, C, H, W]"));
        assert!(text(&x, &[3, 4, 1], groups(1)).contains("expected a weight"));
        assert!(text(&x, &[3, 4, 6, 1], groups(1)).contains("kernel [6, 1]"));
        assert!(text(&x, &[3, 4, 0, 1], groups(1)).contains("kernel must not be 0"));
        let stride = ConvOptions { stride: [1, 0], ..ConvOptions::default() };
        assert!(text(&x, &[3, 4, 1, 1], stride).contains("stride must not be 0"));
        let w = z(&[3, 4, 3, 3]);
        assert!(z(&x).conv2d(&w, Some(&z(&[4])), &groups(1)).is_err());
        assert!(z(&[1, 3, 3, 2]).conv2d_input(&w, [5, 5], &groups(1)).is_err());
        assert!(z(&x).conv2d_weight(&z(&[2, 3, 3, 3]), [3, 3], &groups(1)).is_err());
        assert!(z(&x).conv2d_weight(&z(&[1, 3, 3, 3]), [3, 3], &groups(3)).is_err());
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let mut rng = Generator::new(9);
        let all = [([37, 6, 20, 20], [8, 3, 5, 5], 2, 1), ([2, 40, 33, 33], [24, 40, 3, 3], 1, 2)];
        for (x_shape, w_shape, groups, stride) in if cfg!(miri) { &all[..0] } else { &all[..] } {
            let options = ConvOptions {
                stride: [*stride; 2],
                padding: [1, 2],
                groups: *groups,
                ..ConvOptions::default()
            };
            let x = Tensor::<f32>::randn(*x_shape, &mut rng).unwrap();
            let w = Tensor::<f32>::randn(*w_shape, &mut rng).unwrap();
            let run = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let y = x.conv2d(&w, None, &options).unwrap();
                    let dx = y.conv2d_input(&w, [x_shape[2], x_shape[3]], &options).unwrap();
                    let dw = x.conv2d_weight(&y, [w_shape[2], w_shape[3]], &options).unwrap();
                    [y, dx, dw].map(|t| t.to_vec())
                })
            };
            let one = run(1);
            for threads in [2, 4] {
                let same = |(x, y): (&f32, &f32)| x.to_bits() == y.to_bits();
                let many = run(threads);
                assert!(one.iter().zip(&many).all(|(a, b)| a.iter().zip(b).all(same)));
            }
        }
    }
}
