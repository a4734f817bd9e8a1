//! Materialized views over a table that is exchanged: they are what they were, over the new table.

use crate::database::{Database, connect};
use crate::exchange::level;
use crate::rows::{I, Rows, T, put};
use caudal_core::TableId;
use caudal_core::rebuild::{Begin, Rebuild};
use std::time::Duration;

/// One with all that may hang on it, one that nobody has filled, one over a view, and one over another; a view over one.
const VIEWS: &str = "
    DO $$ BEGIN CREATE ROLE caudal_views; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    GRANT USAGE, CREATE ON SCHEMA public TO caudal_views; GRANT SELECT ON people TO caudal_views;
    CREATE MATERIALIZED VIEW \"Names\" (\"Who\", n) WITH (fillfactor = 70, toast.autovacuum_enabled = false) AS
      SELECT people.name, people.id FROM people WHERE people.name <> 'public.people';
    CREATE UNIQUE INDEX \"By n\" ON \"Names\" (n) WITH (fillfactor = 60); CREATE INDEX ON \"Names\" (lower(\"Who\")) WHERE n > 0;
    ALTER MATERIALIZED VIEW \"Names\" CLUSTER ON \"By n\";
    ALTER MATERIALIZED VIEW \"Names\" ALTER COLUMN \"Who\" SET STATISTICS 77, ALTER COLUMN \"Who\" SET STORAGE EXTERNAL;
    COMMENT ON MATERIALIZED VIEW \"Names\" IS 'it''s names'; COMMENT ON COLUMN \"Names\".\"Who\" IS 'who'; COMMENT ON INDEX \"By n\" IS 'by n';
    ALTER MATERIALIZED VIEW \"Names\" OWNER TO caudal_views;
    GRANT SELECT ON \"Names\" TO PUBLIC; GRANT SELECT (n) ON \"Names\" TO pg_monitor;
    CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM people WITH NO DATA;
    CREATE VIEW plain AS SELECT * FROM people;
    CREATE MATERIALIZED VIEW over_view AS SELECT max(name) AS name FROM plain;
    CREATE MATERIALIZED VIEW over_another AS SELECT n.\"Who\" AS who, p.id FROM \"Names\" n JOIN people p ON p.id = n.n;
    CREATE INDEX ON over_another (id);
    CREATE VIEW seen AS SELECT \"Who\" FROM \"Names\"; GRANT SELECT ON seen TO caudal_views;";

/// All that can be told of them, by name.
const TOLD: &str = "
    SELECT 'view ' || c.relname || c.relkind::text || pg_get_viewdef(c.oid) || c.relispopulated || pg_get_userbyid(c.relowner) || coalesce(c.reloptions::text, '')
      || coalesce((SELECT reloptions::text FROM pg_class t WHERE t.oid = c.reltoastrelid), '') || coalesce(obj_description(c.oid, 'pg_class'), '')
      || coalesce(array_to_string(ARRAY(SELECT unnest(c.relacl)::text ORDER BY 1), ','), '') FROM pg_class c
      WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('m', 'v')
    UNION ALL SELECT 'column ' || a.attrelid::regclass || a.attname || a.attnum || a.attstorage::text || coalesce(a.attstattarget, -1) || coalesce(a.attacl::text, '')
      || coalesce(col_description(a.attrelid, a.attnum), '') FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
      WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('m', 'v') AND a.attnum > 0
    UNION ALL SELECT 'index ' || pg_get_indexdef(i.indexrelid) || i.indisclustered || coalesce(obj_description(i.indexrelid, 'pg_class'), '') FROM pg_index i
      JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'm' ORDER BY 1";

const CONTENT: &str = "SELECT (SELECT string_agg(\"Who\", ',') FROM \"Names\"), (SELECT name FROM over_view), \
    (SELECT who FROM over_another), (SELECT \"Who\" FROM seen)";
const STILL_READ: &str = "SELECT count(*) FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid WHERE d.refobjid = 'people__old'::regclass";

async fn exchanged(rebuild: &mut Box<dyn Rebuild>, id: &TableId) {
    assert!(rebuild.hold(std::slice::from_ref(id)).await.unwrap());
    assert!(rebuild.exchange(None).await.unwrap());
}

