//! What a hostile worker does.

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, RawFd};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, sendmsg, shutdown};
use nix::unistd::getpid;
use serde::{Deserialize, Serialize};
use support::park_for_ever;

use super::bell;
use super::ring::{ASLEEP, BELL, CALL_HEAD, CALL_TAIL, REPLY_HEAD, REPLY_TAIL, Ring};
use crate::sys;

/// The worker's end of its wire.
const WIRE: RawFd = 3;
const MAGIC: u16 = 0xE91E;

// Kinds of frames.
const CALL: u8 = 2;
const HELLO: u8 = 128;
const REFUSAL: u8 = 129;
const REPLY: u8 = 130;
const GOODBYE: u8 = 131;
const BEGUN: u8 = 132;
const READY: u8 = 133;
const MISSED: u8 = 135;
const GROWN: u8 = 136;
const NOTE: u8 = 137;

macro_rules! deeds {
    ($($(#[$doc:meta])* $deed:ident,)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub(super) enum Deed { $($(#[$doc])* $deed,)* }

        pub(super) const DEEDS: &[Deed] = &[$(Deed::$deed,)*];
    };
}

deeds! {
    Garbage,
    HugeLength,
    UnknownKind,
    /// A frame that only a parent sends.
    ParentsKind,
    WrongId,
    /// Answers its call over the socket twice, then in the ring.
    Replay,
    /// Half a header, and no more.
    HalfFrame,
    HelloAgain,
    Refusal,
    BegunForeign,
    GoodbyeOfGarbage,
    GoodbyesWithoutEnd,
    ReadyWithoutEnd,
    DescriptorFlood,
    EarlyClose,
    EarlyCloseAndLive,
    TailOdd,
    TailFar,
    TailBack,
    HeadFar,
    HeadBack,
    /// Positions that only the parent writes.
    ParentsPositions,
    ClaimInverted,
    ClaimBeyond,
    /// Says that it has begun nothing, while it runs.
    ClaimReset,
    RecordHuge,
    RecordWithoutCount,
    RecordOfNoForm,
    RecordForeign,
    RecordOfManyItems,
    /// Is not woken, and wakes nobody.
    BellsCleared,
    DeafToTerm,
    StopItself,
    ForkWithoutEnd,
    /// As many descriptors as it may have, and more.
    OpenWithoutEnd,
    HellosWithoutEnd,
    BegunWithoutEnd,
    MissedWithoutEnd,
    GrownWithoutEnd,
    NotesWithoutEnd,
    /// Has its doorbell ring as often as it can, and as loudly.
    BellWithoutEnd,
    /// Has reading the doorbell wait, and takes away what rang before its parent reads it.
    BellStolen,
}

/// What a parent makes of a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It breaks the protocol: who does it is killed, and its task says so.
    Breach,
    /// It leaves: its task is lost.
    Loss,
    /// Nothing is wrong with it, or nothing can be seen of it, or it may be too late.
    Nothing,
}

impl Deed {
    /// What its parent must find out by itself, and say.
    pub(super) fn verdict(self) -> Verdict {
        use Deed::*;
        match self {
            Garbage | HugeLength | UnknownKind | ParentsKind | WrongId | Replay | HelloAgain
            | Refusal | GoodbyeOfGarbage | GoodbyesWithoutEnd | HellosWithoutEnd
            | DescriptorFlood | TailOdd | TailFar | TailBack | RecordHuge | RecordWithoutCount
            | RecordOfNoForm | RecordForeign | RecordOfManyItems => Verdict::Breach,
            EarlyCloseAndLive => Verdict::Loss,
            // May be said as often as one likes, is dropped as it is read, and is read a little at a
            // time.
            ReadyWithoutEnd | BegunWithoutEnd | MissedWithoutEnd | GrownWithoutEnd
            | NotesWithoutEnd => Verdict::Nothing,
            BellWithoutEnd | BellStolen => Verdict::Nothing,
            HalfFrame | BegunForeign | EarlyClose | HeadFar | HeadBack | ParentsPositions
            | ClaimInverted | ClaimBeyond | ClaimReset | BellsCleared | DeafToTerm | StopItself
            | ForkWithoutEnd | OpenWithoutEnd => Verdict::Nothing,
        }
    }

    pub(super) fn is_seen(self) -> bool {
        self.verdict() != Verdict::Nothing
    }

    /// Whether it says of its task that this has not begun. Then that may begin again: its parent may take it
    /// back and give it to another worker, and its own worker finds it there to be claimed once more.
    ///
    /// No other deed takes a beginning back. What `ClaimInverted` and `ClaimBeyond` say is what none of
    /// ours would, and counts as begun, which the one task of that call is; the claim words of other calls
    /// are written by none, and a head that lies is not believed.
    pub(super) fn denies_its_beginning(self) -> bool {
        self == Self::ClaimReset
    }

    /// Whether its worker goes on with other tasks, and is ended for the deed as it does.
    pub(super) fn is_ended_later(self) -> bool {
        matches!(self, Self::EarlyClose | Self::ClaimBeyond | Self::ClaimReset)
    }

    /// How many descriptors it sends that its parent can have before it finds out.
    pub(super) fn descriptors(self) -> usize {
        match self {
            // Those of three messages: two can belong to frames, the third is one too many.
            Self::DescriptorFlood => 3 * 253,
            _ => 0,
        }
    }

    /// What comes after it: an answer, or nothing more until it is ended.
    pub(super) fn happen(self) {
        let ring = Ring::find;
        match self {
            Self::Garbage => stay(&[0x5A; 100]),
            Self::HugeLength => stay(&header(REPLY, 0, 0, 0, u64::MAX / 2)),
            Self::UnknownKind => stay(&header(77, 0, 0, 0, 0)),
            Self::ParentsKind => stay(&header(CALL, 0, 1, 1, 0)),
            Self::WrongId => stay(&reply(1 << 60)),
            Self::Replay => stay(&[reply(ring().id()), reply(ring().id())].concat()),
            Self::HalfFrame => {
                stay(&header(REPLY, 0, 0, 0, 0)[..12]);
            }
            // A whole one, of a process without a sandbox.
            Self::HelloAgain => stay(&hello()),
            Self::Refusal => stay(&header(REFUSAL, 0, 0, 0, 0)),
            Self::BegunForeign => send(&header(BEGUN, 0, 0, 1 << 50, 0)),
            Self::GoodbyeOfGarbage => {
                stay(&[&header(GOODBYE, 0, 0, 0, 9)[..], &[0xFF; 9]].concat());
            }
            // No finalizers, no memory, no tree.
            Self::GoodbyesWithoutEnd => {
                for_ever(&[&header(GOODBYE, 0, 0, 0, 3)[..], &[0; 3]].concat())
            }
            Self::HellosWithoutEnd => for_ever(&hello()),
            Self::ReadyWithoutEnd => for_ever(&header(READY, 0, 0, 0, 0)),
            Self::BegunWithoutEnd => for_ever(&header(BEGUN, 0, 0, 1 << 50, 0)),
            Self::MissedWithoutEnd => for_ever(&header(MISSED, 0, 0, 0, 0)),
            Self::GrownWithoutEnd => for_ever(&header(GROWN, 0, 0, 0, 0)),
            Self::NotesWithoutEnd => {
                for_ever(&[&header(NOTE, 0, 0, 0, 16 << 10)[..], &[7; 16 << 10]].concat())
            }
            Self::BellWithoutEnd => bell::ring_without_end(),
            Self::BellStolen => bell::steal(),
            Self::DescriptorFlood => flood(),
            Self::EarlyClose => shutdown(WIRE, Shutdown::Both).unwrap(),
            Self::EarlyCloseAndLive => {
                shutdown(WIRE, Shutdown::Write).unwrap();
                park_for_ever();
            }
            Self::TailOdd => seen(|ring| ring.set(REPLY_TAIL, ring.get(REPLY_TAIL) + 1)),
            Self::TailFar => seen(|ring| ring.set(REPLY_TAIL, ring.get(REPLY_TAIL) + (1 << 40))),
            Self::TailBack => {
                seen(|ring| ring.set(REPLY_TAIL, ring.get(REPLY_TAIL).wrapping_sub(8)))
            }
            Self::HeadFar => seen(|ring| ring.set(CALL_HEAD, ring.get(CALL_HEAD) + (1 << 40))),
            Self::HeadBack => seen(|ring| ring.set(CALL_HEAD, ring.get(CALL_HEAD).wrapping_sub(8))),
            Self::ParentsPositions => {
                ring().set(REPLY_HEAD, u64::MAX / 3);
                ring().set(CALL_TAIL, u64::MAX / 3);
                park_for_ever();
            }
            Self::ClaimInverted => ring().set(ring().call(0), 7),
            Self::ClaimBeyond => ring().set(ring().call(0), (1000 << 32) | 1),
            Self::ClaimReset => ring().set(ring().call(0), 1 << 32),
            Self::RecordHuge => {
                seen(|ring| ring.answer([ring.id(), 0, (1 << 32) | 0xFFFF_FFF0, 0, 0]))
            }
            Self::RecordWithoutCount => seen(|ring| ring.answer([ring.id(), 0, 8, 0, 0])),
            Self::RecordOfNoForm => {
                seen(|ring| ring.answer([ring.id(), 9 << 32, (1 << 32) | 8, 0, 0]))
            }
            Self::RecordForeign => {
                seen(|ring| ring.answer([1 << 50, 1 << 32, (1 << 32) | 8, 0, 0]))
            }
            Self::RecordOfManyItems => {
                seen(|ring| ring.answer([ring.id(), 1 << 32, (0xFFFF << 32) | 8, 0, 0]));
            }
            Self::BellsCleared => {
                let ring = ring();
                loop {
                    ring.set(BELL, 0);
                    ring.set(ASLEEP, 0);
                }
            }
            Self::DeafToTerm => {
                SigSet::all().thread_block().unwrap();
                loop {
                    std::hint::spin_loop();
                }
            }
            Self::StopItself => kill(getpid(), Signal::SIGSTOP).unwrap(),
            Self::ForkWithoutEnd => sys::fork_without_end(),
            Self::OpenWithoutEnd => {
                let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                setrlimit(Resource::RLIMIT_NOFILE, most.min(4096), most).unwrap();
                while File::open("/dev/null").map(std::mem::forget).is_ok() {}
            }
        }
    }
}

fn header(kind: u8, descriptors: u8, slot: u32, id: u64, len: u64) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[2..4].copy_from_slice(&[kind, descriptors]);
    bytes[4..8].copy_from_slice(&slot.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.to_le_bytes());
    bytes[16..].copy_from_slice(&len.to_le_bytes());
    bytes
}

