//! Linear + cross entropy without the logits, against the two one after the other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use autograd::{ClassOptions, grad};
use nn::prelude::*;

/// What the fused loss and the composition are given.
struct Case<T: Float> {
    x: Tensor<T>,
    w: Tensor<T>,
    b: Option<Tensor<T>>,
    target: Tensor<i64>,
    row_weight: Option<Tensor<T>>,
    options: LinearCrossEntropyOptions<T>,
}

impl<T: Float> Case<T> {
    fn new([n, v, d]: [usize; 3], seed: u64) -> Self {
        let mut rng = Generator::new(seed);
        let mut normal = |shape: &[usize]| Tensor::<T>::randn(shape, &mut rng).unwrap();
        let classes = (0..n as i64).map(|i| if i % 4 == 1 { -100 } else { i * 31 % v as i64 });
        Case {
            x: normal(&[n, d]),
            w: normal(&[v, d]),
            b: Some(normal(&[v])),
            target: Tensor::from_vec(classes.collect(), [n]).unwrap(),
            row_weight: None,
            options: LinearCrossEntropyOptions::default(),
        }
    }

    fn operands(&self, tape: &Tape<T>) -> Vec<Var<T>> {
        let all = [Some(&self.x), Some(&self.w), self.b.as_ref()];
        all.into_iter().flatten().map(|x| tape.var(x.clone())).collect()
    }

    fn fused(&self, vars: &[Var<T>]) -> ClassLoss<T> {
        let (w, b, rows) = (&vars[1], vars.get(2), self.row_weight.as_ref());
        vars[0].linear_cross_entropy_detailed(w, b, &self.target, rows, &self.options).unwrap()
    }

    fn composed(&self, vars: &[Var<T>]) -> ClassLoss<T> {
        let mut z = vars[0].linear(&vars[1], vars.get(2)).unwrap();
        if let Some(cap) = self.options.softcap.map(T::from_f64) {
            z = (z / cap).tanh() * cap;
        }
        if self.options.temperature != 1.0 {
            z = z / T::from_f64(self.options.temperature);
        }
        let weights = BatchWeights { row: self.row_weight.as_ref(), class: None };
        z.cross_entropy_detailed(&self.target, &weights, &self.options.class).unwrap()
    }

    /// Loss, sums and gradients, twice, under a random upstream gradient.
    fn outcome(&self, loss: impl Fn(&Self, &[Var<T>]) -> ClassLoss<T>) -> Vec<Tensor<T>> {
        let tape = Tape::new();
        let vars = self.operands(&tape);
        let found = loss(self, &vars);
        let up = Tensor::randn(found.loss.shape(), &mut Generator::new(3)).unwrap();
        let mut all = vec![found.loss.value().clone(), found.lse];
        for create_graph in [false, false, true] {
            let wrt: Vec<&Var<T>> = vars.iter().collect();
            let seed = [Var::constant(up.clone())];
            let found = grad(&[&found.loss], &wrt, &seed, create_graph).unwrap();
            all.extend(found.into_iter().map(|g| g.unwrap().value().clone()));
        }
        all.push(Tensor::scalar(T::from_f64(found.valid as f64)));
        all.push(Tensor::scalar(T::from_f64(found.correct as f64)));
        all
    }
}

/// Each number within `tolerance` of the largest in its tensor.
fn assert_close(found: &[Tensor<f64>], wanted: &[Tensor<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), wanted.len());
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.shape(), wanted.shape(), "{what}, {i}");
        let (found, wanted) = (found.to_vec(), wanted.to_vec());
        let scale = wanted.iter().fold(0.0_f64, |m, w| m.max(w.abs()));
        for (f, w) in found.iter().zip(&wanted) {
            let same = (f - w).abs() <= tolerance * scale || f == w || (f.is_nan() && w.is_nan());
            assert!(same, "{what}, {i}: {f} {w}");
        }
    }
}

