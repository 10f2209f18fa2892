//! The child's end of a ring: it claims calls and writes answers.

use std::io;
use std::sync::Arc;

use super::near::wake_if;
use super::words::{Book, Words};
use super::{
    ASLEEP, BEGUN, BELL, CALL_HEAD, CALL_TAIL, FOR_A_CALL, FOR_ROOM, Form, HEADER, Listener, PLACE,
    Patience, Place, REPLY_HEAD, REPLY_TAIL, Region, Returned, STOP, Size, WORD, claim, pair,
    unpair, words_of,
};
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex;
use crate::sys::memory::SharedWords;

/// A call, as it was found in the ring.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) at: u64,
    pub(crate) id: u64,
    pub(crate) count: u32,
    pub(crate) place: Place,
    pub(crate) bytes: Vec<u8>,
}

/// The answers that are being written, and that the parent does not see yet, unless we die.
#[derive(Debug)]
pub(super) struct Open {
    id: u64,
    first: u32,
    form: Form,
    pub(super) count: u32,
}

impl Open {
    /// Writes down whose answers follow. They count once the word behind that says so.
    fn announce(&self, replies: Region, words: &[AtomicU64], at: u64) {
        replies.word(words, at).store(self.id, Ordering::Relaxed);
        let second = pair(self.first, self.form as u32);
        replies.word(words, at + 1).store(second, Ordering::Relaxed);
    }
}

/// The child's end. One thread has it; others may only wake that.
#[derive(Debug)]
pub(crate) struct Far {
    shared: Arc<SharedWords>,
    calls: Region,
    replies: Region,
    call_head: u64,
    /// As far as the parent had written calls when it was last asked.
    call_tail: u64,
    /// Where the call that is being answered ends.
    call_next: u64,
    reply_tail: u64,
    reply_head: u64,
    open: Option<Open>,
    /// What of the open record is not in the ring as whole words; behind the answers that count,
    /// what is being written.
    bytes: Vec<u8>,
    /// How many bytes of the open record are in the ring as whole words.
    written_out: usize,
    /// How many bytes of the open record count.
    whole: usize,
    /// How long the open record can get, in bytes, as far as is known.
    room: usize,
    /// How many records were written.
    written: u32,
    patience: Patience,
}

/// What there is to tell to the parent, and how.
pub(crate) type Bell = Option<Listener>;

impl Far {
    pub(crate) fn new(shared: Arc<SharedWords>) -> io::Result<Self> {
        let size = Size::of(shared.words().len()).ok_or(io::ErrorKind::InvalidData)?;
        let [calls, replies] = Region::both(size);
        Ok(Self {
            shared,
            calls,
            replies,
            call_head: 0,
            call_tail: 0,
            call_next: 0,
            reply_tail: 0,
            reply_head: 0,
            open: None,
            bytes: Vec::new(),
            written_out: 0,
            whole: 0,
            room: 0,
            written: 0,
            patience: Patience::of_beginner(),
        })
    }

    /// How many calls it is made for.
    pub(crate) fn size(&self) -> Size {
        Size::of(self.shared.words().len()).unwrap_or(Size::Once)
    }

    fn control(&self, word: usize) -> &AtomicU64 {
        &self.shared.words()[word]
    }

    // Calls.

    /// The next call, if there is one. The one before is done with.
    pub(crate) fn next(&mut self) -> Option<Incoming> {
        if self.call_next != self.call_head {
            self.call_head = self.call_next;
            self.control(CALL_HEAD).store(self.call_head, Ordering::Release);
        }
        if self.call_tail == self.call_head {
            self.call_tail = self.control(CALL_TAIL).load(Ordering::Acquire);
            if self.call_tail == self.call_head {
                return None;
            }
        }
        let (at, words) = (self.call_head, self.shared.words());
        let load = |offset| self.calls.word(words, at + offset).load(Ordering::Relaxed);
        let [len, count] = unpair(load(2));
        // Our own parent wrote it: it is not longer than the ring.
        let len = (len as usize).min(self.calls.bytes());
        let place = match load(PLACE) {
            0 => Place::Here,
            2 => Place::Segment,
            _ => Place::Socket,
        };
        let bytes = self.calls.read(words, at + HEADER as u64, len).into_vec();
        self.call_next = at + (HEADER + words_of(len)) as u64;
        Some(Incoming { at, id: load(1), count, place, bytes })
    }

    /// Claims up to `most` items of the call at `at`: the first, and how many.
    pub(crate) fn claim(&self, at: u64, most: u32) -> (u32, u32) {
        claim::claim(self.calls.word(self.shared.words(), at), most)
    }

