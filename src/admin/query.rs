//! Query of a listing of connections. A parameter that is not understood is an error, and not
//! ignored: a filter that did not apply would show the wrong connections.

use percent_encoding::percent_decode_str;

use super::filter::{CONDITIONS, set_condition};
use crate::base::names::nearest;
use crate::relay::{Cursor, Filter, MAX_PAGE};

/// Connections of one page, unless `limit` is given: as many as a person reads.
pub(crate) const DEFAULT_LIMIT: usize = 100;

/// Parameters beside the conditions of a filter.
const PAGE_PARAMETERS: [&str; 4] = ["sort", "limit", "cursor", "count"];

/// Order of a listing: the largest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortKey {
    Age,
    Idle,
    /// Sum of both directions.
    Bytes,
}

/// Parsed query.
#[derive(Debug)]
pub(super) struct Listing {
    pub filter: Filter,
    pub from: Cursor,
    /// `None`: in the order of the table, page by page.
    pub sort: Option<SortKey>,
    /// 1 to [`MAX_PAGE`].
    pub limit: usize,
    /// Whether all that match are counted.
    pub counts: bool,
}

impl Listing {
    /// Parses the query of a request target, without its `?`.
    ///
    /// # Errors
    /// Names the parameter and what is allowed.
    pub(super) fn parse(query: &str) -> Result<Listing, String> {
        let mut listing = Listing {
            filter: Filter::default(),
            from: Cursor::default(),
            sort: None,
            limit: DEFAULT_LIMIT,
            counts: false,
        };
        let mut seen = Vec::new();
        // At most one more than there are parameters: the first unknown or repeated one ends it.
        for pair in query.split('&').filter(|_| !query.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&name) {
                return Err(format!("parameter {name}: it is given more than once"));
            }
            listing.set(name, value)?;
            seen.push(name);
        }
        if seen.contains(&"sort") && seen.contains(&"cursor") {
            return Err("parameter sort: a sorted listing has one page; raise limit".to_owned());
        }
        Ok(listing)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let unreadable = |_| format!("parameter {name}: its value is not UTF-8");
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(unreadable)?;
        let read = match name {
            "sort" => sort(&value).map(|sort| self.sort = Some(sort)),
            "limit" => limit(&value).map(|limit| self.limit = limit),
            "cursor" => cursor(&value).map(|cursor| self.from = cursor),
            "count" => count(&value).map(|counts| self.counts = counts),
            _ => match set_condition(&mut self.filter, name, &value) {
                Ok(false) => return Err(unknown(name)),
                read => read.map(drop),
            },
        };
        read.map_err(|allowed| format!("parameter {name}: {value:?} is not {allowed}"))
    }
}

fn sort(value: &str) -> Result<SortKey, String> {
    match value {
        "age" => Ok(SortKey::Age),
        "idle" => Ok(SortKey::Idle),
        "bytes" => Ok(SortKey::Bytes),
        _ => Err("age, idle or bytes".to_owned()),
    }
}

fn unknown(name: &str) -> String {
    let parameters = [CONDITIONS.as_slice(), &PAGE_PARAMETERS].concat();
    let hint = nearest(name, parameters.iter().copied());
    let hint = hint.map_or(String::new(), |name| format!(", did you mean {name:?}?"));
    let allowed = parameters.join(", ");
    format!("unknown parameter {name:?}{hint}; allowed: {allowed}")
}

fn limit(value: &str) -> Result<usize, String> {
    let limit = value
        .parse()
        .ok()
        .filter(|limit| (1..=MAX_PAGE).contains(limit));
    limit.ok_or_else(|| format!("a number from 1 to {MAX_PAGE}"))
}

fn count(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "true or false".to_owned())
}

fn cursor(value: &str) -> Result<Cursor, String> {
    let number = value.parse().map(Cursor::from_number);
    number.map_err(|_| "the number that was next in the page before".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn refusal(query: &str) -> String {
        Listing::parse(query).unwrap_err()
    }

    #[test]
    fn nothing_asks_for_the_first_page_of_all() {
        let Listing {
            filter,
            from,
            sort,
            limit,
            counts,
        } = Listing::parse("").unwrap();
        assert!(!counts);
        assert_eq!(sort, None);
        assert_eq!((from, limit), (Cursor::default(), 100));
        assert_eq!(format!("{filter:?}"), format!("{:?}", Filter::default()));
    }

    #[test]
    fn every_parameter_is_read() {
        let query = "listener=main&pool=chat&backend=unix:%2Frun%2Fa.sock&client=10.0.0.0/8&min_age=1h&min_idle=10m\
                     &tag=u%207&host=a.example&path=/chat/*&sni=b.example&subject=CN%3Da\
                     &limit=7&cursor=4294967298";
        let listing = Listing::parse(query).unwrap();
        let Filter {
            id,
            listener,
            pool,
            backend,
            client,
            tag,
            host,
            path,
            sni,
            subject,
            min_age,
            min_idle,
        } = listing.filter;
        assert_eq!(tag.as_deref(), Some("u 7"));
        assert_eq!(host.as_deref(), Some("a.example"));
        assert_eq!(path.as_deref(), Some("/chat/*"));
        assert_eq!(sni.as_deref(), Some("b.example"));
        assert_eq!(subject.as_deref(), Some("CN=a"));
        assert_eq!(id, None);
        assert_eq!(listener.as_deref(), Some("main"));
        assert_eq!(pool.as_deref(), Some("chat"));
        assert_eq!(backend.as_deref(), Some("unix:/run/a.sock"));
        assert_eq!(client, "10.0.0.0/8".parse().ok());
        assert_eq!(min_age, Duration::from_secs(3600));
        assert_eq!(min_idle, Duration::from_secs(600));
        assert_eq!(listing.limit, 7);
        assert_eq!(listing.from.to_number(), 4_294_967_298);
    }

    #[test]
    fn what_is_not_understood_is_named_with_what_is_allowed() {
        for (query, said) in [
            ("pol=chat", "did you mean \"pool\"?"),
            ("x=1", "allowed: listener, pool,"),
            ("id=1", "unknown parameter \"id\""),
            ("pool=a&", "unknown parameter \"\""),
            ("pool=", "parameter pool: \"\" is not a name"),
            ("pool", "parameter pool: "),
            (
                "pool=a&pool=b",
                "parameter pool: it is given more than once",
            ),
            ("pool=%ff", "parameter pool: its value is not UTF-8"),
            ("client=10.0.0.0/33", "as in 10.0.0.0/8"),
            ("client=evil.example", "a network or an address"),
            ("min_age=60", "parameter min_age: \"60\" is not a duration"),
            ("min_idle=-1s", "parameter min_idle: "),
            ("limit=0", "a number from 1 to 1000"),
            ("limit=1001", "a number from 1 to 1000"),
            ("cursor=x", "the number that was next"),
        ] {
            let error = refusal(query);
            assert!(error.contains(said), "{query}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_survived(query in ".*") {
            let _ = Listing::parse(&query);
        }
    }
}
