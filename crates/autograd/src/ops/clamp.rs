//! Bounds: numbers or variables that broadcast.

use tensor::{Float, Result};

use super::binary::Operand;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// `y = min(max(x, low), high)`; bounds are variables or numbers that broadcast. NaN in any of
    /// the three gives NaN. Where `low > high`, `y = high`. `torch.clamp`.
    ///
    /// # Gradient
    /// `dx = g` where `low ≤ x ≤ high`, the ends included, as PyTorch; else 0. `dlow = g` where
    /// `x < low < high`, `dhigh = g` where `x > high` or `high < low`, as PyTorch; else 0. Saves all
    /// three. Any order.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast;
    /// [`Error::MixedTapes`](crate::Error::MixedTapes).
    #[doc(alias = "clip")]
    #[track_caller]
    pub fn clamp<'a>(
        &self,
        low: impl Into<Operand<'a, T>>,
        high: impl Into<Operand<'a, T>>,
    ) -> Result<Self> {
        let (low, high) = (low.into().into_var(), high.into().into_var());
        let y = self.value().clamp(low.value(), high.value())?;
        let nodes = [self.node(), low.node(), high.node()];
        let saved = [Save::Input(self), Save::Input(&low), Save::Input(&high)];
        record("clamp", nodes, saved, y, |ctx, g, sink| {
            let [x, low, high] = [ctx.saved(0), ctx.saved(1), ctx.saved(2)];
            let (x, low, high) = (x.value(), low.value(), high.value());
            if ctx.needs(0) {
                let inside = x.zip3::<T, Inside>("clamp", low, high)?;
                sink.add_broadcast(0, g.gate::<Through>("clamp_backward", &inside)?)?;
            }
            if ctx.needs(1) {
                let below = x.zip3::<T, Below>("clamp", low, high)?;
                sink.add_broadcast(1, g.gate::<Through>("clamp_backward", &below)?)?;
            }
            if ctx.needs(2) {
                let above = x.zip3::<T, Above>("clamp", low, high)?;
                sink.add_broadcast(2, g.gate::<Through>("clamp_backward", &above)?)?;
            }
            Ok(())
        })
    }

    /// `y = max(x, low)`: `dx = g` where `x ≥ low`, else 0; `dlow = g` where `x < low`, else 0. (A tie
    /// goes to x, as in PyTorch; [`Var::maximum`] splits it.) Saves both. Any order.
    /// `torch.clamp_min`.
    ///
    /// # Errors
    /// As [`Var::clamp`].
    #[track_caller]
    pub fn clamp_min<'a>(&self, low: impl Into<Operand<'a, T>>) -> Result<Self> {
        let low = low.into().into_var();
        let y = self.value().maximum(low.value())?;
        let saved = [Save::Input(self), Save::Input(&low)];
        record("clamp_min", [self.node(), low.node()], saved, y, |ctx, g, sink| {
            let (x, low) = (ctx.saved(0), ctx.saved(1));
            let (op, x, low) = ("clamp_min_backward", x.value(), low.value());
            if ctx.needs(0) {
                sink.add_broadcast(0, g.gate3::<WhereNotBelow>(op, x, low)?)?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, g.gate3::<WhereBelow>(op, x, low)?)?;
            }
            Ok(())
        })
    }

    /// `y = min(x, high)`: `dx = g` where `x ≤ high`, else 0; `dhigh = g` where `x > high`, else 0. (A
    /// tie goes to x, as in PyTorch; [`Var::minimum`] splits it.) Saves both. Any order.
    /// `torch.clamp_max`.
    ///
    /// # Errors
    /// As [`Var::clamp`].
    #[track_caller]
    pub fn clamp_max<'a>(&self, high: impl Into<Operand<'a, T>>) -> Result<Self> {
        let high = high.into().into_var();
        let y = self.value().minimum(high.value())?;
        let saved = [Save::Input(self), Save::Input(&high)];
        record("clamp_max", [self.node(), high.node()], saved, y, |ctx, g, sink| {
            let (x, high) = (ctx.saved(0), ctx.saved(1));
            let (op, x, high) = ("clamp_max_backward", x.value(), high.value());
            // x ≤ high is high ≥ x.
            if ctx.needs(0) {
                sink.add_broadcast(0, g.gate3::<WhereNotBelow>(op, high, x)?)?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, g.gate3::<WhereBelow>(op, high, x)?)?;
            }
            Ok(())
        })
    }
}

