//! The pages below `/_ondol/`: what this program's own commands ask the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use ondol_api::{Page, PageAnswer, Pages};
use ondol_control::View;
use ondol_control::journal::LinesLost;
use ondol_core::capacity_provider::CapacityProvider;
use ondol_core::event_source::SourceReports;
use ondol_core::identity::RequestId;
use ondol_identity::Roles;
use ondol_observe::logs::{Cursor, Event, LogBook, Query};
use ondol_observe::metrics::exposition;
use ondol_observe::usage::UsageBook;
use ondol_protocol::assignment::Report;
use ondol_store::{Store, keys};
use ondol_wire::uri::query_pairs;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::explain::Question;
use crate::{documents, explain, metrics, schedule, status};

/// How long a request for logs may wait for new lines.
const WAIT_SECONDS_MAX: u64 = 20;
const EVENTS_MAX: usize = 10_000;

#[derive(Clone)]
pub struct ServerPages {
    pub facts: Arc<status::Facts>,
    pub store: Store,
    pub reports: watch::Receiver<Report>,
    pub views: watch::Receiver<Arc<View>>,
    pub usage: Arc<UsageBook>,
    pub logs: LogBook,
    /// A server that ends keeps nobody waiting.
    pub stopping: watch::Receiver<bool>,
    pub roles: Arc<Roles>,
    pub queue: ondol_events::Pages,
    pub sources: watch::Receiver<SourceReports>,
    pub journal_lines_lost: LinesLost,
    /// Running invocations of functions without reserved concurrency.
    pub unreserved_running: Arc<AtomicU32>,
    /// Opens the metrics, and nothing else.
    pub metrics_token: metrics::Token,
}

impl Pages for ServerPages {
    fn page(&self, name: &str, query: &str) -> PageAnswer {
        let (pages, query) = (self.clone(), query_pairs(query).into_iter().collect::<BTreeMap<_, _>>());
        match name {
            "status" => Box::pin(async move { Some(Ok(Page::Json(status::page(&pages)))) }),
            "metrics" => Box::pin(async move { Some(metrics::page(pages).await.map(metrics_page)) }),
            "logs" => Box::pin(async move { Some(pages.logs(query).await.map(Page::Json)) }),
            "queue" => Box::pin(async move {
                Some(pages.queue.page(query.get("function").cloned()).await.map(Page::Json))
            }),
            "schedules" => Box::pin(async move { Some(pages.schedules(&query).map(Page::Json)) }),
            "explain" => Box::pin(async move {
                pages.logs.settled().await;
                // It reads files.
                let explained = tokio::task::spawn_blocking(move || pages.explain(&query)).await;
                Some(explained.unwrap_or_else(|error| Err(error.to_string())).map(Page::Json))
            }),
            _ => Box::pin(async { None }),
        }
    }

    fn opens(&self, name: &str, authorization: &str) -> bool {
        name == "metrics" && self.metrics_token.is_in(authorization)
    }
}

fn metrics_page(text: String) -> Page {
    Page::Text { content_type: exposition::CONTENT_TYPE, text }
}

type Parameters = BTreeMap<String, String>;

impl ServerPages {
    fn explain(&self, query: &Parameters) -> Result<Value, String> {
        let function = query.get("function").ok_or("function is missing")?;
        let version = query.get("version").map(String::as_str);
        let question = match query.get("question") {
            Some(name) => Question::parse(name).ok_or("question is none of pending, scale and throttle")?,
            None => Question::Ready,
        };
        explain::page(self, question, function, version).map_err(|error| error.to_string())
    }

    fn schedules(&self, query: &Parameters) -> Result<Value, String> {
        let only = query.get("group").zip(query.get("name"));
        let only = only.map(|(group, name)| (group.as_str(), name.as_str()));
        schedule::page::page(&self.store, only).map_err(|error| error.to_string())
    }

