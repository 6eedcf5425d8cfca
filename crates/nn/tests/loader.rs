//! Batches of a dataset: every row once, the same bits with and without a thread that makes them ahead,
//! from the start or from the middle, and no thread left behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use nn::prelude::*;

fn options(batch_size: usize, prefetch: usize) -> DataLoaderOptions {
    DataLoaderOptions { batch_size, prefetch, ..Default::default() }
}

fn numbers(rows: usize) -> TensorDataset<i64> {
    let y = Tensor::from_vec((0..rows as i64).collect(), [rows]).unwrap();
    TensorDataset::new(y.clone(), y).unwrap()
}

/// The rows of each batch, and what its generator drew.
type Drawn = (Vec<i64>, f64);

fn drawing(rows: usize) -> impl Dataset<Batch = Drawn> {
    numbers(rows).map(|(x, _), generator| Ok((x.to_vec(), generator.uniform())))
}

fn collect(epoch: impl Iterator<Item = Result<Drawn>>) -> Vec<Drawn> {
    epoch.map(Result::unwrap).collect()
}

#[test]
fn every_row_comes_once_in_an_order_of_seed_and_epoch() {
    let rows = |seed, epoch| -> Vec<i64> {
        let loader =
            DataLoader::new(drawing(10), DataLoaderOptions { seed, ..options(4, 0) }).unwrap();
        let batches = collect(loader.epoch(epoch));
        assert_eq!(batches.iter().map(|b| b.0.len()).collect::<Vec<_>>(), [4, 4, 2]);
        batches.into_iter().flat_map(|b| b.0).collect()
    };
    let first = rows(1, 0);
    assert_eq!(first, rows(1, 0));
    assert!(first != rows(1, 1) && first != rows(2, 0) && rows(1, 1) != rows(2, 0));
    let mut sorted = first;
    sorted.sort_unstable();
    assert_eq!(sorted, (0..10).collect::<Vec<_>>());
}

#[test]
fn without_shuffle_rows_come_as_they_are() {
    let in_order = DataLoaderOptions { shuffle: false, ..options(3, 0) };
    let loader = DataLoader::new(drawing(5), in_order.clone()).unwrap();
    let rows: Vec<_> = collect(loader.epoch(9)).into_iter().map(|b| b.0).collect();
    assert_eq!(rows, [vec![0, 1, 2], vec![3, 4]]);
    let dropping = DataLoaderOptions { drop_last: true, ..in_order };
    let loader = DataLoader::new(drawing(5), dropping.clone()).unwrap();
    assert_eq!((loader.len(), collect(loader.epoch(9)).len()), (1, 1));
    let whole = DataLoader::new(drawing(6), dropping).unwrap();
    assert_eq!((whole.len(), collect(whole.epoch(9)).len()), (2, 2));
}

#[test]
fn generators_differ_from_batch_to_batch_and_from_epoch_to_epoch() {
    let loader = DataLoader::new(drawing(100), options(10, 0)).unwrap();
    let mut drawn: Vec<u64> =
        (0..10).flat_map(|e| collect(loader.epoch(e))).map(|b| b.1.to_bits()).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 100);
}

#[test]
fn prefetching_and_resuming_change_no_bit() {
    let plain = DataLoader::new(drawing(23), options(4, 0)).unwrap();
    let want = collect(plain.epoch(5));
    for prefetch in [0, 1, 2, 5, 6, 100] {
        let loader = DataLoader::new(drawing(23), options(4, prefetch)).unwrap();
        assert_eq!(collect(loader.epoch(5)), want, "{prefetch}");
        for first in 0..=want.len() {
            assert_eq!(collect(loader.epoch_from(5, first)), want[first..], "{prefetch} {first}");
        }
        assert_eq!(loader.epoch_from(5, 99).len(), 0);
    }
}

#[test]
fn the_length_is_right_at_every_moment() {
    for prefetch in [0, 2] {
        let loader = DataLoader::new(drawing(9), options(2, prefetch)).unwrap();
        let mut epoch = loader.epoch_from(0, 1);
        for left in (0..4).rev() {
            assert_eq!(epoch.len(), left + 1);
            assert!(epoch.next().is_some());
        }
        assert!(epoch.len() == 0 && epoch.next().is_none() && epoch.next().is_none());
        let none = DataLoader::new(drawing(0), options(2, prefetch)).unwrap();
        assert!(none.is_empty() && none.epoch(0).next().is_none());
    }
}

