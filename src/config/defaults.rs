//! Every default of the configuration, with its reason. `balancer.toml` shows each, and a test compares the two.

use std::time::Duration;

use crate::base::rate::Rate;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

// [global]

/// 0: as many relay threads as cores the process may use; the relay is CPU-bound and never blocks.
pub const WORKERS: u64 = 0;
/// 0: what the file-descriptor budget allows; any other number would be a guess at the machine.
pub const MAX_CONNECTIONS: u64 = 0;
/// Connections in set-up hold buffers and TLS state (about 100 KB at worst): this bounds a storm of handshakes near 1 GB.
pub const MAX_SETUP_CONNECTIONS: u64 = 10_000;
/// 0: 64 for each core (`proxy::client::handshake_limiter`), as the cores are what handshakes share.
pub const MAX_HANDSHAKES: u64 = 0;
/// 32,000 stalled readers with a small read each; little beside what the kernel's socket buffers take for as many.
pub const MAX_BUFFERED: u64 = 256 << 20;
/// Of the smallest limit of the control groups above the process, where `max_memory` is left out. What
/// is left is for what they count beside it: socket buffers, and page tables.
pub const MAX_MEMORY_PERCENT: u8 = 85;
/// Below systemd's `TimeoutStopSec` (90 s) and at Kubernetes' grace period (30 s).
pub const HARD_STOP_AFTER: Duration = seconds(30);
/// A file that was edited and not loaded is a surprise at the next start.
pub const WATCH: bool = true;
/// State changes of backends and reloads, nothing per connection.
pub const LOG_LEVEL: &str = "info";
/// Read by people and by journald; collectors choose `json`.
pub const LOG_FORMAT: &str = "text";

// [access_log]

/// A line per connection is wanted by some and a burden to the others.
pub const ACCESS_LOG_OUTPUT: &str = "off";
/// Access logs are read by machines.
pub const ACCESS_LOG_FORMAT: &str = "json";
/// One line per connection, when all is known of it, and one for each backend that it outlives.
pub const LOG_AT: &[&str] = &["resume", "end"];
/// Often enough to see a session of a day, seldom enough to cost nothing.
pub const ACCESS_LOG_INTERVAL: Duration = seconds(3600);
/// About 4 MB of lines: a pause of the disk of one second at 8,000 connections per second.
pub const ACCESS_LOG_MAX_QUEUE: u64 = 8_192;
/// A log that leaves something out must be asked to.
pub const LOG_NULL: bool = true;

// [admin]

/// Who can connect can drain and close: nobody but the user that runs it.
pub const ADMIN_SOCKET_MODE: u32 = 0o600;

// [[listener]]

/// 0: no own limit; the process's bounds them.
pub const LISTENER_MAX_CONNECTIONS: u64 = 0;
/// 0: no limit; a carrier's address may stand for thousands of clients, and only the operator knows.
pub const SOURCE_MAX_CONNECTIONS: u64 = 0;
/// An address.
pub const V4_PREFIX: u8 = 32;
/// What one client usually has to itself; by the address it could be any of 2^64 sources.
pub const V6_PREFIX: u8 = 64;
/// Enough for a TLS handshake over a bad mobile link, short enough that idle openers do not pile up.
pub const HANDSHAKE_TIMEOUT: Duration = seconds(10);
/// Application servers authenticate in the upgrade; beyond this the client has given up.
pub const UPGRADE_TIMEOUT: Duration = seconds(10);
/// Longer than the polling interval of Socket.IO (25 s), as nginx (75 s) and HAProxy users set it.
pub const KEEP_ALIVE_TIMEOUT: Duration = seconds(60);
/// It costs nothing that can be measured, and what acts between two frames needs it.
pub const FOLLOW_FRAMES: bool = true;
/// The kernel's own maximum (`net.core.somaxconn`) since Linux 5.4: a reconnect storm waits here instead of failing.
pub const BACKLOG: u64 = 4_096;
/// A header that anybody may send would let anybody be anyone.
pub const ACCEPT_PROXY: bool = false;
/// What application servers read.
pub const FORWARDED: &str = "x";
/// A balancer in front carries many clients on one connection; who trusts it wants to tell them apart.
pub const CLIENT_IP_FROM: &str = "forwarded";
/// A request that nobody can name cannot be followed through the logs of those who handled it.
pub const REQUEST_ID: bool = true;
/// Readers differ on whether it separates, and a guard by path must not be read two ways.
pub const ENCODED_SLASH: &str = "refuse";

// Sockets, of listeners and of pools

