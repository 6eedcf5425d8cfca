//! Histories as CSV and as JSON lines, written whole or not at all.

use std::path::Path;

use autograd::{Error, Result};
use serde_json::{Map, Value};

use super::History;
use crate::files::{io_error, write_atomically};

impl History {
    /// Writes a table: a header of `step` and the names, and a row for each step. A value that was not
    /// recorded is an empty cell; NaN is `NaN`, and infinite values are `inf` and `-inf`, as
    /// `pandas.read_csv` reads them. Every number comes back with the same bits.
    ///
    /// A kill at any moment leaves the old file or the new.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// use nn::History;
    /// let path = std::env::temp_dir().join(format!("history-{}.csv", std::process::id()));
    /// let mut history = History::new();
    /// history.record(1, &[("loss", 0.5)])?;
    /// history.record(2, &[("loss", f64::NAN), ("accuracy", 0.9)])?;
    /// history.write_csv(&path)?;
    /// assert_eq!(std::fs::read_to_string(&path)?, "step,loss,accuracy\n1,0.5,\n2,NaN,0.9\n");
    /// let mut resumed = History::read_csv(&path)?;
    /// resumed.record(3, &[("accuracy", 0.95)])?;
    /// assert_eq!(resumed.len(), 3);
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_csv(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let error = |e: csv::Error| io_error(path)(std::io::Error::other(e));
        let mut writer = csv::Writer::from_writer(Vec::new());
        let header = ["step"].into_iter().chain(self.names());
        writer.write_record(header).map_err(error)?;
        for row in &self.rows {
            let cell =
                |column| row.value(column).map_or(String::new(), |value| format!("{value:?}"));
            let cells = (0..self.names.len()).map(cell);
            writer.write_record([row.step.to_string()].into_iter().chain(cells)).map_err(error)?;
        }
        let bytes = writer.into_inner().map_err(|e| io_error(path)(e.into_error()))?;
        write_atomically(path, &bytes)
    }

    /// Reads what [`History::write_csv`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for another header, and for a row of another length; [`Error::Cell`]
    /// for what is neither a number nor empty; [`Error::InvalidArgument`] for steps that fall.
    pub fn read_csv(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let format = |reason: String| Error::Format { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(io_error(path))?;
        let mut reader = csv::Reader::from_reader(&bytes[..]);
        let header = reader.headers().map_err(|e| format(e.to_string()))?.clone();
        if header.get(0) != Some("step") {
            return Err(format("does not begin with a column \"step\"".into()));
        }
        let mut history = History::new();
        header.iter().skip(1).for_each(|name| _ = history.column(name));
        if history.names.len() + 1 != header.len() {
            return Err(format("has two columns of one name".into()));
        }
        for record in reader.records() {
            let record = record.map_err(|e| format(e.to_string()))?;
            let line = record.position().map_or(0, csv::Position::line);
            let bad = |column, what| {
                let reason = format!("{:?} is {what}", &record[column]);
                Error::Cell { path: path.into(), line, column: column + 1, reason }
            };
            let step = record[0].parse().map_err(|_| bad(0, "no step"))?;
            let mut values = Vec::new();
            for (column, cell) in record.iter().enumerate().skip(1).filter(|c| !c.1.is_empty()) {
                let value: f64 = cell.parse().map_err(|_| bad(column, "no number"))?;
                values.push((&header[column], value));
            }
            history.record(step, &values)?;
        }
        Ok(history)
    }

    /// Writes a line for each step, `{"step":2,"loss":0.5}`, with the values that it has. NaN and infinite
    /// values, which JSON does not know, are `null`.
    ///
    /// A kill at any moment leaves the old file or the new.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Examples
    /// ```
    /// use nn::History;
    /// let path = std::env::temp_dir().join(format!("history-{}.jsonl", std::process::id()));
    /// let mut history = History::new();
    /// history.record(1, &[("loss", 0.5)])?;
    /// history.record(2, &[("loss", f64::NAN), ("accuracy", 0.9)])?;
    /// history.write_json_lines(&path)?;
    /// let text = std::fs::read_to_string(&path)?;
    /// assert_eq!(text.lines().last(), Some(r#"{"step":2,"loss":null,"accuracy":0.9}"#));
    /// assert_eq!(History::read_json_lines(&path)?.last("accuracy"), Some(0.9));
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_json_lines(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut text = String::new();
        for (step, values) in self.steps() {
            text += &format!("{{\"step\":{step}");
            for (name, value) in values {
                // A number that JSON does not know becomes `Value::Null`.
                text += &format!(",{}:{}", Value::from(name), Value::from(value));
            }
            text += "}\n";
        }
        write_atomically(path, text.as_bytes())
    }

    /// Reads what [`History::write_json_lines`] wrote; `null` is NaN.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Cell`] for a line that is no object of numbers with a `step`;
    /// [`Error::InvalidArgument`] for steps that fall.
    pub fn read_json_lines(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(io_error(path))?;
        let mut history = History::new();
        for (i, line) in text.lines().enumerate() {
            let cell = |column, reason| {
                let line = i as u64 + 1;
                Error::Cell { path: path.into(), line, column, reason }
            };
            let mut object: Map<String, Value> =
                serde_json::from_str(line).map_err(|e| cell(e.column().max(1), e.to_string()))?;
            let step = object.remove("step").and_then(|step| step.as_u64());
            let step = step.ok_or_else(|| cell(1, "has no step".into()))?;
            let mut values = Vec::new();
            for (name, value) in &object {
                let number = if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
                let number = number.ok_or_else(|| cell(1, format!("{name:?} is no number")))?;
                values.push((name.as_str(), number));
            }
            // The object is sorted by name; the line has the order of the series.
            values.sort_by_key(|(name, _)| line.find(&format!("{}:", Value::from(*name))));
            history.record(step, &values)?;
        }
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("gradus-history-{}-{name}", std::process::id()))
    }

