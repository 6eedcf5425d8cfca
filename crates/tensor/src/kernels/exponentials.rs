//! Kernels over rows of exponentials, on slices; what walks tensors with them is `rows` and its users.
//!
//! For a row x the exponentials are `e_k = exp(x_k − shift)·2⁻ᴷ` with an integer K near
//! max·log₂e, so that the largest lies in [0.7, 1.42]. The shift of the exponent is exact; the shift
//! by subtraction is 0, except for rows whose maximum is too large for the exact way. Sums leave out
//! one entry (the target, or the maximum), so that `1 − p` of a confident row keeps its digits.
//! Elements are added in 16 lanes of their own type, four at most, then in `f64`; logarithms are taken in
//! `f64` once a row, outside the vector code.
//! Sources: Dukhan & Ablavatski, arXiv 2001.04438 (exponent shift); Blanchard, Higham & Higham, IMA
//! J. Numer. Anal. 41 (2021) (error analysis).

use super::Kernel;
use super::reduce::{tree, tree_sum};
use crate::element::Float;

const LANES: usize = 16;
/// Tiles of [`LANES`] elements that are added in the element type before `f64` takes over: few, so
/// that even equal terms, whose rounding errors all point one way, keep their digits.
const TILES: usize = 4;
/// The sums take exponentials this many powers of two larger, so that terms far below the largest
/// (to a gap of 129 in `f32`) are still normal numbers.
const LIFT: i32 = 60;
/// 2⁻ᴸᴵᶠᵀ.
const LOWER: f64 = f64::from_bits((1023 - LIFT as u64) << 52);
/// What a row's softmax follows from: `Σ_k exp(x_k) = (rest + picked)·2ᴷ·exp(shift)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowSums {
    /// The exponential of the entry left out of `rest`.
    pub picked: f64,
    /// The sum of the other exponentials. NaN in a row with NaN, +∞, or nothing but −∞.
    pub rest: f64,
    pub(crate) shift: f64,
    pub(crate) k: i32,
    pub(crate) max: f64,
    /// The exponential of `max`.
    pub(crate) top: f64,
    /// `Σ_k w_k·(max − x_k)`, where it was asked for.
    pub(crate) below: f64,
}

impl RowSums {
    /// `ln Σ exp(x_k) − max`, at least 0.
    pub(crate) fn lse_above_max(&self) -> f64 {
        let RowSums { picked, rest, top, .. } = *self;
        let others = if picked == top { rest } else { (rest - top) + picked };
        (others / top).ln_1p()
    }

    /// A row of [`GradientRows`].
    pub(crate) fn scale<T: Float>(&self, f: f64, c: f64) -> RowScale<T> {
        let frame = Frame::at(T::from_f64(self.shift), self.k);
        // A large factor makes normal numbers of exponentials that are not.
        let (f, frame) = if f.abs() > 2.0 { (f * LOWER, frame.lifted()) } else { (f, frame) };
        Some((T::from_f64(f), T::from_f64(c), frame))
    }

    /// The place of the maximum, where its share is more than half.
    pub(crate) fn dominant<T: Float>(&self, x: &[T]) -> Option<usize> {
        if self.rest < self.picked { x.iter().position(|v| v.to_f64() == self.max) } else { None }
    }
}

/// Rows of equal length in a slice, `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) stride: usize,
    pub(crate) classes: usize,
}

impl<'a, T> Block<'a, T> {
    #[inline(always)]
    pub(crate) fn row(&self, r: usize) -> &'a [T] {
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

/// A factor for each element of some rows.
#[derive(Clone, Copy)]
pub(crate) enum Factors<'a, T> {
    One,
    /// The same in each row.
    Classes(&'a [T]),
    Rows(Block<'a, T>),
}

impl<'a, T> Factors<'a, T> {
    /// Those of row r; empty for [`Factors::One`].
    #[inline(always)]
    fn row(&self, r: usize) -> &'a [T] {
        match self {
            Factors::One => &[],
            Factors::Classes(w) => w,
            Factors::Rows(rows) => rows.row(r),
        }
    }
}

/// Input of the first pass over some rows.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct SumRows<'a, T> {
    pub(crate) x: Block<'a, T>,
    pub(crate) pick: Pick<'a>,
    /// The weights of `RowSums::below`, where that is wanted.
    pub(crate) below: Option<Factors<'a, T>>,
}

/// The first pass.
pub(crate) struct Sums<'a, 'o, T> {
    pub(crate) rows: SumRows<'a, T>,
    pub(crate) out: &'o mut [RowSums],
}

/// Shift and lower bound of a row, from its maximum.
#[derive(Clone, Copy)]
pub(crate) struct Frame<T> {
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
    let max = tree(max, |a, b| if b > a { b } else { a });
    (max, tree(nan, |a, b| a | b))
}

/// The first place of the maximum.
#[inline(always)]
fn place<T: Float>(x: &[T], max: T) -> usize {
    let without = |tile: &&[T; LANES]| !tile.iter().fold(false, |any, &v| any | (v == max));
    let first = LANES * x.as_chunks().0.iter().take_while(without).count();
    first + x[first..].iter().take_while(|&&v| v != max).count()
}

