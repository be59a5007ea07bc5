//! Redis four ways, side by side: native, under Brolga with one and with three replicas, and as a
//! primary with two replicas where every write waits for one of them and is flushed to disk.
//!
//! `cargo bench --bench redis` runs it. The systems take turns within each round, so that whatever
//! else the machine does hits all of them; what counts are the ratios of each round, not rates.
//! Environment: `BROLGA_BENCH_ROUNDS` (5), `BROLGA_BENCH_SECONDS` (4, per cell).

mod http;
#[allow(dead_code, reason = "shared by two benchmarks")]
mod load;
#[allow(dead_code, reason = "shared by two benchmarks")]
mod systems;

use load::{Load, Outcome, Replies, command};
use std::collections::BTreeMap;
use std::time::Duration;
use systems::System;

const CONNECTIONS: usize = 50;
const PIPELINES: [usize; 2] = [1, 16];
const VALUE: [u8; 64] = [b'v'; 64];

/// One measured cell.
struct Sample {
    outcome: Outcome,
    cpu_us_per_request: f64,
}

/// Samples by (command, pipeline, system), one a round.
type Samples = BTreeMap<(&'static str, usize, usize), Vec<Sample>>;

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn request(name: &str, waits: bool) -> (Vec<u8>, usize) {
    let key = b"key:000001";
    let mut bytes = match name {
        "GET" => command(&[b"GET", key]),
        _ => command(&[b"SET", key, &VALUE]),
    };
    let wait = waits && name != "GET";
    if wait {
        bytes.extend(command(&[b"WAIT", b"1", b"0"]));
    }
    (bytes, 1 + usize::from(wait))
}

fn measure(system: &System, name: &str, pipeline: usize, time: Duration) -> Sample {
    let (request, replies_per_request) = request(name, system.waits);
    let load = Load {
        address: system.address,
        connections: CONNECTIONS,
        pipeline,
        request,
        replies_per_request,
        replies: Replies::Resp,
        time,
    };
    let before = system.cpu_seconds();
    let outcome = load::run(&load).unwrap_or_else(|error| panic!("{}: {error}", system.name));
    let used = system.cpu_seconds() - before;
    Sample {
        cpu_us_per_request: used * 1e6 / outcome.requests as f64,
        outcome,
    }
}

/// Lowest, middle and highest.
fn spread(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    )
}

fn print_table(systems: &[System], samples: &Samples) {
    println!(
        "| command | system | rate min/**med**/max | of native | of WAIT+AOF \
         | p50 us | p99 us | CPU us/op |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for ((name, pipeline, at), cell) in samples {
        let over = |base: usize| {
            let base = &samples[&(*name, *pipeline, base)];
            let ratios = cell.iter().zip(base);
            spread(
                ratios
                    .map(|(own, base)| own.outcome.rate() / base.outcome.rate())
                    .collect(),
            )
        };
        let (low, middle, high) = spread(cell.iter().map(|s| s.outcome.rate() / 1000.0).collect());
        let (native, waiting) = (over(0), over(systems.len() - 1));
        let median = |of: &dyn Fn(&Sample) -> f64| spread(cell.iter().map(of).collect()).1;
        println!(
            "| {name} -P {pipeline} | {} | {low:.1}k/**{middle:.1}k**/{high:.1}k \
             | {:.2}/**{:.2}**/{:.2} | {:.2}/**{:.2}**/{:.2} | {:.0} | {:.0} | {:.1} |",
            systems[*at].name,
            native.0,
            native.1,
            native.2,
            waiting.0,
            waiting.1,
            waiting.2,
            median(&|s| f64::from(s.outcome.quantile_us(0.5))),
            median(&|s| f64::from(s.outcome.quantile_us(0.99))),
            median(&|s| s.cpu_us_per_request),
        );
    }
}

fn main() {
    let rounds = environment("BROLGA_BENCH_ROUNDS", 5);
    let time = Duration::from_secs(environment("BROLGA_BENCH_SECONDS", 4));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let systems = [
        systems::native(dir.path()),
        systems::brolga("brolga 1 replica", dir.path(), 1),
        systems::brolga("brolga 3 replicas", dir.path(), 3),
        systems::primary_and_replicas(dir.path()),
    ];
    let mut samples = Samples::new();
    for round in 1..=rounds {
        for pipeline in PIPELINES {
            for name in ["SET", "GET"] {
                for (at, system) in systems.iter().enumerate() {
                    let sample = measure(system, name, pipeline, time);
                    eprintln!(
                        "round {round}/{rounds} {name} -P {pipeline} {}: {:.1}k/s",
                        system.name,
                        sample.outcome.rate() / 1000.0
                    );
                    samples
                        .entry((name, pipeline, at))
                        .or_default()
                        .push(sample);
                }
            }
        }
    }
    println!(
        "{CONNECTIONS} connections, {}-byte values, {rounds} rounds of {time:?}",
        VALUE.len()
    );
    print_table(&systems, &samples);
}
