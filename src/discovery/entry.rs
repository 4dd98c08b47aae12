//! Entries of a registry's answer: checked one by one, ordered by name, with weights as ours.
//!
//! A bad entry is skipped and counted. An answer of which more than half is bad, or that is too
//! long, is no answer.

use serde_json::Value;

use super::fault::{Fault, FaultKind};
use crate::config::Address;
use crate::config::defaults::WEIGHT_MAX;

/// Entries taken from one answer; more is a mistake in what is asked for.
pub(super) const MAX_ENTRIES: usize = 10_000;

/// Longest name, in bytes: those of all registries are shorter, and it stands in logs and metrics.
const MAX_NAME: usize = 256;

/// A backend as a source lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    pub address: Address,
    /// Name that a certificate may be verified against, where the address does not tell.
    pub host: Option<String>,
    /// 1..=256; `None`: as the pool says.
    pub weight: Option<u16>,
    pub is_backup: bool,
    /// Listed, and to get no new connections.
    pub is_drained: bool,
}

/// An entry before it was checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RawEntry {
    pub name: String,
    pub address: String,
    pub host: Option<String>,
    pub weight: Option<f64>,
    pub is_backup: bool,
    pub is_drained: bool,
}

/// A whole answer of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Ordered by name, each once.
    pub entries: Vec<Entry>,
    /// Entries that could not be used.
    pub skipped: usize,
    /// The first of them, and why.
    pub first_skipped: Option<String>,
}

impl Entry {
    /// The entry in our own form, which [`RawEntry::read`] reads.
    pub(super) fn to_value(&self) -> Value {
        let state = if self.is_drained { "drain" } else { "ready" };
        let mut table = serde_json::Map::new();
        table.insert("name".to_owned(), self.name.as_str().into());
        table.insert("address".to_owned(), self.address.to_string().into());
        table.insert("state".to_owned(), state.into());
        table.insert("backup".to_owned(), self.is_backup.into());
        if let Some(host) = &self.host {
            table.insert("host".to_owned(), host.as_str().into());
        }
        if let Some(weight) = self.weight {
            table.insert("weight".to_owned(), weight.into());
        }
        table.into()
    }

    pub(super) fn new(name: &str, address: Address) -> Entry {
        Entry {
            name: name.to_owned(),
            address,
            host: None,
            weight: None,
            is_backup: false,
            is_drained: false,
        }
    }
}

impl RawEntry {
    pub(super) fn new(name: impl Into<String>, address: impl Into<String>) -> RawEntry {
        RawEntry {
            name: name.into(),
            address: address.into(),
            host: None,
            weight: None,
            is_backup: false,
            is_drained: false,
        }
    }

    /// Reads our own form: `"10.0.0.1:9501"`, or a table with `address`, and `name`, `host`,
    /// `weight`, `state` and `backup` where they are wanted. `key`: its name where it says none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(key: Option<&str>, value: &Value) -> Result<RawEntry, String> {
        let named = |address: &str| key.unwrap_or(address).to_owned();
        if let Value::String(address) = value {
            return Ok(RawEntry::new(named(address), address));
        }
        let table = value
            .as_object()
            .ok_or("it is neither an address nor a table")?;
        let address = table.get("address").and_then(Value::as_str);
        let address = address.ok_or("it has no `address`")?;
        let name = match table.get("name") {
            None => named(address),
            Some(name) => name.as_str().ok_or("its `name` is no string")?.to_owned(),
        };
        let host = match table.get("host") {
            None => None,
            Some(host) => Some(host.as_str().ok_or("its `host` is no string")?.to_owned()),
        };
        let weight = match table.get("weight") {
            None => None,
            Some(weight) => Some(weight.as_f64().ok_or("its `weight` is no number")?),
        };
        let is_drained = match table.get("state").map(Value::as_str) {
            None | Some(Some("ready")) => false,
            Some(Some("drain")) => true,
            Some(_) => return Err("its `state` is neither \"ready\" nor \"drain\"".to_owned()),
        };
        let is_backup = match table.get("backup") {
            None => false,
            Some(backup) => backup.as_bool().ok_or("its `backup` is no flag")?,
        };
        Ok(RawEntry {
            name,
            address: address.to_owned(),
            host,
            weight,
            is_backup,
            is_drained,
        })
    }

    /// Checks the entry. A weight of 0 is a drain.
    fn check(self) -> Result<(Entry, Option<f64>), String> {
        let RawEntry { name, address, .. } = &self;
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err("its name is empty, too long, or has a control character".to_owned());
        }
        let parsed: Address = address
            .parse()
            .map_err(|why| format!("its address {:?}: {why}", shorten(address)))?;
        if let Address::Tcp(address) = parsed
            && (address.ip().is_unspecified() || address.ip().is_multicast())
        {
            return Err(format!("no backend can have the address {address}"));
        }
        let weight = self.weight;
        if weight.is_some_and(|weight| !weight.is_finite() || weight < 0.0) {
            return Err("its weight is negative or no number".to_owned());
        }
        let is_drained = self.is_drained || weight == Some(0.0);
        let entry = Entry {
            host: self.host.clone(),
            is_backup: self.is_backup,
            is_drained,
            ..Entry::new(name, parsed)
        };
        Ok((entry, weight.filter(|weight| *weight > 0.0)))
    }
}

