//! The reverse walk over the tape.
//!
//! Nodes are visited from the newest to the oldest. Each takes its gradient out of its slot, hands
//! it to its backward function, and is done: no recursion, and in an ordinary backward its saved
//! values go right after use. The first gradient that reaches a slot is moved in; later ones are
//! added in place.

use smallvec::SmallVec;
use tensor::{Error, Float, Result, Shape, Tensor};

use crate::gradients::{Gradients, Origin};
use crate::tape::{Backward, Node, Saved, Tag, Tape};
use crate::var::Var;

/// What a backward function may ask.
pub struct Ctx<T: Float> {
    saved: SmallVec<[Var<T>; 2]>,
    needs: SmallVec<[bool; 2]>,
    create_graph: bool,
}

impl<T: Float> Ctx<T> {
    /// The `i`-th saved value; tracked where a graph of the gradient is being created.
    ///
    /// # Panics
    /// If fewer values were saved.
    pub fn saved(&self, i: usize) -> Var<T> {
        self.saved[i].clone()
    }

    /// Whether parent `i` wants a gradient.
    pub fn needs(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }

    /// Whether the gradient must itself be differentiable. A fused kernel that works on values may
    /// serve only where this is false.
    pub fn create_graph(&self) -> bool {
        self.create_graph
    }
}

/// Where a backward function delivers the gradients of its parents.
pub struct Sink<'a, T: Float> {
    name: &'static str,
    parents: &'a [Option<u32>],
    needs: &'a [bool],
    delivered: SmallVec<[bool; 2]>,
    shapes: Shapes<'a, T>,
    slots: &'a mut Slots<T>,
    /// Where a graph is being created: the tape it is created on, and the upstream gradient.
    recording: Option<(&'a Tape<T>, u32)>,
}

