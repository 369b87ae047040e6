//! The few system calls that have no safe wrapper here, each behind a small safe function.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ondol_protocol::containment::Exit;

/// A program with its arguments and environment, ready for `execve`: nothing is allocated after a fork.
pub struct Program {
    path: CString,
    working_directory: CString,
    _arguments: Vec<CString>,
    _variables: Vec<CString>,
    argument_pointers: Vec<*const libc::c_char>,
    variable_pointers: Vec<*const libc::c_char>,
}

impl Program {
    pub fn new(
        command: &[String],
        variables: &[(String, String)],
        working_directory: &Path,
    ) -> Result<Self, String> {
        let c_string = |text: &OsStr| {
            CString::new(text.as_bytes()).map_err(|_| "a command or variable holds a zero byte".to_owned())
        };
        let first = command.first().ok_or("the command is empty")?;
        let arguments = command.iter().map(|part| c_string(part.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let variables = variables
            .iter()
            .map(|(name, value)| c_string(format!("{name}={value}").as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let pointers = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        Ok(Self {
            path: c_string(first.as_ref())?,
            working_directory: c_string(working_directory.as_os_str())?,
            argument_pointers: pointers(&arguments),
            variable_pointers: pointers(&variables),
            _arguments: arguments,
            _variables: variables,
        })
    }

    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.path.to_string_lossy()
    }

    /// Becomes the program; comes back only with what went wrong.
    pub fn exec(&self) -> io::Error {
        // SAFETY: the path is a C string, and both lists are null-terminated arrays of pointers into C
        // strings that this struct owns.
        unsafe {
            if libc::chdir(self.working_directory.as_ptr()) != 0 {
                return io::Error::last_os_error();
            }
            libc::execve(
                self.path.as_ptr(),
                self.argument_pointers.as_ptr(),
                self.variable_pointers.as_ptr(),
            );
        }
        io::Error::last_os_error()
    }
}

/// A pipe, closed on exec: its read end and its write end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Leaves the terminal's process group, so that Ctrl-C reaches the server alone.
pub fn own_session() {
    // SAFETY: takes no pointers. It fails when this is a group leader already, which is as good.
    unsafe { libc::setsid() };
}

/// Ends a process. Numbers below 1 mean something else to the kernel, this process's own group among it.
pub fn kill(process: i32) {
    if process > 0 {
        // SAFETY: takes no pointers.
        unsafe { libc::kill(process, libc::SIGKILL) };
    }
}

/// Ends a process and all of the session it leads.
pub fn kill_session(leader: i32) {
    kill(leader);
    if leader > 1 {
        // SAFETY: takes no pointers; a negative number names the group of a leader that is our own child.
        unsafe { libc::kill(-leader, libc::SIGKILL) };
    }
}

/// Takes every right to change from a mount and all that is mounted below it.
pub fn make_read_only(target: &Path) -> io::Result<()> {
    let path = CString::new(target.as_os_str().as_bytes())?;
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: the path is a C string and the attributes a valid struct of the size given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            std::mem::size_of::<libc::mount_attr>(),
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Waits for a child's end.
pub fn wait(process: i32) -> Exit {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result.
        let waited = unsafe { libc::waitpid(process, &raw mut status, 0) };
        if waited == process {
            return exit_of(status);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Exit::Killed;
        }
    }
}

/// Waits for any child; `None` when there is none.
pub fn wait_any() -> Option<(i32, Exit)> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is a valid place for the result.
        let waited = unsafe { libc::waitpid(-1, &raw mut status, 0) };
        if waited > 0 {
            return Some((waited, exit_of(status)));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn exit_of(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status))
    } else {
        Exit::Code(libc::WEXITSTATUS(status))
    }
}

/// `fork` into new namespaces. 0 in the child, its process id in the parent.
pub fn clone_into(flags: i32) -> io::Result<i32> {
    let mut arguments = libc::clone_args {
        flags: flags as u64,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // SAFETY: with no stack given the child goes on in a copy of this one, as after `fork`. This process has
    // one thread, so the copy holds no lock of another.
    let process = unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut arguments, std::mem::size_of::<libc::clone_args>())
    };
    if process < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::try_from(process).unwrap_or(-1)) }
}

pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::unshare(flags) })
}

/// Becomes another user for good: groups, ids, and with them every capability but the namespace root's.
pub fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    // SAFETY: an empty list of groups needs no memory; the others take no pointers.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(gid, gid, gid))?;
        check(libc::setresuid(uid, uid, uid))
    }
}

/// Dies when the launcher does. Set after the last change of user, which clears it.
pub fn die_with_parent() -> io::Result<()> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
}

/// What every program of a function starts with: no new privileges, no core files, the open files of AWS.
pub fn restrain() -> io::Result<()> {
    const OPEN_FILES: libc::rlim_t = 1_024;
    // SAFETY: `prctl` takes no pointers here; each limit is a valid struct.
    unsafe {
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
        let files = libc::rlimit { rlim_cur: OPEN_FILES, rlim_max: OPEN_FILES };
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files))
    }
}

/// Makes standard input empty and the two ends standard output and error, and closes all else but `keep`.
pub fn set_stdio(stdout: i32, stderr: i32, keep: &[i32]) -> io::Result<()> {
    // SAFETY: the path is a C string; the rest are numbers.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        check(null)?;
        check(libc::dup2(null, 0).min(0))?;
        check(libc::dup2(stdout, 1).min(0))?;
        check(libc::dup2(stderr, 2).min(0))?;
    }
    close_all_but(keep)
}

/// Lets a descriptor stay open in the program that comes by `exec`.
pub fn inherit(fd: i32) -> io::Result<()> {
    // SAFETY: takes numbers alone.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) })
}

/// Closes every descriptor above the standard three, but those to keep.
fn close_all_but(keep: &[i32]) -> io::Result<()> {
    let mut kept: Vec<u32> =
        keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).filter(|fd| *fd > 2).collect();
    kept.sort_unstable();
    let mut from = 3;
    for to in kept.into_iter().chain([u32::MAX]) {
        let last = if to == u32::MAX { to } else { to - 1 };
        if from <= last {
            // SAFETY: takes no pointers; what it closes is not used in this process any more.
            check(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) } as i32)?;
        }
        from = to.saturating_add(1);
    }
    Ok(())
}

/// A descriptor that is readable when a child has ended. The signal itself is blocked from now on, also in what
/// is started by `exec`, unless [`unblock_signals`] is called before.
pub fn child_signals() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: the set is initialised by `sigemptyset`; the descriptor is new and ours alone.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()))?;
        let descriptor = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(descriptor)?;
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

pub fn unblock_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by `sigemptyset`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        // Rust's own start ignores it; a function expects the usual.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        check(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()))
    }
}

pub fn terminate(process: i32) {
    if process > 1 {
        // SAFETY: takes no pointers.
        unsafe { libc::kill(process, libc::SIGTERM) };
    }
}

/// Children that have ended; none when those left still run.
pub fn wait_ended() -> Vec<(i32, Exit)> {
    let mut ended = Vec::new();
    loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place for the result.
        let waited = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if waited <= 0 {
            return ended;
        }
        ended.push((waited, exit_of(status)));
    }
}

pub fn leave(code: i32) -> ! {
    // SAFETY: ends this process without running what belongs to the process it was forked from.
    unsafe { libc::_exit(code) }
}

pub fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
