//! The source: what a configuration resolved to, and how a reader is opened.

use crate::binlog::{BinlogStream, Start, StreamOptions};
use crate::check;
use crate::client::{Client, row_text};
use crate::config::{Config, Mode, Resolved, SnapshotMode, TlsMode};
use crate::connection::{Endpoint, Family};
use crate::discover;
use crate::gtid::GtidSet;
use crate::poll;
use crate::position::{Place, Token, Within, source_position};
use crate::reader::{self, MySqlReader, clock};
use crate::schema::Timeline;
use crate::shape::Shape;
use crate::snapshot::Snapshot;
use crate::snapshot::progress::Notes;
use crate::tls::{self, TlsOptions};
use async_trait::async_trait;
use caudal_core::{Check, Error, Position, Reader, Result, Source, TableId, TableSchema};
use std::sync::Arc;
use std::time::Duration;

/// A MySQL or MariaDB source.
///
/// # Errors
/// `Config`, naming the field, for settings that cannot be.
pub fn source(name: &str, config: Config) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(MySqlSource { config: Arc::new(config.resolve(name)?) }))
}

struct MySqlSource {
    config: Arc<Resolved>,
}

#[async_trait]
impl Source for MySqlSource {
    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }

    async fn discover(&self) -> Result<Vec<TableSchema>> {
        let mut client = Client::connect(&self.config).await?;
        let tables = discover::tables(&mut client, &self.config.selection, None).await?;
        let out = |t: discover::Table| {
            let shape = Shape::new(&Arc::new(t.schema), &self.config.selection);
            shape.map(|s| s.out().as_ref().clone()).map_err(|e| self.config.own_field(e))
        };
        tables.into_values().map(out).collect()
    }

    async fn estimates(&self) -> Result<Vec<(TableId, u64)>> {
        let mut client = Client::connect(&self.config).await?;
        let tables = discover::tables(&mut client, &self.config.selection, None).await?;
        Ok(tables.into_iter().map(|(id, table)| (id, table.estimated_rows)).collect())
    }

    async fn open(&self, from: Option<Position>) -> Result<Box<dyn Reader>> {
        if self.config.mode == Mode::Poll {
            let reader = poll::open(&self.config, from).await;
            return reader
                .map_err(|e| self.config.own_field(e).context(format!("open source {}", self.config.name)));
        }
        let reader = open(&self.config, from).await;
        let named = |e| self.config.own_field(e).context(format!("open source {}", self.config.name));
        Ok(Box::new(reader.map_err(named)?))
    }
}

async fn open(config: &Arc<Resolved>, from: Option<Position>) -> Result<MySqlReader> {
    let mut sql = Client::connect(config).await?;
    check::require(&mut sql, config).await?;
    let family = sql.version.family;
    let (token, mut notes) = match &from {
        Some(position) => {
            let stored = source_position(position)?;
            (Token::decode(&stored.token, family)?, Notes::read(&stored.notes)?)
        }
        None => (first_token(&mut sql).await?, Notes::default()),
    };
    if let Some(set) = &token.place.gtid {
        history(&mut sql, set).await?;
    }
    let log_end = clock::log_end(&mut sql).await?;
    let stream =
        BinlogStream::open(&endpoint(config, sql.encrypted), stream_options(config, &mut sql, &token).await?)
            .await?;
    let tables = discover::tables(&mut sql, &config.selection, None).await?;
    check::named_tables(config, &tables)?;
    tracing::info!(
        source = config.name,
        server = sql.version.text,
        tables = tables.len(),
        file = token.place.file,
        pos = token.place.pos,
        "streaming from the binlog"
    );
    let reshaped = notes.reshape(&config.selection);
    check::shapes(config, &tables)?;
    let timeline = Timeline::new(config.selection.clone(), tables, notes.schemas.clone());
    let snapshot = match config.snapshot.mode {
        SnapshotMode::Initial => Snapshot::new(Arc::clone(config), &timeline, &notes)?,
        SnapshotMode::Never => Snapshot::none(Arc::clone(config)),
    };
    if !snapshot.is_done() {
        tracing::info!(
            source = config.name,
            tables = snapshot.tables_left(),
            "snapshot: reading existing rows"
        );
    }
    Ok(MySqlReader::new(reader::Start {
        config: Arc::clone(config),
        stream,
        sql,
        timeline,
        snapshot,
        token,
        notes: reshaped,
        log_end,
    }))
}

/// The end of the log: where a source that was never read begins.
async fn first_token(sql: &mut Client) -> Result<Token> {
    let reading = clock::read(sql).await?;
    let gtid = current_gtids(sql, &reading.file, reading.pos).await?;
    Ok(Token {
        place: Place { gtid, file: reading.file, pos: reading.pos },
        within: Within::default(),
        ts_us: reading.ts_us,
        resend: None,
    })
}

/// The transactions before a place of the log; none where the server has no GTIDs.
async fn current_gtids(sql: &mut Client, file: &str, pos: u64) -> Result<Option<GtidSet>> {
    let family = sql.version.family;
    let text = match family {
        Family::MariaDb => {
            let parameters = vec![file.into(), pos.into()];
            let rows = sql
                .bound_rows("ask for the log's GTID position", "SELECT BINLOG_GTID_POS(?, ?)", parameters)
                .await?;
            rows.first().and_then(|r| row_text(r, 0))
        }
        Family::MySql if gtid_mode(sql).await? => {
            sql.text("ask for the executed GTIDs", "SELECT @@GLOBAL.gtid_executed").await?
        }
        Family::MySql => return Ok(None),
    };
    Ok(Some(GtidSet::parse(family, &text.unwrap_or_default())?))
}

