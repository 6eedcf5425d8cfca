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

// What `#[derive(Parameters)]` writes begins with `::nn`, also in here.
extern crate self as nn;

mod checkpoint;
pub mod data;
mod files;
mod gradcheck;
mod history;
pub mod init;
mod losses;
pub mod metrics;
mod modules;
pub mod optim;
mod parameters;
pub mod reference;
mod state_dict;
mod summary;
mod tensor_file;
#[cfg(feature = "tensorboard")]
pub mod tensorboard;

pub use autograd::{self, Error, Result};
pub use checkpoint::{Checkpoint, Position};
pub use files::{write_atomically, write_atomically_with};
pub use gradcheck::{gradcheck_module, gradgradcheck_module};
pub use history::History;
#[cfg(feature = "plot")]
pub use history::{Panel, Scale};
pub use losses::{
    BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, CrossEntropyOptions, DistillationLoss, FocalLoss,
    HuberLoss, KLDivLoss, L1Loss, LinearCrossEntropyLoss, Loss, MSELoss, NLLLoss, NLLLossOptions,
    PolyLoss, RegressionLoss, SigmoidFocalLoss, SmoothL1Loss, Values,
};
pub use modules::{
    Activation, At, Attend, AvgPool1d, AvgPool2d, BatchNorm, BatchNorm1d, BatchNorm2d,
    BatchNormOptions, CELU, Conv, Conv1d, Conv2d, Dropout, Dropout1d, Dropout2d, ELU, Embedding,
    Flatten, GELU, GELUTanh, GLU, GRU, GroupNorm, Hardshrink, Hardsigmoid, Hardswish, Hardtanh,
    LSTM, LayerNorm, LeakyReLU, Linear, LogSigmoid, LogSoftmax, MaxPool1d, MaxPool2d, Mish, Module,
    MultiheadAttention, MultiheadAttentionOptions, NormOptions, PReLU, RMSNorm, ReLU, ReLU6,
    RecurrentOptions, SELU, Sequential, SiLU, Sigmoid, Softmax, Softmin, Softplus, Softshrink,
    Softsign, Tanh, Tanhshrink, Threshold, TransformerEncoder, TransformerEncoderLayer,
    TransformerEncoderLayerOptions,
};
pub use parameters::{Parameter, Parameters, Visitor};
pub use state_dict::{
    LoadOptions, LoadReport, Mismatch, load_safetensors, load_safetensors_with, load_state_dict,
    load_state_dict_with, save_safetensors, state_dict,
};
pub use summary::Summary;

/// Everything a training program starts with.
pub mod prelude {
    pub use crate::data::{
        DataLoader, DataLoaderOptions, Dataset, TensorDataset, stratified_split,
    };
    pub use crate::metrics::{ConfusionMatrix, accuracy, top_k_accuracy};
    pub use crate::modules::{
        Activation, At, Attend, AvgPool1d, AvgPool2d, BatchNorm1d, BatchNorm2d, BatchNormOptions,
        CELU, Conv1d, Conv2d, Dropout, Dropout1d, Dropout2d, ELU, Embedding, Flatten, GELU,
        GELUTanh, GLU, GRU, GroupNorm, Hardshrink, Hardsigmoid, Hardswish, Hardtanh, LSTM,
        LayerNorm, LeakyReLU, Linear, LogSigmoid, LogSoftmax, MaxPool1d, MaxPool2d, Mish, Module,
        MultiheadAttention, MultiheadAttentionOptions, NormOptions, PReLU, RMSNorm, ReLU, ReLU6,
        RecurrentOptions, SELU, Sequential, SiLU, Sigmoid, Softmax, Softmin, Softplus, Softshrink,
        Softsign, Tanh, Tanhshrink, Threshold, TransformerEncoder, TransformerEncoderLayer,
        TransformerEncoderLayerOptions,
    };
    pub use crate::optim::lr_scheduler::{CosineAnnealingLR, LRScheduler, LinearLR, SequentialLR};
    pub use crate::optim::{Adam, AdamOptions, AdamW, Optimizer, Sgd, SgdOptions};
    pub use crate::{
        BCELoss, BCEWithLogitsLoss, CrossEntropyLoss, CrossEntropyOptions, DistillationLoss,
        FocalLoss, HuberLoss, KLDivLoss, L1Loss, LinearCrossEntropyLoss, Loss, MSELoss, NLLLoss,
        NLLLossOptions, Parameter, Parameters, PolyLoss, RegressionLoss, SigmoidFocalLoss,
        SmoothL1Loss, Summary, gradcheck_module, gradgradcheck_module, load_safetensors,
        save_safetensors,
    };
    pub use autograd::{
        AttentionMask, AttentionOptions, AvgPoolOptions, BatchWeights, BinaryOptions, ClassLoss,
        ConvOptions, EmptyMean, Error, Float, Generator, GradcheckOptions, Gradients, KlReduction,
        LinearCrossEntropyOptions, MaxPoolOptions, Reduction, Result, Tape, Target, Tensor, Var,
        gradcheck, gradgradcheck,
    };
}
