//! Kernels over rows of exponentials, on slices; what walks tensors with them is `rows` and its users.
//!
//! For a row x the exponentials are `e_k = exp(x_k − shift)·2⁻ᴷ` with an integer K near
//! max·log₂e, so that the largest lies in [0.7, 1.42]. The shift of the exponent is exact; the shift
//! by subtraction is 0, except for rows whose maximum is too large for the exact way. Sums leave out
//! one entry (the target, or the maximum), so that `1 − p` of a confident row keeps its digits.
//! Elements are added in 16 lanes of their own type, four at most, then in `f64`; logarithms are taken in
//! `f64` once a row.
//! Rows of few classes lie side by side, one in each lane, as tiles of 16 rows of a class; in wider rows
//! a tile is 16 classes of a row, and the exponentials may stay where the gradient will be.
//! Sources: Dukhan & Ablavatski, arXiv 2001.04438 (exponent shift); Blanchard, Higham & Higham, IMA
//! J. Numer. Anal. 41 (2021) (error analysis).

use std::hint::black_box;

use super::math::f64::log1p_above_zero;
use super::reduce::{tree, tree_sum};
use super::{Kernel, dispatch, prefetch};
use crate::element::Float;

pub(super) const LANES: usize = 16;
/// Tiles of [`LANES`] elements that are added in the element type before `f64` takes over: few, so
/// that even equal terms, whose rounding errors all point one way, keep their digits.
const TILES: usize = 4;
/// The sums take exponentials this many powers of two larger, so that terms far below the largest
/// (to a gap of 128 in `f32`) are still normal numbers.
pub(super) const LIFT: i32 = 60;
/// Rows of at most so many classes lie side by side, one in each lane.
const NARROW: usize = 32;
/// How far ahead of the exponentials memory is asked for: some rows, a part of the second cache.
const AHEAD: usize = 64 << 10;
/// 2⁻ᴸᴵᶠᵀ.
pub(super) const LOWER: f64 = f64::from_bits((1023 - LIFT as u64) << 52);

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
    /// `Σ exp(x_k − max) − 1`, at least 0.
    pub(crate) fn above_top(&self) -> f64 {
        let RowSums { picked, rest, top, .. } = *self;
        let others = if picked == top { rest } else { (rest - top) + picked };
        others / top
    }

    /// A row of [`GradientRows`].
    pub(crate) fn scale<T: Float>(&self, f: f64, c: f64) -> RowScale<T> {
        let frame = Frame::at(T::from_f64(self.shift), self.k);
        // As the sums had them, unless the factor would then be below the normal numbers.
        let lifted = f.abs() > LOWER;
        let (f, frame) = if lifted { (f * LOWER, frame.lifted()) } else { (f, frame) };
        Some((T::from_f64(f), T::from_f64(c), frame, lifted))
    }

    /// The place of the maximum, where its share is more than half.
    pub(crate) fn dominant<T: Float>(&self, x: &[T]) -> Option<usize> {
        if self.rest < self.picked { x.iter().position(|v| v.to_f64() == self.max) } else { None }
    }
}

/// `ln(1 + x)` of `x(row)`, at least 0, for some rows.
pub(crate) fn logs(sums: &[RowSums], x: impl Fn(&RowSums) -> f64) -> Vec<f64> {
    struct Logs<'a>(&'a mut [f64]);

    impl Kernel for Logs<'_> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            for x in self.0 {
                *x = log1p_above_zero::<FMA>(*x);
            }
        }
    }

    let mut logs: Vec<f64> = sums.iter().map(x).collect();
    dispatch(Logs(&mut logs));
    logs
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

