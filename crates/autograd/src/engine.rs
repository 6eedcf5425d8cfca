//! The reverse walk over the tape.
//!
//! Nodes are visited from the newest to the oldest. Each takes its gradient out of its slot, hands
//! it to its backward function, and is done: no recursion, and in an ordinary backward its saved
//! values go right after use. The first gradient that reaches a slot is moved in; later ones are
//! added in place.

use std::panic::Location;

use smallvec::SmallVec;
use tensor::{Error, Float, Result, Shape, Tensor};

use crate::gradients::{Gradients, Origin};
use crate::tape::{Backward, Graph, NONE, Node, Saved, Tag, Tape};
use crate::var::Var;

/// What a backward function may ask.
pub struct Ctx<'a, T: Float> {
    saved: &'a [Saved<T>],
    needs: Needs<'a>,
    /// Where a graph is being created.
    tape: Option<&'a Tape<T>>,
}

impl<T: Float> Ctx<'_, T> {
    /// The `i`-th saved value; tracked where a graph of the gradient is being created.
    ///
    /// # Panics
    /// If fewer values were saved.
    #[inline]
    pub fn saved(&self, i: usize) -> Var<T> {
        let Saved { value, node } = &self.saved[i];
        match self.tape {
            Some(tape) if *node != NONE => Var::new(value.clone(), Some(tape.node(*node))),
            _ => Var::constant(value.clone()),
        }
    }

    /// Whether parent `i` wants a gradient.
    #[inline]
    pub fn needs(&self, i: usize) -> bool {
        self.needs.wants(i).is_some()
    }

    /// The earlier parent that is the same node as parent `i`, if there is one.
    pub(crate) fn twin(&self, i: usize) -> Option<usize> {
        let node = self.needs.wants(i)?;
        self.needs.parents[..i].iter().position(|&p| p == node)
    }

    /// Whether the gradient must itself be differentiable. A fused kernel that works on values may
    /// serve only where this is false.
    #[inline]
    pub fn create_graph(&self) -> bool {
        self.tape.is_some()
    }
}

/// Which parents want a gradient: those tracked, and on the way to what was asked for.
#[derive(Clone, Copy)]
struct Needs<'a> {
    parents: &'a [u32],
    path: Option<&'a Path>,
}

impl Needs<'_> {
    #[inline]
    fn wants(&self, i: usize) -> Option<u32> {
        let &parent = self.parents.get(i)?;
        (parent != NONE && self.path.is_none_or(|path| path.holds(parent))).then_some(parent)
    }
}

/// Where a backward function delivers the gradients of its parents.
pub struct Sink<'a, T: Float> {
    name: &'static str,
    location: &'static Location<'static>,
    needs: Needs<'a>,
    /// A bit for each parent.
    delivered: SmallVec<[u64; 1]>,
    source: Source<'a, T>,
    slots: &'a mut Slots<T>,
    /// Where a graph is being created: the node of the upstream gradient.
    recording: Option<u32>,
}

/// Where the nodes are: in the walk's own hands, or on a tape that stays.
#[derive(Clone, Copy)]
enum Source<'a, T: Float> {
    Taken(&'a Tape<T>, &'a [Node<T>]),
    OnTape(&'a Tape<T>),
}

impl<T: Float> Source<'_, T> {
    fn tape(&self) -> &Tape<T> {
        match self {
            Source::Taken(tape, _) | Source::OnTape(tape) => tape,
        }
    }

    /// What `f` says of the shape of a node; `None` where a backward function has cleared the tape.
    fn shape<R>(&self, node: u32, f: impl FnOnce(&Shape) -> R) -> Option<R> {
        match self {
            Source::Taken(_, nodes) => nodes.get(node as usize).map(|n| f(&n.shape)),
            Source::OnTape(tape) => {
                tape.0.graph.borrow().nodes.get(node as usize).map(|n| f(&n.shape))
            }
        }
    }
}

