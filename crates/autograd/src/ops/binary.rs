//! Functions of two or three operands, which broadcast; the gradient of each is summed to its shape.

use std::borrow::Cow;

use tensor::kernels::Zip3;
use tensor::{Float, Result, Tensor};

use crate::tape::{Save, record};
use crate::var::Var;

/// The second operand of a method: a variable that broadcasts, or a number. `x.maximum(&y)` and
/// `x.maximum(0.0)` both work.
#[derive(Clone, Debug)]
pub enum Operand<'a, T: Float> {
    /// A variable.
    Var(&'a Var<T>),
    /// The same number for every element.
    Number(T),
}

impl<'a, T: Float> From<&'a Var<T>> for Operand<'a, T> {
    fn from(x: &'a Var<T>) -> Self {
        Operand::Var(x)
    }
}

impl<T: Float> From<T> for Operand<'_, T> {
    fn from(x: T) -> Self {
        Operand::Number(x)
    }
}

impl<'a, T: Float> Operand<'a, T> {
    /// A number as a constant of rank 0.
    pub(crate) fn into_var(self) -> Cow<'a, Var<T>> {
        match self {
            Operand::Var(x) => Cow::Borrowed(x),
            Operand::Number(x) => Cow::Owned(Var::constant(Tensor::scalar(x))),
        }
    }
}

