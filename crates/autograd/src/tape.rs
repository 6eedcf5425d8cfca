//! The tape: a vector of nodes in execution order, so that walking it backwards is a topological
//! order.
//!
//! Invariants:
//! 1. The parents of a node have smaller indices than the node.
//! 2. `epoch` grows whenever nodes are removed; a [`NodeRef`] of an older epoch is stale.
//! 3. The tape holds no value but the saved ones, and no closure holds a tracked [`Var`] (`Send`
//!    forbids it), so that a tape never keeps itself alive.
//! 4. Parents and saved values of all nodes stand one after another in two lists; those of a node go
//!    from where it says to where the next one does. A node itself is small, because every record
//!    moves one in and every backward moves one out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::Location;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use tensor::{Error, Float, Result, Shape, Tensor};

use crate::anomaly::Watch;
use crate::engine::{Ctx, Sink};
use crate::training::Step;
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

type Closure<T> = dyn Fn(&Ctx<'_, T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send;

type WithNumber<T> = fn(&Ctx<'_, T>, Var<T>, &mut Sink<'_, T>, T) -> Result<()>;

/// A recorded backward function.
pub(crate) enum Backward<T: Float> {
    /// No allocation where the closure captures nothing.
    Boxed(Box<Closure<T>>),
    /// One that needs a number beside what is saved; it stands in the node, without an allocation.
    Number(WithNumber<T>, T),
}

impl<T: Float> Backward<T> {
    /// Calls it with the upstream gradient, which it owns.
    #[inline]
    pub(crate) fn call(&self, ctx: &Ctx<'_, T>, g: Var<T>, sink: &mut Sink<'_, T>) -> Result<()> {
        match self {
            Backward::Boxed(f) => f(ctx, g, sink),
            &Backward::Number(f, number) => f(ctx, g, sink, number),
        }
    }
}

/// What an operation is beyond its name, where another operation wants to recognise it. Private, so
/// that no operation of a user's can pass for one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tag {
    Leaf,
    Plain,
    /// Log-softmax along a dim; saves its input first.
    LogSoftmax {
        dim: u32,
    },
    /// A loss on the logits that went past these log-probabilities.
    FusedLoss {
        past: u32,
    },
}

/// Stands for the node of an operand that is not tracked.
pub(crate) const NONE: u32 = u32::MAX;

/// A value that backward needs.
#[derive(Clone)]
pub(crate) struct Saved<T: Float> {
    pub(crate) value: Tensor<T>,
    /// The node it is the result of; [`NONE`] where it is not tracked.
    pub(crate) node: u32,
}

pub(crate) struct Node<T: Float> {
    pub(crate) name: &'static str,
    /// The line of the caller's code that recorded it.
    pub(crate) location: &'static Location<'static>,
    /// `None` for leaves, and while the engine runs it.
    pub(crate) backward: Option<Backward<T>>,
    pub(crate) shape: Shape,
    pub(crate) tag: Tag,
    /// Where its parents begin in [`Graph::parents`].
    pub(crate) parents: u32,
    /// Where its values begin in [`Graph::saved`].
    pub(crate) saved: u32,
    /// Whether backward keeps its gradient.
    pub(crate) retain: bool,
}

/// What is recorded.
pub(crate) struct Graph<T: Float> {
    pub(crate) nodes: Vec<Node<T>>,
    pub(crate) parents: Vec<u32>,
    pub(crate) saved: Vec<Saved<T>>,
}

impl<T: Float> Default for Graph<T> {
    fn default() -> Self {
        Graph { nodes: Vec::new(), parents: Vec::new(), saved: Vec::new() }
    }
}

impl<T: Float> Graph<T> {
    pub(crate) fn clear(&mut self) {
        self.nodes.clear();
        self.parents.clear();
        self.saved.clear();
    }

    /// The parents of a node: [`NONE`] where not tracked.
    pub(crate) fn parents_of(&self, index: u32) -> &[u32] {
        &self.parents[self.range(index, self.parents.len(), |n| n.parents)]
    }

    pub(crate) fn saved_of(&self, index: u32) -> &[Saved<T>] {
        &self.saved[self.range(index, self.saved.len(), |n| n.saved)]
    }

    fn range(&self, index: u32, end: usize, start: impl Fn(&Node<T>) -> u32) -> Range<usize> {
        let next = self.nodes.get(index as usize + 1);
        start(&self.nodes[index as usize]) as usize..next.map_or(end, |n| start(n) as usize)
    }
}

