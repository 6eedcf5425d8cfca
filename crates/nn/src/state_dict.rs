//! Named parameters as a value, and as a safetensors file that Python reads too.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use autograd::{Error, Result, Tensor};

use crate::parameters::{Parameter, Parameters, Visitor};
use crate::tensor_file::{Dtype, Entry, TensorView, read, tensor, write};

/// The values of all parameters and buffers by path. Nothing is copied. `torch.nn.Module.state_dict`.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let layer = Linear::<f32>::new(3, 2, &mut Generator::new(0))?;
/// let state = nn::state_dict(&layer);
/// assert_eq!(state["weight"].shape(), [2, 3]);
/// assert_eq!(state["bias"].shape(), [2]);
/// # Ok::<(), nn::Error>(())
/// ```
pub fn state_dict<M: Parameters + ?Sized>(model: &M) -> BTreeMap<String, Tensor<M::Elem>> {
    let mut state = BTreeMap::new();
    model.visit(&mut Visitor::new(&mut |path: &str, p: &Parameter<M::Elem>| {
        state.insert(path.to_owned(), p.value().clone());
    }));
    state
}

/// What loading does with names and shapes that do not fit. The default is an error for each.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Whether the state must have exactly the model's names; else what both have is loaded.
    pub strict: bool,
    /// Whether a parameter of another shape than the one in the state is left as it is; else it is an
    /// error, as in PyTorch, also where names need not fit.
    pub skip_mismatched: bool,
}

impl Default for LoadOptions {
    fn default() -> Self {
        LoadOptions { strict: true, skip_mismatched: false }
    }
}

/// What was loaded and what was not, by name.
///
/// # Examples
/// See [`load_state_dict_with`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Parameters that have the state's values now.
    pub loaded: Vec<String>,
    /// Parameters that the state has not.
    pub missing: Vec<String>,
    /// Names in the state that are no parameters.
    pub unexpected: Vec<String>,
    /// Parameters of another shape than in the state.
    pub mismatched: Vec<Mismatch>,
}

/// A parameter of another shape than in the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The parameter's path.
    pub name: String,
    /// The shape in the state.
    pub found: Vec<usize>,
    /// The parameter's shape.
    pub expected: Vec<usize>,
}

impl LoadReport {
    /// Whether every parameter was loaded and nothing was left over.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.mismatched.is_empty()
    }

    /// What a state would do to a model, of which nothing is changed; `others` are names that the
    /// state has besides.
    fn compare<M: Parameters + ?Sized>(
        model: &M,
        state: &BTreeMap<String, Tensor<M::Elem>>,
        others: Vec<String>,
    ) -> Self {
        let (parameters, mut report) = (state_dict(model), LoadReport::default());
        for (name, value) in &parameters {
            match state.get(name) {
                None => report.missing.push(name.clone()),
                Some(found) if found.shape() != value.shape() => report.mismatched.push(Mismatch {
                    name: name.clone(),
                    found: found.shape().to_vec(),
                    expected: value.shape().to_vec(),
                }),
                Some(_) => report.loaded.push(name.clone()),
            }
        }
        let unexpected = state.keys().filter(|name| !parameters.contains_key(*name));
        report.unexpected = unexpected.cloned().chain(others).collect();
        report.unexpected.sort_unstable();
        report
    }

    /// [`Error::StateDict`] with all that `options` does not allow.
    fn check(&self, op: &'static str, options: LoadOptions) -> Result<()> {
        let names = |all: &[String], what| -> Vec<String> {
            all.iter().filter(|_| options.strict).map(|name| format!("{name} {what}")).collect()
        };
        let mut problems = names(&self.missing, "is missing");
        let mismatched = self.mismatched.iter().filter(|_| !options.skip_mismatched);
        problems.extend(mismatched.map(Mismatch::to_string));
        problems.extend(names(&self.unexpected, "is unexpected"));
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::StateDict { op, reason: problems.join("; ") })
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has shape {:?}, expected {:?}", self.name, self.found, self.expected)
    }
}

/// A line, such as `loaded 3; missing: 4.bias; unexpected: 6.weight`.
impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "loaded {}", self.loaded.len())?;
        for (what, names) in [("missing", &self.missing), ("unexpected", &self.unexpected)] {
            if !names.is_empty() {
                write!(f, "; {what}: {}", names.join(", "))?;
            }
        }
        self.mismatched.iter().try_for_each(|mismatch| write!(f, "; {mismatch}"))
    }
}

/// Sets every parameter from `state`, which must have exactly the model's names and shapes.
/// `torch.nn.Module.load_state_dict`.
///
/// # Errors
/// [`Error::StateDict`], saying what is missing, unexpected, or of another shape; the model is then
/// as it was.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let (a, mut b) = (Linear::<f32>::new(3, 2, &mut rng)?, Linear::new(3, 2, &mut rng)?);
/// nn::load_state_dict(&mut b, &nn::state_dict(&a))?;
/// assert_eq!(a.weight.value().to_vec(), b.weight.value().to_vec());
/// # Ok::<(), nn::Error>(())
/// ```
pub fn load_state_dict<M: Parameters + ?Sized>(
    model: &mut M,
    state: &BTreeMap<String, Tensor<M::Elem>>,
) -> Result<()> {
    load_state_dict_with(model, state, LoadOptions::default()).map(drop)
}

