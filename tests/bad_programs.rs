//! Programs that cannot be wrapped are refused before anything is started.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use harness::refused;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn program(&self, name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Nothing may have been created for a program that is refused.
    #[track_caller]
    fn refuses(&self, program: &Path, words: &[&str]) {
        let data = self.0.path().join("data");
        let command = [
            "run",
            "--data",
            data.to_str().unwrap(),
            "--",
            program.to_str().unwrap(),
        ];
        refused(&command, words);
        assert!(!data.exists());
    }
}

/// An ELF program of nothing but a header, so without a dynamic linker.
fn header(class: u8, machine: u16) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[0..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1, 1]);
    header[16..18].copy_from_slice(&2u16.to_le_bytes());
    header[18..20].copy_from_slice(&machine.to_le_bytes());
    header
}

#[test]
fn missing() {
    let folder = Folder::new();
    folder.refuses(
        Path::new("/no/such/server"),
        &["/no/such/server", "No such file"],
    );
    folder.refuses(
        Path::new("no-such-server"),
        &["no-such-server", "no such program"],
    );
}

#[test]
fn not_executable() {
    let folder = Folder::new();
    let text = folder.program("text", b"hello", 0o644);
    folder.refuses(&text, &["not an executable file"]);
    let text = folder.program("text", b"hello", 0o755);
    folder.refuses(&text, &["neither an ELF program nor a script"]);
}

#[test]
fn thirty_two_bit() {
    let folder = Folder::new();
    folder.refuses(&folder.program("small", &header(1, 3), 0o755), &["32-bit"]);
    folder.refuses(
        &folder.program("arm", &header(2, 183), 0o755),
        &["another kind of machine"],
    );
}

#[test]
fn statically_linked() {
    let folder = Folder::new();
    let program = folder.program("static", &header(2, 62), 0o755);
    folder.refuses(&program, &["statically linked"]);
    let script = folder.program(
        "script",
        format!("#!{}\n", program.display()).as_bytes(),
        0o755,
    );
    folder.refuses(&script, &["script", "interpreter", "statically linked"]);
}

#[test]
fn statically_linked_by_a_real_compiler() {
    let folder = Folder::new();
    let source = folder.program("server.c", b"int main(void) { return 0; }", 0o644);
    let program = folder.0.path().join("server");
    let built = Command::new("cc")
        .args(["-static", "-o"])
        .args([&program, &source])
        .status();
    if !built.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no C compiler that links statically");
        return;
    }
    folder.refuses(&program, &["statically linked"]);
}

#[test]
fn setuid() {
    let folder = Folder::new();
    let content = fs::read("/bin/true").unwrap();
    folder.refuses(&folder.program("suid", &content, 0o4755), &["setuid"]);
    folder.refuses(&folder.program("sgid", &content, 0o2755), &["setgid"]);
}

#[test]
fn with_file_capabilities() {
    let folder = Folder::new();
    let program = folder.program("capable", &fs::read("/bin/true").unwrap(), 0o755);
    let set = Command::new("setcap")
        .arg("cap_net_raw+ep")
        .arg(&program)
        .status();
    if !set.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: setcap is not installed, or this is not root");
        return;
    }
    folder.refuses(&program, &["file capabilities"]);
}
