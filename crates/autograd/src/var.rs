//! A variable: a value, and its place on a tape where it has one.

use std::fmt;

use tensor::{Error, Float, Result, Tensor};

use crate::engine;
use crate::gradients::Gradients;
use crate::tape::{NodeRef, Place, Tape};

/// A tensor that may be tracked. Cloning shares value and place.
pub struct Var<T: Float> {
    value: Tensor<T>,
    node: Option<NodeRef<T>>,
}

impl<T: Float> Clone for Var<T> {
    fn clone(&self) -> Self {
        Var { value: self.value.clone(), node: self.node.clone() }
    }
}

/// One output where several may be: what takes `impl Into<Vec<Var<T>>>` takes a variable, an array of
/// them, or a `Vec`.
impl<T: Float> From<Var<T>> for Vec<Var<T>> {
    fn from(x: Var<T>) -> Self {
        vec![x]
    }
}

impl<T: Float> fmt::Debug for Var<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Var({:?}{})", self.value, if self.is_tracked() { ", tracked" } else { "" })
    }
}

impl<T: Float> fmt::Display for Var<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.value, f)
    }
}

impl<T: Float> Var<T> {
    pub(crate) fn new(value: Tensor<T>, node: Option<NodeRef<T>>) -> Self {
        Var { value, node }
    }

    /// A value on no tape.
    pub fn constant(value: Tensor<T>) -> Self {
        Var { value, node: None }
    }

    /// The value.
    pub fn value(&self) -> &Tensor<T> {
        &self.value
    }

    /// The value, given up by the variable.
    pub fn into_value(self) -> Tensor<T> {
        self.value
    }

    /// Value and place apart, so that the value can be overwritten while the place is still named.
    pub(crate) fn into_parts(self) -> (Tensor<T>, Option<NodeRef<T>>) {
        (self.value, self.node)
    }

    /// The place on a tape, as [`record`](crate::record) takes it.
    pub fn node(&self) -> Option<&NodeRef<T>> {
        self.node.as_ref()
    }

    /// The tape, where there is one.
    pub fn tape(&self) -> Option<&Tape<T>> {
        self.node.as_ref().map(|n| &n.tape)
    }

    /// Whether gradients flow through this variable.
    pub fn is_tracked(&self) -> bool {
        matches!(self.node.as_ref().map(NodeRef::current), Some(Place::Node { .. }))
    }

    /// Sizes of the dims.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The only element of the value.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless there is exactly one.
    pub fn item(&self) -> Result<T> {
        self.value.item()
    }

    /// The same value, not tracked, on the same tape.
    #[must_use]
    pub fn detach(&self) -> Self {
        let node = self.tape().map(|t| NodeRef::at(t, Place::Constant));
        Var { value: self.value.clone(), node }
    }

    /// Asks backward to keep the gradient of this intermediate result.
    ///
    /// # Errors
    /// [`Error::NotTracked`]; [`Error::ConsumedTape`].
    pub fn retain(&self) -> Result<()> {
        let (tape, index) = self.tracked("retain")?;
        tape.0.graph.borrow_mut().nodes[index as usize].retain = true;
        Ok(())
    }

    /// Gradients of this variable, which must have one element. Empties the tape.
    ///
    /// # Errors
    /// [`Error::NotScalar`]; [`Error::NotTracked`]; [`Error::ConsumedTape`] if backward already ran;
    /// [`Error::Anomaly`] where the tape watches for it.
    pub fn backward(&self) -> Result<Gradients<T>> {
        self.tracked("backward")?;
        self.backward_with(&self.one()?)
    }

    /// Gradients of `Σ upstream·self`, for a variable of any shape. Empties the tape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless `upstream` has the shape of `self`; else as
    /// [`Var::backward`].
    pub fn backward_with(&self, upstream: &Tensor<T>) -> Result<Gradients<T>> {
        let (tape, index) = self.tracked("backward")?;
        engine::same_shape("backward", self, upstream)?;
        engine::consume(tape, vec![(index, Var::constant(upstream.clone()))])
    }

    /// [`Var::backward`] that leaves the tape as it is, for another one. What was saved stays, too.
    ///
    /// # Errors
    /// As [`Var::backward`].
    pub fn backward_retain(&self) -> Result<Gradients<T>> {
        let (tape, index) = self.tracked("backward")?;
        engine::backward_retain(tape, index, self.one()?)
    }

    /// The upstream gradient of a variable with one element.
    fn one(&self) -> Result<Tensor<T>> {
        if self.value.numel() != 1 {
            return Err(Error::NotScalar { op: "backward", shape: self.shape().to_vec() });
        }
        Ok(self.value.ones_like())
    }

    /// Tape and node of a tracked variable.
    pub(crate) fn tracked(&self, op: &'static str) -> Result<(&Tape<T>, u32)> {
        match self.node.as_ref().map(|n| (n, n.current())) {
            Some((node, Place::Node { index, .. })) => Ok((&node.tape, index)),
            Some((_, Place::Stale)) => Err(Error::ConsumedTape { op }),
            _ => Err(Error::NotTracked { op }),
        }
    }
}
