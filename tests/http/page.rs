//! The status page in a real browser: which machine is down, and why, is seen within seconds.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::browser::Browser;
use super::{real, until};

/// What is known is on the page within this.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test]
async fn the_page_shows_which_machine_is_down_and_why() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("SKIPPED: no chromium here (apt-get install chromium): the status page is not looked at");
        return;
    };
    let mut nine = real(101, 9, &["--patience", "10m"]).await;
    until(nine.http(0), "/readyz", |a| a.code == 200).await;
    let (client, names) = (nine.client.clone(), nine.cluster.names());
    let load = tokio::spawn(async move {
        for i in 0u64.. {
            // Only that there is something to draw matters.
            let _ = client.put(format!("key-{}", i % 500), "value").await;
            let _ = client.get(format!("key-{}", i % 500)).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let url = format!("http://{}/", nine.http(0));
    // The browser is driven by a thread that waits: the load goes on beside it.
    let (victim, reloaded) = (names[3].to_string(), url.clone());
    let looked = tokio::task::spawn_blocking(move || {
        browser.size(1280, 900);
        browser.prefers("light");
        browser.go(&url);
        browser.until(
            "document.getElementById('headline').textContent.startsWith('Any 4 of 9 machines can fail now')",
        );
        let rows = browser.eval("document.querySelectorAll('#machines tbody tr').length");
        let drawn = browser.eval(
            "document.querySelectorAll('#ring .arc').length + ' ' + document.querySelectorAll('.pip').length",
        );
        assert_eq!((rows, drawn), (9.into(), "9 9".into()));
        browser
    });
    let mut browser = looked.await.expect("a look");
    nine.cluster.kill(3);
    let looked = tokio::task::spawn_blocking(move || {
        let said = |text: &str| format!("document.getElementById('wrong').textContent.includes('{text}')");
        let down = browser.until(&said(&format!("{victim} is down")));
        let why = browser.until(&said("killed: the process of"));
        eprintln!("on the page after {down:?}, with the reason {why:?} later");
        assert_eq!(browser.eval("document.querySelectorAll('.pip.missing').length"), 1, "8 of 9 votes");
        assert_eq!(browser.eval("document.querySelector('.machine.down .word').textContent"), "killed");
        let label = browser.eval("document.querySelector('#ring svg').getAttribute('aria-label')");
        assert!(label.as_str().is_some_and(|label| label.contains(&format!("{victim} down"))), "{label}");
        let failure = browser.eval("document.querySelector('#failures summary').textContent");
        assert!(
            failure.as_str().is_some_and(|text| text.contains(&victim) && text.contains("killed")),
            "{failure}"
        );
        browser.until("parseFloat(document.querySelector('#c-ops .now').textContent) > 0");
        // Each of the four charts has a line, of two points at least, and a number.
        for chart in ["c-ops", "c-late", "c-fsync", "c-queue"] {
            browser.until(&format!(
                "document.querySelector('#{chart} .chart .l0').getAttribute('d').includes('L') \
                 && !isNaN(parseFloat(document.querySelector('#{chart} .now').textContent))"
            ));
        }
        assert_eq!(browser.eval("document.querySelectorAll('#charts section').length"), 4);

        // By keys alone.
        for _ in 0..4 {
            browser.press("ArrowDown");
        }
        assert_eq!(browser.eval("document.activeElement.dataset.name"), victim.as_str());
        assert_eq!(browser.eval("document.querySelectorAll('.arc.chosen').length"), 1);
        browser.press("Escape");
        assert_eq!(browser.eval("document.querySelectorAll('.chosen').length"), 0);

        // In the dark, and on a telephone.
        let ground = "getComputedStyle(document.body).backgroundColor";
        let light = browser.eval(ground);
        browser.prefers("dark");
        assert_ne!(browser.eval(ground), light);
        browser.size(360, 740);
        browser.until("document.documentElement.scrollWidth <= 360");
        browser.size(1280, 900);
        browser.prefers("light");

        if let Some(path) = std::env::var_os("ENNEAD_PICTURE") {
            std::thread::sleep(Duration::from_secs(60));
            std::fs::write(path, browser.picture()).expect("a file");
        }
        assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
        browser
    });
    let browser = looked.await.expect("a look");
    // Whoever opens the page now sees what is known, at once.
    until(nine.http(0), "/status", |a| a.code == 200 && a.body.contains("killed: ")).await;
    let looked = tokio::task::spawn_blocking(move || {
        let mut browser = browser;
        browser.eval("window.before = true");
        browser.go(&reloaded);
        let seen = browser.until(
            "!window.before && document.getElementById('headline').textContent.startsWith('Any 3 more of 9 machines can fail now') \
             && document.getElementById('wrong').textContent.includes('killed: the process of')",
        );
        eprintln!("opened anew, it says so after {seen:?}");
        assert!(seen < SOON, "{seen:?}");
        browser
    });
    let mut browser = looked.await.expect("a look");

    // The machine that answers dies: the page says so, and does not show the past as the present.
    nine.cluster.kill(0);
    let looked = tokio::task::spawn_blocking(move || {
        browser
            .until("document.getElementById('live').textContent.startsWith('No answer from this machine')");
        assert_eq!(browser.eval("document.body.classList.contains('stale-all')"), true);
    });
    looked.await.expect("a look");
    load.abort();
}

#[tokio::test]
async fn the_page_draws_a_move_while_it_lasts() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("SKIPPED: no chromium here (apt-get install chromium): a move is not looked at");
        return;
    };
    let three = real(81, 3, &[]).await;
    let put = three.client.put_many((0..2_000).map(|i| (format!("key-{i}"), "v".repeat(500)))).await;
    assert!(put.iter().all(Result::is_ok), "{:?}", put.iter().find(|one| one.is_err()));
    let (first, fourth) = (three.cluster.names()[0].to_string(), three.cluster.spare()[0].to_string());
    // It takes in a few pages, and so slowly that the next one comes long after the test.
    let data = three.cluster.data(0).with_file_name("fourth");
    let mut joins = Command::new(env!("CARGO_BIN_EXE_ennead"))
        .args(["serve", "--die-with-parent", "--listen", &fourth, "--join", &first, "--move-rate", "256"])
        .args([Path::new("--data"), &data, Path::new("--certs"), &three.cluster.certs()])
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let url = format!("http://{}/", three.http(0));
    let looked = tokio::task::spawn_blocking(move || {
        browser.size(1280, 900);
        browser.go(&url);
        let begun = browser.until("document.querySelectorAll('#moves .move').length > 0");
        eprintln!("a move is drawn after {begun:?}");
        let told = browser.eval("document.querySelector('#moves .move').textContent");
        assert!(
            told.as_str().is_some_and(|text| text.contains(&format!("{fourth} copies ahead of a change"))),
            "{told}"
        );
        browser.until("document.querySelectorAll('#ring .flow').length > 0");
        browser.until("document.querySelector('#moves .move progress').value > 0");
        assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
    });
    let looked = looked.await;
    // It may have ended by itself.
    let _ = joins.kill();
    joins.wait().expect("an end");
    looked.expect("a look");
}
