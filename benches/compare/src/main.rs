//! Gradus beside PyTorch, burn and candle. The sides alternate in one run (A B A B …); printed are
//! medians, the median of the ratios of neighbouring rounds with its quartiles, and the share of what
//! the machine allows, measured in the same run with the same number of threads.

#[cfg(feature = "peers")]
mod frameworks;
mod limits;
mod measure;
mod memory;
mod peer;
mod plot;
mod record;
mod workloads;

use std::path::PathBuf;
use std::process::Command;

use clap::{Parser, ValueEnum};
use limits::Limits;
use measure::{Failure, in_units, measure, quantile};
use peer::{Framework, Peer};
use workloads::Workload;

/// Time the workloads of this library here, in PyTorch and in other frameworks, in turn.
#[derive(Parser)]
#[command(max_term_width = 100)]
struct Args {
    /// A Python with PyTorch.
    #[arg(long, default_value = "python3")]
    python: String,
    /// Only workloads whose name contains this; `--only candle` for the recorded operations.
    #[arg(long, default_value = "")]
    only: String,
    /// What stands in the table besides PyTorch.
    #[arg(long, value_delimiter = ',', default_values_t = Framework::value_variants().to_vec())]
    beside: Vec<Framework>,
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
    /// Instead of tables, draw cross entropy over rows and over classes into this directory.
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// List the workloads, and end.
    #[arg(long)]
    list: bool,
    /// Be a framework's process.
    #[cfg(feature = "peers")]
    #[arg(long, hide = true)]
    serve: Option<Framework>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    #[cfg(feature = "peers")]
    if let Some(framework) = args.serve {
        // Inside the pool, like ours.
        return Ok(rayon::scope(|_| frameworks::serve(framework))?);
    }
    if let Some(directory) = &args.plot {
        return plot::plot(directory, &args.python, &args.threads);
    }
    let chosen: Vec<Workload> =
        workloads::all().into_iter().filter(|w| w.name.contains(&args.only)).collect();
    if args.list {
        chosen.iter().for_each(|w| println!("{}", w.name));
        return Ok(());
    }
    let mut text = String::new();
    for &threads in args.threads.iter().filter(|_| !chosen.is_empty()) {
        let start = |&framework: &Framework| Peer::start(framework, &args.python, threads);
        let frameworks = [&[Framework::PyTorch], &args.beside[..]].concat();
        let mut peers = frameworks.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        if text.is_empty() {
            text += &head(&peers);
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
        text += &pool.install(|| table(&args, &chosen, threads, &mut peers))?;
    }
    if args.only.is_empty() || args.only == "candle" {
        text += &record::table()?;
    }
    print!("{text}");
    std::fs::write(&args.out, text)?;
    eprintln!("wrote {}", args.out.display());
    Ok(())
}

/// When, where and with what.
fn head(peers: &[Peer]) -> String {
    let date = Command::new("date").args(["-u", "+%F %R UTC"]).output();
    let date = date.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let mut versions: Vec<&str> = peers.iter().map(|peer| &peer.version[..]).collect();
    versions.dedup();
    format!(
        "{}, {}, {}, {}\n",
        date.unwrap_or_default(),
        processor.map_or("unknown processor", |(_, name)| name),
        env!("RUSTC_VERSION"),
        versions.join(", ")
    )
}

/// One line for each workload.
fn table(
    args: &Args,
    chosen: &[Workload],
    threads: usize,
    peers: &mut [Peer],
) -> Result<String, Failure> {
    // Later on this process has memory left from before.
    let first = args.threads.first() == Some(&threads);
    let memory = if first { memory::table(chosen, peers)? } else { String::new() };
    let limits = Limits::measure().map_err(|e| e.to_string())?;
    let mut rows = Vec::new();
    for workload in chosen {
        eprintln!("{} with {threads}", workload.name);
        let mut seconds = measure(workload, peers, args.rounds, args.milliseconds / 1000.0)?;
        let ratios: Vec<_> = (0..peers.len()).map(|i| seconds.ratios(i)).collect();
        let own = quantile(&mut seconds.ours, 0.5);
        let limit = match workload.kind.at_best(&limits) {
            Some(best) => format!("{:.0} %", 100.0 * best / own),
            None => "–".into(),
        };
        rows.push((workload, ratios, own, quantile(&mut seconds.peers[0], 0.5), limit));
    }
    // Not the columns of those who have none of the workloads.
    let shown: Vec<usize> =
        (1..peers.len()).filter(|&i| rows.iter().any(|row| !row.1[i].is_empty())).collect();
    let columns: String =
        shown.iter().map(|&i| format!(" {} / ours |", peers[i].framework)).collect();
    let mut text = format!(
        "\n{threads} thread(s): copy {:.1} GB/s read and written, product {:.0} GFLOP/s, exp {:.2} ns\n\n\
         | workload | ours | PyTorch | PyTorch / ours (quartiles) |{columns} goal | of the limit |\n\
         |---|---|---|---|{}---|---|\n",
        limits.copy / 1e9,
        limits.gemm / 1e9,
        limits.exp * 1e9,
        "---|".repeat(shown.len()),
    );
    for (workload, mut ratios, own, pytorch, limit) in rows {
        let others: String = (shown.iter())
            .map(|&i| format!(" {} |", ratio(quantile(&mut ratios[i], 0.5))))
            .collect();
        text += &format!(
            "| {} | {} | {} | {} ({}–{}) |{others} {} | {limit} |\n",
            workload.name,
            in_units(own),
            in_units(pytorch),
            ratio(quantile(&mut ratios[0], 0.5)),
            ratio(quantile(&mut ratios[0], 0.25)),
            ratio(quantile(&mut ratios[0], 0.75)),
            workload.goal[usize::from(threads > 1)],
        );
    }
    Ok(text + &memory)
}

/// A dash for NaN, which is what a peer without the workload leaves.
fn ratio(value: f64) -> String {
    if value.is_nan() { "–".into() } else { format!("{value:.2}") }
}
