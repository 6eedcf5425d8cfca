//! Writing files so that a kill at any moment leaves the old content or the new.
//!
//! Deliberately not a virtual file system, and no format: those are [`npy`](crate::npy) and others.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Result};

/// Wraps an error of the operating system with the path it is about.
pub fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// Writes `bytes` to a temporary file beside `path`, syncs it, and renames it to `path`.
///
/// # Errors
/// [`Error::Io`]; `path` is then as it was.
///
/// # Examples
/// ```
/// let path = std::env::temp_dir().join(format!("tensor-doc-{}.txt", std::process::id()));
/// tensor::files::write_atomically(&path, b"all or nothing")?;
/// assert_eq!(std::fs::read(&path)?, b"all or nothing");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] of what `write` puts into the temporary file, piece by piece. A buffer of its own
/// is `write`'s to flush.
///
/// # Errors
/// [`Error::Io`], that of `write` too; `path` is then as it was.
///
/// # Examples
/// ```
/// use std::io::Write;
/// let path = std::env::temp_dir().join(format!("tensor-doc-with-{}.txt", std::process::id()));
/// tensor::files::write_atomically(&path, b"old")?;
/// let failed = tensor::files::write_atomically_with(&path, |file| {
///     file.write_all(b"ne")?;
///     Err(std::io::Error::other("the disk is full"))
/// });
/// assert!(failed.is_err());
/// assert_eq!(std::fs::read(&path)?, b"old");
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomically_with(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    // Counted, so that two threads that write to one path do not share a temporary file.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{count}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let replace = || {
        let mut file = File::create(&temporary)?;
        write(&mut file)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is durable once its directory is; not every system can sync one.
        let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
        if let Ok(directory) = File::open(directory.unwrap_or(Path::new("."))) {
            let _ = directory.sync_all();
        }
        Ok(())
    };
    replace().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        io_error(path)(source)
    })
}
