//! The differentiable operations, one place each: formula, forward, what is saved, backward, and the
//! rows of the gradient table that check it.

mod arithmetic;
pub(crate) mod cross_entropy;
mod einsum;
mod elementwise;
mod extrema;
mod linalg;
mod linear;
mod moments;
mod norms;
mod product;
mod reduce;
mod softmax;
mod views;

use tensor::{Float, Result, Tensor};

use crate::engine::Ctx;
use crate::tape::{Save, record};
use crate::var::Var;

impl<T: Float> Var<T> {
    /// An element-wise function whose derivative needs the input: `dx = derivative(x, g)`.
    #[track_caller]
    fn unary_from_input(
        &self,
        name: &'static str,
        forward: impl Fn(&Tensor<T>) -> Tensor<T>,
        derivative: impl Fn(Var<T>, Var<T>) -> Var<T> + Send + 'static,
    ) -> Self {
        self.unary(name, Save::Input(self), forward, move |_, x, g| Ok(derivative(x, g)))
    }

    /// An element-wise function whose derivative needs the output: `dx = derivative(y, g)`.
    #[track_caller]
    fn unary_from_output(
        &self,
        name: &'static str,
        forward: impl Fn(&Tensor<T>) -> Tensor<T>,
        derivative: impl Fn(Var<T>, Var<T>) -> Var<T> + Send + 'static,
    ) -> Self {
        self.unary(name, Save::Output, forward, move |_, y, g| Ok(derivative(y, g)))
    }

    /// [`Var::unary_from_input`] or [`Var::unary_from_output`], as `save` says, with a kernel
    /// `fused(g, saved)` for the ordinary backward.
    #[track_caller]
    fn unary_fused(
        &self,
        name: &'static str,
        save: Save<'_, T>,
        forward: impl Fn(&Tensor<T>) -> Tensor<T>,
        fused: impl Fn(&Tensor<T>, &Tensor<T>) -> Result<Tensor<T>> + Send + 'static,
        derivative: impl Fn(Var<T>, Var<T>) -> Result<Var<T>> + Send + 'static,
    ) -> Self {
        self.unary(name, save, forward, move |ctx, saved, g| {
            if ctx.create_graph() {
                return derivative(saved, g);
            }
            Ok(Var::constant(fused(g.value(), saved.value())?))
        })
    }

    #[track_caller]
    fn unary(
        &self,
        name: &'static str,
        save: Save<'_, T>,
        forward: impl Fn(&Tensor<T>) -> Tensor<T>,
        derivative: impl Fn(&Ctx<T>, Var<T>, Var<T>) -> Result<Var<T>> + Send + 'static,
    ) -> Self {
        let y = forward(self.value());
        total(record(name, [self.node()], [save], y, move |ctx, g, sink| {
            sink.add(0, derivative(ctx, ctx.saved(0), g)?)
        }))
    }
}

/// The result of recording an operation that cannot fail: it has one parent, hence one tape.
fn total<T: Float>(result: Result<Var<T>>) -> Var<T> {
    match result {
        Ok(y) => y,
        Err(error) => unreachable!("bug: {error}"),
    }
}

/// The rows of every file.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    [
        arithmetic::rows(),
        cross_entropy::rows(),
        einsum::rows(),
        elementwise::rows(),
        extrema::rows(),
        linalg::rows(),
        linear::rows(),
        moments::rows(),
        norms::rows(),
        product::rows(),
        reduce::rows(),
        softmax::rows(),
        views::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
