//! Who may speak for whom: by name, address, date and authority.

use std::net::{SocketAddr, UdpSocket};

use ennead::certs::Identity;
use ennead::transport::{CloseCode, Config, To};
use ennead::wire::{ALPN, Role};
use ennead_ring::view::Name;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::raw::{Raw, bytes_of, hello, peer_authority};
use super::{Authority, End, free_name, machine, ring, talk, until};

#[tokio::test]
async fn a_clients_certificate_speaks_for_no_machine() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let claimed = free_name(2);
    let said = bytes_of(&[hello(Role::Machine(machine(claimed)), None)]);
    let (code, reason) = Raw::client(&authority).say(peer.name(), &said, false).await;
    assert_eq!(code, CloseCode::NotAllowed as u64);
    assert_eq!(reason, format!("certificate: client tester cannot speak for machine {claimed}"));
    peer.until_refused(CloseCode::NotAllowed, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn a_peers_certificate_speaks_for_no_other_machine() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    let (mine, claimed) = (free_name(2), free_name(3));
    let said = bytes_of(&[hello(Role::Machine(machine(claimed)), None)]);
    let (code, reason) = Raw::peer(&authority, mine).say(peer.name(), &said, false).await;
    assert_eq!(code, CloseCode::WrongName as u64);
    assert_eq!(reason, format!("certificate: you say you are {claimed}, and it names {mine}"));
    peer.until_refused(CloseCode::WrongName, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn nobody_else_has_my_name() {
    let authority = Authority::new();
    let peer = End::peer(&authority, free_name(1));
    let said = bytes_of(&[hello(Role::Machine(machine(peer.name())), None)]);
    let (code, reason) = Raw::peer(&authority, peer.name()).say(peer.name(), &said, false).await;
    assert_eq!(code, CloseCode::NotAllowed as u64);
    assert!(reason.contains("two live machines must not share one"), "{reason}");
}

/// Issues a certificate that `certs::issue` would not, by the authority of a folder.
fn odd_certificate(authority: &Authority, file: &str, uri: &str, ip: Option<&str>, years: (i32, i32)) {
    let dir = authority.dir();
    let ca = CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&std::fs::read_to_string(dir.join("ca.key")).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(&ca, key).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
    params.subject_alt_names.extend(ip.map(|ip| rcgen::SanType::IpAddress(ip.parse().unwrap())));
    let certificate = params.signed_by(&pair, &issuer).unwrap();
    std::fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
    std::fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    std::fs::write(dir.join(format!("{file}.key")), pair.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_peers_certificate_with_another_address_is_refused() {
    let authority = Authority::new();
    let peer = End::peer(&authority, free_name(1));
    let name = free_name(2);
    for (i, ip) in [Some("127.0.0.3"), None].into_iter().enumerate() {
        let file = format!("peers/odd{i}");
        odd_certificate(&authority, &file, &format!("ennead://peer/{name}"), ip, (2020, 2090));
        let raw = Raw::new(peer_authority(&authority), authority.dir(), &file, ALPN);
        let said = bytes_of(&[hello(Role::Machine(machine(name)), None)]);
        let (code, reason) = raw.say(peer.name(), &said, false).await;
        assert_eq!(code, CloseCode::NotAllowed as u64);
        assert!(reason.contains("but not the IP address 127.0.0.2"), "{reason}");
    }
    peer.until_refused(CloseCode::NotAllowed, 2).await;
}

#[tokio::test]
async fn who_is_dialled_must_be_who_was_meant() {
    let authority = Authority::new();
    let listening = free_name(2);
    // The same IP address and another port: TLS cannot tell, the name in the certificate does.
    let same_ip = Name::new(SocketAddr::new(listening.ip(), 1));
    let other_ip: Name = "127.0.0.3".parse().unwrap();
    for (named, words) in
        [(same_ip, "and it names peer 127.0.0.2:1"), (other_ip, "certificate: not accepted")]
    {
        let impostor = End::start(Config {
            listen: Some(listening.address()),
            ..Config::new(Role::Machine(machine(named)), authority.peer(named))
        });
        let mut a = End::client(&authority);
        a.transport.send(To::Machine(listening), ring(None, 1));
        let reason = a.down().await;
        assert!(reason.contains(words), "{reason}");
        impostor.transport.close("done").await;
        drop(impostor);
        until(|| UdpSocket::bind(listening.address()).is_ok()).await;
    }
}

#[tokio::test]
async fn an_expired_certificate_is_named_as_such_on_both_sides() {
    let authority = Authority::new();
    let mut peer = End::peer(&authority, free_name(1));
    odd_certificate(&authority, "clients/old", "ennead://client/old", None, (2019, 2020));
    let mut old =
        End::start(Config::new(Role::Client, Identity::client(authority.dir(), Some("old")).unwrap()));
    old.transport.send(To::Machine(peer.name()), ring(None, 1));
    let reason = old.down().await;
    assert!(reason.starts_with("certificate: expired or not yet valid"), "{reason}");
    peer.until_refused(CloseCode::Certificate, 1).await;
    talk(&End::client(&authority), &mut peer).await;
}

#[tokio::test]
async fn an_expired_certificate_of_who_is_dialled_is_named_as_such() {
    let authority = Authority::new();
    let name = free_name(1);
    odd_certificate(
        &authority,
        &format!("peers/{name}"),
        &format!("ennead://peer/{name}"),
        Some("127.0.0.1"),
        (2019, 2020),
    );
    let peer = End::peer(&authority, name);
    let mut client = End::client(&authority);
    client.transport.send(To::Machine(name), ring(None, 1));
    let reason = client.down().await;
    assert!(reason.starts_with("certificate: expired or not yet valid"), "{reason}");
    client.until_refused(CloseCode::Certificate, 1).await;
    peer.until_refused(CloseCode::Certificate, 1).await;
}

#[tokio::test]
async fn another_authority_is_refused_by_either_side() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let mut peer = End::peer(&ours, free_name(1));
    // Trusts its own authority only: it refuses us.
    let mut stranger = End::client(&theirs);
    stranger.transport.send(To::Machine(peer.name()), ring(None, 1));
    let reason = stranger.down().await;
    assert!(reason.starts_with("certificate: signed by another authority"), "{reason}");
    peer.until_refused(CloseCode::Certificate, 1).await;
    // Trusts ours, with a certificate of its own: we refuse it.
    std::fs::copy(ours.dir().join("ca.pem"), theirs.dir().join("ca.pem")).unwrap();
    let mut stranger = End::start(Config::new(Role::Client, theirs.client("tester")));
    stranger.transport.send(To::Machine(peer.name()), ring(None, 1));
    let reason = stranger.down().await;
    assert!(reason.starts_with("certificate: signed by another authority"), "{reason}");
    peer.until_refused(CloseCode::Certificate, 2).await;
    talk(&End::client(&ours), &mut peer).await;
}
