//! `[traces]`: spans of connections, for a collector.

use std::path::PathBuf;
use std::time::Duration;

use super::backend_tls::BackendTls;
use crate::config::reader::TableReader;
use crate::config::registry_url::RegistryUrl;
use crate::config::spec::{HOUR, number, percent, seconds, text, time};
use crate::config::value::ValueReader;
use crate::config::value_types;

table! {
    /// Traces of connections and requests, over OTLP. Without it there are none.
    pub struct Traces {
        /// Where spans go: a collector that speaks OTLP over HTTP. Without a path: `/v1/traces`.
        endpoint: RegistryUrl = text("a URL such as \"http://127.0.0.1:4318\""),
            required by value_types::text(RegistryUrl::parse);
        /// Share of the traces that begin here and are recorded. A trace that a client has begun is
        /// recorded if the client records it.
        ///
        /// Enough to see where time goes, and little at 8,000 connections per second.
        sample_percent as "sample": u8 = percent(0, 100), default(1);
        /// Clients whose `traceparent` is continued: every one, those in the listener's `trusted`,
        /// or none.
        ///
        /// A trace is worth most where it is whole; `max_queue` bounds what strangers can ask for.
        parent: ParentPolicy, default(ParentPolicy::Any);
        /// Name of this service in traces.
        ///
        /// All balancers are one service; `service.instance.id` tells them apart.
        service_name: String = text("a name"), default("evenkeel".to_owned()) by service_name;
        /// File with a header field in each line, as in `Authorization: Bearer s3cret`. It is read
        /// again before each request.
        headers_file: Option<PathBuf> = text("the path of a file"), optional;
        /// TLS towards the collector. Without it: `https` is verified by the system's roots.
        tls: Option<BackendTls>, optional;
        /// Time for one request to the collector.
        ///
        /// The default of OTLP exporters.
        timeout: Duration = time(100, HOUR), default(seconds(10));
        /// Spans that wait for the collector; more are dropped and counted.
        ///
        /// About 4 MB: a collector that is gone for ten seconds costs nothing at 800 spans a
        /// second.
        max_queue: usize = number(1, 1_000_000), default(8_192);
    }
    then refuse_useless;
}

words! {
    /// Clients whose trace is continued.
    pub enum ParentPolicy {
        /// Every client.
        Any = "any",
        /// Peers in the listener's `trusted`.
        Trusted = "trusted",
        /// None: each trace begins here.
        None = "none",
    }
}

impl Traces {
    /// Path of the requests.
    pub fn path(&self) -> &str {
        match self.endpoint.path.as_str() {
            "" | "/" => "/v1/traces",
            path => path,
        }
    }
}

/// Most bytes of a service name: it goes along with every request.
const MAX_NAME_BYTES: usize = 128;

fn service_name(value: &ValueReader<'_>) -> Option<String> {
    value_types::text(|name: &str| match name.len() {
        0 => Err("it is empty"),
        length if length > MAX_NAME_BYTES => Err("it is longer than 128 bytes"),
        _ if name.chars().any(char::is_control) => Err("it has a control character"),
        _ => Ok(name.to_owned()),
    })(value)
}

fn refuse_useless(table: &TableReader<'_>, traces: &mut Traces) {
    if traces.tls.is_some() && !traces.endpoint.is_tls {
        table.conflict("tls", "it needs an `endpoint` with https://");
    }
    #[cfg(not(feature = "traces"))]
    table.conflict(
        "endpoint",
        "this binary was built without the feature `traces`",
    );
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn traces(keys: &str) -> String {
        format!("{}\n[traces]\n{keys}\n", pool(""))
    }

    fn to_one(keys: &str) -> String {
        traces(&format!("endpoint = \"http://127.0.0.1:4318\"\n{keys}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (traces(""), "traces.endpoint", ErrorKind::Missing),
            (
                traces("endpoint = \"127.0.0.1:4318\""),
                "traces.endpoint",
                ErrorKind::Value,
            ),
            (
                to_one("sample = \"101%\""),
                "traces.sample",
                ErrorKind::Value,
            ),
            (
                to_one("parent = \"some\""),
                "traces.parent",
                ErrorKind::Value,
            ),
            (
                to_one("service_name = \"\""),
                "traces.service_name",
                ErrorKind::Value,
            ),
            (
                to_one("timeout = \"1ms\""),
                "traces.timeout",
                ErrorKind::Value,
            ),
            (
                to_one("max_queue = 0"),
                "traces.max_queue",
                ErrorKind::Value,
            ),
            (
                to_one("tls = { verify = false }"),
                "traces.tls",
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn the_path_is_that_of_otlp_unless_it_is_given() {
        let path = |endpoint: &str| {
            let read = right(&traces(&format!("endpoint = \"{endpoint}\"")));
            read.traces.unwrap().path().to_owned()
        };
        assert_eq!(path("http://a:4318"), "/v1/traces");
        assert_eq!(path("http://a:4318/"), "/v1/traces");
        assert_eq!(path("https://a/otlp/v1/traces"), "/otlp/v1/traces");
    }
}
