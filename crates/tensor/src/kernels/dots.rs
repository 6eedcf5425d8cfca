//! Many dot products at once: a narrow product in which k is contiguous in both operands.
//!
//! The choice of this kernel, and the split into tasks, are made in [`skinny`](super::skinny).

use super::matmul::MatRef;
use super::skinny::{DEPTH, GROUP, Task};
use super::{Kernel, dispatch};
use crate::element::Float;

/// Rows of the big operand that [`Dots`] multiplies at a time.
const ROWS: usize = 4;
/// Sums whose lanes wait in memory, so that [`Totals`] has many to add up.
pub(super) const VECTORS: usize = 64;

/// The product of a task in which k is contiguous in both operands.
pub(super) fn dot_products<T: Float, const W: usize>(task: Task<'_, '_, T>) {
    let Task { big, small, mut out, accumulate } = task;
    let mut lanes = [[T::ZERO; W]; VECTORS];
    let mut quarters = [[T::ZERO; 4 * VECTORS]; 4];
    let mut totals = [T::ZERO; VECTORS];
    let step = VECTORS / small.columns.min(GROUP) / ROWS * ROWS;
    for first in (0..big.rows).step_by(step) {
        let rows = step.min(big.rows - first);
        for done in (0..small.columns).step_by(GROUP) {
            let s = GROUP.min(small.columns - done);
            let totals = &mut totals[..rows.div_ceil(ROWS) * ROWS * s];
            for block in (0..big.columns).step_by(DEPTH) {
                let columns = DEPTH.min(big.columns - block);
                let start = big.position(first, block);
                let big = MatRef { start, rows, columns, ..big };
                let start = small.position(block, done);
                let small = MatRef { start, rows: columns, columns: s, ..small };
                dispatch(Dots::<T, W> { big, small, lanes: &mut lanes });
                dispatch(Totals { lanes: &lanes, quarters: &mut quarters, totals });
                for (i, sums) in totals.as_chunks::<ROWS>().0.chunks_exact(s).enumerate() {
                    let n = ROWS.min(rows - i * ROWS);
                    out.put(first + i * ROWS, done, sums, n, accumulate || block > 0);
                }
            }
        }
    }
}

/// The lanes of some sums.
type Lanes<T, const W: usize> = [[T; W]; VECTORS];

/// Dot products of four rows of `big` at a time with up to four columns of `small`, where k is
/// contiguous in both, in `W` lanes each.
///
/// The lanes go to memory and [`Totals`] adds them up: in one function, LLVM's vectoriser starts
/// from the scalars at the end and makes scalar code of the loop.
struct Dots<'a, 'b, T, const W: usize> {
    big: MatRef<'a, T>,
    small: MatRef<'a, T>,
    lanes: &'b mut Lanes<T, W>,
}

impl<T: Float, const W: usize> Kernel for Dots<'_, '_, T, W> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Dots { big, small, lanes } = self;
        let (k, s) = (big.columns, small.columns);
        let column = |j: usize| &small.data[small.position(0, j.min(s - 1))..][..k];
        let y = [column(0), column(1), column(2), column(3)];
        for (b, first) in (0..big.rows).step_by(ROWS).enumerate() {
            let row = |r: usize| &big.data[big.position((first + r).min(big.rows - 1), 0)..][..k];
            let x = [row(0), row(1), row(2), row(3)];
            let place = b * ROWS * s;
            match s {
                1 => dots_1::<T, W, FMA>(x, &y, lanes, place),
                2 => dots_2::<T, W, FMA>(x, &y, lanes, place),
                3 => dots_3::<T, W, FMA>(x, &y, lanes, place),
                _ => dots_4::<T, W, FMA>(x, &y, lanes, place),
            }
        }
    }
}

