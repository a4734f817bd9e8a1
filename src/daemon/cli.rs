//! The command line.

use super::output::Format;
use caudal_core::quantity::DurationText;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Streams the changes of MySQL and MariaDB into Kafka topics (its own or a cluster's) and from there into Postgres.
#[derive(Debug, Parser)]
#[command(name = "caudal", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 done, 1 found something wrong, 2 used wrongly.

Start here:
  caudal init --source mysql://cdc:secret@db:3306/shop --sink postgres://app@pg/dash --write caudal.yaml
  caudal check
  caudal run")]
pub(crate) struct Cli {
    /// The configuration.
    #[arg(
        long,
        short,
        global = true,
        env = "CAUDAL_CONFIG",
        default_value = "caudal.yaml",
        value_name = "FILE"
    )]
    pub(crate) config: PathBuf,

    /// What to print: text for people, JSON for scripts.
    #[arg(long, short, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,

    /// How log lines look (on stderr). What is logged is chosen by RUST_LOG: `RUST_LOG=debug`.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "CAUDAL_LOG_FORMAT",
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon: captures, the embedded log if no brokers are configured, sinks, HTTP.
    #[command(
        after_help = "SIGTERM or Ctrl-C ends the batch in flight, stores the positions and exits with 0 within 10 s.

Examples:
  caudal run
  caudal run --config /etc/caudal/shop.yaml --log-format json
  RUST_LOG=info,caudal_mysql=debug caudal run"
    )]
    Run,

    /// Write a commented configuration from a live database.
    Init(InitArguments),

    /// Check the configuration, then reachability, privileges and settings; each finding with its fix.
    Check(CheckArguments),

    /// Show where every pipeline of the running daemon stands.
    #[command(after_help = "Exits with 1 when the daemon is not running or a pipeline is not.

Examples:
  caudal status
  caudal status --output json | jq '.pipelines[] | {name, state, freshness_seconds}'")]
    Status,

    /// Read tables again while the daemon goes on: rows that differ are delivered, rows that are gone are deleted.
    Snapshot(SnapshotArguments),

    /// Read polled tables now, whatever their schedule says.
    Poll(PollArguments),

    /// Show when polled tables are read next, and what became of their last runs.
    Schedule(ScheduleArguments),

    /// Print events as they arrive in the log.
    Tap(TapArguments),

    /// Look after the events that a sink could not take.
    Dlq(DlqArguments),

    /// Look after the files of the embedded log, while the daemon is stopped.
    Log(LogArguments),

    /// Compare a sink's tables with their sources, row by row, while both live.
    Verify(VerifyArguments),

    /// Make tables of a sink anew from the log, while they are read and written, and exchange them in one transaction.
    Rebuild(RebuildArguments),

    /// Tell one row's way: from the source's log through the topic into the sinks, and what was set aside.
    Why(WhyArguments),

    /// Print the JSON Schema of the configuration.
    Schema(SchemaArguments),

    /// Show the configuration as the daemon reads it: the file, or the ETL_* variables where there is none.
    Config(ConfigArguments),
}

#[derive(Debug, Args)]
#[command(
    after_help = "The password never gets into the configuration: it is replaced by ${env:…}, and the first lines say what to export.

Examples:
  caudal init --source mysql://cdc:secret@db:3306/shop
  caudal init --source mysql://cdc:secret@db:3306/shop --sink postgres://app:pw@pg/dash --write caudal.yaml"
)]
pub(crate) struct InitArguments {
    /// The database to capture, as a URL.
    #[arg(long, value_name = "URL", env = "CAUDAL_SOURCE_URL", hide_env_values = true)]
    pub(crate) source: String,

    /// The database to fill, as a URL.
    #[arg(long, value_name = "URL", env = "CAUDAL_SINK_URL", hide_env_values = true)]
    pub(crate) sink: Option<String>,

    /// First part of the topics' names; by default the source's database.
    #[arg(long)]
    pub(crate) prefix: Option<String>,

    /// Write to this file, which must not exist yet, instead of stdout.
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 1 if anything would stop `run` or lose something; warnings alone exit with 0.

Examples:
  caudal check
  caudal check --offline
  caudal check --output json | jq '.findings[] | select(.severity != \"ok\")'"
)]
pub(crate) struct CheckArguments {
    /// Only the configuration itself: connect to nothing.
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "An event is one line: topic, operation (r read, c created, u updated, d deleted, t truncated), key, row.

Examples:
  caudal tap
  caudal tap shop.orders --from-beginning --limit 10
  caudal tap shop.orders --output json | jq .value.after"
)]
pub(crate) struct TapArguments {
    /// Topics, or `database.table`; all data topics of the prefix when left out.
    #[arg(value_name = "TOPIC")]
    pub(crate) topics: Vec<String>,

