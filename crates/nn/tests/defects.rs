//! Defects that other frameworks shipped, as tests of this one.
//!
//! Those about one operation's gradient along every dim, about ties, about memory and about types
//! are tested where the operation, the tape or the type is.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use nn::prelude::*;

fn tensor(data: &[f64], shape: &[usize]) -> Tensor<f64> {
    Tensor::from_slice(data, shape).unwrap()
}

fn targets(classes: &[i64]) -> Tensor<i64> {
    Tensor::from_slice(classes, [classes.len()]).unwrap()
}

/// The loss, and its gradient in the logits.
fn cross_entropy<T: Float>(
    logits: &Tensor<T>,
    target: &Tensor<i64>,
    options: &CrossEntropyOptions<T>,
) -> Result<(T, Tensor<T>)> {
    let x = Tape::new().var(logits.clone());
    let loss = CrossEntropyLoss::new(options.clone())?.forward(&x, target)?;
    Ok((loss.item()?, loss.backward()?.wrt(&x)?.clone()))
}

/// The gradient of a function of one vector.
fn gradient(x: &[f64], f: impl Fn(&Var<f64>) -> Var<f64>) -> Vec<f64> {
    let x = Tape::new().var(tensor(x, &[x.len()]));
    f(&x).sum().backward().unwrap().wrt(&x).unwrap().to_vec()
}

#[test]
fn log_softmax_forgets_an_offset() {
    // The logarithm of a row is `ln(1 + rest/top)`: two exponentials within 1.1 ulp, the addition of
    // the rest, the quotient's logarithm in f64, and one rounding to f32.
    const LOG: f64 = (2.0 * 1.1 + 0.5 + 0.5) * f32::EPSILON as f64;
    // Sixteenths are exact up to 2²⁰ = 1,048,576, so that adding the offset changes no difference.
    for row in [[0.0_f32, 0.0, 0.0], [0.0625, -1.5, 2.25], [7.0, -3.0, 0.5]] {
        let max = f64::from(row.into_iter().fold(f32::MIN, f32::max));
        let log = row.map(|x| (f64::from(x) - max).exp()).iter().sum::<f64>().ln();
        for offset in [0.0, 1e4, 1e5, 1e6, -1e4, -1e5, -1e6] {
            let x = Var::constant(Tensor::from_slice(&row.map(|x| x + offset), [1, 3]).unwrap());
            for (y, x) in x.log_softmax(1).unwrap().value().to_vec().into_iter().zip(row) {
                let want = f64::from(x) - max - log;
                // Half an ulp of the result, besides the error of the logarithm.
                let tolerance = 0.5 * f64::from(f32::EPSILON) * want.abs() + LOG * log;
                assert!((f64::from(y) - want).abs() <= tolerance, "{row:?} + {offset}: {y} {want}");
                // The quotients of a row of equal logits are exact.
                assert!(row != [0.0; 3] || y == want as f32, "{offset}: {y}");
            }
        }
    }
}

#[test]
fn confident_logits_have_finite_gradients() {
    let logits = Tensor::from_vec(vec![1e4_f32, -1e4, -1e4, 1e4], [2, 2]).unwrap();
    let options = CrossEntropyOptions { reduction: Reduction::Sum, ..Default::default() };
    // Right in row 0, wrong by 2e4 in row 1.
    let (loss, dx) = cross_entropy(&logits, &targets(&[0, 0]), &options).unwrap();
    assert_eq!((loss, dx.to_vec()), (2e4, vec![0.0, 0.0, -1.0, 1.0]));

    type Unary = fn(&Var<f64>) -> Var<f64>;
    let functions: [Unary; 4] =
        [Var::sigmoid, Var::tanh, |x| x.softmax(0).unwrap(), |x| x.log_softmax(0).unwrap() * 0.5];
    for f in functions {
        let dx = gradient(&[1e4, -1e4, 100.0, 0.0], f);
        assert!(dx.iter().all(|g| g.is_finite()), "{dx:?}");
    }
}

