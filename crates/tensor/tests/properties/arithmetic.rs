//! Arithmetic, comparisons, truth values and choices: native formulas of two or three elements.

use tensor::{Number, Operand, Result, Tensor};

use crate::twin::{Dense, Fill, Sample, Twin, divisors, integers, reals, same, special};
use crate::{Case, Oracle, rejects};

/// What Rust itself has for each type; integers wrap.
pub(crate) trait Arithmetic: Sample + Number {
    fn add(self, y: Self) -> Self;
    fn sub(self, y: Self) -> Self;
    fn mul(self, y: Self) -> Self;
    /// Only where `y` is not 0, if there are no fractions.
    fn div(self, y: Self) -> Self;
    fn rem(self, y: Self) -> Self;
    /// Python's `%`.
    fn modulo(self, y: Self) -> Self;
    fn opposite(self) -> Self;
    fn absolute(self) -> Self;
    fn signum(self) -> Self;
    fn squared(self) -> Self {
        Arithmetic::mul(self, self)
    }
}

macro_rules! floats {
    ($($type:ident)+) => {$(impl Arithmetic for $type {
        fn add(self, y: Self) -> Self { self + y }
        fn sub(self, y: Self) -> Self { self - y }
        fn mul(self, y: Self) -> Self { self * y }
        fn div(self, y: Self) -> Self { self / y }
        fn rem(self, y: Self) -> Self { self % y }
        fn modulo(self, y: Self) -> Self {
            // As CPython's float_divmod.
            let r = self % y;
            let differ = (y < 0.0) != (r < 0.0);
            if r == 0.0 { (0.0 as $type).copysign(y) } else if differ { r + y } else { r }
        }
        fn opposite(self) -> Self { -self }
        fn absolute(self) -> Self { self.abs() }
        fn signum(self) -> Self { if self > 0.0 { 1.0 } else if self < 0.0 { -1.0 } else { self } }
    })+};
}
floats! { f32 f64 }

macro_rules! integers {
    ($($type:ident)+) => {$(impl Arithmetic for $type {
        fn add(self, y: Self) -> Self { (self as i128 + y as i128) as $type }
        fn sub(self, y: Self) -> Self { (self as i128 - y as i128) as $type }
        fn mul(self, y: Self) -> Self { (self as i128 * y as i128) as $type }
        fn div(self, y: Self) -> Self { (self as i128 / y as i128) as $type }
        fn rem(self, y: Self) -> Self { (self as i128 % y as i128) as $type }
        fn modulo(self, y: Self) -> Self {
            let (x, y) = (self as i128, y as i128);
            ((x % y + y) % y) as $type
        }
        fn opposite(self) -> Self { (-(self as i128)) as $type }
        fn absolute(self) -> Self { (self as i128).unsigned_abs() as $type }
        fn signum(self) -> Self { (self as i128).signum() as $type }
    })+};
}
integers! { i64 u8 }

/// The larger of two, NaN if either is.
pub(crate) fn larger<T: Sample>(x: T, y: T) -> T {
    if x.number().is_nan() || x > y { x } else { y }
}

/// The smaller of two, NaN if either is.
pub(crate) fn smaller<T: Sample>(x: T, y: T) -> T {
    if x.number().is_nan() || x < y { x } else { y }
}

