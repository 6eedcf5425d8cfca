//! The skeletons `map`, `zip` and `zip3`: one formula for every element, with broadcasting.
//!
//! All write a contiguous output. Inputs are walked in runs along the innermost merged dim, where
//! each is contiguous, one repeated scalar, or gathered into a tile on the stack. What the formulas
//! are is in `formulas.rs`.

use std::marker::PhantomData;

use super::walk::{GRAIN, TILE, Walk, copy_strided, for_each_run, for_each_run_in_place, parallel};
use super::{Kernel, dispatch};
use crate::element::Element;
use crate::error::Result;
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// A formula for one element.
pub trait Map<A, B = A> {
    /// The formula. Mark it `#[inline(always)]`, and keep it free of branches and calls.
    fn apply<const FMA: bool>(x: A) -> B;
}

/// A formula for a pair of elements.
pub trait Zip<A, B = A> {
    /// The formula. Mark it `#[inline(always)]`, and keep it free of branches and calls.
    fn apply<const FMA: bool>(x: A, y: A) -> B;
}

/// A formula for three elements, the first of which may be of another type.
pub trait Zip3<A, B> {
    /// The formula. Mark it `#[inline(always)]`, and keep it free of branches and calls.
    fn apply<const FMA: bool>(x: A, y: B, z: B) -> B;
}

/// A formula for one element, compiled for slices of equal length.
pub type MapFn<A, B> = fn(&[A], &mut [B]);
/// A formula for a pair of elements, compiled for slices.
pub type ZipFn<A, B> = fn(Arg<'_, A>, Arg<'_, A>, &mut [B]);

/// A formula for three elements, compiled for slices of equal length.
pub type Zip3Fn<A, B> = fn(&[A], &[B], &[B], &mut [B]);

/// An operand of a pairwise kernel: as long as the output, or one value for all of it.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a, T> {
    /// One element for each of the output's.
    Slice(&'a [T]),
    /// The same element for all.
    Scalar(T),
}

/// `y[i] = K(x[i])`.
pub fn map_slice<A: Element, B: Element, K: Map<A, B>>(x: &[A], y: &mut [B]) {
    dispatch(RunMap(x, y, PhantomData::<K>));
}

/// `out[i] = K(x[i], y[i])`.
pub fn zip_slice<A: Element, B: Element, K: Zip<A, B>>(
    x: Arg<'_, A>,
    y: Arg<'_, A>,
    out: &mut [B],
) {
    dispatch(RunZip(&x, &y, out, PhantomData::<K>));
}

/// `out[i] = K(x[i], y[i], z[i])`.
pub(crate) fn zip3_slice<A: Element, B: Element, K: Zip3<A, B>>(
    x: &[A],
    y: &[B],
    z: &[B],
    out: &mut [B],
) {
    dispatch(RunZip3(x, y, z, out, PhantomData::<K>));
}

/// [`map_slice`] compiled once, for the baseline: for the types that are no floats.
pub(crate) fn map_once<A: Element, B: Element, K: Map<A, B>>(x: &[A], y: &mut [B]) {
    RunMap(x, y, PhantomData::<K>).run::<false>();
}

/// [`zip_slice`] compiled once, for the baseline.
pub(crate) fn zip_once<A: Element, B: Element, K: Zip<A, B>>(
    x: Arg<'_, A>,
    y: Arg<'_, A>,
    out: &mut [B],
) {
    RunZip(&x, &y, out, PhantomData::<K>).run::<false>();
}

/// [`zip3_slice`] compiled once, for the baseline.
pub(crate) fn zip3_once<A: Element, B: Element, K: Zip3<A, B>>(
    x: &[A],
    y: &[B],
    z: &[B],
    out: &mut [B],
) {
    RunZip3(x, y, z, out, PhantomData::<K>).run::<false>();
}

struct RunMap<'a, A, B, K>(&'a [A], &'a mut [B], PhantomData<K>);

impl<A: Element, B: Element, K: Map<A, B>> Kernel for RunMap<'_, A, B, K> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (y, &x) in self.1.iter_mut().zip(self.0) {
            *y = K::apply::<FMA>(x);
        }
    }
}

/// The operands by reference: copied where they have just been made, they would stall the processor,
/// which cannot forward two small stores to one wide load.
struct RunZip<'a, A, B, K>(&'a Arg<'a, A>, &'a Arg<'a, A>, &'a mut [B], PhantomData<K>);