#[test]
fn it_agrees_with_the_composition_for_all_options_and_chunks() {
    let class_weight: Vec<f64> = (0..300).map(|k| f64::from(k % 4) / 2.0).collect();
    let class_weight = Tensor::from_vec(class_weight, [300]).unwrap();
    let mut number = 0;
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum, Reduction::Divisor(7.5)] {
        for label_smoothing in [0.0, 0.1, 1.0] {
            for bits in 0..64_u32 {
                let on = |bit: u32| bits >> bit & 1 == 1;
                let mut case = Case::<f64>::new([23, 300, 9], number);
                number += 1;
                if on(0) {
                    case.b = None;
                }
                if on(1) {
                    let rows = (0..23).map(|i| f64::from(i % 5) - 0.75).collect();
                    case.row_weight = Some(Tensor::from_vec(rows, [23]).unwrap());
                }
                case.options.class = ClassOptions {
                    weight: on(2).then(|| class_weight.clone()),
                    reduction,
                    label_smoothing,
                    z_loss: if on(3) { 0.01 } else { 0.0 },
                    ..ClassOptions::default()
                };
                case.options.softcap = on(4).then_some(2.5);
                case.options.temperature = if on(5) { 1.75 } else { 1.0 };
                case.options.chunk_rows =
                    [None, Some(1), Some(5), Some(23), Some(64)][number as usize % 5];
                let (found, wanted) = (case.outcome(Case::fused), case.outcome(Case::composed));
                assert_close(&found, &wanted, 1e-12, &format!("{:?}", case.options));
            }
        }
    }
}

#[test]
fn sizes_at_the_edge() {
    for sizes in [[0, 7, 3], [3, 1, 4], [1, 1, 1], [4, 600, 0], [2, 257, 1], [70, 5000, 2]] {
        for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
            for label_smoothing in [0.0, 0.2] {
                let mut case = Case::<f64>::new(sizes, 1);
                case.options.class =
                    ClassOptions { reduction, label_smoothing, ..Default::default() };
                let (found, wanted) = (case.outcome(Case::fused), case.outcome(Case::composed));
                if sizes[1] == 1 {
                    // Nothing to choose: loss and gradients are 0 but for rounding of numbers near 1.
                    let first = found[2..found.len() - 2].iter().chain(&found[..1]);
                    assert!(first.flat_map(Tensor::to_vec).all(|x| x.abs() < 1e-15), "{found:?}");
                } else {
                    assert_close(&found, &wanted, 1e-12, &format!("{sizes:?}"));
                }
            }
        }
    }
    let mut case = Case::<f64>::new([6, 11, 3], 1);
    case.target = Tensor::from_vec(vec![-100; 6], [6]).unwrap();
    for reduction in [Reduction::None, Reduction::Mean, Reduction::Sum] {
        case.options.class.reduction = reduction;
        let (found, wanted) = (case.outcome(Case::fused), case.outcome(Case::composed));
        assert_close(&found, &wanted, 0.0, "all rows ignored");
    }
    // Of any rank, with strides and shared elements.
    let mut case = Case::<f64>::new([12, 20, 5], 2);
    let view = |x: &Tensor<f64>| x.transpose(0, 1).unwrap().contiguous().transpose(0, 1).unwrap();
    case.w = view(&case.w);
    case.x = view(&case.x).reshape([3, 4, 5]).unwrap();
    case.target = case.target.reshape([3, 4]).unwrap();
    case.b = Some(Tensor::scalar(0.5).expand([20]).unwrap());
    let flat = Case::<f64> {
        x: case.x.reshape([12, 5]).unwrap(),
        w: case.w.clone(),
        b: case.b.clone(),
        target: case.target.reshape([12]).unwrap(),
        row_weight: None,
        options: case.options.clone(),
    };
    let flattened = |all: Vec<Tensor<f64>>| {
        all.into_iter().map(|x| x.reshape([x.numel()]).unwrap()).collect::<Vec<_>>()
    };
    let (found, wanted) = (case.outcome(Case::fused), flat.outcome(Case::composed));
    assert_close(&flattened(found), &flattened(wanted), 1e-12, "strides");
}

