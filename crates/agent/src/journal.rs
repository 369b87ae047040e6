//! What an environment says, on its way to whoever keeps or wants it: the log store, extensions that subscribed,
//! callers who asked for the tail. Levels decide here; so does the bound on how much one environment may write.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use ondol_core::function::LogFormat;
use ondol_core::identity::RequestId;
use ondol_observe::clock;
use ondol_observe::logs::{Entry, LogSender, LogStream, Record};
use ondol_observe::platform::{self, Level, Status};
use ondol_protocol::assignment::EnvironmentAssignment;
use serde_json::{Value, json};

use crate::budget::Budget;
use crate::telemetry::{Kind, Subscription};

/// What one environment may keep: this much at once, and this much each second. A flood beyond it is counted.
const KEPT_BYTES_BURST: u64 = 16 << 20;
const KEPT_BYTES_PER_SECOND: u64 = 4 << 20;
/// What a line costs besides its bytes.
const LINE_BYTES: u64 = 128;
/// Platform events of the initialisation, kept for extensions that subscribe during it.
const EARLY_EVENTS_MAX: usize = 64;

/// Lines that were not kept, until they are told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Dropped {
    records: u64,
    bytes: u64,
}

/// How invocations are told of: in the words of managed instances, or in those of Lambda (default) functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Managed,
    ClassicJson,
    Text,
}

/// What an invocation's last event tells.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub duration_micros: u64,
    pub status: Status,
    /// Of the environment's whole life, where it is known.
    pub max_memory_bytes: Option<u64>,
    /// How long the initialisation took, with the first invocation after it.
    pub init_micros: Option<u64>,
    /// What the platform calls the error, where it is the platform's.
    pub error_type: Option<&'static str>,
}

#[derive(Debug)]
pub struct Journal {
    stream: Arc<LogStream>,
    sender: LogSender,
    mode: Mode,
    application_level: Level,
    system_level: Level,
    memory_size_mib: u32,
    budget: Budget,
    dropped: Cell<Dropped>,
    subscriptions: RefCell<Vec<Rc<Subscription>>>,
    early: RefCell<Option<Vec<Value>>>,
}

impl Journal {
    pub fn new(stream: Arc<LogStream>, sender: LogSender, assignment: &EnvironmentAssignment) -> Self {
        let function = &assignment.publication.configuration;
        let level = |level: &Option<String>| Level::parse(level.as_deref().unwrap_or_default());
        let (mode, application_level, system_level) = match &function.logging.format {
            LogFormat::Text => (Mode::Text, Level::Trace, Level::Info),
            LogFormat::Json { application_level, system_level } => {
                let mode = if function.is_on_demand() { Mode::ClassicJson } else { Mode::Managed };
                (mode, level(application_level), level(system_level))
            }
        };
        Self {
            stream,
            sender,
            mode,
            application_level,
            system_level,
            memory_size_mib: function.memory_size_mib,
            budget: Budget::new(KEPT_BYTES_BURST, KEPT_BYTES_PER_SECOND),
            dropped: Cell::default(),
            subscriptions: RefCell::default(),
            early: RefCell::new(Some(Vec::new())),
        }
    }

    pub fn stream(&self) -> &LogStream {
        &self.stream
    }

    /// Whether there is room for what comes now. If not, the reader does not look at lines at all.
    pub fn has_room(&self) -> bool {
        self.budget.has_room()
    }

    /// Whether what was written since then has used the room up.
    pub fn is_full(&self) -> bool {
        self.budget.is_dry()
    }

    /// Charges a line, whatever becomes of it: also one that is left out costs a look.
    pub fn charge(&self, bytes: usize) {
        self.budget.spend(bytes as u64 + LINE_BYTES);
    }

    /// Counts lines nobody looked at.
    pub fn drop_lines(&self, records: u64, bytes: u64) {
        let dropped = self.dropped.get();
        self.dropped.set(Dropped { records: dropped.records + records, bytes: dropped.bytes + bytes });
    }

    /// One line of the function or of an extension. False if its level is below the configured one.
    pub fn line(&self, kind: Kind, text: &str, request: Option<RequestId>) -> bool {
        if self.application_level > Level::Trace
            && level_of(text, self.application_level) < self.application_level
        {
            return false;
        }
        self.tell_of_dropped();
        let subscriptions = self.subscriptions.borrow();
        if subscriptions.iter().any(|subscription| subscription.wants(kind)) {
            let record = serde_json::from_str::<Value>(text).ok().filter(Value::is_object);
            let record = record.unwrap_or_else(|| Value::String(text.into()));
            let event = platform::event(clock::epoch_millis(), kind.name(), &record).to_string();
            subscriptions.iter().filter(|s| s.wants(kind)).for_each(|s| s.push(&event));
        }
        self.keep(request, Entry::Text(text.into()), text.len() as u64 + 1);
        true
    }

