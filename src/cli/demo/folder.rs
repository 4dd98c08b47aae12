//! Files of the demo: its configuration and a certificate, in a folder that is removed with the
//! demo.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::node::Node;
use super::ports::Ports;

/// Template of the configuration; [`configuration`] fills its placeholders.
const TEMPLATE: &str = include_str!("balancer.toml");

/// Private folder; dropping it removes it.
pub(super) struct DemoFolder(PathBuf);

impl DemoFolder {
    /// Makes the folder and writes certificate and configuration into it.
    ///
    /// # Errors
    /// The folder or a file in it cannot be written.
    pub(super) fn create(
        ports: &Ports,
        nodes: &[Node],
        control: SocketAddr,
    ) -> io::Result<DemoFolder> {
        let name = format!("evenkeel-demo-{:08x}", fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        // Not recursive: a folder that is there already belongs to somebody else.
        DirBuilder::new().mode(0o700).create(&path)?;
        let folder = DemoFolder(path);
        folder.write_certificate()?;
        fs::write(folder.configuration(), configuration(ports, nodes, control))?;
        Ok(folder)
    }

    /// Path of the configuration file.
    pub(super) fn configuration(&self) -> PathBuf {
        self.0.join("balancer.toml")
    }

    /// Path of the certificate, for a client that verifies it.
    pub(super) fn certificate(&self) -> PathBuf {
        self.0.join("demo.crt")
    }

    fn write_certificate(&self) -> io::Result<()> {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        fs::write(self.certificate(), made.cert.pem())?;
        private(&self.0.join("demo.key"))?.write_all(made.signing_key.serialize_pem().as_bytes())
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn private(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Fills the addresses in.
fn configuration(ports: &Ports, nodes: &[Node], control: SocketAddr) -> String {
    let backends = |address: fn(&Node) -> String| -> String {
        let line = |node: &Node| {
            format!(
                "  {{ name = \"{}\", address = \"{}\" }},\n",
                node.name,
                address(node)
            )
        };
        nodes.iter().map(line).collect()
    };
    TEMPLATE
        .replace("{{secure}}", &ports.secure.to_string())
        .replace("{{plain}}", &ports.plain.to_string())
        .replace("{{raw}}", &ports.raw.to_string())
        .replace("{{admin}}", &ports.admin.to_string())
        .replace("{{control}}", &control.to_string())
        .replace("{{chat_backends}}", &backends(|node| node.web.to_string()))
        .replace("{{lines_backends}}", &backends(|node| node.raw.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[tokio::test]
    async fn its_configuration_is_valid_and_its_files_go_away_with_it() {
        let nodes = [
            Node::start("n1").await.unwrap(),
            Node::start("n2").await.unwrap(),
        ];
        let folder = DemoFolder::create(&Ports::any(), &nodes, nodes[0].web).unwrap();
        let file = folder.configuration();
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains("{{"));
        let config = config::parse(&text, &file).unwrap();
        assert_eq!(config.listeners.len(), 3);
        assert_eq!(config.pools["chat"].backends.len(), 2);
        drop(folder);
        assert!(!file.exists());
    }
}
