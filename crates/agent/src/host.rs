//! One execution environment on its shard: slots, parked polls, callers, logs. Single-threaded.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ondol_core::function::Reason;
use ondol_core::gate::{Event as GateEvent, ThrottleCause};
use ondol_core::identity::{EnvironmentId, RequestId};
use ondol_core::slots::{Answer, Effect, Event, PollId, Refusal, Slots};
use ondol_core::time::WallTime;
use ondol_launcher::cgroup::peak_memory_bytes;
use ondol_observe::clock;
use ondol_observe::platform::{self, Level, Status};
use ondol_protocol::assignment::EnvironmentAssignment;
use ondol_protocol::containment::{Exit, Process};
use ondol_protocol::invocation::{Invocation, Refused, Reply, StreamLimits};
use serde_json::json;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::caller::Caller;
use crate::extensions::Extensions;
use crate::gauge::Gauge;
use crate::journal::{Ended, Journal};
use crate::logs::Logs;
use crate::variables::initialization_type;

/// Errors a report names.
const PLATFORM_ERRORS: &[&str] = &["Runtime.ExitError", "Runtime.OutOfMemory"];

/// The error of what this side ended.
const SHUT_DOWN: &str = "Client.ExecutionEnvironmentShutDown";

/// How long the last telemetry may take, of the two seconds there are for the whole shutdown.
const TELEMETRY_WAIT: std::time::Duration = std::time::Duration::from_millis(300);

/// What a shard tells its machine of an environment.
#[derive(Debug)]
pub enum ShardEvent {
    /// The runtime asked for its first invocation.
    Ready,
    /// It will not come up; end it.
    InitFailed,
    /// The time of a Lambda (default) function's code is over, and so is its environment.
    TimedOut,
    /// Timed-out code holds its slots for too long; replace it.
    Stuck,
    /// One of the runtime's workers ended, and the runtime goes on with fewer; replace it.
    WorkerEnded,
    /// No caller waits any more.
    Drained,
    /// Every extension has registered: the runtime may start.
    ExtensionsRegistered,
    /// An extension reported an error, or ended: the environment is over.
    ExtensionFailed,
    /// These started extensions did not ask to hear of the end.
    Unsubscribed(Vec<usize>),
    /// Everything of it is closed: why it ended, and whether by itself.
    Ended { reason: Reason, by_itself: bool },
}

/// An invocation given to a poll.
pub struct Handed {
    pub invocation: Invocation,
    pub deadline: WallTime,
}

struct ParkedPoll {
    hand: oneshot::Sender<Handed>,
    /// The connection, to see whether its client is still there.
    connection: Rc<OwnedFd>,
}

/// An error the runtime reported of itself.
#[derive(Debug, Clone)]
pub struct RuntimeError {
    pub error_type: String,
    pub message: String,
    /// The whole of what it posted.
    pub body: Option<String>,
}

impl RuntimeError {
    /// Both are the function's words, and go into documents and reports: they are cut.
    pub fn new(error_type: &str, message: &str) -> Self {
        let cut = |text: &str, chars: usize| text.chars().take(chars).collect();
        Self { error_type: cut(error_type, 128), message: cut(message, 1_024), body: None }
    }
}

/// Who hears of what becomes of an environment.
pub struct Listeners {
    pub gauge: Arc<Gauge>,
    pub gate: Rc<dyn Fn(GateEvent)>,
    pub machine: mpsc::UnboundedSender<(EnvironmentId, ShardEvent)>,
}

