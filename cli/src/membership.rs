//! Leave and remove: asks for the change until the cluster has begun it, then watches until it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::{Client, Error};
use ennead::plan::{Change, Plan, PlanError};
use ennead::status::PeerState;
use ennead::units::show_duration;
use ennead_ring::message::Wish;
use ennead_ring::{Machine, MemberState, View};
use serde_json::json;

use crate::args::{Global, How, Leave, Remove};
use crate::failure::Failure;
use crate::imagined::imagine_view;
use crate::moves;
use crate::output::Output;
use crate::{Verdict, connect, planned};
use ennead::moving::{Accounts, Rates};

/// The wardens keep a wish for ten seconds: it is said again until the view shows it.
pub(crate) const WISH_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the view.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a machine that is said to be gone is looked for: who has only just died is still believed alive.
const LOOKS: u32 = 4;

/// `kvctl leave`.
pub(crate) async fn leave(args: Leave, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    change(Kind::Leave, args.machine, &args.how, true, global, output).await
}

/// `kvctl remove`.
pub(crate) async fn remove(args: Remove, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    change(Kind::Remove, args.machine, &args.how, args.yes, global, output).await
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Leave,
    Remove,
}

impl Kind {
    fn change(self, name: Name) -> Change {
        match self {
            Self::Leave => Change::Leave(vec![name]),
            Self::Remove => Change::Remove(vec![name]),
        }
    }

    fn wish(self, machine: Machine) -> Wish {
        match self {
            Self::Leave => Wish::Leave { machine },
            Self::Remove => Wish::Remove { machine },
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Leave => "has left",
            Self::Remove => "is removed",
        }
    }
}

async fn change(
    kind: Kind,
    name: Name,
    how: &How,
    yes: bool,
    global: &Global,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    if !how.machines.is_empty() {
        let view = imagine_view(&how.machines, how.virtual_peers, None)?;
        let plan = Plan::of(&view, &kind.change(name), &BTreeMap::new(), &BTreeSet::new());
        return tell(&plan.map_err(no_plan)?, &kind.change(name), output);
    }
    let client = connect(global).await?;
    let view = client.view().await?;
    let Some(index) = view.index_of(name) else { return Err(Failure::NoSuchMachine(name)) };
    let member = view.members()[index];
    let accounts = client.status().await?;
    let plan = plan(&view, &kind.change(name), &accounts)?;
    if how.plan {
        return tell(&plan, &kind.change(name), output);
    }
    match kind {
        Kind::Leave if answers(name, &accounts) => {}
        Kind::Leave => return Err(Failure::Refused(cannot_hand_over(name))),
        Kind::Remove => gone_indeed(&client, name, accounts).await?,
    }
    if !yes && output.can_ask() {
        output.say(&planned::to_text(&plan, &kind.change(name)));
        if !output.ask(&format!("Remove {name} for good?")) {
            return Err(Failure::Refused("it was not confirmed; nothing was changed".to_string()));
        }
    }
    let mut work = Work { kind, machine: member.machine, began: Instant::now(), heard: false, begun: false };
    let ended = work.carry_out(&client, how.no_wait, global.patience(), output).await;
    output.no_progress();
    let (stage, view) = ended?;
    let took = work.began.elapsed();
    match (output.json, stage) {
        (true, _) => output.print_json(&json!({
            "machine": name.to_string(),
            "outcome": if stage == Stage::Gone { "done" } else { "begun" },
            "epoch": view.epoch().number,
            "seconds": took.as_secs_f64(),
        }))?,
        (false, Stage::Gone) => {
            let took = show_duration(took);
            output.say(&format!("{name} {}: epoch {}, after {took}", kind.done(), view.epoch()));
        }
        (false, _) => output.say(&format!("{name} is leaving; 'kvctl moves -w' shows how far it is")),
    }
    Ok(Verdict::Yes)
}

pub(crate) fn tell(plan: &Plan, change: &Change, output: &mut Output) -> Result<Verdict, Failure> {
    match output.json {
        true => output.print_json(&planned::to_json(plan))?,
        false => output.data(planned::to_text(plan, change).as_bytes())?,
    }
    Ok(Verdict::Yes)
}

pub(crate) fn plan(view: &View, change: &Change, accounts: &Accounts) -> Result<Plan, Failure> {
    let told = || accounts.iter().filter_map(|(name, account)| Some((*name, account.as_ref().ok()?)));
    let records = told().map(|(name, account)| (name, account.records)).collect();
    let voting: BTreeSet<Name> =
        told().filter(|(_, account)| account.synced_slots >= account.slots).map(|(name, _)| name).collect();
    let names = view.members().iter().map(|m| m.machine.name);
    let silent = names.filter(|name| !voting.contains(name)).collect();
    Plan::of(view, change, &records, &silent).map_err(no_plan)
}

pub(crate) fn no_plan(error: PlanError) -> Failure {
    match error {
        PlanError::NoSuchMachine(name) => Failure::NoSuchMachine(name),
        other => Failure::Refused(format!("{other}; nothing was changed")),
    }
}

fn answers(name: Name, accounts: &Accounts) -> bool {
    accounts.iter().any(|(n, account)| *n == name && account.is_ok())
}

fn cannot_hand_over(name: Name) -> String {
    format!(
        "{name} does not answer, so it cannot hand over what it holds; nothing was changed. Start it again, or if \
         it is gone for good, 'kvctl remove {name}': the others restore its copies"
    )
}

