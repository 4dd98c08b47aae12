//! The sources as the tests about their structure see them.

use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, File, Item};

pub struct Source {
    /// Below `src`.
    pub path: PathBuf,
    pub text: String,
    /// Without its tests.
    pub file: File,
}

impl Source {
    pub fn parse(path: &str, text: &str) -> Self {
        let mut file = syn::parse_file(text).unwrap_or_else(|error| panic!("{path}: {error}"));
        file.items.retain(|item| !is_test(item));
        Self {
            path: PathBuf::from(path),
            text: text.to_owned(),
            file,
        }
    }

    /// `proxy/http.rs` -> `[proxy, http]`, `proxy/mod.rs` -> `[proxy]`, `lib.rs` -> `[]`.
    pub fn module(&self) -> Vec<String> {
        let mut module: Vec<String> = self
            .path
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        if matches!(
            module.last().map(String::as_str),
            Some("mod" | "lib" | "main")
        ) {
            module.pop();
        }
        module
    }

    pub fn room(&self) -> Option<String> {
        self.module().into_iter().next()
    }

    /// True for a file that only tests use.
    pub fn is_test_file(&self) -> bool {
        self.path.components().any(|part| {
            let part = part.as_os_str().to_string_lossy();
            matches!(part.trim_end_matches(".rs"), "tests" | "model")
        })
    }

    /// Comments and the insides of literals are no tokens.
    pub fn tokens(&self) -> TokenStream {
        self.file.to_token_stream()
    }
}

/// Every source of the crate, its tests' files left out.
pub fn all() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "too few sources below {}", root.display());
    files
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).expect("read a source");
            let below = path.strip_prefix(&root).expect("below src");
            Source::parse(&below.to_string_lossy(), &text)
        })
        .filter(|source| !source.is_test_file())
        .collect()
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("read the sources") {
        let path = entry.expect("read the sources").path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// `#[cfg(test)]` and `#[cfg(any(test, ...))]`.
fn is_test(item: &Item) -> bool {
    let attributes = match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(names_test)
}

fn names_test(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && flat(attribute.to_token_stream())
            .iter()
            .any(|token| matches!(token, TokenTree::Ident(word) if *word == "test"))
}

/// The tokens one behind the other, groups opened: each group comes first and then what it holds.
pub fn flat(tokens: TokenStream) -> Vec<TokenTree> {
    let mut all = Vec::new();
    for token in tokens {
        all.push(token.clone());
        if let TokenTree::Group(group) = token {
            all.extend(flat(group.stream()));
        }
    }
    all
}
