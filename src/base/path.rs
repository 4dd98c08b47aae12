//! The path of a request as routes compare it (RFC 3986 section 6.2.2): one form for all
//! spellings that a backend may read as the same. Pure; the target itself goes on as it came.
//!
//! Unreserved characters are decoded, other escapes are in upper case, `;parameters` are dropped,
//! slashes merged, dot segments resolved, in that order: `/x/..;/a` is `/a`, as servlet containers
//! have it.

use std::borrow::Cow;

/// Normal form of `path`, without a copy where it is normal already. A target that does not begin
/// with a slash (`*`) is left alone.
pub(crate) fn normalize_path(path: &str) -> Cow<'_, str> {
    if !path.starts_with('/') || is_normal(path.as_bytes()) {
        return Cow::Borrowed(path);
    }
    let resolved = resolve(&decode(path.as_bytes(), is_unreserved));
    String::from_utf8(resolved).map_or(Cow::Borrowed(path), Cow::Owned)
}

/// A path that backends may read in different ways: guards must hold for each.
/// [`AmbiguousPath::of`] is `None` for a path that all read alike.
///
/// Any escape may be decoded or not, also escapes of escapes; `\` may separate; parameters may be
/// dropped or not; each `..` may leave its parent or be a name; `//` may be one separator or two.
/// Some order of these steps is what a chain of proxy, server and router does.
#[derive(Debug, Clone)]
pub(crate) struct AmbiguousPath<'a> {
    path: &'a [u8],
    /// The path, decoded completely.
    resolved: Vec<u8>,
    /// Names without empty ones and `.`.
    steps: Vec<PathStep>,
}

#[derive(Debug, Clone)]
struct PathStep {
    name: Vec<u8>,
    /// Joined to the last name by an escaped separator or a `\`: some readers take both for one
    /// name.
    is_joined: bool,
}

/// Longer paths count as under every prefix.
const MAX_STEPS: usize = 256;

impl<'a> AmbiguousPath<'a> {
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let path = path.as_bytes();
        let is_plain = !path.iter().any(|byte| b"%\\;".contains(byte)) && is_normal(path);
        if !path.starts_with(b"/") || is_plain {
            return None;
        }
        let decoded = decode(path, |_| true);
        let separated: Vec<_> = decoded
            .iter()
            .map(|&byte| if byte == b'\\' { b'/' } else { byte })
            .collect();
        Some(Self {
            path,
            resolved: resolve(&separated),
            steps: steps(path),
        })
    }

    /// The path with every escape decoded, `\` a separator, and dot segments resolved.
    pub(crate) fn resolved(&self) -> &[u8] {
        &self.resolved
    }

    /// Whether some backend may take the path for one under `prefix`, in any case of letters.
    pub(crate) fn may_be_under(&self, prefix: &str) -> bool {
        let wanted = steps(prefix.as_bytes());
        if self.steps.len() > MAX_STEPS || wanted.is_empty() {
            return true;
        }
        // Least number of names that `..` must leave before the next wanted one can follow; `None`
        // while earlier wanted ones are missing.
        let mut to_leave = vec![None; wanted.len()];
        to_leave[..1].fill(Some(0_usize));
        for step in &self.steps {
            let found = |name: &PathStep| name.name.eq_ignore_ascii_case(&step.name);
            for index in (0..wanted.len()).rev() {
                let Some(Some(names)) = to_leave.get(index).copied() else {
                    continue;
                };
                if names == 0 && wanted.get(index).is_some_and(found) {
                    match to_leave.get_mut(index + 1) {
                        Some(next) => *next = Some(0),
                        None => return true,
                    }
                }
                let left = if step.climbs() {
                    names.saturating_sub(1)
                } else {
                    names + usize::from(!step.is_joined)
                };
                if let Some(names) = to_leave.get_mut(index) {
                    *names = Some(left);
                }
            }
        }
        false
    }

    /// Whether every backend takes the path for one under `prefix`, a normal path.
    pub(crate) fn is_surely_under(&self, prefix: &str) -> bool {
        let names = steps(prefix.as_bytes()).len();
        if names == 0 {
            return true;
        }
        let literal = self
            .path
            .strip_prefix(prefix.trim_end_matches('/').as_bytes());
        if self.steps.len() > MAX_STEPS || literal.is_none_or(|rest| !rest.starts_with(b"/")) {
            return false;
        }
        let mut below = self.steps.iter().skip(names);
        let depth = below.try_fold(0_usize, |depth, step| {
            if step.climbs() {
                depth.checked_sub(1)
            } else {
                Some(depth + usize::from(!step.is_joined))
            }
        });
        depth.is_some()
    }
}

impl PathStep {
    fn climbs(&self) -> bool {
        self.name == b".."
    }
}