impl<T: Float> Var<T> {
    /// `y = xᵖ` for an exponent that is a number or a variable; `p = 2` is [`Var::square`].
    ///
    /// # Gradient
    /// `dx = g·p·xᵖ⁻¹`, 0 where `p = 0`; `dp = g·y·ln x`, 0 where `x = 0` and `p ≥ 0`, as PyTorch.
    /// Below 0 the logarithm is NaN, and so is `dp`. Saves x, and p and y where p is tracked. Any
    /// order.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast;
    /// [`Error::MixedTapes`](crate::Error::MixedTapes).
    ///
    /// # Examples
    /// ```
    /// use autograd::{Tape, Tensor};
    /// let x = Tape::new().var(Tensor::from([0.0_f64, 2.0]));
    /// let y = x.pow(3.0)?.sum();
    /// assert_eq!(y.backward()?.wrt(&x)?.to_vec(), [0.0, 12.0]);
    /// # Ok::<(), autograd::Error>(())
    /// ```
    ///
    /// # Reference
    /// `torch.pow`.
    #[track_caller]
    pub fn pow<'a>(&self, exponent: impl Into<Operand<'a, T>>) -> Result<Self> {
        let e = match exponent.into() {
            Operand::Number(p) => return self.pow_number(p),
            Operand::Var(e) => e,
        };
        let y = self.value().pow(e.value())?;
        let nodes = [self.node(), e.node()];
        if !e.is_tracked() {
            let saved = [Save::Input(self), Save::Input(e)];
            return record("pow", nodes, saved, y, |ctx, g, sink| {
                sink.add_broadcast(0, g * ctx.saved(0).pow_slope(&ctx.saved(1))?)
            });
        }
        let saved = [Save::Input(self), Save::Input(e), Save::Output];
        record("pow", nodes, saved, y, |ctx, g, sink| {
            let (x, e) = (ctx.saved(0), ctx.saved(1));
            if ctx.needs(0) {
                sink.add_broadcast(0, &g * x.pow_slope(&e)?)?;
            }
            if ctx.needs(1) {
                let zero = x.value().eq(T::ZERO)?.logical_and(&e.value().ge(T::ZERO)?)?;
                // ln 1, so that no derivative meets 0·∞.
                let x = x.where_cond(&zero.logical_not(), T::ONE)?;
                sink.add_broadcast(1, g * ctx.saved(2) * x.log())?;
            }
            Ok(())
        })
    }

    /// `xᵖ` for a number p.
    #[track_caller]
    fn pow_number(&self, p: T) -> Result<Self> {
        let y = self.value().pow(p)?;
        if p == T::ZERO {
            return record("pow", [self.node()], [], y, |_, _, sink| sink.add_zero(0));
        }
        record("pow", [self.node()], [Save::Input(self)], y, move |ctx, g, sink| {
            sink.add(0, g * (ctx.saved(0).pow_number(p - T::ONE)? * p))
        })
    }

    /// `e·xᵉ⁻¹`, 0 where e is 0.
    #[track_caller]
    fn pow_slope(&self, e: &Self) -> Result<Self> {
        let infinite = self.value().reciprocal().isfinite().logical_not();
        let zero = e.value().eq(T::ZERO)?.logical_and(&infinite)?;
        // e·x⁰ there, so that 0 does not meet 1/0.
        let less = e.where_cond(&zero.logical_not(), T::ONE)? - T::ONE;
        Ok(e * self.pow(&less)?)
    }

    /// The angle of the point `(x, self)` in radians, in [−π, π]; with `self` = y:
    /// `dy = g·x/(x² + y²)`, `dx = −g·y/(x² + y²)`, 0 at the origin, as PyTorch. Saves both. Any
    /// order. `torch.atan2`.
    ///
    /// # Errors
    /// As [`Var::pow`].
    #[doc(alias = "arctan2")]
    #[track_caller]
    pub fn atan2<'a>(&self, x: impl Into<Operand<'a, T>>) -> Result<Self> {
        let x = x.into().into_var();
        let angle = self.value().atan2(x.value())?;
        let saved = [Save::Input(self), Save::Input(&x)];
        record("atan2", [self.node(), x.node()], saved, angle, |ctx, g, sink| {
            let (y, x) = (ctx.saved(0), ctx.saved(1));
            // Divided twice by the distance: its square may overflow.
            // At the origin all is 0: with a distance of 1 there, so is the gradient.
            let r = y.hypot(&x)?;
            let origin = r.value().eq(T::ZERO)?;
            let r = r.masked_fill(&origin, T::ONE)?;
            let g = g / &r;
            if ctx.needs(0) {
                sink.add_broadcast(0, &g * (x / &r))?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, -(g * (y / r)))?;
            }
            Ok(())
        })
    }

    /// `z = √(x² + y²)`, without overflow on the way; ∞ if either is infinite. `dx = g·x/z`,
    /// `dy = g·y/z`, NaN at the origin, as PyTorch. Saves the tracked operands and the result. Any
    /// order. `torch.hypot`.
    ///
    /// # Errors
    /// As [`Var::pow`].
    #[track_caller]
    pub fn hypot<'a>(&self, other: impl Into<Operand<'a, T>>) -> Result<Self> {
        let y = other.into().into_var();
        let z = self.value().zip::<T, Hypot>("hypot", y.value())?;
        if !y.is_tracked() {
            let saved = [Save::Input(self), Save::Output];
            return record("hypot", [self.node(), y.node()], saved, z, |ctx, g, sink| {
                sink.add_broadcast(0, g * (ctx.saved(0) / ctx.saved(1)))
            });
        }
        if !self.is_tracked() {
            let saved = [Save::Input(&y), Save::Output];
            return record("hypot", [self.node(), y.node()], saved, z, |ctx, g, sink| {
                sink.add_broadcast(1, g * (ctx.saved(0) / ctx.saved(1)))
            });
        }
        let saved = [Save::Input(self), Save::Input(&y), Save::Output];
        record("hypot", [self.node(), y.node()], saved, z, |ctx, g, sink| {
            let z = ctx.saved(2);
            if ctx.needs(0) {
                sink.add_broadcast(0, &g * (ctx.saved(0) / &z))?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, g * (ctx.saved(1) / z))?;
            }
            Ok(())
        })
    }

    /// The larger of x and y; NaN if either is. `dx = g` where `x > y`, g/2 where they are equal, as
    /// PyTorch, else 0; `dy` the same with the roles exchanged. Saves both. Any order.
    /// `torch.maximum`.
    ///
    /// # Errors
    /// As [`Var::pow`].
    #[track_caller]
    pub fn maximum<'a>(&self, other: impl Into<Operand<'a, T>>) -> Result<Self> {
        let y = other.into().into_var();
        self.larger_or_smaller::<IfLarger>("maximum", &y, self.value().maximum(y.value())?)
    }

    /// The smaller of x and y; NaN if either is. `dx = g` where `x < y`, g/2 where they are equal, as
    /// PyTorch, else 0; `dy` the same with the roles exchanged. Saves both. Any order.
    /// `torch.minimum`.
    ///
    /// # Errors
    /// As [`Var::pow`].
    #[track_caller]
    pub fn minimum<'a>(&self, other: impl Into<Operand<'a, T>>) -> Result<Self> {
        let y = other.into().into_var();
        self.larger_or_smaller::<IfSmaller>("minimum", &y, self.value().minimum(y.value())?)
    }

    /// `dx = K(g, x, y)`, `dy = K(g, y, x)`.
    #[track_caller]
    fn larger_or_smaller<K: Zip3<T, T> + 'static>(
        &self,
        name: &'static str,
        y: &Self,
        z: Tensor<T>,
    ) -> Result<Self> {
        let saved = [Save::Input(self), Save::Input(y)];
        record(name, [self.node(), y.node()], saved, z, move |ctx, g, sink| {
            let (x, y) = (ctx.saved(0), ctx.saved(1));
            if ctx.needs(0) {
                sink.add_broadcast(0, g.gate3::<K>(name, x.value(), y.value())?)?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, g.gate3::<K>(name, y.value(), x.value())?)?;
            }
            Ok(())
        })
    }

    /// The remainder `x − y·⌊x/y⌋`, with the sign of y: `dx = g`, `dy = −g·⌊x/y⌋`. Saves both where
    /// y is tracked. Any order. `torch.remainder`.
    ///
    /// # Errors
    /// As [`Var::pow`].
    #[track_caller]
    pub fn remainder<'a>(&self, other: impl Into<Operand<'a, T>>) -> Result<Self> {
        let y = other.into().into_var();
        let r = self.value().remainder(y.value())?;
        let nodes = [self.node(), y.node()];
        if !y.is_tracked() {
            return record("remainder", nodes, [], r, |_, g, sink| sink.add_broadcast(0, g));
        }
        let saved = [Save::Input(self), Save::Input(&y)];
        record("remainder", nodes, saved, r, |ctx, g, sink| {
            if ctx.needs(1) {
                let (x, y) = (ctx.saved(0), ctx.saved(1));
                let (x, y) = (x.value(), y.value());
                // The floor of a rounded x/y may be one too large; x − r is a multiple of y.
                let quotient = ((x - x.remainder(y)?) / y).into_round();
                sink.add_broadcast(1, -(&g * Var::constant(quotient)))?;
            }
            sink.add_broadcast(0, g)
        })
    }

    /// `y = x + w·(end − x)`, exactly x at w = 0 and `end` at w = 1: `dx = g·(1 − w)`, `dend = g·w`,
    /// `dw = g·(end − x)`. Saves w, and x and `end` where w is tracked. Any order. `torch.lerp`.
    ///
    /// # Errors
    /// As [`Var::pow`].
    #[track_caller]
    pub fn lerp<'a>(&self, end: &Self, weight: impl Into<Operand<'a, T>>) -> Result<Self> {
        let w = weight.into().into_var();
        let y = self.value().lerp(end.value(), w.value())?;
        let nodes = [self.node(), end.node(), w.node()];
        if !w.is_tracked() {
            return record("lerp", nodes, [Save::Input(&w)], y, |ctx, g, sink| {
                let w = ctx.saved(0);
                if ctx.needs(0) {
                    sink.add_broadcast(0, &g * (-&w + T::ONE))?;
                }
                if ctx.needs(1) {
                    sink.add_broadcast(1, g * w)?;
                }
                Ok(())
            });
        }
        let saved = [Save::Input(&w), Save::Input(self), Save::Input(end)];
        record("lerp", nodes, saved, y, |ctx, g, sink| {
            let w = ctx.saved(0);
            if ctx.needs(0) {
                sink.add_broadcast(0, &g * (-&w + T::ONE))?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, &g * w)?;
            }
            if ctx.needs(2) {
                sink.add_broadcast(2, g * (ctx.saved(2) - ctx.saved(1)))?;
            }
            Ok(())
        })
    }
}

