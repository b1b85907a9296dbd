//! The data over HTTP, where it is open: with machines dead, too.

use std::net::SocketAddr;

use super::ask::{Answer, ask};
use super::{real, until};

async fn kv(at: SocketAddr, method: &str, key: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    ask(at, method, &format!("/v1/kv/{key}"), headers, body.as_bytes()).await.expect("an answer")
}

#[tokio::test]
async fn with_four_of_nine_dead_keys_are_put_compared_and_deleted() {
    let mut nine = real(51, 9, &["--http-kv", "local", "--max-value", "64KiB"]).await;
    let at = nine.http(0);
    until(at, "/readyz", |a| a.code == 200).await;
    for dead in 0..=4 {
        if dead > 0 {
            nine.cluster.kill(9 - dead);
        }
        let key = format!("a%2Fkey-{dead}");
        let put = kv(at, "PUT", &key, &[("if-none-match", "*")], "one").await;
        assert_eq!((put.code, put.header("etag")), (200, Some("\"1\"")), "{dead} dead: {put:?}");
        assert!(put.json()["votes"].as_u64() >= Some(5), "{put:?}");
        let again = kv(at, "PUT", &key, &[("if-none-match", "*")], "two").await;
        assert_eq!((again.code, again.header("etag")), (412, Some("\"1\"")), "{again:?}");
        assert_eq!(again.json()["error"], "version_mismatch");
        let there = kv(at, "PUT", &key, &[("if-match", "\"1\"")], "three").await;
        assert_eq!((there.code, there.header("etag")), (200, Some("\"2\"")));
        let found = kv(at, "GET", &key, &[], "").await;
        assert_eq!((found.code, found.body.as_str(), found.header("etag")), (200, "three", Some("\"2\"")));
        assert_eq!(kv(at, "GET", &key, &[("if-none-match", "\"2\"")], "").await.code, 304);
        // Another client sees the same key.
        let seen = nine.client.get(format!("a/key-{dead}")).await.expect("a get").expect("a value");
        assert_eq!((seen.value.as_ref(), seen.version), (b"three".as_slice(), 2));
        assert_eq!(kv(at, "DELETE", &key, &[("if-match", "7")], "").await.code, 412);
        assert_eq!(kv(at, "DELETE", &key, &[], "").await.code, 200);
        let gone = kv(at, "GET", &key, &[], "").await;
        assert_eq!((gone.code, &gone.json()["error"]), (404, &"not_found".into()));
        assert_eq!(kv(at, "DELETE", &key, &[], "").await.code, 404);
    }
    let expiring = ask(at, "PUT", "/v1/kv/brief?ttl=1h", &[], b"x").await.expect("an answer");
    assert_eq!(expiring.code, 200, "{expiring:?}");
    let found = kv(at, "GET", "brief", &[], "").await;
    assert!(found.header("ennead-expires").is_some_and(|at| at.ends_with('Z')), "{found:?}");

    // Nothing that is wrong is guessed at, and nothing is changed by it.
    let long = "x".repeat((64 << 10) + 1);
    for (method, path, headers, body, code) in [
        ("PUT", "/v1/kv/brief?tll=1h", &[][..], "y", 400),
        ("PUT", "/v1/kv/brief", &[("if-match", "W/\"old\"")], "y", 400),
        ("PUT", "/v1/kv/brief", &[], &long, 413),
        ("PUT", "/v1/kv/", &[], "y", 400),
        ("PUT", "/v1/kv/%00crashes", &[], "y", 400),
        ("PUT", "/v1/kv/bad%zz", &[], "y", 400),
        ("PUT", "/v1/kv/brief", &[("host", "evil.example")], "y", 403),
        ("PUT", "/v1/kv/brief", &[("origin", "http://evil.example")], "y", 403),
        ("PATCH", "/v1/kv/brief", &[], "y", 405),
    ] {
        let answer = ask(at, method, path, headers, body.as_bytes()).await.expect("an answer");
        assert_eq!(
            (answer.code, &answer.json()["outcome"]),
            (code, &"unchanged".into()),
            "{path} {headers:?}"
        );
    }
    assert_eq!(kv(at, "GET", "brief", &[], "").await.body, "x");

    // Keys in their order, a page at a time.
    let list =
        async |query: &str| ask(at, "GET", &format!("/v1/kv{query}"), &[], b"").await.expect("an answer");
    assert_eq!(kv(at, "PUT", "brief%2F2", &[], "z").await.code, 200);
    let page = list("?prefix=brief&limit=1").await;
    assert_eq!((page.code, page.header("ennead-after")), (200, Some("brief")), "{page:?}");
    let page = list("?prefix=brief&after=brief&values=true").await;
    assert_eq!((page.code, page.header("ennead-after")), (200, None), "{page:?}");
    assert_eq!(page.body, "{\"key\":\"brief/2\",\"value\":\"z\",\"version\":1}\n");
    assert_eq!(list("").await.body.lines().count(), 2);
    for wrong in ["?prefix=%00", "?limit=0", "?ttl=1h", "?after="] {
        assert_eq!(list(wrong).await.code, 400, "{wrong}");
    }

    // The fifth: no quorum, and every error says what is true of the key.
    nine.cluster.kill(4);
    let put = kv(at, "PUT", "brief", &[], "y").await;
    let expected = match put.code {
        503 => "unchanged",
        504 => "unknown",
        code => panic!("{code}: {put:?}"),
    };
    assert_eq!(put.json()["outcome"], expected, "{put:?}");
    let get = kv(at, "GET", "brief", &[], "").await;
    assert_eq!((get.code, &get.json()["error"]), (503, &"no_quorum".into()), "{get:?}");
    let listed = list("").await;
    assert_eq!((listed.code, &listed.json()["error"]), (503, &"no_quorum".into()), "{listed:?}");
}
