//! Edge cases of cross entropy, one test each, in both types, value and gradient. The numbers are
//! those of the table in docs/LOSSES.md.

use autograd::{ClassOptions, cross_entropy_in_place, grad};
use nn::prelude::*;

use crate::{classes, floats, of_classes, of_probabilities, roundoff, tensor, weights};

const INF: f64 = f64::INFINITY;
const NAN: f64 = f64::NAN;

/// A test that runs in both types.
macro_rules! in_both_types {
    ($($name:ident)+) => {
        mod of_type {
            $(
                #[test]
                fn $name() {
                    super::$name::<f32>();
                    super::$name::<f64>();
                }
            )+
        }
    };
}

in_both_types! {
    case_01_all_targets_ignored
    case_02_no_rows
    case_03_no_classes
    case_04_one_class
    case_05_smoothing_of_zero_and_one
    case_06_smoothing_outside_the_unit_interval
    case_07_target_out_of_range
    case_08_ignore_index_default_and_none
    case_09_targets_of_other_types_are_cast
    case_10_used_row_of_nan_or_infinity
    case_11_ignored_row_of_nan_or_infinity
    case_12_target_of_weight_zero_with_nan_logits
    case_13_total_target_weight_zero
    case_14_masked_class_without_smoothing
    case_15_masked_target
    case_16_masked_class_with_smoothing
    case_17_coefficient_zero_at_a_masked_class
    case_18_huge_finite_logits
    case_19_large_common_offset
    case_20_confident_correct_prediction
    case_21_probabilities_that_do_not_sum_to_one
    case_22_shapes_of_probabilities
    case_23_strided_and_expanded_logits
    case_24_shape_errors
    case_25_weights_that_are_no_weights
    case_26_divisors_that_are_none
    case_27_mean_over_many_rows_with_a_regular_pattern
    case_28_sums_beyond_the_digits_of_the_type
    case_29_backward_twice
    case_30_losses_of_two_modules_add
}

fn close<T: Float>(got: &[f64], want: &[f64], units: f64) {
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(want) {
        let same = g == w
            || g.is_nan() && w.is_nan()
            || (g - w).abs() <= units * roundoff::<T>() * w.abs();
        assert!(same, "{got:?}, expected {want:?}");
    }
}

fn smoothed<T: Float>(label_smoothing: f64) -> ClassOptions<T> {
    ClassOptions { label_smoothing, ..Default::default() }
}

fn weighted<T: Float>(weight: &[f64]) -> ClassOptions<T> {
    ClassOptions { weight: Some(tensor(weight, &[weight.len()])), ..Default::default() }
}

fn text<V: std::fmt::Debug>(result: Result<V>) -> String {
    result.unwrap_err().to_string()
}

fn case_01_all_targets_ignored<T: Float>() {
    let (x, t) = (tensor::<T>(&[0.5, 1.0, 2.0, NAN], &[2, 2]), classes(&[-100, -100], &[2]));
    for label_smoothing in [0.0, 0.1] {
        for (empty_mean, value) in [(EmptyMean::Nan, NAN), (EmptyMean::Zero, 0.0)] {
            let o = ClassOptions { empty_mean, ..smoothed(label_smoothing) };
            let (loss, dx) = of_classes(&x, &t, &o);
            close::<T>(&loss, &[value], 0.0);
            assert_eq!(dx, [0.0; 4]);
        }
        let o = ClassOptions { empty_mean: EmptyMean::Error, ..smoothed(label_smoothing) };
        let message = text(Var::constant(x.clone()).cross_entropy(&t, &o));
        assert_eq!(
            message,
            "cross_entropy: target must have some weight for a mean: it is 0 in all"
        );
        let o = ClassOptions { reduction: Reduction::Sum, ..smoothed(label_smoothing) };
        assert_eq!(of_classes(&x, &t, &o), (vec![0.0], vec![0.0; 4]));
        let o = ClassOptions { reduction: Reduction::None, ..o };
        assert_eq!(of_classes(&x, &t, &o), (vec![0.0; 2], vec![0.0; 4]));
    }
}

fn case_02_no_rows<T: Float>() {
    for (shape, target) in [(&[0, 3][..], &[0][..]), (&[2, 3, 0], &[2, 0])] {
        let (x, t) = (tensor::<T>(&[], shape), classes(&[], target));
        let of = |reduction| ClassOptions { reduction, ..Default::default() };
        assert!(of_classes(&x, &t, &of(Reduction::Mean)).0[0].is_nan());
        assert!(of_probabilities(&x, &x, &of(Reduction::Mean)).0[0].is_nan());
        let sums = [
            of_classes(&x, &t, &of(Reduction::Sum)).0[0],
            of_probabilities(&x, &x, &of(Reduction::Sum)).0[0],
        ];
        assert!(sums.iter().all(|s| s.to_bits() == 0.0_f64.to_bits()), "{sums:?}"); // not −0
        assert_eq!(of_classes(&x, &t, &of(Reduction::None)), (vec![], vec![]));
        assert_eq!(of_probabilities(&x, &x, &of(Reduction::None)), (vec![], vec![], vec![]));
    }
}

fn case_03_no_classes<T: Float>() {
    let x = Var::constant(tensor::<T>(&[], &[2, 0]));
    let message = text(x.cross_entropy(&classes(&[0, 0], &[2]), &Default::default()));
    assert_eq!(message, "cross_entropy: input has no classes: dim 1 of [2, 0] is empty");
}