impl Listing {
    /// Reads our own form: `{"backends": [...]}`, or the list alone.
    ///
    /// # Errors
    /// It is neither, or as of [`Listing::of`].
    pub(super) fn read(value: &Value) -> Result<Listing, Fault> {
        let list = value.get("backends").unwrap_or(value).as_array();
        let list = list.ok_or_else(|| Fault::malformed("neither a list nor `backends`"))?;
        Listing::of(list.iter().map(|value| RawEntry::read(None, value)))
    }

    /// Checks and orders entries. Two balancers make the same of the same entries, in whatever
    /// order they come.
    ///
    /// # Errors
    /// There are too many, or more than half of them are bad.
    pub(super) fn of(
        raw: impl IntoIterator<Item = Result<RawEntry, String>>,
    ) -> Result<Listing, Fault> {
        let mut listing = Listing::default();
        let mut good = Vec::new();
        for (count, raw) in raw.into_iter().enumerate() {
            if count == MAX_ENTRIES {
                let what = format!("more than {MAX_ENTRIES} entries");
                return Err(Fault::new(FaultKind::TooLarge, what));
            }
            let name = raw.as_ref().map(|raw| raw.name.clone()).unwrap_or_default();
            match raw.and_then(RawEntry::check) {
                Ok(entry) => good.push(entry),
                Err(why) => {
                    listing.skipped += 1;
                    let first = format!("{:?}: {why}", shorten(&name));
                    listing.first_skipped.get_or_insert(first);
                }
            }
        }
        if listing.skipped > good.len() {
            let first = listing.first_skipped.unwrap_or_default();
            let what = format!("{} bad entries, such as {first}", listing.skipped);
            return Err(Fault::new(FaultKind::Malformed, what));
        }
        // The address decides between two of one name, not the order of the answer.
        let key = |entry: &Entry| (entry.name.clone(), entry.address.to_string());
        good.sort_by_cached_key(|(entry, weight)| (key(entry), weight.map(f64::to_bits)));
        good.dedup_by(|(later, _), (first, _)| later.name == first.name);
        listing.entries = weigh(good);
        Ok(listing)
    }
}

/// Weights as ours, 1..=256. Where one is a fraction all are scaled, so that the largest is 256.
fn weigh(entries: Vec<(Entry, Option<f64>)>) -> Vec<Entry> {
    let weights = || entries.iter().filter_map(|(_, weight)| *weight);
    let largest = weights().fold(0.0, f64::max);
    let limit = WEIGHT_MAX as f64;
    let has_fraction = weights().any(|weight| weight.fract() != 0.0);
    let scale = if has_fraction { limit / largest } else { 1.0 };
    let weighed = entries.into_iter().map(|(mut entry, weight)| {
        // A float that is cast is clipped to the bounds of the type.
        let weight = weight.map(|weight| (weight * scale).round().clamp(1.0, limit) as u16);
        entry.weight = weight;
        entry
    });
    weighed.collect()
}

