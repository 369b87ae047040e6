//! The agent's half beside the control loops: carries the assignment out through the launcher, and reports.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ondol_core::capacity::EnvironmentState;
use ondol_core::function::Reason;
use ondol_core::identity::EnvironmentId;
use ondol_core::time::WallTime;
use ondol_launcher::channel;
use ondol_observe::clock;
use ondol_protocol::assignment::{Assignment, EnvironmentAssignment, EnvironmentReport, Report};
use ondol_protocol::containment::{LauncherEvent, LauncherRequest};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::configuration::AgentConfiguration;
use crate::environment::launch_request;
use crate::host::{Gauge, ShardEvent};
use crate::shard::{Adopted, ShardCommand, ShardEnd};

/// Initialisation may take this long at least, and this long at most whatever the function's timeout.
const INIT_SECONDS_MIN: u64 = 130;
const INIT_SECONDS_MAX: u64 = 900;
/// A drain waits for what is in flight: the function's timeout, and never longer than this.
const DRAIN_SECONDS_MAX: u64 = 5_400;
const DRAIN_SECONDS_EXTRA: u64 = 5;
/// An environment that ends sooner than this after it was ready counts as a failed start, so that what crashes
/// again and again is started ever more slowly.
const SETTLED_SECONDS: u64 = 60;
/// Environments of one version that share a shard before the next shard is used.
const SHARD_SPREAD: usize = 8;
/// Host ids environments run under; two each.
const FIRST_HOST_ID: u32 = 1_500_000_000;

#[derive(Debug)]
enum Phase {
    Launching,
    /// The process runs; the runtime has not asked for an invocation yet.
    /// `failed` when the runtime reported an error of initialisation: it only gets time for its last words.
    Starting {
        until: WallTime,
        failed: bool,
    },
    Ready,
    Draining {
        until: WallTime,
    },
    /// The launcher was told to end it.
    Ending,
    Ended {
        reason: Reason,
        settled: bool,
    },
}

#[derive(Debug)]
struct Live {
    assignment: EnvironmentAssignment,
    phase: Phase,
    /// Why it is being ended, when the end itself will not tell.
    because: Option<Reason>,
    ready_at: Option<WallTime>,
    shard: usize,
    host_slot: u32,
    gauge: Arc<Gauge>,
}

#[derive(Debug)]
pub struct Machine {
    configuration: AgentConfiguration,
    launcher: UnixStream,
    shards: Vec<mpsc::UnboundedSender<ShardCommand>>,
    events: mpsc::UnboundedReceiver<(EnvironmentId, ShardEvent)>,
    live: BTreeMap<EnvironmentId, Live>,
    report: Report,
}

impl Machine {
    /// Gives the machine and its end for each shard. Needs a tokio runtime.
    pub fn new(
        configuration: AgentConfiguration,
        launcher: OwnedFd,
        shards: usize,
    ) -> std::io::Result<(Self, Vec<ShardEnd>)> {
        // A packet socket; the stream type is only used to wait on it.
        let launcher = std::os::unix::net::UnixStream::from(launcher);
        launcher.set_nonblocking(true)?;
        let launcher = UnixStream::from_std(launcher)?;
        let (event_sender, events) = mpsc::unbounded_channel();
        let (senders, ends) = (0..shards)
            .map(|_| {
                let (sender, commands) = mpsc::unbounded_channel();
                (sender, ShardEnd { commands, events: event_sender.clone() })
            })
            .unzip();
        let machine = Self {
            configuration,
            launcher,
            shards: senders,
            events,
            live: BTreeMap::new(),
            report: Report::default(),
        };
        Ok((machine, ends))
    }

