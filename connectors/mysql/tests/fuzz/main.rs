//! The decoder against damaged logs: recorded binlogs of real servers, mutated from fixed seeds, their checksums made to fit again.
//!
//! Each input must end in events or errors: no panic, no endless loop (a watchdog ends the process), no memory out of all measure (the
//! peak of the process is compared with a bound at the end). `CAUDAL_FUZZ_INPUTS` raises the number of inputs, `CAUDAL_FUZZ_SEED`
//! starts elsewhere. The same target and corpus serve a coverage-guided fuzzer: see `fuzz/` beside this crate's `src`.

mod target;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use target::{MOST_EVENT, Outcome, Shapes};

/// Logs of MySQL 9.7 and 8.0 (even) and MariaDB 10.11 (odd): the numbers choose the family.
const LOGS: [(u8, &[u8]); 5] = [
    (0, include_bytes!("../data/mysql-9.7.binlog")),
    (0, include_bytes!("../data/mysql-9.7-compressed.binlog")),
    (0, include_bytes!("../data/mysql-8.0.binlog")),
    (1, include_bytes!("../data/mariadb-10.11.binlog")),
    (1, include_bytes!("../data/mariadb-10.11-compressed.binlog")),
];
const INPUTS: u64 = 60_000;
/// An input that takes longer hangs: the machine may be slow, but not that slow.
const HANG: Duration = Duration::from_secs(60);
/// What the whole run may add to the memory that the corpus takes: an event of [`MOST_EVENT`] as it comes, inflated, its text (up
/// to 8 times that), and the window of a damaged zstd frame.
const MOST_MEMORY: u64 = 256 << 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

#[test]
fn no_damaged_log_makes_the_decoder_panic_hang_or_swell() {
    let (inputs, seed) = (setting("CAUDAL_FUZZ_INPUTS", INPUTS), setting("CAUDAL_FUZZ_SEED", 1));
    let corpus: Vec<(u8, Vec<Vec<u8>>)> =
        LOGS.iter().map(|(family, log)| (*family, events(&log[4..]))).collect();
    let (began, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let watchdog = watch(Arc::clone(&done), Arc::clone(&over), seed);
    let before = peak();
    let mut total = Outcome::default();
    let mut shapes = Shapes::default();
    let mut slowest = Duration::ZERO;
    for n in 0..inputs {
        // Each input follows from its number alone: one that fails can be run again by CAUDAL_FUZZ_SEED and one input.
        let mut random = SmallRng::seed_from_u64(seed.wrapping_add(n));
        let input = mutated(&corpus, &mut random);
        let start = Instant::now();
        let outcome = target::run(&input, &mut shapes);
        slowest = slowest.max(start.elapsed());
        total.events += outcome.events;
        total.rows += outcome.rows;
        total.refused += outcome.refused;
        total.largest = total.largest.max(outcome.largest);
        done.store(n + 1, Ordering::Relaxed);
    }
    over.store(true, Ordering::Relaxed);
    watchdog.join().unwrap();
    let grown = peak().saturating_sub(before);
    println!(
        "{inputs} inputs in {:?}, slowest {slowest:?}, {} MiB more at the peak: {total:?}",
        began.elapsed(),
        grown >> 20
    );
    assert!(grown < MOST_MEMORY, "the peak of the process has grown by {} MiB", grown >> 20);
    assert!(total.largest < 16 * MOST_EVENT, "rows of one event made {} bytes", total.largest);
    // Else the inputs are too damaged to reach what lies behind the checks, or not damaged at all.
    assert!(total.events > inputs && total.rows > inputs / 4, "{total:?}");
    assert!(total.refused > inputs / 4, "{total:?}");
}

/// Ends the process when one input takes too long.
fn watch(done: Arc<AtomicU64>, over: Arc<AtomicBool>, seed: u64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut last = (0, Instant::now());
        while !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
            let now = done.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            }
            if last.1.elapsed() > HANG {
                eprintln!(
                    "input {now} of seed {seed} does not end (CAUDAL_FUZZ_SEED={})",
                    seed.wrapping_add(now)
                );
                std::process::abort();
            }
        }
    })
}

/// The largest resident memory of this process so far, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

