//! The tape: a vector of nodes in execution order, so that walking it backwards is a topological
//! order.
//!
//! Invariants:
//! 1. The parents of a node have smaller indices than the node.
//! 2. `epoch` grows whenever nodes are removed; a [`NodeRef`] of an older epoch is stale.
//! 3. The tape holds no value but the saved ones, and no closure holds a tracked [`Var`] (`Send`
//!    forbids it), so that a tape never keeps itself alive.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use smallvec::SmallVec;
use tensor::{Error, Float, Generator, Result, Shape, Tensor};

use crate::engine::{Ctx, Sink};
use crate::var::Var;

/// Identity of a parameter, unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParameterId(u64);

impl ParameterId {
    /// An identity that no other parameter has.
    #[expect(
        clippy::new_without_default,
        reason = "no two identities are alike, so none is default"
    )]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ParameterId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// How the engine calls a recorded operation: with the upstream gradient, which it hands over.
pub(crate) type Backward<T> = Box<dyn Fn(&Ctx<T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send>;

/// What an operation is beyond its name, where another operation wants to recognise it. Private, so
/// that no operation of a user's can pass for one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Plain,
    /// Log-softmax along a dim; saves its input first.
    LogSoftmax {
        dim: usize,
    },
    /// A loss on the logits that went past these log-probabilities.
    FusedLoss {
        past: u32,
    },
}

/// A value that backward needs.
pub(crate) struct Saved<T: Float> {
    pub(crate) value: Tensor<T>,
    /// The node it is the result of, where it is tracked.
    pub(crate) node: Option<u32>,
}

pub(crate) struct Node<T: Float> {
    pub(crate) name: &'static str,
    /// The line of the caller's code that recorded it.
    pub(crate) location: &'static Location<'static>,
    pub(crate) tag: Tag,
    pub(crate) shape: Shape,
    /// `None` for operands that are not tracked.
    pub(crate) parents: SmallVec<[Option<u32>; 2]>,
    pub(crate) saved: SmallVec<[Saved<T>; 2]>,
    /// `None` for leaves, and while the engine runs it.
    pub(crate) backward: Option<Backward<T>>,
    pub(crate) leaf: bool,
    pub(crate) retain: bool,
}

pub(crate) struct Inner<T: Float> {
    pub(crate) nodes: RefCell<Vec<Node<T>>>,
    pub(crate) bindings: RefCell<BTreeMap<ParameterId, u32>>,
    pub(crate) epoch: Cell<u32>,
    /// The seed of training mode; `None` in evaluation.
    pub(crate) seed: Option<u64>,
    /// Generators handed out so far: which stream of the seed comes next.
    pub(crate) streams: Cell<u64>,
    /// Unique in the process, so that gradients can name their tape without holding it.
    pub(crate) id: u64,
}

/// Records the computations of its variables. Cloning gives another handle to the same tape.
pub struct Tape<T: Float>(pub(crate) Rc<Inner<T>>);

impl<T: Float> Clone for Tape<T> {
    fn clone(&self) -> Self {
        Tape(Rc::clone(&self.0))
    }
}

impl<T: Float> Default for Tape<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Float> fmt::Debug for Tape<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({} nodes)", self.len())
    }
}

/// A variable's place on a tape.
pub struct NodeRef<T: Float> {
    pub(crate) tape: Tape<T>,
    pub(crate) place: Place,
}

impl<T: Float> Clone for NodeRef<T> {
    fn clone(&self) -> Self {
        NodeRef { tape: self.tape.clone(), place: self.place }
    }
}

/// What a variable is on its tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Not tracked: no gradient flows through it.
    Constant,
    /// The result of a node.
    Node { index: u32, epoch: u32 },
    /// Computed from a variable of a consumed tape; every use of it for a gradient is an error.
    Stale,
}

impl<T: Float> Tape<T> {
    /// An empty tape, in evaluation mode: dropout does nothing.
    pub fn new() -> Self {
        Self::with_seed(None)
    }

    /// An empty tape in training mode. What is random in a step (dropout) draws from this seed: the
    /// same seed and the same calls give the same numbers.
    pub fn training(seed: u64) -> Self {
        Self::with_seed(Some(seed))
    }