pub(crate) struct Inner<T: Float> {
    pub(crate) graph: RefCell<Graph<T>>,
    pub(crate) bindings: RefCell<BTreeMap<ParameterId, u32>>,
    /// Parameters bound while nothing is recorded, for whoever runs a function twice.
    pub(crate) seen: RefCell<BTreeMap<ParameterId, Tensor<T>>>,
    pub(crate) epoch: Cell<u32>,
    pub(crate) mode: Mode,
    pub(crate) step: Step<T>,
    pub(crate) watch: Watch,
    /// Unique in the process, so that gradients can name their tape without holding it.
    pub(crate) id: u64,
}

/// What a tape is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    /// The seed of training; `None` in evaluation.
    pub(crate) seed: Option<u64>,
    /// Whether operations are recorded.
    pub(crate) recording: bool,
}

/// Records the computations of its variables. Cloning gives another handle to the same tape.
pub struct Tape<T: Float>(pub(crate) Rc<Inner<T>>);

impl<T: Float> Clone for Tape<T> {
    #[inline]
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
    index: u32,
    epoch: u32,
}

impl<T: Float> Clone for NodeRef<T> {
    #[inline]
    fn clone(&self) -> Self {
        NodeRef { tape: self.tape.clone(), ..*self }
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

    pub(crate) fn with_mode(mode: Mode) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Tape(Rc::new(Inner {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            graph: RefCell::default(),
            bindings: RefCell::default(),
            seen: RefCell::default(),
            epoch: Cell::new(0),
            mode,
            step: Step::default(),
            watch: Watch::default(),
        }))
    }

    /// A tracked variable: gradients with respect to it can be asked for.
    #[track_caller]
    pub fn var(&self, value: Tensor<T>) -> Var<T> {
        let index = self.push_leaf(value.layout().shape().clone());
        Var::new(value, Some(self.node(index)))
    }

    /// A value that is not tracked, on this tape: a module that gets it binds its parameters here.
    pub fn constant(&self, value: Tensor<T>) -> Var<T> {
        Var::new(value, Some(NodeRef::at(self, Place::Constant)))
    }

    /// The tracked variable of a parameter: the same node for every call until the tape is emptied,
    /// so that the gradients of a shared parameter add up. The tape keeps the identity, not `value`.
    ///
    /// Where `value` has another shape than at the first call, there is no gradient that would fit
    /// both: the variable is stale, and backward from anything computed with it is an error.
    #[track_caller]
    pub fn bind(&self, id: ParameterId, value: &Tensor<T>) -> Var<T> {
        if !self.0.mode.recording {
            self.0.seen.borrow_mut().insert(id, value.clone());
            return self.constant(value.clone());
        }
        let bound = self.0.bindings.borrow().get(&id).copied();
        let fits = |i: u32| *self.0.graph.borrow().nodes[i as usize].shape == *value.shape();
        if bound.is_some_and(|i| !fits(i)) {
            return Var::new(value.clone(), Some(NodeRef::at(self, Place::Stale)));
        }
        let index = match bound {
            Some(index) => index,
            None => {
                let index = self.push_leaf(value.layout().shape().clone());
                self.0.bindings.borrow_mut().insert(id, index);
                index
            }
        };
        Var::new(value.clone(), Some(self.node(index)))
    }

    /// Lets `x` stand for a parameter: [`Tape::bind`] gives its node from now on, and gradients of the
    /// parameter flow into `x`. For functions of parameters that are differentiated as functions.
    ///
    /// # Errors
    /// [`Error::NotTracked`], [`Error::ConsumedTape`]; [`Error::MixedTapes`] if `x` is of another tape.
    pub fn bind_to(&self, id: ParameterId, x: &Var<T>) -> Result<()> {
        let op = "bind_to";
        let (tape, index) = x.tracked(op)?;
        if !tape.same(self) {
            return Err(Error::MixedTapes { op });
        }
        self.0.bindings.borrow_mut().insert(id, index);
        Ok(())
    }

