//! What would change how many execution environments a version has, and how many invocations they take: which setting,
//! and with which operation.

use ondol_core::capacity_provider::{CapacityProvider, ScalingMode};
use ondol_core::function::FunctionVersion;
use ondol_core::gate::ThrottleCause;
use ondol_core::scale::Policy;

/// As many at all times, whatever the load.
pub fn min(version: &FunctionVersion) -> String {
    format!(
        "Keep more running at all times: a higher MinExecutionEnvironments (now {}) with PutFunctionScalingConfig.",
        version.scaling.minimum()
    )
}

pub fn max(max: u32) -> String {
    format!("Allow more: a higher MaxExecutionEnvironments (now {max}) with PutFunctionScalingConfig.")
}

pub fn machine_cpu() -> String {
    "More of them would share the same CPUs: run Ondol on a machine with more CPUs, or less beside it.".into()
}

/// When it scales out by CPU.
pub fn cpu_target(provider: &CapacityProvider) -> String {
    let target = f64::from(Policy::cpu_target(&provider.scaling)) / 100.0;
    let mode = match provider.scaling.mode {
        ScalingMode::Auto => "ScalingMode Auto",
        ScalingMode::Manual { .. } => "ScalingMode Manual",
    };
    format!(
        "Scale out by CPU sooner: a lower TargetValue (now {target} %, {mode}) in the ScalingPolicies of capacity provider {} with UpdateCapacityProvider.",
        provider.name
    )
}

pub fn max_vcpu_count(provider: &CapacityProvider) -> String {
    format!(
        "Allow more instances: a higher MaxVCpuCount (now {}) of capacity provider {} with UpdateCapacityProvider.",
        provider.scaling.max_vcpu_count, provider.name
    )
}

/// What helps against throttles of one cause.
pub fn of_cause(
    cause: ThrottleCause,
    version: &FunctionVersion,
    provider: Option<&CapacityProvider>,
) -> Vec<String> {
    let configuration = &version.publication.configuration;
    let (slots, memory) = (configuration.concurrency(), configuration.memory_size_mib);
    let (disk, vcpus) = (configuration.ephemeral_storage_mib, configuration.vcpus());
    let publish = "with UpdateFunctionConfiguration, then PublishVersion";
    match cause {
        ThrottleCause::Concurrency => vec![
            min(version),
            format!(
                "Take more requests in each execution environment, if its code waits more than it computes: a higher PerExecutionEnvironmentMaxConcurrency (now {slots}) {publish}."
            ),
        ],
        ThrottleCause::Cpu => [
            Some(format!(
                "Give each execution environment more vCPUs (now {vcpus}): a higher MemorySize (now {memory} MB) or a lower ExecutionEnvironmentMemoryGiBPerVCpu {publish}."
            )),
            provider.map(cpu_target),
            Some(format!(
                "Take fewer requests in each: a lower PerExecutionEnvironmentMaxConcurrency (now {slots}) {publish}."
            )),
        ]
        .into_iter()
        .flatten()
        .collect(),
        ThrottleCause::Memory => vec![
            format!("Give each execution environment more memory: a higher MemorySize (now {memory} MB) {publish}."),
            format!(
                "Take fewer requests in each: a lower PerExecutionEnvironmentMaxConcurrency (now {slots}) {publish}."
            ),
        ],
        ThrottleCause::Disk => vec![
            format!("Delete what requests leave in /tmp, or make it larger: EphemeralStorage (now {disk} MB) {publish}."),
        ],
    }
}
