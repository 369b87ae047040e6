//! The invoke threads: each with a runtime, environments, a gate and a handle on the one listening socket.

use std::net::TcpListener;
use std::rc::Rc;

use anyhow::Result;
use ondol_agent::shard::{Environments, ShardEnd};
use ondol_invoke::front::accept;
use ondol_invoke::inner::{Inner, InnerCall};
use ondol_invoke::shard::{Hop, Shard, Shared};
use ondol_observe::logs::LogSender;
use ondol_observe::notice;
use tokio::sync::{mpsc, watch};

/// How the doors of all shards are closed, and how it is seen that they are.
#[derive(Debug, Clone)]
pub struct Doors {
    pub stopping: watch::Receiver<bool>,
    /// Held for as long as a shard has something to answer.
    pub open: mpsc::Sender<()>,
}

/// Invocations that may wait for another shard.
const HOPS_MAX: usize = 1_024;
/// Invocations from within that may wait for their shard.
const INNER_MAX: usize = 1_024;

/// Each shard has a thread, a single-threaded runtime and a handle on the one listening socket.
pub fn start(
    listener: &TcpListener,
    ends: Vec<ShardEnd>,
    shared: &Shared,
    logs: &LogSender,
    doors: &Doors,
) -> Result<Inner> {
    listener.set_nonblocking(true)?;
    let lines: Vec<(mpsc::Sender<Hop>, mpsc::Receiver<Hop>)> =
        ends.iter().map(|_| mpsc::channel(HOPS_MAX)).collect();
    let (inner, calls): (Vec<_>, Vec<_>) = ends.iter().map(|_| mpsc::channel(INNER_MAX)).unzip();
    let senders: Vec<mpsc::Sender<Hop>> = lines.iter().map(|(sender, _)| sender.clone()).collect();
    for (number, ((end, (_, hops)), calls)) in ends.into_iter().zip(lines).zip(calls).enumerate() {
        let lines = senders.clone();
        let (listener, shared, seed) = (listener.try_clone()?, shared.clone(), seed()?);
        let (logs, doors) = (logs.clone(), doors.clone());
        std::thread::Builder::new().name(format!("invoke-{number}")).spawn(move || {
            let served = run(listener, end, (hops, calls), (lines, number), shared, logs, doors, seed);
            if let Err(error) = served {
                notice::error(&format!("invoke thread {number}: {error:#}"));
                std::process::exit(1);
            }
        })?;
    }
    Ok(Inner::new(inner))
}

#[allow(clippy::too_many_arguments)]
fn run(
    listener: TcpListener,
    end: ShardEnd,
    (hops, calls): (mpsc::Receiver<Hop>, mpsc::Receiver<InnerCall>),
    (lines, place): (Vec<mpsc::Sender<Hop>>, usize),
    shared: Shared,
    logs: LogSender,
    doors: Doors,
    seed: u64,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let environments = Environments::new(logs);
        let shard = Rc::new(Shard::new(shared, environments.clone(), lines, place, seed));
        tokio::task::spawn_local(Rc::clone(&shard).serve_hops(hops));
        tokio::task::spawn_local(Rc::clone(&shard).serve_inner(calls));
        let door = accept(listener, Rc::clone(&shard), doors.stopping);
        tokio::task::spawn_local(async move {
            door.await;
            drop(doors.open);
        });
        environments.run(end, Rc::new(move |event| shard.gate_event(&event))).await;
        Ok(())
    })
}

pub fn seed() -> Result<u64> {
    getrandom::u64().map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))
}
