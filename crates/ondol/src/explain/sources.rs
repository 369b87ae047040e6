//! Event sources of a function: what reads for it, how that goes, and whether it invokes what is kept ready.

use std::fmt::Write as _;

use ondol_core::attached::Alias;
use ondol_core::event_source::SourceReports;
use ondol_core::event_source_mapping::EventSourceMapping;
use ondol_core::function::{Function, FunctionVersion};
use ondol_core::identity::LATEST;
use ondol_store::{Store, StoreError, keys};
use serde_json::{Value, json};

use crate::words::{list, word};

pub fn page(
    store: &Store,
    reports: &SourceReports,
    function: &Function,
    versions: &[FunctionVersion],
) -> Result<Vec<Value>, StoreError> {
    let aliases: Vec<Alias> = store.all(&keys::aliases_of(&function.name))?;
    let of_versions = versions.iter().map(|version| (&version.version, &version.attached));
    let of_aliases = aliases.iter().map(|alias| (&alias.name, &alias.attached));
    let provisioned: Vec<String> = of_versions
        .chain(of_aliases)
        .filter(|(_, attached)| attached.provisioned.is_some())
        .map(|(qualifier, _)| qualifier.clone())
        .collect();
    let mappings: Vec<EventSourceMapping> = store.all(keys::EVENT_SOURCE_MAPPINGS)?;
    let shown = mappings.iter().filter(|mapping| mapping.function == function.name).map(|mapping| {
        let report = reports.get(&mapping.uuid);
        json!({
            "uuid": mapping.uuid,
            "source": mapping.source(),
            "invokes": mapping.qualifier.as_deref().unwrap_or(LATEST),
            "state": mapping.state(report),
            "pollers": report.map(|report| report.pollers),
            "lastProcessingResult": report.and_then(|report| report.last_processing_result.clone()),
            "trouble": report.and_then(|report| report.trouble.clone()),
            "counts": report.map(|report| report.counts),
            "warning": mapping.misses_provisioned(&provisioned, &aliases),
        })
    });
    Ok(shown.collect())
}

/// For people.
pub fn write(out: &mut String, page: &Value) {
    for source in list(&page["eventSources"]) {
        let _ = writeln!(
            out,
            "{} is {}, read for {} (mapping {})",
            word(&source["source"]),
            word(&source["state"]),
            word(&source["invokes"]),
            word(&source["uuid"])
        );
        let counts = &source["counts"];
        if counts["batches"].as_u64().is_some_and(|batches| batches > 0) {
            let _ = writeln!(
                out,
                "  since the start: {} batches of {} records, {} failed, {} times throttled; {} records filtered out. Last: {}",
                counts["batches"],
                counts["records"],
                counts["failed"],
                counts["throttled"],
                counts["filtered"],
                word(&source["lastProcessingResult"])
            );
        }
        if !source["trouble"].is_null() {
            let _ = writeln!(out, "  because {}", word(&source["trouble"]));
        }
        if !source["warning"].is_null() {
            let _ = writeln!(out, "  warning: {}", word(&source["warning"]));
        }
    }
}