impl<T: Float> Sink<'_, T> {
    /// Adds `gradient` to what parent `i` has received; ignored where it needs none.
    ///
    /// # Errors
    /// [`Error::GradientShape`] unless the gradient has the parent's shape;
    /// [`Error::GradientInput`] if there is no parent `i`; [`Error::UntrackedGradient`] if a graph is
    /// being created and the gradient was not computed from the upstream one with `Var` operations.
    #[inline]
    pub fn add(&mut self, i: usize, gradient: Var<T>) -> Result<()> {
        let Some(parent) = self.wanted(i)? else { return Ok(()) };
        if let Some(expected) = self.misfit(parent, &gradient)? {
            let (found, expected) = (gradient.shape().to_vec(), expected.to_vec());
            return Err(Error::GradientShape { op: self.name, input: i, found, expected });
        }
        self.deliver(i, parent, gradient)
    }

    /// [`Sink::add`] for an operand that was broadcast: sums the gradient to the parent's shape
    /// first. The one place where broadcasting is undone.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the parent's shape does not broadcast to the gradient's; else as
    /// [`Sink::add`].
    #[inline]
    pub fn add_broadcast(&mut self, i: usize, gradient: Var<T>) -> Result<()> {
        let Some(parent) = self.wanted(i)? else { return Ok(()) };
        match self.misfit(parent, &gradient)? {
            None => self.deliver(i, parent, gradient),
            Some(shape) => self.deliver(i, parent, gradient.sum_to(&shape)?),
        }
    }

    /// [`Sink::add`] for a gradient computed on plain values, which has no derivative of its own: an
    /// operation that uses it has first derivatives only, and a second one is
    /// [`Error::HighestOrder`].
    ///
    /// # Errors
    /// [`Error::GradientShape`] and [`Error::GradientInput`] as [`Sink::add`].
    pub fn add_value(&mut self, i: usize, gradient: Tensor<T>) -> Result<()> {
        let gradient = match self.recording {
            None => Var::constant(gradient),
            Some(upstream) => {
                let op = self.name;
                let parents = self.needs.parents.iter().copied().chain([upstream]);
                let fail = Box::new(move |_: &Ctx<'_, T>, _, _: &mut Sink<'_, T>| {
                    Err(Error::HighestOrder { op, order: 1 })
                });
                let backward = Backward::Boxed(fail);
                let tape = self.source.tape();
                let index = tape.push_op((op, Tag::Plain), parents, &[], &gradient, backward);
                Var::new(gradient, Some(tape.node(index)))
            }
        };
        self.add(i, gradient)
    }

    /// Says that the gradient of parent `i` is 0 everywhere.
    ///
    /// # Errors
    /// [`Error::GradientInput`] if there is no parent `i`.
    pub fn add_zero(&mut self, i: usize) -> Result<()> {
        self.wanted(i).map(|_| ())
    }

    /// What parent `i` has received from newer nodes, for a backward function that adds to it itself.
    pub(crate) fn take_partial(&mut self, i: usize) -> Option<Var<T>> {
        self.needs.wants(i).and_then(|parent| self.slots.take(parent))
    }

    /// Parent `i` where it wants a gradient, which is then taken as delivered.
    #[inline]
    fn wanted(&mut self, i: usize) -> Result<Option<u32>> {
        if i >= self.needs.parents.len() {
            let reason = "delivered a gradient for a missing";
            return Err(Error::GradientInput { op: self.name, input: i, reason });
        }
        self.delivered[i / 64] |= 1 << (i % 64);
        Ok(self.needs.wants(i))
    }

    /// The shape that the gradient should have and has not.
    #[inline]
    fn misfit(&self, parent: u32, gradient: &Var<T>) -> Result<Option<Shape>> {
        let found = gradient.value().layout().shape();
        let fits = |shape: &Shape| (shape != found).then(|| shape.clone());
        // Absent only where the backward function itself has cleared the tape.
        self.source.shape(parent, fits).ok_or(Error::ConsumedTape { op: self.name })
    }

    /// Every gradient is linear in the upstream one. While a graph is created that is tracked, so a
    /// gradient that is not has lost its way: its derivatives would be 0 without a word.
    #[inline]
    fn deliver(&mut self, i: usize, parent: u32, gradient: Var<T>) -> Result<()> {
        let tape = self.source.tape();
        if self.recording.is_some()
            && !(gradient.is_tracked() && gradient.tape().is_some_and(|t| t.same(tape)))
        {
            return Err(Error::UntrackedGradient { op: self.name, input: i });
        }
        if tape.0.watch.mode().is_some() {
            tape.0.watch.gradient(self.name, self.location, gradient.value())?;
        }
        self.slots.add(parent, gradient)
    }

    /// Whether every parent that wants a gradient was given one.
    #[inline]
    fn finish(self) -> Result<()> {
        let given = |i: usize| self.delivered[i / 64] & 1 << (i % 64) != 0;
        match (0..self.needs.parents.len()).find(|&i| !given(i) && self.needs.wants(i).is_some()) {
            None => Ok(()),
            Some(input) => {
                let reason = "delivered no gradient for";
                Err(Error::GradientInput { op: self.name, input, reason })
            }
        }
    }
}

