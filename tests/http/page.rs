//! The status page in a real browser: which machine is down, and why, is seen within seconds.

use std::time::Duration;

use super::browser::Browser;
use super::{real, until};

#[tokio::test]
async fn the_page_shows_which_machine_is_down_and_why() {
    let Some(mut browser) = Browser::start() else {
        eprintln!("SKIPPED: no chromium here (apt-get install chromium): the status page is not looked at");
        return;
    };
    let mut nine = real(71, 9, &["--patience", "10m"]).await;
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
    let victim = names[3].to_string();
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
