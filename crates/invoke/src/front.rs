//! The public door of one shard: accepts connections, keeps web pages out, and parts invocations from the rest.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::header::{HOST, ORIGIN};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use ondol_protocol::invocation::Deliver;
use ondol_wire::fault::{ErrorFormat, Fault};
use ondol_wire::sigv4::Headers;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

use crate::invocation::invoke;
use crate::shard::Shard;

/// A client that sends its request's head slower than this is let go.
const HEAD_SECONDS_MAX: u64 = 10;
/// Connections of one shard at the same time.
const CONNECTIONS_MAX: usize = 8_192;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
/// A request that is not an invocation, and where its answer goes.
pub type ApiCall = (Request<Incoming>, oneshot::Sender<Response<Full<Bytes>>>);

/// Who may be named in a request's `Host` header.
#[derive(Debug, Clone, Default)]
pub struct HostPolicy {
    /// Names besides addresses and `localhost`.
    pub names: Vec<String>,
}

impl HostPolicy {
    /// A page on the web can make a browser send requests here, either openly (then the browser says so in
    /// `Origin`) or under a name of its own that it points at this machine (then `Host` is that name). An
    /// address cannot be rebound, and `localhost` is ours.
    pub fn admits(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), String> {
        if let Some(origin) = origin {
            return Err(format!("Requests from web pages ({origin}) are refused."));
        }
        let Some(host) = host else { return Err("The request has no Host header.".into()) };
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
            .map_or(host, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let own = name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok();
        if own || self.names.iter().any(|known| known.eq_ignore_ascii_case(&name)) {
            return Ok(());
        }
        Err(format!(
            "The host name {name:?} is not one of this server's. Add it with --allow-host {name} if it is."
        ))
    }
}

/// Request headers as the signature check reads them.
#[derive(Debug)]
pub struct HeaderView<'a>(pub &'a hyper::HeaderMap);

impl Headers for HeaderView<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let mut values =
            self.0.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let first = values.next()?;
        Some(values.fold(first, |joined, value| format!("{joined},{value}")))
    }
}

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
    let header =
        |name| request.headers().get(name).and_then(|value: &hyper::header::HeaderValue| value.to_str().ok());
    if let Err(why) = shard.hosts.admits(header(HOST), header(ORIGIN)) {
        return failure(&Fault::new("AccessDeniedException", 403, why), ErrorFormat::RestJson, "");
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
        return failure(&fault, ErrorFormat::RestJson, "");
    }
    match answered.await {
        Ok(response) => response.map(UnsyncBoxBody::new),
        Err(_) => {
            let fault = Fault::new("ServiceException", 500, "The request couldn't be completed.");
            failure(&fault, ErrorFormat::RestJson, "")
        }
    }
}

/// The sending side of the API's door.
pub type ApiDoor = mpsc::Sender<ApiCall>;

pub fn failure(fault: &Fault, format: ErrorFormat, request_id: &str) -> Response<Body> {
    error_response(fault, format, request_id).map(UnsyncBoxBody::new)
}

/// An error as an HTTP response.
pub fn error_response(fault: &Fault, format: ErrorFormat, request_id: &str) -> Response<Full<Bytes>> {
    let answer = fault.answer(format, Some(&ondol_wire::lambda::SERVICE), request_id);
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert("content-type", hyper::header::HeaderValue::from_static(answer.content_type));
    for (name, value) in answer.headers {
        if let Ok(value) = hyper::header::HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}

/// A body of bytes that are all there.
pub fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_pages_are_kept_out() {
        let policy = HostPolicy { names: vec!["build.internal".into()] };
        for host in
            ["127.0.0.1:4566", "localhost:4566", "[::1]:4566", "s3.localhost", "build.internal:1", "10.0.0.7"]
        {
            assert_eq!(policy.admits(Some(host), None), Ok(()), "{host}");
        }
        for host in ["evil.example:4566", "localhost.evil.example", "127.0.0.1.nip.io"] {
            assert!(policy.admits(Some(host), None).is_err(), "{host}");
        }
        assert!(policy.admits(Some("127.0.0.1:4566"), Some("https://evil.example")).is_err());
        assert!(policy.admits(None, None).is_err());
    }
}
