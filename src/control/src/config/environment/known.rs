//! Every variable that is known, and what becomes of those that set no key.

/// What a variable does.
pub(super) enum Effect {
    /// It is read by this room.
    Here,
    /// It is read somewhere else.
    Elsewhere(&'static str),
    /// It is accepted, and does nothing yet.
    None(&'static str),
    /// It promises what this version cannot keep: cause and fix.
    Refused(&'static str, &'static str),
}

const NO_DOCUMENTS: Effect =
    Effect::None("has no effect: this version makes no documents; rows go to the log and to CAUDAL_SINK_URL");
const NO_ALERTS: Effect = Effect::None("has no effect: watch /health and /metrics instead");
const STDERR: Effect =
    Effect::None("has no effect: the log goes to standard error, for the platform to keep");
const NOT_POLLED: Effect = Effect::None(
    "has no effect: changes are captured as they happen; it counts with ETL_INCREMENTAL_HOURS or ETL_FULL_SYNC_TIME",
);

/// Beside `ETL_DB_…`, whose fields can stand for any number of databases.
pub(super) const KNOWN: &[(&str, Effect)] = &[
    ("ETL_SERVICE_PORT", Effect::Here),
    ("ETL_SERVICE_NAME", Effect::Here),
    ("ETL_REGION", Effect::Here),
    ("ETL_ENABLED", Effect::Here),
    ("ETL_BATCH_SIZE", Effect::Here),
    ("ETL_API_KEY", Effect::Here),
    ("ETL_LOG_LEVEL", Effect::Elsewhere("how much is logged, unless RUST_LOG says it")),
    ("ETL_INCREMENTAL_HOURS", Effect::Here),
    ("ETL_FULL_SYNC_TIME", Effect::Here),
    (
        "ETL_RETRY_ATTEMPTS",
        Effect::None("has no effect: what may pass by itself is tried again until it does"),
    ),
    ("ETL_TIMEOUT_SECONDS", NOT_POLLED),
    ("ETL_LLM_PROVIDER", NO_DOCUMENTS),
    ("ETL_LLM_API_KEY", NO_DOCUMENTS),
    ("ETL_LLM_MODEL", NO_DOCUMENTS),
    ("ETL_LLM_TEMPERATURE", NO_DOCUMENTS),
    ("ETL_LLM_MAX_TOKENS", NO_DOCUMENTS),
    ("ETL_LLM_BASE_URL", NO_DOCUMENTS),
    ("ETL_LLM_LOCAL_MODEL", NO_DOCUMENTS),
    ("ETL_KB_URL", NO_DOCUMENTS),
    ("ETL_KB_SEARCH_URL", NO_DOCUMENTS),
    ("ETL_KB_AUTH_TOKEN", NO_DOCUMENTS),
    ("ETL_KB_TIMEOUT", NO_DOCUMENTS),
    ("ETL_KB_LOCAL_PATH", NO_DOCUMENTS),
    ("ETL_QUALITY_THRESHOLD", NO_DOCUMENTS),
    ("ETL_MIN_TEXT_LENGTH", NO_DOCUMENTS),
    ("ETL_MAX_DOCS_PER_BATCH", NO_DOCUMENTS),
    ("ETL_LOG_FILE", STDERR),
    ("ETL_LOG_ROTATION", STDERR),
    ("ETL_LOG_RETENTION_DAYS", STDERR),
    ("ETL_METRICS_ENABLED", Effect::Elsewhere("metrics are always served, at /metrics of ETL_SERVICE_PORT")),
    ("ETL_METRICS_PORT", Effect::None("has no effect: metrics are served by ETL_SERVICE_PORT, at /metrics")),
    ("ETL_PROMETHEUS_ENDPOINT", Effect::Elsewhere("metrics are served at /metrics")),
    ("ETL_ALERT_WEBHOOK", NO_ALERTS),
    ("ETL_ALERT_EMAIL", NO_ALERTS),
    ("ETL_ALERT_ON_ERROR", NO_ALERTS),
    ("ETL_ALERT_ON_LOW_QUALITY", NO_ALERTS),
    ("ETL_CORS_ORIGINS", Effect::None("has no effect: browsers of other origins are not let in")),
    (
        "ETL_ENCRYPT_SENSITIVE_DATA",
        Effect::Refused(
            "this version encrypts no data, and would store it in the clear",
            "set it to false, and keep sensitive columns out with `columns` of a configuration file",
        ),
    ),
    ("ETL_ENCRYPTION_KEY", Effect::None("has no effect: this version encrypts no data")),
];
