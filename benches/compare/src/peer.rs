//! The other side: a Python process that times a workload of PyTorch when asked.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A running `pytorch.py`.
pub struct Peer {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub version: String,
}

impl Peer {
    /// Starts it; `warm` lets its allocator keep what it freed, so that a step has no page faults.
    pub fn start(python: &str, warm: bool) -> std::io::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/pytorch.py");
        let mut command = Command::new(python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        if warm {
            let never = (1_u64 << 40).to_string();
            command.env("MALLOC_MMAP_THRESHOLD_", &never).env("MALLOC_TRIM_THRESHOLD_", &never);
            command.env("MALLOC_TOP_PAD_", (1_u64 << 28).to_string());
        }
        let mut child = command.spawn()?;
        let missing = || std::io::Error::other("the process has no pipes");
        let ask = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let mut peer = Peer { child, ask, answers, version: String::new() };
        peer.version = peer.line()?;
        Ok(peer)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("pytorch.py ended"));
        }
        Ok(line.trim().to_owned())
    }

    /// The seconds of so many steps; none for a workload that it does not have.
    pub fn seconds(
        &mut self,
        name: &str,
        threads: usize,
        repeats: usize,
    ) -> std::io::Result<Option<f64>> {
        writeln!(self.ask, "{name} {threads} {repeats}")?;
        self.ask.flush()?;
        Ok(self.line()?.parse().ok())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
