//! Where Caudal's records are not Debezium's, in the profile `debezium-3.5`: the whole list. `docs/formats.md` tells each to users
//! under the name that it has here; a test holds the two against each other.

use crate::json::Json;

/// What a difference is looked at with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The topic after the prefix: `""`, `.transaction`, `.shop_1.numbers`.
    pub topic: &'a str,
    /// Member names with dots: `after.f`.
    pub path: &'a str,
    /// Whether a snapshot read the row.
    pub is_read: bool,
    /// Whether the table was emptied.
    pub is_truncate: bool,
    /// Whether the server is a MySQL, whose transactions are compressed.
    pub is_mysql: bool,
}

/// Names of the deviations, and what users are told.
pub(crate) const ALL: &[(&str, &str)] = &[
    ("snapshot-place", "rows of a snapshot: position, time and mark of their own read"),
    ("null-default", "NULL in a column with a default: Debezium's records hold the default"),
    ("json-text", "JSON of the binlog: as the server writes it in queries"),
    ("enum-comma", "labels with a comma: Debezium escapes them in the stream"),
    ("uuid", "MariaDB's UUID in the stream: Debezium shifts its digits"),
    (
        "float-text",
        "floats: the shortest digits of the value; Debezium's snapshot rounds, its Java writes more",
    ),
    ("keyless-partition", "records without a key: any partition"),
    ("truncate", "TRUNCATE: one record in each partition, with a key where the topic is compacted"),
    ("schema-snapshot", "schema changes: none for what a snapshot finds"),
    ("schema-text", "schema changes: the statement as it was logged; row 0; sizes as the server tells them"),
    (
        "schema-shape",
        "schema changes: the shape after the statement, where it is known when the statement is logged",
    ),
    ("re-read", "rows that a statement changed without logging them are read again"),
    (
        "row-compressed",
        "rows of a compressed transaction are counted on over its events, which share one position",
    ),
    ("transaction-tables", "the tables of a transaction in the order of their names"),
    (
        "transaction-time",
        "MariaDB: a transaction begins at its own time; Debezium tells that of the one before",
    ),
    ("transaction-empty", "transactions without a captured row are not announced"),
    ("notification-order", "notifications: what they are about in the order of its names"),
    ("heartbeat-count", "heartbeats: their number and times"),
];

/// The deviation that a difference of one value is; none if it is not one of the list.
pub(crate) fn of(place: Place<'_>, theirs: &Json, ours: &Json) -> Option<&'static str> {
    let leaf = place.path.rsplit('.').next().unwrap_or_default();
    let in_source = place.path.starts_with("source.");
    let in_row = place.path.starts_with("after.") || place.path.starts_with("before.");
    if place.topic.is_empty() {
        if place.path == "tableChanges" {
            return Some("schema-shape");
        }
        if place.path.starts_with("tableChanges.table") && !matches!(leaf, "length" | "comment") {
            return Some("schema-shape");
        }
        let told = place.path == "ddl" || place.path == "source.row" || leaf == "length" || leaf == "comment";
        return told.then_some("schema-text");
    }
    if place.topic == ".transaction" {
        return match place.path {
            "ts_ms" if !place.is_mysql => Some("transaction-time"),
            path if path.starts_with("data_collections.") => Some("transaction-tables"),
            _ => None,
        };
    }
    if place.is_truncate
        && matches!(place.path, "source.ts_us" | "source.ts_ns" | "source.thread" | "transaction")
    {
        return Some("truncate");
    }
    if place.path == "source.row" && !place.is_read && place.is_mysql {
        return Some("row-compressed");
    }
    if place.is_read
        && in_source
        && matches!(
            leaf,
            "ts_ms" | "ts_us" | "ts_ns" | "snapshot" | "file" | "pos" | "gtid" | "thread" | "server_id"
        )
    {
        return Some("snapshot-place");
    }
    if !in_row {
        return None;
    }
    let (theirs, ours) = (theirs.text(), ours.text());
    let has_default = |table: &str, columns: &[&str]| place.topic.ends_with(table) && columns.contains(&leaf);
    if ours == "null" && (has_default(".texts", &["v", "e"]) || has_default(".order_lines", &["qty"])) {
        return Some("null-default");
    }
    if leaf == "j" && same_json(theirs, ours) {
        return Some("json-text");
    }
    if leaf == "e" && theirs.replace("\\\\", "") == ours {
        return Some("enum-comma");
    }
    if place.topic.ends_with(".own") && leaf == "u" && !place.is_read {
        return Some("uuid");
    }
    if leaf == "f" && if place.is_read { near(theirs, ours) } else { is_one_float(theirs, ours) } {
        return Some("float-text");
    }
    None
}

/// Equal but for blanks and the fraction of a time.
fn same_json(a: &str, b: &str) -> bool {
    let bare = |text: &str| {
        text.replace(' ', "").replace("01.500000", "01.5").replace("100000000000000000000", "1e20")
    };
    bare(a) == bare(b)
}

/// Equal to six digits.
fn near(a: &str, b: &str) -> bool {
    let (Ok(a), Ok(b)) = (a.parse::<f64>(), b.parse::<f64>()) else { return false };
    (a - b).abs() <= a.abs().max(b.abs()) * 1e-5
}

/// Two texts of one 32-bit number.
fn is_one_float(a: &str, b: &str) -> bool {
    a.parse::<f32>().is_ok_and(|a| b.parse() == Ok(a))
}
