//! Activations, and softmax and its relatives, as modules.

use autograd::{Error, Float, Result, Tensor, Var};

use super::{Module, function_module};
use crate::parameters::{Parameter, Parameters};

function_module! {
    /// `max(x, 0)`. `torch.nn.ReLU`.
    ReLU {}, |this, x| Ok(x.relu())
}

function_module! {
    /// `min(max(x, 0), 6)`. `torch.nn.ReLU6`.
    ReLU6 {}, |this, x| Ok(x.relu6())
}

function_module! {
    /// x where it is positive, `negative_slope·x` elsewhere; 0.01 is usual. `torch.nn.LeakyReLU`.
    LeakyReLU { negative_slope: f64 }, |this, x| Ok(x.leaky_relu(T::from_f64(this.negative_slope)))
}

function_module! {
    /// x where it is positive, `α·(eˣ − 1)` elsewhere; 1 is usual. `torch.nn.ELU`.
    ELU { alpha: f64 }, |this, x| Ok(x.elu(T::from_f64(this.alpha)))
}

function_module! {
    /// The self-normalising ELU. `torch.nn.SELU`; Klambauer et al., arXiv 1706.02515.
    SELU {}, |this, x| Ok(x.selu())
}

function_module! {
    /// x where it is positive, `α·(e^(x/α) − 1)` elsewhere; 1 is usual. An α of 0 is an error of the
    /// forward pass. `torch.nn.CELU`.
    CELU { alpha: f64 }, |this, x| x.celu(T::from_f64(this.alpha))
}

function_module! {
    /// `x·Φ(x)`, with the distribution function Φ of the normal distribution. `torch.nn.GELU`.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let y = GELU::new().forward(&Var::constant(Tensor::from([1.0_f64])))?;
    /// assert!((y.item()? - 0.8413447460685429).abs() < 1e-15);
    /// # Ok::<(), nn::Error>(())
    /// ```
    GELU {}, |this, x| Ok(x.gelu())
}

function_module! {
    /// GELU with Φ approximated by a hyperbolic tangent. `torch.nn.GELU(approximate="tanh")`.
    GELUTanh {}, |this, x| Ok(x.gelu_tanh())
}

function_module! {
    /// `x·σ(x)`, also called swish. `torch.nn.SiLU`.
    SiLU {}, |this, x| Ok(x.silu())
}

function_module! {
    /// `x·tanh(ln(1 + eˣ))`. `torch.nn.Mish`.
    Mish {}, |this, x| Ok(x.mish())
}

function_module! {
    /// `σ(x) = 1/(1 + e⁻ˣ)`. Before a loss on probabilities, [`BCEWithLogitsLoss`](crate::BCEWithLogitsLoss)
    /// does both. `torch.nn.Sigmoid`.
    Sigmoid {}, |this, x| Ok(x.sigmoid())
}

function_module! {
    /// `ln σ(x)`. `torch.nn.LogSigmoid`.
    LogSigmoid {}, |this, x| Ok(x.logsigmoid())
}

function_module! {
    /// Hyperbolic tangent. `torch.nn.Tanh`.
    Tanh {}, |this, x| Ok(x.tanh())
}

function_module! {
    /// `x − tanh x`. `torch.nn.Tanhshrink`.
    Tanhshrink {}, |this, x| Ok(x.tanhshrink())
}

function_module! {
    /// `ln(1 + e^(β·x))/β`, and x where `β·x` is above the threshold; 1 and 20 are usual. A β of 0 is an
    /// error of the forward pass. `torch.nn.Softplus`.
    Softplus { beta: f64, threshold: f64 },
    |this, x| x.softplus(T::from_f64(this.beta), T::from_f64(this.threshold))
}

function_module! {
    /// `x/(1 + |x|)`. `torch.nn.Softsign`.
    Softsign {}, |this, x| Ok(x.softsign())
}

function_module! {
    /// x moved towards 0 by λ, 0 where |x| ≤ λ; 0.5 is usual. `torch.nn.Softshrink`.
    Softshrink { lambda: f64 }, |this, x| x.softshrink(T::from_f64(this.lambda))
}

