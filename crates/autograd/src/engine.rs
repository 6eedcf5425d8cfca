//! The reverse walk over the tape.
//!
//! Nodes are visited from the newest to the oldest. Each takes its gradient out of its slot, hands
//! it to its backward function, and is done: no recursion, and in an ordinary backward its saved
//! values go right after use. The first gradient that reaches a slot is moved in; later ones are
//! added in place.

use smallvec::SmallVec;
use tensor::{Error, Float, Result, Shape, Tensor};

use crate::gradients::{Gradients, Origin};
use crate::tape::{Backward, Node, Saved, Tape};
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
    shapes: Shapes<'a, T>,
    slots: &'a mut Slots<T>,
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
    /// [`Error::GradientShape`] unless the gradient has the parent's shape.
    pub fn add(&mut self, i: usize, gradient: Var<T>) -> Result<()> {
        let Some(parent) = self.wanted(i) else { return Ok(()) };
        let fits = self.with_shape(parent, |shape| gradient.shape() == shape);
        if !fits {
            return Err(Error::GradientShape {
                op: self.name,
                input: i,
                found: gradient.shape().to_vec(),
                expected: self.with_shape(parent, <[usize]>::to_vec),
            });
        }
        self.slots.add(parent, gradient)
    }

    /// [`Sink::add`] for an operand that was broadcast: sums the gradient to the parent's shape
    /// first. The one place where broadcasting is undone.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the parent's shape does not broadcast to the gradient's.
    pub fn add_broadcast(&mut self, i: usize, gradient: Var<T>) -> Result<()> {
        let Some(parent) = self.wanted(i) else { return Ok(()) };
        let shape = self.with_shape(parent, |shape| Shape::from(shape));
        let gradient =
            if gradient.shape() == &*shape { gradient } else { gradient.sum_to(&shape)? };
        self.slots.add(parent, gradient)
    }

    fn wanted(&self, i: usize) -> Option<u32> {
        self.parents.get(i).copied().flatten().filter(|_| self.needs[i])
    }

    fn with_shape<R>(&self, node: u32, f: impl FnOnce(&[usize]) -> R) -> R {
        match &self.shapes {
            Shapes::Taken(nodes) => f(&nodes[node as usize].shape),
            Shapes::OnTape(tape) => {
                // Copied, so that no borrow of the tape is held while `f` runs.
                let shape = tape.0.nodes.borrow()[node as usize].shape.clone();
                f(&shape)
            }
        }
    }
}

/// Gradients under way: a number for each node, into a slab of those that are alive.
struct Slots<T: Float> {
    of_node: Vec<u32>,
    slab: Vec<Option<Var<T>>>,
    free: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl<T: Float> Slots<T> {
    fn new(nodes: usize) -> Self {
        Slots { of_node: vec![EMPTY; nodes], slab: Vec::new(), free: Vec::new() }
    }

    fn add(&mut self, node: u32, gradient: Var<T>) -> Result<()> {
        let slot = &mut self.of_node[node as usize];
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
            Some(sum) => Some(sum + gradient),
            None => unreachable!("bug: a slot in use is empty"),
        };
        Ok(())
    }

    fn take(&mut self, node: u32) -> Option<Var<T>> {
        let slot = std::mem::replace(&mut self.of_node[node as usize], EMPTY);
        if slot == EMPTY {
            return None;
        }
        self.free.push(slot);
        self.slab[slot as usize].take()
    }
}

impl Origin {
    fn of<T: Float>(node: &Node<T>) -> Self {
        match node {
            Node { bypassed: true, .. } => Origin::Bypassed,
            Node { retain: true, .. } => Origin::Kept,
            _ => Origin::Result(node.name),
        }
    }
}

