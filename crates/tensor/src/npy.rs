//! NumPy's `.npy` files: one array with its type and shape, read and written without Python.
//!
//! Versions 1.0 to 3.0 of the format, both byte orders and both memory orders are read. What is
//! written is version 1.0, little-endian and row-major, byte for byte what `numpy.save` of NumPy 2
//! writes. Deliberately not here: conversion between types, structured types, pickled objects (they
//! are programs), and memory maps.
//!
//! A file is not trusted: memory is taken only once the file is as long as its header says.

use std::any::Any;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use smallvec::SmallVec;

use crate::element::Element;
use crate::error::{Error, Result};
use crate::files::{io_error, write_atomically_with};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Bytes converted at a time; a multiple of every element's size.
const CHUNK: usize = 64 << 10;
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// What NumPy 2 can hold.
const MAX_RANK: usize = 64;
/// Plain arrays need a tenth of this.
const MAX_HEADER: usize = 64 << 10;

/// Reads an array of `T`. `numpy.load`.
///
/// An array in Fortran order becomes a transposed view of its data: nothing is reordered.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if the file holds another type than `T`, a type that is not
/// one of `f32 f64 i64 u8 bool`, more or fewer bytes than its header says, or is no npy file.
///
/// # Examples
/// ```
/// use tensor::{Tensor, npy};
/// # fn main() -> tensor::Result<()> {
/// let path = std::env::temp_dir().join(format!("tensor-doc-read-{}.npy", std::process::id()));
/// npy::write(&path, &Tensor::from_vec(vec![1.5_f32, -2.0], [2])?)?;
/// assert_eq!(npy::read::<f32>(&path)?.to_vec(), [1.5, -2.0]);
/// let error = npy::read::<f64>(&path).unwrap_err().to_string();
/// assert!(error.contains("holds f32 (dtype \"<f4\"), not f64"));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub fn read<T: Element>(path: impl AsRef<Path>) -> Result<Tensor<T>> {
    open(path.as_ref(), |source, size| {
        let header = Header::read(source, size)?;
        header.check_type::<T>()?;
        header.tensor(source)
    })
}

/// Reads an array of whichever type the file holds.
///
/// # Errors
/// As [`read`], but for the type.
///
/// # Examples
/// ```
/// use tensor::{Tensor, npy};
/// # fn main() -> tensor::Result<()> {
/// let path = std::env::temp_dir().join(format!("tensor-doc-any-{}.npy", std::process::id()));
/// npy::write(&path, &Tensor::from_vec(vec![3_i64, 4], [1, 2])?)?;
/// let array = npy::read_any(&path)?;
/// assert_eq!((array.dtype(), array.shape()), ("i64", &[1, 2][..]));
/// let labels: Tensor<i64> = array.into_tensor()?;
/// assert_eq!(labels.to_vec(), [3, 4]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub fn read_any(path: impl AsRef<Path>) -> Result<Array> {
    open(path.as_ref(), |source, size| Header::read(source, size)?.array(source))
}

/// Reads an array from the content of a file.
///
/// # Errors
/// [`Error::InvalidArgument`] where [`read_any`] has [`Error::Format`].
pub fn from_bytes(mut bytes: &[u8]) -> Result<Array> {
    let size = bytes.len() as u64;
    let array = Header::read(&mut bytes, size).and_then(|header| header.array(&mut bytes));
    array.map_err(|problem| Error::InvalidArgument {
        op: "npy::from_bytes",
        name: "input",
        reason: problem.reason(),
    })
}

/// Writes an array, atomically: `path` is either as it was or complete. `numpy.save`, except that
/// no extension is added to `path`, and that any layout is written in row-major order.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidArgument`] for a rank above 64, which NumPy does not read.
///
/// # Examples
/// ```
/// use tensor::{Tensor, npy};
/// # fn main() -> tensor::Result<()> {
/// let x = Tensor::from_vec(vec![1_u8, 2, 3, 4, 5, 6], [2, 3])?;
/// let path = std::env::temp_dir().join(format!("tensor-doc-write-{}.npy", std::process::id()));
/// npy::write(&path, &x.transpose(0, 1)?)?; // numpy.load(path) has shape (3, 2)
/// assert_eq!(npy::read::<u8>(&path)?.to_vec(), [1, 4, 2, 5, 3, 6]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok(())
/// # }
/// ```
pub fn write<T: Element>(path: impl AsRef<Path>, tensor: &Tensor<T>) -> Result<()> {
    let header = header_of("npy::write", tensor)?;
    write_atomically_with(path, |file| write_parts(file, &header, tensor))
}

