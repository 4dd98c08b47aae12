//! The configuration in effect, key by key: as the file has it, or by default. Made from the
//! declared keys.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use serde::Serialize;
use serde_json::{Map, Value};

use super::declare::Declared;
use super::spec::{KeySpec, Presence, TableSpec, ValueKind};
use super::tables::Config;

/// A table, with its keys in the order of the declaration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedTable {
    /// Path as in messages, such as `pool.chat.check`.
    pub table: String,
    pub keys: Vec<ExplainedKey>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedKey {
    pub key: &'static str,
    /// The value as JSON; `null` where the key is not set.
    pub value: Value,
    #[serde(flatten)]
    pub from: KeyOrigin,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum KeyOrigin {
    File {
        line: usize,
    },
    Environment {
        variable: &'static str,
    },
    Default,
    /// Without a default: the reference says what that means.
    NotSet,
}

/// Explains a text that is a configuration: one that [`parse`](super::parse) takes.
pub fn explain(text: &str) -> Vec<ExplainedTable> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mut explanation = Explanation {
        text,
        tables: Vec::new(),
    };
    explanation.table(Config::SPEC, Some(document.get_ref()), "");
    explanation.tables
}

struct Explanation<'t> {
    text: &'t str,
    tables: Vec<ExplainedTable>,
}

impl Explanation<'_> {
    /// Explains a table and those in it. `entries`: what the file says; `None`: all is default.
    fn table(&mut self, spec: &'static TableSpec, entries: Option<&DeTable<'_>>, path: &str) {
        let place = self.tables.len();
        self.tables.push(ExplainedTable {
            table: path.to_owned(),
            keys: Vec::new(),
        });
        for key in spec.all() {
            let inner = match path {
                "" => key.name.to_owned(),
                path => format!("{path}.{}", key.name),
            };
            let found = entries.and_then(|entries| entries.get_key_value(key.name));
            let explained = match found {
                Some((name, value)) => {
                    let line = self.line(name.span().start);
                    self.given(key, value, &inner, line)
                }
                None => self.absent(key, &inner),
            };
            if let (Some(explained), Some(table)) = (explained, self.tables.get_mut(place)) {
                table.keys.push(explained);
            }
        }
        // One that only holds others says nothing.
        if self
            .tables
            .get(place)
            .is_some_and(|table| table.keys.is_empty())
        {
            self.tables.remove(place);
        }
    }

    /// Explains a key of the file. `None`: it is made of tables.
    fn given(
        &mut self,
        key: &'static KeySpec,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        line: usize,
    ) -> Option<ExplainedKey> {
        match (&key.kind, value.get_ref()) {
            (ValueKind::Table(spec) | ValueKind::FlagOrTable(spec), DeValue::Table(entries)) => {
                self.table(spec, Some(entries), path);
                return None;
            }
            (ValueKind::Named(spec), DeValue::Table(named)) => {
                for (name, value) in named {
                    let entries = value.get_ref().as_table();
                    self.table(spec, entries, &format!("{path}.{}", name.get_ref()));
                }
                return None;
            }
            (ValueKind::Tables(spec), DeValue::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.table(spec, item.get_ref().as_table(), &format!("{path}[{index}]"));
                }
                return None;
            }
            (ValueKind::FlagOrTable(spec), DeValue::Boolean(true)) => self.table(spec, None, path),
            _ => {}
        }
        Some(ExplainedKey {
            key: key.name,
            value: json(value.get_ref()),
            from: KeyOrigin::File { line },
        })
    }

    /// Explains a key that the file does not have. `None`: it is a table of defaults, or one that
    /// the file says in another way.
    fn absent(&mut self, key: &'static KeySpec, path: &str) -> Option<ExplainedKey> {
        let (value, from) = match (&key.presence, &key.kind) {
            (Presence::Required, _) => return None,
            (Presence::Nested, kind) => {
                if let Some(spec) = kind.table() {
                    self.table(spec, None, path);
                }
                return None;
            }
            (Presence::Default(default), kind) => {
                let value = default();
                if let (ValueKind::FlagOrTable(spec), Value::Bool(true)) = (kind, &value) {
                    self.table(spec, None, path);
                }
                (value, KeyOrigin::Default)
            }
            (Presence::Optional, _) => (Value::Null, KeyOrigin::NotSet),
        };
        Some(ExplainedKey {
            key: key.name,
            value,
            from,
        })
    }

    /// Line of a byte, from 1.
    fn line(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.bytes().filter(|byte| *byte == b'\n').count() + 1
    }
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Integer(number) => {
            let digits = i64::from_str_radix(number.as_str(), number.radix());
            digits.map_or_else(|_| number.to_string().into(), Value::from)
        }
        DeValue::Float(number) => number.as_str().into(),
        DeValue::Datetime(time) => time.to_string().into(),
        DeValue::Array(items) => items.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(entries) => {
            let pairs = entries.iter();
            let pairs =
                pairs.map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::testing::right;

    const TEXT: &str = "\
[global]
max_connections = 5_000
[[listener]]
name = \"l\"
bind = \"[::]:80\"
protocol = \"tcp\"
pool = \"p\"
[pool.p]
tls = true
check = { type = \"http\",
          path = \"/ready\" }
[[pool.p.backend]]
address = \"10.0.0.1:80\"
";

    fn key(table: &str, key: &str) -> ExplainedKey {
        right(TEXT);
        let tables = explain(TEXT);
        let found = tables.iter().find(|one| one.table == table);
        let found = found.unwrap_or_else(|| panic!("no {table}"));
        let mut keys = found.keys.iter();
        keys.find(|one| one.key == key)
            .unwrap_or_else(|| panic!("no {table}.{key}"))
            .clone()
    }

    #[test]
    fn a_value_comes_from_a_line_of_the_file_or_is_the_default() {
        let from = |table, name| {
            let ExplainedKey { value, from, .. } = key(table, name);
            (value, from)
        };
        let line = |line| KeyOrigin::File { line };
        assert_eq!(from("global", "max_connections"), (json!(5_000), line(2)));
        assert_eq!(from("global", "workers"), (json!(0), KeyOrigin::Default));
        assert_eq!(from("listener[0]", "bind"), (json!("[::]:80"), line(5)));
        assert_eq!(from("pool.p", "tls"), (json!(true), line(9)));
        assert_eq!(from("pool.p.check", "path"), (json!("/ready"), line(11)));
        assert_eq!(
            from("pool.p.backend[0]", "weight"),
            (json!(1), KeyOrigin::Default)
        );
        assert_eq!(
            from("pool.p", "max_lifetime"),
            (json!(null), KeyOrigin::NotSet)
        );
    }

    #[test]
    fn tables_of_defaults_are_shown_and_those_that_are_off_are_not() {
        let tables: Vec<_> = explain(TEXT).into_iter().map(|one| one.table).collect();
        for there in ["access_log", "upgrade", "pool.p.tls"] {
            assert!(tables.contains(&there.to_owned()), "{there}: {tables:?}");
        }
        assert!(!tables.iter().any(|table| table == "traces"));
        assert_eq!(key("", "traces").from, KeyOrigin::NotSet);
    }
}
