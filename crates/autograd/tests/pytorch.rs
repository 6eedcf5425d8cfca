//! Values and gradients of the operations against PyTorch, in f64.
//!
//! The cases and the version of PyTorch stand in `fixtures/pytorch_ops.json`, which
//! `fixtures/make_pytorch_ops.py` writes; each has a random upstream gradient. Second derivatives are
//! the affair of the gradient suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use autograd::{
    AttentionMask, AttentionOptions, AvgPoolOptions, ClassOptions, ConvOptions, Element, Error,
    Float, Gradients, MaxPoolOptions, PadMode, Reduction, Result, Slice, Tape, Tensor, Var,
    backward,
};
use serde_json::Value;

/// Both sides round in f64 (ε = 1.1e−16) along different ways. A result is a sum of fewer than 100
/// terms of size about 1, each with a few roundings: an error below 100·10·ε ≈ 1e−13, relative to
/// the larger of the result and its terms. One digit is left for the functions of the C library.
const TOLERANCE: f64 = 1e-12;

/// What an operation takes besides its differentiable inputs.
struct Options<'a>(&'a Value);

impl Options<'_> {
    /// Whether it is there, and is something.
    fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|v| !v.is_null())
    }

    fn get(&self, name: &str) -> &Value {
        self.0.get(name).unwrap_or_else(|| panic!("no option {name} in {}", self.0))
    }

    fn float(&self, name: &str) -> f64 {
        number(self.get(name))
    }

    fn int(&self, name: &str) -> isize {
        integer(self.get(name)) as isize
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).as_bool().unwrap()
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap()
    }

    fn size(&self, name: &str) -> usize {
        self.int(name).try_into().unwrap()
    }

    /// A list of D sizes; for D = 1 also a number.
    fn array<const D: usize>(&self, name: &str) -> [usize; D] {
        let sizes =
            if self.get(name).is_array() { self.sizes(name) } else { vec![self.size(name)] };
        sizes.try_into().unwrap()
    }

    fn ints(&self, name: &str) -> Vec<isize> {
        self.get(name).as_array().unwrap().iter().map(|v| integer(v) as isize).collect()
    }

    fn sizes(&self, name: &str) -> Vec<usize> {
        self.ints(name).into_iter().map(|n| n.try_into().unwrap()).collect()
    }

    fn floats(&self, name: &str) -> Tensor<f64> {
        floats(self.get(name))
    }

    fn indices(&self, name: &str) -> Tensor<i64> {
        decode(self.get(name), integer)
    }

    fn mask(&self, name: &str) -> Tensor<bool> {
        decode(self.get(name), |v| v.as_bool().unwrap())
    }

    fn conv<const D: usize>(&self) -> ConvOptions<D> {
        ConvOptions {
            stride: self.array("stride"),
            padding: self.array("padding"),
            dilation: self.array("dilation"),
            groups: self.size("groups"),
        }
    }

    fn max_pool<const D: usize>(&self) -> MaxPoolOptions<D> {
        let default = MaxPoolOptions::default();
        MaxPoolOptions {
            stride: Some(self.array("stride")),
            padding: self.array("padding"),
            dilation: if self.has("dilation") { self.array("dilation") } else { default.dilation },
            ceil_mode: self.has("ceil_mode") && self.flag("ceil_mode"),
        }
    }

    fn avg_pool<const D: usize>(&self) -> AvgPoolOptions<D> {
        let default = AvgPoolOptions::default();
        AvgPoolOptions {
            stride: Some(self.array("stride")),
            padding: self.array("padding"),
            ceil_mode: self.has("ceil_mode") && self.flag("ceil_mode"),
            count_include_pad: !self.has("count_include_pad") || self.flag("count_include_pad"),
            ..default
        }
    }

    fn attention(&self) -> AttentionOptions<f64> {
        let mask = |v: &Value| match &v["data"][0] {
            Value::Bool(_) => AttentionMask::Keep(self.mask("attn_mask")),
            _ => AttentionMask::Add(Var::constant(self.floats("attn_mask"))),
        };
        AttentionOptions {
            mask: self.0.get("attn_mask").map(mask),
            causal: self.has("is_causal") && self.flag("is_causal"),
            scale: self.has("scale").then(|| self.float("scale")),
            dropout: 0.0,
        }
    }

    fn class_options(&self) -> ClassOptions<f64> {
        ClassOptions {
            weight: self.has("weight").then(|| self.floats("weight")),
            ignore_index: Some(self.int("ignore_index") as i64),
            reduction: match self.text("reduction") {
                "none" => Reduction::None,
                "mean" => Reduction::Mean,
                "sum" => Reduction::Sum,
                other => panic!("reduction {other}"),
            },
            label_smoothing: if self.has("label_smoothing") {
                self.float("label_smoothing")
            } else {
                0.0
            },
            ..ClassOptions::default()
        }
    }
}

