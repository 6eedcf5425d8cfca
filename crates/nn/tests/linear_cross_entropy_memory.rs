//! What linear + cross entropy takes where the logits would be larger than all else.

use nn::prelude::*;
use tensor::pool;

/// Rows, features, classes: the logits alone are 8.4 GB, and so is their gradient.
const SIZES: [usize; 3] = [8192, 64, 256_000];
const GIGABYTE: usize = 1_000_000_000;

/// The most memory that the process had so far, in bytes, where the system says it.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()? << 10)
}

#[test]
fn a_large_vocabulary_stays_within_a_gigabyte() {
    let [n, d, v] = SIZES;
    let mut rng = Generator::new(0);
    // A tenth of the rows counts: the time is theirs, the shapes are those of all.
    let target = (0..n as i64).map(|i| if i % 10 == 0 { i * 31 % v as i64 } else { -100 });
    let target = Tensor::from_vec(target.collect(), [n]).unwrap();
    let mut options = LinearCrossEntropyOptions::default();
    options.class.label_smoothing = 0.1;
    let loss = LinearCrossEntropyLoss::new(Linear::new(d, v, &mut rng).unwrap(), options).unwrap();
    let x = Tape::new().var(Tensor::<f32>::randn([n, d], &mut rng).unwrap());
    let grads = loss.forward(&x, &target).unwrap().backward().unwrap();
    assert_eq!(grads.wrt(&x).unwrap().shape(), [n, d]);
    assert_eq!(grads.parameter(loss.linear.weight.id()).unwrap().shape(), [v, d]);
    let pool = pool::stats();
    let taken = pool.live_bytes + pool.pooled_bytes;
    assert!(taken < GIGABYTE / 2, "{taken} bytes");
    if let Some(peak) = peak() {
        assert!(peak < GIGABYTE, "{peak} bytes");
    }
}
