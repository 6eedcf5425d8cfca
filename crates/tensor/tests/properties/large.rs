//! Tensors worth several tasks, on any number of threads, and every length around the widths of
//! vectors, lanes and tiles.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tensor::kernels::softmax::{log_softmax, softmax};
use tensor::{Float, Tensor};

use crate::arithmetic::Arithmetic;
use crate::linalg::{linear, matmul};
use crate::reduce::{Over, extrema, sum_to, sums};
use crate::softmax::check_rows;
use crate::twin::{Choices, Dense, Fill, Sample, Twin, divisors, integers, reals, same};
use crate::{cases, run};

/// Lengths around the widths of vectors, lanes and tiles.
const SIZES: [usize; 16] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 257];

/// Shapes of tensors that are worth several tasks.
const LARGE: [&[usize]; 4] = [&[200_003], &[3, 257, 301], &[70_000, 3], &[2, 100_003]];

/// What takes long on large tensors for the oracle alone, or is drawn anew for each call.
const NOT_LARGE: [&str; 17] = [
    "split",
    "unfold",
    "select",
    "slice",
    "stack",
    "cat",
    "sort",
    "argsort",
    "topk",
    "one_hot",
    "repeat",
    "tile",
    "bernoulli",
    "chunk",
    "norm",
    "norm_dim",
    "logcumsumexp",
];

static POOLS: LazyLock<[ThreadPool; 3]> =
    LazyLock::new(|| [1, 2, 4].map(|n| ThreadPoolBuilder::new().num_threads(n).build().unwrap()));

/// Everything that rounds, is folded, or has tasks of its own.
fn results<T: Float + Sample>(x: &Tensor<T>) -> Vec<Vec<u64>> {
    let mut all = vec![x.exp(), x.log(), x.tanh(), x.sigmoid(), x.erf(), x.sin(), x.expm1()];
    all.extend([x.sum(), x.mean(), x.prod(), x.var(1), x.norm(2.0), x.norm(3.0), x.logsumexp()]);
    all.extend([x.max().unwrap(), x.min().unwrap()]);
    for d in 0..x.rank() {
        let dim = d as isize;
        all.extend([softmax(x, d), log_softmax(x, d).0, x.cumsum(dim).unwrap()]);
        all.extend([x.sum_dim(&[dim], false).unwrap(), x.amax(&[dim], false).unwrap()]);
        all.extend([x.var_dim(&[dim], 1, true).unwrap(), x.logsumexp_dim(&[dim], true).unwrap()]);
        all.extend([x.sort(dim, false).unwrap().0, x.flip(&[dim]).unwrap()]);
        all.push(x.topk(x.shape()[d].min(3), dim, true).unwrap().1.cast());
        all.push(x.argmin_dim(dim, true).unwrap().cast());
        all.push(Tensor::cat(&[x, x], dim).unwrap());
        all.push(x.roll(&[5], &[dim]).unwrap());
        all.extend([x.linear_recurrence(x, dim).unwrap(), x.logcumsumexp(dim).unwrap()]);
        let windows = |x: &Tensor<T>| x.unfold(dim, 2, 1)?.flip(&[0]);
        all.push(windows(x).unwrap().scatter_view(x.shape(), windows).unwrap());
        let entries = Tensor::<i64>::arange(0, x.shape()[d] as i64, 1).unwrap();
        all.push(x.index_add(dim, &entries.remainder(7).unwrap().minimum(1).unwrap(), x).unwrap());
    }
    let m = x.reshape([x.numel()]).unwrap().narrow(0, 0, 40_000).unwrap();
    let m = m.reshape([160, 250]).unwrap();
    all.extend([m.matmul(&m.transpose(0, 1).unwrap()).unwrap(), m.linear(&m, None).unwrap()]);
    all.iter().map(|x| x.to_vec().into_iter().map(|x| x.number().to_bits()).collect()).collect()
}

fn check_binary<T: Arithmetic>(a: &Twin<T>, b: &Twin<T>) {
    same(&(&a.view + &b.view), &a.dense.zip(&b.dense, Arithmetic::add));
    same(&(&a.view / &b.view), &a.dense.zip(&b.dense, Arithmetic::div));
    same(&(a.fresh() - &b.view), &a.dense.zip(&b.dense, Arithmetic::sub));
    same(&(&a.view * b.fresh()), &a.dense.zip(&b.dense, Arithmetic::mul));
    same(&a.view.lt(&b.view).unwrap(), &a.dense.zip(&b.dense, |x, y| x < y));
    let mask = Twin::<bool>::strided(&b.dense.shape, 1, integers);
    let want =
        mask.dense.zip(&a.dense.zip(&b.dense, |x, y| (x, y)), |m, (x, y)| if m { x } else { y });
    same(&mask.view.where_cond(&a.view, &b.view).unwrap(), &want);
    a.check();
    b.check();
}

fn check_reductions<T: Float + Sample>(x: &Twin<T>, c: &mut Choices, exact: bool) {
    for mean in [false, true] {
        let (all, some) = if mean {
            (Over::All(Tensor::mean), Over::Some(Tensor::mean_dim))
        } else {
            (Over::All(Tensor::sum), Over::Some(Tensor::sum_dim))
        };
        sums(x, c, all, [mean, exact]);
        sums(x, c, some, [mean, exact]);
    }
    sum_to(x, c, exact);
    check_rows(x);
}

