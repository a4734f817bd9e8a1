//! `caudal init`: a commented configuration from a live database.

mod text;
mod url;

use super::cli::{Cli, InitArguments};
use super::exit::Failure;
use super::output::{Format, line};
use super::registry::registry;
use caudal_control::config::secret::{Process, expand};
use caudal_control::config::tree::{Node, Value};
use caudal_control::config::{Problem, nearest::nearest};
use caudal_control::registry::Kind;
use caudal_core::{Check, Severity, TableId, TableSchema};
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use text::{Draft, End, Table};
use url::Url;

/// Looks at the database, and prints or writes what it found.
pub(crate) async fn init(cli: &Cli, arguments: &InitArguments) -> Result<ExitCode, Failure> {
    let registry = registry();
    let (source, url) = end("--source", &arguments.source, &registry.sources, None)?;
    let reader =
        kind(&registry.sources, &url, "--source")?.build(&source.name, "--source", node(&url)?, &[])?;
    let checks = reader.check().await;
    reachable(&checks, "--source")?;
    let estimates: HashMap<TableId, u64> = reader.estimates().await?.into_iter().collect();
    let known = |schema: TableSchema| Table { rows: estimates.get(&schema.id).copied(), schema };
    let tables = reader.discover().await?.into_iter().map(known).collect();
    let sink = match &arguments.sink {
        Some(url) => Some(sink(url, &source).await?),
        None => None,
    };
    let prefix = arguments.prefix.clone().unwrap_or_else(|| source.name.clone());
    let draft = Draft { prefix, source, tables, checks: noteworthy(checks), sink };
    hand_over(cli, arguments.write.as_deref(), &draft)?;
    Ok(ExitCode::SUCCESS)
}

async fn sink(written: &str, source: &End) -> Result<(End, Vec<Check>), Failure> {
    let registry = registry();
    let (end, url) = end("--sink", written, &registry.sinks, Some(source))?;
    let writer = kind(&registry.sinks, &url, "--sink")?.build(&end.name, "--sink", node(&url)?, &[])?;
    let checks = writer.check().await;
    reachable(&checks, "--sink")?;
    Ok((end, noteworthy(checks)))
}

/// The node that the configuration will hold, and the URL to look with. A URL that has `${…}` in it stays as it is written.
fn end<E: ?Sized + 'static>(
    option: &str,
    written: &str,
    kinds: &[Kind<E>],
    other: Option<&End>,
) -> Result<(End, Url), Failure> {
    let mut node = Node::made(Value::Text(written.to_owned()));
    expand(&mut node, &Process).map_err(|problems| named(problems, option))?;
    let Value::Text(expanded) = node.value else { return Err(Failure::new("a URL is text")) };
    let url = Url::parse(&expanded).ok_or_else(|| {
        Problem::new(option, "is no URL").fix("write it like mysql://user:password@host:3306/database")
    })?;
    let kind = kind(kinds, &url, option)?.name;
    let name = url.name().unwrap_or_else(|| kind.to_owned());
    let taken = other.is_some_and(|other| other.name == name);
    let variable = url::variable(&name, if taken { "_SINK" } else { "" });
    let (shown, variable) = match written.contains("${") {
        true => (written.to_owned(), None),
        false => url.without_secret(&variable),
    };
    Ok((End { kind, name, url: shown, variable }, url))
}

fn kind<'k, E: ?Sized + 'static>(
    kinds: &'k [Kind<E>],
    url: &Url,
    option: &str,
) -> Result<&'k Kind<E>, Problem> {
    kinds.iter().find(|kind| kind.is_meant_by(url.as_str())).ok_or_else(|| {
        let schemes: Vec<&str> = kinds.iter().flat_map(|kind| kind.schemes).copied().collect();
        let near = nearest(url.scheme(), &schemes)
            .map(|near| format!("did you mean {near}://? "))
            .unwrap_or_default();
        Problem::new(option, format!("no connector here for {}://", url.scheme()))
            .fix(format!("{near}There are: {}", schemes.join(", ")))
    })
}

fn node(url: &Url) -> Result<Node, Failure> {
    let mut node = Node::made(Value::Map(Vec::new()));
    node.put("url", Node::made(Value::Text(url.as_str().to_owned())));
    Ok(node)
}

fn named(problems: Vec<Problem>, option: &str) -> Failure {
    match problems.into_iter().next() {
        Some(problem) => Problem { field: option.to_owned(), ..problem }.into(),
        None => Failure::new("the URL cannot be expanded"),
    }
}

/// Without a connection there is nothing to write down.
fn reachable(checks: &[Check], option: &str) -> Result<(), Problem> {
    match checks {
        [only] if only.severity == Severity::Error => {
            let problem = Problem::new(option, format!("{}: {}", only.subject, only.message));
            Err(Problem { fix: only.fix.clone(), ..problem })
        }
        _ => Ok(()),
    }
}

fn noteworthy(checks: Vec<Check>) -> Vec<Check> {
    checks.into_iter().filter(|check| check.severity > Severity::Ok).collect()
}

fn hand_over(cli: &Cli, file: Option<&Path>, draft: &Draft) -> Result<(), Failure> {
    let text = draft.text();
    let variables = draft.variables();
    if let Some(file) = file {
        write_new(file, &text)?;
    }
    match (cli.output, file) {
        (Format::Json, _) => {
            line(&json!({ "config": text, "variables": variables, "written": file }).to_string())?;
        }
        (Format::Text, None) => line(text.trim_end())?,
        (Format::Text, Some(file)) => line(&next_steps(file, &variables))?,
    }
    Ok(())
}

/// Never over a file that is there.
fn write_new(file: &Path, text: &str) -> Result<(), Problem> {
    let written = std::fs::File::create_new(file).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Problem::new("--write", format!("{} is there already", file.display()))
                .fix("name another file, or remove it")
        }
        _ => Problem::new("--write", format!("cannot write {}: {error}", file.display()))
            .fix("name a file in a folder that exists and that you may write to"),
    })
}

fn next_steps(file: &Path, variables: &[&str]) -> String {
    let shown = file.display();
    let mut lines = vec![format!("wrote {shown}; next:")];
    lines.extend(variables.iter().map(|variable| format!("  export {variable}='…'")));
    let option = if file == Path::new("caudal.yaml") { String::new() } else { format!(" --config {shown}") };
    lines.push(format!("  caudal check{option}\n  caudal run{option}"));
    lines.join("\n")
}
