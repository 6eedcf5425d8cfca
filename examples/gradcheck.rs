//! Checks the derivatives of every operation and loss against difference quotients, and prints a
//! table of what was found.
//!
//! `cargo run --release --example gradcheck` exits with 0 when all pass, with 1 when one fails;
//! `-- --op NAME` shows one of them input by input.

use std::process::ExitCode;

use autograd::suite::{self, Order, Outcome, Row};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};

/// Check the derivatives of every operation and loss.
///
/// Each operation is tried on inputs of several shapes, strided and broadcast ones among them, in f64
/// and with a random upstream gradient. Its gradient is compared with difference quotients of its
/// value, its second derivative with those of its gradient; the table shows the worst error of each,
/// relative to the derivative (or to 0.01 where that is larger).
#[derive(Parser)]
#[command(name = "gradcheck", max_term_width = 100)]
struct Args {
    /// Only this operation, input by input (see --list for the names).
    #[arg(long, value_name = "NAME")]
    op: Option<String>,
    /// Only the names of the operations.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut rows = suite::rows();
    // Rows of one operation stand together, in the order of the names.
    rows.sort_by_key(Row::name);
    if args.list {
        let mut names: Vec<_> = rows.iter().map(Row::name).collect();
        names.dedup();
        names.iter().for_each(|name| println!("{name}"));
        return ExitCode::SUCCESS;
    }
    if let Some(op) = &args.op {
        rows.retain(|row| row.name() == op);
        if rows.is_empty() {
            eprintln!("gradcheck: no operation is called {op:?}; --list shows the names");
            return ExitCode::from(2);
        }
    }
    let outcomes = check(&rows);
    match args.op {
        Some(_) => outcomes.iter().for_each(detail),
        None => {
            println!("{}", Outcome::HEAD);
            outcomes.iter().for_each(|outcome| println!("{outcome}"));
        }
    }
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.passed()).collect();
    for failure in failed.iter().flat_map(|o| o.failures()) {
        println!("\n{failure}");
    }
    let derivatives: usize =
        outcomes.iter().flat_map(|o| &o.trials).map(|trial| trial.derivatives).sum();
    println!("\n{} operations, {derivatives} derivatives, {} failed", outcomes.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The outcome of each operation, with the rows of one operation taken together.
fn check(rows: &[Row]) -> Vec<Outcome> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new(rows.len() as u64);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut outcomes: Vec<Outcome> = Vec::new();
    for row in rows {
        bar.set_message(row.name());
        let found = suite::check(row);
        match outcomes.last_mut() {
            Some(last) if last.name == found.name => last.absorb(found),
            _ => outcomes.push(found),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    outcomes
}

/// One operation, input by input.
fn detail(outcome: &Outcome) {
    let order = match outcome.order {
        Order::Any => "derivatives of every order",
        Order::First => "first derivatives only",
    };
    println!("{}: {order}\n", outcome.name);
    println!("worst relative error of the derivatives");
    println!("   first    second     third  compared  shapes of the inputs");
    for trial in &outcome.trials {
        let third = trial.third.map_or_else(|| "-".into(), |e| format!("{e:.1e}"));
        let second = match outcome.order {
            Order::Any => format!("{:.1e}", trial.second),
            Order::First => "none".into(),
        };
        println!(
            "{:>8.1e}  {second:>8}  {third:>8}  {:>8}  {}{}",
            trial.first,
            trial.derivatives,
            trial.shapes.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(" "),
            if trial.failure.is_some() { "  FAILED" } else { "" }
        );
    }
    println!("\n{}\n{outcome}", Outcome::HEAD);
}
