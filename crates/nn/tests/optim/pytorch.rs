//! A hundred steps of each optimiser beside PyTorch's.

use nn::optim::{
    Adagrad, AdagradOptions, AdjustLr, ClipGrad, Ema, Grouped, Muon, MuonOptions, RMSprop,
    RMSpropOptions, Rule,
};
use nn::optim::{AdagradRule, AdamRule, AdamWRule, MuonRule, RMSpropRule, SgdRule};
use nn::prelude::*;
use serde_json::Value;

use super::{Several, fixture, floats};

/// Both sides do the same in f64, with some roundings in another order. A hundred steps carry them on;
/// only Muon amplifies them: five Newton–Schulz steps multiply what a small singular value has lost by
/// up to 3.4445⁵ = 485.
const TOLERANCE: f64 = 1e-10;

/// An option of a case, or what it is without it; in a group's own options first.
struct Case<'a>(&'a Value, bool);

impl Case<'_> {
    fn find(&self, name: &str) -> Option<&Value> {
        let own = self.0["second"].get(name).filter(|_| self.1);
        own.or_else(|| self.0["options"].get(name))
    }

    fn number(&self, name: &str, default: f64) -> f64 {
        self.find(name).map_or(default, |v| v.as_f64().unwrap())
    }

    fn flag(&self, name: &str, default: bool) -> bool {
        self.find(name).map_or(default, |v| v.as_bool().unwrap())
    }

    fn sgd(&self) -> SgdOptions {
        let o = SgdOptions::default();
        SgdOptions {
            lr: self.number("lr", o.lr),
            momentum: self.number("momentum", o.momentum),
            dampening: self.number("dampening", o.dampening),
            weight_decay: self.number("weight_decay", o.weight_decay),
            nesterov: self.flag("nesterov", o.nesterov),
            maximize: self.flag("maximize", o.maximize),
            allow_missing: true,
        }
    }

    fn adam(&self) -> AdamOptions {
        let o = AdamOptions::default();
        AdamOptions {
            lr: self.number("lr", o.lr),
            betas: self.find("betas").map_or(o.betas, |v| (floats(v)[0], floats(v)[1])),
            eps: self.number("eps", o.eps),
            weight_decay: self.number("weight_decay", o.weight_decay),
            amsgrad: self.flag("amsgrad", o.amsgrad),
            maximize: self.flag("maximize", o.maximize),
            allow_missing: true,
        }
    }

    fn rmsprop(&self) -> RMSpropOptions {
        let o = RMSpropOptions::default();
        RMSpropOptions {
            lr: self.number("lr", o.lr),
            alpha: self.number("alpha", o.alpha),
            eps: self.number("eps", o.eps),
            weight_decay: self.number("weight_decay", o.weight_decay),
            momentum: self.number("momentum", o.momentum),
            centered: self.flag("centered", o.centered),
            maximize: self.flag("maximize", o.maximize),
            allow_missing: true,
        }
    }

    fn adagrad(&self) -> AdagradOptions {
        let o = AdagradOptions::default();
        let initial = self.number("initial_accumulator_value", o.initial_accumulator_value);
        AdagradOptions {
            lr: self.number("lr", o.lr),
            lr_decay: self.number("lr_decay", o.lr_decay),
            weight_decay: self.number("weight_decay", o.weight_decay),
            initial_accumulator_value: initial,
            eps: self.number("eps", o.eps),
            maximize: self.flag("maximize", o.maximize),
            allow_missing: true,
        }
    }

    fn muon(&self) -> MuonOptions {
        let o = MuonOptions::default();
        MuonOptions {
            lr: self.number("lr", o.lr),
            weight_decay: self.number("weight_decay", o.weight_decay),
            momentum: self.number("momentum", o.momentum),
            nesterov: self.flag("nesterov", o.nesterov),
            ns_steps: self.number("ns_steps", o.ns_steps.into()) as u32,
            adjust_lr_fn: match self.find("adjust_lr_fn").map(|v| v.as_str().unwrap()) {
                None => AdjustLr::Original,
                Some("match_rms_adamw") => AdjustLr::MatchRmsAdamw,
                Some("spectral_unclamped") => AdjustLr::SpectralUnclamped,
                Some(other) => panic!("{other}"),
            },
            ..o
        }
    }
}

