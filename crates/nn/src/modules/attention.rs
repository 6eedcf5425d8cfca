//! Attention with several heads.

use autograd::{AttentionMask, AttentionOptions, Error, Float, Generator, Result, Tensor, Var};

use super::{At, Linear, Module};
use crate::init;
use crate::parameters::{Parameter, Parameters};

/// Options of [`MultiheadAttention`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct MultiheadAttentionOptions {
    /// The share of the attention's weights that is set to 0 in training.
    pub dropout: f64,
    /// Whether the projections have biases.
    pub bias: bool,
}

impl Default for MultiheadAttentionOptions {
    fn default() -> Self {
        MultiheadAttentionOptions { dropout: 0.0, bias: true }
    }
}

/// What the queries of a call may attend to; by default everything.
#[derive(Clone, Debug)]
pub struct Attend<T: Float> {
    /// Whether query i attends to the keys 0 to i only.
    pub causal: bool,
    /// Of all heads; broadcasts to `[N, heads, L, S]`. Unlike PyTorch's boolean masks, `Keep` says what
    /// may be attended to.
    pub mask: Option<AttentionMask<T>>,
    /// True where a key is padding, which nothing attends to, `[N, S]`; `[S]` without a batch.
    pub key_padding_mask: Option<Tensor<bool>>,
}

impl<T: Float> Default for Attend<T> {
    fn default() -> Self {
        Attend { causal: false, mask: None, key_padding_mask: None }
    }
}

impl<T: Float> Attend<T> {
    /// Query i attends to the keys 0 to i.
    pub fn causal() -> Self {
        Attend { causal: true, ..Self::default() }
    }

    /// The mask of `[N, heads, L, S]` scores.
    fn mask(&self) -> Result<Option<AttentionMask<T>>> {
        let Some(padding) = &self.key_padding_mask else { return Ok(self.mask.clone()) };
        let padding = match padding.dims::<2>("MultiheadAttention") {
            Ok([n, s]) => padding.reshape([n, 1, 1, s])?,
            Err(_) => padding.reshape([1, 1, 1, padding.numel()])?,
        };
        let keep = padding.logical_not();
        Ok(Some(match &self.mask {
            None => AttentionMask::Keep(keep),
            Some(AttentionMask::Keep(mask)) => AttentionMask::Keep(mask.logical_and(&keep)?),
            Some(AttentionMask::Add(mask)) => {
                let none = Tensor::scalar(T::ZERO);
                let away = keep.where_cond(&none, -T::INFINITY)?;
                AttentionMask::Add(mask.checked_add(&Var::constant(away))?)
            }
        }))
    }
}

/// Attention of several heads, each to a projection of queries, keys and values:
/// `concat(softmax(q·kᵀ/√(E/heads))·v)·W + b`. `torch.nn.MultiheadAttention` with `batch_first=True`.
///
/// A query that may attend to nothing gets the bias, where PyTorch gives NaN. The average weights are not
/// returned.
///
/// # Shape
/// Queries `[N, L, E]`, keys and values `[N, S, E]` → `[N, L, E]`, each also without N;
/// `in_proj_weight: [3·E, E]` for queries, keys and values, `in_proj_bias: [3·E]`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let layer = MultiheadAttention::<f32>::new(8, 2, Default::default(), &mut rng)?;
/// let x = Var::constant(Tensor::randn([3, 5, 8], &mut rng)?);
/// let y = layer.attend(&x, &x, &x, &Attend::causal())?;
/// assert_eq!(y.shape(), [3, 5, 8]);
/// // The first output depends on the first input alone.
/// let first = x.narrow(1, 0, 1)?;
/// let alone = layer.attend(&first, &first, &first, &Attend::default())?;
/// let difference = alone.checked_sub(&y.narrow(1, 0, 1)?)?.abs().into_value();
/// assert!(difference.to_vec().into_iter().fold(0.0, f32::max) < 1e-6);
/// # Ok::<(), nn::Error>(())
/// ```
///
/// # Reference
/// Vaswani et al., arXiv 1706.03762.
#[derive(Clone, Debug, Parameters)]
pub struct MultiheadAttention<T: Float> {
    /// `[3·E, E]`.
    pub in_proj_weight: Parameter<T>,
    /// `[3·E]`.
    pub in_proj_bias: Option<Parameter<T>>,
    /// The last projection.
    pub out_proj: Linear<T>,
    #[parameters(skip)]
    heads: usize,
    #[parameters(skip)]
    dropout: f64,
}

