//! Lion and Muon beside their formulas, written out one number at a time in f64.

use nn::optim::{AdjustLr, Lion, LionOptions, Muon, MuonOptions};
use nn::prelude::*;

use super::{Several, gradient};

#[test]
fn lion_follows_its_paper() {
    let options = LionOptions { lr: 0.01, weight_decay: 0.1, ..Default::default() };
    for maximize in [false, true] {
        let mut model = Several::<f64>::of_the_fixture();
        let (mut w, mut m) = (model.values(), [0.0; 17]);
        let mut optimizer = Lion::new(LionOptions { maximize, ..options }).unwrap();
        for t in 1..=100 {
            for (i, (w, m)) in w.iter_mut().zip(&mut m).enumerate() {
                let g = gradient(*w, t, i as i64) * if maximize { -1.0 } else { 1.0 };
                let c: f64 = 0.9 * *m + 0.1 * g;
                *w -= 0.01 * (if c == 0.0 { 0.0 } else { c.signum() } + 0.1 * *w);
                *m = 0.99 * *m + 0.01 * g;
            }
            let grads = model.fixture_gradients(t, &[]);
            optimizer.step(&mut model, &grads).unwrap();
            for (g, w) in model.values().iter().zip(&w) {
                assert!((g - w).abs() < 1e-12, "{maximize}: {t}: {g} {w}");
            }
        }
    }
}

type Matrix = Vec<Vec<f64>>;

fn matrix(x: &[f64], columns: usize) -> Matrix {
    x.chunks(columns).map(<[f64]>::to_vec).collect()
}

fn transposed(x: &Matrix) -> Matrix {
    (0..x[0].len()).map(|j| x.iter().map(|row| row[j]).collect()).collect()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let b = transposed(b);
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    a.iter().map(|row| b.iter().map(|column| dot(row, column)).collect()).collect()
}

fn combined(a: f64, x: &Matrix, b: f64, y: &Matrix) -> Matrix {
    let row = |(x, y): (&Vec<f64>, &Vec<f64>)| {
        x.iter().zip(y).map(|(x, y)| a * x + b * y).collect::<Vec<_>>()
    };
    x.iter().zip(y).map(row).collect()
}

/// As the docs say it: x ← a·x + (b·s + c·s²)·x with s = x·xᵀ, along the rows whatever their number.
fn newton_schulz(u: &Matrix) -> Matrix {
    let norm = u.iter().flatten().map(|x| x * x).sum::<f64>().sqrt().max(1e-7);
    let mut x = combined(1.0 / norm, u, 0.0, u);
    for _ in 0..5 {
        let s = product(&x, &transposed(&x));
        let s = combined(-4.775, &s, 2.0315, &product(&s, &s));
        x = combined(3.4445, &x, 1.0, &product(&s, &x));
    }
    x
}

#[test]
fn muon_follows_its_description() {
    // Up to 485-fold amplification of roundings at each step.
    const TOLERANCE: f64 = 1e-9;
    for (rows, columns) in [(4, 3), (3, 4), (1, 6), (6, 1), (5, 5)] {
        for (nesterov, adjust_lr_fn) in [
            (true, AdjustLr::Original),
            (false, AdjustLr::MatchRmsAdamw),
            (true, AdjustLr::SpectralUnclamped),
        ] {
            let start: Vec<f64> = (0..rows * columns).map(|i| (i % 7) as f64 / 3.0 - 1.0).collect();
            let shape = [rows, columns];
            let mut model = Several::new(&[("a", Tensor::from_vec(start.clone(), shape).unwrap())]);
            let options = MuonOptions { lr: 0.02, nesterov, adjust_lr_fn, ..Default::default() };
            let mut optimizer = Muon::new(options).unwrap();
            let mut w = matrix(&start, columns);
            let mut m = combined(0.0, &w, 0.0, &w);
            let (a, b) = (rows as f64, columns as f64);
            let factor = match adjust_lr_fn {
                AdjustLr::Original => (a / b).max(1.0).sqrt(),
                AdjustLr::MatchRmsAdamw => 0.2 * a.max(b).sqrt(),
                AdjustLr::SpectralUnclamped => (a / b).sqrt(),
            };
            for t in 1..=30 {
                let flat = w.concat().into_iter().zip(0..);
                let g: Vec<f64> = flat.map(|(w, i)| gradient(w, t, i)).collect();
                let g = matrix(&g, columns);
                m = combined(0.95, &m, 0.05, &g);
                let u = if nesterov { combined(0.95, &m, 0.05, &g) } else { m.clone() };
                w = combined(1.0 - 0.02 * 0.1, &w, -0.02 * factor, &newton_schulz(&u));
                let grads = model.fixture_gradients(t, &[]);
                optimizer.step(&mut model, &grads).unwrap();
                for (g, w) in model.values().iter().zip(w.concat()) {
                    assert!((g - w).abs() < TOLERANCE, "{shape:?} {options:?} {t}: {g} {w}");
                }
            }
        }
    }
}

#[test]
fn muon_brings_singular_values_near_one() {
    let mut rng = Generator::new(1);
    for shape in [[8, 20], [20, 8]] {
        let g = Tensor::<f64>::randn(shape, &mut rng).unwrap();
        let mut model = Several::new(&[("a", Tensor::zeros(shape).unwrap())]);
        let options = MuonOptions {
            lr: 1.0,
            weight_decay: 0.0,
            adjust_lr_fn: AdjustLr::SpectralUnclamped,
            ..Default::default()
        };
        let grads = model.gradients(&[Some(g.to_vec())]);
        Muon::new(options).unwrap().step(&mut model, &grads).unwrap();
        let scale = (shape[1] as f64 / shape[0] as f64).sqrt();
        let x = model.0[0].1.value().clone() * scale;
        let x = if shape[0] > shape[1] { x.transpose(0, 1).unwrap() } else { x };
        // The trace of x·xᵀ is the sum of the squared singular values, the largest of which is below
        // the root of the sum of their fourth powers.
        let s = x.matmul(&x.transpose(0, 1).unwrap()).unwrap();
        let trace: f64 = (0..8).map(|i| s.to_vec()[i * 9]).sum();
        assert!((8.0 * 0.4..8.0 * 1.5).contains(&trace), "{trace}");
    }
}