fn number(v: &Value) -> f64 {
    match v.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        Some(other) => panic!("{other} is no number"),
        None => v.as_f64().unwrap(),
    }
}

fn integer(v: &Value) -> i64 {
    v.as_i64().unwrap()
}

fn decode<T: Element>(v: &Value, element: impl Fn(&Value) -> T) -> Tensor<T> {
    let shape: Vec<usize> =
        v["shape"].as_array().unwrap().iter().map(|n| integer(n) as usize).collect();
    Tensor::from_vec(v["data"].as_array().unwrap().iter().map(element).collect(), shape).unwrap()
}

fn floats(v: &Value) -> Tensor<f64> {
    decode(v, number)
}

fn pair(v: &Value) -> (usize, usize) {
    (integer(&v[0]) as usize, integer(&v[1]) as usize)
}

fn list<'a>(case: &'a Value, name: &str) -> &'a [Value] {
    case[name].as_array().unwrap()
}

type Outputs = Vec<Var<f64>>;

/// The operation called `op`. Results without a gradient, such as indices, are constants.
fn run(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Option<Result<Outputs>> {
    let themes = [
        unary,
        two_operands,
        activations,
        views,
        joins,
        indexing,
        order,
        reductions,
        linear_algebra,
        networks,
    ];
    themes.into_iter().find_map(|theme| theme(op, x, o).transpose())
}

fn unary(op: &str, x: &[Var<f64>], _: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &x[0];
    Ok(Some(vec![match op {
        "abs" => x.abs(),
        "sign" => x.sign(),
        "square" => x.square(),
        "sqrt" => x.sqrt(),
        "rsqrt" => x.rsqrt(),
        "reciprocal" => x.reciprocal(),
        "exp" => x.exp(),
        "exp2" => x.exp2(),
        "expm1" => x.expm1(),
        "log" => x.log(),
        "log1p" => x.log1p(),
        "log2" => x.log2(),
        "log10" => x.log10(),
        "sin" => x.sin(),
        "cos" => x.cos(),
        "tan" => x.tan(),
        "sinh" => x.sinh(),
        "cosh" => x.cosh(),
        "tanh" => x.tanh(),
        "asinh" => x.asinh(),
        "acosh" => x.acosh(),
        "atanh" => x.atanh(),
        "asin" => x.asin(),
        "acos" => x.acos(),
        "atan" => x.atan(),
        "sigmoid" => x.sigmoid(),
        "erf" => x.erf(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        "round" => x.round(),
        "trunc" => x.trunc(),
        "neg" => -x,
        _ => return Ok(None),
    }]))
}

fn two_operands(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    Ok(Some(vec![match op {
        "add" => &x[0] + &x[1],
        "sub" => &x[0] - &x[1],
        "mul" => &x[0] * &x[1],
        "div" => &x[0] / &x[1],
        "add_scalar" => &x[0] + o.float("scalar"),
        "sub_scalar" => &x[0] - o.float("scalar"),
        "mul_scalar" => &x[0] * o.float("scalar"),
        "div_scalar" => &x[0] / o.float("scalar"),
        "pow" => x[0].pow(o.float("exponent"))?,
        "pow_var" => x[0].pow(&x[1])?,
        "atan2" => x[0].atan2(&x[1])?,
        "hypot" => x[0].hypot(&x[1])?,
        "maximum" => x[0].maximum(&x[1])?,
        "minimum" => x[0].minimum(&x[1])?,
        "remainder" => x[0].remainder(&x[1])?,
        "lerp" => x[0].lerp(&x[1], o.float("weight"))?,
        "lerp_var" => x[0].lerp(&x[1], &x[2])?,
        "where_cond" => x[0].where_cond(&o.mask("mask"), &x[1])?,
        "masked_fill" => x[0].masked_fill(&o.mask("mask"), o.float("value"))?,
        "clamp" => x[0].clamp(o.float("min"), o.float("max"))?,
        "clamp_var" => x[0].clamp(&x[1], &x[2])?,
        "clamp_min" => x[0].clamp_min(o.float("bound"))?,
        "clamp_max" => x[0].clamp_max(o.float("bound"))?,
        "clamp_min_var" => x[0].clamp_min(&x[1])?,
        "clamp_max_var" => x[0].clamp_max(&x[1])?,
        _ => return Ok(None),
    }]))
}

fn activations(op: &str, xs: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &xs[0];
    Ok(Some(vec![match op {
        "relu" => x.relu(),
        "gelu" => x.gelu(),
        "gelu_tanh" => x.gelu_tanh(),
        "silu" => x.silu(),
        "elu" => x.elu(o.float("alpha")),
        "selu" => x.selu(),
        "celu" => x.celu(o.float("alpha"))?,
        "leaky_relu" => x.leaky_relu(o.float("negative_slope")),
        "prelu" => x.prelu(&xs[1])?,
        "softplus" => x.softplus(o.float("beta"), o.float("threshold"))?,
        "mish" => x.mish(),
        "hardtanh" => x.hardtanh(o.float("min_val"), o.float("max_val"))?,
        "relu6" => x.relu6(),
        "hardsigmoid" => x.hardsigmoid(),
        "hardswish" => x.hardswish(),
        "logsigmoid" => x.logsigmoid(),
        "softsign" => x.softsign(),
        "tanhshrink" => x.tanhshrink(),
        "softshrink" => x.softshrink(o.float("lambd"))?,
        "hardshrink" => x.hardshrink(o.float("lambd")),
        "glu" => x.glu(o.int("dim"))?,
        "dropout" => x.dropout(o.float("p"))?,
        _ => return Ok(None),
    }]))
}

fn views(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &x[0];
    let dim = || o.int("dim");
    Ok(Some(match op {
        "reshape" => vec![x.reshape(o.sizes("shape"))?],
        "transpose" => vec![x.transpose(o.int("dim0"), o.int("dim1"))?],
        "permute" => vec![x.permute(&o.ints("dims"))?],
        "expand" => vec![x.expand(o.sizes("shape"))?],
        "squeeze" => vec![x.squeeze(dim())?],
        "unsqueeze" => vec![x.unsqueeze(dim())?],
        "flatten" => vec![x.flatten(o.int("start"), o.int("end"))?],
        "narrow" => vec![x.narrow(dim(), o.size("start"), o.size("length"))?],
        "slice" => {
            let bound = |name| o.has(name).then(|| o.int(name));
            let entries = Slice { start: bound("start"), stop: bound("stop"), step: o.int("step") };
            vec![x.slice(dim(), entries)?]
        }
        "select" => vec![x.select(dim(), o.int("index"))?],
        "flip" => vec![x.flip(&o.ints("dims"))?],
        "diagonal" => vec![x.diagonal(o.int("offset"), o.int("dim1"), o.int("dim2"))?],
        "unfold" => vec![x.unfold(dim(), o.size("size"), o.size("step"))?],
        "split" => x.split(o.size("size"), dim())?,
        "split_with_sizes" => x.split_with_sizes(&o.sizes("sizes"), dim())?,
        "chunk" => x.chunk(o.size("chunks"), dim())?,
        _ => return Ok(None),
    }))
}

fn joins(op: &str, xs: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let (x, all): (_, Vec<_>) = (&xs[0], xs.iter().collect());
    Ok(Some(vec![match op {
        "cat" => Var::cat(&all, o.int("dim"))?,
        "stack" => Var::stack(&all, o.int("dim"))?,
        "repeat" => x.repeat(&o.sizes("repeats"))?,
        "tile" => x.tile(&o.sizes("repeats"))?,
        "roll" => x.roll(&o.ints("shifts"), &o.ints("dims"))?,
        "pad" => {
            let pairs = o.get("padding").as_array().unwrap();
            let pairs: Vec<_> = pairs.iter().map(pair).collect();
            let mode = match o.text("mode") {
                "constant" => PadMode::Constant(o.float("value")),
                "reflect" => PadMode::Reflect,
                "replicate" => PadMode::Replicate,
                "circular" => PadMode::Circular,
                other => panic!("mode {other}"),
            };
            x.pad(&pairs, mode)?
        }
        "tril" => x.tril(o.int("diagonal"))?,
        "triu" => x.triu(o.int("diagonal"))?,
        _ => return Ok(None),
    }]))
}

fn indexing(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let dim = || o.int("dim");
    let index = || o.indices("index");
    Ok(Some(vec![match op {
        "index_select" => x[0].index_select(dim(), &index())?,
        "index_add" => x[0].index_add(dim(), &index(), &x[1])?,
        "gather" => x[0].gather(dim(), &index())?,
        "scatter" => x[0].scatter(dim(), &index(), &x[1])?,
        "scatter_add" => x[0].scatter_add(dim(), &index(), &x[1])?,
        "masked_select" => x[0].masked_select(&o.mask("mask"))?,
        "embedding" => {
            let padding = o.has("padding_idx").then(|| o.size("padding_idx"));
            x[0].embedding(&index(), padding)?
        }
        _ => return Ok(None),
    }]))
}

/// Values, and their indices.
fn with_indices((values, indices): (Var<f64>, Tensor<i64>)) -> Outputs {
    vec![values, Var::constant(indices.cast())]
}

fn order(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let (x, dim) = (&x[0], || o.int("dim"));
    Ok(Some(match op {
        "sort" => with_indices(x.sort(dim(), o.flag("descending"))?),
        "topk" => with_indices(x.topk(o.size("k"), dim(), o.flag("largest"))?),
        "cumsum" => vec![x.cumsum(dim())?],
        "cumprod" => vec![x.cumprod(dim())?],
        "logcumsumexp" => vec![x.logcumsumexp(dim())?],
        _ => return Ok(None),
    }))
}

fn reductions(op: &str, xs: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &xs[0];
    let (dim, dims) = (|| o.int("dim"), || o.ints("dims"));
    let every = || (0..x.value().rank() as isize).collect::<Vec<_>>();
    let (keepdim, correction) = (|| o.flag("keepdim"), || o.size("correction"));
    Ok(Some(match op {
        "sum" => vec![x.sum()],
        "mean" => vec![x.mean()],
        "sum_dim" => vec![x.sum_dim(&dims(), keepdim())?],
        "mean_dim" => vec![x.mean_dim(&dims(), keepdim())?],
        "amax" => vec![x.amax(&every(), false)?],
        "amin" => vec![x.amin(&every(), false)?],
        "amax_dim" => vec![x.amax(&dims(), keepdim())?],
        "amin_dim" => vec![x.amin(&dims(), keepdim())?],
        "max" => vec![x.max()?],
        "min" => vec![x.min()?],
        "max_dim" => with_indices(x.max_dim(dim(), keepdim())?),
        "min_dim" => with_indices(x.min_dim(dim(), keepdim())?),
        "prod" => vec![x.prod()],
        "prod_dim" => vec![x.prod_dim(&[dim()], keepdim())?],
        "var" => vec![x.var(correction())],
        "std" => vec![x.std(correction())],
        "var_dim" => vec![x.var_dim(&dims(), correction(), keepdim())?],
        "std_dim" => vec![x.std_dim(&dims(), correction(), keepdim())?],
        "norm" => vec![x.norm(o.float("p"))],
        "norm_dim" => vec![x.norm_dim(o.float("p"), &dims(), keepdim())?],
        "logsumexp" => vec![x.logsumexp()],
        "logsumexp_dim" => vec![x.logsumexp_dim(&dims(), keepdim())?],
        "cosine_similarity" => vec![x.cosine_similarity(&xs[1], dim(), o.float("eps"))?],
        "normalize" => vec![x.normalize(o.float("p"), dim(), o.float("eps"))?],
        _ => return Ok(None),
    }))
}

fn linear_algebra(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    Ok(Some(vec![match op {
        "matmul" => x[0].matmul(&x[1])?,
        "linear" => x[0].linear(&x[1], x.get(2))?,
        "dot" => x[0].dot(&x[1])?,
        "outer" => x[0].outer(&x[1])?,
        "mv" => x[0].mv(&x[1])?,
        "bmm" => x[0].bmm(&x[1])?,
        "addmm" => x[0].addmm(&x[1], &x[2], o.float("beta"), o.float("alpha"))?,
        "trace" => x[0].trace()?,
        "einsum" => Var::einsum(o.text("equation"), &x.iter().collect::<Vec<_>>())?,
        _ => return Ok(None),
    }]))
}

fn networks(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    Ok(Some(vec![match op {
        "conv1d" => x[0].conv1d(&x[1], x.get(2), &o.conv::<1>())?,
        "conv2d" => x[0].conv2d(&x[1], x.get(2), &o.conv::<2>())?,
        "conv_transpose1d" => {
            let extra = o.size("output_padding");
            x[0].conv_transpose1d(&x[1], x.get(2), &o.conv::<1>(), extra)?
        }
        "conv_transpose2d" => {
            let extra = o.array("output_padding");
            x[0].conv_transpose2d(&x[1], x.get(2), &o.conv::<2>(), extra)?
        }
        "max_pool1d" => x[0].max_pool1d(o.size("kernel_size"), &o.max_pool())?,
        "max_pool2d" => x[0].max_pool2d(o.array("kernel_size"), &o.max_pool())?,
        "avg_pool1d" => x[0].avg_pool1d(o.size("kernel_size"), &o.avg_pool())?,
        "avg_pool2d" => x[0].avg_pool2d(o.array("kernel_size"), &o.avg_pool())?,
        "layer_norm" => {
            let shape = o.sizes("normalized_shape");
            x[0].layer_norm(&shape, x.get(1), x.get(2), o.float("eps"))?
        }
        "rms_norm" => x[0].rms_norm(&o.sizes("normalized_shape"), x.get(1), o.float("eps"))?,
        "group_norm" => x[0].group_norm(o.size("groups"), x.get(1), x.get(2), o.float("eps"))?,
        "batch_norm" => {
            let running = o.has("mean").then(|| (o.floats("mean"), o.floats("var")));
            let running = running.as_ref().map(|(mean, var)| (mean, var));
            x[0].batch_norm(running, x.get(1), x.get(2), o.float("eps"))?
        }
        "scaled_dot_product_attention" => {
            let mut options = o.attention();
            if let Some(bias) = x.get(3) {
                options.mask = Some(AttentionMask::Add(bias.clone()));
            }
            x[0].scaled_dot_product_attention(&x[1], &x[2], &options)?
        }
        "softmax" => x[0].softmax(o.int("dim"))?,
        "log_softmax" => x[0].log_softmax(o.int("dim"))?,
        "cross_entropy" => x[0].cross_entropy(&o.indices("target"), &o.class_options())?,
        "nll_loss" => x[0].nll_loss(&o.indices("target"), &o.class_options())?,
        _ => return Ok(None),
    }]))
}

/// Replaces every element.
fn edit(x: &mut Tensor<f64>, f: impl Fn(usize, f64) -> f64) {
    for (i, x) in x.make_mut().iter_mut().enumerate() {
        *x = f(i, *x);
    }
}

fn vector(x: Vec<f64>) -> Tensor<f64> {
    let n = x.len();
    Tensor::from_vec(x, [n]).unwrap()
}

/// Refuses two lists of tensors that differ.
fn same(what: &str, got: &[Tensor<f64>], want: &[Tensor<f64>]) -> std::result::Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} {what}s, expected {}", got.len(), want.len()));
    }
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        if let Some(text) = difference(got, want) {
            return Err(format!("{what} {i} {text}"));
        }
    }
    Ok(())
}

