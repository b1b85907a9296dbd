//! A value as a whole number: what a counter is (I6).

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::str;

use crate::stamp::Uncountable;

/// The number that a value is: an i64 in decimal text, written as this module would write it, and in no other way.
/// An absent key counts as 0. `None` if the value is no such number.
pub fn of(value: Option<&[u8]>) -> Option<i64> {
    let Some(value) = value else { return Some(0) };
    let text = str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    // "+7", "007" and "-0" are the texts of somebody who means something else by them.
    (number.to_string() == text).then_some(number)
}

/// The value of a counter at this number.
pub fn text(number: i64) -> Arc<[u8]> {
    String::into_bytes(number.to_string()).into()
}

/// What the counter will be.
pub(crate) fn add(value: Option<&[u8]>, by: i64) -> Result<i64, Uncountable> {
    let number = of(value).ok_or(Uncountable::NotANumber)?;
    number.checked_add(by).ok_or(Uncountable::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_it_is_written_as() {
        for number in [0, 7, -7, i64::MAX, i64::MIN] {
            assert_eq!(of(Some(&text(number))), Some(number));
        }
        assert_eq!(of(None), Some(0));
        for no in ["", " 7", "7\n", "+7", "007", "-0", "0x7", "7.0", "9223372036854775808", "\u{ff17}"] {
            assert_eq!(of(Some(no.as_bytes())), None, "{no:?}");
        }
        assert_eq!(of(Some(&[0xff])), None);
    }

    #[test]
    fn a_sum_that_does_not_fit_is_refused() {
        assert_eq!(add(None, -3), Ok(-3));
        assert_eq!(add(Some(b"9223372036854775807"), 1), Err(Uncountable::TooLarge));
        assert_eq!(add(Some(b"-1"), i64::MIN), Err(Uncountable::TooLarge));
        assert_eq!(add(Some(b"x"), 1), Err(Uncountable::NotANumber));
    }
}
