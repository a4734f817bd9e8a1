//! Asking a server for its binlog: what the session must know first, and the request itself.
//!
//! Semi-synchronous replication is never asked for: a client that captures must not acknowledge for the source's commits.

use super::stream::{Start, StreamOptions};
use crate::connection::{Connection, Family};
use crate::gtid::{GtidSet, MySqlGtids};
use caudal_core::{Error, Result};
use mysql_common::packets::{BinlogDumpFlags, ComBinlogDumpGtid, GnoInterval, Sid, Tag};
use mysql_common::proto::MySerialize;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
/// MariaDB: the statement in front of its rows, as comment.
const SEND_ANNOTATIONS: u16 = 2;
/// The first event of every file.
const FIRST_POSITION: u32 = 4;
/// A slow consumer is no dead one: how long the server waits for us to take more.
const WRITE_TIMEOUT_SECONDS: u32 = 600;

/// Prepares the session, registers and sends the request. Gives whether the server will send checksums.
pub(super) async fn start(connection: &mut Connection, options: &StreamOptions) -> Result<bool> {
    let checksums = prepare(connection, options).await?;
    register(connection, options.server_id).await?;
    let request = match (&options.start, connection.family()) {
        (Start::Gtid(GtidSet::MySql(set)), Family::MySql) => gtid_request(set, options.server_id)?,
        (Start::Gtid(GtidSet::MariaDb(_)), Family::MariaDb) => {
            // An empty name: the set that the session was given says where.
            file_request("", FIRST_POSITION, options.server_id, SEND_ANNOTATIONS)
        }
        (Start::File { name, pos }, family) => {
            let flags = if family == Family::MariaDb { SEND_ANNOTATIONS } else { 0 };
            // The request has 32 bits for the position: beyond that the file is read from its start and skipped up to it.
            let pos = u32::try_from(*pos).unwrap_or(FIRST_POSITION);
            file_request(name, pos, options.server_id, flags)
        }
        (Start::Gtid(set), family) => {
            return Err(Error::config(format!(
                "the stored position is a GTID set of {:?}, the server is {family:?}",
                set.family()
            ))
            .hint("the source's url points to another kind of server than before: read the tables again (a new snapshot)"));
        }
    };
    connection.command(&request).await?;
    Ok(checksums)
}

async fn prepare(connection: &mut Connection, options: &StreamOptions) -> Result<bool> {
    let nanos = options.heartbeat.as_nanos().clamp(1_000_000, 4_000_000_000_000_000) as u64;
    connection
        .execute(&format!(
            "SET @master_heartbeat_period={nanos}, @source_heartbeat_period={nanos}, \
             @master_binlog_checksum=@@global.binlog_checksum, @source_binlog_checksum=@@global.binlog_checksum, \
             SESSION net_write_timeout={WRITE_TIMEOUT_SECONDS}"
        ))
        .await?;
    if connection.family() == Family::MariaDb {
        // 4: knows GTIDs. Without it the server rewrites them into something older.
        connection.execute("SET @mariadb_slave_capability=4").await?;
        if let Start::Gtid(set) = &options.start {
            connection
                .execute(&format!(
                    "SET @slave_connect_state='{set}', @slave_gtid_strict_mode=1, @slave_gtid_ignore_duplicates=0"
                ))
                .await?;
        }
    }
    let checksum = connection.scalar("SELECT @master_binlog_checksum").await?;
    match checksum.as_deref() {
        Some("CRC32") => Ok(true),
        Some("NONE") | None => Ok(false),
        Some(other) => {
            Err(Error::config(format!("the server's binlog_checksum is {other}, which is not known"))
                .hint("SET GLOBAL binlog_checksum = CRC32"))
        }
    }
}

/// Shows us in the server's list of replicas. Needs the privilege that the dump needs too, and says so more clearly.
async fn register(connection: &mut Connection, server_id: u32) -> Result<()> {
    const NAME: &[u8] = b"\x06caudal";
    let mut request = vec![COM_REGISTER_SLAVE];
    request.extend_from_slice(&server_id.to_le_bytes());
    request.extend_from_slice(NAME);
    // No user, no password, port 0, rank 0, the source's id 0.
    request.extend_from_slice(&[0; 2 + 2 + 4 + 4]);
    connection.acknowledged("register as a replica", &request).await
}

fn file_request(file: &str, pos: u32, server_id: u32, flags: u16) -> Vec<u8> {
    let mut request = vec![COM_BINLOG_DUMP];
    request.extend_from_slice(&pos.to_le_bytes());
    request.extend_from_slice(&flags.to_le_bytes());
    request.extend_from_slice(&server_id.to_le_bytes());
    request.extend_from_slice(file.as_bytes());
    request
}

fn gtid_request(set: &MySqlGtids, server_id: u32) -> Result<Vec<u8>> {
    let mut sids = Vec::new();
    for (source, tag, intervals) in set.iter() {
        let intervals = intervals.iter().map(|(first, end)| GnoInterval::new(*first, *end)).collect();
        let sid = Sid::new(*source).with_intervals(intervals);
        sids.push(match tag {
            Some(tag) => {
                let tag =
                    Tag::new(tag).map_err(|e| Error::data("the stored position has a bad tag").because(e))?;
                sid.with_tag(tag)
            }
            None => sid,
        });
    }
    let mut request = Vec::new();
    ComBinlogDumpGtid::new(server_id)
        .with_pos(u64::from(FIRST_POSITION))
        .with_flags(BinlogDumpFlags::BINLOG_THROUGH_GTID)
        .with_sids(sids)
        .serialize(&mut request);
    Ok(request)
}
