//! The metrics there are, and what is made of them.

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use ennead::certs::{self, Who};
use ennead::client::{Client, ClientOptions};

use super::ask::{Answer, ask, get};
use super::real;

/// What a text selects by labels, as pairs of a metric and a label with its value: `name{state=~"up|down"}` is two.
fn selected(text: &str) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    for (i, _) in text.match_indices("ennead_") {
        let rest = &text[i..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let labels = rest[end..].strip_prefix('{').and_then(|labels| labels.split_once('}'));
        for label in labels.map_or("", |(labels, _)| labels).split(',') {
            let Some((name, values)) = label.split_once(['=', '~']) else { continue };
            let values = values.trim_matches(['=', '~', '"', ' ']);
            // What whoever looks at the board has chosen.
            for value in values.split('|').filter(|value| !value.contains('$')) {
                all.insert((rest[..end].to_owned(), format!("{}=\"{value}\"", name.trim())));
            }
        }
    }
    all
}

#[test]
fn selections_by_label_are_found() {
    let found = selected(r#"rate(ennead_a{state="up", x=~"y|z", job="$job"}[2m]) / ennead_b > 0"#);
    let pair = |label: &str| ("ennead_a".to_owned(), label.to_owned());
    assert_eq!(found, BTreeSet::from([pair("state=\"up\""), pair("x=\"y\""), pair("x=\"z\"")]));
}

/// All names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("ennead_")).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn what_is_done_is_counted() {
    let mut three = real(61, 3, &[]).await;
    for i in 0..50 {
        three.client.put(format!("key-{i}"), "x").await.expect("a put");
        three.client.get(format!("key-{i}")).await.expect("a get");
    }
    three.client.put("key-0", "y").if_absent().await.expect_err("it is there");
    three.client.delete("key-1").await.expect("a delete");
    assert_eq!(three.client.delete("key-1").await.expect("a delete"), None);
    three.client.touch("key-2").await.expect("a touch");
    three.client.incr("number", 7).await.expect("an incr");
    // Published once a second.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let mut all = Vec::new();
    for index in 0..3 {
        all.push(get(three.http(index), "/metrics").await.expect("metrics"));
    }
    let sum = |sample: &str| all.iter().map(|a: &Answer| a.metric(sample)).sum::<f64>();
    let came = |kind: &str, outcome: &str| {
        sum(&format!("ennead_requests_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}"))
    };
    assert!(came("put", "done") >= 50.0);
    for kind in ["delete", "touch", "incr"] {
        assert!(came(kind, "done") >= 1.0, "{kind}");
    }
    assert_eq!((came("put", "mismatch"), came("delete", "mismatch")), (1.0, 0.0));
    assert!(came("delete", "absent") >= 1.0);
    for kind in ["put", "delete", "touch", "incr"] {
        assert_eq!(came(kind, "unknown"), 0.0, "{kind}");
    }
    assert!(sum("ennead_request_seconds_count{kind=\"put\"}") >= 51.0);
    assert!(sum("ennead_request_seconds_count{kind=\"delete\"}") >= 2.0);
    for phase in ["line", "queue", "promise", "hold", "fsync"] {
        assert!(sum(&format!("ennead_phase_seconds_count{{phase=\"{phase}\"}}")) >= 1.0, "{phase}");
        assert!(sum(&format!("ennead_phase_seconds_sum{{phase=\"{phase}\"}}")) > 0.0, "{phase}");
    }
    assert!(sum("ennead_copies_told_total") >= 100.0);
    assert!(sum("ennead_tombstones_total") >= 2.0, "of three machines, two that agree");
    assert!(sum("ennead_messages_total{kind=\"accept\",direction=\"in\"}") >= 51.0);
    // Nine slots on three machines, three each: two machines make six votes.
    assert!((6..=9).map(|v| sum(&format!("ennead_votes_total{{votes=\"{v}\"}}"))).sum::<f64>() >= 51.0);
    assert_eq!(sum("ennead_votes_total{votes=\"4\"}"), 0.0, "four never decide");
    for metrics in &all {
        assert_eq!((metrics.metric("ennead_ready"), metrics.metric("ennead_positions_unsynced")), (1.0, 0.0));
        assert!(metrics.metric("ennead_core_age_seconds") < 5.0);
        assert!(metrics.metric("ennead_disk_free_bytes") > 0.0 && metrics.metric("ennead_records") > 40.0);
        assert_eq!(metrics.metric("ennead_machines{state=\"up\"}"), 3.0);
        for direction in ["ahead", "behind"] {
            let off = metrics.metric(&format!("ennead_clocks_off_seconds{{direction=\"{direction}\"}}"));
            assert!((0.0..5.0).contains(&off), "{direction}: {off} s, on one computer");
        }
        assert!(metrics.metric("ennead_clock_offset_seconds").abs() < 5.0);
        for lane in ["main", "large", "prompt"] {
            assert!(metrics.metric(&format!("ennead_frames_waiting{{lane=\"{lane}\"}}")) < 1e4, "{lane}");
        }
        for part in ["core_loop", "storage_writer", "transport", "http_server"] {
            assert_eq!(metrics.metric(&format!("ennead_part_alive{{part=\"{part}\"}}")), 1.0, "{part}");
        }
        well_formed(&metrics.body);
    }

    // One machine dies: the others say so, and go on.
    three.cluster.kill(2);
    let gone = |a: &Answer| a.metric("ennead_machines{state=\"down\"}") == 1.0;
    let after = super::until(three.http(0), "/metrics", gone).await;
    assert_eq!(after.metric("ennead_ready"), 1.0);
    three.client.put("after", "x").await.expect("a put with one of three dead");
}

