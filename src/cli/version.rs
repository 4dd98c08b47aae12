//! Text of `evenkeel --version`, for reports: `-V` is the version alone.

/// Version, commit, target and TLS libraries, as `build.rs` recorded them.
pub(super) const DETAILS: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("EVENKEEL_COMMIT"),
    "\ntarget: ",
    env!("EVENKEEL_TARGET"),
    "\nrustls: ",
    env!("EVENKEEL_RUSTLS"),
    "\naws-lc-rs: ",
    env!("EVENKEEL_AWS_LC_RS"),
    " (aws-lc-sys ",
    env!("EVENKEEL_AWS_LC_SYS"),
    ")",
);