    /// Follows assignments and publishes reports until the assignments end. An error means the launcher is gone.
    pub async fn run(
        mut self,
        mut assignments: watch::Receiver<Arc<Assignment>>,
        reports: watch::Sender<Report>,
    ) -> Result<(), String> {
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = assignments.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let assignment = Arc::clone(&assignments.borrow_and_update());
                    self.assign(&assignment).await?;
                }
                event = receive(&self.launcher) => match event? {
                    Some((event, descriptors)) => self.launcher_event(event, descriptors).await?,
                    None => return Err("the launcher ended".into()),
                },
                Some((environment, event)) = self.events.recv() => self.shard_event(environment, event).await?,
                _ = tick.tick() => self.overdue().await?,
            }
            self.publish(&reports);
        }
    }

    fn publish(&mut self, reports: &watch::Sender<Report>) {
        self.report.environments = self.live.iter().map(|(id, live)| (*id, live.report())).collect();
        reports.send_if_modified(|sent| {
            let changed = *sent != self.report;
            if changed {
                sent.clone_from(&self.report);
            }
            changed
        });
    }

    /// Starts what is missing, drains what is to drain, ends what is not wanted any more.
    async fn assign(&mut self, assignment: &Assignment) -> Result<(), String> {
        if assignment.generation < self.report.generation {
            return Ok(());
        }
        self.report.generation = assignment.generation;
        let dropped: Vec<EnvironmentId> =
            self.live.keys().filter(|id| !assignment.environments.contains_key(id)).copied().collect();
        for id in dropped {
            match self.live.get(&id).map(|live| &live.phase) {
                Some(Phase::Ended { .. }) => drop(self.live.remove(&id)),
                Some(Phase::Ending) | None => {}
                Some(_) => self.end(id, "It was not wanted any more.").await?,
            }
        }
        for (id, wanted) in &assignment.environments {
            match self.live.get_mut(id) {
                None => self.launch(*id, wanted).await?,
                Some(live) if wanted.draining && !live.assignment.draining => {
                    live.assignment.draining = true;
                    match live.phase {
                        Phase::Ready => self.drain(*id),
                        Phase::Launching | Phase::Starting { .. } => {
                            self.end(*id, "It was drained before it was ready.").await?;
                        }
                        _ => {}
                    }
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    async fn launch(&mut self, id: EnvironmentId, wanted: &EnvironmentAssignment) -> Result<(), String> {
        let taken: BTreeSet<u32> = self.live.values().map(|live| live.host_slot).collect();
        let host_slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or_default();
        let of_version = self.live.values().filter(|live| live.assignment.version == wanted.version).count();
        let live = Live {
            assignment: wanted.clone(),
            phase: Phase::Launching,
            because: None,
            ready_at: None,
            shard: shard_of(wanted, of_version, self.shards.len()),
            host_slot,
            gauge: Arc::default(),
        };
        self.live.insert(id, live);
        let credentials = (self.configuration.credentials)(id);
        let first_host_id = FIRST_HOST_ID + 2 * host_slot;
        match launch_request(&self.configuration, id, wanted, &credentials, first_host_id) {
            Ok(request) => self.send(&LauncherRequest::Launch(Box::new(request))).await,
            Err(reason) => {
                self.ended(id, reason);
                Ok(())
            }
        }
    }

    async fn launcher_event(
        &mut self,
        event: LauncherEvent,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), String> {
        match event {
            LauncherEvent::Launched { environment } => {
                let Ok([runtime_api, stdout, stderr, log_socket]) = <[OwnedFd; 4]>::try_from(descriptors)
                else {
                    return self.end(environment, "The launcher gave no sockets.").await;
                };
                let Some(live) = self.live.get_mut(&environment) else { return Ok(()) };
                let adopted = Adopted {
                    environment,
                    assignment: live.assignment.clone(),
                    runtime_api,
                    stdout,
                    stderr,
                    log_socket,
                    gauge: Arc::clone(&live.gauge),
                };
                if matches!(live.phase, Phase::Launching) {
                    let timeout = u64::from(live.assignment.publication.configuration.timeout_seconds);
                    let seconds = timeout.clamp(INIT_SECONDS_MIN, INIT_SECONDS_MAX);
                    live.phase =
                        Phase::Starting { until: clock::wall().plus_millis(seconds * 1_000), failed: false };
                }
                self.command(environment, ShardCommand::Adopt(Box::new(adopted)));
            }
            LauncherEvent::Failed { environment, what } => {
                let text = format!("The execution environment couldn't be made: {what}");
                self.ended(environment, Reason::new("InternalError", text));
            }
            LauncherEvent::Exited { environment, exit } => {
                self.command(environment, ShardCommand::End { environment, exit });
            }
        }
        Ok(())
    }

    async fn shard_event(&mut self, id: EnvironmentId, event: ShardEvent) -> Result<(), String> {
        let Some(live) = self.live.get_mut(&id) else { return Ok(()) };
        match event {
            ShardEvent::Ready => {
                live.ready_at = Some(clock::wall());
                if matches!(live.phase, Phase::Starting { .. }) {
                    live.phase = Phase::Ready;
                    if live.assignment.draining {
                        self.drain(id);
                    }
                }
            }
            // The runtime gets the time of one tick to end by itself, so that its last words are read.
            ShardEvent::InitFailed => {
                if matches!(live.phase, Phase::Starting { .. }) {
                    live.phase = Phase::Starting { until: clock::wall(), failed: true };
                }
            }
            ShardEvent::Stuck => self.replace(id, "Timed-out code held its slots for too long."),
            ShardEvent::WorkerEnded => self.replace(id, "One of the runtime's workers ended."),
            ShardEvent::Drained => self.end(id, "It was drained.").await?,
            ShardEvent::Ended { reason, by_itself } => {
                let because = live.because.take().filter(|_| !by_itself);
                self.ended(id, because.unwrap_or(reason));
            }
        }
        Ok(())
    }

    /// Lets what is in flight finish, then ends; control starts another in its place.
    fn replace(&mut self, id: EnvironmentId, why: &str) {
        let Some(live) = self.live.get_mut(&id) else { return };
        if matches!(live.phase, Phase::Ready) {
            live.because = Some(Reason::new("FunctionError", why));
            self.drain(id);
        }
    }

    /// Ends what took too long.
    async fn overdue(&mut self) -> Result<(), String> {
        let now = clock::wall();
        let late: Vec<(EnvironmentId, Option<bool>)> = self
            .live
            .iter()
            .filter_map(|(id, live)| match live.phase {
                Phase::Starting { until, failed } if until <= now => Some((*id, Some(failed))),
                Phase::Draining { until } if until <= now => Some((*id, None)),
                _ => None,
            })
            .collect();
        for (id, starting) in late {
            match starting {
                Some(failed) => {
                    let Some(live) = self.live.get_mut(&id) else { continue };
                    live.phase = Phase::Ending;
                    if !failed {
                        let text =
                            "The runtime didn't ask for an invocation within the time for initialisation.";
                        live.because = Some(Reason::new("FunctionError.InitTimeout", text));
                    }
                    self.send(&LauncherRequest::Kill { environment: id }).await?;
                }
                None => self.end(id, "It was drained, and what was in flight took too long.").await?,
            }
        }
        Ok(())
    }

    fn drain(&mut self, id: EnvironmentId) {
        let Some(live) = self.live.get_mut(&id) else { return };
        let timeout = u64::from(live.assignment.publication.configuration.timeout_seconds);
        let seconds = timeout.min(DRAIN_SECONDS_MAX) + DRAIN_SECONDS_EXTRA;
        live.phase = Phase::Draining { until: clock::wall().plus_millis(seconds * 1_000) };
        self.command(id, ShardCommand::Drain { environment: id });
    }

    async fn end(&mut self, id: EnvironmentId, why: &str) -> Result<(), String> {
        let Some(live) = self.live.get_mut(&id) else { return Ok(()) };
        if matches!(live.phase, Phase::Ending | Phase::Ended { .. }) {
            return Ok(());
        }
        live.phase = Phase::Ending;
        live.because.get_or_insert_with(|| Reason::new("Drained", why));
        self.send(&LauncherRequest::Kill { environment: id }).await
    }

    fn ended(&mut self, id: EnvironmentId, reason: Reason) {
        if let Some(live) = self.live.get_mut(&id) {
            let settled =
                live.ready_at.is_some_and(|at| clock::wall() >= at.plus_millis(SETTLED_SECONDS * 1_000));
            live.phase = Phase::Ended { reason, settled: settled || live.assignment.draining };
        }
    }

    fn command(&self, id: EnvironmentId, command: ShardCommand) {
        if let Some(shard) = self.live.get(&id).and_then(|live| self.shards.get(live.shard)) {
            // A shard ends only with the whole server.
            let _ = shard.send(command);
        }
    }

    async fn send(&self, request: &LauncherRequest) -> Result<(), String> {
        loop {
            self.launcher.writable().await.map_err(|error| error.to_string())?;
            match self.launcher.try_io(Interest::WRITABLE, || channel::send(&self.launcher, request, &[])) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                sent => return sent.map_err(|error| format!("talking to the launcher: {error}")),
            }
        }
    }
}

impl Live {
    fn report(&self) -> EnvironmentReport {
        let state = match &self.phase {
            Phase::Launching | Phase::Starting { .. } => EnvironmentState::Starting,
            Phase::Ready => EnvironmentState::Ready,
            Phase::Draining { .. } | Phase::Ending => EnvironmentState::Draining,
            Phase::Ended { reason, settled } => {
                EnvironmentState::Ended { reason: reason.clone(), settled: *settled }
            }
        };
        EnvironmentReport {
            state,
            in_flight: self.gauge.in_flight.load(Ordering::Relaxed),
            parked_polls: self.gauge.parked_polls.load(Ordering::Relaxed),
            timed_out: self.gauge.timed_out.load(Ordering::Relaxed),
        }
    }
}

/// A version starts in one shard, by a hash of its name, and spreads over more as it grows.
fn shard_of(wanted: &EnvironmentAssignment, ordinal: usize, shards: usize) -> usize {
    let hash = wanted.version.to_string().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    usize::try_from(hash % 65_536).unwrap_or(0).wrapping_add(ordinal / SHARD_SPREAD) % shards.max(1)
}

async fn receive(launcher: &UnixStream) -> Result<Option<(LauncherEvent, Vec<OwnedFd>)>, String> {
    loop {
        launcher.readable().await.map_err(|error| error.to_string())?;
        match launcher.try_io(Interest::READABLE, || channel::receive(launcher)) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            received => return received.map_err(|error| format!("hearing from the launcher: {error}")),
        }
    }
}
