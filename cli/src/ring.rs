//! Shows the ring: the circle, who owns how much of it, and where a key's slots are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ennead::client::Location;
use ennead::plan;
use ennead_ring::{MemberState, View, Zone};
use serde_json::{Value, json};

use crate::args::{Global, Ring};
use crate::circle::{self, Mark};
use crate::data::check_key;
use crate::failure::Failure;
use crate::imagined::imagine_view;
use crate::locate;
use crate::output::{Output, table};
use crate::terminal;
use crate::watch::{Look, show};
use crate::{Verdict, circle_svg, connect};
use ennead::arcs::{Arc, arcs, lengths};

/// What marks slots, slot 1 first.
const SIGNS: [char; 15] = ['1', '2', '3', '4', '5', '6', '7', '8', '9', '0', '*', '+', '#', '%', '&'];
/// Columns that the legend wants.
const LEGEND: usize = 38;

/// Draws it.
pub(crate) async fn run(args: Ring, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    if let Some(key) = &args.key {
        check_key(key)?;
    }
    if !args.machines.is_empty() {
        let picture = Picture::of(&imagine_view(&args.machines, args.virtual_peers, None)?, args.key);
        picture.save(args.svg.as_deref())?;
        return show(args.watch, output, async |output: &Output| Ok(picture.look(output))).await;
    }
    let client = connect(global).await?;
    show(args.watch, output, async |output: &Output| {
        let view = client.view().await?;
        let picture = Picture::of(&view, args.key.clone());
        picture.save(args.svg.as_deref())?;
        Ok(picture.look(output))
    })
    .await
}

/// What there is to draw.
struct Picture {
    epoch: String,
    arcs: Vec<Arc>,
    machines: Vec<Machine>,
    key: Option<(String, Vec<Location>)>,
    /// Keys are spread over zones.
    spread: bool,
}

/// One machine's part.
struct Machine {
    name: String,
    state: MemberState,
    zone: Zone,
    positions: u32,
    /// Of the circle, and of all slots of all keys: 0 to 1.
    circle: f64,
    slots: f64,
    /// Its slots of the key.
    of_key: Vec<u8>,
}

impl Picture {
    fn of(view: &View, key: Option<String>) -> Self {
        let arcs = arcs(view);
        let key = key.map(|key| {
            let locations = locate::locate(&key, view);
            (key, locations)
        });
        let mut of_key: BTreeMap<_, Vec<u8>> = BTreeMap::new();
        for location in key.iter().flat_map(|(_, locations)| locations) {
            of_key.entry(location.owner).or_default().push(location.slot);
        }
        let parts = lengths(&arcs, view.members().len()).into_iter().zip(plan::shares(view));
        let machines = view.members().iter().zip(parts).map(|(member, (circle, slots))| Machine {
            name: member.machine.name.to_string(),
            state: member.state,
            zone: member.zone,
            positions: if member.in_ring() { member.weight } else { 0 },
            circle,
            slots,
            of_key: of_key.remove(&member.machine.name).unwrap_or_default(),
        });
        Self {
            epoch: view.epoch().to_string(),
            machines: machines.collect(),
            arcs,
            key,
            spread: view.ring().shares().zones().len() > 1,
        }
    }

    fn look(&self, output: &Output) -> Look {
        let text = self.to_text(terminal::size(), output.is_colourful());
        Look { text, json: self.to_json(), verdict: Verdict::Yes }
    }

    fn in_ring(&self) -> usize {
        self.machines.iter().filter(|m| m.positions > 0).count()
    }

    /// The slots of the key, in the colours of their owners.
    fn marks(&self) -> Vec<Mark> {
        let member = |l: &Location| self.machines.iter().position(|m| m.name == l.owner.to_string());
        let mark = |l: &Location| {
            let sign = SIGNS[usize::from(l.slot - 1) % SIGNS.len()];
            Some(Mark { at: l.position, sign, member: member(l)? })
        };
        self.key.iter().flat_map(|(_, l)| l.iter().filter_map(mark)).collect()
    }

    /// What stands in the middle of the circle.
    fn words(&self) -> [String; 3] {
        let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        [
            count(self.in_ring(), "machine"),
            count(self.arcs.len(), "position"),
            format!("epoch {}", self.epoch),
        ]
    }

    /// Draws it into a file, where one was named.
    fn save(&self, file: Option<&Path>) -> Result<(), Failure> {
        let Some(file) = file else { return Ok(()) };
        // No machine is left out: a picture is as high as it needs to be.
        let legend = self.legend(self.machines.len() + 2, false);
        let picture = circle_svg::draw(&self.arcs, &self.marks(), &self.words(), &legend);
        fs::write(file, picture)
            .map_err(|e| Failure::Usage(format!("{} cannot be written: {e}", file.display())))
    }