/// `HOST:PORT`, an IPv6 address in brackets.
pub(super) fn join(host: &str, port: u64) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// The beginning of a stranger's text, for a log line.
pub(super) fn shorten(text: &str) -> String {
    const MAX_CHARS: usize = 80;
    text.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn listing(values: &[Value]) -> Result<Listing, Fault> {
        Listing::of(values.iter().map(|value| RawEntry::read(None, value)))
    }

    #[test]
    fn entries_are_ordered_by_name_and_each_once() {
        let one = [
            json!("10.0.0.2:80"),
            json!({"name": "a", "address": "10.0.0.9:80"}),
            json!({"name": "a", "address": "10.0.0.1:80"}),
        ];
        let mut other = one.clone();
        other.reverse();
        let found = listing(&one).unwrap();
        assert_eq!(found, listing(&other).unwrap());
        let shown: Vec<_> = found
            .entries
            .iter()
            .map(|one| format!("{} {}", one.name, one.address))
            .collect();
        assert_eq!(shown, ["10.0.0.2:80 10.0.0.2:80", "a 10.0.0.1:80"]);
    }

    #[test]
    fn bad_entries_are_skipped_unless_they_are_most() {
        let good = json!("10.0.0.1:80");
        for bad in [
            json!(7),
            json!("10.0.0.1"),
            json!("10.0.0.1:0"),
            json!("0.0.0.0:80"),
            json!({"name": ""}),
            json!({"name": "a\nb", "address": "10.0.0.1:80"}),
            json!({"address": "10.0.0.1:80", "weight": -1}),
            json!({"address": "10.0.0.1:80", "weight": "1"}),
            json!({"address": "10.0.0.1:80", "state": "gone"}),
            json!({"address": "10.0.0.1:80", "backup": 1}),
        ] {
            let found = listing(&[good.clone(), bad.clone()]).unwrap();
            assert_eq!((found.entries.len(), found.skipped), (1, 1), "{bad}");
            let fault = listing(&[good.clone(), bad.clone(), bad.clone()]).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Malformed, "{bad}");
        }
    }

    #[test]
    fn weights_are_clipped_fractions_scaled_and_zero_is_a_drain() {
        let weights = |weights: &[f64]| {
            let values: Vec<Value> = weights.iter().enumerate().map(|(n, weight)| json!({"name": format!("{n}"), "address": "10.0.0.1:80", "weight": weight})).collect();
            let found = listing(&values).unwrap().entries;
            found
                .iter()
                .map(|one| (one.weight, one.is_drained))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            weights(&[0.0, 3.0, 9999.0]),
            [(None, true), (Some(3), false), (Some(256), false)]
        );
        assert_eq!(
            weights(&[0.5, 2.0, 0.000001]),
            [(Some(64), false), (Some(256), false), (Some(1), false)]
        );
    }

    #[test]
    fn too_many_entries_are_no_answer() {
        let many = (0..=MAX_ENTRIES).map(|n| Ok(RawEntry::new(format!("{n}"), "10.0.0.1:80")));
        assert_eq!(Listing::of(many).unwrap_err().kind, FaultKind::TooLarge);
    }

    proptest! {
        #[test]
        fn any_entries_give_a_listing_or_a_fault(
            raw in prop::collection::vec(("\\PC{0,6}", "[0-9.:a-z\\[\\]/]{0,20}", prop::option::of(any::<f64>())), 0..20),
        ) {
            let raw = raw.into_iter().map(|(name, address, weight)| Ok(RawEntry { weight, ..RawEntry::new(name, address) }));
            if let Ok(found) = Listing::of(raw) {
                prop_assert!(found.entries.is_sorted_by(|a, b| a.name < b.name));
                prop_assert!(found.entries.iter().all(|one| one.weight.is_none_or(|weight| (1..=256).contains(&weight))));
            }
        }
    }
}
