//! Trains a small classifier on handwritten digits, and can be stopped at any moment: by Ctrl-C, by a
//! kill, by a power cut. Run again, it goes on from its last checkpoint, and ends with the same weights,
//! bit for bit, as a run that was never disturbed. The checksum in the report shows it.
//!
//! `cargo run --release --example resume` trains, or goes on; `--help` lists the options.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::data::read_csv;
use nn::prelude::*;
use nn::{Checkpoint, Position};

const INTERRUPTED: u8 = 130;
const BATCH_SIZE: usize = 32;

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Train a classifier of digits that can be stopped at any moment, and goes on where it was.
#[derive(Parser)]
#[command(name = "resume", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Passes over the training rows.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    epochs: u64,
    /// Steps from one checkpoint to the next.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Decides the split, the first weights, the order of the rows, the noise and the dropout.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Stop once so many steps are done in all, as Ctrl-C would.
    #[arg(long, value_name = "STEPS")]
    stop_at: Option<u64>,
    /// Directory for the checkpoint, run.safetensors.
    #[arg(long, default_value = "runs/resume")]
    out: PathBuf,
}

impl Args {
    /// What a run cannot change on its way: it is saved, and compared.
    fn fixed(&self) -> String {
        format!("--epochs {} --seed {}", self.epochs, self.seed)
    }
}

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

type Rows = (Tensor<f32>, Tensor<i64>);

/// All that changes while training.
struct Training {
    model: Sequential<f32>,
    optimizer: AdamW<f32>,
    scheduler: LRScheduler<CosineAnnealingLR>,
    noise: Generator,
    position: Position,
}

impl Training {
    fn new(args: &Args, steps: u64) -> Result<Self> {
        let mut rng = Generator::with_stream(args.seed, 1);
        let model = Sequential::new()
            .append(Linear::new(64, 64, &mut rng)?)
            .append(ReLU::new())
            .append(Linear::new(64, 10, &mut rng)?);
        let options = AdamOptions { lr: 0.003, weight_decay: 0.01, ..Default::default() };
        let mut optimizer = AdamW::new(options)?;
        let schedule = CosineAnnealingLR::new(steps, 0.0)?;
        let scheduler = LRScheduler::new(&mut optimizer, schedule)?;
        let noise = Generator::with_stream(args.seed, 2);
        Ok(Training { model, optimizer, scheduler, noise, position: Position::default() })
    }

    fn save(&self, args: &Args, path: &Path) -> Result<()> {
        Checkpoint::new()
            .with_model(&self.model)
            .with_optimizer(&self.optimizer, &self.model)?
            .with_scheduler(&self.scheduler)
            .with_generator("noise", &self.noise)
            .with_position(self.position)
            .with_metadata("options", args.fixed())
            .save(path)
    }

    fn restore(&mut self, args: &Args, path: &Path) -> Result<()> {
        let saved = Checkpoint::load(path)?;
        let options = saved.metadata().get("options").map_or("", String::as_str);
        if options != args.fixed() {
            let (path, now) = (path.display(), args.fixed());
            let reason = format!("has {path}, of a run with `{options}`, and this is `{now}`");
            return Err(Error::InvalidArgument { op: "resume", name: "out", reason });
        }
        saved.restore(&mut self.model, &mut self.optimizer, Some(&mut self.scheduler))?;
        (self.noise, self.position) = (saved.generator("noise")?, saved.position());
        Ok(())
    }

    fn step(&mut self, args: &Args, x: Tensor<f32>, y: &Tensor<i64>) -> Result<()> {
        let noise = Tensor::<f32>::randn(x.shape(), &mut self.noise)?;
        // Dropout depends on the step alone, so there is no state of it to save.
        let tape = Tape::training(args.seed.rotate_left(32) ^ self.position.step);
        let x = tape.constant(x + noise * 0.05).dropout(0.1)?;
        let logits = self.model.forward(&x)?;
        let loss = CrossEntropyLoss::new(CrossEntropyOptions::default())?.forward(&logits, y)?;
        self.optimizer.step(&mut self.model, &loss.backward()?)?;
        self.scheduler.step(&mut self.optimizer)
    }

    /// A number of all bits of the weights (FNV-1a), by which runs are compared.
    fn checksum(&self) -> u64 {
        let weights = nn::state_dict(&self.model).into_values().flat_map(|w| w.to_vec());
        let bytes = weights.flat_map(f32::to_le_bytes);
        bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
    }
}

fn run(args: &Args) -> Result<ExitCode> {
    let csv = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.csv");
    let (x, y) = read_csv::<f32>(csv, 64, 10)?;
    let x = x / 16.0;
    let (train, test) = stratified_split(&y, 0.2, &mut Generator::with_stream(args.seed, 0))?;
    let rows = |i| -> Result<Rows> { Ok((x.index_select(0, i)?, y.index_select(0, i)?)) };
    let ((x, y), test) = (rows(&train)?, rows(&test)?);
    // The order of an epoch depends on the seed and its number alone.
    let options =
        DataLoaderOptions { batch_size: BATCH_SIZE, seed: args.seed, ..Default::default() };
    let loader = DataLoader::new(TensorDataset::new(x, y)?, options)?;
    let batches = loader.len() as u64;
    let steps = args.epochs * batches;

    let path = args.out.join("run.safetensors");
    let mut training = Training::new(args, steps)?;
    std::fs::create_dir_all(&args.out)
        .map_err(|source| Error::Io { path: args.out.clone(), source })?;
    if path.exists() {
        training.restore(args, &path)?;
        let Position { epoch, batch, step } = training.position;
        say(&format!("resumed {} at epoch {epoch}, batch {batch}, step {step}", path.display()));
    } else {
        say(&format!("new run: {steps} steps, {}", args.fixed()));
    }
    // Without a handler Ctrl-C ends the program, which loses the steps since the last checkpoint.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = ProgressBar::new(steps);
    let mut stopped = false;
    while training.position.epoch < args.epochs && !stopped {
        let Position { epoch, batch, .. } = training.position;
        for rows in loader.epoch_from(epoch, batch as usize) {
            let (x, y) = rows?;
            training.step(args, x, &y)?;
            let Position { epoch, batch, step } = training.position;
            let (step, over) = (step + 1, batch + 1 == batches);
            let (epoch, batch) = if over { (epoch + 1, 0) } else { (epoch, batch + 1) };
            training.position = Position { epoch, batch, step };
            bar.set_position(step);
            stopped = STOP.load(Ordering::Relaxed) || args.stop_at.is_some_and(|n| step >= n);
            if step % args.every == 0 || step == steps || stopped {
                training.save(args, &path)?;
            }
            if stopped {
                break;
            }
        }
    }
    bar.finish_and_clear();
    let logits = training.model.forward(&Var::constant(test.0))?;
    let step = training.position.step;
    say(&format!("steps done        {step} of {steps}"));
    say(&format!("test accuracy     {:.2} %", 100.0 * accuracy(logits.value(), &test.1)?));
    say(&format!("weights checksum  {:016x}", training.checksum()));
    if step < steps {
        eprintln!("resume: stopped; the same command goes on");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A reader that went away is no reason to fail.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
