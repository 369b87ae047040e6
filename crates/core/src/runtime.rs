//! The runtimes AWS knows, and what Lambda Managed Instances says of each.

/// How many requests one execution environment takes for each of its vCPUs unless the function says
/// otherwise, by language. Source: AWS's per-runtime pages.
pub fn default_concurrency_per_vcpu(runtime: &str) -> u32 {
    match runtime {
        r if r.starts_with("nodejs") => 64,
        r if r.starts_with("java") || r.starts_with("dotnet") => 32,
        r if r.starts_with("python") => 16,
        _ => 8,
    }
}

/// Runtimes that run on Lambda Managed Instances. Source: the service's documentation and LocalStack's list.
pub const MANAGED_INSTANCES: &[&str] = &[
    "nodejs22.x",
    "nodejs24.x",
    "nodejs26.x",
    "python3.13",
    "python3.14",
    "python3.15",
    "java21",
    "java25",
    "dotnet8",
    "dotnet10",
    "provided.al2023",
];

/// Runtimes of the service's "can still be created" list, in the order its error names them.
pub const CREATABLE: &[&str] = &[
    "nodejs20.x",
    "python3.14",
    "provided.al2023",
    "python3.12",
    "python3.13",
    "nodejs24.x",
    "nodejs22.x",
    "java25",
    "python3.10",
    "python3.11",
    "java21",
    "ruby3.3",
    "ruby3.4",
    "ruby3.2",
    "python3.8",
    "python3.9",
    "java17",
    "nodejs16.x",
    "dotnet10",
    "dotnet8",
    "java11",
    "dotnet6",
    "nodejs18.x",
    "provided.al2",
    "java8.al2",
];

/// Runtimes the model knows beside those of the error's list.
pub const NEWER: &[&str] =
    &["nodejs26.x", "python3.15", "ruby4.0", "java8.al2023", "java11.al2023", "java17.al2023"];

/// Runtimes that may have SnapStart on AWS. Source: AWS's page on SnapStart.
pub const SNAP_START: &[&str] = &[
    "java11",
    "java17",
    "java21",
    "java25",
    "python3.12",
    "python3.13",
    "python3.14",
    "dotnet8",
    "dotnet10",
];

/// Runtimes a listing of layers may be asked for, in the order the service's error names them.
pub const LISTABLE: &[&str] = &[
    "ruby3.5",
    "ruby2.6",
    "dotnetcore1.0",
    "python3.7",
    "nodejs8.10",
    "nasa",
    "ruby2.7",
    "python2.7-greengrass",
    "dotnetcore2.0",
    "python3.8",
    "java21",
    "dotnet6",
    "dotnetcore2.1",
    "python3.9",
    "java11",
    "nodejs6.10",
    "provided",
    "dotnetcore3.1",
    "dotnet8",
    "java25",
    "java17",
    "nodejs",
    "nodejs4.3",
    "java8.al2",
    "go1.x",
    "dotnet10",
    "nodejs20.x",
    "go1.9",
    "byol",
    "nodejs10.x",
    "provided.al2023",
    "nodejs22.x",
    "python3.10",
    "java8",
    "nodejs12.x",
    "python3.11",
    "nodejs24.x",
    "nodejs8.x",
    "python3.12",
    "nodejs14.x",
    "nodejs8.9",
    "nodejs26.x",
    "python3.13",
    "python3.14",
    "nodejs16.x",
    "python3.15",
    "provided.al2",
    "nodejs4.3-edge",
    "nodejs18.x",
    "ruby3.2",
    "python3.4",
    "ruby3.3",
    "ruby3.4",
    "ruby2.5",
    "python3.6",
    "python2.7",
];

/// Runtimes that were, and whose names the service still recognises in its refusal.
pub const RETIRED: &[&str] = &[
    "nodejs",
    "nodejs4.3",
    "nodejs4.3-edge",
    "nodejs6.10",
    "nodejs8.10",
    "nodejs10.x",
    "nodejs12.x",
    "nodejs14.x",
    "java8",
    "python2.7",
    "python3.6",
    "python3.7",
    "dotnetcore1.0",
    "dotnetcore2.0",
    "dotnetcore2.1",
    "dotnetcore3.1",
    "dotnet5.0",
    "ruby2.5",
    "ruby2.7",
    "go1.x",
    "provided",
];
