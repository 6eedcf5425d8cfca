//! Choosing element by element under a mask, which has no gradient.

use tensor::{Float, Result, Tensor};

use super::binary::Operand;
use crate::tape::record;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// `self` where `condition` holds, else `other`, a variable or a number; all three broadcast.
    ///
    /// # Gradient
    /// `dx = g` where it holds, else 0; `dy = g` where it does not, else 0; each summed to its
    /// operand's shape. What is not chosen gets 0 even where g or itself is NaN or infinite. Saves the
    /// mask. Any order.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes do not broadcast;
    /// [`Error::MixedTapes`](crate::Error::MixedTapes).
    ///
    /// # Reference
    /// `torch.Tensor.where`, `torch.where(condition, self, other)`.
    #[doc(alias = "where")]
    #[track_caller]
    pub fn where_cond<'a>(
        &self,
        condition: &Tensor<bool>,
        other: impl Into<Operand<'a, T>>,
    ) -> Result<Self> {
        let other = other.into().into_var();
        let z = condition.where_cond(self.value(), other.value())?;
        let condition = condition.clone();
        record("where", [self.node(), other.node()], [], z, move |ctx, g, sink| {
            if ctx.needs(1) {
                sink.add_broadcast(1, g.masked_fill(&condition, T::ZERO)?)?;
            }
            if ctx.needs(0) {
                sink.add_broadcast(0, g.masked_fill(&condition.logical_not(), T::ZERO)?)?;
            }
            Ok(())
        })
    }

    /// `value` where `mask` holds, else `self`; the mask broadcasts to the shape of `self`. `dx = g`
    /// where it does not hold, else 0. Saves the mask. Any order. `torch.Tensor.masked_fill`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the mask does not broadcast to the
    /// shape of `self`.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Tensor<bool>, value: T) -> Result<Self> {
        let y = self.value().masked_fill(mask, value)?;
        let mask = mask.clone();
        record("masked_fill", [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.masked_fill(&mask, T::ZERO)?)
        })
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::binary("where_cond", |x, y| {
            let condition = x.value().gt(y.value())?.logical_not();
            (x * x).where_cond(&condition, &(y * y))
        }),
        Row::unary("where_cond", |x| (x * x).where_cond(&x.value().lt(0.0)?, 3.0)),
        Row::of("where_cond", &[&[2, 1], &[]], |x| {
            let condition = Tensor::from([true, false, true]);
            (&x[0] * &x[0]).where_cond(&condition, &(&x[1] * &x[1]))
        }),
        Row::unary("masked_fill", |x| (x * x).masked_fill(&x.value().lt(0.3)?, -1.5)),
        Row::of("masked_fill", &[&[2, 3]], |x| {
            (&x[0] * &x[0]).masked_fill(&Tensor::from([true, false, false]), 2.0)
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn what_is_not_chosen_gets_exactly_nothing() {
        let tape = Tape::new();
        let x = tape.var(Tensor::from([f64::NAN, 2.0, f64::INFINITY]));
        let y = tape.var(Tensor::from([1.0, f64::NAN, 3.0]));
        let condition = Tensor::from([false, true, false]);
        let z = x.where_cond(&condition, &y).unwrap();
        assert_eq!(z.value().to_vec(), [1.0, 2.0, 3.0]);
        let upstream = Tensor::from([f64::INFINITY, 5.0, f64::NAN]);
        let grads = z.backward_with(&upstream).unwrap();
        assert_eq!(grads.wrt(&x).unwrap().to_vec(), [0.0, 5.0, 0.0]);
        let dy = grads.wrt(&y).unwrap().to_vec();
        assert!(dy[0] == f64::INFINITY && dy[1] == 0.0 && dy[2].is_nan());
    }

    #[test]
    fn shapes_that_do_not_fit_are_errors() {
        let x = Var::constant(Tensor::from([1.0_f32, 2.0]));
        let mask = Tensor::from([true, false, true]);
        let text = x.where_cond(&mask, 0.0).unwrap_err().to_string();
        assert_eq!(text, "where: shapes do not match: [3] and [2]");
        assert!(x.masked_fill(&mask, 0.0).is_err());
    }
}
