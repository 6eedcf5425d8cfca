//! The same bits on any number of threads, and in place, out of place and composed.

use autograd::{ClassOptions, Target, cross_entropy_in_place};
use nn::prelude::*;

use crate::{classes, tensor};

fn bits<T: Float>(x: &Tensor<T>) -> Vec<u64> {
    x.to_vec().into_iter().map(|v| v.to_f64().to_bits()).collect()
}

struct Input<T: Float> {
    x: Tensor<T>,
    t: Tensor<i64>,
    q: Tensor<T>,
    weight: Tensor<T>,
}

/// Large enough for several tasks, and for a gradient that is ready after the forward pass.
fn input<T: Float>() -> Input<T> {
    let (n, c) = (260, 4099);
    let x = Tensor::<f32>::randn([n, c], &mut Generator::new(8)).unwrap() * 5.0;
    let t: Vec<i64> =
        (0..n as i64).map(|i| if i % 9 == 4 { -100 } else { i * 53 % c as i64 }).collect();
    let q = Tensor::<f32>::uniform([n, c], 0.0, 1.0, &mut Generator::new(9)).unwrap();
    let weight: Vec<f64> = (0..c).map(|k| f64::from(k as u32 % 7) * 0.5).collect();
    Input { x: x.cast(), t: classes(&t, &[n]), q: q.cast(), weight: tensor(&weight, &[c]) }
}

fn loss_and_gradient<T: Float>(
    x: &Tensor<T>,
    f: impl Fn(&Var<T>) -> Result<Var<T>>,
) -> (Vec<u64>, Vec<u64>) {
    let v = Tape::new().var(x.clone());
    let loss = f(&v).unwrap();
    let value = bits(loss.value());
    let up = loss.value().ones_like();
    (value, bits(loss.backward_with(&up).unwrap().wrt(&v).unwrap()))
}

fn options<T: Float>(i: &Input<T>) -> Vec<ClassOptions<T>> {
    let mut all = Vec::new();
    for reduction in [Reduction::None, Reduction::Mean] {
        for label_smoothing in [0.0, 0.1] {
            for weight in [None, Some(i.weight.clone())] {
                all.push(ClassOptions { reduction, label_smoothing, weight, ..Default::default() });
            }
        }
    }
    all
}

fn threads<T: Float>() {
    let i = input::<T>();
    for o in options(&i) {
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let soft = Var::constant(i.q.clone());
                [
                    loss_and_gradient(&i.x, |x| x.cross_entropy(&i.t, &o)),
                    loss_and_gradient(&i.x, |x| x.cross_entropy(Target::from(&soft), &o)),
                ]
            })
        };
        let one = run(1);
        assert!(one == run(2) && one == run(4), "{o:?}");
    }
}

#[test]
fn any_number_of_threads() {
    threads::<f32>();
    threads::<f64>();
}

fn paths<T: Float>() {
    let i = input::<T>();
    for o in options(&i) {
        let o = ClassOptions { reduction: Reduction::Mean, ..o };
        let fused = loss_and_gradient(&i.x, |x| x.cross_entropy(&i.t, &o));
        let composed = loss_and_gradient(&i.x, |x| x.log_softmax(1)?.nll_loss(&i.t, &o));
        assert!(fused == composed, "composed, {o:?}");
        let mut x = Tensor::from_vec(i.x.to_vec(), i.x.shape()).unwrap();
        let loss = cross_entropy_in_place(&mut x, &i.t, &o).unwrap();
        assert!(fused == (bits(&loss), bits(&x)), "in place, {o:?}");
        // With another upstream gradient than 1 the gradient is computed in the backward pass.
        let twice = loss_and_gradient(&i.x, |x| Ok(x.cross_entropy(&i.t, &o)? * T::from_f64(2.0)));
        let doubled: Vec<u64> =
            fused.1.iter().map(|&g| (2.0 * f64::from_bits(g)).to_bits()).collect();
        assert!(twice.1 == doubled, "backward, {o:?}");
    }
}

#[test]
fn in_place_out_of_place_and_composed() {
    paths::<f32>();
    paths::<f64>();
}
