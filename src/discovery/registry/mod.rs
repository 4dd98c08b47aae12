//! Registries: each protocol is a state machine without I/O, which says what to ask next and reads
//! the answers; `driver` asks.

mod client;
mod collector;
mod consul;
mod driver;
mod etcd;
mod eureka;
mod file;
mod gatewayworker;
mod http_list;
mod jute;
mod kubernetes;
mod nacos;
mod redis;
#[cfg(test)]
mod simulation;
mod zookeeper;

use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

#[cfg(feature = "traces")]
pub(crate) use self::collector::{Collector, CollectorAnswer};
use self::driver::HttpDriver;
use super::entry::{Listing, shorten};
use super::fault::{Fault, FaultKind};
use super::source::SourcePublisher;
use crate::config::{Registry, RegistryKind};
use crate::remote::read_secret;
use crate::tls::BackendTlsConfig;

/// Longest time that a watch goes on before everything is read again: watches lose events, and stop
/// without a word.
const RELIST_INTERVAL: Duration = Duration::from_secs(60);

/// Request to an HTTP registry.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SourceRequest {
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Wait before the request.
    pub after: Duration,
    pub reply: ReplyKind,
}

/// Kind of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// A whole body. The server may take this much longer than the time limit of a request.
    Whole { patience: Duration },
    /// A line for each change, for so long.
    Lines { time: Duration },
}

/// A whole answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceAnswer<'a> {
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// A listing with the source's own mark of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publication {
    pub listing: Listing,
    pub revision: String,
}

/// Protocol of a registry over HTTP. Pure: it has no socket and no clock.
pub(super) trait HttpSource: Send {
    /// The next request. `secret`: the token or password, as it is in its file now.
    fn next(&mut self, secret: Option<&str>) -> SourceRequest;

    /// Takes the whole answer to the last request. `None`: it was no listing, or the one before.
    ///
    /// # Errors
    /// The answer is none; the next request begins anew.
    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault>;

    /// Takes a line of a watch.
    ///
    /// # Errors
    /// As of [`HttpSource::answered`].
    fn line(&mut self, _line: &[u8]) -> Result<Option<Publication>, Fault> {
        Err(Fault::malformed("a line that nobody asked for"))
    }

    /// Whether a listing is followed by a watch. Then the listing alone is no success: a server
    /// that refuses the watch would have it asked for without end.
    fn watches(&self) -> bool {
        false
    }

    /// Begins anew: the connection broke, an answer was bad, or a watch has gone on for long.
    fn restart(&mut self);
}

impl SourceRequest {
    pub(super) fn get(path: String) -> SourceRequest {
        SourceRequest {
            method: Method::GET,
            path,
            headers: vec![("accept", "application/json".to_owned())],
            body: Vec::new(),
            after: Duration::ZERO,
            reply: ReplyKind::Whole {
                patience: Duration::ZERO,
            },
        }
    }

    pub(super) fn post(path: String, kind: &str, body: Vec<u8>) -> SourceRequest {
        let mut request = SourceRequest::get(path);
        request.method = Method::POST;
        request.headers.push(("content-type", kind.to_owned()));
        request.body = body;
        request
    }
}

impl SourceAnswer<'_> {
    /// # Errors
    /// The status is none of success.
    pub(super) fn successful(&self) -> Result<(), Fault> {
        let status = self.status;
        if status.is_success() {
            return Ok(());
        }
        let kind = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FaultKind::Denied,
            _ => FaultKind::Status,
        };
        let text = String::from_utf8_lossy(self.body);
        let text: String = shorten(&text)
            .chars()
            .filter(|one| !one.is_control())
            .collect();
        let text = if text.is_empty() {
            text
        } else {
            format!(": {text}")
        };
        Err(Fault::new(
            kind,
            format!("status {}{text}", status.as_u16()),
        ))
    }
}

/// Verifies that the files of a registry can be used: its token, and those of its TLS. Not those of
/// a pod, which are on its own machine. For use before a configuration is applied.
///
/// # Errors
/// Names the file, and says what is wrong with it.
pub(crate) fn verify(registry: &Registry) -> Result<(), (Option<PathBuf>, String)> {
    if registry.kind.is_in_cluster() {
        return Ok(());
    }
    if let Some(file) = &registry.token_file {
        read_secret(file).map_err(|error| (Some(file.clone()), error.to_string()))?;
    }
    let loaded = registry.tls.as_ref().map(BackendTlsConfig::load);
    loaded.transpose().map(drop).map_err(|error| {
        let file = error.file().map(ToOwned::to_owned);
        (file, error.to_string())
    })
}

/// The protocol of a registry over HTTP; `None` of the others.
fn http_source(registry: &Registry) -> Option<Box<dyn HttpSource>> {
    Some(match &registry.kind {
        RegistryKind::Consul(url) => Box::new(consul::ConsulSource::new(registry, url)),
        RegistryKind::Etcd(urls) => Box::new(etcd::EtcdSource::new(registry, urls)),
        RegistryKind::Http(url) => Box::new(http_list::ListSource::new(registry, url)),
        RegistryKind::Eureka(urls) => Box::new(eureka::EurekaSource::new(registry, urls)),
        RegistryKind::Nacos(urls) => Box::new(nacos::NacosSource::new(registry, urls)),
        RegistryKind::Kubernetes(url) => Box::new(kubernetes::KubernetesSource::new(registry, url)),
        RegistryKind::File(_)
        | RegistryKind::Redis(_)
        | RegistryKind::ZooKeeper(_)
        | RegistryKind::GatewayWorker(_) => return None,
    })
}

/// Asks a registry until it is dropped. `timeout`: of one request.
pub(super) async fn follow(registry: &Registry, timeout: Duration, publisher: &SourcePublisher) {
    match &registry.kind {
        RegistryKind::File(path) => file::follow(path, publisher).await,
        RegistryKind::Redis(urls) => redis::follow(registry, urls, timeout, publisher).await,
        RegistryKind::ZooKeeper(urls) => {
            zookeeper::follow(registry, urls, timeout, publisher).await;
        }
        RegistryKind::GatewayWorker(urls) => {
            gatewayworker::follow(registry, urls, timeout, publisher).await;
        }
        _ => {
            if let Some(source) = http_source(registry) {
                HttpDriver::new(registry, timeout, source)
                    .run(publisher)
                    .await;
            }
        }
    }
}