/// Who is removed is never to vote again: a machine that still answers somebody is not removed.
async fn gone_indeed(
    client: &Client,
    name: Name,
    accounts: Vec<(Name, Result<ennead::status::MachineStatus, String>)>,
) -> Result<(), Failure> {
    let mut accounts = accounts;
    for look in 1.. {
        if answers(name, &accounts) {
            return Err(Failure::Refused(format!(
                "{name} answers; nothing was changed. 'kvctl leave {name}' lets it hand over what it holds and go"
            )));
        }
        let (reached, asked) = reached(name, &accounts);
        if reached * 2 <= asked {
            return Ok(());
        }
        if look == LOOKS {
            return Err(Failure::Refused(format!(
                "{name} does not answer here, but {reached} of {asked} others reach it; nothing was changed. \
                 'kvctl leave {name}' lets it go, or stop it first"
            )));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        accounts = client.status().await?;
    }
    Ok(())
}

/// How many of those who answer reach this machine, and of how many.
fn reached(name: Name, accounts: &Accounts) -> (usize, usize) {
    let told = accounts.iter().filter_map(|(_, account)| account.as_ref().ok());
    let seen: Vec<_> = told.filter_map(|a| a.peers.iter().find(|p| p.name == name)).collect();
    (seen.iter().filter(|p| p.reachable && p.state == PeerState::Up).count(), seen.len())
}

/// How a change that is announced goes on after nobody watches it any more: by itself, if need be once others are back.
pub(crate) async fn goes_on(client: &Client) -> String {
    const LOOK: &str = "'kvctl moves -w' shows how far it is";
    let waits = match (client.view().await, client.status().await) {
        (Ok(view), Ok(accounts)) => {
            moves::waiting(&view, &accounts, &Rates::default().look(&accounts, Instant::now()))
        }
        _ => Vec::new(),
    };
    match waits.is_empty() {
        true => format!("it goes on by itself, {LOOK}"),
        false => format!(
            "it waits for {}, and goes on by itself once all of them answer or are members no more; {LOOK}",
            moves::list(&waits)
        ),
    }
}

/// How far the cluster is with a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The view does not show it.
    NotBegun,
    /// It is on its way out: that is decided, and needs nobody to go on.
    Leaving,
    /// It is no member any more.
    Gone,
}

fn stage(view: &View, machine: Machine) -> Stage {
    let member = view.members().iter().find(|m| m.machine == machine);
    match member.map(|m| m.state) {
        None => Stage::Gone,
        Some(MemberState::Leaving) => Stage::Leaving,
        Some(MemberState::Up | MemberState::Joining) => Stage::NotBegun,
    }
}

/// A change under way.
struct Work {
    kind: Kind,
    machine: Machine,
    began: Instant,
    /// True once a machine has passed it on.
    heard: bool,
    /// True once the view shows it.
    begun: bool,
}

impl Work {
    async fn carry_out(
        &mut self,
        client: &Client,
        no_wait: bool,
        patience: Duration,
        output: &mut Output,
    ) -> Result<(Stage, std::sync::Arc<View>), Failure> {
        let deadline = self.began + patience;
        let mut rates = Rates::default();
        let (mut next_wish, mut next_word) = (self.began, self.began + WISH_EVERY);
        let mut trouble = None;
        loop {
            if !self.begun && Instant::now() >= next_wish {
                next_wish = Instant::now() + WISH_EVERY;
                trouble = match client.wish(self.kind.wish(self.machine)).await {
                    Ok(()) => None,
                    // Where it was heard before, it may be carried out all the same: the view will tell.
                    Err(error @ Error::Refused(_)) if !self.heard => return Err(error.into()),
                    Err(error) => Some(error.to_string()),
                };
                self.heard |= trouble.is_none();
            }
            match client.view().await {
                Ok(view) => match stage(&view, self.machine) {
                    Stage::Gone => return Ok((Stage::Gone, view)),
                    Stage::Leaving if no_wait => return Ok((Stage::Leaving, view)),
                    // Who is removed while it is leaving is not removed yet.
                    Stage::Leaving if self.kind == Kind::Leave && !self.begun => {
                        self.begun = true;
                        output.no_progress();
                        output.say(&format!("{} is leaving: epoch {}", self.machine, view.epoch()));
                    }
                    Stage::Leaving | Stage::NotBegun => {}
                },
                Err(error) => trouble = Some(error.to_string()),
            }
            if Instant::now() >= deadline {
                let goes_on = if self.begun { goes_on(client).await } else { String::new() };
                return Err(Failure::TimeOver(self.time_over(patience, trouble, &goes_on)));
            }
            if output.stderr_is_terminal && Instant::now() >= next_word {
                next_word = Instant::now() + WISH_EVERY;
                let moving =
                    moves::look(client, &mut rates).await.unwrap_or_else(|error| Some(error.to_string()));
                let waits = if self.begun { "the others copy what it holds" } else { "the cluster is asked" };
                output.progress(&moving.or_else(|| trouble.clone()).unwrap_or_else(|| waits.to_string()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn time_over(&self, patience: Duration, trouble: Option<String>, goes_on: &str) -> String {
        let (machine, time) = (self.machine, show_duration(patience));
        let trouble = trouble.map(|why| format!(" (last: {why})")).unwrap_or_default();
        match self.begun {
            true => format!("{machine} is still leaving after {time}{trouble}: {goes_on}"),
            false => format!(
                "after {time} no view shows the change{trouble}; it may yet be made within ten seconds, \
                 'kvctl members' tells. Nothing on disk is lost either way"
            ),
        }
    }
}
