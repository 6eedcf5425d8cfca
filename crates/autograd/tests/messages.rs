//! Mistakes in the use of a tape are sentences that say what to do.

use autograd::{Anomaly, Error, Generator, Gradients, ParameterId, Tape, Tensor, Var};

fn x() -> (Tape<f64>, Var<f64>) {
    let tape = Tape::new();
    let x = tape.var(Tensor::from([1.0, -2.0]));
    (tape, x)
}

#[test]
fn each_mistake_says_what_to_do() {
    let (_, v) = x();
    let y = v.exp();
    assert_eq!(
        y.backward().unwrap_err().to_string(),
        "backward: the output has shape [2], not one element; reduce it or pass the upstream \
         gradient to `backward_with`"
    );
    let loss = y.sum();
    let grads = loss.backward().unwrap();
    let consumed = "this variable's tape was consumed by backward; record the computation again \
                    for another gradient";
    assert_eq!(loss.backward().unwrap_err().to_string(), format!("backward: {consumed}"));
    assert_eq!(loss.backward_retain().unwrap_err().to_string(), format!("backward: {consumed}"));
    assert_eq!(
        grads.wrt(&Var::constant(Tensor::scalar(1.0))).unwrap_err().to_string(),
        "wrt: this variable is not tracked; create it with `tape.var` (or bind a parameter)"
    );
    let (_, other) = x();
    assert_eq!(
        v.checked_add(&other).unwrap_err().to_string(),
        "add: the operands are on two different tapes; create every variable on one of them"
    );
    assert_eq!(
        grads.wrt(&other).unwrap_err().to_string(),
        "wrt: the operands are on two different tapes; create every variable on one of them"
    );
    let (tape, v) = x();
    let y = v.exp();
    let unused = tape.var(Tensor::scalar(1.0));
    let grads = y.sum().backward().unwrap();
    assert_eq!(
        grads.wrt(&y).unwrap_err().to_string(),
        "wrt: the gradient of a result of `exp` is not kept; call `retain()` on it before backward"
    );
    assert_eq!(
        grads.wrt(&unused).unwrap_err().to_string(),
        "wrt: the output does not depend on this variable, so it has no gradient"
    );
}

#[test]
fn an_anomaly_names_the_operation_and_the_line() {
    let (tape, v) = x();
    tape.detect_anomaly(Some(Anomaly::NotFinite));
    let line = line!() + 1;
    let y = v.log();
    let text = tape.anomaly().unwrap_err().to_string();
    let place = format!("tests/messages.rs:{line}:");
    assert!(text.starts_with("log: its result is the first with NaN or inf; recorded at "));
    assert!(text.contains(&place), "{text}");
    // The first one, not those that follow from it; and backward says it.
    let loss = (y * 2.0).exp().sum();
    assert_eq!(loss.backward().unwrap_err().to_string(), text);

    // A value that is finite, with a gradient that is not.
    let small = tape.var(Tensor::from([1e-310, 1.0]));
    let line = line!() + 1;
    let logarithm = small.log();
    let text = logarithm.sum().backward().unwrap_err().to_string();
    assert!(text.starts_with("log: its gradient is the first with NaN or inf"), "{text}");
    assert!(text.contains(&format!("tests/messages.rs:{line}:")), "{text}");

    // Infinity alone is none where NaN is looked for.
    tape.detect_anomaly(Some(Anomaly::Nan));
    let zero = tape.var(Tensor::from([0.0, 1.0]));
    assert!(zero.log().sum().backward().is_ok());
    tape.detect_anomaly(None);
    assert!(tape.var(Tensor::from([-1.0])).log().sum().backward().is_ok());
}

