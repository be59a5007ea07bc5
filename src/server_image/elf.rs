//! Decides, before anything is started, whether a program can be wrapped at all.
//!
//! The interposer gets in through the dynamic linker, so a program must be a dynamically linked
//! 64-bit ELF file of this machine, or a script whose interpreter is one, and must not be of the
//! kind for which the linker ignores `LD_PRELOAD` (setuid, setgid, file capabilities). A program
//! that would run outside the interposer unnoticed would diverge silently; it is refused here instead.
//!
//! Not covered: what the program executes later; that is the interposer's to watch.

use nix::unistd::{AccessFlags, access};
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{FileKind, ReadCache};
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The kernel follows a chain of script interpreters this far.
const INTERPRETERS_MAX: usize = 5;
/// The kernel looks at this much of a script's first line.
const SCRIPT_LINE_BYTES_MAX: usize = 256;
const SETUID_OR_SETGID: u32 = 0o6000;

#[cfg(target_arch = "x86_64")]
const HOST_MACHINE: elf::Machine = elf::EM_X86_64;
#[cfg(not(target_arch = "x86_64"))]
compile_error!("brolga wraps x86-64 programs only");

/// Why a program cannot be wrapped. The text is a whole line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BinaryError {
    /// There is no command at all.
    #[error("no command given: say which server to run after --")]
    NoCommand,
    /// A bare name that is in no directory of the search path.
    #[error("{name}: no such program in {search_path}: give its full path or install it")]
    NotFound {
        /// The name.
        name: String,
        /// The search path.
        search_path: String,
    },
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A directory, or a file without execute permission.
    #[error("{0} is not an executable file (chmod +x?)")]
    NotExecutable(PathBuf),
    /// Neither ELF nor a script.
    #[error("{0} is neither an ELF program nor a script that starts with #!")]
    UnknownFormat(PathBuf),
    /// A 32-bit program.
    #[error("{0} is a 32-bit program: only 64-bit x86-64 programs can be wrapped")]
    ThirtyTwoBit(PathBuf),
    /// A program for another processor or system.
    #[error("{0} is for another kind of machine: only x86-64 Linux programs can be wrapped")]
    ForeignMachine(PathBuf),
    /// No dynamic linker, so no way in.
    #[error("{0} is statically linked: wrapping needs a dynamically linked program")]
    Static(PathBuf),
    /// The dynamic linker it asks for is not installed.
    #[error("{program} asks for the dynamic linker {linker}, which is not installed")]
    NoLinker {
        /// The program.
        program: PathBuf,
        /// The path in `PT_INTERP`.
        linker: PathBuf,
    },
    /// The linker ignores `LD_PRELOAD` for it.
    #[error(
        "{0} is setuid or setgid, so the dynamic linker would ignore the wrapper: use a copy \
         without those bits"
    )]
    SetId(PathBuf),
    /// Privileged by file capabilities.
    #[error(
        "{0} has file capabilities, so the dynamic linker would ignore the wrapper: use a copy \
         without them (setcap -r)"
    )]
    Capabilities(PathBuf),
    /// The script's interpreter is the problem.
    #[error("{script} is a script, and its interpreter cannot be wrapped: {reason}")]
    Interpreter {
        /// The script.
        script: PathBuf,
        /// The problem of the interpreter.
        reason: Box<BinaryError>,
    },
    /// Scripts that interpret scripts, without end.
    #[error("{0}: too many levels of script interpreters")]
    InterpreterLoop(PathBuf),
}

/// Finds the program of a command line and checks that it can be wrapped.
///
/// # Errors
/// The first thing that is in the way.
pub fn check_program(argv: &[OsString], search_path: &str) -> Result<PathBuf, BinaryError> {
    let name = argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or(BinaryError::NoCommand)?;
    let path = find(name, search_path)?;
    check_file(&path, 0)?;
    Ok(path)
}

/// Resolves `name` as the shell would: itself when it has a slash, else the first executable file
/// of that name in `search_path`.
///
/// # Errors
/// [`BinaryError::NotFound`].
pub fn find(name: &OsStr, search_path: &str) -> Result<PathBuf, BinaryError> {
    if name.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(name));
    }
    search_path
        .split(':')
        .map(|directory| Path::new(directory).join(name))
        .find(|candidate| candidate.is_file() && access(candidate, AccessFlags::X_OK).is_ok())
        .ok_or_else(|| BinaryError::NotFound {
            name: name.to_string_lossy().into_owned(),
            search_path: search_path.to_owned(),
        })
}

fn check_file(path: &Path, depth: usize) -> Result<(), BinaryError> {
    if depth > INTERPRETERS_MAX {
        return Err(BinaryError::InterpreterLoop(path.to_owned()));
    }
    let unreadable = |source| BinaryError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || access(path, AccessFlags::X_OK).is_err() {
        return Err(BinaryError::NotExecutable(path.to_owned()));
    }
    let mut file = File::open(path).map_err(unreadable)?;
    if let Some((interpreter, _)) = script_interpreter(&first_line(&mut file).map_err(unreadable)?)
    {
        return check_file(&interpreter, depth + 1).map_err(|reason| BinaryError::Interpreter {
            script: path.to_owned(),
            reason: Box::new(reason),
        });
    }
    // The kernel honours these bits on programs only, never on scripts.
    if metadata.permissions().mode() & SETUID_OR_SETGID != 0 {
        return Err(BinaryError::SetId(path.to_owned()));
    }
    if has_capabilities(path) {
        return Err(BinaryError::Capabilities(path.to_owned()));
    }
    check_elf(path, file).map(drop)
}

/// The chain of files that the kernel executes for a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Another program, with the script as its argument.
    Script {
        /// That program.
        interpreter: PathBuf,
        /// The argument in the first line.
        argument: Option<OsString>,
    },
    /// The program's dynamic linker.
    Linked {
        /// The path in `PT_INTERP`.
        linker: PathBuf,
    },
}

