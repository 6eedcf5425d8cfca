//! What the closure given to [`autograd::record`] may capture: numbers and masks, but nothing that
//! is on a tape. A captured `Var` would keep its tape alive, and a second derivative would miss it.
#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::path::Path;
use std::process::Command;

use autograd::{NodeRef, Result, Tape, Tensor, Var, record};

/// A type that is `Send` implements this twice, so that naming `NotSend<_>` for it is ambiguous.
trait NotSend<Which> {
    fn confirm() {}
}
struct WhereSend;
impl<T> NotSend<()> for T {}
impl<T: Send> NotSend<WhereSend> for T {}

#[test]
fn nothing_on_a_tape_is_send() {
    <Var<f64> as NotSend<_>>::confirm();
    <Tape<f64> as NotSend<_>>::confirm();
    <NodeRef<f64> as NotSend<_>>::confirm();
}

#[test]
fn a_backward_captures_no_tape_and_no_var() {
    // The expected text is that of one compiler release; the test above needs no text.
    if !rustc("--version").starts_with("rustc 1.95.") {
        println!("skipped: the messages are recorded for rustc 1.95");
        return;
    }
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/captures_a_tape.rs");
    // The note about the `Option` in a `Var` quotes the standard library where its source is
    // installed.
    if !Path::new(rustc("--print=sysroot").trim()).join("lib/rustlib/src").exists() {
        cases.compile_fail("tests/ui/captures_a_var.rs");
    }
}

/// What the compiler prints for one argument.
fn rustc(argument: &str) -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg(argument).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_backward_captures_indices_and_a_mask() -> Result<()> {
    // y = (mask·x)[indices]
    let x = Tape::new().var(Tensor::from_vec(vec![1.0_f64, 2.0, 3.0], [3])?);
    let mask = Tensor::from_vec(vec![1.0, 0.5, 0.0], [3])?;
    let indices = Vec::from([1_i64, 1, 2]);
    let masked = (x.value() * &mask).to_vec();
    let picked = indices.iter().map(|&i| masked[i as usize]).collect();
    let y = record("pick", [x.node()], [], Tensor::from_vec(picked, [3])?, move |_, g, sink| {
        let mut dx = vec![0.0; mask.numel()];
        for (&i, g) in indices.iter().zip(g.value().to_vec()) {
            dx[i as usize] += g;
        }
        sink.add(0, Var::constant(Tensor::from_vec(dx, [3])? * &mask))
    })?;
    assert_eq!(y.value().to_vec(), [1.0, 1.0, 0.0]);
    assert_eq!(y.sum().backward()?.wrt(&x)?.to_vec(), [0.0, 1.0, 0.0]);
    Ok(())
}
