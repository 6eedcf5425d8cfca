//! Layers at their edges: what errors say, training and evaluation, running statistics, masks, sizes of 0
//! and 1. Their values are compared with PyTorch's elsewhere.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use nn::autograd::checkpoint;
use nn::prelude::*;

fn rng() -> Generator {
    Generator::new(3)
}

fn randn(shape: &[usize]) -> Tensor<f64> {
    Tensor::randn(shape, &mut rng()).unwrap()
}

fn constant(shape: &[usize]) -> Var<f64> {
    Var::constant(randn(shape))
}

fn text<R>(result: Result<R>) -> String {
    result.err().map(|e| e.to_string()).unwrap_or_else(|| panic!("not refused"))
}

fn encoder(norm_first: bool) -> TransformerEncoder<f64> {
    let options =
        TransformerEncoderLayerOptions { dim_feedforward: 6, norm_first, ..Default::default() };
    TransformerEncoder::new(2, 4, 2, options, &mut rng()).unwrap()
}

#[test]
fn errors_name_the_layer() {
    let mut model = encoder(false);
    model.layers[1].self_attn.in_proj_weight = Parameter::new(randn(&[12, 5]));
    let said = text(model.forward(&constant(&[3, 5, 4])));
    assert_eq!(said, "layers.1.self_attn.q: linear: inner dimensions differ: [3, 5, 4] × [4, 5]");
    let mut model = encoder(true);
    model.layers[0].linear2 = Linear::new(7, 4, &mut rng()).unwrap();
    let said = text(model.forward(&constant(&[3, 5, 4])));
    assert!(said.starts_with("layers.0.linear2: linear: inner dimensions differ"), "{said}");
    model.norm = Some(LayerNorm::new([3], NormOptions::default()).unwrap());
    model.layers.clear();
    let said = text(model.forward(&constant(&[3, 5, 4])));
    assert!(said.starts_with("norm: layer_norm: "), "{said}");
    let inner =
        Sequential::new().append(Tanh::new()).append(Linear::new(2, 2, &mut rng()).unwrap());
    let model = Sequential::<f64>::new().append(inner);
    assert!(text(model.forward(&constant(&[1, 3]))).starts_with("0.1: linear: "));
}

