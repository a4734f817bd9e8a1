//! Undoing the servers' compression: MySQL's transaction payload (zstd over a run of events), MariaDB's compressed events and
//! columns (zlib).
//!
//! Every declared length is compared with a cap, and output stops at the declared length, so neither a damaged nor a
//! malicious length allocates more than what really comes out.

use super::cursor::{Cursor, Damage, Read, damage};
use super::frame::{CHECKSUM_BYTES, HEADER_BYTES, Head};
use crate::spooled::Spooled;
use bytes::{Buf, Bytes};
use std::io::{BufRead, BufReader, Read as _, Seek, SeekFrom};

/// A MySQL transaction payload (event 40), opened event by event.
///
/// Memory: the compressed bytes (a buffer of 256 KiB if they are in a file), zstd's window (at most 128 MiB, 2 to 8 MiB at the
/// server's usual levels), and one inner event.
pub(crate) struct Payload {
    source: PayloadSource,
    max_event_bytes: usize,
    events: u64,
}

/// Where the bytes are: in memory or in a file.
type Compressed = Box<dyn BufRead + Send + Sync>;

enum PayloadSource {
    Plain(Compressed),
    Zstd(Box<zstd::stream::read::Decoder<'static, Compressed>>),
}

const FILE_BUFFER: usize = 256 * 1024;
/// What stands in front of the compressed bytes: three fields.
const MOST_FIELDS: usize = 256;

const FIELD_END: u64 = 0;
const FIELD_COMPRESSION: u64 = 2;
const COMPRESSION_ZSTD: u64 = 0;
const COMPRESSION_NONE: u64 = 255;

impl Payload {
    /// From the event's body: fields of type, length and value, up to the end mark, then the bytes.
    pub(crate) fn open(body: &Bytes, max_event_bytes: usize) -> Read<Self> {
        let mut c = Cursor(body);
        let compression = fields(&mut c)?;
        Self::of(compression, Box::new(body.slice_ref(c.0).reader()), max_event_bytes)
    }

    /// From an event in a file, with or without a checksum at its end.
    pub(crate) fn open_file(event: Spooled, checksum: bool, max_event_bytes: usize) -> Read<Self> {
        let unreadable = |e: std::io::Error| Damage::of(format!("read a compressed transaction back: {e}"));
        let Spooled { mut file, size, .. } = event;
        let end = (size - if checksum { CHECKSUM_BYTES } else { 0 }) as u64;
        file.seek(SeekFrom::Start(HEADER_BYTES as u64)).map_err(unreadable)?;
        let mut start = Vec::new();
        (&file).take(MOST_FIELDS as u64).read_to_end(&mut start).map_err(unreadable)?;
        let mut c = Cursor(&start);
        let compression = fields(&mut c)?;
        let at = (HEADER_BYTES + start.len() - c.0.len()) as u64;
        file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
        let rest = BufReader::with_capacity(FILE_BUFFER, file).take(end.saturating_sub(at));
        Self::of(compression, Box::new(rest), max_event_bytes)
    }

    fn of(compression: u64, bytes: Compressed, max_event_bytes: usize) -> Read<Self> {
        let source = match compression {
            COMPRESSION_NONE => PayloadSource::Plain(bytes),
            COMPRESSION_ZSTD => PayloadSource::Zstd(Box::new(
                zstd::stream::read::Decoder::with_buffer(bytes).map_err(|e| Damage::of(e.to_string()))?,
            )),
            other => {
                return Err(Damage::of(format!(
                    "transactions compressed by algorithm {other} are not known"
                )));
            }
        };
        Ok(Self { source, max_event_bytes, events: 0 })
    }

    /// The next inner event, header included (they have no checksums: the payload's covers them); none at the end.
    pub(crate) fn next(&mut self) -> Read<Option<(Head, Bytes)>> {
        let mut header = [0u8; HEADER_BYTES];
        if !self.fill(&mut header)? {
            // A payload that cannot be decompressed gives nothing at all: that is no empty transaction.
            return if self.events == 0 {
                damage("a compressed transaction holds no event")
            } else {
                Ok(None)
            };
        }
        let head = Head::parse(&header)?;
        let size = head.size as usize - HEADER_BYTES;
        if size > self.max_event_bytes {
            return damage("an event in a compressed transaction is over the limit for events");
        }
        let mut body = Vec::with_capacity(size.min(1 << 20));
        let limited = size as u64;
        let read = match &mut self.source {
            PayloadSource::Plain(r) => r.take(limited).read_to_end(&mut body),
            PayloadSource::Zstd(r) => r.take(limited).read_to_end(&mut body),
        };
        read.map_err(|e| Damage::of(format!("decompress a transaction: {e}")))?;
        if body.len() != size {
            return damage("a compressed transaction ends in the middle of an event");
        }
        self.events += 1;
        Ok(Some((head, body.into())))
    }

