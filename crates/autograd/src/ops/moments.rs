//! Variance and standard deviation: `v = Σ (x − m)²/(n − c)`, `dv = g·2(x − m)/(n − c)`.

use tensor::kernels::{Map, Zip3};
use tensor::{Float, Result};

use super::total;
use crate::tape::{Save, record};
use crate::var::Var;

/// `(x − m)·g`.
struct Centred;
impl<T: Float> Zip3<T, T> for Centred {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, m: T, g: T) -> T {
        (x - m) * g
    }
}

/// 1 at 0, else 0.
pub(super) struct IsZero;
impl<T: Float> Map<T> for IsZero {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T) -> T {
        if x == T::ZERO { T::ONE } else { T::ZERO }
    }
}

impl<T: Float> Var<T> {
    /// Variance of all n elements, of rank 0: `y = Σ (x − mean)²/(n − correction)`,
    /// `dx = g·2(x − mean)/(n − correction)`; both NaN where `n ≤ correction`. Saves the input. Any
    /// order. `torch.var`, whose default correction is 1.
    ///
    /// # Numerics
    /// As [`Var::var_dim`].
    #[must_use]
    #[track_caller]
    pub fn var(&self, correction: usize) -> Self {
        total(self.var_dim(&self.all_dims(), correction, false))
    }

    /// Variance over `dims`, n elements each, which stay with size 1 where `keepdim`:
    /// `dx = g·2(x − mean)/(n − correction)`. Value and gradient are NaN where `n ≤ correction`
    /// (PyTorch: ∞ where the numerator is not 0). Saves the input. Any order.
    /// `torch.var(dim, correction, keepdim)`.
    ///
    /// # Numerics
    /// The mean is taken twice, the second time of what the first left: a large mean costs no digits.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    #[track_caller]
    pub fn var_dim(&self, dims: &[isize], correction: usize, keepdim: bool) -> Result<Self> {
        let y = self.value().var_dim(dims, correction, keepdim)?;
        let (kept, dims) = (self.keepdim_shape(dims)?, dims.to_vec());
        let n = self.value().numel() / kept.numel().max(1);
        let scale = T::from_f64(2.0 * share_of(n, correction));
        record("var", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            let g = (g * scale).reshape(&kept)?;
            sink.add(0, ctx.saved(0).times_centred(g, &dims, ctx.create_graph())?)
        })
    }

    /// Standard deviation of all n elements, of rank 0: the root of [`Var::var`],
    /// `dx = g·(x − mean)/((n − correction)·y)`; 0 where y is 0, as PyTorch. Saves input and output.
    /// Any order. `torch.std`, whose default correction is 1.
    #[must_use]
    #[track_caller]
    pub fn std(&self, correction: usize) -> Self {
        total(self.std_dim(&self.all_dims(), correction, false))
    }

    /// Standard deviation over `dims`, n elements each, which stay with size 1 where `keepdim`: the
    /// root of [`Var::var_dim`], `dx = g·(x − mean)/((n − correction)·y)`. Where y is 0, there is a
    /// kink; the gradient is 0 there, as PyTorch. Saves input and output. Any order.
    /// `torch.std(dim, correction, keepdim)`.
    ///
    /// # Errors
    /// As [`Var::var_dim`].
    #[track_caller]
    pub fn std_dim(&self, dims: &[isize], correction: usize, keepdim: bool) -> Result<Self> {
        let y = self.value().std_dim(dims, correction, keepdim)?;
        let (kept, dims) = (self.keepdim_shape(dims)?, dims.to_vec());
        let n = self.value().numel() / kept.numel().max(1);
        let scale = T::from_f64(share_of(n, correction));
        let saved = [Save::Input(self), Save::Output];
        record("std", [self.node()], saved, y, move |ctx, g, sink| {
            let (x, g) = (ctx.saved(0), (g * scale).reshape(&kept)?);
            if n == 0 {
                // y is NaN, but there is no element for it to reach.
                return sink.add(0, g.expand(x.shape())?);
            }
            let g = g.over_length(&ctx.saved(1).reshape(&kept)?)?;
            sink.add(0, x.times_centred(g, &dims, ctx.create_graph())?)
        })
    }

    /// `(x − mean)·g`, with g of size 1 in each of `dims`.
    fn times_centred(&self, g: Self, dims: &[isize], create_graph: bool) -> Result<Self> {
        // The first mean, rounded, only brings the numbers near 0, where the second is exact: it is
        // a constant, because what it moves them by cancels.
        let near = self - &Var::constant(self.value().mean_dim(dims, true)?);
        let drift = near.mean_dim(dims, true)?;
        if create_graph {
            return Ok((near - drift) * g);
        }
        let (near, drift, g) = (near.into_value(), drift.into_value(), g.into_value());
        Ok(Var::constant(near.zip3::<T, Centred>("var", &drift, &g)?))
    }

    /// `g/y` for a y ≥ 0, and 0 where y is 0.
    pub(super) fn over_length(&self, y: &Self) -> Result<Self> {
        Ok(self.threshold_backward(y.value())? / y.one_for_zero())
    }

    /// `self`, with 1 in the place of 0.
    pub(super) fn one_for_zero(&self) -> Self {
        self + Var::constant(self.value().map::<T, IsZero>())
    }
}

