//! TensorBoard reads what is written for it, where there is a Python that has TensorBoard.
#![cfg(feature = "tensorboard")]

use std::process::Command;

use nn::tensorboard::SummaryWriter;

const SCRIPT: &str = r#"
import sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "tensors": 0})
events.Reload()
tags = events.Tags()
for tag in tags["scalars"]:
    for e in events.Scalars(tag):
        print(tag, e.step, e.value)
for tag in tags["tensors"]:
    for e in events.Tensors(tag):
        print(tag, e.step, e.tensor_proto.float_val[0])
"#;

/// The Python of the variable `PYTHON`, or `python3`, if it has TensorBoard.
fn python() -> Option<std::ffi::OsString> {
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&python).args(["-c", "import tensorboard"]).output();
    found.is_ok_and(|output| output.status.success()).then_some(python)
}

#[test]
fn tensorboard_reads_the_scalars() {
    let Some(python) = python() else {
        eprintln!(
            "SKIPPED: no Python with tensorboard; set PYTHON to one (pip install tensorboard)"
        );
        return;
    };
    let run = std::env::temp_dir().join(format!("gradus-tensorboard-{}", std::process::id()));
    let mut writer = SummaryWriter::new(&run).unwrap();
    for step in 0..4 {
        writer
            .add_scalars(&[("loss/train", 2.0_f64.powi(-(step as i32))), ("é", 7.0)], step)
            .unwrap();
    }
    let mut again = SummaryWriter::new(&run).unwrap();
    again.add_scalar("loss/train", f64::NAN, 1 << 40).unwrap();
    let output = Command::new(python).args(["-c", SCRIPT]).arg(&run).output().unwrap();
    std::fs::remove_dir_all(&run).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut found: Vec<&str> = text.lines().collect();
    found.sort_unstable();
    let mut want: Vec<String> = [1.0, 0.5, 0.25, 0.125]
        .iter()
        .zip(0..)
        .map(|(v, s)| format!("loss/train {s} {v:?}"))
        .collect();
    want.extend((0..4).map(|s| format!("é {s} 7.0")));
    want.push(format!("loss/train {} nan", 1_u64 << 40));
    want.sort_unstable();
    assert_eq!(found, want, "{}", String::from_utf8_lossy(&output.stderr));
}