fn case_04_one_class<T: Float>() {
    let (x, t) = (tensor::<T>(&[3.0, -1e30], &[2, 1]), classes(&[0, 0], &[2]));
    let q = tensor::<T>(&[1.0, 1.0], &[2, 1]);
    for label_smoothing in [0.0, 0.1, 1.0] {
        assert_eq!(of_classes(&x, &t, &smoothed(label_smoothing)), (vec![0.0], vec![0.0; 2]));
        let (loss, dx, _) = of_probabilities(&x, &q, &smoothed(label_smoothing));
        assert_eq!((loss, dx), (vec![0.0], vec![0.0; 2]));
    }
    for infinite in [INF, -INF] {
        let x = tensor::<T>(&[infinite], &[1, 1]);
        let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &Default::default());
        assert!(loss[0].is_nan() && dx[0].is_nan());
    }
}

fn case_05_smoothing_of_zero_and_one<T: Float>() {
    let (x, t) = (tensor::<T>(&[0.0, 3.0, 1.0, 1.0], &[2, 2]), classes(&[0, 1], &[2]));
    let small = (-3.0_f64).exp().ln_1p();
    let two = 2.0_f64.ln();
    let p = 1.0 / (1.0 + 3.0_f64.exp());
    let (loss, dx) = of_classes(&x, &t, &smoothed(0.0));
    close::<T>(&loss, &[(3.0 + small + two) / 2.0], 6.0);
    close::<T>(&dx, &[(p - 1.0) / 2.0, (1.0 - p) / 2.0, 0.25, -0.25], 6.0);
    // Uniform targets; the class still selects the weight of the divisor.
    let o = ClassOptions { label_smoothing: 1.0, ..weighted(&[3.0, 1.0]) };
    let (loss, dx) = of_classes(&x, &t, &o);
    let row = 0.5 * (3.0 * (3.0 + small) + small);
    close::<T>(&loss, &[(row + 0.5 * 4.0 * two) / 4.0], 6.0);
    close::<T>(&dx[2..], &[(2.0 * 0.5 - 1.5) / 4.0, (2.0 * 0.5 - 0.5) / 4.0], 6.0);
    let p1 = 1.0 - p;
    close::<T>(&dx[..2], &[(2.0 * p - 1.5) / 4.0, (2.0 * p1 - 0.5) / 4.0], 12.0);
}

fn case_06_smoothing_outside_the_unit_interval<T: Float>() {
    for bad in [-0.1, 1.5, NAN, INF, -INF] {
        let expected = |op: &str| format!("{op}: label_smoothing must be in [0, 1], found {bad}");
        assert_eq!(text(CrossEntropyLoss::<T>::new(smoothed(bad))), expected("CrossEntropyLoss"));
        assert_eq!(text(NLLLoss::<T>::new(smoothed(bad))), expected("NLLLoss"));
    }
    assert!(
        text(CrossEntropyLoss::<T>::new(ClassOptions { z_loss: -1.0, ..Default::default() }))
            .contains("z_loss must be finite and not negative, found -1")
    );
}

fn case_07_target_out_of_range<T: Float>() {
    let o = ClassOptions::<T>::default();
    for (shape, target) in [(&[2, 3, 2][..], &[2, 2][..]), (&[4, 3], &[4])] {
        let data: Vec<f64> = (0..12).map(f64::from).collect();
        let x = tensor::<T>(&data, shape);
        let t = classes(&[0, -1, 2, 3], target);
        let expected = |op: &str| {
            format!("{op}: target -1 in row 1 is out of range for 3 classes (2 rows affected)")
        };
        for o in [o.clone(), smoothed(0.1), weighted(&[1.0, 2.0, 3.0])] {
            for reduction in [Reduction::None, Reduction::Mean] {
                let o = ClassOptions { reduction, ..o.clone() };
                let tape = Tape::new();
                let v = tape.var(x.clone());
                assert_eq!(text(v.cross_entropy(&t, &o)), expected("cross_entropy"));
                assert_eq!(text(v.nll_loss(&t, &o)), expected("nll_loss"));
                // Nothing was recorded, and nothing written.
                let mut owned = tensor::<T>(&data, shape);
                let in_place = cross_entropy_in_place(&mut owned, &t, &o);
                assert_eq!(text(in_place), expected("cross_entropy_in_place"));
                assert_eq!(floats(&owned), data);
                let sum = v.sum();
                assert_eq!(floats(sum.backward().unwrap().wrt(&v).unwrap()), [1.0; 12]);
            }
        }
    }
}

fn case_08_ignore_index_default_and_none<T: Float>() {
    let x = tensor::<T>(&[0.0, 0.0, 1.0, 2.0], &[2, 2]);
    let two = 2.0_f64.ln();
    let (loss, dx) = of_classes(&x, &classes(&[0, -100], &[2]), &ClassOptions::default());
    close::<T>(&loss, &[two], 4.0);
    assert_eq!(dx, [-0.5, 0.5, 0.0, 0.0]);
    let v = Var::constant(x.clone());
    assert!(v.cross_entropy(&classes(&[0, -1], &[2]), &ClassOptions::default()).is_err());
    let none = ClassOptions { ignore_index: None, ..Default::default() };
    assert!(v.cross_entropy(&classes(&[0, -100], &[2]), &none).is_err());
    // A class can be ignored; it stays in the denominator of the softmax.
    let o = ClassOptions { ignore_index: Some(1), ..Default::default() };
    let (loss, dx) = of_classes(&x, &classes(&[0, 1], &[2]), &o);
    close::<T>(&loss, &[two], 4.0);
    assert_eq!(dx, [-0.5, 0.5, 0.0, 0.0]);
    // With probabilities there is nothing that it could mean.
    let message = text(v.cross_entropy(&v, &o));
    assert!(message.contains("ignore_index is for class indices"), "{message}");
}

