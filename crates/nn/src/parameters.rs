//! Parameters and buffers, and the visitor through which optimisers, files and counts see them.

use std::collections::BTreeMap;
use std::fmt;

use autograd::{Float, Gradients, ParameterId, Tape, Tensor, Var};
pub use nn_derive::Parameters;

/// A tensor of a model with an identity: one that is trained, or a buffer, which is saved with the
/// model but has no gradient. A clone is another parameter with the same value.
pub struct Parameter<T: Float> {
    id: ParameterId,
    value: Tensor<T>,
    frozen: bool,
    buffer: bool,
}

impl<T: Float> Parameter<T> {
    /// A parameter with this initial value.
    pub fn new(value: Tensor<T>) -> Self {
        Parameter { id: ParameterId::new(), value, frozen: false, buffer: false }
    }

    /// A buffer: a part of the model's state that is not trained, such as a running mean. The forward
    /// pass leaves its new value with [`Tape::leave_buffer`]; the optimiser's step puts it in place.
    pub fn buffer(value: Tensor<T>) -> Self {
        Parameter { buffer: true, ..Parameter::new(value) }
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

    /// Whether this is a buffer.
    pub fn is_buffer(&self) -> bool {
        self.buffer
    }

    /// Whether the parameter is kept out of training.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Whether a step updates it from a gradient: it is neither frozen nor a buffer.
    pub fn is_trainable(&self) -> bool {
        !self.frozen && !self.buffer
    }

    /// Keeps the parameter out of training, or lets it in again. A buffer that is frozen keeps its
    /// value.
    pub fn set_frozen(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// The variable of this parameter on `tape`: the same node for every call, so that the
    /// gradients of a shared parameter add up. A constant where it is frozen, or a buffer.
    pub fn bind(&self, tape: &Tape<T>) -> Var<T> {
        if self.is_trainable() {
            return tape.bind(self.id, &self.value);
        }
        tape.constant(self.value.clone())
    }

    /// [`Parameter::bind`] to the tape of a module's input; a constant where that has none.
    pub fn bind_like(&self, input: &Var<T>) -> Var<T> {
        self.bind_to(input.tape())
    }

    /// [`Parameter::bind`] to a tape, if there is one; a constant else.
    pub fn bind_to(&self, tape: Option<&Tape<T>>) -> Var<T> {
        tape.map_or_else(|| Var::constant(self.value.clone()), |tape| self.bind(tape))
    }

    /// Puts the value in place that the forward pass left for a buffer; nothing where there is none, or
    /// the buffer is frozen.
    pub(crate) fn update_buffer(&mut self, gradients: &Gradients<T>) {
        if self.buffer && !self.frozen {
            self.value = gradients.buffer(self.id).unwrap_or_else(|| self.value.clone());
        }
    }
}

impl<T: Float> Clone for Parameter<T> {
    fn clone(&self) -> Self {
        Parameter { id: ParameterId::new(), value: self.value.clone(), ..*self }
    }
}

impl<T: Float> fmt::Debug for Parameter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.buffer { "Buffer" } else { "Parameter" };
        write!(f, "{name}({:?})", self.value)
    }
}

/// Something with named parameters: a module, a struct or a collection of them.
///
/// `#[derive(Parameters)]` writes it for a struct whose fields have parameters; a field that has none,
/// such as a number, is marked `#[parameters(skip)]`.
///
/// ```
/// use nn::prelude::*;
///
/// #[derive(Parameters)]
/// struct Model {
///     encoder: Linear<f32>,
///     blocks: Vec<Linear<f32>>,
///     scale: Parameter<f32>,
///     #[parameters(skip)]
///     heads: usize,
/// }
///
/// # fn main() -> Result<()> {
/// let mut rng = Generator::new(0);
/// let model = Model {
///     encoder: Linear::new(4, 8, &mut rng)?,
///     blocks: vec![Linear::without_bias(8, 8, &mut rng)?, Linear::without_bias(8, 8, &mut rng)?],
///     scale: Parameter::new(Tensor::scalar(1.0)),
///     heads: 2,
/// };
/// let names: Vec<_> = model.named_parameters().into_iter().map(|(name, _)| name).collect();
/// let want = ["encoder.weight", "encoder.bias", "blocks.0.weight", "blocks.1.weight", "scale"];
/// assert_eq!(names, want);
/// assert_eq!(model.parameter_count(), 4 * 8 + 8 + 2 * 64 + 1);
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no parameters",
    label = "neither a parameter nor a module, nor a collection of them",
    note = "a field without parameters is marked `#[parameters(skip)]`"
)]
pub trait Parameters {
    /// The type of the elements.
    type Elem: Float;

