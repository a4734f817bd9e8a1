//! Commands against a server that plays a script.

use super::results::Failure;
use super::*;
use crate::value::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Lets any client in, answers each command with the next of `answers`, and tells each command.
async fn server(answers: Vec<Vec<Vec<u8>>>) -> (Endpoint, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port(),
        user: "u".into(),
        password: String::new(),
        database: Some("d".into()),
        tls: TlsOptions::default(),
        connect_timeout: Duration::from_secs(30),
        keepalive: Keepalive::default(),
    };
    let (told, commands) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let greeting = b"\x0a9.7.4\0\x01\0\0\x0012345678\0\xff\xff\x2d\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0abcdefghijkl\0mysql_native_password\0";
        send(&mut tcp, 0, greeting).await;
        told.send(command(&mut tcp).await.unwrap()).unwrap();
        send(&mut tcp, 2, OK).await;
        for answer in answers {
            let Some(received) = command(&mut tcp).await else { return };
            let _ = told.send(received);
            for (i, packet) in answer.iter().enumerate() {
                send(&mut tcp, i as u8 + 1, packet).await;
            }
        }
        let _ = command(&mut tcp).await;
    });
    (endpoint, commands)
}

const OK: &[u8] = b"\0\x03\0\x02\0\0\0";
const END: &[u8] = b"\xfe\0\0\x02\0";
const INT_COLUMN: &[u8] = b"\x03def\0\0\0\x01c\0\x0c\x3f\0\x0b\0\0\0\x03\0\0\0\0\0";

async fn send(tcp: &mut TcpStream, sequence: u8, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    tcp.write_all(&[&length[..3], &[sequence], payload].concat()).await.unwrap();
}

async fn command(tcp: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    tcp.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; usize::from(head[0]) | usize::from(head[1]) << 8];
    tcp.read_exact(&mut payload).await.ok()?;
    Some(payload)
}

fn packets(packets: &[&[u8]]) -> Vec<Vec<u8>> {
    packets.iter().map(|p| p.to_vec()).collect()
}

#[tokio::test]
async fn the_database_is_asked_for_when_logging_in() {
    let (endpoint, mut commands) = server(vec![packets(&[OK])]).await;
    let mut connection = Connection::connect(&endpoint, 1 << 20).await.unwrap();
    let login = commands.recv().await.unwrap();
    assert_eq!(login[0] & 8, 8, "the flag that a database follows");
    assert!(login[32..].starts_with(b"u\0\0d\0mysql_native_password\0"));
    assert_eq!(connection.execute("UPDATE t SET a=1").await.unwrap(), 3);
}

#[tokio::test]
async fn a_connection_whose_answer_was_left_is_not_used_again() {
    // Of the first answer only a part comes.
    let half = packets(&[&[1], INT_COLUMN, END, b"\x011"]);
    let (endpoint, mut commands) = server(vec![half, packets(&[OK])]).await;
    let mut connection = Connection::connect(&endpoint, 1 << 20).await.unwrap();
    commands.recv().await.unwrap();
    let cut = tokio::time::timeout(Duration::from_millis(50), connection.query("SELECT 1")).await;
    assert!(cut.is_err(), "the answer has no end");
    let refused = connection.query("SELECT 2").await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Transient, "{refused}");
    assert!(matches!(connection.run("SELECT 2", &[]).await, Err(Failure::Lost(_))));
    assert_eq!(commands.recv().await.unwrap(), b"\x03SELECT 1");
    drop(connection);
    assert!(commands.recv().await.is_none(), "nothing was sent behind the first command");
}

#[tokio::test]
async fn a_refused_statement_leaves_the_connection_usable() {
    let refusal = packets(&[b"\xff\x7a\x04#42S02no such table"]);
    let (endpoint, _commands) = server(vec![refusal, packets(&[OK])]).await;
    let mut connection = Connection::connect(&endpoint, 1 << 20).await.unwrap();
    let refused = connection.text_rows("SELECT * FROM nosuch").await.unwrap_err();
    assert_eq!(refused.code(), Some(1146));
    assert_eq!(refused.into_error().fault(), Fault::Transient);
    connection.execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn rows_of_a_statement_are_read_one_by_one_and_it_is_closed_behind_them() {
    let prepared = packets(&[b"\0\x05\0\0\0\x01\0\x01\0\0\0\0", INT_COLUMN, END, INT_COLUMN, END]);
    let rows = packets(&[&[1], INT_COLUMN, END, b"\0\0\x07\0\0\0", b"\0\x04", END]);
    let (endpoint, mut commands) = server(vec![prepared, rows, vec![], packets(&[OK])]).await;
    let mut connection = Connection::connect(&endpoint, 1 << 20).await.unwrap();
    let mut rows = connection.run("SELECT c FROM t WHERE c > ?", &[Value::Int(6)]).await.unwrap();
    assert!(rows.next().await.unwrap().unwrap().values() == Some(vec![Value::Int(7)]));
    assert!(rows.next().await.unwrap().unwrap().values() == Some(vec![Value::Null]));
    assert!(rows.next().await.unwrap().is_none() && rows.next().await.unwrap().is_none());
    connection.execute("SELECT 1").await.unwrap();
    for expected in [0x16, 0x17, 0x19, 0x03] {
        let command = loop {
            let command = commands.recv().await.unwrap();
            if command[0] != login_byte() {
                break command;
            }
        };
        assert_eq!(command[0], expected);
    }
}

/// The first byte of a login: its flags.
fn login_byte() -> u8 {
    0x09
}

#[tokio::test]
async fn a_connection_is_probed_as_configured_and_after_30_10_and_5_by_default() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let secs = Duration::from_secs;
    let chosen = Keepalive { idle: secs(7), interval: secs(3), probes: 2 };
    for (keepalive, expected) in
        [(Keepalive::default(), (secs(30), secs(10), 5)), (chosen, (secs(7), secs(3), 2))]
    {
        let tcp = dial(listener.local_addr().unwrap(), keepalive).await.unwrap();
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap());
        let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!((times.0, times.1, socket.tcp_keepalive_retries().unwrap()), expected);
    }
}
