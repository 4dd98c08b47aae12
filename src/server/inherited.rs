//! Sockets that the service manager has passed: each goes to the listener of its address.

use super::reload::sockets;
use crate::config::Config;
use crate::net::{self, InheritedSocket};

/// Keeps the sockets that `config` has listeners for, so that these take them in place of binding.
/// Closes and logs the others.
pub(crate) fn keep_inherited(inherited: Vec<InheritedSocket>, config: &Config) {
    let wanted: Vec<_> = sockets(config).map(|(_, _, bind, _)| bind).collect();
    for unused in net::keep_inherited(inherited, &wanted) {
        let InheritedSocket {
            descriptor,
            name,
            address,
            ..
        } = unused;
        match address {
            Ok(address) => {
                tracing::warn!(descriptor, name, %address, "inherited socket closed: no listener has its address");
            }
            Err(why) => tracing::warn!(descriptor, name, why, "inherited descriptor closed"),
        }
    }
}
