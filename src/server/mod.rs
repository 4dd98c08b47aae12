//! Owns everything: build, reload, stop, signals.