/// Gradients under way: a number for each node from `first` on, into a slab of those alive.
struct Slots<T: Float> {
    first: u32,
    of_node: Vec<u32>,
    slab: Vec<Option<Var<T>>>,
    free: Vec<u32>,
}

impl<T: Float> Slots<T> {
    fn new(first: u32, end: u32) -> Self {
        let of_node = vec![NONE; end.saturating_sub(first) as usize];
        Slots { first, of_node, slab: Vec::new(), free: Vec::new() }
    }

    #[inline]
    fn add(&mut self, node: u32, gradient: Var<T>) -> Result<()> {
        let slot = &mut self.of_node[(node - self.first) as usize];
        if *slot == NONE {
            *slot = self.free.pop().unwrap_or_else(|| {
                self.slab.push(None);
                self.slab.len() as u32 - 1
            });
            self.slab[*slot as usize] = Some(gradient);
            return Ok(());
        }
        let place = &mut self.slab[*slot as usize];
        *place = match place.take() {
            Some(sum) => Some(sum.accumulate(gradient)?),
            None => unreachable!("bug: a slot in use is empty"),
        };
        Ok(())
    }

    #[inline]
    fn take(&mut self, node: u32) -> Option<Var<T>> {
        let slot = &mut self.of_node[(node - self.first) as usize];
        let slot = std::mem::replace(slot, NONE);
        if slot == NONE {
            return None;
        }
        self.free.push(slot);
        self.slab[slot as usize].take()
    }
}

/// Gradients of `Σᵢ ⟨upstreamᵢ, outputsᵢ⟩` in everything tracked: [`Var::backward`] from several
/// variables at once. Empties the tape. `torch.autograd.backward`.
///
/// # Errors
/// [`Error::NotTracked`], [`Error::ConsumedTape`], [`Error::MixedTapes`];
/// [`Error::InvalidArgument`] without any output, or for another number of upstream gradients;
/// [`Error::ShapeMismatch`] for one of another shape than its output; [`Error::Anomaly`] where the
/// tape watches for it.
pub fn backward<T: Float>(outputs: &[&Var<T>], upstream: &[Tensor<T>]) -> Result<Gradients<T>> {
    let op = "backward";
    let Some((tape, _)) = outputs.first().map(|y| y.tracked(op)).transpose()? else {
        let reason = "are none; name what to differentiate".into();
        return Err(Error::InvalidArgument { op, name: "outputs", reason });
    };
    same_number(op, outputs.len(), upstream.len())?;
    let mut seeds = Vec::with_capacity(outputs.len());
    for (y, u) in outputs.iter().zip(upstream) {
        same_shape(op, y, u)?;
        seeds.push((place(op, tape, y)?, Var::constant(u.clone())));
    }
    consume(tape, seeds)
}

fn same_number(op: &'static str, outputs: usize, upstream: usize) -> Result<()> {
    if outputs == upstream {
        return Ok(());
    }
    let reason = format!("has {upstream} entries for {outputs} outputs");
    Err(Error::InvalidArgument { op, name: "grad_outputs", reason })
}

