//! Whom a worker tells of its answers.
//!
//! `tests/models` runs this, as it runs `floor/reading.rs`, over workers that are threads.

use epilogue_process::ring::Listener;

use super::Member;

impl Member {
    /// Has it tell `listener` of answers: of each, or of several together. Where calls wait for
    /// room, also one that has none: its ring may be full of what was taken back.
    pub(crate) fn listen(&mut self, listener: Option<Listener>, is_eager: bool, wants_room: bool) {
        let has_nothing_to_tell = listener.is_some() && self.in_flight.is_empty() && !wants_room;
        if self.listener == listener || has_nothing_to_tell {
            return;
        }
        self.listener = listener;
        match listener {
            Some(listener) => {
                let records = if is_eager { 1 } else { self.in_flight.len() - self.reserve() };
                self.child.wire().listen(listener, records as u32);
            }
            None => self.child.wire().stop_listening(),
        }
    }

    /// What it was told of its listener is said again, and may be something else.
    pub(crate) fn listen_anew(&mut self) {
        self.listener = None;
    }

    /// It may have told its listener, and tells nobody else before it is asked again.
    pub(crate) fn has_told(&mut self) {
        if !self.child.wire().is_listening() {
            self.listener = None;
        }
    }

    /// Whether it has answered something that was not taken. What one that is not believed has written
    /// is never taken: whoever looked for that again and again would never bury it.
    pub(crate) fn has_answers(&mut self) -> bool {
        !self.in_flight.is_empty() && self.child.is_trusted() && self.child.wire().has_reply()
    }
}
