//! Reductions over any set of dims.
//!
//! `x.sum()` reduces all dims to a tensor of rank 0; `x.sum_dim(&[0, -1], keepdim)` reduces the named
//! ones, which stay with size 1 where `keepdim`. No dims: no reduction. Sums are accumulated in `f64`
//! (floats after at most four additions in their own type) or `i64`, and their bits depend on no
//! number of threads.

use crate::element::{Element, Float, Number};
use crate::error::{Error, Result};
use crate::kernels::elementwise::{self, Side};
use crate::kernels::formulas::{Binary, Comparison, NumberUnary};
use crate::kernels::reduce::{All, Any, FoldFns, fold_fns_once, reduce};
use crate::kernels::{ElementKernels, FloatKernels, NumberKernels, softmax};
use crate::layout::Layout;
use crate::shape::{Shape, named_dims};
use crate::tensor::Tensor;

/// The dims of a reduction.
struct Dims<'a, T: Element> {
    x: &'a Tensor<T>,
    reduced: Vec<bool>,
    keepdim: bool,
    /// How many elements go into each result.
    count: usize,
}

impl<'a, T: Element> Dims<'a, T> {
    fn new(op: &'static str, x: &'a Tensor<T>, dims: &[isize], keepdim: bool) -> Result<Self> {
        let reduced = named_dims(op, x.shape(), dims)?.to_vec();
        let sizes = x.shape().iter().zip(&reduced);
        let count = sizes.filter(|(_, reduced)| **reduced).map(|(size, _)| size).product();
        Ok(Dims { x, reduced, keepdim, count })
    }

    fn all(x: &'a Tensor<T>) -> Self {
        Dims { x, reduced: vec![true; x.rank()], keepdim: false, count: x.numel() }
    }

    /// Refuses to pick from nothing.
    fn not_empty(self, op: &'static str) -> Result<Self> {
        if self.count > 0 {
            return Ok(self);
        }
        Err(Error::InvalidArgument {
            op,
            name: "dims",
            reason: format!("hold no element in shape {:?}", self.x.shape()),
        })
    }

    /// The same reduction of another tensor of that shape.
    fn of<'b, U: Element>(&self, x: &'b Tensor<U>, keepdim: bool) -> Dims<'b, U> {
        Dims { x, reduced: self.reduced.clone(), keepdim, count: self.count }
    }

    fn fold<A: Copy + Send + Sync, B: Element>(
        &self,
        fold: &FoldFns<T, A>,
        finish: impl Fn(A) -> B + Sync,
    ) -> Tensor<B> {
        self.kept(reduce(self.x, |d| self.reduced[d], fold, finish))
    }

    /// The shape of the result.
    fn shape(&self) -> Shape {
        let sizes = self.x.shape().iter().zip(&self.reduced);
        let kept = sizes.filter(|&(_, &reduced)| self.keepdim || !reduced);
        kept.map(|(&size, &reduced)| if reduced { 1 } else { size }).collect()
    }

    /// A row-major result, with or without dims of size 1 between.
    fn kept<B: Element>(&self, out: Tensor<B>) -> Tensor<B> {
        Tensor { buffer: out.buffer, layout: Layout::contiguous(self.shape()) }
    }
}

