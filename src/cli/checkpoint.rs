//! `brolga checkpoint`: lists, verifies, exports, imports, prunes and takes checkpoints.
//!
//! All subcommands but `now` work on the files alone, whether the nodes run or not: a checkpoint never
//! changes once it has its name, and the directory may be used by several processes.

use super::progress::Progress;
use super::{Outcome, runtime};
use crate::admin::checkpoints_now;
use crate::cluster::{self, node_dir};
use anyhow::{Context, bail};
use brolga_checkpoint::{Checkpoint, CheckpointError, Directory, archive};
use brolga_node::WriterStatus;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Args)]
struct Selection {
    /// Directory of the cluster.
    #[arg(long, value_name = "DIR", default_value = "brolga-data")]
    data: PathBuf,
    /// Only this replica.
    #[arg(long, value_name = "N")]
    node: Option<u64>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the checkpoints of each replica.
    List(Selection),
    /// Take a checkpoint on each replica now, one after the other, the leader last.
    Now(Selection),
    /// Verify all checkpoints and report damage.
    Verify(Selection),
    /// Write a checkpoint to a file (.tar.zst), with everything needed to verify it.
    Export {
        /// The file; it must not exist.
        file: PathBuf,
        /// The slot; by default the newest.
        #[arg(long)]
        slot: Option<u64>,
        #[command(flatten)]
        selection: Selection,
    },
    /// Import a checkpoint from a file, after verifying it.
    Import {
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        selection: Selection,
    },
    /// Remove all but the newest checkpoints.
    Prune {
        /// The number of checkpoints that are kept.
        #[arg(long, default_value_t = 1)]
        keep: usize,
        #[command(flatten)]
        selection: Selection,
    },
}

pub fn main(options: &Options) -> Outcome {
    match &options.command {
        Command::List(selection) => list(selection),
        Command::Now(selection) => now(selection),
        Command::Verify(selection) => verify(selection),
        Command::Export {
            file,
            slot,
            selection,
        } => export(file, *slot, selection),
        Command::Import { file, selection } => import(file, selection),
        Command::Prune { keep, selection } => prune(*keep, selection),
    }
    .map_err(Into::into)
}

impl Selection {
    /// The selected replicas.
    fn nodes(&self) -> anyhow::Result<Vec<u64>> {
        let file = cluster::read(&self.data)?;
        let all = file.members.iter().map(|member| member.id);
        let nodes: Vec<u64> = all
            .filter(|id| self.node.is_none_or(|node| node == *id))
            .collect();
        match (nodes.is_empty(), self.node) {
            (true, Some(node)) => bail!("there is no replica {node}"),
            _ => Ok(nodes),
        }
    }

    /// The only selected replica.
    fn one(&self) -> anyhow::Result<u64> {
        match self.nodes()?[..] {
            [node] => Ok(node),
            _ => bail!("say which replica's with --node"),
        }
    }

    fn path(&self, node: u64) -> PathBuf {
        node_dir(&self.data, node).join("checkpoints")
    }

    /// A replica's checkpoints, if it has ever had any.
    fn directory(&self, node: u64) -> anyhow::Result<Option<Directory>> {
        let path = self.path(node);
        Ok(match path.exists() {
            true => Some(Directory::open(path)?),
            false => None,
        })
    }
}

