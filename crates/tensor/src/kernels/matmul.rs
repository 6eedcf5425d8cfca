//! Matrix products, all through one function around the `gemm` crate.
#![expect(unsafe_code, reason = "the gemm crate takes raw pointers")]

use rayon::prelude::*;

use super::{skinny, small};
use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Multiply-adds from which on a product, or a batch of them, is worth a second thread.
pub(crate) const PARALLEL: usize = 2 << 20;

/// Columns of a part of a product with a transposed factor.
const WIDTH: usize = 128;

/// A strided matrix inside a slice.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) start: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) row_stride: isize,
    pub(crate) column_stride: isize,
}

impl<'a, T: Element> MatRef<'a, T> {
    /// The last two dims of `x`, at `start`.
    pub(crate) fn of(x: &'a Tensor<T>, start: usize) -> Self {
        let [.., rows, columns] = *x.shape() else { unreachable!("bug: rank checked by matmul") };
        let [.., row_stride, column_stride] = x.layout.strides[..] else {
            unreachable!("bug: as many strides as sizes")
        };
        MatRef { data: x.buffer.as_slice(), start, rows, columns, row_stride, column_stride }
    }

    pub(crate) fn t(self) -> Self {
        MatRef {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// Where in `data` the element of row `i` and column `j` lies.
    #[inline(always)]
    pub(super) fn position(&self, i: usize, j: usize) -> usize {
        let offset = i as isize * self.row_stride + j as isize * self.column_stride;
        (self.start as isize + offset) as usize
    }

    /// Panics unless every element lies inside `data`. There must be at least one.
    fn assert_in_bounds(&self) {
        let reach = |n: usize, stride: isize| (n as isize - 1) * stride;
        let ends = [reach(self.rows, self.row_stride), reach(self.columns, self.column_stride)];
        let low = self.start as isize + ends.iter().map(|e| (*e).min(0)).sum::<isize>();
        let high = self.start as isize + ends.iter().map(|e| (*e).max(0)).sum::<isize>();
        assert!(low >= 0 && (high as usize) < self.data.len(), "bug: matrix outside its buffer");
    }
}

/// `dst = lhs·rhs`, or `dst += lhs·rhs`; `dst` is row-major and exactly of the product's size. The
/// bits do not depend on the number of threads.
pub(crate) fn gemm<T: Float>(
    dst: &mut [T],
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    accumulate: bool,
) {
    let (m, k, n) = (lhs.rows, lhs.columns, rhs.columns);
    assert!(rhs.rows == k && dst.len() == m * n, "bug: matrix sizes do not fit");
    if is_trivial((&mut *dst, n), [m, k, n], accumulate) {
        return;
    }
    lhs.assert_in_bounds();
    rhs.assert_in_bounds();
    if small::gemm(dst, lhs, rhs, accumulate) || skinny::gemm(dst, lhs, rhs, accumulate) {
        return;
    }
    let many = m * n * k >= PARALLEL;
    let dst = Columns { first: dst.as_mut_ptr(), rows: m, stride: n };
    if many && rhs.row_stride == 1 && rhs.column_stride != 1 {
        // The gemm crate packs a transposed factor on every thread; so each has columns of its own, the
        // same whatever the number of threads.
        (0..n.div_ceil(WIDTH)).into_par_iter().for_each(|part| {
            let j = part * WIDTH;
            let columns = WIDTH.min(n - j);
            let rhs = MatRef { start: rhs.position(0, j), columns, ..rhs };
            // SAFETY: `dst` has m rows of n elements, and no two parts have a column in common.
            unsafe { multiply(dst.from(j), lhs, rhs, accumulate, gemm::Parallelism::None) };
        });
        return;
    }
    let threads = rayon::current_num_threads();
    let parallelism = if threads > 1 && many {
        gemm::Parallelism::Rayon(threads)
    } else {
        gemm::Parallelism::None
    };
    // SAFETY: `dst` has m rows of n elements, and is exclusively borrowed.
    unsafe { multiply(dst, lhs, rhs, accumulate, parallelism) };
}

/// Whether there is nothing to multiply; sums of nothing are written then.
fn is_trivial<T: Float>(
    (dst, stride): (&mut [T], usize),
    [m, k, n]: [usize; 3],
    accumulate: bool,
) -> bool {
    if k == 0 && n > 0 && !accumulate {
        dst.chunks_mut(stride).take(m).for_each(|row| row[..n].fill(T::ZERO));
    }
    m * k * n == 0
}

/// [`gemm`] on this thread alone, into rows that lie `stride` apart.
pub(crate) fn gemm_into<T: Float>(
    (dst, stride): (&mut [T], usize),
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    accumulate: bool,
) {
    let (m, k, n) = (lhs.rows, lhs.columns, rhs.columns);
    let enough = m == 0 || dst.len() >= (m - 1) * stride + n;
    assert!(rhs.rows == k && stride >= n && enough, "bug: matrix sizes do not fit");
    if is_trivial((&mut *dst, stride), [m, k, n], accumulate) {
        return;
    }
    lhs.assert_in_bounds();
    rhs.assert_in_bounds();
    let dst = Columns { first: dst.as_mut_ptr(), rows: m, stride };
    // SAFETY: `dst` has m rows of n elements, `stride` apart, by the assertions above, and is
    // exclusively borrowed; those of `lhs` and `rhs` are in bounds, and there are some.
    unsafe { multiply(dst, lhs, rhs, accumulate, gemm::Parallelism::None) };
}

/// Some columns of a row-major matrix.
#[derive(Clone, Copy)]
struct Columns<T> {
    first: *mut T,
    rows: usize,
    stride: usize,
}

// SAFETY: a pointer to plain numbers; who writes through it says why nobody else does.
unsafe impl<T: Float> Sync for Columns<T> {}

impl<T: Float> Columns<T> {
    /// Those from column j on.
    fn from(&self, j: usize) -> Self {
        // In bounds or not is the caller's to know: nothing is read or written here.
        Columns { first: self.first.wrapping_add(j), ..*self }
    }
}

/// The product of two matrices into as many columns as `rhs` has.
///
/// # Safety
/// Every element of `lhs` and `rhs` lies in their slices, and neither is empty; `dst` has
/// `dst.rows == lhs.rows` rows of `rhs.columns` elements, `dst.stride` apart, that nobody else reads or
/// writes meanwhile.
unsafe fn multiply<T: Float>(
    dst: Columns<T>,
    lhs: MatRef<'_, T>,
    rhs: MatRef<'_, T>,
    accumulate: bool,
    parallelism: gemm::Parallelism,
) {
    // The crate dispatches on the type by itself and would panic for any other.
    const { assert!(size_of::<T>() == 4 || size_of::<T>() == 8) };
    // SAFETY: `start` is inside `data`, as part of what the caller promises.
    let lhs_pointer = unsafe { lhs.data.as_ptr().add(lhs.start) };
    // SAFETY: as above.
    let rhs_pointer = unsafe { rhs.data.as_ptr().add(rhs.start) };
    // SAFETY: every element that the sizes and strides reach lies inside the slices, and those of
    // `dst` are ours alone: the caller's promise. With `read_dst` false the old content of `dst` is
    // not read. `T` is f32 or f64 (`Float` is sealed).
    unsafe {
        gemm::gemm(
            dst.rows,
            rhs.columns,
            lhs.columns,
            dst.first,
            1,
            dst.stride as isize,
            accumulate,
            lhs_pointer,
            lhs.column_stride,
            lhs.row_stride,
            rhs_pointer,
            rhs.column_stride,
            rhs.row_stride,
            T::ONE, // factor of dst, where it is read
            T::ONE, // factor of the product
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Products.
impl<T: Float> Tensor<T> {
    /// Matrix product over the last two dims; leading dims broadcast. A vector on the left is a row,
    /// on the right a column, and its dim is dropped from the result. `torch.matmul`.
    ///
    /// # Shape
    /// `[.., M, K] · [.., K, N]` → `[.., M, N]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] for rank 0, [`Error::InnerDimensions`] if the K differ,
    /// [`Error::ShapeMismatch`] if the leading dims do not broadcast.
    pub fn matmul(&self, rhs: &Self) -> Result<Self> {
        for x in [self, rhs] {
            if x.rank() == 0 {
                return Err(Error::RankMismatch {
                    op: "matmul",
                    expected: "a vector or matrix",
                    shape: vec![],
                });
            }
        }
        if self.rank() == 1 {
            let row = self.unsqueeze(0)?.matmul(rhs)?;
            return row.squeeze(if rhs.rank() == 1 { -1 } else { -2 });
        }
        if rhs.rank() == 1 {
            return self.matmul(&rhs.unsqueeze(1)?)?.squeeze(-1);
        }
        // All rows of a batch times one matrix are one product.
        if self.rank() > 2
            && let ([rows @ .., inner], [k, n]) = (self.shape(), rhs.shape())
            && inner == k
            && let Ok(flat) = self.view([rows.iter().product(), *k])
        {
            let shape: Shape = rows.iter().chain([n]).copied().collect();
            return flat.matmul(rhs)?.reshape(shape);
        }
        let (lead, [m, k]) = split(self.shape());
        let (rhs_lead, [rhs_k, n]) = split(rhs.shape());
        if k != rhs_k {
            return Err(Error::InnerDimensions {
                op: "matmul",
                lhs: self.shape().to_vec(),
                rhs: rhs.shape().to_vec(),
            });
        }
        let batch = Shape::broadcast("matmul", lead, rhs_lead)?;
        let with = |sizes: [usize; 2]| batch.iter().copied().chain(sizes).collect::<Shape>();
        let shapes = [with([m, k]), with([k, n]), with([m, n])];
        for shape in &shapes {
            shape.checked_alloc("matmul", size_of::<T>())?;
        }
        let [lhs_shape, rhs_shape, shape] = shapes;
        let (lhs, rhs) = (self.expand(lhs_shape)?, rhs.expand(rhs_shape)?);
        Ok(Tensor::build(shape, |out| {
            if m * n == 0 {
                return;
            }
            let product = |(i, out): (usize, &mut [T])| {
                let (a, b) = (lead_position(&lhs, i), lead_position(&rhs, i));
                T::gemm(out, MatRef::of(&lhs, a), MatRef::of(&rhs, b), false);
            };
            // Products too small for a second thread each share the threads.
            let work = m * n * k;
            let threads = rayon::current_num_threads();
            if threads > 1 && work < PARALLEL && out.len() / (m * n) * work >= PARALLEL {
                let least = (PARALLEL / 4).div_ceil(work);
                out.par_chunks_mut(m * n).enumerate().with_min_len(least).for_each(product);
            } else {
                out.chunks_mut(m * n).enumerate().for_each(product);
            }
        }))
    }

    /// `x·wᵀ + b` in one pass over the result, with `w` as PyTorch stores it.
    ///
    /// # Shape
    /// `x: [.., K]`, `w: [N, K]`, `b: [N]` → `[.., N]`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`], [`Error::InnerDimensions`], or [`Error::ShapeMismatch`] for `b`.
    pub fn linear(&self, w: &Self, b: Option<&Self>) -> Result<Self> {
        let [n, k] = w.dims("linear")?;
        let Some((&inner, lead)) = self.shape().split_last() else {
            return Err(Error::RankMismatch {
                op: "linear",
                expected: "at least one dim",
                shape: vec![],
            });
        };
        if inner != k {
            return Err(Error::InnerDimensions {
                op: "linear",
                lhs: self.shape().to_vec(),
                rhs: w.shape().to_vec(),
            });
        }
        if let Some(b) = b
            && b.shape() != [n]
        {
            return Err(Error::ShapeMismatch {
                op: "linear",
                lhs: w.shape().to_vec(),
                rhs: b.shape().to_vec(),
            });
        }
        let m = lead.iter().product();
        let x = self.reshape([m, k])?;
        let shape: Shape = lead.iter().copied().chain([n]).collect();
        shape.checked_alloc("linear", size_of::<T>())?;
        let b = b.map(Tensor::contiguous);
        Ok(Tensor::build(shape, |out| {
            if let Some(b) = &b
                && n > 0
            {
                out.chunks_mut(n).for_each(|row| row.copy_from_slice(b.elements()));
            }
            let w = MatRef::of(w, w.layout.offset).t();
            T::gemm(out, MatRef::of(&x, x.layout.offset), w, b.is_some());
        }))
    }
}

fn split(shape: &[usize]) -> (&[usize], [usize; 2]) {
    let (lead, last) = shape.split_at(shape.len() - 2);
    (lead, [last[0], last[1]])
}

/// Where the `i`-th matrix of a batch begins.
fn lead_position<T: Element>(x: &Tensor<T>, mut i: usize) -> usize {
    let mut position = x.layout.offset as isize;
    for d in (0..x.rank() - 2).rev() {
        position += (i % x.shape()[d]) as isize * x.layout.strides[d];
        i /= x.shape()[d];
    }
    position as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    fn naive(a: &Tensor<f64>, b: &Tensor<f64>) -> Vec<f64> {
        let ([m, k], [_, n]) = (a.dims("a").unwrap(), b.dims("b").unwrap());
        let (a, b) = (a.to_vec(), b.to_vec());
        let at = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        (0..m * n).map(|i| at(i / n, i % n)).collect()
    }

    #[test]
    fn matches_naive_on_strided_operands() {
        let mut rng = Generator::new(3);
        let all = [(3, 0, 2), (0, 2, 3), (2, 3, 4), (1, 1, 1), (5, 1, 7), (17, 33, 9)];
        for &(m, k, n) in if cfg!(miri) { &all[..3] } else { &all[..] } {
            let a = Tensor::<f64>::randn([m, k], &mut rng).unwrap();
            let b = Tensor::<f64>::randn([k, n], &mut rng).unwrap();
            let b_t = b.transpose(0, 1).unwrap().contiguous().transpose(0, 1).unwrap();
            let wide = Tensor::<f64>::randn([m, 2 * k + 1], &mut rng).unwrap();
            let narrow = wide.narrow(1, k, k).unwrap();
            for (a, b) in [(&a, &b), (&a, &b_t), (&narrow, &b), (&narrow, &b_t)] {
                let got = a.matmul(b).unwrap();
                for (g, w) in got.to_vec().iter().zip(naive(a, b)) {
                    // k products of numbers of size ~1, each sum rounded: well below 1e-12.
                    assert!((g - w).abs() < 1e-12, "{g} {w}");
                }
                let bias = Tensor::<f64>::randn([n], &mut rng).unwrap();
                let linear = a.linear(&b.transpose(0, 1).unwrap(), Some(&bias)).unwrap();
                for (l, g) in linear.to_vec().iter().zip((got + &bias).to_vec()) {
                    assert!((l - g).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn vectors_and_batches_follow_torch() {
        let a = Tensor::from_vec((0..12).map(f64::from).collect(), [2, 1, 2, 3]).unwrap();
        let b = Tensor::from_vec((0..18).map(f64::from).collect(), [3, 3, 2]).unwrap();
        let c = a.matmul(&b).unwrap();
        assert_eq!(c.shape(), [2, 3, 2, 2]);
        let part = |x: &Tensor<f64>, i: usize| x.narrow(0, i, 1).unwrap().squeeze(0).unwrap();
        let last = part(&part(&a, 1), 0).matmul(&part(&b, 2)).unwrap();
        assert_eq!(part(&part(&c, 1), 2).to_vec(), last.to_vec());
        let v = Tensor::from_vec(vec![1.0, 2.0, 3.0], [3]).unwrap();
        let square = v.matmul(&v).unwrap();
        assert_eq!((square.shape(), square.item().unwrap()), (&[][..], 14.0));
        assert_eq!(v.matmul(&b).unwrap().shape(), [3, 2]);
        assert_eq!(a.matmul(&v).unwrap().shape(), [2, 1, 2]);
    }

    #[test]
    fn rejects_what_does_not_fit() {
        let z = |shape: &[usize]| Tensor::<f32>::zeros(shape).unwrap();
        let text =
            |a: &[usize], b: &[usize]| z(a).matmul(&z(b)).map(|_| ()).unwrap_err().to_string();
        assert_eq!(text(&[2, 3], &[4, 5]), "matmul: inner dimensions differ: [2, 3] × [4, 5]");
        // Batch dims of equal product are not equal batch dims.
        assert!(text(&[2, 3, 4, 5], &[3, 2, 5, 4]).contains("shapes do not match"));
        assert!(text(&[], &[2]).contains("a vector or matrix"));
        assert!(z(&[2, 3]).linear(&z(&[4, 2]), None).is_err());
        assert!(z(&[2, 3]).linear(&z(&[4, 3]), Some(&z(&[3]))).is_err());
    }

    #[test]
    fn bits_do_not_depend_on_threads() {
        let mut rng = Generator::new(5);
        let shapes: [[&[usize]; 2]; 4] = [
            [&[256, 300], &[300, 200]],
            [&[5, 700], &[700, 900]],
            [&[300, 16, 24], &[300, 24, 40]],
            [&[40, 9, 65], &[65, 130]],
        ];
        for [a, b] in if cfg!(miri) { &shapes[..0] } else { &shapes } {
            let a = Tensor::<f32>::randn(*a, &mut rng).unwrap();
            let b = Tensor::<f32>::randn(*b, &mut rng).unwrap();
            let b_t = b.transpose(-1, -2).unwrap().contiguous().transpose(-1, -2).unwrap();
            for b in [b, b_t] {
                let run = |threads: usize| {
                    let pool =
                        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| a.matmul(&b).unwrap().to_vec())
                };
                let one = run(1);
                for threads in [2, 4] {
                    assert!(run(threads).iter().zip(&one).all(|(x, y)| x.to_bits() == y.to_bits()));
                }
            }
        }
    }

    #[test]
    fn every_kernel_matches_naive_through_linear() {
        // Small whole numbers, so that the sums are exact in any order.
        let whole = |shape: &[usize]| {
            let n: usize = shape.iter().product();
            Tensor::from_vec((0..n).map(|i| (i * 7 % 11) as f64 - 5.0).collect(), shape).unwrap()
        };
        let sizes: &[[usize; 3]] = if cfg!(miri) {
            &[[3, 8, 8], [2, 3, 17]]
        } else {
            &[
                [2, 257, 130],
                [16, 129, 128],
                [130, 129, 3],
                [128, 320, 10],
                [16, 9, 32],
                [8, 8, 8],
                [130, 129, 300],
            ]
        };
        for &[m, k, n] in sizes {
            let (a, w, b) = (whole(&[m, k]), whole(&[n, k]), whole(&[n]));
            let wanted = naive(&a, &w.transpose(0, 1).unwrap());
            let y = a.linear(&w, Some(&b)).unwrap();
            let bias = b.to_vec();
            for (i, (y, wanted)) in y.to_vec().into_iter().zip(wanted).enumerate() {
                assert_eq!(y, wanted + bias[i % n]);
            }
        }
    }
}
