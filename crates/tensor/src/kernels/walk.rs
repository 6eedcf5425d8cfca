//! How memory is walked: runs of several strided operands side by side, in row-major order.
//!
//! This file knows strides and no mathematics; [`for_each_run`] is what the skeletons stand on.

use std::ops::Range;

use rayon::prelude::*;
use smallvec::SmallVec;

use super::elementwise::Arg;
use crate::element::Element;
use crate::layout::Layout;

/// Elements gathered at a time where an input is strided.
pub(crate) const TILE: usize = 256;
/// Runs below this are collected before a kernel sees them.
const SHORT: usize = 32;
/// Elements per task: below twice this many, waking a thread costs more than it brings.
pub(crate) const GRAIN: usize = 32 << 10;

/// How `N` operands of one shape are walked together in row-major order: dims that all of them
/// cross in one stride are merged.
pub(crate) struct Walk<const N: usize> {
    sizes: SmallVec<[usize; 4]>,
    strides: SmallVec<[[isize; N]; 4]>,
    offsets: [isize; N],
}

impl<const N: usize> Walk<N> {
    /// The layouts must all have the same shape.
    pub(crate) fn new(layouts: [&Layout; N]) -> Self {
        let mut walk = Walk {
            sizes: SmallVec::new(),
            strides: SmallVec::new(),
            offsets: layouts.map(|l| l.offset as isize),
        };
        for (d, &size) in layouts[0].shape.iter().enumerate() {
            if size == 1 {
                continue;
            }
            let strides = layouts.map(|l| l.strides[d]);
            if let (Some(outer), Some(outer_strides)) =
                (walk.sizes.last_mut(), walk.strides.last_mut())
                && (0..N).all(|i| outer_strides[i] == strides[i] * size as isize)
            {
                *outer *= size;
                *outer_strides = strides;
            } else {
                walk.sizes.push(size);
                walk.strides.push(strides);
            }
        }
        if walk.sizes.is_empty() {
            walk.sizes.push(1);
            walk.strides.push([0; N]);
        }
        walk
    }

    /// `length` elements of each input from the `start`-th on, into `tiles`: for runs so short that a
    /// kernel for each would cost more than the elements.
    fn collect<T: Element>(
        &self,
        inputs: &[Input<'_, T>; N],
        start: usize,
        length: usize,
        tiles: &mut [[T; TILE]; N],
    ) {
        let strides = self.inner();
        self.runs(start..start + length, |positions, at, length| {
            for i in 0..N {
                let (data, mut from) = (inputs[i].0, positions[i] as isize);
                for o in &mut tiles[i][at..at + length] {
                    *o = data[from as usize];
                    from += strides[i];
                }
            }
        });
    }

    /// Size of the innermost merged dim.
    fn inner_size(&self) -> usize {
        self.sizes[self.sizes.len() - 1]
    }

    /// Strides along the innermost merged dim.
    pub(crate) fn inner(&self) -> [isize; N] {
        self.strides[self.strides.len() - 1]
    }

    /// Calls `visit(positions, at, length)` for each run of the flat range: where the run starts in
    /// each buffer, and where in the range.
    pub(crate) fn runs(
        &self,
        range: Range<usize>,
        mut visit: impl FnMut([usize; N], usize, usize),
    ) {
        if range.is_empty() {
            return;
        }
        let rank = self.sizes.len();
        let inner = self.sizes[rank - 1];
        let mut index: SmallVec<[usize; 4]> = SmallVec::from_elem(0, rank);
        let mut rest = range.start;
        let mut positions = self.offsets;
        for d in (0..rank).rev() {
            index[d] = rest % self.sizes[d];
            rest /= self.sizes[d];
            for (p, s) in positions.iter_mut().zip(self.strides[d]) {
                *p += index[d] as isize * s;
            }
        }
        let mut at = range.start;
        while at < range.end {
            let length = (inner - index[rank - 1]).min(range.end - at);
            visit(positions.map(|p| p as usize), at - range.start, length);
            at += length;
            if at == range.end {
                return;
            }
            // The run ended at the end of the innermost dim: carry into the outer ones.
            for (p, s) in positions.iter_mut().zip(self.strides[rank - 1]) {
                *p -= index[rank - 1] as isize * s;
            }
            index[rank - 1] = 0;
            for d in (0..rank - 1).rev() {
                index[d] += 1;
                let wrapped = index[d] == self.sizes[d];
                let back = if wrapped { self.sizes[d] as isize - 1 } else { 0 };
                for (p, s) in positions.iter_mut().zip(self.strides[d]) {
                    *p += if wrapped { -back * s } else { s };
                }
                if !wrapped {
                    break;
                }
                index[d] = 0;
            }
        }
    }
}

impl Walk<1> {
    /// The stride of the one dim that all dims merge into, if they do.
    pub(crate) fn single_stride(&self) -> Option<isize> {
        (self.sizes.len() == 1).then(|| self.strides[0][0])
    }