fn case_09_targets_of_other_types_are_cast<T: Float>() {
    let (x, o) = (tensor::<T>(&[0.0, 1.0, 2.0, 3.0], &[2, 2]), ClassOptions::default());
    let bytes = Tensor::from_vec(vec![1_u8, 0], [2]).unwrap();
    let want = of_classes(&x, &classes(&[1, 0], &[2]), &o);
    assert_eq!(of_classes(&x, &bytes.cast::<i64>(), &o), want);
}

fn case_10_used_row_of_nan_or_infinity<T: Float>() {
    for row in [[0.0, NAN, 1.0], [0.0, INF, 1.0], [-INF, -INF, -INF]] {
        let x = tensor::<T>(&[&row[..], &[0.0; 3]].concat(), &[2, 3]);
        let o = ClassOptions { reduction: Reduction::None, ..Default::default() };
        for label_smoothing in [0.0, 0.1] {
            let o = ClassOptions { label_smoothing, ..o.clone() };
            let (loss, dx) = of_classes(&x, &classes(&[0, 1], &[2]), &o);
            assert!(loss[0].is_nan() && dx[..3].iter().all(|d| d.is_nan()), "{loss:?} {dx:?}");
            assert!(loss[1].is_finite() && dx[3..].iter().all(|d| d.is_finite()));
            let q = tensor::<T>(&[0.5, 0.5, 0.0, 0.5, 0.5, 0.0], &[2, 3]);
            let (loss, dx, _) = of_probabilities(&x, &q, &o);
            assert!(loss[0].is_nan() && dx[..3].iter().all(|d| d.is_nan()), "{loss:?} {dx:?}");
            assert!(loss[1].is_finite() && dx[3..].iter().all(|d| d.is_finite()));
        }
        let v = Var::constant(x.clone());
        assert!(floats(v.softmax(1).unwrap().value())[..3].iter().all(|p| p.is_nan()));
        assert!(floats(v.log_softmax(1).unwrap().value())[..3].iter().all(|p| p.is_nan()));
    }
}

fn case_11_ignored_row_of_nan_or_infinity<T: Float>() {
    for bad in [NAN, INF, -INF] {
        let x = tensor::<T>(&[1.0, 0.0, bad, bad, 0.5, 0.5], &[3, 2]);
        let clean = tensor::<T>(&[1.0, 0.0, 0.5, 0.5], &[2, 2]);
        for label_smoothing in [0.0, 0.1] {
            for reduction in [Reduction::Mean, Reduction::Sum] {
                let z_loss = if reduction == Reduction::Sum { 0.1 } else { 0.0 };
                let o = ClassOptions { reduction, z_loss, ..smoothed(label_smoothing) };
                let (loss, dx) = of_classes(&x, &classes(&[0, -100, 1], &[3]), &o);
                let (want, dw) = of_classes(&clean, &classes(&[0, 1], &[2]), &o);
                assert_eq!(loss, want);
                assert_eq!(dx[2..4], [0.0; 2]);
                assert_eq!([&dx[..2], &dx[4..]].concat(), dw);
            }
            // Second derivatives, weights of rows, and gradients in class weights neither.
            let tape = Tape::new();
            let (v, w) = (tape.var(x.clone()), tape.var(tensor::<T>(&[1.0, 2.0], &[2])));
            let row = tensor::<T>(&[1.0, 0.0, 2.0], &[3]);
            let by_row = weights(&row);
            let by_class = BatchWeights { row: None, class: Some(&w) };
            for (target, weights) in [([0, 1, 1], by_row), ([0, -100, 1], by_class)] {
                let o = ClassOptions { z_loss: 0.1, ..smoothed(label_smoothing) };
                let loss = v.cross_entropy_detailed(&classes(&target, &[3]), &weights, &o).unwrap();
                assert!(loss.loss.item().unwrap().to_f64().is_finite());
                assert_eq!((loss.valid, loss.correct), (2, 1));
                assert_eq!(floats(&loss.lse)[1], 0.0);
                let dx = grad(&[&loss.loss], &[&v], &[], true).unwrap()[0].clone().unwrap();
                let second = grad(&[&dx.square().sum()], &[&v], &[], false).unwrap();
                let second = floats(second[0].as_ref().unwrap().value());
                assert_eq!(floats(dx.value())[2..4], [0.0; 2]);
                assert!(second[2..4] == [0.0; 2] && second.iter().all(|d| d.is_finite()));
            }
        }
    }
}

