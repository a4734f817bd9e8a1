//! A Kafka that asks who comes, and lets nobody do what was not granted: one broker with a listener for each way in.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Bytes, BytesMut};
use caudal_tests::compare::wait_equal;
use caudal_tests::ports::free_port;
use caudal_tests::{
    Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair, patience,
};
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::{
    ApiKey, CreateAclsRequest, CreateAclsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

const PATIENCE: Duration = Duration::from_secs(180);

/// The broker, and where its listeners are.
struct Secured {
    kafka: Kafka,
    plain: u16,
    scram: u16,
    oauth: u16,
    mtls: u16,
    certificates: TempDir,
}

impl Secured {
    /// The one that the tests of this process share.
    async fn shared() -> &'static Self {
        static BROKER: OnceCell<Secured> = OnceCell::const_new();
        BROKER.get_or_init(|| async { Self::start() }).await
    }

    fn start() -> Self {
        let certificates = tempfile::tempdir().unwrap();
        certify(certificates.path());
        let ports: [u16; 5] = std::array::from_fn(|_| free_port().unwrap());
        let [open, plain, scram, oauth, mtls] = ports;
        let names = ["PLAINTEXT", "PLAIN", "SCRAM", "OAUTH", "MTLS"];
        let listeners: Vec<String> =
            names.iter().zip(ports).map(|(name, port)| format!("{name}://127.0.0.1:{port}")).collect();
        let listeners = listeners.join(",");
        let file = |name: &str| certificates.path().join(name).display().to_string();
        let module = "org.apache.kafka.common.security";
        let properties = [
            format!("listeners={listeners},CONTROLLER://@CONTROLLER@"),
            format!("advertised.listeners={listeners}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PLAIN:SASL_PLAINTEXT,\
             SCRAM:SASL_PLAINTEXT,OAUTH:SASL_PLAINTEXT,MTLS:SSL"
                .to_owned(),
            "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER".to_owned(),
            "listener.name.plain.sasl.enabled.mechanisms=PLAIN".to_owned(),
            "listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
            format!(
                "listener.name.plain.plain.sasl.jaas.config={module}.plain.PlainLoginModule required \
                 user_plain=\"plain-secret\" user_poor=\"poor-secret\";"
            ),
            format!(
                "listener.name.scram.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;"
            ),
            format!(
                "listener.name.scram.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;"
            ),
            // Kafka's own validator, which takes unsigned tokens and looks at their times. Whose token has ended is put out.
            "listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER".to_owned(),
            format!(
                "listener.name.oauth.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required \
                 unsecuredLoginStringClaim_sub=\"broker\";"
            ),
            "listener.name.oauth.oauthbearer.connections.max.reauth.ms=3600000".to_owned(),
            "listener.name.mtls.ssl.client.auth=required".to_owned(),
            "listener.name.mtls.ssl.keystore.type=PEM".to_owned(),
            format!("listener.name.mtls.ssl.keystore.location={}", file("server-both.pem")),
            "listener.name.mtls.ssl.truststore.type=PEM".to_owned(),
            format!("listener.name.mtls.ssl.truststore.location={}", file("ca.pem")),
            "listener.name.mtls.ssl.principal.mapping.rules=RULE:^CN=(.*?)$/$1/".to_owned(),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            "super.users=User:ANONYMOUS".to_owned(),
            "scram=scram:scram-secret".to_owned(),
        ];
        let properties: Vec<&str> = properties.iter().map(String::as_str).collect();
        let kafka = Kafka::start_at(open, &properties).unwrap_or_else(|e| panic!("secured Kafka: {e:#}"));
        Self { kafka, plain, scram, oauth, mtls, certificates }
    }

    fn file(&self, name: &str) -> String {
        self.certificates.path().join(name).display().to_string()
    }

    /// Grants a user something on resources: (type, name, whether the name is a prefix, operations).
    async fn grant(&self, user: &str, rights: &[(i8, &str, bool, &[i8])]) {
        let creation = |(kind, name, prefix, operation): (i8, &str, bool, i8)| {
            AclCreation::default()
                .with_resource_type(kind)
                .with_resource_name(StrBytes::from_string(name.to_owned()))
                .with_resource_pattern_type(if prefix { 4 } else { 3 })
                .with_principal(StrBytes::from_string(format!("User:{user}")))
                .with_host(StrBytes::from_static_str("*"))
                .with_operation(operation)
                .with_permission_type(3)
        };
        let creations = rights.iter().flat_map(|(kind, name, prefix, operations)| {
            operations.iter().map(move |operation| creation((*kind, name, *prefix, *operation)))
        });
        let request = CreateAclsRequest::default().with_creations(creations.collect());
        let answer: CreateAclsResponse =
            call(&self.kafka.bootstrap(), ApiKey::CreateAcls, 3, &request).await.unwrap();
        for result in answer.results {
            assert_eq!(result.error_code, 0, "{:?}", result.error_message);
        }
    }

    /// All that the documentation asks for.
    async fn grant_all(&self, user: &str, prefix: &str) {
        let side = format!("caudal.{prefix}.");
        let group = format!("caudal.{prefix}");
        self.grant(
            user,
            &[
                (TOPIC, &format!("{prefix}."), true, &[CREATE, DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE]),
                (TOPIC, prefix, false, &[CREATE, DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE]),
                (TOPIC, &side, true, &[CREATE, DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE]),
                (GROUP, &group, true, &[READ, DESCRIBE]),
                (TRANSACTIONAL_ID, &side, true, &[WRITE, DESCRIBE]),
            ],
        )
        .await;
    }
}

// Numbers of the Kafka protocol.
const TOPIC: i8 = 2;
const GROUP: i8 = 3;
const TRANSACTIONAL_ID: i8 = 5;
const READ: i8 = 3;
const WRITE: i8 = 4;
const CREATE: i8 = 5;
const DESCRIBE: i8 = 8;
const DESCRIBE_CONFIGS: i8 = 10;

async fn call<A: Decodable>(
    broker: &str,
    api: ApiKey,
    version: i16,
    request: &impl Encodable,
) -> anyhow::Result<A> {
    let mut body = BytesMut::new();
    RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(1)
        .encode(&mut body, api.request_header_version(version))?;
    request.encode(&mut body, version)?;
    let mut stream = TcpStream::connect(broker).await?;
    stream.write_u32(body.len() as u32).await?;
    stream.write_all(&body).await?;
    let mut answer = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut answer).await?;
    let mut answer = Bytes::from(answer);
    ResponseHeader::decode(&mut answer, api.response_header_version(version))?;
    A::decode(&mut answer, version)
}

