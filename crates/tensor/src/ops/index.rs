//! Reading and writing entries by integer index or by mask. Everything is checked before anything is
//! written.

use crate::element::{Element, Number};
use crate::error::{Error, Result};
use crate::kernels::Operand;
use crate::kernels::elementwise::zip3;
use crate::kernels::walk::{self, Walk};
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Refuses indices outside `[0, size)`, by position.
pub(super) fn check_indices(op: &'static str, index: &Tensor<i64>, size: usize) -> Result<()> {
    let index = index.contiguous();
    let outside = |&value: &i64| usize::try_from(value).is_ok_and(|i| i < size);
    match index.elements().iter().position(|value| !outside(value)) {
        None => Ok(()),
        Some(position) => {
            let value = index.elements()[position];
            Err(Error::IndexOutOfRange { op, position, value, size })
        }
    }
}

/// Indexing.
impl<T: Element> Tensor<T> {
    /// The entries of `dim` that `index` names, in its order. `torch.index_select`, `numpy.take`.
    ///
    /// # Shape
    /// `index: [N]`; the result has size N along `dim`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::RankMismatch`] if `index` is no vector;
    /// [`Error::IndexOutOfRange`], with the position of the first bad index; [`Error::SizeOverflow`].
    #[doc(alias = "take")]
    pub fn index_select(&self, dim: isize, index: &Tensor<i64>) -> Result<Self> {
        let d = self.resolve_dim("index_select", dim)?;
        let [n] = index.dims("index_select")?;
        check_indices("index_select", index, self.shape()[d])?;
        let mut shape = self.layout.shape.clone();
        shape.as_mut_slice()[d] = n;
        shape.checked_alloc("index_select", size_of::<T>())?;
        if shape.numel() == 0 {
            return Ok(Self::build(shape, |_| ()));
        }
        let map: Vec<usize> = index.to_vec().into_iter().map(|i| i as usize).collect();
        Ok(self.pick(d, &map, T::ZERO))
    }

    /// `out[i][j][k] = self[i][index[i][j][k]][k]` for dim 1, and so for every dim. `torch.gather`,
    /// `numpy.take_along_axis`.
    ///
    /// # Shape
    /// `index` has the rank of `self`, and is nowhere larger but along `dim`; the result has its
    /// shape.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`], with the
    /// position of the first bad index.
    #[doc(alias = "take_along_axis")]
    pub fn gather(&self, dim: isize, index: &Tensor<i64>) -> Result<Self> {
        let d = self.resolve_dim("gather", dim)?;
        let layout = self.layout.along("gather", d, &index.layout.shape)?;
        check_indices("gather", index, self.shape()[d])?;
        let step = self.layout.strides[d];
        let (data, indices) = (self.buffer.as_slice(), index.buffer.as_slice());
        let shape = index.layout.shape.clone();
        shape.checked_alloc("gather", size_of::<T>())?;
        Ok(Self::build(shape, |out| {
            let walk = Walk::new([&layout, &index.layout]);
            let [along, apart] = walk.inner();
            walk::parallel(out, walk::GRAIN, |start, out| {
                walk.runs(start..start + out.len(), |[from, at], first, length| {
                    for (i, o) in out[first..first + length].iter_mut().enumerate() {
                        let i = i as isize;
                        let picked = indices[(at as isize + i * apart) as usize] as isize;
                        *o = data[(from as isize + i * along + picked * step) as usize];
                    }
                });
            });
        }))
    }

    /// A copy of `self` with `out[i][index[i][j][k]][k] = source[i][j][k]` for dim 1, and so for every
    /// dim. Where an entry is named several times, the last in row-major order stays.
    /// `torch.scatter`, `numpy.put_along_axis`.
    ///
    /// # Shape
    /// `index` has the rank of `self` and of `source`, and is nowhere larger than `source`, nor than
    /// `self` but along `dim`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::ShapeMismatch`]; [`Error::IndexOutOfRange`], with the
    /// position of the first bad index.
    #[doc(alias = "put_along_axis")]
    pub fn scatter(&self, dim: isize, index: &Tensor<i64>, source: &Self) -> Result<Self> {
        self.scattered("scatter", dim, index, source, |o, x| *o = x)
    }

