//! The other losses against the definitions in [`nn::reference`], in both types.

use autograd::ClassOptions;
use nn::prelude::*;
use nn::reference;

use crate::{classes, floats, normal, roundoff, tensor};

fn close<T: Float>(what: &str, got: f64, want: f64, scale: f64, units: f64) {
    let error = (got - want).abs();
    // The reference rounds, too.
    let bound = units * (roundoff::<T>() + 1.2e-16) * scale.abs();
    assert!(got == want || error <= bound, "{what}: {got:e}, reference {want:e}, scale {scale:e}");
}

/// Numbers of all sizes, and targets in [0, 1], both ends among them.
fn logits_and_targets() -> (Vec<f64>, Vec<f64>) {
    let x: Vec<f64> = (normal(64, 1).iter().enumerate())
        .map(|(i, v)| f64::from((v * [0.01, 1.0, 8.0, 40.0][i % 4]) as f32))
        .collect();
    let t = (0..64).map(|i| [0.0, 1.0, 0.25, 0.75, 0.5][i % 5]).collect();
    (x, t)
}

fn elements<T: Float>() {
    let (x, t) = logits_and_targets();
    let (vx, vt) = (Var::constant(tensor::<T>(&x, &[64])), tensor::<T>(&t, &[64]));
    let pos_weight = Some(Tensor::scalar(T::from_f64(2.5)));
    let none = Reduction::None;
    let bce =
        BCEWithLogitsLoss::new(BinaryOptions { pos_weight, reduction: none, ..Default::default() });
    let bce = floats(bce.unwrap().forward(&vx, &vt).unwrap().value());
    let focal = SigmoidFocalLoss::new(2.0, Some(0.25), none).unwrap();
    let focal = floats(focal.forward(&vx, &vt).unwrap().value());
    let probability = vx.sigmoid();
    let p = floats(probability.value());
    let of_p = BCELoss::new(BinaryOptions { reduction: none, ..Default::default() }).unwrap();
    let of_p = floats(of_p.forward(&probability, &vt).unwrap().value());
    let difference = |loss: &dyn RegressionLoss<T>| {
        floats(loss.apply(&vx, &Var::constant(vt.clone())).unwrap().value())
    };
    let mse = difference(&MSELoss::new(none).unwrap());
    let l1 = difference(&L1Loss::new(none).unwrap());
    let smooth = difference(&SmoothL1Loss::new(0.5, none).unwrap());
    let huber = difference(&HuberLoss::new(1.5, none).unwrap());
    for i in 0..64 {
        let (x, t) = (x[i], t[i]);
        let want = reference::binary_cross_entropy_with_logits(x, t, 2.5);
        close::<T>("BCE with logits", bce[i], want, want, 6.0);
        let want = reference::sigmoid_focal_loss(x, t, 2.0, Some(0.25));
        if want > 1e-30 {
            close::<T>("sigmoid focal loss", focal[i], want, want, 24.0);
        }
        let want = reference::binary_cross_entropy(p[i], t, 1.0);
        close::<T>("BCE", of_p[i], want, want, 6.0);
        // A difference is rounded once, before it is squared.
        let (d, size) = (x - t, x.abs() + t);
        close::<T>("MSE", mse[i], reference::mse_loss(d), size * size, 6.0);
        close::<T>("L1", l1[i], reference::l1_loss(d), size, 2.0);
        close::<T>("smooth L1", smooth[i], reference::smooth_l1_loss(d, 0.5), size * 2.0, 6.0);
        close::<T>("Huber", huber[i], reference::huber_loss(d, 1.5), size * 2.0, 6.0);
    }
    let mean = MSELoss::default().forward(&vx, &vt).unwrap().item().unwrap().to_f64();
    close::<T>("mean", mean, mse.iter().sum::<f64>() / 64.0, mean, 2.0);
    let divisor = MSELoss::new(Reduction::Divisor(32.0)).unwrap();
    let divided = divisor.forward(&vx, &vt).unwrap().item().unwrap().to_f64();
    close::<T>("divisor", divided, 2.0 * mean, mean, 4.0);
}

#[test]
fn losses_of_elements() {
    elements::<f32>();
    elements::<f64>();
}

