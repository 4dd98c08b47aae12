//! A member's report: who it is, how far it is, its live connections by backend, and
//! sources that have many. CBOR with
//! numbered fields, of which a later version may have more; one of another version is not read.

use minicbor::{Decode, Encode};

use super::names::{MAX_BACKENDS, NamesDigest};

/// Version of the form.
const VERSION: u8 = 1;
/// Most sources of a member, those with most connections.
pub(super) const MAX_SOURCES: usize = 10_000;
/// Largest report: five bytes for each backend, fifteen for each source, and the head.
pub(super) const MAX_REPORT: usize = 5 * MAX_BACKENDS + 15 * MAX_SOURCES + 200;

/// Report of a member at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(super) struct MemberReport {
    #[n(0)]
    version: u8,
    /// Drawn at each start.
    #[n(1)]
    pub boot: u64,
    /// Grows with each report of a boot.
    #[n(2)]
    pub seq: u64,
    /// Names that `loads` are of.
    #[n(3)]
    pub names: NamesDigest,
    /// Digest of the operator's states that it has applied.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub operator: [u8; 16],
    /// Live connections of each backend, in the order of the names.
    #[n(5)]
    pub loads: Vec<u32>,
    /// Sources with many connections: a keyed hash of each, and their count.
    #[n(6)]
    pub sources: Vec<(u64, u32)>,
}

impl MemberReport {
    pub(super) fn new(boot: u64, seq: u64, names: NamesDigest, loads: Vec<u32>) -> MemberReport {
        MemberReport {
            version: VERSION,
            boot,
            seq,
            names,
            operator: [0; 16],
            loads,
            sources: Vec::new(),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Writing to a vector cannot fail.
        minicbor::to_vec(self).unwrap_or_default()
    }

    /// `None`: of another version, or none at all.
    pub(super) fn decode(bytes: &[u8]) -> Option<MemberReport> {
        if bytes.len() > MAX_REPORT {
            return None;
        }
        let report: MemberReport = minicbor::decode(bytes).ok()?;
        let is_bounded = report.loads.len() <= MAX_BACKENDS && report.sources.len() <= MAX_SOURCES;
        (report.version == VERSION && is_bounded).then_some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report() -> impl Strategy<Value = MemberReport> {
        let loads = prop::collection::vec(any::<u32>(), 0..40);
        (any::<u64>(), any::<u64>(), any::<[u8; 16]>(), loads).prop_map(
            |(boot, seq, digest, loads)| MemberReport {
                operator: digest,
                ..MemberReport::new(boot, seq, NamesDigest(digest), loads)
            },
        )
    }

    #[test]
    fn another_version_is_not_read() {
        let mut report = MemberReport::new(1, 2, NamesDigest::default(), vec![3]);
        assert_eq!(MemberReport::decode(&report.encode()), Some(report.clone()));
        report.version = 2;
        assert_eq!(MemberReport::decode(&report.encode()), None);
    }

    #[test]
    fn the_largest_report_fits() {
        let loads = vec![u32::MAX; MAX_BACKENDS];
        let mut report = MemberReport::new(u64::MAX, u64::MAX, NamesDigest::default(), loads);
        report.sources = vec![(u64::MAX, u32::MAX); MAX_SOURCES];
        assert_eq!(MemberReport::decode(&report.encode()), Some(report));
    }

    proptest! {
        #[test]
        fn a_report_is_read_as_it_was_written(report in report()) {
            prop_assert_eq!(MemberReport::decode(&report.encode()), Some(report));
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = MemberReport::decode(&bytes);
        }
    }
}
