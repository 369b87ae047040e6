//! ActiveMQ's own protocol, as far as a consumer of one queue needs it: no library for it is kept up in Rust.
//!
//! One connection, session and consumer. A task of its own reads, so that signs of life go both ways while a function runs.

mod frame;
mod message;

use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use frame::{Malformed, Reader, Writer, of};

pub use message::{Content, Message, MessageId};

const VERSION: i32 = 12;
const FRAME_BYTES_MAX: usize = 128 << 20;
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Without a sign of life for so long either side ends the connection.
const SILENCE_MILLIS: i64 = 30_000;
const NOTHING_DELIVERED: i64 = -1;
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// What an acknowledgement says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// Nobody can work on it: to the dead letters.
    Poison = 1,
    /// This one is done.
    Individual = 4,
}

/// Who connects where.
#[derive(Clone, Copy)]
pub struct Login<'a> {
    pub client_id: &'a str,
    pub username: &'a str,
    pub password: &'a str,
    pub queue: &'a str,
    /// Messages ahead of their acknowledgement.
    pub prefetch: u16,
}

pub struct Consumer {
    writer: Rc<Mutex<OwnedWriteHalf>>,
    pub messages: mpsc::UnboundedReceiver<Message>,
    answers: mpsc::UnboundedReceiver<Result<i32, String>>,
    reading: JoinHandle<Result<(), String>>,
    client_id: String,
    queue: String,
    next_command: i32,
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // What is not acknowledged goes back with the connection.
        self.reading.abort();
    }
}

impl Consumer {
    /// Connects and begins to consume. The error is a sentence.
    pub async fn open(host: &str, port: u16, login: Login<'_>) -> Result<Self, String> {
        let opening = Self::connect(host, port, login);
        tokio::time::timeout(ANSWER_WAIT, opening)
            .await
            .map_err(|_| "it gave no answer in 10 seconds".to_owned())?
    }

