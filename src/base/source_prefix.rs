//! The network of a client, by which limits and turns of clients are counted.

use std::net::IpAddr;

/// The first bits of an address. A v4-mapped address is the IPv4 address it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SourcePrefix {
    V4([u8; 4]),
    V6([u8; 16]),
    /// Clients without an address, those of a unix socket: all together.
    Unix,
}

impl SourcePrefix {
    /// The prefix of an address with so many leading bits for its family; more than it has are all.
    pub(crate) fn of(client: Option<IpAddr>, v4_bits: u8, v6_bits: u8) -> SourcePrefix {
        match client.map(|client| client.to_canonical()) {
            None => SourcePrefix::Unix,
            Some(IpAddr::V4(ip)) => {
                let dropped = 32u32.saturating_sub(v4_bits.into());
                let kept = u32::MAX.checked_shl(dropped).unwrap_or(0);
                SourcePrefix::V4((u32::from(ip) & kept).to_be_bytes())
            }
            Some(IpAddr::V6(ip)) => {
                let dropped = 128u32.saturating_sub(v6_bits.into());
                let kept = u128::MAX.checked_shl(dropped).unwrap_or(0);
                SourcePrefix::V6((u128::from(ip) & kept).to_be_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str, v4: u8, v6: u8) -> SourcePrefix {
        SourcePrefix::of(Some(text.parse().unwrap()), v4, v6)
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        assert_eq!(of("2001:db8::1", 32, 64), of("2001:db8::ffff:1", 32, 64));
        assert_ne!(of("2001:db8::1", 32, 64), of("2001:db8:0:1::1", 32, 64));
        assert_ne!(of("192.0.2.1", 32, 64), of("192.0.2.2", 32, 64));
        assert_eq!(of("192.0.2.1", 24, 64), of("192.0.2.2", 24, 64));
        assert_eq!(of("::ffff:192.0.2.1", 32, 64), of("192.0.2.1", 32, 64));
        assert_eq!(of("192.0.2.1", 0, 64), of("10.0.0.1", 0, 64));
        assert_eq!(of("::1", 0, 0), of("ffff::", 0, 0));
        assert_eq!(SourcePrefix::of(None, 32, 64), SourcePrefix::Unix);
    }

    proptest! {
        #[test]
        fn a_longer_prefix_parts_what_a_shorter_one_parts(a: [u8; 16], b: [u8; 16], bits in 0u8..=128, more in 0u8..=255) {
            let source = |ip: [u8; 16], bits| SourcePrefix::of(Some(IpAddr::from(ip)), bits, bits);
            let longer = bits.saturating_add(more);
            if source(a, longer) == source(b, longer) {
                prop_assert_eq!(source(a, bits), source(b, bits));
            }
        }
    }
}
