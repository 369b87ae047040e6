//! What browsers are told: a URL's own settings, beside what the function says itself.

use hyper::Request;
use hyper::header::{HeaderMap, HeaderName, HeaderValue, VARY};
use hyper::http::Method;
use serde::Deserialize;
use serde_json::Value;

/// The settings as AWS names them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Cors {
    allow_credentials: bool,
    allow_headers: Vec<String>,
    allow_methods: Vec<String>,
    allow_origins: Vec<String>,
    expose_headers: Vec<String>,
    max_age: Option<u32>,
}

/// Whether a browser asks what it may ask.
pub fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key("access-control-request-method")
}

impl Cors {
    pub fn read(settings: &Value) -> Option<Self> {
        serde_json::from_value(settings.clone()).ok()
    }

    fn admits(&self, origin: &str) -> bool {
        self.allow_origins.iter().any(|known| known == "*" || known == origin)
    }

    /// The answer to a browser that asks first.
    pub fn preflight(&self, origin: &str, headers: &mut HeaderMap) {
        self.common(origin, headers);
        if !self.admits(origin) {
            return;
        }
        add_list(headers, "access-control-allow-methods", &self.allow_methods);
        add_list(headers, "access-control-allow-headers", &self.allow_headers);
        if let Some(seconds) = self.max_age {
            add(headers, "access-control-max-age", &seconds.to_string());
        }
    }

    /// What goes beside any other answer.
    pub fn answer(&self, origin: &str, headers: &mut HeaderMap) {
        self.common(origin, headers);
        if self.admits(origin) {
            add_list(headers, "access-control-expose-headers", &self.expose_headers);
        }
    }

    fn common(&self, origin: &str, headers: &mut HeaderMap) {
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if self.admits(origin) {
            add(headers, "access-control-allow-origin", origin);
            if self.allow_credentials {
                add(headers, "access-control-allow-credentials", "true");
            }
        }
    }
}

fn add_list(headers: &mut HeaderMap, name: &'static str, values: &[String]) {
    if !values.is_empty() {
        add(headers, name, &values.join(","));
    }
}

/// The function's own header of the same name stays, as on AWS.
fn add(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.append(HeaderName::from_static(name), value);
    }
}