#[tokio::test]
async fn materialized_views_are_what_they_were_and_read_the_new_table_and_the_way_back_as_well() {
    let Some(db) = Database::new().await else { return };
    let (mut w, _, t) = level(&db).await;
    db.run(VIEWS).await;
    db.run("REFRESH MATERIALIZED VIEW over_another").await;
    let before = db.rows(TOLD).await;
    assert_eq!(db.rows(CONTENT).await, ["wrong|wrong|wrong|wrong"]);
    let mut rebuild = db.sink().rebuild().await.unwrap().unwrap();
    assert_eq!(rebuild.look(&t).await.unwrap().obstacles, Vec::<String>::new());
    exchanged(&mut rebuild, &t.id).await;
    // Nothing was filled under the lock: readers have what they had.
    assert_eq!(db.rows(CONTENT).await, ["wrong|wrong|wrong|wrong"]);
    // Somebody reads one of them all the time, and the command is killed: the next one goes on.
    let reader = connect(&db.url).await;
    reader.batch_execute("BEGIN; SELECT * FROM \"Names\"").await.unwrap();
    let killed = tokio::spawn(async move { rebuild.settle().await });
    db.wait_for("SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database() AND NOT l.granted)").await;
    killed.abort();
    assert_eq!(db.rows(CONTENT).await, ["wrong|wrong|wrong|wrong"]);
    // Its time may be over meanwhile: it is still needed.
    db.run("UPDATE caudal.rebuilds SET keep_until = now() - interval '1 second'").await;
    db.sink().open().await.unwrap();
    db.run("UPDATE caudal.rebuilds SET keep_until = now() + interval '1 day'").await;
    reader.batch_execute("COMMIT").await.unwrap();

    let mut rebuild = db.sink().rebuild().await.unwrap().unwrap();
    assert_eq!(rebuild.settle().await.unwrap(), Vec::<String>::new());
    assert_eq!(db.rows(CONTENT).await, ["a|a|a|a"]);
    assert_eq!(db.rows(TOLD).await, before);
    assert_eq!(db.value(STILL_READ).await, "0");
    w.resume().await.unwrap();
    put(w.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    db.run("REFRESH MATERIALIZED VIEW CONCURRENTLY \"Names\"; REFRESH MATERIALIZED VIEW later").await;
    assert_eq!(db.value("SELECT count(*) || ' ' || (SELECT n FROM later) FROM \"Names\"").await, "2 2");

    let before = db.rows(TOLD).await;
    assert!(rebuild.begin(&t, "shop.t", Begin::Kept).await.unwrap());
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), Rows::new().create(&t, &[I(2), T("b")]).at(2)).await;
    exchanged(&mut rebuild, &t.id).await;
    assert_eq!(rebuild.settle().await.unwrap(), Vec::<String>::new());
    assert_eq!(db.rows("SELECT \"Who\" FROM \"Names\" ORDER BY n").await, ["wrong", "b"]);
    assert_eq!(db.rows(TOLD).await, before);
    assert_eq!(db.value(STILL_READ).await, "0");
}

#[tokio::test]
async fn a_materialized_view_that_cannot_be_filled_stays_as_it_is_and_is_told_until_it_can() {
    let Some(db) = Database::new().await else { return };
    let (_, mut rebuild, t) = level(&db).await;
    db.run("CREATE MATERIALIZED VIEW broken AS SELECT 1 / (length(name) - 1) AS n FROM people").await;
    exchanged(&mut rebuild, &t.id).await;
    let failed = rebuild.settle().await.unwrap();
    assert!(failed.len() == 1 && failed[0].contains("fill materialized view public.broken"), "{failed:?}");
    assert_eq!(db.value("SELECT n FROM broken").await, "0");
    let error = rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap_err().to_string();
    assert!(error.contains("public.broken still waits"), "{error}");
    db.run("UPDATE people SET name = 'abc'").await;
    assert_eq!(rebuild.settle().await.unwrap(), Vec::<String>::new());
    assert_eq!(db.value("SELECT count(*) FROM broken").await, "1");
    assert_eq!(
        db.value("SELECT to_regclass('broken__new') IS NULL AND to_regclass('broken__old') IS NULL").await,
        "t"
    );
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap());
}

