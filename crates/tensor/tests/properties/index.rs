//! Reading and writing by index or mask: one element at a time.

use tensor::{Float, Number, Result, Tensor};

use crate::arithmetic::Arithmetic;
use crate::twin::{
    Choices, Dense, Sample, Twin, broadcast, for_each_index, integers, same, special,
};
use crate::{Case, Oracle, rejects};

/// A vector of indices below `size`, in a column of a matrix whose other column is out of range.
fn indices(c: &mut Choices, size: usize, count: usize) -> (Vec<usize>, [Tensor<i64>; 2]) {
    let count = if size == 0 { 0 } else { count };
    let index: Vec<usize> = (0..count).map(|_| c.below(size)).collect();
    let pairs =
        index.iter().flat_map(|&i| [i as i64, c.of(&[-1, size as i64, i64::MIN, i64::MAX])]);
    let pairs = Tensor::from_vec(pairs.collect(), [count, 2]).unwrap();
    (index, [0, 1].map(|column| pairs.select(1, column).unwrap()))
}

fn index_select<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(special), case.rank());
    for (d, &size) in case.shape.iter().enumerate() {
        let count = case.choices.below(6);
        let (index, [good, bad]) = indices(&mut case.choices, size, count);
        let dim = case.choices.signed(d, rank);
        x.mapped(x.view.index_select(dim, &good), d, &index).check();
        if !index.is_empty() {
            rejects("index_select", x.view.index_select(dim, &bad));
        }
        rejects("index_select", x.view.index_select(dim, &good.unsqueeze(0).unwrap()));
        x.check();
    }
}

/// An index for `gather` and `scatter` along `d` of `shape`: nowhere larger but there.
fn picks(c: &mut Choices, shape: &[usize], d: usize) -> Twin<i64> {
    let mut smaller: Vec<usize> = shape.iter().map(|&n| n - c.below(n.min(1) + 1)).collect();
    smaller[d] = if shape[d] == 0 { 0 } else { c.below(5) };
    let picked = Dense::build(&smaller, |_| c.below(shape[d]) as i64);
    // Into a view with gaps, reversed.
    let wide = Dense { shape: [&smaller[..], &[1]].concat(), data: picked.data.clone() };
    let pairs = wide
        .zip(&Dense { shape: vec![2], data: vec![0, -9] }, |pick, k| if k < 0 { k } else { pick });
    let twin = Twin::of(pairs).flip(&[d]);
    let last = smaller.len();
    let view = twin.narrow(last, 0, 1);
    view.with_shape(view.view.squeeze(-1), &smaller)
}

/// `index` with one entry changed to `bad`.
fn spoiled(c: &mut Choices, index: &Twin<i64>, bad: i64) -> Option<Tensor<i64>> {
    let mut data = index.dense.data.clone();
    if data.is_empty() {
        return None;
    }
    let at = c.below(data.len());
    data[at] = bad;
    Some(Tensor::from_vec(data, &index.dense.shape[..]).unwrap())
}

fn gather<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(special), case.rank());
    for (d, &size) in case.shape.iter().enumerate() {
        let index = picks(&mut case.choices, &case.shape, d);
        let dim = case.choices.signed(d, rank);
        let got = x.view.gather(dim, &index.view);
        let source = |at: &[usize]| {
            let mut ours = at.to_vec();
            ours[d] = index.dense.at(at) as usize;
            ours
        };
        x.mirror(got, &index.dense.shape, source).check();
        for bad in [size as i64, -1, i64::MIN, i64::MAX] {
            if let Some(bad) = spoiled(&mut case.choices, &index, bad) {
                rejects("gather", x.view.gather(dim, &bad));
            }
        }
        rejects("gather", x.view.gather(dim, &index.view.unsqueeze(0).unwrap()));
        x.check();
        index.check();
    }
}

type Scatter<T> = fn(&Tensor<T>, isize, &Tensor<i64>, &Tensor<T>) -> Result<Tensor<T>>;

