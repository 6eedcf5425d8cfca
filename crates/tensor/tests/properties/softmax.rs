//! Softmax and its logarithm, the kernels behind the losses: the formulas in `f64`.

use tensor::Float;
use tensor::kernels::softmax::{log_softmax, softmax};

use crate::twin::{Fill, Sample, Twin, near, reals, smallest_normal, unit_roundoff, wide};

/// Softmax. An exponential has 1.1 ulp ≤ 2.2 u (`f32`) or 1.5 ulp ≤ 3 u (`f64`), and reducing
/// arguments up to 2¹¹ adds at most 1.5 u: 4.5 u, once in the numerator and once in the sum, whose
/// lanes round 32 times. The factor, the product and the output round 3 times, the logarithm's way
/// (x − max) − log 3 times: 44 u of the result at most, to first order.
pub(crate) const SOFTMAX_ROUNDINGS: f64 = 45.0;

pub(crate) fn check_rows<T: Float + Sample>(x: &Twin<T>) {
    let dense = x.dense.map(Sample::number);
    for d in 0..x.view.rank() {
        let n = x.view.shape()[d] as f64;
        let rows = dense.groups(|k| k == d);
        let max = rows.map(|row| row.into_iter().fold(f64::NEG_INFINITY, f64::max));
        let top = dense.zip(&max, |x, max| x - max);
        let sum = top.groups(|k| k == d).map(|row| row.into_iter().map(f64::exp).sum::<f64>());
        let log = top.zip(&sum, |x, sum| x - sum.ln());
        let probability = top.zip(&sum, |x, sum| x.exp() / sum);
        // The oracle rounds n + 8 times; exponentials below the smallest normal count as 0.
        let (oracle, flushed) = ((n + 8.0) * f64::EPSILON, (n + 4.0) * smallest_normal::<T>());
        let relative = SOFTMAX_ROUNDINGS * unit_roundoff::<T>() + oracle;
        near(&log_softmax(&x.view, d).0, &log, |_, y| relative * y.abs() + oracle + flushed);
        near(&softmax(&x.view, d), &probability, |_, y| relative * y + flushed);
    }
    x.check();
}

proptest::proptest! {
    #![proptest_config(crate::cases(256))]

    #[test]
    fn rows_match_naive(shape in crate::shape(), seed: u64) {
        for (fill32, fill64) in [(reals as Fill<f32>, reals as Fill<f64>), (wide, wide)] {
            check_rows(&Twin::strided(&shape, seed, fill32));
            check_rows(&Twin::strided(&shape, seed, fill64));
        }
    }
}
