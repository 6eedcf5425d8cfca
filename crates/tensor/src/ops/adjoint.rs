//! What is read by a view or by index, added back to where it was read: the gradients of views and of
//! selections.

use rayon::prelude::*;

use super::index::check_indices;
use crate::element::{Float, Number};
use crate::error::{Error, Result};
use crate::kernels::walk::{self, GRAIN, Walk};
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Reading through a view, backwards.
impl<T: Number> Tensor<T> {
    /// Zeros of `shape`, with the elements of `self` added where `view` of such a tensor reads them: in
    /// row-major order where an element is read several times. `torch.as_strided_scatter` into zeros.
    ///
    /// `view` is given the zeros, and returns any view of them: `narrow`, `slice`, `select`, `flip`,
    /// `diagonal`, `unfold`, or several of them in turn.
    ///
    /// # Shape
    /// `self` has the shape of the view; the result has `shape`.
    ///
    /// # Errors
    /// Those of `view`; [`Error::ShapeMismatch`] if the view has another shape than `self`;
    /// [`Error::InvalidArgument`] if what it returns is not a view; [`Error::SizeOverflow`].
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let windows = Tensor::<f64>::ones([3, 2])?;
    /// let covered = windows.scatter_view([4], |x| x.unfold(0, 2, 1))?;
    /// assert_eq!(covered.to_vec(), [1.0, 2.0, 2.0, 1.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    pub fn scatter_view(
        &self,
        shape: impl Into<Shape>,
        view: impl FnOnce(&Self) -> Result<Self>,
    ) -> Result<Self> {
        let op = "scatter_view";
        let shape = shape.into();
        shape.checked_alloc(op, size_of::<T>())?;
        add_through(op, Self::zeros(shape)?, self, view)
    }

    /// `self` with the elements of `source` added where `view` reads them: [`Tensor::scatter_view`] onto
    /// something. The storage of `self` is reused where nobody shares it.
    ///
    /// # Shape
    /// `source` has the shape of the view; the result that of `self`.
    ///
    /// # Errors
    /// As [`Tensor::scatter_view`].
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let row = Tensor::from([10.0_f64, 20.0]);
    /// let y = Tensor::from([[1.0, 2.0], [3.0, 4.0]]).add_through_view(&row, |x| x.select(0, 1))?;
    /// assert_eq!(y.to_vec(), [1.0, 2.0, 13.0, 24.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    pub fn add_through_view(
        self,
        source: &Self,
        view: impl FnOnce(&Self) -> Result<Self>,
    ) -> Result<Self> {
        add_through("add_through_view", self, source, view)
    }
}

/// `out[view] += source`.
fn add_through<T: Number>(
    op: &'static str,
    mut out: Tensor<T>,
    source: &Tensor<T>,
    view: impl FnOnce(&Tensor<T>) -> Result<Tensor<T>>,
) -> Result<Tensor<T>> {
    // Its own and row-major, before the view is taken.
    out.make_mut();
    let seen = view(&out)?;
    if seen.shape() != source.shape() {
        let (lhs, rhs) = (source.shape().to_vec(), seen.shape().to_vec());
        return Err(Error::ShapeMismatch { op, lhs, rhs });
    }
    if source.numel() == 0 {
        return Ok(out);
    }
    if !seen.shares_storage(&out) {
        let reason = "must return a view of its argument".into();
        return Err(Error::InvalidArgument { op, name: "view", reason });
    }
    let mut layout = seen.layout.clone();
    layout.offset -= out.layout.offset;
    // Nobody else may hold the storage when it is written.
    drop(seen);
    add_at(out.make_mut(), layout, source);
    Ok(out)
}

/// `out[layout(i)] += source[i]` in row-major order of `i`; the layout has the shape of the source,
/// which is not empty.
fn add_at<T: Number>(out: &mut [T], layout: Layout, source: &Tensor<T>) {
    let data = source.buffer.as_slice();
    let rank = layout.shape.len();
    let reach = |d: usize| (layout.shape[d] - 1) * layout.strides[d].unsigned_abs();
    let widest = (0..rank).filter(|&d| reach(d) > 0).max_by_key(|&d| layout.strides[d].abs());
    let Some(first) = widest else { return add_run(out, &layout, data, &source.layout) };
    let step = layout.strides[first].unsigned_abs();
    let others: usize = (0..rank).filter(|&d| d != first).map(reach).sum();
    if others >= step || source.numel() < 2 * GRAIN || rayon::current_num_threads() == 1 {
        return add_run(out, &layout, data, &source.layout);
    }
    // The entries of the dim of the longest step lie in stretches of `out` that do not overlap, so
    // that each element still receives what it does in the same order.
    let order: Vec<usize> = [first].into_iter().chain((0..rank).filter(|&d| d != first)).collect();
    let falling = layout.strides[first] < 0;
    let [to, from] =
        [&layout, &source.layout].map(|l| l.permuted(&order).flip(|d| d == 0 && falling));
    let (entries, row) = (to.shape[0], to.shape[1..].iter().product::<usize>());
    let (low, high) = to.span().unwrap_or_default();
    let share = (GRAIN / row).max(1);
    out[low..=high].par_chunks_mut(step * share).enumerate().for_each(|(task, out)| {
        let done = task * share;
        let part = |l: &Layout, offset: usize| {
            let mut part = Layout { offset, ..l.clone() };
            part.shape.as_mut_slice()[0] = share.min(entries - done);
            part
        };
        let start = from.offset as isize + done as isize * from.strides[0];
        add_run(out, &part(&to, to.offset - low), data, &part(&from, start as usize));
    });
}

