//! Gradients as a value.

use std::collections::BTreeMap;
use std::fmt;

use tensor::{Error, Float, Result, Tensor};

use crate::tape::{Node, ParameterId, Place, Tape};
use crate::var::Var;

/// What a node of the consumed tape was.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin {
    /// A leaf, a parameter, or a result marked to be kept.
    Kept,
    /// A result of the named operation.
    Result(&'static str),
    /// A result that a fused loss went past.
    Bypassed,
}

impl Origin {
    pub(crate) fn of_all<T: Float>(nodes: &[Node<T>]) -> Vec<Self> {
        let of = |n: &Node<T>| if n.retain { Origin::Kept } else { Origin::Result(n.name) };
        nodes.iter().map(of).collect()
    }
}

/// What `backward` returns: plain tensors, independent of the tape, and `Send`.
pub struct Gradients<T: Float> {
    tape: u64,
    epoch: u32,
    nodes: BTreeMap<u32, Tensor<T>>,
    parameters: BTreeMap<ParameterId, u32>,
    /// What each node was: for errors.
    origins: Vec<Origin>,
}

impl<T: Float> fmt::Debug for Gradients<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gradients({})", self.nodes.len())
    }
}

impl<T: Float> Gradients<T> {
    pub(crate) fn new(tape: &Tape<T>, epoch: u32, origins: Vec<Origin>) -> Self {
        Gradients {
            tape: tape.0.id,
            epoch,
            nodes: BTreeMap::new(),
            parameters: BTreeMap::new(),
            origins,
        }
    }

    /// Remembers that a loss went past the log-probabilities of this node.
    pub(crate) fn bypass(&mut self, node: u32) {
        self.origins[node as usize] = Origin::Bypassed;
    }

    pub(crate) fn insert(&mut self, node: u32, gradient: Tensor<T>) {
        self.nodes.insert(node, gradient);
    }

    pub(crate) fn bind(&mut self, parameters: BTreeMap<ParameterId, u32>) {
        self.parameters = parameters;
    }

    /// The gradient with respect to `x`, a leaf or a variable marked [`Var::retain`].
    ///
    /// # Errors
    /// [`Error::NotTracked`] for a constant; [`Error::MixedTapes`] for a variable of another tape;
    /// [`Error::ConsumedTape`] for one of an earlier or later recording on this tape;
    /// [`Error::NotRetained`] for an intermediate result; [`Error::Bypassed`] for log-probabilities
    /// that a loss was fused with; [`Error::NoGradient`] where the output does not depend on `x`.
    pub fn wrt(&self, x: &Var<T>) -> Result<&Tensor<T>> {
        let op = "wrt";
        let place = x.node().map(|n| (n.tape.0.id, n.place()));
        let (tape, index, epoch) = match place {
            Some((tape, Place::Node { index, epoch })) => (tape, index, epoch),
            Some((_, Place::Stale)) => return Err(Error::ConsumedTape { op }),
            _ => return Err(Error::NotTracked { op }),
        };
        if tape != self.tape {
            return Err(Error::MixedTapes { op });
        }
        if epoch != self.epoch {
            return Err(Error::ConsumedTape { op });
        }
        match (self.origins.get(index as usize), self.nodes.get(&index)) {
            (Some(Origin::Bypassed), _) => Err(Error::Bypassed { op }),
            (_, Some(gradient)) => Ok(gradient),
            (Some(&Origin::Result(node)), None) => Err(Error::NotRetained { op, node }),
            _ => Err(Error::NoGradient { op }),
        }
    }

    /// The gradient of a bound parameter, if it received one.
    pub fn parameter(&self, id: ParameterId) -> Option<&Tensor<T>> {
        self.nodes.get(self.parameters.get(&id)?)
    }
}
