//! The skeleton of reductions: folds over any set of dims, accumulated so that neither digits nor
//! reproducibility are lost.
//!
//! A fold adds elements to lanes of their own type, four at most, and empties those into wider
//! accumulators. Lanes, blocks and segments have fixed places, so a result depends neither on the
//! number of threads nor on the instruction set's width. What is folded is in `ops/reduce.rs`.

use std::marker::PhantomData;

use rayon::prelude::*;
use smallvec::SmallVec;

use super::walk::{GRAIN, Walk, copy_strided};
use super::{Kernel, dispatch};
use crate::element::{Element, Float, Number};
use crate::shape::Shape;
use crate::tensor::Tensor;

const LANES: usize = 32;
/// Elements that go into the lanes before they are emptied into accumulators: 4 a lane, so that even
/// equal numbers, whose rounding errors all point one way, keep their digits.
const BLOCK: usize = 4 * LANES;
/// Strided elements gathered at a time.
const TILE: usize = 1024;
/// Elements of one task of a long fold.
const SEGMENT: usize = 64 << 10;
/// Columns that are folded together, and rows before they are emptied into accumulators.
const COLUMNS: usize = 64;
const ROWS: usize = 4;
/// Columns of a task: their accumulators fit the first cache, and a row of them fills a page or two.
const WIDTH: usize = 2048;
/// Rows shorter than this are folded side by side, as columns.
const SHORT: usize = 32;

/// How elements are combined: into lanes, now and then from lanes into accumulators, and accumulators
/// with each other. The constants are what folding nothing gives.
pub(crate) trait Fold<T> {
    type Lane: Copy;
    type Total: Copy;
    const LANE: Self::Lane;
    const TOTAL: Self::Total;
    fn step(lane: Self::Lane, x: T) -> Self::Lane;
    fn empty(total: Self::Total, lane: Self::Lane) -> Self::Total;
    fn join(a: Self::Total, b: Self::Total) -> Self::Total;
}

/// A fold of `T` into `A`, compiled.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct FoldFns<T, A> {
    pub(crate) slice: fn(&[T]) -> A,
    pub(crate) columns: fn(Columns<'_, T, A>),
    pub(crate) join: fn(A, A) -> A,
    pub(crate) nothing: A,
}

/// Rows of a strided matrix, `out.len()` elements wide, to be folded over.
pub(crate) struct Columns<'a, T, A> {
    pub(crate) data: &'a [T],
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) row_stride: isize,
    pub(crate) out: &'a mut [A],
}

/// The compiled functions of the fold `F`.
pub(crate) fn fold_fns<T: Element, F: Fold<T>>() -> FoldFns<T, F::Total> {
    FoldFns {
        slice: |x| dispatch(FoldSlice::<T, F>(x, PhantomData)),
        columns: |columns| dispatch(FoldColumns::<T, F>(columns)),
        join: F::join,
        nothing: F::TOTAL,
    }
}

/// [`fold_fns`] compiled once, for the baseline: for the types that are no floats.
pub(crate) fn fold_fns_once<T: Element, F: Fold<T>>() -> FoldFns<T, F::Total> {
    FoldFns {
        slice: |x| FoldSlice::<T, F>(x, PhantomData).run::<false>(),
        columns: |columns| FoldColumns::<T, F>(columns).run::<false>(),
        join: F::join,
        nothing: F::TOTAL,
    }
}

struct FoldSlice<'a, T, F>(&'a [T], PhantomData<F>);

impl<T: Element, F: Fold<T>> Kernel for FoldSlice<'_, T, F> {
    type Output = F::Total;
    #[inline(always)]
    fn run<const FMA: bool>(self) -> F::Total {
        let mut totals = [F::TOTAL; LANES];
        for block in self.0.chunks(BLOCK) {
            let mut lanes = [F::LANE; LANES];
            let (rows, tail) = block.as_chunks::<LANES>();
            for row in rows {
                for (lane, &x) in lanes.iter_mut().zip(row) {
                    *lane = F::step(*lane, x);
                }
            }
            for (lane, &x) in lanes.iter_mut().zip(tail) {
                *lane = F::step(*lane, x);
            }
            for (total, lane) in totals.iter_mut().zip(lanes) {
                *total = F::empty(*total, lane);
            }
        }
        tree(totals, F::join)
    }
}

