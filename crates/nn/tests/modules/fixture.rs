//! The cases of `data/make_pytorch_modules.py`: what they say, and what follows from its formula.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use nn::prelude::*;
use serde_json::Value;

/// The file's text as JSON.
pub(crate) fn fixture() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/pytorch_modules.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The cases of a file.
pub(crate) fn cases(file: &Value) -> impl Iterator<Item = Case<'_>> {
    list(&file["cases"]).iter().map(|json| Case { json, read: RefCell::default() })
}

/// Element i of tensor k is `(2·((i + 131·(k + 1))³ mod 1019) − 1017)/divisor + shift`. The divisor
/// is a power of two, so that nothing is rounded.
pub(crate) fn formula(k: usize, shape: &[usize], divisor: f64, shift: f64) -> Tensor<f64> {
    let cube = |i: usize| (i + 131 * (k + 1)).pow(3) % 1019;
    let element = |i| (2.0 * cube(i) as f64 - 1017.0) / divisor + shift;
    Tensor::from_vec((0..shape.iter().product()).map(element).collect(), shape).unwrap()
}

/// One case, which remembers what of its options was read.
pub(crate) struct Case<'a> {
    json: &'a Value,
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Case<'a> {
    pub(crate) fn module(&self) -> &'a str {
        self.json["module"].as_str().unwrap()
    }

    pub(crate) fn is_training(&self) -> bool {
        self.json["training"].as_bool().unwrap()
    }

    pub(crate) fn steps(&self) -> &'a [Value] {
        list(&self.json["steps"])
    }

    /// The module and all its options, to name the case in a message.
    pub(crate) fn label(&self) -> String {
        let [options, call, inputs] = ["options", "call", "inputs"].map(|key| &self.json[key]);
        let mode = if self.is_training() { "training" } else { "evaluation" };
        format!("{} {options} {call} {inputs} {mode}", self.module())
    }

    /// An argument of the module or of the call.
    pub(crate) fn find(&self, name: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(name.to_owned());
        self.json["options"].get(name).or_else(|| self.json["call"].get(name))
    }

    /// The arguments that nobody asked for: the module was not built as the case says.
    pub(crate) fn unread(&self) -> Vec<&'a String> {
        let keys = ["options", "call"].map(|of| self.json[of].as_object().unwrap().keys());
        let read = self.read.borrow();
        keys.into_iter().flatten().filter(|key| !read.contains(*key)).collect()
    }

    pub(crate) fn number(&self, name: &str, default: f64) -> f64 {
        self.find(name).map_or(default, |v| v.as_f64().unwrap())
    }

    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.find(name).map_or(default, |v| v.as_bool().unwrap())
    }

    pub(crate) fn size(&self, name: &str) -> usize {
        size(self.find(name).unwrap())
    }

    pub(crate) fn dim(&self, name: &str, default: isize) -> isize {
        self.find(name).map_or(default, |v| v.as_i64().unwrap() as isize)
    }

    /// One size for each dim.
    pub(crate) fn sizes<const D: usize>(&self, name: &str) -> Option<[usize; D]> {
        Some(match self.find(name)? {
            Value::Array(sizes) => std::array::from_fn(|d| size(&sizes[d])),
            one => [size(one); D],
        })
    }

    /// A table of truth values, of one row or several.
    pub(crate) fn truths(&self, name: &str) -> Option<Tensor<bool>> {
        let rows = list(self.find(name)?);
        let Some(width) = rows[0].as_array().map(Vec::len) else {
            let row: Vec<bool> = rows.iter().map(|v| v.as_bool().unwrap()).collect();
            return Some(Tensor::from_vec(row, [rows.len()]).unwrap());
        };
        let all = rows.iter().flat_map(|row| list(row).iter().map(|v| v.as_bool().unwrap()));
        Some(Tensor::from_vec(all.collect(), [rows.len(), width]).unwrap())
    }

    /// The names of the parameters and buffers, in PyTorch's order.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.state().iter().map(|entry| entry[0].as_str().unwrap()).collect()
    }

    fn state(&self) -> &'a [Value] {
        list(&self.json["state"])
    }

    /// The values of the parameters and buffers by name.
    pub(crate) fn state_dict(&self) -> BTreeMap<String, Tensor<f64>> {
        let value = |(k, entry): (usize, &Value)| {
            let learned = entry[2].as_bool().unwrap();
            let value = formula(k, &sizes(&entry[1]), 1024.0, if learned { 0.0 } else { 1.5 });
            (entry[0].as_str().unwrap().to_owned(), value)
        };
        self.state().iter().enumerate().map(value).collect()
    }

    pub(crate) fn input_names(&self) -> Vec<&'a str> {
        list(&self.json["inputs"]).iter().map(|entry| entry[0].as_str().unwrap()).collect()
    }

    /// The number of the first tensor of a step: of an input.
    fn first(&self, step: usize) -> usize {
        let outputs = list(&self.steps()[0]["outputs"]).len();
        self.state().len() + step * (list(&self.json["inputs"]).len() + outputs)
    }

    pub(crate) fn inputs(&self, step: usize) -> Vec<Tensor<f64>> {
        let divisor = self.json["divisor"].as_f64().unwrap();
        let value = |(i, entry): (usize, &Value)| {
            formula(self.first(step) + i, &sizes(&entry[1]), divisor, 0.0)
        };
        list(&self.json["inputs"]).iter().enumerate().map(value).collect()
    }

    /// The upstream gradient of an output of this shape.
    pub(crate) fn upstream(&self, step: usize, output: usize, shape: &[usize]) -> Tensor<f64> {
        let inputs = list(&self.json["inputs"]).len();
        formula(self.first(step) + inputs + output, shape, 1024.0, 0.0)
    }
}

pub(crate) fn list(v: &Value) -> &[Value] {
    v.as_array().unwrap()
}

pub(crate) fn floats(v: &Value) -> Vec<f64> {
    list(v).iter().map(|x| x.as_f64().unwrap()).collect()
}

pub(crate) fn sizes(v: &Value) -> Vec<usize> {
    list(v).iter().map(size).collect()
}

fn size(v: &Value) -> usize {
    v.as_u64().unwrap() as usize
}
