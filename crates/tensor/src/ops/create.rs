//! Construction of tensors from sizes and numbers. Random ones are beside it.

use crate::element::{Element, Float, Number};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Constants.
impl<T: Element> Tensor<T> {
    /// Every element is `value`. `torch.full`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`] if the shape cannot be addressed.
    pub fn full(shape: impl Into<Shape>, value: T) -> Result<Self> {
        Self::filled("full", shape.into(), value)
    }

    fn filled(op: &'static str, shape: Shape, value: T) -> Result<Self> {
        shape.checked_alloc(op, size_of::<T>())?;
        Ok(Self::build(shape, |out| out.fill(value)))
    }

    /// Every element is 0 (or `false`). `torch.zeros`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`] if the shape cannot be addressed.
    pub fn zeros(shape: impl Into<Shape>) -> Result<Self> {
        Self::filled("zeros", shape.into(), T::ZERO)
    }

    /// Every element is 1 (or `true`). `torch.ones`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`] if the shape cannot be addressed.
    pub fn ones(shape: impl Into<Shape>) -> Result<Self> {
        Self::filled("ones", shape.into(), T::ONE)
    }

    /// `value` everywhere, in the shape of `self`. `torch.full_like`.
    #[must_use]
    pub fn full_like(&self, value: T) -> Self {
        Self::build(self.layout.shape.clone(), |out| out.fill(value))
    }

    /// Zeros in the shape of `self`. `torch.zeros_like`.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        self.full_like(T::ZERO)
    }

    /// Ones in the shape of `self`. `torch.ones_like`.
    #[must_use]
    pub fn ones_like(&self) -> Self {
        self.full_like(T::ONE)
    }

    /// A matrix with ones on its main diagonal and zeros elsewhere. `torch.eye`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`] if the shape cannot be addressed.
    pub fn eye(rows: usize, columns: usize) -> Result<Self> {
        let shape = Shape::from([rows, columns]);
        shape.checked_alloc("eye", size_of::<T>())?;
        Ok(Self::build(shape, |out| {
            out.fill(T::ZERO);
            out.iter_mut().step_by(columns + 1).take(rows.min(columns)).for_each(|o| *o = T::ONE);
        }))
    }
}

/// Sequences.
impl<T: Number> Tensor<T> {
    /// `start`, `start + step`, … up to but without `stop`: `⌈(stop − start)/step⌉` elements. Floats
    /// are `start + i·step` in `f64`, rounded once, so errors do not add up; but where the quotient is
    /// rounded past an integer there is one element more, as in NumPy. `torch.arange`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `step` is 0 or leads away from `stop`, or a bound is not finite;
    /// [`Error::SizeOverflow`].
    pub fn arange(start: T, stop: T, step: T) -> Result<Self> {
        let bad = |name, reason: &str| {
            let reason = reason.to_owned();
            Err(Error::InvalidArgument { op: "arange", name, reason })
        };
        let finite = |x: T| x.as_float().is_none_or(f64::is_finite);
        if !(finite(start) && finite(stop) && finite(step)) {
            return bad("bounds", "must be finite");
        }
        if step == T::ZERO {
            return bad("step", "must not be 0");
        }
        if (step > T::ZERO && start > stop) || (step < T::ZERO && start < stop) {
            return bad("step", "leads away from the stop");
        }
        match start.as_float().zip(stop.as_float()).zip(step.as_float()) {
            Some(((first, stop), step)) => {
                let span = stop - first;
                let steps = if span.is_finite() { span / step } else { stop / step - first / step };
                let count = steps.ceil();
                // Conversion saturates, so what memory cannot address stays so.
                let shape = Shape::from([count as usize]);
                shape.checked_alloc("arange", size_of::<T>())?;
                Ok(Tensor::<f64>::build(shape, |out| {
                    out.iter_mut().enumerate().for_each(|(i, o)| *o = first + i as f64 * step);
                })
                .cast())
            }
            None => {
                let [first, stop, step] = [start, stop, step].map(|x| i128::from(to_i64(x)));
                let count = (stop - first).unsigned_abs().div_ceil(step.unsigned_abs());
                let shape = Shape::from([usize::try_from(count).unwrap_or(usize::MAX)]);
                shape.checked_alloc("arange", size_of::<i64>())?;
                Ok(Tensor::<i64>::build(shape, |out| {
                    // Every element lies between two numbers of the type.
                    (out.iter_mut().enumerate())
                        .for_each(|(i, o)| *o = (first + i as i128 * step) as i64);
                })
                .cast())
            }
        }
    }
}

