//! Initial values of weights. `torch.nn.init`.
//!
//! A weight is `[outputs, inputs, ..kernel]`, as those of the layers are; `fan_in` is the number of
//! inputs of an output, `inputs·kernel`, and `fan_out` is `outputs·kernel`. The layers have PyTorch's
//! defaults; to change a weight, set its value:
//!
//! ```
//! use nn::{init, prelude::*};
//! let mut rng = Generator::new(0);
//! let mut layer = Linear::<f32>::new(64, 32, &mut rng)?;
//! *layer.weight.value_mut() = init::kaiming_normal([32, 64], init::Fan::In, 2.0_f64.sqrt(), &mut rng)?;
//! # Ok::<(), nn::Error>(())
//! ```

use autograd::{Error, Float, Generator, Result, Shape, Tensor};

/// Which number of neighbours keeps its scale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fan {
    /// The scale of activations on the way forward.
    #[default]
    In,
    /// The scale of gradients on the way back.
    Out,
}

/// `fan_in` and `fan_out` of a weight.
fn fans(op: &'static str, shape: &Shape) -> Result<[f64; 2]> {
    let [outputs, inputs, kernel @ ..] = &shape[..] else {
        let expected = "a weight [outputs, inputs, ..]";
        return Err(Error::RankMismatch { op, expected, shape: shape.to_vec() });
    };
    let kernel: usize = kernel.iter().product();
    Ok([inputs * kernel, outputs * kernel].map(|n| n.max(1) as f64))
}

fn uniform<T: Float>(shape: Shape, bound: f64, generator: &mut Generator) -> Result<Tensor<T>> {
    Tensor::uniform(shape, -bound, bound, generator)
}

fn normal<T: Float>(shape: Shape, deviation: f64, generator: &mut Generator) -> Result<Tensor<T>> {
    Ok(Tensor::randn(shape, generator)? * T::from_f64(deviation))
}

/// Uniform in `±gain·√(6/(fan_in + fan_out))`. `torch.nn.init.xavier_uniform_`; Glorot & Bengio,
/// AISTATS 2010.
///
/// # Errors
/// [`Error::RankMismatch`] below rank 2; [`Error::InvalidArgument`] for a gain that is not finite;
/// [`Error::SizeOverflow`].
pub fn xavier_uniform<T: Float>(
    shape: impl Into<Shape>,
    gain: f64,
    generator: &mut Generator,
) -> Result<Tensor<T>> {
    let shape = shape.into();
    let [fan_in, fan_out] = fans("xavier_uniform", &shape)?;
    uniform(shape, gain * (6.0 / (fan_in + fan_out)).sqrt(), generator)
}

/// Normal with deviation `gain·√(2/(fan_in + fan_out))`. `torch.nn.init.xavier_normal_`.
///
/// # Errors
/// As [`xavier_uniform`].
pub fn xavier_normal<T: Float>(
    shape: impl Into<Shape>,
    gain: f64,
    generator: &mut Generator,
) -> Result<Tensor<T>> {
    let shape = shape.into();
    let [fan_in, fan_out] = fans("xavier_normal", &shape)?;
    normal(shape, gain * (2.0 / (fan_in + fan_out)).sqrt(), generator)
}

/// Uniform in `±gain·√(3/fan)`; the gain of ReLU is √2. `torch.nn.init.kaiming_uniform_`; He et al.,
/// arXiv 1502.01852.
///
/// # Errors
/// As [`xavier_uniform`].
pub fn kaiming_uniform<T: Float>(
    shape: impl Into<Shape>,
    fan: Fan,
    gain: f64,
    generator: &mut Generator,
) -> Result<Tensor<T>> {
    let shape = shape.into();
    let n = fans("kaiming_uniform", &shape)?[fan as usize];
    uniform(shape, gain * (3.0 / n).sqrt(), generator)
}

/// Normal with deviation `gain/√fan`; the gain of ReLU is √2. `torch.nn.init.kaiming_normal_`.
///
/// # Errors
/// As [`xavier_uniform`].
pub fn kaiming_normal<T: Float>(
    shape: impl Into<Shape>,
    fan: Fan,
    gain: f64,
    generator: &mut Generator,
) -> Result<Tensor<T>> {
    let shape = shape.into();
    let n = fans("kaiming_normal", &shape)?[fan as usize];
    normal(shape, gain / n.sqrt(), generator)
}

/// Normal with this mean and deviation, drawn again while outside `[low, high]`.
/// `torch.nn.init.trunc_normal_`.
///
/// # Errors
/// [`Error::InvalidArgument`] for a deviation that is not positive, and unless the range has a
/// probability of at least 1 % or so: it must reach within 2 deviations of the mean;
/// [`Error::SizeOverflow`].
pub fn trunc_normal<T: Float>(
    shape: impl Into<Shape>,
    (mean, deviation): (f64, f64),
    (low, high): (f64, f64),
    generator: &mut Generator,
) -> Result<Tensor<T>> {
    let op = "trunc_normal";
    if !(deviation > 0.0 && deviation.is_finite()) {
        let reason = format!("must be positive, found {deviation}");
        return Err(Error::InvalidArgument { op, name: "deviation", reason });
    }
    let nearest = mean.clamp(low.min(high), high.max(low));
    let wide = high - low >= 0.1 * deviation && (nearest - mean).abs() <= 2.0 * deviation;
    if !wide {
        let reason = format!("must be wide and near {mean}, found [{low}, {high}]");
        return Err(Error::InvalidArgument { op, name: "range", reason });
    }
    let shape = shape.into();
    let mut values: Vec<T> = Tensor::<T>::zeros(shape.clone())?.to_vec();
    let mut drawn = Vec::new();
    for value in &mut values {
        *value = loop {
            if drawn.is_empty() {
                drawn = Tensor::<f64>::randn([256], generator)?.to_vec();
            }
            let x = drawn.pop().map_or(mean, |z| mean + deviation * z);
            if (low..=high).contains(&x) {
                break T::from_f64(x);
            }
        };
    }
    Tensor::from_vec(values, shape)
}

