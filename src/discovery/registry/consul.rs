//! Consul: `GET /v1/health/service/NAME` as blocking queries, unfiltered: a query for passing
//! instances drops those in maintenance, which are to be drained.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{HttpSource, Publication, ReplyKind, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded::json;
use crate::discovery::entry::{Listing, RawEntry, join};
use crate::discovery::fault::Fault;

/// Time that the agent waits for a change; it adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(55);

/// Between an answer and the next query: a service that changes all the time must not keep us busy.
const SPACING: Duration = Duration::from_millis(500);

/// The protocol of Consul.
#[derive(Debug)]
pub(super) struct ConsulSource {
    /// Path and query without index.
    path: String,
    /// Index of the last answer; 0: none.
    index: u64,
}

impl ConsulSource {
    pub(super) fn new(registry: &Registry, url: &RegistryUrl) -> ConsulSource {
        let service = encode(&registry.service);
        let mut path = format!("{}/v1/health/service/{service}?stale", url.base_path());
        if let Some(filter) = &registry.filter {
            path.push_str("&filter=");
            path.push_str(&encode(filter));
        }
        ConsulSource { path, index: 0 }
    }
}

impl HttpSource for ConsulSource {
    fn next(&mut self, secret: Option<&str>) -> SourceRequest {
        let mut request = SourceRequest::get(self.path.clone());
        if self.index > 0 {
            let (index, wait) = (self.index, WAIT.as_secs());
            request
                .path
                .push_str(&format!("&index={index}&wait={wait}s"));
            request.after = SPACING;
            request.reply = ReplyKind::Whole {
                patience: WAIT + WAIT / 16,
            };
        }
        if let Some(secret) = secret {
            request.headers.push(("x-consul-token", secret.to_owned()));
        }
        request
    }

    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault> {
        answer.successful()?;
        let listing = read(&json(answer.body)?)?;
        let index = answer.headers.get("x-consul-index");
        let index = index.and_then(|index| index.to_str().ok()?.parse::<u64>().ok());
        let index = index.ok_or_else(|| Fault::malformed("no X-Consul-Index"))?;
        // An index that goes backwards is another agent's, or that of a new state: begin anew.
        // Below 1 it would not block.
        self.index = if index < self.index { 0 } else { index.max(1) };
        Ok(Some(Publication {
            listing,
            revision: index.to_string(),
        }))
    }

    fn restart(&mut self) {
        self.index = 0;
    }
}

pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Verdict of all checks of an instance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InstanceHealth {
    Passing,
    Warning,
    Maintenance,
    Critical,
}

fn read(value: &Value) -> Result<Listing, Fault> {
    let list = value
        .as_array()
        .ok_or_else(|| Fault::malformed("no list"))?;
    let present = list
        .iter()
        .filter(|one| health(one) != InstanceHealth::Critical);
    Listing::of(present.map(entry))
}

/// The name has the node in it, whether or not another one has the same ID: the name of a backend
/// must not change because of another that comes or goes.
fn entry(instance: &Value) -> Result<RawEntry, String> {
    let (node, service) = (&instance["Node"], &instance["Service"]);
    let own = service["Address"].as_str().filter(|text| !text.is_empty());
    let host = own.or_else(|| node["Address"].as_str());
    let host = host.ok_or("it has no address")?;
    let port = service["Port"].as_u64().ok_or("it has no port")?;
    let id = service["ID"].as_str().unwrap_or_default();
    let name = match node["Node"].as_str() {
        Some(node) => format!("{node}/{id}"),
        None => id.to_owned(),
    };
    let health = health(instance);
    let weight = match health {
        InstanceHealth::Warning => &service["Weights"]["Warning"],
        _ => &service["Weights"]["Passing"],
    };
    Ok(RawEntry {
        weight: weight.as_f64(),
        is_drained: health == InstanceHealth::Maintenance,
        ..RawEntry::new(name, join(host, port))
    })
}