pub struct Host {
    pub id: EnvironmentId,
    pub assignment: EnvironmentAssignment,
    pub logs: Rc<Logs>,
    pub journal: Rc<Journal>,
    pub extensions: RefCell<Extensions>,
    adopted_at: WallTime,
    /// How long the initialisation took, until an invocation has told of it.
    init_micros: Cell<Option<u64>>,
    /// The slot is free, and extensions still work on the invocation.
    freeing: Cell<bool>,
    /// The slot was given back once without a poll; the next time there must be one.
    must_poll: Cell<bool>,
    /// When the latest invocation's time ends.
    deadline: Cell<WallTime>,
    /// This host itself, for what it leaves to a task.
    own: RefCell<Weak<Self>>,
    /// The most memory it ever had, once it has ended.
    peak_memory_bytes: Cell<Option<u64>>,
    /// The platform's name for what ended the invocation that is being answered.
    platform_error: Cell<Option<&'static str>>,
    /// This side is ending it.
    is_cut: Cell<bool>,
    /// Its control group below ours.
    group: Option<String>,
    /// The runtime asked for an invocation.
    polled: Cell<bool>,
    slots: RefCell<Slots>,
    polls: RefCell<BTreeMap<PollId, ParkedPoll>>,
    callers: RefCell<BTreeMap<RequestId, Caller>>,
    ready: Cell<bool>,
    open: Cell<bool>,
    ended: Cell<bool>,
    first_error: RefCell<Option<RuntimeError>>,
    next_poll: Cell<PollId>,
    /// The timer's present alarm, so that it is woken only for an earlier one.
    alarm: Cell<Option<WallTime>>,
    rearm: Notify,
    /// Deliveries of telemetry, one for each extension; they end with the environment.
    deliveries: RefCell<BTreeMap<u128, JoinHandle<()>>>,
    listeners: Listeners,
}

impl Host {
    pub fn new(
        id: EnvironmentId,
        assignment: EnvironmentAssignment,
        journal: Journal,
        extensions: Vec<String>,
        group: Option<String>,
        listeners: Listeners,
    ) -> Rc<Self> {
        let limit = assignment.publication.configuration.concurrency();
        let is_classic = assignment.publication.configuration.is_on_demand();
        let journal = Rc::new(journal);
        let host = Rc::new(Self {
            id,
            assignment,
            logs: Rc::new(Logs::new(Rc::clone(&journal), limit)),
            journal,
            extensions: RefCell::new(Extensions::new(extensions, is_classic)),
            adopted_at: clock::wall(),
            init_micros: Cell::new(None),
            freeing: Cell::new(false),
            must_poll: Cell::new(false),
            peak_memory_bytes: Cell::new(None),
            platform_error: Cell::new(None),
            is_cut: Cell::new(false),
            deadline: Cell::new(WallTime(0)),
            own: RefCell::default(),
            group,
            polled: Cell::new(false),
            slots: RefCell::new(if is_classic { Slots::classic() } else { Slots::new(limit) }),
            polls: RefCell::default(),
            callers: RefCell::default(),
            ready: Cell::new(false),
            open: Cell::new(true),
            ended: Cell::new(false),
            first_error: RefCell::default(),
            next_poll: Cell::new(0),
            alarm: Cell::new(None),
            rearm: Notify::new(),
            deliveries: RefCell::default(),
            listeners,
        });
        *host.own.borrow_mut() = Rc::downgrade(&host);
        host.tell_of_start();
        host
    }

    /// Keeps an extension's delivery; the one before ends.
    pub fn keep_delivery(&self, extension: u128, task: JoinHandle<()>) {
        if let Some(before) = self.deliveries.borrow_mut().insert(extension, task) {
            before.abort();
        }
    }

    /// Of a Lambda (default) function: one request at a time, by the rules of the classic mode.
    pub fn is_classic(&self) -> bool {
        self.assignment.publication.configuration.is_on_demand()
    }

    fn tell_of_start(&self) {
        let function = &self.assignment.publication.configuration;
        let record = json!({
            "initializationType": initialization_type(function),
            "phase": "init",
            "functionName": self.assignment.version.function,
            "functionVersion": self.assignment.version.version,
            "instanceId": self.journal.stream().name,
            "instanceMaxMemory": u64::from(function.memory_size_mib) << 20,
        });
        self.journal.platform("platform.initStart", Level::Info, &record);
    }

