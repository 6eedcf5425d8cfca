//! Damaged and foreign files: refused with what was found and what was expected, and nothing changed.

use std::fs;
use std::path::Path;

use nn::optim::StateDict;
use nn::prelude::*;
use nn::{Checkpoint, Position};

use super::{Run, Scratch, bytes};

/// A checkpoint that is small, with one of everything.
fn small() -> Vec<u8> {
    let model = Linear::<f32>::new(2, 1, &mut Generator::new(0)).unwrap();
    let mut state = StateDict::default();
    state.numbers.insert("n".into(), 1.5);
    let position = Position { epoch: 1, batch: 2, step: 3 };
    let checkpoint = Checkpoint::new().with_model(&model).with_generator("g", &Generator::new(1));
    bytes(&checkpoint.with_position(position).with_state("s", state).unwrap())
}

/// A new file: some file systems wait for the disk where one is written over.
fn put(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

/// Why these bytes are refused.
fn refused(path: &Path, bytes: &[u8]) -> String {
    put(path, bytes);
    match Checkpoint::<f32>::load(path) {
        Err(error @ Error::Format { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("was loaded"),
    }
}

#[test]
fn every_truncation_is_refused() {
    let (scratch, good) = (Scratch::new("cut"), small());
    (0..good.len()).for_each(|cut| drop(refused(&scratch.file(), &good[..cut])));
    let longer = [&good[..], &[0]].concat();
    refused(&scratch.file(), &longer);
    fs::write(scratch.file(), good).unwrap();
    Checkpoint::<f32>::load(scratch.file()).unwrap();
}

#[test]
fn every_flipped_bit_is_refused() {
    let (scratch, good) = (Scratch::new("flip"), small());
    for at in 0..good.len() {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            refused(&scratch.file(), &bad);
        }
    }
}

/// Weights have no checksum, for Python writes them too: they load with other values, or not at all.
#[test]
fn a_flipped_bit_in_a_weights_file_does_no_harm() {
    let scratch = Scratch::new("weights");
    let mut model = Linear::<f32>::new(2, 2, &mut Generator::new(0)).unwrap();
    save_safetensors(&model, scratch.file()).unwrap();
    let good = fs::read(scratch.file()).unwrap();
    let header = good.len() - 6 * size_of::<f32>();
    let mut loaded = 0;
    for (at, flip) in (0..good.len()).flat_map(|at| [1_u8, 4, 32, 128, 255].map(|f| (at, f))) {
        let mut bad = good.clone();
        bad[at] ^= flip;
        put(&scratch.file(), &bad);
        let before = model.weight.value().to_vec();
        match load_safetensors(&mut model, scratch.file()) {
            Ok(()) => loaded += 1,
            Err(Error::Format { .. } | Error::StateDict { .. }) => {
                assert!(at < header, "{at}");
                let same = before.iter().zip(model.weight.value().to_vec());
                assert!(same.into_iter().all(|(a, b)| a.to_bits() == b.to_bits()));
            }
            Err(error) => panic!("another error: {error}"),
        }
    }
    assert!(loaded >= 5 * 6 * size_of::<f32>());
}

#[test]
fn a_header_of_any_length_takes_no_memory() {
    let (scratch, good) = (Scratch::new("length"), small());
    for length in [u64::MAX, u64::MAX - 8, 1 << 40, 99_999_999, good.len() as u64] {
        let mut bad = good.clone();
        bad[..8].copy_from_slice(&length.to_le_bytes());
        let text = refused(&scratch.file(), &bad);
        assert!(text.contains("not a safetensors file: "), "{text}");
    }
    // A shape that would not fit in memory.
    let header = br#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    assert!(refused(&scratch.file(), &bytes).contains("not a safetensors file: "));
}

#[test]
fn foreign_files_are_refused_with_what_they_are() {
    let scratch = Scratch::new("foreign");
    let path = scratch.file();
    let mut run = Run::new();
    let before = run.bytes();
    let text = refused(&path, b"PK\x03\x04 a file of another kind, and long enough");
    assert!(text.contains("not a safetensors file"), "{text}");

    save_safetensors(&run.model, &path).unwrap();
    let text = refused(&path, &fs::read(&path).unwrap());
    assert!(text.ends_with("format is not given, expected \"gradus.checkpoint\""), "{text}");
    let pytorch = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/pytorch_mlp.safetensors");
    let text = refused(&path, &fs::read(pytorch).unwrap());
    assert!(text.ends_with("format is \"pt\", expected \"gradus.checkpoint\""), "{text}");

    let later = |good: &[u8], from: &str, to: &str| {
        let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize + 8;
        let text = String::from_utf8(good[8..header].to_vec()).unwrap();
        assert!(text.contains(from) && from.len() == to.len());
        [&good[..8], text.replace(from, to).as_bytes(), &good[header..]].concat()
    };
    let good = small();
    let text = refused(&path, &later(&good, "\"version\":\"1\"", "\"version\":\"2\""));
    assert!(text.ends_with("version is \"2\", expected \"1\""), "{text}");
    let text = refused(&path, &later(&good, "\"elements\":\"f32\"", "\"elements\":\"f64\""));
    assert!(text.ends_with("elements is \"f64\", expected \"f32\""), "{text}");
    let text = refused(&path, &later(&good, "\"position.step\":\"3\"", "\"position.step\":\"4\""));
    assert!(text.ends_with(": damaged"), "{text}");

    fs::write(&path, &good).unwrap();
    let text = Checkpoint::<f64>::load(&path).unwrap_err().to_string();
    assert!(text.ends_with("elements is \"f32\", expected \"f64\""), "{text}");
    // Of another model: the run is as it was.
    let text = run.restore(&Checkpoint::load(&path).unwrap()).unwrap_err().to_string();
    assert!(text.contains("first.bias is missing") && text.contains("weight is unexpected"));
    assert_eq!(run.bytes(), before);
    fs::remove_file(&path).unwrap();
    assert!(matches!(Checkpoint::<f32>::load(&path), Err(Error::Io { .. })));
    assert!(matches!(Checkpoint::<f32>::load(&scratch.0), Err(Error::Io { .. })));
}
