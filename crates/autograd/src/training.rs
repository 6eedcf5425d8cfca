//! What travels with a step of training: its mode, its random numbers, and the new values of buffers,
//! such as the running statistics of a batch normalisation.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tensor::{Float, Generator, Tensor};

use crate::gradients::Gradients;
use crate::tape::{Mode, ParameterId, Tape};

/// The part of a tape that operations of a training step read and write.
pub(crate) struct Step<T: Float> {
    /// Generators handed out so far: which stream of the seed comes next.
    pub(crate) streams: Cell<u64>,
    /// The values that buffers are to have after this step.
    pub(crate) buffers: RefCell<BTreeMap<ParameterId, Tensor<T>>>,
}

impl<T: Float> Default for Step<T> {
    fn default() -> Self {
        Step { streams: Cell::new(0), buffers: RefCell::default() }
    }
}

impl<T: Float> Tape<T> {
    /// An empty tape in training mode. What is random in a step (dropout) draws from this seed: the
    /// same seed and the same calls give the same numbers.
    pub fn training(seed: u64) -> Self {
        Self::with_seed(Some(seed))
    }

    /// An empty tape: in training mode with a seed, in evaluation mode without.
    pub(crate) fn with_seed(seed: Option<u64>) -> Self {
        Self::with_mode(Mode { seed, recording: true })
    }

    /// Whether this is a step of training; see [`Tape::training`].
    pub fn is_training(&self) -> bool {
        self.0.mode.seed.is_some()
    }

    /// Random numbers for one call of an operation, none of which another call gets; `None` in
    /// evaluation mode, where an operation must not be random.
    pub fn generator(&self) -> Option<Generator> {
        let seed = self.0.mode.seed?;
        let stream = self.0.step.streams.get();
        self.0.step.streams.set(stream.wrapping_add(1));
        Some(Generator::with_stream(seed, stream))
    }

    /// How many generators the tape has handed out: what a checkpoint keeps, so that a resumed run draws
    /// the same numbers.
    ///
    /// ```
    /// use autograd::{Tape, Tensor};
    /// let x = Tensor::<f64>::ones([8])?;
    /// let tape = Tape::training(7);
    /// tape.constant(x.clone()).dropout(0.5)?;
    /// let position = tape.random_position();
    /// let second = tape.constant(x.clone()).dropout(0.5)?;
    /// let resumed = Tape::training(7);
    /// resumed.set_random_position(position);
    /// assert_eq!(resumed.constant(x).dropout(0.5)?.value().to_vec(), second.value().to_vec());
    /// # Ok::<(), autograd::Error>(())
    /// ```
    pub fn random_position(&self) -> u64 {
        self.0.step.streams.get()
    }

    /// Goes on with the random numbers where another tape of this seed stood.
    pub fn set_random_position(&self, position: u64) {
        self.0.step.streams.set(position);
    }

    /// Leaves the value that a buffer is to have after this step; [`Gradients`] carry it to the
    /// optimiser. A later value of the same recording takes its place.
    pub fn leave_buffer(&self, id: ParameterId, value: Tensor<T>) {
        // The old value is dropped after the borrow has ended.
        let _old = self.0.step.buffers.borrow_mut().insert(id, value);
    }

    /// The values left in a recording: given away where it is over, copied where the tape stays.
    pub(crate) fn left(&self, epoch: u32) -> Left<T> {
        let over = self.0.epoch.get() != epoch;
        let buffers = &self.0.step.buffers;
        Left::new(if over { buffers.take() } else { buffers.borrow().clone() })
    }

    /// The value that was left for a buffer since the tape was last emptied: where a layer runs twice in
    /// a step, the second run goes on from the first.
    pub fn buffer(&self, id: ParameterId) -> Option<Tensor<T>> {
        self.0.step.buffers.borrow().get(&id).cloned()
    }
}

/// New values of buffers, as gradients carry them.
#[derive(Clone)]
pub(crate) struct Left<T: Float> {
    sums: BTreeMap<ParameterId, Tensor<T>>,
    /// Over how many recordings the values are summed.
    counts: BTreeMap<ParameterId, usize>,
}

impl<T: Float> Left<T> {
    fn new(buffers: BTreeMap<ParameterId, Tensor<T>>) -> Self {
        Left { counts: buffers.keys().map(|&id| (id, 1)).collect(), sums: buffers }
    }

