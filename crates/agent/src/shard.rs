//! The agent's half on one invoke thread: the execution environments that live there.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use ondol_core::function::Reason;
use ondol_core::gate::{Event as GateEvent, ThrottleCause};
use ondol_core::identity::EnvironmentId;
use ondol_observe::logs::{LogSender, LogStream};
use ondol_protocol::assignment::EnvironmentAssignment;
use ondol_protocol::containment::{Exit, Process};
use ondol_protocol::invocation::{Deliver, Invocation, Refused, Reply};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use crate::gauge::Gauge;
pub use crate::host::ShardEvent;
use crate::host::{Host, Listeners};
use crate::journal::Journal;
use crate::runtime_api;
use crate::telemetry::Kind;

/// What the machine asks of a shard.
#[derive(Debug)]
pub enum ShardCommand {
    /// Serve this environment, which the launcher has just made.
    Adopt(Box<Adopted>),
    Drain {
        environment: EnvironmentId,
    },
    /// It takes nothing for now, and why; none when it takes invocations again.
    Hot {
        environment: EnvironmentId,
        cause: Option<ThrottleCause>,
    },
    /// One of the processes of an environment with extensions ended, and the others go on.
    ProcessEnded {
        environment: EnvironmentId,
        process: Process,
        exit: Exit,
    },
    /// Take nothing more and answer what runs: the environment is being ended.
    Abort {
        environment: EnvironmentId,
    },
    /// Tell the extensions that the environment ends within so many milliseconds.
    ShutDown {
        environment: EnvironmentId,
        reason: &'static str,
        millis: i64,
    },
    /// The environment's processes are gone.
    End {
        environment: EnvironmentId,
        exit: Exit,
        peak_memory_bytes: Option<u64>,
    },
}

#[derive(Debug)]
pub struct Adopted {
    pub environment: EnvironmentId,
    pub assignment: EnvironmentAssignment,
    pub runtime_api: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
    pub extension_output: OwnedFd,
    /// The socket its workers connect to, or the pipe of the frames.
    pub log: OwnedFd,
    pub log_stream: Arc<LogStream>,
    /// Names of the extensions that were started.
    pub extensions: Vec<String>,
    /// Its control group below ours, where there is one.
    pub group: Option<String>,
    pub gauge: Arc<Gauge>,
}

/// The machine's line to a shard and the shard's line back.
#[derive(Debug)]
pub struct ShardEnd {
    pub(crate) commands: mpsc::UnboundedReceiver<ShardCommand>,
    pub(crate) events: mpsc::UnboundedSender<(EnvironmentId, ShardEvent)>,
}

/// A machine's side of a line to one shard.
pub type MachineEnd =
    (mpsc::UnboundedSender<ShardCommand>, mpsc::UnboundedReceiver<(EnvironmentId, ShardEvent)>);

impl ShardEnd {
    /// A line between a machine and one shard.
    pub fn line() -> (MachineEnd, Self) {
        let (commands, received) = mpsc::unbounded_channel();
        let (events, heard) = mpsc::unbounded_channel();
        ((commands, heard), Self { commands: received, events })
    }
}

struct Resident {
    host: Rc<Host>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Resident {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The environments of one invoke thread.
#[derive(Clone)]
pub struct Environments {
    residents: Rc<RefCell<BTreeMap<EnvironmentId, Resident>>>,
    logs: LogSender,
}

impl std::fmt::Debug for Environments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.residents.borrow().keys()).finish()
    }
}

impl Environments {
    pub fn new(logs: LogSender) -> Self {
        Self { residents: Rc::default(), logs }
    }

    /// Follows the machine's commands until it is gone. `gate` hears of every slot and environment.
    pub async fn run(self, mut end: ShardEnd, gate: Rc<dyn Fn(GateEvent)>) {
        while let Some(command) = end.commands.recv().await {
            match command {
                ShardCommand::Adopt(adopted) => self.adopt(*adopted, &gate, &end.events),
                ShardCommand::Drain { environment } => {
                    if let Some(host) = self.host(environment) {
                        host.drain();
                    }
                }
                ShardCommand::Hot { environment, cause } => gate(GateEvent::Hot { environment, cause }),
                ShardCommand::ProcessEnded { environment, process, exit } => {
                    if let Some(host) = self.host(environment) {
                        host.process_ended(&process, &exit);
                    }
                }
                ShardCommand::Abort { environment } => {
                    if let Some(host) = self.host(environment) {
                        host.shut_off();
                    }
                }
                ShardCommand::ShutDown { environment, reason, millis } => {
                    if let Some(host) = self.host(environment) {
                        tokio::task::spawn_local(host.shut_down(reason, millis));
                    }
                }
                ShardCommand::End { environment, exit, peak_memory_bytes } => {
                    let resident = self.residents.borrow_mut().remove(&environment);
                    match resident {
                        Some(resident) => resident.host.end(&exit, peak_memory_bytes),
                        // It ended before it came here; the machine still waits for the word.
                        None => {
                            let reason = Reason::new(
                                "InternalError",
                                "The execution environment couldn't be taken over.",
                            );
                            let _ =
                                end.events.send((environment, ShardEvent::Ended { reason, by_itself: true }));
                        }
                    }
                }
            }
        }
    }

    fn host(&self, environment: EnvironmentId) -> Option<Rc<Host>> {
        self.residents.borrow().get(&environment).map(|resident| Rc::clone(&resident.host))
    }

    fn adopt(
        &self,
        adopted: Adopted,
        gate: &Rc<dyn Fn(GateEvent)>,
        events: &mpsc::UnboundedSender<(EnvironmentId, ShardEvent)>,
    ) {
        let environment = adopted.environment;
        let journal = Journal::new(adopted.log_stream, self.logs.clone(), &adopted.assignment);
        let host = Host::new(
            environment,
            adopted.assignment,
            journal,
            adopted.extensions,
            adopted.group,
            Listeners { gauge: adopted.gauge, gate: Rc::clone(gate), machine: events.clone() },
        );
        let mut tasks = vec![
            tokio::task::spawn_local(Rc::clone(&host).keep_time()),
            tokio::task::spawn_local(Rc::clone(&host).watch_workers()),
        ];
        let pipes = [
            (adopted.stdout, Kind::Function),
            (adopted.stderr, Kind::Function),
            (adopted.extension_output, Kind::Extension),
        ];
        let pipes = pipes.into_iter().try_for_each(|(pipe, kind)| host.logs.follow_pipe(pipe, kind));
        let log = pipes.and_then(|()| match host.is_classic() {
            true => host.logs.follow_frames(adopted.log).map(|()| None),
            false => host.logs.listen(adopted.log).map(Some),
        });
        let served = log.and_then(|log| {
            tasks.extend(log);
            let listener = std::net::TcpListener::from(adopted.runtime_api);
            listener.set_nonblocking(true)?;
            tasks.push(tokio::task::spawn_local(runtime_api::serve(
                Rc::clone(&host),
                tokio::net::TcpListener::from_std(listener)?,
            )));
            Ok(())
        });
        self.residents.borrow_mut().insert(environment, Resident { host, tasks });
        if served.is_err() {
            // Out of descriptors: the machine ends the environment, and control tries again later.
            let _ = events.send((environment, ShardEvent::InitFailed));
        }
    }
}

impl Deliver for Environments {
    async fn deliver(&self, environment: EnvironmentId, invocation: Invocation) -> Result<Reply, Refused> {
        let refused = Refused(ThrottleCause::Concurrency);
        let Some(host) = self.host(environment) else { return Err(refused) };
        let answered = host.invoke(invocation);
        answered.await.unwrap_or(Err(refused))
    }
}
