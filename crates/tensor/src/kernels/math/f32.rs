//! Single precision. Not here: what patches arguments out of the range of `sin` and `cos`.
//!
//! The polynomial [`EXP`] is that of Cephes (S. Moshier, expf); the others are fitted by
//! crates/tensor/tests/data/make_math.py.

/// 1.5·2²³: adding it rounds to an integer, which then stands in the low bits.
const ROUND: f32 = 12_582_912.0;
/// 1.5·2⁵², the same for `f64`.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts for FMA (the first is the nearest f32), and in three short parts without.
const LN2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_3e-9];
const LN2_SHORT: [f32; 3] = [0.693_359_4, -2.121_925_4e-4, -1.904_654_3e-9];
/// π/2 in two parts, the first of 40 bits.
const HALF_PI: [f64; 2] = [1.570_796_326_794_152_3, 7.443_547_480_486_623e-13];
/// Bits of √½: mantissas are taken in [√½, √2).
const SQRT_HALF: u32 = 0x3f35_04f3;
const SIGN: u32 = 1 << 31;
/// `(eʳ − 1 − r)/r²`.
const EXP: [f32; 6] =
    [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
/// The same with a term less, to 2⁻²⁷.
const EXP_SHORT: [f32; 5] =
    [1.384_246_2e-3, 8.367_049_5e-3, 4.166_786e-2, 1.666_654_5e-1, 4.999_999_7e-1];

/// [`EXP_SHORT`] for a multiple of the argument: `(eˢʳ − 1 − s·r)/r²` in r, for a power of two s.
const fn exp_of_multiple(s: f32) -> [f32; 5] {
    let (mut c, mut factor, mut i) = (EXP_SHORT, s * s, 5);
    while i > 0 {
        i -= 1;
        c[i] *= factor;
        factor *= s;
    }
    c
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
fn fma_f64<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with these coefficients, highest first.
#[inline(always)]
fn horner<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut p = coefficients[0];
    for c in &coefficients[1..] {
        p = fma::<FMA>(p, x, *c);
    }
    p
}

/// `(t, r)` with `x = n·ln 2 + r`, where n stands in the low bits of t.
#[inline(always)]
fn reduce<const FMA: bool>(x: f32) -> (f32, f32) {
    reduce_biased::<FMA>(x, ROUND)
}

/// [`reduce`] where `round` is [`ROUND`] and an integer, to which n is added in the low bits: the
/// exponent of an `f32` may stand there at once.
#[inline(always)]
fn reduce_biased<const FMA: bool>(x: f32, round: f32) -> (f32, f32) {
    let t = fma::<FMA>(x, std::f32::consts::LOG2_E, round);
    let n = t - round;
    let r = if FMA {
        (-n).mul_add(LN2[1], (-n).mul_add(LN2[0], x))
    } else {
        ((x - n * LN2_SHORT[0]) - n * LN2_SHORT[1]) - n * LN2_SHORT[2]
    };
    (t, r)
}

/// The integer that a rounding constant left in the low bits.
#[inline(always)]
fn integer(t: f32) -> i32 {
    (t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32)
}

/// `(m, n)` with `eˣ = m·2ⁿ` and m in [0.7, 1.42].
#[inline(always)]
fn exp_parts<const FMA: bool, const SHORT: bool>(x: f32) -> (f32, i32) {
    let (t, r) = reduce::<FMA>(x);
    (exp_near_zero::<FMA, SHORT, _>(r, EXP), integer(t))
}

/// `eʳ`, from the coefficients of `(eʳ − 1 − r)/r²`.
#[inline(always)]
fn exp_near_zero<const FMA: bool, const SHORT: bool, const N: usize>(r: f32, c: [f32; N]) -> f32 {
    let p = horner::<FMA, _>(r, c);
    // Where each step rounds once, the short way has the smaller errors.
    if SHORT && FMA {
        fma::<FMA>(fma::<FMA>(p, r, 1.0), r, 1.0)
    } else {
        fma::<FMA>(p * r, r, r) + 1.0
    }
}

/// 2ⁿ for n in [-126, 127].
#[inline(always)]
fn power(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `eˣ` for x in [-105, 89].
#[inline(always)]
fn exp_in_range<const FMA: bool>(x: f32) -> f32 {
    let (m, n) = exp_parts::<FMA, true>(x);
    // Two factors: 2ⁿ itself may overflow, or be subnormal.
    let half = n >> 1;
    m * power(half) * power(n.wrapping_sub(half))
}

/// `eˣ`.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Written so that NaN fails both comparisons and stays.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -105.0 { -105.0 } else { x };
    exp_in_range::<FMA>(x)
}

#[inline(always)]
pub(crate) fn exp_scaled<const FMA: bool>(x: f32, k: i32) -> f32 {
    let (m, n) = exp_parts::<FMA, true>(x);
    m * power(n.wrapping_sub(k))
}

/// `eˣ − 1`.
#[inline(always)]
pub(crate) fn expm1<const FMA: bool>(x: f32) -> f32 {
    /// `(eʳ − 1 − r)/r²` on a wider interval.
    const POLYNOMIAL: [f32; 6] = [
        2.057_183_7e-4,
        1.401_093_8e-3,
        8.331_219e-3,
        4.166_494_3e-2,
        1.666_668e-1,
        5.000_000_6e-1,
    ];
    let y = if x > 89.0 { 89.0 } else { x };
    let y = if y < -18.0 { -18.0 } else { y };
    let (t, r) = reduce::<FMA>(y);
    // Up to ½ without reduction: 2p + 1 would double the error of p.
    let small = y.abs() < 0.5;
    let r = if small { y } else { r };
    let p = horner::<FMA, _>(r, POLYNOMIAL);
    let p = fma::<FMA>(p * r, r, r);
    // 2ⁿ·p + (2ⁿ − 1), at half its size because 2¹²⁸ is no f32.
    let half = power(integer(t).wrapping_sub(1));
    let large = 2.0 * fma::<FMA>(half, p, half - 0.5);
    (if small { p } else { large }).copysign(x)
}

/// `e·ln 2 + ln(1 + f)` for f in [√½ − 1, √2 − 1].
#[inline(always)]
fn log_of_parts<const FMA: bool>(e: i32, f: f32) -> f32 {
    /// `(ln(1 + f) − f + f²/2)/f³`.
    const POLYNOMIAL: [f32; 9] = [
        6.756_589e-2,
        -1.166_957_84e-1,
        1.187_977_05e-1,
        -1.240_803_8e-1,
        1.422_117_7e-1,
        -1.666_773_3e-1,
        2.000_203_4e-1,
        -2.500_001_8e-1,
        3.333_331_3e-1,
    ];
    let e = e as f32;
    let z = f * f;
    let p = horner::<FMA, _>(f, POLYNOMIAL);
    let y = fma::<FMA>(e, LN2_SHORT[1], p * f * z) - 0.5 * z;
    fma::<FMA>(e, LN2_SHORT[0], f + y)
}

/// `ln x`.
#[inline(always)]
pub(crate) fn log<const FMA: bool>(x: f32) -> f32 {
    let subnormal = x < f32::MIN_POSITIVE;
    let scaled = if subnormal { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits().wrapping_add(0x3f80_0000 - SQRT_HALF);
    let e = ((bits >> 23) as i32).wrapping_sub(127) - if subnormal { 23 } else { 0 };
    let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF)) - 1.0;
    let y = log_of_parts::<FMA>(e, f);
    let y = if x < f32::INFINITY { y } else { x };
    let outside = if x < 0.0 { f32::NAN } else { f32::NEG_INFINITY };
    if x <= 0.0 { outside } else { y }
}

