//! Largest and smallest elements. The gradient goes where they were found: to all equal ones in even
//! shares, or to the one whose index is returned.

use tensor::kernels::Zip;
use tensor::{Float, Result, Shape, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// 1 where `x = y`, NaN being equal to NaN, else 0.
struct Tie;
impl<T: Float> Zip<T> for Tie {
    #[inline(always)]
    #[expect(clippy::eq_op, reason = "only NaN differs from itself")]
    fn apply<const FMA: bool>(x: T, y: T) -> T {
        if x == y || (x != x && y != y) { T::ONE } else { T::ZERO }
    }
}

impl<T: Float> Var<T> {
    /// The largest element, of rank 0: `dx_i = g·[x_i = y]/count`, where elements that are equally
    /// large share g evenly, as PyTorch. NaN is the largest, and NaNs share g. Saves input and output.
    /// Any order. `torch.max`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no element.
    #[track_caller]
    pub fn max(&self) -> Result<Self> {
        let y = self.value().max()?;
        self.extremum("max", &self.all_dims(), y)
    }

    /// The smallest element, of rank 0: `dx_i = g·[x_i = y]/count`, where elements that are equally
    /// small share g evenly, as PyTorch. NaN is the smallest, and NaNs share g. Saves input and output.
    /// Any order. `torch.min`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there is no element.
    #[track_caller]
    pub fn min(&self) -> Result<Self> {
        let y = self.value().min()?;
        self.extremum("min", &self.all_dims(), y)
    }

    /// The largest element over `dims`, which stay with size 1 where `keepdim`:
    /// `dx_i = g·[x_i = y]/count`, where elements that are equally large share g evenly, as PyTorch.
    /// NaN is the largest, and NaNs share g (PyTorch: the gradient of their whole row is NaN). Saves
    /// input and output. Any order. `torch.amax`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice, or if there
    /// is no element.
    #[track_caller]
    pub fn amax(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().amax(dims, keepdim)?;
        self.extremum("amax", dims, y)
    }

    /// The smallest element over `dims`, which stay with size 1 where `keepdim`:
    /// `dx_i = g·[x_i = y]/count`, where elements that are equally small share g evenly, as PyTorch.
    /// NaN is the smallest, and NaNs share g (PyTorch: the gradient of their whole row is NaN). Saves
    /// input and output. Any order. `torch.amin`.
    ///
    /// # Errors
    /// As [`Var::amax`].
    #[track_caller]
    pub fn amin(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().amin(dims, keepdim)?;
        self.extremum("amin", dims, y)
    }

    /// The largest element along `dim`, which stays with size 1 where `keepdim`, and its index, that
    /// of the first of equal elements: `dx` is g at the index and 0 elsewhere. NaN is the largest.
    /// Saves nothing but the indices. Any order. `torch.max(dim)`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the dim is empty.
    #[track_caller]
    pub fn max_dim(&self, dim: isize, keepdim: bool) -> Result<(Self, Tensor<i64>)> {
        let (y, index) = self.value().max_dim(dim, keepdim)?;
        Ok((self.found("max_dim", dim, &index, y)?, index))
    }

    /// The smallest element along `dim`, which stays with size 1 where `keepdim`, and its index, that
    /// of the first of equal elements: `dx` is g at the index and 0 elsewhere. NaN is the smallest.
    /// Saves nothing but the indices. Any order. `torch.min(dim)`.
    ///
    /// # Errors
    /// As [`Var::max_dim`].
    #[track_caller]
    pub fn min_dim(&self, dim: isize, keepdim: bool) -> Result<(Self, Tensor<i64>)> {
        let (y, index) = self.value().min_dim(dim, keepdim)?;
        Ok((self.found("min_dim", dim, &index, y)?, index))
    }

    /// Records `y`, the extremum of `self` over `dims`.
    #[track_caller]
    fn extremum(&self, name: &'static str, dims: &[isize], y: Tensor<T>) -> Result<Self> {
        let (kept, dims) = (self.keepdim_shape(dims)?, dims.to_vec());
        let saved = [Save::Input(self), Save::Output];
        record(name, [self.node()], saved, y, move |ctx, g, sink| {
            let y = ctx.saved(1).value().reshape(&kept)?;
            let g = g.reshape(&kept)?;
            sink.add(0, g.shared_among_ties(ctx.saved(0).value(), &y, &dims)?)
        })
    }

    /// g over the elements of `x` that equal y, in even shares over `dims`. `self` and y have the
    /// shape of x with 1 for each of the dims.
    pub(super) fn shared_among_ties(
        self,
        x: &Tensor<T>,
        y: &Tensor<T>,
        dims: &[isize],
    ) -> Result<Self> {
        let ties = x.zip::<T, Tie>("amax", y)?;
        let count = ties.sum_dim(dims, true)?;
        (self / Var::constant(count)).expand(x.shape())?.threshold_backward(&ties)
    }

    /// Records `y`, the elements of `self` at `index` along `dim`, one for each row.
    #[track_caller]
    fn found(
        &self,
        name: &'static str,
        dim: isize,
        index: &Tensor<i64>,
        y: Tensor<T>,
    ) -> Result<Self> {
        let (kept, shape) = (self.keepdim_shape(&[dim])?, Shape::from(self.shape()));
        let index = index.reshape(&kept)?;
        record(name, [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.reshape(&kept)?.placed(dim, &index, &shape)?)
        })
    }

    /// Zeros of `shape` with `self`, of size 1 along `dim`, at `index`: the adjoint of finding.
    #[track_caller]
    fn placed(&self, dim: isize, index: &Tensor<i64>, shape: &Shape) -> Result<Self> {
        let y = Tensor::zeros(shape)?.scatter(dim, index, self.value())?;
        let index = index.clone();
        record("scatter", [self.node()], [], y, move |_, g, sink| {
            let found = g.value().gather(dim, &index)?;
            sink.add(0, g.found("gather", dim, &index, found)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    type Along = fn(&Var<f64>, isize) -> Result<Var<f64>>;
    type All = fn(&Var<f64>) -> Result<Var<f64>>;
    // Not `Row::along_dim`: no element is the largest of none.
    let along = |name, f: Along| {
        let mut row = Row::of(name, &[&[4]], move |x| f(&x[0], -1));
        for dim in -3..3 {
            row = row
                .and(&[&[2, 3, 4]], move |x| f(&x[0], dim))
                .and(&[&[2, 1, 3]], move |x| f(&(&x[0] * &x[0]), dim))
                .and(&[&[2, 3, 4]], move |x| f(&x[0].permute(&[2, 0, 1])?, dim))
                .and(&[&[3, 1]], move |x| f(&x[0].expand([2, 3, 4])?, dim));
        }
        row.and(&[&[0, 3]], move |x| f(&x[0], 1)).and(&[&[1]], move |x| f(&x[0], 0))
    };
    let all = |name, f: All| {
        Row::of(name, &[&[5]], move |x| f(&x[0]))
            .and(&[&[]], move |x| f(&x[0]))
            .and(&[&[3, 4]], move |x| f(&(&x[0] * &x[0]).transpose(0, 1)?))
            .and(&[&[3, 1]], move |x| f(&x[0].expand([2, 3, 4])?))
    };
    vec![
        all("max", |x| x.max()),
        all("min", |x| x.min()),
        along("amax", |x, dim| x.amax(&[dim], true)),
        along("amax", |x, dim| x.amax(&[dim], false)),
        along("amin", |x, dim| x.amin(&[dim], true)),
        along("amin", |x, dim| x.amin(&[dim], false)),
        Row::of("amax", &[&[2, 3, 4]], |x| x[0].amax(&[0, -1], false))
            .and(&[&[2, 3, 4]], |x| x[0].amax(&[2, 1], true))
            .and(&[&[2, 3]], |x| x[0].amax(&[], true))
            .and(&[&[2, 3]], |x| (&x[0] * &x[0]).amax(&[1, 0], false)),
        Row::of("amin", &[&[2, 3, 4]], |x| x[0].amin(&[0, -1], false))
            .and(&[&[2, 3]], |x| x[0].amin(&[], false))
            .and(&[&[2, 3]], |x| (&x[0] * &x[0]).amin(&[1, 0], true)),
        along("max_dim", |x, dim| Ok(x.max_dim(dim, false)?.0)),
        along("max_dim", |x, dim| Ok((x * x).max_dim(dim, true)?.0)),
        along("min_dim", |x, dim| Ok(x.min_dim(dim, false)?.0)),
        along("min_dim", |x, dim| Ok((x * x).min_dim(dim, true)?.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    fn gradient(x: &[f64], shape: &[usize], f: fn(&Var<f64>) -> Result<Var<f64>>) -> Vec<f64> {
        let x = Tape::new().var(Tensor::from_slice(x, shape).unwrap());
        let y = f(&x).unwrap();
        let grads = y.backward_with(&Tensor::full(y.shape(), 6.0).unwrap()).unwrap();
        grads.wrt(&x).unwrap().to_vec()
    }

    #[test]
    fn ties_share_the_gradient_evenly() {
        let x = [1.0, 3.0, 3.0, 3.0, 0.0, 3.0];
        assert_eq!(gradient(&x, &[2, 3], Var::max), [0.0, 1.5, 1.5, 1.5, 0.0, 1.5]);
        assert_eq!(gradient(&x, &[2, 3], |x| (-x).min()), [0.0, -1.5, -1.5, -1.5, 0.0, -1.5]);
        assert_eq!(gradient(&x, &[2, 3], |x| x.amax(&[1], false)), [0.0, 3.0, 3.0, 3.0, 0.0, 3.0]);
        assert_eq!(gradient(&x, &[2, 3], |x| x.amin(&[0], true)), [6.0, 0.0, 3.0, 0.0, 6.0, 3.0]);
        // Zeros of both signs are equal.
        assert_eq!(gradient(&[0.0, -0.0, -1.0], &[3], Var::max), [3.0, 3.0, 0.0]);
        let infinite = [f64::INFINITY, 1.0, f64::INFINITY];
        assert_eq!(gradient(&infinite, &[3], Var::max), [3.0, 0.0, 3.0]);
    }

    #[test]
    fn the_first_of_ties_has_the_index_and_the_gradient() {
        let x = [1.0, 3.0, 3.0, 3.0, 0.0, 3.0];
        let max = |x: &Var<f64>| Ok(x.max_dim(1, false)?.0);
        assert_eq!(gradient(&x, &[2, 3], max), [0.0, 6.0, 0.0, 6.0, 0.0, 0.0]);
        let min = |x: &Var<f64>| Ok(x.min_dim(0, true)?.0);
        assert_eq!(gradient(&x, &[2, 3], min), [6.0, 0.0, 6.0, 0.0, 6.0, 0.0]);
        let x = Var::constant(Tensor::from([[1.0_f32, 3.0, 3.0]]));
        let (y, index) = x.max_dim(-1, true).unwrap();
        assert_eq!((y.value().to_vec(), index.to_vec()), (vec![3.0], vec![1]));
        assert_eq!((y.shape(), index.shape()), (&[1, 1][..], &[1, 1][..]));
    }

    #[test]
    fn nan_takes_the_gradient_and_an_infinite_one_stays_in_its_place() {
        let x = [1.0, f64::NAN, 3.0];
        assert_eq!(gradient(&x, &[3], Var::max), [0.0, 6.0, 0.0]);
        assert_eq!(gradient(&x, &[3], |x| x.amin(&[0], false)), [0.0, 6.0, 0.0]);
        assert_eq!(gradient(&x, &[3], |x| Ok(x.max_dim(0, false)?.0)), [0.0, 6.0, 0.0]);
        let infinite = |x: &Var<f64>| Ok(x.max()? * f64::INFINITY);
        assert_eq!(gradient(&[1.0, 2.0], &[2], infinite), [0.0, f64::INFINITY]);
    }

    #[test]
    fn nothing_has_no_largest_element() {
        let x = Tape::<f64>::new().var(Tensor::zeros([0, 3]).unwrap());
        let text = x.amax(&[0], false).unwrap_err().to_string();
        assert_eq!(text, "amax: dims hold no element in shape [0, 3]");
        assert!(x.max().is_err() && x.min().is_err() && x.min_dim(0, true).is_err());
        let text = x.max_dim(2, false).unwrap_err().to_string();
        assert_eq!(text, "max_dim: dim 2 is out of range for rank 2");
        assert!(x.amin(&[1, 1], false).unwrap_err().to_string().contains("twice"));
    }
}