/// Says how `got` differs from `want`: NaN must meet NaN, ∞ the same ∞.
fn difference(got: &Tensor<f64>, want: &Tensor<f64>) -> Option<String> {
    if got.shape() != want.shape() {
        return Some(format!("has shape {:?}, expected {:?}", got.shape(), want.shape()));
    }
    let close = |g: f64, w: f64| {
        g.is_nan() && w.is_nan()
            || g == w
            || w.is_finite() && (g - w).abs() <= TOLERANCE * (1.0 + w.abs())
    };
    let (got, want) = (got.to_vec(), want.to_vec());
    let mut pairs = got.iter().zip(&want);
    pairs.any(|(&g, &w)| !close(g, w)).then(|| format!("is {got:?}, expected {want:?}"))
}

/// The gradient; zeros where no output depends on `x`.
fn gradient(grads: &Gradients<f64>, x: &Var<f64>) -> Tensor<f64> {
    match grads.wrt(x) {
        Ok(dx) => dx.clone(),
        Err(Error::NoGradient { .. }) => x.value().zeros_like(),
        Err(error) => panic!("{error}"),
    }
}

/// The same elements, dims stored in reverse.
fn stored_backwards<T: Float>(x: &Tensor<T>) -> Tensor<T> {
    let dims: Vec<isize> = (0..x.rank() as isize).rev().collect();
    x.permute(&dims).unwrap().contiguous().permute(&dims).unwrap()
}

