//! The account's limits and what it uses of them.

use std::collections::BTreeMap;

use ondol_core::function::{Function, FunctionVersion};
use ondol_store::artifacts::{UNZIPPED_BYTES_MAX, ZIPPED_BYTES_MAX};
use ondol_store::keys;
use ondol_wire::fault::Fault;
use ondol_wire::lambda::types::{
    AccountLimit, AccountUsage, GetAccountSettingsRequest, GetAccountSettingsResponse,
};

use crate::context::Context;

const TOTAL_CODE_BYTES: i64 = 80_530_636_800;
const CONCURRENT_EXECUTIONS: i32 = 1_000;

pub async fn settings(
    context: &Context,
    _: GetAccountSettingsRequest,
) -> Result<GetAccountSettingsResponse, Fault> {
    let functions: Vec<Function> = context.all(keys::FUNCTIONS)?;
    let versions: Vec<FunctionVersion> = context.all(keys::VERSIONS)?;
    let codes = functions
        .iter()
        .map(|function| &function.code)
        .chain(versions.iter().map(|version| &version.publication.code));
    let by_hash: BTreeMap<&str, u64> = codes.map(|code| (code.sha256.as_str(), code.size_bytes)).collect();
    Ok(GetAccountSettingsResponse {
        account_limit: Some(AccountLimit {
            total_code_size: Some(TOTAL_CODE_BYTES),
            code_size_unzipped: i64::try_from(UNZIPPED_BYTES_MAX).ok(),
            code_size_zipped: i64::try_from(ZIPPED_BYTES_MAX).ok(),
            concurrent_executions: Some(CONCURRENT_EXECUTIONS),
            unreserved_concurrent_executions: Some(CONCURRENT_EXECUTIONS),
        }),
        account_usage: Some(AccountUsage {
            total_code_size: i64::try_from(by_hash.values().sum::<u64>()).ok(),
            function_count: i64::try_from(functions.len()).ok(),
        }),
    })
}
