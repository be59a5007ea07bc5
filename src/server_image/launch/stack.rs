//! Edits the stack that the kernel built for a new program, before its first instruction.
//!
//! At the stop after exec the stack pointer is at `argc`; then come the argument pointers, a null,
//! the environment pointers, a null, and the auxiliary vector: pairs of type and value. Striking
//! `AT_SYSINFO_EHDR` takes the vDSO away from the program, so that each clock read is a real system
//! call (patching the vDSO instead would be undone by a CRIU restore).

use nix::sys::ptrace;
use nix::unistd::Pid;
use std::io;

const WORD: usize = size_of::<u64>();
/// Pointers and vector of a program with this much of them are refused rather than searched on.
const SEARCHED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Strikes the vDSO and replaces the random bytes in the stopped process `pid`.
pub fn make_alike(pid: Pid, seed: [u8; 16]) -> io::Result<()> {
    let at = ptrace::getregs(pid)?.rsp;
    let words = Words { pid, at };
    let vector = find_vector(&words)?;
    let mut random_at = None;
    for pair in 0.. {
        let index = vector + 2 * pair;
        match words.get(index)? {
            libc::AT_NULL => break,
            libc::AT_SYSINFO_EHDR => words.set(index, libc::AT_IGNORE)?,
            libc::AT_RANDOM => random_at = Some(words.get(index + 1)?),
            _ => {}
        }
    }
    let random_at = random_at.ok_or_else(|| malformed("no AT_RANDOM"))?;
    for (word, at) in seed
        .as_chunks::<WORD>()
        .0
        .iter()
        .zip((random_at..).step_by(WORD))
    {
        words.write(at, u64::from_ne_bytes(*word))?;
    }
    Ok(())
}

/// Index of the auxiliary vector's first word.
fn find_vector(words: &Words) -> io::Result<usize> {
    let arguments = usize::try_from(words.get(0)?).map_err(|_| malformed("argument count"))?;
    let environment = 1 + arguments + 1;
    for index in environment..SEARCHED_BYTES_MAX / WORD {
        if words.get(index)? == 0 {
            return Ok(index + 1);
        }
    }
    Err(malformed("no end of the environment"))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("unexpected stack of a new program: {what}"),
    )
}

/// The stack as numbered words, read and written through the tracer's calls: the process may be in a
/// container, where paths below `/proc` mean others. Reading them one by one is some hundred system calls
/// per started server, which nobody notices.
struct Words {
    pid: Pid,
    at: u64,
}

impl Words {
    fn get(&self, index: usize) -> io::Result<u64> {
        let word = ptrace::read(self.pid, self.address(index) as ptrace::AddressType)?;
        Ok(word.cast_unsigned())
    }

    fn set(&self, index: usize, word: u64) -> io::Result<()> {
        self.write(self.address(index), word)
    }

    fn write(&self, at: u64, word: u64) -> io::Result<()> {
        Ok(ptrace::write(
            self.pid,
            at as ptrace::AddressType,
            word.cast_signed(),
        )?)
    }

    fn address(&self, index: usize) -> u64 {
        self.at + (index * WORD) as u64
    }
}
