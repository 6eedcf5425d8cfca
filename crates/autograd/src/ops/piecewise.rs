//! Piecewise linear activations (and hardswish, which is quadratic between its kinks). Their
//! gradients are one kernel, linear in the upstream gradient, for every order.

use tensor::{Error, Float, Result, Shape, Tensor};

use super::total;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// `y = x` for x > 0, else `slope·x`; PyTorch's default is 0.01. `dx = g` for x > 0, else
    /// `slope·g` (also at 0, as PyTorch). Saves the input. Any order.
    /// `torch.nn.functional.leaky_relu`.
    #[must_use]
    #[track_caller]
    pub fn leaky_relu(&self, slope: T) -> Self {
        let forward = |x: &Tensor<T>| total(x.zip::<T, LeakyRelu>("leaky_relu", slope));
        self.unary("leaky_relu", Save::Input(self), forward, move |_, x, g| {
            g.gate3::<SlopeBelow>("leaky_relu_backward", x.value(), &Tensor::scalar(slope))
        })
    }

    /// `y = x` for x > 0, else `w·x`, with one learned weight, or one for each channel.
    ///
    /// # Shape
    /// `x: [N, C, ..]`, `w: [C]`; or any x and a w of one element.
    ///
    /// # Gradient
    /// `dx = g` for x > 0, else `g·w` (also at 0, as PyTorch); `dw = Σ g·x` over the x ≤ 0 of its
    /// channel. Saves both. Any order.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] for a w of rank 2 or more; [`Error::ShapeMismatch`] unless it has one
    /// element or C; [`Error::MixedTapes`].
    ///
    /// # Reference
    /// `torch.nn.functional.prelu`; He et al., arXiv 1502.01852.
    #[track_caller]
    pub fn prelu(&self, weight: &Self) -> Result<Self> {
        let (op, rank) = ("prelu", self.value().rank());
        if weight.value().rank() > 1 {
            let shape = weight.shape().to_vec();
            return Err(Error::RankMismatch { op, expected: "a weight of rank 0 or 1", shape });
        }
        let n = weight.value().numel();
        let mut shape = vec![1; rank];
        if n != 1 {
            if rank < 2 || self.shape()[1] != n {
                let (lhs, rhs) = (self.shape().to_vec(), weight.shape().to_vec());
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
            shape[1] = n;
        }
        let w = weight.reshape(Shape::from(shape))?;
        let y = self.value().zip::<T, LeakyRelu>(op, w.value())?;
        let saved = [Save::Input(self), Save::Input(&w)];
        record(op, [self.node(), w.node()], saved, y, |ctx, g, sink| {
            let (x, w) = (ctx.saved(0), ctx.saved(1));
            if ctx.needs(1) {
                let below = (&g * &x).gate::<WhereNotPositive>("prelu_backward", x.value())?;
                sink.add_broadcast(1, below)?;
            }
            if !ctx.needs(0) {
                return Ok(());
            }
            if !ctx.create_graph() {
                let dx = g.value().zip3::<T, SlopeBelow>("prelu_backward", x.value(), w.value())?;
                return sink.add(0, Var::constant(dx));
            }
            let above = x.value().gt(T::ZERO)?;
            sink.add(0, g.where_cond(&above, &(&g * w))?)
        })
    }

    /// `y = min(max(x, low), high)`; PyTorch's defaults are −1 and 1. `dx = g` where `low < x < high`,
    /// else 0, the ends excluded, as PyTorch ([`Var::clamp`] includes them). Saves the input. Any
    /// order. `torch.nn.functional.hardtanh`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `low ≤ high`.
    #[track_caller]
    pub fn hardtanh(&self, low: T, high: T) -> Result<Self> {
        let ordered = low <= high;
        if !ordered {
            let reason = format!("must be in order, found [{}, {}]", low.to_f64(), high.to_f64());
            return Err(Error::InvalidArgument { op: "hardtanh", name: "range", reason });
        }
        let y = self.value().clamp(low, high)?;
        record("hardtanh", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            let inside = ctx.saved(0).value().zip3::<T, StrictlyInside>("hardtanh", low, high)?;
            sink.add(0, g.gate::<WherePositive>("hardtanh_backward", &inside)?)
        })
    }

    /// `y = min(max(x, 0), 6)`, `dx = g` where `0 < x < 6`, else 0 (also at both ends, as PyTorch).
    /// Saves the input. Any order. `torch.nn.functional.relu6`.
    #[must_use]
    #[track_caller]
    pub fn relu6(&self) -> Self {
        self.piecewise::<Relu6Backward>("relu6", Tensor::map::<T, Relu6>)
    }

    /// `y = min(max(x + 3, 0), 6)/6`, `dx = g/6` where `−3 < x < 3`, else 0 (also at both ends, as
    /// PyTorch). Saves the input. Any order. `torch.nn.functional.hardsigmoid`.
    #[must_use]
    #[track_caller]
    pub fn hardsigmoid(&self) -> Self {
        self.piecewise::<HardsigmoidBackward>("hardsigmoid", Tensor::map::<T, Hardsigmoid>)
    }

    /// `y = x·min(max(x + 3, 0), 6)/6`: 0 up to −3, x from 3 on. `dx = g·(x/3 + ½)` between them, 0 at
    /// and below −3, g at and above 3 (as PyTorch's vector code and its later versions). Saves the
    /// input. Any order. `torch.nn.functional.hardswish`.
    #[must_use]
    #[track_caller]
    pub fn hardswish(&self) -> Self {
        let forward = Tensor::map::<T, Hardswish>;
        let fused =
            |g: &Tensor<T>, x: &Tensor<T>| g.zip::<T, HardswishBackward>("hardswish_backward", x);
        self.unary_fused("hardswish", Save::Input(self), forward, fused, |x, g| {
            let three = T::from_f64(3.0);
            let (low, high) = (x.value().le(-three)?, x.value().ge(three)?);
            let slope = x / three + T::from_f64(0.5);
            Ok(g * slope.masked_fill(&low, T::ZERO)?.masked_fill(&high, T::ONE)?)
        })
    }

    /// `y = x − λ` for x > λ, `x + λ` for x < −λ, else 0; PyTorch's default is λ = ½. `dx = g` where
    /// `|x| > λ`, else 0 (also at ±λ, as PyTorch). Saves the input. Any order.
    /// `torch.nn.functional.softshrink`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless λ ≥ 0.
    #[track_caller]
    pub fn softshrink(&self, lambda: T) -> Result<Self> {
        let valid = lambda >= T::ZERO;
        if !valid {
            let reason = format!("must be at least 0, found {}", lambda.to_f64());
            return Err(Error::InvalidArgument { op: "softshrink", name: "lambda", reason });
        }
        let y = self.value().zip::<T, Softshrink>("softshrink", lambda)?;
        Ok(self.shrunk("softshrink", y, lambda))
    }

    /// `y = x` where `|x| > λ`, else 0; PyTorch's default is λ = ½. `dx = g` where `|x| > λ`, else 0
    /// (also at ±λ, as PyTorch). Saves the input. Any order. `torch.nn.functional.hardshrink`.
    #[must_use]
    #[track_caller]
    pub fn hardshrink(&self, lambda: T) -> Self {
        let y = total(self.value().zip::<T, Hardshrink>("hardshrink", lambda));
        self.shrunk("hardshrink", y, lambda)
    }

    /// `dx = g` where `|x| > λ`.
    #[track_caller]
    fn shrunk(&self, name: &'static str, y: Tensor<T>, lambda: T) -> Self {
        total(record(name, [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            let lambda = Tensor::scalar(lambda);
            sink.add(0, g.gate3::<WhereLarger>(name, ctx.saved(0).value(), &lambda)?)
        }))
    }
}

