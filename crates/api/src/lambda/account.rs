//! The account's limits and what it uses of them.

use std::collections::BTreeMap;

use ondol_core::function::{Code, Function, FunctionVersion};
use ondol_core::layer::LayerVersion;
use ondol_store::artifacts::{UNZIPPED_BYTES_MAX, ZIPPED_BYTES_MAX};
use ondol_store::keys;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    AccountLimit, AccountUsage, GetAccountSettingsRequest, GetAccountSettingsResponse,
};

use crate::context::Context;
use crate::faults::fault;

pub async fn settings(
    context: &Context,
    _: GetAccountSettingsRequest,
) -> Result<GetAccountSettingsResponse, Fault> {
    let function_count = context.store.scan(keys::FUNCTIONS, None, usize::MAX).len();
    Ok(GetAccountSettingsResponse {
        account_limit: Some(AccountLimit {
            total_code_size: i64::try_from(context.quotas.code_storage_bytes).ok(),
            code_size_unzipped: i64::try_from(UNZIPPED_BYTES_MAX).ok(),
            code_size_zipped: i64::try_from(ZIPPED_BYTES_MAX).ok(),
            concurrent_executions: i32::try_from(context.quotas.concurrent_executions).ok(),
            unreserved_concurrent_executions: i32::try_from(super::concurrency::unreserved(context, None)?)
                .ok(),
        }),
        account_usage: Some(AccountUsage {
            total_code_size: i64::try_from(code_bytes(context, None)?).ok(),
            function_count: i64::try_from(function_count).ok(),
        }),
    })
}

/// All packages together, the new one included, stay within the account's storage.
pub fn check_storage(context: &Context, new: &Code) -> Result<(), Fault> {
    let limit = context.quotas.code_storage_bytes;
    // What is on the disk is soon known, and more than what is needed: reading every document is for the rare case.
    if context.artifacts.zipped_bytes() <= limit || code_bytes(context, Some(new))? <= limit {
        return Ok(());
    }
    Err(fault(
        "CodeStorageExceededException",
        format!("Code storage limit exceeded: the account's packages may have {limit} bytes together."),
    ))
}

/// Bytes of the account's packages, those of layers included, and for what is to come also those of all uploads under
/// way; the same bytes count once.
fn code_bytes(context: &Context, new: Option<&Code>) -> Result<u64, Fault> {
    let functions: Vec<Function> = context.all(keys::FUNCTIONS)?;
    let versions: Vec<FunctionVersion> = context.all(keys::VERSIONS)?;
    let layers: Vec<LayerVersion> = context.all(keys::LAYER_VERSIONS)?;
    let pinned = new.map(|_| context.artifacts.pinned()).unwrap_or_default();
    // A layer version that was deleted stays for the functions that use it.
    let used = functions.iter().map(|function| &function.configuration);
    let used = used.chain(versions.iter().map(|version| &version.publication.configuration));
    let codes = functions
        .iter()
        .map(|function| &function.code)
        .chain(versions.iter().map(|version| &version.publication.code))
        .chain(layers.iter().map(|layer| &layer.code))
        .chain(used.flat_map(|configuration| configuration.layers.iter().map(|layer| &layer.code)))
        .chain(new);
    let mut by_hash: BTreeMap<&str, u64> =
        pinned.iter().map(|(sha256, bytes)| (sha256.as_str(), *bytes)).collect();
    by_hash.extend(codes.map(|code| (code.sha256.as_str(), code.size_bytes)));
    Ok(by_hash.values().sum())
}
