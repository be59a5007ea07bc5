//! The files that a server is made of before it runs: its program, the interpreters of a script, the
//! dynamic linker, and the libraries that it loads.
//!
//! Which libraries those are is asked of the dynamic linker itself (`--list`, as `ldd` does), in the
//! server's environment: it alone knows its search paths, its cache and the processor's variants of a
//! library. It maps them and runs nothing of theirs.
//!
//! Deliberately absent: what a program loads (`dlopen`) or executes when it runs. Of `#!/usr/bin/env NAME`
//! the program of that name is listed, since nobody writes it for the sake of `env`.

use crate::elf::{self, BinaryError, Runs};
use crate::launch::{SERVER_PATH, canonical_environment};
use brolga_checkpoint::{FileFingerprint, hash_file};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Programs that a chain of interpreters can consist of; the kernel allows fewer.
const PROGRAMS_MAX: usize = 16;

/// Why the files of a server cannot be told. One line each.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FingerprintError {
    /// The program is none.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The dynamic linker does not say what it loads.
    #[error("cannot ask {linker} what {program} is linked with: {why}",
        linker = linker.display(), program = program.display())]
    Linker {
        /// The dynamic linker.
        linker: PathBuf,
        /// The program.
        program: PathBuf,
        /// The linker's message.
        why: String,
    },
}

/// The files of a server with this program and these additional variables of the environment, which
/// starts in a copy of `directory`: the program first.
///
/// # Errors
/// See [`FingerprintError`].
pub fn of_server(
    program: &Path,
    env: &[(String, String)],
    directory: &Path,
) -> Result<Vec<FileFingerprint>, FingerprintError> {
    let paths = files(program, env, directory)?;
    paths
        .into_iter()
        .map(|path| mark(path, directory))
        .collect()
}

fn mark(path: PathBuf, directory: &Path) -> Result<FileFingerprint, FingerprintError> {
    // A library that is searched for in a relative directory is one of the genesis.
    match hash_file(&directory.join(&path), &mut |_| ()) {
        Ok((bytes, hash)) => Ok(FileFingerprint { path, bytes, hash }),
        Err(source) => Err(FingerprintError::File { path, source }),
    }
}

fn files(
    program: &Path,
    env: &[(String, String)],
    directory: &Path,
) -> Result<Vec<PathBuf>, FingerprintError> {
    let mut files = Vec::new();
    let mut add = |path: PathBuf| {
        if !files.contains(&path) {
            files.push(path);
        }
    };
    let mut next = Some(program.to_owned());
    let mut for_env = None;
    for _ in 0..PROGRAMS_MAX {
        let Some(program) = next.take().or_else(|| for_env.take()) else {
            break;
        };
        add(program.clone());
        match elf::runs(&directory.join(&program))? {
            Runs::Script {
                interpreter,
                argument,
            } => {
                for_env = named_for_env(&interpreter, argument.as_deref(), env);
                next = Some(interpreter);
            }
            Runs::Linked { linker } => {
                add(linker.clone());
                let libraries = libraries(&linker, &program, env, directory)?;
                libraries.into_iter().for_each(&mut add);
            }
        }
    }
    Ok(files)
}

/// The program that `env` in the first line of a script looks for.
fn named_for_env(
    interpreter: &Path,
    argument: Option<&OsStr>,
    env: &[(String, String)],
) -> Option<PathBuf> {
    if interpreter.file_name() != Some(OsStr::new("env")) {
        return None;
    }
    let words = argument?.to_str()?.split_ascii_whitespace();
    let name = words
        .into_iter()
        .find(|word| !word.starts_with('-') && !word.contains('='))?;
    let path = env.iter().rev().find(|(variable, _)| variable == "PATH");
    let path = path.map_or(SERVER_PATH, |(_, value)| value);
    elf::find(OsStr::new(name), path).ok()
}

/// A program of this machine, its dynamic linker, and its libraries: what it takes to run it elsewhere.
///
/// # Errors
/// See [`FingerprintError`].
pub fn to_run(program: &Path) -> Result<Vec<PathBuf>, FingerprintError> {
    files(program, &[], Path::new("/"))
}

