//! Rows of numbers with a class at the end, as comma-separated text.

use std::path::Path;

use autograd::{Error, Float, Result, Tensor};

use crate::files::io_error;

/// Reads rows of `features` numbers and a class of `0..classes`, without a header line.
///
/// Returns `x: [N, features]` and `y: [N]`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Cell`], with line and column (both counted from 1), for a row of another
/// length, something that is not a finite number, or a class out of range.
pub fn read_csv<T: Float>(
    path: impl AsRef<Path>,
    features: usize,
    classes: usize,
) -> Result<(Tensor<T>, Tensor<i64>)> {
    let path = path.as_ref();
    let text = std::fs::read(path).map_err(io_error(path))?;
    let mut builder = csv::ReaderBuilder::new();
    let mut reader =
        builder.has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(&text[..]);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for record in reader.records() {
        let cell = |line, column, reason| Error::Cell { path: path.into(), line, column, reason };
        let record = record.map_err(|e| {
            let line = line_of(&text, e.position());
            match e.into_kind() {
                csv::ErrorKind::Io(source) => io_error(path)(source),
                csv::ErrorKind::Utf8 { err, .. } => {
                    cell(line, err.field() + 1, "is not UTF-8 text".into())
                }
                _ => cell(line, 1, "is not a row of values".into()),
            }
        })?;
        let line = line_of(&text, record.position());
        if record.len() != features + 1 {
            let reason = format!("{} columns, expected {}", record.len(), features + 1);
            return Err(cell(line, record.len().min(features + 1), reason));
        }
        for (i, text) in record.iter().enumerate().take(features) {
            match text.parse::<f64>().map(T::from_f64) {
                Ok(value) if value.to_f64().is_finite() => x.push(value),
                _ => {
                    let reason = format!("{} is not a finite number", short(text));
                    return Err(cell(line, i + 1, reason));
                }
            }
        }
        match record[features].parse::<i64>() {
            Ok(class) if (0..classes as i64).contains(&class) => y.push(class),
            _ => {
                let label = short(&record[features]);
                let reason = format!("label {label} is not a class of 0..{classes}");
                return Err(cell(line, features + 1, reason));
            }
        }
    }
    let n = y.len();
    Ok((Tensor::from_vec(x, [n, features])?, Tensor::from_vec(y, [n])?))
}

/// The line, counted from 1, of a row. The reader's position is where it began to look for it, which
/// may be before blank lines.
fn line_of(text: &[u8], position: Option<&csv::Position>) -> u64 {
    let Some(position) = position else { return 0 };
    let rest = text.get(position.byte() as usize..).unwrap_or_default();
    let blank = rest.iter().take_while(|b| matches!(b, b'\r' | b'\n'));
    position.line() + blank.filter(|&&b| b == b'\n').count() as u64
}

/// The text in quotes, cut where it is long.
fn short(text: &str) -> String {
    match text.char_indices().nth(24) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<(Tensor<f32>, Tensor<i64>)> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name =
            format!("gradus-{}-{}.csv", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        let result = read_csv(&path, 2, 3);
        std::fs::remove_file(&path).unwrap();
        result
    }

    #[test]
    fn reads_numbers_and_classes() {
        let (x, y) = read(b"1, 2.5,0\n-3,4e1,2\r\n").unwrap();
        assert_eq!((x.to_vec(), y.to_vec()), (vec![1.0, 2.5, -3.0, 40.0], vec![0, 2]));
        assert_eq!(read(b"").unwrap().0.shape(), [0, 2]);
    }

    #[test]
    fn names_line_and_column() {
        let text = |bytes: &[u8]| {
            let text = read(bytes).map(|_| ()).unwrap_err().to_string();
            text.split_once(".csv:").unwrap().1.to_owned()
        };
        assert_eq!(text(b"1,2,0\n1,2\n"), "2:2: 2 columns, expected 3");
        assert_eq!(text(b"1,2,0\n1,2,0,9\n"), "2:3: 4 columns, expected 3");
        assert_eq!(text(b"1,2,0\n1,2,1\n1,b,2\n"), "3:2: \"b\" is not a finite number");
        assert_eq!(text(b"nan,2,0\n"), "1:1: \"nan\" is not a finite number");
        assert_eq!(text(b"1,2,3\n"), "1:3: label \"3\" is not a class of 0..3");
        assert_eq!(text(b"1,2,-1\n"), "1:3: label \"-1\" is not a class of 0..3");
        assert_eq!(text(b"1,2,1.5\n"), "1:3: label \"1.5\" is not a class of 0..3");
        assert_eq!(text(b"1,2,0\n1,\xff,0\n"), "2:2: is not UTF-8 text");
        assert_eq!(text(b"1,2,0\n\n\r\n1,b,2\n"), "4:2: \"b\" is not a finite number");
        assert_eq!(text(b"1,1e39,0\n"), "1:2: \"1e39\" is not a finite number");
        let long = text(format!("1,2,{}\n", "7".repeat(1000)).as_bytes());
        assert!(long.len() < 80, "{long}");
    }
}