/// NATs and cloud balancers forget silent flows after minutes.
pub const KEEPALIVE_IDLE: Duration = seconds(60);
/// With the count below a dead peer is noticed within two minutes.
pub const KEEPALIVE_INTERVAL: Duration = seconds(10);
/// A minute of probes survives a change of network.
pub const KEEPALIVE_COUNT: u64 = 6;
/// Keepalive does not run while data is unacknowledged: the same two minutes for such a peer.
pub const TCP_USER_TIMEOUT: Duration = seconds(120);

/// What every client of the last ten years speaks; 1.0 and 1.1 are broken and not even built in.
pub const MIN_VERSION: &str = "1.2";
/// Whoever configures authorities wants them to be asked.
pub const CLIENT_AUTH_MODE: &str = "required";

// [pool.NAME]

/// Works for every kind of load and is the easiest to reason about.
pub const BALANCE: &str = "round_robin";
/// Covers one lost SYN (retransmitted after 1 s) and a second (after 3 s).
pub const CONNECT_TIMEOUT: Duration = seconds(5);
/// Long-lived connections are quiet for long; most ping well within it.
pub const IDLE_TIMEOUT: Duration = seconds(3600);
/// A peer that was told the end has this long to finish its own side.
pub const FIN_TIMEOUT: Duration = seconds(30);
/// As everywhere: what a peer sends says that it is there.
pub const ACTIVITY: &str = "any";
/// Below the shortest idle limits on a path that are common: 60 s of cloud balancers and NATs.
pub const PING_INTERVAL: Duration = seconds(30);
/// A path that loses packets for longer is of no use to a session.
pub const PING_TIMEOUT: Duration = seconds(10);
/// A dead client holds a place. What a backend hears from us would keep it from finding that out by its own heartbeat.
pub const PING_TO: &[&str] = &["client"];
/// A drain that has a pace begins at once.
pub const DRAIN_AFTER: Duration = Duration::ZERO;
/// Where nothing sets a pace: ten thousand sessions in less than two minutes, and a pace of reconnects that a small cluster
/// with TLS bears.
pub const DRAIN_RATE: Rate = Rate::per_second(100);
/// Percent. What chance and round robin leave uneven is well below.
pub const REBALANCE_THRESHOLD_PERCENT: u8 = 20;
/// A cluster that was just made larger does not notice the reconnects; a thousand connections are moved in two minutes.
pub const REBALANCE_RATE: Rate = Rate::per_second(10);
/// Longer than clients take to come back.
pub const REBALANCE_MIN_AGE: Duration = seconds(60);
/// Not every protocol reconnects by itself, and a raw session is not told why it ends.
pub const REBALANCE_TCP: &str = "keep";
/// Where the table stands it is wanted.
pub const RESUME_ENABLED: bool = true;
/// Many servers kick a client by a mere FIN: by itself that is no loss.
pub const RESUME_ON: &[&str] = &["drain", "down", "close_code", "burst"];
/// A process that dies ends all of its sessions within a few milliseconds; a client hardly notices
/// half a second.
pub const RESUME_SETTLE: Duration = Duration::from_millis(500);
/// Nodes that crash one after the other take a session along once or twice; one that keeps ending
/// its sessions would do so for ever.
pub const RESUME_MAX: Rate = Rate::per_minute(3);
/// A client that waits for an answer sends a few messages at most; a thousand sessions hold 64 MB at the very worst.
pub const RESUME_MAX_BUFFER: u64 = 64 << 10;
/// Longer than a backend takes that is there, and not so long that a client's own timeouts begin to fire.
pub const RESUME_TIMEOUT: Duration = seconds(10);
pub const RESUME_HEADER: &str = "Evenkeel-Resume";
/// "Service restart" (IANA): clients reconnect, and most libraries spread that.
pub const CLOSE_CODE: u64 = 1012;
/// Above the long polls of the field: SignalR's take 90 to 120 s, Socket.IO's 25 s and a pong of 20 s.
pub const RESPONSE_TIMEOUT: Duration = seconds(180);
/// As nginx's `client_body_timeout`: a client that sends nothing for longer holds a backend's place for nothing.
pub const BODY_TIMEOUT: Duration = seconds(60);
/// Four backends tried in all: more only adds delay when a cluster is down.
pub const RETRIES: u64 = 3;
/// A handshake that kills its backend must not go round the pool.
pub const RETRY_ON: &[&str] = &["connect"];
/// 0: a full pool refuses at once; waiting is a choice.
pub const MAX_QUEUE: u64 = 0;
/// Longer than a burst, shorter than a client's patience.
pub const QUEUE_TIMEOUT: Duration = seconds(5);
/// Off: it delays recovery unless nodes really need to warm up.
pub const SLOW_START: Duration = Duration::ZERO;
/// A client that is refused at once may go to another site; one that waits for dead nodes may not.
pub const WHEN_ALL_DOWN: &str = "refuse";

