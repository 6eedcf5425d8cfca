//! Views and their twins: the same elements in a plain list, moved about by index loops.

use tensor::{Result, Slice, Tensor};

pub(crate) use crate::sample::*;

/// Decisions: a SplitMix64 stream.
#[derive(Clone, Debug)]
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub(crate) fn of<X: Copy>(&mut self, items: &[X]) -> X {
        items[self.below(items.len())]
    }

    /// An integer of [low, high].
    pub(crate) fn between(&mut self, low: isize, high: isize) -> isize {
        low + self.below((high - low + 1) as usize) as isize
    }

    pub(crate) fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        (1..n).for_each(|i| order.swap(i, i - self.below(i + 1)));
        order
    }

    /// `d` counted from either end.
    pub(crate) fn signed(&mut self, d: usize, rank: usize) -> isize {
        d as isize - if self.flag() { rank as isize } else { 0 }
    }

    /// A shape of `numel` elements.
    pub(crate) fn factors(&mut self, numel: usize) -> Vec<usize> {
        let (mut shape, mut rest) = (Vec::new(), numel);
        for _ in 0..self.below(5) {
            let small = (1..=rest.clamp(3, 64)).filter(|k| rest.is_multiple_of(*k));
            let size = self.of(&small.collect::<Vec<_>>());
            shape.push(size);
            rest /= size;
        }
        if rest != 1 || self.flag() {
            shape.push(rest);
        }
        shape
    }

    /// A shape that broadcasts to `shape`.
    pub(crate) fn reduced(&mut self, shape: &[usize]) -> Vec<usize> {
        let skip = self.below(2) * self.below(shape.len() + 1);
        shape[skip..].iter().map(|&n| if self.below(3) == 2 { 1 } else { n }).collect()
    }

    /// Sets of dims, all of them where there are few, otherwise some; each in any order.
    pub(crate) fn sets_of_dims(&mut self, rank: usize) -> Vec<Vec<usize>> {
        let all = 1_usize << rank;
        let masks = if rank <= 3 { (0..all).collect() } else { vec![0; 8] };
        let mut sets = Vec::new();
        for mask in masks {
            let mask = if rank <= 3 { mask } else { self.below(all) };
            let order = self.permutation(rank).into_iter();
            sets.push(order.filter(|d| mask >> d & 1 == 1).collect());
        }
        sets
    }
}