/// `ln(1 + x)`.
#[inline(always)]
pub(crate) fn log1p<const FMA: bool>(x: f32) -> f32 {
    // The exponent k of 1 + x, in place; then 2⁻ᵏ(1 + x) = 1 + f, where 2⁻ᵏx and 2⁻ᵏ are exact.
    let k = (1.0 + x).to_bits().wrapping_sub(SQRT_HALF) & 0xff80_0000;
    let scaled = f32::from_bits(x.to_bits().wrapping_sub(k));
    // 4·2⁻ᵏ, which is normal for k = 128 too.
    let s = f32::from_bits((129_u32 << 23).wrapping_sub(k));
    let f = scaled + fma::<FMA>(0.25, s, -1.0);
    let y = log_of_parts::<FMA>((k as i32) >> 23, f);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == -1.0 { f32::NEG_INFINITY } else { y };
    (if x >= -1.0 { y } else { f32::NAN }).copysign(x)
}

/// Hyperbolic tangent.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    /// `(tanh x − x)/x³` in x².
    const POLYNOMIAL: [f32; 5] =
        [-5.140_459_6e-3, 2.009_433_3e-2, -5.355_996_3e-2, 1.332_913_2e-1, -3.333_319e-1];
    const DOUBLED: [f32; 5] = exp_of_multiple(2.0);
    /// Leaves n as the exponent of an `f32` in the low bits.
    const ROUND_BIASED: f32 = ROUND + 127.0;
    let a = x.abs();
    let b = if a < 10.0 { a } else { 10.0 };
    // b = n·(ln 2)/2 + r
    let t = fma::<FMA>(b, 2.0 * std::f32::consts::LOG2_E, ROUND_BIASED);
    let n = t - ROUND_BIASED;
    let r = if FMA {
        (-n).mul_add(0.5 * LN2[1], (-n).mul_add(0.5 * LN2[0], b))
    } else {
        ((b - n * (0.5 * LN2_SHORT[0])) - n * (0.5 * LN2_SHORT[1])) - n * (0.5 * LN2_SHORT[2])
    };
    let m = fma::<FMA>(fma::<FMA>(horner::<FMA, _>(r, DOUBLED), r, 2.0), r, 1.0);
    let large = 1.0 - 2.0 / fma::<FMA>(m, f32::from_bits(t.to_bits() << 23), 1.0);
    let z = x * x;
    let p = horner::<FMA, _>(z, POLYNOMIAL);
    let small = fma::<FMA>(p * z, x, x);
    // NaN is not large, and stays in the small one, which loses the sign of −0.
    (if a >= 0.7 { large } else { small }).copysign(x)
}

