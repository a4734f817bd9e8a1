//! A ready-made step: what a table holds is added to a history of it, once a run or once a day.
//!
//! **Why each is there just once.** The copy, the clearing away of what it replaces and the mark that the job has run are one transaction (see
//! [`crate::after`]): one that a crash cut off left nothing behind and comes again, one that was committed does not. Of several instances an
//! advisory lock lets one run the job.
//!
//! **Memory.** The server copies, by `INSERT … SELECT`; what comes here are the names and types of columns.

use super::{check_tables, named};
use crate::client::{Connection, Failure, Param};
use crate::quote::ident;
use caudal_core::quantity::DurationText;
use caudal_core::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;
use std::time::Duration;
use tokio_postgres::types::Type;

/// The columns in front of the table's own.
const DAY: &str = "snapshot_day";
const AT: &str = "snapshot_at";
const A_DAY: Duration = Duration::from_secs(86_400);

/// A history of a table: all of its rows, each time with `snapshot_day` and `snapshot_at` in front.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The table, or a view.
    pub from: String,
    /// The history, which is made if it is missing. Columns that `from` is given are added; those that it loses are kept.
    pub into: String,
    /// How often.
    #[serde(default)]
    pub per: Per,
    /// With `per: day`, what a further run of a day does.
    #[serde(default)]
    pub same_day: SameDay,
    /// The time zone whose days these are, by its IANA name.
    #[serde(default = "utc")]
    pub zone: String,
    /// How many days are kept, today among them: `90d`. Left out: all.
    #[schemars(with = "Option<String>")]
    pub keep: Option<DurationText>,
}

/// How often a history is added to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// One snapshot of each day on which the tables advanced.
    #[default]
    Day,
    /// One each time that the job runs.
    Run,
}

/// What the next run of a day does to the day's snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameDay {
    /// It takes its place: the day's last state stays.
    #[default]
    Replace,
    /// Nothing: the day's first state stays.
    First,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// A column's name, and its type as SQL.
type Columns = Vec<(String, String)>;

impl Snapshot {
    pub(crate) fn check(&self) -> Result<()> {
        check_tables(&[&self.from, &self.into])?;
        if self.from == self.into {
            return Err(Error::config("`from` and `into` are the same table").hint("name another `into`"));
        }
        if jiff::tz::TimeZone::get(&self.zone).is_err() {
            return Err(Error::config(format!("there is no time zone `{}`", self.zone))
                .hint("zone: America/Caracas, or another name of the IANA database"));
        }
        if self.per == Per::Run && self.same_day == SameDay::First {
            return Err(Error::config("`same_day` with `per: run`, which keeps each")
                .hint("leave `same_day` out, or use `per: day`"));
        }
        match self.keep.map(DurationText::get) {
            Some(keep) if keep < A_DAY || keep.as_secs() % A_DAY.as_secs() != 0 || self.days().is_none() => {
                Err(Error::config("`keep` is no number of days").hint("keep: 90d"))
            }
            _ => Ok(()),
        }
    }

    fn days(&self) -> Option<i32> {
        i32::try_from(self.keep?.get().as_secs() / A_DAY.as_secs()).ok()
    }

    /// Takes it, within the transaction that is open. The outer error is what must be mended in the configuration, the inner one the server's.
    pub(crate) async fn take(&self, connection: &Connection) -> Result<Result<(), Failure>> {
        let columns = match columns(connection, &self.from).await {
            Ok(columns) => columns,
            Err(failure) => return Ok(Err(failure)),
        };
        if columns.is_empty() {
            return Err(Error::config(format!("there is no table {} to take a snapshot of", self.from))
                .hint("correct `from`; a table of the sink is there once it has rows"));
        }
        if let Some((name, _)) = columns.iter().find(|(name, _)| name == DAY || name == AT) {
            return Err(Error::config(format!("{} has a column {name}, as its history has", self.from))
                .hint("take the snapshot of a view that calls it otherwise"));
        }
        Ok(self.copy(connection, &columns).await)
    }

