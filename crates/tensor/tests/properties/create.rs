//! Construction from sizes, numbers and seeds, and conversion between types.

use tensor::{Float, Generator, GeneratorState, Result, Tensor};

use crate::arithmetic::Arithmetic;
use crate::reduce::whole;
use crate::twin::{Dense, Sample, integers, near, same, special, unit_roundoff};
use crate::{Case, Oracle, rejects};

macro_rules! table {
    ({$($name:ident: $($type:ident)+;)+} others: $($other:ident)+) => {
        pub(crate) const TABLE: &[Oracle] = &[
            $((stringify!($name), |case| { $($name::<$type>(case);)+ }),)+
            $((stringify!($other), $other),)+
        ];
    };
}
table! {
    {
    full: f32 f64 i64 u8 bool;
    zeros: f32 f64 i64 u8 bool;
    ones: f32 f64 i64 u8 bool;
    full_like: f32 f64 i64 u8 bool;
    zeros_like: f32 f64 i64 u8 bool;
    ones_like: f32 f64 i64 u8 bool;
    eye: f32 f64 i64 u8 bool;
    from_nested: f32 f64 i64 u8 bool;
    bernoulli: f32 f64 i64 u8 bool;
    linspace: f32 f64;
    uniform: f32 f64;
    rand: f32 f64;
    randn: f32 f64;
    rand_like: f32 f64;
    randn_like: f32 f64;
    }
    others: arange randint randperm cast
}

fn constant<T: Sample>(shape: &[usize], x: T) -> Dense<T> {
    Dense::build(shape, |_| x)
}

fn full<T: Sample>(case: &mut Case) {
    let x = special::<T>(case.choices.bits());
    same(&Tensor::full(&case.shape[..], x).unwrap(), &constant(&case.shape, x));
}

fn zeros<T: Sample>(case: &mut Case) {
    same(&Tensor::zeros(&case.shape[..]).unwrap(), &constant(&case.shape, T::sample(0.0)));
}

fn ones<T: Sample>(case: &mut Case) {
    same(&Tensor::ones(&case.shape[..]).unwrap(), &constant(&case.shape, T::sample(1.0)));
}

fn full_like<T: Sample>(case: &mut Case) {
    let (x, value) = (case.twin::<T>(special), special::<T>(case.choices.bits()));
    same(&x.view.full_like(value), &constant(&case.shape, value));
    x.check();
}

fn zeros_like<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    same(&x.view.zeros_like(), &constant(&case.shape, T::sample(0.0)));
    x.check();
}

fn ones_like<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    same(&x.view.ones_like(), &constant(&case.shape, T::sample(1.0)));
    x.check();
}

fn eye<T: Sample>(case: &mut Case) {
    let (rows, columns) = (case.choices.below(7), case.choices.below(7));
    let want = Dense::build(&[rows, columns], |at| T::sample(f64::from(u8::from(at[0] == at[1]))));
    same(&Tensor::eye(rows, columns).unwrap(), &want);
}

fn from_nested<T>(case: &mut Case)
where
    T: Sample + tensor::Nested<Elem = T>,
{
    let [a, b, c] = [3, 3, 4].map(|n| case.choices.below(n));
    let mut nested: Vec<Vec<Vec<T>>> = Vec::new();
    for _ in 0..a {
        let row = |case: &mut Case| (0..c).map(|_| special(case.choices.bits())).collect();
        nested.push((0..b).map(|_| row(case)).collect());
    }
    // Below an empty level nothing says what the sizes are.
    let (below, last) = (if a > 0 { b } else { 0 }, if a * b > 0 { c } else { 0 });
    let data: Vec<T> = nested.iter().flatten().flatten().copied().collect();
    let want = Dense { shape: vec![a, below, last], data };
    same(&Tensor::from_nested(&nested).unwrap(), &want);
    same(&Tensor::from_nested(&nested[..]).unwrap(), &want);
    if a * b > 0 {
        nested[a - 1][b - 1].push(T::ONE);
        if a * b > 1 {
            rejects("from_nested", Tensor::from_nested(&nested));
        }
        same(
            &Tensor::from_nested(&nested[a - 1][b - 1]).unwrap(),
            &Dense { shape: vec![c + 1], data: nested[a - 1][b - 1].clone() },
        );
    }
    let [x, y] = [0, 1].map(|_| special::<T>(case.choices.bits()));
    same(&Tensor::from_nested(&x).unwrap(), &Dense::scalar(x));
    let want = Dense { shape: vec![2, 1, 2], data: vec![x, y, y, x] };
    same(&Tensor::from([[[x, y]], [[y, x]]]), &want);
    same(&Tensor::from_nested(&[[[x, y]], [[y, x]]]).unwrap(), &want);
    same(&Tensor::from([[[[x], [y]]]]), &Dense { shape: vec![1, 1, 2, 1], data: vec![x, y] });
}