#[test]
fn infinite_and_missing_numbers_spread_as_in_the_composition() {
    let inf = f64::INFINITY;
    for (at, value) in [(0, f64::NAN), (2, inf), (6, -inf), (21, f64::NAN), (9, 1e200)] {
        for label_smoothing in [0.0, 0.1] {
            let mut case = Case::<f64>::new([8, 300, 3], 5);
            case.options.class.label_smoothing = label_smoothing;
            case.options.class.reduction = Reduction::None;
            case.x.make_mut()[at] = value;
            let losses = |loss: fn(&Case<f64>, &[Var<f64>]) -> ClassLoss<f64>| {
                loss(&case, &case.operands(&Tape::new())).loss.value().clone()
            };
            let (found, wanted) = (losses(Case::fused), losses(Case::composed));
            assert_close(&[found], &[wanted], 1e-12, &format!("{value} at {at}"));
        }
    }
    // Classes that are masked by a bias of −∞, a whole tile of them, and logits far apart.
    for label_smoothing in [0.0, 0.1] {
        for scale in [1.0, 300.0, 1e6] {
            let mut case = Case::<f64>::new([8, 700, 3], 6);
            case.x *= scale;
            let bias = (0..700).map(|k| if (250..600).contains(&k) { -inf } else { 0.0 });
            case.b = Some(Tensor::from_vec(bias.collect(), [700]).unwrap());
            case.options.class.label_smoothing = label_smoothing;
            let run = |loss: fn(&Case<f64>, &[Var<f64>]) -> ClassLoss<f64>| {
                let vars = case.operands(&Tape::new());
                let loss = loss(&case, &vars).loss;
                let grads = loss.backward().unwrap();
                let of = |var| grads.wrt(var).unwrap().clone();
                [loss.value().clone(), of(&vars[0]), of(&vars[1]), of(&vars[2])]
            };
            let what = format!("scale {scale}, smoothing {label_smoothing}");
            assert_close(&run(Case::fused), &run(Case::composed), 1e-12 * scale, &what);
        }
    }
}

#[test]
fn a_confident_row_keeps_its_digits() {
    let x = Tensor::from_vec(vec![1.0_f64], [1, 1]).unwrap();
    let mut w = vec![0.0; 1000];
    w[400] = 60.0;
    let w = Tensor::from_vec(w, [1000, 1]).unwrap();
    let y = Tensor::from_vec(vec![400_i64], [1]).unwrap();
    let rest = 999.0 * (-60.0_f64).exp();
    let (x, w) = (x.cast::<f32>(), w.cast::<f32>());
    let tape = Tape::new();
    let (x, w) = (tape.var(x), tape.var(w));
    let loss = x.linear_cross_entropy(&w, None, &y, &LinearCrossEntropyOptions::default()).unwrap();
    assert!((f64::from(loss.item().unwrap()) / rest - 1.0).abs() < 1e-6);
    let grads = loss.backward().unwrap();
    let dw = grads.wrt(&w).unwrap().to_vec();
    assert!((f64::from(dw[400]) / -rest - 1.0).abs() < 1e-6);
    assert!((f64::from(dw[0]) * 999.0 / rest - 1.0).abs() < 1e-6);
    assert!(
        (f64::from(grads.wrt(&x).unwrap().item().unwrap()) / (-60.0 * rest) - 1.0).abs() < 1e-6
    );
}

#[test]
fn single_precision_is_no_worse_than_the_composition() {
    let mut worst = [0.0_f64; 2];
    for (seed, sizes) in [(1, [64, 5000, 32]), (2, [300, 1000, 64]), (3, [40, 20000, 8])] {
        for label_smoothing in [0.0, 0.1] {
            let mut case = Case::<f32>::new(sizes, seed);
            case.options.class.label_smoothing = label_smoothing;
            let mut exact = Case::<f64>::new(sizes, seed);
            (exact.x, exact.w) = (case.x.cast(), case.w.cast());
            exact.b = case.b.as_ref().map(Tensor::cast);
            exact.options.class.label_smoothing = label_smoothing;
            let exact = exact.outcome(Case::composed);
            let errors = [case.outcome(Case::fused), case.outcome(Case::composed)].map(|found| {
                let error = |(found, exact): (&Tensor<f32>, &Tensor<f64>)| {
                    let difference = &found.cast::<f64>() - exact;
                    let norm =
                        |x: &Tensor<f64>| x.to_vec().iter().map(|x| x * x).sum::<f64>().sqrt();
                    norm(&difference) / norm(exact).max(f64::MIN_POSITIVE)
                };
                found.iter().zip(&exact).map(error).collect::<Vec<f64>>()
            });
            for (i, (fused, composed)) in errors[0].iter().zip(&errors[1]).enumerate() {
                let found = format!("{sizes:?} {label_smoothing} {i}: {fused:.1e} {composed:.1e}");
                // In norms of what both are against f64; a loss may be exact by chance.
                assert!(*fused <= 1.1 * composed + 1.2e-7, "{found}");
                worst = [worst[0].max(*fused), worst[1].max(*composed)];
            }
        }
    }
    assert!(worst[0] <= 1.1 * worst[1], "{worst:?}");
}

