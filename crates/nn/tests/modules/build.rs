//! A case's module, and its call, behind one signature.

use nn::prelude::*;
use nn::{Conv, Visitor, load_state_dict};
use serde_json::Value;

use super::fixture::{Case, list, sizes};

type Boxed = Box<dyn Module<Elem = f64>>;

/// A module of any kind with what its call takes besides variables.
pub(crate) enum Subject {
    Module(Boxed),
    Embedding(Embedding<f64>, Tensor<i64>),
    /// With the number of heads, and whether the last input is a mask.
    Attention(Box<MultiheadAttention<f64>>, Attend<f64>, usize, bool),
    Layer(Box<TransformerEncoderLayer<f64>>, Attend<f64>),
    Encoder(Box<TransformerEncoder<f64>>, Attend<f64>),
    Gru(GRU<f64>),
    Lstm(LSTM<f64>),
}

impl Subject {
    /// The module of a case with the case's parameters and buffers, loaded by PyTorch's names.
    pub(crate) fn new(case: &Case<'_>) -> Self {
        let mut subject = build(case).unwrap();
        let unread = case.unread();
        assert!(unread.is_empty(), "{}: {unread:?} not read", case.label());
        load_state_dict(&mut subject, &case.state_dict()).unwrap();
        subject
    }

    /// The outputs for these inputs.
    pub(crate) fn run(&self, tape: Option<&Tape<f64>>, x: &[Var<f64>]) -> Result<Vec<Var<f64>>> {
        Ok(match self {
            Subject::Module(m) => vec![m.forward(&x[0])?],
            Subject::Embedding(m, indices) => vec![m.forward(indices, tape)?],
            Subject::Attention(m, attend, heads, masked) => {
                vec![attention(m, attend, *masked, *heads, x)?]
            }
            Subject::Layer(m, attend) => vec![m.encode(&x[0], attend)?],
            Subject::Encoder(m, attend) => vec![m.encode(&x[0], attend)?],
            Subject::Gru(m) => {
                let (y, h) = m.forward(&x[0], x.get(1))?;
                vec![y, h]
            }
            Subject::Lstm(m) => {
                let (y, (h, c)) = m.forward(&x[0], x.get(1).zip(x.get(2)))?;
                vec![y, h, c]
            }
        })
    }

    fn parameters(&self) -> &dyn Parameters<Elem = f64> {
        match self {
            Subject::Module(m) => m,
            Subject::Embedding(m, _) => m,
            Subject::Attention(m, ..) => m,
            Subject::Layer(m, _) => m,
            Subject::Encoder(m, _) => m,
            Subject::Gru(m) => m,
            Subject::Lstm(m) => m,
        }
    }

    fn parameters_mut(&mut self) -> &mut dyn Parameters<Elem = f64> {
        match self {
            Subject::Module(m) => m,
            Subject::Embedding(m, _) => m,
            Subject::Attention(m, ..) => m,
            Subject::Layer(m, _) => m,
            Subject::Encoder(m, _) => m,
            Subject::Gru(m) => m,
            Subject::Lstm(m) => m,
        }
    }
}

impl Parameters for Subject {
    type Elem = f64;
    fn visit<'a>(&'a self, visitor: &mut Visitor<'_, &'a Parameter<f64>>) {
        self.parameters().visit(visitor);
    }
    fn visit_mut<'a>(&'a mut self, visitor: &mut Visitor<'_, &'a mut Parameter<f64>>) {
        self.parameters_mut().visit_mut(visitor);
    }
}

/// Attention of a query to itself, to keys that are values too, or to keys and values.
fn attention(
    m: &MultiheadAttention<f64>,
    attend: &Attend<f64>,
    masked: bool,
    heads: usize,
    x: &[Var<f64>],
) -> Result<Var<f64>> {
    let (mut attend, mut x) = (attend.clone(), x);
    if masked && let Some((mask, rest)) = x.split_last() {
        x = rest;
        let of_each_head = match *mask.shape() {
            // PyTorch has one dim for the batch and the heads.
            [all, l, s] => mask.reshape([all / heads, heads, l, s])?,
            _ => mask.clone(),
        };
        attend.mask = Some(AttentionMask::Add(of_each_head));
    }
    let q = &x[0];
    let k = x.get(1).unwrap_or(q);
    m.attend(q, k, x.get(2).unwrap_or(k), &attend)
}