/// The libraries of a program, in the order in which they are loaded. Those not found are left out: the
/// start of the server will tell.
fn libraries(
    linker: &Path,
    program: &Path,
    env: &[(String, String)],
    directory: &Path,
) -> Result<Vec<PathBuf>, FingerprintError> {
    let failed = |why: String| FingerprintError::Linker {
        linker: linker.to_owned(),
        program: program.to_owned(),
        why,
    };
    let asked = Command::new(linker)
        .arg("--list")
        .arg(program)
        .env_clear()
        .envs(canonical_environment())
        .envs(env.iter().map(|(name, value)| (name, value)))
        .current_dir(directory)
        .stdin(Stdio::null())
        .output();
    let Output {
        status,
        stdout,
        stderr,
    } = asked.map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8(stdout);
    let said = said.map_err(|_| failed("a path is not UTF-8".to_owned()))?;
    let found = parse(&said);
    if !status.success() && found.is_empty() {
        let why = String::from_utf8_lossy(&stderr);
        return Err(failed(why.trim().replace('\n', " ")));
    }
    Ok(found)
}

/// Lines of `NAME => PATH (0xADDRESS)`, or of a path alone.
fn parse(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| {
        let (what, _) = line.trim().rsplit_once(" (0x")?;
        let path = what.split_once(" => ").map_or(what, |(_, path)| path);
        // The vDSO is no file.
        path.contains('/').then(|| PathBuf::from(path))
    };
    said.lines().filter_map(path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    fn paths(program: &Path, env: &[(String, String)]) -> Vec<PathBuf> {
        let marks = of_server(program, env, Path::new("/")).unwrap();
        marks.into_iter().map(|mark| mark.path).collect()
    }

    fn script(dir: &Path, line: &str) -> PathBuf {
        let path = dir.join("script");
        fs::write(&path, format!("{line}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn with_name(paths: &[PathBuf], name: &str) -> usize {
        let named = |path: &PathBuf| path.file_name().is_some_and(|file| file == name);
        let found = paths.iter().position(named);
        found.unwrap_or_else(|| panic!("{name} is not in {paths:?}"))
    }

    #[test]
    fn a_program_its_linker_and_its_libraries() {
        let shell = Path::new("/bin/sh");
        let marks = of_server(shell, &[], Path::new("/")).unwrap();
        assert_eq!(marks[0].path, shell);
        assert_eq!(marks[0].bytes, fs::metadata(shell).unwrap().len());
        let paths = paths(shell, &[]);
        assert_eq!(with_name(&paths, "ld-linux-x86-64.so.2"), 1);
        with_name(&paths, "libc.so.6");
        let vdso = |path: &PathBuf| path.to_str().unwrap().contains("vdso");
        assert!(!paths.iter().any(vdso), "{paths:?}");
    }

    #[test]
    fn a_script_its_interpreter_and_what_that_is_linked_with() {
        let dir = tempfile::tempdir().unwrap();
        let script = script(dir.path(), "#! /bin/sh -e");
        let paths = paths(&script, &[]);
        assert_eq!(&paths[..2], [script, "/bin/sh".into()]);
        with_name(&paths, "libc.so.6");
    }

    #[test]
    fn what_env_looks_for_is_listed_by_its_search_path() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("interpreter");
        fs::copy("/bin/sh", &own).unwrap();
        let script = script(dir.path(), "#!/usr/bin/env -S A=1 interpreter -x");
        let path = dir.path().to_str().unwrap().to_owned();
        let paths = paths(&script, &[("PATH".to_owned(), path)]);
        assert_eq!(&paths[..2], [script, "/usr/bin/env".into()]);
        assert!(paths.contains(&own), "{paths:?}");
    }

    #[test]
    fn only_changes_of_content_change_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("program");
        let marks = || of_server(&own, &[], dir.path()).unwrap();
        fs::copy("/bin/sh", &own).unwrap();
        let first = marks();
        fs::remove_file(&own).unwrap();
        fs::copy("/bin/sh", &own).unwrap();
        assert_eq!(marks(), first);
        let mut changed = fs::read(&own).unwrap();
        changed.push(0);
        fs::write(&own, changed).unwrap();
        let second = marks();
        assert_ne!(second[0], first[0]);
        assert_eq!(second[1..], first[1..]);
    }

    #[test]
    fn the_linkers_answer_is_understood() {
        let said = "\tlinux-vdso.so.1 (0x00007f)\n\tliba.so => ./liba.so (0x1)\n\
                    \tlibb.so => /opt/a b/libb.so (0x2)\n\tlibc.so => not found\n\t/lib64/ld.so (0x3)\n";
        let expected = ["./liba.so", "/opt/a b/libb.so", "/lib64/ld.so"];
        assert_eq!(parse(said), expected.map(PathBuf::from));
    }
}
