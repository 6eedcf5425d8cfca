//! Features brought to mean 0 and deviation 1.

use autograd::{Error, Float, Result, Tensor};

/// `(x − mean)/deviation` of each feature, with the mean and the deviation of training data.
/// `sklearn.preprocessing.StandardScaler`.
///
/// # Shape
/// `x: [N, ..]`: what stands at the same place in all rows is a feature.
///
/// # Numerics
/// The deviation is that of the rows themselves, `√(Σ (x − mean)²/N)`. A feature that is the same in all
/// rows becomes 0: it is not divided.
///
/// # Examples
/// ```
/// use nn::data::Standardize;
/// use nn::prelude::*;
/// let train = Tensor::from([[1.0_f64, 5.0], [3.0, 5.0]]);
/// let standardize = Standardize::fit(&train)?;
/// assert_eq!(standardize.apply(&train)?.to_vec(), [-1.0, 0.0, 1.0, 0.0]);
/// let test = Tensor::from([[5.0, 6.0]]);
/// assert_eq!(standardize.apply(&test)?.to_vec(), [3.0, 1.0]);
/// assert_eq!(standardize.invert(&standardize.apply(&test)?)?.to_vec(), test.to_vec());
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Standardize<T: Float> {
    mean: Tensor<T>,
    scale: Tensor<T>,
}

impl<T: Float> Standardize<T> {
    /// The means and deviations of the rows of `x`.
    ///
    /// # Errors
    /// [`Error::RankMismatch`] for a scalar; [`Error::InvalidArgument`] where there are no rows.
    pub fn fit(x: &Tensor<T>) -> Result<Self> {
        let op = "Standardize";
        match x.shape().first() {
            None => {
                let (expected, shape) = ("rows of features", vec![]);
                return Err(Error::RankMismatch { op, expected, shape });
            }
            Some(0) => {
                let reason = "must have rows".into();
                return Err(Error::InvalidArgument { op, name: "x", reason });
            }
            Some(_) => {}
        }
        if x.numel() == 0 {
            let none = Tensor::zeros(&x.shape()[1..])?;
            return Ok(Standardize { mean: none.clone(), scale: none });
        }
        // The rounded mean of equal numbers need not be one of them, nor their deviation 0.
        let lowest = x.amin(&[0], false)?;
        let constant = lowest.eq(&x.amax(&[0], false)?)?;
        let mean = constant.where_cond(&lowest, &x.mean_dim(&[0], false)?)?;
        let scale = x.std_dim(&[0], 0, false)?;
        let constant = constant.logical_or(&scale.eq(T::ZERO)?)?;
        Ok(Standardize { mean, scale: constant.where_cond(T::ONE, &scale)? })
    }