kernels! { Map(x: T) -> T:
    Relu6 = {
        let six = T::from_f64(6.0);
        let y = if x < T::ZERO { T::ZERO } else { x };
        if y > six { six } else { y }
    };
    Hardsigmoid = {
        let (three, six) = (T::from_f64(3.0), T::from_f64(6.0));
        let y = (x + three) / six;
        let y = if x <= -three { T::ZERO } else { y };
        if x >= three { T::ONE } else { y }
    };
    Hardswish = {
        let (three, six) = (T::from_f64(3.0), T::from_f64(6.0));
        let y = x * (x + three) / six;
        let y = if x <= -three { T::ZERO } else { y };
        if x >= three { x } else { y }
    };
}

kernels! { Zip(x: T, p: T) -> T:
    LeakyRelu = if x > T::ZERO { x } else { p * x };
    /// NaN stays NaN.
    Softshrink = {
        let toward = if x > T::ZERO { x - p } else { x + p };
        if x.abs() <= p { T::ZERO } else { toward }
    };
    Hardshrink = if x.abs() <= p { T::ZERO } else { x };
}

kernels! { Zip(g: T, x: T) -> T:
    WherePositive = if x > T::ZERO { g } else { T::ZERO };
    WhereNotPositive = if x > T::ZERO { T::ZERO } else { g };
    Relu6Backward = if (x > T::ZERO) & (x < T::from_f64(6.0)) { g } else { T::ZERO };
    HardsigmoidBackward = {
        let inside = x.abs() < T::from_f64(3.0);
        if inside { g / T::from_f64(6.0) } else { T::ZERO }
    };
    HardswishBackward = {
        let three = T::from_f64(3.0);
        let dx = g * (x / three + T::from_f64(0.5));
        let dx = if x <= -three { T::ZERO } else { dx };
        if x >= three { g } else { dx }
    };
}

