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
pub mod elementwise;
mod exponentials;
pub(crate) mod math;
pub mod matmul;
pub mod reduce;
mod rows;
pub mod select;
pub mod softmax;

pub use dispatch::{Isa, Kernel, dispatch, isa};
pub use elementwise::{Arg, Map, MapFn, Zip, ZipFn, map_slice, zip_slice};

use elementwise::{Binary, Unary};
use exponentials::{GradientRows, LogRows, RowSums, SumRows};
use matmul::MatRef;
use reduce::Columns;

/// Slice kernels compiled in this crate, once for each float type, whoever uses them.
#[doc(hidden)]
pub trait FloatKernels: Sized {
    fn unary(op: Unary) -> MapFn<Self, Self>;
    fn binary(op: Binary) -> ZipFn<Self, Self>;
    /// Sum of a slice, in `f64` above fixed lanes and blocks.
    fn sum_slice(x: &[Self]) -> f64;
    /// Adds the sum over rows of each column to `columns.out`.
    fn sum_columns(columns: Columns<'_, Self>);
    /// `dst = lhs·rhs`, or `dst += lhs·rhs`.
    fn gemm(dst: &mut [Self], lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, accumulate: bool);
    fn softmax_sums(rows: SumRows<'_, Self>, out: &mut [RowSums]);
    fn softmax_log(rows: LogRows<'_, Self>);
    fn softmax_gradient(rows: GradientRows<'_, Self>);
}

macro_rules! float_kernels {
    ($type:ident) => {
        impl FloatKernels for $type {
            fn unary(op: Unary) -> MapFn<Self, Self> {
                elementwise::unary_table::$type(op)
            }
            fn binary(op: Binary) -> ZipFn<Self, Self> {
                elementwise::binary_table::<$type>(op)
            }
            fn sum_slice(x: &[Self]) -> f64 {
                dispatch(reduce::SumSlice(x))
            }
            fn sum_columns(columns: Columns<'_, Self>) {
                dispatch(columns);
            }
            fn gemm(dst: &mut [Self], lhs: MatRef<'_, Self>, rhs: MatRef<'_, Self>, add: bool) {
                matmul::gemm(dst, lhs, rhs, add);
            }
            fn softmax_sums(rows: SumRows<'_, Self>, out: &mut [RowSums]) {
                dispatch(exponentials::Sums { rows, out });
            }
            fn softmax_log(rows: LogRows<'_, Self>) {
                dispatch(rows);
            }
            fn softmax_gradient(rows: GradientRows<'_, Self>) {
                dispatch(rows);
            }
        }
    };
}

float_kernels!(f32);
float_kernels!(f64);