/// The authority of the test's certificates, and a client's.
fn certify(dir: &Path) {
    let services = caudal_tests::service::scripts();
    assert!(Command::new(services.join("certificate")).arg(dir).status().unwrap().success());
    let client = "openssl req -newkey rsa:2048 -nodes -subj /CN=client -keyout client-key.pem -out client.csr && \
        openssl x509 -req -in client.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 -out client.pem && \
        cat server-key.pem server.pem ca.pem > server-both.pem";
    let made = Command::new("sh").args(["-c", client]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A captured table and its sink, in a config that says how to come in.
struct Stage {
    server: &'static MysqlServer,
    db: String,
    sink: PgDatabase,
    prefix: String,
    pairs: [TablePair; 1],
}

impl Stage {
    async fn set(name: &str) -> Self {
        let server = MysqlServer::shared(Family::MariaDb);
        let db = server.database(name).await.unwrap();
        server.sql(&db, "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20)); INSERT INTO t VALUES (1,'one'),(2,'two')").await.unwrap();
        let sink = Postgres::shared().database(name).await.unwrap();
        let prefix = format!("{name}{}", std::process::id());
        let pairs = [TablePair::by_default(&db, "t")];
        Self { server, db, sink, prefix, pairs }
    }

    fn config(&self, port: u16, way: &str) -> DaemonConfig {
        DaemonConfig::new(&self.prefix)
            .brokers(&format!("127.0.0.1:{port}"))
            .kafka(way)
            .source("shop", &self.server.url(&self.db), &[])
            .sink("pg", &self.sink, &[])
    }

    async fn change(&self, text: &str) {
        self.server.sql(&self.db, &format!("UPDATE t SET v = '{text}' WHERE id = 1")).await.unwrap();
    }

    async fn equal(&self, daemon: &Daemon) {
        let equal = wait_equal(&self.pairs, &self.server.url(&self.db), &self.sink.url, PATIENCE).await;
        equal.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    }

    /// Captures and applies by a way of coming in.
    async fn works(&self, port: u16, way: &str) -> Daemon {
        let daemon = Daemon::start(&self.config(port, way)).unwrap();
        self.equal(&daemon).await;
        self.change("changed").await;
        self.equal(&daemon).await;
        // Topic ids are asked for on a connection of our own: by the same way.
        let (brokers, watermarks) =
            (Secured::shared().await.kafka.bootstrap(), format!("caudal.{}.watermarks", self.prefix));
        let records = tokio::task::spawn_blocking(move || values(&brokers, &watermarks)).await.unwrap();
        // A watermark names the partitions that were written to since the one before: of a heartbeat none.
        let ends = records.iter().filter_map(|record| record["ends"].as_object()).flatten();
        let ids: Vec<&Value> = ends.map(|(_, ends)| &ends["id"]).collect();
        let nil = "00000000-0000-0000-0000-000000000000";
        assert!(!ids.is_empty() && ids.iter().all(|id| **id != nil), "{records:?}");
        assert!(!daemon.log().contains("-secret"), "a secret is in the log");
        daemon
    }
}

/// The JSON values of a topic's partition 0.
fn values(brokers: &str, topic: &str) -> Vec<Value> {
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::message::Message;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "none")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut values = Vec::new();
    while let Ok(message) = consumer.poll(Duration::from_secs(60)).expect("an answer") {
        values.push(serde_json::from_slice(message.payload().unwrap_or_default()).unwrap_or_default());
    }
    values
}

#[tokio::test]
async fn sasl_plain_comes_in() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_plain").await);
    secured.grant_all("plain", &stage.prefix).await;
    let way = "  sasl: {mechanism: PLAIN, username: plain, password: plain-secret}";
    drop(stage.works(secured.plain, way).await);
}