/// Lanes joined pairwise: a fixed tree.
#[inline(always)]
pub(crate) fn tree<A: Copy, const N: usize>(mut lanes: [A; N], join: impl Fn(A, A) -> A) -> A {
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = join(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of lanes, pairwise.
#[inline(always)]
pub(crate) fn tree_sum<const N: usize>(lanes: [f64; N]) -> f64 {
    tree(lanes, |a, b| a + b)
}

struct FoldColumns<'a, T, F: Fold<T>>(Columns<'a, T, F::Total>);

impl<T: Element, F: Fold<T>> Kernel for FoldColumns<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let Columns { data, start, rows, row_stride, out } = self.0;
        let row = |r: usize| (start as isize + r as isize * row_stride) as usize;
        for first in (0..rows).step_by(ROWS) {
            let last = rows.min(first + ROWS);
            for (c, out) in out.chunks_mut(COLUMNS).enumerate() {
                let c = c * COLUMNS;
                let mut lanes = [F::LANE; COLUMNS];
                if out.len() == COLUMNS {
                    for r in first..last {
                        let x = &data[row(r) + c..][..COLUMNS];
                        for (lane, &x) in lanes.iter_mut().zip(x) {
                            *lane = F::step(*lane, x);
                        }
                    }
                } else {
                    for r in first..last {
                        let x = &data[row(r) + c..][..out.len()];
                        for (lane, &x) in lanes.iter_mut().zip(x) {
                            *lane = F::step(*lane, x);
                        }
                    }
                }
                for (o, lane) in out.iter_mut().zip(lanes) {
                    *o = F::empty(*o, lane);
                }
            }
        }
    }
}

