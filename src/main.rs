//! The `evenkeel` binary.

use std::process::ExitCode;

/// Allocator of the process. The C library's takes a lock where memory is freed on another thread
/// than it was taken on, as nearly all memory of a set-up is: in a storm threads slept on those
/// locks while cores were free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    evenkeel::cli::main()
}
