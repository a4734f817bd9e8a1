//! TLS, against a server whose authority `CAUDAL_TEST_POSTGRES_CA` names (a PEM file) and whose certificate is for `localhost`.

use crate::database::server;
use caudal_core::{Fault, Result};
use caudal_postgres::Config;

/// Opens the server with the given parameters of the URL, under a host's name.
async fn open(host: &str, parameters: &str) -> Result<()> {
    let url = server().unwrap();
    let (base, _) = url.split_once('?').unwrap_or((&url, ""));
    let url = format!("{}?{parameters}", base.replace("127.0.0.1", host).replace("localhost", host));
    let config: Config = serde_json::from_value(serde_json::json!({"url": url})).unwrap();
    caudal_postgres::sink("tls", config)?.open().await.map(|_| ())
}

#[tokio::test]
async fn each_mode_checks_what_it_promises() {
    let Ok(ca) = std::env::var("CAUDAL_TEST_POSTGRES_CA") else { return };
    open("127.0.0.1", "sslmode=disable").await.unwrap();
    open("127.0.0.1", "sslmode=prefer").await.unwrap();
    open("127.0.0.1", "sslmode=require").await.unwrap();
    open("127.0.0.1", &format!("sslmode=verify-ca&sslrootcert={ca}")).await.unwrap();
    open("localhost", &format!("sslmode=verify-full&sslrootcert={ca}")).await.unwrap();
    for (host, parameters) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("localhost", "sslmode=verify-full&sslrootcert=system".to_owned()),
        ("localhost", "sslmode=verify-ca&sslrootcert=/nowhere/ca.pem".to_owned()),
    ] {
        let error = open(host, &parameters).await.unwrap_err();
        assert_eq!(error.fault(), Fault::Config, "{parameters}: {error}");
        assert_eq!(error.field_name(), Some("sinks.tls.url"), "{error}");
    }
}
