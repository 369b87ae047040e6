//! The container tier: namespaces, a read-only root, an unprivileged user.
//!
//! All mounts are made by the host's root in a mount namespace of its own *before* the user namespace is
//! entered. So nothing inside has any right over them, sources need no permissions for the inner user, and
//! none of the locked-mount rules of user namespaces apply.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ondol_protocol::containment::{Exit, INSIDE_GID, INSIDE_UID, LOG_SOCKET_FOLDER, Mount};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    mount_remount, unmount,
};
use rustix::net::sockopt::{self, Timeout};

use crate::cgroup::Groups;
use crate::init::{self, Programs};
use crate::sys;

const NAMESPACES: i32 = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
const START_TIME_MAX: Duration = Duration::from_secs(10);
const DEVICES: &[&str] = &["null", "zero", "full", "random", "urandom"];
const SHARED_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// Starts init and the program inside; gives init's process id and its status pipe.
#[allow(clippy::too_many_arguments)]
pub fn start(
    programs: &Programs,
    root: &Path,
    mounts: &[Mount],
    hostname: &str,
    first_host_id: u32,
    run_folder: &Path,
    [stdout, stderr, extensions]: [BorrowedFd<'_>; 3],
    groups: &Groups,
) -> Result<(i32, OwnedFd), String> {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|error| format!("making a socket pair: {error}"))?;
    // A start that hangs (a mount on a dead server, say) must not hang the launcher.
    for side in [&ours, &theirs] {
        sockopt::set_socket_timeout(side, Timeout::Recv, Some(START_TIME_MAX))
            .map_err(|error| format!("bounding the start: {error}"))?;
    }
    let process = sys::clone_into(NAMESPACES).map_err(|error| format!("making namespaces: {error}"))?;
    if process == 0 {
        drop(ours);
        // What init does not need it does not keep.
        let mut keep = vec![theirs.as_raw_fd(), extensions.as_raw_fd()];
        keep.extend(programs.inherited);
        let closed = sys::set_stdio(stdout.as_raw_fd(), stderr.as_raw_fd(), &keep)
            .map_err(|error| format!("closing what is not needed: {error}"));
        let exit = match closed.and_then(|()| inside(&theirs, root, mounts, hostname, run_folder)) {
            Ok(()) => init::run(programs, &theirs, extensions),
            Err(what) => Exit::NotStarted(what),
        };
        init::write_status(&theirs, &exit);
        sys::leave(0);
    }
    drop(theirs);
    match outside(&ours, process, first_host_id, groups) {
        Ok(()) => Ok((process, ours)),
        Err(what) => {
            sys::kill(process);
            sys::wait(process);
            Err(what)
        }
    }
}

/// Our side of the start: control groups first, then the user mapping once the user namespace exists.
fn outside(socket: &OwnedFd, process: i32, first_host_id: u32, groups: &Groups) -> Result<(), String> {
    groups.attach(process).map_err(|error| format!("entering the control group: {error}"))?;
    say(socket, b"grouped")?;
    hear(socket, b"user namespace")?;
    let map = |inside: u32| format!("0 {first_host_id} 1\n{inside} {} 1\n", first_host_id + 1);
    for (file, inside) in [("gid_map", INSIDE_GID), ("uid_map", INSIDE_UID)] {
        fs::write(format!("/proc/{process}/{file}"), map(inside))
            .map_err(|error| format!("writing {file}: {error}"))?;
    }
    say(socket, b"mapped")?;
    hear(socket, b"ready")
}

/// The new process's side, up to the moment the program can be started.
fn inside(
    socket: &OwnedFd,
    root: &Path,
    mounts: &[Mount],
    hostname: &str,
    run_folder: &Path,
) -> Result<(), String> {
    hear(socket, b"grouped")?;
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    sys::unshare(libc::CLONE_NEWCGROUP).map_err(step("making a cgroup namespace"))?;
    build_root(root, mounts, run_folder)?;
    rustix::system::sethostname(hostname.as_bytes())
        .map_err(|error| step("setting the host name")(error.into()))?;
    sys::unshare(libc::CLONE_NEWUSER).map_err(step("making a user namespace"))?;
    say(socket, b"user namespace")?;
    hear(socket, b"mapped")?;
    sys::become_user(0, 0).map_err(step("becoming the namespace's root"))?;
    sys::die_with_parent().map_err(step("binding to the launcher's life"))?;
    say(socket, b"ready")
}

fn say(socket: &OwnedFd, word: &[u8]) -> Result<(), String> {
    rustix::io::write(socket, word).map(drop).map_err(|error| format!("talking to init: {error}"))
}

fn hear(socket: &OwnedFd, word: &[u8]) -> Result<(), String> {
    let mut buffer = [0; 512];
    let read =
        rustix::io::read(socket, &mut buffer).map_err(|error| format!("hearing from init: {error}"))?;
    match &buffer[..read] {
        heard if heard == word => Ok(()),
        [] => Err("init ended without a word".into()),
        [b'e', what @ ..] => Err(String::from_utf8_lossy(what).into_owned()),
        other => Err(format!(
            "expected {:?}, heard {:?}",
            String::from_utf8_lossy(word),
            String::from_utf8_lossy(other)
        )),
    }
}

