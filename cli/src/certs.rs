//! certs init, issue, make, renew, retire and show: the cluster's own authority, for people.

use std::path::Path;
use std::time::{Duration, SystemTime};

use ennead::certs::{self, Shown, Who};
use serde_json::{Value, json};

use crate::Verdict;
use crate::args::{Certs, Issue, Make, Renew};
use crate::data::rfc3339;
use crate::failure::Failure;
use crate::output::{Output, table};

/// Makes or shows certificates.
pub(crate) fn run(command: Certs, output: &mut Output) -> Result<Verdict, Failure> {
    match command {
        Certs::Init { dir } => {
            let made = certs::init(&dir)?;
            tell_made(&made, output)?;
            warn(&dir, output);
        }
        Certs::Issue(Issue { dir, peer, client }) => {
            let who = match (peer, client) {
                (Some(name), None) => Who::Peer(name),
                (None, Some(name)) => Who::Client(name),
                _ => return Err(Failure::Usage("for whom? --peer NAME or --client NAME".to_string())),
            };
            tell_made(&certs::issue(&dir, &who)?, output)?;
        }
        Certs::Make(Make { dir, peer, client }) => {
            let peers = peer.into_iter().map(Who::Peer);
            let made = certs::make(&dir, peers.chain(client.into_iter().map(Who::Client)))?;
            let files: Vec<String> = made.iter().map(|path| path.display().to_string()).collect();
            match output.json {
                true => output.print_json(&json!({"files": files}))?,
                false => files.iter().try_for_each(|file| output.line(file))?,
            }
            match made.contains(&dir.join("ca.pem")) {
                true => warn(&dir, output),
                false if made.is_empty() => output.say("nothing was missing"),
                false => {}
            }
        }
        Certs::Renew(Renew { dir, authority: true, .. }) => {
            tell_made(&certs::renew_authority(&dir)?, output)?;
            warn(&dir, output);
            output.say("take ca.pem to all machines and clients, then `kvctl certs renew --all`, then `kvctl certs retire`");
        }
        Certs::Renew(Renew { dir, peer, client, .. }) => {
            let whom = match (peer, client) {
                (Some(name), _) => vec![Who::Peer(name)],
                (_, Some(name)) => vec![Who::Client(name)],
                _ => certs::show(&dir)?.into_iter().filter_map(|shown| shown.who).collect(),
            };
            for who in whom {
                tell_made(&certs::renew(&dir, &who)?, output)?;
            }
        }
        Certs::Retire { dir } => {
            let dropped = certs::retire_authorities(&dir)?;
            match output.json {
                true => output.print_json(&json!({"dropped": dropped}))?,
                false => output
                    .line(&format!("{dropped} older authorities are not trusted any more by this folder"))?,
            }
        }
        Certs::Show { dir } => {
            let shown = certs::show(&dir)?;
            match output.json {
                true => output
                    .print_json(&json!({"certificates": shown.iter().map(to_json).collect::<Value>()}))?,
                false => output.data(to_text(&dir, &shown).as_bytes())?,
            }
        }
    }
    Ok(Verdict::Yes)
}

fn warn(dir: &Path, output: &mut Output) {
    let key = dir.join("ca.key");
    output.say(&format!("keep {} to yourself: whoever has it can enter the cluster", key.display()));
}

fn tell_made(path: &Path, output: &mut Output) -> Result<(), Failure> {
    let path = path.display().to_string();
    match output.json {
        true => output.print_json(&json!({"file": path})),
        false => output.line(&path),
    }
}

fn role(shown: &Shown) -> (&'static str, String) {
    match &shown.who {
        None => ("authority", String::new()),
        Some(Who::Peer(name)) => ("peer", name.to_string()),
        Some(Who::Client(name)) => ("client", name.clone()),
    }
}

fn date(seconds: i64) -> String {
    rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0) as u64))
}

fn to_json(shown: &Shown) -> Value {
    let (role, name) = role(shown);
    json!({
        "file": shown.path,
        "role": role,
        "name": name,
        "serial": shown.serial,
        "not_before": date(shown.not_before),
        "not_after": date(shown.not_after),
        "has_key": shown.has_key,
    })
}

fn to_text(dir: &Path, shown: &[Shown]) -> String {
    let head = ["ROLE", "NAME", "VALID UNTIL", "KEY", "FILE"].map(String::from).to_vec();
    let row = |s: &Shown| {
        let (role, name) = role(s);
        let key = if s.has_key { "here" } else { "-" };
        let file = s.path.strip_prefix(dir).unwrap_or(&s.path).display().to_string();
        let name = if name.is_empty() { "-".to_string() } else { name };
        vec![role.to_string(), name, date(s.not_after), key.to_string(), file]
    };
    table(&std::iter::once(head).chain(shown.iter().map(row)).collect::<Vec<_>>())
}
