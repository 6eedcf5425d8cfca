//! Trains a multi-layer perceptron on handwritten digits and reports what it has learnt.
//!
//! `cargo run --release --example mlp` trains 64-128-64-10 on the 1797 digits that come with the
//! sources; `--help` lists the options.

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use nn::data::{Augment, GaussianNoise, Mnist, read_csv};
use nn::prelude::*;
use nn::{History, Panel};

const PIXELS: usize = 64;
const CLASSES: usize = 10;
const INTERRUPTED: u8 = 130;

/// Train a multi-layer perceptron on handwritten digits.
#[derive(Parser)]
#[command(name = "mlp", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Passes over the training rows.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Largest learning rate; it falls to 0 along a cosine.
    #[arg(long, default_value_t = 0.01)]
    lr: f64,
    /// Rows of one step.
    #[arg(long, default_value_t = 64)]
    batch_size: usize,
    /// How parameters are updated. [sgd has momentum 0.9]
    #[arg(long, value_enum, default_value_t = Kind::Adamw)]
    optimizer: Kind,
    /// Share of each target that is spread over all classes.
    #[arg(long, default_value_t = 0.1)]
    label_smoothing: f64,
    /// Standard deviation of the noise added to the pixels (of [0, 1]) while training.
    #[arg(long, default_value_t = 0.05)]
    noise: f64,
    /// Decides the split, the first weights, the order of the rows and the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for weights.safetensors and curve.svg.
    #[arg(long, default_value = "runs/mlp")]
    out: PathBuf,
    /// Rows of 64 pixels of 0..16 and a digit, in place of the ones that come with the sources.
    #[arg(long, value_name = "FILE.csv", conflicts_with = "mnist")]
    data: Option<PathBuf>,
    /// Directory with the four IDX files of MNIST, plain or .gz.
    #[arg(long, value_name = "DIR")]
    mnist: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Sgd,
    Adam,
    Adamw,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

type Rows = (Tensor<f32>, Tensor<i64>);

