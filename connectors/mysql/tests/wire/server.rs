//! A real server, and what a test needs of it.

use caudal_core::{BatchBuilder, Cell, Column, ColumnType, KeyKind, TableId, TableSchema};
use caudal_mysql::binlog::{
    BinlogStream, Event, EventKind, NO_IMAGE, RowDecoder, RowsOp, Start, StreamOptions,
};
use caudal_mysql::connection::{Connection, Endpoint, Family};
use caudal_mysql::gtid::GtidSet;
use caudal_mysql::tls::TlsOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

pub(crate) const MARIADB: &str = "CAUDAL_TEST_MARIADB_URL";
pub(crate) const MYSQL: &str = "CAUDAL_TEST_MYSQL_URL";

/// Held by tests that change a server's global settings.
pub(crate) static SETTINGS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Read by all tests that use a server, written by those that take its binlogs away. A test must not open a second server
/// while it has one: a waiting writer would keep both apart for ever.
static BINLOGS: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());

/// Until it is dropped no other test uses a server.
pub(crate) async fn alone() -> tokio::sync::RwLockWriteGuard<'static, ()> {
    BINLOGS.write().await
}

static SERVER_ID: AtomicU32 = AtomicU32::new(0);

/// The server that the variable names; none, with a word to the reader, if it is not set.
pub(crate) fn endpoint(variable: &str) -> Option<Endpoint> {
    let Ok(url) = std::env::var(variable) else {
        println!("needs a server in {variable}: run it by tests/run");
        return None;
    };
    let parsed = url.strip_prefix("mysql://").and_then(|rest| {
        let (account, place) = rest.trim_end_matches('/').rsplit_once('@')?;
        let (user, password) = account.split_once(':')?;
        let (host, port) = place.rsplit_once(':')?;
        Some((user, password, host, port.parse().ok()?))
    });
    let (user, password, host, port) = parsed.expect("mysql://user:password@host:port/");
    Some(Endpoint {
        host: host.into(),
        port,
        user: user.into(),
        password: password.into(),
        tls: TlsOptions::default(),
        connect_timeout: Duration::from_secs(20),
    })
}

/// A database of its own on a server.
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) sql: Connection,
    pub(crate) database: String,
    _binlogs: Option<tokio::sync::RwLockReadGuard<'static, ()>>,
}

impl Server {
    /// With an empty database named after the test.
    pub(crate) async fn open(variable: &str, database: &str) -> Option<Self> {
        let binlogs = BINLOGS.read().await;
        let server = Self::open_alone(variable, database).await?;
        Some(Self { _binlogs: Some(binlogs), ..server })
    }

    /// For a test that is [`alone`].
    pub(crate) async fn open_alone(variable: &str, database: &str) -> Option<Self> {
        let endpoint = endpoint(variable)?;
        let mut sql = Connection::connect(&endpoint, 1 << 30).await.expect("the named server answers");
        for statement in [
            "SET NAMES utf8mb4".to_owned(),
            "SET SESSION sql_mode='', SESSION time_zone='+00:00'".to_owned(),
            format!("DROP DATABASE IF EXISTS {database}"),
            format!("CREATE DATABASE {database} CHARACTER SET utf8mb4"),
            format!("USE {database}"),
        ] {
            sql.execute(&statement).await.expect(&statement);
        }
        Some(Self { endpoint, sql, database: database.into(), _binlogs: None })
    }

    pub(crate) fn family(&self) -> Family {
        self.sql.family()
    }

    pub(crate) async fn run(&mut self, statement: &str) {
        if let Err(e) = self.sql.execute(statement).await {
            panic!("{e}: {statement:.300}");
        }
    }

    /// Rows as text; NULL is none.
    pub(crate) async fn rows(&mut self, query: &str) -> Vec<Vec<Option<String>>> {
        let rows = self.sql.query(query).await.unwrap_or_else(|e| panic!("{e}: {query}"));
        let text = |b: bytes::Bytes| String::from_utf8(b.to_vec()).expect("UTF-8 from the server");
        rows.into_iter().map(|row| row.into_iter().map(|cell| cell.map(text)).collect()).collect()
    }