    fn scattered(
        &self,
        op: &'static str,
        dim: isize,
        index: &Tensor<i64>,
        source: &Self,
        write: impl Fn(&mut T, T),
    ) -> Result<Self> {
        let d = self.resolve_dim(op, dim)?;
        let shape = &index.layout.shape;
        self.layout.along(op, d, shape)?;
        let from = source.layout.along(op, usize::MAX, shape)?;
        check_indices(op, index, self.shape()[d])?;
        let mut result = self.clone();
        let out = result.make_mut();
        if index.numel() == 0 {
            return Ok(result);
        }
        let whole = Layout::contiguous(self.layout.shape.clone());
        let step = whole.strides[d];
        let walk = Walk::new([&whole.along(op, d, shape)?, &index.layout, &from]);
        let [along, apart, beside] = walk.inner();
        let (indices, data) = (index.buffer.as_slice(), source.buffer.as_slice());
        walk.runs(0..index.numel(), |[to, at, from], _, length| {
            for i in 0..length as isize {
                let picked = indices[(at as isize + i * apart) as usize] as isize;
                let x = data[(from as isize + i * beside) as usize];
                write(&mut out[(to as isize + i * along + picked * step) as usize], x);
            }
        });
        Ok(result)
    }

    /// A copy of `self` with `value` where `mask` holds; the mask broadcasts to the shape of `self`.
    /// `torch.Tensor.masked_fill`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the mask does not broadcast to the shape of `self`.
    pub fn masked_fill(&self, mask: &Tensor<bool>, value: T) -> Result<Self> {
        mask.layout.expand("masked_fill", &self.layout.shape)?;
        let (mask, fill) = (Operand::Tensor(mask), Operand::Scalar(value));
        zip3("masked_fill", mask, fill, self.into(), T::choose())
    }

    /// The elements where `mask` holds, in row-major order; both broadcast. `torch.masked_select`.
    ///
    /// # Shape
    /// The result is `[number of places where the mask holds]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the shapes do not broadcast.
    #[doc(alias = "compress")]
    pub fn masked_select(&self, mask: &Tensor<bool>) -> Result<Self> {
        let shape = Shape::broadcast("masked_select", self.shape(), mask.shape())?;
        shape.checked_alloc("masked_select", size_of::<T>())?;
        let (x, mask) = (self.expand(&shape)?, mask.expand(&shape)?.contiguous());
        let count = mask.elements().iter().filter(|&&kept| kept).count();
        let x = x.contiguous();
        Ok(Self::build([count].into(), |out| {
            let kept = x.elements().iter().zip(mask.elements()).filter(|(_, kept)| **kept);
            out.iter_mut().zip(kept).for_each(|(o, (&x, _))| *o = x);
        }))
    }
}

/// Indexing with arithmetic.
impl<T: Number> Tensor<T> {
    /// A copy of `self` with `out[i][index[i][j][k]][k] += source[i][j][k]` for dim 1, and so for every
    /// dim, added in row-major order. `torch.scatter_add`, `numpy.add.at`.
    ///
    /// # Shape
    /// As for [`Tensor::scatter`].
    ///
    /// # Errors
    /// As [`Tensor::scatter`].
    pub fn scatter_add(&self, dim: isize, index: &Tensor<i64>, source: &Self) -> Result<Self> {
        self.scattered("scatter_add", dim, index, source, |o, x| *o = o.plus(x))
    }
}

