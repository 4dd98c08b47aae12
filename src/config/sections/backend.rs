//! `backend = [...]`: the nodes of a pool.

use super::super::defaults;
use super::super::keys::{Absent, COUNT_MAX, Kind, Section, key, number};
use super::super::model::{Address, Backend, InitState};
use super::super::name::read_name;
use super::super::table::Table;
use super::super::words::words;

pub static BACKEND: Section = Section {
    doc: "One node.",
    keys: &[
        key(
            "name",
            Kind::Text("a name of letters, digits and - _ . :, unique in its pool"),
            Absent::None,
            "Its name in logs, metrics and the admin endpoint; a reload and hashes know the node by it. Without it: the address.",
        ),
        key(
            "address",
            Kind::Text("\"10.0.0.1:9501\", \"[fd00::1]:9501\", \"name:9501\" or \"unix:/path\""),
            Absent::Required,
            "Where it is reached. A name is looked up in DNS again and again; the last good answer is kept.",
        ),
        key(
            "weight",
            number(0, defaults::WEIGHT_MAX),
            Absent::Number(defaults::WEIGHT),
            "Its share beside the others; 0 = it gets nothing new.",
        ),
        key(
            "max_connections",
            number(0, COUNT_MAX),
            Absent::Number(defaults::BACKEND_MAX_CONNECTIONS),
            "Live connections at once; 0 = no own limit.",
        ),
        key(
            "backup",
            Kind::Flag,
            Absent::Flag(defaults::BACKUP),
            "Used only when no other backend can be.",
        ),
        key(
            "init_state",
            Kind::Word(words::<InitState>),
            Absent::Text(defaults::INIT_STATE),
            "Its state before the first check has decided.",
        ),
    ],
};

/// `checked`: the pool has active checks.
pub fn decode(table: &Table<'_>, checked: bool) -> Option<Backend> {
    let init_state = table.word("init_state");
    if init_state == InitState::Down && !checked {
        table.conflict(
            "init_state",
            "without `check` in its pool the backend would stay down for ever",
        );
    }
    let name = if table.has("name") {
        table.text_by("name", read_name).map(Some)
    } else {
        Some(None)
    };
    let address: Option<Address> = table.text("address");
    let weight = table.number("weight");
    let max_connections = table.number("max_connections");
    let backup = table.flag("backup");
    let address = address?;
    let name = name?.unwrap_or_else(|| address.to_string());
    Some(Backend {
        name,
        address,
        weight,
        max_connections,
        backup,
        init_state,
        host: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};

    fn second(backend: &str) -> String {
        pool("").replace(" }]", &format!(" }}, {{ {backend} }}]"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (
                second("name = \"m\""),
                "pool.p.backend[1].address",
                Fault::Missing,
            ),
            (
                second("address = \"10.0.0.2\""),
                "pool.p.backend[1].address",
                Fault::Value,
            ),
            (
                second("name = \"n\", address = \"10.0.0.2:80\""),
                "pool.p.backend[1].name",
                Fault::Conflict,
            ),
            (
                second("name = \"a/b\", address = \"10.0.0.2:80\""),
                "pool.p.backend[1].name",
                Fault::Value,
            ),
            (
                second("address = \"10.0.0.2:80\" }, { address = \"10.0.0.2:80\""),
                "pool.p.backend[2].address",
                Fault::Conflict,
            ),
            (
                second("address = \"10.0.0.2:80\", weight = 257"),
                "pool.p.backend[1].weight",
                Fault::Value,
            ),
            (
                second("address = \"10.0.0.2:80\", backup = 1"),
                "pool.p.backend[1].backup",
                Fault::Type,
            ),
            (
                second("address = \"10.0.0.2:80\", port = 1"),
                "pool.p.backend[1].port",
                Fault::UnknownKey,
            ),
            (
                second("address = \"10.0.0.2:80\", init_state = \"down\""),
                "pool.p.backend[1].init_state",
                Fault::Conflict,
            ),
        ]);
    }

    #[test]
    fn a_backend_without_a_name_has_its_address_as_name() {
        let config = right(&second("address = \"unix:/run/a.sock\""));
        assert_eq!(config.pools["p"].backends[1].name, "unix:/run/a.sock");
    }
}
