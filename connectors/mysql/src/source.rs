//! The source: what a configuration resolved to, and how a reader is opened.

mod choose;
mod history;

use crate::binlog::{Start, StreamOptions};
use crate::check;
use crate::client::{self, Client, row_text};
use crate::compare::Side;
use crate::config::{Config, Mode, Resolved, SnapshotMode};
use crate::connection::{Endpoint, Family};
use crate::discover::{self, Table};
use crate::gtid::GtidSet;
use crate::poll;
use crate::position::{Place, Token, Within};
use crate::reader::quarantine::Shown;
use crate::reader::{self, Kin, MySqlReader, Quarantine, clock, retention};
use crate::schema::Timeline;
use crate::shape::Shape;
use crate::snapshot::Snapshot;
use crate::snapshot::access::Server;
use crate::snapshot::board::Board;
use crate::snapshot::commands::Inbox;
use crate::snapshot::progress::table_note;
use crate::tls;
use async_trait::async_trait;
use caudal_core::compare::SourceSide;
use caudal_core::{
    Check, Error, PollStatus, Position, Progress, Reader, Result, SetAside, Signal, Source, TableId,
    TableSchema, Warning, Written,
};
use caudal_poll::Desk;
use choose::{Chosen, choose};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A MySQL or MariaDB source.
///
/// # Errors
/// `Config`, naming the field, for settings that cannot be.
pub fn source(name: &str, config: Config) -> Result<Arc<dyn Source>> {
    Ok(Arc::new(MySqlSource {
        config: Arc::new(config.resolve(name)?),
        set_aside: Shown::default(),
        beside: Beside {
            board: Arc::default(),
            inbox: Arc::default(),
            written: Arc::default(),
            desk: Arc::default(),
            purge: Arc::default(),
            kept: Arc::default(),
        },
    }))
}

struct MySqlSource {
    config: Arc<Resolved>,
    set_aside: Shown,
    beside: Beside,
}

/// What outlives a reader.
#[derive(Clone)]
struct Beside {
    board: Arc<Board>,
    inbox: Arc<Inbox>,
    written: Arc<OnceLock<Arc<dyn Written>>>,
    /// With `mode: poll`.
    desk: Arc<Desk>,
    /// That the server will soon purge what is to be read.
    purge: retention::Shown,
    /// The folder of the instance's data.
    kept: Arc<OnceLock<PathBuf>>,
}

#[async_trait]
impl Source for MySqlSource {
    async fn check(&self) -> Vec<Check> {
        check::check(&self.config).await
    }

    async fn discover(&self) -> Result<Vec<TableSchema>> {
        let mut client = choose::any(&self.config).await?;
        let tables = discover::tables(&mut client, &self.config.selection, None).await?;
        let out = |t: discover::Table| {
            let shape = Shape::new(&Arc::new(t.schema), &self.config.selection);
            shape.map(|s| s.out().as_ref().clone()).map_err(|e| self.config.own_field(e))
        };
        tables.into_values().map(out).collect()
    }

    async fn estimates(&self) -> Result<Vec<(TableId, u64)>> {
        let mut client = choose::any(&self.config).await?;
        let mut tables = discover::tables(&mut client, &self.config.selection, None).await?;
        discover::estimates(&mut client, &self.config.selection, &mut tables).await?;
        Ok(tables.into_iter().map(|(id, table)| (id, table.estimated_rows)).collect())
    }

    fn bind(&self, written: Arc<dyn Written>) {
        // Only the first one counts.
        let _ = self.beside.written.set(written);
    }

    fn keep_in(&self, folder: &Path) {
        // Only the first one counts.
        let _ = self.beside.kept.set(folder.to_owned());
    }

    fn signal(&self, signal: Signal) {
        match self.config.mode {
            Mode::Poll => self.beside.desk.signal(signal),
            _ => self.beside.inbox.add(signal),
        }
    }

    fn progress(&self) -> Vec<Progress> {
        match self.config.mode {
            Mode::Poll => self.beside.desk.progress(),
            _ => self.beside.board.all(),
        }
    }

    fn polls(&self) -> Vec<PollStatus> {
        self.beside.desk.polls()
    }

    fn warnings(&self) -> Vec<Warning> {
        self.beside.purge.lock().map(|shown| shown.iter().cloned().collect()).unwrap_or_default()
    }

    async fn open(&self, from: Option<Position>) -> Result<Box<dyn Reader>> {
        let config = match self.beside.kept.get() {
            Some(folder) => Arc::new(self.config.keeping(folder)),
            None => Arc::clone(&self.config),
        };
        if config.mode == Mode::Poll {
            let reader =
                poll::open(&config, (self.beside.written.get().cloned(), &self.beside.desk), from).await;
            return reader
                .map_err(|e| self.config.own_field(e).context(format!("open source {}", self.config.name)));
        }
        let reader = open(&config, &self.beside, &self.set_aside, from).await;
        let named = |e| self.config.own_field(e).context(format!("open source {}", self.config.name));
        Ok(Box::new(reader.map_err(named)?))
    }

