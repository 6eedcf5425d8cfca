//! Double precision: vectorisable `exp`, `log` and `sigmoid`. The others are not: they are those of
//! the standard library (`erf` and the normal distribution: of `libm`), called once an element.
//!
//! `exp` is the Taylor polynomial of degree 13, whose remainder on |r| ≤ ln 2 / 2 is 4e-18. The one
//! of `log` is fitted by crates/tensor/tests/data/make_math.py.

/// 1.5·2⁵².
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, the first with 21 trailing zero bits (fdlibm).
const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
/// 1/13!, 1/12!, …, 1/2!.
const EXP: [f64; 12] = {
    let mut c = [0.0; 12];
    let (mut i, mut factorial, mut n) = (12, 1.0, 1.0);
    while i > 0 {
        i -= 1;
        n += 1.0;
        factorial *= n;
        c[i] = 1.0 / factorial;
    }
    c
};

#[inline(always)]
fn fma<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with these coefficients, highest first.
#[inline(always)]
fn horner<const FMA: bool, const N: usize>(x: f64, coefficients: [f64; N]) -> f64 {
    let mut p = coefficients[0];
    for c in &coefficients[1..] {
        p = fma::<FMA>(p, x, *c);
    }
    p
}

/// `(m, n)` with `eˣ = m·2ⁿ` and m in [0.7, 1.42].
#[inline(always)]
fn exp_parts<const FMA: bool>(x: f64) -> (f64, i64) {
    let t = fma::<FMA>(x, std::f64::consts::LOG2_E, ROUND);
    let n = t - ROUND;
    let r = fma::<FMA>(-n, LN2[1], fma::<FMA>(-n, LN2[0], x));
    let p = horner::<FMA, _>(r, EXP);
    let m = fma::<FMA>(p * r, r, r) + 1.0;
    (m, (t.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64))
}

/// 2ⁿ for n in [-1022, 1023].
#[inline(always)]
fn power(n: i64) -> f64 {
    f64::from_bits((n.wrapping_add(1023) as u64) << 52)
}

/// `eˣ`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f64) -> f64 {
    // Written so that NaN fails both comparisons and stays.
    let x = if x > 710.0 { 710.0 } else { x };
    let x = if x < -746.0 { -746.0 } else { x };
    let (m, n) = exp_parts::<FMA>(x);
    // Two factors: 2ⁿ itself may overflow, or be subnormal.
    let half = n >> 1;
    m * power(half) * power(n.wrapping_sub(half))
}

#[inline(always)]
pub(crate) fn exp_scaled<const FMA: bool>(x: f64, k: i32) -> f64 {
    let (m, n) = exp_parts::<FMA>(x);
    m * power(n.wrapping_sub(i64::from(k)))
}

/// `ln x`.
#[inline(always)]
pub(crate) fn log<const FMA: bool>(x: f64) -> f64 {
    /// `(2·atanh(s) − 2s)/s³` in s².
    const POLYNOMIAL: [f64; 7] = [
        1.479_562_893_081_129_7e-1,
        1.531_408_533_481_336_3e-1,
        1.818_356_283_060_128_3e-1,
        2.222_219_860_546_765_8e-1,
        2.857_142_874_202_412_4e-1,
        3.999_999_999_941_666e-1,
        6.666_666_666_666_734e-1,
    ];
    /// Bits of √½: mantissas are taken in [√½, √2).
    const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
    /// 2⁵² and 2⁵² + 1023: an integer in the low bits of the first is added to it.
    const SHIFT: f64 = 4_503_599_627_370_496.0;
    const BIAS: f64 = SHIFT + 1023.0;
    let subnormal = x < f64::MIN_POSITIVE;
    let scaled = if subnormal { x * SHIFT } else { x };
    let bits = scaled.to_bits().wrapping_add(1.0_f64.to_bits() - SQRT_HALF);
    let bias = if subnormal { BIAS + 52.0 } else { BIAS };
    let e = f64::from_bits((bits >> 52) | SHIFT.to_bits()) - bias;
    let m = (bits & 0x000f_ffff_ffff_ffff).wrapping_add(SQRT_HALF);
    let f = f64::from_bits(m) - 1.0;
    // ln(1 + f) = 2·atanh(s) = f − (f²/2 − s·(f²/2 + s²·P(s²)))
    let s = f / (2.0 + f);
    let z = s * s;
    let half = 0.5 * f * f;
    let tail = fma::<FMA>(s, fma::<FMA>(z, horner::<FMA, _>(z, POLYNOMIAL), half), e * LN2[1]);
    let y = fma::<FMA>(e, LN2[0], f - (half - tail));
    let y = if x < f64::INFINITY { y } else { x };
    let outside = if x < 0.0 { f64::NAN } else { f64::NEG_INFINITY };
    if x <= 0.0 { outside } else { y }
}

