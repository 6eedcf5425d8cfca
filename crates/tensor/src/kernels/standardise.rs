//! Rows with mean 0 and deviation 1: the skeleton of normalisations over the last dims.

use std::hint::black_box;

use super::Kernel;
use super::reduce::tree_sum;
use super::rows::for_each_task;
use crate::element::Float;
use crate::tensor::Tensor;

/// Partial sums that are under way at a time.
const LANES: usize = 32;

/// The numbers of a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standard<T> {
    /// The mean; 0 where rows are not centred.
    pub mean: T,
    /// What rounding the mean left over.
    pub rest: T,
    /// `√(mean (x − μ)²)`.
    pub spread: T,
    /// `σ = √(spread² + ε)`.
    pub deviation: T,
}

/// Which numbers the rows have.
#[derive(Clone, Copy, Debug)]
pub enum Numbers<'a, T> {
    /// Their own.
    Measured {
        /// √ε.
        floor: f64,
        /// Whether the mean is subtracted.
        centred: bool,
    },
    /// These.
    Known(&'a [Standard<T>]),
}

/// `((x − μ)/σ)·w + b` for the rows of `n` elements of a row-major tensor, and the numbers of each; w and b
/// are the same for all. `None` where the tensor is not row-major, or empty.
pub fn standardise<T: Float>(
    x: &Tensor<T>,
    n: usize,
    numbers: Numbers<'_, T>,
    [w, b]: [Option<&[T]>; 2],
) -> Option<(Tensor<T>, Vec<Standard<T>>)> {
    let data = x.as_slice().filter(|data| !data.is_empty())?;
    let mut found = match numbers {
        Numbers::Measured { .. } => vec![Standard::default(); data.len() / n],
        Numbers::Known(known) => known.to_vec(),
    };
    let y = Tensor::build(x.layout.shape.clone(), |out| {
        for_each_task(n, &mut found, out, |first, found, out| {
            let x = &data[first * n..][..out.len()];
            T::standardise(StandardRows { x, n, numbers, found, affine: [w, b], out });
        });
    });
    Some((y, found))
}

/// Some rows to standardise.
#[doc(hidden)]
pub struct StandardRows<'a, T> {
    x: &'a [T],
    n: usize,
    numbers: Numbers<'a, T>,
    found: &'a mut [Standard<T>],
    affine: [Option<&'a [T]>; 2],
    out: &'a mut [T],
}

impl<T: Float> Kernel for StandardRows<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run<const FMA: bool>(self) {
        let [w, b] = self.affine;
        let rows = self.x.chunks_exact(self.n).zip(self.out.chunks_exact_mut(self.n));
        for ((x, out), found) in rows.zip(self.found) {
            if let Numbers::Measured { floor, centred } = self.numbers {
                *found = measure(x, floor, centred);
            }
            let Standard { mean, rest, deviation, .. } = *found;
            let inverse = T::ONE / deviation;
            // A product with the inverse, and what it lacks, where neither leaves the normal numbers.
            if FMA && (1e-30..1e30).contains(&deviation.to_f64()) {
                for (o, &x) in out.iter_mut().zip(x) {
                    let away = (x - mean) - rest;
                    let y = away * inverse;
                    *o = (-y).mul_add::<FMA>(deviation, away).mul_add::<FMA>(inverse, y);
                }
            } else {
                for (o, &x) in out.iter_mut().zip(x) {
                    *o = ((x - mean) - rest) / deviation;
                }
            }
            if let (Some(w), Some(b)) = (w, b) {
                for ((o, &w), &b) in out.iter_mut().zip(w).zip(b) {
                    *o = o.mul_add::<FMA>(w, b);
                }
            } else if let Some(w) = w {
                out.iter_mut().zip(w).for_each(|(o, &w)| *o *= w);
            } else if let Some(b) = b {
                out.iter_mut().zip(b).for_each(|(o, &b)| *o += b);
            }
        }
    }
}

/// The sum of `f` of all elements, in `f64`.
#[inline(always)]
fn total<T: Float>(x: &[T], f: impl Fn(T) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (tiles, tail) = x.as_chunks::<LANES>();
    for tile in tiles {
        for (lane, &x) in lanes.iter_mut().zip(tile) {
            *lane += f(x);
        }
    }
    // Out of the compiler's sight: or a tree of lanes makes it take the vectors above apart.
    let mut lanes = black_box(lanes);
    for (lane, &x) in lanes.iter_mut().zip(tail) {
        *lane += f(x);
    }
    tree_sum(lanes)
}

