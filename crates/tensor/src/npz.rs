//! NumPy's `.npz` files: named arrays in one zip archive, each as an [`npy`](crate::npy) file.
//!
//! Reads what `numpy.savez` and `numpy.savez_compressed` write, and writes like the latter. Reads
//! whole archives: deliberately not a lazy mapping, and no way to unpack anything onto a disk.
//!
//! An archive is not trusted. An entry that claims more than deflate can hold is refused before it
//! is unpacked, memory grows only with the data that arrive, and the checksum is compared.

use std::collections::HashSet;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;

use zip::read::ZipFile;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::{Error, Result};
use crate::files::write_atomically_with;
use crate::npy::{Array, Header, Problem, open};

/// Deflate's densest code is two bits for 258 bytes.
const MAX_DEFLATE_RATIO: u64 = 1032;
/// A little less than zip has room for beside its own fields.
const MAX_NAME: usize = 65_000;
const EXTENSION: &str = ".npy";

/// Reads all arrays of an archive, in its order, with their names. `numpy.load`.
///
/// A name is what the archive says, without the `.npy`; it may look like a path, and is not one.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`], naming the entry, for everything that
/// [`npy::read_any`](crate::npy::read_any) refuses, for entries that are no arrays, that are
/// encrypted, or compressed otherwise than by deflate, and for wrong sizes and checksums.
///
/// # Examples
/// ```
/// use tensor::{Tensor, npy::Array, npz};
/// # fn main() -> tensor::Result<()> {
/// let x = Tensor::from_vec(vec![1.0_f32, 2.0], [2])?;
/// let y = Tensor::from_vec(vec![7_i64], [1])?;
/// let path = std::env::temp_dir().join(format!("tensor-doc-{}.npz", std::process::id()));
/// npz::write(&path, [("x", Array::from(&x)), ("y", Array::from(&y))])?;
/// for (name, array) in npz::read(&path)? {
///     match array {
///         Array::F32(x) => assert_eq!((&name[..], x.to_vec()), ("x", vec![1.0, 2.0])),
///         Array::I64(y) => assert_eq!((&name[..], y.to_vec()), ("y", vec![7])),
///         other => panic!("{name} holds {}", other.dtype()),
///     }
/// }
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub fn read(path: impl AsRef<Path>) -> Result<Vec<(String, Array)>> {
    open(path.as_ref(), |file, _| read_archive(BufReader::new(file)))
}

/// Writes arrays under names, compressed, atomically: `path` is either as it was or complete.
/// `numpy.savez_compressed`, except that no extension is added to `path`.
///
/// Takes tensors, or [`Array`]s where the types differ; see [`read`].
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidArgument`] for a name that comes twice, is longer than 65,000
/// bytes or has a NUL in it, and for a rank above 64.
///
/// # Examples
/// ```
/// use tensor::{Tensor, npz};
/// # fn main() -> tensor::Result<()> {
/// let (w, b) = (Tensor::<f32>::ones([2, 3])?, Tensor::<f32>::zeros([3])?);
/// let path = std::env::temp_dir().join(format!("tensor-doc-w-{}.npz", std::process::id()));
/// npz::write(&path, [("w", &w), ("b", &b)])?;
/// let names: Vec<String> = npz::read(&path)?.into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["w", "b"]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub fn write<N: AsRef<str>, A: Into<Array>>(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (N, A)>,
) -> Result<()> {
    let invalid = |reason| Error::InvalidArgument { op: "npz::write", name: "arrays", reason };
    let mut entries = Vec::new();
    let mut names = HashSet::new();
    for (name, array) in arrays {
        let (name, array) = (name.as_ref(), array.into());
        if name.len() > MAX_NAME {
            return Err(invalid(format!("have a name of {} bytes", name.len())));
        }
        if name.contains('\0') {
            return Err(invalid(format!("have a name with a NUL: {name:?}")));
        }
        if !names.insert(name.to_owned()) {
            return Err(invalid(format!("have the name {name:?} twice")));
        }
        entries.push((format!("{name}{EXTENSION}"), array.header("npz::write")?, array));
    }
    write_atomically_with(path, |file| {
        let mut archive = ZipWriter::new(BufWriter::new(file));
        for (name, header, array) in &entries {
            // Room for sizes of 64 bits, as NumPy leaves it: how small it gets is not known yet.
            let options = SimpleFileOptions::default()
                .compression_method(CompressionMethod::Deflated)
                .large_file(true);
            archive.start_file(name, options)?;
            array.write_parts(&mut archive, header)?;
        }
        archive.finish()?.flush()
    })
}

fn read_archive(source: impl Read + Seek) -> Result<Vec<(String, Array)>, Problem> {
    let mut archive = ZipArchive::new(source).map_err(zip_problem)?;
    if archive.has_duplicate_names() {
        return Err("has two entries of one name".to_owned().into());
    }
    // They would unpack the same bytes many times. Without, no entry is longer than the file.
    if archive.has_overlapping_entries().map_err(zip_problem)? {
        return Err("has entries that overlap".to_owned().into());
    }
    let mut arrays = Vec::new();
    for i in 0..archive.len() {
        let name = match archive.name_for_index(i) {
            Some(Ok(name)) => name.into_owned(),
            _ => return Err(format!("entry {i} has an unreadable name").into()),
        };
        let within = |problem| match problem {
            Problem::Format(reason) => Problem::Format(format!("entry {name:?}: {reason}")),
            io => io,
        };
        let mut entry = archive.by_index(i).map_err(|e| within(zip_problem(e)))?;
        let Some(stem) = name.strip_suffix(EXTENSION) else {
            return Err(within(format!("is not named like an array, *{EXTENSION}").into()));
        };
        arrays.push((stem.to_owned(), read_entry(&mut entry).map_err(within)?));
    }
    Ok(arrays)
}

fn read_entry<R: Read + Seek>(entry: &mut ZipFile<'_, R>) -> Result<Array, Problem> {
    let (packed, size) = (entry.compressed_size(), entry.size());
    let most = match entry.compression() {
        CompressionMethod::Stored => packed,
        CompressionMethod::Deflated => packed.saturating_mul(MAX_DEFLATE_RATIO),
        other => return Err(format!("is compressed by {other}, not by deflate").into()),
    };
    if size > most {
        let reason = format!("claims {size} bytes, and {packed} packed ones hold at most {most}");
        return Err(reason.into());
    }
    let header = Header::read(entry, size).map_err(data_problem)?;
    let need = header.data_bytes() as u64;
    let mut bytes = Vec::new();
    // Asking for one more meets the end, where the checksum is compared.
    let read = entry.by_ref().take(need + 1).read_to_end(&mut bytes);
    let found = read.map_err(|e| data_problem(e.into()))? as u64;
    if found != need {
        return Err(format!("unpacks to {found} bytes of data, not {need}").into());
    }
    header.array(&mut &bytes[..])
}

fn zip_problem(error: ZipError) -> Problem {
    match error {
        ZipError::Io(source) => data_problem(source.into()),
        other => Problem::Format(format!("is not readable as a zip archive: {other}")),
    }
}

/// Tells an error of the operating system from one that the unpacker makes of bad data.
fn data_problem(problem: Problem) -> Problem {
    match problem {
        Problem::Io(e) if e.raw_os_error().is_none() => {
            Problem::Format(format!("cannot be unpacked: {e}"))
        }
        other => other,
    }
}
