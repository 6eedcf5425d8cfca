//! The `mlp` example as a command: what it prints and writes, what it refuses, and how it stops.
//!
//! `cargo test` builds examples before it runs tests. With `--test mlp_cli` it does not: run
//! `cargo build --example mlp` before that.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nn::prelude::*;

/// A directory that goes when its test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("gradus-mlp-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.join(name)).unwrap()
    }

    /// The sorted names in a directory; none where there is no directory.
    fn list(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.join(name)).into_iter().flatten();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
    }

    /// The example with `line` for arguments, in this directory.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(example());
        command.args(line.split_whitespace()).current_dir(&self.0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, line: &str) -> Run {
        Run::new(self.command(line).output().unwrap())
    }

    /// The run ends with code 2, a sentence with all `words`, and `out` as it was.
    fn refuses(&self, line: &str, words: &[&str]) {
        let before = self.list("out");
        let run = self.run(&format!("{line} --epochs 1 --out out"));
        run.is_error(words);
        assert_eq!(self.list("out"), before, "{run:?}");
    }

    fn assert_complete(&self, out: &str) {
        assert_eq!(self.list(out), ["curve.svg", "weights.safetensors"]);
        let mut model = model(64);
        load_safetensors(&mut model, self.0.join(out).join("weights.safetensors")).unwrap();
        let svg = String::from_utf8(self.read(&format!("{out}/curve.svg"))).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["training loss (nats)", "accuracy (%)", "epoch", "training", "test"] {
            assert!(svg.lines().any(|line| line == text), "no {text:?} in the picture");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    fn new(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        let run = Run { code: output.status.code(), stdout, stderr };
        assert!(!run.stderr.contains("panicked"), "{run:?}");
        run
    }

    fn lines(&self, start: &str) -> usize {
        self.stdout.lines().filter(|line| line.starts_with(start)).count()
    }

    fn is_error(&self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert_eq!(self.stderr.matches("error: ").count(), 1, "{self:?}");
        assert!(words.iter().all(|word| self.stderr.contains(word)), "{words:?} not in {self:?}");
    }
}

/// The example that was built with this test.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let name = format!("mlp{}", std::env::consts::EXE_SUFFIX);
    let path = test.ancestors().nth(2).unwrap().join("examples").join(name);
    let changed = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/mlp.rs");
    assert!(changed(&path) >= changed(&source), "run `cargo build --example mlp`");
    path
}

fn model(inputs: usize) -> Sequential<f32> {
    let mut rng = Generator::new(99);
    let mut linear = |i, o| Linear::new(i, o, &mut rng).unwrap();
    let model = Sequential::new().append(linear(inputs, 128)).append(ReLU::new());
    model.append(linear(128, 64)).append(ReLU::new()).append(linear(64, 10))
}

#[test]
fn trains_reports_and_writes() {
    let scratch = Scratch::new("trains");
    let run = scratch.run("--epochs 2");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
    assert_eq!((run.lines("epoch "), run.lines("epoch 2/2  loss ")), (2, 1), "{run:?}");
    for start in ["test accuracy ", "rows per second ", "true\\pred  0  1", "        9 "] {
        assert_eq!(run.lines(start), 1, "{start:?} {run:?}");
    }
    let out = Path::new("runs/mlp");
    let (weights, curve) = (out.join("weights.safetensors"), out.join("curve.svg"));
    let wrote = format!("wrote {} and {}", weights.display(), curve.display());
    assert_eq!(run.lines(&wrote), 1, "{run:?}");
    scratch.assert_complete("runs/mlp");
}

#[test]
fn the_seed_decides_every_byte_whatever_the_threads() {
    let scratch = Scratch::new("seed");
    let weights = |out: &str, seed: u64, threads: &str| {
        let line = format!("--epochs 3 --seed {seed} --out {out}");
        let output = scratch.command(&line).env("RAYON_NUM_THREADS", threads).output().unwrap();
        assert_eq!(Run::new(output).code, Some(0));
        scratch.read(&format!("{out}/weights.safetensors"))
    };
    let one = weights("a", 7, "1");
    assert!(one == weights("b", 7, "2"));
    assert!(one != weights("c", 8, "1"));
}

