//! Address of the admin endpoint and access to it: from the command line, else from the
//! configuration file.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::Args;

use super::trust::Trust;
use crate::admin::is_local;
use crate::cli::failure::CommandError;
use crate::config::{self, Admin, AdminRole, Bind};

/// Address of the endpoint when nothing else is given.
pub(super) const DEFAULT_ADMIN: &str = "127.0.0.1:9900";

#[derive(Debug, Clone, PartialEq)]
pub(super) struct AdminTarget {
    pub address: Bind,
    /// Name of the host, where one was given.
    pub name: Option<String>,
    pub token: Option<String>,
    /// TLS; `None`: plain.
    pub tls: Option<Trust>,
    /// Source of the address, for messages.
    pub origin: String,
}

/// Arguments that name an endpoint. Without a scheme it is https off loopback.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct TargetArguments {
    /// Admin endpoint: HOST:PORT, unix:/path, or a URL [default: the configuration's, else
    /// 127.0.0.1:9900]
    #[arg(long, value_name = "ADDRESS", env = "EVENKEEL_ADMIN")]
    pub admin: Option<String>,
    /// File with the endpoint's token [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file of roots for an https:// endpoint [default: the system's]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

impl fmt::Display for AdminTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (from {})", self.address, self.origin)
    }
}

impl AdminTarget {
    /// Finds the endpoint. The command line has precedence over the file; a file that cannot be
    /// used matters only where it is needed.
    ///
    /// # Errors
    /// An address or a token cannot be read, the file has no `[admin]`, or the token would be sent
    /// over a network in clear text.
    pub(super) fn find(
        given: &TargetArguments,
        config: Option<&Path>,
    ) -> Result<AdminTarget, CommandError> {
        let mut target = match (&given.admin, config) {
            (Some(address), _) => AdminTarget::parse(address)?,
            (None, Some(file)) => AdminTarget::configured(file)?,
            (None, None) => AdminTarget {
                origin: "the default".into(),
                ..AdminTarget::parse(DEFAULT_ADMIN)?
            },
        };
        if let Some(file) = &given.token_file {
            target.token = Some(read_token(file)?);
        }
        if let (Some(ca), Some(_)) = (&given.ca, &target.tls) {
            target.tls = Some(Trust::Roots(ca.to_owned()));
        }
        if target.token.is_some() && target.tls.is_none() && !is_local(&target.address) {
            return Err(CommandError::Usage(format!(
                "{} is not on this host, and by http:// the token would go there in clear text; give https://{0}",
                target.address
            )));
        }
        Ok(target)
    }

    fn parse(text: &str) -> Result<AdminTarget, CommandError> {
        let (address, scheme) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), address)) => (address, Some(scheme)),
            Some((scheme, _)) => {
                return Err(CommandError::Usage(format!(
                    "--admin {text:?}: unknown scheme {scheme:?}; allowed: http, https"
                )));
            }
            None => (text, None),
        };
        let address = address.trim_end_matches('/');
        let (address, name) = parse_address(address).map_err(|why| {
            let port = address.rsplit_once(':').map(|(_, port)| port);
            if port.is_some_and(|port| port.parse::<u16>().is_ok()) {
                // A name that is not found is no wrong usage.
                return CommandError::Other(format!("--admin {text:?}: {why}"));
            }
            CommandError::Usage(format!(
                "--admin {text:?} is not HOST:PORT, unix:/path or a URL: {why}"
            ))
        })?;
        let is_tls = match scheme {
            Some(scheme) => scheme == "https",
            // An endpoint off loopback has TLS.
            None => !is_local(&address),
        };
        Ok(AdminTarget {
            address,
            name,
            token: None,
            tls: is_tls.then_some(Trust::System),
            origin: "--admin".into(),
        })
    }

    fn configured(file: &Path) -> Result<AdminTarget, CommandError> {
        let shown = file.display();
        let text = read(file)?;
        let admin = match config::parse(&text, file) {
            Ok(config) => config.admin,
            // The running balancer has an earlier state of the file; its endpoint is most likely
            // the same.
            Err(errors) => {
                let admin = config::admin_alone(&text, file).ok_or(errors)?;
                eprintln!(
                    "evenkeel: {shown} has errors (evenkeel check shows them); only its [admin] is used"
                );
                Some(admin)
            }
        };
        let Some(admin) = admin else {
            return Err(CommandError::Other(format!(
                "{shown} has no [admin], so there is no endpoint to talk to; give --admin if there is one"
            )));
        };
        Ok(AdminTarget {
            token: own_token(&admin)?,
            address: reachable(admin.bind),
            name: None,
            tls: admin.tls.map(|certificate| Trust::Pinned(certificate.cert)),
            origin: format!("{shown}"),
        })
    }
}

