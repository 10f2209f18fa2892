//! Notes: what the code of a worker's tasks has to say, as it travels to the parent.

use std::borrow::Cow;

/// What the user's code said in a worker, through `tracing`; see
/// [`Event::Noted`](crate::Event::Noted).
///
/// All texts come from the worker, and may say anything; control characters in them are escaped.
/// Each is cut after 4 KiB, and all of them together after 12 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Note {
    /// `ERROR`, `WARN`, `INFO`, `DEBUG` or `TRACE`.
    pub level: &'static str,
    /// The target: the path of the module, mostly.
    pub target: String,
    /// The message.
    pub message: String,
    /// The other fields, as `name=value` with spaces in between.
    pub fields: String,
    /// How many notes of this worker were left out before this one: there were too many at once.
    pub left_out: u64,
}

const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/// Between the parts of a note, in which it is escaped.
const SEPARATOR: char = '\0';

#[cfg(any(test, feature = "tracing"))]
impl Note {
    /// The longest text that is kept of a part, in bytes.
    const PART: usize = 4 << 10;

    pub(crate) fn encode(&self) -> Vec<u8> {
        use std::fmt::Write as _;

        let Self { level, left_out, .. } = self;
        let mut text = format!("{level}{SEPARATOR}{left_out}");
        for part in [&self.target, &self.message, &self.fields] {
            let part = &part[..part.floor_char_boundary(Self::PART)];
            let _ = write!(text, "{SEPARATOR}{}", escaped(part));
        }
        text.truncate(text.floor_char_boundary(Self::PART * 3));
        text.into_bytes()
    }
}

impl Note {
    /// None if it is not a note.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(bytes).ok()?.split(SEPARATOR);
        let level = parts.next()?;
        let level = LEVELS.into_iter().find(|&known| known == level)?;
        let left_out = parts.next()?.parse().ok()?;
        let mut next = || parts.next().map(|part| escaped(part).into_owned());
        let (target, message, fields) = (next()?, next()?, next().unwrap_or_default());
        Some(Self { level, target, message, fields, left_out })
    }
}

/// The text, without anything that a terminal would obey.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    Cow::Owned(text.chars().map(escape).collect())
}

#[cfg(test)]
mod tests {
    use super::Note;

    #[test]
    fn a_note_arrives_as_it_was_without_what_a_terminal_obeys() {
        let note = Note {
            level: "WARN",
            target: "a::b".to_owned(),
            message: "red \u{1b}[31m\0\n".to_owned(),
            fields: "n=1".to_owned(),
            left_out: 3,
        };
        let got = Note::decode(&note.encode()).unwrap();
        assert_eq!(got.message, "red \\u{1b}[31m\\u{0}\\n");
        assert_eq!((got.level, got.left_out, &*got.fields), ("WARN", 3, "n=1"));
        let long = Note { message: "ä".repeat(9000), ..note };
        assert!(Note::decode(&long.encode()).unwrap().message.len() <= 4 << 10);
        for bytes in [&b"LOUD\x000\0a\0b\0c"[..], b"WARN\0x\0a\0b\0c", b"WARN", b"\xff"] {
            assert_eq!(Note::decode(bytes), None);
        }
        // A worker that does not escape gains nothing.
        assert_eq!(Note::decode(b"INFO\x000\0a\0\x1b[2J\0").unwrap().message, "\\u{1b}[2J");
    }
}
