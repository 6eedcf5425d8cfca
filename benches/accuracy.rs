//! The largest errors of the `f32` functions over all 2³² arguments, as rows of the table in
//! docs/NUMERICS.md. Not a measurement of time, and not part of a plain `cargo bench`.
//!
//! `cargo bench -p benches --bench accuracy` takes some ten minutes of two cores; `-- exp sin` after
//! it chooses functions, `TENSOR_ISA` instructions, `RAYON_NUM_THREADS` threads. The reference is the
//! standard library in `f64` (`libm` for `erf` and `gelu`), whose own error is below 1e-8 of an `f32`'s ulp.

use nn::prelude::Var;
use rayon::prelude::*;
use tensor::Tensor;

const CHUNK: u32 = 1 << 20;
/// Beyond this `sin` and `cos` are the standard library's.
const VECTORISED: f32 = 1e4;

struct Function {
    name: &'static str,
    vectorised: fn(&Tensor<f32>) -> Tensor<f32>,
    exact: fn(f64) -> f64,
    up_to: f32,
}

const FUNCTIONS: [Function; 10] = {
    const fn row(
        name: &'static str,
        vectorised: fn(&Tensor<f32>) -> Tensor<f32>,
        exact: fn(f64) -> f64,
        up_to: f32,
    ) -> Function {
        Function { name, vectorised, exact, up_to }
    }
    [
        row("exp", Tensor::exp, f64::exp, f32::INFINITY),
        row("log", Tensor::log, f64::ln, f32::INFINITY),
        row("tanh", Tensor::tanh, f64::tanh, f32::INFINITY),
        row("sigmoid", Tensor::sigmoid, sigmoid, f32::INFINITY),
        row("erf", Tensor::erf, libm::erf, f32::INFINITY),
        row("gelu", gelu, exact_gelu, f32::INFINITY),
        row("expm1", Tensor::expm1, f64::exp_m1, f32::INFINITY),
        row("log1p", Tensor::log1p, f64::ln_1p, f32::INFINITY),
        row("sin", Tensor::sin, f64::sin, VECTORISED),
        row("cos", Tensor::cos, f64::cos, VECTORISED),
    ]
};

fn main() {
    let chosen: Vec<_> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    println!("| function | worst, ulp | at | instructions |\n|---|---|---|---|");
    for function in &FUNCTIONS {
        if chosen.is_empty() || chosen.iter().any(|c| c == function.name) {
            let (worst, at) = (0..u32::MAX / CHUNK + 1)
                .into_par_iter()
                .map(|chunk| worst_of_chunk(function, chunk * CHUNK))
                .reduce(|| (0.0, 0.0), worse);
            let isa = tensor::kernels::isa();
            println!("| `{}` | {worst:.4} | {at:e} | {isa:?} |", function.name);
        }
    }
}

/// The largest error over the [`CHUNK`] arguments from these bits on, and where it is.
fn worst_of_chunk(function: &Function, start: u32) -> (f64, f32) {
    let x: Vec<f32> = (0..CHUNK)
        .map(|i| f32::from_bits(start + i))
        .filter(|x| x.abs() <= function.up_to || x.is_nan())
        .collect();
    let length = x.len();
    let x = Tensor::from_vec(x, [length]).expect("a shape that fits");
    let y = (function.vectorised)(&x);
    let (x, y) = (x.to_vec(), y.to_vec());
    x.iter()
        .zip(y)
        .map(|(&x, y)| (error(y, (function.exact)(f64::from(x))), x))
        .fold((0.0, 0.0), worse)
}

fn worse(a: (f64, f32), b: (f64, f32)) -> (f64, f32) {
    if b.0 > a.0 { b } else { a }
}

/// The distance of `got` from `want` in units of the last place of `want`.
fn error(got: f32, want: f64) -> f64 {
    if want.is_nan() || got.is_nan() {
        return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    // What rounds to infinity has an infinite neighbour.
    if got.is_infinite() || (want as f32).is_infinite() {
        return if got == want as f32 { 0.0 } else { f64::INFINITY };
    }
    let exponent = (want.abs().to_bits() >> 52).max(1023 - 126) - 23;
    (f64::from(got) - want).abs() / f64::from_bits(exponent << 52)
}

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn gelu(x: &Tensor<f32>) -> Tensor<f32> {
    Var::constant(x.clone()).gelu().value().clone()
}

fn exact_gelu(x: f64) -> f64 {
    let y = 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    if x == f64::NEG_INFINITY { -0.0 } else { y }
}