pub(crate) fn same_shape<T: Float>(op: &'static str, y: &Var<T>, u: &Tensor<T>) -> Result<()> {
    if u.shape() == y.shape() {
        return Ok(());
    }
    Err(Error::ShapeMismatch { op, lhs: y.shape().to_vec(), rhs: u.shape().to_vec() })
}

/// The node of a variable of this tape.
fn place<T: Float>(op: &'static str, tape: &Tape<T>, x: &Var<T>) -> Result<u32> {
    match x.tracked(op)? {
        (own, index) if own.same(tape) => Ok(index),
        _ => Err(Error::MixedTapes { op }),
    }
}

/// The ordinary backward: consumes the tape.
pub(crate) fn consume<T: Float>(tape: &Tape<T>, seeds: Vec<(u32, Var<T>)>) -> Result<Gradients<T>> {
    let anomaly = tape.anomaly();
    let epoch = tape.0.epoch.get();
    let (mut graph, bindings) = tape.take();
    anomaly?;
    let mut gradients = Gradients::new(tape, epoch, Origin::of_all(&graph.nodes));
    // Nodes above the outputs cannot reach them; their saved values go first.
    let end = seeds.iter().map(|&(index, _)| index + 1).max().unwrap_or(0);
    truncate(&mut graph, end);
    let mut slots = Slots::new(0, end);
    for (index, seed) in seeds {
        slots.add(index, seed)?;
    }
    while let Some(node) = graph.nodes.pop() {
        let index = graph.nodes.len() as u32;
        let Some(gradient) = slots.take(index) else {
            graph.parents.truncate(node.parents as usize);
            graph.saved.truncate(node.saved as usize);
            continue;
        };
        if node.retain {
            gradients.insert(index, gradient.value().clone());
        }
        if let Tag::FusedLoss { past } = node.tag {
            gradients.bypass(past);
        }
        let Some(backward) = &node.backward else { continue };
        let needs = Needs { parents: &graph.parents[node.parents as usize..], path: None };
        let saved = &graph.saved[node.saved as usize..];
        let mut sink = Sink {
            name: node.name,
            location: node.location,
            needs,
            delivered: delivered(needs.parents.len()),
            source: Source::Taken(tape, &graph.nodes),
            slots: &mut slots,
            recording: None,
        };
        backward.call(&Ctx { saved, needs, tape: None }, gradient, &mut sink)?;
        sink.finish()?;
        graph.parents.truncate(node.parents as usize);
        graph.saved.truncate(node.saved as usize);
    }
    graph.clear();
    tape.put_back(graph);
    gradients.bind(bindings);
    Ok(gradients)
}

/// Removes the nodes from `end` on, with all that is theirs.
fn truncate<T: Float>(graph: &mut Graph<T>, end: u32) {
    if let Some(node) = graph.nodes.get(end as usize) {
        graph.parents.truncate(node.parents as usize);
        graph.saved.truncate(node.saved as usize);
        graph.nodes.truncate(end as usize);
    }
}

#[inline]
fn delivered(parents: usize) -> SmallVec<[u64; 1]> {
    if parents <= 64 {
        SmallVec::from_buf([0])
    } else {
        SmallVec::from_elem(0, parents.div_ceil(64))
    }
}

/// [`Var::backward`] that leaves the tape as it is.
pub(crate) fn backward_retain<T: Float>(
    tape: &Tape<T>,
    from: u32,
    seed: Tensor<T>,
) -> Result<Gradients<T>> {
    tape.anomaly()?;
    let origins = Origin::of_all(&tape.0.graph.borrow().nodes);
    let mut gradients = Gradients::new(tape, tape.0.epoch.get(), origins);
    let mut slots = Slots::new(0, from + 1);
    slots.add(from, Var::constant(seed))?;
    let walk = Walk { op: "backward", tape, path: None, create_graph: false };
    walk.run(0, from + 1, &mut slots, |index, node, gradient| {
        if node.retain {
            gradients.insert(index, gradient.value().clone());
        }
        if let Tag::FusedLoss { past } = node.tag {
            gradients.bypass(past);
        }
        Ok(())
    })?;
    gradients.bind(tape.0.bindings.borrow().clone());
    Ok(gradients)
}

