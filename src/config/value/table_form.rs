//! The form of a table, where the file has something else in its place.

use toml::de::DeValue;

use super::ValueReader;
use super::hint::flag;
use crate::base::rate::Rate;
use crate::base::units::{parse_duration, parse_size};
use crate::config::spec::{TableSpec, ValueKind};

impl ValueReader<'_> {
    /// Hint for a table, or for a value in place of one.
    pub(super) fn right_table(&self, shown: &str) -> Option<String> {
        let names = self
            .path
            .split('.')
            .map(|part| part.split('[').next().unwrap_or_default());
        let path = names.collect::<Vec<_>>().join(".");
        let is_list = matches!(self.value, DeValue::Array(_));
        match self.kind {
            ValueKind::Tables(_) if shown.starts_with('[') && self.value.is_table() => {
                Some(format!("write `[[{path}]]`"))
            }
            ValueKind::Tables(_) if shown.starts_with('{') && shown.ends_with('}') => {
                Some(format!("write `[{shown}]`"))
            }
            ValueKind::Table(_) | ValueKind::FlagOrTable(_) if is_list => {
                Some(format!("write `[{path}]`"))
            }
            ValueKind::Named(spec) if spec.key(self.key()).is_some() && path.contains('.') => {
                let outer = path.split('.').next().unwrap_or_default();
                Some(format!(
                    "a {outer} has a name: write it below `[{outer}.NAME]`"
                ))
            }
            ValueKind::Named(_) if is_list && path.contains('.') => {
                Some(format!("write `[{path}]`"))
            }
            ValueKind::Named(_) if is_list => {
                let name = self.first_name().unwrap_or("NAME");
                Some(format!(
                    "a {path} has its name in its header: write `[{path}.{name}]`"
                ))
            }
            _ => self.around_value(shown),
        }
    }

    /// The table that holds a bare value: `check = "tcp"` is `check = { type = "tcp" }`.
    fn around_value(&self, shown: &str) -> Option<String> {
        let spec = match self.kind {
            ValueKind::Table(spec) | ValueKind::FlagOrTable(spec) | ValueKind::Tables(spec) => spec,
            _ => return None,
        };
        if let DeValue::Boolean(false) = self.value {
            return Some("leave the key out: without it there is none".to_owned());
        }
        if let (ValueKind::FlagOrTable(_), Some(flag)) = (self.kind, flag(self.value)) {
            return Some(format!("write {flag}"));
        }
        let table = holding(spec, self.value, shown).or_else(|| example(self.key(), spec))?;
        // An item of a list has its list around it.
        let is_list = matches!(self.kind, ValueKind::Tables(_)) && !self.path.ends_with(']');
        Some(if is_list {
            format!("write [{table}]")
        } else {
            format!("write {table}")
        })
    }

    /// The `name` of the first table of a list.
    fn first_name(&self) -> Option<&str> {
        let first = self.value.as_array()?.iter().next()?;
        first.get_ref().as_table()?.get("name")?.get_ref().as_str()
    }
}

/// The table with this value at the key that it is most likely of: the one that must be there, or
/// the first that takes it.
fn holding(spec: &'static TableSpec, value: &DeValue<'_>, shown: &str) -> Option<String> {
    let keys: Vec<_> = spec.all().collect();
    let keys = keys.into_iter();
    let required = keys.clone().filter(|key| key.is_required());
    let key = match required.collect::<Vec<_>>()[..] {
        [] => {
            let exact = keys.clone().find(|key| has_form(&key.kind, value));
            exact.or_else(|| keys.clone().find(|key| is_text(&key.kind, value)))
        }
        [only] => Some(only).filter(|key| has_form(&key.kind, value) || is_text(&key.kind, value)),
        _ => None,
    }?;
    Some(format!("{{ {} = {shown} }}", key.name))
}

/// Whether a value is of a kind that few values are of.
fn has_form(kind: &ValueKind, value: &DeValue<'_>) -> bool {
    match (kind, value) {
        (ValueKind::Word(words), DeValue::String(text)) => words().contains(&text.as_ref()),
        (ValueKind::Time { .. }, DeValue::String(text)) => parse_duration(text).is_ok(),
        (ValueKind::Size { .. }, DeValue::String(text)) => parse_size(text).is_ok(),
        (ValueKind::Rate, DeValue::String(text)) => text.parse::<Rate>().is_ok(),
        (ValueKind::Percent { .. }, DeValue::String(text)) => text.ends_with('%'),
        (ValueKind::Number { .. }, DeValue::Integer(_)) => true,
        _ => false,
    }
}

