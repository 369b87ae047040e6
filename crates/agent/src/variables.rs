//! The environment variables of an execution environment, as AWS sets them.

use std::collections::BTreeMap;

use ondol_core::function::{FunctionConfiguration, LogFormat};
use ondol_protocol::assignment::EnvironmentAssignment;
use ondol_protocol::containment::{LOG_SOCKET_FOLDER, LOG_SOCKET_NAME};

use crate::configuration::Credentials;

/// Names a function may set although the service sets them too.
const OVERRIDABLE: &[&str] = &[
    "AWS_LAMBDA_LOG_FORMAT",
    "AWS_LAMBDA_LOG_LEVEL",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LANG",
    "LD_LIBRARY_PATH",
    "PATH",
    "TZ",
];

/// Where SDKs find the services this server has; the function may name other places.
const SERVED: &[&str] = &[
    "AWS_ENDPOINT_URL_LAMBDA",
    "AWS_ENDPOINT_URL_IAM",
    "AWS_ENDPOINT_URL_SCHEDULER",
    "AWS_ENDPOINT_URL_STS",
];

/// Where things are, as seen by the runtime: other paths in the process tier than in a container.
#[derive(Debug, Clone)]
pub struct Places {
    pub task: String,
    pub runtime: String,
    pub log_socket: String,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            task: "/var/task".into(),
            runtime: "/var/runtime".into(),
            log_socket: format!("{LOG_SOCKET_FOLDER}/{LOG_SOCKET_NAME}"),
        }
    }
}

/// What an environment is told about itself.
#[derive(Debug)]
pub struct Context<'a> {
    pub assignment: &'a EnvironmentAssignment,
    pub region: &'a str,
    pub endpoint: &'a str,
    pub credentials: &'a Credentials,
    pub log_stream: &'a str,
    pub places: &'a Places,
}

/// How an environment came to be, as runtimes are told.
pub fn initialization_type(configuration: &FunctionConfiguration) -> &'static str {
    if configuration.is_on_demand() { "on-demand" } else { "lambda-managed-instances" }
}

pub fn variables(context: &Context<'_>) -> Vec<(String, String)> {
    let Context { assignment, region, endpoint, credentials, log_stream, places } = context;
    let configuration = &assignment.publication.configuration;
    let mut set: BTreeMap<String, String> = BTreeMap::new();
    let mut own: Vec<(&str, String)> = vec![
        ("AWS_ACCESS_KEY_ID", credentials.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key.clone()),
        ("AWS_SESSION_TOKEN", credentials.session_token.clone()),
        ("AWS_REGION", (*region).to_owned()),
        ("AWS_DEFAULT_REGION", (*region).to_owned()),
        ("AWS_LAMBDA_FUNCTION_NAME", assignment.version.function.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", assignment.version.version.clone()),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", configuration.memory_size_mib.to_string()),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", initialization_type(configuration).into()),
        ("AWS_LAMBDA_LOG_GROUP_NAME", configuration.logging.log_group.clone()),
        ("AWS_LAMBDA_LOG_STREAM_NAME", (*log_stream).to_owned()),
        ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR".into()),
        ("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", configuration.runtime)),
        ("LAMBDA_RUNTIME_DIR", places.runtime.clone()),
        ("LAMBDA_TASK_ROOT", places.task.clone()),
        ("_HANDLER", configuration.handler.clone()),
        ("LANG", "en_US.UTF-8".into()),
        (
            "LD_LIBRARY_PATH",
            "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
                .into(),
        ),
        ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin".into()),
        ("TZ", ":UTC".into()),
        ("HOME", "/tmp".into()),
    ];
    own.extend(SERVED.iter().map(|name| (*name, (*endpoint).to_owned())));
    match &configuration.logging.format {
        LogFormat::Text => own.push(("AWS_LAMBDA_LOG_FORMAT", "Text".into())),
        LogFormat::Json { application_level, .. } => {
            own.push(("AWS_LAMBDA_LOG_FORMAT", "JSON".into()));
            own.push(("AWS_LAMBDA_LOG_LEVEL", application_level.clone().unwrap_or_else(|| "INFO".into())));
        }
    }
    // A runtime takes several requests at once when it is told how many, whatever the number.
    if !configuration.is_on_demand() {
        own.push(("AWS_LAMBDA_MAX_CONCURRENCY", configuration.concurrency().to_string()));
        own.push(("_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET", places.log_socket.clone()));
    }
    let reserved: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    set.extend(own.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    for (name, value) in configuration.environment() {
        let free = !reserved.contains(&name.as_str())
            || OVERRIDABLE.contains(&name.as_str())
            || SERVED.contains(&name.as_str())
            || name == "HOME";
        if free && !name.starts_with('_') {
            set.insert(name.clone(), value.clone());
        }
    }
    let sets = |wanted: &str| configuration.environment().any(|(name, _)| name == wanted);
    if sets("AWS_ENDPOINT_URL") {
        // The function's own word for all services counts for these too.
        SERVED.iter().filter(|name| !sets(name)).for_each(|name| drop(set.remove(*name)));
    }
    if configuration.runtime.starts_with("nodejs") && !configuration.is_on_demand() {
        nodejs(assignment, &mut set);
    }
    set.into_iter().collect()
}

