//! `mode`, `owner`, `group`: the rights of a unix socket's file.

use crate::config::address::Bind;
use crate::config::declare::Declared;
use crate::config::reader::TableReader;
use crate::config::spec::text;
use crate::config::value_types;

table! {
    /// Rights of a unix socket's file; `None` leaves those that the umask and the process give.
    #[derive(Eq)]
    pub struct FileRights: Default {
        /// Rights of the file of a `unix:` bind, in force before anybody can connect. Without it:
        /// as the umask says; of the admin endpoint 0600, as who may ask may also drain and close.
        mode: Option<u32> = text("octal digits in quotes, such as \"0660\""),
            optional by value_types::text(read_mode);
        /// Owner of the file of a `unix:` bind. Without it: the user of the process.
        owner: Option<String> = text("the name or number of a user"),
            optional by value_types::text(read_name);
        /// Group of the file of a `unix:` bind; connecting takes the right to write. Without it:
        /// that of the process.
        group: Option<String> = text("the name or number of a group"),
            optional by value_types::text(read_name);
    }
}

const KEYS: [&str; 3] = ["mode", "owner", "group"];

/// Reads the rights of a `bind` that has a file.
pub(super) fn file_rights(table: &TableReader<'_>) -> Option<FileRights> {
    let bind = table.value("bind").filter(|value| value.is_string());
    let bind = bind.and_then(|value| value.string()?.parse().ok());
    if matches!(bind, Some(Bind::Tcp(_))) {
        table.conflicts(&KEYS, "only a `unix:` bind has a file");
        return Some(FileRights::default());
    }
    FileRights::read(table)
}

fn read_mode(text: &str) -> Result<u32, &'static str> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal = !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(digits, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Ok(mode),
        Ok(_) if is_octal => Err("it has more than nine bits"),
        _ => Err("it is not an octal number"),
    }
}

fn read_name(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("it is empty"),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, listener, pool, read, right};

    fn unix(keys: &str) -> String {
        let text = format!("bind = \"unix:/run/a\"\n{keys}");
        pool("").replace("bind = \"[::]:80\"", &text)
    }

    #[test]
    fn rights_are_read_and_the_admin_endpoint_is_its_owners() {
        let keys = "mode = \"0660\"\nowner = \"www\"\ngroup = \"33\"";
        let file = right(&unix(keys)).listeners.remove(0).file;
        let names = (file.owner.as_deref(), file.group.as_deref());
        assert_eq!((file.mode, names), (Some(0o660), (Some("www"), Some("33"))));
        let admin = |keys: &str| {
            let text = format!("{}[admin]\nbind = \"unix:/run/b\"\n{keys}\n", pool(""));
            right(&text).admin.unwrap().file.mode
        };
        assert_eq!(admin(""), Some(0o600));
        assert_eq!(admin("mode = \"666\""), Some(0o666));
        assert_eq!(right(&unix("")).listeners[0].file, FileRights::default());
    }

    #[test]
    fn a_mode_that_is_a_protocol_elsewhere_is_one_problem_and_told_so() {
        let text = listener("protocol = \"tcp\"\npool = \"p\"\nmode = \"http\"");
        let messages = read(&text).unwrap_err().messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        let said = &messages[0].message;
        assert!(said.contains("only a `unix:` bind has a file"), "{said}");
        assert!(said.contains("write `protocol = \"websocket\"`"), "{said}");
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let tcp = |keys: &str| format!("{}[admin]\nbind = \"127.0.0.1:1\"\n{keys}\n", pool(""));
        each_refused([
            (
                unix("mode = \"0888\""),
                "listener[0].mode",
                ErrorKind::Value,
            ),
            (
                unix("mode = \"1777\""),
                "listener[0].mode",
                ErrorKind::Value,
            ),
            (unix("mode = \"\""), "listener[0].mode", ErrorKind::Value),
            (unix("mode = \"u+x\""), "listener[0].mode", ErrorKind::Value),
            (unix("mode = 660"), "listener[0].mode", ErrorKind::Type),
            (unix("owner = \"\""), "listener[0].owner", ErrorKind::Value),
            (tcp("mode = \"0660\""), "admin.mode", ErrorKind::Conflict),
            (tcp("mode = \"http\""), "admin.mode", ErrorKind::Conflict),
            (tcp("group = \"x\""), "admin.group", ErrorKind::Conflict),
        ]);
    }
}