fn build(case: &Case<'_>) -> Result<Subject> {
    let rng = &mut Generator::new(0);
    Ok(match case.module() {
        "Embedding" => embedding(case, rng)?,
        "MultiheadAttention" => multihead(case, rng)?,
        "TransformerEncoderLayer" => {
            let (width, heads) = (case.size("d_model"), case.size("nhead"));
            let options = layer_options(case);
            let layer = TransformerEncoderLayer::new(width, heads, options, rng)?;
            Subject::Layer(Box::new(layer), attend(case)?)
        }
        "TransformerEncoder" => encoder(case, rng)?,
        "GRU" => {
            let (inputs, hidden) = (case.size("input_size"), case.size("hidden_size"));
            Subject::Gru(GRU::new(inputs, hidden, recurrent_options(case), rng)?)
        }
        "LSTM" => {
            let (inputs, hidden) = (case.size("input_size"), case.size("hidden_size"));
            Subject::Lstm(LSTM::new(inputs, hidden, recurrent_options(case), rng)?)
        }
        name => {
            let found = match layer(case, rng)? {
                None => activation(case)?,
                found => found,
            };
            Subject::Module(found.unwrap_or_else(|| panic!("{name} is not known here")))
        }
    })
}

fn boxed(m: impl Module<Elem = f64> + 'static) -> Boxed {
    Box::new(m)
}

fn embedding(case: &Case<'_>, rng: &mut Generator) -> Result<Subject> {
    let mut table = Embedding::new(case.size("num_embeddings"), case.size("embedding_dim"), rng)?;
    if case.find("padding_idx").is_some() {
        table = table.with_padding(case.size("padding_idx"))?;
    }
    let indices = list(case.find("indices").unwrap()).iter().map(|v| v.as_i64().unwrap());
    let indices = Tensor::from_vec(indices.collect(), sizes(case.find("shape").unwrap()))?;
    Ok(Subject::Embedding(table, indices))
}

fn multihead(case: &Case<'_>, rng: &mut Generator) -> Result<Subject> {
    let options = MultiheadAttentionOptions { dropout: 0.0, bias: case.flag("bias", true) };
    let heads = case.size("num_heads");
    let layer = MultiheadAttention::new(case.size("embed_dim"), heads, options, rng)?;
    let masked = case.input_names().contains(&"mask");
    Ok(Subject::Attention(Box::new(layer), attend(case)?, heads, masked))
}

/// PyTorch's truth values say what is hidden.
fn attend(case: &Case<'_>) -> Result<Attend<f64>> {
    Ok(Attend {
        causal: case.flag("causal", false),
        mask: case.truths("masked").map(|hidden| AttentionMask::Keep(hidden.logical_not())),
        key_padding_mask: case.truths("padding"),
    })
}

fn layer_options(case: &Case<'_>) -> TransformerEncoderLayerOptions {
    let o = TransformerEncoderLayerOptions::default();
    TransformerEncoderLayerOptions {
        dim_feedforward: case.size("dim_feedforward"),
        dropout: 0.0,
        activation: match case.find("activation").and_then(Value::as_str) {
            None => o.activation,
            Some("relu") => Activation::ReLU,
            Some("gelu") => Activation::GELU,
            Some(other) => panic!("{other}"),
        },
        norm_first: case.flag("norm_first", o.norm_first),
        layer_norm_eps: case.number("layer_norm_eps", o.layer_norm_eps),
        bias: case.flag("bias", o.bias),
    }
}

