//! Neural networks on top of [`autograd`]: modules, losses whose fused backward is
//! `softmax − smoothed_onehot`, optimisers, data, metrics and weights files.
//!
//! ```
//! use nn::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let mut rng = Generator::new(0);
//! let mut model = Sequential::<f32>::new()
//!     .append(Linear::new(2, 16, &mut rng)?)
//!     .append(Tanh::new())
//!     .append(Linear::new(16, 2, &mut rng)?);
//! // Two classes: is x₀·x₁ positive?
//! let x = Tensor::<f32>::randn([256, 2], &mut rng)?;
//! let y = x.to_vec().chunks(2).map(|p| i64::from(p[0] * p[1] > 0.0)).collect();
//! let y = Tensor::from_vec(y, [256])?;
//! let loss = CrossEntropyLoss::new(CrossEntropyOptions::default())?;
//! let mut optimizer = AdamW::new(AdamOptions { lr: 0.05, ..Default::default() })?;
//! let tape = Tape::new();
//! for _ in 0..100 {
//!     let logits = model.forward(&tape.constant(x.clone()))?;
//!     let grads = loss.forward(&logits, &y)?.backward()?;
//!     optimizer.step(&mut model, &grads)?;
//! }
//! let logits = model.forward(&Var::constant(x))?; // on no tape: nothing is recorded
//! assert!(accuracy(logits.value(), &y)? > 0.95);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod data;
mod files;
mod gradcheck;
mod losses;
pub mod metrics;
mod modules;
pub mod optim;
mod parameters;
pub mod reference;
mod state_dict;

pub use autograd::{self, Error, Result};
pub use files::write_atomically;
pub use gradcheck::{gradcheck_module, gradgradcheck_module};
pub use losses::{
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, CrossEntropyOptions, DistillationLoss, FocalLoss,
    HuberLoss, KLDivLoss, L1Loss, LinearCrossEntropyLoss, Loss, MSELoss, NLLLoss, NLLLossOptions,
    PolyLoss, RegressionLoss, SigmoidFocalLoss, SmoothL1Loss, Values,
};
pub use modules::{Linear, LogSoftmax, Module, ReLU, Sequential, Softmax, Tanh};
pub use parameters::{Parameter, Parameters, Visitor};
pub use state_dict::{load_safetensors, load_state_dict, save_safetensors, state_dict};

/// Everything a training program starts with.
pub mod prelude {
    pub use crate::data::{Batches, stratified_split};
    pub use crate::metrics::{ConfusionMatrix, accuracy};
    pub use crate::optim::lr_scheduler::{CosineAnnealingLR, LRScheduler, LinearLR, SequentialLR};
    pub use crate::optim::{Adam, AdamOptions, AdamW, Optimizer, Sgd, SgdOptions};
    pub use crate::{
        BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, CrossEntropyOptions, DistillationLoss,
        FocalLoss, HuberLoss, KLDivLoss, L1Loss, Linear, LinearCrossEntropyLoss, LogSoftmax, Loss,
        MSELoss, Module, NLLLoss, NLLLossOptions, Parameter, Parameters, PolyLoss, ReLU,
        RegressionLoss, Sequential, SigmoidFocalLoss, SmoothL1Loss, Softmax, Tanh,
        gradcheck_module, gradgradcheck_module, load_safetensors, save_safetensors,
    };
    pub use autograd::{
        BatchWeights, BinaryOptions, ClassLoss, EmptyMean, Error, Float, Generator,
        GradcheckOptions, Gradients, KlReduction, LinearCrossEntropyOptions, Reduction, Result,
        Tape, Target, Tensor, Var, gradcheck, gradgradcheck,
    };
}
