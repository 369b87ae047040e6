//! One connection to one Kafka broker: a request, its answer, and the next.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::{
    Decodable, HeaderVersion as _, Request, StrBytes, encode_request_header_into_buffer,
};
use ondol_services::BasicCredentials;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

const ANSWER_WAIT: Duration = Duration::from_secs(15);
/// More than a fetch asks for; one batch of records may be larger than was asked.
const ANSWER_BYTES_MAX: usize = 128 << 20;
const IDLE: Duration = Duration::from_secs(60);
const CLIENT: &str = "ondol";

/// An address of a broker, `HOST:PORT`.
pub fn address(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "9092"));
    let port = port.parse().map_err(|_| format!("{text:?} is no address of a Kafka broker"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

pub struct Connection {
    stream: TcpStream,
    correlation: i32,
    used_at: Instant,
}

impl Connection {
    /// Connects, and says who it is where that is asked for. The error is a sentence.
    pub async fn open(
        (host, port): (&str, u16),
        credentials: Option<&BasicCredentials>,
    ) -> Result<Self, String> {
        let opening = async {
            let stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            let mut connection = Self { stream, correlation: 0, used_at: Instant::now() };
            if let Some(credentials) = credentials {
                connection.authenticate(credentials).await?;
            }
            Ok(connection)
        };
        let opened = tokio::time::timeout(ANSWER_WAIT, opening).await;
        opened
            .unwrap_or_else(|_| Err("it gave no answer".to_owned()))
            .map_err(|why: String| format!("{host}:{port}: {why}"))
    }

    /// SASL/PLAIN.
    async fn authenticate(&mut self, credentials: &BasicCredentials) -> Result<(), String> {
        let mut handshake = SaslHandshakeRequest::default();
        handshake.mechanism = StrBytes::from_static_str("PLAIN");
        let answer = self.ask(&handshake, 1).await?;
        fine(answer.error_code)?;
        let mut request = SaslAuthenticateRequest::default();
        request.auth_bytes =
            format!("\0{}\0{}", credentials.username, credentials.password).into_bytes().into();
        let answer = self.ask(&request, 1).await?;
        fine(answer.error_code).map_err(|_| "SASL authentication failed".into())
    }

    /// Whether it was unused for so long that the broker may have ended it.
    pub fn is_idle(&self) -> bool {
        self.used_at.elapsed() > IDLE
    }

    pub async fn ask<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, String> {
        let asking = self.exchange(request, version);
        tokio::time::timeout(ANSWER_WAIT, asking)
            .await
            .unwrap_or_else(|_| Err("it gave no answer".to_owned()))
    }

    async fn exchange<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response, String> {
        self.used_at = Instant::now();
        self.correlation = self.correlation.wrapping_add(1);
        let mut header = RequestHeader::default();
        header.request_api_key = R::KEY;
        header.request_api_version = version;
        header.correlation_id = self.correlation;
        header.client_id = Some(StrBytes::from_static_str(CLIENT));
        let mut body = BytesMut::new();
        encode_request_header_into_buffer(&mut body, &header).map_err(|error| error.to_string())?;
        request.encode(&mut body, version).map_err(|error| error.to_string())?;
        let lost = |error: std::io::Error| format!("the connection is lost: {error}");
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.stream.write_all(&[&length[..], &body].concat()).await.map_err(lost)?;
        let length = self.stream.read_u32().await.map_err(lost)? as usize;
        if length > ANSWER_BYTES_MAX {
            return Err(format!("it sent an answer of {length} bytes"));
        }
        let mut answer = Vec::with_capacity(length.min(64 << 10));
        let read = (&mut self.stream).take(length as u64).read_to_end(&mut answer).await.map_err(lost)?;
        if read < length {
            return Err("the connection is lost in the middle of an answer".into());
        }
        let mut answer = Bytes::from(answer);
        let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
            .map_err(|error| error.to_string())?;
        if header.correlation_id != self.correlation {
            return Err("it answered something else than was asked".into());
        }
        R::Response::decode(&mut answer, version).map_err(|error| error.to_string())
    }
}

/// The protocol's own name of an error.
pub fn fine(code: i16) -> Result<(), String> {
    match kafka_protocol::ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(error) => Err(error.to_string()),
    }
}
