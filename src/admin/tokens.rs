//! Bearer tokens of the admin endpoint: whose a request is, and what it may do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use subtle::ConstantTimeEq;
use tracing::warn;

use super::reply::ApiError;
use super::route::ApiRoute;
use crate::config::{Admin, AdminRole, BackendName};

/// Limit of a token file, which holds one line.
const MAX_TOKEN_FILE_BYTES: usize = 4096;

/// Length from which a token is not guessed over the network, however it is written.
const SHORT_TOKEN_BYTES: usize = 16;

/// Valid tokens. Without any, every client may do everything.
#[derive(Default)]
pub(super) struct Tokens(Vec<Arc<Token>>);

/// A token and whose it is.
#[derive(PartialEq, Eq)]
pub(super) struct Token {
    secret: String,
    pub holder: TokenHolder,
}

/// Holder of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenHolder {
    /// Name of the token, for the log.
    pub name: String,
    role: AdminRole,
    /// The only backend that it may act on.
    backend: Option<BackendName>,
}

impl Tokens {
    /// # Errors
    /// A file cannot be read, or two hold the same token.
    pub(super) fn load(admin: &Admin) -> Result<Tokens, String> {
        let mut tokens = Tokens::default();
        if let Some(file) = &admin.token_file {
            let holder = TokenHolder::operator("token_file");
            tokens.add("admin.token_file", file, holder)?;
        }
        for token in &admin.tokens {
            let holder = TokenHolder {
                name: token.name.clone(),
                role: token.role,
                backend: token.backend.clone(),
            };
            let key = format!("admin.token {:?}:", token.name);
            tokens.add(&key, &token.file, holder)?;
        }
        Ok(tokens)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, key: &str, file: &Path, holder: TokenHolder) -> Result<(), String> {
        let secret = read(key, file)?;
        if let Some(same) = self.0.iter().find(|token| token.secret == secret) {
            let shown = file.display();
            return Err(format!(
                "{key} {shown}: {:?} has the same token",
                same.holder.name
            ));
        }
        self.0.push(Arc::new(Token { secret, holder }));
        Ok(())
    }

    /// Finds the token of this text.
    pub(super) fn of_secret(&self, given: &str) -> Option<Arc<Token>> {
        let mut found = None;
        // Compare with all of them, so that the time reveals nothing.
        for token in &self.0 {
            if bool::from(given.as_bytes().ct_eq(token.secret.as_bytes())) {
                found = Some(Arc::clone(token));
            }
        }
        found
    }

    /// Whether that token is one of them and its holder may what it might.
    pub(super) fn has(&self, token: &Token) -> bool {
        self.0.iter().any(|one| **one == *token)
    }
}

#[cfg(test)]
impl Token {
    pub(super) fn testing(name: &str) -> Arc<Token> {
        Arc::new(Token {
            secret: format!("secret-{name}"),
            holder: TokenHolder::operator(name),
        })
    }
}

impl TokenHolder {
    /// Makes a holder that may do everything.
    fn operator(name: &str) -> TokenHolder {
        TokenHolder {
            name: name.to_owned(),
            role: AdminRole::Operate,
            backend: None,
        }
    }

    /// Checks a request. `of_job` finds the backend that a job empties, if it is one of a backend.
    ///
    /// # Errors
    /// Says what the token may do.
    pub(super) fn may(
        &self,
        route: &ApiRoute,
        of_job: impl FnOnce(&str) -> Option<BackendName>,
    ) -> Result<(), ApiError> {
        if matches!(route, ApiRoute::Configuration | ApiRoute::FilePlan) {
            return self.may_read_text();
        }
        // A plan only says what a reload would do.
        if !route.is_change() || matches!(route, ApiRoute::Plan | ApiRoute::Logout) {
            return Ok(());
        }
        let TokenHolder {
            name,
            role,
            backend,
        } = self;
        if *role == AdminRole::Read {
            return Err(ApiError::forbidden(format!("token {name:?} may only read")));
        }
        let Some(backend) = backend else {
            return Ok(());
        };
        let named = match route {
            ApiRoute::Operate(target, _) | ApiRoute::Weight(target) => Some(BackendName {
                pool: target.pool.clone(),
                backend: target.backend.clone(),
            }),
            ApiRoute::AbortJob(id) => of_job(id),
            _ => None,
        };
        if named.as_ref() == Some(backend) {
            return Ok(());
        }
        let message = format!("token {name:?} may only act on backend {backend}");
        Err(ApiError::forbidden(message))
    }

    /// The file may hold secrets, as in the header of a check.
    pub(super) fn may_read_text(&self) -> Result<(), ApiError> {
        if self.role == AdminRole::Operate && self.backend.is_none() {
            return Ok(());
        }
        let message = format!(
            "token {:?} may not read the configuration's text",
            self.name
        );
        Err(ApiError::forbidden(message))
    }

    /// Word of the role.
    pub(super) fn role(&self) -> &'static str {
        match self.role {
            AdminRole::Read => "read",
            AdminRole::Operate => "operate",
        }
    }

    /// The only backend that it may act on.
    pub(super) fn backend(&self) -> Option<&BackendName> {
        self.backend.as_ref()
    }
}