fn built<'a, R: Rule + 'static>(
    case: &'a Value,
    model: &Several<f64>,
    options: impl Fn(&Case<'a>) -> R::Options,
) -> Result<Box<dyn Optimizer<f64>>> {
    let mut optimizer = Grouped::<R, f64>::new(options(&Case(case, false)))?;
    if !case["second"].is_null() {
        optimizer.add_param_group([model.id(1)], options(&Case(case, true)))?;
    }
    let clip = match (case["clip"]["norm"].as_f64(), case["clip"]["value"].as_f64()) {
        (Some(norm), _) => ClipGrad::Norm(norm),
        (_, Some(value)) => ClipGrad::Value(value),
        _ => ClipGrad::None,
    };
    Ok(Box::new(optimizer.with_clip_grad(clip)?))
}

#[test]
fn every_optimizer_agrees_for_a_hundred_steps() {
    let file = fixture();
    let snapshots = floats(&file["snapshots"]);
    let mut counts = std::collections::BTreeMap::new();
    for case in file["optimizers"].as_array().unwrap() {
        let kind = case["optimizer"].as_str().unwrap();
        *counts.entry(kind).or_insert(0) += 1;
        let mut model = Several::of_the_fixture();
        if kind == "Muon" {
            model.0.truncate(1);
        }
        let mut optimizer = match kind {
            "SGD" => built::<SgdRule>(case, &model, Case::sgd),
            "Adam" => built::<AdamRule>(case, &model, Case::adam),
            "AdamW" => built::<AdamWRule>(case, &model, Case::adam),
            "RMSprop" => built::<RMSpropRule>(case, &model, Case::rmsprop),
            "Adagrad" => built::<AdagradRule>(case, &model, Case::adagrad),
            "Muon" => built::<MuonRule>(case, &model, Case::muon),
            other => panic!("{other}"),
        }
        .unwrap();
        let mut ema = Ema::new(&model, 0.9).unwrap();
        let mut expected = case["values"].as_array().unwrap().iter();
        for t in 1..=100 {
            let none = case["missing"].as_bool().unwrap() && t % 3 == 0;
            let grads = model.fixture_gradients(t, if none { &[1] } else { &[] });
            optimizer.step(&mut model, &grads).unwrap();
            ema.update(&model).unwrap();
            if snapshots.contains(&(t as f64)) {
                let want = floats(expected.next().unwrap());
                assert_close(&model.values(), &want, &format!("{kind} {} {t}", case["options"]));
            }
        }
        assert!(expected.next().is_none());
        if let Some(want) = case.get("ema") {
            ema.swap(&mut model).unwrap();
            assert_close(&model.values(), &floats(want), "ema");
        }
    }
    let expected =
        [("Adagrad", 3), ("Adam", 3), ("AdamW", 3), ("Muon", 3), ("RMSprop", 4), ("SGD", 5)];
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), expected);
}

fn assert_close(got: &[f64], want: &[f64], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let largest = w.abs().max(1.0);
        assert!((g - w).abs() <= TOLERANCE * largest, "{what}: element {i}: {g}, PyTorch {w}");
    }
}

#[test]
fn options_begin_as_pytorchs() {
    let (muon, rmsprop) = (MuonOptions::default(), RMSpropOptions::default());
    assert_eq!((muon.lr, muon.weight_decay, muon.momentum), (1e-3, 0.1, 0.95));
    assert_eq!((muon.ns_coefficients, muon.eps), ((3.4445, -4.775, 2.0315), 1e-7));
    assert_eq!((rmsprop.lr, rmsprop.alpha, rmsprop.eps), (1e-2, 0.99, 1e-8));
    assert_eq!(AdagradOptions::default().eps, 1e-10);
    // The names are those of the types.
    fn names<T: std::fmt::Debug>(optimizer: Result<T>) -> String {
        format!("{:?}", optimizer.unwrap()).split('(').next().unwrap().to_owned()
    }
    assert_eq!(names(Muon::<f32>::new(muon)), "Muon");
    assert_eq!(names(RMSprop::<f32>::new(rmsprop)), "RMSprop");
    assert_eq!(names(Adagrad::<f32>::new(AdagradOptions::default())), "Adagrad");
}
