//! The packets of the client/server protocol.
