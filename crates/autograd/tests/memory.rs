//! What a computation holds: long chains without deep recursion, and the pool's counters after
//! backward, after a dropped tape, and after thousands of iterations.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::any::Any;
use std::sync::{Mutex, MutexGuard, PoisonError};

use autograd::{Error, Result, Save, Tape, Tensor, Var, grad, record};
use tensor::pool;

/// Enough elements that a tensor of them is a large block, and few enough to be fast.
const LARGE: usize = 5000;

/// The counters of large blocks belong to the process, so the tests that read them take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Live bytes of large blocks, and of the calling thread's small ones.
fn live() -> (usize, isize) {
    let stats = pool::stats();
    (stats.live_bytes, stats.small_live_bytes)
}

/// Large blocks that are alive, where all of them have the size of `large()`.
fn live_blocks_since(start: (usize, isize)) -> usize {
    let before = live().0;
    let one = large();
    let size = live().0 - before;
    drop(one);
    assert_eq!((before - start.0) % size, 0, "blocks of other sizes are alive");
    (before - start.0) / size
}

fn large() -> Tensor<f32> {
    Tensor::full([LARGE], 0.5).unwrap()
}

/// Runs `f` on a thread whose stack a recursion over a long chain would overflow.
fn with_small_stack(f: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().stack_size(256 << 10).spawn(f).unwrap().join().unwrap();
}

/// A leaf, and the end of a chain of `length` operations on it: `x + length/4`, exactly.
fn chain(length: usize) -> (Var<f64>, Var<f64>) {
    let x = Tape::new().var(Tensor::scalar(1.0));
    let mut y = x.clone();
    for _ in 0..length / 2 {
        y = (y + 0.5) * 1.0;
    }
    (x, y)
}

#[test]
fn a_chain_of_a_million_runs_backward_on_a_small_stack() {
    let _turn = alone();
    with_small_stack(|| {
        let (x, y) = chain(1_000_000);
        assert_eq!(y.tape().unwrap().len(), 1_000_001);
        assert_eq!(y.item().unwrap(), 250_001.0);
        assert_eq!(y.backward().unwrap().wrt(&x).unwrap().item().unwrap(), 1.0);
        assert_eq!(y.tape().unwrap().len(), 0);
    });
}

#[test]
fn a_chain_of_a_million_is_dropped_on_a_small_stack() {
    let _turn = alone();
    with_small_stack(|| drop(chain(1_000_000)));
}

#[test]
fn backward_leaves_inputs_gradients_and_what_the_caller_holds() {
    let _turn = alone();
    let start = live();
    let tape = Tape::new();
    let x = tape.var(large());
    let a = x.exp();
    let c = (&a * &x).tanh();
    c.retain().unwrap();
    let loss = (&c * &c).sum();
    assert_eq!(live_blocks_since(start), 3, "x, a and c");
    drop(a);
    assert_eq!(live_blocks_since(start), 3, "a is saved");
    let grads = loss.backward().unwrap();
    assert_eq!(live_blocks_since(start), 4, "x, c and their gradients");
    drop(c);
    assert_eq!(live_blocks_since(start), 3, "x and two gradients");
    drop(grads);
    assert_eq!(live_blocks_since(start), 1, "x");
    drop((x, loss));
    assert_eq!(live(), start, "the tape, which is still there, holds nothing");
}

#[test]
fn backward_drops_what_it_does_not_reach() {
    let _turn = alone();
    let start = live();
    let tape = Tape::new();
    let x = tape.var(large());
    // Older than the output, and newer; both save their results, which nobody else holds.
    drop(x.exp());
    let loss = (&x * &x).sum();
    drop(x.tanh());
    assert_eq!(live_blocks_since(start), 3, "x and two unused results");
    let grads = loss.backward().unwrap();
    assert_eq!(live_blocks_since(start), 2, "x and its gradient");
    drop((x, loss, grads));
    assert_eq!(live(), start);
}

