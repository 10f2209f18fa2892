//! The way up of a child: what it is told first, and the wait until it says that it is there.

use std::io;
use std::time::Instant;

use super::{Child, Event, Start as Progress};
use crate::boot::{Refusal, Start};
use crate::codec::{Limits, encode};
use crate::entry::MainEntry;
use crate::error::StartError;
use crate::setup::Bounds;
use crate::spec::Spec;
use crate::status::ExitStatus;
use crate::stop::Rung;
use crate::sys::image::Image;
use crate::wire::WireError;

impl Child {
    /// Blocks until the child is up and has taken all that was queued.
    ///
    /// # Errors
    ///
    /// [`StartError`] if it does not get there; then it has been reaped.
    pub(crate) fn wait_until_up(&mut self) -> Result<(), StartError> {
        let (mut refusal, mut early) = (None, None);
        let mut up = false;
        let mut still = Standstill { unsent: self.wire.unsent(), since: Instant::now() };
        while !up || self.start == Progress::Unread || (self.wire_open && !self.is_flushed()) {
            // The time first: what was said by then is read before it is found late, however long this
            // stands still in between.
            let now = Instant::now();
            match self.event() {
                Some(Event::Hello) => up = true,
                Some(Event::Refused(refused)) => refusal = Some(refused),
                Some(Event::Ended(status)) => return Err(self.start_error(refusal, status)),
                // Whoever answers more than the one call that there is at most would be listened to
                // for as long as it does.
                Some(Event::Answer { .. } | Event::Answers(_)) if early.is_some() => {
                    early = Some(self.distrust(WireError::Garbage));
                }
                // The call can be there, and answered, before what follows it has been written.
                Some(event @ (Event::Answer { .. } | Event::Answers(_) | Event::Broken(_))) => {
                    early = Some(event)
                }
                Some(Event::Begun { .. } | Event::Grown | Event::Note { .. }) => {}
                None => {
                    self.tick(now);
                    let by = still.since(self.wire.unsent(), now) + self.start_deadline;
                    // One that is stopped takes nothing, and nobody else has it yet who could end it.
                    let by = Some(by).filter(|_| self.start == Progress::Up);
                    if by.is_some_and(|by| by <= now) {
                        self.start = Progress::Unread;
                        self.kill();
                    }
                    self.block(self.due().into_iter().chain(by).min());
                }
            }
        }
        self.early = early;
        Ok(())
    }

    /// Why a child that ended with `status` before its hello was not started.
    pub fn start_error(&self, refusal: Option<Refusal>, status: ExitStatus) -> StartError {
        let killed = self.rung() == Rung::Kill;
        match refusal {
            Some(refusal) => StartError::Refused(refusal),
            None if let Some(problem) = &self.broke => StartError::Protocol(problem.clone()),
            // What was to be said to it has not left.
            None if killed && let Some((source, _)) = self.wire.refused() => {
                let source = source
                    .raw_os_error()
                    .map_or(source.kind().into(), io::Error::from_raw_os_error);
                StartError::System { step: "sending to the child", source }
            }
            None if self.start == Progress::Unread => {
                StartError::ArgumentNotRead { deadline: self.start_deadline }
            }
            None if killed => StartError::NoHello { deadline: self.start_deadline },
            None => StartError::EndedEarly { status },
        }
    }
}

/// How long nothing of what waits to be written has left.
struct Standstill {
    unsent: usize,
    since: Instant,
}

impl Standstill {
    /// Since when it has been as much as this.
    fn since(&mut self, unsent: usize, now: Instant) -> Instant {
        if unsent != self.unsent {
            *self = Self { unsent, since: now };
        }
        self.since
    }
}

/// Who the child is and what it shall do.
pub(super) fn first_frame(spec: &Spec, token: u64, main: MainEntry) -> Result<Vec<u8>, StartError> {
    let start = Start {
        token,
        fingerprint: Image::this().map_or(0, Image::fingerprint),
        main,
        name: spec.name.clone(),
        limits: Start::new_limits(&spec.limits),
        finalizers: spec.finalizers(),
        setup: spec.setup.clone(),
        bounds: Bounds::new(spec.initializer, spec.finalizer)?,
        sandbox: spec.sandbox.clone(),
    };
    let mut payload = Vec::new();
    encode(&start, &mut payload, &Limits::default())?;
    Ok(payload)
}