/// The content of the file that [`write()`] writes.
///
/// # Errors
/// [`Error::InvalidArgument`] for a rank above 64.
pub fn to_bytes<T: Element>(tensor: &Tensor<T>) -> Result<Vec<u8>> {
    let mut bytes = header_of("npy::to_bytes", tensor)?;
    bytes.reserve_exact(tensor.numel() * size_of::<T>());
    tensor.contiguous().elements().iter().for_each(|x| x.write_le(&mut bytes));
    Ok(bytes)
}

/// A type of elements as the format knows it.
struct Dtype {
    name: &'static str,
    /// Kind and size, what `descr` has after the byte order.
    code: &'static str,
    numpy: &'static str,
    size: usize,
    read: fn(&Header, &mut dyn Read) -> Result<Array, Problem>,
}

macro_rules! arrays {
    ($($variant:ident: $type:ty, $code:literal, $numpy:literal;)*) => {
        /// An array of one of the types that files hold.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub enum Array {
            $(#[doc = concat!("Elements of type `", stringify!($type), "`, NumPy's `", $numpy, "`.")]
            $variant(Tensor<$type>),)*
        }

        $(impl From<Tensor<$type>> for Array {
            fn from(tensor: Tensor<$type>) -> Self {
                Array::$variant(tensor)
            }
        }

        /// Shares the storage.
        impl From<&Tensor<$type>> for Array {
            fn from(tensor: &Tensor<$type>) -> Self {
                Array::$variant(tensor.clone())
            }
        })*

        impl Array {
            /// The name of the elements' type as Rust writes it.
            pub fn dtype(&self) -> &'static str {
                match self {
                    $(Array::$variant(_) => <$type>::NAME,)*
                }
            }

            /// Sizes of the dims.
            pub fn shape(&self) -> &[usize] {
                match self {
                    $(Array::$variant(x) => x.shape(),)*
                }
            }

            fn as_any(&self) -> &dyn Any {
                match self {
                    $(Array::$variant(x) => x,)*
                }
            }

            /// What [`header_of`] the tensor says.
            #[cfg(feature = "npz")]
            pub(crate) fn header(&self, op: &'static str) -> Result<Vec<u8>> {
                match self {
                    $(Array::$variant(x) => header_of(op, x),)*
                }
            }

            /// [`write_parts`] of the tensor.
            #[cfg(feature = "npz")]
            pub(crate) fn write_parts(&self, out: &mut dyn Write, header: &[u8]) -> io::Result<()> {
                match self {
                    $(Array::$variant(x) => write_parts(out, header, x),)*
                }
            }
        }

        const DTYPES: &[Dtype] = &[$(Dtype {
            name: <$type>::NAME,
            code: $code,
            numpy: $numpy,
            size: size_of::<$type>(),
            read: |header, source| header.tensor(source).map(Array::$variant),
        },)*];
    };
}

arrays! {
    F32: f32, "f4", "float32";
    F64: f64, "f8", "float64";
    I64: i64, "i8", "int64";
    U8: u8, "u1", "uint8";
    Bool: bool, "b1", "bool";
}

impl Array {
    /// The tensor of elements `T`; nothing is copied or converted.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the elements have another type.
    pub fn into_tensor<T: Element>(self) -> Result<Tensor<T>> {
        self.as_any().downcast_ref::<Tensor<T>>().cloned().ok_or_else(|| Error::InvalidArgument {
            op: "into_tensor",
            name: "T",
            reason: format!("is {}, the array holds {}", T::NAME, self.dtype()),
        })
    }
}

/// Shares the storage.
impl From<&Array> for Array {
    fn from(array: &Array) -> Self {
        array.clone()
    }
}

impl Dtype {
    fn of<T: Element>() -> &'static Dtype {
        match DTYPES.iter().find(|d| d.name == T::NAME) {
            Some(dtype) => dtype,
            None => unreachable!("bug: {} has no place in files", T::NAME),
        }
    }
}

/// What is wrong with an input whose path the caller knows.
pub(crate) enum Problem {
    Io(io::Error),
    Format(String),
}

