//! The balancers: where they are, how each is configured and started. The configurations are the files in `peers/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cases::Door;
use super::certificate::Certificate;
use super::child::Group;
use crate::options::Options;
use crate::plan::Services;

/// Debian's folder of nginx modules; a build with `--with-stream` needs none.
const NGINX_STREAM_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Evenkeel,
    /// No balancer: the load speaks to the backend.
    Direct,
    Haproxy,
    Nginx,
    Envoy,
}

/// One balancer that takes part.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    pub kind: Kind,
    program: PathBuf,
    /// What it says about itself, one line.
    pub version: String,
}

/// Where a balancer listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub tcp: u16,
    pub tls: u16,
    pub websocket: u16,
    pub websocket_tls: u16,
    pub http: u16,
    pub bulk: u16,
    pub bulk_tls: u16,
    /// Not the balancer's: where its checks go.
    pub checked: u16,
}

/// The wanted balancers that are installed; says on standard error what is not.
pub fn find(options: &Options) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for name in &options.peers {
        let (kind, program, name) = known(name, options)?;
        peers.extend(Peer::look(kind, program, name));
    }
    if let Some(baseline) = &options.baseline {
        peers.extend(Peer::look(Kind::Evenkeel, baseline.clone(), "baseline"));
    }
    peers.push(Peer {
        name: "direct",
        kind: Kind::Direct,
        program: PathBuf::new(),
        version: String::new(),
    });
    Ok(peers)
}

fn known(name: &str, options: &Options) -> Result<(Kind, PathBuf, &'static str)> {
    Ok(match name {
        "evenkeel" => (Kind::Evenkeel, options.evenkeel.clone(), "evenkeel"),
        "haproxy" => (Kind::Haproxy, "haproxy".into(), "haproxy"),
        "nginx" => (Kind::Nginx, "nginx".into(), "nginx"),
        "envoy" => (Kind::Envoy, options.envoy.clone(), "envoy"),
        other => bail!("unknown peer {other:?}: allowed are evenkeel, haproxy, nginx and envoy"),
    })
}

impl Peer {
    fn look(kind: Kind, program: PathBuf, name: &'static str) -> Option<Self> {
        let argument = match kind {
            Kind::Evenkeel | Kind::Envoy => "--version",
            Kind::Haproxy | Kind::Nginx | Kind::Direct => "-v",
        };
        // Where an unprivileged user's PATH does not lead, but Debian installs both.
        let places = [program.clone(), Path::new("/usr/sbin").join(&program)];
        for program in places {
            let Ok(output) = Command::new(&program).arg(argument).output() else {
                continue;
            };
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let version = said.lines().find(|line| !line.trim().is_empty());
            return Some(Self {
                name,
                kind,
                program,
                version: tidy(version.unwrap_or("?")).to_owned(),
            });
        }
        eprintln!(
            "compare: {name} takes no part: {} was not found",
            program.display()
        );
        None
    }

    /// Starts it with a configuration of its own in `folder`.
    pub fn start(
        &self,
        door: Door,
        folder: &Path,
        core: usize,
        ports: Ports,
        services: &Services,
        tls: &Certificate,
    ) -> Result<Group> {
        let (file, template) = match self.kind {
            Kind::Evenkeel if matches!(door, Door::WebsocketAll) => (
                "evenkeel-all.toml",
                include_str!("../peers/evenkeel-all.toml"),
            ),
            Kind::Evenkeel if door.is_of_checks() => (
                "evenkeel-checks.toml",
                include_str!("../peers/evenkeel-checks.toml"),
            ),
            Kind::Haproxy if door.is_of_checks() => (
                "haproxy-checks.cfg",
                include_str!("../peers/haproxy-checks.cfg"),
            ),
            Kind::Evenkeel if matches!(door, Door::Many(..)) => (
                "evenkeel-many.toml",
                include_str!("../peers/evenkeel-many.toml"),
            ),
            Kind::Haproxy if matches!(door, Door::Many(..)) => (
                "haproxy-many.cfg",
                include_str!("../peers/haproxy-many.cfg"),
            ),
            Kind::Evenkeel => ("evenkeel.toml", include_str!("../peers/evenkeel.toml")),
            Kind::Haproxy => ("haproxy.cfg", include_str!("../peers/haproxy.cfg")),
            Kind::Nginx => ("nginx.conf", include_str!("../peers/nginx.conf")),
            Kind::Envoy => ("envoy.yaml", include_str!("../peers/envoy.yaml")),
            Kind::Direct => bail!("nothing to start"),
        };
        let path = folder.join(file);
        let template = with_backends(template, self.kind, door, services.echo.port());
        let text = fill(&template, folder, ports, services, tls);
        fs::write(&path, fill_checks(&text, self.kind, door, ports.checked))
            .with_context(|| path.display().to_string())?;
        let log = folder.join(format!("{}.log", self.name));
        Group::pinned(core, &self.program, &self.arguments(&path, folder), &log)
    }

