//! Products in which one operand is narrow: `s` columns (or rows), and the other one, the *big* one,
//! `long × k`. Each element of the big operand is used `s` times only, so that packing it, as the
//! `gemm` crate does, costs too much, and not packing it costs strided loads.
//!
//! Two kernels read the big operand as it lies. [`dots`] (k contiguous) makes dot products of four
//! rows with up to four columns, in fixed lanes; [`Outer`] (the long dim contiguous) adds a few rows,
//! each times `s` numbers, to a panel of sums in the cache. What an output's sum is made of, and in
//! which order, depends on k alone: neither the split into tasks nor the number of threads changes a
//! bit. Where no dim of the big operand is contiguous the `gemm` crate is left to it.

use std::array::from_fn;

use rayon::prelude::*;
use smallvec::SmallVec;

use super::dots::{self, dot_products};
use super::matmul::MatRef;
use super::{Kernel, dispatch};
use crate::element::Float;

/// Columns of the small operand that are multiplied at a time.
pub(super) const GROUP: usize = 4;
/// The most columns that [`Outer`] takes.
const PANEL: usize = 8;
/// Sums of a column that [`Outer`] keeps in the first cache.
const WIDTH: usize = 256;
/// Terms that are summed before the sum is added to the result: it bounds the chains of roundings,
/// at 128 in the lanes of [`dots`] and 512 in the panel of [`Outer`].
pub(super) const DEPTH: usize = 2048;
/// Long dims below this are never worth a look.
const SHORTEST: usize = 64;
/// Multiply-adds of a task, and from twice as many on there is more than one.
const GRAIN: usize = 512 << 10;

/// Whether a product is faster here, by sizes and strides alone. `by_rows`: the small operand is the
/// left one.
///
/// Measured against the `gemm` crate on one Zen 4 core with AVX-512, f32 and f64, as ratios of median
/// speeds: left operands of 2 to 128 rows times a transposed matrix 1.1 to 28 (`x·wᵀ` of 16 × 512 ×
/// 512: 5.9), narrow right ones 1.1 to 4.5, and outside these limits mostly 0.3 to 1. A vector times
/// a matrix is faster (1.4) only from memory, the crate's own kernel for it being good in the cache;
/// a left operand of few rows times a matrix that is not transposed is never (0.6).
fn pays<T>(big: &MatRef<'_, T>, small: &MatRef<'_, T>, by_rows: bool) -> bool {
    let (long, k, s) = (big.rows, big.columns, small.columns);
    let work = long * k * s;
    let double = size_of::<T>() == 8;
    let dots = big.column_stride == 1;
    match (s, by_rows) {
        (1, _) => dots && work >= 4 << 20,
        (2..=128, true) => {
            let large = long * k >= 2048 * s && work >= 64 << 10;
            dots && long >= 128 && k >= 64.max(8 * s) && large
        }
        (2..=10, false) if double && s > 4 => false,
        (2..=10, false) if dots => {
            // The crate does well with a short left operand if the right one is transposed.
            k >= 32 * s && long >= if small.row_stride == 1 { 128 } else { SHORTEST }
        }
        (2..=PANEL, false) => big.row_stride == 1 && k >= 8,
        _ => false,
    }
}

