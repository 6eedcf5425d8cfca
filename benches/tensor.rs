//! Rates of the tensor kernels, each beside the limit of the machine that was measured in the same run:
//! the bandwidth of a plain memory copy, or the best rate of a matrix product.
//!
//! `cargo bench -p benches --bench tensor` takes about two minutes and ends with a table;
//! `RAYON_NUM_THREADS=1` makes it serial.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use nn::prelude::*;

/// Rows and columns of the large matrix: 64 MiB of `f32`, more than caches hold.
const SIDE: usize = 4096;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(10)
        .configure_from_args();
    let mut table = Table { criterion: &mut criterion, rows: Vec::new() };
    memory(&mut table);
    products(&mut table);
    table.print();
    criterion.final_summary();
}

/// What a benchmark's rate is counted in, and held against.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    /// Bytes read and written.
    Bytes,
    /// Multiplications and additions.
    Flop,
}

struct Table<'a> {
    criterion: &'a mut Criterion,
    rows: Vec<(&'static str, Unit, f64)>,
}

impl Table<'_> {
    fn bench<R>(
        &mut self,
        name: &'static str,
        unit: Unit,
        amount: usize,
        mut f: impl FnMut() -> R,
    ) {
        let mut group = self.criterion.benchmark_group("tensor");
        group.throughput(match unit {
            Unit::Bytes => Throughput::Bytes(amount as u64),
            Unit::Flop => Throughput::Elements(amount as u64),
        });
        group.bench_function(name, |b| b.iter(&mut f));
        group.finish();
        self.rows.push((name, unit, amount as f64));
    }

    /// Reads back the medians that criterion has written.
    fn print(&self) {
        let root = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
        let root = [Path::new(&root), Path::new("../target")]
            .map(|root| root.join("criterion/tensor"))
            .into_iter()
            .find(|folder| folder.exists());
        let median = |name: &str| -> Option<f64> {
            let file = root.as_ref()?.join(name).join("new/estimates.json");
            let text = fs::read_to_string(file).ok()?;
            let json: serde_json::Value = serde_json::from_str(&text).ok()?;
            json["median"]["point_estimate"].as_f64()
        };
        let rated: Vec<(&str, Unit, f64)> = (self.rows.iter())
            .filter_map(|&(name, unit, amount)| Some((name, unit, amount / median(name)?)))
            .collect();
        let limit = |unit: Unit| {
            let limits = rated.iter().filter(|row| row.1 == unit);
            match unit {
                Unit::Bytes => limits.filter(|row| row.0 == "memcpy").map(|row| row.2).next(),
                Unit::Flop => limits.map(|row| row.2).reduce(f64::max),
            }
        };
        println!("\n{:<38} {:>14} {:>10}", "", "rate", "of limit");
        for &(name, unit, rate) in &rated {
            let word = if unit == Unit::Bytes { "GB/s" } else { "GFLOP/s" };
            let share = limit(unit).map_or(f64::NAN, |limit| 100.0 * rate / limit);
            println!("{name:<38} {rate:>8.1} {word:<7} {share:>6.0} %");
        }
    }
}

/// Everything that memory bounds.
fn memory(table: &mut Table<'_>) {
    let numel = SIDE * SIDE;
    let bytes = |arrays: usize| arrays * numel * size_of::<f32>();
    let mut rng = Generator::new(0);
    let x = Tensor::<f32>::rand([SIDE, SIDE], &mut rng).expect("a size that fits");
    let y = x.rand_like(&mut rng);
    let mut out = vec![0.0_f32; numel];
    let source = x.to_vec();
    table.bench("memcpy", Unit::Bytes, bytes(2), || copy(&source, &mut out));
    let transposed = x.transpose(0, 1).expect("two dims");
    let stepped = x.slice(1, tensor::Slice::from(..).step(-1)).expect("two dims");
    table.bench("copy (reversed rows)", Unit::Bytes, bytes(2), || stepped.contiguous());
    table.bench("copy (transposed)", Unit::Bytes, bytes(2), || transposed.contiguous());
    table.bench("add", Unit::Bytes, bytes(3), || &x + &y);
    table.bench("add (a row to each)", Unit::Bytes, bytes(2), || {
        &x + &y.select(0, 0).expect("a row")
    });
    table.bench("exp", Unit::Bytes, bytes(2), || x.exp());
    table.bench("sum", Unit::Bytes, bytes(1), || x.sum());
    table.bench("sum along dim 0", Unit::Bytes, bytes(1), || x.sum_dim(&[0], false));
    table.bench("sum along dim 1", Unit::Bytes, bytes(1), || x.sum_dim(&[1], false));
    table.bench("max along dim 0", Unit::Bytes, bytes(1), || x.amax(&[0], false));
    table.bench("softmax", Unit::Bytes, bytes(2), || tensor::kernels::softmax::softmax(&x, 1));
}

/// A copy by as many threads as the kernels use.
fn copy(source: &[f32], out: &mut [f32]) {
    let part = source.len().div_ceil(rayon::current_num_threads());
    rayon::scope(|scope| {
        for (source, out) in source.chunks(part).zip(out.chunks_mut(part)) {
            scope.spawn(move |_| out.copy_from_slice(black_box(source)));
        }
    });
}

/// Everything that arithmetic bounds; a matrix and a vector are bounded by memory.
fn products(table: &mut Table<'_>) {
    let mut rng = Generator::new(1);
    let mut random =
        |shape: &[usize]| Tensor::<f32>::randn(shape, &mut rng).expect("a size that fits");
    for (name, n) in [("matmul 256³", 256), ("matmul 1024³", 1024)] {
        let (a, b) = (random(&[n, n]), random(&[n, n]));
        table.bench(name, Unit::Flop, 2 * n * n * n, || a.matmul(&b));
    }
    let (a, b) = (random(&[256, 256]), random(&[256, 4]));
    table.bench("matmul skinny 256×256 · 256×4", Unit::Flop, 2 * 256 * 256 * 4, || a.matmul(&b));
    let (a, b) = (random(&[1, 512]), random(&[512, 512]));
    table.bench("matmul skinny 1×512 · 512×512", Unit::Flop, 2 * 512 * 512, || a.matmul(&b));
    let (a, b) = (random(&[1000, 16, 16]), random(&[1000, 16, 16]));
    table
        .bench("matmul batched 1000 × 16³", Unit::Flop, 2 * 1000 * 16 * 16 * 16, || a.matmul(&b));
    let (a, b) = (random(&[SIDE, SIDE]), random(&[SIDE]));
    let bytes = SIDE * SIDE * size_of::<f32>();
    table.bench("matrix-vector", Unit::Bytes, bytes, || a.matmul(&b));
    let a = a.transpose(0, 1).expect("two dims");
    table.bench("matrix-vector (transposed)", Unit::Bytes, bytes, || a.matmul(&b));
}
