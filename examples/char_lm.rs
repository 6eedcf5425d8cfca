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
use nn::Visitor;
use nn::autograd::AttentionOptions;
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

struct Model {
    characters: Parameter<f32>,
    positions: Parameter<f32>,
    /// Attention (in, out) and a perceptron (up, down).
    blocks: Vec<[Linear<f32>; 4]>,
    head: LinearCrossEntropyLoss<f32>,
}

/// Attention and a perceptron, each on normalised input and added to it.
fn block([qkv, out, up, down]: &[Linear<f32>; 4], x: &Var<f32>) -> Result<Var<f32>> {
    let [n, length, _] = x.value().dims("block")?;
    let heads = qkv.forward(&x.layer_norm(&[WIDTH], None, None, 1e-5)?)?;
    let heads = heads.reshape([n, length, 3, HEADS, WIDTH / HEADS])?.permute(&[2, 0, 3, 1, 4])?;
    let part = |i| heads.select(0, i);
    let options = AttentionOptions { causal: true, ..Default::default() };
    let y = part(0)?.scaled_dot_product_attention(&part(1)?, &part(2)?, &options)?;
    let x = x + out.forward(&y.transpose(1, 2)?.reshape([n, length, WIDTH])?)?;
    let y = up.forward(&x.layer_norm(&[WIDTH], None, None, 1e-5)?)?.gelu();
    Ok(&x + down.forward(&y)?)
}

impl Model {
    fn new(vocabulary: usize, rng: &mut Generator) -> Result<Self> {
        let table = |rows: usize, rng: &mut Generator| -> Result<Parameter<f32>> {
            Ok(Parameter::new(Tensor::randn([rows, WIDTH], rng)? * 0.1))
        };
        let (characters, positions) = (table(vocabulary, rng)?, table(CONTEXT, rng)?);
        let mut blocks = Vec::new();
        for _ in 0..LAYERS {
            let mut layer = |from, to| Linear::new(from * WIDTH, to * WIDTH, rng);
            blocks.push([layer(1, 3)?, layer(1, 1)?, layer(1, 4)?, layer(4, 1)?]);
        }
        let last = Linear::new(WIDTH, vocabulary, rng)?;
        let head = LinearCrossEntropyLoss::new(last, Default::default())?;
        Ok(Model { characters, positions, blocks, head })
    }

    /// Features of each character; recorded on the tape of `on`, if it has one.
    fn features(&self, text: &Tensor<i64>, on: &Var<f32>) -> Result<Var<f32>> {
        let [_, length] = text.dims("features")?;
        let places = Tensor::from_vec((0..length as i64).collect(), [length])?;
        let x = self.characters.bind_like(on).embedding(text, None)?
            + self.positions.bind_like(on).embedding(&places, None)?;
        let x = self.blocks.iter().try_fold(x, |x, layers| block(layers, &x))?;
        x.layer_norm(&[WIDTH], None, None, 1e-5)
    }
}

impl Parameters for Model {
    type Elem = f32;

    fn visit<'a>(&'a self, v: &mut Visitor<'_, &'a Parameter<f32>>) {
        v.parameter("characters", &self.characters);
        v.parameter("positions", &self.positions);
        for (i, layer) in self.blocks.iter().flatten().enumerate() {
            v.scope(&format!("layers.{i}"), |v| layer.visit(v));
        }
        v.scope("head", |v| self.head.visit(v));
    }

    fn visit_mut<'a>(&'a mut self, v: &mut Visitor<'_, &'a mut Parameter<f32>>) {
        v.parameter("characters", &mut self.characters);
        v.parameter("positions", &mut self.positions);
        for (i, layer) in self.blocks.iter_mut().flatten().enumerate() {
            v.scope(&format!("layers.{i}"), |v| layer.visit_mut(v));
        }
        v.scope("head", |v| self.head.visit_mut(v));
    }
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
    let mut model = Model::new(characters.len(), &mut rng)?;
    let (parameters, different) = (model.parameter_count(), characters.len());
    println!("{parameters} parameters, {n} characters, {different} different");
    let mut optimizer =
        AdamW::new(AdamOptions { lr: args.lr, weight_decay: 0.01, ..Default::default() })?;
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(args.steps.into()));
    let tape = Tape::new();
    for step in 1..=args.steps {
        let done = f64::from(step - 1) / f64::from(args.steps);
        optimizer.set_lr(args.lr * (0.5 + 0.5 * (std::f64::consts::PI * done).cos()));
        let (x, y) = training.random(BATCH, &mut order)?;
        let x = model.features(&x, &tape.constant(Tensor::scalar(0.0)))?;
        let found = model.head.detailed(&x, &y, None)?;
        optimizer.step(&mut model, &found.loss.backward()?)?;
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
    let nowhere = Var::constant(Tensor::scalar(0.0));
    let of = |part: &Passages| -> Result<f64> {
        let (x, y) = part.random(BATCH, &mut Generator::new(args.seed))?;
        Ok(f64::from(model.head.forward(&model.features(&x, &nowhere)?, &y)?.item()?))
    };
    let (seen, unseen) = (of(&training)?, of(&validation)?);
    let mut written = codes.narrow(0, 0, CONTEXT.min(16))?.to_vec();
    for _ in 0..args.sample {
        let past = &written[written.len().saturating_sub(CONTEXT)..];
        let x = model.features(&Tensor::from_slice(past, [1, past.len()])?, &nowhere)?;
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