/// Parses an address, with the host's name, if it has one.
fn parse_address(text: &str) -> Result<(Bind, Option<String>), String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok((Bind::Unix(path.into()), None));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok((Bind::Tcp(address), None));
    }
    let (name, _) = text.split_once(':').ok_or("the port is missing")?;
    let found = text.to_socket_addrs().map_err(|error| error.to_string())?;
    let address = found.into_iter().next().ok_or("the name has no address")?;
    Ok((Bind::Tcp(address), Some(name.to_owned())))
}

/// Returns the address to ask at: loopback, for an endpoint bound to every address.
pub(super) fn reachable(bind: Bind) -> Bind {
    match bind {
        Bind::Tcp(address) if address.ip().is_unspecified() => {
            let loopback: std::net::IpAddr = match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            Bind::Tcp(SocketAddr::new(loopback, address.port()))
        }
        other => other,
    }
}

/// Returns the token with the most rights that this user can read.
fn own_token(admin: &Admin) -> Result<Option<String>, CommandError> {
    let mut tokens: Vec<_> = admin.tokens.iter().collect();
    tokens.sort_by_key(|token| (token.role == AdminRole::Read, token.backend.is_some()));
    let files = admin.token_file.iter();
    let files = files.chain(tokens.iter().map(|token| &token.file));
    let mut refused = Ok(None);
    for file in files {
        match read_token(file) {
            Ok(token) => return Ok(Some(token)),
            Err(failure) => refused = refused.and(Err(failure)),
        }
    }
    refused
}

fn read_token(file: &Path) -> Result<String, CommandError> {
    match read(file)?.trim() {
        "" => Err(CommandError::Other(format!("{} is empty", file.display()))),
        token => Ok(token.to_owned()),
    }
}

