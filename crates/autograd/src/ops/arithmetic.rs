//! Arithmetic with broadcasting: `+ − · /` between variables, and with scalars on either side.
//!
//! An operand taken by value is reused for the result where its storage is unshared and nothing
//! needs its old value.

use std::ops::{Add, Div, Mul, Neg, Sub};

use tensor::{Float, Result, Tensor};

use super::total;
use crate::tape::{NodeRef, Save, record, record_number};
use crate::var::Var;

type Node<'a, T> = Option<&'a NodeRef<T>>;

/// `z = x + y`: dx = g, dy = g. Saves nothing.
#[track_caller]
fn add<T: Float>(x: Node<'_, T>, y: Node<'_, T>, z: Tensor<T>) -> Result<Var<T>> {
    record("add", [x, y], [], z, |ctx, g, sink| {
        if ctx.needs(0) && ctx.needs(1) {
            sink.add_broadcast(0, g.clone())?;
        } else if ctx.needs(0) {
            return sink.add_broadcast(0, g);
        }
        sink.add_broadcast(1, g)
    })
}

/// `z = x − y`: dx = g, dy = −g. Saves nothing.
#[track_caller]
fn sub<T: Float>(x: Node<'_, T>, y: Node<'_, T>, z: Tensor<T>) -> Result<Var<T>> {
    record("sub", [x, y], [], z, |ctx, g, sink| {
        if ctx.needs(1) {
            sink.add_broadcast(1, -&g)?;
        }
        sink.add_broadcast(0, g)
    })
}

/// `z = x·y`: dx = g·y, dy = g·x. Saves the factor of each tracked operand.
#[track_caller]
fn mul<T: Float>(x: &Var<T>, y: &Var<T>, z: Tensor<T>) -> Result<Var<T>> {
    let nodes = [x.node(), y.node()];
    match (x.is_tracked(), y.is_tracked()) {
        (true, false) => record("mul", nodes, [Save::Input(y)], z, |ctx, g, sink| {
            sink.add_broadcast(0, g * ctx.saved(0))
        }),
        (false, true) => record("mul", nodes, [Save::Input(x)], z, |ctx, g, sink| {
            sink.add_broadcast(1, g * ctx.saved(0))
        }),
        _ => record("mul", nodes, [Save::Input(x), Save::Input(y)], z, |ctx, g, sink| {
            if ctx.needs(0) {
                sink.add_broadcast(0, &g * &ctx.saved(1))?;
            }
            if ctx.needs(1) {
                sink.add_broadcast(1, g * ctx.saved(0))?;
            }
            Ok(())
        }),
    }
}

/// `z = x/y`: dx = g/y, dy = −g·z/y. Saves y, and z where y is tracked.
#[track_caller]
fn div<T: Float>(x: &Var<T>, y: &Var<T>, z: Tensor<T>) -> Result<Var<T>> {
    let nodes = [x.node(), y.node()];
    if !y.is_tracked() {
        return record("div", nodes, [Save::Input(y)], z, |ctx, g, sink| {
            sink.add_broadcast(0, g / ctx.saved(0))
        });
    }
    record("div", nodes, [Save::Input(y), Save::Output], z, |ctx, g, sink| {
        let dx = g / ctx.saved(0);
        if ctx.needs(1) {
            sink.add_broadcast(1, -(&dx * &ctx.saved(1)))?;
        }
        sink.add_broadcast(0, dx)
    })
}

/// Arithmetic that reports shapes that do not broadcast, and operands of two tapes, as errors.
impl<T: Float> Var<T> {
    /// `self + rhs`, broadcasting; dx = g, dy = g, summed to each operand's shape. Saves nothing.
    /// Any order. `torch.add`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch), [`Error::MixedTapes`](crate::Error::MixedTapes).
    #[track_caller]
    pub fn checked_add(&self, rhs: &Self) -> Result<Self> {
        add(self.node(), rhs.node(), self.value().checked_add(rhs.value())?)
    }

    /// `self − rhs`, broadcasting; dx = g, dy = −g, summed to each operand's shape. Saves nothing.
    /// Any order. `torch.sub`.
    ///
    /// # Errors
    /// As [`Var::checked_add`].
    #[track_caller]
    pub fn checked_sub(&self, rhs: &Self) -> Result<Self> {
        sub(self.node(), rhs.node(), self.value().checked_sub(rhs.value())?)
    }

    /// `self · rhs`, broadcasting; dx = g·y, dy = g·x, summed to each operand's shape. Saves the
    /// factor of each tracked operand. Any order. `torch.mul`.
    ///
    /// # Errors
    /// As [`Var::checked_add`].
    #[track_caller]
    pub fn checked_mul(&self, rhs: &Self) -> Result<Self> {
        mul(self, rhs, self.value().checked_mul(rhs.value())?)
    }

