//! Nobody sleeps through news. Who does, and is never woken, is a deadlock, which loom finds.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};

use crate::Model;
use crate::ring::{self, Form, Listener};
use crate::script::{Bell, accept, answer, call, child, content, ends, read};
use crate::sys::atomic::Break;

pub(crate) const MODELS: [Model; 4] = [
    Model {
        name: "a_call_wakes_the_child",
        variants: 1,
        run: a_call_wakes_the_child,
        needs: &[Break::Fence, Break::SeqCst, Break::Futex, Break::Release, Break::Acquire],
    },
    Model {
        name: "a_reply_rings_the_bell",
        variants: 2,
        run: a_reply_rings_the_bell,
        needs: &[Break::Fence, Break::SeqCst, Break::Release, Break::Acquire],
    },
    Model {
        name: "room_wakes_the_child",
        variants: 1,
        run: room_wakes_the_child,
        needs: &[Break::Fence, Break::Futex, Break::Release, Break::Acquire],
    },
    Model {
        name: "the_end_wakes_the_child",
        variants: 2,
        run: the_end_wakes_the_child,
        needs: &[Break::Fence, Break::Futex, Break::Release, Break::Acquire],
    },
];

/// A child that has nothing to do hears of each of two calls.
fn a_call_wakes_the_child(_: u32) {
    let (mut near, mut far, _) = ends();
    let child = child(move || {
        for expected in 0..2 {
            let (id, _, _) = loop {
                match accept(&mut far) {
                    Some(call) => break call,
                    None => far.wait(|| false),
                }
            };
            assert_eq!(id, expected);
        }
    });
    call(&mut near, 0, 1);
    call(&mut near, 1, 1);
    child.join().unwrap();
}

/// A reader hears of two replies: of each, or of both together; or that no more come.
fn a_reply_rings_the_bell(variant: u32) {
    let records = [1, 3][variant as usize];
    let (mut near, mut far, _) = ends();
    let bell = Bell::new();
    let child = child({
        let bell = bell.clone();
        move || {
            for id in 0..2 {
                answer(&mut far, id, 0);
                bell.tell(far.publish(0));
            }
            bell.tell(far.idle());
        }
    });
    let mut taken = 0;
    while taken < 2 {
        while let Some(reply) = near.pop().unwrap() {
            assert_eq!(read(&reply), (taken, 0, 1));
            taken += 1;
        }
        if taken < 2 {
            near.listen(Listener::Doorbell, records);
            if !near.has_reply() {
                bell.wait();
            }
            near.stop_listening();
        }
    }
    child.join().unwrap();
}

/// A child whose answers fill the ring goes on when the parent has taken some.
fn room_wakes_the_child(_: u32) {
    const ANSWERS: u64 = 3;
    let (mut near, mut far, _) = ends();
    let bell = Bell::new();
    let child = child({
        let bell = bell.clone();
        move || {
            for id in 0..ANSWERS {
                assert!(far.stage(id, 0, Form::Raw));
                far.staged().extend_from_slice(&[content(id, 0); 8].concat());
                while !far.has_room() {
                    bell.tell(Some(Listener::Socket));
                    far.wait_for_room();
                }
                far.commit();
                far.publish(0);
            }
            // It has no more to do.
            bell.ring();
        }
    });
    let mut taken = 0;
    while taken < ANSWERS {
        bell.wait();
        while let Some(reply) = near.pop().unwrap() {
            assert_eq!((reply.id, &reply.bytes[..]), (taken, &[content(taken, 0); 8].concat()[..]));
            taken += 1;
        }
        near.made_room();
    }
    child.join().unwrap();
}

/// A child that sleeps sees that no more comes, and does before it ends what had come before.
fn the_end_wakes_the_child(calls: u32) {
    let (mut near, mut far, words) = ends();
    let is_over = Arc::new(AtomicBool::new(false));
    let child = child({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut done = 0;
            loop {
                let last = is_over.load(Ordering::Acquire);
                match accept(&mut far) {
                    Some(_) => done += 1,
                    None if last => return done,
                    None => far.wait(|| is_over.load(Ordering::Acquire)),
                }
            }
        }
    });
    for id in 0..calls {
        call(&mut near, id.into(), 1);
    }
    is_over.store(true, Ordering::Release);
    ring::wake(&words);
    assert_eq!(child.join().unwrap(), calls);
}
