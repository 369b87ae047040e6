//! Managed policies, their versions and where they are attached.

use ondol_wire::uri::percent_decode;

use super::*;

const BASIC: &str = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole";

async fn make_policy(server: &Server, name: &str, document: &str) -> String {
    let made = server.root("CreatePolicy", &[("PolicyName", name), ("PolicyDocument", document)]).await;
    element(&made, "Arn").to_owned()
}

#[tokio::test]
async fn a_policy_and_its_versions() {
    let server = server();
    let arn = make_policy(&server, "p", &allows("s3:Get*", "*")).await;
    assert_eq!(arn, "arn:aws:iam::123456789012:policy/p");
    let of = ("PolicyArn", arn.as_str());
    let got = server.root("GetPolicy", &[of]).await;
    assert!(element(&got, "PolicyId").starts_with("ANPA"));
    assert_eq!((element(&got, "DefaultVersionId"), element(&got, "AttachmentCount")), ("v1", "0"));
    for number in 2..=5 {
        let document = allows(&format!("s3:Get{number}"), "*");
        let made = server.root("CreatePolicyVersion", &[of, ("PolicyDocument", &document)]).await;
        assert_eq!(element(&made, "VersionId"), format!("v{number}"));
        assert_eq!(element(&made, "IsDefaultVersion"), "false");
    }
    let document = allows("s3:*", "*");
    let (code, _, text) = server.fault("CreatePolicyVersion", &[of, ("PolicyDocument", &document)]).await;
    assert_eq!(code, "LimitExceeded");
    assert!(text.starts_with("A managed policy can have up to 5 versions."), "{text}");
    server.root("SetDefaultPolicyVersion", &[of, ("VersionId", "v3")]).await;
    let got = server.root("GetPolicyVersion", &[of, ("VersionId", "v3")]).await;
    assert_eq!(percent_decode(element(&got, "Document")), allows("s3:Get3", "*"));
    assert_eq!(element(&got, "IsDefaultVersion"), "true");
    assert_eq!(
        server.fault("DeletePolicyVersion", &[of, ("VersionId", "v3")]).await,
        refused("DeleteConflict", 409, "Cannot delete the default version of a policy.")
    );
    server.root("DeletePolicyVersion", &[of, ("VersionId", "v5")]).await;
    let made = server.root("CreatePolicyVersion", &[of, ("PolicyDocument", &document)]).await;
    assert_eq!(element(&made, "VersionId"), "v6", "a number is not used again");
    let listed = server.root("ListPolicyVersions", &[of]).await;
    assert_eq!(elements(&listed, "VersionId"), ["v6", "v4", "v3", "v2", "v1"]);
    let (code, _, text) = server.fault("GetPolicyVersion", &[of, ("VersionId", "v5")]).await;
    assert_eq!((code.as_str(), text.contains("version v5 does not exist")), ("NoSuchEntity", true));
    let (code, _, text) = server.fault("DeletePolicy", &[of]).await;
    assert_eq!((code.as_str(), text.contains("more than one version")), ("DeleteConflict", true));
    for version in ["v6", "v4", "v2", "v1"] {
        server.root("DeletePolicyVersion", &[of, ("VersionId", version)]).await;
    }
    server.root("TagPolicy", &[of, ("Tags.member.1.Key", "a"), ("Tags.member.1.Value", "b")]).await;
    assert_eq!(elements(&server.root("ListPolicyTags", &[of]).await, "Key"), ["a"]);
    server.root("UntagPolicy", &[of, ("TagKeys.member.1", "a")]).await;
    server.root("DeletePolicy", &[of]).await;
    assert_eq!(
        server.fault("GetPolicy", &[of]).await,
        refused("NoSuchEntity", 404, &format!("Policy {arn} was not found."))
    );
}

#[tokio::test]
async fn bad_policies_are_refused() {
    let server = server();
    make_policy(&server, "taken", &allows("s3:*", "*")).await;
    for (name, document, code, text) in [
        (
            "Taken",
            allows("s3:*", "*"),
            "EntityAlreadyExists",
            "A policy called Taken already exists. Duplicate names are not allowed.",
        ),
        ("p", "[".into(), "MalformedPolicyDocument", "Syntax errors in policy."),
        ("p", LAMBDA.into(), "MalformedPolicyDocument", "Policy document should not specify a principal."),
        (
            "p",
            allows(&"s3:Get".repeat(1_200), "*"),
            "LimitExceeded",
            "Cannot exceed quota for PolicySize: 6144",
        ),
    ] {
        let fault =
            server.fault("CreatePolicy", &[("PolicyName", name), ("PolicyDocument", &document)]).await;
        assert_eq!(fault.0, code, "{fault:?}");
        assert!(fault.2.starts_with(text), "{fault:?}");
    }
}

