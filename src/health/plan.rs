//! A configured check, prepared: its errors are found once, not at every check.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::expect::Expectation;
use super::header_case::HeaderNames;
use crate::config::{Address, Check, CheckHeaders, CheckKind, CheckTls, Dial, RedisRole};
use crate::net::Endpoint;
use crate::pool::Backend;
use crate::tls::{BackendTlsConfig, TlsError};

/// Why a check cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{key} {value:?} cannot be sent")]
    Value { key: &'static str, value: String },
    #[error(transparent)]
    Regex(#[from] regex::Error),
}

impl CheckError {
    /// The file at fault.
    pub(crate) fn file(&self) -> Option<&std::path::Path> {
        match self {
            CheckError::Tls(error) => error.file(),
            CheckError::Value { .. } | CheckError::Regex(_) => None,
        }
    }
}

/// A prepared check.
pub(super) struct CheckPlan {
    pub check: Check,
    pub tls: Option<Arc<BackendTlsConfig>>,
    pub request: CheckRequest,
    /// The pool's.
    pub dial: Dial,
}

/// The request to make over the connection.
pub(super) enum CheckRequest {
    /// None: the connection is enough.
    Connection,
    Http {
        method: Method,
        request: HttpCheck,
    },
    Websocket {
        request: HttpCheck,
        protocol: Option<HeaderValue>,
        ping: bool,
    },
    Expect {
        send: Vec<u8>,
        wanted: Expectation,
    },
    Redis {
        role: Option<RedisRole>,
    },
}

/// Common fields of HTTP requests of checks.
pub(super) struct HttpCheck {
    pub path: Uri,
    /// The operator's.
    pub headers: HeaderMap,
    /// The headers' names as the operator spells them.
    pub names: HeaderNames,
    pub status: Vec<RangeInclusive<u16>>,
}

/// Target of a check: one backend.
pub(super) struct CheckTarget {
    pub endpoint: Endpoint,
    /// Value of the Host header.
    pub host: HeaderValue,
    /// Name to send and to verify over TLS, unless there is an `sni`.
    pub name: String,
}

impl CheckPlan {
    /// Prepares a check; `pool` is the TLS of the pool.
    ///
    /// # Errors
    /// Names the file or the value and what is wrong with it.
    pub(super) fn new(
        check: &Check,
        pool: Option<&Arc<BackendTlsConfig>>,
    ) -> Result<CheckPlan, CheckError> {
        let tls = match &check.tls {
            CheckTls::Own(tls) => Some(Arc::new(BackendTlsConfig::load(tls)?)),
            CheckTls::Pool => pool.cloned(),
            CheckTls::Plain => None,
        };
        if let Some(host) = host(&check.kind) {
            value("host", host)?;
        }
        Ok(CheckPlan {
            check: check.clone(),
            tls,
            request: request_of(check)?,
            dial: Dial::default(),
        })
    }

    /// The target for `backend`; `None` while its address is not known.
    pub(super) fn target(&self, backend: &Backend) -> Option<CheckTarget> {
        self.target_at(&backend.endpoint()?, &backend.address(), backend.host())
    }

    /// The target of a backend at `endpoint`; `name` is the backend's.
    pub(super) fn target_at(
        &self,
        endpoint: &Endpoint,
        address: &Address,
        name: String,
    ) -> Option<CheckTarget> {
        let host = match host(&self.check.kind) {
            Some(host) => host.to_owned(),
            None => default_host(address),
        };
        // As for the pool's connections: a check that verified another name would pass where they
        // fail.
        let name = match (&self.check.tls, self::host(&self.check.kind)) {
            (CheckTls::Own(_), Some(host)) => without_port(host).to_owned(),
            _ => name,
        };
        Some(CheckTarget {
            endpoint: self.endpoint(endpoint),
            name,
            host: HeaderValue::from_str(&host).ok()?,
        })
    }

    /// Address of a check that sends nothing: to connect over TCP is all of it.
    pub(super) fn mere_connect(&self, target: &CheckTarget) -> Option<SocketAddr> {
        let is_mere = matches!(self.request, CheckRequest::Connection)
            && self.tls.is_none()
            && self.check.send_proxy.is_none();
        match target.endpoint {
            Endpoint::Tcp(address) if is_mere => Some(address),
            _ => None,
        }
    }

    /// The address to check: the check's `address` and `port`, else the backend's.
    fn endpoint(&self, backend: &Endpoint) -> Endpoint {
        let Check { port, address, .. } = &self.check;
        let own = match backend {
            Endpoint::Tcp(own) => Some(own),
            Endpoint::Unix(_) => None,
        };
        let ip = address
            .map(|address| address.ip)
            .or(own.map(SocketAddr::ip));
        let port = port
            .or(address.and_then(|address| address.port))
            .or(own.map(SocketAddr::port));
        match (ip, port) {
            (Some(ip), Some(port)) => Endpoint::Tcp(SocketAddr::new(ip, port)),
            // A unix backend, and the check has no full address.
            _ => backend.clone(),
        }
    }
}

fn request_of(check: &Check) -> Result<CheckRequest, CheckError> {
    Ok(match &check.kind {
        CheckKind::Tcp => CheckRequest::Connection,
        CheckKind::Http {
            method,
            path,
            status,
            headers,
            host: _,
        } => CheckRequest::Http {
            method: Method::from_bytes(method.as_bytes())
                .map_err(|_| invalid_value("method", method))?,
            request: HttpCheck::new(path, headers, status)?,
        },
        CheckKind::Websocket {
            path,
            ping,
            protocol,
            status,
            headers,
            host: _,
        } => CheckRequest::Websocket {
            request: HttpCheck::new(path, headers, status)?,
            protocol: protocol
                .as_deref()
                .map(|text| value("protocol", text))
                .transpose()?,
            ping: *ping,
        },
        CheckKind::Expect {
            send,
            expect,
            unwanted,
        } => CheckRequest::Expect {
            send: send.clone(),
            wanted: Expectation::new(expect.as_ref(), unwanted.as_deref(), check.timeout)?,
        },
        CheckKind::Redis { role } => CheckRequest::Redis { role: *role },
    })
}

impl HttpCheck {
    fn new(
        path: &str,
        headers: &CheckHeaders,
        status: &[RangeInclusive<u16>],
    ) -> Result<HttpCheck, CheckError> {
        let mut fields = HeaderMap::new();
        for (name, text) in headers {
            let key = HeaderName::try_from(name).map_err(|_| invalid_value("headers", name))?;
            fields.append(key, value("headers", text)?);
        }
        let names = headers.iter().map(|(name, _)| name.clone());
        Ok(HttpCheck {
            path: uri(path)?,
            headers: fields,
            names: names.collect(),
            status: status.to_vec(),
        })
    }
}

fn value(key: &'static str, text: &str) -> Result<HeaderValue, CheckError> {
    HeaderValue::from_str(text).map_err(|_| invalid_value(key, text))
}

fn uri(path: &str) -> Result<Uri, CheckError> {
    let parsed = path.parse::<PathAndQuery>();
    let parsed = parsed.ok().filter(|_| path.starts_with('/'));
    parsed
        .map(Uri::from)
        .ok_or_else(|| invalid_value("path", path))
}

fn invalid_value(key: &'static str, value: &str) -> CheckError {
    CheckError::Value {
        key,
        value: value.to_owned(),
    }
}

fn host(kind: &CheckKind) -> Option<&str> {
    match kind {
        CheckKind::Http { host, .. } | CheckKind::Websocket { host, .. } => host.as_deref(),
        CheckKind::Tcp | CheckKind::Expect { .. } | CheckKind::Redis { .. } => None,
    }
}

/// Host of a backend when the check names none.
fn default_host(address: &Address) -> String {
    match address {
        Address::Tcp(address) => address.to_string(),
        Address::Name(host, port) => format!("{}:{port}", host.trim_end_matches('.')),
        Address::Unix(_) => "localhost".to_owned(),
    }
}

/// `host`, `host:port`, `1.2.3.4:port` or `[::1]:port` without the port and the brackets.
fn without_port(host: &str) -> &str {
    if let Some(inner) = host.strip_prefix('[') {
        return inner.split_once(']').map_or(inner, |(ip, _)| ip);
    }
    match host.rsplit_once(':') {
        Some((name, _)) if !name.contains(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckAddress;

    fn check(kind: CheckKind) -> Check {
        crate::health::probe::tests::check(kind)
    }

    fn plan(port: Option<u16>, address: Option<CheckAddress>) -> CheckPlan {
        let mut check = check(CheckKind::Tcp);
        (check.port, check.address) = (port, address);
        CheckPlan::new(&check, None).unwrap()
    }

    #[test]
    fn port_and_address_take_the_place_of_the_backends() {
        let backend = Endpoint::Tcp("10.0.0.1:80".parse().unwrap());
        let unix = Endpoint::Unix("/run/chat".into());
        let address = |port| {
            Some(CheckAddress {
                ip: "10.9.9.9".parse().unwrap(),
                port,
            })
        };
        let at = |plan: CheckPlan, backend: &Endpoint| plan.endpoint(backend).to_string();
        assert_eq!(at(plan(None, None), &backend), "10.0.0.1:80");
        assert_eq!(at(plan(Some(81), None), &backend), "10.0.0.1:81");
        assert_eq!(at(plan(None, address(None)), &backend), "10.9.9.9:80");
        assert_eq!(at(plan(None, address(Some(82))), &backend), "10.9.9.9:82");
        assert_eq!(at(plan(Some(81), address(None)), &unix), "10.9.9.9:81");
        assert_eq!(at(plan(None, address(None)), &unix), "unix:/run/chat");
    }

    #[test]
    fn a_host_loses_its_port_and_brackets() {
        for (host, name) in [
            ("chat.test", "chat.test"),
            ("chat.test:80", "chat.test"),
            ("10.0.0.1:80", "10.0.0.1"),
            ("[::1]:80", "::1"),
            ("::1", "::1"),
        ] {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let http = |method: &str, path: &str, host: &str| CheckKind::Http {
            method: method.into(),
            path: path.into(),
            host: Some(host.into()),
            status: vec![200..=399],
            headers: Vec::new(),
        };
        for (kind, key) in [
            (http("G T", "/", "a"), "method"),
            (http("GET", "no slash", "a"), "path"),
            (http("GET", "/", "a\nb"), "host"),
        ] {
            let error = CheckPlan::new(&check(kind), None).map(drop).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
        assert!(CheckPlan::new(&check(http("GET", "/", "a")), None).is_ok());
    }
}
