//! A server that speaks TDS 7.4 as SQL Server does, as far as a reader of tables needs it: PRELOGIN with TLS inside, LOGIN7, batches,
//! `sp_executesql` with its parameters, and results of 23 types, as they are sent by the real one (MS-TDS). What is answered is a closure's
//! matter; an answer can break off, stall, or end with an error in the middle of its rows.
//!
//! [`model`] holds tables on top of it.

pub mod model;
mod request;
mod tls;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use wire::Packets;

pub use model::Mssql;
pub use request::Request;
pub use tls::Certificate;

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the server names them; numbers are precision, scale or length")]
pub enum Ty {
    Bit,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Real,
    Float,
    Decimal(u8, u8),
    Money,
    SmallMoney,
    Date,
    Time(u8),
    DateTime,
    SmallDateTime,
    DateTime2(u8),
    DateTimeOffset(u8),
    Guid,
    NVarChar(u16),
    NVarCharMax,
    VarChar(u16),
    VarCharMax,
    VarBinary(u16),
    VarBinaryMax,
    Binary(u16),
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// `bit`
    Bool(bool),
    /// Whole numbers.
    Int(i64),
    /// `real`, `float`
    Float(f64),
    /// Unscaled: of `decimal`, and of money in 1/10000.
    Decimal(i128),
    /// Days since 0001-01-01.
    Date(u32),
    /// Units of 10^-scale s since midnight.
    Time(u64),
    /// Days and units.
    DateTime2(u32, u64),
    /// Days and units by the clock of UTC, and the offset in minutes.
    DateTimeOffset(u32, u64, i16),
    /// Days since 1900-01-01, and 1/300 s.
    DateTime(i32, u32),
    /// Days since 1900-01-01, and minutes.
    SmallDateTime(u16, u16),
    /// As it is written.
    Guid([u8; 16]),
    /// Unicode.
    Text(String),
    /// `varchar` in code page 1252, `varbinary`.
    Bytes(Vec<u8>),
}

/// Rows as they are sent.
pub type Rows = Box<dyn Iterator<Item = Vec<Value>> + Send>;

/// A part of an answer.
pub enum Reply {
    /// A result, and how it ends.
    Rows(Vec<(String, Ty)>, Rows, End),
    /// So many rows are concerned.
    Done(u64),
    /// A statement is refused.
    Error(Refusal),
}

/// How rows end.
#[derive(Clone, Debug)]
pub enum End {
    /// As they should.
    Done,
    /// With an error.
    Error(Refusal),
    /// The connection breaks.
    Cut,
    /// Nothing comes any more.
    Stall,
}

/// An error as the server tells it.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Of `sys.messages`.
    pub number: u32,
    /// Severity.
    pub class: u8,
    /// What it says.
    pub message: String,
}

impl Refusal {
    /// An error.
    #[must_use]
    pub fn new(number: u32, class: u8, message: &str) -> Self {
        Self { number, class, message: message.to_owned() }
    }
}

/// Answers requests.
pub type Handler = Arc<dyn Fn(&Request) -> Vec<Reply> + Send + Sync>;

/// Who may come in, and how.
#[derive(Clone)]
pub struct Options {
    /// The login.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The only database that is there.
    pub database: String,
    /// Encrypts with it; none: cannot.
    pub certificate: Option<Certificate>,
    /// Refuses who does not encrypt.
    pub insists: bool,
}

/// A running server; dropping it ends it, and all of its connections.
pub struct Server {
    /// Its port.
    pub port: u16,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts it on an address of this machine, and a port: 0 for a free one.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start(host: &str, port: u16, options: Options, handler: Handler) -> Result<Self> {
        let listener = TcpListener::bind((host, port)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { return };
                        connections.spawn(serve(stream, options.clone(), Arc::clone(&handler)));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { port, task })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const PRELOGIN: u8 = 0x12;
const NOT_SUPPORTED: u8 = 2;
const REQUIRED: u8 = 3;

/// A message of a client, put together from its packets. Bound: what tests send.
async fn read_message<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(u8, Vec<u8>)> {
    let mut body = Vec::new();
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).await?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let at = body.len();
        body.resize(at + length.checked_sub(8).ok_or(io::ErrorKind::InvalidData)?, 0);
        stream.read_exact(&mut body[at..]).await?;
        if header[1] & 1 == 1 {
            return Ok((header[0], body));
        }
    }
}