fn case_12_target_of_weight_zero_with_nan_logits<T: Float>() {
    let x = tensor::<T>(&[NAN, NAN, 0.0, 0.0], &[2, 2]);
    let (loss, dx) = of_classes(&x, &classes(&[0, 1], &[2]), &weighted(&[0.0, 2.0]));
    close::<T>(&loss, &[2.0_f64.ln()], 4.0);
    assert_eq!(dx, [0.0, 0.0, 0.5, -0.5]);
}

fn case_13_total_target_weight_zero<T: Float>() {
    let (x, t) = (tensor::<T>(&[1.0, 2.0, 3.0, 5.0], &[2, 2]), classes(&[0, 0], &[2]));
    for label_smoothing in [0.0, 0.1] {
        for (empty_mean, value) in [(EmptyMean::Nan, NAN), (EmptyMean::Zero, 0.0)] {
            let o = ClassOptions { empty_mean, label_smoothing, ..weighted(&[0.0, 2.0]) };
            let (loss, dx) = of_classes(&x, &t, &o);
            close::<T>(&loss, &[value], 0.0);
            assert_eq!(dx, [0.0; 4]);
        }
        let error =
            ClassOptions { empty_mean: EmptyMean::Error, label_smoothing, ..weighted(&[0.0, 2.0]) };
        assert!(Var::constant(x.clone()).cross_entropy(&t, &error).is_err());
    }
}

fn case_14_masked_class_without_smoothing<T: Float>() {
    let x = tensor::<T>(&[0.0, -INF, 0.0], &[1, 3]);
    let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &ClassOptions::default());
    close::<T>(&loss, &[2.0_f64.ln()], 4.0);
    assert_eq!(dx, [-0.5, 0.0, 0.5]);
}

fn case_15_masked_target<T: Float>() {
    let x = tensor::<T>(&[0.0, -INF, 0.0], &[1, 3]);
    let (loss, dx) = of_classes(&x, &classes(&[1], &[1]), &ClassOptions::default());
    assert_eq!((loss, dx), (vec![INF], vec![0.5, -1.0, 0.5]));
}

fn case_16_masked_class_with_smoothing<T: Float>() {
    let x = tensor::<T>(&[0.0, -INF, 0.0], &[1, 3]);
    let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &smoothed(0.3));
    assert_eq!(loss, [INF]);
    close::<T>(&dx, &[0.5 - 0.8, -0.1, 0.5 - 0.1], 6.0);
    // The target itself, of weight 0·∞ in a careless formula.
    assert_eq!(of_classes(&x, &classes(&[1], &[1]), &smoothed(1.0)).0, [INF]);
    // Over the finite classes: ε/2 each.
    let finite = ClassOptions { smooth_over_finite: true, ..smoothed(0.3) };
    let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &finite);
    close::<T>(&loss, &[2.0_f64.ln()], 4.0);
    close::<T>(&dx, &[0.5 - 0.85, 0.0, 0.5 - 0.15], 6.0);
    let q = tensor::<T>(&[1.0, 0.0, 0.0], &[1, 3]);
    let (soft, ds, _) = of_probabilities(&x, &q, &finite);
    close::<T>(&soft, &loss, 4.0);
    close::<T>(&ds, &dx, 6.0);
    let v = Var::constant(x).log_softmax(1).unwrap();
    let nll = v.nll_loss(&classes(&[0], &[1]), &finite).unwrap();
    close::<T>(&floats(nll.value()), &[2.0_f64.ln()], 8.0);
}

fn case_17_coefficient_zero_at_a_masked_class<T: Float>() {
    let x = tensor::<T>(&[0.0, -INF, 0.0], &[1, 3]);
    let q = tensor::<T>(&[0.25, 0.0, 0.75], &[1, 3]);
    let (loss, dx, _) = of_probabilities(&x, &q, &ClassOptions::default());
    close::<T>(&loss, &[2.0_f64.ln()], 4.0);
    assert_eq!(dx, [0.25, 0.0, -0.25]);
    let o = ClassOptions { label_smoothing: 0.3, ..weighted(&[1.0, 0.0, 1.0]) };
    let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &o);
    close::<T>(&loss, &[0.9 * 2.0_f64.ln()], 6.0);
    close::<T>(&dx, &[0.45 - 0.8, 0.0, 0.45 - 0.1], 6.0);
    let (loss, dx, dq) = of_probabilities(&x, &q, &o);
    assert!(loss[0].is_finite() && dx.iter().all(|d| d.is_finite()) && dx[1] == 0.0);
    assert!(dq.iter().all(|d| d.is_finite()) && dq[1] == 0.0, "{dq:?}");
}

fn case_18_huge_finite_logits<T: Float>() {
    let max = if size_of::<T>() == 4 { f64::from(f32::MAX) } else { f64::MAX };
    let o = ClassOptions::default();
    let one = classes(&[0], &[1]);
    let x = tensor::<T>(&[1e4, 0.0, -1e4], &[1, 3]);
    assert_eq!(of_classes(&x, &one, &o), (vec![0.0], vec![-0.0, 0.0, 0.0]));
    let (loss, _) = of_classes(&x, &classes(&[2], &[1]), &o);
    close::<T>(&loss, &[2e4], 4.0);
    let x = tensor::<T>(&[max, 0.0, -max], &[1, 3]);
    assert_eq!(of_classes(&x, &one, &o).0, [0.0]);
    let x2 = tensor::<T>(&[max, max, 0.0], &[1, 3]);
    let (loss, dx) = of_classes(&x2, &one, &o);
    close::<T>(&loss, &[2.0_f64.ln()], 4.0);
    assert_eq!(dx, [-0.5, 0.5, 0.0]);
    if size_of::<T>() == 4 {
        // The true value is (ε/3)·(MAX + 2·MAX) = 3.4e37.
        let (loss, dx) = of_classes(&x, &one, &smoothed(0.1));
        close::<T>(&loss, &[0.1 * max], 4.0);
        close::<T>(&dx, &[1.0 - 0.9 - 0.1 / 3.0, -0.1 / 3.0, -0.1 / 3.0], 12.0);
    }
}

