//! Checkpoints: the same bits after a break, damaged and foreign files, writers that fail, processes that
//! are killed, and weights that PyTorch saved.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod damage;
#[cfg(unix)]
mod kill;
mod pytorch;
mod restore;
mod writer;

use std::path::{Path, PathBuf};

use nn::prelude::*;
use nn::{Checkpoint, Position, Visitor};

const SEED: u64 = 17;
const FEATURES: usize = 5;
const CLASSES: usize = 3;
const BATCHES: u64 = 7;

/// A directory that goes when its test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("gradus-checkpoint-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("run.safetensors")
    }

    /// The names in the directory.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Two layers with dropout between them.
struct Net {
    first: Linear<f32>,
    last: Linear<f32>,
}

impl Parameters for Net {
    type Elem = f32;
    fn visit<'a>(&'a self, v: &mut Visitor<'_, &'a Parameter<f32>>) {
        v.scope("first", |v| self.first.visit(v));
        v.scope("last", |v| self.last.visit(v));
    }
    fn visit_mut<'a>(&'a mut self, v: &mut Visitor<'_, &'a mut Parameter<f32>>) {
        v.scope("first", |v| self.first.visit_mut(v));
        v.scope("last", |v| self.last.visit_mut(v));
    }
}

impl Module for Net {
    fn forward(&self, x: &Var<f32>) -> Result<Var<f32>> {
        self.last.forward(&self.first.forward(x)?.relu().dropout(0.3)?)
    }
}

/// Biases do not decay, and keep one number more than weights.
fn optimizer(model: &Net) -> AdamW<f32> {
    let options = AdamOptions { lr: 0.02, weight_decay: 0.05, ..Default::default() };
    let mut optimizer = AdamW::new(options).unwrap();
    let biases = [&model.first, &model.last].map(|l| l.bias.as_ref().unwrap().id());
    let options = AdamOptions { weight_decay: 0.0, amsgrad: true, ..options };
    optimizer.add_param_group(biases, options).unwrap();
    optimizer
}

/// All that a training run has.
struct Run {
    model: Net,
    optimizer: AdamW<f32>,
    scheduler: LRScheduler<CosineAnnealingLR>,
    noise: Generator,
    position: Position,
}

impl Run {
    fn new() -> Self {
        let mut rng = Generator::new(SEED);
        let first = Linear::new(FEATURES, 12, &mut rng).unwrap();
        let model = Net { first, last: Linear::new(12, CLASSES, &mut rng).unwrap() };
        let mut optimizer = optimizer(&model);
        let schedule = CosineAnnealingLR::new(400, 1e-4).unwrap();
        let scheduler = LRScheduler::new(&mut optimizer, schedule).unwrap();
        let noise = Generator::with_stream(SEED, 1);
        Run { model, optimizer, scheduler, noise, position: Position::default() }
    }

    fn save(&self, path: &Path) -> Result<()> {
        self.checkpoint()?.save(path)
    }

    fn checkpoint(&self) -> Result<Checkpoint<f32>> {
        Ok(Checkpoint::new()
            .with_model(&self.model)
            .with_optimizer(&self.optimizer, &self.model)?
            .with_scheduler(&self.scheduler)
            .with_generator("noise", &self.noise)
            .with_position(self.position))
    }

    fn restore(&mut self, checkpoint: &Checkpoint<f32>) -> Result<()> {
        let scheduler = Some(&mut self.scheduler as _);
        checkpoint.restore(&mut self.model, &mut self.optimizer, scheduler)?;
        self.noise = checkpoint.generator("noise")?;
        self.position = checkpoint.position();
        Ok(())
    }

    /// Trains until `steps` are done; `after` each of them.
    fn train(&mut self, steps: u64, mut after: impl FnMut(&Self)) {
        let mut rng = Generator::with_stream(SEED, 2);
        let rows = 4 * BATCHES as usize;
        let x = Tensor::<f32>::randn([rows, FEATURES], &mut rng).unwrap();
        let y = (0..rows as i64).map(|i| i % CLASSES as i64).collect();
        let data = TensorDataset::new(x, Tensor::from_vec(y, [rows]).unwrap()).unwrap();
        let options = DataLoaderOptions { batch_size: 4, seed: SEED, ..Default::default() };
        let loader = DataLoader::new(data, options).unwrap();
        while self.position.step < steps {
            let Position { epoch, batch, .. } = self.position;
            for rows in loader.epoch_from(epoch, batch as usize) {
                let (x, y) = rows.unwrap();
                if self.position.step == steps {
                    return;
                }
                self.step(x, &y).unwrap();
                self.position.batch += 1;
                if self.position.batch == BATCHES {
                    self.position = Position { epoch: epoch + 1, batch: 0, ..self.position };
                }
                after(self);
            }
        }
    }

    fn step(&mut self, x: Tensor<f32>, y: &Tensor<i64>) -> Result<()> {
        let noise = Tensor::<f32>::randn(x.shape(), &mut self.noise)?;
        let tape = Tape::training(SEED.wrapping_add(self.position.step));
        let logits = self.model.forward(&tape.constant(x + noise * 0.1))?;
        let loss = CrossEntropyLoss::new(CrossEntropyOptions::default())?;
        let grads = loss.forward(&logits, y)?.backward()?;
        self.optimizer.step(&mut self.model, &grads)?;
        self.scheduler.step(&mut self.optimizer)?;
        self.position.step += 1;
        Ok(())
    }

    /// All that a later step could see.
    fn bytes(&self) -> Vec<u8> {
        bytes(&self.checkpoint().unwrap())
    }
}

fn bytes(checkpoint: &Checkpoint<f32>) -> Vec<u8> {
    let mut bytes = Vec::new();
    checkpoint.write_to(&mut bytes).unwrap();
    bytes
}
