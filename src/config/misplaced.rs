//! A key that stands in another table than its own: behind the header of a sub-table, or a table
//! too high. TOML gives every key to the header before it, which is easily forgotten. For messages
//! only.

use super::keys::{Kind, Section};
use super::sections::ROOT;

/// Where a key of the table at `path` belongs.
pub fn elsewhere(path: &str, section: &'static Section, name: &str) -> Option<String> {
    let mut around = tables_around(path)?;
    // The last is the table itself.
    around.pop();
    let outer = around
        .iter()
        .rev()
        .find(|table| table.section.key(name).is_some());
    if let Some(outer) = outer.filter(|outer| !outer.header.is_empty()) {
        let (outer, own) = (&outer.header, header(path));
        return Some(format!(
            "`{name}` is a key of {outer}: write it above {own}"
        ));
    }
    let inner = section.keys.iter().filter(|key| {
        let below = key
            .kind
            .section()
            .filter(|_| !matches!(key.kind, Kind::Named(_)));
        below.is_some_and(|below| below.key(name).is_some())
    });
    let inner: Vec<String> = inner.map(|key| format!("`{}`", key.name)).collect();
    match inner.is_empty() {
        true => None,
        false => Some(format!("`{name}` is a key of {}", inner.join(" and of "))),
    }
}

/// A key of some table of the file.
pub struct PlaceOfKey {
    /// Its table as the file writes it: `[pool.NAME.check]`.
    pub header: String,
    pub kind: &'static Kind,
}

/// Every table that has a key of this name.
pub fn places_of(name: &str) -> Vec<PlaceOfKey> {
    let mut places = Vec::new();
    collect(&ROOT, "", name, &mut places);
    places
}

fn collect(section: &'static Section, path: &str, name: &str, places: &mut Vec<PlaceOfKey>) {
    if let Some(key) = section.key(name) {
        places.push(PlaceOfKey {
            header: header(path),
            kind: &key.kind,
        });
    }
    for key in section.keys {
        let Some(inner) = key.kind.section() else {
            continue;
        };
        let end = match key.kind {
            Kind::Named(_) => ".NAME",
            Kind::Tables(_) => "[0]",
            _ => "",
        };
        let dot = if path.is_empty() { "" } else { "." };
        collect(
            inner,
            &format!("{path}{dot}{}{end}", key.name),
            name,
            places,
        );
    }
}

/// The tables that have this key, where none on the way to `path` has it: those that share most of
/// the way, if they are few.
pub fn far(path: &str, name: &str) -> Option<String> {
    let way = header(path);
    let way: Vec<&str> = names(&way).collect();
    let places = places_of(name);
    let near = |place: &PlaceOfKey| {
        let own: Vec<&str> = names(&place.header).collect();
        let pairs = own.iter().zip(&way);
        // The name of a pool is the operator's.
        pairs.take_while(|(a, b)| a == b || **a == "NAME").count()
    };
    let nearest = places.iter().map(near).max()?;
    let nearest: Vec<&str> = places
        .iter()
        .filter(|place| near(place) == nearest && !place.header.is_empty())
        .map(|place| place.header.as_str())
        .collect();
    match nearest.len() {
        1..=FEW => Some(format!("`{name}` is a key of {}", nearest.join(" and of "))),
        _ => None,
    }
}

/// More tables in a message than these help nobody.
const FEW: usize = 4;

fn names(header: &str) -> impl Iterator<Item = &str> {
    header.trim_matches(['[', ']']).split('.')
}

struct TableAround {
    /// As the file writes it; empty for the root.
    header: String,
    section: &'static Section,
}

