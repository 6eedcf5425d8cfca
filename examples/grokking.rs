//! Can a network still learn when it is sure of every training row? Modular addition, learnt twice
//! from the same weights: with the usual formula of cross entropy, and with `CrossEntropyLoss`.
//!
//! Once a target's logit leads by about 17, its probability p is 1 in f32. The usual loss of the row
//! is then exactly 0, and so is the gradient p − 1 of the target; the other logits still get theirs.
//! Without weight decay that can happen before the network generalises (Prieto et al., arXiv
//! 2501.04697). `CrossEntropyLoss` ends too, but at a lead of about 100, where exp is 0.
//! Each gradient is scaled to length 1, so that steps do not shrink with it. Without that, plain SGD
//! and Adam's defaults got to no such lead in thousands of steps, and the formulas did not differ.
//!
//! `cargo run --release --example grokking` prints both runs; `--help` lists the options.

use std::io::Write;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::prelude::*;
use nn::{Visitor, write_atomically};
use plotters::prelude::*;

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Learn a + b mod p from some of the pairs, with two formulas of the same cross entropy.
#[derive(Parser)]
#[command(name = "grokking", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// The modulus: there are p² pairs.
    #[arg(short, long, default_value_t = 31, value_parser = clap::value_parser!(u16).range(2..200))]
    p: u16,
    /// Share of the pairs to train on; the others are for testing.
    #[arg(long, default_value_t = 0.55)]
    fraction: f64,
    /// Steps of each run, on all training pairs at once.
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Learning rate of Adam.
    #[arg(long, default_value_t = 3e-4)]
    lr: f64,
    /// Decides the split and the first weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Compute in f64, where p is 1 from a lead of about 37.
    #[arg(long)]
    f64: bool,
    /// Directory for grokking.svg.
    #[arg(long, default_value = "runs/grokking")]
    out: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = if args.f64 { run::<f64>(&args) } else { run::<f32>(&args) };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// Between two layers it makes products of the inputs, of which the rule can be built.
struct Square<T>(PhantomData<T>);

impl<T: Float> Parameters for Square<T> {
    type Elem = T;
    fn visit<'a>(&'a self, _: &mut Visitor<'_, &'a Parameter<T>>) {}
    fn visit_mut<'a>(&'a mut self, _: &mut Visitor<'_, &'a mut Parameter<T>>) {}
}

impl<T: Float> Module for Square<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        Ok(x.square())
    }
}

/// `log Σ exp(x_j) − x_y` of each row. Taking the maximum off keeps exp from overflowing; it does
/// not keep the sum from being 1.
fn usual<T: Float>(x: &Var<T>, y: &Tensor<i64>) -> Result<Var<T>> {
    let shifted = x - x.detach().amax(&[1], true)?;
    let total = shifted.exp().sum_dim(&[1], true)?;
    Ok(total.log() - shifted.gather(1, &y.unsqueeze(1)?)?)
}

/// Test accuracy in per cent by step, and the report. A gradient of exactly 0 ends the run.
fn train<T: Float>(
    args: &Args,
    [(x, y), test]: &[(Tensor<T>, Tensor<i64>); 2],
    bar: &ProgressBar,
    name: &str,
    loss_of: impl Fn(&Var<T>, &Tensor<i64>) -> Result<Var<T>>,
) -> Result<(Vec<(u32, f64)>, String)> {
    let (p, mut rng) = (usize::from(args.p), Generator::with_stream(args.seed, 1));
    let mut model = Sequential::new()
        .append(Linear::without_bias(2 * p, 128, &mut rng)?)
        .append(Square(PhantomData))
        .append(Linear::without_bias(128, p, &mut rng)?);
    let mut adam = Adam::new(AdamOptions { lr: args.lr, ..Default::default() })?;
    let (tape, mut curve, mut collapsed) = (Tape::new(), Vec::new(), false);
    let mut report =
        format!("\n{name}\n  step      loss  gradient  rows of loss 0  test accuracy\n");
    for step in 0..=args.steps {
        let rows = loss_of(&model.forward(&tape.constant(x.clone()))?, y)?;
        let mean = rows.mean();
        let mut grads = mean.backward()?;
        let (loss, gradient) = (mean.item()?.to_f64(), grads.norm());
        if !(loss.is_finite() && gradient.is_finite()) {
            return Err(invalid("lr", format!("made the loss {loss} at step {step}")));
        }
        let zeros = rows.value().to_vec().iter().filter(|&&l| l == T::ZERO).count();
        let collapses = zeros == y.numel() && !std::mem::replace(&mut collapsed, true);
        let last = gradient == 0.0 || step == args.steps || STOP.load(Ordering::Relaxed);
        if step % args.steps.div_ceil(20) == 0 || collapses || last {
            let logits = model.forward(&Var::constant(test.0.clone()))?;
            let right = 100.0 * accuracy(logits.value(), &test.1)?;
            let share = 100.0 * zeros as f64 / y.numel() as f64;
            let numbers = format!("{step:6} {loss:9.2e} {gradient:9.2e} {share:13.1} %");
            let frozen = if gradient == 0.0 { "  the gradient is exactly 0" } else { "" };
            let note = if collapses { "  all rows are at 0 for the first time" } else { frozen };
            report += &format!("{numbers} {right:12.1} %{note}\n");
            curve.push((step, right));
        }
        bar.inc(1);
        if last {
            break;
        }
        // Adam in f32 takes the square of a gradient below 1e-23 for 0; of length 1 it is safe. Two
        // factors, because 1/gradient may be too large for f32.
        (0..2).for_each(|_| grads.scale(gradient.sqrt().recip()));
        adam.step(&mut model, &grads)?;
    }
    Ok((curve, report))
}

