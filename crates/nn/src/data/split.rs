//! Rows for training and rows for testing: one split, or k folds.

use std::collections::BTreeMap;

use autograd::{Error, Generator, Result, Tensor};

/// Row numbers for training and for testing, both ascending.
pub type Split = (Tensor<i64>, Tensor<i64>);

/// Splits rows into a training and a test part so that every class has the same share in both:
/// returns the row numbers of each, ascending. `generator` decides which rows.
///
/// # Errors
/// [`Error::RankMismatch`] unless `labels` is a vector; [`Error::InvalidArgument`] for a share
/// outside [0, 1].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let labels = Tensor::from([0_i64, 0, 0, 0, 1, 1, 1, 1]);
/// let (train, test) = stratified_split(&labels, 0.25, &mut Generator::new(0))?;
/// assert_eq!(labels.index_select(0, &train)?.to_vec(), [0, 0, 0, 1, 1, 1]);
/// assert_eq!(labels.index_select(0, &test)?.to_vec(), [0, 1]);
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// `sklearn.model_selection.train_test_split(stratify=labels)`.
pub fn stratified_split(
    labels: &Tensor<i64>,
    test_share: f64,
    generator: &mut Generator,
) -> Result<Split> {
    let op = "stratified_split";
    let [_] = labels.dims(op)?;
    if !(0.0..=1.0).contains(&test_share) {
        let reason = format!("must be in [0, 1], found {test_share}");
        return Err(Error::InvalidArgument { op, name: "test_share", reason });
    }
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for rows in shuffled_classes(labels, generator) {
        let (for_test, for_training) =
            rows.split_at((rows.len() as f64 * test_share).round() as usize);
        test.extend_from_slice(for_test);
        train.extend_from_slice(for_training);
    }
    Ok((ascending(train)?, ascending(test)?))
}

/// `k` splits of `0..rows`, so that each row is for testing in exactly one of them. The sizes of the test
/// parts differ by one at most. `generator` decides which rows.
///
/// # Errors
/// [`Error::InvalidArgument`] unless `k` is in [2, rows]; [`Error::SizeOverflow`].
///
/// # Examples
/// ```
/// use nn::data::k_fold;
/// use nn::prelude::*;
/// let folds = k_fold(10, 3, &mut Generator::new(0))?;
/// let sizes: Vec<_> = folds.iter().map(|(train, test)| (train.numel(), test.numel())).collect();
/// assert_eq!(sizes, [(6, 4), (7, 3), (7, 3)]);
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// `sklearn.model_selection.KFold(k, shuffle=True)`.
pub fn k_fold(rows: usize, k: usize, generator: &mut Generator) -> Result<Vec<Split>> {
    check_folds("k_fold", rows, k)?;
    deal(&Tensor::randperm(rows, generator)?.to_vec(), k)
}

/// [`k_fold`] with the same share of every class in each test part, as far as counts allow: those of a class
/// differ by one at most between the parts, and so do the sizes of the parts.
///
/// # Errors
/// [`Error::RankMismatch`] unless `labels` is a vector; [`Error::InvalidArgument`] unless `k` is in
/// [2, rows]. A class of fewer than `k` rows is not in every test part; that is no error.
///
/// # Examples
/// ```
/// use nn::data::stratified_k_fold;
/// use nn::prelude::*;
/// let labels = Tensor::from([0_i64, 1, 0, 1, 0, 1]);
/// for (_, test) in stratified_k_fold(&labels, 3, &mut Generator::new(0))? {
///     assert_eq!(labels.index_select(0, &test)?.sum().item()?, 1); // one of each class
/// }
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// `sklearn.model_selection.StratifiedKFold(k, shuffle=True)`.
pub fn stratified_k_fold(
    labels: &Tensor<i64>,
    k: usize,
    generator: &mut Generator,
) -> Result<Vec<Split>> {
    let op = "stratified_k_fold";
    let [rows] = labels.dims(op)?;
    check_folds(op, rows, k)?;
    deal(&shuffled_classes(labels, generator).concat(), k)
}

