//! Rows of exponentials: softmax, its logarithm, and weighted log-likelihoods of classes.
//!
//! For a row x the exponentials are `e_k = exp(x_k − shift)·2⁻ᴷ` with an integer K near
//! max·log₂e, so that the largest lies in [0.7, 1.42]. The shift of the exponent is exact; the shift
//! by subtraction is 0, except for rows whose maximum is too large for the exact way. Sums leave out
//! one entry (the target, or the maximum), so that `1 − p` of a confident row keeps its digits.
//! Elements are added in 16 lanes of their own type, four at most, then in `f64`; logarithms are taken in
//! `f64` once a row, outside the vector code.
//! Sources: Dukhan & Ablavatski, arXiv 2001.04438 (exponent shift); Blanchard, Higham & Higham, IMA
//! J. Numer. Anal. 41 (2021) (error analysis).

use rayon::prelude::*;

use super::Kernel;
use super::elementwise::Walk;
use super::reduce::tree_sum;
use crate::element::{Element, Float};
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

const LANES: usize = 16;
/// Tiles of [`LANES`] elements that are added in the element type before `f64` takes over: few, so
/// that even equal terms, whose rounding errors all point one way, keep their digits.
const TILES: usize = 4;
/// The sums take exponentials this many powers of two larger, so that terms far below the largest
/// (to a gap of 129 in `f32`) are still normal numbers.
const LIFT: i32 = 60;
/// Elements of a task; smaller problems stay on one thread.
const GRAIN: usize = 16 << 10;

/// What a row's softmax follows from: `Σ_k exp(x_k) = (rest + picked)·2ᴷ·exp(shift)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowSums {
    /// The exponential of the entry left out of `rest`.
    pub picked: f64,
    /// The sum of the other exponentials. NaN in a row with NaN, +∞, or nothing but −∞.
    pub rest: f64,
    shift: f64,
    k: i32,
    max: f64,
    /// The exponential of `max`.
    top: f64,
    /// `Σ_k w_k·(max − x_k)`, where it was asked for.
    below: f64,
}

impl RowSums {
    /// `ln Σ exp(x_k) − max`, at least 0.
    fn lse_above_max(&self) -> f64 {
        ((self.rest + self.picked) / self.top).ln()
    }

    /// The place of the maximum, where its share is more than half.
    fn dominant<T: Float>(&self, x: &[T]) -> Option<usize> {
        if self.rest < self.picked { x.iter().position(|v| v.to_f64() == self.max) } else { None }
    }
}

/// Rows of equal length in a slice, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, T> {
    data: &'a [T],
    stride: usize,
    classes: usize,
}

impl<'a, T> Block<'a, T> {
    #[inline(always)]
    fn row(&self, r: usize) -> &'a [T] {
        &self.data[r * self.stride..][..self.classes]
    }
}

/// What the sums leave out of `rest`.
#[derive(Clone, Copy)]
pub(crate) enum Pick<'a> {
    /// One entry that has the row's maximum.
    Max,
    /// The class of each row; rows of a negative class are skipped.
    Class(&'a [i64]),
}

/// The smoothing part of a loss.
#[derive(Clone, Copy)]
pub(crate) enum Below<'a, T> {
    Skip,
    Uniform,
    Weighted(&'a [T]),
}

/// Input of the first pass over some rows.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct SumRows<'a, T> {
    pub(crate) x: Block<'a, T>,
    pub(crate) pick: Pick<'a>,
    pub(crate) below: Below<'a, T>,
}

/// The first pass.
pub(crate) struct Sums<'a, 'o, T> {
    pub(crate) rows: SumRows<'a, T>,
    pub(crate) out: &'o mut [RowSums],
}

/// Shift and lower bound of a row, from its maximum.
#[derive(Clone, Copy)]
struct Frame<T> {
    shift: T,
    k: i32,
    /// Arguments below this have exponential 0; larger ones have an exact exponent.
    low: T,
}

impl<T: Float> Frame<T> {
    /// The frame in which the exponential of `max` is between 0.7 and 1.42.
    #[inline(always)]
    fn new<const FMA: bool>(max: T) -> Self {
        let k = max * T::from_f64(std::f64::consts::LOG2_E);
        // Up to here n·ln 2 is subtracted without rounding: see `math`.
        let limit = if size_of::<T>() == 4 && !FMA { 2048.0 } else { 1_048_576.0 };
        if max.abs() <= T::from_f64(limit) {
            // Rounded to an integer; exact, since |k| < 2²¹.
            let k = (k.to_f64() + 6_755_399_441_055_744.0) - 6_755_399_441_055_744.0;
            Self::at(T::ZERO, k as i32)
        } else {
            Self::at(max, 0)
        }
    }

    #[inline(always)]
    fn at(shift: T, k: i32) -> Self {
        // Below this the exponential, times 2⁻ᴷ, is under the smallest normal number.
        let exponent = if size_of::<T>() == 4 { -130 } else { -1030 };
        let low = f64::from(k + exponent) * std::f64::consts::LN_2;
        Frame { shift, k, low: T::from_f64(low) }
    }

    /// The same row with exponentials 2^LIFT times as large.
    #[inline(always)]
    fn lifted(self) -> Self {
        Self::at(self.shift, self.k - LIFT)
    }

