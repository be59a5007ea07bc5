//! Threads: parallel ones, threads that stall, and threads under torture.

mod parallel;
mod stall;
mod torture;
