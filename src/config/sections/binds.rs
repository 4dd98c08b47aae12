//! No two endpoints of one file on the same address: the kernel would refuse the second at start.

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
        entry.mark();
        let Some(bind) = entry.string().and_then(|text| text.parse::<Bind>().ok()) else {
            continue;
        };
        if let Some(other) = taken.iter().find(|other| other.overlaps(&bind)) {
            entry.refuse(
                Fault::Conflict,
                &format!("{bind} cannot be bound beside {other}, which stands before it"),
            );
        }
        taken.push(bind);
    }
}
