//! Named parameters as a value, and as a safetensors file that Python reads too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use autograd::{Element, Error, Float, Result, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use crate::files::{io_error, write_atomically};
use crate::parameters::{Parameter, Parameters, Visitor};

/// The values of all parameters and buffers by path. Nothing is copied.
pub fn state_dict<M: Parameters + ?Sized>(model: &M) -> BTreeMap<String, Tensor<M::Elem>> {
    let mut state = BTreeMap::new();
    model.visit(&mut Visitor::new(&mut |path: &str, p: &Parameter<M::Elem>| {
        state.insert(path.to_owned(), p.value().clone());
    }));
    state
}

/// Sets every parameter from `state`, which must have exactly the model's names and shapes.
///
/// # Errors
/// [`Error::StateDict`], saying what is missing, unexpected, or of another shape; the model is then
/// as it was.
pub fn load_state_dict<M: Parameters + ?Sized>(
    model: &mut M,
    state: &BTreeMap<String, Tensor<M::Elem>>,
) -> Result<()> {
    let expected = state_dict(model);
    let mut problems = Vec::new();
    for (name, value) in &expected {
        match state.get(name) {
            None => problems.push(format!("{name} is missing")),
            Some(found) if found.shape() != value.shape() => problems.push(format!(
                "{name} has shape {:?}, expected {:?}",
                found.shape(),
                value.shape()
            )),
            Some(_) => {}
        }
    }
    let unexpected = state.keys().filter(|name| !expected.contains_key(*name));
    problems.extend(unexpected.map(|name| format!("{name} is unexpected")));
    if !problems.is_empty() {
        let reason = problems.join("; ");
        return Err(Error::StateDict { op: "load_state_dict", reason });
    }
    model.visit_mut(&mut Visitor::new(&mut |path: &str, p: &mut Parameter<M::Elem>| {
        if let Some(value) = state.get(path) {
            *p.value_mut() = value.clone();
        }
    }));
    Ok(())
}

/// Saves the parameters as safetensors; a kill at any moment leaves the old file or the new.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if the parameters cannot be named in the format.
pub fn save_safetensors<M: Parameters + ?Sized>(model: &M, path: impl AsRef<Path>) -> Result<()> {
    let entries = state_dict(model).into_iter();
    write(path.as_ref(), entries.map(|(name, value)| Entry::new(name, &value)).collect())
}

/// Loads parameters saved by [`save_safetensors`], or by `safetensors.torch.save_file`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a file that is not safetensors or has other element types;
/// [`Error::StateDict`] for other names or shapes. The model is then as it was.
pub fn load_safetensors<M: Parameters + ?Sized>(
    model: &mut M,
    path: impl AsRef<Path>,
) -> Result<()> {
    let mut state = BTreeMap::new();
    read(path.as_ref(), |name, view| {
        state.insert(name.to_owned(), tensor(name, view)?);
        Ok(())
    })?;
    load_state_dict(model, &state)
}

/// A tensor on its way to a file.
pub(crate) struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn new<T: Float>(name: String, value: &Tensor<T>) -> Self {
        let mut bytes = Vec::with_capacity(value.numel() * size_of::<T>());
        value.to_vec().into_iter().for_each(|x| x.write_le(&mut bytes));
        Entry { name, dtype: dtype::<T>(), shape: value.shape().to_vec(), bytes }
    }
}

/// Writes a file; a kill at any moment leaves the old one or the new.
pub(crate) fn write(path: &Path, entries: Vec<Entry>) -> Result<()> {
    let format =
        |e: &dyn std::fmt::Display| Error::Format { path: path.into(), reason: e.to_string() };
    let views = (entries.iter())
        .map(|Entry { name, dtype, shape, bytes }| {
            let view = TensorView::new(*dtype, shape.clone(), bytes);
            Ok((name, view.map_err(|e| format(&e))?))
        })
        .collect::<Result<Vec<_>>>()?;
    let bytes = serialize(views, None).map_err(|e| format(&e))?;
    write_atomically(path, &bytes)
}

/// Shows every tensor of a file to `take`; a reason it gives is an [`Error::Format`].
pub(crate) fn read(
    path: &Path,
    mut take: impl FnMut(&str, &TensorView<'_>) -> Result<(), String>,
) -> Result<()> {
    let format = |reason: String| Error::Format { path: path.into(), reason };
    let bytes = fs::read(path).map_err(io_error(path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| format(format!("not a safetensors file: {e}")))?;
    file.iter().try_for_each(|(name, view)| take(name, &view).map_err(format))
}

/// The tensor in a view, or why it is none of this type.
pub(crate) fn tensor<T: Float>(name: &str, view: &TensorView<'_>) -> Result<Tensor<T>, String> {
    let (found, want) = (view.dtype(), dtype::<T>());
    if found != want {
        return Err(format!("{name} has elements of type {found:?}, expected {want:?}"));
    }
    let elements = view.data().chunks_exact(size_of::<T>()).filter_map(T::read_le);
    Tensor::from_vec(elements.collect(), view.shape()).map_err(|e| e.to_string())
}

fn dtype<T: Float>() -> Dtype {
    if T::NAME == <f32 as Element>::NAME { Dtype::F32 } else { Dtype::F64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::Linear;
    use autograd::Generator;

    fn model(seed: u64) -> Linear<f32> {
        Linear::new(3, 2, &mut Generator::new(seed)).unwrap()
    }

    fn temporary(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("gradus-{}-{name}", std::process::id()))
    }

    #[test]
    fn round_trips_bit_for_bit() {
        let path = temporary("round-trip.safetensors");
        let (a, mut b) = (model(1), model(2));
        save_safetensors(&a, &path).unwrap();
        load_safetensors(&mut b, &path).unwrap();
        assert_eq!(a.weight.value().to_vec(), b.weight.value().to_vec());
        let first = fs::read(&path).unwrap();
        save_safetensors(&b, &path).unwrap();
        assert_eq!(first, fs::read(&path).unwrap());
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn says_what_does_not_fit_and_leaves_the_model_alone() {
        let mut m = model(1);
        let before = m.weight.value().to_vec();
        let mut state = state_dict(&model(2));
        state.insert("extra".into(), Tensor::scalar(1.0));
        state.remove("bias");
        state.insert("weight".into(), Tensor::zeros([3, 2]).unwrap());
        let text = load_state_dict(&mut m, &state).unwrap_err().to_string();
        assert_eq!(
            text,
            "load_state_dict: bias is missing; weight has shape [3, 2], expected [2, 3]; extra is unexpected"
        );
        assert_eq!(m.weight.value().to_vec(), before);
    }

    #[test]
    fn corrupt_files_are_refused() {
        let path = temporary("corrupt.safetensors");
        save_safetensors(&model(1), &path).unwrap();
        let good = fs::read(&path).unwrap();
        let mut m = model(3);
        let before = m.weight.value().to_vec();
        for cut in 0..good.len() {
            fs::write(&path, &good[..cut]).unwrap();
            let error = load_safetensors(&mut m, &path).unwrap_err();
            assert!(matches!(error, Error::Format { .. }), "{cut}: {error}");
        }
        let mut double: Linear<f64> = Linear::new(3, 2, &mut Generator::new(1)).unwrap();
        fs::write(&path, &good).unwrap();
        let text = load_safetensors(&mut double, &path).unwrap_err().to_string();
        assert!(text.contains("has elements of type F32, expected F64"), "{text}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(load_safetensors(&mut m, &path), Err(Error::Io { .. })));
        assert_eq!(m.weight.value().to_vec(), before);
    }
}
