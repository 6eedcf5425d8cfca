//! Properties of the public API on random shapes and views, against index loops.
//!
//! Every view has a [`Dense`] twin that each operation is mirrored on. Most elements are integers
//! small enough for sums and products to be exact in `f32` too, so that most comparisons are of
//! bits. The instruction set is chosen once per process: run the file under `TENSOR_ISA=baseline`
//! and `TENSOR_ISA=avx2` as well.

#![expect(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tensor::kernels::Zip;
use tensor::kernels::softmax::{log_softmax, softmax};
use tensor::{Float, Generator, Result, Tensor};

/// Lengths around the widths of vectors, lanes and tiles.
const SIZES: [usize; 16] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 63, 64, 65, 127, 257];

/// Sums of n elements. At most 64 of them meet in a lane of the element type, and the result is
/// rounded to it: 65 roundings u = ε/2, relative to Σ|x|. The rest, and the oracle, add in `f64`:
/// 2n roundings of 2⁻⁵³.
const SUM_ROUNDINGS: f64 = 65.0;

/// Softmax. An exponential has 1.1 ulp ≤ 2.2 u (`f32`) or 1.5 ulp ≤ 3 u (`f64`), and reducing
/// arguments up to 2¹¹ adds at most 1.5 u: 4.5 u, once in the numerator and once in the sum, whose
/// lanes round 32 times. The factor, the product and the output round 3 times, the logarithm's way
/// (x − max) − log 3 times: 44 u of the result at most, to first order.
const SOFTMAX_ROUNDINGS: f64 = 45.0;

/// Shapes of tensors that are worth several tasks.
const LARGE: [&[usize]; 4] = [&[200_003], &[3, 257, 301], &[70_000, 3], &[2, 100_003]];

static POOLS: LazyLock<[ThreadPool; 3]> =
    LazyLock::new(|| [1, 2, 3].map(|n| ThreadPoolBuilder::new().num_threads(n).build().unwrap()));

/// Calls `visit` with each index of `shape` in row-major order.
fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product() {
        visit(&index);
        for (i, &size) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
}

/// The oracle: elements in row-major order.
#[derive(Clone, Debug)]
struct Dense {
    shape: Vec<usize>,
    data: Vec<f64>,
}

impl Dense {
    fn build(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Self {
        let mut data = Vec::new();
        for_each_index(shape, |i| data.push(f(i)));
        Dense { shape: shape.to_vec(), data }
    }

    /// Where `index` is in `data`; leading dims and dims of size 1 broadcast.
    fn flat(&self, index: &[usize]) -> usize {
        let index = &index[index.len() - self.shape.len()..];
        let dims = index.iter().zip(&self.shape);
        dims.fold(0, |at, (&i, &size)| at * size + if size == 1 { 0 } else { i })
    }

    fn at(&self, index: &[usize]) -> f64 {
        self.data[self.flat(index)]
    }

    fn with_shape(&self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.data.len());
        Dense { shape: shape.to_vec(), ..self.clone() }
    }

    fn map(&self, f: impl FnMut(f64) -> f64) -> Self {
        Dense { shape: self.shape.clone(), data: self.data.iter().copied().map(f).collect() }
    }

    /// Folds the dims where `over` says so; they keep size 1.
    fn fold(&self, over: impl Fn(usize) -> bool, init: f64, f: fn(f64, f64) -> f64) -> Self {
        let sizes = self.shape.iter().enumerate();
        let shape: Vec<usize> = sizes.map(|(d, &n)| if over(d) { 1 } else { n }).collect();
        let mut out = Dense::build(&shape, |_| init);
        for_each_index(&self.shape, |i| {
            let at = out.flat(i);
            out.data[at] = f(out.data[at], self.at(i));
        });
        out
    }

    fn sum(&self, over: impl Fn(usize) -> bool) -> Self {
        self.fold(over, 0.0, |sum, x| sum + x)
    }
}

/// Decisions, read as the digits of a number.
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        let digit = self.0 % n as u64;
        self.0 /= n as u64;
        digit as usize
    }

    fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).for_each(|i| order.swap(i, i - self.below(i + 1)));
        order
    }

    /// `d` counted from either end.
    fn signed(&mut self, d: usize, rank: usize) -> isize {
        d as isize - if self.below(2) == 1 { rank as isize } else { 0 }
    }

    /// A shape of `numel` elements.
    fn factors(&mut self, numel: usize) -> Vec<usize> {
        let (mut shape, mut rest) = (Vec::new(), numel);
        for _ in 0..self.below(5) {
            let divisors: Vec<usize> = (1..=rest.max(3)).filter(|k| rest % k == 0).collect();
            shape.push(divisors[self.below(divisors.len())]);
            rest /= shape[shape.len() - 1];
        }
        if rest != 1 || self.below(2) == 1 {
            shape.push(rest);
        }
        shape
    }

    /// A shape that broadcasts to `shape`.
    fn reduced(&mut self, shape: &[usize]) -> Vec<usize> {
        let skip = self.below(2) * self.below(shape.len() + 1);
        shape[skip..].iter().map(|&n| if self.below(3) == 2 { 1 } else { n }).collect()
    }
}

