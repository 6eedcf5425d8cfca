//! Lengths of vectors, `y = (Σ |x|ᵖ)^(1/p)`, and what is divided by them.

use tensor::kernels::Zip3;
use tensor::{Float, Result, Shape, Tensor};

use super::total;
use crate::tape::{Save, record};
use crate::var::Var;

/// `g·x/y`, and 0 where y is 0.
struct Direction;
impl<T: Float> Zip3<T, T> for Direction {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, y: T, g: T) -> T {
        if y == T::ZERO { T::ZERO } else { x / y * g }
    }
}

impl<T: Float> Var<T> {
    /// Length of all elements as a vector, of rank 0: `y = (Σ |x|ᵖ)^(1/p)`,
    /// `dx = g·sign(x)·(|x|/y)^(p−1)`; the number of elements that are not 0 for p = 0, the largest
    /// magnitude for p = ∞, the smallest for −∞. Saves input and output. Any order.
    /// `torch.linalg.vector_norm`.
    ///
    /// The kinks are those of [`Var::norm_dim`].
    #[must_use]
    #[track_caller]
    pub fn norm(&self, p: f64) -> Self {
        let y = self.value().norm(p);
        total(self.length(p, &self.all_dims(), y))
    }

    /// Length over `dims`, which stay with size 1 where `keepdim`: `y = (Σ |x|ᵖ)^(1/p)`,
    /// `dx = g·sign(x)·(|x|/y)^(p−1)`. Saves input and output. Any order.
    /// `torch.linalg.vector_norm(x, p, dim, keepdim)`.
    ///
    /// At the zero vector the gradient is 0 for every p, and so it is at an element of 0 for p ≤ 1,
    /// as PyTorch; for 1 < p < 2 so are all higher derivatives there, of which the second is infinite.
    /// For p = ±∞, elements of equal magnitude share g evenly, as PyTorch. For p = 0 the gradient is 0.
    ///
    /// # Numerics
    /// Elements are divided by y before they are raised to a power: nothing overflows on the way.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange);
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if a dim is named twice.
    #[track_caller]
    pub fn norm_dim(&self, p: f64, dims: &[isize], keepdim: bool) -> Result<Self> {
        let y = self.value().norm_dim(p, dims, keepdim)?;
        self.length(p, dims, y)
    }

    /// `y = x/max(n, eps)` with n the length of x along `dim`: for p = 2, `dx = (g − y·Σ g·y)/n`, and
    /// `dx = g/eps` where n < eps. Saves x, y and the lengths. Any order.
    /// `torch.nn.functional.normalize`, where p = 2, dim = 1 and eps = 1e-12.
    ///
    /// # Errors
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn normalize(&self, p: f64, dim: isize, eps: f64) -> Result<Self> {
        let length = self.norm_dim(p, &[dim], true)?.at_least(T::from_f64(eps))?;
        self.checked_div(&length)
    }

    /// Cosine of the angle between x and z along `dim`, both broadcast:
    /// `y = Σ x·z/(max(‖x‖, eps)·max(‖z‖, eps))`, `dx = g·(ẑ − y·x̂)/‖x‖` with x̂ and ẑ of length 1, and
    /// `dx = g·ẑ/eps` where ‖x‖ < eps. (There PyTorch's gradient also follows the length, which its
    /// value does not.) Saves x, z, x̂, ẑ and the lengths. Any order.
    /// `torch.nn.functional.cosine_similarity`, where dim = 1 and eps = 1e-8.
    ///
    /// # Shape
    /// `[.., D, ..], [.., D, ..]` → `[.., ..]`; `dim` is one of the common shape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast,
    /// [`Error::DimOutOfRange`](crate::Error::DimOutOfRange).
    #[track_caller]
    pub fn cosine_similarity(&self, other: &Self, dim: isize, eps: f64) -> Result<Self> {
        let op = "cosine_similarity";
        let shape = Shape::broadcast(op, self.shape(), other.shape())?;
        let (x, z) = (self.expand(&shape)?, other.expand(&shape)?);
        x.value().resolve_dim(op, dim)?;
        let product = x.normalize(2.0, dim, eps)?.checked_mul(&z.normalize(2.0, dim, eps)?)?;
        product.sum_dim(&[dim], false)
    }

