//! Guard of one endpoint: the names, tokens and certificate that a reload may change while it stays
//! bound. Loading them is the part of a reload that may fail.

use std::net::IpAddr;
use std::sync::Arc;

use super::refusals::{EndpointRefusals, RefusalTotals};
use super::rules::{Hosts, is_local};
use super::tokens::Tokens;
use crate::admission::AccessList;
use crate::base::names::SESSION_COOKIES;
use crate::config::{Admin, Bind, Certificate, Metrics, Terminate};
use crate::tls::TlsAcceptor;

pub(super) enum EndpointGuard {
    /// Guard of `[admin]`: everything, behind all the rules.
    Admin(Box<AdminGuard>),
    /// Guard of `[metrics]`: probes and metrics only, for any client that passes `allow` and
    /// `deny`.
    Metrics(Box<MetricsGuard>),
}

pub(super) struct MetricsGuard {
    access: AccessList,
    /// Whether its page has the metrics of each backend.
    per_backend: bool,
}

pub(super) struct AdminGuard {
    pub hosts: Hosts,
    pub tokens: Tokens,
    pub tls: Option<Arc<TlsAcceptor>>,
    /// Name of the cookie of its sessions: browsers keep one jar for all ports of a host.
    pub cookie: String,
    access: AccessList,
}

impl EndpointGuard {
    /// Loads the guard of `[admin]`; `bound` is its real address.
    ///
    /// # Errors
    /// A file cannot be read, or an address off loopback lacks a token or TLS.
    pub(super) fn load(admin: &Admin, bound: &Bind) -> Result<EndpointGuard, String> {
        let tokens = Tokens::load(admin)?;
        let tls = admin.tls.as_ref().map(terminator).transpose()?;
        if !is_local(bound) && (tokens.is_empty() || tls.is_none()) {
            return Err(format!(
                "admin.bind {bound} is not loopback: it needs admin.tls, and admin.token_file or [[admin.token]]"
            ));
        }
        let is_tls = tls.is_some();
        let hosts = Hosts::new(bound, &admin.allowed_hosts);
        let access = AccessList::new(&admin.access);
        Ok(EndpointGuard::Admin(Box::new(AdminGuard {
            hosts,
            tokens,
            tls,
            cookie: cookie_name(bound, is_tls),
            access,
        })))
    }

    pub(super) fn metrics(metrics: &Metrics) -> EndpointGuard {
        EndpointGuard::Metrics(Box::new(MetricsGuard {
            access: AccessList::new(&metrics.access),
            per_backend: metrics.per_backend,
        }))
    }

    /// Whether the metrics page of the endpoint has those of each backend.
    pub(super) fn shows_backends(&self) -> bool {
        match self {
            EndpointGuard::Admin(_) => true,
            EndpointGuard::Metrics(guard) => guard.per_backend,
        }
    }

    /// Whether this client may connect; `None` is a client of a unix socket.
    pub(super) fn admits(&self, client: Option<IpAddr>) -> bool {
        match self {
            EndpointGuard::Admin(guard) => guard.access.admits(client),
            EndpointGuard::Metrics(guard) => guard.access.admits(client),
        }
    }

    /// Returns the counters of its endpoint.
    pub(super) fn refused<'a>(&self, all: &'a RefusalTotals) -> &'a EndpointRefusals {
        match self {
            EndpointGuard::Admin(_) => &all.admin,
            EndpointGuard::Metrics(_) => &all.metrics,
        }
    }

    pub(super) fn tls(&self) -> Option<&Arc<TlsAcceptor>> {
        match self {
            EndpointGuard::Admin(guard) => guard.tls.as_ref(),
            EndpointGuard::Metrics(_) => None,
        }
    }
}

fn cookie_name(bound: &Bind, is_tls: bool) -> String {
    let [plain, over_tls] = SESSION_COOKIES;
    let prefix = if is_tls { over_tls } else { plain };
    let port = match bound {
        Bind::Tcp(address) => address.port(),
        Bind::Unix(_) => 0,
    };
    format!("{prefix}{port}")
}

fn terminator(certificate: &Certificate) -> Result<Arc<TlsAcceptor>, String> {
    // One certificate serves whatever name the client asks for.
    let certificate = Certificate {
        default: true,
        ..certificate.clone()
    };
    let settings = Terminate::with(vec![certificate]);
    let loaded = TlsAcceptor::load("admin", &settings, &[b"http/1.1"])
        .map_err(|error| format!("admin.tls: {error}"))?;
    Ok(Arc::new(loaded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Access;

    fn admin(bind: &str) -> Admin {
        let bind = Bind::Tcp(bind.parse().unwrap());
        Admin {
            file: Default::default(),
            bind,
            token_file: None,
            tokens: Vec::new(),
            tls: None,
            allowed_hosts: Vec::new(),
            access: Access::default(),
        }
    }

    fn load(admin: &Admin) -> Result<EndpointGuard, String> {
        EndpointGuard::load(admin, &admin.bind)
    }

    #[test]
    fn off_loopback_it_needs_tls_and_a_token() {
        assert!(load(&admin("127.0.0.1:1")).is_ok());
        assert!(load(&admin("[::1]:1")).is_ok());
        let error = load(&admin("0.0.0.0:1")).err().unwrap();
        assert_eq!(
            error,
            "admin.bind 0.0.0.0:1 is not loopback: it needs admin.tls, and admin.token_file or [[admin.token]]"
        );
    }
}
