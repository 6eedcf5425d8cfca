//! Bounds: numbers or variables that broadcast.

use tensor::{Float, Result, Tensor};

use super::binary::Operand;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// `y = min(max(x, low), high)`; bounds are variables or numbers that broadcast. NaN in any of
    /// the three gives NaN. Where `low > high`, `y = high`. `torch.clamp`.
    ///
    /// # Gradient
    /// `dx = g` where `low < x < high`, else 0. `dlow = g` where `x < low < high`, `dhigh = g` where
    /// `x > high` or `high < low`, else 0. On a bound, as PyTorch 2.15: 0 where both bounds are
    /// numbers; otherwise x and the bound share g evenly, and x has all of it where `low = high`.
    /// Saves all three. Any order.
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
        let (low, high) = (low.into(), high.into());
        let numbers = matches!((&low, &high), (Operand::Number(_), Operand::Number(_)));
        let (low, high) = (low.into_var(), high.into_var());
        let y = self.value().clamp(low.value(), high.value())?;
        let nodes = [self.node(), low.node(), high.node()];
        let saved = [Save::Input(self), Save::Input(&low), Save::Input(&high)];
        record("clamp", nodes, saved, y, move |ctx, g, sink| {
            let [x, low, high] = [ctx.saved(0), ctx.saved(1), ctx.saved(2)];
            let (x, low, high) = (x.value(), low.value(), high.value());
            if ctx.needs(0) {
                let inside = match numbers {
                    true => x.zip3::<T, Inside>("clamp", low, high)?,
                    false => x.zip3::<T, InsideShared>("clamp", low, high)?,
                };
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

    /// `y = max(x, low)`: `dx = g` where `x > low`, else 0, as PyTorch 2.15; for a bound that is a
    /// variable, [`Var::maximum`], which shares g evenly at a tie. Saves x. Any order.
    /// `torch.clamp_min`.
    ///
    /// # Errors
    /// As [`Var::clamp`].
    #[track_caller]
    pub fn clamp_min<'a>(&self, low: impl Into<Operand<'a, T>>) -> Result<Self> {
        match low.into() {
            Operand::Var(low) => self.maximum(low),
            Operand::Number(low) => {
                let y = self.value().maximum(low)?;
                let saved = [Save::Input(self)];
                record("clamp_min", [self.node()], saved, y, move |ctx, g, sink| {
                    let x = ctx.saved(0);
                    let (x, low) = (x.value(), Tensor::scalar(low));
                    sink.add(0, g.gate3::<WhereAbove>("clamp_min_backward", x, &low)?)
                })
            }
        }
    }

    /// `y = min(x, high)`: `dx = g` where `x < high`, else 0, as PyTorch 2.15; for a bound that is a
    /// variable, [`Var::minimum`], which shares g evenly at a tie. Saves x. Any order.
    /// `torch.clamp_max`.
    ///
    /// # Errors
    /// As [`Var::clamp`].
    #[track_caller]
    pub fn clamp_max<'a>(&self, high: impl Into<Operand<'a, T>>) -> Result<Self> {
        match high.into() {
            Operand::Var(high) => self.minimum(high),
            Operand::Number(high) => {
                let y = self.value().minimum(high)?;
                let saved = [Save::Input(self)];
                record("clamp_max", [self.node()], saved, y, move |ctx, g, sink| {
                    let x = ctx.saved(0);
                    // x < high is high > x.
                    let (x, high) = (x.value(), Tensor::scalar(high));
                    sink.add(0, g.gate3::<WhereAbove>("clamp_max_backward", &high, x)?)
                })
            }
        }
    }
}

kernels! { Zip(g: T, share: T) -> T:
    /// Not a plain product: an infinite g stays away from where the share is 0.
    Through = if share == T::ZERO { T::ZERO } else { g * share };
}

kernels! { Zip3(g: T, x: T, bound: T) -> T:
    WhereAbove = if x > bound { g } else { T::ZERO };
}

/// 1 where `all`, ½ where `half`, else 0.
#[inline(always)]
fn share<T: Float>(all: bool, half: bool) -> T {
    let half = if half { T::from_f64(0.5) } else { T::ZERO };
    if all { T::ONE } else { half }
}

kernels! { Zip3(x: T, low: T, high: T) -> T:
    Inside = share((low < x) & (x < high), false);
    InsideShared = share(
        (low < x) & (x < high) | (x == low) & (x == high),
        (low < high) & ((x == low) | (x == high)),
    );
    Below = share((x < low) & (low < high), (x == low) & (low < high));
    Above = share((x > high) | (high < low), (x == high) & (low < high));
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
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn numbers_bound_an_open_interval_and_a_nan_is_outside() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([-1.5_f32, -1.0, 0.0, 2.0, 2.5, f32::NAN]));
        let y = x.clamp(-1.0, 2.0).unwrap();
        assert_eq!(y.value().to_vec()[..5], [-1.0, -1.0, 0.0, 2.0, 2.0]);
        assert!(y.value().to_vec()[5].is_nan());
        let dx = y.sum().backward().unwrap().wrt(&x).unwrap().to_vec();
        assert_eq!(dx, [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
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
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0, 0.0, 0.0, 0.0, 0.5]);
        assert_eq!(grads.wrt(&low).unwrap().to_vec(), [1.0, 0.0, 0.0, 0.0, 0.5]);
        assert_eq!(grads.wrt(&high).unwrap().to_vec(), [0.0, 0.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn a_tie_with_a_variable_bound_is_shared() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([-1.0_f64, 0.5, 1.0]));
        let bound = tape.var(Tensor::from([0.5_f64]));
        let y = x.clamp_min(&bound).unwrap() * 10.0 + x.clamp_max(&bound).unwrap();
        let grads = y.sum().backward().unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [1.0, 5.5, 10.0]);
        assert_eq!(grads.wrt(&bound).unwrap().to_vec(), [16.5]);
        let x = tape.var(Tensor::from([-1.0_f64, 0.5, 1.0]));
        let y = x.clamp_min(0.5).unwrap() * 10.0 + x.clamp_max(0.5).unwrap();
        assert_eq!(y.sum().backward().unwrap().wrt(&x).unwrap().to_vec(), [1.0, 0.0, 10.0]);
    }
}