/// A case as it is expected.
struct Case<'a> {
    op: &'a str,
    note: &'a str,
    options: Options<'a>,
    inputs: Vec<Tensor<f64>>,
    outputs: Vec<Tensor<f64>>,
    /// None for an output that has no gradient.
    upstream: Vec<Option<Tensor<f64>>>,
    grads: Vec<Tensor<f64>>,
}

impl<'a> Case<'a> {
    /// What PyTorch says.
    fn read(v: &'a Value) -> Self {
        let tensors = |name| list(v, name).iter().map(floats).collect();
        Case {
            op: v["op"].as_str().unwrap(),
            note: v.get("note").map_or("", |n| n.as_str().unwrap()),
            options: Options(&v["options"]),
            inputs: tensors("inputs"),
            outputs: tensors("outputs"),
            upstream: list(v, "upstream")
                .iter()
                .map(|u| (!u.is_null()).then(|| floats(u)))
                .collect(),
            grads: tensors("grads"),
        }
    }

    /// Puts our values in the place of PyTorch's where an operation differs on purpose. Whether there
    /// is such a difference.
    fn make_ours(&mut self) -> bool {
        let x = |i: usize| self.inputs[i].to_vec();
        let g = self.upstream[0].as_ref().map(Tensor::to_vec).unwrap_or_default();
        let dx = &mut self.grads[0];
        match (self.op, self.note) {
            // A mean of nothing is NaN, but it does not spoil the weights of a network.
            ("cross_entropy" | "nll_loss", "nothing to average") => *dx = dx.zeros_like(),
            // The sign of NaN is NaN. PyTorch: 0.
            ("sign", "special") => {
                edit(&mut self.outputs[0], |i, y| if x(0)[i].is_nan() { f64::NAN } else { y });
            }
            // The derivative at NaN is NaN. PyTorch: one of the pieces of the function.
            ("abs", "special") | ("elu" | "selu" | "celu" | "hardswish", "far") => {
                edit(dx, |i, dx| if x(0)[i].is_nan() { f64::NAN } else { dx });
            }
            // The limits. PyTorch computes NaN, from ∞·0 or ∞/∞.
            ("gelu" | "gelu_tanh" | "silu" | "mish" | "hardswish", "infinite") => {
                self.outputs[0] = vector(vec![f64::INFINITY, 0.0]);
                *dx = vector(vec![g[0], 0.0]);
            }
            ("softsign", "infinite") => {
                self.outputs[0] = vector(vec![1.0, -1.0]);
                *dx = vector(vec![0.0, 0.0]);
            }
            // NaN is outside of every interval. PyTorch lets the gradient through.
            ("hardtanh" | "relu6", "far") => {
                edit(dx, |i, dx| if x(0)[i].is_nan() { 0.0 } else { dx });
            }
            // PyTorch rounds the slope of 1/6 to f32.
            ("hardsigmoid", "" | "far" | "kinks") => {
                edit(dx, |i, _| if x(0)[i].abs() < 3.0 { g[i] / 6.0 } else { 0.0 });
            }
            // The gradient goes to the NaN. PyTorch: the gradient of the whole row is NaN.
            ("amax" | "amin", "NaN") => {
                edit(dx, |i, _| if x(0)[i].is_nan() { g[0] } else { 0.0 });
            }
            // The gradient of a length that the value does not follow is 0: `dx = g·ẑ/eps`. PyTorch:
            // not the gradient of its own value.
            ("cosine_similarity", "below eps") => {
                let (z, eps) = (x(1), self.options.float("eps"));
                let length = z[0].hypot(z[1]);
                edit(dx, |i, _| g[0] * z[i] / length / eps);
            }
            _ => return false,
        }
        true
    }