fn case_19_large_common_offset<T: Float>() {
    // Exact in both types at every offset.
    let base = [0.0, 16.0, 8.0, -16.0];
    let o = ClassOptions::default();
    let want = of_classes(&tensor::<T>(&base, &[1, 4]), &classes(&[2], &[1]), &o);
    for offset in [1e4, -1e4, 1e8, -1e8] {
        let moved: Vec<f64> = base.iter().map(|v| v + offset).collect();
        let got = of_classes(&tensor::<T>(&moved, &[1, 4]), &classes(&[2], &[1]), &o);
        close::<T>(&got.0, &want.0, 3.0);
        close::<T>(&got.1, &want.1, 12.0);
    }
}

fn case_20_confident_correct_prediction<T: Float>() {
    for gap in [10.0_f64, 17.0, 25.0, 60.0, 80.0] {
        let x = tensor::<T>(&[gap, 0.0], &[1, 2]);
        let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &ClassOptions::default());
        let rest = (-gap).exp();
        close::<T>(&loss, &[rest.ln_1p()], 5.0);
        close::<T>(&dx, &[-rest / (1.0 + rest), rest / (1.0 + rest)], 7.0);
        // As a soft target, through the composition, and from the log-probabilities alone.
        let (soft, ds, _) =
            of_probabilities(&x, &tensor(&[1.0, 0.0], &[1, 2]), &Default::default());
        close::<T>(&soft, &loss, 8.0);
        close::<T>(&ds, &dx, 8.0);
        let v = Tape::new().var(x);
        let copied = v.log_softmax(1).unwrap() * T::ONE;
        let nll = copied.nll_loss(&classes(&[0], &[1]), &Default::default()).unwrap();
        close::<T>(&floats(nll.value()), &loss, 12.0);
        close::<T>(&floats(nll.backward().unwrap().wrt(&v).unwrap()), &dx, 12.0);
    }
}

fn case_21_probabilities_that_do_not_sum_to_one<T: Float>() {
    let x = tensor::<T>(&[0.0, 0.0, 1.0, 3.0], &[2, 2]);
    let q = tensor::<T>(&[0.5, 1.5, -0.25, 0.5], &[2, 2]);
    let o = ClassOptions { reduction: Reduction::None, ..Default::default() };
    let (loss, dx, dq) = of_probabilities(&x, &q, &o);
    let (two, small) = (2.0_f64.ln(), (-2.0_f64).exp().ln_1p());
    let p = 1.0 / (1.0 + 2.0_f64.exp());
    close::<T>(&loss, &[2.0 * two, -0.25 * (small + 2.0) + 0.5 * small], 12.0);
    // a·p − c, with a = 2 and ¼.
    close::<T>(&dx, &[0.5, -0.5, 0.25 * p + 0.25, 0.25 * (1.0 - p) - 0.5], 12.0);
    close::<T>(&dq, &[two, two, small + 2.0, small], 8.0);
}

fn case_22_shapes_of_probabilities<T: Float>() {
    let x = Var::constant(tensor::<T>(&[0.0; 6], &[2, 3]));
    for shape in [&[1, 3][..], &[2, 1], &[3], &[2, 3, 1]] {
        let q = Var::constant(tensor::<T>(&vec![0.5; shape.iter().product()], shape));
        let message = text(x.cross_entropy(&q, &Default::default()));
        assert_eq!(message, format!("cross_entropy: shapes do not match: [2, 3] and {shape:?}"));
    }
}

fn case_23_strided_and_expanded_logits<T: Float>() {
    let data: Vec<f64> = (0..12).map(|i| f64::from(i * 7 % 12) * 0.5).collect();
    let t = classes(&[0, 2, 1, 2], &[4]);
    let o = smoothed::<T>(0.1);
    let across = tensor::<T>(&data, &[3, 4]).transpose(0, 1).unwrap();
    assert_eq!(of_classes(&across, &t, &o), of_classes(&across.contiguous(), &t, &o));
    // One row for all: the gradients of its copies add up.
    let tape = Tape::new();
    let one = tape.var(tensor::<T>(&data[..3], &[1, 3]));
    let many = one.expand([4, 3]).unwrap();
    let loss = many.cross_entropy(&t, &o).unwrap();
    let dx = floats(loss.backward().unwrap().wrt(&one).unwrap());
    let (_, copies) = of_classes(&many.value().contiguous(), &t, &o);
    for k in 0..3 {
        let sum: f64 = (0..4).map(|n| copies[3 * n + k]).sum();
        assert!((dx[k] - sum).abs() <= 8.0 * roundoff::<T>());
    }
    // In place nothing that others see is written.
    let refusal = "cross_entropy_in_place: logits must own their storage and be row-major, to be \
                   written over";
    let mut expanded = many.value().clone();
    assert_eq!(text(cross_entropy_in_place(&mut expanded, &t, &o)), refusal);
    let owner = tensor::<T>(&data, &[4, 3]);
    let mut shared = owner.clone();
    assert_eq!(text(cross_entropy_in_place(&mut shared, &t, &o)), refusal);
    assert_eq!(floats(&owner), data);
    drop(owner);
    assert!(cross_entropy_in_place(&mut shared, &t, &o).is_ok());
}

