//! Putting tensors together, repeating, rolling, padding, and cutting triangles: all copy.

use crate::element::Element;
use crate::error::{Error, Result};
use crate::kernels::walk;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// What [`Tensor::pad`] puts around a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PadMode<T> {
    /// One value.
    Constant(T),
    /// The entries mirrored at the edge, which is not repeated: `c b | a b c | b a`.
    Reflect,
    /// The edge: `a a | a b c | c c`.
    Replicate,
    /// The entries from the other end: `b c | a b c | a b`.
    Circular,
}

/// Joining and repeating.
impl<T: Element> Tensor<T> {
    /// One after the other along `dim`; the other dims agree. `torch.cat`, `numpy.concatenate`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without tensors; [`Error::DimOutOfRange`];
    /// [`Error::ShapeMismatch`]; [`Error::SizeOverflow`].
    #[doc(alias = "concatenate")]
    pub fn cat(tensors: &[&Self], dim: isize) -> Result<Self> {
        let Some((&first, rest)) = tensors.split_first() else {
            return Err(Error::InvalidArgument {
                op: "cat",
                name: "tensors",
                reason: "must be at least one".into(),
            });
        };
        let d = first.resolve_dim("cat", dim)?;
        let mut shape = first.layout.shape.clone();
        for x in rest {
            let others = |x: &Self| {
                x.shape().iter().enumerate().filter(|&(k, _)| k != d).map(|(_, &n)| n).collect()
            };
            let (a, b): (Vec<usize>, Vec<usize>) = (others(first), others(x));
            if x.rank() != first.rank() || a != b {
                let (lhs, rhs) = (first.shape().to_vec(), x.shape().to_vec());
                return Err(Error::ShapeMismatch { op: "cat", lhs, rhs });
            }
            let size = &mut shape.as_mut_slice()[d];
            *size = size.saturating_add(x.shape()[d]);
        }
        shape.checked_alloc("cat", size_of::<T>())?;
        let inner: usize = shape[d + 1..].iter().product();
        let row = shape[d] * inner;
        let parts: Vec<Self> = tensors.iter().map(|x| x.contiguous()).collect();
        Ok(Self::build(shape, |out| {
            if row == 0 {
                return;
            }
            // Row-major: for each index before `dim`, a stretch of every part.
            let widths: Vec<usize> = parts.iter().map(|x| x.shape()[d] * inner).collect();
            let rows = (walk::GRAIN / row).max(1);
            walk::parallel(out, rows * row, |start, out| {
                for (i, out) in out.chunks_exact_mut(row).enumerate() {
                    let (i, mut at) = (start / row + i, 0);
                    for (x, &width) in parts.iter().zip(&widths) {
                        out[at..at + width]
                            .copy_from_slice(&x.elements()[i * width..(i + 1) * width]);
                        at += width;
                    }
                }
            });
        }))
    }

    /// Beside each other along a new dim before `dim`; all shapes agree. `torch.stack`.
    ///
    /// # Errors
    /// As [`Tensor::cat`].
    pub fn stack(tensors: &[&Self], dim: isize) -> Result<Self> {
        let Some((&first, rest)) = tensors.split_first() else {
            return Err(Error::InvalidArgument {
                op: "stack",
                name: "tensors",
                reason: "must be at least one".into(),
            });
        };
        if let Some(x) = rest.iter().find(|x| x.shape() != first.shape()) {
            let (lhs, rhs) = (first.shape().to_vec(), x.shape().to_vec());
            return Err(Error::ShapeMismatch { op: "stack", lhs, rhs });
        }
        let d = crate::shape::resolve_dim("stack", dim, first.rank() + 1)?;
        let mut shape = first.layout.shape.clone();
        shape.insert(d, tensors.len());
        shape.checked_alloc("stack", size_of::<T>())?;
        let parts: Vec<Self> = tensors.iter().map(|x| x.unsqueeze(dim)).collect::<Result<_>>()?;
        Self::cat(&parts.iter().collect::<Vec<_>>(), dim)
    }

