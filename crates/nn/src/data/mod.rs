//! Data: datasets and their batches, splits and folds, augmentation, and readers of files.

mod augment;
mod characters;
#[cfg(feature = "files")]
mod csv;
mod dataset;
#[cfg(feature = "files")]
mod idx;
mod loader;
mod split;
mod standardize;

pub use augment::{
    Augment, Augmentations, GaussianNoise, RandomHorizontalFlip, RandomRotation, RandomShift,
};
pub use characters::{Characters, Passages};
#[cfg(feature = "files")]
pub use csv::read_csv;
pub use dataset::{Dataset, Mapped, TensorDataset};
#[cfg(feature = "files")]
pub use idx::{Mnist, read_idx};
pub use loader::{DataLoader, DataLoaderOptions, Epoch};
pub use split::{Split, k_fold, stratified_k_fold, stratified_split};
pub use standardize::Standardize;
