//! What the machine can do, measured in the run itself with the same number of threads.

use std::time::Instant;

use nn::prelude::*;
use rayon::prelude::*;

/// Rates of the machine.
pub struct Limits {
    /// Bytes a second, read and written, of a copy from memory to memory.
    pub copy: f64,
    /// Floating-point operations a second of a product of 1024³.
    pub gemm: f64,
    /// Seconds for the exponential of one number in cache.
    pub exp: f64,
    /// Bytes above which nothing stays in a cache.
    pub cache: f64,
}

/// The least seconds of several tries: what disturbs only adds.
fn least(tries: usize, mut f: impl FnMut()) -> f64 {
    f();
    let times = (0..tries).map(|_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

impl Limits {
    /// Measures on the threads of the current pool.
    pub fn measure() -> Result<Self> {
        let n = 64 << 20;
        let (source, mut to) = (vec![1.0_f32; n], vec![0.0_f32; n]);
        let chunk = 1 << 18;
        let copy = least(5, || {
            to.par_chunks_mut(chunk)
                .zip(source.par_chunks(chunk))
                .for_each(|(to, from)| to.copy_from_slice(from));
        });
        let mut rng = Generator::new(0);
        let a = Tensor::<f32>::randn([1024, 1024], &mut rng)?;
        let b = Tensor::<f32>::randn([1024, 1024], &mut rng)?;
        let gemm = least(7, || drop(std::hint::black_box(a.matmul(&b))));
        // So many that a call costs next to nothing, and few enough for the second cache.
        let x = Tensor::<f32>::randn([1 << 14], &mut rng)?;
        let exp = least(7, || {
            for _ in 0..250 {
                drop(std::hint::black_box(x.exp()));
            }
        });
        let threads = rayon::current_num_threads() as f64;
        Ok(Limits {
            copy: 8.0 * n as f64 / copy,
            gemm: 2.0 * 1024.0_f64.powi(3) / gemm,
            exp: exp / 250.0 / x.numel() as f64 / threads,
            cache: f64::from(32 << 20),
        })
    }
}
