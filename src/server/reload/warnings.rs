//! Warnings of `evenkeel check` about the files of a configuration and this machine's addresses.
//! Nothing is refused for them.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use super::load::sockets;
use crate::config::{
    Bind, Certificate, Config, DiscoverSource, Draft, Finding, Identity, ListenerTls, Terminate,
};
use crate::net::{self, PortHolder};
use crate::server::watch::expiry::ends_soon;
use crate::tls;

const DAY_SECONDS: u64 = 24 * 3600;

/// Adds the warnings of the files that `draft` names.
pub(crate) fn warn_of_files(draft: &mut Draft, now: SystemTime) {
    let Some(config) = draft.config() else { return };
    let expiring =
        certificates(config).filter_map(|(key, file)| finding(key, file, expiry(file, now)?));
    let readable = secrets(config).filter_map(|(key, file)| finding(key, file, readable(file)?));
    for found in expiring.chain(readable).collect::<Vec<_>>() {
        draft.warn(&found);
    }
}

/// Adds the endpoints that could not be bound here. An address that another evenkeel process has is
/// not reported: mostly the file is for that one.
pub(crate) fn warn_of_binds(draft: &mut Draft) {
    let Some(config) = draft.config() else { return };
    let found = sockets(config).filter_map(|(_, key, bind, _)| {
        Some(Finding {
            key: format!("{key}.bind"),
            file: None,
            what: trouble(bind)?,
        })
    });
    for found in found.collect::<Vec<_>>() {
        draft.warn(&found);
    }
}

fn trouble(bind: &Bind) -> Option<String> {
    match bind {
        Bind::Tcp(address) => {
            let error = net::check_bindable(*address).err()?;
            if error.source.kind() != io::ErrorKind::AddrInUse {
                return Some(error.to_string());
            }
            let PortHolder { pid, name } = net::find_port_holder(*address)?;
            (name != env!("CARGO_PKG_NAME")).then(|| format!("{error} by {name} (process {pid})"))
        }
        Bind::Unix(path) => {
            let folder = path.parent().filter(|folder| !folder.is_dir());
            if let Some(folder) = folder {
                return Some(format!("bind {bind}: {} is no folder", folder.display()));
            }
            let file = std::fs::symlink_metadata(path).ok()?;
            let is_other = !file.file_type().is_socket();
            is_other.then(|| format!("bind {bind}: there is another file"))
        }
    }
}

/// The certificates that this process presents, each with its key in the configuration.
fn certificates(config: &Config) -> impl Iterator<Item = (String, &Path)> {
    let listeners = terminating(config).flat_map(|(key, settings)| {
        let certificates = settings.certificates.iter();
        certificates.map(move |one| (key.clone(), one.cert.as_path()))
    });
    listeners.chain(identities(config).map(|(key, cert, _)| (key, cert)))
}

/// The files that nobody else is to read, each with its key in the configuration.
fn secrets(config: &Config) -> impl Iterator<Item = (String, &Path)> {
    let listeners = terminating(config).flat_map(|(key, settings)| {
        let keys = settings.certificates.iter().map(|one| &one.key);
        let files = keys.chain(&settings.ticket_keys);
        files.map(move |file| (key.clone(), file.as_path()))
    });
    let identities = identities(config).map(|(key, _, file)| (key, file));
    let pools = config.pools.iter().filter_map(|(name, pool)| {
        let sticky = pool.sticky.as_ref()?;
        Some((format!("pool.{name}.sticky"), sticky.key_file.as_path()))
    });
    let tokens = config.admin.iter().flat_map(|admin| {
        let files = admin.tokens.iter().map(|token| &token.file);
        let files = files.chain(&admin.token_file);
        files.map(|file| ("admin".to_owned(), file.as_path()))
    });
    let registries = config.pools.iter().filter_map(|(name, pool)| {
        let DiscoverSource::Registry(registry) = &pool.discover.as_ref()?.source else {
            return None;
        };
        let file = registry.token_file.as_deref()?;
        Some((format!("pool.{name}.discover"), file))
    });
    let pools = pools.chain(registries);
    listeners.chain(identities).chain(pools).chain(tokens)
}

fn terminating(config: &Config) -> impl Iterator<Item = (String, &Terminate)> {
    let listeners = config.listeners.iter().enumerate();
    listeners.filter_map(|(index, listener)| match &listener.tls {
        Some(ListenerTls::Terminate(settings)) => {
            Some((format!("listener[{index}].tls"), settings))
        }
        _ => None,
    })
}

/// Key in the configuration, certificate and its key file, of the admin endpoint and of the pools
/// that have them.
fn identities(config: &Config) -> impl Iterator<Item = (String, &Path, &Path)> {
    let pools = config.pools.iter().filter_map(|(name, pool)| {
        let Identity { cert, key } = pool.tls.as_ref()?.identity.as_ref()?;
        Some((format!("pool.{name}.tls"), cert.as_path(), key.as_path()))
    });
    let admin = config.admin.iter().filter_map(|admin| {
        let Certificate { cert, key, .. } = admin.tls.as_ref()?;
        Some(("admin.tls".to_owned(), cert.as_path(), key.as_path()))
    });
    pools.chain(admin)
}

fn finding(key: String, file: &Path, what: String) -> Option<Finding> {
    Some(Finding {
        key,
        file: Some(file.to_owned()),
        what: format!("{}: {what}", file.display()),
    })
}

fn expiry(file: &Path, now: SystemTime) -> Option<String> {
    let certificate = tls::certificate_facts(file)?;
    let left = ends_soon(&certificate, now)?.as_secs();
    Some(match (left, left / DAY_SECONDS) {
        (0, _) => "the certificate has expired".to_owned(),
        (_, 0) => "the certificate expires within a day".to_owned(),
        (_, 1) => "the certificate expires in 1 day".to_owned(),
        (_, days) => format!("the certificate expires in {days} days"),
    })
}

fn readable(file: &Path) -> Option<String> {
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    (mode & 0o004 != 0).then(|| "every user of this machine can read this secret".to_owned())
}
