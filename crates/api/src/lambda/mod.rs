//! The Lambda API.

mod account;
mod capacity_providers;
mod configuration;
mod functions;
mod layers;
mod names;
mod scaling_configs;
mod tags;
mod versions;
mod view;

use ondol_wire::fault::Fault;
use ondol_wire::lambda::SERVICE;
use ondol_wire::rest_json::{Answer, match_operation, read_input, write_output};
use ondol_wire::sigv4::Headers;

use crate::context::Context;
use crate::faults::unsupported;

/// A request whose signature was checked.
#[derive(Debug)]
pub struct Call<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a (dyn Headers + Sync),
    pub body: &'a [u8],
}

/// One list says which operations work and which function each is.
macro_rules! operations {
    ($($name:literal => $function:path,)*) => {
        /// The operations that work; `Invoke` has a way of its own.
        pub const WORKS: &[&str] = &["Invoke", $($name),*];

        pub async fn call(context: &Context, call: &Call<'_>) -> Result<Answer, Fault> {
            let Some(matched) = match_operation(&SERVICE, call.method, call.path, call.query) else {
                let text = format!("{} {} is no operation of Lambda.", call.method, call.path);
                return Err(Fault::new("UnknownOperationException", 404, text));
            };
            match matched.0.name {
                $($name => {
                    let input = read_input(&SERVICE, &matched, call.query, |name| call.headers.get(name), call.body)?;
                    let output = $function(context, input).await?;
                    write_output(&SERVICE, matched.0, &output)
                })*
                other => Err(unsupported(format!(
                    "{other} isn't supported by this version of Ondol. COMPATIBILITY.md lists what is."
                ))),
            }
        }
    };
}

operations! {
    "CreateCapacityProvider" => capacity_providers::create,
    "GetCapacityProvider" => capacity_providers::get,
    "UpdateCapacityProvider" => capacity_providers::update,
    "DeleteCapacityProvider" => capacity_providers::delete,
    "ListCapacityProviders" => capacity_providers::list,
    "ListFunctionVersionsByCapacityProvider" => capacity_providers::list_function_versions,
    "PutFunctionScalingConfig" => scaling_configs::put,
    "GetFunctionScalingConfig" => scaling_configs::get,
    "CreateFunction" => functions::create,
    "GetFunction" => functions::get,
    "GetFunctionConfiguration" => functions::get_configuration,
    "UpdateFunctionCode" => functions::update_code,
    "UpdateFunctionConfiguration" => functions::update_configuration,
    "DeleteFunction" => functions::delete,
    "ListFunctions" => functions::list,
    "PublishVersion" => versions::publish,
    "ListVersionsByFunction" => versions::list,
    "PublishLayerVersion" => layers::publish,
    "GetLayerVersion" => layers::get,
    "GetLayerVersionByArn" => layers::get_by_arn,
    "ListLayers" => layers::list,
    "ListLayerVersions" => layers::list_versions,
    "DeleteLayerVersion" => layers::delete,
    "TagResource" => tags::tag,
    "UntagResource" => tags::untag,
    "ListTags" => tags::list,
    "GetAccountSettings" => account::settings,
}

/// One page of a listing, in the order of its keys: the items after `marker`, and the next marker if there are more.
fn page<T>(
    mut items: Vec<(String, T)>,
    marker: Option<&str>,
    max_items: Option<i32>,
) -> (Vec<T>, Option<String>) {
    const PAGE_MAX: usize = 50;
    let size = max_items.and_then(|items| usize::try_from(items).ok()).unwrap_or(PAGE_MAX).min(PAGE_MAX);
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
