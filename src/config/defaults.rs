//! Defaults and limits that the program uses where no table says otherwise.

use std::time::Duration;

use super::spec::seconds;
use crate::base::rate::Rate;

/// Part of the smallest limit of the control groups above the process, where `max_memory` is left
/// out. The rest is for socket buffers and page tables, which the groups count, too.
pub const MAX_MEMORY_PERCENT: u8 = 85;
/// A drain that has a pace begins at once.
pub const DRAIN_AFTER: Duration = Duration::ZERO;
/// Where nothing sets a pace: ten thousand sessions in less than two minutes, and a pace of
/// reconnects that a small cluster with TLS bears.
pub const DRAIN_RATE: Rate = Rate::per_second(100);
/// "Service restart" (IANA): clients reconnect, and most libraries spread that.
pub const CLOSE_CODE: u64 = 1012;
pub const RESUME_HEADER: &str = "Evenkeel-Resume";
/// The largest weight, as in HAProxy.
pub const WEIGHT_MAX: u64 = 256;
/// Floor for zones that answer with a TTL of 0.
pub const MIN_TTL: Duration = seconds(1);
/// A change of the set is seen after this at the latest, however long its TTL.
pub const MAX_TTL: Duration = seconds(300);
/// Time limit of a lookup, over all name servers.
pub const DISCOVER_TIMEOUT: Duration = seconds(5);