/// The ordinary backward: consumes the tape.
pub(crate) fn backward<T: Float>(
    tape: &Tape<T>,
    from: u32,
    seed: Tensor<T>,
) -> Result<Gradients<T>> {
    let epoch = tape.0.epoch.get();
    let mut nodes = std::mem::take(&mut *tape.0.nodes.borrow_mut());
    let bindings = std::mem::take(&mut *tape.0.bindings.borrow_mut());
    tape.0.epoch.set(epoch.wrapping_add(1));
    // Nodes above `from` cannot reach it; their saved values go first.
    let origins = nodes.iter().map(Origin::of).collect();
    let mut gradients = Gradients::new(tape, epoch, origins);
    nodes.truncate(from as usize + 1);
    let mut slots = Slots::new(nodes.len());
    slots.add(from, Var::constant(seed))?;
    while let Some(mut node) = nodes.pop() {
        let index = nodes.len() as u32;
        let Some(gradient) = slots.take(index) else { continue };
        if node.retain {
            gradients.insert(index, gradient.value().clone());
        }
        let Some(backward) = node.backward.take() else { continue };
        let needs: SmallVec<[bool; 2]> = node.parents.iter().map(Option::is_some).collect();
        let saved = node.saved.drain(..).map(|s| Var::constant(s.value)).collect();
        let ctx = Ctx { saved, needs: needs.clone(), create_graph: false };
        let mut sink = Sink {
            name: node.name,
            parents: &node.parents,
            needs: &needs,
            shapes: Shapes::Taken(&nodes),
            slots: &mut slots,
        };
        backward(&ctx, gradient, &mut sink)?;
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
    let input_place = |x: &Var<T>| {
        let index = place(x)?;
        let bypassed = tape.0.nodes.borrow()[index as usize].bypassed;
        if bypassed { Err(Error::Bypassed { op }) } else { Ok(index) }
    };
    let outputs_at = outputs.iter().map(|y| place(y)).collect::<Result<Vec<_>>>()?;
    let inputs_at = inputs.iter().map(|x| input_place(x)).collect::<Result<Vec<_>>>()?;
    if !grad_outputs.is_empty() && grad_outputs.len() != outputs.len() {
        return Err(Error::InvalidArgument {
            op,
            name: "grad_outputs",
            reason: format!("has {} entries for {} outputs", grad_outputs.len(), outputs.len()),
        });
    }

    let count = tape.len();
    let mut slots = Slots::new(count);
    for (i, (y, &at)) in outputs.iter().zip(&outputs_at).enumerate() {
        let seed = match grad_outputs.get(i) {
            Some(g) if g.shape() != y.shape() => {
                let (lhs, rhs) = (y.shape().to_vec(), g.shape().to_vec());
                return Err(Error::ShapeMismatch { op, lhs, rhs });
            }
            Some(g) => g.clone(),
            None if y.value().numel() == 1 => Var::constant(y.value().ones_like()),
            None => return Err(Error::NotScalar { op, shape: y.shape().to_vec() }),
        };
        slots.add(at, if create_graph { seed } else { seed.detach() })?;
    }
    let on_path = nodes_above(tape, &inputs_at, count);
    let mut results: Vec<Option<Var<T>>> = vec![None; inputs.len()];
    for index in (0..count as u32).rev() {
        let Some(gradient) = slots.take(index) else { continue };
        for (result, &at) in results.iter_mut().zip(&inputs_at) {
            if at == index {
                *result = Some(gradient.clone());
            }
        }
        let Some((ctx, parents, backward)) = open_node(tape, index, &on_path, create_graph)? else {
            continue;
        };
        let mut sink = Sink {
            name: tape.0.nodes.borrow()[index as usize].name,
            parents: &parents,
            needs: &ctx.needs,
            shapes: Shapes::OnTape(tape),
            slots: &mut slots,
        };
        let outcome = backward(&ctx, gradient, &mut sink);
        tape.0.nodes.borrow_mut()[index as usize].backward = Some(backward);
        outcome?;
    }
    Ok(results)
}

/// For each node whether its value depends on one of `inputs`.
fn nodes_above<T: Float>(tape: &Tape<T>, inputs: &[u32], count: usize) -> Vec<bool> {
    let mut on_path = vec![false; count];
    for &i in inputs {
        on_path[i as usize] = true;
    }
    for (i, node) in tape.0.nodes.borrow()[..count].iter().enumerate() {
        on_path[i] |= node.parents.iter().flatten().any(|&p| on_path[p as usize]);
    }
    on_path
}

type OpenNode<T> = (Ctx<T>, SmallVec<[Option<u32>; 2]>, Backward<T>);

/// What a node's backward needs, with the function taken out of the node so that no borrow of the
/// tape is held while it runs. `None`: nothing to do.
fn open_node<T: Float>(
    tape: &Tape<T>,
    index: u32,
    on_path: &[bool],
    create_graph: bool,
) -> Result<Option<OpenNode<T>>> {
    let mut nodes = tape.0.nodes.borrow_mut();
    let node = &mut nodes[index as usize];
    let needs: SmallVec<[bool; 2]> =
        node.parents.iter().map(|p| p.is_some_and(|p| on_path[p as usize])).collect();
    if node.leaf || !needs.contains(&true) {
        return Ok(None);
    }
    // Absent only if an earlier run of it panicked.
    let backward = node.backward.take().ok_or(Error::ConsumedTape { op: "grad" })?;
    let restore = |s: &Saved<T>| match s.node {
        Some(n) if create_graph => Var::new(s.value.clone(), Some(tape.node(n))),
        _ => Var::constant(s.value.clone()),
    };
    let saved = node.saved.iter().map(restore).collect();
    Ok(Some((Ctx { saved, needs, create_graph }, node.parents.clone(), backward)))
}