    pub(crate) fn add_assign(&mut self, other: &Self) {
        for (&id, value) in &other.sums {
            let count = other.counts[&id];
            match self.sums.get_mut(&id) {
                // Values of two shapes have no mean; a layer cannot have changed its channels.
                Some(sum) if sum.shape() == value.shape() => {
                    *sum += value;
                    *self.counts.entry(id).or_insert(0) += count;
                }
                _ => {
                    self.sums.insert(id, value.clone());
                    self.counts.insert(id, count);
                }
            }
        }
    }
}

impl<T: Float> Gradients<T> {
    /// The value that a buffer has after this step, if the forward pass left one: the mean over the
    /// parts that were added.
    pub fn buffer(&self, id: ParameterId) -> Option<Tensor<T>> {
        let sum = self.buffers.sums.get(&id)?;
        Some(match self.buffers.counts[&id] {
            1 => sum.clone(),
            n => sum * T::from_f64(1.0 / n as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(x: f64, y: f64) -> Tensor<f64> {
        Tensor::from([x, y])
    }

    /// Gradients of a step that leaves `value` for the buffer.
    fn step(tape: &Tape<f64>, id: ParameterId, value: Tensor<f64>) -> Gradients<f64> {
        let x = tape.var(Tensor::scalar(1.0));
        tape.leave_buffer(id, value);
        x.backward().unwrap()
    }

    #[test]
    fn gradients_carry_the_last_value_and_the_tape_forgets_it() {
        let (tape, id) = (Tape::training(0), ParameterId::new());
        tape.leave_buffer(id, pair(9.0, 9.0));
        assert_eq!(tape.buffer(id).unwrap().to_vec(), [9.0, 9.0]);
        let grads = step(&tape, id, pair(1.0, 2.0));
        assert_eq!(grads.buffer(id).unwrap().to_vec(), [1.0, 2.0]);
        assert!(tape.buffer(id).is_none() && grads.buffer(ParameterId::new()).is_none());
        tape.leave_buffer(id, pair(3.0, 3.0));
        tape.clear();
        assert!(tape.buffer(id).is_none());
    }

    #[test]
    fn added_gradients_average_their_buffers() {
        let (tape, id) = (Tape::training(0), ParameterId::new());
        let mut sum = step(&tape, id, pair(1.0, 2.0));
        sum.add_assign(&step(&tape, id, pair(3.0, 2.0))).unwrap();
        sum.add_assign(&step(&tape, id, pair(5.0, 2.0))).unwrap();
        assert_eq!(sum.buffer(id).unwrap().to_vec(), [3.0, 2.0]);
    }

    #[test]
    fn a_retained_backward_leaves_them_on_the_tape() {
        let (tape, id) = (Tape::training(0), ParameterId::new());
        let x = tape.var(Tensor::scalar(1.0));
        tape.leave_buffer(id, pair(1.0, 2.0));
        let grads = x.backward_retain().unwrap();
        assert_eq!(grads.buffer(id).unwrap().to_vec(), [1.0, 2.0]);
        assert!(tape.buffer(id).is_some());
    }

    #[test]
    fn a_checkpoint_leaves_each_buffer_once() {
        let (tape, id) = (Tape::training(0), ParameterId::new());
        let counted = move |x: &[crate::Var<f64>]| {
            let tape = x[0].tape().cloned().unwrap_or_default();
            let before = tape.buffer(id).map_or(0.0, |b| b.to_vec()[0]);
            tape.leave_buffer(id, Tensor::from([before + 1.0]));
            Ok(&x[0] * &x[0])
        };
        let x = tape.var(Tensor::scalar(2.0));
        let y = crate::checkpoint(counted, &[&x]).unwrap();
        let y = crate::checkpoint(counted, &[&y]).unwrap();
        assert_eq!(tape.buffer(id).unwrap().to_vec(), [2.0]);
        let second = crate::grad(&[&y], &[&x], &[], true).unwrap();
        assert_eq!(second[0].as_ref().unwrap().value().to_vec(), [32.0]);
        assert_eq!(tape.buffer(id).unwrap().to_vec(), [2.0]);
        assert_eq!(y.backward().unwrap().buffer(id).unwrap().to_vec(), [2.0]);
    }
}
