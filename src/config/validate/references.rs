//! Names in the file: each exists, and none twice.

use crate::config::reader::TableReader;
use crate::config::tables::{BackendName, ReadPool};
use crate::config::value::ValueReader;

/// Refuses a file without a listener, and two listeners of one name.
pub(super) fn refuse_same_listeners(root: &TableReader<'_>) {
    let list = root.value("listener");
    if list.is_some_and(|list| list.is_empty_list()) {
        root.missing(
            "listener",
            "there is no listener",
            "at least one [[listener]]",
        );
    }
    let why = |name: &str| format!("another listener has the name \"{name}\"");
    TableReader::refuse_same(&root.tables("listener"), "name", why);
}

/// Refuses names of pools and backends that the file does not have.
pub(super) fn refuse_unknown(root: &TableReader<'_>, pools: &[ReadPool<'_>]) {
    let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
    for listener in root.tables("listener") {
        refuse_unknown_pool(&listener, &names);
        for route in listener.tables("route") {
            refuse_unknown_pool(&route, &names);
        }
    }
    for token in root.table("admin").tables("token") {
        let Some(value) = token.value("backend").filter(ValueReader::is_string) else {
            continue;
        };
        if let Some(Ok(named)) = value.string().map(str::parse) {
            refuse_unknown_backend(&value, &named, pools, &names);
        }
    }
}

fn refuse_unknown_pool(table: &TableReader<'_>, names: &[&str]) {
    let value = table.value("pool").filter(ValueReader::is_string);
    let name = value.as_ref().and_then(ValueReader::string);
    if let (Some(value), Some(name)) = (&value, name)
        && !names.contains(&name)
    {
        value.unresolved("pool", name, names);
    }
}

/// A backend that is discovered may come yet.
fn refuse_unknown_backend(
    value: &ValueReader<'_>,
    named: &BackendName,
    pools: &[ReadPool<'_>],
    names: &[&str],
) {
    let BackendName { pool, backend } = named;
    if !names.contains(&pool.as_str()) {
        value.unresolved_part("pool", pool, names, |pool| format!("{pool}/{backend}"));
    }
    let known = pools.iter().filter_map(|read| read.pool.as_ref());
    let mut fixed = known.filter(|known| known.name == *pool && known.discover.is_none());
    if let Some(known) = fixed.next() {
        let names = known.backends.iter().map(|one| one.name.as_str());
        let names: Vec<&str> = names.collect();
        if !names.contains(&backend.as_str()) {
            let whole = |backend: &str| format!("{pool}/{backend}");
            value.unresolved_part("backend", backend, &names, whole);
        }
    }
}
