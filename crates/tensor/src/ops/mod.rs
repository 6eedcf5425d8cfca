//! The operations, a page each: methods of [`Tensor`](crate::Tensor) where a PyTorch or NumPy user
//! looks for them. How memory is walked is in [`kernels`](crate::kernels).

mod adjoint;
mod arithmetic;
mod cast;
mod compare;
mod conv;
mod create;
mod einsum;
mod elementwise;
mod index;
mod join;
mod linalg;
mod random;
mod reduce;
mod scan;
mod sort;
mod subscripts;
mod views;
mod windows;

pub use conv::ConvOptions;
pub use create::Nested;
pub use join::PadMode;
pub use subscripts::Equation;
pub use windows::Windows;
