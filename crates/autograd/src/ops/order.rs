//! Orders and running totals along a dim. Where each element came from is a plain tensor.

use tensor::{Float, Result, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// Sorting.
impl<T: Float> Var<T> {
    /// The elements along `dim` in rising (or falling) order, and where each was; equal ones keep their
    /// order. `dx` is g where each element came from. Saves nothing. Any order.
    /// `torch.sort(stable=True)`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn sort(&self, dim: isize, descending: bool) -> Result<(Self, Tensor<i64>)> {
        let (y, from) = self.value().sort(dim, descending)?;
        Ok((self.gathered("sort", dim, from.clone(), y)?, from))
    }

    /// The `k` largest (or smallest) elements along `dim`, in falling (or rising) order, and where each
    /// was; of equal ones the first. `dx` is g where each element came from, 0 elsewhere. Saves nothing.
    /// Any order. `torch.topk`, which may take any of equal ones.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the dim has fewer than `k`.
    #[track_caller]
    pub fn topk(&self, k: usize, dim: isize, largest: bool) -> Result<(Self, Tensor<i64>)> {
        let (y, from) = self.value().topk(k, dim, largest)?;
        Ok((self.gathered("topk", dim, from.clone(), y)?, from))
    }
}

/// Running totals.
impl<T: Float> Var<T> {
    /// `y_i = x_0 + … + x_i` along `dim`: `dx_j = g_j + g_(j+1) + …`. Saves nothing. Any order.
    /// `torch.cumsum`.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn cumsum(&self, dim: isize) -> Result<Self> {
        let y = self.value().cumsum(dim)?;
        record("cumsum", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.flip(&[dim])?.cumsum(dim)?.flip(&[dim])?)
        })
    }

    /// `y_i = x_0 · … · x_i` along `dim`. Saves input and output. Any order. `torch.cumprod`.
    ///
    /// # Gradient
    /// `dx_j = y_(j−1)·s_j` with `s_j = g_j + x_(j+1)·s_(j+1)`: without a division, so zeros are like
    /// other numbers.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn cumprod(&self, dim: isize) -> Result<Self> {
        let y = self.value().cumprod(dim)?;
        let saved = [Save::Input(self), Save::Output];
        record("cumprod", [self.node()], saved, y, move |ctx, g, sink| {
            let (x, y) = (ctx.saved(0), ctx.saved(1));
            let s = g.recurrence_from_end(&x.next(dim)?, dim)?;
            sink.add(0, y.previous(dim, T::ONE)? * s)
        })
    }

    /// `y_i = ln(e^(x_0) + … + e^(x_i))` along `dim`. Saves input and output. Any order.
    /// `torch.logcumsumexp`.
    ///
    /// # Gradient
    /// `dx_j = e^(x_j − y_j)·s_j` with `s_j = g_j + e^(y_j − y_(j+1))·s_(j+1)`, whose factors are at
    /// most 1. NaN where y is −∞, and in a line that reaches +∞. Its relative error is about the
    /// distance of neighbouring floats at y, as in PyTorch.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn logcumsumexp(&self, dim: isize) -> Result<Self> {
        let y = self.value().logcumsumexp(dim)?;
        let saved = [Save::Input(self), Save::Output];
        record("logcumsumexp", [self.node()], saved, y, move |ctx, g, sink| {
            let (x, y) = (ctx.saved(0), ctx.saved(1));
            let decay = (&y - y.next(dim)?).exp();
            sink.add(0, (x - y).exp() * g.recurrence_from_end(&decay, dim)?)
        })
    }

    /// `y_0 = x_0`, `y_i = x_i + a_i·y_(i−1)` along `dim`, for factors of the same shape; `a_0` is not
    /// used. `dx_j = s_j` with `s_j = g_j + a_(j+1)·s_(j+1)`, `da_j = s_j·y_(j−1)`. Saves the factors
    /// and the output. Any order. Not in PyTorch.
    #[track_caller]
    fn linear_recurrence(&self, factors: &Self, dim: isize) -> Result<Self> {
        let y = self.value().linear_recurrence(factors.value(), dim)?;
        let nodes = [self.node(), factors.node()];
        let saved = [Save::Input(factors), Save::Output];
        record("linear_recurrence", nodes, saved, y, move |ctx, g, sink| {
            let (a, y) = (ctx.saved(0), ctx.saved(1));
            let s = g.recurrence_from_end(&a.next(dim)?, dim)?;
            if ctx.needs(1) {
                sink.add(1, &s * &y.previous(dim, T::ZERO)?)?;
            }
            sink.add(0, s)
        })
    }

    /// `s_j = x_j + a_j·s_(j+1)` along `dim`; the last factor is not used.
    #[track_caller]
    fn recurrence_from_end(&self, factors: &Self, dim: isize) -> Result<Self> {
        self.flip(&[dim])?.linear_recurrence(&factors.flip(&[dim])?, dim)?.flip(&[dim])
    }

    /// The entry after each along `dim`; the last one stays.
    #[track_caller]
    fn next(&self, dim: isize) -> Result<Self> {
        let n = self.shape()[self.value().resolve_dim("narrow", dim)?];
        let Some(rest) = n.checked_sub(1) else { return Ok(self.clone()) };
        Var::cat(&[&self.narrow(dim, 1, rest)?, &self.narrow(dim, rest, 1)?], dim)
    }

    /// The entry before each along `dim`, and `first` before the first.
    #[track_caller]
    fn previous(&self, dim: isize, first: T) -> Result<Self> {
        let d = self.value().resolve_dim("narrow", dim)?;
        let Some(rest) = self.shape()[d].checked_sub(1) else { return Ok(self.clone()) };
        let mut shape = self.shape().to_vec();
        shape[d] = 1;
        let first = Var::constant(Tensor::scalar(first).expand(shape)?);
        Var::cat(&[&first, &self.narrow(dim, 0, rest)?], dim)
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::along_dim("sort", |x, dim| Ok([(x * x).sort(dim, false)?.0, x.sort(dim, true)?.0])),
        Row::along_dim("topk", |x, dim| {
            let n = x.shape()[dim.rem_euclid(x.value().rank() as isize) as usize];
            Ok([(x * x).topk(n / 2, dim, true)?.0, x.topk(n.min(2), dim, false)?.0])
        }),
        Row::along_dim("cumsum", |x, dim| (x * x).cumsum(dim)),
        Row::along_dim("cumprod", |x, dim| x.cumprod(dim)),
        Row::along_dim("cumprod", |x, dim| (x * x).cumprod(dim)),
        Row::along_dim("logcumsumexp", |x, dim| (x * x).logcumsumexp(dim)),
        Row::along_dim("logcumsumexp", |x, dim| (x * 8.0).logcumsumexp(dim)),
        Row::of("linear_recurrence", &[&[3], &[3]], |x| x[0].linear_recurrence(&x[1], 0))
            .and(&[&[2, 3, 2], &[2, 3, 2]], |x| x[0].linear_recurrence(&x[1], 1))
            .and(&[&[3, 2], &[2, 3]], |x| x[0].transpose(0, 1)?.linear_recurrence(&x[1], -1))
            .and(&[&[4]], |x| x[0].linear_recurrence(&x[0], 0))
            .and(&[&[0, 3], &[0, 3]], |x| x[0].linear_recurrence(&x[1], 0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{GradcheckOptions, gradgradcheck};
    use crate::tape::Tape;

    fn gradient(
        x: &[f64],
        g: &[f64],
        f: impl Fn(&Var<f64>) -> Result<Var<f64>>,
    ) -> (Vec<f64>, Vec<f64>) {
        let x = Tape::new().var(Tensor::from_slice(x, [x.len()]).unwrap());
        let y = f(&x).unwrap();
        let g = Tensor::from_slice(g, [g.len()]).unwrap();
        (y.value().to_vec(), y.backward_with(&g).unwrap().wrt(&x).unwrap().to_vec())
    }

    #[test]
    fn zeros_in_a_running_product_are_like_other_numbers() {
        // dx_j = Σ_(i ≥ j) g_i·Π_(k ≤ i, k ≠ j) x_k
        let naive = |x: &[f64], g: &[f64]| -> Vec<f64> {
            let without =
                |i: usize, j: usize| -> f64 { (0..=i).filter(|&k| k != j).map(|k| x[k]).product() };
            (0..x.len()).map(|j| (j..x.len()).map(|i| g[i] * without(i, j)).sum()).collect()
        };
        let g = [1.0, -2.0, 3.0, 5.0];
        for x in [[2.0, 0.0, 3.0, 4.0], [0.0; 4], [0.0, 2.0, 0.0, 4.0], [1.0, 2.0, 3.0, 0.0]] {
            let (_, dx) = gradient(&x, &g, |x| x.cumprod(0));
            assert_eq!(dx, naive(&x, &g), "{x:?}");
        }
        // Of second derivatives, too.
        let x = Tensor::from([[2.0, 0.0, 3.0, 0.5], [0.0, 0.0, -1.0, 2.0]]);
        let row = |x: &[Var<f64>]| x[0].cumprod(1);
        let report = gradgradcheck(row, &[x], &GradcheckOptions::default()).unwrap();
        assert!(report.passed() && report.kinks.is_empty(), "{report}");
        let (_, dx) = gradient(&[f64::INFINITY, 1.0], &[1.0, 1.0], |x| x.cumprod(0));
        assert_eq!(dx, [2.0, f64::INFINITY]);
    }

    #[test]
    fn running_logarithms_of_sums_are_safe_far_out() {
        let inf = f64::INFINITY;
        let (y, dx) = gradient(&[1e4, -1e4, 1e4], &[1.0, 1.0, 1.0], |x| x.logcumsumexp(0));
        assert!(y.iter().all(|y| y.is_finite()));
        // y is rounded at 10⁴, and so are its differences from x.
        let bound = 1e4 * f64::EPSILON;
        assert!((dx[0] - 2.5).abs() < bound && (dx[2] - 0.5).abs() < bound, "{dx:?}");
        assert_eq!(dx[1], 0.0);
        let (y, dx) = gradient(&[0.0, -inf, 0.0], &[1.0, 1.0, 1.0], |x| x.logcumsumexp(0));
        assert!(y[1] == 0.0 && (dx[0] - 2.5).abs() < 1e-15 && dx[1] == 0.0, "{dx:?}");
        let (y, dx) = gradient(&[-inf, 0.0], &[1.0, 1.0], |x| x.logcumsumexp(0));
        assert!(y == [-inf, 0.0] && dx[0].is_nan() && dx[1] == 1.0);
    }

    #[test]
    fn of_equal_elements_the_first_gets_the_gradient() {
        let (y, dx) = gradient(&[1.0, 3.0, 3.0, 2.0], &[7.0], |x| Ok(x.topk(1, 0, true)?.0));
        assert_eq!((y, dx), (vec![3.0], vec![0.0, 7.0, 0.0, 0.0]));
        let x = [1.0, 3.0, f64::NAN, 3.0];
        let (_, dx) = gradient(&x, &[1.0, 2.0, 4.0, 8.0], |x| Ok(x.sort(0, true)?.0));
        assert_eq!(dx, [8.0, 2.0, 1.0, 4.0]);
        let x = Tape::new().var(Tensor::from([2.0_f32, 1.0]));
        assert_eq!(x.sort(0, false).unwrap().1.to_vec(), [1, 0]);
        let text = x.topk(3, 0, true).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text, "topk: k is 3, but dim 0 has 2 entries");
        assert!(x.cumsum(1).is_err() && x.cumprod(-2).is_err() && x.logcumsumexp(1).is_err());
    }
}
