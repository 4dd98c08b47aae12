//! No two endpoints of one file on the same address: the kernel would refuse the second at start.

use crate::config::address::Bind;
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::value::ValueReader;

/// Notes every endpoint whose `bind` overlaps an earlier one's.
pub(super) fn refuse_overlaps(root: &TableReader<'_>) {
    let mut endpoints = root.tables("listener");
    endpoints.extend(["admin", "metrics"].map(|name| root.table(name)));
    let mut taken: Vec<Bind> = Vec::new();
    for endpoint in endpoints {
        let Some(value) = endpoint.value("bind").filter(ValueReader::is_string) else {
            continue;
        };
        value.mark();
        let Some(Ok(bind)) = value.string().map(str::parse::<Bind>) else {
            continue;
        };
        if let Some(other) = taken.iter().find(|other| other.overlaps(&bind)) {
            let why = format!("{bind} cannot be bound beside {other}, which stands before it");
            value.refuse(ErrorKind::Conflict, &why);
        }
        taken.push(bind);
    }
}
