//! The metrics that AWS keeps of Lambda Managed Instances: their names, units and dimensions, defined here once for every
//! way they are read. Source: AWS's pages on monitoring Lambda Managed Instances and on Lambda's metrics.
//!
//! What is a sum on AWS is a counter here, and everything else is how it is now.

pub mod exposition;

/// The namespace on AWS.
pub const NAMESPACE: &str = "AWS/Lambda";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Count,
    Percent,
    Bytes,
    Milliseconds,
}

/// Which dimensions a metric has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Of the instances of one type of a capacity provider.
    CapacityProvider,
    /// Of the execution environments of a function version.
    ExecutionEnvironment,
    /// Of a function, version by version.
    Function,
    /// Of everything here together.
    Account,
}

impl Level {
    pub fn dimensions(self) -> &'static [&'static str] {
        match self {
            Self::CapacityProvider => &["CapacityProviderName", "InstanceType"],
            Self::ExecutionEnvironment => &["CapacityProviderName", "FunctionName", "Resource"],
            Self::Function => &["FunctionName", "Resource"],
            Self::Account => &[],
        }
    }
}

/// How values of a metric come together over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

/// A metric of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As CloudWatch has it.
    pub name: &'static str,
    pub unit: Unit,
    pub level: Level,
    pub kind: Kind,
    pub help: &'static str,
}

const fn gauge(name: &'static str, unit: Unit, level: Level, help: &'static str) -> Metric {
    Metric { name, unit, level, kind: Kind::Gauge, help }
}

const fn counter(name: &'static str, unit: Unit, level: Level, help: &'static str) -> Metric {
    Metric { name, unit, level, kind: Kind::Counter, help }
}

use Level::{Account, CapacityProvider, ExecutionEnvironment, Function};
use Unit::{Bytes, Count, Milliseconds, Percent};

pub const CPU_UTILIZATION: Metric =
    gauge("CPUUtilization", Percent, CapacityProvider, "CPU that is used of the instances' vCPUs.");
pub const MEMORY_UTILIZATION: Metric =
    gauge("MemoryUtilization", Percent, CapacityProvider, "Memory that is used of the instances'.");
pub const VCPU_AVAILABLE: Metric = gauge(
    "vCPUAvailable",
    Count,
    CapacityProvider,
    "vCPUs of the instances that are free for execution environments.",
);
pub const MEMORY_AVAILABLE: Metric = gauge(
    "MemoryAvailable",
    Bytes,
    CapacityProvider,
    "Memory of the instances that is free for execution environments.",
);
pub const VCPU_ALLOCATED: Metric =
    gauge("vCPUAllocated", Count, CapacityProvider, "vCPUs that execution environments were given.");
pub const MEMORY_ALLOCATED: Metric =
    gauge("MemoryAllocated", Bytes, CapacityProvider, "Memory that execution environments were given.");

pub const ENVIRONMENT_CONCURRENCY: Metric = gauge(
    "ExecutionEnvironmentConcurrency",
    Count,
    ExecutionEnvironment,
    "Requests in one execution environment at the same time, at most.",
);
pub const ENVIRONMENT_CONCURRENCY_LIMIT: Metric = gauge(
    "ExecutionEnvironmentConcurrencyLimit",
    Count,
    ExecutionEnvironment,
    "Requests one execution environment takes at the same time.",
);
pub const ENVIRONMENT_CPU_UTILIZATION: Metric = gauge(
    "ExecutionEnvironmentCPUUtilization",
    Percent,
    ExecutionEnvironment,
    "CPU that is used of the vCPUs of the execution environments.",
);
pub const ENVIRONMENT_MEMORY_UTILIZATION: Metric = gauge(
    "ExecutionEnvironmentMemoryUtilization",
    Percent,
    ExecutionEnvironment,
    "Memory that is used of that of the execution environments.",
);
pub const ENVIRONMENT_COUNT: Metric = gauge(
    "ExecutionEnvironmentCount",
    Count,
    ExecutionEnvironment,
    "Execution environments that take invocations.",
);

pub const INVOCATIONS: Metric =
    counter("Invocations", Count, Function, "Invocations that the function answered, well or not.");
pub const ERRORS: Metric = counter("Errors", Count, Function, "Invocations that ended in a function error.");
pub const THROTTLES: Metric = counter(
    "Throttles",
    Count,
    Function,
    "Invocations that found no execution environment with a free slot.",
);
pub const CONCURRENCY_THROTTLES: Metric =
    counter("ConcurrencyThrottles", Count, Function, "Throttles as all slots were held.");
