use super::*;
use crate::binlog::frame::tests::event;

fn assembler(family: Family) -> Assembler {
    let mut a = Assembler::new(family, false, 1 << 20);
    a.push(&event(code::ROTATE, 0, &[&4u64.to_le_bytes()[..], b"binlog.000001"].concat(), false)).unwrap();
    assert!(matches!(a.pop().unwrap().unwrap().kind, EventKind::Rotate { .. }));
    a
}

fn query(statement: &str) -> Vec<u8> {
    let mut b = 42u32.to_le_bytes().to_vec();
    b.extend_from_slice(&[0, 0, 0, 0, 2, 0, 0, 0, 0]);
    b.extend_from_slice(b"db\0");
    b.extend_from_slice(statement.as_bytes());
    b
}

fn mysql_gtid(number: u64) -> Vec<u8> {
    [&[1][..], &[7; 16], &number.to_le_bytes()].concat()
}

fn mariadb_gtid(flags: u8) -> Vec<u8> {
    [&5u64.to_le_bytes()[..], &0u32.to_le_bytes(), &[flags], &[0; 6]].concat()
}

/// What comes out, in short.
fn kinds(a: &mut Assembler, events: &[(u8, Vec<u8>)]) -> Vec<String> {
    let mut all = Vec::new();
    for (code, body) in events {
        let next = (a.pos + 19 + body.len() as u64) as u32;
        a.push(&event(*code, next, body, false)).unwrap();
        while let Some(event) = a.pop().unwrap() {
            all.push(match event.kind {
                EventKind::Begin(b) => format!("begin{}", if b.standalone { " standalone" } else { "" }),
                EventKind::Query(q) => q.statement,
                EventKind::Commit => "commit".into(),
                EventKind::Rollback => "rollback".into(),
                EventKind::Rotate { .. } => "rotate".into(),
                other => format!("{other:?}").split([' ', '(']).next().unwrap_or_default().to_owned(),
            });
        }
    }
    all
}

#[test]
fn mysqls_transactions_are_bracketed() {
    let mut a = assembler(Family::MySql);
    let row_transaction =
        [(code::GTID, mysql_gtid(1)), (code::QUERY, query("BEGIN")), (code::XID, vec![0; 8])];
    assert_eq!(kinds(&mut a, &row_transaction), ["begin", "commit"]);
    let ddl = [(code::GTID, mysql_gtid(2)), (code::QUERY, query("drop table x"))];
    assert_eq!(kinds(&mut a, &ddl), ["begin standalone", "drop table x", "commit"]);
    let without_gtid = [
        (code::QUERY, query("BEGIN")),
        (code::QUERY, query("SAVEPOINT `s`")),
        (code::QUERY, query("COMMIT")),
    ];
    assert_eq!(kinds(&mut a, &without_gtid), ["begin", "SAVEPOINT `s`", "commit"]);
    let xa = [(code::GTID, mysql_gtid(3)), (code::QUERY, query("XA COMMIT X'61',X'',1"))];
    assert_eq!(kinds(&mut a, &xa), ["begin standalone", "XaCommit", "commit"]);
}

#[test]
fn mariadbs_transactions_are_bracketed() {
    let mut a = assembler(Family::MariaDb);
    let rows = [(code::MARIADB_GTID, mariadb_gtid(0)), (code::XID, vec![0; 8])];
    assert_eq!(kinds(&mut a, &rows), ["begin", "commit"]);
    let ddl = [(code::MARIADB_GTID, mariadb_gtid(1)), (code::QUERY, query("drop table x"))];
    assert_eq!(kinds(&mut a, &ddl), ["begin standalone", "drop table x", "commit"]);
}

#[test]
fn a_transaction_that_a_crash_cut_off_is_rolled_back() {
    let mut a = assembler(Family::MySql);
    let cut = [
        (code::GTID, mysql_gtid(1)),
        (code::QUERY, query("BEGIN")),
        (code::ROTATE, [&4u64.to_le_bytes()[..], b"binlog.000002"].concat()),
    ];
    assert_eq!(kinds(&mut a, &cut), ["begin", "rollback", "rotate"]);
}

#[test]
fn positions_go_on_beyond_four_gigabytes() {
    assert_eq!(widen(100, 50), 100);
    assert_eq!(widen(100, 0xffff_fff0), 0x1_0000_0064);
    assert_eq!(widen(0xffff_ffff, 0x1_0000_0000), 0x1_ffff_ffff);
    let mut a = assembler(Family::MySql);
    a.pos = u64::from(u32::MAX) - 5;
    a.push(&event(code::XID, (a.pos + 27) as u32, &[0; 8], false)).unwrap();
    let commit = a.pop().unwrap().unwrap();
    assert_eq!((commit.pos, commit.end_pos), (u64::from(u32::MAX) - 5, u64::from(u32::MAX) + 22));
}

#[test]
fn rows_without_their_map_are_damage() {
    let mut a = assembler(Family::MySql);
    let body = [&[9, 0, 0, 0, 0, 0, 1, 0, 2, 0][..], &[1, 1, 0, 5]].concat();
    assert!(a.push(&event(code::WRITE_ROWS, 200, &body, false)).is_err());
}

#[test]
fn both_forms_of_heartbeats_tell_the_position() {
    let mut a = assembler(Family::MySql);
    a.push(&event(code::HEARTBEAT, 900, b"binlog.000001", false)).unwrap();
    assert_eq!(a.pop().unwrap().unwrap().end_pos, 900);
    let v2 = [&[1, 13][..], b"binlog.000001", &[2, 3, 0xfc, 0xe8, 3, 0]].concat();
    a.push(&event(code::HEARTBEAT_V2, 0, &v2, false)).unwrap();
    let beat = a.pop().unwrap().unwrap();
    assert!(matches!(beat.kind, EventKind::Heartbeat));
    assert_eq!(beat.end_pos, 1000);
}
