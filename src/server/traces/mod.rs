//! Export of traces to a collector, over OTLP/HTTP with protobuf.
//!
//! One task of the control runtime takes finished spans from the tracer's queue and sends them in
//! batches. The messages are those of `opentelemetry-proto`. The SDK's processor is not used: it
//! has a thread and a queue of its own, and no client with this process's TLS and names.

#[cfg(feature = "traces")]
mod exporter;
mod headers;
#[cfg(feature = "traces")]
mod otlp;

use std::sync::Arc;
use std::time::Duration;

use super::state::Server;
use crate::config::Traces;

/// Time for the last spans of a process that stops.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Starts to export; ends with the server.
#[cfg(feature = "traces")]
pub(super) fn start(server: &Arc<Server>) {
    if let Some(queue) = server.journal().tracer().take_queue() {
        let exporter = exporter::Exporter::new(server, queue);
        server.control_runtime().spawn(exporter.run());
    }
}

/// Without the feature no configuration has traces.
#[cfg(not(feature = "traces"))]
pub(super) fn start(_: &Arc<Server>) {}

/// Verifies that the files of `[traces]` can be used.
///
/// # Errors
/// Names the file, and says what is wrong with it.
pub(super) fn verify(traces: &Traces) -> Result<(), headers::FileError> {
    let loaded = traces.tls.as_ref().map(crate::tls::BackendTlsConfig::load);
    loaded.transpose().map_err(|error| headers::FileError {
        file: error.file().map(ToOwned::to_owned),
        what: error.to_string(),
    })?;
    let file = traces.headers_file.as_deref();
    file.map(headers::read).transpose().map(drop)
}

impl Server {
    /// Waits until the spans so far are sent, as long as that may take at an end.
    pub(super) async fn flush_traces(&self) {
        let tracer = self.journal().tracer();
        if tracer.is_on()
            && tokio::time::timeout(LAST_SPANS, tracer.flush())
                .await
                .is_err()
        {
            tracing::warn!("the collector of traces did not take the last spans in time");
        }
    }
}
