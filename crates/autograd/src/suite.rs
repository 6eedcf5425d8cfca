//! The gradient-checking suite: what every differentiable operation is checked with.
//!
//! Each operation file ends with its rows: functions on inputs of given shapes. [`check`] sends a row
//! through [`gradcheck`] in `f64` with a random upstream gradient, compares the gradient that
//! `create_graph` records with the ordinary one, differentiates it again, and holds the order that
//! the row states against what the operation does. The tests of this crate and the example
//! `gradcheck` run the same rows.

use std::fmt;

use tensor::{Error, Generator, Result, Tensor};

use crate::engine::grad;
use crate::gradcheck::{Entry, GradcheckOptions, GradcheckReport, gradcheck, gradient_of};
use crate::ops;
use crate::tape::Tape;
use crate::var::Var;

type Function = Box<dyn Fn(&[Var<f64>]) -> Result<Vec<Var<f64>>> + Send + Sync>;

/// The highest derivative that an operation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Derivatives of every order.
    Any,
    /// First derivatives; a second one is [`Error::HighestOrder`].
    First,
}

/// Which numbers an operation is checked at. All stay away from 0, where many have a kink.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Domain {
    /// Standard normal numbers.
    Real,
    /// Numbers above 0.5.
    Positive,
    /// Uniform numbers of the open interval.
    Between(f64, f64),
}

struct Case {
    shapes: Vec<Vec<usize>>,
    function: Function,
}

/// One operation, on inputs of several shapes.
pub struct Row {
    name: &'static str,
    order: Order,
    domain: Domain,
    cases: Vec<Case>,
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Row({}, {} inputs)", self.name, self.cases.len())
    }
}

/// Shapes that every operation of any shape must take.
const SHAPES: [&[usize]; 6] = [&[], &[1], &[5], &[3, 4], &[2, 1, 3], &[0, 3]];

/// A function of one variable that can be checked: any closure of the right type.
type One<O> = fn(&Var<f64>) -> Result<O>;

impl Row {
    fn new(name: &'static str) -> Self {
        Row { name, order: Order::Any, domain: Domain::Real, cases: vec![] }
    }

    fn push<O: Into<Vec<Var<f64>>>>(
        &mut self,
        shapes: &[&[usize]],
        f: impl Fn(&[Var<f64>]) -> Result<O> + Send + Sync + 'static,
    ) {
        let shapes = shapes.iter().map(|s| s.to_vec()).collect();
        self.cases.push(Case { shapes, function: Box::new(move |x| f(x).map(Into::into)) });
    }

    /// A function of inputs of these shapes.
    pub fn of<O: Into<Vec<Var<f64>>>>(
        name: &'static str,
        shapes: &[&[usize]],
        f: impl Fn(&[Var<f64>]) -> Result<O> + Send + Sync + 'static,
    ) -> Self {
        let mut row = Row::new(name);
        row.push(shapes, f);
        row
    }

    /// The same row with one more function, on inputs of these shapes.
    #[must_use]
    pub fn and<O: Into<Vec<Var<f64>>>>(
        mut self,
        shapes: &[&[usize]],
        f: impl Fn(&[Var<f64>]) -> Result<O> + Send + Sync + 'static,
    ) -> Self {
        self.push(shapes, f);
        self
    }