#[tokio::test]
async fn tombstones_are_counted_as_keys_are_deleted_and_put_back_and_anew_after_a_start() {
    let mut three = real(81, 3, &[]).await;
    let held = |a: &Answer, n: u64| a.body.lines().any(|line| line == format!("ennead_tombstones {n}"));
    for i in 0..20 {
        three.client.put(format!("key-{i}"), "x").await.expect("a put");
    }
    for i in 0..10 {
        three.client.delete(format!("key-{i}")).await.expect("a delete");
    }
    for index in 0..3 {
        super::until(three.http(index), "/metrics", |a| held(a, 10)).await;
    }
    for i in 0..4 {
        three.client.put(format!("key-{i}"), "y").await.expect("a put");
    }
    for index in 0..3 {
        super::until(three.http(index), "/metrics", |a| held(a, 6)).await;
    }
    three.cluster.kill(2);
    three.cluster.start(2).expect("a process");
    super::until(three.http(2), "/metrics", |a| held(a, 6)).await;
}

#[tokio::test]
async fn a_read_that_asks_further_machines_is_counted_once_where_it_is_asked() {
    let three = real(85, 3, &[]).await;
    for i in 0..20 {
        three.client.put(format!("key-{i}"), "x").await.expect("a put");
    }
    let before = three.client.hedged_reads();
    // Two of three make a quorum: which of them it asks is its own affair.
    for index in 0..3 {
        three.cluster.pause(index);
        for i in 0..20 {
            three.client.get(format!("key-{i}")).await.expect("a get");
        }
        three.cluster.resume(index);
        if three.client.hedged_reads() > before {
            break;
        }
    }
    let hedged = three.client.hedged_reads() - before;
    assert!((1..=20).contains(&hedged), "{hedged} of 20");
}

/// Each sample belongs to the family declared last, and each family is declared once.
fn well_formed(text: &str) {
    let (mut family, mut declared) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.split(' ').next().unwrap_or_default().to_owned();
            assert!(declared.insert(family.clone()), "{family} is declared twice");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let suffixes = ["", "_bucket", "_sum", "_count"];
            assert!(suffixes.iter().any(|s| name == format!("{family}{s}")), "{name} is not of {family}");
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}