#[test]
fn options_out_of_range_are_refused() {
    let mut rng = rng();
    let mha = |width, heads, dropout| {
        let options = MultiheadAttentionOptions { dropout, ..Default::default() };
        MultiheadAttention::<f64>::new(width, heads, options, &mut Generator::new(0))
    };
    let conv = |inputs, outputs, kernel, groups| {
        let options = ConvOptions { groups, ..Default::default() };
        Conv2d::<f64>::new(inputs, outputs, kernel, options, &mut Generator::new(0))
    };
    let recurrent = |hidden, num_layers, dropout| {
        let options = RecurrentOptions { num_layers, dropout, ..Default::default() };
        GRU::<f64>::new(2, hidden, options, &mut Generator::new(0))
    };
    let norm = BatchNormOptions { momentum: f64::NAN, ..Default::default() };
    let cases = [
        (text(mha(6, 4, 0.0)), "MultiheadAttention: heads must divide the 6 features, found 4"),
        (text(mha(6, 0, 0.0)), "MultiheadAttention: heads must divide the 6 features, found 0"),
        (text(mha(6, 2, 1.5)), "MultiheadAttention: dropout must be in [0, 1], found 1.5"),
        (text(conv(4, 6, [3, 3], 4)), "Conv: groups must divide 4 and 6 channels, found 4"),
        (text(conv(4, 6, [3, 3], 0)), "Conv: groups must divide 4 and 6 channels, found 0"),
        (text(conv(4, 6, [3, 0], 2)), "Conv: kernel must not have a size of 0, found [3, 0]"),
        (text(recurrent(0, 1, 0.0)), "GRU: hidden_size must be at least 1, found 0"),
        (text(recurrent(3, 0, 0.0)), "GRU: num_layers must be at least 1, found 0"),
        (text(recurrent(3, 1, -0.1)), "GRU: dropout must be in [0, 1], found -0.1"),
        (
            text(BatchNorm1d::<f64>::new(3, norm)),
            "BatchNorm: momentum must be in [0, 1], found NaN",
        ),
        (
            text(GroupNorm::<f64>::new(2, 3, NormOptions::default())),
            "GroupNorm: groups must divide 3 channels, found 2",
        ),
        (
            text(Embedding::<f64>::new(3, 2, &mut rng).unwrap().with_padding(3)),
            "Embedding: padding_idx is 3, but the table has 3 rows",
        ),
        (text(PReLU::<f64>::new(0, 0.25)), "PReLU: num_parameters must be at least 1, found 0"),
        (
            text(Dropout::new(1.5).forward(&constant(&[2]))),
            "dropout: p must be in [0, 1], found 1.5",
        ),
    ];
    for (said, want) in cases {
        assert_eq!(said, want);
    }
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let norm1 = BatchNorm1d::<f64>::new(3, BatchNormOptions::default()).unwrap();
    let norm2 = BatchNorm2d::<f64>::new(3, BatchNormOptions::default()).unwrap();
    assert!(text(norm1.forward(&constant(&[2, 3, 4, 5]))).contains("expected [N, C] or [N, C, L]"));
    assert!(text(norm2.forward(&constant(&[2, 3]))).contains("expected [N, C, H, W]"));
    assert!(text(norm1.forward(&constant(&[2, 4]))).contains("[2, 4] and [3]"));
    let group = GroupNorm::<f64>::new(2, 4, NormOptions::default()).unwrap();
    assert!(text(group.forward(&constant(&[2, 6, 3]))).contains("[2, 6, 3] and [4]"));
    let lstm = LSTM::<f64>::new(3, 4, RecurrentOptions::default(), &mut rng()).unwrap();
    assert!(text(lstm.forward(&constant(&[2, 5, 2]), None)).contains("LSTM: shapes do not match"));
    assert!(text(lstm.forward(&constant(&[2, 0, 3]), None)).contains("at least one position"));
    let state = constant(&[1, 3, 4]);
    let said = text(lstm.forward(&constant(&[2, 5, 3]), Some((&state, &state))));
    assert_eq!(said, "LSTM: shapes do not match: [1, 3, 4] and [1, 2, 4]");
    assert!(text(lstm.forward(&constant(&[3]), None)).starts_with("LSTM: expected"));
}

/// A batch norm of two channels in a training step; the gradients of Σ y.
fn step(norm: &BatchNorm1d<f64>, tape: &Tape<f64>, x: &[f64]) -> Gradients<f64> {
    let x = Tensor::from_vec(x.to_vec(), [x.len() / 2, 2]).unwrap();
    norm.forward(&tape.constant(x)).unwrap().sum().backward().unwrap()
}

fn running(norm: &BatchNorm1d<f64>) -> [Vec<f64>; 2] {
    [&norm.running_mean, &norm.running_var].map(|p| p.as_ref().unwrap().value().to_vec())
}

#[test]
fn running_statistics_move_with_a_step_and_stand_still_in_evaluation() {
    let options = BatchNormOptions { momentum: 0.25, ..Default::default() };
    let mut norm = BatchNorm1d::<f64>::new(2, options).unwrap();
    let mut sgd = Sgd::new(SgdOptions::default()).unwrap();
    let tape = Tape::training(0);
    // Means 2 and 6, unbiased variances 2 and 8.
    let grads = step(&norm, &tape, &[1.0, 4.0, 3.0, 8.0]);
    assert_eq!(running(&norm), [[0.0, 0.0], [1.0, 1.0]], "a forward pass changes nothing");
    sgd.step(&mut norm, &grads).unwrap();
    assert_eq!(running(&norm), [[0.5, 1.5], [1.25, 2.75]]);
    let grads = step(&norm, &Tape::new(), &[1.0, 4.0, 3.0, 8.0]);
    sgd.step(&mut norm, &grads).unwrap();
    assert_eq!(running(&norm), [[0.5, 1.5], [1.25, 2.75]]);
    // Frozen, it evaluates in training, too.
    norm.set_frozen(true);
    let x = Tensor::from([[1.0, 4.0], [3.0, 8.0]]);
    let [training, evaluation] =
        [tape, Tape::new()].map(|t| norm.forward(&t.constant(x.clone())).unwrap().into_value());
    assert_eq!(training.to_vec(), evaluation.to_vec());
}

