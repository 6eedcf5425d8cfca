//! Values and gradients of the loss family against PyTorch, in f64.
//!
//! The cases come from `data/make_pytorch_losses.py`; each has random inputs and a random upstream
//! gradient.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use approx::relative_eq;
use nn::prelude::*;
use serde_json::Value;

/// Both sides round in f64 along different ways: errors of some 1e-15 of the largest terms.
const RELATIVE: f64 = 1e-12;
/// Entries far below the largest of their tensor are differences of larger numbers.
const FLOOR: f64 = 1e-3;

fn number(v: &Value) -> f64 {
    match v.as_str() {
        Some("nan") => f64::NAN,
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        Some(other) => panic!("{other} is no number"),
        None => v.as_f64().unwrap(),
    }
}

fn shape(v: &Value) -> Vec<usize> {
    v["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn floats(v: &Value) -> Tensor<f64> {
    let data = v["data"].as_array().unwrap().iter().map(number).collect();
    Tensor::from_vec(data, shape(v)).unwrap()
}

fn integers(v: &Value) -> Tensor<i64> {
    let data = v["data"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
    Tensor::from_vec(data, shape(v)).unwrap()
}

fn reduction(case: &Value) -> Reduction {
    match case["options"]["reduction"].as_str().unwrap() {
        "none" => Reduction::None,
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        other => panic!("reduction {other}"),
    }
}

fn options(case: &Value) -> CrossEntropyOptions<f64> {
    let o = &case["options"];
    CrossEntropyOptions {
        weight: case["inputs"].get("weight").map(floats),
        ignore_index: Some(o["ignore_index"].as_i64().unwrap()),
        reduction: reduction(case),
        label_smoothing: o["label_smoothing"].as_f64().unwrap_or(0.0),
        ..Default::default()
    }
}

fn assert_close(name: &str, what: &str, got: &Tensor<f64>, want: &Tensor<f64>) {
    assert_eq!(got.shape(), want.shape(), "{what} of {name}");
    let want = want.to_vec();
    let largest = want.iter().filter(|w| w.is_finite()).fold(0.0, |a: f64, b| a.max(b.abs()));
    for (i, (g, w)) in got.to_vec().into_iter().zip(want).enumerate() {
        let epsilon = RELATIVE * FLOOR * largest;
        let same = g.is_nan() && w.is_nan()
            || g == w
            || (g - w).abs() <= RELATIVE * w.abs()
            || relative_eq!(g, w, epsilon = epsilon, max_relative = 0.0);
        assert!(same, "{what} of {name} at {i}: {g:e}, PyTorch {w:e}");
    }
}

/// Value and gradient of `f` at the input called `input`.
fn check(case: &Value, input: &str, f: impl Fn(&Var<f64>) -> Result<Var<f64>>) {
    let name = case["name"].as_str().unwrap();
    let tape = Tape::new();
    let x = tape.var(floats(&case["inputs"][input]));
    let y = f(&x).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_close(name, "value", y.value(), &floats(&case["output"]));
    let grads = y.backward_with(&floats(&case["grad_output"])).unwrap();
    assert_close(name, "gradient", grads.wrt(&x).unwrap(), &floats(&case["grads"][input]));
}

#[test]
fn every_case_agrees_with_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pytorch_losses.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for case in file["cases"].as_array().unwrap() {
        let op = case["op"].as_str().unwrap();
        match op {
            "cross_entropy" if case["inputs"]["target"]["dtype"] == "f64" => {
                let loss = CrossEntropyLoss::new(options(case)).unwrap();
                let (x, q) = (floats(&case["inputs"]["logits"]), floats(&case["inputs"]["target"]));
                check(case, "logits", |x| loss.forward(x, &q));
                check(case, "target", |q| loss.forward(&Var::constant(x.clone()), q));
            }
            "cross_entropy" => {
                let target = integers(&case["inputs"]["target"]);
                let fused = CrossEntropyLoss::new(options(case)).unwrap();
                check(case, "logits", |x| fused.forward(x, &target));
                let composed = NLLLoss::new(options(case)).unwrap();
                let dim = |x: &Var<f64>| if x.shape().len() == 1 { 0 } else { 1 };
                check(case, "logits", |x| {
                    composed.forward(&LogSoftmax::new(dim(x)).forward(x)?, &target)
                });
                // Through a copy, so that nothing is fused.
                check(case, "logits", |x| {
                    composed.forward(&(x.log_softmax(dim(x))? * 1.0), &target)
                });
            }
            "nll_loss" => {
                let target = integers(&case["inputs"]["target"]);
                let loss = NLLLoss::new(options(case)).unwrap();
                check(case, "log_probs", |x| loss.forward(x, &target));
            }
            "log_softmax" | "softmax" => {
                let dim = case["options"]["dim"].as_i64().unwrap() as isize;
                let f = |x: &Var<f64>| {
                    if op == "softmax" { x.softmax(dim) } else { x.log_softmax(dim) }
                };
                if case["options"].get("transpose").is_some() {
                    check(case, "x_before_transpose", |x| f(&x.transpose(0, 1)?));
                } else {
                    check(case, "x", f);
                }
            }
            "binary_cross_entropy_with_logits" => {
                let loss = BCEWithLogitsLoss::new(BinaryOptions {
                    pos_weight: case["inputs"].get("pos_weight").map(floats),
                    reduction: reduction(case),
                    ..Default::default()
                })
                .unwrap();
                let t = floats(&case["inputs"]["target"]);
                check(case, "x", |x| loss.forward(x, &t));
            }
            "kl_div" => {
                let loss = KLDivLoss {
                    log_target: case["options"]["log_target"].as_bool().unwrap_or(false),
                    reduction: match case["options"]["reduction"].as_str().unwrap() {
                        "none" => KlReduction::None,
                        "batchmean" => KlReduction::BatchMean,
                        "mean" => KlReduction::Mean,
                        "sum" => KlReduction::Sum,
                        other => panic!("reduction {other}"),
                    },
                };
                let t = floats(&case["inputs"]["target"]);
                check(case, "input", |x| loss.forward(x, &t));
            }
            "mse_loss" | "l1_loss" | "smooth_l1_loss" | "huber_loss" => {
                let number = |name: &str| case["options"][name].as_f64().unwrap();
                let r = reduction(case);
                let loss: Box<dyn RegressionLoss<f64>> = match op {
                    "mse_loss" => Box::new(MSELoss::new(r).unwrap()),
                    "l1_loss" => Box::new(L1Loss::new(r).unwrap()),
                    "smooth_l1_loss" => Box::new(SmoothL1Loss::new(number("beta"), r).unwrap()),
                    _ => Box::new(HuberLoss::new(number("delta"), r).unwrap()),
                };
                let constant = |name: &str| Var::constant(floats(&case["inputs"][name]));
                let (x, t) = (constant("input"), constant("target"));
                check(case, "input", |x| loss.apply(x, &t));
                check(case, "target", |t| loss.apply(&x, t));
            }
            other => panic!("{other} is no loss known here"),
        }
        *counts.entry(op).or_insert(0) += 1;
    }
    let expected = [
        ("binary_cross_entropy_with_logits", 6),
        ("cross_entropy", 252),
        ("huber_loss", 3),
        ("kl_div", 8),
        ("l1_loss", 3),
        ("log_softmax", 25),
        ("mse_loss", 3),
        ("nll_loss", 30),
        ("smooth_l1_loss", 3),
        ("softmax", 25),
    ];
    assert_eq!(counts.values().sum::<i32>(), 358);
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
}
