//! The gradient table: what every differentiable operation is checked with, and the check that none
//! is missing.
//!
//! Each row goes through `gradcheck` in f64 with a random upstream gradient, on plain and on strided
//! inputs; then the gradient that `create_graph` records is compared with the ordinary one, and is
//! itself checked, so that second derivatives are right too.

use std::collections::BTreeSet;

use tensor::{Generator, Result, Tensor};

use crate::engine::grad;
use crate::gradcheck::{GradcheckOptions, gradcheck};
use crate::tape::Tape;
use crate::var::Var;

type Function = Box<dyn Fn(&[Var<f64>]) -> Result<Var<f64>>>;

/// One operation on inputs of given shapes.
pub(crate) struct Row {
    name: &'static str,
    cases: Vec<(Vec<Vec<usize>>, Function)>,
    positive: bool,
}

/// Shapes that every operation of any shape must take.
const SHAPES: [&[usize]; 6] = [&[], &[1], &[5], &[3, 4], &[2, 1, 3], &[0, 3]];

impl Row {
    fn new(name: &'static str) -> Self {
        Row { name, cases: vec![], positive: false }
    }

    /// A function of inputs of these shapes.
    pub(crate) fn of(
        name: &'static str,
        shapes: &[&[usize]],
        f: impl Fn(&[Var<f64>]) -> Result<Var<f64>> + 'static,
    ) -> Self {
        let shapes = shapes.iter().map(|s| s.to_vec()).collect();
        Row { cases: vec![(shapes, Box::new(f))], ..Row::new(name) }
    }

    /// A function of one input of any shape: plain, transposed, expanded.
    pub(crate) fn unary(
        name: &'static str,
        f: impl Fn(&Var<f64>) -> Result<Var<f64>> + Copy + 'static,
    ) -> Self {
        let mut row = Row::new(name);
        for shape in SHAPES {
            row.cases.push((vec![shape.to_vec()], Box::new(move |x| f(&x[0]))));
        }
        row.cases.push((vec![vec![3, 4]], Box::new(move |x| f(&x[0].transpose(0, 1)?))));
        row.cases.push((vec![vec![2, 3, 4]], Box::new(move |x| f(&x[0].permute(&[2, 0, 1])?))));
        row.cases.push((vec![vec![3, 1]], Box::new(move |x| f(&x[0].expand([2, 3, 4])?))));
        row
    }

    /// [`Row::unary`] on positive numbers.
    pub(crate) fn positive(
        name: &'static str,
        f: impl Fn(&Var<f64>) -> Result<Var<f64>> + Copy + 'static,
    ) -> Self {
        Row { positive: true, ..Row::unary(name, f) }
    }

    /// A function along a dim: every dim of several shapes, counted from both ends, and strided.
    pub(crate) fn along_dim(
        name: &'static str,
        f: impl Fn(&Var<f64>, isize) -> Result<Var<f64>> + Copy + 'static,
    ) -> Self {
        let mut row = Row::new(name);
        for shape in [&[4][..], &[1], &[3, 4], &[2, 3, 4], &[2, 1, 3], &[0, 3]] {
            let rank = shape.len() as isize;
            for dim in -rank..rank {
                row.cases.push((vec![shape.to_vec()], Box::new(move |x| f(&x[0], dim))));
            }
        }
        for dim in 0..3 {
            let turned = move |x: &[Var<f64>]| f(&x[0].permute(&[2, 0, 1])?, dim);
            row.cases.push((vec![vec![2, 3, 4]], Box::new(turned)));
            let wide = move |x: &[Var<f64>]| f(&x[0].expand([2, 3, 4])?, dim);
            row.cases.push((vec![vec![3, 1]], Box::new(wide)));
        }
        row
    }

    /// A function of two inputs that broadcast.
    pub(crate) fn binary(
        name: &'static str,
        f: impl Fn(&Var<f64>, &Var<f64>) -> Result<Var<f64>> + Copy + 'static,
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
            row.cases.push((vec![a.to_vec(), b.to_vec()], Box::new(move |x| f(&x[0], &x[1]))));
            row.cases.push((vec![b.to_vec(), a.to_vec()], Box::new(move |x| f(&x[0], &x[1]))));
        }
        let strided = move |x: &[Var<f64>]| f(&x[0].transpose(0, 1)?, &x[1].expand([4, 3])?);
        row.cases.push((vec![vec![3, 4], vec![4, 1]], Box::new(strided)));
        row
    }
}

/// Checks every row; panics with the report of the first that fails.
pub(crate) fn check(rows: &[Row]) {
    for row in rows {
        for (i, (shapes, f)) in row.cases.iter().enumerate() {
            let mut generator = Generator::new(i as u64);
            let inputs: Vec<Tensor<f64>> = (shapes.iter())
                .map(|shape| {
                    let x = Tensor::randn(&shape[..], &mut generator).unwrap();
                    if row.positive { x.abs() + 0.5 } else { away_from_zero(&x) }
                })
                .collect();
            let label = format!("{} {shapes:?} (case {i})", row.name);
            check_case(&label, f, &inputs, &mut generator);
        }
    }
}

/// Random points must not lie at the kinks of relu and the like.
fn away_from_zero(x: &Tensor<f64>) -> Tensor<f64> {
    let moved = x.to_vec().into_iter().map(|v| v + 0.01_f64.copysign(v)).collect();
    Tensor::from_vec(moved, x.shape()).unwrap()
}

