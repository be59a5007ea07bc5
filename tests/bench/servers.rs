//! Real servers four ways, side by side: native, native on one processor, and under Brolga with one and
//! with three replicas.
//!
//! `cargo bench --bench servers` runs all of them, `-- NAME ...` those whose names begin so. The systems
//! take turns within each round; what counts are the ratios of each round. Environment:
//! `BROLGA_BENCH_ROUNDS` (3), `BROLGA_BENCH_SECONDS` (3, per cell).

mod http;
#[allow(dead_code, reason = "shared by two benchmarks")]
mod load;
mod loads;
mod subjects;
#[allow(dead_code, reason = "shared by two benchmarks")]
mod systems;

use load::Outcome;
use std::collections::BTreeMap;
use std::time::Duration;
use subjects::Subject;
use systems::System;

/// One measured cell.
struct Sample {
    outcome: Outcome,
    cpu_us_per_request: f64,
    entries_per_1000: f64,
}

fn environment(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn measure(subject: &Subject, system: &System, time: Duration) -> Sample {
    let before = (system.cpu_seconds(), system.entries());
    let outcome = (subject.load)(system.address, time);
    let used = system.cpu_seconds() - before.0;
    let entries = system.entries() - before.1;
    Sample {
        cpu_us_per_request: used * 1e6 / outcome.requests as f64,
        entries_per_1000: entries as f64 * 1e3 / outcome.requests as f64,
        outcome,
    }
}

/// Lowest, middle and highest.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    (
        values[0],
        values[values.len() / 2],
        values[values.len() - 1],
    )
}

fn print_rows(subject: &Subject, systems: &[System], samples: &BTreeMap<usize, Vec<Sample>>) {
    for (at, cell) in samples {
        let ratios = cell.iter().zip(&samples[&0]);
        let (worst, ratio, best) =
            spread(ratios.map(|(own, base)| own.outcome.rate() / base.outcome.rate()));
        let (low, middle, high) = spread(cell.iter().map(|sample| sample.outcome.rate()));
        let median = |of: fn(&Sample) -> f64| spread(cell.iter().map(of)).1;
        println!(
            "| {} | {} | {low:.0}/**{middle:.0}**/{high:.0} | {worst:.2}/**{ratio:.2}**/{best:.2} \
             | {:.2} | {:.2} | {:.0} | {:.1} |",
            subject.name,
            systems[*at].name,
            median(|sample| f64::from(sample.outcome.quantile_us(0.5)) / 1e3),
            median(|sample| f64::from(sample.outcome.quantile_us(0.99)) / 1e3),
            median(|sample| sample.cpu_us_per_request),
            median(|sample| sample.entries_per_1000),
        );
    }
}

fn run(subject: &Subject, rounds: u64, time: Duration) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let systems = subject.systems(dir.path());
    let mut samples: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    for round in 1..=rounds {
        for (at, system) in systems.iter().enumerate() {
            let sample = measure(subject, system, time);
            eprintln!(
                "round {round}/{rounds} {} {}: {:.0}/s",
                subject.name,
                system.name,
                sample.outcome.rate()
            );
            samples.entry(at).or_default().push(sample);
        }
    }
    print_rows(subject, &systems, &samples);
}

fn main() {
    let rounds = environment("BROLGA_BENCH_ROUNDS", 3);
    let time = Duration::from_secs(environment("BROLGA_BENCH_SECONDS", 3));
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    println!("{rounds} rounds of {time:?}; ratios are of the same round");
    println!(
        "| load | system | rate min/**med**/max | of native | p50 ms | p99 ms | CPU us/op \
         | entries/1000 |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for subject in subjects::all() {
        if wanted.is_empty()
            || wanted
                .iter()
                .any(|name| subject.name.starts_with(name.as_str()))
        {
            run(&subject, rounds, time);
        }
    }
}
