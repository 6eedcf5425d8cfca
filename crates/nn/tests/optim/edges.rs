//! NaN, empty and missing: what a step does at the edges, and what it refuses.

use nn::optim::{
    Adagrad, AdagradOptions, ClipGrad, Ema, Lion, LionOptions, Muon, MuonOptions, RMSprop,
    RMSpropOptions,
};
use nn::prelude::*;

use super::Several;

/// One of each, all with `allow_missing`; the last takes matrices only.
fn all<T: Float>() -> Vec<(&'static str, Box<dyn Optimizer<T>>)> {
    let allow_missing = true;
    let sgd = SgdOptions { lr: 0.1, momentum: 0.9, allow_missing, ..Default::default() };
    let adam = AdamOptions { amsgrad: true, allow_missing, ..Default::default() };
    let rmsprop =
        RMSpropOptions { centered: true, momentum: 0.5, allow_missing, ..Default::default() };
    let adagrad = AdagradOptions { allow_missing, ..Default::default() };
    let lion = LionOptions { allow_missing, ..Default::default() };
    let muon = MuonOptions { allow_missing, ..Default::default() };
    vec![
        ("Sgd", Box::new(Sgd::new(sgd).unwrap())),
        ("plain Sgd", Box::new(Sgd::new(SgdOptions { momentum: 0.0, ..sgd }).unwrap())),
        ("Adam", Box::new(Adam::new(adam).unwrap())),
        ("AdamW", Box::new(AdamW::new(AdamOptions { amsgrad: false, ..adam }).unwrap())),
        ("RMSprop", Box::new(RMSprop::new(rmsprop).unwrap())),
        ("Adagrad", Box::new(Adagrad::new(adagrad).unwrap())),
        ("Lion", Box::new(Lion::new(lion).unwrap())),
        ("Muon", Box::new(Muon::new(muon).unwrap())),
    ]
}

fn matrices() -> Several<f64> {
    let ones = |shape: [usize; 2]| Tensor::ones(shape).unwrap();
    Several::new(&[("a", ones([2, 2])), ("empty", ones([0, 3])), ("b", ones([1, 2]))])
}

#[test]
fn nan_stays_where_it_is() {
    for (name, mut optimizer) in all() {
        let mut model = matrices();
        let g = vec![1.0, f64::NAN, -1.0, 2.0];
        let grads = model.gradients(&[Some(g), Some(vec![]), Some(vec![1.0, -1.0])]);
        for _ in 0..2 {
            optimizer.step(&mut model, &grads).unwrap();
        }
        let a = model.value(0);
        // Muon mixes the elements of a matrix, all others keep them apart.
        let expected = if name == "Muon" { [true; 4] } else { [false, true, false, false] };
        assert_eq!([0, 1, 2, 3].map(|i| a[i].is_nan()), expected, "{name}");
        assert!(model.value(2).iter().all(|w| w.is_finite() && *w != 1.0), "{name}");
    }
}

#[test]
fn a_parameter_without_a_gradient_or_elements_is_skipped() {
    for (name, mut optimizer) in all() {
        let mut model = matrices();
        let grads = model.gradients(&[None, Some(vec![]), Some(vec![1.0, -1.0])]);
        optimizer.step(&mut model, &grads).unwrap();
        assert_eq!(model.value(0), [1.0; 4], "{name}");
        assert_ne!(model.value(2), [1.0; 2], "{name}");
        // Nothing is kept for it either: its first step is its first.
        let state = optimizer.state_dict(&model).unwrap();
        assert!(!state.numbers.contains_key("state.a.step"), "{name}");
        // A frozen one is skipped with its gradient.
        model.0[2].1.set_frozen(true);
        let (before, grads) = (model.bits(), model.gradients(&[None, Some(vec![]), None]));
        optimizer.step(&mut model, &grads).unwrap();
        assert_eq!(model.bits(), before, "{name}");
    }
}

#[test]
fn a_forgotten_gradient_is_an_error_without_allow_missing() {
    let mut model = matrices();
    let grads = model.gradients(&[None, None, Some(vec![1.0, -1.0])]);
    let mut optimizer = RMSprop::new(RMSpropOptions::default()).unwrap();
    let text = optimizer.step(&mut model, &grads).unwrap_err().to_string();
    assert_eq!(text, "step: no gradient for a, empty");
    assert_eq!(model.values(), [1.0; 6]);
}

#[test]
fn muon_says_which_parameter_is_no_matrix() {
    let mut model = Several::<f64>::of_the_fixture();
    let before = model.bits();
    let grads = model.fixture_gradients(1, &[]);
    let mut muon = Muon::new(MuonOptions::default()).unwrap();
    let error = muon.step(&mut model, &grads).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { op: "Muon", name: "parameters", .. }));
    assert_eq!(error.to_string(), "Muon: parameters must be matrices: b has shape [5]");
    assert_eq!(model.bits(), before);

    // The matrix alone, and the rest by another optimiser.
    let mut muon = Muon::for_parameters([model.id(0)], MuonOptions::default()).unwrap();
    let mut adam = Adam::for_parameters([model.id(1)], AdamOptions::default()).unwrap();
    muon.step(&mut model, &grads).unwrap();
    assert_eq!(model.bits()[12..], before[12..]);
    let half = model.bits();
    adam.step(&mut model, &grads).unwrap();
    assert_eq!(model.bits()[..12], half[..12]);
    assert!(model.bits().iter().zip(&before).all(|(now, before)| now != before));
}

