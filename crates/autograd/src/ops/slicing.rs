//! Views of some of the elements, or of the elements several times: the gradient is g where the view
//! reads, and 0 elsewhere.

use tensor::{Float, Result, Shape, Slice, Tensor};

use crate::tape::record;
use crate::var::Var;

/// Views that leave elements out.
impl<T: Float> Var<T> {
    /// `y = view(x)`: dx is g scattered through the view. Saves nothing.
    #[track_caller]
    pub(super) fn viewed(
        &self,
        name: &'static str,
        view: impl Fn(&Tensor<T>) -> Result<Tensor<T>> + Clone + Send + 'static,
    ) -> Result<Self> {
        let y = view(self.value())?;
        let own = Shape::from(self.shape());
        record(name, [self.node()], [], y, move |ctx, g, sink| {
            // Into the gradient that is there already: T parts of one tensor cost as much as the tensor.
            if !ctx.create_graph()
                && let Some(sum) = sink.take_partial(0)
            {
                let sum = sum.into_value().add_through_view(g.value(), &view)?;
                return sink.add(0, Var::constant(sum));
            }
            sink.add(0, g.scatter_view(name, &own, view.clone())?)
        })
    }

    /// Zeros of `shape` with `self` added where `view` reads them: dx is the view of g. Saves nothing.
    #[track_caller]
    pub(super) fn scatter_view(
        &self,
        name: &'static str,
        shape: &Shape,
        view: impl Fn(&Tensor<T>) -> Result<Tensor<T>> + Clone + Send + 'static,
    ) -> Result<Self> {
        let y = self.value().scatter_view(shape, &view)?;
        record("scatter_view", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.viewed(name, view.clone())?)
        })
    }

    /// The `length` entries from `start` on along `dim`: `dx` is g in their place, 0 elsewhere. Saves
    /// nothing. Any order. `torch.narrow`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the range leaves the dim.
    #[track_caller]
    pub fn narrow(&self, dim: isize, start: usize, length: usize) -> Result<Self> {
        self.viewed("narrow", move |x| x.narrow(dim, start, length))
    }

    /// Entries of `dim` as Python's `start:stop:step` names them, backwards too: `dx` is g in their
    /// place, 0 elsewhere. Saves nothing. Any order. `torch.Tensor.__getitem__`, which takes no
    /// negative steps.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the step is 0.
    ///
    /// # Examples
    /// ```
    /// use autograd::{Slice, Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from([1.0_f64, 2.0, 3.0, 4.0]));
    /// let y = x.slice(0, Slice::from(..).step(-2))?;
    /// assert_eq!(y.value().to_vec(), [4.0, 2.0]);
    /// let grads = y.backward_with(&Tensor::from([10.0, 20.0]))?;
    /// assert_eq!(grads.wrt(&x)?.to_vec(), [0.0, 20.0, 0.0, 10.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    #[track_caller]
    pub fn slice(&self, dim: isize, entries: impl Into<Slice>) -> Result<Self> {
        let entries = entries.into();
        self.viewed("slice", move |x| x.slice(dim, entries))
    }

    /// The `index`-th entry of `dim`, counted from either end; the dim goes. `dx` is g in its place, 0
    /// elsewhere. Saves nothing. Any order. `torch.select`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::IndexOutOfRange`](crate::Error::IndexOutOfRange).
    #[track_caller]
    pub fn select(&self, dim: isize, index: isize) -> Result<Self> {
        self.viewed("select", move |x| x.select(dim, index))
    }

    /// The entries whose index along `dim2` is `offset` larger than along `dim1`; both dims go, and the
    /// diagonal is the last dim. `dx` is g on the diagonal, 0 elsewhere. Saves nothing. Any order.
    /// `torch.diagonal`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the two dims are one.
    #[track_caller]
    pub fn diagonal(&self, offset: isize, dim1: isize, dim2: isize) -> Result<Self> {
        self.viewed("diagonal", move |x| x.diagonal(offset, dim1, dim2))
    }

    /// Windows of `size` entries along `dim`, `step` apart: window i stands at index i of `dim`, its
    /// entries along a new last dim. Saves nothing. Any order. `torch.Tensor.unfold`.
    ///
    /// # Gradient
    /// `dx_j` is the sum of g over the windows that contain entry j; 0 where there is none.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `size` is larger than the dim or
    /// `step` is 0; [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    #[track_caller]
    pub fn unfold(&self, dim: isize, size: usize, step: usize) -> Result<Self> {
        self.viewed("unfold", move |x| x.unfold(dim, size, step))
    }

    /// Pieces of `size` entries along `dim`, the last one with what is left; one empty piece of an
    /// empty dim. `dx` is the g of each piece in its place. Saves nothing. Any order. `torch.split`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `size` is 0 and the dim is not.
    #[track_caller]
    pub fn split(&self, size: usize, dim: isize) -> Result<Vec<Self>> {
        self.pieces("split", dim, self.value().split(size, dim)?)
    }

    /// Pieces of the given sizes along `dim`: `dx` is the g of each piece in its place. Saves nothing.
    /// Any order. `torch.split` with a list.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the sizes do not add up to the
    /// dim's.
    #[track_caller]
    pub fn split_with_sizes(&self, sizes: &[usize], dim: isize) -> Result<Vec<Self>> {
        self.pieces("split_with_sizes", dim, self.value().split_with_sizes(sizes, dim)?)
    }

    /// At most `chunks` pieces of equal size along `dim`, but for the last; one empty piece of an empty
    /// dim. `dx` is the g of each piece in its place. Saves nothing. Any order. `torch.chunk`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if `chunks` is 0.
    #[track_caller]
    pub fn chunk(&self, chunks: usize, dim: isize) -> Result<Vec<Self>> {
        self.pieces("chunk", dim, self.value().chunk(chunks, dim)?)
    }

    /// The pieces of `dim` that `values` are, one after the other.
    #[track_caller]
    fn pieces(&self, name: &'static str, dim: isize, values: Vec<Tensor<T>>) -> Result<Vec<Self>> {
        let d = self.value().resolve_dim(name, dim)?;
        let (mut pieces, mut start) = (Vec::with_capacity(values.len()), 0);
        for value in values {
            let (from, length) = (start, value.shape()[d]);
            pieces.push(self.viewed(name, move |x| x.narrow(d as isize, from, length))?);
            start += length;
        }
        Ok(pieces)
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    /// The size of a dim counted from either end.
    fn size(x: &Var<f64>, dim: isize) -> usize {
        x.shape()[dim.rem_euclid(x.value().rank() as isize) as usize]
    }
    vec![
        Row::along_dim("narrow", |x, dim| (x * x).narrow(dim, 0, size(x, dim))),
        Row::along_dim("narrow", |x, dim| (x * x).narrow(dim, size(x, dim) / 2, size(x, dim) / 2)),
        Row::along_dim("narrow", |x, dim| x.narrow(dim, size(x, dim), 0)),
        Row::along_dim("slice", |x, dim| {
            let two = Slice::from(..).step(2);
            let back = Slice::from(..).step(-1);
            let inner = Slice { start: Some(1), stop: Some(-1), step: 1 };
            Ok([(x * x).slice(dim, two)?, x.slice(dim, back)?, x.slice(dim, inner)?])
        }),
        Row::of("slice", &[&[7]], |x| (&x[0] * &x[0]).slice(0, Slice::from(-2..0).step(-3)))
            .and(&[&[5, 4]], |x| x[0].transpose(0, 1)?.slice(0, 1..)?.slice(1, ..-1))
            .and(&[&[4, 1]], |x| x[0].expand([4, 3])?.slice(1, Slice::from(..).step(2))),
        Row::of("select", &[&[4]], |x| (&x[0] * &x[0]).select(0, -1))
            .and(&[&[3, 4]], |x| Ok([x[0].select(0, 1)?, (&x[0] * &x[0]).select(0, -1)?]))
            .and(&[&[2, 3, 4]], |x| (&x[0] * &x[0]).permute(&[2, 0, 1])?.select(-1, -2))
            .and(&[&[2, 3, 4]], |x| x[0].select(1, 0)?.select(1, 3)?.select(0, 1))
            .and(&[&[3, 1]], |x| x[0].expand([2, 3, 4])?.select(-1, 2))
            .and(&[&[0, 3]], |x| x[0].select(1, 2)),
        Row::of("diagonal", &[&[3, 3]], |x| (&x[0] * &x[0]).diagonal(0, 0, 1))
            .and(&[&[3, 4]], |x| Ok([x[0].diagonal(1, 0, 1)?, (&x[0] * &x[0]).diagonal(-2, 1, 0)?]))
            .and(&[&[2, 3, 4]], |x| (&x[0] * &x[0]).diagonal(-1, -1, 0))
            .and(&[&[2, 3, 4]], |x| x[0].permute(&[2, 0, 1])?.diagonal(0, 0, 2))
            .and(&[&[3, 1]], |x| x[0].expand([3, 3])?.diagonal(0, 0, 1))
            .and(&[&[2, 2]], |x| x[0].diagonal(5, 0, 1))
            .and(&[&[0, 3]], |x| x[0].diagonal(0, 0, 1)),
        Row::along_dim("unfold", |x, dim| (x * x).unfold(dim, size(x, dim).min(2), 1)),
        Row::of("unfold", &[&[7]], |x| (&x[0] * &x[0]).unfold(0, 3, 1))
            .and(&[&[7]], |x| x[0].unfold(0, 2, 3))
            .and(&[&[5, 4]], |x| x[0].unfold(0, 3, 2)?.unfold(1, 2, 1))
            .and(&[&[5, 3]], |x| (&x[0] * &x[0]).transpose(0, 1)?.unfold(1, 2, 2))
            .and(&[&[4]], |x| x[0].unfold(0, 0, 1)),
        Row::along_dim("split", |x, dim| (x * x).split(2, dim)),
        Row::of("split", &[&[5]], |x| Ok(x[0].split(2, 0)?.swap_remove(1)))
            .and(&[&[5]], |x| x[0].split(9, 0))
            .and(&[&[2, 0]], |x| x[0].split(0, 1)),
        Row::along_dim("split_with_sizes", |x, dim| {
            let n = size(x, dim);
            (x * x).split_with_sizes(&[n / 2, 0, n - n / 2], dim)
        }),
        Row::along_dim("chunk", |x, dim| (x * x).chunk(2, dim)),
        Row::of("chunk", &[&[3, 5]], |x| {
            let [a, b, c] = &x[0].chunk(3, 1)?[..] else { unreachable!() };
            Ok([a * b, c * c])
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn gradients_stand_where_the_view_reads() {
        let tape = Tape::new();
        let x = tape.var(Tensor::zeros([2, 3]).unwrap());
        let g = Tensor::from([1.0_f64, 2.0]);
        let y = x.diagonal(1, 0, 1).unwrap();
        let grads = y.backward_with(&g).unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0, 1.0, 0.0, 0.0, 0.0, 2.0]);
        let x = tape.var(Tensor::zeros([5]).unwrap());
        let y = x.unfold(0, 3, 1).unwrap();
        let ones = Tensor::ones([3, 3]).unwrap();
        let grads = y.backward_with(&ones).unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [1.0, 2.0, 3.0, 2.0, 1.0]);
    }

    #[test]
    fn a_piece_that_nobody_uses_gets_zeros() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([1.0_f64, 2.0, 3.0]));
        let pieces = x.split(2, 0).unwrap();
        let grads = pieces[1].backward_with(&Tensor::from([7.0])).unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0, 0.0, 7.0]);
    }

    #[test]
    fn errors_are_those_of_the_tensor() {
        let x = Tape::new().var(Tensor::from([1.0_f32, 2.0, 3.0]));
        let text = |y: Result<Var<f32>>| y.map(|_| ()).unwrap_err().to_string();
        assert_eq!(text(x.narrow(0, 2, 2)), "narrow: range 2..2+2 is outside dim 0 of size 3");
        assert_eq!(
            text(x.select(0, 3)),
            "select: index 3 at position 0 is out of range for size 3"
        );
        assert_eq!(text(x.slice(0, Slice::from(..).step(0))), "slice: step must not be 0");
        assert_eq!(text(x.unfold(0, 4, 1)), "unfold: size is 4, but dim 0 has 3 entries");
        assert_eq!(text(x.diagonal(0, 0, 1)), "diagonal: dim 1 is out of range for rank 1");
        assert!(x.split(0, 0).is_err() && x.chunk(0, 0).is_err());
        let sizes = x.split_with_sizes(&[1, 1], 0).map(|_| ()).unwrap_err().to_string();
        assert_eq!(sizes, "split_with_sizes: sizes [1, 1] do not add up to dim 0 of size 3");
    }
}
