//! What a poller wants of a source.

use std::time::Duration;

use bytes::Bytes;
use ondol_core::time::WallTime;
use serde_json::{Map, Value};

/// One record, as it was received.
#[derive(Debug)]
pub struct Record<H> {
    /// What a function reports it by.
    pub id: String,
    /// Its members in the event, without its payload.
    pub members: Map<String, Value>,
    /// What filters look into.
    pub payload: Bytes,
    /// The whole record in the event, as JSON.
    pub rendered: String,
    /// From when on the source gives it to others.
    pub until: Option<WallTime>,
    pub handle: H,
}

/// Why a source can't be read: AWS's code, where it has one, and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(pub String);

impl From<String> for Trouble {
    fn from(sentence: String) -> Self {
        Self(sentence)
    }
}

/// What follows a failed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFailure {
    /// The source gives its records again.
    Left,
    /// The same batch is offered again.
    Again,
}

/// A connection to a source, of one poller.
pub trait Source: Sized {
    type Handle;

    /// Whether a wait for records can be left without any getting lost.
    const MAY_LEAVE: bool;
    /// Whether what was received behind a failed batch must go back with it.
    const GIVES_ALL_BACK: bool = false;

    /// Waits for records, for so long at most.
    async fn receive(
        &mut self,
        count_max: usize,
        wait: Duration,
    ) -> Result<Vec<Record<Self::Handle>>, Trouble>;

    /// These are done for good.
    async fn done(&mut self, handles: Vec<Self::Handle>) -> Result<(), Trouble>;

    /// Policy seconds between a failure, the so manyth in a row, and what follows it.
    fn pause_seconds(&self, failures: u32) -> u64;

    /// The function failed on these, for so many times in a row.
    async fn failed(
        &mut self,
        batch: &mut Vec<Record<Self::Handle>>,
        failures: u32,
    ) -> Result<AfterFailure, Trouble>;

    /// Nothing more is wanted: what is not settled goes back as if it had never been received, where that can be said.
    async fn close(self) {}

    /// The event that a batch becomes.
    fn event(&self, batch: &[Record<Self::Handle>]) -> Bytes;
}

/// Rendered records with commas between them.
pub fn joined<H>(batch: &[Record<H>]) -> String {
    let rendered: Vec<&str> = batch.iter().map(|record| record.rendered.as_str()).collect();
    rendered.join(",")
}
