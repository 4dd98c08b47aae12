//! The new process's part of an upgrade: it takes state and sockets, builds everything as a start
//! does, and accepts when it is told to. Then it follows the old one until that is gone.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::arriving::{Arrivals, Offered};
use super::channel::{Channel, ChannelError};
use super::document::{ProcessState, Totals};
use super::launch::VARIABLE;
use super::message::{FromNew, FromOld, Hello, SocketNames};
use super::status::PredecessorStatus;
use crate::net::{HandedSocket, PacketSocket, keep_handed, release_handed};
use crate::server::state::Server;

/// Time for each message of the old process before it serves: it sends them in a row.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the word to accept, once all is built: sessions may be moved before it.
const SWITCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks whether the server is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Limit of sockets: far above the listeners of any configuration.
const MAX_SOCKETS: usize = 1024;

/// The old process, as the new one sees it.
pub(crate) struct OldProcess {
    channel: Channel,
    hello: Hello,
    state: Arc<ProcessState>,
    /// Connections that it had when it was asked.
    live: u64,
    /// It is the first process of a container, and stays.
    is_guarded: bool,
}

impl OldProcess {
    /// Takes what the process that started this one hands over. `None`: no upgrade started it. Call
    /// it before anything else has used the standard input.
    ///
    /// # Errors
    /// Why nothing can be taken over; the old process was told.
    pub(crate) fn from_environment() -> Result<Option<OldProcess>, String> {
        let failed = |why: String| format!("upgrade: {why}");
        let Some(parent) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let is_parent = std::os::unix::process::parent_id().to_string() == parent.to_string_lossy();
        let socket = PacketSocket::from_stdin();
        if !is_parent {
            return match socket {
                Ok(_) => Err(failed("the old process has ended".to_owned())),
                // Inherited by a process that something else has started.
                Err(_) => Ok(None),
            };
        }
        let socket = socket.map_err(|error| failed(error.to_string()))?;
        let mut old = OldProcess {
            channel: Channel::new(socket),
            hello: Hello::default(),
            state: Arc::default(),
            live: 0,
            is_guarded: false,
        };
        match old.receive_all() {
            Ok(()) => Ok(Some(old)),
            Err(why) => {
                old.refuse(vec![why.clone()]);
                Err(failed(why))
            }
        }
    }

    fn receive_all(&mut self) -> Result<(), String> {
        let text = |error: ChannelError| error.to_string();
        let hello: FromOld = self.channel.receive(MESSAGE_TIMEOUT).map_err(text)?.message;
        let FromOld::Hello(hello) = hello else {
            return Err("the old process did not say who it is".to_owned());
        };
        hello.verify()?;
        self.hello = hello;
        let maker = self.channel.socket().maker_uid();
        let own = rustix::process::geteuid().as_raw();
        let maker = maker.map_err(|error| format!("user of the old process: {error}"))?;
        if maker != own {
            return Err(format!(
                "the old process runs as user {maker}, the new one as user {own}"
            ));
        }
        self.channel
            .send(&FromNew::Hello(Hello::own()))
            .map_err(text)?;
        let received = self.channel.receive(MESSAGE_TIMEOUT).map_err(text)?;
        let FromOld::Process {
            sockets,
            live,
            is_init,
        } = received.message
        else {
            return Err("the old process sent no state".to_owned());
        };
        (self.live, self.is_guarded) = (live, is_init);
        self.state = Arc::new(received.document().map_err(text)?);
        self.receive_sockets(sockets)
    }

    fn receive_sockets(&self, count: usize) -> Result<(), String> {
        if count > MAX_SOCKETS {
            return Err(format!("{count} sockets are too many"));
        }
        let mut handed = Vec::new();
        while handed.len() < count {
            let received = self.channel.receive(MESSAGE_TIMEOUT);
            let received = received.map_err(|error| error.to_string())?;
            let FromOld::Sockets { sockets } = received.message else {
                return Err("the old process sent too few sockets".to_owned());
            };
            if sockets.len() != received.descriptors.len() || sockets.is_empty() {
                return Err("sockets and their names do not fit".to_owned());
            }
            for (names, socket) in sockets.into_iter().zip(received.descriptors) {
                handed.push(handed_socket(handed.len(), &names, socket)?);
            }
        }
        keep_handed(handed);
        Ok(())
    }

    /// Tells the old process why this one cannot take over.
    pub(crate) fn refuse(&self, reasons: Vec<String>) {
        // One that is gone needs no reason.
        let _ = self.channel.send(&FromNew::Refused { reasons });
    }

    /// Gives the server what it takes over, before it prepares its first configuration.
    pub(in crate::server) fn give_state(&self, server: &Server) {
        if let Some(keys) = &self.state.ticket_keys {
            keys.take_over();
        }
        server
            .upgrade
            .inherit(Arc::clone(&self.state), self.is_guarded);
        server.upgrade.replace_totals(self.state.totals.clone());
    }

