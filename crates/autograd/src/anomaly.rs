//! Anomaly detection: which operation, recorded on which line, first made a number that is none.

use std::cell::Cell;
use std::panic::Location;

use tensor::{Error, Float, Result, Tensor};

use crate::tape::Tape;

/// What counts as an anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// NaN.
    Nan,
    /// NaN, +∞ and −∞.
    NotFinite,
}

impl Anomaly {
    fn is_in<T: Float>(self, x: &Tensor<T>) -> bool {
        match self {
            Anomaly::Nan => x.isnan().any(),
            Anomaly::NotFinite => !x.isfinite().all(),
        }
        .item()
        .unwrap_or(false)
    }
}

/// The state of the detection on one tape.
#[derive(Default)]
pub(crate) struct Watch {
    mode: Cell<Option<Anomaly>>,
    /// The first operation of this recording whose result is an anomaly.
    found: Cell<Option<(&'static str, &'static Location<'static>)>>,
}

impl Watch {
    #[inline]
    pub(crate) fn mode(&self) -> Option<Anomaly> {
        self.mode.get()
    }

    pub(crate) fn forget(&self) {
        self.found.set(None);
    }

    pub(crate) fn forward<T: Float>(
        &self,
        mode: Anomaly,
        op: &'static str,
        location: &'static Location<'static>,
        value: &Tensor<T>,
    ) {
        if self.found.get().is_none() && mode.is_in(value) {
            self.found.set(Some((op, location)));
        }
    }

    /// An error if a recorded result was an anomaly.
    pub(crate) fn check(&self) -> Result<()> {
        self.found.get().map_or(Ok(()), |(op, at)| Err(error(op, at, "result")))
    }

    /// An error if this gradient, computed by the backward of `op`, is an anomaly.
    pub(crate) fn gradient<T: Float>(
        &self,
        op: &'static str,
        location: &'static Location<'static>,
        gradient: &Tensor<T>,
    ) -> Result<()> {
        match self.mode.get() {
            Some(mode) if mode.is_in(gradient) => Err(error(op, location, "gradient")),
            _ => Ok(()),
        }
    }
}

fn error(op: &'static str, location: &'static Location<'static>, what: &'static str) -> Error {
    Error::Anomaly { op, location: location.to_string(), what }
}

impl<T: Float> Tape<T> {
    /// Watches for anomalies in all that is recorded from now on, or stops watching (`None`). Looking
    /// at every value costs a pass over each.
    ///
    /// A result that is one is remembered, and said by [`Tape::anomaly`] and by the next backward;
    /// a gradient that is one ends backward. Both name the operation and the line of the program
    /// that recorded it. `torch.autograd.detect_anomaly`, which sees gradients alone.
    ///
    /// # Examples
    /// ```
    /// use autograd::{Anomaly, Tape, Tensor};
    /// let tape = Tape::new();
    /// tape.detect_anomaly(Some(Anomaly::NotFinite));
    /// let x = tape.var(Tensor::from([-1.0_f64, 1.0]));
    /// let error = x.log().sum().backward().unwrap_err().to_string();
    /// assert!(error.starts_with("log: its result is the first with NaN or inf; recorded at "), "{error}");
    /// ```
    pub fn detect_anomaly(&self, what: Option<Anomaly>) {
        self.0.watch.mode.set(what);
    }

    /// An error that names the first operation of this recording whose result is an anomaly.
    ///
    /// # Errors
    /// [`Error::Anomaly`].
    pub fn anomaly(&self) -> Result<()> {
        self.0.watch.check()
    }
}