pub(crate) async fn gtid_mode(sql: &mut Client) -> Result<bool> {
    let mode = sql.text("ask for gtid_mode", "SELECT @@GLOBAL.gtid_mode").await?;
    Ok(mode.is_some_and(|m| m.eq_ignore_ascii_case("ON")))
}

/// The server must know all that was delivered, and still have all that was not.
async fn history(sql: &mut Client, delivered: &GtidSet) -> Result<()> {
    if sql.version.is_mariadb() {
        // The server checks it itself when the dump begins, and names the GTID.
        return Ok(());
    }
    let set = |text: Option<String>| GtidSet::parse(Family::MySql, &text.unwrap_or_default());
    let executed = set(sql.text("ask for the executed GTIDs", "SELECT @@GLOBAL.gtid_executed").await?)?;
    if !executed.covers(delivered) {
        let mut unknown = delivered.clone();
        unknown.subtract(&executed)?;
        return Err(Error::config(format!(
            "the server does not know transactions that were delivered before: {unknown}"
        ))
        .hint("it has another history (restored from a backup, or another server): point the url at a server that has them, or give the source another name to start anew"));
    }
    let purged = set(sql.text("ask for the purged GTIDs", "SELECT @@GLOBAL.gtid_purged").await?)?;
    if !delivered.covers(&purged) {
        let mut missing = purged;
        missing.subtract(delivered)?;
        return Err(Error::config(format!(
            "the server's binlogs no longer hold transactions that were not delivered yet: {missing}"
        ))
        .hint("point the url at a server that still has them, or start the source anew under another name so that its tables are read again; to prevent it, raise binlog_expire_logs_seconds"));
    }
    Ok(())
}

async fn stream_options(config: &Resolved, sql: &mut Client, token: &Token) -> Result<StreamOptions> {
    let start = match (&token.resend, &token.place.gtid) {
        (Some(resend), _) => match &resend.gtid {
            Some(set) => Start::Gtid(GtidSet::parse(sql.version.family, set)?),
            None => Start::File { name: resend.file.clone(), pos: resend.pos },
        },
        (None, Some(set)) => Start::Gtid(set.clone()),
        (None, None) => Start::File { name: token.place.file.clone(), pos: token.place.pos },
    };
    let mut options = StreamOptions::new(server_id(config, sql).await?, start);
    options.heartbeat = config.heartbeat.clamp(Duration::from_millis(500), Duration::from_secs(20));
    Ok(options)
}

/// The configured id, or one by chance that nobody uses.
async fn server_id(config: &Resolved, sql: &mut Client) -> Result<u32> {
    let own = sql.text("ask for the server's id", "SELECT @@GLOBAL.server_id").await?;
    let own: u32 = own.and_then(|t| t.parse().ok()).unwrap_or(0);
    if let Some(id) = config.server_id {
        if id == own {
            return Err(Error::config(format!("{id} is the server's own id"))
                .field(config.field("server_id"))
                .hint("leave it out, or take another number"));
        }
        return Ok(id);
    }
    let statement = match sql.version.family {
        Family::MySql if sql.version.number >= (8, 0, 22) => "SHOW REPLICAS",
        _ => "SHOW SLAVE HOSTS",
    };
    let replicas = sql.rows("list replicas", statement).await.map_err(|e| {
        e.hint(
            "grant REPLICATION SLAVE on *.* to this user (MariaDB: REPLICATION MASTER ADMIN shows replicas)",
        )
    });
    // Only a courtesy: MariaDB shows replicas to few users, and two equal numbers of two thousand million are refused by the server.
    let used: Vec<u32> = replicas
        .unwrap_or_default()
        .iter()
        .filter_map(|r| row_text(r, 0)?.parse().ok())
        .chain([own])
        .collect();
    Ok(loop {
        let id = rand::random_range(0x8000_0000..=u32::MAX - 1);
        if !used.contains(&id) {
            break id;
        }
    })
}

fn endpoint(config: &Resolved, encrypted: bool) -> Endpoint {
    let mode = match config.tls.mode {
        TlsMode::Disabled => tls::TlsMode::Disabled,
        TlsMode::Preferred if !encrypted => tls::TlsMode::Disabled,
        TlsMode::Preferred | TlsMode::Required => tls::TlsMode::Required,
        TlsMode::VerifyCa => tls::TlsMode::VerifyCa,
        TlsMode::VerifyIdentity => tls::TlsMode::VerifyIdentity,
    };
    Endpoint {
        host: config.address.host.clone(),
        port: config.address.port,
        user: config.address.user.clone(),
        password: config.address.password.reveal().to_owned(),
        tls: TlsOptions {
            mode,
            ca: config.tls.ca.clone(),
            client: config.tls.cert.clone().zip(config.tls.key.clone()),
        },
        connect_timeout: config.connect_timeout,
    }
}