    /// What is wrong.
    fn check(&self) -> std::result::Result<(), String> {
        let o = &self.options;
        let training = o.has("training") && o.flag("training");
        let tape = if training { Tape::training(0) } else { Tape::new() };
        let x: Vec<_> = self.inputs.iter().map(|x| tape.var(x.clone())).collect();
        let ys = match run(self.op, &x, o) {
            None => return Err("is not dispatched".into()),
            Some(ys) => ys.map_err(|e| format!("fails: {e}"))?,
        };
        let values: Vec<_> = ys.iter().map(|y| y.value().clone()).collect();
        same("output", &values, &self.outputs)?;
        let seeds = ys.iter().zip(&self.upstream).filter_map(|(y, u)| Some((y, u.clone()?)));
        let (ys, us): (Vec<_>, Vec<_>) = seeds.unzip();
        let grads = backward(&ys, &us).map_err(|e| format!("backward fails: {e}"))?;
        let grads: Vec<_> = x.iter().map(|x| gradient(&grads, x)).collect();
        same("gradient", &grads, &self.grads)
    }
}

#[test]
fn every_case_agrees_with_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pytorch_ops.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    for v in list(&file, "cases") {
        let mut case = Case::read(v);
        *counts.entry(case.op).or_insert(0) += 1;
        if case.make_ours() {
            let theirs = Case::read(v);
            let agrees = same("", &case.outputs, &theirs.outputs).is_ok()
                && same("", &case.grads, &theirs.grads).is_ok();
            assert!(!agrees, "{} ({}) differs no longer", case.op, case.note);
        }
        for strided in [false, true] {
            if strided {
                case.inputs = case.inputs.iter().map(stored_backwards).collect();
            }
            if let Err(text) = case.check() {
                let Case { op, note, options, .. } = &case;
                let inputs: Vec<_> = case.inputs.iter().map(Tensor::to_vec).collect();
                let layout = if strided { "strided " } else { "" };
                wrong.push(format!("{op} ({note}) of {layout}{inputs:?}, {}: {text}", options.0));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    // So that a cut file is seen.
    assert_eq!((counts.len(), counts.values().sum::<usize>()), (165, 1092), "{counts:?}");
}

#[test]
fn the_comparison_refuses_what_differs() {
    let t = |x: &[f64]| Tensor::from_slice(x, [x.len()]).unwrap();
    let inf = f64::INFINITY;
    assert_eq!(difference(&t(&[1.0, f64::NAN, inf]), &t(&[1.0 + 1e-12, f64::NAN, inf])), None);
    for (got, want) in [
        (1.0, 1.0 + 1e-11),
        (1e-11, 0.0),
        (f64::NAN, 0.0),
        (0.0, f64::NAN),
        (inf, -inf),
        (f64::MAX, inf),
        (inf, f64::MAX),
        (1e6 + 1e-5, 1e6),
    ] {
        assert!(difference(&t(&[0.5, got]), &t(&[0.5, want])).is_some(), "{got} for {want}");
    }
    assert!(difference(&t(&[1.0]), &t(&[1.0, 1.0])).is_some());
}
