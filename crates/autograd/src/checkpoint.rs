//! Activation checkpointing: less memory for one more forward pass.

use std::collections::BTreeMap;
use std::sync::Arc;

use tensor::{Error, Float, Result, Tensor};

use crate::engine::{self, Ctx, Sink};
use crate::tape::{Mode, ParameterId, Save, Tape, record_many};
use crate::transforms::alias;
use crate::var::Var;

/// `f(inputs)`, of which the tape keeps the inputs alone; backward computes `f` once more and goes
/// through it. The gradients have the same bits as without.
///
/// Parameters that `f` binds through its inputs' tape get their gradients as usual. Dropout draws the
/// same numbers both times. `f` must be the same function both times, and lives until backward.
///
/// # Gradient
/// That of `f`. Saves the inputs and the bound parameters. Any order that `f` has.
///
/// # Errors
/// Those of `f`; [`Error::MixedTapes`].
///
/// # Examples
/// ```
/// use autograd::{checkpoint, Tape, Tensor};
/// let tape = Tape::new();
/// let x = tape.var(Tensor::from([0.5_f64, 1.0]));
/// let y = checkpoint(|x| Ok(x[0].exp().tanh().sum()), &[&x])?;
/// assert_eq!(tape.op_names(), ["leaf", "checkpoint"]);
/// let with = y.backward()?.wrt(&x)?.to_vec();
/// let x = tape.var(Tensor::from([0.5_f64, 1.0]));
/// assert_eq!(with, x.exp().tanh().sum().backward()?.wrt(&x)?.to_vec());
/// # Ok::<(), autograd::Error>(())
/// ```
///
/// # Reference
/// `torch.utils.checkpoint.checkpoint`; Chen et al., arXiv 1604.06174.
#[track_caller]
pub fn checkpoint<T: Float>(
    f: impl Fn(&[Var<T>]) -> Result<Var<T>> + Send + Sync + 'static,
    inputs: &[&Var<T>],
) -> Result<Var<T>> {
    let mut tapes = inputs.iter().filter_map(|x| x.tape());
    let Some(tape) = tapes.next() else {
        return f(&inputs.iter().map(|&x| x.clone()).collect::<Vec<_>>());
    };
    if tapes.any(|t| !t.same(tape)) {
        return Err(Error::MixedTapes { op: "checkpoint" });
    }
    let mode = tape.0.mode;
    let streams = tape.0.step.streams.get();
    let silent = Tape::with_mode(Mode { recording: false, ..mode });
    silent.0.step.streams.set(streams);
    silent.0.step.buffers.replace(tape.0.step.buffers.borrow().clone());
    let constants: Vec<_> = inputs.iter().map(|x| silent.constant(x.value().clone())).collect();
    let y = f(&constants)?.into_value();
    tape.0.step.streams.set(silent.0.step.streams.get());
    tape.0.step.buffers.swap(&silent.0.step.buffers);
    drop(constants);

    let seen: BTreeMap<ParameterId, Tensor<T>> = silent.0.seen.take();
    let parameters: Vec<_> = seen.iter().map(|(&id, value)| tape.bind(id, value)).collect();
    let operands: Vec<&Var<T>> = inputs.iter().copied().chain(&parameters).collect();
    let nodes: Vec<_> = operands.iter().map(|x| x.node()).collect();
    let saved: Vec<_> = operands.iter().map(|&x| Save::Input(x)).collect();
    let again = Again {
        f: Arc::new(f),
        inputs: inputs.len(),
        ids: seen.into_keys().collect(),
        mode,
        streams,
    };
    record_many("checkpoint", &nodes, &saved, y, move |ctx, g, sink| {
        if ctx.create_graph() { again.recorded(ctx, g, sink) } else { again.plain(ctx, g, sink) }
    })
}

/// The function, and what makes its second run like the first.
struct Again<F> {
    f: Arc<F>,
    inputs: usize,
    ids: Vec<ParameterId>,
    mode: Mode,
    streams: u64,
}

impl<F> Again<F> {
    /// The ordinary backward, on a tape of its own. What the operands have received already goes in
    /// first, so that sums are made in the order of a walk without checkpoint.
    fn plain<T: Float>(&self, ctx: &Ctx<'_, T>, g: Var<T>, sink: &mut Sink<'_, T>) -> Result<()>
    where
        F: Fn(&[Var<T>]) -> Result<Var<T>>,
    {
        let tape = Tape::with_mode(self.mode);
        tape.0.step.streams.set(self.streams);
        let count = self.inputs + self.ids.len();
        let mut leaves: Vec<Var<T>> = Vec::with_capacity(count);
        for i in 0..count {
            let value = ctx.saved(i).into_value();
            leaves.push(match ctx.twin(i) {
                Some(first) => leaves[first].clone(),
                None if ctx.needs(i) => tape.var(value),
                None => tape.constant(value),
            });
        }
        for (id, leaf) in self.ids.iter().zip(&leaves[self.inputs..]) {
            tape.bind_to(*id, leaf)?;
        }
        let y = (self.f)(&leaves[..self.inputs])?;
        let mut seeds = Vec::new();
        for (i, leaf) in leaves.iter().enumerate() {
            if let Some(partial) = sink.take_partial(i) {
                seeds.push((leaf.tracked("checkpoint")?.1, partial));
            }
        }
        if y.is_tracked() {
            seeds.push((y.tracked("checkpoint")?.1, g));
        }
        let mut grads = engine::consume(&tape, seeds)?;
        for (i, leaf) in leaves.iter().enumerate() {
            // An operand that was given twice has one leaf, and one sum.
            match grads.take(leaf) {
                Some(dx) => sink.add(i, Var::constant(dx))?,
                None => sink.add_zero(i)?,
            }
        }
        Ok(())
    }

    /// The backward that is itself recorded: `f` again on the caller's tape.
    fn recorded<T: Float>(&self, ctx: &Ctx<'_, T>, g: Var<T>, sink: &mut Sink<'_, T>) -> Result<()>
    where
        F: Fn(&[Var<T>]) -> Result<Var<T>>,
    {
        let count = self.inputs + self.ids.len();
        let Some(tape) = g.tape().cloned() else { unreachable!("bug: an untracked gradient") };
        // Nodes of their own, so that one operand's gradient has no part of another's that depends
        // on it.
        let operand = |i: usize| {
            let x = ctx.saved(i);
            if ctx.needs(i) { alias(&tape, &x) } else { tape.constant(x.into_value()) }
        };
        let x: Vec<Var<T>> = (0..count).map(operand).collect();
        let streams = tape.0.step.streams.replace(self.streams);
        let buffers = tape.0.step.buffers.clone();
        let bindings = tape.0.bindings.borrow().clone();
        let run = || {
            for (id, x) in self.ids.iter().zip(&x[self.inputs..]) {
                tape.bind_to(*id, x)?;
            }
            (self.f)(&x[..self.inputs])
        };
        let y = run();
        *tape.0.bindings.borrow_mut() = bindings;
        tape.0.step.streams.set(streams);
        tape.0.step.buffers.swap(&buffers);
        let (y, wanted): (_, Vec<usize>) = (y?, (0..count).filter(|&i| ctx.needs(i)).collect());
        let operands: Vec<_> = wanted.iter().map(|&i| &x[i]).collect();
        let found = match y.is_tracked() {
            true => engine::grad(&[&y], &operands, &[g], true)?,
            false => vec![None; operands.len()],
        };
        for (i, dx) in wanted.into_iter().zip(found) {
            match dx {
                Some(dx) => sink.add(i, dx)?,
                None => sink.add_zero(i)?,
            }
        }
        Ok(())
    }
}