#[tokio::test]
async fn sasl_scram_comes_in_with_either_hash() {
    let secured = Secured::shared().await;
    for (name, mechanism) in [("sec_scram_a", "SCRAM-SHA-256"), ("sec_scram_b", "SCRAM-SHA-512")] {
        let stage = Stage::set(name).await;
        secured.grant_all("scram", &stage.prefix).await;
        let way = format!("  sasl: {{mechanism: {mechanism}, username: scram, password: scram-secret}}");
        drop(stage.works(secured.scram, &way).await);
    }
}

#[tokio::test]
async fn a_client_certificate_comes_in() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_mtls").await);
    secured.grant_all("client", &stage.prefix).await;
    let way = format!(
        "  tls: {{ca: {}, certificate: {}, key: {}}}",
        secured.file("ca.pem"),
        secured.file("client.pem"),
        secured.file("client-key.pem")
    );
    drop(stage.works(secured.mtls, &way).await);
}

/// An endpoint that gives unsigned tokens to the client `bearer`.
struct TokenEndpoint {
    port: u16,
    /// Tokens given so far.
    given: Arc<AtomicUsize>,
}

/// A token that Kafka's validator of unsigned ones takes.
fn unsigned_token(life: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let encoded = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = format!(r#"{{"sub":"bearer","iat":{now},"exp":{}}}"#, now + life);
    format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(&claims))
}

impl TokenEndpoint {
    /// Its tokens live for `life` seconds.
    async fn listen(life: i64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, given) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&given);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = Vec::new();
                while !asked.ends_with(b"grant_type=client_credentials") {
                    let mut some = [0; 1024];
                    match stream.read(&mut some).await {
                        Ok(n) if n > 0 => asked.extend_from_slice(&some[..n]),
                        _ => break,
                    }
                }
                // bearer:bearer-secret
                let known = b"Authorization: Basic YmVhcmVyOmJlYXJlci1zZWNyZXQ=";
                let answer = if asked.windows(known.len()).any(|w| w == known) {
                    counter.fetch_add(1, Ordering::Relaxed);
                    let token = unsigned_token(life);
                    format!("HTTP/1.0 200 OK\r\n\r\n{{\"access_token\":\"{token}\",\"expires_in\":{life}}}")
                } else {
                    "HTTP/1.0 401 Unauthorized\r\n\r\n{\"error\":\"invalid_client\"}".to_owned()
                };
                drop(stream.write_all(answer.as_bytes()).await);
            }
        });
        Self { port, given }
    }

    fn way(&self, secret: &str) -> String {
        format!(
            "  sasl: {{mechanism: OAUTHBEARER, username: bearer, password: {secret}, token: {{url: \"http://127.0.0.1:{}/token\"}}}}",
            self.port
        )
    }
}

