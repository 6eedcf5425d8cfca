//! Times of training steps, of the fused loss, and of the tape itself.
//!
//! `cargo bench -p benches` runs all of it in about a minute; `RAYON_NUM_THREADS=1` makes it serial.
//! `compare/run` beside this file measures the same workloads in PyTorch, in turn.

use std::cell::LazyCell;
use std::time::Duration;

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use nn::prelude::*;

/// Small enough that every step meets all but the same numbers: a loss that falls to 0 would bring
/// subnormal moments, and with them another speed.
const LR: f64 = 1e-6;
const CHAIN: u64 = 1000;

criterion_main!(benches);
criterion_group!(benches, training_step, cross_entropy, tape);

/// Forward, loss, backward and update; elements are rows of the batch.
fn training_step(c: &mut Criterion) {
    let mut group = c.benchmark_group("training_step");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    for (sizes, batch) in [([64, 128, 64, 10], 64), ([784, 512, 256, 10], 128)] {
        group.sample_size(if sizes[0] == 64 { 50 } else { 10 });
        group.throughput(Throughput::Elements(batch as u64));
        let sgd = SgdOptions { lr: LR, momentum: 0.9, ..Default::default() };
        let adamw = AdamOptions { lr: LR, weight_decay: 0.01, ..Default::default() };
        let optimizers: [(&str, Box<dyn Optimizer<f32>>); 2] = [
            ("sgd", Box::new(Sgd::new(sgd).expect("options in range"))),
            ("adamw", Box::new(AdamW::new(adamw).expect("options in range"))),
        ];
        for (name, mut optimizer) in optimizers {
            let [a, b, c, d] = sizes;
            let id = BenchmarkId::new(name, format!("{a}-{b}-{c}-{d}, batch {batch}"));
            let mut training = Training::new(sizes, batch).expect("sizes that fit");
            group.bench_function(id, |bencher| {
                bencher.iter(|| training.step(&mut *optimizer).expect("shapes that fit"));
            });
        }
    }
}

struct Training {
    model: Sequential<f32>,
    loss: CrossEntropyLoss<f32>,
    tape: Tape<f32>,
    x: Tensor<f32>,
    y: Tensor<i64>,
}

impl Training {
    fn new([inputs, first, second, classes]: [usize; 4], batch: usize) -> Result<Self> {
        let mut rng = Generator::new(0);
        let model = Sequential::new()
            .append(Linear::new(inputs, first, &mut rng)?)
            .append(ReLU::new())
            .append(Linear::new(first, second, &mut rng)?)
            .append(ReLU::new())
            .append(Linear::new(second, classes, &mut rng)?);
        Ok(Training {
            model,
            loss: CrossEntropyLoss::new(CrossEntropyOptions::default())?,
            tape: Tape::new(),
            x: Tensor::randn([batch, inputs], &mut rng)?,
            y: Tensor::randint(0, classes as i64, [batch], &mut rng)?,
        })
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer<f32>) -> Result<()> {
        let logits = self.model.forward(&self.tape.constant(self.x.clone()))?;
        let grads = self.loss.forward(&logits, &self.y)?.backward()?;
        optimizer.step(&mut self.model, &grads)
    }
}

/// Loss and its gradient in the logits; elements are logits.
fn cross_entropy(c: &mut Criterion) {
    let mut group = c.benchmark_group("cross_entropy");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let mut rng = Generator::new(0);
    for (rows, classes) in [(32, 10), (64, 10), (1024, 1000), (2048, 32000)] {
        let elements = (rows * classes) as u64;
        if elements > 100_000 {
            group.sample_size(10).sampling_mode(SamplingMode::Flat);
            group.measurement_time(Duration::from_secs(2));
        }
        group.throughput(Throughput::Elements(elements));
        // Only where the command line's filter lets one of them run: the largest take a second.
        let logits = LazyCell::new(|| {
            let mut rng = Generator::new(1);
            Tensor::<f32>::randn([rows, classes], &mut rng).expect("a size that fits")
        });
        let targets = Tensor::randint(0, classes as i64, [rows], &mut rng).expect("some classes");
        let tape = Tape::new();
        for label_smoothing in [0.0, 0.1] {
            let options = CrossEntropyOptions { label_smoothing, ..Default::default() };
            let loss = CrossEntropyLoss::new(options).expect("options in range");
            let name = format!("smoothing {label_smoothing}");
            let id = BenchmarkId::new(name, format!("{rows}x{classes}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let x = tape.var(logits.clone());
                    loss.forward(&x, &targets).and_then(|l| l.backward()).expect("shapes that fit")
                });
            });
        }
    }
}

type Op<'a> = &'a dyn Fn(&Var<f32>) -> Var<f32>;

/// A chain of operations on one number, forward and backward: what recording costs. Elements are
/// operations.
fn tape(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_element_op");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(CHAIN));
    let tape = Tape::<f32>::new();
    let one = tape.constant(Tensor::ones([1]).expect("one number"));
    let ops: [(&str, Op); 3] =
        [("add", &|y| y + &one), ("mul", &|y| y * &one), ("mul_scalar", &|y| y * 1.0)];
    for (name, op) in ops {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let x = tape.var(one.value().clone());
                let y = (1..CHAIN).fold(op(&x), |y, _| op(&y));
                y.backward().expect("one tracked number")
            });
        });
    }
}