    /// All points, with their bits.
    fn points(h: &History) -> Vec<(String, Vec<(u64, u64)>)> {
        let bits = |name: &str| h.series(name).iter().map(|p| (p.0, p.1.to_bits())).collect();
        h.names().into_iter().map(|name| (name.to_owned(), bits(name))).collect()
    }

    fn awkward() -> History {
        let mut h = History::new();
        h.record(1, &[("z", 0.1 + 0.2), ("a, \"b\"", -0.0)]).unwrap();
        h.record(5, &[]).unwrap();
        h.record(u64::MAX, &[("é=mc²", 5e-324), ("z", f64::MAX), ("a, \"b\"", 1e21)]).unwrap();
        h
    }

    #[test]
    fn tables_come_back_bit_for_bit() {
        let path = file("whole.csv");
        let mut h = awkward();
        let last = [("inf", f64::INFINITY), ("z", f64::NEG_INFINITY), ("nan", f64::NAN)];
        h.record(u64::MAX, &last).unwrap();
        h.write_csv(&path).unwrap();
        let again = History::read_csv(&path).unwrap();
        assert_eq!((points(&again), again.len()), (points(&h), 3));
        History::new().write_csv(&path).unwrap();
        assert!(History::read_csv(&path).unwrap().is_empty());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_come_back_bit_for_bit_but_for_infinity() {
        let path = file("whole.jsonl");
        let mut h = awkward();
        h.write_json_lines(&path).unwrap();
        let again = History::read_json_lines(&path).unwrap();
        assert_eq!((points(&again), again.len()), (points(&h), 3));
        h.record(u64::MAX, &[("z", f64::INFINITY)]).unwrap();
        h.write_json_lines(&path).unwrap();
        assert!(History::read_json_lines(&path).unwrap().last("z").unwrap().is_nan());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn bad_tables_are_refused_with_their_place() {
        let path = file("bad.csv");
        let text = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let text = History::read_csv(&path).unwrap_err().to_string();
            text.rsplit_once(".csv:").map_or(text.clone(), |t| t.1.to_owned())
        };
        assert_eq!(text(""), " does not begin with a column \"step\"");
        assert_eq!(text("loss\n1\n"), " does not begin with a column \"step\"");
        assert_eq!(text("step,a,a\n"), " has two columns of one name");
        assert_eq!(text("step,a\n1,2\n-3,4\n"), "3:1: \"-3\" is no step");
        assert_eq!(text("step,a\n1,2\n3,x\n"), "3:2: \"x\" is no number");
        assert!(text("step,a\n1,2,3\n").contains("record 1"));
        assert_eq!(text("step,a\n2,1\n1,1\n"), "History: step 1 is before the last one, 2");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(History::read_csv(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn bad_lines_are_refused_with_their_place() {
        let path = file("bad.jsonl");
        let text = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let text = History::read_json_lines(&path).unwrap_err().to_string();
            text.rsplit_once(".jsonl:").map_or(text.clone(), |t| t.1.to_owned())
        };
        let good = "{\"step\":1,\"a\":2}\n";
        assert!(text(&format!("{good}{{\"step\":2,")).starts_with("2:10: "));
        assert!(text(&format!("{good}\n")).starts_with("2:1: "));
        assert_eq!(text("{\"a\":1}"), "1:1: has no step");
        assert_eq!(text("{\"step\":1.5}"), "1:1: has no step");
        assert_eq!(text("{\"step\":1,\"a\":\"b\"}"), "1:1: \"a\" is no number");
        assert_eq!(
            text(&good.repeat(2).replace("1,", "9,").replacen("9,", "10,", 1)),
            "History: step 9 is before the last one, 10"
        );
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(History::read_json_lines(&path), Err(Error::Io { .. })));
    }
}
