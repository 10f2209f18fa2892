//! Both ends in one process: what each rule of the protocol says, and what a hostile child can do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::far::Far;
use super::near::Near;
use super::{BELL, CALL_HEAD, CONTROL, Form, Listener, Place, REPLY_TAIL, Reply, Size, pair};
use crate::sys::memory::SharedWords;

fn ends(size: Size) -> (Near, Far, Arc<SharedWords>) {
    let (near, fd) = SharedWords::create(size.words()).unwrap();
    let far = Arc::new(SharedWords::map(&fd).unwrap());
    (Near::new(near, size), Far::new(Arc::clone(&far)).unwrap(), far)
}

fn call(near: &mut Near, id: u64, count: u32, bytes: &[u8]) -> super::Ticket {
    assert!(near.has_room(bytes.len()).unwrap());
    near.push(id, count, Place::Here, bytes)
}

/// Answers one item with these bytes.
fn answer(far: &mut Far, id: u64, index: u32, bytes: &[u8]) {
    assert!(far.stage(id, index, Form::Raw));
    far.staged().extend_from_slice(bytes);
    assert!(far.has_room());
    far.commit();
}

fn parts(reply: &Reply) -> (u64, u32, u32, &[u8]) {
    (reply.id, reply.first, reply.count, &reply.bytes)
}

#[test]
fn calls_and_answers_arrive_in_order_and_whole_however_often_the_ring_goes_round() {
    let (mut near, mut far, _) = ends(Size::Once);
    for id in 1..2000u64 {
        let bytes: Vec<u8> = (0..id % 97).map(|byte| (byte + id) as u8).collect();
        call(&mut near, id, 1, &bytes);
        let incoming = far.next().unwrap();
        assert_eq!((incoming.id, incoming.count, &incoming.bytes), (id, 1, &bytes));
        assert_eq!(far.claim(incoming.at, 1), (0, 1));
        answer(&mut far, id, 0, &bytes);
        assert!(near.pop().unwrap().is_none(), "it has not been handed over");
        far.publish(7);
        let reply = near.pop().unwrap().unwrap();
        assert_eq!((parts(&reply), reply.nanos), ((id, 0, 1, &*bytes), 7));
        assert!(far.next().is_none());
    }
}

#[test]
fn an_item_is_claimed_or_taken_back_and_never_both() {
    let (mut near, mut far, _) = ends(Size::Once);
    let ticket = call(&mut near, 1, 10, &[]);
    let at = far.next().unwrap().at;
    assert_eq!(far.claim(at, 3), (0, 3));
    assert!(!near.revoke(ticket, 10), "it has begun");
    assert_eq!(near.shorten(ticket, 10, |left| left - left / 2), 7);
    assert_eq!((far.claim(at, 100), near.begun(ticket, 7)), ((3, 4), 7));
    assert_eq!(near.shorten(ticket, 7, |_| 0), 7);
    assert_eq!(far.claim(at, 1).1, 0);

    let ticket = call(&mut near, 2, 1, &[]);
    assert!(near.revoke(ticket, 1));
    let at = far.next().unwrap().at;
    assert_eq!(far.claim(at, 1).1, 0);
}

#[test]
fn what_others_write_when_the_child_has_ended_is_not_read() {
    let (mut near, mut far, _) = ends(Size::Once);
    for index in 0..2 {
        answer(&mut far, 1, index, &[1; 8]);
        far.publish(0);
    }
    near.peer_has_ended();
    // A copy that it made of itself goes on.
    answer(&mut far, 1, 2, &[1; 8]);
    far.publish(0);
    for index in 0..2 {
        assert_eq!(near.pop().unwrap().unwrap().first, index);
    }
    assert!(!near.has_reply() && near.pop().unwrap().is_none());
}

#[test]
fn what_a_child_answered_before_it_died_is_found_and_nothing_else() {
    let (mut near, mut far, _) = ends(Size::Once);
    // Some rounds, so that old records lie everywhere.
    for id in 0..500u64 {
        answer(&mut far, id, 0, &id.to_le_bytes());
        far.publish(0);
        near.pop().unwrap().unwrap();
        assert!(near.salvage().is_none(), "{id}");
    }
    answer(&mut far, 500, 4, &[1; 8]);
    answer(&mut far, 500, 5, &[2; 3]);
    assert!(far.stage(500, 6, Form::Raw));
    far.staged().extend_from_slice(&[3; 8]);
    let reply = near.salvage().unwrap();
    assert_eq!(parts(&reply), (500, 4, 2, &[1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2][..]));
}

/// Whether an item could be answered with a word.
fn answer_word(far: &mut Far, id: u64, index: u32, word: u64) -> bool {
    let mut next = index;
    far.words(id, &mut next, 1).as_mut().map(|words| words.put(word)).is_some()
}

