//! Serves an embedded log until SIGTERM or Ctrl-C: `cargo run -p caudal-log --example serve -- DIR [PORT] [MAINTENANCE_MS]`.
//! For tests that kill it, and for tools.

use caudal_log::{Config, Log};
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: serve DIR [PORT] [MAINTENANCE_MS]")?;
    let port: u16 = arguments.next().map_or(Ok(0), |p| p.parse())?;
    let mut config = Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        data_dir: dir.into(),
        auto_create_topics: true,
        ..Config::default()
    };
    if let Some(ms) = arguments.next() {
        config.maintenance_interval = Duration::from_millis(ms.parse()?);
    }
    let begun = Instant::now();
    let log = Log::start(config).await?;
    println!("{} after {} ms", log.address(), begun.elapsed().as_millis());
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    log.shutdown().await;
    Ok(())
}
