//! Errors of the stand-alone frontend.

use crate::clients::listeners::PublishError;
use brolga_tape::entry::EntryError;
use std::io;

/// A stand-alone frontend cannot start or go on. One line.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A port of the server cannot be opened for clients.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A node has sent something that is not a record.
    #[error("a node's record cannot be read ({0}): are frontend and node of one build?")]
    Record(#[from] EntryError),
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    System {
        /// The operation.
        doing: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl ProxyError {
    /// For `map_err` on system calls.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { doing, source }
    }
}