kernels! { Zip3(g: T, x: T, p: T) -> T:
    SlopeBelow = if x > T::ZERO { g } else { g * p };
    WhereLarger = if x.abs() <= p { T::ZERO } else { g };
}

kernels! { Zip3(x: T, low: T, high: T) -> T:
    StrictlyInside = if (x > low) & (x < high) { T::ONE } else { T::ZERO };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("leaky_relu", |x| Ok([x.leaky_relu(0.01), (x * x * x).leaky_relu(-0.5)])),
        Row::of("prelu", &[&[2, 3, 2], &[3]], |x| x[0].prelu(&x[1])),
        Row::of("prelu", &[&[2, 3], &[3]], |x| (&x[0] * &x[0] * &x[0]).prelu(&x[1])),
        Row::of("prelu", &[&[2, 3], &[1]], |x| x[0].prelu(&x[1])),
        Row::of("prelu", &[&[4], &[]], |x| x[0].prelu(&x[1])),
        Row::of("prelu", &[&[], &[1]], |x| x[0].prelu(&x[1])),
        Row::of("prelu", &[&[3, 2], &[1]], |x| x[0].transpose(0, 1)?.prelu(&x[1].expand([3])?)),
        Row::of("prelu", &[&[0, 2], &[2]], |x| x[0].prelu(&x[1])),
        Row::of("prelu", &[&[2, 0], &[0]], |x| x[0].prelu(&x[1])),
        Row::of("prelu", &[&[1]], |x| x[0].prelu(&x[0])),
        Row::unary("hardtanh", |x| Ok([x.hardtanh(-1.0, 1.0)?, (x * x).hardtanh(0.2, 0.9)?])),
        Row::unary("relu6", |x| Ok((x * x * x * 4.0).relu6())),
        Row::unary("hardsigmoid", |x| Ok((x * x * x * 2.0).hardsigmoid())),
        Row::unary("hardswish", |x| Ok([x.hardswish(), (x * 3.0).hardswish()])),
        Row::unary("softshrink", |x| Ok([x.softshrink(0.5)?, (x * x).softshrink(0.0)?])),
        Row::unary("hardshrink", |x| Ok([x.hardshrink(0.5), (x * x).hardshrink(1.1)])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::accuracy::{Function, both};
    use crate::tape::Tape;

    #[test]
    fn kinks_are_those_of_pytorch() {
        let at = |f: fn(&Var<f64>) -> Var<f64>, x: f64| both(f, x);
        assert_eq!(at(|x| x.leaky_relu(0.1), 0.0), [0.0, 0.1]);
        assert_eq!(at(|x| total(x.hardtanh(-1.0, 1.0)), -1.0), [-1.0, 0.0]);
        assert_eq!(at(|x| total(x.hardtanh(-1.0, 1.0)), 1.0), [1.0, 0.0]);
        assert_eq!(at(|x| total(x.hardtanh(-1.0, 1.0)), 0.5), [0.5, 1.0]);
        assert_eq!(at(|x| x.relu6(), 0.0), [0.0, 0.0]);
        assert_eq!(at(|x| x.relu6(), 6.0), [6.0, 0.0]);
        assert_eq!(at(|x| x.hardsigmoid(), -3.0), [0.0, 0.0]);
        assert_eq!(at(|x| x.hardsigmoid(), 3.0), [1.0, 0.0]);
        assert_eq!(at(|x| x.hardsigmoid(), 0.0), [0.5, 1.0 / 6.0]);
        assert_eq!(at(|x| x.hardswish(), -3.0), [0.0, 0.0]);
        assert_eq!(at(|x| x.hardswish(), 3.0), [3.0, 1.0]);
        assert_eq!(at(|x| x.hardswish(), 0.0), [0.0, 0.5]);
        assert_eq!(at(|x| total(x.softshrink(0.5)), 0.5), [0.0, 0.0]);
        assert_eq!(at(|x| total(x.softshrink(0.5)), -2.0), [-1.5, 1.0]);
        assert_eq!(at(|x| x.hardshrink(0.5), -0.5), [0.0, 0.0]);
        assert_eq!(at(|x| x.hardshrink(0.5), 0.75), [0.75, 1.0]);
    }

    #[test]
    fn far_out_nothing_is_nan_and_nan_stays_nan() {
        let functions: [(Function<f32>, [f64; 2]); 7] = [
            (|x| x.leaky_relu(0.0), [0.0, 1.0]),
            (|x| total(x.hardtanh(-1.0, 1.0)), [0.0, 0.0]),
            (|x| x.relu6(), [0.0, 0.0]),
            (|x| x.hardsigmoid(), [0.0, 0.0]),
            (|x| x.hardswish(), [0.0, 1.0]),
            (|x| total(x.softshrink(0.5)), [1.0, 1.0]),
            (|x| x.hardshrink(0.5), [1.0, 1.0]),
        ];
        for (i, (f, limits)) in functions.into_iter().enumerate() {
            for (x, limit) in [(f32::MIN, limits[0]), (f32::MAX, limits[1])] {
                let [value, dx] = both(f, x);
                assert!(!value.is_nan() && dx == limit, "{i}: {value} {dx}");
            }
            let [value, dx] = both(f, f32::INFINITY);
            assert!(!value.is_nan() && dx == limits[1], "{i}: {value} {dx}");
            assert!(both(f, f32::NAN)[0].is_nan(), "{i}");
        }
        assert_eq!(both(|x: &Var<f32>| x.hardswish(), f32::NEG_INFINITY), [0.0, 0.0]);
    }

    #[test]
    fn prelu_has_one_weight_or_one_for_each_channel() {
        let tape = Tape::new();
        let x = Tensor::from_vec(vec![-1.0, 2.0, -3.0, 0.0, 5.0, -6.0], [1, 3, 2]).unwrap();
        let (x, w) = (tape.var(x), tape.var(Tensor::from([0.5, 0.25, 2.0])));
        let y = x.prelu(&w).unwrap();
        assert_eq!(y.value().to_vec(), [-0.5, 2.0, -0.75, 0.0, 5.0, -12.0]);
        let grads = y.sum().backward().unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.5, 1.0, 0.25, 0.25, 1.0, 2.0]);
        assert_eq!(grads.wrt(&w).unwrap().to_vec(), [-1.0, -3.0, -6.0]);
        let two = Var::constant(Tensor::from([0.1, 0.2]));
        let text = x.prelu(&two).unwrap_err().to_string();
        assert_eq!(text, "prelu: shapes do not match: [1, 3, 2] and [2]");
        let vector = Var::constant(Tensor::from([1.0, 2.0]));
        assert!(vector.prelu(&two).is_err());
        let square = Var::constant(Tensor::zeros([3, 3]).unwrap());
        let text = x.prelu(&square).unwrap_err().to_string();
        assert_eq!(text, "prelu: expected a weight of rank 0 or 1, found shape [3, 3]");
    }

    #[test]
    fn bad_arguments_are_one_clear_error() {
        let x = Var::constant(Tensor::from([1.0_f64]));
        let text = |result: Result<Var<f64>>| result.unwrap_err().to_string();
        assert_eq!(text(x.hardtanh(2.0, 1.0)), "hardtanh: range must be in order, found [2, 1]");
        assert!(x.hardtanh(f64::NAN, 1.0).is_err());
        assert_eq!(text(x.softshrink(-1.0)), "softshrink: lambda must be at least 0, found -1");
    }
}
