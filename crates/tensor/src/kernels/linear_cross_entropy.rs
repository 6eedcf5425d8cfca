//! Cross entropy of a linear layer's logits, which are never there as a whole.
//!
//! Rows go by chunks, classes by tiles. A first loop over the tiles of a chunk makes logits and their
//! exponentials, each tile in frames of its own, and sums them; a second one turns what was kept into
//! the gradient in the logits and multiplies it with weight and features: 2·N·V·D operations of the
//! first, 4·N·V·D of the second. Without memory for a chunk, or while the factors of its rows are
//! not known yet, the second loop makes the logits again. Tiles lie transposed, a lane for each row: all numbers of a row are vectors.
//! Sources: Wijmans et al., arXiv 2411.09009 (tiles, filter); Hsu et al., arXiv 2410.10989 (chunks).

use rayon::prelude::*;

use super::exponentials::{LANES, LIFT, LOWER, RowSums, logs};
use super::matmul::{MatRef, PARALLEL};
use super::softmax::{ClassTargets, Coefficients, LossRow, loss_scales};
use super::tiles::{
    Groups, Lanes, Scales, Source, Tile, TileGradient, TileLogits, TileSums, Weights,
};
use crate::buffer::Buffer;
use crate::element::Float;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Classes of a tile: its logits stay in the second cache; fewer, and packing the features for its products
/// takes more of the time.
const TILE: usize = 512;
/// Parts of the classes that have sums and a share of `dx` of their own. Not the number of threads, so
/// that the bits do not depend on it.
const SEGMENTS: usize = 16;
/// Rows of a chunk: more gain nothing, fewer make the products slow. Odd multiples of [`LANES`], so that
/// the columns of a tile do not share few places of a cache.
const ROWS: [usize; 6] = [176, 144, 112, 80, 48, 16];
const FEWEST_ROWS: usize = 80;
/// Memory for a chunk, unless [`FEWEST_ROWS`] take more.
const BYTES: usize = 64 << 20;

/// A linear layer before a loss: `x·Wᵀ + b`, and perhaps `S·tanh(·/S)` of it. All shapes fit.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a, T: Float> {
    /// `[N, D]`.
    pub x: &'a Tensor<T>,
    /// `[V, D]`.
    pub weight: &'a Tensor<T>,
    /// A number for each class, or empty.
    pub bias: &'a [T],
    /// S.
    pub softcap: Option<f64>,
    /// Tiles whose gradient in the logits is nowhere larger than this are left out.
    pub filter: f64,
    /// Rows of a chunk.
    pub chunk_rows: Option<usize>,
    /// How much memory a chunk may take.
    pub max_bytes: Option<usize>,
}

/// `dx`, `dW` and `db`, where they were wanted.
pub type Gradients<T> = [Option<Tensor<T>>; 3];

/// How the rows are divided, and whether a chunk keeps its logits.
#[derive(Clone, Copy)]
struct Plan {
    rows: usize,
    kept: bool,
}

/// Lanes of a chunk, and how far apart its rows of numbers lie.
fn extent(rows: usize) -> (usize, usize) {
    let width = rows.next_multiple_of(LANES);
    (width, if (width / LANES).is_multiple_of(2) { width + LANES } else { width })
}

