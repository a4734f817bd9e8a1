//! Tables behind the server: what the connector asks for is recognised by its words, and answered from memory.
//!
//! It is a model of what those statements mean, not a SQL engine: a SELECT names one of the tables, whatever else it joins; its conditions are
//! `name = @P`, `name >= @P` and `name < @P`. Rows get a rowversion with each change, and changes are remembered for Change Tracking and Change Data Capture.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use super::{Certificate, End, Options, Refusal, Reply, Request, Rows, Server, Ty, Value};

/// The login.
pub const USER: &str = "caudal";
/// Its password.
pub const PASSWORD: &str = "Tds-Secret-1";
/// The database.
pub const DATABASE: &str = "VAD10";

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: Ty,
    /// The same as the server describes it.
    pub native: String,
    /// Whether it is of the primary key.
    pub is_key: bool,
    /// Whether it gets a new number with each change.
    pub is_rowversion: bool,
}

/// A column by its native type: `nvarchar(40)`.
#[must_use]
pub fn column(name: &str, native: &str) -> Column {
    let (base, arguments) = native.split_once('(').unwrap_or((native, ""));
    let numbers: Vec<u16> =
        arguments.trim_end_matches(')').split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let n = |at: usize, default: u16| numbers.get(at).copied().unwrap_or(default);
    let is_max = arguments.starts_with("max");
    let ty = match base {
        "bit" => Ty::Bit,
        "tinyint" => Ty::TinyInt,
        "smallint" => Ty::SmallInt,
        "int" => Ty::Int,
        "bigint" => Ty::BigInt,
        "real" => Ty::Real,
        "float" => Ty::Float,
        "decimal" | "numeric" => Ty::Decimal(n(0, 18) as u8, n(1, 0) as u8),
        "money" => Ty::Money,
        "smallmoney" => Ty::SmallMoney,
        "date" => Ty::Date,
        "time" => Ty::Time(n(0, 7) as u8),
        "datetime" => Ty::DateTime,
        "smalldatetime" => Ty::SmallDateTime,
        "datetime2" => Ty::DateTime2(n(0, 7) as u8),
        "datetimeoffset" => Ty::DateTimeOffset(n(0, 7) as u8),
        "uniqueidentifier" => Ty::Guid,
        "varchar" | "char" if !is_max => Ty::VarChar(n(0, 30)),
        "varchar" => Ty::VarCharMax,
        "nvarchar" | "nchar" if !is_max => Ty::NVarChar(n(0, 30)),
        "xml" | "nvarchar" => Ty::NVarCharMax,
        "varbinary" if !is_max => Ty::VarBinary(n(0, 30)),
        "binary" => Ty::Binary(n(0, 30)),
        "timestamp" => Ty::Binary(8),
        _ => Ty::VarBinaryMax,
    };
    Column {
        name: name.to_owned(),
        ty,
        native: native.to_owned(),
        is_key: false,
        is_rowversion: base == "timestamp",
    }
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows.
    pub rows: Vec<Vec<Value>>,
    /// Version, whether the row was deleted, and the row as it was then: of each change.
    changes: Vec<(u64, bool, Vec<Value>)>,
    /// The oldest version that Change Tracking keeps; none: it is not enabled.
    pub tracked_from: Option<u64>,
    /// Whether Change Data Capture has an instance `dbo_<name>`.
    pub is_captured: bool,
    /// The oldest version that it keeps.
    pub captured_from: u64,
}

/// What the server holds.
#[derive(Default)]
pub struct State {
    /// By name, without the schema.
    pub tables: BTreeMap<String, Table>,
    /// The newest version of any row.
    pub version: u64,
    /// The oldest version that a transaction which goes on may still commit.
    pub active_from: Option<u64>,
    /// Statements that came.
    pub asked: Vec<Request>,
    instead: Option<Instead>,
}

type Instead = Box<dyn FnMut(&Request) -> Option<Vec<Reply>> + Send>;

/// A running server with tables; dropping it ends it.
pub struct Mssql {
    /// Its port.
    pub port: u16,
    state: Arc<Mutex<State>>,
    _server: Server,
}