/// A fold whose lanes and accumulators are one type and one formula.
macro_rules! folds {
    ($($(#[$doc:meta])* $name:ident<$bound:ident> $type:ty = $nothing:expr, |$a:ident, $x:ident| $step:expr, $join:expr;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;
        impl<T: $bound> Fold<T> for $name {
            type Lane = $type;
            type Total = $type;
            const LANE: $type = $nothing;
            const TOTAL: $type = $nothing;
            #[inline(always)]
            fn step($a: $type, $x: T) -> $type { $step }
            #[inline(always)]
            fn empty(a: $type, b: $type) -> $type { $join(a, b) }
            #[inline(always)]
            fn join(a: $type, b: $type) -> $type { $join(a, b) }
        }
    )+};
}

folds! {
    /// Sum in lanes of the accumulator's type.
    Count<Element> T::Accumulator = <T::Accumulator as Element>::ZERO,
        |a, x| a.plus(x.lift()), Number::plus;
    Product<Element> T::Accumulator = <T::Accumulator as Element>::ONE,
        |a, x| a.times(x.lift()), Number::times;
    Largest<Number> T = T::LOWEST, |a, x| a.larger(x), Number::larger;
    Smallest<Number> T = T::HIGHEST, |a, x| a.smaller(x), Number::smaller;
    Squares<Float> f64 = 0.0, |a, x| a + x.to_f64() * x.to_f64(), |a, b| a + b;
    Magnitudes<Float> f64 = 0.0, |a, x| a + x.to_f64().abs(), |a, b| a + b;
}

macro_rules! logical_folds {
    ($($name:ident = $nothing:literal $operator:tt;)+) => {$(
        pub(crate) struct $name;
        impl Fold<bool> for $name {
            type Lane = bool;
            type Total = bool;
            const LANE: bool = $nothing;
            const TOTAL: bool = $nothing;
            #[inline(always)]
            fn step(a: bool, x: bool) -> bool { a $operator x }
            #[inline(always)]
            fn empty(a: bool, b: bool) -> bool { a $operator b }
            #[inline(always)]
            fn join(a: bool, b: bool) -> bool { a $operator b }
        }
    )+};
}
logical_folds! { All = true &; Any = false |; }

/// Sum of floats: four in their own type, and then in `f64`.
pub(crate) struct Sum;
impl<T: Float> Fold<T> for Sum {
    type Lane = T;
    type Total = f64;
    const LANE: T = T::ZERO;
    const TOTAL: f64 = 0.0;
    #[inline(always)]
    fn step(lane: T, x: T) -> T {
        lane + x
    }
    #[inline(always)]
    fn empty(total: f64, lane: T) -> f64 {
        total + lane.to_f64()
    }
    #[inline(always)]
    fn join(a: f64, b: f64) -> f64 {
        a + b
    }
}

/// The fold of a contiguous run, split at fixed places.
fn fold_run<T: Element, A: Copy + Send>(x: &[T], fold: &FoldFns<T, A>) -> A {
    let join = |parts: Vec<A>| parts.into_iter().fold(fold.nothing, fold.join);
    if x.len() <= SEGMENT {
        (fold.slice)(x)
    } else if rayon::current_num_threads() == 1 {
        x.chunks(SEGMENT).map(fold.slice).fold(fold.nothing, fold.join)
    } else {
        // Collected first: rayon's own `reduce` would join in an order of its choice.
        join(x.par_chunks(SEGMENT).map(fold.slice).collect())
    }
}

/// Folds the dims where `reduced` says so; the result has the kept dims, in order.
pub(crate) fn reduce<T: Element, A: Copy + Send + Sync, B: Element>(
    x: &Tensor<T>,
    reduced: impl Fn(usize) -> bool,
    fold: &FoldFns<T, A>,
    finish: impl Fn(A) -> B + Sync,
) -> Tensor<B> {
    let (mut over_dims, kept_dims): (Vec<usize>, Vec<usize>) =
        (0..x.rank()).partition(|&d| reduced(d));
    // The dim of the smallest stride is the inner one of the reduction.
    over_dims.sort_by_key(|&d| std::cmp::Reverse(x.layout.strides[d].unsigned_abs()));
    let shape: Shape = kept_dims.iter().map(|&d| x.shape()[d]).collect();
    let mut over_layout = x.layout.permuted(&over_dims);
    over_layout.offset = 0;
    Tensor::build(shape, |out| {
        if x.numel() == 0 {
            return out.fill(finish(fold.nothing));
        }
        let plan = Plan {
            data: x.buffer.as_slice(),
            kept: Walk::new([&x.layout.permuted(&kept_dims)]),
            over: Walk::new([&over_layout]),
            fold,
        };
        plan.run(out, finish);
    })
}

/// A reduction that is about to happen: outputs at `kept`, each of the elements `over` from there.
struct Plan<'a, T, A> {
    data: &'a [T],
    kept: Walk<1>,
    over: Walk<1>,
    fold: &'a FoldFns<T, A>,
}