/// Where the sums of one task go: element `(l, s)` of the result.
pub(super) enum Out<'a, T> {
    /// `[s][l]`
    Rows(SmallVec<[&'a mut [T]; PANEL]>),
    /// `[l·count + s]`
    Interleaved(&'a mut [T], usize),
}

impl<T: Float> Out<'_, T> {
    /// Puts the first `n` of each of `sums[j]` at the elements `(l.., s + j)`.
    #[inline(always)]
    pub(super) fn put<const N: usize>(
        &mut self,
        l: usize,
        s: usize,
        sums: &[[T; N]],
        n: usize,
        add: bool,
    ) {
        match self {
            Out::Rows(rows) => {
                for (row, sums) in rows[s..].iter_mut().zip(sums) {
                    for (o, &x) in row[l..].iter_mut().zip(&sums[..n]) {
                        *o = if add { *o + x } else { x };
                    }
                }
            }
            Out::Interleaved(all, count) => {
                for (i, row) in all[l * *count..].chunks_exact_mut(*count).take(n).enumerate() {
                    for (o, sums) in row[s..].iter_mut().zip(sums) {
                        *o = if add { *o + sums[i] } else { sums[i] };
                    }
                }
            }
        }
    }
}

/// Rows of the big operand times the small one.
pub(super) struct Task<'a, 'b, T> {
    /// `long × k`.
    pub(super) big: MatRef<'a, T>,
    /// `k × s`.
    pub(super) small: MatRef<'a, T>,
    pub(super) out: Out<'b, T>,
    pub(super) accumulate: bool,
}

/// Computes `dst = lhs·rhs` (or `+=`) if it is faster here; says whether it did. The caller has
/// checked the operands; nothing is empty.
pub(super) fn gemm<T: Float>(
    dst: &mut [T],
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    accumulate: bool,
) -> bool {
    let by_rows = lhs.rows < rhs.columns;
    if lhs.rows.max(rhs.columns) < SHORTEST {
        return false;
    }
    let (big, small) = if by_rows { (rhs.t(), lhs.t()) } else { (lhs, rhs) };
    let here = pays(&big, &small, by_rows);
    if here {
        multiply(dst, big, small, by_rows, accumulate);
    }
    here
}

/// `dst (+)= big·small`, or its transpose where `by_rows`. One dim of `big` is contiguous: that of k,
/// or that of the rows if `small` has at most `PANEL` columns.
fn multiply<T: Float>(
    dst: &mut [T],
    big: MatRef<'_, T>,
    small: MatRef<'_, T>,
    by_rows: bool,
    accumulate: bool,
) {
    let (long, k, s) = (big.rows, big.columns, small.columns);
    let dots = big.column_stride == 1;
    let mut packed: SmallVec<[T; 256]> = SmallVec::new();
    let small = if dots && small.row_stride != 1 {
        for j in 0..s {
            packed.extend((0..k).map(|l| small.data[small.position(l, j)]));
        }
        MatRef { data: &packed, start: 0, row_stride: 1, column_stride: k as isize, ..small }
    } else {
        small
    };
    let run = |big: MatRef<'_, T>, out: Out<'_, T>| {
        let mut task = Task { big, small, out, accumulate };
        match (dots, size_of::<T>()) {
            (false, _) => dispatch(Outer(&mut task)),
            (true, 4) => dot_products::<T, 16>(task),
            (true, _) => dot_products::<T, 8>(task),
        }
    };
    if long * k * s < 2 * GRAIN || rayon::current_num_threads() == 1 {
        let out = if by_rows {
            Out::Rows(dst.chunks_mut(long).collect())
        } else {
            Out::Interleaved(dst, s)
        };
        return run(big, out);
    }
    let width = GRAIN.div_ceil(k * s).next_multiple_of(if dots { dots::VECTORS } else { WIDTH });
    let outs: Vec<_> = if by_rows {
        let mut rows: Vec<_> = dst.chunks_mut(long).map(|row| row.chunks_mut(width)).collect();
        let part = |_| Out::Rows(rows.iter_mut().filter_map(Iterator::next).collect());
        (0..long.div_ceil(width)).map(part).collect()
    } else {
        dst.chunks_mut(width * s).map(|out| Out::Interleaved(out, s)).collect()
    };
    outs.into_par_iter().enumerate().for_each(|(i, out)| {
        let first = i * width;
        let start = big.position(first, 0);
        run(MatRef { start, rows: width.min(long - first), ..big }, out);
    });
}

/// The long dim is contiguous in `big`: four of its rows of k at a time are added to a panel of sums.
/// By reference: a list that ended in the vector wrapper would be freed there.
struct Outer<'t, 'a, 'b, T>(&'t mut Task<'a, 'b, T>);

