//! The shape of requests, checked before they are decoded.
//!
//! The decoder reserves memory for as many elements as an array says it has. A frame of a few bytes could so ask for
//! gigabytes, and end the process. Hence each request is walked first: lengths and counts must fit into the frame, and all arrays
//! together hold at most [`MAX_ELEMENTS`].
//!
//! A shape is text, one word a field in the order of the wire: `b h i l u` for 1, 2, 4, 8 and 16 bytes, `s` a string, `B` bytes,
//! `[x]` an array of plain fields, `( … )` an array of structures. `3:s` is there from version 3 on, `0-2:s` up to 2.
//! Flexible versions (request header 2) have compact lengths, and tagged fields at the end of every structure. Source: Kafka's
//! message definitions.

use kafka_protocol::messages::ApiKey;

/// Most elements of all arrays of a request together.
const MAX_ELEMENTS: usize = 100_000;

/// The request's shape, for the versions that are offered.
fn shape_of(key: ApiKey) -> Option<&'static str> {
    Some(match key {
        ApiKey::Produce => "s h i ( s ( i B ) )",
        ApiKey::Fetch => {
            "0-14:i i i i b 7:i 7:i ( 0-12:s 13:u ( i 9:i l 12:i 5:l i ) ) 7:( 0-12:s 13:u [i] ) 11:s"
        }
        ApiKey::ListOffsets => "i 2:b ( s ( i 4:i l ) )",
        ApiKey::Metadata => "( 10:u s ) 4:b 8-10:b 8:b",
        ApiKey::OffsetCommit => "s i s 7:s 2-4:l ( s ( i l 6:i s ) )",
        ApiKey::OffsetFetch => "0-7:s 0-7:( s [i] ) 8:( s ( s [i] ) ) 7:b",
        ApiKey::FindCoordinator => "0-3:s 1:b 4:[s]",
        ApiKey::JoinGroup => "s i 1:i s 5:s s ( s B )",
        ApiKey::Heartbeat => "s i s 3:s",
        ApiKey::LeaveGroup => "s 0-2:s 3:( s s 5:s )",
        ApiKey::SyncGroup => "s i s 3:s 5:s 5:s ( s B )",
        ApiKey::DescribeGroups => "[s] 3:b",
        ApiKey::ListGroups => "4:[s]",
        ApiKey::ApiVersions => "3:s 3:s",
        ApiKey::CreateTopics => "( s i h ( i [i] ) ( s s ) ) i b",
        ApiKey::DeleteTopics => "6:( s u ) 0-5:[s] i",
        ApiKey::DeleteRecords => "( s ( i l ) ) i",
        ApiKey::InitProducerId => "s i 3:l 3:h",
        ApiKey::OffsetForLeaderEpoch => "3:i ( s ( i i i ) )",
        ApiKey::AddPartitionsToTxn => "s l h ( s [i] )",
        ApiKey::AddOffsetsToTxn => "s l h s",
        ApiKey::EndTxn => "s l h b",
        ApiKey::WriteTxnMarkers => "( l h b ( s [i] ) i )",
        ApiKey::TxnOffsetCommit => "s s l h 3:i 3:s 3:s ( s ( i l 2:i s ) )",
        ApiKey::DescribeConfigs => "( b s [s] ) b 3:b",
        ApiKey::AlterConfigs => "( b s ( s s ) ) b",
        ApiKey::IncrementalAlterConfigs => "( b s ( s b s ) ) b",
        ApiKey::DescribeLogDirs | ApiKey::DescribeProducers => "( s [i] )",
        ApiKey::CreatePartitions => "( s i ( [i] ) ) i b",
        ApiKey::DeleteGroups | ApiKey::DescribeTransactions => "[s]",
        ApiKey::OffsetDelete => "s ( s ( i ) )",
        ApiKey::DescribeCluster => "b 1:b",
        ApiKey::ListTransactions => "[s] [l] 1:l",
        _ => return None,
    })
}

