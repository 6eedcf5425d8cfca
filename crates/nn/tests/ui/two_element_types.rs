use nn::prelude::*;

#[derive(Parameters)]
struct Model {
    coarse: Linear<f32>,
    fine: Linear<f64>,
}

fn main() {}