    /// Tells of one step of the initialisation, and at its end of the whole.
    fn tell_of_init(&self, kind: &str, quiet: Level, error: Option<&str>) {
        let status = if error.is_some() { Status::Error } else { Status::Success };
        let mut record = json!({
            "initializationType": initialization_type(&self.assignment.publication.configuration),
            "phase": "init",
            "status": status.name(),
        });
        if kind == "platform.initReport" {
            let micros = clock::wall().0.saturating_sub(self.adopted_at.0);
            self.init_micros.set(Some(micros).filter(|_| self.is_classic()));
            record["metrics"] = json!({"durationMs": platform::millis(micros)});
        }
        if let Some(error) = error {
            record["errorType"] = error.into();
        }
        self.journal.platform(kind, if error.is_some() { Level::Warn } else { quiet }, &record);
    }

    /// The initialisation is over, well or not.
    fn end_init(&self, error: Option<&str>) {
        for state in self.extensions.borrow().states() {
            self.journal.platform("platform.extension", Level::Info, &state);
        }
        self.tell_of_init("platform.initReport", Level::Info, error);
        self.journal.close_subscriptions();
    }

    fn tell(&self, event: ShardEvent) {
        // A machine that is gone ends this shard soon.
        let _ = self.listeners.machine.send((self.id, event));
    }

    /// Gives the invocation a slot, or refuses; the answer comes through the receiver.
    pub fn invoke(&self, invocation: Invocation) -> oneshot::Receiver<Result<Reply, Refused>> {
        let (reply, answered) = oneshot::channel();
        let request = invocation.request;
        let timeout_millis = invocation.timeout_millis;
        let in_flight = self.slots.borrow().in_flight();
        if let Some(cause) = self.listeners.gauge.too_hot_for(in_flight) {
            self.refused();
            Caller::new(reply, invocation).refuse(cause);
            return answered;
        }
        self.callers.borrow_mut().insert(request, Caller::new(reply, invocation));
        self.handle(Event::Invoke { request, timeout_millis });
        answered
    }

    /// Parks a poll until an invocation is handed to it. After the end the receiver is closed at once.
    pub fn park(&self, connection: Rc<OwnedFd>) -> (PollId, oneshot::Receiver<Handed>) {
        let poll = self.next_poll.get();
        self.next_poll.set(poll + 1);
        let (hand, handed) = oneshot::channel();
        if self.ended.get() {
            return (poll, handed);
        }
        self.polls.borrow_mut().insert(poll, ParkedPoll { hand, connection });
        if !self.polled.replace(true) {
            self.extensions.borrow_mut().close_registration();
            self.tell_of_init("platform.initRuntimeDone", Level::Debug, None);
        }
        self.consider_ready();
        self.handle(Event::PollArrived(poll));
        if self.must_poll.take() {
            self.consider_free();
        }
        (poll, handed)
    }

    /// Ready is whose runtime and whose extensions have all asked for their first event.
    pub fn consider_ready(&self) {
        // What has failed to initialise does not become ready after all.
        let failed = self.first_error.borrow().is_some();
        if failed || !self.polled.get() || self.ready.get() || !self.open.get() {
            return;
        }
        if !self.extensions.borrow().all_ready() {
            return;
        }
        self.ready.set(true);
        self.end_init(None);
        let function = &self.assignment.publication.configuration;
        (self.listeners.gate)(GateEvent::Ready {
            environment: self.id,
            publication: self.assignment.publication.id,
            zone: self.assignment.instance.availability_zone.as_str().into(),
            limit: function.concurrency(),
            is_on_demand: function.is_on_demand(),
        });
        self.tell(ShardEvent::Ready);
    }

    /// An environment takes the next invocation when its extensions are done with the last one too.
    pub fn consider_free(&self) {
        if self.freeing.get() && !self.must_poll.get() && self.extensions.borrow().all_free() {
            self.freeing.set(false);
            (self.listeners.gate)(GateEvent::SlotReleased { environment: self.id });
        }
    }

    /// The gate counted a slot for what was not taken; the caller may be gone, so it is given back from here.
    fn refused(&self) {
        self.listeners.gauge.refusals.fetch_add(1, Ordering::Relaxed);
        self.slot_released();
    }

