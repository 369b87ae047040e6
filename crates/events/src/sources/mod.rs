//! Pollers of event sources: one supervisor for each mapping, and under it as many pollers as `core` wants.
//!
//! A poller has one batch under way: receive → filter → gather → invoke → settle. Nothing is settled with a source before
//! the function has answered, so that a crash costs at most a second delivery.

mod activemq;
mod broker;
mod kafka;
mod mapping;
mod openwire;
mod poller;
mod rabbitmq;
mod source;
mod sqs;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use ondol_core::coins::Coins;
use ondol_core::event::EventSettings;
use ondol_core::event_source::{SourceReport, SourceReports};
use ondol_core::event_source_mapping::EventSourceMapping;
use ondol_identity::Authorizer;
use ondol_observe::notice;
use ondol_protocol::inner::Invoke;
use ondol_services::{Brokers, Secrets, ServiceEndpoints};
use ondol_store::{Changes, Store, StoreError, keys};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::settings::SettingsCache;

/// What lies outside.
#[derive(Debug)]
pub struct Outside {
    pub services: Arc<ServiceEndpoints>,
    pub brokers: Brokers,
    pub secrets: Secrets,
}

/// What every poller needs.
pub struct Tools<I> {
    store: Store,
    invoke: I,
    outside: Outside,
    authorizer: Authorizer,
    coins: RefCell<Coins>,
    settings: RefCell<SettingsCache>,
    reports: watch::Sender<SourceReports>,
}

impl<I> Tools<I> {
    /// Changes what is told of a mapping.
    fn report(&self, uuid: &str, change: impl FnOnce(&mut SourceReport)) {
        self.reports.send_modify(|reports| change(reports.entry(uuid.to_owned()).or_default()));
    }

    /// What the function's documents say.
    fn settings_of(&self, mapping: &EventSourceMapping) -> Arc<EventSettings> {
        let qualifier = mapping.qualifier.as_deref().map(Arc::from);
        self.settings.borrow_mut().of(&self.store, &mapping.function.as_str().into(), qualifier.as_ref())
    }

    fn timeout_seconds(&self, mapping: &EventSourceMapping) -> u64 {
        self.settings_of(mapping).timeout_seconds.into()
    }

    /// Whether the function's role may do what reading takes. The error is a sentence.
    fn permit(&self, mapping: &EventSourceMapping, action: &str, resource: &str) -> Result<(), String> {
        let function = &mapping.function;
        match self.settings_of(mapping).role.as_deref() {
            Some(role) if self.authorizer.role_may(role, action, resource) => Ok(()),
            Some(role) => Err(format!("The function's role {role} isn't allowed {action} on {resource}.")),
            None => Err(format!("The function {function} is gone, and its role with it.")),
        }
    }
}

/// Keeps the pollers as the mappings' documents ask for them.
pub struct Sources<I> {
    tools: Rc<Tools<I>>,
    /// What each mapping is to be; gone with it.
    wanted: HashMap<String, watch::Sender<Option<Rc<EventSourceMapping>>>>,
    supervisors: JoinSet<()>,
}

impl<I> std::fmt::Debug for Sources<I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources").field("mappings", &self.wanted.len()).finish_non_exhaustive()
    }
}

impl<I: Invoke + 'static> Sources<I> {
    pub fn new(
        store: Store,
        invoke: I,
        outside: Outside,
        authorizer: Authorizer,
        coins: Coins,
        reports: watch::Sender<SourceReports>,
    ) -> Self {
        let (coins, settings) = (RefCell::new(coins), RefCell::default());
        let tools = Rc::new(Tools { store, invoke, outside, authorizer, coins, settings, reports });
        Self { tools, wanted: HashMap::new(), supervisors: JoinSet::new() }
    }

    /// Follows the documents until the server stops, and what is under way has ended.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let store = self.tools.store.clone();
        let mut changed = store.watch();
        let mut at = store.revision();
        self.settle();
        changed.mark_changed();
        loop {
            tokio::select! {
                change = changed.changed() => if change.is_err() { break },
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(_) = self.supervisors.join_next() => continue,
            }
            match store.changes(at) {
                Changes::Compacted(revision) => {
                    at = revision;
                    self.settle();
                }
                Changes::Events(events) => {
                    at = events.last().map_or(at, |change| change.revision);
                    if events.iter().any(|change| change.key.starts_with(keys::EVENT_SOURCE_MAPPINGS)) {
                        self.settle();
                    }
                }
            }
        }
        // Nobody wants anything any more.
        self.wanted.clear();
        while self.supervisors.join_next().await.is_some() {}
    }

    /// Tells each supervisor what its mapping is now.
    fn settle(&mut self) {
        let all: Result<Vec<EventSourceMapping>, StoreError> =
            self.tools.store.all(keys::EVENT_SOURCE_MAPPINGS);
        let all = match all {
            Ok(all) => all,
            Err(error) => return notice::error(&format!("event source mappings can't be read: {error}")),
        };
        let mut gone: Vec<String> = self.wanted.keys().cloned().collect();
        for mapping in all {
            gone.retain(|uuid| *uuid != mapping.uuid);
            let mapping = Rc::new(mapping);
            match self.wanted.get(&mapping.uuid) {
                Some(wanted) => drop(wanted.send_if_modified(|known| {
                    let is_new = known.as_ref().is_none_or(|known| known.generation != mapping.generation);
                    *known = Some(mapping);
                    is_new
                })),
                None => {
                    let uuid = mapping.uuid.clone();
                    let (wanted, line) = watch::channel(Some(mapping));
                    self.wanted.insert(uuid.clone(), wanted);
                    self.supervisors.spawn_local(mapping::supervise(Rc::clone(&self.tools), uuid, line));
                }
            }
        }
        for uuid in gone {
            if let Some(wanted) = self.wanted.remove(&uuid) {
                wanted.send_replace(None);
            }
        }
    }
}
