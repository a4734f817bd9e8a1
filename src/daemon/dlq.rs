//! `caudal dlq`: the events that a sink could not take.

use super::cli::{Chosen, Cli, DlqArguments, DlqVerb};
use super::compose;
use super::exit::Failure;
use super::output::{Format, count, duration, line, table};
use super::registry::registry;
use caudal_control::config::{self, Problem};
use caudal_core::Fault;
use caudal_kafka::{DeadLetter, Log};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often it is looked whether the daemon has applied letters.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Runs a verb.
pub(crate) async fn dlq(cli: &Cli, arguments: &DlqArguments) -> Result<ExitCode, Failure> {
    let resolved = config::load(&cli.config, &registry())?;
    let sink = &arguments.sink;
    if !resolved.sinks.iter().any(|entry| entry.name == *sink) {
        let names: Vec<&str> = resolved.sinks.iter().map(|entry| entry.name.as_str()).collect();
        let problem = Problem::new("SINK", format!("{sink} is no sink of the configuration"));
        return Err(problem.fix(format!("one of: {}", names.join(", "))).into());
    }
    let embedded = resolved.log.is_some();
    let log = compose::log(&resolved, resolved.log.as_ref().map(|log| log.listen))?;
    let told = |error: caudal_core::Error| match error.fault() {
        Fault::Transient if embedded => Failure::from(
            Problem::from(error)
                .fix("the log is served by the daemon: start it with `caudal run`, then look from elsewhere"),
        ),
        _ => error.into(),
    };
    let letters = log.letters(sink).await.map_err(told)?;
    match &arguments.verb {
        DlqVerb::List => list(cli.output, &letters),
        DlqVerb::Show { letter } => {
            show(cli.output, one(&letters, letter)?)?;
            Ok(ExitCode::SUCCESS)
        }
        DlqVerb::Drop { chosen } => {
            let ids: Vec<String> = choose(&letters, chosen)?.iter().map(|letter| letter.id.clone()).collect();
            log.drop_letters(sink, &ids).await.map_err(told)?;
            say(cli.output, &json!({"dropped": ids}), &format!("{} dropped", count(ids.len() as u64)))?;
            Ok(ExitCode::SUCCESS)
        }
        DlqVerb::Replay { chosen, wait } => {
            let chosen = choose(&letters, chosen)?;
            log.replay_letters(sink, &chosen).await.map_err(told)?;
            let left = applied(&log, sink, &chosen, Duration::from_secs(*wait)).await.map_err(told)?;
            replayed(cli.output, &chosen, &left, *wait)
        }
    }
}

