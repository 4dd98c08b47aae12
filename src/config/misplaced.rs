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
fn header(path: &str) -> String {
    let is_list = path.ends_with(']');
    let names = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or_default());
    let names: Vec<&str> = names.collect();
    match is_list {
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
    fn a_name_with_a_dot_is_survived() {
        let text = pool("").replace("[pool.p]", "[pool.\"a.b\"]\nnonsense = 1");
        let mut messages = read(&text).unwrap_err().messages().into_iter();
        assert!(messages.any(|one| one.message.contains("unknown key")));
    }
}
