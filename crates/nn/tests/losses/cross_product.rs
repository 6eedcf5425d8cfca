//! Every combination of the options against the definitions in [`nn::reference`].

use autograd::{ClassOptions, Target, grad};
use nn::prelude::*;
use nn::reference;

use crate::{cast, classes, floats, normal, roundoff, tensor, weights};

const CLASSES: usize = 5;

/// Roundings, in units of u: of a loss relative to the sum of its terms' magnitudes, of a gradient
/// relative to `s·(a·p + c)`, and of a Hessian-vector product relative to `s·a·p·(|v| + Σ p·|v|)`,
/// whose p (6 u), sums of five terms and four products add up.
const LOSS: f64 = 4.0 + 1.5;
const GRADIENT: f64 = 6.0;
const SECOND: f64 = 32.0;
/// The reference itself rounds in f64, along another way; so it is not the limit in f32.
const OF_REFERENCE: f64 = 60.0 * 1.11e-16;

struct Shape {
    logits: Vec<usize>,
    rows: Vec<usize>,
}

fn shapes() -> [Shape; 4] {
    let of = |logits: &[usize], rows: &[usize]| Shape { logits: logits.into(), rows: rows.into() };
    [
        of(&[CLASSES], &[]),
        of(&[7, CLASSES], &[7]),
        of(&[3, CLASSES, 2], &[3, 2]),
        of(&[2, CLASSES, 3, 2], &[2, 3, 2]),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Indices,
    Probabilities,
}

/// One combination in one type.
struct Case<'a> {
    what: String,
    x: &'a Tensor<f64>,
    target: Target<'a, f64>,
    row_weight: Option<&'a Tensor<f64>>,
    options: ClassOptions<f64>,
}

/// Magnitudes against which roundings count: of the loss, of the gradient, of `H·v`.
fn scales(case: &Case<'_>, upstream: &[f64], v: &Tensor<f64>) -> [Vec<f64>; 3] {
    // With positive upstream gradients, row weights and coefficients, terms of both signs add up in
    // a loss over |x| and in a gradient in which c has the other sign.
    let positive = |x: &Tensor<f64>| x.abs();
    let r = case.row_weight.map(positive);
    let rows =
        reference::CrossEntropy::new(case.x, &case.target, r.as_ref(), &case.options).unwrap();
    let up: Vec<f64> = upstream.iter().map(|u| u.abs()).collect();
    [
        rows.loss().iter().map(|l| l.abs()).collect(),
        rows.gradient_scale(&up).unwrap().to_vec(),
        rows.hessian_scale(&up, v).unwrap().to_vec(),
    ]
}

fn assert_within(what: &str, got: &[f64], want: &[f64], scale: &[f64], bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, ((g, w), s)) in got.iter().zip(want).zip(scale).enumerate() {
        let same = g == w || g.is_nan() && w.is_nan() || (g - w).abs() <= bound * s;
        assert!(
            same,
            "{what} at {i}: {g:e}, reference {w:e}, error {:e} of {s:e}",
            (g - w).abs() / s
        );
    }
}

fn check<T: Float>(case: &Case<'_>) {
    let u = roundoff::<T>();
    let bound = |units: f64| units * u + OF_REFERENCE;
    let tape = Tape::new();
    let x = tape.var(case.x.cast::<T>());
    let options = cast::<T>(&case.options);
    let q = match &case.target {
        Target::Probabilities(q) => Some(Var::constant(q.value().cast::<T>())),
        Target::Classes(_) => None,
    };
    let target = || match (&case.target, &q) {
        (Target::Classes(t), _) => Target::Classes(t),
        (_, Some(q)) => Target::from(q),
        _ => unreachable!(),
    };
    let row_weight = case.row_weight.map(Tensor::cast::<T>);
    let loss = match &row_weight {
        None => x.cross_entropy(target(), &options).unwrap(),
        Some(w) => x.cross_entropy_detailed(target(), &weights(w), &options).unwrap().loss,
    };
    let want =
        reference::CrossEntropy::new(case.x, &case.target, case.row_weight, &case.options).unwrap();
    let n = loss.value().numel();
    let upstream = normal(n, 77);
    let v = tensor::<f64>(&normal(case.x.numel(), 78), case.x.shape());
    let [of_loss, of_gradient, of_second] = scales(case, &upstream, &v);
    let what = |part: &str| format!("{part} of {} in {}", case.what, std::any::type_name::<T>());
    assert_within(&what("loss"), &floats(loss.value()), &want.loss(), &of_loss, bound(LOSS));
    let up = tensor::<T>(&upstream, loss.shape());
    let seed = [Var::constant(up.clone())];
    let dx = grad(&[&loss], &[&x], &seed, true).unwrap()[0].clone().unwrap();
    let gradient = want.gradient(&upstream).unwrap().to_vec();
    let recorded = floats(dx.value());
    assert_within(&what("gradient"), &recorded, &gradient, &of_gradient, bound(GRADIENT));
    let product = (dx * Var::constant(v.cast::<T>())).sum();
    let second = grad(&[&product], &[&x], &[], false).unwrap()[0].clone().unwrap();
    let hvp = want.hessian_vector(&upstream, &v).unwrap().to_vec();
    assert_within(&what("HVP"), &floats(second.value()), &hvp, &of_second, bound(SECOND));
    let ordinary = loss.backward_with(&up).unwrap();
    assert_eq!(floats(ordinary.wrt(&x).unwrap()), recorded, "{}", what("ordinary gradient"));
}