/// A whole answer to the call of that number, which cannot be read.
fn reply(id: u64) -> Vec<u8> {
    [&header(REPLY, 0, 0, id, 3)[..], &[0xFF; 3]].concat()
}

fn hello() -> Vec<u8> {
    [&header(HELLO, 0, 0, 0, 1)[..], &[0]].concat()
}

/// Who is killed for it, or whose wire is closed, goes no further.
fn send(bytes: &[u8]) {
    let sent = sendmsg::<()>(WIRE, &[IoSlice::new(bytes)], &[], MsgFlags::MSG_NOSIGNAL, None);
    if sent.is_err() {
        park_for_ever();
    }
}

/// The same, and waits for its end.
fn stay(bytes: &[u8]) -> ! {
    send(bytes);
    park_for_ever()
}

/// The same frame again and again, many at a time: its parent has more to do with them than who sends
/// them.
fn for_ever(frame: &[u8]) -> ! {
    let frames = frame.repeat((1 << 20) / frame.len());
    loop {
        send(&frames);
    }
}

/// Spoils the ring, has its parent look there, and waits for its end.
fn seen(spoil: impl FnOnce(&Ring)) -> ! {
    spoil(&Ring::find());
    stay(&header(READY, 0, 0, 0, 0))
}

/// The header of an endless frame, then descriptors with every byte of it.
fn flood() {
    send(&header(REPLY, 0, 0, 0, 1 << 20));
    let null = File::open("/dev/null").unwrap();
    let fds = [null.as_raw_fd(); 253];
    let (data, control) = ([IoSlice::new(&[0])], [ControlMessage::ScmRights(&fds)]);
    while sendmsg::<()>(WIRE, &data, &control, MsgFlags::MSG_NOSIGNAL, None).is_ok() {}
    loop {
        thread::park();
    }
}
