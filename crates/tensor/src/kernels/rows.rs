//! A tensor seen as rows along one of its dims, in tasks for several threads: the skeleton of the
//! softmax family.

use rayon::prelude::*;

use super::exponentials::Block;
use super::walk::Walk;
use crate::element::{Element, Float};
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Elements of a task; smaller problems stay on one thread.
const GRAIN: usize = 16 << 10;

/// A tensor seen as rows along one of its dims.
pub(crate) struct Rows<'a, T: Element> {
    x: &'a Tensor<T>,
    /// The layout with the class dim last.
    layout: Layout,
    pub(crate) count: usize,
    pub(crate) classes: usize,
    /// Start and stride of the rows, where they lie in the buffer as they are.
    direct: Option<(usize, usize)>,
}

/// The order of dims that puts `dim` last.
fn class_last(rank: usize, dim: usize) -> Vec<usize> {
    (0..rank).filter(|&d| d != dim).chain([dim]).collect()
}

impl<'a, T: Float> Rows<'a, T> {
    pub(crate) fn new(x: &'a Tensor<T>, dim: usize) -> Self {
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
    pub(crate) fn block<'b>(
        &'b self,
        first: usize,
        count: usize,
        scratch: &'b mut Vec<T>,
    ) -> Block<'b, T> {
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

    /// Calls `work(rows, number of the first, their part of numbers, of out)` for all rows, as
    /// [`for_each_task`].
    pub(crate) fn for_each_block<N: Send>(
        &self,
        numbers: &mut [N],
        out: &mut [T],
        work: impl Fn(Block<'_, T>, usize, &mut [N], &mut [T]) + Sync,
    ) {
        for_each_task(self.classes, numbers, out, |first, part, out| {
            let mut scratch = Vec::new();
            work(self.block(first, part.len(), &mut scratch), first, part, out);
        });
    }

    /// A tensor in the shape of `x` whose rows `write` fills, class by class.
    pub(crate) fn build(&self, dim: usize, write: impl FnOnce(&mut [T])) -> Tensor<T> {
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

/// Calls `work(first row, part of numbers, part of out)` for rows of `classes` elements, on several
/// threads where there is enough to do. `out` has a row's length for each of `numbers`, or is empty.
/// A task has a fixed number of rows, which does not depend on the threads.
pub(crate) fn for_each_task<T: Float, N: Send>(
    classes: usize,
    numbers: &mut [N],
    out: &mut [T],
    work: impl Fn(usize, &mut [N], &mut [T]) + Sync,
) {
    if classes == 0 {
        return;
    }
    let step = (GRAIN / classes).max(1);
    let width = if out.is_empty() { 0 } else { step * classes };
    let small = numbers.len() * classes < 2 * GRAIN || rayon::current_num_threads() == 1;
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
