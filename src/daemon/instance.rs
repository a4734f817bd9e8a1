//! The name of this instance, kept in `data_dir` over restarts: with it a consumer group gives a daemon that was killed its work
//! back at once. Losing it costs nothing but that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use uuid::Uuid;

/// The name, which nobody else can have while this is alive.
pub(crate) struct Instance {
    name: String,
    /// Locked.
    _file: File,
}

impl Instance {
    /// Takes the name that `data_dir` keeps, or makes one. None if another daemon has it, or the folder cannot be written: this one
    /// then has no name.
    pub(crate) fn of(data_dir: &Path) -> Option<Self> {
        match Self::open(data_dir) {
            Ok(instance) => Some(instance),
            Err(error) => {
                let data_dir = data_dir.display();
                tracing::debug!(%data_dir, %error, "this instance has no name of its own");
                None
            }
        }
    }

    fn open(data_dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(data_dir)?;
        let path = data_dir.join("instance");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.try_lock()?;
        let mut name = String::new();
        (&mut file).take(100).read_to_string(&mut name)?;
        if Uuid::parse_str(name.trim()).is_err() {
            name = Uuid::new_v4().to_string();
            file.set_len(0)?;
            file.write_all(name.as_bytes())?;
            file.sync_all()?;
        }
        Ok(Self { name: name.trim().to_owned(), _file: file })
    }

    /// Letters, digits and `-`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_kept_and_only_one_daemon_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = Instance::of(dir.path()).unwrap();
        assert!(Instance::of(dir.path()).is_none());
        let name = first.name().to_owned();
        drop(first);
        assert_eq!(Instance::of(dir.path()).unwrap().name(), name);
    }
}