fn is_text(kind: &ValueKind, value: &DeValue<'_>) -> bool {
    matches!((kind, value), (ValueKind::Text(_), DeValue::String(_)))
}

/// Tables of which nothing at all would be refused, and nobody can guess what is in them.
const EXAMPLES: [(&str, &str); 4] = [
    (
        "tls",
        "{ certificates = [{ cert = \"CERT.pem\", key = \"KEY.pem\" }] }",
    ),
    ("discover", "{ dns = \"HOST:PORT\" }"),
    ("sticky", "{ key_file = \"FILE\" }"),
    ("certificates", "{ cert = \"CERT.pem\", key = \"KEY.pem\" }"),
];

/// The least table that can stand there: of defaults, or with the one key that it must have.
fn example(key: &str, spec: &'static TableSpec) -> Option<String> {
    if let Some((_, table)) = EXAMPLES.iter().find(|(of, _)| *of == key) {
        return Some((*table).to_owned());
    }
    let required = spec.all().filter(|key| key.is_required());
    match required.collect::<Vec<_>>()[..] {
        [] => Some("{}".to_owned()),
        [only] => match only.kind {
            ValueKind::Word(words) => {
                Some(format!("{{ {} = \"{}\" }}", only.name, words().first()?))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{listener, pool, read};

    #[test]
    fn a_table_of_the_wrong_form_is_shown_in_its_own() {
        let pool = pool("");
        for (text, wanted) in [
            (
                pool.replace("[pool.p]", "[[pool]]\nname = \"p\""),
                "a pool has its name in its header: write `[pool.p]`",
            ),
            (pool.replace("[pool.p]", "[[pool.p]]"), "write `[pool.p]`"),
            (
                pool.replace("[pool.p]", "[pool]"),
                "a pool has a name: write it below `[pool.NAME]`",
            ),
            (
                pool.replace("[[listener]]", "[listener]"),
                "write `[[listener]]`",
            ),
            (
                format!("[[global]]\nworkers = 1\n{pool}"),
                "write `[global]`",
            ),
        ] {
            let drawn = read(&text).unwrap_err().to_string();
            assert!(
                drawn.contains(&format!("help: {wanted}")),
                "{text}\n{drawn}"
            );
        }
    }

    /// The help of the first problem of a type.
    fn help(text: &str) -> String {
        let errors = read(text).unwrap_err();
        let drawn = errors.drawn(false);
        let (_, behind) = drawn.split_once("help: ").unwrap_or_default();
        behind.lines().next().unwrap_or_default().to_owned()
    }

    #[test]
    fn a_value_in_place_of_a_table_is_shown_within_one() {
        let backend = |value: &str| {
            let tables = "[{ name = \"n\", address = \"10.0.0.1:80\" }]";
            pool("").replace(tables, value)
        };
        let listener = |keys: &str| listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{keys}"));
        for (text, wanted) in [
            (pool("check = \"tcp\""), "write { type = \"tcp\" }"),
            (pool("check = true"), "write { type = \"tcp\" }"),
            (pool("check = \"http://a/b\""), "write { type = \"tcp\" }"),
            (
                pool("check = false"),
                "leave the key out: without it there is none",
            ),
            (pool("ping = true"), "write {}"),
            (pool("resume = true"), "write {}"),
            (pool("drain = \"100/s\""), "write { rate = \"100/s\" }"),
            (pool("rebalance = \"20%\""), "write { threshold = \"20%\" }"),
            (
                pool("failover = \"drain\""),
                "write { on_down = \"drain\" }",
            ),
            (pool("discover = \"x:80\""), "write { dns = \"x:80\" }"),
            (pool("tls = \"on\""), "write true"),
            (pool("discover = true"), "write { dns = \"HOST:PORT\" }"),
            (
                listener("per_source = 10"),
                "write { max_connections = 10 }",
            ),
            (
                backend("[\"127.0.0.1:1\"]"),
                "write { address = \"127.0.0.1:1\" }",
            ),
            (
                backend("\"127.0.0.1:1\""),
                "write [{ address = \"127.0.0.1:1\" }]",
            ),
        ] {
            assert_eq!(help(&text), wanted, "{text}");
        }
    }

    #[test]
    fn a_list_of_tables_is_told_with_its_own_header() {
        let backend = "[{ name = \"n\", address = \"10.0.0.1:80\" }]";
        for value in ["[1]", "1"] {
            let text = pool("").replace(backend, value);
            let drawn = read(&text).unwrap_err().to_string();
            assert!(drawn.contains("[[pool.p.backend]] or { ... }"), "{drawn}");
        }
    }
}