    fn with_seed(seed: Option<u64>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tape(Rc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            nodes: RefCell::new(Vec::new()),
            bindings: RefCell::new(BTreeMap::new()),
            epoch: Cell::new(0),
            seed,
            streams: Cell::new(0),
        }))
    }

    /// Whether this is a step of training; see [`Tape::training`].
    pub fn is_training(&self) -> bool {
        self.0.seed.is_some()
    }

    /// Random numbers for one call of an operation, none of which another call gets; `None` in
    /// evaluation mode, where an operation must not be random.
    pub fn generator(&self) -> Option<Generator> {
        let seed = self.0.seed?;
        let stream = self.0.streams.get();
        self.0.streams.set(stream.wrapping_add(1));
        Some(Generator::with_stream(seed, stream))
    }

    /// A tracked variable: gradients with respect to it can be asked for.
    #[track_caller]
    pub fn var(&self, value: Tensor<T>) -> Var<T> {
        let index = self.push_leaf(Shape::from(value.shape()));
        Var::new(value, Some(self.node(index)))
    }

    /// A value that is not tracked, on this tape: a module that gets it binds its parameters here.
    pub fn constant(&self, value: Tensor<T>) -> Var<T> {
        Var::new(value, Some(NodeRef { tape: self.clone(), place: Place::Constant }))
    }

    /// The tracked variable of a parameter: the same node for every call until the tape is emptied,
    /// so that the gradients of a shared parameter add up. The tape keeps the identity, not `value`.
    ///
    /// Where `value` has another shape than at the first call, there is no gradient that would fit
    /// both: the variable is stale, and backward from anything computed with it is an error.
    #[track_caller]
    pub fn bind(&self, id: ParameterId, value: &Tensor<T>) -> Var<T> {
        let bound = self.0.bindings.borrow().get(&id).copied();
        let fits = |i: u32| *self.0.nodes.borrow()[i as usize].shape == *value.shape();
        if bound.is_some_and(|i| !fits(i)) {
            let node = NodeRef { tape: self.clone(), place: Place::Stale };
            return Var::new(value.clone(), Some(node));
        }
        let index = match bound {
            Some(index) => index,
            None => {
                let index = self.push_leaf(Shape::from(value.shape()));
                self.0.bindings.borrow_mut().insert(id, index);
                index
            }
        };
        Var::new(value.clone(), Some(self.node(index)))
    }

    /// The number of nodes recorded since the tape was last emptied.
    pub fn len(&self) -> usize {
        self.0.nodes.borrow().len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything recorded; variables of the tape become stale.
    pub fn clear(&self) {
        self.0.epoch.set(self.0.epoch.get().wrapping_add(1));
        self.0.bindings.borrow_mut().clear();
        // Taken out first: dropping values must not happen under the borrow.
        let mut nodes = std::mem::take(&mut *self.0.nodes.borrow_mut());
        nodes.clear();
        *self.0.nodes.borrow_mut() = nodes;
    }

    /// The names of the recorded operations, oldest first; leaves are called `leaf`.
    pub fn op_names(&self) -> Vec<&'static str> {
        self.0.nodes.borrow().iter().map(|n| n.name).collect()
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn node(&self, index: u32) -> NodeRef<T> {
        let place = Place::Node { index, epoch: self.0.epoch.get() };
        NodeRef { tape: self.clone(), place }
    }

    #[track_caller]
    fn push_leaf(&self, shape: Shape) -> u32 {
        self.push(Node {
            name: "leaf",
            location: Location::caller(),
            tag: Tag::Plain,
            shape,
            parents: SmallVec::new(),
            saved: SmallVec::new(),
            backward: None,
            leaf: true,
            retain: true,
        })
    }

    #[track_caller]
    pub(crate) fn push_op(
        &self,
        name: &'static str,
        tag: Tag,
        parents: SmallVec<[Option<u32>; 2]>,
        saved: SmallVec<[Saved<T>; 2]>,
        value: Tensor<T>,
        backward: Backward<T>,
    ) -> Var<T> {
        let index = self.push(Node {
            name,
            location: Location::caller(),
            tag,
            shape: Shape::from(value.shape()),
            parents,
            saved,
            backward: Some(backward),
            leaf: false,
            retain: false,
        });
        Var::new(value, Some(self.node(index)))
    }

    fn push(&self, node: Node<T>) -> u32 {
        let mut nodes = self.0.nodes.borrow_mut();
        let index = nodes.len();
        nodes.push(node);
        match u32::try_from(index) {
            Ok(index) => index,
            Err(_) => panic!("a tape holds at most 2³² operations"),
        }
    }
}

impl<T: Float> NodeRef<T> {
    /// The place now: a node of an emptied tape is stale.
    pub(crate) fn current(&self) -> Place {
        match self.place {
            Place::Node { epoch, .. } if epoch != self.tape.0.epoch.get() => Place::Stale,
            place => place,
        }
    }
}

/// Something that backward needs: an operand, or the result itself.
#[derive(Debug)]
pub enum Save<'a, T: Float> {
    /// A variable that existed before.
    Input(&'a Var<T>),
    /// The result of the operation.
    Output,
}

