//! Safetensors files: a header in JSON that names the tensors, then their bytes.
//!
//! Reading is the library's. Writing is ours: piece by piece, without a second copy of all tensors in
//! memory, and so that the same content gives the same bytes, which the library's metadata do not.
//! Deliberately not here: what the names mean.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use autograd::{Element, Error, Result, Tensor};
use safetensors::tensor::SafeTensors;
pub(crate) use safetensors::tensor::{Dtype, TensorView};

use crate::files::{io_error, write_atomically_with};

/// Elements converted at a time.
const CHUNK: usize = 8 << 10;
/// What readers of the format take.
const MAX_HEADER: usize = 100_000_000;

/// Writes the bytes of a tensor.
type Writer = dyn Fn(&mut dyn Write) -> io::Result<()>;

/// A tensor on its way to a file.
pub(crate) struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    size: usize,
    write: Box<Writer>,
}

impl Entry {
    pub(crate) fn new<T: Element>(name: String, value: &Tensor<T>) -> Self {
        let (value, shape) = (value.contiguous(), value.shape().to_vec());
        let size = value.numel() * size_of::<T>();
        let write = Box::new(move |out: &mut dyn Write| write_elements(out, &value));
        Entry { name, dtype: dtype::<T>(), shape, size, write }
    }

    /// A number that is written once everything before it is.
    pub(crate) fn later(name: String) -> Self {
        let write = Box::new(|_: &mut dyn Write| Ok(()));
        Entry { name, dtype: Dtype::U64, shape: Vec::new(), size: size_of::<u64>(), write }
    }

    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        (self.write)(out)
    }
}

fn write_elements<T: Element>(out: &mut dyn Write, value: &Tensor<T>) -> io::Result<()> {
    let mut bytes = Vec::new();
    for chunk in value.as_slice().unwrap_or(&[]).chunks(CHUNK) {
        bytes.clear();
        chunk.iter().for_each(|x| x.write_le(&mut bytes));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Puts entries into the order that the library writes: large elements first, so that all are aligned.
pub(crate) fn sort(entries: &mut [Entry]) {
    entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
}

/// What stands before the bytes of `entries`, in this order.
pub(crate) fn header(
    entries: &[Entry],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, String> {
    let (mut fields, mut names, mut end) = (Vec::new(), BTreeSet::from([METADATA]), 0);
    if !metadata.is_empty() {
        let pair = |(key, value): (&String, &String)| format!("{}:{}", quoted(key), quoted(value));
        let pairs: Vec<String> = metadata.iter().map(pair).collect();
        fields.push(format!("\"{METADATA}\":{{{}}}", pairs.join(",")));
    }
    for Entry { name, dtype, shape, size, .. } in entries {
        if !names.insert(name) {
            return Err(format!("{name} is a name that the format has already"));
        }
        let (start, shape) = (end, format!("{shape:?}").replace(' ', ""));
        end += size;
        let name = quoted(name);
        fields.push(format!(
            "{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}"
        ));
    }
    let mut text = format!("{{{}}}", fields.join(","));
    let length = text.len().next_multiple_of(8);
    if length > MAX_HEADER {
        return Err(format!("a header of {length} bytes, and readers take {MAX_HEADER}"));
    }
    text.extend(std::iter::repeat_n(' ', length - text.len()));
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Ok(bytes)
}

const METADATA: &str = "__metadata__";

/// The text as JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            // Writing into a string does not fail.
            '\0'..='\x1f' => drop(write!(json, "\\u{:04x}", u32::from(c))),
            _ => json.push(c),
        }
    }
    json.push('"');
    json
}

/// Writes a file; a kill at any moment leaves the old one or the new.
pub(crate) fn write(path: &Path, mut entries: Vec<Entry>) -> Result<()> {
    sort(&mut entries);
    let header = header(&entries, &BTreeMap::new())
        .map_err(|reason| Error::Format { path: path.into(), reason })?;
    write_atomically_with(path, |file| {
        let mut out = BufWriter::new(file);
        out.write_all(&header)?;
        entries.iter().try_for_each(|entry| entry.write_to(&mut out))?;
        out.flush()
    })
}

