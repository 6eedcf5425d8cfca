//! Modules: layers and models with parameters, most of one variable in and one out.
//!
//! Names of parameters are PyTorch's, so that its `state_dict`s load by name.

use std::fmt::Display;

use autograd::{Error, Result, Var};

use crate::parameters::Parameters;

mod activation;
mod attention;
mod batch_norm;
mod conv;
mod dropout;
mod embedding;
mod linear;
mod norm;
mod pool;
mod recurrent;
mod sequential;
mod transformer;

pub use activation::{
    CELU, ELU, GELU, GELUTanh, GLU, Hardshrink, Hardsigmoid, Hardswish, Hardtanh, LeakyReLU,
    LogSigmoid, LogSoftmax, Mish, PReLU, ReLU, ReLU6, SELU, SiLU, Sigmoid, Softmax, Softmin,
    Softplus, Softshrink, Softsign, Tanh, Tanhshrink, Threshold,
};
pub use attention::{Attend, MultiheadAttention, MultiheadAttentionOptions};
pub use batch_norm::{BatchNorm, BatchNorm1d, BatchNorm2d, BatchNormOptions};
pub use conv::{Conv, Conv1d, Conv2d};
pub use dropout::{Dropout, Dropout1d, Dropout2d, Flatten};
pub use embedding::Embedding;
pub use linear::Linear;
pub use norm::{GroupNorm, LayerNorm, NormOptions, RMSNorm};
pub use pool::{AvgPool1d, AvgPool2d, MaxPool1d, MaxPool2d};
pub use recurrent::{GRU, LSTM, RecurrentOptions};
pub use sequential::Sequential;
pub use transformer::{
    Activation, TransformerEncoder, TransformerEncoderLayer, TransformerEncoderLayerOptions,
};

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

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward(&self, x: &Var<Self::Elem>) -> Result<Var<Self::Elem>> {
        (**self).forward(x)
    }
}

/// Says in which part of a model an error arose.
pub trait At {
    /// The same, with `name` in front of an error's path: [`Error::In`].
    ///
    /// ```
    /// use nn::prelude::*;
    /// let wrong: Result<()> = Err(Error::DimOutOfRange { op: "sum", dim: 3, rank: 2 });
    /// let text = wrong.at("q").at(2).at("layers").unwrap_err().to_string();
    /// assert_eq!(text, "layers.2.q: sum: dim 3 is out of range for rank 2");
    /// ```
    #[must_use]
    fn at(self, name: impl Display) -> Self;
}

impl<R> At for Result<R> {
    fn at(self, name: impl Display) -> Self {
        self.map_err(|error| match error {
            Error::In { path, source } => Error::In { path: format!("{name}.{path}"), source },
            error => Error::In { path: name.to_string(), source: Box::new(error) },
        })
    }
}

/// A module without parameters: name, arguments, formula.
macro_rules! function_module {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* }, |$this:ident, $x:ident| $formula:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<T: autograd::Float> {
            $($field: $type,)*
            element: std::marker::PhantomData<fn() -> T>,
        }

        impl<T: autograd::Float> $name<T> {
            /// The module.
            #[allow(clippy::new_without_default, reason = "only those without arguments have one")]
            pub fn new($($field: $type),*) -> Self {
                $name { $($field,)* element: std::marker::PhantomData }
            }
        }

        impl<T: autograd::Float> $crate::Parameters for $name<T> {
            type Elem = T;
            fn visit<'a>(&'a self, _: &mut $crate::Visitor<'_, &'a $crate::Parameter<T>>) {}
            fn visit_mut<'a>(
                &'a mut self,
                _: &mut $crate::Visitor<'_, &'a mut $crate::Parameter<T>>,
            ) {
            }
        }

        impl<T: autograd::Float> $crate::Module for $name<T> {
            fn forward(&self, $x: &autograd::Var<T>) -> autograd::Result<autograd::Var<T>> {
                let $this = self;
                let _ = $this;
                $formula
            }
        }
    };
}
use function_module;
