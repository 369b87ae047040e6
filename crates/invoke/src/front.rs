//! The public door of one shard: accepts connections, keeps web pages out, and parts invocations from the rest.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HOST, HeaderValue, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use ondol_protocol::invocation::Deliver;
use ondol_wire::fault::Fault;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::answer::{Body, failure, whole};
use crate::invocation::invoke;
use crate::shard::Shard;

/// A client that sends its request's head slower than this is let go, and so is an idle connection: the time
/// counts from the answer before.
const HEAD_SECONDS_MAX: u64 = 60;
/// Connections of one shard at the same time.
const CONNECTIONS_MAX: usize = 8_192;

/// Accepts connections until the task is dropped.
pub async fn accept<D: Deliver + 'static>(listener: TcpListener, shard: Rc<Shard<D>>) {
    let open = Rc::new(Cell::new(0_usize));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: let others finish before the next try.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let (shard, open) = (Rc::clone(&shard), Rc::clone(&open));
        tokio::task::spawn_local(async move {
            // An error ends this connection only, and its client sees it.
            let _ = serve(shard, stream).await;
            open.set(open.get() - 1);
        });
    }
}

async fn serve<D: Deliver + 'static>(shard: Rc<Shard<D>>, stream: TcpStream) -> Result<(), hyper::Error> {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shard = Rc::clone(&shard);
        async move { Ok::<_, Infallible>(route(&shard, request).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEAD_SECONDS_MAX))
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn route<D: Deliver>(shard: &Shard<D>, request: Request<Incoming>) -> Response<Body> {
    let header = |name| request.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if let Err(why) = shard.hosts.admits(header(HOST), header(ORIGIN)) {
        return failure(&Fault::new("AccessDeniedException", 403, why), "");
    }
    if shard.stopping.load(Ordering::Relaxed) {
        let text = "The server is shutting down; it finishes what it has and takes nothing new.";
        let mut answer = failure(&Fault::new("ServiceUnavailableException", 503, text), "");
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return answer;
    }
    if request.method() == Method::POST {
        let function = request
            .uri()
            .path()
            .strip_prefix("/2015-03-31/functions/")
            .and_then(|rest| rest.strip_suffix("/invocations"))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(ondol_wire::uri::percent_decode);
        if let Some(function) = function {
            return invoke(shard, &function, request).await;
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
