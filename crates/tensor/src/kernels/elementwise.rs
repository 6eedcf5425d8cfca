//! The skeletons `map` and `zip`: one formula for every element, with broadcasting.
//!
//! Both write a contiguous output. Inputs are walked in runs along the innermost merged dim, where
//! each is contiguous, one repeated scalar, or gathered into a tile on the stack. An operand that is
//! also the output is copied through that tile, so that kernels never see aliasing slices.

use std::marker::PhantomData;
use std::ops::Range;

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Kernel, dispatch};
use crate::element::{Element, Float};
use crate::error::Result;
use crate::layout::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Elements gathered at a time where an input is strided.
const TILE: usize = 256;
/// Elements per task: below twice this many, waking a thread costs more than it brings.
pub(crate) const GRAIN: usize = 32 << 10;

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

/// A formula for one element, compiled for slices of equal length.
pub type MapFn<A, B> = fn(&[A], &mut [B]);
/// A formula for a pair of elements, compiled for slices.
pub type ZipFn<A, B> = fn(Arg<'_, A>, Arg<'_, A>, &mut [B]);

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
    struct Run<'a, A, B, K>(&'a [A], &'a mut [B], PhantomData<K>);
    impl<A: Element, B: Element, K: Map<A, B>> Kernel for Run<'_, A, B, K> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            for (y, &x) in self.1.iter_mut().zip(self.0) {
                *y = K::apply::<FMA>(x);
            }
        }
    }
    dispatch(Run(x, y, PhantomData::<K>));
}

/// `out[i] = K(x[i], y[i])`.
pub fn zip_slice<A: Element, B: Element, K: Zip<A, B>>(
    x: Arg<'_, A>,
    y: Arg<'_, A>,
    out: &mut [B],
) {
    struct Run<'a, A, B, K>(Arg<'a, A>, Arg<'a, A>, &'a mut [B], PhantomData<K>);
    impl<A: Element, B: Element, K: Zip<A, B>> Kernel for Run<'_, A, B, K> {
        type Output = ();
        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let Run(x, y, out, _) = self;
            match (x, y) {
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
    dispatch(Run(x, y, out, PhantomData::<K>));
}

/// The built-in formulas of one argument.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named as the functions they are")]
pub enum Unary {
    Neg,
    Abs,
    Sqrt,
    Exp,
    Log,
    Tanh,
    Sigmoid,
    Relu,
}

/// The built-in formulas of two arguments.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "named as the functions they are")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    ThresholdBackward,
    TanhBackward,
    SigmoidBackward,
}

