//! The loss family: every combination of options against the definitions, edge cases one by one,
//! accuracy on families of inputs, properties, and the same bits on any path and number of threads.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accuracy;
mod bits;
mod cross_product;
mod edge_cases;
mod neighbours;
mod properties;

use autograd::{BatchWeights, ClassOptions};
use nn::prelude::*;

#[test]
fn the_docs_quote_the_reference_as_it_is() {
    let file = |path: &str| {
        std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let (docs, source) = (file("../../docs/LOSSES.md"), file("src/reference.rs"));
    let blocks = docs.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
    let quotes: Vec<&str> = blocks.filter(|b| b.trim_start().starts_with("pub fn")).collect();
    assert_eq!(quotes.len(), 2);
    assert!(quotes.iter().all(|quote| source.contains(quote)), "{quotes:#?}");
}

/// Unit roundoff.
fn roundoff<T: Float>() -> f64 {
    if size_of::<T>() == 4 { 2.0_f64.powi(-24) } else { 2.0_f64.powi(-53) }
}

fn tensor<T: Float>(values: &[f64], shape: &[usize]) -> Tensor<T> {
    Tensor::from_vec(values.iter().map(|&v| T::from_f64(v)).collect(), shape).unwrap()
}

fn floats<T: Float>(x: &Tensor<T>) -> Vec<f64> {
    x.to_vec().into_iter().map(T::to_f64).collect()
}

fn classes(values: &[i64], shape: &[usize]) -> Tensor<i64> {
    Tensor::from_slice(values, shape).unwrap()
}

/// Options in another type.
fn cast<T: Float>(options: &ClassOptions<f64>) -> ClassOptions<T> {
    ClassOptions {
        weight: options.weight.as_ref().map(Tensor::cast::<T>),
        ignore_index: options.ignore_index,
        reduction: options.reduction,
        label_smoothing: options.label_smoothing,
        smooth_over_finite: options.smooth_over_finite,
        z_loss: options.z_loss,
        empty_mean: options.empty_mean,
    }
}

/// Value and gradient of a loss with class indices, under the upstream gradient 1.
fn of_classes<T: Float>(
    x: &Tensor<T>,
    target: &Tensor<i64>,
    options: &ClassOptions<T>,
) -> (Vec<f64>, Vec<f64>) {
    let x = Tape::new().var(x.clone());
    let loss = x.cross_entropy(target, options).unwrap();
    let value = floats(loss.value());
    let ones = loss.value().ones_like();
    let grads = loss.backward_with(&ones).unwrap();
    (value, floats(grads.wrt(&x).unwrap()))
}

/// The same with probabilities; the gradient in them, too.
fn of_probabilities<T: Float>(
    x: &Tensor<T>,
    q: &Tensor<T>,
    options: &ClassOptions<T>,
) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let tape = Tape::new();
    let (x, q) = (tape.var(x.clone()), tape.var(q.clone()));
    let loss = x.cross_entropy(&q, options).unwrap();
    let value = floats(loss.value());
    let ones = loss.value().ones_like();
    let grads = loss.backward_with(&ones).unwrap();
    (value, floats(grads.wrt(&x).unwrap()), floats(grads.wrt(&q).unwrap()))
}

/// Standard normal numbers that are exact in f32.
fn normal(n: usize, seed: u64) -> Vec<f64> {
    let x = Tensor::<f32>::randn([n], &mut Generator::new(seed)).unwrap();
    x.to_vec().into_iter().map(f64::from).collect()
}

fn weights<'a, T: Float>(row: &'a Tensor<T>) -> BatchWeights<'a, T> {
    BatchWeights { row: Some(row), class: None }
}
