//! IDX files of bytes, as MNIST comes in, plain or gzip-compressed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use autograd::{Error, Float, Result, Tensor};
use flate2::read::MultiGzDecoder;

use crate::files::io_error;

/// The type code of unsigned bytes.
const BYTES: u8 = 8;

/// Reads an IDX file of unsigned bytes: its sizes and its data.
///
/// A file that begins with the magic number of gzip is decompressed. Memory is taken as data
/// arrives, so that a wrong size in the header costs nothing.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for another magic number or element type, and for data that are
/// shorter or longer than the sizes say.
pub fn read_idx(path: impl AsRef<Path>) -> Result<(Vec<usize>, Vec<u8>)> {
    let path = path.as_ref();
    let format = |reason: String| Error::Format { path: path.into(), reason };
    let mut raw = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut raw)).map_err(io_error(path))?;
    if !raw.starts_with(&[0x1f, 0x8b]) {
        return parse(&mut &raw[..]).map_err(format);
    }
    parse(&mut MultiGzDecoder::new(&raw[..])).map_err(format)
}

fn parse(source: &mut impl Read) -> std::result::Result<(Vec<usize>, Vec<u8>), String> {
    let mut read = |n: u64, what: &str| {
        let mut bytes = Vec::new();
        source.take(n).read_to_end(&mut bytes).map_err(|e| format!("not readable: {e}"))?;
        if (bytes.len() as u64) < n {
            return Err(format!("ends within the {what}: {} of {n} bytes", bytes.len()));
        }
        Ok(bytes)
    };
    let magic = read(4, "magic number")?;
    let [0, 0, BYTES, rank] = magic[..] else {
        return Err(format!("magic number {magic:02x?} is not that of an IDX file of bytes"));
    };
    let sizes = read(4 * u64::from(rank), "sizes")?;
    let (sizes, _) = sizes.as_chunks::<4>();
    let sizes: Vec<usize> = sizes.iter().map(|s| u32::from_be_bytes(*s) as usize).collect();
    let total = sizes.iter().try_fold(1_u64, |n, &s| n.checked_mul(s as u64));
    let total = total.ok_or_else(|| format!("sizes {sizes:?} are too large"))?;
    let data = read(total, "data")?;
    // Reading up to the end also makes gzip compare its checksum.
    match source.read(&mut [0]) {
        Ok(0) => Ok((sizes, data)),
        Ok(_) => Err(format!("goes on after the {total} bytes of sizes {sizes:?}")),
        Err(e) => Err(format!("not readable: {e}")),
    }
}

/// The four files of MNIST: images as rows of [0, 1], and their digits.
#[derive(Debug)]
pub struct Mnist<T: Float> {
    /// Training images, `[N, pixels]`, and their classes, `[N]`.
    pub train: (Tensor<T>, Tensor<i64>),
    /// Test images and their classes.
    pub test: (Tensor<T>, Tensor<i64>),
}

impl<T: Float> Mnist<T> {
    /// Reads `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    /// `t10k-labels-idx1-ubyte` from a directory, each plain or with `.gz`.
    ///
    /// # Errors
    /// As [`read_idx`]; [`Error::Format`] for sizes that do not fit, or a label above 9.
    pub fn read(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        let train = read_pair(directory, "train")?;
        let test = read_pair(directory, "t10k")?;
        if train.0.shape()[1] != test.0.shape()[1] {
            let reason = "training and test images differ in size".into();
            return Err(Error::Format { path: directory.into(), reason });
        }
        Ok(Mnist { train, test })
    }
}