/// `1/(1 + e⁻ˣ)`, through `e^-|x|`, which never overflows.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    /// Exponentials come 2³⁰ times as large, so that none is subnormal.
    const ROUND_BIASED: f32 = ROUND + 157.0;
    const SCALE: f32 = (1_u32 << 30) as f32;
    let a = x.abs();
    let a = if a > 105.0 { 105.0 } else { a };
    let (t, r) = reduce_biased::<FMA>(-a, ROUND_BIASED);
    let e = exp_near_zero::<FMA, true, _>(r, EXP_SHORT) * f32::from_bits(t.to_bits() << 23);
    let d = fma::<FMA>(e, 1.0 / SCALE, 1.0);
    let lost = fma::<FMA>(e, 1.0 / SCALE, 1.0 - d);
    let y = (if x < 0.0 { e } else { SCALE }) / d;
    fma::<FMA>(-y, lost, y) * (1.0 / SCALE)
}

/// `erf(x)` for |x| ≤ 0.9.
#[inline(always)]
fn erf_near_zero<const FMA: bool>(x: f32) -> f32 {
    /// `erf(x)/x − 1` in x².
    const POLYNOMIAL: [f32; 7] = [
        7.943_228e-5,
        -8.039_768_4e-4,
        5.191_753_6e-3,
        -2.685_556e-2,
        1.128_362_4e-1,
        -3.761_263e-1,
        1.283_791_7e-1,
    ];
    fma::<FMA>(horner::<FMA, _>(x * x, POLYNOMIAL), x, x)
}

/// `2/√π·∫₀ˣ exp(−t²) dt`.
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    /// `ln(1 − erf a)`.
    const LARGE: [f32; 8] = [
        -2.081_457_2e-5,
        4.312_75e-4,
        -4.155_854_7e-3,
        2.507_992_6e-2,
        -1.082_197_4e-1,
        -6.334_011_6e-1,
        -1.129_488_3,
        1.692_053_2e-4,
    ];
    let a = x.abs();
    let a = if a > 4.0 { 4.0 } else { a };
    let (m, n) = exp_parts::<FMA, false>(horner::<FMA, _>(a, LARGE));
    let large = fma::<FMA>(-m, power(n), 1.0);
    let small = erf_near_zero::<FMA>(a);
    (if a < 0.9 { small } else { large }).copysign(x)
}

