//! Text that the demo prints: the addresses, and what to try.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use super::folder::DemoFolder;
use super::ports::USUAL;
use crate::cli::balancer::Balancer;
use crate::cli::failure::CommandError;
use crate::config::Bind;

/// Addresses that the demo has.
#[derive(Debug, Serialize)]
pub(super) struct Tour {
    page: String,
    secure_page: String,
    websocket: String,
    secure_websocket: String,
    tcp: SocketAddr,
    admin: String,
    config: PathBuf,
    certificate: PathBuf,
    /// Ports that are taken, each with the one used instead.
    #[serde(skip)]
    moved: Vec<(u16, u16)>,
}

impl Tour {
    /// # Errors
    /// A listener is missing, which the demo's own configuration rules out.
    pub(super) fn new(
        balancer: &Balancer,
        folder: &DemoFolder,
        usual_wanted: bool,
    ) -> Result<Tour, CommandError> {
        let secure = listener(balancer, "secure")?;
        let plain = listener(balancer, "plain")?;
        let raw = listener(balancer, "raw")?;
        let admin = tcp("admin", balancer.admin.local())?;
        let got = [secure, plain, raw, admin].map(|address| address.port());
        Ok(Tour {
            page: format!("http://{plain}/"),
            secure_page: format!("https://{secure}/"),
            websocket: format!("ws://{plain}/socket"),
            secure_websocket: format!("wss://{secure}/socket"),
            tcp: raw,
            admin: format!("http://{admin}"),
            config: folder.configuration(),
            certificate: folder.certificate(),
            moved: USUAL
                .into_iter()
                .zip(got)
                .filter(|(usual, got)| usual_wanted && usual != got)
                .collect(),
        })
    }

    /// Prints it on standard output, as text or as one line of JSON.
    ///
    /// # Errors
    /// Standard output is closed.
    pub(super) fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if json {
            serde_json::to_writer(&mut out, self)?;
            writeln!(out)?;
        } else {
            out.write_all(self.text().as_bytes())?;
        }
        out.flush()
    }

    fn text(&self) -> String {
        let Tour {
            page,
            secure_page,
            websocket,
            secure_websocket,
            tcp,
            admin,
            config,
            certificate,
            moved,
        } = self;
        let evenkeel = program();
        let (host, port) = (tcp.ip(), tcp.port());
        let drain = format!(
            "curl -X POST -H 'content-type: application/json' {admin}/api/v1/pools/chat/backends/n1"
        );
        let moved: String = moved
            .iter()
            .map(|(usual, got)| format!("  port {usual} is taken, {got} is used in its place\n"))
            .collect();
        let (config, certificate) = (config.display(), certificate.display());
        format!(
            "
Evenkeel demo: three echo nodes (n1, n2, n3) behind one balancer
{moved}
  page         {page}
  with TLS     {secure_page}  (its certificate is made for this run: {certificate})
  websocket    {websocket}
               {secure_websocket}
  raw tcp      {tcp}
  dashboard    {admin}/  (the admin endpoint: its API and `evenkeel status` ask there, too)
  config       {config}  (edit and save it: changes are applied at once)

Try
  the page, in several tabs of a browser: each gets a node; its buttons drain and kill nodes, and its sockets stay open
  curl {page}healthz
  curl --cacert {certificate} {secure_page}healthz
  bash -c 'exec 3<>/dev/tcp/{host}/{port}; echo hello >&3; head -1 <&3'
  {drain}/drain
  {drain}/ready
  {evenkeel} status --admin {admin}

Ctrl-C ends it.

"
        )
    }
}

fn listener(balancer: &Balancer, name: &str) -> Result<SocketAddr, CommandError> {
    let listeners = balancer.server.listeners();
    let found = listeners.into_iter().find(|listener| listener.name == name);
    tcp(name, found.map(|listener| listener.bind))
}

fn tcp(name: &str, bind: Option<Bind>) -> Result<SocketAddr, CommandError> {
    match bind {
        Some(Bind::Tcp(address)) => Ok(address),
        _ => Err(CommandError::Other(format!("{name} has no address"))),
    }
}

/// Returns the path of this program from the present folder.
fn program() -> String {
    let Ok(path) = env::current_exe() else {
        return "evenkeel".to_owned();
    };
    let folder = env::current_dir().unwrap_or_default();
    let short = match path.strip_prefix(folder) {
        Ok(below) => PathBuf::from(".").join(below),
        Err(_) => path,
    };
    short.display().to_string()
}