#[test]
fn the_loss_of_two_classes_is_softplus_at_any_size() {
    // The kernel evaluates an exponential and a log1p in f32, each to a few units in the last place.
    const TOLERANCE: f64 = 8.0 * f32::EPSILON as f64;
    for z in (-1000..=1000).map(|i| i as f32) {
        let logits = Tensor::from_vec(vec![0.0, z], [1, 2]).unwrap();
        let (loss, dx) = cross_entropy(&logits, &targets(&[1]), &Default::default()).unwrap();
        let z = f64::from(z);
        let (want, p) = ((-z.abs()).exp().ln_1p() + (-z).max(0.0), 1.0 / (1.0 + z.exp()));
        // Below the smallest normal number f32 has fewer digits.
        let close = |got: f32, want: f64| {
            (f64::from(got) - want).abs() <= TOLERANCE * want + f64::from(f32::MIN_POSITIVE)
        };
        assert!(close(loss, want), "loss at {z}: {loss:e}, {want:e}");
        let dx = dx.to_vec();
        assert!(close(dx[0], p) && close(-dx[1], p), "gradient at {z}: {dx:?}, {p:e}");
    }
}

#[test]
fn kinks_have_the_gradient_of_pytorch() {
    assert_eq!(gradient(&[-1.0, -0.0, 0.0, 1e-300, 1.0], Var::relu), [0.0, 0.0, 0.0, 1.0, 1.0]);
}

#[test]
fn batch_dims_of_equal_product_do_not_match() {
    let ones = |shape: &[usize]| Var::constant(Tensor::<f32>::ones(shape).unwrap());
    let error = ones(&[2, 3, 4, 5]).matmul(&ones(&[3, 2, 5, 6])).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { op: "matmul", .. }), "{error}");
}

#[test]
fn appended_ignored_rows_change_nothing() {
    let mut rng = Generator::new(5);
    let logits = Tensor::<f64>::randn([6, 4], &mut rng).unwrap().to_vec();
    let classes = [0, 3, 1, 2, 2, 1];
    let weight = Some(tensor(&[0.5, 2.0, 1.25, 3.0], &[4]));
    for (weight, label_smoothing) in [(None, 0.0), (weight.clone(), 0.0), (weight, 0.1)] {
        let options = CrossEntropyOptions { weight, label_smoothing, ..Default::default() };
        let run = |ignored: usize| {
            let (mut x, mut y) = (logits.clone(), classes.to_vec());
            x.extend((0..4 * ignored).map(|i| i as f64 * 1e3));
            y.resize(6 + ignored, -100);
            cross_entropy(&tensor(&x, &[6 + ignored, 4]), &targets(&y), &options).unwrap()
        };
        let (loss, dx) = run(0);
        for ignored in [1, 10, 1000] {
            let (padded, padded_dx) = run(ignored);
            // Six losses may be added in another order, with five roundings each way.
            assert!((padded - loss).abs() <= 10.0 * f64::EPSILON * loss, "{padded} {loss}");
            let (rows, rest) = (padded_dx.to_vec(), padded_dx.to_vec().split_off(24));
            assert_eq!(rows[..24], dx.to_vec()[..]);
            assert!(rest.iter().all(|&g| g == 0.0));
        }
    }
}

#[test]
fn a_mean_over_a_million_rows_divides_by_those_that_count() {
    const ROWS: usize = 1_000_000;
    let target = (0..ROWS).map(|i| if i % 16 == 0 { -100 } else { (i % 2) as i64 }).collect();
    let target = Tensor::from_vec(target, [ROWS]).unwrap();
    let loss = NLLLoss::<f32>::new(Default::default()).unwrap();
    // Sums of 19 pass 2²⁴, where adding one by one in f32 goes wrong.
    for each in [1.0, 19.0] {
        let l = Var::constant(Tensor::full([ROWS, 2], -each).unwrap());
        assert_eq!(loss.forward(&l, &target).unwrap().item().unwrap(), each);
    }
}

#[test]
fn a_row_far_below_zero_is_a_row_like_any_other() {
    let logits = Tensor::full([1, 4], -1e30_f32).unwrap();
    let (loss, dx) = cross_entropy(&logits, &targets(&[2]), &Default::default()).unwrap();
    assert_eq!((loss, dx.to_vec()), (4.0_f64.ln() as f32, vec![0.25, 0.25, -0.75, 0.25]));
}

