//! The root file system of a container: an overlay for each of the machine's file systems, and bind
//! mounts.
//!
//! Every container has a numbered directory of its own for changes, so that mounts of an earlier
//! one that the kernel has not released yet do not matter.

use super::{ContainerError, Content, GeneratedFile, OWN_DIRECTORY, Plan, TOOLS};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{chdir, mkfifo, pivot_root};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// 2000-01-01T00:00:00Z: the times of directories that every start creates. A server may read them.
const CONSTANT_SECONDS: i64 = 946_684_800;
/// The kernel's list of mounts.
const MOUNTS: &str = "/proc/self/mountinfo";
/// Directory of changes to file systems, below that of the container.
pub(crate) const CHANGES: &str = "changes";
/// Directory that is `/dev/shm` inside, below that of the container.
pub(crate) const SHARED_MEMORY: &str = "shm";
/// Types of file systems without stored files: they are omitted.
const WITHOUT_FILES: [&str; 19] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "mqueue",
    "hugetlbfs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "autofs",
    "binfmt_misc",
    "efivarfs",
    "nsfs",
];
/// Directories whose mounts are omitted.
const OMITTED_DIRECTORIES: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Directories that a root directory needs (the last one for CRIU), with their modes. Missing ones
/// are created.
const NEEDED_DIRECTORIES: [(&str, u32); 4] = [
    ("/proc", 0o555),
    ("/sys", 0o555),
    ("/dev", 0o755),
    ("/tmp", 0o1777),
];
/// Devices that are available inside.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Symbolic links in `/dev`.
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Names an operation and its path in the error.
fn doing<E: Into<io::Error>>(what: &str, path: &Path) -> impl FnOnce(E) -> ContainerError + use<E> {
    ContainerError::doing(format!("{what} {}", path.display()))
}

/// Creates the next numbered directory in `parent`, and removes earlier ones.
pub(super) fn fresh_state(parent: &Path) -> Result<PathBuf, ContainerError> {
    fs::create_dir_all(parent).map_err(doing("create", parent))?;
    let mut highest = 0;
    for entry in fs::read_dir(parent).map_err(doing("read", parent))? {
        let name = entry.map_err(doing("read", parent))?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else {
            continue;
        };
        highest = highest.max(number);
        remove_state(&parent.join(name));
    }
    let state = parent.join((highest + 1).to_string());
    for directory in [&state, &state.join(CHANGES), &state.join(SHARED_MEMORY)] {
        fs::create_dir(directory).map_err(doing("create", directory))?;
    }
    let shared = state.join(SHARED_MEMORY);
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).map_err(doing("open", &shared))?;
    set_constant_times(&shared)?;
    Ok(state)
}

/// Removes a container's directory. What the kernel still uses is left to the next container.
pub(super) fn remove_state(state: &Path) {
    // The working directory of an overlay contains a directory with mode 0, which root can remove.
    let _ = fs::remove_dir_all(state);
}

fn set_constant_times(path: &Path) -> Result<(), ContainerError> {
    let time = TimeSpec::new(CONSTANT_SECONDS, 0);
    let follow = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, follow)
        .map_err(doing("set the times of", path))
}

/// A mount of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    at: PathBuf,
    kind: String,
    read_only: bool,
}

impl Mount {
    /// Parses `id parent major:minor root AT OPTIONS [fields] - KIND source super-options`.
    fn parse(line: &str) -> Option<Self> {
        let (mine, kinds) = line.split_once(" - ")?;
        let mut fields = mine.split(' ').skip(4);
        let at = unescape(fields.next()?);
        let read_only = fields.next()?.split(',').any(|option| option == "ro");
        let kind = kinds.split(' ').next()?.to_owned();
        Some(Self {
            at,
            kind,
            read_only,
        })
    }

