//! Roles and their inline policies.

use ondol_core::policy::Caller;
use ondol_store::{Transaction, keys};
use ondol_wire::uri::percent_decode;

use super::*;
use crate::nouns::Role;

#[tokio::test]
async fn a_role_from_its_making_to_its_end() {
    let server = server();
    let made = server
        .root(
            "CreateRole",
            &[
                ("RoleName", "worker"),
                ("Path", "/app/"),
                ("AssumeRolePolicyDocument", LAMBDA),
                ("Description", "works"),
                ("MaxSessionDuration", "7200"),
                ("Tags.member.1.Key", "team"),
                ("Tags.member.1.Value", "red"),
            ],
        )
        .await;
    assert_eq!(element(&made, "Arn"), "arn:aws:iam::123456789012:role/app/worker");
    let id = element(&made, "RoleId").to_owned();
    assert!(id.starts_with("AROA") && id.len() == 21, "{id}");
    assert_eq!(percent_decode(element(&made, "AssumeRolePolicyDocument")), LAMBDA);
    assert!(element(&made, "CreateDate").ends_with('Z'), "{made}");

    let got = server.root("GetRole", &[("RoleName", "worker")]).await;
    for (name, value) in [("RoleId", id.as_str()), ("MaxSessionDuration", "7200"), ("Description", "works")] {
        assert_eq!(element(&got, name), value);
    }
    assert!(element(&got, "AssumeRolePolicyDocument").starts_with("%7B%22Version%22%3A"), "{got}");
    assert!(got.contains("<RoleLastUsed></RoleLastUsed>"), "{got}");
    assert_eq!((element(&got, "Key"), element(&got, "Value")), ("team", "red"));

    let name = [("RoleName", "worker")];
    server.root("UpdateRole", &[name[0], ("MaxSessionDuration", "3600")]).await;
    server.root("UpdateRoleDescription", &[name[0], ("Description", "rests")]).await;
    let account = trusts(ACCOUNT);
    server.root("UpdateAssumeRolePolicy", &[name[0], ("PolicyDocument", &account)]).await;
    let got = server.root("GetRole", &name).await;
    assert_eq!((element(&got, "MaxSessionDuration"), element(&got, "Description")), ("3600", "rests"));
    assert_eq!(percent_decode(element(&got, "AssumeRolePolicyDocument")), account);

    server.root("TagRole", &[name[0], ("Tags.member.1.Key", "Team"), ("Tags.member.1.Value", "blue")]).await;
    let tags = server.root("ListRoleTags", &name).await;
    assert_eq!((elements(&tags, "Key"), elements(&tags, "Value")), (vec!["Team"], vec!["blue"]));
    server.root("UntagRole", &[name[0], ("TagKeys.member.1", "TEAM")]).await;
    assert!(elements(&server.root("ListRoleTags", &name).await, "Key").is_empty());

    assert!(server.root("ListInstanceProfilesForRole", &name).await.contains("<InstanceProfiles></"));
    server.root("DeleteRole", &name).await;
    assert!(server.identity.roles.policies_of("worker").is_none());
    assert_eq!(
        server.fault("GetRole", &name).await,
        refused("NoSuchEntity", 404, "The role with name worker cannot be found.")
    );
}

#[tokio::test]
async fn inline_policies() {
    let server = server();
    server.make_role("r", LAMBDA).await;
    let named = [("RoleName", "r"), ("PolicyName", "p")];
    let document = allows("s3:*", "*");
    server.root("PutRolePolicy", &[named[0], named[1], ("PolicyDocument", &document)]).await;
    let got = server.root("GetRolePolicy", &named).await;
    assert_eq!(percent_decode(element(&got, "PolicyDocument")), document);
    assert_eq!(elements(&server.root("ListRolePolicies", &named[..1]).await, "member"), ["p"]);
    assert_eq!(
        server.fault("DeleteRole", &named[..1]).await,
        refused("DeleteConflict", 409, "Cannot delete entity, must delete policies first.")
    );
    server.root("DeleteRolePolicy", &named).await;
    let missing = refused("NoSuchEntity", 404, "The role policy with name p cannot be found.");
    assert_eq!(server.fault("DeleteRolePolicy", &named).await, missing);
    assert_eq!(server.fault("GetRolePolicy", &named).await, missing);
    let long = document.replace("s3:*", &format!("s3:{}", "Get".repeat(4_000)));
    assert_eq!(
        server.fault("PutRolePolicy", &[named[0], named[1], ("PolicyDocument", &long)]).await,
        refused("LimitExceeded", 409, "Maximum policy size of 10240 bytes exceeded for role r")
    );
    server.root("DeleteRole", &named[..1]).await;
}

#[tokio::test]
async fn bad_roles_are_refused_and_nothing_is_kept_of_them() {
    let server = server();
    server.make_role("taken", LAMBDA).await;
    let with = |name: &'static str, document: &str| {
        vec![("RoleName", name.to_owned()), ("AssumeRolePolicyDocument", document.to_owned())]
    };
    let long = LAMBDA.replace("sts:AssumeRole", &"sts:Assume".repeat(300));
    for (parameters, code, text) in [
        (with("Taken", LAMBDA), "EntityAlreadyExists", "Role with name Taken already exists."),
        (with("r", "{"), "MalformedPolicyDocument", "This policy contains invalid Json"),
        (with("r", &allows("s3:*", "*")), "MalformedPolicyDocument", "Has prohibited field Resource"),
        (with("r", &long), "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048"),
        (
            [with("r", LAMBDA), vec![("PermissionsBoundary", format!("arn:aws:iam::{ACCOUNT}:policy/b"))]]
                .concat(),
            "NoSuchEntity",
            "Scope ARN: arn:aws:iam::123456789012:policy/b does not exist or is not attachable.",
        ),
        (
            [
                with("r", LAMBDA),
                vec![
                    ("Tags.member.1.Key", "a".into()),
                    ("Tags.member.1.Value", "1".into()),
                    ("Tags.member.2.Key", "A".into()),
                    ("Tags.member.2.Value", "2".into()),
                ],
            ]
            .concat(),
            "InvalidInput",
            "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
        ),
        ([with("r", LAMBDA), vec![("MaxSessionDuration", "60".into())]].concat(), "ValidationError", ""),
    ] {
        let parameters: Vec<(&str, &str)> =
            parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let fault = server.fault("CreateRole", &parameters).await;
        assert_eq!(fault.0, code, "{fault:?}");
        assert!(fault.2.starts_with(text), "{fault:?}");
    }
    let listed = server.root("ListRoles", &[]).await;
    assert_eq!(elements(&listed, "RoleName"), ["taken"]);
}

