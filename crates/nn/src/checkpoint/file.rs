//! What a checkpoint is in a file.
//!
//! A safetensors file with the names of [`StateDict`], `PART.` before each; `generator.NAME` of 56
//! bytes; and last `checksum`, a number made of every byte before it. Format, version, element type,
//! parts, position and metadata are texts of `__metadata__`.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use autograd::{Float, Result, Tensor};
use tensor::GeneratorState;

use super::{Checkpoint, GENERATOR, Position};
use crate::files::write_atomically_with;
use crate::optim::StateDict;
use crate::tensor_file::{Contents, Entry, header, sort, tensor};

const FORMAT: &str = "gradus.checkpoint";
const VERSION: &str = "1";
const CHECKSUM: &str = "checksum";
/// What the keys of the user's metadata begin with.
const METADATA: &str = "metadata.";

impl<T: Float> Checkpoint<T> {
    /// Writes the checkpoint to a file; a kill at any moment, or a disk that is full, leaves the old file
    /// or the new. What a kill leaves beside it, `NAME.….tmp`, is nothing that is read.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io); the file is then as it was.
    ///
    /// # Examples
    /// See [`Checkpoint`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomically_with(path, |file| {
            let mut out = BufWriter::new(file);
            self.write_to(&mut out)?;
            out.flush()
        })
    }

    /// Writes what the file would hold. The same checkpoint gives the same bytes.
    ///
    /// # Errors
    /// Those of `out`, and one where the names are none of the format's.
    ///
    /// # Examples
    /// ```
    /// use nn::{Checkpoint, Position};
    /// let checkpoint = Checkpoint::<f32>::new().with_position(Position::default());
    /// let mut bytes = Vec::new();
    /// checkpoint.write_to(&mut bytes)?;
    /// let text = String::from_utf8_lossy(&bytes);
    /// assert!(text.contains(r#""format":"gradus.checkpoint""#));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut entries = self.entries()?;
        sort(&mut entries);
        entries.push(Entry::later(CHECKSUM.to_owned()));
        let header = header(&entries, &self.texts()).map_err(io::Error::other)?;
        let mut out = Summed { out, sum: Checksum::default() };
        out.write_all(&header)?;
        entries.iter().try_for_each(|entry| entry.write_to(&mut out))?;
        let sum = out.sum.finish();
        out.out.write_all(&sum.to_le_bytes())
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut all = StateDict::default();
        self.parts.iter().for_each(|(part, state)| all.insert(part, state.clone()));
        let mut entries: Vec<Entry> = all.entries().collect();
        for (name, state) in &self.generators {
            let bytes = state.to_bytes();
            let bytes = Tensor::from_slice(&bytes, [bytes.len()]).map_err(io::Error::other)?;
            entries.push(Entry::new(format!("{GENERATOR}.{name}"), &bytes));
        }
        Ok(entries)
    }

    fn texts(&self) -> BTreeMap<String, String> {
        let Position { epoch, batch, step } = self.position;
        let parts: Vec<_> = self.parts.keys().map(String::as_str).collect();
        let fixed = [
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("elements", T::NAME.to_owned()),
            ("parts", parts.join(" ")),
            ("position.epoch", epoch.to_string()),
            ("position.batch", batch.to_string()),
            ("position.step", step.to_string()),
        ];
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|(key, text)| (format!("{METADATA}{key}"), text.clone()));
        fixed.map(|(key, text)| (key.to_owned(), text)).into_iter().chain(metadata).collect()
    }
}