/// A loop over `k` with named sums: LLVM vectorises these reliably, and arrays of them not.
macro_rules! dots {
    ($name:ident, $($column:literal)+: $($sum:ident = $s:literal $r:literal,)+) => {
        #[inline(always)]
        fn $name<'a, T: Float, const W: usize, const FMA: bool>(
            x: [&'a [T]; ROWS],
            y: &[&'a [T]; GROUP],
            lanes: &mut Lanes<T, W>,
            place: usize,
        ) {
            let n = x[0].len() / W;
            let tail = x[0].len() - n * W;
            let vectors = |x: &'a [T]| &x.as_chunks::<W>().0[..n];
            let xs = [vectors(x[0]), vectors(x[1]), vectors(x[2]), vectors(x[3])];
            let ys = [$(vectors(y[$column])),+];
            $(let mut $sum = [T::ZERO; W];)+
            for c in 0..n {
                $($sum = add_products::<T, W, FMA>($sum, &xs[$r][c], &ys[$s][c]);)+
            }
            for (to, sum) in lanes[place..].iter_mut().zip([$($sum),+]) {
                *to = sum;
            }
            if tail > 0 {
                $(for (i, (&x, &y)) in x[$r][n * W..].iter().zip(&y[$s][n * W..]).enumerate() {
                    let to = &mut lanes[place + $s * ROWS + $r][i];
                    *to = x.mul_add::<FMA>(y, *to);
                })+
            }
        }
    };
}

dots! { dots_1, 0: a = 0 0, b = 0 1, c0 = 0 2, d = 0 3, }
dots! { dots_2, 0 1: a = 0 0, b = 0 1, c0 = 0 2, d = 0 3, e = 1 0, f = 1 1, g = 1 2, h = 1 3, }
dots! { dots_3, 0 1 2:
    a = 0 0, b = 0 1, c0 = 0 2, d = 0 3, e = 1 0, f = 1 1, g = 1 2, h = 1 3,
    i = 2 0, j = 2 1, k = 2 2, l = 2 3,
}
dots! { dots_4, 0 1 2 3:
    a = 0 0, b = 0 1, c0 = 0 2, d = 0 3, e = 1 0, f = 1 1, g = 1 2, h = 1 3,
    i = 2 0, j = 2 1, k = 2 2, l = 2 3, m = 3 0, o = 3 1, p = 3 2, q = 3 3,
}

#[inline(always)]
fn add_products<T: Float, const W: usize, const FMA: bool>(
    mut sum: [T; W],
    x: &[T; W],
    y: &[T; W],
) -> [T; W] {
    for i in 0..W {
        sum[i] = x[i].mul_add::<FMA>(y[i], sum[i]);
    }
    sum
}

/// The sum of each array of lanes, pairwise.
struct Totals<'a, T, const W: usize> {
    lanes: &'a Lanes<T, W>,
    /// Quarter `q` of the lanes of sum `v` goes to `[q][4v..]`: then adding up is one long loop.
    quarters: &'a mut [[T; 4 * VECTORS]; 4],
    totals: &'a mut [T],
}

impl<T: Float, const W: usize> Kernel for Totals<'_, T, W> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Totals { lanes, quarters, totals } = self;
        for (v, lanes) in lanes[..totals.len()].iter().enumerate() {
            for q in 0..W / 4 {
                quarters[q][4 * v..][..4].copy_from_slice(&lanes[4 * q..][..4]);
            }
        }
        let [a, b, c, d] = quarters;
        let used = 4 * totals.len();
        let pairs = a[..used].iter_mut().zip(&b[..used]);
        if W == 8 {
            pairs.for_each(|(a, &b)| *a += b);
        } else {
            let other = c[..used].iter().zip(&d[..used]);
            pairs.zip(other).for_each(|((a, &b), (&c, &d))| *a = (*a + c) + (b + d));
        }
        for (total, x) in totals.iter_mut().zip(a.as_chunks::<4>().0) {
            *total = (x[0] + x[2]) + (x[1] + x[3]);
        }
    }
}
