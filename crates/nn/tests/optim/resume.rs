//! State saved and loaded: the same bits as without a break, and nothing changed by a state that does
//! not fit.

use nn::optim::lr_scheduler::*;
use nn::optim::{
    Adagrad, AdagradOptions, AdjustLr, ClipGrad, Ema, Grouped, LionOptions, LionRule, MuonOptions,
    MuonRule, RMSpropOptions, RMSpropRule, Rates, Rule, StateDict,
};
use nn::optim::{AdagradRule, AdamRule, AdamWRule, ParamGroups, SgdRule};
use nn::prelude::*;

use super::Several;

/// Everything that a training run has, in f32, where a rounded rate would be seen.
struct Run<R: Rule> {
    model: Several<f32>,
    optimizer: Grouped<R, f32>,
    scheduler: LRScheduler<SequentialLR>,
    plateau: ReduceLROnPlateau,
    ema: Ema<f32>,
}

impl<R: Rule> Run<R> {
    fn new(options: &R::Options, matrices: bool) -> Result<Self> {
        let mut model = Several::of_the_fixture();
        if matrices {
            *model.0[1].1.value_mut() = Tensor::ones([1, 5])?;
        }
        let mut optimizer = Grouped::new(options.clone())?;
        optimizer.add_param_group([model.id(1)], options.clone())?;
        let mut optimizer = optimizer.with_clip_grad(ClipGrad::Norm(3.0))?;
        let schedule = SequentialLR::new(
            vec![Box::new(LinearLR::new(0.3, 1.0, 4)?), Box::new(ExponentialLR::new(0.9)?)],
            vec![4],
        )?;
        let scheduler = LRScheduler::new(&mut optimizer, schedule)?;
        let plateau = PlateauOptions { patience: 2, factor: 0.7, ..Default::default() };
        let plateau = ReduceLROnPlateau::new(&mut optimizer, plateau)?;
        let ema = Ema::new(&model, 0.9)?;
        Ok(Run { model, optimizer, scheduler, plateau, ema })
    }

    fn steps(&mut self, steps: std::ops::Range<i64>) {
        for t in steps {
            let grads = self.model.fixture_gradients(t, &[]);
            self.optimizer.step(&mut self.model, &grads).unwrap();
            self.ema.update(&self.model).unwrap();
            self.scheduler.step(&mut self.optimizer).unwrap();
            self.plateau.step((t % 5) as f64, &mut self.optimizer).unwrap();
        }
    }

    /// All that a later step could see.
    fn bits(&mut self) -> Vec<u64> {
        let mut bits = self.model.bits();
        bits.extend(self.optimizer.rates().iter().map(|Rates { lr, .. }| lr.to_bits()));
        self.ema.swap(&mut self.model).unwrap();
        bits.extend(self.model.bits());
        self.ema.swap(&mut self.model).unwrap();
        bits
    }
}

fn resumes<R: Rule>(options: R::Options, matrices: bool) {
    let mut whole = Run::<R>::new(&options, matrices).unwrap();
    whole.steps(1..30);

    let mut first = Run::<R>::new(&options, matrices).unwrap();
    first.steps(1..13);
    let weights: Vec<_> = first.model.0.iter().map(|(_, p)| p.value().to_vec()).collect();
    let optimizer = first.optimizer.state_dict(&first.model).unwrap();
    let (scheduler, plateau) = (first.scheduler.state_dict(), first.plateau.state_dict());
    let ema = first.ema.state_dict(&first.model).unwrap();
    // What is saved is a copy, and the same from a file.
    first.steps(13..15);
    drop(first);
    let mut all = StateDict::default();
    all.insert("optimizer", optimizer);
    all.insert("scheduler", scheduler);
    all.insert("plateau", plateau);
    all.insert("ema", ema);
    let name = format!("gradus-{}-resume-{}.safetensors", std::process::id(), R::NAME);
    let path = std::env::temp_dir().join(name);
    all.save_safetensors(&path).unwrap();
    let all = StateDict::load_safetensors(&path).unwrap();
    StateDict::<f64>::load_safetensors(&path).unwrap_err();
    std::fs::remove_file(path).unwrap();
    let (optimizer, ema) = (all.scope("optimizer"), all.scope("ema"));
    let (scheduler, plateau) = (all.scope("scheduler").numbers, all.scope("plateau").numbers);

    let mut second = Run::<R>::new(&options, matrices).unwrap();
    for ((_, p), value) in second.model.0.iter_mut().zip(weights) {
        let shape = p.value().shape().to_vec();
        *p.value_mut() = Tensor::from_vec(value, shape).unwrap();
    }
    let model = &second.model;
    second.scheduler.load_state_dict(&mut second.optimizer, &scheduler).unwrap();
    second.optimizer.load_state_dict(model, &optimizer).unwrap();
    second.plateau.load_state_dict(&plateau).unwrap();
    second.ema.load_state_dict(model, &ema).unwrap();
    second.steps(13..30);
    assert_eq!(second.bits(), whole.bits(), "{}", R::NAME);

    // Without the optimiser's state it would not be the same, so that the test means something.
    let mut without = Run::<R>::new(&options, matrices).unwrap();
    without.steps(13..30);
    assert_ne!(without.bits(), whole.bits(), "{}", R::NAME);
}

