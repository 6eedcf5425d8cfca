//! Dropout, and flattening.

use super::function_module;

function_module! {
    /// In training, sets each element to 0 with probability p and divides the others by 1 − p; does
    /// nothing in evaluation. Whether it is training, and from which seed the numbers come, the tape says:
    /// [`Tape::training`](autograd::Tape::training). A p outside [0, 1] is an error of the forward pass.
    /// `torch.nn.Dropout`.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let x = Tensor::<f64>::ones([1000])?;
    /// let layer = Dropout::new(0.25);
    /// let y = layer.forward(&Tape::training(0).constant(x.clone()))?.into_value().to_vec();
    /// assert!(y.iter().all(|&y| y == 0.0 || y == 1.0 / 0.75));
    /// assert!((y.iter().filter(|&&y| y == 0.0).count() as f64 - 250.0).abs() < 60.0);
    /// assert_eq!(layer.forward(&Tape::new().constant(x.clone()))?.value().to_vec(), x.to_vec());
    /// # Ok::<(), nn::Error>(())
    /// ```
    Dropout { p: f64 }, |this, x| x.dropout(this.p)
}

function_module! {
    /// [`Dropout`] of whole channels of `[N, C, L]` or `[C, L]`. `torch.nn.Dropout1d`.
    Dropout1d { p: f64 }, |this, x| x.dropout1d(this.p)
}

function_module! {
    /// [`Dropout`] of whole channels of `[N, C, H, W]` or `[C, H, W]`. `torch.nn.Dropout2d`.
    Dropout2d { p: f64 }, |this, x| x.dropout2d(this.p)
}

function_module! {
    /// The dims from `start` to `end`, both included, as one; 1 and −1 keep the batch.
    /// `torch.nn.Flatten`.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let x = Var::constant(Tensor::<f32>::zeros([2, 3, 4])?);
    /// assert_eq!(Flatten::new(1, -1).forward(&x)?.shape(), [2, 12]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    Flatten { start: isize, end: isize }, |this, x| x.flatten(this.start, this.end)
}