    /// A function of one input of any shape: plain, transposed, permuted, expanded.
    pub fn unary<O: Into<Vec<Var<f64>>> + 'static>(name: &'static str, f: One<O>) -> Self {
        let mut row = Row::new(name);
        for shape in SHAPES {
            row.push(&[shape], move |x| f(&x[0]));
        }
        row.push(&[&[3, 4]], move |x| f(&x[0].transpose(0, 1)?));
        row.push(&[&[2, 3, 4]], move |x| f(&x[0].permute(&[2, 0, 1])?));
        row.push(&[&[3, 1]], move |x| f(&x[0].expand([2, 3, 4])?));
        row
    }

    /// A function along a dim: every dim of several shapes, counted from both ends, and strided.
    pub fn along_dim<O: Into<Vec<Var<f64>>> + 'static>(
        name: &'static str,
        f: fn(&Var<f64>, isize) -> Result<O>,
    ) -> Self {
        let mut row = Row::new(name);
        for shape in [&[4][..], &[1], &[3, 4], &[2, 3, 4], &[2, 1, 3], &[0, 3]] {
            let rank = shape.len() as isize;
            for dim in -rank..rank {
                row.push(&[shape], move |x| f(&x[0], dim));
            }
        }
        for dim in 0..3 {
            row.push(&[&[2, 3, 4]], move |x| f(&x[0].permute(&[2, 0, 1])?, dim));
            row.push(&[&[3, 1]], move |x| f(&x[0].expand([2, 3, 4])?, dim));
        }
        row
    }

    /// A function of two inputs that broadcast, and of the same input twice.
    pub fn binary<O: Into<Vec<Var<f64>>> + 'static>(
        name: &'static str,
        f: fn(&Var<f64>, &Var<f64>) -> Result<O>,
    ) -> Self {
        let mut row = Row::new(name);
        let shapes: [[&[usize]; 2]; 7] = [
            [&[3, 4], &[3, 4]],
            [&[3, 4], &[4]],
            [&[3, 1], &[2, 1, 4]],
            [&[], &[3]],
            [&[1], &[]],
            [&[0, 3], &[3]],
            [&[2, 0], &[2, 1]],
        ];
        for [a, b] in shapes {
            row.push(&[a, b], move |x| f(&x[0], &x[1]));
            row.push(&[b, a], move |x| f(&x[0], &x[1]));
        }
        row.push(&[&[3, 4], &[4, 1]], move |x| f(&x[0].transpose(0, 1)?, &x[1].expand([4, 3])?));
        row.push(&[&[2, 3]], move |x| f(&x[0], &x[0]));
        row
    }

    /// The same on positive numbers.
    #[must_use]
    pub fn positive(self) -> Self {
        Row { domain: Domain::Positive, ..self }
    }

    /// The same on numbers strictly between two others.
    #[must_use]
    pub fn between(self, low: f64, high: f64) -> Self {
        Row { domain: Domain::Between(low, high), ..self }
    }

    /// The same for an operation whose gradient cannot be differentiated again.
    #[must_use]
    pub fn first_order(self) -> Self {
        Row { order: Order::First, ..self }
    }

    /// The operation's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The highest derivative that the operation has.
    pub fn order(&self) -> Order {
        self.order
    }

    fn inputs(&self, case: usize) -> Result<(Vec<Tensor<f64>>, Generator)> {
        let mut generator = Generator::new(case as u64);
        let input = |shape: &Vec<usize>| {
            let shape = &shape[..];
            Ok(match self.domain {
                Domain::Real => {
                    let x = Tensor::randn(shape, &mut generator)?;
                    let moved = x.to_vec().into_iter().map(|v: f64| v + 0.01_f64.copysign(v));
                    Tensor::from_vec(moved.collect(), shape)?
                }
                Domain::Positive => Tensor::<f64>::randn(shape, &mut generator)?.abs() + 0.5,
                Domain::Between(low, high) => {
                    let margin = 0.02 * (high - low);
                    Tensor::uniform(shape, low + margin, high - margin, &mut generator)?
                }
            })
        };
        let inputs = self.cases[case].shapes.iter().map(input).collect::<Result<_>>()?;
        Ok((inputs, generator))
    }
}

/// All rows of this crate's operations.
pub fn rows() -> Vec<Row> {
    ops::rows()
}

/// What [`check`] found. Prints as a line of the table, under [`Outcome::HEAD`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Outcome {
    /// The operation.
    pub name: &'static str,
    /// The highest derivative that it has.
    pub order: Order,
    /// Input by input.
    pub trials: Vec<Trial>,
}

/// What was found on one input.
#[derive(Clone, Debug, Default)]
pub struct Trial {
    /// The shapes of the operands.
    pub shapes: Vec<Vec<usize>>,
    /// How many derivatives were compared.
    pub derivatives: usize,
    /// Worst error of a first derivative, relative to the derivative or 0.01 where that is larger.
    pub first: f64,
    /// The same of a second derivative; 0 where the operation has none.
    pub second: f64,
    /// The worst third derivative, where one was tried.
    pub third: Option<f64>,
    /// What is wrong.
    pub failure: Option<String>,
}