    async fn side(&self) -> Result<Option<Box<dyn SourceSide>>> {
        let client = choose::any(&self.config).await?;
        let side = Side::open(&self.config, client).await.map_err(|e| self.config.own_field(e))?;
        Ok(Some(Box::new(side)))
    }

    fn set_aside(&self) -> Vec<SetAside> {
        self.set_aside.lock().map(|list| list.clone()).unwrap_or_default()
    }
}

async fn open(
    config: &Arc<Resolved>,
    beside: &Beside,
    shown: &Shown,
    from: Option<Position>,
) -> Result<MySqlReader> {
    let Chosen { config, mut sql, token, mut notes, stream, first } = choose(config, from.as_ref()).await?;
    let others = from.as_ref().and_then(Position::source).map(|p| p.notes.clone()).unwrap_or_default();
    let log_end = clock::log_end(&mut sql).await?;
    let retention = retention::of(&mut sql).await?;
    let survey = discover::survey(&mut sql, &config.selection, None).await?;
    let mut tables = survey.tables;
    named_tables(&config, &tables, &survey.refused, &others)?;
    let left = |id: &TableId| notes.tables.get(&id.to_string()).is_none_or(|note| !note.done);
    if config.snapshot.mode == SnapshotMode::Initial && tables.keys().any(left) {
        discover::estimates(&mut sql, &config.selection, &mut tables).await?;
    }
    let mut quarantine = Quarantine::new(Arc::clone(shown), &others);
    quarantine.refuse(survey.refused, token.ts_us);
    let kin = match discover::logs_cascades(&mut sql).await? {
        true => Kin::default(),
        false => Kin::new(&config.selection, survey.cascades),
    };
    let metadata = sql.text("ask for binlog_row_metadata", "SELECT @@GLOBAL.binlog_row_metadata").await?;
    tracing::info!(
        source = config.name,
        server = sql.version.text,
        host = config.address.host,
        tables = tables.len(),
        file = token.place.file,
        pos = token.place.pos,
        "streaming from the binlog"
    );
    let mut reshaped = notes.reshape(&config.selection);
    if config.snapshot.mode == SnapshotMode::Initial {
        reshaped.extend(notes.returned(|id| config.selection.selects(id)));
    }
    check::shapes(&config, &tables)?;
    let mut timeline = Timeline::new(config.selection.clone(), tables, notes.schemas.clone());
    let added = reader::statement::noted_tables(&others, reader::statement::ADDED);
    added.iter().for_each(|id| timeline.adds_columns(id));
    timeline.nameless(metadata.is_none_or(|m| !m.eq_ignore_ascii_case("FULL")));
    let (written, board) = (beside.written.get().cloned(), Arc::clone(&beside.board));
    let snapshot = match config.snapshot.mode {
        SnapshotMode::Initial => Snapshot::new(Arc::clone(&config), &timeline, &notes, written, board)?,
        SnapshotMode::Never => {
            let server = Arc::new(Server(Arc::clone(&config)));
            Snapshot::none(Arc::clone(&config), server, &notes, written, board)
        }
    };
    // Also what is paused, and so does nothing, is shown.
    snapshot.publish();
    if !snapshot.is_done() {
        tracing::info!(
            source = config.name,
            tables = snapshot.tables_left(),
            "snapshot: reading existing rows"
        );
    }
    Ok(MySqlReader::new(reader::Start {
        config,
        stream,
        first,
        retention,
        purge: Arc::clone(&beside.purge),
        sql,
        timeline,
        snapshot,
        quarantine,
        kin,
        gone: reader::statement::noted_tables(&others, reader::statement::GONE),
        added,
        token,
        inbox: Arc::clone(&beside.inbox),
        signal: notes.signal,
        notes: reshaped,
        log_end,
    }))
}

/// Tables that the configuration names must be there, unless they were captured before, or are set aside.
fn named_tables(
    config: &Resolved,
    tables: &BTreeMap<TableId, Table>,
    refused: &BTreeMap<TableId, Error>,
    notes: &BTreeMap<String, Option<String>>,
) -> Result<()> {
    let missing = |id: &TableId| !refused.contains_key(id) && !notes.contains_key(&table_note(id));
    check::named_tables(config, tables, missing)
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
        server: Some(sql.identity.clone()),
        mark: 0,
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
    if let Some(dir) = &config.snapshot.spool_dir {
        options.spool_dir.clone_from(dir);
    }
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

/// For the stream: encrypted if the connections for SQL are.
fn stream_endpoint(config: &Resolved, encrypted: bool) -> Result<Endpoint> {
    let mut endpoint = client::endpoint(config)?;
    if endpoint.tls.mode == tls::TlsMode::Preferred {
        endpoint.tls.mode = if encrypted { tls::TlsMode::Required } else { tls::TlsMode::Disabled };
    }
    Ok(endpoint)
}
