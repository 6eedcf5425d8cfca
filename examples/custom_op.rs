//! An operation of one's own, and how to check it: a formula, an operation recorded with its
//! backward, one that is wrong on purpose, and a model with all its parameters.
//!
//! `cargo run --release --example custom_op` exits with 0 when exactly the operation that is wrong
//! on purpose is found wrong.

use std::process::ExitCode;

use clap::Parser;
use nn::autograd::{GradcheckReport, Save, record};
use nn::prelude::*;

/// Check gradients of your own formulas, operations and models.
#[derive(Parser)]
#[command(name = "custom_op", max_term_width = 100)]
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
            eprintln!("custom_op: {error}");
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
    println!("   Input: 0 = logits [2, 5]. First and second derivatives.");
    let logits = [randn(&[2, 5])?];
    let right = gradcheck(|v| softmax(&v[0]), &logits, &options)?;
    show(&right);
    let second = gradgradcheck(|v| softmax(&v[0]), &logits, &options)?;
    show(&second);

    println!(
        "3. WRONG ON PURPOSE: the same softmax, but its backward forgets the sum over the row."
    );
    println!("   gradcheck should say FAILED below, and in which elements.");
    let wrong = gradcheck(|v| forgetful_softmax(&v[0]), &logits, &options)?;
    show(&wrong);

    println!("4. A backward on plain values: first derivatives only, and a named error beyond.");
    let plain = gradcheck(|v| plain_square(&v[0]), &logits, &options)?;
    show(&plain);
    let beyond = gradgradcheck(|v| plain_square(&v[0]), &logits, &options);
    let stops = matches!(beyond, Err(Error::HighestOrder { .. }));
    println!("   | {}\n", beyond.map_or_else(|e| e.to_string(), |r| r.to_string()));

    println!("5. A model and its loss: Linear-Tanh-Linear, cross entropy with label smoothing.");
    println!("   Inputs: features of the batch [6, 4], and every parameter of the model.");
    let features = randn(&[6, 4])?;
    let mut model = Sequential::<f64>::new()
        .append(Linear::new(4, 8, &mut rng)?)
        .append(Tanh::new())
        .append(Linear::new(8, 3, &mut rng)?);
    let targets = Tensor::randint(0, 3, [6], &mut rng)?;
    let smooth = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
    let criterion = CrossEntropyLoss::new(smooth)?;
    let loss = |m: &Sequential<f64>, _: &Tape<f64>, x: &[Var<f64>]| {
        criterion.forward(&m.forward(&x[0])?, &targets)
    };
    let through_model = gradcheck_module(&mut model, &[features], loss, &options)?;
    show(&through_model);

    let all_right = [formula, right, second, plain, through_model].iter().all(|r| r.passed());
    Ok(all_right && !wrong.passed() && stops)
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

/// `y = x²` whose backward computes on plain values, which have no derivative of their own.
fn plain_square(x: &Var<f64>) -> Result<Var<f64>> {
    let (y, slope) = (x.value().square(), x.value() * 2.0);
    record("plain_square", [x.node()], [], y, move |_, g, sink| {
        sink.add_value(0, g.value() * &slope)
    })
}

/// Without the shift by the maximum that keeps the library's own softmax from overflowing.
fn softmax_value(x: &Var<f64>) -> Result<Tensor<f64>> {
    let e = x.detach().exp();
    Ok((&e / &e.sum_dim(&[-1], true)?).into_value())
}