/// The tables that lead to `path`, the root first. `None`: a name with a dot makes it ambiguous.
fn tables_around(path: &str) -> Option<Vec<TableAround>> {
    let mut section = &ROOT;
    let mut around = vec![TableAround {
        header: String::new(),
        section,
    }];
    let mut taken = 0;
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        let key = section.key(part.split('[').next().unwrap_or_default())?;
        section = key.kind.section()?;
        taken += part.len() + 1;
        if let Kind::Named(_) = key.kind {
            taken += parts.next()?.len() + 1;
        }
        around.push(TableAround {
            header: header(path.get(..taken - 1)?),
            section,
        });
    }
    Some(around)
}

/// `listener[0].tls` as `[listener.tls]`, `listener[0]` as `[[listener]]`.
pub fn header(path: &str) -> String {
    let is_list = path.ends_with(']');
    let names = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or_default());
    let names: Vec<&str> = names.collect();
    match is_list {
        _ if path.is_empty() => String::new(),
        true => format!("[[{}]]", names.join(".")),
        false => format!("[{}]", names.join(".")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{listener, pool, read};

    fn hint(text: &str) -> String {
        let errors = read(text).unwrap_err();
        errors.messages().remove(0).message
    }

    #[test]
    fn a_key_behind_a_sub_table_is_told_where_it_belongs() {
        let below = pool("[pool.p.check]\ntype = \"tcp\"\nretries = 3");
        let told = "`retries` is a key of [pool.p]: write it above [pool.p.check]";
        assert!(hint(&below).contains(told), "{}", hint(&below));
        let below = listener(
            "protocol = \"tcp\"\npool = \"p\"\n[listener.tls]\npassthrough = true\nbacklog = 9",
        );
        let told = "`backlog` is a key of [[listener]]: write it above [listener.tls]";
        assert!(hint(&below).contains(told), "{}", hint(&below));
        let below = pool("[[pool.p.backend]]\naddress = \"10.0.0.1:80\"").replace(
            "backend = [{ name = \"n\", address = \"10.0.0.1:80\" }]\n",
            "",
        );
        let below = format!("{below}retries = 3\n");
        let told = "`retries` is a key of [pool.p]: write it above [[pool.p.backend]]";
        assert!(hint(&below).contains(told), "{}", hint(&below));
    }

    #[test]
    fn a_key_that_stands_too_high_is_told_where_it_belongs() {
        let told = hint(&pool("interval = \"2s\""));
        assert!(told.contains("`interval` is a key of `"), "{told}");
        assert!(told.contains("`check`"), "{told}");
        let told = hint(&format!("workers = 2\n{}", pool("")));
        assert!(told.contains("`workers` is a key of `global`"), "{told}");
    }

    #[test]
    fn a_key_of_another_table_is_told_where_it_belongs() {
        let check = |key: &str| pool(&format!("[pool.p.check]\ntype = \"tcp\"\n{key}"));
        let listener = |keys: &str| listener(&format!("protocol = \"tcp\"\npool = \"p\"\n{keys}"));
        for (text, told) in [
            (
                pool("handshake_timeout = \"5s\""),
                "`handshake_timeout` is a key of [[listener]]",
            ),
            (
                listener("max_handshakes = 5"),
                "`max_handshakes` is a key of [global]",
            ),
            (
                format!("maxconn = 5\n{}", pool("")),
                "it is `max_connections` of `[global]`",
            ),
            (
                check("max_connections = 5"),
                "`max_connections` is a key of [[pool.NAME.backend]] and of [pool.NAME.discover]",
            ),
            (
                check("bind = \"a\""),
                "`bind` is a key of [[listener]] and of [admin] and of [metrics]",
            ),
            (
                check("log_level = \"info\""),
                "`log_level` is a key of [global]",
            ),
        ] {
            let said = hint(&text);
            assert!(said.contains(told), "{text}\n{said}");
        }
    }

    #[test]
    fn a_name_with_a_dot_is_survived() {
        let text = pool("").replace("[pool.p]", "[pool.\"a.b\"]\nnonsense = 1");
        let mut messages = read(&text).unwrap_err().messages().into_iter();
        assert!(messages.any(|one| one.message.contains("unknown key")));
    }
}
