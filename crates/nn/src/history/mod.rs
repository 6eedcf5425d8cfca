//! What a run measured, step by step: named series that can be written, read back and drawn.
//!
//! Deliberately without a clock and without a place: what is recorded is what the program says, and it
//! goes to the files that the program names.

#[cfg(feature = "files")]
mod files;
#[cfg(feature = "plot")]
mod plot;

use autograd::{Error, Result};

#[cfg(feature = "plot")]
pub use plot::{Panel, Scale};

/// Named series of numbers over the steps of a run. Not every series needs a value at every step.
///
/// Behind the feature `files` it is written and read as CSV and JSON lines, so that a resumed run
/// appends to what it had; behind `plot` it draws itself.
///
/// # Examples
/// ```
/// use nn::History;
/// let mut history = History::new();
/// history.record(1, &[("loss", 2.3)])?;
/// history.record(2, &[("loss", 1.9), ("accuracy", 0.4)])?;
/// assert_eq!(history.names(), ["loss", "accuracy"]);
/// assert_eq!(history.series("loss"), [(1, 2.3), (2, 1.9)]);
/// assert_eq!(history.last("accuracy"), Some(0.4));
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct History {
    names: Vec<String>,
    /// Of rising steps.
    rows: Vec<Row>,
}

/// The values of one step.
#[derive(Clone, Debug)]
struct Row {
    step: u64,
    /// As `names`; it may end before those that came later.
    values: Vec<Option<f64>>,
}

impl History {
    /// Nothing yet.
    pub fn new() -> Self {
        History::default()
    }

    /// Takes values of a step: NaN and infinite ones too. Values of the step that was recorded last are
    /// added to it; a name that it has already takes the new value.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a step before the last, and for a name that is empty, `step`, or has
    /// control characters; nothing is recorded then.
    pub fn record(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let invalid = |name, reason| Error::InvalidArgument { op: "History", name, reason };
        if let Some(last) = self.rows.last().map(|row| row.step).filter(|&last| step < last) {
            return Err(invalid("step", format!("{step} is before the last one, {last}")));
        }
        let bad = |name: &str| {
            name.is_empty() || name == "step" || name.contains(|c: char| c.is_control())
        };
        if let Some((name, _)) = values.iter().find(|(name, _)| bad(name)) {
            let reason = format!("{name:?} is none that a series can have");
            return Err(invalid("name", reason));
        }
        if self.rows.last().is_none_or(|row| row.step != step) {
            self.rows.push(Row { step, values: Vec::new() });
        }
        for &(name, value) in values {
            let column = self.column(name);
            if let Some(row) = self.rows.last_mut() {
                row.values.resize(row.values.len().max(column + 1), None);
                row.values[column] = Some(value);
            }
        }
        Ok(())
    }

    /// The column of a name, which is made where there is none.
    fn column(&mut self, name: &str) -> usize {
        self.names.iter().position(|n| n == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    /// The number of steps with a record.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is recorded.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The names of the series, in the order in which they came.
    pub fn names(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// The steps and values of a series; empty for a name that was not recorded.
    pub fn series(&self, name: &str) -> Vec<(u64, f64)> {
        let Some(column) = self.names.iter().position(|n| n == name) else { return Vec::new() };
        self.rows.iter().filter_map(|row| Some((row.step, row.value(column)?))).collect()
    }

    /// The last value of a series.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.series(name).last().map(|point| point.1)
    }

    /// Each step with the values that it has.
    ///
    /// # Examples
    /// ```
    /// let mut history = nn::History::new();
    /// history.record(1, &[("loss", 0.5), ("accuracy", 0.9)])?;
    /// let steps: Vec<_> = history.steps().collect();
    /// assert_eq!(steps, [(1, vec![("loss", 0.5), ("accuracy", 0.9)])]);
    /// # Ok::<(), nn::Error>(())
    /// ```
    pub fn steps(&self) -> impl Iterator<Item = (u64, Vec<(&str, f64)>)> {
        let values = |row: &Row| {
            let named = self.names.iter().enumerate();
            named.filter_map(|(i, name)| Some((name.as_str(), row.value(i)?))).collect()
        };
        self.rows.iter().map(move |row| (row.step, values(row)))
    }

    /// Forgets all after `step`: what a run that resumes from a checkpoint of that step will record
    /// again.
    ///
    /// # Examples
    /// ```
    /// use nn::History;
    /// let mut history = History::new();
    /// for step in 0..10 {
    ///     history.record(step, &[("loss", 1.0 / (step + 1) as f64)])?;
    /// }
    /// history.truncate(4);
    /// assert_eq!(history.last("loss"), Some(0.2));
    /// history.record(5, &[("loss", 0.1)])?;
    /// # Ok::<(), nn::Error>(())
    /// ```
    pub fn truncate(&mut self, step: u64) {
        self.rows.retain(|row| row.step <= step);
    }
}

impl Row {
    fn value(&self, column: usize) -> Option<f64> {
        self.values.get(column).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_come_and_go() {
        let mut h = History::new();
        assert!(h.is_empty() && h.names().is_empty() && h.series("a").is_empty());
        h.record(3, &[("a", 1.0), ("b", f64::NAN)]).unwrap();
        h.record(3, &[("c", 5.0), ("a", 2.0)]).unwrap();
        h.record(7, &[]).unwrap();
        h.record(8, &[("c", f64::INFINITY), ("c", 6.0)]).unwrap();
        assert_eq!((h.len(), h.names()), (3, vec!["a", "b", "c"]));
        assert_eq!(h.series("a"), [(3, 2.0)]);
        assert_eq!(h.series("c"), [(3, 5.0), (8, 6.0)]);
        assert!(h.last("b").unwrap().is_nan());
        h.truncate(7);
        assert_eq!((h.len(), h.last("c")), (2, Some(5.0)));
    }

    #[test]
    fn bad_records_change_nothing() {
        let mut h = History::new();
        h.record(3, &[("a", 1.0)]).unwrap();
        let mut text =
            |step, name| h.record(step, &[("a", 9.0), (name, 1.0)]).unwrap_err().to_string();
        assert_eq!(text(2, "b"), "History: step 2 is before the last one, 3");
        assert_eq!(text(4, ""), "History: name \"\" is none that a series can have");
        assert_eq!(text(4, "a\nb"), "History: name \"a\\nb\" is none that a series can have");
        assert!(text(4, "step").contains("\"step\""));
        assert_eq!((h.len(), h.names(), h.last("a")), (1, vec!["a"], Some(1.0)));
    }
}
