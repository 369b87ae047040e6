//! The Lambda API.

mod account;
mod aliases;
mod capacity_providers;
mod code_signing;
mod concurrency;
mod configuration;
mod event_invoke_configs;
mod event_source_mappings;
mod event_sources;
mod function_urls;
mod functions;
mod holder;
mod layer_policies;
mod layers;
mod names;
mod packages;
pub mod pass;
mod policies;
pub mod rules;
mod runtime_settings;
pub mod scaling_configs;
mod tags;
mod versions;
mod view;

use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use ondol_wire::model::Operation;
use ondol_wire::rest_json::{Answer, match_operation, read_members, typed, write_output};
use ondol_wire::sigv4::Headers;
use ondol_wire::validate::{refuse, violations};
use serde_json::{Map, Value};

use crate::context::Context;
use crate::faults::unsupported;
use rules::On;

/// A request whose signature was checked.
#[derive(Debug)]
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a (dyn Headers + Sync),
    pub body: &'a [u8],
}

/// How far an operation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Works,
    /// What it is told is kept and shown, and nothing in this version acts on it: why.
    Stores(&'static str),
}

/// One operation as it is registered.
#[derive(Debug, Clone, Copy)]
pub struct Registered {
    pub name: &'static str,
    pub support: Support,
    /// The resource its permission is asked for.
    pub on: On,
}

/// One list says which operations work, which function each is, and whose permission it needs.
macro_rules! operations {
    ($($name:literal => $function:path, on $on:expr $(, stores $why:literal)?;)*) => {
        /// The operations there are; invocations have a way of their own.
        pub const REGISTERED: &[Registered] = &[
            Registered { name: "Invoke", support: Support::Works, on: On::Function },
            Registered { name: "InvokeWithResponseStream", support: Support::Works, on: On::Function },
            Registered { name: "InvokeAsync", support: Support::Works, on: On::Function },
            $(Registered { name: $name, support: operations!(@support $($why)?), on: $on },)*
        ];

        pub async fn call(context: &Context, call: &Call<'_>) -> Result<Answer, Fault> {
            let Some(matched) = match_operation(&SERVICE, call.method, call.path, call.query) else {
                let text = format!("{} {} is no operation of Lambda.", call.method, call.path);
                return Err(Fault::new("UnknownOperationException", 404, text));
            };
            let operation = matched.0;
            if REGISTERED.iter().all(|registered| registered.name != operation.name) {
                return Err(not_here(operation));
            }
            let input =
                read_members(&SERVICE, &matched, call.query, |name| call.headers.get(name), call.body)?;
            perform(context, operation, input).await
        }

        /// Carries an operation out, however its input came.
        pub async fn perform(
            context: &Context,
            operation: &'static Operation,
            input: Map<String, Value>,
        ) -> Result<Answer, Fault> {
            match operation.name {
                $($name => {
                    check(operation, &input)?;
                    rules::authorize(context, operation.name, $on, &input)?;
                    context.admit(operation.name)?;
                    let context = context.with_sent(&input);
                    let output = $function(&context, typed(input)?).await?;
                    write_output(&SERVICE, operation, &output)
                })*
                _ => Err(not_here(operation)),
            }
        }
    };
    (@support) => { Support::Works };
    (@support $why:literal) => { Support::Stores($why) };
}

fn not_here(operation: &Operation) -> Fault {
    let name = operation.name;
    unsupported(format!("{name} isn't supported by this version of Ondol. COMPATIBILITY.md lists what is."))
}

/// The model's constraints, and those the service keeps beside it.
fn check(operation: &Operation, input: &Map<String, Value>) -> Result<(), Fault> {
    let mut found = layers::unknown_runtimes(operation.name, input);
    if let Some(shape) = operation.input {
        found.extend(violations(&SERVICE, shape, input));
    }
    refuse(&found)
}