fn encoder(case: &Case<'_>, rng: &mut Generator) -> Result<Subject> {
    let (width, options) = (case.size("d_model"), layer_options(case));
    let layers = case.size("num_layers");
    let mut encoder = TransformerEncoder::new(layers, width, case.size("nhead"), options, rng)?;
    let norm = NormOptions { eps: Some(options.layer_norm_eps), ..Default::default() };
    encoder.norm =
        if case.flag("norm", false) { Some(LayerNorm::new([width], norm)?) } else { None };
    Ok(Subject::Encoder(Box::new(encoder), attend(case)?))
}

fn recurrent_options(case: &Case<'_>) -> RecurrentOptions {
    RecurrentOptions {
        num_layers: case.size("num_layers"),
        bias: case.flag("bias", true),
        batch_first: case.flag("batch_first", false),
        dropout: 0.0,
        bidirectional: case.flag("bidirectional", false),
    }
}

fn layer(case: &Case<'_>, rng: &mut Generator) -> Result<Option<Boxed>> {
    Ok(Some(match case.module() {
        "Linear" => {
            let (inputs, outputs) = (case.size("in_features"), case.size("out_features"));
            boxed(match case.flag("bias", true) {
                true => Linear::new(inputs, outputs, rng)?,
                false => Linear::without_bias(inputs, outputs, rng)?,
            })
        }
        "Conv1d" => boxed(conv::<1>(case, rng)?),
        "Conv2d" => boxed(conv::<2>(case, rng)?),
        "MaxPool1d" => boxed(MaxPool1d::new(case.size("kernel_size"), max_pool(case))),
        "MaxPool2d" => boxed(MaxPool2d::new(kernel(case), max_pool(case))),
        "AvgPool1d" => boxed(AvgPool1d::new(case.size("kernel_size"), avg_pool(case))),
        "AvgPool2d" => boxed(AvgPool2d::new(kernel(case), avg_pool(case))),
        "Flatten" => boxed(Flatten::new(case.dim("start_dim", 1), case.dim("end_dim", -1))),
        "Dropout" => boxed(Dropout::new(case.number("p", 0.5))),
        "Dropout1d" => boxed(Dropout1d::new(case.number("p", 0.5))),
        "Dropout2d" => boxed(Dropout2d::new(case.number("p", 0.5))),
        "LayerNorm" => boxed(LayerNorm::new(normalized(case), norm_options(case))?),
        "RMSNorm" => boxed(RMSNorm::new(normalized(case), norm_options(case))?),
        "GroupNorm" => {
            let (groups, channels) = (case.size("num_groups"), case.size("num_channels"));
            boxed(GroupNorm::new(groups, channels, norm_options(case))?)
        }
        "BatchNorm1d" => boxed(BatchNorm1d::new(case.size("num_features"), batch_norm(case))?),
        "BatchNorm2d" => boxed(BatchNorm2d::new(case.size("num_features"), batch_norm(case))?),
        _ => return Ok(None),
    }))
}

fn kernel(case: &Case<'_>) -> [usize; 2] {
    case.sizes("kernel_size").unwrap()
}

fn conv<const D: usize>(case: &Case<'_>, rng: &mut Generator) -> Result<Conv<f64, D>> {
    let o = ConvOptions::default();
    let options = ConvOptions {
        stride: case.sizes("stride").unwrap_or(o.stride),
        padding: case.sizes("padding").unwrap_or(o.padding),
        dilation: case.sizes("dilation").unwrap_or(o.dilation),
        groups: case.find("groups").map_or(o.groups, |_| case.size("groups")),
    };
    let (inputs, outputs) = (case.size("in_channels"), case.size("out_channels"));
    let kernel = case.sizes("kernel_size").unwrap();
    match case.flag("bias", true) {
        true => Conv::new(inputs, outputs, kernel, options, rng),
        false => Conv::without_bias(inputs, outputs, kernel, options, rng),
    }
}

fn max_pool<const D: usize>(case: &Case<'_>) -> MaxPoolOptions<D> {
    let o = MaxPoolOptions::default();
    MaxPoolOptions {
        stride: case.sizes("stride"),
        padding: case.sizes("padding").unwrap_or(o.padding),
        dilation: case.sizes("dilation").unwrap_or(o.dilation),
        ceil_mode: case.flag("ceil_mode", o.ceil_mode),
    }
}