macro_rules! reductions {
    ($bound:ident, $out:ty: $($(#[$doc:meta])* $all:ident, $(#[$dim_doc:meta])* $some:ident($text:literal) = |$dims:ident| $result:expr;)+) => {
        /// Reductions.
        impl<T: $bound> Tensor<T> {$(
            $(#[$doc])*
            #[must_use]
            pub fn $all(&self) -> $out {
                let $dims = Dims::all(self);
                $result
            }

            $(#[$dim_doc])*
            ///
            /// # Errors
            /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
            pub fn $some(&self, dims: &[isize], keepdim: bool) -> Result<$out> {
                let $dims = Dims::new($text, self, dims, keepdim)?;
                Ok($result)
            }
        )+}
    };
}

reductions! { Element, Tensor<T::Sum>:
    /// Sum of all elements; integers and truth values are summed as `i64`, wrapping. `torch.sum`.
    sum,
    /// Sum over `dims`. `torch.sum`.
    sum_dim("sum") = |dims| sums(&dims, T::settle);
    /// Product of all elements, rounded once; of integers as `i64`, wrapping. `torch.prod`.
    prod,
    /// Product over `dims`. `torch.prod`.
    prod_dim("prod") = |dims| dims.fold(&T::product(), T::settle);
}

reductions! { Float, Self:
    /// Mean of all elements; NaN where there are none. `torch.mean`.
    mean,
    /// Mean over `dims`. `torch.mean`.
    mean_dim("mean") = |dims| {
        let n = dims.count as f64;
        sums(&dims, |sum| T::from_f64(sum / n))
    };
    /// `ln Σ exp(x)` of all elements, without overflow; −∞ where there are none. `torch.logsumexp`.
    logsumexp,
    /// `ln Σ exp(x)` over `dims`. `torch.logsumexp`.
    logsumexp_dim("logsumexp") = |dims| logsumexp(&dims);
}

/// Reductions of truth values.
impl Tensor<bool> {
    /// Whether all elements hold; true where there are none. `torch.all`.
    #[must_use]
    pub fn all(&self) -> Self {
        Dims::all(self).fold(&fold_fns_once::<bool, All>(), |all| all)
    }

    /// Whether all elements hold, over `dims`. `torch.all`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
    pub fn all_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        Ok(Dims::new("all", self, dims, keepdim)?.fold(&fold_fns_once::<bool, All>(), |all| all))
    }

    /// Whether any element holds; false where there are none. `torch.any`.
    #[must_use]
    pub fn any(&self) -> Self {
        Dims::all(self).fold(&fold_fns_once::<bool, Any>(), |any| any)
    }

    /// Whether any element holds, over `dims`. `torch.any`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
    pub fn any_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        Ok(Dims::new("any", self, dims, keepdim)?.fold(&fold_fns_once::<bool, Any>(), |any| any))
    }
}

/// Sums; once more in wider lanes where a lane may have overflowed.
fn sums<T: Element, B: Element>(
    dims: &Dims<'_, T>,
    finish: impl Fn(T::Accumulator) -> B + Sync,
) -> Tensor<B> {
    let out = dims.fold(&T::sum(), &finish);
    let finite = |x: &B| x.as_float().is_none_or(f64::is_finite);
    if T::NAME != "f32" || out.elements().iter().all(finite) {
        return out;
    }
    dims.fold(&T::wide_sum(), finish)
}

/// Undoing a broadcast.
impl<T: Float> Tensor<T> {
    /// Sums `self` to `shape`, undoing a broadcast from `shape` to the shape of `self`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if `shape` does not broadcast to the shape of `self`.
    pub fn sum_to(&self, shape: &[usize]) -> Result<Self> {
        if self.shape() == shape {
            return Ok(self.clone());
        }
        // The rule of expanding, read backwards: what it would repeat is summed.
        if Shape::broadcast("sum_to", shape, self.shape())?[..] != *self.shape() {
            let (lhs, rhs) = (shape.to_vec(), self.shape().to_vec());
            return Err(Error::ShapeMismatch { op: "sum_to", lhs, rhs });
        }
        let lead = self.rank() - shape.len();
        let reduced = |d: usize| d < lead || (shape[d - lead] == 1 && self.shape()[d] != 1);
        let reduced: Vec<bool> = (0..self.rank()).map(reduced).collect();
        sums(&Dims { x: self, reduced, keepdim: true, count: 0 }, T::settle).reshape(shape)
    }
}

fn logsumexp<T: Float>(dims: &Dims<'_, T>) -> Tensor<T> {
    let (over, kept): (Vec<usize>, Vec<usize>) = (0..dims.x.rank()).partition(|&d| dims.reduced[d]);
    let shape: Shape = kept.iter().map(|&d| dims.x.shape()[d]).collect();
    let order: Vec<usize> = kept.into_iter().chain(over).collect();
    let x = Tensor { buffer: dims.x.buffer.clone(), layout: dims.x.layout.permuted(&order) };
    let matrix = Shape::from([shape.numel(), dims.count]);
    let x = match x.layout.reshape(&matrix) {
        Some(layout) => Tensor { buffer: x.buffer, layout },
        None => Tensor { buffer: x.contiguous().buffer, layout: Layout::contiguous(matrix) },
    };
    let rows = softmax::logsumexp(&x, 1);
    dims.kept(Tensor::build(shape, |out| {
        out.iter_mut().zip(rows).for_each(|(o, lse)| *o = T::from_f64(lse));
    }))
}

macro_rules! extrema {
    ($($all:ident $dims:ident $dim:ident $arg:ident $arg_dim:ident: $word:literal $torch:literal $arg_torch:literal $fold:ident;)+) => {
        /// Extrema. NaN counts as the extremum; the index is that of the first of equal elements.
        impl<T: Number> Tensor<T> {$(
            #[doc = concat!("The ", $word, " element. `", $torch, "`.")]
            ///
            /// # Errors
            /// [`Error::InvalidArgument`] if there is none.
            pub fn $all(&self) -> Result<Self> {
                Ok(Dims::all(self).not_empty(stringify!($all))?.fold(&T::$fold(), |x| x))
            }

            #[doc = concat!("The ", $word, " element over `dims`. `torch.", stringify!($dims), "`.")]
            ///
            /// # Errors
            /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice, or if
            /// there is no element.
            pub fn $dims(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
                let dims = Dims::new(stringify!($dims), self, dims, keepdim)?;
                Ok(dims.not_empty(stringify!($dims))?.fold(&T::$fold(), |x| x))
            }

            #[doc = concat!("The ", $word, " element along `dim`, and its index. `", $torch, "(dim)`.")]
            ///
            /// # Errors
            /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the dim is empty.
            pub fn $dim(&self, dim: isize, keepdim: bool) -> Result<(Self, Tensor<i64>)> {
                let index = self.position(stringify!($dim), dim, &T::$fold())?;
                let value = self.gather(dim, &index)?;
                if keepdim {
                    return Ok((value, index));
                }
                Ok((value.squeeze(dim)?, index.squeeze(dim)?))
            }

            #[doc = concat!("The row-major index of the ", $word, " element. `", $arg_torch, "`.")]
            ///
            /// # Errors
            /// [`Error::InvalidArgument`] if there is none.
            pub fn $arg(&self) -> Result<Tensor<i64>> {
                self.reshape([self.numel()])?.$arg_dim(0, false)
            }

            #[doc = concat!("The index of the ", $word, " element along `dim`. `", $arg_torch, "`.")]
            ///
            /// # Errors
            /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if the dim is empty.
            pub fn $arg_dim(&self, dim: isize, keepdim: bool) -> Result<Tensor<i64>> {
                let index = self.position(stringify!($arg), dim, &T::$fold())?;
                if keepdim { Ok(index) } else { index.squeeze(dim) }
            }
        )+}
    };
}

extrema! {
    max amax max_dim argmax argmax_dim: "largest" "torch.max" "torch.argmax" largest;
    min amin min_dim argmin argmin_dim: "smallest" "torch.min" "torch.argmin" smallest;
}

impl<T: Number> Tensor<T> {
    /// The index along `dim` of the first element that is what `fold` makes of them; the dim stays.
    fn position(&self, op: &'static str, dim: isize, fold: &FoldFns<T, T>) -> Result<Tensor<i64>> {
        let extremum = Dims::new(op, self, &[dim], true)?.not_empty(op)?.fold(fold, |x| x);
        let d = self.resolve_dim(op, dim)?;
        let rows = self.transpose(d as isize, -1)?.contiguous();
        let extrema = extremum.transpose(d as isize, -1)?.contiguous();
        let index = Tensor::<i64>::build(extrema.layout.shape.clone(), |out| {
            let size = self.shape()[d];
            let rows = rows.elements().chunks_exact(size).zip(extrema.elements());
            for (o, (row, extremum)) in out.iter_mut().zip(rows) {
                let same = |x: &T| x.order(extremum).is_eq();
                *o = row.iter().position(same).map_or(0, |i| i as i64);
            }
        });
        Ok(index.transpose(d as isize, -1)?.contiguous())
    }
}

/// Spread and length.
impl<T: Float> Tensor<T> {
    /// Variance of all elements: `Σ (x − mean)²/(n − correction)`; NaN where `n ≤ correction` leaves
    /// nothing. PyTorch's default correction is 1, NumPy's 0. `torch.var`.
    #[must_use]
    pub fn var(&self, correction: usize) -> Self {
        spread(&Dims::all(self), correction, |var| var)
    }

    /// Variance over `dims`. `torch.var`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
    pub fn var_dim(&self, dims: &[isize], correction: usize, keepdim: bool) -> Result<Self> {
        Ok(spread(&Dims::new("var", self, dims, keepdim)?, correction, |var| var))
    }

    /// Standard deviation of all elements, the root of [`Tensor::var`]. `torch.std`.
    #[must_use]
    pub fn std(&self, correction: usize) -> Self {
        spread(&Dims::all(self), correction, f64::sqrt)
    }

    /// Standard deviation over `dims`. `torch.std`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
    pub fn std_dim(&self, dims: &[isize], correction: usize, keepdim: bool) -> Result<Self> {
        Ok(spread(&Dims::new("std", self, dims, keepdim)?, correction, f64::sqrt))
    }

    /// Length of all elements as a vector: `(Σ |x|ᵖ)^(1/p)`; the largest magnitude for p = ∞, the
    /// smallest for −∞, the number of elements that are not 0 for p = 0. Neither overflows nor
    /// underflows on the way. `torch.linalg.vector_norm`.
    #[must_use]
    pub fn norm(&self, p: f64) -> Self {
        length(&Dims::all(self), p)
    }

    /// Length over `dims`. `torch.linalg.vector_norm`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::InvalidArgument`] if a dim is named twice.
    pub fn norm_dim(&self, p: f64, dims: &[isize], keepdim: bool) -> Result<Self> {
        Ok(length(&Dims::new("norm", self, dims, keepdim)?, p))
    }
}

/// The two-pass algorithm, corrected for the rounding of the mean (Chan, Golub & LeVeque, The American
/// Statistician 37, 1983).
fn spread<T: Float>(dims: &Dims<'_, T>, correction: usize, finish: fn(f64) -> f64) -> Tensor<T> {
    let n = dims.count as f64;
    let freedom =
        dims.count.checked_sub(correction).filter(|&f| f > 0).map_or(f64::NAN, |f| f as f64);
    let mean = sums(&dims.of(dims.x, true), |sum| T::from_f64(sum / n));
    let away = dims.x - &mean;
    let away = dims.of(&away, dims.keepdim);
    let drift: Tensor<f64> = sums(&away, |sum| sum);
    let squares: Tensor<f64> = away.fold(&T::squares(), |sum| sum);
    let var = (squares - &drift * &drift / n) / freedom;
    // Below zero by rounding alone.
    convert(&var, |var| T::from_f64(finish(if var < 0.0 { 0.0 } else { var })))
}

/// `f` of each element of a row-major tensor.
fn convert<T: Float>(x: &Tensor<f64>, f: impl Fn(f64) -> T) -> Tensor<T> {
    Tensor::build(x.layout.shape.clone(), |out| {
        out.iter_mut().zip(x.elements()).for_each(|(o, &x)| *o = f(x));
    })
}

/// `(Σ |x|ᵖ)^(1/p)`.
fn length<T: Float>(dims: &Dims<'_, T>, p: f64) -> Tensor<T> {
    let magnitudes = || elementwise::map(dims.x, T::number_unary(NumberUnary::Abs));
    if p == 2.0 {
        let squares: Tensor<f64> = dims.fold(&T::squares(), |sum| sum);
        // Squares of `f64` may leave its range where the length does not.
        let safe = |&s: &f64| {
            s == 0.0 && T::NAME == "f32" || s > 1e-280 && s < f64::INFINITY || s.is_nan()
        };
        if squares.elements().iter().all(safe) {
            return convert(&squares, |sum| T::from_f64(sum.sqrt()));
        }
    } else if p == 1.0 {
        return dims.fold(&T::magnitudes(), T::from_f64);
    } else if p == 0.0 {
        let zero = T::compare(Comparison::Ne);
        let others = elementwise::zip_scalar(dims.x, T::ZERO, Side::Left, zero);
        return dims.of(&others, dims.keepdim).fold(&bool::sum(), |n| T::from_f64(n as f64));
    } else if p == f64::INFINITY {
        return dims.of(&magnitudes(), dims.keepdim).fold(&T::largest(), |x| x.larger(T::ZERO));
    } else if p == f64::NEG_INFINITY {
        return dims.of(&magnitudes(), dims.keepdim).fold(&T::smallest(), |x| x);
    }
    // Powers of numbers of size 1: those closest to the result are scaled to 1.
    let x: Tensor<f64> = magnitudes().cast();
    let extremum = if p > 0.0 { f64::largest() } else { f64::smallest() };
    let scale: Tensor<f64> = dims.of(&x, true).fold(&extremum, |m| {
        // A power of two, so that scaling does not round.
        let power = f64::from_bits(m.to_bits() & (0x7ff << 52)).max(f64::MIN_POSITIVE);
        if m > 0.0 && m < f64::INFINITY { power } else { 1.0 }
    });
    let powers = elementwise::zip_scalar(&(x / &scale), p, Side::Left, f64::binary(Binary::Pow));
    let sums: Tensor<f64> = dims.of(&powers, true).fold(&f64::sum(), |sum| sum.powf(p.recip()));
    let lengths: Tensor<T> = convert(&(sums * scale), T::from_f64);
    dims.kept(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_every_set_of_dims_match_naive() {
        let shape = [3, 4, 5];
        let x = Tensor::from_vec((0..60).map(|i| (i * 7 % 23) as f64).collect(), shape).unwrap();
        let views = [
            x.clone(),
            x.permute(&[2, 0, 1]).unwrap(),
            x.narrow(1, 1, 2).unwrap(),
            x.narrow(2, 0, 1).unwrap().expand([3, 4, 6]).unwrap(),
        ];
        for v in views {
            let dense = v.to_vec();
            for mask in 0..8_usize {
                let dims: Vec<isize> = (0..3).filter(|d| mask >> d & 1 == 1).collect();
                let got = v.sum_dim(&dims, true).unwrap();
                let mut want = vec![0.0; got.numel()];
                for (i, value) in dense.iter().enumerate() {
                    let (mut rest, mut at, mut step) = (i, 0, 1);
                    for d in (0..3).rev() {
                        let index = rest % v.shape()[d];
                        rest /= v.shape()[d];
                        if mask >> d & 1 == 0 {
                            at += index * step;
                            step *= v.shape()[d];
                        }
                    }
                    want[at] += value;
                }
                assert_eq!(got.to_vec(), want, "{:?} over {dims:?}", v.shape());
                assert_eq!(v.sum_dim(&dims, false).unwrap().to_vec(), want);
            }
        }
    }

    #[test]
    fn equal_numbers_keep_their_digits() {
        let x = Tensor::<f32>::full([40, 70], 0.7).unwrap();
        // 2u for the three additions in a lane, u for the final rounding (u = 2⁻²⁴).
        let close = |got: f32, want: f64| (f64::from(got) / want - 1.0).abs() <= 3.0 * 5.97e-8;
        let each = f64::from(0.7_f32);
        assert!(close(x.mean().item().unwrap(), each));
        assert!(x.sum_dim(&[0], false).unwrap().to_vec().iter().all(|&s| close(s, 40.0 * each)));
        assert!(x.sum_dim(&[1], false).unwrap().to_vec().iter().all(|&s| close(s, 70.0 * each)));
    }

    /// Small under Miri, where every element takes a microsecond.
    const MANY: usize = if cfg!(miri) { 600 } else { 100_000_000 };

    #[test]
    fn a_hundred_million_ones_are_a_hundred_million_along_any_dim() {
        let want = MANY as f32;
        let x = Tensor::<f32>::ones([MANY]).unwrap();
        assert_eq!((x.sum().item().unwrap(), x.mean().item().unwrap()), (want, 1.0));
        for shape in [[MANY, 1], [1, MANY]] {
            let x = x.view(shape).unwrap();
            for d in 0..2 {
                let sums = x.sum_dim(&[d], false).unwrap();
                let n = shape[d as usize] as f32;
                assert!(sums.to_vec().iter().all(|&s| s == n), "{shape:?} along {d}");
            }
        }
        for shape in [[MANY / 10, 10], [10, MANY / 10], [MANY / 100, 100]] {
            let x = x.view(shape).unwrap();
            for x in [&x, &x.transpose(0, 1).unwrap()] {
                for d in 0..2 {
                    let n = x.shape()[d as usize] as f32;
                    let sums = x.sum_dim(&[d], false).unwrap();
                    assert!(sums.to_vec().iter().all(|&s| s == n), "{:?} along {d}", x.shape());
                }
            }
        }
        let repeated = Tensor::scalar(1.0_f32).expand([MANY]).unwrap();
        assert_eq!(repeated.sum().item().unwrap(), want);
    }

    #[test]
    fn sums_and_means_near_the_largest_number_do_not_overflow_on_the_way() {
        let x = Tensor::full([1000], f32::MAX).unwrap();
        assert_eq!(x.mean().item().unwrap(), f32::MAX);
        assert_eq!(x.sum().item().unwrap(), f32::INFINITY);
        let both = Tensor::cat(&[&x, &-&x], 0).unwrap();
        assert_eq!(both.sum().item().unwrap(), 0.0);
    }

    #[test]
    fn spreads_and_lengths_of_awkward_numbers() {
        // One part in 10⁷ apart: the rounding of the mean must not show.
        let x = Tensor::from([1e7_f32 + 1.0, 1e7 + 2.0, 1e7 + 4.0]);
        assert!((x.var(1).item().unwrap() - 7.0 / 3.0).abs() < 1e-6);
        assert!(
            x.var(3).item().unwrap().is_nan()
                && Tensor::from([1.0_f64]).std(1).item().unwrap().is_nan()
        );
        let huge = Tensor::from([3e200_f64, -4e200]);
        assert!((huge.norm(2.0).item().unwrap() / 5e200 - 1.0).abs() < 4e-16);
        assert!((huge * 1e-320).norm(2.0).item().unwrap() > 4.9e-120);
        let x = Tensor::from([[3.0_f32, -4.0], [0.0, 0.0]]);
        for (p, want) in [(0.0, [2.0, 0.0]), (1.0, [7.0, 0.0]), (2.0, [5.0, 0.0])] {
            assert_eq!(x.norm_dim(p, &[1], false).unwrap().to_vec(), want);
        }
        assert_eq!(x.norm_dim(f64::INFINITY, &[1], true).unwrap().to_vec(), [4.0, 0.0]);
        assert_eq!(x.norm_dim(f64::NEG_INFINITY, &[1], true).unwrap().to_vec(), [3.0, 0.0]);
        assert!((x.norm(3.0).item().unwrap() - 91.0_f32.cbrt()).abs() < 1e-6);
        assert_eq!(Tensor::<f32>::zeros([0]).unwrap().norm(2.0).item().unwrap(), 0.0);
    }

    #[test]
    fn logsumexp_of_infinities_and_nothing() {
        let (inf, lse) = (f32::INFINITY, |x: &[f32]| {
            Tensor::from_slice(x, [x.len()]).unwrap().logsumexp().item().unwrap()
        });
        assert_eq!((lse(&[]), lse(&[-inf, -inf]), lse(&[1.0, inf])), (-inf, -inf, inf));
        assert!(lse(&[1.0, f32::NAN]).is_nan());
        assert_eq!((lse(&[1000.0, 1000.0]), lse(&[2.5])), (1000.0 + std::f32::consts::LN_2, 2.5));
    }

    #[test]
    fn empty_sums_are_zero_and_empty_means_nan() {
        let x = Tensor::<f32>::zeros([0, 3]).unwrap();
        assert_eq!(x.sum_dim(&[0], false).unwrap().to_vec(), [0.0; 3]);
        assert_eq!(x.sum_dim(&[1], false).unwrap().to_vec(), []);
        assert!(x.mean().item().unwrap().is_nan());
        assert!(x.sum_dim(&[0, -2], false).is_err() && x.sum_dim(&[2], false).is_err());
    }

    #[test]
    fn argmax_takes_the_first_and_nan_as_largest() {
        let x = Tensor::from_vec(vec![1.0, 3.0, 3.0, f32::NAN, 2.0, 9.0], [2, 3]).unwrap();
        assert_eq!(x.argmax_dim(1, false).unwrap().to_vec(), [1, 0]);
        assert_eq!(x.argmax_dim(0, false).unwrap().to_vec(), [1, 0, 1]);
        assert!(Tensor::<f32>::zeros([2, 0]).unwrap().argmax_dim(1, false).is_err());
        assert_eq!(
            Tensor::<f32>::zeros([0, 2]).unwrap().argmax_dim(1, false).unwrap().shape(),
            [0]
        );
    }

    #[test]
    fn sum_to_undoes_broadcasting() {
        let g = Tensor::from_vec((0..6).map(f64::from).collect(), [2, 3]).unwrap();
        assert_eq!(g.sum_to(&[3]).unwrap().to_vec(), [3.0, 5.0, 7.0]);
        assert_eq!(g.sum_to(&[2, 1]).unwrap().to_vec(), [3.0, 12.0]);
        assert_eq!(g.sum_to(&[]).unwrap().to_vec(), [15.0]);
        assert_eq!(g.sum_to(&[1, 1]).unwrap().shape(), [1, 1]);
        assert!(g.sum_to(&[2]).is_err() && g.sum_to(&[1, 2, 3]).is_err());
        assert!(g.sum_to(&[usize::MAX / 2, 3]).is_err());
    }
}
