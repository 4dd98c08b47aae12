//! Nacos: `GET /v1/ns/instance/list` as often as the server says. An instance of weight 0 is
//! drained; one that is disabled is not listed, so that an absent one is like a drained one.

use std::time::Duration;

use serde_json::Value;

use super::consul::encode;
use super::{HttpSource, Publication, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded::json;
use crate::discovery::entry::{Listing, RawEntry, join};
use crate::discovery::fault::{Fault, FaultKind};

/// Bounds on `cacheMillis`, and the interval where there is none.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(10);

/// The protocol of Nacos.
#[derive(Debug)]
pub(super) struct NacosSource {
    base: String,
    query: String,
    user: Option<String>,
    /// Token of the login.
    token: Option<String>,
    /// Requests that the token is still good for: it is renewed before it runs out.
    uses: u64,
    configured: Option<Duration>,
    interval: Duration,
    is_first: bool,
}

impl NacosSource {
    pub(super) fn new(registry: &Registry, urls: &[RegistryUrl]) -> NacosSource {
        let base = urls.first().map(RegistryUrl::base_path).unwrap_or_default();
        let mut query = format!(
            "serviceName={}&healthyOnly=false",
            encode(&registry.service)
        );
        if let Some(group) = &registry.group {
            query.push_str(&format!("&groupName={}", encode(group)));
        }
        if let Some(namespace) = &registry.namespace {
            query.push_str(&format!("&namespaceId={}", encode(namespace)));
        }
        NacosSource {
            base: if base.is_empty() { "/nacos" } else { base }.to_owned(),
            query,
            user: registry.user.clone(),
            token: None,
            uses: 0,
            configured: registry.interval,
            interval: registry.interval.unwrap_or(INTERVAL),
            is_first: true,
        }
    }

    fn take_login(&mut self, value: &Value) -> Result<(), Fault> {
        let token = value["accessToken"].as_str();
        let token = token.ok_or_else(|| Fault::malformed("a login without a token"))?;
        let seconds = value["tokenTtl"].as_u64().unwrap_or(60);
        // Renewed at four fifths of its time.
        let uses = seconds.saturating_mul(4) / 5 / self.interval.as_secs().max(1);
        self.uses = uses.max(1);
        self.token = Some(token.to_owned());
        Ok(())
    }
}

impl HttpSource for NacosSource {
    fn next(&mut self, secret: Option<&str>) -> SourceRequest {
        if let (Some(user), None) = (&self.user, &self.token) {
            let path = format!("{}/v1/auth/login", self.base);
            let (user, password) = (encode(user), encode(secret.unwrap_or_default()));
            let body = format!("username={user}&password={password}");
            return SourceRequest::post(path, "application/x-www-form-urlencoded", body.into());
        }
        let mut path = format!("{}/v1/ns/instance/list?{}", self.base, self.query);
        let token = match &self.user {
            Some(_) => self.token.as_deref(),
            None => secret,
        };
        if let Some(token) = token {
            path.push_str(&format!("&accessToken={}", encode(token)));
        }
        let mut request = SourceRequest::get(path);
        if !self.is_first {
            request.after = self.interval;
        }
        request
    }

    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault> {
        if let Err(fault) = answer.successful() {
            self.token = None;
            return Err(fault);
        }
        let value = json(answer.body)?;
        if self.user.is_some() && self.token.is_none() {
            self.take_login(&value)?;
            return Ok(None);
        }
        let listing = read(&value)?;
        self.uses = self.uses.saturating_sub(1);
        if self.uses == 0 {
            self.token = None;
        }
        let told = value["cacheMillis"].as_u64().map(Duration::from_millis);
        let told = told.map(|told| told.clamp(MIN_INTERVAL, MAX_INTERVAL));
        self.interval = self.configured.or(told).unwrap_or(INTERVAL);
        self.is_first = false;
        let revision = value["lastRefTime"].as_u64().unwrap_or(0).to_string();
        Ok(Some(Publication { listing, revision }))
    }

    fn restart(&mut self) {
        self.is_first = true;
    }
}

fn read(value: &Value) -> Result<Listing, Fault> {
    let hosts = value["hosts"].as_array();
    let hosts = hosts.ok_or_else(|| {
        let code = value["code"].as_i64();
        match code {
            Some(403) => Fault::new(FaultKind::Denied, "code 403"),
            _ => Fault::malformed("no hosts"),
        }
    })?;
    // The server lists sick ones as healthy then: checks of our own decide.
    let is_protected = value["reachProtectionThreshold"] == true;
    let is_listed =
        |one: &&Value| one["enabled"] != false && (is_protected || one["healthy"] != false);
    Listing::of(hosts.iter().filter(is_listed).map(entry))
}

fn entry(host: &Value) -> Result<RawEntry, String> {
    let ip = host["ip"].as_str().ok_or("it has no ip")?;
    let port = host["port"].as_u64().ok_or("it has no port")?;
    let address = join(ip, port);
    Ok(RawEntry {
        weight: host["weight"].as_f64(),
        ..RawEntry::new(address.clone(), address)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;
    use serde_json::json;

    fn host(last: u8, weight: f64, healthy: bool) -> Value {
        json!({"ip": format!("10.0.0.{last}"), "port": 80, "weight": weight, "healthy": healthy, "enabled": true})
    }

    fn source(user: bool) -> NacosSource {
        NacosSource {
            base: "/nacos".to_owned(),
            query: "serviceName=chat&healthyOnly=false".to_owned(),
            user: user.then(|| "u".to_owned()),
            token: None,
            uses: 0,
            configured: None,
            interval: INTERVAL,
            is_first: true,
        }
    }

    fn answer(
        source: &mut NacosSource,
        status: u16,
        body: &Value,
    ) -> Result<Option<Publication>, Fault> {
        source.answered(SourceAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &HeaderMap::new(),
            body: body.to_string().as_bytes(),
        })
    }

    #[test]
    fn weights_are_fractions_and_zero_is_a_drain() {
        let value = json!({"hosts": [host(1, 1.0, true), host(2, 0.5, true), host(3, 0.0, true), host(4, 1.0, false)]});
        let found = read(&value).unwrap().entries;
        let shown: Vec<_> = found
            .iter()
            .map(|one| (one.weight, one.is_drained))
            .collect();
        assert_eq!(
            shown,
            [(Some(256), false), (Some(128), false), (None, true)]
        );
        let mut protected = value;
        protected["reachProtectionThreshold"] = true.into();
        assert_eq!(read(&protected).unwrap().entries.len(), 4);
    }

    #[test]
    fn a_user_logs_in_and_again_before_the_token_runs_out() {
        let mut source = source(true);
        assert_eq!(source.next(Some("p")).body, b"username=u&password=p");
        answer(
            &mut source,
            200,
            &json!({"accessToken": "t", "tokenTtl": 25}),
        )
        .unwrap();
        let list = json!({"hosts": [host(1, 1.0, true)], "cacheMillis": 3000});
        for after in [0, 3] {
            let next = source.next(Some("p"));
            assert!(next.path.ends_with("&accessToken=t"), "{}", next.path);
            assert_eq!(next.after, Duration::from_secs(after));
            answer(&mut source, 200, &list).unwrap();
        }
        assert!(source.next(Some("p")).path.ends_with("/auth/login"));
        answer(
            &mut source,
            200,
            &json!({"accessToken": "t", "tokenTtl": 25}),
        )
        .unwrap();
        assert!(answer(&mut source, 403, &json!({})).is_err());
        assert!(source.next(Some("p")).path.ends_with("/auth/login"));
    }

    proptest! {
        #[test]
        fn any_json_is_read_or_refused(value in crate::discovery::registry::simulation::value()) {
            let _ = read(&value);
            let _ = read(&json!({"hosts": value}));
            let _ = answer(&mut source(true), 200, &value);
        }
    }
}