fn run<T: Float>(args: &Args) -> Result<ExitCode> {
    let (p, picture) = (i64::from(args.p), args.out.join("grokking.svg"));
    let mut pairs: Vec<i64> = (0..p * p).collect();
    Generator::with_stream(args.seed, 0).shuffle(&mut pairs);
    let n = (args.fraction * pairs.len() as f64).round() as usize;
    if n == 0 || n >= pairs.len() {
        return Err(invalid("fraction", "must leave pairs to train on and to test on".into()));
    }
    let column = |f: fn(i64, i64) -> i64| {
        Tensor::from_vec(pairs.iter().map(|i| f(i / p, i % p) % p).collect(), [pairs.len()])
    };
    let (a, b, y) = (column(|a, _| a)?, column(|_, b| b)?, column(|a, b| a + b)?);
    let x = Tensor::cat(&[&a.one_hot(p as usize)?, &b.one_hot(p as usize)?], 1)?.cast::<T>();
    let part = |from, n| -> Result<_> { Ok((x.narrow(0, from, n)?, y.narrow(0, from, n)?)) };
    let data = [part(0, n)?, part(n, pairs.len() - n)?];
    let options = CrossEntropyOptions { reduction: Reduction::None, ..Default::default() };
    let criterion = CrossEntropyLoss::new(options)?;
    std::fs::create_dir_all(&args.out)
        .map_err(|source| Error::Io { path: args.out.clone(), source })?;
    // Without a handler Ctrl-C ends the program, which loses the report but nothing else.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = ProgressBar::new(2 * (u64::from(args.steps) + 1));
    let (first, usual) = train(args, &data, &bar, NAMES[0], usual)?;
    let (second, exact) = train(args, &data, &bar, NAMES[1], |x, y| criterion.forward(x, y))?;
    bar.finish_and_clear();
    write_atomically(&picture, draw(&[first, second]).unwrap_or_default().as_bytes())?;
    let (all, float, seed) = (p * p, if args.f64 { "f64" } else { "f32" }, args.seed);
    let title = format!("a + b mod {p}: {n} of {all} pairs to train on, {float}, seed {seed}");
    // A reader that went away is no reason to fail.
    let _ = writeln!(std::io::stdout(), "{title}\n{usual}{exact}\nwrote {}", picture.display());
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}

fn invalid(name: &'static str, reason: String) -> Error {
    Error::InvalidArgument { op: "grokking", name, reason }
}

const NAMES: [&str; 2] = ["usual formula", "CrossEntropyLoss"];

/// Test accuracy over the steps, as SVG. Drawing into a string does not fail.
fn draw(curves: &[Vec<(u32, f64)>; 2]) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (700, 400)).into_drawing_area();
        root.fill(&WHITE)?;
        let last = curves.iter().flatten().map(|point| point.0).max().unwrap_or(1).max(1);
        let mut chart = ChartBuilder::on(&root)
            .caption("test accuracy (%)", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(0..last, 0.0..100.0)?;
        chart.configure_mesh().x_desc("step").light_line_style(TRANSPARENT).draw()?;
        for ((curve, name), color) in curves.iter().zip(NAMES).zip([RED, BLUE]) {
            let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color);
            let line = LineSeries::new(curve.iter().copied(), color.stroke_width(2));
            chart.draw_series(line)?.label(name).legend(key);
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).border_style(BLACK).draw()?;
    }
    Ok(svg)
}
