//! State of the process for systemd: ready, reloading, stopping, how many connections there are,
//! alive. The protocol is that of sd_notify(3).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use crate::server::{Lifecycle, Server, StopStage};

/// Between two looks at the count of connections: nobody reads a status faster, and an idle process
/// is to sleep.
const PERIOD: Duration = Duration::from_secs(10);
/// The same during a stop, which asks for more time at each look.
const STOP_PERIOD: Duration = Duration::from_secs(1);
/// Time that a stop asks for, again at each look: as long as the process is alive it is not killed.
const STOP_EXTENSION: Duration = Duration::from_secs(10);

/// Between two attempts to send what must not be lost.
const RETRY: Duration = Duration::from_millis(50);

/// The socket of the service manager that started this process (`NOTIFY_SOCKET`).
pub(super) struct Notifier {
    socket: UnixDatagram,
    /// Time in which a watched process has to show that it is alive.
    watchdog: Option<Duration>,
}

/// Messages that the manager has taken.
#[derive(Default)]
struct Told {
    is_ready: bool,
    reloads: u64,
    state: String,
}

impl Notifier {
    /// `None` where no manager listens.
    pub(super) fn from_environment() -> Option<Self> {
        let name = std::env::var("NOTIFY_SOCKET").ok()?;
        Notifier::connect(&name, watchdog())
    }

    /// Connects to a path, or to an abstract name after `@`.
    fn connect(name: &str, watchdog: Option<Duration>) -> Option<Self> {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect_addr(&address.ok()?).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Notifier { socket, watchdog })
    }

    /// Sends one message and returns whether the manager took it. Clients do not wait for a manager
    /// that is stuck: the message is sent again at the next look.
    fn send(&self, message: &str) -> bool {
        self.socket.send(message.as_bytes()).is_ok()
    }

    /// Sends a message that must not be lost, as soon as the manager has room for it; gives up
    /// where nobody listens any more.
    async fn send_surely(&self, message: &str) {
        while let Err(error) = self.socket.send(message.as_bytes()) {
            if error.kind() != std::io::ErrorKind::WouldBlock {
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Reports that the server accepts connections, then each reload, the stop and the state, until
    /// the server has stopped.
    pub(super) async fn follow(self, server: Arc<Server>) {
        let mut lifecycle = server.lifecycle();
        let mut told = Told::default();
        loop {
            let life = *lifecycle.borrow_and_update();
            if let Some(pid) = life.successor {
                // From now on the manager listens to that process alone.
                self.send_surely(&format!("MAINPID={pid}")).await;
                server.manager_told();
                return;
            }
            self.tell(&server, life, &mut told);
            if life.stop == StopStage::Over {
                return;
            }
            // The sender lives as long as the server. Whether a step woke this or the time is over:
            // it looks again.
            let _ = tokio::time::timeout(self.period(life), lifecycle.changed()).await;
        }
    }

    /// Sends what the manager does not know yet.
    fn tell(&self, server: &Server, life: Lifecycle, told: &mut Told) {
        let is_stopping = life.stop != StopStage::None;
        if !is_stopping && life.reloads_begun != told.reloads {
            told.is_ready = false;
            // The begin, not now: a reload that was asked for meanwhile is still to come.
            let began = life.reload_began.as_micros();
            if self.send(&format!("RELOADING=1\nMONOTONIC_USEC={began}")) {
                told.reloads = life.reloads_begun;
            }
        }
        let is_told = life.reloads_begun == told.reloads;
        if !is_stopping && !life.is_reloading && is_told && !told.is_ready {
            told.is_ready = self.send("READY=1");
        }
        let state = self.state(server, life);
        let is_due = is_stopping || self.watchdog.is_some();
        if (is_due || state != told.state) && self.send(&state) {
            told.state = state;
        }
    }

    fn state(&self, server: &Server, life: Lifecycle) -> String {
        let live = server.limits().live();
        let mut state = match life.stop {
            StopStage::None if life.is_reloading => format!("STATUS=reloading; {live} connections"),
            StopStage::None if server.reloads().last_error.is_some() => {
                format!("STATUS={live} connections; the last reload was refused")
            }
            StopStage::None => format!("STATUS={live} connections"),
            StopStage::Announced => {
                format!("STATUS=about to stop and still accepting; {live} connections")
            }
            StopStage::Closing | StopStage::Over => format!("STATUS=stopping; {live} connections"),
        };
        if self.watchdog.is_some() {
            state += "\nWATCHDOG=1";
        }
        if life.stop != StopStage::None {
            state += "\nSTOPPING=1\nEXTEND_TIMEOUT_USEC=";
            state += &STOP_EXTENSION.as_micros().to_string();
        }
        state
    }

    fn period(&self, life: Lifecycle) -> Duration {
        let period = match life.stop {
            StopStage::None => PERIOD,
            StopStage::Announced | StopStage::Closing | StopStage::Over => STOP_PERIOD,
        };
        // Half of it, as sd_watchdog_enabled(3) recommends.
        let watched = self.watchdog.map(|watchdog| watchdog / 2);
        watched.map_or(period, |half| half.min(period))
    }
}

/// Time of the watchdog, if it watches this very process.
fn watchdog() -> Option<Duration> {
    let microseconds = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    let watched = std::env::var("WATCHDOG_PID").ok();
    let is_ours = watched.is_none_or(|pid| pid == std::process::id().to_string());
    (is_ours && microseconds > 0).then(|| Duration::from_micros(microseconds))
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
            let notifier = Notifier::connect(&name, None).unwrap();
            assert!(notifier.send("READY=1"));
            assert_eq!(received(&manager), "READY=1");
        }
    }

    #[test]
    fn nobody_listens_there() {
        assert!(Notifier::connect("/nowhere/notify", None).is_none());
    }
}