fn scattering<T: Sample>(case: &mut Case, name: &str, op: Scatter<T>, write: fn(T, T) -> T) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, &size) in case.shape.iter().enumerate() {
        let index = picks(&mut case.choices, &case.shape, d);
        let larger: Vec<usize> =
            index.dense.shape.iter().map(|&n| n + case.choices.below(2)).collect();
        let source = Twin::<T>::strided(&larger, case.choices.bits(), integers);
        let dim = case.choices.signed(d, rank);
        let mut want = x.dense.clone();
        for_each_index(&index.dense.shape, |at| {
            let mut to = at.to_vec();
            to[d] = index.dense.data[index.dense.flat(at)] as usize;
            // A source that is larger by one must not be taken for one that broadcasts.
            let from = at.iter().zip(&larger).fold(0, |flat, (&i, &n)| flat * n + i);
            let at = to.iter().zip(&want.shape).fold(0, |flat, (&i, &n)| flat * n + i);
            want.data[at] = write(want.data[at], source.dense.data[from]);
        });
        same(&op(&x.view, dim, &index.view, &source.view).unwrap(), &want);
        same(&op(&x.fresh(), dim, &index.view, &source.view).unwrap(), &want);
        for bad in [size as i64, -1, i64::MIN] {
            if let Some(bad) = spoiled(&mut case.choices, &index, bad) {
                rejects(name, op(&x.view, dim, &bad, &source.view));
            }
        }
        if let Some(short) = larger.iter().position(|&n| n > 0).filter(|_| index.view.numel() > 0) {
            let short =
                source.view.narrow(short as isize, 0, index.dense.shape[short] - 1).unwrap();
            rejects(name, op(&x.view, dim, &index.view, &short));
        }
        x.check();
        source.check();
        index.check();
    }
}

fn scatter<T: Sample>(case: &mut Case) {
    scattering::<T>(case, "scatter", Tensor::scatter, |_, x| x);
}

fn scatter_add<T: Arithmetic + Number>(case: &mut Case) {
    scattering::<T>(case, "scatter_add", Tensor::scatter_add, Arithmetic::add);
}

fn index_add<T: Float + Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, &size) in case.shape.iter().enumerate() {
        let count = case.choices.below(9);
        let (index, [good, bad]) = indices(&mut case.choices, size, count);
        let mut shape = case.shape.clone();
        shape[d] = index.len();
        let source = Twin::<T>::strided(&shape, case.choices.bits(), integers);
        let mut want = x.dense.map(|x| x.number());
        for_each_index(&shape, |at| {
            let mut to = at.to_vec();
            to[d] = index[at[d]];
            let to = to.iter().zip(&case.shape).fold(0, |flat, (&i, &n)| flat * n + i);
            want.data[to] += source.dense.at(at).number();
        });
        let dim = case.choices.signed(d, rank);
        same(&x.view.index_add(dim, &good, &source.view).unwrap(), &want.map(T::sample));
        if !index.is_empty() {
            rejects("index_add", x.view.index_add(dim, &bad, &source.view));
        }
        rejects("index_add", x.view.index_add(dim, &good.unsqueeze(0).unwrap(), &source.view));
        let wider = source.view.unsqueeze(0).unwrap();
        rejects("index_add", x.view.index_add(dim, &good, &wider));
        source.check();
    }
    x.check();
}

/// Views in turn, and what they read: the positions of the elements.
struct Views {
    shape: Vec<usize>,
    steps: Vec<u64>,
    seen: Twin<i64>,
    /// Whether a view of all that is no view came out, as `reshape` makes it.
    copied: bool,
}

impl Views {
    fn new(case: &mut Case) -> Self {
        let steps: Vec<u64> = (0..case.choices.below(4)).map(|_| case.choices.bits()).collect();
        let data = (0..case.shape.iter().product::<usize>() as i64).collect();
        let positions = Twin::of(Dense { shape: case.shape.clone(), data });
        let seen = steps.iter().fold(positions.clone(), |twin, &step| twin.step(step));
        let copied = seen.view.numel() > 0 && !seen.view.shares_storage(&positions.view);
        Views { shape: case.shape.clone(), steps, seen, copied }
    }

    fn of<T: Arithmetic + Number>(&self, x: &Tensor<T>) -> Result<Tensor<T>> {
        let data = vec![T::ZERO; self.shape.iter().product()];
        let twin = Twin { view: x.clone(), dense: Dense { shape: self.shape.clone(), data } };
        Ok(self.steps.iter().fold(twin, |twin, &step| twin.step(step)).view)
    }

    /// Adds what stands in `source` where the views read.
    fn add_to<T: Arithmetic + Number>(&self, want: &mut Dense<T>, source: &Dense<T>) {
        for (&at, &x) in self.seen.dense.data.iter().zip(&source.data) {
            want.data[at as usize] = Arithmetic::add(want.data[at as usize], x);
        }
    }
}

