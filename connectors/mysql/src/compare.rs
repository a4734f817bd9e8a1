//! The source's side of `caudal verify`: digests that the server makes itself, and rows read as the snapshot reads them.
//!
//! Every statement is one consistent read with a bound on its time. Memory: the rows asked for, about the bytes asked for and one row.

use crate::client::{Client, quoted, row_text};
use crate::config::Resolved;
use crate::discover;
use crate::position::Place;
use crate::schema::Timeline;
use crate::snapshot::bounds::{Part, Stored, key_parameters};
use crate::snapshot::chunk::{self, Cut, Job, Read};
use crate::snapshot::plan::Plan;
use crate::value::Value;
use async_trait::async_trait;
use caudal_core::compare::{Bound, Digest, Range, Rows, SourceSide};
use caudal_core::{Column, ColumnType, Error, Position, Result, SourcePosition, TableId, TableSchema};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Bound on one statement.
const LIMIT: Duration = Duration::from_secs(60);
/// Rows read at once at most.
const MOST_ROWS: u32 = 20_000;

/// One comparison's connection and plans.
pub(crate) struct Side {
    config: Arc<Resolved>,
    client: Client,
    plans: BTreeMap<TableId, Arc<Plan>>,
}

impl Side {
    /// Looks at the tables that the configuration selects.
    pub(crate) async fn open(config: &Arc<Resolved>, mut client: Client) -> Result<Self> {
        let tables = discover::survey(&mut client, &config.selection, None).await?.tables;
        let timeline = Timeline::new(config.selection.clone(), tables, BTreeMap::new());
        let plan = |known| Plan::new(known, timeline.selection()).map(Arc::new);
        let plans = timeline.tables().map(|(id, known)| Ok((id.clone(), plan(known)?)));
        let plans = plans.collect::<Result<_>>()?;
        Ok(Self { config: Arc::clone(config), client, plans })
    }

    fn plan(&self, table: &TableId) -> Result<Arc<Plan>> {
        let plan = self.plans.get(table).cloned();
        plan.ok_or_else(|| Error::config(format!("{table} is not captured by source {}", self.config.name)))
    }
}

fn parts(plan: &Plan) -> Result<&[Part]> {
    plan.parts.as_deref().ok_or_else(|| Error::bug("compare a table without a usable key"))
}

fn values(bound: Option<&Bound>) -> Result<Option<Vec<Value>>> {
    let Some(bound) = bound else { return Ok(None) };
    let stored: Vec<Stored> =
        serde_json::from_str(&bound.token).map_err(|e| Error::bug("read a bound").because(e))?;
    let values: Option<Vec<Value>> = stored.iter().map(Stored::to_value).collect();
    values.map(Some).ok_or_else(|| Error::bug("read a bound"))
}

fn bound(values: &[Value]) -> Bound {
    let stored: Vec<Stored> = values.iter().map(Stored::from_value).collect();
    let number = |value: &Value| match value {
        Value::Int(n) => Some(i128::from(*n)),
        Value::UInt(n) => Some(i128::from(*n)),
        _ => None,
    };
    Bound {
        token: serde_json::to_string(&stored).unwrap_or_default(),
        numbers: values.iter().map(number).collect(),
    }
}

#[async_trait]
impl SourceSide for Side {
    async fn tables(&mut self) -> Result<Vec<(TableSchema, bool)>> {
        Ok(self.plans.values().map(|plan| (plan.schema.as_ref().clone(), plan.parts.is_some())).collect())
    }

    async fn now_us(&mut self) -> Result<i64> {
        self.client.revive().await?;
        let sql = "SELECT CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED)";
        let text = self.client.text("ask for the source's time", sql).await?;
        text.and_then(|t| t.parse().ok()).ok_or_else(|| Error::transient("the source did not tell its time"))
    }

    async fn cut(&mut self, table: &TableId, from: Option<&Bound>, rows: u64) -> Result<Option<Bound>> {
        let plan = self.plan(table)?;
        let from = values(from)?;
        match chunk::cut(&mut self.client, &plan, from.as_deref(), rows, LIMIT).await? {
            Cut::At(values) => Ok(Some(bound(&values))),
            Cut::Nowhere => Ok(None),
            Cut::Unknown => Err(changing(table)),
        }
    }

    async fn digest(&mut self, table: &TableId, range: &Range) -> Result<Digest> {
        let plan = self.plan(table)?;
        let (from, to) = (values(range.from.as_ref())?, values(range.to.as_ref())?);
        chunk::limits(&mut self.client, LIMIT).await?;
        let texts: Option<Vec<String>> = plan.schema.columns.iter().map(canonical).collect();
        let texts = texts.ok_or_else(|| Error::bug("the digest of a column without a canonical text"))?;
        let marked = |text: &String| format!("COALESCE(CONCAT(CHAR_LENGTH({text}), ':', {text}), 'N')");
        let row = texts.iter().map(marked).collect::<Vec<_>>().join(", ");
        // 15 digits are 60 bits: a sum of them is exact.
        let number = format!("CAST(CONV(LEFT(MD5(CONCAT({row})), 15), 16, 10) AS UNSIGNED)");
        let sql = plan.sum(parts(&plan)?, (from.as_deref(), to.as_deref()), &number);
        let parameters: Vec<Value> =
            [from, to].iter().flatten().flat_map(|key| key_parameters(key)).collect();
        let doing = format!("ask for the digest of rows of {table}");
        let rows = self.client.bound_rows(&doing, &sql, parameters).await?;
        let told = rows.first().and_then(|row| Some((row_text(row, 0)?.parse().ok()?, row_text(row, 1)?)));
        let (rows, sum) = told.ok_or_else(|| Error::transient(format!("{doing}: no answer")))?;
        Ok(Digest { rows, sum })
    }