pub const CPU_THROTTLES: Metric =
    counter("CPUThrottles", Count, Function, "Throttles as execution environments had no CPU left.");
pub const MEMORY_THROTTLES: Metric =
    counter("MemoryThrottles", Count, Function, "Throttles as execution environments had no memory left.");
pub const DISK_THROTTLES: Metric = counter(
    "DiskThrottles",
    Count,
    Function,
    "Throttles as execution environments had no room left in /tmp.",
);
pub const DURATION: Metric =
    counter("Duration", Milliseconds, Function, "How long invocations took, all together.");
pub const CONCURRENT_EXECUTIONS: Metric =
    gauge("ConcurrentExecutions", Count, Function, "Invocations that run.");
pub const ASYNC_EVENTS_RECEIVED: Metric =
    counter("AsyncEventsReceived", Count, Function, "Events that were queued for the function.");
pub const ASYNC_EVENT_AGE: Metric =
    gauge("AsyncEventAge", Milliseconds, Function, "How long events waited before they were invoked.");
pub const ASYNC_EVENTS_DROPPED: Metric = counter(
    "AsyncEventsDropped",
    Count,
    Function,
    "Events that ended without the function having taken them.",
);
pub const DEAD_LETTER_ERRORS: Metric =
    counter("DeadLetterErrors", Count, Function, "Events that the dead-letter queue did not take.");
pub const DESTINATION_DELIVERY_FAILURES: Metric =
    counter("DestinationDeliveryFailures", Count, Function, "Records that their destination did not take.");
pub const ITERATOR_AGE: Metric = gauge(
    "IteratorAge",
    Milliseconds,
    Function,
    "How old the last record of a stream was when it was invoked with.",
);
pub const PROVISIONED_CONCURRENT_EXECUTIONS: Metric = gauge(
    "ProvisionedConcurrentExecutions",
    Count,
    Function,
    "Invocations that run on provisioned concurrency.",
);
pub const PROVISIONED_CONCURRENCY_INVOCATIONS: Metric = counter(
    "ProvisionedConcurrencyInvocations",
    Count,
    Function,
    "Invocations that ran on provisioned concurrency.",
);
pub const PROVISIONED_CONCURRENCY_SPILLOVER_INVOCATIONS: Metric = counter(
    "ProvisionedConcurrencySpilloverInvocations",
    Count,
    Function,
    "Invocations that found provisioned concurrency used up.",
);
pub const PROVISIONED_CONCURRENCY_UTILIZATION: Metric = gauge(
    "ProvisionedConcurrencyUtilization",
    Count,
    Function,
    "The part of provisioned concurrency that is used, up to 1.",
);

pub const UNRESERVED_CONCURRENT_EXECUTIONS: Metric = gauge(
    "UnreservedConcurrentExecutions",
    Count,
    Account,
    "Invocations that run of functions without reserved concurrency.",
);
pub const CLAIMED_ACCOUNT_CONCURRENCY: Metric = gauge(
    "ClaimedAccountConcurrency",
    Count,
    Account,
    "What of the account's concurrency is reserved, provisioned or used.",
);

/// All of them. Not all have values here yet.
pub const ALL: &[Metric] = &[
    CPU_UTILIZATION,
    MEMORY_UTILIZATION,
    VCPU_AVAILABLE,
    MEMORY_AVAILABLE,
    VCPU_ALLOCATED,
    MEMORY_ALLOCATED,
    ENVIRONMENT_CONCURRENCY,
    ENVIRONMENT_CONCURRENCY_LIMIT,
    ENVIRONMENT_CPU_UTILIZATION,
    ENVIRONMENT_MEMORY_UTILIZATION,
    ENVIRONMENT_COUNT,
    INVOCATIONS,
    ERRORS,
    THROTTLES,
    CONCURRENCY_THROTTLES,
    CPU_THROTTLES,
    MEMORY_THROTTLES,
    DISK_THROTTLES,
    DURATION,
    CONCURRENT_EXECUTIONS,
    ASYNC_EVENTS_RECEIVED,
    ASYNC_EVENT_AGE,
    ASYNC_EVENTS_DROPPED,
    DEAD_LETTER_ERRORS,
    DESTINATION_DELIVERY_FAILURES,
    ITERATOR_AGE,
    PROVISIONED_CONCURRENT_EXECUTIONS,
    PROVISIONED_CONCURRENCY_INVOCATIONS,
    PROVISIONED_CONCURRENCY_SPILLOVER_INVOCATIONS,
    PROVISIONED_CONCURRENCY_UTILIZATION,
    UNRESERVED_CONCURRENT_EXECUTIONS,
    CLAIMED_ACCOUNT_CONCURRENCY,
];
