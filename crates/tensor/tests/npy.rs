//! npy and npz files: what NumPy wrote is read, what is written is what NumPy writes, and whatever
//! else is refused by name.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use tensor::npy::{self, Array};
use tensor::{Element, Error, Tensor};

/// A file that NumPy wrote; see data/make_npy.py.
fn numpy_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/npy").join(name)
}

/// A folder that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tensor-npy-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The bytes of a file with any header.
fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

/// The bytes of a file of f32 whose header has this shape.
fn with_shape(shape: &str, data: &[u8]) -> Vec<u8> {
    with_header(&format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}"), data)
}

fn with_descr(descr: &str) -> Vec<u8> {
    with_header(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,)}}"), &[0; 8])
}

/// Why the bytes are refused.
fn refusal(bytes: &[u8]) -> String {
    let text = npy::from_bytes(bytes).unwrap_err().to_string();
    text.strip_prefix("npy::from_bytes: input ").unwrap().to_owned()
}

fn bytes_of(array: &Array) -> Vec<u8> {
    match array {
        Array::F32(x) => npy::to_bytes(x),
        Array::F64(x) => npy::to_bytes(x),
        Array::I64(x) => npy::to_bytes(x),
        Array::U8(x) => npy::to_bytes(x),
        Array::Bool(x) => npy::to_bytes(x),
        other => panic!("{} is new", other.dtype()),
    }
    .unwrap()
}

#[test]
fn reads_every_type_in_both_orders_of_bytes_and_memory() {
    fn check<T: Element>(code: &str, orders: &[&str], values: [T; 6]) {
        let reference = fs::read(numpy_file(&format!("{code}{}_c.npy", orders[0]))).unwrap();
        for order in orders {
            for memory in ["c", "fortran"] {
                let path = numpy_file(&format!("{code}{order}_{memory}.npy"));
                let x = npy::read::<T>(&path).unwrap();
                assert_eq!((x.shape(), x.to_vec()), (&[2, 3][..], values.to_vec()), "{path:?}");
                // Fortran order is a view: no copy was made on the way.
                assert_eq!(x.is_contiguous(), memory == "c");
                assert_eq!(x.layout().strides(), if memory == "c" { [3, 1] } else { [1, 2] });
                let any = npy::read_any(&path).unwrap();
                assert_eq!((any.dtype(), any.shape()), (T::NAME, &[2, 3][..]));
                // The bytes also tell −0 from 0, and are NumPy's own for the first file.
                assert_eq!(npy::to_bytes(&x).unwrap(), reference);
                assert_eq!(bytes_of(&any), reference);
                assert_eq!(any.into_tensor::<T>().unwrap().to_vec(), values);
            }
        }
    }
    let both = &["_little", "_big"];
    check("f4", both, [0.5_f32, -1.5, 2.25, 1e30, -0.0, f32::INFINITY]);
    check("f8", both, [0.5_f64, -1.5, 2.25, 1e30, -0.0, f64::INFINITY]);
    check("i8", both, [0_i64, -1, 2, 1 << 40, 4, i64::MIN]);
    check("u1", &[""], [0_u8, 1, 2, 127, 128, 255]);
    check("b1", &[""], [true, false, false, true, true, false]);
}

#[test]
fn reads_versions_ranks_and_sizes() {
    let f4 = npy::read::<f32>(numpy_file("f4_little_c.npy")).unwrap();
    for major in [2, 3] {
        let x = npy::read::<f32>(numpy_file(&format!("version_{major}.npy"))).unwrap();
        assert_eq!(x.to_vec(), f4.to_vec());
    }
    let x = npy::read::<f64>(numpy_file("rank_0.npy")).unwrap();
    assert_eq!((x.rank(), x.item().unwrap()), (0, 2.5));
    let x = npy::read::<f32>(numpy_file("size_0.npy")).unwrap();
    assert_eq!((x.shape(), x.numel()), (&[0, 3][..], 0));
    let x = npy::read::<i64>(numpy_file("rank_3_fortran.npy")).unwrap();
    assert_eq!((x.shape(), x.to_vec()), (&[2, 3, 4][..], (0..24).collect()));
}