impl<T: Copy> Block<'_, T> {
    /// Puts `count` rows from `first` on side by side: tile k has their entries of class k.
    #[inline(always)]
    fn gather(&self, first: usize, count: usize, tiles: &mut [[T; LANES]]) {
        // Four at a time, as one store.
        for l in (0..count).step_by(4) {
            let row = |i: usize| self.row(first + (l + i).min(count - 1)).iter();
            let rows = row(0).zip(row(1)).zip(row(2)).zip(row(3));
            for (tile, (((&a, &b), &c), &d)) in tiles.iter_mut().zip(rows) {
                // Out of the vectoriser's sight, which would scatter.
                black_box(tile)[l..l + 4].copy_from_slice(&[a, b, c, d]);
            }
        }
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

    /// Those of class k in `count` rows from `first` on; the last one fills what is left.
    #[inline(always)]
    fn class(&self, first: usize, count: usize, k: usize) -> [T; LANES]
    where
        T: Float,
    {
        let mut all = [T::ONE; LANES];
        match self {
            Factors::One => {}
            Factors::Classes(w) => all = [w[k]; LANES],
            Factors::Rows(b) => {
                for (l, of_row) in all.iter_mut().enumerate() {
                    *of_row = b.data[(first + l.min(count - 1)) * b.stride + k];
                }
            }
        }
        all
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

/// The first pass. Where rows are wide it keeps the exponentials, lifted, if `keep` is not empty.
pub(crate) struct Sums<'a, 'o, T> {
    pub(crate) rows: SumRows<'a, T>,
    pub(crate) out: &'o mut [RowSums],
    pub(crate) keep: &'o mut [T],
}

/// Shift and lower bound of a row, from its maximum.
#[derive(Clone, Copy)]
pub(crate) struct Frame<T> {
    pub(super) shift: T,
    pub(super) k: i32,
    /// Arguments below this have exponential 0; of others it is a normal number, or NaN.
    pub(super) low: T,
}

impl<T: Float> Frame<T> {
    /// The frame in which the exponential of `max` is between 0.7 and 1.42.
    #[inline(always)]
    pub(super) fn new<const FMA: bool>(max: T) -> Self {
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
    pub(super) fn at(shift: T, k: i32) -> Self {
        // Below this the exponential, times 2⁻ᴷ, may be under the smallest normal number.
        let exponent = if size_of::<T>() == 4 { -125.5 } else { -1021.5 };
        let low = (f64::from(k) + exponent) * std::f64::consts::LN_2;
        Frame { shift, k, low: T::from_f64(low) }
    }

    /// The same row with exponentials 2^LIFT times as large.
    #[inline(always)]
    pub(super) fn lifted(self) -> Self {
        Self::at(self.shift, self.k - LIFT)
    }

    #[inline(always)]
    pub(super) fn exp<const FMA: bool>(&self, x: T) -> T {
        let x = x - self.shift;
        let e = x.vexp_scaled::<FMA>(self.k);
        // −∞ and far smaller values end here.
        if x < self.low { T::ZERO } else { e }
    }
}

/// The frames of rows that lie side by side.
struct Frames<T> {
    shift: [T; LANES],
    k: [i32; LANES],
    low: [T; LANES],
}

impl<T: Float> Frames<T> {
    #[inline(always)]
    fn new(mut of: impl FnMut(usize) -> Frame<T>) -> Self {
        let mut all = Frames { shift: [T::ZERO; LANES], k: [0; LANES], low: [T::ZERO; LANES] };
        for l in 0..LANES {
            let Frame { shift, k, low } = of(l);
            (all.shift[l], all.k[l], all.low[l]) = (shift, k, low);
        }
        all
    }

    #[inline(always)]
    fn at(&self, l: usize) -> Frame<T> {
        Frame { shift: self.shift[l], k: self.k[l], low: self.low[l] }
    }
}

#[inline(always)]
fn empty_into<T: Float>(sums: &mut [f64; LANES], lanes: &mut [T; LANES]) {
    for (s, l) in sums.iter_mut().zip(lanes) {
        *s += l.to_f64();
        *l = T::ZERO;
    }
}

/// The maximum of each lane; NaN is passed over.
#[inline(always)]
fn largest<T: Float>(parts: [&[[T; LANES]]; 2]) -> [T; LANES] {
    let mut max = [-T::INFINITY; LANES];
    for part in parts {
        for tile in part {
            for i in 0..LANES {
                max[i] = if tile[i] > max[i] { tile[i] } else { max[i] };
            }
        }
    }
    // Out of the compiler's sight: or a tree of lanes makes it take the vectors above apart.
    black_box(max)
}

/// The first place of the maximum.
#[inline(always)]
fn place<T: Float>(x: &[T], max: T) -> usize {
    let without = |tile: &&[T; LANES]| !tile.iter().fold(false, |any, &v| any | (v == max));
    let first = LANES * x.as_chunks().0.iter().take_while(without).count();
    first + x[first..].iter().take_while(|&&v| v != max).count()
}

/// Adds the exponentials of `tiles` but that of `class`, and writes all to `keep` if `KEEP`.
#[inline(always)]
fn add_tiles<T: Float, const FMA: bool, const KEEP: bool>(
    sums: &mut [f64; LANES],
    tiles: &[[T; LANES]],
    keep: &mut [[T; LANES]],
    frame: Frame<T>,
    class: usize,
) {
    let mut others = [T::ONE; LANES];
    others[class % LANES] = T::ZERO;
    for (b, block) in tiles.chunks(TILES).enumerate() {
        let mut lanes = [T::ZERO; LANES];
        for (t, tile) in block.iter().enumerate() {
            let mut e = [T::ZERO; LANES];
            prefetch(tile, AHEAD);
            (0..LANES).for_each(|i| e[i] = frame.exp::<FMA>(tile[i]));
            if KEEP {
                keep[b * TILES + t] = e;
            }
            if class / LANES == b * TILES + t {
                (0..LANES).for_each(|i| e[i] *= others[i]);
            }
            (0..LANES).for_each(|i| lanes[i] += e[i]);
        }
        empty_into(sums, &mut lanes);
    }
}

/// `w·(max − x)`, where a weight of 0 makes the term 0 whatever x is.
#[inline(always)]
fn term_below<T: Float>(w: T, max: T, x: T) -> T {
    let term = w * (max - x);
    if w == T::ZERO { T::ZERO } else { term }
}

/// `Σ_k w_k·(max − x_k)`; all weights are 1 unless `WEIGHTED`.
#[inline(always)]
fn sum_below<T: Float, const WEIGHTED: bool>(x: &[T], weight: &[T], max: T) -> f64 {
    let (tiles, last, skip) = split(x);
    let (w_tiles, w_last, _) = split(weight);
    let (mut sums, mut lanes) = ([0.0; LANES], [T::ZERO; LANES]);
    for i in 0..LANES {
        let w = if WEIGHTED { w_last[i] } else { T::ONE };
        lanes[i] = if i < skip { T::ZERO } else { term_below(w, max, last[i]) };
    }
    empty_into(&mut sums, &mut lanes);
    for (block, w_block) in tiles.chunks(TILES).zip(w_tiles.chunks(TILES)) {
        for (tile, w) in block.iter().zip(w_block) {
            for i in 0..LANES {
                lanes[i] += term_below(if WEIGHTED { w[i] } else { T::ONE }, max, tile[i]);
            }
        }
        empty_into(&mut sums, &mut lanes);
    }
    tree_sum(black_box(sums))
}

/// Whole tiles, the last [`LANES`] elements, and how many of these are in the tiles.
#[inline(always)]
fn split<T: Copy>(x: &[T]) -> (&[[T; LANES]], &[T; LANES], usize) {
    let (tiles, tail) = x.as_chunks();
    let Some(last) = x.last_chunk() else { unreachable!("bug: a wide row of {}", x.len()) };
    (tiles, last, LANES - tail.len())
}

impl RowSums {
    /// From lifted exponentials in `frame.lifted()`; back to the scale of `frame`, exactly.
    #[inline(always)]
    fn lowered<T: Float>(frame: Frame<T>, max: T, [picked, rest, top, below]: [f64; 4]) -> Self {
        let (picked, rest, top) = (picked * LOWER, rest * LOWER, top * LOWER);
        let (shift, max) = (frame.shift.to_f64(), max.to_f64());
        RowSums { picked, rest, shift, k: frame.k, max, top, below }
    }

    /// Of a row with NaN, with +∞, or with nothing but −∞.
    #[cold]
    fn none<T: Float>(x: &[T]) -> Self {
        let [picked, rest, top, below] = [f64::NAN; 4];
        let max = x.iter().fold(T::LOWEST, |a, &x| a.larger(x)).to_f64();
        RowSums { picked, rest, shift: 0.0, k: 0, max, top, below }
    }
}

/// The sum of a wide row's exponentials but that of `class`.
#[inline(always)]
fn wide_sum<T: Float, const FMA: bool, const KEEP: bool>(
    x: &[T],
    keep: &mut [T],
    frame: Frame<T>,
    class: usize,
) -> f64 {
    let (tiles, last, skip) = split(x);
    let mut sums = [0.0; LANES];
    let kept = keep.as_chunks_mut::<LANES>().0;
    add_tiles::<T, FMA, KEEP>(&mut sums, tiles, kept, frame, class);
    // What the last entries share with the last tile is there already.
    let (mut e, first) = (*last, x.len() - LANES);
    for e in &mut e {
        *e = frame.exp::<FMA>(*e);
    }
    if let Some(keep) = keep.last_chunk_mut::<LANES>() {
        *keep = e;
    }
    for (i, e) in e.iter_mut().enumerate() {
        let counts = i >= skip && first + i != class;
        *e = if counts { *e } else { T::ZERO };
    }
    empty_into(&mut sums, &mut e);
    tree_sum(black_box(sums))
}

/// The same of rows that lie side by side, and the exponentials of their classes.
#[inline(always)]
fn narrow_sums<T: Float, const FMA: bool>(
    tiles: &[[T; LANES]],
    frames: &Frames<T>,
    class: &[i32; LANES],
) -> ([T; LANES], [f64; LANES]) {
    let (mut picked, mut lanes, mut rest) = ([T::ZERO; LANES], [T::ZERO; LANES], [0.0; LANES]);
    for (b, block) in tiles.chunks(TILES).enumerate() {
        for (k, tile) in block.iter().enumerate() {
            for l in 0..LANES {
                let e = frames.at(l).exp::<FMA>(tile[l]);
                let own = class[l] == (b * TILES + k) as i32;
                picked[l] = if own { e } else { picked[l] };
                lanes[l] += if own { T::ZERO } else { e };
            }
        }
        empty_into(&mut rest, &mut lanes);
    }
    (picked, rest)
}

/// `Σ_k w_k·(max − x_k)` of rows that lie side by side.
#[inline(always)]
fn narrow_below<T: Float>(
    tiles: &[[T; LANES]],
    max: &[T; LANES],
    weights: Factors<'_, T>,
    (first, count): (usize, usize),
) -> [f64; LANES] {
    let (mut lanes, mut sums) = ([T::ZERO; LANES], [0.0; LANES]);
    for (b, block) in tiles.chunks(TILES).enumerate() {
        for (k, tile) in block.iter().enumerate() {
            let w = weights.class(first, count, b * TILES + k);
            for l in 0..LANES {
                lanes[l] += term_below(w[l], max[l], tile[l]);
            }
        }
        empty_into(&mut sums, &mut lanes);
    }
    sums
}

impl<T: Float> Kernel for Sums<'_, '_, T> {
    type Output = ();
    /// Each step for [`LANES`] rows before the next: no row waits for its own last step.
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let SumRows { x: block, pick, below } = self.rows;
        let classes = block.classes;
        let mut tiles = [[T::ZERO; LANES]; NARROW];
        let tiles = &mut tiles[..if classes <= NARROW { classes } else { 0 }];
        for (g, out) in self.out.chunks_mut(LANES).enumerate() {
            let (first, count) = (g * LANES, out.len());
            let mut class = [0; LANES];
            if let Pick::Class(classes) = pick {
                class[..count].copy_from_slice(&classes[first..first + count]);
            }
            block.gather(first, count, tiles);
            let mut max = largest([tiles, &[]]);
            if classes > NARROW {
                for l in (0..count).filter(|&l| class[l] >= 0) {
                    let (x, last, _) = split(block.row(first + l));
                    max[l] = tree(largest([x, &[*last]]), |a, b| if b > a { b } else { a });
                }
            }
            let frames = Frames::new(|l| Frame::new::<FMA>(max[l]));
            let lifted = Frames::new(|l| frames.at(l).lifted());
            let summable = |l: usize| max[l].abs() != T::INFINITY;
            if let Pick::Max = pick {
                for l in (0..count).filter(|&l| summable(l)) {
                    class[l] = place(block.row(first + l), max[l]) as i64;
                }
            }
            let (mut picked, mut rest) =
                narrow_sums::<T, FMA>(tiles, &lifted, &class.map(|c| c as i32));
            let mut under = [0.0; LANES];
            if let (Some(weights), true) = (below, classes <= NARROW) {
                under = narrow_below(tiles, &max, weights, (first, count));
            }
            if classes > NARROW {
                for l in (0..count).filter(|&l| summable(l)) {
                    let (x, class) = (block.row(first + l), class[l] as usize);
                    let keep = self.keep.get_mut((first + l) * classes..).unwrap_or_default();
                    rest[l] = if keep.is_empty() {
                        wide_sum::<T, FMA, false>(x, keep, lifted.at(l), class)
                    } else {
                        wide_sum::<T, FMA, true>(x, &mut keep[..classes], lifted.at(l), class)
                    };
                    picked[l] = x[class];
                    under[l] = match below {
                        None => 0.0,
                        Some(Factors::One) => sum_below::<T, false>(x, x, max[l]),
                        Some(w) => sum_below::<T, true>(x, w.row(first + l), max[l]),
                    };
                }
                for (l, e) in picked.iter_mut().enumerate() {
                    *e = lifted.at(l).exp::<FMA>(*e);
                }
            }
            let mut top = [T::ZERO; LANES];
            for l in 0..LANES {
                top[l] = lifted.at(l).exp::<FMA>(max[l]);
            }
            for (l, out) in out.iter_mut().enumerate() {
                *out = match pick {
                    Pick::Class(_) if class[l] < 0 => RowSums::default(),
                    _ if rest[l].is_nan() || picked[l].to_f64().is_nan() || !summable(l) => {
                        RowSums::none(block.row(first + l))
                    }
                    _ => {
                        let numbers = [picked[l].to_f64(), rest[l], top[l].to_f64(), under[l]];
                        RowSums::lowered(frames.at(l), max[l], numbers)
                    }
                };
            }
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

/// f and c of one row of [`GradientRows`], the frame of its exponentials, and whether it is that of kept
/// ones; `None` writes zeros and reads nothing.
pub(crate) type RowScale<T> = Option<(T, T, Frame<T>, bool)>;

/// `y_k = f·e_k + c·b_k` for some rows, with f and c of each row.
#[doc(hidden)]
pub struct GradientRows<'a, T> {
    pub(crate) x: Block<'a, T>,
    pub(crate) scales: &'a [RowScale<T>],
    pub(crate) b: Factors<'a, T>,
    /// Where rows are wide and `kept`, it holds the exponentials that [`Sums`] kept.
    pub(crate) out: &'a mut [T],
    pub(crate) kept: bool,
}

impl<T: Float> GradientRows<'_, T> {
    #[inline(always)]
    fn wide<const FMA: bool>(self) {
        let ones = [T::ONE; LANES];
        for (r, out) in self.out.chunks_exact_mut(self.x.classes).enumerate() {
            let Some((f, c, frame, lifted)) = self.scales[r] else {
                out.fill(T::ZERO);
                continue;
            };
            let Some(last) = out.last_chunk::<LANES>().copied() else { return };
            let (x_tiles, x_last, _) = split(self.x.row(r));
            let b = self.b.row(r);
            let b_last = b.last_chunk().unwrap_or(&ones);
            let scale = |e: T, b: T| f.mul_add::<FMA>(e, c * b);
            let kept = self.kept && lifted;
            let whole = LANES * x_tiles.len();
            match (kept, b.is_empty()) {
                (true, true) => out[..whole].iter_mut().for_each(|o| *o = scale(*o, T::ONE)),
                (true, false) => {
                    out[..whole].iter_mut().zip(b).for_each(|(o, &b)| *o = scale(*o, b));
                }
                (false, true) => {
                    for (o, &x) in out[..whole].iter_mut().zip(self.x.row(r)) {
                        *o = scale(frame.exp::<FMA>(x), T::ONE);
                    }
                }
                (false, false) => {
                    for ((o, &x), &b) in out[..whole].iter_mut().zip(self.x.row(r)).zip(b) {
                        *o = scale(frame.exp::<FMA>(x), b);
                    }
                }
            }
            if let Some(o) = out.last_chunk_mut::<LANES>() {
                for i in 0..LANES {
                    let e = if kept { last[i] } else { frame.exp::<FMA>(x_last[i]) };
                    o[i] = scale(e, b_last[i]);
                }
            }
        }
    }

    #[inline(always)]
    fn narrow<const FMA: bool>(self) {
        let GradientRows { x: block, scales, b, out, .. } = self;
        let classes = block.classes;
        let mut tiles = [[T::ZERO; LANES]; NARROW];
        let groups = out.chunks_mut(LANES * classes).zip(scales.chunks(LANES));
        for (g, (out, scales)) in groups.enumerate() {
            let (first, count) = (g * LANES, scales.len());
            let unused = (T::ZERO, T::ZERO, Frame::at(T::ZERO, 0), false);
            let (mut f, mut c, mut used) = ([T::ZERO; LANES], [T::ZERO; LANES], [false; LANES]);
            let frames = Frames::new(|l| {
                let scale = scales.get(l).copied().flatten();
                let (of_row, c_of_row, frame, _) = scale.unwrap_or(unused);
                (f[l], c[l], used[l]) = (of_row, c_of_row, scale.is_some());
                frame
            });
            block.gather(first, count, &mut tiles[..classes]);
            for (k, tile) in tiles[..classes].iter_mut().enumerate() {
                let b = b.class(first, count, k);
                for l in 0..LANES {
                    let y = f[l].mul_add::<FMA>(frames.at(l).exp::<FMA>(tile[l]), c[l] * b[l]);
                    tile[l] = if used[l] { y } else { T::ZERO };
                }
            }
            scatter(&tiles[..classes], out);
        }
    }
}

/// The reverse of [`Block::gather`], for as many rows as `out` has.
#[inline(always)]
fn scatter<T: Copy>(tiles: &[[T; LANES]], out: &mut [T]) {
    for (l, row) in out.chunks_exact_mut(tiles.len()).enumerate() {
        for (o, tile) in row.iter_mut().zip(tiles) {
            *o = black_box(tile)[l];
        }
    }
}

impl<T: Float> Kernel for GradientRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        if self.x.classes <= NARROW { self.narrow::<FMA>() } else { self.wide::<FMA>() }
    }
}