#[test]
fn a_resumed_run_has_the_same_bits() {
    let sgd = SgdOptions { lr: 0.03, momentum: 0.9, dampening: 0.2, ..Default::default() };
    resumes::<SgdRule>(sgd, false);
    resumes::<SgdRule>(SgdOptions { dampening: 0.0, nesterov: true, ..sgd }, false);
    let adam = AdamOptions { lr: 0.03, weight_decay: 0.1, ..Default::default() };
    resumes::<AdamRule>(adam, false);
    resumes::<AdamWRule>(AdamOptions { amsgrad: true, maximize: true, ..adam }, false);
    let rmsprop = RMSpropOptions { centered: true, momentum: 0.8, ..Default::default() };
    resumes::<RMSpropRule>(rmsprop, false);
    resumes::<AdagradRule>(AdagradOptions { lr: 0.1, lr_decay: 0.1, ..Default::default() }, false);
    resumes::<LionRule>(LionOptions { lr: 0.01, ..Default::default() }, false);
    let adjust_lr_fn = AdjustLr::MatchRmsAdamw;
    resumes::<MuonRule>(MuonOptions { lr: 0.03, adjust_lr_fn, ..Default::default() }, true);
}

#[test]
fn options_come_with_the_state() {
    let model = Several::<f32>::of_the_fixture();
    let adjust_lr_fn = AdjustLr::SpectralUnclamped;
    let options = MuonOptions { lr: 0.7, ns_steps: 3, adjust_lr_fn, ..Default::default() };
    let options = MuonOptions { nesterov: false, ns_coefficients: (3.0, -4.0, 2.0), ..options };
    let saved = Grouped::<MuonRule, f32>::new(options).unwrap().state_dict(&model).unwrap();
    let mut other = Grouped::<MuonRule, f32>::new(MuonOptions::default()).unwrap();
    other.load_state_dict(&model, &saved).unwrap();
    assert_eq!(format!("{:?}", other.group_options(0)), format!("{:?}", Some(options)));
}

/// An Adam after two steps, and its state.
fn adam() -> (Several<f64>, Adam<f64>, StateDict<f64>) {
    let mut model = Several::of_the_fixture();
    let mut adam = Adam::new(AdamOptions { lr: 0.1, ..Default::default() }).unwrap();
    adam.add_param_group([model.id(1)], AdamOptions::default()).unwrap();
    for t in 1..3 {
        let grads = model.fixture_gradients(t, &[]);
        adam.step(&mut model, &grads).unwrap();
    }
    let state = adam.state_dict(&model).unwrap();
    (model, adam, state)
}

