//! A floor as small as can be: workers that are threads, and those who wait.
//!
//! Who reads and who is told is decided by the pool's own source, `pool/src/floor/reading.rs` and
//! `pool/src/member/listening.rs`. Of what these ask besides there is little here: nothing is queued,
//! started, limited in time or closed, and answers of a worker that is dead are taken as it is buried.

#[path = "../../../../pool/src/floor/reading.rs"]
#[expect(dead_code, reason = "nothing is submitted while others wait")]
mod reading;

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::reading::Reader;
use crate::bells::Bell;
use crate::mailbox::Mailbox;
use crate::member::Member;
use crate::taken_out::{Break, is_broken};
use crate::wakes::Wakes;
use crate::worker::{Child, Far};

/// Looks once: a model has no clock.
#[derive(Default)]
pub(crate) struct Patience;

impl Patience {
    pub(crate) fn look<T>(&mut self, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        found()
    }
}

/// A list whose first is not found if that is taken out.
#[derive(Default)]
pub(crate) struct Followers(Vec<Arc<Mailbox>>);

impl Followers {
    pub(crate) fn first(&self) -> Option<&Arc<Mailbox>> {
        self.0.first().filter(|_| !is_broken(Break::HandOver))
    }
}

impl Deref for Followers {
    type Target = Vec<Arc<Mailbox>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Followers {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

pub(crate) struct Floor {
    pub(crate) reader: Reader,
    pub(crate) followers: Followers,
    pub(crate) members: Vec<Member>,
    pub(crate) patience: Patience,
    pub(crate) news: Bell,
    pub(crate) wakes: Arc<Wakes>,
    pub(crate) is_over: bool,
    is_tuned: bool,
}

impl Floor {
    pub(crate) fn new(wakes: &Arc<Wakes>, news: &Bell) -> Self {
        Self {
            reader: Reader::None,
            followers: Followers::default(),
            members: Vec::new(),
            patience: Patience,
            news: if is_broken(Break::News) { Bell::new() } else { news.clone() },
            wakes: Arc::clone(wakes),
            is_over: false,
            is_tuned: false,
        }
    }

    /// A worker that is to answer these, in this order.
    pub(crate) fn hire(&mut self, tasks: &[(Arc<Mailbox>, usize)]) -> Far {
        let (child, far) = Child::start();
        self.members.push(Member::new(child, tasks));
        far
    }

    pub(crate) fn sockets(&self) -> Vec<Bell> {
        self.members.iter().map(|member| member.child.socket().clone()).collect()
    }

    pub(crate) fn bury(&mut self) {
        self.members.iter_mut().for_each(Member::bury);
    }

    /// Nothing is queued: what there is to do is to say who is to be told of the rest.
    pub(crate) fn dispatch(&mut self) {
        self.tune();
    }

    /// Whether there were any.
    fn take_answers(&mut self) -> bool {
        self.members.iter_mut().fold(false, |taken, member| member.take_answers() | taken)
    }

    fn is_backed_up(&self) -> bool {
        false
    }

    fn has_to_go_on(&self) -> bool {
        false
    }

    /// Whoever looks here looks once: it is the same as to sleep at once.
    pub(crate) fn answers_soon(&self, _mailbox: &Mailbox) -> bool {
        true
    }

    /// Nothing stalls here.
    pub(crate) fn keep_vigil(&mut self, _: Instant) -> (Option<Instant>, bool) {
        (None, false)
    }

    pub(crate) fn leave_vigil(&mut self) -> bool {
        false
    }
}