fn case_24_shape_errors<T: Float>() {
    let o = ClassOptions::<T>::default();
    let message = |logits: &[usize], target: &[usize]| {
        let x = Var::constant(tensor::<T>(&vec![0.0; logits.iter().product()], logits));
        let t = classes(&vec![0; target.iter().product()], target);
        text(x.cross_entropy(&t, &o))
    };
    for (logits, target) in
        [(&[2, 3][..], &[3][..]), (&[3], &[1]), (&[2, 3], &[2, 1]), (&[2, 3, 4], &[2, 5])]
    {
        let expected = format!("cross_entropy: shapes do not match: {logits:?} and {target:?}");
        assert_eq!(message(logits, target), expected);
    }
    assert!(message(&[], &[]).contains("[C], [N, C] or [N, C, d1, ..]"));
    let x = Var::constant(tensor::<T>(&[0.0; 6], &[2, 3]));
    let t = classes(&[0, 0], &[2]);
    assert!(text(x.cross_entropy(&t, &weighted(&[1.0; 2]))).contains("[2, 3] and [2]"));
    let column = ClassOptions { weight: Some(tensor(&[1.0; 3], &[3, 1])), ..o.clone() };
    assert!(text(CrossEntropyLoss::new(column)).contains("[3, 1]"));
    let row = tensor::<T>(&[1.0; 3], &[3]);
    assert!(text(x.cross_entropy_detailed(&t, &weights(&row), &o)).contains("[2, 3] and [3]"));
}

fn case_25_weights_that_are_no_weights<T: Float>() {
    for bad in [-1.0, NAN, INF, -INF] {
        let message = text(CrossEntropyLoss::<T>::new(weighted(&[1.0, bad])));
        assert!(message.contains("weight must be finite and not negative"), "{message}");
        assert!(message.ends_with("for class 1"), "{message}");
        let x = Var::constant(tensor::<T>(&[0.0; 2], &[1, 2]));
        let w = Tape::new().var(tensor::<T>(&[1.0, bad], &[2]));
        let by_class = BatchWeights { row: None, class: Some(&w) };
        let t = classes(&[0], &[1]);
        let message = text(x.cross_entropy_detailed(&t, &by_class, &Default::default()));
        assert!(message.ends_with("for class 1"), "{message}");
    }
    let x = Var::constant(tensor::<T>(&[0.0; 4], &[2, 2]));
    let row = tensor::<T>(&[1.0, NAN], &[2]);
    let message = text(x.cross_entropy_detailed(
        &classes(&[0, 0], &[2]),
        &weights(&row),
        &Default::default(),
    ));
    assert_eq!(message, "cross_entropy: row weight must be finite, found NaN in row 1");
}

fn case_26_divisors_that_are_none<T: Float>() {
    for bad in [0.0, -1.0, NAN, INF] {
        let reduction = Reduction::Divisor(bad);
        let o = ClassOptions::<T> { reduction, ..Default::default() };
        let expected = format!("reduction needs a positive, finite divisor, found {bad}");
        assert!(text(CrossEntropyLoss::new(o)).ends_with(&expected));
        assert!(MSELoss::new(reduction).is_err() && L1Loss::new(reduction).is_err());
    }
}

fn case_27_mean_over_many_rows_with_a_regular_pattern<T: Float>() {
    // Every 16th row is ignored, and f32 could not count so far by ones.
    let n = (1 << 24) + (1 << 20);
    let target: Vec<i64> = (0..n).map(|i| if i % 16 == 0 { -100 } else { 0 }).collect();
    let target = Tensor::from_vec(target, [n]).unwrap();
    let l = Var::constant(Tensor::scalar(-T::ONE).expand([n, 1]).unwrap());
    let loss = l.nll_loss(&target, &ClassOptions::default()).unwrap();
    assert_eq!(loss.item().unwrap().to_f64(), 1.0);
}

fn case_28_sums_beyond_the_digits_of_the_type<T: Float>() {
    // In f32 a running sum of rows would end at 2²⁴ times its terms, and lose digits long before.
    let n = 1 << 18;
    let x = tensor::<T>(&[0.0, 0.0, 0.0], &[1, 3]).expand([n, 3]).unwrap();
    let t = Tensor::from_vec(vec![1_i64; n], [n]).unwrap();
    let (sum, dx) =
        of_classes(&x, &t, &ClassOptions { reduction: Reduction::Sum, ..Default::default() });
    close::<T>(&sum, &[n as f64 * 3.0_f64.ln()], 2.0);
    let (mean, dm) = of_classes(&x, &t, &ClassOptions::default());
    close::<T>(&mean, &[3.0_f64.ln()], 2.0);
    close::<T>(&dm[..3], &[dx[0] / n as f64, dx[1] / n as f64, dx[2] / n as f64], 1.0);
}

