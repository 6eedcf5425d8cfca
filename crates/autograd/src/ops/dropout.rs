//! Dropout: random zeros in training mode, the identity otherwise.

use tensor::{Error, Float, Result, Shape, Tensor};

use crate::tape::record;
use crate::var::Var;

impl<T: Float> Var<T> {
    /// On a tape in training mode ([`Tape::training`](crate::Tape::training)) each element is zeroed
    /// with probability p and else divided by `1 − p`, so that the mean stays: `y = m·x` with
    /// `m ∈ {0, 1/(1 − p)}`. In evaluation mode, off any tape, and for p = 0, the identity.
    ///
    /// # Gradient
    /// `dx = m·g`. Saves the mask. Any order.
    ///
    /// # Randomness
    /// Each call draws a mask of its own from the tape's generator; the same seed and the same calls
    /// give the same masks. For p = 1 all is zero.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless p is in [0, 1].
    ///
    /// # Reference
    /// `torch.nn.functional.dropout` (which has no default mode: there `training` is an argument).
    #[track_caller]
    pub fn dropout(&self, p: f64) -> Result<Self> {
        self.dropped("dropout", p, |shape| shape.to_vec())
    }

    /// [`Var::dropout`] of whole channels of `[N, C, L]` or `[C, L]`: all of L is zeroed together.
    /// `dx = m·g`. Saves a mask of a number per channel. Any order.
    /// `torch.nn.functional.dropout1d`.
    ///
    /// # Errors
    /// As [`Var::dropout`]; [`Error::RankMismatch`] for another rank.
    #[track_caller]
    pub fn dropout1d(&self, p: f64) -> Result<Self> {
        self.dropped_channels("dropout1d", p, 1, "rank 2 or 3")
    }

    /// [`Var::dropout`] of whole channels of `[N, C, H, W]` or `[C, H, W]`: all of H and W is zeroed
    /// together. `dx = m·g`. Saves a mask of a number per channel. Any order.
    /// `torch.nn.functional.dropout2d` (which takes rank 3 for `[N, C, L]`, with a warning).
    ///
    /// # Errors
    /// As [`Var::dropout`]; [`Error::RankMismatch`] for another rank.
    #[track_caller]
    pub fn dropout2d(&self, p: f64) -> Result<Self> {
        self.dropped_channels("dropout2d", p, 2, "rank 3 or 4")
    }

    /// Dropout of everything along the last `spatial` dims together.
    #[track_caller]
    fn dropped_channels(
        &self,
        op: &'static str,
        p: f64,
        spatial: usize,
        expected: &'static str,
    ) -> Result<Self> {
        let rank = self.value().rank();
        if rank != spatial + 1 && rank != spatial + 2 {
            return Err(Error::RankMismatch { op, expected, shape: self.shape().to_vec() });
        }
        self.dropped(op, p, |shape| {
            let mut shape = shape.to_vec();
            shape[rank - spatial..].fill(1);
            shape
        })
    }

    /// `y = m·x` with a mask of the shape that `mask_shape` makes of that of x.
    #[track_caller]
    fn dropped(
        &self,
        op: &'static str,
        p: f64,
        mask_shape: impl Fn(&[usize]) -> Vec<usize>,
    ) -> Result<Self> {
        if !(0.0..=1.0).contains(&p) {
            let reason = format!("must be in [0, 1], found {p}");
            return Err(Error::InvalidArgument { op, name: "p", reason });
        }
        if p == 0.0 {
            return Ok(self.clone());
        }
        let Some(mut generator) = self.tape().and_then(|tape| tape.generator()) else {
            return Ok(self.clone());
        };
        let kept = 1.0 - p;
        let shape = Shape::from(mask_shape(self.shape()));
        let mask = Tensor::<T>::bernoulli(shape, kept, &mut generator)?;
        let mask = if p < 1.0 { mask * T::from_f64(1.0 / kept) } else { mask };
        let y = self.value() * &mask;
        record(op, [self.node()], [], y, move |_, g, sink| {
            sink.add(0, g * Var::constant(mask.clone()))
        })
    }
}

