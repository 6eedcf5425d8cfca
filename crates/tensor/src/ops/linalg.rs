//! Products with the rank in their name: `dot`, `outer`, `mv`, `bmm`, and `addmm`. Nothing broadcasts
//! here but the addend; [`Tensor::matmul`] is the one that does.

use crate::element::Float;
use crate::error::{Error, Result};
use crate::kernels::matmul::MatRef;
use crate::kernels::walk;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Products of vectors and matrices.
impl<T: Float> Tensor<T> {
    /// Scalar product of two vectors: `y = Σ_k a_k·b_k`.
    ///
    /// # Shape
    /// `[K] · [K]` → `[]`; 0 where `K` is 0.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless both are vectors, [`Error::InnerDimensions`] if the K differ
    /// (sizes of 1 do not broadcast).
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let a = Tensor::from_vec(vec![1.0, 2.0, 3.0], [3])?;
    /// let b = Tensor::from_vec(vec![4.0, 5.0, 6.0], [3])?;
    /// assert_eq!(a.dot(&b)?.item()?, 32.0);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.dot`.
    #[doc(alias = "inner")]
    #[doc(alias = "vdot")]
    pub fn dot(&self, rhs: &Self) -> Result<Self> {
        let ([k], [rhs_k]) = (self.dims("dot")?, rhs.dims("dot")?);
        same_inner("dot", self, rhs, k, rhs_k)?;
        self.matmul(rhs)
    }

    /// Outer product of two vectors: `y_ij = a_i·b_j`.
    ///
    /// # Shape
    /// `[M], [N]` → `[M, N]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless both are vectors; [`Error::SizeOverflow`].
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let a = Tensor::from_vec(vec![1.0, 2.0], [2])?;
    /// let b = Tensor::from_vec(vec![3.0, 4.0, 5.0], [3])?;
    /// assert_eq!(a.outer(&b)?.to_vec(), [3.0, 4.0, 5.0, 6.0, 8.0, 10.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.outer`.
    #[doc(alias = "ger")]
    pub fn outer(&self, rhs: &Self) -> Result<Self> {
        let ([m], [n]) = (self.dims("outer")?, rhs.dims("outer")?);
        Shape::from([m, n]).checked_alloc("outer", size_of::<T>())?;
        self.unsqueeze(1)?.checked_mul(rhs)
    }

    /// A matrix times a vector: `y_i = Σ_k A_ik·v_k`.
    ///
    /// # Shape
    /// `[M, K] · [K]` → `[M]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless these are a matrix and a vector, [`Error::InnerDimensions`] if
    /// the K differ.
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?;
    /// let v = Tensor::from_vec(vec![1.0, 10.0], [2])?;
    /// assert_eq!(a.mv(&v)?.to_vec(), [21.0, 43.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.mv`.
    #[doc(alias = "matvec")]
    #[doc(alias = "gemv")]
    pub fn mv(&self, v: &Self) -> Result<Self> {
        let ([_, k], [rhs_k]) = (self.dims("mv")?, v.dims("mv")?);
        same_inner("mv", self, v, k, rhs_k)?;
        self.matmul(v)
    }