    /// What the topics hold already, too.
    #[arg(long)]
    pub(crate) from_beginning: bool,

    /// Stop after so many events.
    #[arg(long, short = 'n', value_name = "EVENTS")]
    pub(crate) limit: Option<u64>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Events are set aside by sinks with `on_reject: dead_letter`. A letter is named as `list` shows it, or by the end of that name.

Examples:
  caudal dlq dashboards list
  caudal dlq dashboards show shop.shop.orders/0/4711
  caudal dlq dashboards replay --all
  caudal dlq dashboards drop 0/4711
  caudal dlq dashboards list --output json | jq '.[] | {id, cause}'"
)]
pub(crate) struct DlqArguments {
    /// The sink.
    #[arg(value_name = "SINK")]
    pub(crate) sink: String,

    #[command(subcommand)]
    pub(crate) verb: DlqVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DlqVerb {
    /// List the letters: what, why, since when. Exits with 1 if there are any.
    #[command(after_help = "Examples:
  caudal dlq dashboards list
  caudal dlq dashboards list --output json")]
    List,

    /// Show one letter: the event as it came, and why the sink could not take it.
    #[command(after_help = "Examples:
  caudal dlq dashboards show shop.shop.orders/0/4711
  caudal dlq dashboards show 4711 --output json | jq .value.after")]
    Show {
        /// The letter.
        letter: String,
    },

    /// Apply letters again: the current value of each one's key, by the running daemon.
    #[command(
        after_help = "A letter that is taken now is dropped; one that is refused again stays, with one more attempt. Exits with 1 if any stays.

Examples:
  caudal dlq dashboards replay shop.shop.orders/0/4711
  caudal dlq dashboards replay --all --wait 300"
    )]
    Replay {
        #[command(flatten)]
        chosen: Chosen,

        /// How long to wait for the daemon, in seconds; 0: do not wait.
        #[arg(long, default_value_t = 60, value_name = "SECONDS")]
        wait: u64,
    },

    /// Drop letters for good: their events will never be applied.
    #[command(after_help = "Examples:
  caudal dlq dashboards drop shop.shop.orders/0/4711
  caudal dlq dashboards drop --all")]
    Drop {
        #[command(flatten)]
        chosen: Chosen,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "The daemon must be stopped: it has the files in use.

Examples:
  caudal log check
  caudal log check --output json | jq '.findings[]'
  caudal log compact
  caudal log export --to kafka.yaml")]
pub(crate) struct LogArguments {
    #[command(subcommand)]
    pub(crate) verb: LogVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogVerb {
    /// Compare every journal line and every batch of records with its checksum. Changes nothing.
    #[command(
        after_help = "Each finding names file, byte and offset, and what to do. Exits with 1 if anything durable is damaged; what a crash left
unfinished is told, and is no damage.

Examples:
  caudal log check
  caudal log check --config /etc/caudal/shop.yaml --output json | jq .ok"
    )]
    Check,

    /// Compact all topics that are to be, whatever share of them is new.
    #[command(
        after_help = "What is younger than a topic's min.compaction.lag.ms stays, and so do deletes for delete.retention.ms.

Examples:
  caudal log compact
  caudal log compact --output json | jq '.[] | {topic, bytes_before, bytes_after}'"
    )]
    Compact,

    /// Copy everything to a Kafka cluster, so that the daemon goes on there and nothing is read again.
    #[command(
        after_help = "Topics, positions of sources, offsets of consumer groups and of the sinks move; the embedded log stays as it is. The cluster must
have no topics of this prefix, or empty ones. Afterwards start the daemon with the other configuration.

Examples:
  caudal log export --to kafka.yaml
  caudal log export --config shop.yaml --to shop-kafka.yaml --output json | jq .records"
    )]
    Export(ExportArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ExportArguments {
    /// The configuration to go on with: the same with `kafka.brokers`, and without `log`.
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// The letters.
    #[arg(value_name = "LETTER")]
    pub(crate) letters: Vec<String>,

    /// All letters of the sink.
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The daemon must run; the command goes to it through the log, is stored there, and survives restarts. What the log holds
already is not delivered again. With --where only rows that meet the condition are read, and those of its children by foreign
key; a row that no longer meets it is left as it is. Exits with 1 if a table is not captured, or the re-read was stopped.

Examples:
  caudal snapshot plex orders
  caudal snapshot plex orders --where 'created >= \"2024-01-01\"'
  caudal snapshot plex 'fact*' --detach --output json
  caudal snapshot plex --pause
  caudal snapshot plex orders --stop"
)]
pub(crate) struct SnapshotArguments {
    /// The source, as the configuration names it.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,

