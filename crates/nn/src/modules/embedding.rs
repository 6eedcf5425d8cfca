//! A table of learned rows.

use autograd::{Error, Float, Generator, Result, Tape, Tensor, Var};

use crate::parameters::{Parameter, Parameters};

/// Rows of a learned table by their indices. `torch.nn.Embedding`.
///
/// It takes indices, which are on no tape, and therefore is no [`Module`](crate::Module): its forward pass
/// takes the tape, or `None` for inference.
///
/// # Shape
/// Indices `[..]` → `[.., D]`; `weight: [V, D]`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut table = Embedding::<f64>::new(3, 2, &mut Generator::new(0))?;
/// *table.weight.value_mut() = Tensor::from([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
/// let indices = Tensor::from([2_i64, 0]);
/// assert_eq!(table.forward(&indices, None)?.value().to_vec(), [5.0, 6.0, 1.0, 2.0]);
/// let tape = Tape::new();
/// let grads = table.forward(&indices, &tape)?.sum().backward()?;
/// let dw = grads.parameter(table.weight.id()).unwrap();
/// assert_eq!(dw.to_vec(), [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Parameters)]
pub struct Embedding<T: Float> {
    /// The table, `[V, D]`.
    pub weight: Parameter<T>,
    #[parameters(skip)]
    padding_idx: Option<usize>,
}

impl<T: Float> Embedding<T> {
    /// A table of V rows of D normally distributed numbers.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn new(rows: usize, width: usize, generator: &mut Generator) -> Result<Self> {
        let weight = Tensor::randn([rows, width], generator)?;
        Ok(Embedding { weight: Parameter::new(weight), padding_idx: None })
    }

    /// The same with a row for padding: it is 0 now, and gets no gradient.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the table has no such row.
    pub fn with_padding(mut self, row: usize) -> Result<Self> {
        let [rows, width] = self.weight.value().dims("Embedding")?;
        if row >= rows {
            let reason = format!("is {row}, but the table has {rows} rows");
            return Err(Error::InvalidArgument { op: "Embedding", name: "padding_idx", reason });
        }
        self.weight.value_mut().make_mut()[row * width..][..width].fill(T::ZERO);
        self.padding_idx = Some(row);
        Ok(self)
    }

    /// The rows of these indices.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`].
    #[track_caller]
    pub fn forward<'t>(
        &self,
        indices: &Tensor<i64>,
        tape: impl Into<Option<&'t Tape<T>>>,
    ) -> Result<Var<T>> {
        self.weight.bind_to(tape.into()).embedding(indices, self.padding_idx)
    }
}
