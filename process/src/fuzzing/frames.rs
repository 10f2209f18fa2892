//! What comes over the socket: frames, true ones and such that lie, cut into pieces in any way, with
//! descriptors, and what they carry.

use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use nix::unistd::dup;
use serde::{Serialize, de::DeserializeOwned};

use super::Input;
use crate::boot::{Refusal, Start};
use crate::codec::{Limits, decode, encode};
use crate::end::Finalizer;
use crate::sandbox::SandboxLevel;
use crate::sys::descriptors::Received;
use crate::wire::{Frame, HEADER, Inbox, Kind, StopOrder, WireError, seal};

/// Beyond what a whole read takes at once, so that a frame may be one buffer.
const LIMIT: usize = 66 * 1024;

/// As many bytes as a stream has about, at most: all of it is held several times.
const LONG: usize = 80 * 1024;

/// Fewer than one peer may have us hold, whatever the limit on open files.
const MOST_DESCRIPTORS: usize = 64;

/// What a peer writes at once.
#[derive(Debug, Default)]
struct Packet {
    bytes: Vec<u8>,
    /// How many descriptors go with it.
    descriptors: usize,
    /// A frame that is what its header says.
    is_true: bool,
}

/// Whatever arrives in whatever pieces is the same frames, none of them too long, or an error.
pub(super) fn target(bytes: &[u8]) {
    let mut input = Input(bytes);
    let step = match input.byte() {
        small @ 0..128 => 1 + usize::from(small) % 64,
        _ => 1 + input.number(2) as usize,
    };
    let packets = packets(&mut input);
    let (whole, error) = frames(&packets, usize::MAX);
    // A long one in a thousand pieces, not in each byte: that would be all that there is time for.
    let len: usize = packets.iter().map(|packet| packet.bytes.len()).sum();
    let (pieces, other) = frames(&packets, step.max(len / 1000));
    let is_true = packets.iter().all(|packet| packet.is_true);
    // Where descriptors come in the middle of a frame, it is the reads that decide whose they are.
    if is_true || packets.iter().all(|packet| packet.descriptors == 0) {
        assert_eq!(whole.len(), pieces.len());
        assert_eq!(error.is_some(), other.is_some());
        for (one, other) in whole.iter().zip(&pieces) {
            assert_eq!((one.kind, one.id, one.slot), (other.kind, other.id, other.slot));
            assert_eq!(one.payload, other.payload);
            assert_eq!(one.descriptors.len(), other.descriptors.len());
        }
    }
    if is_true {
        assert!(error.is_none(), "{error:?}");
        assert!(whole.iter().map(written).eq(packets.iter().map(|packet| packet.bytes.clone())));
    }
    for frames in [whole, pieces] {
        assert!(frames.iter().all(|frame| frame.payload.len() <= LIMIT));
        let taken: usize = frames.iter().map(|frame| HEADER + frame.payload.len()).sum();
        assert!(taken <= len);
        let descriptors: usize = frames.iter().map(|frame| frame.descriptors.len()).sum();
        assert!(descriptors <= packets.iter().map(|packet| packet.descriptors).sum());
    }
}

/// As it was written.
fn written(frame: &Frame) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(&frame.payload);
    seal(frame.kind, frame.slot, frame.id, frame.descriptors.len(), &mut bytes);
    bytes
}

fn packets(input: &mut Input<'_>) -> Vec<Packet> {
    let (mut packets, mut len, mut descriptors) = (Vec::new(), 0, 0);
    while !input.is_empty() && len < LONG && descriptors < MOST_DESCRIPTORS {
        let packet = match input.below(8) {
            0 => Packet { bytes: input.bytes(16).to_vec(), ..Packet::default() },
            1 => lie(input),
            _ => frame(input),
        };
        len += packet.bytes.len();
        descriptors += packet.descriptors;
        packets.push(packet);
    }
    packets
}

/// A frame as a peer that keeps to the rules writes it.
fn frame(input: &mut Input<'_>) -> Packet {
    const KINDS: [Kind; 6] =
        [Kind::Call, Kind::Start, Kind::Reply, Kind::BulkReply, Kind::Hello, Kind::Note];
    let kind = KINDS[input.below(KINDS.len())];
    let (slot, id) = (input.number(1) as u32, input.number(2));
    let mut bytes = vec![0; HEADER];
    match input.byte() {
        short @ 0..192 => bytes.extend_from_slice(input.bytes(usize::from(short) % 32)),
        long @ 192..240 => bytes.resize(HEADER + usize::from(long) * 16, long),
        _ => bytes.resize(HEADER + 64 * 1024 + usize::from(input.byte()), 7),
    }
    let descriptors = input.below(16).saturating_sub(12);
    seal(kind, slot, id, descriptors, &mut bytes);
    Packet { bytes, descriptors, is_true: true }
}

/// One whose header says something else in one byte, or that has other descriptors than it says, or has
/// not come whole.
fn lie(input: &mut Input<'_>) -> Packet {
    let mut packet = Packet { is_true: false, ..frame(input) };
    match input.below(3) {
        0 => packet.bytes[input.below(HEADER)] = input.byte(),
        1 => packet.descriptors = input.below(4),
        _ => packet.bytes.truncate(input.number(2) as usize),
    }
    packet
}

/// The frames of all that is written, read by `step` bytes at most, until an error.
fn frames(packets: &[Packet], step: usize) -> (Vec<Frame>, Option<WireError>) {
    let (mut inbox, mut frames) = (Inbox::new(LIMIT), Vec::new());
    let mut rest: Vec<_> = packets.iter().map(|it| (&it.bytes[..], it.descriptors)).collect();
    rest.reverse();
    loop {
        loop {
            match inbox.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        rest.pop_if(|(bytes, _)| bytes.is_empty());
        if rest.is_empty() {
            return (frames, None);
        }
        if let Err(error) = inbox.fill(|room| Ok(receive(&mut rest, room, step))) {
            return (frames, Some(error));
        }
    }
}

/// Reads as the kernel does: on until the room is full or a packet has been begun that has descriptors,
/// which come with its first byte.
fn receive(rest: &mut Vec<(&[u8], usize)>, room: &mut [u8], step: usize) -> Received {
    let (mut len, mut descriptors) = (0, Vec::new());
    let most = step.min(room.len());
    while let Some((bytes, count)) = rest.last_mut()
        && len < most
        && descriptors.is_empty()
    {
        let (now, later) = bytes.split_at(bytes.len().min(most - len));
        room[len..len + now.len()].copy_from_slice(now);
        len += now.len();
        if !now.is_empty() {
            descriptors = (0..std::mem::take(count)).map(|_| descriptor()).collect();
        }
        *bytes = later;
        rest.pop_if(|(bytes, _)| bytes.is_empty());
    }
    Received { len, descriptors, descriptors_lost: false, cut: false }
}

fn descriptor() -> OwnedFd {
    static NULL: LazyLock<Option<OwnedFd>> =
        LazyLock::new(|| std::fs::File::open("/dev/null").ok().map(Into::into));
    match NULL.as_ref().map(dup) {
        Some(Ok(descriptor)) => descriptor,
        // If they were left each time, some day there would be no more.
        error => panic!("no descriptor: {error:?}"),
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
