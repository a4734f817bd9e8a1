//! The only door to the file system.
//!
//! A [`Disk`] is the real one. In tests it also remembers how much of every file was fsynced, so that a test can *drop
//! what power would take* ([`faults::Faults::cut_power`]), hold an fsync back, or have a write or an fsync fail.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
pub(crate) mod faults;

/// Handle to the file system; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<faults::Faults>,
}

/// An append-only file: written at its end, read anywhere, cut only to undo.
pub(crate) struct DiskFile {
    file: File,
    path: PathBuf,
    #[cfg(test)]
    disk: Disk,
}

impl Disk {
    /// Opens a file to append to and read from; creates it when `create` is set.
    pub(crate) fn open(&self, path: &Path, create: bool) -> io::Result<DiskFile> {
        let file = OpenOptions::new().read(true).append(true).create(create).open(path)?;
        #[cfg(test)]
        self.faults.opened(path, create)?;
        Ok(DiskFile {
            file,
            path: path.to_path_buf(),
            #[cfg(test)]
            disk: self.clone(),
        })
    }

    /// Replaces a whole file atomically: after a crash the old or the new contents are there, and after return the new.
    pub(crate) fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let fresh = path.with_extension("new");
        remove_if_there(&fresh)?;
        let file = self.open(&fresh, true)?;
        file.append(contents)?;
        file.sync()?;
        self.rename(&fresh, path)
    }

    /// Renames a synced file, and makes the name durable.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.renamed(from, to)?;
        fs::rename(from, to)?;
        self.sync_dir(to.parent().unwrap_or(Path::new(".")))
    }

    /// Removes a file; one that is gone already is fine.
    pub(crate) fn remove(&self, path: &Path) -> io::Result<()> {
        remove_if_there(path)
    }

    /// Makes the names in a folder durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        #[cfg(test)]
        self.faults.syncing(dir)?;
        File::open(dir)?.sync_all()
    }

    /// Creates a folder with its parents, durably.
    pub(crate) fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.create_dir(parent)?;
        }
        match fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
            _ => Ok(()),
        }
    }
}

impl DiskFile {
    /// Appends all bytes; they are not durable yet. After an error the file may hold a part of them.
    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.append_two(bytes, &[])
    }

    /// Appends the first bytes, then the second, in one system call where the system takes them all.
    pub(crate) fn append_two(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Err((written, e)) = self.disk.faults.writing(&self.path, first.len() + second.len()) {
            (&self.file).write_all(&[first, second].concat()[..written])?;
            return Err(e);
        }
        let written = match (&self.file).write_vectored(&[IoSlice::new(first), IoSlice::new(second)]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        match written.checked_sub(first.len()) {
            Some(of_second) => (&self.file).write_all(&second[of_second..]),
            None => {
                (&self.file).write_all(&first[written..])?;
                (&self.file).write_all(second)
            }
        }
    }

    /// Fills the buffer from the position.
    pub(crate) fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, position)
    }

    /// Makes all bytes appended so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        let length = {
            let length = self.file.metadata()?.len();
            self.disk.faults.syncing(&self.path)?;
            length
        };
        self.file.sync_data()?;
        #[cfg(test)]
        self.disk.faults.synced(&self.path, length);
        Ok(())
    }

    /// Cuts the file to a length.
    pub(crate) fn cut(&self, length: u64) -> io::Result<()> {
        #[cfg(test)]
        self.disk.faults.cutting(&self.path, length)?;
        self.file.set_len(length)
    }

    /// Length in bytes as the file system has it.
    pub(crate) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