fn read(file: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(file)
        .map_err(|error| CommandError::Other(format!("read {}: {error}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(admin: &str) -> AdminTarget {
        let given = TargetArguments {
            admin: Some(admin.into()),
            ..TargetArguments::default()
        };
        AdminTarget::find(&given, None).unwrap()
    }

    fn configured(file: &Path) -> Result<AdminTarget, CommandError> {
        AdminTarget::find(&TargetArguments::default(), Some(file))
    }

    #[test]
    fn an_address_is_host_and_port_a_unix_path_or_a_url() {
        let local = Bind::Tcp(([127, 0, 0, 1], 9900).into());
        assert_eq!(target("127.0.0.1:9900").address, local);
        assert_eq!(target("localhost:9900").name.as_deref(), Some("localhost"));
        assert_eq!(target("http://127.0.0.1:9900/").address, local);
        assert_eq!(target("127.0.0.1:9900").tls, None);
        assert_eq!(target("https://127.0.0.1:9900").tls, Some(Trust::System));
        assert_eq!(
            target("unix:/run/a.sock").address,
            Bind::Unix("/run/a.sock".into())
        );
    }

    #[test]
    fn off_loopback_it_is_https_and_no_token_goes_there_in_clear_text() {
        assert_eq!(target("192.0.2.1:9900").tls, Some(Trust::System));
        assert_eq!(target("http://192.0.2.1:9900").tls, None);
        assert_eq!(target("[::ffff:127.0.0.1]:9900").tls, None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let find = |admin: &str| {
            let given = TargetArguments {
                admin: Some(admin.into()),
                token_file: Some(file.clone()),
                ..TargetArguments::default()
            };
            AdminTarget::find(&given, None)
        };
        let error = find("http://192.0.2.1:9900").unwrap_err();
        assert!(matches!(error, CommandError::Usage(_)), "{error}");
        let error = error.to_string();
        assert!(error.contains("https://192.0.2.1:9900"), "{error}");
        for right in [
            "192.0.2.1:9900",
            "https://192.0.2.1:9900",
            "http://127.0.0.1:9900",
            "http://[::1]:9900",
            "unix:/run/a.sock",
        ] {
            assert!(find(right).unwrap().token.is_some(), "{right}");
        }
    }

    #[test]
    fn what_is_no_address_is_an_error_that_shows_it() {
        for bad in ["9900", "localhost", "ftp://127.0.0.1:1", "127.0.0.1:99999"] {
            let given = TargetArguments {
                admin: Some(bad.into()),
                ..TargetArguments::default()
            };
            let error = AdminTarget::find(&given, None).unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[test]
    fn a_broken_file_still_tells_its_admin_endpoint() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        let admin = "[admin]\nbind = \"127.0.0.1:9911\"\n";
        for broken in ["[[listener]]\nprotcol = 3\n", "[pool.x\n", ""] {
            std::fs::write(&file, format!("{admin}{broken}")).unwrap();
            let target = configured(&file).unwrap();
            assert_eq!(target.address.to_string(), "127.0.0.1:9911");
        }
    }

    #[test]
    fn a_named_file_that_is_not_there_is_an_error() {
        let file = Path::new("/nowhere/balancer.toml");
        let error = configured(file).unwrap_err().to_string();
        assert!(error.contains("/nowhere/balancer.toml"), "{error}");
    }

    #[test]
    fn without_anything_it_is_the_default() {
        let target = AdminTarget::find(&TargetArguments::default(), None).unwrap();
        assert_eq!(target.address.to_string(), DEFAULT_ADMIN);
    }

    #[test]
    fn the_token_file_is_read_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        let given = TargetArguments {
            token_file: Some(file),
            ..TargetArguments::default()
        };
        assert_eq!(
            AdminTarget::find(&given, None).unwrap().token.as_deref(),
            Some("s3cret")
        );
    }

    #[test]
    fn an_empty_token_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, " \n").unwrap();
        let given = TargetArguments {
            token_file: Some(file.clone()),
            ..TargetArguments::default()
        };
        let error = AdminTarget::find(&given, None);
        let said = error.unwrap_err().to_string();
        assert_eq!(said, format!("{} is empty", file.display()));
    }

    #[test]
    fn of_the_tokens_in_the_file_the_mightiest_that_can_be_read_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("balancer.toml");
        let token = |name: &str, keys: &str| {
            format!("[[admin.token]]\nname = \"{name}\"\nfile = \"{name}.token\"\n{keys}\n")
        };
        let text = "[admin]\nbind = \"127.0.0.1:9911\"\n".to_owned()
            + &token("eyes", "role = \"read\"")
            + &token("node", "role = \"operate\"\nbackend = \"p/n\"")
            + &token("hands", "role = \"operate\"");
        std::fs::write(&file, text).unwrap();
        let find = || configured(&file);
        assert!(find().is_err(), "none can be read");
        for name in ["eyes", "node", "hands"] {
            std::fs::write(folder.path().join(format!("{name}.token")), name).unwrap();
            assert_eq!(find().unwrap().token.as_deref(), Some(name));
        }
    }

    #[test]
    fn an_endpoint_on_every_address_is_asked_on_loopback() {
        let asked = reachable(Bind::Tcp("[::]:1".parse().unwrap()));
        assert_eq!(asked.to_string(), "[::1]:1");
    }
}
