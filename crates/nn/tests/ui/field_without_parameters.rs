use nn::prelude::*;

#[derive(Parameters)]
struct Model {
    layer: Linear<f32>,
    heads: usize,
}

fn main() {}