    /// Returns whether the mount holds files that a server may need.
    fn is_wanted(&self) -> bool {
        !WITHOUT_FILES.contains(&self.kind.as_str())
            && !OMITTED_DIRECTORIES
                .iter()
                .any(|place| self.at.starts_with(place))
    }
}

/// Decodes octal escapes: a space is written as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if *first == b'\\' => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Returns the topmost mount at each path, parents first.
fn wanted_mounts(text: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in text.lines().filter_map(Mount::parse) {
        mounts.retain(|earlier| earlier.at != mount.at);
        mounts.push(mount);
    }
    mounts.retain(Mount::is_wanted);
    mounts.sort_by(|a, b| a.at.cmp(&b.at));
    mounts
}

/// Returns the name of a file system in the directory of changes: its mount point, with `%` for
/// `/`.
fn name_of(mount_point: &Path) -> OsString {
    let bytes = mount_point.as_os_str().as_bytes().iter();
    OsString::from_vec(
        bytes
            .map(|byte| if *byte == b'/' { b'%' } else { *byte })
            .collect(),
    )
}

/// Returns the mount point of a file system with that name.
pub(crate) fn mount_point_of(name: &str) -> PathBuf {
    name.replace('%', "/").into()
}

/// Escapes the characters that separate the options of an overlay.
fn escape(path: &Path) -> Vec<u8> {
    let mut escaped = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        if b"\\,:".contains(byte) {
            escaped.push(b'\\');
        }
        escaped.push(*byte);
    }
    escaped
}

/// No argument, for [`mount`].
const NONE: Option<&str> = None;

/// A mounted root that is not entered yet.
pub(super) struct Root {
    top: PathBuf,
}

impl Root {
    /// Mounts overlays of the machine's file systems on a directory in `state`. The calling thread
    /// is in a mount namespace of its own.
    pub(super) fn mount(state: &Path) -> Result<Self, ContainerError> {
        let root = Self::empty(state)?;
        let text = fs::read_to_string(MOUNTS).map_err(doing("read", Path::new(MOUNTS)))?;
        for wanted in wanted_mounts(&text) {
            root.mount_host_file_system(&wanted, state)?;
        }
        Ok(root)
    }

    /// Mounts an overlay of one directory. Missing mount points in it are created in the overlay.
    pub(super) fn mount_directory(directory: &Path, state: &Path) -> Result<Self, ContainerError> {
        let root = Self::empty(state)?;
        let changes = state.join(CHANGES).join(name_of(Path::new("/")));
        let fresh = !changes.exists();
        let missing = NEEDED_DIRECTORIES.into_iter();
        let missing = missing.filter(|(place, _)| fresh && !below(directory, place).exists());
        overlay(directory, Path::new("/"), missing, state, &root.top)?;
        Ok(root)
    }