fn steps(path: &[u8]) -> Vec<PathStep> {
    let segments = path.split(|&byte| byte == b'/');
    let names = segments.flat_map(|segment| {
        let decoded = decode(segment, |_| true);
        let parts = decoded.split(|byte| b"/\\".contains(byte));
        let parts = parts.enumerate().map(|(index, part)| PathStep {
            name: name_of(part).to_owned(),
            is_joined: index > 0,
        });
        parts.collect::<Vec<_>>()
    });
    names
        .filter(|step| !matches!(step.name.as_slice(), b"" | b"."))
        .collect()
}

/// A segment without its parameters; a string of C ends at a NUL.
fn name_of(segment: &[u8]) -> &[u8] {
    let end = segment.iter().position(|byte| b";\0".contains(byte));
    end.and_then(|end| segment.get(..end)).unwrap_or(segment)
}

/// True for a path with a separator that only some readers see: `%2f`, `%5c`, `%00`, `\`.
pub(crate) fn hides_separator(path: &str) -> bool {
    let path = path.as_bytes();
    path.contains(&b'\\')
        || path
            .windows(3)
            .any(|three| matches!(escaped(three), Some(b'/' | b'\\' | 0)))
}

fn is_normal(path: &[u8]) -> bool {
    !path.contains(&b';')
        && has_normal_escapes(path)
        && path.windows(2).all(|two| two != b"//")
        && !path.split(|&byte| byte == b'/').any(is_dots)
}

fn has_normal_escapes(path: &[u8]) -> bool {
    path.windows(3).all(|three| {
        escaped(three)
            .is_none_or(|byte| !is_unreserved(byte) && !three.iter().any(u8::is_ascii_lowercase))
    })
}

fn is_dots(segment: &[u8]) -> bool {
    matches!(segment, b"." | b"..")
}

/// Decodes the escapes that `chosen` takes; also those that a decoded character completes, so that
/// nothing is left to decode. Linear in its input.
fn decode(path: &[u8], chosen: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    for &byte in path {
        decoded.push(byte);
        while let Some(start) = decoded.len().checked_sub(3)
            && let Some(byte) = decoded.get(start..).and_then(escaped)
        {
            if !chosen(byte) {
                if let Some(escape) = decoded.get_mut(start..) {
                    escape.make_ascii_uppercase();
                }
                break;
            }
            decoded.truncate(start);
            decoded.push(byte);
        }
    }
    decoded
}

/// Removes parameters, empty segments and dot segments.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut resolved = Vec::with_capacity(path.len());
    let mut ends_with_slash = true;
    for segment in path.split(|&byte| byte == b'/') {
        let name = name_of(segment);
        ends_with_slash = name.is_empty() || is_dots(name);
        if name == b".." {
            let parent = resolved.iter().rposition(|&byte| byte == b'/');
            resolved.truncate(parent.unwrap_or(0));
        } else if !matches!(name, b"" | b".") {
            resolved.push(b'/');
            resolved.extend_from_slice(name);
        }
    }
    if ends_with_slash {
        resolved.push(b'/');
    }
    resolved
}

