//! Filters of connections as names and values: the query of a listing, the body of a job.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::base::units::{format_duration, parse_duration};
use crate::observe::kept_tag;
use crate::relay::Filter;

/// Names of the conditions of a filter.
pub(crate) const CONDITIONS: [&str; 11] = [
    "listener", "pool", "backend", "client", "tag", "host", "path", "sni", "subject", "min_age",
    "min_idle",
];

/// Sets the condition `name`; false where there is none of that name.
///
/// # Errors
/// Says which values are allowed.
pub(super) fn set_condition(filter: &mut Filter, name: &str, value: &str) -> Result<bool, String> {
    match name {
        "listener" => filter.listener = Some(word(value)?),
        "pool" => filter.pool = Some(word(value)?),
        "backend" => filter.backend = Some(word(value)?),
        "client" => filter.client = Some(network(value)?),
        "tag" => filter.tag = Some(kept_tag(&word(value)?).into_owned()),
        "host" => filter.host = Some(word(value)?),
        "path" => filter.path = Some(word(value)?),
        "sni" => filter.sni = Some(word(value)?),
        "subject" => filter.subject = Some(word(value)?),
        "min_age" => filter.min_age = duration(value)?,
        "min_idle" => filter.min_idle = duration(value)?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// Writes the conditions of a filter in one line.
pub(super) fn describe(filter: &Filter) -> String {
    let timed = |time: Duration| (!time.is_zero()).then(|| format_duration(time));
    let values = [
        filter.listener.clone(),
        filter.pool.clone(),
        filter.backend.clone(),
        filter.client.map(|network| network.to_string()),
        filter.tag.clone(),
        filter.host.clone(),
        filter.path.clone(),
        filter.sni.clone(),
        filter.subject.clone(),
        timed(filter.min_age),
        timed(filter.min_idle),
    ];
    let conditions: Vec<String> = CONDITIONS
        .iter()
        .zip(values)
        .filter_map(|(name, value)| Some(format!("{name}={}", value?)))
        .collect();
    if conditions.is_empty() {
        "all connections".to_owned()
    } else {
        conditions.join(" ")
    }
}

fn word(value: &str) -> Result<String, String> {
    if value.is_empty() {
        Err("a name".to_owned())
    } else {
        Ok(value.to_owned())
    }
}

/// Reads a network, or an address as a network of one.
///
/// # Errors
/// Says what is allowed.
pub(crate) fn network(value: &str) -> Result<IpNet, String> {
    let network: Result<IpNet, _> = value.parse();
    network
        .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
        .map(canonical)
        .map_err(|_| "a network or an address, as in 10.0.0.0/8 or 2001:db8::1".to_owned())
}

/// Turns a network of IPv4-mapped addresses into the IPv4 one: clients are listed under their IPv4
/// addresses.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(mapped) = network else {
        return network;
    };
    let length = mapped.prefix_len().checked_sub(96);
    let within = mapped.addr().to_ipv4_mapped().zip(length);
    within
        .and_then(|(address, length)| IpNet::new(address.into(), length).ok())
        .unwrap_or(network)
}

fn duration(value: &str) -> Result<Duration, String> {
    parse_duration(value)
        .map_err(|_| "a duration: a number and ms, s, m, h or d, as in 10m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_of_one_and_a_mapped_one_is_ipv4() {
        for (text, meant) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("::1", "::1/128"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(network(text), Ok(meant.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn every_condition_is_read_and_described() {
        let mut filter = Filter::default();
        assert_eq!(describe(&filter), "all connections");
        let mut described = Vec::new();
        for name in CONDITIONS {
            let value = match name {
                "client" => "10.0.0.0/8",
                "min_age" | "min_idle" => "10m",
                _ => "a",
            };
            assert_eq!(set_condition(&mut filter, name, value), Ok(true), "{name}");
            described.push(format!("{name}={value}"));
        }
        assert_eq!(describe(&filter), described.join(" "));
        assert_eq!(set_condition(&mut filter, "id", "1"), Ok(false));
    }
}