fn avg_pool<const D: usize>(case: &Case<'_>) -> AvgPoolOptions<D> {
    let o = AvgPoolOptions::default();
    AvgPoolOptions {
        stride: case.sizes("stride"),
        padding: case.sizes("padding").unwrap_or(o.padding),
        ceil_mode: case.flag("ceil_mode", o.ceil_mode),
        count_include_pad: case.flag("count_include_pad", o.count_include_pad),
        divisor_override: case.find("divisor_override").map(|_| case.size("divisor_override")),
    }
}

fn normalized(case: &Case<'_>) -> Vec<usize> {
    sizes(case.find("normalized_shape").unwrap())
}

fn norm_options(case: &Case<'_>) -> NormOptions {
    let name = if case.module() == "GroupNorm" { "affine" } else { "elementwise_affine" };
    NormOptions {
        eps: case.find("eps").map(|v| v.as_f64().unwrap()),
        affine: case.flag(name, true),
        bias: case.flag("bias", true),
    }
}

fn batch_norm(case: &Case<'_>) -> BatchNormOptions {
    let o = BatchNormOptions::default();
    BatchNormOptions {
        eps: case.number("eps", o.eps),
        momentum: case.number("momentum", o.momentum),
        affine: case.flag("affine", o.affine),
        track_running_stats: case.flag("track_running_stats", o.track_running_stats),
    }
}

/// The dim of a softmax, which has no default here.
fn dim(case: &Case<'_>) -> isize {
    case.find("dim").unwrap();
    case.dim("dim", 0)
}

fn activation(case: &Case<'_>) -> Result<Option<Boxed>> {
    Ok(Some(match case.module() {
        "ReLU" => boxed(ReLU::new()),
        "ReLU6" => boxed(ReLU6::new()),
        "LeakyReLU" => boxed(LeakyReLU::new(case.number("negative_slope", 0.01))),
        "ELU" => boxed(ELU::new(case.number("alpha", 1.0))),
        "SELU" => boxed(SELU::new()),
        "CELU" => boxed(CELU::new(case.number("alpha", 1.0))),
        "GELU" => match case.find("approximate").and_then(Value::as_str) {
            None => boxed(GELU::new()),
            Some("tanh") => boxed(GELUTanh::new()),
            Some(other) => panic!("{other}"),
        },
        "SiLU" => boxed(SiLU::new()),
        "Mish" => boxed(Mish::new()),
        "Sigmoid" => boxed(Sigmoid::new()),
        "LogSigmoid" => boxed(LogSigmoid::new()),
        "Tanh" => boxed(Tanh::new()),
        "Tanhshrink" => boxed(Tanhshrink::new()),
        "Softplus" => {
            boxed(Softplus::new(case.number("beta", 1.0), case.number("threshold", 20.0)))
        }
        "Softsign" => boxed(Softsign::new()),
        "Softshrink" => boxed(Softshrink::new(case.number("lambd", 0.5))),
        "Hardshrink" => boxed(Hardshrink::new(case.number("lambd", 0.5))),
        "Hardtanh" => {
            boxed(Hardtanh::new(case.number("min_val", -1.0), case.number("max_val", 1.0)))
        }
        "Hardsigmoid" => boxed(Hardsigmoid::new()),
        "Hardswish" => boxed(Hardswish::new()),
        "Threshold" => {
            let [threshold, value] = ["threshold", "value"].map(|name| case.number(name, f64::NAN));
            boxed(Threshold::new(threshold, value))
        }
        "GLU" => boxed(GLU::new(case.dim("dim", -1))),
        "Softmax" => boxed(Softmax::new(dim(case))),
        "Softmin" => boxed(Softmin::new(dim(case))),
        "LogSoftmax" => boxed(LogSoftmax::new(dim(case))),
        "PReLU" => {
            let slopes = case.find("num_parameters").map_or(1, |_| case.size("num_parameters"));
            boxed(PReLU::new(slopes, 0.25)?)
        }
        _ => return Ok(None),
    }))
}
