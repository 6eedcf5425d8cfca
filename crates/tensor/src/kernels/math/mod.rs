//! Scalar bodies of the vectorised functions, one module a type. Not here: the loops over them.
//!
//! Every body is branch-free and inlined, so that a loop over it vectorises inside
//! [`dispatch`](super::dispatch): selects, no calls, and no conversion from float to integer. The
//! reduction `x = n·ln 2 + r` takes `n` from the bits of a rounding constant. Integer arithmetic
//! wraps on purpose: NaN passes through it unread.
//!
//! Largest errors over all `f32` (`sin` and `cos`: up to 10⁴), in units of the last place of the exact
//! value; `crates/tensor/tests/data/make_math.py` fits the polynomials, docs/NUMERICS.md tells the
//! algorithms, and the tests below hold samples to these numbers:
//!
//! | `f32`     | with FMA | without | limit |
//! |-----------|----------|---------|-------|
//! | `exp`     | 0.895    | 0.989   | 1.1   |
//! | `log`     | 0.873    | 0.890   | 2.5   |
//! | `tanh`    | 1.062    | 1.104   | 2.5   |
//! | `sigmoid` | 1.967    | 1.967   | 2.5   |
//! | `erf`     | 1.103    | 1.331   | 2.5   |
//! | `expm1`   | 1.434    | 1.393   | 2.5   |
//! | `log1p`   | 1.434    | 1.444   | 2.5   |
//! | `sin`     | 1.124    | 1.132   | 1.5   |
//! | `cos`     | 1.125    | 1.136   | 1.5   |
//!
//! The tail of the normal distribution has 6.036 and 7.411 ulp, `gelu`, which stands on it, 6.729 and
//! 7.842.

pub(crate) mod f32;
pub(crate) mod f64;

#[cfg(test)]
mod tests {
    use super::{f32 as s, f64 as d};

    const NAN: f32 = f32::NAN;
    const INF: f32 = f32::INFINITY;

    struct Function {
        name: &'static str,
        /// With FMA and without.
        bodies: [fn(f32) -> f32; 2],
        exact: fn(f64) -> f64,
        /// The largest error of each body over all arguments, rounded up.
        worst: [f64; 2],
        limit: f64,
        /// The largest magnitude of its arguments.
        up_to: f32,
        /// Arguments and what the function gives there.
        special: &'static [(f32, f32)],
    }

    macro_rules! functions {
        ($($name:ident = $exact:expr, $worst:expr, $limit:expr, $up_to:expr,
            { $($x:expr => $y:expr),+ };)+) => {
            [$(Function {
                name: stringify!($name),
                bodies: [s::$name::<true>, s::$name::<false>],
                exact: $exact,
                worst: $worst,
                limit: $limit,
                up_to: $up_to,
                special: &[$(($x, $y)),+],
            }),+]
        };
    }

    const FUNCTIONS: [Function; 9] = functions! {
        exp = f64::exp, [0.895, 0.989], 1.1, INF,
            { 0.0 => 1.0, -0.0 => 1.0, 1e-45 => 1.0, INF => INF, 89.0 => INF, -INF => 0.0,
              -104.0 => 0.0, -103.0 => 1e-45 };
        log = f64::ln, [0.873, 0.890], 2.5, INF,
            { 1.0 => 0.0, 0.0 => -INF, -0.0 => -INF, INF => INF, -1e-45 => NAN, -1.0 => NAN,
              -INF => NAN };
        tanh = f64::tanh, [1.062, 1.104], 2.5, INF,
            { 0.0 => 0.0, -0.0 => -0.0, 1e-45 => 1e-45, INF => 1.0, -INF => -1.0, -40.0 => -1.0 };
        sigmoid = sigmoid, [1.967, 1.967], 2.5, INF,
            { 0.0 => 0.5, -0.0 => 0.5, INF => 1.0, -INF => 0.0, -103.0 => 1e-45, -3e38 => 0.0 };
        erf = libm::erf, [1.103, 1.331], 2.5, INF,
            { 0.0 => 0.0, -0.0 => -0.0, 1e-45 => 1e-45, INF => 1.0, -INF => -1.0, -4.5 => -1.0 };
        expm1 = f64::exp_m1, [1.434, 1.393], 2.5, INF,
            { 0.0 => 0.0, -0.0 => -0.0, -1e-45 => -1e-45, INF => INF, 89.0 => INF, -INF => -1.0,
              -20.0 => -1.0 };
        log1p = f64::ln_1p, [1.434, 1.444], 2.5, INF,
            { 0.0 => 0.0, -0.0 => -0.0, -1e-45 => -1e-45, INF => INF, -1.0 => -INF,
              -1.000_000_1 => NAN, -INF => NAN };
        sin = f64::sin, [1.124, 1.132], 1.5, 1e4,
            { 0.0 => 0.0, -0.0 => -0.0, -1e-45 => -1e-45 };
        cos = f64::cos, [1.125, 1.136], 1.5, 1e4,
            { 0.0 => 1.0, -0.0 => 1.0, 1e-45 => 1.0 };
    };

