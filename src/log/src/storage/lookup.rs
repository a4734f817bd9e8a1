//! Offsets by time.

use super::partition::Partition;
use super::segment::HeaderWalk;
use crate::batch::{BatchHeader, RecordHead, Records};
use crate::disk::DiskFile;
use std::io;
use std::sync::Arc;

impl Partition {
    /// The first visible record whose time is `ms` or later. Memory: one batch.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(crate) fn first_at(&self, ms: i64, committed: bool) -> io::Result<Option<RecordHead>> {
        let (stretches, start, limit) = {
            let log = self.log();
            let bounds = log.bounds();
            let stretches: Vec<(Arc<DiskFile>, u64, u64)> = log
                .segments
                .iter()
                .filter(|s| s.index.max_timestamp() >= ms)
                .map(|s| (s.file.clone(), s.index.position_before_time(ms), s.size))
                .collect();
            (stretches, bounds.start, if committed { bounds.stable } else { bounds.high })
        };
        for (file, from, end) in stretches {
            let mut walk = HeaderWalk::new(&file, from, end);
            while let Some((position, header)) = walk.next()? {
                if header.base_offset >= limit {
                    return Ok(None);
                }
                if header.max_timestamp < ms || header.control() || header.last_offset() < start {
                    continue;
                }
                if let Some(found) = first_in(&file, position, &header, ms, start)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// The visible record with the greatest time.
    ///
    /// # Errors
    /// When a file can't be read.
    pub(crate) fn newest(&self, committed: bool) -> io::Result<Option<RecordHead>> {
        let greatest = self.log().segments.iter().map(|s| s.index.max_timestamp()).max();
        match greatest {
            Some(ms) if ms >= 0 => self.first_at(ms, committed),
            _ => Ok(None),
        }
    }
}

fn first_in(
    file: &DiskFile,
    position: u64,
    header: &BatchHeader,
    ms: i64,
    start: i64,
) -> io::Result<Option<RecordHead>> {
    let mut batch = vec![0; header.length];
    file.read_at(&mut batch, position)?;
    let malformed = |e: crate::batch::Malformed| super::segment::invalid(&e.to_string());
    let mut records = Records::new(*header, &batch).map_err(malformed)?;
    while let Some(record) = records.next().map_err(malformed)? {
        if record.head.timestamp >= ms && record.head.offset >= start {
            return Ok(Some(record.head));
        }
    }
    Ok(None)
}