    fn slot_released(&self) {
        self.freeing.set(true);
        self.consider_free();
        let until = self.deadline.get();
        if let (true, Some(host)) = (self.freeing.get(), self.own.borrow().upgrade()) {
            // An extension has the invocation's own time, and no more.
            tokio::task::spawn_local(async move {
                let left = until.0.saturating_sub(clock::wall().0);
                tokio::time::sleep(std::time::Duration::from_micros(left)).await;
                if host.freeing.get() && host.deadline.get() == until {
                    host.give_up();
                }
            });
        }
    }

    /// An extension has registered; with the last one the runtime may start.
    pub fn extension_registered(&self) {
        if self.extensions.borrow().all_registered() {
            self.tell(ShardEvent::ExtensionsRegistered);
        }
    }

    /// An extension says that it failed, or ended: the environment is over.
    pub fn extension_failed(&self, error: RuntimeError) {
        self.abort(&error.error_type, &error.message);
        self.first_error.borrow_mut().get_or_insert(error);
        self.tell(ShardEvent::ExtensionFailed);
    }

    /// One of the processes of an environment with extensions ended. What it was doing is answered now; the
    /// extensions get their time to end.
    pub fn process_ended(&self, process: &Process, exit: &Exit) {
        self.logs.read_what_is_there();
        match process {
            Process::Runtime => {
                let (error_type, what) = self.describe(exit);
                self.abort(error_type, &what);
            }
            Process::Extension(place) => {
                let (_, how) = self.describe(exit);
                let name = self.extensions.borrow().started_name(*place).to_owned();
                let message =
                    format!("The extension {name} ended: {}", how.replace("Runtime exited", "exited"));
                self.extension_failed(RuntimeError::new("Extension.Crash", &message));
            }
        }
    }

    /// Takes nothing more; what runs is answered.
    pub fn shut_off(&self) {
        let (error_type, what) = self.describe(&Exit::Killed);
        self.abort(error_type, &what);
    }

    /// The environment shuts down: what telemetry there is goes out, then extensions hear of it.
    pub async fn shut_down(self: Rc<Self>, reason: &'static str, millis: i64) {
        self.logs.read_what_is_there();
        self.journal.tell_of_dropped();
        // A subscriber that does not take it costs the others no more than this.
        let _ = tokio::time::timeout(TELEMETRY_WAIT, self.journal.flushed()).await;
        let silent = self.extensions.borrow_mut().shut_down(reason, clock::epoch_millis() + millis);
        self.tell(ShardEvent::Unsubscribed(silent));
    }

    pub fn unpark(&self, poll: PollId) {
        if self.polls.borrow_mut().remove(&poll).is_some() {
            self.handle(Event::PollGone(poll));
        }
    }

    /// Whether the runtime was given this invocation and has not answered it.
    pub fn is_held(&self, request: RequestId) -> bool {
        self.slots.borrow().is_held(request)
    }

    /// How much the caller of an invocation takes while it is being written; none if it waits for the whole.
    pub fn stream_limits(&self, request: RequestId) -> Option<StreamLimits> {
        self.callers.borrow().get(&request)?.invocation.stream
    }

    /// Whether an answer is being streamed.
    pub fn is_streaming(&self, request: RequestId) -> bool {
        let callers = self.callers.borrow();
        callers.get(&request).is_some_and(Caller::is_streaming)
    }

    /// Begins to stream an answer. None if its caller has been answered, or reads already.
    pub fn begin_stream(&self, request: RequestId, content_type: String) -> Option<mpsc::Sender<Bytes>> {
        self.callers.borrow_mut().get_mut(&request)?.begin_stream(content_type)
    }

    /// The runtime's answer to an invocation; its slot is free when this returns.
    pub fn answer(&self, request: RequestId, function_error: Option<&'static str>, body: Bytes) -> Answer {
        let mut effects = Vec::new();
        let answer = self.slots.borrow_mut().answer(request, &mut effects);
        if answer == Answer::Accepted {
            let status = if function_error.is_some() { Status::Error } else { Status::Success };
            self.reply(request, function_error, body, status);
        }
        self.carry_out(effects);
        answer
    }