#[test]
fn gradients_of_parts_average_the_statistics_and_a_second_use_goes_on_from_the_first() {
    let options = BatchNormOptions { momentum: 0.5, ..Default::default() };
    let mut norm = BatchNorm1d::<f64>::new(2, options).unwrap();
    let parts = [[0.0, 0.0, 4.0, 8.0], [2.0, 2.0, 2.0, 2.0]];
    let mut grads = step(&norm, &Tape::training(0), &parts[0]);
    grads.add_assign(&step(&norm, &Tape::training(1), &parts[1])).unwrap();
    Sgd::new(SgdOptions::default()).unwrap().step(&mut norm, &grads).unwrap();
    // ½·0 + ½·mean, averaged: (1 + 1)/2 and (2 + 1)/2; ½·1 + ½·var: ½ + (4 + 0)/2, ½ + (16 + 0)/2.
    assert_eq!(running(&norm), [[1.0, 1.5], [2.5, 8.5]]);

    let mut norm = BatchNorm1d::<f64>::new(2, options).unwrap();
    let tape = Tape::training(0);
    let [a, b] = parts.map(|part| tape.constant(Tensor::from_vec(part.to_vec(), [2, 2]).unwrap()));
    let y = norm.forward(&a).unwrap().sum() + norm.forward(&b).unwrap().sum();
    let grads = y.backward().unwrap();
    Sgd::new(SgdOptions::default()).unwrap().step(&mut norm, &grads).unwrap();
    assert_eq!(running(&norm)[0], [0.5 * 1.0 + 0.5 * 2.0, 0.5 * 2.0 + 0.5 * 2.0]);
}

#[test]
fn a_checkpointed_batch_norm_moves_its_statistics_once() {
    let x = randn(&[5, 3]);
    let after = |checkpointed: bool| {
        let norm = BatchNorm1d::<f64>::new(3, BatchNormOptions::default()).unwrap();
        let tape = Tape::training(0);
        let x = tape.var(x.clone());
        let id = norm.running_mean.as_ref().unwrap().id();
        let y = match checkpointed {
            true => checkpoint(move |x| norm.forward(&x[0]), &[&x]).unwrap(),
            false => norm.forward(&x).unwrap(),
        };
        y.square().sum().backward().unwrap().buffer(id).unwrap().to_vec()
    };
    assert_eq!(after(true), after(false));
}

#[test]
fn dropout_is_in_training_alone_and_repeats_with_its_seed() {
    let model = encoder(true);
    let x = randn(&[2, 3, 4]);
    let run = |tape: Tape<f64>| model.forward(&tape.constant(x.clone())).unwrap().value().to_vec();
    let plain = model.forward(&Var::constant(x.clone())).unwrap().value().to_vec();
    assert_eq!(run(Tape::new()), plain);
    let (a, b) = (run(Tape::training(1)), run(Tape::training(2)));
    assert!(a != plain && a != b && a == run(Tape::training(1)));
}

