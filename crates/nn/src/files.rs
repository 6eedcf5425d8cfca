//! Writing files whole or not at all: the names that this crate uses of [`tensor::files`].

pub(crate) use tensor::files::io_error;
pub use tensor::files::{write_atomically, write_atomically_with};