    /// False if it found no room: the disk does not keep up with all of the machine's lines.
    fn keep(&self, request: Option<RequestId>, entry: Entry, bytes: u64) -> bool {
        let epoch_micros = u64::try_from(clock::epoch_millis()).unwrap_or_default() * 1_000;
        let kept =
            self.sender.send(Record { stream: Arc::clone(&self.stream), epoch_micros, request, entry });
        if !kept {
            self.drop_lines(1, bytes);
        }
        kept
    }

    /// Says how much was not kept, as soon as there is room again.
    pub fn tell_of_dropped(&self) {
        let Dropped { records, bytes } = self.dropped.take();
        if records == 0 {
            return;
        }
        let reason = format!(
            "Lines came faster than they are kept: {} MiB at once, then {} MiB each second, and as fast as the disk takes them.",
            KEPT_BYTES_BURST >> 20,
            KEPT_BYTES_PER_SECOND >> 20
        );
        let record = json!({"reason": reason, "droppedRecords": records, "droppedBytes": bytes});
        if !self.platform("platform.logsDropped", Level::Warn, &record) {
            // It is told again when there is room; the record itself was counted, and is none of the function's.
            let Dropped { records: more, .. } = self.dropped.get();
            self.dropped.set(Dropped { records: records + more.saturating_sub(1), bytes });
        }
    }

    /// An event of the platform that is no invocation's.
    pub fn platform(&self, kind: &str, level: Level, record: &Value) -> bool {
        let event = platform::event(clock::epoch_millis(), kind, record);
        if let Some(early) = self.early.borrow_mut().as_mut().filter(|early| early.len() < EARLY_EVENTS_MAX) {
            early.push(event.clone());
        }
        let text = event.to_string();
        let subscriptions = self.subscriptions.borrow();
        subscriptions.iter().filter(|s| s.wants(Kind::Platform)).for_each(|s| s.push(&text));
        if self.mode == Mode::Text {
            return self.text_platform(kind, level, record);
        }
        level < self.system_level || self.keep(None, Entry::Text(text.into()), 0)
    }

    /// Text logs hold what went wrong in words of their own, and no more of the platform's events.
    fn text_platform(&self, kind: &str, level: Level, record: &Value) -> bool {
        let line = match kind {
            "platform.initReport" if level >= Level::Warn => format!(
                "INIT_REPORT Init Duration: {:.2} ms\tPhase: init\tStatus: error\tError Type: {}",
                record["metrics"]["durationMs"].as_f64().unwrap_or_default(),
                record["errorType"].as_str().unwrap_or_default()
            ),
            "platform.logsDropped" => format!("LOGS_DROPPED {record}"),
            _ => return true,
        };
        self.keep(None, Entry::Text(line.into()), 0)
    }

    /// Tells of an invocation's beginning; gives the lines for the tail its caller asked for.
    pub fn start(&self, request: RequestId, wants_lines: bool) -> Vec<String> {
        let event = || {
            platform::start(clock::epoch_millis(), request, &self.stream.version, &self.stream.function_arn)
        };
        let (entry, lines) = match self.mode {
            Mode::Managed if !wants_lines => (Entry::Start, Vec::new()),
            Mode::Managed => (Entry::Start, vec![event().to_string()]),
            Mode::ClassicJson => {
                let line = event().to_string();
                (Entry::Text(line.as_str().into()), vec![line])
            }
            Mode::Text => {
                let line = format!("START RequestId: {} Version: {}", request.uuid(), self.stream.version);
                (Entry::Text(line.as_str().into()), vec![line])
            }
        };
        self.invocation(request, entry, Level::Info, event);
        lines
    }

    /// Tells of an invocation's end, as `start` does of its beginning.
    pub fn report(&self, request: RequestId, ended: &Ended, wants_lines: bool) -> Vec<String> {
        let Ended { duration_micros, status, .. } = *ended;
        let level = if status == Status::Success { Level::Info } else { Level::Warn };
        let classic = || {
            let metrics = platform::ClassicMetrics {
                duration_micros,
                memory_size_mib: self.memory_size_mib,
                max_memory_bytes: ended.max_memory_bytes,
                init_micros: ended.init_micros,
            };
            platform::classic_report(clock::epoch_millis(), request, status, &metrics)
        };
        let event = || match self.mode {
            Mode::Managed => platform::report(clock::epoch_millis(), request, duration_micros, status),
            Mode::ClassicJson | Mode::Text => classic(),
        };
        let (entries, lines) = match self.mode {
            Mode::Managed => {
                let lines = if wants_lines { vec![event().to_string()] } else { Vec::new() };
                (vec![Entry::Report { duration_micros, status }], lines)
            }
            Mode::ClassicJson => {
                let done = platform::runtime_done(clock::epoch_millis(), request, duration_micros, status);
                let quiet = status == Status::Success && self.system_level > Level::Debug;
                let done = Some(done.to_string()).filter(|_| !quiet);
                let lines: Vec<String> = done.into_iter().chain([event().to_string()]).collect();
                (lines.iter().map(|line| Entry::Text(line.as_str().into())).collect(), lines)
            }
            Mode::Text => {
                let lines = self.text_report(request, ended);
                (lines.iter().map(|line| Entry::Text(line.as_str().into())).collect(), lines)
            }
        };
        if self.mode != Mode::Managed {
            // Subscribers hear of the runtime's end beside the report; the log has it at DEBUG.
            let subscriptions = self.subscriptions.borrow();
            if subscriptions.iter().any(|s| s.wants(Kind::Platform)) {
                let done = platform::runtime_done(clock::epoch_millis(), request, duration_micros, status);
                let text = done.to_string();
                subscriptions.iter().filter(|s| s.wants(Kind::Platform)).for_each(|s| s.push(&text));
            }
        }
        for (place, entry) in entries.into_iter().enumerate() {
            // Subscribers hear of the report once.
            if place == 0 {
                self.invocation(request, entry, level, event);
            } else if level >= self.system_level {
                self.keep(Some(request), entry, 0);
            }
        }
        lines
    }

