//! What cross entropy allocates of the size of its logits: the gradient, and nothing else.

use autograd::cross_entropy_in_place;
use nn::prelude::*;
use tensor::pool;

const N: usize = 200;
const C: usize = 1000;

/// Bytes in use, and all that were ever in use at one time since the pool was cleared.
fn bytes() -> (usize, usize) {
    let stats = pool::stats();
    (stats.live_bytes, stats.live_bytes + stats.pooled_bytes)
}

// The counters belong to the process, so this is one test.
#[test]
fn the_gradient_is_all_that_is_allocated_of_the_size_of_the_logits() {
    let logits = Tensor::<f32>::randn([N, C], &mut Generator::new(1)).unwrap();
    let q = Tensor::<f32>::full([N, C], 0.001).unwrap();
    let target = Tensor::from_vec((0..N as i64).collect(), [N]).unwrap();
    let weight = Tensor::<f32>::ones([C]).unwrap();
    let (before, _) = bytes();
    let one = logits.zeros_like();
    let block = bytes().0 - before;
    drop(one);

    // The rows' numbers are no tensors; the weights and targets are below this.
    let small = block / 20;
    for label_smoothing in [0.0, 0.1] {
        for weight in [None, Some(weight.clone())] {
            let options = CrossEntropyOptions { weight, label_smoothing, ..Default::default() };
            let fused = CrossEntropyLoss::new(options.clone()).unwrap();
            let composed = NLLLoss::new(options.clone()).unwrap();
            for (name, log_probabilities) in [("fused", 0), ("composed", 1)] {
                pool::clear();
                let start = bytes();
                let x = Tape::new().var(logits.clone());
                let loss = if log_probabilities == 0 {
                    fused.forward(&x, &target).unwrap()
                } else {
                    composed.forward(&LogSoftmax::new(1).forward(&x).unwrap(), &target).unwrap()
                };
                // The log-probabilities are gone as soon as the program dropped them.
                assert!(bytes().0 - start.0 < small, "{name}: {} live", bytes().0 - start.0);
                let grads = loss.backward().unwrap();
                let most = bytes().1 - start.1;
                assert!(most < block + small, "{name}: {most} bytes for blocks of {block}");
                drop(grads);
            }
            pool::clear();
            let mut owned = logits.contiguous() * 1.0;
            let start = bytes();
            cross_entropy_in_place(&mut owned, &target, &options).unwrap();
            assert!(bytes().1 - start.1 < small, "in place");
        }
    }
    // Logits so large that the forward pass computes the gradient: still one block, whatever the
    // upstream gradient is.
    for factor in [1.0, 0.5] {
        let large = Tensor::<f32>::zeros([8 * N, C]).unwrap();
        let target = Tensor::from_vec(vec![1_i64; 8 * N], [8 * N]).unwrap();
        pool::clear();
        let start = bytes();
        let x = Tape::new().var(large.clone());
        let loss = CrossEntropyLoss::new(CrossEntropyOptions::default()).unwrap();
        let loss = loss.forward(&x, &target).unwrap();
        let grads = loss.backward_with(&Tensor::scalar(factor)).unwrap();
        let most = bytes().1 - start.1;
        assert!(most < 8 * block + small, "at once, {factor}: {most} bytes for {}", 8 * block);
        drop(grads);
    }
    // Probabilities that receive no gradient cost none.
    pool::clear();
    let start = bytes();
    let x = Tape::new().var(logits.clone());
    let loss = CrossEntropyLoss::new(CrossEntropyOptions::default()).unwrap();
    let grads = loss.forward(&x, &q).unwrap().backward().unwrap();
    let most = bytes().1 - start.1;
    assert!(most < block + small, "probabilities: {most} bytes for blocks of {block}");
    drop(grads);
}