    /// Says when the call at `at` began, which is about to be claimed: its parent sees this once it
    /// sees the claim.
    pub(crate) fn note_begin(&self, at: u64, nanos: u64) {
        self.control(BEGUN).store(nanos, Ordering::Relaxed);
        // It stays there when the next call begins: until the parent needs the room.
        self.calls.word(self.shared.words(), at + PLACE).store(nanos, Ordering::Relaxed);
    }

    /// Waits until there may be a call, or `is_over`; looks for a while before it sleeps.
    pub(crate) fn wait(&mut self, is_over: impl Fn() -> bool) {
        let (shared, head) = (Arc::clone(&self.shared), self.call_head);
        let tail = &shared.words()[CALL_TAIL];
        let is_due = || tail.load(Ordering::Acquire) != head || is_over();
        if self.patience.look(|| is_due().then_some(())).is_none() {
            sleep(&shared.words()[ASLEEP], FOR_A_CALL, is_due);
        }
    }

    /// What the parent has given back of our segments since this was last asked.
    pub(crate) fn returned(&self) -> Returned {
        Returned::take(&self.shared)
    }

    // Answers.

    /// Begins the answer to an item, which is to be written to [`Far::staged`].
    ///
    /// False if the record that is open cannot take it: it has to be published before.
    #[inline]
    pub(crate) fn stage(&mut self, id: u64, index: u32, form: Form) -> bool {
        match &self.open {
            None => {
                self.open = Some(Open { id, first: index, form, count: 0 });
                true
            }
            Some(open) => {
                let follows = (open.id, open.first + open.count, open.form) == (id, index, form);
                follows && self.whole < self.most_staged()
            }
        }
    }

    /// How long a record gets that several answers share, in bytes.
    fn most_staged(&self) -> usize {
        self.replies.bytes() / 8
    }

    /// Where the staged answer is to be appended.
    #[inline]
    pub(crate) fn staged(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// How long the staged answer is.
    pub(crate) fn staged_len(&self) -> usize {
        self.len() - self.whole
    }

    /// How long the open record is, with what is staged.
    fn len(&self) -> usize {
        self.written_out + self.bytes.len()
    }

    /// Room for answers of a word each, up to `most`, if the item at `index` follows on the open record
    /// and that is made of whole words, or there is none yet.
    #[inline]
    pub(crate) fn words<'f>(
        &'f mut self,
        id: u64,
        index: &'f mut u32,
        most: u32,
    ) -> Option<Words<'f>> {
        if self.open.is_none() {
            self.has_room();
        }
        let (at, words) = (self.reply_tail, self.shared.words());
        let left = (self.room.saturating_sub(self.whole) / WORD).min(most as usize);
        if left == 0 || self.whole != self.written_out {
            return None;
        }
        let new = Open { id, first: *index, form: Form::Raw, count: 0 };
        let open = self.open.get_or_insert(new);
        if (open.id, open.first + open.count, open.form) != (id, *index, Form::Raw) {
            return None;
        }
        if open.count == 0 {
            open.announce(self.replies, words, at);
        }
        let count = open.count;
        Some(Words {
            words,
            replies: self.replies,
            next: at + (HEADER + self.whole / WORD) as u64,
            progress: self.replies.word(words, at + 2),
            whole: self.whole,
            count,
            left,
            book: Book {
                index,
                open: &mut self.open,
                whole: &mut self.whole,
                written_out: &mut self.written_out,
            },
        })
    }

    /// Takes the staged answer out: it is not to be answered here, or not at all.
    pub(crate) fn unstage(&mut self) -> Vec<u8> {
        let staged = self.bytes.split_off(self.whole - self.written_out);
        if self.open.as_ref().is_some_and(|open| open.count == 0) {
            self.open = None;
        }
        staged
    }

    /// The longest answer that is written into the ring; others go over the socket.
    pub(crate) fn longest(&self) -> usize {
        self.replies.bytes() / 4
    }

    /// Whether there is room for what is open, and for the header of what comes after it.
    #[inline]
    pub(crate) fn has_room(&mut self) -> bool {
        let need = (2 * HEADER + words_of(self.len())) as u64;
        let free = |head: u64| self.replies.len as u64 - (self.reply_tail - head);
        if free(self.reply_head) < need {
            self.reply_head = self.control(REPLY_HEAD).load(Ordering::Acquire);
        }
        let free = free(self.reply_head);
        let most = free.saturating_sub(2 * HEADER as u64) as usize * WORD;
        self.room = most.min(self.most_staged());
        free >= need
    }

    /// Waits until there may be room. The parent has been told to make some.
    pub(crate) fn wait_for_room(&self) {
        let (head, seen) = (self.control(REPLY_HEAD), self.reply_head);
        sleep(self.control(ASLEEP), FOR_ROOM, || head.load(Ordering::Acquire) != seen);
    }

    /// The staged answer counts from here on, even if we die.
    #[inline]
    pub(crate) fn commit(&mut self) {
        let Some(open) = &mut self.open else { return };
        let (at, words) = (self.reply_tail, self.shared.words());
        if open.count == 0 {
            open.announce(self.replies, words, at);
        }
        // From the word on that the answer before may share with this one.
        let from = self.written_out / WORD;
        self.replies.write(words, at + (HEADER + from) as u64, &self.bytes);
        open.count += 1;
        self.whole = self.written_out + self.bytes.len();
        let out = self.bytes.len() / WORD * WORD;
        self.bytes.drain(..out);
        self.written_out += out;
        let progress = pair(self.whole as u32, open.count);
        self.replies.word(words, at + 2).store(progress, Ordering::Release);
    }

    /// Hands the open record over, if there is one; who is to be told of it.
    pub(crate) fn publish(&mut self, nanos: u64) -> Bell {
        self.open.take_if(|open| open.count > 0)?;
        let (at, words) = (self.reply_tail, self.shared.words());
        self.replies.word(words, at + 3).store(nanos, Ordering::Relaxed);
        let next = at + (HEADER + words_of(self.whole)) as u64;
        // What lies there is from an earlier round. Should we die before the next record is begun,
        // the parent must not take it for one.
        self.replies.word(words, next + 2).store(0, Ordering::Relaxed);
        self.reply_tail = next;
        // Both this and the look at the bell are sequentially consistent, which pairs with the fence in
        // `Near::listen`: either we see the bell, or it sees our reply.
        self.control(REPLY_TAIL).store(next, Ordering::SeqCst);
        self.bytes.clear();
        (self.written_out, self.whole) = (0, 0);
        self.written = self.written.wrapping_add(1);
        self.bell(|after, written| written.wrapping_sub(after) as i32 >= 0)
    }

    /// Who is to be told that nothing is left to do.
    pub(crate) fn idle(&self) -> Bell {
        self.bell(|_, _| true)
    }

    fn bell(&self, is_due: impl Fn(u32, u32) -> bool) -> Bell {
        let bell = self.control(BELL);
        let [listener, after] = unpair(bell.load(Ordering::SeqCst));
        if listener == 0 || !is_due(after, self.written) {
            return None;
        }
        // Whom it takes away is who is told: since the look the one may have left, and another one
        // have come, who sleeps elsewhere.
        match unpair(bell.swap(0, Ordering::Relaxed))[0] {
            0 => None,
            doorbell if doorbell == Listener::Doorbell as u32 => Some(Listener::Doorbell),
            _ => Some(Listener::Socket),
        }
    }
}

