//! `COMPATIBILITY.md`, made from the tables: every operation of the model, and whether it works here.

use std::fmt::Write as _;

use ondol_wire::lambda::SERVICE;

use crate::lambda::{REGISTERED, Support};

/// The page, as it is committed.
pub fn page() -> String {
    let mut page = String::from(
        "# Compatibility\n\nGenerated from the service model and the operations this version has; a test keeps it true.\n\n\
         An operation that `stores` keeps and shows what it is told, and nothing acts on it yet, for the reason given. \
         An operation that is not supported answers `NotImplementedException` (HTTP 501) and changes nothing. \
         Every other AWS service answers the same, in its own protocol.\n\n",
    );
    let count = |stores: bool| {
        REGISTERED.iter().filter(|one| matches!(one.support, Support::Stores(_)) == stores).count()
    };
    let _ = writeln!(
        page,
        "## Lambda ({} of {} operations work, {} more store)\n",
        count(false),
        SERVICE.operations.len(),
        count(true)
    );
    page.push_str("| operation | |\n| --- | --- |\n");
    for operation in SERVICE.operations {
        let registered = REGISTERED.iter().find(|registered| registered.name == operation.name);
        let state = match registered.map(|registered| registered.support) {
            Some(Support::Works) => "works".into(),
            Some(Support::Stores(why)) => format!("stores: {why}"),
            None => "unsupported".to_owned(),
        };
        let _ = writeln!(page, "| {} | {state} |", operation.name);
    }
    for (name, service, works) in [
        ("Scheduler", &ondol_wire::scheduler::SERVICE, crate::scheduler::WORKS),
        ("IAM", &ondol_wire::iam::SERVICE, ondol_identity::IAM_WORKS),
        ("STS", &ondol_wire::sts::SERVICE, ondol_identity::STS_WORKS),
    ] {
        let _ = writeln!(page, "\n## {name} ({} operations work; all others are unsupported)\n", works.len());
        page.push_str("| operation | |\n| --- | --- |\n");
        for operation in service.operations.iter().filter(|operation| works.contains(&operation.name)) {
            let _ = writeln!(page, "| {} | works |", operation.name);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `ONDOL_WRITE=1` the page is written instead of checked.
    #[test]
    fn the_committed_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../COMPATIBILITY.md");
        if std::env::var_os("ONDOL_WRITE").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == page(),
            "COMPATIBILITY.md is stale: run ONDOL_WRITE=1 cargo test -p ondol-api compatibility"
        );
    }

    #[test]
    fn everything_that_works_is_an_operation_of_the_model() {
        for registered in REGISTERED {
            assert!(SERVICE.operation(registered.name).is_some(), "{}", registered.name);
        }
    }
}
