//! What batches are made of: datasets, and functions over their batches.
//!
//! Deliberately without an order of the rows: that is the loader's.

use std::sync::Arc;

use autograd::{Element, Error, Generator, Result, Tensor};

/// Rows that can be had in batches. `torch.utils.data.Dataset`, but that the rows of a batch are asked
/// for together, so that there is nothing to collate.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// /// The numbers below `self.0`, with their squares.
/// struct Squares(usize);
/// impl Dataset for Squares {
///     type Batch = Vec<(usize, usize)>;
///     fn len(&self) -> usize {
///         self.0
///     }
///     fn batch(&self, rows: &[usize], _: &mut Generator) -> Result<Self::Batch> {
///         Ok(rows.iter().map(|&row| (row, row * row)).collect())
///     }
/// }
/// assert_eq!(Squares(9).batch(&[3, 2], &mut Generator::new(0))?, [(3, 9), (2, 4)]);
/// # Ok::<(), nn::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// What the rows of a batch are put together to.
    type Batch: Send;

    /// The number of rows.
    fn len(&self) -> usize;

    /// Whether there are no rows.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The batch of these rows, in this order. `generator` is for augmentation: one that differs from
    /// batch to batch, and not with the thread that makes the batch.
    ///
    /// # Errors
    /// What can go wrong with the rows; [`Error::IndexOutOfRange`] for one that there is not.
    fn batch(&self, rows: &[usize], generator: &mut Generator) -> Result<Self::Batch>;

    /// This dataset with `f` applied to each batch, as it is made.
    ///
    /// # Examples
    /// ```
    /// use nn::data::{Augment, GaussianNoise};
    /// use nn::prelude::*;
    /// let rows = TensorDataset::new(Tensor::from([[1.0_f32], [2.0]]), Tensor::from([0_i64, 1]))?;
    /// let noise = GaussianNoise::new(0.1)?;
    /// let noisy = rows.map(move |(x, y), generator| Ok((noise.apply(x, generator)?, y)));
    /// let (x, y) = noisy.batch(&[1], &mut Generator::new(0))?;
    /// assert!(x.item()? != 2.0 && (x.item()? - 2.0).abs() < 1.0);
    /// assert_eq!(y.to_vec(), [1]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    fn map<F, B>(self, f: F) -> Mapped<Self, F>
    where
        Self: Sized,
        F: Fn(Self::Batch, &mut Generator) -> Result<B> + Send + Sync,
        B: Send,
    {
        Mapped { dataset: self, f }
    }
}

/// A dataset that several loaders share.
impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    type Batch = D::Batch;

    fn len(&self) -> usize {
        (**self).len()
    }

    fn batch(&self, rows: &[usize], generator: &mut Generator) -> Result<Self::Batch> {
        (**self).batch(rows, generator)
    }
}

/// A dataset with a function over its batches: what [`Dataset::map`] returns.
#[derive(Clone, Debug)]
pub struct Mapped<D, F> {
    dataset: D,
    f: F,
}

impl<D, F, B> Dataset for Mapped<D, F>
where
    D: Dataset,
    F: Fn(D::Batch, &mut Generator) -> Result<B> + Send + Sync,
    B: Send,
{
    type Batch = B;

    fn len(&self) -> usize {
        self.dataset.len()
    }

    fn batch(&self, rows: &[usize], generator: &mut Generator) -> Result<B> {
        let batch = self.dataset.batch(rows, generator)?;
        (self.f)(batch, generator)
    }
}

/// Rows of a tensor with their classes. `torch.utils.data.TensorDataset`.
///
/// # Shape
/// `x: [N, ..]`, `y: [N]`; a batch of `n` rows is `([n, ..], [n])`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let x = Tensor::from([[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0]]);
/// let rows = TensorDataset::new(x, Tensor::from([7_i64, 8, 9]))?;
/// let (x, y) = rows.batch(&[2, 0], &mut Generator::new(0))?;
/// assert_eq!((x.to_vec(), y.to_vec()), (vec![5.0, 6.0, 1.0, 2.0], vec![9, 7]));
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TensorDataset<T: Element> {
    x: Tensor<T>,
    y: Tensor<i64>,
}

impl<T: Element> TensorDataset<T> {
    /// The rows of `x`, with the class of each.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] unless `y` is a vector; [`Error::ShapeMismatch`] if the numbers of rows
    /// differ.
    pub fn new(x: Tensor<T>, y: Tensor<i64>) -> Result<Self> {
        let op = "TensorDataset";
        let [n] = y.dims(op)?;
        if x.shape().first() != Some(&n) {
            return Err(Error::ShapeMismatch { op, lhs: x.shape().to_vec(), rhs: vec![n] });
        }
        Ok(TensorDataset { x, y })
    }

    /// All rows.
    pub fn x(&self) -> &Tensor<T> {
        &self.x
    }

    /// The class of each row.
    pub fn y(&self) -> &Tensor<i64> {
        &self.y
    }
}

impl<T: Element> Dataset for TensorDataset<T> {
    type Batch = (Tensor<T>, Tensor<i64>);

    fn len(&self) -> usize {
        self.y.numel()
    }

    fn batch(&self, rows: &[usize], _: &mut Generator) -> Result<Self::Batch> {
        let rows = Tensor::from_vec(rows.iter().map(|&row| row as i64).collect(), [rows.len()])?;
        Ok((self.x.index_select(0, &rows)?, self.y.index_select(0, &rows)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x_and_y_must_have_the_same_rows() {
        let x = Tensor::<f32>::zeros([3, 1]).unwrap();
        let y = |n: usize| Tensor::from_vec(vec![0; n], [n]).unwrap();
        let text = TensorDataset::new(x.clone(), y(2)).unwrap_err().to_string();
        assert_eq!(text, "TensorDataset: shapes do not match: [3, 1] and [2]");
        assert!(TensorDataset::new(Tensor::scalar(0.0_f32), y(1)).is_err());
        assert!(TensorDataset::new(x.clone(), Tensor::scalar(0)).is_err());
        let rows = TensorDataset::new(x, y(3)).unwrap();
        assert!(rows.batch(&[3], &mut Generator::new(0)).is_err());
        assert_eq!(rows.batch(&[], &mut Generator::new(0)).unwrap().0.shape(), [0, 1]);
    }

    #[test]
    fn a_function_sees_the_generator_and_may_fail() {
        let y = Tensor::from_vec(vec![4, 5], [2]).unwrap();
        let rows = Arc::new(TensorDataset::new(y.clone(), y).unwrap());
        let drawn = Arc::clone(&rows).map(|(x, _), g| Ok((x.to_vec(), g.uniform())));
        assert_eq!((drawn.len(), drawn.is_empty()), (2, false));
        let want = (vec![5], Generator::new(3).uniform());
        assert_eq!(drawn.batch(&[1], &mut Generator::new(3)).unwrap(), want);
        let failing = rows.map(|(x, _), _| x.select(0, 9));
        assert!(failing.batch(&[0], &mut Generator::new(0)).is_err());
    }
}
