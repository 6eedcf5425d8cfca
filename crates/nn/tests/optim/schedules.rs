//! Schedules beside PyTorch's, and what they refuse.

use nn::optim::lr_scheduler::*;
use nn::optim::{Adagrad, AdagradOptions, ParamGroups};
use nn::prelude::*;

use super::{Several, fixture, floats};

/// PyTorch multiplies from step to step where the formulas here start anew: 45 roundings of numbers
/// below 1.
const TOLERANCE: f64 = 1e-12;

/// Two groups that begin with 0.1 and 0.02.
fn optimizer() -> Sgd<f64> {
    let options = SgdOptions { lr: 0.1, momentum: 0.9, ..Default::default() };
    let mut optimizer = Sgd::new(options).unwrap();
    let model = Several::<f64>::of_the_fixture();
    optimizer.add_param_group([model.id(1)], SgdOptions { lr: 0.02, ..options }).unwrap();
    optimizer
}

fn named(name: &str) -> Result<Box<dyn Schedule>> {
    let one_cycle = OneCycleOptions { max_lr: vec![0.5], total_steps: 40, ..Default::default() };
    Ok(match name {
        "StepLR" => Box::new(StepLR::new(10, 0.5)?),
        "MultiStepLR" => Box::new(MultiStepLR::new([12, 5, 12, 30], 0.3)?),
        "ExponentialLR" => Box::new(ExponentialLR::new(0.93)?),
        "LambdaLR" => Box::new(LambdaLR::new(|t| 1.0 / (1.0 + t as f64))),
        "LinearLR" => Box::new(LinearLR::new(0.25, 0.8, 12)?),
        "CosineAnnealingLR" => Box::new(CosineAnnealingLR::new(15, 0.001)?),
        "CosineAnnealingWarmRestarts" => Box::new(CosineAnnealingWarmRestarts::new(4, 2, 0.001)?),
        "CosineAnnealingWarmRestarts equal" => {
            Box::new(CosineAnnealingWarmRestarts::new(7, 1, 0.0)?)
        }
        "OneCycleLR" => {
            Box::new(OneCycleLR::new(OneCycleOptions { max_lr: vec![0.5, 0.3], ..one_cycle })?)
        }
        "OneCycleLR linear" => Box::new(OneCycleLR::new(OneCycleOptions {
            pct_start: 0.25,
            anneal_strategy: Anneal::Linear,
            cycle_momentum: false,
            div_factor: 10.0,
            final_div_factor: 100.0,
            ..one_cycle
        })?),
        "OneCycleLR three phases" => Box::new(OneCycleLR::new(OneCycleOptions {
            three_phase: true,
            base_momentum: 0.8,
            max_momentum: 0.9,
            ..one_cycle
        })?),
        "SequentialLR" => Box::new(SequentialLR::new(
            vec![
                Box::new(LinearLR::new(0.1, 1.0, 8)?),
                Box::new(CosineAnnealingLR::new(20, 0.001)?),
                Box::new(ExponentialLR::new(0.9)?),
            ],
            vec![8, 28],
        )?),
        other => panic!("{other}"),
    })
}

fn plateau(name: &str) -> PlateauOptions {
    let base = PlateauOptions::default();
    match name {
        "ReduceLROnPlateau" => PlateauOptions { factor: 0.5, patience: 2, ..base },
        "ReduceLROnPlateau max" => PlateauOptions {
            mode: Mode::Max,
            factor: 0.3,
            patience: 1,
            threshold: 0.05,
            threshold_mode: ThresholdMode::Abs,
            cooldown: 3,
            min_lr: vec![0.002, 0.001],
            ..base
        },
        "ReduceLROnPlateau rel max" => {
            PlateauOptions { mode: Mode::Max, patience: 4, threshold: 0.1, eps: 1e-3, ..base }
        }
        other => panic!("{other}"),
    }
}

fn metric(t: usize) -> f64 {
    if t < 12 { (1000.0 / (1 + t) as f64).floor() / 1000.0 } else { 0.1 + (t % 3) as f64 / 10.0 }
}

/// Takes a schedule one step further.
type Advance = Box<dyn FnMut(usize, &mut Sgd<f64>)>;

#[test]
fn every_schedule_agrees_with_pytorch() {
    let file = fixture();
    let cases = file["schedules"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let mut optimizer = optimizer();
        let mut advance: Advance = if name.starts_with("ReduceLROnPlateau") {
            let mut s = ReduceLROnPlateau::new(&mut optimizer, plateau(name)).unwrap();
            Box::new(move |t, optimizer| s.step(metric(t), optimizer).unwrap())
        } else {
            let mut s = LRScheduler::new(&mut optimizer, named(name).unwrap()).unwrap();
            Box::new(move |_, optimizer| {
                s.step(optimizer).unwrap();
                let rates: Vec<f64> = optimizer.rates().iter().map(|r| *r.lr).collect();
                assert_eq!(s.last_lr(), rates);
            })
        };
        let (lrs, momenta) = (floats(&case["lr"]), case.get("momentum").map(floats));
        for (t, &want) in lrs.iter().enumerate() {
            let got = optimizer.lr();
            assert!((got - want).abs() <= TOLERANCE, "{name} at {t}: {got}, PyTorch {want}");
            let momentum = optimizer.group_options(1).unwrap().momentum;
            let want = momenta.as_ref().map_or(0.9, |momenta| momenta[t]);
            assert!((momentum - want).abs() <= TOLERANCE, "{name} at {t}: {momentum} {want}");
            if t + 1 == lrs.len() {
                let (got, want) =
                    (optimizer.group_options(1).unwrap().lr, case["second"].as_f64().unwrap());
                assert!((got - want).abs() <= TOLERANCE, "{name}: {got}, PyTorch {want}");
            }
            advance(t, &mut optimizer);
        }
    }
}

