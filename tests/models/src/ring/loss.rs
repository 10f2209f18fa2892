//! What the parent finds when the child has died, at whatever access to their memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use loom::thread::JoinHandle;

use crate::Model;
use crate::ring::{Far, Near};
use crate::script::{Runs, accept, answer, call, child, content, ends, read};
use crate::sys::atomic::{Break, killed_after};

pub(crate) const MODELS: [Model; 2] = [
    Model {
        name: "a_death_shows_what_ran",
        variants: ACCESSES,
        run: a_death_shows_what_ran,
        needs: &[Break::Release, Break::Acquire, Break::Wipe],
    },
    Model {
        name: "a_death_among_numbers_shows_what_ran",
        variants: ACCESSES,
        run: a_death_among_numbers_shows_what_ran,
        needs: &[Break::Release, Break::Acquire, Break::Wipe],
    },
];

/// More than the child makes: in the last runs it lives to the end.
const ACCESSES: u32 = 48;

/// Three items in two records; the child is killed before its access of this number.
fn a_death_shows_what_ran(accesses: u32) {
    let (mut near, mut far) = gone_round();
    let ticket = call(&mut near, 0, 3);
    let (begun, done) = (Runs::new(3), Arc::new(AtomicU32::new(0)));
    let child = child({
        let (begun, done) = (begun.clone(), Arc::clone(&done));
        move || {
            killed_after(accesses, || {
                let (id, at, _) = accept(&mut far).expect("it was there before");
                for index in 0..3 {
                    assert_eq!(far.claim(at, 1), (index, 1));
                    begun.note(index);
                    answer(&mut far, id, index);
                    done.store(index + 1, Ordering::Relaxed);
                    if index > 0 {
                        far.publish(0);
                    }
                }
            });
        }
    });
    let answered = found(&mut near, child);
    let (done, claimed) = (done.load(Ordering::Relaxed), near.begun(ticket, 3));
    assert!((done..=done + 1).contains(&answered), "what it had answered is there");
    assert!((answered..=answered + 1).contains(&claimed), "one more may have begun");
    assert!((begun.in_all()..=begun.in_all() + 1).contains(&claimed));
    assert!(claimed == 0 || !near.revoke(ticket, 3));
    assert_eq!(near.shorten(ticket, 3, |_| 0), claimed, "the others go to another child");
}

/// Three items that are claimed at once, whose answers are written as words, one after the other.
fn a_death_among_numbers_shows_what_ran(accesses: u32) {
    let (mut near, mut far) = gone_round();
    let ticket = call(&mut near, 0, 3);
    let (begun, done) = (Runs::new(3), Arc::new(AtomicU32::new(0)));
    let child = child({
        let (begun, done) = (begun.clone(), Arc::clone(&done));
        move || {
            killed_after(accesses, || {
                let (id, at, _) = accept(&mut far).expect("it was there before");
                assert_eq!(far.claim(at, 3), (0, 3));
                let mut index = 0;
                let mut words = far.words(id, &mut index, 3).expect("room for three");
                for index in 0..3 {
                    begun.note(index);
                    words.put(u64::from_le_bytes(content(id, index)));
                    done.store(index + 1, Ordering::Relaxed);
                }
                drop(words);
                far.publish(0);
            });
        }
    });
    let answered = found(&mut near, child);
    let (done, claimed) = (done.load(Ordering::Relaxed), near.begun(ticket, 3));
    assert!((done..=done + 1).contains(&answered), "what it had answered is there");
    assert!((answered..=answered + 1).contains(&begun.in_all()), "one more may have begun");
    assert!(claimed == 3 || (claimed, begun.in_all()) == (0, 0));
}

/// Both ends of a ring that has gone round: what lies there is old.
fn gone_round() -> (Near, Far) {
    let (mut near, mut far, _) = ends();
    for id in 100..107 {
        answer(&mut far, id, 0);
        far.publish(0);
        near.pop().unwrap().unwrap();
    }
    (near, far)
}

/// How many answers there are of a child that dies, those included that it did not hand over.
fn found(near: &mut Near, child: JoinHandle<()>) -> u32 {
    let mut answered = 0;
    take(near, &mut answered);
    // Now it is dead, and the kernel has said so.
    child.join().unwrap();
    take(near, &mut answered);
    if let Some(reply) = near.salvage() {
        assert_eq!(read(&reply), (0, answered, reply.count), "it follows on what came");
        answered += reply.count;
    }
    answered
}

fn take(near: &mut Near, answered: &mut u32) {
    while let Some(reply) = near.pop().unwrap() {
        assert_eq!(read(&reply), (0, *answered, reply.count));
        *answered += reply.count;
    }
}