    /// Keeps the first error of initialisation; a second one is refused. True if this was the first.
    pub fn init_error(&self, error: RuntimeError) -> bool {
        if self.first_error.borrow().is_some() {
            return false;
        }
        if !self.ready.get() {
            self.tell_of_init("platform.initRuntimeDone", Level::Debug, Some(&error.error_type));
        }
        *self.first_error.borrow_mut() = Some(error);
        if !self.ready.get() && !self.ended.get() {
            self.tell(ShardEvent::InitFailed);
        }
        true
    }

    pub fn drain(&self) {
        self.close();
        self.handle(Event::Drain);
    }

    /// Time is over for the code of a Lambda (default) function.
    fn give_up(&self) {
        self.close();
        self.tell(ShardEvent::TimedOut);
        self.handle(Event::GiveUp);
    }

    fn close(&self) {
        if self.open.replace(false) {
            (self.listeners.gate)(GateEvent::Closed { environment: self.id });
        }
    }

    /// The processes are gone: every waiting caller is answered, and the machine hears why.
    pub fn end(&self, exit: &Exit, peak_memory_bytes: Option<u64>) {
        self.peak_memory_bytes.set(peak_memory_bytes.filter(|_| self.is_classic()));
        self.logs.read_what_is_there();
        self.logs.end_lines();
        let (error_type, what) = self.describe(exit);
        self.abort(error_type, &what);
        self.polls.borrow_mut().clear();
        self.rearm.notify_one();
        if !self.ready.get() {
            let first = self.first_error.borrow().as_ref().map(|error| error.error_type.clone());
            self.end_init(Some(first.as_deref().unwrap_or(error_type)));
        }
        self.journal.tell_of_dropped();
        self.logs.stop();
        let by_itself = *exit != Exit::Killed;
        self.tell(ShardEvent::Ended { reason: self.reason(exit, &what), by_itself });
    }

    /// Takes no more and answers every waiting caller with an error.
    fn abort(&self, error_type: &str, what: &str) {
        self.close();
        self.ended.set(true);
        self.is_cut.set(error_type == SHUT_DOWN);
        for request in self.slots.borrow_mut().end() {
            let handed = self.callers.borrow().get(&request).is_some_and(|caller| caller.handed_at.is_some());
            if handed {
                let message = format!("RequestId: {} Error: {what}", request.uuid());
                // The report names the error; only what the platform itself has names for.
                self.platform_error.set(PLATFORM_ERRORS.iter().find(|known| **known == error_type).copied());
                self.reply(request, Some("Unhandled"), error_body(error_type, &message), Status::Failure);
            } else if let Some(caller) = self.callers.borrow_mut().remove(&request) {
                caller.refuse(ThrottleCause::Concurrency);
            }
        }
    }

    fn describe(&self, exit: &Exit) -> (&'static str, String) {
        match exit {
            Exit::Code(0) => ("Runtime.ExitError", "Runtime exited without providing a reason".into()),
            // What a program that is not there, or may not be run, ends with.
            Exit::Code(126 | 127) if !self.polled.get() => {
                ("Runtime.InvalidEntrypoint", "Runtime failed to start: its program can't be run".into())
            }
            Exit::Code(code) => {
                ("Runtime.ExitError", format!("Runtime exited with error: exit status {code}"))
            }
            Exit::Signal(signal) => {
                ("Runtime.ExitError", format!("Runtime exited with error: signal: {}", signal_name(*signal)))
            }
            Exit::OutOfMemory => ("Runtime.OutOfMemory", "Runtime exited with error: signal: killed".into()),
            Exit::NotStarted(what) => {
                ("Runtime.InvalidEntrypoint", format!("Runtime failed to start: {what}"))
            }
            Exit::Killed => (SHUT_DOWN, "The execution environment was shut down".into()),
        }
    }

