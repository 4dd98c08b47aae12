//! The JSON schema of the configuration file (draft 2020-12), for editors: made from the declared keys.

use serde_json::{Map, Value, json};

use super::keys::{Absent, Key, Kind, Section};
use super::sections::ROOT;
use crate::base::units::{format_duration, format_size};

/// The schema; `balancer.schema.json` beside `balancer.toml` holds it.
pub fn schema() -> Value {
    let mut schema = table(&ROOT);
    if let Value::Object(members) = &mut schema {
        members.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        members.insert("title".to_owned(), json!("Evenkeel"));
    }
    schema
}

fn table(section: &Section) -> Value {
    let properties: Map<String, Value> = section
        .keys
        .iter()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required = section
        .keys
        .iter()
        .filter(|key| matches!(key.absent, Absent::Required))
        .map(|key| key.name);
    json!({
        "type": "object",
        "description": section.doc,
        "properties": properties,
        "required": required.collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn property(key: &Key) -> Value {
    let mut property = value(&key.kind);
    if let Value::Object(members) = &mut property {
        members.insert("description".to_owned(), json!(description(key)));
        if let Some(default) = default(&key.absent) {
            members.insert("default".to_owned(), default);
        }
    }
    property
}

/// The words of the key, and what is allowed where JSON has no form for it.
fn description(key: &Key) -> String {
    match key.kind {
        Kind::Text(_)
        | Kind::Texts(_)
        | Kind::Time { .. }
        | Kind::Percent { .. }
        | Kind::Size { .. }
        | Kind::Rate { .. } => {
            format!("{} Allowed: {}.", key.doc, key.kind.allowed())
        }
        _ => key.doc.to_owned(),
    }
}

fn default(absent: &Absent) -> Option<Value> {
    match absent {
        Absent::Required | Absent::None => None,
        Absent::Flag(flag) => Some(json!(flag)),
        Absent::Number(number) => Some(json!(number)),
        Absent::Time(time) => Some(json!(format_duration(*time))),
        Absent::Percent(percent) => Some(json!(format!("{percent}%"))),
        Absent::Size(bytes) => Some(json!(format_size(*bytes))),
        Absent::Rate(rate) => Some(json!(rate.to_string())),
        Absent::Text(text) => Some(json!(text)),
        Absent::Texts(texts) => Some(json!(texts)),
    }
}

fn value(kind: &Kind) -> Value {
    match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Number { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Time { .. } => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Kind::Percent { .. } => json!({ "type": "string", "pattern": "^[0-9]{1,3}%$" }),
        Kind::Size { .. } => json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }),
        Kind::Rate { .. } => {
            json!({ "type": "string", "pattern": "^[0-9]+/(s|m|h|[0-9]+(ms|s|m|h|d))$" })
        }
        Kind::Word(words) => json!({ "type": "string", "enum": words() }),
        Kind::Words(words) => {
            json!({ "type": "array", "minItems": 1, "items": { "type": "string", "enum": words() } })
        }
        Kind::Text(_) => json!({ "type": "string" }),
        Kind::Texts(_) => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Statuses => json!({ "type": "array", "minItems": 1, "items": { "oneOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
        ] } }),
        Kind::Headers => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" },
            "additionalProperties": { "type": "string" },
        }),
        Kind::Table(section) => table(section),
        Kind::FlagOrTable(section) => json!({ "oneOf": [{ "type": "boolean" }, table(section)] }),
        Kind::Tables(section) => json!({ "type": "array", "items": table(section) }),
        Kind::Named(section) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_.:-]{1,64}$" },
            "additionalProperties": table(section),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every object of the schema that describes a value.
    fn walk<'a>(schema: &'a Value, visit: &mut impl FnMut(&'a Value)) {
        visit(schema);
        let properties = schema["properties"]
            .as_object()
            .into_iter()
            .flat_map(|of| of.values());
        let inner = [
            &schema["items"],
            &schema["additionalProperties"],
            &schema["oneOf"][1],
        ];
        for child in properties.chain(inner).filter(|child| child.is_object()) {
            walk(child, visit);
        }
    }

    #[test]
    fn every_table_is_closed_and_every_key_has_words() {
        let schema = schema();
        let mut keys = 0;
        walk(&schema, &mut |of| {
            let Some(properties) = of["properties"].as_object() else {
                return;
            };
            assert_eq!(of["additionalProperties"], false);
            for (name, property) in properties {
                keys += 1;
                assert!(
                    property["description"]
                        .as_str()
                        .is_some_and(|doc| doc.len() > 10),
                    "{name}"
                );
            }
        });
        assert!(keys > 80, "{keys}");
    }

    #[test]
    fn editors_get_words_bounds_and_defaults() {
        let schema = schema();
        let pool = &schema["properties"]["pool"]["additionalProperties"]["properties"];
        assert_eq!(pool["balance"]["enum"][1], "least_conn");
        assert_eq!(pool["idle_timeout"]["default"], "1h");
        let backend = &pool["backend"]["items"];
        assert_eq!(backend["properties"]["weight"]["maximum"], 256);
        assert_eq!(backend["required"], json!(["address"]));
        assert_eq!(schema["required"], json!(["listener"]));
    }
}