/// `(e, q)` with `2⁸⁰·e^(−a²/2) = e` and `Φ(−a) = q·e^(−a²/2)`, for a in [0, 15] or NaN.
#[inline(always)]
fn normal_parts<const FMA: bool>(a: f32) -> (f32, f32) {
    /// `Φ(−a)/e^(−a²/2)` as a quotient in a.
    const ABOVE: [f32; 5] =
        [6.536_493_5e-3, 6.434_03e-2, 2.895_384e-1, 6.913_641e-1, 7.869_243_6e-1];
    const BELOW: [f32; 6] =
        [1.638_438_4e-2, 1.612_868_5e-1, 7.419_228_6e-1, 1.897_345_8, 2.638_478_5, 1.573_848_7];
    const HALVED: [f32; 5] = exp_of_multiple(0.5);
    /// Rounds to an integer n, and leaves n + 80 in the low bits as the exponent of an `f32`.
    const ROUND_BIASED: f32 = ROUND + 207.0;
    /// 2·ln 2 in two parts, the first of 9 bits, so that its products with n are exact.
    const TWO_LN2: [f32; 2] = [1.386_718_8, -4.243_889e-4];
    // −a² = n·2·ln 2 + r. Rounding a² would cost a factor a² of the last place.
    let (t, r) = if FMA {
        let t = (a * a).mul_add(-0.5 * std::f32::consts::LOG2_E, ROUND_BIASED);
        let n = t - ROUND_BIASED;
        (t, n.mul_add(-TWO_LN2[1], (-a).mul_add(a, n * -TWO_LN2[0])))
    } else {
        // a² = h² + (a − h)(a + h), where h has 12 bits and an exact square.
        let h = f32::from_bits(a.to_bits().wrapping_add(0x800) & 0xffff_f000);
        let t = h * h * (-0.5 * std::f32::consts::LOG2_E) + ROUND_BIASED;
        let n = t - ROUND_BIASED;
        (t, (n * -TWO_LN2[0] - h * h) - (n * TWO_LN2[1] + (a - h) * (a + h)))
    };
    let m = fma::<FMA>(fma::<FMA>(horner::<FMA, _>(r, HALVED), r, 0.5), r, 1.0);
    let q = horner::<FMA, _>(a, ABOVE) / horner::<FMA, _>(a, BELOW);
    (m * f32::from_bits(t.to_bits() << 23), q)
}

/// `2⁸⁰·Φ(−a)` for a in [0, 15] or NaN.
#[inline(always)]
pub(crate) fn normal_tail<const FMA: bool>(a: f32) -> f32 {
    let (e, q) = normal_parts::<FMA>(a);
    e * q
}

/// `2⁸⁰·(Φ(−a) − a·φ(a))` for a in [0, 15] or NaN.
#[inline(always)]
pub(crate) fn normal_tail_slope<const FMA: bool>(a: f32) -> f32 {
    /// `1/√(2π)`.
    const DENSITY_AT_0: f32 = 0.398_942_3;
    let (e, q) = normal_parts::<FMA>(a);
    e * fma::<FMA>(-a, DENSITY_AT_0, q)
}

/// `sin(x + n·π/2)` for x in [0, 10⁴]; anything for larger arguments.
#[inline(always)]
fn sin_of_sum<const FMA: bool>(x: f32, n: u64) -> f32 {
    /// `(sin r − r)/r³` and `(cos r − 1)/r²` in r².
    const SIN: [f32; 3] = [-1.951_829e-4, 8.332_189e-3, -1.666_665_5e-1];
    const COS: [f32; 4] = [2.443_232_7e-5, -1.388_731e-3, 4.166_664_6e-2, -0.5];
    const PER_QUARTER: f64 = std::f64::consts::FRAC_2_PI;
    let x = f64::from(x);
    let t = fma_f64::<FMA>(x, PER_QUARTER, ROUND_F64);
    let quarters = t - ROUND_F64;
    // The first product is exact, and so is its difference.
    let r = fma_f64::<FMA>(-quarters, HALF_PI[0], x);
    let r = fma_f64::<FMA>(-quarters, HALF_PI[1], r);
    let n = t.to_bits().wrapping_add(n);
    // The polynomials in f32, the sum they correct in f64: r·(1 + …), or 1·(1 + …).
    let z = (r * r) as f32;
    let (sin, cos) = (z * horner::<FMA, _>(z, SIN), z * horner::<FMA, _>(z, COS));
    let (base, correction) = if n & 1 == 0 { (r, sin) } else { (1.0, cos) };
    let y = fma_f64::<FMA>(base, f64::from(correction), base) as f32;
    f32::from_bits(y.to_bits() ^ ((n as u32 & 2) << 30))
}

/// `sin x` for |x| ≤ 10⁴; larger arguments and infinities are the caller's.
#[inline(always)]
pub(crate) fn sin<const FMA: bool>(x: f32) -> f32 {
    f32::from_bits(sin_of_sum::<FMA>(x.abs(), 0).to_bits() ^ (x.to_bits() & SIGN))
}

/// `cos x` for |x| ≤ 10⁴; larger arguments and infinities are the caller's.
#[inline(always)]
pub(crate) fn cos<const FMA: bool>(x: f32) -> f32 {
    sin_of_sum::<FMA>(x.abs(), 1)
}
