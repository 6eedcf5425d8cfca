//! Values and gradients of the operations against PyTorch, in f64.
//!
//! The cases and the version of PyTorch stand in `fixtures/pytorch_ops.json`, which
//! `fixtures/make_pytorch_ops.py` writes; each has a random upstream gradient. Second derivatives are
//! the affair of the gradient suite.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use autograd::{
    ClassOptions, Error, Float, Gradients, Reduction, Result, Tape, Tensor, Var, backward,
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

fn decode<T: autograd::Element>(v: &Value, element: impl Fn(&Value) -> T) -> Tensor<T> {
    let shape: Vec<usize> =
        v["shape"].as_array().unwrap().iter().map(|n| integer(n) as usize).collect();
    Tensor::from_vec(v["data"].as_array().unwrap().iter().map(element).collect(), shape).unwrap()
}

fn floats(v: &Value) -> Tensor<f64> {
    decode(v, number)
}

fn list<'a>(case: &'a Value, name: &str) -> &'a [Value] {
    case[name].as_array().unwrap()
}

type Outputs = Vec<Var<f64>>;

/// The operation called `op`. Results without a gradient, such as indices, are constants.
fn run(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Option<Result<Outputs>> {
    [unary, two_operands, views, reductions, linear_algebra, networks]
        .into_iter()
        .find_map(|theme| theme(op, x, o).transpose())
}

fn unary(op: &str, x: &[Var<f64>], _: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &x[0];
    Ok(Some(vec![match op {
        "exp" => x.exp(),
        "log" => x.log(),
        "tanh" => x.tanh(),
        "sigmoid" => x.sigmoid(),
        "relu" => x.relu(),
        _ => return Ok(None),
    }]))
}

fn two_operands(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    Ok(Some(vec![match op {
        "add" => &x[0] + &x[1],
        "sub" => &x[0] - &x[1],
        "mul" => &x[0] * &x[1],
        "div" => &x[0] / &x[1],
        "neg" => -&x[0],
        "add_scalar" => &x[0] + o.float("scalar"),
        "sub_scalar" => &x[0] - o.float("scalar"),
        "mul_scalar" => &x[0] * o.float("scalar"),
        "div_scalar" => &x[0] / o.float("scalar"),
        _ => return Ok(None),
    }]))
}

fn views(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &x[0];
    Ok(Some(match op {
        "reshape" => vec![x.reshape(o.sizes("shape"))?],
        "transpose" => vec![x.transpose(o.int("dim0"), o.int("dim1"))?],
        "permute" => vec![x.permute(&o.ints("dims"))?],
        "expand" => vec![x.expand(o.sizes("shape"))?],
        "squeeze" => vec![x.squeeze(o.int("dim"))?],
        "unsqueeze" => vec![x.unsqueeze(o.int("dim"))?],
        _ => return Ok(None),
    }))
}

fn reductions(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    let x = &x[0];
    let dims = || o.ints("dims");
    let keepdim = || o.flag("keepdim");
    Ok(Some(match op {
        "sum" => vec![x.sum()],
        "mean" => vec![x.mean()],
        "sum_dim" => vec![x.sum_dim(&dims(), keepdim())?],
        "mean_dim" => vec![x.mean_dim(&dims(), keepdim())?],
        _ => return Ok(None),
    }))
}

fn linear_algebra(op: &str, x: &[Var<f64>], _: &Options<'_>) -> Result<Option<Outputs>> {
    Ok(Some(vec![match op {
        "matmul" => x[0].matmul(&x[1])?,
        "linear" => x[0].linear(&x[1], x.get(2))?,
        _ => return Ok(None),
    }]))
}

fn networks(op: &str, x: &[Var<f64>], o: &Options<'_>) -> Result<Option<Outputs>> {
    Ok(Some(vec![match op {
        "softmax" => x[0].softmax(o.int("dim"))?,
        "log_softmax" => x[0].log_softmax(o.int("dim"))?,
        "cross_entropy" => x[0].cross_entropy(&o.indices("target"), &o.class_options())?,
        "nll_loss" => x[0].nll_loss(&o.indices("target"), &o.class_options())?,
        _ => return Ok(None),
    }]))
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

    /// Puts our values in the place of PyTorch's where an operation differs on purpose, and says so
    /// in its documentation. Whether there is such a difference.
    fn make_ours(&mut self) -> bool {
        match (self.op, self.note) {
            // A mean of nothing is NaN, but it does not spoil the weights of a network.
            ("cross_entropy" | "nll_loss", "nothing to average") => {
                self.grads[0] = self.grads[0].zeros_like();
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

/// Operations of the file that this crate does not have.
const ABSENT: &[&str] = &[
    "abs",
    "acos",
    "acosh",
    "addmm",
    "amax",
    "amax_dim",
    "amin",
    "amin_dim",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "bmm",
    "cat",
    "ceil",
    "celu",
    "chunk",
    "clamp",
    "clamp_max",
    "clamp_max_var",
    "clamp_min",
    "clamp_min_var",
    "clamp_var",
    "conv1d",
    "conv2d",
    "cos",
    "cosh",
    "cosine_similarity",
    "cumprod",
    "cumsum",
    "diagonal",
    "dot",
    "dropout",
    "einsum",
    "elu",
    "embedding",
    "erf",
    "exp2",
    "expm1",
    "flatten",
    "flip",
    "floor",
    "gather",
    "gelu",
    "gelu_tanh",
    "glu",
    "group_norm",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hypot",
    "index_select",
    "layer_norm",
    "leaky_relu",
    "lerp",
    "lerp_var",
    "log10",
    "log1p",
    "log2",
    "logcumsumexp",
    "logsigmoid",
    "logsumexp",
    "logsumexp_dim",
    "masked_fill",
    "masked_select",
    "max",
    "max_dim",
    "max_pool1d",
    "max_pool2d",
    "maximum",
    "min",
    "min_dim",
    "minimum",
    "mish",
    "mv",
    "narrow",
    "norm",
    "norm_dim",
    "normalize",
    "outer",
    "pad",
    "pow",
    "pow_var",
    "prelu",
    "prod",
    "prod_dim",
    "reciprocal",
    "relu6",
    "remainder",
    "repeat",
    "rms_norm",
    "roll",
    "round",
    "rsqrt",
    "scaled_dot_product_attention",
    "scatter",
    "scatter_add",
    "select",
    "selu",
    "sign",
    "silu",
    "sin",
    "sinh",
    "slice",
    "softplus",
    "softshrink",
    "softsign",
    "sort",
    "split",
    "split_with_sizes",
    "sqrt",
    "square",
    "stack",
    "std",
    "std_dim",
    "tan",
    "tanhshrink",
    "tile",
    "topk",
    "trace",
    "tril",
    "triu",
    "trunc",
    "unfold",
    "var",
    "var_dim",
    "where_cond",
];

#[test]
fn every_case_agrees_with_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/pytorch_ops.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    for v in list(&file, "cases") {
        let mut case = Case::read(v);
        if ABSENT.contains(&case.op) {
            assert_eq!(case.check(), Err("is not dispatched".into()), "{}", case.op);
            continue;
        }
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
    println!("{} operations as PyTorch {}: {counts:?}", counts.len(), file["torch"]);
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
