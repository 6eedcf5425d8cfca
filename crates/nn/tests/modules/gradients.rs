//! Every module, its inputs and all its parameters, against difference quotients.

use nn::prelude::*;

use super::assert_none;
use super::build::Subject;
use super::fixture::{Case, cases, fixture};

fn options(case: &Case<'_>) -> GradcheckOptions {
    GradcheckOptions { training: case.is_training().then_some(7), ..Default::default() }
}

/// The cases whose gradient is the derivative: the row for padding has none by intention.
fn smooth(case: &Case<'_>) -> bool {
    case.find("padding_idx").is_none()
}

#[test]
fn every_module_passes_gradcheck() {
    let (file, mut wrong) = (fixture(), Vec::new());
    for case in cases(&file).filter(smooth) {
        let mut subject = Subject::new(&case);
        let (inputs, label) = (case.inputs(0), case.label());
        let parameters = subject.parameter_count();
        let f = |m: &Subject, tape: &Tape<f64>, x: &[Var<f64>]| m.run(Some(tape), x);
        let report = gradcheck_module(&mut subject, &inputs, f, &options(&case)).unwrap();
        let all = inputs.iter().map(Tensor::numel).sum::<usize>() + parameters;
        if !report.passed() || !report.kinks.is_empty() || report.checked != all {
            wrong.push(format!("{label}: {all} derivatives: {report}"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_module_passes_gradgradcheck() {
    let (file, mut wrong) = (fixture(), Vec::new());
    for case in cases(&file).filter(smooth) {
        let mut subject = Subject::new(&case);
        let (inputs, label) = (case.inputs(0), case.label());
        let f = |m: &Subject, tape: &Tape<f64>, x: &[Var<f64>]| m.run(Some(tape), x);
        // In four random directions for a tensor of more elements: all of them take half a minute.
        let options = GradcheckOptions { max_elements: 4, ..options(&case) };
        match gradgradcheck_module(&mut subject, &inputs, f, &options) {
            Ok(report) if report.passed() && report.kinks.is_empty() => {}
            Ok(report) => wrong.push(format!("{label}: {report}")),
            Err(error) => wrong.push(format!("{label}: {error}")),
        }
    }
    assert_none(&wrong);
}

/// In training, dropout draws the same numbers at every evaluation of the checker.
#[test]
fn modules_with_dropout_pass_in_training() {
    let rng = &mut Generator::new(5);
    let random = |shape: &[usize], seed| Tensor::randn(shape, &mut Generator::new(seed)).unwrap();
    let x = random(&[2, 3, 4], 1);

    for mut layer in [boxed(Dropout::new(0.4)), boxed(Dropout1d::new(0.4))] {
        check(&mut layer, &x, |m, x| m.forward(x));
    }
    check(&mut Dropout2d::new(0.4), &random(&[2, 3, 2, 2], 2), |m, x| m.forward(x));

    let options = MultiheadAttentionOptions { dropout: 0.3, ..Default::default() };
    let mut layer = MultiheadAttention::new(4, 2, options, rng).unwrap();
    check(&mut layer, &x, |m, x| m.attend(x, x, x, &Attend::causal()));

    for norm_first in [false, true] {
        let options = TransformerEncoderLayerOptions {
            dim_feedforward: 5,
            dropout: 0.3,
            activation: Activation::GELU,
            norm_first,
            ..Default::default()
        };
        let mut layer = TransformerEncoderLayer::new(4, 2, options, rng).unwrap();
        check(&mut layer, &x, |m, x| m.encode(x, &Attend::causal()));
    }

    let options = RecurrentOptions { num_layers: 2, dropout: 0.3, ..Default::default() };
    check(&mut GRU::new(4, 3, options, rng).unwrap(), &x, |m, x| Ok(m.forward(x, None)?.0));
    check(&mut LSTM::new(4, 3, options, rng).unwrap(), &x, |m, x| Ok(m.forward(x, None)?.0));
}

fn boxed(m: impl Module<Elem = f64> + 'static) -> Box<dyn Module<Elem = f64>> {
    Box::new(m)
}

/// Both checkers, and that something was dropped.
fn check<M: Parameters<Elem = f64>>(
    module: &mut M,
    x: &Tensor<f64>,
    f: impl Fn(&M, &Var<f64>) -> Result<Var<f64>>,
) {
    let options = GradcheckOptions { training: Some(3), ..Default::default() };
    let name = std::any::type_name::<M>();
    let evaluated = f(module, &Var::constant(x.clone())).unwrap().into_value().to_vec();
    let trained = f(module, &Tape::training(3).constant(x.clone())).unwrap();
    assert_ne!(trained.value().to_vec(), evaluated, "{name}");
    let f = |m: &M, _: &Tape<f64>, x: &[Var<f64>]| f(m, &x[0]);
    let inputs = std::slice::from_ref(x);
    let report = gradcheck_module(module, inputs, f, &options).unwrap();
    assert!(report.passed() && report.kinks.is_empty(), "{name}: {report}");
    let report = gradgradcheck_module(module, inputs, f, &options).unwrap();
    assert!(report.passed() && report.kinks.is_empty(), "{name}: {report}");
}
