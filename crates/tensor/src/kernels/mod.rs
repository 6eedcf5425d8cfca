//! The code that touches elements. Skeletons ([`map`](elementwise), zip, rows, reduce, matmul) know
//! how to walk memory; a kernel is a formula that one of them carries.
//!
//! # How a formula reaches the vector unit
//!
//! A [`Kernel`] is a struct of its arguments with one `#[inline(always)]` method. [`dispatch`] calls
//! it from a wrapper compiled for AVX-512, for AVX2 with FMA, or for the baseline, chosen once per
//! process, and plain loops vectorise there. (A closure passed to such a wrapper is inlined only
//! while it is small; larger ones end up called as baseline scalar code.) The environment variable
//! `TENSOR_ISA` (`baseline`, `avx2`, `avx512`) forces a lesser path, for tests.

mod dispatch;
mod dots;
pub mod elementwise;
mod exponentials;
pub(crate) mod formulas;
pub mod linear_cross_entropy;
pub(crate) mod math;
pub mod matmul;
pub(crate) mod reduce;
pub(crate) mod rows;
mod skinny;
mod small;
pub mod softmax;
pub mod standardise;
mod tiles;
pub(crate) mod walk;

pub(crate) use dispatch::prefetch;
pub use dispatch::{Isa, Kernel, dispatch, isa};
pub use elementwise::{Arg, Map, MapFn, Operand, Zip, Zip3, Zip3Fn, ZipFn, map_slice, zip_slice};
pub use reduce::FoldFns;

use crate::element::Element;
use exponentials::{GradientRows, LogRows, RowSums, SumRows};
use formulas::{Binary, Class, Comparison, NumberBinary, NumberUnary, Unary};
use matmul::MatRef;
use reduce::fold_fns;
use standardise::StandardRows;
use tiles::{Lanes, TileGradient, TileLogits, TileSums};

/// Kernels compiled in this crate for every type, whoever uses them.
#[doc(hidden)]
pub trait ElementKernels: Sized {
    fn compare(op: Comparison) -> ZipFn<Self, bool>;
    fn choose() -> Zip3Fn<bool, Self>;
    fn cast<U: Element>() -> MapFn<Self, U>;
    fn cast_from_f32(x: &[f32], out: &mut [Self]);
    fn cast_from_f64(x: &[f64], out: &mut [Self]);
    fn cast_from_i64(x: &[i64], out: &mut [Self]);
    fn cast_from_u8(x: &[u8], out: &mut [Self]);
    fn cast_from_bool(x: &[bool], out: &mut [Self]);
    fn sum() -> FoldFns<Self, Self::Accumulator>
    where
        Self: Element;
    /// [`ElementKernels::sum`] with lanes of the accumulator's type.
    fn wide_sum() -> FoldFns<Self, Self::Accumulator>
    where
        Self: Element;
    fn product() -> FoldFns<Self, Self::Accumulator>
    where
        Self: Element;
}

/// Kernels of the types with arithmetic.
#[doc(hidden)]
pub trait NumberKernels: Sized {
    fn number_unary(op: NumberUnary) -> MapFn<Self, Self>;
    fn number_binary(op: NumberBinary) -> ZipFn<Self, Self>;
    fn clamp() -> Zip3Fn<Self, Self>;
    fn largest() -> FoldFns<Self, Self>;
    fn smallest() -> FoldFns<Self, Self>;
}

/// Kernels of the float types.
#[doc(hidden)]
pub trait FloatKernels: Sized {
    fn unary(op: Unary) -> MapFn<Self, Self>;
    fn binary(op: Binary) -> ZipFn<Self, Self>;
    fn classify(op: Class) -> MapFn<Self, bool>;
    fn lerp() -> Zip3Fn<Self, Self>;
    /// Sum of a slice, in `f64` above fixed lanes and blocks.
    fn sum_slice(x: &[Self]) -> f64;
    fn squares() -> FoldFns<Self, f64>;
    fn magnitudes() -> FoldFns<Self, f64>;
    /// `dst = lhs·rhs`, or `dst += lhs·rhs`.
    fn gemm(dst: &mut [Self], lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, accumulate: bool);
    /// `keep` is a row for each of `out`, or empty.
    fn softmax_sums(rows: SumRows<'_, Self>, out: &mut [RowSums], keep: &mut [Self]);
    fn softmax_log(rows: LogRows<'_, Self>);
    fn softmax_gradient(rows: GradientRows<'_, Self>);
    fn standardise(rows: StandardRows<'_, Self>);
    /// `gemm` on this thread alone, into rows that lie so far apart.
    fn gemm_into(
        dst: (&mut [Self], usize),
        lhs: MatRef<'_, Self>,
        rhs: MatRef<'_, Self>,
        accumulate: bool,
    );
    fn tile_logits(tile: TileLogits<'_, Self>);
    fn tile_sums(tile: TileSums<'_, Self>, out: &mut Lanes<Self>);
    /// Whether any entry is NaN, or above the tile's threshold.
    fn tile_gradient(tile: TileGradient<'_, Self>) -> bool;
}

macro_rules! float_kernels {
    ($type:ident) => {
        impl FloatKernels for $type {
            fn unary(op: Unary) -> MapFn<Self, Self> {
                formulas::$type::unary(op)
            }
            fn binary(op: Binary) -> ZipFn<Self, Self> {
                formulas::$type::binary(op)
            }
            fn classify(op: Class) -> MapFn<Self, bool> {
                formulas::$type::classify(op)
            }
            fn lerp() -> Zip3Fn<Self, Self> {
                formulas::$type::lerp()
            }
            fn sum_slice(x: &[Self]) -> f64 {
                (<$type as ElementKernels>::sum().slice)(x)
            }
            fn squares() -> FoldFns<Self, f64> {
                fold_fns::<$type, reduce::Squares>()
            }
            fn magnitudes() -> FoldFns<Self, f64> {
                fold_fns::<$type, reduce::Magnitudes>()
            }
            fn gemm(dst: &mut [Self], lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, add: bool) {
                matmul::gemm(dst, lhs, rhs, add);
            }
            fn softmax_sums(rows: SumRows<'_, Self>, out: &mut [RowSums], keep: &mut [Self]) {
                dispatch(exponentials::Sums { rows, out, keep });
            }
            fn softmax_log(rows: LogRows<'_, Self>) {
                dispatch(rows);
            }
            fn softmax_gradient(rows: GradientRows<'_, Self>) {
                dispatch(rows);
            }
            fn standardise(rows: StandardRows<'_, Self>) {
                dispatch(rows);
            }
            fn gemm_into(
                dst: (&mut [Self], usize),
                lhs: MatRef<'_, Self>,
                rhs: MatRef<'_, Self>,
                accumulate: bool,
            ) {
                matmul::gemm_into(dst, lhs, rhs, accumulate);
            }
            fn tile_logits(tile: TileLogits<'_, Self>) {
                dispatch(tile);
            }
            fn tile_sums(tile: TileSums<'_, Self>, out: &mut Lanes<Self>) {
                dispatch(tiles::Sums { tile, out });
            }
            fn tile_gradient(tile: TileGradient<'_, Self>) -> bool {
                dispatch(tile)
            }
        }
    };
}

float_kernels!(f32);
float_kernels!(f64);
