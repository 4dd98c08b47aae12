//! Checks the files and values that a configuration needs, without binding anything.

use std::fmt::Display;
use std::path::Path;

use super::load::load;
use super::load_error::LoadError;
use crate::config::{self, Config, Draft, Finding};
use crate::server::pools::Pools;
use crate::tls::TlsAcceptor;

/// Adds the errors that keep `draft` from being served, as far as they can be told without binding
/// anything: loads every certificate, key, root, token and sticky key file. A provider of TLS
/// primitives must be installed (`tls::install_provider`).
pub(crate) fn verify(draft: &mut Draft) {
    let findings = match draft.config() {
        Some(config) => {
            let errors = load_errors(config).into_iter();
            errors.map(|error| error.finding).collect()
        }
        None => unreadable(draft),
    };
    for finding in findings {
        draft.refuse(&finding);
    }
}

/// Errors that `check` would draw of the files that a sound text names. `None`: there are none, so
/// an address or the like is at fault.
pub(super) fn drawn(mut draft: Draft) -> Option<String> {
    verify(&mut draft);
    let errors = draft.finish().err()?;
    Some(errors.to_string())
}

/// The files that cannot be opened, of a text that is no configuration.
fn unreadable(draft: &Draft) -> Vec<Finding> {
    let finding = |(key, file): (&str, &Path)| {
        let error = std::fs::File::open(file).err()?;
        Some(Finding {
            key: key.to_owned(),
            file: Some(file.to_owned()),
            what: format!("{}: {error}", file.display()),
        })
    };
    draft.files_to_read().filter_map(finding).collect()
}

fn load_errors(config: &Config) -> Vec<LoadError> {
    let mut errors = load(config, &Pools::new()).err().unwrap_or_default();
    errors.extend(config.admin.iter().flat_map(admin_errors));
    errors
}

fn admin_errors(admin: &config::Admin) -> Vec<LoadError> {
    let error = |file, what: &dyn Display| LoadError::new("admin", "admin".to_owned(), file, &what);
    let mut errors = Vec::new();
    let files = admin.tokens.iter().map(|token| &token.file);
    for file in files.chain(&admin.token_file) {
        if let Err(refused) = std::fs::read(file) {
            let what = format!("read {}: {refused}", file.display());
            errors.push(error(Some(file), &what));
        }
    }
    if let Some(certificate) = &admin.tls {
        let settings = config::Terminate::with(vec![certificate.clone()]);
        let found = TlsAcceptor::file_errors(&settings);
        errors.extend(found.iter().map(|one| error(one.file(), one)));
    }
    errors
}
