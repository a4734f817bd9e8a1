//! What the daemon does per second, per CPU second and per byte, and how late it is, beside Debezium on the same machine, the same rows
//! and the same broker: whoever is measured takes turns, for some rounds. Prints a table of medians, with the goals.
//!
//! `tests/bench/run` builds the daemon with optimisation, fetches the servers and Debezium, and starts this. In each round a database is
//! filled anew; every contestant reads it (snapshot), then two backlogs that are written while nobody runs, then it is watched at
//! steady rates. The floors are what the machine allows without that work: the binlog pulled raw, librdkafka producing the same
//! bytes from memory, COPY of the same rows. CPU and memory are of the contestant's process alone, read from `/proc`: with Kafka the
//! broker's are not in it, with the embedded log the log's are.

mod batches;
mod contestant;
#[allow(dead_code, reason = "the other benchmark uses all of it")]
mod copy;
mod debezium;
mod figures;
mod floors;
mod latency;
mod load;
mod plan;
mod plot;
mod produce;
mod watch;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use caudal_tests::{Family, Kafka, MysqlServer, PgDatabase, Postgres};

use contestant::Contestant;
use debezium::{Capture, Debezium};
use figures::{Figures, Metric};
use latency::Load;
use load::Loader;
use plan::{Plan, Runner, Work};

fn main() -> Result<()> {
    let Some(plan) = Plan::from_arguments(std::env::args().skip(1))? else {
        println!("{}", plan::HELP);
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut figures = Figures::default();
        for family in &plan.families {
            let server = start(*family)?;
            for number in 1..=plan.rounds {
                let round = Round::new(&plan, &server, number).await?;
                let done = round.run(&mut figures).await;
                // What is known so far is worth more than nothing.
                report(&plan, &figures)?;
                done.with_context(|| format!("round {number} on {}", round.source))?;
            }
        }
        print!("{}", figures.markdown(&figures::machine()));
        Ok(())
    })
}

/// Transactions are not compressed in the log: every contestant pulls the same plain bytes.
fn start(family: Family) -> Result<MysqlServer> {
    let options: &[&str] = match family {
        Family::MariaDb => &["--innodb-buffer-pool-size=512M"],
        Family::Mysql97 | Family::Mysql80 => {
            &["--binlog-transaction-compression=OFF", "--innodb-buffer-pool-size=512M"]
        }
    };
    MysqlServer::start(family, options)
}

fn report(plan: &Plan, figures: &Figures) -> Result<()> {
    let Some(dir) = &plan.out else { return Ok(()) };
    let machine = figures::machine();
    std::fs::create_dir_all(dir)?;
    let write = |name: &str, text: String| std::fs::write(Path::new(dir).join(name), text);
    write("results.json", format!("{:#}\n", figures.json(&machine)))?;
    write("results.md", figures.markdown(&machine))?;
    write("results.svg", plot::svg(figures))?;
    Ok(())
}

/// One round on one server.
struct Round<'a> {
    plan: &'a Plan,
    server: &'a MysqlServer,
    source: &'static str,
    database: String,
    loader: Loader,
    number: u32,
}

impl<'a> Round<'a> {
    async fn new(plan: &'a Plan, server: &'a MysqlServer, number: u32) -> Result<Self> {
        let database = server.database("bench").await?;
        eprintln!("round {number}: loading {} rows", plan.rows);
        let loader = Loader::create(&server.admin_url(&database), plan.rows).await?;
        let source = if server.family() == Family::MariaDb { "MariaDB 10.11" } else { "MySQL 9.7" };
        Ok(Self { plan, server, source, database, loader, number })
    }

