//! Putting variables together, repeating, rolling, padding, and cutting triangles: each element of the
//! result is one of an operand, or a constant.

use tensor::{Float, PadMode, Result, Shape, Tensor};

use crate::tape::{record, record_many};
use crate::var::Var;

/// Joining and repeating.
impl<T: Float> Var<T> {
    /// One after the other along `dim`; the other dims agree. `dx` of each is its part of g. Saves
    /// nothing. Any order. `torch.cat`, which also takes empty vectors among others.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) without variables;
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch);
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow);
    /// [`Error::MixedTapes`](crate::Error::MixedTapes).
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor, Var};
    /// let tape = Tape::new();
    /// let (a, b) = (tape.var(Tensor::from([1.0_f64, 2.0])), tape.var(Tensor::from([3.0])));
    /// let y = Var::cat(&[&a, &b, &a], 0)?;
    /// assert_eq!(y.value().to_vec(), [1.0, 2.0, 3.0, 1.0, 2.0]);
    /// let grads = y.backward_with(&Tensor::from([1.0, 2.0, 3.0, 4.0, 5.0]))?;
    /// assert_eq!(grads.wrt(&a)?.to_vec(), [5.0, 7.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    #[track_caller]
    pub fn cat(variables: &[&Self], dim: isize) -> Result<Self> {
        let values: Vec<&Tensor<T>> = variables.iter().map(|x| x.value()).collect();
        let y = Tensor::cat(&values, dim)?;
        let d = y.resolve_dim("cat", dim)?;
        let sizes: Vec<usize> = values.iter().map(|x| x.shape()[d]).collect();
        let nodes: Vec<_> = variables.iter().map(|x| x.node()).collect();
        record_many("cat", &nodes, &[], y, move |ctx, g, sink| {
            let mut start = 0;
            for (i, &size) in sizes.iter().enumerate() {
                if ctx.needs(i) {
                    sink.add(i, g.narrow(d as isize, start, size)?)?;
                }
                start += size;
            }
            Ok(())
        })
    }

    /// Beside each other along a new dim before `dim`; all shapes agree. `dx` of each is its entry of
    /// g. Saves nothing. Any order. `torch.stack`.
    ///
    /// # Errors
    /// As [`Var::cat`].
    #[track_caller]
    pub fn stack(variables: &[&Self], dim: isize) -> Result<Self> {
        let values: Vec<&Tensor<T>> = variables.iter().map(|x| x.value()).collect();
        let y = Tensor::stack(&values, dim)?;
        let d = y.resolve_dim("stack", dim)?;
        let nodes: Vec<_> = variables.iter().map(|x| x.node()).collect();
        record_many("stack", &nodes, &[], y, move |ctx, g, sink| {
            for i in (0..g.shape()[d]).filter(|&i| ctx.needs(i)) {
                sink.add(i, g.select(d as isize, i as isize)?)?;
            }
            Ok(())
        })
    }

    /// The whole `repeats[d]` times along each dim; more repeats than dims add leading ones. `dx` is g
    /// summed over the repetitions. Saves nothing. Any order. `torch.Tensor.repeat`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are fewer repeats than dims;
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    #[track_caller]
    pub fn repeat(&self, repeats: &[usize]) -> Result<Self> {
        let y = self.value().repeat(repeats)?;
        let own = Shape::from(self.shape());
        let lead = repeats.len() - own.len();
        let sizes = std::iter::repeat_n(1, lead).chain(own.iter().copied());
        // [r₀·n₀, r₁·n₁, …] as [r₀, n₀, r₁, n₁, …]
        let pairs: Shape = repeats.iter().copied().zip(sizes).flat_map(|(r, n)| [r, n]).collect();
        let repeated: Vec<isize> = (0..repeats.len() as isize).map(|d| 2 * d).collect();
        record("repeat", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.reshape(&pairs)?.sum_dim(&repeated, false)?.reshape(&own)?)
        })
    }

    /// [`Var::repeat`] where missing leading repeats are 1: `dx` is g summed over the repetitions.
    /// Saves nothing. Any order. `torch.tile`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    #[track_caller]
    pub fn tile(&self, repeats: &[usize]) -> Result<Self> {
        let missing = self.value().rank().saturating_sub(repeats.len());
        self.repeat(&[&vec![1; missing], repeats].concat())
    }

    /// Entries moved by `shifts[i]` along `dims[i]`, around the end: `dx` is g moved back. Saves
    /// nothing. Any order. `torch.roll`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) unless there is a shift for each dim;
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn roll(&self, shifts: &[isize], dims: &[isize]) -> Result<Self> {
        let y = self.value().roll(shifts, dims)?;
        let mut back = Vec::with_capacity(shifts.len());
        for (&shift, &dim) in shifts.iter().zip(dims) {
            // Within the dim first: the smallest integer has no negative.
            let size = self.shape()[self.value().resolve_dim("roll", dim)?].max(1) as isize;
            back.push(-shift.rem_euclid(size));
        }
        let dims = dims.to_vec();
        record("roll", [self.node()], [], y, move |_, g, sink| sink.add(0, g.roll(&back, &dims)?))
    }

    /// Reverses the order along `dims`: `dx` is g reversed. Saves nothing. Any order. `torch.flip` (a
    /// view here).
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    #[track_caller]
    pub fn flip(&self, dims: &[isize]) -> Result<Self> {
        let y = self.value().flip(dims)?;
        let dims = dims.to_vec();
        record("flip", [self.node()], [], y, move |_, g, sink| sink.add(0, g.flip(&dims)?))
    }

    /// `padding[d] = (before, after)` entries around each dim, in the order of the dims. (PyTorch's list
    /// begins with the last.) `dx` is g where each element stands, summed over its copies at the ends;
    /// constants have no gradient. Saves nothing. Any order. `torch.nn.functional.pad`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) unless there is a pair for each dim, or
    /// if a mode has not enough entries to take from: `Reflect` needs more entries than it adds at an
    /// end, `Circular` as many, `Replicate` one; [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    #[track_caller]
    pub fn pad(&self, padding: &[(usize, usize)], mode: PadMode<T>) -> Result<Self> {
        let y = self.value().pad(padding, mode)?;
        let sizes: Vec<usize> = self.shape().to_vec();
        let padding = padding.to_vec();
        record("pad", [self.node()], [], y, move |_, g, sink| {
            let mut dx = g;
            for (d, (&ends, &size)) in padding.iter().zip(&sizes).enumerate() {
                dx = dx.unpad(d as isize, ends, size, mode)?;
            }
            sink.add(0, dx)
        })
    }

    /// The gradient of padding along one dim of `size` entries: what was copied to the ends is added
    /// where it was copied from.
    fn unpad(
        &self,
        dim: isize,
        (before, after): (usize, usize),
        size: usize,
        mode: PadMode<T>,
    ) -> Result<Self> {
        let mut dx = self.narrow(dim, before, size)?;
        if matches!(mode, PadMode::Constant(_)) {
            return Ok(dx);
        }
        for (start, length) in [(0, before), (before + size, after)] {
            if length == 0 {
                continue;
            }
            let end = self.narrow(dim, start, length)?;
            let front = start == 0;
            let (from, end) = match mode {
                PadMode::Replicate => {
                    (if front { 0 } else { size - 1 }, end.sum_dim(&[dim], true)?)
                }
                PadMode::Reflect => (if front { 1 } else { size - 1 - length }, end.flip(&[dim])?),
                _ => (if front { size - length } else { 0 }, end),
            };
            let length = end.shape()[dim as usize];
            let shape = Shape::from(dx.shape());
            let place = move |x: &Tensor<T>| x.narrow(dim, from, length);
            dx = dx.checked_add(&end.scatter_view("narrow", &shape, place)?)?;
        }
        Ok(dx)
    }

    /// The lower triangle of each matrix, zeros elsewhere: entries whose column is at most `diagonal`
    /// larger than their row. `dx` is the lower triangle of g. Saves nothing. Any order. `torch.tril`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) below rank 2.
    #[track_caller]
    pub fn tril(&self, diagonal: isize) -> Result<Self> {
        let y = self.value().tril(diagonal)?;
        record("tril", [self.node()], [], y, move |_, g, sink| sink.add(0, g.tril(diagonal)?))
    }

    /// The upper triangle of each matrix, zeros elsewhere: entries whose column is at least `diagonal`
    /// larger than their row. `dx` is the upper triangle of g. Saves nothing. Any order. `torch.triu`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`](crate::Error::RankMismatch) below rank 2.
    #[track_caller]
    pub fn triu(&self, diagonal: isize) -> Result<Self> {
        let y = self.value().triu(diagonal)?;
        record("triu", [self.node()], [], y, move |_, g, sink| sink.add(0, g.triu(diagonal)?))
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    use PadMode::{Circular, Constant, Reflect, Replicate};
    vec![
        Row::along_dim("cat", |x, dim| {
            let y = x * x;
            Var::cat(&[&y, x, &y], dim)
        }),
        Row::of("cat", &[&[2, 3], &[4, 3], &[1, 3]], |x| {
            let square = &x[0] * &x[0];
            Var::cat(&[&square, &x[1], &x[2], &x[1]], 0)
        })
        .and(&[&[2, 3], &[4, 2]], |x| {
            Var::cat(&[&x[0], &(&x[1].transpose(0, 1)? * &x[0].narrow(1, 0, 1)?)], -1)
        })
        .and(&[&[2, 1], &[2, 0]], |x| Var::cat(&[&x[1], &x[0].expand([2, 3])?, &x[1]], 1))
        .and(&[&[3]], |x| Var::cat(&[&x[0]], 0)),
        Row::along_dim("stack", |x, dim| Var::stack(&[x, &(x * x), x], dim)),
        Row::of("stack", &[&[], &[]], |x| Var::stack(&[&x[0], &(&x[0] * &x[1])], 0))
            .and(&[&[2, 3], &[3, 2]], |x| Var::stack(&[&x[0], &x[1].transpose(0, 1)?], 1))
            .and(&[&[2, 3]], |x| Var::stack(&[&x[0], &(&x[0] * &x[0])], -1)),
        Row::unary("repeat", |x| (x * x).repeat(&vec![2; x.value().rank() + 1])),
        Row::of("repeat", &[&[2, 3]], |x| (&x[0] * &x[0]).repeat(&[3, 1, 2]))
            .and(&[&[2]], |x| x[0].repeat(&[0]))
            .and(&[&[]], |x| x[0].repeat(&[]))
            .and(&[&[2, 1]], |x| x[0].expand([2, 2])?.repeat(&[1, 3])),
        Row::unary("tile", |x| (x * x).tile(&[2])),
        Row::of("tile", &[&[2, 3]], |x| Ok([x[0].tile(&[])?, (&x[0] * &x[0]).tile(&[2, 1, 2])?])),
        Row::along_dim("roll", |x, dim| (x * x).roll(&[1], &[dim])),
        Row::of("roll", &[&[3, 4]], |x| (&x[0] * &x[0]).roll(&[-1, 6, 2], &[0, 1, 1]))
            .and(&[&[3]], |x| x[0].roll(&[isize::MIN], &[0]))
            .and(&[&[]], |x| x[0].roll(&[], &[])),
        Row::along_dim("flip", |x, dim| (x * x).flip(&[dim])),
        Row::of("flip", &[&[2, 3, 2]], |x| (&x[0] * &x[0]).flip(&[0, -1]))
            .and(&[&[]], |x| x[0].flip(&[])),
        Row::unary("pad", |x| (x * x).pad(&vec![(1, 2); x.value().rank()], Constant(3.0))),
        Row::of("pad", &[&[3, 4]], |x| {
            let y = &x[0] * &x[0];
            Ok([
                y.pad(&[(2, 1), (0, 3)], Reflect)?,
                x[0].pad(&[(0, 2), (5, 1)], Replicate)?,
                y.pad(&[(3, 2), (4, 0)], Circular)?,
                y.pad(&[(0, 0), (1, 0)], Constant(-1.0))?,
            ])
        })
        .and(&[&[2, 3]], |x| x[0].transpose(0, 1)?.pad(&[(2, 2), (1, 1)], Reflect))
        .and(&[&[3, 1]], |x| x[0].expand([3, 2])?.pad(&[(1, 3), (2, 2)], Circular))
        .and(&[&[1]], |x| Ok([x[0].pad(&[(2, 3)], Replicate)?, x[0].pad(&[(1, 1)], Circular)?]))
        .and(&[&[1]], |x| x[0].pad(&[(0, 0)], Reflect))
        .and(&[&[0, 2]], |x| x[0].pad(&[(0, 0), (1, 1)], Reflect)),
        Row::of("tril", &[&[3, 4]], |x| Ok([x[0].tril(0)?, (&x[0] * &x[0]).tril(-1)?]))
            .and(&[&[2, 4, 3]], |x| x[0].permute(&[2, 0, 1])?.tril(1))
            .and(&[&[2, 3]], |x| Ok([x[0].tril(-5)?, x[0].tril(isize::MAX)?]))
            .and(&[&[0, 3]], |x| x[0].tril(0)),
        Row::of("triu", &[&[3, 4]], |x| Ok([x[0].triu(0)?, (&x[0] * &x[0]).triu(2)?]))
            .and(&[&[2, 4, 3]], |x| x[0].permute(&[2, 0, 1])?.triu(-1))
            .and(&[&[3, 1]], |x| x[0].expand([3, 3])?.triu(0))
            .and(&[&[1, 0]], |x| x[0].triu(0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;
    use tensor::Error;

    #[test]
    fn only_tracked_parts_get_a_gradient() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([1.0_f64]));
        let c = Var::constant(Tensor::from([2.0]));
        let y = Var::cat(&[&c, &x, &c], 0).unwrap();
        let grads = y.backward_with(&Tensor::from([1.0, 2.0, 4.0])).unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [2.0]);
        // Without a tracked part nothing is recorded.
        let on_tape = tape.constant(Tensor::from([2.0]));
        let y = Var::stack(&[&c, &on_tape], 0).unwrap();
        assert!(!y.is_tracked() && y.tape().is_some() && tape.is_empty());
        assert!(Var::cat(&[&c, &c], 0).unwrap().tape().is_none());
    }

    #[test]
    fn parts_of_two_tapes_and_of_a_consumed_one_are_refused() {
        let (x, other) = (Tape::new().var(Tensor::from([1.0_f32])), Tape::new());
        let y = other.var(Tensor::from([1.0_f32]));
        let mixed = Var::cat(&[&x, &y], 0);
        assert!(matches!(mixed, Err(Error::MixedTapes { op: "cat" })));
        y.backward().unwrap();
        let stale = Var::stack(&[&other.var(Tensor::from([1.0_f32])), &y], 0).unwrap();
        assert_eq!(stale.value().to_vec(), [1.0, 1.0]);
        assert!(matches!(stale.backward(), Err(Error::ConsumedTape { .. })));
    }

    #[test]
    fn errors_are_those_of_the_tensor() {
        let x = Tape::new().var(Tensor::from([1.0_f32, 2.0]));
        let text = |y: Result<Var<f32>>| y.map(|_| ()).unwrap_err().to_string();
        assert_eq!(text(Var::cat(&[], 0)), "cat: tensors must be at least one");
        assert_eq!(text(Var::stack(&[], 0)), "stack: tensors must be at least one");
        let scalar = x.sum();
        assert_eq!(text(Var::cat(&[&x, &scalar], 0)), "cat: shapes do not match: [2] and []");
        assert_eq!(text(x.repeat(&[])), "repeat: repeats [] are fewer than the dims of [2]");
        assert_eq!(
            text(x.pad(&[(2, 0)], PadMode::Reflect)),
            "pad: padding (2, 0) is too much for a dim of size 2"
        );
        assert_eq!(text(x.tril(0)), "tril: expected at least two dims, found shape [2]");
    }

    #[test]
    fn each_copy_in_the_padding_counts() {
        let tape = Tape::new();
        let gradient = |mode| {
            let x = tape.var(Tensor::from([1.0_f64, 2.0, 3.0]));
            let y = x.pad(&[(2, 1)], mode).unwrap();
            let g = Tensor::from([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
            y.backward_with(&g).unwrap().wrt(&x).unwrap().to_vec()
        };
        assert_eq!(gradient(PadMode::Constant(f64::NAN)), [4.0, 8.0, 16.0]);
        // 3 2 | 1 2 3 | 2
        assert_eq!(gradient(PadMode::Reflect), [4.0, 42.0, 17.0]);
        assert_eq!(gradient(PadMode::Replicate), [7.0, 8.0, 48.0]);
        // 2 3 | 1 2 3 | 1
        assert_eq!(gradient(PadMode::Circular), [36.0, 9.0, 18.0]);
    }
}
