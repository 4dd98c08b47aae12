//! Hashes that are the same in every process, on every machine and after every restart: SipHash-2-4
//! under a fixed key. A balancer next to this one picks the same backend for the same client, and
//! so does the next version.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher24;

/// Fixed for ever: another key would send every client elsewhere ("evenkeel", "stickily").
const KEY: (u64, u64) = (0x6576_656e_6b65_656c, 0x7374_6963_6b69_6c79);

/// The hash of a client address: of its 4 or 16 bytes; a v4-mapped one counts as its IPv4 address.
pub fn address_hash(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => bytes_hash(&address.octets()),
        IpAddr::V6(address) => bytes_hash(&address.octets()),
    }
}

/// The hash of any other key.
pub fn bytes_hash(bytes: &[u8]) -> u64 {
    keyed(KEY, bytes)
}

/// Two independent hashes of a node's name: where its walk through the table begins, and its
/// stride.
pub(super) fn name_hashes(name: &str) -> (u64, u64) {
    let offset = keyed((KEY.0 ^ 1, KEY.1), name.as_bytes());
    let stride = keyed((KEY.0, KEY.1 ^ 1), name.as_bytes());
    (offset, stride)
}

fn keyed((left, right): (u64, u64), bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(left, right);
    hasher.write(bytes);
    hasher.finish()
}

/// The next number of a well-mixed sequence (SplitMix64's step).
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number in `0..bound` out of 64 mixed bits; 0 for a bound of 0.
pub(super) fn below(mixed: u64, bound: u64) -> u64 {
    ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_counts_as_its_ipv4_address() {
        let plain: IpAddr = "192.0.2.7".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(address_hash(plain), address_hash(mapped));
        let other: IpAddr = "2001:db8::7".parse().unwrap();
        assert_ne!(address_hash(plain), address_hash(other));
    }

    /// Golden: a change of these values moves every client of every installation.
    #[test]
    fn hashes_never_change() {
        let client: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(address_hash(client), 18_165_104_753_068_340_851);
        assert_eq!(bytes_hash(b"room-42"), 4_601_068_220_511_001_950);
    }
}