fn case_29_backward_twice<T: Float>() {
    let (x, t) = (tensor::<T>(&[1.0, 2.0, 3.0, 0.5], &[2, 2]), classes(&[0, 1], &[2]));
    let v = Tape::new().var(x);
    let loss = v.cross_entropy(&t, &smoothed(0.1)).unwrap();
    let first = loss.backward_retain().unwrap().wrt(&v).unwrap().clone();
    let second = loss.backward().unwrap().wrt(&v).unwrap().clone();
    assert_eq!(floats(&first), floats(&second));
}

fn case_30_losses_of_two_modules_add<T: Float>() {
    let (x, t) = (tensor::<T>(&[1.0, 2.0, 3.0, 0.5], &[2, 2]), classes(&[0, 1], &[2]));
    let v = Tape::new().var(x.clone());
    let loss = CrossEntropyLoss::new(ClassOptions::<T>::default()).unwrap();
    let twice = loss.forward(&v, &t).unwrap() + loss.forward(&v, &t).unwrap();
    let dx = floats(twice.backward().unwrap().wrt(&v).unwrap());
    let (_, once) = of_classes(&x, &t, &ClassOptions::default());
    assert_eq!(dx, once.iter().map(|g| 2.0 * g).collect::<Vec<_>>());
}

/// Second derivatives and gradients of weights beside masked classes and rows that do not count.
#[test]
fn nothing_spreads_from_what_does_not_count() {
    let x0 = tensor::<f64>(&[0.0, -INF, 1.0], &[1, 3]);
    let t = classes(&[0], &[1]);
    let finite = |v: &Var<f64>| v.value().to_vec().iter().all(|v| v.is_finite());
    let tape = Tape::new();
    let (x, w) = (tape.var(x0.clone()), tape.var(tensor(&[1.0, 1.0, 2.0], &[3])));
    let by_class = BatchWeights { row: None, class: Some(&w) };
    for reduction in [Reduction::Mean, Reduction::Sum] {
        let o = ClassOptions { reduction, ..Default::default() };
        let loss = x.cross_entropy_detailed(&t, &by_class, &o).unwrap().loss;
        let first = grad(&[&loss], &[&x, &w], &[], true).unwrap();
        let (dx, dw) = (first[0].clone().unwrap(), first[1].clone().unwrap());
        assert!(finite(&dx) && finite(&dw));
        for of in [dx.square().sum(), dw.square().sum()] {
            let second = grad(&[&of], &[&x, &w], &[], true).unwrap();
            assert!(second.iter().flatten().all(finite));
        }
    }
    // Probabilities that have no share in the masked class.
    let q = tape.var(tensor(&[0.5, 0.0, 0.5], &[1, 3]));
    let loss = x.cross_entropy(&q, &ClassOptions::default()).unwrap();
    let first = grad(&[&loss], &[&x, &q], &[], true).unwrap();
    assert!(first.iter().flatten().all(finite));
    let second = grad(&[&first[1].clone().unwrap().square().sum()], &[&x, &q], &[], false).unwrap();
    assert!(second.iter().flatten().all(finite));
    // An upstream gradient of NaN where a row does not count.
    let up = [Var::constant(tensor(&[1.0, NAN], &[2]))];
    let rows = tensor(&[1.0, 0.0], &[2]);
    let x = tape.var(tensor::<f64>(&[0.0, 1.0, NAN, 0.0], &[2, 2]));
    let q = tape.var(tensor(&[0.25, 0.75, NAN, 0.0], &[2, 2]));
    let o = ClassOptions { reduction: Reduction::None, ..Default::default() };
    let soft = x.cross_entropy_detailed(&q, &weights(&rows), &o).unwrap().loss;
    let hard = x.cross_entropy(&classes(&[0, -100], &[2]), &o).unwrap();
    for (loss, of) in [(&soft, &[&x, &q][..]), (&hard, &[&x])] {
        let first = grad(&[loss], of, &up, true).unwrap();
        for d in first.into_iter().flatten() {
            assert_eq!(d.value().to_vec()[2..], [0.0, 0.0]);
            let second = grad(&[&d.square().sum()], &[&x], &[], false).unwrap();
            assert_eq!(second[0].as_ref().unwrap().value().to_vec()[2..], [0.0, 0.0]);
        }
    }
}

#[test]
fn a_target_far_behind_costs_its_distance() {
    for gap in [700.0, 705.0, 709.8, 720.0, 744.0, 750.0, 1e5] {
        for count in [1, 1000] {
            let mut x = vec![0.0; count + 1];
            x[0] = -gap;
            let x = tensor::<f64>(&x, &[1, count + 1]);
            let (loss, dx) = of_classes(&x, &classes(&[0], &[1]), &ClassOptions::default());
            close::<f64>(&loss, &[gap + (count as f64).ln()], 4.0);
            assert_eq!(dx[0], -1.0);
            let focal = Tape::new().var(x.clone());
            let loss = focal.focal_loss(&classes(&[0], &[1]), 2.0, &ClassOptions::default());
            let dx = floats(loss.unwrap().backward().unwrap().wrt(&focal).unwrap());
            assert!((dx[0] + 1.0).abs() < 1e-15, "{dx:?}");
        }
    }
}

