//! Saved and restored: the same bits, exact counts, and all or nothing.

use std::fs;

use nn::optim::lr_scheduler::{ExponentialLR, PlateauOptions, ReduceLROnPlateau};
use nn::optim::{Adagrad, AdagradOptions, Ema, StateDict};
use nn::prelude::*;
use nn::{Checkpoint, LoadOptions, Position, load_safetensors_with, load_state_dict_with};

use super::{Run, Scratch, bytes};

#[test]
fn a_resumed_run_has_the_same_bits() {
    let scratch = Scratch::new("bits");
    let mut whole = Run::new();
    whole.train(40, |_| {});
    for stop in [1, 6, 7, 8, 23, 39] {
        let mut first = Run::new();
        first.train(stop, |_| {});
        first.save(&scratch.file()).unwrap();
        first.train(stop + 1, |_| {}); // what comes after is not in it
        let mut second = Run::new();
        second.restore(&Checkpoint::load(scratch.file()).unwrap()).unwrap();
        second.train(40, |_| {});
        assert_eq!(second.bytes(), whole.bytes(), "stopped after {stop}");
    }
    // Each part counts, so that the test means something.
    let saved = Checkpoint::<f32>::load(scratch.file()).unwrap();
    type Spoil = fn(&mut Run);
    let spoils: [Spoil; 4] = [
        |run| run.noise = Generator::new(0),
        |run| run.optimizer = super::optimizer(&run.model),
        |run| run.scheduler.step(&mut run.optimizer).unwrap(),
        |run| run.position.batch -= 1,
    ];
    for (i, spoil) in spoils.into_iter().enumerate() {
        let mut other = Run::new();
        other.restore(&saved).unwrap();
        spoil(&mut other);
        other.train(40, |_| {});
        let weights = |run: &Run| run.model.first.weight.value().to_vec();
        assert_ne!(weights(&other), weights(&whole), "{i}");
    }
}

#[test]
fn what_is_loaded_is_what_was_saved() {
    let scratch = Scratch::new("exact");
    let run = {
        let mut run = Run::new();
        run.train(3, |_| {});
        run
    };
    let ema = Ema::new(&run.model, 0.9).unwrap();
    // Counts that an f64 does not hold.
    let position = Position { epoch: (1 << 53) + 1, batch: u64::MAX, step: u64::MAX - 1 };
    let checkpoint = run.checkpoint().unwrap().with_position(position);
    let text = "a line\nand \"another\" \\ \u{1} é 日本";
    let checkpoint = checkpoint
        .with_metadata("notes é", text)
        .with_metadata("empty", "")
        .with_generator("a name. with anything/é", &Generator::with_stream(1, u64::MAX))
        .with_state("ema", ema.state_dict(&run.model).unwrap())
        .unwrap()
        .with_state("nothing", StateDict::default())
        .unwrap();
    checkpoint.save(scratch.file()).unwrap();
    let loaded = Checkpoint::<f32>::load(scratch.file()).unwrap();
    assert_eq!(loaded.position(), position);
    assert_eq!(loaded.metadata()["notes é"], text);
    assert_eq!(loaded.metadata().len(), 2);
    assert_eq!(loaded.state("nothing").unwrap().numbers.len(), 0);
    let generator = loaded.generator("a name. with anything/é").unwrap();
    assert_eq!(generator.state(), Generator::with_stream(1, u64::MAX).state());
    assert_eq!(bytes(&loaded), fs::read(scratch.file()).unwrap());
    loaded.save(scratch.file()).unwrap();
    assert_eq!(bytes(&loaded), fs::read(scratch.file()).unwrap());
}

#[test]
fn every_bit_of_a_number_is_kept() {
    let scratch = Scratch::new("bits-of-numbers");
    let odd = [f64::NAN, -f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE / 3.0, f64::MAX, 0.1];
    let mut state = StateDict::<f64>::default();
    state.tensors.insert("x".into(), Tensor::from(odd));
    state.numbers.extend(odd.iter().enumerate().map(|(i, &x)| (i.to_string(), x)));
    let checkpoint = Checkpoint::new().with_state("odd", state).unwrap();
    checkpoint.save(scratch.file()).unwrap();
    let loaded = Checkpoint::<f64>::load(scratch.file()).unwrap();
    let state = loaded.state("odd").unwrap();
    for (i, x) in odd.iter().enumerate() {
        assert_eq!(state.numbers[&i.to_string()].to_bits(), x.to_bits());
        assert_eq!(state.tensors["x"].to_vec()[i].to_bits(), x.to_bits());
    }
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut saved = Run::new();
    saved.train(5, |_| {});
    let good = saved.checkpoint().unwrap();
    let state = |part| good.state(part).unwrap().clone();

    let mut wrong_model = state("model");
    wrong_model.tensors.insert("last.bias".into(), Tensor::zeros([4]).unwrap());
    wrong_model.tensors.remove("first.bias");
    let mut wrong_optimizer = state("optimizer");
    wrong_optimizer.tensors.remove("state.last.weight.exp_avg");
    let mut wrong_scheduler = state("scheduler");
    wrong_scheduler.numbers.insert("last_epoch".into(), 0.5);
    let with = |part, state| good.clone().with_state(part, state).unwrap();
    let only_model = || Checkpoint::new().with_model(&saved.model);
    let cases = [
        (
            with("model", wrong_model),
            "restore: first.bias is missing; last.bias has shape [4], expected [3]",
        ),
        (
            with("optimizer", wrong_optimizer),
            "load_state_dict: state.last.weight.exp_avg is missing",
        ),
        (
            with("scheduler", wrong_scheduler),
            "load_state_dict: last_epoch is 0.5, expected a whole number up to 9007199254740992",
        ),
        (Checkpoint::new(), "checkpoint: the checkpoint has no part \"model\", but none"),
        (only_model(), "checkpoint: the checkpoint has no part \"optimizer\", but model"),
        (
            only_model().with_optimizer(&saved.optimizer, &saved.model).unwrap(),
            "checkpoint: the checkpoint has no part \"scheduler\", but model, optimizer",
        ),
    ];
    let mut run = Run::new();
    run.train(2, |_| {});
    run.optimizer.set_lr(0.123); // by hand, so that no schedule gives it
    let before = run.bytes();
    for (checkpoint, text) in &cases {
        assert_eq!(run.restore(checkpoint).unwrap_err().to_string(), *text);
        assert_eq!(run.bytes(), before, "{text}");
    }
    let error = good.restore(&mut run.model, &mut run.optimizer, None).unwrap_err();
    assert!(error.to_string().ends_with("has a scheduler, and none was given"), "{error}");
    let mut adagrad = Adagrad::<f32>::new(AdagradOptions::default()).unwrap();
    let scheduler = Some(&mut run.scheduler as _);
    good.restore(&mut run.model, &mut adagrad, scheduler).unwrap_err();
    assert_eq!(run.bytes(), before);
    let error = good.generator("other").unwrap_err().to_string();
    assert_eq!(error, "checkpoint: the checkpoint has no generator \"other\", but noise");

    run.restore(&good).unwrap();
    assert_eq!(run.bytes(), saved.bytes());
}

