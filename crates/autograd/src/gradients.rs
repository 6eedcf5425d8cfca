//! Gradients as a value.

use std::collections::BTreeMap;
use std::fmt;

use tensor::{Error, Float, Result, Tensor};

use crate::tape::{Node, ParameterId, Place, Tape};
use crate::training::Left;
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
#[derive(Clone)]
pub struct Gradients<T: Float> {
    tape: u64,
    epoch: u32,
    /// By node; those of parameters stand below.
    nodes: BTreeMap<u32, Tensor<T>>,
    parameters: BTreeMap<ParameterId, Tensor<T>>,
    bound: BTreeMap<u32, ParameterId>,
    pub(crate) buffers: Left<T>,
    /// What each node was: for errors.
    origins: Vec<Origin>,
}

impl<T: Float> fmt::Debug for Gradients<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nodes, parameters) = (self.nodes.len(), self.parameters.len());
        write!(f, "Gradients({nodes} variables, {parameters} parameters)")
    }
}

impl<T: Float> Gradients<T> {
    pub(crate) fn new(tape: &Tape<T>, epoch: u32, origins: Vec<Origin>) -> Self {
        Gradients {
            tape: tape.0.id,
            epoch,
            nodes: BTreeMap::new(),
            parameters: BTreeMap::new(),
            bound: BTreeMap::new(),
            buffers: tape.left(epoch),
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

    /// Names the parameters among the nodes.
    pub(crate) fn bind(&mut self, parameters: BTreeMap<ParameterId, u32>) {
        for (id, node) in parameters {
            // A variable that stands for several parameters has its gradient in each.
            let gradient = match self.bound.insert(node, id) {
                None => self.nodes.remove(&node),
                Some(other) => self.parameters.get(&other).cloned(),
            };
            if let Some(gradient) = gradient {
                self.parameters.insert(id, gradient);
            }
        }
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
        let index = self.index(op, x)?;
        match (self.origins.get(index as usize), self.node(index)) {
            (Some(Origin::Bypassed), _) => Err(Error::Bypassed { op }),
            (_, Some(gradient)) => Ok(gradient),
            (Some(&Origin::Result(node)), None) => Err(Error::NotRetained { op, node }),
            _ => Err(Error::NoGradient { op }),
        }
    }

    fn index(&self, op: &'static str, x: &Var<T>) -> Result<u32> {
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
        Ok(index)
    }

    fn node(&self, index: u32) -> Option<&Tensor<T>> {
        self.nodes.get(&index).or_else(|| self.parameters.get(self.bound.get(&index)?))
    }

    /// [`Gradients::wrt`] that gives the tensor away; `None` where there is none.
    pub(crate) fn take(&mut self, x: &Var<T>) -> Option<Tensor<T>> {
        let index = self.index("take", x).ok()?;
        self.nodes.remove(&index).or_else(|| self.parameters.remove(self.bound.get(&index)?))
    }

    /// The gradient of a bound parameter, if it received one.
    pub fn parameter(&self, id: ParameterId) -> Option<&Tensor<T>> {
        self.parameters.get(&id)
    }

    /// Adds the gradients of `other`, to accumulate over parts of a batch: those of the same
    /// parameters, and, where both come from one recording, of the same variables. New values of
    /// buffers are averaged.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if a parameter has two shapes; nothing is added then.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        for (id, g) in &other.parameters {
            match self.parameters.get(id) {
                Some(own) if own.shape() != g.shape() => {
                    let (lhs, rhs) = (own.shape().to_vec(), g.shape().to_vec());
                    return Err(Error::ShapeMismatch { op: "add_assign", lhs, rhs });
                }
                _ => {}
            }
        }
        accumulate(&mut self.parameters, &other.parameters);
        self.buffers.add_assign(&other.buffers);
        if (self.tape, self.epoch) == (other.tape, other.epoch) {
            accumulate(&mut self.nodes, &other.nodes);
        }
        Ok(())
    }

    /// Multiplies every gradient by `factor`.
    pub fn scale(&mut self, factor: f64) {
        self.each(|g| g * T::from_f64(factor));
    }

    /// The Euclidean norm of all gradients together.
    pub fn norm(&self) -> f64 {
        let norms = self.parameters.values().chain(self.nodes.values());
        norms.fold(0.0_f64, |norm, g| norm.hypot(g.norm(2.0).item().map_or(0.0, T::to_f64)))
    }

    /// Scales all gradients together so that their norm is at most `max_norm`; returns the norm they
    /// had. `torch.nn.utils.clip_grad_norm_`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `max_norm` is positive, and where the norm is not finite:
    /// nothing is changed then, for there is no direction to keep.
    pub fn clip_norm(&mut self, max_norm: f64) -> Result<f64> {
        let op = "clip_norm";
        positive(op, "max_norm", max_norm)?;
        let norm = self.norm();
        if !norm.is_finite() {
            let reason = format!("have norm {norm}, which no factor makes finite");
            return Err(Error::InvalidArgument { op, name: "gradients", reason });
        }
        if norm > max_norm {
            self.scale(max_norm / norm);
        }
        Ok(norm)
    }

    /// Limits every element to `[−limit, limit]`; NaN stays. `torch.nn.utils.clip_grad_value_`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `limit` is positive.
    pub fn clip_value(&mut self, limit: f64) -> Result<()> {
        positive("clip_value", "limit", limit)?;
        let (low, high) = (T::from_f64(-limit), T::from_f64(limit));
        for g in self.parameters.values_mut().chain(self.nodes.values_mut()) {
            *g = g.clamp(low, high)?;
        }
        Ok(())
    }

    /// Replaces each gradient, in its own storage where nobody shares it.
    fn each(&mut self, f: impl Fn(Tensor<T>) -> Tensor<T>) {
        for g in self.parameters.values_mut().chain(self.nodes.values_mut()) {
            *g = f(std::mem::replace(g, Tensor::scalar(T::ZERO)));
        }
    }
}

fn positive(op: &'static str, name: &'static str, value: f64) -> Result<()> {
    if value > 0.0 {
        return Ok(());
    }
    Err(Error::InvalidArgument { op, name, reason: format!("must be positive, found {value}") })
}

fn accumulate<K: Copy + Ord, T: Float>(
    sums: &mut BTreeMap<K, Tensor<T>>,
    more: &BTreeMap<K, Tensor<T>>,
) {
    for (&key, g) in more {
        match sums.get_mut(&key) {
            Some(sum) => *sum += g,
            None => {
                sums.insert(key, g.clone());
            }
        }
    }
}