#[tokio::test]
async fn what_a_materialized_view_cannot_be_made_anew_for_is_told_before_anything_is_done() {
    let Some(db) = Database::new().await else { return };
    let (_, mut rebuild, t) = level(&db).await;
    rebuild.discard(&t.id).await.unwrap();
    db.run("DO $$ BEGIN CREATE ROLE caudal_limited LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT ALL ON SCHEMA public, caudal TO caudal_limited; GRANT ALL ON ALL TABLES IN SCHEMA caudal TO caudal_limited;
        DO $$ BEGIN EXECUTE format('GRANT ALL ON DATABASE %I TO caudal_limited', current_database()); END $$;
        ALTER TABLE caudal.rebuilds OWNER TO caudal_limited; ALTER TABLE people OWNER TO caudal_limited;
        CREATE MATERIALIZED VIEW theirs AS SELECT count(*) AS n FROM people;
        CREATE STATISTICS counted ON id, name FROM people").await;
    let (_, rest) = db.url.split_once('@').unwrap();
    let config = db.config_with(serde_json::json!({"url": format!("postgres://caudal_limited@{rest}")}));
    let mut limited = caudal_postgres::sink("test", config).unwrap().rebuild().await.unwrap().unwrap();
    let refused = async |rebuild: &mut Box<dyn Rebuild>, what: &str| {
        let told = rebuild.look(&t).await.unwrap().obstacles;
        assert!(told.len() == 1 && told[0].contains(what), "{told:?}");
        let error = rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
        assert_eq!(db.value("SELECT to_regclass('people__new') IS NULL").await, "t");
    };
    refused(&mut limited, "theirs anew: it belongs to postgres").await;
    db.run("CREATE FUNCTION told(theirs) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'").await;
    refused(&mut rebuild, "theirs, which has to be made anew").await;
    db.run("DROP FUNCTION told; CREATE TABLE theirs__new (n int)").await;
    refused(&mut rebuild, "theirs__new is there").await;
    db.run("DROP TABLE theirs__new").await;
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap());
    // One that comes while the shadow is filled is looked at again at the exchange.
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(1)).await;
    db.run("CREATE TABLE theirs__old (n int)").await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    let error =
        tokio::time::timeout(Duration::from_secs(30), rebuild.exchange(None)).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("theirs__old is there"), "{error}");
    assert_eq!(db.value("SELECT name FROM people").await, "wrong");
}

#[tokio::test]
async fn what_only_trying_tells_of_a_materialized_view_is_told_before_anything_is_done() {
    let Some(db) = Database::new().await else { return };
    let (_, mut rebuild, t) = level(&db).await;
    rebuild.discard(&t.id).await.unwrap();
    // Its own view, in a schema where it may make none.
    db.run("DO $$ BEGIN CREATE ROLE caudal_trying LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT ALL ON SCHEMA public, caudal TO caudal_trying; GRANT ALL ON ALL TABLES IN SCHEMA caudal TO caudal_trying;
        DO $$ BEGIN EXECUTE format('GRANT ALL ON DATABASE %I TO caudal_trying', current_database()); END $$;
        ALTER TABLE caudal.rebuilds OWNER TO caudal_trying; ALTER TABLE people OWNER TO caudal_trying;
        CREATE SCHEMA other; GRANT CREATE, USAGE ON SCHEMA other TO caudal_trying;
        CREATE MATERIALIZED VIEW other.counted AS SELECT count(*) AS n FROM people;
        ALTER MATERIALIZED VIEW other.counted OWNER TO caudal_trying; REVOKE CREATE ON SCHEMA other FROM caudal_trying")
        .await;
    let (_, rest) = db.url.split_once('@').unwrap();
    let config = db.config_with(serde_json::json!({"url": format!("postgres://caudal_trying@{rest}")}));
    let mut limited = caudal_postgres::sink("test", config).unwrap().rebuild().await.unwrap().unwrap();
    let error = limited.begin(&t, "shop.t", Begin::Empty).await.unwrap_err().to_string();
    assert!(error.contains("try to make materialized view other.counted anew"), "{error}");
    assert_eq!(db.value("SELECT to_regclass('people__new') IS NULL").await, "t");
    db.run("GRANT CREATE ON SCHEMA other TO caudal_trying").await;
    assert!(limited.begin(&t, "shop.t", Begin::Empty).await.unwrap());
}

#[tokio::test]
async fn who_still_reads_the_table_of_before_is_named_by_the_next_exchange() {
    let Some(db) = Database::new().await else { return };
    let (_, mut rebuild, t) = level(&db).await;
    exchanged(&mut rebuild, &t.id).await;
    db.run("CREATE MATERIALIZED VIEW before AS SELECT * FROM people__old").await;
    assert!(rebuild.begin(&t, "shop.t", Begin::Empty).await.unwrap());
    let mut shadow = rebuild.writer(&t.id).await.unwrap();
    shadow.resume().await.unwrap();
    put(shadow.as_mut(), Rows::new().create(&t, &[I(1), T("a")]).at(1)).await;
    assert!(rebuild.hold(std::slice::from_ref(&t.id)).await.unwrap());
    let error = rebuild.exchange(None).await.unwrap_err().to_string();
    assert!(error.contains("before still reads public.people__old, which has to go"), "{error}");
    assert_eq!(db.rows("SELECT name FROM before").await, ["wrong"]);
    db.run("DROP MATERIALIZED VIEW before").await;
    exchanged(&mut rebuild, &t.id).await;
}