#[test]
fn muon_takes_a_gradient_of_zeros() {
    let mut model = matrices();
    let grads = model.gradients(&[Some(vec![0.0; 4]), Some(vec![]), Some(vec![0.0; 2])]);
    let mut muon = Muon::new(MuonOptions { weight_decay: 0.0, ..Default::default() }).unwrap();
    muon.step(&mut model, &grads).unwrap();
    assert_eq!(model.values(), [1.0; 6]);
}

#[test]
fn a_centred_variance_that_rounding_made_negative_is_0() {
    let mut model = Several::<f32>::of_the_fixture();
    let g: Vec<f32> = (1..=17).map(|i| i as f32 / 10.0).collect();
    let grads = model.gradients(&[Some(g[..12].to_vec()), Some(g[12..].to_vec())]);
    let options = RMSpropOptions { alpha: 0.5, centered: true, ..Default::default() };
    let mut rmsprop = RMSprop::new(options).unwrap();
    let (mut v, mut a) = ([0.0_f32; 17], [0.0_f32; 17]);
    let mut negative = 0;
    for _ in 0..100 {
        rmsprop.step(&mut model, &grads).unwrap();
        for (g, (v, a)) in g.iter().zip(v.iter_mut().zip(&mut a)) {
            (*v, *a) = (0.5 * *v + 0.5 * g * g, 0.5 * *a + 0.5 * g);
            negative += usize::from(*v - *a * *a < 0.0);
        }
    }
    assert!(negative > 0);
    assert!(model.values().iter().all(|w| w.is_finite()), "{:?}", model.values());
}

#[test]
fn groups_have_rates_of_their_own_and_may_be_empty() {
    let mut model = Several::<f64>::of_the_fixture();
    let options = SgdOptions { lr: 0.5, ..Default::default() };
    let mut optimizer = Sgd::new(options).unwrap();
    assert_eq!(optimizer.add_param_group([], options).unwrap(), 1);
    let second = SgdOptions { lr: 0.25, maximize: true, ..options };
    assert_eq!(optimizer.add_param_group([model.id(1)], second).unwrap(), 2);
    let before = model.values();
    let grads = model.gradients(&[Some(vec![1.0; 12]), Some(vec![1.0; 5])]);
    optimizer.step(&mut model, &grads).unwrap();
    let by = |start: f64, i: usize| if i < 12 { start - 0.5 } else { start + 0.25 };
    let expected: Vec<f64> = before.iter().enumerate().map(|(i, &w)| by(w, i)).collect();
    assert_eq!(model.values(), expected);

    let text = optimizer.add_param_group([model.id(1)], options).unwrap_err().to_string();
    assert_eq!(text, "Sgd: parameters name one that is in group 2 already");
    let negative = SgdOptions { lr: -1.0, ..options };
    optimizer.add_param_group([model.id(0)], negative).unwrap_err();
    assert!(optimizer.group_options(3).is_none());
    optimizer.set_lr(0.1);
    assert_eq!([0, 1, 2].map(|i| optimizer.group_options(i).unwrap().lr), [0.1; 3]);

    // Another model has other parameters, even with the same names.
    let mut other = Several::<f64>::of_the_fixture();
    let grads = other.fixture_gradients(1, &[]);
    let text = optimizer.step(&mut other, &grads).unwrap_err().to_string();
    assert_eq!(text, "Sgd: model has 0 of the 1 parameters that groups were made for");
}

#[test]
fn clipping_in_the_step_is_clipping_before_it() {
    let options = AdamOptions { eps: 0.1, ..Default::default() };
    for clip in [ClipGrad::Norm(0.5), ClipGrad::Norm(1e9), ClipGrad::Value(0.2)] {
        let (mut inside, mut before) =
            (Several::<f64>::of_the_fixture(), Several::<f64>::of_the_fixture());
        let mut folded = Adam::new(options).unwrap().with_clip_grad(clip).unwrap();
        let mut plain = Adam::new(options).unwrap();
        for t in 1..=20 {
            let grads = inside.fixture_gradients(t, &[]);
            let given = grads.parameter(inside.id(0)).unwrap().to_vec();
            folded.step(&mut inside, &grads).unwrap();
            assert_eq!(grads.parameter(inside.id(0)).unwrap().to_vec(), given);

            let g = |index: usize| {
                let grads = before.fixture_gradients(t, &[]);
                grads.parameter(before.id(index)).unwrap().to_vec()
            };
            let (mut a, mut b) = (g(0), g(1));
            let norm = a.iter().chain(&b).map(|g| g * g).sum::<f64>().sqrt();
            for g in a.iter_mut().chain(&mut b) {
                match clip {
                    ClipGrad::Norm(most) => *g *= (most / norm).min(1.0),
                    ClipGrad::Value(limit) => *g = g.clamp(-limit, limit),
                    ClipGrad::None => {}
                }
            }
            let grads = before.gradients(&[Some(a), Some(b)]);
            plain.step(&mut before, &grads).unwrap();
        }
        for (a, b) in inside.values().iter().zip(before.values()) {
            assert!((a - b).abs() < 1e-13, "{clip:?}: {a} {b}");
        }
    }
}

