//! Frames as bytes: written into a queue, and read from whatever has arrived.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use super::{Frame, Kind, WireError};
use crate::parcel::MAX_DESCRIPTORS;
use crate::sys::descriptors;

pub(crate) const HEADER: usize = 24;
const MAGIC: u16 = 0xE91E;

/// Writes a header in front of a payload whose first [`HEADER`] bytes were left free for it.
///
/// `descriptors` says how many belong to it; a parcel has no more than fit in the byte.
pub(crate) fn seal(kind: Kind, slot: u32, id: u64, descriptors: usize, frame: &mut [u8]) {
    debug_assert!(descriptors <= MAX_DESCRIPTORS);
    let len = (frame.len() - HEADER) as u64;
    frame[0..2].copy_from_slice(&MAGIC.to_le_bytes());
    frame[2..4].copy_from_slice(&[kind as u8, descriptors as u8]);
    frame[4..8].copy_from_slice(&slot.to_le_bytes());
    frame[8..16].copy_from_slice(&id.to_le_bytes());
    frame[16..24].copy_from_slice(&len.to_le_bytes());
}

struct Header {
    kind: Kind,
    slot: u32,
    id: u64,
    len: usize,
    descriptors: usize,
}

impl Header {
    fn parse(bytes: &[u8; HEADER], limit: usize) -> Result<Self, WireError> {
        let [m0, m1, kind, descriptors, s0, s1, s2, s3, rest @ ..] = *bytes;
        let [i0, i1, i2, i3, i4, i5, i6, i7, l0, l1, l2, l3, l4, l5, l6, l7] = rest;
        let descriptors = usize::from(descriptors);
        if u16::from_le_bytes([m0, m1]) != MAGIC || descriptors > MAX_DESCRIPTORS {
            return Err(WireError::Garbage);
        }
        let kind = Kind::from_byte(kind).ok_or(WireError::Garbage)?;
        let len = u64::from_le_bytes([l0, l1, l2, l3, l4, l5, l6, l7]);
        match usize::try_from(len) {
            Ok(short) if short <= limit => Ok(Self {
                kind,
                slot: u32::from_le_bytes([s0, s1, s2, s3]),
                id: u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
                len: short,
                descriptors,
            }),
            _ => Err(WireError::TooLong { len, limit }),
        }
    }
}

/// Descriptors that arrived in one read, and where in the stream that was.
#[derive(Debug)]
struct Batch {
    from: u64,
    to: u64,
    descriptors: Vec<OwnedFd>,
    /// There was no room for all of them.
    is_cut: bool,
}

/// Turns bytes as they arrive into frames.
#[derive(Debug)]
pub(crate) struct Inbox {
    limit: usize,
    /// What was read and not yet taken lies from `start` to `end`; the rest is room.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// How many bytes of the stream came before those at `start`.
    taken: u64,
    /// Descriptors whose frame has not been taken.
    batches: VecDeque<Batch>,
    /// What frames took along, as far as it has not been closed since.
    given_out: Vec<Weak<OwnedFd>>,
    /// How many of those there may be; read when the first arrive.
    most_given_out: Option<usize>,
    /// As much room as a read has at least.
    chunk: usize,
}

