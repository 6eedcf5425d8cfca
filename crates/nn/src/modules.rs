//! Modules: one variable in, one out, with parameters.

use std::fmt;
use std::marker::PhantomData;

use autograd::{Float, Generator, Result, Tensor, Var};

use crate::parameters::{Parameter, Parameters, Visitor};

/// A layer, or a model, of one input and one output.
///
/// A module binds its parameters to the tape of its input. An input on no tape means inference.
pub trait Module: Parameters {
    /// The output for `x`.
    ///
    /// # Errors
    /// Those of the operations inside, for shapes that do not fit.
    fn forward(&self, x: &Var<Self::Elem>) -> Result<Var<Self::Elem>>;
}

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
#[derive(Clone, Debug)]
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

impl<T: Float> Parameters for Linear<T> {
    type Elem = T;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<T>>) {
        visitor.parameter("weight", &self.weight);
        if let Some(bias) = &self.bias {
            visitor.parameter("bias", bias);
        }
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
        visitor.parameter("weight", &mut self.weight);
        if let Some(bias) = &mut self.bias {
            visitor.parameter("bias", bias);
        }
    }
}

impl<T: Float> Module for Linear<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        let bias = self.bias.as_ref().map(|b| b.bind_like(x));
        x.linear(&self.weight.bind_like(x), bias.as_ref())
    }
}

/// A module without parameters: name, arguments, formula.
macro_rules! function_module {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* }, |$self:ident, $x:ident| $formula:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T: Float> {
            $($field: $type,)*
            element: PhantomData<fn() -> T>,
        }

        impl<T: Float> $name<T> {
            /// The module.
            #[allow(clippy::new_without_default, reason = "only those without arguments have one")]
            pub fn new($($(#[$field_doc])* $field: $type),*) -> Self {
                $name { $($field,)* element: PhantomData }
            }
        }

        impl<T: Float> Parameters for $name<T> {
            type Elem = T;
            fn visit<'a>(&'a self, _: &mut Visitor<'_, &'a Parameter<T>>) {}
            fn visit_mut<'a>(&'a mut self, _: &mut Visitor<'_, &'a mut Parameter<T>>) {}
        }

        impl<T: Float> Module for $name<T> {
            fn forward(&self, $x: &Var<T>) -> Result<Var<T>> {
                let $self = self;
                let _ = $self;
                $formula
            }
        }
    };
}

function_module! {
    /// `max(x, 0)`. `torch.nn.ReLU`.
    ReLU {}, |this, x| Ok(x.relu())
}

function_module! {
    /// Hyperbolic tangent. `torch.nn.Tanh`.
    Tanh {}, |this, x| Ok(x.tanh())
}

function_module! {
    /// `x − ln Σ exp(x)` along a dim. `torch.nn.LogSoftmax`.
    ///
    /// [`NLLLoss`](crate::NLLLoss) of its result records the fused cross entropy.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let y = LogSoftmax::new(-1).forward(&Var::constant(Tensor::<f64>::zeros([1, 4])?))?;
    /// assert!((y.value().to_vec()[0] + 4.0_f64.ln()).abs() < 1e-15);
    /// # Ok::<(), nn::Error>(())
    /// ```
    LogSoftmax { dim: isize }, |this, x| x.log_softmax(this.dim)
}

function_module! {
    /// `exp(x)/Σ exp(x)` along a dim. `torch.nn.Softmax`. Losses take logits: before them it is not
    /// wanted.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let p = Softmax::new(-1).forward(&Var::constant(Tensor::<f64>::zeros([1, 4])?))?;
    /// assert_eq!(p.value().to_vec(), [0.25; 4]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    Softmax { dim: isize }, |this, x| x.softmax(this.dim)
}

/// Modules one after another. `torch.nn.Sequential`.
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
        self.layers.push(Box::new(layer));
        self
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
        for (i, layer) in self.layers.iter().enumerate() {
            visitor.scope(&i.to_string(), |v| layer.visit(v));
        }
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            visitor.scope(&i.to_string(), |v| layer.visit_mut(v));
        }
    }
}

impl<T: Float> Module for Sequential<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        self.layers.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::Tape;

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
