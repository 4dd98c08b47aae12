//! Blocks the process's signals until their handlers are installed. An earlier one would end the
//! process, as is the kernel's default for most.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ptr;

use libc::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, c_int, sigset_t};

/// Signals that a running balancer handles. PIPE is ignored by the runtime of Rust, WINCH by the
/// kernel.
const ANSWERED: [c_int; 7] = [SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Blocks the signals in this thread and in those that it starts from now on; they stay pending.
pub(crate) fn block() {
    mask(libc::SIG_BLOCK);
}

/// Unblocks the signals in this thread, pending ones first. One thread that takes them is enough
/// for the process.
pub(crate) fn unblock() {
    mask(libc::SIG_UNBLOCK);
}

fn mask(how: c_int) {
    let mut set = MaybeUninit::<sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that the other calls are given, all live on this
    // stack; the numbers are signals, so that none of the calls can fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in ANSWERED {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut());
    }
}
