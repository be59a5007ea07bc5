//! A recorded log, as `brolga replay` and `brolga restore` read it: its end, the point to start from, and
//! the report on what the server did.

use super::progress::Progress;
use crate::cluster::restore::{Choice, Wanted, choose};
use anyhow::{anyhow, bail};
use brolga_checkpoint::{Checkpoint, Directory, Hold};
use brolga_config::{Containment, NodeConfig};
use brolga_consensus::journal::{JournalConfig, LogReader};
use brolga_node::{Replayed, SlotHashes};
use std::path::Path;
use std::time::Duration;

/// Opens the log of a node.
pub(super) fn open_log(config: &NodeConfig) -> anyhow::Result<LogReader> {
    Ok(LogReader::open(JournalConfig {
        dir: config.log_dir(),
        cluster: config.cluster.0,
        node: config.node,
        segment_bytes: config.log_segment_bytes,
    })?)
}

/// The last slot that is known to be chosen. A slot that was only accepted may never have been chosen.
/// The log records the commit index with a delay, so the hashes of applied slots count as well.
pub(super) fn known_chosen(log: &LogReader, done: &[SlotHashes]) -> u64 {
    let done = done.last().map_or(0, |hashes| hashes.slot);
    log.commit().max(done.min(log.accepted()))
}

/// The checkpoint to start from; `None`: the genesis. `place` is a directory in which a container can be
/// tried.
///
/// # Errors
/// No usable checkpoint covers the missing beginning of the log.
pub(super) fn start_point(
    place: &Path,
    directories: &[Directory],
    wanted: &Wanted,
) -> anyhow::Result<Option<(Checkpoint, Hold)>> {
    let Choice {
        checkpoint,
        skipped,
        oldest,
    } = look(directories, wanted)?;
    for passed in &skipped {
        eprintln!("brolga: {passed}");
    }
    let whole_log = wanted.log_begins == Some(1);
    let Some((checkpoint, hold)) = checkpoint else {
        return match (whole_log, wanted.log_begins, oldest) {
            (true, ..) => Ok(None),
            (_, Some(begins), None) => {
                bail!("the log begins at slot {begins}, and there is no checkpoint")
            }
            (_, Some(begins), Some(oldest)) if wanted.upto < oldest => bail!(
                "slot {} is no longer available: the log begins at slot {begins} and the oldest \
                 checkpoint is of slot {oldest}",
                wanted.upto
            ),
            (_, Some(begins), _) => {
                bail!("the log begins at slot {begins}, and no checkpoint before it can be used")
            }
            (_, None, _) => bail!("there is no log, and no checkpoint that can be used"),
        };
    };
    match brolga_checkpoint::probe(place) {
        Ok(_) => Ok(Some((checkpoint, hold))),
        Err(error) if whole_log => {
            let slot = checkpoint.slot();
            eprintln!("brolga: the checkpoint of slot {slot} is skipped: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn look(directories: &[Directory], wanted: &Wanted) -> anyhow::Result<Choice> {
    let mut at: Option<(u64, Progress)> = None;
    Ok(choose(directories, wanted, &mut |checkpoint, more| {
        let slot = checkpoint.slot();
        if at.as_ref().is_none_or(|(known, _)| *known != slot) {
            let what = format!("checking slot {slot}");
            at = Some((slot, Progress::new(what, checkpoint.manifest.bytes())));
        }
        if let Some((_, progress)) = &mut at {
            progress.add(more);
        }
    })?)
}

/// From the genesis a server behaves alike with and without a container, so none is required here.
pub(super) fn contain_if_possible(config: &mut NodeConfig) {
    if config.container == Containment::Required && config.root.is_none() {
        config.container = Containment::Auto;
    }
}

/// Shows the progress of a replay.
pub(super) fn progress(from: Option<&Checkpoint>, upto: u64) -> impl FnMut(u64) + use<> {
    let first = from.map_or(0, Checkpoint::slot);
    let mut progress = Progress::of_slots("replaying", upto.saturating_sub(first));
    move |slot: u64| progress.set(slot.saturating_sub(first))
}

/// Describes what was replayed, and how fast.
pub(super) fn report(replayed: &Replayed) -> String {
    let Replayed {
        slots,
        last,
        began,
        took,
        bytes,
        ..
    } = replayed;
    let seconds = took.max(&Duration::from_micros(1)).as_secs_f64();
    format!(
        "the server was ready after {:.3} s\n\
         replayed {slots} slots in {:.3} s: {:.0} slots per second, {:.1} MiB per second\n\
         slot {}: output hash {:016x}, schedule hash {:016x}",
        began.as_secs_f64(),
        took.as_secs_f64(),
        *slots as f64 / seconds,
        *bytes as f64 / seconds / f64::from(1 << 20),
        last.slot,
        last.output_hash,
        last.schedule_hash
    )
}

/// Compares the replay with the recording: says so on standard output, or fails with the first slot
/// that differs.
pub(super) fn verdict(replayed: &Replayed, bounded: bool, upto: u64) -> anyhow::Result<()> {
    let Replayed {
        slots,
        equal,
        ended,
        debugger,
        ..
    } = replayed;
    if let Some((recorded, now)) = replayed.difference {
        let what = difference(&recorded, &now);
        return Err(anyhow!(
            "slot {} is the first that differs from the recording: {what}; {equal} before it are equal",
            now.slot
        ));
    }
    match equal {
        0 => println!("no hashes were recorded for these slots: nothing to compare with"),
        all if all == slots => println!("all hashes are as recorded"),
        some => println!(
            "the hashes of {some} slots are as recorded; {} were not recorded",
            slots - some
        ),
    }
    match ended {
        Some(how) if debugger.is_none() => {
            let last = replayed.last.slot;
            println!("after slot {last} of {upto} the server ended: {how}");
        }
        _ if bounded && debugger.is_none() => println!("stopped after slot {upto}, as requested"),
        _ => {}
    }
    Ok(())
}

fn difference(recorded: &SlotHashes, now: &SlotHashes) -> String {
    let mut parts = Vec::new();
    let pairs = [
        ("output", recorded.output_hash, now.output_hash),
        ("schedule", recorded.schedule_hash, now.schedule_hash),
    ];
    for (what, recorded, now) in pairs {
        if recorded != now {
            parts.push(format!("{what} hash {now:016x}, recorded {recorded:016x}"));
        }
    }
    parts.join("; ")
}