/// Gradients of `Σᵢ grad_outputsᵢ·outputsᵢ` with respect to `inputs`, as variables; the tape stays.
///
/// With `create_graph` the gradients are recorded and can be differentiated again. An input that no
/// output depends on has `None`. `grad_outputs` may be empty where every output is a scalar.
/// `torch.autograd.grad`.
///
/// # Errors
/// [`Error::NotTracked`], [`Error::ConsumedTape`], [`Error::MixedTapes`]; [`Error::NotScalar`] and
/// [`Error::ShapeMismatch`] for the upstream gradients; [`Error::Bypassed`] for log-probabilities
/// that a loss was fused with; [`Error::HighestOrder`], [`Error::UntrackedGradient`] for an operation
/// that cannot be differentiated so often; [`Error::Anomaly`] where the tape watches for it.
pub fn grad<T: Float>(
    outputs: &[&Var<T>],
    inputs: &[&Var<T>],
    grad_outputs: &[Var<T>],
    create_graph: bool,
) -> Result<Vec<Option<Var<T>>>> {
    let op = "grad";
    let Some((tape, _)) = outputs.first().map(|y| y.tracked(op)).transpose()? else {
        return Ok(vec![None; inputs.len()]);
    };
    tape.anomaly()?;
    let outputs_at = outputs.iter().map(|y| place(op, tape, y)).collect::<Result<Vec<_>>>()?;
    let inputs_at = inputs.iter().map(|x| place(op, tape, x)).collect::<Result<Vec<_>>>()?;
    if !grad_outputs.is_empty() {
        same_number(op, outputs.len(), grad_outputs.len())?;
    }

    // Nothing above the last output or below the first input takes part.
    let end = outputs_at.iter().max().map_or(0, |&i| i + 1);
    let first = inputs_at.iter().min().map_or(end, |&i| i.min(end));
    let path = Path::new(tape, &inputs_at, first, end);
    let mut slots = Slots::new(first, end);
    for (i, (y, &at)) in outputs.iter().zip(&outputs_at).enumerate() {
        let seed = match grad_outputs.get(i) {
            Some(g) => {
                same_shape(op, y, g.value())?;
                if create_graph && g.tape().is_some_and(|t| !t.same(tape)) {
                    return Err(Error::MixedTapes { op });
                }
                g.clone()
            }
            None if y.value().numel() == 1 => Var::constant(y.value().ones_like()),
            None => return Err(Error::NotScalar { op, shape: y.shape().to_vec() }),
        };
        if at >= first {
            // Tracked, so that every gradient of the walk is: see `Sink::deliver`.
            slots.add(
                at,
                match (create_graph, seed.is_tracked()) {
                    (true, true) => seed,
                    (true, false) => tape.var(seed.into_value()),
                    (false, _) => Var::constant(seed.into_value()),
                },
            )?;
        }
    }
    let mut results: Vec<Option<Var<T>>> = vec![None; inputs.len()];
    let walk = Walk { op, tape, path: Some(&path), create_graph };
    walk.run(first, end, &mut slots, |index, node, gradient| {
        for (result, &at) in results.iter_mut().zip(&inputs_at) {
            if at == index {
                *result = Some(gradient.clone());
            }
        }
        match node.tag {
            Tag::FusedLoss { past } if inputs_at.contains(&past) => Err(Error::Bypassed { op }),
            _ => Ok(()),
        }
    })?;
    Ok(results)
}

/// The nodes of a range whose value depends on one of some inputs. A loss that was fused with
/// log-probabilities counts as depending on them, so that the walk meets it.
struct Path {
    first: u32,
    on: Vec<bool>,
}