    /// `self / rhs`, broadcasting; dx = g/y, dy = −g·x/y², summed to each operand's shape. Saves the
    /// divisor, and the result where the divisor is tracked. Any order. `torch.div`.
    ///
    /// # Errors
    /// As [`Var::checked_add`].
    #[track_caller]
    pub fn checked_div(&self, rhs: &Self) -> Result<Self> {
        div(self, rhs, self.value().checked_div(rhs.value())?)
    }
}

impl<T: Float> Var<T> {
    /// `self + rhs` of equal shapes, into the storage of `self` where that is unshared.
    pub(crate) fn accumulate(self, rhs: Self) -> Result<Self> {
        let ((x, x_node), (y, y_node)) = (self.into_parts(), rhs.into_parts());
        add(x_node.as_ref(), y_node.as_ref(), x + y)
    }
}

#[track_caller]
fn unwrap<T: Float>(result: Result<Var<T>>) -> Var<T> {
    match result {
        Ok(y) => y,
        Err(error) => panic!("{error}"),
    }
}

/// Operators that save no operand: values taken by value may always be reused.
macro_rules! linear_operator {
    ($trait:ident, $method:ident, $record:ident, $checked:ident) => {
        /// Panics if the shapes do not broadcast, or on operands of two tapes.
        impl<T: Float> $trait<&Var<T>> for &Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: &Var<T>) -> Var<T> {
                unwrap(self.$checked(rhs))
            }
        }
        impl<T: Float> $trait<&Var<T>> for Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: &Var<T>) -> Var<T> {
                let (x, node) = self.into_parts();
                unwrap($record(node.as_ref(), rhs.node(), x.$method(rhs.value())))
            }
        }
        impl<T: Float> $trait<Var<T>> for &Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: Var<T>) -> Var<T> {
                let (y, node) = rhs.into_parts();
                unwrap($record(self.node(), node.as_ref(), self.value().$method(y)))
            }
        }
        impl<T: Float> $trait<Var<T>> for Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: Var<T>) -> Var<T> {
                let ((x, x_node), (y, y_node)) = (self.into_parts(), rhs.into_parts());
                unwrap($record(x_node.as_ref(), y_node.as_ref(), x.$method(y)))
            }
        }
    };
}

linear_operator!(Add, add, add, checked_add);
linear_operator!(Sub, sub, sub, checked_sub);

/// Operators that save operands: values are reused only where nothing is recorded.
macro_rules! saving_operator {
    ($trait:ident, $method:ident, $checked:ident) => {
        /// Panics if the shapes do not broadcast, or on operands of two tapes.
        impl<T: Float> $trait<&Var<T>> for &Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: &Var<T>) -> Var<T> {
                unwrap(self.$checked(rhs))
            }
        }
        impl<T: Float> $trait<&Var<T>> for Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: &Var<T>) -> Var<T> {
                if self.node().is_some() || rhs.node().is_some() {
                    return (&self).$method(rhs);
                }
                Var::constant(self.into_value().$method(rhs.value()))
            }
        }
        impl<T: Float> $trait<Var<T>> for &Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: Var<T>) -> Var<T> {
                if self.node().is_some() || rhs.node().is_some() {
                    return self.$method(&rhs);
                }
                Var::constant(self.value().$method(rhs.into_value()))
            }
        }
        impl<T: Float> $trait<Var<T>> for Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, rhs: Var<T>) -> Var<T> {
                if self.node().is_some() || rhs.node().is_some() {
                    return (&self).$method(&rhs);
                }
                Var::constant(self.into_value().$method(rhs.into_value()))
            }
        }
    };
}

saving_operator!(Mul, mul, checked_mul);
saving_operator!(Div, div, checked_div);

/// `x + c` and `x − c`: dx = g.
#[track_caller]
fn shift<T: Float>(x: Node<'_, T>, y: Tensor<T>) -> Var<T> {
    total(record("add_scalar", [x], [], y, |_, g, sink| sink.add(0, g)))
}

/// `y = x/c`: dx = g/c. (Not g·(1/c), which may overflow.)
#[track_caller]
fn unscale<T: Float>(x: Node<'_, T>, y: Tensor<T>, c: T) -> Var<T> {
    total(record_number("div_scalar", x, y, c, |_, g, sink, c| sink.add(0, g / c)))
}

/// `y = c·x`: dx = c·g.
#[track_caller]
fn scale<T: Float>(x: Node<'_, T>, y: Tensor<T>, c: T) -> Var<T> {
    total(record_number("mul_scalar", x, y, c, |_, g, sink, c| sink.add(0, g * c)))
}

/// `c − x` and `−x`: dx = −g.
#[track_caller]
fn negate<T: Float>(x: Node<'_, T>, y: Tensor<T>) -> Var<T> {
    total(record("neg", [x], [], y, |_, g, sink| sink.add(0, -g)))
}