/// The shapes of the nodes: of the walk's own list, or of a tape that stays.
enum Shapes<'a, T: Float> {
    Taken(&'a [Node<T>]),
    OnTape(&'a Tape<T>),
}

impl<T: Float> Sink<'_, T> {
    /// Adds `gradient` to what parent `i` has received; ignored where it needs none.
    ///
    /// # Errors
    /// [`Error::GradientShape`] unless the gradient has the parent's shape;
    /// [`Error::GradientInput`] if there is no parent `i`; [`Error::UntrackedGradient`] if a graph is
    /// being created and the gradient was not computed from the upstream one with `Var` operations.
    pub fn add(&mut self, i: usize, gradient: Var<T>) -> Result<()> {
        let Some((parent, shape)) = self.wanted(i)? else { return Ok(()) };
        if *gradient.shape() != *shape {
            let (found, expected) = (gradient.shape().to_vec(), shape.to_vec());
            return Err(Error::GradientShape { op: self.name, input: i, found, expected });
        }
        self.deliver(i, parent, gradient)
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
            Some((tape, upstream)) => {
                let op = self.name;
                let parents = self.parents.iter().copied().chain([Some(upstream)]).collect();
                let fail = Box::new(move |_: &Ctx<T>, _, _: &mut Sink<'_, T>| {
                    Err(Error::HighestOrder { op, order: 1 })
                });
                tape.push_op(op, Tag::Plain, parents, SmallVec::new(), gradient, fail)
            }
        };
        self.add(i, gradient)
    }

    /// Every gradient is linear in the upstream one. While a graph is created that is tracked, so a
    /// gradient that is not has lost its way: its derivatives would be 0 without a word.
    fn deliver(&mut self, i: usize, parent: u32, gradient: Var<T>) -> Result<()> {
        if let Some((tape, _)) = self.recording
            && !(gradient.is_tracked() && gradient.tape().is_some_and(|t| t.same(tape)))
        {
            return Err(Error::UntrackedGradient { op: self.name, input: i });
        }
        self.slots.add(parent, gradient)
    }

    /// [`Sink::add`] for an operand that was broadcast: sums the gradient to the parent's shape
    /// first. The one place where broadcasting is undone.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the parent's shape does not broadcast to the gradient's;
    /// [`Error::GradientInput`] if there is no parent `i`.
    pub fn add_broadcast(&mut self, i: usize, gradient: Var<T>) -> Result<()> {
        let Some((parent, shape)) = self.wanted(i)? else { return Ok(()) };
        let fits = *gradient.shape() == *shape;
        self.deliver(i, parent, if fits { gradient } else { gradient.sum_to(&shape)? })
    }

    /// Says that the gradient of parent `i` is 0 everywhere.
    ///
    /// # Errors
    /// [`Error::GradientInput`] if there is no parent `i`.
    pub fn add_zero(&mut self, i: usize) -> Result<()> {
        self.wanted(i).map(|_| ())
    }

    /// Node and shape of parent `i` where it wants a gradient, which is then taken as delivered.
    fn wanted(&mut self, i: usize) -> Result<Option<(u32, Shape)>> {
        let Some(&parent) = self.parents.get(i) else {
            let reason = "delivered a gradient for a missing";
            return Err(Error::GradientInput { op: self.name, input: i, reason });
        };
        self.delivered[i] = true;
        let Some(node) = parent.filter(|_| self.needs[i]) else { return Ok(None) };
        let shape = match &self.shapes {
            Shapes::Taken(nodes) => nodes.get(node as usize).map(|n| n.shape.clone()),
            // Cloned, so that no borrow of the tape is held while operations are recorded.
            Shapes::OnTape(tape) => {
                tape.0.nodes.borrow().get(node as usize).map(|n| n.shape.clone())
            }
        };
        // Absent only where the backward function itself has cleared the tape.
        Ok(Some((node, shape.ok_or(Error::ConsumedTape { op: self.name })?)))
    }

    /// Whether every parent that wants a gradient was given one.
    fn finish(self) -> Result<()> {
        match (0..self.needs.len()).find(|&i| self.needs[i] && !self.delivered[i]) {
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

const EMPTY: u32 = u32::MAX;

impl<T: Float> Slots<T> {
    fn new(first: u32, end: u32) -> Self {
        let of_node = vec![EMPTY; end.saturating_sub(first) as usize];
        Slots { first, of_node, slab: Vec::new(), free: Vec::new() }
    }

    fn add(&mut self, node: u32, gradient: Var<T>) -> Result<()> {
        let slot = &mut self.of_node[(node - self.first) as usize];
        if *slot == EMPTY {
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

    fn take(&mut self, node: u32) -> Option<Var<T>> {
        let slot = &mut self.of_node[(node - self.first) as usize];
        let slot = std::mem::replace(slot, EMPTY);
        if slot == EMPTY {
            return None;
        }
        self.free.push(slot);
        self.slab[slot as usize].take()
    }
}

impl Origin {
    fn of<T: Float>(node: &Node<T>) -> Self {
        if node.retain { Origin::Kept } else { Origin::Result(node.name) }
    }
}

/// Gradients of `Σᵢ ⟨upstreamᵢ, outputsᵢ⟩` in everything tracked: [`Var::backward`] from several
/// variables at once. Empties the tape. `torch.autograd.backward`.
///
/// # Errors
/// [`Error::NotTracked`], [`Error::ConsumedTape`], [`Error::MixedTapes`];
/// [`Error::InvalidArgument`] without any output, or for another number of upstream gradients;
/// [`Error::ShapeMismatch`] for one of another shape than its output.
pub fn backward<T: Float>(outputs: &[&Var<T>], upstream: &[Tensor<T>]) -> Result<Gradients<T>> {
    let op = "backward";
    let Some((tape, _)) = outputs.first().map(|y| y.tracked(op)).transpose()? else {
        let reason = "are none; name what to differentiate".into();
        return Err(Error::InvalidArgument { op, name: "outputs", reason });
    };
    same_number(op, outputs.len(), upstream.len())?;
    let mut seeds = Vec::with_capacity(outputs.len());
    for (y, u) in outputs.iter().zip(upstream) {
        let (own, index) = y.tracked(op)?;
        if !own.same(tape) {
            return Err(Error::MixedTapes { op });
        }
        if u.shape() != y.shape() {
            let (lhs, rhs) = (y.shape().to_vec(), u.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        seeds.push((index, u.clone()));
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

/// The ordinary backward: consumes the tape.
pub(crate) fn consume<T: Float>(
    tape: &Tape<T>,
    seeds: Vec<(u32, Tensor<T>)>,
) -> Result<Gradients<T>> {
    let from = seeds.iter().map(|&(i, _)| i).max().unwrap_or(0);
    let epoch = tape.0.epoch.get();
    let mut nodes = std::mem::take(&mut *tape.0.nodes.borrow_mut());
    let bindings = std::mem::take(&mut *tape.0.bindings.borrow_mut());
    tape.0.epoch.set(epoch.wrapping_add(1));
    let origins = nodes.iter().map(Origin::of).collect();
    let mut gradients = Gradients::new(tape, epoch, origins);
    // Nodes above `from` cannot reach it; their saved values go first.
    nodes.truncate(from as usize + 1);
    let mut slots = Slots::new(0, nodes.len() as u32);
    for (index, seed) in seeds {
        slots.add(index, Var::constant(seed))?;
    }
    while let Some(mut node) = nodes.pop() {
        let index = nodes.len() as u32;
        let Some(gradient) = slots.take(index) else { continue };
        if node.retain {
            gradients.insert(index, gradient.value().clone());
        }
        if let Tag::FusedLoss { past } = node.tag {
            gradients.bypass(past);
        }
        if node.leaf {
            continue;
        }
        let backward = node.backward.take().ok_or(Error::ConsumedTape { op: node.name })?;
        let needs: SmallVec<[bool; 2]> = node.parents.iter().map(Option::is_some).collect();
        let saved = node.saved.drain(..).map(|s| Var::constant(s.value)).collect();
        let ctx = Ctx { saved, needs, create_graph: false };
        let mut sink = Sink {
            name: node.name,
            parents: &node.parents,
            needs: &ctx.needs,
            delivered: SmallVec::from_elem(false, ctx.needs.len()),
            shapes: Shapes::Taken(&nodes),
            slots: &mut slots,
            recording: None,
        };
        backward(&ctx, gradient, &mut sink)?;
        sink.finish()?;
    }
    // The emptied vector keeps its memory for the next step.
    if tape.is_empty() {
        *tape.0.nodes.borrow_mut() = nodes;
    }
    gradients.bind(bindings);
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
/// that a loss was fused with.
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
    let place = |x: &Var<T>| match x.tracked(op)? {
        (t, index) if t.same(tape) => Ok(index),
        _ => Err(Error::MixedTapes { op }),
    };
    let outputs_at = outputs.iter().map(|y| place(y)).collect::<Result<Vec<_>>>()?;
    let inputs_at = inputs.iter().map(|x| place(x)).collect::<Result<Vec<_>>>()?;
    if !grad_outputs.is_empty() {
        same_number(op, outputs.len(), grad_outputs.len())?;
    }

    // Nothing above the last output or below the first input takes part.
    let end = outputs_at.iter().max().map_or(0, |&i| i + 1);
    let first = inputs_at.iter().min().map_or(end, |&i| i.min(end));
    let on_path = on_path(tape, &inputs_at, first, end);
    let mut slots = Slots::new(first, end);
    for (i, (y, &at)) in outputs.iter().zip(&outputs_at).enumerate() {
        let seed = match grad_outputs.get(i) {
            Some(g) if g.shape() != y.shape() => {
                let (lhs, rhs) = (y.shape().to_vec(), g.shape().to_vec());
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
            Some(g) if create_graph && g.tape().is_some_and(|t| !t.same(tape)) => {
                return Err(Error::MixedTapes { op });
            }
            // Tracked, so that every gradient of the walk is: see `Sink::deliver`.
            Some(g) if create_graph && !g.is_tracked() => tape.var(g.value().clone()),
            Some(g) if create_graph => g.clone(),
            Some(g) => Var::constant(g.value().clone()),
            None if y.value().numel() == 1 && create_graph => tape.var(y.value().ones_like()),
            None if y.value().numel() == 1 => Var::constant(y.value().ones_like()),
            None => return Err(Error::NotScalar { op, shape: y.shape().to_vec() }),
        };
        if at >= first {
            slots.add(at, seed)?;
        }
    }
    let epoch = tape.0.epoch.get();
    let mut results: Vec<Option<Var<T>>> = vec![None; inputs.len()];
    for index in (first..end).rev() {
        let Some(gradient) = slots.take(index) else { continue };
        for (result, &at) in results.iter_mut().zip(&inputs_at) {
            if at == index {
                *result = Some(gradient.clone());
            }
        }
        let Some(open) = OpenNode::new(tape, index, &on_path, first, create_graph)? else {
            continue;
        };
        if let Tag::FusedLoss { past } = open.tag
            && inputs_at.contains(&past)
        {
            return Err(Error::Bypassed { op });
        }
        let recording = match gradient.tracked(op) {
            Ok((_, upstream)) if create_graph => Some((tape, upstream)),
            _ => None,
        };
        let mut sink = Sink {
            name: open.name,
            parents: &open.parents,
            needs: &open.ctx.needs,
            delivered: SmallVec::from_elem(false, open.ctx.needs.len()),
            shapes: Shapes::OnTape(tape),
            slots: &mut slots,
            recording,
        };
        open.run(gradient, &mut sink)?;
        sink.finish()?;
        if tape.0.epoch.get() != epoch {
            return Err(Error::ConsumedTape { op });
        }
    }
    Ok(results)
}

/// For each node of `first..end` whether its value depends on one of `inputs`. A loss that was fused
/// with log-probabilities counts as depending on them, so that the walk meets it.
fn on_path<T: Float>(tape: &Tape<T>, inputs: &[u32], first: u32, end: u32) -> Vec<bool> {
    let mut on_path = vec![false; (end - first) as usize];
    for &i in inputs.iter().filter(|&&i| i < end) {
        on_path[(i - first) as usize] = true;
    }
    for (i, node) in tape.0.nodes.borrow()[first as usize..end as usize].iter().enumerate() {
        let past = match node.tag {
            Tag::FusedLoss { past } => Some(past),
            _ => None,
        };
        let mut below = node.parents.iter().flatten().copied().chain(past);
        on_path[i] |= below.any(|p| p >= first && on_path[(p - first) as usize]);
    }
    on_path
}

/// A node whose backward function is about to run: taken out of the tape, so that no borrow of the
/// tape is held meanwhile, and put back however the run ends.
struct OpenNode<'a, T: Float> {
    tape: &'a Tape<T>,
    epoch: u32,
    index: u32,
    name: &'static str,
    tag: Tag,
    parents: SmallVec<[Option<u32>; 2]>,
    ctx: Ctx<T>,
    backward: Option<Backward<T>>,
}

impl<'a, T: Float> OpenNode<'a, T> {
    /// `None` where no parent needs a gradient.
    fn new(
        tape: &'a Tape<T>,
        index: u32,
        on_path: &[bool],
        first: u32,
        create_graph: bool,
    ) -> Result<Option<Self>> {
        let mut nodes = tape.0.nodes.borrow_mut();
        let node = &mut nodes[index as usize];
        let needs: SmallVec<[bool; 2]> = (node.parents.iter())
            .map(|p| p.is_some_and(|p| p >= first && on_path[(p - first) as usize]))
            .collect();
        let fused = matches!(node.tag, Tag::FusedLoss { .. });
        if node.leaf || !(needs.contains(&true) || fused) {
            return Ok(None);
        }
        // Absent only where a backward function asks for its own gradient.
        let backward = node.backward.take().ok_or(Error::ConsumedTape { op: node.name })?;
        let restore = |s: &Saved<T>| match s.node {
            Some(n) if create_graph => Var::new(s.value.clone(), Some(tape.node(n))),
            _ => Var::constant(s.value.clone()),
        };
        let saved = node.saved.iter().map(restore).collect();
        Ok(Some(OpenNode {
            tape,
            epoch: tape.0.epoch.get(),
            index,
            name: node.name,
            tag: node.tag,
            parents: node.parents.clone(),
            ctx: Ctx { saved, needs, create_graph },
            backward: Some(backward),
        }))
    }

    fn run(&self, gradient: Var<T>, sink: &mut Sink<'_, T>) -> Result<()> {
        match &self.backward {
            Some(backward) => backward(&self.ctx, gradient, sink),
            None => unreachable!("bug: taken only by drop"),
        }
    }
}

impl<T: Float> Drop for OpenNode<'_, T> {
    fn drop(&mut self) {
        if self.tape.0.epoch.get() == self.epoch
            && let Some(node) = self.tape.0.nodes.borrow_mut().get_mut(self.index as usize)
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
