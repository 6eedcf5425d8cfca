//! Teaches a small network with the answers of a large one: knowledge distillation on the digits.
//!
//! A teacher learns from all training rows. Two students of the same first weights get few labels: one learns
//! from those alone, the other also from what the teacher says of all rows, wrong answers included. Hinton et
//! al., arXiv 1503.02531. `cargo run --release --example distill`; `--help` lists the options.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::data::read_csv;
use nn::prelude::*;

/// Teach a small network with the answers of a large one.
#[derive(Parser)]
#[command(name = "distill", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Labels that the students get, at least one of each digit.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(10..1000))]
    labels: u16,
    /// Temperature of the teacher's answers: the higher, the more its second choices count.
    #[arg(long, default_value_t = 3.0)]
    temperature: f64,
    /// Steps of each network, on all its rows at once.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Runs, each with another split and other first weights.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// The seed of the first run.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

type Model = Sequential<f32>;
type Rows = (Tensor<f32>, Tensor<i64>);

/// Set by Ctrl-C: the runs that are done are reported.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// A perceptron with one hidden layer.
fn perceptron(width: usize, rng: &mut Generator) -> Result<Model> {
    Ok(Sequential::new()
        .append(Linear::new(64, width, rng)?)
        .append(ReLU::new())
        .append(Linear::new(width, 10, rng)?))
}

/// Minimises a loss of the model; `false` if it was interrupted.
fn train(
    args: &Args,
    model: &mut Model,
    bar: &ProgressBar,
    loss: impl Fn(&Model, &Tape<f32>) -> Result<Var<f32>>,
) -> Result<bool> {
    let mut optimizer =
        AdamW::new(AdamOptions { lr: 0.005, weight_decay: 0.01, ..Default::default() })?;
    let schedule = CosineAnnealingLR::new(args.steps.into(), 0.0)?;
    let mut scheduler = LRScheduler::new(&mut optimizer, schedule)?;
    let tape = Tape::new();
    for _ in 0..args.steps {
        let grads = loss(model, &tape)?.backward()?;
        optimizer.step(model, &grads)?;
        scheduler.step(&mut optimizer)?;
        bar.inc(1);
        if STOP.load(Ordering::Relaxed) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Accuracies in per cent of teacher, student alone and student taught; none where interrupted.
fn once(args: &Args, (x, y): &Rows, seed: u64, bar: &ProgressBar) -> Result<Option<[f64; 3]>> {
    let mut rng = Generator::with_stream(seed, 0);
    let rows = |index: &Tensor<i64>| -> Result<Rows> {
        Ok((x.index_select(0, index)?, y.index_select(0, index)?))
    };
    let (train_rows, test_rows) = stratified_split(y, 0.2, &mut rng)?;
    let (all, test) = (rows(&train_rows)?, rows(&test_rows)?);
    let share = f64::from(args.labels) / all.1.numel() as f64;
    let (_, few) = stratified_split(&all.1, share, &mut rng)?;
    let labelled = (all.0.index_select(0, &few)?, all.1.index_select(0, &few)?);
    let criterion = CrossEntropyLoss::new(CrossEntropyOptions::default())?;
    let of = |model: &Model, tape: &Tape<f32>, rows: &Rows| {
        criterion.forward(&model.forward(&tape.constant(rows.0.clone()))?, &rows.1)
    };

    let mut teacher = perceptron(256, &mut rng)?;
    let mut done = train(args, &mut teacher, bar, |m, tape| of(m, tape, &all))?;
    let answers = Var::constant(teacher.forward(&Var::constant(all.0.clone()))?.into_value());

    let mut alone = perceptron(12, &mut Generator::with_stream(seed, 1))?;
    done &= train(args, &mut alone, bar, |m, tape| of(m, tape, &labelled))?;

    let distillation = DistillationLoss::new(args.temperature)?;
    let mut taught = perceptron(12, &mut Generator::with_stream(seed, 1))?;
    done &= train(args, &mut taught, bar, |m, tape| {
        let said = m.forward(&tape.constant(all.0.clone()))?;
        let soft = distillation.forward(&said, &answers)?;
        of(m, tape, &labelled)?.checked_add(&soft)
    })?;
    let right = |model: &Model| -> Result<f64> {
        let logits = model.forward(&Var::constant(test.0.clone()))?;
        Ok(100.0 * accuracy(logits.value(), &test.1)?)
    };
    Ok(if done { Some([right(&teacher)?, right(&alone)?, right(&taught)?]) } else { None })
}

fn run(args: &Args) -> Result<ExitCode> {
    DistillationLoss::new(args.temperature)?;
    let digits = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"));
    let (x, y) = read_csv::<f32>(digits, 64, 10)?;
    let rows = (x / 16.0, y);
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(3 * u64::from(args.steps) * u64::from(args.runs)),
        false => ProgressBar::hidden(),
    };
    println!("seed  teacher  alone   taught   (test accuracy, %; {} labels)", args.labels);
    let (mut sums, mut runs) = ([0.0; 3], 0.0);
    for seed in (args.seed..).take(args.runs.into()) {
        let Some(found) = once(args, &rows, seed, &bar)? else { break };
        let [teacher, alone, taught] = found;
        bar.suspend(|| println!("{seed:4}  {teacher:7.2}  {alone:5.2}  {taught:7.2}"));
        sums.iter_mut().zip(found).for_each(|(sum, x)| *sum += x);
        runs += 1.0;
    }
    bar.finish_and_clear();
    let [teacher, alone, taught] = sums.map(|sum| sum / runs);
    println!("mean  {teacher:7.2}  {alone:5.2}  {taught:7.2}");
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}
