//! What the service tells of changes itself. No emulator has `CHANGES` and `APPENDS`: a table with a history of its own answers here in their place, as far as they are
//! asked for by these queries.

use super::*;
use std::sync::{Arc, Mutex};

/// How far behind the present its writers are, so that the windows' ends come by: CHANGES is asked for what is eleven minutes old.
const BEHIND: Duration = Duration::from_secs(11 * 60);

/// A change: when, what, and the row.
type Change = (String, &'static str, i64, &'static str);

#[derive(Clone, Default)]
struct History(Arc<Mutex<Vec<Change>>>);

impl History {
    /// Commits, now.
    fn commit(&self, changes: &[(&'static str, i64, &'static str)]) {
        let at = written(jiff::Timestamp::now() - BEHIND);
        let mut all = self.0.lock().unwrap();
        all.extend(changes.iter().map(|(what, id, name)| (at.clone(), *what, *id, *name)));
    }

    /// The last change of each row from one moment up to another; rows that a change has left, or all of them.
    fn last(&self, from: &str, to: &str) -> Vec<Change> {
        let mut last = std::collections::BTreeMap::new();
        for change in self.0.lock().unwrap().iter().filter(|c| c.0.as_str() >= from && c.0.as_str() < to) {
            last.insert(change.2, change.clone());
        }
        last.into_values().collect()
    }

    fn answers(&self, front: &Front, table: &'static str) {
        let history = self.clone();
        front.instead(move |asked| {
            let body: Value = serde_json::from_str(&asked.body).ok()?;
            let sql = body["query"].as_str()?.to_owned();
            if !asked.path.ends_with("/queries") || !sql.contains(table) {
                return None;
            }
            let bound =
                |n: usize| body["queryParameters"][n]["parameterValue"]["value"].as_str().unwrap_or("");
            let told = sql.contains("FROM CHANGES(TABLE `");
            // Without it all changes come, in no order.
            let each = told
                && !sql.contains(
                    "QUALIFY ROW_NUMBER() OVER (PARTITION BY q.`id` ORDER BY q._CHANGE_TIMESTAMP DESC",
                );
            let rows = match (told, each) {
                (false, _) => history.last("", bound(0)),
                (true, false) => history.last(bound(0), bound(1)),
                (true, true) => history.0.lock().unwrap().iter().rev().cloned().collect(),
            };
            let value = |(_, what, id, name): Change| {
                let mut values = vec![json!({ "v": id.to_string() }), json!({ "v": name })];
                if told {
                    values.insert(0, json!({ "v": (what == "DELETE").to_string() }));
                } else if what == "DELETE" {
                    return None;
                }
                Some(json!({ "f": values }))
            };
            let rows: Vec<Value> = match body["dryRun"] == true {
                true => Vec::new(),
                false => rows.into_iter().filter_map(value).collect(),
            };
            let mut fields = vec![
                json!({ "name": "id", "type": "INTEGER" }),
                json!({ "name": "nombre", "type": "STRING" }),
            ];
            if told {
                fields.insert(0, json!({ "name": "caudal_gone", "type": "BOOLEAN" }));
            }
            Some(Reply::json(&json!({
                "jobComplete": true, "schema": { "fields": fields }, "rows": rows, "totalBytesBilled": "0",
                "jobReference": { "projectId": PROJECT, "jobId": "j1", "location": "US" },
            })))
        });
    }
}

fn written(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_tells_arrives_with_its_deletes_and_windows_meet_over_a_restart() {
    let bench = Bench::new("bq_changes").await;
    bench.run(&["CREATE TABLE `{}.clientes` (id INT64, nombre STRING)"]).await;
    let history = History::default();
    history.commit(&[("INSERT", 1, "uno"), ("INSERT", 2, "dos"), ("INSERT", 3, "tres")]);
    history.answers(&bench.front, "clientes");
    let mut daemon = bench.start(&["tables:", "  clientes: {key: [id], mode: changes}"]);
    let rows = "SELECT string_agg(id || ' ' || nombre, ', ' ORDER BY id) FROM clientes";
    until(&daemon, &bench.sink, rows, "1 uno, 2 dos, 3 tres").await;
    history.commit(&[("UPDATE", 1, "UNO"), ("DELETE", 2, "dos"), ("INSERT", 4, "cuatro")]);
    history.commit(&[("UPDATE", 4, "CUATRO"), ("INSERT", 5, "cinco"), ("DELETE", 5, "cinco")]);
    until(&daemon, &bench.sink, rows, "1 UNO, 3 tres, 4 CUATRO").await;

    // What changes meanwhile is told afterwards.
    assert!(daemon.terminate(PATIENCE).await.unwrap().success());
    let before = bench.front.state().queries().len();
    history.commit(&[("DELETE", 3, "tres"), ("INSERT", 2, "dos otra vez")]);
    daemon.start_again().unwrap();
    until(&daemon, &bench.sink, rows, "1 UNO, 2 dos otra vez, 4 CUATRO").await;
    let last = runs(&daemon, "clientes", 2).await;
    assert_eq!((&last["changed"], &last["deleted"], &last["error"]), (&json!(0), &json!(0), &Value::Null));

    // All rows were read once, as of one moment, from which windows meet; one that was cut off by the end came again.
    let asked = bench.front.state().queries();
    let bound = |body: &Value, n: usize| {
        body["queryParameters"][n]["parameterValue"]["value"].as_str().unwrap().to_owned()
    };
    let is_whole =
        |body: &&Value| body["query"].as_str().unwrap().contains("FOR SYSTEM_TIME AS OF @caudal_1");
    assert!(is_whole(&&asked[0]) && !asked[before..].iter().any(|body| is_whole(&body)), "{asked:?}");
    let mut end = bound(asked.iter().rfind(is_whole).unwrap(), 0);
    let mut begins = std::collections::BTreeSet::new();
    for body in asked.iter().filter(|body| !is_whole(body)) {
        assert!(bound(body, 0) <= end, "what lies before {} was never asked for", bound(body, 0));
        end = end.max(bound(body, 1));
        begins.insert(bound(body, 0));
    }
    assert!(begins.len() > 2, "the same is read (and billed) again and again: {begins:?}");
}