    /// All transactions that the server has.
    pub(crate) async fn gtids(&mut self) -> GtidSet {
        let query = match self.family() {
            Family::MySql => "SELECT @@global.gtid_executed",
            Family::MariaDb => "SELECT @@global.gtid_binlog_pos",
        };
        let text = self.sql.scalar(query).await.expect("GTIDs").unwrap_or_default();
        GtidSet::parse(self.family(), &text).expect("the server's own set")
    }

    /// The end of the binlog.
    pub(crate) async fn end(&mut self) -> Start {
        let query = match self.family() {
            Family::MySql if self.sql.version().number >= (8, 2, 0) => "SHOW BINARY LOG STATUS",
            _ => "SHOW MASTER STATUS",
        };
        let row = self.rows(query).await.remove(0);
        let cell = |i: usize| row[i].clone().expect("a position");
        Start::File { name: cell(0), pos: cell(1).parse().expect("a number") }
    }

    pub(crate) async fn stream(&self, start: Start) -> BinlogStream {
        let server_id =
            70_000 + std::process::id() % 10_000 * 100 + SERVER_ID.fetch_add(1, Ordering::Relaxed);
        let mut options = StreamOptions::new(server_id, start);
        options.heartbeat = Duration::from_millis(500);
        BinlogStream::open(&self.endpoint, options).await.expect("the stream opens")
    }

    /// The events of this test's database from `start` up to the mark that is set now. Heartbeats and rotations are left out.
    pub(crate) async fn events(&mut self, start: Start) -> Vec<Event> {
        self.run("CREATE TABLE the_mark (i INT)").await;
        self.run("DROP TABLE the_mark").await;
        let mut stream = self.stream(start).await;
        let mut events = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), stream.next()).await;
            let event = next.expect("events come").expect("events are understood");
            match &event.kind {
                EventKind::Query(q) if q.database == self.database && q.statement.contains("the_mark") => {
                    if q.statement.starts_with("DROP") {
                        return own(events, &self.database);
                    }
                }
                EventKind::Heartbeat | EventKind::Rotate { .. } | EventKind::Previous(_) => {}
                EventKind::Other(_) => {}
                _ => events.push(event),
            }
        }
    }

    /// The table's shape as this server describes it.
    pub(crate) async fn shape(&mut self, table: &str) -> Arc<TableSchema> {
        let rows = self
            .rows(&format!(
                "SELECT column_name, column_type, data_type, character_set_name, numeric_precision, numeric_scale, \
                 datetime_precision, character_maximum_length, is_nullable FROM information_schema.columns \
                 WHERE table_schema='{}' AND table_name='{table}' ORDER BY ordinal_position",
                self.database
            ))
            .await;
        let columns = rows.iter().enumerate().map(|(i, row)| column(i as u32, row)).collect();
        Arc::new(TableSchema {
            id: TableId::new(self.database.clone(), table),
            version: 1,
            generation: 1,
            columns,
            key: vec![],
            key_kind: KeyKind::None,
            unique_keys: vec![],
            foreign_keys: vec![],
            charset: None,
            comment: None,
        })
    }
}

/// Without the transactions of other databases: tests share the server, and so its log.
fn own(events: Vec<Event>, database: &str) -> Vec<Event> {
    let foreign = |event: &Event| match &event.kind {
        EventKind::TableMap(map) => map.database != database,
        EventKind::Query(query) => !query.database.is_empty() && query.database != database,
        _ => false,
    };
    let mut kept: Vec<Event> = Vec::new();
    let mut transaction: Vec<Event> = Vec::new();
    for event in events {
        if matches!(event.kind, EventKind::Begin(_)) {
            kept.append(&mut transaction);
        }
        transaction.push(event);
        if transaction.iter().any(foreign) && ends(&transaction) {
            transaction.clear();
        }
    }
    kept.append(&mut transaction);
    kept
}

