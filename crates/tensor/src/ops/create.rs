//! Construction of tensors from sizes and numbers. Random ones are in random.rs.

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
        let shape = shape.into();
        shape.checked_numel("full", size_of::<T>())?;
        Ok(Self::build(shape, |out| out.fill(value)))
    }

    /// Every element is 0 (or `false`). `torch.zeros`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`] if the shape cannot be addressed.
    pub fn zeros(shape: impl Into<Shape>) -> Result<Self> {
        Self::full(shape, T::ZERO)
    }

    /// Every element is 1 (or `true`). `torch.ones`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`] if the shape cannot be addressed.
    pub fn ones(shape: impl Into<Shape>) -> Result<Self> {
        Self::full(shape, T::ONE)
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
        shape.checked_numel("eye", size_of::<T>())?;
        Ok(Self::build(shape, |out| {
            out.fill(T::ZERO);
            out.iter_mut().step_by(columns + 1).take(rows.min(columns)).for_each(|o| *o = T::ONE);
        }))
    }
}

/// Sequences.
impl<T: Number> Tensor<T> {
    /// `start`, `start + step`, … up to but without `stop`. Floats are `start + i·step` in `f64`,
    /// rounded once, so errors do not add up. `torch.arange`.
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
                let count = ((stop - first) / step).ceil();
                // Conversion saturates, so what memory cannot address stays so.
                let shape = Shape::from([count as usize]);
                shape.checked_numel("arange", size_of::<T>())?;
                Ok(Tensor::<f64>::build(shape, |out| {
                    out.iter_mut().enumerate().for_each(|(i, o)| *o = first + i as f64 * step);
                })
                .cast())
            }
            None => {
                let [first, stop, step] = [start, stop, step].map(|x| i128::from(to_i64(x)));
                let count = (stop - first).unsigned_abs().div_ceil(step.unsigned_abs());
                let shape = Shape::from([usize::try_from(count).unwrap_or(usize::MAX)]);
                shape.checked_numel("arange", size_of::<i64>())?;
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
        shape.checked_numel("linspace", size_of::<T>())?;
        let (first, last, n) = (start.to_f64(), stop.to_f64(), count.saturating_sub(1));
        Ok(Self::build(shape, |out| {
            for (i, o) in out.iter_mut().enumerate() {
                // Weights, not a step: no overflow between distant ends, and both are exact.
                let t = i as f64 / n.max(1) as f64;
                *o = T::from_f64(if i == n && n > 0 { last } else { first * (1.0 - t) + last * t });
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
