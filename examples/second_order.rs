//! Newton's method with Hessian-vector products: the Hessian is never made, only multiplied with.
//!
//! Logistic regression on the digits, in f64: 650 parameters, a convex loss. Each step solves `H·d = −g` by
//! conjugate gradients, each of whose iterations is one product, and one product costs a few gradients. In the
//! end the gradient shrinks by its own size at every step, to the last digits; gradient descent beside it gets
//! as many passes over the data. Pearlmutter, Neural Computation 6 (1994); Martens, ICML 2010.
//! `cargo run --release --example second_order`; `--help` lists the options.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::autograd::transforms::{hvp, value_and_grad};
use nn::data::read_csv;
use nn::prelude::*;

/// Newton's method with Hessian-vector products, beside gradient descent.
#[derive(Parser)]
#[command(name = "second_order", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Steps of Newton's method at most.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// The factor of ½|w|² in the loss.
    #[arg(long, default_value_t = 1e-3)]
    decay: f64,
    /// The gradient's norm at which it ends.
    #[arg(long, default_value_t = 1e-12)]
    tolerance: f64,
    /// Decides the split into training and test rows.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

type Vector = Vec<Var<f64>>;

/// Set by Ctrl-C: what was reached so far is reported.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// The loss, and how often the data were passed.
struct Problem {
    x: Tensor<f64>,
    y: Tensor<i64>,
    decay: f64,
    passes: u32,
}

impl Problem {
    /// Cross entropy of a linear layer, and ½·decay·|w|².
    fn loss(&self, w: &[Var<f64>]) -> Result<Var<f64>> {
        let logits = Var::constant(self.x.clone()).linear(&w[0], Some(&w[1]))?;
        let loss = logits.cross_entropy(&self.y, &Default::default())?;
        Ok(loss + (w[0].square().sum() + w[1].square().sum()) * (0.5 * self.decay))
    }

    fn value_and_gradient(&mut self, w: &[Var<f64>]) -> Result<(f64, Vector)> {
        self.passes += 2;
        let (loss, g) = value_and_grad(|w| self.loss(w), w)?;
        Ok((loss.item()?, g))
    }

    /// The Hessian at w times v.
    fn product(&mut self, w: &[Var<f64>], v: &[Var<f64>]) -> Result<Vector> {
        self.passes += 4;
        hvp(|w| self.loss(w), w, v)
    }

    /// Conjugate gradients: `d` with `H·d ≈ −g`, until the remainder is `share` of g.
    fn solve(&mut self, w: &[Var<f64>], g: &[Var<f64>], share: f64) -> Result<(Vector, u32)> {
        let mut d: Vector = g.iter().map(|g| Var::constant(g.value().zeros_like())).collect();
        let mut remainder: Vector = g.iter().map(|g| -g).collect();
        let mut p = remainder.clone();
        let (mut size, stop) = (dot(g, g)?, share * share * dot(g, g)?);
        let mut iterations = 0;
        while size > stop && iterations < 250 {
            let hp = self.product(w, &p)?;
            let along = size / dot(&p, &hp)?;
            d = moved(&d, along, &p);
            remainder = moved(&remainder, -along, &hp);
            let next = dot(&remainder, &remainder)?;
            p = moved(&remainder, next / size, &p);
            size = next;
            iterations += 1;
        }
        Ok((d, iterations))
    }
}

fn dot(a: &[Var<f64>], b: &[Var<f64>]) -> Result<f64> {
    a.iter().zip(b).map(|(a, b)| (a * b).sum().item()).sum()
}

/// `a + t·b`.
fn moved(a: &[Var<f64>], t: f64, b: &[Var<f64>]) -> Vector {
    a.iter().zip(b).map(|(a, b)| a + b * t).collect()
}

fn zeros() -> Result<Vector> {
    Ok(vec![Var::constant(Tensor::zeros([10, 64])?), Var::constant(Tensor::zeros([10])?)])
}

/// Newton's method with a step that is halved while it does not lead down.
fn newton(args: &Args, problem: &mut Problem, bar: &ProgressBar) -> Result<Vector> {
    let mut w = zeros()?;
    let (mut loss, mut g) = problem.value_and_gradient(&w)?;
    println!("Newton\n step  loss            |gradient|  products  passes");
    for step in 0..=args.steps {
        let norm = dot(&g, &g)?.sqrt();
        if step == 0 {
            println!("{step:5}  {loss:.12}  {norm:.3e}");
        }
        let last = step == args.steps || norm <= args.tolerance || STOP.load(Ordering::Relaxed);
        if last {
            break;
        }
        // The nearer the end, the more exactly it is solved: that makes the convergence quadratic.
        let (d, products) = problem.solve(&w, &g, norm.min(0.5))?;
        let (slope, mut t) = (dot(&g, &d)?, 1.0);
        (loss, w, g) = loop {
            let there = moved(&w, t, &d);
            let (value, gradient) = problem.value_and_gradient(&there)?;
            // Where the loss is at its last digits, rounding decides; then the full step is the one.
            if value <= loss + 1e-4 * t * slope + 1e-14 || t < 1e-6 {
                break (value, there, gradient);
            }
            t *= 0.5;
        };
        let (norm, passes) = (dot(&g, &g)?.sqrt(), problem.passes);
        let row = format!("{:5}  {loss:.12}  {norm:.3e} {products:9} {passes:7}", step + 1);
        bar.suspend(|| println!("{row}"));
        bar.inc(1);
    }
    Ok(w)
}

fn run(args: &Args) -> Result<ExitCode> {
    if !(args.decay.is_finite() && args.decay > 0.0) {
        let reason = format!("must be positive, found {}", args.decay);
        return Err(Error::InvalidArgument { op: "second_order", name: "decay", reason });
    }
    let digits = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"));
    let (x, y) = read_csv::<f64>(digits, 64, 10)?;
    let x = x / 16.0;
    let (train, test) = stratified_split(&y, 0.2, &mut Generator::new(args.seed))?;
    let part = |index: &Tensor<i64>| -> Result<_> {
        Ok((x.index_select(0, index)?, y.index_select(0, index)?))
    };
    let ((x, y), test) = (part(&train)?, part(&test)?);
    let mut problem = Problem { x, y, decay: args.decay, passes: 0 };
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = ProgressBar::new(args.steps.into());
    let w = newton(args, &mut problem, &bar)?;
    bar.finish_and_clear();
    let passes = std::mem::take(&mut problem.passes);

    let mut descent = zeros()?;
    let (mut loss, mut norm) = (f64::NAN, f64::NAN);
    while problem.passes < passes && !STOP.load(Ordering::Relaxed) {
        let (value, g) = problem.value_and_gradient(&descent)?;
        (loss, norm) = (value, dot(&g, &g)?.sqrt());
        descent = moved(&descent, -1.0, &g);
    }
    println!("gradient descent, steps of 1, as many passes\n       {loss:.12}  {norm:.3e}");
    let right = |w: &[Var<f64>]| -> Result<f64> {
        let logits = Var::constant(test.0.clone()).linear(&w[0], Some(&w[1]))?;
        Ok(100.0 * accuracy(logits.value(), &test.1)?)
    };
    let (second, first) = (right(&w)?, right(&descent)?);
    println!("test accuracy {second:.2} % (Newton), {first:.2} % (descent)");
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}
