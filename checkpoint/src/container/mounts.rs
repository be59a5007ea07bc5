//! The root of a container: an overlay for each of the machine's file systems, and what is bound into it.
//!
//! Every container has a numbered directory of its own for changes, so that one that the kernel has not
//! quite let go of does not meet its successor.

use super::{ContainerError, Made, MadeKind, OWN_DIRECTORY, Plan, TOOLS};
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

/// 2000-01-01T00:00:00Z: the times of directories that every start makes anew. A server may look at them.
const CONSTANT_SECONDS: i64 = 946_684_800;
/// Where the machine's file systems are described, by the kernel.
const MOUNTS: &str = "/proc/self/mountinfo";
/// The changes to file systems, below the container's directory.
pub(crate) const CHANGES: &str = "changes";
/// What is in `/dev/shm`.
pub(crate) const SHARED_MEMORY: &str = "shm";
/// File systems without files of their own: they are left out.
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
/// Where such file systems are, and what is bound there is not for the server.
const WITHOUT_PLACES: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Directories that a root has to have (for CRIU the last one), and is given if it lacks them, with
/// their modes.
const NEEDED_PLACES: [(&str, u32); 4] = [
    ("/proc", 0o555),
    ("/sys", 0o555),
    ("/dev", 0o755),
    ("/tmp", 0o1777),
];
/// Devices that a server may have, and links in their directory.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

fn doing<E: Into<io::Error>>(what: &str, path: &Path) -> impl FnOnce(E) -> ContainerError + use<E> {
    ContainerError::doing(format!("{what} {}", path.display()))
}

