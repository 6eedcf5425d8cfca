//! Gradus beside PyTorch and candle. The sides alternate in one run (A B A B …); printed are medians,
//! the median of the ratios of neighbouring rounds with its quartiles, and the share of what the
//! machine allows, measured in the same run with the same number of threads.

mod limits;
mod peer;
mod record;
mod workloads;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use limits::Limits;
use peer::Peer;
use workloads::Workload;

/// Time the workloads of this library here and in PyTorch, in turn.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// A Python with PyTorch.
    #[arg(long, default_value = "python3")]
    python: String,
    /// Only workloads whose name contains this; `--only candle` for the recorded operations.
    #[arg(long, default_value = "")]
    only: String,
    /// Threads to run with, one table each.
    #[arg(long, default_values_t = [1, 2])]
    threads: Vec<usize>,
    /// Rounds of each side.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Milliseconds of one side in a round, at least one step.
    #[arg(long, default_value_t = 60.0)]
    milliseconds: f64,
    /// Where to write the tables, beside the terminal.
    #[arg(long, default_value = "target/compare.md")]
    out: PathBuf,
    /// List the workloads, and end.
    #[arg(long)]
    list: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let chosen: Vec<Workload> =
        workloads::all().into_iter().filter(|w| w.name.contains(&args.only)).collect();
    if args.list {
        chosen.iter().for_each(|w| println!("{}", w.name));
        return Ok(());
    }
    let mut text = String::new();
    if !chosen.is_empty() {
        let mut peers = [Peer::start(&args.python, false)?, Peer::start(&args.python, true)?];
        text += &format!("PyTorch {}\n", peers[0].version);
        for &threads in &args.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let table = pool.install(|| table(&args, &chosen, threads, &mut peers));
            text += &table.map_err(|error| error.to_string())?;
        }
    }
    if args.only.is_empty() || args.only == "candle" {
        text += &record::table()?;
    }
    print!("{text}");
    std::fs::write(&args.out, text)?;
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

type Failure = Box<dyn Error + Send + Sync>;

/// One line for each workload.
fn table(
    args: &Args,
    chosen: &[Workload],
    threads: usize,
    peers: &mut [Peer; 2],
) -> Result<String, Failure> {
    let limits = Limits::measure().map_err(|e| e.to_string())?;
    let mut text = format!(
        "\n{threads} thread(s): copy {:.1} GB/s read and written, product {:.0} GFLOP/s, exp {:.2} ns\n\n\
         | workload | ours | PyTorch | PyTorch / ours (quartiles) | warm allocator | goal | of the limit |\n\
         |---|---|---|---|---|---|---|\n",
        limits.copy / 1e9,
        limits.gemm / 1e9,
        limits.exp * 1e9
    );
    for workload in chosen {
        eprintln!("{} with {threads}", workload.name);
        let mut step = workload.kind.prepare().map_err(|e| e.to_string())?;
        let budget = args.milliseconds / 1000.0;
        let mut ours = |repeats: usize| {
            let start = Instant::now();
            (0..repeats).for_each(|_| step());
            start.elapsed().as_secs_f64()
        };
        let own_repeats = repeats(budget, |n| Ok(Some(ours(n))))?;
        let name = &workload.name;
        let mut other_repeats = [0; 2];
        for (repeat, peer) in other_repeats.iter_mut().zip(&mut *peers) {
            *repeat = repeats(budget, |n| Ok(peer.seconds(name, threads, n)?))?;
        }
        let (mut own, mut others, mut ratios) = (vec![], [vec![], vec![]], [vec![], vec![]]);
        for _ in 0..args.rounds {
            own.push(ours(own_repeats) / own_repeats as f64);
            for (i, peer) in peers.iter_mut().enumerate() {
                let Some(seconds) = peer.seconds(name, threads, other_repeats[i])? else {
                    continue;
                };
                let seconds = seconds / other_repeats[i] as f64;
                others[i].push(seconds);
                ratios[i].push(seconds / own[own.len() - 1]);
            }
        }
        let own = quantile(&mut own, 0.5);
        let limit = match workload.kind.at_best(&limits) {
            Some(best) => format!("{:.0} %", 100.0 * best / own),
            None => "–".into(),
        };
        let [cold, warm] = &mut ratios;
        text += &format!(
            "| {name} | {} | {} | {:.2} ({:.2}–{:.2}) | {:.2} | {} | {limit} |\n",
            in_units(own),
            in_units(quantile(&mut others[0], 0.5)),
            quantile(cold, 0.5),
            quantile(cold, 0.25),
            quantile(cold, 0.75),
            quantile(warm, 0.5),
            workload.goal[usize::from(threads > 1)],
        );
    }
    Ok(text)
}

/// How many steps take the budget.
fn repeats(
    budget: f64,
    mut seconds: impl FnMut(usize) -> Result<Option<f64>, Failure>,
) -> Result<usize, Failure> {
    seconds(1)?;
    let mut n = 1;
    loop {
        match seconds(n)? {
            Some(s) if s < budget => n = (n as f64 * (budget / s).clamp(1.1, 8.0)).ceil() as usize,
            _ => return Ok(n),
        }
    }
}

/// NaN of nothing.
pub fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len().saturating_sub(1) as f64 * q).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

fn in_units(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}
