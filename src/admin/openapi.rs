//! Description of the API in OpenAPI 3.1, made of the directory of routes and of the views' types.
//! `WRITE_REFERENCE=1` writes the file that the binary serves; without it the two are compared.

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use schemars::generate::{Contract, SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::body::EmptyBody;
use super::configuration::ReloadBody;
use super::directory::{OPENAPI, ROUTES, RouteEntry};
use super::drain::{DrainBody, FilterBody};
use super::filter::CONDITIONS;
use super::login::LoginBody;
use super::operate::WeightBody;
use super::plan::PlanBody;
use super::sessions::CSRF_HEADER;
use super::view::*;
use crate::relay::MAX_PAGE;

const FILE: &str = "docs/reference/openapi.json";

/// Schemas of what is sent and of what is answered.
struct Schemas {
    requests: SchemaGenerator,
    replies: SchemaGenerator,
}

/// Body, query and reply of a route.
#[derive(Default)]
struct Operation {
    body: Option<Value>,
    /// The body has fields that must be given.
    needs_body: bool,
    parameters: Vec<Value>,
    /// Status, media type and schema of the answer to a good request.
    reply: (&'static str, &'static str, Value),
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = contract;
    });
    settings.into_generator()
}

impl Schemas {
    fn new() -> Schemas {
        Schemas {
            requests: generator(Contract::Deserialize),
            replies: generator(Contract::Serialize),
        }
    }

    fn request<T: JsonSchema>(&mut self) -> Value {
        self.requests.subschema_for::<T>().to_value()
    }

    fn reply<T: JsonSchema>(&mut self) -> Value {
        self.replies.subschema_for::<T>().to_value()
    }

    /// A route that reads.
    fn read<T: JsonSchema>(&mut self) -> Operation {
        Operation {
            reply: ("200", "application/json", self.reply::<T>()),
            ..Operation::default()
        }
    }

    /// A route that takes `B`.
    fn change<B: JsonSchema, T: JsonSchema>(&mut self) -> Operation {
        Operation {
            body: Some(self.request::<B>()),
            needs_body: has_required_fields::<B>(),
            ..self.read::<T>()
        }
    }

    fn operation(&mut self, entry: &RouteEntry) -> Operation {
        let text = |kind| Operation {
            reply: ("200", kind, json!({ "type": "string" })),
            ..Operation::default()
        };
        match (entry.method, entry.path) {
            ("GET", "/healthz" | "/readyz") => text("text/plain"),
            ("GET", "/metrics") => text("text/plain"),
            ("GET", "/api/v1/events") => text("text/event-stream").with(events_query()),
            ("GET", "/api/v1/openapi.json") => self.read::<Map<String, Value>>(),
            ("GET", "/api/v1/") => self.read::<IndexView>(),
            ("GET", "/api/v1/status") => self.read::<StatusView>(),
            ("GET", "/api/v1/configuration") => self.read::<ConfigurationTextView>(),
            ("GET", "/api/v1/configuration/plan") => self.read::<PlanView>(),
            ("GET", "/api/v1/listeners") => self.read::<ListenersView>(),
            ("GET", "/api/v1/pools") => self.read::<PoolsView>(),
            ("GET", "/api/v1/pools/{pool}") => self.read::<PoolView>(),
            ("GET", "/api/v1/pools/{pool}/backends/{backend}") => self.read::<BackendView>(),
            ("GET", "/api/v1/connections") => self.read::<ConnectionsView>().with(page_query()),
            ("GET", "/api/v1/jobs") => self.read::<JobsView>(),
            ("GET", "/api/v1/jobs/{id}") => self.read::<JobView>(),
            ("GET", "/login") => self.read::<LoginView>(),
            ("POST", "/login") => self.change::<LoginBody, LoginView>(),
            ("POST", "/logout") => self.change::<EmptyBody, LoginView>(),
            ("DELETE", "/api/v1/connections/{id}") => self.change::<EmptyBody, ClosedView>(),
            ("POST", path) => self.post(path),
            ("PUT", "/api/v1/pools/{pool}/backends/{backend}/weight") => self
                .change::<WeightBody, OperatedView>()
                .with(local_query()),
            (method, path) => panic!("{method} {path} is not described"),
        }
    }

