//! The differentiable operations, one place each: formula, forward, what is saved, backward, and the
//! rows of the gradient table that check it.

/// Formulas of `Float`s as the zero-size structs that the skeletons of `tensor` take.
macro_rules! kernels {
    ($trait:ident $arguments:tt -> $out:ty: $($(#[$note:meta])* $name:ident = $formula:expr;)+) => {$(
        $(#[$note])*
        struct $name;
        impl<T: Float> tensor::kernels::$trait<T, T> for $name {
            #[inline(always)]
            fn apply<const FMA: bool> $arguments -> $out { $formula }
        }
    )+};
}

#[cfg(test)]
mod accuracy;
mod activations;
mod arithmetic;
pub(crate) mod attention;
pub(crate) mod batch_norm;
pub(crate) mod binary;
pub(crate) mod binary_cross_entropy;
mod clamp;
pub(crate) mod class_loss;
mod conv;
pub(crate) mod cross_entropy;
pub(crate) mod divergence;
mod dropout;
mod einsum;
mod elementwise;
mod elu;
mod extrema;
mod focal;
mod index;
mod joining;
mod linalg;
mod linear;
pub(crate) mod linear_cross_entropy;
mod moments;
mod normal;
mod normalization;
mod norms;
mod order;
mod piecewise;
pub(crate) mod pool;
mod product;
mod reduce;
mod regression;
mod slicing;
mod soft_cross_entropy;
mod softmax;
mod trigonometry;
mod views;
mod where_cond;

use tensor::kernels::{Zip, Zip3};
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

    /// A step function: `dx = 0`. Saves nothing.
    #[track_caller]
    fn flat(&self, name: &'static str, forward: impl Fn(&Tensor<T>) -> Tensor<T>) -> Self {
        let y = forward(self.value());
        total(record(name, [self.node()], [], y, |_, _, sink| sink.add_zero(0)))
    }

    /// A piecewise linear function: `dx = K(g, x)`, linear in g.
    #[track_caller]
    fn piecewise<K: Zip<T> + 'static>(
        &self,
        name: &'static str,
        forward: impl Fn(&Tensor<T>) -> Tensor<T>,
    ) -> Self {
        self.unary(name, Save::Input(self), forward, move |_, x, g| g.gate::<K>(name, x.value()))
    }

    /// `K(self, x)`, which must be linear in `self`, element by element, and so is its own
    /// transpose: one kernel serves for the derivatives of every order. `x` has the shape of `self`,
    /// or broadcasts to it.
    #[track_caller]
    fn gate<K: Zip<T> + 'static>(&self, name: &'static str, x: &Tensor<T>) -> Result<Self> {
        let y = self.value().zip::<T, K>(name, x)?;
        let x = x.clone();
        record(name, [self.node()], [], y, move |_, g, sink| sink.add(0, g.gate::<K>(name, &x)?))
    }

    /// [`Var::gate`] by two tensors.
    #[track_caller]
    fn gate3<K: Zip3<T, T> + 'static>(
        &self,
        name: &'static str,
        x: &Tensor<T>,
        p: &Tensor<T>,
    ) -> Result<Self> {
        let y = self.value().zip3::<T, K>(name, x, p)?;
        let (x, p) = (x.clone(), p.clone());
        record(name, [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g.gate3::<K>(name, &x, &p)?)
        })
    }
}

/// The result of what cannot fail: of recording an operation with one parent, hence one tape, or of
/// a tensor with a number.
pub(crate) fn total<V>(result: Result<V>) -> V {
    match result {
        Ok(y) => y,
        Err(error) => unreachable!("bug: {error}"),
    }
}

/// The rows of every file.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    [
        activations::rows(),
        arithmetic::rows(),
        attention::rows(),
        batch_norm::rows(),
        binary::rows(),
        binary_cross_entropy::rows(),
        clamp::rows(),
        conv::rows(),
        cross_entropy::rows(),
        divergence::rows(),
        dropout::rows(),
        einsum::rows(),
        elementwise::rows(),
        elu::rows(),
        extrema::rows(),
        focal::rows(),
        index::rows(),
        joining::rows(),
        linalg::rows(),
        linear::rows(),
        linear_cross_entropy::rows(),
        moments::rows(),
        normal::rows(),
        normalization::rows(),
        norms::rows(),
        order::rows(),
        piecewise::rows(),
        pool::rows(),
        product::rows(),
        reduce::rows(),
        regression::rows(),
        slicing::rows(),
        softmax::rows(),
        trigonometry::rows(),
        views::rows(),
        where_cond::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
