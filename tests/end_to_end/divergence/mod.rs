//! Replicas that differ are found, refused or named; recorded runs are compared.

mod check;
mod compatibility;
mod monitor;
mod replay;
