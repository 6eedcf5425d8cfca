//! Batch normalisation with running statistics.

use autograd::{BatchStatistics, Error, Float, Result, Tape, Tensor, Var};

use super::Module;
use crate::parameters::{Parameter, Parameters};

/// Options of [`BatchNorm`]; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormOptions {
    /// What is added to the variance.
    pub eps: f64,
    /// The share of a batch in the new running statistics.
    pub momentum: f64,
    /// Whether there are a weight, 1 at first, and a bias, 0 at first, for each channel.
    pub affine: bool,
    /// Whether there are running statistics; the batch's are used in evaluation where there are none.
    pub track_running_stats: bool,
}

impl Default for BatchNormOptions {
    fn default() -> Self {
        BatchNormOptions { eps: 1e-5, momentum: 0.1, affine: true, track_running_stats: true }
    }
}

/// Batch normalisation of channels: [`BatchNorm1d`] or [`BatchNorm2d`]. Ioffe & Szegedy, arXiv
/// 1502.03167; see [`Var::batch_norm`].
///
/// On a tape of training ([`Tape::training`]) it uses the statistics of the batch, and leaves the new
/// running ones on the tape: the gradients carry them, the optimiser's step puts them in place, and
/// adding gradients averages them. Anywhere else, and where the running statistics are frozen, it uses
/// those. There is no counter of batches.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let options = BatchNormOptions { momentum: 0.5, affine: false, ..Default::default() };
/// let mut model = Sequential::<f64>::new()
///     .append(BatchNorm1d::new(1, options)?)
///     .append(Linear::new(1, 1, &mut Generator::new(0))?);
/// let x = Tape::training(0).constant(Tensor::from([[2.0], [4.0]]));
/// let grads = model.forward(&x)?.sum().backward()?;
/// Sgd::new(SgdOptions::default())?.step(&mut model, &grads)?;
/// let buffers = model.named_buffers();
/// let value = |i: usize| buffers[i].1.value().item();
/// assert_eq!((&buffers[0].0[..], value(0)?), ("0.running_mean", 1.5)); // ½·0 + ½·3
/// assert_eq!((&buffers[1].0[..], value(1)?), ("0.running_var", 1.5)); // ½·1 + ½·2
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Parameters)]
pub struct BatchNorm<T: Float, const D: usize> {
    /// `[C]`.
    pub weight: Option<Parameter<T>>,
    /// `[C]`.
    pub bias: Option<Parameter<T>>,
    /// The mean of each channel, `[C]`; 0 at first.
    pub running_mean: Option<Parameter<T>>,
    /// The variance of each channel, `[C]`; 1 at first.
    pub running_var: Option<Parameter<T>>,
    #[parameters(skip)]
    channels: usize,
    #[parameters(skip)]
    options: BatchNormOptions,
}

/// Of `[N, C]` or `[N, C, L]`. `torch.nn.BatchNorm1d`.
pub type BatchNorm1d<T> = BatchNorm<T, 1>;

/// Of `[N, C, H, W]`. `torch.nn.BatchNorm2d`.
pub type BatchNorm2d<T> = BatchNorm<T, 2>;

impl<T: Float, const D: usize> BatchNorm<T, D> {
    /// For C channels.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a momentum outside [0, 1]; [`Error::SizeOverflow`].
    pub fn new(channels: usize, options: BatchNormOptions) -> Result<Self> {
        if !(0.0..=1.0).contains(&options.momentum) {
            let reason = format!("must be in [0, 1], found {}", options.momentum);
            return Err(Error::InvalidArgument { op: "BatchNorm", name: "momentum", reason });
        }
        let (zeros, ones) = (Tensor::zeros([channels])?, Tensor::ones([channels])?);
        let (affine, tracked) = (options.affine, options.track_running_stats);
        Ok(BatchNorm {
            weight: affine.then(|| Parameter::new(ones.clone())),
            bias: affine.then(|| Parameter::new(zeros.clone())),
            running_mean: tracked.then(|| Parameter::buffer(zeros)),
            running_var: tracked.then(|| Parameter::buffer(ones)),
            channels,
            options,
        })
    }

    fn normalise(&self, x: &Var<T>) -> Result<Var<T>> {
        let op = "batch_norm";
        if x.shape().get(1).is_some_and(|&c| c != self.channels) {
            let (lhs, rhs) = (x.shape().to_vec(), vec![self.channels]);
            return Err(Error::ShapeMismatch { op, lhs, rhs });
        }
        let eps = self.options.eps;
        let [w, b] = [&self.weight, &self.bias].map(|p| p.as_ref().map(|p| p.bind_like(x)));
        let (w, b) = (w.as_ref(), b.as_ref());
        let (Some(mean), Some(var)) = (&self.running_mean, &self.running_var) else {
            return x.batch_norm(None, w, b, eps);
        };
        match x.tape().filter(|tape| tape.is_training()) {
            Some(tape) if !(mean.is_frozen() || var.is_frozen()) => {
                let (y, batch) = x.batch_norm_training(w, b, eps)?;
                let BatchStatistics { mean: batch_mean, var: batch_var } = batch;
                self.leave(tape, mean, batch_mean)?;
                self.leave(tape, var, batch_var)?;
                Ok(y)
            }
            _ => x.batch_norm(Some((mean.value(), var.value())), w, b, eps),
        }
    }

    /// `(1 − momentum)·old + momentum·batch`.
    fn leave(&self, tape: &Tape<T>, running: &Parameter<T>, batch: Tensor<T>) -> Result<()> {
        let old = tape.buffer(running.id()).unwrap_or_else(|| running.value().clone());
        let share = self.options.momentum;
        let new = old * T::from_f64(1.0 - share);
        tape.leave_buffer(running.id(), new.checked_add(&(batch * T::from_f64(share)))?);
        Ok(())
    }
}

impl<T: Float> Module for BatchNorm1d<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        expect_rank("[N, C] or [N, C, L]", &[2, 3], x)?;
        self.normalise(x)
    }
}

impl<T: Float> Module for BatchNorm2d<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        expect_rank("[N, C, H, W]", &[4], x)?;
        self.normalise(x)
    }
}

fn expect_rank<T: Float>(expected: &'static str, ranks: &[usize], x: &Var<T>) -> Result<()> {
    if ranks.contains(&x.value().rank()) {
        return Ok(());
    }
    Err(Error::RankMismatch { op: "batch_norm", expected, shape: x.shape().to_vec() })
}
