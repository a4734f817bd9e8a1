//! What the service says is wrong, as a fault: who must act, and what they can do.
//!
//! Reasons are those of BigQuery's table of error messages (<https://cloud.google.com/bigquery/docs/error-messages>); a failed request has them in
//! `error.errors[].reason`, a failed job in `status.errorResult.reason`. The service's own text is shown only where it names objects and rights, or where it answers a
//! dry run, which reads no row: others quote values ("Bad int64 value: …"), which belong into no log.

use caudal_core::{Error, Fault};
use serde::Deserialize;

/// One error of an answer.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Deserialize)]
struct Body {
    error: Refused,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(default)]
    message: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    errors: Vec<Problem>,
}

/// How much of the service's text may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// Rows were read: it may quote them.
    Rows,
    /// No row was.
    None,
}

/// A reason, its fault, what it means, and what to do.
type Known = (&'static str, Fault, &'static str, &'static str);

const AGAIN: &str = "it is tried again";

const KNOWN: &[Known] = &[
    ("rateLimitExceeded", Fault::Transient, "requests come too fast for the service", AGAIN),
    ("jobRateLimitExceeded", Fault::Transient, "jobs come too fast for the service", AGAIN),
    ("backendError", Fault::Transient, "the service has a passing fault", AGAIN),
    ("jobBackendError", Fault::Transient, "the service has a passing fault", AGAIN),
    ("internalError", Fault::Transient, "the service has a fault of its own", AGAIN),
    ("jobInternalError", Fault::Transient, "the service has a fault of its own", AGAIN),
    ("tableUnavailable", Fault::Transient, "the table is not to be had for the moment", AGAIN),
    ("badGateway", Fault::Transient, "the service has a passing fault", AGAIN),
    ("stopped", Fault::Transient, "the query was cancelled", "raise `timeout` if it took too long"),
    ("timeout", Fault::Transient, "the query took too long", "raise `timeout`, or read less"),
    (
        "quotaExceeded",
        Fault::Config,
        "a quota of the project is used up",
        "see IAM & Admin, Quotas; read more rarely, or smaller windows",
    ),
    (
        "bytesBilledLimitExceeded",
        Fault::Config,
        "the query would bill more than `maximum_bytes_billed`: it was not run, nothing is billed",
        "filter by the column the table is partitioned by, name fewer `columns`, or raise `maximum_bytes_billed`",
    ),
    (
        "billingNotEnabled",
        Fault::Config,
        "the project has no billing",
        "enable billing for the project that runs the queries (`project`)",
    ),
    (
        "accessNotConfigured",
        Fault::Config,
        "the BigQuery API is not enabled in the project",
        "gcloud services enable bigquery.googleapis.com --project <project>",
    ),
    (
        "notFound",
        Fault::Config,
        "it is not there",
        "look at `project`, `dataset`, `location`, `from` and `query`",
    ),
    (
        "invalidQuery",
        Fault::Config,
        "the query is not accepted, or fails on a row",
        "run it by hand: `bq query --use_legacy_sql=false '…'`; SAFE_CAST takes what cannot be converted as NULL",
    ),
    ("invalid", Fault::Config, "the request is not accepted", "look at `query`, `params` and `location`"),
    (
        "resourcesExceeded",
        Fault::Config,
        "the query needs more than the service gives it",
        "leave ORDER BY out, read smaller windows, or a table that was prepared",
    ),
    (
        "responseTooLarge",
        Fault::Config,
        "the result is too large for a query without a destination",
        "read smaller windows: `slice`, `sliding_window`",
    ),
    (
        "blocked",
        Fault::Config,
        "the service has blocked this kind of request for now",
        "see the project's messages in the console",
    ),
];

/// From an answer that is no success.
pub(crate) fn answered(what: &str, status: u16, body: &[u8], read: Read) -> Error {
    let Ok(Body { error }) = serde_json::from_slice::<Body>(body) else {
        return by_status(what, status);
    };
    let first = error.errors.into_iter().next().unwrap_or_default();
    let message = if first.message.is_empty() { error.message } else { first.message };
    let reason = match (first.reason.as_str(), error.status.as_str()) {
        ("" | "forbidden", "PERMISSION_DENIED") => "accessDenied".to_owned(),
        (_, "UNAUTHENTICATED") => "authError".to_owned(),
        _ => first.reason,
    };
    let problem = Problem { reason, message };
    match problem.reason.as_str() {
        "" => by_status(what, status),
        _ if status >= 500 => failed(what, &problem, read).transient(),
        _ => failed(what, &problem, read).0,
    }
}

/// From the error of a job.
pub(crate) fn job(what: &str, problem: &Problem, read: Read) -> Error {
    failed(what, problem, read).0
}

/// Whether it says that the token was refused.
pub(crate) fn is_token(status: u16) -> bool {
    status == 401
}

struct Told(Error);

impl Told {
    /// Whatever it is called: with such a status it may pass.
    fn transient(self) -> Error {
        match self.0.fault() {
            Fault::Transient => self.0,
            _ => Error::transient(self.0.to_string()).hint(AGAIN),
        }
    }
}

fn by_status(what: &str, status: u16) -> Error {
    match status {
        408 | 429 | 500..=599 => Error::transient(format!("{what}: answered {status}")).hint(AGAIN),
        401 => Error::config(format!("{what}: the token was refused"))
            .field("credentials")
            .hint("look whether the account and its key still exist, and at the clock of this machine"),
        403 => Error::config(format!("{what}: not allowed"))
            .hint("look at the account's roles: docs/bigquery.md"),
        _ => Error::config(format!("{what}: answered {status}"))
            .hint("look at `project`, `dataset` and `endpoint`"),
    }
}

fn failed(what: &str, problem: &Problem, read: Read) -> Told {
    let message = &problem.message;
    let reason = problem.reason.as_str();
    if reason == "accessDenied" {
        return Told(denied(what, message));
    }
    if reason == "authError" {
        return Told(by_status(what, 401));
    }
    let names =
        matches!(reason, "notFound" | "bytesBilledLimitExceeded" | "quotaExceeded" | "accessNotConfigured");
    let told = if names || read == Read::None { format!(": {}", line(message)) } else { String::new() };
    let told = match KNOWN.iter().find(|known| known.0.eq_ignore_ascii_case(reason)) {
        Some((_, fault, says, hint)) => {
            Error::new(*fault, format!("{what}: {says} ({reason}{told})")).hint(*hint)
        }
        None => Error::config(format!("{what}: {reason}{told}"))
            .hint("see the table of BigQuery's error messages for this reason"),
    };
    Told(told)
}

/// Permissions, and the least role that has each.
const ROLES: &[(&str, &str, &str)] = &[
    ("bigquery.jobs.create", "roles/bigquery.jobUser", "the project that runs the queries"),
    ("bigquery.readsessions", "roles/bigquery.readSessionUser", "the project that runs the queries"),
    ("bigquery.jobs.get", "roles/bigquery.jobUser", "the project that runs the queries"),
    (
        "serviceusage.services.use",
        "roles/serviceusage.serviceUsageConsumer",
        "the project that runs the queries",
    ),
    ("bigquery.rowAccessPolicies", "roles/bigquery.filteredDataViewer", "the table"),
    ("bigquery.tables", "roles/bigquery.dataViewer", "the dataset"),
    ("query table", "roles/bigquery.dataViewer", "the dataset"),
    ("bigquery.datasets", "roles/bigquery.dataViewer", "the dataset"),
    ("dataset", "roles/bigquery.dataViewer", "the dataset"),
    ("table", "roles/bigquery.dataViewer", "the dataset"),
    ("project", "roles/bigquery.jobUser", "the project that runs the queries"),
];

/// Which role is missing.
fn denied(what: &str, message: &str) -> Error {
    let lower = message.to_lowercase();
    let found = ROLES.iter().find(|(permission, ..)| lower.contains(&permission.to_lowercase()));
    let error = Error::config(format!("{what}: access denied: {}", line(message)));
    match found {
        Some((_, role, on)) => error.hint(format!("give the account the role {role} on {on}")),
        None => error.hint(
            "the account needs roles/bigquery.jobUser on the project that runs the queries, and roles/bigquery.dataViewer on each dataset that is read",
        ),
    }
}

/// The first line, and not too much of it.
fn line(message: &str) -> String {
    message.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: u16, reason: &str, message: &str, read: Read) -> Error {
        let body = serde_json::json!({ "error": {
            "code": status, "message": message, "errors": [{ "reason": reason, "message": message }],
        } });
        answered("read d.t", status, body.to_string().as_bytes(), read)
    }

    #[test]
    fn who_must_act_is_told_by_the_reason() {
        for (status, reason, fault) in [
            (403, "rateLimitExceeded", Fault::Transient),
            (503, "backendError", Fault::Transient),
            (500, "internalError", Fault::Transient),
            (500, "neverHeardOf", Fault::Transient),
            (404, "notFound", Fault::Config),
            (403, "quotaExceeded", Fault::Config),
            (400, "invalidQuery", Fault::Config),
            (400, "neverHeardOf", Fault::Config),
        ] {
            assert_eq!(told(status, reason, "x", Read::Rows).fault(), fault, "{reason}");
        }
        assert_eq!(answered("read d.t", 502, b"<html>", Read::Rows).fault(), Fault::Transient);
        assert_eq!(answered("read d.t", 404, b"", Read::Rows).fault(), Fault::Config);
    }

    #[test]
    fn a_role_that_is_missing_is_named() {
        for (message, role) in [
            (
                "Access Denied: Project p: User does not have bigquery.jobs.create permission in project p.",
                "roles/bigquery.jobUser",
            ),
            (
                "Access Denied: Table p:d.t: User does not have permission to query table p:d.t, or perhaps it does not exist.",
                "roles/bigquery.dataViewer on the dataset",
            ),
            (
                "Access Denied: Table p:d.t: Permission bigquery.tables.getData denied on table p:d.t",
                "roles/bigquery.dataViewer on the dataset",
            ),
            (
                "Access Denied",
                "roles/bigquery.jobUser on the project that runs the queries, and roles/bigquery.dataViewer",
            ),
        ] {
            let error = told(403, "accessDenied", message, Read::Rows);
            assert!(error.hint_text().unwrap().contains(role), "{message}: {:?}", error.hint_text());
        }
    }

    #[test]
    fn what_may_quote_a_row_is_shown_only_of_a_dry_run() {
        let says = "Bad int64 value: geheim";
        assert!(!told(400, "invalidQuery", says, Read::Rows).to_string().contains("geheim"));
        assert!(told(400, "invalidQuery", says, Read::None).to_string().contains("geheim"));
        assert!(
            told(400, "bytesBilledLimitExceeded", "limit for bytes billed: 10", Read::Rows)
                .to_string()
                .contains("10")
        );
    }
}