impl Problem {
    pub(crate) fn at(self, path: &Path) -> Error {
        match self {
            Problem::Io(source) => io_error(path)(source),
            Problem::Format(reason) => Error::Format { path: path.to_owned(), reason },
        }
    }

    fn reason(self) -> String {
        match self {
            Problem::Io(source) => source.to_string(),
            Problem::Format(reason) => reason,
        }
    }
}

impl From<io::Error> for Problem {
    fn from(source: io::Error) -> Self {
        Problem::Io(source)
    }
}

impl From<String> for Problem {
    fn from(reason: String) -> Self {
        Problem::Format(reason)
    }
}

/// Opens a file for `read`, which is told its length.
pub(crate) fn open<R>(
    path: &Path,
    read: impl FnOnce(&mut File, u64) -> Result<R, Problem>,
) -> Result<R> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let metadata = file.metadata().map_err(io_error(path))?;
    if !metadata.is_file() {
        return Err(Problem::Format("is not a regular file".into()).at(path));
    }
    read(&mut file, metadata.len()).map_err(|problem| problem.at(path))
}

/// What stands before the data.
pub(crate) struct Header {
    dtype: &'static Dtype,
    /// The type as the file writes it.
    descr: String,
    big_endian: bool,
    fortran_order: bool,
    shape: Shape,
}

impl Header {
    /// Reads up to the data of an input of `size` bytes, which must then be as many as the shape
    /// takes.
    pub(crate) fn read(source: &mut dyn Read, size: u64) -> Result<Header, Problem> {
        let mut left = size;
        let mut take = |n: usize, what: &str| -> Result<Vec<u8>, Problem> {
            let mut bytes = Vec::new();
            if n as u64 <= left {
                Read::take(&mut *source, n as u64).read_to_end(&mut bytes)?;
            }
            if bytes.len() < n {
                return Err(format!("ends within the {what}").into());
            }
            left -= n as u64;
            Ok(bytes)
        };
        let magic = take(8, "magic number")?;
        let Some(&[major, minor]) = magic.strip_prefix(MAGIC) else {
            return Err(
                format!("magic number {:02x?} is not that of an npy file", &magic[..6]).into()
            );
        };
        let length = match (major, minor) {
            (1, 0) => take(2, "header's length")?,
            (2 | 3, 0) => take(4, "header's length")?,
            _ => {
                let reason = format!("version {major}.{minor} is not 1.0, 2.0 or 3.0");
                return Err(reason.into());
            }
        };
        let length = length.iter().rev().fold(0_usize, |n, &b| n << 8 | usize::from(b));
        if length > MAX_HEADER {
            let reason = format!("header of {length} bytes is longer than that of a plain array");
            return Err(reason.into());
        }
        let text = take(length, "header")?;
        let text = match major {
            3 => String::from_utf8(text).map_err(|_| "header is not UTF-8".to_owned())?,
            // Latin-1.
            _ => text.into_iter().map(char::from).collect(),
        };
        let header = Parser { text: &text, at: 0 }.header()?;
        let Ok(numel) = header.shape.checked_numel("", header.dtype.size) else {
            let reason =
                format!("shape {:?} has more elements than memory can address", header.shape);
            return Err(reason.into());
        };
        let need = (numel * header.dtype.size) as u64;
        if need != left {
            let (shape, name) = (&header.shape, header.dtype.name);
            let reason =
                format!("has {left} bytes of data, where shape {shape:?} of {name} takes {need}");
            return Err(reason.into());
        }
        Ok(header)
    }

    fn check_type<T: Element>(&self) -> Result<(), Problem> {
        let (held, wanted) = (self.dtype, Dtype::of::<T>());
        if held.name == wanted.name {
            return Ok(());
        }
        Err(Problem::Format(format!(
            "holds {} (dtype {:?}), not {}; read it as that type, or convert it in NumPy: \
             `x.astype(\"{}\")`",
            held.name, self.descr, wanted.name, wanted.numpy
        )))
    }

    /// The bytes of the data; an input of another length was refused.
    #[cfg(feature = "npz")]
    pub(crate) fn data_bytes(&self) -> usize {
        self.shape.numel() * self.dtype.size
    }

    /// The data, as what the file holds.
    pub(crate) fn array(&self, source: &mut dyn Read) -> Result<Array, Problem> {
        (self.dtype.read)(self, source)
    }