#[tokio::test]
async fn attached_policies() {
    let server = server();
    server.make_role("r", LAMBDA).await;
    let arn = make_policy(&server, "p", &allows("s3:*", "*")).await;
    let role = ("RoleName", "r");
    for arn in [arn.as_str(), BASIC, BASIC] {
        server.root("AttachRolePolicy", &[role, ("PolicyArn", arn)]).await;
    }
    let listed = server.root("ListAttachedRolePolicies", &[role]).await;
    assert_eq!(elements(&listed, "PolicyName"), ["p", "AWSLambdaBasicExecutionRole"]);
    let listed = server.root("ListAttachedRolePolicies", &[role, ("PathPrefix", "/service-role/")]).await;
    assert_eq!(elements(&listed, "PolicyArn"), [BASIC]);
    assert_eq!(server.identity.roles.policies_of("r").unwrap().identity.len(), 2);
    let entities = server.root("ListEntitiesForPolicy", &[("PolicyArn", BASIC)]).await;
    assert_eq!(elements(&entities, "RoleName"), ["r"]);
    let entities =
        server.root("ListEntitiesForPolicy", &[("PolicyArn", BASIC), ("EntityFilter", "User")]).await;
    assert!(elements(&entities, "RoleName").is_empty());
    assert_eq!(element(&server.root("GetPolicy", &[("PolicyArn", &arn)]).await, "AttachmentCount"), "1");
    assert_eq!(
        server.fault("DeletePolicy", &[("PolicyArn", &arn)]).await,
        refused("DeleteConflict", 409, "Cannot delete a policy attached to entities.")
    );
    assert_eq!(
        server.fault("DeleteRole", &[role]).await,
        refused("DeleteConflict", 409, "Cannot delete entity, must detach all policies first.")
    );
    let absent = format!("arn:aws:iam::{ACCOUNT}:policy/absent");
    assert_eq!(
        server.fault("AttachRolePolicy", &[role, ("PolicyArn", &absent)]).await,
        refused("NoSuchEntity", 404, &format!("Policy {absent} does not exist or is not attachable."))
    );
    assert_eq!(
        server.fault("DetachRolePolicy", &[role, ("PolicyArn", &absent)]).await,
        refused("NoSuchEntity", 404, &format!("Policy {absent} was not found."))
    );
    for number in 0..9 {
        let arn = make_policy(&server, &format!("q{number}"), &allows("s3:*", "*")).await;
        let attached = server.ask(&root(), "AttachRolePolicy", &[role, ("PolicyArn", &arn)]).await;
        assert_eq!(attached.is_ok(), number < 8, "{number}: {attached:?}");
    }
    server.root("DetachRolePolicy", &[role, ("PolicyArn", &arn)]).await;
    server.root("DeletePolicy", &[("PolicyArn", &arn)]).await;
}

#[tokio::test]
async fn policies_of_aws_are_there_and_cannot_be_changed() {
    let server = server();
    let got = server.root("GetPolicy", &[("PolicyArn", BASIC)]).await;
    assert_eq!((element(&got, "Path"), element(&got, "DefaultVersionId")), ("/service-role/", "v1"));
    let got = server.root("GetPolicyVersion", &[("PolicyArn", BASIC), ("VersionId", "v1")]).await;
    assert!(percent_decode(element(&got, "Document")).contains("logs:PutLogEvents"));
    assert_eq!(
        elements(&server.root("ListPolicyVersions", &[("PolicyArn", BASIC)]).await, "VersionId"),
        ["v1"]
    );
    let document = allows("s3:*", "*");
    for (action, parameters) in [
        ("DeletePolicy", vec![("PolicyArn", BASIC)]),
        ("CreatePolicyVersion", vec![("PolicyArn", BASIC), ("PolicyDocument", document.as_str())]),
        ("UntagPolicy", vec![("PolicyArn", BASIC), ("TagKeys.member.1", "a")]),
    ] {
        assert_eq!(server.fault(action, &parameters).await.0, "AccessDenied", "{action}");
    }
    let own = make_policy(&server, "own", &document).await;
    let list = async |scope: &str| {
        let listed = server.root("ListPolicies", &[("Scope", scope), ("MaxItems", "1000")]).await;
        elements(&listed, "Arn").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let (all, aws, local) = (list("All").await, list("AWS").await, list("Local").await);
    assert_eq!(local, [own.as_str()]);
    assert_eq!(all.len(), aws.len() + 1);
    assert!(aws.contains(&BASIC.to_owned()));
    let attached = server.root("ListPolicies", &[("OnlyAttached", "true")]).await;
    assert!(elements(&attached, "Arn").is_empty());
}