    async fn copy(&self, connection: &Connection, columns: &Columns) -> Result<(), Failure> {
        self.shape(connection, columns).await?;
        let (from, into) = (named(&self.from).unwrap_or_default(), named(&self.into).unwrap_or_default());
        let zone: Param<'_> = (&self.zone, Type::TEXT);
        let today = "(now() AT TIME ZONE $1)::date";
        if let Some(days) = self.days() {
            let sql = format!("DELETE FROM {into} WHERE {DAY} <= {today} - $2");
            connection.execute(&sql, &[zone.clone(), (&days, Type::INT4)]).await?;
        }
        if (self.per, self.same_day) == (Per::Day, SameDay::Replace) {
            let sql = format!("DELETE FROM {into} WHERE {DAY} = {today}");
            connection.execute(&sql, std::slice::from_ref(&zone)).await?;
        }
        let names: Vec<String> = columns.iter().map(|(name, _)| ident(name)).collect();
        let names = names.join(", ");
        let only = match self.same_day {
            SameDay::First => format!(" WHERE NOT EXISTS (SELECT 1 FROM {into} WHERE {DAY} = {today})"),
            SameDay::Replace => String::new(),
        };
        let sql = format!(
            "INSERT INTO {into} ({DAY}, {AT}, {names}) SELECT {today}, now(), {names} FROM {from}{only}"
        );
        connection.execute(&sql, &[zone]).await.map(drop)
    }

    /// Makes the history, or gives it the columns that it lacks, and the wider types that the table's have become. Where
    /// the table's became narrower, the history's stay: it holds more than that.
    async fn shape(&self, connection: &Connection, columns: &Columns) -> Result<(), Failure> {
        let into = named(&self.into).unwrap_or_default();
        let front = [(DAY, "date"), (AT, "timestamp with time zone")];
        let front = front.map(|(name, kind)| (name.to_owned(), kind.to_owned()));
        let there = self::columns(connection, &self.into).await?;
        let mut changes = Vec::new();
        for (name, kind) in front.iter().chain(columns) {
            let quoted = ident(name);
            match there.iter().find(|(other, _)| other == name) {
                None if there.is_empty() => changes.push(format!("{quoted} {kind}")),
                None => changes.push(format!("ADD COLUMN {quoted} {kind}")),
                Some((_, other)) if other != kind && is_wider(connection, kind, other).await? => {
                    changes.push(format!("ALTER COLUMN {quoted} TYPE {kind}"));
                }
                Some(_) => {}
            }
        }
        let changes = changes.join(", ");
        if there.is_empty() {
            return connection
                .batch(&format!("CREATE TABLE {into} ({changes}); CREATE INDEX ON {into} ({DAY})"))
                .await;
        }
        if changes.is_empty() {
            Ok(())
        } else {
            connection.batch(&format!("ALTER TABLE {into} {changes}")).await
        }
    }
}

/// Whether values of the type `than` become such of `kind` by themselves.
async fn is_wider(connection: &Connection, kind: &str, than: &str) -> Result<bool, Failure> {
    let sql = "SELECT $2::text::regtype = 'text'::regtype OR EXISTS (SELECT 1 FROM pg_cast \
         WHERE castsource = $1::text::regtype AND casttarget = $2::text::regtype AND castcontext = 'i')";
    let rows = connection.query(sql, &[(&than, Type::TEXT), (&kind, Type::TEXT)]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// A table's columns in their order, with their types less lengths and digits: a history outlives those. None if there is no such table.
async fn columns(connection: &Connection, table: &str) -> Result<Columns, Failure> {
    let sql = "SELECT attname::text, format_type(atttypid, -1) FROM pg_attribute \
         WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum";
    let table = named(table).unwrap_or_default();
    let rows = connection.query(sql, &[(&table, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
