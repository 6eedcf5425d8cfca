//! How much a step's memory grows a process, as the system counts it.

use std::fs;

use crate::measure::Failure;
use crate::peer::Peer;
use crate::workloads::Workload;

/// A table of the bytes beyond inputs and gradients; empty where no workload has an interest in it.
/// Of processes that have not run the workload yet.
pub fn table(chosen: &[Workload], peers: &mut [Peer]) -> Result<String, Failure> {
    let mut lines = String::new();
    for (workload, gradients) in chosen.iter().filter_map(|w| Some((w, w.kind.gradients()?))) {
        let mut step = workload.kind.prepare().map_err(|e| e.to_string())?;
        tensor::pool::clear();
        let own = peak(&mut step)? - gradients;
        let mut others = String::new();
        let mut first = f64::NAN;
        for (i, peer) in peers.iter_mut().enumerate() {
            let bytes = peer.peak(&workload.name)?.map_or(f64::NAN, |bytes| bytes - gradients);
            first = if i == 0 { bytes } else { first };
            let cell = if bytes.is_nan() { "–".into() } else { format!("{:.0} MB", bytes / 1e6) };
            others += &format!(" {cell} |");
        }
        let (megabytes, share) = (own / 1e6, 100.0 * own / first);
        lines += &format!("| {} | {megabytes:.0} MB |{others} {share:.0} % |\n", workload.name);
    }
    if lines.is_empty() {
        return Ok(lines);
    }
    let columns: String = peers.iter().map(|peer| format!(" {} |", peer.framework)).collect();
    let rule = "---|".repeat(peers.len());
    Ok(format!(
        "\nMemory beyond inputs and gradients, at most, in one step\n\n\
         | workload | ours |{columns} ours / PyTorch |\n|---|---|{rule}---|\n{lines}"
    ))
}

/// The bytes that this process grows by, at most, in a step.
fn peak(step: &mut impl FnMut()) -> Result<f64, Failure> {
    fs::write("/proc/self/clear_refs", "5")?; // the high-water mark begins anew
    let before = resident("VmRSS:")?;
    step();
    Ok(resident("VmHWM:")? - before)
}

fn resident(field: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(1024.0 * kilobytes.ok_or("the system says nothing of memory")?)
}