/// What an element is made of: 64 mixed bits.
type Fill = fn(u64) -> f64;
/// Integers of [−8, 8].
const INTEGERS: Fill = |bits| (bits % 17) as f64 - 8.0;
/// Multiples of 2⁻²⁰ of [−8, 8): exact in `f32`, and so are their differences in `f64`.
const REALS: Fill = |bits| ((bits >> 40) as f64 - 8_388_608.0) / 1_048_576.0;
/// As `REALS`, of [−512, 512).
const WIDE: Fill = |bits| REALS(bits) * 64.0;
/// Integers and NaN.
const WITH_NAN: Fill = |bits| if bits % 19 == 0 { f64::NAN } else { INTEGERS(bits) };

/// A view and its oracle.
#[derive(Clone)]
struct Twin<T: Float> {
    view: Tensor<T>,
    dense: Dense,
}

impl<T: Float> Twin<T> {
    fn new(shape: &[usize], seed: u64, fill: Fill) -> Self {
        let mut state = seed;
        let dense = Dense::build(shape, |_| {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            fill(mixed ^ (mixed >> 31))
        });
        let data = dense.data.iter().map(|&x| T::from_f64(x)).collect();
        Twin { view: Tensor::from_vec(data, shape).unwrap(), dense }
    }

    /// A view of `shape` with gaps, permuted and repeated dims; its storage has no other owner.
    fn strided(shape: &[usize], seed: u64, fill: Fill) -> Self {
        let c = &mut Choices(seed);
        let order = c.permutation(shape.len());
        let (mut base, mut windows) = (vec![0; shape.len()], Vec::new());
        for (&d, &size) in order.iter().zip(shape) {
            let (before, after) = [(0, 0), (0, 0), (0, 1), (1, 0), (2, 3)][c.below(5)];
            let length = if c.below(5) == 4 { 1 } else { size };
            windows.push((before, length));
            base[d] = before + length + after;
        }
        let mut twin = Self::new(&base, seed, fill).permute(&order);
        for (d, (start, length)) in windows.into_iter().enumerate() {
            twin = twin.narrow(d, start, length);
        }
        twin.expand(shape)
    }

    /// `view`, whose element at an index is ours at the index that `source(index, ours)` leaves.
    fn mirror<F>(&self, view: Result<Tensor<T>>, shape: &[usize], source: F) -> Self
    where
        F: Fn(&[usize], &mut [usize]),
    {
        let mut ours = vec![0; shape.len()];
        let dense = Dense::build(shape, |index| {
            ours.copy_from_slice(index);
            source(index, &mut ours);
            self.dense.at(&ours)
        });
        Twin { view: view.unwrap(), dense }
    }

    /// `view`, with our elements in our order.
    fn with_shape(&self, view: Result<Tensor<T>>, shape: &[usize]) -> Self {
        Twin { view: view.unwrap(), dense: self.dense.with_shape(shape) }
    }

    fn permute(&self, order: &[usize]) -> Self {
        let dims: Vec<isize> = order.iter().map(|&d| d as isize).collect();
        let shape: Vec<usize> = order.iter().map(|&d| self.dense.shape[d]).collect();
        self.mirror(self.view.permute(&dims), &shape, |index, ours| {
            order.iter().zip(index).for_each(|(&d, &i)| ours[d] = i);
        })
    }

    fn narrow(&self, d: usize, start: usize, length: usize) -> Self {
        let mut shape = self.dense.shape.clone();
        shape[d] = length;
        self.mirror(self.view.narrow(d as isize, start, length), &shape, |_, ours| ours[d] += start)
    }

    fn expand(&self, shape: &[usize]) -> Self {
        self.mirror(self.view.expand(shape), shape, |_, _| ())
    }

    /// A view, chosen by `choice`, of this one.
    fn step(&self, choice: u64) -> Self {
        let c = &mut Choices(choice);
        let (mut shape, numel) = (self.dense.shape.clone(), self.dense.data.len());
        let (kind, rank) = (c.below(8), shape.len());
        let (d, e) = (c.below(rank.max(1)), c.below(rank.max(1)));
        match kind {
            0 => self.with_shape(Ok(self.view.contiguous()), &shape),
            1 => {
                shape = c.factors(numel);
                self.with_shape(self.view.reshape(&shape[..]), &shape)
            }
            2 if rank < 6 => {
                shape.insert(d, 1);
                self.with_shape(self.view.unsqueeze(c.signed(d, rank + 1)), &shape)
            }
            3 if rank < 6 && numel < 2000 => {
                shape
                    .iter_mut()
                    .filter(|n| **n == 1)
                    .for_each(|n| *n = [2, 3, 1, 2, 3, 0][c.below(6)]);
                let lead = [2, 1, 3, 0][c.below(4)];
                self.expand(&if c.below(2) == 1 { [&[lead], &shape[..]].concat() } else { shape })
            }
            4 if rank > 0 => {
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(d, e);
                let view = self.view.transpose(c.signed(d, rank), c.signed(e, rank));
                Twin { view: view.unwrap(), ..self.permute(&order) }
            }
            5 if rank > 0 => {
                let start = c.below(shape[d].min(2) + 1);
                let left = shape[d] - start;
                self.narrow(d, start, left - c.below(left.min(2) + 1))
            }
            6 if rank > 0 => {
                if shape[d] == 1 {
                    shape.remove(d);
                }
                self.with_shape(self.view.squeeze(c.signed(d, rank)), &shape)
            }
            _ => self.permute(&c.permutation(rank)),
        }
    }