fn add_run<T: Number>(out: &mut [T], to: &Layout, data: &[T], from: &Layout) {
    let walk = Walk::new([to, from]);
    let [along, beside] = walk.inner();
    walk.runs(0..to.shape.numel(), |[to, from], _, length| {
        if (along, beside) == (1, 1) {
            let pairs = out[to..to + length].iter_mut().zip(&data[from..from + length]);
            return pairs.for_each(|(o, &x)| *o = o.plus(x));
        }
        for i in 0..length as isize {
            let o = &mut out[(to as isize + i * along) as usize];
            *o = o.plus(data[(from as isize + i * beside) as usize]);
        }
    });
}

/// Reading by index, backwards.
impl<T: Float> Tensor<T> {
    /// A copy of `self` with entry i of `source` along `dim` added to the entry that `index[i]` names.
    /// What one entry receives is summed in `f64` and rounded once. `torch.index_add`.
    ///
    /// # Shape
    /// `index: [N]`; `source` has the shape of `self` but for size N along `dim`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::RankMismatch`] if `index` is no vector;
    /// [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`], with the position of the first bad index.
    pub fn index_add(&self, dim: isize, index: &Tensor<i64>, source: &Self) -> Result<Self> {
        let op = "index_add";
        let d = self.resolve_dim(op, dim)?;
        let [n] = index.dims(op)?;
        let mut shape = self.layout.shape.clone();
        shape.as_mut_slice()[d] = n;
        if source.layout.shape != shape {
            let (lhs, rhs) = (shape.to_vec(), source.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let size = self.shape()[d];
        check_indices(op, index, size)?;
        let mut result = self.clone();
        if source.numel() == 0 {
            return Ok(result);
        }
        let (starts, order) = by_entry(index, size);
        let inner: usize = self.shape()[d + 1..].iter().product();
        let source = source.contiguous();
        let rows = (GRAIN / inner).max(1);
        walk::parallel(result.make_mut(), rows * inner, |start, out| {
            let mut sums = vec![0.0; inner];
            for (i, out) in out.chunks_exact_mut(inner).enumerate() {
                let (before, entry) = ((start / inner + i) / size, (start / inner + i) % size);
                let named = &order[starts[entry]..starts[entry + 1]];
                if named.is_empty() {
                    continue;
                }
                sums.iter_mut().zip(&*out).for_each(|(sum, &o)| *sum = o.to_f64());
                for &position in named {
                    let row = &source.elements()[(before * n + position) * inner..][..inner];
                    sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += x.to_f64());
                }
                out.iter_mut().zip(&sums).for_each(|(o, &sum)| *o = T::from_f64(sum));
            }
        });
        Ok(result)
    }
}

/// The positions of `index` by the entry that they name, each in rising order: those of entry e are
/// `order[starts[e]..starts[e + 1]]`.
fn by_entry(index: &Tensor<i64>, size: usize) -> (Vec<usize>, Vec<usize>) {
    let index = index.contiguous();
    let mut starts = vec![0; size + 1];
    index.elements().iter().for_each(|&i| starts[i as usize + 1] += 1);
    (0..size).for_each(|e| starts[e + 1] += starts[e]);
    let (mut next, mut order) = (starts.clone(), vec![0; index.numel()]);
    for (position, &i) in index.elements().iter().enumerate() {
        order[next[i as usize]] = position;
        next[i as usize] += 1;
    }
    (starts, order)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_view_of_the_zeros_is_taken() {
        let g = Tensor::from([1.0_f32, 2.0]);
        let other = Tensor::from([5.0_f32, 6.0]);
        let text = g.scatter_view([3], |_| Ok(other.clone())).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "scatter_view: view must return a view of its argument");
        let text = g.scatter_view([3], |x| Ok(x.clone())).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "scatter_view: shapes do not match: [2] and [3]");
        let mut kept = None;
        let y = g.scatter_view([3], |x| {
            kept = Some(x.clone());
            x.narrow(0, 1, 2)
        });
        assert_eq!(y.unwrap().to_vec(), [0.0, 1.0, 2.0]);
        assert_eq!(kept.unwrap().to_vec(), [0.0; 3]);
    }

    #[test]
    fn a_repeated_entry_is_rounded_once() {
        let index = Tensor::<i64>::zeros([4]).unwrap();
        let source = Tensor::from([1.0_f32, 3e-8, 3e-8, 3e-8]);
        let sum = Tensor::zeros([1]).unwrap().index_add(0, &index, &source).unwrap();
        assert_eq!(sum.to_vec(), [1.000_000_1]);
    }
}