/// Steps from `start`, one after the other, until `stop` is reached or passed.
fn walked(start: i128, stop: i128, step: i128) -> Vec<i128> {
    let mut all = vec![];
    let mut at = start;
    while if step > 0 { at < stop } else { at > stop } {
        all.push(at);
        at += step;
    }
    all
}

fn arange(case: &mut Case) {
    fn integers<T: Arithmetic>(case: &mut Case, low: isize, edges: &[(T, T, T)]) {
        let [start, stop] = [0, 1].map(|_| case.choices.between(low, 20));
        let step = case.choices.between(low.max(-5), 5);
        let near = [start, stop, step].map(|x| T::sample(x as f64));
        for (start, stop, step) in [(near[0], near[1], near[2])].iter().chain(edges).copied() {
            let got = Tensor::arange(start, stop, step);
            let [a, b, s] = [start, stop, step].map(|x| i128::from(whole(x)));
            if s == 0 || (s > 0 && a > b) || (s < 0 && a < b) {
                rejects("arange", got);
                continue;
            }
            let got: Vec<i128> =
                got.unwrap().to_vec().into_iter().map(|x| whole(x).into()).collect();
            assert_eq!(got, walked(a, b, s));
        }
    }
    fn floats<T: Float + Sample>(case: &mut Case) {
        // Multiples of 2⁻⁴, so that the ends are exact.
        let [start, stop, step] = [0, 1, 2].map(|_| case.choices.between(-60, 60));
        let real = |x: isize| T::sample(x as f64 / 16.0);
        let got = Tensor::arange(real(start), real(stop), real(step));
        if step == 0 || (step > 0 && start > stop) || (step < 0 && start < stop) {
            return rejects("arange", got);
        }
        let all = walked(start as i128, stop as i128, step as i128);
        let data: Vec<T> = all.iter().map(|&x| real(x as isize)).collect();
        same(&got.unwrap(), &Dense { shape: vec![data.len()], data });
        // Steps that are not exact: each element is rounded once.
        let third = T::sample(1.0 / 3.0);
        let data: Vec<T> = (0..30).map(|i| T::sample(f64::from(i) * third.number())).collect();
        same(
            &Tensor::arange(T::ZERO, T::sample(9.9), third).unwrap(),
            &Dense { shape: vec![30], data },
        );
        for bad in [T::NAN, T::INFINITY] {
            rejects("arange", Tensor::arange(bad, T::ONE, T::ONE));
            rejects("arange", Tensor::arange(T::ZERO, bad, T::ONE));
            rejects("arange", Tensor::arange(T::ZERO, T::ONE, bad));
        }
        rejects("arange", Tensor::arange(T::ZERO, T::sample(1e30), T::sample(1e-6)));
    }
    let (low, high) = (i64::MIN, i64::MAX);
    integers::<i64>(
        case,
        -20,
        &[
            (low, high, high),
            (high, low, low),
            (high - 2, high, 1),
            (low + 2, low, -1),
            (3, 3, 1),
            (low, low + 5, 2),
            (high, high - 5, low),
        ],
    );
    rejects("arange", Tensor::arange(low, high, 1_i64));
    integers::<u8>(case, 0, &[(250, 255, 1), (0, 255, 255), (250, 255, 200), (0, 255, 1)]);
    floats::<f32>(case);
    floats::<f64>(case);
}

fn linspace<T: Float + Sample>(case: &mut Case) {
    let [start, stop] = [0, 1].map(|_| T::sample(case.choices.between(-99, 99) as f64 / 7.0));
    for count in [0, 1, 2, case.choices.below(40)] {
        let got = Tensor::linspace(start, stop, count).unwrap();
        let (a, b) = (start.number(), stop.number());
        let n = (count.max(2) - 1) as f64;
        let want = Dense::build(&[count], |i| (a * (n - i[0] as f64) + b * i[0] as f64) / n);
        // Two weights and two products round here, and the oracle does as often, relative to the
        // larger end; the result rounds to its type.
        let bound = (4.0 * f64::EPSILON + unit_roundoff::<T>()) * a.abs().max(b.abs());
        near(&got, &want, |_, _| bound);
        let got = got.to_vec();
        assert!(count < 1 || got[0].is(start));
        assert!(count < 2 || got[count - 1].is(stop));
    }
    let huge = T::sample(if T::NAME == "f32" { f32::MAX.into() } else { f64::MAX });
    let ends = Tensor::linspace(-huge, huge, 3).unwrap();
    same(&ends, &Dense { shape: vec![3], data: vec![-huge, T::ZERO, huge] });
}

