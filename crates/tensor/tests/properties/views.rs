//! Views: entries of the twin, moved about by index loops.

use tensor::{Shape, Slice};

use crate::twin::{Sample, Twin, entries, integers};
use crate::{Case, Oracle, rejects};

macro_rules! table {
    ($($name:ident)+) => {
        pub(crate) const TABLE: &[Oracle] = &[$((stringify!($name), |case| {
            $name::<f32>(case);
            $name::<bool>(case);
            $name::<i64>(case);
        })),+];
    };
}
table! {
    reshape view flatten transpose permute narrow expand squeeze unsqueeze slice select flip diagonal
    unfold split split_with_sizes chunk
}

/// `view` is as it should be, shares the elements of `of`, and left that one alone.
#[track_caller]
fn shares<T: Sample>(view: &Twin<T>, of: &Twin<T>) {
    view.check();
    of.check();
    assert!(view.view.shares_storage(&of.view));
}

fn reshape<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(integers);
    let numel = x.dense.data.len();
    let mut shape = case.choices.factors(numel);
    let y = x.with_shape(x.view.reshape(&shape[..]), &shape);
    y.check();
    // A view exactly where `view` can make one, and a copy never shows through.
    assert_eq!(x.view.view(&shape[..]).is_ok(), y.view.shares_storage(&x.view));
    let contiguous = x.view.contiguous();
    assert!(contiguous.reshape(&shape[..]).unwrap().shares_storage(&contiguous));
    if numel > 0 && !shape.is_empty() {
        let d = case.choices.below(shape.len());
        let mut inferred = shape.clone();
        inferred[d] = Shape::INFER;
        x.with_shape(x.view.reshape(inferred), &shape).check();
        shape[d] += 1;
        rejects("reshape", x.view.reshape(shape));
    }
    if numel == 0 {
        assert_eq!(x.view.reshape([3, Shape::INFER]).unwrap().shape(), [3, 0]);
        // Any size would do.
        rejects("reshape", x.view.reshape([0, Shape::INFER]));
    }
    rejects("reshape", x.view.reshape([Shape::INFER, Shape::INFER]));
    x.check();
}

fn view<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(integers);
    let mut shape = case.choices.factors(x.dense.data.len());
    let whole = Twin::of(x.dense.clone());
    shares(&whole.with_shape(whole.view.view(&shape[..]), &shape), &whole);
    match x.view.view(&shape[..]) {
        Ok(view) => shares(&x.with_shape(Ok(view), &shape), &x),
        Err(error) => assert!(error.to_string().starts_with("view: shape")),
    }
    // Splitting a dim in two always has strides.
    if let Some(d) = (0..case.rank()).find(|&d| case.shape[d] > 0) {
        shape = [&case.shape[..d], &[1, case.shape[d]], &case.shape[d + 1..]].concat();
        shares(&x.with_shape(x.view.view(&shape[..]), &shape), &x);
        shape[d] = Shape::INFER;
        if x.view.numel() > 0 {
            assert_eq!(x.view.view(&shape[..]).unwrap().shape()[d], 1);
        }
        shape[d] = 2;
        assert!(x.view.numel() == 0 || x.view.view(shape).is_err());
    }
}

fn flatten<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank().max(1));
    for first in 0..rank {
        for last in first..rank {
            x.flatten(&mut case.choices, first, last).check();
            if first < last {
                rejects("flatten", x.view.flatten(last as isize, first as isize));
            }
        }
    }
    let whole = Twin::of(x.dense.clone());
    shares(&whole.flatten(&mut case.choices, 0, rank - 1), &whole);
    rejects("flatten", x.view.flatten(rank as isize, -1));
    rejects("flatten", x.view.flatten(0, -(rank as isize) - 1));
}

fn transpose<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, e) in (0..rank).flat_map(|d| (0..rank).map(move |e| (d, e))) {
        let mut order: Vec<usize> = (0..rank).collect();
        order.swap(d, e);
        let view = x.view.transpose(case.choices.signed(d, rank), case.choices.signed(e, rank));
        shares(&Twin { view: view.unwrap(), ..x.permute(&order) }, &x);
    }
}

fn permute<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    let order = case.choices.permutation(rank);
    let want = x.permute(&order);
    shares(&want, &x);
    let dims: Vec<isize> = order.iter().map(|&d| case.choices.signed(d, rank)).collect();
    shares(&Twin { view: x.view.permute(&dims).unwrap(), ..want }, &x);
}

fn narrow<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(integers);
    for (d, &size) in case.shape.iter().enumerate() {
        let start = case.choices.below(size + 1);
        let length = case.choices.below(size - start + 1);
        shares(&x.narrow(d, start, length), &x);
        rejects("narrow", x.view.narrow(d as isize, start, size - start + 1));
        rejects("narrow", x.view.narrow(d as isize, usize::MAX, 1));
    }
}

fn expand<T: Sample>(case: &mut Case) {
    let x = case.part::<T>(integers);
    shares(&x.expand(&case.shape), &x);
    let shape = [&[2, 0][..case.choices.below(3)], &case.shape].concat();
    shares(&x.expand(&shape), &x);
    for d in (0..shape.len()).filter(|&d| shape[d] != 1) {
        let full = x.view.expand(&shape[..]).unwrap();
        let mut wrong = shape.clone();
        wrong[d] += 1;
        rejects("expand", full.expand(wrong));
    }
}