    /// One matrix product for each entry of a batch: `y_n = A_n·B_n`.
    ///
    /// # Shape
    /// `[N, M, K] · [N, K, P]` → `[N, M, P]`. The batch sizes must be equal: 1 does not broadcast.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless both have rank 3, [`Error::InnerDimensions`] if the K differ,
    /// [`Error::ShapeMismatch`] if the N differ; [`Error::SizeOverflow`].
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 1, 2])?;
    /// let b = Tensor::from_vec(vec![1.0, 1.0, 10.0, 1.0], [2, 2, 1])?;
    /// assert_eq!(a.bmm(&b)?.to_vec(), [3.0, 34.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.bmm`.
    #[doc(alias = "matmul")]
    pub fn bmm(&self, rhs: &Self) -> Result<Self> {
        for x in [self, rhs] {
            if x.rank() != 3 {
                let (expected, shape) = ("a batch of matrices", x.shape().to_vec());
                return Err(Error::RankMismatch { op: "bmm", expected, shape });
            }
        }
        let ([n, _, k], [rhs_n, rhs_k, _]) = (self.dims("bmm")?, rhs.dims("bmm")?);
        if n != rhs_n {
            let (lhs, rhs) = (self.shape().to_vec(), rhs.shape().to_vec());
            return Err(Error::ShapeMismatch { op: "bmm", lhs, rhs });
        }
        same_inner("bmm", self, rhs, k, rhs_k)?;
        self.matmul(rhs)
    }

    /// A matrix product added to this tensor: `y = β·self + α·(A·B)`.
    ///
    /// Where `beta` is 0, `self` is not read: its NaN and infinities do not spread. (An `alpha` of 0
    /// multiplies like any number.)
    ///
    /// # Shape
    /// `a: [M, K]`, `b: [K, N]`, `self` broadcasts to `[M, N]` → `[M, N]`.
    ///
    /// # Numerics
    /// With `alpha` 1 the product is summed on top of `β·self`, in one pass over the result.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless `a` and `b` are matrices, [`Error::InnerDimensions`] if the K
    /// differ, [`Error::ShapeMismatch`] if `self` does not broadcast to the product;
    /// [`Error::SizeOverflow`].
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?;
    /// let bias = Tensor::from_vec(vec![100.0, 200.0], [2])?;
    /// let y = bias.addmm(&a, &a, 0.5, 2.0)?;
    /// assert_eq!(y.to_vec(), [64.0, 120.0, 80.0, 144.0]);
    /// # Ok::<(), tensor::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.addmm(self, a, b, beta=beta, alpha=alpha)`.
    #[doc(alias = "gemm")]
    pub fn addmm(&self, a: &Self, b: &Self, beta: T, alpha: T) -> Result<Self> {
        let ([m, k], [b_k, n]) = (a.dims("addmm")?, b.dims("addmm")?);
        same_inner("addmm", a, b, k, b_k)?;
        let shape = Shape::from([m, n]);
        shape.checked_alloc("addmm", size_of::<T>())?;
        let Ok(input) = self.expand(&shape) else {
            let (lhs, rhs) = (self.shape().to_vec(), shape.to_vec());
            return Err(Error::ShapeMismatch { op: "addmm", lhs, rhs });
        };
        let (a, b) = (MatRef::of(a, a.layout.offset), MatRef::of(b, b.layout.offset));
        Ok(Tensor::build(shape, |out| {
            let read = beta != T::ZERO;
            if alpha == T::ONE {
                if read {
                    walk::gather_into((input.buffer.as_slice(), &input.layout), out);
                }
                if read && beta != T::ONE {
                    out.iter_mut().for_each(|y| *y *= beta);
                }
                T::gemm(out, a, b, read);
                return;
            }
            T::gemm(out, a, b, false);
            if read {
                let input = input.contiguous();
                out.iter_mut().zip(input.elements()).for_each(|(y, &c)| *y = alpha * *y + beta * c);
            } else {
                out.iter_mut().for_each(|y| *y *= alpha);
            }
        }))
    }
}

