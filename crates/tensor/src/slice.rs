//! Which entries of a dim a slice takes, as Python names them. What becomes of them is in layout.rs.

use std::ops::{Range, RangeFrom, RangeFull, RangeTo};

/// Entries of a dim as Python's `start:stop:step` names them: negative bounds count from the end,
/// bounds outside are moved to the end that they pass, and a negative step walks backwards.
///
/// Ranges of `isize` convert into it: `x.slice(0, 1..-1)`, `x.slice(0, Slice::from(..).step(-2))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first entry; `None` is the first that there is in the direction of `step`.
    pub start: Option<isize>,
    /// One past the last entry; `None` is past the last that there is in the direction of `step`.
    pub stop: Option<isize>,
    /// From one entry to the next; not 0.
    pub step: isize,
}

impl Slice {
    /// The same bounds with another step.
    #[must_use]
    pub fn step(self, step: isize) -> Self {
        Slice { step, ..self }
    }
}

impl From<Range<isize>> for Slice {
    fn from(range: Range<isize>) -> Self {
        Slice { start: Some(range.start), stop: Some(range.end), step: 1 }
    }
}

impl From<RangeFrom<isize>> for Slice {
    fn from(range: RangeFrom<isize>) -> Self {
        Slice { start: Some(range.start), stop: None, step: 1 }
    }
}

impl From<RangeTo<isize>> for Slice {
    fn from(range: RangeTo<isize>) -> Self {
        Slice { start: None, stop: Some(range.end), step: 1 }
    }
}

impl From<RangeFull> for Slice {
    fn from(_: RangeFull) -> Self {
        Slice { start: None, stop: None, step: 1 }
    }
}
