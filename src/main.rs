//! The `evenkeel` binary.

use std::process::ExitCode;

/// The C library's takes a lock where memory is freed on another thread than that it was taken on, and nearly all that a
/// connection is set up with is: threads slept on those locks in a storm while cores were free.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    evenkeel::cli::main()
}
