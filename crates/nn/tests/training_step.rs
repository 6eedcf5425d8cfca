//! Properties of a whole training step: memory, bits and threads, and what is left of the step
//! before.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use nn::optim::{
    Adagrad, AdagradOptions, ClipGrad, Ema, Lion, LionOptions, Muon, MuonOptions, RMSprop,
    RMSpropOptions,
};
use nn::prelude::*;
use tensor::pool;

/// The pool's counters belong to the process, so the tests take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network and the batch that every claim about speed is made for.
struct Training {
    model: Sequential<f32>,
    loss: CrossEntropyLoss<f32>,
    tape: Tape<f32>,
    x: Tensor<f32>,
    y: Tensor<i64>,
}

impl Training {
    fn new() -> Result<Self> {
        let mut rng = Generator::new(7);
        let model = Sequential::new()
            .append(Linear::new(784, 512, &mut rng)?)
            .append(ReLU::new())
            .append(Linear::new(512, 256, &mut rng)?)
            .append(ReLU::new())
            .append(Linear::new(256, 10, &mut rng)?);
        Ok(Training {
            model,
            loss: CrossEntropyLoss::new(CrossEntropyOptions::default())?,
            tape: Tape::new(),
            x: Tensor::rand([128, 784], &mut rng)?,
            y: Tensor::from_vec((0..128).map(|i| i * 7 % 10).collect(), [128])?,
        })
    }

    /// Logits and loss of the batch.
    fn forward(&self) -> Result<(Var<f32>, Var<f32>)> {
        let logits = self.model.forward(&self.tape.constant(self.x.clone()))?;
        let loss = self.loss.forward(&logits, &self.y)?;
        Ok((logits, loss))
    }

    fn step(&mut self, optimizer: &mut dyn Optimizer<f32>) -> Result<()> {
        let (_, loss) = self.forward()?;
        optimizer.step(&mut self.model, &loss.backward()?)
    }

    fn addresses(&self) -> Vec<*const f32> {
        let parameters = self.model.named_parameters();
        parameters.iter().map(|(_, p)| p.value().as_slice().unwrap().as_ptr()).collect()
    }
}

fn momentum() -> Sgd<f32> {
    Sgd::new(SgdOptions { lr: 0.05, momentum: 0.9, ..Default::default() }).unwrap()
}

fn adam_w() -> AdamW<f32> {
    AdamW::new(AdamOptions { weight_decay: 0.01, ..Default::default() }).unwrap()
}

/// Makes an optimiser for a network.
type Make = fn(&Training) -> Result<Box<dyn Optimizer<f32>>>;

/// One of each, with what each can keep.
const OPTIMIZERS: [(&str, Make); 7] = [
    ("Sgd", |_| Ok(Box::new(momentum()))),
    ("AdamW", |_| Ok(Box::new(adam_w()))),
    ("clipped Adam", |_| {
        let options = AdamOptions { amsgrad: true, maximize: true, ..Default::default() };
        Ok(Box::new(Adam::new(options)?.with_clip_grad(ClipGrad::Norm(1.0))?))
    }),
    ("RMSprop", |_| {
        let options = RMSpropOptions { centered: true, momentum: 0.9, ..Default::default() };
        Ok(Box::new(RMSprop::new(options)?.with_clip_grad(ClipGrad::Value(0.1))?))
    }),
    ("Adagrad", |_| Ok(Box::new(Adagrad::new(AdagradOptions::default())?))),
    ("Lion", |_| Ok(Box::new(Lion::new(LionOptions::default())?))),
    ("Muon", |training| {
        let all = training.model.named_parameters().into_iter();
        let matrices = all.filter(|(_, p)| p.value().rank() == 2).map(|(_, p)| p.id());
        Ok(Box::new(Muon::for_parameters(matrices, MuonOptions::default())?))
    }),
];

#[test]
fn a_steady_step_takes_no_fresh_block() {
    let _turn = alone();
    for (name, make) in OPTIMIZERS {
        let mut training = Training::new().unwrap();
        let mut optimizer = make(&training).unwrap();
        let mut ema = Ema::new(&training.model, 0.99).unwrap();
        let mut steps = |count| {
            for _ in 0..count {
                training.step(&mut *optimizer).unwrap();
                ema.update(&training.model).unwrap();
            }
            pool::stats()
        };
        let (early, late) = (steps(5), steps(45));
        assert_eq!(early.fresh_blocks, late.fresh_blocks, "{name}");
        assert_eq!(early.live_bytes, late.live_bytes, "{name}");
        assert_eq!(early.small_live_bytes, late.small_live_bytes, "{name}");
    }
}

#[test]
fn a_step_copies_no_parameter_while_the_loss_is_alive() {
    let _turn = alone();
    for (name, make) in OPTIMIZERS {
        let mut training = Training::new().unwrap();
        let before = training.addresses();
        let mut optimizer = make(&training).unwrap();
        for _ in 0..2 {
            let (logits, loss) = training.forward().unwrap();
            let grads = loss.backward().unwrap();
            let first = training.model.named_parameters()[0].1.value().to_vec();
            optimizer.step(&mut training.model, &grads).unwrap();
            assert_eq!(training.addresses(), before, "{name}");
            assert_ne!(training.model.named_parameters()[0].1.value().to_vec(), first, "{name}");
            drop((logits, loss));
        }
    }
}

