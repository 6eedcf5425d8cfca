//! The one error type of all crates: facts with their operands, and a sentence made of them.
//!
//! A message names the operation first, then the shapes or values that do not fit.

use std::path::PathBuf;

/// `Result` with [`Error`] as its default error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, with the operands that show why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the fields are the operands that the message names")]
pub enum Error {
    /// Two shapes that an operation needs to agree do not.
    #[error("{op}: shapes do not match: {lhs:?} and {rhs:?}")]
    ShapeMismatch { op: &'static str, lhs: Vec<usize>, rhs: Vec<usize> },
    /// The inner dimensions of a matrix product differ.
    #[error("{op}: inner dimensions differ: {lhs:?} × {rhs:?}")]
    InnerDimensions { op: &'static str, lhs: Vec<usize>, rhs: Vec<usize> },
    /// A tensor has another rank than the operation takes.
    #[error("{op}: expected {expected}, found shape {shape:?}")]
    RankMismatch { op: &'static str, expected: &'static str, shape: Vec<usize> },
    /// A dim outside `[-rank, rank)`.
    #[error("{op}: dim {dim} is out of range for rank {rank}")]
    DimOutOfRange { op: &'static str, dim: isize, rank: usize },
    /// An index outside `[0, size)`.
    #[error("{op}: index {value} at position {position} is out of range for size {size}")]
    IndexOutOfRange { op: &'static str, position: usize, value: i64, size: usize },
    /// A class target that is neither in `[0, classes)` nor the ignored index.
    #[error(
        "{op}: target {value} in row {row} is out of range for {classes} classes ({affected} affected)",
        affected = Rows(*.rows)
    )]
    TargetOutOfRange { op: &'static str, row: usize, value: i64, classes: usize, rows: usize },
    /// The number of elements of a shape, or its size in bytes, does not fit the address space, or the
    /// system does not give that much memory.
    #[error("{op}: shape {shape:?} has more elements than memory can hold")]
    SizeOverflow { op: &'static str, shape: Vec<usize> },
    /// An argument that no shape can make right.
    #[error("{op}: {name} {reason}")]
    InvalidArgument { op: &'static str, name: &'static str, reason: String },
    /// A variable of a tape that a backward pass has emptied.
    #[error(
        "{op}: this variable's tape was consumed by backward; record the computation again for another gradient"
    )]
    ConsumedTape { op: &'static str },
    /// Operands recorded on two different tapes.
    #[error("{op}: the operands are on two different tapes; create every variable on one of them")]
    MixedTapes { op: &'static str },
    /// A gradient was asked of, or for, something that is on no tape.
    #[error("{op}: this variable is not tracked; create it with `tape.var` (or bind a parameter)")]
    NotTracked { op: &'static str },
    /// `backward` without an upstream gradient from something that is not one number.
    #[error(
        "{op}: the output has shape {shape:?}, not one element; reduce it or pass the upstream gradient to `backward_with`"
    )]
    NotScalar { op: &'static str, shape: Vec<usize> },
    /// The gradient of an intermediate result that was not kept.
    #[error(
        "{op}: the gradient of a result of `{node}` is not kept; call `retain()` on it before backward"
    )]
    NotRetained { op: &'static str, node: &'static str },
    /// The gradient of log-probabilities that a loss went past, to their logits.
    #[error(
        "{op}: NLLLoss was fused with these log-probabilities and has no gradient for them; call `retain()` on them before the loss"
    )]
    Bypassed { op: &'static str },
    /// A gradient that does not exist, because no path led to the variable.
    #[error("{op}: the output does not depend on this variable, so it has no gradient")]
    NoGradient { op: &'static str },
    /// A backward function delivered a gradient of the wrong shape.
    #[error(
        "{op}: backward gave its input {input} a gradient of shape {found:?}, expected {expected:?}"
    )]
    GradientShape { op: &'static str, input: usize, found: Vec<usize>, expected: Vec<usize> },
    /// A backward function delivered a gradient for no input of the operation, or none for one.
    #[error("{op}: backward {reason} input {input}")]
    GradientInput { op: &'static str, input: usize, reason: &'static str },
    /// A backward function under `create_graph` delivered a gradient that no further derivative would
    /// reach.
    #[error(
        "{op}: backward computed the gradient of input {input} apart from the upstream gradient's variable, so that its derivative would be lost; write it with `Var` operations, or deliver plain values with `add_value`"
    )]
    UntrackedGradient { op: &'static str, input: usize },
    /// A derivative of a higher order than the operation has.
    #[error(
        "{op}: has derivatives of order {order} at most, because its backward works on plain values; write it with `Var` operations to differentiate further"
    )]
    HighestOrder { op: &'static str, order: u32 },
    /// The first result, or gradient, of a watched recording that is NaN or infinite.
    #[error("{op}: its {what} is the first with NaN or inf; recorded at {location}")]
    Anomaly { op: &'static str, location: String, what: &'static str },
    /// Parameters that a step should update but that received no gradient.
    #[error("{op}: no gradient for {}", .parameters.join(", "))]
    MissingGradient { op: &'static str, parameters: Vec<String> },
    /// A panic on a thread that works for the caller.
    #[error("{op}: a worker panicked: {message}")]
    Panicked { op: &'static str, message: String },
    /// Named tensors that do not fit the model they are loaded into.
    #[error("{op}: {reason}")]
    StateDict { op: &'static str, reason: String },
    /// A file whose content is not what its format asks for.
    #[error("{}: {reason}", .path.display())]
    Format { path: PathBuf, reason: String },
    /// A value in a text file, with its place.
    #[error("{}:{line}:{column}: {reason}", .path.display())]
    Cell { path: PathBuf, line: u64, column: usize, reason: String },
    /// An error inside a module, with the path of the module in its model.
    #[error("{path}: {source}")]
    In { path: String, source: Box<Error> },
    /// A failed operation of the operating system on a file.
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

/// Prints a count of rows.
struct Rows(usize);

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} row{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_operation_operands_and_values() {
        let bad_dim = Error::DimOutOfRange { op: "sum", dim: -3, rank: 2 };
        let cases: [(Error, &str); 17] = [
            (
                Error::In { path: "encoder.2".into(), source: Box::new(bad_dim) },
                "encoder.2: sum: dim -3 is out of range for rank 2",
            ),
            (
                Error::ShapeMismatch { op: "add", lhs: vec![2, 3], rhs: vec![4] },
                "add: shapes do not match: [2, 3] and [4]",
            ),
            (
                Error::InnerDimensions { op: "matmul", lhs: vec![2, 3], rhs: vec![4, 5] },
                "matmul: inner dimensions differ: [2, 3] × [4, 5]",
            ),
            (
                Error::RankMismatch { op: "linear", expected: "a matrix", shape: vec![] },
                "linear: expected a matrix, found shape []",
            ),
            (
                Error::DimOutOfRange { op: "sum", dim: -3, rank: 2 },
                "sum: dim -3 is out of range for rank 2",
            ),
            (
                Error::IndexOutOfRange { op: "index_select", position: 1, value: 9, size: 4 },
                "index_select: index 9 at position 1 is out of range for size 4",
            ),
            (
                Error::TargetOutOfRange {
                    op: "cross_entropy",
                    row: 17,
                    value: 10,
                    classes: 10,
                    rows: 1,
                },
                "cross_entropy: target 10 in row 17 is out of range for 10 classes (1 row affected)",
            ),
            (
                Error::SizeOverflow { op: "zeros", shape: vec![usize::MAX, 2] },
                "zeros: shape [18446744073709551615, 2] has more elements than memory can hold",
            ),
            (
                Error::InvalidArgument {
                    op: "CrossEntropyLoss",
                    name: "label_smoothing",
                    reason: "must be in [0, 1], found NaN".into(),
                },
                "CrossEntropyLoss: label_smoothing must be in [0, 1], found NaN",
            ),
            (
                Error::MissingGradient { op: "step", parameters: vec!["0.weight".into()] },
                "step: no gradient for 0.weight",
            ),
            (
                Error::Panicked { op: "DataLoader", message: "index out of bounds".into() },
                "DataLoader: a worker panicked: index out of bounds",
            ),
            (
                Error::Cell {
                    path: "d.csv".into(),
                    line: 3,
                    column: 65,
                    reason: "label 11 is outside 0..10".into(),
                },
                "d.csv:3:65: label 11 is outside 0..10",
            ),
            (
                Error::GradientShape { op: "exp", input: 0, found: vec![3], expected: vec![2, 3] },
                "exp: backward gave its input 0 a gradient of shape [3], expected [2, 3]",
            ),
            (
                Error::NotRetained { op: "wrt", node: "exp" },
                "wrt: the gradient of a result of `exp` is not kept; call `retain()` on it before backward",
            ),
            (
                Error::HighestOrder { op: "step", order: 1 },
                "step: has derivatives of order 1 at most, because its backward works on plain values; write it with `Var` operations to differentiate further",
            ),
            (
                Error::UntrackedGradient { op: "step", input: 1 },
                "step: backward computed the gradient of input 1 apart from the upstream gradient's variable, so that its derivative would be lost; write it with `Var` operations, or deliver plain values with `add_value`",
            ),
            (
                Error::Anomaly { op: "log", location: "src/main.rs:7:5".into(), what: "result" },
                "log: its result is the first with NaN or inf; recorded at src/main.rs:7:5",
            ),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
