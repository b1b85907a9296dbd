//! Are all nine copies there, of every key, and alike? Asked copy by copy.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ennead::client::{Client, CopyAnswer, CopyReport};

/// Whether nine slots vote for one state of a key; if not, what each copy answers.
async fn is_whole(client: &Client, key: &str) -> Result<(), String> {
    let (_, copies) = client.get_copies(key).await.map_err(|error| error.to_string())?;
    let slots: usize = copies.iter().map(|copy| copy.slots.len()).sum();
    let all = |answer| copies.iter().all(|copy| copy.answer == answer);
    // A key whose tombstone was collected has no copy at all.
    match slots == 9 && (all(CopyAnswer::Same) || all(CopyAnswer::Absent)) {
        true => Ok(()),
        false => {
            let told = |copy: &CopyReport| format!("{} {:?}", copy.machine, copy.answer);
            Err(copies.iter().map(told).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Waits until every one of these keys has nine copies that are alike, and vote. Tells how long that took.
pub(crate) async fn until_all_are_whole(client: &Client, keys: &[String], within: Duration) -> Duration {
    let begun = Instant::now();
    let mut open: Vec<&String> = keys.iter().collect();
    loop {
        let mut lacking = BTreeMap::new();
        for key in open {
            if let Err(why) = is_whole(client, key).await {
                lacking.insert(key, why);
            }
        }
        if lacking.is_empty() {
            return begun.elapsed();
        }
        assert!(begun.elapsed() < within, "{} of {} keys: {lacking:#?}", lacking.len(), keys.len());
        open = lacking.into_keys().collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
