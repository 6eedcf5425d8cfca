//! Event files that TensorBoard shows: scalars over the steps.
//!
//! Deliberately no more than that: no images, histograms or graphs. The format is that of a TFRecord file
//! whose records are `tensorflow.Event` messages.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use autograd::{Error, Result};

use crate::files::io_error;
use crate::history::History;

/// Writes scalars to an event file. `torch.utils.tensorboard.SummaryWriter`.
///
/// Each scalar is in the file when its call returns, in a record with checksums: a kill at any moment costs
/// at most the record at hand, which readers leave out. The file is new; TensorBoard shows all files of a
/// directory as one run, so that a resumed run goes on in a file of its own.
///
/// # Examples
/// ```
/// use nn::tensorboard::SummaryWriter;
/// let run = std::env::temp_dir().join(format!("tensorboard-doc-{}", std::process::id()));
/// let mut writer = SummaryWriter::new(&run)?;
/// for step in 0..10 {
///     writer.add_scalar("loss/train", 1.0 / (1.0 + step as f64), step)?;
/// }
/// let name = writer.path().file_name().unwrap().to_string_lossy().into_owned();
/// assert!(name.starts_with("events.out.tfevents."));
/// # std::fs::remove_dir_all(&run)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SummaryWriter {
    file: File,
    path: PathBuf,
}

impl SummaryWriter {
    /// A new event file `events.out.tfevents.<seconds>.<host>` in `directory`, which is made where it is not
    /// there. The time is that of the system; where a file has the name already, a number is added to it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn new(directory: impl AsRef<Path>) -> Result<Self> {
        SummaryWriter::at(directory.as_ref(), &host(), now())
    }

    fn at(directory: &Path, host: &str, time: f64) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(io_error(directory))?;
        let name = format!("events.out.tfevents.{:010}.{host}", time as u64);
        let (file, path) = create_new(directory, &name)?;
        let mut writer = SummaryWriter { file, path };
        writer.write(&version(time))?;
        Ok(writer)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a value of `tag`, as an f32; a tag `a/b` is shown in the group `a`. Its time is that of the
    /// system.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidArgument`] for a step that no i64 holds.
    pub fn add_scalar(&mut self, tag: &str, value: f64, step: u64) -> Result<()> {
        self.add_scalars(&[(tag, value)], step)
    }

    /// Writes values of several tags at one step, as one record.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidArgument`] for a step that no i64 holds.
    ///
    /// # Examples
    /// ```
    /// # let run = std::env::temp_dir().join(format!("tensorboard-more-{}", std::process::id()));
    /// let mut writer = nn::tensorboard::SummaryWriter::new(&run)?;
    /// writer.add_scalars(&[("loss", 0.5), ("accuracy", 0.9)], 1)?;
    /// let error = writer.add_scalar("loss", 0.4, u64::MAX).unwrap_err().to_string();
    /// assert_eq!(error, "SummaryWriter: step must be below 2⁶³, found 18446744073709551615");
    /// # std::fs::remove_dir_all(&run)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_scalars(&mut self, values: &[(&str, f64)], step: u64) -> Result<()> {
        self.add_scalars_at(values, step, now())
    }

    fn add_scalars_at(&mut self, values: &[(&str, f64)], step: u64, time: f64) -> Result<()> {
        if i64::try_from(step).is_err() {
            let reason = format!("must be below 2⁶³, found {step}");
            return Err(Error::InvalidArgument { op: "SummaryWriter", name: "step", reason });
        }
        self.write(&scalars(values, step, time))
    }

    /// Writes all that a history holds, each value with the time of the system.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidArgument`] for a step that no i64 holds.
    ///
    /// # Examples
    /// ```
    /// # let run = std::env::temp_dir().join(format!("tensorboard-all-{}", std::process::id()));
    /// let mut history = nn::History::new();
    /// history.record(1, &[("loss", 0.5), ("accuracy", 0.9)])?;
    /// let mut writer = nn::tensorboard::SummaryWriter::new(&run)?;
    /// writer.add_history(&history)?;
    /// assert_eq!(std::fs::metadata(writer.path())?.len(), 40 + 59); // the version, and one record
    /// # std::fs::remove_dir_all(&run)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_history(&mut self, history: &History) -> Result<()> {
        history.steps().try_for_each(|(step, values)| self.add_scalars(&values, step))
    }

    /// Writes a record at once: one `write`, so that two programs' records do not mix.
    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event)).map_err(io_error(&self.path))
    }
}