/// `ln(1 + x)` for x ≥ 0 or NaN, to 2 ulp.
#[inline(always)]
pub(crate) fn log1p_above_zero<const FMA: bool>(x: f64) -> f64 {
    let u = 1.0 + x;
    // What u lost comes back with the slope of the logarithm there.
    let y = log::<FMA>(u) + (x - (u - 1.0)) / u;
    if x < f64::INFINITY { y } else { x }
}

/// `1/(1 + e⁻ˣ)`, through `e^-|x|`, which never overflows.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f64) -> f64 {
    let e = exp::<FMA>(-x.abs());
    let d = 1.0 + e;
    let lost = e - (d - 1.0);
    let y = (if x < 0.0 { e } else { 1.0 }) / d;
    fma::<FMA>(-y, lost, y)
}

/// 2⁸⁰, by which the functions of the normal distribution are larger.
const NORMAL_SCALE: f64 = (1_u128 << 80) as f64;

/// `2⁸⁰·Φ(−a)` for a in [0, 40] or NaN, through the `erfc` of `libm`.
#[inline(always)]
pub(crate) fn normal_tail<const FMA: bool>(a: f64) -> f64 {
    use std::f64::consts::FRAC_1_SQRT_2;
    /// √½ less its nearest `f64`.
    const LOST: f64 = -4.833_646_656_726_457e-17;
    let z = a * FRAC_1_SQRT_2;
    // For large z, erfc(z + δ) = erfc(z)·(1 − 2zδ): without it a rounded z would cost a² units.
    let delta = a.mul_add(FRAC_1_SQRT_2, -z) + a * LOST;
    let y = 0.5 * NORMAL_SCALE * libm::erfc(z);
    y - y * ((z + z) * delta)
}

/// `2⁸⁰·(Φ(−a) − a·φ(a))` for a in [0, 40] or NaN.
#[inline(always)]
pub(crate) fn normal_tail_slope<const FMA: bool>(a: f64) -> f64 {
    /// `2⁸⁰/√(2π)`.
    const DENSITY_AT_0: f64 = NORMAL_SCALE * 0.398_942_280_401_432_7;
    let square = a * a;
    let y = exp::<FMA>(-0.5 * square);
    // What rounding the square lost.
    let y = y - y * (0.5 * a.mul_add(a, -square));
    normal_tail::<FMA>(a) - a * (y * DENSITY_AT_0)
}

macro_rules! from_libraries {
    ($($(#[$doc:meta])* $name:ident = $function:path;)+) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub(crate) fn $name<const FMA: bool>(x: f64) -> f64 {
            $function(x)
        }
    )+};
}

from_libraries! {
    /// Hyperbolic tangent.
    tanh = f64::tanh;
    /// `2/√π·∫₀ˣ exp(−t²) dt`.
    erf = libm::erf;
    /// `eˣ − 1`.
    expm1 = f64::exp_m1;
    /// `ln(1 + x)`.
    log1p = f64::ln_1p;
    /// `sin x`.
    sin = f64::sin;
    /// `cos x`.
    cos = f64::cos;
}
