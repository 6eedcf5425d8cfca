//! Trains a multi-layer perceptron on handwritten digits and reports what it has learnt.
//!
//! `cargo run --release --example mlp` trains 64-128-64-10 on the 1797 digits that come with the
//! sources; `--help` lists the options.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use nn::data::{Mnist, read_csv};
use nn::prelude::*;
use nn::write_atomically;
use plotters::prelude::*;

const PIXELS: usize = 64;
const CLASSES: usize = 10;
const INTERRUPTED: u8 = 130;

/// Train a multi-layer perceptron on handwritten digits.
#[derive(Parser)]
#[command(name = "mlp", max_term_width = 100)]
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
    /// Decides the split, the first weights and the order of the rows.
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
            eprintln!("mlp: {error}");
            ExitCode::from(2)
        }
    }
}

type Rows = (Tensor<f32>, Tensor<i64>);

/// One line of the curve.
struct Epoch {
    loss: f64,
    train_accuracy: f64,
    test_accuracy: f64,
}

fn run(args: &Args) -> Result<ExitCode> {
    // All that can be wrong with the options is found out before any work is done.
    let options =
        CrossEntropyOptions { label_smoothing: args.label_smoothing, ..Default::default() };
    let criterion = CrossEntropyLoss::new(options)?;
    let mut optimizer = optimizer(args)?;
    if !(args.noise.is_finite() && args.noise >= 0.0) {
        let reason = format!("must be finite and not negative, found {}", args.noise);
        return Err(Error::InvalidArgument { op: "mlp", name: "noise", reason });
    }
    let weights = prepare_output(&args.out)?;
    let (train, test) = load(args)?;
    let inputs = train.0.shape()[1];
    let train = Batches::new(train.0, train.1, args.batch_size)?;
    if train.rows() == 0 || test.1.numel() == 0 {
        let reason = "have no rows to train on, or none to test on".into();
        return Err(Error::InvalidArgument { op: "mlp", name: "data", reason });
    }

    let mut rng = Generator::with_stream(args.seed, 1);
    let mut model = Sequential::new()
        .append(Linear::new(inputs, 128, &mut rng)?)
        .append(ReLU::new())
        .append(Linear::new(128, 64, &mut rng)?)
        .append(ReLU::new())
        .append(Linear::new(64, CLASSES, &mut rng)?);
    println!(
        "{inputs}-128-64-{CLASSES}: {} parameters, {} training rows, {} test rows, seed {}",
        model.parameter_count(),
        train.rows(),
        test.1.numel(),
        args.seed
    );

    let stop = stop_on_interrupt();
    let progress = Progress::new(args.epochs);
    let steps = args.epochs as usize * train.iter().len();
    let (mut step, mut history, mut training_time) = (0, Vec::new(), Duration::ZERO);
    let mut rows_seen = 0;
    let tape = Tape::new();
    'training: for epoch in 1..=args.epochs {
        let started = Instant::now();
        let (mut loss_sum, mut correct, mut rows) = (0.0, 0.0, 0);
        for (x, y) in train.shuffled(&mut rng) {
            optimizer.set_lr(args.lr * cosine(step, steps));
            step += 1;
            let x = add_noise(x, args.noise, &mut rng)?;
            let logits = model.forward(&tape.constant(x))?;
            let loss = criterion.forward(&logits, &y)?;
            let grads = loss.backward()?;
            optimizer.step(&mut model, &grads)?;
            let value = f64::from(loss.item()?);
            if !value.is_finite() {
                let reason = format!("made the loss {value} in epoch {epoch}; try a smaller one");
                return Err(Error::InvalidArgument { op: "mlp", name: "lr", reason });
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
        let done = Epoch {
            loss: loss_sum / rows as f64,
            train_accuracy: correct / rows as f64,
            test_accuracy: accuracy(&predict(&model, &test.0)?, &test.1)?,
        };
        progress.report(epoch, &done);
        history.push(done);
        if stop.load(Ordering::Relaxed) {
            break 'training;
        }
    }
    progress.finish();

    save_safetensors(&model, &weights)?;
    let curve = args.out.join("curve.svg");
    write_atomically(&curve, draw(&history).as_bytes())?;
    let confusion = ConfusionMatrix::new(&predict(&model, &test.0)?, &test.1)?;
    println!("\n{confusion}");
    println!("rows per second {:.0}", rows_seen as f64 / training_time.as_secs_f64());
    println!("training time {:.3} s", training_time.as_secs_f64());
    println!("wrote {} and {}", weights.display(), curve.display());
    println!("test accuracy {:.2} %", 100.0 * confusion.accuracy());
    if stop.load(Ordering::Relaxed) {
        eprintln!("mlp: interrupted after {} of {} epochs", history.len(), args.epochs);
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
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

/// Training and test rows.
fn load(args: &Args) -> Result<(Rows, Rows)> {
    if let Some(directory) = &args.mnist {
        let mnist = Mnist::read(directory)?;
        return Ok((mnist.train, mnist.test));
    }
    let bundled = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv"));
    let (x, y) = read_csv::<f32>(args.data.as_deref().unwrap_or(bundled), PIXELS, CLASSES)?;
    let x = x / 16.0;
    let mut rng = Generator::with_stream(args.seed, 0);
    let (train, test) = stratified_split(&y, 0.2, &mut rng)?;
    let rows =
        |index| -> Result<Rows> { Ok((x.index_select(0, index)?, y.index_select(0, index)?)) };
    Ok((rows(&train)?, rows(&test)?))
}

/// Fresh noise at every step keeps the model from learning single pixels by heart.
fn add_noise(x: Tensor<f32>, deviation: f64, rng: &mut Generator) -> Result<Tensor<f32>> {
    if deviation == 0.0 {
        return Ok(x);
    }
    let noise = Tensor::<f32>::randn(x.shape(), rng)?;
    Ok(x + noise * deviation as f32)
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
            let style =
                ProgressStyle::with_template("{bar:30} epoch {pos}/{len}  {msg}  eta {eta}");
            ProgressBar::new(u64::from(epochs))
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Progress { bar, epochs }
    }

    fn report(&self, epoch: u32, e: &Epoch) {
        let message = format!(
            "loss {:.4}  train {:.2} %  test {:.2} %",
            e.loss,
            100.0 * e.train_accuracy,
            100.0 * e.test_accuracy
        );
        match &self.bar {
            Some(bar) => {
                bar.set_message(message);
                bar.set_position(u64::from(epoch));
            }
            None => println!("epoch {epoch}/{}  {message}", self.epochs),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

/// Loss and accuracy over the epochs, as SVG.
fn draw(history: &[Epoch]) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 400)).into_drawing_area();
        // Drawing into a string does not fail.
        let _ = root.fill(&WHITE);
        let (left, right) = root.split_horizontally(450);
        let line = |f: fn(&Epoch) -> f64| -> Vec<(f64, f64)> {
            history.iter().enumerate().map(|(i, e)| ((i + 1) as f64, f(e))).collect()
        };
        let loss = line(|e| e.loss);
        let top = loss.iter().map(|p| p.1).fold(0.0, f64::max);
        let _ =
            panel(&left, "training loss (nats)", (0.0, 1.05 * top), &[("training", BLUE, loss)]);
        let accuracies = [
            ("training", BLUE, line(|e| 100.0 * e.train_accuracy)),
            ("test", RED, line(|e| 100.0 * e.test_accuracy)),
        ];
        let low = accuracies.iter().flat_map(|a| &a.2).map(|p| p.1).fold(100.0, f64::min);
        let _ = panel(&right, "accuracy (%)", ((low - 1.0).max(0.0), 100.0), &accuracies);
        let _ = root.present();
    }
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

fn panel(area: &Area<'_>, caption: &str, (low, high): (f64, f64), lines: &[Line]) -> Drawn {
    let last = lines.iter().map(|l| l.2.len()).max().unwrap_or(1).max(2) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(1.0..last, low..high.max(low + 1e-9))
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .x_desc("epoch")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(|e| e.to_string())?;
    for (name, color, points) in lines {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))
            .map_err(|e| e.to_string())?
            .label(*name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(if low > 0.0 {
            SeriesLabelPosition::LowerRight
        } else {
            SeriesLabelPosition::UpperRight
        })
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()
        .map_err(|e| e.to_string())?;
    Ok(())
}