    /// Tables, or patterns, as in the source's `tables`.
    #[arg(value_name = "TABLE", required_unless_present_any = ["pause", "resume", "stop"])]
    pub(crate) tables: Vec<String>,

    /// Only rows that meet this condition, in the source's SQL.
    #[arg(long = "where", value_name = "SQL", requires = "tables")]
    pub(crate) condition: Option<String>,

    /// Do not wait until it is done.
    #[arg(long)]
    pub(crate) detach: bool,

    /// Have the source begin no further chunk.
    #[arg(long, conflicts_with_all = ["tables", "condition", "resume", "stop"])]
    pub(crate) pause: bool,

    /// Go on.
    #[arg(long, conflicts_with_all = ["tables", "condition", "stop"])]
    pub(crate) resume: bool,

    /// Give up the re-reads of these tables; of all with none named.
    #[arg(long, conflicts_with = "condition")]
    pub(crate) stop: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Both servers make digests of ranges of rows where they can; rows travel only where digests differ, or a column's type has no
text that both can make. What differs is looked at again until it cannot be a row in flight; a key is shown, never a value. The
capture and the sink must run. Nothing is changed anywhere, unless with --repair: then the sink's own reader applies what the topic has
of each key that differs, and where the topic itself is wrong the source is asked for these keys again; and all is compared once more.

Exit codes: 0 all equal, 3 rows differ, 1 a table or some rows could not be compared, 2 used wrongly.

Examples:
  caudal verify dashboards
  caudal verify dashboards orders shop.lines --rate 20000
  caudal verify dashboards orders --repair
  caudal verify dashboards --output json | jq '.tables[] | {table, different, missing, surplus}'"
)]
pub(crate) struct VerifyArguments {
    /// The sink.
    #[arg(value_name = "SINK")]
    pub(crate) sink: String,

    /// Tables, as `table` or `database.table` of the source; all when left out.
    #[arg(value_name = "TABLE")]
    pub(crate) tables: Vec<String>,

    /// Have what differs mended, through the log: up to 1,000 rows of a table.
    #[arg(long)]
    pub(crate) repair: bool,

    /// Rows per second at most, so that the servers have time for others.
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: Option<u64>,

    /// Rows of a range: what one statement looks at.
    #[arg(long, default_value_t = 5_000, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=20_000))]
    pub(crate) chunk_rows: u64,

    /// How long the sink may take to come up to the source, in seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "All changes of the row that its topic still holds are told, oldest first: compaction leaves at least the last one. When a row was written is
known where the sink's server keeps it (Postgres: track_commit_timestamp = on). Exits with 1 if the log knows no such key.

Examples:
  caudal why orders 4711
  caudal why shop.lines 4711 2
  caudal why orders 4711 --output json | jq '.changes[-1]'"
)]
pub(crate) struct WhyArguments {
    /// The table, as `table` or `database.table` of the source.
    #[arg(value_name = "TABLE")]
    pub(crate) table: String,

    /// The values of the key's columns, in their order.
    #[arg(value_name = "KEY", required = true, allow_negative_numbers = true)]
    pub(crate) key: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A shadow of each table is filled from its topic (the source may be gone), brought to where the sink stands, compared with what the topic
holds, and exchanged with the table in one transaction, with its grants, indexes, constraints, views and foreign keys. Readers and the
daemon go on; the daemon's writes to the table wait for a moment at the end. The table before is kept for `rollback_window`. A
call that was killed left the table as it was: the same call goes on.

Examples:
  caudal rebuild dashboards orders --dry-run
  caudal rebuild dashboards orders shop.lines
  caudal rebuild dashboards orders --from 2026-11-01
  caudal rebuild dashboards orders --rollback
  caudal rebuild dashboards orders --discard"
)]
pub(crate) struct RebuildArguments {
    /// The sink.
    #[arg(value_name = "SINK")]
    pub(crate) sink: String,

    /// Tables, as `table` or `database.table` of the source.
    #[arg(value_name = "TABLE", required = true)]
    pub(crate) tables: Vec<String>,

