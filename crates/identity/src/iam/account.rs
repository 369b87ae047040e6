//! The account itself. Its one user is root.

use ondol_core::policy::CallerKind;
use ondol_wire::fault::Fault;
use ondol_wire::iam::types::{
    GetUserRequest, GetUserResponse, ListAccountAliasesRequest, ListAccountAliasesResponse, User,
};

use super::{fault, seconds};
use crate::call::Call;

pub async fn get_user(call: &Call<'_>, input: GetUserRequest) -> Result<GetUserResponse, Fault> {
    if let Some(name) = input.user_name {
        return Err(fault("NoSuchEntity", format!("The user with name {name} cannot be found.")));
    }
    let caller = call.asker.caller;
    if caller.kind != CallerKind::Root {
        let text = "Must specify userName when calling with non-User credentials";
        return Err(Fault::new("ValidationError", 400, text));
    }
    let user = User {
        user_id: Some(caller.user_id()),
        arn: Some(caller.arn()),
        create_date: seconds(0),
        ..User::default()
    };
    Ok(GetUserResponse { user: Some(user) })
}

pub async fn list_aliases(
    _: &Call<'_>,
    _: ListAccountAliasesRequest,
) -> Result<ListAccountAliasesResponse, Fault> {
    Ok(ListAccountAliasesResponse {
        account_aliases: Some(Vec::new()),
        is_truncated: Some(false),
        marker: None,
    })
}