macro_rules! formulas {
    ($trait:ident $arguments:tt: $($(#[$note:meta])* $name:ident = $formula:expr;)+) => {$(
        $(#[$note])*
        struct $name;
        impl<T: Float> $trait<T> for $name {
            #[inline(always)]
            fn apply<const FMA: bool> $arguments -> T { $formula }
        }
    )+};
}

formulas! { Map (x: T):
    Neg = -x;
    Abs = x.abs();
    Sqrt = x.sqrt();
    Exp = x.vexp::<FMA>();
    Log = x.vlog::<FMA>();
    Tanh = x.vtanh::<FMA>();
    /// Through e^-|x|, which never overflows.
    Sigmoid = {
        let e = (-x.abs()).vexp::<FMA>();
        let d = T::ONE / (T::ONE + e);
        if x < T::ZERO { e * d } else { d }
    };
    /// NaN stays NaN.
    Relu = if x <= T::ZERO { T::ZERO } else { x };
}

formulas! { Zip (x: T, y: T):
    Add = x + y;
    Sub = x - y;
    Mul = x * y;
    Div = x / y;
    /// `x` where `y > 0` (or NaN), else 0.
    ThresholdBackward = if y <= T::ZERO { T::ZERO } else { x };
    TanhBackward = x * (T::ONE - y * y);
    SigmoidBackward = x * (y * (T::ONE - y));
}

/// A scalar loop, for formulas that call the C library and so never vectorise.
fn map_plain<T: Float, K: Map<T>>(x: &[T], y: &mut [T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = K::apply::<false>(x);
    }
}

pub(crate) mod unary_table {
    //! Which compiled formula stands behind each name.
    use super::{
        Abs, Exp, Log, MapFn, Neg, Relu, Sigmoid, Sqrt, Tanh, Unary, map_plain, map_slice,
    };

    macro_rules! table {
        ($type:ident, $calls:ident) => {
            pub(crate) fn $type(op: Unary) -> MapFn<$type, $type> {
                match op {
                    Unary::Neg => map_slice::<$type, $type, Neg>,
                    Unary::Abs => map_slice::<$type, $type, Abs>,
                    Unary::Sqrt => map_slice::<$type, $type, Sqrt>,
                    Unary::Exp => map_slice::<$type, $type, Exp>,
                    Unary::Sigmoid => map_slice::<$type, $type, Sigmoid>,
                    Unary::Relu => map_slice::<$type, $type, Relu>,
                    Unary::Log => $calls!($type, Log),
                    Unary::Tanh => $calls!($type, Tanh),
                }
            }
        };
    }
    macro_rules! vector {
        ($type:ident, $name:ident) => {
            map_slice::<$type, $type, $name>
        };
    }
    macro_rules! scalar {
        ($type:ident, $name:ident) => {
            map_plain::<$type, $name>
        };
    }
    table!(f32, vector);
    table!(f64, scalar);
}

pub(crate) fn binary_table<T: Float>(op: Binary) -> ZipFn<T, T> {
    match op {
        Binary::Add => zip_slice::<T, T, Add>,
        Binary::Sub => zip_slice::<T, T, Sub>,
        Binary::Mul => zip_slice::<T, T, Mul>,
        Binary::Div => zip_slice::<T, T, Div>,
        Binary::ThresholdBackward => zip_slice::<T, T, ThresholdBackward>,
        Binary::TanhBackward => zip_slice::<T, T, TanhBackward>,
        Binary::SigmoidBackward => zip_slice::<T, T, SigmoidBackward>,
    }
}

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

    /// Strides along the innermost merged dim.
    fn inner(&self) -> [isize; N] {
        self.strides[self.strides.len() - 1]
    }

    /// Calls `visit(positions, at, length)` for each run of the flat range: where the run starts in
    /// each buffer, and where in the range.
    fn runs(&self, range: Range<usize>, mut visit: impl FnMut([usize; N], usize, usize)) {
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

/// The `length` elements from `start` on as an operand; strided ones are gathered into `tile`.
fn operand<'a, T: Element>(
    data: &'a [T],
    start: usize,
    stride: isize,
    length: usize,
    tile: &'a mut [T; TILE],
) -> Arg<'a, T> {
    match stride {
        1 => Arg::Slice(&data[start..start + length]),
        0 => Arg::Scalar(data[start]),
        _ => {
            for (i, t) in tile[..length].iter_mut().enumerate() {
                *t = data[(start as isize + i as isize * stride) as usize];
            }
            Arg::Slice(&tile[..length])
        }
    }
}

/// Splits `out` into tasks of [`GRAIN`] elements where that pays; `work(start, part)`.
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

/// A contiguous tensor of `shape` whose elements are `f` of `x`'s; `x` already has that shape.
pub(crate) fn map<A: Element, B: Element>(x: &Tensor<A>, f: MapFn<A, B>) -> Tensor<B> {
    let data = x.buffer.as_slice();
    Tensor::build(x.layout.shape.clone(), |out| {
        if let Some(x) = x.as_slice() {
            return parallel(out, GRAIN, |start, out| f(&x[start..start + out.len()], out));
        }
        let walk = Walk::new([&x.layout]);
        let [stride] = walk.inner();
        parallel(out, GRAIN, |start, out| {
            let mut tile = [A::default(); TILE];
            walk.runs(start..start + out.len(), |[p], at, length| {
                for done in (0..length).step_by(TILE) {
                    let n = TILE.min(length - done);
                    let from = (p as isize + done as isize * stride) as usize;
                    let out = &mut out[at + done..at + done + n];
                    match operand(data, from, stride, n, &mut tile) {
                        Arg::Slice(x) => f(x, out),
                        Arg::Scalar(x) => f(&[x; TILE][..n], out),
                    }
                }
            });
        });
    })
}

/// `x` itself with `f` applied, reusing its storage where nobody shares it.
pub(crate) fn map_owned<T: Element>(mut x: Tensor<T>, f: MapFn<T, T>) -> Tensor<T> {
    let Some(out) = x.owned_slice() else { return map(&x, f) };
    parallel(out, GRAIN, |_, out| {
        let mut tile = [T::default(); TILE];
        for out in out.chunks_mut(TILE) {
            let tile = &mut tile[..out.len()];
            tile.copy_from_slice(out);
            f(tile, out);
        }
    });
    x
}

/// `f` of each pair of elements under the broadcasting rule.
pub(crate) fn zip<A: Element, B: Element>(
    op: &'static str,
    x: &Tensor<A>,
    y: &Tensor<A>,
    f: ZipFn<A, B>,
) -> Result<Tensor<B>> {
    if x.layout.shape == y.layout.shape
        && let (Some(x_all), Some(y_all)) = (x.as_slice(), y.as_slice())
    {
        return Ok(Tensor::build(x.layout.shape.clone(), |out| {
            parallel(out, GRAIN, |start, out| {
                let range = start..start + out.len();
                f(Arg::Slice(&x_all[range.clone()]), Arg::Slice(&y_all[range]), out);
            });
        }));
    }
    let shape = Shape::broadcast(op, x.shape(), y.shape())?;
    shape.checked_numel(op, size_of::<A>().max(size_of::<B>()))?;
    let layouts = [x.layout.expand(op, &shape)?, y.layout.expand(op, &shape)?];
    let (x, y) = (x.buffer.as_slice(), y.buffer.as_slice());
    Ok(Tensor::build(shape, |out| {
        if out.is_empty() {
            return;
        }
        let walk = Walk::new([&layouts[0], &layouts[1]]);
        let [sx, sy] = walk.inner();
        let step = if [sx, sy].iter().all(|s| matches!(s, 0 | 1)) { usize::MAX } else { TILE };
        parallel(out, GRAIN, |start, out| {
            let (mut tx, mut ty) = ([A::default(); TILE], [A::default(); TILE]);
            walk.runs(start..start + out.len(), |[px, py], at, length| {
                for done in (0..length).step_by(step) {
                    let n = step.min(length - done);
                    let from = |p: usize, s: isize| (p as isize + done as isize * s) as usize;
                    let a = operand(x, from(px, sx), sx, n, &mut tx);
                    let b = operand(y, from(py, sy), sy, n, &mut ty);
                    f(a, b, &mut out[at + done..at + done + n]);
                }
            });
        });
    }))
}

/// Which operand of [`zip_owned`] may be reused for the result.
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
    let fits = other.layout.expand(op, &own.layout.shape).ok();
    if let Some(other_layout) = fits
        && let Some(out) = own.owned_slice()
    {
        if out.is_empty() {
            return Ok(own);
        }
        let walk = Walk::new([&other_layout, &Layout::contiguous(other_layout.shape.clone())]);
        let [stride, _] = walk.inner();
        let data = other.buffer.as_slice();
        parallel(out, GRAIN, |start, out| {
            let (mut to, mut ty) = ([T::default(); TILE], [T::default(); TILE]);
            walk.runs(start..start + out.len(), |[p, _], at, length| {
                for done in (0..length).step_by(TILE) {
                    let n = TILE.min(length - done);
                    let from = (p as isize + done as isize * stride) as usize;
                    let out = &mut out[at + done..at + done + n];
                    let mine = &mut to[..n];
                    mine.copy_from_slice(out);
                    let mine = Arg::Slice(mine);
                    let theirs = operand(data, from, stride, n, &mut ty);
                    match side {
                        Side::Left => f(mine, theirs, out),
                        Side::Right => f(theirs, mine, out),
                    }
                }
            });
        });
        return Ok(own);
    }
    match side {
        Side::Left => zip(op, &own, other, f),
        Side::Right => zip(op, other, &own, f),
    }
}