#[test]
fn help_lists_every_option() {
    let run = Scratch::new("help").run("--help");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let options = "epochs lr batch-size optimizer label-smoothing noise seed out data mnist";
    for option in options.split(' ') {
        assert!(run.stdout.contains(&format!("--{option} <")), "{option} {run:?}");
    }
}

#[test]
fn bad_options_are_refused_in_a_sentence() {
    let scratch = Scratch::new("options");
    for (line, word) in [
        ("--nope", "--nope"),
        ("--label-smoothing 1.5", "must be in [0, 1], found 1.5"),
        ("--label-smoothing -0.1", "must be in [0, 1], found -0.1"),
        ("--lr nan", "lr must be finite"),
        ("--lr -1", "lr must be finite and not negative"),
        ("--lr x", "--lr"),
        ("--batch-size 0", "batch_size must be at least 1"),
        ("--noise -1", "noise must be finite and not negative"),
        ("--noise 1e39", "noise must be finite"),
        ("--seed -1", "--seed"),
        ("--optimizer lion", "sgd, adam, adamw"),
        ("--data a --mnist b", "cannot be used with"),
    ] {
        scratch.refuses(line, &[word]);
    }
    scratch.run("--epochs 0 --out out").is_error(&["--epochs"]);
}

#[test]
fn a_diverging_run_ends_in_a_sentence_and_leaves_older_weights() {
    let scratch = Scratch::new("diverges");
    scratch.write("out/weights.safetensors", b"older");
    scratch.refuses("--optimizer sgd --lr 1e30", &["lr made the loss", "in epoch 1"]);
    // One step, whose loss is still that of the first weights.
    scratch.refuses("--optimizer sgd --lr 1e39 --batch-size 9999", &["lr made weights infinite"]);
    assert_eq!(scratch.read("out/weights.safetensors"), b"older");
}

#[test]
fn csv_files_are_read_or_refused_with_their_place() {
    let scratch = Scratch::new("csv");
    let row = |label: &str| "0,16,".repeat(32) + label + "\n";
    let good: String = (0..50).map(|i| row(&(i % 10).to_string())).collect();
    scratch.write("good.csv", good.as_bytes());
    assert_eq!(scratch.run("--data good.csv --epochs 1 --out good").code, Some(0));

    let mut invalid = row("1").into_bytes();
    invalid[0] = 0xff;
    for (name, second, words) in [
        ("short", b"0,1,2\n".to_vec(), "short.csv:2:3: 3 columns, expected 65"),
        ("long", row("1,1").into_bytes(), "long.csv:2:65: 66 columns, expected 65"),
        ("letter", row("1").replacen("16", "b", 1).into_bytes(), "letter.csv:2:2: \"b\""),
        ("nan", row("1").replacen("16", "NaN", 1).into_bytes(), "nan.csv:2:2: \"NaN\""),
        ("ten", row("10").into_bytes(), "ten.csv:2:65: label \"10\""),
        ("minus", row("-1").into_bytes(), "minus.csv:2:65: label \"-1\""),
        ("bytes", invalid, "bytes.csv:2:"),
    ] {
        scratch.write(&format!("{name}.csv"), &[row("0").as_bytes(), &second].concat());
        scratch.refuses(&format!("--data {name}.csv"), &[words]);
    }
    scratch.write("empty.csv", b"");
    fs::create_dir(scratch.0.join("directory.csv")).unwrap();
    for name in ["empty.csv", "missing.csv", "directory.csv"] {
        scratch.refuses(&format!("--data {name}"), &[&format!("{name}: ")]);
    }
}

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