#[test]
fn right_predictions_are_those_of_argmax() {
    let count = |x: &[f64], t: i64| {
        let x = Var::constant(tensor::<f64>(x, &[1, x.len()]));
        let found = x.cross_entropy_detailed(
            &classes(&[t], &[1]),
            &Default::default(),
            &Default::default(),
        );
        found.unwrap().correct
    };
    assert_eq!(
        (count(&[NAN, 0.0, 0.0], 1), count(&[INF, 0.0], 1), count(&[INF, 0.0], 0)),
        (0, 0, 1)
    );
    // The first of equal ones.
    assert_eq!((count(&[1.0, 1.0], 0), count(&[1.0, 1.0], 1)), (1, 0));
    for shape in [&[0, 0][..], &[0, 3], &[2, 3, 0], &[2, 0, 0]] {
        let q = Var::constant(tensor::<f64>(&[], shape));
        let found = q.cross_entropy_detailed(&q, &Default::default(), &Default::default()).unwrap();
        assert_eq!((found.valid, found.correct), (0, 0));
    }
}

#[test]
fn a_z_loss_is_averaged_over_the_rows_that_count() {
    // The first row has coefficients 0: its class weighs nothing, and the other has a logit of −∞.
    let x = tensor::<f64>(&[0.0, -INF, 1.0, 2.0], &[2, 2]);
    let o = ClassOptions {
        z_loss: 0.1,
        label_smoothing: 0.1,
        smooth_over_finite: true,
        ..weighted(&[0.0, 1.0])
    };
    let lse = 2.0 + (-1.0_f64).exp().ln_1p();
    let cross = 0.95 * (lse - 2.0);
    let (loss, _) = of_classes(&x, &classes(&[0, 1], &[2]), &o);
    close::<f64>(&loss, &[cross + 0.1 * lse * lse], 16.0);
    // Weights of rows whose sum is 0: no mean of λ, but one of the rest.
    let x = tensor::<f64>(&[0.0, 1.0, 2.0, 0.5], &[2, 2]);
    let row = tensor::<f64>(&[1.0, -1.0], &[2]);
    for empty_mean in [EmptyMean::Nan, EmptyMean::Zero, EmptyMean::Error] {
        let o = ClassOptions { z_loss: 0.1, empty_mean, ..weighted(&[1.0, 3.0]) };
        let without = ClassOptions { z_loss: 0.0, ..o.clone() };
        let value = |o| {
            let v = Var::constant(x.clone());
            floats(
                v.cross_entropy_detailed(&classes(&[0, 1], &[2]), &weights(&row), o)
                    .unwrap()
                    .loss
                    .value(),
            )
        };
        assert_eq!(value(&o), value(&without));
    }
}

#[test]
fn smoothing_keeps_its_digits_where_other_classes_weigh_nothing() {
    for gap in [5.0_f64, 20.0, 40.0, 60.0] {
        let small = (-gap).exp().ln_1p();
        for (class, share) in [(0, 0.95), (1, 0.05)] {
            let o = ClassOptions {
                label_smoothing: 0.1,
                reduction: Reduction::Sum,
                ..weighted(&[1.0, 0.0])
            };
            let x = tensor::<f64>(&[gap, 0.0], &[1, 2]);
            let (loss, _) = of_classes(&x, &classes(&[class], &[1]), &o);
            close::<f64>(&loss, &[share * small], 6.0);
        }
    }
    // Not a number is one, with all of ε over what is finite, too.
    let o = ClassOptions::<f64> { smooth_over_finite: true, ..smoothed(1.0) };
    for row in [[NAN, NAN], [NAN, -INF], [-INF, -INF], [NAN, 0.0]] {
        let (loss, dx) = of_classes(&tensor(&row, &[1, 2]), &classes(&[0], &[1]), &o);
        assert!(loss[0].is_nan() && dx.iter().all(|d| d.is_nan()), "{row:?}: {loss:?} {dx:?}");
    }
}

#[test]
fn gradients_times_a_large_factor_keep_their_small_entries() {
    let x = tensor::<f32>(&[88.0, 0.0], &[1, 2]);
    let v = Tape::new().var(x);
    let loss = v.cross_entropy(&classes(&[0], &[1]), &ClassOptions::default()).unwrap();
    let dx = floats(loss.backward_with(&Tensor::scalar(1e12)).unwrap().wrt(&v).unwrap());
    let want = (-88.0_f64).exp() * f64::from(1e12_f32);
    close::<f32>(&dx, &[-want, want], 7.0);
}

#[test]
fn ignored_rows_of_nan_in_the_composition_however_it_is_computed() {
    let x = tensor::<f64>(&[NAN, 1.0, 0.0, 1.0], &[2, 2]);
    for smooth_over_finite in [false, true] {
        for retain in [false, true] {
            let o = ClassOptions { smooth_over_finite, ..smoothed::<f64>(0.1) };
            let tape = Tape::new();
            let v = tape.var(x.clone());
            let l = v.log_softmax(1).unwrap();
            if retain {
                l.retain().unwrap();
            }
            let loss = l.nll_loss(&classes(&[-100, 1], &[2]), &o).unwrap();
            let dx = floats(loss.backward().unwrap().wrt(&v).unwrap());
            let (_, want) = of_classes(&x, &classes(&[-100, 1], &[2]), &o);
            assert_eq!(dx[..2], [0.0; 2]);
            close::<f64>(&dx[2..], &want[2..], 8.0);
        }
    }
}
