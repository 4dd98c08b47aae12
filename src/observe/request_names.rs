//! Names of a request, for the log and the operator: server name, method, host, path, names of the
//! certificate, the balancer in front and what it says, and the tag. They are one allocation,
//! because a session keeps them for hours.

use std::borrow::Cow;

use super::cut::cut;
use super::handshake_facts::HandshakeFacts;
use super::tag;

/// Limit of a server name, as in DNS.
const MAX_SNI_BYTES: usize = 253;
/// Limit of a method; the longest registered one has 17.
const MAX_METHOD_BYTES: usize = 24;
/// Limit of a host, and of a path: the padding of one must not push the other out.
const MAX_TARGET_BYTES: usize = 128;

/// Limit of each name of a certificate: enough to identify the client, and its length fits a byte.
const MAX_CERTIFICATE_BYTES: usize = 250;
/// Limit of a request id.
const MAX_REQUEST_ID_BYTES: usize = 128;
/// Limit of the TLVs of a PROXY header, as `MAX_CERTIFICATE_BYTES`.
const MAX_TLVS_BYTES: usize = 250;

// A session that moves to another process takes them along by these numbers: none is used again.
const SNI: usize = 0;
const METHOD: usize = 1;
const HOST: usize = 2;
const PATH: usize = 3;
const CLIENT_SUBJECT: usize = 4;
const CLIENT_SAN: usize = 5;
/// Balancer in front, with its port.
const VIA: usize = 6;
/// TLVs of the balancer in front, about the client.
const PROXY_TLVS: usize = 7;
/// Result of the TLS handshake.
const CLIENT_TLS: usize = 8;
const REQUEST_ID: usize = 9;
/// Codes of the Close frames of each side, in digits.
const CLOSES: [usize; 2] = [10, 11];
/// Tag of the session, behind its mark.
const TAG: usize = 12;
pub(super) const COUNT: usize = 13;
/// Length of an absent name. No name is that long.
const NONE: u8 = u8::MAX;

/// Names of one request. A raw TCP connection has none, and no allocation either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RequestNames {
    /// Number of lengths, the length of each name up to the last one that is there, then all names.
    /// Empty where no name was ever set: such a box is no allocation.
    packed: Box<[u8]>,
}

impl RequestNames {
    /// No name was ever set.
    pub(crate) fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    pub(crate) fn sni(&self) -> Option<&str> {
        self.name(SNI)
    }

    pub(crate) fn method(&self) -> Option<&str> {
        self.name(METHOD)
    }

    pub(crate) fn host(&self) -> Option<&str> {
        self.name(HOST)
    }

    /// Path without its query.
    pub(crate) fn path(&self) -> Option<&str> {
        self.name(PATH)
    }

    /// Address of the balancer in front.
    pub(crate) fn via(&self) -> Option<&str> {
        self.name(VIA)
    }

    /// TLVs of the balancer in front, about the client.
    pub(crate) fn proxy_tlvs(&self) -> Option<&str> {
        self.name(PROXY_TLVS)
    }

    pub(crate) fn client_tls(&self) -> Option<HandshakeFacts> {
        HandshakeFacts::unpack(self.name(CLIENT_TLS)?)
    }

    pub(crate) fn set_client_tls(&mut self, tls: &HandshakeFacts) {
        self.set([(CLIENT_TLS, Some(&tls.pack()))]);
    }

    pub(crate) fn request_id(&self) -> Option<&str> {
        self.name(REQUEST_ID)
    }

    pub(crate) fn set_request_id(&mut self, id: &str) {
        self.set([(REQUEST_ID, Some(cut(id, MAX_REQUEST_ID_BYTES)))]);
    }

    /// Code of the Close frame of the client, or of its backend.
    pub(crate) fn close_code(&self, is_client: bool) -> Option<u16> {
        self.name(close_of(is_client))?.parse().ok()
    }

