//! Tells the arms of a spiral apart, and draws where it decides for which.
//!
//! `cargo run --release --example spirals` takes some seconds and writes spirals.svg; `--help` lists the
//! options.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::ProgressBar;
use nn::prelude::*;
use nn::write_atomically;
use plotters::prelude::*;

/// Learn the arms of a spiral, and draw the decision.
#[derive(Parser)]
#[command(name = "spirals", max_term_width = 100, allow_negative_numbers = true)]
struct Args {
    /// Arms.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=6))]
    arms: u8,
    /// Points of an arm.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..100_000))]
    points: u32,
    /// Standard deviation of a point from its arm, which is 1 long.
    #[arg(long, default_value_t = 0.025)]
    noise: f64,
    /// Steps of training, on all points at once.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Decides the points and the first weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory for spirals.svg.
    #[arg(long, default_value = "runs/spirals")]
    out: PathBuf,
}

/// Set by Ctrl-C: what was learnt so far is drawn.
static STOP: AtomicBool = AtomicBool::new(false);
/// Colours of the arms.
const COLORS: [RGBColor; 6] = [
    RGBColor(214, 69, 65),
    RGBColor(52, 120, 196),
    RGBColor(60, 150, 80),
    RGBColor(235, 160, 40),
    RGBColor(130, 80, 170),
    RGBColor(80, 170, 180),
];
/// Cells of the picture along a side.
const CELLS: usize = 100;

fn main() -> ExitCode {
    run(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(2)
    })
}

/// Points `[N, 2]` around the arms, and which arm is whose.
fn spiral(args: &Args, rng: &mut Generator) -> Result<(Tensor<f32>, Tensor<i64>)> {
    let (arms, per_arm) = (usize::from(args.arms), args.points as usize);
    let noise = Tensor::<f64>::randn([arms * per_arm, 2], rng)?.to_vec();
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for (i, noise) in noise.chunks(2).enumerate() {
        let (arm, along) = (i % arms, (i / arms) as f64 / per_arm as f64);
        let radius = 0.05 + 0.95 * along;
        let angle = std::f64::consts::TAU * (1.25 * along + arm as f64 / arms as f64);
        x.push((radius * angle.cos() + args.noise * noise[0]) as f32);
        x.push((radius * angle.sin() + args.noise * noise[1]) as f32);
        y.push(arm as i64);
    }
    let n = y.len();
    Ok((Tensor::from_vec(x, [n, 2])?, Tensor::from_vec(y, [n])?))
}

fn run(args: &Args) -> Result<ExitCode> {
    if !(args.noise.is_finite() && args.noise >= 0.0) {
        let reason = format!("must be finite and not negative, found {}", args.noise);
        return Err(Error::InvalidArgument { op: "spirals", name: "noise", reason });
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|source| Error::Io { path: args.out.clone(), source })?;
    let mut rng = Generator::new(args.seed);
    let (train, test) = (spiral(args, &mut rng)?, spiral(args, &mut rng)?);
    let mut model = Sequential::new()
        .append(Linear::new(2, 64, &mut rng)?)
        .append(SiLU::new())
        .append(Linear::new(64, 64, &mut rng)?)
        .append(SiLU::new())
        .append(Linear::new(64, args.arms.into(), &mut rng)?);
    println!("{}", Summary::of(&model));
    let criterion = CrossEntropyLoss::new(CrossEntropyOptions::default())?;
    let mut optimizer = AdamW::new(AdamOptions { lr: 0.01, ..Default::default() })?;
    let schedule = CosineAnnealingLR::new(args.steps.into(), 0.0)?;
    let mut scheduler = LRScheduler::new(&mut optimizer, schedule)?;
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(args.steps.into()));
    let tape = Tape::new();
    for step in 1..=args.steps {
        let logits = model.forward(&tape.constant(train.0.clone()))?;
        let loss = criterion.forward(&logits, &train.1)?;
        optimizer.step(&mut model, &loss.backward()?)?;
        scheduler.step(&mut optimizer)?;
        match &bar {
            Some(bar) => bar.inc(1),
            None if step % (args.steps / 10).max(1) == 0 => {
                let right = 100.0 * accuracy(logits.value(), &train.1)?;
                println!("step {step:5}  loss {:.4}  accuracy {right:.2} %", loss.item()?);
            }
            None => {}
        }
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    let predict = |x: &Tensor<f32>| model.forward(&Var::constant(x.clone()));
    let fresh = 100.0 * accuracy(predict(&test.0)?.value(), &test.1)?;
    // The middles of the cells, row by row from the bottom.
    let middle = |i: usize| -1.2 + 2.4 * (i as f32 + 0.5) / CELLS as f32;
    let cells = (0..CELLS * CELLS).flat_map(|i| [middle(i % CELLS), middle(i / CELLS)]);
    let cells = Tensor::from_vec(cells.collect(), [CELLS * CELLS, 2])?;
    let p = predict(&cells)?.softmax(1)?.into_value().to_vec();
    let picture = args.out.join("spirals.svg");
    write_atomically(&picture, draw(args, &train, &p).unwrap_or_default().as_bytes())?;
    println!("wrote {}\naccuracy {fresh:.2} % on new points", picture.display());
    Ok(ExitCode::from(if STOP.load(Ordering::Relaxed) { 130 } else { 0 }))
}

/// The probabilities of the cells as colours, the points on top. Drawing into a string does not fail.
fn draw(
    args: &Args,
    (x, y): &(Tensor<f32>, Tensor<i64>),
    p: &[f32],
) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (640, 660)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption("arms, and what is decided where", ("sans-serif", 18))
            .margin(10)
            .build_cartesian_2d(-1.2_f32..1.2, -1.2_f32..1.2)?;
        let side = 2.4 / CELLS as f32;
        chart.draw_series(p.chunks(args.arms.into()).enumerate().map(|(i, p)| {
            let corner = |i: usize| -1.2 + side * i as f32;
            let (left, bottom) = (corner(i % CELLS), corner(i / CELLS));
            // A mixture of the colours, as light as it is undecided.
            let mix = |channel: fn(&RGBColor) -> u8| {
                let sum: f32 =
                    p.iter().zip(&COLORS).map(|(p, color)| p * f32::from(channel(color))).sum();
                (0.45 * sum + 0.55 * 255.0) as u8
            };
            let color = RGBColor(mix(|c| c.0), mix(|c| c.1), mix(|c| c.2));
            Rectangle::new([(left, bottom), (left + side, bottom + side)], color.filled())
        }))?;
        let points = x.to_vec();
        chart.draw_series(points.chunks(2).zip(y.to_vec()).map(|(x, arm)| {
            Circle::new((x[0], x[1]), 3, COLORS[arm as usize % COLORS.len()].filled())
        }))?;
        root.present()?;
    }
    Ok(svg)
}