impl Mssql {
    /// Starts one that does not encrypt.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> Result<Self> {
        Self::start_with("127.0.0.1", 0, None, false).await
    }

    /// Starts one on an address of this machine, and a port (0: a free one).
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start_with(
        host: &str,
        port: u16,
        certificate: Option<Certificate>,
        insists: bool,
    ) -> Result<Self> {
        let state: Arc<Mutex<State>> = Arc::default();
        let options = Options {
            user: USER.to_owned(),
            password: PASSWORD.to_owned(),
            database: DATABASE.to_owned(),
            certificate,
            insists,
        };
        let shared = Arc::clone(&state);
        let handler = move |request: &Request| lock(&shared).answer(request);
        let server = Server::start(host, port, options, Arc::new(handler)).await?;
        Ok(Self { port: server.port, state, _server: server })
    }

    /// Its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("sqlserver://{USER}:{PASSWORD}@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// What it holds.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Makes a table without rows. `key`: how many of the first columns are its primary key.
    pub fn create(&self, table: &str, columns: Vec<Column>, key: usize) {
        let columns =
            columns.into_iter().enumerate().map(|(i, column)| Column { is_key: i < key, ..column }).collect();
        self.state().tables.insert(table.to_owned(), Table { columns, ..Table::default() });
    }

    /// Inserts a row, or replaces the one with its key. A rowversion is set.
    pub fn put(&self, table: &str, row: Vec<Value>) {
        self.state().put(table, row);
    }

    /// Deletes rows by their key's first column.
    pub fn delete(&self, table: &str, key: &Value) {
        let mut state = self.state();
        state.version += 1;
        let version = state.version;
        let Some(table) = state.tables.get_mut(table) else { return };
        let (gone, kept) =
            std::mem::take(&mut table.rows).into_iter().partition(|row: &Vec<Value>| row[0] == *key);
        table.rows = kept;
        table.changes.extend(gone.into_iter().map(|row| (version, true, row)));
    }

    /// Answers this where it is something; none: as usual.
    pub fn instead(&self, instead: impl FnMut(&Request) -> Option<Vec<Reply>> + Send + 'static) {
        self.state().instead = Some(Box::new(instead));
    }

    /// Answers as usual again.
    pub fn as_usual(&self) {
        self.state().instead = None;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A result of few rows.
fn small(columns: &[(&str, Ty)], rows: Vec<Vec<Value>>) -> Vec<Reply> {
    let columns = columns.iter().map(|(name, ty)| ((*name).to_owned(), *ty)).collect();
    vec![Reply::Rows(columns, Box::new(rows.into_iter()), End::Done)]
}

fn refused(number: u32, class: u8, message: &str) -> Vec<Reply> {
    vec![Reply::Error(Refusal::new(number, class, message))]
}

fn micros_now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn rowversion(n: u64) -> Value {
    Value::Bytes(n.to_be_bytes().to_vec())
}

/// A log sequence number.
fn lsn(n: u64) -> Value {
    Value::Bytes([&[0, 0][..], &n.to_be_bytes()].concat())
}

fn text(value: Option<&Value>) -> &str {
    match value {
        Some(Value::Text(text)) => text,
        _ => "",
    }
}

impl State {
    fn put(&mut self, table: &str, mut row: Vec<Value>) {
        self.version += 1;
        let version = self.version;
        let Some(table) = self.tables.get_mut(table) else { return };
        for (column, value) in table.columns.iter().zip(&mut row) {
            if column.is_rowversion {
                *value = rowversion(version);
            }
        }
        let keys: Vec<usize> = (0..table.columns.len()).filter(|at| table.columns[*at].is_key).collect();
        table.changes.push((version, false, row.clone()));
        match table.rows.iter_mut().find(|old| !keys.is_empty() && keys.iter().all(|at| old[*at] == row[*at]))
        {
            Some(old) => *old = row,
            None => table.rows.push(row),
        }
    }

    fn answer(&mut self, request: &Request) -> Vec<Reply> {
        // Bound: what a test looks at.
        if self.asked.len() < 10_000 {
            self.asked.push(request.clone());
        }
        if let Some(mut instead) = self.instead.take() {
            let reply = instead(request);
            self.instead = Some(instead);
            if let Some(reply) = reply {
                return reply;
            }
        }
        let Request { sql, params, .. } = request;
        let has = |word: &str| sql.contains(word);
        let first = text(params.first());
        match () {
            () if !request.is_call => vec![Reply::Done(0)],
            () if has("SYSUTCDATETIME") => {
                let now = Value::Int(micros_now());
                small(&[("", Ty::BigInt), ("", Ty::BigInt)], vec![vec![now.clone(), now]])
            }
            () if has("SERVERPROPERTY") => {
                let row = vec![
                    Value::Text("16.0.1000.6".into()),
                    Value::Text("Developer Edition".into()),
                    Value::Int(1),
                ];
                small(&[("", Ty::NVarChar(40)), ("", Ty::NVarChar(60)), ("", Ty::Int)], vec![row])
            }
            () if has("dm_exec_describe_first_result_set") => self.describe(first),
            () if has("sys.indexes") => {
                let table = self.named(first);
                let key = table.iter().flat_map(|(_, table)| &table.columns).filter(|column| column.is_key);
                small(
                    &[("name", Ty::NVarChar(128))],
                    key.map(|c| vec![Value::Text(c.name.clone())]).collect(),
                )
            }
            () if has("MIN_ACTIVE_ROWVERSION") => {
                let from = self.active_from.unwrap_or(self.version + 1);
                small(&[("", Ty::Binary(8))], vec![vec![rowversion(from)]])
            }
            () if has("CHANGE_TRACKING_MIN_VALID_VERSION") => {
                let oldest = self.named(first).and_then(|(_, table)| table.tracked_from);
                let oldest = oldest.map_or(Value::Null, |n| Value::Int(n as i64));
                match has("CHANGE_TRACKING_CURRENT_VERSION") {
                    true => small(
                        &[("", Ty::BigInt), ("", Ty::BigInt)],
                        vec![vec![Value::Int(self.version as i64), oldest]],
                    ),
                    false => small(&[("", Ty::BigInt)], vec![vec![oldest]]),
                }
            }
            () if has("fn_cdc_get_min_lsn") => {
                let is_meant =
                    |(name, table): &(&String, &Table)| table.is_captured && format!("dbo_{name}") == first;
                let oldest = self.tables.iter().find(is_meant);
                let oldest = oldest.map_or(Value::Null, |(_, table)| lsn(table.captured_from.max(1)));
                small(&[("", Ty::Binary(10)), ("", Ty::Binary(10))], vec![vec![oldest, lsn(self.version)]])
            }
            () if has("CHANGETABLE(CHANGES") => self.tracked(sql, params),
            () if has("fn_cdc_get_all_changes_") => self.captured(sql, params),
            () => self.select(sql, params),
        }
    }

    /// The table that some SQL names.
    fn named(&self, sql: &str) -> Option<(&String, &Table)> {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        self.tables.iter().find(|(name, _)| sql.split(|c| !is_word(c)).any(|word| word == name.as_str()))
    }

    fn describe(&self, sql: &str) -> Vec<Reply> {
        let columns = [
            ("name", Ty::NVarChar(128)),
            ("type", Ty::NVarChar(256)),
            ("nullable", Ty::Int),
            ("error", Ty::Int),
            ("message", Ty::NVarChar(2000)),
        ];
        let Some((_, table)) = self.named(sql) else {
            let message = Value::Text("Invalid object name.".into());
            return small(
                &columns,
                vec![vec![Value::Null, Value::Null, Value::Null, Value::Int(208), message]],
            );
        };
        let one = |c: &Column| {
            let nullable = Value::Int(i64::from(!c.is_key));
            vec![
                Value::Text(c.name.clone()),
                Value::Text(c.native.clone()),
                nullable,
                Value::Null,
                Value::Null,
            ]
        };
        small(&columns, table.columns.iter().map(one).collect())
    }

    fn select(&self, sql: &str, params: &[Value]) -> Vec<Reply> {
        let Some((_, table)) = self.named(sql) else { return refused(208, 16, "Invalid object name.") };
        let conditions = conditions(sql, table);
        let meets = |row: &&Vec<Value>| {
            conditions
                .iter()
                .all(|(at, compare, param)| compare.holds(table.columns[*at].ty, &row[*at], &params[*param]))
        };
        let rows: Vec<Vec<Value>> = match sql.contains("TOP (0)") {
            true => Vec::new(),
            false => table.rows.iter().filter(meets).cloned().collect(),
        };
        let mut columns = sent(table);
        let mut rows: Rows = Box::new(rows.into_iter());
        if sql.contains("[caudal_gone]") {
            columns.insert(0, ("caudal_gone".to_owned(), Ty::Int));
            rows = Box::new(rows.map(|row| [vec![Value::Int(0)], row].concat()));
        }
        vec![Reply::Rows(columns, rows, End::Done)]
    }

    /// The last change of each key since a version, with the row as it is now.
    fn tracked(&self, sql: &str, params: &[Value]) -> Vec<Reply> {
        let Some((_, table)) = self.named(sql) else { return refused(208, 16, "Invalid object name.") };
        let (Value::Int(since), Value::Int(up_to)) = (&params[0], &params[1]) else {
            return refused(102, 15, "");
        };
        let mut last: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (version, _, row) in &table.changes {
            if (*since as u64) < *version && *version <= *up_to as u64 {
                last.insert(format!("{:?}", row[0]), row.clone());
            }
        }
        let rows: Vec<Vec<Value>> = last
            .into_values()
            .map(|was| match table.rows.iter().find(|row| row[0] == was[0]) {
                Some(row) => [vec![Value::Int(0)], row.clone()].concat(),
                None => gone(table, &was),
            })
            .collect();
        with_gone(table, rows)
    }

    /// All changes within a range, in order.
    fn captured(&self, sql: &str, params: &[Value]) -> Vec<Reply> {
        let name = self.tables.keys().find(|name| sql.contains(&format!("dbo_{name}]")));
        let Some(table) = name.and_then(|name| self.tables.get(name)) else {
            return refused(208, 16, "Invalid object name.");
        };
        let within = |version: u64| {
            let (Value::Bytes(from), Value::Bytes(to)) = (&params[0], &params[1]) else { return false };
            let Value::Bytes(at) = lsn(version) else { return false };
            *from <= at && at <= *to
        };
        let one = |(_, is_gone, row): &(u64, bool, Vec<Value>)| {
            [vec![Value::Int(i64::from(*is_gone))], row.clone()].concat()
        };
        with_gone(table, table.changes.iter().filter(|(version, ..)| within(*version)).map(one).collect())
    }
}

fn gone(table: &Table, was: &[Value]) -> Vec<Value> {
    let key = |(column, value): (&Column, &Value)| if column.is_key { value.clone() } else { Value::Null };
    [vec![Value::Int(1)], table.columns.iter().zip(was).map(key).collect()].concat()
}

fn with_gone(table: &Table, rows: Vec<Vec<Value>>) -> Vec<Reply> {
    let mut columns = sent(table);
    columns.insert(0, ("caudal_gone".to_owned(), Ty::Int));
    vec![Reply::Rows(columns, Box::new(rows.into_iter()), End::Done)]
}

/// Columns as they are selected: money as the decimal that it is cast to.
#[must_use]
pub fn sent(table: &Table) -> Vec<(String, Ty)> {
    let ty = |column: &Column| match column.ty {
        Ty::Money => Ty::Decimal(19, 4),
        Ty::SmallMoney => Ty::Decimal(10, 4),
        ty => ty,
    };
    table.columns.iter().map(|column| (column.name.clone(), ty(column))).collect()
}

#[derive(Clone, Copy)]
enum Compare {
    Equal,
    AtLeast,
    Below,
}

/// Column, comparison, and number of the parameter from 0.
fn conditions(sql: &str, table: &Table) -> Vec<(usize, Compare, usize)> {
    let words: Vec<&str> = sql.split_whitespace().collect();
    let mut found = Vec::new();
    for three in words.windows(3) {
        let name = three[0].rsplit('.').next().unwrap_or_default().trim_matches(['[', ']']);
        let compare = match three[1] {
            "=" => Compare::Equal,
            ">=" => Compare::AtLeast,
            "<" => Compare::Below,
            _ => continue,
        };
        let digits: String = three[2]
            .trim_start_matches("CAST(")
            .trim_start_matches("@P")
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        let column = table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name));
        if let (Some(at), Ok(number), true) = (column, digits.parse::<usize>(), three[2].contains("@P")) {
            found.push((at, compare, number - 1));
        }
    }
    found
}

