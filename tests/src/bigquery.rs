//! BigQuery: an emulator that the tests of one run share, and before it a front of each test's own, which notes what is asked, can answer
//! something else in its place, and can ask for tokens, which it gives.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::klk::{self, Asked, Reply};
use crate::service::Service;

/// The project of all tests.
pub const PROJECT: &str = "proyecto-pruebas";

/// An answer of the emulator takes at most so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running emulator.
pub struct Emulator {
    service: Service,
}

impl Emulator {
    /// The one that the tests of this run share.
    ///
    /// # Panics
    /// When it doesn't start: every test that needs it fails with the reason.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SERVER: OnceLock<Emulator> = OnceLock::new();
        SERVER.get_or_init(|| {
            let service =
                Service::start("bigquery", &[]).unwrap_or_else(|e| panic!("shared BigQuery: {e:#}"));
            Emulator { service }
        })
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.service.port()
    }

    /// That of its Storage API.
    ///
    /// # Errors
    /// When it has not said it.
    pub fn storage_port(&self) -> Result<u16> {
        let said = std::fs::read_to_string(self.service.dir().join("storage"))?;
        Ok(said.trim().parse()?)
    }

    /// A new, empty dataset of this test's own.
    ///
    /// # Errors
    /// When the emulator refuses.
    pub async fn dataset(&self, name: &str) -> Result<Dataset> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let id = format!("{name}_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "datasetReference": { "projectId": PROJECT, "datasetId": id } });
        self.post("datasets", &body).await?;
        Ok(Dataset { port: self.port(), id })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        post(self.port(), path, body).await
    }
}

async fn post(port: u16, path: &str, body: &Value) -> Result<Value> {
    let target = format!("/bigquery/v2/projects/{PROJECT}/{path}");
    let reply = ask(port, "POST", &target, body.to_string().as_bytes()).await?;
    let answer = String::from_utf8_lossy(&reply.body).into_owned();
    if reply.status >= 300 {
        bail!("{path}: {} {answer}", reply.status);
    }
    Ok(serde_json::from_str(&answer)?)
}

/// A dataset of the emulator.
#[derive(Clone, Debug)]
pub struct Dataset {
    port: u16,
    /// Its name.
    pub id: String,
}

impl Dataset {
    /// Runs statements, where `{}` stands for the dataset.
    ///
    /// # Errors
    /// As the emulator says.
    pub async fn run(&self, statements: &[&str]) -> Result<()> {
        for statement in statements {
            let sql = statement.replace("{}", &format!("{PROJECT}.{}", self.id));
            post(self.port, "queries", &json!({ "query": sql, "useLegacySql": false }))
                .await
                .with_context(|| sql.clone())?;
        }
        Ok(())
    }
}

type Instead = Box<dyn FnMut(&Asked) -> Option<Reply> + Send>;

/// What a front knows.
#[derive(Default)]
pub struct State {
    /// All that was asked for, in its order.
    pub asked: Vec<Asked>,
    /// How long a token holds, seconds, and how many were given; none: no token is asked for.
    pub tokens: Option<(u64, u32)>,
    instead: Option<Instead>,
}

impl State {
    /// Queries that were run, without those that were dry; their bodies.
    #[must_use]
    pub fn queries(&self) -> Vec<Value> {
        let bodies = self.asked.iter().filter(|asked| asked.path.ends_with("/queries"));
        let bodies = bodies.filter_map(|asked| serde_json::from_str::<Value>(&asked.body).ok());
        bodies.filter(|body| body["dryRun"] != true).collect()
    }
}

/// A server before the emulator; dropping it ends it.
pub struct Front {
    port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Front {
    /// Starts one.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start(emulator: &Emulator) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state: Arc<Mutex<State>> = Arc::default();
        let (shared, behind) = (Arc::clone(&state), emulator.port());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, behind, Arc::clone(&shared)));
            }
        });
        Ok(Self { port, state, task })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it knows.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers this where it is something; none: as the emulator does.
    pub fn instead(&self, instead: impl FnMut(&Asked) -> Option<Reply> + Send + 'static) {
        self.state().instead = Some(Box::new(instead));
    }

    /// Answers as the emulator does again.
    pub fn as_usual(&self) {
        self.state().instead = None;
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A failed request as the service writes it.
#[must_use]
pub fn refusal(status: u16, reason: &str, message: &str) -> Reply {
    let error = json!({ "reason": reason, "message": message, "domain": "global" });
    let body = json!({ "error": { "code": status, "message": message, "errors": [error] } });
    Reply { status, ..Reply::json(&body) }
}

async fn serve(mut stream: TcpStream, behind: u16, state: Arc<Mutex<State>>) {
    while let Ok(Some(asked)) = klk::read(&mut stream).await {
        let reply = match answer(&asked, &state) {
            Some(reply) => reply,
            None => forward(behind, &asked).await,
        };
        if klk::write(&mut stream, &reply).await.is_err() || reply.cut.is_some() {
            return;
        }
    }
}

fn answer(asked: &Asked, state: &Mutex<State>) -> Option<Reply> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.asked.push(asked.clone());
    if let Some(reply) = state.instead.as_mut().and_then(|instead| instead(asked)) {
        return Some(reply);
    }
    let (lasts, given) = state.tokens.as_mut()?;
    if asked.path == "/token" {
        *given += 1;
        return Some(Reply::json(&json!({ "access_token": format!("token-{given}"), "expires_in": *lasts })));
    }
    let shown = asked.headers.get("authorization").map(String::as_str);
    let holds = shown == Some(&format!("Bearer token-{given}"));
    (!holds).then(|| refusal(401, "authError", "Invalid Credentials"))
}

async fn forward(port: u16, asked: &Asked) -> Reply {
    let query: Vec<String> = asked.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let method = if asked.body.is_empty() { "GET" } else { "POST" };
    let target = format!("{}?{}", asked.path, query.join("&"));
    let asked = ask(port, method, &target, asked.body.as_bytes()).await;
    asked.unwrap_or_else(|e| refusal(503, "backendError", &format!("{e:#}")))
}

async fn ask(port: u16, method: &str, target: &str, body: &[u8]) -> Result<Reply> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: emulator\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(PATIENCE, exchange).await.context("the emulator does not answer")??;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").context("no answer of the emulator")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok()).context("no status")?;
    Ok(Reply { status, headers: Vec::new(), body: answer[end + 4..].to_vec(), cut: None })
}