impl<T: Element, A: Copy + Send + Sync> Plan<'_, T, A> {
    fn run<B: Element>(mut self, out: &mut [B], finish: impl Fn(A) -> B + Sync) {
        let [kept_stride] = self.kept.inner();
        let (inner, stride) = self.over.pop();
        let threads =
            out.len() * self.over.count() * inner >= 2 * GRAIN && rayon::current_num_threads() > 1;
        let rows = if stride == 1 { inner >= SHORT } else { kept_stride != 1 && inner >= SHORT };
        if rows || out.len() == 1 {
            let row = |(i, out): (usize, &mut B)| {
                *out = finish(self.row(self.kept.at(i), inner, stride));
            };
            if threads && out.len() > 1 {
                let least = (GRAIN / (self.over.count() * inner)).max(1);
                out.par_iter_mut().enumerate().with_min_len(least).for_each(row);
            } else {
                out.iter_mut().enumerate().for_each(row);
            }
            return;
        }
        // Outputs beside each other, in tasks of a width that does not depend on threads.
        let (width, _) = self.kept.pop();
        let part = width.min(WIDTH);
        let parts = width.div_ceil(part);
        let task = |(task, out): (usize, &mut [B])| {
            let start = self.kept.at(task / parts) + (task % parts * part) as isize * kept_stride;
            let mut totals: SmallVec<[A; 64]> = SmallVec::from_elem(self.fold.nothing, out.len());
            for i in 0..self.over.count() {
                let start = start + self.over.at(i);
                self.columns(start, kept_stride, inner, stride, &mut totals);
            }
            out.iter_mut().zip(&totals).for_each(|(o, &total)| *o = finish(total));
        };
        if threads {
            out.par_chunks_mut(width).enumerate().for_each(|(row, out)| {
                let tasks = out.par_chunks_mut(part).enumerate();
                tasks.for_each(|(i, out)| task((row * parts + i, out)));
            });
        } else {
            for (row, out) in out.chunks_mut(width).enumerate() {
                let tasks = out.chunks_mut(part).enumerate();
                tasks.for_each(|(i, out)| task((row * parts + i, out)));
            }
        }
    }

    /// One output, from runs of `inner` elements.
    fn row(&self, start: isize, inner: usize, stride: isize) -> A {
        let mut total = self.fold.nothing;
        let mut tile = SmallVec::<[T; TILE]>::new();
        for i in 0..self.over.count() {
            let start = (start + self.over.at(i)) as usize;
            if stride == 1 {
                let run = fold_run(&self.data[start..start + inner], self.fold);
                total = (self.fold.join)(total, run);
                continue;
            }
            tile.resize(TILE.min(inner), T::ZERO);
            for done in (0..inner).step_by(TILE) {
                let tile = &mut tile[..TILE.min(inner - done)];
                let from = (start as isize + done as isize * stride) as usize;
                copy_strided(self.data, from, stride, tile);
                total = (self.fold.join)(total, (self.fold.slice)(tile));
            }
        }
        total
    }

    /// Outputs `kept_stride` apart, each from `inner` elements `stride` apart, into `totals`.
    fn columns(
        &self,
        start: isize,
        kept_stride: isize,
        inner: usize,
        stride: isize,
        totals: &mut [A],
    ) {
        let width = totals.len();
        // Rows of a task, by shape alone; a whole number of groups that meet in a lane.
        let segment = (SEGMENT / width).next_multiple_of(ROWS);
        let some_rows = |first: usize, totals: &mut [A]| {
            let rows = segment.min(inner - first);
            let start = start + first as isize * stride;
            if kept_stride == 1 {
                let (data, start) = (self.data, start as usize);
                let columns = Columns { data, start, rows, row_stride: stride, out: totals };
                return (self.fold.columns)(columns);
            }
            // Gathered, so that what is beside each other in the output is so in memory.
            let mut tile = [T::ZERO; ROWS * COLUMNS];
            for (c, out) in totals.chunks_mut(COLUMNS).enumerate() {
                let start = start + (c * COLUMNS) as isize * kept_stride;
                for first in (0..rows).step_by(ROWS) {
                    let n = ROWS.min(rows - first);
                    for (r, tile) in tile.chunks_mut(COLUMNS).enumerate().take(n) {
                        let from = (start + (first + r) as isize * stride) as usize;
                        copy_strided(self.data, from, kept_stride, &mut tile[..out.len()]);
                    }
                    let (data, row_stride) = (&tile, COLUMNS as isize);
                    (self.fold.columns)(Columns { data, start: 0, rows: n, row_stride, out });
                }
            }
        };
        if inner <= segment {
            return some_rows(0, totals);
        }
        let parts = (0..inner.div_ceil(segment)).into_par_iter().map(|i| {
            let mut part = vec![self.fold.nothing; width];
            some_rows(i * segment, &mut part);
            part
        });
        for part in parts.collect::<Vec<_>>() {
            totals.iter_mut().zip(part).for_each(|(t, p)| *t = (self.fold.join)(*t, p));
        }
    }
}
