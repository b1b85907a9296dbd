//! A client of QUIC that says what it likes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use ennead::wire::{self, ALPN, Frame, Hello, Role};
use ennead_ring::view::{ClusterId, Name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use super::{Authority, DEADLINE};

/// A client of QUIC that says what it likes.
pub(super) struct Raw {
    endpoint: quinn::Endpoint,
}

impl Raw {
    pub(super) fn new(authority: &CertificateDer<'static>, folder: &Path, file: &str, alpn: &[u8]) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), authority, folder, file, alpn)
    }

    /// One that calls from this address.
    pub(super) fn at(
        address: SocketAddr,
        authority: &CertificateDer<'static>,
        folder: &Path,
        file: &str,
        alpn: &[u8],
    ) -> Self {
        let certificate = CertificateDer::from_pem_file(folder.join(format!("{file}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join(format!("{file}.key"))).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.clone()).unwrap();
        let mut tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_client_auth_cert(vec![certificate], key)
                .unwrap();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client(address).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        Self { endpoint }
    }

    pub(super) fn client(authority: &Authority) -> Self {
        let identity = authority.client("tester");
        Self::new(identity.authority(), &authority.dir().join("clients"), "tester", ALPN)
    }

    pub(super) fn peer(authority: &Authority, name: Name) -> Self {
        let identity = authority.peer(name);
        Self::new(identity.authority(), &authority.dir().join("peers"), &name.to_string(), ALPN)
    }

    pub(super) async fn connect(&self, to: Name) -> Result<quinn::Connection, quinn::ConnectionError> {
        timeout(DEADLINE, self.endpoint.connect(to.address(), &to.ip().to_string()).unwrap()).await.unwrap()
    }

    /// Says these bytes on a fresh connection, ends the stream if asked to, and returns how that is answered.
    pub(super) async fn say(&self, to: Name, bytes: &[u8], finish: bool) -> (u64, String) {
        let connection = self.connect(to).await.unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        if finish {
            let _ = send.finish();
        }
        closed(&connection).await
    }
}

/// With which code and words the other end closed.
pub(super) async fn closed(connection: &quinn::Connection) -> (u64, String) {
    match timeout(DEADLINE, connection.closed()).await.expect("closed in time") {
        quinn::ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("{other}"),
    }
}

pub(super) fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for frame in frames {
        wire::encode(frame, &mut bytes).unwrap();
    }
    bytes.to_vec()
}

pub(super) fn hello(role: Role, cluster: Option<ClusterId>) -> Frame {
    Frame::Hello(Hello { role, cluster, version: "raw".to_string(), run: 1 })
}

pub(super) fn peer_authority(authority: &Authority) -> &'static CertificateDer<'static> {
    Box::leak(Box::new(CertificateDer::from_pem_file(authority.dir().join("ca.pem")).unwrap()))
}
