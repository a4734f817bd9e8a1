//! CloudEvents 1.0 in structured JSON, with Debezium's extension attributes. `data` has the images; the source block is spread over
//! attributes, where numbers of 64 bits are strings.

use crate::encode::change::Change;
use crate::encode::{json, text, value};
use caudal_core::Result;
use caudal_core::temporal::{MICROS_PER_DAY, civil_from_days};

pub(crate) fn value(out: &mut Vec<u8>, change: &Change<'_>) -> Result<()> {
    let (event, plan, transaction) = (change.event, change.plan, change.transaction());
    let (file, pos) = (change.file(), event.pos.to_string());
    let mut attributes = Attributes { out };
    attributes.out.push(b'{');
    let place = format!("name:{};file:{file};pos:{pos}", plan.prefix);
    // An id names one event: rows of one binlog event share its place.
    let id = if event.row == 0 { place } else { format!("{place};row:{}", event.row) };
    attributes.text("id", &id);
    attributes.text("source", &format!("/debezium/{}/{}", plan.connector, plan.prefix));
    attributes.text("specversion", "1.0");
    attributes.text("type", &format!("io.debezium.connector.{}.DataChangeEvent", plan.connector));
    attributes.text("time", &instant(event.ts_us));
    attributes.text("datacontenttype", "application/json");
    attributes.text("iodebeziumop", change.op.letter().encode_utf8(&mut [0; 4]));
    attributes.text("iodebeziumversion", env!("CARGO_PKG_VERSION"));
    attributes.text("iodebeziumconnector", &plan.connector);
    attributes.text("iodebeziumname", &plan.prefix);
    attributes.text("iodebeziumtsms", &event.ts_us.div_euclid(1_000).to_string());
    attributes.text("iodebeziumsnapshot", event.snapshot.as_str());
    attributes.text("iodebeziumdb", &plan.schema.id.database);
    attributes.maybe("iodebeziumsequence", None);
    attributes.text("iodebeziumtsus", &event.ts_us.to_string());
    attributes.text("iodebeziumtsns", &event.ts_us.saturating_mul(1_000).to_string());
    attributes.text("iodebeziumtable", &plan.schema.id.table);
    attributes.text("iodebeziumserverid", &transaction.server_id.to_string());
    attributes.maybe("iodebeziumgtid", change.gtid());
    attributes.text("iodebeziumfile", file);
    attributes.text("iodebeziumpos", &pos);
    attributes.number("iodebeziumrow", event.row.into());
    let thread = (transaction.thread != 0).then(|| transaction.thread.to_string());
    attributes.maybe("iodebeziumthread", thread.as_deref());
    attributes.maybe("iodebeziumquery", None);
    let order = change.order.as_ref();
    attributes.maybe("iodebeziumtxid", order.map(|o| o.id));
    attributes.maybe("iodebeziumtxtotalorder", order.map(|o| o.total.to_string()).as_deref());
    attributes.maybe("iodebeziumtxdatacollectionorder", order.map(|o| o.of_table.to_string()).as_deref());
    out.extend_from_slice(b",\"data\":{\"before\":");
    json::image(out, change, change.before)?;
    out.extend_from_slice(b",\"after\":");
    json::image(out, change, change.after)?;
    out.extend_from_slice(b"}}");
    Ok(())
}

struct Attributes<'a> {
    out: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    fn name(&mut self, name: &str) {
        if !self.out.ends_with(b"{") {
            self.out.push(b',');
        }
        text::string(self.out, name.as_bytes());
        self.out.push(b':');
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        text::string(self.out, value.as_bytes());
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) => self.text(name, value),
            None => {
                self.name(name);
                self.out.extend_from_slice(b"null");
            }
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        value::integer(self.out, value);
    }
}

/// RFC 3339 to the millisecond.
fn instant(us: i64) -> String {
    let (year, month, day) = civil_from_days(us.div_euclid(MICROS_PER_DAY));
    let ms = us.rem_euclid(MICROS_PER_DAY) / 1_000;
    let (seconds, ms) = (ms / 1_000, ms % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}
