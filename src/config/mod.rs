//! Configuration: declared tables, the decoder that reads them from TOML, the difference of two
//! configurations, the JSON schema and the reference page.
//!
//! `parse` -> toml's recovering parser -> `reader` (a cursor over one table and its declared keys)
//! -> `tables` (one declaration per table, of which the decoder, the defaults, the schema and the
//! reference are made) -> `validate` (rules across tables). Nothing stops at the first problem:
//! all are noted and drawn by `error`.

#[macro_use]
mod declare;
#[macro_use]
mod flags;
#[macro_use]
mod words;
mod address;
mod decode;
pub mod defaults;
mod diff;
mod draft;
mod error;
mod explain;
mod hash_key;
mod meant;
mod misplaced;
mod name;
mod peers;
mod preview;
mod reader;
mod reference;
mod registry_url;
mod schema;
mod source_file;
mod spec;
mod syntax;
mod tables;
mod validate;
mod value;
mod value_types;

use std::path::Path;

use toml::de::DeTable;

pub use crate::base::rate::Rate;
pub use address::{Address, Bind, CheckAddress};
pub use diff::{Action, Change, Item, diff};
pub use draft::{Draft, Finding};
pub use error::{ConfigErrors, ConfigMessage, ErrorKind};
pub use explain::{ExplainedKey, ExplainedTable, KeyOrigin, explain};
pub use hash_key::HashKey;
pub use preview::preview;
pub use reference::reference;
pub use registry_url::RegistryUrl;
pub use schema::schema;
pub use tables::*;
pub use words::Word;

use declare::Declared;
use error::Problem;
use reader::TableReader;
use source_file::SourceFile;

/// Largest file that is read, in bytes: some 40,000 backends. Beyond it is a mistaken path.
const FILE_MAX: usize = 8 << 20;

/// Reads a configuration. Pure: no file is opened; relative paths in it are joined to the folder of
/// `file`.
///
/// # Errors
/// All problems of the text, at once.
pub fn parse(text: &str, file: &Path) -> Result<Config, ConfigErrors> {
    Draft::read(text, file).finish()
}

/// Reads `[admin]`, whatever else is wrong with the file: an operator whose file is broken must
/// still reach the running process. `None` when there is none, or it cannot be read.
pub fn admin_alone(text: &str, file: &Path) -> Option<Admin> {
    table_alone(text, file, decode::admin)
}

/// Reads `[metrics]`, whatever else is wrong with the file, as [`admin_alone`] reads `[admin]`: a
/// health check asks the running process.
pub fn metrics_alone(text: &str, file: &Path) -> Option<Metrics> {
    table_alone(text, file, decode::metrics)
}

