//! The rights of unix sockets' files: what the configuration says, whatever the umask.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::harness::{Balancer, Launch};
use crate::nodes::Node;
use crate::settings::{backend, pool};

fn rights(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("the file is there");
    metadata.permissions().mode() & 0o777
}

fn config(folder: &Path, listener: &str, admin: &str, node: &Node) -> String {
    let folder = folder.display();
    format!(
        "[[listener]]\nname = \"main\"\nbind = \"unix:{folder}/main\"\nprotocol = \"tcp\"\npool = \"nodes\"\n{listener}\n\n\
         [admin]\nbind = \"unix:{folder}/admin\"\n{admin}\n\n[metrics]\nbind = \"unix:{folder}/metrics\"\n\n"
    ) + &pool("nodes", "", &[backend("n1", node.address)])
}

async fn listening(balancer: &Balancer) {
    let is_it = |event: &crate::harness::Event| {
        event.message() == "listening" && event.field("listener") == Some("metrics")
    };
    balancer.event("the last listener", 0, is_it).await;
}

/// The admin socket was open to whom the umask let in.
#[tokio::test]
async fn files_have_their_mode_whatever_the_umask_and_a_reload_changes_it_in_place() {
    let node = Node::echo("n1").await;
    for umask in ["000", "077"] {
        let launch = Launch::new().after(&format!("umask {umask}"));
        let folder = launch.folder.path().to_owned();
        let text = |mode: &str| config(&folder, &format!("mode = \"{mode}\""), "", &node);
        let balancer = launch.start(&text("0660"));
        listening(&balancer).await;
        assert_eq!(rights(&folder.join("main")), 0o660);
        assert_eq!(rights(&folder.join("admin")), 0o600);
        let by_umask = 0o777 & !u32::from_str_radix(umask, 8).expect("octal");
        assert_eq!(rights(&folder.join("metrics")), by_umask);
        let before = std::fs::metadata(folder.join("main")).expect("it").ino();
        let position = balancer.log.position();
        balancer.write(&text("0606"));
        balancer.signal("HUP");
        let reloaded = |event: &crate::harness::Event| event.message() == "reloaded";
        balancer.event("the reload", position, reloaded).await;
        assert_eq!(rights(&folder.join("main")), 0o606);
        assert_eq!(
            std::fs::metadata(folder.join("main")).expect("it").ino(),
            before
        );
    }
}

#[tokio::test]
async fn check_names_a_user_that_is_not_there() {
    let node = Node::echo("n1").await;
    let launch = Launch::new();
    let folder = launch.folder.path();
    let text = config(
        folder,
        "owner = \"no-such-user\"",
        "group = \"no-such-group\"",
        &node,
    );
    std::fs::write(launch.path("a.toml"), text).expect("write a file");
    let (code, _, told) = crate::harness::run(&["check", "a.toml"], folder).await;
    assert_eq!(code, 1);
    for wanted in [
        "no user \"no-such-user\"",
        "no group \"no-such-group\"",
        "2 errors",
    ] {
        assert!(told.contains(wanted), "{told}");
    }
}