/// Waits until each letter is gone or was refused again; gives those that stay.
pub(super) async fn applied(
    log: &Log,
    sink: &str,
    chosen: &[DeadLetter],
    wait: Duration,
) -> Result<Vec<DeadLetter>, caudal_core::Error> {
    let begun = Instant::now();
    loop {
        let mut left = log.letters(sink).await?;
        left.retain(|letter| chosen.iter().any(|one| one.id == letter.id));
        if left.iter().all(|letter| !letter.replay) || begun.elapsed() >= wait {
            return Ok(left);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn replayed(
    output: Format,
    chosen: &[DeadLetter],
    left: &[DeadLetter],
    wait: u64,
) -> Result<ExitCode, Failure> {
    let (waiting, refused): (Vec<&DeadLetter>, Vec<&DeadLetter>) =
        left.iter().partition(|letter| letter.replay);
    let ids = |letters: &[&DeadLetter]| letters.iter().map(|letter| letter.id.clone()).collect::<Vec<_>>();
    let applied: Vec<&DeadLetter> =
        chosen.iter().filter(|one| left.iter().all(|letter| letter.id != one.id)).collect();
    let mut text = format!("{} applied", count(applied.len() as u64));
    for letter in &refused {
        text.push_str(&format!("\n{}: refused again: {}", letter.id, letter.cause));
    }
    if !waiting.is_empty() {
        text.push_str(&format!(
            "\n{} not applied within {wait} s: the daemon applies them when the sink runs (caudal status)",
            count(waiting.len() as u64)
        ));
    }
    let value = json!({"applied": ids(&applied), "refused": ids(&refused), "waiting": ids(&waiting)});
    say(output, &value, &text)?;
    Ok(if left.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn say(output: Format, value: &Value, text: &str) -> Result<(), Failure> {
    Ok(line(&match output {
        Format::Json => value.to_string(),
        Format::Text => text.to_owned(),
    })?)
}

/// The letter of that name, or the only one whose name ends so.
fn one<'a>(letters: &'a [DeadLetter], name: &str) -> Result<&'a DeadLetter, Failure> {
    let ends = |letter: &&DeadLetter| letter.id == name || letter.id.ends_with(&format!("/{name}"));
    let found: Vec<&DeadLetter> = letters.iter().filter(ends).collect();
    match found[..] {
        [letter] => Ok(letter),
        [] => Err(Problem::new("LETTER", format!("there is no dead letter {name}"))
            .fix("caudal dlq SINK list names them")
            .into()),
        _ => Err(Problem::new("LETTER", format!("{} letters end with {name}", found.len()))
            .fix("give the whole name")
            .into()),
    }
}

fn choose(letters: &[DeadLetter], chosen: &Chosen) -> Result<Vec<DeadLetter>, Failure> {
    if chosen.all {
        return Ok(letters.to_vec());
    }
    chosen.letters.iter().map(|name| one(letters, name).cloned()).collect()
}

fn list(output: Format, letters: &[DeadLetter]) -> Result<ExitCode, Failure> {
    match output {
        Format::Json => {
            line(&Value::Array(letters.iter().map(as_json).collect()).to_string())?;
        }
        Format::Text if letters.is_empty() => line("no dead letters")?,
        Format::Text => {
            let rows: Vec<Vec<String>> = letters.iter().map(row).collect();
            line(&table(&["LETTER", "KEY", "AGE", "ATTEMPTS", "CAUSE"], &rows))?;
        }
    }
    Ok(if letters.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn row(letter: &DeadLetter) -> Vec<String> {
    let now = caudal_engine::status::now_us() / 1_000;
    let age = letter.set_aside_ms.map(|at| duration(Duration::from_millis((now - at).max(0) as u64)));
    vec![
        letter.id.clone(),
        letter.key.as_deref().map_or_else(|| "-".to_owned(), |key| parsed(key).to_string()),
        age.unwrap_or_else(|| "-".to_owned()),
        letter.attempts.to_string(),
        letter.cause.clone(),
    ]
}

fn show(output: Format, letter: &DeadLetter) -> Result<(), Failure> {
    let value = as_json(letter);
    let Format::Text = output else { return Ok(line(&value.to_string())?) };
    for (name, shown) in [
        ("letter", letter.id.clone()),
        ("cause", letter.cause.clone()),
        ("attempts", letter.attempts.to_string()),
        ("position", letter.position.clone().unwrap_or_else(|| "-".to_owned())),
        ("key", value["key"].to_string()),
        ("headers", value["headers"].to_string()),
    ] {
        line(&format!("{name:<9} {shown}"))?;
    }
    let body = serde_json::to_string_pretty(&value["value"]).unwrap_or_default();
    Ok(line(&format!("value     {body}"))?)
}

fn as_json(letter: &DeadLetter) -> Value {
    let headers = letter.headers.iter().map(|(name, value)| (name.clone(), parsed(value)));
    json!({
        "id": letter.id,
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "key": letter.key.as_deref().map_or(Value::Null, parsed),
        "value": letter.value.as_deref().map_or(Value::Null, parsed),
        "headers": headers.collect::<serde_json::Map<_, _>>(),
        "cause": letter.cause,
        "attempts": letter.attempts,
        "position": letter.position,
        "set_aside_ms": letter.set_aside_ms,
        "replay_requested": letter.replay,
    })
}

/// What is no JSON is shown as text.
fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::field_reassign_with_default, reason = "some fields are the log's own")]
    fn letter(id: &str) -> DeadLetter {
        let mut letter = DeadLetter::default();
        letter.id = id.to_owned();
        letter.key = Some(br#"{"id":1}"#.to_vec());
        letter.attempts = 2;
        letter
    }

    #[test]
    fn a_letter_is_found_by_the_end_of_its_name_if_that_is_plain() {
        let letters = [letter("s.a/0/7"), letter("s.b/0/7"), letter("s.b/0/17")];
        assert_eq!(one(&letters, "s.b/0/7").unwrap().id, "s.b/0/7");
        assert_eq!(one(&letters, "17").unwrap().id, "s.b/0/17");
        assert!(one(&letters, "0/7").is_err() && one(&letters, "8").is_err());
    }

    #[test]
    fn scripts_get_keys_and_values_as_json() {
        let shown = as_json(&letter("s.a/0/7"));
        assert_eq!(
            (&shown["key"]["id"], &shown["value"], &shown["attempts"]),
            (&json!(1), &Value::Null, &json!(2))
        );
    }
}
