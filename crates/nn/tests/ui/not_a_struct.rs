use nn::prelude::*;

#[derive(Parameters)]
enum Model {
    Small(Linear<f32>),
}

#[derive(Parameters)]
struct Empty;

#[derive(Parameters)]
struct Typo {
    #[parameters(skipped)]
    layer: Linear<f32>,
}

fn main() {}
