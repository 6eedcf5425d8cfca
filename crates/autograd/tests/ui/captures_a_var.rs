//! `y = x²` with x in the closure, where it belongs among the saved values.

use autograd::{Tape, Tensor, record};

fn main() {
    let x = Tape::new().var(Tensor::scalar(3.0_f64));
    let (y, captured) = (x.value() * x.value(), &x * 2.0);
    let _ = record("square", [x.node()], [], y, move |_, g, sink| sink.add(0, g * &captured));
}
