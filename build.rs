//! Records in the binary from which commit, for which target and with which TLS libraries it is
//! built, and puts the files of the dashboard and the description of the API into it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Names the commit where there is no git: `packaging/build` sets it.
const COMMIT: &str = "EVENKEEL_COMMIT";
/// Says `static` where only the last link is: `packaging/build` sets it.
const LINKAGE: &str = "EVENKEEL_LINKAGE";

/// The API in OpenAPI; made by a test of `src/admin/openapi.rs`.
const DESCRIPTION: &str = "docs/reference/openapi.json";
/// Built files of the dashboard.
const DASHBOARD: &str = "dashboard/dist";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=Cargo.lock");
    println!("cargo:rerun-if-env-changed={COMMIT}");
    println!("cargo:rerun-if-env-changed={LINKAGE}");
    let lock = std::fs::read_to_string("Cargo.lock").unwrap_or_default();
    record(COMMIT, &commit());
    record("EVENKEEL_TARGET", &target());
    record("EVENKEEL_RUSTLS", locked(&lock, "rustls"));
    record("EVENKEEL_AWS_LC_RS", locked(&lock, "aws-lc-rs"));
    record("EVENKEEL_AWS_LC_SYS", locked(&lock, "aws-lc-sys"));
    if let Err(error) = embed() {
        println!("cargo::error={DASHBOARD} and {DESCRIPTION}: {error}");
    }
}

/// Packs the files of the dashboard and the description of the API, and lists them as
/// `src/admin/embedded.rs` includes them.
fn embed() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed={DASHBOARD}");
    println!("cargo:rerun-if-changed={DESCRIPTION}");
    let target = PathBuf::from(variable("OUT_DIR").unwrap_or_default());
    let mut files = files_below(Path::new(DASHBOARD))?;
    files.sort();
    let mut list = String::from("const FILES: &[(&str, &[u8])] = &[\n");
    for (number, file) in files.iter().enumerate() {
        let packed = target.join(format!("file{number}.gz"));
        std::fs::write(&packed, pack(&std::fs::read(file)?)?)?;
        let name = file.strip_prefix(DASHBOARD).unwrap_or(file);
        list += &format!("    ({name:?}, include_bytes!({packed:?})),\n");
    }
    // Without its indents.
    let description = std::fs::read_to_string(DESCRIPTION)?;
    let description: String = description.lines().map(str::trim_start).collect();
    let packed = target.join("openapi.gz");
    std::fs::write(&packed, pack(description.as_bytes())?)?;
    list += &format!("];\nconst DESCRIPTION: &[u8] = include_bytes!({packed:?});\n");
    std::fs::write(target.join("embedded.rs"), list)
}

/// Packs without a time or a name: the same bytes every time.
fn pack(contents: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(contents)?;
    packer.finish()
}

fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

fn record(name: &str, value: &str) {
    println!("cargo:rustc-env={name}={value}");
}

fn commit() -> String {
    if let Some(given) = variable(COMMIT) {
        return given;
    }
    // A debug build would be compiled anew after every commit.
    if variable("PROFILE").as_deref() != Some("release") {
        return "not recorded (debug build)".to_owned();
    }
    from_git().unwrap_or_else(|| "unknown".to_owned())
}

/// The commit of this checkout, and not that of a repository which this folder happens to be in.
fn from_git() -> Option<String> {
    Path::new(".git").exists().then_some(())?;
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    for moved in ["HEAD", "logs/HEAD"] {
        let file = git(&["rev-parse", "--git-path", moved])?;
        if Path::new(&file).exists() {
            println!("cargo:rerun-if-changed={file}");
        }
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn target() -> String {
    let target = variable("TARGET").unwrap_or_default();
    let features = variable("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let is_static = features.split(',').any(|feature| feature == "crt-static")
        || variable(LINKAGE).as_deref() == Some("static");
    if is_static {
        format!("{target} (static)")
    } else {
        target
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The version of a package in Cargo.lock.
fn locked<'a>(lock: &'a str, package: &str) -> &'a str {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines
        .nth(1)
        .and_then(|line| line.strip_prefix("version = "));
    version.map_or("unknown", |quoted| quoted.trim_matches('"'))
}