impl Inbox {
    /// Few children are ever sent more at once, and each page of this would be a page of each.
    const FIRST_CHUNK: usize = 2 * 1024;
    /// From the first read on that had not room enough.
    const CHUNK: usize = 64 * 1024;
    /// The frame that is being read can have descriptors, and the one that the same read began.
    const MOST_BATCHES: usize = 2;

    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            chunk: Self::FIRST_CHUNK,
            taken: 0,
            batches: VecDeque::new(),
            given_out: Vec::new(),
            most_given_out: None,
        }
    }

    /// Reads once; how many bytes came, 0 at the end of the stream.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<descriptors::Received>,
    ) -> Result<usize, WireError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.buffer.len() - self.end < self.chunk {
            // Doubling keeps the cost of a large frame linear, and a peer that announces much
            // and sends little makes us allocate little.
            self.buffer.resize(self.end + self.chunk.max(self.end), 0);
        }
        let received = read(&mut self.buffer[self.end..])?;
        let from = self.taken + self.end as u64;
        if received.len == self.buffer.len() - self.end {
            self.chunk = Self::CHUNK;
        }
        self.end += received.len;
        let (descriptors, is_cut) = (received.descriptors, received.descriptors_lost);
        if is_cut || !descriptors.is_empty() {
            let to = from + received.len as u64;
            self.batches.push_back(Batch { from, to, descriptors, is_cut });
            if self.batches.len() > Self::MOST_BATCHES {
                return Err(WireError::StrayDescriptors);
            }
        }
        Ok(received.len)
    }

    /// The next whole frame, if it has arrived.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((header, rest)) = self.buffer[self.start..self.end].split_first_chunk() else {
            return Ok(None);
        };
        let Header { kind, slot, id, len, descriptors } = Header::parse(header, self.limit)?;
        if rest.len() < len {
            return Ok(None);
        }
        let frame_end = self.start + HEADER + len;
        let payload = if self.start == 0 && frame_end == self.end && len >= Self::CHUNK {
            // A large frame that fills the buffer alone keeps it: one copy less.
            let mut whole = std::mem::take(&mut self.buffer);
            self.end = 0;
            whole.truncate(frame_end);
            whole.drain(..HEADER);
            whole
        } else {
            self.start = frame_end;
            rest[..len].to_vec()
        };
        let position = self.taken;
        self.taken += (HEADER + len) as u64;
        let descriptors = match (descriptors, self.batches.is_empty()) {
            (0, true) => Vec::new(),
            (count, _) => self.claim(position, count, kind)?,
        };
        Ok(Some(Frame { kind, slot, id, payload, descriptors }))
    }

    /// Takes the descriptors of the frame that began at `position`.
    fn claim(
        &mut self,
        position: u64,
        count: usize,
        kind: Kind,
    ) -> Result<Vec<Arc<OwnedFd>>, WireError> {
        // What belonged to a frame before this one would have been taken with it.
        if self.batches.front().is_some_and(|batch| batch.to <= position) {
            return Err(WireError::StrayDescriptors);
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let is_its_own = |batch: &mut Batch| {
            batch.from <= position && (batch.descriptors.len() == count || batch.is_cut)
        };
        let batch = self.batches.pop_front_if(is_its_own).ok_or(WireError::StrayDescriptors)?;
        match (batch.is_cut, kind) {
            (false, _) => {}
            // That costs one value, or one argument, which was not asked for by descriptor.
            (true, Kind::BulkCall | Kind::BulkShare | Kind::BulkReply) => return Ok(Vec::new()),
            (true, _) => return Err(WireError::TooManyDescriptors),
        }
        self.given_out.retain(|descriptor| descriptor.strong_count() > 0);
        let most = *self.most_given_out.get_or_insert_with(most_descriptors);
        if self.given_out.len() + count > most {
            return Err(WireError::TooManyDescriptors);
        }
        let descriptors: Vec<_> = batch.descriptors.into_iter().map(Arc::new).collect();
        self.given_out.extend(descriptors.iter().map(Arc::downgrade));
        Ok(descriptors)
    }
}

/// How many descriptors one peer may have us hold: a part of those that this process can have.
fn most_descriptors() -> usize {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE);
    let soft = limit.map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX));
    (soft / 4).max(2 * MAX_DESCRIPTORS)
}

/// Frames that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    packets: VecDeque<Packet>,
    written: usize,
}

/// Some frames, and the descriptors of the first.
#[derive(Debug)]
struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<Arc<OwnedFd>>,
}

impl Outbox {
    /// Frames below this size share a buffer, so that many of them cost one system call.
    const SMALL: usize = 16 * 1024;

