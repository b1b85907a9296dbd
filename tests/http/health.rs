//! Whether a machine lives, whether clients should be sent to it, and what all machines say.

use std::net::{Ipv4Addr, SocketAddr};

use ennead::certs::{self, Who};
use ennead::http::{Access, Config};
use ennead::node::Part;
use ennead::{Name, Node, StartError};

use super::ask::{ask, get};
use super::{real, until};

#[tokio::test]
async fn with_four_of_nine_dead_the_rest_are_ready_and_with_five_they_are_not() {
    let mut nine = real(1, 9, &[]).await;
    for index in 0..9 {
        until(nine.http(index), "/readyz", |a| a.code == 200 && a.body == "ready\n").await;
        assert_eq!(get(nine.http(index), "/livez").await.expect("an answer").code, 200);
    }
    for dead in 1..=4 {
        let victim = 9 - dead;
        nine.cluster.kill(victim);
        let status = until(nine.http(0), "/status", |a| {
            a.code == 200 && a.json()["machines"][victim]["state"] == "down"
        });
        let status = status.await.json();
        assert_eq!(status["tolerates"], 4 - dead, "{status:#}");
        assert_eq!((&status["healthy"], &status["slots"]), (&false.into(), &9.into()));
        assert_eq!(get(nine.http(0), "/readyz").await.expect("an answer").code, 200, "{dead} dead");
        nine.client.put("key", "value").await.expect("a put");
    }
    let status = until(nine.http(0), "/status", |a| {
        a.json()["machines"][8]["reason"].as_str().is_some_and(|reason| reason.starts_with("killed: "))
    });
    assert_eq!(status.await.json()["mood"], "bad", "no more may fail");

    nine.cluster.kill(4);
    let said = until(nine.http(0), "/readyz", |a| a.code == 503).await.body;
    assert!(said.starts_with("not ready: fewer than a quorum can be reached: 4 of 9 machines"), "{said}");
    assert_eq!(
        get(nine.http(0), "/livez").await.expect("an answer").code,
        200,
        "a restart would mend nothing"
    );
    let status = until(nine.http(0), "/status", |a| {
        a.code == 200 && a.json()["summary"].as_str().is_some_and(|line| line.starts_with("keys are stopped"))
    });
    assert_eq!(status.await.json()["tolerates"], 0);
}

fn name(host: u8) -> Name {
    Name::new(SocketAddr::new(Ipv4Addr::new(127, 0, 136, host).into(), 9595))
}

#[tokio::test]
async fn a_machine_in_no_view_says_so_and_goes_on_when_its_http_server_dies() {
    let dir = tempfile::tempdir().expect("a folder");
    let certs = dir.path().join("certs");
    certs::init(&certs).expect("an authority");
    certs::issue(&certs, &Who::Peer(name(21))).expect("a certificate");
    let http = Config { listen: SocketAddr::new(name(21).ip(), 9596), kv: Access::Off };
    let blank = |data: &str| {
        let data = dir.path().join(data);
        Node::builder().listen(name(21)).data_dir(data).certs(&certs).join([name(22)]).http(http)
    };
    let node = blank("data").start().await.expect("a blank machine");
    let said = until(http.listen, "/readyz", |a| a.body.contains("in no view")).await;
    assert_eq!(
        (said.code, said.body.as_str()),
        (503, "not ready: it is in no view: it belongs to no cluster yet\n")
    );

    // Three deaths are mended; the machine itself has not noticed.
    for death in 1..=3 {
        node.break_part(Part::Http).await;
        let sample = "ennead_part_restarts_total{part=\"http_server\"}";
        until(http.listen, "/metrics", |a| a.body.contains(&format!("{sample} {death}"))).await;
    }
    assert_eq!(get(http.listen, "/livez").await.expect("an answer").code, 200);
    node.shutdown("the test is over").await;
    assert!(get(http.listen, "/livez").await.is_err(), "nobody answers for it any more");

    // A taken address is named before anything is touched.
    let taken = std::net::TcpListener::bind(http.listen).expect("it is free again");
    let error = blank("other").start().await.expect_err("the address is taken");
    assert!(matches!(error, StartError::Http { .. }), "{error}");
    assert!(error.to_string().contains("--http off") && !dir.path().join("other").exists(), "{error}");
    drop(taken);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_and_the_data_is_not_open() {
    let one = real(23, 1, &[]).await;
    let at = one.http(0);
    until(at, "/readyz", |a| a.code == 200).await;
    one.client.put("secret", "value").await.expect("a put");
    for (method, path, code) in [
        ("GET", "/nothing", 404),
        ("POST", "/status", 405),
        ("GET", "/v1/kv/secret", 403),
        ("PUT", "/v1/kv/secret", 403),
        ("DELETE", "/v1/kv/secret", 403),
    ] {
        let answer = ask(at, method, path, &[], b"").await.expect("an answer");
        assert_eq!(answer.code, code, "{method} {path}: {answer:?}");
        assert_eq!(answer.json()["outcome"], "unchanged");
    }
    assert!(get(at, "/v1/kv/secret").await.expect("an answer").body.contains("--http-kv local"));
    let metrics = get(at, "/metrics").await.expect("an answer");
    assert!(!metrics.body.contains("secret"), "no key is told");
    for nonsense in [&b"\0\0\0\0\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", &[b'x'; 100_000]] {
        use tokio::io::AsyncWriteExt;
        let mut stream = tokio::net::TcpStream::connect(at).await.expect("a connection");
        // It may be closed before all is written.
        let _ = stream.write_all(nonsense).await;
    }
    assert_eq!(get(at, "/livez").await.expect("an answer").code, 200);
    assert_eq!(one.client.get("secret").await.expect("a get").expect("a value").value.as_ref(), b"value");
}