/// A random matrix with orthonormal rows, or columns where there are fewer of them, times `gain`; other
/// dims than the first count as one. `torch.nn.init.orthogonal_`; Saxe et al., arXiv 1312.6120.
///
/// # Errors
/// As [`xavier_uniform`].
pub fn orthogonal<T: Float>(
    shape: impl Into<Shape>,
    gain: f64,
    generator: &mut Generator,
) -> Result<Tensor<T>> {
    let shape = shape.into();
    fans("orthogonal", &shape)?;
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(count);
    while vectors.len() < count {
        let mut v = Tensor::<f64>::randn([length], generator)?.to_vec();
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        // Gram and Schmidt, twice: once leaves what rounding let through.
        for _ in 0..2 {
            for other in &vectors {
                let share = dot(&v, other);
                v.iter_mut().zip(other).for_each(|(v, o)| *v -= share * o);
            }
        }
        let norm = dot(&v, &v).sqrt();
        // Almost certain; where not, the vector lies in the span of the others.
        if norm > 1e-8 {
            v.iter_mut().for_each(|v| *v /= norm);
            vectors.push(v);
        }
    }
    let at = |r: usize, c: usize| if rows <= columns { vectors[r][c] } else { vectors[c][r] };
    let values = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
    Tensor::from_vec(values.map(|(r, c)| T::from_f64(gain * at(r, c))).collect(), shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng() -> Generator {
        Generator::new(5)
    }

    /// Mean and variance of many numbers.
    fn moments(x: &Tensor<f64>) -> (f64, f64) {
        let x = x.to_vec();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
    }

    #[test]
    fn variances_are_those_of_the_formulas() {
        // fan_in 40·9, fan_out 60·9.
        let shape = [60, 40, 3, 3];
        let (fan_in, fan_out) = (360.0, 540.0);
        let cases: [(Tensor<f64>, f64); 6] = [
            (xavier_uniform(shape, 2.0, &mut rng()).unwrap(), 4.0 * 2.0 / (fan_in + fan_out)),
            (xavier_normal(shape, 1.0, &mut rng()).unwrap(), 2.0 / (fan_in + fan_out)),
            (kaiming_uniform(shape, Fan::In, 3.0, &mut rng()).unwrap(), 9.0 / fan_in),
            (kaiming_uniform(shape, Fan::Out, 1.0, &mut rng()).unwrap(), 1.0 / fan_out),
            (kaiming_normal(shape, Fan::In, 1.0, &mut rng()).unwrap(), 1.0 / fan_in),
            (kaiming_normal(shape, Fan::Out, 2.0, &mut rng()).unwrap(), 4.0 / fan_out),
        ];
        for (i, (x, want)) in cases.iter().enumerate() {
            // 21,600 numbers: a relative deviation of the variance of 1 %; five of them.
            let (mean, variance) = moments(x);
            assert!((variance / want - 1.0).abs() < 0.05, "{i}: {variance} {want}");
            assert!(mean.abs() < 5.0 * (want / 21_600.0).sqrt(), "{i}: {mean}");
        }
        let bound = 2.0 * (6.0 / (fan_in + fan_out)).sqrt();
        assert!(cases[0].0.to_vec().iter().all(|x| x.abs() <= bound));
    }

    #[test]
    fn a_truncated_normal_keeps_to_its_range_and_shape() {
        let x: Tensor<f64> = trunc_normal([100, 200], (1.0, 2.0), (-1.0, 3.0), &mut rng()).unwrap();
        assert!(x.to_vec().iter().all(|x| (-1.0..=3.0).contains(x)));
        // Within one deviation: a variance of 4·(1 − 2φ(1)/(2Φ(1) − 1)).
        let (mean, variance) = moments(&x);
        assert!((mean - 1.0).abs() < 0.05 && (variance - 4.0 * 0.291_125).abs() < 0.05);
        let bad = |moments, range| {
            trunc_normal::<f64>([2], moments, range, &mut rng()).unwrap_err().to_string()
        };
        assert!(bad((0.0, -1.0), (-1.0, 1.0)).contains("deviation must be positive"));
        assert!(bad((0.0, 1.0), (5.0, 9.0)).contains("range must be wide and near 0"));
        assert!(bad((0.0, 1.0), (1.0, -1.0)).contains("range must be"));
        assert!(bad((0.0, 1.0), (f64::NAN, 1.0)).contains("range must be"));
    }

    #[test]
    fn orthogonal_rows_or_columns() {
        for shape in [&[5, 3][..], &[3, 5], &[4, 4], &[3, 2, 4], &[0, 3], &[3, 0]] {
            let x: Tensor<f64> = orthogonal(shape, 2.0, &mut rng()).unwrap();
            assert_eq!(x.shape(), shape);
            let rows = shape[0];
            let x = x.reshape([rows, shape[1..].iter().product()]).unwrap();
            let t = x.transpose(0, 1).unwrap();
            let product = if rows <= x.shape()[1] { x.matmul(&t) } else { t.matmul(&x) };
            let product = product.unwrap();
            for (i, x) in product.to_vec().into_iter().enumerate() {
                let n = product.shape()[0];
                let want = if i / n == i % n { 4.0 } else { 0.0 };
                assert!((x - want).abs() < 1e-14, "{shape:?}: {x}");
            }
        }
        assert!(orthogonal::<f64>([3], 1.0, &mut rng()).is_err());
    }
}