impl Outcome {
    /// The head of the table, in two lines.
    pub const HEAD: &str = "\
operation                inputs  derivatives  worst relative error   verdict
                                                 first    second";

    /// Whether nothing is wrong.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// What is wrong, with the shapes at which it is.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        let failed = self.trials.iter().filter_map(|t| Some((&t.shapes, t.failure.as_ref()?)));
        failed.map(|(shapes, text)| format!("{} of {shapes:?}: {text}", self.name))
    }

    /// Takes the inputs of another row of the same operation in.
    pub fn absorb(&mut self, other: Outcome) {
        self.trials.extend(other.trials);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { name, trials, .. } = self;
        let worst = |error: fn(&Trial) -> f64| trials.iter().map(error).fold(0.0, f64::max);
        let derivatives: usize = trials.iter().map(|t| t.derivatives).sum();
        let first = worst(|t| t.first);
        let second = match self.order {
            Order::Any => format!("{:.1e}", worst(|t| t.second)),
            Order::First => "none".into(),
        };
        let verdict = if self.passed() { "passed" } else { "FAILED" };
        let inputs = trials.len();
        write!(
            f,
            "{name:<24} {inputs:>6} {derivatives:>12}  {first:>8.1e}  {second:>8}   {verdict}"
        )
    }
}

/// Checks one row.
pub fn check(row: &Row) -> Outcome {
    // One more order on the first input that is neither empty nor large.
    let is_small = |c: &Case| (1..=6).contains(&c.shapes.iter().flatten().product::<usize>());
    let deep = row.cases.iter().position(|c| !c.shapes.is_empty() && is_small(c));
    let try_case = |i: usize| {
        let mut trial = Trial { shapes: row.cases[i].shapes.clone(), ..Trial::default() };
        trial.failure = match check_case(row, i, deep == Some(i), &mut trial) {
            Ok(()) => None,
            Err(Problem::Wrong(text)) => Some(text),
            Err(Problem::Failed(error)) => Some(error.to_string()),
        };
        trial
    };
    let trials = (0..row.cases.len()).map(try_case).collect();
    Outcome { name: row.name, order: row.order, trials }
}

enum Problem {
    Wrong(String),
    Failed(Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Problem::Failed(error)
    }
}

/// Counts a report's comparisons, and refuses one that did not pass or that skipped a kink.
fn judge(what: &str, report: &GradcheckReport, worst: &mut f64) -> Result<usize, Problem> {
    let error = |e: &Entry| e.absolute / e.analytic.abs().max(e.numeric.abs()).max(0.01);
    *worst = report.worst.as_ref().map_or(*worst, |e| worst.max(error(e)));
    if report.passed() && report.kinks.is_empty() {
        return Ok(report.checked);
    }
    Err(Problem::Wrong(format!("{what}: {report}")))
}

fn check_case(row: &Row, i: usize, deep: bool, trial: &mut Trial) -> Result<(), Problem> {
    let f = &row.cases[i].function;
    let (inputs, mut generator) = row.inputs(i)?;
    let options = GradcheckOptions::default();
    let report = gradcheck(f, &inputs, &options)?;
    trial.derivatives += judge("first order", &report, &mut trial.first)?;

    let upstream = f(&constants(&inputs))?
        .iter()
        .map(|y| Tensor::randn(y.shape(), &mut generator).map(Var::constant))
        .collect::<Result<Vec<_>>>()?;
    let ordinary = gradients(f, &inputs, &upstream, |_| true)?;
    only_some_tracked(f, &inputs, &upstream, &ordinary)?;
    if row.order == Order::First {
        return stops_at_first_order(f, &inputs, &upstream);
    }

    // The recorded gradient equals the ordinary one …
    for (recorded, ordinary) in
        gradient_of(f, &tracked(&inputs), &upstream)?.iter().zip(ordinary.iter().flatten())
    {
        close("the gradient under create_graph", recorded.value(), ordinary)?;
    }
    // … and its own derivatives, in the inputs and in the upstream gradient, are right.
    let n = inputs.len();
    let gradient = |v: &[Var<f64>]| gradient_of(f, &v[..n], &v[n..]);
    let mut all = inputs;
    all.extend(upstream.into_iter().map(Var::into_value));
    let report = gradcheck(gradient, &all, &options)?;
    trial.derivatives += judge("second order", &report, &mut trial.second)?;
    if deep {
        let upstream: Vec<_> = (gradient(&tracked(&all))?.iter())
            .map(|y| Tensor::randn(y.shape(), &mut generator).map(Var::constant))
            .collect::<Result<_>>()?;
        let curvature = |v: &[Var<f64>]| gradient_of(&gradient, v, &upstream);
        let worst = trial.third.insert(0.0);
        let report = gradcheck(curvature, &all, &options)?;
        trial.derivatives += judge("third order", &report, worst)?;
    }
    Ok(())
}