impl<T: Float> Head<'_, T> {
    fn sizes(&self) -> [usize; 3] {
        let ([n, d], v) = (self.x.shape(), self.weight.shape()[0]) else {
            unreachable!("bug: features are a matrix")
        };
        [*n, v, *d]
    }

    fn tiles(&self) -> usize {
        self.sizes()[1].div_ceil(TILE)
    }

    /// Tiles of a segment.
    fn part(&self) -> usize {
        self.tiles().div_ceil(SEGMENTS).max(1)
    }

    /// Bytes that chunks of so many rows need beside inputs and results.
    fn bytes(&self, rows: usize, kept: bool) -> usize {
        let ([_, v, d], (width, stride)) = (self.sizes(), extent(rows));
        let segments = self.tiles().div_ceil(self.part());
        let logits = if kept {
            v.saturating_mul(stride) + 2 * self.tiles() * width
        } else {
            segments * v.min(TILE) * stride
        };
        logits.saturating_add(segments * rows * d).saturating_mul(size_of::<T>())
    }

    fn plan(&self, gradients: bool) -> Result<Plan> {
        let n = self.sizes()[0].max(1);
        let budget = self.max_bytes.unwrap_or(BYTES.max(self.bytes(FEWEST_ROWS.min(n), true)));
        let fitting = |kept: bool| {
            let given = self.chunk_rows.map(|rows| vec![rows]);
            let all = given.unwrap_or_else(|| [&ROWS[..], &[8, 4, 2, 1]].concat());
            all.into_iter().map(|rows| rows.min(n)).find(|&rows| self.bytes(rows, kept) <= budget)
        };
        let fewest = self.chunk_rows.unwrap_or(FEWEST_ROWS).min(n);
        let plan = match (fitting(true).filter(|&rows| gradients && rows >= fewest), fitting(false))
        {
            (Some(rows), _) => Plan { rows, kept: true },
            (None, Some(rows)) => Plan { rows, kept: false },
            (None, None) => {
                let needed = self.bytes(self.chunk_rows.unwrap_or(1).min(n), false);
                let rows = self.chunk_rows.unwrap_or(1);
                let reason = format!(
                    "must be at least {needed} for the tiles of {rows} rows, found {budget}"
                );
                let (op, name) = ("linear_cross_entropy", "max_bytes");
                return Err(Error::InvalidArgument { op, name, reason });
            }
        };
        // All chunks about as large.
        let even = n.div_ceil(n.div_ceil(plan.rows));
        let even = ROWS.into_iter().rfind(|&rows| rows >= even).unwrap_or(plan.rows);
        let rows = if self.chunk_rows.is_some() { plan.rows } else { even.min(plan.rows) };
        Ok(Plan { rows, ..plan })
    }

    /// The rows of each chunk.
    fn chunks(&self, plan: Plan) -> impl Iterator<Item = (usize, usize)> + use<T> {
        let n = if self.sizes()[1] == 0 { 0 } else { self.sizes()[0] };
        (0..n).step_by(plan.rows).map(move |first| (first, plan.rows.min(n - first)))
    }

    /// As [`cross_entropy`](super::softmax::cross_entropy) of the logits: 2·N·V·D operations.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] where `max_bytes` are not enough for a tile.
    pub fn cross_entropy(&self, targets: ClassTargets<'_, T>) -> Result<Vec<LossRow>> {
        let (plan, c) = (self.plan(false)?, Coefficients::new(targets, self.sizes()[1]));
        Ok(self.chunks(plan).flat_map(|rows| self.losses(&c, rows, &mut [], &mut [])).collect())
    }

    /// Losses, and the gradients that are wanted for `(s, t)` from `factors`, as
    /// [`cross_entropy_backward`](super::softmax::cross_entropy_backward): 6·N·V·D operations.
    ///
    /// # Errors
    /// As [`Head::cross_entropy`].
    pub fn cross_entropy_with_gradients(
        &self,
        targets: ClassTargets<'_, T>,
        wanted: [bool; 3],
        factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
    ) -> Result<(Vec<LossRow>, Gradients<T>)> {
        let plan = self.plan(true)?;
        if !plan.kept {
            let rows = self.cross_entropy(targets)?;
            let gradients = self.cross_entropy_backward(targets, &rows, wanted, factors)?;
            return Ok((rows, gradients));
        }
        let ([n, v, _], c) = (self.sizes(), Coefficients::new(targets, self.sizes()[1]));
        let mut frames = Vec::new();
        if self.softcap.is_none() {
            frames.resize_with(self.tiles(), TileFrames::default);
        }
        let stride = extent(plan.rows).1;
        let mut kept = Buffer::stale(v * stride);
        let kept = owned(&mut kept);
        let (mut rows, mut out) = (Vec::with_capacity(n), Outputs::new(self.sizes(), wanted));
        for (first, count) in self.chunks(plan) {
            let kept = &mut kept[..v * extent(count).1];
            rows.extend(self.losses(&c, (first, count), kept, &mut frames));
            self.backward((&c, &rows[first..], first), &factors, (kept, &frames), &mut out);
        }
        let gradients = self.finished(&c, &rows, &factors, out);
        Ok((rows, gradients))
    }

    /// The gradients that are wanted, given what [`Head::cross_entropy`] returned: 6·N·V·D operations.
    ///
    /// # Errors
    /// As [`Head::cross_entropy`].
    pub fn cross_entropy_backward(
        &self,
        targets: ClassTargets<'_, T>,
        rows: &[LossRow],
        wanted: [bool; 3],
        factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
    ) -> Result<Gradients<T>> {
        let (plan, c) = (self.plan(false)?, Coefficients::new(targets, self.sizes()[1]));
        let mut out = Outputs::new(self.sizes(), wanted);
        for (first, count) in self.chunks(plan) {
            let of_chunk = (&c, &rows[first..first + count], first);
            self.backward(of_chunk, &factors, (&mut [], &[]), &mut out);
        }
        Ok(self.finished(&c, rows, &factors, out))
    }

    /// Whether a chunk is worth a second thread.
    fn many(&self, count: usize) -> bool {
        let [_, v, d] = self.sizes();
        count * v * d >= PARALLEL && rayon::current_num_threads() > 1
    }

    fn features(&self, first: usize, count: usize) -> MatRef<'_, T> {
        let x = MatRef::of(self.x, self.x.layout.offset);
        MatRef { start: if count == 0 { x.start } else { x.position(first, 0) }, rows: count, ..x }
    }

    fn weights(&self, first: usize, count: usize) -> MatRef<'_, T> {
        let w = MatRef::of(self.weight, self.weight.layout.offset);
        MatRef { start: w.position(first, 0), rows: count, ..w }
    }

    fn cap(&self) -> T {
        T::from_f64(self.softcap.unwrap_or(0.0))
    }

    /// Classes from `start` on become logits of some rows.
    fn logits(&self, data: &mut [T], (start, classes): (usize, usize), rows: (usize, usize)) {
        let (width, stride) = extent(rows.1);
        let w = self.weights(start, classes);
        T::gemm_into((data, stride), w, self.features(rows.0, rows.1).t(), false);
        data.chunks_exact_mut(stride).for_each(|row| row[rows.1..width].fill(T::ZERO));
        let bias = self.bias.get(start..start + classes).unwrap_or_default();
        let (tile, cap) = (Tile { data, stride, width }, self.cap());
        if !bias.is_empty() || cap != T::ZERO {
            T::tile_logits(TileLogits { tile, bias, cap });
        }
    }
}

