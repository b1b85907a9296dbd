//! Weight: gives a machine more or fewer positions on the ring, and watches until the data is where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use ennead::Name;
use ennead::client::{Client, Error};
use ennead::moving::Rates;
use ennead::plan::{Change, Plan};
use ennead::units::show_duration;
use ennead_ring::message::Wish;
use ennead_ring::{Member, View};
use serde_json::json;

use crate::args::{Global, Weight};
use crate::failure::Failure;
use crate::imagined::imagine_view;
use crate::membership::{LOOK_EVERY, WISH_EVERY, goes_on, no_plan, plan, tell};
use crate::output::Output;
use crate::{Verdict, connect, moves};

/// `kvctl weight`.
pub(crate) async fn run(args: Weight, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let change = Change::Weight(args.machine, args.weight);
    if !args.how.machines.is_empty() {
        let view = imagine_view(&args.how.machines, args.how.virtual_peers, None)?;
        let plan = Plan::of(&view, &change, &BTreeMap::new(), &BTreeSet::new());
        return tell(&plan.map_err(no_plan)?, &change, output);
    }
    let client = connect(global).await?;
    let view = client.view().await?;
    let Some(member) = find(&view, args.machine) else { return Err(Failure::NoSuchMachine(args.machine)) };
    if args.how.plan {
        return tell(&plan(&view, &change, &client.status().await?)?, &change, output);
    }
    let began = Instant::now();
    let wish = Wish::Place { machine: member.machine, weight: args.weight, zone: member.next_zone };
    let ended = carry_out(&client, wish, args.how.no_wait, global, output).await;
    output.no_progress();
    let (done, view) = ended?;
    let (machine, weight) = (args.machine, args.weight);
    match (output.json, done) {
        (true, _) => output.print_json(&json!({
            "machine": machine.to_string(),
            "virtual_peers": weight,
            "outcome": if done { "done" } else { "begun" },
            "epoch": view.epoch().number,
            "seconds": began.elapsed().as_secs_f64(),
        }))?,
        (false, true) => output.say(&format!(
            "{machine} has {weight} virtual peers: epoch {}, after {}",
            view.epoch(),
            show_duration(began.elapsed())
        )),
        (false, false) => {
            output.say(&format!(
                "{machine} is to have {weight} virtual peers; 'kvctl moves -w' shows how far it is"
            ));
        }
    }
    Ok(Verdict::Yes)
}

fn find(view: &View, name: Name) -> Option<Member> {
    view.index_of(name).map(|index| view.members()[index])
}

/// True once the ring is so, false once it is announced and nobody waits.
async fn carry_out(
    client: &Client,
    wish: Wish,
    no_wait: bool,
    global: &Global,
    output: &mut Output,
) -> Result<(bool, std::sync::Arc<View>), Failure> {
    let Wish::Place { machine, weight, .. } = wish else { unreachable!("it is about a place") };
    let began = Instant::now();
    let (mut next_wish, mut heard, mut rates) = (began, false, Rates::default());
    loop {
        let view = client.view().await?;
        let member = find(&view, machine.name).filter(|member| member.machine == machine);
        let Some(member) = member else { return Err(Failure::NoSuchMachine(machine.name)) };
        let announced = member.next_weight == weight;
        if announced && (no_wait || member.weight == weight) {
            return Ok((member.weight == weight, view));
        }
        if Instant::now() >= next_wish {
            next_wish = Instant::now() + WISH_EVERY;
            if !announced {
                match client.wish(wish).await {
                    Ok(()) => heard = true,
                    Err(error @ Error::Refused(_)) => return Err(error.into()),
                    Err(error) if !heard => return Err(error.into()),
                    Err(_) => {}
                }
            } else if output.stderr_is_terminal
                && let Ok(Some(moving)) = moves::look(client, &mut rates).await
            {
                output.progress(&moving);
            }
        }
        if began.elapsed() >= global.patience() {
            let goes_on = match announced {
                true => format!("the data is still moving: {}", goes_on(client).await),
                false => {
                    "no view shows the change; it may yet be made within ten seconds, 'kvctl members' tells"
                        .to_string()
                }
            };
            return Err(Failure::TimeOver(format!("after {}, {goes_on}", show_duration(began.elapsed()))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
