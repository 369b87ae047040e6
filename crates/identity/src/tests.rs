//! The services as their callers meet them: forms in, XML out.

mod authorization;
mod policies;
mod roles;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ondol_core::identity::Home;
use ondol_core::policy::{Caller, Context, Policy};
use ondol_store::Store;
use ondol_wire::fault::Fault;
use ondol_wire::uri::percent_encode;

use crate::{Asker, Authorizer, Enforcement, Identity, Roles, Sessions, call};

const ACCOUNT: &str = "123456789012";

/// A server's identity over a store of its own.
struct Server {
    identity: Identity,
    folder: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn home() -> Home {
    Home { region: "eu-west-1".into(), account_id: ACCOUNT.into() }
}

fn server() -> Server {
    server_with(Enforcement::On)
}

fn server_with(enforcement: Enforcement) -> Server {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("ondol-identity-{}-{number}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let store = Store::open(&folder).unwrap();
    let roles = Roles::new(home());
    roles.read_all(&store);
    let identity = Identity {
        store,
        home: home(),
        authorizer: Authorizer::new(Arc::clone(&roles), enforcement),
        roles,
        sessions: Arc::new(Sessions::new([7; 32], 1)),
        turns: Arc::default(),
    };
    Server { identity, folder }
}

impl Server {
    async fn ask(&self, caller: &Caller, action: &str, parameters: &[(&str, &str)]) -> Result<String, Fault> {
        self.ask_within(caller, None, action, parameters).await
    }

    async fn ask_within(
        &self,
        caller: &Caller,
        session_policy: Option<&Policy>,
        action: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, Fault> {
        let (service, version) =
            if crate::STS_WORKS.contains(&action) { ("sts", "2011-06-15") } else { ("iam", "2010-05-08") };
        let mut form = format!("Action={action}&Version={version}");
        for (name, value) in parameters {
            form.push_str(&format!("&{name}={}", percent_encode(value, false)));
        }
        let context = Context::default();
        let asker = Asker { caller, session_policy, context: &context, access_key_id: Some("AKIA1") };
        let answer = call(&self.identity, &asker, service, form.as_bytes(), "request-1").await?;
        assert_eq!(answer.status, 200);
        Ok(String::from_utf8(answer.body).unwrap())
    }

    /// As root, who is refused nothing.
    async fn root(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.ask(&root(), action, parameters).await.unwrap_or_else(|fault| panic!("{action}: {fault}"))
    }

    /// What root is told instead of an answer.
    async fn fault(&self, action: &str, parameters: &[(&str, &str)]) -> (String, u16, String) {
        let fault = self.ask(&root(), action, parameters).await.expect_err(action);
        (fault.code, fault.status, fault.message)
    }

    async fn make_role(&self, name: &str, trust: &str) {
        self.root("CreateRole", &[("RoleName", name), ("AssumeRolePolicyDocument", trust)]).await;
    }

    /// A session of a role that is there.
    fn session_of(&self, role: &str) -> Caller {
        let policies = self.identity.roles.policies_of(role).unwrap();
        Caller::assumed_role(&policies.arn, &policies.id, "one")
    }
}

fn root() -> Caller {
    Caller::root(ACCOUNT)
}

/// The content of the first element of this name.
fn element<'a>(xml: &'a str, name: &str) -> &'a str {
    let start = xml.find(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    let rest = &xml[start + name.len() + 2..];
    &rest[..rest.find(&format!("</{name}>")).unwrap()]
}

/// The contents of all elements of this name.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("<{name}>");
    let parts = xml.split(start.as_str()).skip(1);
    parts.map(|part| part.split("</").next().unwrap()).collect()
}

fn refused(code: &str, status: u16, text: &str) -> (String, u16, String) {
    (code.into(), status, text.into())
}

/// A trust policy of a service.
const LAMBDA: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"lambda.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;

/// A trust policy of an account or role.
fn trusts(arn: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{{"AWS":"{arn}"}},"Action":"sts:AssumeRole"}}]}}"#
    )
}

fn allows(action: &str, resource: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"{resource}"}}]}}"#
    )
}

#[test]
fn every_operation_of_the_tables_works() {
    for (works, service) in
        [(crate::IAM_WORKS, &ondol_wire::iam::SERVICE), (crate::STS_WORKS, &ondol_wire::sts::SERVICE)]
    {
        let mut works = works.to_vec();
        works.sort_unstable();
        let mut known: Vec<&str> = service.operations.iter().map(|operation| operation.name).collect();
        known.sort_unstable();
        assert_eq!(works, known);
    }
}

/// Connections are served by whichever thread is free.
#[tokio::test]
async fn a_call_can_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let server = server();
    let (caller, context) = (root(), Context::default());
    let asker =
        Asker { caller: &caller, session_policy: None, context: &context, access_key_id: Some("AKIA1") };
    let form = b"Action=GetCallerIdentity&Version=2011-06-15";
    assert!(is_send(call(&server.identity, &asker, "sts", form, "r")).await.is_ok());
}

#[tokio::test]
async fn what_is_no_operation_is_told() {
    let server = server();
    assert_eq!(
        server.fault("CreateRocket", &[]).await,
        refused("InvalidAction", 400, "Could not find operation CreateRocket for version 2010-05-08")
    );
    let (code, ..) = server.fault("GetRole", &[("RoleName", "no such name!")]).await;
    assert_eq!(code, "ValidationError");
    let (code, ..) = server.fault("GetRole", &[]).await;
    assert_eq!(code, "ValidationError");
}
