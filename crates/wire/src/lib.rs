//! AWS on the wire: shapes, tables and codecs. Knows nothing of Ondol, reads no clock, opens no socket.

mod blob;
pub mod event_stream;
pub mod fault;
pub mod http;
pub mod iam;
pub mod lambda;
pub mod model;
pub mod query;
pub mod rest_json;
pub mod scheduler;
pub mod sigv4;
pub mod sts;
pub mod time;
pub mod uri;
pub mod validate;
pub mod xml;

pub use blob::Blob;
