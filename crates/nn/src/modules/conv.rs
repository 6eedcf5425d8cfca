//! Convolutions.

use autograd::{ConvOptions, Error, Float, Generator, Result, Tensor, Var};

use super::Module;
use crate::parameters::{Parameter, Parameters};

/// A convolution over D dims: [`Conv1d`] or [`Conv2d`].
///
/// # Shape
/// `weight: [O, C/groups, ..kernel]`, `bias: [O]`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let options = ConvOptions { padding: [1, 1], ..Default::default() };
/// let layer = Conv2d::<f32>::new(3, 8, [3, 3], options, &mut Generator::new(0))?;
/// let y = layer.forward(&Var::constant(Tensor::zeros([2, 3, 5, 6])?))?;
/// assert_eq!(y.shape(), [2, 8, 5, 6]);
/// assert_eq!(layer.parameter_count(), 8 * 3 * 9 + 8);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Parameters)]
pub struct Conv<T: Float, const D: usize> {
    /// The filters.
    pub weight: Parameter<T>,
    /// What is added to each output channel.
    pub bias: Option<Parameter<T>>,
    #[parameters(skip)]
    options: ConvOptions<D>,
}

/// `[N, C, L]` or `[C, L]` → the same with O channels. `torch.nn.Conv1d`.
pub type Conv1d<T> = Conv<T, 1>;

/// `[N, C, H, W]` or `[C, H, W]` → the same with O channels. `torch.nn.Conv2d`.
pub type Conv2d<T> = Conv<T, 2>;

impl<T: Float, const D: usize> Conv<T, D> {
    /// A layer whose weight and bias are uniform in ±1/√(C/groups·kernel), as PyTorch's.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the groups divide both numbers of channels, and for a kernel of
    /// size 0; [`Error::SizeOverflow`].
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: [usize; D],
        options: ConvOptions<D>,
        generator: &mut Generator,
    ) -> Result<Self> {
        let mut layer = Self::without_bias(inputs, outputs, kernel, options, generator)?;
        let bound = bound(layer.weight.value().shape());
        layer.bias = Some(Parameter::new(Tensor::uniform([outputs], -bound, bound, generator)?));
        Ok(layer)
    }

    /// A layer that adds nothing.
    ///
    /// # Errors
    /// As [`Conv::new`].
    pub fn without_bias(
        inputs: usize,
        outputs: usize,
        kernel: [usize; D],
        options: ConvOptions<D>,
        generator: &mut Generator,
    ) -> Result<Self> {
        let invalid = |name, reason| Error::InvalidArgument { op: "Conv", name, reason };
        let groups = options.groups;
        if groups == 0 || [inputs, outputs].iter().any(|n| !n.is_multiple_of(groups)) {
            let reason = format!("must divide {inputs} and {outputs} channels, found {groups}");
            return Err(invalid("groups", reason));
        }
        if kernel.contains(&0) {
            return Err(invalid("kernel", format!("must not have a size of 0, found {kernel:?}")));
        }
        let shape: Vec<usize> = [outputs, inputs / groups].into_iter().chain(kernel).collect();
        let bound = bound(&shape);
        let weight = Tensor::uniform(&shape[..], -bound, bound, generator)?;
        Ok(Conv { weight: Parameter::new(weight), bias: None, options })
    }

    fn bias_like(&self, x: &Var<T>) -> Option<Var<T>> {
        self.bias.as_ref().map(|b| b.bind_like(x))
    }
}

/// One over the root of the number of inputs of an output, for a weight of this shape.
fn bound(shape: &[usize]) -> f64 {
    let inputs: usize = shape[1..].iter().product();
    1.0 / (inputs.max(1) as f64).sqrt()
}

impl<T: Float> Module for Conv1d<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.conv1d(&self.weight.bind_like(x), self.bias_like(x).as_ref(), &self.options)
    }
}

impl<T: Float> Module for Conv2d<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.conv2d(&self.weight.bind_like(x), self.bias_like(x).as_ref(), &self.options)
    }
}
