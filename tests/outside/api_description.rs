//! The description of the API against a running balancer: every field of every answer stands in
//! it, as it is there.

use serde_json::{Value, json};

use crate::clients::greeted;
use crate::harness::{Answer, Balancer};
use crate::nodes::Node;
use crate::settings::simple;

/// The description, and what of an answer differs from it.
struct Description(Value);

impl Description {
    async fn of(balancer: &Balancer) -> Description {
        let answer = balancer.get("/api/v1/openapi.json").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        Description(answer.json())
    }

    /// Checks an answer to this route.
    fn holds(&self, method: &str, path: &str, answer: &Answer) {
        let responses = &self.0["paths"][path][method]["responses"];
        let status = answer.status.to_string();
        let response = responses.get(&status).unwrap_or(&responses["default"]);
        let content = response["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("{method} {path} is not described"));
        let head = answer.head.to_ascii_lowercase();
        let described = content
            .iter()
            .find(|(kind, _)| head.contains(&format!("content-type: {kind}")));
        let (_, media) = described.unwrap_or_else(|| panic!("{method} {path}: {head}"));
        if media["schema"]["type"] == "string" {
            return;
        }
        let mut errors = Vec::new();
        self.compare(&media["schema"], &answer.json(), path, &mut errors);
        assert!(errors.is_empty(), "{method} {path} ({status}): {errors:#?}");
    }

    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(name) => self.0.pointer(name.trim_start_matches('#')).expect(name),
            None => schema,
        }
    }

    /// Compares a value with a schema. A field that the schema does not name is an error.
    fn compare(&self, schema: &Value, value: &Value, at: &str, errors: &mut Vec<String>) {
        let schema = self.resolve(schema);
        if let Some(choices) = schema["anyOf"].as_array() {
            let fits = |choice: &&Value| {
                let mut errors = Vec::new();
                self.compare(choice, value, at, &mut errors);
                errors.is_empty()
            };
            match choices
                .iter()
                .find(|choice| self.is_object(choice) == value.is_object())
            {
                Some(choice) if value.is_object() => self.compare(choice, value, at, errors),
                _ if choices.iter().any(|choice| fits(&choice)) => {}
                _ => errors.push(format!("{at}: {value} is none of {choices:?}")),
            }
            return;
        }
        if !has_type(schema, value) {
            errors.push(format!("{at}: {value} is no {}", schema["type"]));
        }
        match value {
            Value::Object(fields) => {
                for name in schema["required"].as_array().into_iter().flatten() {
                    let name = name.as_str().expect("a name");
                    if !fields.contains_key(name) {
                        errors.push(format!("{at}.{name} is missing"));
                    }
                }
                let is_open = schema
                    .get("additionalProperties")
                    .is_some_and(|it| *it != false);
                for (name, value) in fields {
                    let at = format!("{at}.{name}");
                    match schema["properties"].get(name) {
                        Some(schema) => self.compare(schema, value, &at, errors),
                        None if is_open || *schema == Value::Bool(true) => {}
                        None => errors.push(format!("{at} is not described")),
                    }
                }
            }
            Value::Array(items) => {
                for (place, item) in items.iter().enumerate() {
                    self.compare(&schema["items"], item, &format!("{at}[{place}]"), errors);
                }
            }
            _ => {}
        }
    }

    fn is_object(&self, schema: &Value) -> bool {
        self.resolve(schema)["type"] == "object"
    }
}

/// Whether a value is of the schema's type, where it has one.
fn has_type(schema: &Value, value: &Value) -> bool {
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => return true,
    };
    types.into_iter().any(|name| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    })
}

