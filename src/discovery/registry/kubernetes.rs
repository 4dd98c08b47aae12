//! Kubernetes: the EndpointSlices of a service. All pages are listed, then changes are watched; the
//! union of the slices is the set, and nothing of it is published before it is whole.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::consul::encode;
use super::{HttpSource, Publication, RELIST_INTERVAL, ReplyKind, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded;
use crate::discovery::entry::{Listing, MAX_ENTRIES, RawEntry, join, shorten};
use crate::discovery::fault::{Fault, FaultKind};

/// Slices of one page of a list.
const PAGE: u32 = 100;

/// Slices of one service; each has up to a hundred endpoints.
const MAX_SLICES: usize = MAX_ENTRIES / 10;

/// The server ends a watch after a time of its own; ours comes first.
const SERVER_TIMEOUT: Duration = Duration::from_secs(300);

/// The protocol of Kubernetes.
#[derive(Debug)]
pub(super) struct KubernetesSource {
    path: String,
    port_name: Option<String>,
    phase: KubernetesPhase,
    /// Slices by name.
    slices: BTreeMap<String, Value>,
    version: String,
}

/// Request that comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KubernetesPhase {
    List,
    /// The next page.
    Page(String),
    Watch,
}

impl KubernetesSource {
    pub(super) fn new(registry: &Registry, url: &RegistryUrl) -> KubernetesSource {
        let namespace = registry.namespace.as_deref().unwrap_or("default");
        let selector = encode(&format!("kubernetes.io/service-name={}", registry.service));
        let base = url.base_path();
        let namespace = encode(namespace);
        KubernetesSource {
            path: format!(
                "{base}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={selector}"
            ),
            port_name: registry.port_name.clone(),
            phase: KubernetesPhase::List,
            slices: BTreeMap::new(),
            version: String::new(),
        }
    }

    fn take_page(&mut self, value: &Value) -> Result<Option<Publication>, Fault> {
        let items = value["items"].as_array();
        let items = items.ok_or_else(|| Fault::malformed("a list without items"))?;
        if self.phase == KubernetesPhase::List {
            self.slices.clear();
        }
        for slice in items {
            self.put(slice)?;
        }
        let metadata = &value["metadata"];
        self.version = version(metadata)?;
        match metadata["continue"]
            .as_str()
            .filter(|token| !token.is_empty())
        {
            Some(token) => {
                self.phase = KubernetesPhase::Page(token.to_owned());
                Ok(None)
            }
            None => {
                self.phase = KubernetesPhase::Watch;
                self.publication().map(Some)
            }
        }
    }

    fn put(&mut self, slice: &Value) -> Result<(), Fault> {
        self.slices.insert(name(slice)?, slice.clone());
        if self.slices.len() > MAX_SLICES {
            let what = format!("more than {MAX_SLICES} slices");
            return Err(Fault::new(FaultKind::TooLarge, what));
        }
        Ok(())
    }

    fn publication(&self) -> Result<Publication, Fault> {
        let listing = read(self.slices.values(), self.port_name.as_deref())?;
        Ok(Publication {
            listing,
            revision: self.version.clone(),
        })
    }
}

impl HttpSource for KubernetesSource {
    fn next(&mut self, secret: Option<&str>) -> SourceRequest {
        let path = match &self.phase {
            KubernetesPhase::List => format!("{}&limit={PAGE}", self.path),
            KubernetesPhase::Page(token) => {
                format!("{}&limit={PAGE}&continue={}", self.path, encode(token))
            }
            KubernetesPhase::Watch => {
                let (version, timeout) = (encode(&self.version), SERVER_TIMEOUT.as_secs());
                format!(
                    "{}&watch=1&allowWatchBookmarks=true&resourceVersion={version}&timeoutSeconds={timeout}",
                    self.path
                )
            }
        };
        let mut request = SourceRequest::get(path);
        if self.phase == KubernetesPhase::Watch {
            let jitter = 0.9 + 0.2 * fastrand::f64();
            request.reply = ReplyKind::Lines {
                time: RELIST_INTERVAL.mul_f64(jitter),
            };
        }
        if let Some(secret) = secret {
            request
                .headers
                .push(("authorization", format!("Bearer {secret}")));
        }
        request
    }

    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault> {
        answer.successful()?;
        self.take_page(&bounded::json(answer.body)?)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Publication>, Fault> {
        let event = bounded::json(line)?;
        let object = &event["object"];
        match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => self.put(object)?,
            Some("DELETED") => drop(self.slices.remove(&name(object)?)),
            Some("BOOKMARK") => {
                self.version = version(&object["metadata"])?;
                return Ok(None);
            }
            // 410 among them: the version is too old.
            _ => {
                let message = shorten(object["message"].as_str().unwrap_or("no event"));
                let what = format!("the watch failed: {message}");
                return Err(Fault::new(FaultKind::Status, what));
            }
        }
        self.version = version(&object["metadata"])?;
        self.publication().map(Some)
    }