    /// The whole tensor `repeats[d]` times along each dim; more repeats than dims add leading ones.
    /// `torch.Tensor.repeat`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are fewer repeats than dims; [`Error::SizeOverflow`].
    pub fn repeat(&self, repeats: &[usize]) -> Result<Self> {
        let Some(lead) = repeats.len().checked_sub(self.rank()) else {
            return Err(Error::InvalidArgument {
                op: "repeat",
                name: "repeats",
                reason: format!("{repeats:?} are fewer than the dims of {:?}", self.shape()),
            });
        };
        let sizes = || std::iter::repeat_n(&1, lead).chain(self.shape());
        let shape: Shape = sizes().zip(repeats).map(|(&n, &r)| n.saturating_mul(r)).collect();
        shape.checked_alloc("repeat", size_of::<T>())?;
        // [n₀, n₁, …] as [1, n₀, 1, n₁, …], expanded to [r₀, n₀, r₁, n₁, …].
        let pairs = |first: fn(usize) -> usize| -> Shape {
            sizes().zip(repeats).flat_map(|(&n, &r)| [first(r), n]).collect()
        };
        self.reshape(pairs(|_| 1))?.expand(pairs(|r| r))?.reshape(shape)
    }

    /// [`Tensor::repeat`] where missing leading repeats are 1. `torch.tile`, `numpy.tile`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn tile(&self, repeats: &[usize]) -> Result<Self> {
        let missing = self.rank().saturating_sub(repeats.len());
        self.repeat(&[&vec![1; missing], repeats].concat())
    }

    /// Entries moved by `shifts[i]` along `dims[i]`, around the end. `torch.roll`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless there is a shift for each dim; [`Error::DimOutOfRange`].
    pub fn roll(&self, shifts: &[isize], dims: &[isize]) -> Result<Self> {
        if shifts.len() != dims.len() {
            return Err(Error::InvalidArgument {
                op: "roll",
                name: "shifts",
                reason: format!("{shifts:?} are not one for each of the dims {dims:?}"),
            });
        }
        for &dim in dims {
            self.resolve_dim("roll", dim)?;
        }
        let mut out = self.contiguous();
        for (&shift, &dim) in shifts.iter().zip(dims) {
            let n = self.shape()[self.resolve_dim("roll", dim)?];
            let shift = shift.rem_euclid(n.max(1) as isize) as usize;
            if shift > 0 {
                let (head, tail) =
                    (out.narrow(dim, 0, n - shift)?, out.narrow(dim, n - shift, shift)?);
                out = Self::cat(&[&tail, &head], dim)?;
            }
        }
        Ok(out)
    }

    /// `padding[d] = (before, after)` entries around each dim, in the order of the dims. (PyTorch's
    /// list begins with the last.) `torch.nn.functional.pad`, `numpy.pad`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless there is a pair for each dim, or if a mode has not enough
    /// entries to take from: `Reflect` needs more entries than it adds at an end, `Circular` as many,
    /// `Replicate` one; [`Error::SizeOverflow`].
    ///
    /// # Examples
    /// ```
    /// # use tensor::{PadMode, Tensor};
    /// let x = Tensor::from([1_i64, 2, 3]);
    /// assert_eq!(x.pad(&[(2, 1)], PadMode::Reflect)?.to_vec(), [3, 2, 1, 2, 3, 2]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    pub fn pad(&self, padding: &[(usize, usize)], mode: PadMode<T>) -> Result<Self> {
        let bad = |reason| Err(Error::InvalidArgument { op: "pad", name: "padding", reason });
        if padding.len() != self.rank() {
            return bad(format!(
                "has {} pairs, shape {:?} has {} dims",
                padding.len(),
                self.shape(),
                self.rank()
            ));
        }
        let mut shape = self.layout.shape.clone();
        for (size, &(before, after)) in shape.as_mut_slice().iter_mut().zip(padding) {
            let most = match mode {
                PadMode::Constant(_) => usize::MAX,
                PadMode::Reflect => size.saturating_sub(1),
                PadMode::Replicate if *size > 0 => usize::MAX,
                PadMode::Replicate => 0,
                PadMode::Circular => *size,
            };
            if before.max(after) > most {
                return bad(format!("({before}, {after}) is too much for a dim of size {size}"));
            }
            *size = size.saturating_add(before).saturating_add(after);
        }
        shape.checked_alloc("pad", size_of::<T>())?;
        let fill = if let PadMode::Constant(value) = mode { value } else { T::ZERO };
        if shape.numel() == 0 {
            return Ok(Self::build(shape, |_| ()));
        }
        let mut out = self.contiguous();
        for (d, &(before, after)) in padding.iter().enumerate() {
            if (before, after) == (0, 0) {
                continue;
            }
            let n = self.shape()[d] as isize;
            let source = |i: isize| match mode {
                _ if (0..n).contains(&i) => i as usize,
                PadMode::Constant(_) => FILL,
                PadMode::Reflect if i < 0 => -i as usize,
                PadMode::Reflect => (2 * (n - 1) - i) as usize,
                PadMode::Replicate => i.clamp(0, n - 1) as usize,
                PadMode::Circular => i.rem_euclid(n) as usize,
            };
            let map: Vec<usize> = (-(before as isize)..n + after as isize).map(source).collect();
            out = out.pick(d, &map, fill);
        }
        Ok(out)
    }

    /// The entries of dim `d` that `map` names, each in range or [`FILL`]. The sizes are checked.
    pub(crate) fn pick(&self, d: usize, map: &[usize], fill: T) -> Self {
        let mut shape = self.layout.shape.clone();
        shape.as_mut_slice()[d] = map.len();
        let inner: usize = shape[d + 1..].iter().product();
        let size = self.shape()[d];
        // Long strided rows are read where they lie; else the source is copied first.
        let source = if d == 0 && inner >= LONG { self.clone() } else { self.contiguous() };
        Self::build(shape, |out| {
            if out.is_empty() {
                return;
            }
            let entries = source.as_slice();
            let rows = (walk::GRAIN / inner).max(1);
            walk::parallel(out, rows * inner, |start, out| {
                for (i, out) in out.chunks_exact_mut(inner).enumerate() {
                    let i = start / inner + i;
                    let from = map[i % map.len()];
                    match entries {
                        _ if from == FILL => out.fill(fill),
                        Some(entries) => {
                            let at = (i / map.len() * size + from) * inner;
                            out.copy_from_slice(&entries[at..at + inner]);
                        }
                        None => {
                            let shift = from as isize * source.layout.strides[0];
                            let mut layout =
                                source.layout.permuted(&(1..self.rank()).collect::<Vec<_>>());
                            layout.offset = (layout.offset as isize + shift) as usize;
                            walk::Walk::new([&layout]).gather(source.buffer.as_slice(), 0, out);
                        }
                    }
                }
            });
        })
    }

    /// The lower triangle of each matrix, zeros elsewhere: entries whose column is at most `diagonal`
    /// larger than their row. `torch.tril`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] below rank 2.
    pub fn tril(&self, diagonal: isize) -> Result<Self> {
        self.triangle("tril", |row, columns| {
            0..row.saturating_add(diagonal).saturating_add(1).clamp(0, columns)
        })
    }

    /// The upper triangle of each matrix, zeros elsewhere: entries whose column is at least
    /// `diagonal` larger than their row. `torch.triu`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] below rank 2.
    pub fn triu(&self, diagonal: isize) -> Result<Self> {
        self.triangle("triu", |row, columns| {
            row.saturating_add(diagonal).clamp(0, columns)..columns
        })
    }

    fn triangle(
        &self,
        op: &'static str,
        kept: impl Fn(isize, isize) -> std::ops::Range<isize>,
    ) -> Result<Self> {
        let [.., rows, columns] = *self.shape() else {
            let (expected, shape) = ("at least two dims", self.shape().to_vec());
            return Err(Error::RankMismatch { op, expected, shape });
        };
        let mut out = self.clone();
        let all = out.make_mut();
        if all.is_empty() {
            return Ok(out);
        }
        for (i, row) in all.chunks_exact_mut(columns).enumerate() {
            let kept = kept((i % rows) as isize, columns as isize);
            row[..kept.start as usize].fill(T::ZERO);
            row[kept.end as usize..].fill(T::ZERO);
        }
        Ok(out)
    }
}

/// Elements of a row from which on it is worth a walk of its own.
const LONG: usize = 256;
/// Stands for no entry in the map of [`Tensor::pick`].
const FILL: usize = usize::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_tensors_with_huge_dims_are_joined_and_padded() {
        let empty = Tensor::<f32>::zeros([1 << 40, 0]).unwrap();
        assert_eq!(empty.roll(&[1], &[0]).unwrap().shape(), empty.shape());
        let x = Tensor::<u8>::zeros([0, 1]).unwrap();
        let padded = x.pad(&[(0, 0), (1 << 60, 0)], PadMode::Constant(0)).unwrap();
        assert_eq!(padded.shape(), [0, (1 << 60) + 1]);
    }

    #[test]
    fn rolls_around_every_end() {
        let x = Tensor::from([[1_i64, 2, 3], [4, 5, 6]]);
        assert_eq!(x.roll(&[1, -1], &[0, 1]).unwrap().to_vec(), [5, 6, 4, 2, 3, 1]);
        assert_eq!(x.roll(&[5, 1], &[1, 1]).unwrap().to_vec(), x.to_vec());
        assert!(x.roll(&[1], &[]).is_err() && x.roll(&[1], &[2]).is_err());
    }
}