/// Byte that `%XX` stands for.
fn escaped(escape: &[u8]) -> Option<u8> {
    let [b'%', high, low] = *escape else {
        return None;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_has_the_plain_form() {
        for spelling in [
            "/admin",
            "//admin",
            "/./admin",
            "/%61dmin",
            "/%61%64%6D%69%6e",
            "/admin;x=1",
            "/admin;x=1;y",
            "/;a/admin",
            "/x/../admin",
            "/x/%2e%2e/admin",
            "/x/.%2E/admin",
            "/x/..;/admin",
            "/../../admin",
            "/x//..//.//%61dmin;a=/../admin",
            "/%%361dmin",
        ] {
            assert_eq!(normalize_path(spelling), "/admin", "{spelling}");
            assert_eq!(decoded(spelling), "/admin", "{spelling}");
        }
        for spelling in [
            "/admin/.",
            "/admin//",
            "/admin/x/..",
            "/admin/;a",
            "/admin;a/",
        ] {
            assert_eq!(normalize_path(spelling), "/admin/", "{spelling}");
        }
    }

    #[test]
    fn what_is_reserved_stays_escaped() {
        assert_eq!(normalize_path("/a%2fb%3bc%2561"), "/a%2Fb%3Bc%2561");
        assert_eq!(normalize_path("/a%zz%"), "/a%zz%");
        assert_eq!(normalize_path("*"), "*");
        assert_eq!(normalize_path("/.."), "/");
    }

    #[test]
    fn a_guard_sees_through_escapes_of_escapes() {
        for spelling in [
            "/%2561dmin",
            "/%25252561dmin",
            "/admin%3bx=1",
            "/x%2f..%2fadmin",
            "/x%5c%252e%252e\\admin",
            "/admin%00.png",
        ] {
            assert_eq!(decoded(spelling), "/admin", "{spelling}");
        }
    }

    #[test]
    fn a_path_may_be_what_some_chain_of_readers_makes_of_it() {
        let may = |path| AmbiguousPath::of(path).expect(path).may_be_under("/a/b");
        for path in [
            "/a/b;p",
            "/A/./B/x",
            "/a/../b/../a/b/..;/..",
            "/x/../a//b/../../y",
            "/a/x/%2e%2e/b/%2e%2e/../y",
            "/x%2fy/../a/%62",
            "/a%252fb",
            "/x\\..\\..\\a\\b",
            "/a/b%00.png",
            "/x/%252e%252e;/a/b",
        ] {
            assert!(may(path), "{path}");
        }
        for path in [
            "/x/y/../a/b",
            "/a/../x/b",
            "/a;/x/b",
            "/a/..b/../x/b",
            "/a%20/b",
        ] {
            assert!(!may(path), "{path}");
        }
        let long = "/x/.".repeat(MAX_STEPS + 1);
        assert!(may(&long));
        assert!(
            AmbiguousPath::of("/.")
                .expect("ambiguous")
                .may_be_under("/")
        );
    }

    #[test]
    fn a_path_is_surely_under_a_prefix_that_nothing_leaves() {
        let surely = |path| AmbiguousPath::of(path).expect(path).is_surely_under("/a/b");
        for path in ["/a/b/%20", "/a/b/x/..", "/a/b//x;p/../y", "/a/b/x%2fy/.."] {
            assert!(surely(path), "{path}");
        }
        for path in [
            "/a/b/..",
            "/a//b/x",
            "/a/b;p",
            "/a/b%2f",
            "/a/b//../x",
            "/a/b/..%2fx/y",
        ] {
            assert!(!surely(path), "{path}");
        }
        assert!(
            AmbiguousPath::of("/..")
                .expect("ambiguous")
                .is_surely_under("/")
        );
    }

    #[test]
    fn hidden_separators_are_found() {
        for path in ["/a%2fb", "/a%2F", "/a%5c", "/a%5Cb", "/%00", "/a\\b"] {
            assert!(hides_separator(path), "{path}");
        }
        for path in ["/a/b", "/a%20b", "/a%252fb", "/%2", "/%"] {
            assert!(!hides_separator(path), "{path}");
        }
    }

    #[test]
    fn a_normal_path_is_not_copied() {
        for path in [
            "/",
            "/a/b/",
            "/.well-known/x",
            "/a%20b%2F",
            "/a..b",
            "*",
            "",
        ] {
            assert!(matches!(normalize_path(path), Cow::Borrowed(_)), "{path}");
        }
        for path in ["/", "/a/b/", "/.well-known/x", "*"] {
            assert!(AmbiguousPath::of(path).is_none(), "{path}");
        }
    }

    fn decoded(path: &str) -> String {
        let ambiguous = AmbiguousPath::of(path);
        ambiguous.map_or(path.to_owned(), |path| {
            String::from_utf8(path.resolved().to_vec()).expect("text")
        })
    }

    /// Another spelling of the same path, made by one of the known tricks.
    fn respell(path: &str, trick: u8, at: prop::sample::Index) -> String {
        let slashes: Vec<_> = path.match_indices('/').map(|(index, _)| index).collect();
        let slash = slashes[at.index(slashes.len())];
        let (before, behind) = path.split_at(slash);
        match trick {
            0 => format!("{before}/{behind}"),
            1 => format!("{before}/.{behind}"),
            2 => format!("{before}/x/..{behind}"),
            3 => format!("{before}/%2e{behind}"),
            4 => format!("{before}/x/%2E%2e{behind}"),
            5 => format!("{before}/;p=1{behind}"),
            6 => format!("{path};p=%61"),
            7 => format!("{before}/x/..;p{behind}"),
            _ => {
                let letters: Vec<_> = path
                    .char_indices()
                    .filter(|(_, letter)| letter.is_ascii_alphanumeric())
                    .collect();
                // Within an escape this nests.
                let (index, letter) = letters[at.index(letters.len())];
                let escape = format!("%{:02x}", u32::from(letter));
                [&path[..index], &escape, &path[index + 1..]].concat()
            }
        }
    }

    proptest! {
        #[test]
        fn tricks_upon_tricks_lead_to_the_plain_path(
            plain in "(/[a-z0-9]{1,6}){1,3}",
            tricks in prop::collection::vec((0u8..9, any::<prop::sample::Index>()), 0..8),
        ) {
            let spelled = tricks
                .into_iter()
                .fold(plain.clone(), |path, (trick, at)| respell(&path, trick, at));
            prop_assert_eq!(normalize_path(&spelled), plain.as_str(), "{}", spelled);
            prop_assert_eq!(decoded(&spelled), plain, "{}", spelled);
        }

        #[test]
        fn normalizing_twice_changes_nothing(path in "/([a./;%\\\\]|%2[0-9ef]|%6[0-9a-f]|[0-9]){0,24}") {
            let once = normalize_path(&path).into_owned();
            prop_assert!(once.starts_with('/'));
            prop_assert!(matches!(normalize_path(&once), Cow::Borrowed(_)), "{} {}", path, once);
            let may = AmbiguousPath::of(&path).is_none_or(|path| path.may_be_under("/a") || !path.is_surely_under("/a"));
            prop_assert!(may, "{}", path);
        }
    }
}
