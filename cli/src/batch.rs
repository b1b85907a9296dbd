//! A file of operations: many lines at a time, answered in their order, in bounded memory.

mod lines;
mod order;
mod step;

use std::path::Path;
use std::pin::pin;

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::args::Global;
use crate::failure::Failure;
use crate::output::Output;
use crate::{Verdict, connect};
use order::Order;
use step::Step;

/// Lines under way at once. Each may hold a value, so this bounds the memory, too.
const AT_ONCE: usize = 64;

/// Carries out each line, and prints what came of it. A line that fails keeps none of the others from it.
pub(crate) async fn run(file: &Path, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    let lines = lines::read(file)?;
    let client = connect(global).await?;
    let mut order = Order::default();
    let numbered = stream::unfold(lines, async |mut lines| Some((lines.recv().await?, lines)));
    let told = numbered
        .map(|(number, line)| {
            // Turns are given in the order of the file.
            let step = line.and_then(|line| Step::parse(&line)).map(|step| (order.turn(step.key()), step));
            let client = &client;
            async move {
                match step {
                    Ok((turn, step)) => told(number, Some(&step), turn.come(step.carry_out(client)).await),
                    Err(failure) => told(number, None, Err(failure)),
                }
            }
        })
        .buffered(AT_ONCE);
    let mut told = pin!(told);
    let mut worst = 0;
    while let Some((object, code)) = told.next().await {
        worst = worst.max(code);
        output.print_json(&object)?;
    }
    Ok(Verdict::Code(worst))
}

/// The answer to a line, and the exit code that it is worth.
fn told(number: u64, step: Option<&Step>, came: Result<Value, Failure>) -> (Value, u8) {
    let (mut object, code) = match came {
        Ok(object) => (object, 0),
        Err(failure) => (failure.to_json(), failure.exit_code()),
    };
    object["line"] = json!(number);
    if let Some(step) = step {
        object["op"] = json!(step.op());
        object["key"] = json!(step.key());
    }
    (object, code)
}
