//! Modules one after another.

use std::fmt;

use autograd::{Float, Result, Var};

use super::{At, Module};
use crate::parameters::{Parameter, Parameters, Visitor};

/// Modules one after another. `torch.nn.Sequential`.
///
/// An error inside a layer begins with the layer's number.
///
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let model = Sequential::<f32>::new().append(ReLU::new()).append(Linear::new(3, 2, &mut rng)?);
/// let error = model.forward(&Var::constant(Tensor::zeros([5, 4])?)).unwrap_err();
/// assert_eq!(error.to_string(), "1: linear: inner dimensions differ: [5, 4] × [2, 3]");
/// # Ok::<(), nn::Error>(())
/// ```
pub struct Sequential<T: Float> {
    layers: Vec<Box<dyn Module<Elem = T> + Send + Sync>>,
}

impl<T: Float> Sequential<T> {
    /// No layers: the identity.
    pub fn new() -> Self {
        Sequential { layers: Vec::new() }
    }

    /// The same with `layer` at the end.
    #[must_use]
    pub fn append(mut self, layer: impl Module<Elem = T> + Send + Sync + 'static) -> Self {
        self.push(layer);
        self
    }

    /// Puts `layer` at the end.
    pub fn push(&mut self, layer: impl Module<Elem = T> + Send + Sync + 'static) {
        self.layers.push(Box::new(layer));
    }

    /// The number of layers.
    pub fn len(&self) -> usize {
        self.layers.len()
    }

    /// Whether there are no layers.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl<T: Float> Default for Sequential<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Float> fmt::Debug for Sequential<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.named_parameters()).finish()
    }
}

impl<T: Float> Parameters for Sequential<T> {
    type Elem = T;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<T>>) {
        self.layers.visit(visitor);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
        self.layers.visit_mut(visitor);
    }
}

impl<T: Float> Module for Sequential<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        let mut layers = self.layers.iter().enumerate();
        layers.try_fold(x.clone(), |x, (i, layer)| layer.forward(&x).at(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::{Linear, ReLU};
    use autograd::{Generator, Tape, Tensor};

    #[test]
    fn shared_parameters_add_up_their_gradients() {
        let layer = Linear::<f64>::without_bias(1, 1, &mut Generator::new(0)).unwrap();
        let w = layer.weight.value().item().unwrap();
        let tape = Tape::new();
        let x = tape.constant(Tensor::from_vec(vec![3.0], [1]).unwrap());
        let y = layer.forward(&layer.forward(&x).unwrap()).unwrap().sum(); // w²·x
        let grads = y.backward().unwrap();
        let g = grads.parameter(layer.weight.id()).unwrap().item().unwrap();
        assert!((g - 6.0 * w).abs() < 1e-14);
    }

    #[test]
    fn frozen_parameters_get_no_gradient_and_clones_are_their_own() {
        let mut layer = Linear::<f64>::new(2, 2, &mut Generator::new(0)).unwrap();
        assert_ne!(layer.clone().weight.id(), layer.weight.id());
        layer.weight.set_frozen(true);
        let x = Tape::new().constant(Tensor::ones([1, 2]).unwrap());
        let grads = layer.forward(&x).unwrap().sum().backward().unwrap();
        assert!(grads.parameter(layer.weight.id()).is_none());
        assert!(grads.parameter(layer.bias.as_ref().unwrap().id()).is_some());
    }

    #[test]
    fn a_sequence_names_its_parameters_by_position() {
        let mut rng = Generator::new(0);
        let model = Sequential::<f32>::new()
            .append(Linear::new(4, 3, &mut rng).unwrap())
            .append(ReLU::new())
            .append(Linear::without_bias(3, 2, &mut rng).unwrap());
        let names: Vec<_> = model.named_parameters().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names, ["0.weight", "0.bias", "2.weight"]);
        assert_eq!(model.parameter_count(), 12 + 3 + 6);
        let x = Var::constant(Tensor::ones([5, 4]).unwrap());
        let y = model.forward(&x).unwrap();
        assert!(y.shape() == [5, 2] && !y.is_tracked());
    }
}