    fn post(&mut self, path: &str) -> Operation {
        let backend = path.strip_prefix("/api/v1/pools/{pool}/backends/{backend}/");
        let listener = path.strip_prefix("/api/v1/listeners/{listener}/");
        match (backend, listener) {
            (Some("drain"), _) => self
                .change::<DrainBody, OperatedView>()
                .with([wait_query(), local_query()].concat()),
            (Some("maint"), _) => self
                .change::<EmptyBody, OperatedView>()
                .with([wait_query(), local_query()].concat()),
            (Some("weight"), _) => self
                .change::<WeightBody, OperatedView>()
                .with(local_query()),
            (Some("ready"), _) => self.change::<EmptyBody, OperatedView>().with(local_query()),
            (_, Some("drain")) => self
                .change::<DrainBody, OperatedListenerView>()
                .with(wait_query()),
            (_, Some("ready")) => self.change::<EmptyBody, OperatedListenerView>(),
            _ => match path {
                "/api/v1/pools/{pool}/discover/accept" => self.change::<EmptyBody, AcceptedView>(),
                "/api/v1/connections/close" | "/api/v1/connections/move" => {
                    let mut job = self.change::<FilterBody, JobView>();
                    job.reply.0 = "202";
                    job
                }
                "/api/v1/jobs/{id}/abort" => self.change::<EmptyBody, JobView>(),
                "/api/v1/reload" => self.change::<ReloadBody, ReloadView>(),
                "/api/v1/plan" => self.change::<PlanBody, PlanView>(),
                "/api/v1/upgrade" => self.change::<EmptyBody, UpgradedView>(),
                path => panic!("POST {path} is not described"),
            },
        }
    }

    /// Schemas of the data of events, by the names of their types.
    fn events(&mut self) {
        self.reply::<HelloEvent>();
        self.reply::<LostEvent>();
        self.reply::<ProcessEvent>();
        self.reply::<BackendEvent>();
        self.reply::<CheckEvent>();
        self.reply::<PoolEvent>();
        self.reply::<DiscoveryEvent>();
        self.reply::<ListenerEvent>();
        self.reply::<GoneEvent>();
        self.reply::<ReloadEvent>();
        self.reply::<RefusalsEvent>();
        self.reply::<UpgradeEvent>();
        self.reply::<ClusterEvent>();
        self.reply::<RatesEvent>();
    }
}

impl Operation {
    fn with(self, parameters: Vec<Value>) -> Operation {
        Operation { parameters, ..self }
    }

