//! Products of small matrices, where a call of the `gemm` crate (0.2 µs) takes longer than the sums.
//!
//! Rows of the right operand are vectors as they lie: its columns must be contiguous, and 8, 16 or 32
//! in number. Everything else is left to others.

use super::matmul::MatRef;
use super::{Kernel, dispatch};
use crate::element::Float;

/// The most rows of either operand. At 8 × 8 × 8 this is 3.8 times as fast as the crate in f32 (2.3 in
/// f64), at 16 × 16 × 16 1.6 times (1.5), at 32 × 32 × 32 as fast: one Zen 4 core with AVX-512.
const LARGEST: usize = 24;
/// Rows that are summed at a time.
const ROWS: usize = 4;

/// Computes `dst = lhs·rhs` (or `+=`) if it is faster here; says whether it did. The caller has
/// checked the operands; nothing is empty.
pub(super) fn gemm<T: Float>(
    dst: &mut [T],
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    accumulate: bool,
) -> bool {
    let (m, k, n) = (lhs.rows, lhs.columns, rhs.columns);
    let direct = rhs.column_stride == 1 && (lhs.column_stride == 1 || lhs.row_stride == 1);
    if !direct || m > LARGEST || k > LARGEST {
        return false;
    }
    let product = Product { dst, lhs, rhs, accumulate };
    match n {
        8 => dispatch(Small::<T, 8>(product)),
        16 | 32 => dispatch(Small::<T, 16>(product)),
        _ => return false,
    }
    true
}

struct Product<'a, 'b, T> {
    dst: &'b mut [T],
    lhs: MatRef<'a, T>,
    rhs: MatRef<'a, T>,
    accumulate: bool,
}

/// Four rows by `W` columns at a time.
struct Small<'a, 'b, T, const W: usize>(Product<'a, 'b, T>);

impl<T: Float, const W: usize> Kernel for Small<'_, '_, T, W> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Product { dst, lhs, rhs, accumulate } = self.0;
        let (m, k, n) = (lhs.rows, lhs.columns, rhs.columns);
        for column in (0..n).step_by(W) {
            let b = |l: usize| rhs.data[rhs.position(l, column)..].first_chunk::<W>();
            for first in (0..m).step_by(ROWS) {
                let sums = if lhs.column_stride == 1 {
                    let row = |r: usize| &lhs.data[lhs.position((first + r).min(m - 1), 0)..][..k];
                    let rows = [row(0), row(1), row(2), row(3)];
                    sum_rows::<T, W, FMA>(
                        k,
                        |l| [rows[0][l], rows[1][l], rows[2][l], rows[3][l]],
                        b,
                    )
                } else {
                    let last = m - 1 - first;
                    let four = |l: usize| {
                        let x = &lhs.data[lhs.position(first, l)..][..=last];
                        [x[0], x[last.min(1)], x[last.min(2)], x[last.min(3)]]
                    };
                    sum_rows::<T, W, FMA>(k, four, b)
                };
                for (i, sums) in (first..m).zip(sums) {
                    let out = &mut dst[i * n + column..][..W];
                    if accumulate {
                        out.iter_mut().zip(sums).for_each(|(o, x)| *o += x);
                    } else {
                        out.copy_from_slice(&sums);
                    }
                }
            }
        }
    }
}

/// `Σ_l a(l)·b(l)`, an outer product each.
#[inline(always)]
fn sum_rows<'a, T: Float, const W: usize, const FMA: bool>(
    k: usize,
    a: impl Fn(usize) -> [T; ROWS],
    b: impl Fn(usize) -> Option<&'a [T; W]>,
) -> [[T; W]; ROWS] {
    // Named, not an array: those LLVM keeps in vector registers.
    let [mut s0, mut s1, mut s2, mut s3] = [[T::ZERO; W]; ROWS];
    for l in 0..k {
        let Some(b) = b(l) else { unreachable!("bug: a row of the matrix is outside its buffer") };
        let [a0, a1, a2, a3] = a(l);
        s0 = add_times::<T, W, FMA>(s0, a0, b);
        s1 = add_times::<T, W, FMA>(s1, a1, b);
        s2 = add_times::<T, W, FMA>(s2, a2, b);
        s3 = add_times::<T, W, FMA>(s3, a3, b);
    }
    [s0, s1, s2, s3]
}

#[inline(always)]
fn add_times<T: Float, const W: usize, const FMA: bool>(
    mut sum: [T; W],
    a: T,
    b: &[T; W],
) -> [T; W] {
    for i in 0..W {
        sum[i] = a.mul_add::<FMA>(b[i], sum[i]);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, so that the sums are exact in any order.
    fn whole<T: Float>(len: usize, step: usize) -> Vec<T> {
        (0..len).map(|i| T::from_f64((i * step % 11) as f64 - 5.0)).collect()
    }

    fn check<T: Float>(m: usize, k: usize, n: usize) {
        let (a, b) = (whole::<T>(2 * (m + 2) * (k + 2), 7), whole::<T>(2 * (k + 1) * (n + 2), 3));
        let (rows, width) = (m as isize, k as isize);
        for [row_stride, column_stride] in
            [[width, 1], [-width, 1], [0, 1], [1, rows + 2], [1, -rows]]
        {
            let back = |n: usize, stride: isize| (n - 1) * stride.min(0).unsigned_abs();
            let start = back(m, row_stride) + back(k, column_stride);
            let lhs = MatRef { data: &a, start, rows: m, columns: k, row_stride, column_stride };
            for row_stride in [n as isize, n as isize + 1, 0, -(n as isize)] {
                let start = back(k, row_stride);
                let rhs =
                    MatRef { data: &b, start, rows: k, columns: n, row_stride, column_stride: 1 };
                let at = |x: &MatRef<'_, T>, i, j| x.data[x.position(i, j)];
                for accumulate in [false, true] {
                    let stale = if accumulate { T::ONE } else { T::INFINITY };
                    let mut dst = vec![stale; m * n];
                    assert!(gemm(&mut dst, lhs, rhs, accumulate));
                    for (p, &found) in dst.iter().enumerate() {
                        let zero = if accumulate { T::ONE } else { T::ZERO };
                        let terms = (0..k).map(|l| at(&lhs, p / n, l) * at(&rhs, l, p % n));
                        assert_eq!(
                            found,
                            terms.fold(zero, |sum, x| sum + x),
                            "{lhs:?} {rhs:?} {p}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn matches_naive() {
        let sizes: &[usize] = if cfg!(miri) { &[3] } else { &[1, 2, 3, 4, 5, 7, 8, 9, 16, 23] };
        for &m in sizes {
            for &k in sizes {
                for n in [8, 16, 32] {
                    check::<f32>(m, k, n);
                    check::<f64>(m, k, n);
                }
            }
        }
    }
}