    /// Begin with a copy of the table as it is, and apply again what was written to the log since this day or moment (UTC), or from this
    /// offset on: much quicker than all of it, where only what came since is in doubt.
    #[arg(long, value_name = "DATE|OFFSET")]
    pub(crate) from: Option<String>,

    /// Say what would be done, how many rows that is, and about how long it takes.
    #[arg(long)]
    pub(crate) dry_run: bool,

    /// Go back to the table that the last rebuild replaced, brought up to date.
    #[arg(long, conflicts_with_all = ["from", "dry_run"])]
    pub(crate) rollback: bool,

    /// Give up a rebuild that was begun and not ended.
    #[arg(long, conflicts_with_all = ["from", "dry_run", "rollback"])]
    pub(crate) discard: bool,

    /// How long the table before is kept, in hours, instead of the sink's `rollback_window`.
    #[arg(long, value_name = "HOURS")]
    pub(crate) keep: Option<u64>,

    /// How long to try to exchange the tables while others hold on to them, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub(crate) wait: u64,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The daemon must run; the command goes to it through the log. Exits with 1 if a run failed.

Examples:
  caudal poll granja --all
  caudal poll granja --store tienda_01 --store tienda_02
  caudal poll granja inventario --store tienda_01
  caudal poll granja --failed --output json
  caudal poll granja ventas --lookback 7 --dry-run
  caudal poll granja inventario --store tienda_01 --force
  caudal poll granja --pause"
)]
pub(crate) struct PollArguments {
    /// The source, as the configuration names it.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,

    /// Tables; all when left out.
    #[arg(value_name = "TABLE")]
    pub(crate) tables: Vec<String>,

    /// A store by its id; may be given again.
    #[arg(long, alias = "tienda", value_name = "ID")]
    pub(crate) store: Vec<String>,

    /// All stores: the default.
    #[arg(long, alias = "todas", conflicts_with_all = ["store", "failed"])]
    pub(crate) all: bool,

    /// Only what failed the last time.
    #[arg(long, conflicts_with_all = ["store", "tables"])]
    pub(crate) failed: bool,

    /// Read all rows whatever the mode, and send all of them again; rows that are gone from two such runs in a row are deleted.
    #[arg(long, alias = "force_full_refresh", conflicts_with_all = ["lookback", "pause", "resume"])]
    pub(crate) force: bool,

    /// Read and compare, but send nothing and remember nothing: what would change is counted.
    #[arg(long, conflicts_with_all = ["detach", "pause", "resume"])]
    pub(crate) dry_run: bool,

    /// How far back a sliding window reaches, or an incremental one below its watermark, this time: days, or `36h`.
    #[arg(long, aliases = ["lookback-days", "lookback_days"], value_name = "DAYS", value_parser = lookback, conflicts_with_all = ["pause", "resume"])]
    pub(crate) lookback: Option<DurationText>,

    /// Do not wait until it is done.
    #[arg(long)]
    pub(crate) detach: bool,

    /// Begin no further run but those that are asked for by this command.
    #[arg(long, conflicts_with_all = ["tables", "store", "all", "failed", "resume"])]
    pub(crate) pause: bool,

    /// Go on by the schedule.
    #[arg(long, conflicts_with_all = ["tables", "store", "all", "failed"])]
    pub(crate) resume: bool,
}

