//! get of several keys: a line each, in the order in which they were asked for.

use std::fmt::Write as _;
use std::pin::pin;

use futures_util::StreamExt;

use crate::args::{Get, Global, Read};
use crate::data::{check_key, record_json};
use crate::failure::Failure;
use crate::output::Output;
use crate::{Verdict, connect};

/// Prints each value; what has none, or cannot be read, is told and counts for the exit code.
pub(crate) async fn get(args: Get, global: &Global, output: &mut Output) -> Result<Verdict, Failure> {
    if args.copies || args.read == Read::One {
        return Err(Failure::Usage("--copies and --read one are of one key at a time".to_string()));
    }
    for key in &args.keys {
        check_key(key)?;
    }
    let client = connect(global).await?;
    let mut worst = 0;
    let mut records = pin!(client.get_each(&args.keys));
    for key in &args.keys {
        let Some(got) = records.next().await else { break };
        let failure = match got {
            Ok(Some(record)) if output.json => {
                output.print_json(&record_json(key, &record))?;
                continue;
            }
            Ok(Some(record)) => {
                output.line(&format!("{key}\t{}", escaped(&record.value)))?;
                continue;
            }
            Ok(None) => Failure::Absent { key: key.clone(), copies: None },
            Err(error) => Failure::Client(error),
        };
        worst = worst.max(failure.exit_code());
        match output.json {
            true => {
                let mut object = failure.to_json();
                object["key"] = key.as_str().into();
                output.print_json(&object)?;
            }
            false => output.say(&format!("kvctl: {key}: {failure}")),
        }
    }
    Ok(Verdict::Code(worst))
}

/// A value on one line: text as it is, but for what would end the line or could be taken for the end of the key.
fn escaped(value: &[u8]) -> String {
    let mut line = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                '\t' => line.push_str("\\t"),
                '\n' => line.push_str("\\n"),
                '\r' => line.push_str("\\r"),
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_value_stays_on_its_line() {
        assert_eq!(escaped("grün\tis\na \\ colour".as_bytes()), "grün\\tis\\na \\\\ colour");
        assert_eq!(escaped(&[b'a', 0xff, 0x00, 0xc3]), "a\\xff\0\\xc3");
        assert_eq!(escaped(b""), "");
    }
}