#[tokio::test]
async fn tokens_of_an_oauth_endpoint_come_in_and_are_renewed_before_they_end() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_oauth").await);
    secured.grant_all("bearer", &stage.prefix).await;
    let endpoint = TokenEndpoint::listen(12).await;
    let daemon = stage.works(secured.oauth, &endpoint.way("bearer-secret")).await;
    // The brokers put out who shows a token no longer good: what outlives some of them has shown new ones.
    let enough = endpoint.given.load(Ordering::Relaxed) + 2;
    let mut n = 0;
    while endpoint.given.load(Ordering::Relaxed) < enough {
        n += 1;
        assert!(n < 600, "no new token is asked for\n{}", daemon.log_tail());
        stage.change(&format!("renewed {n}")).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    stage.equal(&daemon).await;
    assert!(!daemon.log().contains("-secret"), "a secret is in the log");
    let brokers = secured.kafka.bootstrap();
    caudal_tests::Audit::of(&brokers, &stage.prefix, &[&stage.db]).await.unwrap().assert_clean();
}

#[tokio::test]
async fn tokens_of_a_command_and_of_a_file_come_in() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_token").await);
    secured.grant_all("bearer", &stage.prefix).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, unsigned_token(3_600)).unwrap();
    let way = format!("  sasl: {{mechanism: OAUTHBEARER, token: {{command: [cat, {}]}}}}", file.display());
    drop(stage.works(secured.oauth, &way).await);
    let way = format!("  sasl: {{mechanism: OAUTHBEARER, token: {{file: {}}}}}", file.display());
    let daemon = Daemon::start(&stage.config(secured.oauth, &way)).unwrap();
    stage.change("by file").await;
    stage.equal(&daemon).await;
}

