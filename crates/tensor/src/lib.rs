//! Strided n-d arrays on the CPU: views without copies, broadcasting, vectorised kernels chosen at
//! run time, and buffers recycled through a bounded pool.
//!
//! This crate deliberately has no notion of a gradient; that is the crate `autograd`.
//!
//! ```
//! use tensor::Tensor;
//! let x = Tensor::from_vec(vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?;
//! let y = x.transpose(0, 1)?.matmul(&x)?; // the transpose is a view, nothing is copied
//! assert_eq!(y.shape(), [3, 3]);
//! assert_eq!(y.to_vec(), [17.0, 22.0, 27.0, 22.0, 29.0, 36.0, 27.0, 36.0, 45.0]);
//! assert_eq!((&y - &y).sum().item()?, 0.0);
//! # Ok::<(), tensor::Error>(())
//! ```

mod buffer;
mod display;
mod element;
pub mod error;
pub mod files;
pub mod kernels;
mod layout;
pub mod npy;
#[cfg(feature = "npz")]
pub mod npz;
mod ops;
pub mod pool;
mod random;
mod shape;
mod tensor;

pub use element::{Element, Float, Number};
pub use error::{Error, Result};
pub use kernels::Operand;
pub use layout::Layout;
pub use ops::{Nested, PadMode, Slice};
pub use random::{Generator, GeneratorState};
pub use shape::Shape;
pub use tensor::Tensor;
