//! Pooling.

use autograd::{AvgPoolOptions, MaxPoolOptions};

use super::function_module;

function_module! {
    /// The maximum of each window of `[N, C, L]` or `[C, L]`. `torch.nn.MaxPool1d`.
    MaxPool1d { kernel: usize, options: MaxPoolOptions<1> },
    |this, x| x.max_pool1d(this.kernel, &this.options)
}

function_module! {
    /// The maximum of each window of `[N, C, H, W]` or `[C, H, W]`. `torch.nn.MaxPool2d`.
    ///
    /// # Examples
    /// ```
    /// use nn::prelude::*;
    /// let x = Tensor::from_vec((0..16).map(f64::from).collect(), [1, 4, 4])?;
    /// let y = MaxPool2d::new([2, 2], Default::default()).forward(&Var::constant(x))?;
    /// assert_eq!(y.value().to_vec(), [5.0, 7.0, 13.0, 15.0]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    MaxPool2d { kernel: [usize; 2], options: MaxPoolOptions<2> },
    |this, x| x.max_pool2d(this.kernel, &this.options)
}

function_module! {
    /// The mean of each window of `[N, C, L]` or `[C, L]`. `torch.nn.AvgPool1d`.
    AvgPool1d { kernel: usize, options: AvgPoolOptions<1> },
    |this, x| x.avg_pool1d(this.kernel, &this.options)
}

function_module! {
    /// The mean of each window of `[N, C, H, W]` or `[C, H, W]`. `torch.nn.AvgPool2d`.
    AvgPool2d { kernel: [usize; 2], options: AvgPoolOptions<2> },
    |this, x| x.avg_pool2d(this.kernel, &this.options)
}
