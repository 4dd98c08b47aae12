//! Where a process runs and what ends it: bound to one core, and gone when its parent is.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

/// Binds this process and all that it starts to one core, and ties its life to its parent's, for the case that the driver is
/// killed before it can kill.
pub fn to_core(core: usize) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    rustix::thread::sched_setaffinity(None, &cores)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    raise_descriptors();
    Ok(())
}

/// Replaces this process by a program; comes back only with an error.
pub fn become_program(program: &str, arguments: &[&str]) -> io::Error {
    Command::new(program).args(arguments).exec()
}

/// Raises the soft limit of file descriptors to the hard one, and returns it.
pub fn raise_descriptors() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let after = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    after.unwrap_or(u64::MAX)
}