#[test]
fn rates_that_were_set_by_hand_stay() {
    let mut run = Run::new();
    run.train(3, |_| {});
    run.optimizer.set_lr(0.5);
    let saved = run.checkpoint().unwrap();
    let mut other = Run::new();
    other.restore(&saved).unwrap();
    assert_eq!(other.optimizer.lr(), 0.5);
    // The other kind of scheduler, and a schedule of another formula.
    let options = PlateauOptions { patience: 0, ..Default::default() };
    let mut plateau = ReduceLROnPlateau::new(&mut run.optimizer, options).unwrap();
    plateau.step(3.0, &mut run.optimizer).unwrap();
    let saved = run.checkpoint().unwrap().with_scheduler(&plateau);
    let mut again = ReduceLROnPlateau::new(&mut run.optimizer, PlateauOptions::default()).unwrap();
    saved.restore(&mut run.model, &mut run.optimizer, Some(&mut again)).unwrap();
    assert_eq!(again.best(), 3.0);
    let schedule = ExponentialLR::new(0.5).unwrap();
    let mut misfit = LRScheduler::new(&mut run.optimizer, schedule).unwrap();
    saved.restore(&mut run.model, &mut run.optimizer, Some(&mut misfit)).unwrap_err();
}

#[test]
fn names_of_parts_are_checked() {
    for name in ["", "generator", "a.b", "numbers/a", "two words"] {
        let refused = Checkpoint::<f32>::new().with_state(name, StateDict::default());
        assert!(matches!(refused, Err(Error::InvalidArgument { .. })), "{name}");
    }
}

#[test]
fn loading_what_fits_says_what_did_not() {
    let run = Run::new();
    let mut state = nn::state_dict(&run.model);
    state.remove("first.bias");
    state.insert("head.weight".into(), Tensor::scalar(1.0));
    state.insert("last.bias".into(), Tensor::zeros([4]).unwrap());
    let mut model = Run::new().model;
    model.visit_mut(&mut nn::Visitor::new(&mut |_: &str, p: &mut Parameter<f32>| {
        *p.value_mut() = Tensor::zeros(p.value().shape()).unwrap();
    }));
    let all = |model: &super::Net| -> Vec<f32> {
        nn::state_dict(model).values().flat_map(Tensor::to_vec).collect()
    };
    let zeros = all(&model);
    let mut load = |strict, skip_mismatched| {
        load_state_dict_with(&mut model, &state, LoadOptions { strict, skip_mismatched })
    };
    let text = "load_state_dict: first.bias is missing; last.bias has shape [4], expected [3]; \
                head.weight is unexpected";
    assert_eq!(load(true, false).unwrap_err().to_string(), text);
    let text = "load_state_dict: last.bias has shape [4], expected [3]";
    assert_eq!(load(false, false).unwrap_err().to_string(), text);
    let text = "load_state_dict: first.bias is missing; head.weight is unexpected";
    assert_eq!(load(true, true).unwrap_err().to_string(), text);
    let report = load(false, true).unwrap();
    assert!(!report.is_complete());
    assert_eq!(report.loaded, ["first.weight", "last.weight"]);
    assert_eq!(
        report.to_string(),
        "loaded 2; missing: first.bias; unexpected: head.weight; \
         last.bias has shape [4], expected [3]"
    );
    assert_ne!(all(&model), zeros);
    assert_eq!(model.first.weight.value().to_vec(), run.model.first.weight.value().to_vec());
    assert_eq!(model.last.bias.as_ref().unwrap().value().to_vec(), [0.0; 3]);

    // From a file, where names that the model has not may be of any element type.
    let scratch = Scratch::new("report");
    let checkpoint = run.checkpoint().unwrap();
    let mut all = checkpoint.state("model").unwrap().clone();
    all.numbers.insert("f64".into(), 0.5);
    all.save_safetensors(scratch.file()).unwrap();
    let options = LoadOptions { strict: false, ..Default::default() };
    let report = load_safetensors_with(&mut model, scratch.file(), options).unwrap();
    assert_eq!(report.to_string(), "loaded 4; unexpected: numbers/f64");
    let text = load_safetensors(&mut model, scratch.file()).unwrap_err().to_string();
    assert_eq!(text, "load_safetensors: numbers/f64 is unexpected");
}
