//! Processes that the driver starts: each leads a process group, so that a balancer's workers end with it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::ROLE;

/// Groups that are alive, for the end of a run that a signal cut short.
static ALIVE: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// A process group that dies with this value.
pub struct Group {
    leader: Child,
    id: Pid,
}

impl Group {
    fn start(command: &mut Command) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let leader = command
            .process_group(0)
            .spawn()
            .context("start a process")?;
        let id = Pid::from_child(&leader);
        ALIVE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(id);
        Ok(Self { leader, id })
    }

    /// Starts a program on one core, its output in a file.
    pub fn pinned(
        core: usize,
        program: &Path,
        arguments: &[String],
        output: &Path,
    ) -> Result<Self> {
        let log = std::fs::File::create(output).with_context(|| output.display().to_string())?;
        let mut command = own(&["pinned", &core.to_string()])?;
        command.arg(program).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Self::start(&mut command)
    }

    pub fn id(&self) -> i32 {
        self.id.as_raw_nonzero().get()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.leader.try_wait(), Ok(None))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The leader is reaped after this: until then its id, and with it the group's, cannot be another's.
        let _ = kill_process_group(self.id, Signal::KILL);
        let _ = self.leader.wait();
        ALIVE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id| *id != self.id);
    }
}

/// Kills every group that is still alive.
pub fn kill_all() {
    for id in ALIVE
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .drain(..)
    {
        let _ = kill_process_group(id, Signal::KILL);
    }
}

/// Another copy of this program, in another role, which answers by lines.
pub struct Twin {
    pub group: Group,
    lines: Receiver<String>,
}

impl Twin {
    pub fn start(role: &str, order: &str) -> Result<Self> {
        let mut command = own(&[role, order])?;
        let mut group = Group::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let output = group.leader.stdout.take().context("the output of a copy")?;
        let (sender, lines) = mpsc::channel();
        thread::Builder::new()
            .name(format!("output of {role}"))
            .spawn(move || {
                let mut lines = BufReader::new(output).lines().map_while(Result::ok);
                lines.try_for_each(|line| sender.send(line))
            })?;
        Ok(Self { group, lines })
    }

    /// The next line of its output.
    pub fn line(&self, limit: Duration) -> Result<String> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow!("no answer within {limit:?}"),
            RecvTimeoutError::Disconnected => anyhow!("the process ended, see above"),
        })
    }

    pub fn say(&mut self, line: &str) -> Result<()> {
        let input = self
            .group
            .leader
            .stdin
            .as_mut()
            .context("the input of a copy")?;
        Ok(writeln!(input, "{line}")?)
    }
}

fn own(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.arg(ROLE).args(arguments);
    Ok(command)
}
