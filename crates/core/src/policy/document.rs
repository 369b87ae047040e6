//! A policy document, read.

use std::fmt;

use super::condition::Condition;
use super::pattern::Pattern;
use super::principal::{Principal, Principals};

/// What a policy is for, which decides what it must and must not contain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyUse {
    /// Says what its owner may do: roles' policies, boundaries, session policies.
    Identity,
    /// Says who may assume the role it belongs to.
    Trust,
    /// Says who may do what with the resource it belongs to.
    Resource,
}

/// The version of the language; variables came with the later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// `2008-10-17`
    V2008,
    /// `2012-10-17`
    V2012,
}

/// What a statement does when it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// `Allow`
    Allow,
    /// `Deny`
    Deny,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// What matches one of these.
    Is(Vec<Pattern>),
    /// What matches none of these.
    IsNot(Vec<Pattern>),
}

/// One statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub sid: Option<String>,
    pub effect: Effect,
    /// None in identity policies.
    pub principals: Option<Principals>,
    pub actions: Selection,
    /// None in trust policies.
    pub resources: Option<Selection>,
    pub(super) conditions: Vec<Condition>,
}

/// A policy, read once and kept with the text it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub(super) text: String,
    pub version: Version,
    pub id: Option<String>,
    pub statements: Vec<Statement>,
}

impl Policy {
    /// The document as it was given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reads what is attached to a resource. One that cannot be read lets nobody do anything: it may have denied.
    pub fn attached(text: &str) -> Self {
        Self::parse(text, PolicyUse::Resource).unwrap_or_else(|_| Self {
            text: text.to_owned(),
            version: Version::V2012,
            id: None,
            statements: vec![Statement {
                sid: None,
                effect: Effect::Deny,
                principals: Some(Principals::Are(vec![Principal::Anyone])),
                actions: Selection::IsNot(Vec::new()),
                resources: Some(Selection::IsNot(Vec::new())),
                conditions: Vec::new(),
            }],
        })
    }

    /// Reads a document; the error is AWS's sentence.
    pub fn parse(text: &str, for_use: PolicyUse) -> Result<Self, MalformedPolicy> {
        super::read::policy(text, for_use)
    }
}

/// Why a document is no policy, in AWS's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MalformedPolicy {
    pub message: String,
}

impl fmt::Display for MalformedPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MalformedPolicy {}
