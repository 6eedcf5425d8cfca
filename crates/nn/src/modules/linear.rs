//! The linear layer.

use autograd::{Float, Generator, Result, Tensor, Var};

use super::Module;
use crate::parameters::{Parameter, Parameters};

/// `y = x·Wᵀ + b`. `torch.nn.Linear`.
///
/// # Shape
/// `x: [.., in]` → `[.., out]`; `weight: [out, in]`, `bias: [out]`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut layer = Linear::<f64>::new(2, 1, &mut Generator::new(0))?;
/// *layer.weight.value_mut() = Tensor::from_vec(vec![2.0, -1.0], [1, 2])?;
/// *layer.bias.as_mut().unwrap().value_mut() = Tensor::from_vec(vec![0.5], [1])?;
/// let y = layer.forward(&Var::constant(Tensor::from_vec(vec![3.0, 4.0], [2])?))?;
/// assert_eq!(y.item()?, 2.5);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Parameters)]
pub struct Linear<T: Float> {
    /// W, `[out, in]`.
    pub weight: Parameter<T>,
    /// b, `[out]`.
    pub bias: Option<Parameter<T>>,
}

impl<T: Float> Linear<T> {
    /// A layer whose weight and bias are uniform in ±1/√in, as PyTorch's.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    pub fn new(inputs: usize, outputs: usize, generator: &mut Generator) -> Result<Self> {
        let mut layer = Self::without_bias(inputs, outputs, generator)?;
        let bound = Self::bound(inputs);
        let bias = Tensor::uniform([outputs], -bound, bound, generator)?;
        layer.bias = Some(Parameter::new(bias));
        Ok(layer)
    }

    /// `y = x·Wᵀ`.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`](crate::Error::SizeOverflow).
    pub fn without_bias(inputs: usize, outputs: usize, generator: &mut Generator) -> Result<Self> {
        let bound = Self::bound(inputs);
        let weight = Tensor::uniform([outputs, inputs], -bound, bound, generator)?;
        Ok(Linear { weight: Parameter::new(weight), bias: None })
    }

    fn bound(inputs: usize) -> f64 {
        1.0 / (inputs.max(1) as f64).sqrt()
    }
}

impl<T: Float> Module for Linear<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        let bias = self.bias.as_ref().map(|b| b.bind_like(x));
        x.linear(&self.weight.bind_like(x), bias.as_ref())
    }
}
