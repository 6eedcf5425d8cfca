//! Conversion between element types.

use crate::element::Element;
use crate::kernels::elementwise;
use crate::tensor::Tensor;

/// Conversion.
impl<T: Element> Tensor<T> {
    /// The elements as another type, as Rust's `as` converts them: to the nearest float; from floats
    /// to integers towards zero, with NaN as 0 and what is too large as the largest; `i64` to `u8`
    /// modulo 256. Truth values are 0 and 1, and all but zeros are true. `torch.Tensor.to`.
    ///
    /// # Examples
    /// ```
    /// # use tensor::Tensor;
    /// let x = Tensor::from([-1.5_f32, f32::NAN, 300.0]);
    /// assert_eq!(x.cast::<i64>().to_vec(), [-1, 0, 300]);
    /// assert_eq!(x.cast::<u8>().to_vec(), [0, 0, 255]);
    /// assert_eq!(x.cast::<bool>().to_vec(), [true; 3]);
    /// ```
    #[doc(alias = "astype")]
    #[doc(alias = "to")]
    pub fn cast<U: Element>(&self) -> Tensor<U> {
        elementwise::map(self, T::cast::<U>())
    }
}