/// Two passes; in `f64` a third corrects the mean.
#[inline(always)]
fn measure<T: Float>(x: &[T], floor: f64, centred: bool) -> Standard<T> {
    let n = x.len() as f64;
    let (mut mean, mut rest) = (T::ZERO, T::ZERO);
    if centred {
        let exact = total(x, T::to_f64) / n;
        mean = T::from_f64(exact);
        rest = T::from_f64(match size_of::<T>() {
            4 => exact - mean.to_f64(),
            _ => total(x, |x| (x - mean).to_f64()) / n,
        });
    }
    let away = |x: T| ((x - mean) - rest).to_f64();
    let mut squares = total(x, |x| away(x) * away(x));
    let mut scale = 1.0;
    if !(1e-280..1e300).contains(&squares) && squares != 0.0
        || squares == 0.0 && size_of::<T>() == 8
    {
        // Squares of `f64` may leave its range where the root does not.
        scale = x.iter().fold(0.0, |a, &x| f64::max(a, away(x).abs()));
        squares = if scale == 0.0 { 0.0 } else { total(x, |x| (away(x) / scale).powi(2)) };
    }
    let spread = scale * (squares / n).sqrt();
    let (spread, deviation) = (T::from_f64(spread), T::from_f64(spread.hypot(floor)));
    Standard { mean, rest, spread, deviation }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Generator;

    /// The definition in f64, a number at a time.
    fn naive(x: &[f64], eps: f64) -> Vec<f64> {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
        x.iter().map(|x| (x - mean) / (var + eps).sqrt()).collect()
    }

    #[test]
    fn rows_of_any_length_match_the_definition() {
        let mut rng = Generator::new(8);
        for n in [1, 2, 31, 32, 33, 100] {
            let x = Tensor::<f32>::randn([3, n], &mut rng).unwrap() * 2.0 + 7.0;
            let (w, b) = (vec![0.5_f32; n], vec![-1.0_f32; n]);
            let measured = Numbers::Measured { floor: 0.1, centred: true };
            let (y, found) = standardise(&x, n, measured, [None, None]).unwrap();
            let (again, _) = standardise(&x, n, Numbers::Known(&found), [None, None]).unwrap();
            assert_eq!(again.to_vec(), y.to_vec());
            let affine = standardise(&x, n, measured, [Some(&w), Some(&b)]).unwrap().0.to_vec();
            let halves = y.to_vec().into_iter().map(|y| y.mul_add(0.5, -1.0)).collect::<Vec<_>>();
            let data: Vec<f64> = x.to_vec().into_iter().map(f64::from).collect();
            for (r, row) in data.chunks(n).enumerate() {
                for (k, want) in naive(row, 0.01).into_iter().enumerate() {
                    // A few units in the last place of the largest term, 7 to 13.
                    let error = (f64::from(y.to_vec()[r * n + k]) - want).abs();
                    assert!(error < 2e-6, "{n}: {error}");
                }
            }
            for (a, h) in affine.iter().zip(halves) {
                assert!((a - h).abs() <= 2.4e-7 * h.abs().max(1.0));
            }
        }
    }

    #[test]
    fn rows_of_f64_at_the_ends_of_the_range_keep_their_spread() {
        for scale in [1e-300, 1e300] {
            let x = Tensor::from_vec(vec![scale, -scale], [1, 2]).unwrap();
            let measured = Numbers::Measured { floor: 0.0, centred: true };
            let (y, found) = standardise(&x, 2, measured, [None, None]).unwrap();
            assert_eq!((y.to_vec(), found[0].spread), (vec![1.0, -1.0], scale));
        }
    }

    #[test]
    fn what_is_empty_or_not_row_major_is_left_to_others() {
        let measured = Numbers::Measured { floor: 0.0, centred: true };
        let x = Tensor::<f32>::zeros([2, 3]).unwrap();
        let other = x.transpose(0, 1).unwrap();
        assert!(standardise(&other, 2, measured, [None, None]).is_none());
        let empty = Tensor::<f32>::zeros([2, 0]).unwrap();
        assert!(standardise(&empty, 0, measured, [None, None]).is_none());
    }
}