#[test]
fn bits_do_not_depend_on_threads() {
    for label_smoothing in [0.0, 0.1] {
        for reduction in [Reduction::None, Reduction::Mean] {
            let mut case = Case::<f32>::new([150, 9000, 16], 4);
            case.options.class = ClassOptions { label_smoothing, reduction, ..Default::default() };
            case.options.chunk_rows = Some(64);
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let bits = |x: &Tensor<f32>| x.to_vec().into_iter().map(f32::to_bits).collect();
                pool.install(|| {
                    case.outcome(Case::fused).iter().map(bits).collect::<Vec<Vec<u32>>>()
                })
            };
            assert!(run(1) == run(2) && run(1) == run(4));
        }
    }
}

#[test]
fn a_small_budget_computes_twice_and_a_smaller_one_says_what_it_needs() {
    let case = Case::<f64>::new([100, 3000, 16], 9);
    let wanted = case.outcome(Case::composed);
    for bytes in [20 << 20, 2 << 20, 1 << 20, 800 << 10] {
        let options = LinearCrossEntropyOptions { max_bytes: Some(bytes), ..case.options.clone() };
        let (x, w, b, target) =
            (case.x.clone(), case.w.clone(), case.b.clone(), case.target.clone());
        let small = Case { x, w, b, target, row_weight: None, options };
        assert_close(&small.outcome(Case::fused), &wanted, 1e-12, &format!("{bytes}"));
    }
    let options = LinearCrossEntropyOptions { max_bytes: Some(1000), ..case.options.clone() };
    let vars = case.operands(&Tape::new());
    let error = vars[0].linear_cross_entropy(&vars[1], None, &case.target, &options).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("linear_cross_entropy: max_bytes must be at least "), "{text}");
    let needed: usize = text.split_whitespace().nth(6).unwrap().parse().unwrap();
    let enough = |max_bytes| {
        let options = LinearCrossEntropyOptions { max_bytes: Some(max_bytes), ..options.clone() };
        vars[0].linear_cross_entropy(&vars[1], None, &case.target, &options).is_ok()
    };
    assert!(enough(needed) && !enough(needed - 1), "{text}");
}

#[test]
fn a_filter_is_off_unless_asked_for_and_stays_within_its_bound() {
    let mut case = Case::<f64>::new([40, 4000, 8], 10);
    let falling = (0..4000).map(|k| f64::from(k) / -50.0).collect();
    case.b = Some(Tensor::from_vec(falling, [4000]).unwrap());
    let run = |case: &Case<f64>| {
        let vars = case.operands(&Tape::new());
        let grads = case.fused(&vars).loss.backward().unwrap();
        [0, 1].map(|i| grads.wrt(&vars[i]).unwrap().to_vec())
    };
    let exact = run(&case);
    case.options.filter = 1e-6;
    let filtered = run(&case);
    assert!(exact != filtered);
    let columns = |x: &Tensor<f64>| x.abs().sum_dim(&[0], false).unwrap().to_vec();
    for (i, bound) in [columns(&case.w), columns(&case.x)].into_iter().enumerate() {
        for (j, (a, b)) in exact[i].iter().zip(&filtered[i]).enumerate() {
            assert!((a - b).abs() <= 1e-6 * bound[j % 8]);
        }
    }
}