/// [`load_state_dict`] of what fits, where `options` allow that something does not.
/// `torch.nn.Module.load_state_dict(…, strict=False)`.
///
/// # Errors
/// [`Error::StateDict`], saying what does not fit and is not allowed; the model is then as it was.
///
/// # Examples
/// The layers before the last from another model:
/// ```
/// use nn::LoadOptions;
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let mut model = |classes| -> Result<_> {
///     let first = Linear::<f32>::new(8, 4, &mut rng)?;
///     Ok(Sequential::new().append(first).append(Linear::new(4, classes, &mut rng)?))
/// };
/// let (old, mut new) = (model(10)?, model(3)?);
/// let options = LoadOptions { skip_mismatched: true, ..Default::default() };
/// let report = nn::load_state_dict_with(&mut new, &nn::state_dict(&old), options)?;
/// assert_eq!(report.loaded, ["0.bias", "0.weight"]);
/// assert_eq!(
///     report.to_string(),
///     "loaded 2; 1.bias has shape [10], expected [3]; 1.weight has shape [10, 4], expected [3, 4]"
/// );
/// # Ok::<(), nn::Error>(())
/// ```
pub fn load_state_dict_with<M: Parameters + ?Sized>(
    model: &mut M,
    state: &BTreeMap<String, Tensor<M::Elem>>,
    options: LoadOptions,
) -> Result<LoadReport> {
    let report = check("load_state_dict", model, state, Vec::new(), options)?;
    set(model, state);
    Ok(report)
}

/// What [`load_state_dict_with`] would do; nothing is changed.
pub(crate) fn check<M: Parameters + ?Sized>(
    op: &'static str,
    model: &M,
    state: &BTreeMap<String, Tensor<M::Elem>>,
    others: Vec<String>,
    options: LoadOptions,
) -> Result<LoadReport> {
    let report = LoadReport::compare(model, state, others);
    report.check(op, options)?;
    Ok(report)
}

/// Sets the parameters that the state has with their shape.
pub(crate) fn set<M: Parameters + ?Sized>(
    model: &mut M,
    state: &BTreeMap<String, Tensor<M::Elem>>,
) {
    model.visit_mut(&mut Visitor::new(&mut |path: &str, p: &mut Parameter<M::Elem>| {
        let value = state.get(path).filter(|value| value.shape() == p.value().shape());
        if let Some(value) = value {
            *p.value_mut() = value.clone();
        }
    }));
}

/// Saves the parameters as safetensors; a kill at any moment leaves the old file or the new.
/// `safetensors.torch.save_file`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if the parameters cannot be named in the format.
///
/// # Examples
/// See [`load_safetensors`].
pub fn save_safetensors<M: Parameters + ?Sized>(model: &M, path: impl AsRef<Path>) -> Result<()> {
    let entries = state_dict(model).into_iter();
    write(path.as_ref(), entries.map(|(name, value)| Entry::new(name, &value)).collect())
}

/// Loads parameters saved by [`save_safetensors`], or by `safetensors.torch.save_file`.
///
/// PyTorch counts the batches that a normalisation has seen, in integers called
/// `num_batches_tracked`. There are none here, and those are passed over.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a file that is not safetensors or has other element types;
/// [`Error::StateDict`] for other names or shapes. The model is then as it was.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// let mut rng = Generator::new(0);
/// let (a, mut b) = (Linear::<f32>::new(3, 2, &mut rng)?, Linear::<f32>::new(3, 2, &mut rng)?);
/// let path = std::env::temp_dir().join(format!("nn-doc-weights-{}", std::process::id()));
/// save_safetensors(&a, &path)?;
/// load_safetensors(&mut b, &path)?;
/// assert_eq!(a.weight.value().to_vec(), b.weight.value().to_vec());
/// # std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
/// # Ok::<(), nn::Error>(())
/// ```
pub fn load_safetensors<M: Parameters + ?Sized>(
    model: &mut M,
    path: impl AsRef<Path>,
) -> Result<()> {
    load_safetensors_with(model, path, LoadOptions::default()).map(drop)
}

/// [`load_safetensors`] of what fits, where `options` allow that something does not.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] for a file that is not safetensors, or has parameters of another
/// element type; [`Error::StateDict`] for what does not fit and is not allowed. The model is then as
/// it was.
///
/// # Examples
/// ```
/// use nn::prelude::*;
/// use nn::{LoadOptions, load_safetensors_with};
/// let mut rng = Generator::new(0);
/// let saved = Linear::<f32>::without_bias(3, 2, &mut rng)?;
/// let path = std::env::temp_dir().join(format!("nn-doc-some-weights-{}", std::process::id()));
/// save_safetensors(&saved, &path)?;
/// let mut model = Linear::<f32>::new(3, 2, &mut rng)?;
/// let options = LoadOptions { strict: false, ..Default::default() };
/// let report = load_safetensors_with(&mut model, &path, options)?;
/// assert_eq!(report.to_string(), "loaded 1; missing: bias");
/// # std::fs::remove_file(&path).map_err(|source| Error::Io { path, source })?;
/// # Ok::<(), nn::Error>(())
/// ```
pub fn load_safetensors_with<M: Parameters + ?Sized>(
    model: &mut M,
    path: impl AsRef<Path>,
    options: LoadOptions,
) -> Result<LoadReport> {
    let parameters = state_dict(model);
    let (mut state, mut others) = (BTreeMap::new(), Vec::new());
    read(path.as_ref(), |file| {
        for (name, view) in &file.tensors {
            if parameters.contains_key(name) {
                state.insert(name.clone(), tensor(name, view)?);
            } else if !is_counter(name, view) {
                others.push(name.clone());
            }
        }
        Ok(())
    })?;
    let report = check("load_safetensors", model, &state, others, options)?;
    set(model, &state);
    Ok(report)
}

/// Whether this is PyTorch's count of the batches that a normalisation has seen.
fn is_counter(name: &str, view: &TensorView<'_>) -> bool {
    let last = name.rsplit('.').next();
    last == Some("num_batches_tracked") && view.dtype() == Dtype::I64 && view.shape().is_empty()
}

#[cfg(test)]
mod tests {
    use std::fs;

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