/// An integer as the widest there is.
fn to_i64<T: Number>(x: T) -> i64 {
    let mut wide = [0];
    T::cast::<i64>()(&[x], &mut wide);
    wide[0]
}

/// Sequences of real numbers.
impl<T: Float> Tensor<T> {
    /// `count` numbers evenly spaced from `start` to `stop`, both ends included exactly; only `start`
    /// where `count` is 1. `torch.linspace`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn linspace(start: T, stop: T, count: usize) -> Result<Self> {
        let shape = Shape::from([count]);
        shape.checked_alloc("linspace", size_of::<T>())?;
        let (first, last, n) = (start.to_f64(), stop.to_f64(), count.saturating_sub(1));
        Ok(Self::build(shape, |out| {
            // Halves, whose difference does not overflow.
            let half_step = (last / 2.0 - first / 2.0) / n.max(1) as f64;
            for (i, o) in out.iter_mut().enumerate() {
                // From the nearer end, so that both are exact and the errors are those of a half.
                let x = if i == 0 {
                    first
                } else if i == n {
                    last
                } else if i <= n / 2 {
                    first + i as f64 * half_step * 2.0
                } else {
                    last - (n - i) as f64 * half_step * 2.0
                };
                *o = T::from_f64(x);
            }
        }))
    }
}

/// Numbers, or arrays or vectors of them, nested to any depth.
pub trait Nested {
    /// The numbers' type.
    type Elem: Element;
    /// How deep the nesting is.
    #[doc(hidden)]
    const RANK: usize;
    /// Appends the elements, checking the sizes below `depth`; sizes still unknown are 0xff….
    #[doc(hidden)]
    fn flatten(&self, sizes: &mut [Option<usize>], out: &mut Vec<Self::Elem>) -> Result<()>;
}

macro_rules! nested_numbers {
    ($($type:ident)+) => {$(
        impl Nested for $type {
            type Elem = $type;
            const RANK: usize = 0;
            fn flatten(&self, _: &mut [Option<usize>], out: &mut Vec<$type>) -> Result<()> {
                out.push(*self);
                Ok(())
            }
        }
    )+};
}
nested_numbers!(f32 f64 i64 u8 bool);

impl<N: Nested> Nested for [N] {
    type Elem = N::Elem;
    const RANK: usize = N::RANK + 1;
    fn flatten(&self, sizes: &mut [Option<usize>], out: &mut Vec<N::Elem>) -> Result<()> {
        let Some((size, inner)) = sizes.split_first_mut() else {
            unreachable!("bug: a list of sizes for each level of nesting")
        };
        if *size.get_or_insert(self.len()) != self.len() {
            return Err(Error::InvalidArgument {
                op: "from_nested",
                name: "data",
                reason: format!(
                    "has a part of {} entries beside one of {}",
                    self.len(),
                    size.unwrap_or_default()
                ),
            });
        }
        self.iter().try_for_each(|part| part.flatten(inner, out))
    }
}

impl<N: Nested> Nested for Vec<N> {
    type Elem = N::Elem;
    const RANK: usize = N::RANK + 1;
    fn flatten(&self, sizes: &mut [Option<usize>], out: &mut Vec<N::Elem>) -> Result<()> {
        self[..].flatten(sizes, out)
    }
}

impl<N: Nested, const K: usize> Nested for [N; K] {
    type Elem = N::Elem;
    const RANK: usize = N::RANK + 1;
    fn flatten(&self, sizes: &mut [Option<usize>], out: &mut Vec<N::Elem>) -> Result<()> {
        self[..].flatten(sizes, out)
    }
}

