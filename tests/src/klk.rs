//! A point-of-sale API as shops have them: an API key in a header, inventory by page and sales by day, for each store. Each answer can be
//! replaced by a wrong one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The key that requests must carry in `X-API-Key`.
pub const KEY: &str = "klk-key-of-the-tests";

/// A running API; dropping it ends it.
pub struct Klk {
    /// Port on 127.0.0.1.
    pub port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

/// What the API holds.
#[derive(Default)]
pub struct State {
    /// By store.
    pub inventory: BTreeMap<String, Vec<Value>>,
    /// By store; each has a `fecha`.
    pub sales: BTreeMap<String, Vec<Value>>,
    /// Targets (path and query) that were asked for.
    pub asked: Vec<String>,
    instead: Option<Instead>,
}

type Instead = Box<dyn FnMut(&Asked) -> Option<Reply> + Send>;

/// A request.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Path without the query.
    pub path: String,
    /// The query's parameters.
    pub parameters: BTreeMap<String, String>,
    /// Headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Beside `Content-Length`.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Only so many bytes of the body are sent; then the connection ends.
    pub cut: Option<usize>,
}

impl Reply {
    /// JSON with the status 200.
    #[must_use]
    pub fn json(value: &Value) -> Self {
        Self::text(200, &value.to_string())
    }

    /// A body with a status.
    #[must_use]
    pub fn text(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: body.as_bytes().to_vec(), cut: None }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Klk {
    /// Starts it without any data.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Ok(Self { port, state, task })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Answers this where it is something; none: as usual.
    pub fn instead(&self, instead: impl FnMut(&Asked) -> Option<Reply> + Send + 'static) {
        self.state().instead = Some(Box::new(instead));
    }

    /// Answers as usual again.
    pub fn as_usual(&self) {
        self.state().instead = None;
    }

    /// Sets a store's inventory.
    pub fn stock(&self, store: &str, items: Vec<Value>) {
        self.state().inventory.insert(store.to_owned(), items);
    }
}

impl Drop for Klk {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An article of an inventory.
#[must_use]
pub fn article(code: u32, stock: f64) -> Value {
    json!({
        "codigo": format!("{code:06}"),
        "descripcion": format!("Artículo {code}"),
        "existencia": stock,
        "precio": "12.50",
        "producto": {"departamento": "VIVERES"},
        "activo": true,
    })
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    while let Ok(Some(asked)) = read(&mut stream).await {
        let reply = answer(&asked, &state);
        if write(&mut stream, &reply).await.is_err() || reply.cut.is_some() {
            return;
        }
    }
}

/// Sends an answer, or the part of it that is to come.
pub(crate) async fn write(stream: &mut TcpStream, reply: &Reply) -> std::io::Result<()> {
    let mut out = format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    stream.write_all(&[out.as_bytes(), body].concat()).await
}

/// Reads a request; none when the connection has ended.
pub(crate) async fn read(stream: &mut TcpStream) -> std::io::Result<Option<Asked>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if head.len() > 1 << 16 || stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("/").to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_lowercase(), value.trim().to_owned()))
    };
    let headers: BTreeMap<String, String> = lines.filter_map(header).collect();
    let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let parameter = |pair: &str| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    let parameters = query.split('&').filter_map(parameter).collect();
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(Asked { path: path.to_owned(), parameters, headers, body }))
}

fn answer(asked: &Asked, state: &Mutex<State>) -> Reply {
    let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let query: Vec<String> = asked.parameters.iter().map(|(k, v)| format!("{k}={v}")).collect();
    state.asked.push(format!("{}?{}", asked.path, query.join("&")));
    if let Some(reply) = state.instead.as_mut().and_then(|instead| instead(asked)) {
        return reply;
    }
    if asked.headers.get("x-api-key").map(String::as_str) != Some(KEY) {
        return Reply::text(401, r#"{"error":"clave inválida"}"#);
    }
    let steps: Vec<&str> = asked.path.trim_start_matches("/v1/").split('/').collect();
    match steps[..] {
        [store, "inventario"] => paged(asked, state.inventory.get(store).map_or(&[], Vec::as_slice)),
        [store, "ventas"] => {
            let day = asked.parameters.get("fecha").cloned().unwrap_or_default();
            let sales = state.sales.get(store).into_iter().flatten();
            let of_day: Vec<&Value> = sales.filter(|sale| sale["fecha"] == day.as_str()).collect();
            Reply::json(&json!({ "ventas": of_day }))
        }
        _ => Reply::text(404, "{}"),
    }
}

/// A page of records, with their number in all.
fn paged(asked: &Asked, items: &[Value]) -> Reply {
    let number = |name: &str, default: usize| {
        asked.parameters.get(name).and_then(|t| t.parse().ok()).unwrap_or(default)
    };
    let (page, limit) = (number("page", 1), number("limit", 100).clamp(1, 1_000));
    let total = items.len();
    let items: Vec<&Value> = items.iter().skip((page.max(1) - 1) * limit).take(limit).collect();
    Reply::json(&json!({ "data": { "items": items }, "meta": { "page": page, "total": total } }))
}
