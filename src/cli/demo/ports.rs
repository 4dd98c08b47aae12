//! Addresses of the demo: well-known ports where they are free, else any free ones.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Well-known ports: TLS, plain, raw, admin.
pub(super) const USUAL: [u16; 4] = [8443, 8080, 9000, 9900];

/// Addresses to bind; port 0 leaves the choice to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    /// WebSocket over TLS.
    pub secure: SocketAddr,
    /// WebSocket.
    pub plain: SocketAddr,
    /// Raw TCP.
    pub raw: SocketAddr,
    pub admin: SocketAddr,
}

impl Ports {
    /// Takes any free ports: several demos and tests run side by side.
    pub(super) fn any() -> Ports {
        Ports::choose(|_| false)
    }

    /// Takes the well-known ports that are free.
    pub(super) fn usual() -> Ports {
        Ports::choose(|address| TcpListener::bind(address).is_ok())
    }

    fn choose(free: impl Fn(SocketAddr) -> bool) -> Ports {
        let choose = |port: u16| {
            let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            if free(wanted) { wanted } else { any }
        };
        let [secure, plain, raw, admin] = USUAL.map(choose);
        Ports {
            secure,
            plain,
            raw,
            admin,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_taken_port_is_given_up() {
        let ports = Ports::choose(|address| address.port() != 8080);
        assert_eq!(ports.secure.port(), 8443);
        assert_eq!(ports.plain.port(), 0);
        assert_eq!(ports.raw.port(), 9000);
        assert_eq!(ports.admin.port(), 9900);
    }
}
