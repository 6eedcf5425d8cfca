//! Optimisers and schedules: against PyTorch, against their formulas, at the edges, and resumed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edges;
mod formulas;
mod pytorch;
mod resume;
mod schedules;

use nn::Visitor;
use nn::prelude::*;

/// A model of some named tensors.
struct Several<T: Float>(Vec<(String, Parameter<T>)>);

impl<T: Float> Parameters for Several<T> {
    type Elem = T;
    fn visit<'a>(&'a self, v: &mut Visitor<'_, &'a Parameter<T>>) {
        self.0.iter().for_each(|(name, p)| v.parameter(name, p));
    }
    fn visit_mut<'a>(&'a mut self, v: &mut Visitor<'_, &'a mut Parameter<T>>) {
        self.0.iter_mut().for_each(|(name, p)| v.parameter(name, p));
    }
}

impl<T: Float> Several<T> {
    fn new(parameters: &[(&str, Tensor<T>)]) -> Self {
        let named = parameters.iter().map(|(n, x)| ((*n).to_owned(), Parameter::new(x.clone())));
        Several(named.collect())
    }

    /// The parameters `a: [4, 3]` and `b: [5]` of `data/make_pytorch_optim.py`.
    fn of_the_fixture() -> Self {
        let of = |start: i64, n: i64| (start..start + n).map(|i| (3 * i % 5 - 2) as f64 / 3.0);
        let tensor = |start, n, shape: &[usize]| {
            Tensor::from_vec(of(start, n).map(T::from_f64).collect(), shape).unwrap()
        };
        Several::new(&[("a", tensor(0, 12, &[4, 3])), ("b", tensor(12, 5, &[5]))])
    }

    fn value(&self, index: usize) -> Vec<f64> {
        self.0[index].1.value().to_vec().into_iter().map(T::to_f64).collect()
    }

    fn values(&self) -> Vec<f64> {
        (0..self.0.len()).flat_map(|index| self.value(index)).collect()
    }

    fn bits(&self) -> Vec<u64> {
        self.values().into_iter().map(f64::to_bits).collect()
    }

    fn id(&self, index: usize) -> autograd::ParameterId {
        self.0[index].1.id()
    }

    /// The gradients of `Σ wᵢ·gᵢ`: the numbers given, none where there is `None`.
    fn gradients(&self, of: &[Option<Vec<T>>]) -> Gradients<T> {
        let tape = Tape::new();
        let mut sum = tape.var(Tensor::scalar(T::ZERO));
        for ((_, p), g) in self.0.iter().zip(of) {
            if let Some(g) = g {
                let g = Tensor::from_vec(g.clone(), p.value().shape()).unwrap();
                sum = sum + (p.bind(&tape) * Var::constant(g)).sum();
            }
        }
        sum.backward().unwrap()
    }

    /// The gradients of the fixture at step t; none for the parameters in `missing`.
    fn fixture_gradients(&self, t: i64, missing: &[usize]) -> Gradients<T> {
        let mut start = 0;
        let mut of = Vec::new();
        for index in 0..self.0.len() {
            let w = self.value(index);
            let first = start;
            start += w.len() as i64;
            let g = w.into_iter().zip(first..).map(|(w, i)| T::from_f64(gradient(w, t, i)));
            of.push((!missing.contains(&index)).then(|| g.collect()));
        }
        self.gradients(&of)
    }
}

fn gradient(w: f64, t: i64, i: i64) -> f64 {
    let pull = (0.5 + (i % 4) as f64) * (w - (5 * i % 7 - 3) as f64 / 4.0);
    pull + ((7 * t + 13 * i) % 11 - 5) as f64 / 10.0
}

fn fixture() -> serde_json::Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pytorch_optim.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(v: &serde_json::Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}
