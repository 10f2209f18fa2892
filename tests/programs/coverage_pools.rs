//! A program with many workers, whose coverage is measured: `coverage_pools STORY [ARGUMENT]`.

use std::error::Error;
use std::hint::black_box;
use std::path::PathBuf;

use epilogue::process::Builder;
use epilogue::{Pool, Process, StartMethod, embed};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let story = arguments.next().ok_or("no story")?;
    let argument = arguments.next();
    let number = || argument.as_ref().and_then(|number| number.parse().ok()).unwrap_or(1);
    match story.as_str() {
        "closed" => in_pools(|pool| assert!(pool.close().unwrap().is_clean())),
        "dropped" => in_pools(drop),
        "terminated" => in_pools(|pool| drop(pool.terminate().unwrap())),
        "recycled" => (0..number()).for_each(|_| in_process(Process::builder())),
        "served" => (0..number())
            .for_each(|_| in_process(Process::builder().start_method(StartMethod::Server))),
        "cleared" => in_process(Process::builder().env_clear()),
        "opted-out" => {
            in_process(Process::builder().env_clear().env("LLVM_PROFILE_FILE", "/dev/null"));
        }
        "moved" => {
            let directory = PathBuf::from(argument.ok_or("no directory")?);
            embed::cleanup_on_sigterm()?;
            std::env::set_current_dir(&directory)?;
            in_process(Process::builder());
            in_process(Process::builder().current_dir(directory.join("deeper")));
        }
        "aborts" => {
            for is_careful in [false, true] {
                assert!(Process::start(is_careful, aborts)?.join().is_err());
            }
        }
        "killed" => {
            let process = Process::start((), |()| {
                branch(7);
                embed::flush().unwrap();
                branch(8);
                nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
            })?;
            assert!(process.join().is_err());
        }
        other => Err(format!("no such story: {other}"))?,
    }
    Ok(())
}

/// As pytest-cov's tests did it: 33 pools of 3 workers, 99 branches, each taken once.
fn in_pools(end: fn(Pool)) {
    for round in 0..33 {
        let pool = Pool::new(3).unwrap();
        let sum: u32 = pool.map((0..3).map(|n| round * 3 + n), branch).unwrap().into_iter().sum();
        assert_eq!(sum, round * 9 + 3);
        end(pool);
    }
}

fn in_process(builder: Builder) {
    assert_eq!(builder.start(7, branch).unwrap().join().unwrap(), 7);
}

fn aborts(is_careful: bool) -> u32 {
    if is_careful {
        embed::cleanup_on_crash().unwrap();
    }
    match branch(7) {
        7 => std::process::abort(),
        other => other,
    }
}

#[inline(never)]
fn step(n: u32) -> u32 {
    black_box(n)
}

/// Ninety-nine branches. The test counts the lines that call `step`.
fn branch(n: u32) -> u32 {
    match n {
        0 => step(0),
        1 => step(1),
        2 => step(2),
        3 => step(3),
        4 => step(4),
        5 => step(5),
        6 => step(6),
        7 => step(7),
        8 => step(8),
        9 => step(9),
        10 => step(10),
        11 => step(11),
        12 => step(12),
        13 => step(13),
        14 => step(14),
        15 => step(15),
        16 => step(16),
        17 => step(17),
        18 => step(18),
        19 => step(19),
        20 => step(20),
        21 => step(21),
        22 => step(22),
        23 => step(23),
        24 => step(24),
        25 => step(25),
        26 => step(26),
        27 => step(27),
        28 => step(28),
        29 => step(29),
        30 => step(30),
        31 => step(31),
        32 => step(32),
        33 => step(33),
        34 => step(34),
        35 => step(35),
        36 => step(36),
        37 => step(37),
        38 => step(38),
        39 => step(39),
        40 => step(40),
        41 => step(41),
        42 => step(42),
        43 => step(43),
        44 => step(44),
        45 => step(45),
        46 => step(46),
        47 => step(47),
        48 => step(48),
        49 => step(49),
        50 => step(50),
        51 => step(51),
        52 => step(52),
        53 => step(53),
        54 => step(54),
        55 => step(55),
        56 => step(56),
        57 => step(57),
        58 => step(58),
        59 => step(59),
        60 => step(60),
        61 => step(61),
        62 => step(62),
        63 => step(63),
        64 => step(64),
        65 => step(65),
        66 => step(66),
        67 => step(67),
        68 => step(68),
        69 => step(69),
        70 => step(70),
        71 => step(71),
        72 => step(72),
        73 => step(73),
        74 => step(74),
        75 => step(75),
        76 => step(76),
        77 => step(77),
        78 => step(78),
        79 => step(79),
        80 => step(80),
        81 => step(81),
        82 => step(82),
        83 => step(83),
        84 => step(84),
        85 => step(85),
        86 => step(86),
        87 => step(87),
        88 => step(88),
        89 => step(89),
        90 => step(90),
        91 => step(91),
        92 => step(92),
        93 => step(93),
        94 => step(94),
        95 => step(95),
        96 => step(96),
        97 => step(97),
        98 => step(98),
        _ => 0,
    }
}
