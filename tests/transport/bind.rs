//! What keeps an endpoint from being opened.

use ennead::transport::{Config, Transport, TransportError};
use ennead::wire::Role;
use tokio::sync::mpsc;

use super::{Authority, End, free_name, machine, peer_config};

#[tokio::test]
async fn a_taken_port_is_an_error_that_says_what_to_do() {
    let authority = Authority::new();
    let name = free_name(1);
    let _first = End::peer(&authority, name);
    let (tell, _events) = mpsc::channel(1);
    let error = Transport::bind(peer_config(&authority, name), tell).err().unwrap();
    assert!(matches!(error, TransportError::Listen { .. }));
    let text = error.to_string();
    assert!(
        text.contains(&name.address().to_string()) && text.contains("another process listens there"),
        "{text}"
    );
}

#[tokio::test]
async fn an_identity_of_another_is_refused_before_anything_is_opened() {
    let authority = Authority::new();
    let (mine, other) = (free_name(1), free_name(2));
    let (tell, _events) = mpsc::channel(1);
    let config = Config {
        listen: Some(mine.address()),
        ..Config::new(Role::Machine(machine(mine)), authority.peer(other))
    };
    let error = Transport::bind(config, tell).err().unwrap();
    assert!(error.to_string().contains("kvctl certs issue --peer"), "{error}");
}