#[test]
fn names_are_pytorchs() {
    let (_, _, state) = adam();
    let tensors: Vec<_> = state.tensors.keys().map(String::as_str).collect();
    let expected =
        ["state.a.exp_avg", "state.a.exp_avg_sq", "state.b.exp_avg", "state.b.exp_avg_sq"];
    assert_eq!(tensors, expected);
    assert_eq!(state.tensors["state.a.exp_avg"].shape(), [4, 3]);
    assert_eq!(state.numbers["state.a.step"], 2.0);
    assert_eq!(state.numbers["param_groups.0.lr"], 0.1);
    assert_eq!(state.numbers["param_groups.1.betas.1"], 0.999);
    assert_eq!((state.numbers["group.a"], state.numbers["group.b"]), (0.0, 1.0));
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    type Change = fn(&mut StateDict<f64>) -> bool;
    let cases: [(Change, &str); 9] = [
        (
            |s| {
                s.tensors.insert("state.a.exp_avg".into(), Tensor::zeros([3, 4]).unwrap()).is_some()
            },
            "state.a.exp_avg has shape [3, 4], expected [4, 3]",
        ),
        (|s| s.tensors.remove("state.b.exp_avg_sq").is_some(), "state.b.exp_avg_sq is missing"),
        (|s| s.numbers.remove("state.b.step").is_some(), "state.b.step is missing"),
        (|s| s.numbers.remove("param_groups.1.lr").is_some(), "param_groups.1.lr is missing"),
        (
            |s| s.numbers.insert("param_groups.2.lr".into(), 0.1).is_some(),
            "param_groups.2.lr is unexpected",
        ),
        (
            |s| s.tensors.insert("state.c.exp_avg".into(), Tensor::scalar(0.0)).is_some(),
            "state.c.exp_avg is unexpected",
        ),
        (
            |s| s.numbers.insert("param_groups.0.betas.0".into(), 1.5).is_some(),
            "param_groups.0: Adam: betas must be in [0, 1), found 1.5",
        ),
        (|s| s.numbers.insert("group.b".into(), 0.0).is_some(), "group.b is 0, expected 1"),
        (
            |s| s.numbers.insert("state.a.step".into(), 1.5).is_some(),
            "state.a.step is 1.5, expected a whole number up to 9007199254740992",
        ),
    ];
    let (model, mut adam, state) = adam();
    for (change, text) in cases {
        let mut wrong = state.clone();
        wrong.numbers.insert("param_groups.0.lr".into(), 0.7);
        assert_eq!(change(&mut wrong), !text.ends_with("unexpected"), "{text}");
        let error = adam.load_state_dict(&model, &wrong).unwrap_err();
        assert_eq!(error.to_string(), format!("load_state_dict: {text}"));
        assert_eq!(adam.lr(), 0.1);
        let same = adam.state_dict(&model).unwrap();
        assert_eq!(same.numbers, state.numbers);
        for (name, value) in &state.tensors {
            assert_eq!(value.to_vec(), same.tensors[name].to_vec(), "{name}");
        }
    }
    // Of another optimiser: all that is wrong is said.
    let mut adagrad = Adagrad::<f64>::new(AdagradOptions::default()).unwrap();
    let text = adagrad.load_state_dict(&model, &state).unwrap_err().to_string();
    assert!(text.contains("param_groups.0.lr_decay is missing"), "{text}");
    assert!(text.contains("param_groups.0.betas.0 is unexpected"), "{text}");
    // A model that was not updated has nothing to save.
    let other = Several::of_the_fixture();
    let text = adam.state_dict(&other).unwrap_err().to_string();
    assert_eq!(text, "Adam: model has 0 of the 2 parameters that were updated");
}

#[test]
fn states_of_schedules_and_averages_are_checked_too() {
    let (model, mut adam, _) = adam();
    let mut scheduler = LRScheduler::new(&mut adam, ExponentialLR::new(0.5).unwrap()).unwrap();
    scheduler.step(&mut adam).unwrap();
    let good = scheduler.state_dict();
    let mut bad = good.clone();
    bad.insert("last_epoch".into(), -1.0);
    bad.remove("base_lrs.1");
    let text = scheduler.load_state_dict(&mut adam, &bad).unwrap_err().to_string();
    let expected =
        "base_lrs.1 is missing; last_epoch is -1, expected a whole number up to 9007199254740992";
    assert_eq!(text, format!("load_state_dict: {expected}"));
    assert_eq!((scheduler.state_dict(), adam.lr()), (good.clone(), 0.05));
    // The rates are set to those of the step.
    adam.set_lr(9.0);
    scheduler.load_state_dict(&mut adam, &good).unwrap();
    assert_eq!(adam.lr(), 0.05);

    let mut plateau = ReduceLROnPlateau::new(&mut adam, PlateauOptions::default()).unwrap();
    plateau.step(3.0, &mut adam).unwrap();
    let mut bad = plateau.state_dict();
    bad.insert("worst".into(), 0.0);
    bad.insert("best".into(), 1.0);
    let text = plateau.load_state_dict(&bad).unwrap_err().to_string();
    assert_eq!(text, "load_state_dict: worst is unexpected");
    assert_eq!(plateau.best(), 3.0);

    let mut ema = Ema::new(&model, 0.9).unwrap();
    let mut bad = ema.state_dict(&model).unwrap();
    bad.tensors.insert("module.a".into(), Tensor::zeros([12]).unwrap());
    bad.numbers.insert("n_averaged".into(), 7.0);
    let text = ema.load_state_dict(&model, &bad).unwrap_err().to_string();
    assert_eq!(text, "load_state_dict: module.a has shape [12], expected [4, 3]");
    assert_eq!(ema.n_averaged(), 0);
}
