//! Forced recovery (F2): five slots of some keys are lost for good. Shows what may be lost with them, asks, and forces.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ennead::Name;
use ennead::client::Error;
use ennead::plan::{Loss, loss};
use ennead::units::show_duration;
use ennead_ring::{Epoch, Incarnation, Machine, View};
use serde_json::json;

use crate::args::{Global, Recover};
use crate::failure::Failure;
use crate::output::Output;
use crate::{Verdict, connect};
use ennead::moving::Accounts;

/// The word is kept by the wardens for ten seconds: it is said again until the view shows it.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// How often a machine that is said to be lost is looked for: who has only just died is still believed alive.
const LOOKS: u32 = 6;

/// `kvctl recover`.
pub(crate) async fn recover(args: Recover, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let client = connect(global).await?;
    let view = client.view().await?;
    let accounts = client.status().await?;
    let lost = machines(&view, &args.machines, &accounts)?;
    let before = view.forced_out().len();
    if let Some(name) = args.machines.iter().find(|name| answer(&accounts, **name).is_some()) {
        return Err(Failure::Refused(format!(
            "{name} answers; nothing was changed. Only machines that are lost for good, with their data, are named here"
        )));
    }
    let survivors = survivors(&accounts, &view, &args.machines);
    if let (Some(&(one, a)), Some(&(other, b))) = (survivors.first(), survivors.last())
        && one.generation > 0
        && one.generation == other.generation
        && !one.is_beside(other)
    {
        return Err(Failure::Refused(format!(
            "{a} follows epoch {one}, and {b} follows epoch {other}: two forced recoveries went apart, and a third would not \
             join them. Stop the machines of one of the two, move their data aside, and start them with --join; nothing was \
             changed"
        )));
    }
    // The most advanced is asked; it asks the others to agree.
    let Some(&(epoch, survivor)) = survivors.iter().max() else {
        return Err(Failure::Refused("no machine is left that answers; nothing was changed".to_string()));
    };
    let records = survivors.iter().filter_map(|(_, name)| Some((*name, answer(&accounts, *name)?.records)));
    let loss = loss(&view, &args.machines.iter().copied().collect(), &records.collect());
    let told = show(&view, &args.machines, &survivors, survivor, &loss);
    if args.plan {
        match output.json {
            true => output.print_json(&to_json(&view, &args.machines, &survivors, survivor, &loss))?,
            false => output.data(told.as_bytes())?,
        }
        return Ok(Verdict::Yes);
    }
    if !args.yes {
        if !output.can_ask() {
            return Err(Failure::Refused(
                "acknowledged writes may be lost by this: look at --plan, and say --yes; nothing was changed"
                    .to_string(),
            ));
        }
        output.say(&told);
        let cluster = view.cluster().to_string();
        if output.ask_for("Type the cluster's id to go on:").as_deref() != Some(cluster.as_str()) {
            return Err(Failure::Refused("that is not it; nothing was changed".to_string()));
        }
    }
    let began = Instant::now();
    let mut looks = 0;
    let mut refusal = String::new();
    loop {
        match client.force(survivor, lost.clone()).await {
            Ok(()) => {}
            Err(Error::Refused(why)) => {
                looks += 1;
                if looks == LOOKS {
                    return Err(Failure::Refused(format!("{survivor} refuses: {why}; nothing was changed")));
                }
                refusal = format!(" ({survivor} said: {why})");
            }
            // It may have been heard.
            Err(error) if began.elapsed() >= global.patience() => {
                return Err(Failure::TimeOver(format!(
                    "the outcome is unknown: {error}; 'kvctl members' tells"
                )));
            }
            Err(_) => {}
        }
        if let Ok(view) = client.view().await
            && is_done(&view, &lost, before)
        {
            let took = began.elapsed();
            match output.json {
                true => output.print_json(&json!({
                    "outcome": "done",
                    "epoch": view.epoch().to_string(),
                    "members": view.members().len(),
                    "seconds": took.as_secs_f64(),
                }))?,
                false => output.say(&format!(
                    "forced out: epoch {}, {} machines left, after {}; 'kvctl moves -w' shows the rest",
                    view.epoch(),
                    view.members().len(),
                    show_duration(took)
                )),
            }
            return Ok(Verdict::Yes);
        }
        if began.elapsed() >= global.patience() {
            return Err(Failure::TimeOver(format!(
                "after {} no view after epoch {epoch} shows it{refusal}; it may yet be made within ten seconds, 'kvctl \
                 members' tells",
                show_duration(global.patience())
            )));
        }
        tokio::time::sleep(SAY_EVERY).await;
    }
}

