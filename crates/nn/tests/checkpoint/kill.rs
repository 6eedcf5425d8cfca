//! A process that trains is killed again and again, at random moments; each restart finds a whole
//! checkpoint, and in the end the weights are those of a run that nobody disturbed.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nn::Checkpoint;
use nn::prelude::*;

use super::{Run, Scratch};

const KILLS: u64 = 50;
const SIGKILL: i32 = 9;
/// The steps that a process is allowed before it is killed, so that none is ever done before that.
const STEPS_A_LIFE: u64 = 6;
const STEPS: u64 = KILLS * STEPS_A_LIFE + 20;
/// The steps from one checkpoint to the next.
const EVERY: u64 = 2;
/// Where the process to kill is told to train; without it, it is a test of nothing.
const DIRECTORY: &str = "GRADUS_TEST_KILL_DIRECTORY";
/// What the lines that it prints begin with.
const MARK: &str = "trainer: ";

/// The process that is killed: this program again, with this test alone.
#[test]
fn trainer() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let path = std::path::Path::new(&directory).join("run.safetensors");
    let mut run = Run::new();
    if path.exists() {
        run.restore(&Checkpoint::load(&path).unwrap()).unwrap();
    }
    println!("{MARK}at {}", run.position.step);
    // A step is taken for each byte that comes in; none comes any more when whoever sends them is gone.
    let allowed = || std::io::stdin().read_exact(&mut [0]).unwrap();
    allowed();
    run.train(STEPS, |run| {
        let step = run.position.step;
        println!("{MARK}did {step}");
        if step.is_multiple_of(EVERY) {
            run.save(&path).unwrap();
            println!("{MARK}saved {step}");
        }
        if step < STEPS {
            allowed();
        }
    });
}

/// A trainer, and the last step that it has said is saved.
struct Trainer {
    process: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    saved: u64,
}

impl Trainer {
    /// Starts one that may take so many steps.
    fn start(directory: &Scratch, steps: u64) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["kill::trainer", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIRECTORY, &directory.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        process.stdin.as_mut().unwrap().write_all(&vec![0; steps as usize]).unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Trainer { process, lines, saved: 0 }
    }

    /// What it says next, such as `("did", 7)`; `None` when it has ended.
    fn next(&mut self) -> Option<(String, u64)> {
        loop {
            let line = self.lines.next()?.unwrap();
            // Whoever runs the test writes "test kill::trainer ... " before the first.
            let Some((_, event)) = line.split_once(MARK) else { continue };
            let (what, step) = event.split_once(' ').unwrap();
            let step = step.parse().unwrap();
            if what == "saved" {
                self.saved = step;
            }
            return Some((what.to_owned(), step));
        }
    }

    /// Kills it; it must have lived until then.
    fn kill(&mut self) {
        assert!(self.process.try_wait().unwrap().is_none(), "it had ended by itself");
        self.process.kill().unwrap();
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "{status}");
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn fifty_kills_change_nothing() {
    let scratch = Scratch::new("kill");
    let mut whole = Run::new();
    let (other, started) = (scratch.0.join("undisturbed"), Instant::now());
    whole.train(STEPS, |run| {
        if run.position.step.is_multiple_of(EVERY) {
            run.save(&other).unwrap();
        }
    });
    let pace = started.elapsed().as_secs_f64() / STEPS as f64;
    std::fs::remove_file(other).unwrap();

    let (mut rng, started) = (Generator::new(2024), Instant::now());
    let (mut saved, mut kills, mut starts) = (0, 0, BTreeSet::new());
    for _ in 0..KILLS {
        let mut trainer = Trainer::start(&scratch, STEPS_A_LIFE);
        // Most are killed some steps after the start, the others while they start.
        if rng.below(8) > 0 {
            let (what, step) = trainer.next().unwrap();
            assert_eq!((what.as_str(), step), ("at", saved));
            starts.insert(step);
            let steps = rng.below(STEPS_A_LIFE as usize);
            let mut did = 0;
            while did < steps {
                let (what, _) = trainer.next().unwrap();
                did += usize::from(what == "did");
            }
        }
        sleep(Duration::from_secs_f64(rng.uniform() * 3.0 * pace));
        trainer.kill();
        kills += 1;
        // It may have saved once more than it could say.
        while trainer.next().is_some() {}
        let said = saved.max(trainer.saved);
        if scratch.file().exists() {
            let found = Checkpoint::<f32>::load(scratch.file()).unwrap().position().step;
            assert!((said..=said + EVERY).contains(&found), "{found}, and it said {said}");
            saved = found;
        }
    }
    assert_eq!(kills, KILLS);
    assert!(saved < STEPS && starts.len() > 10, "{starts:?}");
    let mut halves = scratch.names();
    halves.retain(|name| name != "run.safetensors");
    assert!(halves.iter().all(|name| name.ends_with(".tmp")), "{halves:?}");
    let (seconds, halves) = (started.elapsed().as_secs_f64(), halves.len());
    println!(
        "{kills} kills in {seconds:.1} s, {halves} of them while a checkpoint was being written"
    );

    let mut last = Trainer::start(&scratch, STEPS);
    while last.next().is_some() {}
    assert!(last.process.wait().unwrap().success());
    let mut end = Run::new();
    end.restore(&Checkpoint::load(scratch.file()).unwrap()).unwrap();
    assert_eq!(end.position, whole.position);
    assert!(end.bytes() == whole.bytes(), "the runs differ");
}
