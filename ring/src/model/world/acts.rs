//! What may happen in a small world, and how it is told.

use core::fmt;

use crate::model::ground::letter;

/// Something that may happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::model) enum Act {
    Prepare { at: u8, ballot: u8 },
    Lead { ballot: u8, base: u8 },
    Accept { at: u8, ballot: u8 },
    Read { at: u8 },
    Adopt { at: u8 },
    Begin { at: u8, view: u8 },
    Tell { from: u8, to: u8 },
    Decide { at: u8 },
    Sync { at: u8 },
    Durable { at: u8 },
    Settle { at: u8, view: u8 },
    Forget { at: u8 },
    Vote { ballot: u8, view: u8 },
    Collect { at: u8 },
    Restart { at: u8 },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Prepare { at, ballot } => write!(f, "{} promises ballot {ballot}", letter(at)),
            Self::Lead { ballot, base: 0 } => write!(f, "ballot {ballot} leads, on no record"),
            Self::Lead { ballot, base } => write!(f, "ballot {ballot} leads, on the record of {base}"),
            Self::Accept { at, ballot } => write!(f, "{} holds ballot {ballot}", letter(at)),
            Self::Read { at } => write!(f, "{} answers the read", letter(at)),
            Self::Adopt { at } => write!(f, "{} adopts the next view", letter(at)),
            Self::Begin { at, view } => write!(f, "{} begins from view {}", letter(at), view + 1),
            Self::Tell { from, to } => write!(f, "{} tells {}", letter(from), letter(to)),
            Self::Decide { at } => write!(f, "{} takes what it was told", letter(at)),
            Self::Sync { at } => write!(f, "{} is synced", letter(at)),
            Self::Durable { at } => write!(f, "that {} is synced is on its disk", letter(at)),
            Self::Settle { at, view } => write!(f, "{} hears that view {} is settled", letter(at), view + 1),
            Self::Vote { ballot, view } => {
                write!(f, "all vote for the tombstone of ballot {ballot} in view {}", view + 1)
            }
            Self::Collect { at } => write!(f, "{} drops the tombstone", letter(at)),
            Self::Forget { at } => write!(f, "{} drops what is for nothing", letter(at)),
            Self::Restart { at } => write!(f, "{} restarts", letter(at)),
        }
    }
}