    #[inline(always)]
    fn exp<const FMA: bool>(&self, x: T) -> T {
        let x = x - self.shift;
        // −∞ and far smaller values end here, and come out as 0.
        let x = if x < self.low { self.low } else { x };
        x.vexp_scaled::<FMA>(self.k)
    }
}

/// `tail` padded to a whole tile.
#[inline(always)]
fn padded<T: Copy>(tail: &[T], pad: T) -> [T; LANES] {
    let mut tile = [pad; LANES];
    for (t, &x) in tile.iter_mut().zip(tail) {
        *t = x;
    }
    tile
}

#[inline(always)]
fn empty_into<T: Float>(sums: &mut [f64; LANES], lanes: [T; LANES]) {
    for (s, l) in sums.iter_mut().zip(lanes) {
        *s += l.to_f64();
    }
}

/// The maximum of a row and whether it contains NaN.
#[inline(always)]
fn row_max<T: Float>(x: &[T]) -> (T, bool) {
    let (tiles, tail) = x.as_chunks::<LANES>();
    let tail = [padded(tail, -T::INFINITY)];
    let mut max = [-T::INFINITY; LANES];
    let mut nan = [false; LANES];
    for part in [tiles, &tail] {
        for tile in part {
            for i in 0..LANES {
                max[i] = if tile[i] > max[i] { tile[i] } else { max[i] };
                #[expect(clippy::eq_op, reason = "only NaN differs from itself; vectorises")]
                let is_nan = tile[i] != tile[i];
                nan[i] |= is_nan;
            }
        }
    }
    let max = max.into_iter().fold(-T::INFINITY, |a, b| if b > a { b } else { a });
    (max, nan.into_iter().any(|n| n))
}

/// Sum of the exponentials of `tiles`; with `WITHOUT_MAX` entries equal to `max` count 0, and
/// `ties` counts them.
#[inline(always)]
fn sum_tiles<T: Float, const FMA: bool, const WITHOUT_MAX: bool>(
    tiles: &[[T; LANES]],
    frame: Frame<T>,
    max: T,
    ties: &mut f64,
) -> f64 {
    let mut sums = [0.0; LANES];
    let mut tie_sums = [0.0; LANES];
    for block in tiles.chunks(TILES) {
        let mut lanes = [T::ZERO; LANES];
        let mut equal = [T::ZERO; LANES];
        for tile in block {
            for i in 0..LANES {
                let e = frame.exp::<FMA>(tile[i]);
                if WITHOUT_MAX {
                    let top = tile[i] == max;
                    lanes[i] += if top { T::ZERO } else { e };
                    equal[i] += if top { T::ONE } else { T::ZERO };
                } else {
                    lanes[i] += e;
                }
            }
        }
        empty_into(&mut sums, lanes);
        if WITHOUT_MAX {
            empty_into(&mut tie_sums, equal);
        }
    }
    if WITHOUT_MAX {
        *ties += tree_sum(tie_sums);
    }
    tree_sum(sums)
}

/// `Σ w_k·(max − x_k)`, where a weight of 0 makes the term 0 whatever `x_k` is.
#[inline(always)]
fn sum_below<T: Float>(x: &[T], weight: Option<&[T]>, max: T) -> f64 {
    let (tiles, tail) = x.as_chunks::<LANES>();
    let tail_x = [padded(tail, max)];
    let mut sums = [0.0; LANES];
    match weight {
        None => {
            for part in [tiles, &tail_x] {
                for block in part.chunks(TILES) {
                    let mut lanes = [T::ZERO; LANES];
                    for tile in block {
                        for i in 0..LANES {
                            lanes[i] += max - tile[i];
                        }
                    }
                    empty_into(&mut sums, lanes);
                }
            }
        }
        Some(weight) => {
            let (w_tiles, w_tail) = weight.as_chunks::<LANES>();
            let tail_w = [padded(w_tail, T::ZERO)];
            for (part, w_part) in [(tiles, w_tiles), (&tail_x[..], &tail_w[..])] {
                for (block, w_block) in part.chunks(TILES).zip(w_part.chunks(TILES)) {
                    let mut lanes = [T::ZERO; LANES];
                    for (tile, w) in block.iter().zip(w_block) {
                        for i in 0..LANES {
                            let term = w[i] * (max - tile[i]);
                            lanes[i] += if w[i] == T::ZERO { T::ZERO } else { term };
                        }
                    }
                    empty_into(&mut sums, lanes);
                }
            }
        }
    }
    tree_sum(sums)
}