    pub(crate) fn set_close_code(&mut self, is_client: bool, code: Option<u16>) {
        if code.is_none() && self.name(close_of(is_client)).is_none() {
            return;
        }
        let code = code.map(|code| code.to_string());
        self.set([(close_of(is_client), code.as_deref())]);
    }

    pub(crate) fn set_announced(&mut self, via: &str, tlvs: Option<&str>) {
        let tlvs = tlvs.map(|tlvs| cut(tlvs, MAX_TLVS_BYTES));
        self.set([(VIA, Some(via)), (PROXY_TLVS, tlvs)]);
    }

    pub(crate) fn set_sni(&mut self, sni: &str) {
        self.set([(SNI, Some(cut(sni, MAX_SNI_BYTES)))]);
    }

    /// Name in the client's certificate.
    pub(crate) fn client_subject(&self) -> Option<&str> {
        self.name(CLIENT_SUBJECT)
    }

    /// Name in the client's certificate.
    pub(crate) fn client_san(&self) -> Option<&str> {
        self.name(CLIENT_SAN)
    }

    pub(crate) fn set_client_certificate(&mut self, subject: Option<&str>, san: Option<&str>) {
        let [subject, san] =
            [subject, san].map(|name| name.map(|name| cut(name, MAX_CERTIFICATE_BYTES)));
        self.set([(CLIENT_SUBJECT, subject), (CLIENT_SAN, san)]);
    }

    /// Sets a request. The query and the fragment of `path` are not kept.
    pub(crate) fn set_request(&mut self, method: &str, host: Option<&str>, path: &str) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let host = host.map(|host| cut(host, MAX_TARGET_BYTES));
        let method = cut(method, MAX_METHOD_BYTES);
        let path = Some(cut(path, MAX_TARGET_BYTES));
        self.set([(METHOD, Some(method)), (HOST, host), (PATH, path)]);
    }

    /// Tag of the session.
    pub(crate) fn tag(&self) -> Option<&str> {
        tag::tag(self.name(TAG)?)
    }

    /// Tag as the log shows it.
    pub(crate) fn logged_tag(&self) -> Option<Cow<'_, str>> {
        tag::logged(self.name(TAG)?)
    }

    /// Sets the tag; `is_hashed`: the log has a hash of it.
    pub(crate) fn set_tag(&mut self, tag: &str, is_hashed: bool) {
        self.set([(TAG, Some(&tag::mark(tag, is_hashed)))]);
    }

    fn set<const N: usize>(&mut self, changes: [(usize, Option<&str>); N]) {
        let mut all = self.all();
        for (which, name) in changes {
            if let Some(name_of) = all.get_mut(which) {
                *name_of = name;
            }
        }
        *self = Self::pack(all);
    }

    /// Packs the names, in the order of their numbers above; each is shorter than 255 bytes.
    pub(crate) fn pack(names: [Option<&str>; COUNT]) -> Self {
        let length = |name: Option<&str>| match name {
            Some(name) => u8::try_from(name.len()).unwrap_or(NONE),
            None => NONE,
        };
        let used = names.iter().rposition(Option::is_some);
        let used = used.map_or(0, |last| last + 1);
        let lengths = names.iter().take(used).map(|name| length(*name));
        let text = names.iter().flatten().flat_map(|name| name.bytes());
        let count = u8::try_from(used).unwrap_or(0);
        Self {
            packed: [count].into_iter().chain(lengths).chain(text).collect(),
        }
    }

    /// The names in the order of their numbers, up to the last one that is there.
    pub(crate) fn export(&self) -> Vec<Option<String>> {
        let all = self.all();
        let used = all.iter().rposition(Option::is_some);
        let used = all.iter().take(used.map_or(0, |last| last + 1));
        used.map(|name| name.map(str::to_owned)).collect()
    }

    /// Takes names in the order of their numbers; those of unknown numbers, and too long ones, are
    /// left out.
    pub(crate) fn import(names: &[Option<String>]) -> Self {
        if names.is_empty() {
            return Self::default();
        }
        let fits = |name: &&str| name.len() < usize::from(NONE);
        Self::pack(std::array::from_fn(|which| {
            names.get(which)?.as_deref().filter(fits)
        }))
    }

    fn all(&self) -> [Option<&str>; COUNT] {
        std::array::from_fn(|which| self.name(which))
    }

    fn name(&self, which: usize) -> Option<&str> {
        let (count, packed) = self.packed.split_first()?;
        let (lengths, text) = packed.split_at_checked(usize::from(*count))?;
        let length = |length: &u8| match *length {
            NONE => 0,
            length => usize::from(length),
        };
        let begin = lengths.get(..which)?.iter().map(length).sum();
        let own = lengths.get(which).filter(|own| **own != NONE)?;
        let name = text.get(begin..begin + length(own))?;
        std::str::from_utf8(name).ok()
    }
}

