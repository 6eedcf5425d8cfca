//! The encoder of a transformer; with a causal mask it is the decoder of a language model.

use autograd::{Error, Float, Generator, Result, Var};

use super::attention::{Attend, MultiheadAttention, MultiheadAttentionOptions};
use super::{At, LayerNorm, Linear, Module, NormOptions};
use crate::parameters::Parameters;

/// What stands between the two linear layers of a [`TransformerEncoderLayer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    ReLU,
    /// `x·Φ(x)`.
    GELU,
}

/// Options of [`TransformerEncoderLayer`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct TransformerEncoderLayerOptions {
    /// The width between the two linear layers.
    pub dim_feedforward: usize,
    /// Of the attention's weights and after each part.
    pub dropout: f64,
    /// Between the two linear layers.
    pub activation: Activation,
    /// Whether each part gets a normalised input, which trains more easily; else each sum is normalised.
    pub norm_first: bool,
    /// What the norms add to the variance.
    pub layer_norm_eps: f64,
    /// Whether there are biases.
    pub bias: bool,
}

impl Default for TransformerEncoderLayerOptions {
    fn default() -> Self {
        TransformerEncoderLayerOptions {
            dim_feedforward: 2048,
            dropout: 0.1,
            activation: Activation::ReLU,
            norm_first: false,
            layer_norm_eps: 1e-5,
            bias: true,
        }
    }
}

/// Self-attention and a perceptron, each with dropout, added to its input and normalised.
/// `torch.nn.TransformerEncoderLayer` with `batch_first=True`.
///
/// # Shape
/// `[N, L, E]` or `[L, E]` → the same.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let options = TransformerEncoderLayerOptions { dim_feedforward: 32, ..Default::default() };
/// let layer = TransformerEncoderLayer::<f32>::new(8, 2, options, &mut rng)?;
/// let x = Var::constant(Tensor::randn([3, 5, 8], &mut rng)?);
/// assert_eq!(layer.encode(&x, &Attend::causal())?.shape(), [3, 5, 8]);
/// let names: Vec<_> = layer.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names[0], "self_attn.in_proj_weight");
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Parameters)]
pub struct TransformerEncoderLayer<T: Float> {
    /// The attention.
    pub self_attn: MultiheadAttention<T>,
    /// The first layer of the perceptron.
    pub linear1: Linear<T>,
    /// The second.
    pub linear2: Linear<T>,
    /// Of the attention's part.
    pub norm1: LayerNorm<T>,
    /// Of the perceptron's.
    pub norm2: LayerNorm<T>,
    #[parameters(skip)]
    options: TransformerEncoderLayerOptions,
}

impl<T: Float> TransformerEncoderLayer<T> {
    /// For E features and so many heads.
    ///
    /// # Errors
    /// As [`MultiheadAttention::new`].
    pub fn new(
        width: usize,
        heads: usize,
        options: TransformerEncoderLayerOptions,
        generator: &mut Generator,
    ) -> Result<Self> {
        let TransformerEncoderLayerOptions { dim_feedforward, dropout, bias, .. } = options;
        let attention = MultiheadAttentionOptions { dropout, bias };
        let mut linear = |inputs, outputs| match bias {
            true => Linear::new(inputs, outputs, generator),
            false => Linear::without_bias(inputs, outputs, generator),
        };
        let (linear1, linear2) = (linear(width, dim_feedforward)?, linear(dim_feedforward, width)?);
        let norm = NormOptions { eps: Some(options.layer_norm_eps), bias, affine: true };
        Ok(TransformerEncoderLayer {
            self_attn: MultiheadAttention::new(width, heads, attention, generator)?,
            linear1,
            linear2,
            norm1: LayerNorm::new([width], norm)?,
            norm2: LayerNorm::new([width], norm)?,
            options,
        })
    }

    /// The layer's output where attention is limited.
    ///
    /// # Errors
    /// As [`MultiheadAttention::attend`].
    pub fn encode(&self, x: &Var<T>, attend: &Attend<T>) -> Result<Var<T>> {
        if self.options.norm_first {
            let x = x.checked_add(&self.attention(&self.norm1.forward(x).at("norm1")?, attend)?)?;
            return x.checked_add(&self.perceptron(&self.norm2.forward(&x).at("norm2")?)?);
        }
        let x = x.checked_add(&self.attention(x, attend)?)?;
        let x = self.norm1.forward(&x).at("norm1")?;
        self.norm2.forward(&x.checked_add(&self.perceptron(&x)?)?).at("norm2")
    }

    fn attention(&self, x: &Var<T>, attend: &Attend<T>) -> Result<Var<T>> {
        self.self_attn.attend(x, x, x, attend).at("self_attn")?.dropout(self.options.dropout)
    }

    fn perceptron(&self, x: &Var<T>) -> Result<Var<T>> {
        let h = self.linear1.forward(x).at("linear1")?;
        let h = match self.options.activation {
            Activation::ReLU => h.relu(),
            Activation::GELU => h.gelu(),
        };
        let h = h.dropout(self.options.dropout)?;
        self.linear2.forward(&h).at("linear2")?.dropout(self.options.dropout)
    }
}

/// With attention to everything.
impl<T: Float> Module for TransformerEncoderLayer<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        self.encode(x, &Attend::default())
    }
}

/// Encoder layers one after another, and a norm at the end. `torch.nn.TransformerEncoder`.
///
/// # Shape
/// `[N, L, E]` or `[L, E]` → the same.
#[derive(Clone, Debug, Parameters)]
pub struct TransformerEncoder<T: Float> {
    /// The layers.
    pub layers: Vec<TransformerEncoderLayer<T>>,
    /// At the end; wanted where the layers normalise first.
    pub norm: Option<LayerNorm<T>>,
}

impl<T: Float> TransformerEncoder<T> {
    /// So many layers, each with weights of its own, and the norm at the end where they normalise first.
    ///
    /// # Errors
    /// As [`TransformerEncoderLayer::new`]; [`Error::InvalidArgument`] for no layers.
    pub fn new(
        num_layers: usize,
        width: usize,
        heads: usize,
        options: TransformerEncoderLayerOptions,
        generator: &mut Generator,
    ) -> Result<Self> {
        if num_layers == 0 {
            let (op, reason) = ("TransformerEncoder", "must be at least 1, found 0".into());
            return Err(Error::InvalidArgument { op, name: "num_layers", reason });
        }
        let mut layers = Vec::with_capacity(num_layers);
        for _ in 0..num_layers {
            layers.push(TransformerEncoderLayer::new(width, heads, options, generator)?);
        }
        let norm = NormOptions { eps: Some(options.layer_norm_eps), ..NormOptions::default() };
        let norm = if options.norm_first { Some(LayerNorm::new([width], norm)?) } else { None };
        Ok(TransformerEncoder { layers, norm })
    }

    /// The output where attention is limited.
    ///
    /// # Errors
    /// As [`MultiheadAttention::attend`], with the layer's place.
    pub fn encode(&self, x: &Var<T>, attend: &Attend<T>) -> Result<Var<T>> {
        let mut layers = self.layers.iter().enumerate();
        let x = layers
            .try_fold(x.clone(), |x, (i, layer)| layer.encode(&x, attend).at(i).at("layers"))?;
        self.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x).at("norm"))
    }
}

/// With attention to everything.
impl<T: Float> Module for TransformerEncoder<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        self.encode(x, &Attend::default())
    }
}