    async fn run(&self, figures: &mut Figures) -> Result<()> {
        let plan = self.plan;
        let mut all = Vec::new();
        for runner in &plan.runners {
            all.push(Contestant::prepare(*runner, self.number, self.server, &self.database)?);
        }
        // Nobody is always first.
        let turn = self.number as usize % all.len().max(1);
        all.rotate_left(turn);
        self.volumes(&mut all, figures, "snapshot", plan.rows).await?;
        if plan.does(Work::Backlog) {
            let events = self.loader.backlog(plan.rows, plan.events).await?;
            self.volumes(&mut all, figures, "backlog", events).await?;
            if plan.does(Work::Floors) {
                self.floors(&all, figures, events).await?;
            }
        }
        if plan.does(Work::Single) {
            self.loader.singles(plan.single).await?;
            self.volumes(&mut all, figures, "single", plan.single).await?;
        }
        if plan.does(Work::Latency) {
            self.latencies(&mut all, figures).await?;
        }
        if plan.does(Work::Idle) {
            self.idle(&mut all, figures).await?;
        }
        if plan.does(Work::Apply) {
            self.applies(&mut all, figures).await?;
        }
        Ok(())
    }

    /// Each in turn does the same work from its stored place.
    async fn volumes(
        &self,
        all: &mut [Contestant],
        figures: &mut Figures,
        work: &str,
        events: u64,
    ) -> Result<()> {
        for one in all {
            eprintln!("round {}: {work} of {events}: {}", self.number, one.runner.name());
            one.start()?;
            let volume = watch::until_log_holds(one, events).await?;
            one.stop().await?;
            eprintln!(
                "  {:.0} events/s, {:.2} CPU-s per million, {} MB",
                volume.rate,
                volume.cpu,
                volume.peak / 1_000_000
            );
            figures.volume((self.source, work, one.runner.name()), &volume);
        }
        Ok(())
    }

    async fn floors(&self, all: &[Contestant], figures: &mut Figures, events: u64) -> Result<()> {
        eprintln!("round {}: floors", self.number);
        let rows = u64::from(self.number) * (self.plan.rows + events);
        let raw = floors::raw_binlog(self.server, rows)?;
        figures.volume((self.source, "floor: binlog pulled raw", "the server's own tool"), &raw);
        if let Some(ours) = all.iter().find(|c| c.runner == Runner::Kafka) {
            let produced = floors::produce(&ours.topic, events).await?;
            figures.volume((self.source, figures::FLOOR, "librdkafka"), &produced);
            let built = floors::batches(&ours.topic, events).await?;
            figures.volume((self.source, figures::FLOOR, "batches built by hand"), &built);
        }
        Ok(())
    }

    async fn latencies(&self, all: &mut [Contestant], figures: &mut Figures) -> Result<()> {
        for one in all {
            one.start()?;
            watch::until_quiet(one).await?;
            for rate in &self.plan.rates {
                let work = format!("latency {rate}/s");
                eprintln!("round {}: {work}: {}", self.number, one.runner.name());
                let before = one.usage()?;
                let load = self.load(*rate).await?;
                let found = latency::to_topic(&one.brokers(), &one.topic, &self.loader, load).await?;
                eprintln!("  p50 {:.1}, p99 {:.1} ms at {:.0}/s", found.p50, found.p99, found.rate);
                let of = (self.source, work.as_str(), one.runner.name());
                figures.latency(of, &found);
                let usage = one.usage()?;
                let events = f64::from(*rate) * self.plan.seconds as f64;
                figures.add(of, Metric::Cpu, (usage.cpu_seconds - before.cpu_seconds) / events * 1e6);
                figures.add(of, Metric::Peak, usage.peak as f64 / 1e6);
            }
            watch::until_quiet(one).await?;
            one.stop().await?;
        }
        Ok(())
    }

    async fn load(&self, rate: u32) -> Result<Load> {
        let first = self.loader.top().await? + 1;
        Ok(Load { first, rate, time: Duration::from_secs(self.plan.seconds) })
    }