impl<T: Float> Kernel for Outer<'_, '_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let &mut Task { big, small, ref mut out, accumulate } = self.0;
        let (k, s) = (big.columns, small.columns);
        for first in (0..big.rows).step_by(WIDTH) {
            let width = WIDTH.min(big.rows - first);
            let row = |l: usize| &big.data[big.position(first, l)..][..width];
            for block in (0..k).step_by(DEPTH) {
                let end = k.min(block + DEPTH);
                let mut panel = [[T::ZERO; WIDTH]; PANEL];
                let mut l = block;
                while l < end {
                    let deep = if l + 4 <= end { 4 } else { 1 };
                    for done in (0..s).step_by(GROUP) {
                        let panel = &mut panel[done..];
                        let small = MatRef { start: small.position(l, done), ..small };
                        match s - done {
                            1 => add_rows::<T, 1, FMA>(l, deep, row, small, panel),
                            2 => add_rows::<T, 2, FMA>(l, deep, row, small, panel),
                            3 => add_rows::<T, 3, FMA>(l, deep, row, small, panel),
                            _ => add_rows::<T, 4, FMA>(l, deep, row, small, panel),
                        }
                    }
                    l += deep;
                }
                out.put(first, 0, &panel[..s], width, accumulate || block > 0);
            }
        }
    }
}

/// Adds the rows from `first` on, `deep` (4 or 1) in number, each times the numbers of a row of
/// `small`, to `S` rows of `panel`.
#[inline(always)]
fn add_rows<'a, T: Float, const S: usize, const FMA: bool>(
    first: usize,
    deep: usize,
    row: impl Fn(usize) -> &'a [T],
    small: MatRef<'_, T>,
    panel: &mut [[T; WIDTH]],
) {
    let Some(panel) = panel.first_chunk_mut::<S>() else { unreachable!("bug: too few sums") };
    let factors = |d: usize| from_fn(|s| small.data[small.position(d, s)]);
    if deep == 4 {
        let rows = [row(first), row(first + 1), row(first + 2), row(first + 3)];
        add_products_of::<T, S, 4, FMA>(rows, from_fn(factors), panel);
    } else {
        add_products_of::<T, S, 1, FMA>([row(first)], [factors(0)], panel);
    }
}

