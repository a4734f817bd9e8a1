//! A server that only sends a log that was made up: for what a real one takes hours to reach.

use caudal_mysql::connection::{Endpoint, Keepalive};
use caudal_mysql::tls::{TlsMode, TlsOptions};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Simulated {
    port: u16,
    asked: Arc<Mutex<(String, u32)>>,
}

impl Simulated {
    /// Serves events (header to body, no checksums) of `file` to whoever asks, then stays silent but for heartbeats.
    pub(crate) async fn start(file: &str, events: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let asked = Arc::<Mutex<(String, u32)>>::default();
        let (noted, file) = (Arc::clone(&asked), file.to_owned());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, file.clone(), events.clone(), Arc::clone(&noted)));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".into(),
            port: self.port,
            user: "any".into(),
            password: String::new(),
            database: None,
            tls: TlsOptions { mode: TlsMode::Disabled, ..TlsOptions::default() },
            connect_timeout: Duration::from_secs(20),
            keepalive: Keepalive::default(),
        }
    }

    /// The file and position of the last request.
    pub(crate) fn asked(&self) -> (String, u32) {
        self.asked.lock().expect("no panic in another task").clone()
    }
}

/// An event that ends at `end`, of which the header holds the low 32 bits.
pub(crate) fn event(code: u8, end: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = 1_700_000_000u32.to_le_bytes().to_vec();
    bytes.push(code);
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&(19 + body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(end as u32).to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(body);
    bytes
}

/// The body of a query event.
pub(crate) fn query(statement: &str) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    body.extend_from_slice(b"db\0");
    body.extend_from_slice(statement.as_bytes());
    body
}

/// A heartbeat whose position has 64 bits.
pub(crate) fn heartbeat_v2(file: &str, pos: u64) -> Vec<u8> {
    let mut body = vec![1, file.len() as u8];
    body.extend_from_slice(file.as_bytes());
    body.extend_from_slice(&[2, 9, 0xfe]);
    body.extend_from_slice(&pos.to_le_bytes());
    body.push(0);
    event(41, 0, &body)
}

async fn serve(mut client: TcpStream, file: String, events: Vec<Vec<u8>>, asked: Arc<Mutex<(String, u32)>>) {
    let mut greeting = b"\x0a8.4.0-simulated\0\x01\0\0\0abcdefgh\0".to_vec();
    // Capabilities: protocol 4.1, secure connection, plugin names; utf8mb4; 20 bytes of challenge.
    greeting.extend_from_slice(&[0x00, 0x82, 45, 2, 0, 0x08, 0x00, 21]);
    greeting.extend_from_slice(&[0; 10]);
    greeting.extend_from_slice(b"ijklmnopqrst\0mysql_native_password\0");
    send(&mut client, 0, &greeting).await;
    receive(&mut client).await;
    send(&mut client, 2, OK).await;
    loop {
        let Some(request) = receive(&mut client).await else { return };
        match request[0] {
            3 if request[1..].starts_with(b"SELECT") => {
                let column = b"\x03def\0\0\0\x01c\0\x0c\x2d\0\x10\0\0\0\xfd\0\0\0\0\0";
                for (sequence, packet) in [&[1][..], column, EOF, b"\x04NONE", EOF].into_iter().enumerate() {
                    send(&mut client, 1 + sequence as u8, packet).await;
                }
            }
            0x12 => {
                let pos = u32::from_le_bytes(request[1..5].try_into().expect("four bytes"));
                *asked.lock().expect("no panic in another task") =
                    (String::from_utf8(request[11..].to_vec()).expect("a name"), pos);
                break;
            }
            _ => send(&mut client, 1, OK).await,
        }
    }
    let rotate = [&4u64.to_le_bytes()[..], file.as_bytes()].concat();
    let mut format = vec![4, 0];
    format.extend_from_slice(&[0; 55]);
    format.extend_from_slice(&[0; 5]);
    let head = [event(4, 0, &rotate), event(15, 130, &format)];
    let mut sequence = 1u8;
    for event in head.iter().chain(&events) {
        send(&mut client, sequence, &[&[0], &event[..]].concat()).await;
        sequence = sequence.wrapping_add(1);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
}

const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];

async fn send(client: &mut TcpStream, sequence: u8, payload: &[u8]) {
    let mut packet = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    packet.push(sequence);
    packet.extend_from_slice(payload);
    let _ = client.write_all(&packet).await;
}

async fn receive(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = [0; 4];
    client.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize];
    client.read_exact(&mut payload).await.ok()?;
    Some(payload)
}