impl<T: Float> Kernel for Sums<'_, '_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let SumRows { x: block, pick, below } = self.rows;
        for (r, out) in self.out.iter_mut().enumerate() {
            let class = match pick {
                Pick::Max => None,
                Pick::Class(classes) if classes[r] < 0 => {
                    *out = RowSums::default();
                    continue;
                }
                Pick::Class(classes) => Some(classes[r] as usize),
            };
            let x = block.row(r);
            let (max, nan) = row_max(x);
            if nan || max.abs() == T::INFINITY {
                let nan = f64::NAN;
                *out =
                    RowSums { picked: nan, rest: nan, top: nan, below: nan, ..Default::default() };
                continue;
            }
            let base = Frame::new::<FMA>(max);
            let frame = base.lifted();
            let top = frame.exp::<FMA>(max).to_f64();
            let (tiles, tail) = x.as_chunks::<LANES>();
            let mut tail_tile = [padded(tail, -T::INFINITY)];
            let tail_tile = if tail.is_empty() { &mut [][..] } else { &mut tail_tile[..] };
            let (mut ties, mut rest) = (0.0, 0.0);
            let picked = if let Some(class) = class {
                // The tile of the class is summed apart, with −∞ in the place of the class.
                let at = class / LANES;
                let mut own = [[T::ZERO; LANES]];
                let (before, own, after) = if at < tiles.len() {
                    own[0] = tiles[at];
                    own[0][class % LANES] = -T::INFINITY;
                    (&tiles[..at], &own[..], &tiles[at + 1..])
                } else {
                    tail_tile[0][class % LANES] = -T::INFINITY;
                    (tiles, &[][..], &[][..])
                };
                for part in [before, own, after, &*tail_tile] {
                    rest += sum_tiles::<T, FMA, false>(part, frame, max, &mut ties);
                }
                frame.exp::<FMA>(x[class]).to_f64()
            } else {
                for part in [tiles, &*tail_tile] {
                    rest += sum_tiles::<T, FMA, true>(part, frame, max, &mut ties);
                }
                rest += (ties - 1.0) * top;
                top
            };
            let below = match below {
                Below::Skip => 0.0,
                Below::Uniform => sum_below(x, None, max),
                Below::Weighted(w) => sum_below(x, Some(w), max),
            };
            // Back to the scale of `base`; exact in f64.
            let lift = f64::from_bits((1023 + LIFT as u64) << 52);
            let (picked, rest, top) = (picked / lift, rest / lift, top / lift);
            let (shift, max) = (base.shift.to_f64(), max.to_f64());
            *out = RowSums { picked, rest, shift, k: base.k, max, top, below };
        }
    }
}

/// `y = (x − max) − log`, for some rows.
#[doc(hidden)]
pub struct LogRows<'a, T> {
    pub(crate) x: Block<'a, T>,
    /// `(max, ln Σ exp(x_k) − max)` of each row.
    pub(crate) rows: &'a [(T, T)],
    pub(crate) out: &'a mut [T],
}

impl<T: Float> Kernel for LogRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for ((r, &(max, log)), out) in
            self.rows.iter().enumerate().zip(self.out.chunks_exact_mut(self.x.classes))
        {
            for (o, &x) in out.iter_mut().zip(self.x.row(r)) {
                // At the maximum this is −log itself: exact, however close to 0.
                *o = (x - max) - log;
            }
        }
    }
}

/// Coefficients of one row of [`GradientRows`]; `None` writes zeros and reads nothing.
pub(crate) type RowScale<T> = Option<(T, T)>;

/// What is added to the scaled exponentials.
#[derive(Clone, Copy)]
pub(crate) enum Addend<'a, T> {
    /// The second coefficient.
    Constant,
    /// The second coefficient times a weight for each class.
    Weighted(&'a [T]),
    /// The second coefficient times these rows.
    Rows(Block<'a, T>),
}

/// `y_k = f·e_k + c·b_k` for some rows, with `(f, c)` of each row and `b` from `addend`.
#[doc(hidden)]
pub struct GradientRows<'a, T> {
    pub(crate) x: Block<'a, T>,
    pub(crate) sums: &'a [RowSums],
    pub(crate) scales: &'a [RowScale<T>],
    pub(crate) addend: Addend<'a, T>,
    pub(crate) out: &'a mut [T],
}

impl<T: Float> Kernel for GradientRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let GradientRows { x: block, sums, scales, addend, out } = self;
        for (r, out) in out.chunks_exact_mut(block.classes).enumerate() {
            let Some((f, c)) = scales[r] else {
                out.fill(T::ZERO);
                continue;
            };
            let x = block.row(r);
            let frame = Frame::at(T::from_f64(sums[r].shift), sums[r].k);
            let (x_tiles, x_tail) = x.as_chunks::<LANES>();
            let (tiles, tail) = out.as_chunks_mut::<LANES>();
            let tail_x = padded(x_tail, -T::INFINITY);
            let mut tail_out = [T::ZERO; LANES];
            match addend {
                Addend::Constant => {
                    for (o, x) in tiles.iter_mut().zip(x_tiles) {
                        scale_tile::<T, FMA>(o, x, &[T::ONE; LANES], frame, f, c);
                    }
                    scale_tile::<T, FMA>(&mut tail_out, &tail_x, &[T::ONE; LANES], frame, f, c);
                }
                Addend::Weighted(_) | Addend::Rows(_) => {
                    let b = match addend {
                        Addend::Weighted(w) => w,
                        Addend::Rows(rows) => rows.row(r),
                        Addend::Constant => &[],
                    };
                    let (b_tiles, b_tail) = b.as_chunks::<LANES>();
                    for ((o, x), b) in tiles.iter_mut().zip(x_tiles).zip(b_tiles) {
                        scale_tile::<T, FMA>(o, x, b, frame, f, c);
                    }
                    let b = padded(b_tail, T::ZERO);
                    scale_tile::<T, FMA>(&mut tail_out, &tail_x, &b, frame, f, c);
                }
            }
            for (o, t) in tail.iter_mut().zip(tail_out) {
                *o = t;
            }
        }
    }
}