/// Adds the exponentials of `tiles`.
#[inline(always)]
fn add_tiles<T: Float, const FMA: bool>(
    sums: &mut [f64; LANES],
    tiles: &[[T; LANES]],
    frame: Frame<T>,
) {
    for block in tiles.chunks(TILES) {
        let mut lanes = [T::ZERO; LANES];
        for tile in block {
            for i in 0..LANES {
                lanes[i] += frame.exp::<FMA>(tile[i]);
            }
        }
        empty_into(sums, lanes);
    }
}

/// `Σ w_k·(max − x_k)`, where a weight of 0 makes the term 0 whatever `x_k` is; all weights are 1
/// unless `WEIGHTED`.
#[inline(always)]
fn sum_below<T: Float, const WEIGHTED: bool>(x: &[T], weight: &[T], max: T) -> f64 {
    let (tiles, tail) = x.as_chunks::<LANES>();
    let (w_tiles, w_tail) = weight.as_chunks::<LANES>();
    let (tail_x, tail_w) = ([padded(tail, max)], [padded(w_tail, T::ZERO)]);
    let mut sums = [0.0; LANES];
    for (part, w_part) in [(tiles, w_tiles), (&tail_x[..], &tail_w[..])] {
        for (block, w_block) in part.chunks(TILES).zip(w_part.chunks(TILES)) {
            let mut lanes = [T::ZERO; LANES];
            for (tile, w) in block.iter().zip(w_block) {
                for i in 0..LANES {
                    let w = if WEIGHTED { w[i] } else { T::ONE };
                    let term = w * (max - tile[i]);
                    lanes[i] += if w == T::ZERO { T::ZERO } else { term };
                }
            }
            empty_into(&mut sums, lanes);
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
            let (max, has_nan) = row_max(x);
            if has_nan || max.abs() == T::INFINITY {
                let [picked, rest, top, below] = [f64::NAN; 4];
                let max = if has_nan { f64::NAN } else { max.to_f64() };
                *out = RowSums { picked, rest, shift: 0.0, k: 0, max, top, below };
                continue;
            }
            let base = Frame::new::<FMA>(max);
            let frame = base.lifted();
            let top = frame.exp::<FMA>(max).to_f64();
            let class = class.unwrap_or_else(|| place(x, max));
            let (tiles, tail) = x.as_chunks::<LANES>();
            // The tile of the class is added with −∞ in its place.
            let at = class / LANES;
            let mut own = [padded(&x[at * LANES..], -T::INFINITY)];
            own[0][class % LANES] = -T::INFINITY;
            let after = tiles.get(at + 1..).unwrap_or_default();
            let tail_tile = [padded(tail, -T::INFINITY)];
            let tail_tile = &tail_tile[..usize::from(at < tiles.len() && !tail.is_empty())];
            let mut sums = [0.0; LANES];
            for part in [&tiles[..at], &own, after, tail_tile] {
                add_tiles::<T, FMA>(&mut sums, part, frame);
            }
            let (picked, rest) = (frame.exp::<FMA>(x[class]).to_f64(), tree_sum(sums));
            let below = match below {
                None => 0.0,
                Some(Factors::One) => sum_below::<T, false>(x, x, max),
                Some(weights) => sum_below::<T, true>(x, weights.row(r), max),
            };
            // Back to the scale of `base`; exact in f64.
            let (picked, rest, top) = (picked * LOWER, rest * LOWER, top * LOWER);
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

/// f and c of one row of [`GradientRows`], and the frame of its exponentials; `None` writes zeros and
/// reads nothing.
pub(crate) type RowScale<T> = Option<(T, T, Frame<T>)>;

/// `y_k = f·e_k + c·b_k` for some rows, with f and c of each row.
#[doc(hidden)]
pub struct GradientRows<'a, T> {
    pub(crate) x: Block<'a, T>,
    pub(crate) scales: &'a [RowScale<T>],
    pub(crate) b: Factors<'a, T>,
    pub(crate) out: &'a mut [T],
}

impl<T: Float> Kernel for GradientRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let GradientRows { x: block, scales, b, out } = self;
        let ones = [T::ONE; LANES];
        for (r, out) in out.chunks_exact_mut(block.classes).enumerate() {
            let Some((f, c, frame)) = scales[r] else {
                out.fill(T::ZERO);
                continue;
            };
            let x = block.row(r);
            let (x_tiles, x_tail) = x.as_chunks::<LANES>();
            let (tiles, tail) = out.as_chunks_mut::<LANES>();
            let tail_x = padded(x_tail, -T::INFINITY);
            let mut tail_out = [T::ZERO; LANES];
            let (b_tiles, b_tail) = b.row(r).as_chunks::<LANES>();
            for (i, (o, x)) in tiles.iter_mut().zip(x_tiles).enumerate() {
                scale_tile::<T, FMA>(o, x, b_tiles.get(i).unwrap_or(&ones), frame, f, c);
            }
            let b_tail = padded(b_tail, T::ONE);
            scale_tile::<T, FMA>(&mut tail_out, &tail_x, &b_tail, frame, f, c);
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
