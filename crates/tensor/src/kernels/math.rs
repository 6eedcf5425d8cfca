//! Branch-free `exp`, `log` and `tanh`, one module a type.
//!
//! The reduction `x = n·ln 2 + r` takes `n` from the bits of a rounding constant, which vectorises
//! where a conversion to integer does not. Polynomials for `f32` are those of Cephes (S. Moshier,
//! expf, logf, tanhf); for `f64` the Taylor polynomial of degree 13, whose remainder on
//! |r| ≤ ln 2 / 2 is 4e-18. Integer arithmetic wraps on purpose: NaN passes through it unread.
//! Errors measured against `f64` are asserted by the tests below.

pub(crate) mod f32 {
    //! Single precision.

    /// 1.5·2²³: adding it rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts for FMA (the first is the nearest f32), and in three short parts without.
    const LN2: [f32; 2] = [std::f32::consts::LN_2, -1.904_654_3e-9];
    const LN2_SHORT: [f32; 3] = [0.693_359_4, -2.121_925_4e-4, -1.904_654_3e-9];
    const EXP: [f32; 6] =
        [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

    #[inline(always)]
    fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
        if FMA { a.mul_add(b, c) } else { a * b + c }
    }

    /// `(m, n)` with `eˣ = m·2ⁿ` and m in [0.7, 1.42].
    #[inline(always)]
    fn exp_parts<const FMA: bool>(x: f32) -> (f32, i32) {
        let t = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
        let n = t - ROUND;
        let r = if FMA {
            (-n).mul_add(LN2[1], (-n).mul_add(LN2[0], x))
        } else {
            ((x - n * LN2_SHORT[0]) - n * LN2_SHORT[1]) - n * LN2_SHORT[2]
        };
        let mut p = EXP[0];
        for c in &EXP[1..] {
            p = fma::<FMA>(p, r, *c);
        }
        let m = fma::<FMA>(p * r, r, r) + 1.0;
        (m, (t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32))
    }

    /// 2ⁿ for n in [-126, 127].
    #[inline(always)]
    fn power(n: i32) -> f32 {
        f32::from_bits((n.wrapping_add(127) as u32) << 23)
    }

    /// At most 1.1 ulp.
    #[inline(always)]
    pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
        // Written so that NaN fails both comparisons and stays.
        let x = if x > 89.0 { 89.0 } else { x };
        let x = if x < -105.0 { -105.0 } else { x };
        let (m, n) = exp_parts::<FMA>(x);
        // Two factors: 2ⁿ itself may overflow, or be subnormal.
        let half = n >> 1;
        m * power(half) * power(n.wrapping_sub(half))
    }

    #[inline(always)]
    pub(crate) fn exp_scaled<const FMA: bool>(x: f32, k: i32) -> f32 {
        let (m, n) = exp_parts::<FMA>(x);
        let n = n.wrapping_sub(k);
        if n < -126 { 0.0 } else { m * power(n) }
    }

    /// At most 2.5 ulp.
    #[inline(always)]
    pub(crate) fn log<const FMA: bool>(x: f32) -> f32 {
        const POLYNOMIAL: [f32; 9] = [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_7e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ];
        /// Bits of √½: mantissas are taken in [√½, √2).
        const SQRT_HALF: u32 = 0x3f35_04f3;
        let subnormal = x < f32::MIN_POSITIVE;
        let scaled = if subnormal { x * 8_388_608.0 } else { x };
        let bits = scaled.to_bits().wrapping_add(0x3f80_0000 - SQRT_HALF);
        let exponent = ((bits >> 23) as i32).wrapping_sub(127) - if subnormal { 23 } else { 0 };
        let f = f32::from_bits((bits & 0x007f_ffff).wrapping_add(SQRT_HALF)) - 1.0;
        let e = exponent as f32;
        let z = f * f;
        let mut p = POLYNOMIAL[0];
        for c in &POLYNOMIAL[1..] {
            p = fma::<FMA>(p, f, *c);
        }
        let y = fma::<FMA>(e, LN2_SHORT[1], p * f * z) - 0.5 * z;
        let y = fma::<FMA>(e, LN2_SHORT[0], f + y);
        let y = if x == f32::INFINITY { x } else { y };
        let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
        if x >= 0.0 { y } else { f32::NAN }
    }

    /// At most 2.5 ulp.
    #[inline(always)]
    pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
        const POLYNOMIAL: [f32; 5] =
            [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1];
        let a = x.abs();
        let large = 1.0 - 2.0 / (exp::<FMA>(2.0 * a) + 1.0);
        let z = x * x;
        let mut p = POLYNOMIAL[0];
        for c in &POLYNOMIAL[1..] {
            p = fma::<FMA>(p, z, *c);
        }
        let small = fma::<FMA>(p * z, x, x);
        (if a < 0.625 { small } else { large }).copysign(x)
    }

    #[inline(always)]
    pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
        let e = exp::<FMA>(-x.abs());
        let d = 1.0 / (1.0 + e);
        if x < 0.0 { e * d } else { d }
    }
    pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
        x
    }
    pub(crate) fn expm1<const FMA: bool>(x: f32) -> f32 {
        x.exp_m1()
    }
    pub(crate) fn log1p<const FMA: bool>(x: f32) -> f32 {
        x.ln_1p()
    }
    pub(crate) fn sin<const FMA: bool>(x: f32) -> f32 {
        x.sin()
    }
    pub(crate) fn cos<const FMA: bool>(x: f32) -> f32 {
        x.cos()
    }
}

