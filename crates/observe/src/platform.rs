//! Platform events as AWS writes them in the JSON log format: one object with `time`, `type` and `record`.

use ondol_core::identity::RequestId;
use ondol_wire::time::iso_8601_millis;
use serde_json::{Value, json};

/// How an invocation or an initialisation ended. `Failure` is the platform's, `Error` the function's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Success,
    Error,
    Failure,
    Timeout,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error => "error",
            Self::Failure => "failure",
            Self::Timeout => "timeout",
        }
    }
}

/// Levels of system and application logs, the least important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Level {
    /// AWS's names and the runtimes' own. What names no level is INFO, as on AWS.
    pub fn parse(name: &str) -> Self {
        const NAMES: [(&str, Level); 8] = [
            ("trace", Level::Trace),
            ("debug", Level::Debug),
            ("info", Level::Info),
            ("warn", Level::Warn),
            ("warning", Level::Warn),
            ("error", Level::Error),
            ("fatal", Level::Fatal),
            ("critical", Level::Fatal),
        ];
        NAMES
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or(Self::Info, |(_, level)| *level)
    }
}

pub fn event(epoch_millis: i64, kind: &str, record: &Value) -> Value {
    json!({"time": iso_8601_millis(epoch_millis), "type": kind, "record": record})
}

pub fn start(epoch_millis: i64, request: RequestId, version: &str, function_arn: &str) -> Value {
    let record = json!({"requestId": request.uuid(), "version": version, "functionArn": function_arn});
    event(epoch_millis, "platform.start", &record)
}

pub fn report(epoch_millis: i64, request: RequestId, duration_micros: u64, status: Status) -> Value {
    let record = json!({
        "requestId": request.uuid(),
        "status": status.name(),
        "metrics": {"durationMs": millis(duration_micros)},
    });
    event(epoch_millis, "platform.report", &record)
}

/// What the report of a Lambda (default) function measures.
#[derive(Debug, Clone, Copy)]
pub struct ClassicMetrics {
    pub duration_micros: u64,
    pub memory_size_mib: u32,
    pub max_memory_bytes: Option<u64>,
    pub init_micros: Option<u64>,
}

/// `platform.runtimeDone`, which Lambda Managed Instances do not have.
pub fn runtime_done(epoch_millis: i64, request: RequestId, duration_micros: u64, status: Status) -> Value {
    let record = json!({
        "requestId": request.uuid(),
        "status": status.name(),
        "metrics": {"durationMs": millis(duration_micros)},
    });
    event(epoch_millis, "platform.runtimeDone", &record)
}

/// `platform.report` of a Lambda (default) function.
pub fn classic_report(epoch_millis: i64, request: RequestId, status: Status, of: &ClassicMetrics) -> Value {
    let mut metrics = json!({
        "durationMs": millis(of.duration_micros),
        "billedDurationMs": of.duration_micros.div_ceil(1_000).max(1),
        "memorySizeMB": of.memory_size_mib,
    });
    if let Some(bytes) = of.max_memory_bytes {
        metrics["maxMemoryUsedMB"] = (bytes >> 20).into();
    }
    if let Some(micros) = of.init_micros {
        metrics["initDurationMs"] = millis(micros).into();
    }
    let record = json!({"requestId": request.uuid(), "status": status.name(), "metrics": metrics});
    event(epoch_millis, "platform.report", &record)
}

/// Milliseconds with their three decimals.
#[allow(clippy::cast_precision_loss)]
pub fn millis(micros: u64) -> f64 {
    micros as f64 / 1_000.0
}
