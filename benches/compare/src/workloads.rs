//! Our side: each workload as a step to repeat, and what the machine allows at best.

use nn::prelude::*;

use crate::limits::Limits;

pub const LR: f64 = 1e-6; // No step changes much, so none meets subnormal numbers.
const ELEMENTS: usize = 1 << 20;
const CHAIN: usize = 1000;

/// A workload: its name (the same as in pytorch.py), and the ratio that is the goal.
pub struct Workload {
    pub name: String,
    pub kind: Kind,
    /// Goals for PyTorch's time over ours, with one thread and with two.
    pub goal: [f64; 2],
}

pub enum Kind {
    CrossEntropy { rows: usize, classes: usize, smoothing: f64 },
    LinearCrossEntropy { rows: usize, features: usize, classes: usize, smoothing: f64 },
    Step { sizes: [usize; 4], batch: usize, adamw: bool },
    Map(&'static str),
    Record(&'static str),
}

pub fn all() -> Vec<Workload> {
    let mut all = Vec::new();
    for (rows, classes, exact, smoothed) in [
        (32, 10, [10.0; 2], [10.0; 2]),
        (64, 10, [10.0; 2], [10.0; 2]),
        (128, 1000, [2.0, 1.7], [2.5; 2]),
        (1024, 1000, [2.0, 1.7], [2.5; 2]),
        (2048, 32000, [8.0; 2], [8.0; 2]),
        (512, 131_072, [8.0; 2], [8.0; 2]),
    ] {
        for (smoothing, goal) in [(0.0, exact), (0.1, smoothed)] {
            let name = format!("cross_entropy/{rows}x{classes}/{smoothing}");
            all.push(Workload {
                name,
                kind: Kind::CrossEntropy { rows, classes, smoothing },
                goal,
            });
        }
    }
    for (rows, features, classes) in [(1024, 256, 32000), (512, 512, 131_072)] {
        for (smoothing, goal) in [(0.0, 1.3), (0.1, 1.8)] {
            let name = format!("linear_cross_entropy/{rows}x{features}x{classes}/{smoothing}");
            let kind = Kind::LinearCrossEntropy { rows, features, classes, smoothing };
            all.push(Workload { name, kind, goal: [goal; 2] });
        }
    }
    for (sizes, batch, goal) in
        [([64, 128, 64, 10], 64, [6.0; 2]), ([784, 512, 256, 10], 128, [1.1, 1.3])]
    {
        for (adamw, optimizer) in [(false, "sgd"), (true, "adamw")] {
            let [a, b, c, d] = sizes;
            let name = format!("step/{a}-{b}-{c}-{d}/{batch}/{optimizer}");
            all.push(Workload { name, kind: Kind::Step { sizes, batch, adamw }, goal });
        }
    }
    for f in ["exp", "tanh", "gelu", "sigmoid", "layer_norm", "softmax"] {
        let name = format!("map/{f}");
        all.push(Workload { name, kind: Kind::Map(f), goal: [1.2; 2] });
    }
    for op in ["add", "mul by scalar", "mul"] {
        let name = format!("record/{op}");
        all.push(Workload { name, kind: Kind::Record(op), goal: [40.0; 2] });
    }
    all
}

impl Kind {
    /// A step, with all that it needs.
    pub fn prepare(&self) -> Result<Box<dyn FnMut()>> {
        let mut rng = Generator::new(0);
        match *self {
            Kind::CrossEntropy { rows, classes, smoothing } => {
                let x = Tensor::<f32>::randn([rows, classes], &mut rng)?;
                let y = Tensor::randint(0, classes as i64, [rows], &mut rng)?;
                let loss = CrossEntropyLoss::new(CrossEntropyOptions {
                    label_smoothing: smoothing,
                    ..Default::default()
                })?;
                let tape = Tape::new();
                Ok(Box::new(move || {
                    let x = tape.var(x.clone());
                    let grads = loss.forward(&x, &y).and_then(|loss| loss.backward());
                    std::hint::black_box(grads.expect("shapes that fit"));
                }))
            }
            Kind::LinearCrossEntropy { rows, features, classes, smoothing } => {
                let x = Tensor::<f32>::randn([rows, features], &mut rng)?;
                let scale = (features as f32).sqrt().recip();
                let w = Tensor::<f32>::randn([classes, features], &mut rng)? * scale;
                let y = Tensor::randint(0, classes as i64, [rows], &mut rng)?;
                let mut options = LinearCrossEntropyOptions::default();
                options.class.label_smoothing = smoothing;
                let tape = Tape::new();
                Ok(Box::new(move || {
                    let (x, w) = (tape.var(x.clone()), tape.var(w.clone()));
                    let loss = x.linear_cross_entropy(&w, None, &y, &options);
                    let grads = loss.and_then(|loss| loss.backward());
                    std::hint::black_box(grads.expect("shapes that fit"));
                }))
            }
            Kind::Step { sizes: [a, b, c, d], batch, adamw } => {
                let mut model = Sequential::<f32>::new()
                    .append(Linear::new(a, b, &mut rng)?)
                    .append(ReLU::new())
                    .append(Linear::new(b, c, &mut rng)?)
                    .append(ReLU::new())
                    .append(Linear::new(c, d, &mut rng)?);
                let mut optimizer: Box<dyn Optimizer<f32>> = if adamw {
                    let o = AdamOptions { lr: LR, weight_decay: 0.01, ..Default::default() };
                    Box::new(AdamW::new(o)?)
                } else {
                    Box::new(Sgd::new(SgdOptions { lr: LR, momentum: 0.9, ..Default::default() })?)
                };
                let loss = CrossEntropyLoss::new(CrossEntropyOptions::default())?;
                let x = Tensor::<f32>::randn([batch, a], &mut rng)?;
                let y = Tensor::randint(0, d as i64, [batch], &mut rng)?;
                let tape = Tape::new();
                Ok(Box::new(move || {
                    let step = model.forward(&tape.constant(x.clone()));
                    let grads = step.and_then(|x| loss.forward(&x, &y)?.backward());
                    let done = grads.and_then(|grads| optimizer.step(&mut model, &grads));
                    done.expect("shapes that fit");
                }))
            }
            Kind::Map(f) => {
                let shape = [1024, ELEMENTS / 1024];
                let x = Var::constant(Tensor::<f32>::randn(shape, &mut rng)?);
                Ok(Box::new(move || {
                    let y = match f {
                        "exp" => Ok(x.exp()),
                        "tanh" => Ok(x.tanh()),
                        "gelu" => Ok(x.gelu()),
                        "sigmoid" => Ok(x.sigmoid()),
                        "layer_norm" => x.layer_norm(&shape[1..], None, None, 1e-5),
                        _ => x.softmax(1),
                    };
                    std::hint::black_box(y.expect("shapes that fit"));
                }))
            }
            Kind::Record(op) => {
                let tape = Tape::<f32>::new();
                let one = tape.constant(Tensor::ones([1])?);
                Ok(Box::new(move || {
                    let x = tape.var(one.value().clone());
                    let mut y = x.clone();
                    for _ in 0..CHAIN {
                        y = match op {
                            "add" => &y + &one,
                            "mul" => &y * &one,
                            _ => &y * 1.0,
                        };
                    }
                    std::hint::black_box(y.backward().expect("one tracked number"));
                }))
            }
        }
    }

    /// Seconds that a step takes at least on this machine, where something is known about it.
    pub fn at_best(&self, limits: &Limits) -> Option<f64> {
        match *self {
            Kind::CrossEntropy { rows, classes, .. } => {
                let n = (rows * classes) as f64;
                // Read the logits, write the gradient: 12 bytes with the read for ownership.
                let moved = if n * 4.0 > limits.cache { 12.0 * n / limits.copy } else { 0.0 };
                Some(moved.max(n * limits.exp))
            }
            Kind::LinearCrossEntropy { rows, features, classes, .. } => {
                Some(6.0 * (rows * features * classes) as f64 / limits.gemm)
            }
            Kind::Step { sizes: [a, b, c, d], batch, .. } => {
                // Forward, gradients of weights, gradients of inputs but the first.
                let products = 3 * (a * b + b * c + c * d) - a * b;
                Some(2.0 * (batch * products) as f64 / limits.gemm)
            }
            Kind::Map(_) | Kind::Record(_) => None,
        }
    }

    /// The bytes of the gradients, for a workload whose memory is of interest.
    pub fn gradients(&self) -> Option<f64> {
        match *self {
            Kind::LinearCrossEntropy { rows, features, classes, .. } => {
                Some(4.0 * (features * (rows + classes)) as f64)
            }
            _ => None,
        }
    }
}
