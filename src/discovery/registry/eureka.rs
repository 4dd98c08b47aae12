//! Eureka: `GET /apps/NAME` again and again. Its caches make a change a minute old: pools need
//! checks of their own. Deltas are not asked for; they lose changes.

use std::time::Duration;

use data_encoding::BASE64;
use serde_json::Value;

use super::consul::encode;
use super::{HttpSource, Publication, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded::json;
use crate::discovery::entry::{Listing, RawEntry, join};
use crate::discovery::fault::Fault;

/// As Eureka's own clients.
const INTERVAL: Duration = Duration::from_secs(30);

/// The protocol of Eureka.
#[derive(Debug)]
pub(super) struct EurekaSource {
    path: String,
    user: Option<String>,
    interval: Duration,
    is_first: bool,
}

impl EurekaSource {
    pub(super) fn new(registry: &Registry, urls: &[RegistryUrl]) -> EurekaSource {
        let base = urls.first().map(RegistryUrl::base_path).unwrap_or_default();
        let base = if base.is_empty() { "/eureka" } else { base };
        EurekaSource {
            path: format!("{base}/apps/{}", encode(&registry.service)),
            user: registry.user.clone(),
            interval: registry.interval.unwrap_or(INTERVAL),
            is_first: true,
        }
    }
}

impl HttpSource for EurekaSource {
    fn next(&mut self, secret: Option<&str>) -> SourceRequest {
        let mut request = SourceRequest::get(self.path.clone());
        if !self.is_first {
            request.after = self.interval;
        }
        if let Some(secret) = secret {
            let value = match &self.user {
                Some(user) => {
                    format!(
                        "Basic {}",
                        BASE64.encode(format!("{user}:{secret}").as_bytes())
                    )
                }
                None => format!("Bearer {secret}"),
            };
            request.headers.push(("authorization", value));
        }
        request
    }

    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault> {
        answer.successful()?;
        let listing = read(&json(answer.body)?)?;
        self.is_first = false;
        Ok(Some(Publication {
            listing,
            revision: String::new(),
        }))
    }

    fn restart(&mut self) {
        self.is_first = true;
    }
}

fn read(value: &Value) -> Result<Listing, Fault> {
    let instances = match &value["application"]["instance"] {
        Value::Array(list) => list.as_slice(),
        // One instance alone is no list, from some servers.
        one @ Value::Object(_) => std::slice::from_ref(one),
        _ => return Err(Fault::malformed("no instances")),
    };
    let status = |instance: &Value| instance["status"].as_str().unwrap_or_default().to_owned();
    let listed = instances
        .iter()
        .filter(|one| matches!(&*status(one), "UP" | "OUT_OF_SERVICE"));
    Listing::of(listed.map(|one| entry(one, status(one) == "OUT_OF_SERVICE")))
}

fn entry(instance: &Value, is_drained: bool) -> Result<RawEntry, String> {
    let host = instance["ipAddr"]
        .as_str()
        .or_else(|| instance["hostName"].as_str());
    let host = host.ok_or("it has no address")?;
    let port = port(&instance["port"]).or_else(|| port(&instance["securePort"]));
    let port = port.ok_or("it has no port that is enabled")?;
    let weight = &instance["metadata"]["weight"];
    let weight = weight.as_f64().or_else(|| weight.as_str()?.parse().ok());
    let address = join(host, port);
    let name = instance["instanceId"].as_str().unwrap_or(&address);
    Ok(RawEntry {
        weight,
        is_drained,
        ..RawEntry::new(name, address.clone())
    })
}

/// `{"$": 8080, "@enabled": "true"}`
fn port(value: &Value) -> Option<u64> {
    let is_enabled = value["@enabled"] == "true" || value["@enabled"] == true;
    let number = &value["$"];
    let number = number.as_u64().or_else(|| number.as_str()?.parse().ok());
    number.filter(|_| is_enabled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn instance(id: &str, status: &str) -> Value {
        json!({
            "instanceId": id, "ipAddr": "10.0.0.1", "status": status,
            "port": {"$": 8080, "@enabled": "true"}, "securePort": {"$": 8443, "@enabled": "false"},
            "metadata": {"weight": "3"},
        })
    }

    fn shown(instances: Value) -> Vec<String> {
        let found = read(&json!({"application": {"name": "CHAT", "instance": instances}}));
        let found = found.unwrap().entries.into_iter();
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
    fn the_status_decides_what_becomes_of_an_instance() {
        let all = ["UP", "OUT_OF_SERVICE", "STARTING", "DOWN", "UNKNOWN"];
        let all: Vec<Value> = all.iter().map(|status| instance(status, status)).collect();
        assert_eq!(
            shown(all.into()),
            ["OUT_OF_SERVICE 10.0.0.1:8080 3 drain", "UP 10.0.0.1:8080 3"]
        );
    }

    #[test]
    fn one_instance_may_stand_alone_and_may_have_a_secure_port_only() {
        let mut one = instance("a", "UP");
        one["port"]["@enabled"] = "false".into();
        one["securePort"]["@enabled"] = "true".into();
        assert_eq!(shown(one), ["a 10.0.0.1:8443 3"]);
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(value in crate::discovery::registry::simulation::value()) {
            let _ = read(&value);
            let _ = read(&json!({"application": {"instance": value}}));
        }
    }
}
