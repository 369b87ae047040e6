//! Tables of documents and of decisions.

mod brute_force;

use std::sync::Arc;

use super::*;

const ACCOUNT: &str = "123456789012";
const OTHER: &str = "210987654321";
const FUNCTION: &str = "arn:aws:lambda:eu-west-1:123456789012:function:f";
const ROLE: &str = "arn:aws:iam::123456789012:role/app/worker";
const SESSION: &str = "arn:aws:sts::123456789012:assumed-role/worker/one";

fn worker() -> Caller {
    Caller::assumed_role(ROLE, "AROAEXAMPLEEXAMPLE123", "one")
}

fn stranger() -> Caller {
    Caller::assumed_role(format!("arn:aws:iam::{OTHER}:role/theirs"), "AROAEXAMPLEEXAMPLE456", "two")
}

fn document(statements: &str) -> String {
    format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#)
}

fn identity(statements: &str) -> Policy {
    Policy::parse(&document(statements), PolicyUse::Identity).expect(statements)
}

fn resource(statements: &str) -> Policy {
    Policy::parse(&document(statements), PolicyUse::Resource).expect(statements)
}

fn trust(statements: &str) -> Policy {
    Policy::parse(&document(statements), PolicyUse::Trust).expect(statements)
}

/// Everything a decision may depend on, with nothing in it to begin with.
struct Case {
    caller: Caller,
    action: &'static str,
    resource: &'static str,
    context: Context,
    identity: Vec<Arc<Policy>>,
    session: Option<Policy>,
    boundary: Option<Policy>,
    resource_policy: Option<Policy>,
    trust: bool,
}

fn case(caller: Caller) -> Case {
    Case {
        caller,
        action: "lambda:InvokeFunction",
        resource: FUNCTION,
        context: Context::default(),
        identity: Vec::new(),
        session: None,
        boundary: None,
        resource_policy: None,
        trust: false,
    }
}

impl Case {
    fn identity(mut self, statements: &str) -> Self {
        self.identity.push(Arc::new(identity(statements)));
        self
    }

    fn session(mut self, statements: &str) -> Self {
        self.session = Some(identity(statements));
        self
    }

    fn boundary(mut self, statements: &str) -> Self {
        self.boundary = Some(identity(statements));
        self
    }

    fn resource(mut self, statements: &str) -> Self {
        self.resource_policy = Some(resource(statements));
        self
    }

    fn trust(mut self, statements: &str) -> Self {
        self.resource_policy = Some(trust(statements));
        (self.trust, self.action, self.resource) = (true, "sts:AssumeRole", ROLE);
        self
    }

    fn action(mut self, action: &'static str) -> Self {
        self.action = action;
        self
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        self.context.add(key, value);
        self
    }

    fn request(&self) -> Request<'_> {
        Request { caller: &self.caller, action: self.action, resource: self.resource, context: &self.context }
    }

    fn decide(&self) -> Decision {
        let policies = Policies {
            identity: &self.identity,
            session: self.session.as_ref(),
            permissions_boundary: self.boundary.as_ref(),
            resource: self.resource_policy.as_ref(),
            trust: self.trust,
            resource_account: ACCOUNT,
        };
        decide(&self.request(), &policies)
    }
}

const BY_IDENTITY: Decision = Decision::Allow { by: AllowedBy::Identity };
const BY_RESOURCE: Decision = Decision::Allow { by: AllowedBy::Resource };

fn implicit(kind: PolicyKind) -> Decision {
    Decision::Deny { explicit: false, kind }
}

fn explicit(kind: PolicyKind) -> Decision {
    Decision::Deny { explicit: true, kind }
}

const INVOKE: &str =
    r#"{"Effect":"Allow","Action":"lambda:InvokeFunction","Resource":"arn:aws:lambda:*:*:function:f"}"#;
const ALL: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;
const NO_INVOKE: &str = r#"{"Effect":"Deny","Action":"lambda:Invoke*","Resource":"*"}"#;
const OTHER_ACTION: &str = r#"{"Effect":"Allow","Action":"lambda:GetFunction","Resource":"*"}"#;

