//! Products of elements: the derivative in one factor is the product of the others.

use tensor::{Float, PadMode, Result};

use super::reduce::Rows;
use super::total;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Product of all elements, of rank 0; 1 where there are none: `dx_i = g·Π_{j≠i} x_j`, right with
    /// any number of zeros. Saves input and output. Any order. `torch.prod`.
    ///
    /// # Numerics
    /// As [`Var::prod_dim`].
    #[must_use]
    #[track_caller]
    pub fn prod(&self) -> Self {
        total(self.prod_dim(&self.all_dims(), false))
    }

    /// Product over `dims`, which stay with size 1 where `keepdim`: `dx_i = g·Π_{j≠i} x_j` over the
    /// other elements of the row, right with any number of zeros. Saves input and output. Any order.
    /// `torch.prod(dim, keepdim)`, which takes one dim.
    ///
    /// # Numerics
    /// The gradient is `g·y/x` where no product is 0, nearly 0 or infinite. Elsewhere, and in higher
    /// orders, it is made of products alone, in a tree of depth log₂ n, whose partial products may
    /// leave the range of the type although the whole does not.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    #[track_caller]
    pub fn prod_dim(&self, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().prod_dim(dims, keepdim)?;
        let (kept, rows) = (self.keepdim_shape(dims)?, Rows::new("prod", self, dims)?);
        let saved = [Save::Input(self), Save::Output];
        record("prod", [self.node()], saved, y, move |ctx, g, sink| {
            let (x, y, g) = (ctx.saved(0), ctx.saved(1), g.reshape(&kept)?);
            // Small enough to be normal in both types, and to leave room for y/x.
            let ordinary = |y: &T| (1e-30..f64::INFINITY).contains(&y.to_f64().abs());
            if !ctx.create_graph() && y.value().to_vec().iter().all(ordinary) {
                return sink.add(0, y.reshape(&kept)? / x * g);
            }
            let others = rows.undo(&rows.of(&x)?.product_of_others()?)?;
            sink.add(0, others * g)
        })
    }

    /// For each element of a row of `[rows, n]` the product of the others, without division: the two
    /// halves are multiplied, and `Π others(a_i) = b_i·Π others(a_i·b_i)`.
    fn product_of_others(&self) -> Result<Self> {
        let n = self.shape()[1];
        if n < 2 {
            return Ok(Var::constant(self.value().ones_like()));
        }
        let half = n.div_ceil(2);
        let a = self.section(0, half)?;
        let mut b = self.section(half, n - half)?;
        if n % 2 == 1 {
            // A factor of 1 for the one that is left over.
            let one = b.value().ones_like().narrow(1, 0, 1)?;
            let padding = [(0, 0), (half - 1, 0)];
            let one = one.pad(&padding, PadMode::Constant(T::ZERO))?;
            b = b.within(0, half)? + Var::constant(one);
        }
        let others = (&a * &b).product_of_others()?;
        let of_b = (a * &others).section(0, n - half)?;
        Ok((b * others).within(0, n)? + of_b.within(half, n)?)
    }

    /// The columns from `start` on; `dx` is g within zeros.
    #[track_caller]
    fn section(&self, start: usize, length: usize) -> Result<Self> {
        let (y, size) = (self.value().narrow(1, start, length)?, self.shape()[1]);
        record("narrow", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.within(start, size)?)
        })
    }

    /// `self` as the columns from `start` on of a matrix of `size` columns, zeros elsewhere; `dx` is
    /// that section of g.
    #[track_caller]
    fn within(&self, start: usize, size: usize) -> Result<Self> {
        let length = self.shape()[1];
        let padding = [(0, 0), (start, size - start - length)];
        let y = self.value().pad(&padding, PadMode::Constant(T::ZERO))?;
        record("pad", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.section(start, length)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("prod", |x| Ok(x.prod())),
        Row::unary("prod", |x| Ok((x * x + 0.5).prod())).between(-1.0, 1.0),
        Row::along_dim("prod_dim", |x, dim| x.prod_dim(&[dim], true)),
        Row::along_dim("prod_dim", |x, dim| x.prod_dim(&[dim], false)),
        Row::of("prod_dim", &[&[2, 3, 4]], |x| x[0].prod_dim(&[0, 2], false))
            .and(&[&[2, 3, 4]], |x| x[0].prod_dim(&[-1, 1], true))
            .and(&[&[2, 3]], |x| (&x[0] * &x[0]).prod_dim(&[], false))
            .and(&[&[2, 7]], |x| x[0].prod_dim(&[1], false)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{GradcheckOptions, gradcheck, gradgradcheck};
    use crate::tape::Tape;
    use tensor::Tensor;

    fn gradient<T: Float>(x: &[T]) -> Vec<T> {
        let x = Tape::new().var(Tensor::from_slice(x, [x.len()]).unwrap());
        x.prod().backward().unwrap().wrt(&x).unwrap().to_vec()
    }

    #[test]
    fn zeros_leave_the_product_of_the_others() {
        assert_eq!(gradient(&[2.0, 3.0, 5.0]), [15.0, 10.0, 6.0]);
        assert_eq!(gradient(&[2.0, 0.0, 5.0]), [0.0, 10.0, 0.0]);
        assert_eq!(gradient(&[2.0, 0.0, 0.0, 7.0]), [0.0; 4]);
        assert_eq!(gradient(&[0.0_f32]), [1.0]);
        assert_eq!(gradient(&[0.0, f64::INFINITY]), [f64::INFINITY, 0.0]);
        assert!(gradient(&[f64::NAN, 2.0])[1].is_nan());
    }

    /// The product is a polynomial, so nothing is special at 0, in any order.
    #[test]
    fn derivatives_are_right_at_zeros() {
        for n in 1..8_usize {
            for zeros in 0..(1 << n.min(5)) {
                let at = |i: usize| if zeros >> i & 1 == 1 { 0.0 } else { 0.5 + i as f64 / 4.0 };
                let x = Tensor::from_vec((0..2 * n).map(|i| at(i % n)).collect(), [2, n]).unwrap();
                let f = |x: &[Var<f64>]| x[0].prod_dim(&[1], false);
                let options = GradcheckOptions::default();
                for report in [
                    gradcheck(f, std::slice::from_ref(&x), &options).unwrap(),
                    gradgradcheck(f, &[x], &options).unwrap(),
                ] {
                    assert!(report.passed() && report.kinks.is_empty(), "{n} {zeros} {report}");
                }
            }
        }
    }

    #[test]
    fn a_product_that_underflows_has_its_gradient_all_the_same() {
        let got = gradient(&[1e-200, 1e-200, 3.0]);
        let want = [3e-200, 3e-200, 0.0];
        for (g, w) in got.iter().zip(want) {
            assert!((g - w).abs() <= 1e-15 * w, "{got:?}");
        }
        assert_eq!(gradient(&[1e200, 1e200]), [1e200; 2]);
        let mixed = gradient(&[1e30_f32, 1e-30, 1e30, 1e-30])[0];
        assert!((mixed / 1e-30 - 1.0).abs() < 1e-6, "{mixed}");
    }
}