#[inline(always)]
fn scale_tile<T: Float, const FMA: bool>(
    out: &mut [T; LANES],
    x: &[T; LANES],
    b: &[T; LANES],
    frame: Frame<T>,
    f: T,
    c: T,
) {
    for i in 0..LANES {
        out[i] = f.mul_add::<FMA>(frame.exp::<FMA>(x[i]), c * b[i]);
    }
}

/// A tensor seen as rows along one of its dims.
struct Rows<'a, T: Element> {
    x: &'a Tensor<T>,
    /// The layout with the class dim last.
    layout: Layout,
    count: usize,
    classes: usize,
    /// Start and stride of the rows, where they lie in the buffer as they are.
    direct: Option<(usize, usize)>,
}

/// The order of dims that puts `dim` last.
fn class_last(rank: usize, dim: usize) -> Vec<usize> {
    (0..rank).filter(|&d| d != dim).chain([dim]).collect()
}

impl<'a, T: Float> Rows<'a, T> {
    fn new(x: &'a Tensor<T>, dim: usize) -> Self {
        let layout = x.layout.permuted(&class_last(x.rank(), dim));
        let classes = x.shape()[dim];
        let outer = layout.permuted(&(0..x.rank() - 1).collect::<Vec<_>>());
        let count = outer.shape.numel();
        let unit = classes <= 1 || layout.strides[x.rank() - 1] == 1;
        let stride = Walk::new([&outer]).single_stride();
        let direct = match stride {
            Some(stride) if unit && stride >= 0 => Some((layout.offset, stride as usize)),
            _ => None,
        };
        Rows { x, layout, count, classes, direct }
    }

    /// Rows `first..first+count`, gathered into `scratch` where they are scattered in memory.
    fn block<'b>(&'b self, first: usize, count: usize, scratch: &'b mut Vec<T>) -> Block<'b, T> {
        let classes = self.classes;
        if let Some((start, stride)) = self.direct {
            let data = self.x.buffer.as_slice();
            let start = (start + first * stride).min(data.len());
            return Block { data: &data[start..], stride, classes };
        }
        scratch.resize(count * classes, T::ZERO);
        let from = first * classes;
        Walk::new([&self.layout]).gather(self.x.buffer.as_slice(), from, scratch);
        Block { data: scratch, stride: classes, classes }
    }

    /// Rows of a task: a fixed number, so that it does not depend on the threads.
    fn rows_per_task(&self) -> usize {
        (GRAIN / self.classes.max(1)).max(1)
    }

    /// Calls `work(first row, part of numbers, part of out)` for all rows, on several threads where
    /// there is enough to do. `out` has a row's length for each of `numbers`, or is empty.
    fn for_each_task<N: Send>(
        &self,
        numbers: &mut [N],
        out: &mut [T],
        work: impl Fn(usize, &mut [N], &mut [T]) + Sync,
    ) {
        if self.classes == 0 {
            return;
        }
        let step = self.rows_per_task();
        let width = if out.is_empty() { 0 } else { step * self.classes };
        let small = self.count * self.classes < 2 * GRAIN || rayon::current_num_threads() == 1;
        let mut parts: Vec<(usize, &mut [N], &mut [T])> = Vec::new();
        let mut out = out;
        for (i, numbers) in numbers.chunks_mut(step).enumerate() {
            let (part, rest) = out.split_at_mut(width.min(out.len()));
            out = rest;
            if small {
                work(i * step, numbers, part);
            } else {
                parts.push((i * step, numbers, part));
            }
        }
        parts.into_par_iter().for_each(|(first, numbers, out)| work(first, numbers, out));
    }

    /// A tensor in the shape of `x` whose rows `write` fills, class by class.
    fn build(&self, dim: usize, write: impl FnOnce(&mut [T])) -> Tensor<T> {
        let order = class_last(self.x.rank(), dim);
        let shape: Shape = order.iter().map(|&d| self.x.shape()[d]).collect();
        let rows = Tensor::build(shape, write);
        if dim + 1 == self.x.rank() {
            return rows;
        }
        let mut back = vec![0; order.len()];
        for (i, &d) in order.iter().enumerate() {
            back[d] = i;
        }
        let layout = rows.layout.permuted(&back);
        Tensor { buffer: rows.buffer, layout }.contiguous()
    }
}

/// Log of the softmax along `dim`, and the numbers of each row. `dim` is in range.
///
/// Every entry is accurate, the largest too: it is `−log1p(rest/top)` of its row.
pub fn log_softmax<T: Float>(x: &Tensor<T>, dim: usize) -> (Tensor<T>, Vec<RowSums>) {
    let rows = Rows::new(x, dim);
    let mut sums = vec![RowSums::default(); rows.count];
    let y = rows.build(dim, |out| {
        rows.for_each_task(&mut sums, out, |first, sums, out| {
            let mut scratch = Vec::new();
            let x = rows.block(first, sums.len(), &mut scratch);
            T::softmax_sums(SumRows { x, pick: Pick::Max, below: Below::Skip }, sums);
            let logs: Vec<(T, T)> = (sums.iter())
                .map(|s| (T::from_f64(s.max), T::from_f64((s.rest / s.top).ln_1p())))
                .collect();
            T::softmax_log(LogRows { x, rows: &logs, out });
        });
    });
    (y, sums)
}

