//! The workloads in burn and in candle: the same sizes, losses and optimisers, each in the words of
//! its framework. A process of its own for each, for the threads of candle are fixed at its start.

use std::io::{Result, stdin};

use burn::module::Module;
use burn::nn::loss::{CrossEntropyLoss, CrossEntropyLossConfig};
use burn::nn::{Linear, LinearConfig};
use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer, SgdConfig};
use burn::tensor::{Device, Distribution, Int, Tensor, activation::relu};
use candle_core::{DType, Result as CandleResult, Tensor as Candle, Var};
use candle_nn::{AdamW, Module as _, Optimizer, ParamsAdamW, VarBuilder, VarMap};

use crate::peer::Framework;
use crate::workloads::{self, Kind, LR};

type Step = Box<dyn FnMut()>;

/// Answers like pytorch.py, until the end of the input.
pub fn serve(framework: Framework) -> Result<()> {
    println!("{framework} {}", version(framework));
    let workloads = workloads::all();
    let (mut current, mut step) = (String::new(), None::<Step>);
    for line in stdin().lines() {
        let line = line?;
        let mut words = line.rsplitn(3, ' ');
        let repeats = words.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        let name = words.nth(1).unwrap_or_default();
        if current != name {
            drop(step.take()); // What the last one held goes first.
            current = name.to_owned();
            let workload = workloads.iter().find(|w| w.name == name);
            step = workload.and_then(|w| match framework {
                Framework::Burn => in_burn(&w.kind),
                _ => in_candle(&w.kind).expect("shapes that fit"),
            });
        }
        let Some(step) = &mut step else {
            println!("none");
            continue;
        };
        let start = std::time::Instant::now();
        (0..repeats).for_each(|_| step());
        println!("{}", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// As the lock file has it.
fn version(framework: Framework) -> &'static str {
    let package = match framework {
        Framework::Burn => "name = \"burn\"\nversion = \"",
        _ => "name = \"candle-core\"\nversion = \"",
    };
    let after = include_str!("../Cargo.lock").split(package).nth(1);
    after.and_then(|lock| lock.split('"').next()).unwrap_or("of unknown version")
}

#[derive(Module, Debug)]
struct Mlp {
    layers: [Linear; 3],
}

impl Mlp {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [a, b, c] = &self.layers;
        c.forward(relu(b.forward(relu(a.forward(x)))))
    }
}

fn in_burn(kind: &Kind) -> Option<Step> {
    let device = Device::flex().autodiff();
    let inputs = |rows: usize, columns: usize| {
        Tensor::<2>::random([rows, columns], Distribution::Normal(0.0, 1.0), &device)
    };
    let targets = |rows: usize, classes: usize| {
        let any = Distribution::Uniform(0.0, classes as f64);
        Tensor::<1, Int>::random([rows], any, &device)
    };
    match *kind {
        Kind::CrossEntropy { rows, classes, smoothing } => {
            let smoothing = (smoothing > 0.0).then_some(smoothing as f32);
            let loss = CrossEntropyLossConfig::new().with_smoothing(smoothing).init(&device);
            let (x, y) = (inputs(rows, classes), targets(rows, classes));
            Some(Box::new(move || {
                let x = x.clone().require_grad();
                let grads = loss.forward(x.clone(), y.clone()).backward();
                std::hint::black_box(x.grad(&grads).expect("the leaf has a gradient"));
            }))
        }
        Kind::Step { sizes: [a, b, c, d], batch, adamw } => {
            let layers =
                [(a, b), (b, c), (c, d)].map(|(i, o)| LinearConfig::new(i, o).init(&device));
            let mut model = Some(Mlp { layers });
            let mut optimizer: ModuleOptimizer = if adamw {
                AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.01).init()
            } else {
                let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
                SgdConfig::new().with_momentum(Some(momentum)).init()
            };
            let loss = CrossEntropyLoss::new(None, &device);
            let (x, y) = (inputs(batch, a), targets(batch, d));
            Some(Box::new(move || {
                let before = model.take().expect("put back below");
                let grads = loss.forward(before.forward(x.clone()), y.clone()).backward();
                let grads = GradientsParams::from_grads(grads, &before);
                model = Some(optimizer.step(LR, before, grads));
            }))
        }
        Kind::Map(_) | Kind::Record(_) => None,
    }
}

/// Neither smoothing nor momentum is there.
fn in_candle(kind: &Kind) -> CandleResult<Option<Step>> {
    let device = &candle_core::Device::Cpu;
    let targets = |rows: usize, classes: usize| {
        Candle::rand(0_f32, classes as f32, rows, device)?.to_dtype(DType::U32)
    };
    match *kind {
        Kind::CrossEntropy { rows, classes, smoothing: 0.0 } => {
            let x = Var::randn(0_f32, 1.0, (rows, classes), device)?;
            let y = targets(rows, classes)?;
            Ok(Some(Box::new(move || {
                let loss = candle_nn::loss::cross_entropy(&x, &y);
                let grads = loss.and_then(|loss| loss.backward()).expect("shapes that fit");
                std::hint::black_box(grads.get(&x).expect("the leaf has a gradient"));
            })))
        }
        Kind::Step { sizes: [a, b, c, d], batch, adamw: true } => {
            let weights = VarMap::new();
            let root = VarBuilder::from_varmap(&weights, DType::F32, device);
            let model = candle_nn::seq()
                .add(candle_nn::linear(a, b, root.pp("a"))?)
                .add(candle_nn::Activation::Relu)
                .add(candle_nn::linear(b, c, root.pp("b"))?)
                .add(candle_nn::Activation::Relu)
                .add(candle_nn::linear(c, d, root.pp("c"))?);
            let options = ParamsAdamW { lr: LR, weight_decay: 0.01, ..Default::default() };
            let mut optimizer = AdamW::new(weights.all_vars(), options)?;
            let x = Candle::randn(0_f32, 1.0, (batch, a), device)?;
            let y = targets(batch, d)?;
            Ok(Some(Box::new(move || {
                let loss = model.forward(&x).and_then(|x| candle_nn::loss::cross_entropy(&x, &y));
                let done = loss.and_then(|loss| optimizer.backward_step(&loss));
                done.expect("shapes that fit");
            })))
        }
        _ => Ok(None),
    }
}