/// Which call the parent has asked to stop, last of all.
#[inline]
pub(crate) fn stop_of(shared: &SharedWords) -> u64 {
    shared.words()[STOP].load(Ordering::Relaxed)
}

/// Wakes the thread that has the child's end, from another thread of the child.
pub(crate) fn wake(shared: &SharedWords) {
    // Pairs with the fence in `sleep`: either we see that it sleeps, or it sees our news.
    fence(Ordering::SeqCst);
    wake_if(&shared.words()[ASLEEP], |reason| reason != 0);
}

/// Sleeps unless `is_due`. It may return for no reason.
fn sleep(asleep: &AtomicU64, reason: u32, is_due: impl Fn() -> bool) {
    asleep.store(reason.into(), Ordering::Relaxed);
    // Pairs with what who wakes does: either that sees that we sleep, or we see its news.
    fence(Ordering::SeqCst);
    if !is_due() {
        futex::wait(asleep, reason);
    }
    asleep.store(0, Ordering::Relaxed);
}

#[cfg(test)]
#[cfg(not(epilogue_model))]
mod tests {
    use std::sync::Arc;

    use super::super::{Listener, Near, Size};
    use super::Far;
    use crate::sys::memory::SharedWords;

    #[test]
    fn who_came_between_the_look_at_the_bell_and_its_ringing_is_the_one_that_is_told() {
        let (near, fd) = SharedWords::create(Size::Once.words()).unwrap();
        let far = Far::new(Arc::new(SharedWords::map(&fd).unwrap())).unwrap();
        let near = Near::new(near, Size::Once);
        near.listen(Listener::Doorbell, 1);
        let told = far.bell(|_, _| {
            near.stop_listening();
            near.listen(Listener::Socket, 1);
            true
        });
        assert_eq!(told, Some(Listener::Socket));
    }
}