proptest! {
    #![proptest_config(cases(4))]

    #[test]
    fn large_tensors_match_naive_on_any_number_of_threads(
        shape in prop::sample::select(&LARGE[..]), seed: u64,
        steps in vec(any::<u64>(), 0..4),
    ) {
        fn check<T: Float + Arithmetic>(shape: &[usize], seed: u64) {
            let c = &mut Choices(seed);
            let part = Twin::<T>::strided(&c.reduced(shape), c.bits(), divisors);
            let exact = Twin::<T>::strided(shape, c.bits(), divisors);
            let x = Twin::<T>::strided(shape, c.bits(), reals);
            POOLS[seed as usize % 3].install(|| {
                check_binary(&exact, &part);
                check_binary(&part, &exact);
                check_reductions(&exact, c, true);
                check_reductions(&x, c, false);
                (0..5).for_each(|which| extrema(&exact, c, which % 2 == 0, which));
            });
            let [one, two, three] = POOLS.each_ref().map(|p| p.install(|| results::<T>(&x.view)));
            assert!(one == two && two == three);
        }
        check::<f32>(shape, seed);
        check::<f64>(shape, seed.rotate_left(9));
        POOLS[seed as usize % 3].install(|| {
            let mut twin = Twin::<f32>::strided(shape, seed, reals);
            for step in steps {
                twin = twin.step(step);
                twin.check();
            }
            twin.view.make_mut();
            twin.check();
        });
    }
}

/// The oracles of two tables again, where there is more than one task.
#[test]
fn operations_match_naive_on_large_tensors() {
    let tables = [crate::elementwise::TABLE, crate::arithmetic::TABLE, crate::order::TABLE];
    let others = [crate::index::TABLE, crate::join::TABLE];
    for (i, oracle) in tables.iter().chain(&others).copied().flatten().enumerate() {
        if !NOT_LARGE.contains(&oracle.0) {
            let shape = [&[70_001][..], &[257, 260], &[3, 23_000]][i % 3];
            POOLS[i / 3 % 3].install(|| run(&[*oracle], shape, i as u64));
        }
    }
}

#[test]
fn kernels_of_every_length_match_naive() {
    fn check<T: Float + Arithmetic>(n: usize) {
        // Strides 1, 3, 0 and −1, as a vector and as rows.
        let c = &mut Choices(n as u64);
        for (fill, exact) in [(integers as Fill<T>, true), (reals, false)] {
            let rows = Twin::<T>::new(&[n, 3], c.bits(), fill);
            let one = Twin::<T>::new(&[1], c.bits(), fill);
            let apart = rows.narrow(1, 1, 1);
            let apart = apart.with_shape(apart.view.squeeze(1), &[n]);
            let back = Twin::<T>::new(&[n], c.bits(), fill).flip(&[0]);
            let vectors = [Twin::new(&[n], c.bits(), fill), apart, one.expand(&[n]), back];
            for x in &vectors {
                check_reductions(x, c, exact);
                (0..5).for_each(|which| extrema(x, c, which % 2 == 0, which));
                vectors.iter().for_each(|y| check_binary(x, y));
            }
            for x in [&rows, &rows.permute(&[1, 0])] {
                check_reductions(x, c, exact);
            }
        }
    }
    for n in SIZES {
        check::<f32>(n);
        check::<f64>(n);
        let c = &mut Choices(n as u64);
        for sizes in [[n, 5, n.min(65)], [3, n, n.min(65)]] {
            matmul::<f32>(&[], sizes, c);
            matmul::<f64>(&[], sizes, c);
            linear::<f32>(&[sizes[0]], sizes, c);
            linear::<f64>(&[sizes[0]], sizes, c);
        }
        // Rows and columns of each element-wise function.
        for (i, oracle) in crate::elementwise::TABLE.iter().enumerate() {
            run(&[*oracle], [&[n][..], &[2, n], &[n, 3]][i % 3], n as u64);
        }
    }
}

#[test]
fn every_kind_of_step_is_taken() {
    // Strided views have every kind of stride, or the oracles would see only plain ones.
    let (mut zero, mut negative, mut gaps, mut order) = (0, 0, 0, 0);
    for seed in 0..200 {
        let x = Twin::<u8>::strided(&[3, 4, 5], seed, integers);
        let strides = x.view.layout().strides();
        zero += usize::from(strides.contains(&0));
        negative += usize::from(strides.iter().any(|&s| s < 0));
        gaps += usize::from(strides.iter().all(|&s| s.abs() != 1));
        order += usize::from(strides[2].abs() > strides[0].abs());
    }
    assert!(
        [zero, negative, gaps, order].iter().all(|&n| n > 40),
        "{zero} {negative} {gaps} {order}"
    );
    let kept = Dense::build(&[2, 2], |i| i[0] as f64).groups(|d| d == 1);
    assert_eq!(kept.data, [[0.0, 0.0], [1.0, 1.0]]);
}
