//! STS.

use super::*;
use crate::{Session, SessionError};

const SOON: i64 = 60;

fn arn(role: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:role/{role}")
}

/// The session behind the credentials of an answer, some seconds from now.
fn session_in(server: &Server, answer: &str, seconds: i64) -> Result<Session, SessionError> {
    let now = server.identity.now_epoch_millis() / 1_000 + seconds;
    let (id, token) = (element(answer, "AccessKeyId"), element(answer, "SessionToken"));
    let session = server.identity.sessions.check(id, token, now)?;
    assert_eq!(session.secret_access_key, element(answer, "SecretAccessKey"));
    Ok(session)
}

#[tokio::test]
async fn everybody_may_ask_who_they_are() {
    let server = server();
    let answer = server.root("GetCallerIdentity", &[]).await;
    for (name, value) in
        [("Arn", "arn:aws:iam::123456789012:root"), ("UserId", ACCOUNT), ("Account", ACCOUNT)]
    {
        assert_eq!(element(&answer, name), value);
    }
    server.make_role("r", LAMBDA).await;
    let answer = server.ask(&server.session_of("r"), "GetCallerIdentity", &[]).await.unwrap();
    assert_eq!(element(&answer, "Arn"), "arn:aws:sts::123456789012:assumed-role/r/one");
    assert!(element(&answer, "UserId").ends_with(":one"), "{answer}");
    let answer = server.root("GetAccessKeyInfo", &[("AccessKeyId", "AKIAEXAMPLEEXAMPLE12")]).await;
    assert_eq!(element(&answer, "Account"), ACCOUNT);
}

#[tokio::test]
async fn a_role_is_assumed_and_its_session_ends() {
    let server = server();
    server.make_role("r", &trusts(ACCOUNT)).await;
    let role = arn("r");
    let asked = [("RoleArn", role.as_str()), ("RoleSessionName", "me"), ("DurationSeconds", "900")];
    let answer = server.root("AssumeRole", &asked).await;
    let me = "arn:aws:sts::123456789012:assumed-role/r/me";
    assert_eq!(element(&answer, "Arn"), me);
    let session = session_in(&server, &answer, SOON).unwrap();
    assert_eq!(session.caller.arn(), me);
    assert_eq!(element(&answer, "AssumedRoleId"), session.caller.user_id());
    assert_eq!(session.claims.source.as_deref(), Some("arn:aws:iam::123456789012:root"));
    assert!(session_in(&server, &answer, 890).is_ok());
    assert_eq!(session_in(&server, &answer, 901).unwrap_err(), SessionError::Expired);
    assert!(!answer.contains("PackedPolicySize"), "{answer}");
}

#[tokio::test]
async fn who_is_not_trusted_does_not_assume() {
    let server = server();
    server.make_role("service", LAMBDA).await;
    server.make_role("people", &trusts(ACCOUNT)).await;
    server.make_role("worker", LAMBDA).await;
    let worker = server.session_of("worker");
    let with_id = trusts(ACCOUNT).replace(
        r#""sts:AssumeRole"}"#,
        r#""sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"secret-1"}}}"#,
    );
    server.make_role("external", &with_id).await;
    server.make_role("direct", &trusts(&arn("worker"))).await;
    let assume = async |caller: &Caller, role: &str, more: &[(&str, &str)]| {
        let role = arn(role);
        let asked = [("RoleArn", role.as_str()), ("RoleSessionName", "me")];
        server.ask(caller, "AssumeRole", &[&asked, more].concat()).await.map(drop)
    };
    for role in ["service", "absent", "external"] {
        let fault = assume(&root(), role, &[]).await.unwrap_err();
        assert_eq!((fault.code.as_str(), fault.status), ("AccessDenied", 403), "{role}");
        let sentence = format!(
            "User: arn:aws:iam::123456789012:root is not authorized to perform: sts:AssumeRole on resource: {}",
            arn(role)
        );
        assert!(fault.message.starts_with(&sentence), "{fault}");
    }
    assert_eq!(assume(&root(), "external", &[("ExternalId", "secret-1")]).await, Ok(()));
    assert!(assume(&root(), "external", &[("ExternalId", "secret-2")]).await.is_err());
    // The account is trusted, so it is for the account's policies to say who of it.
    assert!(assume(&worker, "people", &[]).await.is_err());
    let document = allows("sts:AssumeRole", &arn("people"));
    let give = [("RoleName", "worker"), ("PolicyName", "p"), ("PolicyDocument", document.as_str())];
    server.root("PutRolePolicy", &give).await;
    assert_eq!(assume(&worker, "people", &[]).await, Ok(()));
    assert_eq!(assume(&worker, "direct", &[]).await, Ok(()), "named itself");
}