operations! {
    "CreateCapacityProvider" => capacity_providers::create, on On::CapacityProvider;
    "GetCapacityProvider" => capacity_providers::get, on On::CapacityProvider;
    "UpdateCapacityProvider" => capacity_providers::update, on On::CapacityProvider;
    "DeleteCapacityProvider" => capacity_providers::delete, on On::CapacityProvider;
    "ListCapacityProviders" => capacity_providers::list, on On::Everything;
    "ListFunctionVersionsByCapacityProvider" => capacity_providers::list_function_versions, on On::CapacityProvider;
    "PutFunctionScalingConfig" => scaling_configs::put, on On::Function;
    "GetFunctionScalingConfig" => scaling_configs::get, on On::Function;
    "CreateFunction" => functions::create, on On::Function;
    "GetFunction" => functions::get, on On::Function;
    "GetFunctionConfiguration" => functions::get_configuration, on On::Function;
    "UpdateFunctionCode" => functions::update_code, on On::Function;
    "UpdateFunctionConfiguration" => functions::update_configuration, on On::Function;
    "DeleteFunction" => functions::delete, on On::Function;
    "ListFunctions" => functions::list, on On::Everything;
    "PublishVersion" => versions::publish, on On::Function;
    "ListVersionsByFunction" => versions::list, on On::Function;
    "CreateAlias" => aliases::create, on On::Function;
    "GetAlias" => aliases::get, on On::Function;
    "UpdateAlias" => aliases::update, on On::Function;
    "DeleteAlias" => aliases::delete, on On::Function;
    "ListAliases" => aliases::list, on On::Function;
    "AddPermission" => policies::add, on On::Function;
    "RemovePermission" => policies::remove, on On::Function;
    "GetPolicy" => policies::get, on On::Function;
    "PutResourcePolicy" => policies::put_whole, on On::Arn("ResourceArn");
    "GetResourcePolicy" => policies::get_whole, on On::Arn("ResourceArn");
    "DeleteResourcePolicy" => policies::delete_whole, on On::Arn("ResourceArn");
    "PutFunctionConcurrency" => concurrency::put, on On::Function;
    "GetFunctionConcurrency" => concurrency::get, on On::Function;
    "DeleteFunctionConcurrency" => concurrency::delete, on On::Function;
    "PutProvisionedConcurrencyConfig" => concurrency::put_provisioned, on On::Function,
        stores "counted against reserved and account concurrency; the environments are not started in this version, and the status says so";
    "GetProvisionedConcurrencyConfig" => concurrency::get_provisioned, on On::Function;
    "DeleteProvisionedConcurrencyConfig" => concurrency::delete_provisioned, on On::Function;
    "ListProvisionedConcurrencyConfigs" => concurrency::list_provisioned, on On::Function;
    "CreateFunctionUrlConfig" => function_urls::create, on On::Function;
    "GetFunctionUrlConfig" => function_urls::get, on On::Function;
    "UpdateFunctionUrlConfig" => function_urls::update, on On::Function;
    "DeleteFunctionUrlConfig" => function_urls::delete, on On::Function;
    "ListFunctionUrlConfigs" => function_urls::list, on On::Function;
    "PutFunctionEventInvokeConfig" => event_invoke_configs::put, on On::Function;
    "UpdateFunctionEventInvokeConfig" => event_invoke_configs::update, on On::Function;
    "GetFunctionEventInvokeConfig" => event_invoke_configs::get, on On::Function;
    "DeleteFunctionEventInvokeConfig" => event_invoke_configs::delete, on On::Function;
    "ListFunctionEventInvokeConfigs" => event_invoke_configs::list, on On::Function;
    "CreateEventSourceMapping" => event_source_mappings::create, on On::EventSourceMapping;
    "GetEventSourceMapping" => event_source_mappings::get, on On::EventSourceMapping;
    "UpdateEventSourceMapping" => event_source_mappings::update, on On::EventSourceMapping;
    "DeleteEventSourceMapping" => event_source_mappings::delete, on On::EventSourceMapping;
    "ListEventSourceMappings" => event_source_mappings::list, on On::Everything;
    "CreateCodeSigningConfig" => code_signing::create, on On::Everything;
    "GetCodeSigningConfig" => code_signing::get, on On::Arn("CodeSigningConfigArn");
    "UpdateCodeSigningConfig" => code_signing::update, on On::Arn("CodeSigningConfigArn");
    "DeleteCodeSigningConfig" => code_signing::delete, on On::Arn("CodeSigningConfigArn");
    "ListCodeSigningConfigs" => code_signing::list, on On::Everything;
    "ListFunctionsByCodeSigningConfig" => code_signing::list_functions, on On::Arn("CodeSigningConfigArn");
    "PutFunctionCodeSigningConfig" => code_signing::put_of_function, on On::Function;
    "GetFunctionCodeSigningConfig" => code_signing::get_of_function, on On::Function;
    "DeleteFunctionCodeSigningConfig" => code_signing::delete_of_function, on On::Function;
    "PutRuntimeManagementConfig" => runtime_settings::put_management, on On::Function,
        stores "one version of each runtime is installed at a time, and nothing updates it but its operator";
    "GetRuntimeManagementConfig" => runtime_settings::get_management, on On::Function;
    "PutFunctionRecursionConfig" => runtime_settings::put_recursion, on On::Function,
        stores "acts on events that destinations send round in circles; a loop through a function's own calls isn't seen";
    "GetFunctionRecursionConfig" => runtime_settings::get_recursion, on On::Function;
    "PublishLayerVersion" => layers::publish, on On::Layer;
    "GetLayerVersion" => layers::get, on On::LayerVersion;
    "GetLayerVersionByArn" => layers::get_by_arn, on On::Arn("Arn");
    "ListLayers" => layers::list, on On::Everything;
    "ListLayerVersions" => layers::list_versions, on On::Layer;
    "DeleteLayerVersion" => layers::delete, on On::LayerVersion;
    "AddLayerVersionPermission" => layer_policies::add, on On::LayerVersion;
    "GetLayerVersionPolicy" => layer_policies::get, on On::LayerVersion;
    "RemoveLayerVersionPermission" => layer_policies::remove, on On::LayerVersion;
    "TagResource" => tags::tag, on On::Arn("Resource");
    "UntagResource" => tags::untag, on On::Arn("Resource");
    "ListTags" => tags::list, on On::Arn("Resource");
    "GetAccountSettings" => account::settings, on On::Everything;
}

/// How many items a page has, as on AWS: what is asked for, up to fifty.
fn page_size(max_items: Option<i32>) -> usize {
    const PAGE_MAX: usize = 50;
    max_items.and_then(|items| usize::try_from(items).ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX)
}

/// One page of a listing, in the order of its keys: the items after `marker`, and the next marker if there are more.
fn page<T>(
    mut items: Vec<(String, T)>,
    marker: Option<&str>,
    max_items: Option<i32>,
) -> (Vec<T>, Option<String>) {
    let size = page_size(max_items);
    items.sort_by(|a, b| a.0.cmp(&b.0));
    let mut rest = items.into_iter().filter(|(key, _)| marker.is_none_or(|marker| key.as_str() > marker));
    let mut page = Vec::new();
    let mut last = String::new();
    for (key, item) in rest.by_ref().take(size) {
        page.push(item);
        last = key;
    }
    let next = rest.next().map(|_| last);
    (page, next)
}
