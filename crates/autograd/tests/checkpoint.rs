//! Activation checkpointing gives the bits that a computation without it gives.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use autograd::{
    Generator, GradcheckOptions, ParameterId, Result, Tape, Tensor, Var, checkpoint, grad,
    gradcheck, gradgradcheck,
};
use tensor::pool;

fn randn(shape: &[usize], seed: u64) -> Tensor<f64> {
    Tensor::randn(shape, &mut Generator::new(seed)).unwrap()
}

/// A layer with an activation: the segment that is computed twice.
fn layer(x: &[Var<f64>]) -> Result<Var<f64>> {
    let y = x[0].linear(&x[1], Some(&x[2]))?.tanh();
    // Several uses of one operand inside, so that the order of sums matters.
    Ok(&y * &x[0] + &x[0] * 0.3 + y.exp() * &x[0])
}

/// A loss over three segments that share a weight, which is used outside of them, too.
fn loss(x: &Var<f64>, w: &Var<f64>, b: &Var<f64>, checkpointed: bool) -> Result<Var<f64>> {
    let mut y = x.clone();
    for _ in 0..3 {
        y = if checkpointed {
            checkpoint(layer, &[&y, w, b])?
        } else {
            layer(&[y, w.clone(), b.clone()])?
        };
    }
    Ok((y.matmul(w)? * x).sum() + (w * w).sum())
}

#[test]
fn gradients_have_the_same_bits() {
    let inputs = [randn(&[3, 5], 1), randn(&[5, 5], 2), randn(&[5], 3)];
    let gradients = |checkpointed| {
        let tape = Tape::new();
        let v: Vec<_> = inputs.iter().map(|x| tape.var(x.clone())).collect();
        let y = loss(&v[0], &v[1], &v[2], checkpointed).unwrap();
        let grads = y.backward().unwrap();
        let bits = |x: &Var<f64>| {
            grads.wrt(x).unwrap().to_vec().into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        (y.item().unwrap().to_bits(), v.iter().map(bits).collect::<Vec<_>>())
    };
    assert_eq!(gradients(true), gradients(false));
}

#[test]
fn an_operand_given_twice_has_the_same_bits() {
    let twice = |x: &[Var<f64>]| Ok((&x[0] * &x[1]).exp() * &x[0] + &x[1] * 0.7);
    let x = randn(&[7], 5);
    let gradient = |checkpointed| {
        let v = Tape::new().var(x.clone());
        let y = match checkpointed {
            true => checkpoint(twice, &[&v, &v]).unwrap(),
            false => twice(&[v.clone(), v.clone()]).unwrap(),
        };
        (y * &v).sum().backward().unwrap().wrt(&v).unwrap().to_vec()
    };
    assert_eq!(gradient(true), gradient(false));
}

#[test]
fn dropout_draws_the_same_mask_both_times() {
    let dropped = |x: &[Var<f64>]| Ok(x[0].dropout(0.4)?.exp() * &x[0]);
    let x = randn(&[50], 6);
    let run = |checkpointed: bool, create_graph: bool| {
        let tape = Tape::training(3);
        let v = tape.var(x.clone());
        let first = v.dropout(0.5).unwrap();
        let y = match checkpointed {
            true => checkpoint(dropped, &[&first]).unwrap(),
            false => dropped(std::slice::from_ref(&first)).unwrap(),
        };
        // What is drawn afterwards is the same, too.
        let loss = (&y * &v.dropout(0.5).unwrap()).sum();
        let g = grad(&[&loss], &[&v], &[], create_graph).unwrap().remove(0).unwrap();
        (y.value().to_vec(), g.value().to_vec())
    };
    let plain = run(false, false);
    assert_eq!(run(true, false), plain);
    let recorded = run(true, true);
    assert_eq!(recorded.0, plain.0);
    for (a, b) in recorded.1.iter().zip(&plain.1) {
        assert!((a - b).abs() <= 1e-13 * (1.0 + b.abs()), "{a} ≠ {b}");
    }
}

#[test]
fn derivatives_of_any_order_pass_through() {
    let inputs = [randn(&[2, 3], 1), randn(&[3, 3], 2), randn(&[3], 3)];
    let options = GradcheckOptions::default();
    let f = |x: &[Var<f64>]| loss(&x[0], &x[1], &x[2], true);
    for report in [gradcheck(f, &inputs, &options), gradgradcheck(f, &inputs, &options)] {
        let report = report.unwrap();
        assert!(report.passed(), "{report}");
    }
}

#[test]
fn parameters_bound_inside_get_their_gradients() {
    let (id, w, x) = (ParameterId::new(), randn(&[4], 1), randn(&[4], 2));
    let gradient = |checkpointed: bool| {
        let tape = Tape::new();
        let value = w.clone();
        let f = move |x: &[Var<f64>]| {
            let w = x[0].tape().unwrap().bind(id, &value);
            Ok((&x[0] * &w).tanh() * &w)
        };
        let x = tape.constant(x.clone());
        let y = if checkpointed { checkpoint(f, &[&x]).unwrap() } else { f(&[x]).unwrap() };
        let w = tape.bind(id, &w);
        // Second order through the parameter as well.
        let g = grad(&[&(&y * &y).sum()], &[&w], &[], true).unwrap().remove(0).unwrap();
        let second = grad(&[&g.sum()], &[&w], &[], false).unwrap().remove(0).unwrap();
        let grads = (&y * &w).sum().backward().unwrap();
        (grads.parameter(id).unwrap().to_vec(), g.value().to_vec(), second.value().to_vec())
    };
    let (with, without) = (gradient(true), gradient(false));
    assert_eq!(with.0, without.0);
    for (a, b) in with.1.iter().chain(&with.2).zip(without.1.iter().chain(&without.2)) {
        assert!((a - b).abs() <= 1e-13 * (1.0 + b.abs()), "{a} ≠ {b}");
    }
}

#[test]
fn activations_are_not_kept() {
    let x = Tape::new().var(randn(&[100_000], 1));
    let start = pool::stats().live_bytes;
    let deep = |x: &[Var<f64>]| Ok(x[0].tanh().exp().tanh().exp().tanh());
    let y = checkpoint(deep, &[&x]).unwrap();
    let one = y.value().numel() * size_of::<f64>();
    assert!(pool::stats().live_bytes - start < 2 * one, "the result alone");
    let plain = deep(std::slice::from_ref(&x)).unwrap();
    assert!(pool::stats().live_bytes - start > 5 * one, "five results are saved");
    drop((y, plain));
}

#[test]
fn without_anything_tracked_it_is_the_function() {
    let x = Var::constant(randn(&[3], 1));
    let y = checkpoint(|x| Ok(x[0].exp()), &[&x]).unwrap();
    assert!(!y.is_tracked() && y.value().to_vec() == x.exp().value().to_vec());
}
