//! The process's memory: use, limit by control groups, and release.

use std::fs;
use std::path::Path;

/// Where control groups are mounted, of both versions.
const GROUPS: &str = "/sys/fs/cgroup";
/// The first version says "no limit" by a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// Bytes of anonymous memory: the kernel cannot drop it, and kills for it. `None` where the kernel
/// does not tell.
pub(crate) fn anonymous_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// The smallest limit of memory of the control groups that this process is in, in bytes.
pub(crate) fn group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_of(&groups, Path::new(GROUPS))
}

/// The smallest limit by `groups`, the text of `/proc/PID/cgroup`, and the files under `root`.
fn limit_of(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| limit_of_group(line, root))
        .min()
}

fn limit_of_group(line: &str, root: &Path) -> Option<u64> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let (root, file) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    // In a container the path may be the host's, and the root its own group.
    let ancestors = Path::new(path.trim_start_matches('/')).ancestors();
    let limit = |group: &Path| {
        let text = fs::read_to_string(root.join(group).join(file)).ok()?;
        text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
    };
    ancestors.filter_map(limit).min()
}

/// Returns unused pages to the kernel.
pub(crate) fn release_free_pages() {
    allocator::collect();
}

mod allocator {
    #![allow(unsafe_code)]
    // Linked even where it is not the allocator.
    use mimalloc as _;

    unsafe extern "C" {
        fn mi_collect(force: bool);
    }

    pub(super) fn collect() {
        // SAFETY: any thread may call it at any time; it moves nothing that is in use.
        unsafe { mi_collect(true) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_smallest_limit_above_the_process_counts() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, "a/memory.max", "3000\n");
        write(root, "a/b/memory.max", "max\n");
        write(root, "a/b/c/memory.max", "5000\n");
        write(root, "other/memory.max", "1\n");
        assert_eq!(limit_of("0::/a/b/c\n", root), Some(3000));
        assert_eq!(limit_of("0::/a/b\n", root), Some(3000));
        assert_eq!(limit_of("0::/\n", root), None);
        write(root, "memory.max", "2000\n");
        assert_eq!(limit_of("0::/of/the/host\n", root), Some(2000));
    }

    #[test]
    fn the_first_version_of_control_groups_is_read_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let unlimited = "9223372036854771712\n";
        write(root, "memory/memory.limit_in_bytes", unlimited);
        write(root, "memory/pod/memory.limit_in_bytes", "7000\n");
        write(root, "cpu/pod/memory.limit_in_bytes", "1\n");
        let groups = "5:cpu,cpuacct:/pod\n4:memory:/pod\n0::/\n";
        assert_eq!(limit_of(groups, root), Some(7000));
        assert_eq!(limit_of("4:memory:/\n", root), None);
        assert_eq!(limit_of("nothing of the kind", root), None);
    }

    #[test]
    fn what_is_held_is_seen_and_giving_back_does_no_harm() {
        let held = vec![1u8; 64 << 20];
        let anonymous = anonymous_bytes().unwrap();
        assert!(anonymous >= 64 << 20, "{anonymous}");
        release_free_pages();
        assert!(held.iter().all(|byte| *byte == 1));
    }
}
