//! Backend or listener that a command acts on.

use std::time::Duration;

use percent_encoding::utf8_percent_encode;

use super::arguments::{BackendArgument, SubjectArguments};
use super::ask::{SEGMENT, connections};
use crate::base::units::format_duration;
use crate::cli::failure::CommandError;

/// Subject of an operation.
pub(super) enum Subject {
    Backend(BackendArgument),
    Listener(String),
}

impl SubjectArguments {
    pub(super) fn subject(self) -> Result<Subject, CommandError> {
        match (self.backend, self.listener) {
            (Some(backend), None) => Ok(Subject::Backend(backend)),
            (None, Some(listener)) => Ok(Subject::Listener(listener)),
            // The command line has refused it.
            _ => Err(CommandError::Other("POOL/BACKEND or --listener".to_owned())),
        }
    }
}

impl Subject {
    /// Path of an operation. `local`: on this balancer, whatever the store of its cluster says.
    pub(super) fn path(&self, operation: &str, wait: Option<Duration>, local: bool) -> String {
        let wait = wait.map(|wait| format!("wait={}", format_duration(wait)));
        let local = local.then(|| "local=true".to_owned());
        let query: Vec<_> = wait.into_iter().chain(local).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}/{operation}{mark}{}", self.base(), query.join("&"))
    }

    /// Path of the subject itself.
    pub(super) fn base(&self) -> String {
        let encoded = |name| utf8_percent_encode(name, SEGMENT);
        match self {
            Subject::Backend(BackendArgument { pool, backend }) => {
                let (pool, backend) = (encoded(pool), encoded(backend));
                format!("/api/v1/pools/{pool}/backends/{backend}")
            }
            Subject::Listener(name) => format!("/api/v1/listeners/{}", encoded(name)),
        }
    }

    /// Name in the target of a job.
    pub(super) fn name(&self) -> String {
        match self {
            Subject::Backend(BackendArgument { pool, backend }) => format!("{pool}/{backend}"),
            Subject::Listener(name) => format!("listener {name}"),
        }
    }

    /// Failure of a wait that ended with `live` connections left.
    pub(super) fn not_empty(&self, live: u64, wait: Duration) -> CommandError {
        let name = self.name();
        let wait = format_duration(wait);
        CommandError::Other(format!("{name}: {} left after {wait}", connections(live)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_the_path() {
        let name: BackendArgument = "chat/unix:/run/a b.sock".parse().unwrap();
        assert_eq!(
            Subject::Backend(name).path("drain", Some(Duration::from_secs(60)), true),
            "/api/v1/pools/chat/backends/unix:%2Frun%2Fa%20b.sock/drain?wait=1m&local=true"
        );
        assert_eq!(
            Subject::Listener("a/b".to_owned()).path("ready", None, false),
            "/api/v1/listeners/a%2Fb/ready"
        );
    }
}