#[test]
fn weights_have_the_same_bits_on_any_number_of_threads() {
    let _turn = alone();
    let trained = || {
        let (mut training, mut optimizer) = (Training::new().unwrap(), momentum());
        (0..20).for_each(|_| training.step(&mut optimizer).unwrap());
        let parameters = training.model.named_parameters();
        let all = parameters.iter().flat_map(|(_, p)| p.value().to_vec());
        all.map(f32::to_bits).collect::<Vec<_>>()
    };
    let expected = trained();
    for threads in [1, 2, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert!(pool.install(trained) == expected, "{threads} threads");
    }
}

/// Gradients of the summed loss of some rows, on a tape of their own.
fn gradients_of(
    model: &Sequential<f64>,
    x: Tensor<f64>,
    y: &Tensor<i64>,
) -> Result<Gradients<f64>> {
    let options = CrossEntropyOptions { reduction: Reduction::Sum, ..Default::default() };
    let logits = model.forward(&Tape::new().constant(x))?;
    CrossEntropyLoss::new(options)?.forward(&logits, y)?.backward()
}

#[test]
fn gradients_of_two_threads_add_up_to_those_of_the_batch() {
    const ROWS: usize = 64;
    const WIDEST: usize = 20;
    // A row's share of a weight's gradient is δ·a. Activations and inputs are at most 1; the δ of a
    // row's logits add up to at most 2, and weights are below 1, so that no share exceeds 2. It is
    // made of six sums of at most WIDEST terms, each with that many roundings, and ROWS shares are
    // added. Both sides may err by that much.
    const TOLERANCE: f64 = (2 * 2 * ROWS * (6 * WIDEST + ROWS)) as f64 * f64::EPSILON;

    let mut rng = Generator::new(3);
    let model = Sequential::<f64>::new()
        .append(Linear::new(WIDEST, 16, &mut rng).unwrap())
        .append(Tanh::new())
        .append(Linear::new(16, 10, &mut rng).unwrap());
    let x = Tensor::rand([ROWS, WIDEST], &mut rng).unwrap();
    let y = Tensor::from_vec((0..ROWS as i64).map(|i| i * 3 % 10).collect(), [ROWS]).unwrap();

    // Two parts of different sizes.
    let part = |start, rows| {
        let (x, y) = (x.narrow(0, start, rows).unwrap(), y.narrow(0, start, rows).unwrap());
        gradients_of(&model, x, &y).unwrap()
    };
    let (first, second) = std::thread::scope(|scope| {
        let (first, second) = (scope.spawn(|| part(0, 24)), scope.spawn(|| part(24, ROWS - 24)));
        (first.join().unwrap(), second.join().unwrap())
    });
    let whole = gradients_of(&model, x.clone(), &y).unwrap();
    for (name, parameter) in model.named_parameters() {
        let of = |grads: &Gradients<f64>| grads.parameter(parameter.id()).unwrap().to_vec();
        let (parts, whole) = (of(&first).into_iter().zip(of(&second)), of(&whole));
        assert!(whole.iter().any(|g| g.abs() > 0.01), "{name}: the tolerance means something");
        for ((a, b), sum) in parts.zip(whole) {
            assert!((a + b - sum).abs() <= TOLERANCE, "{name}: {a} + {b} ≠ {sum}");
        }
    }
}

#[test]
fn a_stale_variable_is_an_error_and_never_a_number() {
    let tape = Tape::new();
    let x = tape.var(Tensor::from_vec(vec![1.0_f64, 2.0], [2]).unwrap());
    let y = &x * &x;
    let grads = y.sum().backward().unwrap();
    assert_eq!(grads.wrt(&x).unwrap().to_vec(), [2.0, 4.0]);

    // Values still compute; gradients do not, alone or beside a variable that is tracked.
    let fresh = tape.var(Tensor::from_vec(vec![3.0, 5.0], [2]).unwrap());
    let derived = [y.sum(), (&y * 2.0).sum(), (&y * &fresh).sum(), (&fresh - &y).sum()];
    assert_eq!(derived.each_ref().map(|v| v.item().unwrap()), [5.0, 10.0, 23.0, 3.0]);
    for stale in &derived {
        assert!(!stale.is_tracked());
        assert!(matches!(stale.backward(), Err(Error::ConsumedTape { op: "backward" })));
        assert!(matches!(stale.retain(), Err(Error::ConsumedTape { op: "retain" })));
        let gradient = autograd::grad(&[stale], &[&fresh], &[], false);
        assert!(matches!(gradient, Err(Error::ConsumedTape { op: "grad" })));
    }

    // A later backward of the same tape knows neither the old variables nor what came of them.
    let later = (&fresh * &fresh).sum().backward().unwrap();
    assert_eq!(later.wrt(&fresh).unwrap().to_vec(), [6.0, 10.0]);
    for stale in [&x, &y].into_iter().chain(&derived) {
        assert!(matches!(later.wrt(stale), Err(Error::ConsumedTape { op: "wrt" })));
    }
    assert_eq!(grads.wrt(&x).unwrap().to_vec(), [2.0, 4.0]);
}

#[test]
fn gradients_cross_threads_and_models_are_shared() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<Gradients<f32>>();
    is_send::<Sequential<f32>>();
    is_sync::<Sequential<f32>>();
}