    async fn connect(host: &str, port: u16, login: Login<'_>) -> Result<Self, String> {
        let mut stream = TcpStream::connect((host, port)).await.map_err(|error| error.to_string())?;
        let _ = stream.set_nodelay(true);
        let greeting = read_frame(&mut stream).await?;
        let version =
            greeting.get(9..13).and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_be_bytes);
        if !greeting.starts_with(b"\x01ActiveMQ") || version < VERSION {
            return Err(format!("it speaks no OpenWire of version {VERSION} (ActiveMQ 5.13 or later)"));
        }
        let io = |error: std::io::Error| error.to_string();
        stream.write_all(&framed(of::WIRE_FORMAT_INFO, &wire_format())).await.map_err(io)?;
        let (reader, writer) = stream.into_split();
        let writer = Rc::new(Mutex::new(writer));
        let (dispatched, messages) = mpsc::unbounded_channel();
        let (answered, answers) = mpsc::unbounded_channel();
        let reading = read_all(reader, Rc::clone(&writer), dispatched, answered);
        let mut consumer = Self {
            writer,
            messages,
            answers,
            reading: tokio::task::spawn_local(reading),
            client_id: login.client_id.to_owned(),
            queue: login.queue.to_owned(),
            next_command: 0,
        };
        consumer.introduce(login).await?;
        Ok(consumer)
    }

    async fn introduce(&mut self, login: Login<'_>) -> Result<(), String> {
        let id = login.client_id;
        self.ask(of::CONNECTION_INFO, |writer| {
            writer.object(of::CONNECTION_ID, |writer| _ = writer.text(id));
            writer.text(id).text(login.password).text(login.username);
            // No brokers on the way and no master; not managed; a client that ends with its connection.
            writer.none(2).flag(true).none(4);
        })
        .await?;
        self.ask(of::SESSION_INFO, |writer| {
            writer.object(of::SESSION_ID, |writer| _ = writer.text(id).long(1));
        })
        .await?;
        self.ask(of::CONSUMER_INFO, |writer| {
            consumer_id(writer, id);
            writer.none(1);
            queue(writer, login.queue);
            // Dispatched as they come: no selector, names, exclusivity, priority, network.
            writer.int(login.prefetch.into()).int(0).flag(true).none(3).none(3).byte(0).none(2).none(4);
        })
        .await
    }

    /// Tells the broker what became of messages, and waits until it has taken that.
    pub async fn acknowledge(&mut self, messages: &[MessageId], what: Ack) -> Result<(), String> {
        let (id, queue_name) = (self.client_id.clone(), self.queue.clone());
        for (place, message) in messages.iter().enumerate() {
            let fields = |writer: &mut Writer| {
                queue(writer, &queue_name);
                writer.none(1);
                consumer_id(writer, &id);
                writer.byte(what as u8);
                message.write(writer);
                message.write(writer);
                writer.int(1).none(1);
            };
            // They are taken in order, so the last answer stands for all.
            if place + 1 == messages.len() {
                self.ask(of::MESSAGE_ACK, fields).await?;
            } else {
                self.tell(of::MESSAGE_ACK, false, fields).await?;
            }
        }
        Ok(())
    }

    /// Ends so that what is not acknowledged goes back as it was: a connection that only ends counts as a delivery of it.
    pub async fn close(mut self) {
        let id = self.client_id.clone();
        let removed = self.ask(of::REMOVE_INFO, |writer| {
            consumer_id(writer, &id);
            writer.long(NOTHING_DELIVERED);
        });
        if removed.await.is_ok() {
            let _ = self.tell(of::SHUTDOWN_INFO, false, |_| {}).await;
        }
    }

    async fn tell(&mut self, kind: u8, asks: bool, fields: impl FnOnce(&mut Writer)) -> Result<(), String> {
        self.next_command += 1;
        let mut writer = Writer::default();
        writer.int(self.next_command).flag(asks);
        fields(&mut writer);
        let sending = async { self.writer.lock().await.write_all(&framed(kind, &writer.0)).await };
        match tokio::time::timeout(ANSWER_WAIT, sending).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err("it took nothing for 10 seconds".into()),
        }
    }

    async fn ask(&mut self, kind: u8, fields: impl FnOnce(&mut Writer)) -> Result<(), String> {
        self.tell(kind, true, fields).await?;
        loop {
            match tokio::time::timeout(ANSWER_WAIT, self.answers.recv()).await {
                Ok(Some(Ok(command))) if command == self.next_command => return Ok(()),
                // An answer to what nobody waits for any more.
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(refused))) => return Err(refused),
                Ok(None) => return Err(self.lost().await),
                Err(_) => return Err("it gave no answer in 10 seconds".into()),
            }
        }
    }

    /// Why nothing comes any more.
    pub async fn lost(&mut self) -> String {
        match (&mut self.reading).await {
            Ok(Err(why)) => why,
            _ => "the connection is lost".into(),
        }
    }
}

fn consumer_id(writer: &mut Writer, connection: &str) {
    writer.object(of::CONSUMER_ID, |writer| _ = writer.text(connection).long(1).long(1));
}

fn queue(writer: &mut Writer, name: &str) {
    writer.object(of::QUEUE, |writer| _ = writer.text(name));
}

/// Everything that would make frames harder to read is turned off.
fn wire_format() -> Vec<u8> {
    let mut properties = Writer::default();
    let flags = ["TightEncodingEnabled", "CacheEnabled", "SizePrefixDisabled", "StackTraceEnabled"];
    properties.int(6);
    for name in flags {
        properties.utf(name).byte(1).flag(false);
    }
    // The second name is spelt so by the protocol.
    for name in ["MaxInactivityDuration", "MaxInactivityDurationInitalDelay"] {
        properties.utf(name).byte(6).long(SILENCE_MILLIS);
    }
    let mut writer = Writer(b"ActiveMQ".to_vec());
    writer.int(VERSION).flag(true).int(i32::try_from(properties.0.len()).unwrap_or(0));
    writer.0.extend(properties.0);
    writer.0
}

