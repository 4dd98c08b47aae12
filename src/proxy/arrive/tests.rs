//! Two proxies of one configuration stand for two processes: sessions go from one to the other.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{self, Bind};
use crate::net::bind;
use crate::observe::{Journal, ListenerCounters};
use crate::pool::Pool;
use crate::proxy::http::tests::{SWITCHING, head, node, to_end, upgrade, within};
use crate::proxy::{ListenerOrigin, ListenerSnapshot, Listening, Proxy, StartState};
use crate::relay::{ArrivalError, Cursor, FrozenSession, Ghost, MAX_BATCH};
use crate::wire::moved::{MovedSession, decode, encode};

struct Process {
    listening: Listening,
    pool: Arc<Pool>,
    proxy: Arc<Proxy>,
}

impl Process {
    fn start(text: &str) -> Process {
        crate::tls::install_provider();
        let config =
            config::parse(text, Path::new("test.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let pool = Pool::new(&config.pools["p"]);
        let pools = [("p".to_owned(), Arc::clone(&pool))].into();
        let listener = &config.listeners[0];
        let proxy = Proxy::for_tests(&config, Journal::new(&config.access_log).unwrap());
        let listening = Listening::start(
            &proxy,
            Arc::new(bind(&listener.bind, 128).unwrap()),
            ListenerSnapshot::build(listener, &pools).unwrap(),
            ListenerOrigin::New(
                ListenerCounters::new("l", &proxy.journal),
                StartState::Listening,
            ),
        );
        Process {
            listening,
            pool,
            proxy,
        }
    }

    async fn connect(&self) -> TcpStream {
        let Bind::Tcp(address) = self.listening.local() else {
            panic!("not tcp")
        };
        TcpStream::connect(address).await.unwrap()
    }

    /// The only session, once it can move.
    async fn freeze(&self) -> FrozenSession {
        within(async {
            loop {
                let batch = self.proxy.relay.freeze(Cursor::default(), MAX_BATCH).await;
                if let Some(frozen) = batch.sessions.into_iter().next() {
                    return frozen;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Takes a session over from another process, whose counts the ghost keeps.
    fn take_over(&self, frozen: FrozenSession) -> Option<Ghost> {
        let arriving = self
            .listening
            .arrive(by_bytes(&frozen), &self.pool)
            .unwrap();
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().unwrap();
        let (client, backend) = frozen.sockets();
        let (client, backend) = (client.map(copy), backend.map(copy));
        let ghost = frozen.commit();
        let relay = &self.proxy.relay;
        relay
            .adopt_moved(arriving, client.unwrap(), backend)
            .unwrap();
        ghost
    }

    /// Connections of the process, and of the first backend.
    fn live(&self) -> (u64, u64) {
        let backend = self.pool.backends().remove(0);
        (self.proxy.limits.live(), backend.live())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.proxy.relay.shutdown();
    }
}

fn by_bytes(frozen: &FrozenSession) -> MovedSession {
    let mut bytes = Vec::new();
    encode(&frozen.export().unwrap(), &mut bytes);
    decode(&bytes).unwrap()
}

fn configured(protocol: &str, listener: &str, pool: &str, node: SocketAddr) -> String {
    format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n{listener}\npool = \"p\"\n\
         [pool.p]\n{pool}\nbackend = [{{ name = \"n\", address = \"{node}\", max_connections = 1 }}]\n"
    )
}

#[tokio::test]
async fn a_session_counts_where_it_goes_on_whatever_the_limits() {
    let echo = node(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let text = configured("tcp", "per_source = { max_connections = 1 }", "", echo);
    let (old, new) = (Process::start(&text), Process::start(&text));
    let mut client = old.connect().await;
    client.write_all(b"one").await.unwrap();
    let mut read = [0; 3];
    within(client.read_exact(&mut read)).await.unwrap();
    // The places that it will need are taken already.
    let mut other = new.connect().await;
    other.write_all(b"own").await.unwrap();
    within(other.read_exact(&mut read)).await.unwrap();
    let ghost = new.take_over(old.freeze().await);
    assert_eq!((old.live(), new.live()), ((1, 1), (2, 2)));
    client.write_all(b"two").await.unwrap();
    within(client.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"two");
    drop(ghost);
    assert_eq!(old.live(), (0, 0));
    // Its source has two now, and may have one.
    drop(other);
    within(async {
        while new.live() != (1, 1) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let Bind::Tcp(address) = new.listening.local() else {
        panic!("not tcp")
    };
    // It may be refused so soon that the connect itself tells.
    if let Ok(mut second) = TcpStream::connect(address).await {
        assert_eq!(to_end(&mut second).await, "", "a second one is served");
    }
    drop(client);
    within(new.pool.backends().remove(0).emptied()).await;
    within(new.proxy.limits.emptied()).await;
    let counters = [&old, &new].map(|process| process.listening.counters().values());
    assert_eq!(counters.each_ref().map(|counters| counters.live), [0, 0]);
    // Each byte is counted once, by the process that has moved it.
    let bytes = counters.map(|counters| counters.bytes_from_client);
    assert_eq!(bytes, [3, 6]);
}

/// Its first backend goes, and the second attempt for it hangs when it moves.
#[tokio::test]
async fn a_session_in_a_gap_is_found_a_backend_by_its_next_process() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    let address = node(move |mut stream, number| {
        let seen = Arc::clone(&seen);
        async move {
            let head = head(&mut stream).await;
            seen.lock().unwrap().push(head);
            if number == 1 {
                let _ = to_end(&mut stream).await;
                return;
            }
            stream.write_all(SWITCHING.as_bytes()).await.unwrap();
            if number == 0 {
                // Close 1012.
                stream.write_all(&[0x88, 2, 0x03, 0xf4]).await.unwrap();
            } else {
                stream.write_all(b"\x82\x05hello").await.unwrap();
            }
            let _ = to_end(&mut stream).await;
        }
    })
    .await;
    let text = configured("websocket", "", "resume = {}", address);
    let (old, new) = (Process::start(&text), Process::start(&text));
    let mut client = old.connect().await;
    client.write_all(upgrade().as_bytes()).await.unwrap();
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101"));
    within(async {
        while heads.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let frozen = old.freeze().await;
    let state = by_bytes(&frozen);
    assert!(state.gap.is_some() && state.backend.is_none());
    drop(new.take_over(frozen));
    let mut hello = [0; 7];
    within(client.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"\x82\x05hello");
    let resumed = |head: &String| {
        head.lines()
            .find(|line| line.starts_with("Evenkeel-Resume:"))
            .map(str::to_owned)
    };
    let notes: Vec<_> = heads.lock().unwrap().iter().map(resumed).collect();
    // The same loss, counted once.
    assert!(notes[0].is_none());
    assert!(
        notes[1].as_ref().unwrap().contains("count=1; from=\"n\""),
        "{notes:?}"
    );
    assert_eq!(notes[1], notes[2]);
    // The search that was cancelled gives its place back.
    within(old.pool.backends().remove(0).emptied()).await;
    assert_eq!((old.live(), new.live()), ((0, 0), (1, 1)));
    drop(client);
    within(new.proxy.limits.emptied()).await;
}

#[tokio::test]
async fn a_session_of_a_backend_that_is_not_here_is_declined_and_goes_on() {
    let echo = node(|mut stream, _| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let text = configured("tcp", "", "", echo);
    let other = text.replace("name = \"n\"", "name = \"m\"");
    let (old, new) = (Process::start(&text), Process::start(&other));
    let mut client = old.connect().await;
    client.write_all(b"one").await.unwrap();
    let mut read = [0; 3];
    within(client.read_exact(&mut read)).await.unwrap();
    let frozen = old.freeze().await;
    let declined = new.listening.arrive(by_bytes(&frozen), &new.pool).err();
    let wanted = ArrivalError::Backend {
        pool: "p".into(),
        backend: "n".into(),
    };
    assert_eq!(declined, Some(wanted));
    assert_eq!(new.live(), (0, 0), "counts of a declined session stay");
    client.write_all(b"two").await.unwrap();
    frozen.thaw();
    within(client.read_exact(&mut read)).await.unwrap();
    assert_eq!(&read, b"two");
}
