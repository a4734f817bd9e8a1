//! The API over real sockets.
#![allow(clippy::unwrap_used)] // a test file: what fails here fails a test

use caudal_api::view::{Health, Status};
use caudal_api::{Board, Info, bind, client, serve};
use caudal_control::config::{HttpSettings, Secret};
use caudal_core::{
    Check, Error, Position, Reader, Result, Sink, Source, SourcePosition, TableSchema, Writer,
};
use caudal_engine::shutdown::{Shutdown, ShutdownTrigger, channel};
use caudal_engine::{Limits, OnReject, Pipeline, StatusHandle, supervise};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

const KEY: &str = "0123456789abcdef";

struct Served {
    address: SocketAddr,
    trigger: ShutdownTrigger,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

async fn served(key: Option<&str>, pipelines: Vec<StatusHandle>) -> Served {
    let settings = HttpSettings { listen: "127.0.0.1:0".parse().unwrap(), api_key: key.map(Secret::new) };
    let listener = bind(settings.listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    let info = Info { version: "1.2.3".into(), prefix: "shop".into(), log: "embedded".into() };
    let board = Arc::new(Board::new(info, pipelines));
    let (trigger, shutdown) = channel();
    let stop = shutdown.clone();
    let task = tokio::spawn(async move { serve(listener, &settings, board, stop).await });
    Served { address, trigger, shutdown, task }
}

/// Ends that work, or cannot be opened.
struct End(bool);

#[async_trait::async_trait]
impl Source for End {
    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
    async fn discover(&self) -> Result<Vec<TableSchema>> {
        Ok(Vec::new())
    }
    async fn open(&self, _: Option<Position>) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Quiet))
    }
}

#[async_trait::async_trait]
impl Sink for End {
    async fn check(&self) -> Vec<Check> {
        Vec::new()
    }
    async fn open(&self) -> Result<Box<dyn Writer>> {
        match self.0 {
            true => Ok(Box::new(Quiet)),
            false => Err(Error::config("no such role").field("sinks.d.url").hint("create it")),
        }
    }
}

struct Quiet;

#[async_trait::async_trait]
impl Reader for Quiet {
    async fn next(&mut self) -> Result<caudal_core::Batch> {
        std::future::pending().await
    }
    async fn commit(&mut self, _: &Position) -> Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl Writer for Quiet {
    async fn resume(&mut self) -> Result<Option<Position>> {
        Ok(None)
    }
    async fn write(&mut self, _: &mut caudal_core::Batch) -> Result<caudal_core::Outcome> {
        Ok(caudal_core::Outcome::default())
    }
    async fn commit(&mut self) -> Result<Position> {
        Ok(Position::Source(SourcePosition::default()))
    }
}

fn run(name: &str, works: bool, shutdown: &Shutdown) -> StatusHandle {
    let status = StatusHandle::new(name);
    let pipeline = Pipeline {
        name: name.into(),
        source: Arc::new(End(true)),
        transforms: Vec::new(),
        sink: Arc::new(End(works)),
        dead_letters: None,
        on_reject: OnReject::Park,
        limits: Limits::default(),
    };
    tokio::spawn(supervise(pipeline, status.clone(), shutdown.clone(), 1));
    status
}

async fn until_state(handle: &StatusHandle, state: caudal_engine::State) {
    let wait = async {
        while handle.state() != state {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the state is reached");
}

#[tokio::test]
async fn health_is_503_and_names_what_is_wrong_until_every_pipeline_runs() {
    let (_trigger, shutdown) = channel();
    let well = run("capture/plex", true, &shutdown);
    let ill = run("sink/d", false, &shutdown);
    until_state(&well, caudal_engine::State::Running).await;
    until_state(&ill, caudal_engine::State::Parked).await;

    let both = served(None, vec![well.clone(), ill]).await;
    let (code, body) = client::get(both.address, "/health", None).await.unwrap();
    let health: Health = serde_json::from_slice(&body).unwrap();
    assert_eq!((code.as_u16(), health.failing.len()), (503, 1));
    assert_eq!(health.failing[0].pipeline, "sink/d");
    assert_eq!(health.failing[0].error.as_deref(), Some("sinks.d.url: no such role"));
    assert_eq!(health.failing[0].hint.as_deref(), Some("create it"));

    let one = served(None, vec![well]).await;
    let (code, _) = client::get(one.address, "/health", None).await.unwrap();
    assert_eq!(code.as_u16(), 200);
}

#[tokio::test]
async fn status_and_metrics_tell_of_every_pipeline() {
    let served = served(None, vec![StatusHandle::new("capture/plex")]).await;
    let settings = HttpSettings { listen: served.address, api_key: None };
    let status: Status = client::status(&settings).await.unwrap();
    assert_eq!((status.version.as_str(), status.prefix.as_str()), ("1.2.3", "shop"));
    assert_eq!(
        (status.pipelines[0].name.as_str(), status.pipelines[0].state.as_str()),
        ("capture/plex", "starting")
    );

    let (_, body) = client::get(served.address, "/metrics", None).await.unwrap();
    let text = String::from_utf8(body.to_vec()).unwrap();
    for line in ["caudal_up{pipeline=\"capture/plex\"} 0", "caudal_build_info{version=\"1.2.3\"} 1"] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
}

#[tokio::test]
async fn without_the_key_only_the_bare_health_is_told() {
    let served = served(Some(KEY), vec![StatusHandle::new("capture/plex")]).await;
    let ask = async |path, key: Option<&str>| {
        let key = key.map(Secret::new);
        let (code, body) = client::get(served.address, path, key.as_ref()).await.unwrap();
        (code.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    for path in ["/metrics", "/status", "/nothing"] {
        assert_eq!(ask(path, None).await.0, 401, "{path}");
        assert_eq!(ask(path, Some("0123456789abcdeX")).await.0, 401, "{path}");
    }
    assert_eq!(ask("/health", None).await, (503, r#"{"status":"failing"}"#.to_owned()));
    assert!(ask("/health", Some(KEY)).await.1.contains("capture/plex"));
    assert_eq!(ask("/status", Some(KEY)).await.0, 200);
    assert_eq!(ask("/nothing", Some(KEY)).await.0, 404);
}

#[tokio::test]
async fn a_request_addressed_to_another_host_is_refused_without_a_key() {
    let served = served(None, Vec::new()).await;
    let mut stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    stream
        .write_all(b"GET /status HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_request_head_beyond_the_bound_is_refused() {
    let served = served(None, Vec::new()).await;
    let mut stream = tokio::net::TcpStream::connect(served.address).await.unwrap();
    let head = format!("GET /status HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(200 << 10));
    // The server may close before it has read it all.
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn a_port_in_use_is_told_with_field_and_fix() {
    let served = served(None, Vec::new()).await;
    let error = bind(served.address).await.unwrap_err();
    assert!(error.to_string().starts_with("http.listen: port "), "{error}");
    assert!(error.to_string().contains("already in use"), "{error}");
    assert!(error.hint_text().is_some());
}

#[tokio::test]
async fn the_server_stops_with_the_daemon_even_while_a_connection_is_idle() {
    let served = served(None, Vec::new()).await;
    let _idle = tokio::net::TcpStream::connect(served.address).await.unwrap();
    served.trigger.stop();
    assert!(served.shutdown.is_stopping());
    tokio::time::timeout(Duration::from_secs(5), served.task).await.expect("it stops").unwrap();
}