/// A file that was read.
pub(crate) struct Contents<'a> {
    /// All of it.
    pub(crate) bytes: &'a [u8],
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) tensors: BTreeMap<String, TensorView<'a>>,
}

/// Shows a file to `take`; a reason it gives is an [`Error::Format`].
pub(crate) fn read<R>(
    path: &Path,
    take: impl FnOnce(&Contents<'_>) -> Result<R, String>,
) -> Result<R> {
    let format = |reason: String| Error::Format { path: path.into(), reason };
    let bytes = fs::read(path).map_err(io_error(path))?;
    let foreign = |e| format(format!("not a safetensors file: {e}"));
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(foreign)?;
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    let tensors = SafeTensors::deserialize(&bytes).map_err(foreign)?.tensors();
    let tensors = tensors.into_iter().collect();
    take(&Contents { bytes: &bytes, metadata, tensors }).map_err(format)
}

/// The tensor in a view, or why it is none of this type.
pub(crate) fn tensor<T: Element>(name: &str, view: &TensorView<'_>) -> Result<Tensor<T>, String> {
    let (found, want) = (view.dtype(), dtype::<T>());
    if found != want {
        return Err(format!("{name} has elements of type {found:?}, expected {want:?}"));
    }
    let elements = view.data().chunks_exact(size_of::<T>()).filter_map(T::read_le);
    Tensor::from_vec(elements.collect(), view.shape()).map_err(|e| e.to_string())
}

fn dtype<T: Element>() -> Dtype {
    match T::NAME {
        "f32" => Dtype::F32,
        "f64" => Dtype::F64,
        "i64" => Dtype::I64,
        "u8" => Dtype::U8,
        _ => Dtype::BOOL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::serialize;

    #[test]
    fn the_bytes_are_the_librarys() {
        let (a, b) = (Tensor::from([1.5_f32, -2.0, 3.0]), Tensor::from([0.1_f64]));
        let matrix = Tensor::from_vec(vec![1_u8, 2, 3, 4, 5, 6], [2, 3]).unwrap();
        let columns = matrix.transpose(0, 1).unwrap(); // strided
        let nothing = Tensor::<f32>::zeros([0, 4]).unwrap();
        let entries = |metadata: &BTreeMap<String, String>| {
            let mut all = vec![
                Entry::new("z".into(), &a),
                Entry::new("a\"\\é".into(), &nothing),
                Entry::new("bytes".into(), &columns),
                Entry::new("number".into(), &b),
            ];
            sort(&mut all);
            let mut bytes = header(&all, metadata).unwrap();
            all.iter().try_for_each(|entry| entry.write_to(&mut bytes)).unwrap();
            bytes
        };
        let data = |x: Vec<f32>| x.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>();
        let views = [
            ("z", Dtype::F32, vec![3], data(a.to_vec())),
            ("a\"\\é", Dtype::F32, vec![0, 4], vec![]),
            ("bytes", Dtype::U8, vec![3, 2], vec![1, 4, 2, 5, 3, 6]),
            ("number", Dtype::F64, vec![], 0.1_f64.to_le_bytes().to_vec()),
        ];
        let views = views.iter().map(|(name, dtype, shape, bytes)| {
            let shape = if *name == "number" { vec![1] } else { shape.clone() };
            (*name, TensorView::new(*dtype, shape, bytes).unwrap())
        });
        let views: Vec<_> = views.collect();
        assert_eq!(entries(&BTreeMap::new()), serialize(views.clone(), None).unwrap());
        // One pair of metadata, whose order the library cannot choose.
        let pair = ("key".to_owned(), "line\u{1}\"é".to_owned());
        let theirs = serialize(views, Some([pair.clone()].into_iter().collect())).unwrap();
        assert_eq!(entries(&[pair].into_iter().collect()), theirs);
    }

    #[test]
    fn names_that_the_format_cannot_hold_are_refused() {
        let x = Tensor::from([1.0_f32]);
        let name = |name: &str| Entry::new(name.into(), &x);
        assert!(header(&[name("a"), name("a")], &BTreeMap::new()).is_err());
        assert!(header(&[name(METADATA)], &BTreeMap::new()).is_err());
    }
}