    /// Creates the directory of the root and detaches the namespace's mounts from the machine's.
    fn empty(state: &Path) -> Result<Self, ContainerError> {
        let everything = Path::new("/");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, everything, NONE, private, NONE)
            .map_err(doing("detach the mounts of", everything))?;
        let top = state.join("root");
        fs::create_dir(&top).map_err(doing("create", &top))?;
        Ok(Self { top })
    }

    /// Mounts an overlay of one of the machine's file systems, or binds it if that is not possible.
    fn mount_host_file_system(&self, wanted: &Mount, state: &Path) -> Result<(), ContainerError> {
        let target = self.inside(&wanted.at);
        let is_root = wanted.at == Path::new("/");
        if !is_root && !target.exists() {
            return Ok(()); // It is hidden by another mount.
        }
        let ambiguous = wanted.at.as_os_str().as_bytes().contains(&b'%');
        if !is_root && (wanted.read_only || ambiguous || !wanted.at.is_dir()) {
            return bind_read_only(&wanted.at, &target);
        }
        match overlay(&wanted.at, &wanted.at, [], state, &target) {
            // Not every file system can be the lower layer of an overlay.
            Err(_) if !is_root => bind_read_only(&wanted.at, &target),
            other => other,
        }
    }

    /// Returns the path outside of a path inside.
    fn inside(&self, path: &Path) -> PathBuf {
        below(&self.top, path)
    }

    /// Mounts and creates the container's own files.
    pub(super) fn populate(&self, plan: &Plan, state: &Path) -> Result<(), ContainerError> {
        let own = self.inside(Path::new(OWN_DIRECTORY));
        mount_tmpfs(&own)?;
        for (source, name) in &plan.bound {
            let target = own.join(name);
            bind(source, &target)?;
        }
        for file in &plan.generated {
            generate(&own.join(file.name), file)?;
        }
        if let Some(root) = &plan.root {
            let tools = below(&self.top, TOOLS);
            fs::create_dir(&tools).map_err(doing("create", &tools))?;
            for file in &root.criu {
                let name = file.file_name().unwrap_or_default();
                bind_read_only(file, &tools.join(name))?;
            }
            set_constant_times(&tools)?;
        }
        set_constant_times(&own)?;
        let sys = Path::new("/sys");
        bind_read_only(sys, &self.inside(sys))?;
        self.populate_devices(state)
    }

    fn populate_devices(&self, state: &Path) -> Result<(), ContainerError> {
        let devices = self.inside(Path::new("/dev"));
        mount_tmpfs(&devices)?;
        for name in DEVICES {
            bind(&Path::new("/dev").join(name), &devices.join(name))?;
        }
        for (name, target) in DEVICE_LINKS {
            symlink(target, devices.join(name)).map_err(doing("create", &devices.join(name)))?;
        }
        bind(&state.join(SHARED_MEMORY), &devices.join("shm"))?;
        set_constant_times(&devices)
    }

    /// Makes it the root directory of the calling thread's namespace, and detaches the old one.
    pub(super) fn enter(self) -> Result<(), ContainerError> {
        let here = Path::new(".");
        chdir(&self.top).map_err(doing("enter", &self.top))?;
        pivot_root(here, here).map_err(doing("change the root to", &self.top))?;
        umount2(here, MntFlags::MNT_DETACH).map_err(doing("leave the root for", &self.top))?;
        chdir("/").map_err(doing("enter", &self.top))
    }
}

/// Returns an absolute path, taken below `top` instead of `/`.
fn below(top: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    top.join(path.strip_prefix("/").unwrap_or(path))
}

/// Mounts an overlay of `lower` on `target`, with its own directory of changes; `mount_point` is
/// its path inside. In the root, `missing` directories are created as well.
fn overlay<'a>(
    lower: &Path,
    mount_point: &Path,
    missing: impl IntoIterator<Item = (&'a str, u32)>,
    state: &Path,
    target: &Path,
) -> Result<(), ContainerError> {
    let name = name_of(mount_point);
    let changes = state.join(CHANGES).join(&name);
    let work = state.join("work").join(&name);
    fs::create_dir_all(&work).map_err(doing("create", &work))?;
    // It exists if it was restored from a checkpoint.
    if !changes.exists() {
        fs::create_dir(&changes).map_err(doing("create", &changes))?;
        if mount_point == Path::new("/") {
            for (name, mode) in missing.into_iter().chain([(OWN_DIRECTORY, 0o755)]) {
                // Created here and not through the overlay, which would copy up the root directory.
                let made = below(&changes, name);
                fs::create_dir(&made).map_err(doing("create", &made))?;
                let mode = Permissions::from_mode(mode);
                fs::set_permissions(&made, mode).map_err(doing("open", &made))?;
                set_constant_times(&made)?;
            }
        }
        copy_attributes(lower, &changes)?;
    }
    let mut options = b"lowerdir=".to_vec();
    options.extend(escape(lower));
    options.extend(b",upperdir=");
    options.extend(escape(&changes));
    options.extend(b",workdir=");
    options.extend(escape(&work));
    // A file keeps its inode number at its first change, and nothing ties the changes to this
    // machine.
    options.extend(b",xino=auto,index=off,metacopy=off,redirect_dir=off");
    let options = OsString::from_vec(options);
    let kind = Some("overlay");
    mount(
        kind,
        target,
        kind,
        MsFlags::empty(),
        Some(options.as_os_str()),
    )
    .map_err(doing("mount an overlay over", lower))
}

