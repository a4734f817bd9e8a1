//! Passwords, TLS and what a server refuses.

use super::server::{MARIADB, MYSQL, Server};
use caudal_core::Fault;
use caudal_mysql::connection::{Connection, Endpoint, Keepalive};
use caudal_mysql::tls::{TlsMode, TlsOptions};

const MAX: usize = 1 << 20;

async fn connects(endpoint: &Endpoint) -> caudal_core::Result<String> {
    let mut connection = Connection::connect(endpoint, MAX).await?;
    Ok(connection.scalar("SELECT CURRENT_USER()").await?.unwrap_or_default())
}

fn tls(mode: TlsMode) -> TlsOptions {
    TlsOptions { mode, ca: None, client: None }
}

/// The server's certificates, where it tells their place and this machine has them.
async fn authority(server: &mut Server) -> Option<std::path::PathBuf> {
    let ca = server.sql.scalar("SELECT @@ssl_ca").await.ok()?.unwrap_or_default();
    let cert = server.sql.scalar("SELECT @@ssl_cert").await.ok()??;
    let data = server.sql.scalar("SELECT @@datadir").await.ok()??;
    let name = if ca.is_empty() { cert } else { ca };
    let path = std::path::Path::new(&data).join(name);
    path.exists().then_some(path)
}

#[tokio::test]
async fn every_password_plugin_of_mysql_works_with_and_without_tls() {
    let Some(mut server) = Server::open(MYSQL, "wire_auth").await else { return };
    server.run("DROP USER IF EXISTS wire_sha2").await;
    server.run("CREATE USER wire_sha2 IDENTIFIED WITH caching_sha2_password BY 'a päßword'").await;
    for mode in [TlsMode::Disabled, TlsMode::Required] {
        // The server forgets the account, so the first round is the full exchange, the second the fast one.
        server.run("FLUSH PRIVILEGES").await;
        for _ in 0..2 {
            let endpoint = Endpoint {
                user: "wire_sha2".into(),
                password: "a päßword".into(),
                tls: tls(mode),
                ..server.endpoint.clone()
            };
            assert_eq!(connects(&endpoint).await.expect("it connects"), "wire_sha2@%", "{mode:?}");
        }
    }
    server.run("DROP USER wire_sha2").await;
}

#[tokio::test]
async fn every_password_plugin_of_mariadb_works_with_and_without_tls() {
    let Some(mut server) = Server::open(MARIADB, "wire_auth").await else { return };
    let _ = server.sql.execute("INSTALL SONAME 'auth_ed25519'").await;
    let mut accounts = vec![
        ("wire_native", "IDENTIFIED VIA mysql_native_password USING PASSWORD('pw1')", "pw1"),
        ("wire_none", "", ""),
    ];
    let ed25519 =
        server.rows("SELECT plugin_status FROM information_schema.plugins WHERE plugin_name='ed25519'").await;
    if ed25519.is_empty() {
        println!("the server has no ed25519 plugin: not tried");
    } else {
        accounts.push(("wire_ed", "IDENTIFIED VIA ed25519 USING PASSWORD('pw3')", "pw3"));
    }
    for (user, how, password) in accounts {
        server.run(&format!("CREATE OR REPLACE USER {user} {how}")).await;
        for mode in [TlsMode::Disabled, TlsMode::Required] {
            let endpoint = Endpoint {
                user: user.into(),
                password: password.into(),
                tls: tls(mode),
                ..server.endpoint.clone()
            };
            assert_eq!(connects(&endpoint).await.expect("it connects"), format!("{user}@%"), "{mode:?}");
        }
        server.run(&format!("DROP USER {user}")).await;
    }
}

/// A challenge of random bytes ends in zero once in 256 logins: of 800, some do with all but certainty.
#[tokio::test]
async fn no_login_by_ed25519_is_refused_whatever_the_challenge() {
    const LOGINS: usize = 800;
    let Some(mut server) = Server::open(MARIADB, "wire_ed25519").await else { return };
    let _ = server.sql.execute("INSTALL SONAME 'auth_ed25519'").await;
    let account = "CREATE OR REPLACE USER wire_many IDENTIFIED VIA ed25519 USING PASSWORD('pw4')";
    if server.sql.execute(account).await.is_err() {
        println!("the server has no ed25519 plugin: not tried");
        return;
    }
    let endpoint = Endpoint { user: "wire_many".into(), password: "pw4".into(), ..server.endpoint.clone() };
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move {
                for _ in 0..LOGINS / 16 {
                    Connection::connect(&endpoint, MAX).await.expect("it logs in");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("every login succeeds");
    }
    server.run("DROP USER wire_many").await;
}

#[tokio::test]
async fn a_wrong_password_is_the_operators_to_mend() {
    for variable in [MARIADB, MYSQL] {
        let Some(server) = Server::open(variable, "wire_wrong").await else { continue };
        for mode in [TlsMode::Disabled, TlsMode::Required] {
            let endpoint =
                Endpoint { password: "s3cret-wrong".into(), tls: tls(mode), ..server.endpoint.clone() };
            let e = connects(&endpoint).await.expect_err("it is refused");
            assert_eq!(e.fault(), Fault::Config);
            assert!(
                e.hint_text().is_some()
                    && !e.to_string().contains("s3cret")
                    && !format!("{endpoint:?}").contains("s3cret")
            );
        }
    }
}

#[tokio::test]
async fn a_missing_privilege_is_named() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_privilege").await else { continue };
        server.run("DROP USER IF EXISTS wire_poor").await;
        server.run("CREATE USER wire_poor IDENTIFIED BY 'pw'").await;
        let start = caudal_mysql::binlog::Start::Gtid(server.gtids().await);
        let endpoint =
            Endpoint { user: "wire_poor".into(), password: "pw".into(), ..server.endpoint.clone() };
        let options = caudal_mysql::binlog::StreamOptions::new(68_001, start);
        let e =
            caudal_mysql::binlog::BinlogStream::open(&endpoint, options).await.err().expect("it is refused");
        assert_eq!(e.fault(), Fault::Config, "{e}");
        assert!(e.hint_text().is_some_and(|h| h.contains("REPLICATION SLAVE")), "{e}");
        server.run("DROP USER wire_poor").await;
    }
}