pub(crate) mod f64 {
    //! Double precision.

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

    #[inline(always)]
    fn exp_parts<const FMA: bool>(x: f64) -> (f64, i64) {
        let t = fma::<FMA>(x, std::f64::consts::LOG2_E, ROUND);
        let n = t - ROUND;
        let r = fma::<FMA>(-n, LN2[1], fma::<FMA>(-n, LN2[0], x));
        let mut p = EXP[0];
        for c in &EXP[1..] {
            p = fma::<FMA>(p, r, *c);
        }
        let m = fma::<FMA>(p * r, r, r) + 1.0;
        (m, (t.to_bits() as i64).wrapping_sub(ROUND.to_bits() as i64))
    }

    /// 2ⁿ for n in [-1022, 1023].
    #[inline(always)]
    fn power(n: i64) -> f64 {
        f64::from_bits((n.wrapping_add(1023) as u64) << 52)
    }

    /// At most 1.5 ulp.
    #[inline(always)]
    pub(crate) fn exp<const FMA: bool>(x: f64) -> f64 {
        let x = if x > 710.0 { 710.0 } else { x };
        let x = if x < -746.0 { -746.0 } else { x };
        let (m, n) = exp_parts::<FMA>(x);
        let half = n >> 1;
        m * power(half) * power(n.wrapping_sub(half))
    }

    #[inline(always)]
    pub(crate) fn exp_scaled<const FMA: bool>(x: f64, k: i32) -> f64 {
        let (m, n) = exp_parts::<FMA>(x);
        let n = n.wrapping_sub(i64::from(k));
        if n < -1022 { 0.0 } else { m * power(n) }
    }

    #[inline(always)]
    pub(crate) fn log<const FMA: bool>(x: f64) -> f64 {
        x.ln()
    }

    #[inline(always)]
    pub(crate) fn tanh<const FMA: bool>(x: f64) -> f64 {
        x.tanh()
    }

    #[inline(always)]
    pub(crate) fn sigmoid<const FMA: bool>(x: f64) -> f64 {
        let e = exp::<FMA>(-x.abs());
        let d = 1.0 / (1.0 + e);
        if x < 0.0 { e * d } else { d }
    }
    pub(crate) fn erf<const FMA: bool>(x: f64) -> f64 {
        x
    }
    pub(crate) fn expm1<const FMA: bool>(x: f64) -> f64 {
        x.exp_m1()
    }
    pub(crate) fn log1p<const FMA: bool>(x: f64) -> f64 {
        x.ln_1p()
    }
    pub(crate) fn sin<const FMA: bool>(x: f64) -> f64 {
        x.sin()
    }
    pub(crate) fn cos<const FMA: bool>(x: f64) -> f64 {
        x.cos()
    }
}

#[cfg(test)]
mod tests {
    /// The largest error of `f` over `samples` arguments of [low, high], in units of the last place.
    fn worst_ulp(f: fn(f32) -> f32, exact: fn(f64) -> f64, low: f32, high: f32) -> f64 {
        let samples = 400_000;
        (0..=samples)
            .map(|i| low + (high - low) * (i as f32 / samples as f32))
            .map(|x| {
                let want = exact(f64::from(x));
                let bits = (want.abs() as f32).max(f32::MIN_POSITIVE).to_bits();
                let ulp = f64::from(f32::from_bits(bits + 1)) - f64::from(f32::from_bits(bits));
                (f64::from(f(x)) - want).abs() / ulp
            })
            .fold(0.0, f64::max)
    }

