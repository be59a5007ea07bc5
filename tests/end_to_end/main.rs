//! The main job, from outside: real servers that know nothing of replication, real clients, real
//! `kill -9`. A test passes only if every reply was right, byte for byte, and all replicas have
//! equal output and schedule hashes at the end; timing is stated, never judged.
//!
//! One cluster runs at a time, whatever the number of test threads. Sizes are meant for every day;
//! the environment makes a campaign of them:
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `BROLGA_E2E_SCALE` | multiplies requests, files and kills | 1 |
//! | `BROLGA_E2E_IDLE_SECONDS` | how long idle clusters are watched | 10 |
//! | `BROLGA_E2E_FAILOVERS` | runs of the gap measurement | 5 |
//! | `BROLGA_E2E_JOIN_MB` | megabytes in Redis when a learner joins and the time is stated | 64 |
//! | `BROLGA_E2E_TORTURE` | iterations of the torture suite | 84 |
//! | `BROLGA_CHECKPOINT_FAULTS` | rounds of each campaign against checkpoints | 8 |
//! | `BROLGA_E2E_SEED` | repeats a random choice that a test has printed | random |

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "../harness/mod.rs"]
mod harness;

mod fixture;

mod calls;
mod checkpoints;
mod clients;
mod divergence;
mod failures;
mod joining;
mod scheduling;
mod servers;
