//! Construction from lists, and access to sizes, places and elements.

use tensor::Tensor;

use crate::twin::{Dense, Sample, Twin, for_each_index, same, special};
use crate::{Case, Oracle, rejects};

macro_rules! table {
    ($($name:ident)+) => {
        pub(crate) const TABLE: &[Oracle] = &[$((stringify!($name), |case| {
            $name::<f32>(case);
            $name::<f64>(case);
            $name::<bool>(case);
            $name::<i64>(case);
            $name::<u8>(case);
        })),+];
    };
}
table! {
    from_vec from_slice scalar shape rank numel layout dims resolve_dim is_contiguous as_slice to_vec
    item contiguous make_mut shares_storage
}

fn dense<T: Sample>(case: &mut Case) -> Dense<T> {
    let c = &mut case.choices;
    Dense::build(&case.shape, |_| special(c.bits()))
}

fn from_vec<T: Sample>(case: &mut Case) {
    let mut x = dense::<T>(case);
    let y = Tensor::from_vec(x.data.clone(), x.shape.clone()).unwrap();
    same(&y, &x);
    x.data.push(T::ONE);
    rejects("from_vec", Tensor::from_vec(x.data, x.shape));
}

fn from_slice<T: Sample>(case: &mut Case) {
    let x = dense::<T>(case);
    same(&Tensor::from_slice(&x.data, &x.shape[..]).unwrap(), &x);
    let more = [&x.shape[..], &[2]].concat();
    assert_eq!(x.data.is_empty(), Tensor::from_slice(&x.data, more).is_ok());
}

fn scalar<T: Sample>(case: &mut Case) {
    let x = special::<T>(case.choices.bits());
    same(&Tensor::scalar(x), &Dense::scalar(x));
}

fn shape<T: Sample>(case: &mut Case) {
    assert_eq!(case.twin::<T>(special).view.shape(), case.shape);
}

fn rank<T: Sample>(case: &mut Case) {
    assert_eq!(case.twin::<T>(special).view.rank(), case.rank());
}

fn numel<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    assert_eq!(x.view.numel(), x.dense.data.len());
}

/// A chain of views of a tensor, all in its storage.
fn chain<T: Sample>(case: &mut Case) -> (Twin<T>, Twin<T>) {
    let base = Twin::<T>::new(&case.shape, case.choices.bits(), special);
    let mut x = base.clone();
    for _ in 0..5 {
        let next = x.step(case.choices.bits());
        if next.view.shares_storage(&base.view) {
            x = next;
        }
    }
    (base, x)
}

/// Where each element of `x` is in its storage.
fn places<T: Sample>(x: &Twin<T>) -> Vec<usize> {
    let layout = x.view.layout();
    let mut places = Vec::new();
    for_each_index(&x.dense.shape, |index| {
        let steps = index.iter().zip(layout.strides()).map(|(&i, &s)| i as isize * s);
        places.push((layout.offset() as isize + steps.sum::<isize>()) as usize);
    });
    places
}

fn layout<T: Sample>(case: &mut Case) {
    let (base, x) = chain::<T>(case);
    let (storage, places) = (base.view.as_slice().unwrap(), places(&x));
    assert_eq!(**x.view.layout().shape(), *x.view.shape());
    assert_eq!(x.view.layout().strides().len(), x.view.rank());
    assert_eq!(x.view.layout().is_contiguous(), x.view.is_contiguous());
    assert!(places.iter().zip(&x.dense.data).all(|(&at, &want)| storage[at].is(want)));
}

fn dims<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    match *case.shape {
        [] => assert_eq!(x.view.dims::<0>("here").unwrap(), []),
        [a] => assert_eq!(x.view.dims("here").unwrap(), [a]),
        [a, b] => assert_eq!(x.view.dims("here").unwrap(), [a, b]),
        [a, b, c] => assert_eq!(x.view.dims("here").unwrap(), [a, b, c]),
        [_, _, _, _] => rejects("here", x.view.dims::<3>("here")),
        _ => rejects("here", x.view.dims::<4>("here")),
    }
    rejects("here", x.view.dims::<7>("here"));
}

fn resolve_dim<T: Sample>(case: &mut Case) {
    let (x, rank) = (case.twin::<T>(special), case.rank() as isize);
    for d in 0..rank {
        assert_eq!(x.view.resolve_dim("here", d).unwrap(), d as usize);
        assert_eq!(x.view.resolve_dim("here", d - rank).unwrap(), d as usize);
    }
    for d in [rank, -rank - 1, isize::MIN, isize::MAX] {
        rejects("here", x.view.resolve_dim("here", d));
    }
}

fn is_contiguous<T: Sample>(case: &mut Case) {
    let (_, x) = chain::<T>(case);
    let follow = places(&x).windows(2).all(|pair| pair[0] + 1 == pair[1]);
    assert_eq!(x.view.is_contiguous(), follow);
    assert!(Twin::of(x.dense).view.is_contiguous());
}

fn as_slice<T: Sample>(case: &mut Case) {
    let (base, x) = chain::<T>(case);
    match x.view.as_slice() {
        None => assert!(!x.view.is_contiguous()),
        Some(slice) => {
            assert!(x.view.is_contiguous() && slice.len() == x.dense.data.len());
            assert!(slice.iter().zip(&x.dense.data).all(|(&got, &want)| got.is(want)));
            let start = places(&x).first().map(|&at| &raw const base.view.as_slice().unwrap()[at]);
            assert!(start.is_none_or(|start| std::ptr::eq(slice.as_ptr(), start)));
        }
    }
}

fn to_vec<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    let got = x.view.to_vec();
    assert_eq!(got.len(), x.dense.data.len());
    assert!(got.into_iter().zip(&x.dense.data).all(|(got, &want)| got.is(want)));
}

fn item<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    match x.dense.data[..] {
        [only] => assert!(x.view.item().unwrap().is(only)),
        _ => rejects("item", x.view.item()),
    }
    // Each element alone, wherever it lies.
    for (i, &want) in x.dense.data.iter().enumerate().take(20) {
        let mut one = x.view.clone();
        let mut rest = i;
        for d in (0..case.rank()).rev() {
            one = one.narrow(d as isize, rest % case.shape[d], 1).unwrap();
            rest /= case.shape[d];
        }
        assert!(one.item().unwrap().is(want));
    }
}

fn contiguous<T: Sample>(case: &mut Case) {
    let x = case.twin::<T>(special);
    let y = x.view.contiguous();
    same(&y, &x.dense);
    assert!(y.is_contiguous());
    assert_eq!(y.shares_storage(&x.view), x.view.is_contiguous());
    x.check();
}

fn make_mut<T: Sample>(case: &mut Case) {
    let (base, x) = chain::<T>(case);
    let new = dense::<T>(case);
    let data: Vec<T> = new.data.iter().copied().cycle().take(x.dense.data.len()).collect();
    let mut y = x.view.clone();
    y.make_mut().copy_from_slice(&data);
    same(&y, &Dense { shape: x.dense.shape.clone(), data });
    // Whoever shared the elements keeps theirs.
    x.check();
    base.check();
    let mut own = base.fresh();
    let address = own.as_slice().unwrap().as_ptr();
    assert_eq!(own.make_mut().as_ptr(), address);
    same(&own, &base.dense);
}

fn shares_storage<T: Sample>(case: &mut Case) {
    let (base, x) = chain::<T>(case);
    assert!(x.view.shares_storage(&base.view) && base.view.shares_storage(&x.view.clone()));
    let copy = base.fresh();
    assert!(!copy.shares_storage(&base.view));
}
