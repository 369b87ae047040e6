//! Who may do what.

use ondol_core::policy::PolicyUse;

use super::*;
use crate::Trust;

const FUNCTION: &str = "arn:aws:lambda:eu-west-1:123456789012:function:f";

async fn give(server: &Server, role: &str, document: &str) {
    let parameters = [("RoleName", role), ("PolicyName", "p"), ("PolicyDocument", document)];
    server.root("PutRolePolicy", &parameters).await;
}

fn invoke(
    server: &Server,
    caller: &Caller,
    resource_policy: Option<&Policy>,
) -> Result<(), (String, u16, String)> {
    let context = Context::default();
    let authorizer = &server.identity.authorizer;
    authorizer
        .authorize(caller, None, "lambda:InvokeFunction", FUNCTION, &context, resource_policy)
        .map_err(|fault| (fault.code, fault.status, fault.message))
}

#[tokio::test]
async fn iam_is_held_against_policies_itself() {
    let server = server();
    server.make_role("admin", LAMBDA).await;
    let caller = server.session_of("admin");
    let denied = server.ask(&caller, "GetRole", &[("RoleName", "admin")]).await.unwrap_err();
    assert_eq!((denied.code.as_str(), denied.status), ("AccessDenied", 403));
    assert_eq!(
        denied.message,
        "User: arn:aws:sts::123456789012:assumed-role/admin/one is not authorized to perform: iam:GetRole on resource: arn:aws:iam::123456789012:role/admin because no identity-based policy allows the iam:GetRole action"
    );
    // What is given counts from the answer on.
    give(&server, "admin", &allows("iam:*Role", "arn:aws:iam::*:role/admin")).await;
    assert!(server.ask(&caller, "GetRole", &[("RoleName", "admin")]).await.is_ok());
    let denied = server.ask(&caller, "GetRole", &[("RoleName", "other")]).await.unwrap_err();
    assert_eq!(denied.code, "AccessDenied", "not told whether it is there");
    // Within a session policy that allows less.
    let session = Policy::parse(&allows("s3:*", "*"), PolicyUse::Identity).unwrap();
    let denied =
        server.ask_within(&caller, Some(&session), "GetRole", &[("RoleName", "admin")]).await.unwrap_err();
    assert!(denied.message.ends_with("because no session policy allows the iam:GetRole action"), "{denied}");
}

#[tokio::test]
async fn every_operation_of_iam_is_refused_to_who_is_given_nothing() {
    let server = server();
    server.make_role("nobody", LAMBDA).await;
    let caller = server.session_of("nobody");
    let policy = "arn:aws:iam::aws:policy/AdministratorAccess";
    let document = allows("s3:*", "*");
    // Enough for every operation to be read.
    let parameters = [
        ("RoleName", "nobody"),
        ("PolicyName", "p"),
        ("PolicyArn", policy),
        ("PolicyDocument", &document),
        ("AssumeRolePolicyDocument", LAMBDA),
        ("Description", "d"),
        ("VersionId", "v1"),
        ("Tags.member.1.Key", "k"),
        ("Tags.member.1.Value", "v"),
        ("TagKeys.member.1", "k"),
    ];
    for action in crate::IAM_WORKS {
        let fault = server.ask(&caller, action, &parameters).await.expect_err(action);
        assert_eq!(fault.code, "AccessDenied", "{action}: {fault}");
        let sentence = format!("is not authorized to perform: iam:{action} on resource: ");
        assert!(fault.message.contains(&sentence), "{fault}");
    }
}

