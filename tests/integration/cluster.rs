//! A Kafka of several brokers: leaders change, and a rack is down, while a capture and a sink work.

use std::collections::BTreeSet;
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::ports::free_port;
use caudal_tests::{
    Audit, Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair, Workload,
    patience,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE: Duration = Duration::from_millis(200);

/// Two brokers, each in a rack of its own; the first is the controller too. Each partition has a copy on both.
struct Cluster {
    first: Kafka,
    second: Kafka,
}

impl Cluster {
    fn start() -> Self {
        let ports: [u16; 3] = std::array::from_fn(|_| free_port().unwrap());
        let [first, second, controller] = ports;
        // Any 16 bytes, in base64.
        let shared = [
            "cluster=Y2F1ZGFsLXR3by1yYWNrcw".to_owned(),
            format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
            "default.replication.factor=2".to_owned(),
            "offsets.topic.replication.factor=2".to_owned(),
            "transaction.state.log.replication.factor=2".to_owned(),
            // A broker that is gone is missed soon, and one that is back leads again what it led.
            "broker.heartbeat.interval.ms=500".to_owned(),
            "broker.session.timeout.ms=3000".to_owned(),
            "leader.imbalance.check.interval.seconds=1".to_owned(),
            "leader.imbalance.per.broker.percentage=1".to_owned(),
        ];
        let start = |port: u16, own: &[String]| {
            let all: Vec<&str> = shared.iter().chain(own).map(String::as_str).collect();
            Kafka::start_at(port, &all).unwrap_or_else(|e| panic!("a broker of two: {e:#}"))
        };
        let own = [
            format!("listeners=PLAINTEXT://127.0.0.1:{first},CONTROLLER://127.0.0.1:{controller}"),
            "broker.rack=a".to_owned(),
        ];
        let first = start(first, &own);
        let own = [
            "node.id=2".to_owned(),
            "process.roles=broker".to_owned(),
            format!("listeners=PLAINTEXT://127.0.0.1:{second}"),
            "broker.rack=b".to_owned(),
        ];
        Self { first, second: start(second, &own) }
    }

    fn bootstrap(&self) -> String {
        format!("{},{}", self.first.bootstrap(), self.second.bootstrap())
    }

    /// Who leads the partitions of topics that begin so.
    fn leaders(&self, prefix: &str) -> anyhow::Result<BTreeSet<i32>> {
        let asker: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.first.bootstrap()).create()?;
        let metadata = asker.fetch_metadata(None, Duration::from_secs(10))?;
        let topics = metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix));
        Ok(topics.flat_map(|topic| topic.partitions().iter().map(|p| p.leader())).collect())
    }

    async fn wait_leaders(&self, prefix: &str, wanted: &[i32]) {
        let led = async || Ok(self.leaders(prefix)? == wanted.iter().copied().collect());
        patience::until(&format!("leaders {wanted:?}"), PATIENCE, PAUSE, led).await.unwrap();
    }
}

struct Scene {
    server: &'static MysqlServer,
    db: String,
    sink: PgDatabase,
    daemon: Daemon,
}

impl Scene {
    /// What is committed now comes to the sink, whoever is away.
    async fn flows(&self, mark: i32) {
        self.server.sql(&self.db, &format!("INSERT INTO marks VALUES ({mark})")).await.unwrap();
        let there = async || {
            let client = self.sink.connect().await?;
            Ok(!client.query("SELECT 1 FROM marks WHERE id = $1", &[&mark]).await?.is_empty())
        };
        let waited = patience::until(&format!("mark {mark}"), PATIENCE, PAUSE, there).await;
        waited.unwrap_or_else(|e| panic!("{e:#}\n{}", self.daemon.log_tail()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_change_and_a_rack_is_down_and_nothing_is_lost_doubled_or_held_up() {
    let cluster = Cluster::start();
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("racks").await.unwrap();
    let sink = Postgres::shared().database("racks").await.unwrap();
    server.sql(&db, "CREATE TABLE marks (id INT PRIMARY KEY)").await.unwrap();
    let workload = Workload::create(&server.admin_url(&db), 71, 300).await.unwrap().clients(2);
    let prefix = format!("racks{}", std::process::id());
    let config = DaemonConfig::new(&prefix)
        .brokers(&cluster.bootstrap())
        .kafka("  topics: {partitions: 2}")
        .source("shop", &server.url(&db), &[])
        .sink("pg", &sink, &[]);
    let daemon = Daemon::start(&config).unwrap();
    let scene = Scene { server, db, sink, daemon };
    scene.flows(0).await;
    let data = format!("{prefix}.");
    cluster.wait_leaders(&data, &[1, 2]).await;
    let writers = workload.pause(Duration::from_millis(20)).start().await.unwrap();

    // Tidily: its partitions are led by the other before it goes. Then it comes back, and leads again while both are there.
    cluster.second.service().stop(false).unwrap();
    cluster.wait_leaders(&data, &[1]).await;
    scene.flows(1).await;
    cluster.second.service().start_again().unwrap();
    cluster.wait_leaders(&data, &[1, 2]).await;
    scene.flows(2).await;

    // At once: the rack is down, and so is half of all leaders, until it is missed.
    cluster.second.service().stop(true).unwrap();
    scene.flows(3).await;
    cluster.wait_leaders(&data, &[1]).await;
    scene.flows(4).await;
    cluster.second.service().start_again().unwrap();
    cluster.wait_leaders(&data, &[1, 2]).await;

    writers.stop().await.unwrap();
    let pairs = TablePair::all(&server.admin_url(&scene.db), &scene.db).await.unwrap();
    let equal = wait_equal(&pairs, &server.url(&scene.db), &scene.sink.url, PATIENCE).await;
    equal.unwrap_or_else(|e| panic!("{e:#}\n{}", scene.daemon.log_tail()));
    let audit = Audit::of(&cluster.bootstrap(), &prefix, &[&scene.db]).await.unwrap();
    audit.assert_clean();
    assert!(audit.updates > 0, "{audit}");
}
