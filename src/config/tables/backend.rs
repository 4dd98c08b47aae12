//! `backend = [...]`: the nodes of a pool.

use crate::config::address::Address;
use crate::config::declare::Parts;
use crate::config::defaults::WEIGHT_MAX;
use crate::config::name::read_name;
use crate::config::reader::TableReader;
use crate::config::spec::{COUNT_MAX, number, text};
use crate::config::value_types::{self, parsed};

table! {
    /// A node of the pool.
    pub struct Backend {
        /// Address of the node. A name is looked up in DNS again and again; the last good answer is
        /// kept.
        address: Address =
            text("\"10.0.0.1:9501\", \"[fd00::1]:9501\", \"name:9501\" or \"unix:/path\""),
            required by parsed;
        /// Share beside the others; 0 = nothing new.
        ///
        /// All alike. The largest is HAProxy's.
        weight: u16 = number(0, WEIGHT_MAX), default(1);
        /// Live connections at once; 0 = no own limit.
        max_connections: u64 = number(0, COUNT_MAX), default(0);
        /// Used only when no other backend can be.
        backup: bool, default(false);
        /// State before the first check has decided.
        ///
        /// A start or a reload must not wait for checks before it serves.
        init_state: InitState, default(InitState::Up);
    }
    parts {
        /// Unique name in logs, metrics and the admin endpoint. A reload and hashes know the node
        /// by it. Without it: the address.
        own_name as "name": Option<String> =
            text("a name of letters, digits and - _ . :, unique in its pool"),
            optional by value_types::text(read_name);
    }
    with {
        /// Unique in its pool; default: the address.
        name: String,
        /// Name that discovery found the node by, where its address does not tell.
        host: Option<String>,
    }
    rules name_by_address;
}

words! {
    /// State of a backend before its first check.
    pub enum InitState {
        Up = "up",
        Down = "down",
    }
}

fn name_by_address(_: &TableReader<'_>, backend: &mut Parts<Backend>) {
    let address = backend.address.as_ref().map(ToString::to_string);
    backend.name = backend.own_name.take().flatten().or(address);
    backend.host = Some(None);
}

/// Refuses names that two backends of a pool have.
pub(super) fn refuse_same_names(pool: &TableReader<'_>, backends: &[Backend]) {
    let mut names = std::collections::BTreeSet::new();
    for (table, backend) in pool.tables("backend").iter().zip(backends) {
        if !names.insert(&backend.name) {
            let why = format!(
                "another backend of this pool has the name \"{}\"",
                backend.name
            );
            table.conflict(table.first_of(["name", "address"]), &why);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn second(backend: &str) -> String {
        pool("").replace(" }]", &format!(" }}, {{ {backend} }}]"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        each_refused([
            (
                second("name = \"m\""),
                "pool.p.backend[1].address",
                ErrorKind::Missing,
            ),
            (
                second("address = \"10.0.0.2\""),
                "pool.p.backend[1].address",
                ErrorKind::Value,
            ),
            (
                second("name = \"n\", address = \"10.0.0.2:80\""),
                "pool.p.backend[1].name",
                ErrorKind::Conflict,
            ),
            (
                second("name = \"a/b\", address = \"10.0.0.2:80\""),
                "pool.p.backend[1].name",
                ErrorKind::Value,
            ),
            (
                second("address = \"10.0.0.2:80\" }, { address = \"10.0.0.2:80\""),
                "pool.p.backend[2].address",
                ErrorKind::Conflict,
            ),
            (
                second("address = \"10.0.0.2:80\", weight = 257"),
                "pool.p.backend[1].weight",
                ErrorKind::Value,
            ),
            (
                second("address = \"10.0.0.2:80\", backup = 1"),
                "pool.p.backend[1].backup",
                ErrorKind::Type,
            ),
            (
                second("address = \"10.0.0.2:80\", port = 1"),
                "pool.p.backend[1].port",
                ErrorKind::UnknownKey,
            ),
            (
                second("address = \"10.0.0.2:80\", init_state = \"down\""),
                "pool.p.backend[1].init_state",
                ErrorKind::Conflict,
            ),
        ]);
    }

    #[test]
    fn a_backend_without_a_name_has_its_address_as_name() {
        let config = right(&second("address = \"unix:/run/a.sock\""));
        assert_eq!(config.pools["p"].backends[1].name, "unix:/run/a.sock");
    }
}