    fn check(&self) {
        same(&self.view, &self.dense);
    }
}

/// Asserts the shape, and the bits of every element after rounding to `T`; all NaNs are one.
#[track_caller]
fn same<T: Float>(got: &Tensor<T>, want: &Dense) {
    near(got, want, |_, _| BITS);
}

/// No error lies within this bound.
const BITS: f64 = f64::NAN;

/// Asserts the shape, and every element within `bound(flat index, wanted)` of the wanted one.
#[track_caller]
fn near<T: Float>(got: &Tensor<T>, want: &Dense, bound: impl Fn(usize, f64) -> f64) {
    assert_eq!(got.shape(), want.shape);
    for (i, (got, &want)) in got.to_vec().into_iter().zip(&want.data).enumerate() {
        let (got, rounded) = (got.to_f64(), T::from_f64(want).to_f64());
        let equal = got.to_bits() == rounded.to_bits() || (got.is_nan() && rounded.is_nan());
        let (error, bound) = ((got - want).abs(), bound(i, want));
        assert!(equal || error <= bound, "{got} ≠ {want} at {i}: {error:e} > {bound:e}");
    }
}

fn unit_roundoff<T: Float>() -> f64 {
    T::EPSILON.to_f64() / 2.0
}

fn smallest_normal<T: Float>() -> f64 {
    if T::NAME == "f32" { f32::MIN_POSITIVE.into() } else { f64::MIN_POSITIVE }
}

/// The distance of neighbours in `T` at `x`.
fn ulp<T: Float>(x: f64) -> f64 {
    let power = f64::from_bits(x.to_bits() & (0x7ff << 52));
    power.max(smallest_normal::<T>()) * T::EPSILON.to_f64()
}

/// Sigmoid, in ulp ∈ (u, 2u] relative. The exponential carries 1.1 ulp ≤ 2.2 u (`f32`) or
/// 1.5 ulp ≤ 3 u (`f64`); the sum, the quotient and the product round once each: 5.2 and 6 u. In
/// `f64` the oracle adds 2 u from the standard library and 2 roundings: 10.
const SIGMOID: [f64; 2] = [5.3, 10.1];
/// `exp` in `f64` has 1.5 ulp and the standard library's less than 1.
const EXP: [f64; 2] = [1.1, 2.5];
/// In `f64` they are the standard library's own.
const LOG_AND_TANH: [f64; 2] = [2.5, BITS];

type Unary<T> = (fn(&Tensor<T>) -> Tensor<T>, fn(f64) -> f64, [f64; 2]);
type Binary<T> = (fn(&Tensor<T>, &Tensor<T>) -> Result<Tensor<T>>, fn(T, T) -> T);
type Reduction<T> = fn(&Tensor<T>, &[isize], bool) -> Result<Tensor<T>>;

fn check_unary<T: Float>(x: &Twin<T>) {
    let sigmoid =
        |x: f64| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) };
    let table: [Unary<T>; 8] = [
        (|x| -x, |x| -x, [BITS; 2]),
        (Tensor::abs, f64::abs, [BITS; 2]),
        (Tensor::sqrt, f64::sqrt, [BITS; 2]),
        (Tensor::relu, |x| if x <= 0.0 { 0.0 } else { x }, [BITS; 2]),
        (Tensor::exp, f64::exp, EXP),
        (Tensor::log, f64::ln, LOG_AND_TANH),
        (Tensor::tanh, f64::tanh, LOG_AND_TANH),
        (Tensor::sigmoid, sigmoid, SIGMOID),
    ];
    for (op, exact, ulps) in table {
        let ulps = ulps[usize::from(T::NAME == "f64")];
        near(&op(&x.view), &x.dense.map(exact), |_, want| ulps * ulp::<T>(want));
    }
    same(&-x.view.clone(), &x.dense.map(|x| -x));
    same(&-fresh(x), &x.dense.map(|x| -x));
    x.check();
}

/// A copy whose storage has no other owner.
fn fresh<T: Float>(x: &Twin<T>) -> Tensor<T> {
    Tensor::from_vec(x.view.to_vec(), x.view.shape()).unwrap()
}

fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut shape = long.to_vec();
    for (n, &m) in shape.iter_mut().rev().zip(short.iter().rev()) {
        *n = if *n == 1 { m } else { *n };
    }
    shape
}

fn pairwise<T: Float>(a: &Dense, b: &Dense, formula: fn(T, T) -> T) -> Dense {
    Dense::build(&broadcast(&a.shape, &b.shape), |i| {
        formula(T::from_f64(a.at(i)), T::from_f64(b.at(i))).to_f64()
    })
}

struct Less;
impl<T: Float> Zip<T, bool> for Less {
    #[inline(always)]
    fn apply<const FMA: bool>(x: T, y: T) -> bool {
        x < y
    }
}

/// All binary operations of two views that broadcast. The formulas round in the order of the
/// documentation, so that bits are compared.
fn check_binary<T: Float>(a: &Twin<T>, b: &Twin<T>) {
    let table: [Binary<T>; 7] = [
        (Tensor::checked_add, |x, y| x + y),
        (Tensor::checked_sub, |x, y| x - y),
        (Tensor::checked_mul, |x, y| x * y),
        (Tensor::checked_div, |x, y| x / y),
        (Tensor::threshold_backward, |x, y| if y <= T::ZERO { T::ZERO } else { x }),
        (Tensor::tanh_backward, |x, y| x * (T::ONE - y * y)),
        (Tensor::sigmoid_backward, |x, y| x * (y * (T::ONE - y))),
    ];
    for (op, formula) in table {
        same(&op(&a.view, &b.view).unwrap(), &pairwise(&a.dense, &b.dense, formula));
    }
    let less = a.view.zip::<bool, Less>("less", &b.view).unwrap().to_vec();
    let want = pairwise::<f64>(&a.dense, &b.dense, |x, y| f64::from(x < y));
    assert!(less.iter().map(|&l| f64::from(l)).eq(want.data));
    macro_rules! check_ownership {
        ($($op:tt)+) => {$(
            let want = pairwise::<T>(&a.dense, &b.dense, |x, y| x $op y);
            same(&(&a.view $op &b.view), &want);
            same(&(a.view.clone() $op &b.view), &want);
            same(&(&a.view $op b.view.clone()), &want);
            same(&(a.view.clone() $op b.view.clone()), &want);
            same(&(fresh(a) $op &b.view), &want);
            same(&(&a.view $op fresh(b)), &want);
            same(&(fresh(a) $op fresh(b)), &want);
            same(&(&a.view $op T::from_f64(3.0)), &a.dense.map(|x| x $op 3.0));
            same(&(a.view.clone() $op T::from_f64(3.0)), &a.dense.map(|x| x $op 3.0));
            same(&(fresh(a) $op T::from_f64(3.0)), &a.dense.map(|x| x $op 3.0));
        )+};
    }
    check_ownership!(+ - * /);
    a.check();
    b.check();
}

/// Sums and means over every set of dims; `roundings` is 0 where sums are exact.
fn check_sums<T: Float>(x: &Twin<T>, roundings: f64, seed: u64) {
    let (rank, numel) = (x.view.rank(), x.view.numel());
    let absolute = x.dense.map(f64::abs);
    let per_element = roundings * unit_roundoff::<T>() + numel as f64 * f64::EPSILON;
    let slack = if roundings == 0.0 { BITS } else { per_element };
    for mask in 0..1_usize << rank {
        let c = &mut Choices(seed.rotate_left(mask as u32));
        let reduced = |d: usize| mask >> d & 1 == 1;
        let order = c.permutation(rank).into_iter().filter(|&d| reduced(d));
        let dims: Vec<isize> = order.map(|d| c.signed(d, rank)).collect();
        let count = dims.iter().map(|&d| x.view.shape()[x.view.resolve_dim("", d).unwrap()]);
        let count = count.product::<usize>() as f64;
        let (sum, scale) = (x.dense.sum(reduced), absolute.sum(reduced));
        let kept: Vec<usize> =
            (0..rank).filter(|&d| !reduced(d)).map(|d| x.view.shape()[d]).collect();
        for (got, n) in [(Tensor::sum_dim as Reduction<T>, 1.0), (Tensor::mean_dim, count)] {
            let want = sum.map(|s| s / n);
            let bound = |i: usize, _: f64| slack * scale.data[i] / n;
            near(&got(&x.view, &dims, true).unwrap(), &want, bound);
            near(&got(&x.view, &dims, false).unwrap(), &want.with_shape(&kept), bound);
        }
        near(&x.view.sum_to(&sum.shape).unwrap(), &sum, |i, _| slack * scale.data[i]);
    }
    let (sum, n) = (x.dense.sum(|_| true).with_shape(&[]), numel as f64);
    let bound = slack * absolute.data.iter().sum::<f64>();
    near(&x.view.sum(), &sum, |_, _| bound);
    near(&x.view.mean(), &sum.map(|s| s / n), |_, _| bound / n);
    // As many leading dims as are summed may also be dropped.
    let lead = Choices(seed).below(rank + 1);
    let want = x.dense.sum(|d| d < lead).with_shape(&x.view.shape()[lead..]);
    near(&x.view.sum_to(&x.view.shape()[lead..]).unwrap(), &want, |_, _| bound);
}

