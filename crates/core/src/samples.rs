//! Nouns for tests, here and in other rooms (feature `samples`).

use crate::function::{
    Architecture, Code, FunctionConfiguration, FunctionLogging, LogFormat, ManagedInstancesConfig,
    Publication,
};
use crate::identity::PublicationId;

/// A valid configuration: 2 GiB, 1 vCPU, 16 requests at once, on the capacity provider `cp`.
pub fn configuration(runtime: &str) -> FunctionConfiguration {
    FunctionConfiguration {
        runtime: runtime.into(),
        role: String::new(),
        handler: "app.handler".into(),
        description: String::new(),
        timeout_seconds: 3,
        memory_size_mib: 2048,
        ephemeral_storage_mib: 512,
        architecture: Architecture::X86_64,
        environment: None,
        logging: FunctionLogging {
            format: LogFormat::Json {
                application_level: Some("INFO".into()),
                system_level: Some("INFO".into()),
            },
            log_group: "/aws/lambda/f".into(),
        },
        managed_instances: Some(ManagedInstancesConfig {
            capacity_provider: "cp".into(),
            per_execution_environment_max_concurrency: 16,
            concurrency_is_chosen: true,
            memory_gib_per_vcpu_hundredths: 200,
        }),
        dead_letter_target_arn: None,
        has_empty_vpc_config: false,
        layers: Vec::new(),
    }
}

pub fn publication(id: u128) -> Publication {
    let code = Code { sha256: "00".into(), size_bytes: 1 };
    Publication { id: PublicationId(id), configuration: configuration("python3.13"), code }
}
