//! `ondol explain`: what was seen of a function, what was decided, why, and what would change it.
//!
//! Without a question, or with `pending`, it is about versions that are not as asked; `scale` is about how many
//! execution environments there are, and `throttle` about invocations that found none.

mod changes;
mod mend;
mod on_demand;
mod pending;
mod scale;
mod sources;
mod throttle;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use ondol_control::View;
use ondol_core::capacity::Instance;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion, VersionKey};
use ondol_core::identity::LATEST;
use ondol_observe::usage::Usage;
use ondol_protocol::assignment::Report;
use ondol_store::{StoreError, keys};
use serde_json::{Value, json};

use crate::pages::ServerPages;
use crate::words::{list, word};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Why it is not ready, and how its event sources are read.
    Ready,
    Pending,
    Scale,
    Throttle,
}

impl Question {
    const ALL: [Self; 4] = [Self::Ready, Self::Pending, Self::Scale, Self::Throttle];

    /// As pages are asked.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Pending => "pending",
            Self::Scale => "scale",
            Self::Throttle => "throttle",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|question| question.name() == name)
    }
}

/// Everything at one moment.
struct Seen {
    view: Arc<View>,
    report: Report,
    usage: BTreeMap<VersionKey, Usage>,
    providers: Vec<CapacityProvider>,
    instances: Vec<Instance>,
}

impl Seen {
    fn provider_of(&self, version: &FunctionVersion) -> Option<&CapacityProvider> {
        let name = version.publication.configuration.capacity_provider()?;
        self.providers.iter().find(|provider| provider.name == name)
    }
}

/// The page for one function; all of its versions, or the one named.
pub fn page(
    pages: &ServerPages,
    question: Question,
    function: &str,
    version: Option<&str>,
) -> Result<Value, StoreError> {
    let store = &pages.store;
    let Some((found, _)) = store.document::<Function>(&keys::function(function))? else {
        let near: Vec<String> = store
            .all::<Function>(keys::FUNCTIONS)?
            .into_iter()
            .map(|other| other.name)
            .filter(|other| other.contains(function) || function.contains(other.as_str()))
            .collect();
        return Ok(json!({"function": function, "exists": false, "similar": near, "versions": []}));
    };
    let seen = Seen {
        view: Arc::clone(&pages.views.borrow()),
        report: pages.reports.borrow().clone(),
        usage: pages.usage.read(),
        providers: store.all(keys::CAPACITY_PROVIDERS)?,
        instances: store.all(keys::INSTANCES)?,
    };
    let versions: Vec<FunctionVersion> = store.all(&keys::versions_of(function))?;
    let is_on_demand = found.configuration.is_on_demand();
    let shown = versions.iter().filter(|found| version.is_none_or(|wanted| found.version == wanted));
    let shown = shown.map(|version| match question {
        Question::Ready | Question::Pending => pending::page(version, &seen.view, &seen.report, &pages.logs),
        Question::Scale => scale::page(version, &seen, pages.facts.instance_age_seconds_max),
        Question::Throttle => throttle::page(version, &seen),
    });
    let mut page = json!({
        "function": found.name,
        "question": question.name(),
        "exists": true,
        "deleting": found.deleting,
        "published": !versions.is_empty(),
        "onDemand": is_on_demand,
        "storeTrouble": store.trouble(),
        "serverStartedAt": ondol_wire::time::iso_8601_millis(pages.facts.started_epoch_millis),
        "versions": shown.collect::<Vec<_>>(),
        "publishedVersions": versions.iter().map(|version| version.version.as_str()).collect::<Vec<_>>(),
    });
    match question {
        Question::Ready | Question::Pending if is_on_demand => {
            page["lastFailure"] =
                pending::last_failure(&found.configuration, &found.name, LATEST, &pages.logs).into();
        }
        Question::Scale | Question::Throttle if is_on_demand => {
            let functions: Vec<Function> = store.all(keys::FUNCTIONS)?;
            page["onDemandPool"] = on_demand::page(&found, &functions, &seen, &pages.facts);
        }
        _ => {}
    }
    if question == Question::Ready {
        page["eventSources"] = sources::page(store, &pages.sources.borrow(), &found, &versions)?.into();
    }
    Ok(page)
}

/// The page for people.
pub fn text(page: &Value) -> String {
    let mut out = String::new();
    let function = word(&page["function"]);
    if page["exists"] == false {
        let _ = writeln!(out, "There is no function {function}.");
        for other in list(&page["similar"]) {
            let _ = writeln!(out, "  Did you mean {}?", word(other));
        }
        return out;
    }
    if page["deleting"] == true {
        let _ =
            writeln!(out, "{function} is being deleted; it goes when its execution environments have ended.");
    }
    if !page["storeTrouble"].is_null() {
        let _ = writeln!(out, "No change can be stored at present: {}", word(&page["storeTrouble"]));
    }
    let question = page["question"].as_str().and_then(Question::parse).unwrap_or(Question::Ready);
    if page["onDemand"] == true {
        match question {
            Question::Ready | Question::Pending => on_demand::write_pending(&mut out, &function, page),
            Question::Scale => on_demand::write_scale(&mut out, &function, page),
            Question::Throttle => on_demand::write_throttle(&mut out, &function, page),
        }
    } else {
        if page["published"] == false {
            let _ = writeln!(
                out,
                "{function} has no published version, so nothing of it runs. Publish one: aws lambda publish-version --function-name {function} --publish-to LATEST_PUBLISHED"
            );
        } else if list(&page["versions"]).is_empty() {
            let published: Vec<String> = list(&page["publishedVersions"]).iter().map(word).collect();
            let _ =
                writeln!(out, "{function} has no such published version; it has {}.", published.join(", "));
        }
        for version in list(&page["versions"]) {
            match question {
                Question::Ready | Question::Pending => pending::write(&mut out, &function, version),
                Question::Scale => scale::write(&mut out, &function, version),
                Question::Throttle => throttle::write(&mut out, &function, version, page),
            }
        }
    }
    sources::write(&mut out, page);
    out
}