/// `f(x, value)` (or `f(value, x)`) for every element of `x`.
pub(crate) fn zip_scalar<T: Element>(
    x: &Tensor<T>,
    value: T,
    side: Side,
    f: ZipFn<T, T>,
) -> Tensor<T> {
    let run = |x: &[T], out: &mut [T]| match side {
        Side::Left => f(Arg::Slice(x), Arg::Scalar(value), out),
        Side::Right => f(Arg::Scalar(value), Arg::Slice(x), out),
    };
    let contiguous = x.contiguous();
    let data = contiguous.slice();
    Tensor::build(x.layout.shape.clone(), |out| {
        parallel(out, GRAIN, |start, out| run(&data[start..start + out.len()], out));
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
    parallel(out, GRAIN, |_, out| {
        let mut tile = [T::default(); TILE];
        for out in out.chunks_mut(TILE) {
            let tile = &mut tile[..out.len()];
            tile.copy_from_slice(out);
            match side {
                Side::Left => f(Arg::Slice(tile), Arg::Scalar(value), out),
                Side::Right => f(Arg::Scalar(value), Arg::Slice(tile), out),
            }
        }
    });
    x
}

impl Walk<1> {
    /// The stride of the one dim that all dims merge into, if they do.
    pub(crate) fn single_stride(&self) -> Option<isize> {
        (self.sizes.len() == 1).then(|| self.strides[0][0])
    }

    /// The elements from the `start`-th on in row-major order, into `out`.
    pub(crate) fn gather<T: Element>(&self, data: &[T], start: usize, out: &mut [T]) {
        let [stride] = self.inner();
        self.runs(start..start + out.len(), |[p], at, length| {
            let out = &mut out[at..at + length];
            match stride {
                1 => out.copy_from_slice(&data[p..p + length]),
                0 => out.fill(data[p]),
                _ => {
                    for (i, o) in out.iter_mut().enumerate() {
                        *o = data[(p as isize + i as isize * stride) as usize];
                    }
                }
            }
        });
    }
}

/// The elements of `x` in row-major order, into `out`.
pub(crate) fn gather_into<T: Element>(x: &Tensor<T>, out: &mut [T]) {
    if out.is_empty() {
        return;
    }
    let data = x.buffer.as_slice();
    let walk = Walk::new([&x.layout]);
    parallel(out, GRAIN, |start, out| walk.gather(data, start, out));
}