    /// How many elements there are.
    pub(crate) fn count(&self) -> usize {
        self.sizes.iter().product()
    }

    /// Size and stride of the innermost merged dim, which is removed; a dim of one element stands in
    /// where there is none.
    pub(crate) fn pop(&mut self) -> (usize, isize) {
        self.sizes.pop().zip(self.strides.pop()).map_or((1, 1), |(size, [stride])| (size, stride))
    }

    /// How far the `i`-th element in row-major order is from position 0.
    pub(crate) fn at(&self, mut i: usize) -> isize {
        let mut position = self.offsets[0];
        for (&size, &[stride]) in self.sizes.iter().zip(&self.strides).rev() {
            position += (i % size) as isize * stride;
            i /= size;
        }
        position
    }

    /// The elements from the `start`-th on in row-major order, into `out`.
    pub(crate) fn gather<T: Element>(&self, data: &[T], start: usize, out: &mut [T]) {
        let [stride] = self.inner();
        self.runs(start..start + out.len(), |[p], at, length| {
            copy_strided(data, p, stride, &mut out[at..at + length]);
        });
    }
}

/// `out[i] = data[start + i·stride]`.
#[inline]
pub(crate) fn copy_strided<T: Copy>(data: &[T], start: usize, stride: isize, out: &mut [T]) {
    match stride {
        1 => out.copy_from_slice(&data[start..start + out.len()]),
        0 => out.fill(data[start]),
        -1 => {
            let source = &data[start + 1 - out.len()..=start];
            out.iter_mut().zip(source.iter().rev()).for_each(|(o, &x)| *o = x);
        }
        2.. => {
            let source = data[start..].iter().step_by(stride as usize);
            out.iter_mut().zip(source).for_each(|(o, &x)| *o = x);
        }
        _ => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = data[(start as isize + i as isize * stride) as usize];
            }
        }
    }
}

/// Splits `out` into tasks of `grain` elements where that pays; `work(start, part)`.
pub(crate) fn parallel<T: Element>(
    out: &mut [T],
    grain: usize,
    work: impl Fn(usize, &mut [T]) + Sync,
) {
    if out.len() < 2 * grain || rayon::current_num_threads() == 1 {
        work(0, out);
    } else {
        out.par_chunks_mut(grain).enumerate().for_each(|(i, part)| work(i * grain, part));
    }
}

/// An operand in memory: all of its buffer, and the layout to read it by.
pub(crate) type Input<'a, T> = (&'a [T], &'a Layout);

/// `length` elements of each input, `done` after `positions`, as operands; strided ones are gathered
/// into `tiles`.
fn operands<'a, T: Element, const N: usize>(
    inputs: &[Input<'a, T>; N],
    positions: [usize; N],
    strides: [isize; N],
    done: usize,
    length: usize,
    tiles: &'a mut [[T; TILE]; N],
) -> [Arg<'a, T>; N] {
    let mut i = 0;
    tiles.each_mut().map(|tile| {
        let (data, stride) = (inputs[i].0, strides[i]);
        let start = (positions[i] as isize + done as isize * stride) as usize;
        i += 1;
        match stride {
            1 => Arg::Slice(&data[start..start + length]),
            0 => Arg::Scalar(data[start]),
            _ => {
                copy_strided(data, start, stride, &mut tile[..length]);
                Arg::Slice(&tile[..length])
            }
        }
    })
}

/// The elements of each input, where all lie in row-major order without gaps.
#[inline]
fn contiguous<'a, T, const N: usize>(inputs: [Input<'a, T>; N]) -> Option<[&'a [T]; N]> {
    let all = inputs.iter().all(|(_, layout)| layout.is_contiguous());
    all.then(|| inputs.map(|(data, layout)| &data[layout.offset.min(data.len())..]))
}