fn squeeze<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for d in 0..rank {
        let mut shape = case.shape.clone();
        if shape[d] == 1 {
            shape.remove(d);
        }
        shares(&x.with_shape(x.view.squeeze(case.choices.signed(d, rank)), &shape), &x);
    }
}

fn unsqueeze<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for d in 0..=rank {
        let mut shape = case.shape.clone();
        shape.insert(d, 1);
        shares(&x.with_shape(x.view.unsqueeze(case.choices.signed(d, rank + 1)), &shape), &x);
    }
}

fn slice<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, &size) in case.shape.iter().enumerate() {
        shares(&x.slice(d, case.choices.slice(size)), &x);
        let (a, b) = (case.choices.between(-4, 4), case.choices.between(-4, 4));
        let dim = case.choices.signed(d, rank);
        for (view, start, stop) in [
            (x.view.slice(dim, a..b), Some(a), Some(b)),
            (x.view.slice(dim, a..), Some(a), None),
            (x.view.slice(dim, ..b), None, Some(b)),
            (x.view.slice(dim, ..), None, None),
        ] {
            shares(&x.mapped(view, d, &entries(size, Slice { start, stop, step: 1 })), &x);
        }
        rejects("slice", x.view.slice(dim, Slice::from(..).step(0)));
    }
}

fn select<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(integers);
    for (d, &size) in case.shape.iter().enumerate() {
        (0..size).for_each(|i| shares(&x.select(&mut case.choices, d, i), &x));
        let n = size as isize;
        for i in [n, -n - 1, isize::MAX, isize::MIN] {
            rejects("select", x.view.select(d as isize, i));
        }
    }
}

fn flip<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for dims in case.choices.sets_of_dims(rank) {
        let want = x.flip(&dims);
        shares(&want, &x);
        let signed: Vec<isize> = dims.iter().map(|&d| case.choices.signed(d, rank)).collect();
        shares(&Twin { view: x.view.flip(&signed).unwrap(), ..want }, &x);
        if let Some(&d) = dims.first() {
            let d = d as isize;
            rejects("flip", x.view.flip(&[d, d - rank as isize]));
        }
    }
}

fn diagonal<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, e) in (0..rank).flat_map(|d| (0..rank).map(move |e| (d, e))) {
        if d == e {
            rejects("diagonal", x.view.diagonal(0, d as isize, d as isize - rank as isize));
            continue;
        }
        for offset in [0, case.choices.between(-6, 6), isize::MIN, isize::MAX] {
            shares(&x.diagonal(&mut case.choices, offset, d, e), &x);
        }
    }
}

fn unfold<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(integers);
    for (d, &n) in case.shape.iter().enumerate() {
        let (size, step) =
            (case.choices.below(n + 1), case.choices.of(&[1, 2, 3, 9, usize::MAX / 2]));
        shares(&x.unfold(&mut case.choices, d, size, step), &x);
        rejects("unfold", x.view.unfold(d as isize, n + 1, 1));
        rejects("unfold", x.view.unfold(d as isize, 0, 0));
    }
}

/// `views` are our entries in consecutive pieces of `sizes` along `d`.
fn pieces<T: Sample>(x: &Twin<T>, views: Vec<tensor::Tensor<T>>, d: usize, sizes: &[usize]) {
    assert_eq!(views.len(), sizes.len());
    let mut start = 0;
    for (view, &size) in views.into_iter().zip(sizes) {
        let map: Vec<usize> = (start..start + size).collect();
        shares(&x.mapped(Ok(view), d, &map), x);
        start += size;
    }
}

/// `n` in pieces of `size`, the last of which may be smaller; one empty piece of nothing.
fn sizes(n: usize, size: usize) -> Vec<usize> {
    let mut sizes = vec![size.min(n)];
    let mut left = n - sizes[0];
    while left > 0 {
        sizes.push(size.min(left));
        left -= size.min(left);
    }
    sizes
}

fn split<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, &n) in case.shape.iter().enumerate() {
        let dim = case.choices.signed(d, rank);
        for size in [1, 2, 3, n + 1, usize::MAX] {
            pieces(&x, x.view.split(size, dim).unwrap(), d, &sizes(n, size));
        }
        if n == 0 {
            pieces(&x, x.view.split(0, dim).unwrap(), d, &[0]);
        } else {
            rejects("split", x.view.split(0, dim));
        }
    }
}

fn split_with_sizes<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, &n) in case.shape.iter().enumerate() {
        let (mut sizes, mut left) = (Vec::new(), n);
        while left > 0 || case.choices.flag() {
            sizes.push(case.choices.below(left + 1));
            left -= sizes[sizes.len() - 1];
        }
        let dim = case.choices.signed(d, rank);
        pieces(&x, x.view.split_with_sizes(&sizes, dim).unwrap(), d, &sizes);
        sizes.push(1);
        rejects("split_with_sizes", x.view.split_with_sizes(&sizes, dim));
        rejects("split_with_sizes", x.view.split_with_sizes(&[usize::MAX, n + 1], dim));
    }
}

fn chunk<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(integers), case.rank());
    for (d, &n) in case.shape.iter().enumerate() {
        let dim = case.choices.signed(d, rank);
        for chunks in [1, 2, 3, n + 2, usize::MAX] {
            // Rounded up, so that the last takes what is left.
            let size = (1..).find(|size| size * chunks.min(n + 2) >= n).unwrap();
            pieces(&x, x.view.chunk(chunks, dim).unwrap(), d, &sizes(n, size));
        }
        rejects("chunk", x.view.chunk(0, dim));
    }
}
