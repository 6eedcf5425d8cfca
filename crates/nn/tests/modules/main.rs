//! All modules, built through their public interface: against PyTorch, and against difference
//! quotients.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod build;
mod fixture;
mod gradients;
mod pytorch;

/// One line for each thing that is wrong; a test ends with it, so that one run shows all.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
