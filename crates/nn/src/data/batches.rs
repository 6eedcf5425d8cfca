//! Batches in order or shuffled, and the stratified split.

use std::collections::BTreeMap;

use autograd::{Error, Float, Generator, Result, Tensor};

/// Rows with their classes, handed out in batches.
#[derive(Clone, Debug)]
pub struct Batches<T: Float> {
    x: Tensor<T>,
    y: Tensor<i64>,
    batch_size: usize,
}

impl<T: Float> Batches<T> {
    /// Batches of `batch_size` rows; the last may be smaller.
    ///
    /// # Shape
    /// `x: [N, ..]`, `y: [N]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the numbers of rows differ; [`Error::InvalidArgument`] for a
    /// batch size of 0.
    pub fn new(x: Tensor<T>, y: Tensor<i64>, batch_size: usize) -> Result<Self> {
        let op = "Batches";
        let [n] = y.dims(op)?;
        if x.shape().first() != Some(&n) {
            return Err(Error::ShapeMismatch { op, lhs: x.shape().to_vec(), rhs: vec![n] });
        }
        if batch_size == 0 {
            let reason = "must be at least 1".into();
            return Err(Error::InvalidArgument { op, name: "batch_size", reason });
        }
        Ok(Batches { x, y, batch_size })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.y.numel()
    }

    /// All rows once, in order.
    pub fn iter(&self) -> BatchIter<'_, T> {
        self.in_order((0..self.rows() as i64).collect())
    }

    /// All rows once, in an order that `generator` decides.
    pub fn shuffled(&self, generator: &mut Generator) -> BatchIter<'_, T> {
        let mut order: Vec<i64> = (0..self.rows() as i64).collect();
        generator.shuffle(&mut order);
        self.in_order(order)
    }

    fn in_order(&self, order: Vec<i64>) -> BatchIter<'_, T> {
        BatchIter { batches: self, order, done: 0 }
    }
}

/// Iterator over batches `(x, y)`; it knows its length.
#[derive(Debug)]
pub struct BatchIter<'a, T: Float> {
    batches: &'a Batches<T>,
    order: Vec<i64>,
    done: usize,
}

impl<T: Float> Iterator for BatchIter<'_, T> {
    type Item = (Tensor<T>, Tensor<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.order[self.done..];
        let rows = &rest[..rest.len().min(self.batches.batch_size)];
        if rows.is_empty() {
            return None;
        }
        self.done += rows.len();
        let select = |index: &Tensor<i64>| -> Result<Self::Item> {
            Ok((self.batches.x.index_select(0, index)?, self.batches.y.index_select(0, index)?))
        };
        match Tensor::from_slice(rows, [rows.len()]).and_then(|index| select(&index)) {
            Ok(batch) => Some(batch),
            Err(error) => unreachable!("bug: every index is a row: {error}"),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.order.len() - self.done).div_ceil(self.batches.batch_size);
        (left, Some(left))
    }
}

impl<T: Float> ExactSizeIterator for BatchIter<'_, T> {}

/// Splits rows into a training and a test part so that every class has the same share in both:
/// returns the row numbers of each, ascending. `generator` decides which rows.
///
/// # Errors
/// [`Error::RankMismatch`] unless `labels` is a vector; [`Error::InvalidArgument`] for a share
/// outside [0, 1].
pub fn stratified_split(
    labels: &Tensor<i64>,
    test_share: f64,
    generator: &mut Generator,
) -> Result<(Tensor<i64>, Tensor<i64>)> {
    let op = "stratified_split";
    let [_] = labels.dims(op)?;
    if !(0.0..=1.0).contains(&test_share) {
        let reason = format!("must be in [0, 1], found {test_share}");
        return Err(Error::InvalidArgument { op, name: "test_share", reason });
    }
    let mut by_class: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (row, class) in labels.to_vec().into_iter().enumerate() {
        by_class.entry(class).or_default().push(row as i64);
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for rows in by_class.values_mut() {
        generator.shuffle(rows);
        let (for_test, for_training) =
            rows.split_at((rows.len() as f64 * test_share).round() as usize);
        test.extend_from_slice(for_test);
        train.extend_from_slice(for_training);
    }
    train.sort_unstable();
    test.sort_unstable();
    let tensor = |rows: Vec<i64>| Tensor::from_slice(&rows, [rows.len()]);
    Ok((tensor(train)?, tensor(test)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_comes_once_in_a_seeded_order() {
        let x = Tensor::from_vec((0..10).map(|i| i as f32).collect(), [10, 1]).unwrap();
        let y = Tensor::from_vec((0..10).collect(), [10]).unwrap();
        let batches = Batches::new(x, y, 4).unwrap();
        let order = |seed| -> Vec<i64> {
            let mut rng = Generator::new(seed);
            let iter = batches.shuffled(&mut rng);
            assert_eq!(iter.len(), 3);
            let each = |(x, y): (Tensor<f32>, Tensor<i64>)| {
                assert_eq!(x.to_vec(), y.to_vec().iter().map(|&y| y as f32).collect::<Vec<_>>());
                y.to_vec()
            };
            iter.flat_map(each).collect()
        };
        let (a, b) = (order(1), order(2));
        assert!(a == order(1) && a != b);
        let mut sorted = a;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        assert_eq!(batches.iter().map(|(_, y)| y.numel()).collect::<Vec<_>>(), [4, 4, 2]);
    }

    #[test]
    fn a_stratified_split_keeps_the_shares_and_every_row() {
        let labels: Vec<i64> = (0..100).map(|i| if i % 10 == 0 { 1 } else { 0 }).collect();
        let labels = Tensor::from_vec(labels, [100]).unwrap();
        let (train, test) = stratified_split(&labels, 0.2, &mut Generator::new(0)).unwrap();
        assert_eq!((train.numel(), test.numel()), (80, 20));
        let ones = labels.index_select(0, &test).unwrap().to_vec().iter().sum::<i64>();
        assert_eq!(ones, 2);
        let mut all = [train.to_vec(), test.to_vec()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        assert!(stratified_split(&labels, f64::NAN, &mut Generator::new(0)).is_err());
    }

    #[test]
    fn bad_arguments_are_refused() {
        let x = Tensor::<f32>::zeros([3, 1]).unwrap();
        let y = |n: usize| Tensor::from_vec(vec![0; n], [n]).unwrap();
        assert!(Batches::new(x.clone(), y(2), 1).is_err());
        assert!(Batches::new(x.clone(), y(3), 0).is_err());
        assert!(Batches::new(Tensor::scalar(0.0_f32), y(1), 1).is_err());
    }
}
