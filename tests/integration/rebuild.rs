//! `caudal rebuild`: tables made anew from the log while they are read and written, and what hangs on them.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use caudal_tests::compare::wait_equal;
use caudal_tests::{
    Daemon, DaemonConfig, Family, Kafka, MysqlServer, PgDatabase, Postgres, TablePair, patience,
};
use mysql_async::prelude::Queryable;
use rand::{Rng, SeedableRng, rngs::SmallRng};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(240);
const ROWS: i64 = 20_000;

fn command(daemon: &Daemon, verb: &str, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(caudal_tests::daemon::binary().unwrap());
    command.args([verb, "dash"]).args(arguments);
    command.args(["--output", "json", "--config"]).arg(daemon.config_file()).kill_on_drop(true);
    command
}

/// Runs `caudal VERB dash …`: exit code, and what it printed for scripts.
async fn run(daemon: &Daemon, verb: &str, arguments: &[&str]) -> (Option<i32>, Value) {
    let out = tokio::time::timeout(PATIENCE * 2, command(daemon, verb, arguments).output()).await;
    let out =
        out.unwrap_or_else(|_| panic!("{verb} {arguments:?} does not end\n{}", daemon.log_tail())).unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    let value = serde_json::from_str(&text)
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&out.stderr)));
    (out.status.code(), value)
}

async fn rebuilt(daemon: &Daemon, arguments: &[&str]) -> Value {
    let (code, said) = run(daemon, "rebuild", arguments).await;
    assert_eq!((code, &said["exchanged"]), (Some(0), &true.into()), "{said}\n{}", daemon.log_tail());
    said
}

async fn source(server: &MysqlServer, db: &str) {
    server
        .sql(db, "CREATE TABLE people (id BIGINT PRIMARY KEY, name VARCHAR(60) NOT NULL, mail VARCHAR(60));
            CREATE TABLE orders (id BIGINT PRIMARY KEY, person BIGINT NOT NULL, amount DECIMAL(12,2) NOT NULL, note VARCHAR(40), at DATETIME(3));
            CREATE TABLE parts (orders BIGINT, part INT, what VARCHAR(20), PRIMARY KEY (orders, part));
            CREATE TABLE loose (a INT, b INT)")
        .await
        .unwrap();
    let rows: Vec<String> = (1..=500).map(|n| format!("({n}, 'näme {n}', 'm{n}@x')")).collect();
    server.sql(db, &format!("INSERT INTO people VALUES {}", rows.join(","))).await.unwrap();
    for part in 0..5 {
        let rows: Vec<String> = (part * ROWS / 5 + 1..=(part + 1) * ROWS / 5)
            .map(|n| {
                format!("({n}, {}, {n}.25, 'note {n}', '2024-02-29 12:00:00.{:03}')", n % 500 + 1, n % 1000)
            })
            .collect();
        server.sql(db, &format!("INSERT INTO orders VALUES {}", rows.join(","))).await.unwrap();
    }
    let rows: Vec<String> = (1..=1000).map(|n| format!("({n}, 1, 'line {n}')")).collect();
    server.sql(db, &format!("INSERT INTO parts VALUES {}", rows.join(","))).await.unwrap();
    server.sql(db, "INSERT INTO loose VALUES (1, 1), (1, 1), (2, NULL)").await.unwrap();
}

/// What somebody has hung on the tables.
const FURNITURE: &str = "
    DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'rebuild_reader') THEN CREATE ROLE rebuild_reader; END IF; END $$;
    CREATE INDEX by_person ON orders (person) INCLUDE (amount) WHERE amount > 0;
    CREATE INDEX orders_lower ON orders (lower(note));
    CREATE UNIQUE INDEX ON people (mail);
    ALTER TABLE people ADD CONSTRAINT named CHECK (name <> '');
    ALTER TABLE orders ADD FOREIGN KEY (person) REFERENCES people (id) DEFERRABLE INITIALLY DEFERRED;
    ALTER TABLE parts ADD CONSTRAINT of_order FOREIGN KEY (orders) REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED;
    ALTER TABLE orders ADD COLUMN loaded timestamptz DEFAULT now(), ADD COLUMN cents bigint GENERATED ALWAYS AS ((amount * 100)::bigint) STORED;
    ALTER TABLE orders SET (fillfactor = 80), ENABLE ROW LEVEL SECURITY, REPLICA IDENTITY FULL;
    CREATE POLICY small ON orders FOR SELECT TO rebuild_reader USING (amount < 1000);
    GRANT SELECT ON orders TO rebuild_reader; GRANT UPDATE (note) ON orders TO rebuild_reader WITH GRANT OPTION; GRANT SELECT ON people TO PUBLIC;
    COMMENT ON TABLE orders IS 'it''s orders'; COMMENT ON COLUMN orders.note IS 'a note';
    CREATE VIEW totals WITH (security_barrier) AS SELECT p.name, sum(o.amount) AS total FROM orders o JOIN people p ON p.id = o.person GROUP BY p.name;
    CREATE VIEW top AS SELECT * FROM totals WHERE total > 1000; GRANT SELECT ON totals TO rebuild_reader;
    CREATE FUNCTION seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
    CREATE TRIGGER seen BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION seen(); ALTER TABLE orders DISABLE TRIGGER seen;
    CREATE MATERIALIZED VIEW sums AS SELECT o.person, count(*) AS n, min(o.note) AS note FROM orders o GROUP BY o.person;
    CREATE UNIQUE INDEX sums_of ON sums (person); GRANT SELECT ON sums TO rebuild_reader;
    CREATE MATERIALIZED VIEW most WITH (fillfactor = 70) AS SELECT max(n) AS n FROM sums; COMMENT ON MATERIALIZED VIEW most IS 'the most';";