#[tokio::test]
async fn a_client_that_the_token_endpoint_refuses_is_told_in_its_words() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_refused").await);
    let endpoint = TokenEndpoint::listen(3_600).await;
    let daemon = Daemon::start(&stage.config(secured.oauth, &endpoint.way("not-the-secret"))).unwrap();
    told(&daemon, "capture/shop", &["401: invalid_client", "kafka.sasl"]).await;
    assert!(!daemon.log().contains("not-the-secret"), "{}", daemon.log_tail());
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_and_once_it_is_granted_the_work_goes_on() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_poor").await);
    let prefix = stage.prefix.clone();
    let (side, data) = (format!("caudal.{prefix}."), format!("{prefix}."));
    let topic = format!("{prefix}.{}.t", stage.db);
    // A topic that others have made, and may be seen and read.
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", secured.kafka.bootstrap()).create().unwrap();
    let (week, two) = ((7 * 86_400_000u64).to_string(), (14 * 86_400_000u64).to_string());
    let made = NewTopic::new(&topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("min.compaction.lag.ms", &week)
        .set("delete.retention.ms", &two)
        .set("max.message.bytes", "16777216");
    for made in admin.create_topics([&made], &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
    let all: &[i8] = &[CREATE, DESCRIBE, DESCRIBE_CONFIGS, READ, WRITE];
    let seen: &[i8] = &[DESCRIBE, DESCRIBE_CONFIGS, READ];
    secured.grant("poor", &[(TOPIC, &side, true, all), (TOPIC, &data, true, seen)]).await;
    let way = "  sasl: {mechanism: PLAIN, username: poor, password: poor-secret}";
    let mut daemon = Daemon::start(&stage.config(secured.plain, way)).unwrap();
    // A parked pipeline looks again each minute: started anew, it does so at once.
    let granted = async |daemon: &mut Daemon, rights: &[(i8, &str, bool, &[i8])]| {
        secured.grant("poor", rights).await;
        daemon.kill().unwrap();
        daemon.start_again().unwrap();
    };
    // The groups first.
    let (captures, sinks) = (format!("caudal.{prefix}.tasks"), format!("caudal.{prefix}.pg"));
    let command = format!("--operation Read --group '{captures}'");
    told(&daemon, "capture/shop", &["User:poor lacks Read on group", &captures, "kafka-acls.sh", &command])
        .await;
    told(&daemon, "sink/pg", &["User:poor lacks Read on group", &sinks, "kafka-acls.sh"]).await;
    let groups: [(i8, &str, bool, &[i8]); 2] =
        [(GROUP, &captures, false, &[READ, DESCRIBE]), (GROUP, &sinks, false, &[READ, DESCRIBE])];
    granted(&mut daemon, &groups).await;
    // Then the transactional id.
    let id = format!("caudal.{prefix}.shop");
    let command = format!("--operation Write --transactional-id '{id}'");
    told(&daemon, "capture/shop", &["User:poor lacks Write on transactional id", &id, &command]).await;
    granted(&mut daemon, &[(TRANSACTIONAL_ID, &id, false, &[WRITE, DESCRIBE])]).await;
    // Then the data topic, by name.
    let command = format!("--operation Write --topic '{topic}'");
    told(&daemon, "capture/shop", &["User:poor lacks Write on topic", &topic, &command]).await;
    granted(&mut daemon, &[(TOPIC, &topic, false, &[WRITE])]).await;
    stage.equal(&daemon).await;
    stage.change("granted").await;
    stage.equal(&daemon).await;
    assert!(!daemon.log().contains("poor-secret"));
}

/// Waits until a pipeline says all of these words.
async fn told(daemon: &Daemon, pipeline: &str, words: &[&str]) {
    let says = async || {
        let (_, body) = daemon.get("/status").await?;
        let all: Value = serde_json::from_str(&body)?;
        let found = all["pipelines"].as_array().and_then(|p| p.iter().find(|p| p["name"] == pipeline));
        let text = found.map(Value::to_string).unwrap_or_default();
        anyhow::ensure!(words.iter().all(|word| text.contains(word)), "{text}");
        Ok(true)
    };
    patience::until(&format!("{words:?}"), PATIENCE, Duration::from_millis(200), says)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let (secured, stage) = (Secured::shared().await, Stage::set("sec_wrong").await);
    let way = "  sasl: {mechanism: SCRAM-SHA-512, username: scram, password: not-the-secret}";
    let daemon = Daemon::start(&stage.config(secured.scram, way)).unwrap();
    told(&daemon, "capture/shop", &["kafka.sasl"]).await;
    assert!(!daemon.log().contains("not-the-secret"), "{}", daemon.log_tail());
}

#[tokio::test]
async fn a_property_of_librdkafka_is_passed_on() {
    // One that the daemon works without: a client id's software name would not be seen, a limit is.
    let stage = Stage::set("sec_prop").await;
    let config = stage.config(
        Kafka::shared().service().port(),
        "  properties: {broker.address.family: v4, socket.nagle.disable: \"true\", metadata.max.age.ms: \"12345\"}",
    );
    let daemon = Daemon::start(&config).unwrap();
    stage.equal(&daemon).await;
    let wrong = stage.config(Kafka::shared().service().port(), "  properties: {no.such.property: \"1\"}");
    let refused = Daemon::start(&wrong).unwrap();
    told(&refused, "capture/shop", &["no.such.property"]).await;
}

#[tokio::test]
async fn a_broker_that_restarts_under_capture_and_sink_is_waited_for() {
    let stage = Stage::set("sec_restart").await;
    let kafka = Kafka::start(&[]).unwrap();
    let daemon = Daemon::start(&stage.config(kafka.service().port(), "  compression: zstd")).unwrap();
    stage.equal(&daemon).await;
    for crash in [false, true] {
        stage.change("before").await;
        kafka.service().stop(crash).unwrap();
        stage.change("while it is away").await;
        kafka.service().start_again().unwrap();
        stage.equal(&daemon).await;
        stage.change("after").await;
        stage.equal(&daemon).await;
    }
    let audit = caudal_tests::Audit::of(&kafka.bootstrap(), &stage.prefix, &[&stage.db]).await.unwrap();
    audit.assert_clean();
}
