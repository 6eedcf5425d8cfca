//! A table of what a model consists of.

use std::fmt;

use crate::parameters::{Parameter, Parameters, Visitor};

/// The parameters and buffers of a model, with their sizes. Prints as a table.
///
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let model = Sequential::<f32>::new()
///     .append(Linear::new(64, 128, &mut rng)?)
///     .append(BatchNorm1d::new(128, Default::default())?)
///     .append(Linear::without_bias(128, 10, &mut rng)?);
/// let text = Summary::of(&model).to_string();
/// assert_eq!(text, "\
/// parameter       shape          numbers
/// 0.weight        [128, 64]        8,192
/// 0.bias          [128]              128
/// 1.weight        [128]              128
/// 1.bias          [128]              128
/// 1.running_mean  [128]              128  buffer
/// 1.running_var   [128]              128  buffer
/// 2.weight        [10, 128]        1,280
/// 9,856 parameters in 5 tensors (9,856 trainable), 256 numbers in buffers, 40.4 kB
/// ");
/// # Ok::<(), nn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Summary {
    rows: Vec<Row>,
    element: usize,
}

/// One tensor of a model.
#[derive(Clone, Debug)]
struct Row {
    path: String,
    shape: Vec<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Trainable,
    Frozen,
    Buffer,
}

impl Summary {
    /// The summary of a model.
    pub fn of<M: Parameters + ?Sized>(model: &M) -> Self {
        let mut rows = Vec::new();
        model.visit(&mut Visitor::new(&mut |path: &str, p: &Parameter<M::Elem>| {
            let kind = match (p.is_buffer(), p.is_frozen()) {
                (true, _) => Kind::Buffer,
                (false, true) => Kind::Frozen,
                (false, false) => Kind::Trainable,
            };
            rows.push(Row { path: path.to_owned(), shape: p.value().shape().to_vec(), kind });
        }));
        Summary { rows, element: size_of::<M::Elem>() }
    }

    /// The numbers of trainable parameters.
    pub fn trainable(&self) -> usize {
        self.count(|kind| kind == Kind::Trainable)
    }

    /// The numbers of frozen parameters.
    pub fn frozen(&self) -> usize {
        self.count(|kind| kind == Kind::Frozen)
    }

    /// The numbers in buffers.
    pub fn buffers(&self) -> usize {
        self.count(|kind| kind == Kind::Buffer)
    }

    fn count(&self, keep: impl Fn(Kind) -> bool) -> usize {
        self.rows.iter().filter(|row| keep(row.kind)).map(Row::numel).sum()
    }
}

impl Row {
    fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes: Vec<String> = self.rows.iter().map(|row| format!("{:?}", row.shape)).collect();
        let widest = |header: &str, cells: &mut dyn Iterator<Item = usize>| {
            cells.fold(header.len(), usize::max)
        };
        let path = widest("parameter", &mut self.rows.iter().map(|row| row.path.len()));
        let shape = widest("shape", &mut shapes.iter().map(String::len));
        writeln!(f, "{:path$}  {:shape$}  {:>11}", "parameter", "shape", "numbers")?;
        for (row, sizes) in self.rows.iter().zip(&shapes) {
            let kind = match row.kind {
                Kind::Trainable => "",
                Kind::Frozen => "  frozen",
                Kind::Buffer => "  buffer",
            };
            let numbers = grouped(row.numel());
            writeln!(f, "{:path$}  {sizes:shape$}  {numbers:>11}{kind}", row.path)?;
        }
        let (trainable, frozen, buffers) = (self.trainable(), self.frozen(), self.buffers());
        let tensors = self.rows.iter().filter(|row| row.kind != Kind::Buffer).count();
        let all = grouped(trainable + frozen);
        let trainable = grouped(trainable);
        write!(f, "{all} parameters in {tensors} tensors ({trainable} trainable)")?;
        if buffers > 0 {
            write!(f, ", {} numbers in buffers", grouped(buffers))?;
        }
        writeln!(f, ", {}", bytes(self.element * self.rows.iter().map(Row::numel).sum::<usize>()))
    }
}

/// Digits in groups of three.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn bytes(n: usize) -> String {
    let (mut size, mut units) = (n as f64, ["kB", "MB", "GB"].into_iter());
    let mut unit = "bytes";
    while size >= 1000.0
        && let Some(next) = units.next()
    {
        (size, unit) = (size / 1000.0, next);
    }
    if unit == "bytes" { format!("{n} bytes") } else { format!("{size:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_scaled() {
        let all = [0, 999, 1000, 12_345, 1_000_000].map(grouped);
        assert_eq!(all, ["0", "999", "1,000", "12,345", "1,000,000"]);
        let all = [0, 999, 1000, 12_345, 1_260_000_000, 5_000_000_000_000].map(bytes);
        assert_eq!(all, ["0 bytes", "999 bytes", "1.0 kB", "12.3 kB", "1.3 GB", "5000.0 GB"]);
    }
}
