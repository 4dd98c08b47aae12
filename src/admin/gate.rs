//! The settings of one endpoint that a reload may change while it stays bound: its names, its token, its
//! certificate. Loading them is the part of a reload that may fail.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::refused::{Counts, Refused};
use super::rules::Hosts;
use crate::config::{Admin, Bind, Certificate, Metrics, Terminate};
use crate::proxy::AccessList;
use crate::tls::Terminator;

/// A token file holds one line; what is larger is another file.
const MAX_TOKEN_FILE_BYTES: usize = 4096;

pub(super) enum Gate {
    /// `[admin]`: everything, behind all the rules.
    Admin(Box<AdminGate>),
    /// `[metrics]`: probes and metrics only, open to whoever reaches it and passes `allow` and
    /// `deny`.
    Metrics(Box<AccessList>),
}

pub(super) struct AdminGate {
    pub hosts: Hosts,
    pub token: Option<String>,
    pub tls: Option<Arc<Terminator>>,
    access: AccessList,
}

impl Gate {
    /// `bound` is the real address of `admin.bind`.
    ///
    /// # Errors
    /// What could not be read and why, or what an address off loopback lacks.
    pub fn load(admin: &Admin, bound: &Bind) -> Result<Gate, String> {
        let token = admin.token_file.as_deref().map(read_token).transpose()?;
        let tls = admin.tls.as_ref().map(terminator).transpose()?;
        if !is_local(bound) && (token.is_none() || tls.is_none()) {
            return Err(format!(
                "admin.bind {bound} is not loopback: it needs admin.tls and admin.token_file"
            ));
        }
        let hosts = Hosts::new(bound, &admin.allowed_hosts);
        let access = AccessList::new(&admin.access);
        Ok(Gate::Admin(Box::new(AdminGate {
            hosts,
            token,
            tls,
            access,
        })))
    }

    pub fn metrics(metrics: &Metrics) -> Gate {
        Gate::Metrics(Box::new(AccessList::new(&metrics.access)))
    }

    /// Whether this client may connect; `None` is one of a unix socket.
    pub fn admits(&self, client: Option<IpAddr>) -> bool {
        match self {
            Gate::Admin(gate) => gate.access.admits(client),
            Gate::Metrics(access) => access.admits(client),
        }
    }

    /// Counts of the endpoint whose gate it is.
    pub fn refused<'a>(&self, all: &'a Refused) -> &'a Counts {
        match self {
            Gate::Admin(_) => &all.admin,
            Gate::Metrics(_) => &all.metrics,
        }
    }

    pub fn tls(&self) -> Option<&Arc<Terminator>> {
        match self {
            Gate::Admin(gate) => gate.tls.as_ref(),
            Gate::Metrics(_) => None,
        }
    }
}

fn is_local(bound: &Bind) -> bool {
    match bound {
        Bind::Tcp(address) => match address.ip() {
            IpAddr::V6(v6) => v6.to_canonical().is_loopback(),
            v4 => v4.is_loopback(),
        },
        Bind::Unix(_) => true,
    }
}

fn terminator(certificate: &Certificate) -> Result<Arc<Terminator>, String> {
    // Whatever name the operator's client uses, there is one certificate to show.
    let certificate = Certificate {
        default: true,
        ..certificate.clone()
    };
    let settings = Terminate::with(vec![certificate]);
    let loaded = Terminator::load("admin", &settings, &[b"http/1.1"])
        .map_err(|error| format!("admin.tls: {error}"))?;
    Ok(Arc::new(loaded))
}

fn read_token(file: &Path) -> Result<String, String> {
    let shown = file.display();
    let text = std::fs::read(file).map_err(|error| format!("admin.token_file {shown}: {error}"))?;
    warn_if_readable_by_others(file);
    let token = text.trim_ascii();
    if token.is_empty()
        || text.len() > MAX_TOKEN_FILE_BYTES
        || !token.iter().all(u8::is_ascii_graphic)
    {
        return Err(format!(
            "admin.token_file {shown}: it must hold one line of visible ASCII, at most {MAX_TOKEN_FILE_BYTES} bytes"
        ));
    }
    Ok(String::from_utf8_lossy(token).into_owned())
}

fn warn_if_readable_by_others(file: &Path) {
    let mode = std::fs::metadata(file)
        .map(|found| found.permissions().mode())
        .unwrap_or_default();
    if mode & 0o004 != 0 {
        warn!(file = %file.display(), "the admin token can be read by every user of this machine");
    }
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
            tls: None,
            allowed_hosts: Vec::new(),
            access: Access::default(),
        }
    }

    fn load(admin: &Admin) -> Result<Gate, String> {
        Gate::load(admin, &admin.bind)
    }

    #[test]
    fn off_loopback_it_needs_tls_and_a_token() {
        assert!(load(&admin("127.0.0.1:1")).is_ok());
        assert!(load(&admin("[::1]:1")).is_ok());
        let error = load(&admin("0.0.0.0:1")).err().unwrap();
        assert_eq!(
            error,
            "admin.bind 0.0.0.0:1 is not loopback: it needs admin.tls and admin.token_file"
        );
    }

    #[test]
    fn a_token_is_one_visible_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(read_token(&file).unwrap(), "s3cret");
        for bad in ["", "\n", "two words", "a\nb", "\u{e9}", &"x".repeat(5000)] {
            std::fs::write(&file, bad).unwrap();
            assert!(read_token(&file).is_err(), "{bad:?}");
        }
        assert!(
            read_token(&folder.path().join("none"))
                .unwrap_err()
                .contains("none: ")
        );
    }
}
