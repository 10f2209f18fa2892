//! What is taken out, on purpose: a model that still passes shows nothing.
//!
//! The pool's source does not know of it: it is taken out of what stands for what lies below that.

use std::sync::OnceLock;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// A reader that leaves tells nobody: it finds no follower.
    HandOver,
    /// A reader that sleeps is not told of what it did not take itself, nor that others have come.
    News,
    /// Nobody looks once more before it sleeps: nothing is seen then.
    Look,
    /// Workers tell nobody.
    Listen,
    /// The supervisor is not told that nobody else reads.
    Leave,
    /// Who reads or follows calls those who are due.
    Quiet,
}

impl Break {
    pub const ALL: [Self; 6] =
        [Self::HandOver, Self::News, Self::Look, Self::Listen, Self::Leave, Self::Quiet];
}

static BROKEN: OnceLock<Break> = OnceLock::new();

pub fn take_out(what: Break) {
    let _ = BROKEN.set(what);
}

pub fn is_broken(what: Break) -> bool {
    BROKEN.get() == Some(&what)
}
