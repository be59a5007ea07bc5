//! Finds the program CRIU and checks that it works on this machine.
//!
//! CRIU depends on internals of the kernel. An old version fails on a new kernel, often only at the
//! first real dump. `TOO_OLD` lists the known combinations; `criu check` detects other problems.
//! Every problem is reported in one line that says what to do.
//!
//! Deliberately absent: dumps and restores.

use crate::error::CheckpointError;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable that names the program.
pub const PROGRAM_VARIABLE: &str = "BROLGA_CRIU";
/// Directories that are searched after `PATH`, which lacks them for ordinary users.
const USUAL_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A version of CRIU or of the kernel. Two numbers are enough here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl Version {
    const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Parses the first two numbers of a text like `6.18.44-amd64`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text
            .trim()
            .split(|c: char| !c.is_ascii_digit())
            .map(str::parse);
        Some(Self::new(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Kernel version, the least version of CRIU that works from there on, and the reason.
const TOO_OLD: [(Version, Version, &str); 2] = [
    (
        Version::new(6, 13),
        Version::new(4, 1),
        "the kernel's clock pages lie elsewhere",
    ),
    (
        Version::new(6, 16),
        Version::new(4, 2),
        "sockets refuse an option that it sets",
    ),
];

/// A program CRIU that works on this machine, as far as it can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criu {
    program: PathBuf,
    version: Version,
}

impl Criu {
    /// Finds CRIU and checks that it works on this machine.
    ///
    /// # Errors
    /// [`CheckpointError::Unsupported`] with one line for the administrator of the machine.
    pub fn probe() -> Result<Self, CheckpointError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(unsupported("CRIU needs root".into()));
        }
        let program = find().ok_or_else(|| unsupported(not_found()))?;
        Self::check(&program)
    }

    fn check(program: &Path) -> Result<Self, CheckpointError> {
        let shown = program.display();
        let broken = |why: String| unsupported(format!("{shown} {why}"));
        let said = run(program, "--version").map_err(|why| broken(format!("can't run: {why}")))?;
        let version = version_of(&said)
            .ok_or_else(|| broken(format!("does not tell its version, but: {}", said.trim())))?;
        let kernel = nix::sys::utsname::uname().map_err(|errno| system(errno.into()))?;
        let kernel = kernel.release().to_string_lossy().into_owned();
        if let Some(why) = Version::parse(&kernel).and_then(|kernel| too_old(version, kernel)) {
            return Err(broken(why));
        }
        run(program, "check").map_err(|why| {
            broken(format!(
                "(version {version}) does not work on kernel {kernel}: {why}"
            ))
        })?;
        Ok(Self {
            program: program.to_owned(),
            version,
        })
    }

    /// Returns the path of the program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the version of the program.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }
}

fn unsupported(why: String) -> CheckpointError {
    CheckpointError::Unsupported(why)
}

fn system(error: std::io::Error) -> CheckpointError {
    CheckpointError::System(error)
}

fn not_found() -> String {
    format!(
        "CRIU is not installed: install criu, or run tests/criu.sh as root, or name the program in \
         {PROGRAM_VARIABLE}"
    )
}

fn too_old(criu: Version, kernel: Version) -> Option<String> {
    let found = TOO_OLD
        .iter()
        .rfind(|(since, least, _)| kernel >= *since && criu < *least);
    found.map(|(since, least, why)| {
        format!(
            "is version {criu}, and kernels from {since} on need {least} or later ({why}); this is \
             {kernel}: run tests/criu.sh as root, or name a newer one in {PROGRAM_VARIABLE}"
        )
    })
}

fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(PROGRAM_VARIABLE) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(&path, &USUAL_DIRECTORIES)
}

fn find_in(path: &OsStr, more: &[&str]) -> Option<PathBuf> {
    let directories = std::env::split_paths(path).chain(more.iter().map(PathBuf::from));
    directories
        .map(|directory| directory.join("criu"))
        .find(|program| is_executable(program))
}

fn is_executable(program: &Path) -> bool {
    std::fs::metadata(program)
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// Runs the program. Returns its output, or the first error that it prints if it fails.
fn run(program: &Path, argument: &str) -> Result<String, String> {
    let output = Command::new(program).arg(argument).output();
    let output = output.map_err(|error| error.to_string())?;
    let complaints = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    if output.status.code().is_none() {
        return Err(format!("`{argument}` was interrupted ({})", output.status));
    }
    let first = first_error(&complaints).unwrap_or("it does not say why");
    Err(first.to_owned())
}

/// Parts of harmless errors: devices that CRIU does not need, limits that it cannot raise.
const HARMLESS: [&str; 3] = ["tun: ", "RLIMIT_NOFILE", "FAILED."];

/// Returns the first relevant error in CRIU's messages, without the position in its source. Later
/// errors are consequences of it.
pub(crate) fn first_error(messages: &str) -> Option<&str> {
    let errors = messages.lines().filter(|line| line.contains("Error"));
    let mut errors = errors.map(|line| line.split_once("): ").map_or(line, |(_, what)| what));
    errors.find(|what| HARMLESS.iter().all(|word| !what.contains(word)))
}

fn version_of(said: &str) -> Option<Version> {
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("Version:"))?;
    Version::parse(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(
            Version::parse("6.18.44-amd64"),
            Some(Version {
                major: 6,
                minor: 18
            })
        );
        assert_eq!(version_of("Version: 4.2.1\n"), Version::parse("4.2"));
        assert_eq!(version_of("GitID: v3.17.1\n"), None);
        let (old, new) = (Version::new(3, 17), Version::new(4, 2));
        assert_eq!(too_old(old, Version::new(6, 1)), None);
        assert!(too_old(old, Version::new(6, 13)).is_some_and(|why| why.contains("4.1")));
        assert!(
            too_old(Version::new(4, 1), Version::new(6, 18)).is_some_and(|why| why.contains("4.2"))
        );
        assert_eq!(too_old(new, Version::new(7, 0)), None);
    }

    #[test]
    fn the_first_error_that_matters_is_told() {
        let log = "(00.02) Error (criu/tun.c:85): tun: no such file\n\
                   (00.03) Error (criu/kerndat.c:732): Unable to connect a socket\n\
                   (00.04) Warn  (criu/kerndat.c:1): later\n\
                   (00.05) Error (criu/cr-dump.c:2149): Dumping FAILED.\n";
        assert_eq!(first_error(log), Some("Unable to connect a socket"));
        assert_eq!(first_error("all is well"), None);
    }

    #[test]
    fn a_program_that_is_none_is_explained_in_one_line() {
        let dir = std::env::temp_dir().join(format!("brolga-criu-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let program = dir.join("criu");
        std::fs::write(&program, "#!/bin/sh\necho 'GitID: 0'\n").unwrap();
        assert_eq!(find_in(dir.as_os_str(), &[]), None, "it is not executable");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_in(dir.as_os_str(), &[]), Some(program.clone()));
        let error = Criu::check(&program).unwrap_err().to_string();
        assert!(error.contains("does not tell its version"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
