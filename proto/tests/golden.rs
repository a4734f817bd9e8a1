//! Records of each version ever written must load, and today's must be written as its golden file has it.

// A test that can't go on says so by panicking.
#![allow(clippy::unwrap_used)]

use caudal_proto::monitoring::{AlertRecord, FreshnessRecord, MetricsRecord, Notification, RunRecord};
use caudal_proto::side::{PositionRecord, SchemaRecord, TaskRecord, WatermarkRecord};
use serde::{Serialize, de::DeserializeOwned};
use std::path::Path;

fn golden<T: Serialize + DeserializeOwned>(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let record: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name} does not load: {e}"));
    let (was, is): (serde_json::Value, serde_json::Value) =
        (serde_json::from_str(&text).unwrap(), serde_json::to_value(&record).unwrap());
    assert_eq!(was, is, "{name}: the format changed without a new version");
}

#[test]
fn position_records_of_version_1_load() {
    golden::<PositionRecord>("position.v1.json");
}

#[test]
fn watermark_records_of_version_1_load() {
    golden::<WatermarkRecord>("watermark.v1.json");
}

#[test]
fn schema_records_of_version_1_load() {
    golden::<SchemaRecord>("schema.v1.json");
}

#[test]
fn task_records_of_version_1_load() {
    golden::<TaskRecord>("task.v1.json");
}

#[test]
fn records_of_monitoring_of_version_1_load() {
    golden::<RunRecord>("run.v1.json");
    golden::<AlertRecord>("alert.v1.json");
    golden::<MetricsRecord>("metrics.v1.json");
    golden::<FreshnessRecord>("freshness.v1.json");
    golden::<Notification>("notification.json");
}
