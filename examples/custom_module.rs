//! A module of one's own: a struct with `#[derive(Parameters)]` and a `forward`. It fits a curve, and draws
//! the fit.
//!
//! `cargo run --release --example custom_module` prints its parameters, checks its gradients against difference
//! quotients, trains it, and writes curve.svg; `--help` lists the options.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::prelude::*;
use nn::write_atomically;
use plotters::prelude::*;

/// Fit a curve with a module of one's own.
#[derive(Parser)]
#[command(name = "custom_module", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Steps of training, on all points at once.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Blocks of the model.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(0..50))]
    blocks: u8,
    /// Decides the points, the frequencies and the first weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for curve.svg.
    #[arg(long, default_value = "runs/custom_module")]
    out: PathBuf,
}

/// Set by Ctrl-C: what was learnt so far is drawn.
static STOP: AtomicBool = AtomicBool::new(false);
const WIDTH: usize = 32;

/// `x + W₂·(gate·value)`, with gate and value from one linear layer.
#[derive(Parameters)]
struct Block<T: Float> {
    norm: LayerNorm<T>,
    gated: Linear<T>,
    out: Linear<T>,
}

impl<T: Float> Block<T> {
    fn new(rng: &mut Generator) -> Result<Self> {
        Ok(Block {
            norm: LayerNorm::new([WIDTH], NormOptions::default())?,
            gated: Linear::new(WIDTH, 2 * WIDTH, rng)?,
            out: Linear::new(WIDTH, WIDTH, rng)?,
        })
    }
}

impl<T: Float> Module for Block<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        let h = self.gated.forward(&self.norm.forward(x)?).at("gated")?;
        x.checked_add(&self.out.forward(&h.glu(-1)?)?)
    }
}

/// A curve from random waves: the frequencies are fixed, a buffer that is saved with the model; the rest
/// is learnt.
#[derive(Parameters)]
struct Curve<T: Float> {
    frequencies: Parameter<T>,
    blocks: Vec<Block<T>>,
    head: Linear<T>,
    #[parameters(skip)]
    scale: f64,
}

impl<T: Float> Curve<T> {
    fn new(blocks: usize, rng: &mut Generator) -> Result<Self> {
        let frequencies = Tensor::uniform([1, WIDTH / 2], 0.0, 20.0, rng)?;
        let blocks = (0..blocks).map(|_| Block::new(rng)).collect::<Result<_>>()?;
        let head = Linear::new(WIDTH, 1, rng)?;
        Ok(Curve { frequencies: Parameter::buffer(frequencies), blocks, head, scale: 1.0 })
    }
}

impl<T: Float> Module for Curve<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        let waves = x.matmul(&self.frequencies.bind_like(x)).at("frequencies")?;
        let x = Var::cat(&[&waves.sin(), &waves.cos()], 1)?;
        let mut blocks = self.blocks.iter().enumerate();
        let x = blocks.try_fold(x, |x, (i, block)| block.forward(&x).at(i).at("blocks"))?;
        Ok(self.head.forward(&x).at("head")? * T::from_f64(self.scale))
    }
}

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

fn target(x: f32) -> f32 {
    (3.0 * x).sin() + 0.4 * (17.0 * x).sin() * (-x * x).exp()
}

fn run(args: &Args) -> Result<ExitCode> {
    std::fs::create_dir_all(&args.out)
        .map_err(|source| Error::Io { path: args.out.clone(), source })?;
    let mut rng = Generator::new(args.seed);
    let mut model = Curve::<f32>::new(args.blocks.into(), &mut rng)?;
    println!("{}", Summary::of(&model));

    // The same module in f64, against difference quotients in its input and all its parameters.
    let mut double = Curve::<f64>::new(1, &mut rng)?;
    let points = Tensor::uniform([3, 1], -1.0, 1.0, &mut rng)?;
    let forward = |m: &Curve<f64>, _: &Tape<f64>, x: &[Var<f64>]| m.forward(&x[0]);
    let report = gradcheck_module(&mut double, &[points], forward, &Default::default())?;
    println!("{report}");

    let n = 400;
    let x = Tensor::uniform([n, 1], -2.0, 2.0, &mut rng)?;
    let noise = Tensor::<f32>::randn([n, 1], &mut rng)?.to_vec();
    let y = x.to_vec().iter().zip(noise).map(|(&x, noise)| target(x) + 0.05 * noise).collect();
    let y = Var::constant(Tensor::from_vec(y, [n, 1])?);
    let criterion = MSELoss::new(Reduction::Mean)?;
    let mut optimizer =
        AdamW::new(AdamOptions { lr: 0.01, weight_decay: 0.1, ..Default::default() })?;
    let schedule = CosineAnnealingLR::new(args.steps.into(), 0.0)?;
    let mut scheduler = LRScheduler::new(&mut optimizer, schedule)?;
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(args.steps.into()));
    let tape = Tape::new();
    for step in 1..=args.steps {
        let loss = criterion.forward(&model.forward(&tape.constant(x.clone()))?, &y)?;
        optimizer.step(&mut model, &loss.backward()?)?;
        scheduler.step(&mut optimizer)?;
        match &bar {
            Some(bar) => bar.inc(1),
            None if step % (args.steps / 10).max(1) == 0 => {
                println!("step {step:4}  mean squared error {:.5}", loss.item()?);
            }
            None => {}
        }
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    let grid: Vec<f32> = (0..=400).map(|i| -2.0 + i as f32 / 100.0).collect();
    let fit = model.forward(&Var::constant(Tensor::from_slice(&grid, [grid.len(), 1])?))?;
    let fit = fit.into_value().to_vec();
    let square = |(&x, &y): (&f32, &f32)| (y - target(x)).powi(2);
    let error = (grid.iter().zip(&fit).map(square).sum::<f32>() / grid.len() as f32).sqrt();
    let points: Vec<(f32, f32)> = x.to_vec().into_iter().zip(y.value().to_vec()).collect();
    let picture = args.out.join("curve.svg");
    write_atomically(&picture, draw(&points, &grid, &fit).unwrap_or_default().as_bytes())?;
    println!(
        "wrote {}\nroot mean square from the curve without noise {error:.4}",
        picture.display()
    );
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}

/// Points, the curve they come from, and the fit. Drawing into a string does not fail.
fn draw(
    points: &[(f32, f32)],
    grid: &[f32],
    fit: &[f32],
) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (800, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("points, their curve, and the fit", ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(40)
            .build_cartesian_2d(-2.0_f32..2.0, -1.6_f32..1.6)?;
        chart.configure_mesh().light_line_style(TRANSPARENT).draw()?;
        let grey = RGBColor(150, 150, 150);
        chart.draw_series(points.iter().map(|&point| Circle::new(point, 2, grey.filled())))?;
        let truth = grid.iter().map(|&x| (x, target(x)));
        let key = |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color);
        chart.draw_series(LineSeries::new(truth, BLACK))?.label("without noise").legend(key(BLACK));
        let fit = grid.iter().copied().zip(fit.iter().copied());
        let line = LineSeries::new(fit, RED.stroke_width(2));
        chart.draw_series(line)?.label("fit").legend(key(RED));
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperRight).border_style(BLACK).draw()?;
    }
    Ok(svg)
}