#[test]
fn a_norm_that_is_not_finite_is_an_error_and_nothing_is_updated() {
    let mut model = matrices();
    let adam = Adam::new(AdamOptions::default()).unwrap();
    let mut adam = adam.with_clip_grad(ClipGrad::Norm(1.0)).unwrap();
    for bad in [f64::NAN, f64::INFINITY] {
        let g = Some(vec![1.0, bad, 0.0, 0.0]);
        let grads = model.gradients(&[g, Some(vec![]), Some(vec![1.0, 1.0])]);
        let text = adam.step(&mut model, &grads).unwrap_err().to_string();
        assert_eq!(text, format!("step: gradients have norm {bad}, which no factor makes finite"));
        assert_eq!(model.values(), [1.0; 6]);
    }
    let state = adam.state_dict(&model).unwrap();
    assert!(state.tensors.is_empty());
}

#[test]
fn a_parameter_that_changed_its_size_is_an_error() {
    let mut model = matrices();
    let mut adam = Adam::new(AdamOptions::default()).unwrap();
    let grads = model.gradients(&[Some(vec![1.0; 4]), Some(vec![]), Some(vec![1.0; 2])]);
    adam.step(&mut model, &grads).unwrap();
    *model.0[2].1.value_mut() = Tensor::ones([3, 1]).unwrap();
    let grads = model.gradients(&[Some(vec![1.0; 4]), Some(vec![]), Some(vec![1.0; 3])]);
    let error = adam.step(&mut model, &grads).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { op: "step", .. }), "{error}");
}

#[test]
fn long_parameters_have_the_same_bits_on_any_number_of_threads() {
    const N: usize = 300 * 301;
    let mut rng = Generator::new(5);
    let start = Tensor::<f32>::randn([300, 301], &mut rng).unwrap();
    let g = Tensor::<f32>::randn([N], &mut rng).unwrap().to_vec();
    let trained = |index: usize| {
        let mut model = Several::new(&[("a", start.clone())]);
        let mut optimizer = all::<f32>().swap_remove(index).1;
        let mut ema = Ema::new(&model, 0.9).unwrap();
        for _ in 0..3 {
            let grads = model.gradients(&[Some(g.clone())]);
            optimizer.step(&mut model, &grads).unwrap();
            ema.update(&model).unwrap();
        }
        let trained = model.bits();
        ema.swap(&mut model).unwrap();
        (trained, model.bits())
    };
    for index in 0..all::<f32>().len() {
        let expected = trained(index);
        for threads in [1, 2, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| trained(index)) == expected, "{index} on {threads}");
        }
    }
}

#[test]
fn an_average_is_of_one_model() {
    let mut model = Several::<f64>::of_the_fixture();
    let start = model.bits();
    let mut other = Several::<f64>::of_the_fixture();
    let mut ema = Ema::new(&model, 0.5).unwrap();
    let text = Ema::new(&model, 1.5).unwrap_err().to_string();
    assert_eq!(text, "Ema: decay must be in [0, 1], found 1.5");
    let text = ema.update(&other).unwrap_err().to_string();
    assert_eq!(text, "Ema: model has 2 parameters, and 0 of the 2 averaged ones");
    assert_eq!(ema.n_averaged(), 0);

    // The average neither holds the parameter's memory nor is changed with it.
    let moves = |model: &mut Several<f64>| {
        let address = |m: &Several<f64>| m.0[0].1.value().as_slice().unwrap().as_ptr();
        let before = address(model);
        *model.0[0].1.value_mut() += &Tensor::ones([4, 3]).unwrap();
        address(model) != before
    };
    assert!(!moves(&mut model));
    ema.copy_to(&model, &mut other).unwrap();
    assert_eq!(other.bits(), start);
    ema.update(&model).unwrap();
    let start = model.bits();
    assert!(!moves(&mut model));
    ema.copy_to(&model, &mut other).unwrap();
    assert_eq!(other.bits(), start);

    ema.update(&model).unwrap();
    let trained = model.bits();
    ema.swap(&mut model).unwrap();
    assert_ne!(model.bits(), trained);
    ema.swap(&mut model).unwrap();
    assert_eq!(model.bits(), trained);

    // A missing parameter is another model's.
    model.0.truncate(1);
    ema.swap(&mut model).unwrap_err();
}
