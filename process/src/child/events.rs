//! What a child says, and what its parent makes of it.

use super::{Child, Event, Life, Start};
use crate::codec::{Limits, decode};
use crate::end::MAX_GOODBYE;
use crate::note::MAX_NOTE;
use crate::parcel::Parcel;
use crate::ring::Reply;
use crate::wire::{Frame, Kind, Received, Wire, WireError};

impl Child {
    /// The next answers that are in the ring, if any. This asks nothing of the system.
    pub fn answers(&mut self) -> Option<Event> {
        // Who shares its memory may write there when its end has been told: nothing follows that.
        if self.is_trusted() && !matches!(self.life, Life::Told(_)) {
            match self.wire.reply() {
                Ok(reply) => reply.map(|reply| self.answer_in(reply)),
                Err(error) => Some(self.distrust(error)),
            }
        } else {
            None
        }
    }

    pub(super) fn answer_in(&mut self, reply: Reply) -> Event {
        match self.wire.find(&reply) {
            Ok(None) => Event::Answers(reply),
            Ok(Some(payload)) => Event::Answer { id: reply.id, index: reply.first, payload },
            Err(error) => self.distrust(error),
        }
    }

    /// The next thing that happened, if any.
    pub fn event(&mut self) -> Option<Event> {
        if let Some(early) = self.early.take() {
            return Some(early);
        }
        if let Some(event) = self.answers() {
            return Some(event);
        }
        self.has_more = false;
        while self.wire_open {
            match self.wire.receive() {
                Ok(Received::Frame(frame)) => match self.accept(frame) {
                    Some(event) => return Some(event),
                    None => continue,
                },
                Ok(Received::Nothing) => break,
                // It has not ended here, whatever is known of the process: whoever waits for its wire
                // comes again, and looks after others and at the time before that.
                Ok(Received::More) => {
                    self.has_more = true;
                    return None;
                }
                Ok(Received::Closed) => self.lose_wire(),
                Err(error) => return Some(self.break_off(error)),
            }
        }
        match self.life {
            Life::Reaped(status) => {
                // What it wrote up to its end.
                if let Some(event) = self.answers().or_else(|| self.salvage()) {
                    return Some(event);
                }
                self.life = Life::Told(status);
                self.wire_open = false;
                Some(Event::Ended(status))
            }
            Life::Running | Life::Falling { .. } | Life::Told(_) => None,
        }
    }

    pub(super) fn accept(&mut self, frame: Frame) -> Option<Event> {
        let Frame { kind, slot, id, payload, descriptors } = frame;
        match kind {
            Kind::Hello | Kind::Refusal
                if matches!(self.start, Start::Up | Start::Refused { .. }) =>
            {
                Some(self.break_off(WireError::SaidAgain))
            }
            // It was killed, and is not told to be up on its way down.
            Kind::Hello if matches!(self.start, Start::Late | Start::Unread) => None,
            Kind::Hello => match decode(&payload, &Limits::default()) {
                Ok(sandbox) => {
                    self.start = Start::Up;
                    self.sandbox = sandbox;
                    Some(Event::Hello)
                }
                Err(_) => Some(self.break_off(WireError::Garbage)),
            },
            Kind::Refusal => match decode(&payload, &Limits::default()) {
                Ok(refusal) => {
                    if let Start::Awaited { by } = self.start {
                        self.start = Start::Refused { by };
                    }
                    Some(Event::Refused(refusal))
                }
                Err(_) => Some(self.break_off(WireError::Garbage)),
            },
            Kind::Reply => {
                let payload = Parcel::with_descriptors(payload, descriptors);
                Some(Event::Answer { id, index: slot, payload })
            }
            Kind::BulkReply => Some(match self.wire.admit(&payload, &descriptors) {
                Ok(payload) => Event::Answer { id, index: slot, payload },
                Err(error) => self.break_off(error),
            }),
            Kind::Missed => {
                self.wire.missed(id);
                None
            }
            // It is what we were woken for, and are about to look for.
            Kind::Ready => self.answers(),
            Kind::Begun => Some(Event::Begun { id }),
            Kind::Grown => Some(Event::Grown),
            Kind::Note if payload.len() > MAX_NOTE => Some(self.too_long(payload.len(), MAX_NOTE)),
            Kind::Note => Some(Event::Note { id, note: payload }),
            Kind::Goodbye if self.goodbye.is_some() => Some(self.break_off(WireError::SaidAgain)),
            Kind::Goodbye if payload.len() > MAX_GOODBYE => {
                Some(self.too_long(payload.len(), MAX_GOODBYE))
            }
            Kind::Goodbye => match decode(&payload, &Limits::default()) {
                Ok(goodbye) => {
                    self.goodbye = Some(goodbye);
                    None
                }
                Err(_) => Some(self.break_off(WireError::Garbage)),
            },
            Kind::Start
            | Kind::Call
            | Kind::Share
            | Kind::Forget
            | Kind::Finish
            | Kind::Stop
            | Kind::BulkCall
            | Kind::BulkShare => Some(self.break_off(WireError::Garbage)),
        }
    }

    /// What it had answered, and not yet handed over, as it ended.
    pub(super) fn salvage(&mut self) -> Option<Event> {
        if self.salvaged || !self.is_trusted() {
            return None;
        }
        self.salvaged = true;
        let reply = self.wire.salvage()?;
        Some(self.answer_in(reply))
    }

    /// Whether what it wrote into the ring is believed.
    pub fn is_trusted(&self) -> bool {
        !self.broken
    }

    /// It has spoilt its ring: nothing in there is believed any more.
    pub fn distrust(&mut self, error: WireError) -> Event {
        self.broken = true;
        self.break_off(error)
    }

    fn too_long(&mut self, len: usize, limit: usize) -> Event {
        self.break_off(WireError::TooLong { len: len as u64, limit })
    }

    /// A child that broke the protocol may be corrupt or hostile: nothing is asked of it.
    pub(super) fn break_off(&mut self, error: WireError) -> Event {
        self.wire_open = false;
        self.broke = Some(error.to_string());
        let step = self.ladder.kill();
        self.take(step);
        Event::Broken(error)
    }

    /// A child that closes its wire is leaving, or pretends to.
    pub(super) fn lose_wire(&mut self) {
        self.wire_open = false;
        self.drained();
    }
}