/// The checkpoint in a file, or why it is none.
pub(super) fn decode<T: Float>(file: &Contents<'_>) -> Result<Checkpoint<T>, String> {
    for (key, want) in [("format", FORMAT), ("version", VERSION), ("elements", T::NAME)] {
        let found = file.metadata.get(key).map(String::as_str);
        if found != Some(want) {
            let found = found.map_or("not given".to_owned(), |text| format!("{text:?}"));
            return Err(format!(
                "is no checkpoint to load here: {key} is {found}, expected {want:?}"
            ));
        }
    }
    check_sum(file)?;
    let count = |key: &str| {
        let text = text(file, key)?;
        text.parse::<u64>().map_err(|_| format!("{key} is {text:?}, expected a whole number"))
    };
    let position = Position {
        epoch: count("position.epoch")?,
        batch: count("position.batch")?,
        step: count("position.step")?,
    };
    let (mut all, mut generators) = (StateDict::default(), BTreeMap::new());
    for (name, view) in &file.tensors {
        if let Some(generator) = name.strip_prefix(GENERATOR).and_then(|n| n.strip_prefix('.')) {
            let bytes = tensor::<u8>(name, view)?.to_vec();
            let state = GeneratorState::from_bytes(&bytes).map_err(|e| format!("{name}: {e}"))?;
            generators.insert(generator.to_owned(), state);
        } else if name != CHECKSUM {
            all.take(name, view)?;
        }
    }
    let part = |part: &str| (part.to_owned(), all.scope(part));
    let parts: BTreeMap<_, _> = text(file, "parts")?.split_whitespace().map(part).collect();
    let of_a_part =
        |name: &&String| name.split_once('.').is_some_and(|(part, _)| parts.contains_key(part));
    if let Some(name) = all.tensors.keys().chain(all.numbers.keys()).find(|name| !of_a_part(name)) {
        return Err(format!("{name} is unexpected, for it belongs to no part"));
    }
    let metadata = file.metadata.iter();
    let metadata = metadata
        .filter_map(|(key, text)| Some((key.strip_prefix(METADATA)?.to_owned(), text.clone())))
        .collect();
    Ok(Checkpoint { parts, generators, position, metadata })
}

fn text<'a>(file: &'a Contents<'_>, key: &str) -> Result<&'a str, String> {
    file.metadata.get(key).map(String::as_str).ok_or_else(|| format!("{key} is missing"))
}

fn check_sum(file: &Contents<'_>) -> Result<(), String> {
    let view = file.tensors.get(CHECKSUM).ok_or_else(|| format!("{CHECKSUM} is missing"))?;
    let found = view.data().try_into().map(u64::from_le_bytes);
    let mut sum = Checksum::default();
    sum.update(&file.bytes[..file.bytes.len().saturating_sub(view.data().len())]);
    let expected = sum.finish();
    match found {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(format!("{CHECKSUM} is {found:016x}, expected {expected:016x}: damaged")),
        Err(_) => Err(format!("{CHECKSUM} has {} bytes, expected 8", view.data().len())),
    }
}

/// A number of all bytes, taken as words `w` of 8: `s ← (s rotated by 23 ⊕ w)·odd`.
///
/// Each step is one to one in `s` and in `w`, so that a change within one word always shows, and other
/// damage as good as always. It is no defence against somebody who means harm.
#[derive(Default)]
struct Checksum {
    state: u64,
    /// The bytes of a word that is not whole yet.
    word: [u8; 8],
    filled: usize,
}

impl Checksum {
    fn update(&mut self, mut bytes: &[u8]) {
        while self.filled > 0 {
            let Some((&first, rest)) = bytes.split_first() else { return };
            self.push(first);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.step(*word));
        rest.iter().for_each(|&byte| self.push(byte));
    }

    fn push(&mut self, byte: u8) {
        self.word[self.filled] = byte;
        self.filled += 1;
        if self.filled == self.word.len() {
            self.step(self.word);
            self.filled = 0;
        }
    }

    fn step(&mut self, word: [u8; 8]) {
        let mixed = self.state.rotate_left(23) ^ u64::from_le_bytes(word);
        self.state = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// With zeros after the last byte.
    fn finish(mut self) -> u64 {
        while self.filled > 0 {
            self.push(0);
        }
        self.state
    }
}

/// Writes on, and adds up.
struct Summed<'a> {
    out: &'a mut dyn Write,
    sum: Checksum,
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.sum.update(bytes.get(..n).unwrap_or(bytes));
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_does_not_depend_on_how_bytes_arrive() {
        let bytes: Vec<u8> = (0..61_u8).map(|i| i.wrapping_mul(37) ^ 5).collect();
        let of = |size: usize| {
            let mut sum = Checksum::default();
            bytes.chunks(size).for_each(|chunk| sum.update(chunk));
            sum.finish()
        };
        let whole = of(bytes.len());
        assert!((1..bytes.len()).all(|size| of(size) == whole));
        assert_ne!(whole, 0);
    }

    #[test]
    fn a_checksum_sees_every_bit() {
        let bytes = [7; 29];
        let of = |bytes: &[u8]| {
            let mut sum = Checksum::default();
            sum.update(bytes);
            sum.finish()
        };
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut other = bytes;
            other[at] ^= 1 << bit;
            assert_ne!(of(&other), of(&bytes), "bit {bit} of byte {at}");
        }
    }
}