impl Path {
    fn new<T: Float>(tape: &Tape<T>, inputs: &[u32], first: u32, end: u32) -> Self {
        let mut path = Path { first, on: vec![false; (end - first) as usize] };
        for &i in inputs.iter().filter(|&&i| i < end) {
            path.on[(i - first) as usize] = true;
        }
        let graph = tape.0.graph.borrow();
        for index in first..end {
            let past = match graph.nodes[index as usize].tag {
                Tag::FusedLoss { past } => past,
                _ => NONE,
            };
            let mut below = graph.parents_of(index).iter().copied().chain([past]);
            path.on[(index - first) as usize] |= below.any(|p| p != NONE && path.holds(p));
        }
        path
    }

    fn holds(&self, node: u32) -> bool {
        node.checked_sub(self.first).is_some_and(|i| self.on.get(i as usize) == Some(&true))
    }
}

/// A walk over a tape that stays.
struct Walk<'a, T: Float> {
    op: &'static str,
    tape: &'a Tape<T>,
    /// Absent where every tracked variable wants its gradient.
    path: Option<&'a Path>,
    create_graph: bool,
}

impl<T: Float> Walk<'_, T> {
    /// Visits the nodes of `first..end` that have a gradient, newest first, and runs their backward.
    fn run(
        &self,
        first: u32,
        end: u32,
        slots: &mut Slots<T>,
        mut visit: impl FnMut(u32, &OpenNode<'_, T>, &Var<T>) -> Result<()>,
    ) -> Result<()> {
        let Walk { op, tape, .. } = *self;
        let epoch = tape.0.epoch.get();
        for index in (first..end).rev() {
            let Some(gradient) = slots.take(index) else { continue };
            let open = OpenNode::new(tape, index)?;
            visit(index, &open, &gradient)?;
            let needs = Needs { parents: &open.parents, path: self.path };
            let fused = matches!(open.tag, Tag::FusedLoss { .. });
            let Some(backward) = &open.backward else { continue };
            if !fused && (0..needs.parents.len()).all(|i| needs.wants(i).is_none()) {
                continue;
            }
            let recording = match gradient.tracked(op) {
                Ok((_, upstream)) if self.create_graph => Some(upstream),
                _ => None,
            };
            let ctx = Ctx { saved: &open.saved, needs, tape: self.create_graph.then_some(tape) };
            let mut sink = Sink {
                name: open.name,
                location: open.location,
                needs,
                delivered: delivered(needs.parents.len()),
                source: Source::OnTape(tape),
                slots,
                recording,
            };
            backward.call(&ctx, gradient, &mut sink)?;
            sink.finish()?;
            if tape.0.epoch.get() != epoch {
                return Err(Error::ConsumedTape { op });
            }
        }
        Ok(())
    }
}

/// A node whose backward function is about to run: taken out of the tape, so that no borrow of the
/// tape is held meanwhile, and put back however the run ends.
struct OpenNode<'a, T: Float> {
    tape: &'a Tape<T>,
    epoch: u32,
    index: u32,
    name: &'static str,
    location: &'static Location<'static>,
    tag: Tag,
    retain: bool,
    parents: SmallVec<[u32; 4]>,
    saved: SmallVec<[Saved<T>; 2]>,
    backward: Option<Backward<T>>,
}

impl<'a, T: Float> OpenNode<'a, T> {
    fn new(tape: &'a Tape<T>, index: u32) -> Result<Self> {
        let mut graph = tape.0.graph.borrow_mut();
        let parents = graph.parents_of(index).into();
        let saved = graph.saved_of(index).iter().cloned().collect();
        let Node { name, location, tag, retain, ref mut backward, .. } =
            graph.nodes[index as usize];
        let epoch = tape.0.epoch.get();
        // Absent in a node that is no leaf only where a backward function asks for its own gradient.
        let backward = backward.take();
        if backward.is_none() && tag != Tag::Leaf {
            return Err(Error::ConsumedTape { op: name });
        }
        Ok(OpenNode { tape, epoch, index, name, location, tag, retain, parents, saved, backward })
    }
}

