//! Shows something once, or again every second until Ctrl-C.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Verdict;
use crate::args::Watch;
use crate::failure::Failure;
use crate::output::Output;
use crate::terminal::{clip, size};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks where nobody's terminal divides them.
const LINE: &str = "----------------------------------------";

/// What one look found.
pub(crate) struct Look {
    /// For people.
    pub(crate) text: String,
    /// For programs.
    pub(crate) json: Value,
    /// Whether all is well.
    pub(crate) verdict: Verdict,
}

/// Shows what `look` finds. Watching, a look that fails is shown too, and the next one may be luckier.
pub(crate) async fn show<F>(args: Watch, output: &mut Output, mut look: F) -> Result<Verdict, Failure>
where
    F: AsyncFnMut(&Output) -> Result<Look, Failure>,
{
    if !args.watch {
        let look = look(output).await?;
        match output.json {
            true => output.print_json(&look.json)?,
            false => output.data(look.text.as_bytes())?,
        }
        return Ok(look.verdict);
    }
    let mut end = End::listen()?;
    let screen = (output.stdout_is_terminal && !output.json).then(Screen::open).transpose()?;
    let mut first = true;
    loop {
        let found = tokio::select! {
            found = look(output) => found,
            () = end.asked() => return Ok(Verdict::Yes),
        };
        match (&screen, found) {
            // Wrong from the beginning: this will not get better.
            (_, Err(failure)) if first => return Err(failure),
            (Some(screen), Ok(look)) => screen.draw(&look.text)?,
            (Some(screen), Err(failure)) => screen.draw(&format!("kvctl: {failure}\n"))?,
            (None, Ok(look)) if output.json => output.print_json(&look.json)?,
            (None, Ok(look)) => output.data(format!("{}{LINE}\n", look.text).as_bytes())?,
            (None, Err(failure)) => output.say(&format!("kvctl: {failure}")),
        }
        first = false;
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = end.asked() => return Ok(Verdict::Yes),
        }
    }
}

/// The ways in which a person ends it.
struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    fn listen() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|e| Failure::Input("signals", e));
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The terminal's other screen: what was on it before is there again afterwards, however this ends.
struct Screen;

impl Screen {
    fn open() -> Result<Self, Failure> {
        write("\x1b[?1049h\x1b[?25l\x1b[2J")?;
        Ok(Self)
    }

    /// Draws over what is there line by line, so that nothing flickers.
    fn draw(&self, text: &str) -> Result<(), Failure> {
        let (columns, rows) = size();
        let lines = text.lines().take(rows).map(|line| clip(line, columns));
        write(&format!("\x1b[H{}\x1b[K\x1b[J", lines.collect::<Vec<_>>().join("\x1b[K\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // If the terminal is gone, so is what would have to be put right.
        let _ = write("\x1b[?25h\x1b[?1049l");
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(Failure::Output)
}