    #[test]
    fn f32_functions_are_as_accurate_as_stated() {
        for (low, high) in [(-87.0, 88.5), (-1.0, 1.0), (-104.0, -86.0)] {
            assert!(worst_ulp(super::f32::exp::<true>, f64::exp, low, high) <= 1.1);
            assert!(worst_ulp(super::f32::exp::<false>, f64::exp, low, high) <= 1.1);
        }
        for (low, high) in [(1e-30, 1e-3), (0.5, 2.0), (1.0, 1e30), (0.99, 1.01)] {
            assert!(worst_ulp(super::f32::log::<true>, f64::ln, low, high) <= 2.5);
            assert!(worst_ulp(super::f32::log::<false>, f64::ln, low, high) <= 2.5);
        }
        for (low, high) in [(-10.0, 10.0), (-0.7, 0.7), (-1e-3, 1e-3)] {
            assert!(worst_ulp(super::f32::tanh::<true>, f64::tanh, low, high) <= 2.5);
            assert!(worst_ulp(super::f32::tanh::<false>, f64::tanh, low, high) <= 2.5);
        }
    }

    #[test]
    fn f64_exp_agrees_with_the_standard_library() {
        for i in -700_000..700_000 {
            let x = f64::from(i) * 1e-3 + 1e-7;
            // Ours within 1.5 ulp and the standard library's within 1: 2.5·2⁻⁵² relative.
            let bound = 2.5 * f64::EPSILON * x.exp();
            assert!((super::f64::exp::<true>(x) - x.exp()).abs() <= bound, "exp({x})");
            assert!((super::f64::exp::<false>(x) - x.exp()).abs() <= bound, "exp({x})");
        }
    }

    #[test]
    fn scaled_exp_shifts_the_exponent_alone() {
        for x in [0.0_f32, 3.7, 1000.25, -1000.25, 1900.0] {
            let k = (x * std::f32::consts::LOG2_E).round();
            let want = (f64::from(x) - f64::from(k) * std::f64::consts::LN_2).exp();
            for got in [
                super::f32::exp_scaled::<true>(x, k as i32),
                super::f32::exp_scaled::<false>(x, k as i32),
            ] {
                assert!((f64::from(got) / want - 1.0).abs() < 1.5e-7, "{x}: {got} {want}");
            }
            let got = super::f64::exp_scaled::<false>(f64::from(x), k as i32);
            assert!((got / want - 1.0).abs() < 1e-12);
        }
        assert_eq!(super::f32::exp_scaled::<true>(-88.5, 0), 0.0);
    }

    #[test]
    fn special_values_follow_ieee() {
        use super::{f32 as s, f64 as d};
        for f in [s::exp::<true>, s::exp::<false>] {
            assert_eq!((f(0.0), f(f32::INFINITY), f(f32::NEG_INFINITY)), (1.0, f32::INFINITY, 0.0));
            assert!(f(f32::NAN).is_nan() && f(-f32::NAN).is_nan() && f(89.5).is_infinite());
        }
        for f in [d::exp::<true>, d::exp::<false>] {
            assert_eq!((f(0.0), f(f64::INFINITY), f(f64::NEG_INFINITY)), (1.0, f64::INFINITY, 0.0));
            assert!(f(f64::NAN).is_nan() && f(-f64::NAN).is_nan());
        }
        let log = s::log::<true>;
        assert_eq!((log(1.0), log(0.0), log(-0.0)), (0.0, f32::NEG_INFINITY, f32::NEG_INFINITY));
        assert!(log(-1.0).is_nan() && log(f32::NAN).is_nan() && log(f32::INFINITY).is_infinite());
        assert!((f64::from(log(1e-45)) - (1.401_298_464_324_817e-45_f64).ln()).abs() < 1e-5);
        let tanh = s::tanh::<true>;
        assert_eq!((tanh(f32::INFINITY), tanh(-40.0), tanh(-0.0).to_bits()), (1.0, -1.0, 1 << 31));
        assert!(tanh(f32::NAN).is_nan());
    }
}
