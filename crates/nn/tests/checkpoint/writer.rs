//! A disk that is full after n bytes leaves the checkpoint before readable, for every n.

use std::fs;
use std::io::{self, Write};

use nn::{Checkpoint, Error, write_atomically_with};

use super::{Run, Scratch, bytes};

/// Takes `left` bytes, some at a time, and then none.
struct Full<'a> {
    out: &'a mut dyn Write,
    left: usize,
}

impl Write for Full<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let n = self.out.write(&bytes[..bytes.len().min(self.left).min(509)])?;
        self.left -= n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[test]
fn a_writer_that_fails_leaves_the_old_checkpoint() {
    let scratch = Scratch::new("full");
    let path = scratch.file();
    let mut run = Run::new();
    run.train(2, |_| {});
    run.save(&path).unwrap();
    let old = fs::read(&path).unwrap();
    run.train(3, |_| {});
    let new = run.checkpoint().unwrap();
    let size = bytes(&new).len();
    for left in 0..size {
        let failed =
            write_atomically_with(&path, |file| new.write_to(&mut Full { out: file, left }));
        assert!(matches!(failed, Err(Error::Io { .. })), "{left}");
        assert!(fs::read(&path).unwrap() == old, "{left}");
    }
    assert_eq!(Checkpoint::<f32>::load(&path).unwrap().position().step, 2);
    assert_eq!(scratch.names(), ["run.safetensors"]); // nothing is left beside it
    let all = |file: &mut fs::File| new.write_to(&mut Full { out: file, left: size });
    write_atomically_with(&path, all).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes(&new));
}

/// What a kill after n bytes leaves: the temporary file, beside the old checkpoint.
#[test]
fn what_a_kill_leaves_is_not_read() {
    let scratch = Scratch::new("left");
    let run = Run::new();
    run.save(&scratch.file()).unwrap();
    fs::write(scratch.0.join("run.safetensors.1.0.tmp"), b"half a che").unwrap();
    assert_eq!(bytes(&Checkpoint::load(scratch.file()).unwrap()), run.bytes());
    run.save(&scratch.file()).unwrap();
}

#[test]
fn a_path_that_cannot_be_written_is_an_error() {
    let scratch = Scratch::new("nowhere");
    let nowhere = scratch.0.join("no/such/directory/run.safetensors");
    assert!(matches!(Run::new().save(&nowhere), Err(Error::Io { .. })));
}
