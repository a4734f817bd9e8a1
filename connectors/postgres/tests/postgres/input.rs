//! Bad input: each a message with field, cause and fix.

use crate::database::Database;
use caudal_core::{Error, Fault, Severity};
use caudal_postgres::Config;

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
