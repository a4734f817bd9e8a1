//! The snapshot of one table by 1, 2 and 4 readers into the embedded log, beside a dump of the same table in the same run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use caudal_tests::{Daemon, DaemonConfig, Family, MysqlServer};

use crate::load::Loader;
use crate::measure::{self, Line};

/// Prints a table: one line for the dump, one for each number of readers.
pub(crate) async fn measure(family: Family, rows: u64, readers: &[u32]) -> Result<Vec<Line>> {
    let source = MysqlServer::shared(family);
    let database = source.database("readers").await?;
    eprintln!("loading {rows} rows");
    Loader::create(&source.admin_url(&database), rows).await?;
    source.sql(&database, "ANALYZE TABLE sbtest").await?;
    let (time, bytes) = dump(source, &database).await?;
    let mut lines = vec![Line::plain("-", &format!("dump | wc -c, {} MB", bytes / 1_000_000), rows, time)];
    for count in readers {
        let config = DaemonConfig::new(&format!("readers{count}"))
            .source("bench", &source.url(&database), &["sbtest"])
            .source_line("bench", &format!("snapshot: {{readers: {count}}}"));
        let topic = format!("{}.{database}.sbtest", config.prefix);
        eprintln!("{count} readers");
        let mut daemon = Daemon::start(&config)?;
        let snapshot = measure::until_log_holds(&daemon, &topic, rows).await?;
        let share = time.as_secs_f64() / snapshot.time.as_secs_f64();
        let phase = format!("snapshot, {count} readers: {share:.2} of the dump");
        lines.push(Line::volume("embedded", &phase, rows, &snapshot));
        daemon.terminate(Duration::from_secs(15)).await?;
    }
    Ok(lines)
}

/// Dumps the table into `wc -c`: how long, how many bytes.
async fn dump(source: &MysqlServer, database: &str) -> Result<(Duration, u64)> {
    let tool = match source.family() {
        Family::MariaDb => "mariadb-dump",
        _ => "mysqldump",
    };
    let script = format!(
        "{tool} -h127.0.0.1 -P{} -uadmin -padmin-secret --single-transaction --quick {database} sbtest | wc -c",
        source.port()
    );
    let started = Instant::now();
    let out = tokio::process::Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().await?;
    let time = started.elapsed();
    if !out.status.success() {
        bail!("{tool}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let bytes = String::from_utf8_lossy(&out.stdout).trim().parse().context("what wc says")?;
    Ok((time, bytes))
}