async fn serve(mut stream: TcpStream, options: Options, handler: Handler) {
    let served = async {
        stream.set_nodelay(true)?;
        let (kind, message) = read_message(&mut stream).await?;
        let asked = request::prelogin_encryption(&message).filter(|_| kind == PRELOGIN);
        let asked = asked.ok_or_else(|| io::Error::other("no PRELOGIN"))?;
        let answer = match (&options.certificate, asked) {
            (None, _) => NOT_SUPPORTED,
            (Some(_), NOT_SUPPORTED) if options.insists => REQUIRED,
            (Some(_), NOT_SUPPORTED) => NOT_SUPPORTED,
            (Some(_), _) => 1,
        };
        let mut packets = Packets::default();
        packets.body().extend(wire::prelogin(answer));
        packets.finish(&mut stream).await?;
        match (&options.certificate, answer) {
            (Some(certificate), 1) => {
                let encrypted = tls::accept(stream, certificate).await?;
                session(encrypted, &options, &handler).await
            }
            (_, REQUIRED) => Ok(()),
            _ => session(stream, &options, &handler).await,
        }
    };
    let served: io::Result<()> = served.await;
    // A client that goes away is none of our errors.
    drop(served);
}

async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    options: &Options,
    handler: &Handler,
) -> io::Result<()> {
    let (_, login) = read_message(&mut stream).await?;
    let login = request::login(&login).ok_or(io::ErrorKind::InvalidData)?;
    let mut packets = Packets::default();
    if login.user != options.user || login.password != options.password {
        let message = format!("Login failed for user '{}'.", login.user);
        wire::error(packets.body(), &Refusal::new(18456, 14, &message));
        wire::done(packets.body(), wire::DONE, 2, 0);
        return packets.finish(&mut stream).await;
    }
    if login.database != options.database {
        let message =
            format!("Cannot open database \"{}\" requested by the login. The login failed.", login.database);
        wire::error(packets.body(), &Refusal::new(4060, 11, &message));
        wire::done(packets.body(), wire::DONE, 2, 0);
        return packets.finish(&mut stream).await;
    }
    wire::logged_in(packets.body(), &login.database);
    packets.finish(&mut stream).await?;
    loop {
        let (kind, message) = read_message(&mut stream).await?;
        let Some(request) = request::read(kind, &message)? else {
            // ATTENTION: acknowledged.
            let mut packets = Packets::default();
            wire::done(packets.body(), wire::DONE, 0x20, 0);
            packets.finish(&mut stream).await?;
            continue;
        };
        if !answer(&mut stream, handler(&request), request.is_call).await? {
            return Ok(());
        }
    }
}

/// Whether the connection goes on.
async fn answer<S: AsyncWrite + Unpin>(
    stream: &mut S,
    replies: Vec<Reply>,
    is_call: bool,
) -> io::Result<bool> {
    let mut packets = Packets::default();
    let (token, count) = (if is_call { wire::DONE_IN_PROC } else { wire::DONE }, replies.len());
    let mut failed = false;
    for (i, reply) in replies.into_iter().enumerate() {
        let more = u16::from(is_call || i + 1 < count);
        let end = match reply {
            Reply::Done(rows) => {
                wire::done(packets.body(), token, 0x10 | more, rows);
                continue;
            }
            Reply::Error(refusal) => End::Error(refusal),
            Reply::Rows(columns, rows, end) => {
                wire::columns(packets.body(), &columns);
                let mut sent = 0;
                for row in rows {
                    wire::row(packets.body(), &columns, &row);
                    packets.pass_on(stream).await?;
                    sent += 1;
                }
                if let End::Done = end {
                    wire::done(packets.body(), token, 0x10 | more, sent);
                }
                end
            }
        };
        match end {
            End::Done => {}
            End::Error(refusal) => {
                failed = true;
                wire::error(packets.body(), &refusal);
                wire::done(packets.body(), token, 2 | more, 0);
            }
            End::Cut => {
                packets.all_but_the_last(stream).await?;
                return Ok(false);
            }
            End::Stall => {
                packets.all_but_the_last(stream).await?;
                tokio::time::sleep(Duration::from_secs(3600)).await;
            }
        }
    }
    if is_call {
        wire::done(packets.body(), wire::DONE_PROC, if failed { 2 } else { 0 }, 0);
    }
    packets.finish(stream).await?;
    Ok(true)
}
