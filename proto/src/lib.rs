//! Wire types: the records of the side topics and the envelope.