#[tokio::test]
async fn conditions_of_iam_operations() {
    let server = server();
    server.make_role("a", LAMBDA).await;
    let read_only = "arn:aws:iam::aws:policy/ReadOnlyAccess";
    let only = allows("iam:AttachRolePolicy", "*").replace(
        r#""Resource":"*""#,
        &format!(r#""Resource":"*","Condition":{{"ArnEquals":{{"iam:PolicyARN":"{read_only}"}}}}"#),
    );
    give(&server, "a", &only).await;
    let caller = server.session_of("a");
    let attach = async |arn: &str| {
        server.ask(&caller, "AttachRolePolicy", &[("RoleName", "a"), ("PolicyArn", arn)]).await.is_ok()
    };
    assert!(attach(read_only).await);
    assert!(!attach("arn:aws:iam::aws:policy/AdministratorAccess").await);
}

#[tokio::test]
async fn lambda_is_told_in_its_own_code() {
    let server = server();
    server.make_role("r", LAMBDA).await;
    let caller = server.session_of("r");
    let (code, status, text) = invoke(&server, &caller, None).unwrap_err();
    assert_eq!((code.as_str(), status), ("AccessDeniedException", 403));
    assert!(
        text.ends_with("because no identity-based policy allows the lambda:InvokeFunction action"),
        "{text}"
    );
    assert_eq!(invoke(&server, &root(), None), Ok(()));
    let stranger = Caller::root("210987654321");
    assert!(invoke(&server, &stranger, None).is_err());
    let theirs = FUNCTION.replace(ACCOUNT, "210987654321");
    let (authorizer, context) = (&server.identity.authorizer, Context::default());
    let fault =
        authorizer.authorize(&root(), None, "lambda:InvokeFunction", &theirs, &context, None).unwrap_err();
    assert!(
        fault.message.ends_with("because no resource-based policy allows the lambda:InvokeFunction action")
    );
    let deny = r#"{"Version":"2012-10-17","Statement":{"Effect":"Deny","Principal":"*","Action":"lambda:*","Resource":"*"}}"#;
    let deny = Policy::parse(deny, PolicyUse::Resource).unwrap();
    let (.., text) = invoke(&server, &root(), Some(&deny)).unwrap_err();
    assert!(text.ends_with("with an explicit deny in a resource-based policy"), "{text}");
    let off = server_with(Enforcement::Off);
    assert_eq!(invoke(&off, &caller, Some(&deny)), Ok(()));
}

#[tokio::test]
async fn a_session_does_not_outlive_its_role() {
    let server = server();
    server.make_role("r", LAMBDA).await;
    let caller = server.session_of("r");
    let everyone = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":"*","Action":"lambda:*","Resource":"*"}}"#;
    let everyone = Policy::parse(everyone, PolicyUse::Resource).unwrap();
    assert_eq!(invoke(&server, &caller, Some(&everyone)), Ok(()));
    server.root("DeleteRole", &[("RoleName", "r")]).await;
    let (.., text) = invoke(&server, &caller, Some(&everyone)).unwrap_err();
    assert!(text.contains("because no identity-based policy allows"), "{text}");
}

#[tokio::test]
async fn boundaries_and_tags_of_a_role_count() {
    let server = server();
    let bound = server
        .root("CreatePolicy", &[("PolicyName", "b"), ("PolicyDocument", &allows("lambda:Get*", "*"))])
        .await;
    let bound = element(&bound, "Arn").to_owned();
    server
        .root(
            "CreateRole",
            &[
                ("RoleName", "r"),
                ("AssumeRolePolicyDocument", LAMBDA),
                ("PermissionsBoundary", &bound),
                ("Tags.member.1.Key", "function"),
                ("Tags.member.1.Value", "f"),
            ],
        )
        .await;
    assert_eq!(element(&server.root("GetRole", &[("RoleName", "r")]).await, "PermissionsBoundaryArn"), bound);
    give(&server, "r", &allows("lambda:*", "arn:aws:lambda:*:*:function:${aws:PrincipalTag/function}")).await;
    let caller = server.session_of("r");
    let (.., text) = invoke(&server, &caller, None).unwrap_err();
    assert!(
        text.ends_with("because no permissions boundary allows the lambda:InvokeFunction action"),
        "{text}"
    );
    let wider = allows("lambda:*", "*");
    server
        .root(
            "CreatePolicyVersion",
            &[("PolicyArn", &bound), ("PolicyDocument", &wider), ("SetAsDefault", "true")],
        )
        .await;
    assert_eq!(invoke(&server, &caller, None), Ok(()));
    server.root("UntagRole", &[("RoleName", "r"), ("TagKeys.member.1", "function")]).await;
    assert!(invoke(&server, &caller, None).is_err());
    for version in ["v1", "v2"] {
        // One of them is the default, which stays.
        let parameters = [("PolicyArn", bound.as_str()), ("VersionId", version)];
        assert_eq!(server.ask(&root(), "DeletePolicyVersion", &parameters).await.is_ok(), version == "v1");
    }
    assert_eq!(
        server.fault("DeletePolicy", &[("PolicyArn", &bound)]).await,
        refused("DeleteConflict", 409, "Cannot delete a policy attached to entities.")
    );
}

#[tokio::test]
async fn roles_are_passed_by_who_may() {
    let server = server();
    server.make_role("worker", LAMBDA).await;
    server.make_role("deployer", LAMBDA).await;
    let worker = format!("arn:aws:iam::{ACCOUNT}:role/worker");
    let caller = server.session_of("deployer");
    let context = Context::default();
    let pass = |caller: &Caller, service: &str| {
        server.identity.authorizer.may_pass_role(caller, None, &worker, service, &context)
    };
    let fault = pass(&caller, "lambda.amazonaws.com").unwrap_err();
    assert_eq!((fault.code.as_str(), fault.status), ("AccessDeniedException", 403));
    assert_eq!(
        fault.message,
        format!(
            "User: arn:aws:sts::123456789012:assumed-role/deployer/one is not authorized to perform: iam:PassRole on resource: {worker} because no identity-based policy allows the iam:PassRole action"
        )
    );
    let full_access = "arn:aws:iam::aws:policy/AWSLambda_FullAccess";
    server.root("AttachRolePolicy", &[("RoleName", "deployer"), ("PolicyArn", full_access)]).await;
    assert!(pass(&caller, "lambda.amazonaws.com").is_ok());
    assert!(pass(&caller, "ec2.amazonaws.com").is_err(), "the policy says to whom");
    assert!(pass(&root(), "ec2.amazonaws.com").is_ok());
    let theirs = "arn:aws:iam::210987654321:role/worker";
    let authorizer = &server.identity.authorizer;
    let fault =
        authorizer.may_pass_role(&root(), None, theirs, "lambda.amazonaws.com", &context).unwrap_err();
    assert_eq!(fault.message, "Cross-account pass role is not allowed.");
}

#[tokio::test]
async fn a_function_needs_a_role_that_lambda_can_assume() {
    let server = server();
    server.make_role("open", LAMBDA).await;
    server.make_role("people", &trusts(ACCOUNT)).await;
    let pinned = |account: &str| {
        LAMBDA.replace(
            r#""Action":"sts:AssumeRole""#,
            &format!(
                r#""Action":"sts:AssumeRole","Condition":{{"StringEquals":{{"aws:SourceAccount":"{account}"}}}}"#
            ),
        )
    };
    server.make_role("ours", &pinned(ACCOUNT)).await;
    server.make_role("theirs", &pinned("210987654321")).await;
    let ask = |server: &Server, role: &str| {
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        server
            .identity
            .authorizer
            .role_exists_and_trusts(&arn, "lambda.amazonaws.com", Some(FUNCTION))
            .map_err(|fault| (fault.code, fault.status, fault.message))
    };
    let not_assumable = refused(
        "InvalidParameterValueException",
        400,
        "The role defined for the function cannot be assumed by Lambda.",
    );
    for (role, expected) in [
        ("open", Ok(Trust { confused_deputy: true })),
        ("ours", Ok(Trust { confused_deputy: false })),
        ("theirs", Err(not_assumable.clone())),
        ("people", Err(not_assumable.clone())),
        ("absent", Err(not_assumable)),
    ] {
        assert_eq!(ask(&server, role), expected, "{role}");
    }
    assert!(ask(&server_with(Enforcement::Off), "absent").is_ok());
}
