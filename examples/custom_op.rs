//! Checks gradients against difference quotients: of a formula, of operations with a backward of
//! one's own, and of a model.
//!
//! `cargo run --release --example gradcheck` exits with 0 when exactly the operation that is wrong
//! on purpose is found wrong.

use std::process::ExitCode;

use clap::Parser;
use nn::autograd::{GradcheckReport, Save, record};
use nn::prelude::*;

/// Check gradients of your own formulas, operations and models.
#[derive(Parser)]
#[command(name = "gradcheck", max_term_width = 100)]
struct Args {
    /// Decides the inputs, the weights and the upstream gradient.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(Args::parse().seed) {
        Ok(true) => {
            println!("As expected: the right gradients passed, and the wrong one was found.");
            ExitCode::SUCCESS
        }
        Ok(false) => {
            println!("NOT as expected: a right gradient failed, or the wrong one passed.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("gradcheck: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether exactly the wrong backward was found wrong.
fn run(seed: u64) -> Result<bool> {
    let mut rng = Generator::with_stream(seed, 1);
    // Other tolerances, or another step, are fields of the options too.
    let options = GradcheckOptions { seed, ..Default::default() };
    println!("Each derivative that backward computes (\"analytic\") is compared with a difference");
    println!("quotient of the function itself (\"numeric\"), all in f64. Seed {seed}.\n");

    println!("1. A formula of Var operations: the negative log-likelihood of a Gaussian.");
    println!("   Inputs: 0 = x [4, 3], 1 = mean [3], 2 = log of the deviation [3].");
    let mut randn = |shape: &[usize]| Tensor::<f64>::randn(shape, &mut rng);
    let inputs = [randn(&[4, 3])?, randn(&[3])?, randn(&[3])?];
    let formula = gradcheck(|v| Ok(gaussian_nll(&v[0], &v[1], &v[2])), &inputs, &options)?;
    show(&formula);

    println!("2. An operation recorded with its own backward: softmax over rows.");
    println!("   Input: 0 = logits [2, 5].");
    let logits = randn(&[2, 5])?;
    let right = gradcheck(|v| softmax(&v[0]), std::slice::from_ref(&logits), &options)?;
    show(&right);

    println!(
        "3. WRONG ON PURPOSE: the same softmax, but its backward forgets the sum over the row."
    );
    println!("   gradcheck should say FAILED below, and in which elements.");
    let wrong = gradcheck(|v| forgetful_softmax(&v[0]), &[logits], &options)?;
    show(&wrong);

    println!("4. A model and its loss: Linear-Tanh-Linear, cross entropy with label smoothing.");
    println!("   Input: 0 = features of the batch [6, 4].");
    let features = randn(&[6, 4])?;
    let model = Sequential::<f64>::new()
        .append(Linear::new(4, 8, &mut rng)?)
        .append(Tanh::new())
        .append(Linear::new(8, 3, &mut rng)?);
    let targets = Tensor::randint(0, 3, [6], &mut rng)?;
    let smooth = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
    let criterion = CrossEntropyLoss::new(smooth)?;
    let loss = |v: &[Var<f64>]| criterion.forward(&model.forward(&v[0])?, &targets);
    let through_model = gradcheck(loss, &[features], &options)?;
    show(&through_model);

    Ok(formula.passed() && right.passed() && !wrong.passed() && through_model.passed())
}

/// The report, set off from the sentences around it.
fn show(report: &GradcheckReport) {
    report.to_string().lines().for_each(|line| println!("   | {line}"));
    println!();
}

/// `mean(½·((x − μ)/σ)² + ln σ)`, from `s = ln σ`; the constant ½·ln 2π is left out.
fn gaussian_nll(x: &Var<f64>, mean: &Var<f64>, s: &Var<f64>) -> Var<f64> {
    let z = (x - mean) * (-s).exp();
    (&z * &z * 0.5 + s).mean()
}

/// `y = softmax(x)` over rows: `dx = y·(g − Σ g·y)`. Saves the output.
fn softmax(x: &Var<f64>) -> Result<Var<f64>> {
    record("my_softmax", [x.node()], [Save::Output], softmax_value(x)?, |ctx, g, sink| {
        let y = ctx.saved(0);
        let mean = (&g * &y).sum_dim(&[-1], true)?;
        sink.add(0, (g - mean) * y)
    })
}

/// The same value with `dx = y·g`: wrong, because each output depends on every input of its row.
fn forgetful_softmax(x: &Var<f64>) -> Result<Var<f64>> {
    record("forgetful_softmax", [x.node()], [Save::Output], softmax_value(x)?, |ctx, g, sink| {
        sink.add(0, g * ctx.saved(0))
    })
}

/// Without the shift by the maximum that keeps the library's own softmax from overflowing.
fn softmax_value(x: &Var<f64>) -> Result<Tensor<f64>> {
    let e = x.detach().exp();
    Ok((&e / &e.sum_dim(&[-1], true)?).into_value())
}
