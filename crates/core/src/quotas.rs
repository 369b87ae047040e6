//! The account's quotas: AWS's defaults, each a setting of `ondol up --quota`.

/// Limits of one account and region. Source of the defaults: AWS's page on Lambda quotas, and its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Invocations of Lambda (default) functions at the same time.
    pub concurrent_executions: u32,
    /// What reserved and provisioned concurrency must leave to all other functions.
    pub unreserved_concurrency_min: u32,
    /// Bytes of all packages together.
    pub code_storage_bytes: u64,
    pub capacity_providers: u32,
    pub function_versions_per_capacity_provider: u32,
    pub filters_per_event_source_mapping: u32,
    /// Of EventBridge Scheduler. AWS lets an account have more schedules; each is kept in memory here.
    pub schedules: u32,
    pub schedule_groups: u32,
    /// What a function may stream in one answer, and how fast after the first 6 MiB.
    pub streamed_response_bytes: u64,
    pub streamed_response_bytes_per_second: u64,
    /// Events that may wait, and bytes of their payloads. AWS names no such limit; a disk has one.
    pub queued_events: u32,
    pub queued_event_bytes: u64,
    /// Control-plane requests each second, all operations together but for those below.
    pub control_requests_per_second: u32,
    pub get_function_requests_per_second: u32,
    pub capacity_provider_writes_per_second: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            concurrent_executions: 1_000,
            unreserved_concurrency_min: 100,
            code_storage_bytes: 80_530_636_800,
            capacity_providers: 1_000,
            function_versions_per_capacity_provider: 100,
            filters_per_event_source_mapping: 5,
            schedules: 10_000,
            schedule_groups: 500,
            streamed_response_bytes: 200 << 20,
            streamed_response_bytes_per_second: 2 << 20,
            queued_events: 1_000_000,
            queued_event_bytes: 10 << 30,
            control_requests_per_second: 15,
            get_function_requests_per_second: 100,
            capacity_provider_writes_per_second: 1,
        }
    }
}

impl Quotas {
    /// Every quota's name on the command line.
    pub const NAMES: &[&str] = &[
        "concurrent-executions",
        "unreserved-concurrency-min",
        "code-storage-bytes",
        "capacity-providers",
        "function-versions-per-capacity-provider",
        "filters-per-event-source-mapping",
        "schedules",
        "schedule-groups",
        "streamed-response-bytes",
        "streamed-response-bytes-per-second",
        "queued-events",
        "queued-event-bytes",
        "control-requests-per-second",
        "get-function-requests-per-second",
        "capacity-provider-writes-per-second",
    ];

    /// Sets one from `name=number`; the error says what is wrong.
    pub fn set(&mut self, text: &str) -> Result<(), String> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not of the form NAME=NUMBER"))?;
        let number = |value: &str| {
            value.parse().map_err(|_| format!("{value:?} is no whole number from 0 to {}", u32::MAX))
        };
        let bytes = |value: &str| value.parse().map_err(|_| format!("{value:?} is no number of bytes"));
        match name {
            "concurrent-executions" => self.concurrent_executions = number(value)?,
            "unreserved-concurrency-min" => self.unreserved_concurrency_min = number(value)?,
            "code-storage-bytes" => self.code_storage_bytes = bytes(value)?,
            "streamed-response-bytes" => self.streamed_response_bytes = bytes(value)?,
            "streamed-response-bytes-per-second" => {
                self.streamed_response_bytes_per_second = bytes(value)?;
            }
            "queued-events" => self.queued_events = number(value)?,
            "queued-event-bytes" => self.queued_event_bytes = bytes(value)?,
            "capacity-providers" => self.capacity_providers = number(value)?,
            "function-versions-per-capacity-provider" => {
                self.function_versions_per_capacity_provider = number(value)?;
            }
            "schedules" => self.schedules = number(value)?,
            "schedule-groups" => self.schedule_groups = number(value)?,
            "filters-per-event-source-mapping" => self.filters_per_event_source_mapping = number(value)?,
            "control-requests-per-second" => self.control_requests_per_second = number(value)?,
            "get-function-requests-per-second" => self.get_function_requests_per_second = number(value)?,
            "capacity-provider-writes-per-second" => {
                self.capacity_provider_writes_per_second = number(value)?;
            }
            _ => return Err(format!("there is no quota {name:?}; known are {}", Self::NAMES.join(", "))),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_quota_can_be_set_and_nothing_else() {
        for name in Quotas::NAMES {
            let mut quotas = Quotas::default();
            quotas.set(&format!("{name}=7")).unwrap();
            assert_ne!(quotas, Quotas::default(), "{name}");
        }
        for bad in ["x=1", "concurrent-executions", "concurrent-executions=-1", "concurrent-executions=x"] {
            assert!(Quotas::default().set(bad).is_err(), "{bad}");
        }
    }
}
