//! Batches of a dataset, epoch by epoch, made when they are asked for or ahead on a thread.
//!
//! What a batch holds is a function of the seed, the epoch and the number of the batch alone: not of
//! the thread that makes it, and not of what was asked for before.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use autograd::{Error, Generator, Result};

use super::Dataset;

const OP: &str = "DataLoader";

/// How a [`DataLoader`] goes through the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct DataLoaderOptions {
    /// Rows of a batch; the last may have fewer.
    pub batch_size: usize,
    /// Whether the rows come in a random order, another one in each epoch.
    pub shuffle: bool,
    /// Whether a last batch of fewer rows is left out.
    pub drop_last: bool,
    /// Batches made ahead on a thread of their own; with 0, each is made when it is asked for.
    pub prefetch: usize,
    /// Decides the order of the rows, and what a dataset does at random.
    pub seed: u64,
}

impl Default for DataLoaderOptions {
    fn default() -> Self {
        DataLoaderOptions { batch_size: 64, shuffle: true, drop_last: false, prefetch: 0, seed: 0 }
    }
}

/// Batches of a dataset, epoch by epoch. `torch.utils.data.DataLoader`, but that an epoch is named by its
/// number: the same one has the same batches, whenever and however often it is asked for.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Tensor::<f32>::arange(0.0, 10.0, 1.0)?;
/// let y = Tensor::<i64>::arange(0, 10, 1)?;
/// let options = DataLoaderOptions { batch_size: 4, prefetch: 2, ..Default::default() };
/// let loader = DataLoader::new(TensorDataset::new(x, y)?, options)?;
/// for epoch in 0..3 {
///     for batch in loader.epoch(epoch) {
///         let (x, y) = batch?;
///         assert_eq!(x.cast::<i64>().to_vec(), y.to_vec());
///     }
/// }
/// assert_eq!((loader.len(), loader.epoch(0).len()), (3, 3)); // 4 + 4 + 2 rows
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DataLoader<D> {
    dataset: Arc<D>,
    options: DataLoaderOptions,
}

impl<D: Dataset + 'static> DataLoader<D> {
    /// The batches of `dataset`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a batch size of 0.
    pub fn new(dataset: D, options: DataLoaderOptions) -> Result<Self> {
        if options.batch_size == 0 {
            let reason = "must be at least 1, found 0".into();
            return Err(Error::InvalidArgument { op: OP, name: "batch_size", reason });
        }
        Ok(DataLoader { dataset: Arc::new(dataset), options })
    }

    /// The dataset.
    pub fn dataset(&self) -> &D {
        &self.dataset
    }

    /// The number of batches of an epoch.
    pub fn len(&self) -> usize {
        let (rows, size) = (self.dataset.len(), self.options.batch_size);
        if self.options.drop_last { rows / size } else { rows.div_ceil(size) }
    }

    /// Whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All batches of epoch `epoch`.
    pub fn epoch(&self, epoch: u64) -> Epoch<D> {
        self.epoch_from(epoch, 0)
    }

    /// The batches of epoch `epoch` without the first `first_batch`: the rest of an epoch that was left
    /// in the middle, bit for bit. None of those before are made.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let y = Tensor::<i64>::arange(0, 100, 1)?;
    /// let loader = DataLoader::new(TensorDataset::new(y.clone(), y)?, Default::default())?;
    /// let last = loader.epoch(7).last().unwrap()?;
    /// let again = loader.epoch_from(7, 1).next().unwrap()?;
    /// assert_eq!(last.1.to_vec(), again.1.to_vec());
    /// # Ok::<(), nn::Error>(())
    /// ```
    pub fn epoch_from(&self, epoch: u64, first_batch: usize) -> Epoch<D> {
        let key = key(self.options.seed, epoch);
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.options.shuffle {
            Generator::with_stream(key, 0).shuffle(&mut order);
        }
        let (dataset, size) = (Arc::clone(&self.dataset), self.options.batch_size);
        let plan = Arc::new(Plan { dataset, order, size, key });
        let batches = self.len();
        let ahead = match self.options.prefetch {
            0 => None,
            _ if first_batch >= batches => None,
            n => Ahead::start(n, Arc::clone(&plan), first_batch..batches),
        };
        Epoch { plan, next: first_batch.min(batches), batches, ahead }
    }
}