/// All that can be told of the tables, by name: the same before and after.
async fn furniture(sink: &PgDatabase) -> Vec<String> {
    let sql = "
        SELECT 'column ' || attrelid::regclass || ' ' || attname || ' ' || format_type(atttypid, atttypmod) || attnotnull || coalesce(attacl::text, '')
          || coalesce(col_description(attrelid, attnum), '') || attgenerated::text || coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = attrelid AND adnum = attnum), '')
          FROM pg_attribute WHERE attrelid IN ('orders'::regclass, 'people'::regclass, 'parts'::regclass, 'loose'::regclass) AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT 'index ' || pg_get_indexdef(indexrelid) || indisprimary || indisvalid FROM pg_index WHERE indrelid IN ('orders'::regclass, 'people'::regclass, 'parts'::regclass)
        UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || convalidated FROM pg_constraint
          WHERE conrelid IN ('orders'::regclass, 'people'::regclass, 'parts'::regclass)
        UNION ALL SELECT 'table ' || relname || coalesce(array_to_string(ARRAY(SELECT unnest(relacl)::text ORDER BY 1), ','), '') || relrowsecurity || relreplident::text || coalesce(reloptions::text, '')
          || coalesce(obj_description(oid, 'pg_class'), '') || relowner FROM pg_class WHERE oid IN ('orders'::regclass, 'people'::regclass, 'parts'::regclass, 'loose'::regclass, 'totals'::regclass, 'top'::regclass, 'sums'::regclass, 'most'::regclass)
        UNION ALL SELECT 'policy ' || policyname || roles::text || cmd || qual FROM pg_policies WHERE tablename = 'orders'
        UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE tgrelid = 'orders'::regclass AND NOT tgisinternal
        UNION ALL SELECT 'view ' || viewname || definition FROM pg_views WHERE schemaname = 'public'
        UNION ALL SELECT 'materialized ' || matviewname || definition || ispopulated FROM pg_matviews WHERE schemaname = 'public'
        UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE tablename IN ('sums', 'most')
        ORDER BY 1";
    sink.connect().await.unwrap().query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Orders come, change and go.
