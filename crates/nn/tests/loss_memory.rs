//! What cross entropy allocates of the size of its logits: the gradient, and nothing else.

use autograd::cross_entropy_in_place;
use nn::prelude::*;
use tensor::pool;

const N: usize = 32;
const C: usize = 1000;
/// A vocabulary's worth of logits, and the bytes that may come on top of them and of their gradient.
const LARGE: [usize; 2] = [2048, 32_000];
const MORE: usize = 5_000_000;

/// Bytes in use, and all that were ever in use at one time since the pool was cleared.
fn bytes() -> (usize, usize) {
    let stats = pool::stats();
    (stats.live_bytes, stats.live_bytes + stats.pooled_bytes)
}

/// The most memory that the process had so far, in bytes, where the system says it.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

/// Logits so large that the forward pass computes the gradient: one block of their size, and little
/// more, whatever the upstream gradient is.
fn large_logits_have_one_gradient() -> Result<()> {
    let [n, c] = LARGE;
    let logits = Tensor::<f32>::full([n, c], 0.5)?;
    let block = bytes().0;
    let target = Tensor::from_vec((0..n as i64).collect(), [n])?;
    for (label_smoothing, factor) in [(0.0, 1.0), (0.1, 1.0), (0.1, 0.5)] {
        pool::clear();
        let (start, before) = (bytes(), peak());
        let options = CrossEntropyOptions { label_smoothing, ..Default::default() };
        let loss = CrossEntropyLoss::new(options)?;
        let x = Tape::new().var(logits.clone());
        let loss = loss.forward(&x, &target)?;
        let grads = loss.backward_with(&Tensor::scalar(factor))?;
        let most = bytes().1 - start.1;
        assert!(most < block + MORE, "{factor}: {most} bytes for blocks of {block}");
        assert_eq!(grads.wrt(&x)?.shape(), LARGE);
        if let (Some(before), Some(after)) = (before, peak()) {
            let most = after - before;
            assert!(most < 4 * n * c + MORE, "{factor}: {most} bytes more than before");
        }
    }
    Ok(())
}

// The counters belong to the process, so this is one test.
#[test]
fn the_gradient_is_all_that_is_allocated_of_the_size_of_the_logits() {
    large_logits_have_one_gradient().unwrap();
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
