//! An AWS error, and the form each protocol gives it on the wire.

use serde_json::json;

use crate::model::Service;
use crate::xml::escape;

/// An error answer: AWS's code, the HTTP status, and the sentence users read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: String,
    pub status: u16,
    pub message: String,
    /// Further members of the body, such as a throttle's `Reason`.
    pub members: Vec<(&'static str, String)>,
    pub headers: Vec<(&'static str, String)>,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.code, self.status, self.message)
    }
}

impl std::error::Error for Fault {}

/// How a service writes its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    RestJson,
    Json,
    Query,
    Ec2,
    RestXml,
}

impl ErrorFormat {
    /// The format of a service, by the name in its signing scope.
    pub fn of_service(signing_name: &str) -> Self {
        match signing_name {
            "ec2" => Self::Ec2,
            "s3" | "route53" | "cloudfront" => Self::RestXml,
            "sts"
            | "iam"
            | "cloudformation"
            | "sns"
            | "autoscaling"
            | "elasticloadbalancing"
            | "rds"
            | "elasticbeanstalk"
            | "ses" => Self::Query,
            "lambda" | "xray" | "scheduler" | "apigateway" | "execute-api" | "batch"
            | "elasticfilesystem" | "eks" | "pipes" | "resource-groups" | "schemas" => Self::RestJson,
            _ => Self::Json,
        }
    }
}

/// An error as bytes: status, headers, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Fault {
    pub fn new(code: impl Into<String>, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.into(), status, message: message.into(), members: Vec::new(), headers: Vec::new() }
    }

    /// A modelled error of a service, with the status its model gives.
    pub fn of(service: &Service, code: &'static str, message: impl Into<String>) -> Self {
        let status = service.error(code).map_or(400, |error| error.status);
        Self::new(code, status, message)
    }

    pub fn with_member(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.members.push((name, value.into()));
        self
    }

    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Of a request whose body is not read: its connection carries no other one, and its client is told so.
    #[must_use]
    pub fn with_body_unread(self, has_body: bool) -> Self {
        if has_body { self.with_header("connection", "close") } else { self }
    }

    /// Writes the error as the protocol wants it. `service` gives the spelling of the message member.
    pub fn answer(&self, format: ErrorFormat, service: Option<&Service>, request_id: &str) -> ErrorAnswer {
        let mut headers = self.headers.clone();
        headers.push(("x-amzn-requestid", request_id.to_owned()));
        let (content_type, body) = match format {
            ErrorFormat::RestJson => {
                headers.push(("x-amzn-errortype", self.code.clone()));
                let spelling =
                    service.and_then(|service| service.error(&self.code)).map(|error| error.message_member);
                let mut body = serde_json::Map::new();
                // Lambda's errors alone say whose they are.
                if spelling.is_some() && service.is_some_and(|service| service.signing_name == "lambda") {
                    body.insert("Type".into(), json!(if self.status < 500 { "User" } else { "Service" }));
                }
                // Some refusals of AWS say nothing, which clients see as no text.
                let message = (!self.message.is_empty()).then_some(&self.message);
                // Of what no model has, this one is written so.
                let other = if self.code == "SerializationException" { "Message" } else { "message" };
                body.insert(spelling.unwrap_or(other).into(), json!(message));
                for (name, value) in &self.members {
                    body.insert((*name).into(), json!(value));
                }
                ("application/json", serde_json::Value::Object(body).to_string())
            }
            ErrorFormat::Json => {
                headers.push(("x-amzn-errortype", self.code.clone()));
                (
                    "application/x-amz-json-1.1",
                    json!({"__type": self.code, "message": self.message}).to_string(),
                )
            }
            ErrorFormat::Query => {
                let side = if self.status < 500 { "Sender" } else { "Receiver" };
                let (code, message, id) = (
                    escape(code_in_xml(&self.code)),
                    escape(&message_in_xml(&self.message)),
                    escape(request_id),
                );
                let namespace = service
                    .and_then(|service| service.xml_namespace)
                    .map_or_else(String::new, |namespace| format!(" xmlns=\"{}\"", escape(namespace)));
                (
                    "text/xml",
                    format!(
                        "<ErrorResponse{namespace}><Error><Type>{side}</Type><Code>{code}</Code><Message>{message}</Message></Error><RequestId>{id}</RequestId></ErrorResponse>"
                    ),
                )
            }
            ErrorFormat::Ec2 => {
                let (code, message, id) =
                    (escape(code_in_xml(&self.code)), escape(&self.message), escape(request_id));
                (
                    "text/xml",
                    format!(
                        "<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors><RequestID>{id}</RequestID></Response>"
                    ),
                )
            }
            ErrorFormat::RestXml => {
                let (code, message, id) =
                    (escape(code_in_xml(&self.code)), escape(&self.message), escape(request_id));
                (
                    "application/xml",
                    format!(
                        "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>{id}</RequestId></Error>"
                    ),
                )
            }
        };
        ErrorAnswer { status: self.status, content_type, headers, body }
    }
}

/// The sentence about a request that is not signed at all differs as well.
fn message_in_xml(message: &str) -> String {
    if message == "Missing Authentication Token" {
        format!("Request is missing {}", &message[8..])
    } else {
        message.to_owned()
    }
}

/// The older protocols say the same of a signature in words of their own.
fn code_in_xml(code: &str) -> &str {
    match code {
        "InvalidSignatureException" => "SignatureDoesNotMatch",
        "UnrecognizedClientException" => "InvalidClientTokenId",
        "IncompleteSignatureException" => "IncompleteSignature",
        "MissingAuthenticationTokenException" => "MissingAuthenticationToken",
        "AccessDeniedException" => "AccessDenied",
        "ExpiredTokenException" => "ExpiredToken",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lambda::SERVICE;

    #[test]
    fn lambda_errors_carry_type_and_their_own_spelling_of_message() {
        let fault = Fault::of(&SERVICE, "ResourceNotFoundException", "gone");
        let answer = fault.answer(ErrorFormat::RestJson, Some(&SERVICE), "id-1");
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"Type":"User","Message":"gone"}"#));
        let fault = Fault::of(&SERVICE, "TooManyRequestsException", "Rate Exceeded.")
            .with_member("Reason", "ConcurrentInvocationLimitExceeded");
        let answer = fault.answer(ErrorFormat::RestJson, Some(&SERVICE), "id-1");
        assert_eq!(
            answer.body,
            r#"{"Type":"User","message":"Rate Exceeded.","Reason":"ConcurrentInvocationLimitExceeded"}"#
        );
        assert!(answer.headers.contains(&("x-amzn-errortype", "TooManyRequestsException".into())));
    }

    #[test]
    fn other_errors_have_no_type() {
        let fault = Fault::of(&crate::scheduler::SERVICE, "ResourceNotFoundException", "gone");
        let answer = fault.answer(ErrorFormat::RestJson, Some(&crate::scheduler::SERVICE), "id-1");
        assert_eq!((answer.status, answer.body.as_str()), (404, r#"{"Message":"gone"}"#));
    }

    #[test]
    fn xml_errors_escape_what_the_caller_sent() {
        let answer = Fault::new("InvalidAction", 400, "<&>").answer(ErrorFormat::Query, None, "r");
        assert!(answer.body.contains("<Message>&lt;&amp;&gt;</Message>"), "{}", answer.body);
    }
}
