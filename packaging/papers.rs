//! Writes man pages and shell completions into a folder, from the definition of the command line.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.ok_or_else(|| io::Error::other("usage: papers FOLDER"))?;
    let man = folder.join("man");
    fs::create_dir_all(&man)?;
    let mut command = evenkeel::cli::command();
    clap_mangen::generate_to(command.clone(), &man)?;
    completions(&mut command, &folder)
}

/// Each under the name by which its shell looks for it.
fn completions(command: &mut clap::Command, folder: &Path) -> io::Result<()> {
    let shells = [
        (Shell::Bash, "bash", "evenkeel"),
        (Shell::Zsh, "zsh", "_evenkeel"),
        (Shell::Fish, "fish", "evenkeel.fish"),
    ];
    for (shell, of, name) in shells {
        fs::create_dir_all(folder.join(of))?;
        let mut file = File::create(folder.join(of).join(name))?;
        clap_complete::generate(shell, command, "evenkeel", &mut file);
    }
    Ok(())
}