/// Determines what executing `path` runs.
///
/// # Errors
/// The program cannot be wrapped.
pub fn runs(path: &Path) -> Result<Runs, BinaryError> {
    let unreadable = |source| BinaryError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let start = first_line(&mut file).map_err(unreadable)?;
    match script_interpreter(&start) {
        Some((interpreter, argument)) => Ok(Runs::Script {
            interpreter,
            argument,
        }),
        None => check_elf(path, file).map(|linker| Runs::Linked { linker }),
    }
}

/// As much of a file as the kernel looks at.
fn first_line(file: &mut File) -> io::Result<Vec<u8>> {
    let mut start = Vec::new();
    file.take(SCRIPT_LINE_BYTES_MAX as u64)
        .read_to_end(&mut start)?;
    Ok(start)
}

/// The program named in the first line of a script, and what is said to it.
fn script_interpreter(start: &[u8]) -> Option<(PathBuf, Option<OsString>)> {
    let line = start
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?
        .trim_ascii();
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = line.iter().position(blank).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let argument = rest.trim_ascii();
    let argument = (!argument.is_empty()).then(|| OsString::from_vec(argument.to_vec()));
    let name = (!name.is_empty()).then(|| OsString::from_vec(name.to_vec()))?;
    Some((name.into(), argument))
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both strings end in NUL, and with size 0 nothing is written.
    let bytes = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        )
    };
    bytes > 0
}

/// The dynamic linker of a program.
fn check_elf(path: &Path, file: File) -> Result<PathBuf, BinaryError> {
    let data = ReadCache::new(file);
    match FileKind::parse(&data) {
        Ok(FileKind::Elf64) => {}
        Ok(FileKind::Elf32) => return Err(BinaryError::ThirtyTwoBit(path.to_owned())),
        _ => return Err(BinaryError::UnknownFormat(path.to_owned())),
    }
    let broken = |_| BinaryError::UnknownFormat(path.to_owned());
    let header = FileHeader64::<Endianness>::parse(&data).map_err(broken)?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != HOST_MACHINE {
        return Err(BinaryError::ForeignMachine(path.to_owned()));
    }
    for segment in header.program_headers(endian, &data).map_err(broken)? {
        if let Some(linker) = segment.interpreter(endian, &data).map_err(broken)? {
            let linker = PathBuf::from(OsStr::from_bytes(linker));
            if linker.exists() {
                return Ok(linker);
            }
            return Err(BinaryError::NoLinker {
                program: path.to_owned(),
                linker,
            });
        }
    }
    Err(BinaryError::Static(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    const PATH: &str = "/usr/bin:/bin";

    fn check(command: &str) -> Result<PathBuf, BinaryError> {
        check_program(&[OsString::from(command)], PATH)
    }

    fn executable(dir: &Path, name: &str, content: &[u8]) -> String {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The smallest file that counts as an ELF program: a header and no segments.
    fn elf_header(class: u8, machine: u16) -> Vec<u8> {
        let mut header = vec![0; 64];
        header[0..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
        header[16..18].copy_from_slice(&2u16.to_le_bytes());
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header
    }

    #[test]
    fn ordinary_programs_pass() {
        assert!(check("cat").unwrap().is_absolute());
        check("/bin/sh").unwrap();
    }

    #[test]
    fn absent_programs_are_named() {
        assert!(matches!(
            check("no-such-server"),
            Err(BinaryError::NotFound { .. })
        ));
        assert!(matches!(
            check("/no/such"),
            Err(BinaryError::Unreadable { .. })
        ));
        assert!(matches!(
            check_program(&[], PATH),
            Err(BinaryError::NoCommand)
        ));
    }

    #[test]
    fn each_kind_that_cannot_be_wrapped_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name, content: &[u8]| executable(dir.path(), name, content);
        let text = put("text", b"hello");
        assert!(matches!(check(&text), Err(BinaryError::UnknownFormat(_))));
        let small = put("small", &elf_header(1, 3));
        assert!(matches!(check(&small), Err(BinaryError::ThirtyTwoBit(_))));
        let foreign = put("foreign", &elf_header(2, 183));
        assert!(matches!(
            check(&foreign),
            Err(BinaryError::ForeignMachine(_))
        ));
        let unlinked = put("static", &elf_header(2, 62));
        assert!(matches!(check(&unlinked), Err(BinaryError::Static(_))));
        fs::set_permissions(&unlinked, Permissions::from_mode(0o4755)).unwrap();
        assert!(matches!(check(&unlinked), Err(BinaryError::SetId(_))));
        fs::set_permissions(&unlinked, Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            check(&unlinked),
            Err(BinaryError::NotExecutable(_))
        ));
        let directory = dir.path().to_str().unwrap();
        assert!(matches!(
            check(directory),
            Err(BinaryError::NotExecutable(_))
        ));
    }

    #[test]
    fn scripts_stand_and_fall_with_their_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name, content: &[u8]| executable(dir.path(), name, content);
        check(&put("good", b"#! /bin/sh -e\necho\n")).unwrap();
        let unlinked = put("static", &elf_header(2, 62));
        let script = put("bad", format!("#!{unlinked}\n").as_bytes());
        let error = check(&script).unwrap_err();
        let BinaryError::Interpreter { reason, .. } = error else {
            panic!("{error}");
        };
        assert!(matches!(*reason, BinaryError::Static(_)));
        let turning = dir.path().join("turning");
        let turning = put("turning", format!("#!{}\n", turning.display()).as_bytes());
        assert!(
            check(&turning)
                .unwrap_err()
                .to_string()
                .contains("too many levels")
        );
    }
}