fn check_case(label: &str, f: &Function, inputs: &[Tensor<f64>], generator: &mut Generator) {
    let options = GradcheckOptions::default();
    let report = gradcheck(f, inputs, &options).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert!(report.passed() && report.kinks.is_empty(), "{label}\n{report}");

    // Only some inputs tracked: they get the same gradient, the others none.
    let tape = Tape::new();
    let variables: Vec<_> = inputs.iter().map(|x| tape.var(x.clone())).collect();
    let y = f(&variables).unwrap();
    let upstream = Tensor::randn(y.shape(), generator).unwrap();
    let full = y.backward_with(&upstream).unwrap();
    for only in 0..inputs.len() {
        let some: Vec<_> = (inputs.iter().enumerate())
            .map(|(i, x)| if i == only { tape.var(x.clone()) } else { Var::constant(x.clone()) })
            .collect();
        let grads = f(&some).unwrap().backward_with(&upstream).unwrap();
        for (i, x) in some.iter().enumerate() {
            match (i == only, grads.wrt(x)) {
                (true, Ok(g)) => {
                    assert_eq!(g.shape(), x.shape(), "{label}");
                    close(label, g, full.wrt(&variables[i]).unwrap());
                }
                (true, Err(e)) => panic!("{label}: {e}"),
                (false, got) => assert!(got.is_err(), "{label}: gradient of a constant"),
            }
        }
    }

    // The recorded gradient equals the ordinary one …
    let variables: Vec<_> = inputs.iter().map(|x| tape.var(x.clone())).collect();
    let y = f(&variables).unwrap();
    let references: Vec<_> = variables.iter().collect();
    let seed = [Var::constant(upstream.clone())];
    let recorded = grad(&[&y], &references, &seed, true).unwrap();
    let ordinary = y.backward_with(&upstream).unwrap();
    for (x, g) in variables.iter().zip(&recorded) {
        close(label, g.as_ref().unwrap().value(), ordinary.wrt(x).unwrap());
    }
    // … and its own derivative, in the inputs and in the upstream gradient, is right.
    let mut all = inputs.to_vec();
    all.push(upstream);
    let weights: Vec<_> =
        inputs.iter().map(|x| Tensor::randn(x.shape(), generator).unwrap()).collect();
    let first_order = |v: &[Var<f64>]| -> Result<Var<f64>> {
        let (x, g) = v.split_at(inputs.len());
        // A constant input has no gradient to differentiate: differentiate at a tracked copy.
        let own = Tape::new();
        let tracked: Vec<_> = (x.iter())
            .map(|x| if x.is_tracked() { x.clone() } else { own.var(x.value().clone()) })
            .collect();
        let y = f(&tracked)?;
        let references: Vec<_> = tracked.iter().collect();
        let grads = grad(&[&y], &references, &[g[0].clone()], true)?;
        let mut total = Var::constant(Tensor::scalar(0.0));
        for (g, w) in grads.iter().zip(&weights) {
            total = total + (g.as_ref().unwrap() * &Var::constant(w.clone())).sum();
        }
        Ok(total)
    };
    let report = gradcheck(first_order, &all, &options).unwrap_or_else(|e| panic!("{label}: {e}"));
    assert!(report.passed() && report.kinks.is_empty(), "second order of {label}\n{report}");
}

/// Equal up to the rounding of two ways to compute the same formula.
fn close(label: &str, a: &Tensor<f64>, b: &Tensor<f64>) {
    assert_eq!(a.shape(), b.shape(), "{label}");
    for (a, b) in a.to_vec().iter().zip(b.to_vec()) {
        assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{label}: {a} {b}");
    }
}

/// The `pub fn`s of a source that make a `Var`, tests apart.
fn public_ops(source: &str) -> Vec<&str> {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut ops = Vec::new();
    for part in code.split("\n    pub fn ").skip(1) {
        let signature = part.split('{').next().unwrap_or_default();
        let makes_var = signature.rsplit("->").next().is_some_and(|r| r.contains("Self"));
        if makes_var && signature.contains("&self") {
            ops.extend(signature.split(['(', '<']).next());
        }
    }
    ops
}

#[test]
fn every_public_op_has_a_row() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let (mut found, mut missing) = (BTreeSet::new(), Vec::new());
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let source = std::fs::read_to_string(&path).unwrap();
        for op in public_ops(&source) {
            found.insert(op.to_owned());
            let row = ["unary", "positive", "along_dim", "binary", "of"]
                .iter()
                .any(|kind| source.contains(&format!("Row::{kind}(\"{op}\",")));
            if !row {
                missing.push(format!("{op} in {}", path.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "no row of the gradient table (add one to `mod tests` of the file) for: {}",
        missing.join(", ")
    );
    for op in ["checked_add", "matmul", "exp", "log_softmax", "cross_entropy", "sum_dim"] {
        assert!(found.contains(op), "the parser no longer finds {op}");
    }
}

#[test]
fn the_parser_finds_an_op_without_a_row() {
    let source = "impl<T: Float> Var<T> {\n    #[must_use]\n    pub fn dummy(&self) -> Self {\n";
    assert_eq!(public_ops(source), ["dummy"]);
    assert!(public_ops("    pub fn len(&self) -> usize {").is_empty());
}