    /// Shows every parameter and buffer to the visitor, in a fixed order.
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<Self::Elem>>);

    /// [`Parameters::visit`] for writing: the same parameters in the same order.
    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<Self::Elem>>);

    /// The parameters with their paths, such as `0.weight`; buffers are not among them.
    fn named_parameters(&self) -> Vec<(String, &Parameter<Self::Elem>)> {
        named(self, |p| !p.is_buffer())
    }

    /// The buffers with their paths.
    fn named_buffers(&self) -> Vec<(String, &Parameter<Self::Elem>)> {
        named(self, Parameter::is_buffer)
    }

    /// The paths of the parameters that are not frozen and received no gradient: unused ones.
    fn missing_gradients(&self, gradients: &Gradients<Self::Elem>) -> Vec<String> {
        let missing =
            |p: &Parameter<Self::Elem>| p.is_trainable() && gradients.parameter(p.id()).is_none();
        named(self, missing).into_iter().map(|(path, _)| path).collect()
    }

    /// The number of trainable numbers and frozen ones; buffers do not count.
    fn parameter_count(&self) -> usize {
        self.named_parameters().iter().map(|(_, p)| p.value().numel()).sum()
    }

    /// Keeps all parameters out of training, or lets them in again; buffers keep their values, so that
    /// a batch normalisation evaluates with the statistics it has. `requires_grad_`.
    fn set_frozen(&mut self, frozen: bool) {
        self.visit_mut(&mut Visitor::new(&mut |_: &str, p: &mut Parameter<Self::Elem>| {
            p.set_frozen(frozen);
        }));
    }
}

fn named<M: Parameters + ?Sized>(
    model: &M,
    keep: impl Fn(&Parameter<M::Elem>) -> bool,
) -> Vec<(String, &Parameter<M::Elem>)> {
    let mut all = Vec::new();
    model.visit(&mut Visitor::new(&mut |path: &str, p| {
        if keep(p) {
            all.push((path.to_owned(), p));
        }
    }));
    all
}

/// A parameter is a model of itself; its path is that of the field it stands in.
impl<T: Float> Parameters for Parameter<T> {
    type Elem = T;

    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<T>>) {
        visitor.leaf(self);
    }

    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<T>>) {
        visitor.leaf(self);
    }
}

/// [`Parameters`] of a type that has others inside: how to visit them, with `iter` or `iter_mut`, and
/// with `as_ref` or `as_mut`.
macro_rules! inside {
    ([$($generics:tt)*] $type:ty: $element:ident, |$this:ident, $v:ident| $visit:expr, $visit_mut:expr) => {
        impl<$($generics)*> Parameters for $type {
            type Elem = $element::Elem;

            fn visit<'a>(&'a self, $v: &mut Visitor<'_, &'a Parameter<Self::Elem>>) {
                let $this = self;
                $visit
            }

            fn visit_mut<'a>(&'a mut self, $v: &mut Visitor<'_, &'a mut Parameter<Self::Elem>>) {
                let $this = self;
                $visit_mut
            }
        }
    };
}

inside!([P: Parameters + ?Sized] Box<P>: P, |this, v| (**this).visit(v), (**this).visit_mut(v));
inside!([P: Parameters] Option<P>: P, |this, v|
    this.iter().for_each(|p| p.visit(v)),
    this.iter_mut().for_each(|p| p.visit_mut(v)));
inside!([P: Parameters] [P]: P, |this, v|
    this.iter().enumerate().for_each(|(i, p)| v.scope(&i.to_string(), |v| p.visit(v))),
    this.iter_mut().enumerate().for_each(|(i, p)| v.scope(&i.to_string(), |v| p.visit_mut(v))));
inside!([P: Parameters] Vec<P>: P, |this, v| this[..].visit(v), this[..].visit_mut(v));
inside!([P: Parameters, const N: usize] [P; N]: P, |this, v| this[..].visit(v), this[..].visit_mut(v));
inside!([P: Parameters] BTreeMap<String, P>: P, |this, v|
    this.iter().for_each(|(name, p)| v.scope(name, |v| p.visit(v))),
    this.iter_mut().for_each(|(name, p)| v.scope(name, |v| p.visit_mut(v))));

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
        self.scope(name, |v| v.leaf(parameter));
    }

    /// Shows the parameters that `inside` shows, with `name` in their paths.
    pub fn scope(&mut self, name: &str, inside: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        inside(self);
        self.path.truncate(length);
    }

    /// Shows a parameter whose path is the one under way.
    fn leaf(&mut self, parameter: P) {
        (self.visit)(&self.path, parameter);
    }
}