/// Gives the directory of changes the owner, mode and times of `lower`: the overlay shows them as
/// those of its own top.
fn copy_attributes(lower: &Path, changes: &Path) -> Result<(), ContainerError> {
    let like = fs::metadata(lower).map_err(doing("look at", lower))?;
    chown(changes, Some(like.uid()), Some(like.gid()))
        .map_err(doing("set the owner of", changes))?;
    fs::set_permissions(changes, like.permissions()).map_err(doing("set the mode of", changes))?;
    let time = TimeSpec::new(like.mtime(), like.mtime_nsec());
    let follow = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, changes, &time, &time, follow)
        .map_err(doing("set the times of", changes))
}

/// Mounts an empty file system in memory.
fn mount_tmpfs(target: &Path) -> Result<(), ContainerError> {
    let kind = Some("tmpfs");
    mount(kind, target, kind, MsFlags::MS_NOSUID, Some("mode=755"))
        .map_err(doing("mount a file system in memory on", target))
}

/// Binds a file or directory to a path, where a file or directory is created if necessary.
fn bind(source: &Path, target: &Path) -> Result<(), ContainerError> {
    if !target.exists() {
        let made = if source.is_dir() {
            fs::create_dir(target)
        } else {
            File::create(target).map(drop)
        };
        made.map_err(doing("create", target))?;
    }
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE).map_err(doing("bind", source))
}

/// Binds a file or directory to a path, read-only.
fn bind_read_only(source: &Path, target: &Path) -> Result<(), ContainerError> {
    bind(source, target)?;
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, again, NONE).map_err(doing("remount read-only", source))
}

/// Creates a generated file.
fn generate(at: &Path, file: &GeneratedFile) -> Result<(), ContainerError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    match file.content {
        Content::Executable(content) => options
            .mode(0o555)
            .open(at)
            .and_then(|mut file| file.write_all(content)),
        Content::Zeroed(bytes) => options
            .mode(0o600)
            .open(at)
            .and_then(|file| file.set_len(bytes)),
        Content::Fifo => mkfifo(at, Mode::S_IRUSR | Mode::S_IWUSR).map_err(Into::into),
    }
    .map_err(doing("create", at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw,relatime - proc proc rw
23 21 0:6 / /dev rw - devtmpfs devtmpfs rw
24 23 0:22 / /dev/shm rw - tmpfs tmpfs rw
25 21 0:30 / /srv/a\\040b rw,relatime shared:5 - xfs /dev/vdb rw
26 21 0:31 / /mnt/disk ro,nosuid - iso9660 /dev/sr0 ro
27 21 0:32 / /srv/a\\040b rw - tmpfs tmpfs rw
";

    #[test]
    fn only_file_systems_with_files_are_taken_over_and_the_topmost_wins() {
        let mounts = wanted_mounts(LINES);
        let seen: Vec<_> = mounts
            .iter()
            .map(|it| (it.at.to_str().unwrap(), it.kind.as_str(), it.read_only))
            .collect();
        let expected = [
            ("/", "ext4", false),
            ("/mnt/disk", "iso9660", true),
            ("/srv/a b", "tmpfs", false),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn paths_are_named_and_escaped() {
        assert_eq!(name_of(Path::new("/srv/a b")), "%srv%a b");
        assert_eq!(escape(Path::new("/a:b,c")), b"/a\\:b\\,c");
        assert_eq!(unescape("/a\\134040"), Path::new("/a\\040"));
    }
}