    /// The number of nodes recorded since the tape was last emptied.
    pub fn len(&self) -> usize {
        self.0.graph.borrow().nodes.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets everything recorded; variables of the tape become stale.
    pub fn clear(&self) {
        // Taken out first: dropping values must not happen under the borrow.
        let (mut graph, _) = self.take();
        self.0.step.buffers.take();
        graph.clear();
        self.put_back(graph);
    }

    /// What is recorded, and the parameters' nodes; the tape is empty and its variables stale.
    pub(crate) fn take(&self) -> (Graph<T>, BTreeMap<ParameterId, u32>) {
        self.0.epoch.set(self.0.epoch.get().wrapping_add(1));
        self.0.watch.forget();
        (self.0.graph.take(), self.0.bindings.take())
    }

    /// Gives an emptied graph back, so that the next recording finds its memory.
    pub(crate) fn put_back(&self, graph: Graph<T>) {
        if self.is_empty() {
            *self.0.graph.borrow_mut() = graph;
        }
    }

    /// The names of the recorded operations, oldest first; leaves are called `leaf`.
    pub fn op_names(&self) -> Vec<&'static str> {
        self.0.graph.borrow().nodes.iter().map(|n| n.name).collect()
    }

    #[inline]
    pub(crate) fn same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    #[inline]
    pub(crate) fn node(&self, index: u32) -> NodeRef<T> {
        NodeRef { tape: self.clone(), index, epoch: self.0.epoch.get() }
    }

    #[track_caller]
    fn push_leaf(&self, shape: Shape) -> u32 {
        let mut graph = self.0.graph.borrow_mut();
        let (parents, saved) = (graph.parents.len() as u32, graph.saved.len() as u32);
        let location = Location::caller();
        let (name, tag, retain) = ("leaf", Tag::Leaf, true);
        push(
            &mut graph.nodes,
            Node { name, location, backward: None, shape, tag, parents, saved, retain },
        )
    }

