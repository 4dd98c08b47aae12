//! Registries simulated over seeds: protocols against servers that lose answers, break off and
//! restart. After all that the listing is the registry's.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::consul::ConsulSource;
use super::etcd::EtcdSource;
use super::{HttpSource, Publication, ReplyKind, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryKind, RegistryUrl};

/// Any JSON, with the names that protocols know.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9.:/=]{0,12}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "Node",
        "Service",
        "Checks",
        "ID",
        "Address",
        "Port",
        "Weights",
        "Passing",
        "Status",
        "CheckID",
        "kv",
        "kvs",
        "key",
        "value",
        "type",
        "header",
        "revision",
        "result",
        "events",
        "canceled",
        "nodes",
        "address",
        "Addr",
        "Metadata",
        "weight",
        "instance",
        "application",
        "port",
        "$",
        "@enabled",
        "status",
        "ipAddr",
        "instanceId",
        "metadata",
        "hosts",
        "ip",
        "healthy",
        "accessToken",
        "tokenTtl",
        "cacheMillis",
        "name",
        "state",
    ]);
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..5).prop_map(|pairs| {
                Value::Object(
                    pairs
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

/// A server of a registry: its data, and answers to requests.
trait SimulatedServer {
    /// Adds, changes or removes a backend.
    fn change(&mut self, random: &mut fastrand::Rng);

    /// Loses its data or its history.
    fn restart(&mut self, random: &mut fastrand::Rng);

    /// The whole answer, or the lines of a watch.
    fn answer(&mut self, request: &SourceRequest) -> (HeaderMap, Vec<Value>);

    fn names(&self) -> Vec<String>;
}

#[derive(Default)]
struct SimulatedConsul {
    index: u64,
    names: BTreeMap<String, u8>,
}

impl SimulatedServer for SimulatedConsul {
    fn change(&mut self, random: &mut fastrand::Rng) {
        let name = format!("n{}", random.u8(0..6));
        if self.names.remove(&name).is_none() {
            self.names.insert(name, random.u8(1..9));
        }
        self.index += 1;
    }

    fn restart(&mut self, random: &mut fastrand::Rng) {
        self.index = random.u64(0..3);
    }

    fn answer(&mut self, _: &SourceRequest) -> (HeaderMap, Vec<Value>) {
        let mut headers = HeaderMap::new();
        headers.insert("x-consul-index", HeaderValue::from(self.index));
        let list = self.names.iter().map(|(name, last)| {
            json!({"Node": {"Node": "n"}, "Service": {"ID": name, "Address": format!("10.0.0.{last}"), "Port": 80}, "Checks": []})
        });
        (headers, vec![list.collect()])
    }

    fn names(&self) -> Vec<String> {
        self.names.keys().map(|name| format!("n/{name}")).collect()
    }
}

/// Revisions with what happened at each; those up to `compacted` are gone.
#[derive(Default)]
struct SimulatedEtcd {
    history: Vec<(String, Option<u8>)>,
    compacted: usize,
}

impl SimulatedEtcd {
    fn keys(&self) -> BTreeMap<&str, u8> {
        let mut keys = BTreeMap::new();
        for (name, value) in &self.history {
            match value {
                Some(value) => {
                    keys.insert(name.as_str(), *value);
                }
                None => {
                    keys.remove(name.as_str());
                }
            }
        }
        keys
    }

    fn pair(name: &str, last: u8) -> Value {
        let value = format!("{{\"address\": \"10.0.0.{last}:80\"}}");
        let key = format!("/chat/{name}");
        json!({"key": BASE64.encode(key.as_bytes()), "value": BASE64.encode(value.as_bytes())})
    }
}

impl SimulatedServer for SimulatedEtcd {
    fn change(&mut self, random: &mut fastrand::Rng) {
        let name = format!("n{}", random.u8(0..6));
        let is_there = self.keys().contains_key(name.as_str());
        let value = (!is_there).then(|| random.u8(1..9));
        self.history.push((name, value));
    }

    fn restart(&mut self, random: &mut fastrand::Rng) {
        self.compacted = random.usize(0..=self.history.len());
    }

    fn answer(&mut self, request: &SourceRequest) -> (HeaderMap, Vec<Value>) {
        let revision = self.history.len();
        let header = json!({"revision": revision.to_string()});
        if !request.path.ends_with("/watch") {
            let pairs = self
                .keys()
                .into_iter()
                .map(|(name, last)| SimulatedEtcd::pair(name, last));
            let kvs: Vec<Value> = pairs.collect();
            return (
                HeaderMap::new(),
                vec![json!({"header": header, "kvs": kvs})],
            );
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let start = body["create_request"]["start_revision"].as_u64().unwrap() as usize;
        let mut lines = vec![json!({"result": {"header": header, "created": true}})];
        if start <= self.compacted {
            lines.push(json!({"result": {"canceled": true, "compact_revision": self.compacted.to_string()}}));
            return (HeaderMap::new(), lines);
        }
        for (at, (name, value)) in self.history.iter().enumerate().skip(start - 1) {
            let event = match value {
                Some(last) => json!({"kv": SimulatedEtcd::pair(name, *last)}),
                None => json!({"type": "DELETE", "kv": SimulatedEtcd::pair(name, 0)}),
            };
            let header = json!({"revision": (at + 1).to_string()});
            lines.push(json!({"result": {"header": header, "events": [event]}}));
        }
        (HeaderMap::new(), lines)
    }

    fn names(&self) -> Vec<String> {
        self.keys().into_keys().map(str::to_owned).collect()
    }
}

/// Makes an exchange as the driver does; `fault`: what the network does to it.
fn exchange(
    source: &mut dyn HttpSource,
    server: &mut dyn SimulatedServer,
    fault: u8,
    last: &mut Option<Publication>,
) {
    let request = source.next(None);
    let (headers, values) = server.answer(&request);
    let mut is_whole = fault > 3;
    for value in values {
        let mut body = value.to_string().into_bytes();
        match fault {
            // Nothing, half of it, an error page, or another answer.
            0 => break,
            1 => body.truncate(body.len() / 2),
            2 => body = b"<html>502</html>".to_vec(),
            3 => body = b"{\"error\": 7}".to_vec(),
            _ => {}
        }
        let taken = match request.reply {
            ReplyKind::Lines { .. } => source.line(&body),
            ReplyKind::Whole { .. } => source.answered(SourceAnswer {
                status: StatusCode::OK,
                headers: &headers,
                body: &body,
            }),
        };
        match taken {
            Ok(Some(publication)) => *last = Some(publication),
            Ok(None) => {}
            Err(_) => {
                is_whole = false;
                break;
            }
        }
    }
    if !is_whole {
        source.restart();
    }
}

fn simulate(seed: u64, source: &mut dyn HttpSource, server: &mut dyn SimulatedServer) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut last = None;
    for _ in 0..random.usize(1..60) {
        match random.u8(0..12) {
            0..=5 => server.change(&mut random),
            6 => server.restart(&mut random),
            _ => {}
        }
        exchange(source, server, random.u8(0..9), &mut last);
    }
    // A watch that is under way may be an old server's: the driver lists again after a minute.
    source.restart();
    exchange(source, server, 9, &mut last);
    let found = last.unwrap().listing.entries.into_iter();
    let found: Vec<String> = found.map(|one| one.name).collect();
    assert_eq!(found, server.names(), "seed {seed}");
}

pub(super) fn registry(kind: RegistryKind) -> Registry {
    Registry {
        kind,
        service: "/chat/".to_owned(),
        filter: None,
        namespace: None,
        group: None,
        port_name: None,
        port: None,
        user: None,
        token_file: None,
        tls: None,
        interval: None,
    }
}

#[test]
fn after_any_faults_the_listing_is_the_registry_s() {
    let seeds = std::env::var("EVENKEEL_DISCOVERY_SEEDS");
    let seeds = seeds.ok().and_then(|text| text.parse().ok()).unwrap_or(200);
    let url = RegistryUrl::parse("http://a.test:1").unwrap();
    for seed in 0..seeds {
        let consul = registry(RegistryKind::Consul(url.clone()));
        let mut source = ConsulSource::new(&consul, &url);
        simulate(seed, &mut source, &mut SimulatedConsul::default());
        let etcd = registry(RegistryKind::Etcd(vec![url.clone()]));
        let mut source = EtcdSource::new(&etcd, std::slice::from_ref(&url));
        simulate(seed, &mut source, &mut SimulatedEtcd::default());
    }
}
