//! Trains a small convolutional network on handwritten digits, several times, and shows what it gets wrong.
//!
//! `cargo run --release --example digits_cnn` trains five times, with five splits and first weights, in a
//! minute or two, and draws the mistakes; `--help` lists the options.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::data::{Augment, RandomShift, read_csv};
use nn::optim::lr_scheduler::{OneCycleLR, OneCycleOptions};
use nn::prelude::*;
use nn::write_atomically;
use plotters::prelude::*;

/// Train a convolutional network on handwritten digits.
#[derive(Parser)]
#[command(name = "digits_cnn", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Passes over the training rows.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Largest learning rate; it rises first, then falls along a cosine.
    #[arg(long, default_value_t = 0.005)]
    lr: f64,
    /// Runs, each with another split and other first weights.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// The seed of the first run.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for mistakes.svg.
    #[arg(long, default_value = "runs/digits_cnn")]
    out: PathBuf,
}

/// Set by Ctrl-C: what was found so far is reported.
static STOP: AtomicBool = AtomicBool::new(false);

/// A digit that was taken for another.
struct Mistake {
    pixels: Vec<f32>,
    truth: i64,
    taken: i64,
}

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// Two stages of two convolutions, each with a batch norm, and a linear layer.
fn network(rng: &mut Generator) -> Result<Sequential<f32>> {
    let options = ConvOptions { padding: [1, 1], ..Default::default() };
    let mut model = Sequential::new();
    for (inputs, outputs) in [(1, 24), (24, 24), (24, 48), (48, 48)] {
        model.push(Conv2d::without_bias(inputs, outputs, [3, 3], options, rng)?);
        model.push(BatchNorm2d::new(outputs, BatchNormOptions::default())?);
        model.push(ReLU::new());
        if inputs == outputs {
            model.push(MaxPool2d::new([2, 2], MaxPoolOptions::default()));
        }
    }
    Ok(model.append(Flatten::new(1, -1)).append(Dropout::new(0.3)).append(Linear::new(
        48 * 2 * 2,
        10,
        rng,
    )?))
}

/// The confusion matrix of a run, and its mistakes; none where it was interrupted.
fn once(
    args: &Args,
    (x, y): &(Tensor<f32>, Tensor<i64>),
    seed: u64,
    bar: &ProgressBar,
) -> Result<Option<(ConfusionMatrix, Vec<Mistake>)>> {
    let mut rng = Generator::with_stream(seed, 0);
    let (train, test) = stratified_split(y, 0.2, &mut rng)?;
    let rows = |index| -> Result<_> { Ok((x.index_select(0, index)?, y.index_select(0, index)?)) };
    let ((train_x, train_y), (test_x, test_y)) = (rows(&train)?, rows(&test)?);
    let shift = RandomShift::new(1);
    let data = TensorDataset::new(train_x, train_y)?
        .map(move |(x, y), generator| Ok((shift.apply(x, generator)?, y)));
    let loader = DataLoader::new(data, DataLoaderOptions { seed, ..Default::default() })?;

    let mut model = network(&mut rng)?;
    if seed == args.seed {
        bar.suspend(|| println!("{}", Summary::of(&model)));
    }
    let options = CrossEntropyOptions { label_smoothing: 0.1, ..Default::default() };
    let criterion = CrossEntropyLoss::new(options)?;
    let mut optimizer =
        AdamW::new(AdamOptions { lr: args.lr, weight_decay: 0.01, ..Default::default() })?;
    let steps = u64::from(args.epochs) * loader.len() as u64;
    let cycle = OneCycleOptions { max_lr: vec![args.lr], total_steps: steps, ..Default::default() };
    let mut scheduler = LRScheduler::new(&mut optimizer, OneCycleLR::new(cycle)?)?;
    let tape = Tape::training(seed);
    for epoch in 0..args.epochs {
        for batch in loader.epoch(epoch.into()) {
            let (x, y) = batch?;
            let loss = criterion.forward(&model.forward(&tape.constant(x))?, &y)?;
            optimizer.step(&mut model, &loss.backward()?)?;
            scheduler.step(&mut optimizer)?;
            bar.inc(1);
            if STOP.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
    }
    let logits = model.forward(&Var::constant(test_x.clone()))?.into_value();
    let taken = logits.argmax_dim(1, false)?.to_vec();
    let mut mistakes = Vec::new();
    for (i, (taken, truth)) in taken.into_iter().zip(test_y.to_vec()).enumerate() {
        if taken != truth {
            let pixels = test_x.select(0, i as isize)?.to_vec();
            mistakes.push(Mistake { pixels, truth, taken });
        }
    }
    Ok(Some((ConfusionMatrix::new(&logits, &test_y)?, mistakes)))
}

fn run(args: &Args) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.out)
        .map_err(|source| Error::Io { path: args.out.clone(), source })?;
    let digits = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"));
    let (x, y) = read_csv::<f32>(digits, 64, 10)?;
    let rows = ((x / 16.0).reshape([y.numel(), 1, 8, 8])?, y);
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = match std::io::stderr().is_terminal() {
        // 1,437 rows in batches of 64.
        true => ProgressBar::new(u64::from(args.runs) * u64::from(args.epochs) * 23),
        false => ProgressBar::hidden(),
    };
    let (mut matrix, mut mistakes) = (None::<ConfusionMatrix>, Vec::new());
    let (mut sum, mut runs) = (0.0, 0);
    for seed in (args.seed..).take(args.runs.into()) {
        let Some((found, wrong)) = once(args, &rows, seed, &bar)? else { break };
        let right = 100.0 * found.accuracy();
        bar.suspend(|| println!("seed {seed}  test accuracy {right:.2} %"));
        (sum, runs) = (sum + right, runs + 1);
        mistakes.extend(wrong);
        match &mut matrix {
            None => matrix = Some(found),
            Some(all) => all.merge(&found)?,
        }
    }
    bar.finish_and_clear();
    if let Some(matrix) = matrix {
        println!("\n{matrix}");
        let picture = args.out.join("mistakes.svg");
        write_atomically(&picture, draw(&mistakes).unwrap_or_default().as_bytes())?;
        println!("wrote {}\nmean {:.2} % of {runs} runs", picture.display(), sum / f64::from(runs));
    }
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}

/// The digits that were taken for others, with what they are and were taken for. Drawing into a string does
/// not fail.
fn draw(mistakes: &[Mistake]) -> std::result::Result<String, Box<dyn std::error::Error>> {
    const COLUMNS: usize = 8;
    const SIDE: i32 = 96;
    let rows = mistakes.len().div_ceil(COLUMNS).max(1) as i32;
    let mut svg = String::new();
    {
        let size = (COLUMNS as u32 * SIDE as u32, (rows * (SIDE + 24)) as u32);
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        for (i, Mistake { pixels, truth, taken }) in mistakes.iter().enumerate() {
            let left = (i % COLUMNS) as i32 * SIDE + 8;
            let top = (i / COLUMNS) as i32 * (SIDE + 24) + 24;
            let text = format!("{truth}, taken for {taken}");
            root.draw(&Text::new(text, (left, top - 18), ("sans-serif", 13)))?;
            for (j, &p) in pixels.iter().enumerate() {
                let (x, y) = (left + 10 * (j % 8) as i32, top + 10 * (j / 8) as i32);
                let shade = (255.0 * (1.0 - p.clamp(0.0, 1.0))) as u8;
                let color = RGBColor(shade, shade, shade).filled();
                root.draw(&Rectangle::new([(x, y), (x + 10, y + 10)], color))?;
            }
        }
        root.present()?;
    }
    Ok(svg)
}
