//! Decompression as a stream, so that a small block that unpacks to gigabytes costs time but never memory.

use super::Malformed;
use bytes::{BufMut, BytesMut};
use std::io::{self, Cursor, Read};

/// First bytes of snappy as Java clients frame it; blocks of (length i32, raw snappy) follow.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\x00";
const XERIAL_HEADER_BYTES: usize = 16;
/// Largest snappy block that is unpacked. It is 21 times the packed one at most.
const MAX_SNAPPY_BYTES: usize = 1 << 30;

/// A reader of the records of a batch, unpacked.
///
/// Memory: the codec's window (at most 32 MiB, for zstd), for snappy one block, which some clients make of the whole batch (1 GiB at most).
pub(super) fn reader<'a>(codec: u8, block: &'a [u8]) -> Result<Box<dyn Read + 'a>, Malformed> {
    Ok(match codec {
        0 => Box::new(block),
        1 => Box::new(flate2::read::MultiGzDecoder::new(block)),
        2 => Box::new(Snappy::new(block)),
        3 => Box::new(lz4::Decoder::new(block).map_err(Malformed::Compression)?),
        4 => Box::new(zstd_reader(block).map_err(Malformed::Compression)?),
        unknown => return Err(Malformed::UnknownCodec(unknown)),
    })
}

fn zstd_reader(block: &[u8]) -> io::Result<impl Read> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(block)?;
    decoder.window_log_max(25)?;
    Ok(decoder)
}

/// Appends the records of a batch, packed with the codec.
pub(crate) fn pack(codec: u8, records: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    use kafka_protocol::compression::{Compressor, Gzip, Lz4, Snappy, Zstd};
    let mut packed = BytesMut::new();
    let fill = |buffer: &mut BytesMut| {
        buffer.put_slice(records);
        Ok(())
    };
    let done = match codec {
        0 => fill(&mut packed),
        1 => Gzip::compress(&mut packed, fill),
        2 => Snappy::compress(&mut packed, fill),
        3 => Lz4::compress(&mut packed, fill),
        4 => Zstd::compress(&mut packed, fill),
        unknown => return Err(Malformed::UnknownCodec(unknown)),
    };
    done.map_err(|e| Malformed::Compression(io::Error::other(e.to_string())))?;
    out.extend_from_slice(&packed);
    Ok(())
}

/// Snappy, framed as Java clients do or raw as one block.
struct Snappy<'a> {
    rest: &'a [u8],
    framed: bool,
    block: Cursor<Vec<u8>>,
}

impl<'a> Snappy<'a> {
    fn new(block: &'a [u8]) -> Snappy<'a> {
        let framed = block.starts_with(XERIAL_MAGIC) && block.len() >= XERIAL_HEADER_BYTES;
        let rest = if framed { &block[XERIAL_HEADER_BYTES..] } else { block };
        Snappy { rest, framed, block: Cursor::default() }
    }

    fn next_block(&mut self) -> io::Result<()> {
        let packed = if self.framed {
            let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(cut_short)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (packed, rest) = rest.split_at_checked(length).ok_or_else(cut_short)?;
            self.rest = rest;
            packed
        } else {
            std::mem::take(&mut self.rest)
        };
        if snap::raw::decompress_len(packed)? > MAX_SNAPPY_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "snappy block is too large"));
        }
        self.block = Cursor::new(snap::raw::Decoder::new().decompress_vec(packed)?);
        Ok(())
    }
}

impl Read for Snappy<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(out)?;
            if read > 0 || out.is_empty() || self.rest.is_empty() {
                return Ok(read);
            }
            self.next_block()?;
        }
    }
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "snappy block is cut short")
}