/// Whom these names mean. One that is no member any more may still be missed while a view is not settled: whom its name
/// meant last, the machine that is asked knows.
fn machines(view: &View, names: &[Name], accounts: &Accounts) -> Result<Vec<Machine>, Failure> {
    let answers = || accounts.iter().filter_map(|(_, account)| account.as_ref().ok());
    let settled = answers().any(|account| account.settled >= view.epoch());
    let machine = |name: &Name| match view.index_of(*name) {
        Some(i) => Ok(view.members()[i].machine),
        None if settled => Err(Failure::NoSuchMachine(*name)),
        None => Ok(Machine { name: *name, incarnation: Incarnation::NONE }),
    };
    names.iter().map(machine).collect()
}

/// True once this view has forced them out.
fn is_done(view: &View, lost: &[Machine], before: usize) -> bool {
    let out = |m: &Machine| m.incarnation == Incarnation::NONE || view.has_forced_out(m.incarnation);
    let by_name = lost.iter().any(|m| m.incarnation == Incarnation::NONE);
    lost.iter().all(out) && (!by_name || view.forced_out().len() >= before + lost.len())
}

fn answer(accounts: &Accounts, name: Name) -> Option<&ennead::status::MachineStatus> {
    accounts.iter().find(|(n, _)| *n == name).and_then(|(_, account)| account.as_ref().ok())
}

/// Who is left and answers, and how far each is.
fn survivors(accounts: &Accounts, view: &View, lost: &[Name]) -> BTreeSet<(Epoch, Name)> {
    let members = view.members().iter().map(|m| m.machine.name).filter(|name| !lost.contains(name));
    members.filter_map(|name| Some((answer(accounts, name)?.epoch, name))).collect()
}

fn show(
    view: &View,
    lost: &[Name],
    survivors: &BTreeSet<(Epoch, Name)>,
    survivor: Name,
    loss: &Loss,
) -> String {
    let names = |names: &mut dyn Iterator<Item = String>| names.collect::<Vec<_>>().join(", ");
    let keys = match loss.keys {
        Some(keys) => format!("about {keys} keys"),
        None => "an unknown number of keys".to_string(),
    };
    format!(
        "Forced recovery of cluster {}\n\n\
         lost for good   {}\n\
         left            {}\n\
         asked first     {survivor}, the most advanced; all that are left have to agree\n\n\
         {:.1} % of all keys have five or more of their copies on the lost machines: {keys}.\n\
         Acknowledged writes to these may be lost, and nobody can tell which: a key may read as it was before.\n\
         {:.1} % have all their copies there, and are lost.\n\
         The lost machines may never take part again; with their data moved aside they join as new ones.\n",
        view.cluster(),
        names(&mut lost.iter().map(ToString::to_string)),
        names(&mut survivors.iter().rev().map(|(epoch, name)| format!("{name} (epoch {epoch})"))),
        loss.doubtful * 100.0,
        loss.gone * 100.0,
    )
}

fn to_json(
    view: &View,
    lost: &[Name],
    survivors: &BTreeSet<(Epoch, Name)>,
    survivor: Name,
    loss: &Loss,
) -> serde_json::Value {
    let left =
        |(epoch, name): &(Epoch, Name)| json!({ "machine": name.to_string(), "epoch": epoch.to_string() });
    json!({
        "cluster": view.cluster().to_string(),
        "lost": lost.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "survivors": survivors.iter().rev().map(left).collect::<Vec<_>>(),
        "written_on": survivor.to_string(),
        "doubtful_share": loss.doubtful,
        "gone_share": loss.gone,
        "doubtful_keys": loss.keys,
    })
}
