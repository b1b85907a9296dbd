//! Where a key's slots are on the ring and who owns them, by the cluster's view or for a cluster imagined.

use ennead::client::Location;
use ennead_ring::placement::Ring;
use ennead_ring::{Chain, View};
use serde_json::{Value, json};

use crate::args::{Global, Locate};
use crate::data::check_key;
use crate::failure::Failure;
use crate::imagined::imagine_view;
use crate::output::{Output, table};
use crate::{Verdict, connect};

/// Shows slots, positions and owners.
pub(crate) async fn run(args: Locate, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    check_key(&args.key)?;
    let locations = match args.machines.is_empty() {
        true => connect(global).await?.locate(&args.key).await?,
        false => locate(&args.key, &imagine_view(&args.machines, args.virtual_peers, args.slots)?),
    };
    match output.json {
        true => output.print_json(&to_json(&args.key, &locations))?,
        false => output.data(to_text(&locations).as_bytes())?,
    }
    Ok(Verdict::Yes)
}

/// The slots of a key in a view.
pub(crate) fn locate(key: &str, view: &View) -> Vec<Location> {
    let chain = Chain::of(key.as_bytes(), view.slots());
    let owners = Ring::of(view).owners(&chain);
    let locate = |(slot, &position)| Location {
        slot,
        position,
        owner: view.members()[owners.owner(slot) as usize].machine.name,
    };
    (1..=view.slots()).zip(chain.positions()).map(locate).collect()
}

/// For programs.
pub(crate) fn to_json(key: &str, locations: &[Location]) -> Value {
    let slot = |l: &Location| json!({"slot": l.slot, "position": l.position.to_string(), "owner": l.owner.to_string()});
    json!({"key": key, "slots": locations.iter().map(slot).collect::<Vec<_>>()})
}

fn to_text(locations: &[Location]) -> String {
    let head = ["SLOT", "POSITION", "OWNER"].map(String::from).to_vec();
    let row = |l: &Location| vec![l.slot.to_string(), l.position.to_string(), l.owner.to_string()];
    table(&std::iter::once(head).chain(locations.iter().map(row)).collect::<Vec<_>>())
}
