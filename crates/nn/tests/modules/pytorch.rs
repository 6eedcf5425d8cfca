//! Outputs, gradients and buffers of every module beside PyTorch's.

use std::collections::BTreeMap;

use nn::Visitor;
use nn::prelude::*;
use serde_json::Value;

use super::assert_none;
use super::build::Subject;
use super::fixture::{Case, cases, fixture, floats, formula, list, sizes};

/// Both sides do the same in f64 with some roundings in another order. The sums are of at most a few
/// hundred terms of order 1, each with an error of some 1.1e-16: 1e-12 leaves room for the norms, which
/// divide by a standard deviation.
const TOLERANCE: f64 = 1e-12;

/// How many cases each module has.
const COUNTS: &str = "\
    AvgPool1d:5 AvgPool2d:6 BatchNorm1d:17 BatchNorm2d:8 CELU:2 Conv1d:5 Conv2d:6 Dropout:1 \
    Dropout1d:1 Dropout2d:1 ELU:2 Embedding:3 Flatten:4 GELU:2 GLU:2 GRU:20 GroupNorm:6 \
    Hardshrink:2 Hardsigmoid:1 Hardswish:1 Hardtanh:2 LSTM:20 LayerNorm:5 LeakyReLU:2 \
    Linear:4 LogSigmoid:1 LogSoftmax:4 MaxPool1d:4 MaxPool2d:4 Mish:1 MultiheadAttention:21 \
    PReLU:4 RMSNorm:4 ReLU:1 ReLU6:1 SELU:1 SiLU:1 Sigmoid:1 Softmax:4 Softmin:4 Softplus:2 \
    Softshrink:2 Softsign:1 Tanh:1 Tanhshrink:1 Threshold:1 TransformerEncoder:4 \
    TransformerEncoderLayer:11";

#[test]
fn every_module_agrees() {
    let file = fixture();
    let (mut counts, mut wrong) = (BTreeMap::new(), Vec::new());
    for case in cases(&file) {
        *counts.entry(case.module()).or_insert(0) += 1;
        compare(&case, &mut wrong);
    }
    assert_none(&wrong);
    let counts: Vec<_> = counts.iter().map(|(name, n)| format!("{name}:{n}")).collect();
    assert_eq!(counts.join(" "), COUNTS);
}

/// Runs the steps of a case.
fn compare(case: &Case<'_>, wrong: &mut Vec<String>) {
    let mut subject = Subject::new(case);
    let label = case.label();
    let mut names = Vec::new();
    subject.visit(&mut Visitor::new(&mut |name: &str, _: &Parameter<f64>| {
        names.push(name.to_owned());
    }));
    assert_eq!(names, case.names(), "{label}: the order of the names");
    for (i, step) in case.steps().iter().enumerate() {
        let label = format!("{label} step {i}");
        let tape = if case.is_training() { Tape::training(0) } else { Tape::new() };
        let x: Vec<_> = case.inputs(i).into_iter().map(|x| tape.var(x)).collect();
        let outputs = subject.run(Some(&tape), &x).unwrap();
        compare_outputs(&outputs, &step["outputs"], &label, wrong);
        let mut total = tape.constant(Tensor::scalar(0.0));
        for (o, y) in outputs.iter().enumerate() {
            total = total + (y * tape.constant(case.upstream(i, o, y.shape()))).sum();
        }
        let grads = total.backward().unwrap();
        compare_gradients(case, &subject, &grads, &x, &step["gradients"], &label, wrong);
        compare_buffers(&mut subject, &grads, &step["buffers"], &label, wrong);
    }
}

fn compare_outputs(outputs: &[Var<f64>], want: &Value, label: &str, wrong: &mut Vec<String>) {
    assert_eq!(outputs.len(), list(want).len(), "{label}: number of outputs");
    for (o, (y, want)) in outputs.iter().zip(list(want)).enumerate() {
        let label = format!("{label}: output {o}");
        assert_eq!(y.shape(), sizes(&want["shape"]), "{label}");
        wrong.extend(difference(y.value(), &want["values"], &label));
    }
}

