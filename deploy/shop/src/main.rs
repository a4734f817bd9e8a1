//! The sample shop: fills a MySQL or MariaDB database, works on it, watches its rows arrive in PostgreSQL, and proves both equal.

mod arrival;
mod figures;
mod generate;
mod live;
mod load;
mod proof;
mod schema;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// The sample shop of Caudal's quick start.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Creates the shop and fills it with about 200,000 rows; does nothing where it is there already.
    Load {
        /// The source, with its database: mysql://user:password@host:port/shop
        #[arg(long)]
        source: String,
        /// The same seed makes the same shop.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Shows the rows that were there before arriving in the sink, until all have.
    Arrival {
        #[command(flatten)]
        ends: Ends,
        /// Give up after so many seconds without a new row.
        #[arg(long, default_value_t = 60)]
        patience: u64,
    },
    /// Works on the shop and measures how long a commit takes to become visible in the sink.
    Live {
        #[command(flatten)]
        ends: Ends,
        /// How long, in seconds.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Transactions per second, over all clients.
        #[arg(long, default_value_t = 200)]
        rate: u32,
    },
    /// Compares source and sink row by row; exit code 1 when they differ.
    Verify {
        #[command(flatten)]
        ends: Ends,
        /// Seconds within which they must become equal.
        #[arg(long, default_value_t = 30)]
        patience: u64,
    },
}

/// The two ends of the pipeline.
#[derive(Args, Clone)]
struct Ends {
    /// The source, with its database: mysql://user:password@host:port/shop
    #[arg(long)]
    source: String,
    /// The sink: postgres://user@host:port/database
    #[arg(long)]
    sink: String,
    /// The schema of the sink's tables.
    #[arg(long, default_value = "public")]
    schema: String,
}

impl Ends {
    fn database(&self) -> anyhow::Result<String> {
        schema::database_of(&self.source)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // More than one crate of the tree brings a TLS provider; the choice must be made before the first connection.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(Cli::parse().verb).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<bool> {
    match verb {
        Verb::Load { source, seed } => load::load(&source, seed).await.map(|()| true),
        Verb::Arrival { ends, patience } => {
            arrival::watch(&ends, Duration::from_secs(patience)).await.map(|()| true)
        }
        Verb::Live { ends, seconds, rate } => live::run(&ends, Duration::from_secs(seconds), rate).await,
        Verb::Verify { ends, patience } => proof::prove(&ends, Duration::from_secs(patience)).await,
    }
}