impl<T: Float> Head<'_, T> {
    /// The first loop: what the rows of a chunk have. `kept`, unless it is empty, is left with the
    /// exponentials and `frames` with what they are in; with logits, if `frames` is empty.
    fn losses(
        &self,
        c: &Coefficients<'_, T>,
        (first, count): (usize, usize),
        kept: &mut [T],
        frames: &mut [TileFrames<T>],
    ) -> Vec<LossRow> {
        let classes = &c.targets.classes[first..first + count];
        let (part, stride) = (self.part(), extent(count).1);
        let (mut kept, mut frames) =
            (kept.chunks_mut(part * TILE * stride), frames.chunks_mut(part));
        let segments = (0..self.tiles()).step_by(part).map(|tile| {
            let kept = kept.next().unwrap_or_default();
            (tile, kept, frames.next().unwrap_or_default())
        });
        let parts = each(segments.collect(), self.many(count), |(first_tile, kept, frames)| {
            self.segment_sums(c, (first, classes), first_tile, kept, frames)
        });
        let mut rows = vec![RowPart::default(); count];
        for segment in parts {
            for (row, part) in rows.iter_mut().zip(segment) {
                *row = row.with(part);
            }
        }
        let sums: Vec<RowSums> = rows.iter().map(RowPart::sums).collect();
        let gaps = logs(&sums, |s| s.rest / s.picked);
        let above = if c.smooth == 0.0 { vec![] } else { logs(&sums, RowSums::above_top) };
        let of_row = |(l, sums): (usize, RowSums)| {
            let Ok(class) = usize::try_from(classes[l]) else { return LossRow::default() };
            let RowPart { own, place, below, max, .. } = rows[l];
            let correct = c.targets.predictions && own == max && place == class;
            let above = above.get(l).copied().unwrap_or_default();
            let loss = c.loss((class, own), &sums, [gaps[l], above], || below);
            LossRow { loss, used: true, correct, a: c.sum(class), sums }
        };
        sums.into_iter().enumerate().map(of_row).collect()
    }

    fn segment_sums(
        &self,
        c: &Coefficients<'_, T>,
        (first, classes): (usize, &[i64]),
        first_tile: usize,
        kept: &mut [T],
        frames: &mut [TileFrames<T>],
    ) -> Vec<RowPart> {
        let (count, (width, stride)) = (classes.len(), extent(classes.len()));
        let (mut rows, mut lanes) = (vec![RowPart::default(); count], Lanes::new(width));
        let mut scratch = Buffer::stale(if kept.is_empty() { TILE * stride } else { 0 });
        let mut tiles = kept.chunks_mut(TILE * stride);
        for t in first_tile..self.tiles().min(first_tile + self.part()) {
            let (start, size) = self.tile(t);
            let data = match tiles.next() {
                Some(data) => data,
                None => &mut owned(&mut scratch)[..size * stride],
            };
            self.logits(data, (start, size), (first, count));
            let weights = match c.targets.weight {
                _ if c.smooth == 0.0 => Weights::None,
                None => Weights::One,
                Some(w) => Weights::Each(&w[start..start + size]),
            };
            let own: Vec<i32> = classes.iter().map(|&class| place(class, start, size)).collect();
            let (tile, keep) = (Tile { data, stride, width }, !frames.is_empty());
            T::tile_sums(TileSums { tile, own: &own, weights, keep }, &mut lanes);
            let weight = match weights {
                Weights::None => 0.0,
                Weights::One => size as f64,
                Weights::Each(w) => T::sum_slice(w),
            };
            for (l, row) in rows.iter_mut().enumerate() {
                *row = row.with(RowPart::of(&lanes, l, start, weight));
            }
            if let Some(frames) = frames.get_mut(t - first_tile) {
                frames.shift.clone_from(&lanes.shift);
                frames.k.clone_from(&lanes.k);
            }
        }
        rows
    }

    /// The second loop: adds what the rows of a chunk give to `dW` and `db`, and writes their `dx`.
    fn backward(
        &self,
        (c, rows, first): (&Coefficients<'_, T>, &[LossRow], usize),
        factors: &(impl Fn(usize, &LossRow) -> (f64, f64) + Sync),
        (kept, frames): (&mut [T], &[TileFrames<T>]),
        out: &mut Outputs<T>,
    ) {
        let ([_, _, d], count) = (self.sizes(), rows.len());
        let (part, (width, stride)) = (self.part(), extent(count));
        // Where the slope of a cap is not the same for all classes, smoothing has no rank 1.
        let spread = self.softcap.is_some();
        let scales = loss_scales(rows, first, if spread { c.smooth } else { 0.0 }, factors);
        let own: Vec<Option<(usize, f64)>> = (rows.iter().enumerate())
            .map(|(l, row)| {
                let class = usize::try_from(c.targets.classes[first + l]).ok()?;
                let ((s, t), _) = (factors(first + l, row), scales[l]?);
                Some((class, c.own(class, &row.sums, [s, t], spread)))
            })
            .collect();
        let f = |(l, row): (usize, &LossRow)| {
            let (s, t) = factors(first + l, row);
            (s * row.a + t) / (row.sums.rest + row.sums.picked)
        };
        let f = rows.iter().enumerate().map(f).collect();
        let from = ChunkRows { rows, f, own, scales: Scales::new(&scales, width), c, first };
        let dx =
            out.dx.as_mut().map_or(&mut [][..], |dx| &mut dx.make_mut()[first * d..][..count * d]);
        let segments = self.tiles().div_ceil(part);
        let mut shares = Buffer::stale(if dx.is_empty() { 0 } else { segments * dx.len() });
        let shares = owned(&mut shares);
        let dw = out.dw.as_mut().map_or(&mut [][..], |dw| dw.make_mut());
        let (mut kept, mut frames) = (kept.chunks_mut(part * TILE * stride), frames.chunks(part));
        let mut dw = dw.chunks_mut((part * TILE * d).max(1));
        let mut db = out.db.chunks_mut(part * TILE);
        let mut shares_of = shares.chunks_mut(dx.len().max(1));
        let tasks = (0..segments).map(|segment| Segment {
            first_tile: segment * part,
            kept: kept.next().unwrap_or_default(),
            frames: frames.next().unwrap_or_default(),
            dw: dw.next().unwrap_or_default(),
            db: db.next().unwrap_or_default(),
            dx: shares_of.next().unwrap_or_default(),
            accumulate: out.accumulate,
        });
        each(tasks.collect(), self.many(count), |segment| self.segment_backward(&from, segment));
        out.accumulate = true;
        if dx.is_empty() {
            return;
        }
        let shares = &*shares;
        let add = |(r, dx): (usize, &mut [T])| {
            dx.fill(T::ZERO);
            for share in shares.chunks(count * d) {
                dx.iter_mut().zip(&share[r * d..]).for_each(|(dx, &share)| *dx += share);
            }
        };
        if self.many(count) {
            dx.par_chunks_mut(d).enumerate().for_each(add);
        } else {
            dx.chunks_mut(d).enumerate().for_each(add);
        }
    }

    fn segment_backward(&self, of: &ChunkRows<'_, T>, segment: Segment<'_, T>) {
        let ([_, _, d], count) = (self.sizes(), of.rows.len());
        let (width, stride) = extent(count);
        let mut scratch = Buffer::stale(if segment.kept.is_empty() { TILE * stride } else { 0 });
        let fresh = segment.kept.is_empty();
        let (mut tiles, mut dw_tiles) =
            (segment.kept.chunks_mut(TILE * stride), segment.dw.chunks_mut((TILE * d).max(1)));
        let mut db_tiles = segment.db.chunks_mut(TILE);
        let (x, mut found) = (self.features(of.first, count), false);
        for t in segment.first_tile..self.tiles().min(segment.first_tile + self.part()) {
            let (start, size) = self.tile(t);
            let (dw, db) =
                (dw_tiles.next().unwrap_or_default(), db_tiles.next().unwrap_or_default());
            let data = match tiles.next() {
                Some(data) => data,
                None => &mut owned(&mut scratch)[..size * stride],
            };
            if fresh {
                self.logits(data, (start, size), (of.first, count));
            }
            let frames = segment.frames.get(t - segment.first_tile);
            let any = of.gradient(data, (start, size), (width, stride), frames, self);
            if !any {
                if !segment.accumulate {
                    dw.fill(T::ZERO);
                }
                continue;
            }
            for (db, row) in db.iter_mut().zip(data.chunks(stride)) {
                *db += T::sum_slice(&row[..count]);
            }
            let (rows, columns) = (size, count);
            let (row_stride, column_stride) = (stride as isize, 1);
            let tile = MatRef { data, start: 0, rows, columns, row_stride, column_stride };
            if !dw.is_empty() {
                T::gemm_into((dw, d), tile, x, segment.accumulate);
            }
            if !segment.dx.is_empty() {
                T::gemm_into((segment.dx, d), tile.t(), self.weights(start, size), found);
            }
            found = true;
        }
        if !found {
            segment.dx.fill(T::ZERO);
        }
    }

    /// First class and number of classes.
    fn tile(&self, t: usize) -> (usize, usize) {
        (t * TILE, TILE.min(self.sizes()[1] - t * TILE))
    }

    /// Results, with the part of smoothing in the gradient: `−s·(ε/V)·w` has rank 1.
    fn finished(
        &self,
        c: &Coefficients<'_, T>,
        rows: &[LossRow],
        factors: &impl Fn(usize, &LossRow) -> (f64, f64),
        mut out: Outputs<T>,
    ) -> Gradients<T> {
        let [n, v, d] = self.sizes();
        if !out.accumulate
            && let Some(dw) = &mut out.dw
        {
            dw.make_mut().fill(T::ZERO); // no rows
        }
        if c.smooth != 0.0 && self.softcap.is_none() && out.accumulate {
            let s = |(r, row): (usize, &LossRow)| if row.used { factors(r, row).0 } else { 0.0 };
            let s: Vec<f64> = rows.iter().enumerate().map(s).collect();
            let outer = |column: Vec<T>, rows: MatRef<'_, T>| {
                let mut product = vec![T::ZERO; d];
                let (start, columns) = (0, column.len());
                let (row_stride, column_stride) = (columns as isize, 1);
                let row =
                    MatRef { data: &column, start, rows: 1, columns, row_stride, column_stride };
                T::gemm(&mut product, row, rows, false);
                product
            };
            if let Some(dx) = &mut out.dx {
                let w = c.targets.weight.map_or(vec![T::ONE; v], <[T]>::to_vec);
                let sum = outer(w, self.weights(0, v));
                subtract(dx.make_mut(), &sum, |r| c.smooth * s[r]);
            }
            if let Some(dw) = &mut out.dw {
                let sum = outer(s.iter().map(|&s| T::from_f64(s)).collect(), self.features(0, n));
                subtract(dw.make_mut(), &sum, |class| c.smooth * c.weight(class));
            }
            let total: f64 = s.iter().sum();
            for (class, db) in out.db.iter_mut().enumerate() {
                *db -= c.smooth * c.weight(class) * total;
            }
        }
        let db = out.bias.then(|| {
            Tensor::build([v].into(), |out_db| {
                out_db.iter_mut().zip(&out.db).for_each(|(o, &db)| *o = T::from_f64(db));
            })
        });
        [out.dx, out.dw, db]
    }
}