    /// A process that has caught up and gets nothing.
    async fn idle(&self, all: &mut [Contestant], figures: &mut Figures) -> Result<()> {
        for one in all {
            one.start()?;
            watch::until_quiet(one).await?;
            let before = one.usage()?;
            tokio::time::sleep(Duration::from_secs(self.plan.seconds)).await;
            let after = one.usage()?;
            let of = (self.source, "idle", one.runner.name());
            let share = (after.cpu_seconds - before.cpu_seconds) / self.plan.seconds as f64;
            figures.add(of, Metric::Core, share * 100.0);
            figures.add(of, Metric::Resident, after.resident as f64 / 1e6);
            one.stop().await?;
        }
        Ok(())
    }

    /// The log into an empty PostgreSQL, and how late commits are seen there.
    async fn applies(&self, all: &mut [Contestant], figures: &mut Figures) -> Result<()> {
        for one in all {
            eprintln!("round {}: apply: {}", self.number, one.runner.name());
            let sink = Postgres::shared().database("bench").await?;
            if one.runner == Runner::Debezium {
                self.apply_by_jdbc(figures, &sink).await?;
            } else {
                self.apply(one, figures, &sink).await?;
            }
        }
        Ok(())
    }

    async fn apply(&self, one: &mut Contestant, figures: &mut Figures, sink: &PgDatabase) -> Result<()> {
        let rows = self.loader.rows().await?;
        one.sink(sink)?;
        one.start()?;
        let volume = watch::until_sink_holds(|| one.usage(), sink, rows, one.end).await?;
        eprintln!(
            "  {:.0} events/s, {:.2} CPU-s per million, {} MB",
            volume.rate,
            volume.cpu,
            volume.peak / 1_000_000
        );
        figures.volume((self.source, "apply", one.runner.name()), &volume);
        if self.plan.does(Work::Floors) {
            let copied = floors::copy(sink).await?;
            figures.volume((self.source, "floor: COPY of the same rows", "PostgreSQL"), &copied);
        }
        for &rate in &self.plan.rates {
            let found = latency::to_sink(sink, &self.loader, self.load(rate).await?).await?;
            let work = format!("commit to PostgreSQL at {rate}/s");
            figures.latency((self.source, &work, one.runner.name()), &found);
        }
        watch::until_quiet(one).await?;
        one.stop().await
    }

    /// Debezium's sink wants the schema in each record: a second capture writes such a topic first, unmeasured.
    async fn apply_by_jdbc(&self, figures: &mut Figures, sink: &PgDatabase) -> Result<()> {
        let name = Runner::Debezium.name();
        let (brokers, prefix) = (Kafka::shared().bootstrap(), format!("bench-jdbc-{}", self.number));
        let capture = Capture {
            server: self.server,
            database: &self.database,
            prefix: &prefix,
            brokers: &brokers,
            schemas: true,
        };
        let topic = format!("{prefix}.{}.sbtest", self.database);
        let mut source = Debezium::capture(&capture)?;
        let rows = self.loader.rows().await?;
        source.start()?;
        watch::until_topic_rests(&brokers, &topic, rows).await?;
        source.stop().await?;
        let mut jdbc = Debezium::sink(&brokers, &topic, &sink.url)?;
        jdbc.start()?;
        let done = watch::until_sink_holds(|| jdbc.usage(), sink, rows, rows).await;
        let volume = done.with_context(|| jdbc.log_tail())?;
        eprintln!(
            "  {:.0} events/s, {:.2} CPU-s per million, {} MB",
            volume.rate,
            volume.cpu,
            volume.peak / 1_000_000
        );
        figures.volume((self.source, "apply", name), &volume);
        source.start()?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        for &rate in &self.plan.rates {
            let found = latency::to_sink(sink, &self.loader, self.load(rate).await?).await?;
            let work = format!("commit to PostgreSQL at {rate}/s");
            figures.latency((self.source, &work, name), &found);
        }
        jdbc.stop().await?;
        source.stop().await
    }
}