impl<T: Float> MultiheadAttention<T> {
    /// For E features and so many heads; the weights begin as PyTorch's do.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the heads divide E, and for a dropout outside [0, 1];
    /// [`Error::SizeOverflow`].
    pub fn new(
        width: usize,
        heads: usize,
        options: MultiheadAttentionOptions,
        generator: &mut Generator,
    ) -> Result<Self> {
        let op = "MultiheadAttention";
        let invalid = |name, reason| Error::InvalidArgument { op, name, reason };
        if heads == 0 || !width.is_multiple_of(heads) {
            let reason = format!("must divide the {width} features, found {heads}");
            return Err(invalid("heads", reason));
        }
        let MultiheadAttentionOptions { dropout, bias } = options;
        if !(0.0..=1.0).contains(&dropout) {
            return Err(invalid("dropout", format!("must be in [0, 1], found {dropout}")));
        }
        let in_proj_weight = init::xavier_uniform([3 * width, width], 1.0, generator)?;
        let zeros = |size: usize| -> Result<Option<Parameter<T>>> {
            Ok(if bias { Some(Parameter::new(Tensor::zeros([size])?)) } else { None })
        };
        let mut out_proj = Linear::without_bias(width, width, generator)?;
        out_proj.bias = zeros(width)?;
        Ok(MultiheadAttention {
            in_proj_weight: Parameter::new(in_proj_weight),
            in_proj_bias: zeros(3 * width)?,
            out_proj,
            heads,
            dropout,
        })
    }

    /// Attention of queries to keys with values.
    ///
    /// # Errors
    /// [`Error::RankMismatch`], [`Error::InnerDimensions`] and [`Error::ShapeMismatch`] for shapes that do
    /// not fit, those of the masks too.
    pub fn attend(
        &self,
        query: &Var<T>,
        key: &Var<T>,
        value: &Var<T>,
        attend: &Attend<T>,
    ) -> Result<Var<T>> {
        if query.value().rank() == 2 {
            let [q, k, v] = [query, key, value].map(|x| x.unsqueeze(0));
            return self.attend(&q?, &k?, &v?, attend)?.squeeze(0);
        }
        let [n, length, _] = query.value().dims("MultiheadAttention")?;
        let width = self.out_proj.weight.value().shape()[1];
        let mut heads = Vec::with_capacity(3);
        for (part, (x, name)) in [(query, "q"), (key, "k"), (value, "v")].into_iter().enumerate() {
            heads.push(self.project(part * width, x).at(name)?);
        }
        let options = AttentionOptions {
            mask: attend.mask()?,
            causal: attend.causal,
            dropout: self.dropout,
            scale: None,
        };
        let y = heads[0].scaled_dot_product_attention(&heads[1], &heads[2], &options)?;
        let y = y.transpose(1, 2)?.reshape([n, length, width])?;
        self.out_proj.forward(&y).at("out_proj")
    }

    /// The heads `[N, heads, L, E/heads]` that the rows of the weight from `first` on make of `x`.
    fn project(&self, first: usize, x: &Var<T>) -> Result<Var<T>> {
        let width = self.out_proj.weight.value().shape()[1];
        let w = self.in_proj_weight.bind_like(x).narrow(0, first, width)?;
        let b = self.in_proj_bias.as_ref().map(|b| b.bind_like(x).narrow(0, first, width));
        let [n, length, _] = x.value().dims("MultiheadAttention")?;
        let y = x.linear(&w, b.transpose()?.as_ref())?;
        y.reshape([n, length, self.heads, width / self.heads])?.transpose(1, 2)
    }
}

/// Self-attention to everything.
impl<T: Float> Module for MultiheadAttention<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        self.attend(x, x, x, &Attend::default())
    }
}
