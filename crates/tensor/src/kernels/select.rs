//! Picking entries by integer index.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Indexing.
impl<T: Element> Tensor<T> {
    /// The entries of `dim` that `index` names, in its order. `torch.index_select`.
    ///
    /// # Shape
    /// `index: [N]`; the result has size N along `dim`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::RankMismatch`] if `index` is no vector;
    /// [`Error::IndexOutOfRange`], with the position of the first bad index.
    pub fn index_select(&self, dim: isize, index: &Tensor<i64>) -> Result<Self> {
        let d = self.resolve_dim("index_select", dim)?;
        let [n] = index.dims("index_select")?;
        let size = self.shape()[d];
        let index = index.contiguous();
        for (position, &value) in index.slice().iter().enumerate() {
            if value < 0 || value as usize >= size {
                return Err(Error::IndexOutOfRange { op: "index_select", position, value, size });
            }
        }
        let source = self.contiguous();
        let data = source.slice();
        let mut shape = self.layout.shape.clone();
        shape.as_mut_slice()[d] = n;
        shape.checked_numel("index_select", size_of::<T>())?;
        let inner: usize = self.shape()[d + 1..].iter().product();
        Ok(Tensor::build(shape, |out| {
            if out.is_empty() {
                return;
            }
            for (outer, out) in out.chunks_mut(n * inner).enumerate() {
                for (out, &i) in out.chunks_mut(inner).zip(index.slice()) {
                    let from = (outer * size + i as usize) * inner;
                    out.copy_from_slice(&data[from..from + inner]);
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selects_along_every_dim() {
        let x = Tensor::from_vec((0..12).collect::<Vec<i64>>(), [3, 4]).unwrap();
        let index = Tensor::from_vec(vec![2_i64, 0, 2], [3]).unwrap();
        let rows = x.index_select(0, &index).unwrap();
        assert_eq!(rows.to_vec(), [8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
        let columns = x.transpose(0, 1).unwrap().index_select(0, &index).unwrap();
        assert_eq!(columns.to_vec(), [2, 6, 10, 0, 4, 8, 2, 6, 10]);
        assert_eq!(x.index_select(1, &index).unwrap().to_vec(), [2, 0, 2, 6, 4, 6, 10, 8, 10]);
    }

    #[test]
    fn rejects_bad_indices_by_position() {
        let x = Tensor::from_vec(vec![1.0_f32, 2.0], [2]).unwrap();
        let index = |v: Vec<i64>| Tensor::from_slice(&v, [v.len()]).unwrap();
        let text = x.index_select(0, &index(vec![1, -1])).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "index_select: index -1 at position 1 is out of range for size 2");
        assert!(x.index_select(0, &index(vec![2])).is_err());
        assert_eq!(x.index_select(0, &index(vec![])).unwrap().shape(), [0]);
    }
}
