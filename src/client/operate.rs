//! What an operator asks of the machines: changes of the membership, and comparisons of the copies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ennead_ring::message::{Ask, Message, Wish};
use ennead_ring::view::{Machine, Name};

use super::Error;
use super::link::{Link, Reply};
use crate::status::CheckStatus;
use crate::transport::To;
use crate::wire::Frame;

/// How long one machine may take to answer before another is asked.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A machine's answer to the request to compare its copies with everybody's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CheckAnswer {
    /// It does; this is how it stood before. After one more round, every key has been looked at.
    Begun(CheckStatus),
    /// It does not, for this reason.
    Refused(String),
    /// It could not be asked, or did not answer.
    Silent(String),
}

/// Tells a wish to the first machine that can be reached and answers: it passes the wish on to the wardens.
///
/// The machine that the wish is about is asked last: it may be on its way out.
pub(super) async fn wish(link: &Arc<Link>, wish: Wish, deadline: Instant) -> Result<(), Error> {
    let known = link.view(deadline).await?;
    let machine = wish.machine();
    let mut names: Vec<Name> = known.view.members().iter().map(|m| m.machine.name).collect();
    names.sort_by_key(|name| (*name == machine.name, link.standing(*name)));
    let mut tried = BTreeMap::new();
    for name in names {
        if Instant::now() >= deadline {
            break;
        }
        if let Err(why) = link.reach(name, deadline).await {
            tried.insert(name, why);
            continue;
        }
        let mut replies = link.question();
        link.send(name, Message::Wish { ask: replies.ask, wish });
        let until = deadline.min(Instant::now() + ANSWER_WITHIN);
        match tokio::time::timeout_at(until.into(), answer(&mut replies, name)).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(reason))) => return Err(Error::Refused(reason)),
            Ok(Err(why)) => tried.insert(name, why),
            Err(_) => tried.insert(name, "no answer to the wish".to_owned()),
        };
    }
    Err(Error::Unreachable { tried: tried.into_iter().collect() })
}

/// Tells one machine that others are gone for good, and what is lost with them is lost (F2).
pub(super) async fn force(
    link: &Arc<Link>,
    survivor: Name,
    machines: Vec<Machine>,
    deadline: Instant,
) -> Result<(), Error> {
    let gone = |why: String| Error::Unreachable { tried: vec![(survivor, why)] };
    link.reach(survivor, deadline).await.map_err(gone)?;
    let mut replies = link.question();
    link.send(survivor, Message::Force { ask: replies.ask, machines });
    match tokio::time::timeout_at(deadline.into(), answer(&mut replies, survivor)).await {
        Ok(Ok(None)) => Ok(()),
        Ok(Ok(Some(reason))) => Err(Error::Refused(reason)),
        Ok(Err(why)) => Err(gone(why)),
        Err(_) => Err(gone("no answer".to_owned())),
    }
}

/// The reason why the wish is refused, if it is; `Err` if this machine is gone.
async fn answer(replies: &mut super::link::Replies, from: Name) -> Result<Option<String>, String> {
    loop {
        match replies.next().await {
            (_, Reply::Ring(envelope)) => {
                if let Message::Wished { refused, .. } = envelope.message {
                    return Ok(refused);
                }
            }
            (name, Reply::Down(why)) if name == from => return Err(why),
            _ => {}
        }
    }
}

/// Asks every member to compare its copies, and gathers who does.
pub(super) async fn check(link: &Arc<Link>, deadline: Instant) -> Result<BTreeMap<Name, CheckAnswer>, Error> {
    let known = link.view(deadline).await?;
    let mut replies = link.question();
    let Ask(ask) = replies.ask;
    let silent = || CheckAnswer::Silent("no answer".to_owned());
    let mut told: BTreeMap<Name, CheckAnswer> =
        known.view.members().iter().map(|m| (m.machine.name, silent())).collect();
    for name in told.keys() {
        link.transport.send(To::Machine(*name), Frame::CheckAsk { ask });
    }
    let mut open = told.len();
    while open > 0 {
        let Ok((name, reply)) = tokio::time::timeout_at(deadline.into(), replies.next()).await else { break };
        let answer = match reply {
            Reply::Check { refused: Some(reason), .. } => CheckAnswer::Refused(reason),
            Reply::Check { before, refused: None } => CheckAnswer::Begun(before),
            Reply::Down(why) => CheckAnswer::Silent(why),
            Reply::Ring(_) | Reply::Status(_) | Reply::Why(_) => continue,
        };
        // Only of those asked, and the first word of each.
        if let Some(waiting) = told.get_mut(&name)
            && *waiting == silent()
        {
            *waiting = answer;
            open -= 1;
        }
    }
    Ok(told)
}
