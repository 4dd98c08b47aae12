//! etcd v3 by its JSON gateway: lists the keys below a prefix, then watches them from the next
//! revision on. Keys and values are base64, numbers are strings.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::{HttpSource, Publication, RELIST_INTERVAL, ReplyKind, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded;
use crate::discovery::entry::{Listing, MAX_ENTRIES, RawEntry};
use crate::discovery::fault::{Fault, FaultKind};

/// The protocol of etcd.
#[derive(Debug)]
pub(super) struct EtcdSource {
    base: String,
    prefix: Vec<u8>,
    user: Option<String>,
    /// Token of the login; etcd lets it run out.
    token: Option<String>,
    phase: EtcdPhase,
    /// Values by key.
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
    revision: u64,
}

/// Request that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EtcdPhase {
    Login,
    List,
    Watch,
}

impl EtcdSource {
    pub(super) fn new(registry: &Registry, urls: &[RegistryUrl]) -> EtcdSource {
        let base = urls.first().map(RegistryUrl::base_path).unwrap_or_default();
        let mut source = EtcdSource {
            base: base.to_owned(),
            prefix: registry.service.clone().into_bytes(),
            user: registry.user.clone(),
            token: None,
            phase: EtcdPhase::List,
            keys: BTreeMap::new(),
            revision: 0,
        };
        source.restart();
        source
    }

    fn range(&self) -> Value {
        json!({
            "key": BASE64.encode(&self.prefix),
            "range_end": BASE64.encode(&end_of(&self.prefix)),
        })
    }

    fn post(&self, path: &str, body: &Value) -> SourceRequest {
        let path = format!("{}/v3/{path}", self.base);
        let body = body.to_string().into_bytes();
        let mut request = SourceRequest::post(path, "application/json", body);
        if let Some(token) = &self.token {
            request.headers.push(("authorization", token.clone()));
        }
        request
    }

    fn take_list(&mut self, value: &Value) -> Result<Publication, Fault> {
        let header = &value["header"];
        self.revision =
            number(&header["revision"]).ok_or_else(|| Fault::malformed("no revision"))?;
        self.keys.clear();
        for pair in value["kvs"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default()
        {
            self.put(pair)?;
        }
        self.phase = EtcdPhase::Watch;
        self.publication()
    }

    fn put(&mut self, pair: &Value) -> Result<(), Fault> {
        let key = decode(&pair["key"])?;
        self.keys.insert(key, decode(&pair["value"])?);
        if self.keys.len() > MAX_ENTRIES {
            let what = format!("more than {MAX_ENTRIES} keys");
            return Err(Fault::new(FaultKind::TooLarge, what));
        }
        Ok(())
    }

    fn publication(&self) -> Result<Publication, Fault> {
        let raw = self.keys.iter().map(|(key, value)| entry(key, value));
        Ok(Publication {
            listing: Listing::of(raw)?,
            revision: self.revision.to_string(),
        })
    }
}

impl HttpSource for EtcdSource {
    fn next(&mut self, secret: Option<&str>) -> SourceRequest {
        match (self.phase, &self.user) {
            (EtcdPhase::Login, Some(user)) => {
                let body = json!({"name": user, "password": secret.unwrap_or_default()});
                self.post("auth/authenticate", &body)
            }
            (EtcdPhase::Watch, _) => {
                let mut create = self.range();
                create["start_revision"] = (self.revision + 1).into();
                let mut request = self.post("watch", &json!({ "create_request": create }));
                let jitter = 0.9 + 0.2 * fastrand::f64();
                request.reply = ReplyKind::Lines {
                    time: RELIST_INTERVAL.mul_f64(jitter),
                };
                request
            }
            _ => self.post("kv/range", &self.range()),
        }
    }

    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault> {
        if let Err(fault) = answer.successful() {
            // The token has run out, or the gateway says so by a status of its own.
            self.token = None;
            let value = bounded::json(answer.body).unwrap_or_default();
            let is_denied =
                matches!(number(&value["code"]), Some(3 | 7 | 16)) && self.user.is_some();
            let kind = if is_denied {
                FaultKind::Denied
            } else {
                fault.kind
            };
            return Err(Fault::new(kind, fault.message));
        }
        let value = bounded::json(answer.body)?;
        if self.phase == EtcdPhase::Login {
            let token = value["token"].as_str();
            let token = token.ok_or_else(|| Fault::malformed("a login without a token"))?;
            self.token = Some(token.to_owned());
            self.phase = EtcdPhase::List;
            return Ok(None);
        }
        self.take_list(&value).map(Some)
    }