/// Calls `visit` with each index of `shape` in row-major order.
pub(crate) fn for_each_index(shape: &[usize], mut visit: impl FnMut(&[usize])) {
    let mut index = vec![0; shape.len()];
    for _ in 0..shape.iter().product() {
        visit(&index);
        for (i, &size) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
}

/// The oracle: elements in row-major order.
#[derive(Clone, Debug)]
pub(crate) struct Dense<T> {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<T>,
}

impl<T: Clone> Dense<T> {
    pub(crate) fn build(shape: &[usize], mut f: impl FnMut(&[usize]) -> T) -> Self {
        let mut data = Vec::new();
        for_each_index(shape, |i| data.push(f(i)));
        Dense { shape: shape.to_vec(), data }
    }

    pub(crate) fn scalar(x: T) -> Self {
        Dense { shape: vec![], data: vec![x] }
    }

    /// Where `index` is in `data`; leading dims and dims of size 1 broadcast.
    pub(crate) fn flat(&self, index: &[usize]) -> usize {
        let index = &index[index.len() - self.shape.len()..];
        let dims = index.iter().zip(&self.shape);
        dims.fold(0, |at, (&i, &size)| at * size + if size == 1 { 0 } else { i })
    }

    pub(crate) fn at(&self, index: &[usize]) -> T {
        self.data[self.flat(index)].clone()
    }

    pub(crate) fn with_shape(&self, shape: &[usize]) -> Self {
        assert_eq!(shape.iter().product::<usize>(), self.data.len());
        Dense { shape: shape.to_vec(), data: self.data.clone() }
    }

    pub(crate) fn map<U>(&self, f: impl FnMut(T) -> U) -> Dense<U> {
        Dense { shape: self.shape.clone(), data: self.data.iter().cloned().map(f).collect() }
    }

    /// `f` of each pair under the rule of broadcasting.
    pub(crate) fn zip<U: Clone, V: Clone>(
        &self,
        other: &Dense<U>,
        f: impl Fn(T, U) -> V,
    ) -> Dense<V> {
        Dense::build(&broadcast(&self.shape, &other.shape), |i| f(self.at(i), other.at(i)))
    }

    /// For each index of the kept dims what stands at it, in row-major order; the others keep size 1.
    pub(crate) fn groups(&self, over: impl Fn(usize) -> bool) -> Dense<Vec<T>> {
        let sizes = self.shape.iter().enumerate();
        let shape: Vec<usize> = sizes.map(|(d, &n)| if over(d) { 1 } else { n }).collect();
        let mut out = Dense::build(&shape, |_| Vec::new());
        for_each_index(&self.shape, |i| {
            let at = out.flat(i);
            out.data[at].push(self.at(i));
        });
        out
    }

    /// Without the dims where `gone` says so, which have size 1.
    pub(crate) fn without(&self, gone: impl Fn(usize) -> bool) -> Self {
        let kept = self.shape.iter().enumerate().filter(|&(d, _)| !gone(d));
        self.with_shape(&kept.map(|(_, &n)| n).collect::<Vec<_>>())
    }
}

pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let (long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
    let mut shape = long.to_vec();
    for (n, &m) in shape.iter_mut().rev().zip(short.iter().rev()) {
        *n = if *n == 1 { m } else { *n };
    }
    shape
}

/// The entries of `start:stop:step` in Python.
pub(crate) fn entries(n: usize, slice: Slice) -> Vec<usize> {
    let n = n as i128;
    let counted = |i: isize| if i < 0 { i as i128 + n } else { i as i128 };
    let step = slice.step as i128;
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let bound = |i: Option<isize>, none| i.map_or(none, |i| counted(i).clamp(low, high));
    let mut at = bound(slice.start, if step > 0 { low } else { high });
    let stop = bound(slice.stop, if step > 0 { high } else { low });
    let mut all = Vec::new();
    while if step > 0 { at < stop } else { at > stop } {
        all.push(at as usize);
        at += step;
    }
    all
}

/// A view and its oracle.
#[derive(Clone)]
pub(crate) struct Twin<T: Sample> {
    pub(crate) view: Tensor<T>,
    pub(crate) dense: Dense<T>,
}

impl<T: Sample> Twin<T> {
    pub(crate) fn of(dense: Dense<T>) -> Self {
        Twin { view: Tensor::from_slice(&dense.data, &dense.shape[..]).unwrap(), dense }
    }

    pub(crate) fn new(shape: &[usize], seed: u64, fill: Fill<T>) -> Self {
        let c = &mut Choices(seed);
        Self::of(Dense::build(shape, |_| fill(c.bits())))
    }

    /// A view of `shape` with gaps, permuted, reversed and repeated dims; its storage has no other
    /// owner.
    pub(crate) fn strided(shape: &[usize], seed: u64, fill: Fill<T>) -> Self {
        let c = &mut Choices(seed);
        let order = c.permutation(shape.len());
        let room = 20_000.max(4 * shape.iter().product::<usize>());
        let (mut base, mut cuts, mut total) = (vec![0; shape.len()], Vec::new(), 1);
        for (&d, &size) in order.iter().zip(shape) {
            let (before, after) = c.of(&[(0, 0), (0, 0), (0, 1), (1, 0), (2, 3)]);
            let length = if c.below(5) == 4 { 1 } else { size };
            let mut step = c.of(&[1, 1, 1, 2, 3]);
            if total * (before + length * step + after) > room {
                step = 1;
            }
            let reach = if length == 0 { 0 } else { (length - 1) * step + 1 };
            let flip = c.below(4) == 3;
            base[d] = before + reach + after;
            total *= base[d].max(1);
            cuts.push((before, reach, step, flip));
        }
        let mut twin = Self::new(&base, c.bits(), fill).permute(&order);
        for (d, (start, reach, step, flip)) in cuts.into_iter().enumerate() {
            twin = twin.narrow(d, start, reach);
            if step > 1 {
                twin = twin.slice(d, Slice::from(..).step(step as isize));
            }
            if flip {
                twin = twin.flip(&[d]);
            }
        }
        twin.expand(shape)
    }

    /// `view`, whose element at an index is ours at the index that `source` returns.
    pub(crate) fn mirror(
        &self,
        view: Result<Tensor<T>>,
        shape: &[usize],
        source: impl Fn(&[usize]) -> Vec<usize>,
    ) -> Self {
        let dense = Dense::build(shape, |index| self.dense.at(&source(index)));
        Twin { view: view.unwrap(), dense }
    }

    /// `view`, with our elements in our order.
    pub(crate) fn with_shape(&self, view: Result<Tensor<T>>, shape: &[usize]) -> Self {
        Twin { view: view.unwrap(), dense: self.dense.with_shape(shape) }
    }

    /// `view`, whose dim `d` holds our entries `map` of it.
    pub(crate) fn mapped(&self, view: Result<Tensor<T>>, d: usize, map: &[usize]) -> Self {
        let mut shape = self.dense.shape.clone();
        shape[d] = map.len();
        self.mirror(view, &shape, |index| {
            let mut ours = index.to_vec();
            ours[d] = map[index[d]];
            ours
        })
    }

    pub(crate) fn permute(&self, order: &[usize]) -> Self {
        let dims: Vec<isize> = order.iter().map(|&d| d as isize).collect();
        let shape: Vec<usize> = order.iter().map(|&d| self.dense.shape[d]).collect();
        self.mirror(self.view.permute(&dims), &shape, |index| {
            let mut ours = index.to_vec();
            order.iter().zip(index).for_each(|(&d, &i)| ours[d] = i);
            ours
        })
    }

    pub(crate) fn narrow(&self, d: usize, start: usize, length: usize) -> Self {
        let map: Vec<usize> = (start..start + length).collect();
        self.mapped(self.view.narrow(d as isize, start, length), d, &map)
    }

    pub(crate) fn slice(&self, d: usize, slice: Slice) -> Self {
        let map = entries(self.dense.shape[d], slice);
        self.mapped(self.view.slice(d as isize, slice), d, &map)
    }

    pub(crate) fn flip(&self, dims: &[usize]) -> Self {
        let named: Vec<isize> = dims.iter().map(|&d| d as isize).collect();
        self.mirror(self.view.flip(&named), &self.dense.shape, |index| {
            let mut ours = index.to_vec();
            dims.iter().for_each(|&d| ours[d] = self.dense.shape[d] - 1 - index[d]);
            ours
        })
    }

    pub(crate) fn expand(&self, shape: &[usize]) -> Self {
        self.mirror(self.view.expand(shape), shape, <[usize]>::to_vec)
    }

    pub(crate) fn select(&self, c: &mut Choices, d: usize, i: usize) -> Self {
        let rank = self.dense.shape.len();
        let mut shape = self.dense.shape.clone();
        let size = shape.remove(d);
        let view = self.view.select(c.signed(d, rank), c.signed(i, size));
        self.mirror(view, &shape, |index| [&index[..d], &[i], &index[d..]].concat())
    }

    pub(crate) fn diagonal(&self, c: &mut Choices, offset: isize, a: usize, b: usize) -> Self {
        let ours = &self.dense.shape;
        let rank = ours.len();
        let rest: Vec<usize> = (0..rank).filter(|&d| d != a && d != b).collect();
        let cells = (0..ours[a]).filter(|&i| {
            let j = i as i128 + offset as i128;
            (0..ours[b] as i128).contains(&j)
        });
        let cells: Vec<usize> = cells.collect();
        let mut shape: Vec<usize> = rest.iter().map(|&d| ours[d]).collect();
        shape.push(cells.len());
        let view = self.view.diagonal(offset, c.signed(a, rank), c.signed(b, rank));
        self.mirror(view, &shape, |index| {
            let mut ours = vec![0; rank];
            rest.iter().zip(index).for_each(|(&d, &i)| ours[d] = i);
            let i = cells[index[rest.len()]];
            (ours[a], ours[b]) = (i, (i as isize + offset) as usize);
            ours
        })
    }

    pub(crate) fn unfold(&self, c: &mut Choices, d: usize, size: usize, step: usize) -> Self {
        let mut shape = self.dense.shape.clone();
        let rank = shape.len();
        shape[d] = (0..).step_by(step).take_while(|start| start + size <= shape[d]).count();
        shape.push(size);
        let view = self.view.unfold(c.signed(d, rank), size, step);
        self.mirror(view, &shape, |index| {
            let mut ours = index[..rank].to_vec();
            ours[d] = index[d] * step + index[rank];
            ours
        })
    }

    pub(crate) fn flatten(&self, c: &mut Choices, first: usize, last: usize) -> Self {
        let ours = &self.dense.shape;
        let rank = ours.len().max(1);
        let mut shape = ours.clone();
        let merged = ours.iter().skip(first).take(last + 1 - first).product();
        shape.splice(first..(last + 1).min(ours.len()), [merged]);
        let view = self.view.flatten(c.signed(first, rank), c.signed(last, rank));
        self.with_shape(view, &shape)
    }

    /// A view, chosen by `choice`, of this one; seldom one that has lost all elements.
    pub(crate) fn step(&self, choice: u64) -> Self {
        let next = self.any_step(choice);
        let emptied = next.dense.data.is_empty() && !self.dense.data.is_empty();
        if emptied && !choice.is_multiple_of(8) { self.clone() } else { next }
    }

    fn any_step(&self, choice: u64) -> Self {
        let c = &mut Choices(choice);
        let (mut shape, numel) = (self.dense.shape.clone(), self.dense.data.len());
        let (kind, rank) = (c.below(15), shape.len());
        let (d, e) = (c.below(rank.max(1)), c.below(rank.max(1)));
        match kind {
            0 => self.with_shape(Ok(self.view.contiguous()), &shape),
            1 => {
                shape = c.factors(numel);
                self.with_shape(self.view.reshape(&shape[..]), &shape)
            }
            2 if rank < 6 => {
                shape.insert(d, 1);
                self.with_shape(self.view.unsqueeze(c.signed(d, rank + 1)), &shape)
            }
            3 if rank < 6 && numel < 2000 => {
                (shape.iter_mut().filter(|n| **n == 1))
                    .for_each(|n| *n = c.of(&[2, 3, 1, 2, 3, 0]));
                let lead = c.of(&[2, 1, 3, 0]);
                self.expand(&if c.flag() { [&[lead], &shape[..]].concat() } else { shape })
            }
            4 if rank > 0 => {
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(d, e);
                let view = self.view.transpose(c.signed(d, rank), c.signed(e, rank));
                Twin { view: view.unwrap(), ..self.permute(&order) }
            }
            5 if rank > 0 => {
                let start = c.below(shape[d].min(2) + 1);
                let left = shape[d] - start;
                self.narrow(d, start, left - c.below(left.min(2) + 1))
            }
            6 if rank > 0 => {
                if shape[d] == 1 {
                    shape.remove(d);
                }
                self.with_shape(self.view.squeeze(c.signed(d, rank)), &shape)
            }
            7 if rank > 0 => self.slice(d, c.slice(shape[d])),
            8 if rank > 1 && shape[d] > 0 => {
                let i = c.below(shape[d]);
                self.select(c, d, i)
            }
            9 => self.flip(&c.permutation(rank)[..c.below(rank + 1)]),
            10 if d != e => {
                let offset = c.between(-2, 2);
                self.diagonal(c, offset, d, e)
            }
            11 if rank > 0 && rank < 6 && numel < 2000 => {
                let (size, step) = (c.below(shape[d].min(3) + 1), c.of(&[1, 2, 3]));
                self.unfold(c, d, size, step)
            }
            12 => self.flatten(c, d.min(e), d.max(e)),
            13 => {
                shape = c.factors(numel);
                let view = self.view.view(&shape[..]);
                // Only that strides cannot express it may stand against it: then it is copied.
                let copied = view.is_err().then(|| self.view.reshape(&shape[..]));
                assert!(
                    copied.as_ref().is_none_or(|x| !x.as_ref().unwrap().shares_storage(&self.view))
                );
                self.with_shape(copied.unwrap_or(view), &shape)
            }
            _ => self.permute(&c.permutation(rank)),
        }
    }

    /// The view still has the elements it was made with.
    #[track_caller]
    pub(crate) fn check(&self) {
        same(&self.view, &self.dense);
    }

    /// A copy whose storage has no other owner.
    pub(crate) fn fresh(&self) -> Tensor<T> {
        Tensor::from_slice(&self.dense.data, &self.dense.shape[..]).unwrap()
    }
}

impl Choices {
    /// Bounds around a dim of size `n`, also beyond it, and steps also longer than it.
    pub(crate) fn slice(&mut self, n: usize) -> Slice {
        let n = n as isize;
        let mut bound = || match self.below(8) {
            0 | 1 => None,
            2 => Some(self.of(&[isize::MIN, isize::MAX, -n - 1, n + 1])),
            _ => Some(self.between(-n - 2, n + 2)),
        };
        let (start, stop) = (bound(), bound());
        let step = self.of(&[1, 1, 2, 3, -1, -2, -3, 7, -7, isize::MAX, isize::MIN]);
        Slice { start, stop, step }
    }
}