#[test]
fn a_retained_tape_gives_the_same_gradients_again() {
    let (tape, v) = x();
    let kept = v.exp();
    kept.retain().unwrap();
    let loss = (&kept * &v).sum();
    let first = loss.backward_retain().unwrap();
    let nodes = tape.len();
    let second = loss.backward_retain().unwrap();
    assert_eq!(tape.len(), nodes);
    let last = loss.backward().unwrap();
    for variable in [&v, &kept] {
        let bits = |g: &Gradients<f64>| g.wrt(variable).unwrap().to_vec();
        assert_eq!(bits(&first), bits(&second));
        assert_eq!(bits(&first), bits(&last));
    }
    assert!(tape.is_empty());
}

#[test]
fn gradients_add_scale_and_clip() {
    let (id, w) = (ParameterId::new(), Tensor::from([3.0_f64, 4.0]));
    let gradients = |factor: f64| {
        let tape = Tape::new();
        (tape.bind(id, &w) * factor).sum().backward().unwrap()
    };
    let mut sum = gradients(3.0);
    sum.add_assign(&gradients(1.0)).unwrap();
    assert_eq!(sum.parameter(id).unwrap().to_vec(), [4.0, 4.0]);
    sum.scale(0.5);
    assert_eq!(sum.parameter(id).unwrap().to_vec(), [2.0, 2.0]);
    assert_eq!(sum.norm(), 8.0_f64.sqrt());
    assert_eq!(sum.clip_norm(10.0).unwrap(), 8.0_f64.sqrt());
    assert_eq!(sum.parameter(id).unwrap().to_vec(), [2.0, 2.0], "nothing to clip");
    sum.clip_norm(1.0).unwrap();
    assert!((sum.norm() - 1.0).abs() < 1e-15);
    sum.clip_value(0.5).unwrap();
    assert_eq!(sum.parameter(id).unwrap().to_vec(), [0.5, 0.5]);

    assert!(sum.clip_norm(0.0).is_err() && sum.clip_value(f64::NAN).is_err());
    let mut wild = gradients(f64::INFINITY);
    let text = wild.clip_norm(1.0).unwrap_err().to_string();
    assert_eq!(text, "clip_norm: gradients have norm inf, which no factor makes finite");
    assert_eq!(wild.parameter(id).unwrap().to_vec(), [f64::INFINITY; 2], "unchanged");

    // Gradients of variables add up where they come from one recording.
    let tape = Tape::new();
    let v = tape.var(Tensor::from([1.0, 2.0]));
    let y = (&v * &v).sum();
    let mut twice = y.backward_retain().unwrap();
    twice.add_assign(&y.backward().unwrap()).unwrap();
    assert_eq!(twice.wrt(&v).unwrap().to_vec(), [4.0, 8.0]);
    let shape = Tape::new();
    let other = (shape.bind(id, &Tensor::scalar(1.0)) * 1.0).backward().unwrap();
    assert!(matches!(sum.add_assign(&other), Err(Error::ShapeMismatch { .. })));
}

#[test]
fn the_picture_of_a_tape_shows_nodes_and_lines() {
    let (tape, v) = x();
    let _ = (&v * 2.0).softmax(0).unwrap().sum();
    let dot = tape.to_dot();
    assert!(dot.starts_with("digraph tape {") && dot.trim_end().ends_with('}'));
    for part in ["leaf\\n[2]", "mul_scalar", "softmax\\n[2]", "sum\\n[]", "n0 -> n1", "n2 -> n3"] {
        assert!(dot.contains(part), "{part} in {dot}");
    }
    assert!(dot.contains("messages.rs:"), "{dot}");
}

#[test]
fn training_mode_travels_with_the_tape() {
    let (evaluation, training) = (Tape::<f64>::new(), Tape::<f64>::training(7));
    assert!(!evaluation.is_training() && evaluation.generator().is_none());
    let draw = |tape: &Tape<f64>| tape.generator().unwrap().uniform();
    let (first, second) = (draw(&training), draw(&training));
    assert_ne!(first, second);
    assert_eq!(first, draw(&Tape::training(7)));
    assert_ne!(first, draw(&Tape::training(8)));
    assert_eq!(Generator::with_stream(7, 0).uniform(), first);
}
