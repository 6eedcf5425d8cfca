//! `#[derive(Parameters)]`: names, order, element types, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use nn::prelude::*;

fn linear(seed: u64) -> Linear<f64> {
    Linear::new(2, 3, &mut Generator::new(seed)).unwrap()
}

fn scalar(x: f64) -> Parameter<f64> {
    Parameter::new(Tensor::scalar(x))
}

fn names<M: Parameters>(model: &M) -> Vec<String> {
    nn::state_dict(model).into_keys().collect()
}

fn visited<M: Parameters>(model: &M) -> Vec<String> {
    let mut all = Vec::new();
    model.visit(&mut nn::Visitor::new(&mut |path, _| all.push(path.to_owned())));
    all
}

#[derive(Parameters)]
struct Everything<T: Float> {
    plain: Parameter<T>,
    module: Linear<T>,
    none: Option<Linear<T>>,
    some: Option<Parameter<T>>,
    list: Vec<Linear<T>>,
    pair: [Parameter<T>; 2],
    by_name: BTreeMap<String, Parameter<T>>,
    boxed: Box<dyn Module<Elem = T>>,
    r#type: Parameter<T>,
    running: Parameter<T>,
    #[parameters(skip)]
    #[expect(dead_code, reason = "what is skipped has no parameters")]
    heads: usize,
}

fn everything() -> Everything<f64> {
    let named = |name: &str, x| (name.to_owned(), scalar(x));
    Everything {
        plain: scalar(1.0),
        module: linear(0),
        none: None,
        some: Some(scalar(2.0)),
        list: vec![linear(1), linear(2)],
        pair: [scalar(3.0), scalar(4.0)],
        by_name: BTreeMap::from([named("b", 5.0), named("a", 6.0)]),
        boxed: Box::new(Sequential::new().append(Tanh::new()).append(linear(3))),
        r#type: scalar(7.0),
        running: Parameter::buffer(Tensor::scalar(8.0)),
        heads: 2,
    }
}

#[test]
fn every_kind_of_field_is_named_after_its_path_in_order() {
    let mut model = everything();
    let want = [
        "plain",
        "module.weight",
        "module.bias",
        "some",
        "list.0.weight",
        "list.0.bias",
        "list.1.weight",
        "list.1.bias",
        "pair.0",
        "pair.1",
        "by_name.a",
        "by_name.b",
        "boxed.1.weight",
        "boxed.1.bias",
        "type",
        "running",
    ];
    assert_eq!(visited(&model), want);
    let mut mutable = Vec::new();
    model.visit_mut(&mut nn::Visitor::new(&mut |path, _| mutable.push(path.to_owned())));
    assert_eq!(mutable, want);
    assert_eq!(model.named_parameters().len(), want.len() - 1);
    assert_eq!(model.named_buffers()[0].0, "running");
    assert_eq!(model.parameter_count(), 4 * 9 + 7);
}

#[test]
fn tuples_and_structs_without_fields_that_count() {
    #[derive(Parameters)]
    struct Pair(Linear<f32>, #[parameters(skip)] usize, Parameter<f32>);
    let layer = Linear::without_bias(1, 1, &mut Generator::new(0)).unwrap();
    let pair = Pair(layer, 0, Parameter::new(Tensor::scalar(1.0)));
    assert_eq!((names(&pair), pair.1), (vec!["0.weight".to_owned(), "2".to_owned()], 0));

    #[derive(Parameters)]
    #[parameters(elem = f32)]
    struct Nothing;
    assert_eq!(names(&Nothing).len(), 0);
}

#[test]
fn frozen_models_get_no_gradients_and_keep_their_buffers() {
    let mut model = everything();
    model.set_frozen(true);
    let tape = Tape::training(0);
    let y = model.module.forward(&tape.var(Tensor::zeros([1, 2]).unwrap())).unwrap().sum();
    tape.leave_buffer(model.running.id(), Tensor::scalar(-1.0));
    let grads = y.backward().unwrap();
    assert!(model.missing_gradients(&grads).is_empty());
    Sgd::new(SgdOptions::default()).unwrap().step(&mut model, &grads).unwrap();
    assert_eq!(model.running.value().item().unwrap(), 8.0);
    model.running.set_frozen(false);
    Sgd::new(SgdOptions::default()).unwrap().step(&mut model, &grads).unwrap();
    assert_eq!(model.running.value().item().unwrap(), -1.0);
}

#[test]
fn what_cannot_be_derived_is_said() {
    // The compiler's part of the expected text is that of one release.
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output().unwrap().stdout;
    if !String::from_utf8_lossy(&version).starts_with("rustc 1.95.") {
        println!("skipped: the messages are recorded for rustc 1.95");
        return;
    }
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