fn run(args: &Args) -> Result<ExitCode> {
    // All that can be wrong with the options is found out before any work is done.
    let options =
        CrossEntropyOptions { label_smoothing: args.label_smoothing, ..Default::default() };
    let criterion = CrossEntropyLoss::new(options)?;
    let mut optimizer = optimizer(args)?;
    if !((args.noise as f32).is_finite() && args.noise >= 0.0) {
        let reason = format!("must be finite and not negative, found {}", args.noise);
        return Err(invalid("noise", reason));
    }
    let weights = prepare_output(&args.out)?;
    let (train, test) = load(args)?;
    let inputs = train.0.shape()[1];
    let noise = GaussianNoise::new(args.noise)?;
    // Fresh noise at every step keeps the model from learning single pixels by heart.
    let train = TensorDataset::new(train.0, train.1)?
        .map(move |(x, y), generator| Ok((noise.apply(x, generator)?, y)));
    let options =
        DataLoaderOptions { batch_size: args.batch_size, seed: args.seed, ..Default::default() };
    let train = DataLoader::new(train, options)?;

    let mut rng = Generator::with_stream(args.seed, 1);
    let mut model = Sequential::new()
        .append(Linear::new(inputs, 128, &mut rng)?)
        .append(ReLU::new())
        .append(Linear::new(128, 64, &mut rng)?)
        .append(ReLU::new())
        .append(Linear::new(64, CLASSES, &mut rng)?);
    say(format_args!(
        "{inputs}-128-64-{CLASSES}: {} parameters, {} training rows, {} test rows, seed {}",
        model.parameter_count(),
        train.dataset().len(),
        test.1.numel(),
        args.seed
    ));

    let stop = stop_on_interrupt();
    let progress = Progress::new(args.epochs);
    let steps = args.epochs as usize * train.len();
    let (mut step, mut history, mut training_time) = (0, History::new(), Duration::ZERO);
    let mut rows_seen = 0;
    let tape = Tape::new();
    'training: for epoch in 1..=args.epochs {
        let started = Instant::now();
        let (mut loss_sum, mut correct, mut rows) = (0.0, 0.0, 0);
        for batch in train.epoch(epoch.into()) {
            let (x, y) = batch?;
            optimizer.set_lr(args.lr * cosine(step, steps));
            step += 1;
            let logits = model.forward(&tape.constant(x))?;
            let loss = criterion.forward(&logits, &y)?;
            let grads = loss.backward()?;
            optimizer.step(&mut model, &grads)?;
            let value = f64::from(loss.item()?);
            if !value.is_finite() {
                let reason = format!("made the loss {value} in epoch {epoch}; try a smaller one");
                return Err(invalid("lr", reason));
            }
            let n = y.numel();
            loss_sum += value * n as f64;
            correct += accuracy(logits.value(), &y)? * n as f64;
            rows += n;
            rows_seen += n;
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        training_time += started.elapsed();
        let right = accuracy(&predict(&model, &test.0)?, &test.1)?;
        let done = [
            ("loss", loss_sum / rows as f64),
            ("train", 100.0 * correct / rows as f64),
            ("test", 100.0 * right),
        ];
        progress.report(epoch, done.map(|(_, value)| value));
        history.record(epoch.into(), &done)?;
        if stop.load(Ordering::Relaxed) {
            break 'training;
        }
    }
    progress.finish();

    // The loss of each step is seen before its update; what the last one did shows only here.
    let finite = |p: &Tensor<f32>| p.to_vec().iter().all(|w| w.is_finite());
    if !nn::state_dict(&model).values().all(finite) {
        return Err(invalid("lr", "made weights infinite or NaN; try a smaller one".into()));
    }
    save_safetensors(&model, &weights)?;
    let curve = args.out.join("curve.svg");
    let panels = [
        Panel::new("training loss (nats)").line("loss", "training").from(0.0),
        Panel::new("accuracy (%)").line("train", "training").line("test", "test").to(100.0),
    ];
    history.draw_panels(&curve, "epoch", &panels)?;
    let confusion = ConfusionMatrix::new(&predict(&model, &test.0)?, &test.1)?;
    say(format_args!("\n{confusion}"));
    say(format_args!("rows per second {:.0}", rows_seen as f64 / training_time.as_secs_f64()));
    say(format_args!("training time {:.3} s", training_time.as_secs_f64()));
    say(format_args!("wrote {} and {}", weights.display(), curve.display()));
    say(format_args!("test accuracy {:.2} %", 100.0 * confusion.accuracy()));
    if stop.load(Ordering::Relaxed) {
        eprintln!("mlp: interrupted after {} of {} epochs", history.len(), args.epochs);
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A reader that went away, as `head` does, is no reason to lose the run.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn invalid(name: &'static str, reason: String) -> Error {
    Error::InvalidArgument { op: "mlp", name, reason }
}

fn optimizer(args: &Args) -> Result<Box<dyn Optimizer<f32>>> {
    let lr = args.lr;
    let adam = AdamOptions { lr, weight_decay: 0.01, ..Default::default() };
    Ok(match args.optimizer {
        Kind::Sgd => Box::new(Sgd::new(SgdOptions { lr, momentum: 0.9, ..Default::default() })?),
        Kind::Adam => Box::new(Adam::new(AdamOptions { weight_decay: 0.0, ..adam })?),
        Kind::Adamw => Box::new(AdamW::new(adam)?),
    })
}

/// Makes the output directory and proves that it can be written to; returns the weights' path.
fn prepare_output(out: &Path) -> Result<PathBuf> {
    let io = |source| Error::Io { path: out.into(), source };
    std::fs::create_dir_all(out).map_err(io)?;
    let probe = out.join(format!(".probe.{}", std::process::id()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(io)?;
    Ok(out.join("weights.safetensors"))
}

/// Training and test rows, at least one of each.
fn load(args: &Args) -> Result<(Rows, Rows)> {
    let bundled = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"));
    let source = args.mnist.as_deref().or(args.data.as_deref()).unwrap_or(bundled);
    let (train, test) = if args.mnist.is_some() {
        let mnist = Mnist::read(source)?;
        (mnist.train, mnist.test)
    } else {
        let (x, y) = read_csv::<f32>(source, PIXELS, CLASSES)?;
        let x = x / 16.0;
        let mut rng = Generator::with_stream(args.seed, 0);
        let (train, test) = stratified_split(&y, 0.2, &mut rng)?;
        let rows =
            |index| -> Result<Rows> { Ok((x.index_select(0, index)?, y.index_select(0, index)?)) };
        (rows(&train)?, rows(&test)?)
    };
    if train.1.numel() == 0 || test.1.numel() == 0 {
        let reason = "has no rows to train on, or none to test on".into();
        return Err(Error::Format { path: source.into(), reason });
    }
    Ok((train, test))
}

/// From 1 at the first step to 0 after the last.
fn cosine(step: usize, steps: usize) -> f64 {
    0.5 + 0.5 * (std::f64::consts::PI * step as f64 / steps as f64).cos()
}

/// Logits of all rows; recorded on no tape.
fn predict(model: &Sequential<f32>, x: &Tensor<f32>) -> Result<Tensor<f32>> {
    Ok(model.forward(&Var::constant(x.clone()))?.into_value())
}

/// A flag that Ctrl-C sets. A second Ctrl-C ends the program at once.
fn stop_on_interrupt() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED));
        }
    });
    if let Err(error) = handler {
        eprintln!("mlp: Ctrl-C will lose the run: {error}");
    }
    stop
}

/// A bar on a terminal, a line an epoch elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    epochs: u32,
}

impl Progress {
    fn new(epochs: u32) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{wide_bar} {msg}  eta {eta}");
            ProgressBar::new(u64::from(epochs))
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress { bar, epochs }
    }

    fn report(&self, epoch: u32, [loss, train, test]: [f64; 3]) {
        let message = format!(
            "epoch {epoch}/{}  loss {loss:.4}  train {train:.2} %  test {test:.2} %",
            self.epochs
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.set_position(u64::from(epoch));
            }
            None => say(message),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}
