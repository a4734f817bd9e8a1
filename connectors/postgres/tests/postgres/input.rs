//! Bad input: each a message with field, cause and fix.

use crate::database::Database;
use crate::rows::{I, Rows, T, column, int, put, table, text};
use caudal_core::rebuild::Begin;
use caudal_core::{Error, Fault, Severity};
use caudal_postgres::Config;
use std::sync::Arc;

async fn open_error(url: &str) -> Error {
    let config: Config = serde_json::from_value(serde_json::json!({"url": url})).unwrap();
    let sink = caudal_postgres::sink("dash", config).unwrap();
    let findings = sink.check().await;
    assert!(findings.iter().any(|f| f.severity == Severity::Error && f.fix.is_some()), "{findings:?}");
    match sink.open().await {
        Ok(_) => panic!("opened"),
        Err(error) => error,
    }
}

fn assert_told(error: &Error, fault: Fault, part: &str) {
    assert_eq!(error.fault(), fault, "{error}");
    assert_eq!(error.field_name(), Some("sinks.dash.url"), "{error}");
    assert!(error.hint_text().is_some(), "{error}");
    assert!(error.to_string().contains(part), "{error}");
    assert!(!format!("{error} {error:?} {:?}", error.hint_text()).contains("hush"), "{error:?}");
}

#[tokio::test]
async fn a_missing_database_or_user_is_a_matter_of_the_configuration() {
    let Some(db) = Database::new().await else { return };
    let (base, _) = db.url.rsplit_once('/').unwrap();
    assert_told(&open_error(&format!("{base}/nowhere")).await, Fault::Config, "nowhere");
    let (_, host) = base.split_once('@').unwrap();
    let error = open_error(&format!("postgres://nobody:hush@{host}/postgres")).await;
    assert_told(&error, Fault::Config, "nobody");
}

#[tokio::test]
async fn a_wrong_password_is_a_matter_of_the_configuration() {
    let Some(db) = Database::new().await else { return };
    let role = format!("guarded_{}", std::process::id());
    db.run(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'right'")).await;
    let host = db.url.split_once('@').unwrap().1;
    let config = |password: &str| -> Config {
        serde_json::from_value(serde_json::json!({"url": format!("postgres://{role}:{password}@{host}")}))
            .unwrap()
    };
    caudal_postgres::sink("dash", config("right")).unwrap().open().await.unwrap();
    // A server that trusts this host asks for no password at all.
    if caudal_postgres::sink("dash", config("wrong")).unwrap().open().await.is_err() {
        let error = open_error(&format!("postgres://{role}:hush@{host}")).await;
        assert_told(&error, Fault::Config, "password authentication failed");
    }
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_server_that_does_not_answer_may_come_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let error = open_error(&format!("postgres://u:hush@127.0.0.1:{port}/db")).await;
    assert_told(&error, Fault::Transient, "refused");
    assert!(error.hint_text().unwrap().contains("host and port"));
}

#[tokio::test]
async fn a_host_without_address_is_a_matter_of_the_configuration() {
    assert_told(
        &open_error("postgres://u:hush@no-such-host.invalid/db").await,
        Fault::Config,
        "no-such-host",
    );
}

#[tokio::test]
async fn a_server_without_tls_is_told_from_one_that_is_away() {
    let Some(db) = Database::new().await else { return };
    if db.value("SHOW ssl").await == "on" {
        return;
    }
    assert_told(&open_error(&format!("{}?sslmode=require", db.url)).await, Fault::Config, "TLS");
}

#[tokio::test]
async fn missing_privileges_are_found_by_check_with_the_grant() {
    let Some(db) = Database::new().await else { return };
    let role = format!("limited_{}", std::process::id());
    db.run(&format!("DROP ROLE IF EXISTS {role}; CREATE ROLE {role} LOGIN PASSWORD 'hush'")).await;
    // As it is from PostgreSQL 15 on.
    db.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    let host = db.url.split_once('@').unwrap().1;
    let url = format!("postgres://{role}:hush@{host}");
    let config: Config = serde_json::from_value(serde_json::json!({"url": url})).unwrap();
    let sink = caudal_postgres::sink("dash", config).unwrap();
    let fixes: Vec<String> = sink.check().await.into_iter().filter_map(|f| f.fix).collect();
    assert!(fixes.iter().any(|f| f.contains("GRANT CREATE, USAGE ON SCHEMA \"public\"")), "{fixes:?}");
    assert!(fixes.iter().any(|f| f.contains("CREATE SCHEMA \"caudal\"")), "{fixes:?}");
    assert_told(&open_error(&url).await, Fault::Config, "permission denied");
    // With the grants it works.
    for fix in &fixes {
        db.run(fix.split(", or ").next().unwrap()).await;
    }
    let sink =
        caudal_postgres::sink("dash", serde_json::from_value(serde_json::json!({"url": url})).unwrap())
            .unwrap();
    assert!(sink.check().await.iter().all(|f| f.severity < Severity::Error));
    assert!(sink.open().await.is_ok());
    db.run(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_role_with_the_privileges_that_check_prints_does_all_that_a_sink_does() {
    let Some(db) = Database::new().await else { return };
    let findings = db.sink().check().await;
    let least = findings.iter().find(|f| f.subject == "least privileges").unwrap();
    let role = format!("least_{}", std::process::id());
    let (_, statements) = least.message.split_once(": ").unwrap();
    // `public` belongs to the database's owner, and from PostgreSQL 15 on nobody else may make tables there.
    db.run("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await;
    db.run(&format!("DROP ROLE IF EXISTS {role}")).await;
    db.run(
        &statements
            .replace("\"caudal\" LOGIN", &format!("{role} LOGIN"))
            .replace("TO \"caudal\"", &format!("TO {role}"))
            .replace("AUTHORIZATION \"caudal\"", &format!("AUTHORIZATION {role}"))
            .replace('…', "hush"),
    )
    .await;
    let host = db.url.split_once('@').unwrap().1;
    let config = |more: serde_json::Value| -> Config {
        let mut json = serde_json::json!({"url": format!("postgres://{role}:hush@{host}"), "after_load": [{"name": "j", "tables": ["*"],
            "run": [{"sql": "SELECT 1"}]}]});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    };
    let old = table("t", &[("id", int()), ("name", text())]);
    let mut new = old.clone();
    new.version = 2;
    new.columns.push(column(3, "more", int()));
    let (old, new) = (Arc::new(old), Arc::new(new));
    let history = Arc::new(table("h", &[("id", int()), ("name", text())]));
    let sink = caudal_postgres::sink("test", config(serde_json::json!({"tables": {"h": {"history": true}}})))
        .unwrap();
    let mut w = sink.open().await.unwrap();
    w.resume().await.unwrap();
    let many = (0..6_000).fold(Rows::new(), |rows, id| rows.create(&old, &[I(id), T("a")]));
    put(w.as_mut(), many.at(1)).await;
    let many = (0..6_000)
        .fold(Rows::new(), |rows, id| rows.update(&new, &[I(id), T("a"), I(1)], &[I(id), T("b"), I(2)]));
    put(w.as_mut(), many.create(&history, &[I(1), T("a")]).truncate(&old).at(2)).await;
    assert_eq!(db.value("SELECT count(*) FROM h").await, "1");
    let mut rebuild = sink.rebuild().await.unwrap().unwrap();
    assert!(rebuild.begin(&old, "topic", Begin::Copy).await.unwrap());
    assert!(rebuild.discard(&old.id).await.unwrap());
    drop((w, rebuild));
    db.run(&format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
}