#[test]
fn numbers_that_are_answered_as_words_read_like_all_others_and_are_found_after_a_death() {
    let (mut near, mut far, _) = ends(Size::Once);
    assert!(far.words(7, &mut 0, 1).is_some());
    assert!(far.stage(7, 0, Form::Framed), "a record that nothing was written to is none");
    far.unstage();
    let (mut expected, mut asked) = (Vec::new(), 0);
    // Enough rounds that each place in the ring is where a record ends once.
    for round in 0..300u64 {
        let count = 1 + round as u32 % 23;
        answer(&mut far, round, 0, &round.to_le_bytes());
        expected.extend_from_slice(&round.to_le_bytes());
        for index in 1..count {
            assert!(!answer_word(&mut far, round, index + 1, 0));
            assert!(!answer_word(&mut far, round + 1, index, 0));
            // Where it does not know of room, the longer way asks.
            if !answer_word(&mut far, round, index, u64::from(index)) {
                answer(&mut far, round, index, &u64::from(index).to_le_bytes());
                asked += 1;
            }
            expected.extend_from_slice(&u64::from(index).to_le_bytes());
        }
        let reply = near.salvage().unwrap();
        assert_eq!(parts(&reply), (round, 0, count, &*expected));
        far.publish(0);
        let reply = near.pop().unwrap().unwrap();
        assert_eq!(parts(&reply), (round, 0, count, &*expected));
        assert!(near.salvage().is_none());
        expected.clear();
    }
    assert!(asked < 300, "that is the exception");
    // A number that is no whole word ends it; one after it would have to begin in the middle.
    answer(&mut far, 1, 0, &[1, 2, 3]);
    assert!(!answer_word(&mut far, 1, 1, 9));
    far.publish(0);
    near.pop().unwrap().unwrap();
    answer(&mut far, 2, 0, &[0; 8]);
    let (mut index, mut answered) = (1, 1);
    let mut words = far.words(2, &mut index, 3).unwrap();
    while words.has_room() {
        words.put(9);
        answered += 1;
        // Each counts as it is written, whatever becomes of the book.
        assert_eq!(near.salvage().unwrap().count, answered);
    }
    drop(words);
    assert_eq!((index, answered), (4, 4), "no more than it was asked for");
    while answer_word(&mut far, 2, index, 9) {
        index += 1;
    }
    assert!(far.has_room(), "it stops before the ring is full");
    assert_eq!(near.salvage().unwrap().count, index);
}

#[test]
fn answers_of_another_call_or_out_of_turn_have_a_record_of_their_own() {
    let (_, mut far, _) = ends(Size::Once);
    answer(&mut far, 1, 0, &[1]);
    assert!(!far.stage(2, 1, Form::Raw));
    assert!(!far.stage(1, 2, Form::Raw));
    assert!(!far.stage(1, 1, Form::Framed));
    assert!(far.stage(1, 1, Form::Raw));
}

#[test]
fn a_full_ring_takes_nothing_until_there_is_room() {
    let (mut near, mut far, _) = ends(Size::Once);
    let mut sent = 0;
    while near.has_room(64).unwrap() {
        call(&mut near, sent, 1, &[0; 64]);
        sent += 1;
    }
    assert!(sent > 5);
    assert!(far.next().is_some() && far.next().is_some());
    assert!(near.has_room(64).unwrap(), "the first is done with");

    let mut answered = 0;
    loop {
        assert!(far.stage(answered, 0, Form::Raw));
        far.staged().extend_from_slice(&[0; 100]);
        if !far.has_room() {
            break;
        }
        far.commit();
        far.publish(0);
        answered += 1;
    }
    assert!(near.pop().unwrap().is_some());
    assert!(near.pop().unwrap().is_some());
    assert!(far.has_room());
}

#[test]
fn a_child_tells_whoever_asked_and_once() {
    let (mut near, mut far, _) = ends(Size::Once);
    let told = |far: &mut Far, id| {
        answer(far, id, 0, &[]);
        far.publish(0)
    };
    assert_eq!(told(&mut far, 1), None);
    near.listen(Listener::Socket, 1);
    // It was asked for one more than were read, and one was there already.
    assert_eq!(told(&mut far, 2), Some(Listener::Socket));
    assert_eq!(told(&mut far, 3), None);
    while near.pop().unwrap().is_some() {}
    near.listen(Listener::Doorbell, 2);
    assert_eq!(told(&mut far, 4), None);
    assert_eq!(told(&mut far, 5), Some(Listener::Doorbell));
    near.listen(Listener::Doorbell, 100);
    assert_eq!(far.idle(), Some(Listener::Doorbell));
    near.listen(Listener::Doorbell, 1);
    near.stop_listening();
    assert_eq!(told(&mut far, 6), None);
}

#[test]
fn a_child_that_writes_what_it_likes_is_found_out_or_does_no_harm() {
    let store = |words: &SharedWords, at: usize, value: u64| {
        words.words()[at].store(value, Ordering::Relaxed);
    };
    for tail in [1, 3, 257, u64::MAX, 1 << 40] {
        let (mut near, _, words) = ends(Size::Once);
        store(&words, REPLY_TAIL, tail);
        assert!(near.pop().is_err(), "{tail}");
    }
    // A record that is longer than what was written, or than the ring, or empty, or of no form.
    let replies = CONTROL + 128;
    for (second, third) in
        [(0, pair(9, 1)), (0, pair(u32::MAX, 1)), (0, pair(0, 0)), (pair(0, 3), pair(0, 1))]
    {
        let (mut near, _, words) = ends(Size::Once);
        store(&words, replies + 1, second);
        store(&words, replies + 2, third);
        store(&words, REPLY_TAIL, 5);
        assert!(near.pop().is_err(), "{third:#x}");
    }
    for head in [1, u64::MAX] {
        let (mut near, _, words) = ends(Size::Once);
        for id in 0..3 {
            call(&mut near, id, 1, &[0; 200]);
        }
        store(&words, CALL_HEAD, head.min(1000));
        assert!(near.has_room(900).is_err() || head == 1, "{head}");
    }
    // A claim word that says what ours never does: then all of it counts as begun.
    for word in [pair(5, 2), pair(0, 9), u64::MAX, pair(7, 8)] {
        let (mut near, _, words) = ends(Size::Once);
        let ticket = call(&mut near, 1, 3, &[]);
        store(&words, CONTROL, word);
        assert!(!near.revoke(ticket, 3));
        assert_eq!(near.shorten(ticket, 3, |_| 0), 3);
    }
    let (near, _, words) = ends(Size::Once);
    store(&words, BELL, u64::MAX);
    near.stop_listening();
    near.nudge();
}
