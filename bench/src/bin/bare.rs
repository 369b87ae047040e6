//! The ceiling: a front door and a Runtime API for one function, with nothing else. One thread, no
//! signatures, no limits, no logs, no metrics, no containment.
#![allow(clippy::print_stdout)]

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

type Failure = Box<dyn std::error::Error>;
type Invocation = (u64, Bytes);

#[derive(Default)]
struct Exchange {
    next_id: u64,
    waiting: VecDeque<Invocation>,
    polls: VecDeque<oneshot::Sender<Invocation>>,
    callers: HashMap<u64, oneshot::Sender<Bytes>>,
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        println!("{}", listener.local_addr()?);
        let exchange: Rc<RefCell<Exchange>> = Rc::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let exchange = Rc::clone(&exchange);
            let service = service_fn(move |request| route(Rc::clone(&exchange), request));
            tokio::task::spawn_local(async move {
                // A connection's error is its client's to see.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn route(
    exchange: Rc<RefCell<Exchange>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if request.method() == Method::GET {
        return Ok(next(&exchange).await);
    }
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    if let Some(id) =
        path.strip_prefix("/2018-06-01/runtime/invocation/").and_then(|rest| rest.strip_suffix("/response"))
    {
        let caller = id.parse().ok().and_then(|id: u64| exchange.borrow_mut().callers.remove(&id));
        let _ = caller.map(|caller| caller.send(body));
        return Ok(Response::new(Full::default()));
    }
    let (answer, answered) = oneshot::channel();
    {
        let exchange = &mut *exchange.borrow_mut();
        exchange.next_id += 1;
        let id = exchange.next_id;
        exchange.callers.insert(id, answer);
        let mut invocation = Some((id, body));
        while let (Some(poll), Some(handed)) = (exchange.polls.pop_front(), invocation.take()) {
            invocation = poll.send(handed).err();
            if invocation.is_none() {
                break;
            }
        }
        exchange.waiting.extend(invocation);
    }
    Ok(Response::new(Full::new(answered.await.unwrap_or_default())))
}

async fn next(exchange: &RefCell<Exchange>) -> Response<Full<Bytes>> {
    let waiting = exchange.borrow_mut().waiting.pop_front();
    let (id, body) = match waiting {
        Some(invocation) => invocation,
        None => {
            let (hand, handed) = oneshot::channel();
            exchange.borrow_mut().polls.push_back(hand);
            handed.await.unwrap_or_default()
        }
    };
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    for (name, value) in [
        ("lambda-runtime-aws-request-id", id.to_string()),
        ("lambda-runtime-deadline-ms", "4102444800000".to_owned()),
        (
            "lambda-runtime-invoked-function-arn",
            "arn:aws:lambda:us-east-1:000000000000:function:bench".to_owned(),
        ),
    ] {
        if let Ok(value) = value.parse() {
            headers.insert(name, value);
        }
    }
    response
}