    /// Why it ended, for the version's state: the runtime's own error first, and the last line it wrote.
    fn reason(&self, exit: &Exit, what: &str) -> Reason {
        let of_extension = self
            .first_error
            .borrow()
            .as_ref()
            .is_some_and(|error| error.error_type.starts_with("Extension."));
        let code = match exit {
            _ if of_extension => "FunctionError.ExtensionInitError",
            Exit::OutOfMemory => "FunctionError.InitResourceExhausted",
            Exit::Code(126) => "FunctionError.PermissionDenied",
            Exit::Code(127) | Exit::NotStarted(_) => "FunctionError.InvalidEntryPoint",
            _ => "FunctionError.RuntimeInitError",
        };
        if let Some(error) = self.first_error.borrow().as_ref() {
            let reason = Reason::new(code, format!("{}: {}", error.error_type, error.message));
            return Reason { answer: error.body.clone().filter(|_| self.is_classic()), ..reason };
        }
        match self.logs.last_lines().last() {
            Some(line) => Reason::new(code, format!("{what}. Its last line of log: {line}")),
            None => Reason::new(code, what),
        }
    }

    /// Read for each invocation's report, which only the classic mode has.
    fn present_peak_memory_bytes(&self) -> Option<u64> {
        self.group.as_deref().filter(|_| self.is_classic()).and_then(peak_memory_bytes)
    }

    fn reply(&self, request: RequestId, function_error: Option<&'static str>, body: Bytes, status: Status) {
        let Some(caller) = self.callers.borrow_mut().remove(&request) else { return };
        let micros = caller.handed_at.map_or(0, |at| clock::wall().0.saturating_sub(at.0));
        let wants_tail = caller.invocation.wants_log_tail;
        if self.is_classic() {
            // Its own lines come before the platform's last ones, also one without an end.
            self.logs.read_what_is_there();
            self.logs.end_lines();
        }
        let ended = Ended {
            duration_micros: micros,
            status,
            max_memory_bytes: self.peak_memory_bytes.get().or_else(|| self.present_peak_memory_bytes()),
            init_micros: self.init_micros.take(),
            error_type: self.platform_error.take(),
        };
        let lines = self.journal.report(request, &ended, wants_tail);
        let log_tail = wants_tail.then(|| self.logs.take_tail(request, &lines).unwrap_or_default());
        self.logs.belong_to(None);
        caller.tell(function_error, body, log_tail, self.is_cut.get());
    }

    fn handle(&self, event: Event) {
        let mut effects = Vec::new();
        self.slots.borrow_mut().handle(clock::wall(), event, &mut effects);
        self.carry_out(effects);
    }