/// `1/(n − c)`; NaN where that leaves nothing, and 0 for n = 0, where there is no element.
fn share_of(n: usize, correction: usize) -> f64 {
    if n == 0 {
        return 0.0;
    }
    n.checked_sub(correction).filter(|&f| f > 0).map_or(f64::NAN, |f| 1.0 / f as f64)
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("var", |x| Ok(x.var(0))),
        Row::of("var", &[&[5]], |x| Ok(x[0].var(1)))
            .and(&[&[2, 3]], |x| Ok((&x[0] * &x[0]).transpose(0, 1)?.var(2)))
            .and(&[&[3, 1]], |x| Ok(x[0].expand([2, 3, 4])?.var(1))),
        Row::along_dim("var_dim", |x, dim| x.var_dim(&[dim], 0, true)),
        Row::along_dim("var_dim", |x, dim| (x * x).var_dim(&[dim], 0, false)),
        Row::of("var_dim", &[&[2, 3, 4]], |x| x[0].var_dim(&[0, -1], 1, false))
            .and(&[&[2, 3, 4]], |x| x[0].var_dim(&[2, 1], 3, true))
            .and(&[&[2, 3]], |x| x[0].var_dim(&[], 0, true)),
        Row::unary("std", |x| Ok(x.std(0))),
        Row::of("std", &[&[5]], |x| Ok(x[0].std(1)))
            .and(&[&[2, 3]], |x| Ok((&x[0] * &x[0]).transpose(0, 1)?.std(2)))
            .and(&[&[3, 1]], |x| Ok(x[0].expand([2, 3, 4])?.std(1))),
        Row::along_dim("std_dim", |x, dim| x.std_dim(&[dim], 0, true)),
        Row::along_dim("std_dim", |x, dim| (x * x).std_dim(&[dim], 0, false)),
        Row::of("std_dim", &[&[2, 3, 4]], |x| x[0].std_dim(&[0, -1], 1, false))
            .and(&[&[2, 3, 4]], |x| x[0].std_dim(&[2, 1], 3, true))
            .and(&[&[2, 3]], |x| x[0].std_dim(&[], 0, true)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad;
    use crate::tape::Tape;
    use tensor::Tensor;

    fn gradient<T: Float>(x: &[T], f: fn(&Var<T>) -> Var<T>) -> Vec<T> {
        let x = Tape::new().var(Tensor::from_slice(x, [x.len()]).unwrap());
        f(&x).backward().unwrap().wrt(&x).unwrap().to_vec()
    }

    #[test]
    fn a_constant_row_has_gradient_zero() {
        assert_eq!(gradient(&[3.0; 4], |x| x.var(1)), [0.0; 4]);
        assert_eq!(gradient(&[3.0; 4], |x| x.std(1)), [0.0; 4]);
        let x = Tape::new().var(Tensor::from([3.0_f32, 3.0]));
        let g = grad(&[&x.std(0)], &[&x], &[], true).unwrap()[0].clone().unwrap();
        let second = grad(&[&g.sum()], &[&x], &[], false).unwrap();
        assert_eq!(second[0].as_ref().unwrap().value().to_vec(), [0.0; 2]);
    }

    #[test]
    fn too_few_elements_are_nan() {
        for f in [|x: &Var<f64>| x.var(1), |x: &Var<f64>| x.std(1), |x: &Var<f64>| x.var(2)] {
            assert!(gradient(&[3.0], f)[0].is_nan());
        }
        assert!(Var::<f64>::constant(Tensor::zeros([0]).unwrap()).var(0).item().unwrap().is_nan());
        assert!(gradient(&[1.0, f64::NAN], |x| x.std(0))[0].is_nan());
        assert!(gradient(&[1.0, f64::INFINITY], |x| x.var(0))[0].is_nan());
    }

    /// `f32` has 24 bits: at 2²³ + 1/3 the mean itself is off by a sixth of the spread.
    #[test]
    fn a_large_mean_costs_no_digits() {
        let offset = 8_388_608.0_f32;
        let x = [offset, offset + 1.0, offset];
        let want = [-1.0 / 3.0, 2.0 / 3.0, -1.0 / 3.0_f64];
        let var = gradient(&x, |x| x.var(1));
        let std = gradient(&x, |x| x.std(1));
        for i in 0..3 {
            assert!((f64::from(var[i]) - want[i]).abs() < 1e-7, "{var:?}");
            let slope = want[i] / 2.0 * 3.0_f64.sqrt();
            assert!((f64::from(std[i]) - slope).abs() < 2e-7, "{std:?}");
        }
    }

    #[test]
    fn errors_name_the_dim() {
        let x = Var::<f64>::constant(Tensor::zeros([2, 3]).unwrap());
        let text = x.var_dim(&[2], 1, false).unwrap_err().to_string();
        assert_eq!(text, "var: dim 2 is out of range for rank 2");
        assert!(x.std_dim(&[0, -2], 1, false).unwrap_err().to_string().starts_with("std: dims"));
    }
}