#[test]
fn writes_the_bytes_that_numpy_writes() {
    let folder = Scratch::new("same");
    for name in ["f4_little_c", "f8_little_c", "i8_little_c", "u1_c", "b1_c"]
        .into_iter()
        .chain(["rank_0", "size_0", "aligned"])
    {
        let original = fs::read(numpy_file(&format!("{name}.npy"))).unwrap();
        let array = npy::from_bytes(&original).unwrap();
        assert_eq!(bytes_of(&array), original, "{name}");
        let path = folder.file("written.npy");
        match array {
            Array::F32(x) => npy::write(&path, &x),
            Array::F64(x) => npy::write(&path, &x),
            Array::I64(x) => npy::write(&path, &x),
            Array::U8(x) => npy::write(&path, &x),
            Array::Bool(x) => npy::write(&path, &x),
            other => panic!("{} is new", other.dtype()),
        }
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), original, "{name}");
    }
    // Nothing but the file is left.
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn arrays_longer_than_a_chunk_survive() {
    let folder = Scratch::new("long");
    let path = folder.file("x.npy");
    // Two chunks and a bit, and a view whose rows do not lie in order.
    let n = 2 * (64 << 10) / 8 + 5;
    let x = Tensor::from_vec((0..3 * n as i64).map(|i| i * i).collect(), [n, 3]).unwrap();
    let view = x.transpose(0, 1).unwrap().narrow(0, 1, 2).unwrap();
    for x in [&x, &view] {
        npy::write(&path, x).unwrap();
        let back = npy::read::<i64>(&path).unwrap();
        assert_eq!((back.shape(), back.to_vec()), (x.shape(), x.to_vec()));
        assert_eq!(npy::to_bytes(x).unwrap(), fs::read(&path).unwrap());
    }
    let bytes = vec![true; 3 * (64 << 10)];
    npy::write(&path, &Tensor::from_slice(&bytes, [bytes.len()]).unwrap()).unwrap();
    assert_eq!(npy::read::<bool>(&path).unwrap().to_vec(), bytes);
    // A position in the last chunk is counted from the start of the data.
    let mut file = fs::read(&path).unwrap();
    file[128 + 2 * (64 << 10) + 7] = 3;
    assert_eq!(refusal(&file), "byte 131079 of the data is 3, which is no bool");
}

#[test]
fn reads_headers_as_others_write_them() {
    let data: Vec<u8> = [1.0_f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    for header in [
        // Keys in any order, no spaces, double quotes, trailing commas, Python 2's longs.
        "{'shape':(3,),'descr':'<f4','fortran_order':False}",
        "{\"descr\": \"<f4\", \"fortran_order\": False, \"shape\": (3,), }\n",
        "  { 'fortran_order' : True , 'descr' : '<f4' , 'shape' : ( 3 , ) , }\t\r\n ",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3)}",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (3L, 1L,)}",
    ] {
        let x: Tensor<f32> =
            npy::from_bytes(&with_header(header, &data)).unwrap().into_tensor().unwrap();
        assert_eq!(x.to_vec(), [1.0, 2.0, 3.0], "{header}");
    }
    for (order, bytes) in
        [("<", 5_i64.to_le_bytes()), (">", 5_i64.to_be_bytes()), ("=", 5_i64.to_ne_bytes())]
    {
        let header = format!("{{'descr': '{order}i8', 'fortran_order': False, 'shape': ()}}");
        let x = npy::from_bytes(&with_header(&header, &bytes)).unwrap();
        assert_eq!(x.into_tensor::<i64>().unwrap().item().unwrap(), 5);
    }
    for descr in ["|u1", "<u1", ">u1", "=u1"] {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ()}}");
        assert_eq!(npy::from_bytes(&with_header(&header, &[9])).unwrap().dtype(), "u8");
    }
}

