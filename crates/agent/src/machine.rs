//! The agent's half beside the control loops: carries the assignment out through the launcher, and reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ondol_core::capacity::EnvironmentState;
use ondol_core::function::Reason;
use ondol_core::identity::EnvironmentId;
use ondol_core::signals::Limits;
use ondol_core::time::WallTime;
use ondol_failpoint::reach;
use ondol_launcher::channel;
use ondol_observe::clock;
use ondol_observe::logs::LogStream;
use ondol_protocol::assignment::{Assignment, EnvironmentAssignment, EnvironmentReport, Fence, Report};
use ondol_protocol::containment::{Exit, LauncherEvent, LauncherRequest, Process, Signal};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use crate::configuration::AgentConfiguration;
use crate::environment::{Planned, launch_request};
use crate::gauge::Gauge;
use crate::host::ShardEvent;
use crate::sampling::{MachineSampler, Sampler};
use crate::shard::{Adopted, ShardCommand, ShardEnd};

/// Initialisation may take this long at least, and this long at most whatever the function's timeout.
const INIT_SECONDS_MIN: u64 = 130;
const INIT_SECONDS_MAX: u64 = 900;
const ON_DEMAND_INIT_SECONDS: u64 = 10;
/// A drain waits for what is in flight: the function's timeout, and never longer than this.
const DRAIN_SECONDS_MAX: u64 = 5_400;
const DRAIN_SECONDS_EXTRA: u64 = 5;
/// An environment that ends sooner than this after it was ready counts as a failed start, so that what crashes
/// again and again is started ever more slowly.
const SETTLED_SECONDS: u64 = 60;
/// Environments of one version that share a shard before the next shard is used.
const SHARD_SPREAD: usize = 8;
/// What a shutdown by the protocol takes: so long for the runtime after SIGTERM, and so long for everything.
const TERMINATE_MILLIS: u64 = 600;
const SHUTDOWN_MILLIS: u64 = 2_000;
/// How old the numbers of a report may be.
const REFRESH: Duration = Duration::from_millis(200);
/// How often environments are sampled.
const SAMPLE: Duration = Duration::from_secs(1);
/// A runtime that failed to initialise gets this long for its last words.
const LAST_WORDS_MILLIS: u64 = 100;
/// Host ids environments run under; two each.
const FIRST_HOST_ID: u32 = 1_500_000_000;

/// Why an environment ends, as extensions hear it.
const SPINDOWN: &str = "spindown";
const FAILURE: &str = "failure";
const TIMEOUT: &str = "timeout";

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
    /// It has extensions: the runtime was asked to end, then they are told, then all is killed.
    ShuttingDown {
        runtime_until: Option<WallTime>,
        until: WallTime,
        reason: &'static str,
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
    log_stream: Option<Arc<LogStream>>,
    extensions: Vec<String>,
    runtime: RuntimeState,
    shard: usize,
    host_slot: u32,
    gauge: Arc<Gauge>,
    sampler: Sampler,
}

/// Where the runtime of an environment with extensions is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RuntimeState {
    Waiting,
    Running,
    /// It ended by itself, and how.
    Ended(Exit),
}