#[test]
fn padding_and_causal_masks_hide_what_they_should() {
    let layer = MultiheadAttention::<f64>::new(4, 2, Default::default(), &mut rng()).unwrap();
    let x = constant(&[2, 5, 4]);
    // The last two keys of the second sequence are padding.
    let mut padding = vec![false; 10];
    padding[8..].fill(true);
    let padding = Some(Tensor::from_vec(padding, [2, 5]).unwrap());
    let masked = Attend { key_padding_mask: padding.clone(), ..Attend::default() };
    let y = layer.attend(&x, &x, &x, &masked).unwrap();
    let [short, query] = [3, 5].map(|n| x.narrow(0, 1, 1).unwrap().narrow(1, 0, n).unwrap());
    let want = layer.attend(&query, &short, &short, &Attend::default()).unwrap();
    let difference = (y.narrow(0, 1, 1).unwrap() - want).abs().value().to_vec();
    assert!(difference.into_iter().fold(0.0, f64::max) < 1e-14);
    // A mask of numbers, one of bools, and padding, each with causality: one and the same.
    let keep = Tensor::from_vec((0..25).map(|i| i % 5 <= i / 5).collect(), [5, 5]).unwrap();
    let zero = Tensor::scalar(0.0);
    let add = Var::constant(keep.where_cond(&zero, f64::NEG_INFINITY).unwrap());
    let of = |causal, mask| {
        let attend = Attend { causal, mask, key_padding_mask: padding.clone() };
        layer.attend(&x, &x, &x, &attend).unwrap().value().to_vec()
    };
    let want = of(true, None);
    assert_eq!(of(false, Some(AttentionMask::Keep(keep))), want);
    assert_eq!(of(false, Some(AttentionMask::Add(add))), want);
    // Nothing to attend to at all: the bias of the last layer, no NaN.
    let nothing = Attend {
        key_padding_mask: Some(Tensor::from_vec(vec![true; 10], [2, 5]).unwrap()),
        ..Attend::default()
    };
    let y = layer.attend(&x, &x, &x, &nothing).unwrap();
    assert!(y.value().to_vec().iter().all(|&y| y == 0.0));
}

#[test]
fn batches_of_none_and_single_samples() {
    let model = encoder(false);
    let x = constant(&[5, 4]);
    let alone = model.forward(&x).unwrap();
    let batch = model.forward(&x.unsqueeze(0).unwrap()).unwrap();
    assert_eq!(alone.value().to_vec(), batch.value().to_vec());
    assert_eq!(alone.shape(), [5, 4]);
    assert_eq!(model.forward(&constant(&[0, 5, 4])).unwrap().shape(), [0, 5, 4]);
    assert_eq!(model.forward(&constant(&[2, 0, 4])).unwrap().shape(), [2, 0, 4]);
    let options = RecurrentOptions { batch_first: false, ..Default::default() };
    let gru = GRU::<f64>::new(4, 3, options, &mut rng()).unwrap();
    let (y, h) = gru.forward(&x, None).unwrap();
    let (batch, _) = gru.forward(&x.unsqueeze(1).unwrap(), None).unwrap();
    assert_eq!((y.shape(), h.shape()), (&[5, 3][..], &[1, 3][..]));
    assert_eq!(y.value().to_vec(), batch.value().to_vec());
    let (again, _) = gru.forward(&x, Some(&(&h * 0.0))).unwrap();
    assert_eq!(again.value().to_vec(), y.value().to_vec());
    let (empty, _) = gru.forward(&constant(&[5, 0, 4]), None).unwrap();
    assert_eq!(empty.shape(), [5, 0, 3]);
}

#[test]
fn padding_rows_of_an_embedding_stay() {
    let mut table = Embedding::<f64>::new(4, 2, &mut rng()).unwrap().with_padding(1).unwrap();
    let tape = Tape::new();
    let y = table.forward(&Tensor::from([1_i64, 2, 1]), &tape).unwrap();
    assert_eq!(&y.value().to_vec()[..2], [0.0, 0.0]);
    let grads = y.sum().backward().unwrap();
    Sgd::new(SgdOptions { lr: 1.0, ..Default::default() })
        .unwrap()
        .step(&mut table, &grads)
        .unwrap();
    assert_eq!(&table.weight.value().to_vec()[2..4], [0.0, 0.0]);
    let said = text(table.forward(&Tensor::from([4_i64]), None));
    assert!(said.contains("index 4 at position 0 is out of range for size 4"), "{said}");
}