/// A statement of a resource policy about invoking `f`.
fn about(effect: &str, principal: &str, more: &str) -> String {
    format!(
        r#"{{"Effect":"{effect}",{principal},"Action":"lambda:InvokeFunction","Resource":"{FUNCTION}"{more}}}"#
    )
}

fn aws(arn: &str) -> String {
    format!(r#""Principal":{{"AWS":"{arn}"}}"#)
}

#[test]
fn one_account() {
    use PolicyKind::{Identity, PermissionsBoundary, Resource, Session};
    let root_of = |account| Caller::root(account);
    let account_arn = format!("arn:aws:iam::{ACCOUNT}:root");
    let not_all = |names: &[&str]| format!(r#""NotPrincipal":{{"AWS":{names:?}}}"#);
    for (what, case, expected) in [
        ("nothing allows", case(worker()), implicit(Identity)),
        ("identity allows", case(worker()).identity(INVOKE), BY_IDENTITY),
        ("another action", case(worker()).identity(OTHER_ACTION), implicit(Identity)),
        (
            "an action in another case",
            case(worker()).identity(r#"{"Effect":"Allow","Action":"LAMBDA:invokefunction","Resource":"*"}"#),
            BY_IDENTITY,
        ),
        (
            "a denial wins over an allowance",
            case(worker()).identity(ALL).identity(NO_INVOKE),
            explicit(Identity),
        ),
        (
            "a denial of something else",
            case(worker()).identity(ALL).identity(NO_INVOKE).action("lambda:GetFunction"),
            BY_IDENTITY,
        ),
        (
            "NotAction allows the rest",
            case(worker()).identity(r#"{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}"#),
            BY_IDENTITY,
        ),
        (
            "NotAction excepts",
            case(worker()).identity(r#"{"Effect":"Allow","NotAction":["lambda:*"],"Resource":"*"}"#),
            implicit(Identity),
        ),
        (
            "NotResource excepts",
            case(worker()).identity(&INVOKE.replace("Resource", "NotResource")),
            implicit(Identity),
        ),
        (
            "NotResource allows the rest",
            case(worker()).identity(
                r#"{"Effect":"Allow","Action":"lambda:*","NotResource":"arn:aws:lambda:*:*:function:g"}"#,
            ),
            BY_IDENTITY,
        ),
        (
            "NotResource denies the rest",
            case(worker())
                .identity(ALL)
                .identity(r#"{"Effect":"Deny","Action":"*","NotResource":"arn:aws:lambda:*:*:function:g"}"#),
            explicit(Identity),
        ),
        ("root", case(root_of(ACCOUNT)), Decision::Allow { by: AllowedBy::Root }),
        (
            "a resource policy binds root",
            case(root_of(ACCOUNT)).resource(&about("Deny", r#""Principal":"*""#, "")),
            explicit(Resource),
        ),
        (
            "a resource policy names the role",
            case(worker()).resource(&about("Allow", &aws(ROLE), "")),
            BY_RESOURCE,
        ),
        (
            "a resource policy names the role's id",
            case(worker()).resource(&about("Allow", &aws("AROAEXAMPLEEXAMPLE123"), "")),
            BY_RESOURCE,
        ),
        (
            "a resource policy names the session",
            case(worker()).resource(&about("Allow", &aws(SESSION), "")),
            BY_RESOURCE,
        ),
        (
            "a resource policy names everyone",
            case(worker()).resource(&about("Allow", &aws("*"), "")),
            BY_RESOURCE,
        ),
        (
            "a resource policy names the account, which delegates",
            case(worker()).resource(&about("Allow", &aws(ACCOUNT), "")),
            implicit(Identity),
        ),
        (
            "a resource policy and identity",
            case(worker()).resource(&about("Allow", &aws(&account_arn), "")).identity(INVOKE),
            BY_IDENTITY,
        ),
        (
            "a resource policy denies the account",
            case(worker()).identity(ALL).resource(&about("Deny", &aws(&account_arn), "")),
            explicit(Resource),
        ),
        (
            "a resource policy of somebody else",
            case(worker()).resource(&about("Allow", &aws(OTHER), "")),
            implicit(Identity),
        ),
        (
            "a session policy takes away",
            case(worker()).identity(ALL).session(OTHER_ACTION),
            implicit(Session),
        ),
        ("a session policy gives nothing", case(worker()).session(ALL), implicit(Identity)),
        ("a session policy leaves", case(worker()).identity(ALL).session(INVOKE), BY_IDENTITY),
        (
            "a session policy denies",
            case(worker()).identity(ALL).session(&format!("{ALL},{NO_INVOKE}")),
            explicit(Session),
        ),
        (
            "a session policy binds what the role was given",
            case(worker()).session(OTHER_ACTION).resource(&about("Allow", &aws(ROLE), "")),
            implicit(Session),
        ),
        (
            "not what the session was given",
            case(worker()).session(OTHER_ACTION).resource(&about("Allow", &aws(SESSION), "")),
            BY_RESOURCE,
        ),
        (
            "a boundary takes away",
            case(worker()).identity(ALL).boundary(OTHER_ACTION),
            implicit(PermissionsBoundary),
        ),
        (
            "a boundary denies even the session",
            case(worker()).boundary(NO_INVOKE).resource(&about("Allow", &aws(SESSION), "")),
            explicit(PermissionsBoundary),
        ),
        ("a boundary leaves", case(worker()).identity(ALL).boundary(INVOKE), BY_IDENTITY),
        (
            "NotPrincipal denies all but",
            case(worker()).identity(ALL).resource(&about("Deny", &not_all(&[OTHER]), "")),
            explicit(Resource),
        ),
        (
            "NotPrincipal needs every name of a session",
            case(worker()).identity(ALL).resource(&about("Deny", &not_all(&[ROLE, &account_arn]), "")),
            explicit(Resource),
        ),
        (
            "NotPrincipal excepts",
            case(worker()).identity(ALL).resource(&about(
                "Deny",
                &not_all(&[SESSION, ROLE, &account_arn]),
                "",
            )),
            BY_IDENTITY,
        ),
        (
            "NotPrincipal excepts root",
            case(root_of(ACCOUNT)).resource(&about("Deny", &not_all(&[ACCOUNT]), "")),
            Decision::Allow { by: AllowedBy::Root },
        ),
        (
            "NotPrincipal allows others",
            case(worker()).resource(&about("Allow", &not_all(&[OTHER]), "")),
            BY_RESOURCE,
        ),
        (
            "NotPrincipal does not allow who is named in any way",
            case(worker()).resource(&about("Allow", &not_all(&[ACCOUNT]), "")),
            implicit(Identity),
        ),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
}

#[test]
fn two_accounts_need_both() {
    use PolicyKind::{Identity, Resource, Session};
    let both = Decision::Allow { by: AllowedBy::IdentityAndResource };
    let role = format!("arn:aws:iam::{OTHER}:role/theirs");
    for (what, case, expected) in [
        ("neither", case(stranger()), implicit(Identity)),
        ("identity", case(stranger()).identity(ALL), implicit(Resource)),
        ("resource", case(stranger()).resource(&about("Allow", &aws(OTHER), "")), implicit(Identity)),
        (
            "resource, by session",
            case(stranger()).resource(&about("Allow", &aws("*"), "")),
            implicit(Identity),
        ),
        ("both", case(stranger()).identity(ALL).resource(&about("Allow", &aws(OTHER), "")), both),
        ("both, by role", case(stranger()).identity(INVOKE).resource(&about("Allow", &aws(&role), "")), both),
        (
            "less a session policy",
            case(stranger()).identity(ALL).session(OTHER_ACTION).resource(&about("Allow", &aws(&role), "")),
            implicit(Session),
        ),
        ("their root", case(Caller::root(OTHER)), implicit(Resource)),
        ("their root, let in", case(Caller::root(OTHER)).resource(&about("Allow", &aws(OTHER), "")), both),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
}

#[test]
fn services_and_strangers_by_resource_policies_alone() {
    use PolicyKind::Resource;
    let s3 = r#""Principal":{"Service":"s3.amazonaws.com"}"#;
    let anyone = r#""Principal":"*""#;
    let from = r#","Condition":{"ArnLike":{"AWS:SourceArn":"arn:aws:s3:::bucket"},"StringEquals":{"AWS:SourceAccount":"123456789012"}}"#;
    let url = r#","Condition":{"StringEquals":{"lambda:FunctionUrlAuthType":"NONE"}}"#;
    let by_url = r#","Condition":{"Bool":{"lambda:InvokedViaFunctionUrl":"true"}}"#;
    let s3_call = || case(Caller::service("s3.amazonaws.com"));
    let arn = "arn:aws:s3:::bucket";
    for (what, case, expected) in [
        ("no policy", s3_call(), implicit(Resource)),
        ("identity does not matter", s3_call().identity(ALL), implicit(Resource)),
        ("named", s3_call().resource(&about("Allow", s3, "")), BY_RESOURCE),
        (
            "another service",
            case(Caller::service("sns.amazonaws.com")).resource(&about("Allow", s3, "")),
            implicit(Resource),
        ),
        (
            "the right source",
            s3_call()
                .resource(&about("Allow", s3, from))
                .with("aws:SourceArn", arn)
                .with("aws:SourceAccount", ACCOUNT),
            BY_RESOURCE,
        ),
        (
            "the wrong account",
            s3_call()
                .resource(&about("Allow", s3, from))
                .with("aws:SourceArn", arn)
                .with("aws:SourceAccount", OTHER),
            implicit(Resource),
        ),
        ("no source", s3_call().resource(&about("Allow", s3, from)), implicit(Resource)),
        (
            "denied",
            s3_call().resource(&format!("{},{}", about("Allow", s3, ""), about("Deny", anyone, ""))),
            explicit(Resource),
        ),
        (
            "a public URL",
            case(Caller::anonymous())
                .resource(&about("Allow", anyone, url))
                .with("lambda:FunctionUrlAuthType", "NONE"),
            BY_RESOURCE,
        ),
        (
            "a URL with authorization",
            case(Caller::anonymous())
                .resource(&about("Allow", anyone, url))
                .with("lambda:FunctionUrlAuthType", "AWS_IAM"),
            implicit(Resource),
        ),
        (
            "only by URL",
            case(Caller::anonymous()).resource(&about("Allow", anyone, by_url)),
            implicit(Resource),
        ),
        (
            "by URL",
            case(Caller::anonymous())
                .resource(&about("Allow", anyone, by_url))
                .with("lambda:InvokedViaFunctionUrl", "true"),
            BY_RESOURCE,
        ),
        (
            "an account is nobody unsigned",
            case(Caller::anonymous()).resource(&about("Allow", &aws(ACCOUNT), "")),
            implicit(Resource),
        ),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
}

#[test]
fn condition_keys_of_the_caller_and_of_lambda() {
    let allow = |condition: &str| {
        format!(r#"{{"Effect":"Allow","Action":"lambda:*","Resource":"*","Condition":{condition}}}"#)
    };
    let layer = "arn:aws:lambda:eu-west-1:123456789012:layer:tools:3";
    for (condition, key, value, allowed) in [
        (r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/app/*"}}"#, "x:y", "", true),
        (r#"{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/other/*"}}"#, "x:y", "", false),
        // What the request says of itself does not replace what is known of the caller.
        (
            r#"{"StringEquals":{"aws:PrincipalAccount":"999999999999"}}"#,
            "aws:PrincipalAccount",
            "999999999999",
            false,
        ),
        (r#"{"StringEquals":{"aws:PrincipalAccount":"123456789012"}}"#, "x:y", "", true),
        (r#"{"StringEquals":{"aws:PrincipalType":"AssumedRole"}}"#, "x:y", "", true),
        (r#"{"StringLike":{"aws:userid":"AROAEXAMPLEEXAMPLE123:*"}}"#, "x:y", "", true),
        (r#"{"Bool":{"aws:PrincipalIsAWSService":"false"}}"#, "x:y", "", true),
        (
            r#"{"StringEquals":{"lambda:Principal":"s3.amazonaws.com"}}"#,
            "lambda:Principal",
            "s3.amazonaws.com",
            true,
        ),
        (
            r#"{"ArnLike":{"lambda:FunctionArn":"arn:aws:lambda:*:*:function:f*"}}"#,
            "lambda:FunctionArn",
            FUNCTION,
            true,
        ),
        (
            r#"{"ForAllValues:StringLike":{"lambda:Layer":["arn:aws:lambda:*:123456789012:layer:*"]}}"#,
            "lambda:Layer",
            layer,
            true,
        ),
        (
            r#"{"ForAllValues:StringLike":{"lambda:Layer":["arn:aws:lambda:*:999999999999:layer:*"]}}"#,
            "lambda:Layer",
            layer,
            false,
        ),
        (r#"{"Null":{"lambda:Layer":"false"}}"#, "x:y", "", false),
        (
            r#"{"StringEquals":{"lambda:FunctionUrlAuthType":"AWS_IAM"}}"#,
            "lambda:FunctionUrlAuthType",
            "AWS_IAM",
            true,
        ),
        (
            r#"{"Bool":{"aws:SecureTransport":true},"NumericLessThan":{"aws:MultiFactorAuthAge":3600}}"#,
            "aws:SecureTransport",
            "true",
            false,
        ),
        (
            r#"{"StringEquals":{"aws:PrincipalTag/team":"${aws:RequestTag/team}"}}"#,
            "aws:PrincipalTag/Team",
            "red",
            false,
        ),
    ] {
        let decision = case(worker()).identity(&allow(condition)).with(key, value).decide();
        assert_eq!(decision.is_allowed(), allowed, "{condition} with {key}={value}");
    }
}

#[test]
fn a_role_is_assumed_only_with_its_own_consent() {
    use PolicyKind::{Identity, RoleTrust};
    let assume = r#"{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}"#;
    let trusts = |principal: &str| {
        format!(r#"{{"Effect":"Allow","Principal":{principal},"Action":"sts:AssumeRole"}}"#)
    };
    let account = trusts(&format!(r#"{{"AWS":"{ACCOUNT}"}}"#));
    let role = trusts(&format!(r#"{{"AWS":"{ROLE}"}}"#));
    let service = trusts(r#"{"Service":["lambda.amazonaws.com"]}"#);
    let with_id = account.replace(
        r#""sts:AssumeRole"}"#,
        r#""sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"secret"}}}"#,
    );
    let root = || Caller::root(ACCOUNT);
    for (what, case, expected) in [
        ("a service", case(Caller::service("lambda.amazonaws.com")).trust(&service), BY_RESOURCE),
        ("root does not stand above it", case(root()).trust(&service), implicit(RoleTrust)),
        ("root of a trusted account", case(root()).trust(&account), Decision::Allow { by: AllowedBy::Root }),
        ("root without the external id", case(root()).trust(&with_id), implicit(RoleTrust)),
        (
            "root with it",
            case(root()).trust(&with_id).with("sts:ExternalId", "secret"),
            Decision::Allow { by: AllowedBy::Root },
        ),
        ("identity is not enough", case(worker()).trust(&service).identity(assume), implicit(RoleTrust)),
        ("nothing at all", case(worker()).trust(&service), implicit(RoleTrust)),
        ("the account is not enough", case(worker()).trust(&account), implicit(Identity)),
        ("the account and identity", case(worker()).trust(&account).identity(assume), BY_IDENTITY),
        ("the role", case(worker()).trust(&role), BY_RESOURCE),
    ] {
        assert_eq!(case.decide(), expected, "{what}");
    }
}

#[test]
fn denials_in_aws_words() {
    let who = format!(
        "User: {SESSION} is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION}"
    );
    for (case, end) in [
        (case(worker()), "because no identity-based policy allows the lambda:InvokeFunction action"),
        (case(worker()).identity(NO_INVOKE), "with an explicit deny in an identity-based policy"),
        (
            case(worker()).resource(&about("Deny", r#""Principal":"*""#, "")),
            "with an explicit deny in a resource-based policy",
        ),
        (
            case(worker()).identity(ALL).session(OTHER_ACTION),
            "because no session policy allows the lambda:InvokeFunction action",
        ),
        (case(worker()).identity(ALL).session(NO_INVOKE), "with an explicit deny in a session policy"),
        (
            case(worker()).identity(ALL).boundary(OTHER_ACTION),
            "because no permissions boundary allows the lambda:InvokeFunction action",
        ),
        (case(worker()).identity(ALL).boundary(NO_INVOKE), "with an explicit deny in a permissions boundary"),
    ] {
        assert_eq!(case.decide().denial(&case.request()), Some(format!("{who} {end}")));
    }
    let stranger = case(Caller::service("s3.amazonaws.com"));
    assert_eq!(
        stranger.decide().denial(&stranger.request()).unwrap(),
        format!(
            "User: s3.amazonaws.com is not authorized to perform: lambda:InvokeFunction on resource: {FUNCTION} because no resource-based policy allows the lambda:InvokeFunction action"
        )
    );
    let root = case(Caller::root(ACCOUNT));
    assert_eq!(root.decide().denial(&root.request()), None);
}

#[test]
fn callers_names() {
    for (caller, arn, user_id) in [
        (Caller::root(ACCOUNT), "arn:aws:iam::123456789012:root", ACCOUNT),
        (worker(), SESSION, "AROAEXAMPLEEXAMPLE123:one"),
        (Caller::service("s3.amazonaws.com"), "s3.amazonaws.com", "s3.amazonaws.com"),
        (Caller::anonymous(), "anonymous", "anonymous"),
    ] {
        assert_eq!((caller.arn().as_str(), caller.user_id().as_str()), (arn, user_id));
    }
    assert_eq!((worker().account_id.as_str(), worker().role_name()), (ACCOUNT, Some("worker")));
}

#[test]
fn documents_are_kept_as_given() {
    let text = "{ \"Statement\": {\"Effect\":\"Deny\",\"NotAction\":\"s3:*\",\"Resource\":\"*\"},\n \"Id\":\"x\", \"Version\":\"2012-10-17\"}";
    let policy = Policy::parse(text, PolicyUse::Identity).unwrap();
    assert_eq!((policy.text(), policy.id.as_deref(), policy.statements.len()), (text, Some("x"), 1));
    assert_eq!(policy.statements[0].effect, Effect::Deny);
}

#[test]
fn a_variable_without_a_value_excepts_nothing() {
    let but_own = |effect: &str| {
        format!(
            r#"{{"Effect":"{effect}","Action":"*","NotResource":"arn:aws:lambda:*:*:function:${{aws:username}}"}}"#
        )
    };
    assert_eq!(case(worker()).identity(&but_own("Allow")).decide(), implicit(PolicyKind::Identity));
    let denied = case(worker()).identity(ALL).identity(&but_own("Deny"));
    assert_eq!(denied.decide(), explicit(PolicyKind::Identity));
    let named = || case(worker()).with("aws:username", "f");
    assert_eq!(named().identity(ALL).identity(&but_own("Deny")).decide(), BY_IDENTITY);
    assert_eq!(named().identity(&but_own("Allow")).decide(), implicit(PolicyKind::Identity));
}

#[test]
fn variables_came_with_the_later_version() {
    let read = |version: &str| {
        let text = format!(
            r#"{{"Version":"{version}","Statement":{{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::${{aws:userid}}"}}}}"#
        );
        Policy::parse(&text, PolicyUse::Resource).unwrap()
    };
    let bucket = "arn:aws:s3:::123456789012";
    let caller = Caller::root(ACCOUNT);
    let context = Context::default();
    for (policy, resource, expected) in [
        (read("2008-10-17"), "arn:aws:s3:::${aws:userid}", true),
        (read("2008-10-17"), bucket, false),
        (read("2012-10-17"), bucket, true),
    ] {
        let request = Request { caller: &caller, action: "s3:GetObject", resource, context: &context };
        let policies = Policies { resource: Some(&policy), resource_account: ACCOUNT, ..Policies::default() };
        let by_resource = decide(&request, &policies) == BY_RESOURCE;
        assert_eq!(by_resource, expected, "{resource}");
    }
}

#[test]
fn malformed_documents_are_told_in_aws_words() {
    use PolicyUse::{Identity, Resource, Trust};
    const SYNTAX: &str = "Syntax errors in policy.";
    let many = |statement: &str| document(statement);
    for (for_use, text, expected) in [
        (Identity, "{".to_owned(), SYNTAX),
        (Trust, "{".to_owned(), "This policy contains invalid Json"),
        (Identity, "[]".to_owned(), SYNTAX),
        (Identity, r#"{"Version":"2012-10-17"}"#.to_owned(), SYNTAX),
        (Identity, many(""), SYNTAX),
        (Identity, r#"{"Version":"2020-01-01","Statement":[]}"#.to_owned(), SYNTAX),
        (
            Identity,
            format!(r#"{{"Statement":{ALL}}}"#),
            "Policy document must be version 2012-10-17 or greater.",
        ),
        (
            Identity,
            format!(r#"{{"Version":"2008-10-17","Statement":{ALL}}}"#),
            "Policy document must be version 2012-10-17 or greater.",
        ),
        (Identity, format!(r#"{{"Version":"2012-10-17","Extra":1,"Statement":{ALL}}}"#), SYNTAX),
        (Identity, many(r#"{"Effect":"Allow","Action":"*","Resource":"*","Extra":1}"#), SYNTAX),
        (Identity, many(r#"{"Effect":"allow","Action":"*","Resource":"*"}"#), SYNTAX),
        (Identity, many(r#"{"Action":"*","Resource":"*"}"#), SYNTAX),
        (Identity, many(r#"{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}"#), SYNTAX),
        (Identity, many(r#"{"Effect":"Allow","Resource":"*"}"#), "Policy statement must contain actions."),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":[],"Resource":"*"}"#),
            "Policy statement must contain actions.",
        ),
        (Identity, many(r#"{"Effect":"Allow","Action":"*"}"#), "Policy statement must contain resources."),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"*","Resource":[]}"#),
            "Policy statement must contain resources.",
        ),
        (Identity, many(r#"{"Effect":"Allow","Action":7,"Resource":"*"}"#), SYNTAX),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"invoke","Resource":"*"}"#),
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"a:b:c","Resource":"*"}"#),
            "Actions/Condition can contain only one colon.",
        ),
        (Identity, many(r#"{"Effect":"Allow","Action":"a_b:c","Resource":"*"}"#), "Vendor a_b is not valid"),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"*","Resource":"f"}"#),
            "Resource f must be in ARN format or \"*\".",
        ),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"*","Resource":"arn:cloud:s3:::b"}"#),
            "Partition \"cloud\" is not valid for resource \"arn:cloud:s3:::b\".",
        ),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3"}"#),
            "Resource vendor must be fully qualified and cannot contain regexes.",
        ),
        (
            Identity,
            many(r#"{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}"#),
            "Policy document should not specify a principal.",
        ),
        (
            Identity,
            many(&format!(
                "{},{}",
                ALL.replace("{\"Eff", "{\"Sid\":\"a\",\"Eff"),
                ALL.replace("{\"Eff", "{\"Sid\":\"a\",\"Eff")
            )),
            "Statement IDs (SID) in a single policy must be unique.",
        ),
        (
            Identity,
            many(&ALL.replace("{\"Eff", "{\"Sid\":\"a b\",\"Eff")),
            "Statement IDs (SID) must be alpha-numeric.",
        ),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringIs":{"aws:x":"y"}}}"#),
            SYNTAX,
        ),
        (
            Identity,
            many(
                r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"aws:x":"perhaps"}}}"#,
            ),
            SYNTAX,
        ),
        (
            Identity,
            many(r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"x":"true"}}}"#),
            "Actions/Conditions must be prefaced by a vendor",
        ),
        (Identity, many(r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":[]}"#), SYNTAX),
        (
            Trust,
            many(r#"{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole","Resource":"*"}"#),
            "Has prohibited field Resource",
        ),
        (Trust, many(r#"{"Effect":"Allow","Action":"sts:AssumeRole"}"#), "Missing required field Principal"),
        (
            Trust,
            many(r#"{"Effect":"Allow","Principal":"*","Action":"lambda:*"}"#),
            "AssumeRole policy may only specify STS AssumeRole actions.",
        ),
        (
            Trust,
            many(r#"{"Effect":"Allow","Principal":{"Service":"lambda"},"Action":"sts:AssumeRole"}"#),
            "Invalid principal in policy: \"SERVICE\":\"lambda\"",
        ),
        (
            Trust,
            many(
                r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::1:role/x"},"Action":"sts:AssumeRole"}"#,
            ),
            "Invalid principal in policy: \"AWS\":\"arn:aws:iam::1:role/x\"",
        ),
        (
            Trust,
            many(
                r#"{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:role/*"},"Action":"sts:AssumeRole"}"#,
            ),
            "Invalid principal in policy",
        ),
        (Trust, many(r#"{"Effect":"Allow","Principal":{},"Action":"sts:AssumeRole"}"#), SYNTAX),
        (
            Resource,
            many(r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#),
            "Missing required field Principal",
        ),
        (
            Resource,
            many(r#"{"Effect":"Allow","Principal":"*","Action":"*"}"#),
            "Policy statement must contain resources.",
        ),
    ] {
        let message = Policy::parse(&text, for_use).map(|_| ()).expect_err(&text).message;
        assert!(message.starts_with(expected), "{text}: {message}");
    }
}

#[test]
fn principals_in_every_form() {
    let text = format!(
        r#"{{"Effect":"Allow","Principal":{{"AWS":["{ACCOUNT}","{ROLE}","{SESSION}","*","arn:aws:iam::{ACCOUNT}:user/u"],"Service":"events.amazonaws.com","Federated":"cognito-identity.amazonaws.com","CanonicalUser":"abc"}},"Action":"sts:AssumeRole"}}"#
    );
    let policy = trust(&text);
    let list = policy.statements[0].principals.as_ref().unwrap().list().to_vec();
    assert_eq!(
        list,
        vec![
            Principal::Account(ACCOUNT.into()),
            Principal::Role(ROLE.into()),
            Principal::Session(SESSION.into()),
            Principal::Anyone,
            Principal::Other(format!("arn:aws:iam::{ACCOUNT}:user/u")),
            Principal::Service("events.amazonaws.com".into()),
            Principal::Federated("cognito-identity.amazonaws.com".into()),
            Principal::CanonicalUser("abc".into()),
        ]
    );
}

#[test]
fn the_confused_deputy() {
    let lambda = |condition: &str| {
        trust(&format!(
            r#"{{"Effect":"Allow","Principal":{{"Service":"lambda.amazonaws.com"}},"Action":"sts:AssumeRole"{condition}}}"#
        ))
    };
    for (condition, expected) in [
        ("", true),
        (r#","Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"}}"#, false),
        (r#","Condition":{"ArnLike":{"aws:SourceArn":"arn:aws:lambda:*:123456789012:function:*"}}"#, false),
        (r#","Condition":{"StringNotEquals":{"aws:SourceAccount":"123456789012"}}"#, true),
        (r#","Condition":{"StringEqualsIfExists":{"aws:SourceAccount":"123456789012"}}"#, true),
        (r#","Condition":{"StringEquals":{"aws:RequestedRegion":"eu-west-1"}}"#, true),
    ] {
        assert_eq!(confused_deputy(&lambda(condition)), expected, "{condition}");
    }
    let other =
        trust(r#"{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}"#);
    assert!(!confused_deputy(&other));
    assert!(confused_deputy(&trust(r#"{"Effect":"Allow","Principal":"*","Action":"sts:*"}"#)));
    let context = Context::default();
    assert!(trusts_service(&lambda(""), "lambda.amazonaws.com", ROLE, &context));
    assert!(!trusts_service(&other, "lambda.amazonaws.com", ROLE, &context));
    let pinned = lambda(r#","Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"}}"#);
    assert!(!trusts_service(&pinned, "lambda.amazonaws.com", ROLE, &context));
    let ours = Context::default().with("aws:SourceAccount", ACCOUNT);
    assert!(trusts_service(&pinned, "lambda.amazonaws.com", ROLE, &ours));
}