/// LLVM vectorises the loop over `l`.
#[inline(always)]
fn add_products_of<T: Float, const S: usize, const D: usize, const FMA: bool>(
    rows: [&[T]; D],
    factors: [[T; S]; D],
    panel: &mut [[T; WIDTH]; S],
) {
    let width = rows[0].len().min(WIDTH);
    let rows: [&[T]; D] = from_fn(|d| &rows[d][..width]);
    for l in 0..width {
        for s in 0..S {
            let mut sum = rows[0][l] * factors[0][s];
            for d in 1..D {
                sum = rows[d][l].mul_add::<FMA>(factors[d][s], sum);
            }
            panel[s][l] += sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, so that the sums are exact in any order, in a place of their own.
    fn whole<T: Float>(len: usize, step: usize) -> Vec<T> {
        (0..len).map(|i| T::from_f64((i * step % 11) as f64 - 5.0)).collect()
    }

    fn matrix<T>(data: &[T], rows: usize, columns: usize, strides: [isize; 2]) -> MatRef<'_, T> {
        let reach = |n: usize, stride: isize| (n as isize - 1) * stride.min(0);
        let low = reach(rows, strides[0]) + reach(columns, strides[1]);
        MatRef { start: 3 + low.unsigned_abs(), ..matrix_at(data, rows, columns, strides) }
    }

    fn at<T: Float>(x: MatRef<'_, T>, i: usize, j: usize) -> T {
        x.data[x.position(i, j)]
    }

    fn check<T: Float>(long: usize, k: usize, s: usize) {
        let data = whole::<T>(2 * (long + 3) * (k + 3) + 8, 7);
        let other = whole::<T>(2 * (s + 3) * (k + 3) + 8, 3);
        let [l, w, n] = [long as isize, k as isize, s as isize];
        let bigs = [[w, 1], [w + 3, 1], [-w, 1], [0, 1], [1, l], [1, l + 2], [1, -l], [1, 0]];
        let smalls = [[n, 1], [1, w], [2 * n, 2], [-1, w], [n + 1, -1], [0, 1], [1, 0], [0, 0]];
        let pairs = bigs.iter().flat_map(|b| smalls.iter().map(move |s| (*b, *s)));
        for (big, small) in pairs.step_by(if cfg!(miri) { 23 } else { 1 }) {
            if big[1] != 1 && s > PANEL {
                continue;
            }
            let (big, small) = (matrix(&data, long, k, big), matrix(&other, k, s, small));
            let sum = |i: usize, j: usize| {
                (0..k).fold(T::ZERO, |sum, c| sum + at(big, i, c) * at(small, c, j))
            };
            for (by_rows, accumulate) in
                [(true, false), (true, true), (false, false), (false, true)]
            {
                let stale = if accumulate { T::ONE } else { T::INFINITY };
                let mut dst = vec![stale; long * s];
                multiply(&mut dst, big, small, by_rows, accumulate);
                for (p, &found) in dst.iter().enumerate() {
                    let (i, j) = if by_rows { (p % long, p / long) } else { (p / s, p % s) };
                    let wanted = if accumulate { T::ONE + sum(i, j) } else { sum(i, j) };
                    assert_eq!(
                        found, wanted,
                        "{big:?} {small:?} {by_rows} {accumulate} at {i} {j}"
                    );
                }
            }
        }
    }

    #[test]
    fn matches_naive() {
        let sizes: &[usize] = if cfg!(miri) { &[5] } else { &[1, 3, 8, 17, 33, 65] };
        for &long in sizes {
            for &k in sizes {
                for s in if cfg!(miri) { vec![3] } else { (1..=9).collect() } {
                    check::<f32>(long, k, s);
                    check::<f64>(long, k, s);
                }
            }
        }
    }

    #[test]
    fn long_operands_are_split_and_summed_again() {
        if cfg!(miri) {
            return; // long, and nothing here is unsafe
        }
        for (long, k, s) in [(257, 127, 2), (300, DEPTH + 33, 1), (10, 2 * DEPTH, 5), (1000, 3, 8)]
        {
            check::<f32>(long, k, s);
        }
        check::<f64>(64, 127, 64);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        if cfg!(miri) {
            return; // threads are rayon's, and nothing here is unsafe
        }
        let (long, k, s) = (3000, 150, 6);
        let uneven = |len: usize| (0..len).map(|i| ((i * 37 % 101) as f32).sqrt() - 5.0);
        let (data, other): (Vec<_>, Vec<_>) = (uneven(long * k).collect(), uneven(k * s).collect());
        let strides = [k as isize, long as isize];
        for big in [[strides[0], 1], [1, strides[1]]] {
            let big = matrix_at(&data, long, k, big);
            let small = matrix_at(&other, k, s, [s as isize, 1]);
            for by_rows in [true, false] {
                let run = |threads: usize| {
                    let pool =
                        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut dst = vec![0.0; long * s];
                    pool.install(|| multiply(&mut dst, big, small, by_rows, false));
                    dst.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let one = run(1);
                assert!(run(2) == one && run(4) == one);
            }
        }
    }

    #[test]
    fn long_sums_keep_their_digits() {
        let k = if cfg!(miri) { 50 } else { 100_000 };
        // A tenth is no binary fraction: every rounding errs in the same direction.
        let (x, y) = (vec![0.1_f32; 8 * k], vec![1.0_f32; k]);
        let small = matrix_at(&y, k, 1, [1, 1]);
        for big in [matrix_at(&x, 8, k, [k as isize, 1]), matrix_at(&x, 8, k, [1, 8])] {
            let mut dst = vec![0.0; 8];
            multiply(&mut dst, big, small, false, false);
            let wanted = f64::from(0.1_f32) * k as f64;
            for found in dst {
                // At most 600 additions in a chain, each to half an ulp: 3.6e-5, were they all equal.
                assert!((f64::from(found) / wanted - 1.0).abs() < 3.6e-5, "{found}");
            }
        }
    }

    fn matrix_at<T>(data: &[T], rows: usize, columns: usize, strides: [isize; 2]) -> MatRef<'_, T> {
        let [row_stride, column_stride] = strides;
        MatRef { data, start: 0, rows, columns, row_stride, column_stride }
    }
}