fn read_pair<T: Float>(directory: &Path, part: &str) -> Result<(Tensor<T>, Tensor<i64>)> {
    let find = |kind: &str| -> PathBuf {
        let plain = directory.join(format!("{part}-{kind}-ubyte"));
        let packed = directory.join(format!("{part}-{kind}-ubyte.gz"));
        if !plain.exists() && packed.exists() { packed } else { plain }
    };
    let (images_path, labels_path) = (find("images-idx3"), find("labels-idx1"));
    let (sizes, images) = read_idx(&images_path)?;
    let (label_sizes, labels) = read_idx(&labels_path)?;
    let [n, height, width] = sizes[..] else {
        let reason = format!("has sizes {sizes:?}, expected images, rows, columns");
        return Err(Error::Format { path: images_path, reason });
    };
    if height * width == 0 {
        let reason = format!("has images without pixels: sizes {sizes:?}");
        return Err(Error::Format { path: images_path, reason });
    }
    if label_sizes != [n] {
        let reason = format!("has sizes {label_sizes:?} for {n} images");
        return Err(Error::Format { path: labels_path, reason });
    }
    if let Some(i) = labels.iter().position(|&l| l > 9) {
        let reason = format!("label {} of image {i} is not a digit", labels[i]);
        return Err(Error::Format { path: labels_path, reason });
    }
    let pixels = images.into_iter().map(|p| T::from_f64(f64::from(p) / 255.0)).collect();
    let labels = labels.into_iter().map(i64::from).collect();
    Ok((Tensor::from_vec(pixels, [n, height * width])?, Tensor::from_vec(labels, [n])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0, 0, BYTES, sizes.len() as u8];
        sizes.iter().for_each(|s| bytes.extend(s.to_be_bytes()));
        bytes.extend_from_slice(data);
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("gradus-idx-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn reads_the_four_files_plain_and_packed() {
        let dir = directory("mnist");
        let images = idx(&[2, 1, 2], &[0, 255, 51, 102]);
        std::fs::write(dir.join("train-images-idx3-ubyte"), &images).unwrap();
        std::fs::write(dir.join("train-labels-idx1-ubyte.gz"), gzip(&idx(&[2], &[3, 9]))).unwrap();
        std::fs::write(dir.join("t10k-images-idx3-ubyte.gz"), gzip(&images)).unwrap();
        std::fs::write(dir.join("t10k-labels-idx1-ubyte"), idx(&[2], &[0, 1])).unwrap();
        let mnist = Mnist::<f64>::read(&dir).unwrap();
        assert_eq!(mnist.train.0.to_vec(), [0.0, 1.0, 0.2, 0.4]);
        assert_eq!((mnist.train.1.to_vec(), mnist.test.1.to_vec()), (vec![3, 9], vec![0, 1]));
        std::fs::write(dir.join("t10k-labels-idx1-ubyte"), idx(&[2], &[0, 10])).unwrap();
        let text = Mnist::<f64>::read(&dir).unwrap_err().to_string();
        assert!(text.ends_with("label 10 of image 1 is not a digit"), "{text}");
        std::fs::write(dir.join("t10k-labels-idx1-ubyte"), idx(&[1], &[0])).unwrap();
        assert!(Mnist::<f64>::read(&dir).unwrap_err().to_string().contains("for 2 images"));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn every_truncation_is_refused() {
        let path = directory("cut").join("file");
        let whole = idx(&[2, 3], &[1; 6]);
        for bytes in [whole.clone(), gzip(&whole)] {
            for cut in 0..bytes.len() {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                assert!(matches!(read_idx(&path), Err(Error::Format { .. })), "{cut}");
            }
        }
        std::fs::write(&path, [whole.clone(), vec![0]].concat()).unwrap();
        assert!(read_idx(&path).unwrap_err().to_string().contains("goes on after"));
        std::fs::write(&path, idx(&[u32::MAX, u32::MAX, u32::MAX], &[])).unwrap();
        assert!(read_idx(&path).unwrap_err().to_string().contains("too large"));
        std::fs::write(&path, idx(&[u32::MAX, u32::MAX], &[])).unwrap();
        assert!(read_idx(&path).unwrap_err().to_string().contains("ends within the data"));
        std::fs::write(&path, [0, 0, 13, 1, 0, 0, 0, 0]).unwrap();
        assert!(read_idx(&path).unwrap_err().to_string().contains("magic number"));
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
