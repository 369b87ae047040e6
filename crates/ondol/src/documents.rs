//! What the documents of a store say together, where no one room knows them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ondol_core::function::{Function, FunctionVersion, Publication};
use ondol_core::layer::LayerVersion;
use ondol_protocol::assignment::Assignment;
use ondol_store::{Store, StoreError, keys, read_document};
use serde::de::DeserializeOwned;

/// The packages that documents name, by hash.
pub fn packages(documents: &BTreeMap<String, Arc<[u8]>>) -> Result<BTreeSet<String>, StoreError> {
    fn below<'a, T: DeserializeOwned>(
        documents: &'a BTreeMap<String, Arc<[u8]>>,
        prefix: &'a str,
    ) -> impl Iterator<Item = Result<T, StoreError>> + 'a {
        documents
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, bytes)| read_document(key, bytes))
    }
    let mut needed = BTreeSet::new();
    for function in below::<Function>(documents, keys::FUNCTIONS) {
        let function = function?;
        needed.insert(function.code.sha256);
        needed.extend(function.configuration.layers.into_iter().map(|layer| layer.code.sha256));
    }
    for version in below::<FunctionVersion>(documents, keys::VERSIONS) {
        let version = version?;
        needed.extend(of_publication(&version.publication));
        needed.extend(version.serving.iter().flat_map(of_publication));
    }
    for layer in below::<LayerVersion>(documents, keys::LAYER_VERSIONS) {
        needed.insert(layer?.code.sha256);
    }
    Ok(needed)
}

/// The packages that the store's documents or running environments need.
pub fn packages_in_use(store: &Store, assignment: &Assignment) -> Result<BTreeSet<String>, StoreError> {
    let mut needed = packages(&store.documents())?;
    needed.extend(
        assignment.environments.values().flat_map(|environment| of_publication(&environment.publication)),
    );
    Ok(needed)
}

fn of_publication(publication: &Publication) -> Vec<String> {
    let layers = publication.configuration.layers.iter().map(|layer| layer.code.sha256.clone());
    layers.chain([publication.code.sha256.clone()]).collect()
}

/// The log groups a function writes to or wrote to.
pub fn log_groups(store: &Store, function: &str) -> Result<BTreeSet<String>, StoreError> {
    let mut groups = BTreeSet::from([format!("/aws/lambda/{function}")]);
    if let Some((found, _)) = store.document::<Function>(&keys::function(function))? {
        groups.insert(found.configuration.logging.log_group);
    }
    for version in store.all::<FunctionVersion>(&keys::versions_of(function))? {
        groups.insert(version.publication.configuration.logging.log_group);
        groups.extend(version.serving.map(|serving| serving.configuration.logging.log_group));
    }
    Ok(groups)
}
