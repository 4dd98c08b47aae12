//! No two endpoints of one file on the same address: the kernel would refuse the second at start.

use std::net::{IpAddr, SocketAddr};

use super::super::error::Fault;
use super::super::model::Bind;
use super::super::table::Table;

/// Notes every endpoint whose `bind` overlaps an earlier one's.
pub fn refuse_overlaps<'a>(endpoints: impl Iterator<Item = &'a Table<'a>>) {
    let mut taken: Vec<Bind> = Vec::new();
    for endpoint in endpoints {
        let Some(entry) = endpoint.entry("bind").filter(|entry| entry.is_string()) else {
            continue;
        };
        let Some(bind) = entry.string().and_then(|text| text.parse::<Bind>().ok()) else {
            continue;
        };
        if let Some(other) = taken.iter().find(|other| overlap(other, &bind)) {
            entry.refuse(
                Fault::Conflict,
                &format!("{bind} cannot be bound beside {other}, which stands before it"),
            );
        }
        taken.push(bind);
    }
}

fn overlap(a: &Bind, b: &Bind) -> bool {
    match (a, b) {
        (Bind::Unix(a), Bind::Unix(b)) => a == b,
        (Bind::Tcp(a), Bind::Tcp(b)) => {
            a.port() == b.port() && a.port() != 0 && addresses_overlap(a, b)
        }
        _ => false,
    }
}

fn addresses_overlap(a: &SocketAddr, b: &SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(wide) => wide.is_unspecified() && narrow.is_ipv4(),
        // `[::]` is bound dual-stack.
        IpAddr::V6(wide) => wide.is_unspecified(),
    };
    let (a, b) = (a.ip().to_canonical(), b.ip().to_canonical());
    a == b || covers(a, b) || covers(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refuses_overlaps() {
        let overlapping = [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "0.0.0.0:80"),
            ("[::1]:80", "[::]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("unix:/run/a", "unix:/run/a"),
        ];
        let apart = [
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "0.0.0.0:81"),
            ("0.0.0.0:80", "[::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/run/a", "unix:/run/b"),
        ];
        let check = |(a, b): (&str, &str)| {
            let (a, b): (Bind, Bind) = (a.parse().unwrap(), b.parse().unwrap());
            (overlap(&a, &b), overlap(&b, &a))
        };
        assert!(
            overlapping
                .into_iter()
                .all(|pair| check(pair) == (true, true))
        );
        assert!(apart.into_iter().all(|pair| check(pair) == (false, false)));
    }
}