/// Softmax along `dim`. `dim` is in range.
pub fn softmax<T: Float>(x: &Tensor<T>, dim: usize) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let mut sums = vec![RowSums::default(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_task(&mut sums, out, |first, sums, out| {
            let mut scratch = Vec::new();
            let x = rows.block(first, sums.len(), &mut scratch);
            T::softmax_sums(SumRows { x, pick: Pick::Max, below: Below::Skip }, sums);
            let scales: Vec<RowScale<T>> = (sums.iter())
                .map(|s| Some((T::from_f64(1.0 / (s.rest + s.picked)), T::ZERO)))
                .collect();
            let (sums, scales, addend) = (&*sums, &scales[..], Addend::Constant);
            T::softmax_gradient(GradientRows { x, sums, scales, addend, out });
            for ((r, s), out) in sums.iter().enumerate().zip(out.chunks_exact_mut(x.classes)) {
                // The one entry above ½ is rounded once: exactly 1 for a single class.
                if let Some(top) = s.dominant(x.row(r)) {
                    out[top] = T::from_f64(s.picked / (s.rest + s.picked));
                }
            }
        });
    })
}

/// `g − softmax(x)·Σ g` along `dim`, given the numbers that [`log_softmax`] returned for `x`.
///
/// For the entry with p > ½ it is `(1 − p)·g − p·Σ_others g`, with `1 − p = rest/(rest + top)`.
pub fn log_softmax_backward<T: Float>(
    g: &Tensor<T>,
    x: &Tensor<T>,
    dim: usize,
    sums: &[RowSums],
) -> Tensor<T> {
    let (rows, g_rows) = (Rows::new(x, dim), Rows::new(g, dim));
    let mut numbers = vec![(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_task(&mut numbers, out, |first, part, out| {
            let (mut scratch, mut g_scratch) = (Vec::new(), Vec::new());
            let x = rows.block(first, part.len(), &mut scratch);
            let g = g_rows.block(first, part.len(), &mut g_scratch);
            let sums = &sums[first..first + part.len()];
            let scales: Vec<RowScale<T>> = (sums.iter().enumerate())
                .map(|(r, s)| {
                    let f = -T::sum_slice(g.row(r)) / (s.rest + s.picked);
                    Some((T::from_f64(f), T::ONE))
                })
                .collect();
            let addend = Addend::Rows(g);
            T::softmax_gradient(GradientRows { x, sums, scales: &scales, addend, out });
            for ((r, s), out) in sums.iter().enumerate().zip(out.chunks_exact_mut(x.classes)) {
                let Some(top) = s.dominant(x.row(r)) else { continue };
                let g = g.row(r);
                let others = T::sum_slice(&g[..top]) + T::sum_slice(&g[top + 1..]);
                let value = (s.rest * g[top].to_f64() - s.picked * others) / (s.rest + s.picked);
                out[top] = T::from_f64(value);
            }
        });
    })
}

/// Class targets of rows: `c_k = (1−ε)·w_y·[k = y] + (ε/C)·w_k`.
#[derive(Clone, Copy, Debug)]
pub struct ClassTargets<'a, T> {
    /// The class of each row, below the number of classes; negative: the row does not count.
    pub classes: &'a [i64],
    /// A factor for each class, at least 0.
    pub weight: Option<&'a [T]>,
    /// ε, in [0, 1].
    pub label_smoothing: f64,
}

/// `(hard, smooth, total weight W, a)` for a row of class y: `c_k = hard·[k = y] + smooth·w_k`,
/// `a = Σ c_k`.
struct Coefficients<'a, T> {
    targets: ClassTargets<'a, T>,
    smooth: f64,
    total_weight: f64,
}

impl<'a, T: Float> Coefficients<'a, T> {
    fn new(targets: ClassTargets<'a, T>, classes: usize) -> Self {
        let total_weight = match targets.weight {
            None => classes as f64,
            Some(w) => T::sum_slice(w),
        };
        let smooth = targets.label_smoothing / classes.max(1) as f64;
        Coefficients { targets, smooth, total_weight }
    }

    fn weight(&self, class: usize) -> f64 {
        self.targets.weight.map_or(1.0, |w| w[class].to_f64())
    }

    fn hard(&self, class: usize) -> f64 {
        (1.0 - self.targets.label_smoothing) * self.weight(class)
    }

    /// a.
    fn sum(&self, class: usize) -> f64 {
        self.hard(class) + if self.smooth == 0.0 { 0.0 } else { self.smooth * self.total_weight }
    }

    fn below(&self) -> Below<'a, T> {
        match self.targets.weight {
            _ if self.smooth == 0.0 => Below::Skip,
            None => Below::Uniform,
            Some(w) => Below::Weighted(w),
        }
    }
}

