//! The documents the loop looks at, read once for each change of them and not for each look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ondol_core::capacity::Instance;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::function::{Function, FunctionVersion};
use ondol_store::{Changes, Revision, Store, StoreError, keys};
use serde::de::DeserializeOwned;

/// Documents of one kind by their keys.
pub type Kind<T> = BTreeMap<String, Arc<T>>;

#[derive(Debug, Default)]
pub struct Documents {
    /// Up to which revision they were read; none before the first look.
    at: Option<Revision>,
    pub providers: Kind<CapacityProvider>,
    pub versions: Kind<FunctionVersion>,
    pub functions: Kind<Function>,
    /// Names of those functions whose deletion was asked for.
    pub deleting: BTreeSet<String>,
    pub instances: Kind<Instance>,
}

impl Documents {
    /// Brings them up to date.
    pub fn refresh(&mut self, store: &Store) -> Result<(), StoreError> {
        let events = match self.at.map(|at| store.changes(at)) {
            Some(Changes::Events(events)) => events,
            None | Some(Changes::Compacted(_)) => return self.read_all(store),
        };
        for event in &events {
            self.read(store, &event.key)?;
        }
        if let Some(newest) = events.last() {
            self.at = Some(newest.revision);
        }
        Ok(())
    }

    fn read_all(&mut self, store: &Store) -> Result<(), StoreError> {
        // A change that comes while it is read is read again.
        let at = store.revision();
        *self = Self::default();
        for prefix in [keys::CAPACITY_PROVIDERS, keys::VERSIONS, keys::FUNCTIONS, keys::INSTANCES] {
            for (key, _) in store.scan(prefix, None, usize::MAX) {
                self.read(store, &key)?;
            }
        }
        self.at = Some(at);
        Ok(())
    }

    fn read(&mut self, store: &Store, key: &str) -> Result<(), StoreError> {
        if key.starts_with(keys::CAPACITY_PROVIDERS) {
            read(&mut self.providers, store, key)
        } else if key.starts_with(keys::VERSIONS) {
            read(&mut self.versions, store, key)
        } else if key.starts_with(keys::FUNCTIONS) {
            read(&mut self.functions, store, key)?;
            let name = key.strip_prefix(keys::FUNCTIONS).unwrap_or_default();
            if self.functions.get(key).is_some_and(|function| function.deleting) {
                self.deleting.insert(name.to_owned());
            } else {
                self.deleting.remove(name);
            }
            Ok(())
        } else if key.starts_with(keys::INSTANCES) {
            read(&mut self.instances, store, key)
        } else {
            Ok(())
        }
    }
}

fn read<T: DeserializeOwned>(kind: &mut Kind<T>, store: &Store, key: &str) -> Result<(), StoreError> {
    match store.document::<T>(key)? {
        Some((document, _)) => drop(kind.insert(key.to_owned(), Arc::new(document))),
        None => drop(kind.remove(key)),
    }
    Ok(())
}
