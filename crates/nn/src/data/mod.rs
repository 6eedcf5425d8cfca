//! Data: batches, splits, and readers of files.

mod batches;
#[cfg(feature = "files")]
mod csv;
#[cfg(feature = "files")]
mod idx;

pub use batches::{BatchIter, Batches, stratified_split};
#[cfg(feature = "files")]
pub use csv::read_csv;
#[cfg(feature = "files")]
pub use idx::{Mnist, read_idx};