#[test]
fn every_truncation_and_every_extension_is_refused() {
    for name in ["f4_little_c", "b1_fortran", "version_2", "rank_0", "size_0"] {
        let whole = fs::read(numpy_file(&format!("{name}.npy"))).unwrap();
        for cut in 0..whole.len() {
            let text = refusal(&whole[..cut]);
            let start = match cut {
                0..8 => "ends within the magic number",
                8..10 => "ends within the header's length",
                10..12 if name == "version_2" => "ends within the header's length",
                10..128 => "ends within the header",
                _ => "has ",
            };
            assert!(text.starts_with(start), "{name} cut at {cut}: {text}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(refusal(&longer).starts_with("has "), "{name}");
    }
}

#[test]
fn refuses_by_name() {
    let valid = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}";
    let patched = |at: usize, byte: u8| {
        let mut bytes = with_header(valid, &[0; 4]);
        bytes[at] = byte;
        bytes
    };
    let version_3 = |header: &[u8]| {
        let mut bytes = b"\x93NUMPY\x03\x00".to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header);
        bytes
    };
    let long = [b"\x93NUMPY\x02\x00".to_vec(), 70_000_u32.to_le_bytes().to_vec()].concat();
    let whole_header_long = [long.clone(), vec![b' '; 70_000]].concat();
    let ones = |n: usize| format!("({})", "1, ".repeat(n));
    let many_nines = "9".repeat(60);
    for (bytes, text) in [
        (
            b"PK\x03\x04 and more".to_vec(),
            "magic number [50, 4b, 03, 04, 20, 61] is not that of an npy file",
        ),
        (patched(1, b'n'), "magic number [93, 6e, 55, 4d, 50, 59] is not that of an npy file"),
        (patched(6, 4), "version 4.0 is not 1.0, 2.0 or 3.0"),
        (patched(6, 0), "version 0.0 is not 1.0, 2.0 or 3.0"),
        (patched(7, 1), "version 1.1 is not 1.0, 2.0 or 3.0"),
        (patched(9, 0xff), "ends within the header"),
        (long, "header of 70000 bytes is longer than that of a plain array"),
        (whole_header_long, "header of 70000 bytes is longer than that of a plain array"),
        (version_3(b"{'descr': '\xff'}"), "header is not UTF-8"),
        // Sizes.
        (with_shape("(3,)", &[0; 11]), "has 11 bytes of data, where shape [3] of f32 takes 12"),
        (with_shape("(3,)", &[0; 13]), "has 13 bytes of data, where shape [3] of f32 takes 12"),
        (with_shape("()", &[]), "has 0 bytes of data, where shape [] of f32 takes 4"),
        (with_shape("(0, 5)", &[7]), "has 1 bytes of data, where shape [0, 5] of f32 takes 0"),
        (
            with_shape("(1099511627776, 1099511627776)", &[0; 4]),
            "shape [1099511627776, 1099511627776] has more elements than memory can address",
        ),
        (
            with_shape("(0, 9223372036854775807)", &[]),
            "shape [0, 9223372036854775807] has more elements than memory can address",
        ),
        (
            // Wraps to 4 bytes in 64 bits.
            with_shape("(4611686018427387905,)", &[0; 4]),
            "shape [4611686018427387905] has more elements than memory can address",
        ),
        (
            with_shape("(1099511627776,)", &[0; 4]),
            "has 4 bytes of data, where shape [1099511627776] of f32 takes 4398046511104",
        ),
        (
            with_shape("(99999999999999999999,)", &[]),
            "header has a size of \"99999999999999999999\", too large",
        ),
        (
            with_shape(&format!("({many_nines},)"), &[]),
            "header has a size of \"999999999999999999999999\"…, too large",
        ),
        (with_shape(&ones(65), &[0; 4]), "header has rank 65, NumPy's limit is 64"),
        (with_shape("(-1,)", &[]), "header, at byte 51: expected a size, found '-'"),
        (with_shape("(03,)", &[]), "header, at byte 51: expected a size, found '0'"),
        (with_shape("(1.5,)", &[]), "header, at byte 52: expected `,`, found '.'"),
        (with_shape("(2, 3]", &[]), "header, at byte 55: expected `)`, found ']'"),
        (with_shape("(,)", &[]), "header, at byte 51: expected a size, found ','"),
        (with_shape("(True,)", &[]), "header, at byte 51: expected a size, found 'T'"),
        (with_shape("(3)", &[]), "header, at byte 52: expected `,`, found ')'"),
        (with_shape("3", &[]), "header, at byte 50: expected `(`, found '3'"),
        (with_shape("[3]", &[]), "header, at byte 50: expected `(`, found '['"),
        (with_shape("(3LL,)", &[]), "header, at byte 53: expected `,`, found 'L'"),
        // The dict.
        (with_header("", &[]), "header, at byte 0: expected `{`, found its end"),
        (with_header("[]", &[]), "header, at byte 0: expected `{`, found '['"),
        (with_header("{}", &[]), "header has no key \"descr\""),
        (with_header("{'descr': '<f4'}", &[]), "header has no key \"fortran_order\""),
        (
            with_header("{'descr': '<f4', 'fortran_order': False}", &[]),
            "header has no key \"shape\"",
        ),
        (
            with_header("{'descr': '<f4', 'descr': '<f4'}", &[]),
            "header has the key \"descr\" twice",
        ),
        (with_header("{'shape': (), 'shape': ()}", &[]), "header has the key \"shape\" twice"),
        (with_header("{'order': 'C'}", &[]), "header has an unknown key \"order\""),
        (
            with_header(&format!("{{'{many_nines}': 1}}"), &[]),
            "header has an unknown key \"999999999999999999999999\"…",
        ),
        (
            with_header("{descr: '<f4'}", &[]),
            "header, at byte 1: expected a key in quotes, found 'd'",
        ),
        (with_header("{'descr", &[]), "header, at byte 1: expected a key in quotes, found '\\''"),
        (with_header("{'descr\": ''}", &[]), "header, at byte 11: expected `:`, found '\\''"),
        (with_header("{'descr' '<f4'}", &[]), "header, at byte 9: expected `:`, found '\\''"),
        (with_header("{'descr': '<f4' ", &[]), "header, at byte 16: expected `}`, found its end"),
        (with_header("{,}", &[]), "header, at byte 1: expected a key in quotes, found ','"),
        (
            with_header(&format!("{valid} x"), &[0; 4]),
            "header, at byte 56: expected nothing after the dict, found 'x'",
        ),
        (
            with_header(&format!("{valid}\0"), &[0; 4]),
            "header, at byte 55: expected nothing after the dict, found '\\0'",
        ),
        (
            with_header("{'fortran_order': 0}", &[]),
            "header, at byte 18: expected `True` or `False`, found '0'",
        ),
        (
            with_header("{'fortran_order': Falsey}", &[]),
            "header, at byte 23: expected `}`, found 'y'",
        ),
        // Types.
        (with_descr("3"), "header, at byte 10: expected a dtype in quotes, found '3'"),
        (with_descr("'<f\\x34'"), "header, at byte 10: expected a dtype in quotes, found '\\''"),
        (
            with_descr("'<i4'"),
            "dtype \"<i4\" is not supported (float32, float64, int64, uint8, bool are); \
             convert it in NumPy: `x.astype(\"int64\")`",
        ),
        (
            with_descr("'<c8'"),
            "dtype \"<c8\" is not supported (float32, float64, int64, uint8, bool are); \
             save `x.real` and `x.imag` instead",
        ),
        (
            with_descr("'|O'"),
            "dtype \"|O\" is not supported (float32, float64, int64, uint8, bool are); \
             convert it in NumPy, such as by `x.astype(\"float64\")`",
        ),
        (
            with_descr("[('a', '<i4'), ('b', '<f8')]"),
            "structured dtype \"[('a', '<i4'), ('b', '<f\"… is not supported; save each field on its own",
        ),
        // Elements.
        (
            with_header("{'descr': '|b1', 'fortran_order': False, 'shape': (3,)}", &[1, 0, 2]),
            "byte 2 of the data is 2, which is no bool",
        ),
    ] {
        assert_eq!(refusal(&bytes), text);
    }
    for other in ["<f2", "<f16", "<u8", "<u4", "<M8[ns]", "<U3", "|S5", "|V8", "f4", "", "<", "é4"]
    {
        let text = refusal(&with_descr(&format!("'{other}'")));
        assert!(text.starts_with("dtype \"") && text.contains("is not supported"), "{text}");
    }
    for (name, text) in [
        ("int32", "dtype \"<i4\""),
        ("object", "dtype \"|O\""),
        ("structured", "structured dtype \"[('a', '<i4')"),
    ] {
        let error = npy::read_any(numpy_file(&format!("{name}.npy"))).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}.npy: {text}")), "{error}");
    }
}

