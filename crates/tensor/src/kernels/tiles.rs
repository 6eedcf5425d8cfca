//! Vector loops over a tile of logits that lies transposed: a row of numbers for each class, a lane for
//! each row of the batch. The numerics are those of `exponentials`; each tile has frames of its own.

use super::Kernel;
use super::exponentials::{Frame, LANES, RowScale};
use crate::element::Float;

/// Rows of a tile that are added in the element type before `f64` takes over; as in `exponentials`.
const BLOCK: usize = 4;

/// What the lanes of a tile have: as many groups of lanes as it is wide.
pub(super) type Groups<T> = Vec<[T; LANES]>;

/// A tile: `width` lanes, a multiple of [`LANES`], of rows that lie `stride` apart.
pub(crate) struct Tile<'a, T> {
    pub(super) data: &'a mut [T],
    pub(super) stride: usize,
    pub(super) width: usize,
}

impl<T> Tile<'_, T> {
    #[inline(always)]
    fn rows(&mut self) -> impl Iterator<Item = &mut [[T; LANES]]> {
        let width = self.width;
        self.data.chunks_exact_mut(self.stride).map(move |row| row[..width].as_chunks_mut().0)
    }
}

/// A weight for each class of a tile.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a, T> {
    None,
    One,
    Each(&'a [T]),
}

impl<T: Float> Weights<'_, T> {
    #[inline(always)]
    fn at(&self, class: usize) -> T {
        match self {
            Weights::None => T::ZERO,
            Weights::One => T::ONE,
            Weights::Each(w) => w[class],
        }
    }
}

/// Products become logits: a bias for each class, unless there is none, and `S·tanh(x/S)`, unless S is 0.
pub struct TileLogits<'a, T> {
    pub(super) tile: Tile<'a, T>,
    pub(super) bias: &'a [T],
    pub(super) cap: T,
}

impl<T: Float> Kernel for TileLogits<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(mut self) {
        let cap = self.cap;
        for (class, row) in self.tile.rows().enumerate() {
            let bias = if self.bias.is_empty() { T::ZERO } else { self.bias[class] };
            for group in row {
                for x in group {
                    let logit = *x + bias;
                    *x = logit;
                    if cap != T::ZERO {
                        *x = cap * (logit / cap).vtanh::<FMA>();
                    }
                }
            }
        }
    }
}

/// The exponentials of a tile, summed for each lane.
pub struct TileSums<'a, T> {
    pub(super) tile: Tile<'a, T>,
    /// The place of each lane's class in the tile; negative where it is not there.
    pub(super) own: &'a [i32],
    pub(super) weights: Weights<'a, T>,
    /// Whether the exponentials, lifted, take the place of the logits; those of the lanes' classes are 0.
    pub(super) keep: bool,
}

/// What [`TileSums`] finds for each lane; the exponentials are lifted.
pub struct Lanes<T> {
    /// The largest, and the first place that has it.
    pub(super) max: Groups<T>,
    pub(super) place: Groups<i32>,
    pub(super) shift: Groups<T>,
    pub(super) k: Groups<i32>,
    /// Sums without the lanes' classes.
    pub(super) rest: Groups<f64>,
    pub(super) top: Groups<T>,
    /// The logit of each lane's class and its exponential; −∞ and 0 where it is not there.
    pub(super) own: Groups<T>,
    pub(super) picked: Groups<T>,
    /// `Σ w·(max − x)`, with 0 for a largest that is not finite.
    pub(super) below: Groups<f64>,
}

impl<T: Float> Lanes<T> {
    pub(super) fn new(width: usize) -> Self {
        fn all<A: Copy>(x: A, width: usize) -> Groups<A> {
            vec![[x; LANES]; width / LANES]
        }
        let (zeros, none) = (all(T::ZERO, width), all(-T::INFINITY, width));
        Lanes {
            max: none.clone(),
            place: all(0, width),
            shift: zeros.clone(),
            k: all(0, width),
            rest: all(0.0, width),
            top: zeros.clone(),
            own: none,
            picked: zeros,
            below: all(0.0, width),
        }
    }
}

pub(super) struct Sums<'a, 'o, T> {
    pub(super) tile: TileSums<'a, T>,
    pub(super) out: &'o mut Lanes<T>,
}

