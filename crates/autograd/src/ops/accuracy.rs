//! Holds functions of one variable to exact values in both float types, for the tests of the
//! operations.

use tensor::{Float, Tensor};

use crate::tape::Tape;
use crate::var::Var;

/// A function under test.
pub(super) type Function<T> = fn(&Var<T>) -> Var<T>;

/// Arguments of every size from 1e-13 to 1e13 and of both signs, with zeros.
pub(super) fn everywhere() -> Vec<f64> {
    let sizes = (-900..=900).map(|k| (f64::from(k) / 30.0).exp());
    sizes.flat_map(|x| [x, -x]).chain([0.0, -0.0]).collect()
}

/// The arguments of [`everywhere`] with `low ≤ x ≤ high`.
pub(super) fn between(low: f64, high: f64) -> Vec<f64> {
    everywhere().into_iter().filter(|x| (low..=high).contains(x)).collect()
}

/// Value and gradient of `f` at `x`.
pub(super) fn both<T: Float>(f: impl Fn(&Var<T>) -> Var<T>, x: T) -> [f64; 2] {
    let x = Tape::new().var(Tensor::scalar(x));
    let y = f(&x);
    let value = y.item().unwrap();
    [value.to_f64(), y.backward().unwrap().wrt(&x).unwrap().item().unwrap().to_f64()]
}

/// Checks value and gradient of `f` at points that are first rounded to `T`. An error counts in
/// units of the last place of the exact value, or of `floor` where the value is smaller: what
/// vanishes between its two terms has no digits of its own to keep.
pub(super) fn check<T: Float>(
    f: impl Fn(&Var<T>) -> Var<T>,
    exact: [fn(f64) -> f64; 2],
    points: &[f64],
    units: [f64; 2],
    floor: [f64; 2],
) {
    let x: Vec<T> = points.iter().map(|&x| T::from_f64(x)).collect();
    let n = x.len();
    let x = Tape::new().var(Tensor::from_vec(x, [n]).unwrap());
    let y = f(&x);
    let value = y.value().to_vec();
    let slope = y.sum().backward().unwrap().wrt(&x).unwrap().to_vec();
    let smallest = if T::NAME == "f32" { 1.5e-45 } else { 5e-324 };
    for (i, got) in [value, slope].iter().enumerate() {
        for (got, x) in got.iter().zip(x.value().to_vec()) {
            let (got, want) = (got.to_f64(), exact[i](x.to_f64()));
            let rounded = T::from_f64(want).to_f64();
            let unit = T::EPSILON.to_f64() * want.abs().max(floor[i]) + smallest;
            let same = got == rounded || (got.is_nan() && rounded.is_nan());
            let what = ["value", "gradient"][i];
            let (op, x) = (T::NAME, x.to_f64());
            assert!(
                same || (got - want).abs() <= units[i] * unit,
                "{op} {what} at {x:e}: {got:e}, not {want:e}: {} units",
                (got - want).abs() / unit
            );
            let zero = want != 0.0 || got.is_sign_negative() == want.is_sign_negative();
            assert!(i == 1 || zero, "{op} at {x:e}: {got:e}, not {want:e}");
        }
    }
}