/// `y = c/x`: dx = −g·y/x. Saves input and output.
#[track_caller]
fn reciprocal<T: Float>(x: &Var<T>, y: Tensor<T>) -> Var<T> {
    let saved = [Save::Input(x), Save::Output];
    total(record("scalar_div", [x.node()], saved, y, |ctx, g, sink| {
        sink.add(0, -(g * ctx.saved(1) / ctx.saved(0)))
    }))
}

/// `x ∘ c` for a scalar on the right, by value and by reference.
macro_rules! scalar_right {
    ($trait:ident, $method:ident, |$node:ident, $y:ident, $c:ident| $record:expr) => {
        impl<T: Float> $trait<T> for &Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, $c: T) -> Var<T> {
                let ($node, $y) = (self.node(), self.value().$method($c));
                $record
            }
        }
        impl<T: Float> $trait<T> for Var<T> {
            type Output = Var<T>;
            #[track_caller]
            fn $method(self, $c: T) -> Var<T> {
                let (x, node) = self.into_parts();
                let ($node, $y) = (node.as_ref(), x.$method($c));
                $record
            }
        }
    };
}

scalar_right!(Add, add, |x, y, c| shift(x, y));
scalar_right!(Sub, sub, |x, y, c| shift(x, y));
scalar_right!(Mul, mul, |x, y, c| scale(x, y, c));
scalar_right!(Div, div, |x, y, c| unscale(x, y, c));

/// `c ∘ x` for a scalar on the left; the language wants the types written out.
macro_rules! scalar_left {
    ($type:ident) => {
        impl Add<&Var<$type>> for $type {
            type Output = Var<$type>;
            #[track_caller]
            fn add(self, x: &Var<$type>) -> Var<$type> {
                shift(x.node(), self + x.value())
            }
        }
        impl Sub<&Var<$type>> for $type {
            type Output = Var<$type>;
            #[track_caller]
            fn sub(self, x: &Var<$type>) -> Var<$type> {
                negate(x.node(), self - x.value())
            }
        }
        impl Mul<&Var<$type>> for $type {
            type Output = Var<$type>;
            #[track_caller]
            fn mul(self, x: &Var<$type>) -> Var<$type> {
                scale(x.node(), self * x.value(), self)
            }
        }
        impl Div<&Var<$type>> for $type {
            type Output = Var<$type>;
            #[track_caller]
            fn div(self, x: &Var<$type>) -> Var<$type> {
                reciprocal(x, self / x.value())
            }
        }
        scalar_left!(@owned $type, Add, add);
        scalar_left!(@owned $type, Sub, sub);
        scalar_left!(@owned $type, Mul, mul);
        scalar_left!(@owned $type, Div, div);
    };
    (@owned $type:ident, $trait:ident, $method:ident) => {
        impl $trait<Var<$type>> for $type {
            type Output = Var<$type>;
            #[track_caller]
            fn $method(self, x: Var<$type>) -> Var<$type> {
                self.$method(&x)
            }
        }
    };
}

scalar_left!(f32);
scalar_left!(f64);

impl<T: Float> Neg for &Var<T> {
    type Output = Var<T>;
    #[track_caller]
    fn neg(self) -> Var<T> {
        negate(self.node(), -self.value())
    }
}

impl<T: Float> Neg for Var<T> {
    type Output = Var<T>;
    #[track_caller]
    fn neg(self) -> Var<T> {
        let (x, node) = self.into_parts();
        negate(node.as_ref(), -x)
    }
}

/// What the gradient-checking suite tries.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::binary("checked_add", |x, y| x.checked_add(y)),
        Row::binary("checked_sub", |x, y| x.checked_sub(y)),
        Row::binary("checked_mul", |x, y| x.checked_mul(y)),
        Row::binary("checked_div", |x, y| x.checked_div(&(y * y + 1.0))),
        Row::binary("operators by value", |x, y| {
            Ok((x.clone() + y - x.clone() * y) / (y.clone() * y.clone() + 1.0))
        }),
        Row::binary("operators by reference", |x, y| {
            Ok(x - (y.clone() - x) * (x + y.clone()) / (y * y + 2.0))
        }),
        Row::unary("scalars", |x| Ok(2.0 - (x * 3.0 + 1.0) / 4.0 - 0.5 + 2.0 * x + 1.0 * -x)),
        Row::unary("scalar / x", |x| Ok(3.0 / (x * x + 1.0))),
        Row::unary("same operand twice", |x| x.checked_mul(x)?.checked_add(x)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    #[test]
    fn operands_of_two_tapes_are_refused() {
        let (a, b) = (Tape::<f64>::new(), Tape::new());
        let (x, y) = (a.var(Tensor::scalar(1.0)), b.var(Tensor::scalar(1.0)));
        let text = x.checked_add(&y).unwrap_err().to_string();
        assert!(text.starts_with("add: the operands are on two different tapes"), "{text}");
        assert!(x.checked_mul(&y).is_err() && x.checked_div(&y).is_err());
    }
}
