//! Writing files so that a kill at any moment leaves the old content or the new.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use autograd::{Error, Result};

/// Wraps an error of the operating system with the path it is about.
pub(crate) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.to_owned(), source }
}

/// Writes `bytes` to a temporary file beside `path`, syncs it, and renames it to `path`.
///
/// # Errors
/// [`Error::Io`]; `path` is then as it was.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is durable once its directory is; not every system can sync one.
        if let Some(Ok(directory)) = path.parent().map(File::open) {
            let _ = directory.sync_all();
        }
        Ok(())
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        io_error(path)(source)
    })
}
