//! How much memory a lying npy or npz file can make its reader take: as much as the file is long.
//!
//! A file of its own, with one test, because the counters are the whole process's.

use std::fs;
use std::path::PathBuf;

use tensor::{Tensor, npy, pool};

/// What all refused inputs together may add to the address space: stacks and the allocator's arenas,
/// where the smallest lie below is of 4 GiB.
const ADDRESS_SPACE: usize = 256 << 20;

/// The largest address space so far, where the system says.
fn peak() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmPeak:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<usize>().ok()? << 10)
}

fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tensor-memory-{}-{name}", std::process::id()))
}

fn with_shape(shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn memory_is_taken_for_what_is_there() {
    let before = peak();
    if before.is_none() {
        eprintln!("skipped in part: this system does not say how much memory a process takes");
    }
    let mut bad = vec![[b"\x93NUMPY\x02\x00".to_vec(), u32::MAX.to_le_bytes().to_vec()].concat()];
    for shape in [
        "(536870912,)",
        "(1099511627776, 1)",
        "(1, 4611686018427387904)",
        "(1099511627776, 1099511627776)",
        "(2305843009213693953,)",
        "(0, 4611686018427387904, 4611686018427387904)",
    ] {
        bad.extend([with_shape(shape, &[]), with_shape(shape, &[0; 40_000])]);
    }
    let path = scratch("bad");
    for bytes in &bad {
        pool::clear();
        let fresh = pool::stats().fresh_blocks;
        fs::write(&path, bytes).unwrap();
        npy::from_bytes(bytes).unwrap_err();
        npy::read::<f64>(&path).unwrap_err();
        npy::read_any(&path).unwrap_err();
        // No tensor above 16 KiB was made, not even for a moment.
        assert_eq!(pool::stats().fresh_blocks, fresh);
    }
    // A right file takes one block, at most a quarter longer than the data.
    pool::clear();
    let bytes = with_shape("(10000, 10)", &[0; 800_000]);
    fs::write(&path, &bytes).unwrap();
    let live = pool::stats().live_bytes;
    let x: Tensor<f64> = npy::read(&path).unwrap();
    assert_eq!(x.numel(), 100_000);
    assert!(pool::stats().live_bytes - live <= 800_000 / 4 * 5 + 4096);
    assert_eq!(pool::stats().pooled_bytes, 0);
    #[cfg(feature = "npz")]
    archives();
    if let (Some(before), Some(after)) = (before, peak()) {
        assert!(after - before < ADDRESS_SPACE, "{} MiB more", (after - before) >> 20);
    }
    fs::remove_file(&path).unwrap();
}

#[cfg(feature = "npz")]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn archives() {
    use tensor::npz;
    let path = scratch("npz");
    // 8 MB of zeros are 8 KB packed, and an honest archive.
    npz::write(&path, [("x", &Tensor::<f64>::zeros([1_000_000]).unwrap())]).unwrap();
    let good = fs::read(&path).unwrap();
    assert!(good.len() < 12_000);
    assert_eq!(npz::read(&path).unwrap()[0].1.shape(), [1_000_000]);

    // All its sizes, in whichever fields, claim 4 GiB; then an end that claims more entries.
    let real = (8_000_128_u32).to_le_bytes();
    let mut lying = good.clone();
    for at in 0..good.len() - 4 {
        if good[at..at + 4] == real {
            lying[at..at + 4].fill(0xfe);
        }
    }
    assert_ne!(lying, good);
    let mut crowded = vec![0; 60_000];
    crowded.extend(&good);
    let end = crowded.len() - 22;
    assert_eq!(&crowded[end..end + 4], b"PK\x05\x06");
    crowded[end + 8..end + 12].fill(0xf0);
    let mut long_directory = crowded.clone();
    long_directory[end + 12..end + 16].fill(0xf0);
    for bytes in [lying, crowded, long_directory, zip64(1 << 20, 1 << 20, u64::MAX / 2)] {
        pool::clear();
        let fresh = pool::stats().fresh_blocks;
        fs::write(&path, bytes).unwrap();
        npz::read(&path).unwrap_err();
        assert_eq!(pool::stats().fresh_blocks, fresh);
    }
    fs::remove_file(&path).unwrap();
}

/// `before` zeros, and the end of an archive of many entries in a long directory.
#[cfg(feature = "npz")]
fn zip64(before: usize, entries: u64, directory: u64) -> Vec<u8> {
    let mut bytes = vec![0; before];
    let at = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for field in [entries, entries, directory, at] {
        bytes.extend(field.to_le_bytes());
    }
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(at.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0, 0]);
    bytes
}
