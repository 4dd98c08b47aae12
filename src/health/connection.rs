//! The connection of a check, and helpers for every kind of check.

use std::future::Future;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection to make a check's request over.
pub(super) trait CheckConnection: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> CheckConnection for T {}

/// Polls hyper's connection while it waits for `answer`. Without a task of its own it ends with the
/// check.
pub(super) async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = T>,
) -> T {
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // `answer` has seen the end of the connection, too, as its value or its error.
        _ = &mut connection => answer.await,
    }
}

/// Short message: `connection refused` rather than `Connection refused (os error 111)`; an error
/// without a short name stays as it is.
pub(super) fn plain_io_error(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) if !error.kind().to_string().contains("uncategorized") => error.kind().to_string(),
        _ => error.to_string(),
    }
}