#[test]
fn every_class_is_a_target_and_nothing_else_is() {
    let logits = Tensor::<f64>::zeros([3, 256]).unwrap();
    let options = CrossEntropyOptions { reduction: Reduction::Sum, ..Default::default() };
    let run = |class| cross_entropy(&logits, &targets(&[0, class, 7]), &options);
    let dx = run(255).unwrap().1.to_vec();
    assert_eq!((dx[256 + 254], dx[256 + 255]), (1.0 / 256.0, -255.0 / 256.0));
    for bad in [-1, 256, i64::MAX, i64::MIN] {
        let error = run(bad).unwrap_err();
        let named = matches!(
            error,
            Error::TargetOutOfRange { row: 1, value, classes: 256, rows: 1, .. } if value == bad
        );
        assert!(named, "{error}");
    }
}

#[test]
fn a_variable_used_again_adds_up_its_gradients() {
    let x = [1.5, -2.0, 0.0];
    assert_eq!(gradient(&x, |x| x * x), [3.0, -4.0, 0.0]);
    assert_eq!(gradient(&x, |x| x + x), [2.0; 3]);
    assert_eq!(gradient(&x, |x| x - x), [0.0; 3]);
    assert_eq!(gradient(&x, |x| (1..1000).fold(x.clone(), |sum, _| sum + x)), [1000.0; 3]);
}

#[test]
fn micro_batches_over_a_common_divisor_are_the_full_batch() {
    let logits = Tensor::<f64>::randn([9, 4], &mut Generator::new(8)).unwrap();
    let target = targets(&[0, 3, -100, 2, 2, 1, -100, -100, 1]);
    let weight = tensor(&[0.5, 2.0, 1.25, 3.0], &[4]);
    // The weights of the rows that count: classes 0, 3, 2, 2, 1, 1.
    for (weight, total) in [(None, 6.0), (Some(weight), 0.5 + 3.0 + 1.25 * 2.0 + 2.0 * 2.0)] {
        let mean = CrossEntropyOptions { weight, label_smoothing: 0.1, ..Default::default() };
        let parts = CrossEntropyOptions { reduction: Reduction::Divisor(total), ..mean.clone() };
        let (loss, dx) = cross_entropy(&logits, &target, &mean).unwrap();
        let (mut sum, mut rows) = (0.0, Vec::new());
        // In the last batch no row counts.
        for (start, length) in [(0, 5), (5, 1), (8, 1), (6, 2)] {
            let (x, y) = (logits.narrow(0, start, length), target.narrow(0, start, length));
            let (part, part_dx) = cross_entropy(&x.unwrap(), &y.unwrap(), &parts).unwrap();
            sum += part;
            rows.push((start, part_dx.to_vec()));
        }
        rows.sort_by_key(|(start, _)| *start);
        // Nine losses, divided before they are added or after.
        assert!((sum - loss).abs() <= 20.0 * f64::EPSILON * loss, "{sum} {loss}");
        assert_eq!(rows.into_iter().flat_map(|(_, dx)| dx).collect::<Vec<_>>(), dx.to_vec());
    }
}

#[test]
fn every_row_takes_its_own_upstream_gradient() {
    let logits = Tensor::<f64>::randn([4, 3], &mut Generator::new(2)).unwrap();
    let (target, upstream) = (targets(&[2, 0, 1, 1]), [0.5, -2.0, 0.0, 3.0]);
    let options = CrossEntropyOptions { label_smoothing: 0.2, ..Default::default() };
    let none = CrossEntropyOptions { reduction: Reduction::None, ..options.clone() };
    let x = Tape::new().var(logits.clone());
    let losses = CrossEntropyLoss::new(none).unwrap().forward(&x, &target).unwrap();
    let grads = losses.backward_with(&tensor(&upstream, &[4])).unwrap();
    let dx = grads.wrt(&x).unwrap();
    for (row, g) in upstream.into_iter().enumerate() {
        let one = |t: &Tensor<f64>| t.narrow(0, row, 1).unwrap();
        let target = target.narrow(0, row, 1).unwrap();
        let (loss, alone) = cross_entropy(&one(&logits), &target, &options).unwrap();
        assert_eq!(losses.value().to_vec()[row], loss);
        for (got, alone) in one(dx).to_vec().into_iter().zip(alone.to_vec()) {
            // The factor enters before a rounding or after it.
            assert!((got - g * alone).abs() <= 2.0 * f64::EPSILON * (g * alone).abs());
        }
    }
}