    fn watches(&self) -> bool {
        true
    }

    fn restart(&mut self) {
        self.phase = KubernetesPhase::List;
    }
}

fn name(slice: &Value) -> Result<String, Fault> {
    let name = slice["metadata"]["name"].as_str();
    let name = name.ok_or_else(|| Fault::malformed("a slice without a name"))?;
    Ok(name.to_owned())
}

fn version(metadata: &Value) -> Result<String, Fault> {
    let version = metadata["resourceVersion"].as_str();
    let version = version.ok_or_else(|| Fault::malformed("no resourceVersion"))?;
    Ok(version.to_owned())
}

/// Readiness of an endpoint, best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PodCondition {
    Terminating,
    Ready,
}

/// Reads the union of the slices. An endpoint in two of them counts once, as its best. Where none
/// is ready, those that terminate and still serve take new connections.
fn read<'a>(
    slices: impl Iterator<Item = &'a Value>,
    port_name: Option<&str>,
) -> Result<Listing, Fault> {
    let mut found: BTreeMap<String, (PodCondition, RawEntry)> = BTreeMap::new();
    let mut bad = Vec::new();
    for slice in slices {
        let port = port(slice, port_name);
        let endpoints = slice["endpoints"].as_array().map(Vec::as_slice);
        for endpoint in endpoints.unwrap_or_default() {
            let Some(condition) = condition(endpoint) else {
                continue;
            };
            match entry(endpoint, port) {
                Err(why) => bad.push(why),
                Ok(raw) => {
                    let known = found.get(&raw.address).map(|(known, _)| *known);
                    if known.is_none_or(|known| known < condition) {
                        found.insert(raw.address.clone(), (condition, raw));
                    }
                }
            }
        }
    }
    let any_ready = found.values().any(|(one, _)| *one == PodCondition::Ready);
    let good = found.into_values().map(|(condition, mut raw)| {
        raw.is_drained = any_ready && condition == PodCondition::Terminating;
        Ok(raw)
    });
    Listing::of(good.chain(bad.into_iter().map(Err)))
}

/// `None`: it serves nobody.
fn condition(endpoint: &Value) -> Option<PodCondition> {
    let conditions = &endpoint["conditions"];
    // Not said is ready.
    let is_ready = conditions["ready"].as_bool().unwrap_or(true);
    let is_serving = conditions["serving"].as_bool().unwrap_or(is_ready);
    let is_terminating = conditions["terminating"].as_bool().unwrap_or(false);
    match (is_terminating, is_serving) {
        (true, true) => Some(PodCondition::Terminating),
        (true, false) => None,
        (false, _) => is_ready.then_some(PodCondition::Ready),
    }
}

fn port(slice: &Value, wanted: Option<&str>) -> Option<u64> {
    let ports = slice["ports"].as_array()?;
    let is_wanted = |port: &&Value| match wanted {
        Some(name) => port["name"] == name,
        None => port["protocol"].as_str().unwrap_or("TCP") == "TCP",
    };
    ports.iter().find(is_wanted)?["port"].as_u64()
}

