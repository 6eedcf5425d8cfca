//! Parameters, and the visitor through which optimisers, files and counts see them.

use std::fmt;

use autograd::{Float, Gradients, ParameterId, Tape, Tensor, Var};

/// A trainable tensor with an identity. A clone is another parameter with the same value.
pub struct Parameter<T: Float> {
    id: ParameterId,
    value: Tensor<T>,
    frozen: bool,
}

impl<T: Float> Parameter<T> {
    /// A parameter with this initial value.
    pub fn new(value: Tensor<T>) -> Self {
        Parameter { id: ParameterId::new(), value, frozen: false }
    }

    /// The identity, as [`Gradients::parameter`](autograd::Gradients::parameter) takes it.
    pub fn id(&self) -> ParameterId {
        self.id
    }

    /// The value.
    pub fn value(&self) -> &Tensor<T> {
        &self.value
    }

    /// The value for writing.
    pub fn value_mut(&mut self) -> &mut Tensor<T> {
        &mut self.value
    }

    /// Whether the parameter is kept out of training.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Keeps the parameter out of training, or lets it in again.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// The variable of this parameter on `tape`: the same node for every call, so that the
    /// gradients of a shared parameter add up. A constant where the parameter is frozen.
    pub fn bind(&self, tape: &Tape<T>) -> Var<T> {
        if self.frozen {
            return tape.constant(self.value.clone());
        }
        tape.bind(self.id, &self.value)
    }

    /// [`Parameter::bind`] to the tape of a module's input; a constant where that has none.
    pub fn bind_like(&self, input: &Var<T>) -> Var<T> {
        match input.tape() {
            Some(tape) => self.bind(tape),
            None => Var::constant(self.value.clone()),
        }
    }
}

impl<T: Float> Clone for Parameter<T> {
    fn clone(&self) -> Self {
        Parameter { frozen: self.frozen, ..Parameter::new(self.value.clone()) }
    }
}

impl<T: Float> fmt::Debug for Parameter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameter({:?})", self.value)
    }
}

/// Something with named parameters: a module, or a struct of them.
///
/// ```
/// use nn::{Linear, Parameter, Parameters, Visitor};
/// struct Model {
///     encoder: Linear<f32>,
///     scale: Parameter<f32>,
/// }
/// impl Parameters for Model {
///     type Elem = f32;
///     fn visit<'a>(&'a self, v: &mut Visitor<'_, &'a Parameter<f32>>) {
///         v.scope("encoder", |v| self.encoder.visit(v));
///         v.parameter("scale", &self.scale);
///     }
///     fn visit_mut<'a>(&'a mut self, v: &mut Visitor<'_, &'a mut Parameter<f32>>) {
///         v.scope("encoder", |v| self.encoder.visit_mut(v));
///         v.parameter("scale", &mut self.scale);
///     }
/// }
/// ```
pub trait Parameters {
    /// The type of the elements.
    type Elem: Float;

    /// Shows every parameter to the visitor, in a fixed order.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<Self::Elem>>);

    /// [`Parameters::visit`] for writing: the same parameters in the same order.
    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<Self::Elem>>);

    /// The parameters with their paths, such as `0.weight`.
    fn named_parameters(&self) -> Vec<(String, &Parameter<Self::Elem>)> {
        let mut all = Vec::new();
        self.visit(&mut Visitor::new(&mut |path, p| all.push((path.to_owned(), p))));
        all
    }

    /// The paths of the parameters that are not frozen and received no gradient: unused ones.
    fn missing_gradients(&self, gradients: &Gradients<Self::Elem>) -> Vec<String> {
        let missing =
            |p: &Parameter<Self::Elem>| !p.is_frozen() && gradients.parameter(p.id()).is_none();
        let all = self.named_parameters().into_iter();
        all.filter(|(_, p)| missing(p)).map(|(path, _)| path).collect()
    }

    /// The number of trainable numbers and frozen ones.
    fn parameter_count(&self) -> usize {
        self.named_parameters().iter().map(|(_, p)| p.value().numel()).sum()
    }
}

/// Called with every parameter `P` and its path; keeps track of the path.
pub struct Visitor<'v, P> {
    path: String,
    visit: &'v mut dyn FnMut(&str, P),
}

impl<'v, P> Visitor<'v, P> {
    /// A visitor that calls `visit(path, parameter)`.
    pub fn new(visit: &'v mut dyn FnMut(&str, P)) -> Self {
        Visitor { path: String::new(), visit }
    }

    /// Shows a parameter called `name`.
    pub fn parameter(&mut self, name: &str, parameter: P) {
        let length = self.path.len();
        self.path.push_str(name);
        (self.visit)(&self.path, parameter);
        self.path.truncate(length);
    }

    /// Shows the parameters that `inside` shows, with `name.` before their paths.
    pub fn scope(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(name);
        self.path.push('.');
        inside(self);
        self.path.truncate(length);
    }
}