/// What an extension is told: all but what concerns the runtime alone.
pub fn for_extensions(variables: &[(String, String)]) -> Vec<(String, String)> {
    const RUNTIME_ONLY: &[&str] = &[
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY",
        "AWS_XRAY_CONTEXT_MISSING",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_HANDLER",
        "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET",
    ];
    variables.iter().filter(|(name, _)| !RUNTIME_ONLY.contains(&name.as_str())).cloned().collect()
}

/// Node.js parks one poll for each worker, and each parked poll holds a thread of libuv's pool. With no more
/// threads than workers the handlers' own file and DNS work never runs. So the pool is larger by what the
/// function asks for, or by as many threads again; and there are no more workers than requests.
fn nodejs(assignment: &EnvironmentAssignment, set: &mut BTreeMap<String, String>) {
    let configuration = &assignment.publication.configuration;
    let (concurrency, vcpus) = (configuration.concurrency(), configuration.vcpus());
    let workers = set
        .get("AWS_LAMBDA_NODEJS_WORKER_COUNT")
        .and_then(|text| text.parse().ok())
        .filter(|workers| *workers > 0)
        .unwrap_or_else(|| (8 * vcpus).min(concurrency).max(1));
    let own_threads: u32 = set
        .get("UV_THREADPOOL_SIZE")
        .and_then(|text| text.parse().ok())
        .filter(|threads| *threads > 0)
        .unwrap_or_else(|| workers.max(4));
    set.insert("AWS_LAMBDA_NODEJS_WORKER_COUNT".into(), workers.to_string());
    set.insert("UV_THREADPOOL_SIZE".into(), (workers + own_threads).min(1_024).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(runtime: &str, own: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut assignment = EnvironmentAssignment::sample(runtime);
        let publication = std::sync::Arc::make_mut(&mut assignment.publication);
        publication.configuration.environment =
            Some(own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        let credentials = Credentials {
            access_key_id: "ASIA".into(),
            secret_access_key: "s".into(),
            session_token: "t".into(),
        };
        let context = Context {
            assignment: &assignment,
            region: "us-east-1",
            endpoint: "http://127.0.0.1:1",
            credentials: &credentials,
            log_stream: "s",
            places: &Places::default(),
        };
        variables(&context).into_iter().collect()
    }

    #[test]
    fn the_service_s_names_are_its_own_but_for_a_few() {
        let set = of("python3.13", &[("TZ", "Asia/Seoul"), ("AWS_REGION", "x"), ("_X", "y"), ("MINE", "z")]);
        assert_eq!((set["TZ"].as_str(), set["AWS_REGION"].as_str()), ("Asia/Seoul", "us-east-1"));
        assert_eq!((set.get("_X"), set["MINE"].as_str()), (None, "z"));
        assert_eq!(set["AWS_LAMBDA_MAX_CONCURRENCY"], "16");
        assert_eq!(set["AWS_LAMBDA_INITIALIZATION_TYPE"], "lambda-managed-instances");
    }

    #[test]
    fn the_endpoint_is_left_alone_where_the_function_has_its_own() {
        for served in SERVED {
            assert_eq!(of("python3.13", &[])[*served], "http://127.0.0.1:1");
            assert_eq!(of("python3.13", &[("AWS_ENDPOINT_URL", "http://x")]).get(*served), None);
            assert_eq!(of("python3.13", &[(*served, "http://x")])[*served], "http://x");
        }
    }

    #[test]
    fn nodejs_always_has_more_threads_than_parked_polls() {
        let of = |own| {
            let set = of("nodejs24.x", own);
            let number = |name: &str| set[name].parse::<u32>().unwrap();
            (number("AWS_LAMBDA_NODEJS_WORKER_COUNT"), number("UV_THREADPOOL_SIZE"))
        };
        assert_eq!(of(&[]), (8, 16));
        assert_eq!(of(&[("AWS_LAMBDA_NODEJS_WORKER_COUNT", "2")]), (2, 6));
        assert_eq!(of(&[("UV_THREADPOOL_SIZE", "1")]), (8, 9));
    }
}
