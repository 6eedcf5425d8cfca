//! Running sums, products and recurrences along a dim, accumulated in `f64` or `i64`.

use rayon::prelude::*;

use crate::element::{Element, Float, Number};
use crate::error::{Error, Result};
use crate::kernels::walk::GRAIN;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Running sums and products.
impl<T: Element> Tensor<T> {
    /// `y_i = x_0 + … + x_i` along `dim`, each rounded once from `f64`; of integers and truth values
    /// as `i64`. `torch.cumsum`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn cumsum(&self, dim: isize) -> Result<Tensor<T::Sum>> {
        self.scan("cumsum", dim, <T::Accumulator as Element>::ZERO, Number::plus)
    }

    /// `y_i = x_0 · … · x_i` along `dim`, each rounded once from `f64`; of integers and truth values
    /// as `i64`. `torch.cumprod`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn cumprod(&self, dim: isize) -> Result<Tensor<T::Sum>> {
        self.scan("cumprod", dim, <T::Accumulator as Element>::ONE, Number::times)
    }

    fn scan(
        &self,
        op: &'static str,
        dim: isize,
        first: T::Accumulator,
        step: fn(T::Accumulator, T::Accumulator) -> T::Accumulator,
    ) -> Result<Tensor<T::Sum>> {
        let d = self.resolve_dim(op, dim)?;
        let inner: usize = self.shape()[d + 1..].iter().product();
        let block = self.shape()[d] * inner;
        let shape: Shape = self.layout.shape.clone();
        shape.checked_alloc(op, size_of::<T::Sum>())?;
        let x = self.contiguous();
        Ok(Tensor::build(shape, |out| {
            if out.is_empty() {
                return;
            }
            let scan = |(x, out): (&[T], &mut [T::Sum])| {
                if inner == 1 {
                    let mut total = first;
                    for (&x, o) in x.iter().zip(out) {
                        total = step(total, x.lift());
                        *o = T::settle(total);
                    }
                    return;
                }
                let mut totals = vec![first; inner];
                for (x, out) in x.chunks_exact(inner).zip(out.chunks_exact_mut(inner)) {
                    for ((total, &x), o) in totals.iter_mut().zip(x).zip(out) {
                        *total = step(*total, x.lift());
                        *o = T::settle(*total);
                    }
                }
            };
            if out.len() >= 2 * GRAIN {
                x.elements().par_chunks(block).zip(out.par_chunks_mut(block)).for_each(scan);
            } else {
                x.elements().chunks(block).zip(out.chunks_mut(block)).for_each(scan);
            }
        }))
    }
}

/// Running totals of floats.
impl<T: Float> Tensor<T> {
    /// `y_0 = x_0`, `y_i = x_i + a_i·y_{i−1}` along `dim`, with the y before it in `f64`, each rounded
    /// once; `a_0` is not used.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`]; [`Error::ShapeMismatch`] if `factors` has another shape.
    pub fn linear_recurrence(&self, factors: &Self, dim: isize) -> Result<Self> {
        let op = "linear_recurrence";
        let d = self.resolve_dim(op, dim)?;
        if factors.shape() != self.shape() {
            let (lhs, rhs) = (self.shape().to_vec(), factors.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        Ok(self.rows_in_turn(Some(factors), d, |first, y: &mut f64, x, a| {
            *y = if first { x } else { x + a * *y };
            *y
        }))
    }

    /// `y_i = ln(e^(x_0) + … + e^(x_i))` along `dim`, shifted by the largest so far, each rounded once
    /// from `f64`. `torch.logcumsumexp`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`].
    pub fn logcumsumexp(&self, dim: isize) -> Result<Self> {
        let d = self.resolve_dim("logcumsumexp", dim)?;
        // The largest so far, and the sum of the others relative to it.
        Ok(self.rows_in_turn(None, d, |first, (top, rest): &mut (f64, f64), x, _| {
            if first || *top == f64::NEG_INFINITY || x.is_nan() {
                (*top, *rest) = (x, 0.0);
            } else if x > *top {
                (*top, *rest) = (x, (*rest + 1.0) * (*top - x).exp());
            } else if *top < f64::INFINITY {
                *rest += (x - *top).exp();
            }
            *top + rest.ln_1p()
        }))
    }

    /// `step(is first, state, x_i, a_i)` is `y_i`, with a state for each line along dim `d`; where there
    /// is no `a`, x stands for it. Shapes are checked.
    fn rows_in_turn<S: Copy + Default>(
        &self,
        a: Option<&Self>,
        d: usize,
        step: impl Fn(bool, &mut S, f64, f64) -> f64 + Sync,
    ) -> Self {
        let inner: usize = self.shape()[d + 1..].iter().product();
        let block = self.shape()[d] * inner;
        let x = self.contiguous();
        let a = a.map_or_else(|| x.clone(), Self::contiguous);
        Self::build(self.layout.shape.clone(), |out| {
            if out.is_empty() {
                return;
            }
            let scan = |((x, a), out): ((&[T], &[T]), &mut [T])| {
                let mut states = vec![S::default(); inner];
                let rows = x.chunks_exact(inner).zip(a.chunks_exact(inner));
                for (i, ((x, a), out)) in rows.zip(out.chunks_exact_mut(inner)).enumerate() {
                    for (((state, &x), &a), o) in states.iter_mut().zip(x).zip(a).zip(out) {
                        *o = T::from_f64(step(i == 0, state, x.to_f64(), a.to_f64()));
                    }
                }
            };
            let (x, a) = (x.elements(), a.elements());
            if out.len() >= 2 * GRAIN {
                let blocks = x.par_chunks(block).zip(a.par_chunks(block));
                blocks.zip(out.par_chunks_mut(block)).for_each(scan);
            } else {
                x.chunks(block).zip(a.chunks(block)).zip(out.chunks_mut(block)).for_each(scan);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_logarithms_of_sums_reach_every_end() {
        let inf = f64::INFINITY;
        let y = |x: &[f64]| Tensor::from_slice(x, [x.len()]).unwrap().logcumsumexp(0).unwrap();
        assert_eq!(y(&[-inf, -inf, 1.0, -inf]).to_vec(), [-inf, -inf, 1.0, 1.0]);
        assert_eq!(y(&[1.0, inf, inf, -inf, 2.0]).to_vec(), [1.0, inf, inf, inf, inf]);
        let far = y(&[1e4, -1e4, 1e4]).to_vec();
        assert_eq!(far, [1e4, 1e4, 1e4 + std::f64::consts::LN_2]);
        let nan = y(&[0.0, f64::NAN, 1.0, inf, -inf]).to_vec();
        assert!(nan[0] == 0.0 && nan[1..].iter().all(|y| y.is_nan()));
        // Next to 0 the small terms are not lost.
        assert_eq!(y(&[0.0, -50.0]).to_vec()[1], (-50.0_f64).exp());
    }

    #[test]
    fn the_first_factor_of_a_recurrence_is_not_used() {
        let (x, a) = (Tensor::from([1.0_f64, 2.0, 3.0]), Tensor::from([f64::NAN, 2.0, -1.0]));
        assert_eq!(x.linear_recurrence(&a, 0).unwrap().to_vec(), [1.0, 4.0, -1.0]);
        assert!(x.linear_recurrence(&Tensor::from([1.0]), 0).is_err());
    }
}