impl<A: Element, B: Element, K: Zip<A, B>> Kernel for RunZip<'_, A, B, K> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let RunZip(x, y, out, _) = self;
        match (*x, *y) {
            (Arg::Slice(x), Arg::Slice(y)) => {
                for ((o, &x), &y) in out.iter_mut().zip(x).zip(y) {
                    *o = K::apply::<FMA>(x, y);
                }
            }
            (Arg::Slice(x), Arg::Scalar(y)) => {
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = K::apply::<FMA>(x, y);
                }
            }
            (Arg::Scalar(x), Arg::Slice(y)) => {
                for (o, &y) in out.iter_mut().zip(y) {
                    *o = K::apply::<FMA>(x, y);
                }
            }
            (Arg::Scalar(x), Arg::Scalar(y)) => out.fill(K::apply::<FMA>(x, y)),
        }
    }
}

struct RunZip3<'a, A, B, K>(&'a [A], &'a [B], &'a [B], &'a mut [B], PhantomData<K>);

impl<A: Element, B: Element, K: Zip3<A, B>> Kernel for RunZip3<'_, A, B, K> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        for (((o, &x), &y), &z) in self.3.iter_mut().zip(self.0).zip(self.1).zip(self.2) {
            *o = K::apply::<FMA>(x, y, z);
        }
    }
}

/// The second operand of a method: a tensor that broadcasts, or a number, which is never made into a
/// tensor. `x.maximum(&y)` and `x.maximum(0.0)` both work.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'a, T: Element> {
    /// A tensor.
    Tensor(&'a Tensor<T>),
    /// The same number for every element.
    Scalar(T),
}

impl<'a, T: Element> From<&'a Tensor<T>> for Operand<'a, T> {
    fn from(x: &'a Tensor<T>) -> Self {
        Operand::Tensor(x)
    }
}

impl<T: Element> From<T> for Operand<'_, T> {
    fn from(x: T) -> Self {
        Operand::Scalar(x)
    }
}

impl<T: Element> Operand<'_, T> {
    fn shape(&self) -> &[usize] {
        match self {
            Operand::Tensor(x) => x.shape(),
            Operand::Scalar(_) => &[],
        }
    }

    /// The buffer and the layout in `shape`, to which it must broadcast.
    fn input(&self, op: &'static str, shape: &Shape) -> Result<(&[T], Layout)> {
        match self {
            Operand::Tensor(x) => Ok((x.buffer.as_slice(), x.layout.expand(op, shape)?)),
            Operand::Scalar(x) => {
                Ok((std::slice::from_ref(x), Layout::contiguous([].into()).expand(op, shape)?))
            }
        }
    }
}

/// A contiguous tensor of the shape of `x` whose elements are `f` of `x`'s.
pub(crate) fn map<A: Element, B: Element>(x: &Tensor<A>, f: MapFn<A, B>) -> Tensor<B> {
    Tensor::build(x.layout.shape.clone(), |out| {
        for_each_run([(x.buffer.as_slice(), &x.layout)], out, |[x], out| map_run(x, out, f));
    })
}

fn map_run<A: Element, B: Element>(x: Arg<'_, A>, out: &mut [B], f: MapFn<A, B>) {
    match x {
        Arg::Slice(x) => f(x, out),
        Arg::Scalar(x) => {
            let mut y = [B::default()];
            f(&[x], &mut y);
            out.fill(y[0]);
        }
    }
}

/// `x` itself with `f` applied, reusing its storage where nobody shares it.
pub(crate) fn map_owned<T: Element>(mut x: Tensor<T>, f: MapFn<T, T>) -> Tensor<T> {
    let Some(out) = x.owned_slice() else { return map(&x, f) };
    for_each_run_in_place([], out, |own, [], out| map_run(own, out, f));
    x
}

/// `f` of each pair of elements under the broadcasting rule.
pub(crate) fn zip<A: Element, B: Element>(
    op: &'static str,
    x: &Tensor<A>,
    y: &Tensor<A>,
    f: ZipFn<A, B>,
) -> Result<Tensor<B>> {
    let inputs = [x.buffer.as_slice(), y.buffer.as_slice()];
    let run = |[x, y]: [Arg<'_, A>; 2], out: &mut [B]| f(x, y, out);
    if x.layout.shape == y.layout.shape {
        return Ok(Tensor::build(x.layout.shape.clone(), |out| {
            for_each_run([(inputs[0], &x.layout), (inputs[1], &y.layout)], out, run);
        }));
    }
    let shape = Shape::broadcast(op, x.shape(), y.shape())?;
    shape.checked_alloc(op, size_of::<A>().max(size_of::<B>()))?;
    let [x, y] = [x.layout.expand(op, &shape)?, y.layout.expand(op, &shape)?];
    Ok(Tensor::build(shape, |out| {
        for_each_run([(inputs[0], &x), (inputs[1], &y)], out, run);
    }))
}

/// [`zip`], or `f(x, value)` for every element of `x`.
pub(crate) fn zip_operand<A: Element, B: Element>(
    op: &'static str,
    x: &Tensor<A>,
    y: Operand<'_, A>,
    f: ZipFn<A, B>,
) -> Result<Tensor<B>> {
    match y {
        Operand::Tensor(y) => zip(op, x, y, f),
        Operand::Scalar(y) => Ok(zip_scalar(x, y, Side::Left, f)),
    }
}

/// [`zip_operand`] that overwrites `x` where it is unshared and already of the result's shape.
pub(crate) fn zip_operand_owned<T: Element>(
    op: &'static str,
    x: Tensor<T>,
    y: Operand<'_, T>,
    f: ZipFn<T, T>,
) -> Result<Tensor<T>> {
    match y {
        Operand::Tensor(y) => zip_owned(op, x, y, Side::Left, f),
        Operand::Scalar(y) => Ok(zip_scalar_owned(x, y, Side::Left, f)),
    }
}

/// Which side of the formula the tensor of [`zip_scalar`], or the reusable one of [`zip_owned`], is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
}