    fn line(&mut self, line: &[u8]) -> Result<Option<Publication>, Fault> {
        let value = bounded::json(line)?;
        let result = value
            .get("result")
            .ok_or_else(|| Fault::malformed("a line of the watch without a result"))?;
        if result["canceled"] == true {
            // A compaction, or a token that has run out, which is told with a status of success.
            let reason = result["cancel_reason"].as_str().unwrap_or("compacted");
            let is_denied = result["watch_id"] == "-1" || result["watch_id"] == -1;
            self.token = None;
            let kind = if is_denied {
                FaultKind::Denied
            } else {
                FaultKind::Status
            };
            let reason = crate::discovery::entry::shorten(reason);
            return Err(Fault::new(
                kind,
                format!("the watch was cancelled: {reason}"),
            ));
        }
        let events = result["events"].as_array().map(Vec::as_slice);
        let events = events.unwrap_or_default();
        for event in events {
            if event["type"] == "DELETE" {
                let key = decode(&event["kv"]["key"])?;
                self.keys.remove(&key);
            } else {
                self.put(&event["kv"])?;
            }
        }
        if let Some(revision) = number(&result["header"]["revision"]) {
            self.revision = self.revision.max(revision);
        }
        if events.is_empty() {
            return Ok(None);
        }
        self.publication().map(Some)
    }

    fn watches(&self) -> bool {
        true
    }