fn framed(kind: u8, fields: &[u8]) -> Vec<u8> {
    let length = u32::try_from(fields.len() + 1).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &[kind], fields].concat()
}

async fn read_frame(reader: &mut (impl tokio::io::AsyncRead + Unpin)) -> Result<Vec<u8>, String> {
    let io = |error: std::io::Error| format!("the connection is lost: {error}");
    let length = reader.read_u32().await.map_err(io)? as usize;
    if length == 0 || length > FRAME_BYTES_MAX {
        return Err(format!("it sent a frame of {length} bytes"));
    }
    // Grows with what comes, not with what was announced.
    let mut frame = Vec::with_capacity(length.min(64 << 10));
    let read = reader.take(length as u64).read_to_end(&mut frame).await.map_err(io)?;
    if read < length {
        return Err("the connection is lost in the middle of a frame".into());
    }
    Ok(frame)
}

/// Reads until the connection ends, and shows that this side lives. The error says why it ended.
async fn read_all(
    mut reader: OwnedReadHalf,
    writer: Rc<Mutex<OwnedWriteHalf>>,
    dispatched: mpsc::UnboundedSender<Message>,
    answered: mpsc::UnboundedSender<Result<i32, String>>,
) -> Result<(), String> {
    let (frames, mut framed_in) = mpsc::channel(1);
    let reading = async move {
        loop {
            let frame = read_frame(&mut reader).await;
            let is_over = frame.is_err();
            if frames.send(frame).await.is_err() || is_over {
                return;
            }
        }
    };
    let working = async {
        let mut signs = tokio::time::interval(SIGN_OF_LIFE);
        let silence = Duration::from_millis(SILENCE_MILLIS.unsigned_abs() * 2);
        let mut heard = tokio::time::Instant::now();
        loop {
            tokio::select! {
                frame = framed_in.recv() => {
                    heard = tokio::time::Instant::now();
                    let frame = frame.unwrap_or_else(|| Err("the connection is lost".into()))?;
                    take(&frame, &dispatched, &answered)
                        .map_err(|Malformed(what)| format!("it sent {what}"))?;
                }
                _ = signs.tick() => {
                    if heard.elapsed() > silence {
                        return Err("it has been silent for a minute".to_owned());
                    }
                    let mut alive = Writer::default();
                    alive.int(0).flag(false);
                    let frame = framed(of::KEEP_ALIVE_INFO, &alive.0);
                    let sent = writer.lock().await.write_all(&frame).await;
                    sent.map_err(|error| format!("the connection is lost: {error}"))?;
                }
            }
        }
    };
    tokio::select! {
        ended = working => ended,
        // What was read last is worked on still.
        () = reading => Err("the connection is lost".into()),
    }
}

fn take(
    frame: &[u8],
    dispatched: &mpsc::UnboundedSender<Message>,
    answered: &mpsc::UnboundedSender<Result<i32, String>>,
) -> Result<(), Malformed> {
    let mut reader = Reader::new(frame);
    let kind = reader.byte()?;
    if kind == of::WIRE_FORMAT_INFO {
        return Ok(());
    }
    reader.int()?;
    reader.flag()?;
    match kind {
        of::RESPONSE => drop(answered.send(Ok(reader.int()?))),
        of::EXCEPTION_RESPONSE => {
            reader.int()?;
            let has_words = reader.flag()?;
            let (class, words) = if has_words { (reader.text()?, reader.text()?) } else { (None, None) };
            drop(answered.send(Err(words.or(class).unwrap_or_else(|| "it refused without a word".into()))));
        }
        of::MESSAGE_DISPATCH => {
            if let Some(message) = Message::of_dispatch(&mut reader)? {
                drop(dispatched.send(message));
            }
        }
        // Signs of life, the broker's name, advice where else to connect.
        _ => {}
    }
    Ok(())
}