fn read(key: &str, file: &Path) -> Result<String, String> {
    let shown = file.display();
    let text = std::fs::read(file).map_err(|error| format!("{key} {shown}: {error}"))?;
    warn_if_readable_by_others(file);
    let token = text.trim_ascii();
    if token.is_empty()
        || text.len() > MAX_TOKEN_FILE_BYTES
        || !token.iter().all(u8::is_ascii_graphic)
    {
        return Err(format!(
            "{key} {shown}: it must hold one line of visible ASCII, at most {MAX_TOKEN_FILE_BYTES} bytes"
        ));
    }
    if token.len() < SHORT_TOKEN_BYTES {
        warn!(file = %shown, "the admin token has less than {SHORT_TOKEN_BYTES} bytes and can be guessed");
    }
    Ok(String::from_utf8_lossy(token).into_owned())
}

fn warn_if_readable_by_others(file: &Path) {
    let mode = std::fs::metadata(file)
        .map(|found| found.permissions().mode())
        .unwrap_or_default();
    if mode & 0o004 != 0 {
        warn!(file = %file.display(), "every user of this machine can read the admin token");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminToken, Bind};

    fn backend() -> BackendName {
        BackendName {
            pool: "chat".into(),
            backend: "n1".into(),
        }
    }

    fn holder(role: AdminRole, backend: Option<BackendName>) -> TokenHolder {
        TokenHolder {
            name: "a".into(),
            role,
            backend,
        }
    }

    fn may(holder: &TokenHolder, path: &str) -> bool {
        let route = ApiRoute::parse(path).unwrap();
        let of_job = |id: &str| (id == "7").then(backend);
        holder.may(&route, of_job).is_ok()
    }

    const LOOKS: [&str; 4] = [
        "/api/v1/status",
        "/api/v1/connections",
        "/api/v1/plan",
        "/metrics",
    ];
    const OF_N1: [&str; 3] = [
        "/api/v1/pools/chat/backends/n1/drain",
        "/api/v1/pools/chat/backends/n1/weight",
        "/api/v1/jobs/7/abort",
    ];
    const OF_OTHERS: [&str; 7] = [
        "/api/v1/pools/chat/backends/n2/ready",
        "/api/v1/pools/other/backends/n1/maint",
        "/api/v1/jobs/8/abort",
        "/api/v1/listeners/main/drain",
        "/api/v1/connections/close",
        "/api/v1/connections/1",
        "/api/v1/reload",
    ];

    #[test]
    fn a_token_does_what_its_role_and_its_backend_allow() {
        let cases = [
            (holder(AdminRole::Read, None), false, false),
            (holder(AdminRole::Operate, Some(backend())), true, false),
            (holder(AdminRole::Operate, None), true, true),
        ];
        for (holder, own, others) in cases {
            let all = |paths: &[&str]| paths.iter().map(|path| may(&holder, path)).collect();
            let (looks, of_n1, of_others): (Vec<_>, Vec<_>, Vec<_>) =
                (all(&LOOKS), all(&OF_N1), all(&OF_OTHERS));
            assert_eq!(looks, [true; LOOKS.len()], "{holder:?}");
            assert_eq!(of_n1, [own; OF_N1.len()], "{holder:?}");
            assert_eq!(of_others, [others; OF_OTHERS.len()], "{holder:?}");
        }
    }

    fn admin(folder: &Path) -> Admin {
        let token = |name: &str| AdminToken {
            name: name.into(),
            file: folder.join(name),
            role: AdminRole::Operate,
            backend: None,
        };
        Admin {
            bind: Bind::Unix("/run/a".into()),
            token_file: Some(folder.join("old")),
            tokens: vec![token("anna"), token("bert")],
            tls: None,
            allowed_hosts: Vec::new(),
            access: Default::default(),
            file: Default::default(),
        }
    }

    #[test]
    fn each_token_is_somebodys_and_no_two_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, token: &str| {
            std::fs::write(folder.path().join(name), format!("{token}\n")).unwrap();
        };
        for name in ["old", "anna", "bert"] {
            write(name, &format!("secret-{name}"));
        }
        let admin = admin(folder.path());
        let tokens = Tokens::load(&admin).unwrap();
        let ask = |token: &str| {
            let found = tokens.of_secret(token);
            found.map_or_else(String::new, |one| one.holder.name.clone())
        };
        assert_eq!(ask("secret-old"), "token_file");
        assert_eq!(ask("secret-anna"), "anna");
        assert_eq!(ask("secret-bert"), "bert");
        for wrong in ["secret-", "secret-bert2", ""] {
            assert_eq!(ask(wrong), "", "{wrong}");
        }
        assert!(tokens.has(&tokens.of_secret("secret-anna").unwrap()));
        assert!(!Tokens::default().has(&tokens.of_secret("secret-anna").unwrap()));
        write("bert", "secret-anna");
        let error = Tokens::load(&admin).err().unwrap();
        assert!(error.contains("\"anna\" has the same token"), "{error}");
    }

    #[test]
    fn a_token_is_one_visible_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(read("admin.token_file", &file).unwrap(), "s3cret");
        for bad in ["", "\n", "two words", "a\nb", "\u{e9}", &"x".repeat(5000)] {
            std::fs::write(&file, bad).unwrap();
            assert!(read("admin.token_file", &file).is_err(), "{bad:?}");
        }
        assert!(
            read("admin.token_file", &folder.path().join("none"))
                .unwrap_err()
                .contains("none: ")
        );
    }
}
