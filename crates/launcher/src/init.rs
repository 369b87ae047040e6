//! PID 1 of an execution environment: starts the runtime, reaps what it leaves, says how it ended.
//! When it ends the kernel ends everything else inside. A signal from inside cannot end it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use ondol_protocol::containment::{Exit, INSIDE_GID, INSIDE_UID};

use crate::sys::{self, Program};

/// Runs the program as the environment's user and comes back with how it ended.
pub fn run(program: &Program) -> Exit {
    match sys::clone_into(0) {
        Ok(0) => {
            let prepared = sys::set_stdio(1, 2, None)
                .and_then(|()| sys::become_user(INSIDE_UID, INSIDE_GID))
                .and_then(|()| sys::restrain());
            let error = prepared.err().unwrap_or_else(|| program.exec());
            // The runtime's own standard error is where its author looks.
            let _ = rustix::io::write(
                rustix::stdio::stderr(),
                format!("cannot start the runtime: {error}\n").as_bytes(),
            );
            sys::leave(if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 })
        }
        Ok(runtime) => {
            while let Some((process, exit)) = sys::wait_any() {
                if process == runtime {
                    return exit;
                }
            }
            Exit::Killed
        }
        Err(error) => Exit::NotStarted(error.to_string()),
    }
}

pub fn write_status(to: impl AsFd, exit: &Exit) {
    let text = match exit {
        Exit::Code(code) => format!("c{code}"),
        Exit::Signal(signal) => format!("s{signal}"),
        Exit::NotStarted(what) => format!("e{what}"),
        Exit::Killed | Exit::OutOfMemory => "k".into(),
    };
    // A reader that is gone means the launcher is, and we die with it.
    let _ = rustix::io::write(to, text.as_bytes());
}

/// Reads what `write_status` wrote; `None` when init ended without a word.
pub fn read_status(from: &OwnedFd) -> Option<Exit> {
    let mut buffer = [0; 512];
    let read = rustix::io::read(from, &mut buffer).ok().filter(|read| *read > 0)?;
    let text = String::from_utf8_lossy(&buffer[1..read]).into_owned();
    match buffer[0] {
        b'c' => text.parse().ok().map(Exit::Code),
        b's' => text.parse().ok().map(Exit::Signal),
        b'e' => Some(Exit::NotStarted(text)),
        _ => Some(Exit::Killed),
    }
}