fn close_of(is_client: bool) -> usize {
    CLOSES[usize::from(!is_client)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_not_said_is_not_there_and_what_is_empty_is() {
        let mut names = RequestNames::default();
        assert_eq!(names.all(), [None; COUNT]);
        names.set_request("GET", None, "");
        assert_eq!(
            names.all(),
            std::array::from_fn(|which| match which {
                METHOD => Some("GET"),
                PATH => Some(""),
                _ => None,
            })
        );
        names.set_announced("192.0.2.9:1", None);
        names.set_sni("a");
        assert_eq!((names.via(), names.sni()), (Some("192.0.2.9:1"), Some("a")));
        assert_eq!(names.proxy_tlvs(), None);
        names.set_announced("192.0.2.9:1", Some(&"x".repeat(300)));
        assert_eq!(names.proxy_tlvs().map(str::len), Some(MAX_TLVS_BYTES));
        names.set_close_code(false, None);
        names.set_close_code(true, Some(1001));
        names.set_request_id(&"x".repeat(300));
        assert_eq!(
            (names.close_code(true), names.close_code(false)),
            (Some(1001), None)
        );
        assert_eq!(names.request_id().map(str::len), Some(MAX_REQUEST_ID_BYTES));
        assert_eq!(names.path(), Some(""));
    }

    /// A session keeps them for hours.
    #[test]
    fn names_that_are_not_there_take_no_room_behind_the_last_one() {
        let mut names = RequestNames::default();
        names.set_request("GET", None, "/");
        let taken = |names: &RequestNames| names.packed.len();
        assert_eq!(taken(&names), 1 + 4 + "GET/".len());
        names.set_tag("7", false);
        assert_eq!(taken(&names), 1 + COUNT + "GET/=7".len());
    }

    proptest! {
        #[test]
        fn each_name_is_kept_up_to_its_bound(
            sni in ".{0,90}",
            method in "[A-Z]{0,24}",
            host in proptest::option::of(".{0,90}"),
            path in "[^?#]{0,90}",
            subject in proptest::option::of(".{0,90}"),
        ) {
            let mut names = RequestNames::default();
            names.set_request("OLD", Some("old"), "/old");
            names.set_client_certificate(subject.as_deref(), Some("x"));
            names.set_sni(&sni);
            names.set_request(&method, host.as_deref(), &path);
            let kept = host.as_deref().map(|host| cut(host, 128));
            let subject = subject.as_deref().map(|subject| cut(subject, 250));
            prop_assert_eq!(names.client_subject(), subject);
            prop_assert_eq!(names.client_san(), Some("x"));
            prop_assert_eq!(names.sni(), Some(cut(&sni, 253)));
            prop_assert_eq!(names.method(), Some(method.as_str()));
            prop_assert_eq!(names.host(), kept);
            prop_assert_eq!(names.path(), Some(cut(&path, 128)));
        }
    }
}