impl<T: Float> Drop for OpenNode<'_, T> {
    fn drop(&mut self) {
        if self.tape.0.epoch.get() == self.epoch
            && let Some(node) = self.tape.0.graph.borrow_mut().nodes.get_mut(self.index as usize)
        {
            node.backward = self.backward.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::{Save, record};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicBool, Ordering};

    fn scalar(x: f64) -> Tensor<f64> {
        Tensor::scalar(x)
    }

    #[test]
    fn a_backward_that_panics_once_loses_no_gradient() {
        static FIRST: AtomicBool = AtomicBool::new(true);
        let tape = Tape::new();
        let x = tape.var(scalar(1.0));
        let y = record("p", [x.node()], [], scalar(1.0), |_, g, sink| {
            assert!(!FIRST.swap(false, Ordering::Relaxed), "only once");
            sink.add(0, g)
        });
        let l = y.unwrap() + &x;
        assert!(catch_unwind(AssertUnwindSafe(|| grad(&[&l], &[&x], &[], false))).is_err());
        assert_eq!(l.backward().unwrap().wrt(&x).unwrap().item().unwrap(), 2.0);
    }

    #[test]
    fn a_forgotten_or_surplus_gradient_is_an_error() {
        let tape = Tape::new();
        let (x, w) = (tape.var(scalar(3.0)), tape.var(scalar(2.0)));
        let forgets =
            record("forgets", [x.node(), w.node()], [], scalar(6.0), |_, g, sink| sink.add(0, g));
        let text = (forgets.unwrap() + &w).backward().unwrap_err().to_string();
        assert_eq!(text, "forgets: backward delivered no gradient for input 1");
        let x = tape.var(scalar(3.0));
        let surplus = record("surplus", [x.node()], [], scalar(6.0), |_, g, sink| {
            sink.add(0, g.clone())?;
            sink.add(1, g)
        });
        let text = surplus.unwrap().backward().unwrap_err().to_string();
        assert_eq!(text, "surplus: backward delivered a gradient for a missing input 1");
        let x = tape.var(scalar(3.0));
        let zero = record("zero", [x.node()], [], scalar(6.0), |_, _, sink| sink.add_zero(0));
        let error = zero.unwrap().backward().unwrap();
        assert!(matches!(error.wrt(&x), Err(Error::NoGradient { .. })));
    }

    #[test]
    fn upstream_gradients_of_another_tape_are_refused_or_taken_as_values() {
        let (a, b) = (Tape::new(), Tape::new());
        let x = a.var(scalar(3.0));
        let y = &x * &x;
        let foreign = b.var(scalar(1.0));
        let refused = grad(&[&y], &[&x], std::slice::from_ref(&foreign), true);
        assert!(matches!(refused, Err(Error::MixedTapes { .. })));
        let got = grad(&[&y, &y], &[&x], &[foreign.clone(), foreign], false).unwrap();
        assert_eq!(got[0].as_ref().unwrap().item().unwrap(), 12.0);
    }

    #[test]
    fn a_tape_cleared_from_inside_a_backward_is_an_error() {
        let tape = Tape::new();
        let x = tape.var(scalar(3.0));
        let y = record("clears", [x.node()], [Save::Input(&x)], scalar(1.0), |ctx, g, sink| {
            if let Some(tape) = ctx.saved(0).tape() {
                tape.clear();
            }
            sink.add(0, g)
        });
        let outcome = grad(&[&y.unwrap()], &[&x], &[], true);
        assert!(matches!(outcome, Err(Error::ConsumedTape { .. })));
    }

    #[test]
    fn third_derivatives_follow_from_first_ones() {
        let tape = Tape::new();
        let x = tape.var(scalar(0.7));
        let mut y = x.sigmoid();
        for _ in 0..3 {
            y = grad(&[&y], &[&x], &[], true).unwrap()[0].clone().unwrap();
        }
        let s = 1.0 / (1.0 + (-0.7_f64).exp());
        let want = s * (1.0 - s) * (1.0 - 6.0 * s + 6.0 * s * s);
        assert!((y.item().unwrap() - want).abs() < 1e-15);
    }
}
