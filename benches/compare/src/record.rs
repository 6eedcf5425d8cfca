//! What recording costs: a chain of one-element operations, forward and backward, here and in candle.
//!
//! The two sides alternate in one run (A B A B …); printed are medians of nanoseconds an operation,
//! the median of the ratios of neighbouring rounds with its quartiles, and what one operation
//! allocates. Tape and leaf are made once outside the timed part where the framework allows it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor as Candle, Var as CandleVar};
use nn::prelude::*;

use crate::measure::quantile;

const CHAIN: usize = 1000;
const ROUNDS: usize = 101;
/// Chains a round, so that a round is some milliseconds long.
const REPEATS: usize = 20;

/// Counts what the system's allocator is asked for.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands every call on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn ours(tape: &Tape<f32>, one: &Var<f32>, op: usize) -> f32 {
    let x = tape.var(one.value().clone());
    let mut y = x.clone();
    for _ in 0..CHAIN {
        y = match op {
            0 => &y + one,
            1 => &y * 1.0,
            _ => &y * one,
        };
    }
    let grads = y.backward().expect("one tracked number");
    grads.wrt(&x).and_then(Tensor::item).expect("the leaf has a gradient")
}

fn candle(x: &CandleVar, one: &Candle, op: usize) -> candle_core::Result<f32> {
    let mut y = x.as_tensor().clone();
    for _ in 0..CHAIN {
        y = match op {
            0 => (&y + one)?,
            // `y * 1.0` in candle is this call.
            1 => y.affine(1.0, 0.0)?,
            _ => (&y * one)?,
        };
    }
    let grads = y.backward()?;
    let Some(g) = grads.get(x.as_tensor()) else { candle_core::bail!("no gradient") };
    g.to_vec1::<f32>().map(|g| g[0])
}

fn nanoseconds(mut chain: impl FnMut() -> f32) -> f64 {
    let start = Instant::now();
    for _ in 0..REPEATS {
        assert_eq!(std::hint::black_box(chain()), 1.0);
    }
    start.elapsed().as_nanos() as f64 / (REPEATS * CHAIN) as f64
}

fn allocations(mut chain: impl FnMut() -> f32) -> f64 {
    chain();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    chain();
    (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / CHAIN as f64
}

/// The table of recorded operations beside candle.
pub fn table() -> candle_core::Result<String> {
    let tape = Tape::<f32>::new();
    let one = tape.constant(Tensor::ones([1]).expect("one number"));
    let x = CandleVar::ones(1, candle_core::DType::F32, &Device::Cpu)?;
    let candle_one = Candle::ones(1, candle_core::DType::F32, &Device::Cpu)?;
    let mut text = format!(
        "\none recorded op on one element, forward + backward, in a chain of {CHAIN}; {ROUNDS} rounds\n\n\
         | op | ours, ns | candle, ns | candle / ours (quartiles) | allocations an op, ours | candle |\n\
         |---|---|---|---|---|---|\n"
    );
    for (op, name) in ["add", "mul by scalar", "mul"].into_iter().enumerate() {
        let a = || ours(&tape, &one, op);
        let b = || candle(&x, &candle_one, op).expect("shapes that fit");
        let (mut own, mut other, mut ratios) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            own.push(nanoseconds(a));
            other.push(nanoseconds(b));
            ratios.push(other[other.len() - 1] / own[own.len() - 1]);
        }
        text += &format!(
            "| {name} | {:.0} | {:.0} | {:.1} ({:.1}–{:.1}) | {:.2} | {:.2} |\n",
            quantile(&mut own, 0.5),
            quantile(&mut other, 0.5),
            quantile(&mut ratios, 0.5),
            quantile(&mut ratios, 0.25),
            quantile(&mut ratios, 0.75),
            allocations(a),
            allocations(b),
        );
    }
    Ok(text)
}