    /// The data, as elements of the header's type `T`.
    fn tensor<T: Element>(&self, source: &mut dyn Read) -> Result<Tensor<T>, Problem> {
        debug_assert_eq!(self.dtype.name, T::NAME);
        let mut shape = self.shape.clone();
        if self.fortran_order {
            shape.as_mut_slice().reverse();
        }
        let mut filled = Ok(());
        let stored = Tensor::build(shape, |out| filled = self.fill(source, out));
        // Where this returns, the half-filled tensor goes unseen.
        filled?;
        if !self.fortran_order {
            return Ok(stored);
        }
        let reversed: SmallVec<[usize; 4]> = (0..self.shape.len()).rev().collect();
        Ok(Tensor { layout: stored.layout.permuted(&reversed), buffer: stored.buffer })
    }

    fn fill<T: Element>(&self, source: &mut dyn Read, out: &mut [T]) -> Result<(), Problem> {
        let size = size_of::<T>();
        let mut chunk = vec![0; CHUNK.min(size_of_val(out))];
        let mut before = 0;
        for out in out.chunks_mut(CHUNK / size) {
            let bytes = &mut chunk[..size_of_val(out)];
            source.read_exact(bytes).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => Problem::Format("ends within the data".into()),
                _ => Problem::Io(e),
            })?;
            if self.big_endian {
                bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
            }
            for (i, (x, bytes)) in out.iter_mut().zip(bytes.chunks_exact(size)).enumerate() {
                *x = T::read_le(bytes).ok_or_else(|| {
                    let (at, name) = (before + i * size, T::NAME);
                    format!("byte {at} of the data is {}, which is no {name}", bytes[0])
                })?;
            }
            before += bytes.len();
        }
        Ok(())
    }
}

/// The header that NumPy writes for the tensor, magic number and all.
fn header_of<T: Element>(op: &'static str, tensor: &Tensor<T>) -> Result<Vec<u8>> {
    let (shape, dtype) = (tensor.shape(), Dtype::of::<T>());
    if shape.len() > MAX_RANK {
        let reason = format!("has rank {}, NumPy reads at most {MAX_RANK}", shape.len());
        return Err(Error::InvalidArgument { op, name: "tensor", reason });
    }
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    let comma = if sizes.len() == 1 { "," } else { "" };
    let order = if dtype.size == 1 { '|' } else { '<' };
    let (code, sizes) = (dtype.code, sizes.join(", "));
    let mut text = format!(
        "{{'descr': '{order}{code}', 'fortran_order': False, 'shape': ({sizes}{comma}), }}"
    );
    // NumPy leaves room for the first size to grow in place, to 21 digits.
    if let Some(first) = shape.first() {
        let room = 21 - first.to_string().len();
        text.push_str(&" ".repeat(room));
    }
    // It aligns the data to 64 bytes, and where they are aligned already, it adds 64 more.
    let used = MAGIC.len() + 4 + text.len() + 1;
    text.push_str(&" ".repeat(64 - used % 64));
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    // At most 64 sizes of 20 digits: far from 65,535.
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.bytes());
    Ok(bytes)
}