/// `out_r −= factor(r)·row`; rows of factor 0 stay.
fn subtract<T: Float>(out: &mut [T], row: &[T], factor: impl Fn(usize) -> f64 + Sync) {
    if row.is_empty() {
        return;
    }
    out.par_chunks_mut(row.len()).enumerate().with_min_len(64).for_each(|(r, out)| {
        let factor = T::from_f64(factor(r));
        if factor != T::ZERO {
            out.iter_mut().zip(row).for_each(|(o, &x)| *o -= factor * x);
        }
    });
}

/// Calls `work` for each of them, on several threads if there is `many` to do.
fn each<S: Send, R: Send>(all: Vec<S>, many: bool, work: impl Fn(S) -> R + Sync) -> Vec<R> {
    if many {
        all.into_par_iter().map(&work).collect()
    } else {
        all.into_iter().map(work).collect()
    }
}

/// The elements of a buffer that was made here.
fn owned<T: Float>(buffer: &mut Buffer<T>) -> &mut [T] {
    match buffer.get_mut() {
        Some(all) => all,
        None => unreachable!("bug: a new buffer is shared"),
    }
}

/// Where in a tile a class is; negative if it is not.
fn place(class: i64, start: usize, size: usize) -> i32 {
    let place = class - start as i64;
    if class >= 0 && (0..size as i64).contains(&place) { place as i32 } else { -1 }
}