    pub(crate) fn push(
        &mut self,
        kind: Kind,
        slot: u32,
        id: u64,
        payload: &[u8],
        descriptors: &[Arc<OwnedFd>],
    ) {
        let len = HEADER + payload.len();
        let shared = self.packets.back_mut().filter(|last| {
            // Descriptors go with the first byte of what is written.
            last.bytes.len() + len <= Self::SMALL && descriptors.is_empty()
        });
        let packet = match shared {
            Some(packet) => packet,
            None => self.packets.push_back_mut(Packet {
                bytes: Vec::with_capacity(len),
                descriptors: descriptors.to_vec(),
            }),
        };
        let start = packet.bytes.len();
        packet.bytes.resize(start + HEADER, 0);
        packet.bytes.extend_from_slice(payload);
        seal(kind, slot, id, descriptors.len(), &mut packet.bytes[start..]);
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.packets.iter().map(|packet| packet.bytes.len()).sum::<usize>() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.packets.clear();
        self.written = 0;
    }

    /// Writes until nothing is left or `write` fails.
    pub(crate) fn flush(
        &mut self,
        mut write: impl FnMut(&[u8], &[Arc<OwnedFd>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        while let Some(front) = self.packets.front_mut() {
            self.written += write(&front.bytes[self.written..], &front.descriptors)?;
            // They went with the first byte. A copy kept here would outlive its owner there.
            front.descriptors.clear();
            if self.written == front.bytes.len() {
                self.packets.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, HEADER, Inbox, Kind, Outbox, WireError};
    use crate::sys::descriptors::Received;

    fn received(len: usize) -> Received {
        Received { len, descriptors: Vec::new(), descriptors_lost: false, cut: false }
    }

    fn frame(id: u64, len: usize) -> Frame {
        let payload = vec![id as u8; len];
        Frame { kind: Kind::Call, slot: 7, id, payload, descriptors: Vec::new() }
    }

    fn bytes_of(frames: &[Frame]) -> Vec<u8> {
        let (mut outbox, mut bytes) = (Outbox::default(), Vec::new());
        for Frame { kind, slot, id, payload, .. } in frames {
            outbox.push(*kind, *slot, *id, payload, &[]);
        }
        outbox
            .flush(|some, _| {
                bytes.extend_from_slice(&some[..some.len().min(1000)]);
                Ok(some.len().min(1000))
            })
            .unwrap();
        bytes
    }

    #[test]
    fn frames_survive_any_cut() {
        let sent = [frame(1, 0), frame(2, 100_000), frame(3, 5), frame(4, 64 * 1024)];
        let expected: Vec<_> = sent.iter().map(|f| (f.id, f.payload.clone())).collect();
        let bytes = bytes_of(&sent);
        for step in [1, 7, 1000, 70_000, bytes.len()] {
            let (mut inbox, mut arrived) = (Inbox::new(1 << 20), Vec::new());
            for piece in bytes.chunks(step) {
                let mut piece = piece;
                while !piece.is_empty() {
                    let read = |buffer: &mut [u8]| {
                        let len = piece.len().min(buffer.len());
                        buffer[..len].copy_from_slice(&piece[..len]);
                        Ok(received(len))
                    };
                    let len = inbox.fill(read).unwrap();
                    piece = &piece[len..];
                    while let Some(frame) = inbox.next().unwrap() {
                        arrived.push((frame.id, frame.payload));
                    }
                }
            }
            assert_eq!(arrived, expected);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_by_its_header_alone() {
        let header = bytes_of(&[frame(1, 2000)])[..HEADER].to_vec();
        let mut inbox = Inbox::new(1999);
        inbox
            .fill(|buffer| {
                buffer[..HEADER].copy_from_slice(&header);
                Ok(received(HEADER))
            })
            .unwrap();
        assert!(matches!(inbox.next(), Err(WireError::TooLong { len: 2000, limit: 1999 })));
    }

    #[test]
    fn garbage_is_not_a_frame() {
        let mut inbox = Inbox::new(100);
        inbox
            .fill(|buffer| {
                buffer[..HEADER].fill(0x5A);
                Ok(received(HEADER))
            })
            .unwrap();
        assert!(matches!(inbox.next(), Err(WireError::Garbage)));
    }
}
