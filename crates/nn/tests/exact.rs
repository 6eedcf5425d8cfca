//! Cross entropy against 60-digit arithmetic, in f32 and f64.
//!
//! `data/cross_entropy_mpmath.json` has inputs that are exact in f32, and results rounded to f64 once.
//! Bounds are multiples of the unit roundoff u (2⁻²⁴, 2⁻⁵³); f64 has one u more, for the rounded
//! reference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use nn::prelude::*;
use serde_json::Value;

/// Loss of a row, relative (all its terms are of one sign).
const LOSS: f64 = 4.0;
/// Sum or mean of rows, relative to that of exact ones.
const REDUCTION: f64 = 1.5;
/// Entry of a gradient, relative to `s·(a·p + c)`: to itself where one of the two is 0, and for the
/// class of a hard target, where the bound is relative to the difference.
const GRADIENT: f64 = 6.0;
/// Results below this lose digits to the range of f32.
const SMALLEST: f64 = 7.5e-37; // 2⁻¹²⁰

fn number(v: &Value) -> f64 {
    match v.as_str() {
        Some("-inf") => f64::NEG_INFINITY,
        Some(other) => panic!("{other} is no number"),
        None => v.as_f64().unwrap(),
    }
}

/// Numbers of a list, or of a list of lists, one after another.
fn numbers(v: &Value) -> Vec<f64> {
    match v.as_array() {
        Some(items) => items.iter().flat_map(numbers).collect(),
        None => vec![number(v)],
    }
}

fn tensor<T: Float>(data: &[f64], shape: &[usize]) -> Tensor<T> {
    Tensor::from_vec(data.iter().map(|&v| T::from_f64(v)).collect(), shape).unwrap()
}

/// `u` and what the rounded reference adds.
fn roundoff<T: Float>() -> (f64, f64) {
    if size_of::<T>() == 4 { (2.0_f64.powi(-24), 0.0) } else { (2.0_f64.powi(-53), 1.0) }
}

/// Whether `got` is within `bound` units of `scale` of `want`.
fn assert_within<T: Float>(what: &str, got: f64, want: f64, scale: f64, bound: f64) {
    let (u, more) = roundoff::<T>();
    let error = (got - want).abs();
    let allowed = (bound + more) * u * scale.abs();
    let same = got == want || error <= allowed || want.abs() < SMALLEST && error < SMALLEST * u;
    assert!(same, "{what}: {got:e}, exact {want:e}, {:.1} u of {scale:e}", error / u / scale);
}

struct Case {
    name: String,
    rows: usize,
    classes: usize,
    x: Vec<f64>,
    target: Option<Vec<i64>>,
    prob: Option<Vec<f64>>,
    weight: Option<Vec<f64>>,
    smoothing: f64,
    ignore: i64,
    reduction: Reduction,
    upstream: Vec<f64>,
    loss: Vec<f64>,
    grad: Vec<f64>,
}

impl Case {
    fn read(v: &Value) -> Self {
        let rows = v["logits"].as_array().unwrap().len();
        let x = numbers(&v["logits"]);
        let reduction = match v["reduction"].as_str().unwrap() {
            "none" => Reduction::None,
            "mean" => Reduction::Mean,
            "sum" => Reduction::Sum,
            other => panic!("reduction {other}"),
        };
        let list = |name: &str| Some(&v[name]).filter(|v| !v.is_null()).map(numbers);
        let integers = |v: Vec<f64>| v.into_iter().map(|v| v as i64).collect();
        Case {
            name: v["name"].as_str().unwrap().into(),
            rows,
            classes: x.len() / rows,
            target: list("target").map(integers),
            prob: list("prob"),
            weight: list("weight"),
            smoothing: v["label_smoothing"].as_f64().unwrap(),
            ignore: v["ignore_index"].as_i64().unwrap(),
            reduction,
            upstream: list("grad_output").unwrap_or(vec![1.0]),
            loss: numbers(&v["loss"]),
            grad: numbers(&v["grad"]),
            x,
        }
    }

    /// The coefficients of row r in f64, from their definition; `None` where it does not count.
    fn coefficients(&self, r: usize) -> Option<Vec<f64>> {
        let weight = |k: usize| self.weight.as_ref().map_or(1.0, |w| w[k]);
        let even = self.smoothing / self.classes as f64;
        let hard = 1.0 - self.smoothing;
        let class = self.target.as_ref().map(|t| t[r]);
        if class == Some(self.ignore) {
            return None;
        }
        let own = |k: usize| match (&self.prob, class) {
            (Some(q), _) => q[r * self.classes + k],
            (None, class) => f64::from(u8::from(class == Some(k as i64))),
        };
        Some((0..self.classes).map(|k| weight(k) * (hard * own(k) + even)).collect())
    }