/// Draws are decided by the seed, come in row-major order, and go on where they ended.
fn drawn<T: Sample>(
    case: &mut Case,
    draw: impl Fn(&[usize], &mut Generator) -> Result<Tensor<T>>,
    fits: impl Fn(T) -> bool,
) {
    let seed = case.choices.bits();
    let g = &mut Generator::new(seed);
    let (first, second) = (draw(&case.shape, g).unwrap(), draw(&case.shape, g).unwrap());
    let all = draw(&[2 * first.numel()], &mut Generator::new(seed)).unwrap();
    assert_eq!((first.shape(), second.shape()), (&case.shape[..], &case.shape[..]));
    let both = [first.to_vec(), second.to_vec()].concat();
    assert!(both.iter().zip(all.to_vec()).all(|(a, b)| a.is(b)));
    assert!(both.into_iter().all(fits));
    rejects_huge(&draw);
}

fn rejects_huge<T: Sample>(draw: impl Fn(&[usize], &mut Generator) -> Result<Tensor<T>>) {
    let text = draw(&[usize::MAX, 2], &mut Generator::new(0)).err().unwrap().to_string();
    assert!(text.contains("more elements than memory can hold"), "{text}");
}

fn bernoulli<T: Sample>(case: &mut Case) {
    for p in [0.0, 0.3, 1.0] {
        let sure = |x: T| (p > 0.0 || x == T::ZERO) && (p < 1.0 || x == T::ONE);
        drawn::<T>(
            case,
            |s, g| Tensor::bernoulli(s, p, g),
            |x| sure(x) && (x == T::ZERO || x == T::ONE),
        );
    }
    let g = &mut Generator::new(0);
    for bad in [-0.1, 1.1, f64::NAN] {
        rejects("bernoulli", Tensor::<T>::bernoulli(&case.shape[..], bad, g));
    }
    // Five standard errors of 2000 draws: 5·√(0.3·0.7/2000) = 0.051.
    let ones = Tensor::<T>::bernoulli([2000], 0.3, g).unwrap().to_vec();
    let share = ones.iter().filter(|&&x| x == T::ONE).count() as f64 / 2000.0;
    assert!((share - 0.3).abs() < 0.052, "{share}");
}