/// An operation of a tensor and a tensor or number.
pub(crate) type Binary<T, B> = fn(&Tensor<T>, Operand<'_, T>) -> Result<Tensor<B>>;
/// One that may overwrite the tensor.
pub(crate) type IntoBinary<T> = fn(Tensor<T>, Operand<'_, T>) -> Result<Tensor<T>>;

fn fills<T: Sample>() -> [Fill<T>; 4] {
    [integers, reals, special, T::any]
}

/// `op` of tensors that broadcast, of overlapping windows of one tensor, and of numbers.
pub(crate) fn binary<T: Sample, B: Sample>(
    case: &mut Case,
    op: Binary<T, B>,
    formula: fn(T, T) -> B,
) {
    for fill in fills() {
        let (a, b) = (case.part(fill), case.part(fill));
        let [low, high] = {
            let base = Twin::<T>::new(&[9], case.choices.bits(), fill);
            [0, 1].map(|start| base.narrow(0, start, 8))
        };
        for (a, b) in [(&a, &b), (&b, &a), (&a, &a), (&low, &high)] {
            let want = a.dense.zip(&b.dense, formula);
            same(&op(&a.view, (&b.view).into()).unwrap(), &want);
        }
        let y = fill(case.choices.bits());
        same(&op(&a.view, y.into()).unwrap(), &a.dense.map(|x| formula(x, y)));
        a.check();
        b.check();
        high.check();
    }
}

/// `op`, whose integer divisors are not 0, or which is an error.
fn division<T: Arithmetic>(
    case: &mut Case,
    name: &str,
    op: Binary<T, T>,
    into: Option<IntoBinary<T>>,
    formula: fn(T, T) -> T,
) {
    for (fill, below) in
        [(integers as Fill<T>, divisors as Fill<T>), (T::any, T::any), (special, special)]
    {
        let (a, b, y) = (case.part(fill), case.part(below), below(case.choices.bits()));
        let zero = |y: &T| T::INTEGER && *y == T::ZERO;
        let check = |got: Result<Tensor<T>>, bad: bool, want: &dyn Fn() -> Dense<T>| {
            if bad { rejects(name, got) } else { same(&got.unwrap(), &want()) }
        };
        let bad = b.dense.data.iter().any(zero);
        let (both, one) = (|| a.dense.zip(&b.dense, formula), || a.dense.map(|x| formula(x, y)));
        check(op(&a.view, (&b.view).into()), bad, &both);
        check(op(&a.view, y.into()), zero(&y), &one);
        if let Some(into) = into {
            check(into(a.fresh(), (&b.view).into()), bad, &both);
            check(into(a.fresh(), y.into()), zero(&y), &one);
        }
        a.check();
        b.check();
    }
}

/// `into` has the bits of `op`, in the storage of an operand that nobody shares.
pub(crate) fn into_binary<T: Sample>(case: &mut Case, op: Binary<T, T>, into: IntoBinary<T>) {
    for fill in [divisors as Fill<T>, |bits| larger(T::ONE, T::any(bits))] {
        let (whole, part, y) = (case.twin(fill), case.part(fill), fill(case.choices.bits()));
        for (a, b) in
            [(&whole, Operand::from(&part.view)), (&whole, y.into()), (&part, (&whole.view).into())]
        {
            let want = op(&a.view, b).unwrap();
            let want = Dense { shape: want.shape().to_vec(), data: want.to_vec() };
            same(&into(a.view.clone(), b).unwrap(), &want);
            let shared = a.fresh();
            same(&into(shared.clone(), b).unwrap(), &want);
            same(&shared, &a.dense);
            let own = a.fresh();
            let address = own.as_slice().unwrap().as_ptr();
            let got = into(own, b).unwrap();
            same(&got, &want);
            // An operand of the result's shape is overwritten.
            assert!(
                got.shape() != &a.dense.shape[..] || got.as_slice().unwrap().as_ptr() == address
            );
        }
        whole.check();
        part.check();
        let want = op(&whole.view, y.into()).unwrap().to_vec();
        let want = Dense { data: want, ..whole.dense };
        same(&into(whole.view, y.into()).unwrap(), &want);
    }
}

macro_rules! operators {
    ($($name:ident $assigning:ident: $op:tt $assign:tt $formula:ident;)+) => {$(
        fn $assigning<T: Arithmetic>(case: &mut Case) {
            // Divisors are never 0 here.
            for fill in [divisors as Fill<T>, |bits| if T::any(bits) == T::ZERO { T::ONE } else { T::any(bits) }] {
                let (whole, part) = (case.twin::<T>(fill), case.part::<T>(fill));
                for (a, b) in [(&whole, &part), (&part, &whole), (&whole, &whole)] {
                    let want = a.dense.zip(&b.dense, T::$formula);
                    same(&a.view.$name(&b.view).unwrap(), &want);
                    same(&(&a.view $op &b.view), &want);
                    same(&(a.view.clone() $op &b.view), &want);
                    same(&(&a.view $op b.view.clone()), &want);
                    same(&(a.view.clone() $op b.view.clone()), &want);
                    same(&(a.fresh() $op &b.view), &want);
                    same(&(&a.view $op b.fresh()), &want);
                    same(&(a.fresh() $op b.fresh()), &want);
                }
                let y = fill(case.choices.bits());
                let (number, tensor) = (whole.dense.map(|x| x.$formula(y)), whole.dense.zip(&part.dense, T::$formula));
                same(&(&whole.view $op y), &number);
                same(&(whole.view.clone() $op y), &number);
                let shared = whole.view.clone();
                for mut own in [whole.fresh(), shared] {
                    own $assign &part.view;
                    same(&own, &tensor);
                }
                let mut own = whole.fresh();
                let address = own.as_slice().unwrap().as_ptr();
                own $assign y;
                same(&own, &number);
                assert_eq!(own.as_slice().unwrap().as_ptr(), address);
                whole.check();
                part.check();
                // Overlapping windows, one of which is an operand by value.
                let base = Twin::<T>::new(&[9], case.choices.bits(), fill);
                let [low, high] = [0, 1].map(|start| base.narrow(0, start, 8));
                drop(base);
                let want = low.dense.zip(&high.dense, T::$formula);
                same(&(low.view $op &high.view), &want);
                high.check();
                // Views without another owner.
                let want = whole.dense.zip(&part.dense, T::$formula);
                same(&(whole.view $op part.view), &want);
            }
        }
        fn $name(case: &mut Case) {
            $assigning::<f32>(case);
            $assigning::<f64>(case);
            $assigning::<i64>(case);
            $assigning::<u8>(case);
            operators!(@left case $op $formula, f32 f64 i64 u8);
        }
    )+};
    (@left $case:ident $op:tt $formula:ident, $($type:ident)+) => {$({
        let (x, y) = ($case.twin::<$type>(divisors), divisors::<$type>($case.choices.bits()));
        let want = x.dense.map(|x| Arithmetic::$formula(y, x));
        same(&(y $op &x.view), &want);
        same(&(y $op x.fresh()), &want);
        x.check();
        same(&(y $op x.view), &want);
    })+};
}
operators! {
    checked_add adding: + += add;
    checked_sub subtracting: - -= sub;
    checked_mul multiplying: * *= mul;
    checked_div dividing: / /= div;
    checked_rem leaving: % %= rem;
}

fn negation<T: Arithmetic>(case: &mut Case) {
    for fill in fills::<T>() {
        let x = case.twin::<T>(fill);
        let want = x.dense.map(Arithmetic::opposite);
        same(&-&x.view, &want);
        same(&-x.fresh(), &want);
        same(&-x.view.clone(), &want);
        x.check();
        same(&-x.view, &want);
    }
}

macro_rules! for_each {
    ($case:ident: $($type:ident)+, |$t:ident| $check:expr) => {{
        $({
            type $t = $type;
            $check;
        })+
    }};
}

macro_rules! comparisons {
    ($case:ident $name:ident $op:tt) => {
        for_each!($case: f32 f64 i64 u8 bool, |T| {
            binary::<T, bool>($case, |x, y| x.$name(y), |x, y| x $op y)
        })
    };
}

pub(crate) const TABLE: &[Oracle] = &[
    ("checked_add", checked_add),
    ("checked_sub", |case| {
        checked_sub(case);
        for_each!(case: f32 f64 i64 u8, |T| negation::<T>(case));
    }),
    ("checked_mul", checked_mul),
    ("checked_div", |case| {
        checked_div(case);
        for_each!(case: f32 f64 i64 u8, |T| division::<T>(case, "div", div_operand, None, T::div));
    }),
    ("checked_rem", |case| {
        checked_rem(case);
        for_each!(case: f32 f64 i64 u8, |T| division::<T>(case, "rem", rem_operand, None, T::rem));
    }),
    ("remainder", |case| {
        for_each!(case: f32 f64 i64 u8, |T| {
            division::<T>(case, "remainder", |x, y| x.remainder(y), None, Arithmetic::modulo)
        });
    }),
    ("into_remainder", |case| {
        for_each!(case: f32 f64 i64 u8, |T| {
            let into: IntoBinary<T> = |x, y| x.into_remainder(y);
            into_binary::<T>(case, |x, y| x.remainder(y), into);
            division::<T>(case, "remainder", |x, y| x.remainder(y), Some(into), Arithmetic::modulo)
        });
    }),
    ("maximum", |case| {
        for_each!(case: f32 f64 i64 u8, |T| binary::<T, T>(case, |x, y| x.maximum(y), larger));
    }),
    ("into_maximum", |case| {
        for_each!(case: f32 f64 i64 u8, |T| {
            into_binary::<T>(case, |x, y| x.maximum(y), |x, y| x.into_maximum(y))
        });
    }),
    ("minimum", |case| {
        for_each!(case: f32 f64 i64 u8, |T| binary::<T, T>(case, |x, y| x.minimum(y), smaller));
    }),
    ("into_minimum", |case| {
        for_each!(case: f32 f64 i64 u8, |T| {
            into_binary::<T>(case, |x, y| x.minimum(y), |x, y| x.into_minimum(y))
        });
    }),
    ("eq", |case| comparisons!(case eq ==)),
    ("ne", |case| comparisons!(case ne !=)),
    ("lt", |case| comparisons!(case lt <)),
    ("le", |case| comparisons!(case le <=)),
    ("gt", |case| comparisons!(case gt >)),
    ("ge", |case| comparisons!(case ge >=)),
    ("logical_and", |case| logical(case, Tensor::logical_and, |x, y| x & y, |x, y| x & y)),
    ("logical_or", |case| logical(case, Tensor::logical_or, |x, y| x | y, |x, y| x | y)),
    ("logical_xor", |case| logical(case, Tensor::logical_xor, |x, y| x ^ y, |x, y| x ^ y)),
    ("logical_not", |case| {
        let x = case.twin::<bool>(integers);
        let want = x.dense.map(|x| !x);
        same(&x.view.logical_not(), &want);
        same(&!&x.view, &want);
        same(&!x.fresh(), &want);
        x.check();
        same(&!x.view, &want);
    }),
    ("where_cond", |case| for_each!(case: f32 f64 i64 u8 bool, |T| where_cond::<T>(case))),
    ("clamp", |case| for_each!(case: f32 f64 i64 u8, |T| clamp::<T>(case))),
];

fn div_operand<T: Number>(x: &Tensor<T>, y: Operand<'_, T>) -> Result<Tensor<T>> {
    match y {
        Operand::Tensor(y) => x.checked_div(y),
        Operand::Scalar(y) => x.checked_div(&Tensor::scalar(y)),
    }
}

fn rem_operand<T: Number>(x: &Tensor<T>, y: Operand<'_, T>) -> Result<Tensor<T>> {
    match y {
        Operand::Tensor(y) => x.checked_rem(y),
        Operand::Scalar(y) => x.checked_rem(&Tensor::scalar(y)),
    }
}

type Truth = Tensor<bool>;

fn logical(
    case: &mut Case,
    op: fn(&Truth, &Truth) -> Result<Truth>,
    operator: fn(Truth, Truth) -> Truth,
    formula: fn(bool, bool) -> bool,
) {
    let (a, b) = (case.part::<bool>(integers), case.part::<bool>(|bits| bits % 2 == 0));
    let want = a.dense.zip(&b.dense, formula);
    same(&op(&a.view, &b.view).unwrap(), &want);
    same(&operator(a.view.clone(), b.view.clone()), &want);
    same(&operator(a.fresh(), b.fresh()), &want);
    same(&op(&a.view, &a.view).unwrap(), &a.dense.map(|x| formula(x, x)));
    a.check();
    b.check();
    same(&operator(a.view, b.view), &want);
}

fn where_cond<T: Sample>(case: &mut Case) {
    let mask = case.part::<bool>(|bits| bits % 2 == 0);
    let (x, y) = (case.part::<T>(special), case.part::<T>(T::any));
    let (a, b) = (special::<T>(case.choices.bits()), T::any(case.choices.bits()));
    let (da, db) = (Dense::scalar(a), Dense::scalar(b));
    let choose = |x: &Dense<T>, y: &Dense<T>| {
        mask.dense.zip(&x.zip(y, |x, y| (x, y)), |kept, (x, y)| if kept { x } else { y })
    };
    same(&mask.view.where_cond(&x.view, &y.view).unwrap(), &choose(&x.dense, &y.dense));
    same(&mask.view.where_cond(&x.view, b).unwrap(), &choose(&x.dense, &db));
    same(&mask.view.where_cond(a, &y.view).unwrap(), &choose(&da, &y.dense));
    same(&mask.view.where_cond(a, b).unwrap(), &choose(&da, &db));
    mask.check();
    x.check();
    y.check();
}

fn clamp<T: Arithmetic>(case: &mut Case) {
    for fill in fills::<T>() {
        let (x, low, high) = (case.part::<T>(fill), case.part::<T>(fill), case.part::<T>(fill));
        let (a, b) = (fill(case.choices.bits()), fill(case.choices.bits()));
        let (da, db) = (Dense::scalar(a), Dense::scalar(b));
        let clamped = |low: &Dense<T>, high: &Dense<T>| x.dense.zip(low, larger).zip(high, smaller);
        same(&x.view.clamp(&low.view, &high.view).unwrap(), &clamped(&low.dense, &high.dense));
        same(&x.view.clamp(&low.view, b).unwrap(), &clamped(&low.dense, &db));
        same(&x.view.clamp(a, &high.view).unwrap(), &clamped(&da, &high.dense));
        same(&x.view.clamp(a, b).unwrap(), &clamped(&da, &db));
        x.check();
    }
}
