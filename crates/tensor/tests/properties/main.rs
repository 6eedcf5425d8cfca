//! Properties of the public API on random shapes and views, against index loops.
//!
//! Every public operation has a row in a table of oracles, which `coverage.rs` holds against the
//! sources. An oracle draws views, and mirrors the operation on their plain twins of `twin.rs`. Most
//! elements are integers small enough for sums and products to be exact in `f32` too, so that most
//! comparisons are of bits. The instruction set is chosen once per process: run the folder under
//! `TENSOR_ISA=baseline` and `TENSOR_ISA=avx2` as well.

#![expect(clippy::unwrap_used, reason = "a call that fails is a test that fails")]

mod access;
mod arithmetic;
mod contractions;
mod coverage;
mod create;
mod elementwise;
mod index;
mod join;
mod large;
mod linalg;
mod order;
mod reduce;
mod rejects;
mod sample;
mod softmax;
mod spread;
mod twin;
mod views;
mod windows;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::collection::vec;
use proptest::prelude::*;
use tensor::Result;

use twin::{Choices, Fill, Sample, Twin, reals};

/// What an operation is called, and what compares it with a naive loop.
type Oracle = (&'static str, fn(&mut Case));

/// All oracles, by file.
const ORACLES: [&[Oracle]; 13] = [
    access::TABLE,
    arithmetic::TABLE,
    contractions::TABLE,
    create::TABLE,
    elementwise::TABLE,
    index::TABLE,
    join::TABLE,
    linalg::TABLE,
    order::TABLE,
    reduce::TABLE,
    spread::TABLE,
    views::TABLE,
    windows::TABLE,
];

/// What an oracle is given: a shape, and decisions.
struct Case {
    shape: Vec<usize>,
    choices: Choices,
}

impl Case {
    /// A view of the shape.
    fn twin<T: Sample>(&mut self, fill: Fill<T>) -> Twin<T> {
        Twin::strided(&self.shape, self.choices.bits(), fill)
    }

    /// A view of a shape that broadcasts to the shape.
    fn part<T: Sample>(&mut self, fill: Fill<T>) -> Twin<T> {
        Twin::strided(&self.choices.reduced(&self.shape), self.choices.bits(), fill)
    }

    fn rank(&self) -> usize {
        self.shape.len()
    }
}

/// Runs oracles, and says which of them failed; what each had found stands above.
fn run(oracles: &[Oracle], shape: &[usize], seed: u64) {
    let failed = |(name, check): &&Oracle| {
        let mut case = Case { shape: shape.to_vec(), choices: Choices(seed) };
        let ran = catch_unwind(AssertUnwindSafe(|| check(&mut case)));
        if ran.is_err() {
            eprintln!("the oracle of `{name}` failed for shape {shape:?} and seed {seed}");
        }
        ran.is_err()
    };
    let failed: Vec<&str> = oracles.iter().filter(failed).map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "oracles failed for shape {shape:?} and seed {seed}: {failed:?}");
}

/// Up to 6 dims, some of size 0 or 1, and at most 400 elements.
fn shape() -> impl Strategy<Value = Vec<usize>> {
    let dims = vec(prop_oneof![1 => Just(0_usize), 3 => Just(1), 9 => 2..6_usize], 0..=6);
    dims.prop_map(|mut shape| {
        let mut numel = 1;
        for size in &mut shape {
            if numel * *size > 400 {
                *size = 1;
            }
            numel *= (*size).max(1);
        }
        shape
    })
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    }
}

/// The error of an operation that must fail names it.
#[track_caller]
fn rejects<R>(op: &str, result: Result<R>) {
    let text = result.err().unwrap_or_else(|| panic!("{op}: not rejected")).to_string();
    assert!(text.starts_with(&format!("{op}: ")), "{op} says {text}");
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn operations_match_naive(shape in shape(), seed: u64) {
        run(&ORACLES.concat(), &shape, seed);
    }
}

#[test]
fn operations_match_naive_on_the_smallest_shapes() {
    for shape in [&[][..], &[0], &[1], &[2], &[0, 3], &[3, 0], &[1, 1], &[2, 0, 3]] {
        for seed in 0..4 {
            run(&ORACLES.concat(), shape, seed);
        }
    }
}

proptest! {
    #![proptest_config(cases(1024))]

    #[test]
    fn chains_of_views_match_naive(shape in shape(), steps in vec(any::<u64>(), 0..10)) {
        let mut twins = vec![Twin::<f64>::new(&shape, 0, reals)];
        for step in steps {
            twins.push(twins[twins.len() - 1].step(step));
        }
        for twin in &twins {
            twin.check();
            let only = (twin.dense.data.len() == 1).then(|| twin.dense.data[0]);
            prop_assert_eq!(twin.view.item().ok(), only);
        }
        // A writer never shows through another view, whichever it is.
        for k in 0..twins.len() {
            for (i, x) in twins[k].view.make_mut().iter_mut().enumerate() {
                *x = i as f64;
            }
            (0..twins[k].dense.data.len()).for_each(|i| twins[k].dense.data[i] = i as f64);
            twins.iter().for_each(Twin::check);
        }
    }
}
