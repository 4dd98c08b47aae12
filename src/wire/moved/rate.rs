//! A rate: of pings, of changes of the backend.

use minicbor::{Decode, Encode};

/// A count in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct MovedRate {
    #[n(0)]
    pub count: u64,
    #[n(1)]
    pub per_ns: u64,
}