/// Tells of every batch that it makes.
struct Telling(Sender<usize>, Arc<AtomicUsize>);

impl Telling {
    fn new() -> (Self, Receiver<usize>, Arc<AtomicUsize>) {
        let (sender, receiver) = channel();
        let alive = Arc::new(AtomicUsize::new(1));
        (Telling(sender, Arc::clone(&alive)), receiver, alive)
    }
}

impl Dataset for Telling {
    type Batch = usize;
    fn len(&self) -> usize {
        1000
    }
    fn batch(&self, rows: &[usize], _: &mut Generator) -> Result<usize> {
        let _ = self.0.send(rows[0]);
        // Long enough for an epoch to be dropped while a batch is being made.
        std::thread::sleep(Duration::from_millis(50));
        Ok(rows[0])
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.1.store(0, Ordering::SeqCst);
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn so_many_batches_are_made_ahead_and_no_more() {
    for prefetch in [1, 3] {
        let (dataset, made, _) = Telling::new();
        let in_order = DataLoaderOptions { shuffle: false, ..options(1, prefetch) };
        let loader = DataLoader::new(dataset, in_order).unwrap();
        let mut epoch = loader.epoch(0);
        assert_eq!(epoch.next().unwrap().unwrap(), 0);
        // What was taken, and those ahead of it.
        for row in 0..=prefetch {
            assert_eq!(made.recv_timeout(LONG), Ok(row));
        }
        drop(epoch);
        assert!(made.try_recv().is_err(), "{prefetch}");
    }
}

#[test]
fn dropping_an_epoch_early_ends_its_thread() {
    let (dataset, made, alive) = Telling::new();
    let loader = DataLoader::new(dataset, options(1, 4)).unwrap();
    let mut epoch = loader.epoch(0);
    assert!(epoch.next().is_some());
    drop(loader);
    assert_eq!(alive.load(Ordering::SeqCst), 1);
    // Only a thread that has ended lets go of the dataset.
    drop(epoch);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert!(made.iter().count() <= 5);
}

#[test]
fn errors_take_the_place_of_their_batches() {
    for prefetch in [0, 2] {
        let failing = drawing(6).map(|(rows, _), _| {
            let reason = "is three".into();
            let error = Error::InvalidArgument { op: "test", name: "row", reason };
            if rows[0] == 3 { Err(error) } else { Ok(rows[0]) }
        });
        let in_order = DataLoaderOptions { shuffle: false, ..options(1, prefetch) };
        let loader = DataLoader::new(failing, in_order).unwrap();
        let found: Vec<_> = loader.epoch(0).map(|b| b.map_err(|e| e.to_string())).collect();
        let error = Err("test: row is three".to_owned());
        assert_eq!(found, [Ok(0), Ok(1), Ok(2), error, Ok(4), Ok(5)]);
    }
}

#[test]
fn a_panic_ahead_is_an_error_with_its_text() {
    let panicking = drawing(4).map(|(rows, _), _| {
        assert!(rows[0] != 1, "row 1 is bad");
        if rows[0] == 2 {
            std::panic::panic_any(7);
        }
        Ok(rows[0])
    });
    let in_order = DataLoaderOptions { shuffle: false, ..options(1, 1) };
    let loader = DataLoader::new(panicking, in_order).unwrap();
    let found: Vec<_> = loader.epoch(0).map(|b| b.map_err(|e| e.to_string())).collect();
    let error = |text: &str| Err(format!("DataLoader: a worker panicked: {text}"));
    let want = [Ok(0), error("row 1 is bad"), error("without a message"), Ok(3)];
    assert_eq!(found, want);
}

#[test]
fn a_batch_size_of_0_is_refused() {
    let error = DataLoader::new(drawing(4), options(0, 0)).err().unwrap().to_string();
    assert_eq!(error, "DataLoader: batch_size must be at least 1, found 0");
}

#[test]
fn loaders_share_a_dataset() {
    let rows = Arc::new(numbers(8));
    let one = DataLoader::new(Arc::clone(&rows), options(8, 1)).unwrap();
    let two = DataLoader::new(rows, options(4, 0)).unwrap();
    assert_eq!((one.len(), two.len()), (1, 2));
    let all = one.epoch(3).next().unwrap().unwrap().1.to_vec();
    let halves: Vec<i64> = two.epoch(3).flat_map(|b| b.unwrap().1.to_vec()).collect();
    assert_eq!(all, halves);
}