    async fn rows(&mut self, table: &TableId, range: &Range, bytes: usize) -> Result<Rows> {
        let plan = self.plan(table)?;
        chunk::limits(&mut self.client, LIMIT).await?;
        let job = Job {
            plan,
            from: values(range.from.as_ref())?,
            to: values(range.to.as_ref())?,
            filter: None,
            rows: MOST_ROWS,
            bytes,
            delivered: Place { gtid: None, file: String::new(), pos: 0 },
            limit: LIMIT,
        };
        match chunk::select(&mut self.client, &job).await? {
            Read::Chunk(chunk) => {
                let more = chunk.last.as_deref().filter(|_| !chunk.end).map(bound);
                let batch = chunk.builder.build(Position::Source(SourcePosition::default()), None);
                Ok(Rows { batch, more })
            }
            Read::TooSlow => Err(Error::transient(format!("reading rows of {table} took over {LIMIT:?}"))
                .hint("try again with smaller --chunk-rows")),
            Read::Changed(_) => Err(changing(table)),
        }
    }

    fn condition(&self, schema: &TableSchema, keys: &[Vec<String>]) -> Option<String> {
        let key = |key: &Vec<String>| {
            let term = |(column, text): (&Column, &String)| {
                Some(format!("{} = {}", quoted(&column.name), literal(&column.ty, text)?))
            };
            let terms: Option<Vec<String>> = schema.key_columns().zip(key).map(term).collect();
            Some(format!("({})", terms?.join(" AND ")))
        };
        let keys: Option<Vec<String>> = keys.iter().map(key).collect();
        keys.map(|keys| keys.join(" OR "))
    }

    async fn count(&mut self, table: &TableId, condition: &str) -> Result<Option<u64>> {
        let plan = self.plan(table)?;
        self.client.revive().await?;
        chunk::limits(&mut self.client, LIMIT).await?;
        let captured = plan.shape.condition().map_or_else(String::new, |c| format!(" AND ({c})"));
        let sql = format!("SELECT COUNT(*) FROM {} WHERE ({condition}){captured}", plan.name());
        let text = self.client.text(&format!("count rows of {table}"), &sql).await?;
        Ok(text.and_then(|text| text.parse().ok()))
    }
}

fn changing(table: &TableId) -> Error {
    Error::transient(format!("{table} is being changed or locked")).hint("try again when that is over")
}

/// A key's value in SQL, of the text that the sink gave.
fn literal(ty: &ColumnType, text: &str) -> Option<String> {
    match ty {
        ColumnType::Int { .. } | ColumnType::UInt { .. } | ColumnType::Year | ColumnType::Decimal { .. } => {
            let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.'));
            plain.then(|| text.to_owned())
        }
        ColumnType::Text { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Date
        | ColumnType::DateTime { .. }
        | ColumnType::Uuid => Some(format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))),
        ColumnType::Bytes { .. } => text.strip_prefix("\\x").map(|hex| format!("X'{hex}'")),
        _ => None,
    }
}

/// The text of a column, as `caudal_core::compare` says; none where there is no such.
fn canonical(column: &Column) -> Option<String> {
    if !caudal_core::compare::has_canonical_text(&column.ty) {
        return None;
    }
    let name = quoted(&column.name);
    let text = |value: String| format!("CAST({value} AS CHAR CHARACTER SET utf8mb4)");
    Some(match &column.ty {
        // Zeros of ZEROFILL are display.
        ColumnType::Bool
        | ColumnType::Int { .. }
        | ColumnType::UInt { .. }
        | ColumnType::Year
        | ColumnType::Decimal { .. } => text(format!("{name}+0")),
        ColumnType::Text { .. } | ColumnType::Enum { .. } | ColumnType::Set { .. } => {
            format!("CONVERT({name} USING utf8mb4)")
        }
        ColumnType::Bytes { .. } => format!("LOWER(HEX({name}))"),
        ColumnType::Date => format!("NULLIF({}, '0000-00-00')", text(name)),
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            let written = format!("DATE_FORMAT({name}, '%Y-%m-%d %H:%i:%s.%f')");
            format!("NULLIF({}, '0000-00-00 00:00:00.000000')", text(written))
        }
        ColumnType::Time { precision: 0 } => text(name),
        ColumnType::Time { .. } => {
            format!("TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {}))", text(name))
        }
        ColumnType::Uuid => text(name),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_into_conditions_as_values_and_never_as_sql() {
        assert_eq!(literal(&ColumnType::Int { bits: 32 }, "-5").as_deref(), Some("-5"));
        assert_eq!(literal(&ColumnType::Int { bits: 32 }, "1 OR 1=1"), None);
        let text = ColumnType::Text { max_chars: None };
        assert_eq!(literal(&text, r"a'b\").as_deref(), Some(r"'a''b\\'"));
        let bytes = ColumnType::Bytes { max_bytes: None, fixed: false };
        assert_eq!(literal(&bytes, "\\x00ff").as_deref(), Some("X'00ff'"));
    }

    #[test]
    fn bounds_of_integers_are_known_to_both_ends() {
        assert_eq!(
            bound(&[Value::Int(-1), Value::UInt(u64::MAX)]).numbers,
            Some(vec![-1, i128::from(u64::MAX)])
        );
        assert_eq!(bound(&[Value::Bytes(vec![1])]).numbers, None);
        assert_eq!(values(Some(&bound(&[Value::Int(7)]))).unwrap(), Some(vec![Value::Int(7)]));
    }
}