/// Mounts everything below the new root and makes it `/`.
fn build_root(root: &Path, mounts: &[Mount], run_folder: &Path) -> Result<(), String> {
    let at = |what: &str, path: &Path| format!("{what} {}", path.display());
    let fail = |what: String| move |error: rustix::io::Errno| format!("{what}: {error}");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(fail("making mounts private".into()))?;
    read_only(root, root).map_err(|e| format!("{}: {e}", at("mounting the root filesystem", root)))?;
    let inside = |target: &Path| root.join(target.strip_prefix("/").unwrap_or(target));
    let proc_flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", inside(Path::new("/proc")), "proc", proc_flags, Some(c"hidepid=2"))
        .map_err(fail("mounting /proc".into()))?;
    devices(&inside(Path::new("/dev")))?;
    for each in mounts {
        match each {
            Mount::ReadOnly { source, target } => {
                read_only(source, &inside(target))
                    .map_err(|e| format!("mounting {} at {}: {e}", source.display(), target.display()))?;
            }
            Mount::Layers { sources, target } => {
                layers(sources, &inside(target))
                    .map_err(|e| format!("{}: {e}", at("mounting the layers at", target)))?;
            }
            Mount::Scratch { target, bytes, files } => {
                let flags = MountFlags::NOSUID | MountFlags::NODEV;
                scratch(&inside(target), *bytes, *files, "1777", flags)
                    .map_err(|e| format!("{}: {e}", at("mounting", target)))?;
            }
            Mount::Files { target, files } => {
                write_files(&inside(target), files).map_err(|e| format!("{}: {e}", at("writing", target)))?;
            }
        }
    }
    let logs = inside(Path::new(LOG_SOCKET_FOLDER));
    write_files(&inside(Path::new("/run")), &[(PathBuf::from("telemetry/.keep"), String::new())])
        .map_err(|e| format!("preparing /run: {e}"))?;
    read_only(run_folder, &logs).map_err(|e| format!("mounting the log socket: {e}"))?;
    rustix::process::chdir(root).map_err(fail("entering the new root".into()))?;
    rustix::process::pivot_root(".", ".").map_err(fail("changing the root".into()))?;
    unmount(".", UnmountFlags::DETACH).map_err(fail("letting go of the old root".into()))?;
    rustix::process::chdir("/").map_err(fail("entering /".into()))
}

/// Binds a file or folder, with what is mounted below it, and takes every right to change any of it.
fn read_only(source: &Path, target: &Path) -> io::Result<()> {
    mount_bind_recursive(source, target)?;
    sys::make_read_only(target)
}

/// Lays folders over each other. One alone is bound, as an overlay wants two.
fn layers(sources: &[PathBuf], target: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    if let [source] = sources {
        return read_only(source, target);
    }
    let mut options = b"lowerdir=".to_vec();
    for (place, source) in sources.iter().rev().enumerate() {
        if place > 0 {
            options.push(b':');
        }
        for byte in source.as_os_str().as_bytes() {
            // What separates paths and options, and the byte that escapes them.
            if matches!(byte, b':' | b',' | b'\\') {
                options.push(b'\\');
            }
            options.push(*byte);
        }
    }
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("overlay", target, "overlay", flags, Some(options.as_c_str()))?)
}

fn scratch(target: &Path, bytes: u64, files: u64, mode: &str, flags: MountFlags) -> io::Result<()> {
    let options = std::ffi::CString::new(format!("size={bytes},nr_inodes={files},mode={mode}"))?;
    Ok(mount("tmpfs", target, "tmpfs", flags, Some(options.as_c_str()))?)
}

/// A small memory file system with these files, read-only afterwards.
fn write_files(target: &Path, files: &[(PathBuf, String)]) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    scratch(target, 1 << 20, 1_024, "755", flags)?;
    for (path, text) in files {
        let path = target.join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, text)?;
    }
    Ok(mount_remount(target, flags | MountFlags::RDONLY, "")?)
}

/// A few harmless device nodes, standard streams, and shared memory for locks between processes.
fn devices(target: &Path) -> Result<(), String> {
    let fail = |what: &str| {
        let what = format!("making /dev/{what}");
        move |error: io::Error| format!("{what}: {error}")
    };
    scratch(target, 64 * 1024, 64, "755", MountFlags::NOSUID | MountFlags::NOEXEC).map_err(fail(""))?;
    for name in DEVICES {
        let node = target.join(name);
        fs::write(&node, "").map_err(fail(name))?;
        mount_bind_recursive(Path::new("/dev").join(name), &node)
            .map_err(|error| fail(name)(error.into()))?;
    }
    for (link, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(to, target.join(link)).map_err(fail(link))?;
    }
    let shm = target.join("shm");
    fs::create_dir(&shm).map_err(fail("shm"))?;
    scratch(
        &shm,
        SHARED_MEMORY_BYTES,
        1_024,
        "1777",
        MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
    )
    .map_err(fail("shm"))
}
