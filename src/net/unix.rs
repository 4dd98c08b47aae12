//! The file of a listening unix socket: a stale one is replaced, and the rights are set before a
//! client can connect. Until the socket listens, the kernel refuses every connect.

use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};
use socket2::{Domain, SockAddr, Socket, Type};

use super::accounts::{group_id, user_id};
use crate::config::FileRights;

/// A socket file, removed with its listener, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

/// Binds and does not listen yet.
pub(super) fn open(path: &Path, rights: &FileRights) -> io::Result<(Socket, SocketFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile {
        path: path.to_owned(),
        inode: std::fs::symlink_metadata(path)?.ino(),
    };
    file.set_rights(rights)?;
    Ok((socket, file))
}

/// Removes a socket file whose listener is gone. A live one stays, and binding then fails with
/// "address in use".
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Ok(());
    }
    // Not blocking: connecting to a live listener whose queue is full would wait for it, and with
    // it a start or reload.
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        _ => Ok(()),
    }
}

/// Verifies that the owner and the group exist.
///
/// # Errors
/// The owner or group that does not exist, or an error of the lookup.
pub(crate) fn verify_rights(rights: &FileRights) -> io::Result<()> {
    ids(rights).map(drop)
}

/// The file of a socket that another process has bound, and has handed over. `None`: another has
/// taken its place.
pub(super) fn taken_over(path: &Path) -> Option<SocketFile> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    let is_socket = metadata.file_type().is_socket();
    is_socket.then(|| SocketFile {
        path: path.to_owned(),
        inode: metadata.ino(),
    })
}

fn ids(rights: &FileRights) -> io::Result<(Option<Uid>, Option<Gid>)> {
    let owner = rights.owner.as_deref().map(user_id).transpose()?;
    let group = rights.group.as_deref().map(group_id).transpose()?;
    Ok((owner.map(Uid::from_raw), group.map(Gid::from_raw)))
}

impl SocketFile {
    /// Leaves the file where it is.
    pub(super) fn keep(mut self) {
        // No file has this number, so that dropping removes none.
        self.inode = 0;
    }

    /// Sets the rights by a descriptor, so that a link put in place of the file is not followed.
    pub(super) fn set_rights(&self, rights: &FileRights) -> io::Result<()> {
        if *rights == FileRights::default() {
            return Ok(());
        }
        let failed =
            |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let opened = rustix::fs::openat(
            CWD,
            &self.path,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        );
        let file = opened.map_err(|errno| failed("open its file", errno.into()))?;
        self.verify_own(&file)?;
        let (owner, group) = ids(rights)?;
        if owner.is_some() || group.is_some() {
            let changed = rustix::fs::chownat(&file, "", owner, group, AtFlags::EMPTY_PATH);
            changed.map_err(|errno| failed("change its owner", errno.into()))?;
        }
        if let Some(mode) = rights.mode {
            // A descriptor opened with O_PATH has no fchmod.
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let changed = std::fs::set_permissions(path, Permissions::from_mode(mode));
            changed.map_err(|error| failed("change its mode", error))?;
        }
        Ok(())
    }

    fn verify_own(&self, file: &OwnedFd) -> io::Result<()> {
        if rustix::fs::fstat(file.as_fd())?.st_ino != self.inode {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = std::fs::symlink_metadata(&self.path);
        if now.is_ok_and(|now| now.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Bind;
    use crate::net::{bind, bind_with};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_has_its_mode_whatever_the_umask_and_gets_another_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for wanted in [0o600, 0o666, 0o777, 0o660] {
            let rights = FileRights {
                mode: Some(wanted),
                ..FileRights::default()
            };
            let bound = bind_with(&Bind::Unix(path.clone()), 16, &rights).unwrap();
            assert_eq!(mode(&path), wanted);
            let narrower = FileRights {
                mode: Some(0o600),
                ..rights
            };
            bound.set_rights(&narrower).unwrap();
            assert_eq!(mode(&path), 0o600);
        }
    }

    #[test]
    fn before_it_listens_nobody_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_socket, _file) = open(&path, &FileRights::default()).unwrap();
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let refused = client.connect(&SockAddr::unix(&path).unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn who_is_not_known_is_named_and_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        for (owner, group, told) in [
            (Some("no-such-user"), None, "no user \"no-such-user\""),
            (None, Some("no-such-group"), "no group \"no-such-group\""),
        ] {
            let rights = FileRights {
                mode: None,
                owner: owner.map(str::to_owned),
                group: group.map(str::to_owned),
            };
            let error = bind_with(&Bind::Unix(path.clone()), 16, &rights).unwrap_err();
            assert!(error.to_string().ends_with(told), "{error}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_link_in_place_of_the_file_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("s"), folder.path().join("other"));
        let bound = bind(&Bind::Unix(path.clone()), 16).unwrap();
        std::fs::write(&other, "").unwrap();
        std::fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        let rights = FileRights {
            mode: Some(0o666),
            ..FileRights::default()
        };
        assert!(bound.set_rights(&rights).is_err());
        assert_eq!(mode(&other), 0o600);
        drop(bound);
        assert!(path.is_symlink(), "somebody else's");
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = bind(&Bind::Unix(path.clone()), 16).unwrap();
        assert!(bind(&Bind::Unix(path.clone()), 16).is_err());
        drop(live);
        assert!(!path.exists());
    }

    /// A blocking probe of a listener whose queue was full never came back.
    #[test]
    fn a_live_listener_with_a_full_queue_is_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _live = bind(&Bind::Unix(path.clone()), 1).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        let mut waiting = Vec::new();
        let full = (0..16).any(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let refused = client.connect(&address).is_err();
            waiting.push(client);
            refused
        });
        assert!(full);
        let error = bind(&Bind::Unix(path.clone()), 1).unwrap_err().to_string();
        assert!(error.ends_with("address in use"), "{error}");
        assert!(path.exists());
    }
}