    /// Events of a function, of a capacity provider or of a log group; with `wait` not before there are some.
    async fn logs(&self, query: Parameters) -> Result<Value, String> {
        let text = |name: &str| query.get(name).filter(|text| !text.is_empty()).cloned();
        let number = |name: &str| {
            text(name).map(|text| text.parse::<u64>().map_err(|_| format!("{name} is no number")))
        };
        let broken = |error: ondol_store::StoreError| error.to_string();
        let groups = match (text("function"), text("capacityProvider"), text("group")) {
            (Some(function), None, None) => {
                documents::log_groups(&self.store, &function).map_err(broken)?.into_iter().collect()
            }
            (None, Some(name), None) => {
                let found = self
                    .store
                    .document::<CapacityProvider>(&keys::capacity_provider(&name))
                    .map_err(broken)?;
                vec![found.map_or_else(
                    || format!("/aws/lambda/capacity-provider/{name}"),
                    |(p, _)| p.logging.log_group,
                )]
            }
            (None, None, Some(group)) => vec![group],
            _ => return Err("give one of function, capacityProvider and group".into()),
        };
        let request = match text("request") {
            Some(id) => Some(RequestId::parse_uuid(&id).ok_or_else(|| format!("{id} is no request id"))?),
            None => None,
        };
        let since = number("since").transpose()?.unwrap_or_default();
        let limit =
            number("limit").transpose()?.map_or(1_000, |limit| usize::try_from(limit).unwrap_or(EVENTS_MAX));
        let query_for = |group: &str, after: Option<Cursor>| Query {
            group: group.to_owned(),
            function: text("function"),
            version: text("version"),
            request,
            since_epoch_millis: i64::try_from(since).unwrap_or(i64::MAX),
            after,
            limit: limit.min(EVENTS_MAX),
            newest: None,
        };
        let cursors: BTreeMap<String, String> = match text("cursor") {
            Some(text) => serde_json::from_str(&text).map_err(|_| "cursor isn't one of a page before")?,
            None => BTreeMap::new(),
        };
        let mut queries: Vec<Query> = groups
            .iter()
            .map(|group| query_for(group, cursors.get(group).and_then(|cursor| Cursor::parse(cursor))))
            .collect();
        let wait = number("wait").transpose()?.unwrap_or_default().min(WAIT_SECONDS_MAX);
        let until = tokio::time::Instant::now() + Duration::from_secs(wait);
        let mut written = self.logs.watch();
        self.logs.settled().await;
        loop {
            written.mark_unchanged();
            let (book, asked) = (self.logs.clone(), queries.clone());
            let read = tokio::task::spawn_blocking(move || {
                asked.iter().map(|query| book.read(query)).collect::<Vec<_>>()
            });
            let pages = read.await.map_err(|error| error.to_string())?;
            for (query, page) in queries.iter_mut().zip(&pages) {
                query.after = Some(page.cursor.clone());
            }
            let more = pages.iter().any(|page| page.more);
            let mut events: Vec<Event> = pages.into_iter().flat_map(|page| page.events).collect();
            let over = tokio::time::Instant::now() >= until || *self.stopping.borrow();
            if !events.is_empty() || more || over {
                events.sort_by_key(|event| event.epoch_millis);
                let cursor: BTreeMap<&str, String> = queries
                    .iter()
                    .filter_map(|query| Some((query.group.as_str(), query.after.as_ref()?.to_string())))
                    .collect();
                let cursor = serde_json::to_string(&cursor).unwrap_or_default();
                return Ok(
                    json!({"events": events.iter().map(shown).collect::<Vec<_>>(), "cursor": cursor, "more": more}),
                );
            }
            let mut stopping = self.stopping.clone();
            tokio::select! {
                // The log writer lives as long as the server.
                _ = tokio::time::timeout_at(until, written.changed()) => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
        }
    }
}

fn shown(event: &Event) -> Value {
    json!({
        "timestamp": event.epoch_millis,
        "logGroup": event.stream.group,
        "logStream": event.stream.name,
        "requestId": event.request.map(RequestId::uuid),
        "message": event.message,
    })
}
