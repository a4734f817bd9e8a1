//! The configuration, in two stages: as written (YAML, `${…}`) → resolved. After the second nothing can be "invalid config".
//!
//! The way: text → tree with lines ([`tree`]) → `${…}` fetched ([`secret`]) → typed ([`de`], `written`) → resolved
//! ([`resolved`]), where each connector reads its own node. All problems that do not hide each other are told at once.

pub mod de;
pub mod nearest;
pub mod problem;
pub mod reference;
pub mod resolved;
pub mod secret;
pub mod tree;
mod written;

pub use problem::{Invalid, Problem};
pub use resolved::{HttpSettings, LogSettings, Resolved, SinkEntry, SourceEntry};
pub use secret::Secret;
pub use written::{Consistency, OnReject};

use crate::registry::Registry;
use schemars::JsonSchema;
use secret::{Fetched, Process, Vault};
use serde::de::DeserializeOwned;
use std::path::Path;
use tree::Node;

/// Largest configuration file, in bytes.
pub const LARGEST_FILE: u64 = 8 << 20;

/// Reads and resolves a file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load<K>(path: &Path, registry: &Registry<K>) -> Result<Resolved<K>, Invalid>
where
    K: DeserializeOwned + JsonSchema,
{
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

fn in_order(problems: Vec<Problem>, fetched: &Fetched) -> Vec<Problem> {
    let mut problems: Vec<Problem> = problems.into_iter().map(|problem| fetched.redacted(problem)).collect();
    problems.sort_by_key(|problem| problem.line);
    problems
}

fn file(path: &Path) -> Result<String, Problem> {
    let unreadable = |error: std::io::Error| {
        let fix = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "name it with --config FILE or CAUDAL_CONFIG, or write one with: caudal init --source URL --write caudal.yaml"
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
