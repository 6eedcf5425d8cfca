//! Running sums and products along a dim, accumulated in `f64` or `i64`.

use rayon::prelude::*;

use crate::element::{Element, Number};
use crate::error::Result;
use crate::kernels::walk::GRAIN;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Running sums and products.
impl<T: Element> Tensor<T> {
    /// `y_i = x_0 + … + x_i` along `dim`, each rounded once from `f64`; of integers and truth values
    /// as `i64`. `torch.cumsum`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    pub fn cumsum(&self, dim: isize) -> Result<Tensor<T::Sum>> {
        self.scan("cumsum", dim, <T::Accumulator as Element>::ZERO, Number::plus)
    }

    /// `y_i = x_0 · … · x_i` along `dim`, each rounded once from `f64`; of integers and truth values
    /// as `i64`. `torch.cumprod`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
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