    fn restart(&mut self) {
        self.phase = match (&self.user, &self.token) {
            (Some(_), None) => EtcdPhase::Login,
            _ => EtcdPhase::List,
        };
    }
}

/// The end of all keys with a prefix: its last byte plus one.
fn end_of(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

fn decode(value: &Value) -> Result<Vec<u8>, Fault> {
    // A value that is empty is not there.
    let text = value.as_str().unwrap_or_default();
    BASE64
        .decode(text.as_bytes())
        .map_err(|_| Fault::malformed("a key or a value that is no base64"))
}

/// A number, also as the gateway writes those of 64 bits: as a string.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Reads a value: an address alone, as go-zero writes it; gRPC's naming,
/// `{"Op":0,"Addr":"...","Metadata":...}`; go-micro's, with `nodes`, of which the first counts; or
/// our own form.
pub(super) fn entry(key: &[u8], value: &[u8]) -> Result<RawEntry, String> {
    let key = String::from_utf8_lossy(key);
    let tail = key.rsplit('/').find(|part| !part.is_empty());
    let tail = tail.unwrap_or_default();
    let named = |raw: Result<RawEntry, String>| raw.map_err(|why| format!("{tail}: {why}"));
    let text = std::str::from_utf8(value).map_err(|_| "its value is no text");
    let text = text?.trim();
    if !text.starts_with('{') {
        // Under a lease of its own each time, so that its key is no name.
        return Ok(RawEntry::new(text, text));
    }
    let value = bounded::json(text.as_bytes()).map_err(|fault| fault.message)?;
    if let Some(address) = value["Addr"].as_str() {
        let weight = ["weight", "Weight"]
            .iter()
            .find_map(|key| value["Metadata"][key].as_f64());
        return Ok(RawEntry {
            weight,
            ..RawEntry::new(tail, address)
        });
    }
    if let Some(node) = value["nodes"].as_array().and_then(|nodes| nodes.first()) {
        return named(RawEntry::read(node["id"].as_str(), &node["address"]));
    }
    named(RawEntry::read(Some(tail), &value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, StatusCode};
    use proptest::prelude::*;

    fn source(user: Option<&str>) -> EtcdSource {
        let mut source = EtcdSource {
            base: String::new(),
            prefix: b"/chat/".to_vec(),
            user: user.map(str::to_owned),
            token: None,
            phase: EtcdPhase::List,
            keys: BTreeMap::new(),
            revision: 0,
        };
        source.restart();
        source
    }

    fn answered(
        source: &mut EtcdSource,
        status: u16,
        body: &Value,
    ) -> Result<Option<Publication>, Fault> {
        source.answered(SourceAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &HeaderMap::new(),
            body: body.to_string().as_bytes(),
        })
    }

    fn pair(key: &str, value: &str) -> Value {
        json!({"key": BASE64.encode(key.as_bytes()), "value": BASE64.encode(value.as_bytes())})
    }

    fn names(publication: Option<Publication>) -> Vec<String> {
        let entries = publication.unwrap().listing.entries.into_iter();
        entries.map(|one| one.name).collect()
    }

    #[test]
    fn a_list_is_followed_by_a_watch_from_the_next_revision() {
        let mut source = source(None);
        assert_eq!(source.next(None).path, "/v3/kv/range");
        let list = json!({"header": {"revision": "7"}, "kvs": [pair("/chat/a", "10.0.0.1:80"), pair("/chat/b", "{\"Op\":0,\"Addr\":\"10.0.0.2:80\"}")]});
        let found = answered(&mut source, 200, &list).unwrap();
        assert_eq!(names(found), ["10.0.0.1:80", "b"]);
        let watch = source.next(None);
        assert_eq!(watch.path, "/v3/watch");
        let body: Value = serde_json::from_slice(&watch.body).unwrap();
        assert_eq!(body["create_request"]["start_revision"], 8);
        assert_eq!(
            BASE64
                .decode(
                    body["create_request"]["range_end"]
                        .as_str()
                        .unwrap()
                        .as_bytes()
                )
                .unwrap(),
            b"/chat0"
        );
        let created = json!({"result": {"header": {"revision": "7"}, "created": true}});
        assert_eq!(source.line(created.to_string().as_bytes()).unwrap(), None);
        let events = json!({"result": {"header": {"revision": "9"}, "events": [
            {"kv": pair("/chat/c", "{\"address\":\"10.0.0.3:80\",\"state\":\"drain\"}")},
            {"type": "DELETE", "kv": {"key": BASE64.encode(b"/chat/a")}},
        ]}});
        let found = source.line(events.to_string().as_bytes()).unwrap();
        assert!(found.as_ref().unwrap().listing.entries[1].is_drained);
        assert_eq!(names(found), ["b", "c"]);
    }

    #[test]
    fn a_compaction_lists_anew() {
        let mut source = source(None);
        answered(
            &mut source,
            200,
            &json!({"header": {"revision": "7"}, "kvs": []}),
        )
        .unwrap();
        let cancelled =
            json!({"result": {"header": {}, "canceled": true, "compact_revision": "9"}});
        assert!(source.line(cancelled.to_string().as_bytes()).is_err());
        source.restart();
        assert_eq!(source.next(None).path, "/v3/kv/range");
    }

    #[test]
    fn a_user_logs_in_and_again_when_its_token_has_run_out() {
        let mut source = source(Some("u"));
        let login = source.next(Some("p"));
        assert_eq!(login.path, "/v3/auth/authenticate");
        assert_eq!(
            answered(&mut source, 200, &json!({"token": "t"})).unwrap(),
            None
        );
        let list = source.next(Some("p"));
        assert!(list.headers.contains(&("authorization", "t".to_owned())));
        let fault = answered(
            &mut source,
            401,
            &json!({"code": 16, "error": "etcdserver: invalid auth token"}),
        )
        .unwrap_err();
        assert_eq!(fault.kind, FaultKind::Denied);
        source.restart();
        assert_eq!(source.next(Some("p")).path, "/v3/auth/authenticate");
    }

    #[test]
    fn the_end_of_a_prefix_is_its_last_byte_plus_one() {
        assert_eq!(end_of(b"/chat/"), b"/chat0");
        assert_eq!(end_of(b"a\xff"), b"b");
        assert_eq!(end_of(b"\xff"), b"\0");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(value in crate::discovery::registry::simulation::value(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut source = source(None);
            let _ = source.line(&bytes);
            let _ = source.line(json!({"result": {"events": value}}).to_string().as_bytes());
            let _ = answered(&mut source, 200, &value);
            let _ = entry(b"k", &bytes);
            let _ = entry(b"k", value.to_string().as_bytes());
        }
    }
}