fn check_rows<T: Float>(x: &Twin<T>) {
    for d in 0..x.view.rank() {
        let n = x.view.shape()[d] as f64;
        let max = x.dense.fold(|k| k == d, f64::NEG_INFINITY, f64::max);
        let top = pairwise::<f64>(&x.dense, &max, |x, max| x - max);
        let sum = top.map(f64::exp).sum(|k| k == d);
        let log = pairwise::<f64>(&top, &sum, |x, sum| x - sum.ln());
        let probability = pairwise::<f64>(&top, &sum, |x, sum| x.exp() / sum);
        // The oracle rounds n + 8 times; exponentials below the smallest normal count as 0.
        let (oracle, flushed) = ((n + 8.0) * f64::EPSILON, (n + 4.0) * smallest_normal::<T>());
        let relative = SOFTMAX_ROUNDINGS * unit_roundoff::<T>() + oracle;
        near(&log_softmax(&x.view, d).0, &log, |_, y| relative * y.abs() + oracle + flushed);
        near(&softmax(&x.view, d), &probability, |_, y| relative * y + flushed);
    }
    x.check();
}

/// The first of the largest, where NaN is largest.
fn check_argmax<T: Float>(x: &Twin<T>) {
    for (d, &size) in x.dense.shape.iter().enumerate() {
        let got = x.view.argmax_dim(d as isize, false);
        if size == 0 {
            assert!(got.is_err());
            continue;
        }
        let want = Dense::build(&x.narrow(d, 0, 1).dense.shape, |i| {
            let mut at = i.to_vec();
            let mut key = |k| {
                at[d] = k;
                let x = x.dense.at(&at);
                if x.is_nan() { f64::INFINITY } else { x }
            };
            (0..size).rev().max_by(|&a, &b| key(a).total_cmp(&key(b))).unwrap() as f64
        });
        let (got, mut shape) = (got.unwrap(), x.dense.shape.clone());
        shape.remove(d);
        assert_eq!(got.shape(), shape);
        assert!(got.to_vec().iter().map(|&i| i as f64).eq(want.data));
    }
}

/// `[.., M, K] · [.., K, N]`.
fn product(x: &Dense, y: &Dense) -> Dense {
    let (lead, k) = (x.shape.len() - 2, x.shape[x.shape.len() - 1]);
    let mut shape = broadcast(&x.shape[..lead], &y.shape[..y.shape.len() - 2]);
    let rank = shape.len();
    shape.extend([x.shape[lead], y.shape[y.shape.len() - 1]]);
    Dense::build(&shape, |i| {
        let (mut l, mut r) = (i.to_vec(), i.to_vec());
        (0..k).fold(0.0, |sum, k| {
            (l[rank + 1], r[rank]) = (k, k);
            sum + x.at(&l) * y.at(&r)
        })
    })
}

/// Products of small integers, exact but for the sign of 0.
fn check_products<T: Float>(lead: &[usize], [m, k, n]: [usize; 3], seed: u64) {
    let twin = |shape: &[usize], i: u32| Twin::<T>::strided(shape, seed.rotate_left(i), INTEGERS);
    let c = &mut Choices(seed);
    let a = twin(&[c.reduced(lead), vec![m, k]].concat(), 1);
    let b = twin(&[c.reduced(lead), vec![k, n]].concat(), 2);
    let (row, column) = (twin(&[k], 3), twin(&[k], 4));
    let (x, y) = (row.dense.with_shape(&[1, k]), column.dense.with_shape(&[k, 1]));
    let without = |mut want: Dense, from_end: usize| {
        want.shape.remove(want.shape.len() - from_end);
        want
    };
    for (l, r, want) in [
        (&a, &b, product(&a.dense, &b.dense)),
        (&row, &b, without(product(&x, &b.dense), 2)),
        (&a, &column, without(product(&a.dense, &y), 1)),
        (&row, &column, product(&x, &y).with_shape(&[])),
    ] {
        near(&l.view.matmul(&r.view).unwrap(), &want, |_, _| 0.0);
    }
    let (shape, rows) = ([lead, &[k]].concat(), lead.iter().product());
    let (x, w, b) = (twin(&shape, 5), twin(&[n, k], 6), twin(&[n], 7));
    let xw = product(&x.dense.with_shape(&[rows, k]), &w.permute(&[1, 0]).dense);
    let xw = xw.with_shape(&[lead, &[n]].concat());
    near(&x.view.linear(&w.view, None).unwrap(), &xw, |_, _| 0.0);
    let want = pairwise::<f64>(&xw, &b.dense, |xw, b| xw + b);
    near(&x.view.linear(&w.view, Some(&b.view)).unwrap(), &want, |_, _| 0.0);
}