    fn sigmoid(x: f64) -> f64 {
        if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
    }

    /// The distance of `got` from `want` in units of the last place of `want`.
    fn error(got: f32, want: f64) -> f64 {
        if want.is_nan() || got.is_nan() {
            return if want.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
        }
        // What rounds to infinity has an infinite neighbour.
        if got.is_infinite() || (want as f32).is_infinite() {
            return if got == want as f32 { 0.0 } else { f64::INFINITY };
        }
        let exponent = (want.abs().to_bits() >> 52).max(1023 - 126) - 23;
        (f64::from(got) - want).abs() / f64::from_bits(exponent << 52)
    }

    #[test]
    fn f32_functions_are_as_accurate_as_stated() {
        // A stride prime to 2³², so that every exponent meets many mantissas.
        let stride = if cfg!(miri) { 16_777_213 } else { 4093 };
        for f in &FUNCTIONS {
            for (body, worst) in f.bodies.iter().zip(f.worst) {
                assert!(worst <= f.limit, "{}", f.name);
                for bits in (0..=u32::MAX).step_by(stride) {
                    let x = f32::from_bits(bits);
                    let (got, want) = (body(x), (f.exact)(f64::from(x)));
                    if x.abs() <= f.up_to || x.is_nan() {
                        let e = error(got, want);
                        assert!(e <= worst, "{}({x:e}) = {got:e}, not {want:e}: {e} ulp", f.name);
                    }
                }
            }
        }
    }

    #[test]
    fn f32_special_values_follow_ieee() {
        for f in &FUNCTIONS {
            for body in f.bodies {
                assert!(body(NAN).is_nan() && body(-NAN).is_nan(), "{}(NaN)", f.name);
                for &(x, want) in f.special {
                    let (got, name) = (body(x), f.name);
                    let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
                    assert!(same, "{name}({x:e}) = {got:e}, not {want:e}");
                }
            }
        }
    }

    #[test]
    fn the_normal_tail_is_as_accurate_as_stated() {
        /// The largest errors with FMA and without, rounded up: of the tail in units of the last
        /// place, of the slope in epsilons of the sum of its two terms.
        const TAIL: [f64; 2] = [6.036, 7.411];
        const SLOPE: [f64; 2] = [1.657, 2.104];
        const SCALE: f64 = (1_u128 << 80) as f64;
        let tail = |a: f64| 0.5 * SCALE * libm::erfc(a * std::f64::consts::FRAC_1_SQRT_2);
        let slope = |a: f64| tail(a) - a * (-0.5 * a * a).exp() * SCALE * 0.398_942_280_401_432_7;
        type Body = fn(f32) -> f32;
        let bodies: [(Body, Body, f64, f64); 2] = [
            (s::normal_tail::<true>, s::normal_tail_slope::<true>, TAIL[0], SLOPE[0]),
            (s::normal_tail::<false>, s::normal_tail_slope::<false>, TAIL[1], SLOPE[1]),
        ];
        let stride = if cfg!(miri) { 4_194_301 } else { 1021 };
        for (tail_body, slope_body, tail_worst, slope_worst) in bodies {
            for bits in (0..=15.0_f32.to_bits()).step_by(stride) {
                let a = f32::from_bits(bits);
                let (got, want) = (tail_body(a), tail(f64::from(a)));
                let e = error(got, want);
                assert!(e <= tail_worst, "tail of {a:e}: {got:e}, not {want:e}: {e} ulp");
                // The two terms of the slope cancel near 0.75.
                let (got, want, sum) = (slope_body(a), slope(f64::from(a)), 2.0 * want);
                let unit = f64::from(f32::EPSILON) * (sum - slope(f64::from(a)));
                let e = (f64::from(got) - want).abs() / unit;
                assert!(e <= slope_worst, "slope at {a:e}: {got:e}, not {want:e}: {e} units");
            }
            assert!(tail_body(NAN).is_nan() && slope_body(NAN).is_nan());
            assert_eq!((tail_body(0.0), slope_body(0.0)), (SCALE as f32 / 2.0, SCALE as f32 / 2.0));
        }
    }

