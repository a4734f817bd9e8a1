//! A dead letter as it lies in its topic.

use rdkafka::message::{Headers, Message};

/// Header of a letter whose record had no value.
pub(super) const TOMBSTONE: &str = "caudal.tombstone";
/// Header of a letter that is to be applied again.
pub(super) const REPLAY: &str = "caudal.replay";
/// Start of the names of our own headers.
const OWN: &str = "caudal.";

/// An event that a sink could not take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// `<topic>/<partition>/<offset>`: the record's place in the log.
    pub id: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's key, as it came.
    pub key: Option<Vec<u8>>,
    /// The record's value, as it came; none for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The record's own headers.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Why the sink could not take it.
    pub cause: String,
    /// How often it was tried.
    pub attempts: u32,
    /// File, position and row in the source; none for what could not be decoded.
    pub position: Option<String>,
    /// When it was set aside, milliseconds since the epoch, UTC.
    pub set_aside_ms: Option<i64>,
    /// Whether it is to be applied again.
    pub replay: bool,
    /// The letter's own offset.
    pub(crate) at: i64,
    /// All of the letter's headers.
    pub(crate) all_headers: Vec<(String, Vec<u8>)>,
}

impl DeadLetter {
    /// From a record of the topic; none if it drops the letter of its key.
    pub(crate) fn of(message: &impl Message) -> Option<Self> {
        let payload = message.payload()?;
        let id = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        let mut letter =
            Self { at: message.offset(), set_aside_ms: message.timestamp().to_millis(), ..Self::default() };
        let mut tombstone = false;
        for header in message.headers().into_iter().flat_map(Headers::iter) {
            let value = header.value.unwrap_or_default();
            letter.all_headers.push((header.key.to_owned(), value.to_vec()));
            let text = || String::from_utf8_lossy(value).into_owned();
            match header.key {
                "caudal.cause" => letter.cause = text(),
                "caudal.attempts" => letter.attempts = text().parse().unwrap_or(0),
                "caudal.topic" => letter.topic = text(),
                "caudal.partition" => letter.partition = text().parse().unwrap_or(-1),
                "caudal.offset" => letter.offset = text().parse().unwrap_or(-1),
                "caudal.position" => letter.position = Some(text()),
                "caudal.key" => letter.key = Some(value.to_vec()),
                TOMBSTONE => tombstone = true,
                REPLAY => letter.replay = true,
                name if name.starts_with(OWN) && name != crate::encode::TRUNCATE_HEADER => {}
                name => letter.headers.push((name.to_owned(), value.to_vec())),
            }
        }
        letter.id = id;
        letter.value = (!tombstone).then(|| payload.to_vec());
        Some(letter)
    }
}