fn bits<T: Float>(x: &Tensor<T>) -> Vec<u64> {
    x.to_vec().into_iter().map(|x| x.to_f64().to_bits()).collect()
}

/// Everything that rounds.
fn inexact<T: Float>(x: &Tensor<T>) -> Vec<Vec<u64>> {
    let mut all = vec![x.exp(), x.log(), x.tanh(), x.sigmoid(), x.sum(), x.mean()];
    for d in 0..x.rank() {
        all.push(x.sum_dim(&[d as isize], false).unwrap());
        all.extend([softmax(x, d), log_softmax(x, d).0]);
    }
    let m = x.reshape([x.numel()]).unwrap().narrow(0, 0, 40_000).unwrap();
    let m = m.reshape([160, 250]).unwrap();
    all.extend([m.matmul(&m.transpose(0, 1).unwrap()).unwrap(), m.linear(&m, None).unwrap()]);
    all.iter().map(bits).collect()
}

fn shape() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1 => Just(0_usize), 3 => Just(1), 8 => 2..6_usize], 0..=5)
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn chains_of_views_match_naive(shape in shape(), steps in vec(any::<u64>(), 0..10)) {
        let mut twins = vec![Twin::<f64>::new(&shape, 0, REALS)];
        for step in steps {
            twins.push(twins[twins.len() - 1].step(step));
        }
        for twin in &twins {
            twin.check();
            let only = (twin.dense.data.len() == 1).then(|| twin.dense.data[0]);
            prop_assert_eq!(twin.view.item().ok(), only);
        }
        // A writer never shows through another view, whichever it is.
        for k in 0..twins.len() {
            for (i, x) in twins[k].view.make_mut().iter_mut().enumerate() {
                *x = i as f64;
            }
            (0..twins[k].dense.data.len()).for_each(|i| twins[k].dense.data[i] = i as f64);
            twins.iter().for_each(Twin::check);
        }
    }

    #[test]
    fn element_wise_operations_match_naive(shape in shape(), seed: u64, other: u64) {
        fn check<T: Float>(shape: &[usize], seed: u64, other: u64) -> Twin<T> {
            let twin = |s| Twin::<T>::strided(&Choices(s).reduced(shape), s, INTEGERS);
            let (a, b) = (twin(seed), twin(other));
            check_binary(&a, &b);
            check_binary(&Twin::strided(shape, seed, REALS), &b);
            check_unary(&Twin::<T>::strided(shape, seed, WIDE));
            // Operands that are views without another owner, and overlapping windows of one.
            let want = pairwise::<T>(&a.dense, &b.dense, |x, y| x - y);
            same(&(twin(seed).view - twin(other).view), &want);
            let [low, high] = {
                let base = Twin::<T>::new(&[9], seed, REALS);
                [0, 1].map(|start| base.narrow(0, start, 8))
            };
            let want = pairwise::<T>(&low.dense, &high.dense, |x, y| x - y);
            same(&(low.view - &high.view), &want);
            high.check();
            a
        }
        let (a, b) = (check::<f32>(&shape, seed, other), check::<f64>(&shape, seed, other));
        macro_rules! check_scalar_left {
            ($($op:tt)+) => {$(
                let want = a.dense.map(|x| 3.0 $op x);
                same(&(3.0 $op &a.view), &want);
                same(&(3.0 $op fresh(&a)), &want);
                same(&(3.0 $op &b.view), &want);
                same(&(3.0 $op fresh(&b)), &want);
            )+};
        }
        check_scalar_left!(+ - * /);
        a.check();
    }

    #[test]
    fn functions_of_any_number_are_as_accurate_as_stated(
        x in vec(prop_oneof![prop::num::f32::ANY, -110.0_f32..90.0, -1.0_f32..1.0], 1..70),
        y in vec(prop_oneof![prop::num::f64::ANY, -750.0..710.0, -1.0..1.0], 1..70),
    ) {
        let dense = Dense { shape: vec![x.len()], data: x.iter().map(|&x| x.into()).collect() };
        check_unary(&Twin { view: Tensor::from_slice(&x, [x.len()]).unwrap(), dense });
        let dense = Dense { shape: vec![y.len()], data: y.clone() };
        check_unary(&Twin { view: Tensor::from_slice(&y, [y.len()]).unwrap(), dense });
    }

    #[test]
    fn reductions_and_rows_match_naive(shape in shape(), seed: u64) {
        fn check<T: Float>(shape: &[usize], seed: u64) {
            check_sums(&Twin::<T>::strided(shape, seed, INTEGERS), 0.0, seed);
            check_sums(&Twin::<T>::strided(shape, seed, REALS), SUM_ROUNDINGS, seed);
            check_argmax(&Twin::<T>::strided(shape, seed, INTEGERS));
            check_argmax(&Twin::<T>::strided(shape, seed, WITH_NAN));
            check_rows(&Twin::<T>::strided(shape, seed, REALS));
            check_rows(&Twin::<T>::strided(shape, seed, WIDE));
        }
        check::<f32>(&shape, seed);
        check::<f64>(&shape, seed);
    }

    #[test]
    fn products_match_naive(
        lead in vec(0..4_usize, 0..4), sizes in prop::array::uniform3(0..20_usize), seed: u64,
    ) {
        check_products::<f32>(&lead, sizes, seed);
        check_products::<f64>(&lead, sizes, seed);
    }

    #[test]
    fn index_select_matches_naive(shape in shape(), seed: u64, picks in vec(any::<u64>(), 0..6)) {
        let x = Twin::<f64>::strided(&shape, seed, INTEGERS);
        for (d, &size) in shape.iter().enumerate() {
            let picks = if size == 0 { &[] } else { &picks[..] };
            let index: Vec<i64> = picks.iter().map(|&p| (p % size as u64) as i64).collect();
            // The index is a column of a matrix whose other column is out of range.
            let pairs: Vec<i64> = index.iter().flat_map(|&i| [i, -1]).collect();
            let pairs = Tensor::from_vec(pairs, [index.len(), 2]).unwrap();
            let column = |c| pairs.narrow(1, c, 1).unwrap().squeeze(1).unwrap();
            let got = x.view.index_select(d as isize, &column(0));
            let mut shape = shape.clone();
            shape[d] = index.len();
            x.mirror(got, &shape, |i, ours| ours[d] = index[i[d]] as usize).check();
            prop_assert_eq!(x.view.index_select(d as isize, &column(1)).is_ok(), index.is_empty());
        }
    }
}