#[tokio::test]
async fn certificates_are_checked_as_far_as_asked() {
    for variable in [MARIADB, MYSQL] {
        let Some(mut server) = Server::open(variable, "wire_tls").await else { continue };
        let Some(ca) = authority(&mut server).await else {
            println!("the server's certificate is not on this machine: not tried");
            continue;
        };
        let with = |mode, ca: Option<&std::path::Path>| Endpoint {
            tls: TlsOptions { mode, ca: ca.map(Into::into), client: None },
            ..server.endpoint.clone()
        };
        connects(&with(TlsMode::Required, None)).await.expect("encrypted without a check");
        connects(&with(TlsMode::VerifyCa, Some(&ca))).await.expect("the chain is that of the authority");
        let e = connects(&with(TlsMode::VerifyCa, None))
            .await
            .expect_err("the web's authorities did not sign it");
        assert_eq!(e.fault(), Fault::Config, "{e}");
        // MySQL's own certificates name no host; the one made for the tests of MariaDB may.
        if variable == MYSQL {
            let e =
                connects(&with(TlsMode::VerifyIdentity, Some(&ca))).await.expect_err("the name does not fit");
            assert_eq!(e.fault(), Fault::Config, "{e}");
        }
        let mut connection =
            Connection::connect(&with(TlsMode::VerifyCa, Some(&ca)), MAX).await.expect("it connects");
        let cipher = connection.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.expect("a row");
        assert!(cipher[0][1].as_ref().is_some_and(|c| !c.is_empty()), "it is encrypted");
    }
}

#[tokio::test]
async fn a_port_without_a_server_and_one_of_something_else_are_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let endpoint = Endpoint {
        host: "127.0.0.1".into(),
        port,
        user: "u".into(),
        password: String::new(),
        database: None,
        tls: TlsOptions::default(),
        connect_timeout: std::time::Duration::from_secs(5),
        keepalive: Keepalive::default(),
    };
    let served = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut socket, _) = listener.accept().await.expect("a client");
        socket.write_all(b"\x10\0\0\0HTTP/1.1 400 Bad").await.expect("written");
        socket
    });
    assert_eq!(connects(&endpoint).await.expect_err("no server").fault(), Fault::Config);
    drop(served.await.expect("served"));
    assert_eq!(connects(&endpoint).await.expect_err("nobody").fault(), Fault::Transient);
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_account_wants_one() {
    let Some(mut server) = Server::open(MYSQL, "wire_client_cert").await else { return };
    let Some(folder) = authority(&mut server).await.and_then(|ca| ca.parent().map(Into::into)) else {
        return;
    };
    let folder: std::path::PathBuf = folder;
    let (certificate, key) = (folder.join("client-cert.pem"), folder.join("client-key.pem"));
    if !certificate.exists() {
        println!("the server made no client certificate: not tried");
        return;
    }
    server.run("DROP USER IF EXISTS wire_x509").await;
    server.run("CREATE USER wire_x509 IDENTIFIED BY 'pw' REQUIRE X509").await;
    let with = |client| Endpoint {
        user: "wire_x509".into(),
        password: "pw".into(),
        tls: TlsOptions { mode: TlsMode::Required, ca: None, client },
        ..server.endpoint.clone()
    };
    let e = connects(&with(None)).await.expect_err("it shows none");
    assert_eq!(e.fault(), Fault::Config);
    connects(&with(Some((certificate.clone(), key)))).await.expect("it shows one");
    let e =
        connects(&with(Some((certificate, folder.join("missing.pem"))))).await.expect_err("there is no key");
    assert!(e.field_name().is_some() && e.fault() == Fault::Config, "{e}");
    server.run("DROP USER wire_x509").await;
}