#[test]
fn a_cycle_ends() {
    let mut optimizer = optimizer();
    let mut scheduler = LRScheduler::new(&mut optimizer, named("OneCycleLR").unwrap()).unwrap();
    (0..40).try_for_each(|_| scheduler.step(&mut optimizer)).unwrap();
    let last = optimizer.lr();
    assert!((last - 0.5 / 25.0 / 1e4).abs() < 1e-18, "{last}");
    let text = scheduler.step(&mut optimizer).unwrap_err().to_string();
    assert_eq!(text, "LRScheduler: step 41 is past the end of the schedule, 40");
    assert_eq!((scheduler.last_epoch(), optimizer.lr()), (40, last));
    // Cycles so short that phases have no length.
    for total_steps in 1..6 {
        for three_phase in [false, true] {
            let options = OneCycleOptions {
                max_lr: vec![1.0],
                total_steps,
                three_phase,
                ..Default::default()
            };
            let schedule = OneCycleLR::new(options).unwrap();
            let rates = (0..=total_steps).map(|step| schedule.lr(step, 0.0, 0));
            assert!(rates.into_iter().all(|lr| (0.0..=1.0).contains(&lr)), "{total_steps}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let text = |error: Result<()>| error.unwrap_err().to_string();
    let of = |name: &str| named(name).unwrap();
    assert_eq!(
        text(StepLR::new(0, 0.1).map(|_| ())),
        "StepLR: step_size must be positive, found 0"
    );
    let gamma = text(ExponentialLR::new(f64::NAN).map(|_| ()));
    assert_eq!(gamma, "ExponentialLR: gamma must be finite and not negative, found NaN");
    text(LinearLR::new(0.0, 1.0, 5).map(|_| ()));
    text(CosineAnnealingLR::new(5, f64::INFINITY).map(|_| ()));
    text(CosineAnnealingWarmRestarts::new(5, 0, 0.0).map(|_| ()));
    text(OneCycleLR::new(OneCycleOptions::default()).map(|_| ()));
    assert_eq!(
        text(SequentialLR::new(vec![of("StepLR"), of("StepLR")], vec![]).map(|_| ())),
        "SequentialLR: milestones must be one less than the 2 schedules, found 0"
    );
    text(SequentialLR::new(vec![of("StepLR"), of("StepLR"), of("StepLR")], vec![5, 5]).map(|_| ()));

    let mut two = optimizer();
    let plateau = PlateauOptions { min_lr: vec![0.1; 3], ..Default::default() };
    assert_eq!(
        text(ReduceLROnPlateau::new(&mut two, plateau).map(|_| ())),
        "ReduceLROnPlateau: min_lr must be 1 or 2 numbers, found 3"
    );
    let plateau = PlateauOptions { factor: 1.0, ..Default::default() };
    text(ReduceLROnPlateau::new(&mut two, plateau).map(|_| ()));

    // An optimiser of another shape: nothing is changed.
    let mut one = Sgd::<f64>::new(SgdOptions { lr: 0.7, ..Default::default() }).unwrap();
    let mut scheduler = LRScheduler::new(&mut two, of("StepLR")).unwrap();
    assert_eq!(text(scheduler.step(&mut one)), "LRScheduler: optimizer has 1 groups, expected 2");
    assert_eq!((scheduler.last_epoch(), one.lr()), (0, 0.7));
    let mut adagrad = Adagrad::<f64>::new(AdagradOptions::default()).unwrap();
    let cycle = OneCycleOptions { max_lr: vec![0.5], total_steps: 9, ..Default::default() };
    let cycle = OneCycleLR::new(cycle).unwrap();
    assert_eq!(
        text(LRScheduler::new(&mut adagrad, cycle).map(|_| ())),
        "LRScheduler: optimizer has no momentum for the schedule to change"
    );
    assert_eq!(adagrad.lr(), 1e-2);
    let text = LRScheduler::new(&mut one, of("OneCycleLR")).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text, "OneCycleLR: max_lr must be 1 or 1 numbers, found 2");
}

#[test]
fn a_schedule_works_over_a_boxed_optimizer_and_changes_betas() {
    let mut optimizer: Box<dyn Optimizer<f32>> =
        Box::new(AdamW::new(AdamOptions::default()).unwrap());
    let options = OneCycleOptions { max_lr: vec![0.5], total_steps: 9, ..Default::default() };
    let schedule = OneCycleLR::new(options).unwrap();
    let mut scheduler = LRScheduler::new(&mut *optimizer, schedule).unwrap();
    assert_eq!(optimizer.rates()[0].momentum.as_deref(), Some(&0.95));
    scheduler.step(&mut *optimizer).unwrap();
    assert!(**optimizer.rates()[0].momentum.as_ref().unwrap() < 0.95);
    // A rate that is set by hand lasts until the next step.
    let mut expected = scheduler.clone();
    optimizer.set_lr(7.0);
    scheduler.step(&mut *optimizer).unwrap();
    let mut other = AdamW::<f32>::new(AdamOptions::default()).unwrap();
    expected.step(&mut other).unwrap();
    assert_eq!(optimizer.lr(), other.lr());
}