    /// Whether the whole of `buf` was read; false at a clean end.
    fn fill(&mut self, buf: &mut [u8]) -> Read<bool> {
        let mut filled = 0;
        while filled < buf.len() {
            let read = match &mut self.source {
                PayloadSource::Plain(r) => r.read(&mut buf[filled..]),
                PayloadSource::Zstd(r) => r.read(&mut buf[filled..]),
            };
            match read.map_err(|e| Damage::of(format!("decompress a transaction: {e}")))? {
                0 if filled == 0 => return Ok(false),
                0 => return damage("a compressed transaction ends in the middle of an event"),
                n => filled += n,
            }
        }
        Ok(true)
    }
}

/// The fields in front of the bytes; gives the algorithm.
fn fields(c: &mut Cursor<'_>) -> Read<u64> {
    let mut compression = COMPRESSION_NONE;
    loop {
        let field = c.length_encoded()?;
        if field == FIELD_END {
            return Ok(compression);
        }
        let mut value = Cursor(c.counted()?);
        if field == FIELD_COMPRESSION {
            compression = value.length_encoded()?;
        }
    }
}

/// Inflates the compressed part of a MariaDB event: a byte with the algorithm (only zlib, 0) and the width of the length, the
/// length big-endian, and the bytes. Appends to `out`.
pub(crate) fn inflate_event(bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Read<()> {
    let mut c = Cursor(bytes);
    let head = c.u8()?;
    if head & 0x80 == 0 || head >> 4 & 7 != 0 {
        return damage("an event is compressed in an unknown way");
    }
    let length = c.big(usize::from(head & 7))?;
    inflate(flate2::read::ZlibDecoder::new(c.0), length, max, out)
}

/// Inflates a value of a MariaDB column declared COMPRESSED. Empty stays empty; 0 in front means stored as it is.
pub(crate) fn inflate_column(bytes: &[u8], max: usize, out: &mut Vec<u8>) -> Read<()> {
    let mut c = Cursor(bytes);
    if c.is_empty() {
        return Ok(());
    }
    let head = c.u8()?;
    if head == 0 {
        out.extend_from_slice(c.0);
        return Ok(());
    }
    if head >> 4 != 8 {
        return damage("a column is compressed in an unknown way");
    }
    let length = c.big(usize::from(head & 7))?;
    if head & 8 != 0 {
        inflate(flate2::read::DeflateDecoder::new(c.0), length, max, out)
    } else {
        inflate(flate2::read::ZlibDecoder::new(c.0), length, max, out)
    }
}

fn inflate(decoder: impl std::io::Read, length: u64, max: usize, out: &mut Vec<u8>) -> Read<()> {
    let Some(wanted) = usize::try_from(length).ok().filter(|n| *n <= max) else {
        return damage("a compressed value is over the limit for events");
    };
    let start = out.len();
    out.reserve(wanted.min(1 << 20));
    // One byte more than declared tells a value that is longer than it says.
    let read = decoder.take(length + 1).read_to_end(out);
    read.map_err(|e| Damage::of(format!("inflate: {e}")))?;
    if out.len() - start == wanted {
        Ok(())
    } else {
        damage("a compressed value has another length than declared")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::frame::tests::event;
    use std::io::Write;

    fn payload(inner: &[u8], compression: u8, compressed: &[u8]) -> Bytes {
        let mut body = vec![2, 1, compression, 3, 3, 0xfc];
        if compression == 255 {
            body = vec![2, 3, 0xfc, 255, 0, 3, 3, 0xfc];
        }
        body.extend_from_slice(&(inner.len() as u16).to_le_bytes());
        body.push(0);
        body.extend_from_slice(compressed);
        body.into()
    }

    fn drain(body: &Bytes, max: usize) -> Read<Vec<(u8, usize)>> {
        let mut payload = Payload::open(body, max)?;
        let mut all = Vec::new();
        while let Some((head, body)) = payload.next()? {
            all.push((head.code, body.len()));
        }
        Ok(all)
    }

    #[test]
    fn a_payload_gives_its_events_one_by_one() {
        let inner =
            [event(2, 0, b"BEGIN", false), event(30, 0, &[7; 3000], false), event(16, 0, &[0; 8], false)];
        let inner = inner.concat();
        let zstd = zstd::encode_all(&inner[..], 3).unwrap();
        let want = vec![(2, 5), (30, 3000), (16, 8)];
        assert_eq!(drain(&payload(&inner, 0, &zstd), 1 << 20), Ok(want.clone()));
        assert_eq!(drain(&payload(&inner, 255, &inner), 1 << 20), Ok(want));
        assert!(drain(&payload(&inner, 0, &zstd), 100).is_err(), "the cap holds for inner events");
        for cut in 0..zstd.len() {
            assert!(drain(&payload(&inner, 0, &zstd[..cut]), 1 << 20).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn lengths_that_lie_are_damage() {
        let mut z = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        z.write_all(&[5; 1000]).unwrap();
        let z = z.finish().unwrap();
        let with = |length: u16| [&[0x82][..], &length.to_be_bytes(), &z].concat();
        let inflated = |bytes: &[u8], max| {
            let mut out = Vec::new();
            inflate_event(bytes, max, &mut out).map(|()| out.len())
        };
        assert_eq!(inflated(&with(1000), 1000), Ok(1000));
        assert!(inflated(&with(999), 2000).is_err());
        assert!(inflated(&with(1001), 2000).is_err());
        assert!(inflated(&with(1000), 999).is_err());
        assert!(inflated(&[0x92, 0, 1, 0], 999).is_err());
    }
}