fn scatter_view<T: Arithmetic + Number>(case: &mut Case) {
    let views = Views::new(case);
    let view = |x: &Tensor<T>| views.of(x);
    let source = Twin::<T>::strided(&views.seen.dense.shape, case.choices.bits(), integers);
    let got = source.view.scatter_view(&case.shape[..], view);
    if views.copied {
        return rejects("scatter_view", got);
    }
    let data = vec![T::ZERO; case.shape.iter().product()];
    let mut want = Dense { shape: case.shape.clone(), data };
    views.add_to(&mut want, &source.dense);
    same(&got.unwrap(), &want);
    let wider = source.view.unsqueeze(0).unwrap();
    rejects("scatter_view", wider.scatter_view(&case.shape[..], view));
    source.check();
}

/// Onto something strided that somebody else holds.
fn add_through_view<T: Arithmetic + Number>(case: &mut Case) {
    let views = Views::new(case);
    let view = |x: &Tensor<T>| views.of(x);
    let source = Twin::<T>::strided(&views.seen.dense.shape, case.choices.bits(), integers);
    let base = Twin::<T>::strided(&case.shape, case.choices.bits(), integers);
    let got = base.view.clone().add_through_view(&source.view, view);
    if views.copied {
        return rejects("add_through_view", got);
    }
    let mut want = Dense { shape: case.shape.clone(), data: base.dense.data.clone() };
    views.add_to(&mut want, &source.dense);
    same(&got.unwrap(), &want);
    let wider = source.view.unsqueeze(0).unwrap();
    rejects("add_through_view", base.view.clone().add_through_view(&wider, view));
    base.check();
    source.check();
}

fn masked_fill<T: Sample>(case: &mut Case) {
    let (x, mask) = (case.twin::<T>(special), case.part::<bool>(|bits| bits % 2 == 0));
    let value = special::<T>(case.choices.bits());
    let want = x.dense.zip(&mask.dense, |x, masked| if masked { value } else { x });
    same(&x.view.masked_fill(&mask.view, value).unwrap(), &want);
    x.check();
    mask.check();
    // The mask does not enlarge the tensor.
    let wider = mask.view.expand([&[3], &case.shape[..]].concat()).unwrap();
    rejects("masked_fill", x.view.masked_fill(&wider, value));
}

fn masked_select<T: Sample>(case: &mut Case) {
    let (x, mask) = (case.part::<T>(special), case.part::<bool>(|bits| bits % 2 == 0));
    for (x, mask) in [(&x, &mask), (&x, &Twin::new(&case.shape, 1, |bits| bits % 3 == 0))] {
        let both = x.dense.zip(&mask.dense, |x, kept| kept.then_some(x));
        let data: Vec<T> = both.data.into_iter().flatten().collect();
        let want = Dense { shape: vec![data.len()], data };
        same(&x.view.masked_select(&mask.view).unwrap(), &want);
        assert_eq!(broadcast(&x.dense.shape, &mask.dense.shape), both.shape);
        x.check();
    }
}

fn one_hot(case: &mut Case) {
    let x = case.twin::<i64>(|bits| (bits % 5) as i64);
    let most = x.dense.data.iter().max().map_or(0, |&most| most as usize + 1);
    for classes in [most, most + 3] {
        let shape = [&case.shape[..], &[classes]].concat();
        let want = Dense::build(&shape, |at| {
            let (&class, at) = at.split_last().unwrap();
            i64::from(x.dense.at(at) == class as i64)
        });
        same(&x.view.one_hot(classes).unwrap(), &want);
    }
    if most > 0 {
        rejects("one_hot", x.view.one_hot(most - 1));
        rejects("one_hot", (-&x.view - 1).one_hot(9));
    }
    x.check();
}

macro_rules! all_types {
    ($($name:ident: $($type:ident)+;)+) => {
        pub(crate) const TABLE: &[Oracle] = &[
            $((stringify!($name), |case| { $($name::<$type>(case);)+ }),)+
            ("one_hot", one_hot),
        ];
    };
}
all_types! {
    index_select: f32 f64 i64 u8 bool;
    gather: f32 f64 i64 u8 bool;
    scatter: f32 f64 i64 u8 bool;
    scatter_add: f32 f64 i64 u8;
    index_add: f32 f64;
    scatter_view: f32 f64 i64 u8;
    add_through_view: f32 f64 i64 u8;
    masked_fill: f32 f64 i64 u8 bool;
    masked_select: f32 f64 i64 u8 bool;
}