fn constants(inputs: &[Tensor<f64>]) -> Vec<Var<f64>> {
    inputs.iter().cloned().map(Var::constant).collect()
}

fn tracked(inputs: &[Tensor<f64>]) -> Vec<Var<f64>> {
    let tape = Tape::new();
    inputs.iter().map(|x| tape.var(x.clone())).collect()
}

/// Gradients of one ordinary backward in the inputs that `tracks` names; `None` for the others.
fn gradients(
    f: &impl Fn(&[Var<f64>]) -> Result<Vec<Var<f64>>>,
    inputs: &[Tensor<f64>],
    upstream: &[Var<f64>],
    tracks: impl Fn(usize) -> bool,
) -> Result<Vec<Option<Tensor<f64>>>> {
    let tape = Tape::new();
    let x: Vec<_> = (inputs.iter().enumerate())
        .map(|(i, x)| if tracks(i) { tape.var(x.clone()) } else { Var::constant(x.clone()) })
        .collect();
    let y = f(&x)?;
    let (y, u): (Vec<_>, Vec<_>) = y.iter().zip(upstream).filter(|(y, _)| y.is_tracked()).unzip();
    let u: Vec<_> = u.into_iter().cloned().collect();
    let wanted: Vec<_> = x.iter().filter(|x| x.is_tracked()).collect();
    let mut found = grad(&y, &wanted, &u, false)?.into_iter();
    let zeros = |x: &Var<f64>| x.value().zeros_like();
    let gradient = |x: &Var<f64>| match found.next() {
        Some(Some(g)) => g.into_value(),
        _ => zeros(x),
    };
    let mut gradient = gradient;
    Ok(x.iter().map(|x| x.is_tracked().then(|| gradient(x))).collect())
}

/// An input gets the same gradient whether or not the others are tracked.
fn only_some_tracked(
    f: &Function,
    inputs: &[Tensor<f64>],
    upstream: &[Var<f64>],
    full: &[Option<Tensor<f64>>],
) -> Result<(), Problem> {
    for only in 0..inputs.len() {
        let alone = gradients(f, inputs, upstream, |i| i == only)?;
        if let (Some(alone), Some(full)) = (&alone[only], &full[only]) {
            close("the gradient with one input tracked", alone, full)?;
        }
    }
    Ok(())
}

/// A second derivative must be an error, and never a number.
fn stops_at_first_order(
    f: &Function,
    inputs: &[Tensor<f64>],
    upstream: &[Var<f64>],
) -> Result<(), Problem> {
    let x = tracked(inputs);
    let g = gradient_of(f, &x, upstream)?;
    let outputs: Vec<_> = g.iter().filter(|g| g.is_tracked()).collect();
    let ones: Vec<_> = outputs.iter().map(|g| Var::constant(g.value().ones_like())).collect();
    match grad(&outputs, &x.iter().collect::<Vec<_>>(), &ones, false) {
        Err(Error::HighestOrder { .. }) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Err(Problem::Wrong("states first order, but has a second derivative".into())),
    }
}

