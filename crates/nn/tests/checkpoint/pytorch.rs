//! Weights that PyTorch saved, and what its models made of some rows. `data/make_pytorch_weights.py`.

use std::path::{Path, PathBuf};

use nn::optim::StateDict;
use nn::prelude::*;
use nn::{LoadOptions, Visitor, load_safetensors_with};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The sums of the layers are of at most 8 products of numbers below 4, in two orders: each is off by
/// less than 8 roundings of 2⁻²⁴ of a sum below 16, and the layers after it pass on a few times that.
const TOLERANCE: f32 = 1e-5;

fn assert_matches(model: &dyn Module<Elem = f32>, name: &str) {
    let forward = StateDict::<f32>::load_safetensors(file("pytorch_forward.safetensors")).unwrap();
    let y = model.forward(&Var::constant(forward.tensors["x"].clone())).unwrap();
    assert_eq!(y.shape(), [5, 3]);
    for (ours, theirs) in y.value().to_vec().into_iter().zip(forward.tensors[name].to_vec()) {
        assert!((ours - theirs).abs() < TOLERANCE, "{ours} {theirs}");
    }
}

#[test]
fn a_state_dict_of_pytorch_loads_by_name() {
    let mut rng = Generator::new(3);
    let mut linear = |inputs, outputs| Linear::<f32>::new(inputs, outputs, &mut rng).unwrap();
    let mut model = Sequential::new()
        .append(linear(4, 8))
        .append(ReLU::new())
        .append(linear(8, 8))
        .append(Tanh::new())
        .append(linear(8, 3));
    load_safetensors(&mut model, file("pytorch_mlp.safetensors")).unwrap();
    assert_matches(&model, "mlp");
}

/// A normalisation in evaluation mode, whose statistics are parameters.
struct Norm {
    weight: Parameter<f32>,
    bias: Parameter<f32>,
    running_mean: Parameter<f32>,
    running_var: Parameter<f32>,
}

impl Norm {
    fn new(n: usize) -> Self {
        let parameter = || Parameter::new(Tensor::zeros([n]).unwrap());
        let (weight, bias) = (parameter(), parameter());
        Norm { weight, bias, running_mean: parameter(), running_var: parameter() }
    }
}

impl Parameters for Norm {
    type Elem = f32;
    fn visit<'a>(&'a self, v: &mut Visitor<'_, &'a Parameter<f32>>) {
        v.parameter("weight", &self.weight);
        v.parameter("bias", &self.bias);
        v.parameter("running_mean", &self.running_mean);
        v.parameter("running_var", &self.running_var);
    }
    fn visit_mut<'a>(&'a mut self, v: &mut Visitor<'_, &'a mut Parameter<f32>>) {
        v.parameter("weight", &mut self.weight);
        v.parameter("bias", &mut self.bias);
        v.parameter("running_mean", &mut self.running_mean);
        v.parameter("running_var", &mut self.running_var);
    }
}

impl Module for Norm {
    fn forward(&self, x: &Var<f32>) -> Result<Var<f32>> {
        let [mean, var] = [&self.running_mean, &self.running_var].map(|p| p.bind_like(x));
        Ok((x - mean) / (var + 1e-5).sqrt() * self.weight.bind_like(x) + self.bias.bind_like(x))
    }
}

#[test]
fn the_counter_of_a_normalisation_is_passed_over() {
    let mut rng = Generator::new(4);
    let mut model = Sequential::new()
        .append(Linear::new(4, 8, &mut rng).unwrap())
        .append(Norm::new(8))
        .append(ReLU::new())
        .append(Linear::new(8, 3, &mut rng).unwrap());
    let path = file("pytorch_batch_norm.safetensors");
    let report = load_safetensors_with(&mut model, &path, LoadOptions::default()).unwrap();
    assert!(report.is_complete() && report.loaded.len() == 8, "{report}");
    assert_matches(&model, "batch_norm");
    // It is there, and a number that is no counter is not passed over.
    let bytes = std::fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("1.num_batches_tracked"));
}

#[test]
fn pytorchs_weights_of_another_model_are_refused() {
    let mut model = Linear::<f32>::new(4, 8, &mut Generator::new(0)).unwrap();
    let before = model.weight.value().to_vec();
    let error = load_safetensors(&mut model, file("pytorch_mlp.safetensors")).unwrap_err();
    assert!(
        error.to_string().starts_with("load_safetensors: bias is missing; weight is missing; 0.")
    );
    assert_eq!(model.weight.value().to_vec(), before);
    let mut double =
        Sequential::<f64>::new().append(Linear::new(4, 8, &mut Generator::new(0)).unwrap());
    let error = load_safetensors(&mut double, file("pytorch_mlp.safetensors")).unwrap_err();
    assert!(error.to_string().ends_with("has elements of type F32, expected F64"), "{error}");
}