async fn live(url: String, stop: Arc<AtomicBool>) -> u64 {
    let mut rng = SmallRng::seed_from_u64(7);
    let mut conn = caudal_tests::mysql::connect(&url).await.unwrap();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = rng.random_range(1001..ROWS);
        conn.query_drop(match rng.random_range(0..5) {
            0 => format!("REPLACE INTO orders VALUES ({}, {}, 7, NULL, NULL)", ROWS + 1 + id, id % 500 + 1),
            1 => format!("DELETE FROM orders WHERE id = {}", ROWS + 1 + rng.random_range(1001..ROWS)),
            2 => format!("UPDATE people SET name = 'person {done}' WHERE id = {}", id % 500 + 1),
            _ => format!("UPDATE orders SET amount = amount + 1, note = 'changed {done}' WHERE id = {id}"),
        })
        .await
        .unwrap();
        done += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    done
}

/// Reads the table all the time: it is never without most of its rows, and never for long.
async fn reader(sink: PgDatabase, stop: Arc<AtomicBool>) -> u64 {
    let client = sink.connect().await.unwrap();
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        let row = client
            .query_one("SELECT count(*), (SELECT count(*) FROM top), (SELECT count(*) FROM sums) FROM orders WHERE id <= 20000", &[])
            .await
            .unwrap();
        assert!(row.get::<_, i64>(0) >= ROWS - 1, "rows are missing");
        assert!(row.get::<_, i64>(2) > 0, "a materialized view was empty");
        looks += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    looks
}

async fn start(name: &str) -> (&'static MysqlServer, String, PgDatabase, Daemon, Vec<TablePair>) {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    source(server, &db).await;
    let sink = Postgres::shared().database(name).await.unwrap();
    let daemon = Daemon::start(&config(name, &server.url(&db), &sink)).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
    (server, db, sink, daemon, pairs)
}

fn config(name: &str, url: &str, sink: &PgDatabase) -> DaemonConfig {
    DaemonConfig::new(&format!("{name}{}", std::process::id()))
        .source("shop", url, &[])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", sink, &["consistency: transaction"])
}

async fn equal(server: &MysqlServer, db: &str, sink: &PgDatabase, pairs: &[TablePair], daemon: &Daemon) {
    let waited = wait_equal(pairs, &server.url(db), &sink.url, PATIENCE).await;
    waited.unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
}

async fn number(sink: &PgDatabase, sql: &str) -> i64 {
    sink.connect().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

const DAMAGE: &str = "UPDATE orders SET note = 'flipped' WHERE id = 500; INSERT INTO orders VALUES (-5, 1, 1, 'surplus', NULL);
    DELETE FROM orders WHERE id = 1600; UPDATE parts SET what = 'flipped' WHERE orders = 7";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilt_tables_are_right_and_keep_all_that_hangs_on_them_while_they_are_written_and_read() {
    let (server, db, sink, daemon, pairs) = start("rebuild").await;
    sink.sql(FURNITURE).await.unwrap();
    let before = furniture(&sink).await;

    let (code, said) = run(&daemon, "rebuild", &["orders", "--dry-run"]).await;
    let told = &said["tables"][0];
    assert_eq!((code, told["obstacles"].as_array().map(Vec::len)), (Some(0), Some(0)), "{said}");
    assert!(told["records"].as_i64().unwrap() >= ROWS && told["seconds"].as_i64().unwrap() > 0, "{said}");

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(live(server.admin_url(&db), Arc::clone(&stop)));
    let reader = tokio::spawn(reader(sink.clone(), Arc::clone(&stop)));
    sink.sql(DAMAGE).await.unwrap();
    rebuilt(&daemon, &["orders", "parts", "loose"]).await;
    stop.store(true, Ordering::Relaxed);
    let (written, looks) = (writer.await.unwrap(), reader.await.unwrap());
    assert!(written > 20 && looks > 5, "{written} statements, {looks} looks");
    equal(server, &db, &sink, &pairs, &daemon).await;
    assert_eq!(furniture(&sink).await, before);
    assert_eq!(
        number(&sink, "SELECT count(*) FROM orders__old WHERE note IN ('flipped', 'surplus')").await,
        2,
        "the table before is kept"
    );

    let surplus =
        "SELECT (SELECT sum(n) FROM sums)::bigint - (SELECT count(*) FROM orders WHERE id <= 20000)";
    server.sql(&db, "DELETE FROM orders WHERE id > 20000").await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
    sink.sql("REFRESH MATERIALIZED VIEW CONCURRENTLY sums").await.unwrap();
    assert_eq!(number(&sink, surplus).await, 0, "it reads the new table");
    // Whoever writes goes on: nothing of the sink's state is torn.
    server.sql(&db, "UPDATE orders SET note = 'after' WHERE id BETWEEN 1 AND 50; DELETE FROM parts WHERE orders > 900; INSERT INTO loose VALUES (3, 3)").await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;

    // Back: to the table that was there, with what has come since.
    rebuilt(&daemon, &["parts", "--rollback"]).await;
    equal_but(&sink, "SELECT count(*) FROM parts WHERE what = 'flipped'", 1).await;
    assert_eq!(
        number(&sink, "SELECT count(*) FROM parts WHERE orders > 900").await,
        0,
        "deletes since are in it"
    );
    assert_eq!(furniture(&sink).await, before);
    let (code, said) = run(&daemon, "rebuild", &["people", "--rollback"]).await;
    assert!(code == Some(1) && said.to_string().contains("is kept"), "{said}");
    rebuilt(&daemon, &["parts"]).await;
    equal(server, &db, &sink, &pairs, &daemon).await;
    let (code, said) = run(&daemon, "verify", &[]).await;
    assert!(code == Some(1) || code == Some(0), "only the table without a key is not compared: {said}");
}

