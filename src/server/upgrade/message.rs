//! Messages of an upgrade, between the old process and the new one. Each is one packet of JSON; a
//! long document goes beside it as a sealed file. A kind or a field that a reader does not know is
//! passed over, so that two versions of one format understand each other.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::server::control::jobs::JobState;

/// First word of each process.
const MAGIC: &str = "evenkeel-upgrade";
/// Formats that this version speaks. A change that an older reader would misunderstand is a new
/// one.
const FORMATS: RangeInclusive<u32> = 1..=1;

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::server) struct Hello {
    magic: String,
    oldest_format: u32,
    newest_format: u32,
    pub version: String,
    pub pid: u32,
}

impl Hello {
    pub(super) fn own() -> Hello {
        Hello {
            magic: MAGIC.to_owned(),
            oldest_format: *FORMATS.start(),
            newest_format: *FORMATS.end(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
        }
    }

    /// # Errors
    /// Why this process and the other cannot understand each other.
    pub(super) fn verify(&self) -> Result<(), String> {
        if self.magic != MAGIC {
            return Err("the other process is no evenkeel".to_owned());
        }
        let (oldest, newest) = (self.oldest_format, self.newest_format);
        if newest < *FORMATS.start() || oldest > *FORMATS.end() {
            return Err(format!(
                "no common format: version {} speaks {oldest} to {newest}, version {} speaks {} to {}",
                self.version,
                env!("CARGO_PKG_VERSION"),
                FORMATS.start(),
                FORMATS.end()
            ));
        }
        Ok(())
    }
}

/// Names of a listening socket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SocketNames {
    pub configured: String,
    pub local: String,
    /// Whether the service manager has opened it.
    pub is_inherited: bool,
}

/// Message of the old process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromOld {
    Hello(Hello),
    /// With a document: [`ProcessState`](super::document::ProcessState). So many sockets follow.
    Process {
        sockets: usize,
        live: u64,
        /// Whether it is the first process of a container.
        #[serde(default)]
        is_init: bool,
    },
    /// With a descriptor for each.
    Sockets {
        sockets: Vec<SocketNames>,
    },
    /// Accept. With a document: [`Totals`](super::document::Totals).
    Switch,
    /// With a document: the totals as they are now.
    Totals,
    /// Live sessions are offered. With a sealed file of their states, one behind the other, then
    /// the sockets of each: its client's, and its backend's where it has one.
    Sessions {
        batch: u64,
        lengths: Vec<usize>,
        backends: Vec<bool>,
    },
    /// The sessions that can be taken are the new process's.
    Commit {
        batch: u64,
    },
    /// All sessions of the batch go on in the old process.
    Abort {
        batch: u64,
    },
    /// This process was asked to stop, and passes it on. The other one may have been asked, too:
    /// it counts these apart from its own signals.
    Stop,
    /// The service manager knows the new process as the main one.
    Lead,
    #[serde(other)]
    Unknown,
}

/// Message of the new process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(in crate::server) enum FromNew {
    Hello(Hello),
    /// All that can fail is done. Sockets that it has no listener for, by their place.
    Built {
        unused: Vec<usize>,
    },
    Refused {
        reasons: Vec<String>,
    },
    /// It accepts.
    Serving,
    /// Which of the offered sessions it can take.
    Ready {
        batch: u64,
        taken: Vec<bool>,
    },
    /// It is being upgraded itself: the probation is over.
    Settled,
    /// Reopen the access log.
    Reopen,
    /// The new process stops, and the old one with it.
    Stop,
    /// The operator has set the state of a backend.
    Operate {
        pool: String,
        backend: String,
        state: String,
    },
    StartJob(JobState),
    AbortJob {
        id: u64,
    },
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(change: impl FnOnce(&mut Hello)) -> Result<(), String> {
        let mut hello = Hello::own();
        change(&mut hello);
        hello.verify()
    }

    #[test]
    fn versions_without_a_common_format_are_told_apart() {
        assert_eq!(hello(|_| ()), Ok(()));
        // One that speaks older and newer formats, too.
        assert_eq!(
            hello(|hello| {
                hello.oldest_format = 0;
                hello.newest_format = 9;
            }),
            Ok(())
        );
        let newer = hello(|hello| (hello.oldest_format, hello.newest_format) = (8, 9));
        assert!(newer.unwrap_err().starts_with("no common format: version "));
        assert!(hello(|hello| (hello.oldest_format, hello.newest_format) = (0, 0)).is_err());
        assert!(hello(|hello| hello.magic.clear()).is_err());
    }

    #[test]
    fn what_a_newer_version_says_beside_is_passed_over() {
        let read = |text: &str| serde_json::from_str::<FromOld>(text).unwrap();
        assert!(matches!(
            read(r#"{"message":"later","x":1}"#),
            FromOld::Unknown
        ));
        let process = read(r#"{"message":"process","sockets":2,"live":7,"more":[1]}"#);
        assert!(matches!(
            process,
            FromOld::Process {
                sockets: 2,
                live: 7,
                is_init: false
            }
        ));
        let said = serde_json::to_string(&FromNew::AbortJob { id: 4 }).unwrap();
        let read: FromNew = serde_json::from_str(&said).unwrap();
        assert!(matches!(read, FromNew::AbortJob { id: 4 }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = serde_json::from_slice::<FromOld>(&bytes);
            let _ = serde_json::from_slice::<FromNew>(&bytes);
        }

        /// A message that was cut off is none.
        #[test]
        fn a_truncated_message_is_refused(cut in 1_usize..60) {
            let text = serde_json::to_string(&FromNew::Refused { reasons: vec!["x".repeat(40)] }).unwrap();
            let end = text.len().saturating_sub(cut);
            prop_assert!(serde_json::from_str::<FromNew>(&text[..end]).is_err());
        }
    }
}