kernels! { Zip(g: T, mask: T) -> T:
    Through = if mask == T::ZERO { T::ZERO } else { g };
}

kernels! { Zip3(g: T, x: T, low: T) -> T:
    WhereNotBelow = if x >= low { g } else { T::ZERO };
    WhereBelow = if x < low { g } else { T::ZERO };
}

kernels! { Zip3(x: T, low: T, high: T) -> T:
    Inside = if (x >= low) & (x <= high) { T::ONE } else { T::ZERO };
    Below = if (x < low) & (low < high) { T::ONE } else { T::ZERO };
    Above = if (x > high) | (high < low) { T::ONE } else { T::ZERO };
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("clamp", |x| (x * x * x).clamp(-0.5, 0.7)),
        Row::binary("clamp", |x, y| (x * x).clamp(&(y * 0.3), &(y * y + 0.2))),
        Row::binary("clamp", |x, y| (x * y).clamp(x, 0.4)),
        Row::binary("clamp", |x, y| (x * 2.0).clamp(-0.6, &(y * y + 0.1))),
        Row::of("clamp", &[&[2, 1], &[3], &[2, 3]], |x| {
            // Low above high in places: then the value is high.
            (&x[0] * &x[0]).clamp(&(&x[1] * 1.5), &x[2])
        }),
        Row::unary("clamp_min", |x| (x * x * x).clamp_min(-0.4)),
        Row::binary("clamp_min", |x, y| (x * x * 0.7).clamp_min(&(y * y))),
        Row::unary("clamp_max", |x| (x * x * x).clamp_max(0.4)),
        Row::binary("clamp_max", |x, y| (x * x * 0.7).clamp_max(&(y * y))),
    ]
}

#[cfg(test)]
mod tests {
    use tensor::Tensor;

    use crate::tape::Tape;

    #[test]
    fn the_interval_is_closed_and_a_nan_is_outside() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([-1.5_f32, -1.0, 0.0, 2.0, 2.5, f32::NAN]));
        let y = x.clamp(-1.0, 2.0).unwrap();
        assert_eq!(y.value().to_vec()[..5], [-1.0, -1.0, 0.0, 2.0, 2.0]);
        assert!(y.value().to_vec()[5].is_nan());
        let dx = y.sum().backward().unwrap().wrt(&x).unwrap().to_vec();
        assert_eq!(dx, [0.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn bounds_share_the_gradient_as_in_pytorch() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([0.0_f64, 0.0, 0.0, 5.0, 1.0]));
        let low = tape.var(Tensor::from([1.0, 1.0, 3.0, 1.0, 1.0]));
        let high = tape.var(Tensor::from([2.0, 1.0, 2.0, 2.0, 2.0]));
        let y = x.clamp(&low, &high).unwrap();
        assert_eq!(y.value().to_vec(), [1.0, 1.0, 2.0, 2.0, 1.0]);
        let grads = y.sum().backward().unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(grads.wrt(&low).unwrap().to_vec(), [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(grads.wrt(&high).unwrap().to_vec(), [0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn one_sided_bounds_give_a_tie_to_x() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([-1.0_f64, 0.5, 1.0]));
        let bound = tape.var(Tensor::from([0.5_f64]));
        let y = x.clamp_min(&bound).unwrap() * 10.0 + x.clamp_max(&bound).unwrap();
        let grads = y.sum().backward().unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [1.0, 11.0, 10.0]);
        assert_eq!(grads.wrt(&bound).unwrap().to_vec(), [11.0]);
    }
}
