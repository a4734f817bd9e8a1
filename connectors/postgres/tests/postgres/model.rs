//! Seeded random batches against a model in memory: whatever the mix and the cuts, the table holds what the events add up to.

use crate::database::Database;
use crate::rows::{I, Rows, T, V, int, table, text, write};
use caudal_core::{Op, TableSchema};
use std::collections::BTreeMap;
use std::sync::Arc;

/// xorshift64: the same numbers everywhere.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

const NAMES: [&str; 5] = ["ash", "birch", "cedar", "elm", ""];

/// Rows by id: a name, and a number that no two rows share (or none).
type Model = BTreeMap<i64, (&'static str, Option<i64>)>;

fn image(id: i64, (name, number): (&'static str, Option<i64>)) -> [V; 3] {
    [I(id), T(name), number.map_or(V::Null, I)]
}

/// Adds one event that the source could have written.
fn step(rng: &mut Numbers, t: &Arc<TableSchema>, model: &mut Model, rows: &mut Rows) {
    let id = rng.below(900) as i64;
    let name = NAMES[rng.below(5) as usize];
    let number = Some(rng.below(4_000) as i64).filter(|n| !model.values().any(|row| row.1 == Some(*n)));
    let was = model.get(&id).copied();
    match (rng.below(1_000), was) {
        (0, _) => {
            model.clear();
            rows.push(t, Op::Truncate, None, None);
        }
        (1..250, Some(row)) => {
            model.remove(&id);
            rows.push(t, Op::Delete, Some(&image(id, row)), None);
        }
        (250..330, Some(row)) => {
            // A key moves, as the log tells it.
            let to = rng.below(900) as i64;
            if to == id || model.contains_key(&to) {
                return;
            }
            model.remove(&id);
            model.insert(to, (name, row.1));
            rows.push(t, Op::Delete, Some(&image(id, row)), None);
            rows.push(t, Op::Create, None, Some(&image(to, (name, row.1))));
        }
        (330..450, Some(row)) => {
            model.insert(id, (name, row.1));
            rows.push(
                t,
                Op::Update,
                Some(&[I(id), V::Unchanged, V::Unchanged]),
                Some(&[I(id), T(name), V::Unchanged]),
            );
        }
        (450..550, Some(row)) => {
            // Two rows exchange their numbers: through none, as a source has to.
            let Some((&other, &(other_name, theirs))) = model.iter().find(|(k, _)| **k > id) else { return };
            for (id, before, after) in [
                (id, row, (row.0, None)),
                (other, (other_name, theirs), (other_name, row.1)),
                (id, (row.0, None), (row.0, theirs)),
            ] {
                model.insert(id, after);
                rows.push(t, Op::Update, Some(&image(id, before)), Some(&image(id, after)));
            }
        }
        (_, Some(row)) => {
            model.insert(id, (name, number));
            rows.push(t, Op::Update, Some(&image(id, row)), Some(&image(id, (name, number))));
        }
        (chance, None) => {
            model.insert(id, (name, number));
            let op = if chance < 500 { Op::Read } else { Op::Create };
            rows.push(t, op, None, Some(&image(id, (name, number))));
        }
    }
}

async fn compare(db: &Database, model: &Model, when: &str) {
    let shown = db.rows("SELECT id, name, number FROM trees ORDER BY id").await;
    let text = |(id, (name, number)): (&i64, &(&str, Option<i64>))| {
        format!("{id}|{name}|{}", number.map_or("∅".to_owned(), |n| n.to_string()))
    };
    let expected: Vec<String> = model.iter().map(text).collect();
    assert_eq!(shown, expected, "{when}");
}

#[tokio::test]
async fn random_batches_add_up() {
    let Some(db) = Database::new().await else { return };
    let t = Arc::new(table("trees", &[("id", int()), ("name", text()), ("number", int())]));
    for seed in [1, 2_026, 77_777] {
        db.run("DROP TABLE IF EXISTS trees; CREATE TABLE trees (id int PRIMARY KEY, name text, number int UNIQUE)").await;
        db.run("DROP SCHEMA IF EXISTS caudal CASCADE").await;
        let mut rng = Numbers(seed);
        let (mut model, mut offset) = (Model::new(), 0);
        let mut w = db.writer().await;
        for round in 0..40 {
            let parts = 1 + rng.below(3);
            for part in 0..parts {
                let mut rows = Rows::new();
                let size = [1, 20, 300, 2_000, 7_000][rng.below(5) as usize];
                for _ in 0..size {
                    step(&mut rng, &t, &mut model, &mut rows);
                }
                offset += 1;
                write(w.as_mut(), rows.at(offset)).await;
                if part + 1 == parts {
                    w.commit().await.unwrap();
                    compare(&db, &model, &format!("seed {seed}, round {round}")).await;
                }
            }
            if rng.below(5) == 0 {
                // The writer goes away, and what it did not commit with it.
                let mut lost = model.clone();
                let mut rows = Rows::new();
                (0..50).for_each(|_| step(&mut rng, &t, &mut lost, &mut rows));
                write(w.as_mut(), rows.at(offset + 1)).await;
                drop(w);
                w = db.writer().await;
                compare(&db, &model, &format!("seed {seed}, round {round}, taken over")).await;
            }
        }
    }
}