fn for_all(kind: Kind, extra: fn(&mut ClassOptions<f64>), with_rows: bool) -> usize {
    let weight = [0.5, 1.25, 2.0, 0.75, 1.5];
    let with_a_zero = [0.5, 0.0, 2.0, 0.75, 1.5];
    let weights = [None, Some(weight), Some(with_a_zero)];
    let mut count = 0;
    for shape in shapes() {
        let rows: usize = shape.rows.iter().product();
        let x = tensor::<f64>(&normal(rows * CLASSES, 3), &shape.logits) * 2.0; // exact in f32
        let mut indices: Vec<i64> =
            (0..rows as i64).map(|n| (n * 3 + 1) % CLASSES as i64).collect();
        let row_weight: Vec<f64> = (0..rows).map(|n| [1.5, 0.5, 0.0, 2.0][n % 4]).collect();
        let row_weight = tensor(&row_weight, &shape.rows);
        let q =
            Tensor::<f64>::uniform(&shape.logits[..], 0.0, 1.0, &mut Generator::new(5)).unwrap();
        let q = Var::constant(q.cast::<f32>().cast::<f64>());
        // None, a negative one that some rows have, a class, and all rows.
        for ignore in [None, Some(-7), Some(2), Some(-100)] {
            if kind == Kind::Probabilities && ignore.is_some_and(|i| i >= 0) {
                continue; // An error, as a test of the edge cases says.
            }
            for (n, class) in indices.iter_mut().enumerate() {
                *class = match ignore {
                    Some(-100) => -100,
                    Some(-7) if n % 3 == 2 => -7,
                    _ => (n as i64 * 3 + 1) % CLASSES as i64,
                };
            }
            let t = classes(&indices, &shape.rows);
            for weight in &weights {
                for label_smoothing in [0.0, 0.1, 1.0] {
                    for reduction in
                        [Reduction::None, Reduction::Sum, Reduction::Mean, Reduction::Divisor(3.5)]
                    {
                        let mut options = ClassOptions {
                            weight: weight.map(Tensor::from),
                            ignore_index: ignore,
                            reduction,
                            label_smoothing,
                            ..Default::default()
                        };
                        extra(&mut options);
                        let target = match kind {
                            Kind::Indices => Target::Classes(&t),
                            Kind::Probabilities => Target::from(&q),
                        };
                        let what = format!("{:?} {options:?}", shape.logits);
                        let row_weight = with_rows.then_some(&row_weight);
                        let case = Case { what, x: &x, target, row_weight, options };
                        check::<f64>(&case);
                        check::<f32>(&case);
                        count += 2;
                    }
                }
            }
        }
    }
    count
}

#[test]
fn class_indices_with_every_option() {
    assert_eq!(for_all(Kind::Indices, |_| {}, false), 4 * 4 * 3 * 3 * 4 * 2);
}

#[test]
fn probabilities_with_every_option() {
    assert_eq!(for_all(Kind::Probabilities, |_| {}, false), 4 * 3 * 3 * 3 * 4 * 2);
}

#[test]
fn every_option_with_a_z_loss_and_weights_of_rows() {
    for kind in [Kind::Indices, Kind::Probabilities] {
        for_all(kind, |o| o.z_loss = 0.25, true);
        for_all(kind, |o| o.empty_mean = EmptyMean::Zero, true);
    }
}

#[test]
fn every_option_with_smoothing_over_the_finite_classes() {
    for kind in [Kind::Indices, Kind::Probabilities] {
        for_all(kind, |o| o.smooth_over_finite = true, false);
    }
}
