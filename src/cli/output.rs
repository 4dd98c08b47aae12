//! Standard output of a command.

use std::io::{ErrorKind, Write};

use super::failure::CommandError;

/// Prints a text. A reader that went away (`evenkeel status | head`) is no failure.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CommandError::io("write the answer")(error))
        }
        _ => Ok(()),
    }
}