fn health(instance: &Value) -> InstanceHealth {
    let checks = instance["Checks"].as_array().map(Vec::as_slice);
    let mut health = InstanceHealth::Passing;
    for check in checks.unwrap_or_default() {
        let id = check["CheckID"].as_str().unwrap_or_default();
        if id == "_node_maintenance" || id.starts_with("_service_maintenance:") {
            // It is critical, too, and says more than other checks that are.
            return InstanceHealth::Maintenance;
        }
        match check["Status"].as_str() {
            Some("passing") => {}
            Some("warning") if health == InstanceHealth::Passing => {
                health = InstanceHealth::Warning
            }
            Some("warning") => {}
            _ => health = InstanceHealth::Critical,
        }
    }
    health
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue, StatusCode};
    use proptest::prelude::*;
    use serde_json::json;

    fn instance(id: &str, node: &str, checks: &[(&str, &str)]) -> Value {
        let checks: Vec<Value> = checks
            .iter()
            .map(|(id, status)| json!({"CheckID": id, "Status": status}))
            .collect();
        json!({
            "Node": {"Node": node, "Address": "10.0.0.9"},
            "Service": {"ID": id, "Address": "10.0.0.1", "Port": 80, "Weights": {"Passing": 5, "Warning": 2}},
            "Checks": checks,
        })
    }

    fn shown(value: &Value) -> Vec<String> {
        let found = read(value).unwrap().entries.into_iter();
        found
            .map(|one| {
                let drained = if one.is_drained { " drain" } else { "" };
                format!(
                    "{} {} {}{drained}",
                    one.name,
                    one.address,
                    one.weight.unwrap_or(0)
                )
            })
            .collect()
    }

    #[test]
    fn checks_decide_what_becomes_of_an_instance() {
        let value = json!([
            instance("a", "n1", &[("serfHealth", "passing")]),
            instance("b", "n1", &[("c", "warning"), ("d", "passing")]),
            instance("c", "n1", &[("c", "warning"), ("d", "critical")]),
            instance(
                "d",
                "n1",
                &[("c", "critical"), ("_service_maintenance:d", "critical")]
            ),
            instance("e", "n2", &[("_node_maintenance", "critical")]),
            instance("f", "n2", &[]),
        ]);
        assert_eq!(
            shown(&value),
            [
                "n1/a 10.0.0.1:80 5",
                "n1/b 10.0.0.1:80 2",
                "n1/d 10.0.0.1:80 5 drain",
                "n2/e 10.0.0.1:80 5 drain",
                "n2/f 10.0.0.1:80 5"
            ]
        );
    }

    #[test]
    fn a_name_stays_when_another_node_has_the_id_and_an_empty_address_is_the_node_s() {
        let mut other = instance("a", "n2", &[]);
        other["Service"]["Address"] = "".into();
        let one = json!([instance("a", "n1", &[])]);
        assert_eq!(shown(&one), ["n1/a 10.0.0.1:80 5"]);
        let two = json!([instance("a", "n1", &[]), other]);
        assert_eq!(shown(&two), ["n1/a 10.0.0.1:80 5", "n2/a 10.0.0.9:80 5"]);
    }

    fn source() -> ConsulSource {
        ConsulSource {
            path: "/v1/health/service/web?stale".to_owned(),
            index: 0,
        }
    }

    fn answer(source: &mut ConsulSource, index: &str) -> Result<Option<Publication>, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert("x-consul-index", HeaderValue::from_str(index).unwrap());
        source.answered(SourceAnswer {
            status: StatusCode::OK,
            headers: &headers,
            body: b"[]",
        })
    }

    #[test]
    fn the_index_is_followed_and_begins_anew_when_it_goes_backwards() {
        let mut source = source();
        assert_eq!(source.next(None).path, "/v1/health/service/web?stale");
        answer(&mut source, "0").unwrap();
        assert!(source.next(None).path.ends_with("&index=1&wait=55s"));
        answer(&mut source, "30").unwrap();
        assert!(source.next(None).path.ends_with("&index=30&wait=55s"));
        answer(&mut source, "9").unwrap();
        assert_eq!(source.next(None).path, "/v1/health/service/web?stale");
        assert!(answer(&mut source, "nine").is_err());
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(value in crate::discovery::registry::simulation::value()) {
            let _ = read(&value);
            let _ = read(&json!([value, instance("a", "n", &[])]));
        }
    }
}