    fn arguments(&self, file: &Path, folder: &Path) -> Vec<String> {
        let (file, folder) = (file.display().to_string(), folder.display().to_string());
        let line = match self.kind {
            Kind::Evenkeel => vec!["run", "--config", &file],
            Kind::Haproxy => vec!["-db", "-f", &file],
            Kind::Nginx => vec!["-p", &folder, "-c", &file, "-e", "nginx-error.log"],
            Kind::Envoy => vec![
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "warning",
                "-c",
                &file,
            ],
            Kind::Direct => vec![],
        };
        line.into_iter().map(str::to_owned).collect()
    }
}

/// The version without the program's path before it and the project's address behind it.
fn tidy(version: &str) -> &str {
    let version = version
        .split_once("version")
        .map_or(version, |(_, rest)| rest);
    let version = version.split(" - ").next().unwrap_or(version);
    version.trim_start_matches([':', ' ']).trim()
}

/// Backends of the cases of checks.
const CHECKED: usize = 100;

/// Puts the kind of check and the backends that have it into a template of checks.
fn fill_checks(template: &str, kind: Kind, door: Door, port: u16) -> String {
    let check = match (kind, door) {
        (Kind::Haproxy, Door::HttpChecks) => {
            "option httpchk\n    http-check send meth GET uri /status ver HTTP/1.1 hdr Host localhost"
        }
        (Kind::Haproxy, _) => "",
        (_, Door::HttpChecks) => "type = \"http\", path = \"/status\", host = \"localhost\"",
        (_, _) => "type = \"tcp\"",
    };
    let all = |one: &dyn Fn(usize) -> String, between: &str| {
        let all: Vec<String> = (0..CHECKED).map(one).collect();
        all.join(between)
    };
    let backend = |at| format!("{{ name = \"b{at}\", address = \"127.0.0.1:{port}\" }}");
    let server = |at| format!("    server b{at} 127.0.0.1:{port}");
    template
        .replace("@CHECK@", check)
        .replace("@CHECKED_BACKENDS@", &all(&backend, ", "))
        .replace("@CHECKED_SERVERS@", &all(&server, "\n"))
}

/// Puts the backends of a pool of many into a template.
fn with_backends(template: &str, kind: Kind, door: Door, port: u16) -> String {
    let Door::Many(algorithm, count) = door else {
        return template.to_owned();
    };
    let (word, line): (_, fn(usize, u16) -> String) = match kind {
        Kind::Haproxy => (algorithm.of_haproxy(), |n, port| {
            format!("    server b{n} 127.0.0.1:{port}\n")
        }),
        _ => (algorithm.of_evenkeel(), |n, port| {
            format!("    {{ name = \"b{n}\", address = \"127.0.0.1:{port}\" }},\n")
        }),
    };
    let backends: String = (0..count).map(|n| line(n, port)).collect();
    let template = template.replace("@ALGORITHM@", word);
    template.replace("@BACKENDS@", backends.trim_end())
}

/// Puts the run's addresses and files into a template: `@NAME@` stands for each.
fn fill(
    template: &str,
    folder: &Path,
    ports: Ports,
    services: &Services,
    tls: &Certificate,
) -> String {
    let module = match Path::new(NGINX_STREAM_MODULE).exists() {
        true => format!("load_module {NGINX_STREAM_MODULE};"),
        false => String::new(),
    };
    let values = [
        ("@TCP@", ports.tcp.to_string()),
        ("@TLS@", ports.tls.to_string()),
        ("@WEBSOCKET@", ports.websocket.to_string()),
        ("@WEBSOCKET_TLS@", ports.websocket_tls.to_string()),
        ("@HTTP@", ports.http.to_string()),
        ("@BULK@", ports.bulk.to_string()),
        ("@BULK_TLS@", ports.bulk_tls.to_string()),
        ("@ECHO_BACKEND@", services.echo.port().to_string()),
        ("@WEBSOCKET_BACKEND@", services.websocket.port().to_string()),
        ("@HTTP_BACKEND@", services.http.port().to_string()),
        ("@BULK_BACKEND@", services.bulk.port().to_string()),
        ("@CERTIFICATE@", tls.certificate.display().to_string()),
        ("@KEY@", tls.key.display().to_string()),
        ("@BOTH@", tls.both.display().to_string()),
        ("@FOLDER@", folder.display().to_string()),
        ("@STREAM_MODULE@", module),
    ];
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(name, value)
        })
}
