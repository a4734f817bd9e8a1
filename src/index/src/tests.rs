//! The index against a map, and what it takes.

use crate::{Builder, Index, Marks, content_hash, key_hash};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;

fn key(n: u32) -> u128 {
    key_hash(&n.to_le_bytes())
}

fn content(n: u64) -> u64 {
    content_hash(&n.to_le_bytes())
}

#[test]
fn merges_of_puts_and_removals_hold_what_a_map_holds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.keys");
    for seed in 0..20 {
        let mut random = SmallRng::seed_from_u64(seed);
        let (mut model, mut base) = (BTreeMap::new(), None);
        // More than one buffer in a part, and more than one block.
        let keys = random.random_range(1..60_000);
        for round in 0..4u64 {
            let mut builder = Builder::new(&path, base).unwrap();
            if random.random_ratio(1, 8) {
                builder.clear().unwrap();
                model.clear();
            }
            for _ in 0..random.random_range(0..100_000) {
                let key = key(random.random_range(0..keys));
                if random.random_ratio(1, 4) {
                    builder.remove(key).unwrap();
                    model.remove(&key);
                } else {
                    let content = content(random.random());
                    builder.put(key, content).unwrap();
                    model.insert(key, content);
                }
            }
            let index = builder.finish(&format!("{seed}/{round}")).unwrap();
            assert_eq!(index.len(), model.len() as u64);
            let entries: BTreeMap<_, _> = index.entries().unwrap().map(Result::unwrap).collect();
            assert!(entries == model);
            base = Some(index);
        }
        let index = base.unwrap();
        assert_eq!(index.stamp(), format!("{seed}/3"));
        let asked: Vec<u128> = (0..2_000).map(|_| key(random.random_range(0..keys * 2))).collect();
        let order: Vec<u128> = model.keys().copied().collect();
        for (key, found) in asked.iter().zip(index.find_all(&asked).unwrap()) {
            assert_eq!(found.map(|f| f.content), model.get(key).copied());
            assert_eq!(found.map(|f| f.at as usize), order.binary_search(key).ok());
        }
    }
}

#[test]
fn an_index_is_opened_again_and_a_damaged_one_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.keys");
    assert!(Index::open(&path).unwrap().is_none());
    let mut builder = Builder::new(&path, None).unwrap();
    (0..1_000).for_each(|n| builder.put(key(n), content(1)).unwrap());
    builder.finish("here").unwrap();
    let again = Index::open(&path).unwrap().unwrap();
    assert_eq!((again.len(), again.stamp()), (1_000, "here"));
    assert!(again.find(key(7)).unwrap().is_some() && again.find(key(1_000)).unwrap().is_none());
    let whole = std::fs::read(&path).unwrap();
    for cut in [0, 10, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(Index::open(&path).unwrap().is_none(), "{cut}");
    }
    let mut flipped = whole.clone();
    flipped[1_000 * 24 + 3] ^= 1;
    std::fs::write(&path, flipped).unwrap();
    assert!(Index::open(&path).unwrap().is_none());
}

/// CAUDAL_INDEX_KEYS=10000000 for the figure of 10 million keys.
#[test]
fn a_key_takes_at_most_25_bytes() {
    let keys = std::env::var("CAUDAL_INDEX_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(200_000u32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.keys");
    let mut builder = Builder::new(&path, None).unwrap();
    (0..keys).for_each(|n| builder.put(key(n), content(u64::from(n))).unwrap());
    let index = builder.finish("").unwrap();
    let size = std::fs::metadata(&path).unwrap().len();
    eprintln!("{keys} keys: {size} bytes");
    assert!(size <= u64::from(keys) * 25 + 100);
    let mut marks = Marks::new(index.len());
    for n in 0..keys / 2 {
        marks.set(index.find(key(n)).unwrap().unwrap().at);
    }
    assert_eq!(marks.unset(), u64::from(keys - keys / 2));
}