/// The series that there are: each sample without its value.
async fn series(at: SocketAddr) -> BTreeSet<String> {
    let told = get(at, "/metrics").await.expect("metrics").body;
    let samples = told.lines().filter(|line| !line.starts_with('#'));
    samples.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn nobody_outside_makes_the_series_grow() {
    let two = real(67, 2, &["--http-kv", "local"]).await;
    let at = two.http(0);
    two.client.put("key", "x").await.expect("a put");
    // Told once they are known.
    let wanted =
        |a: &Answer| ["ennead_messages_total{", "\nennead_tombstones "].iter().all(|s| a.body.contains(s));
    super::until(at, "/metrics", wanted).await;
    let refusals = |a: &Answer| -> f64 {
        let samples = a.body.lines().filter(|line| line.starts_with("ennead_refusals_total{"));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    let refused = refusals(&get(at, "/metrics").await.expect("metrics"));
    let before = series(at).await;

    // What is asked for, and how, are words of whoever asks.
    for n in 0..200 {
        let path = match n % 4 {
            0 => format!("/wp-admin-{n}.php"),
            1 => format!("/metrics-{n}?route=r{n}&outcome=o{n}"),
            2 => format!("/%22%7D%0Aennead_hostile_{n}{{a=\"{n}\"}}"),
            _ => format!("/v1/kv/hostile-{n}?kind=k{n}"),
        };
        let method = ["GET", "DELETE", "PROPFIND", "X-1"][n % 3];
        let host = format!("host-{n}.example");
        let headers = [("host", &*host), ("user-agent", &*path), ("x-forwarded-for", "10.0.0.1")];
        // Some of it is refused before it is an HTTP request.
        let _ = ask(at, method, &path, &headers, b"").await;
    }
    // Ten clients of as many other clusters, and what is no QUIC at all.
    let name = two.cluster.names()[0];
    for n in 0..10 {
        let dir = tempfile::tempdir().expect("a folder");
        certs::make(dir.path(), [Who::Client(format!("stranger-{n}"))]).expect("certificates");
        let mut options = ClientOptions::new([name], dir.path());
        options.timeout = Duration::from_millis(500);
        Client::with_options(options).await.expect_err("a stranger");
    }
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    for n in 0..200u8 {
        socket.send_to(&[n; 1_200], name.address()).expect("a datagram");
    }

    let rose = |a: &Answer| {
        refusals(a) >= refused + 10.0 && a.metric("ennead_http_requests_total{route=\"other\"}") >= 50.0
    };
    super::until(at, "/metrics", rose).await;
    let after = series(at).await;
    // Kinds of messages are told once there are any: so many there are, and not more.
    let (messages, others): (Vec<_>, Vec<_>) =
        after.difference(&before).partition(|series| series.starts_with("ennead_messages_total{kind=\""));
    assert!(others.is_empty(), "{others:?}");
    let kinds = after.iter().filter(|series| series.starts_with("ennead_messages_total{"));
    assert!(kinds.clone().count() <= 2 * 64, "{messages:?}");
    for kind in kinds {
        assert!(kind.bytes().all(|b| b.is_ascii_lowercase() || b"_{}=\",".contains(&b)), "{kind}");
    }
}

#[tokio::test]
async fn every_metric_that_the_dashboard_and_the_alerts_name_is_told() {
    // One alone sends no messages.
    let two = real(65, 2, &[]).await;
    two.client.put("key", "x").await.expect("a put");
    let metrics = super::until(two.http(0), "/metrics", |a| a.body.contains("ennead_messages_total{")).await;
    let told = names(&metrics.body);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging");
    for file in ["grafana/dashboard.json", "prometheus/alerts.yml"] {
        let text = std::fs::read_to_string(folder.join(file)).expect("a file");
        let named = names(&text);
        assert!(named.len() > 8, "{file} names {named:?}");
        let missing: Vec<_> = named.difference(&told).collect();
        assert!(missing.is_empty(), "{file} names what no machine tells: {missing:?}");
        // In JSON the quotes of an expression are escaped.
        for (name, label) in selected(&text.replace("\\\"", "\"")) {
            let told = |line: &str| line.starts_with(&format!("{name}{{")) && line.contains(&label);
            assert!(
                metrics.body.lines().any(told),
                "{file} selects {name} by {label}, which no machine tells"
            );
        }
    }
    for page in ["alerts.md", "sizing.md"] {
        let text = std::fs::read_to_string(folder.join("../docs/src").join(page)).expect("a page");
        let named = names(&text);
        let missing: Vec<_> = named.difference(&told).collect();
        assert!(missing.is_empty(), "the book's {page} names what no machine tells: {missing:?}");
    }
    let dashboard = std::fs::read_to_string(folder.join("grafana/dashboard.json")).expect("a file");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("JSON");
}
