//! How many instructions the hot kernels take, held to limits some hundredths above what was counted
//! when they were set. Valgrind hides AVX-512, so it is the AVX2 path that is counted.

use std::hint::black_box;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use nn::prelude::*;
use tensor::kernels::softmax::{ClassTargets, cross_entropy_with_gradient, log_softmax, softmax};

/// One thread, and at most so many instructions.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    LibraryBenchmarkConfig::default()
        .env("RAYON_NUM_THREADS", "1")
        .tool(Callgrind::default().hard_limits([(EventKind::Ir, instructions)]))
        .clone()
}

fn randn(shape: [usize; 2]) -> Tensor<f32> {
    Tensor::randn(shape, &mut Generator::new(0)).expect("a small shape")
}

/// What `f` needs, after a first call: blocks are then recycled, and the processor is known.
fn warm<A: Clone, B>(input: A, f: fn(A) -> B) -> A {
    drop(black_box(f(input.clone())));
    input
}

fn losses(x: Tensor<f32>) -> Tensor<f32> {
    let classes: Vec<i64> = (0..x.shape()[0] as i64).map(|row| row % x.shape()[1] as i64).collect();
    let targets =
        ClassTargets { classes: &classes, weight: None, label_smoothing: 0.1, predictions: false };
    cross_entropy_with_gradient(&x, 1, targets, |_, _| (0.01, 0.0)).1
}

#[library_benchmark]
#[bench::few_classes(args = (warm(randn([64, 10]), losses)), config = at_most(55_000))]
#[bench::many_classes(args = (warm(randn([16, 1000]), losses)), config = at_most(161_500))]
fn cross_entropy(x: Tensor<f32>) -> Tensor<f32> {
    losses(x)
}

fn p(x: Tensor<f32>) -> Tensor<f32> {
    softmax(&x, 1)
}

fn log_p(x: Tensor<f32>) -> Tensor<f32> {
    log_softmax(&x, 1).0
}

fn exp(x: Tensor<f32>) -> Tensor<f32> {
    x.exp()
}

fn normal(x: Tensor<f32>) -> Var<f32> {
    Var::constant(x).layer_norm(&[1000], None, None, 1e-5).expect("shapes that fit")
}

#[library_benchmark]
#[bench::softmax(args = (warm(randn([16, 1000]), p), p), config = at_most(142_500))]
#[bench::log_softmax(args = (warm(randn([16, 1000]), log_p), log_p), config = at_most(139_000))]
#[bench::exp(args = (warm(randn([16, 1000]), exp), exp), config = at_most(65_200))]
fn rows(x: Tensor<f32>, f: fn(Tensor<f32>) -> Tensor<f32>) -> Tensor<f32> {
    f(x)
}

#[library_benchmark]
#[bench::rows_of_1000(args = (warm(randn([16, 1000]), normal)), config = at_most(67_600))]
fn layer_norm(x: Tensor<f32>) -> Var<f32> {
    normal(x)
}

/// Forward and backward through a chain of 100 operations on one element.
fn chain((tape, one): (Tape<f32>, Var<f32>)) -> Gradients<f32> {
    let mut y = tape.var(one.value().clone());
    for _ in 0..50 {
        y = (&y + &one) * &one;
    }
    y.backward().expect("one tracked number")
}

fn number() -> (Tape<f32>, Var<f32>) {
    let tape = Tape::new();
    let one = tape.constant(Tensor::ones([1]).expect("a small shape"));
    (tape, one)
}

#[library_benchmark]
#[bench::chain_of_100(args = (warm(number(), chain)), config = at_most(202_000))]
fn record(input: (Tape<f32>, Var<f32>)) -> Gradients<f32> {
    chain(input)
}

library_benchmark_group!(name = kernels, benchmarks = [cross_entropy, rows, layer_norm, record]);
main!(library_benchmark_groups = kernels);