/// Makes the next numbered directory in `parent`, and clears away what is left of earlier ones.
pub(super) fn fresh_state(parent: &Path) -> Result<PathBuf, ContainerError> {
    fs::create_dir_all(parent).map_err(doing("create", parent))?;
    let mut highest = 0;
    for entry in fs::read_dir(parent).map_err(doing("read", parent))? {
        let name = entry.map_err(doing("read", parent))?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u64>().ok()) else {
            continue;
        };
        highest = highest.max(number);
        forget_state(&parent.join(name));
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

/// Clears a container's directory away. What the kernel still holds is left to the next one.
pub(super) fn forget_state(state: &Path) {
    // An overlay keeps a directory without any rights in its working directory; root can all the same.
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
    /// `id parent major:minor root AT OPTIONS [fields] - KIND source super-options`.
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

    fn is_wanted(&self) -> bool {
        !WITHOUT_FILES.contains(&self.kind.as_str())
            && !WITHOUT_PLACES
                .iter()
                .any(|place| self.at.starts_with(place))
    }
}

/// Spaces and such are written as `\040`.
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

/// The topmost mount at each place, parents first.
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

/// The name of a file system in the directory of changes: its place, with `%` for `/`.
fn name_of(place: &Path) -> OsString {
    let bytes = place.as_os_str().as_bytes().iter();
    OsString::from_vec(
        bytes
            .map(|byte| if *byte == b'/' { b'%' } else { *byte })
            .collect(),
    )
}

/// The place of a file system, by that name.
pub(crate) fn place_of(name: &str) -> PathBuf {
    name.replace('%', "/").into()
}

/// The overlay's options separate paths by these.
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

const NONE: Option<&str> = None;

/// A mounted root that is not entered yet.
pub(super) struct Root {
    top: PathBuf,
}

impl Root {
    /// Mounts the overlays on a directory in `state`; the calling thread has its own mounts.
    pub(super) fn mount(state: &Path) -> Result<Self, ContainerError> {
        let root = Self::empty(state)?;
        let text = fs::read_to_string(MOUNTS).map_err(doing("read", Path::new(MOUNTS)))?;
        for wanted in wanted_mounts(&text) {
            root.take_over(&wanted, state)?;
        }
        Ok(root)
    }

    /// The same with one directory, which need not have the places where the kernel's files go.
    pub(super) fn mount_alone(directory: &Path, state: &Path) -> Result<Self, ContainerError> {
        let root = Self::empty(state)?;
        let changes = state.join(CHANGES).join(name_of(Path::new("/")));
        let fresh = !changes.exists();
        let missing = NEEDED_PLACES.into_iter();
        let missing = missing.filter(|(place, _)| fresh && !below(directory, place).exists());
        overlay(directory, Path::new("/"), missing, state, &root.top)?;
        Ok(root)
    }

    fn empty(state: &Path) -> Result<Self, ContainerError> {
        let everything = Path::new("/");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NONE, everything, NONE, private, NONE)
            .map_err(doing("detach the mounts of", everything))?;
        let top = state.join("root");
        fs::create_dir(&top).map_err(doing("create", &top))?;
        Ok(Self { top })
    }

    /// Puts one of the machine's file systems into the root.
    fn take_over(&self, wanted: &Mount, state: &Path) -> Result<(), ContainerError> {
        let target = self.inside(&wanted.at);
        let is_root = wanted.at == Path::new("/");
        if !is_root && !target.exists() {
            return Ok(()); // Hidden by another mount.
        }
        let nameless = wanted.at.as_os_str().as_bytes().contains(&b'%');
        if !is_root && (wanted.read_only || nameless || !wanted.at.is_dir()) {
            return bind_read_only(&wanted.at, &target);
        }
        match overlay(&wanted.at, &wanted.at, [], state, &target) {
            // Not every file system can be below an overlay.
            Err(_) if !is_root => bind_read_only(&wanted.at, &target),
            other => other,
        }
    }

    fn inside(&self, path: &Path) -> PathBuf {
        below(&self.top, path)
    }

    /// Puts in what is the container's own.
    pub(super) fn furnish(&self, plan: &Plan, state: &Path) -> Result<(), ContainerError> {
        let own = self.inside(Path::new(OWN_DIRECTORY));
        memory(&own)?;
        for (source, name) in &plan.bound {
            let target = own.join(name);
            bind(source, &target)?;
        }
        for made in &plan.made {
            make(&own.join(made.name), made)?;
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
        self.furnish_devices(state)
    }

    fn furnish_devices(&self, state: &Path) -> Result<(), ContainerError> {
        let devices = self.inside(Path::new("/dev"));
        memory(&devices)?;
        for name in DEVICES {
            bind(&Path::new("/dev").join(name), &devices.join(name))?;
        }
        for (name, target) in DEVICE_LINKS {
            symlink(target, devices.join(name)).map_err(doing("create", &devices.join(name)))?;
        }
        bind(&state.join(SHARED_MEMORY), &devices.join("shm"))?;
        set_constant_times(&devices)
    }

    /// Makes it the root of the calling thread, which sees nothing else any more.
    pub(super) fn enter(self) -> Result<(), ContainerError> {
        let here = Path::new(".");
        chdir(&self.top).map_err(doing("enter", &self.top))?;
        pivot_root(here, here).map_err(doing("make a root of", &self.top))?;
        umount2(here, MntFlags::MNT_DETACH).map_err(doing("leave the root for", &self.top))?;
        chdir("/").map_err(doing("enter", &self.top))
    }
}

/// A place below another directory than `/`.
fn below(top: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    top.join(path.strip_prefix("/").unwrap_or(path))
}

/// Mounts what is in `lower`, which is the file system of this place in the container, with changes
/// apart. In the root `missing` directories are made as well.
fn overlay<'a>(
    lower: &Path,
    place: &Path,
    missing: impl IntoIterator<Item = (&'a str, u32)>,
    state: &Path,
    target: &Path,
) -> Result<(), ContainerError> {
    let name = name_of(place);
    let changes = state.join(CHANGES).join(&name);
    let work = state.join("work").join(&name);
    fs::create_dir_all(&work).map_err(doing("create", &work))?;
    // It is there when it was brought back from a checkpoint.
    if !changes.exists() {
        fs::create_dir(&changes).map_err(doing("create", &changes))?;
        if place == Path::new("/") {
            for (name, mode) in missing.into_iter().chain([(OWN_DIRECTORY, 0o755)]) {
                // Made here and not in the overlay, which would make another root directory of it.
                let made = below(&changes, name);
                fs::create_dir(&made).map_err(doing("create", &made))?;
                let mode = Permissions::from_mode(mode);
                fs::set_permissions(&made, mode).map_err(doing("open", &made))?;
                set_constant_times(&made)?;
            }
        }
        look_like(lower, &changes)?;
    }
    let mut options = b"lowerdir=".to_vec();
    options.extend(escape(lower));
    options.extend(b",upperdir=");
    options.extend(escape(&changes));
    options.extend(b",workdir=");
    options.extend(escape(&work));
    // The same numbers for a file before and after its first change, and nothing that ties the changes to
    // this very machine.
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

/// The top of the changes is what the overlay shows as the top of the whole.
fn look_like(lower: &Path, changes: &Path) -> Result<(), ContainerError> {
    let like = fs::metadata(lower).map_err(doing("look at", lower))?;
    chown(changes, Some(like.uid()), Some(like.gid())).map_err(doing("give away", changes))?;
    fs::set_permissions(changes, like.permissions()).map_err(doing("set the mode of", changes))?;
    let time = TimeSpec::new(like.mtime(), like.mtime_nsec());
    let follow = UtimensatFlags::NoFollowSymlink;
    utimensat(nix::fcntl::AT_FDCWD, changes, &time, &time, follow)
        .map_err(doing("set the times of", changes))
}

fn memory(target: &Path) -> Result<(), ContainerError> {
    let kind = Some("tmpfs");
    mount(kind, target, kind, MsFlags::MS_NOSUID, Some("mode=755"))
        .map_err(doing("mount a file system in memory on", target))
}

/// Binds a file or directory to a place of the same kind, which is made if need be.
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

fn bind_read_only(source: &Path, target: &Path) -> Result<(), ContainerError> {
    bind(source, target)?;
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, target, NONE, again, NONE).map_err(doing("protect", source))
}

fn make(at: &Path, made: &Made) -> Result<(), ContainerError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    match made.kind {
        MadeKind::Executable(content) => options
            .mode(0o555)
            .open(at)
            .and_then(|mut file| file.write_all(content)),
        MadeKind::Zeroed(bytes) => options
            .mode(0o600)
            .open(at)
            .and_then(|file| file.set_len(bytes)),
        MadeKind::Fifo => mkfifo(at, Mode::S_IRUSR | Mode::S_IWUSR).map_err(Into::into),
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