#[tokio::test]
async fn every_answer_is_as_it_is_described() {
    let node = Node::echo("n1").await;
    let keys = "check = { type = \"tcp\", interval = \"100ms\" }";
    let balancer = Balancer::start(&simple("tcp", keys, &[&node]));
    let description = Description::of(&balancer).await;
    let (_client, _) = greeted(balancer.address("main").await).await;
    for (path, real) in [
        ("/api/v1/", "/api/v1/"),
        ("/api/v1/status", "/api/v1/status"),
        ("/api/v1/configuration", "/api/v1/configuration"),
        ("/api/v1/configuration/plan", "/api/v1/configuration/plan"),
        ("/api/v1/openapi.json", "/api/v1/openapi.json"),
        ("/api/v1/listeners", "/api/v1/listeners"),
        ("/api/v1/pools", "/api/v1/pools"),
        ("/api/v1/pools/{pool}", "/api/v1/pools/nodes"),
        ("/api/v1/pools/{pool}", "/api/v1/pools/none"),
        (
            "/api/v1/pools/{pool}/backends/{backend}",
            "/api/v1/pools/nodes/backends/n1",
        ),
        ("/api/v1/connections", "/api/v1/connections?count=true"),
        ("/api/v1/connections", "/api/v1/connections?limit=0"),
        ("/api/v1/jobs", "/api/v1/jobs"),
        ("/api/v1/jobs/{id}", "/api/v1/jobs/7"),
        ("/login", "/login"),
        ("/healthz", "/healthz"),
        ("/readyz", "/readyz"),
        ("/metrics", "/metrics"),
    ] {
        description.holds("get", path, &balancer.get(real).await);
    }
    let configuration = std::fs::read_to_string(&balancer.config).expect("the file");
    let plan = json!({ "configuration": configuration }).to_string();
    let backend = "/api/v1/pools/{pool}/backends/{backend}";
    for (method, path, body) in [
        ("PUT", format!("{backend}/weight"), "{\"weight\": 3}"),
        ("PUT", format!("{backend}/weight"), "{\"weight\": 300}"),
        ("POST", format!("{backend}/drain"), "{\"rate\": \"1/m\"}"),
        ("POST", format!("{backend}/maint"), "{}"),
        ("POST", format!("{backend}/ready"), "{}"),
        (
            "POST",
            "/api/v1/listeners/{listener}/drain".into(),
            "{\"rate\": \"1/m\"}",
        ),
        ("POST", "/api/v1/listeners/{listener}/ready".into(), "{}"),
        ("POST", "/api/v1/pools/{pool}/discover/accept".into(), "{}"),
        ("POST", "/api/v1/plan".into(), plan.as_str()),
        (
            "POST",
            "/api/v1/plan".into(),
            "{\"configuration\": \"nonsense = 1\"}",
        ),
        ("POST", "/api/v1/reload".into(), "{}"),
        ("POST", "/api/v1/connections/move".into(), "{\"all\": true}"),
        (
            "POST",
            "/api/v1/connections/close".into(),
            "{\"filter\": {\"pool\": \"nodes\"}}",
        ),
        ("POST", "/api/v1/jobs/{id}/abort".into(), "{}"),
        ("DELETE", "/api/v1/connections/{id}".into(), "{}"),
        ("POST", "/login".into(), "{\"token\": \"any\"}"),
        ("POST", "/logout".into(), "{}"),
    ] {
        let names = [
            ("{pool}", "nodes"),
            ("{backend}", "n1"),
            ("{listener}", "main"),
            ("{id}", "1"),
        ];
        let real = names
            .iter()
            .fold(path.clone(), |path, (name, real)| path.replace(name, real));
        let answer = balancer.change(method, &real, body).await;
        description.holds(&method.to_ascii_lowercase(), &path, &answer);
    }
}

#[tokio::test]
async fn the_index_lists_what_is_described() {
    let node = Node::echo("n1").await;
    let balancer = Balancer::start(&simple("tcp", "", &[&node]));
    let description = Description::of(&balancer).await;
    let index = balancer.get("/api/v1/").await.json();
    let routes = index["routes"].as_array().expect("routes");
    assert!(routes.len() > 25, "{index}");
    for route in routes {
        let (method, path) = (
            route["method"].as_str().unwrap(),
            route["path"].as_str().unwrap(),
        );
        let described = &description.0["paths"][path][method.to_ascii_lowercase()];
        assert_eq!(described["summary"], route["about"], "{method} {path}");
    }
    let unknown = balancer.get("/api/v1/nothing").await;
    assert!(
        unknown.body.contains("GET /api/v1/pools/{pool}"),
        "{}",
        unknown.body
    );
    let problem = unknown.json();
    assert_eq!(
        (&problem["status"], &problem["title"], &problem["type"]),
        (&json!(404), &json!("Not Found"), &json!("about:blank"))
    );
    assert_eq!(problem["detail"], problem["error"]);
}
