//! Condition keys and their values in one request.

use std::collections::BTreeMap;

/// What a request says of itself and of its circumstances, by condition key. Keys do not mind their case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// The same with one more value of a key.
    #[must_use]
    pub fn with(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
        self.add(key, value);
        self
    }

    /// Adds a value of a key.
    pub fn add(&mut self, key: impl AsRef<str>, value: impl Into<String>) {
        self.0.entry(key.as_ref().to_ascii_lowercase()).or_default().push(value.into());
    }

    fn get(&self, key: &str) -> Option<&[String]> {
        self.0.get(key).map(Vec::as_slice)
    }
}

/// All that is known of a request: what follows from its caller, then what it says of itself.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub caller: Context,
    pub request: &'a Context,
}

impl Facts<'_> {
    /// The values of a key in lower case; `None` when the request has none.
    pub fn values(&self, key: &str) -> Option<&[String]> {
        self.caller.get(key).or_else(|| self.request.get(key)).filter(|values| !values.is_empty())
    }
}
