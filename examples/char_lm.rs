//! Trains a small transformer on the characters of a text, and lets it write some of its own.
//!
//! `cargo run --release --example char_lm` learns from its own source code, in a minute or two;
//! `--text FILE` takes another text, `--help` lists the options. The last layer and the loss are one module,
//! which never holds the logits.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::data::{Characters, Passages};
use nn::prelude::*;

/// Train a small transformer on the characters of a text.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// The text; its last tenth is for validation. [default: the source code of this program]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Steps of training.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Largest learning rate; it falls to 0 along a cosine.
    #[arg(long, default_value_t = 0.003)]
    lr: f64,
    /// Share of the features that is dropped in training.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Characters to write at the end.
    #[arg(long, default_value_t = 400)]
    sample: usize,
    /// Decides the first weights, the passages and the sample.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Characters that the model sees at most, and passages of a step.
const CONTEXT: usize = 64;
const BATCH: usize = 16;
const WIDTH: usize = 64;
const HEADS: usize = 4;
const LAYERS: usize = 2;
/// Set by Ctrl-C: what was learnt so far is shown.
static STOP: AtomicBool = AtomicBool::new(false);

#[derive(Parameters)]
struct Model {
    characters: Embedding<f32>,
    positions: Embedding<f32>,
    encoder: TransformerEncoder<f32>,
    head: LinearCrossEntropyLoss<f32>,
}

impl Model {
    fn new(vocabulary: usize, dropout: f64, rng: &mut Generator) -> Result<Self> {
        let options = TransformerEncoderLayerOptions {
            dim_feedforward: 4 * WIDTH,
            activation: Activation::GELU,
            norm_first: true,
            dropout,
            ..Default::default()
        };
        let table = |rows: usize, rng: &mut Generator| -> Result<Embedding<f32>> {
            let mut table = Embedding::new(rows, WIDTH, rng)?;
            *table.weight.value_mut() = table.weight.value() * 0.1;
            Ok(table)
        };
        let last = Linear::new(WIDTH, vocabulary, rng)?;
        Ok(Model {
            characters: table(vocabulary, rng)?,
            positions: table(CONTEXT, rng)?,
            encoder: TransformerEncoder::new(LAYERS, WIDTH, HEADS, options, rng)?,
            head: LinearCrossEntropyLoss::new(last, Default::default())?,
        })
    }

    /// Features of each character, which see those before it; recorded where there is a tape.
    fn features(&self, text: &Tensor<i64>, tape: Option<&Tape<f32>>) -> Result<Var<f32>> {
        let [_, length] = text.dims("features")?;
        let places = Tensor::from_vec((0..length as i64).collect(), [length])?;
        let x = self.characters.forward(text, tape)?;
        let x = x.checked_add(&self.positions.forward(&places, tape).at("positions")?)?;
        self.encoder.encode(&x, &Attend::causal()).at("encoder")
    }
}

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn run(args: &Args) -> Result<ExitCode> {
    let text = match &args.text {
        None => include_str!("char_lm.rs").to_owned(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|source| Error::Io { path: path.clone(), source })?,
    };
    let characters = Characters::new(&text);
    let codes = characters.encode(&text)?;
    let (n, held_out) = (codes.numel(), codes.numel() / 10);
    if held_out <= CONTEXT {
        let reason = format!("needs more than {} characters", 10 * CONTEXT);
        return Err(Error::InvalidArgument { op: "char_lm", name: "text", reason });
    }
    let part = |from, length| Passages::new(codes.narrow(0, from, length)?, CONTEXT);
    let (training, validation) = (part(0, n - held_out)?, part(n - held_out, held_out)?);
    let (mut rng, mut order) =
        (Generator::with_stream(args.seed, 0), Generator::with_stream(args.seed, 1));
    let mut model = Model::new(characters.len(), args.dropout, &mut rng)?;
    let different = characters.len();
    println!("{}\n{n} characters, {different} different", Summary::of(&model));
    let mut optimizer =
        AdamW::new(AdamOptions { lr: args.lr, weight_decay: 0.01, ..Default::default() })?;
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(args.steps.into()));
    let schedule = CosineAnnealingLR::new(args.steps.into(), 0.0)?;
    let mut scheduler = LRScheduler::new(&mut optimizer, schedule)?;
    let tape = Tape::training(args.seed);
    for step in 1..=args.steps {
        let (x, y) = training.random(BATCH, &mut order)?;
        let x = model.features(&x, Some(&tape))?;
        let found = model.head.detailed(&x, &y, None)?;
        optimizer.step(&mut model, &found.loss.backward()?)?;
        scheduler.step(&mut optimizer)?;
        if let Some(bar) = &bar {
            bar.set_position(step.into());
        } else if step % (args.steps / 10).max(1) == 0 {
            let right = 100.0 * found.correct as f64 / found.valid as f64;
            println!("step {step}  loss {:.3}  right {right:.1} %", found.loss.item()?);
        }
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    let of = |part: &Passages| -> Result<f64> {
        let (x, y) = part.random(BATCH, &mut Generator::new(args.seed))?;
        Ok(f64::from(model.head.forward(&model.features(&x, None)?, &y)?.item()?))
    };
    let (seen, unseen) = (of(&training)?, of(&validation)?);
    let mut written = codes.narrow(0, 0, CONTEXT.min(16))?.to_vec();
    for _ in 0..args.sample {
        let past = &written[written.len().saturating_sub(CONTEXT)..];
        let x = model.features(&Tensor::from_slice(past, [1, past.len()])?, None)?;
        let p = model.head.logits(&x.select(1, -1)?)?.softmax(1)?.into_value().to_vec();
        let mut left = Tensor::<f32>::rand([1], &mut order)?.item()?;
        let next = p.iter().take_while(|&&p| {
            left -= p;
            left >= 0.0
        });
        written.push((next.count().min(p.len() - 1)) as i64);
    }
    let sample = characters.decode(&Tensor::from_slice(&written, [written.len()])?)?;
    let (seen, unseen) = (seen.exp(), unseen.exp());
    println!("\n{sample}\n\nperplexity {seen:.2} of the training part, {unseen:.2} of the rest");
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}