    fn describe(self, entry: &RouteEntry, problem: &Value) -> Value {
        let (status, kind, schema) = self.reply;
        let mut parameters = path_parameters(entry.path);
        parameters.extend(self.parameters);
        let is_open = ["/healthz", "/readyz", "/login", "/logout"].contains(&entry.path);
        let mut description = json!({
            "operationId": operation_id(entry),
            "summary": entry.about,
            "parameters": parameters,
            "responses": {
                status: { "description": entry.about, "content": { kind: { "schema": schema } } },
                "default": {
                    "description": "What was wrong with the request",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
        });
        if entry.path == "/readyz" {
            let content = json!({ "text/plain": { "schema": { "type": "string" } } });
            let not_ready = json!({ "description": "Why not", "content": content });
            description["responses"]["503"] = not_ready;
        }
        if entry.path == "/metrics" {
            let other = json!({ "schema": { "type": "string" } });
            description["responses"]["200"]["content"]["application/openmetrics-text"] = other;
        }
        if is_open {
            description["security"] = json!([]);
        }
        if let Some(schema) = self.body {
            let content = json!({ "application/json": { "schema": schema } });
            // An empty body counts as an object without fields.
            let needs_body = self.needs_body;
            description["requestBody"] = json!({ "required": needs_body, "content": content });
            if !is_open {
                add(&mut description["parameters"], csrf_header());
            }
        }
        if ["/api/v1/configuration", OPENAPI].contains(&entry.path) {
            description["responses"]["304"] = json!({ "description": "As `If-None-Match` has it" });
            add(&mut description["parameters"], etag_header());
        }
        description
    }
}

/// Whether a body of this type cannot be empty.
fn has_required_fields<B: JsonSchema>() -> bool {
    let schema = generator(Contract::Deserialize).into_root_schema_for::<B>();
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|fields| !fields.is_empty())
}

fn add(parameters: &mut Value, parameter: Value) {
    parameters.as_array_mut().unwrap().push(parameter);
}

fn header(name: &str, about: &str) -> Value {
    let schema = json!({ "type": "string" });
    json!({ "name": name, "in": "header", "description": about, "schema": schema })
}

fn csrf_header() -> Value {
    let about = "`csrf` of the session; a bearer token needs none";
    header(CSRF_HEADER, about)
}

fn etag_header() -> Value {
    header("if-none-match", "`ETag` of what the client has")
}

fn operation_id(entry: &RouteEntry) -> String {
    let words = entry.path.trim_start_matches("/api/v1/").split(['/', '.']);
    let words = words.filter(|word| !word.is_empty() && !word.starts_with('{'));
    let mut id = entry.method.to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    if entry.path.ends_with('}') {
        id.push_str("_one");
    }
    id
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|word| word.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name| {
        let schema = match name {
            "id" => json!({ "type": "integer", "minimum": 0 }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

fn query(name: &str, about: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "query", "description": about, "schema": schema })
}

fn wait_query() -> Vec<Value> {
    let about = "Answer when no connection is left, or after this time: at most 1h";
    vec![query(
        "wait",
        about,
        json!({ "type": "string", "examples": ["60s"] }),
    )]
}

fn local_query() -> Vec<Value> {
    let about = "Set it on this balancer alone while the store of the cluster cannot be reached";
    vec![query("local", about, json!({ "type": "boolean" }))]
}

fn events_query() -> Vec<Value> {
    let words = "Types that are wanted, with commas between; all of them if absent";
    let last = header(
        "Last-Event-ID",
        "Id of the last event that was seen: the stream goes on behind it",
    );
    vec![
        query(
            "types",
            words,
            json!({ "type": "string", "examples": ["backend,job"] }),
        ),
        last,
    ]
}

fn page_query() -> Vec<Value> {
    let condition = |name: &&str| {
        query(
            name,
            "Only those that match",
            json!({ "type": "string", "minLength": 1 }),
        )
    };
    let mut parameters: Vec<Value> = CONDITIONS.iter().map(condition).collect();
    let orders = json!({ "type": "string", "enum": ["age", "idle", "bytes"] });
    parameters.push(query("sort", "The largest first; one page alone", orders));
    let limit = json!({ "type": "integer", "minimum": 1, "maximum": MAX_PAGE });
    parameters.push(query("limit", "Connections of the page", limit));
    let cursor = json!({ "type": "integer", "minimum": 0 });
    let count = "Count all that match, too";
    parameters.push(query("count", count, json!({ "type": "boolean" })));
    parameters.push(query("cursor", "`next` of the page before", cursor));
    parameters
}

fn description() -> Value {
    let mut schemas = Schemas::new();
    let problem = schemas.reply::<ErrorView>();
    schemas.events();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for entry in ROUTES {
        let operation = schemas.operation(entry).describe(entry, &problem);
        let methods = paths.entry(entry.path).or_default();
        methods.insert(entry.method.to_ascii_lowercase(), operation);
    }
    let mut all = schemas.replies.take_definitions(true);
    all.extend(schemas.requests.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Evenkeel admin API",
            "version": "1",
            "description": "See docs/reference/admin-api.md and docs/reference/events.md.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "session": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": all,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "evenkeel-PORT",
                    "description": "Set by POST /login, as __Host-evenkeel-PORT over TLS. Changes need x-csrf-token beside it.",
                },
            },
        },
    })
}

#[test]
fn the_description_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let made = serde_json::to_string_pretty(&description()).unwrap() + "\n";
    if std::env::var_os("WRITE_REFERENCE").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(
        written == made,
        "{FILE} is not what the code says: run this test with WRITE_REFERENCE=1"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own() {
    let mut names: Vec<String> = ROUTES.iter().map(operation_id).collect();
    names.sort();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "{names:?}");
}