    /// Records an operation whose operands have been checked; returns its node.
    #[track_caller]
    pub(crate) fn push_op(
        &self,
        (name, tag): (&'static str, Tag),
        parents: impl Iterator<Item = u32>,
        saved: &[Save<'_, T>],
        value: &Tensor<T>,
        backward: Backward<T>,
    ) -> u32 {
        let location = Location::caller();
        if let Some(mode) = self.0.watch.mode() {
            self.0.watch.forward(mode, name, location, value);
        }
        let mut guard = self.0.graph.borrow_mut();
        let graph = &mut *guard;
        let own = graph.nodes.len() as u32;
        let first = (graph.parents.len() as u32, graph.saved.len() as u32);
        graph.parents.extend(parents);
        for save in saved {
            graph.saved.push(match save {
                Save::Output => Saved { value: value.clone(), node: own },
                Save::Input(x) => {
                    let node = x.node().map_or(NONE, NodeRef::tracked_index);
                    Saved { value: x.value().clone(), node }
                }
            });
        }
        let shape = value.layout().shape().clone();
        let (backward, (parents, saved)) = (Some(backward), first);
        let node = Node { name, location, backward, shape, tag, parents, saved, retain: false };
        push(&mut graph.nodes, node)
    }
}

#[inline]
fn push<T: Float>(nodes: &mut Vec<Node<T>>, node: Node<T>) -> u32 {
    let index = nodes.len();
    // The last numbers stand for other places.
    assert!(index < FIRST_SPECIAL as usize, "a tape holds less than 2³² operations");
    nodes.push(node);
    index as u32
}

const FIRST_SPECIAL: u32 = u32::MAX - 2;
const CONSTANT: u32 = u32::MAX - 1;
const STALE: u32 = u32::MAX - 2;

impl<T: Float> NodeRef<T> {
    pub(crate) fn at(tape: &Tape<T>, place: Place) -> Self {
        let (index, epoch) = match place {
            Place::Constant => (CONSTANT, 0),
            Place::Stale => (STALE, 0),
            Place::Node { index, epoch } => (index, epoch),
        };
        NodeRef { tape: tape.clone(), index, epoch }
    }

    /// The place when it was made.
    pub(crate) fn place(&self) -> Place {
        match self.index {
            CONSTANT => Place::Constant,
            STALE => Place::Stale,
            index => Place::Node { index, epoch: self.epoch },
        }
    }

    /// The place now: a node of an emptied tape is stale.
    #[inline]
    pub(crate) fn current(&self) -> Place {
        match self.place() {
            Place::Node { epoch, .. } if epoch != self.tape.0.epoch.get() => Place::Stale,
            place => place,
        }
    }

    /// The node's index; [`NONE`] where it is not tracked.
    #[inline]
    fn tracked_index(&self) -> u32 {
        match self.current() {
            Place::Node { index, .. } => index,
            _ => NONE,
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
/// follows; with [`Sink::add_value`] the operation has first derivatives only. It need not compute
/// what [`Ctx::needs`] denies, but must deliver all that it grants: a gradient that is forgotten is
/// an error, not a zero.
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
/// #[track_caller]
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
    backward: impl Fn(&Ctx<'_, T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send + 'static,
) -> Result<Var<T>> {
    record_tagged((name, Tag::Plain), &parents, &saved, value, backward)
}

/// [`record`] for a number of operands known at run time only.
///
/// # Errors
/// As [`record`].
#[track_caller]
pub fn record_many<T: Float>(
    name: &'static str,
    parents: &[Option<&NodeRef<T>>],
    saved: &[Save<'_, T>],
    value: Tensor<T>,
    backward: impl Fn(&Ctx<'_, T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send + 'static,
) -> Result<Var<T>> {
    record_tagged((name, Tag::Plain), parents, saved, value, backward)
}

/// [`record`] of one operand for a backward function that needs a number and nothing saved.
#[track_caller]
pub(crate) fn record_number<T: Float>(
    name: &'static str,
    x: Option<&NodeRef<T>>,
    value: Tensor<T>,
    number: T,
    backward: WithNumber<T>,
) -> Result<Var<T>> {
    record_at((name, Tag::Plain), &[x], &[], value, || Backward::Number(backward, number))
}

#[track_caller]
#[inline]
pub(crate) fn record_tagged<T: Float>(
    op: (&'static str, Tag),
    parents: &[Option<&NodeRef<T>>],
    saved: &[Save<'_, T>],
    value: Tensor<T>,
    backward: impl Fn(&Ctx<'_, T>, Var<T>, &mut Sink<'_, T>) -> Result<()> + Send + 'static,
) -> Result<Var<T>> {
    record_at(op, parents, saved, value, || Backward::Boxed(Box::new(backward)))
}

#[track_caller]
#[inline]
fn record_at<T: Float>(
    op: (&'static str, Tag),
    parents: &[Option<&NodeRef<T>>],
    saved: &[Save<'_, T>],
    value: Tensor<T>,
    backward: impl FnOnce() -> Backward<T>,
) -> Result<Var<T>> {
    match home(op.0, parents, saved)? {
        Home::Nowhere => Ok(Var::new(value, None)),
        Home::Untracked(tape, place) => Ok(Var::new(value, Some(NodeRef::at(tape, place)))),
        Home::Tracked(tape) => {
            let parents = parents.iter().map(|p| p.map_or(NONE, NodeRef::tracked_index));
            let index = tape.push_op(op, parents, saved, &value, backward());
            Ok(Var::new(value, Some(tape.node(index))))
        }
    }
}

/// Where the result of an operation belongs.
enum Home<'a, T: Float> {
    Nowhere,
    Untracked(&'a Tape<T>, Place),
    Tracked(&'a Tape<T>),
}

fn home<'a, T: Float>(
    op: &'static str,
    parents: &[Option<&'a NodeRef<T>>],
    saved: &[Save<'_, T>],
) -> Result<Home<'a, T>> {
    let mut found: Option<&Tape<T>> = None;
    let (mut tracked, mut stale) = (false, false);
    for node in parents.iter().flatten() {
        if found.is_some_and(|tape| !tape.same(&node.tape)) {
            return Err(Error::MixedTapes { op });
        }
        found = Some(&node.tape);
        match node.current() {
            Place::Node { .. } => tracked = true,
            Place::Stale => stale = true,
            Place::Constant => {}
        }
    }
    let Some(tape) = found else { return Ok(Home::Nowhere) };
    for save in saved {
        if let Save::Input(x) = save
            && let Some(node) = x.node()
        {
            if !node.tape.same(tape) {
                return Err(Error::MixedTapes { op });
            }
            stale |= tracked && node.current() == Place::Stale;
        }
    }
    Ok(match (stale, tracked) {
        (true, _) => Home::Untracked(tape, Place::Stale),
        (false, true) => Home::Tracked(tape),
        (false, false) => Home::Untracked(tape, Place::Constant),
    })
}
