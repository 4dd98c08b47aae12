//! Nearest-name hints for messages.