/// Records an operation with its result `value`, and returns the result as a variable.
///
/// `parents` are the operands' places ([`Var::node`]) in the order in which `backward` delivers
/// their gradients. `saved` lists all that backward differentiates through; it reads them with
/// [`Ctx::saved`]. The closure itself may capture indices, masks and shapes, but no `Var`: capturing
/// one does not compile.
///
/// `backward` owns the upstream gradient, which has the shape of `value`, and gives each parent its
/// gradient with [`Sink::add`], written with `Var` operations, so that the second derivative
/// follows. It need not compute what [`Ctx::needs`] denies, but must deliver all that it grants:
/// a gradient that is forgotten is an error, not a zero.
///
/// Nothing is recorded where no parent is tracked.
///
/// # Errors
/// [`Error::MixedTapes`] if the parents are on different tapes. (A parent of a consumed tape makes a
/// stale result: values are right, and `backward` says [`Error::ConsumedTape`].)
///
/// # Examples
/// ```
/// use autograd::{record, Result, Save, Tape, Tensor, Var};
///
/// /// `y = x²`, `dx = 2·g·x`.
/// fn square(x: &Var<f64>) -> Result<Var<f64>> {
///     let y = x.value() * x.value();
///     record("square", [x.node()], [Save::Input(x)], y, |ctx, g, sink| {
///         sink.add(0, &(g * 2.0) * &ctx.saved(0))
///     })
/// }
///
/// let tape = Tape::new();
/// let x = tape.var(Tensor::scalar(3.0));
/// let grads = square(&x)?.backward()?;
/// assert_eq!(grads.wrt(&x)?.item()?, 6.0);
/// # Ok::<(), autograd::Error>(())
/// ```
#[track_caller]
pub fn record<T: Float, const P: usize, const M: usize>(
    name: &'static str,
    parents: [Option<&NodeRef<T>>; P],
    saved: [Save<'_, T>; M],
    value: Tensor<T>,
    backward: impl Fn(&Ctx<T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send + 'static,
) -> Result<Var<T>> {
    record_tagged(name, Tag::Plain, parents, saved, value, backward)
}

#[track_caller]
pub(crate) fn record_tagged<T: Float, const P: usize, const M: usize>(
    name: &'static str,
    tag: Tag,
    parents: [Option<&NodeRef<T>>; P],
    saved: [Save<'_, T>; M],
    value: Tensor<T>,
    backward: impl Fn(&Ctx<T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send + 'static,
) -> Result<Var<T>> {
    let Some(tape) = common_tape(name, &parents)? else {
        return Ok(Var::new(value, None));
    };
    let places = parents.map(|p| p.map_or(Place::Constant, NodeRef::current));
    if places.contains(&Place::Stale) {
        return Ok(Var::new(value, Some(NodeRef { tape: tape.clone(), place: Place::Stale })));
    }
    let index = |place| match place {
        Place::Node { index, .. } => Some(index),
        _ => None,
    };
    let parents: SmallVec<[Option<u32>; 2]> = places.into_iter().map(index).collect();
    if parents.iter().all(Option::is_none) {
        return Ok(tape.constant(value));
    }
    let own = tape.len() as u32;
    let mut kept: SmallVec<[Saved<T>; 2]> = SmallVec::new();
    for save in saved {
        let (needed, place) = match save {
            Save::Output => (&value, Place::Node { index: own, epoch: tape.0.epoch.get() }),
            Save::Input(x) => (x.value(), x.node().map_or(Place::Constant, NodeRef::current)),
        };
        if let Save::Input(x) = save
            && x.tape().is_some_and(|t| !t.same(tape))
        {
            return Err(Error::MixedTapes { op: name });
        }
        if place == Place::Stale {
            return Ok(Var::new(value, Some(NodeRef { tape: tape.clone(), place })));
        }
        kept.push(Saved { value: needed.clone(), node: index(place) });
    }
    Ok(tape.push_op(name, tag, parents, kept, value, Box::new(backward)))
}

/// [`record`] for any number of operands, none of which backward differentiates through.
#[track_caller]
pub(crate) fn record_many<T: Float>(
    name: &'static str,
    operands: &[&Var<T>],
    value: Tensor<T>,
    backward: impl Fn(&Ctx<T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send + 'static,
) -> Result<Var<T>> {
    let nodes: Vec<_> = operands.iter().map(|x| x.node()).collect();
    let Some(tape) = common_tape(name, &nodes)? else { return Ok(Var::new(value, None)) };
    let mut parents: SmallVec<[Option<u32>; 2]> = SmallVec::new();
    for node in nodes {
        match node.map_or(Place::Constant, NodeRef::current) {
            Place::Node { index, .. } => parents.push(Some(index)),
            Place::Constant => parents.push(None),
            Place::Stale => {
                let place = Place::Stale;
                return Ok(Var::new(value, Some(NodeRef { tape: tape.clone(), place })));
            }
        }
    }
    if parents.iter().all(Option::is_none) {
        return Ok(tape.constant(value));
    }
    Ok(tape.push_op(name, Tag::Plain, parents, SmallVec::new(), value, Box::new(backward)))
}

/// The tape that all parents with a tape share.
fn common_tape<'a, T: Float>(
    op: &'static str,
    parents: &[Option<&'a NodeRef<T>>],
) -> Result<Option<&'a Tape<T>>> {
    let mut found: Option<&Tape<T>> = None;
    for node in parents.iter().flatten() {
        match found {
            Some(tape) if !tape.same(&node.tape) => return Err(Error::MixedTapes { op }),
            _ => found = Some(&node.tape),
        }
    }
    Ok(found)
}
