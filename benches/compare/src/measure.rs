//! One workload, in turn on every side.

use std::time::Instant;

use crate::peer::Peer;
use crate::workloads::Workload;

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A side whose step takes longer, in seconds, is asked in `FEW` rounds only.
const LONG: f64 = 1.0;
const FEW: usize = 3;

/// Seconds of a step, round by round.
pub struct Rounds {
    pub ours: Vec<f64>,
    /// Of each peer; empty if it does not have the workload.
    pub peers: Vec<Vec<f64>>,
}

impl Rounds {
    /// A peer's time over ours in each round.
    pub fn ratios(&self, peer: usize) -> Vec<f64> {
        self.peers[peer].iter().zip(&self.ours).map(|(peer, own)| peer / own).collect()
    }
}

/// Times our side and the peers in turn, each for so many seconds in a round, at least one step.
pub fn measure(
    workload: &Workload,
    peers: &mut [Peer],
    rounds: usize,
    budget: f64,
) -> Result<Rounds, Failure> {
    let mut step = workload.kind.prepare().map_err(|e| e.to_string())?;
    let mut ours = |repeats: usize| {
        let start = Instant::now();
        (0..repeats).for_each(|_| step());
        start.elapsed().as_secs_f64()
    };
    let own_repeats = repeats(budget, |n| Ok(Some(ours(n))))?;
    let mut peer_repeats = Vec::new();
    for peer in &mut *peers {
        peer_repeats.push(repeats(budget, |n| Ok(peer.seconds(&workload.name, n)?))?);
    }
    let mut seconds = Rounds { ours: vec![], peers: vec![vec![]; peers.len()] };
    for round in 0..rounds {
        seconds.ours.push(ours(own_repeats) / own_repeats as f64);
        for ((peer, &n), times) in peers.iter_mut().zip(&peer_repeats).zip(&mut seconds.peers) {
            if round >= FEW && times.last().is_some_and(|&t| t > LONG) {
                continue;
            }
            times.extend(peer.seconds(&workload.name, n)?.map(|t| t / n as f64));
        }
    }
    Ok(seconds)
}

/// How many steps take the budget; the first one, which may compile, does not count.
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

/// A number of seconds for a reader; a dash for none.
pub fn in_units(seconds: f64) -> String {
    match seconds {
        s if s.is_nan() => "–".into(),
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}
