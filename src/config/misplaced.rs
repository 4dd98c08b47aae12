//! A key that stands in another table than its own: behind the header of a sub-table, or a table
//! too high. TOML gives every key to the header before it, which is easily forgotten. For messages
//! only.

use super::spec::{TableSpec, ValueKind};

/// Where a key of the table at `path` belongs.
pub(crate) fn elsewhere(
    root: &'static TableSpec,
    path: &str,
    spec: &'static TableSpec,
    name: &str,
) -> Option<String> {
    let mut around = tables_around(root, path)?;
    // The last is the table itself.
    around.pop();
    let outer = around
        .iter()
        .rev()
        .find(|table| table.spec.key(name).is_some());
    if let Some(outer) = outer.filter(|outer| !outer.header.is_empty()) {
        let (outer, own) = (&outer.header, header(path));
        return Some(format!(
            "`{name}` is a key of {outer}: write it above {own}"
        ));
    }
    let inner = spec.all().filter(|key| {
        let below = key
            .kind
            .table()
            .filter(|_| !matches!(key.kind, ValueKind::Named(_)));
        below.is_some_and(|below| below.key(name).is_some())
    });
    let inner: Vec<String> = inner.map(|key| format!("`{}`", key.name)).collect();
    (!inner.is_empty()).then(|| format!("`{name}` is a key of {}", inner.join(" and of ")))
}

/// A key of some table of the file.
pub(crate) struct KeyLocation {
    /// Header of its table as the file writes it: `[pool.NAME.check]`.
    pub header: String,
    pub kind: &'static ValueKind,
}

/// Every table that has a key of this name.
pub(crate) fn places_of(root: &'static TableSpec, name: &str) -> Vec<KeyLocation> {
    let mut places = Vec::new();
    collect(root, "", name, &mut places);
    places
}

fn collect(spec: &'static TableSpec, path: &str, name: &str, places: &mut Vec<KeyLocation>) {
    if let Some(key) = spec.key(name) {
        places.push(KeyLocation {
            header: header(path),
            kind: &key.kind,
        });
    }
    for key in spec.all() {
        let Some(inner) = key.kind.table() else {
            continue;
        };
        let end = match key.kind {
            ValueKind::Named(_) => ".NAME",
            ValueKind::Tables(_) => "[0]",
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
pub(crate) fn far(root: &'static TableSpec, path: &str, name: &str) -> Option<String> {
    let way = header(path);
    let way: Vec<&str> = names(&way).collect();
    let places = places_of(root, name);
    let near = |place: &KeyLocation| {
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
    spec: &'static TableSpec,
}

/// The tables that lead to `path`, the root first. `None`: a name with a dot makes it ambiguous.
fn tables_around(root: &'static TableSpec, path: &str) -> Option<Vec<TableAround>> {
    let mut spec = root;
    let mut around = vec![TableAround {
        header: String::new(),
        spec,
    }];
    let mut taken = 0;
    let mut parts = path.split('.').filter(|part| !part.is_empty());
    while let Some(part) = parts.next() {
        let key = spec.key(part.split('[').next().unwrap_or_default())?;
        spec = key.kind.table()?;
        taken += part.len() + 1;
        if let ValueKind::Named(_) = key.kind {
            taken += parts.next()?.len() + 1;
        }
        around.push(TableAround {
            header: header(path.get(..taken - 1)?),
            spec,
        });
    }
    Some(around)
}

/// `listener[0].tls` as `[listener.tls]`, `listener[0]` as `[[listener]]`.
pub(crate) fn header(path: &str) -> String {
    let is_list = path.ends_with(']');
    let names = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or_default());
    let names: Vec<&str> = names.collect();
    let names = names.join(".");
    if path.is_empty() {
        String::new()
    } else if is_list {
        format!("[[{names}]]")
    } else {
        format!("[{names}]")
    }
}

#[cfg(test)]
mod tests {
    use crate::config::testing::{listener, pool, read};

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