#[test]
fn frozen_operands_get_nothing_and_tied_weights_get_both() {
    let case = Case::<f64>::new([10, 50, 4], 11);
    let run = |frozen: usize| {
        let mut vars = case.operands(&Tape::new());
        if let Some(var) = vars.get_mut(frozen) {
            *var = Var::constant(var.value().clone());
        }
        let grads = case.fused(&vars).loss.backward().unwrap();
        [0, 1, 2].map(|i| grads.wrt(&vars[i]).ok().map(Tensor::to_vec))
    };
    let all = run(usize::MAX);
    for frozen in 0..3 {
        let some = run(frozen);
        assert!((0..3).all(|i| some[i] == if i == frozen { None } else { all[i].clone() }));
    }
    // The embedding is the weight: its gradient is the sum of those of two copies.
    let table = Parameter::new(case.w.clone());
    let tokens = Tensor::from_vec((0..10).map(|i| i * 7 % 50).collect::<Vec<i64>>(), [10]).unwrap();
    let options = LinearCrossEntropyOptions::default();
    let run = |tables: [&Var<f64>; 2]| {
        let x = tables[0].index_select(0, &tokens).unwrap().tanh();
        x.linear_cross_entropy(tables[1], None, &case.target, &options).unwrap().backward().unwrap()
    };
    let tape = Tape::new();
    let grads = run([&table.bind(&tape), &table.bind(&tape)]);
    let tied = grads.parameter(table.id()).unwrap().to_vec();
    let copies = [tape.var(case.w.clone()), tape.var(case.w.clone())];
    let grads = run([&copies[0], &copies[1]]);
    let [a, b] = [0, 1].map(|i| grads.wrt(&copies[i]).unwrap().to_vec());
    assert!(tied.iter().zip(a.iter().zip(&b)).all(|(t, (a, b))| (t - (a + b)).abs() < 1e-15));
}

#[test]
fn bad_input_is_one_clear_error() {
    let case = Case::<f64>::new([3, 5, 2], 1);
    let vars = case.operands(&Tape::new());
    let text = |x: &Var<f64>, w: &Var<f64>, b: Option<&Var<f64>>, y: &_, o: &_| {
        x.linear_cross_entropy(w, b, y, o).unwrap_err().to_string()
    };
    let (x, w, b, y, o) = (&vars[0], &vars[1], &vars[2], &case.target, &case.options);
    let op = "linear_cross_entropy: ";
    let z = |shape: &[usize]| Var::constant(Tensor::<f64>::zeros(shape).unwrap());
    let b_of_4 = z(&[4]);
    let wrong = [
        (text(&z(&[3, 4]), w, None, y, o), "inner dimensions differ: [3, 4] × [5, 2]"),
        (text(x, w, Some(&b_of_4), y, o), "shapes do not match: [5, 2] and [4]"),
        (text(&z(&[4, 2]), w, None, y, o), "shapes do not match: [4, 2] and [3]"),
        (text(&z(&[]), w, None, y, o), "expected at least one dim"),
    ];
    for (found, wanted) in wrong {
        assert!(found.starts_with(op) && found.contains(wanted), "{found}");
    }
    let target = Tensor::from_vec(vec![0_i64, 5, 1], [3]).unwrap();
    let found = text(x, w, Some(b), &target, o);
    assert_eq!(
        found,
        "linear_cross_entropy: target 5 in row 1 is out of range for 5 classes (1 row affected)"
    );
    let with = |change: &dyn Fn(&mut LinearCrossEntropyOptions<f64>)| {
        let mut options = o.clone();
        change(&mut options);
        text(x, w, Some(b), y, &options)
    };
    let wrong = [
        (with(&|o| o.softcap = Some(0.0)), "softcap must be positive and finite, found 0"),
        (with(&|o| o.temperature = f64::NAN), "temperature must be positive and finite, found NaN"),
        (with(&|o| o.filter = -1.0), "filter must be finite and not negative, found -1"),
        (with(&|o| o.chunk_rows = Some(0)), "chunk_rows must be at least 1, found 0"),
        (with(&|o| o.class.smooth_over_finite = true), "smooth_over_finite needs"),
        (with(&|o| o.class.label_smoothing = 2.0), "label_smoothing must be in [0, 1], found 2"),
        (with(&|o| o.class.weight = Some(Tensor::ones([4]).unwrap())), "[3, 5] and [4]"),
    ];
    for (found, wanted) in wrong {
        assert!(found.starts_with(op) && found.contains(wanted), "{found}");
    }
}