/// Writes a header and the elements in row-major order.
fn write_parts<T: Element>(
    out: &mut dyn Write,
    header: &[u8],
    tensor: &Tensor<T>,
) -> io::Result<()> {
    out.write_all(header)?;
    let mut bytes = Vec::with_capacity(CHUNK.min(tensor.numel() * size_of::<T>()));
    for chunk in tensor.contiguous().elements().chunks(CHUNK / size_of::<T>()) {
        bytes.clear();
        chunk.iter().for_each(|x| x.write_le(&mut bytes));
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads the header's Python dict: the three keys in any order, and the literals they can have.
struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn header(mut self) -> Result<Header, Problem> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.eat("}") {
            let key = self.string("a key")?;
            self.expect(":")?;
            let twice = match key {
                "descr" => descr.replace(self.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(self.boolean()?).is_some(),
                "shape" => shape.replace(self.shape()?).is_some(),
                _ => return Err(format!("header has an unknown key {}", short(key)).into()),
            };
            if twice {
                return Err(format!("header has the key {key:?} twice").into());
            }
            if !self.eat(",") {
                self.expect("}")?;
                break;
            }
        }
        if !self.rest().is_empty() {
            return Err(self.fail("nothing after the dict"));
        }
        let missing = |key: &str| format!("header has no key {key:?}");
        let descr = descr.ok_or_else(|| missing("descr"))?;
        let fortran_order = fortran_order.ok_or_else(|| missing("fortran_order"))?;
        let shape = shape.ok_or_else(|| missing("shape"))?;
        let known = descr.split_at_checked(1).and_then(|(order, code)| {
            let big_endian = match order {
                "<" => false,
                ">" => true,
                // The machine's own, or no matter.
                "=" | "|" => cfg!(target_endian = "big"),
                _ => return None,
            };
            Some((DTYPES.iter().find(|d| d.code == code)?, big_endian))
        });
        let (dtype, big_endian) = known.ok_or_else(|| unsupported(descr))?;
        Ok(Header { dtype, descr: descr.to_owned(), big_endian, fortran_order, shape })
    }

    /// The text from the next character on that is not a space.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<(), Problem> {
        if self.eat(token) { Ok(()) } else { Err(self.fail(&format!("`{token}`"))) }
    }

    fn fail(&mut self, expected: &str) -> Problem {
        let found = self.rest().chars().next().map_or("its end".into(), |c| format!("{c:?}"));
        Problem::Format(format!("header, at byte {}: expected {expected}, found {found}", self.at))
    }

    fn string(&mut self, what: &str) -> Result<&'a str, Problem> {
        let rest = self.rest();
        let quoted =
            ['\'', '"'].iter().find_map(|&quote| rest.strip_prefix(quote)?.split_once(quote));
        match quoted {
            Some((inside, _)) if !inside.contains(['\\', '\n']) => {
                self.at += inside.len() + 2;
                Ok(inside)
            }
            _ => Err(self.fail(&format!("{what} in quotes"))),
        }
    }

    fn descr(&mut self) -> Result<&'a str, Problem> {
        let rest = self.rest();
        if rest.starts_with(['[', '(']) {
            let reason = format!(
                "structured dtype {} is not supported; save each field on its own",
                short(rest)
            );
            return Err(reason.into());
        }
        self.string("a dtype")
    }

    fn boolean(&mut self) -> Result<bool, Problem> {
        match (self.eat("True"), self.eat("False")) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ => Err(self.fail("`True` or `False`")),
        }
    }

    fn shape(&mut self) -> Result<Shape, Problem> {
        let mut sizes = Vec::new();
        self.expect("(")?;
        while !self.eat(")") {
            sizes.push(self.size()?);
            if !self.eat(",") {
                // One size in brackets is a number; a tuple of one has a comma.
                if sizes.len() == 1 {
                    return Err(self.fail("`,`"));
                }
                self.expect(")")?;
                break;
            }
        }
        if sizes.len() > MAX_RANK {
            return Err(
                format!("header has rank {}, NumPy's limit is {MAX_RANK}", sizes.len()).into()
            );
        }
        Ok(sizes.into())
    }

    fn size(&mut self) -> Result<usize, Problem> {
        let rest = self.rest();
        let digits =
            &rest[..rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len()];
        if digits.is_empty() || (digits.starts_with('0') && digits.len() > 1) {
            return Err(self.fail("a size"));
        }
        let size = digits.parse();
        let size =
            size.map_err(|_| format!("header has a size of {}, too large", short(digits)))?;
        self.at += digits.len();
        // Python 2 marked its long integers.
        if self.text[self.at..].starts_with('L') {
            self.at += 1;
        }
        Ok(size)
    }
}

fn unsupported(descr: &str) -> Problem {
    let advice = match descr.trim_start_matches(['<', '>', '=', '|']).chars().next() {
        Some('i' | 'u' | 'm' | 'M') => "convert it in NumPy: `x.astype(\"int64\")`",
        Some('c') => "save `x.real` and `x.imag` instead",
        _ => "convert it in NumPy, such as by `x.astype(\"float64\")`",
    };
    let known: Vec<&str> = DTYPES.iter().map(|d| d.numpy).collect();
    let (descr, known) = (short(descr), known.join(", "));
    Problem::Format(format!("dtype {descr} is not supported ({known} are); {advice}"))
}

/// The text in quotes, cut where it is long.
fn short(text: &str) -> String {
    match text.char_indices().nth(24) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}
