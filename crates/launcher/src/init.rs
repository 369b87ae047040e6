//! PID 1 of an execution environment: starts the extensions and the runtime, reaps what they leave, says how they
//! ended. When it ends the kernel ends everything else inside. A signal from inside cannot end it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};

use ondol_protocol::containment::{Exit, INSIDE_GID, INSIDE_UID, Process, Signal};
use rustix::event::{PollFd, PollFlags, poll};

use crate::sys::{self, Program};

/// What init starts: without extensions the runtime at once, else the runtime when it is told to.
pub struct Programs {
    pub runtime: Program,
    /// A descriptor the runtime inherits.
    pub inherited: Option<RawFd>,
    pub extensions: Vec<Program>,
}

/// What init tells the launcher.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// The environment is over.
    Ended(Exit),
    ProcessEnded(Process, Exit),
}

impl Said {
    pub fn exit(self) -> Exit {
        match self {
            Self::Ended(exit) | Self::ProcessEnded(_, exit) => exit,
        }
    }
}

/// What the launcher tells init of an environment with extensions.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    Start,
    Signal(Process, Signal),
}

/// Runs the programs as the environment's user and comes back with how the runtime ended.
pub fn run(programs: &Programs, socket: &OwnedFd, extensions: BorrowedFd<'_>) -> Exit {
    if programs.extensions.is_empty() {
        return match start(&programs.runtime, 1, 2, programs.inherited) {
            Ok(runtime) => until_ended(runtime),
            Err(error) => Exit::NotStarted(error.to_string()),
        };
    }
    Family::default()
        .run(programs, socket, extensions)
        .unwrap_or_else(|error| Exit::NotStarted(error.to_string()))
}

fn until_ended(runtime: i32) -> Exit {
    while let Some((process, exit)) = sys::wait_any() {
        if process == runtime {
            return exit;
        }
    }
    Exit::Killed
}

fn start(program: &Program, stdout: i32, stderr: i32, inherited: Option<RawFd>) -> io::Result<i32> {
    let process = sys::clone_into(0)?;
    if process > 0 {
        return Ok(process);
    }
    let prepared = sys::set_stdio(stdout, stderr, inherited.as_slice())
        .and_then(|()| inherited.map_or(Ok(()), sys::inherit))
        .and_then(|()| sys::unblock_signals())
        .and_then(|()| sys::become_user(INSIDE_UID, INSIDE_GID))
        .and_then(|()| sys::restrain());
    let error = prepared.err().unwrap_or_else(|| program.exec());
    // The program's own standard error is where its author looks.
    let _ = rustix::io::write(
        rustix::stdio::stderr(),
        format!("cannot start {}: {error}\n", program.name()).as_bytes(),
    );
    sys::leave(if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 })
}

/// The runtime and its extensions, by process id, as long as they run.
#[derive(Default)]
struct Family {
    running: Vec<(i32, Process)>,
    runtime_exit: Option<Exit>,
}

