//! The rules a Lambda Managed Instances function must keep, with the service's own sentences.

use crate::function::{FunctionConfiguration, ManagedInstancesConfig};
use crate::runtime::MANAGED_INSTANCES;

pub const MEMORY_MIB_MIN: u32 = 2048;
pub const CONCURRENCY_PER_VCPU_MAX: u32 = 64;

/// A broken rule: AWS's error code and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub code: &'static str,
    pub message: String,
}

fn violation(code: &'static str, message: String) -> Result<(), Violation> {
    Err(Violation { code, message })
}

/// Checks the rules that need nothing but the configuration itself.
pub fn check(
    configuration: &FunctionConfiguration,
    managed_instances: &ManagedInstancesConfig,
) -> Result<(), Violation> {
    let FunctionConfiguration { runtime, memory_size_mib, .. } = configuration;
    if !MANAGED_INSTANCES.contains(&runtime.as_str()) {
        let text =
            format!("Runtime Enum {runtime} does not support specified feature: Lambda Managed Instances");
        return violation("InvalidParameterValueException", text);
    }
    if *memory_size_mib < MEMORY_MIB_MIN {
        let text = "Lambda Managed Instance functions must have memory size greater than or equal to 2048";
        return violation("ValidationException", text.into());
    }
    let ratio = managed_instances.memory_gib_per_vcpu_hundredths;
    if (u64::from(*memory_size_mib) * 100) % (1024 * u64::from(ratio)) != 0 || configuration.vcpus() == 0 {
        let text = format!(
            "MemorySize {memory_size_mib} MB doesn't give a whole number of vCPUs at ExecutionEnvironmentMemoryGiBPerVCpu {}. Choose a memory size that is a multiple of {} MB, or another ratio.",
            ratio_text(ratio),
            1024 * ratio / 100,
        );
        return violation("InvalidParameterValueException", text);
    }
    let limit = CONCURRENCY_PER_VCPU_MAX * configuration.vcpus();
    if managed_instances.per_execution_environment_max_concurrency > limit {
        let text = format!(
            "The specified PerExecutionEnvironmentMaxConcurrency exceeds the limit of 64 per VCpu. For your configuration, the limit is {limit}"
        );
        return violation("InvalidParameterValueException", text);
    }
    Ok(())
}

fn ratio_text(hundredths: u32) -> String {
    format!("{:?}", f64::from(hundredths) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::ManagedInstancesConfig;

    fn configuration(runtime: &str, memory: u32, concurrency: u32, ratio: u32) -> FunctionConfiguration {
        let managed_instances = ManagedInstancesConfig {
            capacity_provider: "cp".into(),
            per_execution_environment_max_concurrency: concurrency,
            concurrency_is_chosen: true,
            memory_gib_per_vcpu_hundredths: ratio,
        };
        FunctionConfiguration {
            memory_size_mib: memory,
            managed_instances: Some(managed_instances),
            ..crate::samples::configuration(runtime)
        }
    }

    fn check_whole(configuration: &FunctionConfiguration) -> Result<(), Violation> {
        check(configuration, configuration.managed_instances.as_ref().unwrap())
    }

    #[test]
    fn exact_sentences() {
        let text = |configuration| check_whole(&configuration).unwrap_err().message;
        assert_eq!(
            text(configuration("nodejs24.x", 2048, 65, 200)),
            "The specified PerExecutionEnvironmentMaxConcurrency exceeds the limit of 64 per VCpu. For your configuration, the limit is 64"
        );
        assert_eq!(
            text(configuration("python3.13", 512, 1, 200)),
            "Lambda Managed Instance functions must have memory size greater than or equal to 2048"
        );
        assert_eq!(
            text(configuration("python3.12", 2048, 1, 200)),
            "Runtime Enum python3.12 does not support specified feature: Lambda Managed Instances"
        );
        assert!(text(configuration("python3.13", 3072, 1, 200)).contains("multiple of 2048 MB"));
    }

    #[test]
    fn vcpus_follow_memory_and_ratio() {
        assert_eq!(check_whole(&configuration("nodejs24.x", 4096, 128, 200)), Ok(()));
        assert_eq!(configuration("nodejs24.x", 8192, 1, 400).vcpus(), 2);
        assert!(check_whole(&configuration("nodejs24.x", 2048, 1, 400)).is_err());
    }
}