/// Equal up to the rounding of two ways to compute the same formula.
fn close(what: &str, a: &Tensor<f64>, b: &Tensor<f64>) -> Result<(), Problem> {
    let same = |(a, b): (f64, f64)| (a - b).abs() <= 1e-12 * (1.0 + b.abs());
    if a.shape() != b.shape() || !a.to_vec().into_iter().zip(b.to_vec()).all(same) {
        return Err(Problem::Wrong(format!("{what} is {a}, expected {b}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn every_operation_has_right_derivatives() {
        use rayon::prelude::*;
        let outcomes: Vec<_> = rows().par_iter().map(check).collect();
        assert!(outcomes.len() > 60);
        let failures: Vec<_> = outcomes.iter().flat_map(Outcome::failures).collect();
        assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
    }

    /// The `pub fn`s of a source that make a `Var`, tests apart, with their doc comments.
    fn public_ops(source: &str) -> Vec<(&str, String)> {
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let mut ops = Vec::new();
        let mut before = "";
        for (i, part) in code.split("\n    pub fn ").enumerate() {
            let signature = part.split('{').next().unwrap_or_default();
            let makes_var = signature.rsplit("->").next().is_some_and(|r| r.contains("Self"));
            if i > 0 && makes_var {
                let docs: Vec<_> = (before.lines().rev())
                    .take_while(|l| l.trim_start().starts_with(['/', '#']))
                    .collect();
                let name = signature.split(['(', '<']).next().unwrap_or_default();
                ops.push((name, docs.into_iter().rev().collect::<Vec<_>>().join("\n")));
            }
            before = part;
        }
        ops
    }

    fn stated(docs: &str) -> Option<Order> {
        let words = docs.replace("///", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        match (words.contains("Any order"), words.contains("First order only")) {
            (true, false) => Some(Order::Any),
            (false, true) => Some(Order::First),
            _ => None,
        }
    }

    #[test]
    fn every_public_op_has_rows_of_the_order_it_states() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
        let mut rows_of: BTreeMap<_, Vec<Order>> = BTreeMap::new();
        for row in rows() {
            rows_of.entry(row.name()).or_default().push(row.order());
        }
        let (mut found, mut wrong) = (BTreeSet::new(), Vec::new());
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let source = std::fs::read_to_string(&path).unwrap();
            for (op, docs) in public_ops(&source) {
                found.insert(op.to_owned());
                let place = path.file_name().unwrap().to_string_lossy();
                if !docs.contains("#[track_caller]") {
                    wrong.push(format!("{op} in {place} lacks #[track_caller]"));
                }
                match (stated(&docs), rows_of.get(op)) {
                    (_, None) => wrong.push(format!("{op} in {place} has no row")),
                    (None, _) => wrong.push(format!("{op} in {place} states no order")),
                    (Some(order), Some(rows)) if rows.iter().any(|&r| r != order) => {
                        wrong.push(format!("{op} in {place} states {order:?}, its rows do not"));
                    }
                    _ => {}
                }
            }
        }
        assert!(wrong.is_empty(), "see `fn rows` at the foot of each file:\n{}", wrong.join("\n"));
        for op in ["checked_add", "matmul", "exp", "log_softmax", "cross_entropy", "sum_dim"] {
            assert!(found.contains(op), "the parser no longer finds {op}");
        }
    }

    #[test]
    fn the_parser_finds_an_op_without_a_row() {
        let source = "impl<T: Float> Var<T> {\n    /// `y`. Any\n    /// order.\n    #[must_use]\n    pub fn dummy(&self) -> Self {\n";
        let ops = public_ops(source);
        assert_eq!((ops.len(), ops[0].0, stated(&ops[0].1)), (1, "dummy", Some(Order::Any)));
        assert!(public_ops("\n    pub fn len(&self) -> usize {").is_empty());
    }

    #[test]
    fn a_wrong_backward_does_not_pass() {
        use crate::tape::{Save, record};
        fn wrong(x: &Var<f64>) -> Result<Var<f64>> {
            record("wrong", [x.node()], [Save::Output], x.value().exp(), |ctx, g, sink| {
                sink.add(0, g * ctx.saved(0) * 1.01)
            })
        }
        let outcome = check(&Row::unary("wrong", wrong));
        assert!(!outcome.passed() && outcome.to_string().ends_with("FAILED"));
        let second = check(&Row::unary("second order missing", |x| Ok(x.exp())).first_order());
        let text = second.failures().next().unwrap();
        assert!(text.contains("has a second derivative"), "{text}");
    }
}