fn entry(endpoint: &Value, port: Option<u64>) -> Result<RawEntry, String> {
    // Further addresses of an endpoint are the same one.
    let address = endpoint["addresses"][0]
        .as_str()
        .ok_or("it has no address")?;
    let port = port.ok_or("its slice has no such port")?;
    let address = join(address, port);
    let name = endpoint["targetRef"]["name"].as_str().unwrap_or(&address);
    Ok(RawEntry::new(name, address.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;
    use serde_json::json;

    fn endpoint(pod: &str, last: u8, conditions: Value) -> Value {
        json!({"addresses": [format!("10.0.0.{last}")], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}})
    }

    fn slice(name: &str, endpoints: &[Value]) -> Value {
        json!({
            "metadata": {"name": name, "resourceVersion": "7"},
            "ports": [{"name": "metrics", "port": 9}, {"name": "ws", "port": 80}],
            "endpoints": endpoints,
        })
    }

    fn shown(slices: &[Value]) -> Vec<String> {
        let found = read(slices.iter(), Some("ws")).unwrap().entries.into_iter();
        found
            .map(|one| {
                let drained = if one.is_drained { " drain" } else { "" };
                format!("{} {}{drained}", one.name, one.address)
            })
            .collect()
    }

    #[test]
    fn conditions_decide_what_becomes_of_a_pod() {
        let terminating = json!({"ready": false, "serving": true, "terminating": true});
        let all = [
            endpoint("a", 1, json!({})),
            endpoint("b", 2, json!({"ready": false})),
            endpoint("c", 3, terminating.clone()),
            endpoint(
                "d",
                4,
                json!({"ready": false, "serving": false, "terminating": true}),
            ),
        ];
        assert_eq!(
            shown(&[slice("s", &all)]),
            ["a 10.0.0.1:80", "c 10.0.0.3:80 drain"]
        );
        // None is ready: those that still serve do.
        assert_eq!(shown(&[slice("s", &all[1..])]), ["c 10.0.0.3:80"]);
        // On its way from one slice to another.
        let moved = [
            slice("s", &[endpoint("c", 3, terminating)]),
            slice("t", &[endpoint("c", 3, json!({"ready": true}))]),
        ];
        assert_eq!(shown(&moved), ["c 10.0.0.3:80"]);
    }

    fn source() -> KubernetesSource {
        KubernetesSource {
            path: "/slices?x".to_owned(),
            port_name: None,
            phase: KubernetesPhase::List,
            slices: BTreeMap::new(),
            version: String::new(),
        }
    }

    fn answer(source: &mut KubernetesSource, body: &Value) -> Result<Option<Publication>, Fault> {
        source.answered(SourceAnswer {
            status: StatusCode::OK,
            headers: &HeaderMap::new(),
            body: body.to_string().as_bytes(),
        })
    }

    fn count(found: Option<Publication>) -> usize {
        found.unwrap().listing.entries.len()
    }

    #[test]
    fn all_pages_are_listed_before_anything_is_published_and_changes_are_watched() {
        let mut source = source();
        let page = |token: &str, name: &str, last: u8| {
            let slice = slice(name, &[endpoint(name, last, json!({}))]);
            json!({"metadata": {"resourceVersion": "7", "continue": token}, "items": [slice]})
        };
        assert_eq!(answer(&mut source, &page("more", "a", 1)).unwrap(), None);
        assert!(source.next(None).path.ends_with("&continue=more"));
        assert_eq!(count(answer(&mut source, &page("", "b", 2)).unwrap()), 2);
        assert!(
            source
                .next(None)
                .path
                .contains("&watch=1&allowWatchBookmarks=true&resourceVersion=7&")
        );
        let event =
            |kind: &str, object: &Value| json!({"type": kind, "object": object}).to_string();
        let gone = slice("a", &[]);
        assert_eq!(
            count(source.line(event("DELETED", &gone).as_bytes()).unwrap()),
            1
        );
        let bookmark = json!({"metadata": {"resourceVersion": "9"}});
        assert_eq!(
            source
                .line(event("BOOKMARK", &bookmark).as_bytes())
                .unwrap(),
            None
        );
        assert!(source.next(None).path.contains("resourceVersion=9"));
        let old = json!({"kind": "Status", "code": 410, "message": "too old"});
        assert!(source.line(event("ERROR", &old).as_bytes()).is_err());
        source.restart();
        assert_eq!(source.next(None).path, "/slices?x&limit=100");
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(value in crate::discovery::registry::simulation::value()) {
            let _ = read([&value, &slice("s", std::slice::from_ref(&value))].into_iter(), None);
            let _ = answer(&mut source(), &value);
            let _ = source().line(json!({"type": "ADDED", "object": value}).to_string().as_bytes());
        }
    }
}