#[tokio::test]
async fn roles_are_listed_page_by_page() {
    let server = server();
    for name in ["a", "b", "c", "d", "e"] {
        let path = if name == "d" { "/other/" } else { "/app/" };
        let parameters = [("RoleName", name), ("Path", path), ("AssumeRolePolicyDocument", LAMBDA)];
        server.root("CreateRole", &parameters).await;
    }
    let mut names = Vec::new();
    let mut marker = String::new();
    loop {
        let mut parameters = vec![("MaxItems", "2"), ("PathPrefix", "/app/")];
        if !marker.is_empty() {
            parameters.push(("Marker", &marker));
        }
        let page = server.root("ListRoles", &parameters).await;
        names.extend(elements(&page, "RoleName").into_iter().map(str::to_owned));
        if element(&page, "IsTruncated") == "false" {
            break;
        }
        marker = element(&page, "Marker").to_owned();
    }
    assert_eq!(names, ["a", "b", "c", "e"]);
    assert_eq!(
        server.fault("ListRoles", &[("Marker", "%%%")]).await,
        refused("ValidationError", 400, "Invalid Marker.")
    );
}

#[tokio::test]
async fn the_account_has_one_user_and_no_name() {
    let server = server();
    let user = server.root("GetUser", &[]).await;
    assert_eq!(element(&user, "Arn"), "arn:aws:iam::123456789012:root");
    assert!(server.root("ListAccountAliases", &[]).await.contains("<AccountAliases></AccountAliases>"));
    assert_eq!(
        server.fault("GetUser", &[("UserName", "u")]).await,
        refused("NoSuchEntity", 404, "The user with name u cannot be found.")
    );
}

#[tokio::test]
async fn the_snapshot_follows_what_others_write_and_is_whole_after_a_restart() {
    let server = server();
    let (identity, roles) = (&server.identity, Roles::new(home()));
    let at = roles.read_all(&identity.store);
    let following = tokio::spawn(Arc::clone(&roles).follow(identity.store.clone(), at));
    server.make_role("r", LAMBDA).await;
    let policy =
        server.root("CreatePolicy", &[("PolicyName", "p"), ("PolicyDocument", &allows("s3:*", "*"))]).await;
    let arn = element(&policy, "Arn").to_owned();
    server.root("AttachRolePolicy", &[("RoleName", "r"), ("PolicyArn", &arn)]).await;
    until(|| roles.policies_of("r").is_some_and(|role| role.identity.len() == 1)).await;
    // A new default version of a policy reaches the roles that have it.
    let other = allows("sqs:*", "*");
    server
        .root(
            "CreatePolicyVersion",
            &[("PolicyArn", &arn), ("PolicyDocument", &other), ("SetAsDefault", "true")],
        )
        .await;
    until(|| roles.policies_of("r").is_some_and(|role| role.identity[0].text() == other)).await;
    let fresh = Roles::new(home());
    fresh.read_all(&identity.store);
    assert_eq!(fresh.policies_of("r").unwrap().identity[0].text(), other);
    assert!(fresh.by_arn("arn:aws:iam::123456789012:role/r").is_some());
    assert!(fresh.by_arn("arn:aws:iam::123456789012:role/other/r").is_none());
    // A role with a policy nobody can read may do nothing, rather than what is left.
    let (mut broken, _): (Role, _) = identity.store.document(&keys::iam_role("r")).unwrap().unwrap();
    broken.inline_policies.insert("torn".into(), "{".into());
    identity.store.commit(Transaction::default().put(keys::iam_role("r"), &broken)).await.unwrap();
    until(|| roles.policies_of("r").is_none()).await;
    following.abort();
}

/// Lets other tasks go on until something holds.
async fn until(holds: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if holds() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it did not come to hold");
}

#[tokio::test]
async fn a_session_of_a_role_that_was_made_again_is_nobody() {
    let server = server();
    let make = async || {
        server.make_role("r", LAMBDA).await;
        let document = allows("iam:*", "*");
        let parameters = [("RoleName", "r"), ("PolicyName", "p"), ("PolicyDocument", document.as_str())];
        server.root("PutRolePolicy", &parameters).await;
    };
    make().await;
    let old: Caller = server.session_of("r");
    assert!(server.ask(&old, "ListRoles", &[]).await.is_ok());
    server.root("DeleteRolePolicy", &[("RoleName", "r"), ("PolicyName", "p")]).await;
    server.root("DeleteRole", &[("RoleName", "r")]).await;
    assert!(server.ask(&old, "ListRoles", &[]).await.is_err());
    make().await;
    assert!(server.ask(&old, "ListRoles", &[]).await.is_err());
    assert!(server.ask(&server.session_of("r"), "ListRoles", &[]).await.is_ok());
}
