//! What comes over the socket: frames, cut into pieces in any way, and what they carry.

use serde::{Serialize, de::DeserializeOwned};

use super::Input;
use crate::boot::{Refusal, Start};
use crate::codec::{Limits, decode, encode};
use crate::end::Finalizer;
use crate::sandbox::SandboxLevel;
use crate::sys::descriptors::Received;
use crate::wire::{Frame, HEADER, Inbox, StopOrder, WireError};

const LIMIT: usize = 4096;

/// Whatever arrives in whatever pieces is the same frames, none of them too long, or an error.
pub(super) fn target(bytes: &[u8]) {
    let mut input = Input(bytes);
    let step = 1 + input.below(64);
    let stream = input.0;
    let whole = frames(stream, stream.len().max(1));
    let pieces = frames(stream, step);
    assert_eq!(whole.0.len(), pieces.0.len());
    for (one, other) in whole.0.iter().zip(&pieces.0) {
        assert_eq!((one.kind, one.id, one.slot), (other.kind, other.id, other.slot));
        assert_eq!(one.payload, other.payload);
        assert!(one.payload.len() <= LIMIT);
    }
    assert_eq!(whole.1.is_some(), pieces.1.is_some());
    let taken: usize = whole.0.iter().map(|frame| HEADER + frame.payload.len()).sum();
    assert!(taken <= stream.len());
}

fn frames(stream: &[u8], step: usize) -> (Vec<Frame>, Option<WireError>) {
    let (mut inbox, mut frames, mut rest) = (Inbox::new(LIMIT), Vec::new(), stream);
    loop {
        loop {
            match inbox.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        if rest.is_empty() {
            return (frames, None);
        }
        let read = inbox.fill(|room| {
            let len = step.min(room.len()).min(rest.len());
            let (now, later) = rest.split_at(len);
            room[..len].copy_from_slice(now);
            rest = later;
            let descriptors = Vec::new();
            Ok(Received { len, descriptors, descriptors_lost: false, cut: false })
        });
        if let Err(error) = read {
            return (frames, Some(error));
        }
    }
}

/// What frames that are no calls carry, either way, is decoded to what it was, or not at all.
pub(super) fn first_frame(bytes: &[u8]) {
    let mut input = Input(bytes);
    match input.below(5) {
        0 => same::<Start>(input.0),
        1 => same::<Option<SandboxLevel>>(input.0),
        2 => same::<Refusal>(input.0),
        3 => same::<Vec<Finalizer>>(input.0),
        _ => same::<StopOrder>(input.0),
    }
}

/// Whatever is taken for a value is one: written again and read again, it is the same.
fn same<T: Serialize + DeserializeOwned + std::fmt::Debug>(bytes: &[u8]) {
    let limits = Limits::default();
    let Ok(value) = decode::<T>(bytes, &limits) else { return };
    let mut written = Vec::new();
    if let Err(error) = encode(&value, &mut written, &limits) {
        panic!("{value:?} came, and cannot go: {error}");
    }
    match decode::<T>(&written, &limits) {
        Ok(again) => assert_eq!(format!("{value:?}"), format!("{again:?}")),
        Err(error) => panic!("{value:?} was written, and cannot be read: {error}"),
    }
}