/// From nested data.
impl<T: Element> Tensor<T> {
    /// Nested arrays or vectors, one dim for each level; sizes below an empty level are 0.
    /// `torch.tensor`, `numpy.array`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if parts of one level differ in size.
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let x = Tensor::from_nested(&vec![vec![1.0_f32, 2.0], vec![3.0, 4.0]])?;
    /// assert_eq!(x.shape(), [2, 2]);
    /// assert!(Tensor::from_nested(&vec![vec![1.0_f32], vec![]]).is_err());
    /// # Ok::<(), tensor::Error>(())
    /// ```
    #[doc(alias = "array")]
    pub fn from_nested<N: Nested<Elem = T> + ?Sized>(data: &N) -> Result<Self> {
        let mut sizes = vec![None; N::RANK];
        let mut out = Vec::new();
        data.flatten(&mut sizes, &mut out)?;
        let shape: Shape = sizes.into_iter().map(|size| size.unwrap_or(0)).collect();
        Self::from_vec(out, shape)
    }
}

macro_rules! from_arrays {
    ($([$($size:ident),+] $array:ty;)+) => {$(
        /// The elements of nested arrays, one dim for each level.
        impl<T: Element, $(const $size: usize),+> From<$array> for Tensor<T> {
            fn from(data: $array) -> Self {
                let flat = as_flat!(data, $($size)+);
                match Self::from_slice(flat, [$($size),+]) {
                    Ok(x) => x,
                    Err(error) => unreachable!("bug: arrays have equal parts: {error}"),
                }
            }
        }
    )+};
}

macro_rules! as_flat {
    ($data:ident, $a:ident) => {
        &$data[..]
    };
    ($data:ident, $a:ident $b:ident) => {
        $data.as_flattened()
    };
    ($data:ident, $a:ident $b:ident $c:ident) => {
        $data.as_flattened().as_flattened()
    };
    ($data:ident, $a:ident $b:ident $c:ident $d:ident) => {
        $data.as_flattened().as_flattened().as_flattened()
    };
}

from_arrays! {
    [A] [T; A];
    [A, B] [[T; B]; A];
    [A, B, C] [[[T; C]; B]; A];
    [A, B, C, D] [[[[T; D]; C]; B]; A];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_as_exact_as_their_type() {
        let x = Tensor::linspace(1.0_f64, 7.0, 7).unwrap().to_vec();
        assert_eq!(x, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        let same = Tensor::linspace(0.1_f64, 0.1, 1001).unwrap();
        assert!(same.to_vec().iter().all(|&x| x == 0.1));
        let x = Tensor::linspace(0.0, f64::INFINITY, 3).unwrap().to_vec();
        assert_eq!(x, [0.0, f64::INFINITY, f64::INFINITY]);
        assert_eq!(Tensor::arange(-1e308, 1e308, 1e307).unwrap().numel(), 20);
        assert_eq!(Tensor::arange(1.0, 1.3, 0.1).unwrap().numel(), 4);
        assert_eq!(Tensor::<u8>::arange(250, 255, 2).unwrap().to_vec(), [250, 252, 254]);
        let x = Tensor::<i64>::arange(i64::MAX - 1, i64::MIN, i64::MIN).unwrap().to_vec();
        assert_eq!(x, [i64::MAX - 1, -2]);
    }

    #[test]
    fn what_memory_does_not_hold_is_an_error() {
        let text = |r: Result<Tensor<u8>>| r.map(|_| ()).unwrap_err().to_string();
        assert!(text(Tensor::ones([usize::MAX])).starts_with("ones: "));
        if cfg!(miri) {
            // Its allocator ends the program where the system's refuses.
            return;
        }
        let wanted = "zeros: shape [1125899906842624] has more elements than memory can hold";
        assert_eq!(text(Tensor::zeros([1 << 50])), wanted);
        assert!(Tensor::from([1_i64 << 50]).bincount(0).is_err());
    }
}