    /// Records `y`, the length of `self` over `dims`.
    #[track_caller]
    fn length(&self, p: f64, dims: &[isize], y: Tensor<T>) -> Result<Self> {
        let nodes = [self.node()];
        if p == 0.0 {
            return record("norm", nodes, [], y, |_, _, sink| sink.add_zero(0));
        }
        let (kept, dims) = (self.keepdim_shape(dims)?, dims.to_vec());
        record("norm", nodes, [Save::Input(self), Save::Output], y, move |ctx, g, sink| {
            let (x, y, g) = (ctx.saved(0), ctx.saved(1).reshape(&kept)?, g.reshape(&kept)?);
            let dx = if p.is_infinite() {
                let largest = g.shared_among_ties(&x.value().abs(), y.value(), &dims)?;
                largest * Var::constant(x.value().sign())
            } else if p == 1.0 {
                g * Var::constant(x.value().sign())
            } else if p == 2.0 && !ctx.create_graph() {
                let (y, g) = (y.value(), g.value());
                Var::constant(x.value().zip3::<T, Direction>("norm", y, g)?)
            } else {
                x.length_backward(&y, &g, p)?
            };
            sink.add(0, dx)
        })
    }

    /// `g·sign(x)·(|x|/y)^(p−1)` for a finite p other than 0 and 1.
    fn length_backward(&self, y: &Self, g: &Self, p: f64) -> Result<Self> {
        let (sign, ratio) = (Var::constant(self.value().sign()), self / y.one_for_zero());
        let g = g.threshold_backward(y.value())?;
        // So that p − 1 is a whole number in both types: then this is a polynomial, smooth at 0 where
        // p is even.
        if (2.0..8e6).contains(&p) && p.fract() == 0.0 {
            let power = ratio.power(p - 1.0)?;
            return Ok(if p % 2.0 == 0.0 { power * g } else { power * sign * g });
        }
        let ratio = ratio * &sign;
        let g = (g * sign).threshold_backward(ratio.value())?;
        Ok(ratio.one_for_zero().power(p - 1.0)? * g)
    }