fn check_folds(op: &'static str, rows: usize, k: usize) -> Result<()> {
    if (2..=rows).contains(&k) {
        return Ok(());
    }
    let reason = format!("must be in [2, {rows}], the number of rows, found {k}");
    Err(Error::InvalidArgument { op, name: "k", reason })
}

/// The rows of each class, shuffled.
fn shuffled_classes(labels: &Tensor<i64>, generator: &mut Generator) -> Vec<Vec<i64>> {
    let mut classes: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (row, class) in labels.to_vec().into_iter().enumerate() {
        classes.entry(class).or_default().push(row as i64);
    }
    classes.values_mut().for_each(|rows| generator.shuffle(rows));
    classes.into_values().collect()
}

/// Deals the rows like cards to `k` test parts.
fn deal(order: &[i64], k: usize) -> Result<Vec<Split>> {
    let fold = |fold: usize| {
        let part = |for_test: bool| {
            let of_part = |place: &usize| (place % k == fold) == for_test;
            ascending((0..order.len()).filter(of_part).map(|place| order[place]).collect())
        };
        Ok((part(false)?, part(true)?))
    };
    (0..k).map(fold).collect()
}

fn ascending(mut rows: Vec<i64>) -> Result<Tensor<i64>> {
    rows.sort_unstable();
    Tensor::from_slice(&rows, [rows.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// Each row is for testing once, and for training in all other folds.
    fn is_a_partition(folds: &[Split], rows: usize) {
        let mut tested = Vec::new();
        for (train, test) in folds {
            let mut all = [train.to_vec(), test.to_vec()].concat();
            assert!(train.to_vec().is_sorted() && test.to_vec().is_sorted());
            all.sort_unstable();
            assert_eq!(all, (0..rows as i64).collect::<Vec<_>>());
            tested.extend(test.to_vec());
        }
        tested.sort_unstable();
        assert_eq!(tested, (0..rows as i64).collect::<Vec<_>>());
    }

    #[test]
    fn folds_are_partitions_that_the_seed_decides() {
        for (rows, k) in [(2, 2), (10, 3), (7, 7), (100, 8)] {
            let folds = k_fold(rows, k, &mut Generator::new(1)).unwrap();
            assert_eq!(folds.len(), k);
            is_a_partition(&folds, rows);
        }
        let first = |seed| k_fold(50, 5, &mut Generator::new(seed)).unwrap()[0].1.to_vec();
        assert!(first(1) == first(1) && first(1) != first(2));
    }

    #[test]
    fn stratified_folds_share_every_class() {
        let labels: Vec<i64> = (0..41).map(|i| [0, 0, 0, 1, 1, 7][i % 6]).collect();
        let labels = Tensor::from_vec(labels, [41]).unwrap();
        let folds = stratified_k_fold(&labels, 4, &mut Generator::new(0)).unwrap();
        is_a_partition(&folds, 41);
        for class in [0, 1, 7] {
            let count = |(_, test): &Split| {
                let found = labels.index_select(0, test).unwrap().to_vec();
                found.into_iter().filter(|&c| c == class).count()
            };
            let counts: Vec<_> = folds.iter().map(count).collect();
            let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
            assert!(spread <= 1, "{class}: {counts:?}");
        }
    }

    #[test]
    fn the_number_of_folds_is_checked() {
        let text = |rows, k| k_fold(rows, k, &mut Generator::new(0)).unwrap_err().to_string();
        assert_eq!(text(9, 1), "k_fold: k must be in [2, 9], the number of rows, found 1");
        assert!(text(9, 10).ends_with("found 10") && text(0, 0).ends_with("found 0"));
        let labels = Tensor::from([1_i64, 2]);
        assert!(stratified_k_fold(&labels, 3, &mut Generator::new(0)).is_err());
        assert!(stratified_k_fold(&Tensor::scalar(1), 2, &mut Generator::new(0)).is_err());
    }
}