/// `a·ln Σ exp(x_k) − Σ c_k·x_k` of each row along `dim`, in `f64`, and the numbers of each row.
/// Rows that do not count have 0 and are not read. A term of weight 0 is 0 whatever its logit is.
pub fn cross_entropy<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
) -> (Vec<f64>, Vec<RowSums>) {
    let rows = Rows::new(x, dim);
    let coefficients = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![(0.0, RowSums::default()); rows.count];
    rows.for_each_task(&mut numbers, &mut [], |first, part, _| {
        let mut scratch = Vec::new();
        let x = rows.block(first, part.len(), &mut scratch);
        let classes = &targets.classes[first..first + part.len()];
        let mut sums = vec![RowSums::default(); part.len()];
        let pick = Pick::Class(classes);
        T::softmax_sums(SumRows { x, pick, below: coefficients.below() }, &mut sums);
        for ((r, number), sums) in part.iter_mut().enumerate().zip(sums) {
            let loss = match usize::try_from(classes[r]) {
                Ok(class) => row_loss(x.row(r), class, &sums, &coefficients),
                Err(_) => 0.0,
            };
            *number = (loss, sums);
        }
    });
    numbers.into_iter().unzip()
}

fn row_loss<T: Float>(x: &[T], class: usize, s: &RowSums, c: &Coefficients<'_, T>) -> f64 {
    let (hard, smooth) = (c.hard(class), c.smooth);
    let mut loss = 0.0;
    if hard != 0.0 {
        // ln Σ exp − x_y, without a difference of large numbers.
        let gap = if s.picked > 0.0 {
            (s.rest / s.picked).ln_1p()
        } else {
            s.lse_above_max() + (s.max - x[class].to_f64())
        };
        loss += hard * gap;
    }
    if smooth != 0.0 {
        let mut below = s.below;
        if below.is_infinite() {
            // Either an entry of −∞ that counts, or a difference that only f64 can hold.
            below = (x.iter().enumerate())
                .map(|(k, x)| (c.weight(k), s.max - x.to_f64()))
                .map(|(w, gap)| if w == 0.0 { 0.0 } else { w * gap })
                .sum();
        }
        loss += smooth * (c.total_weight * s.lse_above_max() + below);
    }
    loss
}

/// `s·(a·softmax(x)_k − c_k)` of each row along `dim`, given the numbers that [`cross_entropy`]
/// returned; `scale(row)` is s. One pass: reads x, writes the result. Rows that do not count, or
/// have s = 0, are 0 and not read.
///
/// The target's entry is `s·(−hard·rest/S + smooth·(W·picked/S − w_y))`: no `p − 1` anywhere.
pub fn cross_entropy_backward<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
    sums: &[RowSums],
    scale: impl Fn(usize) -> f64 + Sync,
) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let c = Coefficients::new(targets, rows.classes);
    let addend = match targets.weight {
        Some(w) if c.smooth != 0.0 => Addend::Weighted(w),
        _ => Addend::Constant,
    };
    let mut numbers = vec![(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_task(&mut numbers, out, |first, part, out| {
            let mut scratch = Vec::new();
            let x = rows.block(first, part.len(), &mut scratch);
            let range = first..first + part.len();
            let (classes, sums) = (&targets.classes[range.clone()], &sums[range]);
            let scales: Vec<RowScale<T>> = (classes.iter().zip(sums).enumerate())
                .map(|(r, (&class, s))| {
                    let class = usize::try_from(class).ok()?;
                    let factor = scale(first + r);
                    let f = factor * c.sum(class) / (s.rest + s.picked);
                    (factor != 0.0).then(|| (T::from_f64(f), T::from_f64(-factor * c.smooth)))
                })
                .collect();
            T::softmax_gradient(GradientRows { x, sums, scales: &scales, addend, out });
            for ((r, s), out) in sums.iter().enumerate().zip(out.chunks_exact_mut(x.classes)) {
                if scales[r].is_none() {
                    continue;
                }
                let class = classes[r] as usize;
                let total = s.rest + s.picked;
                // W·p − w, from the smaller of p and 1 − p: exactly 0 for a single class.
                let (w, all) = (c.weight(class), c.total_weight);
                let spread = if s.rest > s.picked {
                    all * s.picked / total - w
                } else {
                    (all - w) - all * s.rest / total
                };
                let smooth = if c.smooth == 0.0 { 0.0 } else { c.smooth * spread };
                out[class] =
                    T::from_f64(scale(first + r) * (smooth - c.hard(class) * s.rest / total));
            }
        });
    })
}

/// `−Σ c_k·l_k` of each row along `dim`, for log-probabilities (any real numbers) `l`, in `f64`. Rows
/// that do not count have 0 and are not read. A term of weight 0 is 0 whatever its entry is.
pub fn negative_log_likelihood<T: Float>(
    l: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
) -> Vec<f64> {
    let rows = Rows::new(l, dim);
    let c = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![0.0; rows.count];
    let product = |weight: f64, l: T| if weight == 0.0 { 0.0 } else { -weight * l.to_f64() };
    rows.for_each_task(&mut numbers, &mut [], |first, part, _| {
        let mut scratch = Vec::new();
        let l = rows.block(first, part.len(), &mut scratch);
        for (r, out) in part.iter_mut().enumerate() {
            let Ok(class) = usize::try_from(targets.classes[first + r]) else { continue };
            let row = l.row(r);
            *out = product(c.hard(class), row[class]);
            if c.smooth != 0.0 {
                let terms = row.iter().enumerate().map(|(k, &l)| product(c.weight(k), l));
                *out += c.smooth * terms.sum::<f64>();
            }
        }
    });
    numbers
}

