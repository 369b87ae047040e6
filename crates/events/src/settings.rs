//! What a function's documents say of its events.

use std::collections::HashMap;
use std::sync::Arc;

use ondol_core::attached::{Alias, Attached, EventInvokeConfig};
use ondol_core::event::EventSettings;
use ondol_core::event_queue::Rules;
use ondol_core::function::{Function, FunctionConfiguration, FunctionVersion, RecursiveLoop};
use ondol_core::identity::{LATEST_PUBLISHED, Qualifier};
use ondol_store::{Revision, Store, keys};

/// Settings as they were read last, until any document changes.
#[derive(Debug, Default)]
pub struct SettingsCache {
    revision: Revision,
    known: HashMap<Key, Arc<EventSettings>>,
}

/// A function and the qualifier it was invoked with.
type Key = (Arc<str>, Option<Arc<str>>);

impl SettingsCache {
    pub fn of(
        &mut self,
        store: &Store,
        function: &Arc<str>,
        qualifier: Option<&Arc<str>>,
    ) -> Arc<EventSettings> {
        let revision = store.revision();
        if revision != self.revision {
            self.revision = revision;
            self.known.clear();
        }
        let key = (Arc::clone(function), qualifier.cloned());
        Arc::clone(self.known.entry(key).or_insert_with(|| Arc::new(read(store, function, qualifier))))
    }
}

fn read(store: &Store, name: &str, qualifier: Option<&Arc<str>>) -> EventSettings {
    // A document that can't be read is as good as absent; the API answers for it.
    let Ok(Some((function, _))) = store.document::<Function>(&keys::function(name)) else {
        return EventSettings::default();
    };
    let version = |version: &str| {
        let found = store.document::<FunctionVersion>(&keys::version(name, version)).ok().flatten();
        found.map(|(version, _)| version)
    };
    let published = || version(LATEST_PUBLISHED);
    let unqualified = || match function.configuration.is_on_demand() {
        true => (Some(function.configuration.clone()), function.attached.clone()),
        // Its settings are those of `$LATEST`, its code what is published.
        false => (running(published()), function.attached.clone()),
    };
    let (configuration, attached) = match qualifier.map(|text| Qualifier::parse(text)) {
        None | Some(Qualifier::Latest) => unqualified(),
        Some(Qualifier::LatestPublished) => {
            let found = published();
            let own = found.as_ref().map(|version| version.attached.clone());
            let own = own.filter(|attached| attached.event_invoke.is_some());
            (running(found), own.unwrap_or_else(|| function.attached.clone()))
        }
        Some(Qualifier::Version(number)) => {
            let found = version(&number.to_string());
            let attached = found.as_ref().map(|version| version.attached.clone()).unwrap_or_default();
            (running(found), attached)
        }
        Some(Qualifier::Alias(alias)) => {
            match store.document::<Alias>(&keys::alias(name, &alias)).ok().flatten() {
                Some((alias, _)) => {
                    let found = version(&alias.version);
                    (running(found).or_else(|| unqualified().0), alias.attached)
                }
                None => (None, Attached::default()),
            }
        }
    };
    let config = attached.event_invoke.as_ref();
    let configuration = configuration.as_ref();
    EventSettings {
        rules: rules(config),
        on_success: config.and_then(|config| config.on_success.clone()),
        on_failure: config.and_then(|config| config.on_failure.clone()),
        dead_letter: configuration.and_then(|own| own.dead_letter_target_arn.clone()),
        role: Some(configuration.map_or_else(|| function.configuration.role.clone(), |own| own.role.clone())),
        timeout_seconds: configuration.map_or(0, |own| own.timeout_seconds),
        stops_loops: function.recursive_loop == RecursiveLoop::Terminate,
    }
}

fn running(version: Option<FunctionVersion>) -> Option<FunctionConfiguration> {
    let version = version?;
    Some(version.serving.unwrap_or(version.publication).configuration)
}

fn rules(config: Option<&EventInvokeConfig>) -> Rules {
    let default = Rules::default();
    Rules {
        retries: config.and_then(|config| config.maximum_retry_attempts).unwrap_or(default.retries),
        age_seconds: config
            .and_then(|config| config.maximum_event_age_seconds)
            .unwrap_or(default.age_seconds),
    }
}