    /// What [`Standardize::mean`] and [`Standardize::scale`] gave before, from a file perhaps.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for different shapes; [`Error::InvalidArgument`] for a scale of 0.
    pub fn from_parts(mean: Tensor<T>, scale: Tensor<T>) -> Result<Self> {
        let op = "Standardize";
        if mean.shape() != scale.shape() {
            let (lhs, rhs) = (mean.shape().to_vec(), scale.shape().to_vec());
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        if let Some(feature) = scale.to_vec().iter().position(|&s| s == T::ZERO) {
            let reason = format!("must not be 0, as for feature {feature}");
            return Err(Error::InvalidArgument { op, name: "scale", reason });
        }
        Ok(Standardize { mean, scale })
    }

    /// The mean of each feature.
    pub fn mean(&self) -> &Tensor<T> {
        &self.mean
    }

    /// What each feature is divided by: its deviation, or 1.
    pub fn scale(&self) -> &Tensor<T> {
        &self.scale
    }

    /// `(x − mean)/scale`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for rows of other features.
    pub fn apply(&self, x: &Tensor<T>) -> Result<Tensor<T>> {
        self.check(x)?;
        x.checked_sub(&self.mean)?.checked_div(&self.scale)
    }

    /// `x·scale + mean`: what [`Standardize::apply`] was given, up to rounding.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for rows of other features.
    pub fn invert(&self, x: &Tensor<T>) -> Result<Tensor<T>> {
        self.check(x)?;
        x.checked_mul(&self.scale)?.checked_add(&self.mean)
    }

    fn check(&self, x: &Tensor<T>) -> Result<()> {
        if x.shape().get(1..) == Some(self.mean.shape()) {
            return Ok(());
        }
        let (lhs, rhs) = (x.shape().to_vec(), self.mean.shape().to_vec());
        Err(Error::ShapeMismatch { op: "Standardize", lhs, rhs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::Generator;

    #[test]
    fn rows_get_mean_0_and_deviation_1() {
        let x = Tensor::<f64>::randn([50, 3, 2], &mut Generator::new(0)).unwrap() * 7.0 + 3.0;
        let s = Standardize::fit(&x).unwrap();
        let y = s.apply(&x).unwrap();
        // Fifty roundings of some 1e-16 each.
        let near = |found: Tensor<f64>, want: f64| {
            assert!(found.to_vec().iter().all(|f| (f - want).abs() < 1e-14), "{found}");
        };
        near(y.mean_dim(&[0], false).unwrap(), 0.0);
        near(y.std_dim(&[0], 0, false).unwrap(), 1.0);
        near(s.invert(&y).unwrap() - &x, 0.0);
        let again = Standardize::from_parts(s.mean().clone(), s.scale().clone()).unwrap();
        assert_eq!(again.apply(&x).unwrap().to_vec(), y.to_vec());
    }

    #[test]
    fn a_constant_feature_becomes_0_however_it_rounds() {
        for value in [0.0, 0.1, 1e-300, 1e300, -12345.678] {
            let x = Tensor::full([7, 1], value).unwrap();
            let s = Standardize::fit(&x).unwrap();
            assert_eq!(s.apply(&x).unwrap().to_vec(), [0.0; 7], "{value}");
            assert_eq!(s.scale().to_vec(), [1.0]);
        }
        // Different numbers whose squared distances are 0.
        let x = Tensor::from([[0.0_f64], [1e-200]]);
        let y = Standardize::fit(&x).unwrap().apply(&x).unwrap();
        assert!(y.to_vec().iter().all(|v| v.is_finite()), "{y}");
        let nan = Tensor::from([[f32::NAN, 1.0], [2.0, 1.0]]);
        let y = Standardize::fit(&nan).unwrap().apply(&nan).unwrap().to_vec();
        assert!(y[0].is_nan() && y[2].is_nan() && y[1] == 0.0 && y[3] == 0.0);
    }

    #[test]
    fn other_features_are_refused() {
        let s = Standardize::fit(&Tensor::<f32>::ones([2, 3]).unwrap()).unwrap();
        let text = s.apply(&Tensor::ones([3]).unwrap()).unwrap_err().to_string();
        assert_eq!(text, "Standardize: shapes do not match: [3] and [3]");
        assert!(s.invert(&Tensor::ones([2, 1]).unwrap()).is_err());
        assert!(s.apply(&Tensor::scalar(1.0)).is_err());
        assert!(Standardize::fit(&Tensor::scalar(1.0_f32)).is_err());
        assert!(Standardize::fit(&Tensor::<f32>::ones([0, 3]).unwrap()).is_err());
        let none = Tensor::<f32>::ones([3, 0]).unwrap();
        assert_eq!(Standardize::fit(&none).unwrap().apply(&none).unwrap().shape(), [3, 0]);
        let zero = Tensor::from([1.0_f32, 0.0]);
        let text = Standardize::from_parts(zero.clone(), zero).unwrap_err().to_string();
        assert_eq!(text, "Standardize: scale must not be 0, as for feature 1");
    }
}