/// Class indices.
impl Tensor<i64> {
    /// 1 at the index of each element along a new last dim of `classes`, and 0 elsewhere.
    /// `torch.nn.functional.one_hot`.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`] if an element is not in `[0, classes)`, with its position;
    /// [`Error::SizeOverflow`].
    pub fn one_hot(&self, classes: usize) -> Result<Self> {
        check_indices("one_hot", self, classes)?;
        let shape: Shape = self.shape().iter().copied().chain([classes]).collect();
        shape.checked_alloc("one_hot", size_of::<i64>())?;
        let index = self.contiguous();
        Ok(Self::build(shape, |out| {
            out.fill(0);
            for (row, &i) in index.elements().iter().enumerate() {
                out[row * classes + i as usize] = 1;
            }
        }))
    }
}

impl Layout {
    /// This layout read at the indices of `shape`, without moving along dim `d`: what an index will
    /// move along. `shape` has the same rank, and is nowhere larger but along `d`.
    fn along(&self, op: &'static str, d: usize, shape: &Shape) -> Result<Layout> {
        let fits = |k: usize| k == d || shape[k] <= self.shape[k];
        if shape.len() != self.shape.len() || !(0..shape.len()).all(fits) {
            let (lhs, rhs) = (self.shape.to_vec(), shape.to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let mut out = Layout { shape: shape.clone(), ..self.clone() };
        if let Some(stride) = out.strides.get_mut(d) {
            *stride = 0;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_along_every_dim() {
        let x = Tensor::from_vec((0..12).collect::<Vec<i64>>(), [3, 4]).unwrap();
        let index = Tensor::from([2_i64, 0, 2]);
        let rows = x.index_select(0, &index).unwrap();
        assert_eq!(rows.to_vec(), [8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
        let columns = x.transpose(0, 1).unwrap().index_select(0, &index).unwrap();
        assert_eq!(columns.to_vec(), [2, 6, 10, 0, 4, 8, 2, 6, 10]);
        assert_eq!(x.index_select(1, &index).unwrap().to_vec(), [2, 0, 2, 6, 4, 6, 10, 8, 10]);
    }

    #[test]
    fn gathers_and_scatters_as_torch_documents() {
        let x = Tensor::from([[1.0_f32, 2.0], [3.0, 4.0]]);
        let index = Tensor::from([[0_i64, 0], [1, 0]]);
        assert_eq!(x.gather(1, &index).unwrap().to_vec(), [1.0, 1.0, 4.0, 3.0]);
        let source = Tensor::from([[1.0_f32, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0]]);
        let zeros = Tensor::<f32>::zeros([3, 5]).unwrap();
        let index = Tensor::from([[0_i64, 1, 2, 0]]);
        let want =
            [[1.0, 0.0, 0.0, 4.0, 0.0], [0.0, 2.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0, 0.0]];
        assert_eq!(zeros.scatter(0, &index, &source).unwrap().to_vec(), want.concat());
        let index = Tensor::from([[0_i64, 1, 1], [0, 1, 4]]);
        let sums = zeros.scatter_add(1, &index, &source).unwrap().to_vec();
        assert_eq!(sums[..10], [1.0, 5.0, 0.0, 0.0, 0.0, 6.0, 7.0, 0.0, 0.0, 8.0]);
    }

    #[test]
    fn rejects_bad_indices_by_position() {
        let x = Tensor::from([1.0_f32, 2.0]);
        let index = |v: Vec<i64>| Tensor::from_slice(&v, [v.len()]).unwrap();
        let text = x.index_select(0, &index(vec![1, -1])).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "index_select: index -1 at position 1 is out of range for size 2");
        assert!(x.index_select(0, &index(vec![2])).is_err());
        assert_eq!(x.index_select(0, &index(vec![])).unwrap().shape(), [0]);
        assert!(x.scatter(0, &index(vec![0, 2]), &x).is_err());
        assert!(x.gather(0, &index(vec![0, 1]).unsqueeze(0).unwrap()).is_err());
    }
}
