//! The configuration, in two stages: as written (YAML, `${…}`) → resolved. After the second nothing can be "invalid config".
//!
//! The way: text → tree with lines ([`tree`]) → `${…}` fetched ([`secret`]) → typed ([`de`], `written`) → resolved
//! ([`resolved`]), where each connector reads its own node. All problems that do not hide each other are told at once.

pub mod de;
pub mod environment;
pub mod nearest;
pub mod problem;
pub mod reference;
pub mod resolved;
pub mod secret;
pub mod shown;
pub mod tree;
mod written;

pub use problem::{Invalid, Problem};
pub use resolved::{HttpSettings, LogSettings, Resolved, SinkEntry, SourceEntry};
pub use secret::Secret;
pub use written::{Consistency, OnReject, VerifySettings};

use crate::registry::Registry;
use schemars::JsonSchema;
use secret::{Fetched, Process, Vault};
use serde::de::DeserializeOwned;
use std::path::Path;
use tree::Node;

/// Largest configuration file, in bytes.
pub const LARGEST_FILE: u64 = 8 << 20;

/// Where a configuration of environment variables says that it comes from.
const VARIABLES: &str = "the environment variables ETL_*";

/// Reads and resolves a file; if it does not exist, the environment variables `ETL_*`, where they name a database.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load<K>(path: &Path, registry: &Registry<K>) -> Result<Resolved<K>, Invalid>
where
    K: DeserializeOwned + JsonSchema,
{
    if let Some(variables) = instead_of(path) {
        return from_variables(&variables, registry);
    }
    let origin = path.display().to_string();
    let text = file(path).map_err(|problem| Invalid::one(&origin, problem))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parse(&text, &origin, folder, registry, &Process)
}

/// Resolves YAML. `origin` names it, relative paths start at `folder`, secrets come from `vault`.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse<K>(
    text: &str,
    origin: &str,
    folder: &Path,
    registry: &Registry<K>,
    vault: &dyn Vault,
) -> Result<Resolved<K>, Invalid>
where
    K: DeserializeOwned + JsonSchema,
{
    let invalid = |problems| Invalid { origin: origin.to_owned(), problems };
    let mut root = Node::parse(text).map_err(|problem| invalid(vec![problem]))?;
    let fetched = secret::expand(&mut root, vault).map_err(invalid)?;
    resolved::resolve(&root, folder, registry).map_err(|problems| invalid(in_order(problems, &fetched)))
}

/// The variables that count because there is no file.
fn instead_of(path: &Path) -> Option<environment::Variables> {
    if path.exists() {
        return None;
    }
    Some(environment::of_process()).filter(environment::describes)
}

/// Resolves a configuration of environment variables alone.
///
/// # Errors
/// Everything that is wrong with them, by variable.
pub fn from_variables<K>(
    variables: &environment::Variables,
    registry: &Registry<K>,
) -> Result<Resolved<K>, Invalid>
where
    K: DeserializeOwned + JsonSchema,
{
    let invalid = |problems| Invalid { origin: VARIABLES.to_owned(), problems };
    let read = environment::read(variables, &registry.systems()).map_err(invalid)?;
    let environment::Environment { root, notes, fetched } = read;
    let blamed = |problem: Problem| environment::blamed(fetched.redacted(problem), &notes);
    match resolved::resolve(&root, Path::new(""), registry) {
        Ok(resolved) => Ok(Resolved { notes, ..resolved }),
        Err(problems) => Err(invalid(problems.into_iter().map(blamed).collect())),
    }
}

/// The configuration as the daemon reads it, in YAML, without secrets: `${…}` stand as they are written, passwords as `***`. Behind it, for
/// environment variables, what each one did.
///
/// # Errors
/// If there is none, or it cannot be read. Mistakes within it are not looked for.
pub fn show<K>(path: &Path, registry: &Registry<K>) -> Result<(String, Vec<environment::Note>), Invalid>
where
    K: DeserializeOwned + JsonSchema,
{
    if let Some(variables) = instead_of(path) {
        let invalid = |problems| Invalid { origin: VARIABLES.to_owned(), problems };
        let read = environment::read(&variables, &registry.systems()).map_err(invalid)?;
        return Ok((shown::yaml(&read.root, Some(&read.fetched)), read.notes));
    }
    let origin = path.display().to_string();
    let text = file(path).map_err(|problem| Invalid::one(&origin, problem))?;
    let root = Node::parse(&text).map_err(|problem| Invalid::one(&origin, problem))?;
    Ok((shown::yaml(&root, None), Vec::new()))
}

fn in_order(problems: Vec<Problem>, fetched: &Fetched) -> Vec<Problem> {
    let mut problems: Vec<Problem> = problems.into_iter().map(|problem| fetched.redacted(problem)).collect();
    problems.sort_by_key(|problem| problem.line);
    problems
}

fn file(path: &Path) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| {
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "name it with --config FILE or CAUDAL_CONFIG, write one with: caudal init --source URL --write caudal.yaml, or set ETL_DB_HOST and its like (docs/environment.md)"
            }
            _ => "make it readable for the user that runs caudal",
        };
        Problem::new("", format!("cannot read the configuration: {error}")).fix(fix)
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > LARGEST_FILE {
        return Err(
            Problem::new("", format!("is larger than {} MiB", LARGEST_FILE >> 20)).fix("name the right file")
        );
    }
    std::fs::read_to_string(path).map_err(unreadable)
}