fn rows<T: Float>() {
    let (n, c) = (16, 6);
    let x: Vec<f64> = normal(n * c, 2).iter().map(|v| v * 4.0).collect();
    let teacher: Vec<f64> = normal(n * c, 3).iter().map(|v| v * 2.0).collect();
    let t: Vec<i64> = (0..n as i64).map(|i| i * 5 % c as i64).collect();
    let weight = [0.5, 1.0, 0.0, 2.0, 1.5, 0.25];
    let vx = Var::constant(tensor::<T>(&x, &[n, c]));
    let target = classes(&t, &[n]);
    let row = |r: usize| &x[r * c..(r + 1) * c];
    let options = |reduction| ClassOptions {
        weight: Some(tensor::<T>(&weight, &[c])),
        reduction,
        ..Default::default()
    };
    for gamma in [0.0, 0.5, 2.0] {
        let each = FocalLoss::new(gamma, options(Reduction::None)).unwrap();
        let each = floats(each.forward(&vx, &target).unwrap().value());
        let (mut sum, mut total) = (0.0, 0.0);
        for r in 0..n {
            let w = weight[t[r] as usize];
            let want = w * reference::focal_loss(row(r), t[r] as usize, gamma);
            close::<T>("focal loss", each[r], want, want, 16.0);
            (sum, total) = (sum + want, total + w);
        }
        let mean = FocalLoss::new(gamma, options(Reduction::Mean)).unwrap();
        let mean = mean.forward(&vx, &target).unwrap().item().unwrap().to_f64();
        close::<T>("mean focal loss", mean, sum / total, sum / total, 16.0);
    }
    let poly = PolyLoss::new(2.0, options(Reduction::None)).unwrap();
    let poly = floats(poly.forward(&vx, &target).unwrap().value());
    for r in 0..n {
        let want = weight[t[r] as usize] * reference::poly_loss(row(r), t[r] as usize, 2.0);
        close::<T>("poly loss", poly[r], want, want, 12.0);
    }
    let one_hot = target.unsqueeze(1).unwrap().eq(&Tensor::from([0_i64, 1, 2, 3, 4, 5])).unwrap();
    let one_hot = Var::constant(one_hot.cast::<T>());
    let plain = PolyLoss::new(2.0, ClassOptions::default()).unwrap();
    let soft = plain.forward(&vx, &one_hot).unwrap().item().unwrap().to_f64();
    let hard = plain.forward(&vx, &target).unwrap().item().unwrap().to_f64();
    close::<T>("poly loss of probabilities", soft, hard, hard, 12.0);

    let entropy = floats(vx.entropy(1).unwrap().value());
    for (r, h) in entropy.iter().enumerate() {
        // Each ln p is off by up to 8 u, p by 6 u, of terms of one sign.
        let want = reference::entropy(row(r));
        close::<T>("entropy", *h, want, want, 16.0);
    }
    let distilled = DistillationLoss::new(3.0).unwrap();
    let distilled = distilled.forward(&vx, &tensor::<T>(&teacher, &[n, c])).unwrap();
    let (mut want, mut scale) = (0.0, 0.0);
    for r in 0..n {
        let teacher = &teacher[r * c..(r + 1) * c];
        want += reference::distillation_loss(row(r), teacher, 3.0) / n as f64;
        // Differences of logarithms up to some ten.
        scale += 9.0 * 10.0 / n as f64;
    }
    close::<T>("distillation", distilled.item().unwrap().to_f64(), want, scale, 12.0);

    let log_p = vx.log_softmax(1).unwrap();
    let q: Vec<f64> =
        (0..n).flat_map(|r| reference::softmax(&teacher[r * c..(r + 1) * c])).collect();
    let q = tensor::<T>(&q, &[n, c]);
    let (l, rounded) = (floats(log_p.value()), floats(&q));
    let kl = KLDivLoss { reduction: KlReduction::Sum, log_target: false };
    let got = kl.forward(&log_p, &q).unwrap().item().unwrap().to_f64();
    let want = reference::kl_div(&l, &rounded);
    let scale: f64 = l.iter().zip(&rounded).map(|(l, q)| q * (q.ln().abs() + l.abs())).sum();
    close::<T>("KL divergence", got, want, scale, 6.0);
    let log_target = KLDivLoss { log_target: true, ..kl };
    let again = log_target.forward(&log_p, &q.log()).unwrap().item().unwrap().to_f64();
    close::<T>("KL divergence of logarithms", again, want, scale, 8.0);
}

#[test]
fn losses_of_rows() {
    rows::<f32>();
    rows::<f64>();
}

#[test]
fn options_are_checked_at_construction() {
    let text = |e: Error| e.to_string();
    let smoothed = || ClassOptions::<f32> { label_smoothing: 0.1, ..Default::default() };
    assert_eq!(
        text(FocalLoss::new(2.0, smoothed()).unwrap_err()),
        "FocalLoss: label_smoothing must be 0, found 0.1"
    );
    assert!(text(PolyLoss::new(2.0, smoothed()).unwrap_err()).contains("label_smoothing"));
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        let r = Reduction::Mean;
        assert!(FocalLoss::<f32>::new(bad, Default::default()).is_err());
        assert!(SigmoidFocalLoss::new(bad, None, r).is_err());
        assert!(SmoothL1Loss::new(bad, r).is_err() && HuberLoss::new(bad, r).is_err());
        assert!(
            DistillationLoss::new(bad).is_err() && MSELoss::new(Reduction::Divisor(bad)).is_err()
        );
    }
    assert_eq!(
        text(DistillationLoss::new(0.0).unwrap_err()),
        "DistillationLoss: temperature must be positive and finite, found 0"
    );
    assert!(SigmoidFocalLoss::new(2.0, Some(1.5), Reduction::Mean).is_err());
    let x = Var::constant(tensor::<f32>(&[0.0; 2], &[1, 2]));
    let refused = FocalLoss::new(2.0, Default::default()).unwrap().forward(&x, x.value());
    assert_eq!(text(refused.unwrap_err()), "FocalLoss: target must be class indices");
}
