//! Automatic differentiation over [`tensor`]: a tape, variables, differentiable operations, and a
//! public gradient checker.
//!
//! A computation is recorded when one of its inputs is on a tape. There is no global mode, no flag
//! to forget and nothing to reset: [`Var::backward`] empties the tape and returns the gradients.
//!
//! ```
//! use autograd::{Tape, Tensor};
//! let tape = Tape::new();
//! let x = tape.var(Tensor::from_vec(vec![1.0_f64, 2.0, 3.0], [3])?);
//! let y = (&x * &x).sum();
//! let grads = y.backward()?;
//! assert_eq!(grads.wrt(&x)?.to_vec(), [2.0, 4.0, 6.0]);
//! # Ok::<(), autograd::Error>(())
//! ```
#![forbid(unsafe_code)]

mod anomaly;
mod checkpoint;
mod dot;
mod engine;
mod gradcheck;
mod gradients;
mod ops;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod tape;
mod training;
pub mod transforms;
mod var;

pub use anomaly::Anomaly;
pub use checkpoint::checkpoint;
pub use engine::{Ctx, Sink, backward, grad};
pub use gradcheck::{Entry, GradcheckOptions, GradcheckReport, gradcheck, gradgradcheck};
pub use gradients::Gradients;
pub use ops::attention::{AttentionMask, AttentionOptions};
pub use ops::batch_norm::BatchStatistics;
pub use ops::binary::Operand;
pub use ops::binary_cross_entropy::BinaryOptions;
pub use ops::class_loss::{BatchWeights, ClassLoss, ClassOptions, EmptyMean, Reduction, Target};
pub use ops::cross_entropy::cross_entropy_in_place;
pub use ops::divergence::KlReduction;
pub use ops::linear_cross_entropy::LinearCrossEntropyOptions;
pub use ops::pool::{AvgPoolOptions, MaxPoolOptions};
pub use tape::{NodeRef, ParameterId, Save, Tape, record, record_many};
pub use tensor::{
    ConvOptions, Element, Error, Float, Generator, PadMode, Result, Shape, Slice, Tensor,
};
pub use var::Var;