/// The coefficients themselves, times `scale(row)`, as a tensor like `x`: 0 in rows that do not
/// count.
pub fn target_coefficients<T: Float>(
    x: &Tensor<T>,
    dim: usize,
    targets: ClassTargets<'_, T>,
    scale: impl Fn(usize) -> f64 + Sync,
) -> Tensor<T> {
    let rows = Rows::new(x, dim);
    let c = Coefficients::new(targets, rows.classes);
    let mut numbers = vec![(); rows.count];
    rows.build(dim, |out| {
        rows.for_each_task(&mut numbers, out, |first, _, out| {
            for (r, out) in out.chunks_exact_mut(rows.classes).enumerate() {
                let class = usize::try_from(targets.classes[first + r]).ok();
                let factor = if class.is_some() { scale(first + r) } else { 0.0 };
                for (k, o) in out.iter_mut().enumerate() {
                    let hard = if class == Some(k) { c.hard(k) } else { 0.0 };
                    let smooth = if c.smooth == 0.0 { 0.0 } else { c.smooth * c.weight(k) };
                    *o = T::from_f64(if factor == 0.0 { 0.0 } else { factor * (hard + smooth) });
                }
            }
        });
    })
}

impl<'a, T: Float> ClassTargets<'a, T> {
    /// `Σ_k c_k` as a function of a row's class, among `classes`.
    pub fn coefficient_sums(self, classes: usize) -> impl Fn(usize) -> f64 + use<'a, T> {
        let c = Coefficients::new(self, classes);
        move |class| c.sum(class)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    /// Three lines in f64: the definition.
    fn naive_log_softmax(x: &[f64]) -> Vec<f64> {
        let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let lse = max + x.iter().map(|v| (v - max).exp()).sum::<f64>().ln();
        x.iter().map(|v| v - lse).collect()
    }

    #[test]
    fn every_entry_matches_the_definition_for_awkward_sizes() {
        let mut rng = Generator::new(11);
        for classes in [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 257, 1000] {
            let x = Tensor::<f32>::randn([3, classes], &mut rng).unwrap() * 4.0;
            let (log, sums) = log_softmax(&x, 1);
            let p = softmax(&x, 1);
            let data: Vec<f64> = x.to_vec().into_iter().map(f64::from).collect();
            let (log, p) = (log.to_vec(), p.to_vec());
            for r in 0..3 {
                let want = naive_log_softmax(&data[r * classes..(r + 1) * classes]);
                for (k, w) in want.iter().enumerate() {
                    let i = r * classes + k;
                    // 8u and 6u relative (u = 2⁻²⁴).
                    let error = (f64::from(log[i]) - w).abs();
                    assert!(error <= 8.0 * 5.97e-8 * w.abs() + 1e-15, "{classes} {w} {}", log[i]);
                    let error = (f64::from(p[i]) / w.exp() - 1.0).abs();
                    assert!(error <= 6.0 * 5.97e-8, "{classes} {error}");
                }
                assert!(sums[r].rest >= 0.0);
            }
        }
    }

    #[test]
    fn a_confident_row_keeps_its_loss() {
        for gap in [10.0_f32, 17.0, 25.0, 60.0, 80.0, 85.0] {
            let x = Tensor::from_vec(vec![gap, 0.0, 0.0], [1, 3]).unwrap();
            let targets = ClassTargets { classes: &[0], weight: None, label_smoothing: 0.0 };
            let (loss, sums) = cross_entropy(&x, 1, targets);
            let want = (2.0 * (-f64::from(gap)).exp()).ln_1p();
            assert!((loss[0] / want - 1.0).abs() < 4.0 * 5.97e-8);
            let g = cross_entropy_backward(&x, 1, targets, &sums, |_| 1.0).to_vec();
            assert!((f64::from(g[0]) / -(1.0 - (-want).exp()) - 1.0).abs() < 1e-6 || gap > 30.0);
            let sum: f32 = g.iter().sum();
            assert!(sum.abs() <= 2.0 * 5.97e-8 * g.iter().map(|v| v.abs()).sum::<f32>());
        }
    }

    #[test]
    fn rows_of_equal_terms_keep_their_digits() {
        let classes = 4096;
        let mut data = vec![0.0_f32; classes];
        data[7] = 15.15;
        let x = Tensor::from_vec(data, [1, classes]).unwrap();
        let targets = ClassTargets { classes: &[7], weight: None, label_smoothing: 0.1 };
        let (loss, _) = cross_entropy(&x, 1, targets);
        let gap = f64::from(15.15_f32);
        let above = (4095.0 * (-gap).exp()).ln_1p();
        let want = 0.9 * above + 0.1 / 4096.0 * (4096.0 * above + 4095.0 * gap);
        assert!((loss[0] / want - 1.0).abs() < 4.0 * 5.97e-8);
        // And far below the largest: 99,999 classes at a gap of 100.
        let mut data = vec![0.0_f32; 100_000];
        data[3] = 100.0;
        let x = Tensor::from_vec(data, [1, 100_000]).unwrap();
        let targets = ClassTargets { classes: &[3], weight: None, label_smoothing: 0.0 };
        let want = 99_999.0 * (-100.0_f64).exp();
        assert!((cross_entropy(&x, 1, targets).0[0] / want - 1.0).abs() < 4.0 * 5.97e-8);
    }

