//! The public door of one shard: accepts connections, keeps web pages out, and parts invocations from the rest.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{HOST, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use ondol_identity::Peer;
use ondol_protocol::invocation::Deliver;
use ondol_wire::fault::Fault;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::answer::{Body, failure, whole};
use crate::invocation::{Way, invoke};
use crate::shard::Shard;
use crate::url::{self, Address};

/// A client that sends its request's head slower than this is let go, and so is an idle connection: the time
/// counts from the answer before.
const HEAD_SECONDS_MAX: u64 = 60;
/// Connections of one shard at the same time.
const CONNECTIONS_MAX: usize = 8_192;

/// Accepts connections until `stopping` says to end; comes back when the last has been answered.
pub async fn accept<D: Deliver + 'static>(
    listener: TcpListener,
    shard: Rc<Shard<D>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            // A sender that is gone is a server that ends.
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) if connections.len() < CONNECTIONS_MAX => {
                connections.spawn_local(serve(
                    Rc::clone(&shard),
                    stream,
                    peer.ip().to_canonical(),
                    stopping.clone(),
                ));
            }
            Ok(_) => {}
            // Out of descriptors, most likely: let others finish before the next try.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    // From here on nobody can connect; what is open is answered.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve<D: Deliver + 'static>(
    shard: Rc<Shard<D>>,
    stream: TcpStream,
    peer: IpAddr,
    mut stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let shard = Rc::clone(&shard);
        request.extensions_mut().insert(Peer(peer));
        async move { Ok::<_, Infallible>(route(&shard, request).await) }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
            .serve_connection(TokioIo::new(stream), service)
    );
    // An error ends this connection only, and its client sees it.
    let stopped = tokio::select! {
        _ = connection.as_mut() => false,
        _ = stopping.wait_for(|stopping| *stopping) => true,
    };
    if stopped {
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }
}

async fn route<D: Deliver + 'static>(shard: &Rc<Shard<D>>, request: Request<Incoming>) -> Response<Body> {
    let host = request.headers().get(HOST).and_then(|value| value.to_str().ok());
    // A function's address is for web pages too, and whoever may ask is its policy's to say.
    if let Some(address) = Address::of(host, request.uri().path()) {
        return url::serve(shard, &address, request).await;
    }
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Err(why) = shard.hosts.admits(header(HOST), header(ORIGIN)) {
        let fault = Fault::new("AccessDeniedException", 403, why);
        return failure(&fault.with_body_unread(!request.body().is_end_stream()), "");
    }
    if request.method() == Method::POST {
        if let Some((way, function)) = Way::of(request.uri().path()) {
            return invoke(shard, way, &function, request).await;
        }
    }
    let (answer, answered) = oneshot::channel();
    if shard.api.send((request, answer)).await.is_err() {
        let fault = Fault::new("ServiceException", 500, "The server is shutting down.");
        return failure(&fault, "");
    }
    match answered.await {
        Ok(response) => response.map(whole),
        Err(_) => {
            let fault = Fault::new("ServiceException", 500, "The request couldn't be completed.");
            failure(&fault, "")
        }
    }
}