#[derive(Debug)]
pub struct Machine {
    configuration: AgentConfiguration,
    launcher: UnixStream,
    shards: Vec<mpsc::UnboundedSender<ShardCommand>>,
    events: mpsc::UnboundedReceiver<(EnvironmentId, ShardEvent)>,
    live: BTreeMap<EnvironmentId, Live>,
    /// What the launcher has no room for yet.
    outgoing: VecDeque<LauncherRequest>,
    sampler: MachineSampler,
    fence: Fence,
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
            outgoing: VecDeque::new(),
            sampler: MachineSampler::default(),
            fence: Fence::default(),
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
        let mut refresh = tokio::time::interval(REFRESH);
        let mut sample = tokio::time::interval(SAMPLE);
        for interval in [&mut refresh, &mut sample] {
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            let deadline = self.next_deadline();
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
                writable = self.launcher.writable(), if !self.outgoing.is_empty() => {
                    writable.map_err(|error| error.to_string())?;
                    self.flush()?;
                }
                () = until(deadline) => self.overdue().await?,
                // What is in flight changes without an event of its own.
                _ = refresh.tick() => {}
                _ = sample.tick() => self.sample(),
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
        if !self.fence.admit(assignment.generation) {
            return Ok(());
        }
        self.report.generation = assignment.generation;
        let dropped: Vec<EnvironmentId> =
            self.live.keys().filter(|id| !assignment.environments.contains_key(id)).copied().collect();
        for id in dropped {
            match self.live.get(&id).map(|live| &live.phase) {
                Some(Phase::Ended { .. }) => drop(self.live.remove(&id)),
                Some(Phase::Ending | Phase::ShuttingDown { .. }) | None => {}
                Some(_) => self.end(id, "It was not wanted any more.").await?,
            }
        }
        for (id, wanted) in &assignment.environments {
            match self.live.get_mut(id) {
                None if wanted.draining => {}
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

    /// Looks at what the machine and every environment that serves use.
    fn sample(&mut self) {
        self.report.machine = self.sampler.look();
        let mut changed = Vec::new();
        for (id, live) in &mut self.live {
            let function = &live.assignment.publication.configuration;
            // On demand an environment has one request at a time, and nobody chooses between them.
            if matches!(live.phase, Phase::Ready) && !function.is_on_demand() {
                let limits = Limits::of(function);
                let group = self.configuration.group(*id, &live.assignment);
                let before = live.sampler.takes_nothing();
                live.sampler.look(&live.gauge, group.as_deref(), limits, &self.report.machine);
                let cause = live.sampler.takes_nothing();
                changed.extend((cause != before).then_some((*id, cause)));
            }
        }
        for (environment, cause) in changed {
            self.command(environment, ShardCommand::Hot { environment, cause });
        }
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
            log_stream: None,
            extensions: Vec::new(),
            runtime: RuntimeState::Running,
            shard: shard_of(wanted, of_version, self.shards.len()),
            host_slot,
            gauge: Arc::default(),
            sampler: Sampler::default(),
        };
        self.live.insert(id, live);
        let credentials = (self.configuration.credentials)(id, wanted);
        let first_host_id = FIRST_HOST_ID + 2 * host_slot;
        match launch_request(&self.configuration, id, wanted, &credentials, first_host_id) {
            Ok(Planned { request, log_stream, extensions }) => {
                if let Some(live) = self.live.get_mut(&id) {
                    live.log_stream = Some(Arc::new(log_stream));
                    if !extensions.is_empty() {
                        live.runtime = RuntimeState::Waiting;
                    }
                    live.extensions = extensions;
                }
                reach("agent.before-launch");
                self.send(&LauncherRequest::Launch(Box::new(request))).await?;
                reach("agent.after-launch");
                Ok(())
            }
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
                let Ok([runtime_api, stdout, stderr, extension_output, log]) =
                    <[OwnedFd; 5]>::try_from(descriptors)
                else {
                    return self.end(environment, "The launcher gave no sockets.").await;
                };
                let Some(live) = self.live.get_mut(&environment) else { return Ok(()) };
                let Some(log_stream) = live.log_stream.clone() else { return Ok(()) };
                let adopted = Adopted {
                    environment,
                    assignment: live.assignment.clone(),
                    runtime_api,
                    stdout,
                    stderr,
                    extension_output,
                    log,
                    log_stream,
                    extensions: live.extensions.clone(),
                    group: self.configuration.group(environment, &live.assignment),
                    gauge: Arc::clone(&live.gauge),
                };
                if matches!(live.phase, Phase::Launching) {
                    let timeout = u64::from(live.assignment.publication.configuration.timeout_seconds);
                    // On demand somebody waits: the initialisation has its own ten seconds, and then the invocation's.
                    let seconds = if live.assignment.publication.configuration.is_on_demand() {
                        ON_DEMAND_INIT_SECONDS + timeout
                    } else {
                        timeout.clamp(INIT_SECONDS_MIN, INIT_SECONDS_MAX)
                    };
                    live.phase =
                        Phase::Starting { until: clock::wall().plus_millis(seconds * 1_000), failed: false };
                }
                self.command(environment, ShardCommand::Adopt(Box::new(adopted)));
            }
            LauncherEvent::Failed { environment, what } => {
                let text = format!("The execution environment couldn't be made: {what}");
                self.ended(environment, Reason::new("InternalError", text));
            }
            LauncherEvent::Exited { environment, exit, peak_memory_bytes } => {
                let exit = match self.live.get(&environment) {
                    Some(Live { runtime: RuntimeState::Ended(exit), .. }) => exit.clone(),
                    // We ended it, though its processes went by themselves when they were told.
                    Some(Live { phase: Phase::ShuttingDown { .. }, .. }) => Exit::Killed,
                    _ => exit,
                };
                self.command(environment, ShardCommand::End { environment, exit, peak_memory_bytes });
            }
            LauncherEvent::ProcessEnded { environment, process, exit } => {
                self.process_ended(environment, process, exit).await?;
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
                    let until = clock::wall().plus_millis(LAST_WORDS_MILLIS);
                    live.phase = Phase::Starting { until, failed: true };
                }
            }
            ShardEvent::ExtensionsRegistered => {
                if live.runtime == RuntimeState::Waiting && matches!(live.phase, Phase::Starting { .. }) {
                    live.runtime = RuntimeState::Running;
                    self.send(&LauncherRequest::StartRuntime { environment: id }).await?;
                }
            }
            ShardEvent::ExtensionFailed => self.shut_down(id, FAILURE).await?,
            ShardEvent::Unsubscribed(places) => {
                for place in places {
                    self.signal(id, Process::Extension(place), Signal::Kill).await?;
                }
            }
            ShardEvent::TimedOut => {
                live.because =
                    Some(Reason::new("FunctionError", "An invocation timed out; the next one gets another."));
                self.shut_down(id, TIMEOUT).await?;
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
        let late: Vec<EnvironmentId> = self
            .live
            .iter()
            .filter(|(_, live)| live.phase.deadline().is_some_and(|deadline| deadline <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let Some(live) = self.live.get_mut(&id) else { continue };
            match live.phase {
                Phase::Starting { failed, .. } => {
                    if !failed {
                        let text =
                            "The runtime didn't ask for an invocation within the time for initialisation.";
                        let seconds = f64::from(live.assignment.publication.configuration.timeout_seconds);
                        let answer = format!("Task timed out after {seconds:.2} seconds");
                        let reason = Reason::new("FunctionError.InitTimeout", text);
                        live.because = Some(Reason { answer: Some(answer), ..reason });
                    }
                    self.shut_down(id, FAILURE).await?;
                }
                Phase::ShuttingDown { ref mut runtime_until, until, reason } if until > now => {
                    *runtime_until = None;
                    self.signal(id, Process::Runtime, Signal::Kill).await?;
                    self.tell_extensions(id, reason, until);
                }
                Phase::ShuttingDown { .. } => {
                    live.phase = Phase::Ending;
                    self.send(&LauncherRequest::Kill { environment: id }).await?;
                }
                _ => self.end(id, "It was drained, and what was in flight took too long.").await?,
            }
        }
        Ok(())
    }

    /// When the next environment will have taken too long.
    fn next_deadline(&self) -> Option<WallTime> {
        self.live.values().filter_map(|live| live.phase.deadline()).min()
    }

    /// One of the processes of an environment with extensions ended. By itself that is the environment's end.
    async fn process_ended(&mut self, id: EnvironmentId, process: Process, exit: Exit) -> Result<(), String> {
        let Some(live) = self.live.get_mut(&id) else { return Ok(()) };
        if let Phase::ShuttingDown { ref mut runtime_until, until, reason } = live.phase {
            if process == Process::Runtime && runtime_until.take().is_some() {
                self.tell_extensions(id, reason, until);
            }
            return Ok(());
        }
        if matches!(live.phase, Phase::Ending | Phase::Ended { .. }) {
            return Ok(());
        }
        if process == Process::Runtime {
            live.runtime = RuntimeState::Ended(exit.clone());
        }
        self.command(id, ShardCommand::ProcessEnded { environment: id, process, exit });
        self.shut_down(id, FAILURE).await
    }

    /// Ends an environment: at once, or by the protocol when it has extensions to be told.
    async fn shut_down(&mut self, id: EnvironmentId, reason: &'static str) -> Result<(), String> {
        let Some(live) = self.live.get_mut(&id) else { return Ok(()) };
        if matches!(live.phase, Phase::Ending | Phase::Ended { .. } | Phase::ShuttingDown { .. }) {
            return Ok(());
        }
        if live.extensions.is_empty() || matches!(live.phase, Phase::Launching) {
            live.phase = Phase::Ending;
            return self.send(&LauncherRequest::Kill { environment: id }).await;
        }
        let now = clock::wall();
        let running = live.runtime == RuntimeState::Running;
        let until = now.plus_millis(SHUTDOWN_MILLIS);
        let runtime_until = running.then(|| now.plus_millis(TERMINATE_MILLIS));
        live.phase = Phase::ShuttingDown { runtime_until, until, reason };
        // From now on it takes nothing, and what runs is answered.
        self.command(id, ShardCommand::Abort { environment: id });
        if running {
            return self.signal(id, Process::Runtime, Signal::Terminate).await;
        }
        self.tell_extensions(id, reason, until);
        Ok(())
    }

    fn tell_extensions(&self, id: EnvironmentId, reason: &'static str, until: WallTime) {
        let millis = i64::try_from(until.0.saturating_sub(clock::wall().0) / 1_000).unwrap_or_default();
        self.command(id, ShardCommand::ShutDown { environment: id, reason, millis });
    }

    async fn signal(&mut self, id: EnvironmentId, process: Process, signal: Signal) -> Result<(), String> {
        self.send(&LauncherRequest::Signal { environment: id, process, signal }).await
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
        if matches!(live.phase, Phase::Ending | Phase::Ended { .. } | Phase::ShuttingDown { .. }) {
            return Ok(());
        }
        live.because.get_or_insert_with(|| Reason::new("Drained", why));
        reach("agent.before-end");
        self.shut_down(id, SPINDOWN).await?;
        reach("agent.after-end");
        Ok(())
    }

    fn ended(&mut self, id: EnvironmentId, reason: Reason) {
        if let Some(live) = self.live.get_mut(&id) {
            // On demand nothing is started again by itself: only what never came up has failed.
            let settle_seconds =
                if live.assignment.publication.configuration.is_on_demand() { 0 } else { SETTLED_SECONDS };
            let settled =
                live.ready_at.is_some_and(|at| clock::wall() >= at.plus_millis(settle_seconds * 1_000));
            live.phase = Phase::Ended { reason, settled: settled || live.assignment.draining };
        }
    }

    fn command(&self, id: EnvironmentId, command: ShardCommand) {
        if let Some(shard) = self.live.get(&id).and_then(|live| self.shards.get(live.shard)) {
            // A shard ends only with the whole server.
            let _ = shard.send(command);
        }
    }

    /// Sends, or queues behind what waits: a launcher that is itself waiting to be heard must not be waited for.
    async fn send(&mut self, request: &LauncherRequest) -> Result<(), String> {
        self.outgoing.push_back(request.clone());
        self.flush()
    }

    fn flush(&mut self) -> Result<(), String> {
        while let Some(request) = self.outgoing.front() {
            match self.launcher.try_io(Interest::WRITABLE, || channel::send(&self.launcher, request, &[])) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                // Seen here before its socket was read to the end.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Err("the launcher ended".into());
                }
                sent => sent.map_err(|error| format!("talking to the launcher: {error}"))?,
            }
            self.outgoing.pop_front();
        }
        Ok(())
    }
}

impl Live {
    fn report(&self) -> EnvironmentReport {
        let state = match &self.phase {
            Phase::Launching | Phase::Starting { .. } => EnvironmentState::Starting,
            Phase::Ready => EnvironmentState::Ready,
            Phase::Draining { .. } | Phase::ShuttingDown { .. } | Phase::Ending => EnvironmentState::Draining,
            Phase::Ended { reason, settled } => {
                EnvironmentState::Ended { reason: reason.clone(), settled: *settled }
            }
        };
        EnvironmentReport {
            state,
            in_flight: self.gauge.in_flight.load(Ordering::Relaxed),
            parked_polls: self.gauge.parked_polls.load(Ordering::Relaxed),
            timed_out: self.gauge.timed_out.load(Ordering::Relaxed),
            signals: self.sampler.signals,
            heat: self.sampler.heat(),
        }
    }
}

impl Phase {
    fn deadline(&self) -> Option<WallTime> {
        match self {
            Self::Starting { until, .. } | Self::Draining { until } => Some(*until),
            Self::ShuttingDown { runtime_until, until, .. } => Some(runtime_until.unwrap_or(*until)),
            Self::Launching | Self::Ready | Self::Ending | Self::Ended { .. } => None,
        }
    }
}

async fn until(deadline: Option<WallTime>) {
    match deadline {
        Some(at) => tokio::time::sleep(Duration::from_micros(at.0.saturating_sub(clock::wall().0))).await,
        None => std::future::pending().await,
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