// sticky

/// Told apart from the application's own.
pub const STICKY_COOKIE: &str = "evenkeel";
/// A working day and the night: who comes back the next day starts anew as well as not.
pub const STICKY_TTL: Duration = seconds(86_400);
/// What browsers take a cookie for that says nothing of it.
pub const STICKY_SAME_SITE: &str = "lax";
/// Over plain HTTP a browser drops a cookie that has it; the cookie itself is no secret.
pub const STICKY_SECURE: bool = false;
/// A session that begins with polling lives in one node's memory: elsewhere it is unknown.
pub const STICKY_ON_DRAIN: &str = "keep";

// retry_after

/// A single client that was turned away may come back at once.
pub const RETRY_AFTER_MIN: Duration = seconds(1);
/// Spreads a thousand clients to a hundred per second; as long as people wait for a page.
pub const RETRY_AFTER_MAX: Duration = seconds(10);

// backend, discover

/// All alike.
pub const WEIGHT: u64 = 1;
/// The largest weight, as in HAProxy.
pub const WEIGHT_MAX: u64 = 256;
/// 0: no own limit.
pub const BACKEND_MAX_CONNECTIONS: u64 = 0;
/// In use.
pub const BACKUP: bool = false;
/// A start or a reload must not wait for checks before it serves.
pub const INIT_STATE: &str = "up";
/// Floor for zones that answer with a TTL of 0.
pub const MIN_TTL: Duration = seconds(1);
/// A change of the set is seen after this at the latest, however long its TTL.
pub const MAX_TTL: Duration = seconds(300);
/// One lookup over all name servers.
pub const DISCOVER_TIMEOUT: Duration = seconds(5);

// tls of a pool or a check

/// A verified certificate is the reason to use TLS at all.
pub const BACKEND_TLS_VERIFY: bool = true;

// outlier

/// One failure is chance, two are bad luck.
pub const CONNECT_FAILURES: u64 = 3;
/// Long enough that a quiet pool gathers three failures, short enough that old ones are forgotten.
pub const WINDOW: Duration = seconds(10);
/// One connection probes it then, and goes elsewhere if it fails: an early probe costs little.
pub const BASE_EJECTION_TIME: Duration = Duration::from_millis(500);
/// A node that has come back serves again within two seconds, the gap to the next connection included.
pub const MAX_EJECTION_TIME: Duration = seconds(1);

// failover

/// Sessions that work must not be cut by a check that does not.
pub const ON_DOWN: &str = "keep";
/// A node that restarts, or a network that hiccups, is back by then.
pub const GRACE: Duration = seconds(30);
/// Whoever works where he is should not be made to move.
pub const ON_UP: &str = "keep";
/// Percent per minute. One node of four may go at once; of a wider failure, which is more often one of the checks than of the
/// nodes, the first minute costs a quarter, and an operator has time to look.
pub const MAX_CLOSE_RATE: u8 = 25;

// tag

/// Whoever names a tag wants to find it in the log.
pub const TAG_HASH: bool = false;

// check

/// With `fall` a dead node is noticed within about 6 s.
pub const CHECK_INTERVAL: Duration = seconds(2);
/// A node that takes longer to answer a check will not serve users either.
pub const CHECK_TIMEOUT: Duration = seconds(2);
/// One lucky answer of a struggling node is not enough.
pub const RISE: u64 = 2;
/// Two lost packets must not take a node out.
pub const FALL: u64 = 3;
/// Percent. Spreads the checks of many balancers over the interval.
pub const JITTER_PERCENT: u8 = 10;
/// The method whose answers say most.
pub const CHECK_METHOD: &str = "GET";
/// Every server has it.
pub const CHECK_PATH: &str = "/";
/// Success and redirects, as HAProxy counts them.
pub const CHECK_STATUS: &[&str] = &["200-399"];
/// Of a WebSocket's handshake: what a client needs.
pub const CHECK_HANDSHAKE_STATUS: std::ops::RangeInclusive<u16> = 101..=101;
/// Few servers answer pings of a fresh session before it authenticates.
pub const CHECK_PING: bool = false;