#[tokio::test]
async fn how_long_a_session_may_last() {
    let server = server();
    let trust = trusts(ACCOUNT);
    let parameters =
        [("RoleName", "r"), ("AssumeRolePolicyDocument", trust.as_str()), ("MaxSessionDuration", "7200")];
    server.root("CreateRole", &parameters).await;
    let document = allows("sts:AssumeRole", "*");
    let give = [("RoleName", "r"), ("PolicyName", "p"), ("PolicyDocument", document.as_str())];
    server.root("PutRolePolicy", &give).await;
    let role = arn("r");
    let assume = async |caller: &Caller, seconds: &str| {
        let asked = [("RoleArn", role.as_str()), ("RoleSessionName", "me"), ("DurationSeconds", seconds)];
        server.ask(caller, "AssumeRole", &asked).await.map(drop).map_err(|fault| (fault.code, fault.message))
    };
    let chained = server.session_of("r");
    assert_eq!(assume(&root(), "7200").await, Ok(()));
    assert_eq!(assume(&chained, "3600").await, Ok(()));
    for (caller, seconds, text) in [
        (root(), "7201", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."),
        (
            chained,
            "3601",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining",
        ),
        (root(), "899", ""),
    ] {
        let (code, message) = assume(&caller, seconds).await.unwrap_err();
        assert_eq!(code, "ValidationError");
        assert!(message.starts_with(text), "{message}");
    }
}

#[tokio::test]
async fn session_policies_travel_with_the_session() {
    let server = server();
    server.make_role("r", &trusts(ACCOUNT)).await;
    let all = allows("*", "*");
    let give = [("RoleName", "r"), ("PolicyName", "p"), ("PolicyDocument", all.as_str())];
    server.root("PutRolePolicy", &give).await;
    let role = arn("r");
    let asked = [("RoleArn", role.as_str()), ("RoleSessionName", "me")];
    let narrow = allows("iam:ListRoles", "*");
    let sqs = "arn:aws:iam::aws:policy/service-role/AWSLambdaSQSQueueExecutionRole";
    let may = async |answer: &str, action: &str| {
        let session = session_in(&server, answer, 0).unwrap();
        let policy = session.session_policy.as_deref();
        let context = Context::default();
        let authorizer = &server.identity.authorizer;
        authorizer.authorize(&session.caller, policy, action, "*", &context, None).is_ok()
    };
    let answer = server.root("AssumeRole", &[&asked[..], &[("Policy", &narrow)]].concat()).await;
    assert_eq!(element(&answer, "PackedPolicySize"), "5");
    assert!(may(&answer, "iam:ListRoles").await);
    assert!(!may(&answer, "sqs:DeleteMessage").await);
    let more = [("Policy", narrow.as_str()), ("PolicyArns.member.1.arn", sqs)];
    let answer = server.root("AssumeRole", &[&asked[..], &more].concat()).await;
    assert!(may(&answer, "iam:ListRoles").await && may(&answer, "sqs:DeleteMessage").await);
    assert!(!may(&answer, "iam:GetRole").await);
    let large = allows("*", &format!("arn:aws:s3:::{}", "x".repeat(2_000)));
    for (more, code) in [
        (("Policy", "{}"), "MalformedPolicyDocument"),
        (("Policy", large.as_str()), "PackedPolicyTooLarge"),
        (("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/NoSuchPolicy"), "MalformedPolicyDocument"),
        (("SourceIdentity", "me"), "ValidationError"),
    ] {
        let fault = server.fault("AssumeRole", &[&asked[..], &[more]].concat()).await;
        assert_eq!(fault.0, code, "{fault:?}");
    }
}

#[tokio::test]
async fn root_has_session_tokens_and_sessions_have_none() {
    let server = server();
    let answer = server.root("GetSessionToken", &[("DurationSeconds", "43200")]).await;
    assert_eq!(session_in(&server, &answer, SOON).unwrap().caller, root());
    assert_eq!(session_in(&server, &answer, 3_601).unwrap_err(), SessionError::Expired);
    server.make_role("r", LAMBDA).await;
    let fault = server.ask(&server.session_of("r"), "GetSessionToken", &[]).await.unwrap_err();
    assert_eq!(fault.message, "Cannot call GetSessionToken with session credentials");
}
