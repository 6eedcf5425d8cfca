//! Losses of the difference `d = x − t` of two tensors of one shape, element by element.

use tensor::{Error, Float, Result, Tensor};

use super::class_loss::Reduction;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// Squared error: `d²` for `d = x − t`, `dx = 2·g·d`, `dt = −dx`.
    ///
    /// # Shape
    /// x and t of the same shape; the result has it too, or rank 0 where it is reduced.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`]: nothing broadcasts, for `[N]` against `[N, 1]` would be a wrong loss;
    /// [`Error::InvalidArgument`] for a divisor that is not positive and finite;
    /// [`Error::MixedTapes`].
    ///
    /// # Reference
    /// Saves x and t. Any order. `torch.nn.functional.mse_loss`.
    #[track_caller]
    pub fn mse_loss(&self, target: &Self, reduction: Reduction) -> Result<Self> {
        let (op, slope) = ("mse_loss", |d: Var<T>| Ok(d * T::from_f64(2.0)));
        self.difference_loss(op, target, reduction, |x, t| x.zip::<T, Squared>(op, t), slope)
    }

    /// Absolute error: `|d|` for `d = x − t`, `dx = g·sign(d)` (0 at 0), `dt = −dx`. Shapes and errors
    /// as [`Var::mse_loss`]. Saves x and t. Any order. `torch.nn.functional.l1_loss`.
    ///
    /// # Errors
    /// As [`Var::mse_loss`].
    #[track_caller]
    pub fn l1_loss(&self, target: &Self, reduction: Reduction) -> Result<Self> {
        self.absolute_loss("l1_loss", target, reduction)
    }

    /// `d²/(2β)` where `|d| < β` for `d = x − t`, else `|d| − β/2`; PyTorch's default is β = 1, and
    /// β = 0 is [`Var::l1_loss`]. `dx = g·min(max(d/β, −1), 1)`, `dt = −dx`. Shapes as
    /// [`Var::mse_loss`]. Saves x and t. Any order. `torch.nn.functional.smooth_l1_loss`.
    ///
    /// # Errors
    /// As [`Var::mse_loss`]; [`Error::InvalidArgument`] if β is negative, infinite or NaN.
    #[track_caller]
    pub fn smooth_l1_loss(&self, target: &Self, beta: f64, reduction: Reduction) -> Result<Self> {
        let op = "smooth_l1_loss";
        not_negative(op, "beta", beta)?;
        let b = T::from_f64(beta);
        if b == T::ZERO {
            return self.absolute_loss(op, target, reduction);
        }
        let value = |x: &Tensor<T>, t: &_| x.zip3::<T, SmoothAbsolute>(op, t, b);
        let slope = move |d: Var<T>| (d / b).clamp(-T::ONE, T::ONE);
        self.difference_loss(op, target, reduction, value, slope)
    }

    /// `d²/2` where `|d| ≤ δ` for `d = x − t`, else `δ·(|d| − δ/2)`; PyTorch's default is δ = 1.
    /// `dx = g·min(max(d, −δ), δ)`, `dt = −dx`. Shapes as [`Var::mse_loss`]. Saves x and t. Any order.
    /// `torch.nn.functional.huber_loss`; Huber, Ann. Math. Stat. 35 (1964).
    ///
    /// # Errors
    /// As [`Var::mse_loss`]; [`Error::InvalidArgument`] unless δ is positive and finite.
    #[track_caller]
    pub fn huber_loss(&self, target: &Self, delta: f64, reduction: Reduction) -> Result<Self> {
        let op = "huber_loss";
        not_negative(op, "delta", delta)?;
        let d = T::from_f64(delta);
        if d == T::ZERO {
            let reason = format!("must be positive, found {delta}");
            return Err(Error::InvalidArgument { op, name: "delta", reason });
        }
        let value = |x: &Tensor<T>, t: &_| x.zip3::<T, Huber>(op, t, d);
        self.difference_loss(op, target, reduction, value, move |x| x.clamp(-d, d))
    }

    #[track_caller]
    fn absolute_loss(&self, op: &'static str, target: &Self, reduction: Reduction) -> Result<Self> {
        let value = |x: &Tensor<T>, t: &_| x.zip::<T, Absolute>(op, t);
        self.difference_loss(op, target, reduction, value, |d| Ok(d.sign()))
    }

    /// `value(x, t)`, whose derivative in x is `slope(x − t)`.
    #[track_caller]
    fn difference_loss(
        &self,
        op: &'static str,
        target: &Self,
        reduction: Reduction,
        value: impl Fn(&Tensor<T>, &Tensor<T>) -> Result<Tensor<T>>,
        slope: impl Fn(Var<T>) -> Result<Var<T>> + Send + 'static,
    ) -> Result<Self> {
        same_shape(op, self.value(), target.value())?;
        let y = value(self.value(), target.value())?;
        let saved = [Save::Input(self), Save::Input(target)];
        let y = record(op, [self.node(), target.node()], saved, y, move |ctx, g, sink| {
            let dx = g * slope(ctx.saved(0) - ctx.saved(1))?;
            if ctx.needs(1) {
                sink.add(1, -&dx)?;
            }
            if ctx.needs(0) {
                sink.add(0, dx)?;
            }
            Ok(())
        })?;
        y.reduced(op, reduction)
    }

    /// The losses of elements, as `reduction` says.
    #[track_caller]
    pub(super) fn reduced(self, op: &'static str, reduction: Reduction) -> Result<Self> {
        reduction.validate(op)?;
        Ok(match reduction {
            Reduction::None => self,
            Reduction::Mean => self.mean(),
            Reduction::Sum => self.sum(),
            Reduction::Divisor(d) => self.sum() / T::from_f64(d),
        })
    }
}

