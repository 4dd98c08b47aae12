//! Plan of the places in the file system that decide what a path leads to. Pure: the file system
//! is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// Links that are followed on the way to one file; the kernel follows as many.
const MAX_LINKS: usize = 40;

/// Kind of a path's last name, its links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Missing,
    Folder,
    File,
    /// With its target.
    Link(PathBuf),
}

/// A folder or a file to be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A folder on the way. These names in it matter; without one only its own removal does.
    Folder(BTreeSet<OsString>),
    /// A file, for writes in place.
    File,
}

/// Places by path, none of which leads through a link. A folder comes before what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan(pub(super) BTreeMap<PathBuf, Place>);

impl Plan {
    /// Plans the watch of absolute paths. `look` tells what stands at a path.
    pub(super) fn of<'a>(
        files: impl IntoIterator<Item = &'a PathBuf>,
        mut look: impl FnMut(&Path) -> Node,
    ) -> Plan {
        let mut plan = Plan::default();
        for file in files {
            plan.trace(file, &mut look);
        }
        plan
    }

    /// Follows a path through its links, up to the file or to the first name that is missing.
    fn trace(&mut self, file: &Path, look: &mut impl FnMut(&Path) -> Node) {
        let mut at = PathBuf::from("/");
        let mut rest = Vec::new();
        put_names(&mut rest, file);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                at.pop();
                continue;
            }
            let here = at.join(&name);
            match look(&here) {
                Node::Folder if !rest.is_empty() => {
                    self.folder(&here);
                    at = here;
                }
                Node::Missing | Node::Folder => return self.name(&at, name),
                Node::File => {
                    self.name(&at, name);
                    self.0.insert(here, Place::File);
                    return;
                }
                Node::Link(target) => {
                    self.name(&at, name);
                    links += 1;
                    if links > MAX_LINKS {
                        return;
                    }
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    put_names(&mut rest, &target);
                }
            }
        }
    }

    fn folder(&mut self, folder: &Path) -> &mut Place {
        self.0
            .entry(folder.to_owned())
            .or_insert_with(|| Place::Folder(BTreeSet::new()))
    }

    fn name(&mut self, folder: &Path, name: OsString) {
        if let Place::Folder(names) = self.folder(folder) {
            names.insert(name);
        }
    }
}

/// Puts the names of a path on a stack, the first on top.
fn put_names(stack: &mut Vec<OsString>, path: &Path) {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    stack.extend(names.map(ToOwned::to_owned));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Tree = BTreeMap<PathBuf, Node>;

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let nodes = nodes.iter().cloned();
        nodes
            .map(|(path, node)| (PathBuf::from(path), node))
            .collect()
    }

    fn look(tree: &Tree) -> impl FnMut(&Path) -> Node {
        |path| tree.get(path).cloned().unwrap_or(Node::Missing)
    }

    fn plan(file: &str, tree: &Tree) -> Plan {
        Plan::of([&PathBuf::from(file)], look(tree))
    }

    fn link(target: &str) -> Node {
        Node::Link(PathBuf::from(target))
    }

    /// The plan in words: a folder with its names, a file alone.
    fn words(plan: &Plan) -> Vec<String> {
        let word = |(path, place): (&PathBuf, &Place)| match place {
            Place::File => path.display().to_string(),
            Place::Folder(names) => {
                let names: Vec<_> = names.iter().map(|name| name.to_string_lossy()).collect();
                format!("{}: {}", path.display(), names.join(" "))
            }
        };
        plan.0.iter().map(word).collect()
    }

    #[test]
    fn a_plain_file_is_watched_with_its_name_in_its_folder() {
        let tree = tree(&[
            ("/etc", Node::Folder),
            ("/etc/lb", Node::Folder),
            ("/etc/lb/a.toml", Node::File),
        ]);
        let plan = plan("/etc/./lb/../lb/a.toml", &tree);
        assert_eq!(
            words(&plan),
            ["/etc: ", "/etc/lb: a.toml", "/etc/lb/a.toml"]
        );
    }

    #[test]
    fn a_config_map_is_watched_at_each_of_its_links() {
        let tree = tree(&[
            ("/etc", Node::Folder),
            ("/etc/lb", Node::Folder),
            ("/etc/lb/a.toml", link("..data/a.toml")),
            ("/etc/lb/..data", link("..2026_1")),
            ("/etc/lb/..2026_1", Node::Folder),
            ("/etc/lb/..2026_1/a.toml", Node::File),
        ]);
        assert_eq!(
            words(&plan("/etc/lb/a.toml", &tree)),
            [
                "/etc: ",
                "/etc/lb: ..data a.toml",
                "/etc/lb/..2026_1: a.toml",
                "/etc/lb/..2026_1/a.toml",
            ]
        );
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_would_come() {
        let etc = tree(&[("/etc", Node::Folder)]);
        assert_eq!(words(&plan("/etc/lb/a.toml", &etc)), ["/etc: lb"]);
        let dangling = tree(&[("/etc", Node::Folder), ("/etc/lb", link("/data/lb"))]);
        assert_eq!(
            words(&plan("/etc/lb/a.toml", &dangling)),
            ["/: data", "/etc: lb"]
        );
    }

    #[test]
    fn a_circle_of_links_ends() {
        let tree = tree(&[("/a", link("b")), ("/b", link("/a"))]);
        assert_eq!(words(&plan("/a", &tree)), ["/: a b"]);
    }

    fn any_node() -> impl Strategy<Value = Node> {
        prop_oneof![
            Just(Node::Missing),
            Just(Node::Folder),
            Just(Node::File),
            "/?(\\.\\./)?[ab](/[ab])?".prop_map(|target| link(&target)),
        ]
    }

    proptest! {
        /// Whatever another node at one path would change is seen in a folder that is watched for
        /// this name, or as the removal of a folder.
        #[test]
        fn a_change_that_leads_elsewhere_is_seen(
            nodes in prop::collection::btree_map("/[ab](/[ab])?(/[ab])?", any_node(), 0..12),
            file in "/[ab](/[ab])?(/[ab])?",
            at in "/[ab](/[ab])?(/[ab])?",
            becomes in any_node(),
        ) {
            let mut tree: Tree = nodes.into_iter().map(|(path, node)| (path.into(), node)).collect();
            let (file, at) = (PathBuf::from(file), PathBuf::from(at));
            let before = Plan::of([&file], look(&tree));
            let was = tree.insert(at.clone(), becomes).unwrap_or(Node::Missing);
            let after = Plan::of([&file], look(&tree));
            let names = match before.0.get(at.parent().unwrap()) {
                Some(Place::Folder(names)) => names.contains(at.file_name().unwrap()),
                _ => false,
            };
            let is_seen = names || (was == Node::Folder && before.0.contains_key(&at));
            prop_assert!(before == after || is_seen, "{before:?} {after:?}");
        }
    }
}