fn compare_gradients(
    case: &Case<'_>,
    subject: &Subject,
    grads: &Gradients<f64>,
    x: &[Var<f64>],
    want: &Value,
    label: &str,
    wrong: &mut Vec<String>,
) {
    let mut got: BTreeMap<String, Option<&Tensor<f64>>> = BTreeMap::new();
    for (name, x) in case.input_names().into_iter().zip(x) {
        got.insert(name.to_owned(), grads.wrt(x).ok());
    }
    for (name, parameter) in subject.named_parameters() {
        got.insert(name, grads.parameter(parameter.id()));
    }
    let want = want.as_object().unwrap();
    assert!(got.keys().eq(want.keys()), "{label}: gradients of {:?}", got.keys());
    for (name, gradient) in got {
        let label = format!("{label}: gradient of {name}");
        match gradient {
            Some(gradient) => wrong.extend(difference(gradient, &want[&name], &label)),
            None => wrong.push(format!("{label}: there is none")),
        }
    }
}

/// A step with rate 0 puts the new values of buffers in place, and leaves the parameters. A gradient
/// that is missing has been reported.
fn compare_buffers(
    subject: &mut Subject,
    grads: &Gradients<f64>,
    want: &Value,
    label: &str,
    wrong: &mut Vec<String>,
) {
    let options = SgdOptions { lr: 0.0, allow_missing: true, ..Default::default() };
    let mut sgd = Sgd::new(options).unwrap();
    sgd.step(subject, grads).unwrap();
    let (buffers, want) = (subject.named_buffers(), want.as_object().unwrap());
    assert_eq!(buffers.len(), want.len(), "{label}: number of buffers");
    for (name, buffer) in buffers {
        let label = format!("{label}: {name} afterwards");
        wrong.extend(difference(buffer.value(), &want[&name], &label));
    }
}

/// What is wrong with these numbers.
fn difference(got: &Tensor<f64>, want: &Value, label: &str) -> Option<String> {
    let (got, want) = (got.to_vec(), floats(want));
    if got.len() != want.len() {
        return Some(format!("{label}: {} numbers, PyTorch {}", got.len(), want.len()));
    }
    let far = |g: f64, w: f64| g.is_nan() || (g - w).abs() > TOLERANCE * w.abs().max(1.0);
    let (i, (g, w)) = got.iter().zip(&want).enumerate().find(|(_, (g, w))| far(**g, **w))?;
    let count = got.iter().zip(&want).filter(|(g, w)| far(**g, **w)).count();
    Some(format!("{label}: element {i}: {g}, PyTorch {w} ({count} of {} differ)", got.len()))
}

#[test]
fn without_a_tape_the_outputs_are_the_same_bits() {
    let file = fixture();
    let bits = |outputs: Vec<Var<f64>>| -> Vec<u64> {
        outputs.iter().flat_map(|y| y.value().to_vec()).map(f64::to_bits).collect()
    };
    let mut wrong = Vec::new();
    for case in cases(&file).filter(|case| !case.module().starts_with("BatchNorm")) {
        let subject = Subject::new(&case);
        let tape = Tape::new();
        let recorded: Vec<_> = case.inputs(0).into_iter().map(|x| tape.var(x)).collect();
        let free: Vec<_> = case.inputs(0).into_iter().map(Var::constant).collect();
        let free = subject.run(None, &free).unwrap();
        assert!(free.iter().all(|y| y.tape().is_none()));
        if bits(free) != bits(subject.run(Some(&tape), &recorded).unwrap()) {
            wrong.push(case.label());
        }
    }
    assert_none(&wrong);
}

#[test]
fn a_difference_is_seen() {
    let got = formula(0, &[3], 1024.0, 0.0);
    let exact = got.to_vec();
    assert_eq!(difference(&got, &exact.clone().into(), "x"), None);
    for (factor, seen) in [(1e-13, false), (3e-12, true), (f64::NAN, true)] {
        let mut moved = exact.clone();
        moved[2] += factor;
        let moved = Tensor::from_vec(moved, [3]).unwrap();
        assert_eq!(difference(&moved, &exact.clone().into(), "x").is_some(), seen, "{factor}");
    }
    assert!(difference(&got, &exact[..2].into(), "x").is_some());
}