fn list(selection: &Selection) -> anyhow::Result<()> {
    let mut text = format!(
        "{:>7}  {:>12}  {:>10}  {:>20}  {:<16}  {}\n",
        "replica", "slot", "size", "taken (UTC)", "output hash", "state"
    );
    for node in selection.nodes()? {
        let Some(directory) = selection.directory(node)? else {
            continue;
        };
        let listing = directory.list()?;
        for checkpoint in &listing.whole {
            text += &line(node, checkpoint);
        }
        for (_, error) in &listing.damaged {
            text += &format!("{node:>7}  damaged: {error}\n");
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn line(node: u64, checkpoint: &Checkpoint) -> String {
    let manifest = &checkpoint.manifest;
    let size = indicatif::HumanBytes(manifest.bytes()).to_string();
    let taken = utc(manifest.taken_at);
    let (slot, hash) = (manifest.position.slot, manifest.position.output_hash);
    format!("{node:>7}  {slot:>12}  {size:>10}  {taken:>20}  {hash:016x}  complete\n")
}

/// Formats a time as UTC.
fn utc(seconds: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(seconds);
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (since / 86_400, since % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The date so many days after 1970-01-01: counted in eras of 400 years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn now(selection: &Selection) -> anyhow::Result<()> {
    let nodes = selection.nodes()?;
    let progress: RefCell<Option<(u64, Progress)>> = RefCell::new(None);
    let taking = |node, status: &WriterStatus| {
        let mut progress = progress.borrow_mut();
        if status.all == 0 {
            return;
        }
        if progress.as_ref().is_none_or(|(known, _)| *known != node) {
            let what = format!("replica {node}, slot {}", status.slot);
            *progress = Some((node, Progress::new(what, status.all)));
        }
        if let Some((_, progress)) = progress.as_mut() {
            progress.set(status.done);
        }
    };
    let taken = |node, slot| {
        progress.take();
        println!("replica {node}: checkpoint of slot {slot}");
    };
    runtime()?.block_on(checkpoints_now(&selection.data, &nodes, taking, taken))
}

fn verify(selection: &Selection) -> anyhow::Result<()> {
    let mut bad = 0;
    for node in selection.nodes()? {
        let Some(directory) = selection.directory(node)? else {
            continue;
        };
        let listing = directory.list()?;
        for (_, error) in &listing.damaged {
            println!("replica {node}: {error}");
            bad += 1;
        }
        for checkpoint in &listing.whole {
            let slot = checkpoint.slot();
            let what = format!("replica {node}, slot {slot}");
            let mut progress = Progress::new(what, checkpoint.manifest.bytes());
            let verdict = checkpoint.verify(&mut |more| progress.add(more));
            drop(progress);
            match verdict {
                Ok(()) => println!("replica {node}: slot {slot} is complete"),
                Err(error) => {
                    println!("replica {node}: slot {slot}: {error}");
                    bad += 1;
                }
            }
        }
    }
    match bad {
        0 => Ok(()),
        _ => bail!("{bad} damaged: the nodes use older ones instead; prune removes them"),
    }
}

fn export(file: &Path, slot: Option<u64>, selection: &Selection) -> anyhow::Result<()> {
    let mut newest: Option<Checkpoint> = None;
    for node in selection.nodes()? {
        let Some(directory) = selection.directory(node)? else {
            continue;
        };
        let fit = |it: &Checkpoint| slot.is_none_or(|slot| slot == it.slot());
        for found in directory.list()?.whole.into_iter().filter(fit) {
            if newest.as_ref().is_none_or(|it| it.slot() < found.slot()) {
                newest = Some(found);
            }
        }
    }
    let checkpoint = newest.context("there is no such checkpoint")?;
    checkpoint.verify(&mut |_| ())?;
    // The file gets its name when it is complete.
    if file.exists() {
        bail!("{} exists", file.display());
    }
    let aside = file.with_extension("part");
    let mut progress = Progress::new("export", checkpoint.manifest.bytes());
    let mut write = || -> anyhow::Result<()> {
        let out = File::create(&aside)?;
        let buffered = BufWriter::new(&out);
        archive::export(&checkpoint, buffered, archive::LEVEL_DEFAULT, &mut |more| {
            progress.add(more);
        })?;
        out.sync_all()?;
        Ok(fs::rename(&aside, file)?)
    };
    if let Err(error) = write() {
        // What cannot be removed was never called whole.
        let _ = fs::remove_file(&aside);
        return Err(error.context(format!("cannot write {}", file.display())));
    }
    drop(progress);
    println!(
        "{}: checkpoint of slot {}",
        file.display(),
        checkpoint.slot()
    );
    Ok(())
}

fn import(file: &Path, selection: &Selection) -> anyhow::Result<()> {
    let node = selection.one()?;
    let directory = Directory::open(selection.path(node))?;
    match take_in(file, &directory)? {
        Taken::In(slot) => println!("replica {node}: checkpoint of slot {slot}"),
        Taken::There(slot) => {
            println!("replica {node} has the checkpoint of slot {slot} already");
        }
    }
    Ok(())
}

/// The result of an import, with the slot.
pub(super) enum Taken {
    In(u64),
    There(u64),
}

/// Imports an archive into a directory of checkpoints.
pub(super) fn take_in(file: &Path, directory: &Directory) -> anyhow::Result<Taken> {
    let input = File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut progress = Progress::new("import", input.metadata()?.len());
    let counted = Counted {
        inner: input,
        progress: &mut progress,
    };
    match archive::import(directory, BufReader::new(counted), file, &mut |_| ()) {
        Ok(checkpoint) => Ok(Taken::In(checkpoint.slot())),
        Err(CheckpointError::Exists(slot)) => Ok(Taken::There(slot)),
        Err(error) => Err(error.into()),
    }
}

/// Counts what is read of the file.
struct Counted<'a> {
    inner: File,
    progress: &'a mut Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

fn prune(keep: usize, selection: &Selection) -> anyhow::Result<()> {
    if keep == 0 {
        bail!("--keep 0: the log may begin after the last checkpoint, so one has to stay");
    }
    for node in selection.nodes()? {
        if let Some(directory) = selection.directory(node)? {
            for path in directory.prune(keep)? {
                println!("replica {node}: removed {}", path.display());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(1_735_689_599), "2024-12-31 23:59:59");
    }
}
