//! `[[admin.token]]`: who may ask, and for what.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::config::declare::Parts;
use crate::config::name::read_name;
use crate::config::reader::TableReader;
use crate::config::spec::text;
use crate::config::value_types::{self, parsed};

/// More are a mistake: every request is held against each.
const MAX_TOKENS: usize = 256;

table! {
    /// A bearer token of the admin endpoint. Its actions are logged under its name.
    #[derive(Eq)]
    pub struct AdminToken {
        /// Name of its holder, in the log beside each action.
        name: String = text("a name of letters, digits and - _ . :"),
            required by value_types::text(read_name);
        /// File that holds the token. Read at start and at reload.
        file: PathBuf = text("the path of a file"), required;
        /// Rights: `read` for status, connections, jobs, metrics and plans; `operate` for changes
        /// as well.
        role: AdminRole, required;
        /// Only backend that it may act on: its state, its weight, the jobs that empty it. So a
        /// node can drain itself, and nobody else. Without it: all that its role allows.
        backend: Option<BackendName> = text("POOL/BACKEND"),
            optional by parsed;
    }
    rules refuse_reader_of_one;
}

words! {
    /// Rights of a token.
    pub enum AdminRole {
        /// To look.
        Read = "read",
        /// To look and to act.
        Operate = "operate",
    }
}

/// A backend and its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendName {
    pub pool: String,
    pub backend: String,
}

impl fmt::Display for BackendName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.pool, self.backend)
    }
}

fn refuse_reader_of_one(table: &TableReader<'_>, token: &mut Parts<AdminToken>) {
    if token.role == Some(AdminRole::Read) {
        table.conflict("backend", "a token that only reads acts on none");
    }
}

/// Refuses too many tokens, and two of one name.
pub(super) fn refuse_many(admin: &TableReader<'_>) {
    let tables = admin.tables("token");
    if tables.len() > MAX_TOKENS {
        admin.conflict("token", "at most 256 tokens are allowed");
    }
    let why = |_: &str| "another token has this name".to_owned();
    TableReader::refuse_same(&tables, "name", why);
}

impl FromStr for BackendName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<BackendName, Self::Err> {
        let (pool, backend) = text
            .split_once('/')
            .ok_or("it has no \"/\" between the pool and the backend")?;
        if pool.is_empty() || backend.is_empty() {
            return Err("a name is missing");
        }
        Ok(BackendName {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, read, right};

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
                ErrorKind::Value,
            ),
            (
                one("name = \"a\"\nfile = \"f\""),
                "admin.token[0].role",
                ErrorKind::Missing,
            ),
            (
                one("name = \"a\"\nrole = \"read\""),
                "admin.token[0].file",
                ErrorKind::Missing,
            ),
            (
                one(&WHOLE.replace("\"a\"", "\"a b\"")),
                "admin.token[0].name",
                ErrorKind::Value,
            ),
            (
                with("backend = \"p\""),
                "admin.token[0].backend",
                ErrorKind::Value,
            ),
            (
                with("backend = \"q/a\""),
                "admin.token[0].backend",
                ErrorKind::Reference,
            ),
            (
                with("backend = \"p/none\""),
                "admin.token[0].backend",
                ErrorKind::Reference,
            ),
            (
                with("backend = \"p/n\"").replace("operate", "read"),
                "admin.token[0].backend",
                ErrorKind::Conflict,
            ),
            (
                tokens(&format!("[[admin.token]]\n{WHOLE}").repeat(2)),
                "admin.token[1].name",
                ErrorKind::Conflict,
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
