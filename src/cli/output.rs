//! Standard output of a command.

use std::io::{ErrorKind, Write};

use super::failure::CommandError;

/// Prints a text. A reader that went away (`evenkeel status | head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    print_while_read(text).map(drop)
}

/// As [`print()`]; false where the reader went away.
pub(super) fn print_while_read(text: &str) -> Result<bool, CommandError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CommandError::io("write the answer")(error)),
    }
}