    /// `s` of row r.
    fn scale(&self, r: usize) -> f64 {
        let upstream = self.upstream[if self.reduction == Reduction::None { r } else { 0 }];
        let weight = |k: usize| self.weight.as_ref().map_or(1.0, |w| w[k]);
        let divisor = match (&self.target, self.reduction) {
            (_, Reduction::None | Reduction::Sum) => 1.0,
            (Some(t), _) => {
                t.iter().filter(|&&t| t != self.ignore).map(|&t| weight(t as usize)).sum()
            }
            (None, _) => self.rows as f64,
        };
        upstream / divisor
    }

    fn check<T: Float>(&self) {
        let x = Tape::new().var(tensor::<T>(&self.x, &[self.rows, self.classes]));
        let loss = CrossEntropyLoss::new(CrossEntropyOptions {
            weight: self.weight.as_ref().map(|w| tensor(w, &[self.classes])),
            ignore_index: Some(self.ignore),
            reduction: self.reduction,
            label_smoothing: self.smoothing,
            ..Default::default()
        })
        .unwrap();
        let value = match (&self.target, &self.prob) {
            (Some(t), _) => {
                loss.forward(&x, &Tensor::from_vec(t.clone(), [self.rows]).unwrap()).unwrap()
            }
            (None, q) => {
                let q = tensor(q.as_ref().unwrap(), &[self.rows, self.classes]);
                loss.forward(&x, &Var::constant(q)).unwrap()
            }
        };
        for (got, &want) in value.value().to_vec().into_iter().zip(&self.loss) {
            let reduced = if self.reduction == Reduction::None { 0.0 } else { REDUCTION };
            let what = format!("loss of {}", self.name);
            assert_within::<T>(&what, got.to_f64(), want, want, LOSS + reduced);
        }
        let upstream = if self.reduction == Reduction::None {
            tensor(&self.upstream, &[self.rows])
        } else {
            tensor(&self.upstream, &[])
        };
        let dx = value.backward_with(&upstream).unwrap().wrt(&x).unwrap().to_vec();
        let hard = self.prob.is_none() && self.smoothing == 0.0;
        for r in 0..self.rows {
            let range = r * self.classes..(r + 1) * self.classes;
            let (row, want, got) = (&self.x[range.clone()], &self.grad[range.clone()], &dx[range]);
            let Some(c) = self.coefficients(r) else {
                assert!(got.iter().all(|&g| g == T::ZERO), "ignored row of {}", self.name);
                continue;
            };
            let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let total: f64 = row.iter().map(|x| (x - max).exp()).sum();
            let (a, s) = (c.iter().sum::<f64>(), self.scale(r));
            for k in 0..self.classes {
                let p = (row[k] - max).exp() / total;
                let scale = if hard { want[k] } else { s * (a * p + c[k]) };
                let what = format!("gradient of {} at [{r}, {k}]", self.name);
                assert_within::<T>(&what, got[k].to_f64(), want[k], scale, GRADIENT);
            }
        }
    }
}

fn file() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cross_entropy_mpmath.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn losses_and_gradients_agree_with_sixty_digits() {
    let file = file();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 71);
    for case in cases {
        let case = Case::read(case);
        case.check::<f32>();
        case.check::<f64>();
    }
}

fn check_large<T: Float>(case: &Value) {
    let classes = case["C"].as_u64().unwrap() as usize;
    // Sixteen bits of a hash: exact in f32.
    let x: Vec<f64> =
        (0..classes as u64).map(|k| (k * 2_654_435_761 % 65_536) as f64 / 8192.0 - 4.0).collect();
    let target = Tensor::from_vec(vec![case["target"].as_i64().unwrap()], [1]).unwrap();
    for (key, label_smoothing) in [("loss", 0.0), ("loss_eps0125", 0.125)] {
        let x = Tape::new().var(tensor::<T>(&x, &[1, classes]));
        let options = CrossEntropyOptions { label_smoothing, ..Default::default() };
        let loss = CrossEntropyLoss::new(options).unwrap().forward(&x, &target).unwrap();
        let (got, want) = (loss.item().unwrap().to_f64(), number(&case[key]));
        assert_within::<T>(&format!("{key} of {classes} classes"), got, want, want, LOSS);
        if label_smoothing == 0.0 {
            let dx = loss.backward().unwrap().wrt(&x).unwrap().to_vec();
            for (k, want) in case["grad"].as_object().unwrap() {
                let (got, want) = (dx[k.parse::<usize>().unwrap()].to_f64(), number(want));
                let what = format!("gradient {k} of {classes} classes");
                assert_within::<T>(&what, got, want, want, GRADIENT);
            }
        }
    }
}

#[test]
fn many_classes_agree_with_sixty_digits() {
    let file = file();
    let cases = file["big"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        check_large::<f32>(case);
        check_large::<f64>(case);
    }
}
