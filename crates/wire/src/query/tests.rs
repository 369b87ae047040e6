use super::*;
use crate::fault::ErrorFormat;
use crate::iam::{self, types::*};
use crate::sts;
use crate::sts::types::{AssumeRoleResponse, Credentials};

fn fault(service: &Service, action: &str, rest: &str) -> Fault {
    let operation = service.operation(action).unwrap();
    let form = format!("Action={action}&Version={}&{rest}", service.api_version);
    read_input::<serde_json::Value>(service, operation, form.as_bytes()).unwrap_err()
}

#[test]
fn a_form_as_sdks_send_it_becomes_a_typed_input() {
    let form = b"Action=CreateRole&Version=2010-05-08&Path=%2Fservice%2F&RoleName=my-role&AssumeRolePolicyDocument=%7B%22a%22%3A+1%7D&MaxSessionDuration=3600&Tags.member.2.Key=b&Tags.member.2.Value=&Tags.member.10.Key=c&Tags.member.10.Value=z&Tags.member.1.Key=a&Tags.member.1.Value=x+y";
    let operation = find_operation(&iam::SERVICE, form).unwrap();
    let input: CreateRoleRequest = read_input(&iam::SERVICE, operation, form).unwrap();
    assert_eq!(input.role_name.as_deref(), Some("my-role"));
    assert_eq!(input.path.as_deref(), Some("/service/"));
    assert_eq!(input.assume_role_policy_document.as_deref(), Some("{\"a\": 1}"));
    assert_eq!(input.max_session_duration, Some(3600));
    let tags: Vec<_> =
        input.tags.unwrap().into_iter().map(|tag| (tag.key.unwrap(), tag.value.unwrap())).collect();
    // Items go by number, not by text: 10 comes after 2.
    assert_eq!(tags, [("a", "x y"), ("b", ""), ("c", "z")].map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn an_empty_list_is_there_and_empty() {
    let form = b"Action=TagRole&Version=2010-05-08&RoleName=r&Tags=";
    let input: TagRoleRequest =
        read_input(&iam::SERVICE, iam::SERVICE.operation("TagRole").unwrap(), form).unwrap();
    assert_eq!(input.tags, Some(Vec::new()));
}

#[test]
fn unknown_actions_and_versions_are_named_together() {
    let cases = [
        (
            "Action=Frobnicate&Version=2010-05-08",
            "Could not find operation Frobnicate for version 2010-05-08",
        ),
        ("Action=Frobnicate", "Could not find operation Frobnicate for version NO_VERSION_SPECIFIED"),
    ];
    for (form, text) in cases {
        assert_eq!(match_operation(&iam::SERVICE, form.as_bytes()).map(|found| found.name), None);
        let fault = find_operation(&iam::SERVICE, form.as_bytes()).unwrap_err();
        assert_eq!((fault.code.as_str(), fault.status, fault.message.as_str()), ("InvalidAction", 400, text));
    }
    assert_eq!(find_operation(&iam::SERVICE, b"Version=2010-05-08").unwrap_err().code, "MissingAction");
    let operation = sts::SERVICE.operation("GetCallerIdentity").unwrap();
    let form = b"Action=GetCallerIdentity&Version=2010-05-08";
    let fault = read_input::<serde_json::Value>(&sts::SERVICE, operation, form).unwrap_err();
    assert_eq!(fault.message, "Could not find operation GetCallerIdentity for version 2010-05-08");
}

#[test]
fn broken_constraints_are_worded_as_aws_words_them() {
    let missing = fault(&iam::SERVICE, "GetRole", "");
    assert_eq!((missing.code.as_str(), missing.status), ("ValidationError", 400));
    assert_eq!(
        missing.message,
        "1 validation error detected: Value null at 'roleName' failed to satisfy constraint: Member must not be null"
    );
    let short =
        fault(&sts::SERVICE, "AssumeRole", "RoleArn=arn:aws:iam::000000000000:role/r&RoleSessionName=x");
    assert_eq!(
        short.message,
        "1 validation error detected: Value 'x' at 'roleSessionName' failed to satisfy constraint: Member must have length greater than or equal to 2"
    );
    let nested = fault(&iam::SERVICE, "TagRole", "RoleName=r&Tags.member.1.Key=k");
    assert!(nested.message.contains("Value null at 'tags.1.member.value'"), "{nested}");
}

#[test]
fn parts_that_do_not_fit_the_shape_are_refused() {
    for (action, rest) in [
        ("ListRoles", "MaxItems=many"),
        ("TagRole", "RoleName=r&Tags.member.x.Key=k"),
        ("TagRole", "RoleName=r&Tags.member.-1.Key=k"),
        ("TagRole", "RoleName=r&Tags.member.99999999999.Key=k"),
        ("TagRole", "RoleName=r&Tags=text"),
        ("GetRole", "RoleName.member.1=r"),
        (
            "CreatePolicyVersion",
            "PolicyArn=arn:aws:iam::000000000000:policy/p&PolicyDocument=x&SetAsDefault=maybe",
        ),
    ] {
        assert_eq!(fault(&iam::SERVICE, action, rest).code, "MalformedInput", "{action} {rest}");
    }
}

fn text(answer: crate::rest_json::Answer) -> String {
    String::from_utf8(answer.body).unwrap()
}

#[test]
fn an_output_is_wrapped_escaped_and_in_the_order_of_the_model() {
    let role = Role {
        path: Some("/".into()),
        role_name: Some("a<b".into()),
        create_date: Some(1_795_341_363.9),
        tags: Some(vec![Tag { key: Some("k".into()), value: Some("&\u{1}".into()) }]),
        max_session_duration: Some(3600),
        ..Role::default()
    };
    let output = ListRolesResponse { roles: Some(vec![role]), is_truncated: Some(false), marker: None };
    let operation = iam::SERVICE.operation("ListRoles").unwrap();
    assert_eq!(
        text(write_output(&iam::SERVICE, operation, &output, "id-1").unwrap()),
        "<ListRolesResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><ListRolesResult><Roles><member><Path>/</Path><RoleName>a&lt;b</RoleName><CreateDate>2026-11-22T09:56:03Z</CreateDate><MaxSessionDuration>3600</MaxSessionDuration><Tags><member><Key>k</Key><Value>&amp;\u{fffd}</Value></member></Tags></member></Roles><IsTruncated>false</IsTruncated></ListRolesResult><ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></ListRolesResponse>"
    );
}

#[test]
fn an_operation_without_an_output_answers_its_metadata_alone() {
    let operation = iam::SERVICE.operation("DeleteRole").unwrap();
    let answer = write_output(&iam::SERVICE, operation, &(), "id-2").unwrap();
    assert_eq!((answer.status, answer.headers[0].1.as_str()), (200, "text/xml"));
    assert_eq!(
        text(answer),
        "<DeleteRoleResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><ResponseMetadata><RequestId>id-2</RequestId></ResponseMetadata></DeleteRoleResponse>"
    );
}

#[test]
fn credentials_expire_at_a_whole_second() {
    let credentials = Credentials { expiration: Some(0.0), ..Credentials::default() };
    let output = AssumeRoleResponse { credentials: Some(credentials), ..AssumeRoleResponse::default() };
    let operation = sts::SERVICE.operation("AssumeRole").unwrap();
    let body = text(write_output(&sts::SERVICE, operation, &output, "id").unwrap());
    assert!(body.contains("<AssumeRoleResult><Credentials><Expiration>1970-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>"), "{body}");
}

#[test]
fn errors_carry_the_namespace_and_the_code_of_the_wire() {
    let fault = Fault::of(&iam::SERVICE, "NoSuchEntity", "The role with name r cannot be found.");
    let answer = fault.answer(ErrorFormat::Query, Some(&iam::SERVICE), "id-3");
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.body,
        "<ErrorResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><Error><Type>Sender</Type><Code>NoSuchEntity</Code><Message>The role with name r cannot be found.</Message></Error><RequestId>id-3</RequestId></ErrorResponse>"
    );
    let refused = Fault::new("InvalidSignatureException", 403, "no").answer(ErrorFormat::Query, None, "i");
    assert!(refused.body.contains("<Code>SignatureDoesNotMatch</Code>"), "{}", refused.body);
}

/// Every operation of both services reads an empty form without a panic and writes an empty output.
#[test]
fn every_operation_goes_both_ways() {
    for service in [&iam::SERVICE, &sts::SERVICE] {
        for operation in service.operations {
            let form = format!("Action={}&Version={}", operation.name, service.api_version);
            assert_eq!(match_operation(service, form.as_bytes()).map(|o| o.name), Some(operation.name));
            if let Err(fault) = read_input::<serde_json::Value>(service, operation, form.as_bytes()) {
                assert_eq!(fault.code, "ValidationError", "{}", operation.name);
            }
            assert_eq!(operation.output.is_some(), operation.result_wrapper.is_some(), "{}", operation.name);
            write_output(service, operation, &serde_json::json!({}), "id").unwrap();
        }
    }
}