/// Calls `f` with the operands of each run of `out`. All layouts have the shape of `out`, which is
/// row-major.
pub(crate) fn for_each_run<A: Element, B: Element, const N: usize>(
    inputs: [Input<'_, A>; N],
    out: &mut [B],
    f: impl Fn([Arg<'_, A>; N], &mut [B]) + Sync,
) {
    if let Some(whole) = contiguous(inputs) {
        return parallel(out, GRAIN, |start, out| {
            f(whole.map(|x| Arg::Slice(&x[start..start + out.len()])), out);
        });
    }
    let walk = Walk::new(inputs.map(|(_, layout)| layout));
    let strides = walk.inner();
    let step = if strides.iter().all(|s| matches!(s, 0 | 1)) { usize::MAX } else { TILE };
    if walk.inner_size() < SHORT {
        return parallel(out, GRAIN, |start, out| {
            let mut tiles = [[A::default(); TILE]; N];
            for (c, out) in out.chunks_mut(TILE).enumerate() {
                walk.collect(&inputs, start + c * TILE, out.len(), &mut tiles);
                f(tiles.each_ref().map(|tile| Arg::Slice(&tile[..out.len()])), out);
            }
        });
    }
    parallel(out, GRAIN, |start, out| {
        let mut tiles = [[A::default(); TILE]; N];
        walk.runs(start..start + out.len(), |positions, at, length| {
            for done in (0..length).step_by(step) {
                let n = step.min(length - done);
                let arguments = operands(&inputs, positions, strides, done, n, &mut tiles);
                f(arguments, &mut out[at + done..at + done + n]);
            }
        });
    });
}

/// [`for_each_run`] where `out` is an operand too: `f` gets a copy of the run of `out` first, so that
/// kernels never see aliasing slices.
pub(crate) fn for_each_run_in_place<T: Element, const N: usize>(
    inputs: [Input<'_, T>; N],
    out: &mut [T],
    f: impl Fn(Arg<'_, T>, [Arg<'_, T>; N], &mut [T]) + Sync,
) {
    if let [one] = out
        && let Some(whole) = contiguous(inputs)
    {
        return f(Arg::Scalar(*one), whole.map(|x| Arg::Scalar(x[0])), out);
    }
    let walk = (N > 0).then(|| Walk::new(inputs.map(|(_, layout)| layout)));
    if let Some(walk) = &walk
        && walk.inner_size() < SHORT
    {
        return parallel(out, GRAIN, |start, out| {
            let (mut own, mut tiles) = ([T::default(); TILE], [[T::default(); TILE]; N]);
            for (c, out) in out.chunks_mut(TILE).enumerate() {
                let n = out.len();
                own[..n].copy_from_slice(out);
                walk.collect(&inputs, start + c * TILE, n, &mut tiles);
                f(Arg::Slice(&own[..n]), tiles.each_ref().map(|tile| Arg::Slice(&tile[..n])), out);
            }
        });
    }
    parallel(out, GRAIN, |start, out| {
        let mut own = [T::default(); TILE];
        let mut tiles = [[T::default(); TILE]; N];
        let mut visit = |positions: [usize; N], strides: [isize; N], out: &mut [T]| {
            for done in (0..out.len()).step_by(TILE) {
                let n = TILE.min(out.len() - done);
                let arguments = operands(&inputs, positions, strides, done, n, &mut tiles);
                let out = &mut out[done..done + n];
                own[..n].copy_from_slice(out);
                f(Arg::Slice(&own[..n]), arguments, out);
            }
        };
        match &walk {
            None => visit([0; N], [0; N], out),
            Some(walk) => walk.runs(start..start + out.len(), |positions, at, length| {
                visit(positions, walk.inner(), &mut out[at..at + length]);
            }),
        }
    });
}

/// The elements of an operand in row-major order, into `out`.
pub(crate) fn gather_into<T: Element>((data, layout): Input<'_, T>, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let mut walk = Walk::new([layout]);
    if let ([.., rows, columns], [.., [1], [stride]]) = (&walk.sizes[..], &walk.strides[..])
        && *stride != 1
        && *rows >= LINE
        && *columns >= LINE
    {
        let (rows, columns, stride) = (*rows, *columns, *stride);
        walk.pop();
        walk.pop();
        for (i, out) in out.chunks_exact_mut(rows * columns).enumerate() {
            transpose_into(data, walk.at(i), columns, stride, out);
        }
        return;
    }
    parallel(out, GRAIN, |start, out| walk.gather(data, start, out));
}

/// Elements that a cache line holds, at most.
const LINE: usize = 16;
/// Rows of a transposition that are read together: several lines of each page of the source.
const BAND: usize = 64;

/// `out[i][j] = data[start + i + j·stride]`, in tiles that read and write whole cache lines.
fn transpose_into<T: Element>(
    data: &[T],
    start: isize,
    columns: usize,
    stride: isize,
    out: &mut [T],
) {
    let bands = BAND * columns;
    parallel(out, bands * (GRAIN / bands).max(1), |first, out| {
        for (band, out) in out.chunks_mut(bands).enumerate() {
            let (i, rows) = (first / columns + band * BAND, out.len() / columns);
            let mut tile = [[T::default(); BAND]; LINE];
            for j in (0..columns).step_by(LINE) {
                let width = LINE.min(columns - j);
                for (k, tile) in tile[..width].iter_mut().enumerate() {
                    let from = start + i as isize + (j + k) as isize * stride;
                    tile[..rows].copy_from_slice(&data[from as usize..][..rows]);
                }
                for (r, out) in out.chunks_exact_mut(columns).enumerate() {
                    let out = &mut out[j..j + width];
                    out.iter_mut().zip(&tile).for_each(|(o, tile)| *o = tile[r]);
                }
            }
        }
    });
}