/// [`zip`] where one operand, `own`, may be overwritten: done where it is unshared and already of
/// the result's shape.
pub(crate) fn zip_owned<T: Element>(
    op: &'static str,
    mut own: Tensor<T>,
    other: &Tensor<T>,
    side: Side,
    f: ZipFn<T, T>,
) -> Result<Tensor<T>> {
    if let Ok(layout) = other.layout.expand(op, &own.layout.shape)
        && let Some(out) = own.owned_slice()
    {
        let input = (other.buffer.as_slice(), &layout);
        for_each_run_in_place([input], out, |own, [other], out| match side {
            Side::Left => f(own, other, out),
            Side::Right => f(other, own, out),
        });
        return Ok(own);
    }
    match side {
        Side::Left => zip(op, &own, other, f),
        Side::Right => zip(op, other, &own, f),
    }
}

/// `f(x, value)` (or `f(value, x)`) for every element of `x`.
pub(crate) fn zip_scalar<A: Element, B: Element>(
    x: &Tensor<A>,
    value: A,
    side: Side,
    f: ZipFn<A, B>,
) -> Tensor<B> {
    Tensor::build(x.layout.shape.clone(), |out| {
        for_each_run([(x.buffer.as_slice(), &x.layout)], out, |[x], out| match side {
            Side::Left => f(x, Arg::Scalar(value), out),
            Side::Right => f(Arg::Scalar(value), x, out),
        });
    })
}

/// [`zip_scalar`] that overwrites `x` where it is unshared.
pub(crate) fn zip_scalar_owned<T: Element>(
    mut x: Tensor<T>,
    value: T,
    side: Side,
    f: ZipFn<T, T>,
) -> Tensor<T> {
    let Some(out) = x.owned_slice() else { return zip_scalar(&x, value, side, f) };
    for_each_run_in_place([], out, |own, [], out| match side {
        Side::Left => f(own, Arg::Scalar(value), out),
        Side::Right => f(Arg::Scalar(value), own, out),
    });
    x
}

/// `f` of each triple of elements under the broadcasting rule.
pub(crate) fn zip3<A: Element, B: Element>(
    op: &'static str,
    x: Operand<'_, A>,
    y: Operand<'_, B>,
    z: Operand<'_, B>,
    f: Zip3Fn<A, B>,
) -> Result<Tensor<B>> {
    let shape = Shape::broadcast(op, x.shape(), &Shape::broadcast(op, y.shape(), z.shape())?)?;
    shape.checked_alloc(op, size_of::<A>().max(size_of::<B>()))?;
    let (x, y, z) = (x.input(op, &shape)?, y.input(op, &shape)?, z.input(op, &shape)?);
    Ok(Tensor::build(shape, |out| {
        let walk = Walk::new([&x.1, &y.1, &z.1]);
        let [sx, sy, sz] = walk.inner();
        parallel(out, GRAIN, |start, out| {
            let mut tx = [A::default(); TILE];
            let (mut ty, mut tz) = ([B::default(); TILE], [B::default(); TILE]);
            walk.runs(start..start + out.len(), |[px, py, pz], at, length| {
                for done in (0..length).step_by(TILE) {
                    let out = &mut out[at + done..at + length.min(done + TILE)];
                    let from = |p: usize, s: isize| (p as isize + done as isize * s) as usize;
                    let a = spread(x.0, from(px, sx), sx, out.len(), &mut tx);
                    let b = spread(y.0, from(py, sy), sy, out.len(), &mut ty);
                    let c = spread(z.0, from(pz, sz), sz, out.len(), &mut tz);
                    f(a, b, c, out);
                }
            });
        });
    }))
}

/// The `length` elements from `start` on as a slice; what is not one in memory is spread over `tile`.
fn spread<'a, T: Element>(
    data: &'a [T],
    start: usize,
    stride: isize,
    length: usize,
    tile: &'a mut [T; TILE],
) -> &'a [T] {
    if stride == 1 {
        return &data[start..start + length];
    }
    copy_strided(data, start, stride, &mut tile[..length]);
    &tile[..length]
}
