//! The routes.

use crate::board::Board;
use crate::freshness;
use crate::guard::{Access, access};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use caudal_control::config::Secret;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The router over `board`; `key` guards it.
pub(crate) fn router(board: Arc<Board>, key: Option<Secret>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/api/v1/freshness", get(freshness::all))
        .layer(from_fn(timed))
        // Bounds its time itself.
        .route("/api/v1/freshness/{table}", get(freshness::one))
        .with_state(board)
        .fallback(unknown)
        .layer(from_fn_with_state(Arc::new(key), guarded))
}

async fn health(State(board): State<Arc<Board>>, Extension(access): Extension<Access>) -> Response {
    let mut health = board.health();
    let code = if health.failing.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if access != Access::Full {
        health.failing.clear();
    }
    (code, Json(health)).into_response()
}

async fn metrics(State(board): State<Arc<Board>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], board.metrics()).into_response()
}

async fn status(State(board): State<Arc<Board>>) -> Response {
    Json(board.status()).into_response()
}

async fn unknown() -> Response {
    refusal(StatusCode::NOT_FOUND, "no such path; there are /health, /metrics, /status and /api/v1/freshness")
}

pub(crate) fn refusal(code: StatusCode, message: &str) -> Response {
    (code, Json(json!({ "error": message }))).into_response()
}

async fn guarded(State(key): State<Arc<Option<Secret>>>, mut request: Request, next: Next) -> Response {
    let access = access(key.as_ref().as_ref(), request.headers());
    match access {
        Access::Foreign => {
            refusal(StatusCode::FORBIDDEN, "ask for 127.0.0.1 or localhost, or configure http.api_key")
        }
        Access::Bare if request.uri().path() != "/health" => {
            let mut response = refusal(
                StatusCode::UNAUTHORIZED,
                "show the API key: `Authorization: Bearer …` or `X-API-Key: …`",
            );
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            response
        }
        _ => {
            request.extensions_mut().insert(access);
            next.run(request).await
        }
    }
}

async fn timed(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refusal(StatusCode::GATEWAY_TIMEOUT, "the answer took too long"),
    }
}