#[test]
fn errors_name_the_file_and_both_types() {
    let folder = Scratch::new("errors");
    let path = folder.file("x.npy");
    let shown = path.display();
    npy::write(&path, &Tensor::scalar(1.0_f64)).unwrap();
    let error = npy::read::<f32>(&path).unwrap_err();
    assert!(matches!(error, Error::Format { .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "{shown}: holds f64 (dtype \"<f8\"), not f32; read it as that type, or convert it in \
             NumPy: `x.astype(\"float32\")`"
        )
    );
    let error = npy::read_any(&path).unwrap().into_tensor::<bool>().unwrap_err();
    assert_eq!(error.to_string(), "into_tensor: T is bool, the array holds f64");

    let error = npy::read_any(&folder.0).unwrap_err().to_string();
    assert_eq!(error, format!("{}: is not a regular file", folder.0.display()));
    fs::write(&path, b"").unwrap();
    let error = npy::read_any(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{shown}: ends within the magic number"));
    let missing = folder.file("missing.npy");
    assert!(
        matches!(npy::read::<f32>(&missing).unwrap_err(), Error::Io { path, .. } if path == missing)
    );
    let nowhere = folder.file("no/where.npy");
    assert!(
        matches!(npy::write(&nowhere, &Tensor::scalar(true)).unwrap_err(), Error::Io { path, .. } if path == nowhere)
    );

    // A write that fails at its last step, the renaming, leaves nothing behind.
    let occupied = folder.file("folder");
    fs::create_dir_all(occupied.join("inside")).unwrap();
    let error = npy::write(&occupied, &Tensor::scalar(true)).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: ", occupied.display())), "{error}");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2);

    let deep = Tensor::scalar(1_u8).reshape(vec![1; 65]).unwrap();
    let error = npy::write(&path, &deep).unwrap_err().to_string();
    assert_eq!(error, "npy::write: tensor has rank 65, NumPy reads at most 64");
    let error = npy::to_bytes(&deep).unwrap_err().to_string();
    assert_eq!(error, "npy::to_bytes: tensor has rank 65, NumPy reads at most 64");
    // What cannot be written leaves the old file.
    assert_eq!(fs::read(&path).unwrap(), b"");
    let deep = deep.reshape(vec![1; 64]).unwrap();
    npy::write(&path, &deep).unwrap();
    assert_eq!(npy::read::<u8>(&path).unwrap().rank(), 64);
}

#[test]
fn threads_that_write_one_path_leave_a_whole_file() {
    let folder = Scratch::new("threads");
    let path = folder.file("x.npy");
    std::thread::scope(|scope| {
        for value in 0..4_u8 {
            let path = &path;
            scope.spawn(move || {
                let x = Tensor::full([20_000 * (1 + usize::from(value))], value).unwrap();
                (0..10).for_each(|_| npy::write(path, &x).unwrap());
            });
        }
    });
    let x = npy::read::<u8>(&path).unwrap().to_vec();
    assert!(x.len() == 20_000 * (1 + usize::from(x[0])) && x.iter().all(|v| *v == x[0]));
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_bytes_never_panic_nor_grow(
        which in 0_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let names = ["f4_little_c", "f8_big_fortran", "b1_c", "version_2", "structured", "rank_0"];
        let mut bytes = fs::read(numpy_file(&format!("{}.npy", names[which]))).unwrap();
        for (at, byte) in changes {
            // Half of them where the header says something.
            let end = if byte & 1 == 0 { 70.min(bytes.len()) } else { bytes.len() };
            bytes[at.index(end)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(array) = npy::from_bytes(&bytes) {
            prop_assert!(bytes_of(&array).len() <= bytes.len().next_multiple_of(64) + 64);
        }
    }

    #[test]
    fn any_header_is_parsed_or_refused(header in "[{}()\\[\\]':,\"\\\\ LTF0-9a-z_<>=|-]{0,80}") {
        let _ = npy::from_bytes(&with_header(&header, &[0; 16]));
        let _ = npy::from_bytes(&with_shape(&header, &[0; 16]));
        let _ = npy::from_bytes(&with_descr(&header));
    }

    #[test]
    fn bits_survive(
        bits in prop::collection::vec(any::<u64>(), 0..50),
        columns in 1_usize..5,
    ) {
        let n = bits.len() / columns;
        let x = bits[..n * columns].iter().map(|b| f64::from_bits(*b)).collect();
        let x = Tensor::from_vec(x, [n, columns]).unwrap();
        let bytes = npy::to_bytes(&x.transpose(0, 1).unwrap()).unwrap();
        let back: Tensor<f64> = npy::from_bytes(&bytes).unwrap().into_tensor().unwrap();
        let back = back.transpose(0, 1).unwrap();
        prop_assert_eq!(back.shape(), x.shape());
        let bits = |x: &Tensor<f64>| x.to_vec().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&back), bits(&x));
    }
}

/// An interpreter with NumPy: `$PYTHON`, or `python3`. Says so where there is none.
fn python(test: &str) -> Option<Command> {
    let name = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let found = Command::new(&name).args(["-c", "import numpy"]).output();
    if found.is_ok_and(|o| o.status.success()) {
        return Some(Command::new(name));
    }
    eprintln!("{test}: skipped: no Python with NumPy (set PYTHON to an interpreter that has it)");
    None
}

fn run(mut python: Command, script: &str, folder: &Scratch) {
    let output = python.args(["-c", script]).arg(&folder.0).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn numpy_reads_what_is_written_and_writes_the_same() {
    let Some(python) = python("numpy_reads_what_is_written_and_writes_the_same") else { return };
    let folder = Scratch::new("live");
    fn arrays<T: Element>(folder: &Scratch, of: impl Fn(usize) -> T) {
        let x = Tensor::from_vec((0..120).map(of).collect(), [2, 3, 4, 5]).unwrap();
        let write = |name: &str, x: &Tensor<T>| {
            npy::write(folder.file(&format!("{}_{name}.npy", T::NAME)), x).unwrap();
        };
        write("whole", &x);
        write("permuted", &x.permute(&[2, 0, 3, 1]).unwrap());
        write("part", &x.narrow(3, 1, 3).unwrap());
        write("vector", &x.reshape([120]).unwrap());
        write("empty", &x.narrow(0, 1, 0).unwrap());
        write("scalar", &Tensor::scalar(x.to_vec()[7]));
        write("repeated", &x.narrow(0, 0, 1).unwrap().expand([7, 3, 4, 5]).unwrap());
    }
    arrays(&folder, |i| i as f32 / 7.0 - 3.0);
    arrays(&folder, |i| (i as f64).exp());
    arrays(&folder, |i| i as i64 * -0x0123_4567_89ab);
    arrays(&folder, |i| i as u8 * 2);
    arrays(&folder, |i| i % 3 == 0);
    let script = r#"
import io, pathlib, sys
import numpy as np
files = sorted(pathlib.Path(sys.argv[1]).glob("*.npy"))
assert len(files) == 35, files
for path in files:
    x = np.load(path)
    kind, name = path.stem.split("_")
    assert x.dtype == {"f32": "f4", "f64": "f8", "i64": "i8", "u8": "u1", "bool": "?"}[kind], path
    buffer = io.BytesIO()
    np.save(buffer, x)
    assert buffer.getvalue() == path.read_bytes(), path
    whole = np.load(path.with_name(kind + "_whole.npy"))
    expected = {"whole": whole, "permuted": whole.transpose(2, 0, 3, 1), "part": whole[..., 1:4],
                "vector": whole.ravel(), "empty": whole[1:1], "scalar": whole.ravel()[7],
                "repeated": np.broadcast_to(whole[:1], (7, 3, 4, 5))}[name]
    np.testing.assert_array_equal(x, expected)
    if kind == "i64":
        np.testing.assert_array_equal(whole.ravel(), np.arange(120) * -0x0123456789ab)
    np.save(path.with_suffix(".back"), x)
    swapped = np.array(x, x.dtype.newbyteorder(">"), order="F")
    with open(path.with_suffix(".swapped"), "wb") as file:
        np.lib.format.write_array(file, swapped, version=(2, 0))
"#;
    run(python, script, &folder);
    let mut swapped = 0;
    for entry in fs::read_dir(&folder.0).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "swapped") {
            let expected = fs::read(path.with_extension("npy")).unwrap();
            assert_eq!(bytes_of(&npy::read_any(&path).unwrap()), expected, "{path:?}");
            swapped += 1;
        }
    }
    assert_eq!(swapped, 35);
}

#[cfg(feature = "npz")]
mod archives {
    use super::*;
    use tensor::npz;

    /// One entry of an archive made by hand, of which every field can lie.
    #[derive(Clone)]
    struct Entry {
        name: &'static str,
        method: u16,
        flags: u16,
        packed: Vec<u8>,
        packed_size: u32,
        size: u32,
        crc: u32,
    }

    impl Entry {
        fn stored(name: &'static str, data: &[u8]) -> Self {
            let (packed, size, crc) = (data.to_vec(), data.len() as u32, crc32(data));
            Entry { name, method: 0, flags: 0, packed, packed_size: size, size, crc }
        }

        fn deflated(name: &'static str, data: &[u8]) -> Self {
            // Deflate's blocks without compression.
            let mut packed = Vec::new();
            for block in data.chunks(0xffff) {
                let n = block.len() as u16;
                packed.push(0);
                packed.extend([n.to_le_bytes(), (!n).to_le_bytes()].concat());
                packed.extend(block);
            }
            packed.extend([1, 0, 0, 0xff, 0xff]);
            let packed_size = packed.len() as u32;
            Entry { method: 8, packed, packed_size, ..Entry::stored(name, data) }
        }
    }

    fn crc32(data: &[u8]) -> u32 {
        !data.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| (c >> 1) ^ (0xedb8_8320 * (c & 1)))
        })
    }

    /// A zip archive of the entries.
    fn zip(entries: &[Entry]) -> Vec<u8> {
        let (mut bytes, mut directory) = (Vec::new(), Vec::new());
        for e in entries {
            let offset = bytes.len() as u32;
            let mut fields = Vec::new();
            fields.extend([20_u16, e.flags, e.method, 0, 33].map(u16::to_le_bytes).concat());
            fields.extend([e.crc, e.packed_size, e.size].map(u32::to_le_bytes).concat());
            fields.extend([e.name.len() as u16, 0].map(u16::to_le_bytes).concat());
            bytes.extend(b"PK\x03\x04");
            bytes.extend(&fields);
            bytes.extend(e.name.bytes());
            bytes.extend(&e.packed);
            directory.extend(b"PK\x01\x02\x14\x03");
            directory.extend(&fields);
            directory.extend([0; 10]);
            directory.extend(offset.to_le_bytes());
            directory.extend(e.name.bytes());
        }
        let (at, n) = (bytes.len() as u32, entries.len() as u16);
        bytes.extend(&directory);
        bytes.extend(b"PK\x05\x06");
        bytes.extend([0, 0, n, n].map(u16::to_le_bytes).concat());
        bytes.extend([directory.len() as u32, at].map(u32::to_le_bytes).concat());
        bytes.extend([0, 0]);
        bytes
    }

    fn read(folder: &Scratch, bytes: &[u8]) -> tensor::Result<Vec<(String, Array)>> {
        let path = folder.file("archive.npz");
        fs::write(&path, bytes).unwrap();
        npz::read(&path)
    }

    /// Why an archive of the entries is refused.
    fn refusal(folder: &Scratch, bytes: &[u8]) -> String {
        let error = read(folder, bytes).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error}");
        let start = format!("{}: ", folder.file("archive.npz").display());
        error.to_string().strip_prefix(&start).unwrap().to_owned()
    }

    fn array() -> Vec<u8> {
        npy::to_bytes(&Tensor::from_vec(vec![1.0_f32, 2.0, 3.0], [3]).unwrap()).unwrap()
    }

    #[test]
    fn reads_what_numpy_wrote() {
        for (name, count) in [("stored", 4), ("compressed", 5)] {
            let arrays = npz::read(numpy_file(&format!("{name}.npz"))).unwrap();
            let names: Vec<&str> = arrays.iter().map(|(name, _)| &name[..]).collect();
            assert_eq!(names, ["x", "layer/w", "größe", "none", "zeros"][..count]);
            let find = |name: &str| arrays.iter().find(|(n, _)| n == name).unwrap().1.clone();
            let bytes = fs::read(numpy_file("f4_little_c.npy")).unwrap();
            assert_eq!(bytes_of(&find("x")), bytes);
            let w = find("layer/w").into_tensor::<i64>().unwrap();
            assert_eq!(w.to_vec(), [0, -1, 2, 1 << 40, 4, i64::MIN]);
            assert_eq!(w.layout().strides(), [1, 2]);
            assert_eq!(find("größe").into_tensor::<f64>().unwrap().item().unwrap(), 2.5);
            assert_eq!((find("none").dtype(), find("none").shape()), ("bool", &[0, 3][..]));
            if count == 5 {
                let zeros = find("zeros").into_tensor::<u8>().unwrap();
                assert_eq!((zeros.shape(), zeros.to_vec()), (&[64, 64][..], vec![0; 4096]));
            }
        }
    }

    #[test]
    fn writes_and_reads_names_in_order() {
        let folder = Scratch::new("npz");
        let path = folder.file("x.npz");
        let x = Tensor::from_vec((0..60_000).map(|i| i as f32).collect(), [200, 300]).unwrap();
        let y = Tensor::from_vec(vec![true, false], [2]).unwrap();
        let arrays = [
            ("z", Array::from(&x)),
            ("a", Array::from(x.transpose(0, 1).unwrap())),
            ("", Array::from(y)),
            ("../../é", Array::from(Tensor::scalar(1_u8))),
            ("name.npy", Array::from(Tensor::full([0, 3], 1_i64).unwrap())),
        ];
        npz::write(&path, arrays.iter().map(|(name, array)| (name, array))).unwrap();
        let back = npz::read(&path).unwrap();
        assert_eq!(back.len(), arrays.len());
        for ((name, array), (name_back, array_back)) in arrays.iter().zip(&back) {
            assert_eq!((name, array.dtype()), (&&name_back[..], array_back.dtype()));
            assert_eq!(bytes_of(array), bytes_of(array_back));
        }
        assert!(fs::metadata(&path).unwrap().len() < 480_000 / 2);
        npz::write(&path, Vec::<(&str, Array)>::new()).unwrap();
        assert!(npz::read(&path).unwrap().is_empty());
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
    }

    #[test]
    fn refuses_to_write_what_cannot_be_read() {
        let folder = Scratch::new("npz-names");
        let path = folder.file("x.npz");
        let one = Tensor::scalar(1_i64);
        let text = |names: &[&str]| {
            npz::write(&path, names.iter().map(|n| (n, &one))).unwrap_err().to_string()
        };
        assert_eq!(text(&["x", "y", "x"]), "npz::write: arrays have the name \"x\" twice");
        assert_eq!(text(&["x\0y"]), "npz::write: arrays have a name with a NUL: \"x\\0y\"");
        let long = "n".repeat(65_001);
        assert_eq!(text(&[&long]), "npz::write: arrays have a name of 65001 bytes");
        let deep = one.reshape(vec![1; 65]).unwrap();
        let error = npz::write(&path, [("x", &deep)]).unwrap_err().to_string();
        assert_eq!(error, "npz::write: tensor has rank 65, NumPy reads at most 64");
        assert!(!path.exists());
        npz::write(&path, [(&long[1..], &one)]).unwrap();
        assert_eq!(npz::read(&path).unwrap()[0].0, long[1..]);
        let nowhere = folder.file("no/where.npz");
        assert!(matches!(npz::write(&nowhere, [("x", &one)]).unwrap_err(), Error::Io { .. }));
    }

    #[test]
    fn archives_made_by_hand_are_read() {
        let folder = Scratch::new("npz-hand");
        let good = [
            Entry::stored("a.npy", &array()),
            Entry::deflated("../../etc/passwd.npy", &array()),
            Entry::deflated("/absolute/x.npy", &array()),
            Entry::stored("c:\\x.npy", &array()),
        ];
        let arrays = read(&folder, &zip(&good)).unwrap();
        let names: Vec<&str> = arrays.iter().map(|(name, _)| &name[..]).collect();
        // A name is a name: nothing was created where it points.
        assert_eq!(names, ["a", "../../etc/passwd", "/absolute/x", "c:\\x"]);
        assert!(arrays.iter().all(|(_, a)| bytes_of(a) == array()));
        assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 1);
        // Behind other data, as in a program that unpacks itself.
        let behind = [b"#!/bin/sh\n".to_vec(), zip(&good)].concat();
        assert_eq!(read(&folder, &behind).unwrap().len(), 4);
    }

    #[test]
    fn bad_entries_are_refused_by_name() {
        let folder = Scratch::new("npz-bad");
        let array = array();
        let stored = || Entry::stored("x.npy", &array);
        let deflated = || Entry::deflated("x.npy", &array);
        let header = |shape: &str| with_shape(shape, &[0; 1000]);
        for (entry, text) in [
            (Entry::stored("x.txt", b"text"), "entry \"x.txt\": is not named like an array, *.npy"),
            (Entry::stored("x/", b""), "entry \"x/\": is not named like an array, *.npy"),
            (
                Entry::stored("x.npy", b"text, not an array"),
                "entry \"x.npy\": magic number [74, 65, 78, 74, 2c, 20] is not that of an npy file",
            ),
            (Entry::stored("x.npy", b"text"), "entry \"x.npy\": ends within the magic number"),
            (
                Entry::deflated("x.npy", &array[..139]),
                "entry \"x.npy\": has 11 bytes of data, where shape [3] of f32 takes 12",
            ),
            (
                Entry::deflated("x.npy", &[&array[..], b"more"].concat()),
                "entry \"x.npy\": has 16 bytes of data, where shape [3] of f32 takes 12",
            ),
            // A bomb: more than any deflate stream of that length can hold.
            (
                Entry { size: u32::MAX - 1, ..deflated() },
                "entry \"x.npy\": claims 4294967294 bytes, and 150 packed ones hold at most 154800",
            ),
            (
                Entry { size: 141, ..stored() },
                "entry \"x.npy\": claims 141 bytes, and 140 packed ones hold at most 140",
            ),
            // Claims that a deflate stream could hold, and this one does not.
            (
                Entry { size: 66 + 40_000, ..Entry::deflated("x.npy", &header("(10000,)")) },
                "entry \"x.npy\": has 39997 bytes of data, where shape [10000] of f32 takes 40000",
            ),
            (
                Entry { size: 69 + 40_000, ..Entry::deflated("x.npy", &header("(10000,)")) },
                "entry \"x.npy\": unpacks to 1000 bytes of data, not 40000",
            ),
            // More than it claims: no more than a byte of it is unpacked.
            (
                Entry { size: 65 + 12, ..Entry::deflated("x.npy", &header("(3,)")) },
                "entry \"x.npy\": cannot be unpacked: File is larger",
            ),
            (
                Entry { size: 65 + 12, ..Entry::stored("x.npy", &header("(3,)")) },
                "entry \"x.npy\": cannot be unpacked: File is larger",
            ),
            (Entry { crc: 1, ..stored() }, "entry \"x.npy\": cannot be unpacked: Invalid checksum"),
            (
                Entry { crc: 1, ..deflated() },
                "entry \"x.npy\": cannot be unpacked: Invalid checksum",
            ),
            (
                Entry { method: 12, ..stored() },
                "entry \"x.npy\": is compressed by Bzip2, not by deflate",
            ),
            (Entry { flags: 1, ..stored() }, "entry \"x.npy\": is not readable as a zip archive: "),
            (
                Entry { packed_size: 0x00ff_ffff, size: 0x00ff_ffff, ..stored() },
                "has entries that overlap",
            ),
        ] {
            // What follows is the zip crate's.
            let found = refusal(&folder, &zip(&[entry]));
            assert!(found.starts_with(text), "{found}, not {text}");
        }
        // The same place many times over.
        let mut twice = zip(&[stored(), Entry { name: "y.npy", ..stored() }]);
        let second = twice.len() - 22 - 5 - 4;
        assert_eq!(twice[second..second + 4], 175_u32.to_le_bytes());
        twice[second..second + 4].fill(0);
        assert_eq!(refusal(&folder, &twice), "has entries that overlap");
        assert_eq!(refusal(&folder, &zip(&[stored(), stored()])), "has two entries of one name");
        let damaged = Entry { packed: vec![0xff; 150], ..deflated() };
        let text = refusal(&folder, &zip(&[damaged]));
        assert!(text.starts_with("entry \"x.npy\": cannot be unpacked: "), "{text}");
        let text = refusal(&folder, b"no archive");
        assert!(text.starts_with("is not readable as a zip archive: "), "{text}");
        assert!(matches!(npz::read(folder.file("none")).unwrap_err(), Error::Io { .. }));
    }

    #[test]
    fn truncated_and_changed_archives_do_not_panic() {
        let folder = Scratch::new("npz-changed");
        let path = folder.file("archive.npz");
        for name in ["stored.npz", "compressed.npz"] {
            let whole = fs::read(numpy_file(name)).unwrap();
            for cut in 0..whole.len() {
                assert!(read(&folder, &whole[..cut]).is_err(), "{name} cut at {cut}");
            }
        }
        let whole = fs::read(numpy_file("compressed.npz")).unwrap();
        let change = (any::<prop::sample::Index>(), any::<u8>());
        proptest!(ProptestConfig::with_cases(1000), |(changes in prop::collection::vec(change, 1..4))| {
            let mut bytes = whole.clone();
            changes.iter().for_each(|(at, byte)| bytes[at.index(whole.len())] = *byte);
            fs::write(&path, &bytes).unwrap();
            let _ = npz::read(&path);
        });
    }

    #[test]
    fn numpy_reads_archives_and_archives_of_numpy_are_read() {
        let test = "numpy_reads_archives_and_archives_of_numpy_are_read";
        let Some(python) = python(test) else { return };
        let folder = Scratch::new("npz-live");
        let x = Tensor::from_vec((0..6000).map(f64::from).collect(), [20, 300]).unwrap();
        let arrays = [
            ("x", Array::from(&x)),
            ("layer/ü", Array::from(x.transpose(0, 1).unwrap())),
            ("", Array::from(Tensor::scalar(true))),
            ("empty", Array::from(Tensor::full([2, 0], 1_u8).unwrap())),
        ];
        npz::write(folder.file("ours.npz"), arrays.iter().map(|(n, a)| (n, a))).unwrap();
        let script = r#"
import pathlib, sys, zipfile
import numpy as np
folder = pathlib.Path(sys.argv[1])
arrays = dict(np.load(folder / "ours.npz"))
assert list(arrays) == ["x", "layer/ü", "", "empty"], list(arrays)
x = np.arange(6000.0).reshape(20, 300)
np.testing.assert_array_equal(arrays["x"], x)
np.testing.assert_array_equal(arrays["layer/ü"], x.T)
assert arrays["layer/ü"].dtype == x.dtype and arrays["layer/ü"].shape == (300, 20)
assert arrays[""].shape == () and arrays[""] and arrays["empty"].shape == (2, 0)
with zipfile.ZipFile(folder / "ours.npz") as archive:
    assert archive.testzip() is None
    assert all(i.compress_type == zipfile.ZIP_DEFLATED for i in archive.infolist())
np.savez(folder / "stored.npz", **arrays)
np.savez_compressed(folder / "compressed.npz", **arrays)
"#;
        run(python, script, &folder);
        for name in ["stored.npz", "compressed.npz"] {
            let back = npz::read(folder.file(name)).unwrap();
            assert_eq!(back.len(), arrays.len());
            for ((name, array), (name_back, array_back)) in arrays.iter().zip(&back) {
                assert_eq!(name, name_back);
                assert_eq!(bytes_of(array), bytes_of(array_back));
            }
        }
    }
}