fn events(mut log: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while log.len() > 19 {
        let size = u32::from_le_bytes(log[9..13].try_into().expect("four bytes")) as usize;
        let (event, rest) = log.split_at(size);
        all.push(event.to_vec());
        log = rest;
    }
    all
}

const FORMAT: u8 = 15;
const TABLE_MAP: u8 = 19;

/// A run of events of one log behind its format description, some of them damaged.
fn mutated(corpus: &[(u8, Vec<Vec<u8>>)], random: &mut SmallRng) -> Vec<u8> {
    let (family, log) = &corpus[random.random_range(0..corpus.len())];
    let start = random.random_range(1..log.len());
    let end = (start + random.random_range(2..8)).min(log.len());
    let mut input = vec![*family];
    input.extend_from_slice(&log[0]);
    // Half of the runs keep their maps, so that rows are reached.
    let (keep_maps, often) = (random.random(), random.random_range(1..4));
    for event in &log[start..end] {
        let kept =
            event[4] == FORMAT || keep_maps && event[4] == TABLE_MAP || random.random_range(0..4) >= often;
        if kept {
            input.extend_from_slice(event);
            continue;
        }
        let other = &log[random.random_range(1..log.len())];
        input.extend(damaged(event, other, random));
        if random.random_range(0..40) == 0 {
            input.extend_from_slice(event);
        }
    }
    input
}

/// Type codes that a decoder knows, and some that none does.
const CODES: [u8; 26] =
    [2, 4, 15, 16, 18, 19, 23, 24, 25, 26, 27, 29, 30, 31, 32, 33, 34, 35, 38, 39, 40, 41, 42, 162, 165, 167];
/// Numbers at which lengths and signs turn over.
const TURNS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xfa, 0xfb, 0xff, 0xffff, 0xff_ffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

fn damaged(event: &[u8], other: &[u8], random: &mut SmallRng) -> Vec<u8> {
    let mut bytes = event[..event.len() - 4].to_vec();
    for _ in 0..random.random_range(1..=3) {
        // Most lengths stand near the front.
        let at = match random.random_range(0..3) {
            0 => random.random_range(19..bytes.len().clamp(20, 80)),
            _ => random.random_range(19..bytes.len().max(20)),
        };
        let at = at.min(bytes.len() - 1);
        change(&mut bytes, at, other, random);
        if bytes.len() < 20 {
            bytes.resize(20, 0);
        }
    }
    if random.random_range(0..12) == 0 {
        bytes[4] = CODES[random.random_range(0..CODES.len())];
    }
    if random.random_range(0..12) == 0 {
        bytes[17] ^= 0x80;
    }
    bytes.truncate(MOST_EVENT / 2);
    let size = bytes.len() as u32 + 4;
    // Now and then neither length nor checksum is mended.
    if random.random_range(0..50) > 0 {
        bytes[9..13].copy_from_slice(&size.to_le_bytes());
    }
    let sum = if random.random_range(0..50) > 0 { crc32fast::hash(&bytes) } else { random.random() };
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

fn change(bytes: &mut Vec<u8>, at: usize, other: &[u8], random: &mut SmallRng) {
    match random.random_range(0..9) {
        0 => bytes[at] ^= 1 << random.random_range(0..8),
        1 => bytes[at] = random.random(),
        2 => bytes[at] = [0, 0xff, 0xfb, 0xfc, 0xfd, 0xfe][random.random_range(0..6)],
        3 => {
            let width = [1, 2, 3, 4, 8][random.random_range(0..5)];
            let turn = TURNS[random.random_range(0..TURNS.len())].to_le_bytes();
            let end = (at + width).min(bytes.len());
            bytes[at..end].copy_from_slice(&turn[..end - at]);
        }
        4 => bytes.truncate(at.max(20)),
        5 => {
            let end = (at + random.random_range(1..16)).min(bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            let mut noise = vec![0; random.random_range(1..16)];
            random.fill_bytes(&mut noise);
            bytes.splice(at..at, noise);
        }
        7 => {
            // A piece of another event.
            let from = random.random_range(0..other.len());
            let to = (from + random.random_range(1..64)).min(other.len());
            let end = (at + to - from).min(bytes.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => {
            // A piece of itself, many times.
            let end = (at + random.random_range(1..32)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            for _ in 0..random.random_range(1..64) {
                bytes.splice(at..at, piece.iter().copied());
            }
        }
    }
}
