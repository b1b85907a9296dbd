//! The node: storage, sockets and the protocol, put together. (Placeholder, replaced at merge.)

use std::net::SocketAddr;
use std::path::PathBuf;

use ennead_ring::Name;
use ennead_ring::node::Birth;

/// What a node is started from.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it is called.
    pub advertise: Name,
    /// Its data directory.
    pub data: PathBuf,
    /// The folder of certificates.
    pub certs: PathBuf,
    /// How it comes to a cluster if it has none.
    pub birth: Birth,
    /// Its positions on the ring.
    pub virtual_peers: u32,
    /// Longest value accepted, in bytes.
    pub max_value: usize,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// Why a running node ended by itself.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StopReason(String);

/// A running node.
#[derive(Debug)]
pub struct Node {}

impl Node {
    /// Starts a node.
    ///
    /// # Errors
    /// Whatever keeps it from serving.
    pub async fn start(_config: NodeConfig) -> Result<Self, StartError> {
        Err(StartError("not built yet".to_string()))
    }

    /// Resolves when the node ends by itself, with the reason.
    pub async fn stopped(&self) -> StopReason {
        std::future::pending().await
    }

    /// Stops it in order, telling the peers why.
    pub async fn shutdown(self, _why: &str) {}
}