    /// `xᵏ`, for an x other than 0 or a whole k ≥ 0: `dx = g·k·xᵏ⁻¹`.
    #[track_caller]
    fn power(&self, k: f64) -> Result<Self> {
        if k == 0.0 {
            return Ok(Var::constant(self.value().ones_like()));
        }
        if k == 1.0 {
            return Ok(self.clone());
        }
        let y = self.value().pow(T::from_f64(k))?;
        record("pow", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            sink.add(0, ctx.saved(0).power(k - 1.0)? * g * T::from_f64(k))
        })
    }

    /// The larger of `self` and `low`; where it is `low`, without gradient.
    #[track_caller]
    fn at_least(&self, low: T) -> Result<Self> {
        let y = self.value().maximum(low)?;
        let passes = self.value().lt(low)?.where_cond(T::ZERO, T::ONE)?;
        record("clamp_min", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.threshold_backward(&passes)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    let all = |x: &[Var<f64>]| -> Result<Vec<Var<f64>>> {
        let lengths = [2.0, 1.0, 0.0, 3.0, 4.0, 2.5, 0.5, -1.0, -2.0];
        Ok(lengths.iter().map(|&p| x[0].norm(p)).collect())
    };
    vec![
        Row::unary("norm", |x| Ok(x.norm(2.0))),
        Row::of("norm", &[&[4]], all).and(&[&[]], all).and(&[&[3, 2]], all),
        Row::of("norm", &[&[5]], |x| Ok([x[0].norm(f64::INFINITY), x[0].norm(-f64::INFINITY)])),
        Row::unary("norm", |x| Ok([x.norm(1.5), x.norm(3.0), x.norm(1.0), x.norm(-0.5)])),
        Row::along_dim("norm_dim", |x, dim| x.norm_dim(2.0, &[dim], true)),
        Row::along_dim("norm_dim", |x, dim| x.norm_dim(3.0, &[dim], false)),
        Row::along_dim("norm_dim", |x, dim| x.norm_dim(1.0, &[dim], false)),
        Row::of("norm_dim", &[&[2, 3, 4]], |x| x[0].norm_dim(2.0, &[0, -1], false))
            .and(&[&[2, 3, 4]], |x| x[0].norm_dim(f64::INFINITY, &[2, 1], true))
            .and(&[&[2, 3, 4]], |x| x[0].norm_dim(f64::NEG_INFINITY, &[0], false))
            .and(&[&[3, 1]], |x| x[0].expand([3, 4])?.norm_dim(f64::INFINITY, &[0, 1], false))
            .and(&[&[2, 3]], |x| x[0].norm_dim(2.0, &[], true))
            .and(&[&[2, 3]], |x| x[0].norm_dim(0.7, &[1], true)),
        Row::along_dim("normalize", |x, dim| x.normalize(2.0, dim, 1e-12)),
        Row::along_dim("normalize", |x, dim| (x * x).normalize(3.0, dim, 1.0)),
        Row::of("normalize", &[&[2, 3]], |x| x[0].normalize(1.0, 1, 1e-12))
            .and(&[&[2, 3]], |x| x[0].normalize(2.0, -1, 10.0))
            .and(&[&[2, 3]], |x| x[0].normalize(f64::INFINITY, 0, 1e-12)),
        Row::along_dim("cosine_similarity", |x, dim| {
            (x * x).cosine_similarity(&(x + 1.0), dim, 1e-8)
        }),
        Row::of("cosine_similarity", &[&[3, 4], &[3, 4]], |x| {
            x[0].cosine_similarity(&x[1], 1, 1e-8)
        })
        .and(&[&[2, 3, 1], &[4]], |x| x[0].cosine_similarity(&x[1], -1, 1e-8))
        .and(&[&[4], &[2, 1, 4]], |x| x[0].cosine_similarity(&x[1], 0, 1e-8))
        .and(&[&[3, 4], &[3, 4]], |x| x[0].cosine_similarity(&x[1], 0, 100.0))
        .and(&[&[2, 3]], |x| x[0].cosine_similarity(&x[0], 1, 1e-8)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{GradcheckOptions, gradgradcheck};
    use crate::tape::Tape;

    fn gradient<T: Float>(x: &[T], f: impl Fn(&Var<T>) -> Result<Var<T>>) -> Vec<T> {
        let x = Tape::new().var(Tensor::from_slice(x, [x.len()]).unwrap());
        let y = f(&x).unwrap();
        let grads = y.backward_with(&y.value().ones_like()).unwrap();
        match grads.wrt(&x) {
            Err(crate::Error::NoGradient { .. }) => vec![T::ZERO; x.value().numel()],
            dx => dx.unwrap().to_vec(),
        }
    }

    const LENGTHS: [f64; 10] =
        [2.0, 1.0, 0.0, 3.0, 1.5, 0.5, -1.0, -2.5, f64::INFINITY, f64::NEG_INFINITY];

    #[test]
    fn the_zero_vector_has_gradient_zero() {
        for p in LENGTHS {
            assert_eq!(gradient(&[0.0; 3], |x| Ok(x.norm(p))), [0.0; 3], "p = {p}");
            // In any order where it is taken at all.
            let x = Tape::new().var(Tensor::from([0.0, 0.0]));
            let g = crate::grad(&[&x.norm(p)], &[&x], &[], true).unwrap();
            let Some(g) = g[0].clone() else { continue };
            let second = crate::grad(&[&g.sum()], &[&x], &[], false).unwrap();
            let second = second[0].as_ref().map_or(vec![0.0; 2], |g| g.value().to_vec());
            assert_eq!(second, [0.0; 2], "p = {p}");
        }
    }

    #[test]
    fn an_element_of_zero_has_gradient_zero() {
        for p in LENGTHS {
            let dx = gradient(&[3.0_f64, 0.0, -4.0], |x| Ok(x.norm(p)));
            assert!(dx[1] == 0.0 && dx.iter().all(|d| d.is_finite()), "p = {p}: {dx:?}");
        }
        // For even p nothing is special at it.
        let x = Tensor::from([3.0, 0.0, -4.0]);
        for p in [2.0, 4.0] {
            let norm = |x: &[Var<f64>]| Ok(x[0].norm(p));
            let report =
                gradgradcheck(norm, std::slice::from_ref(&x), &GradcheckOptions::default());
            let report = report.unwrap();
            assert!(report.passed() && report.kinks.is_empty(), "{report}");
        }
    }

    #[test]
    fn elements_of_the_largest_magnitude_share_the_gradient() {
        let infinite = |x: &Var<f64>| Ok(x.norm(f64::INFINITY));
        assert_eq!(gradient(&[2.0, -2.0, 1.0], infinite), [0.5, -0.5, 0.0]);
        let least = |x: &Var<f64>| Ok(x.norm(f64::NEG_INFINITY));
        assert_eq!(
            gradient(&[2.0, -1.0, 1.0, 1.0], least),
            [0.0, -1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]
        );
    }

    #[test]
    fn nothing_overflows_on_the_way() {
        for p in [2.0, 3.0, 1.5] {
            let dx = gradient(&[1e200, 1e200], |x| Ok(x.norm(p)));
            let want = 2.0_f64.powf(1.0 / p - 1.0);
            assert!(dx.iter().all(|d| (d - want).abs() < 1e-15), "p = {p}: {dx:?}");
            let dx = gradient(&[1e-40_f32, -1e-40], |x| Ok(x.norm(p)));
            assert!((f64::from(dx[0]) - want).abs() < 1e-4 && dx[1] == -dx[0], "p = {p}: {dx:?}");
        }
        assert!(gradient(&[1.0, f64::NAN], |x| Ok(x.norm(2.0)))[0].is_nan());
    }

    #[test]
    fn below_eps_the_divisor_is_constant() {
        let x = [1e-3, 2e-3];
        assert_eq!(gradient(&x, |x| x.normalize(2.0, 0, 0.5)), [2.0, 2.0]);
        assert_eq!(gradient(&[0.0; 2], |x| x.normalize(2.0, 0, 0.5)), [2.0, 2.0]);
        let z = Var::constant(Tensor::from([3.0, 4.0]));
        let got = gradient(&[0.0; 2], |x| x.cosine_similarity(&z, 0, 0.5));
        assert!((got[0] - 1.2).abs() < 1e-15 && (got[1] - 1.6).abs() < 1e-15, "{got:?}");
        // In the direction of x itself nothing changes.
        let got = gradient(&[3.0, 4.0], |x| x.cosine_similarity(&z, 0, 1e-8));
        assert!(got.iter().all(|d| d.abs() < 1e-16), "{got:?}");
    }

    #[test]
    fn large_and_small_vectors_have_a_cosine() {
        let x = Var::constant(Tensor::from([1e30_f32, 1e30]));
        let z = Var::constant(Tensor::from([1e30_f32, 0.0]));
        let y = x.cosine_similarity(&z, 0, 1e-8).unwrap().item().unwrap();
        assert!((y - 0.5_f32.sqrt()).abs() < 1e-6, "{y}");
    }

    #[test]
    fn errors_name_shapes_and_dims() {
        let x = Var::<f64>::constant(Tensor::zeros([2, 3]).unwrap());
        let z = Var::constant(Tensor::zeros([2]).unwrap());
        let text = x.cosine_similarity(&z, 1, 1e-8).unwrap_err().to_string();
        assert_eq!(text, "cosine_similarity: shapes do not match: [2, 3] and [2]");
        let text = x.cosine_similarity(&x, 2, 1e-8).unwrap_err().to_string();
        assert_eq!(text, "cosine_similarity: dim 2 is out of range for rank 2");
        let text = x.norm_dim(2.0, &[0, 0], true).unwrap_err().to_string();
        assert_eq!(text, "norm: dims names dim 0 twice: [0, 0]");
        assert!(x.normalize(2.0, -3, 1e-12).is_err());
    }
}