kernels! { Zip(x: T, y: T) -> T:
    Hypot = {
        let (a, b) = (x.abs(), y.abs());
        // Written so that a NaN ends up in one of the two.
        let (large, small) = if a > b { (a, b) } else { (b, a) };
        let ratio = small / large;
        let z = large * (ratio * ratio + T::ONE).sqrt();
        let z = if large == T::ZERO { small } else { z };
        if (a == T::INFINITY) | (b == T::INFINITY) { T::INFINITY } else { z }
    };
}

kernels! { Zip3(g: T, x: T, y: T) -> T:
    IfLarger = {
        let share = if x == y { g * T::from_f64(0.5) } else { g };
        if x < y { T::ZERO } else { share }
    };
    IfSmaller = {
        let share = if x == y { g * T::from_f64(0.5) } else { g };
        if x > y { T::ZERO } else { share }
    };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("pow", |x| Ok([x.pow(2.0)?, x.pow(3.0)?, x.pow(1.0)?, x.pow(0.0)? * x])),
        Row::unary("pow", |x| Ok([x.pow(-1.5)?, x.pow(0.5)?, x.pow(2.7)?])).positive(),
        Row::binary("pow", |x, y| x.pow(&(y - 1.0))).positive(),
        Row::binary("pow", |x, y| (x + 0.5).pow(y)).between(0.2, 1.8),
        Row::unary("pow", |x| Var::constant(Tensor::scalar(1.7)).pow(x)),
        Row::unary("pow", |x| x.pow(&Var::constant(Tensor::scalar(3.0)))),
        Row::binary("atan2", |y, x| y.atan2(x)).positive(),
        Row::binary("atan2", |y, x| (-y).atan2(&(-x))).positive(),
        Row::unary("atan2", |y| Ok([y.atan2(0.7)?, Var::constant(Tensor::scalar(0.3)).atan2(y)?])),
        Row::binary("hypot", |x, y| x.hypot(y)).positive(),
        Row::binary("hypot", |x, y| (-x).hypot(y)).positive(),
        Row::unary("hypot", |x| Ok([x.hypot(1.2)?, Var::constant(Tensor::scalar(0.8)).hypot(x)?])),
        Row::binary("maximum", |x, y| (x * x).maximum(y)),
        Row::unary("maximum", |x| (x * x).maximum(0.5)),
        Row::binary("minimum", |x, y| (x * x).minimum(y)),
        Row::unary("minimum", |x| (x * x).minimum(0.5)),
        // Divisors away from 0, where the jumps lie close together.
        Row::binary("remainder", |x, y| (x * 2.7).remainder(y)).positive(),
        Row::binary("remainder", |x, y| (x * 2.7).remainder(&(-y))).positive(),
        Row::unary("remainder", |x| (x * x).remainder(0.7)),
        Row::binary("lerp", |x, y| x.lerp(y, &(x * y))),
        Row::binary("lerp", |x, y| (x * x).lerp(&(y * y), 0.3)),
        Row::of("lerp", &[&[2, 1], &[3], &[2, 3]], |x| x[0].lerp(&x[1], &x[2])),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad;
    use crate::tape::Tape;

    /// The values of `f`, and the gradients of its sum in both operands.
    fn all(
        f: impl Fn(&Var<f64>, &Var<f64>) -> Result<Var<f64>>,
        x: &[f64],
        y: &[f64],
    ) -> [Vec<f64>; 3] {
        let tape = Tape::new();
        let x = tape.var(Tensor::from_vec(x.to_vec(), [x.len()]).unwrap());
        let y = tape.var(Tensor::from_vec(y.to_vec(), [y.len()]).unwrap());
        let z = f(&x, &y).unwrap();
        let value = z.value().to_vec();
        let grads = z.sum().backward().unwrap();
        [value, grads.wrt(&x).unwrap().to_vec(), grads.wrt(&y).unwrap().to_vec()]
    }

    #[test]
    fn ties_are_split_evenly() {
        let [z, dx, dy] = all(|x, y| x.maximum(y), &[1.0, 2.0, 3.0], &[2.0, 2.0, 1.0]);
        assert_eq!(z, [2.0, 2.0, 3.0]);
        assert_eq!((dx, dy), (vec![0.0, 0.5, 1.0], vec![1.0, 0.5, 0.0]));
        let [z, dx, dy] = all(|x, y| x.minimum(y), &[1.0, 2.0, 3.0], &[2.0, 2.0, 1.0]);
        assert_eq!(z, [1.0, 2.0, 1.0]);
        assert_eq!((dx, dy), (vec![1.0, 0.5, 0.0], vec![0.0, 0.5, 1.0]));
        let x = Tape::new().var(Tensor::from([1.0_f32, -1.0, 0.0]));
        let y = x.maximum(0.0).unwrap();
        assert_eq!(y.value().to_vec(), [1.0, 0.0, 0.0]);
        assert_eq!(y.sum().backward().unwrap().wrt(&x).unwrap().to_vec(), [1.0, 0.0, 0.5]);
        let [z, ..] = all(|x, y| x.maximum(y), &[f64::NAN, 1.0], &[1.0, f64::NAN]);
        assert!(z.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn powers_at_zero_are_those_of_pytorch() {
        let x = [0.0, 0.0, 0.0, 0.0, 0.0, 2.0, f64::NAN];
        let p = [0.0, 0.5, 1.0, 3.0, -1.0, 0.0, 0.0];
        let [z, dx, dp] = all(|x, p| x.pow(p), &x, &p);
        let inf = f64::INFINITY;
        assert_eq!(z, [1.0, 0.0, 0.0, 0.0, inf, 1.0, 1.0]);
        assert_eq!(dx, [0.0, inf, 1.0, 0.0, -inf, 0.0, 0.0]);
        assert_eq!(dp[..6], [0.0, 0.0, 0.0, 0.0, -inf, 2.0_f64.ln()]);
        for (i, p) in p.into_iter().enumerate() {
            let at = Tape::new().var(Tensor::scalar(x[i]));
            let y = at.pow(p).unwrap();
            let grads = y.backward().unwrap();
            let got = grads.wrt(&at).map_or(0.0, |g| g.item().unwrap());
            assert_eq!((y.item().unwrap(), got), (z[i], dx[i]), "p = {p}");
        }
        // The recorded gradient meets no 0·∞ either.
        let tape = Tape::new();
        let (x, p) = (tape.var(Tensor::scalar(0.0)), tape.var(Tensor::scalar(2.0)));
        let first = grad(&[&x.pow(&p).unwrap()], &[&x, &p], &[], true).unwrap();
        let [dx, dp] = [0, 1].map(|i| first[i].clone().unwrap());
        assert_eq!((dx.item().unwrap(), dp.item().unwrap()), (0.0, 0.0));
        let second = grad(&[&dx], &[&x], &[], false).unwrap()[0].clone().unwrap();
        assert_eq!(second.item().unwrap(), 2.0);
    }

    #[test]
    fn negative_bases_have_whole_powers() {
        let [z, dx, dp] = all(|x, p| x.pow(p), &[-2.0, -2.0], &[3.0, 0.5]);
        assert!(z[0] == -8.0 && dx[0] == 12.0 && z[1].is_nan() && dx[1].is_nan());
        assert!(dp.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn hypot_neither_overflows_nor_loses_small_numbers() {
        let tiny = f64::MIN_POSITIVE;
        let inf = f64::INFINITY;
        let x = [3e300, 3.0 * tiny, 0.0, inf, 5.0, f64::NAN];
        let y = [4e300, 4.0 * tiny, -2.0, f64::NAN, -inf, 1.0];
        let [z, dx, dy] = all(|x, y| x.hypot(y), &x, &y);
        assert_eq!(z[2..5], [2.0, inf, inf]);
        assert!((z[0] / 5e300 - 1.0).abs() < 1e-15 && (z[1] / (5.0 * tiny) - 1.0).abs() < 1e-15);
        assert!(z[5].is_nan());
        for i in [0, 1] {
            assert!((dx[i] - 0.6).abs() < 1e-15 && (dy[i] - 0.8).abs() < 1e-15);
        }
        assert_eq!((dx[2], dy[2]), (0.0, -1.0));
        let [z, dx, _] = all(|x, y| x.hypot(y), &[0.0], &[0.0]);
        assert!(z[0] == 0.0 && dx[0].is_nan());
    }

    #[test]
    fn angles_keep_their_gradient_at_any_distance() {
        for r in [1e-200, 1.0, 1e200] {
            let [angle, dy, dx] = all(|y, x| y.atan2(x), &[3.0 * r], &[-4.0 * r]);
            assert!((angle[0] - 3.0_f64.atan2(-4.0)).abs() < 1e-15);
            assert!((dy[0] * r / -0.16 - 1.0).abs() < 1e-15, "{}", dy[0] * r);
            assert!((dx[0] * r / -0.12 - 1.0).abs() < 1e-15, "{}", dx[0] * r);
        }
        let [_, dy, dx] = all(|y, x| y.atan2(x), &[0.0], &[0.0]);
        assert_eq!((dy[0], dx[0]), (0.0, 0.0));
    }

    #[test]
    fn the_quotient_of_a_remainder_is_the_floor_of_the_exact_one() {
        // The last quotient rounds to 37, and is less.
        let x = [0.3, 7.0, -7.0, 7.0, 1e17, 45.80469120239998];
        let y = [0.1, 2.0, 2.0, -2.0, 3.0, 1.2379646270918914];
        assert_eq!(x[5] / y[5], 37.0);
        let [r, dx, dy] = all(|x, y| x.remainder(y), &x, &y);
        assert_eq!(dx, [1.0; 6]);
        assert_eq!(r[1..4], [1.0, 1.0, -1.0]);
        assert_eq!(dy[..4], [-2.0, -3.0, 4.0, 4.0]);
        assert_eq!(dy[5], -36.0);
        assert!((r[0] - 0.1).abs() < 1e-15 && dy[4] < -3.3e16);
    }

    #[test]
    fn lerp_reaches_both_ends_and_shares_the_gradient() {
        let [y, dx, de] = all(|x, e| x.lerp(e, 0.25), &[1.0, -1e300], &[3.0, 1e300]);
        assert_eq!(y[0], 1.5);
        assert_eq!((dx, de), (vec![0.75; 2], vec![0.25; 2]));
        let [y, ..] = all(|x, e| x.lerp(e, 1.0), &[1.0, 2.0], &[3.0, f64::INFINITY]);
        assert_eq!(y, [3.0, f64::INFINITY]);
    }

    #[test]
    fn errors_name_the_operation() {
        let x = Var::constant(Tensor::from([1.0_f64, 2.0]));
        let y = Var::constant(Tensor::from([1.0, 2.0, 3.0]));
        let results = [x.pow(&y), x.atan2(&y), x.hypot(&y), x.maximum(&y), x.remainder(&y)];
        let names = ["pow", "atan2", "hypot", "maximum", "remainder"];
        for (result, name) in results.into_iter().zip(names) {
            let text = result.unwrap_err().to_string();
            assert_eq!(text, format!("{name}: shapes do not match: [2] and [3]"));
        }
        let (a, b) = (Tape::new(), Tape::new());
        let (x, y) = (a.var(Tensor::scalar(1.0)), b.var(Tensor::scalar(1.0)));
        assert!(x.maximum(&y).is_err() && x.pow(&y).is_err() && x.lerp(&y, 0.5).is_err());
    }
}