fn ends(transaction: &[Event]) -> bool {
    let end =
        |kind: &EventKind| matches!(kind, EventKind::Commit | EventKind::Rollback | EventKind::XaPrepare(_));
    transaction.last().is_some_and(|event| end(&event.kind))
}

fn column(id: u32, row: &[Option<String>]) -> Column {
    let at = |i: usize| row[i].clone().unwrap_or_default();
    let number = |i: usize| at(i).parse::<u32>().unwrap_or(0);
    let (native, data) = (at(1).to_lowercase(), at(2).to_lowercase());
    let precision = number(6) as u8;
    let bits = match data.as_str() {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" => 32,
        _ => 64,
    };
    let ty = match data.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" if native.contains("unsigned") => {
            ColumnType::UInt { bits }
        }
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => ColumnType::Int { bits },
        "float" => ColumnType::Float32,
        "double" => ColumnType::Float64,
        "decimal" => ColumnType::Decimal { precision: number(4) as u8, scale: number(5) as u8 },
        "bit" => ColumnType::Bit { bits: number(4) as u8 },
        "date" => ColumnType::Date,
        "time" => ColumnType::Time { precision },
        "datetime" => ColumnType::DateTime { precision },
        "timestamp" => ColumnType::Timestamp { precision },
        "year" => ColumnType::Year,
        "enum" => ColumnType::Enum { members: members(&at(1)) },
        "set" => ColumnType::Set { members: members(&at(1)) },
        "json" => ColumnType::Json,
        "uuid" => ColumnType::Uuid,
        "inet4" => ColumnType::Inet4,
        "inet6" => ColumnType::Inet6,
        "vector" => ColumnType::Vector { dimensions: 0 },
        "geometry" | "point" | "linestring" | "polygon" | "geometrycollection" | "geomcollection"
        | "multipoint" => ColumnType::Geometry,
        "binary" => ColumnType::Bytes { max_bytes: Some(number(7)), fixed: true },
        "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => {
            ColumnType::Bytes { max_bytes: Some(number(7)), fixed: false }
        }
        _ => ColumnType::Text { max_chars: None },
    };
    Column {
        id,
        name: at(0),
        ty,
        nullable: at(8) == "YES",
        native: at(1),
        charset: row[3].clone(),
        default: None,
        generated: false,
        auto_increment: false,
        comment: None,
    }
}

/// Labels out of `enum('a','b''c')`.
fn members(native: &str) -> Vec<String> {
    let inner = native.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
    let mut all = Vec::new();
    for quoted in inner.split("',") {
        all.push(quoted.trim_start_matches('\'').trim_end_matches('\'').replace("''", "'"));
    }
    all
}

/// One decoded row.
pub(crate) struct Row {
    pub(crate) op: RowsOp,
    pub(crate) before: Option<Vec<Option<String>>>,
    pub(crate) after: Option<Vec<Option<String>>>,
}

/// Decodes the rows of one table among the events, each value as the server writes it; an unchanged one is `(unchanged)`.
pub(crate) fn decode(events: &[Event], schema: &Arc<TableSchema>) -> Vec<Row> {
    let mut decoder = RowDecoder::default();
    let mut rows = Vec::new();
    for event in events {
        let EventKind::Rows(event) = &event.kind else { continue };
        if event.table.table != schema.id.table || event.table.database != schema.id.database {
            continue;
        }
        let mut out = BatchBuilder::default();
        let mut images = Vec::new();
        decoder
            .decode(event, schema, &mut out, |_, row| {
                images.push(row);
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{e}"));
        let batch = out.build(caudal_core::Position::Source(caudal_core::SourcePosition::default()), None);
        let text = |at: u32| {
            let cells: &[Cell] = &batch.cells[at as usize..][..schema.width()];
            let pairs = cells.iter().zip(&schema.columns);
            pairs.map(|(cell, column)| super::text::of(&batch, *cell, &column.ty)).collect()
        };
        for image in images {
            rows.push(Row {
                op: event.op,
                before: (image.before != NO_IMAGE).then(|| text(image.before)),
                after: (image.after != NO_IMAGE).then(|| text(image.after)),
            });
        }
    }
    rows
}
