//! A handle to the tape in a closure that the tape itself would own.

use autograd::{Tape, Tensor, record};

fn main() {
    let tape = Tape::new();
    let x = tape.var(Tensor::scalar(3.0_f64));
    let (y, tape) = (x.value().clone(), tape.clone());
    let _ = record("same", [x.node()], [], y, move |_, g, sink| sink.add(tape.len(), g));
}