async fn equal_but(sink: &PgDatabase, sql: &str, rows: i64) {
    assert_eq!(number(sink, sql).await, rows, "{sql}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_rebuild_leaves_the_table_as_it_was_and_the_next_one_goes_on_without_the_source() {
    let (server, db, sink, mut daemon, pairs) = start("rebuildkill").await;
    sink.sql(DAMAGE).await.unwrap();
    let table = "SELECT 'orders'::regclass::oid::bigint";
    let oid = number(&sink, table).await;

    // The source is gone for what follows.
    daemon.kill().unwrap();
    daemon.reconfigure(&config("rebuildkill", "mysql://cdc:cdc-secret@127.0.0.1:9/shop", &sink)).unwrap();
    daemon.start_again().unwrap();
    let up = async || Ok(run(&daemon, "rebuild", &["orders", "--dry-run"]).await.0 == Some(0));
    patience::until("the log", PATIENCE, Duration::from_millis(300), up).await.unwrap();

    // A reader who does not end keeps the tables from being exchanged: killed there, and some time before.
    let holder = sink.connect().await.unwrap();
    holder.batch_execute("BEGIN; SELECT 1 FROM orders LIMIT 1").await.unwrap();
    for rows in [1, ROWS - 1] {
        let mut child = command(&daemon, "rebuild", &["orders"]).stdout(Stdio::null()).spawn().unwrap();
        let filled = "SELECT count(*) FROM orders__new";
        let client = sink.connect().await.unwrap();
        let enough = async || Ok(client.query_one(filled, &[]).await?.get::<_, i64>(0) >= rows);
        patience::until("a shadow", PATIENCE, Duration::from_millis(20), enough).await.unwrap();
        child.kill().await.unwrap();
        assert_eq!(number(&sink, table).await, oid, "the table that is read was touched");
        assert_eq!(number(&sink, "SELECT count(*) FROM orders WHERE note = 'flipped'").await, 1);
    }
    holder.batch_execute("COMMIT").await.unwrap();
    rebuilt(&daemon, &["orders"]).await;
    assert_ne!(number(&sink, table).await, oid);
    assert_eq!(number(&sink, "SELECT count(*) FROM orders WHERE note IN ('flipped', 'surplus')").await, 0);
    assert_eq!(number(&sink, "SELECT count(*) FROM caudal.offsets WHERE sink LIKE 'dash/rebuild%'").await, 0);
    rebuilt(&daemon, &["parts"]).await;

    daemon.kill().unwrap();
    daemon.reconfigure(&config("rebuildkill", &server.url(&db), &sink)).unwrap();
    daemon.start_again().unwrap();
    server.sql(&db, "UPDATE orders SET note = 'later' WHERE id < 10").await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_preserved_is_told_before_and_what_was_damaged_lately_is_mended_from_then_on() {
    let (server, db, sink, daemon, pairs) = start("rebuildfrom").await;
    sink.sql("CREATE PUBLICATION cached FOR TABLE orders").await.unwrap();
    let (code, said) = run(&daemon, "rebuild", &["orders", "--dry-run"]).await;
    assert!(
        code == Some(1)
            && said["tables"][0]["obstacles"].to_string().contains("in publication cached depends on it"),
        "{said}"
    );
    let (code, said) = run(&daemon, "rebuild", &["orders"]).await;
    assert!(code == Some(1) && said.to_string().contains("in publication cached depends on it"), "{said}");
    assert_eq!(number(&sink, "SELECT count(*) FROM pg_class WHERE relname = 'orders__new'").await, 0);
    sink.sql("DROP PUBLICATION cached").await.unwrap();

    // Rows that changed since are damaged: a rebuild from then on mends them; what is older is not looked at, but found.
    let since = now_text(&sink).await;
    server.sql(&db, "UPDATE orders SET note = 'since' WHERE id BETWEEN 100 AND 120; DELETE FROM orders WHERE id = 121").await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
    sink.sql("UPDATE orders SET note = 'damaged' WHERE id BETWEEN 105 AND 110; INSERT INTO orders VALUES (121, 1, 1, 'again', NULL)").await.unwrap();
    rebuilt(&daemon, &["orders", "--from", &since]).await;
    equal(server, &db, &sink, &pairs, &daemon).await;
    sink.sql("UPDATE orders SET note = 'damaged' WHERE id = 5000").await.unwrap();
    let (code, said) = run(&daemon, "rebuild", &["orders", "--from", &since]).await;
    assert!(code == Some(1) && said.to_string().contains("(5000) note"), "{said}");
    let (code, said) = run(&daemon, "rebuild", &["orders", "--discard"]).await;
    assert_eq!((code, &said["discarded"][0]), (Some(0), &Value::String(format!("{db}.orders"))), "{said}");
    rebuilt(&daemon, &["orders"]).await;
    equal(server, &db, &sink, &pairs, &daemon).await;
    for (arguments, says) in
        [(["orders", "--from", "sometime"], "neither a date"), (["loose", "--from", "3"], "has no key")]
    {
        let (code, said) = run(&daemon, "rebuild", &arguments).await;
        assert!(code == Some(1) && said.to_string().contains(says), "{said}");
    }
}

/// A moment behind all that was written to the log so far.
async fn now_text(sink: &PgDatabase) -> String {
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let sql = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    sink.connect().await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_over_several_partitions_of_kafka_is_rebuilt_by_key_while_its_shape_changes_and_another_from_an_offset()
 {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database("rebuildkey").await.unwrap();
    server
        .sql(&db, "CREATE TABLE orders (id BIGINT PRIMARY KEY, note VARCHAR(40)); CREATE TABLE parts (id BIGINT PRIMARY KEY, what VARCHAR(20))")
        .await
        .unwrap();
    for (table, rows) in [("orders", 3_000), ("parts", 200)] {
        let rows: Vec<String> = (1..=rows).map(|n| format!("({n}, 'row {n}')")).collect();
        server.sql(&db, &format!("INSERT INTO {table} VALUES {}", rows.join(","))).await.unwrap();
    }
    let sink = Postgres::shared().database("rebuildkey").await.unwrap();
    let config = DaemonConfig::new(&format!("rebuildkey{}", std::process::id()))
        .brokers(&Kafka::shared().bootstrap())
        .kafka("  topics: {partitions_by_table: {'*.orders': 3}}")
        .source("shop", &server.url(&db), &[])
        .source_line("shop", "heartbeat: 500ms")
        .sink("dash", &sink, &["consistency: key"]);
    let daemon = Daemon::start(&config).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
    let partitions = "SELECT count(*) FROM caudal.offsets WHERE sink = 'dash' AND topic LIKE '%.orders' AND next_offset > 100";
    assert_eq!(number(&sink, partitions).await, 3);

    sink.sql("UPDATE orders SET note = 'flipped' WHERE id % 100 = 0; DELETE FROM orders WHERE id = 77; INSERT INTO orders VALUES (-5, 'surplus')").await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (url, stopped) = (server.admin_url(&db), Arc::clone(&stop));
    let writer = tokio::spawn(async move {
        let mut conn = caudal_tests::mysql::connect(&url).await.unwrap();
        let mut done = 0;
        while !stopped.load(Ordering::Relaxed) {
            let id = 1 + done * 7 % 3_000;
            if done == 20 {
                conn.query_drop("ALTER TABLE orders ADD COLUMN more INT").await.unwrap();
            }
            let more = if done > 20 { ", more = 7" } else { "" };
            conn.query_drop(format!("UPDATE orders SET note = 'changed {done}'{more} WHERE id = {id}"))
                .await
                .unwrap();
            done += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        done
    });
    rebuilt(&daemon, &["orders"]).await;
    let enough = async || {
        Ok(number(&sink, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'more'").await == 1)
    };
    patience::until("the new column", PATIENCE, Duration::from_millis(100), enough).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(writer.await.unwrap() > 20);
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;

    // From an offset: that of a row's last change.
    server.sql(&db, "UPDATE parts SET what = 'late' WHERE id = 9").await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
    let mut why = tokio::process::Command::new(caudal_tests::daemon::binary().unwrap());
    why.args(["why", "parts", "9", "--output", "json", "--config"]).arg(daemon.config_file());
    let said: Value = serde_json::from_slice(&why.output().await.unwrap().stdout).unwrap();
    let offset = said["changes"].as_array().unwrap().last().unwrap()["offset"].to_string();
    assert!(offset.parse::<i64>().unwrap() >= 200, "{said}");
    sink.sql("UPDATE parts SET what = 'damaged' WHERE id = 9").await.unwrap();
    let said = rebuilt(&daemon, &["parts", "--from", &offset]).await;
    assert!(said["tables"][0]["events"].as_u64().unwrap() < 100, "all of the topic was applied: {said}");
    equal(server, &db, &sink, &pairs, &daemon).await;
    let (code, said) = run(&daemon, "rebuild", &["orders", "--from", "5"]).await;
    assert!(code == Some(1) && said.to_string().contains("has 3 partitions"), "{said}");
}

/// How the source's rows and a history's newest versions read as text, in the order of keys.
const OF_SOURCE: &str =
    "SELECT CONCAT_WS('|', id, person, amount, IFNULL(note, '-')) FROM orders ORDER BY id";
const OF_HISTORY: &str = "SELECT concat_ws('|', id, person, amount, coalesce(note, '-')) FROM orders WHERE _valid_to IS NULL AND _op <> 'd' ORDER BY id";

/// A table of rows is made a history of its topic alone, while the source is written and the table is read all the time. `on_kafka`: real
/// brokers, three partitions, two pipelines beside each other, and a command that is killed in the middle.
async fn becomes_a_history(name: &str, on_kafka: bool) {
    let server = MysqlServer::shared(Family::MariaDb);
    let db = server.database(name).await.unwrap();
    source(server, &db).await;
    let sink = Postgres::shared().database(name).await.unwrap();
    let config = |shape: &[&str]| {
        let mut config = DaemonConfig::new(&format!("{name}{}", std::process::id()));
        let mut lines = vec!["consistency: transaction"];
        if on_kafka {
            config = config.brokers(&Kafka::shared().bootstrap());
            config = config.kafka("  topics: {partitions_by_table: {'*.orders': 3}}");
            lines = vec!["consistency: key", "parallel: 2"];
        }
        lines.extend(shape);
        config
            .source("shop", &server.url(&db), &[])
            .source_line("shop", "heartbeat: 500ms")
            .sink("dash", &sink, &lines)
    };
    let mut daemon = Daemon::start(&config(&[])).unwrap();
    let pairs = TablePair::all(&server.admin_url(&db), &db).await.unwrap();
    equal(server, &db, &sink, &pairs, &daemon).await;
    sink.sql(
        "CREATE VIEW top AS SELECT id FROM people; CREATE MATERIALIZED VIEW sums AS SELECT count(*) AS n FROM orders",
    )
    .await
    .unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(live(server.admin_url(&db), Arc::clone(&stop)));
    let reader = tokio::spawn(reader(sink.clone(), Arc::clone(&stop)));
    daemon.terminate(PATIENCE).await.unwrap();
    daemon.reconfigure(&config(&["tables: {orders: {history: true, columns: ['!at']}}"])).unwrap();
    daemon.start_again().unwrap();
    daemon.wait_log("caudal rebuild dash", PATIENCE).await.unwrap();
    if on_kafka {
        // A reader who does not end keeps the tables from being exchanged.
        let holder = sink.connect().await.unwrap();
        holder.batch_execute("BEGIN; SELECT 1 FROM orders LIMIT 1").await.unwrap();
        let mut child = command(&daemon, "rebuild", &["orders"]).stdout(Stdio::null()).spawn().unwrap();
        let client = sink.connect().await.unwrap();
        let filled =
            "SELECT coalesce((SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'orders__new'), 0)";
        let enough = async || Ok(client.query_one(filled, &[]).await?.get::<_, i64>(0) >= 1);
        patience::until("a shadow", PATIENCE, Duration::from_millis(20), enough).await.unwrap();
        child.kill().await.unwrap();
        holder.batch_execute("COMMIT").await.unwrap();
    }
    rebuilt(&daemon, &["orders"]).await;
    stop.store(true, Ordering::Relaxed);
    let (written, looks) = (writer.await.unwrap(), reader.await.unwrap());
    assert!(written > 20 && looks > 5, "{written} statements, {looks} looks");

    // The sink looks again by itself, each minute; a restart is quicker.
    daemon.terminate(PATIENCE).await.unwrap();
    daemon.start_again().unwrap();
    let mut conn = caudal_tests::mysql::connect(&server.admin_url(&db)).await.unwrap();
    let there: Vec<String> = conn.query(OF_SOURCE).await.unwrap();
    let client = sink.connect().await.unwrap();
    let here = async || {
        let rows = client.query(OF_HISTORY, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect::<Vec<String>>() == there)
    };
    patience::until("the history holds what the source has", PATIENCE, Duration::from_millis(300), here)
        .await
        .unwrap_or_else(|e| panic!("{e:#}\n{}", daemon.log_tail()));
    let versions = "SELECT count(*) FROM orders WHERE _op IN ('u', 'd') AND _at IS NOT NULL";
    assert!(number(&sink, versions).await > 10, "what happened while it was made");
    let open = "SELECT count(*) FROM (SELECT id FROM orders WHERE _valid_to IS NULL GROUP BY id HAVING count(*) > 1) x";
    assert_eq!(number(&sink, open).await, 0, "each key is so in one way now");
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'orders' AND column_name IN ('at', '_seq')";
    assert_eq!(number(&sink, columns).await, 1);
    assert!(number(&sink, "SELECT count(*) FROM orders__old").await >= ROWS - 1, "the table before is kept");
    // A history that stays one, in doubt: made anew, with each of its versions.
    let before = number(&sink, "SELECT count(*) FROM orders").await;
    sink.sql("UPDATE orders SET note = 'flipped' WHERE id = 500").await.unwrap();
    rebuilt(&daemon, &["orders"]).await;
    assert_eq!(number(&sink, "SELECT count(*) FROM orders").await, before);
    assert_eq!(number(&sink, "SELECT count(*) FROM orders WHERE note = 'flipped'").await, 0);
    assert_eq!(number(&sink, "SELECT n FROM sums").await, before, "made anew with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_becomes_a_history_from_its_topic_alone_while_the_source_is_written_and_the_table_is_read() {
    becomes_a_history("rebuildshape", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_over_partitions_of_kafka_becomes_a_history_beside_parallel_pipelines_though_the_command_is_killed()
 {
    becomes_a_history("rebuildshapekafka", true).await;
}
