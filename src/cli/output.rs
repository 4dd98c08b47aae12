//! What a command writes on standard output.

use std::io::{ErrorKind, Write};

use super::failure::Failure;

/// A reader that went away (`evenkeel status | head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::io("write the answer")(error))
        }
        _ => Ok(()),
    }
}