proptest! {
    #![proptest_config(cases(6))]

    #[test]
    fn large_tensors_match_naive_on_any_number_of_threads(
        shape in prop::sample::select(&LARGE[..]), seed: u64, other: u64,
        steps in vec(any::<u64>(), 0..4),
    ) {
        fn check<T: Float>(shape: &[usize], seed: u64, other: u64) {
            let part = Twin::<T>::strided(&Choices(seed).reduced(shape), seed, INTEGERS);
            let exact = Twin::strided(shape, other, INTEGERS);
            let x = Twin::strided(shape, seed, REALS);
            POOLS[seed as usize % 3].install(|| {
                check_binary(&exact, &part);
                check_binary(&part, &exact);
                check_unary(&x);
                check_sums(&exact, 0.0, seed);
                check_sums(&x, SUM_ROUNDINGS, seed);
                check_rows(&x);
            });
            let [one, two, three] = POOLS.each_ref().map(|p| p.install(|| inexact::<T>(&x.view)));
            assert!(one == two && two == three);
        }
        check::<f32>(shape, seed, other);
        check::<f64>(shape, other, seed);
        POOLS[seed as usize % 3].install(|| {
            let mut twin = Twin::<f32>::strided(shape, seed, REALS);
            for step in steps {
                twin = twin.step(step);
                twin.check();
            }
            twin.view.make_mut();
            twin.check();
        });
    }
}

#[test]
fn kernels_of_every_length_match_naive() {
    fn check<T: Float>(n: usize) {
        // Strides 1, 3 and 0, as a vector and as rows.
        let seed = n as u64;
        for (fill, roundings) in [(INTEGERS, 0.0), (REALS, SUM_ROUNDINGS)] {
            let (rows, one) = (Twin::<T>::new(&[n, 3], seed, fill), Twin::new(&[1], seed, fill));
            let apart = rows.narrow(1, 1, 1);
            let apart = apart.with_shape(apart.view.squeeze(1), &[n]);
            let vectors = [Twin::new(&[n], seed, fill), apart, one.expand(&[n])];
            for x in &vectors {
                check_unary(x);
                check_sums(x, roundings, seed);
                check_argmax(x);
                check_rows(x);
                vectors.iter().for_each(|y| check_binary(x, y));
            }
            for x in [&rows, &rows.permute(&[1, 0])] {
                check_sums(x, roundings, seed);
                check_rows(x);
            }
        }
    }
    for n in SIZES {
        check::<f32>(n);
        check::<f64>(n);
        check_products::<f32>(&[], [n, 5, n.min(65)], n as u64);
        check_products::<f64>(&[], [3, n, n.min(65)], n as u64);
    }
}

