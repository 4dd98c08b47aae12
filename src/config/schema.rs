//! JSON schema of the configuration file (draft 2020-12), for editors: made from the declared keys.

use serde_json::{Map, Value, json};

use super::declare::Declared;
use super::spec::{KeySpec, TableSpec, ValueKind};
use super::tables::Config;

/// The schema; `balancer.schema.json` beside `balancer.toml` holds it.
pub fn schema() -> Value {
    let mut schema = table(Config::SPEC);
    if let Value::Object(members) = &mut schema {
        members.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        members.insert("title".to_owned(), json!("Evenkeel"));
    }
    schema
}

fn table(spec: &'static TableSpec) -> Value {
    let properties: Map<String, Value> = spec
        .all()
        .map(|key| (key.name.to_owned(), property(key)))
        .collect();
    let required = spec.all().filter(|key| key.is_required());
    json!({
        "type": "object",
        "description": spec.description(),
        "properties": properties,
        "required": required.map(|key| key.name).collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

fn property(key: &KeySpec) -> Value {
    let mut property = value(&key.kind);
    if let Value::Object(members) = &mut property {
        members.insert("description".to_owned(), json!(description(key)));
        if let Some(default) = key.default() {
            members.insert("default".to_owned(), default);
        }
    }
    property
}

/// Description of a key, and its allowed values where JSON has no form for them.
fn description(key: &KeySpec) -> String {
    let doc = key.description();
    match key.kind {
        ValueKind::Text(_)
        | ValueKind::Texts(_)
        | ValueKind::Time { .. }
        | ValueKind::Percent { .. }
        | ValueKind::Size { .. }
        | ValueKind::Rate => {
            format!("{doc} Allowed: {}.", key.kind.allowed())
        }
        _ => doc,
    }
}

fn value(kind: &ValueKind) -> Value {
    match kind {
        ValueKind::Flag => json!({ "type": "boolean" }),
        ValueKind::Number { min, max } => {
            json!({ "type": "integer", "minimum": min, "maximum": max })
        }
        ValueKind::Time { .. } => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        ValueKind::Percent { .. } => json!({ "type": "string", "pattern": "^[0-9]{1,3}%$" }),
        ValueKind::Size { .. } => json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" }),
        ValueKind::Rate => {
            json!({ "type": "string", "pattern": "^[0-9]+/(s|m|h|[0-9]+(ms|s|m|h|d))$" })
        }
        ValueKind::Word(words) => json!({ "type": "string", "enum": words() }),
        ValueKind::Words(words) => {
            json!({ "type": "array", "minItems": 1, "items": { "type": "string", "enum": words() } })
        }
        ValueKind::Text(_) => json!({ "type": "string" }),
        ValueKind::Texts(_) => json!({ "type": "array", "items": { "type": "string" } }),
        ValueKind::Statuses => json!({ "type": "array", "minItems": 1, "items": { "oneOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$" },
        ] } }),
        ValueKind::Headers => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$" },
            "additionalProperties": { "type": "string" },
        }),
        ValueKind::Table(spec) | ValueKind::Inline(spec) => table(spec),
        ValueKind::FlagOrTable(spec) => json!({ "oneOf": [{ "type": "boolean" }, table(spec)] }),
        ValueKind::Tables(spec) => json!({ "type": "array", "items": table(spec) }),
        ValueKind::Named(spec) => json!({
            "type": "object",
            "propertyNames": { "pattern": "^[A-Za-z0-9_.:-]{1,64}$" },
            "additionalProperties": table(spec),
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