impl Compare {
    fn holds(self, ty: Ty, value: &Value, param: &Value) -> bool {
        let (value, param) = (ordered(ty, value), ordered(Ty::DateTime2(7), param));
        match self {
            Self::Equal => value == param,
            Self::AtLeast => value.is_some() && value >= param,
            Self::Below => value.is_some() && value < param,
        }
    }
}

#[derive(PartialEq, PartialOrd)]
enum Ordered {
    Number(i128),
    Text(Vec<u8>),
}

/// A value in an order that is the same for a column and a parameter.
fn ordered(ty: Ty, value: &Value) -> Option<Ordered> {
    let day = 864_000_000_000_i128;
    let units = |scale: u8, units: u64| i128::from(units) * 10_i128.pow(7 - u32::from(scale));
    Some(match (ty, value) {
        (_, Value::Null) => return None,
        (_, Value::Int(n)) => Ordered::Number(i128::from(*n)),
        (_, Value::Date(days)) => Ordered::Number(i128::from(*days) * day),
        (Ty::DateTime2(scale), Value::DateTime2(days, n)) => {
            Ordered::Number(i128::from(*days) * day + units(scale, *n))
        }
        (_, Value::DateTime(days, n)) => {
            Ordered::Number(i128::from(*days + 693_595) * day + i128::from(*n) * 100_000 / 3)
        }
        (Ty::DateTimeOffset(scale), Value::DateTimeOffset(days, n, _)) => {
            Ordered::Number(i128::from(*days) * day + units(scale, *n))
        }
        (_, Value::DateTimeOffset(days, n, _)) => Ordered::Number(i128::from(*days) * day + i128::from(*n)),
        (_, Value::Text(text)) => Ordered::Text(text.as_bytes().to_vec()),
        (_, Value::Bytes(bytes)) => Ordered::Text(bytes.clone()),
        _ => return None,
    })
}