/// A file that was not there.
fn create_new(directory: &Path, name: &str) -> Result<(File, PathBuf)> {
    let mut count = 0_u32;
    loop {
        let suffix = if count == 0 { String::new() } else { format!(".{count}") };
        let path = directory.join(format!("{name}{suffix}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && count < 10_000 => count += 1,
            Err(e) => return Err(io_error(&path)(e)),
        }
    }
}

/// The name of this computer, as far as a file name can have it.
fn host() -> String {
    let name = std::fs::read_to_string("/etc/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").or(std::env::var("COMPUTERNAME")).ok());
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.unwrap_or_default().trim().chars().filter(plain).take(64).collect();
    if name.is_empty() { "localhost".into() } else { name }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// A TFRecord: length, checksum of the length, data, checksum of the data.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let checksum = |bytes: &[u8]| masked(crc32c(bytes)).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}

/// CRC-32C (Castagnoli), of RFC 3720 §B.4, by bits.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}

/// The checksum as TFRecord stores it: turned and moved, so that a checksum of data with checksums is no
/// trivial one.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// `Event { wall_time, file_version: "brain.Event:2" }`: the first of a file.
fn version(time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, time).bytes(3, b"brain.Event:2");
    event.0
}

/// `Event { wall_time, step, summary: Summary { value: [Value { tag, simple_value }] } }`.
fn scalars(values: &[(&str, f64)], step: u64, time: f64) -> Vec<u8> {
    let (mut event, mut summary) = (Message::default(), Message::default());
    for (tag, value) in values {
        let mut entry = Message::default();
        entry.bytes(1, tag.as_bytes()).float(2, *value as f32);
        summary.bytes(1, &entry.0);
    }
    event.double(1, time);
    // A number of 0 is left out, as protobuf does.
    if step != 0 {
        event.varint(2, step);
    }
    event.bytes(5, &summary.0);
    event.0
}

/// A protobuf message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, field: u64, value: u64) -> &mut Self {
        self.key(field, 0).number(value)
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.key(field, 1).0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.key(field, 2).number(bytes.len() as u64).0.extend(bytes);
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Self {
        self.key(field, 5).0.extend(value.to_le_bytes());
        self
    }

    fn key(&mut self, field: u64, wire_type: u64) -> &mut Self {
        self.number(field << 3 | wire_type)
    }

    /// Seven bits a byte, the low ones first.
    fn number(&mut self, mut n: u64) -> &mut Self {
        while n >= 0x80 {
            self.0.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("gradus-tensorboard-{}-{name}", std::process::id()))
    }

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(crc32c(b""), 0);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&rising), 0x46dd_794e);
    }

    #[test]
    fn a_file_has_the_bytes_that_tensorboard_writes() {
        let directory = directory("bytes");
        let mut writer = SummaryWriter::at(&directory, "host", 1_700_000_000.25).unwrap();
        assert!(writer.path().ends_with("events.out.tfevents.1700000000.host"));
        let mut add =
            |values: &[(&str, f64)], step, time| writer.add_scalars_at(values, step, time);
        add(&[("loss/train", 2.5)], 0, 1_700_000_001.0).unwrap();
        add(&[("loss/train", 0.1), ("größe", -3.0)], 1, 1_700_000_002.5).unwrap();
        add(&[("loss/train", f64::NAN), ("x", f64::INFINITY)], 300, 1_700_000_003.0).unwrap();
        add(&[("zero", 0.0)], i64::MAX as u64, 1_700_000_004.0).unwrap();
        add(&[(&"long ".repeat(60), 1e-3)], 1 << 40, 1_700_000_005.0).unwrap();
        // Made by TensorBoard's own classes: tests/data/make_events.py.
        let want = include_bytes!("../tests/data/events.out.tfevents.1700000000.host");
        assert_eq!(std::fs::read(writer.path()).unwrap(), want);
        let second = SummaryWriter::at(&directory, "host", 1_700_000_000.9).unwrap();
        assert!(second.path().ends_with("events.out.tfevents.1700000000.host.1"));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_made_is_an_error() {
        let path = directory("file");
        std::fs::write(&path, b"mine").unwrap();
        assert!(matches!(SummaryWriter::new(&path), Err(Error::Io { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        std::fs::remove_file(path).unwrap();
        assert!(!host().is_empty() && now() > 1.7e9);
    }
}