impl<T: Float> Kernel for Sums<'_, '_, T> {
    type Output = ();
    /// One group of lanes after another: its part of the tile stays in the first cache.
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let TileSums { tile, own, weights, keep } = self.tile;
        let (out, step) = (self.out, tile.stride / LANES);
        let groups = tile.data.as_chunks_mut::<LANES>().0;
        for g in 0..tile.width / LANES {
            let x = &mut groups[g..];
            let (max, place) = largest(x, step);
            let (mut shift, mut k, mut low) = ([T::ZERO; LANES], [0; LANES], [T::ZERO; LANES]);
            let mut base = [0.0; LANES];
            for i in 0..LANES {
                let finite = max[i].abs() < T::INFINITY;
                let frame = if finite { Frame::new::<FMA>(max[i]) } else { Frame::at(T::ZERO, 0) };
                let frame = frame.lifted();
                (shift[i], k[i], low[i]) = (frame.shift, frame.k, frame.low);
                base[i] = if finite { max[i].to_f64() } else { 0.0 };
            }
            if !matches!(weights, Weights::None) {
                out.below[g] = below(x, step, weights, &base);
            }
            let own = own.get(g * LANES..).unwrap_or_default();
            let mut logits = [-T::INFINITY; LANES];
            for (i, &own) in own.iter().take(LANES).enumerate().filter(|(_, own)| **own >= 0) {
                logits[i] = std::mem::replace(&mut x[own as usize * step][i], -T::INFINITY);
            }
            let frames = (&shift, &k, &low);
            if keep {
                out.rest[g] = add::<T, FMA, true>(x, step, frames);
            } else {
                out.rest[g] = add::<T, FMA, false>(x, step, frames);
                for (i, &own) in own.iter().take(LANES).enumerate().filter(|(_, own)| **own >= 0) {
                    x[own as usize * step][i] = logits[i];
                }
            }
            for i in 0..LANES {
                let frame = Frame { shift: shift[i], k: k[i], low: low[i] };
                out.top[g][i] = frame.exp::<FMA>(max[i]);
                out.picked[g][i] = frame.exp::<FMA>(logits[i]);
            }
            (out.max[g], out.place[g], out.own[g]) = (max, place, logits);
            (out.shift[g], out.k[g]) = (shift, k);
        }
    }
}

/// The maximum of each lane, and the first place that has it; NaN is passed over.
#[inline(always)]
fn largest<T: Float>(x: &[[T; LANES]], step: usize) -> ([T; LANES], [i32; LANES]) {
    let (mut max, mut place) = ([-T::INFINITY; LANES], [0; LANES]);
    for (class, x) in x.iter().step_by(step).enumerate() {
        for i in 0..LANES {
            let larger = x[i] > max[i];
            max[i] = if larger { x[i] } else { max[i] };
            place[i] = if larger { class as i32 } else { place[i] };
        }
    }
    (max, place)
}

#[inline(always)]
fn below<T: Float>(
    x: &[[T; LANES]],
    step: usize,
    weights: Weights<'_, T>,
    base: &[f64; LANES],
) -> [f64; LANES] {
    let mut sum = [0.0; LANES];
    for (class, x) in x.iter().step_by(step).enumerate() {
        let w = weights.at(class).to_f64();
        // A weight of 0 makes the term 0 whatever the logit is.
        if w != 0.0 {
            for i in 0..LANES {
                sum[i] += w * (base[i] - x[i].to_f64());
            }
        }
    }
    sum
}

/// The sum of each lane's exponentials, which take the place of x if `KEEP`.
#[inline(always)]
fn add<T: Float, const FMA: bool, const KEEP: bool>(
    x: &mut [[T; LANES]],
    step: usize,
    (shift, k, low): (&[T; LANES], &[i32; LANES], &[T; LANES]),
) -> [f64; LANES] {
    let mut sum = [0.0; LANES];
    for block in x.chunks_mut(BLOCK * step) {
        let mut lanes = [T::ZERO; LANES];
        for x in block.iter_mut().step_by(step) {
            let mut e = [T::ZERO; LANES];
            for i in 0..LANES {
                let frame = Frame { shift: shift[i], k: k[i], low: low[i] };
                e[i] = frame.exp::<FMA>(x[i]);
            }
            for i in 0..LANES {
                lanes[i] += e[i];
            }
            if KEEP {
                *x = e;
            }
        }
        for i in 0..LANES {
            sum[i] += lanes[i].to_f64();
        }
    }
    sum
}

