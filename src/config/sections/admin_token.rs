//! `[[admin.token]]`: who may ask, and for what.

use super::super::keys::{Absent, Kind, Section, key};
use super::super::model::{AdminRole, AdminToken, BackendName, Pool};
use super::super::name::read_name;
use super::super::table::Table;
use super::super::words::words;

/// More are a mistake: every request is held against each.
const MAX_TOKENS: usize = 256;

pub(super) static TOKEN: Section = Section {
    doc: "A bearer token of the admin endpoint. What is done with it is logged under its name.",
    keys: &[
        key(
            "name",
            Kind::Text("a name of letters, digits and - _ . :"),
            Absent::Required,
            "Whose it is, for the log.",
        ),
        key(
            "file",
            Kind::Text("the path of a file"),
            Absent::Required,
            "File that holds the token. Read at start and at reload.",
        ),
        key(
            "role",
            Kind::Word(words::<AdminRole>),
            Absent::Required,
            "`read`: status, connections, jobs, metrics, plans. `operate`: changes as well.",
        ),
        key(
            "backend",
            Kind::Text("POOL/BACKEND"),
            Absent::None,
            "The only backend that it may act on: its state, its weight, the jobs that empty it. So a node can drain itself.",
        ),
    ],
};

/// The pools of the file, for the names in it.
pub struct Pools<'a> {
    pub names: &'a [&'a str],
    /// Those of them that are right.
    pub right: Vec<&'a Pool>,
}

/// `None`: one of them is wrong. Without `pools` their names are not looked up.
pub(super) fn decode(admin: &Table<'_>, pools: Option<&Pools<'_>>) -> Option<Vec<AdminToken>> {
    let tables = admin.tables("token");
    if tables.len() > MAX_TOKENS {
        admin.conflict("token", "there are more than 256");
    }
    let mut tokens: Vec<AdminToken> = Vec::new();
    let mut is_right = true;
    for table in &tables {
        let token = one(table);
        let named = token.as_ref().and_then(|token| token.backend.as_ref());
        if let (Some(named), Some(pools)) = (named, pools) {
            refuse_unknown(table, named, pools);
        }
        match token {
            Some(token) if tokens.iter().any(|other| other.name == token.name) => {
                table.conflict("name", "another token has this name");
            }
            Some(token) => tokens.push(token),
            None => is_right = false,
        }
    }
    is_right.then_some(tokens)
}

fn one(table: &Table<'_>) -> Option<AdminToken> {
    let name = table.text_by("name", read_name);
    let file = table.path("file");
    let role = table.maybe_word("role");
    let backend = table.text_by("backend", read_backend);
    if role == Some(AdminRole::Read) {
        table.conflict("backend", "a token that only reads acts on none");
    }
    Some(AdminToken {
        name: name?,
        file: file?,
        role: role?,
        backend,
    })
}

fn read_backend(text: &str) -> Result<BackendName, &'static str> {
    let (pool, backend) = text
        .split_once('/')
        .ok_or("it has no \"/\" between the pool and the backend")?;
    match (pool, backend) {
        ("", _) | (_, "") => Err("a name is missing"),
        _ => Ok(BackendName {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
        }),
    }
}

/// A backend that is discovered may come yet.
fn refuse_unknown(table: &Table<'_>, named: &BackendName, pools: &Pools<'_>) {
    let Some(entry) = table.entry("backend") else {
        return;
    };
    if !pools.names.contains(&named.pool.as_str()) {
        let whole = |pool: &str| format!("{pool}/{}", named.backend);
        entry.unresolved_part("pool", &named.pool, pools.names, whole);
    }
    let pool = pools.right.iter().find(|pool| pool.name == named.pool);
    if let Some(pool) = pool.filter(|pool| pool.discover.is_none()) {
        let names: Vec<&str> = pool.backends.iter().map(|one| one.name.as_str()).collect();
        if !names.contains(&named.backend.as_str()) {
            let whole = |backend: &str| format!("{}/{backend}", named.pool);
            entry.unresolved_part("backend", &named.backend, &names, whole);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, read, right};
    use super::*;

    fn tokens(keys: &str) -> String {
        let admin = "[admin]\nbind = \"127.0.0.1:0\"\n";
        format!("{}{admin}{keys}\n", pool(""))
    }

    fn one(keys: &str) -> String {
        tokens(&format!("[[admin.token]]\n{keys}"))
    }

    const WHOLE: &str = "name = \"a\"\nfile = \"a.token\"\nrole = \"operate\"\n";

    #[test]
    fn each_wrong_value_is_refused() {
        let with = |keys: &str| one(&format!("{WHOLE}{keys}"));
        each_refused([
            (
                one(&WHOLE.replace("operate", "admin")),
                "admin.token[0].role",
                Fault::Value,
            ),
            (
                one("name = \"a\"\nfile = \"f\""),
                "admin.token[0].role",
                Fault::Missing,
            ),
            (
                one("name = \"a\"\nrole = \"read\""),
                "admin.token[0].file",
                Fault::Missing,
            ),
            (
                one(&WHOLE.replace("\"a\"", "\"a b\"")),
                "admin.token[0].name",
                Fault::Value,
            ),
            (
                with("backend = \"p\""),
                "admin.token[0].backend",
                Fault::Value,
            ),
            (
                with("backend = \"q/a\""),
                "admin.token[0].backend",
                Fault::Reference,
            ),
            (
                with("backend = \"p/none\""),
                "admin.token[0].backend",
                Fault::Reference,
            ),
            (
                with("backend = \"p/n\"").replace("operate", "read"),
                "admin.token[0].backend",
                Fault::Conflict,
            ),
            (
                tokens(&format!("[[admin.token]]\n{WHOLE}").repeat(2)),
                "admin.token[1].name",
                Fault::Conflict,
            ),
        ]);
    }

    #[test]
    fn a_backend_that_is_nearly_there_is_shown_with_its_pool() {
        let text = one(&format!("{WHOLE}backend = \"chat/nx\""));
        let text = text
            .replace("\"n\"", "\"n1\"")
            .replace("[pool.p]", "[pool.chat]");
        let text = text.replace("\"p\"", "\"chat\"");
        let said = |text: &str| read(text).unwrap_err().messages().remove(0).message;
        let told = said(&text);
        assert!(told.contains("did you mean \"chat/n1\"?"), "{told}");
        let told = said(&text.replace("chat/nx", "chatt/n1"));
        assert!(told.contains("did you mean \"chat/n1\"?"), "{told}");
    }

    #[test]
    fn a_token_has_a_name_a_file_and_what_it_may_do() {
        let config = right(&one(&format!("{WHOLE}backend = \"p/n\"")));
        let token = &config.admin.unwrap().tokens[0];
        assert_eq!(token.name, "a");
        assert_eq!(token.file, std::path::Path::new("/etc/evenkeel/a.token"));
        assert_eq!(token.role, AdminRole::Operate);
        assert_eq!(token.backend.as_ref().unwrap().to_string(), "p/n");
    }
}