    #[test]
    fn f64_exp_and_log_are_as_accurate_as_stated() {
        /// The largest error over this file and 400 000 arguments more, rounded up.
        const EXP: f64 = 1.02;
        const LOG: f64 = 0.84;
        let lines = || include_str!("../../../tests/data/math_f64.csv").lines();
        let few = if cfg!(miri) { 20 } else { usize::MAX };
        // Those of exp stand first, those of log last.
        for line in lines().take(few).chain(lines().rev().take(few)) {
            let fields: Vec<_> = line.split(',').collect();
            let [name, x, nearest, missing] = fields[..] else { panic!("{line}") };
            let float = |hex| f64::from_bits(u64::from_str_radix(hex, 16).unwrap());
            let (x, nearest, missing) = (float(x), float(nearest), missing.parse::<f64>().unwrap());
            let (bodies, worst) = match name {
                "exp" => ([d::exp::<true>, d::exp::<false>], EXP),
                _ => ([d::log::<true>, d::log::<false>], LOG),
            };
            for body in bodies {
                let exponent = (nearest.abs().to_bits() >> 52).max(1);
                // The unit itself may be too small for an f64.
                let units = (body(x) - nearest) * 2.0_f64.powi(52) / f64::from_bits(exponent << 52);
                let e = (units - missing).abs();
                assert!(e <= worst, "{name}({x:e}): {e} ulp");
            }
        }
    }

    #[test]
    fn f64_special_values_follow_ieee() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        for f in [d::exp::<true>, d::exp::<false>] {
            assert_eq!((f(0.0), f(-0.0), f(inf), f(-inf)), (1.0, 1.0, inf, 0.0));
            assert_eq!((f(709.8), f(-745.2), f(-745.1)), (inf, 0.0, 5e-324));
            assert!(f(nan).is_nan() && f(-nan).is_nan());
        }
        for f in [d::log::<true>, d::log::<false>] {
            assert_eq!((f(0.0), f(-0.0), f(inf)), (-inf, -inf, inf));
            assert_eq!(f(1.0).to_bits(), 0);
            assert!([nan, -nan, -5e-324, -1.0, -inf].iter().all(|&x| f(x).is_nan()));
        }
        for f in [d::sigmoid::<true>, d::sigmoid::<false>] {
            assert_eq!((f(0.0), f(inf), f(-inf), f(-800.0)), (0.5, 1.0, 0.0, 0.0));
            assert!((f(-740.0) - sigmoid(-740.0)).abs() <= 5e-324 && f(nan).is_nan());
        }
    }

    #[test]
    fn f64_functions_of_the_libraries_are_the_ones_named() {
        let x = 0.7_f64;
        assert_eq!((d::tanh::<true>(x), d::erf::<true>(x)), (x.tanh(), libm::erf(x)));
        assert_eq!((d::expm1::<true>(x), d::log1p::<true>(x)), (x.exp_m1(), x.ln_1p()));
        assert_eq!((d::sin::<true>(x), d::cos::<true>(x)), (x.sin(), x.cos()));
    }

    #[test]
    fn log1p_above_zero_is_within_two_ulp() {
        for f in [d::log1p_above_zero::<true>, d::log1p_above_zero::<false>] {
            for i in 0..20_000 {
                // From 1e-300 to 1e300, dense around 1.
                let x = 10.0_f64.powi(i / 33 - 300) * (1.0 + f64::from(i % 33) / 3.7);
                let (got, want) = (f(x), x.ln_1p());
                // 2 ulp, and 1 of the library's.
                assert!((got - want).abs() <= 3.0 * f64::EPSILON * want, "{x:e}: {got:e} {want:e}");
            }
            assert_eq!((f(0.0), f(f64::INFINITY)), (0.0, f64::INFINITY));
            assert!(f(f64::NAN).is_nan());
        }
    }

    #[test]
    fn scaled_exp_shifts_the_exponent_alone() {
        for x in [0.0_f32, 3.7, 1000.25, -1000.25, 1900.0] {
            let k = (x * std::f32::consts::LOG2_E).round();
            let want = (f64::from(x) - f64::from(k) * std::f64::consts::LN_2).exp();
            for got in [s::exp_scaled::<true>(x, k as i32), s::exp_scaled::<false>(x, k as i32)] {
                assert!((f64::from(got) / want - 1.0).abs() < 1.5e-7, "{x}: {got} {want}");
            }
            let got = d::exp_scaled::<false>(f64::from(x), k as i32);
            assert!((got / want - 1.0).abs() < 1e-12);
        }
    }
}