    /// The circle on the left, the legend on the right, at most as large as the terminal.
    fn to_text(&self, (columns, rows): (usize, usize), colour: bool) -> String {
        // Below it: what the picture means, and the prompt.
        let rows = rows.saturating_sub(4).min(columns.saturating_sub(LEGEND) / 2).clamp(8, 32);
        let (marks, words) = (self.marks(), self.words());
        let circle = circle::draw(&self.arcs, rows, &marks, &words, colour);
        let legend = self.legend(rows, colour);
        let first = (rows - legend.len().min(rows)) / 2;
        let mut text = String::new();
        for (row, line) in circle.iter().enumerate() {
            text.push_str(line);
            if let Some(words) = row.checked_sub(first).and_then(|at| legend.get(at)) {
                text.push_str(&" ".repeat(2 * rows + 2 - terminal::width(line)));
                text.push_str(words);
            }
            text.push('\n');
        }
        text.push('\n');
        text.push_str("Position 0 is at the top. Clockwise, a machine owns up to the next position.\n");
        if self.spread {
            text.push_str(
                "Keys are spread over zones: a slot finds its zone first, then its machine in it.\n",
            );
        }
        if let Some((key, _)) = &self.key {
            let where_to =
                if colour { "in the colours of their owners" } else { "their owners under OF KEY" };
            text.push_str(&format!("The numbers are the slots of {key:?}, {where_to}.\n"));
        }
        let narrow: Vec<String> = text.lines().map(|line| terminal::clip(line, columns)).collect();
        narrow.join("\n") + "\n"
    }

    /// A line for each machine; those of the key first where there are too many, then those that own most.
    fn legend(&self, rows: usize, colour: bool) -> Vec<String> {
        let mut shown: Vec<usize> = (0..self.machines.len()).collect();
        let room = rows.saturating_sub(1);
        let left_out = match shown.len() > room {
            false => 0,
            true => {
                let rank = |&i: &usize| (self.machines[i].of_key.is_empty(), -self.machines[i].slots);
                shown.sort_by(|a, b| rank(a).partial_cmp(&rank(b)).unwrap_or(std::cmp::Ordering::Equal));
                shown.split_off(room.saturating_sub(1)).len()
            }
        };
        let percent = |part: f64| format!("{:.1} %", part * 100.0);
        let zoned = self.machines.iter().any(|m| !m.zone.is_none());
        let zone = zoned.then_some("ZONE");
        let of_key = self.key.is_some().then_some("OF KEY");
        let head = ["", "MACHINE"].into_iter().chain(zone).chain(["SLOTS", "CIRCLE"]).chain(of_key);
        let head = head.map(String::from).collect();
        let row = |&i: &usize| {
            let machine = &self.machines[i];
            let name = match machine.state {
                MemberState::Up => machine.name.clone(),
                MemberState::Joining => format!("{} (joining)", machine.name),
                MemberState::Leaving => format!("{} (leaving)", machine.name),
            };
            let sign = if machine.positions > 0 { circle::sign(i, colour) } else { "  ".to_string() };
            let slots: Vec<String> = machine.of_key.iter().map(ToString::to_string).collect();
            let zone = zoned.then(|| machine.zone.to_string());
            let parts = [percent(machine.slots), percent(machine.circle), slots.join(",")];
            [sign, name].into_iter().chain(zone).chain(parts).collect()
        };
        let rows: Vec<_> = std::iter::once(head).chain(shown.iter().map(row)).collect();
        let mut lines: Vec<String> = table(&rows).lines().map(String::from).collect();
        if left_out > 0 {
            lines.push(format!("    and {left_out} more"));
        }
        lines
    }

    fn to_json(&self) -> Value {
        let machine = |m: &Machine| {
            json!({
                "name": m.name,
                "state": state_word(m.state),
                "zone": (!m.zone.is_none()).then(|| m.zone.as_str()),
                "positions": m.positions,
                "circle": m.circle,
                "slots": m.slots,
            })
        };
        let arc = |arc: &Arc| json!({"from": arc.from.to_string(), "owner": self.machines[arc.member].name});
        let mut object = json!({
            "epoch": self.epoch,
            "machines": self.machines.iter().map(machine).collect::<Vec<_>>(),
            "arcs": self.arcs.iter().map(arc).collect::<Vec<_>>(),
        });
        if let Some((key, locations)) = &self.key {
            object["key"] = locate::to_json(key, locations);
        }
        object
    }
}

fn state_word(state: MemberState) -> &'static str {
    match state {
        MemberState::Joining => "joining",
        MemberState::Up => "up",
        MemberState::Leaving => "leaving",
    }
}