/// The frames of a tile's exponentials.
#[derive(Default)]
struct TileFrames<T> {
    shift: Groups<T>,
    k: Groups<i32>,
}

/// What a part of the classes has of a row; exponentials are in units of `2ᴷ·exp(shift)`.
#[derive(Clone, Copy)]
struct RowPart {
    max: f64,
    /// The first class that has it.
    place: usize,
    shift: f64,
    k: i32,
    /// The sum of the exponentials of other classes than the row's.
    rest: f64,
    top: f64,
    /// Logit and exponential of the row's class; −∞ and 0 where it is elsewhere.
    own: f64,
    picked: f64,
    /// `Σ w·(max − x)`, with 0 for a largest that is not finite, and `Σ w`.
    below: f64,
    weight: f64,
}

impl Default for RowPart {
    fn default() -> Self {
        let none = f64::NEG_INFINITY;
        let [shift, rest, top, picked, below, weight] = [0.0; 6];
        RowPart { max: none, place: 0, shift, k: 0, rest, top, own: none, picked, below, weight }
    }
}

/// `2^(k − to.k)·exp(shift − to.shift)`.
fn rescale((shift, k): (f64, i32), to: (f64, i32)) -> f64 {
    let n = k - to.1;
    if shift == to.0 {
        2.0_f64.powi(n)
    } else {
        ((shift - to.0) + f64::from(n) * std::f64::consts::LN_2).exp()
    }
}