/// The gradient in the logits of a tile, over what is there.
pub struct TileGradient<'a, T> {
    pub(super) tile: Tile<'a, T>,
    pub(super) source: Source<'a, T>,
    /// What [`TileGradient`] takes for nothing.
    pub(super) threshold: T,
}

/// Where the exponentials come from.
pub(crate) enum Source<'a, T> {
    /// They are there: `(e·a)·b`, and 0 where a is 0.
    Kept { a: &'a [[T; LANES]], b: &'a [[T; LANES]] },
    /// From the logits: `f·e + c·w`, times the slope `1 − (x/S)²` of a cap S that is not 0.
    Logits { rows: &'a Scales<T>, weights: Weights<'a, T>, cap: T },
}

/// [`RowScale`]s of the lanes.
pub(crate) struct Scales<T> {
    f: Groups<T>,
    c: Groups<T>,
    shift: Groups<T>,
    k: Groups<i32>,
    low: Groups<T>,
}

impl<T: Float> Scales<T> {
    /// Those of the first lanes; the others have 0.
    pub(super) fn new(scales: &[RowScale<T>], width: usize) -> Self {
        let zeros = vec![[T::ZERO; LANES]; width / LANES];
        let k = vec![[0; LANES]; width / LANES];
        let (f, c, shift, low) = (zeros.clone(), zeros.clone(), zeros.clone(), zeros);
        let mut all = Scales { f, c, shift, k, low };
        for (l, scale) in scales.iter().enumerate() {
            if let Some((f, c, frame, _)) = *scale {
                let (g, i) = (l / LANES, l % LANES);
                (all.f[g][i], all.c[g][i]) = (f, c);
                (all.shift[g][i], all.k[g][i], all.low[g][i]) = (frame.shift, frame.k, frame.low);
            }
        }
        all
    }
}

impl<T: Float> Kernel for TileGradient<'_, T> {
    type Output = bool;
    #[inline(always)]
    fn run<const FMA: bool>(mut self) -> bool {
        let (mut seen, threshold) = ([T::ZERO; LANES], self.threshold);
        match self.source {
            Source::Kept { a, b } => {
                for row in self.tile.rows() {
                    for ((x, a), b) in row.iter_mut().zip(a).zip(b) {
                        let (e, a, b, mut y) = (*x, *a, *b, [T::ZERO; LANES]);
                        for i in 0..LANES {
                            let product = (e[i] * a[i]) * b[i];
                            y[i] = if a[i] == T::ZERO { T::ZERO } else { product };
                        }
                        mark(&mut seen, &y, threshold);
                        *x = y;
                    }
                }
            }
            Source::Logits { rows, weights, cap } => {
                for (class, row) in self.tile.rows().enumerate() {
                    let w = weights.at(class);
                    for (g, x) in row.iter_mut().enumerate() {
                        let (logits, mut y) = (*x, [T::ZERO; LANES]);
                        let (f, c) = (rows.f[g], rows.c[g]);
                        let (shift, k, low) = (rows.shift[g], rows.k[g], rows.low[g]);
                        for i in 0..LANES {
                            let frame = Frame { shift: shift[i], k: k[i], low: low[i] };
                            y[i] = f[i].mul_add::<FMA>(frame.exp::<FMA>(logits[i]), c[i] * w);
                        }
                        if cap != T::ZERO {
                            for i in 0..LANES {
                                let share = logits[i] / cap;
                                y[i] *= (T::ONE - share) * (T::ONE + share);
                            }
                        }
                        for i in 0..LANES {
                            let none = (f[i] == T::ZERO) & (c[i] == T::ZERO);
                            y[i] = if none { T::ZERO } else { y[i] };
                        }
                        mark(&mut seen, &y, threshold);
                        *x = y;
                    }
                }
            }
        }
        let mut any = false;
        for x in seen {
            any |= x != T::ZERO;
        }
        any
    }
}

/// Notes in which lanes there was NaN, or more than the threshold.
#[inline(always)]
fn mark<T: Float>(seen: &mut [T; LANES], y: &[T; LANES], threshold: T) {
    for i in 0..LANES {
        seen[i] = if y[i].abs() <= threshold { seen[i] } else { T::ONE };
    }
}