    #[test]
    fn shifts_do_not_change_the_result() {
        let base = [0.5_f32, -1.5, 3.0, 0.0];
        let run = |offset: f32| {
            let x: Vec<f32> = base.iter().map(|v| v + offset).collect();
            log_softmax(&Tensor::from_vec(x, [1, 4]).unwrap(), 1).0.to_vec()
        };
        let want = run(0.0);
        for offset in [1024.0, 65536.0, 1_048_576.0, 4_194_304.0, -65536.0, -4_194_304.0] {
            for (a, b) in run(offset).iter().zip(&want) {
                // One ulp.
                assert!((a - b).abs() <= b.abs() * 1.2e-7, "{offset}: {a} {b}");
            }
        }
    }

    #[test]
    fn infinities_and_nan() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = Tensor::from_vec(
            vec![0.0, -inf, 0.0, inf, 0.0, 1.0, nan, 0.0, 0.0, -inf, -inf, -inf],
            [4, 3],
        )
        .unwrap();
        let (y, _) = log_softmax(&x, 1);
        let y = y.to_vec();
        assert!(y[1] == -inf && (y[0] + 2.0_f32.ln()).abs() < 1e-6);
        assert!(y[3..].iter().all(|v| v.is_nan()), "whole rows of NaN: {y:?}");
        let targets =
            |classes, label_smoothing| ClassTargets { classes, weight: None, label_smoothing };
        // At the target: +inf, gradient p − onehot.
        let (loss, sums) = cross_entropy(&x, 1, targets(&[1, -1, -1, -1], 0.0));
        assert_eq!(loss, [f64::INFINITY, 0.0, 0.0, 0.0]);
        let g = cross_entropy_backward(&x, 1, targets(&[1, -1, -1, -1], 0.0), &sums, |_| 1.0);
        assert_eq!(g.to_vec(), [0.5, -1.0, 0.5, 0., 0., 0., 0., 0., 0., 0., 0., 0.]);
        let (loss, _) = cross_entropy(&x, 1, targets(&[0, 0, 0, 0], 0.1));
        assert!(loss[0] == f64::INFINITY && loss[1..].iter().all(|l| l.is_nan()));
        let (loss, _) = cross_entropy(&x, 1, targets(&[1, -1, -1, -1], 1.0));
        assert_eq!(loss[0], f64::INFINITY);
    }

    #[test]
    fn huge_finite_logits_have_a_finite_loss() {
        let m = f32::MAX;
        let x = Tensor::from_vec(vec![m, 0.0, -m], [1, 3]).unwrap();
        let targets = ClassTargets { classes: &[0], weight: None, label_smoothing: 0.1 };
        let (loss, _) = cross_entropy(&x, 1, targets);
        // (ε/3)·(0 + MAX + 2·MAX)
        assert!((loss[0] / (0.1 * f64::from(m)) - 1.0).abs() < 1e-12, "{}", loss[0]);
    }

    #[test]
    fn rows_along_any_dim_equal_rows_of_a_copy() {
        let x = Tensor::<f64>::randn([3, 5, 4], &mut Generator::new(2)).unwrap();
        for dim in 0..3_usize {
            let last = x.transpose(dim as isize, 2).unwrap();
            let want = log_softmax(&last.contiguous(), 2).0.transpose(dim as isize, 2).unwrap();
            assert_eq!(log_softmax(&x, dim).0.to_vec(), want.to_vec());
            assert_eq!(
                log_softmax(&last, 2).0.to_vec(),
                want.transpose(dim as isize, 2).unwrap().to_vec()
            );
        }
        let one = Tensor::<f64>::randn([1, 6], &mut Generator::new(2)).unwrap();
        let many = one.expand([4, 6]).unwrap();
        assert_eq!(softmax(&many, 1).to_vec()[18..], softmax(&one, 1).to_vec()[..]);
        let empty = Tensor::<f64>::zeros([2, 0]).unwrap();
        assert_eq!(softmax(&empty, 1).numel() + log_softmax(&empty, 0).0.numel(), 0);
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let x = Tensor::<f32>::randn([300, 500], &mut Generator::new(4)).unwrap();
        let classes: Vec<i64> = (0..300).map(|i| i * 7 % 500).collect();
        let targets = ClassTargets { classes: &classes, weight: None, label_smoothing: 0.1 };
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let (loss, sums) = cross_entropy(&x, 1, targets);
                let g = cross_entropy_backward(&x, 1, targets, &sums, |r| r as f64).to_vec();
                let loss: Vec<u64> = loss.iter().map(|l| l.to_bits()).collect();
                (loss, g.iter().map(|g| g.to_bits()).collect::<Vec<_>>())
            })
        };
        assert!(run(1) == run(2) && run(1) == run(4));
    }
}
