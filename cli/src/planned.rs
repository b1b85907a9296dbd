//! How a plan is told: what would move, from whom to whom, and what may be lost meanwhile and afterwards.

use ennead::plan::{Change, Plan};
use ennead_ring::MemberState;
use serde_json::{Value, json};

use crate::output::table;

/// Flows shown one by one.
const SHOWN: usize = 12;

fn percent(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

fn headline(plan: &Plan, change: &Change) -> String {
    let list = |names: Vec<String>| names.join(", ");
    let (who, verb, verbs) = match change {
        Change::Join(machines) => (machines.iter().map(|(n, _)| n.to_string()).collect(), "joins", "join"),
        Change::Leave(names) => {
            (names.iter().map(ToString::to_string).collect::<Vec<_>>(), "leaves", "leave")
        }
        Change::Remove(names) => {
            (names.iter().map(ToString::to_string).collect(), "is removed", "are removed")
        }
        Change::Weight(name, weight) => return format!("{name} gets {weight} virtual peers"),
    };
    let verb = if who.len() == 1 { verb } else { verbs };
    format!("{} {verb}: from {} machines in the ring to {}", list(who), plan.machines, plan.machines_after)
}

/// For people.
pub(crate) fn to_text(plan: &Plan, change: &Change) -> String {
    let mut text = headline(plan, change);
    text.push('\n');
    for (name, state) in &plan.pending {
        let doing = if *state == MemberState::Joining { "joining" } else { "leaving" };
        text.push_str(&format!("{name} is {doing} already; this plan is for both together\n"));
    }
    let records = match (plan.records, plan.keys) {
        (Some(0), _) => "; nothing to copy: their keys are there already".to_string(),
        (Some(records), Some(keys)) => format!("; about {records} records to copy, of {keys} keys"),
        _ => String::new(),
    };
    let lost = plan.tolerates.min(plan.tolerates_after);
    let few = "fewer than five of their slots vote until synced";
    let paused = match plan.paused {
        0.0 => "no key".to_string(),
        part if part < 0.001 => format!("fewer than 0.1 % of the keys ({few})"),
        part => format!("{} of the keys ({few})", percent(part)),
    };
    let facts = [
        ["slots that move", &format!("{} of all{records}", percent(plan.moved))],
        ["short pause", &paused],
        [
            "may fail at once",
            &format!("{} now, {lost} meanwhile, {} afterwards", plan.tolerates, plan.tolerates_after),
        ],
    ];
    text.push('\n');
    text.push_str(&table(&facts.map(|fact| fact.map(String::from).to_vec())));
    for zone in &plan.bound {
        text.push_str(&format!("zone {zone} can fail as a whole now, and could not afterwards\n"));
    }
    let head = ["MACHINE", "SLOTS NOW", "AFTERWARDS", "KEYS TO COPY"].map(String::from).to_vec();
    let row = |share: &ennead::plan::Share| {
        vec![share.name.to_string(), percent(share.before), percent(share.after), percent(share.takes)]
    };
    text.push('\n');
    text.push_str(&table(&std::iter::once(head).chain(plan.shares.iter().map(row)).collect::<Vec<_>>()));
    if !plan.flows.is_empty() {
        let head = ["FROM", "TO", "SLOTS"].map(String::from).to_vec();
        let flows = plan.flows.iter().take(SHOWN);
        let rows = flows.map(|flow| vec![flow.from.to_string(), flow.to.to_string(), percent(flow.slots)]);
        text.push('\n');
        text.push_str(&table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()));
        if plan.flows.len() > SHOWN {
            let rest: f64 = plan.flows[SHOWN..].iter().map(|flow| flow.slots).sum();
            text.push_str(&format!(
                "and {} smaller ones, {} together\n",
                plan.flows.len() - SHOWN,
                percent(rest)
            ));
        }
    }
    text
}

/// For programs.
pub(crate) fn to_json(plan: &Plan) -> Value {
    let share = |s: &ennead::plan::Share| json!({"name": s.name.to_string(), "slots": s.before, "slots_after": s.after, "keys_to_copy": s.takes});
    let flow = |f: &ennead::plan::Flow| json!({"from": f.from.to_string(), "to": f.to.to_string(), "slots": f.slots});
    json!({
        "machines": plan.machines,
        "machines_after": plan.machines_after,
        "tolerates": plan.tolerates,
        "tolerates_meanwhile": plan.tolerates.min(plan.tolerates_after),
        "tolerates_after": plan.tolerates_after,
        "zones_bound": plan.bound.iter().map(|zone| zone.as_str()).collect::<Vec<_>>(),
        "slots_moved": plan.moved,
        "keys_paused": plan.paused,
        "keys": plan.keys,
        "records_to_copy": plan.records,
        "pending": plan.pending.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>(),
        "shares": plan.shares.iter().map(share).collect::<Vec<_>>(),
        "flows": plan.flows.iter().map(flow).collect::<Vec<_>>(),
    })
}