/// A number of days, or a duration.
fn lookback(text: &str) -> Result<DurationText, String> {
    let days = text.parse::<u64>().ok().and_then(|days| days.checked_mul(86_400));
    match days {
        Some(seconds) => Ok(DurationText::secs(seconds)),
        None => text.parse().map_err(|_| "is no number of days, and no duration like `36h`".to_owned()),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Exits with 1 if a table's last run failed.

Examples:
  caudal schedule
  caudal schedule granja --output json | jq '.[].polls[] | {table, store, next_us}'")]
pub(crate) struct ScheduleArguments {
    /// The source; all polled ones when left out.
    #[arg(value_name = "SOURCE")]
    pub(crate) source: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  caudal schema config > caudal.schema.json
  caudal schema config --markdown > configuration.md")]
pub(crate) struct SchemaArguments {
    /// What to describe.
    #[arg(value_enum)]
    pub(crate) what: SchemaOf,

    /// As a reference page instead.
    #[arg(long)]
    pub(crate) markdown: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Secrets are not shown. With no file, ETL_DB_HOST and its like are the configuration.

Examples:
  caudal config show
  ETL_DB_HOST=db ETL_DB_USER=cdc ETL_DB_DATABASE=shop caudal config show")]
pub(crate) struct ConfigArguments {
    /// What to do.
    #[arg(value_enum)]
    pub(crate) what: ConfigVerb,
}

/// What can be done with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigVerb {
    /// Print it, without secrets.
    Show,
}

/// What has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// The configuration file.
    Config,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parsed(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_examples_parses_and_has_its_defaults() {
        let cli = parsed("caudal run").unwrap();
        assert!(matches!(cli.command, Command::Run));
        assert_eq!((cli.output, cli.log_format), (Format::Text, LogFormat::Text));

        let cli = parsed("caudal check --offline --config x.yaml --output json").unwrap();
        assert!(matches!(cli.command, Command::Check(CheckArguments { offline: true })));
        assert_eq!((cli.config.to_str(), cli.output), (Some("x.yaml"), Format::Json));

        let cli = parsed("caudal --config x.yaml init --source mysql://h/d --sink postgres://h/d --write f")
            .unwrap();
        let Command::Init(init) = cli.command else { panic!("init") };
        assert_eq!((init.source.as_str(), init.sink.as_deref()), ("mysql://h/d", Some("postgres://h/d")));

        let Command::Tap(tap) = parsed("caudal tap a b --from-beginning -n 5").unwrap().command else {
            panic!("tap")
        };
        assert_eq!((tap.topics.len(), tap.from_beginning, tap.limit), (2, true, Some(5)));
        let Command::Dlq(dlq) = parsed("caudal dlq dash replay a/0/1 b/0/2 --wait 5").unwrap().command else {
            panic!("dlq")
        };
        assert!(matches!(&dlq.verb, DlqVerb::Replay { chosen, wait: 5 } if chosen.letters.len() == 2));
        let Command::Log(log) = parsed("caudal log export --to k.yaml").unwrap().command else {
            panic!("log")
        };
        assert!(matches!(&log.verb, LogVerb::Export(to) if to.to.to_str() == Some("k.yaml")));
        assert!(matches!(parsed("caudal log check").unwrap().command, Command::Log(_)));
        assert!(parsed("caudal dlq dash drop").is_err(), "drop needs letters, or --all");
        let Command::Snapshot(snapshot) = parsed("caudal snapshot plex a b --where x=1").unwrap().command
        else {
            panic!("snapshot")
        };
        assert_eq!((snapshot.source.as_str(), snapshot.tables.len()), ("plex", 2));
        assert_eq!(snapshot.condition.as_deref(), Some("x=1"));
        assert!(matches!(parsed("caudal snapshot plex --pause").unwrap().command, Command::Snapshot(_)));
        let Command::Verify(verify) = parsed("caudal verify dash orders --rate 9").unwrap().command else {
            panic!("verify")
        };
        assert_eq!((verify.tables.len(), verify.rate, verify.chunk_rows), (1, Some(9), 5_000));
        let Command::Poll(poll) = parsed("caudal poll granja --tienda t1 --store t2").unwrap().command else {
            panic!("poll")
        };
        assert_eq!(
            (poll.source.as_str(), &poll.store[..]),
            ("granja", &["t1".to_owned(), "t2".to_owned()][..])
        );
        assert!(matches!(parsed("caudal poll granja --todas").unwrap().command, Command::Poll(p) if p.all));
        assert!(matches!(parsed("caudal schedule").unwrap().command, Command::Schedule(_)));
        assert!(matches!(parsed("caudal status").unwrap().command, Command::Status));
        assert!(matches!(parsed("caudal config show").unwrap().command, Command::Config(_)));
        assert!(matches!(parsed("caudal schema config").unwrap().command, Command::Schema(_)));
    }

    #[test]
    fn wrong_use_is_refused_by_the_parser_whose_exit_code_is_2() {
        for (line, kind) in [
            ("caudal", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("caudal rum", ErrorKind::InvalidSubcommand),
            ("caudal init", ErrorKind::MissingRequiredArgument),
            ("caudal check --ofline", ErrorKind::UnknownArgument),
            ("caudal tap -n many", ErrorKind::ValueValidation),
            ("caudal snapshot plex", ErrorKind::MissingRequiredArgument),
            ("caudal snapshot plex a --pause", ErrorKind::ArgumentConflict),
            ("caudal run --output yaml", ErrorKind::InvalidValue),
        ] {
            let error = parsed(line).unwrap_err();
            assert_eq!(error.kind(), kind, "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn every_verb_has_help_with_an_example() {
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_help().to_string();
            assert!(help.contains("Example"), "{help}");
            assert!(help.contains(&format!("caudal {}", verb.get_name())), "{help}");
        }
    }
}
