//! The process tier: a plain child. Limits of control groups hold; nothing else is separated.

use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::cgroup::Groups;
use crate::sys::{self, Program};

/// Starts the program; gives its process id and a descriptor that is readable once it ended.
pub fn start(
    program: &Program,
    inherited: Option<RawFd>,
    stdio: [BorrowedFd<'_>; 2],
    groups: &Groups,
) -> Result<(i32, OwnedFd), String> {
    let process = sys::clone_into(0).map_err(|error| format!("forking: {error}"))?;
    if process == 0 {
        let [stdout, stderr] = stdio.map(|end| end.as_raw_fd());
        let prepared = sys::set_stdio(stdout, stderr, inherited.as_slice())
            .and_then(|()| inherited.map_or(Ok(()), sys::inherit))
            .and_then(|()| sys::unblock_signals())
            .and_then(|()| sys::die_with_parent())
            .and_then(|()| sys::restrain());
        let error = prepared.err().unwrap_or_else(|| program.exec());
        let _ = rustix::io::write(
            rustix::stdio::stderr(),
            format!("cannot start the runtime: {error}\n").as_bytes(),
        );
        sys::leave(127);
    }
    let watched = groups.attach(process).and_then(|()| {
        let pid = Pid::from_raw(process).ok_or_else(|| std::io::Error::other("no process id"))?;
        Ok(pidfd_open(pid, PidfdFlags::empty())?)
    });
    watched.map(|descriptor| (process, descriptor)).map_err(|error| {
        sys::kill(process);
        sys::wait(process);
        format!("entering the control group: {error}")
    })
}
