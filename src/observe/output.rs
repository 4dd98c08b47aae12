//! Output of the access log: standard output or a file, opened by path and reopened on request
//! after a log rotation moved it. Only the journal's writer thread writes to it.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::config::LogOutput;

#[derive(Debug)]
pub(super) enum LogSink {
    Off,
    Stdout,
    File {
        path: PathBuf,
        file: File,
        /// True: the latest write stopped inside a line, and the next one begins a new line.
        torn: bool,
    },
}

impl LogSink {
    /// # Errors
    /// When the file cannot be opened for appending; the error names it.
    pub(super) fn open(output: &LogOutput) -> io::Result<LogSink> {
        match output {
            LogOutput::Off => Ok(LogSink::Off),
            LogOutput::Stdout => Ok(LogSink::Stdout),
            LogOutput::File(path) => Ok(LogSink::File {
                path: path.clone(),
                file: append(path)?,
                torn: false,
            }),
        }
    }

    /// Opens the same path again; on an error the present file stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let LogSink::File { path, file, torn } = self {
            *file = append(path)?;
            *torn = false;
        }
        Ok(())
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            LogSink::Off => Ok(()),
            LogSink::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines).and_then(|()| stdout.flush())
            }
            LogSink::File { file, torn, .. } => {
                if *torn {
                    file.write_all(b"\n")?;
                }
                // Torn until the last byte is written: a full disk accepts a part of a write.
                *torn = true;
                file.write_all(lines)?;
                *torn = false;
                Ok(())
            }
        }
    }
}

/// Mode of a new file: it has addresses of clients, and log collectors read it by the group.
const MODE: u32 = 0o640;

/// Opens a file without waiting: a FIFO that nobody reads is an error, where an ordinary open would
/// block the reload for ever. A symbolic link is an error, too: anyone who may write to the folder
/// could direct our log to any file. Those of `/dev` (`/dev/stderr`) are the system's.
fn append(path: &Path) -> io::Result<File> {
    let mut flags = OFlags::NONBLOCK;
    if !path.starts_with("/dev") {
        flags |= OFlags::NOFOLLOW;
    }
    let opened = File::options()
        .append(true)
        .create(true)
        .mode(MODE)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    opened.map_err(|error| {
        let is_link = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
        let why = if is_link {
            "it is a symbolic link; give the file that it leads to".to_owned()
        } else {
            error.to_string()
        };
        io::Error::new(
            error.kind(),
            format!("open access log {}: {why}", path.display()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let error = LogSink::open(&LogOutput::File("/nowhere/access.log".into())).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("open access log /nowhere/access.log: "),
            "{error}"
        );
    }

    #[test]
    fn reopening_follows_the_path_after_a_rotation() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut output = LogSink::open(&LogOutput::File(path.clone())).unwrap();
        output.write(b"one\n").unwrap();
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        output.write(b"two\n").unwrap();
        output.reopen().unwrap();
        output.write(b"three\n").unwrap();
        assert_eq!(
            std::fs::read(folder.path().join("access.log.1")).unwrap(),
            b"one\ntwo\n"
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
    }

    #[test]
    fn a_new_file_is_for_owner_and_group_and_no_link_is_followed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("a.log"), folder.path().join("link"));
        LogSink::open(&LogOutput::File(path.clone())).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        symlink(&path, &link).unwrap();
        let error = LogSink::open(&LogOutput::File(link)).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    #[test]
    fn a_fifo_that_nobody_reads_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(LogSink::open(&LogOutput::File(path)).is_err());
    }
}