/// Checks a request's body; returns the bytes after it.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<usize, &'static str> {
    let shape = shape_of(key).ok_or("a request without a shape")?;
    let words: Vec<&str> = shape.split_ascii_whitespace().collect();
    let flexible = key.request_header_version(version) >= 2;
    let mut walk = Walk { rest: body, version, flexible, elements: 0 };
    walk.structure(&words)?;
    Ok(walk.rest.len())
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, words: &[&str]) -> Result<(), &'static str> {
        let mut at = 0;
        while let Some(word) = words.get(at) {
            let (there, field) = gate(word, self.version);
            let end = if field == "(" { closing(words, at) } else { at };
            if there {
                self.field(field, words.get(at + 1..end).unwrap_or_default())?;
            }
            at = end + 1;
        }
        if self.flexible { self.tagged_fields() } else { Ok(()) }
    }

    /// One field; `inner` are the words of an array's structure.
    fn field(&mut self, field: &str, inner: &[&str]) -> Result<(), &'static str> {
        match field {
            "b" => self.skip(1),
            "h" => self.skip(2),
            "i" => self.skip(4),
            "l" => self.skip(8),
            "u" => self.skip(16),
            "s" => {
                let length = if self.flexible { self.compact()? } else { i64::from(self.i16()?) };
                self.skip_if_any(length)
            }
            "B" => {
                let length = if self.flexible { self.compact()? } else { i64::from(self.i32()?) };
                self.skip_if_any(length)
            }
            "(" => self.each(|walk| walk.structure(inner)),
            array => {
                let element = array.trim_start_matches('[').trim_end_matches(']');
                self.each(|walk| walk.field(element, &[]))
            }
        }
    }

    fn each(
        &mut self,
        mut one: impl FnMut(&mut Self) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let count = if self.flexible { self.compact()? } else { i64::from(self.i32()?) };
        for _ in 0..count {
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return Err("too many elements");
            }
            one(self)?;
        }
        Ok(())
    }

    fn tagged_fields(&mut self) -> Result<(), &'static str> {
        for _ in 0..self.varint()? {
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return Err("too many elements");
            }
            self.varint()?;
            let length = self.varint()?;
            self.skip(length as usize)?;
        }
        Ok(())
    }

    fn skip_if_any(&mut self, length: i64) -> Result<(), &'static str> {
        self.skip(usize::try_from(length).unwrap_or(0))
    }

    fn skip(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.rest = self.rest.get(bytes..).ok_or("cut short")?;
        Ok(())
    }

    fn i16(&mut self) -> Result<i16, &'static str> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("cut short")?;
        self.rest = rest;
        Ok(i16::from_be_bytes(*bytes))
    }

    fn i32(&mut self) -> Result<i32, &'static str> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or("cut short")?;
        self.rest = rest;
        Ok(i32::from_be_bytes(*bytes))
    }

    /// A compact length: one more than the length, 0 for null.
    fn compact(&mut self) -> Result<i64, &'static str> {
        Ok(i64::from(self.varint()?) - 1)
    }

    fn varint(&mut self) -> Result<u32, &'static str> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.rest.split_first().ok_or("cut short")?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a length has too many bytes")
    }
}

/// Whether a field is there in the version, and the field.
fn gate(word: &str, version: i16) -> (bool, &str) {
    let Some((versions, field)) = word.split_once(':') else {
        return (true, word);
    };
    let number = |text: &str| text.parse::<i16>().unwrap_or(0);
    let there = match versions.split_once('-') {
        Some((low, high)) => (number(low)..=number(high)).contains(&version),
        None => version >= number(versions),
    };
    (there, field)
}

/// Index of the word that closes the structure that the word at `open` opens.
fn closing(words: &[&str], open: usize) -> usize {
    let mut depth = 0usize;
    for (at, word) in words.iter().enumerate().skip(open) {
        if word.ends_with('(') {
            depth += 1;
        } else if *word == ")" {
            depth -= 1;
            if depth == 0 {
                return at;
            }
        }
    }
    words.len()
}
