//! Start of the new process: the binary at the path by which this process was started, with the
//! same arguments. Its standard input is the channel. `/proc/self/exe` would name the old file.

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, Stdio};

use super::channel::Channel;
use crate::net::PacketSocket;

/// Variable by which the new process knows that its standard input is the channel. The value is the
/// process id of the old one.
pub(super) const VARIABLE: &str = "EVENKEEL_UPGRADE";
/// Variables of the service manager that name the old process or its descriptors.
const OF_OLD_PROCESS: [&str; 5] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "WATCHDOG_PID",
    "EVENKEEL_UPGRADE",
];

/// The command line of this process.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    program: OsString,
    arguments: Vec<OsString>,
}

impl CommandLine {
    /// The command line by which this process was started; `None` where the kernel gave none.
    pub(crate) fn of_process() -> Option<CommandLine> {
        let mut words = std::env::args_os();
        Some(CommandLine {
            program: words.next()?,
            arguments: words.collect(),
        })
    }

    pub(super) fn program(&self) -> std::path::Display<'_> {
        std::path::Path::new(&self.program).display()
    }

    /// Starts it once more, with a channel to it.
    ///
    /// # Errors
    /// Names the program that could not be started.
    pub(super) fn start(&self) -> Result<(Child, Channel), String> {
        let named = |error: io::Error| format!("start {}: {error}", self.program.display());
        let (own, other) = PacketSocket::pair().map_err(named)?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::from(other));
        for variable in OF_OLD_PROCESS {
            command.env_remove(variable);
        }
        command.env(VARIABLE, std::process::id().to_string());
        Ok((command.spawn().map_err(named)?, Channel::new(own)))
    }
}
