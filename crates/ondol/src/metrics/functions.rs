//! AWS's metrics of functions: what they were asked, how it ended, and what runs.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use ondol_core::gate::ThrottleCause;
use ondol_observe::metrics::exposition::{Exposition, Sample};
use ondol_observe::metrics::{self, Metric};
use ondol_observe::usage::Usage;
use serde_json::Value;

use super::{Documents, number};
use crate::pages::ServerPages;
use crate::words::list;

pub fn write(page: &mut Exposition, pages: &ServerPages, documents: &Documents, queue: &Value) {
    let usage = pages.usage.read();
    let mut put = |metric: &Metric, value: &dyn Fn(&Usage) -> u64| {
        let samples: Vec<Sample> = usage
            .iter()
            .map(|(key, counts)| (vec![key.function.clone(), key.to_string()], number(value(counts))))
            .collect();
        page.metric(metric, &samples);
    };
    put(&metrics::INVOCATIONS, &|counts| counts.invocations);
    put(&metrics::ERRORS, &|counts| counts.errors);
    put(&metrics::THROTTLES, &|counts| counts.throttles.values().sum());
    for cause in ThrottleCause::ALL {
        let metric = match cause {
            ThrottleCause::Concurrency => &metrics::CONCURRENCY_THROTTLES,
            ThrottleCause::Cpu => &metrics::CPU_THROTTLES,
            ThrottleCause::Memory => &metrics::MEMORY_THROTTLES,
            ThrottleCause::Disk => &metrics::DISK_THROTTLES,
        };
        put(metric, &|counts| counts.throttles.get(&cause).copied().unwrap_or_default());
    }
    put(&metrics::DURATION, &|counts| counts.duration_micros / 1_000);
    page.metric(&metrics::CONCURRENT_EXECUTIONS, &running(pages));
    page.metric(&metrics::ASYNC_EVENTS_RECEIVED, &received(queue));
    let unreserved = u64::from(pages.unreserved_running.load(Relaxed));
    let reserved = documents.functions.iter().filter_map(|function| function.reserved_concurrency);
    let reserved: u64 = reserved.map(u64::from).sum();
    page.metric(&metrics::UNRESERVED_CONCURRENT_EXECUTIONS, &[(vec![], number(unreserved))]);
    page.metric(&metrics::CLAIMED_ACCOUNT_CONCURRENCY, &[(vec![], number(unreserved + reserved))]);
}

/// Invocations in flight, by version.
fn running(pages: &ServerPages) -> Vec<Sample> {
    let (view, report) = (pages.views.borrow().clone(), pages.reports.borrow().clone());
    let mut running: BTreeMap<Vec<String>, u64> = BTreeMap::new();
    for (id, environment) in &view.environments {
        let key = &environment.version;
        let in_flight = report.environments.get(id).map_or(0, |reported| reported.in_flight as u64);
        *running.entry(vec![key.function.clone(), key.to_string()]).or_default() += in_flight;
    }
    running.into_iter().map(|(labels, count)| (labels, number(count))).collect()
}

/// Events are counted by function, whatever their qualifier.
fn received(queue: &Value) -> Vec<Sample> {
    let rows = list(&queue["functions"]).iter();
    rows.filter_map(|row| {
        let name = row["function"].as_str()?.to_owned();
        Some((vec![name.clone(), name], number(row["accepted"].as_u64()?)))
    })
    .collect()
}