fn uniform<T: Float + Sample>(case: &mut Case) {
    let (low, width) =
        (case.choices.between(-9, 9) as f64, case.choices.of(&[0.0, 1e-6, 1.0, 7.0]));
    let high = low + width;
    drawn::<T>(
        case,
        |s, g| Tensor::uniform(s, low, high, g),
        |x| x.number() >= low && (x.number() < high || width == 0.0),
    );
    let g = &mut Generator::new(0);
    // No number of the type lies between these.
    let (low, high) = if T::NAME == "f32" { (0.1, 0.1 + 1e-12) } else { (0.1, 0.1 + 1e-17) };
    let only = Tensor::<T>::uniform([2], low, high, g).unwrap();
    same(&only, &constant(&[2], T::sample(0.1)));
    for (low, high) in [(1.0, 0.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (-f64::MAX, f64::MAX)] {
        rejects("uniform", Tensor::<T>::uniform([2], low, high, g));
    }
}

/// The numbers of the generator itself, rounded; those that round to 1 are drawn again.
fn rand<T: Float + Sample>(case: &mut Case) {
    drawn::<T>(case, |s, g| Tensor::rand(s, g), |x| (0.0..1.0).contains(&x.number()));
    let seed = case.choices.bits();
    let g = &mut Generator::new(seed);
    let want = Dense::build(&case.shape, |_| {
        std::iter::repeat_with(|| T::sample(g.uniform())).find(|&x| x < T::ONE).unwrap()
    });
    same(&Tensor::rand(&case.shape[..], &mut Generator::new(seed)).unwrap(), &want);
}

/// Where the stream of seed 0 has a number that rounds to 1 in `f32`, in words of 32 bits.
const NEARLY_ONE: u128 = 2 * 55_633_664;

/// The stream of seed 0 from there on.
fn nearly_one() -> Generator {
    let mut bytes = Generator::new(0).state().to_bytes();
    bytes[40..].copy_from_slice(&NEARLY_ONE.to_le_bytes());
    Generator::from_state(&GeneratorState::from_bytes(&bytes).unwrap())
}

fn rand_like<T: Float + Sample>(case: &mut Case) {
    let (x, seed) = (case.twin::<T>(special), case.choices.bits());
    assert!(nearly_one().uniform() as f32 == 1.0);
    let drawn = [
        Tensor::<T>::rand([2], &mut nearly_one()).unwrap(),
        Tensor::from([T::ONE, T::ONE]).rand_like(&mut nearly_one()),
    ];
    assert_eq!(drawn[0].to_vec(), drawn[1].to_vec());
    assert!(drawn[1].to_vec().iter().all(|&x| x < T::ONE));
    let want = Tensor::<T>::rand(&case.shape[..], &mut Generator::new(seed)).unwrap();
    let want = Dense { shape: case.shape.clone(), data: want.to_vec() };
    same(&x.view.rand_like(&mut Generator::new(seed)), &want);
    x.check();
}

fn randn<T: Float + Sample>(case: &mut Case) {
    drawn::<T>(case, |s, g| Tensor::randn(s, g), |x| x.number().abs() < 12.0);
    // One stream for both types.
    let seed = case.choices.bits();
    let want = Tensor::<f64>::randn(&case.shape[..], &mut Generator::new(seed)).unwrap();
    let data = want.to_vec().into_iter().map(T::sample).collect();
    let got = Tensor::<T>::randn(&case.shape[..], &mut Generator::new(seed)).unwrap();
    same(&got, &Dense { shape: case.shape.clone(), data });
}

fn randn_like<T: Float + Sample>(case: &mut Case) {
    let (x, seed) = (case.twin::<T>(special), case.choices.bits());
    let want = Tensor::<T>::randn(&case.shape[..], &mut Generator::new(seed)).unwrap();
    let want = Dense { shape: case.shape.clone(), data: want.to_vec() };
    same(&x.view.randn_like(&mut Generator::new(seed)), &want);
    x.check();
}

fn randint(case: &mut Case) {
    let low = case.choices.between(-9, 9) as i64;
    for (low, high) in
        [(low, low + 1), (low, low + 4), (i64::MIN, i64::MAX), (i64::MAX - 1, i64::MAX)]
    {
        drawn::<i64>(case, |s, g| Tensor::randint(low, high, s, g), |x| (low..high).contains(&x));
    }
    rejects("randint", Tensor::randint(low, low, &case.shape[..], &mut Generator::new(0)));
    rejects("randint", Tensor::randint(low, i64::MIN, &case.shape[..], &mut Generator::new(0)));
}

fn randperm(case: &mut Case) {
    let (n, seed) = (case.choices.below(40), case.choices.bits());
    let draw = || Tensor::randperm(n, &mut Generator::new(seed)).unwrap().to_vec();
    let mut all = draw();
    assert_eq!(all, draw());
    all.sort_unstable();
    assert!(all.into_iter().eq(0..n as i64));
}

/// As `as` has it, and zero or not for truth values.
fn cast(case: &mut Case) {
    macro_rules! casts {
        ($($from:ident)+) => {$(
            for fill in [integers as fn(u64) -> $from, special, Sample::any] {
                let x = case.twin::<$from>(fill);
                casts!(@to x $from: f32 f64 i64 u8);
                same(&x.view.cast::<bool>(), &x.dense.map(|x| x != 0 as $from));
                x.check();
            }
        )+};
        (@to $x:ident $from:ident: $($to:ident)+) => {$(
            same(&$x.view.cast::<$to>(), &$x.dense.map(|x| x as $to));
        )+};
    }
    casts!(f32 f64 i64 u8);
    let x = case.twin::<bool>(integers);
    let bits = x.dense.map(u8::from);
    same(&x.view.cast::<f32>(), &bits.map(f32::from));
    same(&x.view.cast::<f64>(), &bits.map(f64::from));
    same(&x.view.cast::<i64>(), &bits.map(i64::from));
    same(&x.view.cast::<u8>(), &bits);
    same(&x.view.cast::<bool>(), &x.dense);
    x.check();
}
