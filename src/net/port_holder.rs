//! The process that listens at an address of this machine, as `ss -ltnp` shows it, from `/proc`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Bind;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortHolder {
    pub pid: u32,
    /// Name of the program, cut at 15 bytes by the kernel.
    pub name: String,
}

/// State `TCP_LISTEN` (net/tcp_states.h).
const LISTENS: &str = "0A";

/// Finds the process whose socket is in the way of `address`. `None`: there is none, or it is
/// another user's.
pub(crate) fn find_port_holder(address: SocketAddr) -> Option<PortHolder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok());
    let inodes: Vec<String> = tables
        .flat_map(|table| listening(&table, address))
        .collect();
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid: u32 = pids.find(|pid| holds(*pid, &links))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(PortHolder {
        pid,
        name: name.trim_end().to_owned(),
    })
}

/// Inodes of the listening sockets of a table that are in the way of `address`.
fn listening(table: &str, address: SocketAddr) -> Vec<String> {
    let wanted = Bind::Tcp(address);
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, LISTENS, _, _, _, _, _, inode, ..] = fields[..] else {
            return None;
        };
        let local = Bind::Tcp(read_address(local)?);
        wanted.overlaps(&local).then(|| inode.to_owned())
    };
    table.lines().filter_map(inode).collect()
}

/// `0100007F:1F90`: each four bytes as the machine's own number, then the port.
fn read_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word)
            .ok()
            .filter(|word| word.len() == 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    });
    let words: Vec<[u8; 4]> = words.collect::<Option<_>>()?;
    let ip: IpAddr = match words[..] {
        [v4] => Ipv4Addr::from(v4).into(),
        [..] => Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into(),
    };
    Some(SocketAddr::new(ip, port))
}

fn holds(pid: u32, links: &[String]) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let mut targets = descriptors
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_this_process_is_found_from_each_address_that_it_blocks() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in ["127.0.0.1", "0.0.0.0", "::"] {
            let address = SocketAddr::new(ip.parse().unwrap(), port);
            let found = find_port_holder(address).map(|holder| holder.pid);
            assert_eq!(found, Some(std::process::id()), "{ip}");
        }
        drop(listener);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        if cfg!(target_endian = "little") {
            let read = |text: &str| read_address(text).unwrap().to_string();
            assert_eq!(read("0100007F:1F90"), "127.0.0.1:8080");
            assert_eq!(read("00000000000000000000000001000000:0050"), "[::1]:80");
        }
        assert_eq!(read_address("0100007F"), None);
        assert_eq!(read_address("01:0050"), None);
    }
}