fn table_alone<T>(
    text: &str,
    file: &Path,
    read: impl FnOnce(&TableReader<'_>) -> Option<T>,
) -> Option<T> {
    if text.len() > FILE_MAX {
        return None;
    }
    let (document, _) = DeTable::parse_recoverable(text);
    let source = SourceFile::new(text, file, Config::SPEC);
    read(&TableReader::root(&source, document.get_ref()))
}

fn too_large() -> Problem {
    Problem {
        kind: ErrorKind::Syntax,
        span: 0..0,
        key: String::new(),
        what: format!(
            "the file is larger than {}",
            crate::base::units::format_size(FILE_MAX as u64)
        ),
        allowed: None,
        hint: None,
    }
}

/// Shared by the tests of the tables.
#[cfg(test)]
mod testing {
    use super::*;

    /// A listener and a pool that are right; `extra` follows inside the pool.
    pub fn pool(extra: &str) -> String {
        format!(
            "{LISTENER}[pool.p]\nbackend = [{{ name = \"n\", address = \"10.0.0.1:80\" }}]\n{extra}\n"
        )
    }

    /// A pool, and a listener with these keys beside its name and bind.
    pub fn listener(keys: &str) -> String {
        format!(
            "[pool.p]\nbackend = [{{ address = \"10.0.0.1:80\" }}]\n[[listener]]\nname = \"l\"\nbind = \"[::]:80\"\n{keys}\n"
        )
    }

    const LISTENER: &str =
        "[[listener]]\nname = \"l\"\nbind = \"[::]:80\"\nprotocol = \"tcp\"\npool = \"p\"\n";

    pub fn read(text: &str) -> Result<Config, ConfigErrors> {
        parse(text, Path::new("/etc/evenkeel/a.toml"))
    }

    pub fn right(text: &str) -> Config {
        read(text).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The key and the kind of every problem.
    pub fn faults(text: &str) -> Vec<(String, ErrorKind)> {
        let messages = read(text).expect_err("it should be refused").messages();
        messages
            .into_iter()
            .map(|message| (message.key, message.fault))
            .collect()
    }

    /// Each text has exactly one problem: at this key, of this kind.
    pub fn each_refused<const N: usize>(cases: [(String, &str, ErrorKind); N]) {
        for (text, key, fault) in cases {
            assert_eq!(faults(&text), [(key.to_owned(), fault)], "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    // A health check called a process dead whose file had been broken meanwhile.
    #[test]
    fn an_endpoint_is_read_whatever_else_is_wrong() {
        let endpoint =
            |name: &str| format!("[global]\nworkers = \"x\"\n[{name}]\nbind = \"[::1]:9\"");
        let (admin, metrics) = (endpoint("admin"), endpoint("metrics"));
        let file = Path::new("balancer.toml");
        assert!(metrics_alone(&metrics, file).is_some() && metrics_alone(&admin, file).is_none());
        assert!(admin_alone(&admin, file).is_some() && admin_alone(&metrics, file).is_none());
    }

    #[test]
    fn a_small_file_gets_its_defaults() {
        let config = right(&pool(""));
        assert_eq!(config.global.max_setup_connections, 10_000);
        assert_eq!(
            config.pools["p"].connect_timeout,
            std::time::Duration::from_secs(5)
        );
        assert_eq!(config.pools["p"].backends[0].weight, 1);
        assert_eq!(config.listeners[0].backlog, 4_096);
        assert_eq!((config.admin, config.metrics), (None, None));
    }

    #[test]
    fn all_problems_are_reported_at_once_in_the_order_of_the_text() {
        let text = "[globl]\n[global]\nworkers = \"5\"\nhard_stop_after = 30\nlog_level = \"inf\"\n[[listener]]\nname = \"a b\"\n";
        let expected = [
            ("globl", ErrorKind::UnknownKey),
            ("global.workers", ErrorKind::Type),
            ("global.hard_stop_after", ErrorKind::Type),
            ("global.log_level", ErrorKind::Value),
            ("listener[0].bind", ErrorKind::Missing),
            ("listener[0].pool", ErrorKind::Missing),
            ("listener[0].protocol", ErrorKind::Missing),
            ("listener[0].name", ErrorKind::Value),
        ];
        assert_eq!(
            faults(text),
            expected.map(|(key, fault)| (key.to_owned(), fault))
        );
    }

    #[test]
    fn a_message_says_the_value_and_what_is_allowed_and_what_was_meant() {
        let errors =
            read("[global]\nwatc = true\nlog_level = \"inf\"\nhard_stop_after = 30\n").unwrap_err();
        let said: Vec<_> = errors
            .messages()
            .into_iter()
            .map(|message| message.message)
            .collect();
        assert!(said[1].contains("did you mean `watch`?"), "{said:?}");
        assert!(
            said[2].starts_with("\"inf\" is not allowed; did you mean \"info\"?; allowed: "),
            "{said:?}"
        );
        assert!(said[3].contains("a time needs a unit: \"30s\""), "{said:?}");
    }

    #[test]
    fn syntax_errors_stand_beside_what_else_is_surely_wrong() {
        let text = "[global]\nworkers = 5s\nlog_level = \"inf\"\nwatch = = true\n";
        let found = faults(text);
        assert!(
            found.contains(&("global.log_level".to_owned(), ErrorKind::Value)),
            "{found:?}"
        );
        assert!(
            found
                .iter()
                .filter(|(_, fault)| *fault == ErrorKind::Syntax)
                .count()
                >= 2,
            "{found:?}"
        );
        assert!(
            found.iter().all(|(_, fault)| *fault != ErrorKind::Missing),
            "{found:?}"
        );
    }

    #[test]
    fn a_text_without_quotes_and_a_list_without_brackets_get_a_hint() {
        let said = |text: &str| read(text).unwrap_err().to_string();
        assert!(
            said("[global]\nlog_level = info\n").contains("help: a string needs quotes: \"info\"")
        );
        assert!(said("[listener]\nname = \"a\"\n").contains("help: write `[[listener]]`"));
    }

    #[test]
    fn a_file_without_a_listener_is_refused() {
        for text in ["", "# nothing\n", "[global]\n", "listener = []\n"] {
            let found = faults(text);
            assert_eq!(
                found,
                [("listener".to_owned(), ErrorKind::Missing)],
                "{text:?}"
            );
        }
    }

    #[test]
    fn a_file_that_is_too_large_is_refused_unread() {
        assert_eq!(
            faults(&" ".repeat(FILE_MAX + 1)),
            [(String::new(), ErrorKind::Syntax)]
        );
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_are_read() {
        right(&format!("\u{feff}{}", pool("").replace('\n', "\r\n")));
    }

    #[test]
    fn paths_are_joined_to_the_folder_of_the_file() {
        let config = right(&listener(
            "protocol = \"tcp\"\npool = \"p\"\ntls = { certificates = [{ cert = \"a.pem\", key = \"/k/a.key\" }] }",
        ));
        let Some(ListenerTls::Terminate(tls)) = &config.listeners[0].tls else {
            panic!("no TLS")
        };
        assert_eq!(tls.certificates[0].cert, Path::new("/etc/evenkeel/a.pem"));
        assert_eq!(tls.certificates[0].key, Path::new("/k/a.key"));
    }
}