pub(super) fn same_shape<T: Float>(op: &'static str, x: &Tensor<T>, t: &Tensor<T>) -> Result<()> {
    if x.shape() == t.shape() {
        return Ok(());
    }
    Err(Error::ShapeMismatch { op, lhs: x.shape().to_vec(), rhs: t.shape().to_vec() })
}

pub(super) fn not_negative(op: &'static str, name: &'static str, value: f64) -> Result<()> {
    if (0.0..f64::INFINITY).contains(&value) {
        return Ok(());
    }
    let reason = format!("must be finite and not negative, found {value}");
    Err(Error::InvalidArgument { op, name, reason })
}

kernels! { Zip(x: T, t: T) -> T:
    Squared = {
        let d = x - t;
        d * d
    };
    Absolute = (x - t).abs();
}

kernels! { Zip3(x: T, t: T, p: T) -> T:
    SmoothAbsolute = {
        let d = (x - t).abs();
        let half = T::from_f64(0.5);
        if d < p { d / p * d * half } else { d - half * p }
    };
    Huber = {
        let d = (x - t).abs();
        let half = T::from_f64(0.5);
        if d < p { d * half * d } else { p * (d - half * p) }
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    type Loss = fn(&Var<f64>, &Var<f64>, Reduction) -> Result<Var<f64>>;
    let losses: [(&'static str, Loss); 5] = [
        ("mse_loss", |x, t, r| x.mse_loss(t, r)),
        ("l1_loss", |x, t, r| x.l1_loss(t, r)),
        ("smooth_l1_loss", |x, t, r| x.smooth_l1_loss(t, 0.7, r)),
        ("smooth_l1_loss", |x, t, r| x.smooth_l1_loss(t, 0.0, r)),
        ("huber_loss", |x, t, r| x.huber_loss(t, 0.8, r)),
    ];
    let mut rows = Vec::new();
    for (name, loss) in losses {
        for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::Divisor(2.5)]
        {
            for shape in [&[][..], &[3, 4], &[2, 0]] {
                let f = move |x: &[Var<f64>]| loss(&x[0], &x[1], reduction);
                rows.push(Row::of(name, &[shape, shape], f));
            }
            rows.push(Row::of(name, &[&[3, 4], &[4, 1]], move |x| {
                loss(&x[0].transpose(0, 1)?, &x[1].expand([4, 3])?, reduction)
            }));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    fn both(
        f: impl Fn(&Var<f32>, &Var<f32>) -> Result<Var<f32>>,
        x: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let x = Tape::new().var(Tensor::from_slice(x, [x.len()]).unwrap());
        let t = Var::constant(x.value().zeros_like());
        let y = f(&x, &t).unwrap();
        (y.value().to_vec(), y.sum().backward().unwrap().wrt(&x).unwrap().to_vec())
    }

    #[test]
    fn values_and_slopes_at_the_joints_and_far_out() {
        let (inf, r) = (f32::INFINITY, Reduction::None);
        let x = [0.0, 0.5, -2.0, 3.0, -inf];
        assert_eq!(
            both(|x, t| x.huber_loss(t, 2.0, r), &x),
            (vec![0.0, 0.125, 2.0, 4.0, inf], vec![0.0, 0.5, -2.0, 2.0, -2.0])
        );
        assert_eq!(
            both(|x, t| x.smooth_l1_loss(t, 2.0, r), &x),
            (vec![0.0, 0.0625, 1.0, 2.0, inf], vec![0.0, 0.25, -1.0, 1.0, -1.0])
        );
        let one = vec![0.0, 1.0, -1.0, 1.0, -1.0];
        let l1 = vec![0.0, 0.5, 2.0, 3.0, inf];
        assert_eq!(both(|x, t| x.l1_loss(t, r), &x), (l1.clone(), one.clone()));
        assert_eq!(both(|x, t| x.smooth_l1_loss(t, 0.0, r), &x), (l1, one));
        // β·β would be 0.
        let (y, dx) = both(|x, t| x.smooth_l1_loss(t, 1e-30, r), &[2e-31, 1.0]);
        assert_eq!((y[1], dx[1]), (1.0, 1.0));
        assert!((y[0] / 2e-32 - 1.0).abs() < 1e-6 && (dx[0] / 0.2 - 1.0).abs() < 1e-6);
        let (y, _) = both(|x, t| x.huber_loss(t, 1.0, r), &[f32::NAN]);
        assert!(y[0].is_nan());
    }

    #[test]
    fn the_second_derivative_at_an_exact_fit_is_that_of_the_square() {
        let tape = Tape::new();
        let x = tape.var(Tensor::scalar(1.5_f64));
        let t = Var::constant(Tensor::scalar(1.5));
        for loss in
            [x.huber_loss(&t, 1.0, Reduction::Mean), x.smooth_l1_loss(&t, 1.0, Reduction::Sum)]
        {
            let dx = crate::grad(&[&loss.unwrap()], &[&x], &[], true).unwrap()[0].clone().unwrap();
            let second = crate::grad(&[&dx], &[&x], &[], false).unwrap()[0].clone().unwrap();
            assert_eq!((dx.item().unwrap(), second.item().unwrap()), (0.0, 1.0));
        }
    }

    #[test]
    fn bad_input_is_one_clear_error() {
        let x = Var::constant(Tensor::<f64>::zeros([3, 1]).unwrap());
        let t = Var::constant(Tensor::<f64>::zeros([3]).unwrap());
        let r = Reduction::Mean;
        let text = |y: Result<Var<f64>>| y.unwrap_err().to_string();
        assert_eq!(text(x.mse_loss(&t, r)), "mse_loss: shapes do not match: [3, 1] and [3]");
        assert_eq!(
            text(x.smooth_l1_loss(&x, -1.0, r)),
            "smooth_l1_loss: beta must be finite and not negative, found -1"
        );
        assert_eq!(text(x.huber_loss(&x, 0.0, r)), "huber_loss: delta must be positive, found 0");
        assert!(text(x.huber_loss(&x, f64::NAN, r)).contains("delta must be finite"));
        assert!(text(x.l1_loss(&x, Reduction::Divisor(0.0))).starts_with("l1_loss: reduction"));
        let none = Var::constant(Tensor::<f64>::zeros([0]).unwrap());
        assert!(none.mse_loss(&none, r).unwrap().item().unwrap().is_nan());
    }
}