impl Family {
    fn run(mut self, programs: &Programs, socket: &OwnedFd, output: BorrowedFd<'_>) -> io::Result<Exit> {
        let signals = sys::child_signals()?;
        let output = output.as_raw_fd();
        for (place, program) in programs.extensions.iter().enumerate() {
            self.running.push((start(program, output, output, None)?, Process::Extension(place)));
        }
        let mut started = false;
        loop {
            let mut ready = [PollFd::new(socket, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let (ordered, ended) = (!ready[0].revents().is_empty(), !ready[1].revents().is_empty());
            if ended {
                // What it says is only that something ended; the number of children is asked for itself.
                let _ = rustix::io::read(&signals, &mut [0; 1_024]);
                self.collect(socket);
            }
            if ordered {
                match read_order(socket) {
                    Some(Order::Start) if !started => {
                        started = true;
                        self.running
                            .push((start(&programs.runtime, 1, 2, programs.inherited)?, Process::Runtime));
                    }
                    Some(Order::Start) => {}
                    Some(Order::Signal(process, signal)) => self.signal(&process, signal),
                    // The launcher is gone, and with it whoever wanted this to run.
                    None => return Ok(Exit::Killed),
                }
            }
            if self.running.is_empty() {
                return Ok(self.runtime_exit.unwrap_or(Exit::Killed));
            }
        }
    }

    fn collect(&mut self, socket: &OwnedFd) {
        for (id, exit) in sys::wait_ended() {
            let Some(place) = self.running.iter().position(|(running, _)| *running == id) else { continue };
            let (_, process) = self.running.remove(place);
            write(socket, &encode(&process, &exit));
            if process == Process::Runtime {
                self.runtime_exit = Some(exit);
            }
        }
    }

    fn signal(&self, wanted: &Process, signal: Signal) {
        let to = self.running.iter().filter(|(_, process)| process == wanted);
        to.for_each(|(id, _)| match signal {
            Signal::Terminate => sys::terminate(*id),
            Signal::Kill => sys::kill(*id),
        });
    }
}

fn write(to: impl AsFd, text: &str) {
    // A reader that is gone means the launcher is, and we die with it.
    let _ = rustix::io::write(to, text.as_bytes());
}

/// The environment's last word.
pub fn write_status(to: impl AsFd, exit: &Exit) {
    write(to, &exit_text(exit));
}

fn exit_text(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("c{code}"),
        Exit::Signal(signal) => format!("s{signal}"),
        Exit::NotStarted(what) => format!("e{what}"),
        Exit::Killed | Exit::OutOfMemory => "k".into(),
    }
}

fn exit_from(text: &str) -> Exit {
    match text.split_at_checked(1) {
        Some(("c", code)) => code.parse().map_or(Exit::Killed, Exit::Code),
        Some(("s", signal)) => signal.parse().map_or(Exit::Killed, Exit::Signal),
        Some(("e", what)) => Exit::NotStarted(what.into()),
        _ => Exit::Killed,
    }
}

/// `p` and the process, then how it ended.
fn encode(process: &Process, exit: &Exit) -> String {
    format!("p{} {}", process_text(process), exit_text(exit))
}

fn process_text(process: &Process) -> String {
    match process {
        Process::Runtime => "runtime".into(),
        Process::Extension(place) => place.to_string(),
    }
}

fn process_from(text: &str) -> Option<Process> {
    if text == "runtime" { Some(Process::Runtime) } else { text.parse().ok().map(Process::Extension) }
}

fn read(from: &OwnedFd) -> Option<String> {
    let mut buffer = [0; 512];
    let read = rustix::io::read(from, &mut buffer).ok().filter(|read| *read > 0)?;
    Some(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

/// What init said last; `None` when it ended without a word.
pub fn read_status(from: &OwnedFd) -> Option<Said> {
    let text = read(from)?;
    Some(match text.strip_prefix('p').and_then(|rest| rest.split_once(' ')) {
        Some((process, exit)) => Said::ProcessEnded(process_from(process)?, exit_from(exit)),
        None => Said::Ended(exit_from(&text)),
    })
}

/// Tells init; one that has ended hears nothing, and says so by its end.
pub fn order(to: &OwnedFd, order: &Order) {
    let text = match order {
        Order::Start => "start".into(),
        Order::Signal(process, Signal::Terminate) => format!("term {}", process_text(process)),
        Order::Signal(process, Signal::Kill) => format!("kill {}", process_text(process)),
    };
    write(to, &text);
}

fn read_order(from: &OwnedFd) -> Option<Order> {
    let text = read(from)?;
    Some(match text.split_once(' ') {
        Some(("term", process)) => Order::Signal(process_from(process)?, Signal::Terminate),
        Some(("kill", process)) => Order::Signal(process_from(process)?, Signal::Kill),
        _ => Order::Start,
    })
}
