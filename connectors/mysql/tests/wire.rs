//! The replication client and the decoder against real servers.
//!
//! `CAUDAL_TEST_MARIADB_URL` and `CAUDAL_TEST_MYSQL_URL` (`mysql://user:password@host:port/`) name them; `tests/run` starts
//! them and sets both. A test whose server is not named says so and does nothing; one whose server does not answer fails.

mod wire {
    pub(crate) mod corpus;
    #[allow(dead_code, unreachable_pub, reason = "the integration tests use the rest")]
    #[path = "../../../../tests/src/proxy.rs"]
    pub(crate) mod proxy;
    pub(crate) mod server;
    pub(crate) mod simulated;
    pub(crate) mod text;

    mod charsets;
    mod connecting;
    mod damage;
    mod events;
    mod json;
    mod transactions;
    mod types;
}
