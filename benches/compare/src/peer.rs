//! The other sides: processes that time a workload when asked, PyTorch's in Python, the Rust
//! frameworks' in this program.

use std::fmt::{Display, Formatter};
use std::io::{BufRead, BufReader, Error, Result, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use clap::ValueEnum;

/// What stands beside ours.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Framework {
    #[value(skip)]
    PyTorch,
    /// PyTorch with an allocator that keeps what it freed, so that a step has no page faults.
    Warm,
    /// PyTorch with torch.compile of the loss.
    #[value(name = "torch.compile")]
    Compile,
    /// PyTorch's linear cross entropy in chunks of its own choice.
    Chunked,
    /// The same in chunks of 128 rows.
    #[value(name = "chunked-128")]
    Chunked128,
    #[cfg(feature = "peers")]
    Burn,
    #[cfg(feature = "peers")]
    Candle,
}

impl Display for Framework {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Framework::PyTorch => "PyTorch",
            Framework::Warm => "warm",
            Framework::Compile => "torch.compile",
            Framework::Chunked => "chunked",
            Framework::Chunked128 => "chunked-128",
            #[cfg(feature = "peers")]
            Framework::Burn => "burn",
            #[cfg(feature = "peers")]
            Framework::Candle => "candle",
        })
    }
}

impl Framework {
    fn command(self, python: &str) -> Result<Command> {
        #[cfg(feature = "peers")]
        if matches!(self, Framework::Burn | Framework::Candle) {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["--serve", &self.to_string()]);
            return Ok(command);
        }
        let mut command = Command::new(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/pytorch.py"));
        match self {
            Framework::Chunked => drop(command.arg("chunked")),
            Framework::Chunked128 => drop(command.args(["chunked", "128"])),
            _ => {}
        }
        if self == Framework::Warm {
            let never = (1_u64 << 40).to_string();
            command.env("MALLOC_MMAP_THRESHOLD_", &never).env("MALLOC_TRIM_THRESHOLD_", &never);
            command.env("MALLOC_TOP_PAD_", (1_u64 << 28).to_string());
        }
        if self == Framework::Compile {
            // In the process itself, which leaves no idle workers behind.
            command.arg("compile").env("TORCHINDUCTOR_COMPILE_THREADS", "1");
        }
        Ok(command)
    }
}

/// A running process.
pub struct Peer {
    pub framework: Framework,
    pub version: String,
    threads: usize,
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start(framework: Framework, python: &str, threads: usize) -> Result<Self> {
        let mut command = framework.command(python)?;
        // Candle takes its threads from nowhere else.
        command.env("RAYON_NUM_THREADS", threads.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || Error::other("the process has no pipes");
        let ask = child.stdin.take().ok_or_else(missing)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        let version = String::new();
        let mut peer = Peer { framework, version, threads, child, ask, answers };
        peer.version = peer.line()?;
        Ok(peer)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(Error::other(format!("the process of {} ended", self.framework)));
        }
        Ok(line.trim().to_owned())
    }

    /// The seconds of so many steps; none for a workload that it does not have.
    pub fn seconds(&mut self, workload: &str, repeats: usize) -> Result<Option<f64>> {
        writeln!(self.ask, "{workload} {} {repeats}", self.threads)?;
        self.ask.flush()?;
        Ok(self.line()?.parse().ok())
    }

    /// The bytes that its process grows by, at most, in a first step.
    pub fn peak(&mut self, workload: &str) -> Result<Option<f64>> {
        writeln!(self.ask, "{workload} {} peak", self.threads)?;
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
