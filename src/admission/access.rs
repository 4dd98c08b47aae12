//! `allow` and `deny`, compiled: prefix tries, so that a list of 100,000 networks costs a
//! connection no more than one of ten.

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::set::JointPrefixSet;

use crate::config::{Access, Trusted};

/// Compiled rules for who may come in.
pub struct AccessList {
    /// `None`: everybody.
    allow: Option<ClientList>,
    /// Wins over `allow`.
    deny: ClientList,
}

#[derive(Default)]
struct ClientList {
    networks: JointPrefixSet<IpNet>,
    unix: bool,
}

impl AccessList {
    pub fn new(access: &Access) -> Self {
        let allow = (!access.allow.is_empty()).then(|| ClientList::new(&access.allow));
        Self {
            allow,
            deny: ClientList::new(&access.deny),
        }
    }

    /// Whether a client is let in; `None` is one without an address, on a unix socket.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        let allowed = self.allow.as_ref();
        !self.deny.cover(client) && allowed.is_none_or(|allow| allow.cover(client))
    }
}

impl ClientList {
    fn new(list: &[Trusted]) -> Self {
        let mut clients = Self::default();
        for one in list {
            match one {
                Trusted::Network(network) => {
                    clients.networks.insert(network.trunc());
                }
                Trusted::Unix => clients.unix = true,
            }
        }
        clients
    }

    fn cover(&self, client: Option<IpAddr>) -> bool {
        match client {
            Some(client) => self.networks.get_lpm(&IpNet::from(client)).is_some(),
            None => self.unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(list: &[&str]) -> Vec<Trusted> {
        let network = |text: &&str| Trusted::network(text.parse().unwrap());
        list.iter().map(network).collect()
    }

    fn list(allow: &[&str], deny: &[&str]) -> AccessList {
        AccessList::new(&Access {
            allow: networks(allow),
            deny: networks(deny),
        })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn deny_wins_and_an_empty_allow_lets_everybody_in() {
        let both = list(&["10.0.0.0/8", "::1/128"], &["10.1.0.0/16"]);
        assert!(both.admits(ip("10.2.0.1")) && both.admits(ip("::1")));
        assert!(!both.admits(ip("10.1.0.1")) && !both.admits(ip("11.0.0.1")));
        assert!(!both.admits(None), "a unix client is in no network");
        let denied = list(&[], &["10.0.0.0/8"]);
        assert!(
            denied.admits(ip("11.0.0.1")) && denied.admits(None) && !denied.admits(ip("10.0.0.1"))
        );
        assert!(list(&[], &[]).admits(ip("::1")));
    }

    #[test]
    fn bits_behind_the_prefix_and_mapped_networks_are_what_they_stand_for() {
        assert!(list(&["10.9.9.9/8"], &[]).admits(ip("10.0.0.1")));
        let mapped = list(&["::ffff:10.0.0.0/104"], &[]);
        assert!(mapped.admits(ip("10.7.7.7")) && !mapped.admits(ip("11.0.0.1")));
    }

    #[test]
    fn unix_clients_have_a_word_of_their_own() {
        let unix = AccessList::new(&Access {
            allow: vec![Trusted::Unix],
            deny: Vec::new(),
        });
        assert!(unix.admits(None) && !unix.admits(ip("::1")));
    }

    fn network() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<[u8; 4]>(), 0u8..=32)
            .prop_map(|(ip, bits)| IpNet::new(IpAddr::from(ip), bits).unwrap());
        let v6 = (any::<[u8; 16]>(), 0u8..=95)
            .prop_map(|(ip, bits)| IpNet::new(IpAddr::from(ip), bits).unwrap());
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn the_trie_says_what_a_walk_over_the_list_says(
            allow in prop::collection::vec(network(), 0..20), deny in prop::collection::vec(network(), 0..20),
            near in any::<prop::sample::Index>(), v4: [u8; 4], inside: bool,
        ) {
            let all: Vec<_> = allow.iter().chain(&deny).collect();
            let client = if inside && !all.is_empty() {
                near.get(&all).addr()
            } else {
                IpAddr::from(v4)
            }.to_canonical();
            let trusted = |list: &[IpNet]| list.iter().copied().map(Trusted::network).collect();
            let access = AccessList::new(&Access { allow: trusted(&allow), deny: trusted(&deny) });
            let covers = |list: &[IpNet]| list.iter().any(|network| network.contains(&client));
            let expected = !covers(&deny) && (allow.is_empty() || covers(&allow));
            prop_assert_eq!(access.admits(Some(client)), expected);
        }
    }
}
