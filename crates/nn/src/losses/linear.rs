//! The last linear layer of a model and cross entropy as one module, which never holds the logits.

use autograd::{ClassLoss, Float, LinearCrossEntropyOptions, Result, Tensor, Var};

use crate::modules::{Linear, Module};
use crate::parameters::{Parameter, Parameters, Visitor};

/// Cross entropy of a linear layer's logits, without a tensor of their size: for vocabularies, where
/// logits and their gradient are what fills the memory.
/// `torch.nn.LinearCrossEntropyLoss`, with label smoothing, weights of rows, a cap and higher derivatives.
///
/// The layer belongs to the loss, and its parameters are the loss's: `weight`, `bias`. A layer that is
/// elsewhere has [`Linear::cross_entropy`]; for a weight that is an embedding's, too, see
/// [`Var::linear_cross_entropy`]: a parameter bound twice is one variable, and its gradients add up.
///
/// # Shape
/// Features `[.., D]`; class indices `[..]`. The loss has rank 0, or the indices' shape for
/// [`Reduction::None`](autograd::Reduction::None).
///
/// # Gradient
/// That of [`Linear`] and [`CrossEntropyLoss`](crate::CrossEntropyLoss) one after the other; see
/// [`Var::linear_cross_entropy`].
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let head = Linear::<f64>::new(8, 1000, &mut rng)?;
/// let fused = LinearCrossEntropyLoss::new(head, Default::default())?;
/// let tape = Tape::new();
/// let x = tape.var(Tensor::randn([4, 8], &mut rng)?);
/// let y = Tensor::from_vec(vec![3_i64, 1, 999, 0], [4])?;
/// let loss = fused.forward(&x, &y)?;
/// let apart = CrossEntropyLoss::new(Default::default())?.forward(&fused.logits(&x)?, &y)?;
/// assert!((loss.item()? - apart.item()?).abs() < 1e-14);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LinearCrossEntropyLoss<T: Float> {
    /// The layer before the loss.
    pub linear: Linear<T>,
    options: LinearCrossEntropyOptions<T>,
}

impl<T: Float> LinearCrossEntropyLoss<T> {
    /// The loss of this layer's logits.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for options.
    pub fn new(linear: Linear<T>, options: LinearCrossEntropyOptions<T>) -> Result<Self> {
        options.validate("LinearCrossEntropyLoss")?;
        Ok(LinearCrossEntropyLoss { linear, options })
    }

    /// The loss of features against class indices.
    ///
    /// # Errors
    /// As [`Var::linear_cross_entropy`].
    #[track_caller]
    pub fn forward(&self, x: &Var<T>, target: &Tensor<i64>) -> Result<Var<T>> {
        self.linear.cross_entropy(x, target, &self.options)
    }

    /// The loss with a weight for each row, and with what the same pass finds besides: the log of each
    /// row's sum, how many rows count, how many are right.
    ///
    /// # Errors
    /// As [`Var::linear_cross_entropy_detailed`].
    #[track_caller]
    pub fn detailed(
        &self,
        x: &Var<T>,
        target: &Tensor<i64>,
        row_weight: Option<&Tensor<T>>,
    ) -> Result<ClassLoss<T>> {
        let Linear { weight, bias } = &self.linear;
        let (w, b) = (weight.bind_like(x), bias.as_ref().map(|b| b.bind_like(x)));
        x.linear_cross_entropy_detailed(&w, b.as_ref(), target, row_weight, &self.options)
    }

    /// The logits, capped and over the temperature, for prediction.
    ///
    /// # Errors
    /// As [`Var::linear`].
    #[track_caller]
    pub fn logits(&self, x: &Var<T>) -> Result<Var<T>> {
        let mut z = self.linear.forward(x)?;
        if let Some(cap) = self.options.softcap.map(T::from_f64) {
            z = (z / cap).tanh() * cap;
        }
        let temperature = self.options.temperature;
        Ok(if temperature == 1.0 { z } else { z * T::from_f64(1.0 / temperature) })
    }
}

impl<T: Float> Parameters for LinearCrossEntropyLoss<T> {
    type Elem = T;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<T>>) {
        self.linear.visit(visitor);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
        self.linear.visit_mut(visitor);
    }
}

impl<T: Float> Linear<T> {
    /// Cross entropy of this layer's logits, without a tensor of their size.
    ///
    /// # Errors
    /// As [`Var::linear_cross_entropy`].
    #[track_caller]
    pub fn cross_entropy(
        &self,
        x: &Var<T>,
        target: &Tensor<i64>,
        options: &LinearCrossEntropyOptions<T>,
    ) -> Result<Var<T>> {
        let (w, b) = (self.weight.bind_like(x), self.bias.as_ref().map(|b| b.bind_like(x)));
        x.linear_cross_entropy(&w, b.as_ref(), target, options)
    }
}