/// What the gradient-checking suite tries. Its tapes are in evaluation mode; the tests below are
/// about training mode.
#[cfg(any(test, feature = "suite"))]
pub(crate) fn rows() -> Vec<crate::suite::Row> {
    use crate::suite::Row;
    vec![
        Row::unary("dropout", |x| (x * x).dropout(0.5)),
        Row::unary("dropout", |x| (x * x).dropout(0.0)),
        Row::of("dropout1d", &[&[2, 3, 2]], |x| (&x[0] * &x[0]).dropout1d(0.5)),
        Row::of("dropout2d", &[&[2, 2, 2]], |x| (&x[0] * &x[0]).dropout2d(0.5)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::grad;
    use crate::tape::Tape;

    fn iota(shape: &[usize]) -> Tensor<f64> {
        let n: usize = shape.iter().product();
        Tensor::from_vec((1..=n).map(|i| i as f64).collect(), shape).unwrap()
    }

    /// The factor of each element in a dropped `x`, which has no zeros.
    fn mask(y: &Var<f64>, x: &Var<f64>) -> Vec<f64> {
        (y.value() / x.value()).to_vec()
    }

    #[test]
    fn the_gradient_is_the_mask_times_the_upstream_gradient() {
        let tape = Tape::training(7);
        let x = tape.var(iota(&[8, 5]));
        let y = x.dropout(0.25).unwrap();
        let m = mask(&y, &x);
        assert!(m.contains(&0.0) && m.iter().all(|&m| m == 0.0 || (m - 4.0 / 3.0).abs() < 1e-15));
        let upstream = iota(&[8, 5]) * 0.5;
        let want: Vec<f64> = upstream.to_vec().iter().zip(&m).map(|(g, m)| g * m).collect();
        let u = tape.var(upstream.clone());
        let dx = grad(&[&y], &[&x], std::slice::from_ref(&u), true).unwrap().remove(0).unwrap();
        // The gradient depends on the upstream one alone, by the same mask.
        let again = grad(&[&dx.sum()], &[&u, &x], &[], false).unwrap();
        assert!(again[1].is_none());
        for (got, want) in again[0].as_ref().unwrap().value().to_vec().iter().zip(&m) {
            assert!((got - want).abs() < 1e-15);
        }
        let ordinary = y.backward_with(&upstream).unwrap().wrt(&x).unwrap().to_vec();
        for (a, (b, c)) in ordinary.iter().zip(dx.value().to_vec().iter().zip(&want)) {
            assert!((a - c).abs() <= 1e-14 * c.abs() && a == b);
        }
    }

    #[test]
    fn each_call_draws_anew_and_a_seed_repeats_all() {
        let run = |seed| {
            let x = Tape::training(seed).var(iota(&[64]));
            [x.dropout(0.5).unwrap(), x.dropout(0.5).unwrap()].map(|y| y.value().to_vec())
        };
        let [first, second] = run(7);
        assert_ne!(first, second);
        assert_eq!(run(7), [first.clone(), second]);
        assert_ne!(run(8)[0], first);
    }

    #[test]
    fn evaluation_and_no_tape_change_nothing_and_draw_nothing() {
        let x = Tape::new().var(iota(&[3]));
        assert_eq!(x.dropout(0.9).unwrap().value().to_vec(), [1.0, 2.0, 3.0]);
        let off = Var::constant(iota(&[3]));
        assert_eq!(off.dropout(1.0).unwrap().value().to_vec(), [1.0, 2.0, 3.0]);
        let (a, b) = (Tape::training(3), Tape::training(3));
        let (x, y) = (a.var(iota(&[32])), b.var(iota(&[32])));
        x.dropout(0.0).unwrap();
        let (x, y) = (x.dropout(0.5).unwrap(), y.dropout(0.5).unwrap());
        assert_eq!(x.value().to_vec(), y.value().to_vec());
        // A constant of a training tape is input data, and dropped too.
        let data = a.constant(iota(&[64])).dropout(0.5).unwrap();
        assert!(data.value().to_vec().contains(&0.0) && !data.is_tracked());
    }

    #[test]
    fn the_ends_of_p() {
        let tape = Tape::training(1);
        let x = tape.var(iota(&[2, 0, 3]));
        assert_eq!(x.dropout(0.5).unwrap().shape(), [2, 0, 3]);
        let x = tape.var(iota(&[4]));
        let y = x.dropout(1.0).unwrap();
        assert_eq!(y.value().to_vec(), [0.0; 4]);
        assert_eq!(y.sum().backward().unwrap().wrt(&x).unwrap().to_vec(), [0.0; 4]);
        for p in [-0.1, 1.5, f64::NAN] {
            let text = x.dropout(p).unwrap_err().to_string();
            assert_eq!(text, format!("dropout: p must be in [0, 1], found {p}"));
        }
    }

    #[test]
    fn channels_are_dropped_whole() {
        let tape = Tape::training(5);
        let x = tape.var(iota(&[3, 8, 2, 3]));
        let m = mask(&x.dropout2d(0.5).unwrap(), &x);
        assert!(m.chunks(6).all(|c| c.iter().all(|&v| v == c[0])));
        assert!(m.contains(&0.0) && m.contains(&2.0));
        let x = tape.var(iota(&[16, 4]));
        let y = x.dropout1d(0.5).unwrap();
        let m = mask(&y, &x);
        assert!(m.chunks(4).all(|c| c.iter().all(|&v| v == c[0])) && m.contains(&0.0));
        assert_eq!(y.sum().backward().unwrap().wrt(&x).unwrap().to_vec(), m);
        let text = x.dropout2d(0.5).unwrap_err().to_string();
        assert_eq!(text, "dropout2d: expected rank 3 or 4, found shape [16, 4]");
    }
}
