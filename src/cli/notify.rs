//! State of the process for systemd: ready, stopping, how many connections there are, alive.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::server::Server;

/// Between two looks at the server.
const PERIOD: Duration = Duration::from_secs(1);
/// Time that a stop asks for, again at each look: as long as the process is alive it is not killed.
const STOP_EXTENSION: Duration = Duration::from_secs(10);

/// The socket of the service manager that started this process (`NOTIFY_SOCKET`).
pub(super) struct Notifier {
    socket: UnixDatagram,
    is_watched: bool,
}

impl Notifier {
    /// `None` where no manager listens.
    pub(super) fn from_environment() -> Option<Self> {
        let name = std::env::var("NOTIFY_SOCKET").ok()?;
        let is_watched = std::env::var_os("WATCHDOG_USEC").is_some();
        Notifier::connect(&name, is_watched)
    }

    /// Connects to a path, or to an abstract name after `@`.
    fn connect(name: &str, is_watched: bool) -> Option<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect_addr(&address.ok()?).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Notifier { socket, is_watched })
    }

    /// Sends one message. A manager that does not take it loses it: clients do not wait for it.
    fn send(&self, message: &str) {
        let _ = self.socket.send(message.as_bytes());
    }

    /// Reports that the server accepts connections, then its state until the task is dropped.
    pub(super) async fn follow(self, server: Arc<Server>) {
        self.send("READY=1");
        let mut last = String::new();
        loop {
            let state = self.state(&server);
            if state != last || !server.ready() || self.is_watched {
                self.send(&state);
                last = state;
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn state(&self, server: &Server) -> String {
        let mut state = format!("STATUS={} connections", server.limits().live());
        if self.is_watched {
            state += "\nWATCHDOG=1";
        }
        if !server.ready() {
            state += "\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=";
            state += &STOP_EXTENSION.as_micros().to_string();
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn the_manager_listens_at_a_path_or_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("evenkeel-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind(&path).unwrap();
        let abstract_manager = UnixDatagram::bind_addr(&address).unwrap();
        for (manager, name) in [
            (manager, path.display().to_string()),
            (abstract_manager, format!("@{name}")),
        ] {
            Notifier::connect(&name, false).unwrap().send("READY=1");
            assert_eq!(received(&manager), "READY=1");
        }
    }

    #[test]
    fn nobody_listens_there() {
        assert!(Notifier::connect("/nowhere/notify", false).is_none());
    }
}