impl RowPart {
    fn of<T: Float>(lanes: &Lanes<T>, l: usize, start: usize, weight: f64) -> Self {
        let (g, i) = (l / LANES, l % LANES);
        RowPart {
            max: lanes.max[g][i].to_f64(),
            place: start + lanes.place[g][i] as usize,
            shift: lanes.shift[g][i].to_f64(),
            k: lanes.k[g][i],
            rest: lanes.rest[g][i],
            top: lanes.top[g][i].to_f64(),
            own: lanes.own[g][i].to_f64(),
            picked: lanes.picked[g][i].to_f64(),
            below: lanes.below[g][i],
            weight,
        }
    }

    /// Together with a part of later classes.
    fn with(self, later: Self) -> Self {
        let (mut all, part) = if later.max > self.max { (later, self) } else { (self, later) };
        let scale = rescale((part.shift, part.k), (all.shift, all.k));
        let scaled = |x: f64| if x == 0.0 { 0.0 } else { x * scale };
        all.rest += scaled(part.rest);
        all.picked += scaled(part.picked);
        all.own = if part.own > f64::NEG_INFINITY { part.own } else { all.own };
        let base = |max: f64| if max.is_finite() { max } else { 0.0 };
        let rise = base(all.max) - base(part.max);
        all.below += part.below + if part.weight == 0.0 { 0.0 } else { part.weight * rise };
        all.weight += part.weight;
        all
    }

    /// Without the lift of the exponentials.
    fn sums(&self) -> RowSums {
        let RowPart { max, shift, k, rest, top, picked, .. } = *self;
        if rest.is_nan() || picked.is_nan() || !max.is_finite() {
            let [picked, rest, top, below] = [f64::NAN; 4];
            return RowSums { picked, rest, shift: 0.0, k: 0, max, top, below };
        }
        let (picked, rest, top) = (picked * LOWER, rest * LOWER, top * LOWER);
        RowSums { picked, rest, shift, k: k + LIFT, max, top, below: 0.0 }
    }
}

/// What the second loop needs of a chunk's rows.
struct ChunkRows<'a, T> {
    rows: &'a [LossRow],
    first: usize,
    /// `(s·a + t)/S`.
    f: Vec<f64>,
    /// Class, and the gradient in its logit.
    own: Vec<Option<(usize, f64)>>,
    scales: Scales<T>,
    c: &'a Coefficients<'a, T>,
}

