//! What one side hands over arrives whole and once, or is taken back.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::Model;
use crate::ring::{Form, Place};
use crate::script::{Runs, accept, answer, call, child, ends, read};
use crate::sys::atomic::Break;

pub(crate) const MODELS: [Model; 5] = [
    Model {
        name: "publish_and_claim",
        variants: 1,
        run: publish_and_claim,
        needs: &[Break::Release, Break::Acquire],
    },
    Model {
        name: "claim_or_take_back",
        variants: 3,
        run: claim_or_take_back,
        needs: &[Break::Swap],
    },
    Model {
        name: "claim_tells_when",
        variants: 1,
        run: claim_tells_when,
        needs: &[Break::Release, Break::Acquire],
    },
    Model {
        name: "calls_go_round",
        variants: 1,
        run: calls_go_round,
        needs: &[Break::Release, Break::Acquire, Break::Swap],
    },
    Model {
        name: "segments_change_hands",
        variants: 1,
        run: segments_change_hands,
        needs: &[Break::Release, Break::Acquire],
    },
];

/// Two calls, of two items and of one: each item is run once, and its answer arrives, in order.
fn publish_and_claim(_: u32) {
    let (mut near, mut far, _) = ends();
    let (runs, ours) = (Runs::new(3), Runs::new(3));
    let child = child({
        let runs = runs.clone();
        move || {
            while runs.in_all() < 3 {
                let Some((id, at, count)) = accept(&mut far) else {
                    thread::yield_now();
                    continue;
                };
                for index in 0..count {
                    assert_eq!(far.claim(at, 1), (index, 1));
                    runs.note(id as u32 + index);
                    answer(&mut far, id, index);
                }
                far.publish(0);
            }
        }
    });
    call(&mut near, 0, 2);
    call(&mut near, 2, 1);
    let mut next = 0;
    let mut take = |near: &mut crate::ring::Near| {
        while let Some(reply) = near.pop().unwrap() {
            let (id, first, count) = read(&reply);
            assert_eq!(id as u32 + first, next, "in order");
            (next..next + count).for_each(|item| ours.note(item));
            next += count;
        }
    };
    take(&mut near);
    child.join().unwrap();
    take(&mut near);
    assert!((0..3).all(|item| (runs.of(item), ours.of(item)) == (1, 1)));
}

/// Of three items each is run, or taken back, and never both, however they are taken back.
fn claim_or_take_back(variant: u32) {
    let (mut near, mut far, _) = ends();
    let runs = Runs::new(3);
    let ticket = call(&mut near, 0, 3);
    let child = child({
        let runs = runs.clone();
        move || {
            let (_, at, _) = accept(&mut far).expect("it was there before");
            // One, and then what is left together, as a worker does it.
            for most in [1, 2, 2] {
                let (first, count) = far.claim(at, most);
                (first..first + count).for_each(|item| runs.note(item));
            }
        }
    });
    let end = match variant {
        0 if near.revoke(ticket, 3) => 0,
        0 => 3,
        1 => near.shorten(ticket, 3, |left| left / 2),
        _ => {
            let end = near.shorten(ticket, 3, |left| left - left / 2);
            near.shorten(ticket, end, |_| 0)
        }
    };
    assert!(near.begun(ticket, 3) <= end);
    child.join().unwrap();
    assert_eq!(near.begun(ticket, 3), end, "it begins all that it was left");
    assert!((0..3).all(|item| runs.of(item) == u32::from(item < end)));
}

/// Who sees a claim sees when the call began.
fn claim_tells_when(_: u32) {
    let (mut near, mut far, _) = ends();
    let ticket = call(&mut near, 0, 1);
    let child = child(move || {
        let (_, at, _) = accept(&mut far).expect("it was there before");
        far.note_begin(at, 7);
        assert_eq!(far.claim(at, 1), (0, 1));
    });
    if near.begun(ticket, 1) == 1 {
        assert_eq!((near.begun_at(), near.began_at(ticket)), (7, Some(7)));
    }
    child.join().unwrap();
}

/// A call is written over one that is done with, which cannot be taken back any more; never over another.
fn calls_go_round(_: u32) {
    let (mut near, mut far, _) = ends();
    // Without an argument, so that the fifth lies exactly where the first did.
    let tickets = [0, 1, 2, 3].map(|id| near.push(id, 1, Place::Here, &[]));
    assert!(!near.has_room(0).unwrap(), "four fill it");
    let child = child(move || {
        let mut claimed = 0;
        for id in 0.. {
            let Some(incoming) = far.next() else { break };
            assert_eq!((incoming.id, incoming.count), (id, 1));
            claimed |= u32::from(far.claim(incoming.at, 1).1 == 1) << id;
        }
        claimed
    });
    let is_over_the_first = near.has_room(0).unwrap();
    if is_over_the_first {
        near.push(4, 1, Place::Here, &[]);
        assert!(!near.revoke(tickets[0], 1));
        assert_eq!(near.begun(tickets[0], 1), 1);
    }
    let is_revoked = near.revoke(tickets[1], 1);
    let claimed = child.join().unwrap();
    assert_eq!(claimed & 0b01111, if is_revoked { 0b01101 } else { 0b01111 });
    assert!(claimed < 0b10000 || is_over_the_first);
}

/// Memory that is no atomic goes to the parent with a reply, and comes back as it is dropped.
fn segments_change_hands(_: u32) {
    let (mut near, mut far, _) = ends();
    #[expect(clippy::arc_with_non_send_sync, reason = "loom's threads are none")]
    let segment = Arc::new(UnsafeCell::new(0));
    let child = child({
        let segment = Arc::clone(&segment);
        move || {
            // Loom finds two who have it at the same time.
            segment.with_mut(|_| ());
            assert!(far.stage(0, 0, Form::Bulk));
            assert!(far.has_room());
            far.commit();
            far.publish(0);
            if far.returned().has(5) {
                segment.with_mut(|_| ());
            }
        }
    });
    if let Some(reply) = near.pop().unwrap() {
        assert_eq!(reply.form, Form::Bulk);
        let deposit = near.deposit(5);
        segment.with(|_| ());
        drop(deposit);
    }
    child.join().unwrap();
}