    /// Carries effects out in their order. A dead poll adds to the queue instead of recursing: a function can
    /// leave thousands of them.
    fn carry_out(&self, effects: Vec<Effect>) {
        let mut queue = std::collections::VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::HandOver { request, poll, deadline } => {
                    if !self.hand_over(request, poll, deadline) {
                        let mut more = Vec::new();
                        let failed = Event::HandOverFailed { request };
                        self.slots.borrow_mut().handle(clock::wall(), failed, &mut more);
                        queue.extend(more);
                    }
                }
                Effect::TimedOut { request } => {
                    let millis = self
                        .callers
                        .borrow()
                        .get(&request)
                        .map_or(0, |caller| caller.invocation.timeout_millis);
                    #[allow(clippy::cast_precision_loss)]
                    let seconds = millis as f64 / 1_000.0;
                    let message = format!(
                        "RequestId: {} Error: Task timed out after {seconds:.2} seconds",
                        request.uuid()
                    );
                    self.reply(
                        request,
                        Some("Unhandled"),
                        error_body("Sandbox.Timedout", &message),
                        Status::Timeout,
                    );
                    if self.is_classic() {
                        self.give_up();
                    }
                }
                Effect::Overdue => self.give_up(),
                Effect::Refuse { request, refusal } => {
                    if refusal == Refusal::NoPoll && self.is_classic() {
                        if self.slots.borrow().is_unfinished() {
                            // The code goes on after its answer: it is free when it asks, or over with its time.
                            self.freeing.set(true);
                            self.must_poll.set(true);
                        } else {
                            self.give_up();
                        }
                    } else {
                        self.refused();
                    }
                    if let Some(caller) = self.callers.borrow_mut().remove(&request) {
                        caller.refuse(ThrottleCause::Concurrency);
                    }
                }
                Effect::SlotReleased => self.slot_released(),
                Effect::Stuck => self.tell(ShardEvent::Stuck),
                Effect::Drained => self.tell(ShardEvent::Drained),
            }
        }
        let slots = self.slots.borrow();
        let gauge = &self.listeners.gauge;
        gauge.hold(clock::wall(), slots.in_flight());
        gauge.parked_polls.store(slots.parked(), Ordering::Relaxed);
        gauge.timed_out.store(slots.timed_out(), Ordering::Relaxed);
        let next = slots.next_wakeup();
        if next.is_some_and(|next| self.alarm.get().is_none_or(|alarm| next < alarm)) {
            self.rearm.notify_one();
        }
    }

    /// False if the poll's client is gone; the invocation then goes to the next poll.
    fn hand_over(&self, request: RequestId, poll: PollId, deadline: WallTime) -> bool {
        let Some(parked) = self.polls.borrow_mut().remove(&poll) else { return false };
        let mut callers = self.callers.borrow_mut();
        let Some(caller) = callers.get_mut(&request) else { return true };
        if is_closed(&parked.connection) {
            return false;
        }
        let handed = Handed { invocation: caller.invocation.clone(), deadline };
        if parked.hand.send(handed).is_err() {
            return false;
        }
        caller.handed_at = Some(clock::wall());
        self.deadline.set(deadline);
        let wants_tail = caller.invocation.wants_log_tail;
        if self.is_classic() {
            self.logs.belong_to(Some(request));
            let event = invoke_event(&caller.invocation, deadline);
            self.extensions.borrow_mut().invoke(&event);
        }
        let lines = self.journal.start(request, wants_tail);
        if wants_tail {
            self.logs.start_tail(request, &lines);
        }
        true
    }

    /// Tells the machine of workers that end while the environment serves.
    pub async fn watch_workers(self: Rc<Self>) {
        loop {
            self.logs.worker_ended.notified().await;
            if self.ready.get() && self.open.get() {
                self.tell(ShardEvent::WorkerEnded);
            }
        }
    }

    /// Wakes the slots when a deadline passes, for as long as the environment lives.
    pub async fn keep_time(self: Rc<Self>) {
        loop {
            let next = self.slots.borrow().next_wakeup();
            self.alarm.set(next);
            match next {
                None => self.rearm.notified().await,
                Some(at) => {
                    let wait = std::time::Duration::from_micros(at.0.saturating_sub(clock::wall().0));
                    tokio::select! {
                        () = tokio::time::sleep(wait) => self.handle(Event::Tick),
                        () = self.rearm.notified() => {}
                    }
                }
            }
        }
    }
}

/// A signal's name, as the kernel's users know it.
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        4 => "illegal instruction",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        11 => "segmentation fault",
        13 => "broken pipe",
        15 => "terminated",
        other => return other.to_string(),
    };
    name.into()
}

/// What extensions of a Lambda (default) function hear of an invocation.
fn invoke_event(invocation: &Invocation, deadline: WallTime) -> Bytes {
    let left_millis = deadline.0.saturating_sub(clock::wall().0) / 1_000;
    let deadline_millis =
        clock::epoch_millis().saturating_add(i64::try_from(left_millis).unwrap_or(i64::MAX));
    let event = json!({
        "eventType": "INVOKE",
        "deadlineMs": deadline_millis,
        "requestId": invocation.request.uuid(),
        "invokedFunctionArn": &*invocation.invoked_arn,
        "tracing": {"type": "X-Amzn-Trace-Id", "value": invocation.trace_id.as_deref().unwrap_or_default()},
    });
    event.to_string().into()
}

impl Drop for Host {
    fn drop(&mut self) {
        self.deliveries.borrow().values().for_each(JoinHandle::abort);
    }
}

/// Whether a connection's other side has closed it: a read would give its end.
fn is_closed(connection: &OwnedFd) -> bool {
    use rustix::net::{RecvFlags, recv};
    let mut byte = [0; 1];
    match recv(connection, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((read, _)) => read == 0,
        Err(error) => error != rustix::io::Errno::AGAIN,
    }
}

pub fn error_body(error_type: &str, message: &str) -> Bytes {
    serde_json::json!({"errorType": error_type, "errorMessage": message}).to_string().into()
}