impl<T: Float> ChunkRows<'_, T> {
    /// The gradient in the logits of a tile, over its exponentials or logits; whether there is any.
    fn gradient(
        &self,
        data: &mut [T],
        (start, size): (usize, usize),
        (width, stride): (usize, usize),
        frames: Option<&TileFrames<T>>,
        head: &Head<'_, T>,
    ) -> bool {
        let cap = head.cap();
        let mut patches = Vec::new();
        for (l, &own) in self.own.iter().enumerate() {
            let Some((class, value)) = own else { continue };
            if let Ok(place) = usize::try_from(place(class as i64, start, size)) {
                let at = place * stride + l;
                let share = if cap == T::ZERO { 0.0 } else { (data[at] / cap).to_f64() };
                patches.push((at, T::from_f64(value * (1.0 - share) * (1.0 + share))));
            }
        }
        let (a, b);
        let source = match frames {
            Some(frames) => {
                (a, b) = self.kept_factors(frames, width);
                Source::Kept { a: &a, b: &b }
            }
            None => {
                let weights = match self.c.targets.weight {
                    _ if self.c.smooth == 0.0 || head.softcap.is_none() => Weights::None,
                    None => Weights::One,
                    Some(w) => Weights::Each(&w[start..start + size]),
                };
                Source::Logits { rows: &self.scales, weights, cap }
            }
        };
        let threshold = T::from_f64(head.filter);
        let tile = Tile { data: &mut *data, stride, width };
        let mut any = T::tile_gradient(TileGradient { tile, source, threshold });
        for (at, value) in patches {
            data[at] = value;
            any |= value.abs() > threshold || value.to_f64().is_nan();
        }
        any
    }

    /// Two factors of each lane's exponentials, so that neither leaves the normal numbers.
    fn kept_factors(&self, frames: &TileFrames<T>, width: usize) -> (Groups<T>, Groups<T>) {
        let empty = vec![[T::ZERO; LANES]; width / LANES];
        let (mut a, mut b) = (empty.clone(), empty);
        let least = if size_of::<T>() == 4 { f32::MIN_POSITIVE.into() } else { f64::MIN_POSITIVE };
        for (l, (row, &f)) in self.rows.iter().zip(&self.f).enumerate() {
            let (g, i) = (l / LANES, l % LANES);
            if self.own[l].is_none() {
                continue;
            }
            let of_tile = (frames.shift[g][i].to_f64(), frames.k[g][i]);
            let scale = rescale(of_tile, (row.sums.shift, row.sums.k - LIFT));
            let (large, small) =
                if f.abs() > LOWER { (f * LOWER, scale) } else { (LOWER, f * scale) };
            let small = if small.abs() < least { 0.0 } else { small };
            (a[g][i], b[g][i]) = (T::from_f64(large), T::from_f64(small));
        }
        (a, b)
    }
}

/// What a task of the second loop has.
struct Segment<'a, T> {
    first_tile: usize,
    kept: &'a mut [T],
    frames: &'a [TileFrames<T>],
    dw: &'a mut [T],
    db: &'a mut [f64],
    dx: &'a mut [T],
    /// Whether `dw` has something already.
    accumulate: bool,
}

struct Outputs<T: Float> {
    dx: Option<Tensor<T>>,
    dw: Option<Tensor<T>>,
    /// Of all classes, or empty.
    db: Vec<f64>,
    bias: bool,
    accumulate: bool,
}

impl<T: Float> Outputs<T> {
    fn new([n, v, d]: [usize; 3], [x, weight, bias]: [bool; 3]) -> Self {
        let stale = |wanted: bool, rows| wanted.then(|| Tensor::build([rows, d].into(), |_| {}));
        let db = vec![0.0; if bias { v } else { 0 }];
        Outputs { dx: stale(x, n), dw: stale(weight, v), db, bias, accumulate: false }
    }
}

#[cfg(test)]
mod tests {
    use super::super::softmax;
    use super::*;
    use crate::random::Generator;

    struct Problem<T: Float> {
        x: Tensor<T>,
        w: Tensor<T>,
        bias: Vec<T>,
        classes: Vec<i64>,
        class_weight: Vec<T>,
    }

    fn problem<T: Float>([n, v, d]: [usize; 3]) -> Problem<T> {
        let mut rng = Generator::new(7);
        let mut normal = |shape: &[usize]| Tensor::<T>::randn(shape, &mut rng).unwrap();
        Problem {
            x: normal(&[n, d]),
            w: normal(&[v, d]),
            bias: normal(&[v]).to_vec(),
            classes: (0..n as i64).map(|i| i * 7919 % (v as i64 + 1) - 1).collect(),
            class_weight: (0..v).map(|k| T::from_f64((k % 5) as f64 / 2.0)).collect(),
        }
    }