    /// The last lines of an invocation in the text format.
    fn text_report(&self, request: RequestId, ended: &Ended) -> Vec<String> {
        let id = request.uuid();
        let mut lines = Vec::new();
        if ended.status == Status::Timeout {
            let now = ondol_wire::time::iso_8601_millis(clock::epoch_millis());
            #[allow(clippy::cast_precision_loss)]
            let seconds = (ended.duration_micros / 1_000_000) as f64;
            lines.push(format!("{now} {id} Task timed out after {seconds:.2} seconds"));
        }
        lines.push(format!("END RequestId: {id}"));
        let billed = ended.duration_micros.div_ceil(1_000).max(1);
        let mut report = format!(
            "REPORT RequestId: {id}\tDuration: {:.2} ms\tBilled Duration: {billed} ms\tMemory Size: {} MB",
            platform::millis(ended.duration_micros),
            self.memory_size_mib
        );
        if let Some(bytes) = ended.max_memory_bytes {
            let _ = write!(report, "\tMax Memory Used: {} MB", bytes >> 20);
        }
        if let Some(micros) = ended.init_micros {
            let _ = write!(report, "\tInit Duration: {:.2} ms", platform::millis(micros));
        }
        if ended.status == Status::Timeout {
            report.push_str("\tStatus: timeout");
        }
        if matches!(ended.status, Status::Error | Status::Failure) && ended.error_type.is_some() {
            let _ = write!(report, "\tStatus: error\tError Type: {}", ended.error_type.unwrap_or_default());
        }
        lines.push(report + "\t");
        lines
    }

    fn invocation(&self, request: RequestId, entry: Entry, level: Level, event: impl Fn() -> Value) {
        let subscriptions = self.subscriptions.borrow();
        if subscriptions.iter().any(|s| s.wants(Kind::Platform)) {
            let text = event().to_string();
            subscriptions.iter().filter(|s| s.wants(Kind::Platform)).for_each(|s| s.push(&text));
        }
        if level >= self.system_level {
            self.keep(Some(request), entry, 0);
        }
    }

    /// Adds or replaces an extension's subscription; it gets the platform events since the start.
    pub fn subscribe(&self, subscription: Rc<Subscription>) {
        if subscription.wants(Kind::Platform) {
            self.early.borrow().iter().flatten().for_each(|event| subscription.push(&event.to_string()));
        }
        let mut subscriptions = self.subscriptions.borrow_mut();
        subscriptions.retain(|other| other.owner != subscription.owner);
        subscriptions.push(subscription);
    }

    /// The initialisation is over: nobody subscribes any more.
    pub fn close_subscriptions(&self) {
        *self.early.borrow_mut() = None;
    }

    pub fn takes_subscriptions(&self) -> bool {
        self.early.borrow().is_some()
    }

    /// Comes back when every subscriber has what there is for it.
    pub async fn flushed(&self) {
        let subscriptions = self.subscriptions.borrow().clone();
        for subscription in subscriptions {
            subscription.flushed().await;
        }
    }
}

/// The `level` of a line in JSON; INFO for anything else, as on AWS. A level that is wanted anyhow may be told as INFO.
fn level_of(text: &str, wanted: Level) -> Level {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(borrow, default)]
        level: Option<std::borrow::Cow<'a, str>>,
    }
    // Most lines name neither of the two levels below INFO, and need not be read as JSON to be kept.
    let names = |part: &str| memchr::memmem::find(text.as_bytes(), part.as_bytes()).is_some();
    if !text.starts_with('{')
        || wanted <= Level::Info && !["ebug", "EBUG", "race", "RACE"].into_iter().any(names)
    {
        return Level::Info;
    }
    let line: Result<Line<'_>, _> = serde_json::from_str(text);
    line.ok().and_then(|line| line.level).map_or(Level::Info, |level| Level::parse(&level))
}