#[track_caller]
fn rejects<R>(op: &str, result: Result<R>) {
    let text = result.err().unwrap_or_else(|| panic!("{op}: not rejected")).to_string();
    assert!(text.starts_with(&format!("{op}: ")), "{op} says {text}");
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn rejects_bad_dims(shape in shape(), far in 7..isize::MAX) {
        let rank = shape.len() as isize;
        let x = Tensor::<f64>::zeros(&shape[..]).unwrap();
        let index = Tensor::from_vec(vec![0_i64], [1]).unwrap();
        for (sign, d) in [(0, rank), (-1, -rank - 1), (0, far), (-1, -far), (-1, isize::MIN)] {
            rejects("transpose", x.transpose(d, sign));
            rejects("transpose", x.transpose(sign, d));
            rejects("narrow", x.narrow(d, 0, 0));
            rejects("squeeze", x.squeeze(d));
            rejects("unsqueeze", x.unsqueeze(d.saturating_add(1 + 2 * sign)));
            rejects("argmax", x.argmax_dim(d, false));
            rejects("index_select", x.index_select(d, &index));
            rejects("here", x.resolve_dim("here", d));
            rejects("permute", x.permute(&(1..rank).chain([d]).collect::<Vec<_>>()));
            rejects("sum", x.sum_dim(&(0..rank).chain([d]).collect::<Vec<_>>(), true));
            rejects("mean", x.mean_dim(&[d], false));
        }
        for (d, &size) in shape.iter().enumerate() {
            let d = d as isize;
            rejects("sum", x.sum_dim(&[d, d - rank], true));
            rejects("mean", x.mean_dim(&[d, d], true));
            rejects("permute", x.permute(&vec![d; shape.len() + 1]));
            rejects("permute", x.permute(&(1..rank).collect::<Vec<_>>()));
            rejects("narrow", x.narrow(d, 0, size + 1));
            rejects("narrow", x.narrow(d, size + 1, 0));
            rejects("narrow", x.narrow(d, 1, usize::MAX));
        }
    }

    #[test]
    fn rejects_bad_shapes(shape in vec(2..5_usize, 1..4), more in 1..4_usize) {
        let ones = |shape: &[usize]| Tensor::<f32>::ones(shape).unwrap();
        let (lead, last) = shape.split_at(shape.len() - 1);
        let wrong = [lead, &[last[0] + more]].concat();
        let (x, y) = (ones(&shape), ones(&wrong));
        for (a, b) in [(&x, &y), (&y, &x)] {
            rejects("add", a.checked_add(b));
            rejects("sub", a.checked_sub(b));
            rejects("mul", a.checked_mul(b));
            rejects("div", a.checked_div(b));
            rejects("threshold_backward", a.threshold_backward(b));
            rejects("tanh_backward", a.tanh_backward(b));
            rejects("sigmoid_backward", a.sigmoid_backward(b));
            rejects("less", a.zip::<bool, Less>("less", b));
            rejects("matmul", a.matmul(&b.unsqueeze(-1).unwrap()));
            rejects("linear", a.linear(&ones(&[3, b.shape()[lead.len()]]), None));
        }
        rejects("matmul", ones(&[2, 1, 3]).matmul(&ones(&[2 + more, 3, 1])));
        rejects("matmul", ones(&[]).matmul(&x));
        rejects("matmul", x.matmul(&ones(&[])));
        rejects("linear", ones(&[]).linear(&ones(&[3, 1]), None));
        rejects("linear", x.linear(&ones(last), None));
        rejects("linear", x.linear(&ones(&[3, last[0]]), Some(&ones(&[3 + more]))));
        rejects("expand", x.expand(&wrong[..]));
        rejects("expand", x.expand([]));
        rejects("reshape", x.reshape([x.numel() + more]));
        rejects("reshape", x.reshape([0, usize::MAX, 2]));
        rejects("sum_to", x.sum_to(&wrong));
        rejects("sum_to", x.sum_to(&[&[1], &shape[..]].concat()));
        rejects("item", x.item());
        rejects("here", x.dims::<7>("here"));
        rejects("from_vec", Tensor::from_vec(vec![0.0; x.numel() + more], &shape[..]));
        let far = Tensor::from_vec(vec![0, shape[0] as i64], [2]).unwrap();
        rejects("index_select", x.index_select(0, &far));
        rejects("index_select", x.index_select(0, &far.unsqueeze(0).unwrap()));
    }
}

#[test]
fn rejects_sizes_that_memory_cannot_address() {
    let (huge, g) = ([usize::MAX, 2], &mut Generator::new(0));
    rejects("full", Tensor::full(huge, true));
    rejects("full", Tensor::<f32>::zeros([0, usize::MAX, 2]));
    rejects("full", Tensor::<f64>::ones([isize::MAX as usize]));
    rejects("from_vec", Tensor::from_vec(vec![0_i64], huge));
    rejects("uniform", Tensor::<f32>::rand(huge, g));
    rejects("uniform", Tensor::<f32>::uniform([2], 0.0, f64::NAN, g));
    rejects("randn", Tensor::<f32>::randn(huge, g));
    rejects("randint", Tensor::randint(0, 2, huge, g));
    rejects("randint", Tensor::randint(2, 2, [2], g));
    let one = Tensor::scalar(1.0);
    let [a, b] = [[1 << 40, 1, 1], [1, 1, 1 << 40]].map(|s| one.expand(s).unwrap());
    rejects("add", a.checked_add(&b));
    rejects("matmul", a.matmul(&b));
    rejects("linear", a.linear(&b.reshape([1 << 40, 1]).unwrap(), None));
    rejects("expand", one.expand(huge));
}