#[test]
fn an_error_in_backward_leaves_nothing_behind() {
    let _turn = alone();
    let start = live();
    let tape = Tape::new();
    let x = tape.var(large());
    let y = record("wrong", [x.node()], [Save::Output], x.value().exp(), |_, g, sink| {
        sink.add(0, g.sum())
    });
    let loss = y.unwrap().tanh().sum();
    assert!(matches!(loss.backward(), Err(Error::GradientShape { op: "wrong", .. })));
    assert_eq!(live_blocks_since(start), 1, "x");
    assert!(tape.is_empty() && matches!(loss.backward(), Err(Error::ConsumedTape { .. })));
    drop((x, loss));
    assert_eq!(live(), start);
}

#[test]
fn iterations_do_not_add_up() {
    let _turn = alone();
    let (image, few) = (large(), Tensor::full([16], 0.5).unwrap());
    let forward = |x: &Var<f32>| ((x * x).tanh() + 1.0).log().sum();
    let unrecorded = |x: &Tensor<f32>| drop(forward(&Var::constant(x.clone())));
    let recorded = |x: &Tensor<f32>| drop(forward(&Tape::new().var(x.clone())));
    let backward = |x: &Tensor<f32>| drop(forward(&Tape::new().var(x.clone())).backward());
    type Iteration<'a> = &'a dyn Fn(&Tensor<f32>);
    let kinds: [(&str, usize, &Tensor<f32>, Iteration); 6] = [
        ("unrecorded", 1_000_000, &few, &unrecorded),
        ("recorded and dropped", 1_000_000, &few, &recorded),
        ("backward", 1_000_000, &few, &backward),
        ("unrecorded, large", 10_000, &image, &unrecorded),
        ("recorded and dropped, large", 10_000, &image, &recorded),
        ("backward, large", 10_000, &image, &backward),
    ];
    for (kind, count, x, iteration) in kinds {
        (0..100).for_each(|_| iteration(x));
        let (start, fresh, resident) = (live(), pool::stats().fresh_blocks, resident_bytes());
        (0..count).for_each(|_| iteration(x));
        assert_eq!(live(), start, "{kind}");
        assert_eq!(pool::stats().fresh_blocks, fresh, "{kind}: recycled blocks are enough");
        // What the counters do not see, such as nodes: a byte an iteration would be found.
        if let (Some(before), Some(after)) = (resident, resident_bytes()) {
            assert!(after < before + (1 << 20), "{kind}: {before} bytes grew to {after}");
        }
    }
}

/// Memory of the process, where the system says.
fn resident_bytes() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(1024 * line.split_whitespace().nth(1)?.parse::<usize>().ok()?)
}

/// All that a computation gives into the caller's hands: with saved outputs, a retained result, a
/// mask in a closure, and gradients that are themselves recorded, of first and second order.
fn everything_held() -> Result<Vec<Box<dyn Any>>> {
    let tape = Tape::new();
    let x = tape.var(large());
    let y = (x.exp() / &x).softmax(0)?;
    y.retain()?;
    let mask = large();
    let masked = record("mask", [y.node()], [], y.value() * &mask, move |_, g, sink| {
        sink.add(0, g * &Var::constant(mask.clone()))
    })?;
    let loss = (&masked * &y).sum();
    let of = |y: &Var<f32>| Ok::<_, Error>(grad(&[y], &[&x], &[], true)?.remove(0).unwrap());
    let first = of(&loss)?;
    let second = of(&(&first * &first).sum())?;
    let norm = (&second * &second).sum();
    let grads = norm.backward()?;
    assert!(grads.wrt(&x)?.to_vec().iter().all(|g| g.is_finite()));
    // A second graph on the same tape, which no backward consumes.
    let unconsumed = grad(&[&tape.var(large()).exp().sum()], &[], &[], true)?;
    let leaf = tape.var(large());
    let pending = grad(&[&leaf.tanh().sum()], &[&leaf], &[], true)?;
    Ok(vec![
        Box::new(tape),
        Box::new((x, y, masked, loss)),
        Box::new((first, second, norm)),
        Box::new(grads),
        Box::new((leaf, unconsumed, pending)),
    ])
}

#[test]
fn dropping_all_handles_in_any_order_frees_everything() {
    let _turn = alone();
    let start = live();
    for first in 0..5 {
        let mut held = everything_held().unwrap();
        assert!(live_blocks_since(start) > 5);
        held.rotate_left(first);
        held.into_iter().for_each(drop);
        assert_eq!(live(), start, "starting with handle {first}");
    }
}