fn idx(sizes: &[u32], data: Vec<u8>) -> Vec<u8> {
    let sizes_bytes = sizes.iter().flat_map(|s| s.to_be_bytes());
    [0, 0, 8, sizes.len() as u8].into_iter().chain(sizes_bytes).chain(data).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn mnist_files_are_read_or_refused_by_name() {
    let scratch = Scratch::new("mnist");
    let images = idx(&[20, 4, 4], (0..320).map(|i| (i % 256) as u8).collect());
    let labels = idx(&[20], (0..20).map(|i| i % 10).collect());
    let fill = |dir: &str, packed: bool| {
        for part in ["train", "t10k"] {
            for (kind, bytes) in [("images-idx3", &images), ("labels-idx1", &labels)] {
                let (end, bytes) = if packed { (".gz", gzip(bytes)) } else { ("", bytes.clone()) };
                scratch.write(&format!("{dir}/{part}-{kind}-ubyte{end}"), &bytes);
            }
        }
    };
    for (dir, packed) in [("plain", false), ("packed", true)] {
        fill(dir, packed);
        let run = scratch.run(&format!("--mnist {dir} --epochs 2 --batch-size 8 --out {dir}-out"));
        assert_eq!((run.code, run.lines("16-128-64-10: ")), (Some(0), 1), "{run:?}");
        let weights = scratch.0.join(format!("{dir}-out/weights.safetensors"));
        load_safetensors(&mut model(16), weights).unwrap();
    }

    for (dir, file, bytes, word) in [
        ("cut", IMAGES, images[..100].to_vec(), "ends within the data"),
        ("header", LABELS, labels[..6].to_vec(), "ends within the sizes"),
        ("magic", IMAGES, [&[0, 0, 13], &images[3..]].concat(), "magic number"),
        ("csv", LABELS, b"1,2,3\n".to_vec(), "magic number"),
        ("label", LABELS, [&labels[..27], &[10]].concat(), "label 10 of image 19"),
        ("fewer", LABELS, idx(&[19], vec![1; 19]), "for 20 images"),
        ("half", IMAGES, gzip(&images)[..60].to_vec(), "not readable"),
    ] {
        fill(dir, false);
        scratch.write(&format!("{dir}/{file}"), &bytes);
        scratch.refuses(&format!("--mnist {dir}"), &[file, word]);
    }
    for file in [IMAGES, LABELS, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"] {
        let dir = format!("without-{file}");
        fill(&dir, false);
        fs::remove_file(scratch.0.join(&dir).join(file)).unwrap();
        scratch.refuses(&format!("--mnist {dir}"), &[&format!("{file}: ")]);
    }
}

#[test]
fn an_output_that_cannot_be_written_is_refused_first() {
    let scratch = Scratch::new("out");
    scratch.write("file", b"mine");
    for out in ["file", "file/below"] {
        let run = scratch.run(&format!("--epochs 1 --out {out}"));
        run.is_error(&[&format!("{out}: ")]);
        assert_eq!(run.stdout, "", "{run:?}");
    }
    assert_eq!((scratch.list("."), scratch.read("file")), (vec!["file".into()], b"mine".to_vec()));
}

#[test]
fn a_reader_that_goes_away_does_not_end_the_run() {
    let scratch = Scratch::new("pipe");
    let mut child = scratch.command("--epochs 2 --out out").spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::new(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(0), "{run:?}");
    scratch.assert_complete("out");
}

#[cfg(unix)]
#[test]
fn a_failing_write_leaves_older_weights() {
    let scratch = Scratch::new("full");
    scratch.write("out/weights.safetensors", b"older");
    // No file may grow beyond 8 blocks, which is less than the weights need.
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -f 8; trap '' XFSZ; exec \"$0\" --epochs 1 --out out"]);
    let output = shell.arg(example()).current_dir(&scratch.0).output().unwrap();
    Run::new(output).is_error(&["weights.safetensors: "]);
    assert_eq!(scratch.list("out"), ["weights.safetensors"]);
    assert_eq!(scratch.read("out/weights.safetensors"), b"older");
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_what_was_learnt() {
    let scratch = Scratch::new("ctrl-c");
    let mut running = Running(scratch.command("--epochs 1000000 --out out").spawn().unwrap());
    let mut stdout = BufReader::new(running.0.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("epoch 1/1000000 ") {
        assert!(stdout.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let kill = Command::new("kill").args(["-INT", &running.0.id().to_string()]).status();
    assert!(kill.unwrap().success());
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(130), "{text}");
    assert!(text.contains("\ntest accuracy ") && text.contains("true\\pred"), "{text}");
    let mut stderr = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert!(stderr.starts_with("mlp: interrupted after "), "{stderr}");
    scratch.assert_complete("out");
}
