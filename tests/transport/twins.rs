//! V6, and the border of identity: a second process under a machine's name, with a copy of its certificate.

use std::time::Duration;

use ennead::transport::{CloseCode, Config, Event, To};
use ennead::wire::Role;
use tokio::time::timeout;

use super::{Authority, End, Name, free_name, machine, ring, talk, until};

/// A process with the certificate of `name`, and its incarnation, at another address.
fn twin(authority: &Authority, name: Name, at: Name) -> End {
    End::start(Config {
        listen: Some(at.address()),
        dial_timeout: Duration::from_secs(4),
        ..Config::new(Role::Machine(machine(name)), authority.peer(name))
    })
}

/// What the twin is told when it says something.
async fn told(twin: &mut End, to: Name) -> String {
    twin.transport.send(To::Machine(to), ring(None, 7));
    twin.down().await
}

/// Who is said to have come under another's name; nothing of its may be among what came before.
async fn impostor(end: &mut End) -> (Name, String) {
    loop {
        match end.next().await {
            Event::Impostor { name, why } => return (name, why),
            Event::Down { name, reason, .. } => panic!("{name} is down: {reason}"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn v6_a_twin_does_not_end_the_connections_of_a_machine_that_lives() {
    let authority = Authority::new();
    let (mut a, mut b) = (End::peer(&authority, free_name(1)), End::peer(&authority, free_name(2)));
    talk(&a, &mut b).await;
    let mut twin = twin(&authority, a.name(), free_name(3));
    let said = told(&mut twin, b.name()).await;
    assert!(
        said.contains("another process lives at") && said.contains("data directory was copied"),
        "{said}"
    );
    let (name, why) = impostor(&mut b).await;
    assert!(name == a.name() && why.contains("another process lives at"), "{name}: {why}");
    assert!(b.refused(CloseCode::NotAllowed) >= 1);
    // Both ways, on what there was.
    talk(&b, &mut a).await;
    talk(&a, &mut b).await;
    let up = timeout(Duration::from_millis(200), async {
        loop {
            if let Event::Up { run, .. } = b.next().await {
                return run;
            }
        }
    });
    assert!(up.await.is_err(), "the twin was never up");
}

#[tokio::test]
async fn v6_a_twin_that_comes_first_is_not_taken_for_the_machine() {
    let authority = Authority::new();
    let (a, mut b) = (End::peer(&authority, free_name(1)), End::peer(&authority, free_name(2)));
    let mut twin = twin(&authority, a.name(), free_name(3));
    let said = told(&mut twin, b.name()).await;
    assert!(said.contains("another process lives at"), "{said}");
    assert_eq!(impostor(&mut b).await.0, a.name());
    talk(&a, &mut b).await;
}

#[tokio::test]
async fn v6_a_twin_of_a_machine_that_is_gone_speaks_for_nobody() {
    let authority = Authority::new();
    let (a, mut b) = (free_name(1), End::peer(&authority, free_name(2)));
    let mut twin = twin(&authority, a, free_name(3));
    let said = told(&mut twin, b.name()).await;
    assert!(said.contains("cannot be asked whether that is so"), "{said}");
    assert_eq!(impostor(&mut b).await.0, a);
    // The machine itself comes back, and is taken at once.
    let a = End::peer(&authority, a);
    talk(&a, &mut b).await;
}

#[tokio::test]
async fn v6_a_run_that_is_heard_is_not_replaced_by_another_that_has_its_address() {
    let authority = Authority::new();
    let (mut b, c) = (End::peer(&authority, free_name(2)), free_name(4));
    let hello = ennead::wire::Hello {
        role: Role::Machine(machine(c)),
        cluster: None,
        version: "raw".to_string(),
        run: 77,
    };
    // The first run is one whose address leads to another from now on.
    let named = End::start(Config { run: hello.run, ..super::peer_config(&authority, c) });
    let first = super::raw::Raw::peer(&authority, c);
    let connection = first.connect(b.name()).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&super::raw::bytes_of(&[ennead::wire::Frame::Hello(hello)])).await.unwrap();
    assert!(recv.read_chunk(1024, true).await.unwrap().is_some(), "a hello comes back");
    drop(named);
    until(|| std::net::UdpSocket::bind(c.address()).is_ok()).await;

    let mut second = End::start(Config { run: 78, ..super::peer_config(&authority, c) });
    let said = told(&mut second, b.name()).await;
    assert!(said.contains("was heard after you called"), "{said}");
    assert_eq!(impostor(&mut b).await.0, c);
    assert!(b.refused(CloseCode::Twin) >= 1 && connection.close_reason().is_none());
    // The first is gone, and the second is the machine.
    drop((send, recv, connection, first));
    until(|| b.transport.stats().connections == 0).await;
    talk(&second, &mut b).await;
}

#[tokio::test]
async fn v6_a_machine_that_is_called_by_its_twin_says_so() {
    let authority = Authority::new();
    let mut a = End::peer(&authority, free_name(1));
    let raw = super::raw::Raw::peer(&authority, a.name());
    let said = super::raw::bytes_of(&[super::raw::hello(Role::Machine(machine(a.name())), None)]);
    let (code, reason) = raw.say(a.name(), &said, false).await;
    assert_eq!(code, CloseCode::NotAllowed as u64);
    assert!(reason.contains("is my own name"), "{reason}");
    let (name, _) = impostor(&mut a).await;
    assert_eq!(name, a.name());
}

#[tokio::test]
async fn v6_a_machine_that_calls_from_elsewhere_is_believed_once_its_address_answers() {
    let authority = Authority::new();
    let (a, mut b) = (End::peer(&authority, free_name(1)), End::peer(&authority, free_name(2)));
    // As behind an address translation: the same run, from another port of another address.
    let raw = super::raw::Raw::peer(&authority, a.name());
    let connection = raw.connect(b.name()).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    // Whoever answers at `a` is another run than the raw one says, so this is not believed...
    let hello = super::raw::hello(Role::Machine(machine(a.name())), None);
    send.write_all(&super::raw::bytes_of(&[hello])).await.unwrap();
    assert!(recv.read_chunk(1024, true).await.is_err());
    until(|| b.refused(CloseCode::NotAllowed) == 1).await;
    // ...and who says the run that answers there is.
    let run = 77;
    let c = free_name(4);
    let named = End::start(Config { run, ..super::peer_config(&authority, c) });
    let raw = super::raw::Raw::peer(&authority, c);
    let connection = raw.connect(b.name()).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let hello = ennead::wire::Hello {
        role: Role::Machine(machine(c)),
        cluster: None,
        version: "raw".to_string(),
        run,
    };
    send.write_all(&super::raw::bytes_of(&[ennead::wire::Frame::Hello(hello)])).await.unwrap();
    assert!(recv.read_chunk(1024, true).await.unwrap().is_some(), "a hello comes back");
    drop(named);
    talk(&a, &mut b).await;
}
