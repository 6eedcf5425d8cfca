//! Normalisations of each sample by itself.

use autograd::{Error, Float, Result, Tensor, Var};

use super::Module;
use crate::parameters::{Parameter, Parameters};

/// Options of [`LayerNorm`], [`RMSNorm`] and [`GroupNorm`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct NormOptions {
    /// What is added to the variance; `None` for 10⁻⁵, and for the distance from 1 to the next number
    /// where the norm is [`RMSNorm`].
    pub eps: Option<f64>,
    /// Whether the result is multiplied by a weight, 1 at first.
    pub affine: bool,
    /// Whether a bias, 0 at first, is added where there is a weight; [`RMSNorm`] has none.
    pub bias: bool,
}

impl Default for NormOptions {
    fn default() -> Self {
        NormOptions { eps: None, affine: true, bias: true }
    }
}

impl NormOptions {
    fn eps(&self) -> f64 {
        self.eps.unwrap_or(1e-5)
    }

    /// The weight and the bias of this shape.
    fn parameters<T: Float>(&self, shape: &[usize]) -> Result<[Option<Parameter<T>>; 2]> {
        let (one, zero) = (Tensor::ones(shape)?, Tensor::zeros(shape)?);
        Ok([
            self.affine.then(|| Parameter::new(one)),
            (self.affine && self.bias).then(|| Parameter::new(zero)),
        ])
    }
}

/// A parameter, if there is one, on the tape of `x`.
fn bound<T: Float>(parameter: Option<&Parameter<T>>, x: &Var<T>) -> Option<Var<T>> {
    parameter.map(|p| p.bind_like(x))
}

/// `(x − mean)/√(var + ε)·w + b` over the last dims. `torch.nn.LayerNorm`; see [`Var::layer_norm`].
///
/// # Shape
/// `[.., ..normalized_shape]` → the same.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let layer = LayerNorm::<f64>::new([2], NormOptions { eps: Some(0.0), ..Default::default() })?;
/// let y = layer.forward(&Var::constant(Tensor::from([[1.0, 5.0]])))?;
/// assert_eq!(y.value().to_vec(), [-1.0, 1.0]);
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Parameters)]
pub struct LayerNorm<T: Float> {
    /// Of the normalised shape.
    pub weight: Option<Parameter<T>>,
    /// Of the normalised shape.
    pub bias: Option<Parameter<T>>,
    #[parameters(skip)]
    shape: Vec<usize>,
    #[parameters(skip)]
    eps: f64,
}

impl<T: Float> LayerNorm<T> {
    /// Over the last dims, which have this shape.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn new(normalized_shape: impl Into<Vec<usize>>, options: NormOptions) -> Result<Self> {
        let shape = normalized_shape.into();
        let [weight, bias] = options.parameters(&shape)?;
        Ok(LayerNorm { weight, bias, shape, eps: options.eps() })
    }
}

impl<T: Float> Module for LayerNorm<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        let [w, b] = [&self.weight, &self.bias].map(|p| bound(p.as_ref(), x));
        x.layer_norm(&self.shape, w.as_ref(), b.as_ref(), self.eps)
    }
}

/// `x/√(mean x² + ε)·w` over the last dims. `torch.nn.RMSNorm`; see [`Var::rms_norm`].
///
/// # Shape
/// `[.., ..normalized_shape]` → the same.
#[derive(Clone, Debug, Parameters)]
pub struct RMSNorm<T: Float> {
    /// Of the normalised shape.
    pub weight: Option<Parameter<T>>,
    #[parameters(skip)]
    shape: Vec<usize>,
    #[parameters(skip)]
    eps: f64,
}

impl<T: Float> RMSNorm<T> {
    /// Over the last dims, which have this shape.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn new(normalized_shape: impl Into<Vec<usize>>, options: NormOptions) -> Result<Self> {
        let shape = normalized_shape.into();
        let [weight, _] = options.parameters(&shape)?;
        Ok(RMSNorm { weight, shape, eps: options.eps.unwrap_or(T::EPSILON.to_f64()) })
    }
}

impl<T: Float> Module for RMSNorm<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.rms_norm(&self.shape, bound(self.weight.as_ref(), x).as_ref(), self.eps)
    }
}

/// [`LayerNorm`] of each group of channels, with a weight and a bias for each channel.
/// `torch.nn.GroupNorm`; see [`Var::group_norm`].
///
/// # Shape
/// `[N, C, ..]` → the same; `weight` and `bias`: `[C]`.
#[derive(Clone, Debug, Parameters)]
pub struct GroupNorm<T: Float> {
    /// `[C]`.
    pub weight: Option<Parameter<T>>,
    /// `[C]`.
    pub bias: Option<Parameter<T>>,
    #[parameters(skip)]
    groups: usize,
    #[parameters(skip)]
    channels: usize,
    #[parameters(skip)]
    eps: f64,
}

impl<T: Float> GroupNorm<T> {
    /// C channels in so many groups.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the groups divide the channels; [`Error::SizeOverflow`].
    pub fn new(groups: usize, channels: usize, options: NormOptions) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            let reason = format!("must divide {channels} channels, found {groups}");
            return Err(Error::InvalidArgument { op: "GroupNorm", name: "groups", reason });
        }
        let [weight, bias] = options.parameters(&[channels])?;
        Ok(GroupNorm { weight, bias, groups, channels, eps: options.eps() })
    }
}

impl<T: Float> Module for GroupNorm<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        if x.shape().get(1).is_some_and(|&c| c != self.channels) {
            let (lhs, rhs) = (x.shape().to_vec(), vec![self.channels]);
            return Err(Error::ShapeMismatch { op: "group_norm", lhs, rhs });
        }
        let [w, b] = [&self.weight, &self.bias].map(|p| bound(p.as_ref(), x));
        x.group_norm(self.groups, w.as_ref(), b.as_ref(), self.eps)
    }
}
