//! How the endpoint is set up: socket, TLS, QUIC. The figures are those of the measurements they cite.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use socket2::{Domain, Protocol, Socket, Type};

use super::versions::INTRODUCTION;
use super::{Config, TransportError};
use crate::certs::Identity;
use crate::clock;

/// The default receive buffer of the system drops packets at 1,024 requests outstanding.
const SOCKET_BUFFER: usize = 4 << 20;
/// Streams the other end may open: three are used. quinn sets memory aside for each one permitted.
const STREAMS: u32 = 16;
/// Bytes of one stream that may be under way or unread: a round trip's worth on a fast LAN.
const STREAM_WINDOW: u32 = 2 << 20;
/// The same for a connection.
const CONNECTION_WINDOW: u32 = 6 << 20;
/// Packets after which the other end acknowledges: 34 % less CPU a request than every second.
const ACK_THRESHOLD: u32 = 10;
/// Bytes that may be under way before the path is known: a batch of frames, or a small value.
const INITIAL_WINDOW: u64 = 128 << 10;
/// What a round trip is taken for until one is measured: a lost first packet is sent again after three of these,
/// and a connection closed before that lingers for nine. The default, a third of a second, is for the internet.
const INITIAL_RTT: Duration = Duration::from_millis(100);
/// How often a machine shows that it lives on a connection it dialled to another.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// What an endpoint is made of.
pub(super) struct Settings {
    pub(super) endpoint: EndpointConfig,
    pub(super) server: Option<ServerConfig>,
    pub(super) client: ClientConfig,
    pub(super) socket: std::net::UdpSocket,
}

pub(super) fn settings(config: &Config) -> Result<Settings, TransportError> {
    let socket = match config.listen {
        Some(address) => bind(address).map_err(|source| TransportError::Listen {
            address,
            what: what_to_do(&source),
            source,
        })?,
        None => bind_any().map_err(TransportError::Socket)?,
    };
    Ok(Settings {
        endpoint: endpoint(config),
        server: match config.listen {
            Some(_) => Some(server(config, &config.identity)?),
            None => None,
        },
        client: client(config, &config.identity)?,
        socket,
    })
}

fn what_to_do(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: stop it, or choose another address or port"
        }
        io::ErrorKind::AddrNotAvailable => "this computer has no such address: choose one that it has",
        io::ErrorKind::PermissionDenied => "not permitted: choose a port above 1023",
        _ => "choose another address or port",
    }
}

fn bind(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` listens for both; a single address is what it is.
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    for (what, size) in [
        ("receive", socket.set_recv_buffer_size(SOCKET_BUFFER).and_then(|()| socket.recv_buffer_size())),
        ("send", socket.set_send_buffer_size(SOCKET_BUFFER).and_then(|()| socket.send_buffer_size())),
    ] {
        // Less works, and drops packets under load: raise net.core.rmem_max and wmem_max.
        if !matches!(size, Ok(n) if n >= SOCKET_BUFFER) {
            tracing::debug!(what, ?size, wanted = SOCKET_BUFFER, "the system grants a smaller socket buffer");
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Any free port, for both families where the system can.
fn bind_any() -> io::Result<std::net::UdpSocket> {
    bind((Ipv6Addr::UNSPECIFIED, 0).into()).or_else(|_| bind((Ipv4Addr::UNSPECIFIED, 0).into()))
}

/// A restarted listener knows what its former life signed: it answers packets of connections that it has
/// forgotten with a reset that the other end believes, so nobody waits for a timeout.
///
/// Only one that runs where it did: a copy of its certificate on another host, or in another container, must not be able
/// to end the connections of a machine that lives.
///
/// Both keys are needed: an endpoint stays silent about connection ids that it cannot have drawn itself.
fn endpoint(config: &Config) -> EndpointConfig {
    let Some(address) = config.listen else { return EndpointConfig::default() };
    let secret = hmac::Key::new(hmac::HMAC_SHA256, config.identity.key().secret_der());
    let place = whereabouts();
    let derive =
        |what: &str| hmac::sign(&secret, format!("ennead {what} of {address} at {place}").as_bytes());
    let reset = hmac::Key::new(hmac::HMAC_SHA256, derive("stateless resets").as_ref());
    let mut ids = [0; 8];
    ids.copy_from_slice(&derive("connection ids").as_ref()[..8]);
    let ids = u64::from_le_bytes(ids);
    let mut endpoint = EndpointConfig::new(Arc::new(reset));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    // Eight peers notice a restart at once; the default of 20 ms would make them take turns.
    endpoint.min_reset_interval(Duration::from_millis(2));
    endpoint
}

/// The start of the computer and the network of the process, where the system tells: what no copy of a disk takes along.
fn whereabouts() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let network = fs::read_link("/proc/self/ns/net").unwrap_or_default();
    format!("{} {}", boot.trim(), network.display())
}

fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    provider.cipher_suites = vec![rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256];
    provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
    Arc::new(provider)
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, TransportError> {
    let mut roots = RootCertStore::empty();
    for authority in identity.authorities() {
        roots.add(authority.clone())?;
    }
    Ok(Arc::new(roots))
}

pub(super) fn server(config: &Config, identity: &Identity) -> Result<ServerConfig, TransportError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider.clone()).build()?;
    let mut tls = rustls::ServerConfig::builder_with_details(provider, Arc::new(clock::Certified))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![identity.certificate().clone()], identity.key().clone_key())?;
    tls.alpn_protocols = vec![config.wire.clone(), INTRODUCTION.to_vec()];
    // Every connection proves anew who it is: no tickets, and no data before the handshake.
    tls.send_tls13_tickets = 0;
    tls.max_early_data_size = 0;
    tls.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    let crypto = QuicServerConfig::try_from(tls).map_err(|_| TransportError::NoInitialCipher)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server.migration(false);
    server.max_incoming(config.max_incoming);
    server.incoming_buffer_size(16 << 10);
    server.incoming_buffer_size_total(4 << 20);
    server.transport_config(transport(config, None));
    Ok(server)
}

pub(super) fn client(config: &Config, identity: &Identity) -> Result<ClientConfig, TransportError> {
    let mut tls = rustls::ClientConfig::builder_with_details(provider(), Arc::new(clock::Certified))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots(identity)?)
        .with_client_auth_cert(vec![identity.certificate().clone()], identity.key().clone_key())?;
    tls.alpn_protocols = vec![config.wire.clone(), INTRODUCTION.to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    tls.enable_early_data = false;
    let crypto = QuicClientConfig::try_from(tls).map_err(|_| TransportError::NoInitialCipher)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    // A client that has nothing to say lets its connections go.
    client.transport_config(transport(config, config.listen.map(|_| KEEP_ALIVE)));
    Ok(client)
}

fn transport(config: &Config, keep_alive: Option<Duration>) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_THRESHOLD));
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_idle_timeout(IdleTimeout::try_from(config.idle_timeout).ok())
        .initial_rtt(INITIAL_RTT)
        .keep_alive_interval(keep_alive)
        .congestion_controller_factory(Arc::new(congestion))
        .ack_frequency_config(Some(acks));
    Arc::new(transport)
}
