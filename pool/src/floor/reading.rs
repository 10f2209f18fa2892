//! Who takes what workers have answered, and who is told of it.
//!
//! One reads, for all: a caller that waits, or else the supervisor, if anybody needs it to. Whoever sleeps
//! meanwhile and has to know of an answer is told: the reader by the doorbell, the supervisor over the
//! socket, and those who follow the reader by the outcomes themselves, or as one of them is to read.
//!
//! `tests/models` runs this over workers that are threads: it asks no more of a floor than there is there.

use epilogue_process::ring::Listener;

use super::Floor;
use crate::member::Member;

/// Who takes what workers have answered, besides the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    None,
    /// It looks by itself.
    Awake,
    /// It sleeps until a doorbell rings: for each answer, or for several together.
    Asleep {
        is_eager: bool,
    },
}

impl Floor {
    /// Says to each worker who sleeps and has to be told of an answer, if anybody does.
    pub(crate) fn tune(&mut self) {
        let (listener, is_eager) = match self.reader {
            Reader::Awake => (None, true),
            Reader::Asleep { is_eager } => (Some(Listener::Doorbell), is_eager),
            // Without a reader it is the supervisor who sends the next call.
            Reader::None if self.needs_supervisor() => {
                (Some(Listener::Socket), self.wakes.are_awaited())
            }
            Reader::None => (None, true),
        };
        if listener.is_none() && !self.is_tuned {
            return;
        }
        self.is_tuned = listener.is_some();
        let wants_room = self.is_backed_up();
        let tell = |member: &mut Member| member.listen(listener, is_eager, wants_room);
        self.members.iter_mut().for_each(tell);
    }

    /// Takes what workers have answered, and hands on what there is room for then.
    pub(crate) fn collect(&mut self) {
        if self.take_answers() || self.is_backed_up() {
            self.dispatch();
            self.tell_reader();
        }
    }

    /// Whether nobody but the supervisor takes what workers answer, and somebody has to.
    pub(crate) fn needs_supervisor(&self) -> bool {
        self.reader == Reader::None && (self.wakes.are_awaited() || self.has_to_go_on())
    }

    /// Whether somebody sleeps who has to be told of each answer.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.reader == (Reader::Asleep { is_eager: true }) || self.needs_supervisor()
    }

    /// Somebody waits for each answer from here on, of those also that were to be told of together.
    pub(crate) fn listen_for_each(&mut self) {
        if self.reader == Reader::None {
            self.members.iter_mut().for_each(Member::listen_anew);
        }
    }

    /// Has one of those who wait read from here on, if nobody does.
    pub(crate) fn hand_over(&mut self) {
        if let (Reader::None, Some(follower)) = (self.reader, self.followers.first()) {
            follower.promote();
        }
    }

    /// Whether a worker has answered something that was not taken.
    pub(crate) fn has_answers(&mut self) -> bool {
        self.members.iter_mut().any(Member::has_answers)
    }

    /// Tells the reader of outcomes that it did not take itself.
    pub(crate) fn tell_reader(&self) {
        if let Reader::Asleep { .. } = self.reader {
            self.news.ring();
        }
    }
}
