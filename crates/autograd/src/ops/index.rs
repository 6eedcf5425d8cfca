//! Reading and writing entries by integer index or by mask. Indices and masks have no gradient, so
//! they are plain tensors.

use tensor::{Error, Float, Result, Shape, Tensor};

use crate::tape::record;
use crate::var::Var;

/// Indexing.
impl<T: Float> Var<T> {
    /// Zeros of `shape`, of which only one is stored until something is written.
    pub(super) fn zeros(shape: &Shape) -> Result<Self> {
        Ok(Var::constant(Tensor::scalar(T::ZERO).expand(shape)?))
    }

    /// The entries of `dim` that `index` names, in its order: `dx` is g added to the entries named.
    /// Saves nothing. Any order. `torch.index_select`.
    ///
    /// # Shape
    /// `index: [N]`; the result has size N along `dim`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::RankMismatch`] if `index` is no vector;
    /// [`Error::IndexOutOfRange`], with the position of the first bad index; [`Error::SizeOverflow`].
    #[track_caller]
    pub fn index_select(&self, dim: isize, index: &Tensor<i64>) -> Result<Self> {
        let y = self.value().index_select(dim, index)?;
        let (own, index) = (Shape::from(self.shape()), index.clone());
        record("index_select", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, Var::zeros(&own)?.index_add(dim, &index, &g)?)
        })
    }

    /// `self` with entry i of `source` along `dim` added to the entry that `index[i]` names: `dx` is g,
    /// that of the source the entries of g that were named. What one entry receives is summed in `f64`
    /// and rounded once. Saves nothing. Any order. `torch.index_add`.
    ///
    /// # Shape
    /// `index: [N]`; `source` has the shape of `self` but for size N along `dim`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::RankMismatch`] if `index` is no vector;
    /// [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`]; [`Error::MixedTapes`].
    #[track_caller]
    pub fn index_add(&self, dim: isize, index: &Tensor<i64>, source: &Self) -> Result<Self> {
        let y = self.value().index_add(dim, index, source.value())?;
        let index = index.clone();
        record("index_add", [self.node(), source.node()], [], y, move |ctx, g, sink| {
            if ctx.needs(1) {
                sink.add(1, g.index_select(dim, &index)?)?;
            }
            sink.add(0, g)
        })
    }

    /// The rows of a table that `indices` names: a vector for each index, with `self` as the table.
    /// Saves nothing. Any order. `torch.nn.functional.embedding`.
    ///
    /// # Shape
    /// `self: [V, D]`, `indices: [..]` → `[.., D]`.
    ///
    /// # Gradient
    /// Row i of `dW` is the sum of the g of all places with index i, summed in `f64` and rounded once;
    /// row `padding_idx` is 0, as in PyTorch.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] if the table is no matrix; [`Error::IndexOutOfRange`], with the position
    /// of the first bad index; [`Error::InvalidArgument`] if `padding_idx` is outside the table (counted
    /// from its front only, unlike in PyTorch).
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor};
    /// let w = Tape::new().var(Tensor::from([[0.0_f64, 0.0], [1.0, 2.0], [3.0, 4.0]]));
    /// let y = w.embedding(&Tensor::from([2_i64, 0, 2]), Some(0))?;
    /// assert_eq!(y.value().to_vec(), [3.0, 4.0, 0.0, 0.0, 3.0, 4.0]);
    /// let dw = y.backward_with(&Tensor::ones([3, 2])?)?.wrt(&w)?.to_vec();
    /// assert_eq!(dw, [0.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    #[track_caller]
    pub fn embedding(&self, indices: &Tensor<i64>, padding_idx: Option<usize>) -> Result<Self> {
        let op = "embedding";
        let [rows, width] = self.value().dims(op)?;
        if let Some(padding) = padding_idx.filter(|&i| i >= rows) {
            let reason = format!("is {padding}, but the table has {rows} rows");
            return Err(Error::InvalidArgument { op, name: "padding_idx", reason });
        }
        let shape: Shape = indices.shape().iter().copied().chain([width]).collect();
        let index = indices.reshape([indices.numel()])?;
        let y = match self.value().index_select(0, &index) {
            // The caller asked for no such operation.
            Err(Error::IndexOutOfRange { position, value, size, .. }) => {
                return Err(Error::IndexOutOfRange { op, position, value, size });
            }
            y => y?.reshape(shape)?,
        };
        let table = Shape::from(self.shape());
        record(op, [self.node()], [], y, move |_, g, sink| {
            let g = g.reshape([index.numel(), width])?;
            let Some(padding) = padding_idx else {
                return sink.add(0, Var::zeros(&table)?.index_add(0, &index, &g)?);
            };
            let kept = index.ne(padding as i64)?;
            let places = Tensor::<i64>::arange(0, index.numel() as i64, 1)?.masked_select(&kept)?;
            let (index, g) = (index.index_select(0, &places)?, g.index_select(0, &places)?);
            sink.add(0, Var::zeros(&table)?.index_add(0, &index, &g)?)
        })
    }

    /// `y[i][j][k] = x[i][index[i][j][k]][k]` for dim 1, and so for every dim: `dx` is g added to the
    /// elements named. Saves nothing. Any order. `torch.gather`.
    ///
    /// # Shape
    /// `index` has the rank of `self`, and is nowhere larger but along `dim`; the result has its shape.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`], with the position
    /// of the first bad index.
    #[track_caller]
    pub fn gather(&self, dim: isize, index: &Tensor<i64>) -> Result<Self> {
        self.gathered("gather", dim, index.clone(), self.value().gather(dim, index)?)
    }

    /// The elements `y` along `dim`, which came from `index`.
    #[track_caller]
    pub(super) fn gathered(
        &self,
        name: &'static str,
        dim: isize,
        index: Tensor<i64>,
        y: Tensor<T>,
    ) -> Result<Self> {
        let own = Shape::from(self.shape());
        record(name, [self.node()], [], y, move |_, g, sink| {
            sink.add(0, Var::zeros(&own)?.scatter_add(dim, &index, &g)?)
        })
    }

    /// `self` with `y[i][index[i][j][k]][k] = source[i][j][k]` for dim 1, and so for every dim. Where an
    /// element is named several times, the last in row-major order stays. Saves nothing. Any order.
    /// `torch.scatter`.
    ///
    /// # Shape
    /// `index` has the rank of `self` and of `source`, and is nowhere larger than `source`, nor than
    /// `self` but along `dim`.
    ///
    /// # Gradient
    /// `dx` is g with 0 where something was written; that of the source is the g of the element written
    /// to, and 0 for what was overwritten or is beyond `index`. (PyTorch gives what was overwritten the
    /// gradient of what stayed, and refuses a source larger than `index`.)
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`], with the position
    /// of the first bad index; [`Error::MixedTapes`].
    #[track_caller]
    pub fn scatter(&self, dim: isize, index: &Tensor<i64>, source: &Self) -> Result<Self> {
        let y = self.value().scatter(dim, index, source.value())?;
        let (own, larger) = (Shape::from(self.shape()), Shape::from(source.shape()));
        let index = index.clone();
        record("scatter", [self.node(), source.node()], [], y, move |ctx, g, sink| {
            if ctx.needs(1) {
                // Each place leaves its number where it writes; it stayed where it finds it there.
                let shape = Shape::from(index.shape());
                let places = Tensor::<i64>::arange(0, index.numel() as i64, 1)?.reshape(shape)?;
                let none = Tensor::scalar(0).expand(&own)?;
                let stayed =
                    none.scatter(dim, &index, &places)?.gather(dim, &index)?.eq(&places)?;
                let read = g.gather(dim, &index)?.threshold_backward(&stayed.cast())?;
                sink.add(1, read.in_corner(&larger)?)?;
            }
            if ctx.needs(0) {
                let nothing = Var::zeros(&Shape::from(index.shape()))?;
                sink.add(0, g.scatter(dim, &index, &nothing)?)?;
            }
            Ok(())
        })
    }

    /// `self` with `y[i][index[i][j][k]][k] += source[i][j][k]` for dim 1, and so for every dim, added in
    /// row-major order: `dx` is g, that of the source the g of the element added to, and 0 beyond
    /// `index`. Saves nothing. Any order. `torch.scatter_add`.
    ///
    /// # Shape
    /// As for [`Var::scatter`].
    ///
    /// # Errors
    /// As [`Var::scatter`].
    #[track_caller]
    pub fn scatter_add(&self, dim: isize, index: &Tensor<i64>, source: &Self) -> Result<Self> {
        let y = self.value().scatter_add(dim, index, source.value())?;
        let (larger, index) = (Shape::from(source.shape()), index.clone());
        record("scatter_add", [self.node(), source.node()], [], y, move |ctx, g, sink| {
            if ctx.needs(1) {
                sink.add(1, g.gather(dim, &index)?.in_corner(&larger)?)?;
            }
            sink.add(0, g)
        })
    }

    /// `self` at the first indices of `shape`, zeros elsewhere.
    fn in_corner(self, shape: &Shape) -> Result<Self> {
        if self.shape() == &shape[..] {
            return Ok(self);
        }
        let own = Shape::from(self.shape());
        self.scatter_view("narrow", shape, move |x| {
            let mut x = x.clone();
            for (d, &size) in own.iter().enumerate() {
                x = x.narrow(d as isize, 0, size)?;
            }
            Ok(x)
        })
    }

    /// The elements where `mask` holds, in row-major order; both broadcast. `dx` is g where the mask
    /// holds, 0 elsewhere, summed over broadcast dims. Saves nothing. Any order.
    /// `torch.masked_select`.
    ///
    /// # Shape
    /// The result is `[number of places where the mask holds]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast.
    #[track_caller]
    pub fn masked_select(&self, mask: &Tensor<bool>) -> Result<Self> {
        let y = self.value().masked_select(mask)?;
        // The shape that the two broadcast to: they do, as the forward says.
        let rank = self.value().rank().max(mask.rank());
        let size = |of: &[usize], d: usize| (of.len() + d).checked_sub(rank).map_or(1, |d| of[d]);
        let sizes = (0..rank).map(|d| match size(self.shape(), d) {
            1 => size(mask.shape(), d),
            n => n,
        });
        let shape: Shape = sizes.collect();
        let mask = mask.clone();
        record("masked_select", [self.node()], [], y, move |_, g, sink| {
            let numel = shape.numel();
            let places = Tensor::<i64>::arange(0, numel as i64, 1)?.reshape(&shape)?;
            let places = places.masked_select(&mask)?;
            let dx = Var::zeros(&[numel].into())?.scatter_add(0, &places, &g)?;
            sink.add_broadcast(0, dx.reshape(&shape)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    fn names(of: &[i64], shape: &[usize]) -> Result<Tensor<i64>> {
        Tensor::from_slice(of, shape)
    }
    /// The last index of a dim, the first, and the last again; none of an empty dim.
    fn ends(x: &Var<f64>, dim: isize) -> Result<Tensor<i64>> {
        let n = x.shape()[dim.rem_euclid(x.value().rank() as isize) as usize] as i64;
        if n == 0 { names(&[], &[0]) } else { names(&[n - 1, 0, n - 1], &[3]) }
    }
    vec![
        Row::along_dim("index_select", |x, dim| (x * x).index_select(dim, &ends(x, dim)?)),
        Row::of("index_select", &[&[2, 3]], |x| x[0].index_select(1, &names(&[], &[0])?)),
        Row::along_dim("index_add", |x, dim| {
            let index = ends(x, dim)?;
            let y = x * x;
            y.index_add(dim, &index, &y.index_select(dim, &index)?)
        }),
        Row::of("index_add", &[&[4, 2], &[3, 2]], |x| {
            let y = x[0].index_add(0, &names(&[1, 3, 1], &[3])?, &x[1])?;
            Ok(&y * &y)
        })
        .and(&[&[2, 4], &[2, 3]], |x| {
            let y = x[0].transpose(0, 1)?;
            y.index_add(0, &names(&[0, 0, 3], &[3])?, &x[1].transpose(0, 1)?)
        })
        .and(&[&[3, 1], &[3, 0]], |x| x[0].index_add(1, &names(&[], &[0])?, &x[1])),
        Row::of("embedding", &[&[4, 3]], |x| x[0].embedding(&names(&[1, 3, 1, 0], &[2, 2])?, None))
            .and(&[&[4, 3]], |x| (&x[0] * &x[0]).embedding(&names(&[2, 0, 2], &[3])?, None))
            .and(&[&[3, 2]], |x| x[0].transpose(0, 1)?.embedding(&names(&[1], &[])?, None))
            .and(&[&[2, 1]], |x| x[0].expand([2, 4])?.embedding(&names(&[1, 1, 0], &[1, 3])?, None))
            .and(&[&[4, 3]], |x| x[0].embedding(&names(&[], &[2, 0])?, Some(1)))
            // The row of the padding comes from elsewhere, so that its gradient of 0 is right.
            .and(&[&[3, 2]], |x| {
                let padding = Var::constant(Tensor::ones([1, 2])?);
                let w = Var::cat(&[&padding, &(&x[0] * &x[0])], 0)?;
                w.embedding(&names(&[3, 0, 2, 3, 0, 1], &[2, 3])?, Some(0))
            }),
        Row::along_dim("gather", |x, dim| {
            let (_, order) = x.value().sort(dim, true)?;
            (x * x).gather(dim, &order)
        }),
        Row::of("gather", &[&[3, 4]], |x| {
            (&x[0] * &x[0]).gather(1, &names(&[3, 3, 0, 1, 1, 1, 2, 3, 3, 0], &[2, 5])?)
        })
        .and(&[&[4, 3]], |x| x[0].transpose(0, 1)?.gather(0, &names(&[2, 2, 0, 1], &[1, 4])?))
        .and(&[&[1, 3]], |x| x[0].expand([2, 3])?.gather(0, &names(&[1, 0, 1], &[1, 3])?))
        .and(&[&[2, 0]], |x| x[0].gather(0, &names(&[], &[2, 0])?)),
        Row::of("scatter", &[&[3, 4], &[2, 4]], |x| {
            let index = names(&[2, 0, 2, 1, 0, 0, 2, 1], &[2, 4])?;
            let y = &x[0] * &x[0];
            Ok([y.scatter(0, &index, &(&x[1] * &x[1]))?, x[0].scatter(0, &index, &x[1])?])
        })
        // The same element twice, and a source that is larger than the index.
        .and(&[&[5], &[4]], |x| {
            let y = x[0].scatter(0, &names(&[3, 1, 3], &[3])?, &(&x[1] * &x[1]))?;
            Ok(&y * &y)
        })
        .and(&[&[4, 3], &[3, 2]], |x| {
            let index = names(&[0, 3], &[2, 1])?;
            x[0].transpose(0, 1)?.scatter(1, &index, &x[1])
        })
        .and(&[&[2, 3]], |x| x[0].scatter(1, &names(&[2, 2, 0, 1], &[2, 2])?, &x[0]))
        .and(&[&[3], &[1]], |x| x[0].scatter(0, &names(&[1, 0], &[2])?, &x[1].expand([2])?))
        .and(&[&[0, 3], &[0, 3]], |x| x[0].scatter(1, &names(&[], &[0, 3])?, &x[1])),
        Row::of("scatter_add", &[&[3, 4], &[2, 4]], |x| {
            let index = names(&[2, 0, 2, 1, 0, 0, 2, 1], &[2, 4])?;
            let y = x[0].scatter_add(0, &index, &(&x[1] * &x[1]))?;
            Ok([&y * &y, x[0].scatter_add(0, &index, &x[1])?])
        })
        .and(&[&[5], &[4]], |x| x[0].scatter_add(0, &names(&[3, 1, 3], &[3])?, &x[1]))
        .and(&[&[4, 3], &[3, 2]], |x| {
            x[0].transpose(0, 1)?.scatter_add(1, &names(&[0, 3], &[2, 1])?, &x[1])
        })
        .and(&[&[2, 3]], |x| x[0].scatter_add(1, &names(&[2, 2, 0, 1], &[2, 2])?, &x[0]))
        .and(&[&[3, 0], &[2, 0]], |x| x[0].scatter_add(0, &names(&[], &[2, 0])?, &x[1])),
        Row::unary("masked_select", |x| (x * x).masked_select(&x.value().gt(0.0)?)),
        Row::of("masked_select", &[&[2, 3]], |x| {
            let y = &x[0] * &x[0];
            Ok([
                y.masked_select(&Tensor::from([true, false, true]))?,
                y.masked_select(&Tensor::from([[[true], [false]], [[true], [true]]]))?,
                x[0].masked_select(&Tensor::scalar(false))?,
            ])
        })
        .and(&[&[]], |x| x[0].masked_select(&Tensor::from([true, false, true])))
        .and(&[&[3, 1]], |x| x[0].masked_select(&Tensor::from([true, true]))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn the_row_of_the_padding_gets_no_gradient() {
        let tape = Tape::new();
        let w = tape.var(Tensor::<f64>::ones([3, 2]).unwrap());
        let y = w.embedding(&Tensor::from([[2_i64, 1], [1, 0]]), Some(1)).unwrap();
        assert_eq!(y.shape(), [2, 2, 2]);
        let g = Tensor::arange(1.0, 9.0, 1.0).unwrap().reshape([2, 2, 2]).unwrap();
        let dw = y.backward_with(&g).unwrap().wrt(&w).unwrap().to_vec();
        assert_eq!(dw, [7.0, 8.0, 0.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_row_that_is_read_often_is_summed_exactly() {
        let tape = Tape::new();
        let w = tape.var(Tensor::<f32>::zeros([1, 1]).unwrap());
        let n = 1 << 16;
        let y = w.embedding(&Tensor::zeros([n]).unwrap(), None).unwrap();
        let g = Tensor::full([n, 1], 0.1_f32).unwrap();
        let dw = y.backward_with(&g).unwrap().wrt(&w).unwrap().to_vec();
        assert_eq!(dw, [(f64::from(0.1_f32) * n as f64) as f32]);
    }

    #[test]
    fn what_is_overwritten_gets_no_gradient() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([1.0_f64, 2.0, 3.0]));
        let s = tape.var(Tensor::from([4.0, 5.0, 6.0]));
        let y = x.scatter(0, &Tensor::from([2_i64, 2]), &s).unwrap();
        assert_eq!(y.value().to_vec(), [1.0, 2.0, 5.0]);
        let grads = y.backward_with(&Tensor::from([10.0, 20.0, 30.0])).unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [10.0, 20.0, 0.0]);
        assert_eq!(grads.wrt(&s).unwrap().to_vec(), [0.0, 30.0, 0.0]);
        // Whatever flows back to it.
        let x = tape.var(Tensor::from([1.0_f64]));
        let s = tape.var(Tensor::from([4.0, 5.0]));
        let y = x.scatter(0, &Tensor::from([0_i64, 0]), &s).unwrap();
        let grads = y.backward_with(&Tensor::from([f64::NAN])).unwrap();
        let ds = grads.wrt(&s).unwrap().to_vec();
        assert!(ds[0] == 0.0 && ds[1].is_nan());
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0]);
    }

    #[test]
    fn bad_indices_are_named_by_position() {
        let w = Tape::new().var(Tensor::<f32>::zeros([3, 2]).unwrap());
        let text = |y: Result<Var<f32>>| y.map(|_| ()).unwrap_err().to_string();
        let index = Tensor::from([0_i64, 3]);
        assert_eq!(
            text(w.embedding(&index, None)),
            "embedding: index 3 at position 1 is out of range for size 3"
        );
        assert_eq!(
            text(w.embedding(&index, Some(3))),
            "embedding: padding_idx is 3, but the table has 3 rows"
        );
        assert_eq!(
            text(w.sum().embedding(&index, None)),
            "embedding: expected a matrix, found shape []"
        );
        assert_eq!(
            text(w.index_select(0, &index)),
            "index_select: index 3 at position 1 is out of range for size 3"
        );
        assert_eq!(
            text(w.index_add(0, &index, &w)),
            "index_add: shapes do not match: [2, 2] and [3, 2]"
        );
        assert!(w.gather(0, &index).is_err() && w.scatter(0, &index, &w).is_err());
        assert!(w.masked_select(&Tensor::from([true; 5])).is_err());
    }
}
