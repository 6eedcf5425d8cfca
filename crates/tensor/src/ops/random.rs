//! Random tensors from a seeded generator, which is always an argument.

use rand::RngExt;
use rand_distr::StandardNormal;

use crate::element::{Element, Float};
use crate::error::{Error, Result};
use crate::random::Generator;
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Random truth values.
impl<T: Element> Tensor<T> {
    /// 1 (or `true`) with probability `p`, else 0, each drawn on its own. `torch.bernoulli`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless `p` is in [0, 1]; [`Error::SizeOverflow`].
    pub fn bernoulli(shape: impl Into<Shape>, p: f64, generator: &mut Generator) -> Result<Self> {
        let shape = shape.into();
        shape.checked_alloc("bernoulli", size_of::<T>())?;
        if !(0.0..=1.0).contains(&p) {
            return Err(Error::InvalidArgument {
                op: "bernoulli",
                name: "p",
                reason: format!("must be in [0, 1], found {p}"),
            });
        }
        Ok(Self::build(shape, |out| {
            out.fill_with(|| if generator.uniform() < p { T::ONE } else { T::ZERO });
        }))
    }
}

/// Random construction.
impl<T: Float> Tensor<T> {
    /// Uniform numbers of [low, high).
    ///
    /// # Errors
    /// [`Error::SizeOverflow`]; [`Error::InvalidArgument`] unless the bounds are finite, in order.
    pub fn uniform(
        shape: impl Into<Shape>,
        low: f64,
        high: f64,
        generator: &mut Generator,
    ) -> Result<Self> {
        let largest = low.abs().max(high.abs());
        let fits = T::from_f64(largest).to_f64().is_finite() && (high - low).is_finite();
        if !(low <= high && fits) {
            return Err(Error::InvalidArgument {
                op: "uniform",
                name: "range",
                reason: format!(
                    "must be finite in {}, of finite width, and in order, found [{low:e}, {high:e})",
                    T::NAME
                ),
            });
        }
        Self::generate("uniform", shape.into(), || between::<T>(low, high, generator))
    }

    /// Uniform numbers of [0, 1).
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn rand(shape: impl Into<Shape>, generator: &mut Generator) -> Result<Self> {
        Self::uniform(shape, 0.0, 1.0, generator)
    }

    /// Standard normal numbers.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn randn(shape: impl Into<Shape>, generator: &mut Generator) -> Result<Self> {
        Self::generate("randn", shape.into(), || generator.0.sample(StandardNormal))
    }

    /// [`Tensor::rand`] in the shape of `self`. `torch.rand_like`.
    #[must_use]
    pub fn rand_like(&self, generator: &mut Generator) -> Self {
        Self::drawn(self.layout.shape.clone(), || between::<T>(0.0, 1.0, generator))
    }

    /// [`Tensor::randn`] in the shape of `self`. `torch.randn_like`.
    #[must_use]
    pub fn randn_like(&self, generator: &mut Generator) -> Self {
        Self::drawn(self.layout.shape.clone(), || generator.0.sample(StandardNormal))
    }

    fn generate(op: &'static str, shape: Shape, draw: impl FnMut() -> f64) -> Result<Self> {
        shape.checked_alloc(op, size_of::<T>())?;
        Ok(Self::drawn(shape, draw))
    }

    fn drawn(shape: Shape, mut draw: impl FnMut() -> f64) -> Self {
        Self::build(shape, |out| out.fill_with(|| T::from_f64(draw())))
    }
}

/// A uniform number of [low, high) that stays there when it is rounded to `T`.
fn between<T: Float>(low: f64, high: f64, generator: &mut Generator) -> f64 {
    // Where the low end itself rounds to the high one or beyond it, every draw would.
    let closed = T::from_f64(low).to_f64() >= high;
    loop {
        let x = low + (high - low) * generator.uniform();
        // Rounding to `T` may reach the open end; such a draw is made again.
        if closed || T::from_f64(x).to_f64() < high {
            return x;
        }
    }
}

/// Random integers.
impl Tensor<i64> {
    /// Uniform integers of [low, high).
    ///
    /// # Errors
    /// [`Error::SizeOverflow`]; [`Error::InvalidArgument`] unless `low < high`.
    pub fn randint(
        low: i64,
        high: i64,
        shape: impl Into<Shape>,
        generator: &mut Generator,
    ) -> Result<Self> {
        let shape = shape.into();
        shape.checked_alloc("randint", size_of::<i64>())?;
        if low >= high {
            return Err(Error::InvalidArgument {
                op: "randint",
                name: "range",
                reason: format!("[{low}, {high}) is empty"),
            });
        }
        Ok(Self::build(shape, |out| out.fill_with(|| generator.0.random_range(low..high))))
    }

    /// The integers 0 … n−1 in random order.
    ///
    /// # Errors
    /// [`Error::SizeOverflow`].
    pub fn randperm(n: usize, generator: &mut Generator) -> Result<Self> {
        let shape = Shape::from([n]);
        shape.checked_alloc("randperm", size_of::<i64>())?;
        Ok(Self::build(shape, |out| {
            for (i, o) in out.iter_mut().enumerate() {
                *o = i as i64;
            }
            generator.shuffle(out);
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distribution() {
        let mut g = Generator::new(1);
        let count = if cfg!(miri) { 400 } else { 100_000 };
        let n = Tensor::<f64>::randn([count], &mut g).unwrap();
        // Five standard errors: 5/√count for the mean, 5·√(2/count) for the variance.
        let error = 5.0 / (count as f64).sqrt();
        assert!(n.mean().item().unwrap().abs() < error);
        assert!((n.square().mean().item().unwrap() - 1.0).abs() < error * 2.0_f64.sqrt());
        let coins = Tensor::<bool>::bernoulli([count], 0.25, &mut g).unwrap();
        let share = coins.sum().item().unwrap() as f64 / count as f64;
        // The variance of one coin is 3/16.
        assert!((share - 0.25).abs() < error * (3.0_f64 / 16.0).sqrt());
        assert!(Tensor::<f32>::bernoulli([2], f64::NAN, &mut g).is_err());
        let u = Tensor::<f32>::uniform([count / 10], -2.0, 3.0, &mut g).unwrap();
        assert!(u.to_vec().iter().all(|&x| (-2.0..=3.0).contains(&x)));
        let mut p = Tensor::randperm(50, &mut g).unwrap().to_vec();
        p.sort_unstable();
        assert_eq!(p, (0..50).collect::<Vec<_>>());
        assert!(Tensor::<f32>::uniform([1], 1.0, f64::NAN, &mut g).is_err());
        assert!(Tensor::<f32>::uniform([1], -1e300, 1e300, &mut g).is_err());
        assert!(Tensor::<f64>::uniform([1], -1.7e308, 1.7e308, &mut g).is_err());
        assert!(Tensor::randperm(1 << 61, &mut g).is_err());
        let narrow = Tensor::<f32>::uniform([1000], 1.0, 1.0 + 2e-7, &mut g).unwrap();
        assert!(narrow.to_vec().iter().all(|&x| f64::from(x) < 1.0 + 2e-7));
        assert!(Tensor::randint(3, 3, [1], &mut g).is_err());
    }
}
