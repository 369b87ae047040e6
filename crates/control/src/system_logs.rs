//! What a capacity provider's log says, in AWS's form: one JSON object a line.

use std::sync::Arc;

use ondol_core::capacity::Instance;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::identity::Home;
use ondol_observe::clock;
use ondol_observe::logs::{Entry, LogSender, LogStream, Record};
use ondol_observe::platform::Level;
use ondol_wire::time::iso_8601_millis;
use serde_json::json;

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Launching,
    Launched,
    /// And why.
    LaunchFailed(String),
    Terminating,
    Terminated,
    TerminateFailed,
}

pub fn write(logs: &LogSender, home: &Home, provider: &CapacityProvider, instance: &Instance, deed: &Deed) {
    let level = match deed {
        Deed::LaunchFailed(_) | Deed::TerminateFailed => Level::Warn,
        _ => Level::Info,
    };
    if level < Level::parse(&provider.logging.system_log_level) {
        return;
    }
    let (kind, id, zone) = (&instance.instance_type, &instance.id, &instance.availability_zone);
    let message = match deed {
        Deed::Launching => format!("Launching {kind} instance in {zone}"),
        Deed::Launched => format!("Successfully launched {kind} instance {id} in {zone}"),
        Deed::LaunchFailed(why) => {
            format!("Failed to launch {kind} instance in {zone}: {why} - the system will retry")
        }
        Deed::Terminating => format!("Terminating {kind} instance {id} in {zone}"),
        Deed::Terminated => format!("Successfully terminated {kind} instance {id} in {zone}"),
        Deed::TerminateFailed => {
            format!(
                "Failed to terminate {kind} instance {id} in {zone}: Internal error - the system will retry"
            )
        }
    };
    let now = clock::epoch_millis();
    let mut line = json!({
        "timestamp": iso_8601_millis(now),
        "level": if level == Level::Warn { "WARN" } else { "INFO" },
        "message": message,
        "metadata": {
            "availabilityZones": [zone],
            "instanceTypes": [kind],
            "capacityProviderArn": home.capacity_provider_arn(&provider.name),
        },
    });
    if !matches!(deed, Deed::Launching | Deed::LaunchFailed(_)) {
        line["metadata"]["instanceId"] = id.to_string().into();
    }
    let stream = LogStream {
        group: provider.logging.log_group.clone(),
        name: format!("{}/{}", iso_8601_millis(now)[..10].replace('-', "/"), provider.name),
        function: String::new(),
        version: String::new(),
        function_arn: String::new(),
    };
    let entry = Entry::Text(line.to_string().into());
    let epoch_micros = u64::try_from(now).unwrap_or_default() * 1_000;
    // A line that finds no room is one of a server that has worse troubles, and says so.
    logs.send(Record { stream: Arc::new(stream), epoch_micros, request: None, entry });
}
