//! What a client asked for, for the log and the operator: server name, method, host and path (and who passed it on) in one allocation, because a
//! session keeps them for hours.

/// What a server name may take: the most that DNS allows.
const MAX_SNI_BYTES: usize = 253;
/// What a method may take; the longest registered one has 17.
const MAX_METHOD_BYTES: usize = 24;
/// What host and path together may take; a longer path is cut.
const MAX_TARGET_BYTES: usize = 128;

const SNI: usize = 0;
const METHOD: usize = 1;
const HOST: usize = 2;
const PATH: usize = 3;
/// The balancer in front, with its port.
const VIA: usize = 4;
const COUNT: usize = 5;
/// In place of a length: there is no such name. No name is that long.
const NONE: u8 = u8::MAX;

/// Nothing for a raw TCP connection, and then no allocation either.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// The length of each, then all of them.
    packed: Option<Box<[u8]>>,
}

impl Names {
    pub fn sni(&self) -> Option<&str> {
        self.name(SNI)
    }

    pub fn method(&self) -> Option<&str> {
        self.name(METHOD)
    }

    pub fn host(&self) -> Option<&str> {
        self.name(HOST)
    }

    /// Without its query.
    pub fn path(&self) -> Option<&str> {
        self.name(PATH)
    }

    /// The balancer in front.
    pub fn via(&self) -> Option<&str> {
        self.name(VIA)
    }

    pub fn set_via(&mut self, via: &str) {
        let [sni, method, host, path, _] = self.all();
        *self = Self::pack([sni, method, host, path, Some(via)]);
    }

    pub fn set_sni(&mut self, sni: &str) {
        let [_, method, host, path, via] = self.all();
        *self = Self::pack([Some(cut(sni, MAX_SNI_BYTES)), method, host, path, via]);
    }

    /// The query and the fragment of `path` are not kept.
    pub fn set_request(&mut self, method: &str, host: Option<&str>, path: &str) {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let host = host.map(|host| cut(host, MAX_TARGET_BYTES));
        let left = MAX_TARGET_BYTES - host.map_or(0, str::len);
        let method = cut(method, MAX_METHOD_BYTES);
        let path = cut(path, left);
        *self = Self::pack([self.sni(), Some(method), host, Some(path), self.via()]);
    }

    /// In the order of server name, method, host, path, balancer in front; each is shorter than 255 bytes.
    pub fn pack(names: [Option<&str>; COUNT]) -> Self {
        let length = |name: Option<&str>| match name {
            Some(name) => u8::try_from(name.len()).unwrap_or(NONE),
            None => NONE,
        };
        let text = names.iter().flatten().flat_map(|name| name.bytes());
        Self {
            packed: Some(names.map(length).into_iter().chain(text).collect()),
        }
    }

    fn all(&self) -> [Option<&str>; COUNT] {
        [SNI, METHOD, HOST, PATH, VIA].map(|which| self.name(which))
    }

    fn name(&self, which: usize) -> Option<&str> {
        let packed = self.packed.as_deref()?;
        let (lengths, text) = packed.split_at_checked(COUNT)?;
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

/// At most `limit` bytes of `text`, at a character's boundary.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 300), "aé");
    }

    #[test]
    fn what_was_not_said_is_not_there_and_what_is_empty_is() {
        let mut names = Names::default();
        assert_eq!(names.all(), [None; 5]);
        names.set_request("GET", None, "");
        assert_eq!(names.all(), [None, Some("GET"), None, Some(""), None]);
        names.set_via("192.0.2.9:1");
        names.set_sni("a");
        assert_eq!((names.via(), names.sni()), (Some("192.0.2.9:1"), Some("a")));
    }

    proptest! {
        #[test]
        fn each_name_is_kept_up_to_its_bound(
            sni in ".{0,90}",
            method in "[A-Z]{0,24}",
            host in proptest::option::of(".{0,50}"),
            path in "[^?#]{0,50}",
        ) {
            let mut names = Names::default();
            names.set_request("OLD", Some("old"), "/old");
            names.set_sni(&sni);
            names.set_request(&method, host.as_deref(), &path);
            let kept = host.as_deref().map(|host| cut(host, 128));
            let left = 128 - kept.map_or(0, str::len);
            prop_assert_eq!(names.sni(), Some(cut(&sni, 253)));
            prop_assert_eq!(names.method(), Some(method.as_str()));
            prop_assert_eq!(names.host(), kept);
            prop_assert_eq!(names.path(), Some(cut(&path, left)));
        }
    }
}