fn same_inner<T: Float>(
    op: &'static str,
    lhs: &Tensor<T>,
    rhs: &Tensor<T>,
    k: usize,
    rhs_k: usize,
) -> Result<()> {
    if k == rhs_k {
        return Ok(());
    }
    Err(Error::InnerDimensions { op, lhs: lhs.shape().to_vec(), rhs: rhs.shape().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(shape: &[usize]) -> Tensor<f64> {
        let n: usize = shape.iter().product();
        let data = (0..n).map(|i| (i * 7 % 11) as f64 - 5.0).collect();
        Tensor::from_vec(data, shape).unwrap()
    }

    fn sizes() -> &'static [usize] {
        if cfg!(miri) { &[0, 1, 7, 17] } else { &[0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 65, 257] }
    }

    #[test]
    fn vector_products_match_naive() {
        for &k in sizes() {
            let (a, b) = (whole(&[2 * k + 3]).narrow(0, 3, k).unwrap(), whole(&[k]));
            let one = Tensor::scalar(3.0).expand([k]).unwrap();
            let (x, y) = (a.to_vec(), b.to_vec());
            let sum: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            assert_eq!(a.dot(&b).unwrap().item().unwrap(), sum);
            assert_eq!(a.dot(&one).unwrap().item().unwrap(), 3.0 * x.iter().sum::<f64>());
            let outer = b.outer(&a).unwrap();
            assert_eq!(outer.shape(), [k, k]);
            let wanted: Vec<f64> = y.iter().flat_map(|y| x.iter().map(move |x| x * y)).collect();
            assert_eq!(outer.to_vec(), wanted);
            let m = whole(&[k, 5]).transpose(0, 1).unwrap();
            let rows = m.to_vec();
            let wanted = (0..5).map(|i| (0..k).map(|l| rows[i * k + l] * x[l]).sum());
            assert_eq!(m.mv(&a).unwrap().to_vec(), wanted.collect::<Vec<f64>>());
        }
    }

    #[test]
    fn bmm_is_matmul_without_broadcasting() {
        let (a, b) = (whole(&[3, 2, 4]), whole(&[3, 5, 4]).transpose(1, 2).unwrap());
        let y = a.bmm(&b).unwrap();
        for n in 0..3 {
            let part = |x: &Tensor<f64>| x.narrow(0, n, 1).unwrap().squeeze(0).unwrap();
            let wanted = part(&a).matmul(&part(&b)).unwrap();
            assert_eq!(part(&y).to_vec(), wanted.to_vec());
        }
        assert_eq!(whole(&[0, 2, 3]).bmm(&whole(&[0, 3, 4])).unwrap().shape(), [0, 2, 4]);
    }

    #[test]
    fn addmm_scales_and_broadcasts() {
        let (a, b) = (whole(&[3, 4]), whole(&[5, 4]).transpose(0, 1).unwrap());
        let product = a.matmul(&b).unwrap().to_vec();
        for shape in [&[3, 5][..], &[5], &[3, 1], &[1], &[]] {
            let c = whole(shape);
            let wide = c.expand([3, 5]).unwrap().to_vec();
            for (beta, alpha) in [(1.0, 1.0), (0.5, 1.0), (1.0, 2.0), (-2.0, 0.5), (0.0, 3.0)] {
                let y = c.addmm(&a, &b, beta, alpha).unwrap();
                let wanted = wide.iter().zip(&product).map(|(c, p)| beta * c + alpha * p);
                assert_eq!(y.to_vec(), wanted.collect::<Vec<_>>(), "{shape:?} {beta} {alpha}");
            }
        }
        // No terms: the addend alone.
        let y = whole(&[2, 2]).addmm(&whole(&[2, 0]), &whole(&[0, 2]), 2.0, 1.0).unwrap();
        assert_eq!(y.to_vec(), [-10.0, 4.0, -4.0, 10.0]);
    }

    #[test]
    fn an_addend_times_zero_is_not_read() {
        let bad = Tensor::from_vec(vec![f64::NAN, f64::INFINITY], [2]).unwrap();
        let a = whole(&[2, 2]);
        for alpha in [1.0, 2.0] {
            let y = bad.addmm(&a, &a, 0.0, alpha).unwrap();
            assert!(y.to_vec().iter().all(|y| y.is_finite()));
        }
        assert!(bad.addmm(&a, &a, 1.0, 1.0).unwrap().to_vec()[0].is_nan());
        let nan = Tensor::full([2, 2], f64::NAN).unwrap();
        assert!(a.addmm(&nan, &a, 1.0, 0.0).unwrap().to_vec()[0].is_nan());
    }

    #[test]
    fn rejects_what_does_not_fit() {
        let z = |shape: &[usize]| Tensor::<f32>::zeros(shape).unwrap();
        let text = |y: Result<Tensor<f32>>| y.map(|_| ()).unwrap_err().to_string();
        assert_eq!(text(z(&[1]).dot(&z(&[3]))), "dot: inner dimensions differ: [1] × [3]");
        assert_eq!(text(z(&[1, 3]).dot(&z(&[3]))), "dot: expected a vector, found shape [1, 3]");
        assert_eq!(text(z(&[]).outer(&z(&[3]))), "outer: expected a vector, found shape []");
        assert_eq!(text(z(&[2, 3]).mv(&z(&[2]))), "mv: inner dimensions differ: [2, 3] × [2]");
        assert_eq!(text(z(&[3]).mv(&z(&[3]))), "mv: expected a matrix, found shape [3]");
        assert_eq!(
            text(z(&[2, 3]).bmm(&z(&[2, 3, 4]))),
            "bmm: expected a batch of matrices, found shape [2, 3]"
        );
        assert_eq!(
            text(z(&[1, 2, 3]).bmm(&z(&[2, 3, 4]))),
            "bmm: shapes do not match: [1, 2, 3] and [2, 3, 4]"
        );
        assert_eq!(
            text(z(&[2, 2, 3]).bmm(&z(&[2, 4, 3]))),
            "bmm: inner dimensions differ: [2, 2, 3] × [2, 4, 3]"
        );
        assert_eq!(
            text(z(&[3, 2]).addmm(&z(&[2, 3]), &z(&[3, 4]), 1.0, 1.0)),
            "addmm: shapes do not match: [3, 2] and [2, 4]"
        );
        assert_eq!(
            text(z(&[2, 3]).addmm(&z(&[1, 3]), &z(&[3, 3]), 1.0, 1.0)),
            "addmm: shapes do not match: [2, 3] and [1, 3]"
        );
        assert_eq!(
            text(z(&[4]).addmm(&z(&[2, 3]), &z(&[2, 4]), 1.0, 1.0)),
            "addmm: inner dimensions differ: [2, 3] × [2, 4]"
        );
        let wide = Tensor::scalar(1.0_f32).expand([1 << 31]).unwrap();
        assert!(matches!(wide.outer(&wide), Err(Error::SizeOverflow { op: "outer", .. })));
    }
}