    /// Says that all is built, and waits for the word to accept. Where the old process dies while
    /// it is waited for, this one serves: it has the sockets.
    ///
    /// # Errors
    /// The budget of descriptors does not suffice, or the old process thought better of it.
    pub(in crate::server) fn wait_for_switch(&self, server: &Server) -> Result<(), String> {
        let budget = server.limits().max_connections();
        if budget < self.live {
            return Err(format!(
                "the new process may have {budget} connections at once, and {} are live",
                self.live
            ));
        }
        let unused = release_handed();
        let built = self.channel.send(&FromNew::Built { unused });
        match built {
            Ok(()) | Err(ChannelError::Gone) => {}
            Err(error) => return Err(error.to_string()),
        }
        match self.channel.receive(SWITCH_TIMEOUT) {
            Ok(received) if matches!(received.message, FromOld::Switch) => {
                let totals: Totals = received.document().map_err(|error| error.to_string())?;
                server.upgrade.replace_totals(totals);
                Ok(())
            }
            Ok(_) => Err("the old process sent what was not expected".to_owned()),
            Err(ChannelError::Gone) => {
                tracing::warn!("upgrade: the old process has ended before it handed over");
                let totals = server.upgrade.latest_totals().without_live();
                server.upgrade.replace_totals(totals);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Says that this process accepts, and follows the old one from then on.
    pub(in crate::server) fn follow(&self, server: &Arc<Server>) {
        let serving = self.channel.send(&FromNew::Serving);
        // Until now the old process could have served on.
        for (address, bound) in server.sockets() {
            if let Err(error) = bound.own() {
                tracing::warn!(%address, %error, "upgrade: the length of a queue stays");
            }
        }
        let (sender, channel) = (self.channel.try_clone(), self.channel.try_clone());
        let (Ok(()), Ok(sender), Ok(channel)) = (serving, sender, channel) else {
            return lose(server);
        };
        let status = PredecessorStatus {
            pid: self.hello.pid,
            version: self.hello.version.clone(),
            connections: server.upgrade.latest_totals().live,
        };
        tracing::info!(
            pid = status.pid,
            version = status.version,
            left = status.connections,
            "upgrade: took over"
        );
        server.upgrade.succeeded();
        server.upgrade.set_predecessor(sender, status);
        let weak = Arc::downgrade(server);
        let run = move || {
            let mut arrivals = Arrivals::default();
            while listen(&weak, &channel, &mut arrivals).is_some() {}
        };
        let thread = thread::Builder::new().name("predecessor".to_owned());
        if let Err(error) = thread.spawn(run) {
            tracing::warn!(%error, "upgrade: the old process cannot be followed");
            lose(server);
        }
    }
}

fn handed_socket(
    number: usize,
    names: &SocketNames,
    socket: std::os::fd::OwnedFd,
) -> Result<HandedSocket, String> {
    let address = |text: &str| {
        let parsed = text.parse();
        parsed.map_err(|why| format!("address {text:?} of a socket: {why}"))
    };
    Ok(HandedSocket {
        number,
        configured: address(&names.configured)?,
        local: address(&names.local)?,
        is_inherited: names.is_inherited,
        socket,
    })
}

/// Takes one message of the old process. `None`: it is gone, or this server is.
fn listen(server: &Weak<Server>, channel: &Channel, arrivals: &mut Arrivals) -> Option<()> {
    let received = channel.receive::<FromOld>(LOOK);
    let server = server.upgrade()?;
    let mut received = match received {
        Ok(received) => received,
        Err(ChannelError::Silent(_)) => return Some(()),
        Err(error) if !matches!(error, ChannelError::Gone) => {
            tracing::warn!(%error, "upgrade: the old process is not understood, nothing more is taken from it");
            // It may have taken back what it offered last. First forgotten, then told.
            *arrivals = Arrivals::default();
            channel.socket().shut_down();
            // It may end without a word.
            server.upgrade.lead();
            return wait_for_end(server);
        }
        Err(_) => {
            // Nobody else has the sessions that it offered last.
            arrivals.adopt(&server);
            lose(&server);
            return None;
        }
    };
    match std::mem::replace(&mut received.message, FromOld::Unknown) {
        FromOld::Sessions {
            batch,
            lengths,
            backends,
        } => {
            let offered = Offered {
                batch,
                lengths,
                backends,
            };
            let taken = arrivals.prepare(&server, &offered, received);
            let taken = taken.unwrap_or_else(|error| {
                tracing::warn!(%error, "upgrade: sessions of the old process are not understood");
                arrivals.abort(batch);
                Vec::new()
            });
            // One that is gone meanwhile is noticed by the next look.
            let _ = channel.send(&FromNew::Ready { batch, taken });
        }
        FromOld::Commit { batch } => arrivals.commit(&server, batch),
        FromOld::Abort { batch } => arrivals.abort(batch),
        FromOld::Totals => {
            if let Ok(totals) = received.document::<Totals>() {
                let before = server.upgrade.replace_totals(totals.clone());
                totals.add_growth(&before, &server);
            }
        }
        FromOld::Stop => server.upgrade.ask_to_stop(),
        FromOld::Lead => server.upgrade.lead(),
        FromOld::Hello(_)
        | FromOld::Process { .. }
        | FromOld::Sockets { .. }
        | FromOld::Switch
        | FromOld::Unknown => {}
    }
    Some(())
}

/// Waits for the end of an old process that is not listened to any more. Its connections count
/// until then.
fn wait_for_end(server: Arc<Server>) -> Option<()> {
    let weak = Arc::downgrade(&server);
    let old = server.upgrade.status().predecessor;
    drop(server);
    // Whoever has lost its parent has another one.
    while old
        .as_ref()
        .is_some_and(|old| old.pid == std::os::unix::process::parent_id())
    {
        thread::park_timeout(LOOK);
        weak.upgrade()?;
    }
    let server = weak.upgrade()?;
    lose(&server);
    None
}

/// The old process is gone, with all that it had live.
fn lose(server: &Server) {
    let before = server.upgrade.latest_totals();
    let totals = before.without_live();
    server.upgrade.replace_totals(totals.clone());
    totals.add_growth(&before, server);
    server.upgrade.forget_predecessor();
    tracing::info!("upgrade: the old process is gone");
}