    impl<T: Float> Problem<T> {
        fn head(&self) -> Head<'_, T> {
            Head {
                x: &self.x,
                weight: &self.w,
                bias: &self.bias,
                softcap: None,
                filter: 0.0,
                chunk_rows: None,
                max_bytes: None,
            }
        }

        /// Losses and gradients by way of the logits.
        fn unfused(
            &self,
            targets: ClassTargets<'_, T>,
            softcap: Option<f64>,
            factors: impl Fn(usize, &LossRow) -> (f64, f64) + Sync,
        ) -> (Vec<LossRow>, [Tensor<T>; 3]) {
            let v = self.bias.len();
            let bias = Tensor::from_slice(&self.bias, [v]).unwrap();
            let logits = self.x.linear(&self.w, Some(&bias)).unwrap();
            let cap = T::from_f64(softcap.unwrap_or(1.0));
            let capped = if softcap.is_some() { (&logits / cap).tanh() * cap } else { logits };
            let (rows, mut g) = softmax::cross_entropy_with_gradient(&capped, 1, targets, factors);
            if softcap.is_some() {
                g = g * (-(&capped / cap).square() + T::ONE);
            }
            let g_t = g.transpose(0, 1).unwrap();
            let (dx, dw) = (g.matmul(&self.w).unwrap(), g_t.matmul(&self.x).unwrap());
            (rows, [dx, dw, g.sum_dim(&[0], false).unwrap()])
        }
    }

    fn close<T: Float>(found: &[T], wanted: &[T], unit: f64, what: &str) {
        let largest = wanted.iter().fold(0.0_f64, |m, w| m.max(w.to_f64().abs()));
        for (i, (f, w)) in found.iter().zip(wanted).enumerate() {
            let (f, w) = (f.to_f64(), w.to_f64());
            let same = (f - w).abs() <= unit * (w.abs() + largest) || (f.is_nan() && w.is_nan());
            assert!(same || f == w, "{what}, {i}: {f} {w}");
        }
        assert_eq!(found.len(), wanted.len());
    }

    fn compare<T: Float>(p: &Problem<T>, unit: f64, head: &Head<'_, T>, label_smoothing: f64) {
        for weight in [None, Some(&p.class_weight[..])] {
            let targets =
                ClassTargets { classes: &p.classes, weight, label_smoothing, predictions: true };
            let factors = |r: usize, row: &LossRow| (0.5 + (r % 3) as f64, 0.1 * row.lse());
            let (rows, wanted) = p.unfused(targets, head.softcap, factors);
            let all = [true; 3];
            let (found, kept) = head.cross_entropy_with_gradients(targets, all, factors).unwrap();
            let alone = head.cross_entropy(targets).unwrap();
            let again = head.cross_entropy_backward(targets, &alone, all, factors).unwrap();
            let loss = |rows: &[LossRow]| rows.iter().map(|r| r.loss).collect::<Vec<_>>();
            close(&loss(&found), &loss(&rows), unit, "loss");
            close(&loss(&alone), &loss(&rows), unit, "loss alone");
            let correct = |rows: &[LossRow]| rows.iter().map(|r| r.correct).collect::<Vec<_>>();
            assert_eq!(correct(&found), correct(&rows));
            for (i, wanted) in wanted.iter().enumerate() {
                let what = ["dx", "dw", "db"][i];
                for found in [&kept[i], &again[i]] {
                    close(&found.as_ref().unwrap().to_vec(), &wanted.to_vec(), unit, what);
                }
            }
        }
    }

    #[test]
    fn it_is_the_loss_of_the_logits() {
        let sizes: &[[usize; 3]] = if cfg!(miri) {
            &[[3, 5, 2]]
        } else {
            &[[5, 3, 4], [1, 1, 1], [37, 300, 17], [20, 5000, 3], [0, 7, 3], [4, 600, 0]]
        };
        for &sizes in sizes {
            let p = problem::<f64>(sizes);
            for chunk_rows in [None, Some(1), Some(7), Some(sizes[0].max(1)), Some(1000)] {
                for label_smoothing in [0.0, 0.1] {
                    for softcap in [None, Some(3.0)] {
                        let head = Head { softcap, chunk_rows, ..p.head() };
                        compare(&p, 1e-13, &head, label_smoothing);
                    }
                }
            }
            let p = problem::<f32>(sizes);
            compare(&p, 1e-5, &p.head(), 0.1);
        }
    }
}