function_module! {
    /// x where |x| > λ, 0 elsewhere; 0.5 is usual. `torch.nn.Hardshrink`.
    Hardshrink { lambda: f64 }, |this, x| Ok(x.hardshrink(T::from_f64(this.lambda)))
}

function_module! {
    /// x limited to `[low, high]`; −1 and 1 are usual. `torch.nn.Hardtanh`.
    Hardtanh { low: f64, high: f64 },
    |this, x| x.hardtanh(T::from_f64(this.low), T::from_f64(this.high))
}

function_module! {
    /// `min(max(x + 3, 0), 6)/6`. `torch.nn.Hardsigmoid`.
    Hardsigmoid {}, |this, x| Ok(x.hardsigmoid())
}

function_module! {
    /// `x·min(max(x + 3, 0), 6)/6`. `torch.nn.Hardswish`.
    Hardswish {}, |this, x| Ok(x.hardswish())
}

function_module! {
    /// x where it is above `threshold`, `value` elsewhere. `torch.nn.Threshold`.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let y = Threshold::new(0.5, -1.0).forward(&Var::constant(Tensor::from([0.5_f64, 2.0])))?;
    /// assert_eq!(y.value().to_vec(), [-1.0, 2.0]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    Threshold { threshold: f64, value: f64 },
    |this, x| {
        let above = x.value().gt(&Tensor::scalar(T::from_f64(this.threshold)))?;
        x.where_cond(&above, T::from_f64(this.value))
    }
}

function_module! {
    /// The first half along a dim, times σ of the second. `torch.nn.GLU`.
    GLU { dim: isize }, |this, x| x.glu(this.dim)
}

function_module! {
    /// `exp(−x)/Σ exp(−x)` along a dim. `torch.nn.Softmin`.
    Softmin { dim: isize }, |this, x| (-x).softmax(this.dim)
}

function_module! {
    /// `x − ln Σ exp(x)` along a dim. `torch.nn.LogSoftmax`.
    ///
    /// [`NLLLoss`](crate::NLLLoss) of its result records the fused cross entropy.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let y = LogSoftmax::new(-1).forward(&Var::constant(Tensor::<f64>::zeros([1, 4])?))?;
    /// assert!((y.value().to_vec()[0] + 4.0_f64.ln()).abs() < 1e-15);
    /// # Ok::<(), nn::Error>(())
    /// ```
    LogSoftmax { dim: isize }, |this, x| x.log_softmax(this.dim)
}

function_module! {
    /// `exp(x)/Σ exp(x)` along a dim. `torch.nn.Softmax`. Losses take logits: before them it is not
    /// wanted.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let p = Softmax::new(-1).forward(&Var::constant(Tensor::<f64>::zeros([1, 4])?))?;
    /// assert_eq!(p.value().to_vec(), [0.25; 4]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    Softmax { dim: isize }, |this, x| x.softmax(this.dim)
}

/// `max(x, 0) + a·min(x, 0)` with a learned slope, one for all channels or one for each.
/// `torch.nn.PReLU`; He et al., arXiv 1502.01852.
///
/// # Shape
/// `[N, C, ..]` or, with one slope, any → the same; `weight: [1]` or `[C]`.
#[derive(Clone, Debug, Parameters)]
pub struct PReLU<T: Float> {
    /// The slopes.
    pub weight: Parameter<T>,
}

impl<T: Float> PReLU<T> {
    /// With so many slopes, which are `init` at first; 1 and 0.25 are usual.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no slopes; [`Error::SizeOverflow`].
    pub fn new(num_parameters: usize, init: f64) -> Result<Self> {
        if num_parameters == 0 {
            let reason = "must be at least 1, found 0".into();
            return Err(Error::InvalidArgument { op: "PReLU", name: "num_parameters", reason });
        }
        let weight = Tensor::full([num_parameters], T::from_f64(init))?;
        Ok(PReLU { weight: Parameter::new(weight) })
    }
}

impl<T: Float> Module for PReLU<T> {
    fn forward(&self, x: &Var<T>) -> Result<Var<T>> {
        x.prelu(&self.weight.bind_like(x))
    }
}