/// The seed of an epoch: epochs of one seed never share one, and the numbers are none that a program
/// would use for its other generators. The mixing is SplitMix64's (Steele, Lea & Flood, OOPSLA 2014).
fn key(seed: u64, epoch: u64) -> u64 {
    let mix = |mut z: u64| {
        z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    mix(mix(seed).wrapping_add(epoch))
}

/// All that decides the batches of an epoch.
#[derive(Debug)]
struct Plan<D> {
    dataset: Arc<D>,
    order: Vec<usize>,
    size: usize,
    key: u64,
}

impl<D: Dataset> Plan<D> {
    fn batch(&self, number: usize) -> Result<D::Batch> {
        let rest = &self.order[number * self.size..];
        // Stream 0 is the order's.
        let mut generator = Generator::with_stream(self.key, number as u64 + 1);
        self.dataset.batch(&rest[..rest.len().min(self.size)], &mut generator)
    }
}

/// Iterator over the batches of an epoch; it knows its length. An error takes the place of its batch, and
/// the batches after it come all the same.
///
/// With `prefetch`, a panic in the dataset is [`Error::Panicked`] here; without, it is a panic. Dropping
/// the iterator ends its thread, after the batch at hand.
#[derive(Debug)]
pub struct Epoch<D: Dataset> {
    plan: Arc<Plan<D>>,
    next: usize,
    batches: usize,
    ahead: Option<Ahead<D::Batch>>,
}

impl<D: Dataset> Iterator for Epoch<D> {
    type Item = Result<D::Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.batches {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(match &self.ahead {
            None => self.plan.batch(number),
            Some(ahead) => ahead.receive(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.batches - self.next;
        (left, Some(left))
    }
}

impl<D: Dataset> ExactSizeIterator for Epoch<D> {}

impl<D: Dataset> std::iter::FusedIterator for Epoch<D> {}

/// A thread that makes batches, and the channel they come through.
#[derive(Debug)]
struct Ahead<B> {
    /// `None` only while this is dropped.
    batches: Option<Receiver<Result<B>>>,
    worker: Option<JoinHandle<()>>,
}

impl<B: Send + 'static> Ahead<B> {
    /// `None` where the system gives no thread: the batches are then made when they are asked for.
    fn start<D>(count: usize, plan: Arc<Plan<D>>, numbers: std::ops::Range<usize>) -> Option<Self>
    where
        D: Dataset<Batch = B> + 'static,
    {
        // Besides what the channel holds, the thread has one batch in its hands.
        let (sender, receiver) = sync_channel(count.min(numbers.len()) - 1);
        let work = move || make(&plan, numbers, &sender);
        let worker = std::thread::Builder::new().name("data-loader".into()).spawn(work).ok()?;
        Some(Ahead { batches: Some(receiver), worker: Some(worker) })
    }
}

impl<B> Ahead<B> {
    fn receive(&self) -> Result<B> {
        let received = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        received.unwrap_or_else(|| Err(panicked("the thread is gone".into())))
    }
}

impl<B> Drop for Ahead<B> {
    fn drop(&mut self) {
        // Without a receiver, the next batch that is sent ends the thread.
        self.batches = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

/// What the thread does: makes batches until all are made, or nobody wants them.
fn make<D: Dataset>(
    plan: &Plan<D>,
    numbers: std::ops::Range<usize>,
    sender: &SyncSender<Result<D::Batch>>,
) {
    for number in numbers {
        // A dataset that a panic left in disorder can spoil later batches, as it could without a thread;
        // it cannot spoil memory.
        let batch = catch_unwind(AssertUnwindSafe(|| plan.batch(number)))
            .unwrap_or_else(|payload| Err(panicked(message(&*payload))));
        if sender.send(batch).is_err() {
            return;
        }
    }
}

fn panicked(message: String) -> Error {
    Error::Panicked { op: OP, message }
}

/// The text of a panic.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_and_seeds_have_keys_of_their_own() {
        let mut keys: Vec<u64> = (0..20).flat_map(|s| (0..20).map(move |e| key(s, e))).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 400);
    }
}
